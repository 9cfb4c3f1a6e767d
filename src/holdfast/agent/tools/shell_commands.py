"""A command line → the commands in it, so that each can be checked against the user's rules. Pure.

Splits at `;`, `&`, `|`, `&&`, `||` and newlines outside of quotes, and looks into `$(…)`, backquotes, subshells, groups and
process substitutions. The rule is that a mistake asks too much, never too little:

 - Nothing is dropped but comments, keywords and the heads of loops.
 - What the shell may read in another way than we do (here-documents, `$'…'`, unbalanced quotes, …) is *unclear*.
   Such a line is answered as one command that begins with `unclear: `, so that no rule for a program allows it, followed by
   whatever pieces look like commands, so that rules that forbid one still do.
 - So is arithmetic, unless it is about numbers only: bash takes the value of a name, or the output of a command, for an
   expression again and runs what stands in it: `echo 'a[$(rm x)]'; echo $((_))` removes x. And so is whatever else takes a text
   for a name or an expression: `${!x}`, `${x:y}`, `${x@P}`, `a[x]=1`, `printf -v`, `test -v`, `[[ x -eq 0 ]]`, `read`, `let`.

It is about lines as they stand there. What a program does with its arguments (`sh -c`, `eval`, `xargs`, a variable as the
name of a command) cannot be seen; `prefix_of` does not let such a line stand for others, and `within` guesses at it, for rules
that forbid something.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Final

UNCLEAR: Final = "unclear: "

_LINE_CHARACTERS_MAX: Final = 128 * 1024
_DEPTH_MAX: Final = 50

_TWO_WORDS: Final = frozenset(
    """apt apt-get bazel brew bun bundle cargo composer deno docker dotnet gh git go gradle hatch helm just kubectl make mvn nix
    npm npx nx pdm pip pip3 pixi pnpm podman poetry python python3 ruby rustup rye systemctl terraform uv yarn
    """.split()  # noqa: SIM905 - read as a list of words
)
_RUN: Final = frozenset({"dlx", "exec", "run", "x"})
"""Second words after which the third says what is run."""
_RUN_ELSEWHERE: Final = frozenset({"docker", "kubectl", "podman"})
"""After theirs stands where to run it."""
RUN_OTHERS: Final = frozenset(
    """. at awk bash batch builtin bunx busybox chroot chrt command coproc csh dash doas ed emacs entr env eval ex exec expect fd
    find fish flock gawk gdb ionice ksh lua mawk nawk nice node nohup npx nsenter nvim parallel perl php pipx pkexec pwsh python
    python3 ruby runuser screen script setsid sh source ssh stdbuf strace su sudo systemd-run taskset tclsh tcsh time timeout
    tmux trap ts-node tsx unshare uvx vi vim watch xargs zsh""".split()  # noqa: SIM905
)
"""Programs whose arguments are programs, or say what to do in a language of their own."""
_CHANGE_THE_SHELL: Final = frozenset(
    """alias bind compgen complete declare enable export hash let local mapfile read readarray readonly set shopt typeset unalias
    unset""".split()  # noqa: SIM905
)
"""What one of them does may change what the commands after it mean."""

_KEYWORDS: Final = re.compile(r"(?:(?:if|then|elif|else|fi|while|until|do|done|time|!|\{|\})(?:[ \t\n]+|\Z))+")
_LOOP: Final = re.compile(r"for[ \t]+[A-Za-z_]\w*[ \t]*(?:in(?:[ \t][^<>]*)?)?")
_NOT_TAKEN_APART: Final = re.compile(r"(?:function|coproc|case|esac|select)(?![\w-])")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*(?:\[[^\]]*\])?\+?=")
_PLAIN_WORD: Final = re.compile(r"[\w./+@:,-]+")
_SIMPLE_EXPANSION: Final = re.compile(
    r"\$\{(?:#?(?:\w+|[@*?$!-])|(?:\w+|[@*])(?:(?:[%#^,/]|:?[-=+?])[\w:%/^,.@*+=~?#-]*|:[0-9]+(?::[0-9]+)?))\}"
)
_OF_NUMBERS: Final = re.compile(r"[ \t+\-*/%<>=!&|^~?:,]|0[xX][0-9a-fA-F]+|[0-9]+|\$[#?$]|\$\{#\w+\}")
_SUBSCRIPT: Final = re.compile(r"[A-Za-z_]\w*\[(?![0-9]+\])")
_REDIRECTION: Final = re.compile(r"(?:[0-9]*|\{\w+\})(?:&>>?|<>|>>|>\||[<>]&?)(?!\()[ \t]*")
_EXPRESSION: Final = re.compile(r"[\[$`'\"\\]|(?:\A|[ \t])-\w*[aAinpC]")
_NUMBERS_COMPARED: Final = re.compile(
    r"(?:-?[0-9]+|\"?\$[#?]\"?)[ \t]+-(?:eq|ne|lt|le|gt|ge)[ \t]+(?:-?[0-9]+|\"?\$[#?]\"?)(?![^ \t])"
)
_COMPARES: Final = re.compile(r"(?:\A|[ \t])-(?:eq|ne|lt|le|gt|ge)(?![\w-])")
_TESTS_NAME: Final = re.compile(r"(?:\A|[ \t])-[vR](?![\w-])")
_SETS_NAME: Final = re.compile(r"-\w*v")
_QUOTED: Final = re.compile(r"\\\n|\\(.)|'([^']*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
_NO_QUOTES: Final = {ord(c): None for c in "'\"\\"}
_LOOKED_AT_MAX: Final = 64
_GUESS_CHARACTERS_MAX: Final = 1000
_TARGET: Final = re.compile(r"&>>?[ \t]*[\w./~-]+[ \t]*(?=[\n;&|)]|\Z)")
_SEPARATORS: Final = re.compile(r"[;&|\n(){}`<>]+")
_BLANK: Final = " \t"
_BLANKS: Final = re.compile(r"[ \t\n]+")
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
        pieces = [_without_keywords(piece.strip()) for piece in _SEPARATORS.split(line[:_LINE_CHARACTERS_MAX])]
        pieces += [_bare(piece) for piece in pieces]
        return tuple(dict.fromkeys((UNCLEAR + line.strip(), *filter(None, pieces))))
    return tuple(dict.fromkeys(found)) or (line.strip(),)


def within(commands: Iterable[str]) -> tuple[str, ...]:
    """What the commands of a line may run besides, as far as that can be guessed: the program without its path, and whatever
    stands after a program that runs others (`sudo rm x`, `sh -c 'rm x'`, `find -exec rm …`)."""
    found: dict[str, None] = {}
    _look_within(commands, found, 3)
    return tuple(found)


def _look_within(commands: Iterable[str], found: dict[str, None], depth: int) -> None:
    for command in itertools.islice(commands, _LOOKED_AT_MAX):
        words = _words(_bare(command))[:_LOOKED_AT_MAX] if not command.startswith(UNCLEAR) else []
        if not words:
            continue
        program = words[0].rpartition("/")[2]
        runs_others = program in RUN_OTHERS or program.startswith("-")  # an option of a keyword, as in `time -p`
        for at, word in enumerate(words if runs_others else words[:1]):
            if at > 0 and word.startswith("-"):
                continue
            for name in {word, word.rpartition("/")[2]}:
                found[" ".join((name, *words[at + 1 :]))[:_GUESS_CHARACTERS_MAX]] = None
            if at > 0 and depth > 0 and not _PLAIN_WORD.fullmatch(word):
                inner = commands_of(word)
                found.update(dict.fromkeys(inner))
                _look_within(inner, found, depth - 1)


def prefix_of(command: str) -> str:
    """The pattern that "always" allows: the program (with its subcommand where that is the custom) and anything after it; only
    this very command if its program runs others, or if it is not clear which program it is."""
    words = command.split()
    if not words or command.startswith(UNCLEAR) or not _PLAIN_WORD.fullmatch(words[0]):
        return command
    name = words[0].rpartition("/")[2]
    if name in _TWO_WORDS:
        if not _names_something(words[1:]):
            return command
        if words[1] not in _RUN or name in ("make", "just"):
            return f"{words[0]} {words[1]} *"
        if name in _RUN_ELSEWHERE or not _names_something(words[2:]):
            return command
        return f"{words[0]} {words[1]} {words[2]} *" if prefix_of(" ".join(words[2:])) == f"{words[2]} *" else command
    return command if name in RUN_OTHERS | _CHANGE_THE_SHELL else f"{words[0]} *"


def _names_something(words: Sequence[str]) -> bool:
    return bool(words) and _PLAIN_WORD.fullmatch(words[0]) is not None and not words[0].startswith("-")


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
            if c in "\\'\"`$" or (c in "<>" and text.startswith("(", at + 1)):
                at, in_word = self.skip(at, depth), True
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

    def skip(self, at: int, depth: int = 0) -> int:
        """Read the next piece of a word."""
        match self._text[at]:
            case "\\":
                if at + 1 == len(self._text):
                    raise _Unclear
                return at + 2
            case "'":
                return self._find("'", at + 1) + 1
            case '"':
                return self._quoted(at + 1, depth)
            case "`":
                return self._backquoted(at + 1, depth)
            case "$":
                return self._dollar(at, depth)
            case "<" | ">":
                return self.read(at + 2, ")", depth + 1)
            case _:
                return at + 1

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
        if type(self)(inside, self._found).read(0, "", depth + 1) != len(inside):
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
        bare = _bare(command)
        if _may_be_taken_for_an_expression(command, bare):
            raise _Unclear
        self._found.append(command)
        if bare and bare != command:  # for rules that forbid it; those that allow it have to allow the rest as well
            self._found.append(bare)


class _Skipper(_Reader):
    """For who only wants to know where something ends: it looks into no command, or nested ones would be read again and again."""

    def _add(self, command: str) -> None:
        pass


def _may_be_taken_for_an_expression(command: str, bare: str) -> bool:
    """Whether bash may look for commands in a text, where it takes it for a name or a number."""
    program, _, rest = bare.partition(" ")
    plain = rest.translate(_NO_QUOTES)
    if "{" in command and re.search(r"\{[A-Za-z_]\w*\[", command):  # {name[…]}>file
        return True
    match program:
        case "let" | "compgen" | "complete" | "bind":
            return True
        case "declare" | "typeset" | "local" | "mapfile" | "read" | "readarray" | "unset":
            return _EXPRESSION.search(rest) is not None
        case "printf":
            return plain.startswith(("$", "`")) or _SETS_NAME.match(plain) is not None
        case "test" | "[":
            return _TESTS_NAME.search(plain) is not None
        case "[[":
            return (
                _TESTS_NAME.search(plain) is not None or _COMPARES.search(_NUMBERS_COMPARED.sub("", rest)) is not None
            )
        case _:
            words = command.split()
            return any(map(_SUBSCRIPT.match, itertools.takewhile(_ASSIGNMENT.match, words)))


def _without_keywords(command: str) -> str:
    keywords = _KEYWORDS.match(command)
    return command[keywords.end() :] if keywords else command


def _bare(command: str) -> str:
    """The command without what stands before its program (assignments, redirections), and the program without its quotes."""
    at = 0
    command = command.removesuffix("\\")  # what is left of a line that goes on, but has no next one
    try:
        while True:
            before = _REDIRECTION.match(command, at) or _ASSIGNMENT.match(command, at) or _BLANKS.match(command, at)
            if before is None:
                break
            at = _end_of_word(command, before.end()) if before[0].strip() else before.end()
        end = _end_of_word(command, at)
    except _Unclear:
        return command
    return f"{_unquoted(command[at:end])} {command[end:].strip()}".strip()


def _words(command: str) -> list[str]:
    """Without their quotes."""
    words: list[str] = []
    at = 0
    try:
        while at < len(command):
            end = _end_of_word(command, at)
            if end > at:
                words.append(_unquoted(command[at:end]))
            at = max(end, at + 1)
    except _Unclear:
        return command.split()
    return words


def _end_of_word(text: str, at: int) -> int:
    reader = _Skipper(text, [])
    while at < len(text) and (text[at] not in _ENDS_WORD or (text[at] in "<>" and text.startswith("(", at + 1))):
        at = reader.skip(at)
    return min(at, len(text))


def _unquoted(word: str) -> str:
    """As it is, if what it comes to is only known when it is run."""
    if "$" in word or "`" in word:
        return word
    return _QUOTED.sub(lambda quoted: quoted[1] or quoted[2] or quoted[3] or "", word)
