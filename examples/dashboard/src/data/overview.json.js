import { answer, busiest, funnelSteps } from "./database.js";

await answer({
    contacts: `SELECT pg_catalog.sum(contacts) AS contacts FROM crm.lifecycle_funnel`,
    lifecycle: `
        SELECT stage, COALESCE(label, stage) AS name, f.rank, contacts
          FROM crm.lifecycle_funnel AS f LEFT JOIN crm.stage AS s USING (stage) ORDER BY f.rank, stage`,
    // of the period, and of as long a time before it, where all of that is known
    figures: ["contacts", "facts", "amounts"].map((measure) => `
        SELECT '${measure}' AS measure, series, pg_catalog.sum(value) FILTER (WHERE day >= :first) AS value,
               CASE WHEN pg_catalog.bool_and(value IS NOT NULL) FILTER (WHERE day < :first)
                    THEN pg_catalog.sum(value) FILTER (WHERE day < :first) END AS before
          FROM crm.trend('${measure}', :earlier, :before, bucket => 'day') GROUP BY series`).join(" UNION ALL "),
    stages: `
        SELECT day, series, COALESCE(s.label, series) AS name, value FROM crm.trend('stages', :since, :before) AS t
          LEFT JOIN crm.stage AS s ON s.stage = t.series ORDER BY s.rank, series, day`,
    // the busiest kinds; changes of fields are no facts of a customer's
    facts: busiest(`SELECT * FROM crm.trend('facts', :since, :before) WHERE series <> 'field_change'`, 24),
    sales: `SELECT day, series, value, complete FROM crm.trend('amounts', :since, :before) ORDER BY series, day`,
    funnel: `SELECT f.* FROM (${funnelSteps}) AS s, crm.fact_funnel(s.steps, '30 days', :since, :before) AS f WHERE s.steps IS NOT NULL ORDER BY f.step`,
    awards: `
        SELECT COALESCE(a.label, r.achievement) AS name, CASE WHEN pg_catalog.cardinality(a.thresholds) > 1 THEN r.threshold END AS threshold, r.awarded, r.revoked
          FROM crm.award_report(:first, :until) AS r LEFT JOIN crm.achievement AS a ON a.name = r.achievement
         WHERE r.awarded > 0 OR r.revoked > 0 ORDER BY r.awarded DESC, name, r.threshold LIMIT 50`,
});
