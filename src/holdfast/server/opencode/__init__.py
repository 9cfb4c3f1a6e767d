"""The OpenCode face: its V1 API, as far as stock clients need it."""

from collections.abc import Sequence

from litestar.handlers import HTTPRouteHandler

from holdfast.server.opencode.catalogue import catalogue_routes
from holdfast.server.opencode.commands import command_routes
from holdfast.server.opencode.config import config_routes
from holdfast.server.opencode.credentials import credential_routes
from holdfast.server.opencode.events import EventStreams
from holdfast.server.opencode.experimental import experimental_routes
from holdfast.server.opencode.files import file_routes
from holdfast.server.opencode.mcp import mcp_routes
from holdfast.server.opencode.messages import message_routes
from holdfast.server.opencode.operations import operation_routes
from holdfast.server.opencode.parameters import InstanceProvider, LocationProvider
from holdfast.server.opencode.pty import PtySockets, pty_routes
from holdfast.server.opencode.requests import request_routes
from holdfast.server.opencode.second_api import second_api_routes
from holdfast.server.opencode.second_api_pty import second_api_pty_routes
from holdfast.server.opencode.second_api_requests import second_api_request_routes
from holdfast.server.opencode.sessions import session_routes
from holdfast.server.opencode.sync import sync_routes
from holdfast.server.opencode.transfer import transfer_routes
from holdfast.server.opencode.tui import TuiControl, tui_routes
from holdfast.server.opencode.unserved import unserved
from holdfast.server.opencode.upkeep import upkeep_routes
from holdfast.server.opencode.vcs import vcs_routes
from holdfast.server.opencode.worktrees import worktree_routes
from holdfast.service.services import Services


def typed_routes(services: Services, streams: EventStreams) -> Sequence[HTTPRouteHandler]:
    """Every route, the event streams too: those are served before, and documented here."""
    return [
        *streams.routes(),
        *catalogue_routes(
            services.instances, services.projects, services.locations, streams.announce_disposed, streams.announce
        ),
        *config_routes(services.config_changes, services.instances, streams.announce_disposed),
        *credential_routes(services.credentials, services.instances, streams.announce_disposed),
        *session_routes(services.sessions, services.turns),
        *message_routes(services.messages),
        *operation_routes(services.operations),
        *command_routes(services.commands),
        *request_routes(services.requests),
        *transfer_routes(services.transfer),
        *file_routes(services.files, services.lsp),
        *vcs_routes(services.vcs, services.instances, services.projects, streams.announce_disposed),
        *pty_routes(services.ptys),
        *mcp_routes(services.mcp),
        *experimental_routes(services.offers, services.sessions, services.lsp, services.formatters),
        *upkeep_routes(),
        *tui_routes(services.sessions, TuiControl(streams.announce, services.events.closed)),
        *sync_routes(services.sync),
        *worktree_routes(services.worktrees, services.instances, services.projects),
        *second_api_routes(services.offers),
        *second_api_pty_routes(services.ptys),
        *second_api_request_routes(services.requests, services.sessions, services.turns, services.files),
    ]


__all__ = ["EventStreams", "InstanceProvider", "LocationProvider", "PtySockets", "typed_routes", "unserved"]
