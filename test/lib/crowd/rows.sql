\set seed random(1, 1000000)
SELECT attempt(format($$INSERT INTO crm.transaction (contact_id, amount, occurred_at)
SELECT hot(1 + abs(hashint8(n + %1$s)::bigint) %% 5), n, '2024-01-01Z'::timestamptz + (n * %1$s %% 997) * interval '1 hour' FROM generate_series(1, 6) AS n ORDER BY hashint8(n * 7 + %1$s)$$, :seed));
