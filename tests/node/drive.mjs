// Drives a turn through the stock SDK, as a program of a user would. Usage: node drive.mjs URL DIRECTORY
// Prints one JSON object with what each call answered.
import { createOpencodeClient } from "@opencode-ai/sdk"

const [baseUrl, directory] = process.argv.slice(2)
const client = createOpencodeClient({ baseUrl, directory, throwOnError: true })
const data = async (call) => (await call).data
const path = (id) => ({ path: { id } })

const answers = {}
answers.created = await data(client.session.create({ body: { title: "from the SDK" } }))
const session = path(answers.created.id)
answers.prompted = await data(
  client.session.prompt({ ...session, body: { parts: [{ type: "text", text: "hello [[tokens=5]] [[reason=2]]" }] } }),
)
answers.messages = await data(client.session.messages(session))
answers.updated = await data(client.session.update({ ...session, body: { title: "renamed" } }))
answers.got = await data(client.session.get(session))
answers.listed = await data(client.session.list())
answers.status = await data(client.session.status())
answers.todo = await data(client.session.todo(session))
answers.children = await data(client.session.children(session))
answers.aborted = await data(client.session.abort(session))
answers.providers = await data(client.config.providers())
answers.agents = await data(client.app.agents())
answers.path = await data(client.path.get())
answers.project = await data(client.project.current())
answers.deleted = await data(client.session.delete(session))
const gone = await createOpencodeClient({ baseUrl, directory }).session.get(session)
answers.gone = { status: gone.response.status, error: gone.error }
console.log(JSON.stringify(answers))
