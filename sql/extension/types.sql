-- ---------------------------------------------------------------------------
-- crm.mobile: a mobile number in E.164 form
--
-- Stored, compared and hashed as the bigint it is, by the built-in functions.
-- ---------------------------------------------------------------------------
CREATE TYPE crm.mobile;

-- STABLE, as a number without calling code depends on a setting
CREATE FUNCTION crm.mobile_in(cstring) RETURNS crm.mobile
AS 'MODULE_PATHNAME', 'crm_mobile_in' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.mobile_in(cstring) IS 'I/O';

CREATE FUNCTION crm.mobile_out(crm.mobile) RETURNS cstring
AS 'MODULE_PATHNAME', 'crm_mobile_out' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.mobile_out(crm.mobile) IS 'I/O';

CREATE FUNCTION crm.mobile_recv(internal) RETURNS crm.mobile
AS 'MODULE_PATHNAME', 'crm_mobile_recv' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.mobile_recv(internal) IS 'I/O';

CREATE FUNCTION crm.mobile_send(crm.mobile) RETURNS bytea
AS 'MODULE_PATHNAME', 'crm_mobile_send' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.mobile_send(crm.mobile) IS 'I/O';

CREATE TYPE crm.mobile (
    INPUT   = crm.mobile_in,
    OUTPUT  = crm.mobile_out,
    RECEIVE = crm.mobile_recv,
    SEND    = crm.mobile_send,
    LIKE    = pg_catalog.int8
);
COMMENT ON TYPE crm.mobile IS 'mobile number in E.164 form, like +8613800138000';

CREATE CAST (text AS crm.mobile) WITH INOUT;
COMMENT ON CAST (text AS crm.mobile) IS 'reads the number as the input of the type does';
CREATE CAST (crm.mobile AS text) WITH INOUT AS ASSIGNMENT;
COMMENT ON CAST (crm.mobile AS text) IS 'the number in E.164 form';

CREATE FUNCTION crm.mobile_country_code(mobile crm.mobile) RETURNS integer
AS 'MODULE_PATHNAME', 'crm_mobile_country_code' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.mobile_country_code(crm.mobile) IS 'country calling code of the number, like 86';

CREATE FUNCTION crm.mobile_masked(mobile crm.mobile) RETURNS text
AS 'MODULE_PATHNAME', 'crm_mobile_masked' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.mobile_masked(crm.mobile) IS 'the number with its middle hidden, like +86138****8000';

CREATE FUNCTION crm.mobile_lt(crm.mobile, crm.mobile) RETURNS boolean
AS 'int8lt' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION crm.mobile_lt(crm.mobile, crm.mobile) IS 'implementation of < operator';

CREATE FUNCTION crm.mobile_le(crm.mobile, crm.mobile) RETURNS boolean
AS 'int8le' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION crm.mobile_le(crm.mobile, crm.mobile) IS 'implementation of <= operator';

CREATE FUNCTION crm.mobile_eq(crm.mobile, crm.mobile) RETURNS boolean
AS 'int8eq' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION crm.mobile_eq(crm.mobile, crm.mobile) IS 'implementation of = operator';

CREATE FUNCTION crm.mobile_ne(crm.mobile, crm.mobile) RETURNS boolean
AS 'int8ne' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION crm.mobile_ne(crm.mobile, crm.mobile) IS 'implementation of <> operator';

CREATE FUNCTION crm.mobile_ge(crm.mobile, crm.mobile) RETURNS boolean
AS 'int8ge' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION crm.mobile_ge(crm.mobile, crm.mobile) IS 'implementation of >= operator';

CREATE FUNCTION crm.mobile_gt(crm.mobile, crm.mobile) RETURNS boolean
AS 'int8gt' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION crm.mobile_gt(crm.mobile, crm.mobile) IS 'implementation of > operator';

CREATE FUNCTION crm.mobile_cmp(crm.mobile, crm.mobile) RETURNS integer
AS 'btint8cmp' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION crm.mobile_cmp(crm.mobile, crm.mobile) IS 'less-equal-greater';

CREATE FUNCTION crm.mobile_sortsupport(internal) RETURNS void
AS 'btint8sortsupport' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.mobile_sortsupport(internal) IS 'sort support';

CREATE FUNCTION crm.mobile_hash(crm.mobile) RETURNS integer
AS 'hashint8' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.mobile_hash(crm.mobile) IS 'hash';

CREATE FUNCTION crm.mobile_hash_extended(crm.mobile, bigint) RETURNS bigint
AS 'hashint8extended' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION crm.mobile_hash_extended(crm.mobile, bigint) IS 'hash';

CREATE OPERATOR crm.< (
    LEFTARG = crm.mobile, RIGHTARG = crm.mobile, FUNCTION = crm.mobile_lt,
    COMMUTATOR = OPERATOR(crm.>), NEGATOR = OPERATOR(crm.>=),
    RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);
COMMENT ON OPERATOR crm.< (crm.mobile, crm.mobile) IS 'less than';

CREATE OPERATOR crm.<= (
    LEFTARG = crm.mobile, RIGHTARG = crm.mobile, FUNCTION = crm.mobile_le,
    COMMUTATOR = OPERATOR(crm.>=), NEGATOR = OPERATOR(crm.>),
    RESTRICT = scalarlesel, JOIN = scalarlejoinsel
);
COMMENT ON OPERATOR crm.<= (crm.mobile, crm.mobile) IS 'less than or equal';

CREATE OPERATOR crm.= (
    LEFTARG = crm.mobile, RIGHTARG = crm.mobile, FUNCTION = crm.mobile_eq,
    COMMUTATOR = OPERATOR(crm.=), NEGATOR = OPERATOR(crm.<>),
    HASHES, MERGES,
    RESTRICT = eqsel, JOIN = eqjoinsel
);
COMMENT ON OPERATOR crm.= (crm.mobile, crm.mobile) IS 'equal';

CREATE OPERATOR crm.<> (
    LEFTARG = crm.mobile, RIGHTARG = crm.mobile, FUNCTION = crm.mobile_ne,
    COMMUTATOR = OPERATOR(crm.<>), NEGATOR = OPERATOR(crm.=),
    RESTRICT = neqsel, JOIN = neqjoinsel
);
COMMENT ON OPERATOR crm.<> (crm.mobile, crm.mobile) IS 'not equal';

CREATE OPERATOR crm.>= (
    LEFTARG = crm.mobile, RIGHTARG = crm.mobile, FUNCTION = crm.mobile_ge,
    COMMUTATOR = OPERATOR(crm.<=), NEGATOR = OPERATOR(crm.<),
    RESTRICT = scalargesel, JOIN = scalargejoinsel
);
COMMENT ON OPERATOR crm.>= (crm.mobile, crm.mobile) IS 'greater than or equal';

CREATE OPERATOR crm.> (
    LEFTARG = crm.mobile, RIGHTARG = crm.mobile, FUNCTION = crm.mobile_gt,
    COMMUTATOR = OPERATOR(crm.<), NEGATOR = OPERATOR(crm.<=),
    RESTRICT = scalargtsel, JOIN = scalargtjoinsel
);
COMMENT ON OPERATOR crm.> (crm.mobile, crm.mobile) IS 'greater than';

CREATE OPERATOR CLASS crm.mobile_ops DEFAULT FOR TYPE crm.mobile USING btree AS
    OPERATOR 1 crm.<,
    OPERATOR 2 crm.<=,
    OPERATOR 3 crm.=,
    OPERATOR 4 crm.>=,
    OPERATOR 5 crm.>,
    FUNCTION 1 crm.mobile_cmp(crm.mobile, crm.mobile),
    FUNCTION 2 crm.mobile_sortsupport(internal),
    FUNCTION 4 (crm.mobile, crm.mobile) pg_catalog.btequalimage(oid);
COMMENT ON OPERATOR CLASS crm.mobile_ops USING btree IS 'order of mobile numbers, as integers';

CREATE OPERATOR CLASS crm.mobile_ops DEFAULT FOR TYPE crm.mobile USING hash AS
    OPERATOR 1 crm.=,
    FUNCTION 1 crm.mobile_hash(crm.mobile),
    FUNCTION 2 crm.mobile_hash_extended(crm.mobile, bigint);
COMMENT ON OPERATOR CLASS crm.mobile_ops USING hash IS 'equality of mobile numbers';

