"""Does what is asked of a store stay quick as it grows? `python bench/reach.py [SESSIONS] [MESSAGES] [DIR]`

Makes a store with so many sessions (5,000) of a few messages each, and one session of so many (10,000); prints what reads,
appends, searches and `verify` cost in it: the median of the time it takes, and the CPU time of the process.
"""

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from holdfast.agent.runner.history import since_summary, tokens_in_use
from holdfast.core.session import SessionTime
from holdfast.core.store import ALL, DirectoryScope, SessionQuery
from holdfast.storage.sqlite import SqliteStore
from holdfast.testing.stories import Story

RUNS = 15
WORDS = [f"word{n}" for n in range(5000)]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def text_of(number: int) -> str:
    """Some 600 characters, of which one word is rare and one common."""
    return f"common rare{number} " + " ".join(WORDS[(number * 31 + n * n) % 5000] for n in range(70))


async def fill(store: SqliteStore, sessions: int, messages: int) -> Story:
    now = now_ms()

    async def one(number: int) -> None:
        at = now - (sessions - number) * 60_000
        time = SessionTime(created=at, updated=at)
        story = Story(f"ses_{number:06}", directory=f"/d{number % 20}", project_id=f"p{number % 5}", time=time)
        await store.append(story.id, [*story.prompted(text_of(number)), story.started(), story.ended()])

    for start in range(0, sessions, 200):
        await asyncio.gather(*(one(number) for number in range(start, min(start + 200, sessions))))
    long = Story("ses_long", directory="/d0", project_id="p0", time=SessionTime(created=now, updated=now))
    await store.append(long.id, [long.created()])
    for number in range(messages // 2):
        user, answer = f"msg_u{number}", f"msg_a{number}"
        part = long.text(f"prt_a{number}", text_of(number), message=answer, closed=True)
        await store.append(
            long.id,
            [
                long.message(long.user(user)),
                long.part(long.prompt(f"prt_u{number}", f"prompt {number}", user)),
                long.requested(user),
                long.started(user),
                long.message(long.assistant(answer, user)),
                long.part(part),
                long.message(long.assistant(answer, user, completed=True)),
                *([long.ended(user)] if number < messages // 2 - 1 else []),
            ],
        )
    return long


def questions(store: SqliteStore, long: Story, messages: int) -> dict[str, Callable[[int], Awaitable[Any]]]:
    last = f"msg_u{messages // 2 - 1}"
    day = now_ms() - 24 * 3600 * 1000

    def prompt(run: int) -> Awaitable[Any]:
        id = f"msg_new{run}"
        return store.append(
            long.id, [long.message(long.user(id)), long.part(long.prompt(f"prt_new{run}", "new words", id))]
        )

    return {
        "session()": lambda _: store.session(long.id),
        "100 sessions of a directory": lambda _: store.session_page(
            SessionQuery(directory="/d0", roots=True, limit=100)
        ),
        "100 sessions of all": lambda _: store.session_page(SessionQuery(archived=False, limit=100)),
        "directories()": lambda _: store.directories(),
        "newest 100 messages": lambda _: store.message_page(long.id, limit=100),
        "100 messages in the middle": lambda _: store.message_page(long.id, limit=100, before=4 * messages),
        "all messages, as JSON": lambda _: store.message_page(long.id),
        "turn_state()": lambda _: store.turn_state(long.id),
        "tokens_in_use()": lambda _: tokens_in_use(store, long.id),
        "what the LLM is told, never summarised": lambda _: since_summary(store, long.id, last),
        "snapshot of all, on connect": lambda _: store.snapshot(
            ALL, changed_since_ms=day, sessions_max=16, messages_max=20
        ),
        "snapshot of a directory": lambda _: store.snapshot(
            DirectoryScope("/d3"), changed_since_ms=day, sessions_max=16, messages_max=20
        ),
        "append of a prompt to the long one": prompt,
        "search: a rare word": lambda _: store.session_page(SessionQuery(search="rare4321", limit=100)),
        "search: a word of every text": lambda _: store.session_page(SessionQuery(search="common", limit=100)),
        "search: one letter": lambda _: store.session_page(SessionQuery(search="w", limit=100)),
        "search: three words, of a directory": lambda _: store.session_page(
            SessionQuery(search="common word1 word2", directory="/d1", limit=100)
        ),
    }


async def main(directory: Path, sessions: int, messages: int) -> None:
    store = await SqliteStore.open(directory, now_ms=now_ms, entropy=os.urandom)
    start = time.perf_counter()
    long = await fill(store, sessions, messages)
    size = sum(file.stat().st_size for file in directory.iterdir()) / 1e6
    print(
        f"{sessions:,} sessions, one of {messages:,} messages: {size:.0f} MB, made in {time.perf_counter() - start:.0f} s\n"
    )
    print("| what | median | CPU |\n| --- | --- | --- |")
    for what, ask in questions(store, long, messages).items():
        await ask(RUNS)
        times: list[float] = []
        cpu = time.process_time()
        for run in range(RUNS):
            start = time.perf_counter()
            await ask(run)
            times.append(time.perf_counter() - start)
        cpu = (time.process_time() - cpu) / RUNS
        print(f"| {what} | {statistics.median(times) * 1e3:.1f} ms | {cpu * 1e3:.1f} ms |")
    start = time.perf_counter()
    differences = [difference async for difference in store.verify()]
    print(f"| verify(): {len(differences)} differences | {time.perf_counter() - start:.1f} s | |")
    await store.close()


if __name__ == "__main__":
    sessions = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    messages = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    made = Path(tempfile.mkdtemp(dir=sys.argv[3] if len(sys.argv) > 3 else None))
    try:
        asyncio.run(main(made, sessions, messages))
    finally:
        shutil.rmtree(made)
