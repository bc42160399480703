// Parts of a page that are no charts. Texts come from the database and are put in as texts, never as HTML.

export const number = (value) => (value == null ? "–" : Number(value).toLocaleString("en-US", { maximumFractionDigits: 0 }));
export const share = (part, whole) => (whole > 0 ? `${((100 * part) / whole).toFixed(1)} %` : "–");

export function duration(seconds) {
    if (seconds == null) return "–";
    for (const [unit, length] of [["days", 86400], ["hours", 3600], ["min", 60]]) {
        if (seconds >= 1.5 * length) return `${(seconds / length).toFixed(seconds < 10 * length ? 1 : 0)} ${unit}`;
    }
    return `${Math.round(seconds)} s`;
}

// facts that pg_crm knows by themselves; kinds of a brand's own keep their names
const kinds = {
    follow: "Follows", unfollow: "Unfollows", scan: "Scans", purchase: "Orders", refund: "Refunds", bind_mobile: "Mobiles left",
    join_loyalty: "Joined a programme", leave_loyalty: "Left a programme", issue_coupon: "Coupons issued", redeem_coupon: "Coupons redeemed",
};
export const kind = (name) => kinds[name] ?? name;
export const amount = (series) => series.replace(/^purchase /, "Sales, ").replace(/^refund /, "Refunded, ");

export function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children.filter((child) => child != null));
    return made;
}

export const nothing = (attributes = {}) => element("p", { class: "remark", ...attributes }, "There is nothing in this period.");

export function about({ period }, rest = "") {
    return element("p", { class: "period" }, `${period.first} to ${period.last}, ${period.zone}. Made ${period.made}.${rest}`);
}

// what was before, and how much more or less it is now
const change = (value, before) => `before: ${number(before)}${before > 0 && value != null ? ` (${value < before ? "−" : "+"}${Math.abs((100 * value) / before - 100).toFixed(0)} %)` : ""}`;

export function figure(key, name, value, before) {
    return element("div", { class: "card" }, element("div", { class: "figure-name" }, name),
        element("div", { class: "figure-value", "data-figure": key }, number(value)),
        element("div", { class: "remark" }, before === undefined ? "now" : change(value, before)));
}

export function card(title, note, ...content) {
    return element("section", { class: "card", "aria-label": title }, element("h2", {}, title), note ? element("div", { class: "remark" }, note) : null, ...content);
}

// columns: [title, value of a row, "number" where it is one]
export function table(key, rows, columns) {
    if (rows.length === 0) return nothing({ "data-report": key });
    const cell = (name, kind, text) => element(name, kind ? { class: kind } : {}, text == null ? "" : String(text));
    const among = rows[0].among ?? rows.length;
    const rest = among > rows.length ? element("p", { class: "remark" }, `The first ${number(rows.length)} of ${number(among)}.`) : null;
    return element("div", { class: "scrolls" }, element("table", { class: "report", "data-report": key },
        element("thead", {}, element("tr", {}, ...columns.map(([title, , kind]) => cell("th", kind, title)))),
        element("tbody", {}, ...rows.map((row) => element("tr", {}, ...columns.map(([, value, kind]) => {
            const found = typeof value === "function" ? value(row) : row[value];
            return cell("td", kind, kind === "number" && typeof found !== "string" ? number(found) : found);
        }))))), rest);
}

// a picture that the database drew, every text in it escaped
export function picture(svg) {
    const made = element("div", { class: "picture" });
    made.innerHTML = svg;
    return made;
}
