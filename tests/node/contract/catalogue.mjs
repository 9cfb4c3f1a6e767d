// What the server offers: models, agents, commands, tools; above all what the stock TUI asks for when it starts.

export async function offers(t) {
  await t.call("health", (c) => c.global.health())
  await t.call("config", (c) => c.config.get())
  await t.call("configProviders", (c) => c.config.providers())
  await t.call("providers", (c) => c.provider.list())
  await t.call("agents", (c) => c.app.agents())
  await t.call("commands", (c) => c.command.list())
  await t.call("path", (c) => c.path.get())
  const project = await t.call("project", (c) => c.project.current())
  await t.call("projects", (c) => c.project.list())
  await t.call("directories", (c) => c.project.directories({ projectID: project.id }))
  await t.call("skills", (c) => c.app.skills())
}

export async function projects(t) {
  const { id: projectID } = await t.call("current", (c) => c.project.current())
  await t.call("update", (c) => c.project.update({ projectID, name: "Sample", commands: { start: "make" } }))
  await t.call("updateIcon", (c) => c.project.update({ projectID, icon: { color: "blue" } }))
  await t.call("updated", (c) => c.project.current())
  await t.call("updateNothing", (c) => c.project.update({ projectID }))
  await t.call("updateNone", (c) => c.project.update({ projectID: "none", name: "x" }))
  await t.quiet()
}

export async function languages(t) {
  await t.call("servers", (c) => c.lsp.status())
  await t.call("formatters", (c) => c.formatter.status())
}

export async function tools(t) {
  await t.call("ids", (c) => c.tool.ids())
  await t.call("list", (c) => c.tool.list({ provider: "fake", model: "fake-1" }))
}

export async function experimental(t) {
  await t.call("capabilities", (c) => c.experimental.capabilities.get())
  await t.call("console", (c) => c.experimental.console.get())
  await t.call("organisations", (c) => c.experimental.console.listOrgs())
  await t.call("workspaces", (c) => c.experimental.workspace.list())
  await t.call("workspaceStatus", (c) => c.experimental.workspace.status())
  await t.call("adapters", (c) => c.experimental.workspace.adapter.list())
}

export async function secondApi(t) {
  await t.call("health", (c) => c.v2.health.get())
  await t.call("location", (c) => c.v2.location.get())
  await t.call("agents", (c) => c.v2.agent.list())
  await t.call("models", (c) => c.v2.model.list())
  await t.call("providers", (c) => c.v2.provider.list())
  await t.call("provider", (c) => c.v2.provider.get({ providerID: "fake" }))
  await t.call("noProvider", (c) => c.v2.provider.get({ providerID: "none" }))
  await t.call("integrations", (c) => c.v2.integration.list())
  await t.call("noIntegration", (c) => c.v2.integration.get({ integrationID: "none" }))
  await t.call("commands", (c) => c.v2.command.list())
  await t.call("skills", (c) => c.v2.skill.list())
  await t.call("references", (c) => c.v2.reference.list())
}

export async function credentials(t) {
  await t.call("methods", (c) => c.provider.auth())
  await t.call("set", (c) => c.auth.set({ providerID: "groq", auth: { type: "api", key: "gsk_none" } }))
  await t.call("setNonsense", (c) => c.auth.set({ providerID: "groq", auth: { type: "nonsense" } }))
  await t.call("remove", (c) => c.auth.remove({ providerID: "groq" }))
  await t.call("removeAgain", (c) => c.auth.remove({ providerID: "groq" }))
  await t.call("authorize", (c) => c.provider.oauth.authorize({ providerID: "groq", method: 0 }))
  await t.call("callback", (c) => c.provider.oauth.callback({ providerID: "groq", method: 0, code: "x" }))
  await t.quiet()
}

export async function configuration(t) {
  await t.call("global", (c) => c.global.config.get())
  await t.call("change", (c) => c.config.update({ config: { username: "someone" } }))
  await t.quiet()
  await t.call("changed", (c) => c.config.get())
  await t.call("changeGlobal", (c) => c.global.config.update({ config: { share: "disabled" } }))
  await t.quiet()
  await t.call("changedGlobal", (c) => c.global.config.get())
}

export async function dispose(t) {
  await t.call("dispose", (c) => c.instance.dispose())
  await t.until(() => t.events.some(({ event }) => event.type === "server.instance.disposed"))
  await t.call("globalDispose", (c) => c.global.dispose())
  await t.until(() => t.globalEvents.some(({ event }) => event.payload.type === "global.disposed"))
}
