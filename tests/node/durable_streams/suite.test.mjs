// The official Durable Streams suite, as its package exports it. Run by tests/conformance with the server's address.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

runConformanceTests({
  baseUrl: process.env.STREAMS_URL,
  longPollTimeoutMs: Number(process.env.LONG_POLL_MS),
  subscriptions: true,
})
