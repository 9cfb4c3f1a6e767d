"""Stock clients notice no difference: the same script through the stock SDK, against the stock server and against ours."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.testing.stock_opencode import find_opencode
from tests.contract.both import NODE, record_both
from tests.contract.compare import Difference, compare, routes_not_called

LISTED = Path(__file__).with_name("differences.toml")


@dataclass(frozen=True)
class Listed:
    """An entry of the list."""

    where: str | list[str]
    reason: str
    what: str | list[str] = "*"
    perhaps: bool = False

    def covers(self, difference: Difference) -> bool:
        return _matches(self.where, difference.where) and _matches(self.what, difference.what)


def _matches(patterns: str | list[str], text: str) -> bool:
    patterns = [patterns] if isinstance(patterns, str) else patterns
    expressions = (".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns)
    return any(re.fullmatch(expression, text, re.DOTALL) for expression in expressions)


def listed() -> list[Listed]:
    return [Listed(**entry) for entry in tomllib.loads(LISTED.read_text())["difference"]]


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_only_the_differences_that_are_listed_are_there(tmp_path: Path) -> None:
    opencode = find_opencode(NODE / "node_modules")
    if opencode is None:
        pytest.skip("the npm package of the stock server has no binary for this platform")
    stock, ours = await record_both(opencode, tmp_path, [])
    assert stock.trace["failures"] == {}, "scenarios that came to no end with the stock server"
    assert ours.trace["failures"] == {}, "scenarios that came to no end with Holdfast"

    differences = compare(stock, ours)
    entries = listed()
    not_called = routes_not_called(stock, ours)
    unlisted = [difference for difference in differences if not any(entry.covers(difference) for entry in entries)]
    gone = [entry for entry in entries if not entry.perhaps and not any(map(entry.covers, differences))]
    problems = [
        *(f"no scenario in tests/node/contract/ calls {route}" for route in not_called),
        *(f"not in differences.toml: {difference}" for difference in unlisted),
        *(f"in differences.toml, but no longer there: {entry}" for entry in gone),
    ]
    assert not problems, "\n".join(problems)


def test_every_difference_has_a_reason() -> None:
    for entry in listed():
        assert entry.reason.endswith("."), entry
        assert "to mend" not in entry.reason, entry
