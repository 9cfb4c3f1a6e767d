"""One worker per session that has something to do; started by whoever recorded it, and at start for everything unfinished."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from holdfast.agent.runner.environment import Environment
from holdfast.agent.runner.session_log import SessionLog
from holdfast.agent.runner.worker import Worker
from holdfast.core.clock import Clock
from holdfast.core.ids import Prefix
from holdfast.core.store import SessionStore

DEATHS_MAX: Final = 2
"""So many workers of a session may die of a defect in a row before its turn is given up."""

log = structlog.get_logger()


class Engine:
    """`owner` names this process in leases; `jitter` gives numbers in [0, 1)."""

    def __init__(
        self,
        *,
        store: SessionStore,
        clock: Clock,
        new_id: Callable[[Prefix], str],
        jitter: Callable[[], float],
        environment: Environment,
        owner: str,
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._jitter = jitter
        self._environment = environment
        self._owner = owner
        self._workers: dict[str, tuple[Worker, asyncio.Task[None]]] = {}
        self._others: set[asyncio.Task[None]] = set()
        self._deaths: dict[str, int] = {}
        self._stopping = False

    async def start(self) -> None:
        """Take up every turn that was not ended and every prompt that was not answered when the server stopped or died."""
        for session_id in await self._store.unfinished():
            self.wake(session_id)

    def wake(self, session_id: str) -> None:
        """Something to do was recorded for this session: make sure that somebody does it. Cheap; call it as often as you like."""
        if self._stopping:
            return
        known = self._workers.get(session_id)
        if known is not None:
            known[0].poked = True
            return
        self._begin(session_id, gives_up=self._deaths.get(session_id, 0) > DEATHS_MAX)

    def _begin(self, session_id: str, *, gives_up: bool) -> None:
        record = SessionLog(session_id, store=self._store, clock=self._clock, new_id=self._new_id)
        worker = Worker(
            record,
            jitter=self._jitter,
            environment=self._environment,
            subagents=self,
            owner=self._owner,
            beside=self._beside,
        )
        work = worker.give_up() if gives_up else worker.run()
        task = asyncio.create_task(work, name=f"turn {session_id}")
        self._workers[session_id] = (worker, task)
        task.add_done_callback(lambda done: self._ended(session_id, worker, done))

    def _ended(self, session_id: str, worker: Worker, task: asyncio.Task[None]) -> None:
        """A worker that died of a defect would leave its session busy for ever: begin again, some times, then give the turn
        up. If not even that can be recorded, the session waits for the next prompt, or for a restart."""
        del self._workers[session_id]
        if task.cancelled():
            self._deaths.pop(session_id, None)
            return
        error = task.exception()
        if error is None:
            self._deaths.pop(session_id, None)
            if worker.poked:
                self.wake(session_id)
            return
        if not isinstance(error, Exception):
            raise error  # the process is to end: the loop's exception handler says so
        deaths = self._deaths[session_id] = self._deaths.get(session_id, 0) + 1
        log.error("worker.died", session=session_id, deaths=deaths, exc_info=error)
        if deaths <= DEATHS_MAX + 1:
            self.wake(session_id)
        else:
            del self._deaths[session_id]

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    async def idle(self) -> None:
        """Return once no session has anything to do. For tests and orderly tools."""
        while self._workers or self._others:
            await asyncio.wait({*(task for _, task in self._workers.values()), *self._others})

    async def stop(self) -> None:
        """Suspend every turn: what was streamed is recorded, tools are ended, and a later start goes on from there."""
        self._stopping = True
        tasks = [*(task for _, task in self._workers.values()), *self._others]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
