-- what an analyst sees: every column has a comment, every view can be read, nothing says who a contact is
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install();
SELECT no_plan();
CREATE ROLE reader;
SELECT crm.grant_access('reader', 'analyst');

-- comments
SELECT is_empty($$SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'crm'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND obj_description(c.oid, 'pg_class') IS NULL$$,
    'every table and view has a comment');
SELECT is_empty($$SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = 'crm'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition AND coalesce(col_description(c.oid, a.attnum), '') = ''
      -- columns of the profile are those of tables that have one
      AND NOT EXISTS (SELECT FROM pg_attribute o WHERE c.relname = 'profile' AND o.attname = a.attname
                       AND o.attrelid IN ('crm.contact'::regclass, 'crm.profile_counter'::regclass, 'crm.stage'::regclass) AND col_description(o.attrelid, o.attnum) <> '')$$,
    'every column of them, too');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
    WHERE p.pronamespace = 'crm'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL$$, 'and every function');

-- views: all of them, but the one that shows what a contact said and did, and what roll-ups are compared with
SELECT set_eq($$SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'crm'::regnamespace AND c.relkind = 'v'
    AND NOT has_any_column_privilege('reader', c.oid, 'SELECT')$$, $$VALUES ('contact_timeline'), ('enrolment_exact'), ('fact_exact'), ('visit_exact')$$, 'all views but these can be read');
SELECT set_eq($$SELECT c.relname || '.' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE c.relnamespace = 'crm'::regnamespace AND c.relkind = 'v' AND c.relname NOT IN ('contact_timeline', 'enrolment_exact', 'fact_exact', 'visit_exact') AND NOT has_column_privilege('reader', c.oid, a.attnum, 'SELECT')$$,
    $$VALUES ('active_alarm.detail'), ('profile.attributes'), ('profile.birthday'), ('profile.mobile'), ('profile.name'), ('stage_history.reason'), ('stuck.reason')$$, 'in full, but for these columns');

-- a row in every table, with its own name in every column that holds text
CREATE FUNCTION pg_temp.filler(relid oid, attribute pg_attribute) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	marker text := format('LEAK %s.%s', (SELECT relname FROM pg_class WHERE oid = relid), attribute.attname);
	allowed text := (SELECT (regexp_match(pg_get_constraintdef(k.oid), '''\{?([a-z_]+)'))[1] FROM pg_constraint k
	                  WHERE k.conrelid = relid AND k.contype = 'c' AND k.conkey = ARRAY[attribute.attnum] AND pg_get_constraintdef(k.oid) ~ 'ANY|<@' LIMIT 1);
BEGIN
	RETURN CASE format_type(attribute.atttypid, NULL)
		WHEN 'text' THEN quote_literal(CASE attribute.attname WHEN 'time_zone' THEN 'UTC' ELSE coalesce(allowed, marker) END)
		WHEN 'name' THEN quote_literal(marker)
		WHEN 'text[]' THEN quote_literal(ARRAY[coalesce(allowed, marker)])
		WHEN 'jsonb' THEN quote_literal(jsonb_build_object(marker, marker))
		WHEN 'jsonb[]' THEN quote_literal(ARRAY[jsonb_build_object(marker, marker)])
		WHEN 'crm.mobile' THEN quote_literal('+8613800138000')
		WHEN 'crm.weekly_hours' THEN quote_literal('24/7')
		WHEN 'boolean' THEN 'true' WHEN 'date' THEN 'current_date' WHEN 'timestamp with time zone' THEN 'now()'
		WHEN 'interval' THEN quote_literal('1 day') ELSE CASE WHEN attribute.attndims > 0 THEN quote_literal('{1}') ELSE '1' END END;
END $$;
CREATE TEMP TABLE filler AS
SELECT c.oid, c.relname, string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) AS columns,
       string_agg(pg_temp.filler(c.oid, a), ', ' ORDER BY a.attnum) AS fillers
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
 WHERE c.relnamespace = 'crm'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition GROUP BY c.oid;
SET LOCAL session_replication_role = replica;
DO $$
DECLARE
	t record;
BEGIN
	-- constraints between columns do not matter here
	FOR t IN SELECT k.conrelid::regclass AS relation, k.conname FROM pg_constraint k JOIN filler f ON f.oid = k.conrelid WHERE k.contype = 'c' LOOP
		EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', t.relation, t.conname);
	END LOOP;
	FOR t IN SELECT * FROM filler LOOP
		EXECUTE format('DELETE FROM crm.%I', t.relname);
		EXECUTE format('INSERT INTO crm.%I (%s) VALUES (%s)', t.relname, t.columns, t.fillers);
	END LOOP;
END $$;
SET LOCAL session_replication_role = origin;

-- all that the role may read, as text
CREATE TEMP TABLE seen (relation name, what text);
CREATE FUNCTION pg_temp.read_all() RETURNS TABLE (relation name, what text) LANGUAGE plpgsql AS $$
DECLARE
	t record;
BEGIN
	FOR t IN SELECT c.relname, string_agg(format('t.%I::text', a.attname), ', ' ORDER BY a.attnum) AS columns
	           FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	          WHERE c.relnamespace = 'crm'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
	            AND has_column_privilege(c.oid, a.attnum, 'SELECT') GROUP BY c.oid LOOP
		RETURN QUERY EXECUTE format('SELECT %L::name, concat_ws('' '', %s) FROM crm.%I AS t', t.relname, t.columns, t.relname);
	END LOOP;
END $$;
GRANT ALL ON seen TO reader;
SET LOCAL ROLE reader;
INSERT INTO seen SELECT * FROM pg_temp.read_all();
RESET ROLE;
SELECT cmp_ok((SELECT count(DISTINCT relation) FROM seen), '>', 80::bigint, 'rows of most tables and views were read');
SELECT is_empty($$SELECT DISTINCT relation FROM seen WHERE what ~ '13800138000'$$, 'no mobile');
-- the test sees what there is to be seen
INSERT INTO seen SELECT 'owner', what FROM pg_temp.read_all() WHERE what ~ '13800138000|LEAK identity.external_id|LEAK event.properties|LEAK message.params|LEAK delivery_attempt.reply';
SELECT cmp_ok((SELECT count(*) FROM seen WHERE relation = 'owner'), '>=', 5::bigint, 'which an owner would see');
DELETE FROM seen WHERE relation = 'owner';
-- names that the brand gave, definitions, and words of the extension: what is added here says nothing of a person
CREATE TEMP TABLE harmless AS
SELECT t[1] || '.' || c AS name FROM regexp_matches($$
    account(name) achievement(label, name, on_kind, rule) acquisition(campaign, source) alarm(kind, object) api_limit(api, channel)
    attribution(label, name, on_kind, rule) opening_fact(kind) opening_visit(journey, next_step, outcome, state, step) retention(problem)
    api_usage(api, blocked_reason) associate(role_name, skills, userid) award(achievement) award_change(achievement)
    campaign(audience, label, name, params, stage, template) consent(channel) contact(city, gender, language, stage, tags)
    coupon(code_prefix, label, name) coupon_code(coupon) coupon_counter(coupon) coupon_grant(coupon, once) delivery_attempt(outcome)
    earning_rule(label, name, on_kind, program, rule) emotion(touchpoint) enrolment(end_reason, entered_by, journey, state, step) event(kind)
    enrolment_sum(end_reason, journey, state) enrolment_tail(end_reason, journey, state)
    first_scan(scope, scope_id) frequency_cap(channel, name) journey(journey) journey_version(definition, journey, published_by)
    loyalty_program(description, label, name, settings) map(map) map_version(defined_by, definition, map) membership(tier)
    message(channel, class, reason, state, template) outbox(lane) persona(description, label, name, rule)
    point_entry(earning_rule, kind, source_table) profile_counter(ranked_stage, stage) qr_code(campaign, scene) quiet_hours(channel, name)
    refusal(kind, object, reason) rule_error(object, object_kind, sqlstate) scan_flag(scan_limit) scan_limit(label, name)
    segment(label, name, partition, rule) segment_change(cause, segment) segment_member(cause, partition, segment) stage(label, stage)
    stage_move(stage) stage_rule(rule, stage) step_visit(arm, journey, next_step, outcome, step) store(name)
    template(account, channel, class, label, lane, message_type, name) template_version(channel, class, message_type, name) tier(label, program, tier)
    tier_change(new_tier, old_tier, reason) touchpoint(account, campaign, channel, description, label, name, on_kind, page, rule, scene, template)
    touchpoint_note(noted_by, touchpoint) transaction(currency, kind) visit_day(journey, next_step, outcome, state, step)
    visit_tail(journey, next_step, outcome, state, step) window_grant(kind) window_rule(account_kind, kind)
$$, '([a-z_]+)\(([a-z_, ]+)\)', 'g') AS t CROSS JOIN LATERAL string_to_table(t[2], ', ') AS c;
SELECT set_eq($$SELECT DISTINCT m[1] FROM seen CROSS JOIN LATERAL regexp_matches(what, 'LEAK ([a-z_]+\.[a-z_]+)', 'g') AS m$$,
    'SELECT name FROM harmless', 'no text but the harmless ones');

-- a view reads as its owner: what texts of contacts it reads of hidden columns is looked at here
SELECT set_eq($$SELECT DISTINCT v.relname || ': ' || t.relname || '.' || a.attname
    FROM pg_rewrite r JOIN pg_class v ON v.oid = r.ev_class JOIN pg_depend d ON d.objid = r.oid AND d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
    JOIN pg_class t ON t.oid = d.refobjid JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0
   WHERE v.relnamespace = 'crm'::regnamespace AND v.relkind = 'v' AND v.relname NOT IN ('contact_timeline', 'profile')
     AND t.relkind IN ('r', 'p') AND format_type(a.atttypid, NULL) IN ('text', 'text[]', 'jsonb', 'jsonb[]', 'crm.mobile')
     AND EXISTS (SELECT FROM pg_attribute i WHERE i.attrelid = t.oid AND i.attname IN ('contact_id', 'detail'))
     AND has_any_column_privilege('reader', v.oid, 'SELECT') AND NOT has_column_privilege('reader', t.oid, a.attnum, 'SELECT')$$,
    $$VALUES ('active_alarm: alarm.detail'), ('campaign_report: message.send_key'), ('journey_summary: enrolment.stuck'), ('stage_history: stage_move.reason'), ('stuck: enrolment.stuck'),
        ('won_span: won_counted.campaign'), ('won_span: won_counted.source')$$, 'views read these hidden columns, and show none of them but names that the brand gave');

SELECT * FROM finish();
ROLLBACK;
