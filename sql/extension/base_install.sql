-- base: making, upgrading, copying and removing the tables of schema crm

CREATE FUNCTION crm.version() RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'crm_version';
COMMENT ON FUNCTION crm.version() IS 'Version of the loaded library.';

CREATE FUNCTION crm.install() RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_install';
COMMENT ON FUNCTION crm.install() IS 'Makes tables, indexes, views and triggers in schema crm as objects of the caller; run again, it adds what is missing.';

CREATE FUNCTION crm.migrate() RETURNS text
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_migrate';
COMMENT ON FUNCTION crm.migrate() IS 'Brings the tables to the version of the extension, which it returns.';

-- A row is a step: the version to which it brings the tables, and its SQL, in
-- which every name is qualified. The update script of a version replaces this
-- function by one with a row more.
CREATE FUNCTION crm.migration_script(from_version text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT pg_catalog.string_agg(s.sql, ';' ORDER BY s.version)
	  FROM (VALUES (ARRAY[0, 0, 0], '')) AS s(version, sql)
	 WHERE s.version > pg_catalog.string_to_array(from_version, '.')::integer[]
$$;
COMMENT ON FUNCTION crm.migration_script(text) IS 'The SQL that migrate() runs on tables of that version before the install script.';
REVOKE ALL ON FUNCTION crm.migration_script(text) FROM PUBLIC;

CREATE FUNCTION crm.build_profile_view() RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_build_profile_view';
COMMENT ON FUNCTION crm.build_profile_view() IS 'Part of install(): makes crm.profile, or appends the columns that crm.contact has gained.';
REVOKE ALL ON FUNCTION crm.build_profile_view() FROM PUBLIC;

CREATE FUNCTION crm.maintain_partitions() RETURNS integer
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_maintain_partitions';
COMMENT ON FUNCTION crm.maintain_partitions() IS 'Makes the month partitions of this month and the next three, and of months whose rows lie in the default partition; how many were made.';
REVOKE ALL ON FUNCTION crm.maintain_partitions() FROM PUBLIC;

CREATE FUNCTION crm.restoring(active boolean) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_restoring';
COMMENT ON FUNCTION crm.restoring(boolean) IS 'true before rows of another installation are loaded as they were, so that nothing is counted twice; false afterwards.';

CREATE FUNCTION crm.resume_dispatch() RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_resume_dispatch';
COMMENT ON FUNCTION crm.resume_dispatch() IS 'Lets this server and database speak to customers, after the tables came from elsewhere.';
REVOKE ALL ON FUNCTION crm.resume_dispatch() FROM PUBLIC;

CREATE FUNCTION crm.dispatch_allowed() RETURNS boolean
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'crm_sql_dispatch_allowed';
COMMENT ON FUNCTION crm.dispatch_allowed() IS 'Whether the installation is that of this server and database; if not, resume_dispatch() makes it so.';
REVOKE ALL ON FUNCTION crm.dispatch_allowed() FROM PUBLIC;

CREATE FUNCTION crm.uninstall() RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_uninstall';
COMMENT ON FUNCTION crm.uninstall() IS 'Frees the tables from the extension, so that DROP EXTENSION leaves them with all their rows.';

CREATE FUNCTION crm.grant_access(role_name name, level text) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_grant_access';
COMMENT ON FUNCTION crm.grant_access(name, text) IS 'Grants a role what a level needs: app, marketer, analyst, associate, dispatcher, or owner for the role that installs.';
REVOKE ALL ON FUNCTION crm.grant_access(name, text) FROM PUBLIC;
