CREATE FUNCTION http(urls text[], bodies text[], headers text[], timeout_ms int, max_connections int,
    OUT owner bigint, OUT result text, OUT status int, OUT body text, OUT truncated bool,
    OUT error text, OUT ms float8, OUT running int)
RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_http';
CREATE FUNCTION http_load(url text, body text, count int, parallel int) RETURNS float8
LANGUAGE c STRICT AS 'MODULE_PATH', 'rooms_http_load';
CREATE FUNCTION http_end() RETURNS void LANGUAGE c AS 'MODULE_PATH', 'rooms_http_end';
