"""Keeps the repository tidy: what no compiler, linter or type checker looks at.

A file counts as soon as git would take it (tracked, or new and not ignored), so a mistake shows before its commit.
"""

import ast
import importlib
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"


@cache
def files() -> tuple[Path, ...]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return tuple(path for name in sorted(set(listed.split("\0"))) if name and (path := ROOT / name).is_file())


@cache
def text(path: Path) -> str:
    """A file's text; of a binary file, what can be read of it."""
    return path.read_text(encoding="utf-8", errors="replace")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(text(path))


def sources() -> list[Path]:
    return [path for path in files() if path.suffix == ".py" and path.is_relative_to(SRC)]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# Python modules


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def mentioned_modules(path: Path) -> set[str]:
    """Every dotted name under holdfast that a file imports or, for lazy imports, holds as a string."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        match node:
            case ast.Import(names=names):
                found.update(alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = module or ""
                if level:
                    package = module_name(path).split(".")
                    keep = len(package) - level + (path.name == "__init__.py")
                    base = ".".join([*package[:keep], *([module] if module else [])])
                found.add(base)
                found.update(f"{base}.{alias.name}" for alias in names)
            case ast.Constant(value=str(value)) if re.fullmatch(r"holdfast(\.\w+)+(:\w+)?", value):
                found.add(value.partition(":")[0])
            case _:
                pass
    return {module for module in found if module.startswith("holdfast")}


def is_empty(path: Path) -> bool:
    """No code, at most a docstring: a name that is reserved for what comes."""
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in tree(path).body)


def test_every_module_is_used() -> None:
    """A module is dead unless an entry point or another module leads to it. What only tests use is dead too, but for
    `holdfast.testing`, which is there for them."""
    project = tomllib.loads(text(ROOT / "pyproject.toml"))["project"]
    used = {target.partition(":")[0] for target in project["scripts"].values()} | {"holdfast", "holdfast.__main__"}
    for path in sources():
        used |= mentioned_modules(path) - {module_name(path)}
    for path in files():
        if path.suffix == ".py" and path.is_relative_to(ROOT / "tests"):
            used |= {module for module in mentioned_modules(path) if module.startswith("holdfast.testing")}

    dead = [
        name(path)
        for path in sources()
        if path.name != "__init__.py" and not is_empty(path) and module_name(path) not in used
    ]

    assert dead == []


# Documents


def headings(markdown: str) -> set[str]:
    """The anchors that a rendered document has."""
    lines = re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S)
    titles = re.findall(r"^#+ +(.+?) *#*$", lines, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_relative_links_lead_somewhere() -> None:
    broken: list[str] = []
    for path in (path for path in files() if path.suffix == ".md"):
        prose = re.sub(r"^ *```.*?^ *```|`[^`\n]*`", "", text(path), flags=re.M | re.S)
        for target in re.findall(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", prose):
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue
            place, _, anchor = target.partition("#")
            linked = path.parent / place if place else path
            if not linked.exists() or (anchor and linked.suffix == ".md" and anchor not in headings(text(linked))):
                broken.append(f"{name(path)}: {target}")

    assert broken == []


def documentation() -> str:
    documents = [path for path in files() if path.suffix == ".md"]
    return "\n".join(text(path) for path in documents if path.parent == ROOT or path.is_relative_to(ROOT / "docs"))


def test_every_environment_variable_is_documented() -> None:
    read = {
        node.value
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"(HOLDFAST|OPENCODE)_[A-Z0-9_]+", node.value)
    }

    assert {variable for variable in read if not re.search(rf"\b{variable}\b", documentation())} == set()


def test_every_serve_option_is_documented() -> None:
    app = getattr(importlib.import_module("holdfast.cli"), "app", None)
    if app is None:
        pytest.skip("holdfast.cli has no app yet")
    command = typer.main.get_command(app)
    serve = command.commands["serve"]  # pyright: ignore[reportAttributeAccessIssue]
    options = {flag for option in serve.params for flag in option.opts if flag.startswith("--")}

    assert "--port" in options
    assert {option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", documentation())} == set()


def route_shape(method: str, path: str) -> str:
    """`GET /session/{id:str}` and `GET /session/:id` are both `GET /session/{}`."""
    return f"{method} {re.sub(r'{[^}]*}|:[A-Za-z]+', '{}', path).rstrip('/') or '/'}"


def test_every_route_is_documented() -> None:
    """`holdfast.server.routes()` gives (method, path) of every route served, those outside Litestar included. The
    documents name a route by method and path: `GET /session/{sessionID}`."""
    routes = getattr(importlib.import_module("holdfast.server"), "routes", None)
    if routes is None:
        pytest.skip("holdfast.server has no routes yet")
    served = {route_shape(method, path) for method, path in routes()}
    mentioned = re.findall(r"\b(GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS)\s+(/[\w/{}:.*-]*)", documentation())

    assert served
    assert served - {route_shape(method, path) for method, path in mentioned} == set()


# What must not be in git

HOME_OF_A_MACHINE = re.compile(r"(?<![\w./}-])/(?:work|root)/")
REGISTRY = re.compile(
    r"https?://[^\s/\"'<>]+(?:/[^\s/\"'<>]+)*/simple\b" + r"|registry\.npmjs\.org" + r"|files\.pythonhosted\.org"
)


@pytest.mark.parametrize("pattern", [HOME_OF_A_MACHINE, REGISTRY], ids=["paths of a machine", "package registries"])
def test_no_file_names(pattern: re.Pattern[str]) -> None:
    """Where the work happened, and where packages came from, is no part of the project."""
    named = [
        f"{name(path)}:{number}: {found[0]}"
        for path in files()
        if path != Path(__file__).resolve()
        for number, line in enumerate(text(path).splitlines(), start=1)
        if (found := pattern.search(line))
    ]

    assert named == []


def test_locked_packages_have_hashes_and_no_address() -> None:
    npm = text(ROOT / "tests/node/package-lock.json")
    assert '"resolved"' not in npm
    assert npm.count('"integrity"') == npm.count('"node_modules/')

    for path in (ROOT / "requirements").iterdir():
        logical_lines = re.sub(r"\\\n", " ", text(path)).splitlines()
        pins = [line for line in logical_lines if line.strip() and not line.lstrip().startswith("#")]
        assert pins
        assert [pin for pin in pins if not re.match(r"[\w.\[\]-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", pin)] == []


def test_scripts_can_be_run() -> None:
    scripts = [path for path in files() if text(path).startswith("#!")]
    assert [name(path) for path in scripts if not path.stat().st_mode & 0o100] == []
    assert {"scripts/bootstrap", "scripts/run", "scripts/test", ".ci/run"} <= {name(path) for path in scripts}
