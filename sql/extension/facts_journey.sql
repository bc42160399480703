-- facts: enrolments by hand, and the state of journeys

CREATE FUNCTION crm.enrol(contact_id bigint, journey text, key text DEFAULT NULL) RETURNS bigint
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_enrol';
COMMENT ON FUNCTION crm.enrol(bigint, text, text) IS 'Lets a contact into a journey. Returns the enrolment, or that of the same key; NULL where it is refused, which crm.refusal tells.';
REVOKE ALL ON FUNCTION crm.enrol(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION crm.unenrol(contact_id bigint, journey text, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_unenrol';
COMMENT ON FUNCTION crm.unenrol(bigint, text, text) IS 'Ends the enrolments of a contact in a journey, and takes their messages out of the queue; false where there were none.';
REVOKE ALL ON FUNCTION crm.unenrol(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION crm.resume(enrolment_id bigint) RETURNS boolean
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_resume';
COMMENT ON FUNCTION crm.resume(bigint) IS 'Lets a stuck enrolment try its step again at once; false where it is not stuck.';
REVOKE ALL ON FUNCTION crm.resume(bigint) FROM PUBLIC;

CREATE FUNCTION crm.set_journey(journey text, state text) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_set_journey';
COMMENT ON FUNCTION crm.set_journey(text, text) IS 'Sets a journey open, closed (nobody enters), frozen (nobody enters or moves) or cancelled (everybody leaves).';
REVOKE ALL ON FUNCTION crm.set_journey(text, text) FROM PUBLIC;
