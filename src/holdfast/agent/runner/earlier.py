"""The completed steps of a session's turn, each read once, however long the turn becomes. Made of the log alone: a runner that
takes a turn up after a restart reads what the one before it had read.
"""

from typing import Final

import msgspec

from holdfast.agent import turn
from holdfast.agent.runner.history import decoded, first_snapshot, version_of
from holdfast.agent.runner.session_log import SessionLog
from holdfast.core.messages import AssistantMessage, Message
from holdfast.core.state import TurnState, prompts_of

_PAGE: Final = 16

_to_message: Final = msgspec.json.Decoder(Message).decode


class EarlierSteps:
    """Of one turn after the other, as the runner takes them up."""

    def __init__(self, record: SessionLog) -> None:
        self._log = record
        self._turn: str | None = None
        self._version = 0
        self._found = turn.NOTHING
        self._first_snapshot: str | None = None

    async def read(self, state: TurnState) -> turn.Earlier:
        """What the completed steps of the active turn come to."""
        store, session_id = self._log.store, self._log.session_id
        active = state.turns.active
        assert active is not None
        if active.message_id != self._turn:
            self._version = await version_of(store, session_id, active.message_id)
            self._turn, self._found, self._first_snapshot = active.message_id, turn.NOTHING, None
        prompts = prompts_of(state.turns)
        while True:
            page = await store.message_page(session_id, limit=_PAGE, after=self._version)
            for message in page.messages:
                info = _to_message(message.info)
                if isinstance(info, AssistantMessage) and info.parent_id in prompts:
                    if info.time.completed is None:
                        return self._found
                    self._found = turn.with_step(self._found, decoded(message))
                self._version = message.version
            if not page.more:
                return self._found

    async def first_snapshot(self) -> str | None:
        """The session's (`history.first_snapshot`), looked for once in a turn: nothing is taken back while one runs."""
        if self._first_snapshot is None:
            self._first_snapshot = await first_snapshot(self._log.store, self._log.session_id)
        return self._first_snapshot
