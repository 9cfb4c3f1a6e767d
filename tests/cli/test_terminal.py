"""What goes where on a terminal and in a pipe."""

import io

import pytest
from rich.console import Console

from holdfast.cli.terminal import OUTPUT_LINES_MAX, Terminal
from holdfast.cli.turn_view import Ended, Notice, Text, TextClosed, ToolEnded, ToolStarted

STORY: list[Notice] = [
    Text("hm", reasoning=True),
    Text(" hm", reasoning=True),
    TextClosed(reasoning=True),
    Text("Let me look.", reasoning=False),
    TextClosed(reasoning=False),
    ToolStarted("bash", "ls\nls -l"),
    ToolEnded("bash", "ls", "a\nb\n", failed=False),
    Text("Two ", reasoning=False),
    Text("files.", reasoning=False),
    TextClosed(reasoning=False),
    Ended("completed", None),
]


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def one_terminal() -> tuple[Terminal, Tty]:
    """stdout and stderr on the same screen."""
    screen = Tty()
    console = Console(file=screen, force_terminal=True, color_system=None, soft_wrap=True, highlight=False)
    return Terminal(screen, console), screen


def show(terminal: Terminal, notices: list[Notice]) -> None:
    for notice in notices:
        terminal.show(notice)


def test_on_a_terminal_everything_has_its_lines() -> None:
    terminal, screen = one_terminal()

    show(terminal, STORY)

    assert screen.getvalue() == "hm hm\nLet me look.\n→ bash  ls …\n✓ bash  ls\n  a\n  b\nTwo files.\n"


def test_in_a_pipe_stdout_is_the_answer_and_nothing_else() -> None:
    out, err = io.StringIO(), io.StringIO()

    show(Terminal(out, Console(file=err, soft_wrap=True)), STORY)

    assert out.getvalue() == "Let me look.\nTwo files.\n"
    assert err.getvalue() == "hm hm\n→ bash  ls …\n✓ bash  ls\n  a\n  b\n"


def test_a_note_in_mid_sentence_leaves_the_sentence_whole_in_a_pipe() -> None:
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(out, Console(file=err, soft_wrap=True))

    terminal.show(Text("one ", reasoning=False))
    terminal.note("Lost the server")
    terminal.show(Text("two", reasoning=False))
    terminal.show(Ended("failed", "no reason"))

    assert out.getvalue() == "one two\n"
    assert err.getvalue() == "Lost the server\nThe turn failed: no reason\n"


def test_of_a_long_output_the_end_is_shown() -> None:
    terminal, screen = one_terminal()

    show(terminal, [ToolEnded("bash", "", "\n".join(map(str, range(100))), failed=False)])

    lines = screen.getvalue().splitlines()
    assert lines[1] == f"  … {100 - OUTPUT_LINES_MAX} more lines"
    assert lines[-1] == "  99"
    assert len(lines) == OUTPUT_LINES_MAX + 2


@pytest.mark.parametrize("evil", ["\x1b[2J", "\x1b]0;title\x07", "\x1b[31m", "\r", "\x9b5n", "\x07"])
def test_what_a_model_says_controls_no_terminal(evil: str) -> None:
    terminal, screen = one_terminal()
    show(terminal, [Text(f"a{evil}b\tc\n", reasoning=False), ToolEnded("bash", evil, f"d{evil}", failed=True)])

    assert screen.getvalue() == "ab\tc\n✗ bash  \n  d\n"

    pipe = io.StringIO()
    show(Terminal(pipe, Console(file=io.StringIO())), [Text(evil, reasoning=False)])
    assert pipe.getvalue() == evil
