"""A patch says what it says, and changes exactly that."""

from collections.abc import Sequence
from difflib import SequenceMatcher

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.agent.tools import ToolFailure
from holdfast.agent.tools.patch_text import AddFile, DeleteFile, Hunk, Line, UpdateFile, parse, replacements


def patch(*lines: str) -> str:
    return "\n".join(("*** Begin Patch", *lines, "*** End Patch"))


def applied(text: str, *lines: str) -> str:
    (section,) = parse(patch("*** Update File: f", *lines))
    assert isinstance(section, UpdateFile)
    for change in reversed(replacements(text, section.hunks, "f")):
        text = text[: change.start] + change.new + text[change.end :]
    return text


def written(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """A patch as an LLM would write it."""
    lines: list[str] = []
    for group in SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(1):
        lines.append("@@")
        for tag, a, b, c, d in group:
            if tag == "equal":
                lines += [f" {line}" for line in old[a:b]]
            else:
                lines += [f"-{line}" for line in old[a:b]] + [f"+{line}" for line in new[c:d]]
    return lines


words = st.lists(st.integers(0, 40).map(lambda n: f"line {n}"), max_size=15, unique=True)


@given(words.filter(bool), words.filter(bool), st.booleans())
def test_a_patch_turns_the_one_text_into_the_other(old: list[str], new: list[str], ends: bool) -> None:
    """For any two texts without repeated lines, also at both ends of the file, with and without a newline at its end."""
    lines = written(old, new)
    if old == new:
        return
    end = "\n" if ends else ""

    assert applied("\n".join(old) + end, *lines) == "\n".join(new) + end


def test_all_kinds_of_sections_are_read() -> None:
    assert parse(
        patch(
            "*** Add File: new.txt",
            "+one",
            "+",
            "",
            "*** Delete File: old.txt",
            "*** Update File: a.py",
            "*** Move to: b.py",
            "@@ class A:",
            "@@     def f():",
            "     x",
            "-    y",
            "",
            "+    z",
            "*** End of File",
            "",
            "*** Update File: c.py",
            "*** Move to: d.py",
        )
    ) == (
        AddFile("new.txt", "one\n\n"),
        DeleteFile("old.txt"),
        UpdateFile(
            "a.py",
            "b.py",
            (
                Hunk(
                    after=("class A:", "    def f():"),
                    lines=(Line(" ", "    x"), Line("-", "    y"), Line(" ", ""), Line("+", "    z")),
                    at_end=True,
                ),
            ),
        ),
        UpdateFile("c.py", "d.py", ()),
    )


def test_what_stands_around_the_patch_does_not_matter() -> None:
    assert parse("apply <<'EOF'\r\n" + patch("*** Delete File: a").replace("\n", "\r\n") + "\nEOF\n") == (
        DeleteFile("a"),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "A patch begins with"),
        ("*** Begin Patch\n*** Delete File: a", "ends with"),
        (patch(), "is empty"),
        (patch("hello"), "Line 2 .* expected"),
        (patch("*** Delete File: "), "Line 2 .* no path"),
        (patch("*** Add File: a", "x"), "Line 3 .* begins with `\\+`"),
        (patch("*** Update File: a"), "no changes for a"),
        (patch("*** Update File: a", "@@"), "no lines after `@@`"),
        (patch("*** Update File: a", "?x"), "begins with a space"),
        (patch("*** Update File: a", "-x", "*** End of File", "-y"), "no more lines"),
    ],
)
def test_a_patch_that_is_none_is_refused_with_its_line(text: str, complaint: str) -> None:
    with pytest.raises(ToolFailure, match=complaint):
        parse(text)


fragments = st.sampled_from(
    ["*** Add File: a", "*** Update File: a", "*** Move to: b", "*** End of File", "@@", "@@ a", " a", "-b", "+c", ""]
)


@given(st.text("*@ +-ab\n", max_size=60), st.lists(fragments, max_size=8))
def test_whatever_is_written_is_read_or_refused(text: str, lines: list[str]) -> None:
    """No input leads to anything but sections, replacements inside the text, and ToolFailure."""
    for candidate in (text, patch(text), patch(*lines)):
        try:
            for section in parse(candidate):
                if isinstance(section, UpdateFile):
                    last = 0
                    for change in replacements("a\nb\na\n", section.hunks, "f"):
                        assert last <= change.start <= change.end <= 6
                        last = change.end
        except ToolFailure:
            pass


# --- the place --------------------------------------------------------------------------------------------------


def test_lines_at_two_places_need_a_line_above() -> None:
    text = "def one():\n    return 0\ndef two():\n    return 0\n"

    with pytest.raises(ToolFailure, match=r"Change 1 of 1 for f fits at 2 places \(lines 2, 4\)"):
        applied(text, "-    return 0", "+    return 1")

    assert applied(text, "@@ def two():", "-    return 0", "+    return 1") == text[:-2] + "1\n"
    assert applied(text, "-    return 0", "+    return 1", "*** End of File") == text[:-2] + "1\n"


def test_a_later_change_is_looked_for_behind_the_earlier_one() -> None:
    assert applied("a\nx\nb\nx\n", "@@", " a", "-x", "+1", "@@", "-x", "+2") == "a\n1\nb\n2\n"
    with pytest.raises(ToolFailure, match="behind line 4"):
        applied("a\nb\nc\nd\n", "@@", "-d", "+D", "@@", "-a", "+A")


def test_lines_without_old_ones_come_behind_the_line_named_or_at_the_end() -> None:
    assert applied("a\nb\n", "@@ a", "+x") == "a\nx\nb\n"
    assert applied("a\nb\n", "+x") == "a\nb\nx\n"
    assert applied("a\nb", "+x") == "a\nb\nx"
    assert applied("", "+x") == "x\n"


def test_lines_that_stay_are_not_written() -> None:
    """White space in which the patch differs from the file stays as it is in the file."""
    assert applied("keep \t\nold\nkeep\t\n", " keep", "-old", "+new", " keep") == "keep \t\nnew\nkeep\t\n"
    assert applied("    a:\n        b\n", " a:", "-    b", "+    c") == "    a:\n        c\n"


def test_line_numbers_of_other_formats_are_ignored() -> None:
    assert applied("a\nb\n", "@@ -7,1 +7,1 @@", "-b", "+c") == "a\nc\n"


def test_a_change_that_does_not_fit_is_shown() -> None:
    with pytest.raises(
        ToolFailure, match=r"does not fit: these lines are not in the file\. Nothing was changed.*\nzzz"
    ):
        applied("a\n", "-zzz", "+x")
    with pytest.raises(ToolFailure, match="after the line 'class B:', which is not in the file"):
        applied("a\n", "@@ class B:", "-a", "+x")
