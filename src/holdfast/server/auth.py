"""Who may use the server: pure decisions about one request's headers.

 - *Host*: a page whose own name is made to point at this machine (DNS rebinding) names itself there, so only the names
   this server goes by are admitted: loopback, the bound address, and what the operator adds.
 - *Origin*: a browser says which page asks. Pages of this server and of the origins the operator admits may, others not.
 - *Credential*: with a password, HTTP Basic, or `?auth_token=` for clients that cannot set headers. Compared in constant time.

A request without `Origin` does not come from a page's script (curl, an SDK, a TUI): Host and credential decide.
"""

import base64
import binascii
import functools
import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from holdfast.core.errors import Denied

USERNAME: Final = "opencode"
_LOOPBACK_NAMES: Final = ("localhost",)
_WILDCARDS: Final = frozenset({"0.0.0.0", "::", ""})

CHALLENGE: Final = (b"www-authenticate", b'Basic realm="Secure Area"')


class Refusal(msgspec.Struct, frozen=True):
    """`reason` is None for a missing or wrong credential: its answer has no body."""

    status: int
    reason: str | None = None


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """`host` is the bound address, `hosts` further names of this server, `origins` the pages that may use it (as browsers
    write them: `https://example.org`). An empty password is none."""

    host: str
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    username: str = USERNAME
    password: str | None = None

    def refuse_place(self, headers: Mapping[bytes, bytes], scheme: str) -> Refusal | None:
        """Why a request must not come from where it says it comes from; None if it may."""
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._is_ours(host):
            return Refusal(
                403, f"Host {host[:200]!r} is not a name of this server. Start it with --allow-host to add it."
            )
        origin = headers.get(b"origin")
        if origin is not None and not self.admits(origin.decode("latin-1"), host, scheme):
            return Refusal(
                403,
                f"Pages of {origin.decode('latin-1')[:200]!r} may not use this server. Start it with --cors to admit them.",
            )
        return None

    def refuse_stranger(self, headers: Mapping[bytes, bytes], query: bytes) -> Refusal | None:
        """None if no password is needed or the right one is given."""
        if not self.password:
            return None
        given = _basic(headers.get(b"authorization", b"")) or _token(query)
        expected = f"{self.username}:{self.password}".encode()
        return None if given is not None and hmac.compare_digest(given, expected) else Refusal(401)

    def admits(self, origin: str, host: str, scheme: str) -> bool:
        return origin.lower() == f"{scheme}://{host}".lower() or origin in self.origins

    def _is_ours(self, host: str) -> bool:
        name = _name(host)
        if name is None:
            return False
        if name in _LOOPBACK_NAMES or name.endswith(".localhost") or name == self.host.lower() or name in self.hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # An address cannot be rebound: whoever names it means the machine that has it.
        return address.is_loopback or self.host in _WILDCARDS


def check_binding(host: str, password: str | None) -> None:
    """Raises Denied if others than this machine's users could reach the server, and it asks for no password."""
    if not password and not is_loopback(host):
        raise Denied(
            f"Refusing to listen on {host} without a password: everybody who reaches it could run commands here.",
            hint="Give --password (or OPENCODE_SERVER_PASSWORD), or listen on 127.0.0.1.",
        )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in _LOOPBACK_NAMES


def checked_origins(origins: Iterable[str]) -> tuple[str, ...]:
    """As browsers write them. Raises Denied for what is not an origin."""
    checked: list[str] = []
    for origin in origins:
        parts = urlsplit(origin)
        if not parts.scheme or not parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
            raise Denied(
                f"Not an origin: {origin[:200]!r}", hint="It looks like https://example.org or http://localhost:3000."
            )
        checked.append(f"{parts.scheme}://{parts.netloc}".lower())
    return tuple(checked)


@functools.lru_cache(maxsize=256)
def _name(host: str) -> str | None:
    """`[::1]:4096` → `::1`, `Localhost:80` → `localhost`; None if it is no host at all."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if not host or parts.netloc != host or "@" in host:
        return None
    return (parts.hostname or "").rstrip(".") or None


def _basic(header: bytes) -> bytes | None:
    kind, _, value = header.partition(b" ")
    return _decoded(value) if kind.lower() == b"basic" else None


def _token(query: bytes) -> bytes | None:
    if b"auth_token=" not in query:
        return None
    values = [value for name, value in parse_qsl(query.decode("latin-1")) if name == "auth_token"]
    return _decoded(values[0].encode("utf-8", "replace")) if values else None


def _decoded(text: bytes) -> bytes | None:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
