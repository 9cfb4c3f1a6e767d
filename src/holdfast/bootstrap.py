"""The only place that chooses concrete parts, and the order in which they start and stop.

Start: store, engine (which takes up what was left unfinished), upkeep. Stop: no new connections; the engine suspends its
turns; whoever waits for one is told; the store finishes its commits and ends the event streams; the tools' processes end.
A store that was let down by its disk stops the server: `Application.failed` says why.
"""

import asyncio
import contextlib
import os
import random
import secrets
import signal
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import msgspec
import structlog

from holdfast.agent.providers.connections import Connections
from holdfast.agent.providers.registry import ADAPTERS, Adapters
from holdfast.agent.runner import Engine
from holdfast.agent.snapshots import Snapshots
from holdfast.agent.tools import Processes, built_in
from holdfast.agent.tools.command_lines import CommandLines
from holdfast.agent.tools.formatters import Formatters
from holdfast.core.errors import HoldfastError, StorageError
from holdfast.core.ids import IdGenerator
from holdfast.core.store import SessionStore
from holdfast.server.aisdk import ChatStreams
from holdfast.server.app import BODY_BYTES_MAX, HEARTBEAT_SECONDS, ServerOptions, create_app
from holdfast.server.auth import USERNAME, Gate, check_binding, checked_origins, is_loopback
from holdfast.server.listener import Listener, bind
from holdfast.server.streams import StreamFace, StreamOptions, Wording, key_id
from holdfast.service.config import Configuration, config_directory, own_directory
from holdfast.service.config_changes import ConfigChanges
from holdfast.service.credentials import Credentials
from holdfast.service.environment import InstanceEnvironment
from holdfast.service.formatters import FormatterService
from holdfast.service.instances import Instances
from holdfast.service.lsp import LspService
from holdfast.service.mcp import McpService
from holdfast.service.mcp_grants import SealedGrants
from holdfast.service.offers import OfferService
from holdfast.service.project_details import ProjectDetails
from holdfast.service.projects import Locations
from holdfast.service.pty import PtyService
from holdfast.service.seal import Seal
from holdfast.service.services import make_services
from holdfast.service.session_streams import SessionStreams
from holdfast.service.signing import Signer
from holdfast.service.stream_links import StreamLinks
from holdfast.service.streams import StreamService
from holdfast.service.subscriptions import SubscriptionService
from holdfast.service.upkeep import Upkeep
from holdfast.service.webhooks import Webhooks
from holdfast.service.worktrees import WorktreeService
from holdfast.storage.memory import MemoryStore
from holdfast.storage.sqlite import SqliteReader, SqliteStore, holder

log = structlog.get_logger()

_COMPACT_RECORDS_MAX: Final = 500
_COMPACT_PAUSE_SECONDS: Final = 0.05
_ENGINE_SECONDS_MAX: Final = 2.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a server can be told. `data` is where records last (None: in memory, for tests); `directory` the project that
    requests mean when they name none. `allow_hosts` are further names of this server, `cors` origins of pages that may use
    it. Deltas of a part go away `delta_age_ms` after it closed, looked for every `compact_every_seconds`. `adapters` speak
    the wire formats that `npm` names in `opencode.json`."""

    data: Path | None
    directory: Path
    host: str = "127.0.0.1"
    port: int = 4096
    username: str = USERNAME
    password: str | None = None
    cors: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    body_bytes_max: int = BODY_BYTES_MAX
    streams: StreamOptions = StreamOptions()
    delta_age_ms: int = 3600 * 1000
    compact_every_seconds: float = 60.0
    adapters: Adapters = msgspec.field(default_factory=lambda: ADAPTERS)
    home: Path = Path.home()
    environ: Mapping[str, str] = msgspec.field(default_factory=lambda: os.environ)


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep_until(self, deadline_ms: int) -> None:
        left_ms = deadline_ms - self.now_ms()
        if left_ms > 0:
            await asyncio.sleep(left_ms / 1000)


class Application:
    """A server without its socket. `failed` is done, with the reason, when the store cannot go on."""

    def __init__(
        self, settings: Settings, store: MemoryStore | SqliteStore, failed: asyncio.Future[StorageError]
    ) -> None:
        clock = SystemClock()
        self._temporary: TemporaryDirectory[str] | None = None
        state = settings.data
        if state is None:  # what tools leave is gone when the server is, as all the rest
            self._temporary = TemporaryDirectory(prefix="holdfast-", ignore_cleanup_errors=True)
            state = Path(self._temporary.name)
        tool_output = state / "tool-output"
        connections = Connections()
        seal, credentials, grants = stored_keys(settings.data, settings.environ, settings.home)
        configuration = Configuration(
            environ=settings.environ,
            home=settings.home,
            connections=connections,
            adapters=settings.adapters,
            credentials=credentials,
        )
        instances = Instances(
            str(settings.directory), configuration=configuration, clock=clock, tool_output=str(tool_output)
        )
        processes = Processes()
        snapshots = Snapshots(settings.data) if settings.data is not None else None
        own_configuration = config_directory(settings.environ, settings.home)
        formatters = FormatterService(instances)
        lsp = LspService(processes, clock=clock, opened=instances.opened)
        tools = built_in(
            processes,
            configuration=own_configuration,
            home=settings.home,
            formatters=Formatters(processes, formatters.configured),
            checks=lsp,
        )
        mcp = McpService(processes, clock=clock, grants=grants)

        def disposed(directory: str) -> None:
            mcp.dispose(directory)
            lsp.dispose(directory)

        instances.disposed = disposed
        environment = InstanceEnvironment(
            instances,
            tools=tools,
            clock=clock,
            tool_output=tool_output,
            snapshots=snapshots,
            mcp=mcp,
            configuration=own_configuration,
        )
        self.failed = failed
        self.store: SessionStore = store
        self.engine = Engine(
            store=store,
            clock=clock,
            new_id=store.ids.new,
            jitter=random.random,
            environment=environment,
            owner=f"{os.getpid()}-{secrets.token_hex(4)}",
        )
        signer = Signer(store.subscriptions, seal=seal, key_id=key_id, entropy=os.urandom)
        self.services = make_services(
            store,
            self.engine,
            clock=clock,
            new_id=store.ids.new,
            pick=random.randrange,
            instances=instances,
            locations=Locations(
                home=str(settings.home),
                state=str(state),
                config=str(own_configuration),
            ),
            ptys=PtyService(processes, clock=clock, environ=settings.environ),
            mcp=mcp,
            lsp=lsp,
            formatters=formatters,
            offers=OfferService(tools, own_configuration, settings.home),
            config_changes=ConfigChanges(configuration, str(settings.directory)),
            lines=CommandLines(processes),
            tool_output=tool_output,
            credentials=credentials,
            project_details=ProjectDetails(settings.data / "projects.json" if settings.data is not None else None),
            worktrees=WorktreeService(store, state / "worktree", processes, pick=random.randrange),
            snapshots=snapshots,
            stream_links=StreamLinks(signer, password=settings.password, clock=clock),
        )
        self.subscriptions = SubscriptionService(
            store.subscriptions,
            store.byte_streams,
            signer=signer,
            webhooks=Webhooks(allow_local=is_loopback(settings.host)),
            wording=Wording(),
            clock=clock,
            new_wake_id=lambda: f"w_{secrets.token_hex(12)}",
            jitter=random.random,
        )
        store.byte_streams.heard = self.subscriptions.heard
        self.streams = StreamService(store.byte_streams, SessionStreams(store), ChatStreams(store))
        self.asgi = create_app(
            self.services,
            StreamFace(
                self.streams,
                self.subscriptions,
                self.services.stream_links,
                settings.streams,
                clock=clock,
                pick=random.randrange,
            ),
            ServerOptions(
                gate=Gate(
                    host=settings.host,
                    hosts=tuple(name.lower() for name in settings.allow_hosts),
                    origins=checked_origins(settings.cors),
                    username=settings.username,
                    password=settings.password,
                ),
                heartbeat_seconds=settings.heartbeat_seconds,
                body_bytes_max=settings.body_bytes_max,
            ),
        )
        self._settings = settings
        self._clock = clock
        self._processes = processes
        self._connections = connections
        self._upkeep = Upkeep(
            store,
            clock=clock,
            instances=instances,
            tool_output=tool_output if settings.data is not None else None,
            snapshots=snapshots,
        )
        self._background: tuple[asyncio.Task[None], ...] = ()
        self._stopping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.engine.start()
        await self.subscriptions.start()
        await self.streams.start()
        self._background = (asyncio.create_task(self._compact()), asyncio.create_task(self._upkeep.run()))

    async def stop(self) -> None:
        """In good order. May be called more than once; returns when all is done."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        for task in self._background:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.engine.stop(), _ENGINE_SECONDS_MAX)
        self.services.turns.stop()
        await self.streams.stop()
        await self.subscriptions.stop()
        await asyncio.gather(self.services.ptys.close(), self.services.mcp.close(), self.services.lsp.close())
        await self.store.close()
        await self._processes.close()
        await self._connections.close()
        if self._temporary is not None:
            await asyncio.to_thread(self._temporary.cleanup)

    async def _compact(self) -> None:
        """Small batches with pauses, so that appends hardly notice."""
        settings = self._settings
        while True:
            await asyncio.sleep(settings.compact_every_seconds)
            try:
                before = self._clock.now_ms() - settings.delta_age_ms
                removed = 1
                while removed:
                    removed = await self.store.compact(closed_before_ms=before, records_max=_COMPACT_RECORDS_MAX)
                    await asyncio.sleep(_COMPACT_PAUSE_SECONDS)
            except HoldfastError as error:
                log.error("compaction.failed", reason=error.message)
            except Exception:  # whatever it is, the next time may go better
                log.exception("compaction.failed")


class StoredKeys(NamedTuple):
    seal: Seal
    credentials: Credentials
    grants: SealedGrants


def stored_keys(data: Path | None, environ: Mapping[str, str], home: Path) -> StoredKeys:
    """The files of secrets of a data directory, and what they are sealed with. Reads nothing yet."""
    seal = Seal(own_directory(environ, home) / "auth.key", environ=environ, entropy=os.urandom)
    return StoredKeys(
        seal,
        Credentials(data / "auth.json" if data is not None else None, seal=seal, environ=environ, home=home),
        SealedGrants(data / "mcp-auth.json" if data is not None else None, seal),
    )


def open_reader(data: Path) -> SqliteReader:
    """Sessions to look at, whether a server has the directory or not. Raises StorageError if there are none."""
    return SqliteReader(data)


def server_of(data: Path) -> str | None:
    """The process id of the server that has the directory, "" if it did not say; None if none has it."""
    return holder(data)


async def open_store(
    data: Path | None, *, on_failure: Callable[[StorageError], None] = lambda _: None
) -> MemoryStore | SqliteStore:
    """`on_failure` is called when the disk lets the store down. Raises StorageError if the directory cannot be used,
    StorageLocked if a server has it."""
    clock = SystemClock()
    if data is None:
        return MemoryStore(clock.now_ms, IdGenerator(clock.now_ms, os.urandom))
    return await SqliteStore.open(data, now_ms=clock.now_ms, entropy=os.urandom, on_failure=on_failure)


@contextlib.asynccontextmanager
async def open_application(settings: Settings) -> AsyncGenerator[Application, None]:
    """A running server, to be reached through `.asgi`. Raises StorageError, Denied (an unsafe setting)."""
    _check(settings)
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[StorageError] = loop.create_future()

    def fail(error: StorageError) -> None:
        if not failed.done():
            failed.set_result(error)

    def on_failure(error: StorageError) -> None:  # wherever the store notices it
        loop.call_soon_threadsafe(fail, error)

    store = await open_store(settings.data, on_failure=on_failure)
    try:
        application = Application(settings, store, failed)
    except BaseException:
        await store.close()
        raise
    try:
        await application.start()
        yield application
    finally:
        await application.stop()


async def serve(settings: Settings, *, listening: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends the process at once. `listening` is told the URL once requests are served.

    The address comes first: a server that cannot have it must not have taken up any turn, nor even opened the store.

    Raises Unavailable if the address cannot be had, Denied for an unsafe setting, StorageError if the store cannot be used
    or cannot go on."""
    _check(settings)
    async with contextlib.AsyncExitStack() as opened:
        bound = opened.enter_context(bind(settings.host, settings.port))
        application = await opened.enter_async_context(open_application(settings))
        listener = await opened.enter_async_context(
            Listener(application.asgi, settings.host, settings.port, stopping=application.stop, bound=bound)
        )
        asked = asyncio.Event()

        def stop(number: signal.Signals) -> None:
            if asked.is_set():  # whoever asks twice will not wait; what is acknowledged is safe as after any death
                os._exit(128 + number)
            asked.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop, number)
        listening(listener.url)
        waiting = asyncio.create_task(asked.wait())
        await asyncio.wait((waiting, application.failed), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
    if application.failed.done():
        raise application.failed.result()


def _check(settings: Settings) -> None:
    """Raises Denied for an unsafe setting."""
    check_binding(settings.host, settings.password)
    checked_origins(settings.cors)
