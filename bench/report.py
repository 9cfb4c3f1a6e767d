"""Turns the numbers of all rounds into a table: medians with spread, the ratio, and whether the target is met."""

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Results = Mapping[str, Mapping[str, Sequence[float]]]
"""peer → line → one number per round"""


class Line(NamedTuple):
    """`at_most` is a limit for Holdfast's median; `times` is how many times better than OpenCode's it has to be."""

    name: str
    label: str
    unit: str
    at_most: float | None = None
    times: float | None = None

    @property
    def more_is_better(self) -> bool:
        return self.unit.endswith("/s")

    def target(self) -> str:
        if self.at_most is not None:
            return f"{'≤ ' if self.at_most else ''}{self.at_most:g} {self.unit}".strip()
        if self.times is not None:
            return f"≥ {self.times:g}x" if self.more_is_better else f"≤ 1/{self.times:g}"
        return ""

    def met(self, opencode: float | None, holdfast: float) -> bool | None:
        """None: no target, or nothing to compare with."""
        if self.at_most is not None:
            return holdfast <= self.at_most
        if self.times is None or opencode is None:
            return None
        return holdfast >= self.times * opencode if self.more_is_better else holdfast * self.times <= opencode


LINES = (
    Line("first_delta_ms", "2000-token burst: the model's first token → first delta at the client", "ms", at_most=15),
    Line("last_delta_ms", "… → last delta at the client", "ms"),
    Line("turn_idle_ms", "… → `session.idle` at the client", "ms"),
    Line("turn_post_ms", "… the whole `POST /session/:id/message`", "ms"),
    Line("prompt_to_model_ms", "… prompt sent → the model's first token", "ms"),
    Line("turn_cpu_s", "… processor time of the server", "s"),
    Line("concurrent_tokens_per_s", "8 turns at once, 500 tokens each", "tokens/s", times=4),
    Line("paced_p50_ms", "100 tokens/s: model → client, median", "ms", at_most=2),
    Line("paced_p99_ms", "100 tokens/s: model → client, 99th percentile", "ms", at_most=15),
    Line("paced_max_ms", "100 tokens/s: model → client, worst", "ms"),
    Line("health_per_s", "`GET /global/health`, one after another: what HTTP and the client cost", "/s"),
    Line("create_per_s", "`POST /session`, one after another", "/s", times=5),
    Line("create_8_per_s", "`POST /session`, 8 at once", "/s", times=8),
    Line("append_per_s", "append a message (`noReply`)", "/s", times=10),
    Line("list_500_ms", "`GET` 500 messages", "ms", times=4),
    Line("list_100_ms", "`GET` the newest 100 of them (`limit=100`)", "ms", times=3),
    Line("memory_mb", "memory after the whole run (resident)", "MB", at_most=150),
    Line("memory_peak_mb", "the most memory there ever was", "MB"),
    Line("start_s", "start → healthy, fresh directories", "s", at_most=1.5),
    Line("start_again_s", "start again after the kill", "s"),
    Line("away_lost", "events lost by a client away for 1 s", "", at_most=0),
    Line("away_twice", "events it got twice", "", at_most=0),
    Line("kill_lost_characters", "characters of streamed text lost by kill -9", "", at_most=0),
    Line("kill_seen_characters", "… of so many that the client had seen", ""),
)


def table(results: Results) -> str:
    """Markdown. One line each; a peer that was not measured has an empty column."""
    rows = ["| what | OpenCode | Holdfast | ratio | target | met |", "| --- | ---: | ---: | ---: | --- | --- |"]
    for line in LINES:
        theirs = results.get("OpenCode", {}).get(line.name)
        ours = results.get("Holdfast", {}).get(line.name)
        if not (theirs or ours):
            continue
        verdict = line.met(statistics.median(theirs) if theirs else None, statistics.median(ours)) if ours else None
        met = {None: "", True: "yes", False: "**no**"}[verdict]
        cells = [line.label, spread(theirs, line.unit), spread(ours, line.unit), _ratio(line, theirs, ours)]
        rows.append("| " + " | ".join([*cells, line.target(), met]) + " |")
    return "\n".join(rows)


def missed(results: Results) -> list[Line]:
    theirs, ours = results.get("OpenCode", {}), results.get("Holdfast", {})
    return [
        line
        for line in LINES
        if line.name in ours
        and line.met(
            statistics.median(theirs[line.name]) if line.name in theirs else None, statistics.median(ours[line.name])
        )
        is False
    ]


def spread(values: Sequence[float] | None, unit: str) -> str:
    """`median (lowest–highest) unit`"""
    if not values:
        return ""
    low, high = number(min(values)), number(max(values))
    spread = "" if low == high else f" ({low}–{high})"
    return f"{number(statistics.median(values))}{spread} {unit}".strip()


def _ratio(line: Line, theirs: Sequence[float] | None, ours: Sequence[float] | None) -> str:
    """How many times better Holdfast's median is."""
    if not theirs or not ours:
        return ""
    them, us = statistics.median(theirs), statistics.median(ours)
    if not line.more_is_better:
        them, us = us, them
    return f"{us / them:.1f}x" if them and us else ""


def number(value: float) -> str:
    if value >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
