"""What a step has to know of the messages before it, read from the newest backwards: what it costs does not grow with the
session, only with what was said since the last summary.
"""

from collections.abc import AsyncIterator
from typing import Final

import msgspec

from holdfast.agent.providers.conversation import is_answer, used_tokens
from holdfast.core.messages import (
    AssistantMessage,
    CompactionPart,
    Message,
    Part,
    StepStartPart,
    UserMessage,
    WithParts,
)
from holdfast.core.store import RawMessage, SessionStore

_PAGE_FIRST: Final = 4
_PAGE_MAX: Final = 64
_SNAPSHOT: Final = b'"snapshot"'

_to_message: Final = msgspec.json.Decoder(Message).decode
_to_part: Final = msgspec.json.Decoder(Part).decode


async def backwards(store: SessionStore, session_id: str) -> AsyncIterator[WithParts]:
    """Every message of the session, the newest first."""
    before: int | None = None
    limit = _PAGE_FIRST
    while True:
        page = await store.message_page(session_id, limit=limit, before=before)
        for message in reversed(page.messages):
            yield decoded(message)
        if not page.more:
            return
        before = page.messages[0].version
        limit = min(2 * limit, _PAGE_MAX)


async def version_of(store: SessionStore, session_id: str, message_id: str) -> int:
    """The session version at which the message was added, looked for from the newest message on; 0 if it is not there."""
    before: int | None = None
    limit = _PAGE_FIRST
    while True:
        page = await store.message_page(session_id, limit=limit, before=before)
        for message in page.messages:
            if message.id == message_id:
                return message.version
        if not page.more:
            return 0
        before = page.messages[0].version
        limit = min(2 * limit, _PAGE_MAX)


async def since_summary(store: SessionStore, session_id: str, prompt_id: str) -> tuple[WithParts, ...]:
    """What the answer to this prompt is made of (`build_request`), oldest first: everything that was said or answered since the
    last summary that was there before the answer began; everything, if there is none."""
    found: list[WithParts] = []
    begun: dict[str, int] = {}  # prompt → where its first step is in `found`: the greater, the older
    answered: set[str] = set()
    seen: set[str] = set()
    summarised: str | None = None
    missing: set[str] = set()  # prompts that were answered after that summary, and asked before it: they had to wait
    async for message in backwards(store, session_id):
        id = message.info.id
        found.append(message)
        if isinstance(message.info, AssistantMessage):
            begun[message.info.parent_id] = len(found)
            if is_answer(message.info):
                answered.add(message.info.parent_id)
            continue
        seen.add(id)
        missing.discard(id)
        if summarised is None and id in answered and _asks_for_summary(message):
            summarised = id
            missing = {prompt_id, *begun} - seen
        if summarised is not None and not missing:
            if begun.get(prompt_id, 0) <= begun[summarised]:
                break
            summarised = None  # it was made after this prompt was answered
    return tuple(reversed(found))


async def tokens_in_use(store: SessionStore, session_id: str) -> int:
    """How long the conversation was for the LLM when it answered last (`used_tokens`)."""
    async for message in backwards(store, session_id):
        if isinstance(message.info, AssistantMessage) and is_answer(message.info):
            return used_tokens([message])
    return 0


async def last_step(store: SessionStore, session_id: str, prompt_id: str) -> WithParts | None:
    """The last message that answers this prompt."""
    async for message in backwards(store, session_id):
        if isinstance(message.info, AssistantMessage) and message.info.parent_id == prompt_id:
            return message
        if message.info.id == prompt_id:
            break
    return None


async def first_snapshot(store: SessionStore, session_id: str) -> str | None:
    """Of the files, in the first step that has one. Looked for from the oldest message on."""
    after, limit = 0, _PAGE_FIRST
    while True:
        page = await store.message_page(session_id, limit=limit, after=after)
        for part in (part for message in page.messages for part in message.parts if _SNAPSHOT in part):
            decoded = _to_part(part)
            if isinstance(decoded, StepStartPart) and decoded.snapshot:
                return decoded.snapshot
        if not page.more:
            return None
        after = page.messages[-1].version
        limit = min(2 * limit, _PAGE_MAX)


def _asks_for_summary(message: WithParts) -> bool:
    return isinstance(message.info, UserMessage) and any(isinstance(part, CompactionPart) for part in message.parts)


def decoded(message: RawMessage) -> WithParts:
    return WithParts(info=_to_message(message.info), parts=tuple(map(_to_part, message.parts)))
