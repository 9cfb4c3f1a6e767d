"""`/api/pty`: terminals in the words of OpenCode's second API. The WebSocket is that of the first one (`PtySockets`)."""

from collections.abc import Sequence
from typing import Annotated, Any

from litestar import Response, delete, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, QueryParameter

from holdfast.core.errors import Invalid
from holdfast.core.wire import Wire
from holdfast.core.workspace import Pty, PtyTicket
from holdfast.server.bodies import JsonBody, answer
from holdfast.server.opencode.parameters import InstanceOfLocation, documented_second
from holdfast.server.opencode.pty import NO_PTY, PtyId, checked_pty
from holdfast.server.opencode.second_api import Location, location_of
from holdfast.service.pty import NewPty, PtyPatch, PtyService


class LocatedPtys(Wire):
    location: Location
    data: tuple[Pty, ...]


class LocatedPty(Wire):
    location: Location
    data: Pty


class LocatedTicket(Wire):
    location: Location
    data: PtyTicket


def second_api_pty_routes(ptys: PtyService) -> Sequence[HTTPRouteHandler]:
    missing: dict[str, Any] = {"missing": NO_PTY}

    @get("/api/pty", summary="Terminals that run", **documented_second(LocatedPtys))
    async def list_ptys(located: InstanceOfLocation) -> Response[bytes]:
        return answer(LocatedPtys(location=location_of(located), data=ptys.list(located.directory)))

    @post("/api/pty", summary="Open a terminal", dto=JsonBody[NewPty], **documented_second(LocatedPty))
    async def create_pty(located: InstanceOfLocation, data: JSONBody[NewPty]) -> Response[bytes]:
        return answer(LocatedPty(location=location_of(located), data=await ptys.create(located.directory, data)))

    @get("/api/pty/{ptyID:str}", summary="A terminal", **documented_second(LocatedPty, **missing))
    async def get_pty(located: InstanceOfLocation, pty_id: PtyId) -> Response[bytes]:
        found = ptys.get(located.directory, checked_pty(pty_id))
        return answer(LocatedPty(location=location_of(located), data=found))

    @put(
        "/api/pty/{ptyID:str}",
        summary="Rename or resize a terminal",
        dto=JsonBody[PtyPatch],
        **documented_second(LocatedPty, **missing),
    )
    async def update_pty(located: InstanceOfLocation, pty_id: PtyId, data: JSONBody[PtyPatch]) -> Response[bytes]:
        changed = ptys.update(located.directory, checked_pty(pty_id), data)
        return answer(LocatedPty(location=location_of(located), data=changed))

    @delete(
        "/api/pty/{ptyID:str}",
        summary="End a terminal and all it started",
        **documented_second(None, status=204, **missing),
    )
    async def remove_pty(located: InstanceOfLocation, pty_id: PtyId) -> None:
        await ptys.remove(located.directory, checked_pty(pty_id))

    @post(
        "/api/pty/{ptyID:str}/connect-token",
        summary="A ticket for one connection",
        **documented_second(LocatedTicket, **missing),
    )
    async def connect_token(located: InstanceOfLocation, pty_id: PtyId) -> Response[bytes]:
        ticket = ptys.ticket(located.directory, checked_pty(pty_id))
        return answer(LocatedTicket(location=location_of(located), data=ticket))

    @get(
        "/api/pty/{ptyID:str}/connect",
        summary="Follow a terminal (WebSocket)",
        **documented_second(bool, "Never: the connection becomes a WebSocket.", **missing),
    )
    async def connect(
        pty_id: PtyId,
        cursor: Annotated[str | None, QueryParameter(name="cursor", description="Where to go on.")] = None,
        ticket: Annotated[str | None, QueryParameter(name="ticket", description="Of `connect-token`.")] = None,
    ) -> Response[bytes]:
        ptys.connect(checked_pty(pty_id))
        raise Invalid("This is a WebSocket: ask for an upgrade.")

    routes: list[Any] = [list_ptys, create_pty, get_pty, update_pty, remove_pty, connect_token, connect]
    return routes
