"""What a user can do to a conversation, beside talking: run a command, summarise, take back, copy, edit.

Taking back (revert) has two halves. `revert` restores the files and marks the place; the messages stay, so that `unrevert`
can undo it. The next prompt makes it final: what stands after the place is removed then.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final
from weakref import WeakValueDictionary

from msgspec.structs import replace

from holdfast.agent.snapshots import Patch, Snapshots, WorkTree
from holdfast.agent.turn.outcomes import SHELL
from holdfast.core.clock import Clock
from holdfast.core.errors import Conflict, HoldfastError, Invalid, NotFound, SessionBusy, Unavailable
from holdfast.core.events import (
    Event,
    MessageRemoved,
    MessageUpdated,
    PartRemoved,
    PartUpdated,
    SessionCreated,
    SessionUpdated,
    TurnRequested,
)
from holdfast.core.ids import Prefix, check_id
from holdfast.core.messages import (
    AssistantMessage,
    CompactionPart,
    MessageModel,
    Part,
    TextPart,
    UserMessage,
    UserTime,
    WithParts,
    is_open,
)
from holdfast.core.reducer import Get
from holdfast.core.session import NO_TOKENS, Session, SessionModel, SessionRevert, SessionTime, touched
from holdfast.core.state import Key
from holdfast.core.store import RawMessage, SessionStore
from holdfast.core.wire import Wire
from holdfast.service.instances import Instance, Instances
from holdfast.service.messages import PAGE_MESSAGES, MessageService, Place, decoded
from holdfast.service.projects import worktree_of
from holdfast.service.sessions import check_session_id, session_of
from holdfast.service.slugs import new_slug
from holdfast.service.turns import TurnService, turns_of

_SHELL_TEXT: Final = "The following tool was executed by the user"
_COMMAND_CHARACTERS_MAX: Final = 100_000


class Shell(Wire):
    message_id: str | None = None
    agent: str
    model: MessageModel | None = None
    command: str


class Summarize(Wire):
    """`auto`: go on with the work afterwards."""

    provider_id: str
    model_id: str
    auto: bool = False


class Revert(Wire):
    """Take back from this message on, or from this part of it on."""

    message_id: str
    part_id: str | None = None


class Fork(Wire):
    """Copy what stands before this message; everything without one."""

    message_id: str | None = None


class OperationService:
    def __init__(
        self,
        store: SessionStore,
        *,
        clock: Clock,
        new_id: Callable[[Prefix], str],
        pick: Callable[[int], int],
        instances: Instances,
        turns: TurnService,
        messages: MessageService,
        snapshots: Snapshots | None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._pick = pick
        self._instances = instances
        self._turns = turns
        self._messages = messages
        self._snapshots = snapshots
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # --- turns without a prompt to the LLM

    async def shell(self, session_id: str, request: Shell) -> WithParts | RawMessage:
        """Run a command in the session, as a turn of its own that the LLM sees later. Nobody is asked for permission: the
        user gave the command. Answers the message with the call; the same message id again is the same command, also while it
        runs. Raises SessionBusy."""
        instance = await self._instances.open((await self._store.session(check_session_id(session_id))).directory)
        agent = instance.agent(request.agent)
        if request.model is not None:
            instance.check_model(request.model.provider_id, request.model.model_id)
        if not request.command.strip() or "\0" in request.command or len(request.command) > _COMMAND_CHARACTERS_MAX:
            raise Invalid("A command is a line of text without NUL.", field="command")
        given = request.message_id
        id = check_id("msg", given, "messageID") if given is not None else self._new_id("msg")
        part = TextPart(
            id=self._new_id("prt"),
            session_id=session_id,
            message_id=id,
            text=_SHELL_TEXT,
            synthetic=True,
            metadata={SHELL: request.command},
        )

        def model(session: Session) -> MessageModel:
            return request.model or instance.model_for(agent, session.model)

        return await self._turn(session_id, id, agent.name, model, part)

    async def summarize(self, session_id: str, request: Summarize) -> None:
        """Replace what the LLM sees of the conversation by a summary of it; returns when that is done."""
        instance = await self._idle(session_id)
        instance.check_model(request.provider_id, request.model_id)
        id = self._new_id("msg")
        part = CompactionPart(id=self._new_id("prt"), session_id=session_id, message_id=id, auto=request.auto)
        model = MessageModel(provider_id=request.provider_id, model_id=request.model_id)
        await self._turn(session_id, id, None, lambda session: model, part)

    async def _turn(
        self,
        session_id: str,
        id: str,
        agent: str | None,
        model: Callable[[Session], MessageModel],
        part: Part,
    ) -> WithParts | RawMessage:
        now = self._clock.now_ms()

        def decide(get: Get) -> Sequence[Event]:
            session = session_of(get, session_id)
            known = get(Key("message", id))
            if known is not None:
                if not isinstance(known, UserMessage):
                    raise Conflict(f"Message {id} is not a prompt.")
                return []
            _check_idle(get, session_id)
            chosen = model(session)
            user = UserMessage(
                id=id,
                session_id=session_id,
                time=UserTime(created=now),
                agent=agent or session.agent or "build",
                model=chosen,
            )
            used = SessionModel(id=chosen.model_id, provider_id=chosen.provider_id, variant=chosen.variant)
            updated = replace(touched(session, now), model=used, revert=None)
            return [
                SessionUpdated(session_id=session_id, info=updated),
                MessageUpdated(session_id=session_id, info=user),
                PartUpdated(session_id=session_id, part=part, time=now),
                TurnRequested(session_id=session_id, message_id=id),
            ]

        async with self._turns.watch(session_id) as watched:
            await self._messages.append_prompt(session_id, decide, key=f"prompt:{id}")
            if await self._turns.is_pending(session_id, id):
                await self._turns.ended(session_id, id, watched)
        return await self._messages.answer(session_id, id)

    # --- taking back

    async def revert(self, session_id: str, request: Revert) -> Session:
        """The mark is recorded before a file is touched: a revert that is refused changes none, and one in which the server
        died can be made again, or taken back. Raises SessionBusy, NotFound for a message or part that is not in the session;
        Unavailable if there are no snapshots to take files from."""
        async with self._restoring(session_id):
            await self._idle(session_id)
            check_id("msg", request.message_id, "messageID")
            place = await self._messages.place(session_id, request.message_id, request.part_id)
            session = await self._store.session(session_id)
            tree = self._tree(session)
            earlier = session.revert
            known = earlier.snapshot if earlier else None
            mark = SessionRevert(message_id=place.message_id, part_id=place.part_id, snapshot=known)
            if tree is None or not (place.patches or known):
                return await self._change(session_id, lambda session: replace(session, revert=mark))
            before = known or await tree.take()
            if before is None:
                raise Unavailable("There are no snapshots of this directory.", hint="The log of the server says why.")
            mark = replace(mark, snapshot=before)
            back = await self._marked(session_id, earlier)
            # Until the files are there, the mark is the place further back: it names all files that may have been touched.
            first = earlier if earlier and back and _is_further(back, place) else mark
            await self._change(session_id, lambda session: replace(session, revert=first))
            try:
                if known is not None:  # another place was marked before: begin with the files as they were then
                    await tree.restore(known, _files(back), kept=session.directory)
                await tree.undo([Patch(part.hash, part.files) for part in place.patches], kept=session.directory)
            except HoldfastError:
                await self._mark_again(session_id, first, earlier)
                raise
            after = await tree.take()
            diff = await tree.raw_diff(before, after) if after is not None else None  # what taking back did
            return await self._mark_again(session_id, first, replace(mark, diff=diff))

    async def unrevert(self, session_id: str) -> Session:
        """Bring the files that were taken back to what they were before. What else changed in the directory since then,
        by the user or by another session, stays. Nothing happens if there is no revert."""
        async with self._restoring(session_id):
            await self._idle(session_id)
            session = await self._store.session(session_id)
            if session.revert is None:
                return session
            tree = self._tree(session)
            if tree is not None and session.revert.snapshot is not None:
                files = _files(await self._marked(session_id, session.revert))
                await tree.restore(session.revert.snapshot, files, kept=session.directory)
            return await self._change(session_id, lambda session: replace(session, revert=None))

    def _restoring(self, session_id: str) -> asyncio.Lock:
        """One at a time takes a session's files back or brings them again: each goes by the mark of the one before."""
        lock = self._locks.get(session_id)
        if lock is None:
            lock = self._locks[session_id] = asyncio.Lock()
        return lock

    async def _marked(self, session_id: str, mark: SessionRevert | None) -> Place | None:
        """None also if the message is gone: it could be removed on its own."""
        if mark is None:
            return None
        try:
            return await self._messages.place(session_id, mark.message_id, mark.part_id)
        except NotFound:
            return None

    # --- copying

    async def fork(self, session_id: str, request: Fork) -> Session:
        """A new session with the conversation up to a message. Raises NotFound."""
        source = await self._store.session(check_session_id(session_id))
        if request.message_id is not None:
            await self._store.message(session_id, request.message_id)
        now = self._clock.now_ms()
        fork = Session(
            id=self._new_id("ses"),
            slug=new_slug(self._pick),
            version=source.version,
            project_id=source.project_id,
            directory=source.directory,
            path=source.path,
            title=_fork_title(source.title),
            cost=0,
            tokens=NO_TOKENS,
            time=SessionTime(created=now, updated=now),
        )
        events: list[Event] = [SessionCreated(session_id=fork.id, info=fork)]
        ids: dict[str, str] = {}
        async for message in self._until(session_id, request.message_id):
            ids[message.info.id] = self._new_id("msg")
            copied = _copied(message, fork.id, ids, self._new_id, now)
            events.append(MessageUpdated(session_id=fork.id, info=copied.info))
            events += [PartUpdated(session_id=fork.id, part=part, time=now) for part in copied.parts]
        await self._store.append(fork.id, events)
        return fork

    async def _until(self, session_id: str, message_id: str | None) -> AsyncIterator[WithParts]:
        """The messages before that one, oldest first; a page at a time, so that others are served in between."""
        after = 0
        while True:
            page = await self._store.message_page(session_id, after=after, limit=PAGE_MESSAGES)
            for message in page.messages:
                if message.id == message_id:
                    return
                yield decoded(message)
            if not page.more or not page.messages:
                return
            after = page.messages[-1].version

    # --- editing

    async def remove_message(self, session_id: str, message_id: str) -> None:
        """With its parts. Raises SessionBusy, NotFound."""
        await self._idle(session_id)
        await self._store.message(session_id, check_id("msg", message_id, "messageID"))
        await self._append_idle(session_id, [MessageRemoved(session_id=session_id, message_id=message_id)])

    async def remove_part(self, session_id: str, message_id: str, part_id: str) -> None:
        """Raises NotFound; Conflict while it is still growing."""
        await self._part(session_id, message_id, part_id)

        def decide(get: Get) -> Sequence[Event]:
            part = get(Key("part", part_id))
            if isinstance(part, Part) and is_open(part):  # who writes it would fail, and its turn with it
                raise _being_written(part_id)
            return [PartRemoved(session_id=session_id, message_id=message_id, part_id=part_id)]

        await self._store.append(session_id, decide)

    async def replace_part(self, session_id: str, message_id: str, part_id: str, part: Part) -> Part:
        """Raises NotFound; Invalid if the part says it is another one; Conflict while it is still growing."""
        if (part.id, part.message_id, part.session_id) != (part_id, message_id, session_id):
            raise Invalid("The ids of the part are not those of the path.", field="id")
        await self._part(session_id, message_id, part_id)

        def decide(get: Get) -> Sequence[Event]:
            known = get(Key("part", part_id))
            if not isinstance(known, Part):  # removed a moment ago: it does not come back by this
                raise NotFound("Part", part_id)
            if is_open(known) or is_open(part):
                raise _being_written(part_id)
            return [PartUpdated(session_id=session_id, part=part, time=self._clock.now_ms())]

        await self._store.append(session_id, decide)
        return part

    def share(self, session_id: str) -> None:
        """Sharing needs a hub, and none is configured. Raises Unavailable."""
        check_session_id(session_id)
        raise Unavailable("Sharing needs a hub, and none is configured on this server.")

    # --- plumbing

    async def _idle(self, session_id: str) -> Instance:
        """The session's instance. Raises NotFound, SessionBusy."""
        session = await self._store.session(check_session_id(session_id))
        turns = (await self._store.turn_state(session_id)).turns
        if turns.active is not None or turns.queue:
            raise SessionBusy(session_id)
        return await self._instances.open(session.directory)

    async def _append_idle(self, session_id: str, events: Sequence[Event]) -> None:
        def decide(get: Get) -> Sequence[Event]:
            _check_idle(get, session_id)
            return events

        await self._store.append(session_id, decide)

    async def _change(self, session_id: str, change: Callable[[Session], Session]) -> Session:
        changed: list[Session] = []

        def decide(get: Get) -> Sequence[Event]:
            _check_idle(get, session_id)
            changed[:] = [change(touched(session_of(get, session_id), self._clock.now_ms()))]
            return [SessionUpdated(session_id=session_id, info=changed[0])]

        await self._store.append(session_id, decide)
        return changed[0]

    async def _mark_again(self, session_id: str, known: SessionRevert, mark: SessionRevert | None) -> Session:
        """Another mark in the place of the known one. Without that, the session as it is: a prompt has made it final."""
        now: list[Session] = []

        def decide(get: Get) -> Sequence[Event]:
            now[:] = [session_of(get, session_id)]
            if now[0].revert != known:
                return []
            now[:] = [replace(touched(now[0], self._clock.now_ms()), revert=mark)]
            return [SessionUpdated(session_id=session_id, info=now[0])]

        await self._store.append(session_id, decide)
        return now[0]

    async def _part(self, session_id: str, message_id: str, part_id: str) -> Part:
        check_id("prt", part_id, "partID")
        message = await self._store.message(check_session_id(session_id), check_id("msg", message_id, "messageID"))
        for part in message.parts:
            if part.id == part_id:
                return part
        raise NotFound("Part", part_id)

    def _tree(self, session: Session) -> WorkTree | None:
        if self._snapshots is None:
            return None
        return self._snapshots.of(worktree_of(session.directory) or session.directory)


def _check_idle(get: Get, session_id: str) -> None:
    """In the transaction: a prompt may have come since somebody looked. Raises SessionBusy."""
    turns = turns_of(get)
    if turns.active is not None or turns.queue:
        raise SessionBusy(session_id)


def _is_further(place: Place, than: Place) -> bool:
    return (len(place.messages), len(place.parts)) > (len(than.messages), len(than.parts))


def _files(place: Place | None) -> set[str] | None:
    """Those that were taken back; None, for all, if nobody knows."""
    return {file for patch in place.patches for file in patch.files} if place is not None else None


def _being_written(part_id: str) -> Conflict:
    return Conflict(f"Part {part_id} is still being written.", hint="Wait for the turn to end.")


def _copied(
    message: WithParts, session_id: str, ids: dict[str, str], new_id: Callable[[Prefix], str], now: int
) -> WithParts:
    id = ids[message.info.id]
    info = replace(message.info, id=id, session_id=session_id)
    if isinstance(info, AssistantMessage):
        info = replace(
            info,
            parent_id=ids.get(info.parent_id, info.parent_id),
            time=replace(info.time, completed=info.time.completed or now),
        )
    parts = tuple(
        replace(part, id=new_id("prt"), session_id=session_id, message_id=id)
        for part in message.parts
        if not is_open(part)
    )
    return WithParts(info=info, parts=parts)


def _fork_title(title: str) -> str:
    base, mark, number = title.rpartition(" (fork #")
    if mark and number.removesuffix(")").isdigit():
        return f"{base} (fork #{int(number.removesuffix(')')) + 1})"
    return f"{title} (fork #1)"
