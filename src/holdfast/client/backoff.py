"""How long to wait before the next try."""

import random
from collections.abc import Callable
from typing import Final

FIRST_S: Final = 0.1
LONGEST_S: Final = 5.0


class Backoff:
    """Doubles from `FIRST_S` to `LONGEST_S`. Up to half of each wait is chance, so that the clients of a server that comes
    back do not all come back in the same moment. `chance` gives numbers from 0 to 1."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._whole_s = FIRST_S
        self.attempt = 0

    def next_s(self) -> float:
        """The wait before the next try, in seconds."""
        whole_s = self._whole_s
        self._whole_s = min(whole_s * 2, LONGEST_S)
        self.attempt += 1
        return whole_s * (0.5 + 0.5 * self._chance())

    def reset(self) -> None:
        """It worked: the next failure is a first one again."""
        self._whole_s = FIRST_S
        self.attempt = 0
