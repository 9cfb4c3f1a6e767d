// What the agent asks the user: permissions and questions.

const ASK = [{ permission: "bash", pattern: "*", action: "ask" }]
const bash = (command) => `[[tool=bash ${JSON.stringify({ command })}]]`

export async function permission(t) {
  const sessionID = await t.session({ permission: ASK })
  const once = t.prompt(sessionID, `one ${bash("echo once")}`, { name: "once" })
  const asked = await t.event(sessionID, "permission.asked")
  await t.call("pending", (c) => c.permission.list())
  await t.call("replyOnce", (c) => c.permission.reply({ requestID: asked.id, reply: "once" }))
  await once
  await t.call("nonePending", (c) => c.permission.list())
  const rejected = t.prompt(sessionID, `two ${bash("echo rejected")}`, { name: "rejected" })
  const second = await t.event(sessionID, "permission.asked", 2)
  await t.call("replyReject", (c) => c.permission.reply({ requestID: second.id, reply: "reject" }))
  await rejected
  const corrected = t.prompt(sessionID, `three ${bash("echo corrected")}`, { name: "corrected" })
  const third = await t.event(sessionID, "permission.asked", 3)
  await t.call("replyWithMessage", (c) => c.permission.reply({ requestID: third.id, reply: "reject", message: "use printf" }))
  await corrected
  await t.idle(sessionID, 3)
  await t.messages(sessionID)
}

export async function permissionAlways(t) {
  const sessionID = await t.session({ permission: ASK })
  const first = t.prompt(sessionID, `one ${bash("printf always-a && printf always-b")}`, { name: "first" })
  const asked = await t.event(sessionID, "permission.asked")
  await t.call("reply", (c) => c.permission.respond({ sessionID, permissionID: asked.id, response: "always" }))
  await first
  await t.prompt(sessionID, `two ${bash("printf always-c")}`, { name: "notAskedAgain" })
  await t.idle(sessionID, 2)
  await t.messages(sessionID)
}

export async function permissionAborted(t) {
  const sessionID = await t.session({ permission: ASK })
  const prompted = t.prompt(sessionID, `one ${bash("echo never")}`)
  await t.event(sessionID, "permission.asked")
  await t.call("abort", (c) => c.session.abort({ sessionID }))
  await prompted
  await t.idle(sessionID)
  await t.call("nonePending", (c) => c.permission.list())
  await t.messages(sessionID)
}

export async function question(t) {
  const sessionID = await t.session()
  const options = [
    { label: "Red", description: "like a rose" },
    { label: "Blue", description: "like the sky" },
  ]
  const ask = `[[tool=question ${JSON.stringify({ questions: [{ question: "Which colour?", header: "Colour", options }] })}]]`
  const answered = t.prompt(sessionID, `ask me ${ask}`, { name: "answered" })
  const asked = await t.event(sessionID, "question.asked")
  await t.call("pending", (c) => c.question.list())
  await t.call("reply", (c) => c.question.reply({ requestID: asked.id, answers: [["Blue"]] }))
  await answered
  const rejected = t.prompt(sessionID, `ask again ${ask}`, { name: "rejected" })
  const second = await t.event(sessionID, "question.asked", 2)
  await t.call("reject", (c) => c.question.reject({ requestID: second.id }))
  await rejected
  await t.idle(sessionID, 2)
  await t.call("nonePending", (c) => c.question.list())
  await t.messages(sessionID)
}

export async function asksThatAreNotThere(t) {
  await t.call("permission", (c) => c.permission.reply({ requestID: "per_none", reply: "once" }))
  await t.call("question", (c) => c.question.reply({ requestID: "que_none", answers: [] }))
  await t.call("questionReject", (c) => c.question.reject({ requestID: "que_none" }))
}
