"""Which content of a file the LLM has seen: a stamp (a hash) that is recorded with the call that read or wrote the file.

It is in the metadata of that part, under `seen`: `{"/absolute/path": stamp}`. An edit goes ahead only on a content with a
stamp of this session. Because it is recorded, that holds after a restart too, and in a fork.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Any, Final, cast

from holdfast.core.messages import Part, TextPart, ToolPart, ToolPending

SEEN: Final = "seen"
"""Key in the metadata of a part."""

FILE_BYTES_MAX: Final = 10 * 1024 * 1024
"""Larger files have no stamp, and tools do not edit them."""

_BLOCK_BYTES: Final = 1024 * 1024


def stamp_of(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def stamp_of_file(descriptor: int) -> str | None:
    """Of the whole file, wherever the descriptor stands; None if it is too large."""
    digest = hashlib.blake2b(digest_size=16)
    at = 0
    while data := os.pread(descriptor, _BLOCK_BYTES, at):
        at += len(data)
        if at > FILE_BYTES_MAX:
            return None
        digest.update(data)
    return digest.hexdigest()


def seen_in(part: Part) -> Mapping[str, str]:
    """What was recorded with a part."""
    match part:
        case ToolPart(state=state) if not isinstance(state, ToolPending):
            metadata = state.metadata
        case TextPart():
            metadata = part.metadata
        case _:
            metadata = None
    seen: Any = (metadata or {}).get(SEEN)
    return cast(dict[str, str], seen) if isinstance(seen, dict) else {}
