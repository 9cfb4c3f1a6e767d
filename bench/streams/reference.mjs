// The Node reference server: node reference.mjs NODE_MODULES [DATA_DIRECTORY]. In memory without a directory.
import { pathToFileURL } from "node:url"

const [modules, dataDir] = process.argv.slice(2)
const entry = pathToFileURL(`${modules}/@durable-streams/server/dist/index.js`).href
const { DurableStreamTestServer } = await import(entry)
const server = new DurableStreamTestServer({ host: "127.0.0.1", port: 0, dataDir })
console.log(`reference listening on ${await server.start()} `)
