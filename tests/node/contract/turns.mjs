// Turns: what a prompt brings about, and what interrupts it.

export async function plain(t) {
  const sessionID = await t.session()
  await t.prompt(sessionID, "hello [[tokens=20]] [[reason=3]]")
  await t.idle(sessionID)
  const messages = await t.messages(sessionID)
  const messageID = messages[1].info.id
  await t.call("message", (c) => c.session.message({ sessionID, messageID }))
  await t.call("status", (c) => c.session.status())
}

export async function title(t) {
  const session = await t.call("create", (c) => c.session.create({}))
  await t.prompt(session.id, "name me [[tokens=3]]")
  await t.event(session.id, "session.updated", 1, (properties) => properties.info.title === "Fake title")
  await t.quiet()
  await t.call("get", (c) => c.session.get({ sessionID: session.id }))
}

export async function tool(t) {
  const sessionID = await t.session()
  await t.prompt(sessionID, `run it [[tool=bash {"command":"echo one; echo two > made.txt"}]]`)
  await t.idle(sessionID)
  await t.messages(sessionID)
  await t.call("diff", (c) => c.session.diff({ sessionID }))
}

export async function parallelTools(t) {
  const sessionID = await t.session()
  const calls = `[[tool=read {"filePath":"${t.directory}/README.md"}]][[tool=glob {"pattern":"src/*.txt"}]][[tool=grep {"pattern":"beta"}]]`
  await t.prompt(sessionID, `look ${calls}`)
  await t.idle(sessionID)
  await t.messages(sessionID)
}

export async function toolsThatFail(t) {
  const sessionID = await t.session()
  await t.prompt(sessionID, `[[tool=bash {"command":"exit 3"}]]`, { name: "exitCode" })
  await t.prompt(sessionID, `[[tool=read {"filePath":"${t.directory}/none.txt"}]]`, { name: "noFile" })
  await t.prompt(sessionID, `[[tool=nonesuch {"a":1}]]`, { name: "unknownTool" })
  await t.prompt(sessionID, `[[tool=read {"path":7}]]`, { name: "badInput" })
  await t.idle(sessionID, 4)
  await t.messages(sessionID)
}

export async function todo(t) {
  const sessionID = await t.session()
  const todos = [
    { content: "first", status: "in_progress", priority: "high" },
    { content: "second", status: "pending", priority: "low" },
  ]
  await t.prompt(sessionID, `plan [[tool=todowrite ${JSON.stringify({ todos })}]]`)
  await t.idle(sessionID)
  await t.messages(sessionID)
  await t.call("todo", (c) => c.session.todo({ sessionID }))
}

export async function task(t) {
  const sessionID = await t.session()
  const input = { description: "Look around", prompt: "child work [[tokens=4]]", subagent_type: "general" }
  await t.prompt(sessionID, `delegate [[tool=task ${JSON.stringify(input)}]]`)
  await t.idle(sessionID)
  await t.messages(sessionID)
  const children = await t.call("children", (c) => c.session.children({ sessionID }))
  await t.messages(children[0].id, "childMessages")
}

export async function editAndRevert(t) {
  const sessionID = await t.session()
  const file = `${t.directory}/src/alpha.txt`
  const edit = { filePath: file, oldString: "alpha", newString: "omega" }
  const write = { filePath: `${t.directory}/fresh.txt`, content: "fresh\n" }
  await t.prompt(sessionID, `read it [[tool=read ${JSON.stringify({ filePath: file })}]]`, { name: "read" })
  await t.prompt(sessionID, `edit it [[tool=edit ${JSON.stringify(edit)}]]`, { name: "edit" })
  await t.prompt(sessionID, `write one [[tool=write ${JSON.stringify(write)}]]`, { name: "write" })
  await t.idle(sessionID, 3)
  const messages = await t.messages(sessionID)
  const prompts = messages.filter((message) => message.info.role === "user").map((message) => message.info.id)
  await t.call("diff", (c) => c.session.diff({ sessionID }))
  await t.call("diffOfPrompt", (c) => c.session.diff({ sessionID, messageID: prompts[1] }))
  await t.call("get", (c) => c.session.get({ sessionID }))
  await t.call("revert", (c) => c.session.revert({ sessionID, messageID: prompts[1] }))
  await t.call("revertedFile", (c) => c.file.read({ path: "src/alpha.txt" }))
  await t.call("revertedList", (c) => c.session.messages({ sessionID }))
  await t.call("unrevert", (c) => c.session.unrevert({ sessionID }))
  await t.call("unrevertedFile", (c) => c.file.read({ path: "src/alpha.txt" }))
  await t.call("revertAgain", (c) => c.session.revert({ sessionID, messageID: prompts[1] }))
  await t.prompt(sessionID, "after all [[tokens=2]]", { name: "promptAfterRevert" })
  await t.idle(sessionID, 4)
  await t.messages(sessionID, "afterRevert")
}

export async function shell(t) {
  const sessionID = await t.session()
  await t.call("shell", (c) => c.session.shell({ sessionID, agent: "build", command: "echo from the user" }))
  await t.idle(sessionID)
  await t.messages(sessionID)
}

export async function abort(t) {
  const sessionID = await t.session()
  const prompted = t.prompt(sessionID, "for long [[tokens=30]] [[stall=10]]")
  await t.event(sessionID, "message.part.delta", 10)
  await t.call("status", (c) => c.session.status())
  await t.call("shellWhileBusy", (c) => c.session.shell({ sessionID, agent: "build", command: "true" }))
  const [first] = (await t.client.session.messages({ sessionID })).data
  await t.call("revertWhileBusy", (c) => c.session.revert({ sessionID, messageID: first.info.id }))
  await t.call("deleteMessageWhileBusy", (c) => c.session.deleteMessage({ sessionID, messageID: first.info.id }))
  await t.call("abort", (c) => c.session.abort({ sessionID }))
  await prompted
  await t.idle(sessionID)
  await t.messages(sessionID)
  await t.call("abortIdle", (c) => c.session.abort({ sessionID }))
}

export async function abortTool(t) {
  const sessionID = await t.session()
  const prompted = t.prompt(sessionID, `wait [[tool=bash {"command":"echo begun; sleep 60"}]]`)
  await t.event(sessionID, "message.part.updated", 1, ({ part }) => part.state?.metadata?.output?.includes("begun"))
  await t.call("abort", (c) => c.session.abort({ sessionID }))
  await prompted
  await t.idle(sessionID)
  await t.messages(sessionID)
}

export async function promptAsync(t) {
  const sessionID = await t.session()
  const ask = (text) => (c) => c.session.promptAsync({ sessionID, parts: [{ type: "text", text }] })
  await t.call("first", ask("one [[tokens=30]] [[delay=15]]"))
  await t.event(sessionID, "message.part.delta", 3)
  await t.call("second", ask("two [[tokens=4]]"))
  await t.event(sessionID, "message.updated", 1, ({ info }) => info.role === "assistant" && info.finish === "stop")
  await t.idle(sessionID)
  await t.quiet()
  await t.messages(sessionID)
}

export async function noReply(t) {
  const sessionID = await t.session()
  await t.prompt(sessionID, "for the record", { noReply: true })
  await t.messages(sessionID)
}

export async function modelErrors(t) {
  const sessionID = await t.session()
  await t.prompt(sessionID, "refused [[status=401]]", { name: "refused" })
  await t.idle(sessionID)
  await t.prompt(sessionID, "overloaded [[status=503]] [[retryms=50]] [[times=2]] [[tokens=3]]", { name: "overloaded" })
  await t.idle(sessionID, 2)
  await t.messages(sessionID)
}

export async function summarize(t) {
  const sessionID = await t.session()
  await t.prompt(sessionID, "talk [[tokens=5]]")
  await t.idle(sessionID)
  await t.call("summarize", (c) => c.session.summarize({ sessionID, providerID: "fake", modelID: "fake-1" }))
  await t.idle(sessionID, 2)
  await t.messages(sessionID)
}

export async function promptOptions(t) {
  const sessionID = await t.session()
  const model = { providerID: "fake", modelID: "fake-1" }
  const messageID = "msg_0000000000010000000000000a"
  await t.prompt(sessionID, "as told [[tokens=2]]", { messageID, model, agent: "plan", system: "Be brief.", tools: { bash: false } })
  await t.idle(sessionID)
  await t.messages(sessionID)
  await t.call("get", (c) => c.session.get({ sessionID }))
}

export async function promptParts(t) {
  const sessionID = await t.session()
  const parts = [
    { type: "text", text: "see these [[tokens=2]]" },
    { type: "file", mime: "text/plain", filename: "alpha.txt", url: `file://${t.directory}/src/alpha.txt` },
    { type: "file", mime: "text/plain", filename: "note.txt", url: "data:text/plain;base64,bm90ZQo=" },
    { type: "file", mime: "image/png", filename: "dot.png", url: "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC" },
    { type: "file", mime: "application/x-directory", filename: "src", url: `file://${t.directory}/src` },
    { type: "agent", name: "general" },
  ]
  await t.call("prompt", (c) => c.session.prompt({ sessionID, parts }))
  await t.idle(sessionID)
  await t.messages(sessionID)
}
