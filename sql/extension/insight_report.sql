-- insight: reports of a period, from facts counted by day

CREATE FUNCTION crm.check_days(period_start date, period_end date) RETURNS boolean
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'crm_sql_check_days';
COMMENT ON FUNCTION crm.check_days(date, date) IS 'true for a period of days that reports take; an error that says why for any other.';
REVOKE ALL ON FUNCTION crm.check_days(date, date) FROM PUBLIC;

CREATE FUNCTION crm.check_journey(journey text) RETURNS boolean
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'crm_sql_check_journey';
COMMENT ON FUNCTION crm.check_journey(text) IS 'true for the name of a journey and for NULL; an error for any other.';
REVOKE ALL ON FUNCTION crm.check_journey(text) FROM PUBLIC;

-- Never an error, as the planner may ask it before crm.check_days() is.
CREATE FUNCTION crm.day_begins(day date) RETURNS timestamptz
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'crm_sql_day_begins';
COMMENT ON FUNCTION crm.day_begins(date) IS 'First moment of a day in the zone pg_crm.time_zone; infinite for days that no report takes.';
REVOKE ALL ON FUNCTION crm.day_begins(date) FROM PUBLIC;

-- Months where the period holds a whole one, days at its ends; ends that no report takes are moved, until they are refused.
CREATE FUNCTION crm.fact_period(period_start date, period_end date)
RETURNS TABLE (event boolean, kind text, account_id bigint, qr_code_id bigint, store_id bigint, currency text,
	facts bigint, voided bigint, amount numeric, refunded numeric)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 10000 AS $$
	SELECT n.event, n.kind, n.account_id, n.qr_code_id, n.store_id, n.currency, n.facts, n.voided, n.amount, n.refunded
	  FROM crm.fact_span AS n
	 WHERE n.day >= period_start AND n.day < period_end
	   AND (n.unit = 'rest'
	        OR n.unit = 'month' AND n.day < pg_catalog.date_trunc('month', GREATEST('0001-01-01', LEAST(period_end, '10000-01-01'))::timestamp)::date
	        OR n.unit = 'day' AND (n.day < pg_catalog.date_trunc('month', (GREATEST('0001-01-01', LEAST(period_start, '10000-01-01')) - 1)::timestamp + '1 month'::interval)::date
	                               OR n.day >= pg_catalog.date_trunc('month', GREATEST('0001-01-01', LEAST(period_end, '10000-01-01'))::timestamp)::date))
	-- apart, so that it is asked also where no row can be in the period
	UNION ALL
	SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL WHERE NOT crm.check_days(period_start, period_end)
$$;
COMMENT ON FUNCTION crm.fact_period(date, date) IS 'Facts of the days from the first to before the last, counted by kind, account, code, shop and currency; a key may have several rows.';
REVOKE ALL ON FUNCTION crm.fact_period(date, date) FROM PUBLIC;

CREATE FUNCTION crm.won_period(period_start date, period_end date)
RETURNS TABLE (source text, campaign text, qr_code_id bigint, store_id bigint, associate_id bigint, won bigint, buyers bigint,
	revenue numeric)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 10000 AS $$
	SELECT n.source, n.campaign, n.qr_code_id, n.store_id, n.associate_id, n.won, n.buyers, n.revenue
	  FROM crm.won_span AS n
	 WHERE n.day >= period_start AND n.day < period_end
	   AND (n.unit = 'rest'
	        OR n.unit = 'month' AND n.day < pg_catalog.date_trunc('month', GREATEST('0001-01-01', LEAST(period_end, '10000-01-01'))::timestamp)::date
	        OR n.unit = 'day' AND (n.day < pg_catalog.date_trunc('month', (GREATEST('0001-01-01', LEAST(period_start, '10000-01-01')) - 1)::timestamp + '1 month'::interval)::date
	                               OR n.day >= pg_catalog.date_trunc('month', GREATEST('0001-01-01', LEAST(period_end, '10000-01-01'))::timestamp)::date))
	UNION ALL
	SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL WHERE NOT crm.check_days(period_start, period_end)
$$;
COMMENT ON FUNCTION crm.won_period(date, date) IS 'Contacts won on the days from the first to before the last, counted by source, campaign, code, shop and associate, with what they have bought to date; a key may have several rows.';
REVOKE ALL ON FUNCTION crm.won_period(date, date) FROM PUBLIC;

CREATE FUNCTION crm.scan_report(period_start date, period_end date)
RETURNS TABLE (qr_code_id bigint, scene text, campaign text, store_id bigint, associate_id bigint, scans bigint, won bigint)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 100 AS $$
	SELECT q.qr_code_id, q.scene, q.campaign, q.store_id, q.associate_id, COALESCE(f.scans, 0), COALESCE(w.won, 0)
	  FROM crm.qr_code AS q
	  LEFT JOIN (SELECT c.qr_code_id, pg_catalog.sum(c.facts)::bigint AS scans FROM crm.fact_period(period_start, period_end) AS c
	              WHERE c.kind = 'scan' AND NOT c.event
	              GROUP BY c.qr_code_id) AS f ON f.qr_code_id = q.qr_code_id
	  LEFT JOIN (SELECT a.qr_code_id, pg_catalog.sum(a.won)::bigint AS won FROM crm.won_period(period_start, period_end) AS a
	              GROUP BY a.qr_code_id) AS w ON w.qr_code_id = q.qr_code_id
	 WHERE crm.check_days(period_start, period_end)
	 ORDER BY q.qr_code_id
$$;
COMMENT ON FUNCTION crm.scan_report(date, date) IS 'For each code the scans of the days from the first to before the last, and the contacts won by it.';
REVOKE ALL ON FUNCTION crm.scan_report(date, date) FROM PUBLIC;

CREATE FUNCTION crm.store_report(period_start date, period_end date)
RETURNS TABLE (store_id bigint, store text, scans bigint, won bigint, orders bigint, revenue numeric, refunded numeric,
	voided bigint, redeemed bigint)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 100 AS $$
	WITH fact AS MATERIALIZED (
	       SELECT c.kind, c.qr_code_id, c.store_id, c.currency, pg_catalog.sum(c.facts) AS facts, pg_catalog.sum(c.voided) AS voided,
	              pg_catalog.sum(c.amount) AS amount, pg_catalog.sum(c.refunded) AS refunded
	         FROM crm.fact_period(period_start, period_end) AS c
	        WHERE c.kind IN ('scan', 'purchase') AND NOT c.event
	        GROUP BY c.kind, c.qr_code_id, c.store_id, c.currency)
	SELECT n.store_id, s.name, COALESCE(pg_catalog.sum(n.scans), 0)::bigint, COALESCE(pg_catalog.sum(n.won), 0)::bigint,
	       COALESCE(pg_catalog.sum(n.orders), 0)::bigint, COALESCE(pg_catalog.sum(n.revenue), 0),
	       COALESCE(pg_catalog.sum(n.refunded), 0), COALESCE(pg_catalog.sum(n.voided), 0)::bigint,
	       COALESCE(pg_catalog.sum(n.redeemed), 0)::bigint
	  FROM (SELECT t.store_id, 0::bigint AS scans, 0::bigint AS won, 0::bigint AS orders, 0::numeric AS revenue, 0::numeric AS refunded,
	               0::bigint AS voided, 0::bigint AS redeemed
	          FROM crm.store AS t
	        UNION ALL
	        SELECT q.store_id, pg_catalog.sum(c.facts)::bigint, 0, 0, 0, 0, 0, 0
	          FROM fact AS c JOIN crm.qr_code AS q ON q.qr_code_id = c.qr_code_id
	         WHERE c.kind = 'scan' AND q.store_id IS NOT NULL
	         GROUP BY q.store_id
	        UNION ALL
	        SELECT a.store_id, 0, pg_catalog.sum(a.won)::bigint, 0, 0, 0, 0, 0
	          FROM crm.won_period(period_start, period_end) AS a
	         WHERE a.store_id IS NOT NULL
	         GROUP BY a.store_id
	        UNION ALL
	        SELECT c.store_id, 0, 0, pg_catalog.sum(c.facts - c.voided)::bigint,
	               COALESCE(pg_catalog.sum(COALESCE(c.amount, 0) - COALESCE(c.refunded, 0)) FILTER (WHERE c.currency = z.currency), 0),
	               COALESCE(pg_catalog.sum(c.refunded) FILTER (WHERE c.currency = z.currency), 0), pg_catalog.sum(c.voided)::bigint, 0
	          FROM fact AS c CROSS JOIN (SELECT crm.default_currency() AS currency OFFSET 0) AS z
	         WHERE c.kind = 'purchase'
	         GROUP BY c.store_id
	        UNION ALL
	        SELECT g.redeemed_store_id, 0, 0, 0, 0, 0, 0, pg_catalog.count(*)
	          FROM crm.coupon_grant AS g
	         WHERE g.redeemed_at >= (SELECT crm.day_begins(period_start))
	           AND g.redeemed_at < (SELECT crm.day_begins(period_end))
	         GROUP BY g.redeemed_store_id) AS n
	  LEFT JOIN crm.store AS s ON s.store_id = n.store_id
	 WHERE crm.check_days(period_start, period_end)
	 GROUP BY n.store_id, s.name
	 ORDER BY n.store_id
$$;
COMMENT ON FUNCTION crm.store_report(date, date) IS 'For each shop scans of its codes, contacts won, orders, net revenue and coupons redeemed on the days from the first to before the last; a row without shop for orders that name none.';
REVOKE ALL ON FUNCTION crm.store_report(date, date) FROM PUBLIC;

CREATE FUNCTION crm.associate_report(period_start date, period_end date)
RETURNS TABLE (associate_id bigint, userid text, store_id bigint, scans bigint, won bigint, buyers bigint, revenue numeric)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 100 AS $$
	SELECT p.associate_id, p.userid, p.store_id, COALESCE(f.scans, 0)::bigint, COALESCE(w.won, 0), COALESCE(w.buyers, 0),
	       COALESCE(w.revenue, 0)
	  FROM crm.associate AS p
	  LEFT JOIN (SELECT q.associate_id, pg_catalog.sum(c.facts) AS scans
	               FROM crm.fact_period(period_start, period_end) AS c
	               JOIN crm.qr_code AS q ON q.qr_code_id = c.qr_code_id
	              WHERE c.kind = 'scan' AND NOT c.event AND q.associate_id IS NOT NULL
	              GROUP BY q.associate_id) AS f ON f.associate_id = p.associate_id
	  LEFT JOIN (SELECT a.associate_id, pg_catalog.sum(a.won)::bigint AS won, pg_catalog.sum(a.buyers)::bigint AS buyers,
	                    pg_catalog.sum(a.revenue) AS revenue
	               FROM crm.won_period(period_start, period_end) AS a
	              WHERE a.associate_id IS NOT NULL
	              GROUP BY a.associate_id) AS w ON w.associate_id = p.associate_id
	 WHERE crm.check_days(period_start, period_end)
	 ORDER BY p.associate_id
$$;
COMMENT ON FUNCTION crm.associate_report(date, date) IS 'For each associate scans of their codes on the days from the first to before the last, and the contacts won by them in these days with what they have bought to date.';
REVOKE ALL ON FUNCTION crm.associate_report(date, date) FROM PUBLIC;

CREATE FUNCTION crm.coupon_report(period_start date, period_end date)
RETURNS TABLE (coupon text, granted bigint, redeemed bigint, expired bigint, pending bigint, duplicates bigint,
	redemptions bigint, median_seconds double precision)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 20 AS $$
	SELECT c.name, pg_catalog.count(*) FILTER (WHERE g.issued),
	       pg_catalog.count(*) FILTER (WHERE g.issued AND g.duplicate_of IS NULL AND g.redeemed_at IS NOT NULL),
	       pg_catalog.count(*) FILTER (WHERE g.issued AND g.duplicate_of IS NULL AND g.redeemed_at IS NULL AND g.expires_at <= crm.now()),
	       pg_catalog.count(*) FILTER (WHERE g.issued AND g.duplicate_of IS NULL AND g.redeemed_at IS NULL AND (g.expires_at <= crm.now()) IS NOT TRUE),
	       pg_catalog.count(*) FILTER (WHERE g.issued AND g.duplicate_of IS NOT NULL),
	       pg_catalog.count(*) FILTER (WHERE g.used),
	       pg_catalog.percentile_cont(0.5) WITHIN GROUP (ORDER BY pg_catalog.date_part('epoch', g.redeemed_at - g.issued_at))
	         FILTER (WHERE g.issued)
	  FROM crm.coupon AS c
	  LEFT JOIN (SELECT t.coupon, t.duplicate_of, t.redeemed_at, t.expires_at, t.issued_at,
	                    t.issued_at >= z.first AND t.issued_at < z.until AS issued,
	                    COALESCE(t.redeemed_at >= z.first AND t.redeemed_at < z.until, false) AS used
	               FROM crm.coupon_grant AS t
	              CROSS JOIN (SELECT crm.day_begins(period_start) AS first,
	                                 crm.day_begins(period_end) AS until) AS z) AS g
	       ON g.coupon = c.name AND (g.issued OR g.used)
	 WHERE crm.check_days(period_start, period_end)
	 GROUP BY c.name
	 ORDER BY c.name
$$;
COMMENT ON FUNCTION crm.coupon_report(date, date) IS 'For each coupon how many were granted on the days from the first to before the last, what has become of these to date, and how many were redeemed on these days.';
REVOKE ALL ON FUNCTION crm.coupon_report(date, date) FROM PUBLIC;

CREATE FUNCTION crm.loyalty_report(period_start date, period_end date)
RETURNS TABLE (program text, joined bigint, ended bigint, members bigint, earned bigint, spent bigint, reversed bigint,
	balance bigint, tier_changes bigint)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 5 AS $$
	SELECT p.name, COALESCE(m.joined, 0), COALESCE(m.ended, 0), COALESCE(m.members, 0), COALESCE(e.earned, 0)::bigint,
	       COALESCE(e.spent, 0)::bigint, COALESCE(e.reversed, 0)::bigint, COALESCE(b.balance, 0)::bigint, COALESCE(t.changes, 0)
	  FROM crm.loyalty_program AS p
	 CROSS JOIN (SELECT crm.day_begins(period_start) AS first,
	                    crm.day_begins(period_end) AS until) AS z
	  LEFT JOIN LATERAL (SELECT pg_catalog.count(*) FILTER (WHERE n.joined_at >= z.first AND n.joined_at < z.until) AS joined,
	                    pg_catalog.count(*) FILTER (WHERE n.left_at >= z.first AND n.left_at < z.until) AS ended,
	                    pg_catalog.count(*) FILTER (WHERE n.joined_at < z.until AND (n.left_at < z.until) IS NOT TRUE) AS members
	               FROM crm.membership AS n WHERE n.loyalty_program_id = p.loyalty_program_id) AS m ON true
	  LEFT JOIN LATERAL (SELECT pg_catalog.sum(n.points) FILTER (WHERE n.kind = 'earned') AS earned,
	                    -pg_catalog.sum(n.points) FILTER (WHERE n.kind = 'spent') AS spent,
	                    -pg_catalog.sum(n.points) FILTER (WHERE n.kind = 'reversed') AS reversed
	               FROM crm.point_entry AS n
	              WHERE n.loyalty_program_id = p.loyalty_program_id AND n.occurred_at >= z.first AND n.occurred_at < z.until) AS e ON true
	  LEFT JOIN LATERAL (SELECT pg_catalog.sum(n.points) AS balance FROM crm.point_balance AS n
	              WHERE n.loyalty_program_id = p.loyalty_program_id) AS b ON true
	  LEFT JOIN LATERAL (SELECT pg_catalog.count(*) AS changes FROM crm.tier_change AS n
	              WHERE n.loyalty_program_id = p.loyalty_program_id AND n.occurred_at >= z.first AND n.occurred_at < z.until) AS t ON true
	 WHERE crm.check_days(period_start, period_end)
	 ORDER BY p.name
$$;
COMMENT ON FUNCTION crm.loyalty_report(date, date) IS 'For each loyalty programme who joined and left on the days from the first to before the last, members at their end, points earned, spent and reversed, the balance of today, and changes of tiers.';
REVOKE ALL ON FUNCTION crm.loyalty_report(date, date) FROM PUBLIC;

CREATE FUNCTION crm.award_report(period_start date, period_end date)
RETURNS TABLE (achievement text, threshold numeric, awarded bigint, revoked bigint)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 50 AS $$
	SELECT a.achievement, a.threshold, pg_catalog.count(*) FILTER (WHERE a.revoked_at IS NULL),
	       pg_catalog.count(a.revoked_at)
	  FROM crm.award AS a
	 WHERE a.awarded_at >= (SELECT crm.day_begins(period_start))
	   AND a.awarded_at < (SELECT crm.day_begins(period_end))
	 GROUP BY a.achievement, a.threshold
	-- apart, so that it is asked also where no row can be in the period
	UNION ALL
	SELECT NULL, NULL, NULL, NULL WHERE NOT crm.check_days(period_start, period_end)
	 ORDER BY 1, 2
$$;
COMMENT ON FUNCTION crm.award_report(date, date) IS 'For each achievement and threshold how many were awarded on the days from the first to before the last, and how many of these have been revoked since.';
REVOKE ALL ON FUNCTION crm.award_report(date, date) FROM PUBLIC;

CREATE FUNCTION crm.step_report(period_start date, period_end date, journey text DEFAULT NULL)
RETURNS TABLE (journey text, version integer, step text, entered bigint, here bigint, left_on bigint, ended bigint, drop_off numeric)
LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 50 AS $$
	SELECT c.journey, c.version, c.step, pg_catalog.sum(c.visits)::bigint,
	       COALESCE(pg_catalog.sum(c.visits) FILTER (WHERE c.state = 'here'), 0)::bigint,
	       COALESCE(pg_catalog.sum(c.visits) FILTER (WHERE c.state = 'left'), 0)::bigint,
	       COALESCE(pg_catalog.sum(c.visits) FILTER (WHERE c.state = 'ended'), 0)::bigint,
	       pg_catalog.round(COALESCE(pg_catalog.sum(c.visits) FILTER (WHERE c.state = 'ended'), 0)
	                        / NULLIF(pg_catalog.sum(c.visits) FILTER (WHERE c.state <> 'here'), 0), 4)
	  FROM crm.visit_count AS c
	 WHERE c.day >= period_start AND c.day < period_end AND (step_report.journey IS NULL OR c.journey = step_report.journey)
	 GROUP BY c.journey, c.version, c.step
	UNION ALL
	SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL WHERE NOT (crm.check_days(period_start, period_end) AND crm.check_journey(step_report.journey))
	 ORDER BY 1, 2, 3
$$;
COMMENT ON FUNCTION crm.step_report(date, date, text) IS 'For each step of journeys, or of one, the visits that began on the days from the first to before the last, by what has become of them to date.';
REVOKE ALL ON FUNCTION crm.step_report(date, date, text) FROM PUBLIC;
