"""Port: a provider turns a request into a stream of chunks from an LLM. One adapter is one file and one test.

A provider streams; it does not retry, does not run tools, does not record. When it fails it raises `ProviderError`,
which says whether another try may help; what it streamed before that was delivered and is kept by the runner.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal, Protocol

import msgspec

from holdfast.core.errors import HoldfastError
from holdfast.core.messages import (
    APIError,
    APIErrorData,
    ContentFilterError,
    ContextOverflowError,
    ContextOverflowErrorData,
    ErrorMessage,
    MessageError,
    MessageOutputLengthError,
    NoData,
    ProviderAuthError,
    ProviderAuthErrorData,
)
from holdfast.core.session import Tokens

# --- what the LLM is asked --------------------------------------------------------------------------------------


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool as the LLM sees it. `parameters` is a JSON schema of an object."""

    name: str
    description: str
    parameters: dict[str, Any]


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A file for the LLM: `url` is a `data:` or `https:` URL."""

    mime: str
    url: str
    filename: str | None = None


class UserTurn(msgspec.Struct, frozen=True, kw_only=True, tag="user"):
    text: str
    attachments: tuple[Attachment, ...] = ()


ProviderMetadata = dict[str, Any]
"""What a provider wants to get back with a piece of an answer (a signature, an id of its own), under the provider's name.
Recorded with the part, and of use to nobody but the adapter that made it."""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, tag="call"):
    call_id: str
    name: str
    input: dict[str, Any]
    metadata: ProviderMetadata | None = None


class TextBlock(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    text: str
    metadata: ProviderMetadata | None = None


class ReasoningBlock(msgspec.Struct, frozen=True, kw_only=True, tag="reasoning"):
    text: str
    metadata: ProviderMetadata | None = None


class AssistantTurn(msgspec.Struct, frozen=True, kw_only=True, tag="assistant"):
    """`blocks` are the same once more, in the order in which the LLM said them; empty where only the text is known."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    blocks: tuple[TextBlock | ReasoningBlock | ToolCall, ...] = ()


class ToolOutput(msgspec.Struct, frozen=True, kw_only=True, tag="tool"):
    call_id: str
    name: str
    output: str
    is_error: bool = False
    attachments: tuple[Attachment, ...] = ()


ConversationItem = UserTurn | AssistantTurn | ToolOutput


ToolChoice = Literal["auto", "required", "none"]
"""Whether the LLM may, must or must not call a tool. A wish: not every LLM can be told so."""


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one step of the LLM is given. Every `ToolCall` in `conversation` is followed by its `ToolOutput`."""

    model_id: str
    system: tuple[str, ...] = ()
    conversation: tuple[ConversationItem, ...]
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = "auto"
    output_tokens_max: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    options: dict[str, Any] = {}
    headers: dict[str, str] = {}


# --- what it answers --------------------------------------------------------------------------------------------

FinishReason = Literal["stop", "tool-calls", "length", "content-filter", "unknown"]


class TextChunk(msgspec.Struct, frozen=True):
    text: str


class ReasoningChunk(msgspec.Struct, frozen=True):
    """`block` numbers the pieces of reasoning that the provider keeps apart; a chunk with another number begins another
    part, even without a text. None: the provider does not say."""

    text: str
    block: int | None = None


class MetadataChunk(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider wants back with something it said: the call `call_id`, or the reasoning `block`, or else the text
    that came last. A later one replaces an earlier one."""

    metadata: ProviderMetadata
    call_id: str | None = None
    block: int | None = None


class ToolCallChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a tool call. The first chunk of a `call_id` brings the name; `arguments` are pieces of its JSON text.
    Calls may be interleaved."""

    call_id: str
    name: str | None = None
    arguments: str = ""


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """The last chunk. A stream that ends without one was cut: adapters raise ProviderError then."""

    reason: FinishReason
    tokens: Tokens
    cost: float = 0.0


Chunk = TextChunk | ReasoningChunk | ToolCallChunk | MetadataChunk | Finished


class Provider(Protocol):
    def stream(self, request: ModelRequest) -> AsyncGenerator[Sequence[Chunk], None]:
        """Chunks in order, in batches as they arrive on the wire (one network read, one batch): never held back, never
        merged. Raises ProviderError. Closing the generator (`aclose`) stops the LLM and frees the connection."""
        ...


# --- how it fails -----------------------------------------------------------------------------------------------

ProviderFailure = Literal["api", "auth", "context_overflow", "content_filter", "output_length"]


class ProviderError(HoldfastError):
    """`retry_after_ms` is how long the provider asked us to wait, when it did. `body` and `headers` are what it answered,
    without credentials. `status_code` is None when there was no answer (connect error, cut stream, silence)."""

    code = "provider"

    def __init__(
        self,
        message: str,
        *,
        failure: ProviderFailure = "api",
        provider_id: str = "",
        status_code: int | None = None,
        retryable: bool = False,
        retry_after_ms: int | None = None,
        headers: dict[str, str] | None = None,
        body: str | None = None,
    ) -> None:
        super().__init__(message)
        self.failure: ProviderFailure = failure
        self.provider_id = provider_id
        self.status_code = status_code
        self.is_retryable = retryable
        self.retry_after_ms = retry_after_ms
        self.headers = headers
        self.body = body

    def as_api_error(self) -> APIError:
        return APIError(
            data=APIErrorData(
                message=self.message,
                status_code=self.status_code,
                is_retryable=self.is_retryable,
                response_headers=self.headers,
                response_body=self.body,
            )
        )

    def as_message_error(self) -> MessageError:
        """The error in the shape in which a message carries it."""
        match self.failure:
            case "auth":
                return ProviderAuthError(data=ProviderAuthErrorData(provider_id=self.provider_id, message=self.message))
            case "context_overflow":
                return ContextOverflowError(
                    data=ContextOverflowErrorData(message=self.message, response_body=self.body)
                )
            case "content_filter":
                return ContentFilterError(data=ErrorMessage(message=self.message))
            case "output_length":
                return MessageOutputLengthError(data=NoData())
            case "api":
                return self.as_api_error()
