"""`holdfast verify`: promise 2. Folds every log again and compares it with the stored state; beside a server, too."""

from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from holdfast.bootstrap import open_reader
from holdfast.cli.outcome import FAILED
from holdfast.cli.words import counted
from holdfast.core.store import Difference, SessionQuery

SHOWN_CHARACTERS: Final = 300
_BEFORE: Final = 60


async def verify(data: Path) -> int:
    """The exit code: 0 if log and state agree."""
    out = Console(highlight=False, soft_wrap=True)
    reader = open_reader(data)
    try:
        count = 0
        async for difference in reader.verify():
            count += 1
            for line in report(difference):
                out.print(line)
        sessions, records = len(await reader.sessions(SessionQuery())), await reader.record_count()
    finally:
        await reader.close()
    summary = f"{counted(sessions, 'session')}, {counted(records, 'record')} in {data}"
    if count:
        out.print(f"[red]{counted(count, 'difference')}[/] in {escape(summary)}.")
        out.print(
            "State that the log does not give is a defect of Holdfast or of the disk: keep a copy, and report it."
        )
        return FAILED
    out.print(f"[green]Log and state agree[/]: {escape(summary)}.")
    return 0


def report(difference: Difference) -> list[str]:
    """What differs, from a little before the first character that does."""
    stored, folded = difference.stored, difference.folded
    start = 0
    if stored is not None and folded is not None:
        same = next((i for i, (a, b) in enumerate(zip(stored, folded, strict=False)) if a != b), 0)
        start = max(0, same - _BEFORE)
    return [
        f"[red]{escape(difference.session_id or 'the database')}[/]: {escape(difference.what)}",
        f"  stored: {_part(stored, start)}",
        f"  log:    {_part(folded, start)}",
    ]


def _part(text: str | None, start: int) -> str:
    if text is None:
        return "[dim]nothing[/]"
    shown = text[start : start + SHOWN_CHARACTERS]
    return f"{'…' if start else ''}{escape(shown)}{'…' if start + len(shown) < len(text) else ''}"
