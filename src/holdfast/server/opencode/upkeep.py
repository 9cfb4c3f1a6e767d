"""`/log`, `/global/upgrade`: what clients want to do with the server itself."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
import structlog
from litestar import Response, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from holdfast.core.config import public_settings
from holdfast.core.wire import Wire
from holdfast.server.bodies import JsonBody, answer
from holdfast.server.opencode.parameters import InstanceOfRequest, documented

log = structlog.get_logger()

_TEXT_LENGTH_MAX: Final = 4000
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NO_UPGRADE: Final = (
    "Holdfast does not replace itself: install the version you want the way you installed this one, and restart it."
)


class LogLine(Wire):
    """A line for the server's log."""

    service: str
    level: Literal["debug", "info", "error", "warn"]
    message: str
    extra: dict[str, Any] | None = None


class UpgradeTarget(Wire):
    target: str | None = None


class NotUpgraded(Wire):
    success: bool
    error: str


def upkeep_routes() -> Sequence[HTTPRouteHandler]:
    @post("/log", summary="Write to the server's log", dto=JsonBody[LogLine], **documented(bool))
    async def write_log(instance: InstanceOfRequest, data: JSONBody[LogLine]) -> Response[bytes]:
        method = "warning" if data.level == "warn" else data.level
        getattr(log, method)("client.said", service=_plain(data.service), message=_plain(data.message), **_more(data))
        return answer(True)

    @post(
        "/global/upgrade",
        summary="Upgrade the server: it does not do that",
        dto=JsonBody[UpgradeTarget],
        **documented(NotUpgraded, "Not done, and why."),
    )
    async def upgrade(data: JSONBody[UpgradeTarget]) -> Response[bytes]:
        return answer(NotUpgraded(success=False, error=_NO_UPGRADE))

    routes: list[Any] = [write_log, upgrade]
    return routes


def _more(line: LogLine) -> Mapping[str, str]:
    """Without what is named like a secret."""
    return {"extra": _plain(msgspec.json.encode(public_settings(line.extra)).decode())} if line.extra else {}


def _plain(text: str) -> str:
    """One line, without anything that a terminal would obey."""
    return _CONTROL.sub(" ", text[:_TEXT_LENGTH_MAX])
