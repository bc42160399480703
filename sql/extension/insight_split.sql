-- insight: what became of people in the arms of a split

CREATE FUNCTION crm.wilson_interval(successes bigint, trials bigint, confidence double precision DEFAULT 0.95,
	OUT low double precision, OUT high double precision)
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'crm_sql_wilson_interval';
COMMENT ON FUNCTION crm.wilson_interval(bigint, bigint, double precision) IS 'Between which shares the true one lies where so many of so many trials were successes, after Wilson; NULL without trials.';

CREATE FUNCTION crm.split_results(journey text, step text, period_start timestamptz, period_end timestamptz,
	conversion text DEFAULT NULL, rule text DEFAULT NULL, within interval DEFAULT NULL, as_of timestamptz DEFAULT NULL,
	baseline text DEFAULT NULL, confidence double precision DEFAULT 0.95)
RETURNS TABLE (arm text, contacts bigint, still_open bigint, conversions bigint, rate double precision,
	rate_low double precision, rate_high double precision, difference double precision, difference_low double precision,
	difference_high double precision)
LANGUAGE c VOLATILE ROWS 5 AS 'MODULE_PATHNAME', 'crm_sql_split_results';
COMMENT ON FUNCTION crm.split_results(text, text, timestamptz, timestamptz, text, text, interval, timestamptz, text, double precision) IS 'For each arm of a split of a journey, or for who entered it and who was held out (step NULL): how many contacts, how many of them converted, and by how much more than in the arm that is compared with.';
REVOKE ALL ON FUNCTION crm.split_results(text, text, timestamptz, timestamptz, text, text, interval, timestamptz, text, double precision) FROM PUBLIC;

CREATE FUNCTION crm.split_rows(journey text, step text, period_start timestamptz, period_end timestamptz,
	conversion text DEFAULT NULL, rule text DEFAULT NULL, within interval DEFAULT NULL, as_of timestamptz DEFAULT NULL)
RETURNS TABLE (arm text, contact_id bigint, enrolment_id bigint, entered_at timestamptz, still_open boolean,
	converted_at timestamptz, conversion_id bigint)
LANGUAGE c VOLATILE ROWS 1000 AS 'MODULE_PATHNAME', 'crm_sql_split_rows';
COMMENT ON FUNCTION crm.split_rows(text, text, timestamptz, timestamptz, text, text, interval, timestamptz) IS 'The contacts that crm.split_results() counts, each with its arm and its conversion.';
REVOKE ALL ON FUNCTION crm.split_rows(text, text, timestamptz, timestamptz, text, text, interval, timestamptz) FROM PUBLIC;
