-- facts: retention, and days that are counted

CREATE FUNCTION crm.enforce_retention() RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_enforce_retention';
COMMENT ON FUNCTION crm.enforce_retention() IS 'Drops the oldest partition whose rows need not be kept any longer, by crm.retention, and returns its name; NULL where there is none.';
REVOKE ALL ON FUNCTION crm.enforce_retention() FROM PUBLIC;

CREATE FUNCTION crm.keep_roll_ups(kept boolean DEFAULT true) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_keep_roll_ups';
COMMENT ON FUNCTION crm.keep_roll_ups(boolean) IS 'Whether facts and steps are counted by day as they come in, and enrolments by journey, so that reports over many of them need not read them.';
REVOKE ALL ON FUNCTION crm.keep_roll_ups(boolean) FROM PUBLIC;

CREATE FUNCTION crm.roll_up(again boolean DEFAULT false) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'crm_sql_roll_up';
COMMENT ON FUNCTION crm.roll_up(boolean) IS 'Adds what was counted since to crm.fact_day, crm.fact_month, crm.kind_day, crm.visit_day, crm.enrolment_sum and crm.won_total; again: counts all anew instead, as it does by itself after pg_crm.time_zone has changed. How many rows of days it wrote.';
REVOKE ALL ON FUNCTION crm.roll_up(boolean) FROM PUBLIC;
