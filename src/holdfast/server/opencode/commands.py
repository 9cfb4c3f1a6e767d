"""Commands: what there is, and to carry one out in a session."""

from collections.abc import Sequence
from typing import Any

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from holdfast.core.catalogue import Command
from holdfast.core.messages import WithParts
from holdfast.server.bodies import JsonBody, answer, raw_answer
from holdfast.server.opencode.parameters import InstanceOfRequest, SessionId, documented
from holdfast.server.opencode.sessions import NO_SESSION
from holdfast.service.commands import CommandService, Init, RunCommand
from holdfast.service.messages import message_json


def command_routes(commands: CommandService) -> Sequence[HTTPRouteHandler]:
    @get("/command", summary="Commands", **documented(list[Command]))
    async def list_commands(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(await commands.all(instance))

    @post(
        "/session/{sessionID:str}/command",
        summary="Carry out a command",
        dto=JsonBody[RunCommand],
        **documented(WithParts, "The last message of its turn.", missing=NO_SESSION),
    )
    async def run(session_id: SessionId, data: JSONBody[RunCommand]) -> Response[bytes]:
        return raw_answer(message_json(await commands.run(session_id, data)))

    @post(
        "/session/{sessionID:str}/init",
        summary="Have AGENTS.md written",
        dto=JsonBody[Init],
        **documented(bool, "Written.", missing=NO_SESSION),
    )
    async def init(session_id: SessionId, data: JSONBody[Init]) -> Response[bytes]:
        await commands.init(session_id, data)
        return answer(True)

    routes: list[Any] = [list_commands, run, init]
    return routes
