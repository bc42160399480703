-- journey: people moved from one version to another

CREATE FUNCTION crm.migrate_journey(journey text, from_version integer, to_version integer, dry_run boolean DEFAULT true,
	OUT step text, OUT to_step text, OUT contacts bigint, OUT stranded boolean)
RETURNS SETOF record
LANGUAGE c VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'crm_sql_migrate_journey';
COMMENT ON FUNCTION crm.migrate_journey(text, integer, integer, boolean) IS 'Who is at which step of a version, and where he goes in another: to the step of the same name and kind, or out, stranded. Moves them unless dry_run.';
REVOKE ALL ON FUNCTION crm.migrate_journey(text, integer, integer, boolean) FROM PUBLIC;
