"""Templates of commands: the user's words and the output of programs in a text, and never in a command line."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.service.templates import CommandLine, filled, references


def text(template: str, arguments: str) -> str:
    (piece,) = filled(template, arguments)
    assert isinstance(piece, str)
    return piece


def written(template: str, arguments: str) -> str:
    """With what the shell writes in the place of its command lines."""
    return "".join(
        subprocess.run(["/bin/sh", "-c", piece.line], capture_output=True, text=True, check=True).stdout
        if isinstance(piece, CommandLine)
        else piece
        for piece in filled(template, arguments)
    )


@pytest.mark.parametrize(
    ("template", "arguments", "expected"),
    [
        ("Hello $1 and $2.", "a b", "Hello a and b."),
        ("Hello $1 and $2.", "a", "Hello a and ."),
        ("Hello $1 and $2.", "a b c d", "Hello a and b c d."),
        ("Hello $1.", "a b c", "Hello a b c."),
        ("$2 $1", "'one two' \"three four\"", "three four one two"),
        ("$1|$2", "'' b", "|b"),
        ("All: $ARGUMENTS.", 'a "b c"', 'All: a "b c".'),
        ("$1 of $ARGUMENTS", "a b", "a b of a b"),
        ("Nothing", "a b", "Nothing\n\na b"),
        ("Nothing", "", "Nothing"),
        ("Nothing", "  ", "Nothing"),
        ("$0 $1", "a", " a"),
        ("$1", "$2 $ARGUMENTS", "$2 $ARGUMENTS"),
    ],
)
def test_the_arguments_stand_where_the_template_has_a_place_for_them(template: str, arguments: str, expected: str):
    assert text(template, arguments) == expected


@pytest.mark.parametrize("template", ["Do $1", "Do $ARGUMENTS", "Do"])
def test_a_command_line_in_the_arguments_is_text(template: str):
    assert "!`touch x`" in text(template, "!`touch x`")


@pytest.mark.parametrize(
    ("line", "arguments", "output"),
    [
        ("echo $1", "a b", "a b\n"),
        ('printf "%s|" "$1" "$2"', "a 'b  c' d", "a|b  c d|"),
        ('printf "%s|" $ARGUMENTS', "a b", "a|b|"),
        ('printf "%s|" "$@"', "a 'b c'", "a|b c|"),
        ("echo $1", "$(echo injected); echo x", "$(echo injected); echo x\n"),
        ("echo $ARGUMENTS", "`echo injected` && 'x", "`echo injected` && 'x\n"),
    ],
)
def test_a_command_line_gets_the_arguments_as_words_of_its_own(line: str, arguments: str, output: str):
    assert written(f"Output: !`{line}`.", arguments).startswith(f"Output: {output}.")


def test_texts_and_command_lines_keep_their_order():
    kinds = [type(piece).__name__ for piece in filled("a !`b` c !`d` $1", "x")]
    assert kinds == ["str", "CommandLine", "str", "CommandLine", "str"]


@given(st.text(alphabet="ab $1'\"`!@\\;&|()<>\n", max_size=30))
def test_no_argument_becomes_part_of_a_command_line(arguments: str):
    """Whatever the arguments are, the shell writes them and does nothing else with them."""
    (_, line, _) = filled('!`printf %s "$ARGUMENTS"`', arguments)
    assert isinstance(line, CommandLine)
    ran = subprocess.run(["/bin/sh", "-c", line.line], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr, ran.stdout) == (0, "", arguments)


def test_names_after_an_at_sign_are_references():
    found = list(references("see @a.txt, @src/b.py: and (@../c) @~/d. @a.txt me@example.org `@e` @ @@f @.gitignore"))
    assert found == ["a.txt", "src/b.py", "../c", "~/d", ".gitignore"]
