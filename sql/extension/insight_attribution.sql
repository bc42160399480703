-- insight: what conversions are credited to

CREATE FUNCTION crm.define_attribution(definition jsonb) RETURNS integer
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_define_attribution';
COMMENT ON FUNCTION crm.define_attribution(jsonb) IS 'Saves a rule of attribution; keys are the columns of crm.attribution. Returns its version.';
REVOKE ALL ON FUNCTION crm.define_attribution(jsonb) FROM PUBLIC;

CREATE FUNCTION crm.check_attribution() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_check_attribution';
COMMENT ON FUNCTION crm.check_attribution() IS 'Trigger of crm.attribution: refuses a rule of attribution that cannot work, and counts versions.';
REVOKE ALL ON FUNCTION crm.check_attribution() FROM PUBLIC;

CREATE FUNCTION crm.attribution_report(attribution text, period_start timestamptz, period_end timestamptz)
RETURNS TABLE (touch text, object text, label text, conversions numeric, contacts bigint, share numeric, amount numeric)
LANGUAGE c VOLATILE ROWS 100 AS 'MODULE_PATHNAME', 'crm_sql_attribution_report';
COMMENT ON FUNCTION crm.attribution_report(text, timestamptz, timestamptz) IS 'How many conversions of a period each touch is credited with by a rule of attribution; touch none has those before which there was no touch.';
REVOKE ALL ON FUNCTION crm.attribution_report(text, timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION crm.attribution_rows(attribution text, period_start timestamptz, period_end timestamptz)
RETURNS TABLE (contact_id bigint, conversion_id bigint, converted_at timestamptz, touch text, object text,
	touch_id bigint, touched_at timestamptz, credit numeric, amount numeric)
LANGUAGE c VOLATILE ROWS 1000 AS 'MODULE_PATHNAME', 'crm_sql_attribution_rows';
COMMENT ON FUNCTION crm.attribution_rows(text, timestamptz, timestamptz) IS 'The credits that crm.attribution_report() adds up: each conversion with each touch that has a part of it.';
REVOKE ALL ON FUNCTION crm.attribution_rows(text, timestamptz, timestamptz) FROM PUBLIC;
