-- journey: why somebody enters or goes on, or does not

CREATE FUNCTION crm.explain(contact_id bigint, journey text, step text, as_of timestamptz DEFAULT NULL,
	OUT part text, OUT holds boolean, OUT found text)
RETURNS SETOF record
LANGUAGE c VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'crm_sql_explain_journey';
COMMENT ON FUNCTION crm.explain(bigint, text, text, timestamptz) IS 'Why a contact could enter a journey at as_of (default now), where step is NULL, or go on from a step of it, or could not: each condition with its truth and what was found.';
REVOKE ALL ON FUNCTION crm.explain(bigint, text, text, timestamptz) FROM PUBLIC;

CREATE FUNCTION crm.eligible(contact_id bigint, journey text, step text DEFAULT NULL, as_of timestamptz DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'crm_sql_eligible';
COMMENT ON FUNCTION crm.eligible(bigint, text, text, timestamptz) IS 'Whether a contact could enter a journey at as_of (default now), or with a step whether that would let him through; explain() says why.';
REVOKE ALL ON FUNCTION crm.eligible(bigint, text, text, timestamptz) FROM PUBLIC;
