"""Changes to configuration files on a client's behalf: of one directory, or of the user's own.

1. A change is a merge patch (`service.jsonc_edit`): what it does not name stays, comments too; `null` takes a setting out.
2. What it says that holds already is not written: a client may send back the whole configuration as it was answered, from
   which secrets are left out.
3. It goes into the file that counts most of those there are, or into a new one.
4. The configuration that would result is checked before anything is written; the file is replaced as a whole or not at all.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from holdfast.core.config import Config, public
from holdfast.core.errors import Conflict, Invalid
from holdfast.service.agents import agents_of, default_agent
from holdfast.service.config import Configuration, check_settings
from holdfast.service.durable_files import replace_file
from holdfast.service.jsonc import JsonError
from holdfast.service.jsonc_edit import patched
from holdfast.service.projects import worktree_of

_FILE_BYTES_MAX: Final = 1024 * 1024
_KNOWN: Final = frozenset(field.encode_name for field in msgspec.structs.fields(Config))
_NEW_OWN: Final = "opencode.jsonc"
_NEW: Final = "opencode.json"
_SCHEMA: Final = '{\n  "$schema": "https://opencode.ai/config.json"\n}\n'


class ConfigChanges:
    """Reads and writes files: its methods block. A change of the user's own files is tried in `directory`."""

    def __init__(self, configuration: Configuration, directory: str) -> None:
        self._configuration = configuration
        self._try_in = directory, worktree_of(directory) or directory
        self._lock = threading.Lock()

    def own(self) -> Config:
        """The user's own settings. Raises Invalid if a file is wrong."""
        return self._configuration.own()

    def change_own(self, patch: Mapping[str, Any]) -> bool:
        """Whether anything was written. Raises Invalid for a patch that would not do; then nothing is."""
        with self._lock:
            return self._change(self._configuration.files_of(None), _NEW_OWN, self.own(), patch, *self._try_in)

    def change(self, directory: str, worktree: str, patch: Mapping[str, Any]) -> bool:
        """The same for a directory; `worktree` is where its project begins. Raises Conflict where the files of projects do
        not count."""
        if not self._configuration.reads_projects:
            raise Conflict("The files of projects do not count here: OPENCODE_DISABLE_PROJECT_CONFIG is set.")
        with self._lock:
            now = self._configuration.config(directory, worktree)
            return self._change(self._configuration.files_of(directory), _NEW, now, patch, directory, worktree)

    def _change(
        self,
        files: tuple[Path, ...],
        new: str,
        now: Config,
        patch: Mapping[str, Any],
        directory: str,
        worktree: str,
    ) -> bool:
        known = {key: value for key, value in patch.items() if key in _KNOWN}
        check_settings(_without_nulls(known))
        wanted = _differing(known, msgspec.to_builtins(public(now)))
        there = [file for file in files if file.exists()]
        file = there[-1] if there else files[0].with_name(new)
        text = _text_of(file) if there else _SCHEMA
        try:
            changed = patched(text, wanted)
        except JsonError:
            self._configuration.tried(file, text, directory, worktree)  # raises, and says where the mistake is
            raise
        if changed == text:
            return False
        if len(changed.encode()) > _FILE_BYTES_MAX:
            raise Invalid(f"{file} would be larger than {_FILE_BYTES_MAX} bytes.")
        config = self._configuration.tried(file, changed, directory, worktree)
        default_agent(config, agents_of(config, ""))
        _replace(file, changed)
        return True


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        items = cast(dict[str, Any], value).items()
        return {key: _without_nulls(item) for key, item in items if item is not None}
    return value


def _differing(patch: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What of the patch does not hold already. What is not there need not be taken out, unless it is a secret, of which
    nobody here knows: so `null` stays."""
    result: dict[str, Any] = {}
    for key, item in patch.items():
        if item is None or key not in now:
            result[key] = item
        elif isinstance(item, Mapping) and isinstance(now[key], Mapping):
            inner = _differing(cast(Mapping[str, Any], item), cast(Mapping[str, Any], now[key]))
            if inner:
                result[key] = inner
        elif msgspec.json.encode(item) != msgspec.json.encode(now[key]):
            result[key] = item
    return result


def _text_of(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{file} cannot be read: {type(error).__name__}.") from error


def _replace(file: Path, text: str) -> None:
    try:
        replace_file(file, text.encode())
    except OSError as error:
        raise Conflict(f"{file} cannot be written: {(error.strerror or type(error).__name__).lower()}.") from error
