export PATH := justfile_directory() / ".venv/bin:" + env("PATH")

[private]
help:
    @just --list --unsorted

# All that CI runs: format, lint, types, import contracts, every test
check: static
    pytest -n auto --hypothesis-profile=check

# What to run before a commit: as check, but without the slow tests
quick: static
    pytest -n auto -m "not slow" -q

[private]
ready:
    @scripts/bootstrap dev

[private]
static: ready
    ruff format --check --quiet
    ruff check --quiet
    pyright
    lint-imports --no-logo

# Format, and mend what the linter can mend
fmt:
    ruff format --quiet
    ruff check --fix --quiet

# Run some tests: just test tests/core -k reducer
[positional-arguments]
test *ARGS: ready
    @pytest "$@"

# Look for examples that break a property, N times with other seeds
explore N: ready
    for i in $(seq {{ N }}); do pytest -n auto -q -m hypothesis --hypothesis-seed=$RANDOM || exit 1; done

# Kill the server N times in the middle of turns, and check that nothing is lost
torture N: ready
    python -m tests.torture {{ N }}

# Compare with the stock OpenCode server
bench *ARGS: ready
    python bench/run.py {{ ARGS }}

# Compare Durable Streams with the Node reference, in about seven minutes
bench-streams *ARGS: ready
    python -m bench.streams.run {{ ARGS }}

# Pin dependencies again after a change of pyproject.toml or package.json; `just lock --upgrade` takes new versions
lock *ARGS:
    scripts/lock {{ ARGS }}

# Compare with the stock OpenCode server, answer by answer and event by event
contract *ARGS: ready
    pytest tests/contract {{ ARGS }}
