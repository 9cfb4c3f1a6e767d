// Runs every scenario against one server, one after the other. Usage: node run.mjs URL DIRECTORY [SCENARIO…]
// Prints one JSON object: the calls with their answers, the events of both streams, scenarios that came to no end, and the
// routes that the server documents.
import * as asks from "./asks.mjs"
import * as catalogue from "./catalogue.mjs"
import * as clients from "./clients.mjs"
import * as mcp from "./mcp.mjs"
import * as project from "./project.mjs"
import * as secondApi from "./second_api.mjs"
import * as sessions from "./sessions.mjs"
import { Trace } from "./trace.mjs"
import * as turns from "./turns.mjs"

const { credentials, configuration, dispose, ...others } = { ...turns, ...asks, ...sessions, ...project, ...catalogue, ...clients, ...secondApi, ...mcp }
const scenarios = { ...others, credentials, configuration, dispose } // a stock server ends its stream when its configuration changes

const [baseUrl, directory, ...wanted] = process.argv.slice(2)
const trace = new Trace(baseUrl, directory)
const failures = {}
await trace.subscribe()
for (const [name, scenario] of Object.entries(scenarios)) {
  if (wanted.length && !wanted.includes(name)) continue
  trace.scenario = name
  const began = Date.now()
  try {
    await scenario(trace)
  } catch (error) {
    failures[name] = error.stack
  }
  console.error(`${name}: ${Date.now() - began} ms`)
}
const paths = await fetch(`${baseUrl}/doc`).then((response) => response.json()).then((document) => document.paths)
const routes = Object.entries(paths).flatMap(([path, methods]) => Object.keys(methods).map((method) => [method.toUpperCase(), path]))
await trace.close()
const { calls, events, globalEvents } = trace
process.stdout.write(JSON.stringify({ calls, events, globalEvents, failures, routes }), () => process.exit())
