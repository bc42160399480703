import { answer, busiest } from "./database.js";

await answer({
    journeys: `SELECT * FROM crm.journey_summary ORDER BY started DESC, journey LIMIT 50`,
    entries: busiest("SELECT * FROM crm.trend('journeys', :since, :before)", 8),
    steps: `
        SELECT r.*, COALESCE(j.label, r.step) AS name, j.kind, j.median_seconds, j.messages, j.sent
          FROM crm.step_report(:first, :until) AS r LEFT JOIN crm.journey_step AS j USING (journey, version, step)
         ORDER BY r.journey, r.version, r.entered DESC, r.step LIMIT 200`,
    // of the journeys that most have entered
    pictures: `
        SELECT journey, crm.journey_funnel_svg(journey, :since, :before) AS svg
          FROM (SELECT journey, started FROM crm.journey_summary WHERE last_entered_at >= :since ORDER BY started DESC, journey LIMIT 12) AS j
         ORDER BY started DESC, journey`,
});
