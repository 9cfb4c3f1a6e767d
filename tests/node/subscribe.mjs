// Subscribes through the stock SDK, with its default settings. Usage: node subscribe.mjs URL DIRECTORY
// Prints each event as a line of JSON, until the first session becomes idle. Reconnecting is the SDK's own business.
import { createOpencodeClient } from "@opencode-ai/sdk"

const [baseUrl, directory] = process.argv.slice(2)
const client = createOpencodeClient({ baseUrl, directory })
const { stream } = await client.event.subscribe()
for await (const event of stream) {
  console.log(JSON.stringify(event))
  if (event.type === "session.idle") break
}
process.exit(0)
