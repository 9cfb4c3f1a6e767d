"""What a program asks of a Holdfast server.

Rules
 1. Whatever may safely happen twice is tried until it worked: bound it with `asyncio.timeout`, or cancel it.
 2. What creates something brings its id from here (a session, a prompt), so asking twice gives one of it.
 3. `health` never waits: it says whether somebody is there.
"""

import asyncio
import ipaddress
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from holdfast.client.backoff import Backoff
from holdfast.client.errors import Unreachable, refusal
from holdfast.client.subscription import Interrupted, Received, subscribe
from holdfast.core.codec import to_json
from holdfast.core.errors import Invalid, Unavailable
from holdfast.core.ids import IdGenerator
from holdfast.core.messages import MessageModel, WithParts
from holdfast.core.offsets import Offset
from holdfast.core.permissions import PermissionReply
from holdfast.core.session import Session, SessionStatus

DEFAULT_URL: Final = "http://127.0.0.1:4096"
USERNAME: Final = "opencode"

CONNECT_S: Final = 5.0
ANSWER_S: Final = 30.0
SESSIONS_MAX: Final = 1000


class Health(msgspec.Struct, frozen=True):
    healthy: bool
    version: str


class ImportedSession(msgspec.Struct, frozen=True, rename={"session_id": "sessionID"}):
    """`unfinished`: the session has a turn, which the server takes up."""

    session_id: str
    records: int
    unfinished: bool


class Client:
    """One server, seen from one project directory (absolute path; the server's own when None). An async context manager."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        username: str = USERNAME,
        password: str | None = None,
        directory: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        backoff: Callable[[], Backoff] = Backoff,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_wait: Callable[[Interrupted], None] = lambda _: None,
    ) -> None:
        """`on_wait` is told each time a request has to be sent again; `events` says so itself."""
        self.url = url.rstrip("/")
        self._backoff = backoff
        self._sleep = sleep
        self._on_wait = on_wait
        self._ids = IdGenerator(lambda: time.time_ns() // 1_000_000, os.urandom)
        self._http = httpx.AsyncClient(
            base_url=_checked(self.url),
            auth=(username, password) if password else None,
            headers={"x-opencode-directory": quote(directory)} if directory else None,
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            transport=transport,
            trust_env=not is_local(url),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    # --- the server ---------------------------------------------------------------------------------------------

    async def health(self) -> Health:
        """Raises Unreachable at once when nobody answers, Refused without the right password."""
        return msgspec.json.decode(await self._send("GET", "/global/health"), type=Health)

    # --- sessions -----------------------------------------------------------------------------------------------

    async def create_session(self, *, title: str | None = None) -> Session:
        body = to_json({"id": self._ids.new("ses")} | ({"title": title} if title else {}))
        answer = await self._until_answered(lambda: self._send("POST", "/session", body=body))
        return msgspec.json.decode(answer, type=Session)

    async def session(self, session_id: str) -> Session:
        """Raises Refused (404) if there is none."""
        answer = await self._until_answered(lambda: self._send("GET", f"/session/{quote(session_id, safe='')}"))
        return msgspec.json.decode(answer, type=Session)

    async def delete_session(self, session_id: str) -> None:
        """With its turn and its children. Raises Refused if there is none (404)."""
        await self._send("DELETE", f"/session/{quote(session_id, safe='')}")

    async def sessions(self) -> tuple[Session, ...]:
        """Those of the client's directory, newest update first."""
        path = f"/session?limit={SESSIONS_MAX}"
        return msgspec.json.decode(
            await self._until_answered(lambda: self._send("GET", path)), type=tuple[Session, ...]
        )

    async def statuses(self) -> dict[str, SessionStatus]:
        """Of the sessions that are not idle."""
        answer = await self._until_answered(lambda: self._send("GET", "/session/status"))
        return msgspec.json.decode(answer, type=dict[str, SessionStatus])

    async def messages(self, session_id: str) -> tuple[WithParts, ...]:
        """All of them, oldest first; open parts with the text streamed so far."""
        path = f"/session/{quote(session_id, safe='')}/message"
        return msgspec.json.decode(
            await self._until_answered(lambda: self._send("GET", path)), type=tuple[WithParts, ...]
        )

    # --- turns --------------------------------------------------------------------------------------------------

    async def prompt(
        self,
        session_id: str,
        text: str,
        *,
        model: MessageModel | None = None,
        agent: str | None = None,
        message_id: str | None = None,
    ) -> str:
        """Record a prompt and answer its message id as soon as the server has it; the turn shows in `events`."""
        id = message_id or self.new_message_id()
        request: dict[str, Any] = {"messageID": id, "parts": [{"type": "text", "text": text}]}
        if model:
            request["model"] = model
        if agent:
            request["agent"] = agent
        body = to_json(request)
        path = f"/session/{quote(session_id, safe='')}/prompt_async"
        await self._until_answered(lambda: self._send("POST", path, body=body))
        return id

    def new_message_id(self) -> str:
        return self._ids.new("msg")

    async def abort(self, session_id: str) -> None:
        """Stop the running turn; queued prompts stay. Nothing happens when none runs."""
        path = f"/session/{quote(session_id, safe='')}/abort"
        await self._until_answered(lambda: self._send("POST", path))

    # --- what the agent asks ------------------------------------------------------------------------------------

    async def reply_permission(self, request_id: str, reply: PermissionReply, *, message: str | None = None) -> None:
        """`message` goes to the model with a `reject`. The first reply counts. Raises Refused (404) when it is too late."""
        body = to_json({"reply": reply} | ({"message": message} if message else {}))
        path = f"/permission/{quote(request_id, safe='')}/reply"
        await self._until_answered(lambda: self._send("POST", path, body=body))

    async def reply_question(self, request_id: str, answers: Sequence[Sequence[str]]) -> None:
        """One list of labels, or own words, for each question. Raises Refused (404) when it is too late."""
        body = to_json({"answers": answers})
        path = f"/question/{quote(request_id, safe='')}/reply"
        await self._until_answered(lambda: self._send("POST", path, body=body))

    async def reject_question(self, request_id: str) -> None:
        """Raises Refused (404) when it is too late."""
        path = f"/question/{quote(request_id, safe='')}/reject"
        await self._until_answered(lambda: self._send("POST", path))

    # --- events -------------------------------------------------------------------------------------------------

    def events(
        self, *, session_id: str | None = None, directory: str | None = None, after: Offset | None = None
    ) -> AsyncGenerator[Received | Interrupted]:
        """The events of a session, or of a project directory, for ever: each once and in order, over lost connections and
        restarts of the server. `after` is where to go on; without it, the present state comes first (`offset` None), then
        what happens from now on. See `client.subscription`."""
        params = {"session": session_id} if session_id else {"directory": directory} if directory else {}
        return subscribe(self._http, "/event", params, after=after, backoff=self._backoff(), sleep=self._sleep)

    # --- sessions as files --------------------------------------------------------------------------------------

    async def export_session(self, session_id: str) -> AsyncGenerator[bytes]:
        """The file, in pieces. Raises Unreachable if the connection breaks: what came so far is not all of it."""
        path = f"/session/{quote(session_id, safe='')}/export"
        try:
            async with self._http.stream("GET", path) as answer:
                if answer.status_code >= 400:
                    raise refusal(answer.status_code, await answer.aread())
                async for piece in answer.aiter_bytes():
                    yield piece
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    async def import_session(self, file: bytes) -> ImportedSession:
        """Raises Refused if the file is damaged (400) or the session exists (409)."""
        return msgspec.json.decode(await self._send("POST", "/session/import", body=file), type=ImportedSession)

    # --- one request --------------------------------------------------------------------------------------------

    async def _until_answered(self, send: Callable[[], Awaitable[bytes]]) -> bytes:
        backoff = self._backoff()
        while True:
            try:
                return await send()
            except Unavailable as error:
                wait_s = backoff.next_s()
                self._on_wait(Interrupted(error.message, backoff.attempt, wait_s))
                await self._sleep(wait_s)

    async def _send(self, method: str, path: str, *, body: bytes | None = None) -> bytes:
        try:
            answer = await self._http.request(
                method, path, content=body, headers={"content-type": "application/json"} if body is not None else None
            )
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if answer.status_code >= 400:
            raise refusal(answer.status_code, answer.content)
        return answer.content

    def _unreachable(self, error: httpx.TransportError) -> Unreachable:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return Unreachable(
                f"Nobody answers at {self.url}.",
                hint="Start a server there (`holdfast serve`), or say where it is (--server URL).",
            )
        return Unreachable(f"The connection to {self.url} broke before the answer came.")


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        is_one = False
    if not is_one:
        raise Invalid(f"Not the address of a server: {url!r}", hint=f"It looks like {DEFAULT_URL}.")
    return url


def is_local(url: str) -> bool:
    """Whether the server is on this machine: it then sees the same files, and no proxy leads to it."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
