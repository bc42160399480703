// What the loaders ask. The database is the one of PGHOST, PGPORT, PGDATABASE, PGUSER and PGPASSWORD.
import { readFileSync } from "node:fs";
import pg from "pg";

// counts and sums as numbers, days as they are written
for (const type of [20, 1700]) pg.types.setTypeParser(type, Number);
pg.types.setTypeParser(1082, String);

// The period: PG_CRM_FROM until before PG_CRM_UNTIL, else the 91 days that end today, in the zone pg_crm.time_zone.
const periodOf = `
    SELECT first::text, until::text, (until - 1)::text AS last, zone, crm.default_currency() AS currency,
           pg_catalog.to_char(crm.now() AT TIME ZONE zone, 'YYYY-MM-DD HH24:MI') AS made
      FROM (SELECT zone, until, COALESCE($1::date, until - 91) AS first
              FROM (SELECT zone, COALESCE($2::date, (crm.now() AT TIME ZONE zone)::date + 1) AS until
                      FROM (SELECT crm.default_time_zone() AS zone) AS z) AS u) AS p
     WHERE crm.check_days(first, until)`;

// Prints the answers to all queries as one JSON object, out of one snapshot. In a query :first and :until are dates, :since and
// :before the moments at which they begin, :earlier the moment that lies as long before :since.
export async function answer(queries) {
    const client = new pg.Client();
    await client.connect();
    await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    const { rows: [period] } = await client.query(periodOf, [process.env.PG_CRM_FROM || null, process.env.PG_CRM_UNTIL || null]);
    const moment = (day) => `((${day})::timestamp AT TIME ZONE crm.default_time_zone())`;
    const first = `date '${period.first}'`;
    const until = `date '${period.until}'`;
    const words = { first, until, since: moment(first), before: moment(until), earlier: moment(`${first} - (${until} - ${first})`) };
    const said = { period };
    for (const [name, query] of Object.entries(queries)) {
        const text = query.replace(/(?<!:):(first|until|since|before|earlier)\b/g, (_, word) => words[word]);
        said[name] = (await client.query(text)).rows;
    }
    await client.end();
    process.stdout.write(JSON.stringify(said));
}

// the series that have most, of a trend
export const busiest = (trend, most) => `
    SELECT day, series, value, complete
      FROM (SELECT t.*, pg_catalog.dense_rank() OVER (ORDER BY total DESC NULLS LAST, series) AS place
              FROM (SELECT t.*, pg_catalog.sum(value) OVER (PARTITION BY series) AS total FROM (${trend}) AS t) AS t) AS t
     WHERE place <= ${most} ORDER BY place, day`;

// the steps of the funnel, of which there are facts
export const funnelSteps = `
    SELECT pg_catalog.jsonb_agg(step.value ORDER BY step.ordinality) AS steps
      FROM pg_catalog.jsonb_array_elements($steps$${readFileSync(new URL("../../funnel.json", import.meta.url))}$steps$::jsonb) WITH ORDINALITY AS step
     WHERE step.value ->> 'on' IN (SELECT kind FROM crm.fact_count)`;
