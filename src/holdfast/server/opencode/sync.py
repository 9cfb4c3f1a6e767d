"""`/sync`: for clients that keep a copy of the logs."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from litestar import Response, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from holdfast.server.bodies import JsonBody, answer
from holdfast.server.opencode.parameters import InstanceOfRequest, documented
from holdfast.service.sync import SyncService

KnownSequences = dict[str, Annotated[int, msgspec.Meta(ge=0, le=2**53)]]


class SyncRow(msgspec.Struct):
    """`type` has the version of the event's shape: `message.updated.1`."""

    id: str
    aggregate_id: str
    seq: int
    type: str
    data: dict[str, Any]


def sync_routes(sync: SyncService) -> Sequence[HTTPRouteHandler]:
    @post("/sync/start", summary="Begin to follow remote workspaces: there are none", **documented(bool))
    async def start(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(True)

    @post(
        "/sync/history",
        summary="What is recorded after the places that are known",
        dto=JsonBody[KnownSequences],
        **documented(list[SyncRow]),
    )
    async def history(instance: InstanceOfRequest, data: JSONBody[KnownSequences]) -> Response[bytes]:
        return answer(await sync.history(instance.directory, data))

    routes: list[Any] = [start, history]
    return routes
