-- journey: publishing, and documents made by functions

CREATE FUNCTION crm.publish_journey(definition jsonb) RETURNS integer
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_publish_journey';
COMMENT ON FUNCTION crm.publish_journey(jsonb) IS 'Checks a journey and makes it the version that people enter from now on; returns the version. All faults are told at once.';
REVOKE ALL ON FUNCTION crm.publish_journey(jsonb) FROM PUBLIC;

CREATE FUNCTION crm.export_journey(journey text, version integer DEFAULT NULL) RETURNS jsonb
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'crm_sql_export_journey';
COMMENT ON FUNCTION crm.export_journey(text, integer) IS 'The document of a journey as it was published; of the current version where none is named.';
REVOKE ALL ON FUNCTION crm.export_journey(text, integer) FROM PUBLIC;

CREATE FUNCTION crm.journey_step_kinds(OUT kind text, OUT key text, OUT type text, OUT required boolean, OUT description text)
RETURNS SETOF record
LANGUAGE c IMMUTABLE AS 'MODULE_PATHNAME', 'crm_sql_journey_step_kinds';
COMMENT ON FUNCTION crm.journey_step_kinds() IS 'The kinds of steps, and the keys that a step of each may have; key kind describes the kind.';
REVOKE ALL ON FUNCTION crm.journey_step_kinds() FROM PUBLIC;

CREATE FUNCTION crm.journeys_changed() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_journeys_changed';
COMMENT ON FUNCTION crm.journeys_changed() IS 'Trigger of crm.journey: tells every session which versions and states there are.';
REVOKE ALL ON FUNCTION crm.journeys_changed() FROM PUBLIC;

-- Each gives a part of a document; jsonb_build_object() and || do the rest.

CREATE FUNCTION crm.journey_document(journey text, start text, steps jsonb, entry jsonb DEFAULT '[]', more jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE sql IMMUTABLE
RETURN pg_catalog.jsonb_build_object('journey', $1, 'start', $2, 'steps', $3, 'entry', $4) OPERATOR(pg_catalog.||) $5;
COMMENT ON FUNCTION crm.journey_document(text, text, jsonb, jsonb, jsonb) IS 'A document for publish_journey(); more holds its other keys, as goal, exit and reentry.';
REVOKE ALL ON FUNCTION crm.journey_document(text, text, jsonb, jsonb, jsonb) FROM PUBLIC;

CREATE FUNCTION crm.step_send(template text, next text DEFAULT NULL, params jsonb DEFAULT '{}', more jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE sql IMMUTABLE
RETURN pg_catalog.jsonb_build_object('kind', 'send', 'template', $1, 'next', $2, 'params', $3) OPERATOR(pg_catalog.||) $4;
COMMENT ON FUNCTION crm.step_send(text, text, jsonb, jsonb) IS 'A step that sends a message; more holds its other keys.';
REVOKE ALL ON FUNCTION crm.step_send(text, text, jsonb, jsonb) FROM PUBLIC;

CREATE FUNCTION crm.step_wait("for" interval, next text DEFAULT NULL, more jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE sql STABLE
RETURN pg_catalog.jsonb_build_object('kind', 'wait', 'for', $1::pg_catalog.text, 'next', $2) OPERATOR(pg_catalog.||) $3;
COMMENT ON FUNCTION crm.step_wait(interval, text, jsonb) IS 'A step that waits so long; more holds its other keys.';
REVOKE ALL ON FUNCTION crm.step_wait(interval, text, jsonb) FROM PUBLIC;

CREATE FUNCTION crm.step_wait_for(kind text, within interval, next text DEFAULT NULL, on_timeout text DEFAULT NULL, more jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE sql STABLE
RETURN pg_catalog.jsonb_build_object('kind', 'wait_for', 'on', $1, 'within', $2::pg_catalog.text, 'next', $3, 'on_timeout', $4) OPERATOR(pg_catalog.||) $5;
COMMENT ON FUNCTION crm.step_wait_for(text, interval, text, text, jsonb) IS 'A step that waits for a fact of this kind; more holds its other keys.';
REVOKE ALL ON FUNCTION crm.step_wait_for(text, interval, text, text, jsonb) FROM PUBLIC;

CREATE FUNCTION crm.step_branch(rule text, next text, "default" text) RETURNS jsonb
LANGUAGE sql IMMUTABLE
RETURN pg_catalog.jsonb_build_object('kind', 'branch', 'default', $3, 'branches',
	pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object('when', $1, 'next', $2)));
COMMENT ON FUNCTION crm.step_branch(text, text, text) IS 'A step that goes one way where a rule over the profile holds, else the other.';
REVOKE ALL ON FUNCTION crm.step_branch(text, text, text) FROM PUBLIC;

CREATE FUNCTION crm.step_exit(reason text DEFAULT NULL) RETURNS jsonb
LANGUAGE sql IMMUTABLE
RETURN pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('kind', 'exit', 'reason', $1));
COMMENT ON FUNCTION crm.step_exit(text) IS 'A step that finishes the journey.';
REVOKE ALL ON FUNCTION crm.step_exit(text) FROM PUBLIC;
