// The AI SDK's own Chat with the stock transport, driven line by line: node chat.mjs URL.
// Takes {"do": …} on its standard input, one a line; tells on its standard output what a page would show, whenever that
// changes, and {"done": …} after each command.
import readline from "node:readline"
import { createDurableChatTransport } from "@durable-streams/aisdk-transport"
import { AbstractChat } from "ai"

const api = `${process.argv[2]}/v1/chat`
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`)
let chat
// The stock transport also rejects a promise that nobody sees when a connection breaks: in a browser, a line on the console.
process.on("unhandledRejection", () => {})

// A connection that breaks is a "network error" in a browser, and the AI SDK takes that, and not Node's word, for a disconnect.
function asBrowser(node) {
  return async (...request) => {
    const response = await node(...request)
    if (!response.body) return response
    const reader = response.body.getReader()
    const body = new ReadableStream({
      async pull(controller) {
        const { done, value } = await reader.read().catch(() => Promise.reject(new TypeError("network error")))
        done ? controller.close() : controller.enqueue(value)
      },
      cancel: (reason) => reader.cancel(reason),
    })
    const answer = new Response(body, response)
    Object.defineProperty(answer, "url", { value: response.url })
    return answer
  }
}

class Page {
  #messages
  #status = "ready"
  error = undefined
  constructor(messages) {
    this.#messages = messages
  }
  get messages() {
    return this.#messages
  }
  set messages(messages) {
    this.#messages = messages
    this.show()
  }
  get status() {
    return this.#status
  }
  set status(status) {
    this.#status = status
    this.show()
  }
  pushMessage = (message) => (this.messages = [...this.#messages, structuredClone(message)])
  popMessage = () => (this.messages = this.#messages.slice(0, -1))
  replaceMessage = (at, message) => (this.messages = this.#messages.with(at, structuredClone(message)))
  snapshot = (thing) => structuredClone(thing)
  show = () => say({ status: this.#status, messages: this.#messages })
}

class Chat extends AbstractChat {
  constructor({ messages = [], ...init }) {
    super({ ...init, state: new Page(messages) })
  }
}

// A page that is opened: it loads the history, and then resumes (what useChat does with `resume: true`).
const commands = {
  async open({ id, replay, browser, headers }) {
    if (browser) globalThis.fetch = asBrowser(fetch)
    const messages = await (await fetch(`${api}/${id}/messages`, { headers })).json()
    const transport = createDurableChatTransport({ api, headers })
    if (replay) transport.resumeStreamIsReplay = true
    chat = new Chat({ id, messages, transport, onError: (error) => say({ error: error.message }), onData: (part) => say({ data: part }) })
    say({ opened: messages })
    await chat.resumeStream()
  },
  send: ({ text, ...options }) => chat.sendMessage({ text, ...options.message }, { body: options.body }),
  regenerate: (options) => chat.regenerate(options),
  resume: () => chat.resumeStream(),
  leave: () => chat.stop(),
  async stop() {
    const response = await fetch(`${api}/${chat.id}/stop`, { method: "POST" })
    say({ stopped: response.status })
  },
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { do: name, ...options } = JSON.parse(line)
  commands[name](options).then(
    () => say({ done: name }),
    (error) => say({ failed: name, message: String(error) }),
  )
}
process.exit(0)
