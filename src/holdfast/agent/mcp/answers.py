"""What servers say, taken for what it is: a schema that may be none, a result of any kind."""

from typing import Any, Final

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from mcp import types
from mcp.types import (
    AudioContent,
    BlobResourceContents,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from holdfast.agent.mcp.base import Attachment, CallOutcome

_SCHEMA_BYTES_MAX: Final = 256 * 1024


def problem_of(schema: Any) -> str | None:
    """Why this cannot be the schema of a tool's input."""
    if schema.get("type", "object") != "object":
        return "its input is no object"
    try:
        if len(msgspec.json.encode(schema)) > _SCHEMA_BYTES_MAX:
            return "its schema is too long"
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"its schema is not one: {error.message[:200]}"
    except (RecursionError, TypeError, ValueError) as error:
        return f"its schema cannot be read ({type(error).__name__})"
    return None


def outcome_of(result: types.CallToolResult) -> CallOutcome:
    texts: list[str] = []
    attachments: list[Attachment] = []
    for item in result.content:
        match item:
            case TextContent(text=text):
                texts.append(text)
            case ImageContent(data=data, mime_type=mime) | AudioContent(data=data, mime_type=mime):
                attachments.append(Attachment(mime=mime, data=data))
            case EmbeddedResource(resource=BlobResourceContents(blob=data, mime_type=mime, uri=uri)):
                attachments.append(Attachment(mime=mime or "application/octet-stream", data=data, filename=str(uri)))
            case EmbeddedResource(resource=TextResourceContents(text=text)):
                texts.append(text)
            case ResourceLink(uri=uri, name=name):
                texts.append(f"{name}: {uri}")
            case _:
                texts.append(f"[{getattr(item, 'type', 'something')} that cannot be shown]")
    if not texts and not attachments and result.structured_content is not None:
        texts.append(msgspec.json.format(msgspec.json.encode(result.structured_content), indent=2).decode())
    return CallOutcome(
        text="\n\n".join(texts),
        is_error=bool(result.is_error),
        attachments=tuple(attachments),
        structured=result.structured_content,
    )
