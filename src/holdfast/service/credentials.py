"""The keys with which users reach providers: those that were stored here, and those that OpenCode has.

Ours are in `auth.json` in the data directory, readable for its owner only, and there each is sealed (`service.seal`), bound to
its provider, with a key that is kept elsewhere. So the data directory can be copied, backed up or shown to somebody without
giving away a secret. Against somebody who can read all files of the user, nothing helps but a key that is not in a file.

OpenCode's own `auth.json`, or the text of `OPENCODE_AUTH_CONTENT` in its place, counts too. It is never written to: a key in it
that is removed here is only marked as removed.

What cannot be unsealed (another machine, a lost key) is left as it is, and does not count.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from holdfast.core.credentials import ApiKey, Credential, OAuthTokens, WellKnown, read_credentials
from holdfast.core.errors import Conflict, Invalid
from holdfast.service.durable_files import Version, replace_file, version_of
from holdfast.service.seal import Seal, unwritable

log = structlog.get_logger()

_ID_CHARACTERS_MAX: Final = 256
_SECRET_CHARACTERS_MAX: Final = 16_384


class _File(msgspec.Struct, frozen=True):
    """`credentials` are sealed; an empty one is the mark that OpenCode's does not count any more."""

    version: int = 1
    credentials: dict[str, bytes] = {}


class Keys(NamedTuple):
    """`by_provider` are keys, `variables` those that an organisation's tokens stand for."""

    by_provider: Mapping[str, str]
    variables: Mapping[str, str]


class Credentials:
    """`file` is where ours are (None: in memory, for as long as the server runs). All of it
    reads and writes files: call it in a thread."""

    def __init__(
        self,
        file: Path | None,
        *,
        seal: Seal,
        environ: Mapping[str, str],
        home: Path,
    ) -> None:
        self._file = file
        self._seal = seal
        self._environ = environ
        data_home = environ.get("XDG_DATA_HOME") or str(home / ".local" / "share")
        self._opencode = Path(data_home) / "opencode" / "auth.json"
        self._lock = threading.Lock()
        self._in_memory: dict[str, Credential | None] = {}
        self._changes = 0
        self._complained: set[str] = set()

    def stamp(self) -> tuple[int, Version, Version, Version]:
        """Another one after each change."""
        own = version_of(self._file) if self._file is not None else None
        return self._changes, own, self._seal.stamp(), version_of(self._opencode)

    def keys(self) -> Keys:
        found = self._all()
        return Keys(
            by_provider={id: credential.key for id, credential in found.items() if isinstance(credential, ApiKey)},
            variables={
                credential.key: credential.token for credential in found.values() if isinstance(credential, WellKnown)
            },
        )

    def set(self, provider_id: str, credential: Credential) -> None:
        """Durable when this returns. Raises Invalid, Conflict if it cannot be written."""
        _check(provider_id, credential)
        with self._lock:
            if self._file is None:
                self._in_memory[provider_id] = credential
            else:
                sealed = self._seal.close(msgspec.json.encode(credential), provider_id)
                self._write({**self._read().credentials, provider_id: sealed})
            self._changes += 1

    def remove(self, provider_id: str) -> None:
        """Durable when this returns; harmless if there is none. Raises Conflict if it cannot be written."""
        with self._lock:
            marked = provider_id in self._opencodes()
            if self._file is None:
                self._in_memory.pop(provider_id, None)
                if marked:
                    self._in_memory[provider_id] = None
            else:
                kept = dict(self._read().credentials)
                known = kept.pop(provider_id, None)
                if marked:
                    kept[provider_id] = b""
                if marked or known is not None:
                    self._write(kept)
            self._changes += 1

    def closed(self) -> Mapping[str, str | None]:
        """Every provider of which a key is stored here, and why that cannot be opened: None if it can. Raises Conflict."""
        if self._file is None:
            return dict.fromkeys(self._in_memory)
        stored = self._read().credentials
        return {id: self._seal.why_closed(sealed, id) for id, sealed in stored.items() if sealed}

    # --- reading

    def _all(self) -> dict[str, Credential]:
        found = self._opencodes()
        for provider_id, credential in self._own().items():
            if credential is None:
                found.pop(provider_id, None)
            else:
                found[provider_id] = credential
        return found

    def _own(self) -> Mapping[str, Credential | None]:
        if self._file is None:
            return self._in_memory
        try:
            stored = self._read().credentials
        except Conflict as error:
            self._complain(error.message)
            return {}
        found: dict[str, Credential | None] = {}
        for provider_id, sealed in stored.items():
            try:
                found[provider_id] = self._unsealed(sealed, provider_id)
            except (Invalid, Conflict) as error:
                self._complain(error.message)
            except ValueError:  # msgspec's errors are such, too
                self._complain(f"The stored key of provider {provider_id} is sealed with another key.")
        return found

    def _unsealed(self, sealed: bytes, provider_id: str) -> Credential | None:
        if not sealed:
            return None
        return msgspec.json.decode(self._seal.open(sealed, provider_id), type=Credential)

    def _read(self) -> _File:
        assert self._file is not None
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=_File)
        except FileNotFoundError:
            return _File()
        except (OSError, msgspec.MsgspecError) as error:
            raise Conflict(
                f"{self._file} cannot be read: {type(error).__name__}.",
                hint="Move it away, then give the keys again.",
            ) from None

    def _opencodes(self) -> dict[str, Credential]:
        content = self._environ.get("OPENCODE_AUTH_CONTENT")
        try:
            text = content.encode() if content else self._opencode.read_bytes()
            return read_credentials(text)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            place = "OPENCODE_AUTH_CONTENT" if content else str(self._opencode)
            self._complain(f"{place} cannot be read: {type(error).__name__}.")
            return {}

    def _complain(self, message: str) -> None:
        """Once: this is read again and again."""
        if message not in self._complained:
            self._complained.add(message)
            log.warning("credentials.unreadable", reason=message)

    # --- writing

    def _write(self, credentials: dict[str, bytes]) -> None:
        assert self._file is not None
        try:
            replace_file(self._file, msgspec.json.encode(_File(credentials=credentials)), mode=0o600)
        except OSError as error:
            raise unwritable(self._file, error) from error


def _check(provider_id: str, credential: Credential) -> None:
    if not provider_id.strip() or len(provider_id) > _ID_CHARACTERS_MAX or not provider_id.isprintable():
        raise Invalid("Not a provider id.", field="providerID")
    match credential:
        case ApiKey(key=key):
            secrets: Mapping[str, Any] = {"key": key}
        case OAuthTokens(refresh=refresh, access=access):
            secrets = {"refresh": refresh, "access": access}
        case WellKnown(key=key, token=token):
            secrets = {"key": key, "token": token}
    for field, secret in secrets.items():
        if not secret or len(secret) > _SECRET_CHARACTERS_MAX or not (secret.isascii() and secret.isprintable()):
            raise Invalid(
                f"{field} must be of 1 to {_SECRET_CHARACTERS_MAX} characters that an HTTP header can hold.",
                field=field,
            )
