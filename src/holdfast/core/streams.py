"""Durable byte streams: what one is, what can be done to it, and the port that stores them.

A stream is an append-only log under a path (`logs/build-7`, no slash at either end). One append is one *record*; its
*position* is the store's integer for it, which grows over all streams and is never used twice, not even for a path that
was deleted and made again. Outside the store only offsets are seen (`core.offsets`); "after position p" is a place in
any stream, whether or not p is a record of it.

What may happen to a stream is decided in `core.stream_rules`; the reading half for sessions is in `core.store`.
"""

from typing import Final, NamedTuple, Protocol

import msgspec

from holdfast.core.errors import Conflict, Denied, HoldfastError, NotFound
from holdfast.core.offsets import Offset

DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"
JSON: Final = "application/json"

# --- values -----------------------------------------------------------------------------------------------------


class Retention(msgspec.Struct, frozen=True, omit_defaults=True):
    """Keep at least the last so many bytes, records, seconds; whichever bound is passed first lets go. None: no bound."""

    bytes: int | None = None
    records: int | None = None
    seconds: int | None = None


class Stream(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state of a stream. Times in ms.

    `id` is its identity: a position, so never used again. `tail` is the position of its newest record (0 if there is
    none, what it inherits included). `horizon`: records up to this position were given up by retention.
    `touched_ms`: the newest access known to the store, where that matters (`ttl_seconds`).
    A fork inherits the records of `source_id` up to `fork_at`. `deleted`: gone, but forks still read its records."""

    id: int
    path: str
    content_type: str
    created_ms: int
    touched_ms: int
    tail: int = 0
    closed: bool = False
    closed_by: tuple[str, int, int] | None = None
    seq: str | None = None
    ttl_seconds: int | None = None
    expires_at_ms: int | None = None
    expires_at: str | None = None
    deleted: bool = False
    source_id: int | None = None
    source_path: str | None = None
    fork_at: int = 0
    fork_given: int | None = None
    sub_offset: int = 0
    forks: int = 0
    retention: Retention | None = None
    snapshot: str | None = None
    horizon: int = 0
    records: int = 0
    bytes: int = 0

    @property
    def is_json(self) -> bool:
        return media_type(self.content_type) == JSON


def media_type(content_type: str) -> str:
    """What of a content type is compared: no parameters, lower case."""
    return content_type.partition(";")[0].strip().lower()


class Producer(NamedTuple):
    """Who appends, and the how many-th time: (`id`, `epoch`, `seq`) names an append for good."""

    id: str
    epoch: int
    seq: int


class ProducerState(NamedTuple):
    """The newest accepted append of a producer."""

    epoch: int
    seq: int


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """`data` as it is stored (a run, on a JSON stream). For a fork: `source_path`, `fork_at` (None: the source's tail) and
    `sub_offset` (bytes, or messages on a JSON stream, beyond that)."""

    path: str
    content_type: str | None = None
    data: bytes = b""
    closed: bool = False
    ttl_seconds: int | None = None
    expires_at_ms: int | None = None
    expires_at: str | None = None
    source_path: str | None = None
    fork_at: int | None = None
    sub_offset: int = 0
    retention: Retention | None = None
    snapshot: str | None = None


class Append(msgspec.Struct, frozen=True, kw_only=True):
    """`data` as it is stored; may be empty if `close`. `seq` must be greater than the stream's last one, as UTF-8 bytes.
    `expected_tail`: only if this is the tail."""

    path: str
    content_type: str | None = None
    data: bytes = b""
    close: bool = False
    seq: str | None = None
    producer: Producer | None = None
    expected_tail: int | None = None
    snapshot: str | None = None


class Created(NamedTuple):
    stream: Stream
    existed: bool


class StreamAppended(NamedTuple):
    """`producer` is the newest accepted of that producer; `duplicate`: this append had been recorded before."""

    stream: Stream
    producer: ProducerState | None
    duplicate: bool


class Page(msgspec.Struct, frozen=True, weakref=True):
    """Records after a position, joined. `next` is the place after them; `at_tail`: nothing followed when this was read.
    Readers at the same place near the tail share one page object."""

    stream: Stream
    after: int
    next: int
    data: bytes
    at_tail: bool

    @property
    def at_end(self) -> bool:
        """Nothing follows, ever."""
        return self.at_tail and self.stream.closed


# --- errors -----------------------------------------------------------------------------------------------------


class StreamNotFound(NotFound):
    def __init__(self, path: str) -> None:
        super().__init__("Stream", path[:200])


class StreamGone(NotFound):
    """Deleted, and its forks still need its records; or a place that retention has given up (`earliest` is the first place
    that can be read)."""

    code = "gone"

    def __init__(self, path: str, *, earliest: Offset | None = None, snapshot: str | None = None) -> None:
        super().__init__("Stream", path[:200])
        self.message = (
            f"Stream was deleted: {path[:200]}"
            if earliest is None
            else f"No longer kept, before {earliest}: {path[:200]}"
        )
        self.earliest = earliest
        self.snapshot = snapshot


class StreamReadOnly(HoldfastError):
    """What Holdfast itself writes cannot be written by others."""

    code = "read_only"
    fault = "caller"

    def __init__(self, path: str) -> None:
        super().__init__(f"The stream can only be read: {path[:200]}")


class StreamConfigConflict(Conflict):
    """There is a stream at that path, and it is another one."""

    code = "stream_exists"


class StreamClosed(Conflict):
    code = "stream_closed"

    def __init__(self, stream: Stream) -> None:
        super().__init__(f"The stream is closed: {stream.path[:200]}")
        self.stream = stream


class ContentTypeConflict(Conflict):
    code = "content_type"


class SequenceConflict(Conflict):
    """`Stream-Seq` did not grow: another writer came first."""

    code = "sequence"


class ProducerGap(Conflict):
    """An append of this producer is missing before this one."""

    code = "producer_gap"
    retryable = True

    def __init__(self, expected: int, received: int) -> None:
        super().__init__(f"The producer's next append is {expected}, not {received}.")
        self.expected = expected
        self.received = received


class ProducerFenced(Denied):
    """A newer incarnation of this producer has taken over."""

    code = "producer_fenced"

    def __init__(self, epoch: int) -> None:
        super().__init__(f"This producer is at epoch {epoch} now.")
        self.epoch = epoch


class TailMoved(HoldfastError):
    """The append was meant for another tail than the stream has."""

    code = "tail_moved"
    fault = "caller"
    retryable = True

    def __init__(self, stream: Stream) -> None:
        super().__init__("The stream has grown since.", hint="Read on from where you are, then decide again.")
        self.stream = stream


# --- the port ---------------------------------------------------------------------------------------------------


class Watch(Protocol):
    """Somebody who reads a stream as it grows; while there is one, the stream does not expire. Costs a cursor."""

    async def next(self, *, bytes_max: int) -> Page | None:
        """The page after the last one, once there is something to tell: records, or that this is the end. None: the stream
        is gone, or the store closes. Cancelling it loses nothing."""
        ...

    def interrupt(self) -> None:
        """Make the present or the next `next` return at once, with an empty page that is not the end if need be."""
        ...

    def close(self) -> None:
        """Must be called, once."""
        ...


class StreamReader(Protocol):
    """The reading half. Raises StreamNotFound, StreamGone. `touch`, `read` and `watch` count as accesses, `head` does not."""

    async def head(self, path: str) -> Stream: ...

    async def touch(self, path: str) -> Stream: ...

    async def read(self, path: str, *, after: int, bytes_max: int) -> Page:
        """The records after a position: as many as fit into `bytes_max`, at least one if there is one."""
        ...

    async def watch(self, path: str, *, after: int) -> Watch: ...


class ByteStreamStore(StreamReader, Protocol):
    """What a write says is durable when it returns; readers see it from then on, and never before.

    Raises what `core.stream_rules` says. A stream whose time is up is not found. Every write counts as an access."""

    async def create(self, command: Create) -> Created: ...

    async def append(self, command: Append) -> StreamAppended: ...

    async def delete(self, path: str) -> None: ...

    async def paths(self) -> list[tuple[str, int]]:
        """Path and tail of every stream there is."""
        ...

    async def upkeep(self) -> None:
        """Remove what is expired or beyond its retention, write down accesses. To be called every few seconds."""
        ...
