-- journey: what a definition would have done

CREATE FUNCTION crm.simulate(definition jsonb, period_start timestamptz, period_end timestamptz, assume jsonb DEFAULT '{}',
	OUT step text, OUT entered bigint, OUT outcome text, OUT next_step text, OUT moves bigint)
RETURNS SETOF record
LANGUAGE c VOLATILE ROWS 20 AS 'MODULE_PATHNAME', 'crm_sql_simulate';
COMMENT ON FUNCTION crm.simulate(jsonb, timestamptz, timestamptz, jsonb) IS 'How many would have entered each step of a journey, and how they would have left it, by the facts recorded from period_start to before period_end. Reads only.';
REVOKE ALL ON FUNCTION crm.simulate(jsonb, timestamptz, timestamptz, jsonb) FROM PUBLIC;
