"""Links to read one stream with: for clients that cannot send a credential, because all they have is an address (a stock
transport, an `EventSource`, a browser's address line).

A link is `<good until, Unix seconds>.<mac>`. It is for one path, and for reading only; nothing of it is stored. The MAC's key is
derived from the signing keys (so links outlive a restart) and from the server's password (so a new password takes all links
back).
"""

import hmac
import re
from base64 import urlsafe_b64encode
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final, NamedTuple

from holdfast.core.clock import Clock
from holdfast.core.errors import Denied
from holdfast.service.signing import Signer

LINK_SECONDS: Final = 3600
LINK_SECONDS_MAX: Final = 7 * 24 * 3600

_LABEL: Final = b"holdfast links"
_LINK: Final = re.compile(r"([0-9]{1,12})\.([A-Za-z0-9_-]{43})", re.ASCII)


class Link(NamedTuple):
    token: str
    until_seconds: int


class StreamLinks:
    def __init__(self, signer: Signer, *, password: str | None, clock: Clock) -> None:
        self._signer = signer
        self._password = password or ""
        self._clock = clock

    @property
    def needed(self) -> bool:
        """Whether reading takes a credential at all."""
        return bool(self._password)

    async def make(self, path: str, *, seconds: int = LINK_SECONDS) -> Link:
        """Raises Unavailable if there is no key to be had."""
        now_ms = self._clock.now_ms()
        until = now_ms // 1000 + seconds
        secret, *_ = await self._signer.secrets(_LABEL, now_ms)
        return Link(f"{until}.{self._mac(secret, path, until)}", until)

    async def check(self, path: str, token: str) -> None:
        """Raises Denied."""
        match = _LINK.fullmatch(token)
        until = int(match[1]) if match is not None else 0
        secrets = await self._signer.known_secrets(_LABEL) if match is not None else ()
        if match is None or not any(
            hmac.compare_digest(self._mac(secret, path, until), match[2]) for secret in secrets
        ):
            raise Denied("This link is not for this stream, or was taken back.")
        if until < self._clock.now_ms() // 1000:
            raise Denied(
                f"This link was good until {datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M:%S} UTC.",
                hint="Ask for another one, with a credential.",
            )

    def _mac(self, secret: bytes, path: str, until: int) -> str:
        key = hmac.digest(secret, self._password.encode(), sha256)
        return urlsafe_b64encode(hmac.digest(key, f"{until} {path}".encode(), sha256)).decode().rstrip("=")
