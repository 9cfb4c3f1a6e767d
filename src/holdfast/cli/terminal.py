"""Notices of a turn on a terminal.

The answer goes to stdout, as it is and nothing else, so that it can be piped; reasoning, tool calls and progress go to
stderr, dim. When both are the same terminal they share its lines. What a model or a tool says never controls a terminal:
escape sequences in it are left out (in a pipe, the answer stays as it is).
"""

import re
import sys
import time
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text as Styled

from holdfast.cli.turn_view import (
    AnswerWanted,
    Ended,
    Notice,
    Queued,
    Retrying,
    Text,
    TextClosed,
    ToolEnded,
    ToolStarted,
)

OUTPUT_LINES_MAX: Final = 8

_ESCAPES: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor, screen
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles, links, clipboard
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


class Terminal:
    """`answers_here`: the user can be asked in it."""

    def __init__(self, out: TextIO | None = None, err: Console | None = None, *, answers_here: bool = False) -> None:
        self.answers_here = answers_here
        self._out = out or sys.stdout
        self._err = err or Console(stderr=True, highlight=False, soft_wrap=True)
        self._shared = self._out.isatty() and self._err.is_terminal
        self._out_in_line = False
        self._err_in_line = False

    def show(self, notice: Notice) -> None:
        match notice:
            case Text(text, reasoning):
                if reasoning:
                    self._aside(text, "dim italic")
                else:
                    self._answer(text)
            case TextClosed():
                self.end_line()
            case ToolStarted(tool, title):
                self.note(f"→ {tool}  {one_line(title)}", "cyan")
            case ToolEnded(tool, title, output, failed):
                self.note(f"{'✗' if failed else '✓'} {tool}  {one_line(title)}", "red" if failed else "green")
                for line in tail(output):
                    self.note(f"  {line}", "dim")
            case Retrying(attempt, message, next_ms):
                wait_s = max(0.0, next_ms / 1000 - time.time())
                self.note(f"The model's provider failed: {message} Try {attempt} comes in {wait_s:.0f} s.", "yellow")
            case AnswerWanted(what):
                self.note(f"{'Wants' if self.answers_here else 'Waits for'} an answer: {what}", "yellow")
                if not self.answers_here:
                    self.note("  Any client of this server may give it.", "yellow")
            case Queued():
                self.note("Another turn of this session is running; this prompt is next.", "yellow")
            case Ended(outcome, error):
                self.end_line()
                if outcome == "aborted":
                    self.note("Aborted.", "yellow")
                elif outcome == "failed":
                    self.note(f"The turn failed: {error or 'no reason was given'}", "red")

    def note(self, line: str, style: str = "dim") -> None:
        """A line of its own on stderr."""
        self._end_aside()
        if self._shared:
            self._end_answer()
        self._err.print(Styled(harmless(line), style=style))

    def ask(self, text: str) -> None:
        """On stderr, with the cursor behind it. What the user types ends the line."""
        self.end_line()
        self._err.print(Styled(harmless(text), style="bold"), end="")

    def end_line(self) -> None:
        self._end_answer()
        self._end_aside()

    def _answer(self, text: str) -> None:
        if self._shared:
            self._end_aside()
        self._out.write(harmless(text) if self._out.isatty() else text)
        self._out.flush()
        self._out_in_line = not text.endswith("\n")

    def _aside(self, text: str, style: str) -> None:
        if self._shared:
            self._end_answer()
        self._err.print(Styled(harmless(text), style=style), end="")
        self._err_in_line = not text.endswith("\n")

    def _end_answer(self) -> None:
        if self._out_in_line:
            self._out.write("\n")
            self._out.flush()
            self._out_in_line = False

    def _end_aside(self) -> None:
        if self._err_in_line:
            self._err.print()
            self._err_in_line = False


def harmless(text: str) -> str:
    """Without escape sequences and control characters, but for line breaks and tabs."""
    return _ESCAPES.sub("", text)


def one_line(text: str) -> str:
    line, _, rest = text.partition("\n")
    return f"{line} …" if rest else line


def tail(output: str) -> list[str]:
    """The last lines, and how many came before."""
    lines = output.rstrip().splitlines()
    left_out = len(lines) - OUTPUT_LINES_MAX
    return [f"… {left_out} more lines", *lines[-OUTPUT_LINES_MAX:]] if left_out > 0 else lines
