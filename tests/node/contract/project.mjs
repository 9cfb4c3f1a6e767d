// The project: files, version control, terminals.

export async function files(t) {
  await t.call("list", (c) => c.file.list({ path: "" }))
  await t.call("listBelow", (c) => c.file.list({ path: "src" }))
  await t.call("read", (c) => c.file.read({ path: "README.md" }))
  await t.call("readBinary", (c) => c.file.read({ path: "dot.png" }))
  await t.call("readNone", (c) => c.file.read({ path: "none.txt" }))
  await t.call("readOutside", (c) => c.file.read({ path: "../outside.txt" }))
  await t.call("status", (c) => c.file.status())
  await t.call("findText", (c) => c.find.text({ pattern: "beta" }))
  await t.call("findFiles", (c) => c.find.files({ query: "beta" }))
  await t.call("findDirectories", (c) => c.find.files({ query: "src", type: "directory" }))
  await t.call("findSymbols", (c) => c.find.symbols({ query: "main" }))
}

export async function versionControl(t) {
  const patch = "diff --git a/README.md b/README.md\n--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-# Sample\n+# Example\n"
  await t.call("get", (c) => c.vcs.get())
  await t.call("apply", (c) => c.vcs.apply({ patch }))
  await t.call("applyAgain", (c) => c.vcs.apply({ patch }))
  await t.call("status", (c) => c.vcs.status())
  await t.call("diff", (c) => c.vcs.diff({ mode: "git" }))
  await t.call("diffRaw", (c) => c.vcs.diff2.raw())
  await t.call("initAgain", (c) => c.project.initGit())
}

export async function terminals(t) {
  await t.call("shells", (c) => c.pty.shells())
  const pty = await t.call("create", (c) => c.pty.create({ command: "cat", title: "a cat" }))
  const ptyID = pty.id
  await t.call("list", (c) => c.pty.list())
  await t.call("get", (c) => c.pty.get({ ptyID }))
  await t.call("update", (c) => c.pty.update({ ptyID, title: "the cat", size: { rows: 20, cols: 70 } }))
  await t.call("updateNothing", (c) => c.pty.update({ ptyID }))
  await t.call("createNothing", (c) => c.pty.create())
  await t.call("ticketWithoutHeader", (c) => c.pty.connectToken({ ptyID }))
  const { ticket } = await t.call("ticket", (c) => c.pty.connectToken({ ptyID }, { headers: { "x-opencode-ticket": "1" } }))
  await t.talk("connect", `/pty/${ptyID}/connect`, { directory: t.directory, ticket, cursor: "0" }, "meow\n")
  await t.call("remove", (c) => c.pty.remove({ ptyID }))
  await t.call("getRemoved", (c) => c.pty.get({ ptyID }))
}

export async function worktrees(t) {
  await t.call("none", (c) => c.worktree.list())
  const made = await t.call("create", (c) => c.worktree.create({ worktreeCreateInput: { name: "kelp" } }))
  await t.until(() => t.globalEvents.some(({ event }) => event.payload.type === "worktree.ready"))
  await t.call("list", (c) => c.worktree.list())
  await t.call("reset", (c) => c.worktree.reset({ worktreeResetInput: { directory: made.directory } }))
  await t.call("remove", (c) => c.worktree.remove({ worktreeRemoveInput: { directory: made.directory } }))
  await t.call("removeAgain", (c) => c.worktree.remove({ worktreeRemoveInput: { directory: made.directory } }))
  await t.call("afterRemove", (c) => c.worktree.list())
  await t.quiet()
}
