-- compiled rules as a session keeps them: many of them, and some in use while others come
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET search_path = public, pg_catalog;
SET pg_crm.clock = '2024-01-01 00:00Z';
SELECT no_plan();
INSERT INTO crm.contact (contact_id) SELECT generate_series(1, 300);
INSERT INTO crm.transaction (contact_id, amount) SELECT c, 10 FROM unnest('{1, 2, 2, 150, 299}'::int[]) AS c;
CREATE VIEW kept AS SELECT count(*) FILTER (WHERE name = 'pg_crm rule') AS rules, count(*) FILTER (WHERE name = 'CachedPlanSource') AS plans FROM pg_backend_memory_contexts;

-- more rules than are kept
CREATE FUNCTION pg_temp.right(first int, last int) RETURNS bigint LANGUAGE sql AS
$$SELECT count(*) FROM generate_series(first, last) AS n WHERE crm.rule_holds(2, format('orders * %s = %s', n, 2 * n)) AND NOT crm.rule_holds(1, format('orders * %s = %s', n, 2 * n))$$;
SELECT is(pg_temp.right(1, 100), 100::bigint, 'a hundred rules');
SELECT is((SELECT rules FROM kept), 100::bigint, 'are kept');
SELECT is(pg_temp.right(1, 1500), 1500::bigint, 'more than are kept, right once');
CREATE TEMP TABLE once AS SELECT * FROM kept;
SELECT cmp_ok((SELECT rules FROM once), '<=', 1000::bigint, 'no more than a thousand are kept');
SELECT is(pg_temp.right(1, 1500), 1500::bigint, 'and right once more');
SELECT cmp_ok((SELECT k.plans - o.plans FROM kept k, once o), '<', 100::bigint, 'nothing stays of those that went');
SELECT crm.rule_holds(2, 'orders * 501 = 1002') \g /dev/null
SELECT is(pg_temp.right(1501, 2499), 999::bigint, 'almost a thousand others');
SELECT is((SELECT array_agg(m[1]::int ORDER BY m[1]::int) FROM pg_backend_memory_contexts, regexp_match(ident, '^orders \* (50[0-2]) ') AS m WHERE name = 'pg_crm rule' AND m IS NOT NULL), '{501}', 'of older ones the last used stays');
ALTER VIEW crm.profile SET (security_barrier = false);
SELECT crm.rule_holds(2, 'orders = 2') \g /dev/null
SELECT is((SELECT rules FROM kept), 1::bigint, 'a changed profile drops all');
ALTER VIEW crm.profile RESET (security_barrier);

-- a rule that is at work for many contacts while a trigger asks more others than are kept
CREATE FUNCTION ask_others() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
	IF current_setting('test.others', true) = 'change' THEN
		ALTER VIEW crm.profile SET (security_barrier = false);
		ALTER VIEW crm.profile RESET (security_barrier);
	END IF;
	PERFORM crm.rule_holds(2, format('orders < %s AND spend < %s', n, n)) FROM generate_series(1, 1100) AS n;
	RETURN NEW;
END$$;
CREATE TRIGGER ask_others BEFORE INSERT ON crm.rule_error FOR EACH ROW EXECUTE FUNCTION ask_others();
SELECT is((SELECT count(*) FROM crm.audience('10 / (orders - 1) < 0')), 296::bigint, 'goes on with the next contact');
SELECT is((SELECT array_agg(contact_id ORDER BY contact_id) FROM crm.rule_error), '{1,150,299}', 'and finds all that fail');
SET test.others = 'change';
SELECT is((SELECT count(*) FROM crm.audience('20 / (orders - 1) < 0')), 296::bigint, 'also where all are dropped');
SELECT cmp_ok((SELECT rules FROM kept), '<=', 1001::bigint, 'and goes when it is done');
DROP TRIGGER ask_others ON crm.rule_error;

-- the moments of rules over time
DO $$BEGIN
	FOR n IN 1..1100 LOOP
		PERFORM crm.define_segment(jsonb_build_object('name', 'timed', 'rule', format('last_order_at < as_of - interval ''%s hours''', n)));
	END LOOP;
END$$;
SELECT cmp_ok((SELECT rules FROM kept), '<=', 2000::bigint, 'no more than a thousand of these either');
INSERT INTO crm.contact (contact_id) VALUES (301);
SELECT crm.purchase(301, 10) \g /dev/null
SELECT is((SELECT due_at FROM crm.segment_state WHERE contact_id = 301), '2024-02-15 20:00:00.000001Z', 'the last is right');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

SELECT * FROM finish();
ROLLBACK;
