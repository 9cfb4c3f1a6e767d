"""What closes secrets on the disk: AES-256-GCM with a key that is kept outside of the data directory, in `holdfast/auth.key`
of the user's configuration directory or in the variable `HOLDFAST_AUTH_KEY` (decision 0066).

What was sealed for one purpose (a provider's id, a server's name) opens for no other.
"""

import base64
import binascii
import contextlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.core.errors import Conflict, Invalid
from holdfast.service.durable_files import Version, replace_file, version_of

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class Seal:
    """`entropy(n)` gives random bytes. Reads and writes the file of the key: call it in a thread."""

    def __init__(self, key_file: Path, *, environ: Mapping[str, str], entropy: Callable[[int], bytes]) -> None:
        self.key_file = key_file
        self._environ = environ
        self._entropy = entropy
        self._making = threading.Lock()

    def stamp(self) -> Version:
        """Another one after each change of the key."""
        return version_of(self.key_file)

    @property
    def place(self) -> str:
        """Where the key is, or will be."""
        return "HOLDFAST_AUTH_KEY" if self._environ.get("HOLDFAST_AUTH_KEY") else str(self.key_file)

    def has_key(self) -> bool:
        """Whether there is one already. Raises Invalid or Conflict for one that will not do."""
        return self._key() is not None

    def close(self, plain: bytes, purpose: str) -> bytes:
        """Makes the key if there is none yet. Raises Invalid or Conflict if there is none to be had."""
        nonce = self._entropy(_NONCE_BYTES)
        with self._making:  # two that want the first key get the same one
            cipher = self._cipher(make=True)
        return nonce + cipher.encrypt(nonce, plain, purpose.encode())

    def open(self, sealed: bytes, purpose: str) -> bytes:
        """Raises ValueError if this key did not seal it for this purpose; Invalid or Conflict if there is no key."""
        try:
            return self._cipher(make=False).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], purpose.encode())
        except InvalidTag:
            raise ValueError("sealed with another key") from None

    def why_closed(self, sealed: bytes, purpose: str) -> str | None:
        """Why this cannot be opened, in a sentence; None if it can."""
        try:
            self.open(sealed, purpose)
        except ValueError:
            return "It is sealed with another key."
        except (Invalid, Conflict) as error:
            return error.message
        return None

    def _cipher(self, *, make: bool) -> AESGCM:
        """Raises Invalid or Conflict if there is no key to seal with."""
        key = self._key()
        if key is None and make:
            key = self._entropy(_KEY_BYTES)
            try:
                self.key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                replace_file(self.key_file, base64.b64encode(key) + b"\n", mode=0o600)
            except OSError as error:
                raise unwritable(self.key_file, error) from error
        if key is None:
            raise Conflict(f"{self.key_file}, with which the stored keys are sealed, is not there.")
        return AESGCM(key)

    def _key(self) -> bytes | None:
        """None: there is none yet. Raises Invalid or Conflict for one that will not do."""
        told = self._environ.get("HOLDFAST_AUTH_KEY")
        if told:
            return _decoded(told, "HOLDFAST_AUTH_KEY")
        try:
            return _decoded(self.key_file.read_text("ascii"), str(self.key_file))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise Conflict(f"{self.key_file} cannot be read: {type(error).__name__}.") from error


def _decoded(text: str, place: str) -> bytes:
    with contextlib.suppress(binascii.Error):
        key = base64.b64decode(text.strip(), validate=True)
        if len(key) == _KEY_BYTES:
            return key
    raise Invalid(f"{place} does not hold {_KEY_BYTES} bytes in Base64.")


def unwritable(file: Path, error: OSError) -> Conflict:
    return Conflict(f"{file} cannot be written: {(error.strerror or type(error).__name__).lower()}.")
