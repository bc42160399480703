-- insight: maps of the customers' journey

CREATE FUNCTION crm.check_map_definition() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_check_map_definition';
COMMENT ON FUNCTION crm.check_map_definition() IS 'Trigger: checks a persona or a touchpoint and counts its version.';
REVOKE ALL ON FUNCTION crm.check_map_definition() FROM PUBLIC;

CREATE FUNCTION crm.define_persona(definition jsonb) RETURNS integer
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_define_persona';
COMMENT ON FUNCTION crm.define_persona(jsonb) IS 'Saves a persona: keys are the columns of crm.persona. Returns its version.';
REVOKE ALL ON FUNCTION crm.define_persona(jsonb) FROM PUBLIC;

CREATE FUNCTION crm.define_touchpoint(definition jsonb) RETURNS integer
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_define_touchpoint';
COMMENT ON FUNCTION crm.define_touchpoint(jsonb) IS 'Saves a touchpoint: keys are the columns of crm.touchpoint. Returns its version.';
REVOKE ALL ON FUNCTION crm.define_touchpoint(jsonb) FROM PUBLIC;

CREATE FUNCTION crm.define_map(definition jsonb) RETURNS integer
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_define_map';
COMMENT ON FUNCTION crm.define_map(jsonb) IS 'Saves a map of the customers'' journey as its next version, and returns it; the document of the newest version again changes nothing.';
REVOKE ALL ON FUNCTION crm.define_map(jsonb) FROM PUBLIC;

CREATE FUNCTION crm.export_map(map text, version integer DEFAULT NULL) RETURNS jsonb
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'crm_sql_export_map';
COMMENT ON FUNCTION crm.export_map(text, integer) IS 'The document of a version of a map (default the newest), as define_map() takes it.';
REVOKE ALL ON FUNCTION crm.export_map(text, integer) FROM PUBLIC;

CREATE FUNCTION crm.note_touchpoint(touchpoint text, score numeric, note text, at timestamptz DEFAULT NULL) RETURNS bigint
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_note_touchpoint';
COMMENT ON FUNCTION crm.note_touchpoint(text, numeric, text, timestamptz) IS 'Notes about a touchpoint what no number says, and by how much that moves its score. Returns the id of the note.';
REVOKE ALL ON FUNCTION crm.note_touchpoint(text, numeric, text, timestamptz) FROM PUBLIC;

CREATE FUNCTION crm.record_emotion(contact_id bigint, touchpoint text, score numeric, source text, interaction text,
	confidence numeric DEFAULT 1, at timestamptz DEFAULT NULL) RETURNS bigint
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_record_emotion';
COMMENT ON FUNCTION crm.record_emotion(bigint, text, numeric, text, text, numeric, timestamptz) IS 'Records how a contact felt in an interaction, -2 to 2, once for each source. Returns the id of the row.';
REVOKE ALL ON FUNCTION crm.record_emotion(bigint, text, numeric, text, text, numeric, timestamptz) FROM PUBLIC;

CREATE FUNCTION crm.persona_members(persona text, as_of timestamptz DEFAULT NULL) RETURNS SETOF bigint
LANGUAGE c VOLATILE ROWS 10000 AS 'MODULE_PATHNAME', 'crm_sql_persona_members';
COMMENT ON FUNCTION crm.persona_members(text, timestamptz) IS 'The contacts who are such a persona at as_of (default now).';
REVOKE ALL ON FUNCTION crm.persona_members(text, timestamptz) FROM PUBLIC;

CREATE FUNCTION crm.persona_size(as_of timestamptz DEFAULT NULL)
RETURNS TABLE (persona text, label text, members bigint, share numeric)
LANGUAGE c VOLATILE ROWS 20 AS 'MODULE_PATHNAME', 'crm_sql_persona_size';
COMMENT ON FUNCTION crm.persona_size(timestamptz) IS 'How many contacts are each persona at as_of (default now), and which share of all contacts.';
REVOKE ALL ON FUNCTION crm.persona_size(timestamptz) FROM PUBLIC;

CREATE FUNCTION crm.touchpoint_rows(touchpoints text[], period_start timestamptz DEFAULT NULL,
	period_end timestamptz DEFAULT NULL, persona text DEFAULT NULL)
RETURNS TABLE (contact_id bigint, touchpoint text, occurred_at timestamptz, source_table text, source_id bigint)
LANGUAGE c VOLATILE ROWS 10000 AS 'MODULE_PATHNAME', 'crm_sql_touchpoint_rows';
COMMENT ON FUNCTION crm.touchpoint_rows(text[], timestamptz, timestamptz, text) IS 'Who met which of these touchpoints when (NULL: all that are no complaints); what belongs to several counts for the first.';
REVOKE ALL ON FUNCTION crm.touchpoint_rows(text[], timestamptz, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION crm.touchpoint_moves(touchpoints text[], within interval, period_start timestamptz DEFAULT NULL,
	period_end timestamptz DEFAULT NULL, persona text DEFAULT NULL)
RETURNS TABLE (contact_id bigint, from_touchpoint text, left_at timestamptz, outcome text, to_touchpoint text,
	arrived_at timestamptz, seconds double precision)
LANGUAGE c VOLATILE ROWS 10000 AS 'MODULE_PATHNAME', 'crm_sql_touchpoint_moves';
COMMENT ON FUNCTION crm.touchpoint_moves(text[], interval, timestamptz, timestamptz, text) IS 'Each time that a contact left a touchpoint in a period: for which other one, or that none came within the interval.';
REVOKE ALL ON FUNCTION crm.touchpoint_moves(text[], interval, timestamptz, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION crm.touchpoint_actions(touchpoints text[], within interval, period_start timestamptz DEFAULT NULL,
	period_end timestamptz DEFAULT NULL, persona text DEFAULT NULL)
RETURNS TABLE (from_touchpoint text, to_touchpoint text, outcome text, contacts bigint, transitions bigint, share numeric,
	loss numeric, median_seconds double precision, p90_seconds double precision)
LANGUAGE c VOLATILE ROWS 100 AS 'MODULE_PATHNAME', 'crm_sql_touchpoint_actions';
COMMENT ON FUNCTION crm.touchpoint_actions(text[], interval, timestamptz, timestamptz, text) IS 'The transitions between touchpoints that were seen in a period: how many, how fast, and how much is lost at each touchpoint.';
REVOKE ALL ON FUNCTION crm.touchpoint_actions(text[], interval, timestamptz, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION crm.map_path(map text, period_start timestamptz DEFAULT NULL, period_end timestamptz DEFAULT NULL,
	persona text DEFAULT NULL, version integer DEFAULT NULL)
RETURNS TABLE (from_touchpoint text, to_touchpoint text, state text, label text, place integer, contacts bigint,
	transitions bigint, share numeric, median_seconds double precision, p90_seconds double precision)
LANGUAGE c VOLATILE ROWS 50 AS 'MODULE_PATHNAME', 'crm_sql_map_path';
COMMENT ON FUNCTION crm.map_path(text, timestamptz, timestamptz, text, integer) IS 'The paths that people took in a period against those that the map draws.';
REVOKE ALL ON FUNCTION crm.map_path(text, timestamptz, timestamptz, text, integer) FROM PUBLIC;

CREATE FUNCTION crm.map_touchpoint(map text, period_start timestamptz DEFAULT NULL, period_end timestamptz DEFAULT NULL,
	persona text DEFAULT NULL, version integer DEFAULT NULL)
RETURNS TABLE (stage text, stage_place integer, touchpoint text, label text, place integer, visits bigint, contacts bigint,
	went_on bigint, lost bigint, still_open bigint, loss numeric, median_seconds double precision, delay numeric,
	complaints bigint, complaint_rate numeric, notes bigint, note_score numeric, loss_part numeric, delay_part numeric,
	complaint_part numeric, note_part numeric, score numeric, peak text, emotions bigint, emotion numeric)
LANGUAGE c VOLATILE ROWS 20 AS 'MODULE_PATHNAME', 'crm_sql_map_touchpoint';
COMMENT ON FUNCTION crm.map_touchpoint(text, timestamptz, timestamptz, text, integer) IS 'The touchpoints of a map with what happened there in a period: visits, loss, delay, complaints, notes, the score made of these, and emotions.';
REVOKE ALL ON FUNCTION crm.map_touchpoint(text, timestamptz, timestamptz, text, integer) FROM PUBLIC;

CREATE FUNCTION crm.map_emotion(map text, period_start timestamptz DEFAULT NULL, period_end timestamptz DEFAULT NULL,
	version integer DEFAULT NULL)
RETURNS TABLE (persona text, touchpoint text, place integer, source text, emotions bigint, contacts bigint, mean numeric,
	confidence numeric, lowest numeric, highest numeric)
LANGUAGE c VOLATILE ROWS 50 AS 'MODULE_PATHNAME', 'crm_sql_map_emotion';
COMMENT ON FUNCTION crm.map_emotion(text, timestamptz, timestamptz, integer) IS 'Emotions at the touchpoints of a map in a period, by persona of the map (NULL: everybody) and source (NULL: all).';
REVOKE ALL ON FUNCTION crm.map_emotion(text, timestamptz, timestamptz, integer) FROM PUBLIC;

CREATE FUNCTION crm.map_goal(map text, as_of timestamptz DEFAULT NULL, version integer DEFAULT NULL)
RETURNS TABLE (goal text, label text, measure text, persona text, period_start timestamptz, period_end timestamptz,
	target numeric, measured numeric, direction text, reached boolean)
LANGUAGE c VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'crm_sql_map_goal';
COMMENT ON FUNCTION crm.map_goal(text, timestamptz, integer) IS 'The goals of a map, measured in their period that ends at as_of (default now).';
REVOKE ALL ON FUNCTION crm.map_goal(text, timestamptz, integer) FROM PUBLIC;

CREATE FUNCTION crm.map_mermaid(map text, period_start timestamptz DEFAULT NULL, period_end timestamptz DEFAULT NULL,
	persona text DEFAULT NULL, version integer DEFAULT NULL) RETURNS text
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'crm_sql_map_mermaid';
COMMENT ON FUNCTION crm.map_mermaid(text, timestamptz, timestamptz, text, integer) IS 'A map as a Mermaid flowchart with the counts of a period.';
REVOKE ALL ON FUNCTION crm.map_mermaid(text, timestamptz, timestamptz, text, integer) FROM PUBLIC;

CREATE FUNCTION crm.map_dot(map text, period_start timestamptz DEFAULT NULL, period_end timestamptz DEFAULT NULL,
	persona text DEFAULT NULL, version integer DEFAULT NULL) RETURNS text
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'crm_sql_map_dot';
COMMENT ON FUNCTION crm.map_dot(text, timestamptz, timestamptz, text, integer) IS 'A map as a graph in the DOT language of Graphviz, with the counts of a period.';
REVOKE ALL ON FUNCTION crm.map_dot(text, timestamptz, timestamptz, text, integer) FROM PUBLIC;
