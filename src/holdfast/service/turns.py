"""Turns as a user meets them: wait for one, stop one. Both go through the log, so they work from any connection."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, cast

from holdfast.core.codec import decode, type_of
from holdfast.core.errors import NotFound, Unavailable
from holdfast.core.events import Event, MessageRemoved, TurnAbortRequested, TurnEnded, TurnStarted
from holdfast.core.ids import check_id
from holdfast.core.reducer import Get
from holdfast.core.state import NO_TURNS, TURNS, Turns
from holdfast.core.store import Recorded, SessionScope, SessionStore

Watched = AsyncIterator[Sequence[Recorded]]

_ABORT_SECONDS_MAX: Final = 5.0

_STARTED: Final = frozenset({TurnStarted.type, TurnEnded.type, MessageRemoved.type})
_ENDED: Final = frozenset({TurnEnded.type, MessageRemoved.type})


class Waker(Protocol):
    """Whoever works on turns (`agent.runner.Engine`)."""

    def wake(self, session_id: str) -> None:
        """Something to do was recorded for this session."""
        ...


class TurnService:
    def __init__(self, store: SessionStore, engine: Waker) -> None:
        self._store = store
        self._engine = engine
        self._waits: set[asyncio.Task[None]] = set()
        self._stopping = False

    def watch(self, session_id: str) -> contextlib.AbstractAsyncContextManager[Watched]:
        """What is recorded from now on. Enter it before the append whose consequences you want to see."""
        return _closing(self._store.subscribe(SessionScope(session_id)))

    def wake(self, session_id: str) -> None:
        """Something to do was recorded for this session."""
        self._engine.wake(session_id)

    async def is_pending(self, session_id: str, message_id: str) -> bool:
        """Whether the prompt is queued or being answered."""
        turns = (await self._store.turn_state(session_id)).turns
        return message_id in turns.queue or (turns.active is not None and turns.active.message_id == message_id)

    async def current(self, session_id: str) -> str | None:
        """The prompt that is being answered, or will be next. Raises NotFound without the session."""
        turns = (await self._store.turn_state(check_id("ses", session_id, "sessionID"))).turns
        return turns.active.message_id if turns.active is not None else next(iter(turns.queue), None)

    async def ended(self, session_id: str, message_id: str, watched: Watched) -> None:
        """Work on the session, and return once the pending turn that answers `message_id` is over.

        Raises NotFound if the prompt was removed or its session deleted; Unavailable when the server stops: the turn
        goes on after the restart, and the same prompt may be posted again to wait for it."""
        self._engine.wake(session_id)
        await self._wait(_recorded(watched, session_id, message_id, _ENDED))

    async def running(self) -> tuple[str, ...]:
        """Sessions that are not idle."""
        return tuple(await self._store.statuses())

    async def abort(self, session_id: str) -> None:
        """Ask the running turn to stop; queued prompts stay. A prompt that is next and that nobody took up yet counts as
        running. Nothing happens if there is none. Raises NotFound without the session."""
        async with self.watch(check_id("ses", session_id, "sessionID")) as watched:
            turns = (await self._store.turn_state(session_id)).turns
            if turns.active is None:
                if not turns.queue:
                    return
                self._engine.wake(session_id)
                await self._within_reason(_recorded(watched, session_id, turns.queue[0], _STARTED))
        await self._store.append(session_id, lambda get: _abort(session_id, turns_of(get)))
        self._engine.wake(session_id)

    async def end_all(self, session_id: str) -> None:
        """Drop what is queued, abort what runs, and return once it is over (or takes too long). Raises NotFound."""
        running: list[str] = []

        def decide(get: Get) -> Sequence[Event]:
            turns = turns_of(get)
            running[:] = [turns.active.message_id] if turns.active else []
            dropped = [MessageRemoved(session_id=session_id, message_id=id) for id in turns.queue]
            return [*dropped, *_abort(session_id, turns)]

        async with self.watch(session_id) as watched:
            await self._store.append(session_id, decide)
            if running:
                self._engine.wake(session_id)
                await self._within_reason(_recorded(watched, session_id, running[0], _ENDED))

    async def unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for it. Raises Unavailable when the server stops before it is done."""
        await self._wait(work)

    def stop(self) -> None:
        """The server stops: everyone who waits gets Unavailable."""
        self._stopping = True
        for wait in tuple(self._waits):
            wait.cancel()

    async def _within_reason(self, until: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(TimeoutError, NotFound):
            async with asyncio.timeout(_ABORT_SECONDS_MAX):
                await self._wait(until)

    async def _wait(self, until: Coroutine[Any, Any, None]) -> None:
        wait = asyncio.create_task(until)
        self._waits.add(wait)
        if self._stopping:
            wait.cancel()
        try:
            await wait
        except asyncio.CancelledError:
            if self._stopping and wait.cancelled():
                raise _stopped() from None
            raise
        finally:
            wait.cancel()
            self._waits.discard(wait)


def turns_of(get: Get) -> Turns:
    turns = get(TURNS)
    return turns if isinstance(turns, Turns) else NO_TURNS


def _abort(session_id: str, turns: Turns) -> Sequence[Event]:
    return [TurnAbortRequested(session_id=session_id, message_id=turns.active.message_id)] if turns.active else []


async def _recorded(watched: Watched, session_id: str, message_id: str, kinds: frozenset[str]) -> None:
    """Return once an event of one of these kinds is recorded for the message."""
    async for batch in watched:
        for record in batch:
            kind = type_of(record.tag)
            if kind not in kinds:
                continue
            _, event = decode(record.tag, record.data)
            if getattr(event, "message_id", None) != message_id:
                continue
            if isinstance(event, MessageRemoved):
                raise NotFound("Message", message_id, hint="The prompt was removed before it was answered.")
            return
    raise NotFound("Session", session_id, hint="The session was deleted before the prompt was answered.")


def _closing(watched: Watched) -> contextlib.AbstractAsyncContextManager[Watched]:
    """A subscription is a generator: closed when nobody needs it any more, the store forgets it at once."""
    generator = cast(AsyncGenerator[Sequence[Recorded], None], watched)
    return cast(Callable[..., contextlib.AbstractAsyncContextManager[Watched]], contextlib.aclosing)(generator)


def _stopped() -> Unavailable:
    return Unavailable(
        "The server is stopping; the turn goes on when it is back.",
        hint="Post the same message again to wait for its answer.",
    )
