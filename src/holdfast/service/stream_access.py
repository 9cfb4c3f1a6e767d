"""Who may do what with which streams: credentials besides the server's password, each for some paths.

A credential is a bearer token, of which only the SHA-256 is kept, and for each right the prefixes of the paths it is for
(`logs/` means every stream under it, `""` every stream). Whoever has the server's password, or needs none, may do all.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

import msgspec

from holdfast.core.errors import Denied, Invalid

Right = Literal["read", "append", "create", "delete"]

BUCKETS_MAX: Final = 10_000


class StreamCredential(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`name` is what logs and limits call it."""

    name: str
    token_sha256: str
    read: tuple[str, ...] = ()
    append: tuple[str, ...] = ()
    create: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()

    def check(self, right: Right, path: str) -> None:
        """Raises Denied."""
        prefixes: tuple[str, ...] = getattr(self, right)
        if not any(path.startswith(prefix) for prefix in prefixes):
            raise Denied(f"This credential may not {right} {path[:200]}.")


class StreamCredentials:
    def __init__(self, credentials: Iterable[StreamCredential] = ()) -> None:
        self._by_digest = {credential.token_sha256.lower(): credential for credential in credentials}

    def find(self, token: str) -> StreamCredential | None:
        # Looked up by digest: what can be learned from the time it takes is of no use to a guesser.
        return self._by_digest.get(sha256(token.encode("utf-8", "surrogateescape")).hexdigest())


def read_credentials(path: Path) -> tuple[StreamCredential, ...]:
    """A JSON file: an array of credentials. Raises Invalid."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[StreamCredential, ...])
    except (OSError, msgspec.MsgspecError) as error:
        raise Invalid(
            f"Cannot use {path}: {error}",
            hint='It holds [{"name": …, "token_sha256": …, "read": ["prefix/"], "append": […], "create": […], "delete": […]}].',
        ) from None


class RateLimit:
    """So many requests a second for each client, saved up for at most one second. None: no limit."""

    def __init__(self, per_second: float | None) -> None:
        self._per_second = per_second
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait_seconds(self, client: str, now: float) -> float:
        """0: go ahead; else how long to wait. `now` in seconds of any clock that does not go back."""
        rate = self._per_second
        if rate is None:
            return 0
        burst = max(rate, 1.0)
        left, seen = self._buckets.get(client, (burst, now))
        left = min(burst, left + (now - seen) * rate)
        if left < 1:
            return (1 - left) / rate
        if len(self._buckets) >= BUCKETS_MAX and client not in self._buckets:
            self._buckets.clear()
        self._buckets[client] = left - 1, now
        return 0


RIGHTS: Final[Mapping[str, Right]] = {
    "GET": "read",
    "HEAD": "read",
    "POST": "append",
    "PUT": "create",
    "DELETE": "delete",
}
