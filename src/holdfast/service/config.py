"""Reads `opencode.json`: which files, in which order, merged how, and what is wrong with them.

Later files win over earlier ones, setting by setting; lists are replaced, but `instructions` and `plugin` grow.

 1. the user's: `opencode.json(c)` and `config.json` in `$XDG_CONFIG_HOME/opencode` (`~/.config/opencode`)
 2. the file that `OPENCODE_CONFIG` names
 3. the project's: `opencode.json(c)` from the root of the work tree down to the directory
 4. `opencode.json(c)` in `~/.opencode`, and in each `.opencode` from the root down to the directory (OpenCode lets the
    outermost of these win, and calls it a bug)
 5. `opencode.json(c)` in `OPENCODE_CONFIG_DIR`
 6. the text of `OPENCODE_CONFIG_CONTENT`, and that of `OPENCODE_PERMISSION` for `permission`

After the files of 1, 4 and 5 come commands and agents in files of their own, `command/NAME.md` and `agent/NAME.md` (or with the
plural) beside them: settings as front matter, then the template or the prompt.

In any text `{env:NAME}` is the variable's value ("" if it is not set) and `{file:PATH}` the file's content without the
white space around it; PATH may start with `~/` and is relative to the file that names it. Each file is checked on its own,
so that a mistake has a file, a line and a column. Messages never hold a value, only what was expected.
"""

import getpass
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import msgspec

from holdfast.agent import front_matter
from holdfast.agent.providers.connections import Connections
from holdfast.agent.providers.registry import ADAPTERS, Adapters, Own, ProviderRegistry
from holdfast.core.config import AGENT_KEYS, Config, ProviderOptions
from holdfast.core.errors import Invalid
from holdfast.service import jsonc
from holdfast.service.credentials import Credentials, Keys
from holdfast.service.durable_files import Version, version_of

_NAMES: Final = ("opencode.json", "opencode.jsonc")
_OWN_NAMES: Final = ("config.json", *_NAMES)
_GROWING: Final = ("instructions", "plugin")
_EDIT_TOOLS: Final = frozenset({"edit", "write", "patch", "multiedit"})
_CACHED_MAX: Final = 256
_FILE_BYTES_MAX: Final = 1024 * 1024
_DEPTH_MAX: Final = 8

_REFERENCE = re.compile(r"\{(env|file):([^}]+)\}")


class _Loaded(NamedTuple):
    config: Config
    providers: ProviderRegistry
    files: "Files"
    credentials: object


class Configuration:
    """The configuration of each directory, read when it is asked for and again when one of its files changed. The answers
    are the very same objects until then. May be called from any thread, since it reads files.

    `home` is the user's home directory, `environ` the environment of the server, `adapters` who speaks to LLMs, `credentials`
    the keys that users stored."""

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        home: Path,
        connections: Connections,
        adapters: Adapters = ADAPTERS,
        credentials: Credentials | None = None,
    ) -> None:
        self._credentials = credentials
        self._environ = environ
        self._home = home
        self._connections = connections
        self._adapters = adapters
        self._known: dict[tuple[str, str], _Loaded] = {}
        self._lock = threading.Lock()

    def config(self, directory: str, worktree: str) -> Config:
        """Raises Invalid, with file, line, column and setting, if a file is wrong. The result may hold secrets:
        `core.config.public` takes them out."""
        return self._load(directory, worktree).config

    def providers(self, directory: str, worktree: str) -> ProviderRegistry:
        """The LLMs of that configuration. Raises Invalid like `config`."""
        return self._load(directory, worktree).providers

    def own(self) -> Config:
        """What the user's own files say, for every directory. Raises Invalid like `config`."""
        return self._loader().load_own()

    def files_of(self, directory: str | None) -> tuple[Path, ...]:
        """The files that may hold settings of this directory alone, or (None) the user's own; the later ones count more."""
        if directory is None:
            own = config_directory(self._environ, self._home)
            return tuple(own / name for name in _OWN_NAMES)
        folders = (Path(directory), Path(directory) / ".opencode")
        return tuple(folder / name for folder in folders for name in _NAMES)

    @property
    def reads_projects(self) -> bool:
        """False where the environment says that the files of projects do not count."""
        return not _is_on(self._environ, "OPENCODE_DISABLE_PROJECT_CONFIG")

    def tried(self, file: Path, text: str, directory: str, worktree: str) -> Config:
        """The configuration of the directory as it would be with this text in the file. Raises Invalid like `config`."""
        loader = self._loader(directory, worktree, instead={file: text})
        loader.load_own()  # the file may be one that counts for other directories only
        config = loader.load()
        ProviderRegistry(config, connections=self._connections, environ=self._environ, adapters=self._adapters)
        return config

    def _loader(
        self, directory: str = "/", worktree: str = "/", instead: Mapping[Path, str] | None = None
    ) -> "_Loader":
        return _Loader(self._environ, self._home, Path(directory), Path(worktree), instead)

    def _load(self, directory: str, worktree: str) -> _Loaded:
        key = (directory, worktree)
        with self._lock:
            known = self._known.get(key)
        if known is None or known.credentials != self._stamp() or _changed(known.files):
            known = self._read(directory, worktree)
        with self._lock:
            self._known.pop(key, None)
            self._known[key] = known
            if len(self._known) > _CACHED_MAX:
                del self._known[next(iter(self._known))]
        return known

    def _read(self, directory: str, worktree: str) -> _Loaded:
        stamp = self._stamp()
        loader = self._loader(directory, worktree)
        config = loader.load()
        keys = self._credentials.keys() if self._credentials is not None else Keys({}, {})
        registry = ProviderRegistry(
            config,
            connections=self._connections,
            environ={**self._environ, **keys.variables},
            adapters=self._adapters,
            keys=keys.by_provider,
            own=loader.own_models(),
        )
        return _Loaded(config, registry, loader.files, stamp)

    def _stamp(self) -> object:
        return self._credentials.stamp() if self._credentials is not None else None


def own_directory(environ: Mapping[str, str], home: Path) -> Path:
    """Where the user's files for Holdfast alone are."""
    return config_directory(environ, home).with_name("holdfast")


def config_directory(environ: Mapping[str, str], home: Path) -> Path:
    """Where the user's own configuration is."""
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "opencode"


def check_settings(value: Any) -> None:
    """Raises Invalid, naming the setting, for one of the wrong type that no file holds."""
    try:
        msgspec.convert(value, Config)
    except msgspec.ValidationError as error:
        problem, path = _explained(error, value, Config)
        field = ".".join(map(str, path))
        raise Invalid(f"{field}: {problem}" if field else problem, field=field or None) from None


def _is_on(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").lower() in ("1", "true")


# --- files ------------------------------------------------------------------------------------------------------

Files = dict[Path, Version]


def _changed(files: Files) -> bool:
    return any(version_of(file) != version for file, version in files.items())


class _Source(NamedTuple):
    """A text with settings. `folder` is where relative paths in it start."""

    name: str
    folder: Path
    text: str
    document: jsonc.Document


class _Loader:
    """Reads once. `files` are all that it looked for, whether they were there or not. `instead` holds texts that are taken
    for those of files."""

    def __init__(
        self,
        environ: Mapping[str, str],
        home: Path,
        directory: Path,
        worktree: Path,
        instead: Mapping[Path, str] | None = None,
    ) -> None:
        self._environ = environ
        self._home = home
        self._directory = directory
        self._worktree = worktree
        self._instead = instead or {}
        self.files: Files = {}

    def load_own(self) -> Config:
        """Without what is filled in where nothing is said."""
        merged: dict[str, Any] = {}
        for settings in self._own_settings():
            merged = _merged(merged, settings)
        return msgspec.convert(_renamed(merged), Config)

    def load(self) -> Config:
        merged: dict[str, Any] = {}
        for settings in self._settings():
            merged = _merged(merged, settings)
        return msgspec.convert(_settled(merged), Config)

    def _own_settings(self) -> Iterator[dict[str, Any]]:
        own = config_directory(self._environ, self._home)
        for name in _OWN_NAMES:
            yield self._file(own / name)

    def own_models(self) -> Own:
        """What the user says of known providers: `models.json`, which is like `provider` in `opencode.json`."""
        file = Path(self._environ.get("HOLDFAST_MODELS") or own_directory(self._environ, self._home) / "models.json")
        try:
            text = self._read(file)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError) as error:
            raise Invalid(f"{file} cannot be read: {_why(error)}.") from error
        checked = self._checked(f'{{"provider":{text}\n}}', str(file), file.parent)
        return msgspec.convert(checked, Config).provider or {}

    def _settings(self) -> Iterator[dict[str, Any]]:
        yield from self._own_settings()
        named = self._environ.get("OPENCODE_CONFIG")
        if named:
            yield self._file(self._directory / named, must_exist=True)
        yield from self._markdown(config_directory(self._environ, self._home))
        for folder in self._folders():
            for name in _NAMES:
                yield self._file(folder / name)
            if folder not in self._project():
                yield from self._markdown(folder)
        content = self._environ.get("OPENCODE_CONFIG_CONTENT")
        if content:
            yield self._checked(content, "OPENCODE_CONFIG_CONTENT", self._directory)
        permission = self._environ.get("OPENCODE_PERMISSION")
        if permission:
            yield self._checked(f'{{"permission":{permission}\n}}', "OPENCODE_PERMISSION", self._directory)

    def _project(self) -> list[Path]:
        if _is_on(self._environ, "OPENCODE_DISABLE_PROJECT_CONFIG"):
            return []
        project = [self._directory, *self._directory.parents]
        if self._worktree in project:
            return project[: project.index(self._worktree) + 1][::-1]
        return [self._directory]

    def _folders(self) -> list[Path]:
        project = self._project()
        folders = [*project, *(folder / ".opencode" for folder in (self._home, *project))]
        extra = self._environ.get("OPENCODE_CONFIG_DIR")
        if extra:
            folders.append(self._directory / extra)
        return list(dict.fromkeys(folders))

    def _file(self, file: Path, *, must_exist: bool = False) -> dict[str, Any]:
        try:
            text = self._read(file)
        except (FileNotFoundError, NotADirectoryError):
            if must_exist:
                raise Invalid(f"OPENCODE_CONFIG names {file}, which does not exist.") from None
            return {}
        except (OSError, ValueError) as error:
            raise Invalid(f"{file} cannot be read: {_why(error)}.") from error
        return self._checked(text, str(file), file.parent) if text.strip() else {}

    # --- commands and agents that are files of their own

    def _markdown(self, folder: Path) -> Iterator[dict[str, Any]]:
        """`command/NAME.md`, `agent/NAME.md` and `mode/NAME.md`, or with the plural: the settings stand before the text."""
        for kind, field in (("command", "template"), ("agent", "prompt"), ("mode", "prompt")):
            for place in (folder / kind, folder / f"{kind}s"):
                for file in self._files_below(place, _DEPTH_MAX):
                    name = str(file.relative_to(place).with_suffix(""))
                    yield self._described(file, kind, name, field)

    def _files_below(self, place: Path, depth: int) -> Iterator[Path]:
        self.files[place] = version_of(place)
        try:
            entries = sorted(place.iterdir())
        except OSError:  # there is none, or it is not for us to see
            return
        for entry in entries:
            if entry.suffix == ".md" and entry.is_file():
                yield entry
            elif depth and entry.is_dir():
                yield from self._files_below(entry, depth - 1)

    def _described(self, file: Path, kind: str, name: str, field: str) -> dict[str, Any]:
        try:
            settings, text = front_matter.parse(self._read(file))
        except (OSError, ValueError) as error:
            raise Invalid(
                f"{file} cannot be read: {_why(error)}.",
                hint="Correct it: the file is read again with the next request.",
            ) from error
        value = {kind: {name: {**settings, **({field: text} if text or kind == "command" else {})}}}
        try:
            msgspec.convert(value, Config)
        except msgspec.ValidationError as error:
            problem, path = _explained(error, value, Config)
            setting = ".".join(str(key) for key in path[2:])
            raise Invalid(
                f"{file}: {f'{setting}: ' if setting else ''}{problem}",
                field=setting or None,
                hint="Correct it: the file is read again with the next request.",
            ) from None
        return value

    def _read(self, file: Path) -> str:
        """Raises OSError, or ValueError for what is no UTF-8 text of a sensible size."""
        if file in self._instead:
            return self._instead[file]
        self.files[file] = version_of(file)
        with file.open("rb") as opened:
            data = opened.read(_FILE_BYTES_MAX + 1)
        if len(data) > _FILE_BYTES_MAX:
            raise ValueError(f"it is larger than {_FILE_BYTES_MAX} bytes")
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise ValueError("it is not UTF-8 text") from None

    def _checked(self, text: str, name: str, folder: Path) -> dict[str, Any]:
        """The settings in the text, of the right types, with references filled in."""
        try:
            source = _Source(name, folder, text, jsonc.Document(text))
        except jsonc.JsonError as error:
            raise _wrong(name, text, error.offset, f"{error}.") from error
        value = self._filled_in(source.document.value, source, ())
        _check(value, source)
        return value

    def _filled_in(self, value: Any, source: _Source, path: jsonc.Path) -> Any:
        if isinstance(value, dict):
            items = cast(dict[str, Any], value).items()
            return {key: self._filled_in(item, source, (*path, key)) for key, item in items}
        if isinstance(value, list):
            items = enumerate(cast(list[Any], value))
            return [self._filled_in(item, source, (*path, index)) for index, item in items]
        if isinstance(value, str):
            return _REFERENCE.sub(lambda found: self._referred(found[1], found[2], source, path), value)
        return value

    def _referred(self, kind: str, target: str, source: _Source, path: jsonc.Path) -> str:
        if kind == "env":
            return self._environ.get(target, "")
        file = self._home / target[2:] if target.startswith("~/") else source.folder / target
        try:
            return self._read(file).strip()
        except (OSError, ValueError) as error:
            raise _wrong_at(source, path, f"{{file:{target}}} cannot be read: {_why(error)}.") from error


def _why(error: OSError | ValueError) -> str:
    return (error.strerror or type(error).__name__).lower() if isinstance(error, OSError) else str(error)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = {**base, **over}
    for key in base.keys() & over.keys():
        below, above = base[key], over[key]
        if isinstance(below, dict) and isinstance(above, dict):
            result[key] = _merged(cast(dict[str, Any], below), cast(dict[str, Any], above))
        elif key in _GROWING and isinstance(below, list) and isinstance(above, list):
            known = cast(list[Any], below)
            result[key] = [*known, *(item for item in cast(list[Any], above) if item not in known)]
    return result


# --- what is wrong ----------------------------------------------------------------------------------------------


def _check(value: Any, source: _Source) -> None:
    """Raises Invalid for a setting of the wrong type. Settings that we do not know may be anything."""
    try:
        config = msgspec.convert(value, Config)
    except msgspec.ValidationError as error:
        problem, path = _explained(error, value, Config)
        raise _wrong_at(source, path, problem) from None
    for provider_id, provider in (config.provider or {}).items():
        try:
            msgspec.convert(provider.options or {}, ProviderOptions)
        except msgspec.ValidationError as error:
            problem, path = _explained(error, provider.options, ProviderOptions)
            raise _wrong_at(source, ("provider", provider_id, "options", *path), problem) from None


def _wrong_at(source: _Source, path: jsonc.Path, problem: str) -> Invalid:
    return _wrong(source.name, source.text, source.document.offsets.get(path, 0), problem, path)


def _wrong(name: str, text: str, offset: int, problem: str, path: jsonc.Path = ()) -> Invalid:
    line, column = jsonc.line_and_column(text, offset)
    field = ".".join(str(key) for key in path)
    return Invalid(
        f"{name}:{line}:{column}: {f'{field}: ' if field else ''}{problem}",
        field=field or None,
        hint="Correct it: the file is read again with the next request.",
    )


def _explained(error: msgspec.ValidationError, value: Any, kind: Any) -> tuple[str, jsonc.Path]:
    """What was expected, in words, and where. msgspec does not say at which key of a map it stopped: try each alone."""
    message, _, place = str(error).partition(" - at `$")
    if message.startswith("Invalid enum value"):
        message = "Not one of the values that this setting can have"
    message = message.replace(" | null", "").replace("`", "")
    path: list[str | int] = []
    for step in re.finditer(r"\.([^.\[\]`]+)|\[(\d+)\]|(\[\.\.\.\])", place):
        if step[1]:
            path.append(step[1])
        elif step[2]:
            path.append(int(step[2]))
        else:
            for key in list(_at(value, path)):
                alone = _with_only(value, path, key)
                try:
                    msgspec.convert(alone, kind)
                except msgspec.ValidationError as other:
                    if str(other) == str(error):
                        value = alone
                        path.append(key)
                        break
    return f"{message}.", tuple(path)


def _at(value: Any, path: Sequence[str | int]) -> Any:
    for key in path:
        value = value[key]
    return value


def _with_only(value: Any, path: Sequence[str | int], key: str) -> Any:
    """A copy in which the map at the path holds nothing but that key."""
    if not path:
        return {key: value[key]}
    head, *rest = path
    copied = value.copy()
    copied[head] = _with_only(value[head], rest, key)
    return copied


# --- old names --------------------------------------------------------------------------------------------------


def _settled(merged: dict[str, Any]) -> dict[str, Any]:
    """Old names replaced by today's, and what OpenCode always answers filled in."""
    return {"command": {}, "plugin": [], "username": _user_name(), "agent": {}, **_renamed(merged), "mode": {}}


def _renamed(merged: dict[str, Any]) -> dict[str, Any]:
    """Old names replaced by today's."""
    result: dict[str, Any] = {key: value for key, value in merged.items() if key != "mode"}
    modes = cast(dict[str, Any], merged.get("mode") or {})
    agents = _merged(merged.get("agent") or {}, {name: {**agent, "mode": "primary"} for name, agent in modes.items()})
    if agents:
        result["agent"] = {name: _settled_agent(agent) for name, agent in agents.items()}
    if merged.get("tools"):
        result["permission"] = _with_tools(merged["tools"], merged.get("permission"))
    if merged.get("autoshare") is True and not merged.get("share"):
        result["share"] = "auto"
    return result


def _settled_agent(agent: dict[str, Any]) -> dict[str, Any]:
    known = {key: value for key, value in agent.items() if key in AGENT_KEYS}
    unknown = {key: value for key, value in agent.items() if key not in AGENT_KEYS}
    if unknown:
        known["options"] = {**unknown, **(known.get("options") or {})}
    if known.get("tools"):
        known["permission"] = _with_tools(known["tools"], known.get("permission"))
    if known.get("steps") is None and known.get("maxSteps") is not None:
        known["steps"] = known["maxSteps"]
    return known


def _with_tools(tools: Mapping[str, bool], permission: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Tools switched on or off are permissions of an older kind; what `permission` says counts more."""
    rules: dict[str, Any] = {
        "edit" if tool in _EDIT_TOOLS else tool: "allow" if enabled else "deny" for tool, enabled in tools.items()
    }
    return {**rules, "*": permission} if isinstance(permission, str) else {**rules, **(permission or {})}


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
