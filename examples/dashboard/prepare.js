// Before a build: forgets the answers of the last one, and lets Framework build without a network. Its client can load packages
// from a CDN when a page asks for them, and the build looks up their newest versions. No page here does; a folder in the cache
// with a name and a version answers the question.
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const cache = "src/.observablehq/cache";
rmSync(`${cache}/data`, { recursive: true, force: true });
const client = join(dirname(createRequire(import.meta.url).resolve("@observablehq/framework/package.json")), "dist/client");
for (const folder of [client, join(client, "stdlib")]) {
    for (const file of readdirSync(folder).filter((name) => name.endsWith(".js"))) {
        for (const [, name] of readFileSync(join(folder, file), "utf8").matchAll(/\bnpm:((?:@[\w.-]+\/)?[\w.-]+)/g)) {
            mkdirSync(`${cache}/_npm/${name}@0.0.0`, { recursive: true });
        }
    }
}
