// A web server of one folder on 127.0.0.1. Arguments: the folder, a file for the port, a file for a line "status TAB path" of each
// request, a script that is added to pages which are asked for with ?look.
'use strict';

const fs = require('fs');
const http = require('http');
const path = require('path');
const [, , folder, portFile, log, script] = process.argv;
const types = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.json': 'application/json', '.svg': 'image/svg+xml' };

const server = http.createServer((request, response) => {
    const asked = decodeURIComponent(new URL(request.url, 'http://127.0.0.1').pathname);
    const file = path.join(folder, path.normalize(asked.endsWith('/') ? asked + 'index.html' : asked));
    fs.readFile(file, (error, content) => {
        const status = error ? 404 : 200;
        fs.appendFileSync(log, `${status}\t${request.url}\n`);
        if (!error && request.url.endsWith('?look')) content = `${content}<script>${fs.readFileSync(script)}</script>`;
        response.writeHead(status, { 'Content-Type': types[path.extname(file)] || 'application/octet-stream' });
        response.end(error ? '' : content);
    });
});
server.listen(0, '127.0.0.1', () => fs.writeFileSync(portFile, String(server.address().port)));
