"""What a turn wants to know of the user, asked in the terminal where it is watched.

A line is an answer. What somebody answered elsewhere meanwhile is not asked any more; the first reply counts. The end of the
input (Ctrl-D) leaves the questions to other clients.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from holdfast.cli.terminal import Terminal
from holdfast.client import Client, Refused
from holdfast.core.permissions import PermissionReply, PermissionRequest
from holdfast.core.questions import Question, QuestionRequest

_READ_BYTES: Final = 1 << 16
_REPLIES: Final[dict[str, PermissionReply]] = {
    "o": "once",
    "once": "once",
    "y": "once",
    "yes": "once",
    "a": "always",
    "always": "always",
    "r": "reject",
    "reject": "reject",
    "n": "reject",
    "no": "reject",
}

ReadLine = Callable[[], Awaitable[str | None]]
"""The next line that the user types, without its end; None when there will be none."""


class Waiting(Protocol):
    """The requests that wait for an answer, by id, oldest first."""

    @property
    def wanted(self) -> dict[str, PermissionRequest | QuestionRequest]: ...


class Asker:
    """`changed` has to be called whenever what waits may be another."""

    def __init__(self, client: Client, terminal: Terminal, read_line: ReadLine) -> None:
        self._client = client
        self._terminal = terminal
        self._read_line = read_line
        self._asking: tuple[str, asyncio.Task[None]] | None = None
        self._view: Waiting | None = None
        self._is_over = False

    def changed(self, view: Waiting) -> None:
        self._view = view
        if self._asking is not None and self._asking[0] not in view.wanted:
            id, task = self._asking
            self._asking = None
            if not task.done():
                task.cancel()
                self._terminal.note("Answered.")
        if self._asking is None and not self._is_over:
            for id, request in view.wanted.items():
                self._asking = id, asyncio.create_task(self._ask(request))
                break

    def stop(self) -> None:
        self._is_over = True
        if self._asking is not None:
            self._asking[1].cancel()

    async def _ask(self, request: PermissionRequest | QuestionRequest) -> None:
        try:
            if isinstance(request, PermissionRequest):
                await self._permission(request)
            else:
                await self._question(request)
        except Refused as refused:  # its turn is over, or it was answered elsewhere: the events say what comes of it
            self._terminal.note(f"Too late: {refused.message}", "yellow")
        except EOFError:
            self._is_over = True
            self._terminal.note("Left to other clients of this server.", "yellow")

    async def _permission(self, request: PermissionRequest) -> None:
        choices = "[o]nce, [r]eject"
        if request.always:
            choices = f"[o]nce, [a]lways ({', '.join(request.always)}), [r]eject"
        reply: PermissionReply | None = None
        while reply is None or (reply == "always" and not request.always):
            reply = _REPLIES.get((await self._line(f"{choices}? ")).strip().lower())
        message = None
        if reply == "reject":
            message = (await self._line("What should it do instead? (Enter: stop) ")).strip() or None
        await self._client.reply_permission(request.id, reply, message=message)

    async def _question(self, request: QuestionRequest) -> None:
        answers: list[tuple[str, ...]] = []
        for question in request.questions:
            if len(request.questions) > 1:
                self._terminal.note(question.question, "yellow")
            for number, option in enumerate(question.options, start=1):
                self._terminal.note(f"  {number}. {option.label}  {option.description}")
            answer: tuple[str, ...] | None = None
            while answer is None:
                line = (await self._line(f"{_hint(question)}: ")).strip()
                if not line:
                    await self._client.reject_question(request.id)
                    return
                answer = answer_of(question, line)
            answers.append(answer)
        await self._client.reply_question(request.id, answers)

    async def _line(self, text: str) -> str:
        self._terminal.ask(text)
        line = await self._read_line()
        if line is None:
            raise EOFError
        return line


def answer_of(question: Question, line: str) -> tuple[str, ...] | None:
    """The labels that a line chooses, by number or by name; its own words, where those may be given. None if it is neither."""
    labels = {str(number): option.label for number, option in enumerate(question.options, start=1)}
    labels |= {option.label.casefold(): option.label for option in question.options}
    pieces = [piece.strip() for piece in line.split(",")] if question.multiple else [line.strip()]
    chosen = [labels.get(piece.casefold()) for piece in pieces if piece]
    if chosen and all(chosen):
        return tuple(dict.fromkeys(label for label in chosen if label))
    return (line.strip(),) if question.custom is not False and line.strip() else None


def _hint(question: Question) -> str:
    many = "Numbers, with commas" if question.multiple else "Number"
    own = "" if question.custom is False else ", or your own words"
    return f"{many}{own} (Enter: no answer)"


def lines_of(fd: int) -> ReadLine:
    """Lines of a terminal, read without a thread: a wait for one can be given up at any moment."""
    rest = b""

    async def read_line() -> str | None:
        nonlocal rest
        while b"\n" not in rest:
            await _readable(fd)
            piece = os.read(fd, _READ_BYTES)
            if not piece:
                return None
            rest += piece
        line, _, rest = rest.partition(b"\n")
        return line.decode(errors="replace")

    return read_line


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(fd, lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(fd)
