-- The second rival: the same in sets, by a statement trigger in PL/pgSQL.
CREATE FUNCTION bench.statement_ingest() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM FROM crm.profile_counter WHERE contact_id IN (SELECT contact_id FROM new_rows)
	 ORDER BY contact_id FOR NO KEY UPDATE;
	WITH walk AS MATERIALIZED (
		SELECT r.contact_id, r.transaction_id, r.amount, r.occurred_at,
		       p.orders + row_number() OVER w AS n, p.spend + sum(r.amount) OVER w AS total
		  FROM new_rows AS r JOIN crm.profile_counter AS p USING (contact_id)
		WINDOW w AS (PARTITION BY r.contact_id ORDER BY r.occurred_at, r.transaction_id ROWS UNBOUNDED PRECEDING)
	), award AS (
		INSERT INTO crm.award (contact_id, achievement, threshold, awarded_at, recorded_at, source_id)
		SELECT contact_id, CASE n WHEN 1 THEN 'first_purchase' WHEN 2 THEN 'second_purchase' ELSE 'purchase_milestone' END,
		       n, occurred_at, now(), transaction_id
		  FROM walk WHERE n IN (1, 2, 5, 10, 20, 50, 100)
		UNION ALL
		SELECT contact_id, 'spend_milestone', t, occurred_at, now(), transaction_id
		  FROM walk, unnest('{100,500,1000,5000,10000}'::numeric[]) AS t
		 WHERE t > total - amount AND t <= total
		ON CONFLICT DO NOTHING
	), move AS (
		INSERT INTO crm.stage_move (contact_id, since, stage, reason)
		SELECT contact_id, occurred_at, CASE n WHEN 1 THEN 'paying' ELSE 'loyal' END, 'rule'
		  FROM walk WHERE n IN (1, 5)
		ON CONFLICT DO NOTHING
	), contact AS (
		UPDATE crm.contact AS c SET stage = CASE m.n WHEN 1 THEN 'paying' ELSE 'loyal' END
		  FROM (SELECT contact_id, max(n) AS n FROM walk WHERE n IN (1, 5) GROUP BY contact_id) AS m
		 WHERE c.contact_id = m.contact_id
	)
	INSERT INTO crm.profile_counter AS p (contact_id, orders, spend, first_order_at, last_order_at,
		first_seen_at, last_seen_at, stage, stage_since, ranked_stage, settled_at)
	SELECT contact_id, count(*), sum(amount), min(occurred_at), max(occurred_at), min(occurred_at), max(occurred_at),
	       CASE WHEN max(n) >= 5 THEN 'loyal' ELSE 'paying' END, max(occurred_at) FILTER (WHERE n IN (1, 5)),
	       CASE WHEN max(n) >= 5 THEN 'loyal' ELSE 'paying' END, max(occurred_at)
	  FROM walk GROUP BY contact_id
	ON CONFLICT (contact_id) DO UPDATE SET
		orders = p.orders + excluded.orders,
		spend = p.spend + excluded.spend,
		first_order_at = coalesce(p.first_order_at, excluded.first_order_at),
		last_order_at = excluded.last_order_at,
		first_seen_at = coalesce(p.first_seen_at, excluded.first_seen_at),
		last_seen_at = excluded.last_seen_at,
		stage = excluded.stage,
		stage_since = coalesce(excluded.stage_since, p.stage_since),
		ranked_stage = excluded.ranked_stage,
		settled_at = excluded.settled_at;
	RETURN NULL;
END $$;
CREATE TRIGGER bench_ingest AFTER INSERT ON crm.transaction
	REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION bench.statement_ingest();
