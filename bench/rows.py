"""What is measured. A row's function does its work once on one server and answers numbers by name.

Every name is a line of the result; units are in the name (`_ms`, `_per_s`, `_s`, `_mb`) or it is a count.
"""

import re
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from client import Server, Subscription
from peers import Peer

Numbers = dict[str, float]


def percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(percent / 100 * len(ordered)))]


def burst(peer: Peer, model: Server) -> Numbers:
    """A turn of 2000 tokens that the model sends as fast as it can, seen by one subscriber."""
    server = peer.server
    session = server.new_session()
    with Subscription(server) as subscription:
        cpu = cpu_seconds(peer.process.pid)
        began = time.time()
        server.prompt(session, "b [[tokens=2000]]")
        posted = time.time()
        idle = subscription.wait_for_end(session)
        deltas = subscription.deltas()
    first_token = next(t["t_first"] for t in reversed(model.get("/stats")["turns"]) if not t["title"])
    assert len(deltas) == 2000
    return {
        "first_delta_ms": (deltas[0].time - first_token) * 1e3,
        "last_delta_ms": (deltas[-1].time - first_token) * 1e3,
        "turn_idle_ms": (idle.time - first_token) * 1e3,
        "prompt_to_model_ms": (first_token - began) * 1e3,
        "turn_post_ms": (posted - began) * 1e3,
        "turn_cpu_s": cpu_seconds(peer.process.pid) - cpu,
    }


def concurrent_turns(peer: Peer, model: Server) -> Numbers:
    """8 sessions with a turn of 500 tokens each, started together, while one subscriber watches."""
    server = peer.server
    sessions = [server.new_session() for _ in range(8)]
    with Subscription(server), ThreadPoolExecutor(8) as pool:
        began = time.perf_counter()
        list(pool.map(lambda session: server.prompt(session, "b [[tokens=500]]"), sessions))
        seconds = time.perf_counter() - began
    return {"concurrent_tokens_per_s": 8 * 500 / seconds}


def paced(peer: Peer, model: Server) -> Numbers:
    """300 tokens, one each 10 ms, each carrying the time at which the model sent it."""
    server = peer.server
    session = server.new_session()
    with Subscription(server) as subscription:
        server.prompt(session, "x [[ts=1]] [[tokens=300]] [[delay=10]]")
        subscription.wait_for_end(session)
        deltas = subscription.deltas()
    late = [(delta.time - float(sent)) * 1e3 for delta in deltas for sent in re.findall(r"@([\d.]+)", delta.delta)]
    assert len(late) == 300
    return {
        "paced_p50_ms": percentile(late, 50),
        "paced_p99_ms": percentile(late, 99),
        "paced_max_ms": max(late),
    }


def health(peer: Peer, model: Server) -> Numbers:
    """1000 requests for next to nothing, one after another: what HTTP and the measuring client cost."""
    server = peer.server
    began = time.perf_counter()
    for _ in range(1000):
        server.request("GET", "/global/health")
    return {"health_per_s": 1000 / (time.perf_counter() - began)}


def create_sessions(peer: Peer, model: Server) -> Numbers:
    """200 sessions one after another, then 400 by 8 clients at once."""
    server = peer.server
    began = time.perf_counter()
    for _ in range(200):
        server.new_session()
    alone = 200 / (time.perf_counter() - began)
    together = 400 / server.seconds_for(400, "POST", "/session", {"title": "bench"}, clients=8)
    return {"create_per_s": alone, "create_8_per_s": together}


def messages(peer: Peer, model: Server) -> Numbers:
    """500 messages appended one after another without asking for an answer, then listed 30 times: all, and the newest 100."""
    server = peer.server
    session = server.new_session()
    text = "lorem ipsum " * 20
    began = time.perf_counter()
    for i in range(500):
        part = {"type": "text", "text": f"message {i} {text}"}
        server.post(f"/session/{session}/message", {"noReply": True, "parts": [part]})
    appended = 500 / (time.perf_counter() - began)
    return {
        "append_per_s": appended,
        "list_500_ms": _list_ms(server, f"/session/{session}/message", 500),
        "list_100_ms": _list_ms(server, f"/session/{session}/message?limit=100", 100),
    }


def _list_ms(server: Server, path: str, expected: int) -> float:
    assert len(server.get(path)) == expected
    times: list[float] = []
    for _ in range(30):
        began = time.perf_counter()
        server.request("GET", path)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def away(peer: Peer, model: Server) -> Numbers:
    """A subscriber whose connection is gone for one second in the middle of a turn of 100 tokens/s comes back as its kind
    of client does, and is compared with one that stayed."""
    server = peer.server
    session = server.new_session()
    with Subscription(server) as stayed:
        left = Subscription(server)
        left.__enter__()
        turn = threading.Thread(target=server.prompt, args=(session, "y [[tokens=300]] [[delay=10]]"))
        turn.start()
        left.wait_for_deltas(100)
        left.close()
        time.sleep(1)  # this is the second in which it is away
        offsets = [event.offset for event in left.events if event.offset]
        with Subscription(server, after=offsets[-1] if peer.resumes else None) as came_back:
            turn.join()
            stayed.wait_for_end(session)
            came_back.wait_for_end(session)
    expected = _recorded(peer, stayed)
    got = _recorded(peer, left) + _recorded(peer, came_back)
    return {"away_lost": len(set(expected) - set(got)), "away_twice": len(got) - len(set(got))}


def _recorded(peer: Peer, subscription: Subscription) -> list[bytes]:
    """The ids of what happened. Not `server.connected` and the like; nor the snapshots that Holdfast greets a new client
    with, which tell what was before: they are frames without an `id:`."""
    events = [event for event in subscription.events if b'"server.' not in event.data]
    found = (re.match(rb'\{"id":"(evt_\w+)"', event.data) for event in events if event.offset or not peer.resumes)
    return [match[1] for match in found if match]


def kill_and_restart(peer: Peer, model: Server) -> Numbers:
    """A server of its own is started on fresh directories, killed with SIGKILL when the client has seen 100 tokens of a
    turn of 100 tokens/s, and started again: what of the text that the client saw does the server still have?"""
    process = peer.process
    try:
        process.start(timeout=60)
        server = Server(process.url)
        began = time.monotonic()
        assert server.get("/global/health")["healthy"]
        first_start = process.start_seconds + (time.monotonic() - began)
        session = server.new_session()
        with Subscription(server) as subscription:
            turn = threading.Thread(target=_post_and_be_cut_off, args=(server, session))
            turn.start()
            subscription.wait_for_deltas(100)
            process.kill()
        turn.join()
        seen = "".join(delta.delta for delta in subscription.deltas())
        process.start(timeout=60)
        kept = Server(process.url).get(f"/session/{session}/message")
        stored = "".join(part["text"] for part in kept[-1]["parts"] if part["type"] == "text")
    finally:
        process.kill()
    lost = len(seen) - len(_common_start(seen, stored))
    return {
        "start_s": first_start,
        "start_again_s": process.start_seconds,
        "kill_seen_characters": len(seen),
        "kill_lost_characters": lost,
    }


def _post_and_be_cut_off(server: Server, session: str) -> None:
    try:
        server.prompt(session, "z [[tokens=300]] [[delay=10]]")
    except OSError:
        return
    raise AssertionError("the turn ended before the server was killed")


def _common_start(a: str, b: str) -> str:
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[:same]


def memory(peer: Peer, model: Server) -> Numbers:
    """Resident memory now, and the most there ever was."""
    status = Path(f"/proc/{peer.process.pid}/status").read_text()
    kilobytes = {name: int(value) for name, value in re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", status)}
    return {"memory_mb": kilobytes["VmRSS"] / 1024, "memory_peak_mb": kilobytes["VmHWM"] / 1024}


def cpu_seconds(pid: int) -> float:
    """Processor time of the process so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


ROWS: dict[str, Callable[[Peer, Server], Numbers]] = {
    "burst": burst,
    "concurrent": concurrent_turns,
    "paced": paced,
    "health": health,
    "create": create_sessions,
    "messages": messages,
    "away": away,
    "kill": kill_and_restart,
}
"""Each is run once per round and server; `kill` on servers of its own. `memory` is looked at when all rounds are done."""
