-- facts: the functions of the triggers that install() makes

CREATE FUNCTION crm.ingest() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_ingest';
COMMENT ON FUNCTION crm.ingest() IS 'Trigger: takes the rows of one statement into profiles, awards and stages.';
REVOKE ALL ON FUNCTION crm.ingest() FROM PUBLIC;

CREATE FUNCTION crm.contact_added() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_contact_added';
COMMENT ON FUNCTION crm.contact_added() IS 'Trigger: opens profile and stage history of new contacts and moves the sequence past their ids.';
REVOKE ALL ON FUNCTION crm.contact_added() FROM PUBLIC;

CREATE FUNCTION crm.acquisition_added() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_acquisition_added';
COMMENT ON FUNCTION crm.acquisition_added() IS 'Trigger: refuses sources of contacts that do not exist, and counts the others.';
REVOKE ALL ON FUNCTION crm.acquisition_added() FROM PUBLIC;

CREATE FUNCTION crm.identity_added() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_identity_added';
COMMENT ON FUNCTION crm.identity_added() IS 'Trigger: lets the profile know of a new mobile number.';
REVOKE ALL ON FUNCTION crm.identity_added() FROM PUBLIC;

CREATE FUNCTION crm.refuse_change() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_refuse_change';
COMMENT ON FUNCTION crm.refuse_change() IS 'Trigger: refuses UPDATE, DELETE and TRUNCATE outside the extension; its argument is the hint.';
REVOKE ALL ON FUNCTION crm.refuse_change() FROM PUBLIC;

CREATE FUNCTION crm.codes_changed() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_codes_changed';
COMMENT ON FUNCTION crm.codes_changed() IS 'Trigger: counts scans anew when a code or the time zone of its account changed; keeps codes that have scans.';
REVOKE ALL ON FUNCTION crm.codes_changed() FROM PUBLIC;

CREATE FUNCTION crm.scan_limits_changed() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_scan_limits_changed';
COMMENT ON FUNCTION crm.scan_limits_changed() IS 'Trigger: marks scans anew when a limit changed.';
REVOKE ALL ON FUNCTION crm.scan_limits_changed() FROM PUBLIC;

CREATE FUNCTION crm.scan_window_start(at timestamptz, dedup_window interval,
    valid_from timestamptz DEFAULT NULL, time_zone text DEFAULT NULL) RETURNS timestamptz
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'crm_sql_scan_window_start';
COMMENT ON FUNCTION crm.scan_window_start(timestamptz, interval, timestamptz, text) IS 'Start of the window in which a scan at that time counts once; -infinity where the window is for ever.';
REVOKE ALL ON FUNCTION crm.scan_window_start(timestamptz, interval, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION crm.recompute(contact_id bigint DEFAULT NULL) RETURNS bigint
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_recompute';
COMMENT ON FUNCTION crm.recompute(bigint) IS 'Makes everything derived anew from the facts, of one contact or of all; returns how many contacts.';
REVOKE ALL ON FUNCTION crm.recompute(bigint) FROM PUBLIC;
