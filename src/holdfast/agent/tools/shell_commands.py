"""A command line → the commands in it, so that each can be checked against the user's rules. Pure.

Splits at `;`, `&`, `|`, `&&`, `||` and newlines outside of quotes, and looks into `$(…)`, backquotes, subshells, groups and
process substitutions. The rule is that a mistake asks too much, never too little:

 - Nothing is dropped but comments, keywords and the heads of loops.
 - What the shell may read in another way than we do (here-documents, `$'…'`, unbalanced quotes, …) is *unclear*.
   Such a line is answered as one command that begins with `unclear: `, so that no rule for a program allows it, followed by
   whatever pieces look like commands, so that rules that forbid one still do.
 - So is arithmetic, unless it is about numbers only: bash takes the value of a name, or the output of a command, for an
   expression again and runs what stands in it: `echo 'a[$(rm x)]'; echo $((_))` removes x.

It is about lines as they stand there. What a program does with its arguments (`sh -c`, `eval`, `xargs`, a variable as the
name of a command) cannot be seen; `prefix_of` does not let such a line stand for others.
"""

import re
from typing import Final

UNCLEAR: Final = "unclear: "

_LINE_CHARACTERS_MAX: Final = 128 * 1024
_DEPTH_MAX: Final = 50

_TWO_WORDS: Final = frozenset(
    """apt apt-get brew bun cargo composer deno docker dotnet gh git go gradle helm just kubectl make mvn npm npx nx pip pip3
    pnpm poetry python python3 ruby rustup systemctl terraform uv yarn""".split()  # noqa: SIM905 - read as a list of words
)
RUN_OTHERS: Final = frozenset(
    """. awk bash builtin bunx busybox chroot command dash doas entr env eval exec find fish flock ksh nice node nohup npx
    parallel perl php pipx python python3 ruby script setsid sh source ssh stdbuf strace su sudo tclsh time timeout trap uvx
    watch xargs zsh""".split()  # noqa: SIM905
)
"""Programs whose arguments are programs, or say what to do in a language of their own."""

_KEYWORDS: Final = re.compile(r"(?:(?:if|then|elif|else|fi|while|until|do|done|time|!|\{|\})(?:[ \t\n]+|\Z))+")
_LOOP: Final = re.compile(r"for[ \t]+[A-Za-z_]\w*[ \t]*(?:in(?:[ \t][^<>]*)?)?")
_NOT_TAKEN_APART: Final = re.compile(r"(?:function|coproc|case|esac|select)(?![\w-])")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*(?:\[[^\]]*\])?\+?=")
_PLAIN_WORD: Final = re.compile(r"[\w./+@:,-]+")
_SIMPLE_EXPANSION: Final = re.compile(r"\$\{[#!]?[\w@*?$!-]+[\w:%/^,.@*+=~?#-]*\}")
_OF_NUMBERS: Final = re.compile(r"[ \t+\-*/%<>=!&|^~?:,]|0[xX][0-9a-fA-F]+|[0-9]+|\$[#?$]|\$\{#\w+\}")
_TARGET: Final = re.compile(r"&>>?[ \t]*[\w./~-]+[ \t]*(?=[\n;&|)]|\Z)")
_SEPARATORS: Final = re.compile(r"[;&|\n(){}`<>]+")
_BLANK: Final = " \t"
_ENDS_WORD: Final = " \t\n;&|()<>"


def commands_of(line: str) -> tuple[str, ...]:
    """The commands of a line, the inner ones before those they are in, without keywords of the shell. At least one."""
    found: list[str] = []
    try:
        if len(line) > _LINE_CHARACTERS_MAX:
            raise _Unclear
        reader = _Reader(line, found)
        if reader.read(0, "", 0) != len(line):
            raise _Unclear
    except _Unclear:
        pieces = (_without_keywords(piece.strip()) for piece in _SEPARATORS.split(line))
        return tuple(dict.fromkeys((UNCLEAR + line.strip(), *filter(None, pieces))))
    return tuple(dict.fromkeys(found)) or (line.strip(),)


def prefix_of(command: str) -> str:
    """The pattern that "always" allows: the program (with its subcommand where that is the custom) and anything after it; only
    this very command if its program runs others, or if it is not clear which program it is."""
    words = command.split()
    if not words or command.startswith(UNCLEAR) or not _PLAIN_WORD.fullmatch(words[0]):
        return command
    name = words[0].rpartition("/")[2]
    if name in _TWO_WORDS:
        named = len(words) > 1 and _PLAIN_WORD.fullmatch(words[1]) and not words[1].startswith("-")
        return f"{words[0]} {words[1]} *" if named else command
    return command if name in RUN_OTHERS else f"{words[0]} *"


class _Unclear(Exception):
    pass


class _Reader:
    def __init__(self, text: str, found: list[str]) -> None:
        self._text = text
        self._found = found

    def read(self, at: int, closing: str, depth: int) -> int:
        """Read commands until `closing` (or the end); answers the place after it."""
        if depth > _DEPTH_MAX:
            raise _Unclear
        text = self._text
        start = at
        in_word = False
        redirects = False  # the character before is an unquoted < or >
        pieces: list[str] = []  # of this command, without comments
        while at < len(text):
            c = text[at]
            before, redirects = redirects, False
            if closing and c == closing:
                self._add("".join((*pieces, text[start:at])))
                return at + 1
            if c == "#" and not in_word:
                pieces.append(text[start:at])
                at = start = self._end_of_line(at)
                continue
            if c == "\\":
                if at + 1 == len(text):
                    raise _Unclear
                at, in_word = at + 2, True
            elif c == "'":
                at, in_word = self._find("'", at + 1) + 1, True
            elif c == '"':
                at, in_word = self._quoted(at + 1, depth), True
            elif c == "`":
                at, in_word = self._backquoted(at + 1, depth), True
            elif c == "$":
                at, in_word = self._dollar(at, depth), True
            elif c in "<>" and text.startswith("(", at + 1):
                at, in_word = self.read(at + 2, ")", depth + 1), True
            elif c in "<>":
                if text.startswith("<<", at):
                    raise _Unclear
                at, in_word, redirects = at + 1, False, True
            elif c == "(":
                if text.startswith("((", at):
                    raise _Unclear
                self._add("".join((*pieces, text[start:at])))
                start = at = self.read(at + 1, ")", depth + 1)
                pieces, in_word = [], False
            elif c == ")":
                raise _Unclear
            elif c in "|&" and before:  # >| and >&
                at, in_word = at + 1, False
            elif c == "&" and text.startswith(">", at + 1):
                target = _TARGET.match(text, at)
                if target is None:  # a plain sh would take it for `&` and `>`
                    raise _Unclear
                at, in_word = target.end(), False
            elif c in "\n;|&":
                self._add("".join((*pieces, text[start:at])))
                at += 1
                start, pieces, in_word = at, [], False
            else:
                in_word = c not in _BLANK
                at += 1
        if closing:
            raise _Unclear
        self._add("".join((*pieces, text[start:])))
        return at

    def _quoted(self, at: int, depth: int) -> int:
        while at < len(self._text):
            c = self._text[at]
            if c == "\\":
                at += 2
            elif c == '"':
                return at + 1
            elif c == "$" and not self._text.startswith(("$'", '$"'), at):
                at = self._dollar(at, depth)
            elif c == "`":
                at = self._backquoted(at + 1, depth)
            else:
                at += 1
        raise _Unclear

    def _dollar(self, at: int, depth: int) -> int:
        text = self._text
        if text.startswith("$((", at):
            return self._arithmetic(at + 3)
        if text.startswith(("$[", "$'", '$"'), at):
            raise _Unclear
        if text.startswith("$(", at):
            return self.read(at + 2, ")", depth + 1)
        if text.startswith("${", at):
            expansion = _SIMPLE_EXPANSION.match(text, at)
            if expansion is None:
                raise _Unclear
            return expansion.end()
        return at + 1

    def _arithmetic(self, at: int) -> int:
        text = self._text
        depth = 0
        while depth or not text.startswith("))", at):
            if text.startswith(("(", ")"), at):
                depth += 1 if text[at] == "(" else -1
                if depth < 0:  # no arithmetic, but a subshell in a substitution
                    raise _Unclear
                at += 1
            elif (token := _OF_NUMBERS.match(text, at)) is not None:
                at = token.end()
            else:
                raise _Unclear
        return at + 2

    def _backquoted(self, at: int, depth: int) -> int:
        """The shell looks for the other one before it looks at anything between them, so that must be simple."""
        end = self._find("`", at)
        inside = self._text[at:end]
        if any(c in inside for c in "\\'\"#"):
            raise _Unclear
        if _Reader(inside, self._found).read(0, "", depth + 1) != len(inside):
            raise _Unclear
        return end + 1

    def _end_of_line(self, at: int) -> int:
        end = self._text.find("\n", at)
        return len(self._text) if end < 0 else end

    def _find(self, what: str, at: int) -> int:
        end = self._text.find(what, at)
        if end < 0:
            raise _Unclear
        return end

    def _add(self, command: str) -> None:
        command = _without_keywords(command.strip(" \t\n"))
        if _NOT_TAKEN_APART.match(command):
            raise _Unclear
        if not command or _LOOP.fullmatch(command):
            return
        self._found.append(command)
        bare = _without_assignments(command)
        if (
            bare and bare != command
        ):  # for rules that forbid it; those that allow it have to allow the variables as well
            self._found.append(bare)


def _without_keywords(command: str) -> str:
    keywords = _KEYWORDS.match(command)
    return command[keywords.end() :] if keywords else command


def _without_assignments(command: str) -> str:
    words = command.split(" ")
    while words and _ASSIGNMENT.match(words[0]) and not any(c in words[0] for c in "'\"`$\\("):
        words.pop(0)
    return " ".join(words).strip()
