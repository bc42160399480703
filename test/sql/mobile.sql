-- crm.mobile: the forms that are read, what is refused, order and binary form
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_crm;
RESET client_min_messages;
SET search_path = public, crm;

-- one number in many forms
SELECT form, form::crm.mobile
FROM (VALUES ('+8613800138000'), ('+86 138 0013 8000'), ('+86-138-0013-8000'),
             ('(+86) 138 0013 8000'), ('008613800138000'), ('00 86 138 0013 8000'),
             ('8613800138000'), ('86 138-0013-8000'), ('13800138000'),
             ('138 0013 8000'), ('(138)00138000'), ('013800138000'),
             ('+86 0138 0013 8000'), ('+86 (0)138 0013 8000'), ('  13800138000  ')) AS t (form);

-- national forms, with trunk digit and bare calling code
CREATE FUNCTION pg_temp.read(code integer, form text) RETURNS crm.mobile
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('pg_crm.default_country_code', code::text, true);
    RETURN form::crm.mobile;
END
$$;
SELECT code, form, pg_temp.read(code, form)
FROM (VALUES (852, '5123 4567'), (852, '85251234567'),
             (853, '6612 3456'), (886, '0912-345-678'), (886, '912345678'),
             (65, '8123 4567'), (65, '6581234567'),
             (1, '(650) 253-0000'), (1, '1-650-253-0000'), (1, '16502530000'),
             (44, '07400 123456'), (44, '447400123456'), (44, '+44 (0)7400 123456'),
             (33, '06 12 34 56 78'), (33, '33612345678'),
             (49, '01512 3456789'), (49, '4915123456789'), (49, '0171 1234567'),
             (81, '090-1234-5678'), (81, '819012345678'),
             (82, '010-2000-0000'), (82, '821020000000'), (82, '011-234-5678'),
             (971, '050 123 4567'), (971, '971501234567'),
             (39, '312 345 6789'), (225, '0123456789')) AS t (code, form);

-- with a calling code the setting does not matter
SELECT pg_temp.read(1, '+86 138 0013 8000'), pg_temp.read(1, '0086 138 0013 8000'),
       pg_temp.read(44, '+247 40123');

-- refused, with the value masked
CREATE FUNCTION pg_temp.refusal(code integer, form text)
RETURNS TABLE (state text, message text, hint text)
LANGUAGE plpgsql AS $$
BEGIN
    message := pg_temp.read(code, form)::text;
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE,
        message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    RETURN NEXT;
END
$$;
SELECT left(form, 24) AS form, r.state, r.message
FROM (VALUES (''), (' '), ('+'), ('++8613800138000'), ('+86+13800138000'),
             ('abc'), ('13800138000x'), ('138.0013.8000'), ('tel:+8613800138000'),
             (E'138\t0013\t8000'), ('Wu Ming, wuming@example.com'),
             ('10086'), ('110'), ('010-62770334'), ('021 6431 5555'),
             ('1380013800'), ('138001380000'), ('12345678901'), ('14012345678'),
             ('+86 010 6277 0334'), ('+8602164315555'), ('+860013800138000'),
             ('98765432'), ('0912 345 678'), ('447400123456'),
             ('+18002123456'), ('+1 650 153 0000'), ('+442070313000'), ('+447012345678'),
             ('+886 2 1234 5678'), ('+6561234567'), ('+852 2123 4567'),
             ('+9991235467'), ('+210 3456 56789'), ('+01164 3 331 6005'), ('0044------'),
             ('007001234567890123'), ('+41 (0)0 791234567'),
             (repeat('1', 100)), (repeat('13800138000 ', 87382)), (repeat('x', 1048576)),
             (repeat(' ', 1048576))) AS t (form),
     LATERAL pg_temp.refusal(86, form) AS r;

-- full-width digits, a no-break space, a line end
SELECT r.state, r.message
FROM unnest(ARRAY['１３８００１３８０００', E'138\xc2\xa00013 8000', E'13800138000\n']) AS form,
     LATERAL pg_temp.refusal(86, form) AS r;

-- the first digits of Chinese mobile numbers
SELECT string_agg(prefix::text, ' ' ORDER BY prefix) AS taken
FROM generate_series(100, 199) AS prefix,
     LATERAL pg_temp.refusal(86, prefix || '12345678') AS r
WHERE r.state IS NULL;

-- one hint for each reason
SELECT DISTINCT r.hint COLLATE "C" AS hint
FROM (VALUES (86, '138x'), (86, '+999 1'), (86, '110'), (43, '436641234567')) AS t (code, form),
     LATERAL pg_temp.refusal(code, form) AS r
ORDER BY 1;

-- a bare number that may be two numbers is neither
SELECT r.* FROM pg_temp.refusal(43, '436641234567') AS r;
SELECT pg_temp.read(43, '+436641234567'), pg_temp.read(43, '0664 1234567');

-- the setting
SET pg_crm.default_country_code = 852;
SELECT '51234567'::crm.mobile;
SET pg_crm.default_country_code = 999;
SET pg_crm.default_country_code = 0;
SET pg_crm.default_country_code = 1000;
SHOW pg_crm.default_country_code;
RESET pg_crm.default_country_code;
SHOW pg_crm.default_country_code;

-- functions
SELECT crm.mobile_country_code(m), crm.mobile_masked(m), m::text
FROM unnest('{+8613800138000,+85251234567,+16502530000,+24740123}'::crm.mobile[]) AS m;
SELECT crm.mobile_masked(NULL) IS NULL;

-- order, equality, arrays, aggregates and indexes
SELECT a < b AS lt, a <= b AS le, a = b AS eq, a <> b AS ne, a >= b AS ge, a > b AS gt,
       crm.mobile_cmp(a, b)
FROM (VALUES ('13800138000'::crm.mobile, '13800138001'::crm.mobile),
             ('13800138000', '+86 138 0013 8000'), ('13800138001', '13800138000')) AS t (a, b);
SELECT crm.mobile_hash('13800138000') = crm.mobile_hash('+8613800138000') AS hash,
       crm.mobile_hash_extended('13800138000', 7) = crm.mobile_hash_extended('+8613800138000', 7) AS hash_extended;
SELECT typlen, typbyval, typalign, typstorage FROM pg_type WHERE oid = 'crm.mobile'::regtype;

CREATE TEMP TABLE numbers (id integer, mobile crm.mobile PRIMARY KEY);
INSERT INTO numbers
SELECT i, (13800000000 + i)::text::crm.mobile FROM generate_series(1, 10000) AS i;
INSERT INTO numbers VALUES (0, '138 0000 0042');
CREATE INDEX numbers_hash ON numbers USING hash (mobile);
ANALYZE numbers;
EXPLAIN (COSTS OFF) SELECT id FROM numbers WHERE mobile > '13800009990' ORDER BY mobile LIMIT 1;
SELECT id FROM numbers WHERE mobile > '13800009990' ORDER BY mobile LIMIT 1;
DROP INDEX numbers_hash;
SELECT id FROM numbers WHERE mobile = '+86 138-0000-4242';
SET enable_nestloop = off; SET enable_mergejoin = off;
SELECT count(*), count(DISTINCT a.mobile) FROM numbers AS a JOIN numbers AS b USING (mobile);
SET enable_mergejoin = on; SET enable_hashjoin = off;
SELECT count(*) FROM numbers AS a JOIN numbers AS b USING (mobile);
RESET enable_nestloop; RESET enable_mergejoin; RESET enable_hashjoin;

-- the binary form goes through a file and is not believed
SELECT crm.mobile_send('13800138000');
DO $$
DECLARE
    file text := current_setting('data_directory') || '/crm_mobile_test.bin';
BEGIN
    CREATE TEMP TABLE copied (mobile crm.mobile);
    EXECUTE format('COPY (SELECT mobile FROM numbers ORDER BY 1) TO %L (FORMAT binary)', file);
    EXECUTE format('COPY copied FROM %L (FORMAT binary)', file);
    ASSERT (SELECT count(*) FROM copied JOIN numbers USING (mobile)) = 10000;
    FOR i IN 1 .. 6 LOOP
        EXECUTE format('COPY (SELECT %s::bigint) TO %L (FORMAT binary)',
                       (ARRAY[0, -8613800138000, 8613800138, 13800138000, 9991234567890,
                              9223372036854775807])[i], file);
        BEGIN
            EXECUTE format('COPY copied FROM %L (FORMAT binary)', file);
            RAISE EXCEPTION 'a wrong value was received';
        EXCEPTION WHEN invalid_binary_representation THEN
            NULL;
        END;
    END LOOP;
    EXECUTE format('COPY (SELECT 1) TO %L', file);
END
$$;

-- soft errors came with 16
DO $$
DECLARE
    form text;
    valid boolean;
BEGIN
    IF current_setting('server_version_num')::integer < 160000 THEN
        RETURN;
    END IF;
    FOREACH form IN ARRAY ARRAY['', '+', 'x', '138 0013 800', '+999 12345678', '138 0013 8000'] LOOP
        EXECUTE 'SELECT pg_catalog.pg_input_is_valid($1, ''crm.mobile'')' INTO valid USING form;
        ASSERT valid = (form = '138 0013 8000'), form;
    END LOOP;
END
$$;

-- anything at all is either refused or a number that reads itself
DO $$
DECLARE
    form text;
    number crm.mobile;
BEGIN
    PERFORM setseed(0.5);
    FOR i IN 1 .. 20000 LOOP
        SELECT string_agg(substr('0011345678899 +-()86x', 1 + (random() * 20)::integer, 1), '')
        INTO form FROM generate_series(1, 1 + (random() * 18)::integer) WHERE i > 0;
        BEGIN
            number := form;
            ASSERT number::text ~ '^\+[1-9][0-9]{6,14}$', form;
            ASSERT number::text::crm.mobile = number, form;
            ASSERT regexp_replace(form, '\D', '', 'g')
                   LIKE '%' || substr(number::text, 2 + length(crm.mobile_country_code(number)::text)), form;
        EXCEPTION WHEN invalid_text_representation THEN
            NULL;
        END;
    END LOOP;
END
$$;
