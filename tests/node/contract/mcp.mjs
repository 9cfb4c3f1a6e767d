// Tools of MCP servers.
import { fileURLToPath } from "node:url"

const ECHO = [process.execPath, fileURLToPath(new URL("mcp_server.mjs", import.meta.url))]

export async function mcp(t) {
  await t.call("none", (c) => c.mcp.status())
  await t.call("add", (c) => c.mcp.add({ name: "tiny", config: { type: "local", command: ECHO } }))
  await t.call("addBroken", (c) => c.mcp.add({ name: "broken", config: { type: "local", command: ["/bin/false"] } }))
  await t.call("addDisabled", (c) => c.mcp.add({ name: "off", config: { type: "local", command: ECHO, enabled: false } }))
  await t.call("addNonsense", (c) => c.mcp.add({ name: "x", config: { type: "nonsense" } }))
  await t.call("status", (c) => c.mcp.status())
  await t.call("resources", (c) => c.experimental.resource.list())
  const sessionID = await t.session()
  await t.prompt(sessionID, `say it [[tool=tiny_echo {"text":"kelp"}]] [[tokens=2]]`)
  await t.idle(sessionID)
  await t.messages(sessionID)
  await t.call("disconnect", (c) => c.mcp.disconnect({ name: "tiny" }))
  await t.call("afterDisconnect", (c) => c.mcp.status())
  await t.call("connect", (c) => c.mcp.connect({ name: "tiny" }))
  await t.call("afterConnect", (c) => c.mcp.status())
  await t.call("connectNone", (c) => c.mcp.connect({ name: "none" }))
  await t.call("disconnectNone", (c) => c.mcp.disconnect({ name: "none" }))
  await t.call("authLocal", (c) => c.mcp.auth.start({ name: "tiny" }))
  await t.call("authNone", (c) => c.mcp.auth.start({ name: "none" }))
  await t.call("authenticateNone", (c) => c.mcp.auth.authenticate({ name: "none" }))
  await t.call("callbackNone", (c) => c.mcp.auth.callback({ name: "none", code: "x" }))
  await t.call("removeAuth", (c) => c.mcp.auth.remove({ name: "none" }))
  await t.quiet()
}
