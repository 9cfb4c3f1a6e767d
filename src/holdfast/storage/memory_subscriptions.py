"""Subscriptions and signing keys in memory."""

from collections.abc import Sequence

from holdfast.core.subscriptions import SigningKey, Subscription


class MemorySubscriptions:
    """The port `core.subscriptions.SubscriptionStore`."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, Subscription] = {}
        self._keys: dict[str, SigningKey] = {}

    async def subscriptions(self) -> Sequence[Subscription]:
        return list(self._subscriptions.values())

    async def save(self, subscription: Subscription) -> None:
        self._subscriptions[subscription.id] = subscription

    async def remove(self, subscription_id: str) -> None:
        self._subscriptions.pop(subscription_id, None)

    async def signing_keys(self) -> Sequence[SigningKey]:
        return sorted(self._keys.values(), key=lambda key: key.created_ms)

    async def save_signing_key(self, key: SigningKey) -> None:
        self._keys[key.kid] = key

    async def remove_signing_key(self, kid: str) -> None:
        self._keys.pop(kid, None)
