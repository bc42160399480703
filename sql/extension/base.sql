-- base: time and settings as SQL sees them

CREATE FUNCTION crm.now() RETURNS timestamptz
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'crm_sql_now';
COMMENT ON FUNCTION crm.now() IS 'Now as the extension sees it: pg_crm.clock, else the start of the statement.';

CREATE FUNCTION crm.default_currency() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'crm_sql_default_currency';
COMMENT ON FUNCTION crm.default_currency() IS 'The setting pg_crm.currency: currency of orders that name none.';
