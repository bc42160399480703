import { answer, funnelSteps } from "./database.js";

// "among" is how many rows there are; a table shows the first of them
const first = (rows, order) => `SELECT r.*, pg_catalog.count(*) OVER () AS among FROM (${rows}) AS r ORDER BY ${order} LIMIT 50`;

await answer({
    stores: first("SELECT * FROM crm.store_report(:first, :until)", "revenue DESC, won DESC, store_id"),
    associates: first(`
        SELECT a.*, s.name AS store FROM crm.associate_report(:first, :until) AS a LEFT JOIN crm.store AS s USING (store_id)`,
        "won DESC, revenue DESC, associate_id"),
    codes: first(`
        SELECT c.*, s.name AS store, COALESCE(n.counted, 0) AS counted
          FROM crm.scan_report(:first, :until) AS c LEFT JOIN crm.store AS s USING (store_id)
          LEFT JOIN (SELECT qr_code_id, pg_catalog.sum(counted) AS counted FROM crm.scan_count
                      WHERE day >= :first AND day < :until GROUP BY qr_code_id) AS n USING (qr_code_id)`, "scans DESC, qr_code_id"),
    campaigns: first(`
        SELECT campaign, pg_catalog.sum(scans) AS scans, pg_catalog.sum(won) AS won FROM crm.scan_report(:first, :until)
         WHERE campaign IS NOT NULL GROUP BY campaign`, "won DESC, campaign"),
    scans: `SELECT day, series, value, complete FROM crm.trend('scans', :since, :before) ORDER BY series, day`,
    funnel: `
        SELECT f.part, st.name AS store, f.step, f.name, f.reached
          FROM (${funnelSteps}) AS s CROSS JOIN crm.fact_funnel(s.steps, '30 days', :since, :before, split_by => 'store') AS f
          LEFT JOIN crm.store AS st ON st.store_id::text = f.part WHERE s.steps IS NOT NULL
         ORDER BY pg_catalog.max(f.reached) OVER (PARTITION BY f.part) DESC, f.part, f.step LIMIT 400`,
});
