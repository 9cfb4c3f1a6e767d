"""All services of one server, for its faces."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from holdfast.agent.runner import Engine
from holdfast.agent.snapshots import Snapshots
from holdfast.agent.tools.command_lines import CommandLines
from holdfast.core.clock import Clock
from holdfast.core.ids import Prefix
from holdfast.core.store import SessionStore
from holdfast.service.commands import CommandService
from holdfast.service.config_changes import ConfigChanges
from holdfast.service.credentials import Credentials
from holdfast.service.events import EventService
from holdfast.service.files import FileService
from holdfast.service.formatters import FormatterService
from holdfast.service.instances import Instances
from holdfast.service.lsp import LspService
from holdfast.service.mcp import McpService
from holdfast.service.messages import MessageService
from holdfast.service.offers import OfferService
from holdfast.service.operations import OperationService
from holdfast.service.project_details import ProjectDetails
from holdfast.service.projects import Locations, ProjectService
from holdfast.service.pty import PtyService
from holdfast.service.requests import RequestService
from holdfast.service.sessions import SessionService
from holdfast.service.stream_links import StreamLinks
from holdfast.service.sync import SyncService
from holdfast.service.transfer import TransferService
from holdfast.service.turns import TurnService
from holdfast.service.vcs import VcsService
from holdfast.service.worktrees import WorktreeService


class Services(msgspec.Struct, frozen=True, kw_only=True):
    clock: Clock
    new_id: Callable[[Prefix], str]
    locations: Locations
    instances: Instances
    projects: ProjectService
    sessions: SessionService
    messages: MessageService
    operations: OperationService
    commands: CommandService
    turns: TurnService
    requests: RequestService
    events: EventService
    transfer: TransferService
    files: FileService
    vcs: VcsService
    ptys: PtyService
    mcp: McpService
    lsp: LspService
    formatters: FormatterService
    offers: OfferService
    config_changes: ConfigChanges
    credentials: Credentials
    sync: SyncService
    worktrees: WorktreeService
    stream_links: StreamLinks


def make_services(
    store: SessionStore,
    engine: Engine,
    *,
    clock: Clock,
    new_id: Callable[[Prefix], str],
    pick: Callable[[int], int],
    instances: Instances,
    locations: Locations,
    ptys: PtyService,
    mcp: McpService,
    lsp: LspService,
    formatters: FormatterService,
    offers: OfferService,
    config_changes: ConfigChanges,
    lines: CommandLines,
    tool_output: Path,
    credentials: Credentials,
    worktrees: WorktreeService,
    stream_links: StreamLinks,
    project_details: ProjectDetails,
    snapshots: Snapshots | None = None,
) -> Services:
    """`pick(n)` gives a random number in [0, n). `tool_output` is where long output of commands goes."""
    turns = TurnService(store, engine)
    projects = ProjectService(store, clock, project_details)
    messages = MessageService(
        store, clock=clock, new_id=new_id, instances=instances, turns=turns, attached=lsp.attached
    )
    return Services(
        clock=clock,
        new_id=new_id,
        locations=locations,
        instances=instances,
        projects=projects,
        sessions=SessionService(
            store, clock=clock, new_id=new_id, pick=pick, instances=instances, turns=turns, projects=projects
        ),
        messages=messages,
        operations=OperationService(
            store,
            clock=clock,
            new_id=new_id,
            pick=pick,
            instances=instances,
            turns=turns,
            messages=messages,
            snapshots=snapshots,
        ),
        commands=CommandService(
            store,
            clock=clock,
            new_id=new_id,
            instances=instances,
            turns=turns,
            messages=messages,
            offers=offers,
            mcp=mcp,
            lines=lines,
            tool_output=tool_output,
            home=Path(locations.home),
        ),
        turns=turns,
        requests=RequestService(store, engine),
        events=EventService(store, clock),
        transfer=TransferService(store, turns, projects),
        files=FileService(),
        vcs=VcsService(),
        ptys=ptys,
        mcp=mcp,
        lsp=lsp,
        formatters=formatters,
        offers=offers,
        config_changes=config_changes,
        credentials=credentials,
        sync=SyncService(store),
        worktrees=worktrees,
        stream_links=stream_links,
    )
