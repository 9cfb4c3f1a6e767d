// The stock idempotent producer: node producer.mjs URL COUNT writes 0 … COUNT-1, each as an append of its own. Started again,
// it writes all of them again, under the same names.
import { DurableStream, IdempotentProducer } from "@durable-streams/client"

const [url, count] = process.argv.slice(2)
const stream = await DurableStream.create({ url, contentType: "application/json" })
const failed = (error) => {
  console.error(error)
  process.exit(1)
}
const producer = new IdempotentProducer(stream, "stock", { maxBatchBytes: 1, onError: failed })
for (let n = 0; n < Number(count); n++) producer.append(JSON.stringify(n))
await producer.flush()
process.exit(0)
