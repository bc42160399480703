CREATE FUNCTION http(urls text[], bodies text[], headers text[], timeout_ms int, max_connections int,
    OUT owner bigint, OUT result text, OUT status int, OUT body text, OUT truncated bool,
    OUT error text, OUT ms float8, OUT running int)
RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_http';
CREATE FUNCTION http_load(url text, body text, count int, parallel int) RETURNS float8
LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_http_load';
CREATE FUNCTION http_end() RETURNS void LANGUAGE c AS 'MODULE_PATH', 'rooms_http_end';
CREATE FUNCTION channel_check(channel text, message_type text, body jsonb) RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_channel_check';
CREATE FUNCTION channel_request(channel text, message_type text, recipient text, base_url text, token text,
    body text, key text, template text, secret text) RETURNS text
LANGUAGE c AS 'MODULE_PATH', 'rooms_channel_request';
CREATE FUNCTION channel_outcome(channel text, message_type text, http_end int, status int, reply bytea,
    token text DEFAULT NULL) RETURNS text
LANGUAGE c AS 'MODULE_PATH', 'rooms_channel_outcome';
CREATE FUNCTION channel_types(channel text) RETURNS text LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_channel_types';
CREATE FUNCTION token_request(channel text, base_url text, force bool) RETURNS text
LANGUAGE c AS 'MODULE_PATH', 'rooms_token_request';
CREATE FUNCTION token_outcome(channel text, status int, reply bytea) RETURNS text
LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_token_outcome';
CREATE FUNCTION template_check(body jsonb) RETURNS bool LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_template_check';
CREATE FUNCTION template_render(body jsonb, params jsonb, contact jsonb) RETURNS text
LANGUAGE c AS 'MODULE_PATH', 'rooms_template_render';
CREATE FUNCTION template_fill(body text, params jsonb) RETURNS text LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_template_fill';
CREATE FUNCTION send_each(template text, contacts bigint[], params jsonb[], send_keys text[], due_at timestamptz[],
    expires_at timestamptz[], awaited bool) RETURNS bigint[]
LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_send_each';
CREATE FUNCTION cancel_many(contacts bigint[], message_ids bigint[], reason text) RETURNS bigint
LANGUAGE c AS 'MODULE_PATH', 'rooms_cancel_many';
CREATE FUNCTION fact_rule(rule text, facts jsonb[]) RETURNS boolean[] LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_fact_rule';
CREATE FUNCTION fact_rule_keep(rule text) RETURNS void LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_fact_rule_keep';
CREATE FUNCTION fact_rule_kept(facts jsonb[]) RETURNS boolean[] LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_fact_rule_kept';
CREATE FUNCTION fact_rules(rules text[], facts jsonb[]) RETURNS boolean[] LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_fact_rules';
CREATE FUNCTION fact_rules_time(rules text[], facts jsonb[], times int) RETURNS float8
LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_fact_rules_time';
CREATE FUNCTION fact_rule_reads(rule text) RETURNS text LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_fact_rule_reads';
CREATE FUNCTION rule_at(rule text, contacts bigint[], as_of timestamptz[], one_by_one boolean) RETURNS boolean[]
LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_rule_at';
CREATE FUNCTION journeys() RETURNS text LANGUAGE c AS 'MODULE_PATH', 'rooms_journeys';
CREATE FUNCTION journey_find(journey text, version int, place bool DEFAULT false) RETURNS text
LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_journey_find';
CREATE FUNCTION journey_listens(kind text) RETURNS bool LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_journey_listens';
