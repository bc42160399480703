-- documents of journeys: what is published, what is refused and where, versions, brokenness, rights
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET pg_crm.clock = '2026-03-01 00:00Z';
SELECT no_plan();

-- what is wrong, a line each; empty where it is published
CREATE FUNCTION pg_temp.faults(definition jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE lines text;
BEGIN
    PERFORM crm.publish_journey(definition);
    RETURN '';
EXCEPTION WHEN invalid_parameter_value THEN
    GET STACKED DIAGNOSTICS lines = PG_EXCEPTION_DETAIL;
    RETURN lines;
END$$;

INSERT INTO crm.account (kind, name, time_zone) VALUES ('official_account', 'shop', 'America/New_York');
SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "Hi"}}'),
       crm.define_template('{"name": "erp", "channel": "webhook", "message_type": "post", "body": {"x": 1}}'),
       crm.define_achievement('{"name": "fan", "on_kind": "applause", "thresholds": [1, 3]}'),
       crm.define_coupon('{"name": "ten"}'), crm.define_segment('{"name": "vip", "rule": "tags @> ''{vip}''"}') \g /dev/null
INSERT INTO crm.loyalty_program (name) VALUES ('club');
ALTER TABLE crm.contact ADD COLUMN shoe numeric, ADD COLUMN wedding date, ADD COLUMN twice numeric GENERATED ALWAYS AS (shoe * 2) STORED;
SELECT crm.install() \g /dev/null

CREATE TEMP TABLE base AS SELECT $${
  "journey": "everything", "label": "Everything", "description": "One step of each kind.", "account": "shop",
  "reentry": "once", "max_lateness": "2 days", "hold_out": 12.5,
  "entry": [
    {"on": "follow"},
    {"on": "scan", "campaign": "it's \\ spring", "store_id": 3, "qr_code_id": 7, "when": "orders > 1 -- or so"},
    {"on": "purchase", "external_ref": "A-1", "when": "fact.amount >= 100"},
    {"on": "field_change", "field": "city", "old": null, "new": "Shanghai"},
    {"on": "stage_move", "stage": "lead"},
    {"on": "segment_entered", "segment": "vip"},
    {"on": "award", "achievement": "fan", "threshold": 3},
    {"on": "issue_coupon", "coupon": "ten"}, {"on": "join_loyalty", "program": "club"},
    {"on": "api"}, {"on": "journey"},
    {"on": "date", "property": "wedding", "offset": "-7 days", "at": "09:30", "yearly": true, "leap_day": "mar1", "when": "orders > 0"},
    {"on": "date", "property": "last_order_at", "offset": "30 days"},
    {"on": "schedule", "every": "1 week", "start": "2026-03-02 10:00", "hours": "Mo-Fr 09:00-18:00", "audience": "orders > 2"}],
  "goal": "orders >= 5", "exit": [{"on": "unfollow"}, {"on": "segment_left", "segment": "vip"}],
  "start": "send",
  "steps": {
    "send": {"kind": "send", "label": "Say hello", "template": "hello", "params": {"x": "{{entry.x|there}}"}, "expires_in": "1 day", "next": "nap", "on_refused": null, "on_failed": "gone"},
    "nap": {"kind": "wait", "for": "2 hours", "at": "09:00", "hours": "Mo-Su 08:00-20:00", "next": "later"},
    "later": {"kind": "wait", "until": "2026-12-24 18:00", "next": "feast"},
    "feast": {"kind": "wait", "date": "wedding", "offset": "-3 days", "next": "visit"},
    "visit": {"kind": "wait", "date": "entry.booked_at", "next": "morning"},
    "morning": {"kind": "wait", "at": "07:15", "next": "open"},
    "open": {"kind": "wait", "hours": "Mo-Fr 09:00-17:00", "next": "buy"},
    "buy": {"kind": "wait_for", "on": "purchase", "store_id": 1, "within": "3 days", "since": "step", "next": "rich", "on_timeout": "send"},
    "rich": {"kind": "wait_until", "when": "spend > 1000", "within": "30 days", "next": "ask", "on_timeout": "ask"},
    "ask": {"kind": "ask", "field": "mobile", "within": "1 day", "template": "hello", "params": {}, "next": "size", "on_timeout": "gone", "on_failed": null},
    "size": {"kind": "ask", "field": "shoe", "reply": "choice", "choices": {"S": 38, "L": 44}, "within": "1 day", "next": "day"},
    "day": {"kind": "ask", "field": "wedding", "within": "1 day", "next": "why"},
    "why": {"kind": "ask", "field": "context.why", "within": "1 day", "next": "fork"},
    "fork": {"kind": "branch", "branches": [{"when": "orders > 3", "next": "draw"}, {"when": "city = 'x'", "next": null}], "default": "draw"},
    "draw": {"kind": "split", "arms": {"a": {"weight": 1, "next": "set"}, "b": {"weight": 2.5}}},
    "set": {"kind": "set", "fields": {"shoe": 43, "wedding": "2020-02-29", "city": "{{entry.city}}", "name": null, "attributes": {"a": [1]}}, "next": "tag"},
    "tag": {"kind": "tag", "add": ["a"], "remove": ["b", "c"], "next": "cheer"},
    "cheer": {"kind": "award", "achievement": "fan", "threshold": 3, "next": "up"},
    "up": {"kind": "stage", "stage": "intent", "reason": "asked", "next": "gift"},
    "gift": {"kind": "coupon", "coupon": "ten", "save_as": "code", "next": "give", "on_failed": "give"},
    "give": {"kind": "points", "program": "club", "points": -5, "reason": "spent", "next": "call", "on_failed": null},
    "call": {"kind": "webhook", "template": "erp", "params": {"a": 1}, "save_as": "reply", "next": "again", "on_failed": null},
    "again": {"kind": "journey", "journey": "everything", "next": "gone"},
    "gone": {"kind": "exit", "reason": "done"}}}$$::jsonb AS definition;

SELECT is(pg_temp.faults(definition), '', 'a document with every kind of step and entry is published') FROM base;
SELECT is(crm.export_journey('everything'), definition, 'and exported as it was') FROM base;
SELECT is(crm.publish_journey(crm.export_journey('everything')), 1, 'published again it is the same version');
SELECT results_eq('SELECT version, state, changed_at FROM crm.journey', $$VALUES (1, 'open', '2026-03-01Z'::timestamptz)$$, 'it is open');
SELECT results_eq('SELECT journey, version, published_at, published_by FROM crm.journey_version', $$VALUES ('everything', 1, '2026-03-01Z'::timestamptz, 'postgres')$$, 'with who published it');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- every fault with its place: the document changed at one path; NULL takes the key away
CREATE TEMP TABLE fault (id int GENERATED ALWAYS AS IDENTITY, path text[], value jsonb, line text);
INSERT INTO fault (path, value, line) VALUES
    ('{journey}', NULL, 'journey: is missing'),
    ('{journey}', '""', 'journey: is empty'),
    ('{journey}', '3', 'journey: is a number, not a string'),
    ('{journey}', to_jsonb(repeat('x', 64)), 'journey: has 64 bytes, which is more than 63'),
    ('{label}', 'null', 'label: is null; leave it out instead'),
    ('{description}', '[]', 'description: is an array, not a string'),
    ('{lable}', '"x"', 'lable: unknown key; did you mean "label"?'),
    ('{colour}', '"x"', 'colour: unknown key'),
    ('{account}', '"shoop"', 'account: account "shoop" does not exist'),
    ('{reentry}', '"twice"', 'reentry: "twice" is not once, after_exit, cooldown, per_key or always'),
    ('{reentry}', '"cooldown"', 'cooldown: is missing: reentry is cooldown'),
    ('{cooldown}', '"1 day"', 'cooldown: goes with reentry "cooldown" only'),
    ('{cooldown}', '"0"', E'cooldown: "0" is not above 0\ncooldown: goes with reentry "cooldown" only'),
    ('{reentry}', '"per_key"', 'key: is missing: reentry is per_key'),
    ('{key}', '"entry.x"', 'key: goes with reentry "per_key" only'),
    ('{max_lateness}', '"-1 day"', 'max_lateness: "-1 day" is negative'),
    ('{max_lateness}', '"soon"', 'max_lateness: invalid input syntax for type interval: "soon"'),
    ('{max_lateness}', '"101 years"', 'max_lateness: "101 years" is longer than 100 years'),
    ('{hold_out}', '101', 'hold_out: 101 is not between 0 and 100'),
    ('{hold_out}', '1e400', NULL),
    ('{hold_out}', '"5"', 'hold_out: is a string, not a number'),
    ('{entry}', '{}', 'entry: is an object, not an array'),
    ('{entry}', '[3]', 'entry[0]: is a number, not an object'),
    ('{entry,0}', '{"on": "follow", "wen": "true"}', 'entry[0].wen: unknown key; did you mean "when"?'),
    ('{entry,0}', '{"when": "true"}', 'entry[0].on: is missing'),
    ('{entry,0,on}', to_jsonb(repeat('x', 64)), 'entry[0].on: has 64 bytes, which is more than 63'),
    ('{entry,0,when}', '"fact.amount >"', 'entry[0].when: syntax error at end of input at character 14 (A rule is one SQL expression, such as orders > 0 AND city = ''Shanghai''.)'),
    ('{entry,0,when}', '"true) OR (true"', 'entry[0].when: syntax error at or near ")" at character 5 (A rule is one SQL expression, such as orders > 0 AND city = ''Shanghai''.)'),
    ('{entry,0,when}', '"now() > as_of"', NULL),
    ('{entry,0,stage}', '"lead"', 'entry[0].stage: goes with stage_move, not with "follow"'),
    ('{entry,0,field}', '"city"', 'entry[0].field: goes with field_change, not with "follow"'),
    ('{entry,1,store_id}', '1.5', 'entry[1].store_id: 1.5 is no id'),
    ('{entry,1,store_id}', '1e20', 'entry[1].store_id: 100000000000000000000 is no id'),
    ('{entry,1,campaign}', 'null', 'entry[1].campaign: is null, not a string'),
    ('{entry,3,field}', 'null', 'entry[3].field: is null, not a string'),
    ('{entry,4,stage}', '"leed"', 'entry[4].stage: stage "leed" does not exist'),
    ('{entry,4,campaign}', '"x"', 'entry[4].campaign: goes with facts, not with "stage_move"'),
    ('{entry,5,segment}', '"vips"', 'entry[5].segment: segment "vips" does not exist'),
    ('{entry,6,achievement}', '"fun"', 'entry[6].achievement: achievement "fun" does not exist'),
    ('{entry,7,coupon}', '"nine"', 'entry[7].coupon: coupon "nine" does not exist'),
    ('{entry,8,program}', '"pub"', 'entry[8].program: loyalty program "pub" does not exist'),
    ('{entry,11,property}', '"weding"', 'entry[11].property: "weding" is no column of crm.profile of type date or timestamptz'),
    ('{entry,11,property}', '"city"', 'entry[11].property: "city" is no column of crm.profile of type date or timestamptz'),
    ('{entry,11,property}', NULL, 'entry[11].property: is missing'),
    ('{entry,11,offset}', '7', 'entry[11].offset: is a number, not a string'),
    ('{entry,11,at}', '"9:30"', 'entry[11].at: "9:30" is no time of day from 00:00 to 23:59'),
    ('{entry,11,at}', '"24:00"', 'entry[11].at: "24:00" is no time of day from 00:00 to 23:59'),
    ('{entry,11,yearly}', '"yes"', 'entry[11].yearly: is a string, not true or false'),
    ('{entry,11,leap_day}', '"feb29"', 'entry[11].leap_day: "feb29" is not feb28, mar1 or skip'),
    ('{entry,11,every}', '"1 day"', 'entry[11].every: unknown key'),
    ('{entry,13,every}', NULL, 'entry[13].every: is missing'),
    ('{entry,13,every}', '"59 seconds"', 'entry[13].every: is less than a minute'),
    ('{entry,13,start}', '"tomorrow"', 'entry[13].start: "tomorrow" is no fixed time'),
    ('{entry,13,start}', '"10:00 Today"', 'entry[13].start: "10:00 Today" is no fixed time'),
    ('{entry,13,start}', '"2026-02-30"', 'entry[13].start: date/time field value out of range: "2026-02-30"'),
    ('{entry,13,hours}', '"Mo-Xx"', NULL),
    ('{entry,13,hours}', '"off"', 'entry[13].hours: "off" is never open'),
    ('{goal}', '3', 'goal: is a number, not a rule, a trigger or an array of triggers'),
    ('{goal}', '"ordrs > 1"', NULL),
    ('{goal}', '{"on": "date"}', 'goal.on: "date" only lets in: it is no fact'),
    ('{goal}', '"fact.amount > 1"', NULL),
    ('{exit}', '[]', 'exit: is empty; leave it out instead'),
    ('{exit,1,segment}', '"none"', 'exit[1].segment: segment "none" does not exist'),
    ('{exit,1}', '"orders > 1"', 'exit[1]: is a string, not an object'),
    ('{start}', NULL, 'start: is missing'),
    ('{start}', '"begin"', 'start: step "begin" does not exist'),
    ('{steps}', '{}', 'steps: has 0 members, not 1 to 1000'),
    ('{steps}', '[]', 'steps: is an array, not an object'),
    ('{steps}', NULL, 'steps: is missing'),
    ('{steps,gone}', '"exit"', 'steps.gone: is a string, not an object'),
    ('{steps,gone,kind}', NULL, 'steps.gone.kind: is missing'),
    ('{steps,gone,kind}', '"leave"', 'steps.gone.kind: "leave" is not one of send, wait, wait_for, wait_until, ask, branch, split, set, tag, award, stage, coupon, points, webhook, journey, exit'),
    ('{steps,gone,next}', '"send"', 'steps.gone.next: unknown key'),
    ('{steps,gone,label}', '3', 'steps.gone.label: is a number, not a string'),
    ('{steps,lost}', '{"kind": "exit"}', 'steps.lost: is never reached'),
    ('{steps,send,template}', '"helo"', 'steps.send.template: template "helo" does not exist'),
    ('{steps,send,template}', NULL, 'steps.send.template: is missing'),
    ('{steps,send,params}', '{"x": "{{entry.x"}', 'steps.send.params: place "{{entry.x" of the body is not closed by }}'),
    ('{steps,send,params}', '[1]', 'steps.send.params: is an array, not an object'),
    ('{steps,send,expires_in}', '"0 days"', 'steps.send.expires_in: "0 days" is not above 0'),
    ('{steps,send,on_refused}', '"napp"', 'steps.send.on_refused: step "napp" does not exist'),
    ('{steps,send,next}', '3', E'steps.send.next: is a number, not a string'),
    ('{steps,send,nxt}', '"nap"', 'steps.send.nxt: unknown key; did you mean "next"?'),
    ('{steps,nap,until}', '"2026-12-24"', 'steps.nap: has more than one of for, until and date'),
    ('{steps,nap,offset}', '"1 day"', 'steps.nap.offset: goes with date only'),
    ('{steps,nap,for}', '"-1 hour"', 'steps.nap.for: "-1 hour" is negative'),
    ('{steps,morning,at}', NULL, 'steps.morning: waits for nothing: it needs for, until, date, at or hours'),
    ('{steps,feast,date}', '"city"', 'steps.feast.date: "city" is no column of crm.profile of type date or timestamptz, nor entry.x or context.x'),
    ('{steps,feast,date}', '"entry."', 'steps.feast.date: "entry." is no column of crm.profile of type date or timestamptz, nor entry.x or context.x'),
    ('{steps,later,until}', '"now"', 'steps.later.until: "now" is no fixed time'),
    ('{steps,later,until}', '"infinity"', 'steps.later.until: "infinity" is no fixed time'),
    ('{steps,buy,within}', NULL, 'steps.buy.within: is missing'),
    ('{steps,buy,since}', '"start"', 'steps.buy.since: "start" is not entry or step'),
    ('{steps,buy,on}', '"schedule"', 'steps.buy.on: "schedule" only lets in: it is no fact'),
    ('{steps,rich,when}', NULL, 'steps.rich.when: is missing'),
    ('{steps,rich,when}', '"spend >"', 'steps.rich.when: syntax error at end of input at character 8 (A rule is one SQL expression, such as orders > 0 AND city = ''Shanghai''.)'),
    ('{steps,rich,when}', '"spend"', NULL),
    ('{steps,ask,field}', '"stage"', NULL),
    ('{steps,ask,reply}', '"text"', 'steps.ask.reply: of field mobile is mobile, not text'),
    ('{steps,ask,reply}', '"emoji"', 'steps.ask.reply: "emoji" is not mobile, date, choice or text'),
    ('{steps,ask,template}', NULL, 'steps.ask.params: goes with template only'),
    ('{steps,ask,choices}', '{"a": 1}', 'steps.ask.choices: goes with reply "choice" only'),
    ('{steps,size,choices}', NULL, 'steps.size.choices: is missing'),
    ('{steps,size,choices}', '{}', 'steps.size.choices: is empty'),
    ('{steps,size,choices,S}', '"small"', 'steps.size.choices.S: invalid input syntax for type numeric: "small"'),
    ('{steps,day,field}', '"twice"', 'steps.day.field: "twice" is neither mobile nor a column of crm.contact that a step may set, nor context.x'),
    ('{steps,fork,default}', NULL, 'steps.fork.default: is missing'),
    ('{steps,fork,next}', '"draw"', 'steps.fork.next: is not of a branch: say default'),
    ('{steps,fork,branches}', '[]', 'steps.fork.branches: has 0 elements, not 1 to 50'),
    ('{steps,fork,branches,1,next}', '"x"', 'steps.fork.branches[1].next: step "x" does not exist'),
    ('{steps,fork,branches,1,when}', '"city ="', 'steps.fork.branches[1].when: syntax error at end of input at character 7 (A rule is one SQL expression, such as orders > 0 AND city = ''Shanghai''.)'),
    ('{steps,fork,branches,1,whn}', '"true"', 'steps.fork.branches[1].whn: unknown key; did you mean "when"?'),
    ('{steps,draw,arms,b}', NULL, 'steps.draw.arms: has 1 members, not 2 to 20'),
    ('{steps,draw,arms,b,weight}', '0', 'steps.draw.arms.b.weight: 0 is not above 0 and at most 1000000000'),
    ('{steps,draw,arms,b,weight}', '-1', 'steps.draw.arms.b.weight: -1 is not above 0 and at most 1000000000'),
    ('{steps,draw,arms,b,weight}', NULL, 'steps.draw.arms.b.weight: is missing'),
    ('{steps,draw,arms,b,next}', '"c"', 'steps.draw.arms.b.next: step "c" does not exist'),
    ('{steps,set,fields}', '{}', 'steps.set.fields: is empty'),
    ('{steps,set,fields,mobile}', '"+8613800138000"', 'steps.set.fields.mobile: is no column of crm.contact that a step may set'),
    ('{steps,set,fields,twice}', '3', 'steps.set.fields.twice: is no column of crm.contact that a step may set'),
    ('{steps,set,fields,tableoid}', '3', 'steps.set.fields.tableoid: is no column of crm.contact that a step may set'),
    ('{steps,set,fields,shoe}', '"big"', 'steps.set.fields.shoe: invalid input syntax for type numeric: "big"'),
    ('{steps,set,fields,tags}', '["a", null]', 'steps.set.fields.tags: holds a null'),
    ('{steps,set,fields,tags}', '"a"', 'steps.set.fields.tags: is a string, not an array'),
    ('{steps,set,fields,shoe}', '{"a": 1}', 'steps.set.fields.shoe: is an object, not a value of type numeric'),
    ('{steps,tag,add}', '[]', 'steps.tag.add: is empty'),
    ('{steps,tag,add}', '["b"]', 'steps.tag.remove: "b" is added and removed'),
    ('{steps,tag,add}', '[""]', 'steps.tag.add[0]: is empty'),
    ('{steps,cheer,achievement}', '"first_purchase"', E'steps.cheer.achievement: achievement "first_purchase" is on facts that no step may record\nsteps.cheer.threshold: achievement "first_purchase" has no threshold 3'),
    ('{steps,cheer,achievement}', '"fun"', 'steps.cheer.achievement: achievement "fun" does not exist'),
    ('{steps,cheer,threshold}', '2', 'steps.cheer.threshold: achievement "fan" has no threshold 2'),
    ('{steps,up,stage}', '"top"', 'steps.up.stage: stage "top" does not exist'),
    ('{steps,gift,coupon}', '"nine"', 'steps.gift.coupon: coupon "nine" does not exist'),
    ('{steps,gift,save_as}', '"entry"', 'steps.gift.save_as: "entry" is no name for a member of the context'),
    ('{steps,give,points}', '0', 'steps.give.points: is 0'),
    ('{steps,give,points}', '1.5', 'steps.give.points: 1.5 is no whole number'),
    ('{steps,give,points}', '1e30', 'steps.give.points: 1000000000000000000000000000000 is out of reach'),
    ('{steps,give,program}', '"pub"', 'steps.give.program: loyalty program "pub" does not exist'),
    ('{steps,call,template}', '"hello"', 'steps.call.template: template of channel webhook "hello" does not exist'),
    ('{steps,again,journey}', '"other"', 'steps.again.journey: journey "other" does not exist'),
    -- graphs
    ('{steps,buy,on_timeout}', '"buy"', ''),
    ('{steps,gift,on_failed}', '"cheer"', 'steps.up: goes round without waiting: "up" to "gift" to "cheer" to "up"'),
    ('{steps,send,on_failed}', '"send"', 'steps.send: goes round without waiting: "send" to "send"'),
    ('{steps,fork,branches,1,next}', '"fork"', 'steps.fork: goes round without waiting: "fork" to "fork"'),
    ('{steps,draw,arms,b,next}', '"fork"', E'steps.draw: goes round without waiting: "draw" to "fork" to "draw"\nsteps.draw: goes round without waiting: "draw" to "fork" to "draw"'),
    ('{steps,rich,next}', '"rich"', 'steps.rich: goes round without waiting: "rich" to "rich"'),
    ('{steps,rich,on_timeout}', '"rich"', ''),
    ('{steps,ask,on_timeout}', '"ask"', ''),
    ('{steps,ask,on_failed}', '"ask"', ''),
    ('{steps,buy,next}', '"buy"', NULL);
-- the last leaves steps unreached, others an error text that is PostgreSQL's own: those are looked at below
CREATE FUNCTION pg_temp.changed(path text[], value jsonb) RETURNS jsonb LANGUAGE sql AS
$$SELECT CASE WHEN $2 IS NULL THEN definition #- $1 ELSE jsonb_set(definition, $1, $2) END FROM base$$;
SELECT is(CASE WHEN path[1] = 'steps' AND line <> '' OR path[1] = 'start' THEN (SELECT string_agg(l, E'\n') FROM string_to_table(pg_temp.faults(pg_temp.changed(path, value)), E'\n') AS l
              WHERE l !~ 'is never reached$' OR line ~ 'never') ELSE pg_temp.faults(pg_temp.changed(path, value)) END,
          line, concat_ws(' ', 'fault', path, value)) FROM fault WHERE line IS NOT NULL ORDER BY id;
SELECT matches(pg_temp.faults(pg_temp.changed(path, value)), '^' || replace(replace(regexp_replace(array_to_string(path, '.'), '\.(\d+)', '[\1]', 'g'), '[', '\['), ']', '\]') || ': .', concat_ws(' ', 'fault', path, value))
  FROM fault WHERE line IS NULL AND path <> '{steps,buy,next}' ORDER BY id;
SELECT results_eq('SELECT journey, version FROM crm.journey_version ORDER BY 1, 2', $$SELECT 'everything', g FROM generate_series(1, 5) AS g$$, 'only those without a fault were published');

-- many at once, and the whole error
SELECT is(pg_temp.faults($${"journey": "many", "entry": [{"on": "scan", "store": 3}], "start": "a", "goal": {"on": "award", "achievement": "none"},
    "steps": {"a": {"kind": "send", "template": "none", "next": "b"}, "c": {"kind": "branch", "branches": [{"when": "ordrs"}]}}}$$),
    'entry[0].store: unknown key; did you mean "store_id"?
goal.achievement: achievement "none" does not exist
steps.a.template: template "none" does not exist
steps.a.next: step "b" does not exist
steps.c.branches[0].when: rule names unknown column "ordrs" at character 1 (Known are ' || (SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'crm.profile'::regclass AND attnum > 0) || ', stage_rank, as_of, today.)
steps.c.default: is missing
steps.c: is never reached', 'all faults are told, in the order of the document');
SELECT throws_ok($$SELECT crm.publish_journey('{"journey": "x", "steps": {"a": {"kind": "exit"}}, "start": "b"}')$$, '22023', 'definition of journey "x" has 1 fault', 'one');
SELECT throws_ok($$SELECT crm.publish_journey('{"journey": "x", "steps": {"a": {"kind": "exit"}}}')$$, '22023', 'definition of journey "x" has 1 fault', 'or one');
SELECT throws_ok($$SELECT crm.publish_journey('{}')$$, '22023', 'definition of a journey has 3 faults', 'or of which');
SELECT throws_ok($$SELECT crm.publish_journey('[]')$$, '22023', 'definition of a journey is an array, not an object', 'an array');
SELECT throws_ok($$SELECT crm.publish_journey('"x"')$$, '22023', 'definition of a journey is a scalar, not an object', 'a scalar');
SELECT throws_ok($$SELECT crm.publish_journey(NULL)$$, '22004', NULL, 'nothing');
SELECT throws_ok($$SELECT crm.publish_journey(jsonb_build_object('journey', repeat('x', 1100000)))$$, '54000', NULL, 'more than a megabyte');
SELECT throws_ok($$SELECT crm.publish_journey((SELECT jsonb_build_object('journey', 'x', 'start', '1', 'steps', jsonb_object_agg(n, '{"kind": "exit"}'::jsonb)) FROM generate_series(1, 1001) AS n))$$, '22023', NULL, 'too many steps');
SELECT is(pg_temp.faults((SELECT jsonb_build_object('journey', 'long', 'start', '1', 'steps', jsonb_object_agg(n, jsonb_build_object('kind', 'tag', 'add', '["x"]'::jsonb, 'next', nullif(n, 1000) + 1))) FROM generate_series(1, 1000) AS n)
    #- '{}'), 'steps.1.next: is a number, not a string' || (SELECT string_agg(format(E'\nsteps.%s.next: is a number, not a string', n), '' ORDER BY n) FROM generate_series(2, 999) AS n)
    || E'\nsteps.2: is never reached' || E'\nand 998 more', 'a thousand faults are told, the rest is counted');
SELECT is(pg_temp.faults((SELECT jsonb_build_object('journey', 'long', 'start', '1', 'steps', jsonb_object_agg(n, jsonb_build_object('kind', 'tag', 'add', '["x"]'::jsonb, 'next', (nullif(n, 1000) + 1)::text))) FROM generate_series(1, 1000) AS n)), '', 'a thousand steps in a row');

-- circles: what takes time and what does not
CREATE FUNCTION pg_temp.circle(step jsonb) RETURNS boolean LANGUAGE sql AS
$$SELECT pg_temp.faults(jsonb_build_object('journey', 'circle', 'start', 'a', 'steps', jsonb_build_object('a', $1 || '{"next": "b"}', 'b', '{"kind": "tag", "add": ["x"], "next": "a"}'::jsonb))) = ''$$;
SELECT ok(pg_temp.circle(step), step::text || ' may be in a circle') FROM (VALUES
    ('{"kind": "wait", "for": "1 second"}'::jsonb), ('{"kind": "wait", "at": "10:00"}'), ('{"kind": "wait", "at": "10:00", "hours": "Mo 09:00-11:00"}'),
    ('{"kind": "wait_for", "on": "message", "within": "1 day", "since": "step"}'), ('{"kind": "ask", "field": "context.x", "within": "1 day"}')) AS v(step);
SELECT ok(NOT pg_temp.circle(step), step::text || ' may not') FROM (VALUES
    ('{"kind": "wait", "for": "0"}'::jsonb), ('{"kind": "wait", "until": "2026-01-01"}'), ('{"kind": "wait", "date": "birthday"}'), ('{"kind": "wait", "hours": "24/7"}'),
    ('{"kind": "wait", "for": "0", "at": "10:00"}'), ('{"kind": "wait_for", "on": "message", "within": "1 day"}'), ('{"kind": "wait_until", "when": "orders > 1", "within": "1 day"}'),
    ('{"kind": "send", "template": "hello"}'), ('{"kind": "webhook", "template": "erp"}')) AS v(step);

-- versions
SELECT is(crm.publish_journey('{"journey": "v", "start": "a", "steps": {"a": {"kind": "exit"}}}'), 1, 'a first version');
INSERT INTO crm.journey_schedule VALUES ('v', 0, '2026-01-01', '2026-01-02'), ('everything', 13, '2026-01-01', '2026-01-02');
SELECT is(crm.publish_journey('{"start": "a", "steps": {"a": {"kind": "exit"}}, "journey": "v"}'), 1, 'the same in another order');
SELECT is((SELECT count(*)::int FROM crm.journey_schedule), 2, 'changes nothing');
UPDATE crm.journey SET state = 'frozen' WHERE journey = 'v';
SET pg_crm.clock = '2026-03-02 00:00Z';
SELECT is(crm.publish_journey('{"journey": "v", "start": "a", "steps": {"a": {"kind": "exit", "reason": "x"}}}'), 2, 'a second');
SELECT results_eq($$SELECT version, state, changed_at FROM crm.journey WHERE journey = 'v'$$, $$VALUES (2, 'frozen', '2026-03-02Z'::timestamptz)$$, 'leaves the state');
SELECT results_eq('SELECT journey FROM crm.journey_schedule', $$VALUES ('everything')$$, 'and plans its own entries anew');
SELECT is(crm.publish_journey('{"journey": "v", "start": "a", "steps": {"a": {"kind": "exit"}}}'), 3, 'back to the first is a third');
SELECT is(crm.export_journey('v', 2) #>> '{steps,a,reason}', 'x', 'every version can be exported');
SELECT is(crm.export_journey('v'), crm.export_journey('v', 1), 'and the current one');
SELECT is(pg_temp.faults('{"journey": "v", "start": "b", "steps": {"a": {"kind": "exit"}}}') <> '', true, 'a broken one');
SELECT is((SELECT version FROM crm.journey WHERE journey = 'v'), 3, 'changes nothing');
SELECT throws_ok($$SELECT crm.export_journey('w')$$, '23503', 'journey "w" does not exist', 'no journey');
SELECT throws_ok($$SELECT crm.export_journey('v', 4)$$, '23503', 'journey "v" has no version 4', 'no version');
SELECT throws_ok($$SELECT crm.export_journey(NULL)$$, '22004', NULL, 'none named');
SELECT throws_ok($$UPDATE crm.journey_version SET definition = '{}' WHERE journey = 'v'$$, '42501', NULL, 'versions are immutable');
SELECT throws_ok($$DELETE FROM crm.journey_version$$, '42501', NULL, 'and stay');
SELECT results_eq($$SELECT change, before ->> 'version', after ->> 'version', after ->> 'state' FROM crm.definition_log WHERE table_name = 'journey' AND name = 'v' ORDER BY definition_log_id$$,
    $$VALUES ('insert', NULL, '1', 'open'), ('update', '1', '1', 'frozen'), ('update', '1', '2', 'frozen'), ('update', '2', '3', 'frozen')$$, 'all of it is logged');

-- rules that break later
SELECT is(pg_temp.faults($${"journey": "brittle", "entry": [{"on": "x", "when": "shoe > 40"}, {"on": "date", "property": "wedding"}], "goal": "in_segment('vip')", "exit": "shoe > 99", "start": "a",
    "steps": {"a": {"kind": "wait_until", "when": "shoe > 1", "within": "1 day", "next": "b"}, "b": {"kind": "send", "template": "hello", "next": "c"}, "c": {"kind": "wait", "date": "wedding"}}}$$), '', 'a journey over columns');
SELECT is_empty('SELECT * FROM crm.verify()', 'is sound');
DROP VIEW crm.profile CASCADE;
ALTER TABLE crm.contact DROP COLUMN twice, DROP COLUMN shoe, DROP COLUMN wedding;
SELECT crm.install() \g /dev/null
DELETE FROM crm.segment; DELETE FROM crm.template;
SELECT results_eq($$SELECT check_name COLLATE "C", expected, left(found, 28) FROM crm.verify() WHERE check_name LIKE 'rule of journey brittle%' ORDER BY 1$$,
    $$VALUES ('rule of journey brittle version 1 at entry[0].when' COLLATE "C", 'a rule that compiles', 'rule names unknown column "s'), ('rule of journey brittle version 1 at entry[1].property', 'a rule that compiles', '"wedding" is no column of cr'),
             ('rule of journey brittle version 1 at exit', 'a rule that compiles', 'rule names unknown column "s'), ('rule of journey brittle version 1 at goal', 'a rule that compiles', 'segment "vip" of a rule does'),
             ('rule of journey brittle version 1 at steps.a.when', 'a rule that compiles', 'rule names unknown column "s'), ('rule of journey brittle version 1 at steps.b.template', 'a rule that compiles', 'template "hello" does not ex'),
             ('rule of journey brittle version 1 at steps.c.date', 'a rule that compiles', '"wedding" is no column of cr')$$, 'verify() says what broke of a journey, and where');
INSERT INTO crm.contact (contact_id) VALUES (1);
SELECT lives_ok($$SELECT crm.track(1, 'x')$$, 'facts are taken in all the same');

-- documents made by functions
SELECT is(crm.publish_journey(crm.journey_document('made', 'wait', jsonb_build_object(
    'wait', crm.step_wait('1 day', 'buy', '{"at": "10:00"}'), 'buy', crm.step_wait_for('purchase', '3 days', 'exit', 'fork', '{"store_id": 1}'),
    'fork', crm.step_branch('orders > 3', 'exit', NULL), 'exit', crm.step_exit('bought')), '[{"on": "follow"}]', '{"reentry": "always"}')), 1, 'functions make documents');
SELECT is(crm.export_journey('made'), '{"journey": "made", "reentry": "always", "entry": [{"on": "follow"}], "start": "wait", "steps": {
    "wait": {"kind": "wait", "for": "1 day", "at": "10:00", "next": "buy"}, "buy": {"kind": "wait_for", "on": "purchase", "within": "3 days", "store_id": 1, "next": "exit", "on_timeout": "fork"},
    "fork": {"kind": "branch", "branches": [{"when": "orders > 3", "next": "exit"}], "default": null}, "exit": {"kind": "exit", "reason": "bought"}}}'::jsonb, 'as one would write them');
SELECT is(crm.step_send('hello', 'x'), '{"kind": "send", "template": "hello", "params": {}, "next": "x"}'::jsonb, 'messages too');
SELECT is((SELECT string_agg(DISTINCT kind, ' ' ORDER BY kind) FROM crm.journey_step_kinds()), 'ask award branch coupon exit journey points send set split stage tag wait wait_for wait_until webhook', 'kinds of steps are listed');

-- rights
CREATE ROLE bare; CREATE ROLE marketer; CREATE ROLE analyst; CREATE ROLE app;
SELECT crm.grant_access('marketer', 'marketer'), crm.grant_access('analyst', 'analyst'), crm.grant_access('app', 'app') \g /dev/null
GRANT USAGE ON SCHEMA crm TO bare;
SELECT results_eq($$SELECT r::text COLLATE "C", f COLLATE "C" FROM unnest('{bare,app,analyst,marketer}'::name[]) AS r, pg_proc p, LATERAL (SELECT p.proname::text COLLATE "C") AS l(f)
    WHERE p.pronamespace = 'crm'::regnamespace AND proname IN ('publish_journey', 'export_journey', 'journey_step_kinds', 'journey_document', 'step_send') AND has_function_privilege(r, p.oid, 'EXECUTE') ORDER BY 1, 2$$,
    $$VALUES ('analyst' COLLATE "C", 'export_journey' COLLATE "C"), ('analyst', 'journey_step_kinds'), ('marketer', 'export_journey'), ('marketer', 'journey_document'), ('marketer', 'journey_step_kinds'), ('marketer', 'publish_journey'), ('marketer', 'step_send')$$, 'who may');
SET ROLE marketer;
SELECT is(crm.publish_journey('{"journey": "v", "start": "a", "steps": {"a": {"kind": "exit", "reason": "mine"}}}'), 4, 'a marketer publishes');
SELECT is((SELECT published_by FROM crm.journey_version WHERE journey = 'v' AND version = 4), 'marketer', 'in his own name');
RESET ROLE;
SELECT is((SELECT changed_by FROM crm.definition_log WHERE table_name = 'journey' ORDER BY definition_log_id DESC LIMIT 1), 'marketer', 'which is logged');
SELECT * FROM finish();
ROLLBACK;
