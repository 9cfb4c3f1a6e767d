"""What a user can do with the messages of a session: ask, and read.

Rules of a prompt
 1. All of it is checked before anything is recorded, then all of it is recorded in one append: the user message, its
    parts, and the request for an answer.
 2. The same message id again is the same prompt: nothing is added, and the answer is what the first call was answered,
    or will be. It does not matter whether the server restarted in between.
 3. Whoever waits for an answer may go away; the turn goes on.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from holdfast.agent.tools.stamps import seen_in
from holdfast.core.clock import Clock
from holdfast.core.codec import to_json
from holdfast.core.errors import Conflict, Invalid, NotFound
from holdfast.core.events import (
    Event,
    MessageRemoved,
    MessageUpdated,
    PartRemoved,
    PartUpdated,
    SessionUpdated,
    TurnRequested,
)
from holdfast.core.ids import Prefix, check_id
from holdfast.core.messages import (
    MessageModel,
    OutputFormat,
    OutputFormatJsonSchema,
    Part,
    PatchPart,
    UserMessage,
    UserTime,
    WithParts,
)
from holdfast.core.permissions import PermissionRule
from holdfast.core.reducer import Get
from holdfast.core.session import SessionModel, SessionRevert, touched
from holdfast.core.state import Key
from holdfast.core.store import Appended, MessagePage, RawMessage, SessionStore
from holdfast.core.wire import Wire
from holdfast.service.forms import check_form
from holdfast.service.instances import Instance, Instances
from holdfast.service.past_turns import past_turns
from holdfast.service.prompt_parts import AgentInput, FileInput, PartInput, SubtaskInput, spelled_out
from holdfast.service.sessions import check_session_id, session_of
from holdfast.service.turns import TurnService

_PARTS_MAX: Final = 500
_DIRECTORIES_MAX: Final = 10_000
PAGE_MESSAGES: Final = 64
"""So many messages at a time of a conversation that is gone through: some milliseconds, in which nobody else is served."""

# --- what a client sends ----------------------------------------------------------------------------------------


class Prompt(Wire):
    """`no_reply`: record the message, but do not answer it. `tools`, if it names any, becomes the rules of the session
    (`permission`), in place of those it had."""

    message_id: str | None = None
    model: MessageModel | None = None
    agent: str | None = None
    no_reply: bool = False
    tools: dict[str, bool] | None = None
    format: OutputFormat | None = None
    system: str | None = None
    variant: str | None = None
    parts: tuple[PartInput, ...]


# --- the service ------------------------------------------------------------------------------------------------


class _Recorded(msgspec.Struct, frozen=True):
    """`message` is None if the prompt was there before."""

    id: str
    message: WithParts | None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A place in a conversation, and what stands after it, oldest first: `parts` of its message, `messages` behind that, by id,
    and the patches of all of them."""

    message_id: str
    part_id: str | None
    parts: Sequence[Part] = ()
    messages: Sequence[str]
    patches: Sequence[PatchPart]


class MessageService:
    def __init__(
        self,
        store: SessionStore,
        *,
        clock: Clock,
        new_id: Callable[[Prefix], str],
        instances: Instances,
        turns: TurnService,
        attached: Callable[[Instance, Sequence[str]], None],
    ) -> None:
        """`attached` is told which files a prompt that was recorded shows the LLM; it must not wait."""
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._instances = instances
        self._turns = turns
        self._attached = attached
        self._directories: dict[str, str] = {}

    async def prompt(self, session_id: str, prompt: Prompt) -> WithParts | RawMessage:
        """Record a prompt and wait until it is answered: the last message of its turn. With `no_reply`, the user message.

        Raises Invalid, NotFound, Conflict before anything is recorded; Unavailable when the server stops meanwhile."""
        if prompt.no_reply:
            recorded = await self._record(session_id, prompt)
            if recorded.message is not None:
                return recorded.message
            return await self.answer(session_id, recorded.id)
        async with self._turns.watch(check_session_id(session_id)) as watched:
            recorded = await self._record(session_id, prompt)
            if recorded.message is not None or await self._turns.is_pending(session_id, recorded.id):
                await self._turns.ended(session_id, recorded.id, watched)
        return await self.answer(session_id, recorded.id)

    async def prompt_async(self, session_id: str, prompt: Prompt) -> None:
        """Record a prompt; its turn shows in the events."""
        await self._record(session_id, prompt)
        if not prompt.no_reply:
            self._turns.wake(session_id)

    async def page(self, session_id: str, *, limit: int | None = None, before: int | None = None) -> MessagePage:
        """The newest messages before a session version, oldest first. Raises NotFound."""
        return await self._store.message_page(check_session_id(session_id), limit=limit, before=before)

    async def history(self, session_id: str) -> tuple[WithParts, ...]:
        """All messages, oldest first. Raises NotFound."""
        return await self._store.history(check_session_id(session_id))

    async def get(self, session_id: str, message_id: str) -> WithParts:
        return await self._store.message(check_session_id(session_id), check_id("msg", message_id, "messageID"))

    # --- recording ---------------------------------------------------------------------------------------------

    async def _record(self, session_id: str, prompt: Prompt) -> _Recorded:
        instance = await self._instance(check_session_id(session_id))
        given = prompt.message_id
        id = check_id("msg", given, "messageID") if given is not None else self._new_id("msg")
        _check(prompt, instance)
        parts = await spelled_out(prompt.parts, session_id=session_id, message_id=id, new_id=self._new_id)
        now = self._clock.now_ms()
        made: list[WithParts] = []

        def decide(get: Get) -> Sequence[Event]:
            known = get(Key("message", id))
            if known is not None:
                if not isinstance(known, UserMessage):
                    raise Conflict(f"Message {id} is not a prompt.")
                return []
            session = session_of(get, session_id)
            agent = instance.agent_for(prompt.agent, session.agent)
            model = prompt.model or instance.model_for(agent, session.model)
            if prompt.variant is not None:
                model = replace(model, variant=prompt.variant)
            message = WithParts(
                info=UserMessage(
                    id=id,
                    session_id=session_id,
                    time=UserTime(created=now),
                    format=prompt.format,
                    agent=agent.name,
                    model=model,
                    system=prompt.system,
                    tools=prompt.tools,
                ),
                parts=parts,
            )
            made[:] = [message]
            used = SessionModel(id=model.model_id, provider_id=model.provider_id, variant=model.variant)
            updated = replace(touched(session, now), agent=agent.name, model=used, revert=None)
            if prompt.tools:
                updated = replace(updated, permission=_rules_of(prompt.tools))
            return [
                SessionUpdated(session_id=session_id, info=updated),
                MessageUpdated(session_id=session_id, info=message.info),
                *(PartUpdated(session_id=session_id, part=part, time=now) for part in message.parts),
                *([] if prompt.no_reply else [TurnRequested(session_id=session_id, message_id=id)]),
            ]

        key = f"prompt:{id}" if given is not None else None
        appended = await self.append_prompt(session_id, decide, key=key)
        is_new = appended.recorded > 0 and not appended.duplicate
        if is_new and any(isinstance(part, FileInput) for part in prompt.parts):
            self._attached(instance, [path for part in parts for path in seen_in(part)])
        return _Recorded(id, made[0] if is_new else None)

    async def _instance(self, session_id: str) -> Instance:
        directory = self._directories.get(session_id)
        if directory is None:
            directory = (await self._store.session(session_id)).directory
            if len(self._directories) >= _DIRECTORIES_MAX:
                self._directories.clear()
            self._directories[session_id] = directory
        return await self._instances.open(directory)

    async def append_prompt(
        self, session_id: str, decide: Callable[[Get], Sequence[Event]], *, key: str | None
    ) -> Appended:
        """Append what `decide` says a prompt records. It makes a revert that waits final: everything after its place is removed
        before."""
        mark: SessionRevert | None = None
        taken_back: Sequence[Event] = ()

        def decided(get: Get) -> Sequence[Event]:
            events = decide(get)
            if events and session_of(get, session_id).revert != mark:
                raise _OtherMark(session_id)
            return [*taken_back, *events] if events else events

        while True:
            try:
                return await self._store.append(session_id, decided, key=key)
            except _OtherMark:  # rare, so looked for only when the transaction found it
                mark = (await self._store.session(session_id)).revert
                taken_back = await self._taken_back(session_id, mark) if mark is not None else ()

    async def _taken_back(self, session_id: str, mark: SessionRevert) -> list[Event]:
        try:
            place = await self.place(session_id, mark.message_id, mark.part_id)
        except NotFound:
            return []
        return [
            *(PartRemoved(session_id=session_id, message_id=part.message_id, part_id=part.id) for part in place.parts),
            *(MessageRemoved(session_id=session_id, message_id=id) for id in place.messages),
        ]

    async def place(self, session_id: str, message_id: str, part_id: str | None) -> Place:
        """A message goes with everything after it; so does one whose first part is meant. Raises NotFound. Looks from the
        newest backwards, a page at a time: what is taken back is mostly new, and other requests wait for no long session."""
        behind: list[str] = []
        patches: list[PatchPart] = []
        before: int | None = None
        while True:
            page = await self._store.message_page(session_id, limit=PAGE_MESSAGES, before=before)
            for message in reversed(page.messages):
                parts: Sequence[Part] = ()
                is_whole = True
                if message.id == message_id and part_id is not None:
                    parts = decoded(message).parts
                    ids = [part.id for part in parts]
                    if part_id not in ids:
                        raise NotFound("Part", part_id)
                    parts = parts[ids.index(part_id) :]
                    is_whole = ids[0] == part_id
                if not is_whole:
                    patches += [part for part in reversed(parts) if isinstance(part, PatchPart)]
                    return _place(message_id, part_id, parts, behind, patches)
                behind.append(message.id)
                patches += [_patch.decode(part) for part in reversed(message.parts) if _is_patch(part)]
                if message.id == message_id:
                    return _place(message_id, None, (), behind, patches)
            if not page.more or not page.messages:
                raise NotFound("Message", message_id)
            before = page.messages[0].version

    # --- answering ---------------------------------------------------------------------------------------------

    async def answer(self, session_id: str, message_id: str) -> RawMessage:
        """The last message of the turn that answers this one; this one itself if none does. Looks from the newest backwards,
        because it is nearly always there."""
        found: list[RawMessage] = []
        limit = 1
        while True:
            before = found[0].version if found else None
            page = await self._store.message_page(session_id, limit=limit, before=before)
            found = [*page.messages, *found]
            if found and _parent.decode(found[-1].info).parent_id == message_id:
                return found[-1]
            known = {message.id: message for message in found}
            if message_id in known and (found[0].id != message_id or not page.more):
                turn = past_turns([decoded(message) for message in found]).get(message_id)
                return known[turn.steps[-1].info.id if turn is not None and turn.steps else message_id]
            if not page.more or not page.messages:
                raise NotFound("Message", message_id)
            limit = min(limit * 8, 512)


class _OtherMark(Conflict):
    """A revert waits to be made final, or none does any more."""


class _Parent(Wire):
    parent_id: str | None = None


class _Kind(msgspec.Struct):
    type: str


_parent = msgspec.json.Decoder(_Parent)
_message = msgspec.json.Decoder(WithParts)
_kind = msgspec.json.Decoder(_Kind)
_patch = msgspec.json.Decoder(PatchPart)


def _is_patch(part: bytes) -> bool:
    return b'"patch"' in part and _kind.decode(part).type == "patch"


def _place(
    message_id: str, part_id: str | None, parts: Sequence[Part], behind: list[str], patches: list[PatchPart]
) -> Place:
    """Of lists with the newest first."""
    return Place(message_id=message_id, part_id=part_id, parts=parts, messages=behind[::-1], patches=patches[::-1])


def raw_json(message: RawMessage) -> bytes:
    """`{"info":…,"parts":[…]}` of the stored bytes."""
    return b'{"info":%b,"parts":[%b]}' % (message.info, b",".join(message.parts))


def decoded(message: RawMessage) -> WithParts:
    return _message.decode(raw_json(message))


def message_json(message: WithParts | RawMessage) -> bytes:
    return raw_json(message) if isinstance(message, RawMessage) else to_json(message)


def _rules_of(tools: dict[str, bool]) -> tuple[PermissionRule, ...]:
    return tuple(
        PermissionRule(permission=name, pattern="*", action="allow" if wanted else "deny")
        for name, wanted in tools.items()
    )


def _check(prompt: Prompt, instance: Instance) -> None:
    if not prompt.parts:
        raise Invalid("A message needs at least one part.", field="parts")
    if len(prompt.parts) > _PARTS_MAX:
        raise Invalid(f"A message has at most {_PARTS_MAX} parts.", field="parts")
    if prompt.agent is not None:
        instance.agent(prompt.agent)
    if prompt.model is not None:
        instance.check_model(prompt.model.provider_id, prompt.model.model_id)
    for part in prompt.parts:
        if isinstance(part, AgentInput):
            instance.agent(part.name)
        elif isinstance(part, SubtaskInput):
            instance.agent(part.agent)
            if part.model is not None:
                instance.check_model(part.model.provider_id, part.model.model_id)
    if isinstance(prompt.format, OutputFormatJsonSchema):
        check_form(prompt.format)
    ids = [check_id("prt", part.id, f"parts[{place}].id") for place, part in enumerate(prompt.parts) if part.id]
    if len(set(ids)) < len(ids):
        raise Invalid("Two parts have the same id.", field="parts")
