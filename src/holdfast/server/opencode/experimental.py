"""What clients ask for before they use something newer: tools, skills, what of the newest there is here.

Of console accounts and remote workspaces there are none.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter

from holdfast.core.catalogue import SkillInfo, ToolInfo
from holdfast.core.wire import Wire
from holdfast.core.workspace import FormatterStatus, LanguageServerStatus
from holdfast.server.bodies import answer
from holdfast.server.opencode.parameters import InstanceOfRequest, SessionId, documented
from holdfast.server.opencode.sessions import NO_SESSION
from holdfast.service.formatters import FormatterService
from holdfast.service.lsp import LspService
from holdfast.service.offers import OfferService
from holdfast.service.sessions import SessionService


class ExperimentalCapabilities(Wire):
    background_subagents: bool


class ConsoleState(Wire):
    console_managed_providers: tuple[str, ...]
    active_org_name: str | None = None
    switchable_org_count: int


class ConsoleOrg(Wire):
    account_id: str
    account_email: str
    account_url: str
    org_id: str
    org_name: str
    active: bool


class ConsoleOrgs(Wire):
    orgs: tuple[ConsoleOrg, ...]


class Workspace(Wire):
    id: str
    type: str
    name: str
    branch: str | None = None
    directory: str | None = None
    extra: Any = None
    project_id: str
    time_used: float


class WorkspaceStatus(Wire):
    workspace_id: str
    status: Literal["connected", "connecting", "disconnected", "error"]


class WorkspaceAdapter(Wire):
    type: str
    name: str
    description: str


def experimental_routes(
    offers: OfferService, sessions: SessionService, lsp: LspService, formatting: FormatterService
) -> Sequence[HTTPRouteHandler]:
    @get("/skill", summary="Skills", **documented(list[SkillInfo]))
    async def skills(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(await offers.skills(instance))

    @get("/experimental/tool/ids", summary="Ids of the tools", **documented(list[str]))
    async def tool_ids(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(offers.tool_ids())

    @get("/experimental/tool", summary="Tools that a model is offered", **documented(list[ToolInfo]))
    async def tools(
        instance: InstanceOfRequest,
        provider: Annotated[str, QueryParameter(name="provider")],
        model: Annotated[str, QueryParameter(name="model")],
    ) -> Response[bytes]:
        return answer(offers.tools(instance, provider, model))

    @get(
        "/experimental/capabilities",
        summary="What of the newest there is",
        **documented(ExperimentalCapabilities),
    )
    async def capabilities(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(ExperimentalCapabilities(background_subagents=False))

    @get("/experimental/console", summary="The console account: none", **documented(ConsoleState))
    async def console(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(ConsoleState(console_managed_providers=(), switchable_org_count=0))

    @get("/experimental/console/orgs", summary="Organisations of the console account: none", **documented(ConsoleOrgs))
    async def console_orgs(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(ConsoleOrgs(orgs=()))

    @get("/lsp", summary="Language servers that were asked", **documented(list[LanguageServerStatus]))
    async def language_servers(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(lsp.status(instance))

    @get("/formatter", summary="Formatters", **documented(list[FormatterStatus]))
    async def formatters(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(formatting.status(instance))

    @post(
        "/experimental/session/{sessionID:str}/background",
        summary="Let running subagents go on in the background",
        **documented(bool, "Whether one does: false, as they run in the foreground only.", missing=NO_SESSION),
    )
    async def background(session_id: SessionId) -> Response[bytes]:
        await sessions.get(session_id)
        return answer(False)

    @get("/experimental/workspace", summary="Remote workspaces: none", **documented(list[Workspace]))
    async def workspaces(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(())

    @get("/experimental/workspace/status", summary="Their connections: none", **documented(list[WorkspaceStatus]))
    async def workspace_status(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(())

    @get(
        "/experimental/workspace/adapter",
        summary="How workspaces could be made: none",
        **documented(list[WorkspaceAdapter]),
    )
    async def workspace_adapters(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(())

    routes: list[Any] = [
        skills,
        tool_ids,
        tools,
        capabilities,
        console,
        console_orgs,
        language_servers,
        formatters,
        background,
        workspaces,
        workspace_status,
        workspace_adapters,
    ]
    return routes
