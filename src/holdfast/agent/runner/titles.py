"""Names for sessions: after the first prompt of a session that has no name yet, a small model is asked for one.

Beside the turn, and never in its way: an error leaves the session as it is. Not part of the turn machine, because nothing
depends on it.
"""

import re
from contextlib import aclosing
from typing import Final

import structlog
from msgspec.structs import replace

from holdfast.agent.providers.base import ModelRequest, TextChunk, UserTurn
from holdfast.agent.runner.environment import Environment, with_settings
from holdfast.agent.runner.session_log import SessionLog
from holdfast.agent.turn import prompt
from holdfast.core.errors import HoldfastError
from holdfast.core.events import Event, SessionUpdated
from holdfast.core.messages import TextPart
from holdfast.core.reducer import Get
from holdfast.core.session import Session
from holdfast.core.state import SESSION, TurnState

_UNNAMED: Final = re.compile(r"New session - \d{4}-\d\d-\d\dT[\d:.]+Z")
_LENGTH_MAX: Final = 100
_PROMPT_CHARACTERS_MAX: Final = 4000

log = structlog.get_logger()


def is_unnamed(session: Session) -> bool:
    return session.parent_id is None and _UNNAMED.fullmatch(session.title) is not None


async def name_session(record: SessionLog, state: TurnState, environment: Environment) -> None:
    """Ask for a title and record it, if the session still has none then."""
    try:
        title = await _ask(state, environment)
        if title:
            await record.store.append(record.session_id, lambda get: _named(get, title))
    except HoldfastError as error:
        log.info("title.failed", session=record.session_id, reason=str(error))
    except Exception:
        log.exception("title.failed", session=record.session_id)


async def _ask(state: TurnState, environment: Environment) -> str:
    user = prompt(state)
    model = await environment.title_model(state.session, user)
    words = "\n".join(part.text for part in state.user.parts if isinstance(part, TextPart)) if state.user else ""
    if model is None or not words.strip():
        return ""
    request = ModelRequest(
        model_id=model.model_id,
        system=environment.system(state.session, user, "title"),
        conversation=(UserTurn(text=f"Generate a title for this conversation:\n{words[:_PROMPT_CHARACTERS_MAX]}"),),
    )
    request = with_settings(request, model.settings)
    said: list[str] = []
    async with aclosing(model.provider.stream(request)) as chunks:
        async for batch in chunks:
            said += [chunk.text for chunk in batch if isinstance(chunk, TextChunk)]
    lines = re.sub(r"<think>.*?</think>", "", "".join(said), flags=re.DOTALL).strip().splitlines()
    return lines[0].strip().strip('"')[:_LENGTH_MAX] if lines else ""


def _named(get: Get, title: str) -> list[Event]:
    session = get(SESSION)
    if not isinstance(session, Session) or not is_unnamed(session):
        return []
    return [SessionUpdated(session_id=session.id, info=replace(session, title=title))]
