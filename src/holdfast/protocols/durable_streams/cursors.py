"""The cursor of live reads: lets caches between us and many readers collapse their requests, and never loop on an old answer."""

from collections.abc import Callable
from typing import Final

EPOCH_MS: Final = 1_728_432_000_000  # 2024-10-09T00:00:00Z
INTERVAL_MS: Final = 20_000
JITTER_SECONDS_MAX: Final = 3600


def next_cursor(client: str | None, now_ms: int, pick: Callable[[int], int]) -> str:
    """The number of the present interval; for a client that has already seen it, a strictly greater one.
    `pick(n)` gives a random number in [0, n)."""
    current = (now_ms - EPOCH_MS) // INTERVAL_MS
    if client is None or not client.isascii() or not client.isdigit() or len(client) > 15 or int(client) < current:
        return str(current)
    seconds = 1 + pick(JITTER_SECONDS_MAX)
    return str(int(client) + -(-seconds * 1000 // INTERVAL_MS))
