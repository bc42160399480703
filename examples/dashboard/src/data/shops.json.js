import { answer, funnelSteps } from "./database.js";

await answer({
    stores: `SELECT * FROM crm.store_report(:first, :until) ORDER BY revenue DESC, store_id`,
    associates: `
        SELECT a.*, s.name AS store FROM crm.associate_report(:first, :until) AS a LEFT JOIN crm.store AS s USING (store_id)
         ORDER BY a.won DESC, a.revenue DESC, a.associate_id`,
    codes: `
        SELECT c.*, s.name AS store, (SELECT COALESCE(pg_catalog.sum(n.counted), 0) FROM crm.scan_count AS n
                WHERE n.qr_code_id = c.qr_code_id AND n.day >= :first AND n.day < :until) AS counted
          FROM crm.scan_report(:first, :until) AS c LEFT JOIN crm.store AS s USING (store_id) ORDER BY c.scans DESC, c.qr_code_id`,
    campaigns: `
        SELECT campaign, pg_catalog.sum(scans) AS scans, pg_catalog.sum(won) AS won FROM crm.scan_report(:first, :until)
         WHERE campaign IS NOT NULL GROUP BY campaign ORDER BY won DESC, campaign`,
    scans: `SELECT day, series, value, complete FROM crm.trend('scans', :since, :before) ORDER BY series, day`,
    funnel: `
        SELECT f.part, st.name AS store, f.step, f.name, f.reached
          FROM (${funnelSteps}) AS s CROSS JOIN crm.fact_funnel(s.steps, '30 days', :since, :before, split_by => 'store') AS f
          LEFT JOIN crm.store AS st ON st.store_id::text = f.part WHERE s.steps IS NOT NULL ORDER BY f.part, f.step`,
});
