// What a run of the contract script sees of a server: every answer as it came over the wire, every event of both streams.
// Everything goes through the stock SDK; only its `fetch` is wrapped, to look at what passes.
import { AsyncLocalStorage } from "node:async_hooks"
import { setTimeout as sleep } from "node:timers/promises"
import { createOpencodeClient } from "@opencode-ai/sdk/v2/client"

const QUIET_MS = 250
const PATIENCE_MS = 60_000

export class Trace {
  constructor(baseUrl, directory) {
    this.baseUrl = baseUrl
    this.directory = directory
    this.calls = []
    this.events = []
    this.globalEvents = []
    this.scenario = ""
    this.waiting = new Set()
    this.asking = new AsyncLocalStorage()
    this.stop = new AbortController()
    this.client = createOpencodeClient({ baseUrl, directory, fetch: (request) => this.fetch(request) })
  }

  async fetch(request) {
    const call = this.asking.getStore()
    request.timeout = false
    const response = await fetch(request)
    if (call) {
      call.method = request.method
      call.path = new URL(request.url).pathname
      call.status = response.status
      call.type = (response.headers.get("content-type") ?? "").split(";")[0]
      call.next = response.headers.has("x-next-cursor") && response.headers.has("link")
      const text = await response.clone().text()
      call.body = call.type === "application/json" ? JSON.parse(text) : text
    }
    return response
  }

  // The answer of one call, recorded under a name that is unique in its scenario. `keep` says what of the body is compared.
  async call(name, ask, { keep = (body) => body } = {}) {
    const call = { scenario: this.scenario, name }
    this.calls.push(call)
    try {
      return (await this.asking.run(call, () => ask(this.client))).data
    } catch (error) {
      if (call.status === undefined) throw error // the SDK also throws at a page where it expected JSON: that is an answer
    } finally {
      if (call.status === 200) call.body = keep(call.body)
    }
  }

  // A call that is not answered as long as nothing happens.
  async waits(name, method, path, ms = 300) {
    const call = { scenario: this.scenario, name, method, path, status: "waits", type: "", next: false, body: null }
    this.calls.push(call)
    const url = new URL(path, this.baseUrl)
    url.searchParams.set("directory", this.directory)
    try {
      call.status = (await fetch(url, { method, signal: AbortSignal.timeout(ms) })).status
    } catch (error) {
      if (error.name !== "TimeoutError") throw error
    }
  }

  // A request that no well-meaning SDK would send.
  raw(name, method, path, body, headers = {}) {
    return this.call(name, async () => {
      const url = new URL(path, this.baseUrl)
      if (!url.searchParams.has("directory")) url.searchParams.set("directory", this.directory)
      const init = { method, headers: { "content-type": "application/json", ...headers } }
      if (body !== undefined) init.body = typeof body === "string" ? body : JSON.stringify(body)
      await this.fetch(new Request(url, init))
      return {}
    })
  }

  // A terminal with `cat` in it shows what is typed twice: as it is typed, and as the program answers.
  async talk(name, path, query, typed) {
    const url = new URL(path, this.baseUrl.replace("http", "ws"))
    url.search = new URLSearchParams(query)
    const socket = new WebSocket(url)
    socket.binaryType = "arraybuffer"
    let shown = ""
    let controls = 0
    await new Promise((resolve, reject) => {
      socket.onopen = () => socket.send(typed)
      socket.onerror = () => reject(new Error(`no connection to ${url}`))
      socket.onmessage = ({ data }) => {
        if (typeof data === "string") shown += data
        else controls += 1
        if (shown.split(typed.trim()).length > 2 && controls) resolve()
      }
    })
    socket.close()
    const body = { shown, controls }
    this.calls.push({ scenario: this.scenario, name, method: "GET", path, status: 101, type: "", next: false, body })
  }

  async subscribe() {
    const signal = this.stop.signal
    const own = await this.client.event.subscribe({}, { signal })
    const all = await this.client.global.event({ signal })
    this.reading = [this.read(own.stream, this.events), this.read(all.stream, this.globalEvents)]
    await this.until(() => this.events.length > 0 && this.globalEvents.length > 0)
  }

  async read(stream, into) {
    try {
      for await (const event of stream) {
        into.push({ scenario: this.scenario, event })
        for (const look of this.waiting) look()
      }
    } catch (error) {
      if (!this.stop.signal.aborted) throw error
    }
  }

  async close() {
    this.stop.abort()
    await Promise.race([Promise.allSettled(this.reading), sleep(1000)])
  }

  until(holds) {
    return new Promise((resolve, reject) => {
      const done = () => (clearTimeout(patience), this.waiting.delete(look), resolve())
      const look = () => holds() && done()
      const patience = setTimeout(() => {
        this.waiting.delete(look)
        const last = this.events.slice(-12).map(({ event }) => JSON.stringify(event).slice(0, 300))
        reject(new Error(`${this.scenario}: waited in vain for ${holds}; the last events:\n${last.join("\n")}`))
      }, PATIENCE_MS)
      this.waiting.add(look)
      look()
    })
  }

  // The count-th event of this type in the session (or in one of its children).
  async event(sessionID, type, count = 1, also = () => true) {
    const found = () => this.events.map(({ event }) => event).filter((event) =>
      event.type === type && this.family(sessionID).has(event.properties.sessionID) && also(event.properties))
    await this.until(() => found().length >= count)
    return found()[count - 1].properties
  }

  family(sessionID) {
    const family = new Set([sessionID])
    for (const { event } of this.events)
      if (event.type === "session.created" && family.has(event.properties.info.parentID)) family.add(event.properties.info.id)
    return family
  }

  // A stock server still counts changes to files after it said that it is idle.
  async quiet() {
    for (let seen = -1; seen !== this.events.length; ) {
      seen = this.events.length
      await sleep(QUIET_MS)
    }
  }

  async idle(sessionID, turns = 1) {
    await this.event(sessionID, "session.idle", turns, (properties) => properties.sessionID === sessionID)
    await this.quiet()
  }

  // --- shorthands of the scenarios

  session(fields = {}) {
    return this.call("create", (client) => client.session.create({ title: this.scenario, ...fields })).then((session) => session.id)
  }

  prompt(sessionID, text, { name = "prompt", ...fields } = {}) {
    const parts = [{ type: "text", text }]
    return this.call(name, (client) => client.session.prompt({ sessionID, parts, ...fields }))
  }

  async messages(sessionID, name = "messages") {
    await this.quiet()
    return this.call(name, (client) => client.session.messages({ sessionID }))
  }
}
