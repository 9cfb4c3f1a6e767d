"""The tools of MCP servers as the LLM sees them: `<server>_<tool>`, asked for under that name like any other tool."""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import structlog

from holdfast.agent.mcp.base import Attachment, CallOutcome, ListedTool, ServerFailed
from holdfast.agent.mcp.servers import McpServer
from holdfast.agent.permissions import Ask
from holdfast.agent.tools.base import ForeignTool, ToolContext, ToolFailure, ToolResult
from holdfast.agent.tools.read import attachment_type
from holdfast.agent.tools.results import result
from holdfast.core.messages import FilePart, ToolPart

NAME_LENGTH_MAX: Final = 64
"""What providers of LLMs take."""

ATTACHMENT_CHARACTERS_MAX: Final = 8 * 1024 * 1024
STRUCTURED_BYTES_MAX: Final = 64 * 1024
"""Clients get structured results up to this size beside the text; the LLM gets the text."""

_MIME: Final = re.compile(r"[a-z]+/[a-zA-Z0-9.+-]+")
_TOLD_BY_CONTENT: Final = frozenset(("image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf"))
_SAMPLE_BYTES: Final = 16
_UNFIT: Final = re.compile(r"[^a-zA-Z0-9_-]")

log = structlog.get_logger()


def fitting(name: str) -> str:
    """The name as a part of an LLM's word for something."""
    return _UNFIT.sub("_", name)


def tool_id(server: str, tool: str) -> str:
    """`github_create_issue`. One that is too long is cut, with a mark that tells it from others with the same beginning."""
    id = f"{fitting(server)}_{fitting(tool)}"
    if len(id) <= NAME_LENGTH_MAX:
        return id
    mark = hashlib.sha256(f"{server}\0{tool}".encode()).hexdigest()[:8]
    return f"{id[: NAME_LENGTH_MAX - len(mark) - 1]}_{mark}"


def tools_of(servers: Iterable[McpServer], taken: Iterable[str]) -> list["McpTool"]:
    """What these servers offer now. Of two with one name the first counts: a name that somebody was allowed to call must not
    come to mean another tool."""
    known = set(taken)
    found: list[McpTool] = []
    for server in servers:
        for tool in server.tools:
            id = tool_id(server.name, tool.name)
            if id in known:
                log.warning("mcp.name_taken", server=server.name, tool=tool.name[:100], id=id)
                continue
            known.add(id)
            found.append(McpTool(id, server, tool))
    return found


class McpTool(ForeignTool):
    def __init__(self, id: str, server: McpServer, tool: ListedTool) -> None:
        self.id = id
        self.description = tool.description
        self.parameters = tool.parameters
        self.repeatable = tool.read_only
        self._server = server
        self._name = tool.name

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        return [Ask(permission=self.id, patterns=("*",), always=("*",), metadata={})]

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        try:
            outcome = await self._server.call(self._name, input)
        except ServerFailed as error:
            raise ToolFailure(str(error)) from None
        shown = await _shown(outcome, context)
        if outcome.is_error:
            raise ToolFailure(shown.output or "The tool says that it failed, and not why.", metadata=shown.metadata)
        return shown

    async def clean_up(self, part: ToolPart) -> None:
        """Nothing is left: the server's programs died with us."""


async def _shown(outcome: CallOutcome, context: ToolContext) -> ToolResult:
    notes = [outcome.text] if outcome.text else []
    parts: list[FilePart] = []
    room = ATTACHMENT_CHARACTERS_MAX
    for number, attachment in enumerate(outcome.attachments, start=1):
        problem = _problem(attachment) or ("is too large" if len(attachment.data) > room else None)
        if problem is not None:
            notes.append(f"[An attachment of type {attachment.mime[:100]} {problem} and was left out.]")
            continue
        room -= len(attachment.data)
        parts.append(_file_part(attachment, context, number))
    metadata: dict[str, Any] = {}
    if outcome.structured is not None and len(msgspec.json.encode(outcome.structured)) <= STRUCTURED_BYTES_MAX:
        metadata["structuredContent"] = outcome.structured
    return await result(context, title="", output="\n\n".join(notes), metadata=metadata, attachments=tuple(parts))


def _problem(attachment: Attachment) -> str | None:
    """A provider that is shown nonsense refuses the whole conversation, for ever."""
    if not _MIME.fullmatch(attachment.mime):
        return "has no type"
    try:
        data = base64.b64decode(attachment.data, validate=True)
    except ValueError:
        return "cannot be read"
    if not data:
        return "is empty"
    is_other = attachment.mime in _TOLD_BY_CONTENT and attachment_type(data[:_SAMPLE_BYTES]) != attachment.mime
    return "is something else" if is_other else None


def _file_part(attachment: Attachment, context: ToolContext, number: int) -> FilePart:
    return FilePart(
        id=f"{context.part_id}-{number}",
        session_id=context.session_id,
        message_id=context.message_id,
        mime=attachment.mime,
        filename=attachment.filename,
        url=f"data:{attachment.mime};base64,{attachment.data}",
    )
