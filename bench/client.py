"""The client that measures: the same plain one for both servers, over sockets that stay open, so that it costs little.

Threads, not asyncio: a reader that blocks in `recv` wakes as soon as bytes are there, and stamps them at once.
"""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

TIMEOUT = 120.0


class Server:
    """HTTP to one server; each thread has its own connection, which stays open. Without Nagle's algorithm, or the head and
    the body of a request would wait for each other."""

    def __init__(self, url: str) -> None:
        self.address = urlsplit(url)
        self._local = threading.local()

    def connect(self) -> http.client.HTTPConnection:
        assert self.address.hostname
        connection = http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=TIMEOUT)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        """The body of the answer. Raises AssertionError if it is no 2xx. A connection that the server closed meanwhile
        is opened again, once."""
        sent = None if body is None else json.dumps(body)
        headers = {} if body is None else {"content-type": "application/json"}
        for is_last in (False, True):
            connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = self.connect()
            try:
                connection.request(method, path, sent, headers)
                response = connection.getresponse()
                answer = response.read()
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                connection.close()
                self._local.connection = None
                if is_last:
                    raise
                continue
            assert 200 <= response.status < 300, f"{method} {path}: {response.status} {answer[:500]!r}"
            return answer
        raise AssertionError("unreachable")

    def get(self, path: str) -> Any:
        return json.loads(self.request("GET", path))

    def post(self, path: str, body: Any = None) -> Any:
        return json.loads(self.request("POST", path, body))

    def new_session(self, title: str = "bench") -> str:
        return self.post("/session", {"title": title})["id"]

    def prompt(self, session_id: str, text: str) -> Any:
        return self.post(f"/session/{session_id}/message", {"parts": [{"type": "text", "text": text}]})


class Event(NamedTuple):
    """`time` is when the bytes arrived, `offset` the `id:` line if there was one, `data` the JSON."""

    time: float
    offset: str | None
    data: bytes

    @property
    def is_delta(self) -> bool:
        return b'"message.part.delta"' in self.data

    @property
    def delta(self) -> str:
        return json.loads(self.data)["properties"]["delta"]

    def ends(self, session_id: str) -> bool:
        return b'"session.idle"' in self.data and session_id.encode() in self.data


class Subscription:
    """Reads `/event` in a thread from entering until leaving. `after`: resume after that offset."""

    def __init__(self, server: Server, *, after: str | None = None) -> None:
        self.events: list[Event] = []
        self._connection = server.connect()
        headers = {"accept": "text/event-stream"} | ({"last-event-id": after} if after else {})
        self._connection.request("GET", "/event", headers=headers)
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait(lambda events: len(events) > 0)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def wait(self, condition: Callable[[list[Event]], bool]) -> None:
        """Until the condition holds for the events so far; looked at after each read."""
        with self._changed:
            held = self._changed.wait_for(lambda: condition(self.events) or self._ended, TIMEOUT)
        if not (held and condition(self.events)):
            raise AssertionError(f"not seen among {len(self.events)} events")

    def wait_for_end(self, session_id: str) -> Event:
        looked_at = 0
        found: list[Event] = []

        def ended(events: list[Event]) -> bool:
            nonlocal looked_at
            found.extend(event for event in events[looked_at:] if event.ends(session_id))
            looked_at = len(events)
            return bool(found)

        self.wait(ended)
        return found[0]

    def wait_for_deltas(self, count: int) -> list[Event]:
        self.wait(lambda events: sum(event.is_delta for event in events) >= count)
        return self.deltas()

    def deltas(self) -> list[Event]:
        return [event for event in list(self.events) if event.is_delta]

    def _read(self) -> None:
        rest = b""
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            response = self._connection.getresponse()
            while data := response.read1(1 << 18):
                now = time.time()
                *frames, rest = (rest + data).split(b"\n\n")
                events = [_event(now, frame) for frame in frames]
                with self._changed:
                    self.events.extend(event for event in events if event)
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def _event(now: float, frame: bytes) -> Event | None:
    offset, data = None, None
    for line in frame.split(b"\n"):
        if line.startswith(b"data:"):
            data = line[5:].strip()
        elif line.startswith(b"id:"):
            offset = line[3:].strip().decode()
    return Event(now, offset, data) if data is not None else None
