// Stock clients write and read: node clients.mjs URL writes to {URL}/{json,state,told}, and prints what it reads as JSON.
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client"
import { MaterializedState, isChangeEvent } from "@durable-streams/state"

const root = process.argv[2]
const contentType = "application/json"

const plain = await DurableStream.create({ url: `${root}/json`, contentType })
await Promise.all([1, 2, 3].map((n) => plain.append(JSON.stringify({ n }))))
const read = await (await stream({ url: `${root}/json`, offset: "-1", live: false })).json()

// An idempotent producer, followed live by SSE until the stream is closed.
const told = await DurableStream.create({ url: `${root}/told`, contentType })
const followed = []
const session = await stream({ url: `${root}/told`, offset: "-1", live: "sse" })
const ended = new Promise((done) => {
  session.subscribeJson((batch) => {
    followed.push(...batch.items)
    if (batch.streamClosed || followed.length === 100) done()
  })
})
const producer = new IdempotentProducer(told, "stock", { autoClaim: true })
for (let n = 0; n < 100; n++) producer.append(JSON.stringify(n))
await producer.flush()
await ended
await producer.close()

// The state protocol: changes in, rows out.
const changes = await DurableStream.create({ url: `${root}/state`, contentType })
const change = (operation, key, value) => changes.append(JSON.stringify({ type: "user", key, value, headers: { operation } }))
await change("insert", "1", { name: "Ada" })
await change("update", "1", { name: "Grace" })
await change("insert", "2", { name: "Edsger" })
await change("delete", "2", null)
const state = new MaterializedState()
for (const event of await (await stream({ url: `${root}/state`, offset: "-1", live: false })).json()) if (isChangeEvent(event)) state.apply(event)

const head = await told.head()
console.log(JSON.stringify({ read, followed, closed: head.streamClosed ?? head.closed, users: Object.fromEntries(state.getType("user")) }))
process.exit(0)
