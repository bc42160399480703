-- rules: SQL boolean expressions over a contact's profile

CREATE FUNCTION crm.audience(rule text, as_of timestamptz DEFAULT NULL) RETURNS SETOF bigint
LANGUAGE c VOLATILE ROWS 10000 AS 'MODULE_PATHNAME', 'crm_sql_audience';
COMMENT ON FUNCTION crm.audience(text, timestamptz) IS 'The contacts for whom a rule holds at as_of (default now).';
REVOKE ALL ON FUNCTION crm.audience(text, timestamptz) FROM PUBLIC;

CREATE FUNCTION crm.rule_holds(contact_id bigint, rule text, as_of timestamptz DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'crm_sql_rule_holds';
COMMENT ON FUNCTION crm.rule_holds(bigint, text, timestamptz) IS 'Whether a rule holds for one contact at as_of (default now); false for a contact that is not there.';
REVOKE ALL ON FUNCTION crm.rule_holds(bigint, text, timestamptz) FROM PUBLIC;

CREATE FUNCTION crm.explain(contact_id bigint, rule text, as_of timestamptz DEFAULT NULL,
	OUT part text, OUT holds boolean, OUT found text)
RETURNS SETOF record
LANGUAGE c VOLATILE ROWS 5 AS 'MODULE_PATHNAME', 'crm_sql_explain_rule';
COMMENT ON FUNCTION crm.explain(bigint, text, timestamptz) IS 'Why a rule holds for a contact or does not: the rule, then each of its conditions with its truth and the values it found.';
REVOKE ALL ON FUNCTION crm.explain(bigint, text, timestamptz) FROM PUBLIC;
