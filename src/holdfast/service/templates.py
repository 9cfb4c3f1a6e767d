"""Templates of commands: what stands in them for the user's words, for the output of a program, for a file. Pure.

`$1`, `$2`, … are the words of the arguments, the highest of them all that are left; `$ARGUMENTS` is all of them; a template with
neither gets the arguments at its end. `` !`command` `` is replaced by what the command writes. `@name` refers to a file or an
agent.

The arguments are the user's text, which may come from anywhere, and never become part of a command line: the shell gets them as
its own `$1`, … and `$ARGUMENTS`. Nor is the output of a command searched for anything.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

_PLACEHOLDER: Final = re.compile(r"\$(ARGUMENTS|[0-9]{1,3})")
_COMMAND: Final = re.compile(r"!`([^`]+)`")
_WORD: Final = re.compile(r"\"([^\"]*)\"|'([^']*)'|([^\s\"']+)")
_REFERENCE: Final = re.compile(r"(?<![\w`@])@([^\s`,@]+)")
_AFTER_NAME: Final = ".:;!?)]}>\"'"


class CommandLine(NamedTuple):
    """To be run in the shell; its output stands in its place."""

    line: str


def filled(template: str, arguments: str) -> list[str | CommandLine]:
    """The template with the arguments in it, as texts and command lines in turn."""
    positions = [int(found[1]) for found in _PLACEHOLDER.finditer(template) if found[1] != "ARGUMENTS"]
    given = words_of(arguments, max(positions, default=0))
    values = {"ARGUMENTS": arguments, **{str(place): value for place, value in enumerate(given, 1)}}
    if not _PLACEHOLDER.search(template) and arguments.strip():
        template = f"{template}\n\n{arguments}"
        commands_end = len(template) - len(arguments)
    else:
        commands_end = len(template)
    pieces: list[str | CommandLine] = []
    at = 0
    for found in _COMMAND.finditer(template, 0, commands_end):
        pieces += [_replaced(template[at : found.start()], values), _in_shell(found[1], given, arguments)]
        at = found.end()
    rest = template[at:]
    return [*pieces, rest if commands_end < len(template) else _replaced(rest, values)]


def references(text: str) -> Iterator[str]:
    """The names after `@`, each once."""
    names = (found[1].rstrip(_AFTER_NAME) for found in _REFERENCE.finditer(text))
    yield from dict.fromkeys(name for name in names if name)


def words_of(arguments: str, last: int) -> list[str]:
    """What `$1` up to the last placeholder stand for; every word, if there is none."""
    words = ["".join(found.groups(default="")) for found in _WORD.finditer(arguments)]
    if not last:
        return words
    return [*(words[: last - 1] + [""] * (last - 1 - len(words))), " ".join(words[last - 1 :])]


def _replaced(text: str, values: dict[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values.get(str(found[1]).lstrip("0") or "0", ""), text)


def _in_shell(line: str, given: Sequence[str], arguments: str) -> CommandLine:
    words = " ".join(map(shlex.quote, given))
    return CommandLine(f"set -- {words}\nARGUMENTS={shlex.quote(arguments)}\n{line}")
