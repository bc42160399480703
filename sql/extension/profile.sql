-- profile: what is derived, checked against the facts

CREATE FUNCTION crm.verify(OUT check_name text, OUT contact_id bigint, OUT expected text, OUT found text)
RETURNS SETOF record
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'crm_sql_verify';
COMMENT ON FUNCTION crm.verify() IS 'Recomputes everything derived from the facts and lists each difference; no rows = sound.';
REVOKE ALL ON FUNCTION crm.verify() FROM PUBLIC;
