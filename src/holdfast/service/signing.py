"""The keys that webhooks are signed with, and the tokens that come back. Ed25519 and HMAC; the keys are kept by the store, so
signatures and tokens outlive a restart.

Their seeds are stored sealed (`service.seal`), each bound to its key's id. The first one is made when a subscription needs it:
a server on which nobody subscribes needs no seal. Once opened, they are in memory. One that cannot be opened (another machine,
a lost key of the seal) stays stored and does not count.

A key signs until it is `KEY_DAYS` old, and is published (JWKS) for `OVERLAP_DAYS` more, so that what it signed can still be
checked; then it is removed. Tokens are `<payload>.<mac>`, both Base64, under a secret that is derived from the signing key.
"""

import asyncio
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from holdfast.core.errors import Conflict, Invalid, Unavailable
from holdfast.core.subscriptions import SigningKey, SubscriptionStore, TokenInvalid
from holdfast.service.seal import Seal

log = structlog.get_logger()

KEY_DAYS: Final = 90
OVERLAP_DAYS: Final = 14
_DAY_MS: Final = 24 * 3600 * 1000
_SEED_BYTES: Final = 32
_TOKENS: Final = b"holdfast callback tokens"


class Signed(NamedTuple):
    kid: str
    signature: bytes


class Signer:
    """`key_id` names a public key; `entropy(n)` gives random bytes. Whoever needs a key gets Unavailable if there is none to
    be had."""

    def __init__(
        self,
        store: SubscriptionStore,
        *,
        seal: Seal,
        key_id: Callable[[bytes], str],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._seal = seal
        self._key_id = key_id
        self._entropy = entropy
        self._keys: list[SigningKey] = []
        self._seeds: dict[str, bytes] = {}
        self._opening = asyncio.Lock()
        self._complained: set[str] = set()

    async def load(self) -> None:
        """Call it once, at the start. Opens nothing; but seeds that lie there in clear, as they were stored before they were
        sealed, are sealed now if that is possible."""
        self._keys = list(await self._store.signing_keys())
        for key in self._keys:
            if is_clear(key):
                self._seeds[key.kid] = key.private
                try:
                    await self._store.save_signing_key(await self._sealed(key.kid, key.created_ms, key.private))
                except (Invalid, Conflict) as error:
                    self._complain("signing_key.in_clear", key.kid, error.message)

    async def ready(self, now_ms: int) -> None:
        """There is a key to sign with: the newest that can be opened, or a new one if that is too old."""
        async with self._opening:
            if self._newest() is None:
                await self._open()
            newest = self._newest()
            if newest is None or newest.created_ms < now_ms - KEY_DAYS * _DAY_MS:
                await self._make(now_ms)

    @property
    def kid(self) -> str:
        """Of the key that signs, as far as is known without opening it."""
        key = self._newest() or (self._keys[-1] if self._keys else None)
        return key.kid if key is not None else ""

    async def public_keys(self, now_ms: int) -> Mapping[str, bytes]:
        """By id, the newest first. Empty before the first one was needed."""
        oldest_ms = now_ms - (KEY_DAYS + OVERLAP_DAYS) * _DAY_MS
        published = [key.kid for key in reversed(self._keys) if key.created_ms >= oldest_ms]
        async with self._opening:
            if not all(kid in self._seeds for kid in published):
                await self._open()
        found = {kid: _public(self._seeds[kid]) for kid in published if kid in self._seeds}
        if published and not found:
            raise _unavailable()
        return found

    async def sign(self, text: bytes, now_ms: int) -> Signed:
        await self.ready(now_ms)
        return Signed(self.kid, Ed25519PrivateKey.from_private_bytes(self._seeds[self.kid]).sign(text))

    async def secrets(self, label: bytes, now_ms: int) -> Sequence[bytes]:
        """Derived from the keys, the newest first: what is signed with one can be checked as long as its key is published.
        `label` says what for."""
        await self.ready(now_ms)
        return self._derived(label)

    async def known_secrets(self, label: bytes) -> Sequence[bytes]:
        """The same, to check with: makes no key, so there may be none."""
        async with self._opening:
            if self._newest() is None:
                await self._open()
        return self._derived(label)

    async def token(self, subscription_id: str, generation: int, now_ms: int) -> str:
        """Good for as long as the wake of that generation: whoever keeps its lease may be at it for days."""
        secret, *_ = await self.secrets(_TOKENS, now_ms)
        payload = _encode(json.dumps([subscription_id, generation]).encode())
        return f"{payload}.{_mac(secret, payload)}"

    async def token_generation(self, token: str, subscription_id: str) -> int:
        """Of which generation of this subscription the token is. Raises TokenInvalid; Unavailable if no key can be opened.
        Makes none: anybody may come with a token."""
        payload, _, mac = token.partition(".")
        secrets = await self.known_secrets(_TOKENS)
        if not secrets and self._keys:
            raise _unavailable()
        if not any(hmac.compare_digest(_mac(secret, payload).encode(), mac.encode()) for secret in secrets):
            raise TokenInvalid("Not a token of this server.")
        given: Sequence[Any] = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        if given[0] != subscription_id:
            raise TokenInvalid("The token is for another subscription.")
        return int(given[1])

    # --- keys

    def _newest(self) -> SigningKey | None:
        return next((key for key in reversed(self._keys) if key.kid in self._seeds), None)

    def _derived(self, label: bytes) -> Sequence[bytes]:
        seeds = [self._seeds[key.kid] for key in reversed(self._keys) if key.kid in self._seeds]
        return [hmac.digest(seed, label, sha256) for seed in seeds]

    async def _open(self) -> None:
        for key in self._keys:
            if key.kid not in self._seeds:
                try:
                    self._seeds[key.kid] = await asyncio.to_thread(self._seal.open, key.private, _purpose(key.kid))
                except (ValueError, Invalid, Conflict) as error:
                    self._complain("signing_key.unreadable", key.kid, str(error))

    async def _make(self, now_ms: int) -> None:
        seed = self._entropy(_SEED_BYTES)
        try:
            key = await self._sealed(self._key_id(_public(seed)), now_ms, seed)
        except (Invalid, Conflict) as error:
            self._complain("signing_key.unavailable", "", error.message)
            raise _unavailable() from error
        await self._store.save_signing_key(key)
        self._seeds[key.kid] = seed
        self._keys.append(key)
        oldest_ms = now_ms - (KEY_DAYS + OVERLAP_DAYS) * _DAY_MS
        for old in [key for key in self._keys if key.created_ms < oldest_ms]:
            await self._store.remove_signing_key(old.kid)
            self._keys.remove(old)
            self._seeds.pop(old.kid, None)

    async def _sealed(self, kid: str, created_ms: int, seed: bytes) -> SigningKey:
        return SigningKey(kid, created_ms, await asyncio.to_thread(self._seal.close, seed, _purpose(kid)))

    def _complain(self, event: str, kid: str, reason: str) -> None:
        """Once: this is tried again and again."""
        if f"{event} {kid} {reason}" not in self._complained:
            self._complained.add(f"{event} {kid} {reason}")
            log.warning(event, kid=kid, reason=reason)


def closed(keys: Iterable[SigningKey], seal: Seal) -> Mapping[str, str | None]:
    """Every stored key, by id, and why it cannot be opened: None if it can."""
    return {key.kid: None if is_clear(key) else seal.why_closed(key.private, _purpose(key.kid)) for key in keys}


def is_clear(key: SigningKey) -> bool:
    """A sealed seed is longer than a seed."""
    return len(key.private) == _SEED_BYTES


def _purpose(kid: str) -> str:
    return f"signing key {kid}"


def _unavailable() -> Unavailable:
    return Unavailable(
        "The key to sign with cannot be had.",
        hint="The operator finds the reason in the log and with `holdfast doctor`.",
    )


def _public(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _mac(secret: bytes, payload: str) -> str:
    return _encode(hmac.digest(secret, payload.encode(), sha256))


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
