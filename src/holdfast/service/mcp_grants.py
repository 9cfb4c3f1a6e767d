"""What users granted at remote MCP servers, in `mcp-auth.json` in the data directory: each sealed (`service.seal`), bound to the
server it is for. What cannot be unsealed does not count: the user logs in again.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from holdfast.agent.mcp.logins import Grant
from holdfast.core.errors import Conflict, Invalid
from holdfast.service.durable_files import replace_file
from holdfast.service.seal import Seal, unwritable

log = structlog.get_logger()


class SealedGrants:
    """`agent.mcp.logins.Grants`. Without a `file` they last as long as the process."""

    def __init__(self, file: Path | None, seal: Seal) -> None:
        self._file = file
        self._seal = seal
        self._in_memory: dict[str, Grant] = {}
        self._sealed: dict[str, bytes] | None = None

    def get(self, key: str) -> Grant:
        if self._file is None:
            return self._in_memory.get(key, Grant())
        sealed = self._read(self._file).get(key)
        if sealed is not None:
            try:
                return msgspec.json.decode(self._seal.open(sealed, key), type=Grant)
            except (ValueError, Invalid, Conflict) as error:  # msgspec's errors are ValueErrors
                log.warning("mcp.login_unreadable", server=key.partition(" ")[0], reason=type(error).__name__)
        return Grant()

    def put(self, key: str, grant: Grant) -> None:
        if self._file is None:
            self._in_memory[key] = grant
        else:
            sealed = self._seal.close(msgspec.json.encode(grant), key)
            self._write(self._file, {**self._read(self._file), key: sealed})

    def remove(self, key: str) -> None:
        self._in_memory.pop(key, None)
        if self._file is not None and key in self._read(self._file):
            self._write(self._file, {other: sealed for other, sealed in self._read(self._file).items() if other != key})

    def closed(self) -> Mapping[str, str | None]:
        """Every server for which there is a login, and why that cannot be opened: None if it can. Raises Conflict."""
        if self._file is None:
            return dict.fromkeys(self._in_memory)
        return {key: self._seal.why_closed(sealed, key) for key, sealed in _stored(self._file).items()}

    def _read(self, file: Path) -> dict[str, bytes]:
        if self._sealed is None:
            try:
                self._sealed = _stored(file)
            except Conflict as error:
                log.warning("mcp.logins_unreadable", reason=error.message)
                self._sealed = {}
        return self._sealed

    def _write(self, file: Path, sealed: dict[str, bytes]) -> None:
        try:
            replace_file(file, msgspec.json.encode(sealed), mode=0o600)
        except OSError as error:
            raise unwritable(file, error) from error
        self._sealed = sealed


def _stored(file: Path) -> dict[str, bytes]:
    """Raises Conflict."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, bytes])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        raise Conflict(f"{file} cannot be read: {type(error).__name__}.") from None
