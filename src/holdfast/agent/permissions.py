"""The pure rules of what a tool call may do. No I/O.

A rule is (permission, pattern, action). Of all rules that match, the last one counts; without one, the user is asked.
`*` stands for any characters (also `/`), `?` for one; a pattern that ends in ` *` matches the bare command as well:
`git *` is `git` and `git status`.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from holdfast.core.permissions import PermissionAction, PermissionRule


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a call needs: `permission` on each of `patterns`. `always` are the patterns that are allowed from then on when
    the user says "always"; `metadata` shows the user what it is about. `within` are things that it may come to: nobody has to
    allow them, but where a rule forbids one by name, the user is asked."""

    permission: str
    patterns: tuple[str, ...]
    always: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}


def verdict(ask: Ask, rules: Iterable[PermissionRule]) -> PermissionAction:
    """deny if anything of it is denied, else ask if anything of it has to be asked, else allow."""
    rules = tuple(rules)
    deciding = [_deciding(ask.permission, pattern, rules) for pattern in ask.patterns]
    actions = {_action(rule) for rule in deciding}
    if "deny" in actions:
        return "deny"
    if "ask" in actions or (not _is_meant(ask, deciding) and _may_be_forbidden(ask, rules)):
        return "ask"
    return "allow"


def evaluate(permission: str, pattern: str, rules: Iterable[PermissionRule]) -> PermissionAction:
    """What the last rule that matches says; "ask" if none does."""
    return _action(_deciding(permission, pattern, rules))


def _deciding(permission: str, pattern: str, rules: Iterable[PermissionRule]) -> PermissionRule | None:
    found = None
    for rule in rules:
        if matches(rule.permission, permission) and matches(rule.pattern, pattern):
            found = rule
    return found


def _action(rule: PermissionRule | None) -> PermissionAction:
    return rule.action if rule is not None else "ask"


def _is_meant(ask: Ask, deciding: Iterable[PermissionRule | None]) -> bool:
    """Somebody allowed these very patterns, as "always" does."""
    return all(
        rule is not None and rule.pattern == pattern for rule, pattern in zip(deciding, ask.patterns, strict=True)
    )


def _may_be_forbidden(ask: Ask, rules: Sequence[PermissionRule]) -> bool:
    """A rule that forbids everything names nothing."""
    found = (_deciding(ask.permission, pattern, rules) for pattern in ask.within)
    return any(rule is not None and rule.action == "deny" and rule.pattern != "*" for rule in found)


def verdict_with_approvals(
    ask: Ask, rules: Sequence[PermissionRule], approvals: Sequence[PermissionRule]
) -> PermissionAction:
    """ "Always" spares the user a question, whoever asks it in the project; it opens nothing that a rule forbids."""
    own = verdict(ask, rules)
    return verdict(ask, (*rules, *approvals)) if own == "ask" else own


def rules_for_subagent(
    of_parent: Iterable[PermissionRule], of_agent: Iterable[PermissionRule]
) -> tuple[PermissionRule, ...]:
    """The rules of a subagent's session, which come after its agent's own: what was allowed to the parent's agent was not
    allowed to another one, what was forbidden holds for both. Subagents have no todo list unless a rule of theirs speaks of
    it, and no subagents."""
    inherited = [rule for rule in of_parent if rule.action == "deny" or rule.permission == "external_directory"]
    has_todos = any(rule.permission == "todowrite" for rule in of_agent)
    denied = ("task",) if has_todos else ("todowrite", "task")
    return (*inherited, *(PermissionRule(permission=name, pattern="*", action="deny") for name in denied))


def permission_of(tool: str) -> str:
    """What the calls of a tool ask for: its own name, or `edit` for all that change files."""
    return "edit" if tool in ("write", "apply_patch") else tool


def denied_entirely(permission: str, rules: Iterable[PermissionRule]) -> bool:
    """Whether no use of it can be allowed: such a tool is not shown to the LLM."""
    last = [rule for rule in rules if matches(rule.permission, permission)]
    return bool(last) and last[-1].pattern == "*" and last[-1].action == "deny"


def matches(pattern: str, text: str) -> bool:
    return _compiled(pattern).fullmatch(text) is not None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    head, optional = (pattern[:-2], "(?: .*)?") if pattern.endswith(" *") else (pattern, "")
    body = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in re.sub(r"\*+", "*", head))
    return re.compile(body + optional, re.DOTALL)
