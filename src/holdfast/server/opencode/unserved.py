"""The routes of OpenCode's API that are not served here: each answers 501 with its name and the reason.

A client then knows that it asked for something that exists elsewhere, in contrast to a path that nobody knows (404). A
route leaves this table when it is served.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from holdfast.server.errors import Answer, named

_LATER: Final = "It is not built yet."
_SECOND_API: Final = "It belongs to OpenCode's second API, of which only a part is served; use the first one."
_ACCOUNTS: Final = "There are no console accounts here."
_WORKSPACES: Final = "There are no remote workspaces here; sessions stay where they were made."

_UNSERVED: Final[Mapping[str, Sequence[str]]] = {
    _LATER: (
        "POST /experimental/project/{projectID}/copy/generate-name",
        "POST /experimental/project/{projectID}/copy",
        "DELETE /experimental/project/{projectID}/copy",
        "POST /experimental/project/{projectID}/copy/refresh",
    ),
    _ACCOUNTS: ("POST /experimental/console/switch",),
    _WORKSPACES: (
        "POST /experimental/control-plane/move-session",
        "POST /experimental/workspace",
        "DELETE /experimental/workspace/{id}",
        "POST /experimental/workspace/sync-list",
        "POST /experimental/workspace/warp",
        "POST /sync/replay",
        "POST /sync/steal",
    ),
    _SECOND_API: (
        "GET /api/session",
        "POST /api/session",
        "GET /api/session/{sessionID}",
        "POST /api/session/{sessionID}/agent",
        "POST /api/session/{sessionID}/model",
        "POST /api/session/{sessionID}/prompt",
        "POST /api/session/{sessionID}/compact",
        "POST /api/session/{sessionID}/wait",
        "POST /api/session/{sessionID}/revert/stage",
        "POST /api/session/{sessionID}/revert/clear",
        "POST /api/session/{sessionID}/revert/commit",
        "GET /api/session/{sessionID}/context",
        "GET /api/session/{sessionID}/history",
        "GET /api/session/{sessionID}/event",
        "GET /api/session/{sessionID}/message",
        "GET /api/session/{sessionID}/message/{messageID}",
        "POST /api/session/{sessionID}/permission",
        "POST /api/integration/{integrationID}/connect/key",
        "POST /api/integration/{integrationID}/connect/oauth",
        "GET /api/integration/attempt/{attemptID}",
        "DELETE /api/integration/attempt/{attemptID}",
        "POST /api/integration/attempt/{attemptID}/complete",
        "PATCH /api/credential/{credentialID}",
        "DELETE /api/credential/{credentialID}",
        "GET /api/permission/saved",
        "DELETE /api/permission/saved/{id}",
        "GET /api/fs/read/*",
        "GET /api/event",
    ),
}


def unserved_routes() -> Sequence[tuple[str, str]]:
    """(method, path) of each of them, as OpenCode documents it."""
    return [_parted(route) for routes in _UNSERVED.values() for route in routes]


def unserved(method: str, path: str) -> Answer | None:
    """The answer to a request for one of them; None if nobody knows such a route."""
    request = f"{method} {path.rstrip('/')}"
    for pattern, route, reason in _PATTERNS:
        if pattern.fullmatch(request):
            return named(501, f"{route} is not served by Holdfast. {reason}")
    return None


def _parted(route: str) -> tuple[str, str]:
    method, _, path = route.partition(" ")
    return method, path


def _pattern(route: str) -> re.Pattern[str]:
    pieces = re.split(r"(\{\w+\}|\*)", route)
    return re.compile("".join("[^/]+" if p.startswith("{") else ".+" if p == "*" else re.escape(p) for p in pieces))


_PATTERNS: Final = [(_pattern(route), route, reason) for reason, routes in _UNSERVED.items() for route in routes]
