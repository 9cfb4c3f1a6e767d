"""How a command ends: an exit code, and at most a few lines that say what is wrong and what to do. Never a traceback for
what a user can meet.

    0 done    1 it failed    2 the command line is wrong, or asks for what is refused    130 Ctrl-C    141 broken pipe
"""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, Final

import typer

from holdfast.core.errors import Denied, HoldfastError

FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141


def conclude(
    main: Callable[[], Coroutine[Any, Any, int | None]],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run a command to its end and leave with its exit code (None is 0)."""
    with told_plainly(), asyncio.Runner(loop_factory=loop_factory) as runner:
        raise typer.Exit(runner.run(main()) or 0)


@contextmanager
def told_plainly() -> Generator[None]:
    """What a user can meet in here ends the command, with what is wrong and the exit code for it."""
    try:
        yield
    except HoldfastError as error:
        complain(error)
        raise typer.Exit(USAGE if isinstance(error, Denied) else FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read our output has gone (`… | head`). Python would complain about it once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(BROKEN_PIPE) from None


def complain(error: HoldfastError) -> None:
    print(f"holdfast: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)
    sys.stderr.flush()
