"""Subscriptions and signing keys in memory."""

from collections.abc import Sequence

from holdfast.core.subscriptions import SigningKey, Subscription


class MemorySubscriptions:
    """The port `core.subscriptions.SubscriptionStore`."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, Subscription] = {}
        self._keys: list[SigningKey] = []

    async def subscriptions(self) -> Sequence[Subscription]:
        return list(self._subscriptions.values())

    async def save(self, subscription: Subscription) -> None:
        self._subscriptions[subscription.id] = subscription

    async def remove(self, subscription_id: str) -> None:
        self._subscriptions.pop(subscription_id, None)

    async def signing_keys(self) -> Sequence[SigningKey]:
        return list(self._keys)

    async def add_signing_key(self, key: SigningKey) -> None:
        self._keys.append(key)
