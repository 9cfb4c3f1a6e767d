"""Files for an LLM, as every adapter needs them: what is in a `data:` URL, and words in place of what cannot be sent. Pure."""

import base64
import binascii
from urllib.parse import unquote_to_bytes

from holdfast.agent.providers.base import Attachment


def data_of(url: str) -> bytes | None:
    """What a `data:` URL holds (RFC 2397); None for any other, or a broken one."""
    scheme, _, rest = url.partition(":")
    head, comma, data = rest.partition(",")
    if scheme.lower() != "data" or not comma:
        return None
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(data)
    try:
        return base64.b64decode(unquote_to_bytes(data), validate=False)
    except binascii.Error:
        return None


def as_text(attachment: Attachment) -> str:
    """The file in words: its content if it is text, else a remark that this model cannot take it."""
    name = attachment.filename or f"file of type {attachment.mime}"
    mime = attachment.mime.lower()
    data = data_of(attachment.url)
    if (mime.startswith("text/") or mime == "application/json") and data is not None:
        return f"Content of {name}:\n{data.decode('utf-8', 'replace')}"
    return f"({name} is attached, but this model cannot take {attachment.mime}. Tell the user.)"
