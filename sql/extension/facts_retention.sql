-- facts: retention

CREATE FUNCTION crm.enforce_retention() RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_enforce_retention';
COMMENT ON FUNCTION crm.enforce_retention() IS 'Drops the oldest partition whose rows need not be kept any longer, by crm.retention, and returns its name; NULL where there is none.';
REVOKE ALL ON FUNCTION crm.enforce_retention() FROM PUBLIC;
