-- insight: what analysts see of journeys

-- The one definition behind every count of steps: views, funnels and drill-down read it. Both
-- joins are by primary keys, so they cost nothing where none of their columns is read.
CREATE OR REPLACE VIEW crm.journey_visit AS
SELECT v.contact_id, v.enrolment_id, v.visit, v.journey, v.version, v.step,
       e.entered_at AS started_at, v.entered_at, v.left_at,
       pg_catalog.date_part('epoch', v.left_at - v.entered_at) AS seconds,
       crm.visit_state(v.outcome) AS state,
       CASE v.outcome WHEN 'arm' THEN v.arm ELSE v.outcome END AS outcome,
       v.next_step, v.message_id, m.state AS message_state
  FROM crm.step_visit AS v
  LEFT JOIN crm.enrolment AS e ON e.contact_id = v.contact_id AND e.enrolment_id = v.enrolment_id
  LEFT JOIN crm.message AS m ON m.contact_id = v.contact_id AND m.message_id = v.message_id;
COMMENT ON VIEW crm.journey_visit IS 'Each step that somebody entered, as the counts of journeys take it.';
COMMENT ON COLUMN crm.journey_visit.contact_id IS 'Who.';
COMMENT ON COLUMN crm.journey_visit.enrolment_id IS 'In which enrolment.';
COMMENT ON COLUMN crm.journey_visit.visit IS 'Number of the step in its enrolment, from 1.';
COMMENT ON COLUMN crm.journey_visit.journey IS 'The journey.';
COMMENT ON COLUMN crm.journey_visit.version IS 'Its version.';
COMMENT ON COLUMN crm.journey_visit.step IS 'The step.';
COMMENT ON COLUMN crm.journey_visit.started_at IS 'When the contact entered the journey.';
COMMENT ON COLUMN crm.journey_visit.entered_at IS 'When the step was entered.';
COMMENT ON COLUMN crm.journey_visit.left_at IS 'When it was left; NULL while the contact is there.';
COMMENT ON COLUMN crm.journey_visit.seconds IS 'How long the contact was there; NULL while that goes on.';
COMMENT ON COLUMN crm.journey_visit.state IS 'here: the contact is there; left: it went on by an edge, or finished; ended: the enrolment was left there.';
COMMENT ON COLUMN crm.journey_visit.outcome IS 'Of left the edge, for a split the arm; of ended why; NULL while the contact is there.';
COMMENT ON COLUMN crm.journey_visit.next_step IS 'The step entered after it; NULL where there is none.';
COMMENT ON COLUMN crm.journey_visit.message_id IS 'The message that the step queued.';
COMMENT ON COLUMN crm.journey_visit.message_state IS 'What became of that message, as in crm.message.';

-- FULL JOIN: the sum over journeys is the number of enrolments even where a journey was deleted
CREATE OR REPLACE VIEW crm.journey_summary AS
SELECT journey, j.version, j.state,
       COALESCE(e.started, 0) AS started, COALESCE(e.active, 0) AS active, COALESCE(e.finished, 0) AS finished,
       COALESCE(e.exited, 0) AS exited, COALESCE(e.exited_goal, 0) AS exited_goal,
       COALESCE(e.exited_rule, 0) AS exited_rule, COALESCE(e.exited_unenrolled, 0) AS exited_unenrolled,
       COALESCE(e.exited_cancelled, 0) AS exited_cancelled, COALESCE(e.exited_merged, 0) AS exited_merged,
       COALESCE(e.exited_erased, 0) AS exited_erased, COALESCE(e.exited_stranded, 0) AS exited_stranded,
       -- few are: they stand in an index of their own
       (SELECT pg_catalog.count(*) FROM crm.enrolment AS k
         WHERE k.journey = COALESCE(j.journey, e.journey) AND k.state = 'active' AND k.stuck IS NOT NULL) AS stuck,
       COALESCE((SELECT pg_catalog.sum(r.refusals) FROM crm.refusal AS r
                  WHERE r.kind = 'journey' AND r.object = journey), 0)::bigint AS refused,
       e.first_entered_at, e.last_entered_at
  FROM crm.journey AS j
  FULL JOIN (SELECT n.journey, pg_catalog.sum(n.enrolments) FILTER (WHERE n.state = 'entered')::bigint AS started,
                    pg_catalog.sum(CASE n.state WHEN 'entered' THEN n.enrolments ELSE -n.enrolments END)::bigint AS active,
                    pg_catalog.sum(n.enrolments) FILTER (WHERE n.state = 'finished')::bigint AS finished,
                    pg_catalog.sum(n.enrolments) FILTER (WHERE n.state = 'exited')::bigint AS exited,
                    pg_catalog.sum(n.enrolments) FILTER (WHERE n.state = 'exited' AND n.end_reason = 'goal')::bigint AS exited_goal,
                    pg_catalog.sum(n.enrolments) FILTER (WHERE n.state = 'exited' AND n.end_reason = 'rule')::bigint AS exited_rule,
                    pg_catalog.sum(n.enrolments) FILTER (WHERE n.state = 'exited' AND n.end_reason = 'unenrolled')::bigint AS exited_unenrolled,
                    pg_catalog.sum(n.enrolments) FILTER (WHERE n.state = 'exited' AND n.end_reason = 'cancelled')::bigint AS exited_cancelled,
                    pg_catalog.sum(n.enrolments) FILTER (WHERE n.state = 'exited' AND n.end_reason = 'merged')::bigint AS exited_merged,
                    pg_catalog.sum(n.enrolments) FILTER (WHERE n.state = 'exited' AND n.end_reason = 'erased')::bigint AS exited_erased,
                    pg_catalog.sum(n.enrolments) FILTER (WHERE n.state = 'exited' AND n.end_reason = 'stranded')::bigint AS exited_stranded,
                    pg_catalog.min(n.first_entered_at) AS first_entered_at, pg_catalog.max(n.last_entered_at) AS last_entered_at
               FROM crm.enrolment_count AS n
              GROUP BY n.journey) AS e USING (journey);
COMMENT ON VIEW crm.journey_summary IS 'One row a journey, all its versions together: who started, who is in it, who finished and who left.';
COMMENT ON COLUMN crm.journey_summary.journey IS 'The journey.';
COMMENT ON COLUMN crm.journey_summary.version IS 'The version that people enter now.';
COMMENT ON COLUMN crm.journey_summary.state IS 'State of the journey: open, closed, frozen or cancelled.';
COMMENT ON COLUMN crm.journey_summary.started IS 'Enrolments ever: active, finished and exited together.';
COMMENT ON COLUMN crm.journey_summary.active IS 'Those that go on.';
COMMENT ON COLUMN crm.journey_summary.finished IS 'Those that came to an end of the journey.';
COMMENT ON COLUMN crm.journey_summary.exited IS 'Those that were left before, for the reasons of the next columns.';
COMMENT ON COLUMN crm.journey_summary.exited_goal IS 'The goal was reached.';
COMMENT ON COLUMN crm.journey_summary.exited_rule IS 'The exit rule held.';
COMMENT ON COLUMN crm.journey_summary.exited_unenrolled IS 'Somebody took the contact out.';
COMMENT ON COLUMN crm.journey_summary.exited_cancelled IS 'The journey was cancelled.';
COMMENT ON COLUMN crm.journey_summary.exited_merged IS 'The contact was merged into one that was in the journey.';
COMMENT ON COLUMN crm.journey_summary.exited_erased IS 'The contact was erased.';
COMMENT ON COLUMN crm.journey_summary.exited_stranded IS 'A migration left no step to be at.';
COMMENT ON COLUMN crm.journey_summary.stuck IS 'Active ones whose step cannot be done now; crm.stuck lists them.';
COMMENT ON COLUMN crm.journey_summary.refused IS 'How often an entry was refused (crm.refusal).';
COMMENT ON COLUMN crm.journey_summary.first_entered_at IS 'When the first contact entered.';
COMMENT ON COLUMN crm.journey_summary.last_entered_at IS 'When the last one did.';

CREATE OR REPLACE VIEW crm.journey_outline AS
SELECT j.journey, j.version, s.step, s.body ->> 'kind' AS kind, e.outcome, e.next_step, e.rule, e.place,
       s.body ->> 'label' AS label
  FROM crm.journey_version AS j
 CROSS JOIN LATERAL pg_catalog.jsonb_each(
       CASE pg_catalog.jsonb_typeof(j.definition -> 'steps') WHEN 'object' THEN j.definition -> 'steps' END)
       AS s(step, body)
  LEFT JOIN LATERAL (
       SELECT 'next'::text, s.body ->> 'next', NULL::text, 0
        WHERE s.body ->> 'kind' NOT IN ('branch', 'split')
       UNION ALL
       SELECT b.place::text, b.body ->> 'next', b.body ->> 'when', b.place::integer
         FROM pg_catalog.jsonb_array_elements(
              CASE pg_catalog.jsonb_typeof(s.body -> 'branches') WHEN 'array' THEN s.body -> 'branches' END)
              WITH ORDINALITY AS b(body, place)
       UNION ALL
       SELECT 'default'::text, COALESCE(s.body ->> 'default', s.body ->> 'next'), NULL::text, 10001
        WHERE s.body ->> 'kind' = 'branch'
       UNION ALL
       SELECT a.arm, a.body ->> 'next', NULL::text, (pg_catalog.row_number() OVER (ORDER BY a.arm COLLATE "C"))::integer
         FROM pg_catalog.jsonb_each(
              CASE pg_catalog.jsonb_typeof(s.body -> 'arms') WHEN 'object' THEN s.body -> 'arms' END)
              AS a(arm, body)
       UNION ALL
       SELECT o.outcome, s.body ->> o.member, NULL::text, o.place
         FROM (VALUES ('timeout', 'on_timeout', 10002), ('refused', 'on_refused', 10003),
                      ('failed', 'on_failed', 10004)) AS o(outcome, member, place)
        WHERE s.body ? o.member
           OR o.outcome = 'timeout' AND s.body ->> 'kind' IN ('wait_for', 'wait_until', 'ask')) AS e(outcome, next_step, rule, place) ON true;
COMMENT ON VIEW crm.journey_outline IS 'The steps and edges that definitions of journeys name: one row an edge, and one for a step that has none.';
COMMENT ON COLUMN crm.journey_outline.journey IS 'The journey.';
COMMENT ON COLUMN crm.journey_outline.version IS 'Its version.';
COMMENT ON COLUMN crm.journey_outline.step IS 'The step that the edge leads from.';
COMMENT ON COLUMN crm.journey_outline.kind IS 'Kind of that step: send, wait, branch, ...';
COMMENT ON COLUMN crm.journey_outline.outcome IS 'The edge: next, timeout, refused, failed; of a branch its place from 1, or default; of a split the arm.';
COMMENT ON COLUMN crm.journey_outline.next_step IS 'The step that it leads to; NULL where the journey finishes.';
COMMENT ON COLUMN crm.journey_outline.rule IS 'The rule of a branch.';
COMMENT ON COLUMN crm.journey_outline.place IS 'Order of the edges of a step.';
COMMENT ON COLUMN crm.journey_outline.label IS 'What people call the step.';

-- Where steps are counted as they come, counts and messages are apart: who reads no messages and no times then reads
-- no visits, as the planner leaves both LEFT JOINs out (not so where a condition stands above them: it is below).
-- Where they are not counted, one pass gives all. OFFSET 0 keeps the list of steps in one piece, so that a condition
-- on journey reaches the visits through the FULL JOIN.
CREATE OR REPLACE VIEW crm.journey_step AS
SELECT journey, version, step, d.kind,
       COALESCE(v.entered, 0) + COALESCE(d.entered, 0) AS entered, COALESCE(v.here, 0) AS here,
       COALESCE(v.left_on, 0) + COALESCE(d.left_on, 0) AS left_on, COALESCE(v.ended, 0) + COALESCE(d.ended, 0) AS ended,
       pg_catalog.round((COALESCE(v.ended, 0) + COALESCE(d.ended, 0))::numeric
                        / NULLIF(COALESCE(v.left_on + v.ended, 0) + COALESCE(d.entered, 0), 0), 4) AS drop_off,
       v.seconds[1] AS median_seconds, v.seconds[2] AS p90_seconds,
       COALESCE(v.queued, 0) AS queued, COALESCE(v.sent, 0) + COALESCE(d.sent, 0) AS sent,
       COALESCE(v.refused, 0) + COALESCE(d.refused, 0) AS refused,
       COALESCE(v.failed, 0) + COALESCE(d.failed, 0) AS failed, COALESCE(v.expired, 0) + COALESCE(d.expired, 0) AS expired,
       COALESCE(v.cancelled, 0) + COALESCE(d.cancelled, 0) AS cancelled,
       COALESCE(v.unknown, 0) AS unknown, COALESCE(v.waiting, 0) AS waiting,
       COALESCE(v.messages, 0) + COALESCE(d.messages, 0) AS messages,
       COALESCE(v.ended_goal, 0) + COALESCE(d.ended_goal, 0) AS ended_goal, d.label
  FROM (SELECT journey, version, step, o.kind, o.label, p.entered, p.left_on, p.ended, p.ended_goal, p.messages, p.sent,
               p.refused, p.failed, p.expired, p.cancelled
          FROM (SELECT DISTINCT o.journey, o.version, o.step, o.kind, o.label FROM crm.journey_outline AS o) AS o
          -- what retention has dropped
          FULL JOIN (SELECT g.journey, g.version, g.step, pg_catalog.sum(g.visits)::bigint AS entered,
                            pg_catalog.sum(g.visits) FILTER (WHERE g.state = 'left')::bigint AS left_on,
                            pg_catalog.sum(g.visits) FILTER (WHERE g.state = 'ended')::bigint AS ended,
                            pg_catalog.sum(g.visits) FILTER (WHERE g.state = 'ended' AND g.outcome = 'goal')::bigint AS ended_goal,
                            pg_catalog.sum(g.visits) FILTER (WHERE g.message_state IS NOT NULL)::bigint AS messages,
                            pg_catalog.sum(g.visits) FILTER (WHERE g.message_state = 'sent')::bigint AS sent,
                            pg_catalog.sum(g.visits) FILTER (WHERE g.message_state = 'refused')::bigint AS refused,
                            pg_catalog.sum(g.visits) FILTER (WHERE g.message_state = 'failed')::bigint AS failed,
                            pg_catalog.sum(g.visits) FILTER (WHERE g.message_state = 'expired')::bigint AS expired,
                            pg_catalog.sum(g.visits) FILTER (WHERE g.message_state = 'cancelled')::bigint AS cancelled
                       FROM crm.opening_visit AS g
                      GROUP BY g.journey, g.version, g.step) AS p USING (journey, version, step)
        OFFSET 0) AS d
  FULL JOIN (SELECT n.journey, n.version, n.step, pg_catalog.count(*) AS entered,
                    pg_catalog.count(*) FILTER (WHERE n.state = 'here') AS here,
                    pg_catalog.count(*) FILTER (WHERE n.state = 'left') AS left_on,
                    pg_catalog.count(*) FILTER (WHERE n.state = 'ended') AS ended,
                    pg_catalog.count(*) FILTER (WHERE n.state = 'ended' AND n.outcome = 'goal') AS ended_goal,
                    pg_catalog.percentile_cont('{0.5,0.9}'::double precision[]) WITHIN GROUP (ORDER BY n.seconds) AS seconds,
                    pg_catalog.count(n.message_state) AS messages,
                    pg_catalog.count(*) FILTER (WHERE n.message_state IN ('queued', 'sending')) AS queued,
                    pg_catalog.count(*) FILTER (WHERE n.message_state = 'sent') AS sent,
                    pg_catalog.count(*) FILTER (WHERE n.message_state = 'refused') AS refused,
                    pg_catalog.count(*) FILTER (WHERE n.message_state = 'failed') AS failed,
                    pg_catalog.count(*) FILTER (WHERE n.message_state = 'expired') AS expired,
                    pg_catalog.count(*) FILTER (WHERE n.message_state = 'cancelled') AS cancelled,
                    pg_catalog.count(*) FILTER (WHERE n.message_state = 'unknown') AS unknown,
                    pg_catalog.count(*) FILTER (WHERE n.message_state = 'waiting') AS waiting
               FROM crm.journey_visit AS n
              GROUP BY n.journey, n.version, n.step) AS v USING (journey, version, step)
 WHERE NOT EXISTS (SELECT FROM crm.roll_up_setting AS s WHERE s.kept)
UNION ALL
SELECT d.journey, d.version, d.step, d.kind, COALESCE(d.entered, 0) AS entered, COALESCE(d.here, 0) AS here,
       COALESCE(d.left_on, 0) AS left_on, COALESCE(d.ended, 0) AS ended,
       pg_catalog.round(d.ended::numeric / NULLIF(d.left_on + d.ended, 0), 4) AS drop_off,
       v.seconds[1] AS median_seconds, v.seconds[2] AS p90_seconds,
       COALESCE(v.queued, 0) AS queued, COALESCE(v.sent, 0) + COALESCE(g.sent, 0) AS sent,
       COALESCE(v.refused, 0) + COALESCE(g.refused, 0) AS refused,
       COALESCE(v.failed, 0) + COALESCE(g.failed, 0) AS failed, COALESCE(v.expired, 0) + COALESCE(g.expired, 0) AS expired,
       COALESCE(v.cancelled, 0) + COALESCE(g.cancelled, 0) AS cancelled,
       COALESCE(v.unknown, 0) AS unknown, COALESCE(v.waiting, 0) AS waiting,
       COALESCE(v.messages, 0) + COALESCE(g.messages, 0) AS messages, COALESCE(d.ended_goal, 0) AS ended_goal, d.label
  FROM (SELECT journey, version, step, o.kind, o.label, c.entered, c.here, c.left_on, c.ended, c.ended_goal
          FROM (SELECT DISTINCT o.journey, o.version, o.step, o.kind, o.label FROM crm.journey_outline AS o
                 WHERE EXISTS (SELECT FROM crm.roll_up_setting AS s WHERE s.kept)) AS o
          FULL JOIN (SELECT n.journey, n.version, n.step, pg_catalog.sum(n.visits)::bigint AS entered,
                            COALESCE(pg_catalog.sum(n.visits) FILTER (WHERE n.state = 'here'), 0)::bigint AS here,
                            COALESCE(pg_catalog.sum(n.visits) FILTER (WHERE n.state = 'left'), 0)::bigint AS left_on,
                            COALESCE(pg_catalog.sum(n.visits) FILTER (WHERE n.state = 'ended'), 0)::bigint AS ended,
                            COALESCE(pg_catalog.sum(n.visits) FILTER (WHERE n.state = 'ended' AND n.outcome = 'goal'), 0)::bigint AS ended_goal
                       FROM crm.visit_total AS n
                      GROUP BY n.journey, n.version, n.step) AS c USING (journey, version, step)) AS d
  LEFT JOIN (SELECT n.journey, n.version, n.step,
                    pg_catalog.percentile_cont('{0.5,0.9}'::double precision[]) WITHIN GROUP (ORDER BY n.seconds) AS seconds,
                    pg_catalog.count(n.message_state) AS messages,
                    pg_catalog.count(*) FILTER (WHERE n.message_state IN ('queued', 'sending')) AS queued,
                    pg_catalog.count(*) FILTER (WHERE n.message_state = 'sent') AS sent,
                    pg_catalog.count(*) FILTER (WHERE n.message_state = 'refused') AS refused,
                    pg_catalog.count(*) FILTER (WHERE n.message_state = 'failed') AS failed,
                    pg_catalog.count(*) FILTER (WHERE n.message_state = 'expired') AS expired,
                    pg_catalog.count(*) FILTER (WHERE n.message_state = 'cancelled') AS cancelled,
                    pg_catalog.count(*) FILTER (WHERE n.message_state = 'unknown') AS unknown,
                    pg_catalog.count(*) FILTER (WHERE n.message_state = 'waiting') AS waiting
               FROM crm.journey_visit AS n WHERE EXISTS (SELECT FROM crm.roll_up_setting AS s WHERE s.kept)
              GROUP BY n.journey, n.version, n.step) AS v
       ON v.journey = d.journey AND v.version = d.version AND v.step = d.step
  -- messages of steps that retention has dropped
  LEFT JOIN (SELECT n.journey, n.version, n.step,
                    pg_catalog.sum(n.visits) FILTER (WHERE n.message_state IS NOT NULL)::bigint AS messages,
                    pg_catalog.sum(n.visits) FILTER (WHERE n.message_state = 'sent')::bigint AS sent,
                    pg_catalog.sum(n.visits) FILTER (WHERE n.message_state = 'refused')::bigint AS refused,
                    pg_catalog.sum(n.visits) FILTER (WHERE n.message_state = 'failed')::bigint AS failed,
                    pg_catalog.sum(n.visits) FILTER (WHERE n.message_state = 'expired')::bigint AS expired,
                    pg_catalog.sum(n.visits) FILTER (WHERE n.message_state = 'cancelled')::bigint AS cancelled
               FROM crm.opening_visit AS n
              GROUP BY n.journey, n.version, n.step) AS g
       ON g.journey = d.journey AND g.version = d.version AND g.step = d.step;
COMMENT ON VIEW crm.journey_step IS 'Each step of each version of a journey, also those that nobody entered. It counts visits: who comes to a step twice counts twice.';
COMMENT ON COLUMN crm.journey_step.journey IS 'The journey.';
COMMENT ON COLUMN crm.journey_step.version IS 'Its version.';
COMMENT ON COLUMN crm.journey_step.step IS 'The step.';
COMMENT ON COLUMN crm.journey_step.kind IS 'Its kind: send, wait, branch, ...';
COMMENT ON COLUMN crm.journey_step.entered IS 'How often it was entered: here, left_on and ended together.';
COMMENT ON COLUMN crm.journey_step.here IS 'Who is there now.';
COMMENT ON COLUMN crm.journey_step.left_on IS 'How often it was left by an edge, to another step or to the end of the journey.';
COMMENT ON COLUMN crm.journey_step.ended IS 'How often an enrolment was left there: goal, exit rule, unenrolled, ...';
COMMENT ON COLUMN crm.journey_step.drop_off IS 'Share of ended among those who are no longer there, 0 to 1; NULL where nobody left.';
COMMENT ON COLUMN crm.journey_step.median_seconds IS 'Half of those who are no longer there stayed at most so long.';
COMMENT ON COLUMN crm.journey_step.p90_seconds IS 'Nine of ten stayed at most so long.';
COMMENT ON COLUMN crm.journey_step.queued IS 'Its messages that are on their way: queued or sending.';
COMMENT ON COLUMN crm.journey_step.sent IS 'Its messages that the platform took.';
COMMENT ON COLUMN crm.journey_step.refused IS 'Its messages that might not be sent.';
COMMENT ON COLUMN crm.journey_step.failed IS 'Its messages that could not be sent.';
COMMENT ON COLUMN crm.journey_step.expired IS 'Its messages that came too late.';
COMMENT ON COLUMN crm.journey_step.cancelled IS 'Its messages that were taken back.';
COMMENT ON COLUMN crm.journey_step.unknown IS 'Its messages of which nobody knows whether they were sent.';
COMMENT ON COLUMN crm.journey_step.waiting IS 'Its messages that the platform took and a person has to let go.';
COMMENT ON COLUMN crm.journey_step.messages IS 'All its messages.';
COMMENT ON COLUMN crm.journey_step.ended_goal IS 'Those of ended that had reached the goal.';
COMMENT ON COLUMN crm.journey_step.label IS 'What people call the step.';

CREATE OR REPLACE VIEW crm.journey_edge AS
SELECT g.journey, g.version, g.step, g.outcome, g.next_step, pg_catalog.sum(g.moves)::bigint AS moves,
       pg_catalog.max(g.rule) AS rule, pg_catalog.max(g.place) AS place
  FROM (SELECT o.journey, o.version, o.step, o.outcome, o.next_step, 0::bigint AS moves, o.rule, o.place
          FROM crm.journey_outline AS o
         WHERE o.outcome IS NOT NULL
        UNION ALL
        -- HAVING, not WHERE: nothing is known of how many are left, which would let the planner sort them all
        SELECT n.journey, n.version, n.step, n.outcome, n.next_step,
               pg_catalog.count(*) FILTER (WHERE n.state = 'left'), NULL::text, NULL::integer
          FROM crm.journey_visit AS n
         WHERE NOT EXISTS (SELECT FROM crm.roll_up_setting AS s WHERE s.kept)
         GROUP BY n.journey, n.version, n.step, n.outcome, n.next_step
        HAVING pg_catalog.count(*) FILTER (WHERE n.state = 'left') > 0
        UNION ALL
        SELECT p.journey, p.version, p.step, p.outcome, p.next_step, p.visits, NULL::text, NULL::integer
          FROM crm.opening_visit AS p
         WHERE p.state = 'left' AND NOT EXISTS (SELECT FROM crm.roll_up_setting AS s WHERE s.kept)
        UNION ALL
        SELECT n.journey, n.version, n.step, n.outcome, n.next_step, n.visits, NULL::text, NULL::integer
          FROM crm.visit_total AS n
         WHERE n.state = 'left') AS g
 GROUP BY g.journey, g.version, g.step, g.outcome, g.next_step;
COMMENT ON VIEW crm.journey_edge IS 'Each edge between the steps of each version of a journey, also those that nobody took.';
COMMENT ON COLUMN crm.journey_edge.journey IS 'The journey.';
COMMENT ON COLUMN crm.journey_edge.version IS 'Its version.';
COMMENT ON COLUMN crm.journey_edge.step IS 'The step that the edge leads from.';
COMMENT ON COLUMN crm.journey_edge.outcome IS 'The edge: next, timeout, refused, failed; of a branch its place from 1, or default; of a split the arm.';
COMMENT ON COLUMN crm.journey_edge.next_step IS 'The step that it leads to; NULL where the journey finishes.';
COMMENT ON COLUMN crm.journey_edge.moves IS 'How often it was taken.';
COMMENT ON COLUMN crm.journey_edge.rule IS 'The rule of a branch.';
COMMENT ON COLUMN crm.journey_edge.place IS 'Order of the edges of a step; NULL for one that the definition does not name.';

CREATE OR REPLACE VIEW crm.journey_gap AS
SELECT c.contact_id, c.stage, l.journey AS last_journey, l.ended_at AS last_ended_at
  FROM crm.contact AS c
  LEFT JOIN (SELECT DISTINCT ON (e.contact_id) e.contact_id, e.journey, e.ended_at
               FROM crm.enrolment AS e
              ORDER BY e.contact_id, e.ended_at DESC NULLS LAST, e.enrolment_id DESC) AS l ON l.contact_id = c.contact_id
 WHERE NOT EXISTS (SELECT FROM crm.enrolment AS a WHERE a.contact_id = c.contact_id AND a.state = 'active');
COMMENT ON VIEW crm.journey_gap IS 'Contacts who are in no journey now.';
COMMENT ON COLUMN crm.journey_gap.contact_id IS 'Who.';
COMMENT ON COLUMN crm.journey_gap.stage IS 'Stage of the contact.';
COMMENT ON COLUMN crm.journey_gap.last_journey IS 'The journey that ended last; NULL where there was none.';
COMMENT ON COLUMN crm.journey_gap.last_ended_at IS 'When it ended.';

-- standstill: only what no fact, no message and no tick can move
CREATE OR REPLACE VIEW crm.stuck AS
SELECT 'enrolment'::text AS kind, e.contact_id, e.journey AS object, e.enrolment_id, e.step, e.step_at AS since,
       e.stuck AS reason
  FROM crm.enrolment AS e
 WHERE e.state = 'active' AND e.stuck IS NOT NULL
UNION ALL
SELECT 'standstill', e.contact_id, e.journey, e.enrolment_id, e.step, e.step_at,
       CASE WHEN d.step IS NULL THEN 'no_step'
            WHEN e.message_id IS NULL THEN 'no_deadline'
            ELSE 'no_message' END
  FROM crm.enrolment AS e
  LEFT JOIN (SELECT DISTINCT o.journey, o.version, o.step, o.kind FROM crm.journey_outline AS o) AS d
       ON d.journey = e.journey AND d.version = e.version AND d.step = e.step
  LEFT JOIN crm.message AS m ON m.contact_id = e.contact_id AND m.message_id = e.message_id
 WHERE e.state = 'active' AND e.stuck IS NULL
   AND (d.step IS NULL
        OR e.due_at IS NULL AND e.message_id IS NULL AND d.kind NOT IN ('wait_for', 'wait_until', 'ask')
        OR e.due_at IS NULL AND e.message_id IS NOT NULL AND m.message_id IS NULL)
UNION ALL
SELECT 'rule', NULL, r.object_kind || ' ' || r.object, NULL, NULL, pg_catalog.min(r.first_at),
       pg_catalog.format('failed for %s contacts with SQLSTATE %s', pg_catalog.count(DISTINCT r.contact_id),
                         pg_catalog.string_agg(DISTINCT r.sqlstate, ', '))
  FROM crm.rule_error AS r
 WHERE r.last_at >= crm.now() - '1 day'::interval
 GROUP BY r.object_kind, r.object;
COMMENT ON VIEW crm.stuck IS 'What does not go on by itself: enrolments whose step cannot be done, enrolments that nothing can move, rules that failed within a day.';
COMMENT ON COLUMN crm.stuck.kind IS 'enrolment: its step cannot be done now; standstill: nothing can move it; rule: it failed, and counted as false.';
COMMENT ON COLUMN crm.stuck.contact_id IS 'Who; NULL for a rule.';
COMMENT ON COLUMN crm.stuck.object IS 'The journey; for a rule what it belongs to, as in crm.rule_error.';
COMMENT ON COLUMN crm.stuck.enrolment_id IS 'The enrolment.';
COMMENT ON COLUMN crm.stuck.step IS 'The step.';
COMMENT ON COLUMN crm.stuck.since IS 'When the step was entered; when the rule failed first.';
COMMENT ON COLUMN crm.stuck.reason IS 'Why: of an enrolment what it says; of a standstill no_step (its version has no such step), no_deadline or no_message; of a rule for how many contacts it failed.';
