"""What a command line names outside of the project is asked for, however it is written."""

import os
from pathlib import Path

import pytest

from holdfast.agent.tools import Processes, ToolContext
from holdfast.agent.tools.bash import Bash
from holdfast.agent.tools.shell_paths import Operand, operands_of


@pytest.mark.parametrize(
    ("line", "operand"),
    [
        ("cat /etc/passwd", "/etc/passwd"),
        ("cat '/etc/pass'wd", "/etc/passwd"),
        ('cat "/etc/passwd"', "/etc/passwd"),
        ("cat /etc/pass\\wd", "/etc/passwd"),
        ("cat ../x", "../x"),
        ("cp -r src/* ../out/", "../out/"),
        ("ls /etc/*.conf", "/etc/"),
        ("cat /etc/$NAME", "/etc/"),
        ("cat $HOME/.ssh/id", "~/.ssh/id"),
        ("cat ${HOME}/.ssh/id", "~/.ssh/id"),
        ("cd && ls", "~"),
        ("make && cd", "~"),
        ("cmp --from-file=/etc/x a", "/etc/x"),
        ("cc -I/usr/include a.c", "/usr/include"),
        ("tar -C/srv -xf a", "/srv"),
        ("docker run -v /:/host x", "/"),
        ("dd if=/dev/sda of=x", "/dev/sda"),
        ("rm -rf {/etc,/var}/x", "/etc"),
        ("FILE=/etc/passwd", "/etc/passwd"),
        ("FILE=/etc/passwd cat", "/etc/passwd"),
        ("rm -rf /", "/"),
        ("if true; then rm /x; fi", "/x"),
        ("! time rm /x", "/x"),
        ("(cd /x; ls)", "/x"),
        ("diff <(cat /etc/a) b", "/etc/a"),
        ("echo $(cat /etc/a)", "/etc/a"),
        ('echo "$(cat /etc/a)"', "/etc/a"),
        ("echo `cat /etc/a`", "/etc/a"),
        ('echo "`cat /etc/a`"', "/etc/a"),
        ("sh -c 'cat /etc/a; ls'", "/etc/a"),
        ("sudo -u root sh -c \"cat '/etc/a'\"", "/etc/a"),
        ("bash <<E\ncat /etc/a\nE\n", "/etc/a"),
        ("cat /etc/a 'unbalanced", "/etc/a"),
        ("cat \\\n/etc/a", "/etc/a"),
        ("cat $'/etc/a'", "/etc/a"),
        ("cat $'\\x2fetc\\57a'", "/etc/a"),
        ("cat $'/etc/a\\0b'", "/etc/a"),
        ('cat $"/etc/a"', "/etc/a"),
        ("echo a > $'/etc/a'", "/etc/a"),
        ("cat /e*c/passwd", "/."),
        ("cat /e?c/passwd", "/."),
        ("cat /[e]tc/passwd", "/."),
        ("cat /e$X", "/."),
        ("grep root /e*/passwd", "/."),
        ("sh -c 'cat /e*c/passwd'", "/."),
        ("cat .?/x", ".."),
        ("cat a/.*/x", "a/.."),
        ("cat '/etc/a*b'", "/etc/a*b"),
        ("cat /etc/a\\*b", "/etc/a*b"),
    ],
)
def test_what_may_be_a_file_is_found_in_a_line(line: str, operand: str):
    assert operand in [found.text for found in operands_of(line)]


@pytest.mark.parametrize("line", ["echo a > /x", "echo a >> /x", "sort < /x", "make 2> /x", "make &> /x", "make >| /x"])
def test_a_redirection_is_a_target_whether_it_exists_or_not(line: str):
    assert Operand("/x", is_target=True) in operands_of(line)


@pytest.mark.parametrize(
    "line",
    [
        "/usr/bin/python",
        "cut -d/ -f1 names",
        "tr / _",
        "awk -F/ '{print $1}' names",
        "make 2>&1 >/dev/null",
        "head -c 8 /dev/urandom",
        "ls -la",
        "ls .*rc .a?",
        "sed s/a*/b/ names",
        "echo '$HOME' \\$HOME",
        "cd sub",
    ],
)
def test_what_is_no_file_elsewhere_is_not_taken_for_one(line: str):
    assert [found.text for found in operands_of(line) if found.text.startswith(("/", "~", ".."))] == []


@pytest.fixture
def bash() -> Bash:
    return Bash(Processes())


async def asked(bash: Bash, context: ToolContext, command: str, **input: str) -> list[tuple[str, ...]]:
    asks = await bash.asks({"command": command, **input}, context)
    assert asks[-1].permission == "bash"
    assert all(ask.permission == "external_directory" for ask in asks[:-1])
    return [ask.patterns for ask in asks[:-1]]


async def test_files_outside_of_the_project_are_asked_for_by_directory(bash: Bash, context: ToolContext):
    outside = context.directory.parent / "outside"
    outside.mkdir()
    assert await asked(bash, context, f"cat {outside}/a {outside}/b > ../outside/c") == [(f"{outside}/*",)]
    assert await asked(bash, context, f"rm -r {outside}; ls ..") == [(f"{outside}/*", f"{outside.parent}/*")]


async def test_files_of_the_project_are_not_asked_for(bash: Bash, context: ToolContext):
    (context.directory / "sub").mkdir()
    here = context.directory
    assert (
        await asked(bash, context, f"cat a sub/../a {here}/a ./a > b; grep -r /api/users https://example.org/a") == []
    )
    assert await asked(bash, context, "cat ../a", workdir="sub") == []


async def test_a_link_that_leads_out_of_the_project_is_asked_for(bash: Bash, context: ToolContext, tmp_path: Path):
    outside = context.directory.parent / "outside"
    outside.mkdir()
    (context.directory / "link").symlink_to(outside)
    assert await asked(bash, context, "cat link/secret") == [(f"{outside}/*",)]


async def test_a_working_directory_outside_is_asked_for_once(bash: Bash, context: ToolContext):
    outside = os.path.realpath(context.directory.parent)
    assert await asked(bash, context, "cat a ./b", workdir="..") == [(f"{outside}/*",)]


async def test_the_home_of_nobody_is_no_place(bash: Bash, context: ToolContext):
    assert await asked(bash, context, "ls ~nobody-has-this-name/x") == []


async def test_a_star_in_a_text_is_none_of_a_file_name(bash: Bash, context: ToolContext):
    for line in (
        "grep '/a*b' names",
        "awk '/a*b/ { print }' names",
        "python3 -c 'print(1 /a*b)'",
        "sed 's/a*/b/' names",
    ):
        assert await asked(bash, context, line) == []
    assert await asked(bash, context, "cat /*/passwd") == [("/*",)]


async def test_always_on_an_unclear_line_is_for_that_line(bash: Bash, context: ToolContext):
    line = "cat > a <<E\nrm -rf b\nE"
    [ask] = await bash.asks({"command": line}, context)

    assert ask.always == ask.patterns
    assert "rm *" not in ask.always
