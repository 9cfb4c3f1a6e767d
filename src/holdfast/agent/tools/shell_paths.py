"""A command line → the words in it that may name a file, so that those outside of the project can be asked for. Pure.

As in `shell_commands`, a mistake rather asks too much. So quotes are taken off, options and lists are split (`--file=/etc/x`,
`-I/usr/include`, `a:/b`), substitutions and the arguments of programs that take programs (`sh -c '…'`) are taken apart, and
of a name with a variable or a wildcard in it what stands before the last slash before that is taken (`/etc/*.conf` is `/etc/`,
`/e?c/x` is `/`; `.?/x` may be `../x`). What cannot be seen from the line is not found: other variables than those of the home and
working directory, and names that a program makes up.
"""

import re
import sys
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from holdfast.agent.tools.shell_commands import RUN_OTHERS

_BREAKS: Final = frozenset(";&|()`\n")
_BLANK: Final = frozenset(" \t\r\n")
_HOME: Final = re.compile(r"\$(?:HOME\b|\{HOME\})")
_HERE: Final = re.compile(r"\$(?:PWD\b|\{PWD\})")
_CUT: Final = re.compile(r"[$*?\[]")
_ROOT: Final = "/."
"""For what may be anything below it, to tell it from a slash that is text."""
_IS_QUOTED: Final = str.maketrans("$*?[", "\ue000\ue001\ue002\ue003")
_IS_NOT: Final = str.maketrans("\ue000\ue001\ue002\ue003", "$*?[")
_IN_ANSI_C: Final = re.compile(r"(?:[^'\\]|\\.)*", re.DOTALL)
_ANSI_C: Final = re.compile(
    r"\\(?:x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{1,4})|U([0-9a-fA-F]{1,8})|([0-7]{1,3})|(.))", re.DOTALL
)
_PIECES: Final = re.compile(r"[=:,{}@]")
_ATTACHED: Final = re.compile(r"-{1,2}[A-Za-z]+?(?=[/~.])")
_INSIDE: Final = re.compile(r"""[^\s'"();&|<>]+""")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*\+?=")
_GO_HOME: Final = frozenset({"cd", "pushd"})
_LANGUAGES: Final = frozenset(
    {"awk", "gawk", "gdb", "lua", "mawk", "nawk", "node", "perl", "php", "python", "python3", "ruby"}
)
"""In which a star is none of a file's name."""
_SLASH_IS_TEXT: Final = frozenset({"awk", "cut", "echo", "grep", "printf", "rg", "sed", "tr"})
_HARMLESS: Final = re.compile(r"/dev/(?:null|zero|full|random|urandom|tty|stdin|stdout|stderr|fd/\d+)")


class Operand(NamedTuple):
    """`is_target`: something is read from it or written to it, whatever it is called."""

    text: str
    is_target: bool = False


class _Word(NamedTuple):
    """`is_code`: there is a command in it."""

    text: str
    is_target: bool
    is_code: bool


def operands_of(line: str) -> tuple[Operand, ...]:
    """Each once, in order. `~` is for whoever resolves them to expand."""
    found: dict[Operand, None] = {}
    for command in _commands(line):
        program = next((word.text for word in command if not word.is_target and not _ASSIGNMENT.match(word.text)), "")
        name = program.rpartition("/")[2]
        seen = False
        for word in command:
            if not seen and word.text == program and not word.is_target:
                seen = True  # which program it is, is the question of `shell_commands`
                continue
            inner = _INSIDE.findall(word.text.translate(_IS_NOT)) if word.is_code or name in RUN_OTHERS else ()
            for text, has_wildcards in ((word.text, True), *((text, name not in _LANGUAGES) for text in inner)):
                for piece in _pieces(text, has_wildcards=has_wildcards):
                    if piece and not _HARMLESS.fullmatch(piece) and not (_is_slash(piece) and name in _SLASH_IS_TEXT):
                        found[Operand(piece, word.is_target)] = None
        if name in _GO_HOME and len(command) == 1:
            found[Operand("~")] = None
    return tuple(found)


def _pieces(word: str, *, has_wildcards: bool) -> list[str]:
    word = _HERE.sub(".", _HOME.sub("~", word))
    attached = _ATTACHED.match(word)
    rest = word[attached.end() :] if attached else ""
    parts = [part for part in _PIECES.split(word) if part]
    candidates = [word, *parts, "" if _is_slash(rest) else rest]
    cut = _cut if has_wildcards else _cut_off
    pieces = [cut(candidate).translate(_IS_NOT) for candidate in candidates if not candidate.startswith("-")]
    return [piece for piece in pieces if not _is_slash(piece) or piece == word or not word.startswith("-")]


def _cut(name: str) -> str:
    """What stands before the first piece of a name that may be anything; it may also be the directory above."""
    found = _CUT.search(name)
    if found is None:
        return name
    before, slash, piece = name[: found.start()].rpartition("/")
    piece += name[found.start() :].partition("/")[0]
    if piece.startswith(".") and fnmatchcase("..", piece):
        return f"{before}{slash}.."
    return _ROOT if slash and _is_slash(before) else before + slash


def _cut_off(name: str) -> str:
    return _CUT.split(name, maxsplit=1)[0]


def _decoded(escaped: re.Match[str]) -> str:
    """In `$'…'`."""
    for digits, base in zip(escaped.groups()[:4], (16, 16, 16, 8), strict=True):
        if digits is not None:
            return chr(min(int(digits, base), sys.maxunicode))
    return escaped[5]


def _is_slash(piece: str) -> bool:
    return piece.strip("/") == ""


def _commands(line: str) -> list[list[_Word]]:
    """The words of each command, without their quotes."""
    commands: list[list[_Word]] = [[]]
    word: list[str] = []
    is_word = is_target = is_code = False
    quote = ""
    at = 0

    def end() -> None:
        nonlocal is_word, is_target, is_code
        if is_word:
            commands[-1].append(_Word("".join(word), is_target, is_code))
            is_target = False
        word.clear()
        is_word = is_code = False

    while at < len(line):
        c = line[at]
        at += 1
        if quote:
            if c == quote:
                quote = ""
            elif c == "\\" and quote == '"' and at < len(line):
                word.append(line[at].translate(_IS_QUOTED))
                at += 1
            elif c == "`" or (c == "$" and line.startswith("(", at)):
                word.append(" ")
                is_code = True
            else:
                word.append(c if c == "$" and quote == '"' else c.translate(_IS_QUOTED))
        elif c == "$" and line.startswith("'", at):
            content = _IN_ANSI_C.match(line, at + 1)
            word.append(_ANSI_C.sub(_decoded, content[0]).partition("\0")[0].translate(_IS_QUOTED) if content else "")
            at = content.end() + 1 if content else at
            is_word = True
        elif c == "$" and line.startswith('"', at):
            pass
        elif c in "'\"":
            quote, is_word = c, True
        elif c == "\\" and at < len(line):
            if line[at] != "\n":
                word.append(line[at].translate(_IS_QUOTED))
                is_word = True
            at += 1
        elif c in "<>":
            if "".join(word).isdigit():  # the number of a descriptor
                word.clear()
                is_word = False
            end()
            is_target = not line.startswith("(", at)
        elif c in "&|" and is_target and not is_word:  # >& and >|
            pass
        elif c in _BREAKS:
            end()
            is_target = False
            commands.append([])
        elif c in _BLANK:
            end()
        else:
            word.append(c)
            is_word = True
    end()
    return [command for command in commands if command]
