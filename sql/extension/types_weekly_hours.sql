-- ---------------------------------------------------------------------------
-- crm.weekly_hours: a weekly timetable
--
-- The spans of the week, in one way only: equal timetables are equal bytes.
-- ---------------------------------------------------------------------------
CREATE TYPE crm.weekly_hours;

CREATE FUNCTION crm.weekly_hours_in(cstring) RETURNS crm.weekly_hours
AS 'MODULE_PATHNAME', 'crm_weekly_hours_in' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.weekly_hours_in(cstring) IS 'I/O';

CREATE FUNCTION crm.weekly_hours_out(crm.weekly_hours) RETURNS cstring
AS 'MODULE_PATHNAME', 'crm_weekly_hours_out' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.weekly_hours_out(crm.weekly_hours) IS 'I/O';

CREATE FUNCTION crm.weekly_hours_recv(internal) RETURNS crm.weekly_hours
AS 'MODULE_PATHNAME', 'crm_weekly_hours_recv' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.weekly_hours_recv(internal) IS 'I/O';

CREATE FUNCTION crm.weekly_hours_send(crm.weekly_hours) RETURNS bytea
AS 'MODULE_PATHNAME', 'crm_weekly_hours_send' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.weekly_hours_send(crm.weekly_hours) IS 'I/O';

CREATE TYPE crm.weekly_hours (
    INPUT   = crm.weekly_hours_in,
    OUTPUT  = crm.weekly_hours_out,
    RECEIVE = crm.weekly_hours_recv,
    SEND    = crm.weekly_hours_send,
    INTERNALLENGTH = VARIABLE,
    ALIGNMENT = int4,
    STORAGE = extended
);
COMMENT ON TYPE crm.weekly_hours IS 'weekly timetable in a subset of the opening_hours syntax of OpenStreetMap, like Mo-Fr 09:00-18:00; Sa 10:00-14:00';

CREATE CAST (text AS crm.weekly_hours) WITH INOUT;
COMMENT ON CAST (text AS crm.weekly_hours) IS 'reads the timetable as the input of the type does';
CREATE CAST (crm.weekly_hours AS text) WITH INOUT AS ASSIGNMENT;
COMMENT ON CAST (crm.weekly_hours AS text) IS 'the timetable in its one written form';

CREATE FUNCTION crm.is_open(hours crm.weekly_hours, local_time timestamp) RETURNS boolean
AS 'MODULE_PATHNAME', 'crm_sql_is_open_local' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.is_open(crm.weekly_hours, timestamp) IS 'Whether it is open when a clock on the wall shows that time.';

CREATE FUNCTION crm.is_open(hours crm.weekly_hours, instant timestamptz, time_zone text) RETURNS boolean
AS 'MODULE_PATHNAME', 'crm_sql_is_open' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.is_open(crm.weekly_hours, timestamptz, text) IS 'Whether it is open at an instant, by the clock of a time zone.';

CREATE FUNCTION crm.next_opening(hours crm.weekly_hours, instant timestamptz, time_zone text) RETURNS timestamptz
AS 'MODULE_PATHNAME', 'crm_sql_next_opening' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.next_opening(crm.weekly_hours, timestamptz, text) IS 'When it opens next, at the instant or after it; NULL if never, as it is always or never open.';

CREATE FUNCTION crm.next_closing(hours crm.weekly_hours, instant timestamptz, time_zone text) RETURNS timestamptz
AS 'MODULE_PATHNAME', 'crm_sql_next_closing' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.next_closing(crm.weekly_hours, timestamptz, text) IS 'When it closes next, at the instant or after it: the end of the current span where it is open; NULL if never.';

CREATE FUNCTION crm.weekly_hours_lt(crm.weekly_hours, crm.weekly_hours) RETURNS boolean
AS 'MODULE_PATHNAME', 'crm_weekly_hours_lt' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.weekly_hours_lt(crm.weekly_hours, crm.weekly_hours) IS 'implementation of < operator';

CREATE FUNCTION crm.weekly_hours_le(crm.weekly_hours, crm.weekly_hours) RETURNS boolean
AS 'MODULE_PATHNAME', 'crm_weekly_hours_le' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.weekly_hours_le(crm.weekly_hours, crm.weekly_hours) IS 'implementation of <= operator';

CREATE FUNCTION crm.weekly_hours_eq(crm.weekly_hours, crm.weekly_hours) RETURNS boolean
AS 'MODULE_PATHNAME', 'crm_weekly_hours_eq' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.weekly_hours_eq(crm.weekly_hours, crm.weekly_hours) IS 'implementation of = operator';

CREATE FUNCTION crm.weekly_hours_ne(crm.weekly_hours, crm.weekly_hours) RETURNS boolean
AS 'MODULE_PATHNAME', 'crm_weekly_hours_ne' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.weekly_hours_ne(crm.weekly_hours, crm.weekly_hours) IS 'implementation of <> operator';

CREATE FUNCTION crm.weekly_hours_ge(crm.weekly_hours, crm.weekly_hours) RETURNS boolean
AS 'MODULE_PATHNAME', 'crm_weekly_hours_ge' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.weekly_hours_ge(crm.weekly_hours, crm.weekly_hours) IS 'implementation of >= operator';

CREATE FUNCTION crm.weekly_hours_gt(crm.weekly_hours, crm.weekly_hours) RETURNS boolean
AS 'MODULE_PATHNAME', 'crm_weekly_hours_gt' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.weekly_hours_gt(crm.weekly_hours, crm.weekly_hours) IS 'implementation of > operator';

CREATE FUNCTION crm.weekly_hours_cmp(crm.weekly_hours, crm.weekly_hours) RETURNS integer
AS 'MODULE_PATHNAME', 'crm_weekly_hours_cmp' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.weekly_hours_cmp(crm.weekly_hours, crm.weekly_hours) IS 'less-equal-greater';

CREATE FUNCTION crm.weekly_hours_hash(crm.weekly_hours) RETURNS integer
AS 'MODULE_PATHNAME', 'crm_weekly_hours_hash' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.weekly_hours_hash(crm.weekly_hours) IS 'hash';

CREATE FUNCTION crm.weekly_hours_hash_extended(crm.weekly_hours, bigint) RETURNS bigint
AS 'MODULE_PATHNAME', 'crm_weekly_hours_hash_extended' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.weekly_hours_hash_extended(crm.weekly_hours, bigint) IS 'hash';

CREATE OPERATOR crm.< (
    LEFTARG = crm.weekly_hours, RIGHTARG = crm.weekly_hours, FUNCTION = crm.weekly_hours_lt,
    COMMUTATOR = OPERATOR(crm.>), NEGATOR = OPERATOR(crm.>=),
    RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);
COMMENT ON OPERATOR crm.< (crm.weekly_hours, crm.weekly_hours) IS 'less than';

CREATE OPERATOR crm.<= (
    LEFTARG = crm.weekly_hours, RIGHTARG = crm.weekly_hours, FUNCTION = crm.weekly_hours_le,
    COMMUTATOR = OPERATOR(crm.>=), NEGATOR = OPERATOR(crm.>),
    RESTRICT = scalarlesel, JOIN = scalarlejoinsel
);
COMMENT ON OPERATOR crm.<= (crm.weekly_hours, crm.weekly_hours) IS 'less than or equal';

CREATE OPERATOR crm.= (
    LEFTARG = crm.weekly_hours, RIGHTARG = crm.weekly_hours, FUNCTION = crm.weekly_hours_eq,
    COMMUTATOR = OPERATOR(crm.=), NEGATOR = OPERATOR(crm.<>),
    HASHES, MERGES,
    RESTRICT = eqsel, JOIN = eqjoinsel
);
COMMENT ON OPERATOR crm.= (crm.weekly_hours, crm.weekly_hours) IS 'equal';

CREATE OPERATOR crm.<> (
    LEFTARG = crm.weekly_hours, RIGHTARG = crm.weekly_hours, FUNCTION = crm.weekly_hours_ne,
    COMMUTATOR = OPERATOR(crm.<>), NEGATOR = OPERATOR(crm.=),
    RESTRICT = neqsel, JOIN = neqjoinsel
);
COMMENT ON OPERATOR crm.<> (crm.weekly_hours, crm.weekly_hours) IS 'not equal';

CREATE OPERATOR crm.>= (
    LEFTARG = crm.weekly_hours, RIGHTARG = crm.weekly_hours, FUNCTION = crm.weekly_hours_ge,
    COMMUTATOR = OPERATOR(crm.<=), NEGATOR = OPERATOR(crm.<),
    RESTRICT = scalargesel, JOIN = scalargejoinsel
);
COMMENT ON OPERATOR crm.>= (crm.weekly_hours, crm.weekly_hours) IS 'greater than or equal';

CREATE OPERATOR crm.> (
    LEFTARG = crm.weekly_hours, RIGHTARG = crm.weekly_hours, FUNCTION = crm.weekly_hours_gt,
    COMMUTATOR = OPERATOR(crm.<), NEGATOR = OPERATOR(crm.<=),
    RESTRICT = scalargtsel, JOIN = scalargtjoinsel
);
COMMENT ON OPERATOR crm.> (crm.weekly_hours, crm.weekly_hours) IS 'greater than';

CREATE OPERATOR CLASS crm.weekly_hours_ops DEFAULT FOR TYPE crm.weekly_hours USING btree AS
    OPERATOR 1 crm.<,
    OPERATOR 2 crm.<=,
    OPERATOR 3 crm.=,
    OPERATOR 4 crm.>=,
    OPERATOR 5 crm.>,
    FUNCTION 1 crm.weekly_hours_cmp(crm.weekly_hours, crm.weekly_hours),
    FUNCTION 4 (crm.weekly_hours, crm.weekly_hours) pg_catalog.btequalimage(oid);
COMMENT ON OPERATOR CLASS crm.weekly_hours_ops USING btree IS 'order of timetables, by the first span in which they differ';

CREATE OPERATOR CLASS crm.weekly_hours_ops DEFAULT FOR TYPE crm.weekly_hours USING hash AS
    OPERATOR 1 crm.=,
    FUNCTION 1 crm.weekly_hours_hash(crm.weekly_hours),
    FUNCTION 2 crm.weekly_hours_hash_extended(crm.weekly_hours, bigint);
COMMENT ON OPERATOR CLASS crm.weekly_hours_ops USING hash IS 'equality of timetables';

