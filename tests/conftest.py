"""How tests run, whoever runs them.

Property tests take always the same examples in `just check`, so that what is red there is red again; others each time in a
run of one's own, and many of them with `just explore`.

What the environment says of who looks on (a CI, colours) changes nothing: not what is tested, for programs write something
else then, and not how it is told. With `CI` set pytest prints whole lists of thousands. A log may show its end only: so
explanations are cut (`truncation_limit_…` in pyproject.toml), and the last lines name each test that failed with its reason,
one line each. Nor is it inherited that signals are ignored, as in what a script starts in the background, or `nohup`: a test that
presses Ctrl-C would wait for ever.
"""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

CHECK = "check"
SUMMARY_COLUMNS = 300

for _name in ("CI", "BUILD_NUMBER", "GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS", "NO_COLOR", "COLUMNS", "LINES"):
    os.environ.pop(_name, None)
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

settings.register_profile("daily", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(CHECK, settings.get_profile("daily"), derandomize=True, database=None)
settings.load_profile("daily")


def pytest_configure(config: pytest.Config) -> None:
    """`derandomize` alone is not enough: hypothesis mixes in the constants of whatever modules of ours the process happens to
    have imported by then, and that depends on which worker ran which tests before."""
    if config.getoption("--hypothesis-profile") == CHECK:
        nothing = providers._local_constants
        providers._get_local_constants = lambda: nothing


def pytest_terminal_summary(config: pytest.Config) -> None:
    """In the lines of the summary there is room for the reason behind the longest name."""
    config.get_terminal_writer().fullwidth = SUMMARY_COLUMNS
