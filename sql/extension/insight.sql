-- insight: pictures, and what the views ask for

CREATE FUNCTION crm.default_time_zone() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'crm_sql_default_time_zone';
COMMENT ON FUNCTION crm.default_time_zone() IS 'The setting pg_crm.time_zone: time zone of days where no account names one.';

CREATE FUNCTION crm.timeline_svg(contact_id bigint) RETURNS text
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'crm_sql_timeline_svg';
COMMENT ON FUNCTION crm.timeline_svg(bigint) IS 'A contact''s achievements as a standalone SVG: one line each from the account''s creation to now, the moment it was gained marked.';
REVOKE ALL ON FUNCTION crm.timeline_svg(bigint) FROM PUBLIC;
