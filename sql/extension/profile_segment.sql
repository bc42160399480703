-- profile: segments

CREATE FUNCTION crm.define_segment(definition jsonb) RETURNS integer
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_define_segment';
COMMENT ON FUNCTION crm.define_segment(jsonb) IS 'Saves a segment; keys are the columns of crm.segment. Returns its version.';
REVOKE ALL ON FUNCTION crm.define_segment(jsonb) FROM PUBLIC;

CREATE FUNCTION crm.segment_overlap(partition text,
	OUT segment text, OUT other_segment text, OUT contacts bigint)
RETURNS SETOF record
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'crm_sql_segment_overlap';
COMMENT ON FUNCTION crm.segment_overlap(text) IS 'For every two segments of a partition, for how many contacts the rules of both hold; these are in the first one.';
REVOKE ALL ON FUNCTION crm.segment_overlap(text) FROM PUBLIC;

CREATE FUNCTION crm.segments_changed() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_segments_changed';
COMMENT ON FUNCTION crm.segments_changed() IS 'Trigger of crm.segment: applies changed segments to everybody.';
REVOKE ALL ON FUNCTION crm.segments_changed() FROM PUBLIC;
