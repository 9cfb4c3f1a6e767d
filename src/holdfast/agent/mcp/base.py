"""What the light half of this package (`servers`, `tools`) and the half that imports the `mcp` library (`session`) share.

The library takes about a second to import, so `session` is imported when the first server is connected.
"""

from typing import Any, Final

import msgspec

CONNECT_SECONDS: Final = 30.0
"""How long a server may take to answer for the first time, and then each call, unless its `timeout` says otherwise."""

MESSAGE_BYTES_MAX: Final = 8 << 20
"""The longest message that is taken from a server."""

TOOLS_MAX: Final = 1000
"""Tools, prompts and resources beyond that are left out."""


class ListedTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as its server describes it. `read_only`: the server says that it changes nothing."""

    name: str
    description: str
    parameters: dict[str, Any]
    read_only: bool = False


class PromptArgument(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    required: bool = False


class ListedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str | None = None
    arguments: tuple[PromptArgument, ...] = ()


class ListedResource(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    uri: str
    description: str | None = None
    mime_type: str | None = None


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """`data` is base64."""

    mime: str
    data: str
    filename: str | None = None


class CallOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool answered. `is_error`: it could not do it, and `text` says why."""

    text: str
    is_error: bool = False
    attachments: tuple[Attachment, ...] = ()
    structured: Any = None


class ServerFailed(Exception):
    """A server could not be reached, or does not do what it was asked. The message is for people, without secrets."""


class SessionLost(ServerFailed):
    """The connection broke. `may_have_run`: the server had the request, so what became of it is not known."""

    def __init__(self, message: str, *, may_have_run: bool = True) -> None:
        super().__init__(message)
        self.may_have_run = may_have_run


class NeedsAuth(Exception):
    """The server wants to know who the user is, and nobody has said so yet."""


class NeedsClientRegistration(Exception):
    """The server does not register clients by itself. The message says what it answered."""
