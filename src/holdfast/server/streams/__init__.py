"""The Durable Streams face: `/v1/stream/…`, raw ASGI."""

from typing import Final

from holdfast.protocols.durable_streams.paths import ROOT
from holdfast.protocols.durable_streams.subscriptions import key_id
from holdfast.server.streams.control import Wording
from holdfast.server.streams.face import StreamFace, StreamOptions

STREAM_ROOT: Final = ROOT.encode()

__all__ = ["STREAM_ROOT", "StreamFace", "StreamOptions", "Wording", "key_id"]
