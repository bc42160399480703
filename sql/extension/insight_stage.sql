-- insight: how long contacts stay at stages, and where they go

CREATE FUNCTION crm.time_in_stage(period_start timestamptz, period_end timestamptz)
RETURNS TABLE (stage text, rank integer, stays bigint, contacts bigint, moved_on bigint, still_there bigint,
	median_seconds double precision, p90_seconds double precision)
LANGUAGE c STABLE ROWS 10 AS 'MODULE_PATHNAME', 'crm_sql_time_in_stage';
COMMENT ON FUNCTION crm.time_in_stage(timestamptz, timestamptz) IS 'For each stage the stays that began in a period, rows of crm.stage_history: how many, how long those took that are over, and how many go on.';
REVOKE ALL ON FUNCTION crm.time_in_stage(timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION crm.stage_conversion(period_start timestamptz, period_end timestamptz)
RETURNS TABLE (from_stage text, to_stage text, stays bigint, contacts bigint, share numeric, median_seconds double precision)
LANGUAGE c STABLE ROWS 50 AS 'MODULE_PATHNAME', 'crm_sql_stage_conversion';
COMMENT ON FUNCTION crm.stage_conversion(timestamptz, timestamptz) IS 'Where contacts who were at a stage in a period had gone by its end: to which stage, or nowhere (NULL), how many, which share, and after how long.';
REVOKE ALL ON FUNCTION crm.stage_conversion(timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION crm.stage_conversion_rows(period_start timestamptz, period_end timestamptz)
RETURNS TABLE (from_stage text, to_stage text, contact_id bigint, since timestamptz, until timestamptz)
LANGUAGE c STABLE ROWS 1000 AS 'MODULE_PATHNAME', 'crm_sql_stage_conversion_rows';
COMMENT ON FUNCTION crm.stage_conversion_rows(timestamptz, timestamptz) IS 'The stays that crm.stage_conversion() counts, one a row.';
REVOKE ALL ON FUNCTION crm.stage_conversion_rows(timestamptz, timestamptz) FROM PUBLIC;
