"""An OpenAI-compatible chat-completions server that answers as the prompt tells it to: the LLM of kill tests and benchmarks.

The answer is steered by directives in the last user message that carries any, so a test says in its prompt what the
model will do. A fault can be limited to the first requests of a prompt (`times`); then the next try goes well.

    [[tokens=N]]        N tokens of text: `tok0 tok1 … ` (12 without)
    [[ts=1]]            each token is `@<unix seconds> ` instead, to measure how long it is under way
    [[reason=N]]        first N tokens of reasoning: `think0 think1 … `
    [[first=MS]]        wait before the first token
    [[delay=MS]]        wait after each token, of whatever kind
    [[tool=NAME {…}]]   call a tool with these arguments, then, once its result is there, answer with the text; several
                        of them are parallel calls
    [[toolloop=N]]      N rounds of the tool calls before the text
    [[status=CODE]]     answer with this HTTP status, and with [[retryms=MS]] a `retry-after-ms` header
    [[cut=K]]           after K tokens of text end the connection in the middle of the stream
    [[hang=K]]          after K tokens say nothing more, for ever
    [[stall=K]]         after K tokens say nothing until released (`release()`, or `POST /control/release`)
    [[error=K]]         after K tokens send an error object where a chunk should be, and end in good order
    [[malformed=K]]     after K tokens send a chunk that is not JSON, and go on
    [[times=N]]         the faults above (from status on) only happen to the first N requests with this prompt

A conversation that ends with the assistant's own text, or with a request to continue it, is continued: the next token
is numbered after the last `tokN ` of that text, so a test can check that a turn's text is tok0…tokN, each once. A
request for a session's title gets `Fake title` at once.

`GET /stats` tells when each answer's first and last token went out. Knows nothing of Holdfast but how it asks an LLM to
continue. Needs no more of HTTP than the clients of LLMs use.
"""

import argparse
import asyncio
import contextlib
import re
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import msgspec

from holdfast.agent.providers.conversation import CONTINUE

TITLE: Final = "Fake title"
_FAULTS: Final = ("status", "cut", "hang", "stall", "error", "malformed")
_NUMBER: Final = re.compile(r"\[\[(\w+)=(\d+)\]\]")
_TOOL: Final = re.compile(
    r"\[\[tool=(\w+) (\{.*?\})\]\]", re.DOTALL
)  # its arguments may hold directives of another prompt
_BURST: Final = 16  # tokens between two checks of the connection, when nothing delays them


class Script(NamedTuple):
    """What one request is to be answered: `numbers` are the directives, `tools` the calls of this round (name and JSON
    arguments), `key` the prompt, `first_token` where the text starts, `announced` whether calls were already announced."""

    key: str
    numbers: dict[str, int]
    tools: tuple[tuple[str, str], ...] = ()
    first_token: int = 0
    announced: bool = False
    title: bool = False

    def number(self, name: str, default: int = 0) -> int:
        return self.numbers.get(name, default)


class Answer(msgspec.Struct, kw_only=True):
    """One answered request, with the wall-clock times (seconds) of its arrival, first and last token. `messages` is the
    conversation that was sent. `end` is how it ended: "" while it is under way."""

    id: str
    t_request: float
    messages: list[dict[str, Any]]
    n: int = 0
    t_first: float | None = None
    t_last: float | None = None
    title: bool = False
    stalled: bool = False
    end: str = ""


# --- what to answer ---------------------------------------------------------------------------------------------


def text_of(message: dict[str, Any]) -> str:
    content: object = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = msgspec.convert(content, list[dict[str, Any]])
        return "".join(str(part.get("text", "")) for part in parts)
    return ""


def script_for(messages: list[dict[str, Any]]) -> Script:
    """Reads the directives and how far the conversation has come."""
    asks_title = any(
        (message["role"] in ("system", "developer") and "title generator" in text_of(message).lower())
        or (message["role"] == "user" and text_of(message).startswith("Generate a title for this conversation"))
        for message in messages
    )
    if asks_title:
        return Script("", {}, title=True)
    prompts = [i for i, message in enumerate(messages) if message["role"] == "user" and "[[" in text_of(message)]
    at = prompts[-1] if prompts else 0
    prompt = text_of(messages[at]) if messages else ""
    tools: list[tuple[str, str]] = _TOOL.findall(prompt)
    numbers = {name: int(value) for name, value in _NUMBER.findall(_TOOL.sub("", prompt))}
    results = sum(message["role"] == "tool" for message in messages[at:])
    said = _said_at_the_end(messages[at + 1 :])
    if tools and results < len(tools) * numbers.get("toolloop", 1):
        return Script(prompt, numbers, tools=tuple(tools), announced="Calling. " in said)
    last = re.findall(r"tok(\d+) ", said)
    return Script(prompt, numbers, first_token=int(last[-1]) + 1 if last else 0)


def _said_at_the_end(messages: list[dict[str, Any]]) -> str:
    said: list[str] = []
    for message in reversed(messages):
        if message["role"] == "assistant":
            said.append(text_of(message))
        elif message["role"] != "user" or CONTINUE not in text_of(message):
            break
    return "".join(reversed(said))


# --- the server -------------------------------------------------------------------------------------------------


class ModelServer:
    """`async with ModelServer() as server:` listens on 127.0.0.1; `server.url` is the base URL to give to a client."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.requests = 0
        self.answers: deque[Answer] = deque(maxlen=1000)
        self._tried: Counter[str] = Counter()
        self._released = asyncio.Event()
        self._changed = asyncio.Condition()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=1 << 24)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def release(self) -> None:
        """Let every stalled answer go on, and whatever stalls from now on wait for the next release."""
        self._released.set()
        self._released = asyncio.Event()

    async def until(self, condition: Callable[["ModelServer"], bool]) -> None:
        """Return as soon as `condition` holds; looked at whenever an answer starts, stalls or ends."""
        async with self._changed:
            await self._changed.wait_for(lambda: condition(self))

    async def until_stalled(self, count: int = 1) -> None:
        await self.until(lambda server: sum(answer.stalled for answer in server.answers) >= count)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # --- HTTP

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            async for method, path, body in _requests(reader):
                if not await self._route(method, path, body, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass  # the client went away, or speaks something else
        except asyncio.CancelledError:
            pass  # the server closes; a handler that ends cancelled would be reported by asyncio
        finally:
            self._connections.discard(task)
            writer.close()

    async def _route(
        self, method: str, path: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; False when the connection is to end."""
        if method == "POST" and path.endswith("/chat/completions"):
            return await self._complete(body, reader, writer)
        match method, path.partition("?")[0]:
            case "GET", "/stats":
                turns = [
                    {"id": a.id, "n": a.n, "t_first": a.t_first, "t_last": a.t_last, "title": a.title}
                    for a in list(self.answers)[-50:]
                    if a.t_first
                ]
                _answer(writer, 200, {"requests": self.requests, "turns": turns})
            case "GET", "/v1/models":
                _answer(writer, 200, {"object": "list", "data": [{"id": "fake-1", "object": "model"}]})
            case "POST", "/control/release":
                self.release()
                _answer(writer, 200, True)
            case "GET", "/control/stalled":
                await self.until_stalled()
                _answer(writer, 200, True)
            case _:
                _answer(writer, 404, {"error": {"message": f"no such route: {method} {path}"}})
        await writer.drain()
        return True

    # --- an answer

    async def _complete(self, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = msgspec.json.decode(body, type=dict[str, Any])
        messages = msgspec.convert(request.get("messages", []), list[dict[str, Any]])
        script = script_for(messages)
        self.requests += 1
        answer = Answer(id=f"chatcmpl-{self.requests}", t_request=time.time(), messages=messages, title=script.title)
        self.answers.append(answer)
        await self._notify()
        faults = self._faults(script)
        try:
            if "status" in faults:
                answer.end = f"status {faults['status']}"
                _refuse(writer, faults["status"], script.numbers.get("retryms"))
                await writer.drain()
                return True
            stream = _Stream(writer, answer, model=str(request.get("model")), delay_ms=script.number("delay"))
            ended_well = await self._say(stream, script, faults, reader)
            if ended_well:
                stream.usage(prompt=100 + len(body) // 4)
                await stream.end()
            return ended_well
        finally:
            answer.stalled = False
            answer.end = answer.end or "gone"
            await self._notify()

    def _faults(self, script: Script) -> dict[str, int]:
        faults = {name: script.numbers[name] for name in _FAULTS if name in script.numbers}
        if not faults:
            return faults
        self._tried[script.key] += 1
        return faults if self._tried[script.key] <= script.number("times", 1 << 62) else {}

    async def _say(
        self, stream: "_Stream", script: Script, faults: dict[str, int], reader: asyncio.StreamReader
    ) -> bool:
        """Stream what the script says; False when a fault ended it."""
        await asyncio.sleep(script.number("first") / 1000)
        await stream.begin()
        if script.title:
            await stream.delta({"content": TITLE})
            return stream.finish("stop")
        for i in range(script.number("reason") if not script.first_token else 0):
            await stream.delta({"reasoning_content": f"think{i} "})
        if script.tools:
            await self._call_tools(stream, script)
            return stream.finish("tool_calls")
        for sent, i in enumerate(range(script.first_token, script.number("tokens", 12))):
            if sent in faults.values() and not await self._fault(stream, sent, faults, reader):
                return False
            await stream.delta({"content": f"@{time.time():.6f} " if script.number("ts") else f"tok{i} "})
        return stream.finish("stop")

    async def _call_tools(self, stream: "_Stream", script: Script) -> None:
        if not script.announced:
            await stream.delta({"content": "Calling. "})
        for i, (name, arguments) in enumerate(script.tools):
            call = {"index": i, "id": f"call_{self.requests}_{i}_{time.time_ns():x}", "type": "function"}
            await stream.delta({"tool_calls": [{**call, "function": {"name": name, "arguments": ""}}]})
            for at in range(0, len(arguments), 12):
                piece = {"index": i, "function": {"arguments": arguments[at : at + 12]}}
                await stream.delta({"tool_calls": [piece]})

    async def _fault(self, stream: "_Stream", sent: int, faults: dict[str, int], reader: asyncio.StreamReader) -> bool:
        """Do the faults that are due after `sent` tokens; False when the stream is over."""
        due = [name for name, after in faults.items() if after == sent]
        await stream.flush()
        if "malformed" in due:
            stream.event(b'{"choices":[{"index":0,"delta":{"content":"')
        if "error" in due:
            stream.event(b'{"error":{"message":"The model is overloaded","type":"server_error","code":"overloaded"}}')
        if "stall" in due and not await self._stall(stream.answer, reader):
            return False
        if "hang" in due:
            await reader.read()  # ends when the client gives up
        ended_by = next((name for name in ("cut", "error", "hang") if name in due), None)
        if ended_by:
            if ended_by == "error":
                stream.close()
            await stream.flush()
            stream.answer.end = ended_by
        return ended_by is None

    async def _stall(self, answer: Answer, reader: asyncio.StreamReader) -> bool:
        """True once released, False if the client went away before."""
        released = asyncio.ensure_future(self._released.wait())
        gone = asyncio.ensure_future(reader.read(1))
        answer.stalled = True
        await self._notify()
        try:
            await asyncio.wait((released, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            answer.stalled = False
            for future in (released, gone):
                future.cancel()
            await asyncio.gather(released, gone, return_exceptions=True)
        return not gone.done() or gone.cancelled()


class _Stream:
    """The chunks of one answer, as server-sent events in HTTP chunks."""

    def __init__(self, writer: asyncio.StreamWriter, answer: Answer, *, model: str, delay_ms: int) -> None:
        self.answer = answer
        self._writer = writer
        self._delay = delay_ms / 1000
        head = {"id": answer.id, "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
        self._head = msgspec.json.encode(head)[:-1] + b","

    async def begin(self) -> None:
        self._writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        self.answer.t_first = time.time()
        self._chunk(b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]')
        await self.flush()

    async def delta(self, delta: dict[str, Any]) -> None:
        self._chunk(b'"choices":[{"index":0,"delta":' + msgspec.json.encode(delta) + b',"finish_reason":null}]')
        self.answer.n += 1
        if self._delay:
            await self.flush()
            await asyncio.sleep(self._delay)
        elif self.answer.n % _BURST == 0:
            await self.flush()

    def finish(self, reason: str) -> bool:
        self.answer.end = reason
        self._chunk(b'"choices":[{"index":0,"delta":{},"finish_reason":"%s"}]' % reason.encode())
        return True

    def usage(self, *, prompt: int) -> None:
        sent = self.answer.n
        usage = {"prompt_tokens": prompt, "completion_tokens": sent, "total_tokens": prompt + sent}
        self._chunk(b'"choices":[],"usage":' + msgspec.json.encode(usage))

    async def end(self) -> None:
        self.answer.t_last = time.time()
        self.event(b"[DONE]")
        self.close()
        await self.flush()

    def close(self) -> None:
        """The end of the HTTP body; without it the client sees a cut connection."""
        self._writer.write(b"0\r\n\r\n")

    async def flush(self) -> None:
        """Returns when the client reads, raises ConnectionError when it is gone."""
        await self._writer.drain()

    def event(self, data: bytes) -> None:
        frame = b"data: " + data + b"\n\n"
        self._writer.write(b"%x\r\n%s\r\n" % (len(frame), frame))

    def _chunk(self, fields: bytes) -> None:
        self.event(self._head + fields + b"}")


# --- as much of HTTP/1.1 as it takes ----------------------------------------------------------------------------


async def _requests(reader: asyncio.StreamReader) -> AsyncIterator[tuple[str, str, bytes]]:
    """(method, path, body) of each request on a connection."""
    while line := await reader.readline():
        method, path, _ = line.decode().split(" ", 2)
        headers: dict[str, str] = {}
        while (line := await reader.readline()) not in (b"\r\n", b"\n", b""):
            name, _, value = line.decode().partition(":")
            headers[name.strip().lower()] = value.strip()
        yield method, path, await _body(reader, headers)


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = bytearray()
    while size := int((await reader.readline()).strip() or b"0", 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return bytes(body)


def _answer(writer: asyncio.StreamWriter, status: int, value: Any, headers: str = "") -> None:
    body = msgspec.json.encode(value)
    head = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\n{headers}content-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


def _refuse(writer: asyncio.StreamWriter, status: int, retry_ms: int | None) -> None:
    type_ = "server_error" if status >= 500 else "invalid_request_error"
    error = {"error": {"message": "The model server was told to fail", "type": type_, "code": status}}
    _answer(writer, status, error, "" if retry_ms is None else f"retry-after-ms: {retry_ms}\r\n")


async def _main(port: int) -> None:
    async with ModelServer(port) as server:
        print(f"model server listening on {server.url}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A fake OpenAI-compatible model server; see the head of its file.")
    parser.add_argument("--port", type=int, default=4700, help="0 picks a free port")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(parser.parse_args().port))
