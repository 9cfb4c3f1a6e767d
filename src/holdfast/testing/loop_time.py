"""Time of the event loop, for tests of what gives up after a while: nobody has to wait, and a slow machine changes nothing.

A limit that is short enough to wait for in a test is also short enough to be over before what it limits had its chance, when
the machine does something else for a moment. So give a limit of a minute, wait for the moment that matters, and let the
minute pass.
"""

import asyncio


def let_pass(seconds: float) -> None:
    """From now on the running loop's clock is so much later: sleeps and timeouts (`asyncio.timeout`, `call_later`) that end
    within that time are over. Not for uvloop, whose clock is its own. A new loop has the real time again."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, asyncio.BaseEventLoop)
    real = type(loop).time
    ahead = loop.time() - real(loop) + seconds
    setattr(loop, "time", lambda: real(loop) + ahead)  # noqa: B010 - pyright takes a method for read-only
