"""Reads: a page (catch-up), a page once there is one (long-poll), or every page as it comes (SSE).

Rules
 1. A reader is a cursor. What is sent was encoded once for all readers at the same place, or is encoded piece by piece; a reader
    that does not take its bytes holds up only itself, keeps no copy of them, and finds the rest where it left off.
 2. An SSE response has exactly one control event after every data event. It ends by itself after a while, so that caches
    can join readers again; clients resume.
"""

import asyncio
import gzip
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from holdfast.core.clock import Clock
from holdfast.core.errors import HoldfastError
from holdfast.core.json_runs import to_array
from holdfast.core.offsets import Offset, to_offset, to_place
from holdfast.core.streams import Page, Stream, Watch, media_type
from holdfast.protocols.durable_streams import responses
from holdfast.protocols.durable_streams.cursors import next_cursor
from holdfast.protocols.durable_streams.frames import control_event, data_event, data_event_in_pieces, is_text
from holdfast.protocols.durable_streams.requests import BEGINNING, NOW, ReadRequest
from holdfast.protocols.durable_streams.responses import HeaderList, Response
from holdfast.server.asgi import PIECE_BYTES_MAX, Receive, Send, disconnected
from holdfast.service.streams import StreamService

SSE_BYTES_MAX: Final = 256 << 10
"""Of one data event, so that a reader who begins far back gets something soon. A larger record is one event."""

GZIP_BYTES_MIN: Final = 1024
LARGE_BYTES: Final = 64 << 10
"""More data than this is encoded for each reader as he takes it, so that one who does not costs no more than a piece of it."""

_FRAMES_MAX: Final = 256


class Reads:
    def __init__(
        self,
        streams: StreamService,
        *,
        clock: Clock,
        pick: Callable[[int], int],
        page_bytes_max: int,
        long_poll_seconds: float,
        sse_seconds: float,
        keep_alive_seconds: float,
    ) -> None:
        self._streams = streams
        self._clock = clock
        self._pick = pick
        self._page_bytes_max = page_bytes_max
        self._long_poll_seconds = long_poll_seconds
        self._sse_seconds = sse_seconds
        self._keep_alive_seconds = keep_alive_seconds
        self._frames = _Frames()

    async def read(self, path: str, request: ReadRequest, receive: Receive, send: Send) -> Response | None:
        """None: the answer was sent already."""
        if request.live == "sse":
            await self._sse(path, request, receive, send)
            return None
        if request.live == "long-poll":
            return await self._long_poll(path, request, receive, send)
        if request.offset == NOW:
            stream = await self._streams.touch(path)
            headers = [*_place(stream, stream.tail), responses.UP_TO_DATE, responses.NO_STORE]
            if stream.closed:
                headers.append(responses.CLOSED)
            return Response(200, headers, b"[]" if stream.is_json else b"")
        page = await self._streams.read(path, after=_position(request.offset), bytes_max=self._page_bytes_max)
        return await self._page(page, request, send)

    async def _page(
        self, page: Page, request: ReadRequest, send: Send, more: HeaderList | None = None
    ) -> Response | None:
        stream = page.stream
        start, end = to_offset(page.after), to_offset(page.next)
        tag = responses.etag(stream.id, start, end, up_to_date=page.at_tail, closed=page.at_end)
        headers = [*_place(stream, page.next), (b"etag", tag.encode()), responses.PRIVATE, *(more or ())]
        if page.at_tail:
            headers.append(responses.UP_TO_DATE)
            if stream.closed:
                headers.append(responses.CLOSED)
        if request.if_none_match is not None and responses.etag_matches(request.if_none_match, tag):
            return Response(304, headers)
        if len(page.data) >= GZIP_BYTES_MIN:
            headers.append(responses.VARY_ENCODING)
            if request.gzip:
                headers.append(responses.GZIP)
                return Response(200, headers, await asyncio.to_thread(_pack, page))
            if len(page.data) > LARGE_BYTES:
                await _send_large(page, headers, send)
                return None
        return Response(200, headers, _body(page))

    # --- long-poll

    async def _long_poll(self, path: str, request: ReadRequest, receive: Receive, send: Send) -> Response | None:
        if request.offset == NOW:
            after = (await self._streams.touch(path)).tail
        else:
            after = _position(request.offset)
        page = await self._streams.read(path, after=after, bytes_max=self._page_bytes_max)
        if not page.data and not page.at_end:
            page = await self._wait(path, page, receive)
        cursor = (b"stream-cursor", next_cursor(request.cursor, self._clock.now_ms(), self._pick).encode())
        if page.data:
            return await self._page(page, request, send, [cursor])
        headers = [responses.next_offset(to_offset(page.next)), responses.UP_TO_DATE, responses.NO_STORE, cursor]
        if page.at_end:
            headers.append(responses.CLOSED)
        return Response(204, headers)

    async def _wait(self, path: str, page: Page, receive: Receive) -> Page:
        """The next page; the same one again when the time is up or the client has gone."""
        watch = await self._streams.watch(path, after=page.next)
        timer = asyncio.get_running_loop().call_later(self._long_poll_seconds, watch.interrupt)
        gone = _interrupt_when_gone(receive, watch)
        try:
            moved = await watch.next(bytes_max=self._page_bytes_max)
        finally:
            gone.cancel()
            timer.cancel()
            watch.close()
        if moved is None:
            await self._streams.head(path)  # raises, unless it is the server that goes
            return page
        return moved

    # --- SSE

    async def _sse(self, path: str, request: ReadRequest, receive: Receive, send: Send) -> None:
        if request.offset == NOW:
            after = (await self._streams.touch(path)).tail
        else:
            after = _position(request.offset)
        page: Page | None = await self._streams.read(path, after=after, bytes_max=SSE_BYTES_MAX)
        stream = page.stream
        text = is_text(media_type(stream.content_type))
        headers: HeaderList = [
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-cache, no-transform"),
            (b"x-accel-buffering", b"no"),
            *responses.SECURITY,
        ]
        if not text:
            headers.append(responses.BASE64)
        watch = await self._streams.watch(path, after=page.next)
        gone = _interrupt_when_gone(receive, watch)
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._sse_seconds
        pace = min(self._keep_alive_seconds, self._sse_seconds)
        timer = loop.call_later(pace, watch.interrupt)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            cursor_of = _Cursors(request.cursor, self._clock, self._pick)
            while page is not None and not gone.done():
                if len(page.data) > LARGE_BYTES:
                    for piece in _in_pieces(page, text):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                    frame = b""
                else:
                    frame = self._frames.data(page, text) if page.data else b""
                frame += control_event(
                    to_offset(page.next), cursor=cursor_of(), up_to_date=page.at_tail, closed=page.at_end
                )
                await send({"type": "http.response.body", "body": frame, "more_body": True})
                if page.at_end:
                    break
                if timer.when() <= loop.time():
                    if loop.time() >= ends:
                        break
                    timer = loop.call_later(min(pace, max(ends - loop.time(), 0)), watch.interrupt)
                try:
                    page = await watch.next(bytes_max=SSE_BYTES_MAX)
                except HoldfastError:
                    break  # gone, or given up by retention: who comes back is told so
                if page is not None and page.stream.id != stream.id:
                    break  # the next life of the path, which may hold something else
            await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            timer.cancel()
            watch.close()


class _Cursors:
    """The cursor of one response: greater than what the client has, and no smaller than the present interval."""

    def __init__(self, client: str | None, clock: Clock, pick: Callable[[int], int]) -> None:
        self._clock = clock
        self._first = next_cursor(client, clock.now_ms(), pick)
        self._pick = pick

    def __call__(self) -> str:
        current = next_cursor(None, self._clock.now_ms(), self._pick)
        return max(self._first, current, key=int)


class _Frames:
    """The newest small data events, for all readers that are at the same place."""

    def __init__(self) -> None:
        self._frames: OrderedDict[tuple[str, int, int, int], bytes] = OrderedDict()

    def data(self, page: Page, text: bool) -> bytes:
        key = page.stream.path, page.stream.id, page.after, page.next
        frame = self._frames.get(key)
        if frame is None:
            frame = data_event(_body(page), text=text)
            self._frames[key] = frame
            if len(self._frames) > _FRAMES_MAX:
                self._frames.popitem(last=False)
        return frame


def _body(page: Page) -> bytes:
    return to_array(page.data) if page.stream.is_json else page.data


def _pack(page: Page) -> bytes:
    return gzip.compress(_body(page), 1, mtime=0)


async def _send_large(page: Page, headers: HeaderList, send: Send) -> None:
    """Without a copy of the whole."""
    data, is_json = page.data, page.stream.is_json
    end = len(data) - 1 if is_json else len(data)
    length = (b"content-length", b"%d" % (end + 2 if is_json else end))
    await send({"type": "http.response.start", "status": 200, "headers": [*headers, *responses.SECURITY, length]})
    for at in range(0, end, PIECE_BYTES_MAX):
        piece = data[at : min(at + PIECE_BYTES_MAX, end)]
        is_last = at + PIECE_BYTES_MAX >= end
        if is_json:
            piece = (b"" if at else b"[") + piece + (b"]" if is_last else b"")
        await send({"type": "http.response.body", "body": piece, "more_body": not is_last})


def _in_pieces(page: Page, text: bool) -> Iterator[bytes]:
    if page.stream.is_json:
        return data_event_in_pieces(
            page.data, text=True, size=LARGE_BYTES, start=b"[", end=b"]", until=len(page.data) - 1
        )
    return data_event_in_pieces(page.data, text=text, size=LARGE_BYTES)


def _interrupt_when_gone(receive: Receive, watch: Watch) -> asyncio.Task[None]:
    gone = asyncio.ensure_future(disconnected(receive))
    gone.add_done_callback(lambda _: watch.interrupt())
    return gone


def _position(offset: str) -> int:
    return 0 if offset == BEGINNING else to_place(Offset(offset))


def _place(stream: Stream, position: int) -> HeaderList:
    return [(b"content-type", stream.content_type.encode("latin-1")), responses.next_offset(to_offset(position))]
