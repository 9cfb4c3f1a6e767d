"""Calls to other people's servers, on behalf of whoever may make a subscription: so only to where anybody could call.

Rules
 1. `https:` only, to public addresses: what a name resolves to is looked at when the connection is made, so a name cannot be
    turned round between check and use. Redirects are followed by the same rule, at most `REDIRECTS_MAX`.
 2. `http:` to `localhost` and 127.0.0.x is for development, and only where the operator says so. Nobody is redirected there from
    elsewhere.
 3. An answer counts only in time, and only its first bytes.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

from holdfast.core.subscriptions import WebhookUrlRejected

if TYPE_CHECKING:
    from holdfast.service.webhook_calls import Calls

TIMEOUT_SECONDS: Final = 30
ANSWER_BYTES_MAX: Final = 64 << 10
REDIRECTS_MAX: Final = 3

_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class WebhookFailed(Exception):
    """The webhook did not take it: try again later."""


class WebhookAnswer(NamedTuple):
    status: int
    body: bytes


def check_url(url: str, *, allow_local: bool) -> None:
    """Raises WebhookUrlRejected for what no address needs to be looked up to refuse."""
    parts = _split(url)
    host = (parts.hostname or "").lower()
    if parts.username is not None or parts.password is not None:
        raise WebhookUrlRejected("The URL of a webhook has no user name in it.")
    if parts.scheme == "http":
        if not (allow_local and _is_local(host)):
            raise WebhookUrlRejected("A webhook must use https; http is for localhost, where the operator allows it.")
        return
    if parts.scheme != "https" or not host:
        raise WebhookUrlRejected("The URL of a webhook must be an https one.")
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        raise WebhookUrlRejected("A webhook must be at a public address.")
    address = _address(host)
    if address is not None and not is_public(address):
        raise WebhookUrlRejected("A webhook must be at a public address.")


async def check_names(url: str) -> None:
    """Raises WebhookUrlRejected if the host's name leads into a private network now. One that leads nowhere may later."""
    parts = _split(url)
    host = parts.hostname or ""
    if _is_local(host.lower()) or _address(host) is not None:
        return
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return
    if not all(is_public(str(address[0])) for *_, address in found):
        raise WebhookUrlRejected("A webhook must be at a public address.")


def is_public(address: str | ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Global unicast. An IPv6 address that stands for an IPv4 one (mapped, 6to4, Teredo, NAT64) is what that one is."""
    address = ipaddress.ip_address(address)
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        if address not in _GLOBAL_UNICAST:  # the registry of what is reserved elsewhere is longer than Python's
            return False
    return address.is_global and not address.is_multicast


class Webhooks:
    def __init__(self, *, allow_local: bool) -> None:
        self.allow_local = allow_local
        self._calls: Calls | None = None

    async def check(self, url: str) -> None:
        """Raises WebhookUrlRejected."""
        check_url(url, allow_local=self.allow_local)
        await check_names(url)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookAnswer:
        """Raises WebhookFailed for anything but a 2xx in time."""
        from holdfast.service import webhook_calls

        if self._calls is None:
            self._calls = webhook_calls.Calls(self._may_reach, seconds_max=TIMEOUT_SECONDS, bytes_max=ANSWER_BYTES_MAX)
        try:
            local = self.allow_local and _leads_home(url)
            for _ in range(REDIRECTS_MAX + 1):
                check_url(url, allow_local=local)
                reply = await self._calls.post(url, body, headers)
                if reply.location is not None:
                    url = urljoin(url, reply.location)
                    continue
                if not 200 <= reply.status < 300:
                    raise WebhookFailed(f"It answered {reply.status}.")
                return WebhookAnswer(reply.status, reply.body)
        except WebhookUrlRejected as error:
            raise WebhookFailed(error.message) from None
        except (webhook_calls.Unreachable, ValueError) as error:
            reason = str(error) if isinstance(error, webhook_calls.Unreachable) else type(error).__name__
            raise WebhookFailed(f"It could not be reached: {reason}.") from error
        raise WebhookFailed("Too many redirects.")

    def _may_reach(self, host: str, address: str) -> bool:
        return (self.allow_local and _is_local(host.lower())) or is_public(address)

    async def close(self) -> None:
        if self._calls is not None:
            await self._calls.close()


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise WebhookUrlRejected("The URL of a webhook must be a valid one.") from None
    return parts


def _leads_home(url: str) -> bool:
    return _is_local((_split(url).hostname or "").lower())


def _is_local(host: str) -> bool:
    return host == "localhost" or (host.startswith("127.") and _address(host) is not None)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Also of the spellings that resolvers take: `0x7f.1`, `2130706433`."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        try:
            return ipaddress.ip_address(socket.inet_aton(host)) if host[:1].isdigit() else None
        except OSError:
            return None
