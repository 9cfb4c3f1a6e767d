"""`holdfast sessions`: what there is, newest first."""

import sys
import time
from collections.abc import Mapping, Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from holdfast.core.session import Session, SessionStatus

_AGES = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def print_sessions(sessions: Sequence[bytes], statuses: Mapping[str, SessionStatus], *, as_json: bool) -> None:
    """`sessions` in wire JSON; a session that has no status is idle."""
    if as_json:
        for session in sessions:
            sys.stdout.buffer.write(session + b"\n")
        sys.stdout.buffer.flush()
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("session", "title", "updated", "status", "directory"):
        table.add_column(heading, no_wrap=heading in ("session", "updated", "status"), overflow="fold")
    now_ms = time.time_ns() // 1_000_000
    for session in msgspec.json.decode(b"[%b]" % b",".join(sessions), type=list[Session]):
        status = statuses.get(session.id)
        table.add_row(
            session.id,
            Text(session.title),
            age((now_ms - session.time.updated) // 1000),
            Text(_status_name(status), style="yellow" if status else "dim"),
            Text(session.directory, style="dim"),
        )
    console = Console()
    if table.row_count:
        console.print(table)
    else:
        console.print("There are no sessions yet. `holdfast run` starts one.")


def _status_name(status: SessionStatus | None) -> str:
    return "idle" if status is None else str(msgspec.to_builtins(status)["type"])


def age(seconds: int) -> str:
    """`3 h ago`"""
    for unit, length in _AGES:
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return "now"
