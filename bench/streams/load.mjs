// Load for a Durable Streams server: node load.mjs URL SECONDS PID SCENARIO… → one line of JSON for each scenario.
// Raw sockets and a small HTTP reader, so that the client costs little of the two cores it shares with the server.
import { readFileSync } from "node:fs"
import net from "node:net"

const [target, seconds, pid, ...wanted] = process.argv.slice(2)
const { hostname, port } = new URL(target)
const SECONDS = Number(seconds)
const FILL = "~".repeat(64)
const run = process.pid.toString(36) + Date.now().toString(36)
let streams = 0

class Client {
  static async open() {
    const client = new Client()
    client.rest = Buffer.alloc(0)
    client.socket = net.connect({ host: hostname, port: Number(port), noDelay: true })
    await new Promise((ready, failed) => client.socket.once("connect", ready).once("error", failed))
    client.socket.on("data", (data) => client.feed(data))
    client.socket.on("close", () => client.reject?.(new Error("the server closed the connection")))
    return client
  }
  // Resolves with {status, headers, size}; with `stream`, as soon as the headers are there: chunks then go to it.
  ask(method, path, headers = {}, body = "", stream = null) {
    const lines = [`${method} /v1/stream/${path} HTTP/1.1`, `host: ${hostname}:${port}`]
    for (const name in headers) lines.push(`${name}: ${headers[name]}`)
    if (method !== "GET") lines.push(`content-length: ${Buffer.byteLength(body)}`)
    this.stream = stream
    this.head = null
    return new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
      this.socket.write(lines.join("\r\n") + "\r\n\r\n" + body)
    })
  }
  feed(data) {
    let bytes = this.rest.length ? Buffer.concat([this.rest, data]) : data
    if (!this.head) {
      const end = bytes.indexOf("\r\n\r\n")
      if (end < 0) return void (this.rest = bytes)
      const [first, ...lines] = bytes.latin1Slice(0, end).split("\r\n")
      const headers = Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]))
      this.head = { status: Number(first.split(" ")[1]), headers, size: 0 }
      this.chunked = headers["transfer-encoding"] === "chunked"
      this.left = this.chunked ? -1 : this.head.status === 204 ? 0 : Number(headers["content-length"] ?? 0)
      bytes = bytes.subarray(end + 4)
      if (this.stream) this.resolve(this.head)
    }
    while (this.chunked) {
      if (this.left < 0) {
        const end = bytes.indexOf("\r\n")
        if (end < 0) return void (this.rest = bytes)
        this.left = parseInt(bytes.latin1Slice(0, end), 16)
        bytes = bytes.subarray(end + 2)
        this.last = this.left === 0
      }
      if (bytes.length < this.left + 2) return void (this.rest = bytes)
      const chunk = bytes.subarray(0, this.left)
      bytes = bytes.subarray(this.left + 2)
      this.left = -1
      this.head.size += chunk.length
      this.stream?.(chunk)
      if (this.last) break
    }
    if (!this.chunked) {
      this.head.size += bytes.length
      this.left -= bytes.length
      bytes = Buffer.alloc(0)
      if (this.left > 0) return void (this.rest = bytes)
    }
    this.rest = bytes
    if (!this.stream) this.resolve(this.head)
  }
}

const open = (count) => Promise.all(Array.from({ length: count }, () => Client.open()))
const JSON_TYPE = { "content-type": "application/json" }
const close = (clients) => clients.forEach((client) => client.socket.destroy())
const message = (n) => `{"id":${n},"kind":"delta","author":"model","text":"${FILL}"}`
function expect(answer, ...statuses) {
  if (!statuses.includes(answer.status)) throw new Error(`the server answered ${answer.status}`)
  return answer
}
async function newStream(client) {
  const path = `bench/${run}/${streams++}`
  expect(await client.ask("PUT", path, JSON_TYPE), 201)
  return path
}
function cpuSeconds() {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ")
  return (Number(fields[11]) + Number(fields[12])) / 100
}
const megabytes = () => Math.round(Number(readFileSync(`/proc/${pid}/status`, "utf8").match(/VmRSS:\s+(\d+)/)[1]) / 1024)
const round = (value) => Number(value.toPrecision(4))
function latencies(values) {
  values.sort((a, b) => a - b)
  const at = (share) => round(values[Math.min(values.length - 1, Math.floor(values.length * share))] ?? 0)
  return { p50_ms: at(0.5), p99_ms: at(0.99) }
}

// Every client asks again as soon as it has its answer, for some seconds.
async function closedLoop(clients, act) {
  const taken = []
  const cpu = cpuSeconds()
  const began = performance.now()
  await Promise.all(
    clients.map(async (client, index) => {
      for (let at = began; at - began < SECONDS * 1000; ) {
        await act(client, index)
        const now = performance.now()
        taken.push(now - at)
        at = now
      }
    }),
  )
  const elapsed = (performance.now() - began) / 1000
  const requests = taken.length
  return { per_second: round(requests / elapsed), ...latencies(taken), cpu_us: round(((cpuSeconds() - cpu) / requests) * 1e6) }
}

async function appends({ clients: count, over = 1, batch = 1, producer = false }) {
  const clients = await open(count)
  const paths = []
  for (let n = 0; n < over; n++) paths.push(await newStream(clients[0]))
  const body = batch === 1 ? message(7) : `[${Array.from({ length: batch }, (_, n) => message(n)).join(",")}]`
  const seqs = clients.map(() => 0)
  const append = async (client, index) => {
    const headers = producer ? { ...JSON_TYPE, "producer-id": index, "producer-epoch": 0, "producer-seq": seqs[index]++ } : JSON_TYPE
    expect(await client.ask("POST", paths[index % over], headers, body), 200, 204)
  }
  for (let n = 0; n < 10; n++) await Promise.all(clients.map(append))
  const result = await closedLoop(clients, append)
  close(clients)
  return { ...result, messages_per_second: round(result.per_second * batch) }
}

async function catchUp({ bytes, records = 10000, batch = 100 }) {
  const [client] = await open(1)
  const path = await newStream(client)
  const one = `{"text":"${"-".repeat(bytes - 11)}"}`
  const body = `[${Array.from({ length: batch }, () => one).join(",")}]`
  for (let n = 0; n < records; n += batch) expect(await client.ask("POST", path, JSON_TYPE, body), 204)
  let total = 0
  const result = await closedLoop([client], async () => {
    for (let offset = "-1", done = false; !done; ) {
      const page = expect(await client.ask("GET", `${path}?offset=${offset}`), 200)
      total += page.size
      offset = page.headers["stream-next-offset"]
      done = page.headers["stream-up-to-date"] === "true"
    }
  })
  close([client])
  return { ...result, mb_per_second: round(total / 1e6 / SECONDS) }
}

// Messages are sent when they are due, on whichever of 16 connections is free; for at most twice as long as it should take.
async function fanOut({ subscribers, rate }) {
  const writers = await open(16)
  const path = await newStream(writers[0])
  const before = megabytes()
  const readers = await open(subscribers)
  const taken = []
  for (const reader of readers) {
    let text = ""
    const take = (chunk) => {
      text += chunk.latin1Slice()
      const end = text.lastIndexOf("\n\n")
      if (end < 0) return
      const now = performance.now()
      for (const [, sent] of text.slice(0, end).matchAll(/"sent":([\d.]+)/g)) taken.push(now - Number(sent))
      text = text.slice(end + 2)
    }
    expect(await reader.ask("GET", `${path}?live=sse&offset=now`, {}, "", take), 200)
  }
  const each_kb = round(((megabytes() - before) * 1024) / subscribers)
  const cpu = cpuSeconds()
  const began = performance.now()
  const free = [...writers]
  const waiting = []
  const under_way = []
  let sent = 0
  for (; sent < rate * SECONDS && performance.now() - began < SECONDS * 2000; sent++) {
    const wait = began + (sent * 1000) / rate - performance.now()
    if (wait > 1) await new Promise((done) => setTimeout(done, wait))
    const writer = free.pop() ?? (await new Promise((done) => waiting.push(done)))
    const body = `{"sent":${performance.now()},"text":"${FILL}"}`
    const release = (answer) => {
      expect(answer, 200, 204)
      const next = waiting.shift()
      if (next) next(writer)
      else free.push(writer)
    }
    under_way.push(writer.ask("POST", path, JSON_TYPE, body).then(release))
  }
  await Promise.all(under_way)
  const elapsed = (performance.now() - began) / 1000
  for (const until = performance.now() + 5000; taken.length < sent * subscribers && performance.now() < until; ) await new Promise((done) => setTimeout(done, 10))
  const cpu_us = round(((cpuSeconds() - cpu) / taken.length) * 1e6)
  close([...readers, ...writers])
  return { rate: round(sent / elapsed), lost: sent * subscribers - taken.length, ...latencies(taken), cpu_us, subscriber_kb: each_kb }
}

// The highest rate at which everything is delivered with a 99th percentile of 50 ms: doubled while it holds, then a step
// between. A rate has two tries, so that a hiccup of the machine does not end the search.
async function highest({ subscribers }) {
  const held = async (rate) => {
    for (let tries = 0; tries < 2; tries++) {
      const result = await fanOut({ subscribers, rate })
      if (result.lost === 0 && result.p99_ms <= 50 && result.rate >= rate * 0.95) return result
    }
  }
  let best = { rate: 0 }
  for (let rate = 50; rate <= 12800; rate *= 2) {
    const result = await held(rate)
    if (!result) return (await held(rate * 0.7)) ?? best
    best = result
  }
  return best
}

async function many({ count }) {
  const clients = await open(16)
  const paths = []
  for (let n = 0; n < count; n++) paths.push(await newStream(clients[n % 16]))
  let n = 0
  const result = await closedLoop(clients, async (client) => expect(await client.ask("POST", paths[n++ % count], JSON_TYPE, message(7)), 204))
  close(clients)
  return result
}

// What is read is three messages; what lies before them should not matter.
async function tailReads({ records, batch = 1000 }) {
  const [client] = await open(1)
  const path = await newStream(client)
  const body = `[${Array.from({ length: batch }, (_, n) => message(n)).join(",")}]`
  for (let n = 0; n < records; n += batch) expect(await client.ask("POST", path, JSON_TYPE, body), 204)
  const tail = (await client.ask("HEAD", path)).headers["stream-next-offset"]
  for (let more = 0; more < 3; more++) await client.ask("POST", path, JSON_TYPE, message(more))
  const result = await closedLoop([client], async () => expect(await client.ask("GET", `${path}?offset=${tail}`), 200))
  close([client])
  return result
}

const SCENARIOS = {
  append_1: () => appends({ clients: 1 }),
  append_16: () => appends({ clients: 16 }),
  append_16_streams: () => appends({ clients: 16, over: 16 }),
  producer_1: () => appends({ clients: 1, producer: true }),
  batch_1: () => appends({ clients: 1, batch: 100 }),
  batch_16: () => appends({ clients: 16, batch: 100 }),
  catch_up_100b: () => catchUp({ bytes: 100 }),
  catch_up_1kb: () => catchUp({ bytes: 1024 }),
  sse_100_at_200: () => fanOut({ subscribers: 100, rate: 200 }),
  sse_100_highest: () => highest({ subscribers: 100 }),
  sse_1000_at_20: () => fanOut({ subscribers: 1000, rate: 20 }),
  streams_1: () => many({ count: 1 }),
  streams_10: () => many({ count: 10 }),
  streams_100: () => many({ count: 100 }),
  streams_1000: () => many({ count: 1000 }),
  tail_of_1000: () => tailReads({ records: 1000 }),
  tail_of_100000: () => tailReads({ records: 100000 }),
  tail_of_1000000: () => tailReads({ records: 1000000 }),
}

for (const name of wanted.length ? wanted : Object.keys(SCENARIOS)) {
  const result = await SCENARIOS[name]().catch((error) => ({ error: String(error) }))
  console.log(JSON.stringify({ scenario: name, ...result, memory_mb: megabytes() }))
}
process.exit(0)
