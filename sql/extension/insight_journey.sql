-- insight: functions over journeys

CREATE FUNCTION crm.journey_funnel(journey text, period_start timestamptz, period_end timestamptz,
	by_time text DEFAULT 'entry', filter text DEFAULT NULL, version integer DEFAULT NULL)
RETURNS TABLE (version integer, step text, "position" integer, entered bigint, converted bigint, dropped bigint,
	still_open bigint, median_seconds double precision, p90_seconds double precision)
LANGUAGE c VOLATILE ROWS 50 AS 'MODULE_PATHNAME', 'crm_sql_journey_funnel';
COMMENT ON FUNCTION crm.journey_funnel(text, timestamptz, timestamptz, text, text, integer) IS 'How many enrolments of a period came to each step of a journey, went on, were left there or are still there; filter is a rule over the profile of those counted.';
REVOKE ALL ON FUNCTION crm.journey_funnel(text, timestamptz, timestamptz, text, text, integer) FROM PUBLIC;

CREATE FUNCTION crm.journey_rows(journey text, step text DEFAULT NULL, outcome text DEFAULT NULL,
	version integer DEFAULT NULL, counted text DEFAULT NULL, period_start timestamptz DEFAULT NULL,
	period_end timestamptz DEFAULT NULL, by_time text DEFAULT 'entry', filter text DEFAULT NULL)
RETURNS TABLE (contact_id bigint, enrolment_id bigint, visit integer, version integer, step text,
	entered_at timestamptz, left_at timestamptz, state text, outcome text, next_step text, message_id bigint,
	message_state text, times bigint)
LANGUAGE c VOLATILE ROWS 1000 AS 'MODULE_PATHNAME', 'crm_sql_journey_rows';
COMMENT ON FUNCTION crm.journey_rows(text, text, text, integer, text, timestamptz, timestamptz, text, text) IS 'The rows behind a number of journey_summary, journey_step, journey_edge or journey_funnel: counted names its column.';
REVOKE ALL ON FUNCTION crm.journey_rows(text, text, text, integer, text, timestamptz, timestamptz, text, text) FROM PUBLIC;

CREATE FUNCTION crm.journey_svg(journey text, version integer DEFAULT NULL) RETURNS text
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'crm_sql_journey_svg';
COMMENT ON FUNCTION crm.journey_svg(text, integer) IS 'A version of a journey (default the current one) as a standalone SVG: its steps and edges with how many people took them.';
REVOKE ALL ON FUNCTION crm.journey_svg(text, integer) FROM PUBLIC;

CREATE FUNCTION crm.journey_mermaid(journey text, version integer DEFAULT NULL) RETURNS text
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'crm_sql_journey_mermaid';
COMMENT ON FUNCTION crm.journey_mermaid(text, integer) IS 'A version of a journey (default the current one) as a Mermaid flowchart, with how many people took each edge.';
REVOKE ALL ON FUNCTION crm.journey_mermaid(text, integer) FROM PUBLIC;
