"""`GET /session/{id}/export` and `POST /session/import`: sessions as files (`service.transfer`). Ours, not OpenCode's; not
in its document either, because the bodies are lines of JSON and no JSON."""

from collections.abc import Sequence
from typing import Any, Final

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import RawBody

from holdfast.server.asgi import App, streamed
from holdfast.server.bodies import answer
from holdfast.server.opencode.parameters import SessionId
from holdfast.service.transfer import TransferService

IMPORT_BYTES_MAX: Final = 256 * 1024 * 1024
LINES: Final = "application/x-ndjson"


def transfer_routes(transfer: TransferService) -> Sequence[HTTPRouteHandler]:
    @get("/session/{sessionID:str}/export", include_in_schema=False)
    async def export_session(session_id: SessionId) -> App:
        return streamed(await transfer.export_session(session_id), LINES)

    @post("/session/import", include_in_schema=False, request_max_body_size=IMPORT_BYTES_MAX, status_code=200)
    async def import_session(body: RawBody) -> Response[bytes]:
        return answer(await transfer.import_session(body.split(b"\n")))

    routes: list[Any] = [export_session, import_session]
    return routes
