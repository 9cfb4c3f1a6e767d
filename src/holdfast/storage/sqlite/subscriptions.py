"""Subscriptions and signing keys in the SQLite database: rows read and written whole, in the writer's transactions."""

from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec

from holdfast.core.subscriptions import SigningKey, Subscription
from holdfast.storage.sqlite.byte_streams import Query, Submit
from holdfast.storage.sqlite.database import Database

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Subscription).decode


class SqliteSubscriptions:
    """The port `core.subscriptions.SubscriptionStore`. `submit_leaving_nothing`: as that of the `Writer`."""

    def __init__(
        self,
        database: Database,
        *,
        submit: Submit,
        submit_leaving_nothing: Callable[[Callable[[], object]], Awaitable[None]],
        query: Query,
    ) -> None:
        self._database = database
        self._submit = submit
        self._submit_leaving_nothing = submit_leaving_nothing
        self._query = query

    async def subscriptions(self) -> Sequence[Subscription]:
        rows = await self._query(lambda database: database.all("SELECT data FROM subscription ORDER BY id"))
        return [_decode(data) for (data,) in rows]

    async def save(self, subscription: Subscription) -> None:
        row = subscription.id, _encode(subscription)
        await self._submit(lambda: self._database.run("INSERT OR REPLACE INTO subscription VALUES (?, ?)", *row))

    async def remove(self, subscription_id: str) -> None:
        await self._submit(lambda: self._database.run("DELETE FROM subscription WHERE id = ?", subscription_id))

    async def signing_keys(self) -> Sequence[SigningKey]:
        return await self._query(signing_keys)

    async def save_signing_key(self, key: SigningKey) -> None:
        row = key.kid, key.created_ms, key.private

        def save() -> None:
            with _overwriting(self._database):
                self._database.run("INSERT OR REPLACE INTO signing_key VALUES (?, ?, ?)", *row)

        await self._submit_leaving_nothing(save)

    async def remove_signing_key(self, kid: str) -> None:
        def remove() -> None:
            with _overwriting(self._database):
                self._database.run("DELETE FROM signing_key WHERE kid = ?", kid)

        await self._submit_leaving_nothing(remove)


def signing_keys(database: Database) -> list[SigningKey]:
    rows = database.all("SELECT kid, created_ms, private FROM signing_key ORDER BY created_ms")
    return [SigningKey(*row) for row in rows]


@contextmanager
def _overwriting(database: Database) -> Generator[None]:
    """What is deleted is overwritten in the file, too, and does not lie there until its place is used again."""
    usual = database.pragma("secure_delete")
    database.pragma("secure_delete", 1)
    try:
        yield
    finally:
        database.pragma("secure_delete", usual)
