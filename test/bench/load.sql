-- What every variant carries: the orders to be loaded, and the loops that load them.
CREATE SCHEMA bench;
CREATE TABLE bench.orders (
	id bigint PRIMARY KEY,
	contact_id bigint NOT NULL,
	amount numeric NOT NULL,
	occurred_at timestamptz NOT NULL,
	external_ref text NOT NULL
);

-- time this session has spent on a processor, in ms; NULL where Linux does not tell
CREATE FUNCTION bench.cpu() RETURNS double precision LANGUAGE sql VOLATILE AS $$
	SELECT split_part(pg_read_file('/proc/self/schedstat', 0, 100, true), ' ', 1)::double precision / 1e6
$$;

-- the orders_n orders after the one with id i, in statements of statement_n rows, each its own transaction
CREATE PROCEDURE bench.in_statements(i bigint, orders_n bigint, statement_n bigint) LANGUAGE plpgsql AS $$
DECLARE
	last bigint := i + orders_n;
BEGIN
	WHILE i < last LOOP
		INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref)
		SELECT contact_id, amount, occurred_at, external_ref FROM bench.orders
		 WHERE id > i AND id <= i + statement_n;
		COMMIT;
		i := i + statement_n;
	END LOOP;
END $$;

-- One order a statement, each its own transaction, for rows_n contacts out of first_contact and the
-- contacts_n - 1 after it in steps: at random, or each at most once. statement_us is of the INSERT alone,
-- transaction_us with its COMMIT and the loop, cpu_us the processor time of the same.
CREATE PROCEDURE bench.one_by_one(tag text, first_contact bigint, step bigint, contacts_n bigint, once boolean, rows_n bigint,
	since timestamptz, INOUT statement_us double precision DEFAULT NULL, INOUT transaction_us double precision DEFAULT NULL,
	INOUT cpu_us double precision DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
	contacts bigint[];
	c bigint;
	i bigint := 0;
	at timestamptz;
	ref text;
	begun timestamptz;
	t timestamptz;
	spent interval := '0';
BEGIN
	PERFORM setseed(extract(doy FROM coalesce(since, now())) / 1000);
	IF once THEN
		SELECT array_agg(first_contact + step * n) INTO contacts
		  FROM (SELECT n FROM generate_series(0, contacts_n - 1) AS n ORDER BY random() LIMIT rows_n) AS s;
	ELSE
		SELECT array_agg(first_contact + step * floor(random() * contacts_n)::bigint) INTO contacts
		  FROM generate_series(1, rows_n);
	END IF;
	begun := clock_timestamp();
	cpu_us := bench.cpu();
	FOREACH c IN ARRAY contacts LOOP
		i := i + 1;
		at := coalesce(since + i * interval '1 ms', clock_timestamp());
		ref := tag || i;
		t := clock_timestamp();
		INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref) VALUES (c, 0.01, at, ref);
		spent := spent + (clock_timestamp() - t);
		COMMIT;
	END LOOP;
	statement_us := extract(epoch FROM spent) * 1e6 / i;
	cpu_us := (bench.cpu() - cpu_us) * 1e3 / i;
	transaction_us := extract(epoch FROM clock_timestamp() - begun) * 1e6 / i;
END $$;
