"""The keys that webhooks are signed with, and the tokens that come back. Ed25519 and HMAC; the keys are kept by the store, so
signatures and tokens outlive a restart.

A key signs until it is `KEY_DAYS` old, and is published (JWKS) for `OVERLAP_DAYS` more, so that what it signed can still be
checked. Tokens are `<payload>.<mac>`, both Base64, under a secret that is derived from the signing key.
"""

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from holdfast.core.subscriptions import SigningKey, SubscriptionStore, TokenExpired, TokenInvalid

KEY_DAYS: Final = 90
OVERLAP_DAYS: Final = 14
TOKEN_SECONDS: Final = 3600
_DAY_MS: Final = 24 * 3600 * 1000


class Signed(NamedTuple):
    kid: str
    signature: bytes


class Signer:
    """`key_id` names a public key; `entropy(n)` gives random bytes."""

    def __init__(
        self, store: SubscriptionStore, *, key_id: Callable[[bytes], str], entropy: Callable[[int], bytes]
    ) -> None:
        self._store = store
        self._key_id = key_id
        self._entropy = entropy
        self._keys: list[SigningKey] = []

    async def load(self, now_ms: int) -> None:
        """Call it at start, and now and then: it makes the next key when the newest has become old."""
        keys = sorted(await self._store.signing_keys(), key=lambda key: key.created_ms)
        if not keys or keys[-1].created_ms < now_ms - KEY_DAYS * _DAY_MS:
            seed = self._entropy(32)
            key = SigningKey(self._key_id(_public(seed)), now_ms, seed)
            await self._store.add_signing_key(key)
            keys.append(key)
        self._keys = keys

    @property
    def kid(self) -> str:
        return self._keys[-1].kid

    def public_keys(self, now_ms: int) -> dict[str, bytes]:
        oldest_ms = now_ms - (KEY_DAYS + OVERLAP_DAYS) * _DAY_MS
        return {key.kid: _public(key.private) for key in reversed(self._keys) if key.created_ms >= oldest_ms}

    def sign(self, text: bytes) -> Signed:
        return Signed(self.kid, Ed25519PrivateKey.from_private_bytes(self._keys[-1].private).sign(text))

    def token(self, subscription_id: str, generation: int, now_ms: int) -> str:
        payload = _encode(json.dumps([subscription_id, generation, now_ms // 1000 + TOKEN_SECONDS]).encode())
        return f"{payload}.{_encode(_mac(self._keys[-1], payload))}"

    def token_generation(self, token: str, subscription_id: str, now_ms: int) -> int:
        """Of which generation of this subscription the token is. Raises TokenInvalid, TokenExpired."""
        payload, _, mac = token.partition(".")
        if not any(hmac.compare_digest(_encode(_mac(key, payload)).encode(), mac.encode()) for key in self._keys):
            raise TokenInvalid("Not a token of this server.")
        given: Sequence[Any] = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        if given[0] != subscription_id:
            raise TokenInvalid("The token is for another subscription.")
        if given[2] < now_ms // 1000:
            raise TokenExpired("The token is too old.")
        return int(given[1])


def _public(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _mac(key: SigningKey, payload: str) -> bytes:
    secret = hmac.digest(key.private, b"holdfast callback tokens", sha256)
    return hmac.digest(secret, payload.encode(), sha256)


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
