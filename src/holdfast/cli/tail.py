"""`holdfast tail`: the recorded events of a session, for ever, one line of JSON each: `{"offset":"…","event":{…}}`."""

import contextlib
import sys

from holdfast.client import Client, Interrupted, Received
from holdfast.core.events import SessionDeleted
from holdfast.core.offsets import BEGINNING, Offset


def line(item: Received) -> bytes:
    """Its offset is what `--after` takes to go on behind this event."""
    assert item.offset is not None
    return b'{"offset":"%s","event":%s}\n' % (item.offset.encode(), item.data)


async def tail(client: Client, session_id: str, *, after: Offset | None) -> None:
    """From the beginning without `after`. Returns when the session is deleted."""
    await client.health()
    lost = False
    async with contextlib.aclosing(client.events(session_id=session_id, after=after or BEGINNING)) as items:
        async for item in items:
            if isinstance(item, Interrupted):
                if not lost:
                    print("holdfast: lost the server; waiting for it to come back", file=sys.stderr, flush=True)
                lost = True
                continue
            lost = False
            if item.offset is not None:
                sys.stdout.buffer.write(line(item))
                sys.stdout.buffer.flush()
                if item.type == SessionDeleted.type:
                    return
