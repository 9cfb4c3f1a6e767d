"""The Durable Streams face: `/v1/stream/…`, raw ASGI."""

from holdfast.server.streams.control import Wording
from holdfast.server.streams.face import StreamFace, StreamOptions

__all__ = ["StreamFace", "StreamOptions", "Wording"]
