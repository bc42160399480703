// The npm package co-wechat-api, a client of WeChat's API, told what to call line by line.
//
// Arguments: the server's address, appid, secret. Standard input: a line ["method", argument, …] for each
// call; a method "POST path" or "GET path" is what the package itself has no method for. Standard output:
// a line for each, {"result": …} or {"code": …, "message": …}.
'use strict';

const API = require('co-wechat-api');
const [, , server, appid, secret] = process.argv;
const api = new API(appid, secret);
api.prefix = server + '/cgi-bin/';
api.setOpts({ timeout: 20000 });

async function call(method, ...args) {
    const [verb, path] = method.split(' ');
    if (path === undefined) return api[method](...args);
    const { accessToken } = await api.ensureAccessToken();
    const body = args.length ? { data: JSON.stringify(args[0]), headers: { 'Content-Type': 'application/json' } } : {};
    return api.request(api.prefix + path + '?access_token=' + accessToken, { method: verb, ...body });
}

(async () => {
    for await (const line of require('readline').createInterface({ input: process.stdin })) {
        let said;
        try {
            said = { result: await call(...JSON.parse(line)) };
        } catch (error) {
            said = { code: error.code, name: error.name, message: error.message };
        }
        process.stdout.write(JSON.stringify(said) + '\n');
    }
    process.exit(0);
})();
