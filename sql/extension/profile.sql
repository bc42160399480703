-- profile: what is derived, checked against the facts

CREATE FUNCTION crm.verify(OUT check_name text, OUT contact_id bigint, OUT expected text, OUT found text)
RETURNS SETOF record
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'crm_sql_verify';
COMMENT ON FUNCTION crm.verify() IS 'Recomputes everything derived from the facts and lists each difference; no rows = sound.';
REVOKE ALL ON FUNCTION crm.verify() FROM PUBLIC;

CREATE FUNCTION crm.tick(as_of timestamptz DEFAULT NULL, max_steps integer DEFAULT NULL) RETURNS integer
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_tick';
COMMENT ON FUNCTION crm.tick(timestamptz, integer) IS 'Makes the moves that are due at as_of (default now): of tiers, stages, segments and journeys. Returns the journey steps entered, at most max_steps or so.';
REVOKE ALL ON FUNCTION crm.tick(timestamptz, integer) FROM PUBLIC;
