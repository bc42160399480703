-- dispatch: how the worker does

CREATE OR REPLACE VIEW crm.worker_status AS
SELECT w.database, w.pid, w.state, w.started_at, w.last_turn_at,
       pg_catalog.clock_timestamp() - w.last_turn_at AS age, w.turns, w.failures, w.problem
  FROM crm.worker_state() AS w;
COMMENT ON VIEW crm.worker_status IS 'The worker of this database, one row: whether it runs, and if not, why.';
COMMENT ON COLUMN crm.worker_status.database IS 'This database.';
COMMENT ON COLUMN crm.worker_status.pid IS 'Process of the worker, as in pg_stat_activity; NULL while none runs.';
COMMENT ON COLUMN crm.worker_status.state IS 'running, or why not: not_preloaded, standby, no_launcher, off, missing, wanted, starting, no_slot, failed, held, refused.';
COMMENT ON COLUMN crm.worker_status.started_at IS 'When this process started.';
COMMENT ON COLUMN crm.worker_status.last_turn_at IS 'When the worker last ended a turn.';
COMMENT ON COLUMN crm.worker_status.age IS 'How long ago that was.';
COMMENT ON COLUMN crm.worker_status.turns IS 'Turns of this process: it looks for work at each commit that leaves some, and at least every pg_crm.poll_interval.';
COMMENT ON COLUMN crm.worker_status.failures IS 'How often in a row the worker ended by an error.';
COMMENT ON COLUMN crm.worker_status.problem IS 'What keeps the worker from its work, in words; NULL where nothing does.';
