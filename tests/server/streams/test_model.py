"""Whatever is done to streams, in whatever order, with restarts in between: the server does what a hundred lines of plain
Python do (`model`), and what it answers for a place is the same each time."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.server.streams.model import Model, ModelStream
from tests.server.streams.world import JSON, StreamWorld

PATHS = st.sampled_from(["a", "a", "b", "c/d"])
MESSAGES = st.lists(st.integers(0, 9) | st.just([1, 2]) | st.just({"a": "\n"}), max_size=3)
PRODUCERS = st.sampled_from(["p", "q"])
MOVES = st.sampled_from(["next", "next", "next", "again", "gap", "epoch", "stale"])
RARELY = st.integers(0, 3).map(lambda number: number == 0)
TTLS = st.sampled_from([None, None, 0, 5, 30])
SEQS = st.none() | st.sampled_from(["1", "10", "2", "a"])


class StreamMachine(RuleBasedStateMachine):
    on_disk = True

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp()) if self.on_disk else None
        self.world = StreamWorld(self.directory, page_bytes_max=20)
        self.model = Model()
        self.last: tuple[Any, ...] | None = None

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    @initialize()
    def open(self) -> None:
        self.run(self.world.__aenter__())
        self.model.now_ms = self.world.clock.now_ms()
        self.create("a", None)
        self.create("b", 30)

    def teardown(self) -> None:
        self.run(self.world.__aexit__())
        self.runner.close()
        if self.directory is not None:
            shutil.rmtree(self.directory)

    @rule(path=PATHS, ttl=TTLS)
    def create(self, path: str, ttl: int | None) -> None:
        known = self.model.find(path)
        if isinstance(known, ModelStream):
            return
        expected = self.model.create(path, ttl, None, None)
        headers = {**JSON, **({"stream-ttl": str(ttl)} if ttl is not None else {})}
        assert expected == self.run(self.world.put(path, headers)).status

    @rule(path=PATHS, source=PATHS, choice=st.none() | st.integers(0, 5), ttl=TTLS)
    def fork(self, path: str, source: str, choice: int | None, ttl: int | None) -> None:
        if path == source or isinstance(self.model.find(path), ModelStream):
            return
        known = self.model.find(source)
        at = None
        if choice is not None and isinstance(known, ModelStream) and known.records:
            at = known.records[choice % len(known.records)][0]
        expected = self.model.create(path, ttl, source, at)
        headers = {
            "stream-forked-from": f"/v1/stream/{source}",
            **({"stream-fork-offset": at} if at is not None else {}),
            **({"stream-ttl": str(ttl)} if ttl is not None else {}),
        }
        assert expected == self.run(self.world.put(path, headers)).status

    @rule(path=PATHS, name=PRODUCERS, move=MOVES, messages=MESSAGES, close=RARELY, seq=SEQS, rarely=RARELY)
    def produce(
        self, path: str, name: str, move: str, messages: list[Any], close: bool, seq: str | None, rarely: bool
    ) -> None:
        stream = self.model.streams.get(path)
        epoch, last = stream.producers.get(name, (0, -1)) if stream is not None else (0, -1)
        producer = {
            "next": (name, epoch, last + 1),
            "again": (name, epoch, max(last, 0)),
            "gap": (name, epoch, last + 2),
            "epoch": (name, epoch + 1, 0 if not rarely else 1),
            "stale": (name, max(epoch - 1, 0), last + 1),
        }[move]
        self.append(path, messages, close and rarely, seq if rarely else None, producer)

    @rule(path=PATHS, messages=MESSAGES, close=RARELY, seq=SEQS)
    def write(self, path: str, messages: list[Any], close: bool, seq: str | None) -> None:
        self.append(path, messages, close, seq, None)

    def append(
        self, path: str, messages: list[Any], close: bool, seq: str | None, producer: tuple[str, int, int] | None
    ) -> None:
        if not messages and not close:
            return
        self.last = path, messages, close, seq, producer
        headers = dict(JSON)
        if close:
            headers["stream-closed"] = "TRUE"
        if seq is not None:
            headers["stream-seq"] = seq
        if producer is not None:
            headers |= dict(zip(("producer-id", "producer-epoch", "producer-seq"), map(str, producer), strict=True))
        before = self.model.streams.get(path)
        expected = self.model.append(path, messages, close=close, seq=seq, producer=producer)
        body = str(messages).replace("'", '"').replace("\n", "\\n") if messages else ""
        answer = self.run(self.world.post(path, body, headers))
        assert expected == answer.status, answer
        stream = self.model.streams.get(path)
        if stream is not None and stream is before and answer.status in (200, 204) and messages:
            if answer.next > stream.tail:
                stream.records.append((answer.next, messages))
            else:
                assert answer.status == 204
                assert answer.next == stream.tail

    @rule()
    def say_it_twice(self) -> None:
        if self.last is not None:
            self.append(*self.last)

    @rule(path=PATHS, really=RARELY)
    def delete(self, path: str, really: bool) -> None:
        if not really:
            return
        assert self.model.delete(path) == self.run(self.world.request("DELETE", path)).status

    @rule(path=PATHS, choice=st.integers(0, 9))
    def read(self, path: str, choice: int) -> None:
        """From any place that was ever told, everything after it and nothing else, page by page."""
        stream = self.model.find(path)
        if isinstance(stream, int):
            assert stream == self.run(self.world.get(path)).status
            return
        places = ["-1", *(place for place, _ in stream.records)]
        place = places[choice % len(places)]
        stream.touched_ms = self.model.now_ms
        messages, page = self.run(self.world.read_all(path, place))
        assert messages == stream.after("" if place == "-1" else place)
        assert page.closed == stream.closed

    @rule(path=PATHS, choice=st.integers(0, 9))
    def follow(self, path: str, choice: int) -> None:
        """As a read, but live: everything up to now, then word that this is all (or the end)."""
        stream = self.model.find(path)
        if isinstance(stream, int):
            assert stream == self.run(self.world.get(path, "live=sse&offset=-1")).status
            return
        places = ["-1", *(place for place, _ in stream.records)]
        place = places[choice % len(places)]
        stream.touched_ms = self.model.now_ms
        messages, closed = self.run(self._follow(path, place))
        assert messages == stream.after("" if place == "-1" else place)
        assert closed == stream.closed

    async def _follow(self, path: str, place: str) -> tuple[list[Any], bool]:
        messages: list[Any] = []
        async with self.world.sse(path, f"offset={place}") as reader:
            while True:
                frame = await reader.frame()
                assert frame is not None
                for event in frame.strip("\n").split("\n\n"):
                    kind, data = event.split("\ndata:", 1)
                    told = msgspec.json.decode(data.split("\nid:")[0].replace("\ndata:", "\n"))
                    if kind == "event: data":
                        messages += told
                    elif told.get("upToDate"):
                        return messages, told.get("streamClosed", False)

    @rule(milliseconds=st.sampled_from([1, 5_000, 5_000, 30_000]))
    def wait(self, milliseconds: int) -> None:
        self.world.clock.advance(milliseconds)
        self.model.now_ms += milliseconds

    @rule()
    def keep_up(self) -> None:
        """Upkeep removes what is expired: nobody can tell, but for paths that forks had kept."""
        for path in list(self.model.streams):
            stream = self.model.streams.get(path)
            if stream is not None and not stream.deleted and self.model.expired(stream):
                self.model.remove(path)
        self.run(self.world.store.byte_streams.upkeep())

    @rule()
    def restart(self) -> None:
        """Accesses of the last seconds may count again: so they are written down first."""
        self.run(self.world.store.byte_streams.upkeep())
        self.keep_up()
        self.world.clock.advance(1)
        self.model.now_ms += 1
        self.run(self.world.restart())
        for path, stream in self.model.streams.items():
            if isinstance(self.model.find(path), ModelStream) and stream.ttl is not None:
                self.read(path, 0)  # the store may let it live a little longer now, never shorter

    @invariant()
    def tails_are_equal(self) -> None:
        for path in ("a", "b", "c/d"):
            stream = self.model.find(path)
            answer = self.run(self.world.request("HEAD", path))
            if isinstance(stream, int):
                assert stream == answer.status
            else:
                assert (200, stream.tail, stream.closed) == (answer.status, answer.next, answer.closed)


class MemoryStreamMachine(StreamMachine):
    on_disk = False


@pytest.mark.parametrize("machine", [StreamMachine, MemoryStreamMachine], ids=["sqlite", "memory"])
def test_the_server_does_what_the_model_does(machine: type[StreamMachine]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=50, deadline=None))
