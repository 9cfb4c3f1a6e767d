// The second API: what waits for the user, what runs, files, terminals. That of a stock server does not know what sessions of
// the first one ask; where it refuses, the scenario goes on through the first, so that it comes to its end there too.

const ASK = [{ permission: "bash", pattern: "*", action: "ask" }]
const bash = (command) => `[[tool=bash ${JSON.stringify({ command })}]]`
const none = "ses_0000000000000000000000none"

// The answer of the first call is recorded, that of the other, which is made if the first was refused, is not.
async function orElse(t, name, ask, otherwise) {
  await t.call(name, ask)
  if (t.calls.at(-1).status >= 400) await otherwise(t.client)
}

export async function secondPermissions(t) {
  const sessionID = await t.session({ permission: ASK })
  const once = t.prompt(sessionID, `one ${bash("echo once")}`, { name: "once" })
  const { id: requestID } = await t.event(sessionID, "permission.asked")
  await t.call("pending", (c) => c.v2.permission.request.list())
  await t.call("ofSession", (c) => c.v2.session.permission.list({ sessionID }))
  await t.call("get", (c) => c.v2.session.permission.get({ sessionID, requestID }))
  await t.call("getOfOther", (c) => c.v2.session.permission.get({ sessionID: none, requestID }))
  await t.call("replyOfOther", (c) => c.v2.session.permission.reply({ sessionID: none, requestID, reply: "once" }))
  await t.call("replyNonsense", (c) => c.v2.session.permission.reply({ sessionID, requestID, reply: "perhaps" }))
  const reply = { requestID, reply: "once" }
  await orElse(t, "reply", (c) => c.v2.session.permission.reply({ sessionID, ...reply }), (c) => c.permission.reply(reply))
  await once
  await t.idle(sessionID)
  await t.call("nonePending", (c) => c.v2.permission.request.list())
  await t.call("replyAgain", (c) => c.v2.session.permission.reply({ sessionID, ...reply }))
  await t.call("ofNoSession", (c) => c.v2.session.permission.list({ sessionID: none }))
  await t.call("getNone", (c) => c.v2.session.permission.get({ sessionID, requestID: "per_none" }))
  await t.messages(sessionID)
}

export async function secondQuestions(t) {
  const sessionID = await t.session()
  const options = [{ label: "Blue", description: "like the sky" }]
  const ask = `[[tool=question ${JSON.stringify({ questions: [{ question: "Which colour?", header: "Colour", options }] })}]]`
  const answered = t.prompt(sessionID, `ask me ${ask}`, { name: "answered" })
  const { id: requestID } = await t.event(sessionID, "question.asked")
  await t.call("pending", (c) => c.v2.question.request.list())
  await t.call("ofSession", (c) => c.v2.session.question.list({ sessionID }))
  const reply = { requestID, answers: [["Blue"]] }
  const body = { answers: reply.answers }
  await t.call("replyOfOther", (c) => c.v2.session.question.reply({ sessionID: none, requestID, questionV2Reply: body }))
  await t.call("replyNonsense", (c) => c.v2.session.question.reply({ sessionID, requestID, questionV2Reply: { answers: 7 } }))
  await orElse(t, "reply", (c) => c.v2.session.question.reply({ sessionID, requestID, questionV2Reply: body }), (c) => c.question.reply(reply))
  await answered
  const rejected = t.prompt(sessionID, `ask again ${ask}`, { name: "rejected" })
  const second = { requestID: (await t.event(sessionID, "question.asked", 2)).id }
  await t.call("rejectOfOther", (c) => c.v2.session.question.reject({ sessionID: none, ...second }))
  await orElse(t, "reject", (c) => c.v2.session.question.reject({ sessionID, ...second }), (c) => c.question.reject(second))
  await rejected
  await t.idle(sessionID, 2)
  await t.call("nonePending", (c) => c.v2.question.request.list())
  await t.call("rejectAgain", (c) => c.v2.session.question.reject({ sessionID, ...second }))
  await t.call("ofNoSession", (c) => c.v2.session.question.list({ sessionID: none }))
  await t.messages(sessionID)
}

export async function secondInterrupt(t) {
  const sessionID = await t.session()
  await t.call("noneActive", (c) => c.v2.session.active())
  const prompted = t.prompt(sessionID, "for long [[tokens=30]] [[stall=10]]")
  await t.event(sessionID, "message.part.delta", 10)
  const { data } = await t.call("active", (c) => c.v2.session.active())
  await t.call("interrupt", (c) => c.v2.session.interrupt({ sessionID }))
  if (!(sessionID in data)) await t.client.session.abort({ sessionID })
  await prompted
  await t.idle(sessionID)
  await t.call("interruptIdle", (c) => c.v2.session.interrupt({ sessionID }))
  await t.call("interruptNone", (c) => c.v2.session.interrupt({ sessionID: none }))
  await t.messages(sessionID)
}

export async function secondFiles(t) {
  await t.call("list", (c) => c.v2.fs.list())
  await t.call("listBelow", (c) => c.v2.fs.list({ path: "src" }))
  await t.call("listNone", (c) => c.v2.fs.list({ path: "none" }))
  await t.call("listFile", (c) => c.v2.fs.list({ path: "README.md" }))
  await t.call("listOutside", (c) => c.v2.fs.list({ path: "../" }))
  await t.call("find", (c) => c.v2.fs.find({ query: "alpha" }))
  await t.call("findDirectories", (c) => c.v2.fs.find({ query: "src", type: "directory" }))
  const keep = (body) => ({ ...body, data: body.data.length }) // which of the two comes first is not settled
  await t.call("findOne", (c) => c.v2.fs.find({ query: "txt", type: "file", limit: 1 }), { keep })
  await t.call("findNothing", (c) => c.v2.fs.find())
  await t.call("findNonsense", (c) => c.v2.fs.find({ query: "alpha", type: "nonsense" }))
  await t.call("findNegative", (c) => c.v2.fs.find({ query: "alpha", limit: -1 }))
}

export async function secondTerminals(t) {
  const pty = await t.call("create", (c) => c.v2.pty.create({ command: "cat", title: "a cat" }))
  const ptyID = pty.data.id
  await t.call("list", (c) => c.v2.pty.list())
  await t.call("get", (c) => c.v2.pty.get({ ptyID }))
  await t.call("update", (c) => c.v2.pty.update({ ptyID, title: "the cat", size: { rows: 20, cols: 70 } }))
  await t.call("updateNothing", (c) => c.v2.pty.update({ ptyID }))
  await t.call("updateNonsense", (c) => c.v2.pty.update({ ptyID, title: 7 }))
  await t.call("ticketWithoutHeader", (c) => c.v2.pty.connectToken({ ptyID }))
  const { data } = await t.call("ticket", (c) => c.v2.pty.connectToken({ ptyID }, { headers: { "x-opencode-ticket": "1" } }))
  await t.call("connectWithoutUpgrade", (c) => c.v2.pty.connect({ ptyID }))
  const query = { "location[directory]": t.directory, ticket: data.ticket, cursor: "0" }
  await t.talk("connect", `/api/pty/${ptyID}/connect`, query, "meow\n")
  await t.call("remove", (c) => c.v2.pty.remove({ ptyID }))
  await t.call("removeAgain", (c) => c.v2.pty.remove({ ptyID }))
  await t.call("getRemoved", (c) => c.v2.pty.get({ ptyID }))
  await t.call("updateRemoved", (c) => c.v2.pty.update({ ptyID, title: "x" }))
  await t.call("ticketOfRemoved", (c) => c.v2.pty.connectToken({ ptyID }, { headers: { "x-opencode-ticket": "1" } }))
  await t.call("connectToRemoved", (c) => c.v2.pty.connect({ ptyID }))
}
