import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.agent.permissions import Ask, denied_entirely, evaluate, matches, permission_of, verdict
from holdfast.core.permissions import PermissionAction, PermissionRule


def rule(permission: str, pattern: str, action: PermissionAction) -> PermissionRule:
    return PermissionRule(permission=permission, pattern=pattern, action=action)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("*", "", True),
        ("*", "anything/at all\nover lines", True),
        ("git *", "git", True),
        ("git *", "git status", True),
        ("git *", "gitk", False),
        ("git status*", "git status -s", True),
        ("*.env", "config/.env", True),
        ("*.env", ".env.example", False),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("a.c", "abc", False),
        ("src/**/x", "src/a/b/x", True),
        ("(", "(", True),
    ],
)
def test_a_pattern_matches_as_users_of_shells_expect(pattern: str, text: str, expected: bool):
    assert expected == matches(pattern, text)


def test_the_last_rule_that_matches_counts():
    rules = [rule("*", "*", "allow"), rule("bash", "rm *", "deny"), rule("bash", "rm build/*", "allow")]
    assert evaluate("bash", "ls", rules) == "allow"
    assert evaluate("bash", "rm -rf /", rules) == "deny"
    assert evaluate("bash", "rm build/x", rules) == "allow"


def test_without_a_rule_the_user_is_asked():
    assert evaluate("bash", "ls", []) == "ask"


def test_a_call_is_as_forbidden_as_its_worst_part():
    rules = [rule("bash", "*", "ask"), rule("bash", "ls *", "allow"), rule("bash", "rm *", "deny")]
    assert verdict(Ask(permission="bash", patterns=("ls",)), rules) == "allow"
    assert verdict(Ask(permission="bash", patterns=("ls", "make")), rules) == "ask"
    assert verdict(Ask(permission="bash", patterns=("ls", "make", "rm x")), rules) == "deny"


def test_a_tool_is_hidden_only_if_its_last_word_is_no():
    assert denied_entirely("edit", [rule("*", "*", "allow"), rule("edit", "*", "deny")])
    assert not denied_entirely("edit", [rule("edit", "*", "deny"), rule("edit", "docs/*", "allow")])
    assert not denied_entirely("edit", [])


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_pattern_and_no_text_is_an_error(pattern: str, text: str):
    assert isinstance(matches(pattern, text), bool)


@given(st.text(alphabet=st.characters(exclude_characters="*?"), max_size=30))
def test_a_pattern_without_wildcards_matches_itself_and_a_longer_text_does_not_match_it(text: str):
    assert matches(text, text)
    assert not matches(text, text + "x")


def test_all_tools_that_change_files_ask_for_edit() -> None:
    assert [permission_of(tool) for tool in ("edit", "write", "apply_patch", "bash")] == [
        "edit",
        "edit",
        "edit",
        "bash",
    ]
