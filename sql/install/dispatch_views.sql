-- dispatch: how the worker does

CREATE OR REPLACE VIEW crm.worker_status AS
SELECT w.database, w.pid, w.state, w.started_at, w.last_turn_at,
       pg_catalog.clock_timestamp() - w.last_turn_at AS age, w.turns, w.failures, w.problem,
       w.clock_pid, w.clock_done_at, w.clock_problem
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
COMMENT ON COLUMN crm.worker_status.clock_pid IS 'Process of the clock, which makes the moves that time brings; NULL while none runs, as nothing is due.';
COMMENT ON COLUMN crm.worker_status.clock_done_at IS 'When last nothing was left that was due; since the start of the server.';
COMMENT ON COLUMN crm.worker_status.clock_problem IS 'What keeps the clock from its work, in words; NULL where nothing but the worker does.';

-- the queue goes by the clock of the server, not by pg_crm.clock
CREATE OR REPLACE VIEW crm.queue_health AS
SELECT a.name AS account, l.lane, q.queued, q.due, q.oldest_due,
       pg_catalog.statement_timestamp() - q.oldest_due AS age, q.in_flight, q.put_off, q.parked,
       b.blocked_until, b.blocked_reason, u.unknown, w.state AS worker,
       CASE WHEN q.queued > 0 AND w.problem IS NOT NULL THEN 'no worker: ' || w.problem
            WHEN q.queued > 0 AND NOT crm.dispatch_allowed()
            THEN 'this database is a copy: it sends nothing until resume_dispatch()'
            WHEN b.blocked_until IS NOT NULL
            THEN 'stopped until ' || CASE WHEN pg_catalog.isfinite(b.blocked_until) THEN b.blocked_until::text
                                          ELSE 'resume_account()' END || COALESCE(': ' || b.blocked_reason, '')
            WHEN q.oldest_due < pg_catalog.statement_timestamp() - crm.alarm_after()
            THEN 'messages are late'
            WHEN u.unknown > 0 THEN 'of some messages nobody knows whether they arrived: see crm.message_unknown'
       END AS problem
  FROM crm.account AS a
 CROSS JOIN (VALUES ('urgent', 1), ('normal', 2), ('bulk', 3)) AS l(lane, place)
 CROSS JOIN crm.worker_status AS w
 CROSS JOIN LATERAL (
       SELECT pg_catalog.count(*) FILTER (WHERE o.lease IS NULL) AS queued,
              pg_catalog.count(*) FILTER (WHERE o.lease IS NULL AND o.due_at <= pg_catalog.statement_timestamp()) AS due,
              pg_catalog.min(o.due_at) FILTER (WHERE o.lease IS NULL AND o.due_at <= pg_catalog.statement_timestamp()) AS oldest_due,
              pg_catalog.count(o.lease) AS in_flight,
              pg_catalog.count(*) FILTER (WHERE o.lease IS NULL AND o.due_at > pg_catalog.statement_timestamp()
                                            AND o.due_at < 'infinity') AS put_off,
              pg_catalog.count(*) FILTER (WHERE o.lease IS NULL AND o.due_at = 'infinity') AS parked
         FROM crm.outbox AS o
        WHERE o.account_id = a.account_id AND o.lane = l.lane) AS q
  LEFT JOIN crm.api_usage AS b ON b.account_id = a.account_id AND b.api = ''
                              AND b.blocked_until > pg_catalog.statement_timestamp()
 CROSS JOIN LATERAL (
       SELECT pg_catalog.count(*) AS unknown
         FROM crm.message_unknown AS n
         JOIN crm.message AS m ON m.contact_id = n.contact_id AND m.message_id = n.message_id
        WHERE m.account_id = a.account_id) AS u
 ORDER BY a.name, l.place;
COMMENT ON VIEW crm.queue_health IS 'The queue of each account and lane as it is now, and what keeps it from being sent.';
COMMENT ON COLUMN crm.queue_health.account IS 'Name of the account.';
COMMENT ON COLUMN crm.queue_health.lane IS 'urgent, normal or bulk.';
COMMENT ON COLUMN crm.queue_health.queued IS 'Messages that are not on their way: due + put_off + parked.';
COMMENT ON COLUMN crm.queue_health.due IS 'Those that may go now.';
COMMENT ON COLUMN crm.queue_health.oldest_due IS 'Since when the one that has waited longest is due.';
COMMENT ON COLUMN crm.queue_health.age IS 'How long ago that was.';
COMMENT ON COLUMN crm.queue_health.in_flight IS 'Messages on their way, no outcome written.';
COMMENT ON COLUMN crm.queue_health.put_off IS 'Messages for later: asked for so, or put off.';
COMMENT ON COLUMN crm.queue_health.parked IS 'Messages behind an earlier one of their contact.';
COMMENT ON COLUMN crm.queue_health.blocked_until IS 'Until when the account is stopped; infinity until resume_account(); NULL where it is not.';
COMMENT ON COLUMN crm.queue_health.blocked_reason IS 'Why.';
COMMENT ON COLUMN crm.queue_health.unknown IS 'Messages of the account, of all lanes, of which nobody knows whether they arrived.';
COMMENT ON COLUMN crm.queue_health.worker IS 'State of the worker, as in crm.worker_status.';
COMMENT ON COLUMN crm.queue_health.problem IS 'What keeps messages from going, or somebody has to look at, in words; NULL where nothing does.';

-- what can be seen at once is seen here, also where no worker is there to write it down
CREATE OR REPLACE VIEW crm.active_alarm AS
SELECT a.kind, a.object, a.detail, a.raised_at AS since, a.times
  FROM crm.alarm AS a
 WHERE a.cleared_at IS NULL AND a.kind <> 'queue_late'
UNION ALL
SELECT 'queue_late', a.name, 'the oldest message is due since ' || o.due_at, o.due_at + crm.alarm_after(), 1
  FROM crm.account AS a
 CROSS JOIN LATERAL (
       SELECT pg_catalog.min(h.due_at) AS due_at
         FROM (VALUES ('urgent'), ('normal'), ('bulk')) AS l(lane)
        CROSS JOIN LATERAL (
              SELECT o.due_at FROM crm.outbox AS o
               WHERE o.account_id = a.account_id AND o.lane = l.lane AND o.lease IS NULL
                 AND o.due_at < pg_catalog.statement_timestamp() - crm.alarm_after()
               ORDER BY o.due_at LIMIT 1) AS h) AS o
 WHERE o.due_at IS NOT NULL
UNION ALL
SELECT 'worker_down', w.database::text, w.problem, COALESCE(w.last_turn_at, pg_catalog.statement_timestamp()), 1
  FROM crm.worker_status AS w
 WHERE w.problem IS NOT NULL AND w.state <> 'standby'
UNION ALL
SELECT 'clock_down', w.database::text, w.clock_problem, COALESCE(w.clock_done_at, w.started_at), 1
  FROM crm.worker_status AS w
 WHERE w.clock_problem IS NOT NULL AND w.problem IS NULL
UNION ALL
SELECT 'message_unknown', a.name,
       'messages of which nobody knows whether they arrived: ' || pg_catalog.count(*), pg_catalog.min(n.since), pg_catalog.count(*)
  FROM crm.message_unknown AS n
  JOIN crm.message AS m ON m.contact_id = n.contact_id AND m.message_id = n.message_id
  JOIN crm.account AS a ON a.account_id = m.account_id
 GROUP BY a.name
UNION ALL
SELECT 'dispatch_paused', pg_catalog.current_database()::text,
       'this database is a copy: it sends nothing until resume_dispatch()',
       (SELECT COALESCE(i.resumed_at, i.installed_at) FROM crm.installation AS i), 1
 WHERE NOT crm.dispatch_allowed();
COMMENT ON VIEW crm.active_alarm IS 'What somebody has to look at now: standing rows of crm.alarm, and what is wrong at this moment.';
COMMENT ON COLUMN crm.active_alarm.kind IS 'worker_down, clock_down, queue_late, message_unknown, dispatch_paused, account_paused, api_paused, template_refused, token, ...';
COMMENT ON COLUMN crm.active_alarm.object IS 'What it is about: the name of the account, template or database; of api_paused account and call.';
COMMENT ON COLUMN crm.active_alarm.detail IS 'What happened.';
COMMENT ON COLUMN crm.active_alarm.since IS 'Since when; of worker_down the last turn, of clock_down when last nothing was left to do, of dispatch_paused the installation of the original.';
COMMENT ON COLUMN crm.active_alarm.times IS 'How often since; of message_unknown how many.';
