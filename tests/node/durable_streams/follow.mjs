// Follows a JSON stream to its end with the stock client, which is given nothing but an address: node follow.mjs URL
// Tells what came, by SSE and by long-poll.
import { stream } from "@durable-streams/client"

const follow = async (live) => {
  const found = []
  for await (const item of (await stream({ url: process.argv[2], live, json: true })).jsonStream()) found.push(item)
  return found
}
console.log(JSON.stringify({ sse: await follow("sse"), longPoll: await follow("long-poll") }))
