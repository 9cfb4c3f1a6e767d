// The smallest MCP server on standard input and output that has a tool: `echo` says what it is told.
import { createInterface } from "node:readline"

const tool = { name: "echo", description: "Says it again", inputSchema: { type: "object", properties: { text: { type: "string" } }, required: ["text"] } }
const answers = {
  initialize: ({ protocolVersion }) => ({ protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "echo", version: "1" } }),
  ping: () => ({}),
  "tools/list": () => ({ tools: [tool] }),
  "tools/call": ({ arguments: { text } }) => ({ content: [{ type: "text", text: `It said ${text}.` }] }),
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, method, params } = JSON.parse(line)
  if (id === undefined) continue
  const answer = answers[method]
  const said = answer ? { result: answer(params ?? {}) } : { error: { code: -32601, message: `no ${method}` } }
  process.stdout.write(JSON.stringify({ jsonrpc: "2.0", id, ...said }) + "\n")
}
