"""Subscriptions at work: who is woken when, by whom a wake is acknowledged, what is tried again.

Owns the present state of every subscription and the timers that go with it; the rules are in `core.subscriptions`, the words
on the wire come from the face (`Wording`).

Rules
 1. A change of a subscription is saved before anybody is told of it, and changes of one follow each other.
 2. After a restart every wake that was under way goes on: a delivery that had not been answered is made again, a lease runs
    out when it would have.
 3. A stream that a pattern means is linked when it appears, at its beginning; one that was there when the subscription was
    made, at its end. A subscription's own wake stream is none of its streams: each wake would call for the next.
 4. A wake that cannot be told, since the webhook does not answer or the wake stream is not there (yet), is tried again; the
    subscription counts as failed meanwhile. A wake stream that appears gets what is under way and unclaimed at once.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol

import structlog

from holdfast.core import subscriptions as rules
from holdfast.core.clock import Clock
from holdfast.core.errors import Conflict, HoldfastError, Invalid, StorageError, Unavailable
from holdfast.core.json_runs import to_run
from holdfast.core.stream_rules import Change, DropStream, PutStream
from holdfast.core.streams import JSON, Append, ByteStreamStore, Producer
from holdfast.core.subscriptions import (
    AlreadyClaimed,
    NoPendingWork,
    StreamPosition,
    Subscription,
    SubscriptionConfig,
    SubscriptionExists,
    SubscriptionNotFound,
    SubscriptionStore,
)
from holdfast.service.session_streams import is_session_path
from holdfast.service.signing import Signer
from holdfast.service.webhooks import WebhookAnswer, WebhookFailed, Webhooks

log = structlog.get_logger()

SUBSCRIPTIONS_MAX: Final = 10_000


class Wording(Protocol):
    """The protocol's words for what is sent without being asked for."""

    def compile_glob(self, pattern: str) -> Callable[[str], bool]: ...

    def notification(self, subscription: Subscription, tails: rules.Tails, token: str) -> bytes: ...

    def wake_record(self, subscription: Subscription, now_ms: int) -> bytes: ...

    def signed_text(self, body: bytes, now_seconds: int) -> bytes: ...

    def signature_header(self, signature: bytes, kid: str, now_seconds: int) -> str: ...

    def is_done(self, body: bytes) -> bool: ...


class Claim(NamedTuple):
    subscription: Subscription
    token: str


class SubscriptionService:
    """`new_wake_id` gives a fresh id; `jitter` is random in [0, 1)."""

    def __init__(
        self,
        store: SubscriptionStore,
        streams: ByteStreamStore,
        *,
        signer: Signer,
        webhooks: Webhooks,
        wording: Wording,
        clock: Clock,
        new_wake_id: Callable[[], str],
        jitter: Callable[[], float],
    ) -> None:
        self._store = store
        self._streams = streams
        self.signer = signer
        self._webhooks = webhooks
        self._wording = wording
        self._clock = clock
        self._new_wake_id = new_wake_id
        self._jitter = jitter
        self._active: dict[str, _Active] = {}
        self._linked: dict[str, set[str]] = {}
        self._known: set[str] = set()
        self._newest_ms = 0
        self.tails: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    # --- life

    async def start(self) -> None:
        await self.signer.load()
        found = await self._store.subscriptions()
        if found:
            await self._load_tails()
        for subscription in found:
            active = self._add(subscription)
            self._run(self._resume(active))

    async def stop(self) -> None:
        self._stopped = True
        for active in self._active.values():
            active.set_timer(None)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._webhooks.close()

    async def _load_tails(self) -> None:
        self.tails = dict(await self._streams.paths())
        self._known = set(self.tails)

    async def _resume(self, active: "_Active") -> None:
        async with active.lock:
            subscription = active.subscription
            new = [path for path in self.tails if path not in subscription.links and active.means(path)]
            if new:
                await self._save(active, rules.link(subscription, new, {}, explicit=False))
            subscription = active.subscription
            if subscription.wake_id is None:
                await self._wake_if_pending(active)
            elif subscription.lease_until_ms is not None or subscription.next_attempt_ms is not None:
                self._set_timer(active)
            else:
                self._tell(active)

    # --- what users do

    async def create(self, subscription_id: str, config: SubscriptionConfig, base: str) -> tuple[Subscription, bool]:
        """The subscription, and whether it is new. Raises SubscriptionExists, WebhookUrlRejected, Invalid; Unavailable if
        there is no key to sign with."""
        known = self._active.get(subscription_id)
        if known is None:
            if config.webhook_url is not None:
                await self._webhooks.check(config.webhook_url)
            if config.pattern is not None:
                self._wording.compile_glob(config.pattern)
            if config.wake_stream is not None and is_session_path(config.wake_stream):
                raise Invalid("A wake stream must be one that can be written.", field="wake_stream")
            _check_streams(config, config.streams)
            if len(self._active) >= SUBSCRIPTIONS_MAX:
                raise Invalid(f"There are {SUBSCRIPTIONS_MAX} subscriptions already.")
            await self.signer.ready(self._clock.now_ms())
            if not self._active:
                await self._load_tails()
        known = self._active.get(subscription_id)
        if known is not None:
            async with known.lock:  # whoever makes it has it until it is saved
                if not self._is_there(known):
                    raise Conflict("That subscription was deleted just now.", hint="Ask again.")
                if known.subscription.config != config:
                    raise SubscriptionExists("There is another subscription with that id.")
                return known.subscription, False
        self._newest_ms = max(self._clock.now_ms(), self._newest_ms + 1)  # two of one name differ in it
        subscription = Subscription(id=subscription_id, config=config, created_ms=self._newest_ms, base=base, links={})
        subscription = rules.link(subscription, config.streams, self.tails, explicit=True)
        active = self._add(subscription)
        meant = [path for path in self.tails if active.means(path)]
        try:
            async with active.lock:
                await self._save(active, rules.link(active.subscription, meant, self.tails, explicit=False))
                await self._wake_if_pending(active)  # what was appended while it was saved
        except BaseException:
            self._drop(active)
            raise
        return active.subscription, True

    def get(self, subscription_id: str) -> Subscription:
        return self._find(subscription_id).subscription

    async def delete(self, subscription_id: str) -> None:
        active = self._active.get(subscription_id)
        if active is not None:
            async with active.lock:
                if self._is_there(active):
                    self._drop(active)
                    await self._store.remove(subscription_id)

    async def add_streams(self, subscription_id: str, paths: Sequence[str]) -> None:
        active = self._find(subscription_id)
        _check_streams(active.subscription.config, paths)
        async with active.lock:
            await self._save(active, rules.link(active.subscription, paths, self.tails, explicit=True))
            await self._wake_if_pending(active)

    async def remove_stream(self, subscription_id: str, path: str) -> None:
        active = self._find(subscription_id)
        async with active.lock:
            await self._save(active, rules.unlink(active.subscription, path))

    async def claim(self, subscription_id: str, worker: str) -> Claim:
        """Raises AlreadyClaimed, NoPendingWork; Unavailable if there is no key to sign with."""
        active = self._find(subscription_id)
        _check_pull(active.subscription)
        async with active.lock:
            subscription = active.subscription
            if subscription.holder is not None:
                raise AlreadyClaimed(subscription.holder, subscription.generation)
            trigger = rules.pending(subscription, self.tails)
            if trigger is None:
                # What it told of is gone: it must not be in the way of the next one.
                if subscription.wake_id is not None:
                    await self._save(active, rules.finished(subscription))
                    self._set_timer(active)
                    await self._wake_if_pending(active)
                raise NoPendingWork("There is nothing to tell.")
            if subscription.wake_id is None:
                subscription = rules.wake(subscription, trigger, self.tails, self._new_wake_id())
            now_ms = self._clock.now_ms()
            # First, since it may not be to be had: a claim that nobody can act on would be in the way of the next one.
            token = await self.signer.token(subscription_id, subscription.generation, now_ms)
            await self._save(active, rules.claimed(subscription, worker, now_ms))
            self._set_timer(active)
            return Claim(active.subscription, token)

    async def acknowledge(
        self,
        subscription_id: str,
        token: str,
        *,
        wake_id: str | None,
        generation: int | None,
        acks: Sequence[StreamPosition],
        done: bool,
        pull: bool,
    ) -> bool:
        """Of a webhook's callback, or of a worker (`pull`). True if the next wake is under way already.

        Raises TokenInvalid, Fenced, InvalidOffset."""
        active = self._find(subscription_id)
        if pull:
            _check_pull(active.subscription)
        async with active.lock:
            await self._check(active, token, wake_id, generation)
            subscription = rules.acknowledged(active.subscription, acks, self.tails)
            if not done:
                await self._save(active, rules.answered(subscription, self._clock.now_ms()))
                self._set_timer(active)
                return False
            await self._save(active, rules.finished(subscription))
            return await self._wake_if_pending(active)

    async def release(self, subscription_id: str, token: str, *, wake_id: str | None, generation: int | None) -> None:
        active = self._find(subscription_id)
        _check_pull(active.subscription)
        async with active.lock:
            await self._check(active, token, wake_id, generation)
            await self._save(active, rules.finished(active.subscription))
            await self._wake_if_pending(active)

    async def _check(self, active: "_Active", token: str, wake_id: str | None, generation: int | None) -> None:
        of = await self.signer.token_generation(token, active.subscription.id)
        rules.check_wake(active.subscription, token_generation=of, generation=generation, wake_id=wake_id)

    def _find(self, subscription_id: str) -> "_Active":
        active = self._active.get(subscription_id)
        if active is None:
            raise SubscriptionNotFound(subscription_id)
        return active

    # --- what streams do

    def heard(self, changes: Sequence[Change]) -> None:
        """Changes of streams that have become durable. On the event loop, for every commit: quick if nobody subscribed."""
        if not self._active:
            return
        for change in changes:
            if isinstance(change, DropStream) or (isinstance(change, PutStream) and change.stream.deleted):
                self._lost(change.stream.path)
            elif isinstance(change, PutStream):
                self._grown(change.stream.path, change.stream.tail)

    def _grown(self, path: str, tail: int) -> None:
        is_new = path not in self._known
        if is_new:
            self._known.add(path)
            for active in self._active.values():
                if active.means(path):
                    self._run(self._link_new(active, path))
                if active.subscription.config.wake_stream == path and rules.is_unclaimed(active.subscription):
                    self._tell(active)
        if self.tails.get(path, 0) != tail:
            self.tails[path] = tail
            for subscription_id in self._linked.get(path, ()):
                active = self._active[subscription_id]
                if rules.is_idle(active.subscription):
                    self._run(self._wake(active))

    def _lost(self, path: str) -> None:
        self._known.discard(path)
        self.tails.pop(path, None)
        for subscription_id in self._linked.get(path, ()):
            self._run(self._forget(self._active[subscription_id], path))

    async def _link_new(self, active: "_Active", path: str) -> None:
        async with active.lock:
            if path not in active.subscription.links:
                await self._save(active, rules.link(active.subscription, [path], {}, explicit=False))
            await self._wake_if_pending(active)

    async def _forget(self, active: "_Active", path: str) -> None:
        async with active.lock:
            if path not in self._known:
                await self._save(active, rules.forget(active.subscription, path))

    async def _wake(self, active: "_Active") -> None:
        async with active.lock:
            await self._wake_if_pending(active)

    # --- wakes, with the lock held

    async def _wake_if_pending(self, active: "_Active") -> bool:
        if not rules.is_idle(active.subscription) or not self._is_there(active):
            return False
        trigger = rules.pending(active.subscription, self.tails)
        if trigger is None:
            return False
        await self._save(active, rules.wake(active.subscription, trigger, self.tails, self._new_wake_id()))
        self._tell(active)
        return True

    def _tell(self, active: "_Active") -> None:
        webhook = active.subscription.config.type == "webhook"
        self._run(self._deliver(active) if webhook else self._record_wake(active))

    def _set_timer(self, active: "_Active") -> None:
        subscription = active.subscription
        due_ms = subscription.next_attempt_ms or subscription.lease_until_ms
        if due_ms is None or self._stopped:
            active.set_timer(None)
        else:
            delay = max(due_ms - self._clock.now_ms(), 0) / 1000
            active.set_timer(asyncio.get_running_loop().call_later(delay, lambda: self._run(self._on_time(active))))

    async def _on_time(self, active: "_Active") -> None:
        async with active.lock:
            subscription = active.subscription
            now_ms = self._clock.now_ms()
            if subscription.next_attempt_ms is not None and subscription.next_attempt_ms <= now_ms:
                self._tell(active)
            elif subscription.lease_until_ms is not None and subscription.lease_until_ms <= now_ms:
                await self._save(active, rules.finished(subscription))
                await self._wake_if_pending(active)
            else:
                self._set_timer(active)

    async def _save(self, active: "_Active", subscription: Subscription) -> None:
        if not self._is_there(active):
            raise SubscriptionNotFound(subscription.id)
        await self._store.save(subscription)
        self._unlinked(active.subscription, active.subscription.links.keys() - subscription.links.keys())
        for path in subscription.links:
            self._linked.setdefault(path, set()).add(subscription.id)
        active.subscription = subscription

    def _unlinked(self, subscription: Subscription, paths: Iterable[str]) -> None:
        for path in paths:
            linked = self._linked.get(path)
            if linked is not None:
                linked.discard(subscription.id)
                if not linked:
                    del self._linked[path]

    # --- telling, without the lock while others are waited for

    async def _deliver(self, active: "_Active") -> None:
        told = active.subscription
        url = told.config.webhook_url
        if url is None or told.wake_id is None:
            return
        answer = None
        try:
            answer = await self._post(told, url)
        except (WebhookFailed, Unavailable) as error:
            log.warning("webhook.failed", subscription=told.id, attempts=told.attempts + 1, reason=str(error))
        async with active.lock:
            subscription = active.subscription
            if subscription.wake_id != told.wake_id or not self._is_there(active):
                return  # it was finished by a callback meanwhile, or is gone
            now_ms = self._clock.now_ms()
            if answer is None:
                await self._save(active, rules.refused(subscription, now_ms, self._jitter()))
                self._set_timer(active)
            elif self._wording.is_done(answer.body):
                await self._save(active, rules.finished(rules.acknowledged_snapshot(subscription)))
                await self._wake_if_pending(active)
            else:
                await self._save(active, rules.answered(subscription, now_ms))
                self._set_timer(active)

    async def _post(self, told: Subscription, url: str) -> WebhookAnswer:
        now_ms = self._clock.now_ms()
        token = await self.signer.token(told.id, told.generation, now_ms)
        body = self._wording.notification(told, self.tails, token)
        kid, signature = await self.signer.sign(self._wording.signed_text(body, now_ms // 1000), now_ms)
        headers = {
            "content-type": "application/json",
            "webhook-signature": self._wording.signature_header(signature, kid, now_ms // 1000),
        }
        return await self._webhooks.post(url, body, headers)

    async def _record_wake(self, active: "_Active") -> None:
        """Recorded once for each generation, however often it is tried: the subscription is an idempotent producer. (Not the
        one of that name before it, whose generations were others.)"""
        told = active.subscription
        path = told.config.wake_stream
        if path is None or not rules.is_unclaimed(told):
            return
        run = to_run(self._wording.wake_record(told, self._clock.now_ms()))
        producer = Producer(f"__ds/{told.id}/{told.created_ms}", told.generation, 0)
        is_recorded = True
        try:
            await self._streams.append(Append(path=path, content_type=JSON, data=run, producer=producer))
        except StorageError:
            raise  # the server stops, and begins with this
        except HoldfastError as error:
            is_recorded = False
            log.warning("wake.not_recorded", subscription=told.id, attempts=told.attempts + 1, reason=error.message)
        async with active.lock:
            subscription = active.subscription
            if subscription.wake_id != told.wake_id or not rules.is_unclaimed(subscription):
                return  # somebody claimed it without having been told
            if not is_recorded:
                await self._save(active, rules.refused(subscription, self._clock.now_ms(), self._jitter()))
            elif subscription.attempts:
                await self._save(active, rules.recorded(subscription))
            self._set_timer(active)

    def _add(self, subscription: Subscription) -> "_Active":
        pattern = subscription.config.pattern
        active = _Active(subscription, self._wording.compile_glob(pattern) if pattern is not None else None)
        self._active[subscription.id] = active
        for path in subscription.links:
            self._linked.setdefault(path, set()).add(subscription.id)
        return active

    def _is_there(self, active: "_Active") -> bool:
        """Not deleted meanwhile, or deleted and made again."""
        return self._active.get(active.subscription.id) is active

    def _drop(self, active: "_Active") -> None:
        active.set_timer(None)
        self._active.pop(active.subscription.id, None)
        self._unlinked(active.subscription, active.subscription.links)

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        if self._stopped:
            coroutine.close()
            return
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ran)

    def _ran(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if (
            not task.cancelled()
            and (error := task.exception()) is not None
            and not isinstance(error, SubscriptionNotFound)
        ):
            log.error("subscription.failed", exc_info=error)


class _Active:
    """A subscription in memory: its state, what its pattern means, the one timer it has."""

    def __init__(self, subscription: Subscription, glob: Callable[[str], bool] | None) -> None:
        self.subscription = subscription
        self.lock = asyncio.Lock()
        self._glob = glob
        self._timer: asyncio.TimerHandle | None = None

    def means(self, path: str) -> bool:
        return self._glob is not None and path != self.subscription.config.wake_stream and self._glob(path)

    def set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer


def _check_streams(config: SubscriptionConfig, paths: Sequence[str]) -> None:
    if config.wake_stream in paths:
        raise Invalid("A wake stream is none of the streams that it tells of.", field="streams")
    if any(is_session_path(path) for path in paths):
        raise Invalid("The streams of sessions wake nobody.", field="streams", hint="Follow them with live=sse.")


def _check_pull(subscription: Subscription) -> None:
    if subscription.config.type != "pull-wake":
        raise Invalid("Only a pull-wake subscription is claimed.")
