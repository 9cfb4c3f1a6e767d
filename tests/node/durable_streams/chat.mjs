// The AI SDK transport, both of its halves, on streams of ours: node chat.mjs URL. A client that comes back in the middle
// of an answer reads all of it.
import { createDurableChatTransport, toDurableStreamResponse } from "@durable-streams/aisdk-transport"

const root = process.argv[2]
const answer = `${root}/answer`
let goOn
const cut = new Promise((done) => (goOn = done))

async function* source() {
  yield { type: "start" }
  yield { type: "text-start", id: "1" }
  for (const delta of ["The ", "tide "]) yield { type: "text-delta", id: "1", delta }
  await cut
  for (const delta of ["comes ", "back."]) yield { type: "text-delta", id: "1", delta }
  yield { type: "text-end", id: "1" }
  yield { type: "finish" }
}

// The application's own routes: POST starts an answer, GET tells where it is.
const fetchClient = (url, init) =>
  init?.method === "POST"
    ? toDurableStreamResponse({ source: source(), stream: { writeUrl: answer } })
    : Promise.resolve(new Response(null, { status: 200, headers: { location: answer } }))

const transport = createDurableChatTransport({ api: "http://app.test/chat", reconnectApi: "http://app.test/chat", fetchClient })
const messages = [{ id: "m1", role: "user", parts: [{ type: "text", text: "?" }] }]
const first = (await transport.sendMessages({ trigger: "submit-message", chatId: "c", messages })).getReader()
for (let n = 0; n < 3; n++) await first.read()
await first.cancel()

const again = await transport.reconnectToStream({ chatId: "c" })
goOn()
let text = ""
for await (const chunk of again) text += chunk.delta ?? ""
console.log(JSON.stringify({ text }))
process.exit(0)
