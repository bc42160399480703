// What test/peers/dashboard.pl asks a page, once all of it is drawn: what lies on something else, is cut off, or says that it
// failed. The answer is put in the page.
'use strict';

const waiting = setInterval(() => {
    if (document.querySelector('observablehq-loading') || !document.querySelector('[data-report]')) return;
    clearInterval(waiting);
    setTimeout(() => {
        const said = [];
        const seen = (node) => node.getBoundingClientRect();
        for (const error of document.querySelectorAll('.observablehq--error')) said.push('failed: ' + error.textContent);
        for (const svg of document.querySelectorAll('#observablehq-main svg')) {
            const page = seen(svg);
            const texts = [...svg.querySelectorAll('text')].filter((t) => t.textContent.trim() && seen(t).width > 0);
            for (const text of texts) {
                const box = seen(text);
                if (box.left < page.left - 1 || box.right > page.right + 1 || box.top < page.top - 1 || box.bottom > page.bottom + 1) said.push('outside: ' + text.textContent);
            }
            texts.forEach((one, i) => texts.slice(i + 1).forEach((other) => {
                const [a, b] = [seen(one), seen(other)];
                // the box of a line has room above and below its letters
                if (a.left + 1 < b.right && b.left + 1 < a.right && a.top + 4 < b.bottom - 4 && b.top + 4 < a.bottom - 4) said.push(one.textContent + ' and ' + other.textContent);
            }));
        }
        for (const box of document.querySelectorAll('.scrolls, .figure-name, .figure-value, #observablehq-main'))
            if (box.scrollWidth > box.clientWidth + 1) said.push('cut off: ' + box.textContent.slice(0, 60));
        document.body.dataset.said = JSON.stringify({ said, charts: document.querySelectorAll('#observablehq-main svg').length });
    }, 500);
}, 100);
