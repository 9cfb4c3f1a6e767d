"""A command line → the commands in it, so that each can be checked against the user's rules. Pure.

Splits at `;`, `&`, `|`, `&&`, `||` and newlines outside of quotes, and looks into `$(…)`, backquotes, subshells and
groups. What it cannot take apart with certainty (here-documents, unbalanced quotes) is answered as one command, the whole
line: a rule has to allow that, or the user is asked. So a mistake here asks too much, never too little.
"""

from typing import Final

_TWO_WORDS: Final = frozenset(
    """apt apt-get brew bun cargo composer deno docker dotnet gh git go gradle helm just kubectl make mvn npm npx nx pip pip3
    pnpm poetry python python3 ruby rustup systemctl terraform uv yarn""".split()  # noqa: SIM905 - read as a list of words
)
_KEYWORDS: Final = frozenset(
    "if then elif else fi for while until do done case esac in function select time ! { }".split()  # noqa: SIM905
)


def commands_of(line: str) -> tuple[str, ...]:
    """The commands of a line, in order, without keywords of the shell. At least one."""
    found: list[str] = []
    try:
        if "<<" in line:
            raise _Unclear
        end = _read(line, 0, "", found)
        if end != len(line):
            raise _Unclear
    except _Unclear:
        return (line.strip(),)
    return tuple(dict.fromkeys(found)) or (line.strip(),)


def prefix_of(command: str) -> str:
    """The pattern that "always" allows: the program (with its subcommand where that is the custom) and anything after it."""
    words = command.split()
    if not words:
        return command
    known = len(words) > 1 and words[0] in _TWO_WORDS and not words[1].startswith("-")
    return " ".join(words[: 2 if known else 1]) + " *"


class _Unclear(Exception):
    pass


def _read(text: str, at: int, closing: str, found: list[str]) -> int:
    """Read commands until `closing` (or the end); answers the place after it. Inner commands come before outer ones."""
    start = at
    while at < len(text):
        c = text[at]
        if closing and c == closing:
            _add(text[start:at], found)
            return at + 1
        if c == "\\":
            at += 2
        elif c == "'":
            at = _find(text, "'", at + 1) + 1
        elif c == '"':
            at = _quoted(text, at + 1, found)
        elif c == "`":
            at = _read(text, at + 1, "`", found)
        elif text.startswith(("$(", "<(", ">("), at):
            at = _arithmetic(text, at) if text.startswith("$((", at) else _read(text, at + 2, ")", found)
        elif c == "(":
            _add(text[start:at], found)
            start = at = _read(text, at + 1, ")", found)
        elif c == ")":
            raise _Unclear
        elif c in "\n;" or (c in "|&" and not _is_redirection(text, at)):
            _add(text[start:at], found)
            at += 1
            start = at
        else:
            at += 1
    if closing:
        raise _Unclear
    _add(text[start:], found)
    return at


def _is_redirection(text: str, at: int) -> bool:
    """`>&1`, `2>&1`, `&>file`, `>|file`."""
    before = text[at - 1] if at else ""
    after = text[at + 1] if at + 1 < len(text) else ""
    return before in "<>" if text[at] == "|" else before in "<>" or after == ">"


def _quoted(text: str, at: int, found: list[str]) -> int:
    while at < len(text):
        if text[at] == "\\":
            at += 2
        elif text[at] == '"':
            return at + 1
        elif text.startswith("$(", at) and not text.startswith("$((", at):
            at = _read(text, at + 2, ")", found)
        elif text[at] == "`":
            at = _read(text, at + 1, "`", found)
        else:
            at += 1
    raise _Unclear


def _arithmetic(text: str, at: int) -> int:
    return _find(text, "))", at) + 2


def _find(text: str, what: str, at: int) -> int:
    end = text.find(what, at)
    if end < 0:
        raise _Unclear
    return end


def _add(command: str, found: list[str]) -> None:
    words = command.split()
    while words and words[0] in _KEYWORDS:
        words.pop(0)
    if words and not words[0].startswith("#"):
        found.append(command.strip() if words == command.split() else " ".join(words))
