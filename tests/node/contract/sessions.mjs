// Sessions: made, read, changed, listed, removed; and what is answered to requests that are wrong.

export async function crud(t) {
  const sessionID = await t.session({ title: "crud" })
  await t.call("get", (c) => c.session.get({ sessionID }))
  await t.prompt(sessionID, "one [[tokens=3]]", { name: "one" })
  await t.prompt(sessionID, "two [[tokens=3]]", { name: "two" })
  await t.idle(sessionID, 2)
  await t.call("rename", (c) => c.session.update({ sessionID, title: "new title" }))
  await t.call("metadata", (c) => c.session.update({ sessionID, metadata: { color: "green" } }))
  await t.call("permission", (c) => c.session.update({ sessionID, permission: [{ permission: "edit", pattern: "*", action: "deny" }] }))
  const all = await t.messages(sessionID)
  await t.call("newest", (c) => c.session.messages({ sessionID, limit: 2 }))
  await t.call("child", (c) => c.session.create({ parentID: sessionID }))
  await t.call("children", (c) => c.session.children({ sessionID }))
  await t.call("diff", (c) => c.session.diff({ sessionID }))
  await t.call("todo", (c) => c.session.todo({ sessionID }))
  await t.call("list", (c) => c.session.list({ search: "new title" }))
  await t.call("listRoots", (c) => c.session.list({ search: "new title", roots: true, limit: 5 }))
  const [{ info, parts }] = all
  const part = { ...parts[0], text: "edited" }
  await t.call("patchPart", (c) => c.part.update({ sessionID, messageID: info.id, partID: part.id, part }))
  await t.call("deletePart", (c) => c.part.delete({ sessionID, messageID: info.id, partID: part.id }))
  await t.call("deleteMessage", (c) => c.session.deleteMessage({ sessionID, messageID: all[1].info.id }))
  await t.messages(sessionID, "afterDeletes")
  await t.call("archive", (c) => c.session.update({ sessionID, time: { archived: 1_700_000_000_000 } }))
  await t.call("delete", (c) => c.session.delete({ sessionID }))
  await t.call("deleteAgain", (c) => c.session.delete({ sessionID }))
  await t.quiet()
}

export async function fork(t) {
  const sessionID = await t.session({ title: "to fork" })
  await t.prompt(sessionID, "one [[tokens=3]]", { name: "one" })
  await t.prompt(sessionID, "two [[tokens=3]]", { name: "two" })
  await t.idle(sessionID, 2)
  const messages = await t.messages(sessionID)
  const whole = await t.call("fork", (c) => c.session.fork({ sessionID }))
  await t.messages(whole.id, "forkMessages")
  const partly = await t.call("forkAt", (c) => c.session.fork({ sessionID, messageID: messages[2].info.id }))
  await t.messages(partly.id, "forkAtMessages")
}

export async function wrongRequests(t) {
  const sessionID = await t.session()
  const none = "ses_0000000000000000000000none"
  const text = [{ type: "text", text: "x [[tokens=1]]" }]
  await t.call("getNone", (c) => c.session.get({ sessionID: none }))
  await t.call("getBadID", (c) => c.session.get({ sessionID: "xyz" }))
  await t.call("messagesNone", (c) => c.session.messages({ sessionID: none }))
  await t.call("messageNone", (c) => c.session.message({ sessionID, messageID: "msg_none" }))
  await t.call("promptNone", (c) => c.session.prompt({ sessionID: none, parts: text }))
  await t.call("promptBadMessageID", (c) => c.session.prompt({ sessionID, messageID: "bad", parts: text }))
  await t.call("promptBadPart", (c) => c.session.prompt({ sessionID, parts: [{ type: "nonsense" }] }))
  await t.call("promptNoParts", (c) => c.session.prompt({ sessionID }))
  await t.call("promptBadAgent", (c) => c.session.prompt({ sessionID, agent: "nobody", parts: text }))
  await t.call("promptBadModel", (c) => c.session.prompt({ sessionID, model: { providerID: "fake", modelID: "none" }, parts: text }))
  await t.call("patchNone", (c) => c.session.update({ sessionID: none, title: "x" }))
  await t.call("deleteNone", (c) => c.session.delete({ sessionID: none }))
  await t.call("abortNone", (c) => c.session.abort({ sessionID: none }))
  await t.call("forkNone", (c) => c.session.fork({ sessionID: none }))
  await t.call("todoNone", (c) => c.session.todo({ sessionID: none }))
  await t.call("childrenNone", (c) => c.session.children({ sessionID: none }))
  await t.call("summarizeNone", (c) => c.session.summarize({ sessionID: none, providerID: "fake", modelID: "fake-1" }))
  await t.call("revertNone", (c) => c.session.revert({ sessionID, messageID: "msg_none" }))
  await t.call("shellNone", (c) => c.session.shell({ sessionID: none, agent: "build", command: "true" }))
  await t.call("share", (c) => c.session.share({ sessionID }))
  await t.call("unshare", (c) => c.session.unshare({ sessionID }))
  await t.raw("malformed", "POST", "/session", "{")
  await t.raw("wrongType", "POST", "/session", { title: 7 })
  await t.raw("negativeLimit", "GET", `/session/${sessionID}/message?limit=-1`)
  await t.raw("wordLimit", "GET", "/session?limit=many")
  await t.raw("noSuchPath", "POST", "/nonesuch", {})
}
