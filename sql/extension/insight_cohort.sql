-- insight: cohorts and retention

CREATE FUNCTION crm.cohort(start_kind text, return_kind text, period_start timestamptz, period_end timestamptz,
	unit text DEFAULT 'week', periods integer DEFAULT 12, start_rule text DEFAULT NULL, return_rule text DEFAULT NULL,
	time_zone text DEFAULT NULL, retention text DEFAULT 'classic', as_of timestamptz DEFAULT NULL)
RETURNS TABLE (cohort_start date, contacts bigint, unit_offset integer, returned bigint, share numeric, complete boolean)
LANGUAGE c VOLATILE ROWS 100 AS 'MODULE_PATHNAME', 'crm_sql_cohort';
COMMENT ON FUNCTION crm.cohort(text, text, timestamptz, timestamptz, text, integer, text, text, text, text, timestamptz) IS 'Of the contacts whose first fact of a kind fell into the same day, week or month: how many a fact of another kind, or of the same, brought back in that unit and in those after it.';
REVOKE ALL ON FUNCTION crm.cohort(text, text, timestamptz, timestamptz, text, integer, text, text, text, text, timestamptz) FROM PUBLIC;

CREATE FUNCTION crm.cohort_rows(start_kind text, return_kind text, period_start timestamptz, period_end timestamptz,
	unit text DEFAULT 'week', periods integer DEFAULT 12, start_rule text DEFAULT NULL, return_rule text DEFAULT NULL,
	time_zone text DEFAULT NULL, retention text DEFAULT 'classic', as_of timestamptz DEFAULT NULL,
	cohort_start date DEFAULT NULL, unit_offset integer DEFAULT NULL)
RETURNS TABLE (cohort_start date, contact_id bigint, started_at timestamptz, start_id bigint, unit_offset integer,
	returned_at timestamptz, return_id bigint)
LANGUAGE c VOLATILE ROWS 1000 AS 'MODULE_PATHNAME', 'crm_sql_cohort_rows';
COMMENT ON FUNCTION crm.cohort_rows(text, text, timestamptz, timestamptz, text, integer, text, text, text, text, timestamptz, date, integer) IS 'The contacts behind the numbers of crm.cohort(): those of a cohort, or those of them who came back in a unit.';
REVOKE ALL ON FUNCTION crm.cohort_rows(text, text, timestamptz, timestamptz, text, integer, text, text, text, text, timestamptz, date, integer) FROM PUBLIC;
