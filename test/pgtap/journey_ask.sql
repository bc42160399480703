-- step ask: what is read of a reply, where it goes, and numbers of other contacts
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET search_path = public, pg_catalog;
SET pg_crm.clock = '2026-03-10 10:00:00.4+08';
SELECT no_plan();
ALTER TABLE crm.contact ADD size numeric CHECK (size < 60), ADD appointment date, ADD child_birthday date;
INSERT INTO crm.account (kind, name) VALUES ('official_account', 'maison');
SELECT crm.define_template('{"name": "question", "channel": "official_account", "message_type": "text", "body": {"content": "Which {{what|one}}?"}}') \g /dev/null

CREATE FUNCTION pg_temp.ask(name text, step jsonb) RETURNS integer LANGUAGE sql AS
$$SELECT crm.publish_journey(crm.journey_document(name, 'ask', jsonb_build_object(
    'ask', '{"kind": "ask", "within": "1 day", "next": "good", "on_timeout": "silent"}' || step,
    'good', '{"kind": "exit", "reason": "good"}'::jsonb, 'bad', '{"kind": "exit", "reason": "bad"}'::jsonb,
    'silent', '{"kind": "exit", "reason": "silent"}'::jsonb) - CASE WHEN step ? 'on_failed' THEN '' ELSE 'bad' END))$$;
CREATE FUNCTION pg_temp.faults(name text, step jsonb) RETURNS text LANGUAGE plpgsql AS
$$BEGIN PERFORM pg_temp.ask(name, step); RETURN NULL; EXCEPTION WHEN OTHERS THEN DECLARE detail text; BEGIN GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL; RETURN SQLERRM || ' ' || detail; END; END$$;
-- what became of the newest enrolment: at a step, or the reason of its end
CREATE FUNCTION pg_temp.fate(contact bigint, name text) RETURNS text LANGUAGE sql AS
$$SELECT coalesce(CASE WHEN state = 'active' THEN 'at ' || step ELSE coalesce(end_reason, step) END || coalesce(', stuck: ' || stuck, ''))
    FROM crm.enrolment WHERE contact_id = $1 AND journey = $2 ORDER BY enrolment_id DESC LIMIT 1$$;
-- a contact of its own asked, who writes these one after another: what became of it, and the column
CREATE FUNCTION pg_temp.asked(name text, field text, VARIADIC replies text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE c bigint; reply text; found text;
BEGIN
	INSERT INTO crm.contact (created_at) VALUES ('2025-01-01Z') RETURNING contact_id INTO c;
	PERFORM crm.enrol(c, name);
	FOREACH reply IN ARRAY replies LOOP
		PERFORM crm.track(c, 'message', jsonb_build_object('content', reply), account => 'maison');
	END LOOP;
	IF field LIKE 'context.%' THEN
		SELECT context ->> substr(field, 9) INTO found FROM crm.enrolment WHERE contact_id = c;
	ELSE
		EXECUTE format('SELECT %I::text FROM crm.contact WHERE contact_id = $1', field) INTO found USING c;
	END IF;
	RETURN pg_temp.fate(c, name) || coalesce(': ' || found, '');
END $$;

-- documents
SELECT matches(pg_temp.faults('f', '{"field": "context.entry"}'), '"entry" is no name', 'the entry is not overwritten');
SELECT matches(pg_temp.faults('f', '{"field": "context.a.b"}'), '"a.b" is no name', 'nor is a member that could not be read');
SELECT matches(pg_temp.faults('f', '{"field": "attributes"}'), 'of field attributes is choice, not text', 'attributes are no text');
SELECT matches(pg_temp.faults('f', '{"field": "attributes", "reply": "choice", "choices": {"1": "dry"}}'), 'is a string, not an object', 'but objects');

-- text
SELECT pg_temp.ask('text', '{"field": "context.wish"}') \g /dev/null
SELECT is(pg_temp.asked('text', 'context.wish', '  ein　Ring '), 'good: ein　Ring', 'a text, trimmed');
SELECT is(pg_temp.asked('text', 'context.wish', ' 　 ', 'yes'), 'good: yes', 'nothing is no reply');
SELECT is(pg_temp.asked('text', 'context.wish', 'a', 'b'), 'good: a', 'the next one counts');
SELECT pg_temp.ask('city', '{"field": "city"}') \g /dev/null
SELECT is(pg_temp.asked('city', 'city', ' 上海 '), 'good: 上海', 'a column');
SELECT pg_temp.ask('size', '{"field": "size", "on_failed": "bad"}') \g /dev/null
SELECT is(pg_temp.asked('size', 'size', '54.5'), 'good: 54.5', 'a column of another type');
SELECT is(pg_temp.asked('size', 'size', 'large'), 'bad', 'that the reply does not fit');
SELECT is(pg_temp.asked('size', 'size', '80'), 'bad', 'or a constraint refuses');
SELECT pg_temp.ask('size_again', '{"field": "size"}') \g /dev/null
SELECT is(pg_temp.asked('size_again', 'size', 'large', '80'), 'at ask', 'without an edge it goes on waiting');
SELECT is(pg_temp.asked('size_again', 'size', 'large', '80', '52'), 'good: 52', 'for one that can be stored');

-- members, and messages without one
INSERT INTO crm.contact (contact_id) VALUES (1001), (1002), (1003), (1004);
SELECT crm.enrol(c, 'text') FROM generate_series(1001, 1004) c \g /dev/null
SELECT crm.track(1001, 'message', '{"text": "by text"}'), crm.track(1002, 'message', '{"Content": "by Content", "MsgType": "text"}'),
    crm.track(1003, 'message', '{"content": "first", "text": "second"}'), crm.track(1004, 'message', '{"MsgType": "image"}') \g /dev/null
SELECT is(array_agg(context ->> 'wish' ORDER BY contact_id), '{by text,by Content,first,NULL}', 'content, text or Content') FROM crm.enrolment WHERE contact_id BETWEEN 1001 AND 1004;
SELECT is(pg_temp.fate(1004, 'text'), 'at ask', 'a picture is none of them');

-- choices
SELECT pg_temp.ask('choice', '{"field": "gender", "reply": "choice", "choices": {"1": "female", "２": "male", "Keine Angabe": null, "x": "small", "X": "capital"}, "on_failed": "bad"}') \g /dev/null
SELECT is(pg_temp.asked('choice', 'gender', r), e, r) FROM (VALUES (' 1 ', 'good: female'), ('１', 'good: female'), ('2', 'good: male'), ('２', 'good: male'), ('　2', 'good: male'),
    ('KEINE angabe', 'good'), ('x', 'good: small'), ('X', 'good: capital'), ('Ｘ', 'good: capital'), ('3', 'bad'), ('12', 'bad'), ('1.', 'bad')) v(r, e);
SELECT pg_temp.ask('vip', '{"field": "context.vip", "reply": "choice", "choices": {"yes": {"since": 2026}, "no": false}}') \g /dev/null
SELECT is(pg_temp.asked('vip', 'context.vip', 'perhaps', 'YES'), 'good: {"since": 2026}', 'a value of any kind');
SELECT pg_temp.ask('skin', '{"field": "attributes", "reply": "choice", "choices": {"1": {"skin": "dry"}}}') \g /dev/null
SELECT is(pg_temp.asked('skin', 'attributes', '1'), 'good: {"skin": "dry"}', 'attributes');

-- days: today is 2026-03-10
SELECT pg_temp.ask('birthday', '{"field": "birthday", "on_failed": "bad"}') \g /dev/null
SELECT is(pg_temp.asked('birthday', 'birthday', r), e, r) FROM (VALUES ('1990-05-01', 'good: 1990-05-01'), ('19900501', 'good: 1990-05-01'), ('1990/5/1', 'good: 1990-05-01'),
    ('1990.5.1', 'good: 1990-05-01'), ('1990年5月1日', 'good: 1990-05-01'), ('１９９０年５月１号', 'good: 1990-05-01'), (' 1990 年 5 月 1 ', 'good: 1990-05-01'), ('2000-02-29', 'good: 2000-02-29'),
    ('1990-5/1', 'bad'), ('1990-02-30', 'bad'), ('1900-02-29', 'bad'), ('5月1日', 'bad'), ('05/01/1990', 'bad'), ('900501', 'bad'), ('1990年', 'bad'), ('1990-13-01', 'bad'), ('0000-01-01', 'bad'),
    ('today', 'bad'), ('2026-03-11', 'bad'), ('2026-03-10', 'good: 2026-03-10'), ('infinity', 'bad'), ('1990年5-1', 'bad'), ('19900501x', 'bad'), ('1990-05-01 12:00', 'bad'), ('199005011', 'bad')) v(r, e);
SELECT pg_temp.ask('appointment', '{"field": "appointment", "on_failed": "bad"}') \g /dev/null
SELECT is(pg_temp.asked('appointment', 'appointment', r), e, r) FROM (VALUES ('5月1日', 'good: 2026-05-01'), ('3月10号', 'good: 2026-03-10'), ('3月9日', 'good: 2027-03-09'), ('2月29日', 'good: 2028-02-29'),
    ('2027-01-02', 'good: 2027-01-02'), ('2月30日', 'bad'), ('13月1日', 'bad'), ('0月1日', 'bad'), ('5月', 'bad'), ('5-1', 'bad')) v(r, e);
SELECT pg_temp.ask('child', '{"field": "child_birthday"}') \g /dev/null
SELECT is(pg_temp.asked('child', 'child_birthday', '5月1日'), 'at ask', 'a birthday under another name needs its year, too');
SELECT pg_temp.ask('when', '{"field": "context.day", "reply": "date"}') \g /dev/null
SELECT is(pg_temp.asked('when', 'context.day', '2026/4/5'), 'good: 2026-04-05', 'a day in the context');

-- the question, and the time of the reply
SELECT pg_temp.ask('question', '{"field": "context.size", "template": "question", "params": {"what": "size"}}') \g /dev/null
INSERT INTO crm.contact (contact_id) VALUES (1101), (1102), (1103), (1104), (1105), (1106);
SELECT crm.enrol(c, 'question') FROM generate_series(1101, 1106) c \g /dev/null
SELECT is((SELECT count(*)::integer FROM crm.message m JOIN crm.step_visit v USING (contact_id, message_id) WHERE v.step = 'ask' AND m.params ->> 'what' = 'size'), 6, 'the question was queued');
SELECT crm.track(1101, 'message', '{"content": "early"}', at => '2026-03-10 09:59:59+08'), crm.track(1102, 'message', '{"content": "same second"}', at => '2026-03-10 10:00:00+08') \g /dev/null
SELECT is(pg_temp.fate(1101, 'question'), 'at ask', 'what was written before is no reply');
SELECT is(pg_temp.fate(1102, 'question'), 'good', 'of the same second it is');
SET pg_crm.clock = '2026-03-11 10:00:05+08';
SELECT crm.track(1103, 'message', '{"content": "last"}', at => '2026-03-11 10:00:00+08'), crm.track(1104, 'message', '{"content": "late"}', at => '2026-03-11 10:00:01+08') \g /dev/null
SELECT is(pg_temp.fate(1103, 'question'), 'good', 'before the deadline');
SELECT is(pg_temp.fate(1104, 'question'), 'at ask', 'and after it');
SELECT crm.tick('2026-03-11 10:00:05+08') \g /dev/null
SELECT is(pg_temp.fate(c, 'question'), 'silent', 'nobody answered') FROM unnest('{1101,1104,1105,1106}'::bigint[]) c;
SELECT is((SELECT outcome FROM crm.step_visit WHERE contact_id = 1101 AND step = 'ask'), 'timeout', 'the edge');
SELECT is((SELECT left_at FROM crm.step_visit WHERE contact_id = 1101 AND step = 'ask'), '2026-03-11 10:00:00.4+08', 'at the deadline');

-- one message is one reply, and the one that let the contact in is none
SELECT crm.publish_journey(crm.journey_document('chat', 'name', '{
  "name": {"kind": "ask", "field": "context.name", "within": "1 day", "next": "city"},
  "city": {"kind": "ask", "field": "context.city", "within": "1 day", "next": "rest"},
  "rest": {"kind": "wait", "for": "1 day"}}', '[{"on": "message"}]')) \g /dev/null
INSERT INTO crm.contact (contact_id) VALUES (1201), (1202);
SELECT crm.track(1201, 'message', '{"content": "hello"}') \g /dev/null
SELECT is(pg_temp.fate(1201, 'chat'), 'at name', 'the message that let it in');
SELECT crm.track(1201, 'message', '{"content": "Mei"}') \g /dev/null
SELECT is(pg_temp.fate(1201, 'chat'), 'at city', 'a reply');
SELECT crm.track(1201, 'message', '{"content": "Suzhou"}') \g /dev/null
SELECT is((SELECT context - 'entry' FROM crm.enrolment WHERE contact_id = 1201 AND journey = 'chat'), '{"name": "Mei", "city": "Suzhou"}', 'each to its question');
INSERT INTO crm.event (contact_id, kind, occurred_at, properties)
SELECT 1202, 'message', crm.now(), jsonb_build_object('content', w) FROM unnest('{hello,Li,Wuxi}'::text[]) w;
SELECT is((SELECT context - 'entry' FROM crm.enrolment WHERE contact_id = 1202 AND journey = 'chat'), '{"name": "Li", "city": "Wuxi"}', 'of one statement, too');

-- time moved on after a while: replies that came meanwhile are found
SELECT crm.publish_journey(crm.journey_document('later', 'rest', '{
  "rest": {"kind": "wait", "for": "1 hour", "next": "size"},
  "size": {"kind": "ask", "field": "size", "within": "1 day", "next": "done", "on_timeout": "silent"},
  "done": {"kind": "wait", "for": "10 days"}, "silent": {"kind": "exit", "reason": "silent"}}')) \g /dev/null
INSERT INTO crm.contact (contact_id) VALUES (1301), (1302), (1303);
SELECT crm.enrol(c, 'later') FROM generate_series(1301, 1303) c \g /dev/null
SET pg_crm.clock = '2026-03-11 10:30+08';
SELECT crm.track(1301, 'message', '{"content": "40"}') \g /dev/null
SET pg_crm.clock = '2026-03-11 12:00+08';
SELECT crm.track(1302, 'message', '{"content": "large"}') \g /dev/null
SET pg_crm.clock = '2026-03-11 13:00+08';
SELECT crm.track(1302, 'message', '{"content": "41"}') \g /dev/null
SET pg_crm.clock = '2026-03-12 12:00+08';
SELECT crm.track(1303, 'message', '{"content": "42"}') \g /dev/null
SELECT crm.tick('2026-03-13 11:30+08') \g /dev/null
SELECT is(pg_temp.fate(1301, 'later'), 'silent', 'before the step');
SELECT is(pg_temp.fate(1302, 'later'), 'at done', 'the first that can be stored');
SELECT is((SELECT size FROM crm.contact WHERE contact_id = 1302), 41::numeric, 'is');
SELECT is((SELECT step_at FROM crm.enrolment WHERE contact_id = 1302 AND journey = 'later'), '2026-03-11 13:00+08', 'and moves it when it was recorded');
SELECT is(pg_temp.fate(1303, 'later'), 'silent', 'after the deadline');

-- a frozen journey, and what was said meanwhile
SET pg_crm.clock = '2026-03-13 12:00+08';
INSERT INTO crm.contact (contact_id) VALUES (1401);
SELECT crm.enrol(1401, 'city') \g /dev/null
SELECT crm.set_journey('city', 'frozen') \g /dev/null
SET pg_crm.clock = '2026-03-13 13:00+08';
SELECT crm.track(1401, 'message', '{"content": "Hangzhou"}') \g /dev/null
SELECT is(pg_temp.fate(1401, 'city'), 'at ask', 'nobody moves');
SELECT crm.set_journey('city', 'open') \g /dev/null
SELECT is(pg_temp.fate(1401, 'city'), 'good', 'until it is open again');
SELECT is((SELECT city FROM crm.contact WHERE contact_id = 1401), 'Hangzhou', 'and the reply is taken');

-- mobiles: nobody's, the contact's own
SELECT pg_temp.ask('mobile', '{"field": "mobile", "on_failed": "bad"}') \g /dev/null
SELECT is(pg_temp.asked('mobile', 'mobile', r), e, r) FROM (VALUES ('13800000001', 'good: +8613800000001'), ('　１３８ ００００ ０００２ ', 'good: +8613800000002'),
    ('＋86 138-0000-0003', 'good: +8613800000003'), ('my number is 13800000004', 'bad'), ('1380000', 'bad'), ('', 'bad')) v(r, e);
SELECT is(pg_temp.asked('mobile', 'mobile', repeat('1', 5000)), 'bad', 'five thousand digits');
SELECT ok((SELECT verified_at IS NOT NULL FROM crm.identity WHERE external_id = '+8613800000001'), 'the number is proved');
SELECT is((SELECT count(*)::integer FROM crm.event WHERE kind = 'bind_mobile'), 3, 'and bound as by the function');
INSERT INTO crm.contact (contact_id, mobile) VALUES (1501, '13800000011');
SELECT crm.enrol(1501, 'mobile') \g /dev/null
SELECT crm.track(1501, 'message', '{"content": "13800000011"}') \g /dev/null
SELECT is(pg_temp.fate(1501, 'mobile'), 'good', 'a number that it has');
SELECT ok((SELECT verified_at IS NOT NULL FROM crm.identity WHERE external_id = '+8613800000011'), 'is proved');
SELECT pg_temp.ask('phone', '{"field": "context.phone", "reply": "mobile"}') \g /dev/null
SELECT is(pg_temp.asked('phone', 'context.phone', '138 0000 0011'), 'good: +8613800000011', 'a number that is only kept');

-- a number of another contact: the two become one when time is moved
INSERT INTO crm.contact (contact_id, created_at, mobile) VALUES (1601, '2024-01-01Z', '13800000021');
INSERT INTO crm.contact (contact_id, created_at) VALUES (1602, '2025-01-01Z');
SELECT crm.publish_journey(crm.journey_document('club', 'mobile', '{
  "mobile": {"kind": "ask", "field": "mobile", "within": "1 day", "next": "rest", "on_timeout": "silent", "on_failed": "bad"},
  "rest": {"kind": "wait", "for": "10 days"}, "bad": {"kind": "exit", "reason": "bad"}, "silent": {"kind": "exit", "reason": "silent"}}')) \g /dev/null
SELECT crm.enrol(1602, 'club') AS e \gset
SELECT crm.track(1602, 'message', '{"content": "13800000021"}') \g /dev/null
SELECT is((SELECT state || ' ' || step || ' ' || reply || ' ' || (due_at = crm.now()) FROM crm.enrolment WHERE enrolment_id = :e), 'active mobile +8613800000021 true', 'the reply waits in the enrolment');
SELECT is((SELECT count(*)::integer FROM crm.contact WHERE contact_id IN (1601, 1602)), 2, 'nobody is merged by the message');
SELECT crm.track(1602, 'message', '{"content": "13800000022"}') \g /dev/null
SELECT is((SELECT reply FROM crm.enrolment WHERE enrolment_id = :e), '+8613800000021', 'the first one counts');
SELECT is_empty('SELECT * FROM crm.verify()', 'which is sound');
SET pg_crm.clock = '2026-03-13 13:05+08';
SELECT cmp_ok(crm.tick(), '>=', 1, 'moved');
SELECT is((SELECT contact_id || ' ' || state || ' ' || step || ' ' || coalesce(reply, '-') FROM crm.enrolment WHERE enrolment_id = :e), '1601 active rest -', 'the enrolment goes on under the survivor');
SELECT is((SELECT step_at FROM crm.enrolment WHERE enrolment_id = :e), '2026-03-13 13:00+08', 'when the reply came');
SELECT is((SELECT other FROM crm.merge_ledger WHERE contact_id = 1601), 1602::bigint, 'the two are one');
SELECT ok((SELECT verified_at IS NOT NULL AND contact_id = 1601 FROM crm.identity WHERE external_id = '+8613800000021'), 'the number is proved');
SELECT is(crm.tick(), 0, 'once');
SELECT is_empty('SELECT * FROM crm.verify()', 'all of it sound');

-- refused where both have proved numbers; the deadline is long past when it is looked at
INSERT INTO crm.contact (contact_id) VALUES (1701), (1702), (1703);
SELECT crm.bind_mobile(1701, '13800000030'), crm.bind_mobile(1701, '13800000031'), crm.bind_mobile(1702, '13800000032'), crm.bind_mobile(1703, '13800000033') \g /dev/null
SELECT crm.enrol(1702, 'club') \g /dev/null
SELECT pg_temp.ask('patient', '{"field": "mobile"}') \g /dev/null
SELECT crm.enrol(1703, 'patient') \g /dev/null
SELECT crm.track(c, 'message', '{"content": "13800000031"}') FROM unnest('{1702,1703}'::bigint[]) c \g /dev/null
SELECT is(pg_temp.fate(1702, 'club'), 'at mobile', 'a number of a third');
SET pg_crm.clock = '2026-03-13 13:10+08';
SELECT crm.tick() \g /dev/null
SELECT is(pg_temp.fate(1702, 'club'), 'bad', 'cannot be bound');
SELECT is(pg_temp.fate(1703, 'patient'), 'at ask', 'and without an edge it goes on waiting');
SELECT is((SELECT due_at FROM crm.enrolment WHERE contact_id = 1703 AND journey = 'patient'), '2026-03-14 13:05+08', 'until the deadline');
SELECT is((SELECT count(*)::integer FROM crm.contact WHERE contact_id IN (1701, 1702, 1703)), 3, 'nobody is merged');
SELECT crm.track(1703, 'message', '{"content": "13800000031"}') \g /dev/null
SET pg_crm.clock = '2026-03-16 13:10+08';
SELECT crm.tick() \g /dev/null
SELECT is(pg_temp.fate(1703, 'patient'), 'silent', 'refused, and then over');
SELECT is_empty('SELECT * FROM crm.verify()', 'all of it sound');

-- several at once: one number that two give, and numbers that others have
INSERT INTO crm.contact (contact_id, created_at) SELECT c, '2025-01-01Z'::timestamptz + c * interval '1 s' FROM generate_series(1801, 1830) c;
INSERT INTO crm.contact (contact_id, mobile) SELECT c, ('1380000' || c)::crm.mobile FROM generate_series(1901, 1905) c;
SELECT crm.enrol(c, 'club') FROM generate_series(1801, 1830) c \g /dev/null
INSERT INTO crm.event (contact_id, kind, occurred_at, properties)
SELECT c, 'message', crm.now(), jsonb_build_object('content', CASE WHEN c <= 1805 THEN '1380000' || c + 100 WHEN c <= 1807 THEN '13800009999' WHEN c = 1808 THEN '?' ELSE '1380001' || c END)
FROM generate_series(1801, 1830) c;
SELECT is((SELECT count(*) FILTER (WHERE step = 'rest') || ' ' || count(*) FILTER (WHERE reply IS NOT NULL) || ' ' || count(*) FILTER (WHERE end_reason = 'bad') FROM crm.enrolment WHERE journey = 'club' AND contact_id BETWEEN 1801 AND 1830), '23 6 1', 'bound, waiting, unreadable');
SET pg_crm.clock = '2026-03-16 13:11+08';
SELECT crm.tick() \g /dev/null
SELECT is((SELECT count(*)::integer FROM crm.merge_ledger WHERE contact_id BETWEEN 1801 AND 1905), 6, 'those who gave the number of another have become one with him');
SELECT is((SELECT count(*) FILTER (WHERE step = 'rest') || ' ' || count(*) FILTER (WHERE reply IS NOT NULL) FROM crm.enrolment WHERE journey = 'club' AND state = 'active' AND contact_id BETWEEN 1801 AND 1905), '28 0', 'and go on');
SELECT is((SELECT string_agg(state || coalesce(' ' || end_reason, ''), ', ' ORDER BY enrolment_id) FROM crm.enrolment WHERE journey = 'club' AND contact_id IN (1806, 1807)), 'active, exited merged', 'two who gave one number, too');

-- a trigger of the brand that would merge while a batch is at work
CREATE FUNCTION pg_temp.merging() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM crm.merge(NEW.contact_id, 1501); RETURN NULL; END$$;
CREATE TRIGGER merging AFTER UPDATE OF city ON crm.contact FOR EACH ROW WHEN (NEW.city = 'boom') EXECUTE FUNCTION pg_temp.merging();
SELECT is(pg_temp.asked('city', 'city', 'boom'), 'at ask', 'cannot, and the reply is refused');
DROP TRIGGER merging ON crm.contact;
SELECT is_empty('SELECT * FROM crm.verify()', 'all of it sound');

-- taken out, and why
SELECT ok(crm.unenrol(1820, 'club', 'moved abroad'), 'taken out');
SELECT is((SELECT end_reason || ' ' || (context ->> 'unenrolled') FROM crm.enrolment WHERE journey = 'club' AND contact_id = 1820), 'unenrolled moved abroad', 'and the reason is kept');
SELECT ok(crm.unenrol(1821, 'club'), 'without one');
SELECT ok((SELECT NOT context ? 'unenrolled' FROM crm.enrolment WHERE journey = 'club' AND contact_id = 1821), 'there is none');
SELECT throws_ok($$SELECT crm.unenrol(1822, 'club', repeat('x', 1100000))$$, '54000', NULL, 'a reason of a megabyte');
SELECT * FROM finish();
ROLLBACK;
