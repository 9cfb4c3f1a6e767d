"""`holdfast run`: one turn, from the prompt to its end, over whatever happens to the server in between."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from holdfast.cli.asking import Asker, ReadLine
from holdfast.cli.outcome import FAILED, INTERRUPTED
from holdfast.cli.tail import line
from holdfast.cli.terminal import Terminal
from holdfast.cli.turn_view import Notice, TurnView
from holdfast.client import Client, Interrupted, Received, Refused
from holdfast.core.errors import Invalid
from holdfast.core.messages import MessageModel
from holdfast.core.session import Session

_NOT_FOUND: Final = 404
_CHILD_PAUSE_S: Final = 0.1


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """`session_id`: go on in that session; a new one without."""

    text: str
    session_id: str | None
    model: MessageModel | None
    agent: str | None


def text_of(prompt: bytes) -> str:
    try:
        return prompt.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"The prompt is not UTF-8 text: byte {error.start + 1} of it is none.") from None


def parse_model(text: str | None) -> MessageModel | None:
    """`provider/model`; the model's name may hold slashes of its own."""
    if text is None:
        return None
    provider_id, _, model_id = text.partition("/")
    if not provider_id or not model_id:
        raise Invalid(f"Not a model: {text!r}", hint="It looks like PROVIDER/MODEL, for example demo/demo-1.")
    return MessageModel(provider_id=provider_id, model_id=model_id)


async def run(
    client: Client, prompt: Prompt, terminal: Terminal, *, as_json: bool, read_line: ReadLine | None = None
) -> int:
    """The exit code: 0 if the turn completed. `read_line`: what the turn asks, the user is asked here. Raises what the
    server says no with."""
    asker = Asker(client, terminal, read_line) if read_line is not None else None
    return await _Run(client, prompt, terminal, as_json=as_json, asker=asker).until_ended()


class _Run:
    def __init__(
        self, client: Client, prompt: Prompt, terminal: Terminal, *, as_json: bool, asker: Asker | None
    ) -> None:
        self._client = client
        self._asker = asker
        self._prompt = prompt
        self._terminal = terminal
        self._as_json = as_json
        self._message_id = client.new_message_id()
        self._view = TurnView(self._message_id)
        self._session: Session | None = None
        self._asked = False
        self._lost = False
        self._aborting: asyncio.Task[None] | None = None
        self._children: dict[str, asyncio.Task[None]] = {}

    async def until_ended(self) -> int:
        following = asyncio.ensure_future(self._follow())
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C ends the command, and the turn goes on
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupt, following)
        try:
            await following
        except asyncio.CancelledError:
            if self._asked:
                self._terminal.note("The server goes on with it. Look at it again with `holdfast tail`.", "yellow")
            return INTERRUPTED
        finally:
            if self._asker is not None:
                self._asker.stop()
            for task in (self._aborting, *self._children.values()):
                if task is not None:
                    task.cancel()
        if self._view.ended and self._view.ended.outcome == "completed":
            return 0
        return INTERRUPTED if self._aborting is not None else FAILED

    def _interrupt(self, following: asyncio.Future[None]) -> None:
        if self._aborting is not None or self._session is None or not self._view.started:
            following.cancel()
            return
        self._terminal.note("Aborting the turn. Ctrl-C again leaves at once.", "yellow")
        self._aborting = asyncio.ensure_future(self._abort(self._session))

    async def _abort(self, session: Session) -> None:
        with contextlib.suppress(Refused):  # it is over already, and the events say how
            await self._client.abort(session.id)

    async def _follow(self) -> None:
        await self._client.health()
        id = self._prompt.session_id
        session = self._session = await (self._client.session(id) if id else self._client.create_session())
        async with contextlib.aclosing(self._client.events(session_id=session.id)) as items:
            async for item in items:
                if isinstance(item, Interrupted):
                    self._say_lost()
                else:
                    self._show(item)
                    # Not before there is a place to go on from: nothing of the turn can happen unseen then.
                    if not self._asked and item.place is not None:
                        await self._ask(session)
                if self._view.ended is not None:
                    return

    async def _ask(self, session: Session) -> None:
        prompt = self._prompt
        try:
            await self._client.prompt(
                session.id, prompt.text, model=prompt.model, agent=prompt.agent, message_id=self._message_id
            )
        except Refused:
            if prompt.session_id is None and not await self._client.messages(session.id):
                await self._client.delete_session(session.id)  # made for this prompt only
            raise
        self._asked = True

    def _say_lost(self) -> None:
        if not self._lost:
            self._lost = True
            self._terminal.note("Lost the server; waiting for it to come back.", "yellow")

    def _show(self, item: Received) -> None:
        if self._lost:
            self._lost = False
            self._terminal.note("Connected again.", "yellow")
        if item.type == "server.heartbeat" and item.place is None:
            raise Invalid(
                f"The server at {self._client.url} is no Holdfast: its events have no offsets.",
                hint="OpenCode's own server listens on the same port. Say where Holdfast is with --server URL.",
            )
        if self._as_json and item.offset is not None:
            sys.stdout.buffer.write(line(item))
            sys.stdout.buffer.flush()
        event = item.event()
        if event is not None:
            self._tell(self._view.apply(event))

    def _tell(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            if not self._as_json:
                self._terminal.show(notice)
        if self._asker is not None:
            self._asker.changed(self._view)
        working = set(self._view.children.values())
        for session_id in self._children.keys() - working:
            self._children.pop(session_id).cancel()
        for session_id in working - self._children.keys():
            self._children[session_id] = asyncio.create_task(self._follow_child(session_id))

    async def _follow_child(self, session_id: str) -> None:
        """What a subagent wants to know is asked here as well."""
        while True:
            try:
                async with contextlib.aclosing(self._client.events(session_id=session_id)) as items:
                    async for item in items:
                        event = item.event() if isinstance(item, Received) else None
                        if event is not None:
                            self._tell(self._view.apply_of_child(event))
            except Refused as refused:
                if refused.status != _NOT_FOUND:
                    self._terminal.note(f"What a subagent asks cannot be seen here: {refused.message}", "yellow")
                    return
            await asyncio.sleep(_CHILD_PAUSE_S)  # its id is recorded before it is made
