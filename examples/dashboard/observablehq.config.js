// Everything comes from this folder, node_modules and the database: no fonts, scripts or styles from elsewhere.
export default {
    root: "src",
    title: process.env.PG_CRM_TITLE || "CRM",
    pages: [
        { name: "Overview", path: "/index" },
        { name: "Shops and codes", path: "/shops" },
        { name: "Messages and coupons", path: "/messages" },
        { name: "Journeys", path: "/journeys" },
    ],
    style: "style.css",
    head: '<link rel="icon" href="data:,">',
    globalStylesheets: [],
    footer: "",
    pager: false,
    toc: false,
    search: false,
    preserveExtension: true,
    preserveIndex: true,
};
