"""What the agent asks the user while a turn runs (permissions, questions), and the user's replies.

A reply is an event: it works from any connection, and is kept if the server stops before the turn could use it. The same
reply again is fine for as long as the turn that asked still runs.
"""

from collections.abc import Sequence

from holdfast.core.errors import Invalid, NotFound
from holdfast.core.events import Event, PermissionReplied, QuestionRejected, QuestionReplied
from holdfast.core.permissions import PermissionReply, PermissionRequest
from holdfast.core.questions import QuestionRequest
from holdfast.core.store import SessionStore
from holdfast.service.turns import Waker

PERMISSION = "Permission request"
QUESTION = "Question request"


class RequestService:
    def __init__(self, store: SessionStore, engine: Waker) -> None:
        self._store = store
        self._engine = engine

    async def permissions(self, directory: str | None = None) -> tuple[PermissionRequest, ...]:
        """Those that wait for a reply, in the sessions of a directory or in all."""
        return tuple(entry.request for entry in await self._store.pending_permissions(directory))

    async def questions(self, directory: str | None = None) -> tuple[QuestionRequest, ...]:
        return tuple(entry.request for entry in await self._store.pending_questions(directory))

    async def reply_permission(
        self, request_id: str, reply: PermissionReply, message: str | None = None, *, session_id: str | None = None
    ) -> None:
        """Raises NotFound for a request that does not exist (any more), or not in that session."""
        owner = await self._session_of(request_id, PERMISSION)
        if session_id is not None and session_id != owner:
            raise NotFound(PERMISSION, request_id)
        replied = PermissionReplied(session_id=owner, request_id=request_id, reply=reply, message=message)
        await self._append(owner, replied, request_id, PERMISSION)

    async def answer_question(self, request_id: str, answers: tuple[tuple[str, ...], ...]) -> None:
        """One list of labels (or own texts) per question. Raises NotFound, Invalid for another number of lists."""
        for entry in await self._store.pending_questions():
            if entry.request.id == request_id and len(answers) != len(entry.request.questions):
                asked = len(entry.request.questions)
                raise Invalid(f"{asked} question(s) were asked, {len(answers)} answered.", field="answers")
        owner = await self._session_of(request_id, QUESTION)
        replied = QuestionReplied(session_id=owner, request_id=request_id, answers=answers)
        await self._append(owner, replied, request_id, QUESTION)

    async def reject_question(self, request_id: str) -> None:
        """The user does not want to answer. Raises NotFound."""
        owner = await self._session_of(request_id, QUESTION)
        await self._append(owner, QuestionRejected(session_id=owner, request_id=request_id), request_id, QUESTION)

    async def _session_of(self, request_id: str, kind: str) -> str:
        pending: Sequence[PermissionRequest | QuestionRequest]
        pending = await self.permissions() if kind == PERMISSION else await self.questions()
        for request in pending:
            if request.id == request_id:
                return request.session_id
        for session_id in await self._store.statuses():  # answered already, in a turn that still runs?
            state = await self._store.turn_state(session_id)
            entries = state.permissions if kind == PERMISSION else state.questions
            if any(entry.request.id == request_id for entry in entries):
                return session_id
        raise NotFound(kind, request_id)

    async def _append(self, session_id: str, event: Event, request_id: str, kind: str) -> None:
        try:
            await self._store.append(session_id, [event])
        except NotFound:  # the turn ended a moment ago
            raise NotFound(kind, request_id) from None
        self._engine.wake(session_id)
