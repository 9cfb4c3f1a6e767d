"""Turns the numbers of all rounds into a table: medians with spread, how many times better than the reference, and whether the
targets are met."""

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.report import number, spread

OURS, DURABLE, MEMORY = "Holdfast", "Node, durable", "Node, in memory"
SERVERS = (OURS, DURABLE, MEMORY)

Results = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]
"""scenario → server → measure → one number per round"""


class Line(NamedTuple):
    """`at_most` and `at_least` bound Holdfast's median; it is to be `durable` and `memory` times as good as the reference's."""

    scenario: str
    measure: str
    label: str
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    durable: float | None = None
    memory: float | None = None

    @property
    def more_is_better(self) -> bool:
        return self.unit.endswith("/s")

    def target(self) -> str:
        bounds = [
            (self.at_most, f"≤ {self.at_most:g} {self.unit}" if self.at_most is not None else ""),
            (self.at_least, f"≥ {self.at_least:g} {self.unit}" if self.at_least is not None else ""),
            (self.durable, f"≥ {self.durable:g}x durable" if self.durable is not None else ""),
            (self.memory, f"≥ {self.memory:g}x memory" if self.memory is not None else ""),
        ]
        return "; ".join(text for bound, text in bounds if bound is not None).strip()

    def met(self, medians: Mapping[str, float]) -> bool | None:
        """None: no target, or nothing to compare with."""
        ours = medians.get(OURS)
        if ours is None:
            return None
        held: list[bool] = []
        if self.at_most is not None:
            held.append(ours <= self.at_most)
        if self.at_least is not None:
            held.append(ours >= self.at_least)
        for times, server in ((self.durable, DURABLE), (self.memory, MEMORY)):
            if times is not None and (ratio := self.ratio(medians, server)) is not None:
                held.append(ratio >= times)
        return all(held) if held else None

    def ratio(self, medians: Mapping[str, float], server: str) -> float | None:
        """How many times better Holdfast is."""
        ours, theirs = medians.get(OURS), medians.get(server)
        if not ours or not theirs:
            return None
        return ours / theirs if self.more_is_better else theirs / ours


LINES = (
    Line("append_1", "per_second", "append, one client", "/s", durable=4, memory=0.8),
    Line("append_1", "p50_ms", "… median", "ms", at_most=0.6),
    Line("append_1", "p99_ms", "… 99th percentile", "ms"),
    Line("append_1", "cpu_us", "… processor time of the server, each", "µs"),
    Line("append_16", "per_second", "append, 16 clients, one stream", "/s", durable=10, memory=0.8),
    Line("append_16", "p99_ms", "… 99th percentile", "ms", at_most=10),
    Line("append_16", "cpu_us", "… processor time of the server, each", "µs"),
    Line("append_16_streams", "per_second", "append, 16 clients, 16 streams", "/s", durable=6, memory=0.8),
    Line("append_16_streams", "cpu_us", "… processor time of the server, each", "µs"),
    Line("producer_1", "per_second", "append as an idempotent producer, one client", "/s"),
    Line("batch_1", "messages_per_second", "batches of 100, one client", "msg/s", durable=2, memory=0.8),
    Line("batch_16", "messages_per_second", "batches of 100, 16 clients", "msg/s", durable=3, memory=0.8),
    Line("catch_up_100b", "mb_per_second", "catch-up of 10,000 × 100 B", "MB/s", at_least=300, memory=2),
    Line("catch_up_1kb", "mb_per_second", "catch-up of 10,000 × 1 KB", "MB/s", at_least=300, memory=2),
    Line("sse_100_at_200", "rate", "SSE, 100 subscribers, 200 msg/s offered", "msg/s", at_least=195),
    Line("sse_100_at_200", "lost", "… deliveries missing", "", at_most=0),
    Line("sse_100_at_200", "p50_ms", "… median", "ms", at_most=3),
    Line("sse_100_at_200", "p99_ms", "… 99th percentile", "ms", at_most=20),
    Line("sse_100_at_200", "cpu_us", "… processor time of the server, each delivery", "µs"),
    Line(
        "sse_100_highest", "rate", "SSE, 100 subscribers: all delivered, p99 ≤ 50 ms", "msg/s", at_least=2000, memory=2
    ),
    Line("sse_1000_at_20", "lost", "SSE, 1,000 subscribers at 20 msg/s: deliveries missing", "", at_most=0),
    Line("sse_1000_at_20", "p99_ms", "… 99th percentile", "ms", at_most=150),
    Line("sse_1000_at_20", "subscriber_kb", "… memory of each", "KB", at_most=60),
    Line("streams_1", "per_second", "append, 16 clients, over 1 stream", "/s"),
    Line("streams_10", "per_second", "… over 10 streams", "/s"),
    Line("streams_100", "per_second", "… over 100 streams", "/s"),
    Line("streams_1000", "per_second", "… over 1,000 streams", "/s"),
    Line("tail_of_1000", "per_second", "read of the tail, stream of 10³ messages", "/s"),
    Line("tail_of_100000", "per_second", "… of 10⁵", "/s"),
    Line("tail_of_1000000", "per_second", "… of 10⁶", "/s"),
    Line("tail_of_1000000", "p99_ms", "… of 10⁶, 99th percentile", "ms"),
    Line("memory", "memory_mb", "memory of the server after all of that", "MB", at_most=150),
)


def table(results: Results) -> str:
    """Markdown. A server that was not measured has an empty cell."""
    rows = [
        "| what | Holdfast (durable) | Node, durable | Node, in memory | to durable | to memory | target | met |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for line in LINES:
        found = {server: results.get(line.scenario, {}).get(server, {}).get(line.measure) for server in SERVERS}
        if not any(found.values()):
            continue
        medians = _medians(line, results)
        ratios = [_times(line.ratio(medians, server)) for server in (DURABLE, MEMORY)]
        met = {None: "", True: "yes", False: "**no**"}[line.met(medians)]
        cells = [line.label, *(spread(found[server], line.unit) for server in SERVERS), *ratios, line.target(), met]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def missed(results: Results) -> list[str]:
    return [_full_label(line) for line in LINES if line.met(_medians(line, results)) is False]


def _full_label(line: Line) -> str:
    head = next(other.label for other in LINES if other.scenario == line.scenario)
    return line.label if line.label == head else f"{head} {line.label}"


def _medians(line: Line, results: Results) -> dict[str, float]:
    found = {server: results.get(line.scenario, {}).get(server, {}).get(line.measure) for server in SERVERS}
    return {server: statistics.median(values) for server, values in found.items() if values}


def _times(ratio: float | None) -> str:
    return f"{number(ratio)}x" if ratio is not None else ""
