import * as Plot from "@observablehq/plot";
import { nothing, number } from "./page.js";

// of middle lightness, for light and dark screens
const colours = ["#8d99a6", "#5fa8d3", "#4585c7", "#6a6fd0", "#9a63c4", "#3a9d6e", "#dd9a2b", "#c76b5a", "#5b8a8a", "#b08968"];
const blue = colours[2];
const day = (row) => new Date(row.day);

// as wide as the longest name is; a Chinese character takes twice the room
const room = (names) => 20 + 7.5 * Math.min(30, Math.max(8, ...names.map((name) => [...name].reduce((sum, c) => sum + (c > "\u2e7f" ? 2 : 1), 0))));
const missing = "no name";
const style = { fontSize: "12px" };
const short = (value) => (Math.abs(value) < 1000 ? String(value) : value.toLocaleString("en-US", { notation: "compact" }));

// from 0, also where all is 0
const scale = (values) => ({ axis: null, domain: [0, Math.max(1, ...values)] });

// a bar for each row
export function bars(rows, { name, value, width }) {
    if (rows.length === 0) return nothing();
    const names = rows.map((row) => row[name] ?? missing);
    return Plot.plot({
        style, width, height: 34 + 34 * rows.length, marginLeft: room(names), marginRight: 72,
        x: scale(rows.map((row) => row[value])), y: { label: null, domain: names, tickSize: 0 },
        marks: [
            Plot.barX(rows, { x: value, y: (row) => row[name] ?? missing, fill: blue }),
            Plot.text(rows, { x: value, y: (row) => row[name] ?? missing, text: (row) => number(row[value]), textAnchor: "start", dx: 6 }),
            Plot.ruleX([0]),
        ],
    });
}

// a bar for each step of a funnel: those who went on, may go on yet, and went no further
export function funnel(rows, { width }) {
    if (rows.length === 0) return nothing();
    const states = [["converted", "went on", colours[2]], ["still_open", "may go on yet", colours[1]], ["dropped", "went no further", "#8d99a6"]];
    const last = Math.max(...rows.map((row) => row.step));
    const parts = rows.flatMap((row) => states.map(([key, state]) => ({ name: row.name, state: row.step === last && key === "converted" ? "came to the end" : state, value: row[key] })));
    const domain = [...states.map(([, state]) => state), "came to the end"];
    return Plot.plot({
        style, width, height: 84 + 40 * rows.length, marginLeft: room(rows.map((row) => row.name)), marginRight: 120,
        x: scale(rows.map((row) => row.reached)), y: { label: null, domain: rows.map((row) => row.name), tickSize: 0 },
        color: { legend: true, domain, range: [...states.map(([, , colour]) => colour), colours[5]] },
        marks: [
            Plot.barX(parts, { x: "value", y: "name", fill: "state", order: domain }),
            Plot.text(rows, {
                x: "reached", y: "name", textAnchor: "start", dx: 6,
                text: (row) => number(row.reached) + (rows[0].reached > 0 ? ` · ${((100 * row.reached) / rows[0].reached).toFixed(1)} %` : ""),
            }),
            Plot.ruleX([0]),
        ],
    });
}

// contacts in each stage, one on the other
export function stages(rows, { width }) {
    const known = rows.filter((row) => row.value != null);
    if (known.every((row) => row.value === 0)) return nothing();
    const used = new Set(known.filter((row) => row.value > 0).map((row) => row.name));
    const domain = [...new Set(rows.map((row) => row.name))].filter((name) => used.has(name));
    return Plot.plot({
        style, width, height: 300, marginLeft: 50, marginBottom: 40,
        x: { type: "utc", label: null }, y: { label: null, grid: true, tickFormat: short, nice: true },
        color: { legend: true, domain, range: colours },
        marks: [
            Plot.areaY(known.filter((row) => used.has(row.name)), { x: day, y: "value", fill: "name", order: domain, tip: true, title: (row) => `${row.day}\n${row.name}: ${number(row.value)}` }),
            Plot.ruleY([0]),
        ],
    });
}

// one series by day; days that are not over are dashed
export function trend(rows, { width, height = 130 }) {
    const known = rows.filter((row) => row.value != null);
    if (known.length === 0) return nothing();
    const over = known.filter((row) => row.complete);
    const open = known.slice(Math.max(0, over.length - 1));
    // the first day, the last, and some between, as many as there is room for
    const parts = Math.max(1, Math.min(known.length - 1, Math.floor(width / 110)));
    const ticks = Array.from({ length: parts + 1 }, (_, i) => day(known[Math.round((i * (known.length - 1)) / parts)]));
    return Plot.plot({
        style, width, height, marginLeft: 46, marginRight: 24, marginTop: 12, marginBottom: 30,
        x: { type: "utc", label: null, ticks, tickFormat: (d) => d.toISOString().slice(5, 10) }, y: { label: null, grid: true, ticks: 3, tickFormat: short, zero: true },
        marks: [
            Plot.areaY(over, { x: day, y: "value", fill: blue, fillOpacity: 0.15 }),
            Plot.lineY(over, { x: day, y: "value", stroke: blue }),
            Plot.lineY(open, { x: day, y: "value", stroke: blue, strokeDasharray: "3,3" }),
            Plot.ruleY([0]),
            Plot.tip(known, Plot.pointerX({ x: day, y: "value", title: (row) => `${row.day}: ${number(row.value)}` })),
        ],
    });
}

// several series over one scale
export function lines(rows, { width, height = 240 }) {
    const known = rows.filter((row) => row.value != null);
    if (known.length === 0) return nothing();
    const sums = new Map();
    for (const row of known) sums.set(row.series, (sums.get(row.series) ?? 0) + row.value);
    return Plot.plot({
        style, width, height, marginLeft: 46, marginBottom: 40,
        x: { type: "utc", label: null }, y: { label: null, grid: true, tickFormat: short, zero: true },
        color: { legend: true, domain: [...sums.keys()].sort((a, b) => sums.get(b) - sums.get(a)), range: [colours[2], colours[5], colours[7], colours[6], colours[4], colours[0], ...colours] },
        marks: [
            Plot.lineY(known, { x: day, y: "value", stroke: "series" }),
            Plot.ruleY([0]),
            Plot.tip(known, Plot.pointer({ x: day, y: "value", title: (row) => `${row.day}\n${row.series}: ${number(row.value)}` })),
        ],
    });
}
