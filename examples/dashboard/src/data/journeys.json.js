import { answer } from "./database.js";

await answer({
    journeys: `SELECT * FROM crm.journey_summary ORDER BY started DESC, journey`,
    entries: `SELECT day, series, value, complete FROM crm.trend('journeys', :since, :before) ORDER BY series, day`,
    steps: `
        SELECT r.*, COALESCE(j.label, r.step) AS name, j.kind, j.median_seconds, j.messages, j.sent
          FROM crm.step_report(:first, :until) AS r LEFT JOIN crm.journey_step AS j USING (journey, version, step)
         ORDER BY r.journey, r.version, r.entered DESC, r.step`,
    pictures: `SELECT journey, crm.journey_funnel_svg(journey, :since, :before) AS svg FROM crm.journey_summary ORDER BY started DESC, journey`,
});
