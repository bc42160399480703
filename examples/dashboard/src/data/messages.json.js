import { answer } from "./database.js";

await answer({
    campaigns: `
        SELECT r.*, COALESCE(c.label, r.campaign) AS name, pg_catalog.to_char(COALESCE(r.scheduled_at, r.sent_at) AT TIME ZONE crm.default_time_zone(), 'YYYY-MM-DD HH24:MI') AS at
          FROM crm.campaign_report AS r JOIN crm.campaign AS c ON c.name = r.campaign
         WHERE COALESCE(r.scheduled_at, r.sent_at) >= :since AND COALESCE(r.scheduled_at, r.sent_at) < :before ORDER BY at DESC, name LIMIT 50`,
    messages: `SELECT day, series, value, complete FROM crm.trend('messages', :since, :before) ORDER BY series, day`,
    templates: `
        SELECT COALESCE(t.label, m.template) AS template, m.class, pg_catalog.count(*) AS messages,
               pg_catalog.count(*) FILTER (WHERE m.state = 'sent') AS sent,
               pg_catalog.count(*) FILTER (WHERE m.state IN ('queued', 'sending', 'waiting')) AS under_way,
               pg_catalog.count(*) FILTER (WHERE m.state IN ('failed', 'refused', 'expired', 'cancelled', 'unknown')) AS not_sent
          FROM crm.message AS m LEFT JOIN crm.template AS t ON t.name = m.template
         WHERE m.due_at >= :since AND m.due_at < :before GROUP BY 1, 2 ORDER BY 3 DESC, 1 LIMIT 50`,
    reasons: `
        SELECT state, COALESCE(reason, 'no reason given') AS reason, pg_catalog.count(*) AS messages FROM crm.message
         WHERE due_at >= :since AND due_at < :before AND state IN ('failed', 'refused', 'expired', 'cancelled', 'unknown')
         GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 20`,
    coupons: `
        SELECT r.*, COALESCE(c.label, r.coupon) AS name FROM crm.coupon_report(:first, :until) AS r LEFT JOIN crm.coupon AS c ON c.name = r.coupon
         WHERE r.granted > 0 OR r.redemptions > 0 ORDER BY r.granted DESC, r.coupon LIMIT 50`,
    programs: `
        SELECT r.*, COALESCE(p.label, r.program) AS name FROM crm.loyalty_report(:first, :until) AS r LEFT JOIN crm.loyalty_program AS p ON p.name = r.program
         ORDER BY r.members DESC, r.program`,
});
