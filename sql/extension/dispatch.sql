-- dispatch: the worker

CREATE FUNCTION crm.worker_state(
	OUT database name, OUT pid integer, OUT state text, OUT started_at timestamptz,
	OUT last_turn_at timestamptz, OUT turns bigint, OUT failures integer, OUT problem text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'crm_sql_worker_state';
COMMENT ON FUNCTION crm.worker_state() IS 'The worker of this database, out of shared memory; read it through crm.worker_status.';
REVOKE ALL ON FUNCTION crm.worker_state() FROM PUBLIC;
