"""Permission rules and pending permission requests (shapes only; who may do what is decided in `agent.permissions`)."""

from typing import Any, Literal

from holdfast.core.wire import Wire

PermissionAction = Literal["allow", "deny", "ask"]
PermissionReply = Literal["once", "always", "reject"]


class PermissionRule(Wire):
    """`permission` names the tool or capability, `pattern` what it is used on; both may hold `*` and `?`."""

    permission: str
    pattern: str
    action: PermissionAction


class ToolReference(Wire):
    """The tool call that asks."""

    message_id: str
    call_id: str


class PermissionRequest(Wire):
    id: str
    session_id: str
    permission: str
    patterns: tuple[str, ...]
    metadata: dict[str, Any]
    always: tuple[str, ...]
    tool: ToolReference | None = None
