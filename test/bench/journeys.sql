-- The brand whose journeys are measured.
INSERT INTO crm.account (kind, name, app_id) VALUES ('official_account', 'shop', 'wx1');
SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "Hello"}}');

-- wait, branch, send
CREATE FUNCTION bench.publish_waits(name text, kind text, length text) RETURNS integer LANGUAGE sql AS $$
	SELECT crm.publish_journey(jsonb_build_object('journey', name, 'account', 'shop', 'start', 'wait', 'entry', jsonb_build_array(jsonb_build_object('on', kind)),
		'steps', jsonb_build_object(
			'wait', jsonb_build_object('kind', 'wait', 'for', length, 'next', 'choose'),
			'choose', '{"kind": "branch", "branches": [{"when": "orders > 3", "next": "end"}], "default": "write"}'::jsonb,
			'write', '{"kind": "send", "template": "hello"}'::jsonb,
			'end', '{"kind": "exit"}'::jsonb)))
$$;

-- half of them ask the fact alone, half the contact
CREATE FUNCTION bench.publish_fifty() RETURNS bigint LANGUAGE sql AS $$
	SELECT sum(crm.publish_journey(jsonb_build_object('journey', 'never_' || n, 'account', 'shop', 'start', 'write',
		'entry', jsonb_build_array(jsonb_build_object('on', 'purchase', 'when', CASE WHEN n % 2 = 0 THEN 'fact.amount > ' || 100000 + n ELSE 'orders > ' || 100000 + n END)),
		'steps', '{"write": {"kind": "send", "template": "hello"}}'::jsonb)))
	  FROM generate_series(1, 50) AS n
$$;

CREATE FUNCTION bench.publish_thanks() RETURNS integer LANGUAGE sql AS $$
	SELECT crm.publish_journey('{"journey": "thanks", "account": "shop", "reentry": "always", "start": "write", "entry": [{"on": "purchase"}],
		"steps": {"write": {"kind": "send", "template": "hello"}}}')
$$;

CREATE FUNCTION bench.tick_ms(as_of timestamptz) RETURNS double precision LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	begun timestamptz := clock_timestamp();
BEGIN
	PERFORM crm.tick(as_of);
	RETURN extract(epoch FROM clock_timestamp() - begun) * 1000;
END $$;

-- what this session has had of memory of its own at most: of the shared memory it touches ever more
CREATE FUNCTION bench.peak_mb() RETURNS double precision LANGUAGE sql VOLATILE AS $$
	SELECT (substring(s FROM 'VmHWM:\s+(\d+)')::float8 - substring(s FROM 'RssShmem:\s+(\d+)')::float8 - substring(s FROM 'RssFile:\s+(\d+)')::float8) / 1024
	  FROM pg_read_file('/proc/self/status') AS s
$$;

-- Tables with the columns, indexes and partitions of those that journeys write, and nothing else: what entering and moving
-- the same people takes at least, each kind of row by one statement for all.
CREATE SCHEMA bare;
CREATE FUNCTION bench.make_bare() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY '{event,enrolment,step_visit,message,outbox}'::text[] LOOP
		EXECUTE format('CREATE TABLE bare.%1$I (LIKE crm.%1$I INCLUDING ALL)', name);
	END LOOP;
	INSERT INTO bare.enrolment SELECT * FROM crm.enrolment WHERE journey = 'soon';
	INSERT INTO bare.step_visit SELECT * FROM crm.step_visit WHERE journey = 'soon';
END $$;

SET check_function_bodies = off;
CREATE PROCEDURE bench.enter_bare() LANGUAGE sql AS $$
	INSERT INTO bare.event SELECT * FROM crm.event WHERE kind = 'register';
	INSERT INTO bare.enrolment SELECT * FROM crm.enrolment WHERE journey = 'later';
	INSERT INTO bare.step_visit SELECT * FROM crm.step_visit WHERE journey = 'later';
$$;

CREATE PROCEDURE bench.advance_bare() LANGUAGE sql AS $$
	UPDATE bare.enrolment e SET state = n.state, step = n.step, step_at = n.step_at, due_at = n.due_at, ended_at = n.ended_at, end_reason = n.end_reason
	  FROM crm.enrolment n WHERE n.journey = 'soon' AND n.contact_id = e.contact_id AND n.enrolment_id = e.enrolment_id;
	UPDATE bare.step_visit v SET left_at = n.left_at, outcome = n.outcome, next_step = n.next_step
	  FROM crm.step_visit n WHERE n.contact_id = v.contact_id AND n.enrolment_id = v.enrolment_id AND n.visit = v.visit AND n.recorded_at = v.recorded_at;
	INSERT INTO bare.step_visit SELECT * FROM crm.step_visit WHERE journey = 'soon' AND visit > 1;
	INSERT INTO bare.message SELECT * FROM crm.message;
	INSERT INTO bare.outbox SELECT * FROM crm.outbox;
$$;
