"""`/v1/chat…`: start an answer, find the one under way, stop it, load the history. The chunks themselves are a durable stream
(`chat_streams`), and its address is what these routes answer.

Rules
 1. A chat is a session. `ses_x` is that session, any other id `x` is session `ses_x`; it begins with its first message.
 2. The session has the conversation. Of the messages that a client sends along, only the last is looked at.
 3. The same message id again is the same prompt. To ask again (`regenerate`), or to ask something else in its place (a
    message that is sent with its `messageId`), takes back what stood from there on, and records a prompt with an id that is
    made of the old one's, `msg_x~…`: so it may be repeated as well.
"""

import contextlib
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec
from litestar.params import JSONBody, PathParameter, SkipValidation

from holdfast.core.codec import to_json
from holdfast.core.errors import Invalid, NotFound, Unavailable
from holdfast.core.messages import MessageModel
from holdfast.core.wire import Wire
from holdfast.protocols.durable_streams.links import with_link
from holdfast.server.aisdk.ui_messages import to_ui_messages
from holdfast.server.bodies import JsonBody, raw_answer
from holdfast.server.errors import NamedError
from holdfast.service.instances import Instance
from holdfast.service.messages import Prompt
from holdfast.service.operations import Revert
from holdfast.service.prompt_parts import FileInput, PartInput, TextInput
from holdfast.service.services import Services
from holdfast.service.session_streams import chat_path
from holdfast.service.sessions import NewSession

BODY_BYTES_MAX: Final = 64 << 20
"""Clients send the whole conversation along."""

LINK_SECONDS: Final = 12 * 3600
"""An answer may wait over night for a permission. Who comes later asks for the place of the answer again, with the password."""

_STREAM_ROOT: Final = "/v1/stream/"
_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,100}", re.ASCII)
_PAGE: Final = 64

ChatId = Annotated[str, PathParameter(name="chatID", description="What `useChat` has as `id`.")]


class UiPart(Wire):
    """A part of a UI message, as far as prompts have it."""

    type: str
    text: str | None = None
    url: str | None = None
    media_type: str | None = None
    filename: str | None = None


class UiMessage(Wire):
    id: str
    role: Literal["system", "user", "assistant"]
    parts: tuple[UiPart, ...]


class ChatRequest(Wire):
    """What the transport sends; `agent`, `model`, `variant` and `system` as `body` of the transport or of `sendMessage`."""

    id: str
    messages: tuple[UiMessage, ...]
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: str | None = msgspec.field(name="messageId", default=None)
    agent: str | None = None
    model: MessageModel | None = None
    variant: str | None = None
    system: str | None = None


class StreamPointer(Wire):
    """Where the chunks are, relative to the server; also in `Location`. With a password, a link that is good for a while."""

    stream_url: str = msgspec.field(name="streamUrl")


def chat_routes(services: Services) -> Sequence[HTTPRouteHandler]:
    chats = _Chats(services)

    @post(
        "/v1/chat",
        summary="AI SDK: send a message, and learn where its answer streams",
        dto=JsonBody[ChatRequest],
        status_code=201,
        request_max_body_size=BODY_BYTES_MAX,
        responses={
            201: ResponseSpec(
                StreamPointer, generate_examples=False, description="Recorded; the answer streams there."
            ),
            400: ResponseSpec(NamedError, generate_examples=False, description="The message says what is wrong."),
            409: ResponseSpec(NamedError, generate_examples=False, description="The chat was deleted, or is busy."),
        },
    )
    async def post_chat(
        instance: NamedDependency[SkipValidation[Instance]], data: JSONBody[ChatRequest]
    ) -> Response[bytes]:
        session_id, prompt_id = await chats.send(instance, data)
        return await chats.pointer(session_id, prompt_id, status=201)

    @get(
        "/v1/chat/{chatID:str}/stream",
        summary="AI SDK: where the answer under way streams",
        status_code=200,
        responses={
            200: ResponseSpec(StreamPointer, generate_examples=False, description="It streams there."),
            204: ResponseSpec(None, generate_examples=False, description="Nothing is under way."),
            400: ResponseSpec(NamedError, generate_examples=False, description="Not an id."),
        },
    )
    async def get_chat_stream(chat_id: ChatId) -> Response[bytes]:
        session_id = _session_id(chat_id)
        try:
            prompt_id = await services.turns.current(session_id)
        except NotFound:  # a page that is just opened resumes before its chat's first message
            prompt_id = None
        return await chats.pointer(session_id, prompt_id, status=200) if prompt_id else Response(b"", status_code=204)

    @get(
        "/v1/chat/{chatID:str}/messages",
        summary="AI SDK: the messages of a chat",
        status_code=200,
        responses={
            200: ResponseSpec(list[UiMessage], generate_examples=False, description="As `useChat` takes them."),
            400: ResponseSpec(NamedError, generate_examples=False, description="Not an id."),
        },
    )
    async def get_chat_messages(chat_id: ChatId) -> Response[bytes]:
        return raw_answer(to_json(await chats.history(_session_id(chat_id))))

    @post(
        "/v1/chat/{chatID:str}/stop",
        summary="AI SDK: stop the answer under way, keeping what was said",
        status_code=204,
        responses={
            204: ResponseSpec(None, generate_examples=False, description="Stopped, or nothing was under way."),
            400: ResponseSpec(NamedError, generate_examples=False, description="Not an id."),
            404: ResponseSpec(NamedError, generate_examples=False, description="There is no such chat."),
        },
    )
    async def stop_chat(chat_id: ChatId) -> None:
        await services.turns.abort(_session_id(chat_id))

    routes: list[Any] = [post_chat, get_chat_stream, get_chat_messages, stop_chat]
    return routes


class _Chats:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def send(self, instance: Instance, request: ChatRequest) -> tuple[str, str]:
        """(session, prompt) whose answer is to be streamed."""
        session_id = _session_id(request.id)
        prompt = _prompt(request)
        if prompt.agent is not None:
            instance.agent(prompt.agent)
        if prompt.model is not None:
            instance.check_model(prompt.model.provider_id, prompt.model.model_id)
        message_id = _message_id(request.messages[-1].id)
        replaces = request.trigger == "regenerate-message" or request.message_id is not None
        known = await self._recorded(session_id, message_id) if replaces else None
        if known is None:
            if not await self._exists(session_id):
                await self._services.sessions.create(instance, NewSession(id=session_id))
            return session_id, await self._ask(session_id, prompt, message_id)
        if request.trigger == "regenerate-message" and request.message_id is None:
            if await self._services.turns.is_pending(session_id, known):
                return session_id, known  # asked for already, and still being answered
            variant = known
        else:
            variant = f"{request.trigger} {request.message_id} {to_json(prompt.parts).decode()}"
        new_id = f"{message_id.partition('~')[0]}~{sha256(variant.encode()).hexdigest()[:16]}"
        if new_id != known:
            await self._services.operations.revert(session_id, Revert(message_id=known))
        return session_id, await self._ask(session_id, prompt, new_id)

    async def history(self, session_id: str) -> list[dict[str, Any]]:
        """Empty before the first message."""
        try:
            current = await self._services.turns.current(session_id)
            messages = await self._services.messages.history(session_id)
        except NotFound:
            return []
        asked = [request for request in await self._services.requests.permissions() if request.session_id == session_id]
        return to_ui_messages(messages, asked, current=current)

    async def pointer(self, session_id: str, prompt_id: str, *, status: int) -> Response[bytes]:
        """Relative, so it holds behind a proxy too. Where reading takes a password it is a link, because the transport reads
        without one; if there is no key to make links with, whoever stands in between has to add the password."""
        path = chat_path(session_id, prompt_id)
        url = _STREAM_ROOT + quote(path, safe="/~")
        if self._services.stream_links.needed:
            with contextlib.suppress(Unavailable):
                url = with_link(url, (await self._services.stream_links.make(path, seconds=LINK_SECONDS)).token)
        headers = {"Location": url, "Cache-Control": "no-store", "Access-Control-Expose-Headers": "Location"}
        return raw_answer(to_json(StreamPointer(stream_url=url)), status=status, headers=headers)

    async def _ask(self, session_id: str, prompt: Prompt, message_id: str) -> str:
        await self._services.messages.prompt_async(session_id, msgspec.structs.replace(prompt, message_id=message_id))
        return message_id

    async def _exists(self, session_id: str) -> bool:
        try:
            await self._services.sessions.get(session_id)
        except NotFound:
            return False
        return True

    async def _recorded(self, session_id: str, message_id: str) -> str | None:
        """The prompt that stands for a client's message now: itself, or what was asked in its place since."""
        base = message_id.partition("~")[0]
        before: int | None = None
        while await self._exists(session_id):
            page = await self._services.messages.page(session_id, limit=_PAGE, before=before)
            for message in reversed(page.messages):
                if message.id.partition("~")[0] == base:
                    return message.id
            if not page.more or not page.messages:
                break
            before = page.messages[0].version
        return None


def _session_id(chat_id: str) -> str:
    return _prefixed("ses_", chat_id, "id")


def _message_id(ui_id: str) -> str:
    return _prefixed("msg_", ui_id, "messages")


def _prefixed(prefix: str, id: str, field: str) -> str:
    if not _ID.fullmatch(id):
        raise Invalid(
            f"Not an id: {id[:64]!r}", field=field, hint="An id is 1 to 100 letters, digits, and - . _ ~ characters."
        )
    return id if id.startswith(prefix) else prefix + id


def _prompt(request: ChatRequest) -> Prompt:
    """What the last message asks. Raises Invalid."""
    if not request.messages:
        raise Invalid("There is no message to answer.", field="messages")
    last = request.messages[-1]
    if last.role != "user":
        raise Invalid(
            "The last message must be the user's.",
            field="messages",
            hint="Tools run on the server: their results are not sent. Answer a request for permission with "
            "POST /permission/{requestID}/reply.",
        )
    if request.message_id is not None:
        _message_id(request.message_id)
    parts = [part for place, ui_part in enumerate(last.parts) for part in _parts(ui_part, place)]
    if not parts:
        raise Invalid("The message has neither text nor files.", field="messages")
    return Prompt(
        agent=request.agent, model=request.model, variant=request.variant, system=request.system, parts=tuple(parts)
    )


def _parts(part: UiPart, place: int) -> list[PartInput]:
    match part:
        case UiPart(type="text", text=str(text)):
            return [TextInput(text=text)]
        case UiPart(type="file", url=str(url), media_type=str(mime)):
            return [FileInput(url=url, mime=mime, filename=part.filename)]
        case UiPart(type=kind) if kind.startswith("data-"):
            return []  # for the page, not for the model, as in the AI SDK
        case _:
            raise Invalid(f"A part of type {part.type[:64]!r} cannot be asked.", field=f"messages[-1].parts[{place}]")
