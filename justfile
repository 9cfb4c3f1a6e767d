export PATH := justfile_directory() / ".venv/bin:" + env("PATH")

compile := justfile_directory() / ".tools/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes" + " --no-emit-index-url --no-emit-find-links --custom-compile-command 'just lock'"

[private]
help:
    @just --list --unsorted

# All that CI runs: format, lint, types, import contracts, every test
check: static
    pytest -n auto

# What to run before a commit: as check, but without the slow tests
quick: static
    pytest -n auto -m "not slow" -q

[private]
static:
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
test *ARGS:
    @pytest "$@"

# Kill the server N times in the middle of turns, and check that nothing is lost
torture N:
    python tests/torture.py {{ N }}

# Compare with the stock OpenCode server
bench *ARGS:
    python bench/run.py {{ ARGS }}

# Compile the pinned requirements from pyproject.toml and package.json; `just lock --upgrade` takes new versions
lock *ARGS:
    echo uv | {{ compile }} {{ ARGS }} --no-annotate --output-file requirements/uv.txt -
    {{ compile }} {{ ARGS }} --group build --group dev --output-file requirements/dev.txt pyproject.toml
    {{ compile }} --group build --constraint requirements/dev.txt --no-annotate --output-file requirements/run.txt pyproject.toml
    cd tests/node && npm install --package-lock-only --ignore-scripts --no-audit --no-fund --loglevel=error
    scripts/bootstrap dev
