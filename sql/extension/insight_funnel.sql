-- insight: how far people came through the steps of a funnel

CREATE TYPE crm.funnel_state;

CREATE FUNCTION crm.funnel_state_in(cstring) RETURNS crm.funnel_state
AS 'MODULE_PATHNAME', 'crm_funnel_state_in' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.funnel_state_in(cstring) IS 'I/O';

CREATE FUNCTION crm.funnel_state_out(crm.funnel_state) RETURNS cstring
AS 'MODULE_PATHNAME', 'crm_funnel_state_out' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.funnel_state_out(crm.funnel_state) IS 'I/O';

CREATE FUNCTION crm.funnel_state_recv(internal) RETURNS crm.funnel_state
AS 'MODULE_PATHNAME', 'crm_funnel_state_recv' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.funnel_state_recv(internal) IS 'I/O';

CREATE FUNCTION crm.funnel_state_send(crm.funnel_state) RETURNS bytea
AS 'MODULE_PATHNAME', 'crm_funnel_state_send' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.funnel_state_send(crm.funnel_state) IS 'I/O';

CREATE TYPE crm.funnel_state (
	INPUT   = crm.funnel_state_in,
	OUTPUT  = crm.funnel_state_out,
	RECEIVE = crm.funnel_state_recv,
	SEND    = crm.funnel_state_send,
	INTERNALLENGTH = VARIABLE,
	ALIGNMENT = double,
	STORAGE = extended
);
COMMENT ON TYPE crm.funnel_state IS 'What crm.funnel() has gathered: the steps, the window, and the rows that match a step.';

-- Told dearer than it is: with ten rows a group several processes are faster, and else the planner leaves them out.
CREATE FUNCTION crm.funnel_add(state crm.funnel_state, within interval, at timestamptz, VARIADIC steps boolean[])
RETURNS crm.funnel_state
LANGUAGE c STABLE PARALLEL SAFE COST 25 AS 'MODULE_PATHNAME', 'crm_sql_funnel_add';
COMMENT ON FUNCTION crm.funnel_add(crm.funnel_state, interval, timestamptz, boolean[]) IS 'Part of crm.funnel(): gathers a row.';
REVOKE ALL ON FUNCTION crm.funnel_add(crm.funnel_state, interval, timestamptz, boolean[]) FROM PUBLIC;

CREATE FUNCTION crm.funnel_merge(state crm.funnel_state, other crm.funnel_state) RETURNS crm.funnel_state
LANGUAGE c STABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'crm_sql_funnel_merge';
COMMENT ON FUNCTION crm.funnel_merge(crm.funnel_state, crm.funnel_state) IS 'Part of crm.funnel(): joins what two processes gathered.';
REVOKE ALL ON FUNCTION crm.funnel_merge(crm.funnel_state, crm.funnel_state) FROM PUBLIC;

CREATE FUNCTION crm.funnel_level(state crm.funnel_state) RETURNS integer
LANGUAGE c STABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'crm_sql_funnel_level';
COMMENT ON FUNCTION crm.funnel_level(crm.funnel_state) IS 'Part of crm.funnel(): the level of what was gathered.';
REVOKE ALL ON FUNCTION crm.funnel_level(crm.funnel_state) FROM PUBLIC;

CREATE FUNCTION crm.funnel_reached(state crm.funnel_state) RETURNS timestamptz[]
LANGUAGE c STABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'crm_sql_funnel_times';
COMMENT ON FUNCTION crm.funnel_reached(crm.funnel_state) IS 'Part of crm.funnel_times(): when the steps of what was gathered were reached.';
REVOKE ALL ON FUNCTION crm.funnel_reached(crm.funnel_state) FROM PUBLIC;

CREATE AGGREGATE crm.funnel(within interval, at timestamptz, VARIADIC steps boolean[]) (
	SFUNC = crm.funnel_add,
	STYPE = crm.funnel_state,
	SSPACE = 256,
	FINALFUNC = crm.funnel_level,
	FINALFUNC_MODIFY = READ_ONLY,
	COMBINEFUNC = crm.funnel_merge,
	PARALLEL = SAFE
);
COMMENT ON AGGREGATE crm.funnel(interval, timestamptz, boolean[]) IS 'How many steps were taken in their order by rows of their own, the last one at most within after the first.';

CREATE AGGREGATE crm.funnel_times(within interval, at timestamptz, VARIADIC steps boolean[]) (
	SFUNC = crm.funnel_add,
	STYPE = crm.funnel_state,
	SSPACE = 256,
	FINALFUNC = crm.funnel_reached,
	FINALFUNC_MODIFY = READ_ONLY,
	COMBINEFUNC = crm.funnel_merge,
	PARALLEL = SAFE
);
COMMENT ON AGGREGATE crm.funnel_times(interval, timestamptz, boolean[]) IS 'When the steps that crm.funnel() counts were reached: one time a step, by the rows that complete the level first.';

CREATE FUNCTION crm.fact_funnel(steps jsonb, within interval, period_start timestamptz, period_end timestamptz,
	by_time text DEFAULT 'entry', time_zone text DEFAULT NULL, split_by text DEFAULT NULL, source text DEFAULT NULL,
	store_id bigint DEFAULT NULL, qr_code_id bigint DEFAULT NULL, associate_id bigint DEFAULT NULL,
	stage text DEFAULT NULL, arm jsonb DEFAULT NULL, filter text DEFAULT NULL)
RETURNS TABLE (part text, step integer, name text, reached bigint, converted bigint, dropped bigint, still_open bigint,
	median_seconds double precision, p90_seconds double precision)
LANGUAGE c VOLATILE ROWS 20 AS 'MODULE_PATHNAME', 'crm_sql_fact_funnel';
COMMENT ON FUNCTION crm.fact_funnel(jsonb, interval, timestamptz, timestamptz, text, text, text, text, bigint, bigint, bigint, text, jsonb, text) IS 'How many contacts came through each step of a funnel of facts, went on, were lost or are still under way, and how long it took them.';
REVOKE ALL ON FUNCTION crm.fact_funnel(jsonb, interval, timestamptz, timestamptz, text, text, text, text, bigint, bigint, bigint, text, jsonb, text) FROM PUBLIC;

CREATE FUNCTION crm.fact_funnel_rows(steps jsonb, within interval, period_start timestamptz, period_end timestamptz,
	by_time text DEFAULT 'entry', time_zone text DEFAULT NULL, split_by text DEFAULT NULL, source text DEFAULT NULL,
	store_id bigint DEFAULT NULL, qr_code_id bigint DEFAULT NULL, associate_id bigint DEFAULT NULL,
	stage text DEFAULT NULL, arm jsonb DEFAULT NULL, filter text DEFAULT NULL,
	step integer DEFAULT NULL, counted text DEFAULT NULL)
RETURNS TABLE (contact_id bigint, part text, level integer, state text, entered_at timestamptz,
	reached_at timestamptz[], open_until timestamptz)
LANGUAGE c VOLATILE ROWS 1000 AS 'MODULE_PATHNAME', 'crm_sql_fact_funnel_rows';
COMMENT ON FUNCTION crm.fact_funnel_rows(jsonb, interval, timestamptz, timestamptz, text, text, text, text, bigint, bigint, bigint, text, jsonb, text, integer, text) IS 'The contacts behind a number of fact_funnel(): counted names its column, step its row.';
REVOKE ALL ON FUNCTION crm.fact_funnel_rows(jsonb, interval, timestamptz, timestamptz, text, text, text, text, bigint, bigint, bigint, text, jsonb, text, integer, text) FROM PUBLIC;
