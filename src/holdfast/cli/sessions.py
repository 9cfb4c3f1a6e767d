"""`holdfast sessions`: what there is, newest first."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from holdfast.bootstrap import open_reader
from holdfast.cli.terminal import harmless
from holdfast.client import Client
from holdfast.core.codec import to_json
from holdfast.core.session import Session, SessionStatus
from holdfast.core.store import SessionQuery

_PIPE_WIDTH = 10_000
_AGES = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


async def sessions_in(data: Path, directory: str | None, *, as_json: bool) -> None:
    """Of a data directory; of one project directory, if given."""
    reader = open_reader(data)
    try:
        found = await reader.sessions(SessionQuery(directory=directory))
        statuses = await reader.statuses()
    finally:
        await reader.close()
    show(msgspec.json.decode(b"[%b]" % b",".join(found), type=list[Session]), statuses, as_json=as_json)


async def sessions_of(client: Client, *, as_json: bool) -> None:
    """Of a server, in the client's directory."""
    await client.health()
    show(await client.sessions(), await client.statuses(), as_json=as_json)


def show(sessions: Sequence[Session], statuses: Mapping[str, SessionStatus], *, as_json: bool) -> None:
    """A session that has no status is idle. In a pipe each has one line, however long."""
    if as_json:
        for session in sessions:
            sys.stdout.buffer.write(to_json(session) + b"\n")
        sys.stdout.buffer.flush()
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("session", "title", "updated", "status", "directory"):
        table.add_column(heading, no_wrap=heading in ("session", "updated", "status"), overflow="fold")
    now_ms = time.time_ns() // 1_000_000
    for session in sessions:
        status = statuses.get(session.id)
        table.add_row(
            session.id,
            Text(harmless(session.title)),
            age((now_ms - session.time.updated) // 1000),
            Text(_status_name(status), style="yellow" if status else "dim"),
            Text(harmless(session.directory), style="dim"),
        )
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
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
