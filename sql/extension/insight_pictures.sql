-- insight: pictures over periods

CREATE FUNCTION crm.journey_funnel_svg(journey text, period_start timestamptz, period_end timestamptz,
	by_time text DEFAULT 'entry', filter text DEFAULT NULL, version integer DEFAULT NULL, time_zone text DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'crm_sql_journey_funnel_svg';
COMMENT ON FUNCTION crm.journey_funnel_svg(text, timestamptz, timestamptz, text, text, integer, text) IS 'The rows of journey_funnel() as a standalone SVG: a bar for each step, divided into those who went on, are still there, and left.';
REVOKE ALL ON FUNCTION crm.journey_funnel_svg(text, timestamptz, timestamptz, text, text, integer, text) FROM PUBLIC;

CREATE FUNCTION crm.trend(measure text, period_start timestamptz, period_end timestamptz, time_zone text DEFAULT NULL,
	bucket text DEFAULT NULL)
RETURNS TABLE (day date, series text, value numeric, complete boolean)
LANGUAGE c STABLE ROWS 100 AS 'MODULE_PATHNAME', 'crm_sql_trend';
COMMENT ON FUNCTION crm.trend(text, timestamptz, timestamptz, text, text) IS 'What happened, or what there was, in each day, week or month of a period: one row a bucket and series, NULL where nothing is known.';
REVOKE ALL ON FUNCTION crm.trend(text, timestamptz, timestamptz, text, text) FROM PUBLIC;

CREATE FUNCTION crm.trend_svg(measure text, period_start timestamptz, period_end timestamptz, time_zone text DEFAULT NULL,
	bucket text DEFAULT NULL)
RETURNS text
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'crm_sql_trend_svg';
COMMENT ON FUNCTION crm.trend_svg(text, timestamptz, timestamptz, text, text) IS 'The rows of trend() as a standalone SVG: curves over days, or a row for each series where there are many.';
REVOKE ALL ON FUNCTION crm.trend_svg(text, timestamptz, timestamptz, text, text) FROM PUBLIC;

CREATE FUNCTION crm.report_html(period_start timestamptz, period_end timestamptz, time_zone text DEFAULT NULL,
	title text DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'crm_sql_report_html';
COMMENT ON FUNCTION crm.report_html(timestamptz, timestamptz, text, text) IS 'A period as one self-contained HTML page: stages, contacts, scans, orders, journeys, maps, messages, campaigns, loyalty and the quality of the data.';
REVOKE ALL ON FUNCTION crm.report_html(timestamptz, timestamptz, text, text) FROM PUBLIC;

CREATE FUNCTION crm.funnel_svg(steps jsonb, within interval, period_start timestamptz, period_end timestamptz,
	by_time text DEFAULT 'entry', time_zone text DEFAULT NULL, split_by text DEFAULT NULL, source text DEFAULT NULL,
	store_id bigint DEFAULT NULL, qr_code_id bigint DEFAULT NULL, associate_id bigint DEFAULT NULL,
	stage text DEFAULT NULL, arm jsonb DEFAULT NULL, filter text DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'crm_sql_funnel_svg';
COMMENT ON FUNCTION crm.funnel_svg(jsonb, interval, timestamptz, timestamptz, text, text, text, text, bigint, bigint, bigint, text, jsonb, text) IS 'The rows of fact_funnel() as a standalone SVG: a bar for each step, divided into those who went on, may go on yet, and went no further.';
REVOKE ALL ON FUNCTION crm.funnel_svg(jsonb, interval, timestamptz, timestamptz, text, text, text, text, bigint, bigint, bigint, text, jsonb, text) FROM PUBLIC;

CREATE FUNCTION crm.map_svg(map text, period_start timestamptz DEFAULT NULL, period_end timestamptz DEFAULT NULL,
	persona text DEFAULT NULL, version integer DEFAULT NULL, time_zone text DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'crm_sql_map_svg';
COMMENT ON FUNCTION crm.map_svg(text, timestamptz, timestamptz, text, integer, text) IS 'A map of the customers'' journey as a standalone SVG: stages and touchpoints, emotions, highs and lows, and the paths that people took.';
REVOKE ALL ON FUNCTION crm.map_svg(text, timestamptz, timestamptz, text, integer, text) FROM PUBLIC;
