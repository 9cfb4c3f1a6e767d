"""Subscriptions on streams: somebody is woken when streams have grown beyond what he has acknowledged. State and rules, pure.

A *wake* is one call to work: by a webhook, or by a record in a wake stream that a worker answers with a claim. It has an id
and a *generation*, which grows; whoever acts on a wake names both, and a wake that is over fences him off. Per subscription
one wake is under way at a time, or one worker holds the lease.

Life of a wake: `wake` → told, or `refused` and told again later (webhook: `answered`; pull: `recorded`, then `claimed`) →
`acknowledged` any number of times, each time extending the lease → `finished`; or its lease runs out (`finished` too). Then,
if there is still something to tell, the next wake.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol

import msgspec
from msgspec.structs import replace

from holdfast.core.errors import Conflict, Denied, NotFound

LEASE_TTL_MS: Final = 30_000
LEASE_TTL_MS_MIN: Final = 1_000
LEASE_TTL_MS_MAX: Final = 600_000
RETRY_MS_MIN: Final = 1_000
RETRY_MS_MAX: Final = 60_000
JITTER: Final = 0.2

Kind = Literal["webhook", "pull-wake"]


class SubscriptionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscription was made with, and is confirmed with. `streams` sorted, each once."""

    type: Kind
    pattern: str | None = None
    streams: tuple[str, ...] = ()
    webhook_url: str | None = None
    wake_stream: str | None = None
    lease_ttl_ms: int = LEASE_TTL_MS
    description: str | None = None


class Link(msgspec.Struct, frozen=True):
    """A stream of a subscription. `acked`: everything up to this position has been dealt with. Named one by one
    (`explicit`), by the pattern (`glob`), or both."""

    acked: int
    explicit: bool = False
    glob: bool = False


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """`base` is what links to this server begin with. `snapshot`: the tails that the wake under way told of.
    `lease_until_ms`: the wake is over then, unless somebody says otherwise. `attempts` deliveries have failed; the next is
    due at `next_attempt_ms`."""

    id: str
    config: SubscriptionConfig
    created_ms: int
    base: str
    links: dict[str, Link]
    generation: int = 0
    wake_id: str | None = None
    trigger: str = ""
    snapshot: dict[str, int] = {}
    holder: str | None = None
    lease_until_ms: int | None = None
    attempts: int = 0
    next_attempt_ms: int | None = None

    @property
    def status(self) -> Literal["active", "failed"]:
        return "failed" if self.attempts else "active"


class SigningKey(msgspec.Struct, frozen=True):
    """An Ed25519 key that webhooks are signed with; `private` is its seed, sealed."""

    kid: str
    created_ms: int
    private: bytes


class StreamPosition(msgspec.Struct, frozen=True):
    stream: str
    position: int


class SubscriptionStore(Protocol):
    """What a subscription is, is durable when `save` returns."""

    async def subscriptions(self) -> Sequence[Subscription]: ...

    async def save(self, subscription: Subscription) -> None: ...

    async def remove(self, subscription_id: str) -> None: ...

    async def signing_keys(self) -> Sequence[SigningKey]:
        """The oldest first."""
        ...

    async def save_signing_key(self, key: SigningKey) -> None:
        """Adds it, or puts it in the place of the one with its id, of which nothing stays behind in the store's files."""
        ...

    async def remove_signing_key(self, kid: str) -> None: ...


# --- errors -----------------------------------------------------------------------------------------------------


class SubscriptionNotFound(NotFound):
    code = "SUBSCRIPTION_NOT_FOUND"

    def __init__(self, subscription_id: str) -> None:
        super().__init__("Subscription", subscription_id[:200])


class SubscriptionExists(Conflict):
    code = "SUBSCRIPTION_ALREADY_EXISTS"


class WebhookUrlRejected(Denied):
    code = "WEBHOOK_URL_REJECTED"


class TokenInvalid(Denied):
    code = "TOKEN_INVALID"


class Fenced(Conflict):
    """The wake is over; another one may be under way."""

    code = "FENCED"


class AlreadyClaimed(Conflict):
    code = "ALREADY_CLAIMED"

    def __init__(self, holder: str, generation: int) -> None:
        super().__init__(f"{holder[:200]} is at it.")
        self.holder = holder
        self.generation = generation


class NoPendingWork(Conflict):
    code = "NO_PENDING_WORK"


class InvalidOffset(Conflict):
    code = "INVALID_OFFSET"


# --- rules ------------------------------------------------------------------------------------------------------

Tails = Mapping[str, int]
"""Where streams end, by path; a stream that is not there yet ends at 0."""


def pending(subscription: Subscription, tails: Tails) -> str | None:
    """A stream that there is something to tell about."""
    for path, link in subscription.links.items():
        if tails.get(path, 0) > link.acked:
            return path
    return None


def is_idle(subscription: Subscription) -> bool:
    return subscription.wake_id is None and subscription.holder is None


def is_unclaimed(subscription: Subscription) -> bool:
    """A wake is under way, and no worker holds the lease."""
    return subscription.wake_id is not None and subscription.holder is None


def link(subscription: Subscription, paths: Sequence[str], tails: Tails, *, explicit: bool) -> Subscription:
    """With these streams. One that is new to the subscription counts as dealt with up to the given tail."""
    links = dict(subscription.links)
    for path in paths:
        known = links.get(path) or Link(tails.get(path, 0))
        links[path] = Link(known.acked, known.explicit or explicit, known.glob or not explicit)
    return replace(subscription, links=links) if links != subscription.links else subscription


def unlink(subscription: Subscription, path: str) -> Subscription:
    """No longer named one by one. The pattern may still mean it."""
    known = subscription.links.get(path)
    if known is None or not known.explicit:
        return subscription
    links = dict(subscription.links)
    if known.glob:
        links[path] = replace(known, explicit=False)
    else:
        del links[path]
    return replace(subscription, links=links)


def forget(subscription: Subscription, path: str) -> Subscription:
    """The stream is gone. One that is named stays named: it may come again."""
    known = subscription.links.get(path)
    if known is None:
        return subscription
    links = dict(subscription.links)
    if known.explicit:
        links[path] = Link(known.acked, explicit=True)
    else:
        del links[path]
    return replace(subscription, links=links)


def wake(subscription: Subscription, trigger: str, tails: Tails, wake_id: str) -> Subscription:
    """The next wake, to be told about. A webhook's lease begins when it has answered."""
    return replace(
        subscription,
        generation=subscription.generation + 1,
        wake_id=wake_id,
        trigger=trigger,
        snapshot={path: tails.get(path, 0) for path in subscription.links},
        holder=None,
        lease_until_ms=None,
        attempts=0,
        next_attempt_ms=None,
    )


def recorded(subscription: Subscription) -> Subscription:
    """The wake stream has the wake: it waits for a worker, for as long as that takes."""
    return replace(subscription, attempts=0, next_attempt_ms=None)


def answered(subscription: Subscription, now_ms: int) -> Subscription:
    """Somebody took the wake, and will call back: the webhook by its answer, or whoever asks for more time."""
    lease_until_ms = now_ms + subscription.config.lease_ttl_ms
    return replace(subscription, attempts=0, next_attempt_ms=None, lease_until_ms=lease_until_ms)


def refused(subscription: Subscription, now_ms: int, jitter: float) -> Subscription:
    """The webhook did not take it, or there is no wake stream to record it in. `jitter` is random in [0, 1)."""
    delay = min(RETRY_MS_MIN * 2 ** min(subscription.attempts, 10), RETRY_MS_MAX)
    delay = round(delay * (1 + JITTER * (2 * jitter - 1)))
    return replace(
        subscription, attempts=subscription.attempts + 1, next_attempt_ms=now_ms + delay, lease_until_ms=None
    )


def claimed(subscription: Subscription, worker: str, now_ms: int) -> Subscription:
    return answered(replace(subscription, holder=worker), now_ms)


def check_wake(
    subscription: Subscription, *, token_generation: int, generation: int | None, wake_id: str | None
) -> None:
    """Raises Fenced."""
    if (
        wake_id is None
        or wake_id != subscription.wake_id
        or not (token_generation == generation == subscription.generation)
    ):
        raise Fenced("This wake is over.")


def acknowledged(subscription: Subscription, acks: Sequence[StreamPosition], tails: Tails) -> Subscription:
    """All of the acknowledgements, or InvalidOffset: an unknown stream, a step back, or beyond the end. Of a stream that went
    away after the wake told of it there is nothing left to acknowledge, and that is no reason to refuse the others."""
    links = dict(subscription.links)
    for ack in acks:
        if ack.stream not in tails and ack.stream in subscription.snapshot:
            continue
        known = links.get(ack.stream)
        if known is None:
            raise InvalidOffset(f"Not a stream of this subscription: {ack.stream[:200]}")
        if ack.position < known.acked:
            raise InvalidOffset(f"More than that of {ack.stream[:200]} was acknowledged already.")
        if ack.position > tails.get(ack.stream, 0):
            raise InvalidOffset(f"{ack.stream[:200]} does not reach that far.")
        links[ack.stream] = replace(known, acked=ack.position)
    return replace(subscription, links=links)


def acknowledged_snapshot(subscription: Subscription) -> Subscription:
    """All that the wake told of."""
    links = {
        path: replace(known, acked=max(known.acked, subscription.snapshot.get(path, 0)))
        for path, known in subscription.links.items()
    }
    return replace(subscription, links=links)


def finished(subscription: Subscription) -> Subscription:
    """Nobody is at it any more."""
    return replace(
        subscription,
        wake_id=None,
        trigger="",
        snapshot={},
        holder=None,
        lease_until_ms=None,
        attempts=0,
        next_attempt_ms=None,
    )
