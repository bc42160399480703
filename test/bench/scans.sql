-- The scans to be loaded: 50 000 contacts, each ten scans of one of 20 codes, in the order of their time; every tenth counts.
-- After load.sql, in databases with and without pg_crm.
CREATE TABLE bench.scans (
	id bigint PRIMARY KEY,
	contact_id bigint NOT NULL,
	qr_code_id bigint NOT NULL,
	occurred_at timestamptz NOT NULL
);
SELECT setseed(0.75) \g /dev/null
INSERT INTO bench.scans
SELECT n, 2 * c, 1 + c % 20, '2020-01-01'::timestamptz + n * interval '30 s'
  FROM (SELECT row_number() OVER (), c FROM (SELECT c FROM generate_series(1, 50000) AS c, generate_series(1, 10)
                                              ORDER BY random()) AS s) AS r(n, c);

-- One scan a statement, each its own transaction, by rows_n contacts with even (or odd) ids. statement_us is of the INSERT
-- alone, transaction_us with its COMMIT and the loop, cpu_us the processor time of the same.
CREATE PROCEDURE bench.scan_by_scan(odd bigint, skip bigint, rows_n bigint, since timestamptz, INOUT statement_us double precision DEFAULT NULL,
	INOUT transaction_us double precision DEFAULT NULL, INOUT cpu_us double precision DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
	contacts bigint[];
	c bigint;
	i bigint := 0;
	begun timestamptz;
	t timestamptz;
	spent interval := '0';
BEGIN
	SELECT array_agg(2 * n - odd) INTO contacts
	  FROM (SELECT n FROM generate_series(1, 50000) AS n ORDER BY hashint8(n) OFFSET skip LIMIT rows_n) AS s;
	begun := clock_timestamp();
	cpu_us := bench.cpu();
	FOREACH c IN ARRAY contacts LOOP
		i := i + 1;
		t := clock_timestamp();
		INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at) VALUES (c, 1 + (c + odd) / 2 % 20, since + i * interval '1 ms');
		spent := spent + (clock_timestamp() - t);
		COMMIT;
	END LOOP;
	statement_us := extract(epoch FROM spent) * 1e6 / i;
	cpu_us := (bench.cpu() - cpu_us) * 1e3 / i;
	transaction_us := extract(epoch FROM clock_timestamp() - begun) * 1e6 / i;
END $$;
