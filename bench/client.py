"""The client that measures: the same plain one for both servers, over sockets that stay open, so that it costs little.

Threads, not asyncio: a reader that blocks in `recv` wakes as soon as bytes are there, and stamps them at once. Only where many
ask at once does one thread play them all (`seconds_for`).
"""

import contextlib
import http.client
import json
import re
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Self, cast
from urllib.parse import urlsplit

TIMEOUT = 120.0


class Server:
    """HTTP to one server; each thread has its own connection, which stays open."""

    def __init__(self, url: str) -> None:
        self.address = urlsplit(url)
        self._local = threading.local()

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        """The body of the answer. Raises AssertionError if it is no 2xx. A connection that the server closed meanwhile
        is opened again, once."""
        message = self._message(method, path, body)
        for is_last in (False, True):
            connection: _Connection | None = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = _Connection(self.address.hostname, self.address.port)
            try:
                status, answer = connection.exchange(message)
            except ConnectionError:
                connection.close()
                self._local.connection = None
                if is_last:
                    raise
                continue
            assert 200 <= status < 300, f"{method} {path}: {status} {answer[:500]!r}"
            return answer
        raise AssertionError("unreachable")

    def _message(self, method: str, path: str, body: Any) -> bytes:
        sent = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: {self.address.netloc}\r\ncontent-length: {len(sent)}\r\n"
        return head.encode() + (b"content-type: application/json\r\n\r\n" if sent else b"\r\n") + sent

    def seconds_for(self, requests: int, method: str, path: str, body: Any = None, *, clients: int) -> float:
        """Make the same request so often, by so many clients at once: each asks again as soon as it is answered. One thread
        with one selector plays all of them, so that they do not wait for each other's turn in the interpreter."""
        message = self._message(method, path, body)
        with contextlib.ExitStack() as closing, selectors.DefaultSelector() as selector:
            for _ in range(clients):
                connection = closing.enter_context(
                    contextlib.closing(_Connection(self.address.hostname, self.address.port))
                )
                selector.register(connection, selectors.EVENT_READ)
                connection.exchange(self._message("GET", "/global/health", None))
            began = time.perf_counter()
            for key in selector.get_map().values():
                cast(_Connection, key.fileobj).send(message)
            sent, answered = clients, 0
            while answered < requests:
                for key, _ in selector.select(TIMEOUT):
                    connection = cast(_Connection, key.fileobj)
                    answer = connection.receive()
                    if answer is None:
                        continue
                    assert 200 <= answer.status < 300, f"{method} {path}: {answer}"
                    answered += 1
                    if sent < requests:
                        connection.send(message)
                        sent += 1
            return time.perf_counter() - began

    def get(self, path: str) -> Any:
        return json.loads(self.request("GET", path))

    def post(self, path: str, body: Any = None) -> Any:
        return json.loads(self.request("POST", path, body))

    def new_session(self, title: str = "bench") -> str:
        return self.post("/session", {"title": title})["id"]

    def prompt(self, session_id: str, text: str) -> Any:
        return self.post(f"/session/{session_id}/message", {"parts": [{"type": "text", "text": text}]})


class _Connection:
    """As little of HTTP/1.1 as it takes: a request is one packet. (http.client sends head and body apart, and needs several
    times as long.)"""

    def __init__(self, host: str | None, port: int | None) -> None:
        assert host
        assert port
        self._socket = socket.create_connection((host, port), TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        self.fileno = self._socket.fileno

    def close(self) -> None:
        self._socket.close()

    def exchange(self, message: bytes) -> "_Answer":
        """Raises ConnectionError."""
        self.send(message)
        while (answer := self.receive()) is None:
            pass
        return answer

    def send(self, message: bytes) -> None:
        self._socket.sendall(message)

    def receive(self) -> "_Answer | None":
        """Wait for bytes. The answer, if that was all of it. Raises ConnectionError."""
        data = self._socket.recv(1 << 18)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self._rest += data
        found = _first_answer(self._rest)
        if found is None:
            return None
        answer, self._rest = found
        return answer


class _Answer(NamedTuple):
    status: int
    body: bytes


def _first_answer(data: bytes) -> tuple[_Answer, bytes] | None:
    """And what follows it."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, at = data[:end].lower(), end + 4
    status = int(head[9:12])
    if b"transfer-encoding: chunked" not in head:
        length = re.search(rb"\r\ncontent-length: *(\d+)", head)
        end = at + (int(length[1]) if length else 0)
        return (_Answer(status, data[at:end]), data[end:]) if len(data) >= end else None
    body = b""
    while (line_end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:line_end], 16)
        at = line_end + 2 + size + 2
        if len(data) < at:
            return None
        if not size:
            return _Answer(status, body), data[at:]
        body += data[line_end + 2 : at - 2]
    return None


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
        assert server.address.hostname
        self._connection = http.client.HTTPConnection(server.address.hostname, server.address.port, timeout=TIMEOUT)
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
