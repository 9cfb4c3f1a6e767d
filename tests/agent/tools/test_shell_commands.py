"""No command of a line escapes the user's rules. The shell itself is the judge: what it runs has to have been asked for."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from holdfast.agent.permissions import Ask, matches, verdict
from holdfast.agent.tools.shell_commands import UNCLEAR, commands_of, prefix_of, within
from holdfast.core.permissions import PermissionRule

NAMES = ("c1", "c2", "c3")
BUILTINS = ("printf", "test", "[", "[[", "read", "unset", "let", "declare", "local", "mapfile", "compgen")


@pytest.mark.parametrize(
    ("line", "commands"),
    [
        ("echo permitted && ls", ["echo permitted", "ls"]),
        ("a; b | c || d & e", ["a", "b", "c", "d", "e"]),
        ("a\n\nb;", ["a", "b"]),
        ("echo 'a; b' \"c; d\" e\\;f", ["echo 'a; b' \"c; d\" e\\;f"]),
        ("echo $(rm x) `date`", ["rm x", "date", "echo $(rm x) `date`"]),
        ('echo "$(a "$(b)")"', ["b", 'a "$(b)"', 'echo "$(a "$(b)")"']),
        ("(a; b) > f", ["a", "b", "> f"]),
        ("{ a; b; }", ["a", "b"]),
        ("diff <(a) >(b)", ["a", "b", "diff <(a) >(b)"]),
        ("if a; then b; else c; fi", ["a", "b", "c"]),
        ("for f in *.py $(ls); do cat $f; done", ["ls", "cat $f"]),
        ("while ! a; do time b; done", ["a", "b"]),
        ("a 2>&1 >| f &> g", ["a 2>&1 >| f &> g"]),
        ("a # b; c\nd", ["a", "d"]),
        ("# all comment", ["# all comment"]),
        ("echo ${x} $# ${#x} ${x%.py} a#b", ["echo ${x} $# ${#x} ${x%.py} a#b"]),
        ("A=1 B=2 git log", ["A=1 B=2 git log", "git log"]),
        ("f() { rm x; }", ["f", "rm x"]),
        ("head -c $((1024 * 2)) f; echo $((1+1))", ["head -c $((1024 * 2)) f", "echo $((1+1))"]),
        ('sed -n "$((0x10 << 2)),$(( (1 + 2) * -3 ))p" f', ['sed -n "$((0x10 << 2)),$(( (1 + 2) * -3 ))p" f']),
        ("echo $(($# > 1 ? $? : ${#x}))$(())$(date)", ["date", "echo $(($# > 1 ? $? : ${#x}))$(())$(date)"]),
        ("echo $(a $((1)) b)", ["a $((1)) b", "echo $(a $((1)) b)"]),
        ("", [""]),
    ],
)
def test_the_commands_of_a_line(line: str, commands: list[str]) -> None:
    assert list(commands_of(line)) == commands


@pytest.mark.parametrize(
    "line",
    [
        "cat <<EOF\n$(rm x)\nEOF",
        "echo 'a",
        'echo "a',
        "echo $(a",
        "echo `a",
        "a)",
        "a\\",
        "echo $((1 + $(rm x)))",
        "echo $((1 + `rm x`))",
        'echo "$((rm x) )"',
        "echo $((1)|(2))",
        "echo $((1) )",
        "echo $((1)",
        "echo $((1",
        "echo $((1;2))",
        "echo $((1\n2))",
        "echo $((x))",
        "echo $(($x))",
        "echo $(($1))",
        "echo $((_))",
        "echo $((a[$(rm x)]))",
        "echo $((1 # 2))",
        "echo $(('1'))",
        "((x = 1))",
        "echo $'\\'' ; rm x ; echo '\\'",
        "echo ${x:-$(rm x)}",
        "echo ${x:- # }; rm x",
        "echo `echo \\`rm x\\``",
        "function git { rm x; }",
        "case $x in a) rm x;; esac",
        "coproc rm x",
        "a &>b rm x",
        "printf -v 'a[$(rm x)]' y",
        'printf "-v" "$x" y',
        "printf $x 'a[$(rm x)]' y",
        "test -v 'a[$(rm x)]'",
        "[ -v 'a[$(rm x)]' ]",
        "[[ -v $x ]]",
        "[[ $x -eq 0 ]]",
        "[[ x -lt 0 ]]",
        "read 'a[$(rm x)]'",
        "unset 'a[$(rm x)]'",
        "let x=y",
        "declare -i x=y",
        "local 'a[$(rm x)]'",
        "mapfile -C 'rm x' -c 1",
        "compgen -W '$(rm x)'",
        "echo ${!x}",
        "echo ${x@P}",
        "echo ${x:y}",
        "echo ${x:0:y}",
        "a[x]=1",
        "x=1 a[x]=1 echo",
        "echo {a[x]}>f",
        "echo " + "$(" * 1000 + ")" * 1000,
        "a;" * 100_000,
    ],
)
def test_a_line_that_cannot_be_taken_apart_is_not_allowed_by_a_rule_for_a_program(line: str) -> None:
    rules = [_allow(f"{name} *") for name in ("cat", "echo", "git", "a", "x", "f", *BUILTINS)]

    assert commands_of(line)[0] == UNCLEAR + line.strip()
    assert verdict(Ask(permission="bash", patterns=commands_of(line)), rules) == "ask"
    assert verdict(Ask(permission="bash", patterns=commands_of(line)), [_allow("*")]) == "allow"


def test_a_rule_that_forbids_a_program_holds_in_a_line_that_cannot_be_taken_apart() -> None:
    rules = [_allow("*"), PermissionRule(permission="bash", pattern="rm *", action="deny")]

    for line in ("cat <<EOF; rm x\nEOF", "echo $((y)); rm x", "echo `echo \\`rm x\\``", "X=1 rm x", "echo 'a\nrm x"):
        assert verdict(Ask(permission="bash", patterns=commands_of(line)), rules) == "deny"


@pytest.mark.parametrize(
    "line",
    [
        "rm\tx",
        "rm\\\n x",
        "rm\\\n",
        "X='a b' rm x",
        'X="$(a "b c")" Y=`a b` rm x',
        ">f rm x",
        "2>/dev/null rm x",
        "<f >>g X=1 rm x",
        "'rm' x",
        '"rm" x',
        "r\\m x",
        "r''m x",
        "cat <<E; 'rm' x\nE",
        "if true; then rm>f x; fi",
    ],
)
def test_a_rule_that_forbids_a_program_holds_however_the_command_is_written(line: str) -> None:
    rules = [_allow("*"), PermissionRule(permission="bash", pattern="rm *", action="deny")]

    assert verdict(Ask(permission="bash", patterns=commands_of(line)), rules) == "deny"


@pytest.mark.parametrize(
    "line",
    [
        "/bin/rm x",
        "sudo -u root rm x",
        "command rm x",
        "time -p rm x",
        "env -i A=1 /bin/rm x",
        "find . -name x -exec rm {} \\;",
        "ls | xargs -0 rm -f",
        "eval rm x",
        "eval 'a; rm x'",
        "bash -c 'cd x && rm y'",
        "sh -c \"sudo sh -c 'rm x'\"",
        "python3 -c \"import os; os.system('rm x')\"",
        "coproc rm x",
        "timeout 5 nohup rm x",
    ],
)
def test_the_user_is_asked_where_a_forbidden_program_may_be_run_by_another(line: str) -> None:
    rules = [_allow("*"), PermissionRule(permission="bash", pattern="rm *", action="deny")]
    patterns = commands_of(line)
    ask = Ask(permission="bash", patterns=patterns, within=within(patterns))

    assert verdict(ask, rules) == "ask"
    assert (
        verdict(ask, [_allow("*"), PermissionRule(permission="bash", pattern="git push *", action="deny")]) == "allow"
    )
    assert verdict(ask, [PermissionRule(permission="bash", pattern="*", action="deny"), _allow("*")]) == "allow"
    assert verdict(ask, [*rules, *map(_allow, patterns)]) == "allow"  # those very lines: what "always" records


def test_what_a_program_may_run_needs_no_rule_that_allows_it() -> None:
    rules = [PermissionRule(permission="bash", pattern="*", action="deny"), _allow("find *"), _allow("./x *")]

    for line in ("find . -exec rm {} +", "./x rm"):
        patterns = commands_of(line)
        assert verdict(Ask(permission="bash", patterns=patterns, within=within(patterns)), rules) == "allow"


def test_lines_that_are_nested_deeply_or_long_are_looked_at_in_no_time() -> None:
    for line in ("$(" * 45 + "a" + ")" * 45, "A=1 " * 30_000, "sudo " * 20_000, "sh -c 'a;" + "b " * 60_000 + "'"):
        patterns = commands_of(line)
        assert patterns
        assert within(patterns) is not None


@pytest.mark.parametrize(
    "line",
    [
        "c1 # don't\nc2 x\n# don't",
        "c1 # \\\nc2 x",
        "c1 \\>|c2 x",
        "c1 a\\ #b; c2 x",
        'c1 "`c2 x`"',
        "c1 '\\'; c2 x",
        "c1 \\\\; c2 x",
        'c1 "\\""; c2 x',
        "c1 >f&c2 x",
        "c1 2>&1|c2 x",
        "c1 <f|c2",
        "c1\tx&c2\ty",
        "! c1 || { c2 x; }",
        "c1 {a,b};c2",
        "c1 a=(b);c2",
        "c1() { c2 x; }; c1",
        'c1 "${x}" ; c2',
        "c1 $; c2",
        "c1 '$(' ; c2 ')'",
        "c1\r\nc2 x",
        "c1 \u00a0#x; c2",
        "c1 $((1)); c2 x",
        "c1 $((1)|(c2 x))",
        "c1 $((1 + $(c2 x)))",
        "c1 'a[$(c2 x)]'; c1 $((_))",
        "for x in 'a[$(c2 x)]'; do c1 $((x)); done",
        "c1 $((1 > 2)) >f&c2 x",
        'c1 "$((1))" | c2 x',
        "c1 $((1))#; c2 x",
        "for x in 'a[$(c2 x)]'; do c1 ${!x}; done",
        "for x in 'a[$(c2 x)]'; do c1 ${HOME:x}; done",
        "for x in 'a[$(c2 x)]'; do c1 ${HOME:0:x}; done",
        "for x in '$(c2 x)'; do c1 ${x@P}; done",
        "for x in 'a[$(c2 x)]'; do a[x]=1 c1; done",
    ],
)
def test_lines_that_once_hid_a_command(tmp_path: Path, line: str) -> None:
    _judged(line, tmp_path)


WORDS = ("c1", "c2", "c3", "c1 ", "c2 x", "f", "~", "*", "é", "!", "=", "x=1", ",", "{c1,c2}", "time ")
SIGNS = (
    " ",
    "\n",
    "\t",
    "\r",
    "\u00a0",
    ";",
    "&",
    "|",
    "&&",
    "||",
    "|&",
    "&>",
    ">",
    "<",
    ">>",
    "2>&1",
    ">|",
    "#",
    " #",
)
QUOTES = (
    "'",
    '"',
    "`",
    "\\",
    "\\'",
    '\\"',
    "\\`",
    "\\\n",
    "$'",
    '$"',
    "$",
    "${x}",
    "${x",
    "$[",
    "<<f\n",
    "\nf\n",
    "<<<",
)
GROUPS = (
    "$((1+1))",
    "$((",
    "1",
    "+",
    "$(",
    "(",
    ")",
    "((",
    "))",
    "$((",
    "<(",
    "{ ",
    " }",
    "}",
    "()",
    "[[ ",
    " ]]",
    "function ",
)
BLOCKS = ("if ", "; then ", "; fi", "for x in a; do ", "; done", "case a in a) ", ";; esac")
fragments = st.sampled_from((*WORDS, *SIGNS, *QUOTES, *GROUPS, *BLOCKS))


@given(st.lists(fragments, min_size=1, max_size=12).map("".join))
@example("c1 \\>|c2")
@example("c1 # '\nc2 # '")
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=400
)
def test_whatever_the_shell_runs_was_asked_for(tmp_path: Path, line: str) -> None:
    """For any line: a program that the shell runs in it is not run under rules that allow only the other programs."""
    _judged(line, tmp_path)


@given(st.text("ab \n;&|'\"`$(){}#\\<>=!", max_size=40))
def test_any_line_has_commands(line: str) -> None:
    assert commands_of(line)
    assert all(prefix_of(command) is not None for command in commands_of(line))


# --- always -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "prefix"),
    [
        ("echo permitted", "echo *"),
        ("ls", "ls *"),
        ("git log -p", "git log *"),
        ("npm run test", "npm run test *"),
        ("npm run", "npm run"),
        ("make run", "make run *"),
        ("uv run pytest -x", "uv run pytest *"),
        ("uv run python x.py", "uv run python x.py"),
        ("uv run rm -rf x", "uv run rm *"),
        ("docker exec web rm x", "docker exec web rm x"),
        ("docker run --rm x", "docker run --rm x"),
        ("alias ls=rm", "alias ls=rm"),
        ("export PATH=x", "export PATH=x"),
        ("./scripts/test -x", "./scripts/test *"),
        ("git", "git"),
        ("git -C /x push", "git -C /x push"),
        ("/usr/bin/git push", "/usr/bin/git push *"),
        ("bash -c 'rm x'", "bash -c 'rm x'"),
        ("sudo ls", "sudo ls"),
        ("/usr/bin/env ls", "/usr/bin/env ls"),
        ("LD_PRELOAD=x.so git log", "LD_PRELOAD=x.so git log"),
        ("$PROGRAM x", "$PROGRAM x"),
        ("> f", "> f"),
        ("unclear: cat <<EOF", "unclear: cat <<EOF"),
        ("", ""),
    ],
)
def test_what_always_allows(command: str, prefix: str) -> None:
    assert prefix_of(command) == prefix
    assert matches(prefix, command)


# --- the judge --------------------------------------------------------------------------------------------------


def _allow(pattern: str) -> PermissionRule:
    return PermissionRule(permission="bash", pattern=pattern, action="allow")


def _judged(line: str, directory: Path) -> None:
    patterns = commands_of(line)
    for shell in filter(None, (shutil.which("bash"), shutil.which("dash"))):
        for name in _run(shell, line, directory):
            rules = [_allow(f"{other} *") for other in NAMES if other != name]
            assert verdict(Ask(permission="bash", patterns=patterns), rules) != "allow", (shell, name, patterns)


def _run(shell: str, line: str, directory: Path) -> set[str]:
    """The programs of ours that a shell runs: scripts that only note their name."""
    place = directory / "bin"
    log = directory / "log"
    if not place.exists():
        place.mkdir()
        for name in NAMES:
            (place / name).write_text(f"#!/bin/sh\necho {name} >> {log}\n")
            (place / name).chmod(0o755)
        (directory / "work").mkdir()
    log.unlink(missing_ok=True)
    subprocess.run(
        [shell, "-c", line],
        cwd=directory / "work",
        env={"PATH": str(place)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,  # read until all that runs in the background has ended too
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    for left in os.scandir(directory / "work"):
        os.unlink(left)
    return set(log.read_text().split()) if log.exists() else set()
