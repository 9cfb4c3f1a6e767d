// What clients tell the server: commands, log lines, the remote control of a TUI, how far of the events they have come.

export async function command(t) {
  const sessionID = await t.session()
  await t.call("run", (c) => c.session.command({ sessionID, command: "greet", arguments: "the whole world" }))
  await t.event(sessionID, "command.executed")
  await t.idle(sessionID)
  await t.call("none", (c) => c.session.command({ sessionID, command: "nonesuch", arguments: "" }))
  await t.messages(sessionID)
}

export async function init(t) {
  const sessionID = await t.session()
  const messageID = "msg_0000000000020000000000000b"
  await t.call("init", (c) => c.session.init({ sessionID, messageID, providerID: "fake", modelID: "fake-1" }))
  await t.idle(sessionID)
  await t.messages(sessionID)
}

export async function log(t) {
  await t.call("line", (c) => c.app.log({ service: "contract", level: "info", message: "hello", extra: { n: 1 } }))
  await t.call("badLevel", (c) => c.app.log({ service: "contract", level: "loud", message: "hello" }))
}

export async function remoteControl(t) {
  const sessionID = await t.session()
  await t.call("append", (c) => c.tui.appendPrompt({ text: "hello" }))
  await t.call("clear", (c) => c.tui.clearPrompt())
  await t.call("submit", (c) => c.tui.submitPrompt())
  await t.call("help", (c) => c.tui.openHelp())
  await t.call("sessions", (c) => c.tui.openSessions())
  await t.call("themes", (c) => c.tui.openThemes())
  await t.call("models", (c) => c.tui.openModels())
  await t.call("execute", (c) => c.tui.executeCommand({ command: "session_new" }))
  await t.call("toast", (c) => c.tui.showToast({ message: "hello", variant: "info" }))
  await t.call("select", (c) => c.tui.selectSession({ sessionID }))
  await t.call("selectNone", (c) => c.tui.selectSession({ sessionID: "ses_0000000000000000000000none" }))
  await t.call("publish", (c) => c.tui.publish({ body: { type: "tui.prompt.append", properties: { text: "x" } } }))
  await t.call("publishNonsense", (c) => c.tui.publish({ body: { type: "nonsense", properties: {} } }))
  await t.waits("next", "GET", "/tui/control/next")
  await t.call("response", (c) => c.tui.control.response({ body: { done: true } }))
  await t.quiet()
}

export async function history(t) {
  const sessionID = await t.session()
  await t.prompt(sessionID, "hello [[tokens=2]]")
  await t.idle(sessionID)
  const keep = (events) => events.filter((event) => event.aggregate_id === sessionID).slice(0, 1)
  await t.call("start", (c) => c.sync.start())
  await t.call("all", (c) => c.sync.history.list({ body: { [sessionID]: 0 } }), { keep })
  await t.call("rest", (c) => c.sync.history.list({ body: { [sessionID]: 1_000_000 } }), { keep })
  await t.call("background", (c) => c.experimental.session.background({ sessionID }))
}
