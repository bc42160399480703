// What the npm package opening_hours says of timetables, in the time zone of the environment's TZ.
//
// Standard input: a line "text TAB seconds,seconds,…" for each timetable. Standard output: a line for
// each second, "open TAB next change": 0 or 1, and seconds, "never", or "error: …".
'use strict';

const opening_hours = require('opening_hours');
// a week has every change; the next one has it if a clock skips it in this one
const horizon = 16 * 86400 * 1000;
const lines = require('fs').readFileSync(0, 'utf8').split('\n');
const out = [];

for (const line of lines) {
    if (line === '') continue;
    const [text, seconds] = line.split('\t');
    const timetable = new opening_hours(text, null);
    for (const second of seconds.split(',')) {
        const instant = new Date(second * 1000);
        let next;
        try {
            const change = timetable.getNextChange(instant, new Date(instant.getTime() + horizon));
            next = change === undefined ? 'never' : String(change.getTime() / 1000);
        } catch (error) {
            next = 'error: ' + error;
        }
        out.push((timetable.getState(instant) ? 1 : 0) + '\t' + next);
    }
}
process.stdout.write(out.join('\n') + '\n');
