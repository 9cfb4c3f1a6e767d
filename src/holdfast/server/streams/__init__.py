"""The Durable Streams face: `/v1/stream/…`, raw ASGI."""

from typing import Final

from holdfast.protocols.durable_streams.paths import ROOT
from holdfast.protocols.durable_streams.responses import SECURITY
from holdfast.protocols.durable_streams.subscriptions import key_id
from holdfast.server.streams.control import Wording
from holdfast.server.streams.face import StreamFace, StreamOptions

STREAM_ROOT: Final = ROOT.encode()
STREAM_SECURITY: Final = tuple(SECURITY)
"""Headers of every answer below it, also of those that are given before the face is asked."""

__all__ = ["STREAM_ROOT", "STREAM_SECURITY", "StreamFace", "StreamOptions", "Wording", "key_id"]
