-- dispatch: the worker

CREATE FUNCTION crm.worker_state(
	OUT database name, OUT pid integer, OUT state text, OUT started_at timestamptz,
	OUT last_turn_at timestamptz, OUT turns bigint, OUT failures integer, OUT problem text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'crm_sql_worker_state';
COMMENT ON FUNCTION crm.worker_state() IS 'The worker of this database, out of shared memory; read it through crm.worker_status.';
REVOKE ALL ON FUNCTION crm.worker_state() FROM PUBLIC;

CREATE FUNCTION crm.pause_account(account text, reason text) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_pause_account';
COMMENT ON FUNCTION crm.pause_account(text, text) IS 'Stops an account: its messages wait until resume_account().';
REVOKE ALL ON FUNCTION crm.pause_account(text, text) FROM PUBLIC;

CREATE FUNCTION crm.resume_account(account text) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', 'crm_sql_resume_account';
COMMENT ON FUNCTION crm.resume_account(text) IS 'Lets an account go on that was stopped, by hand or by the platform, and clears the alarms of that.';
REVOKE ALL ON FUNCTION crm.resume_account(text) FROM PUBLIC;

CREATE FUNCTION crm.alarm_after() RETURNS interval
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'crm_sql_alarm_after';
COMMENT ON FUNCTION crm.alarm_after() IS 'The setting pg_crm.alarm_after: how late the oldest message may be before an alarm is raised.';
