"""`/vcs`, `/project/git/init`: version control of the project."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, QueryParameter

from holdfast.core.catalogue import Project
from holdfast.core.wire import Wire
from holdfast.core.workspace import VcsFileDiff, VcsFileStatus, VcsInfo
from holdfast.server.bodies import JsonBody, answer
from holdfast.server.opencode.parameters import InstanceOfRequest, documented
from holdfast.service.instances import Instances
from holdfast.service.projects import ProjectService
from holdfast.service.vcs import CONTEXT_MAX, DiffMode, VcsService


class PatchToApply(Wire):
    """A patch as git prints it."""

    patch: str


class Applied(Wire):
    applied: bool


def vcs_routes(
    vcs: VcsService,
    instances: Instances,
    projects: ProjectService,
    announce_disposed: Callable[[str | None], Awaitable[None]],
) -> Sequence[HTTPRouteHandler]:
    """`announce_disposed` tells event streams that a directory starts anew."""

    @get("/vcs", summary="Branch and default branch", **documented(VcsInfo, "Empty outside of git."))
    async def vcs_info(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(await vcs.info(instance.directory))

    @get("/vcs/status", summary="Files that differ from the last commit", **documented(list[VcsFileStatus]))
    async def vcs_status(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(await vcs.status(instance.directory))

    @get("/vcs/diff", summary="What is not committed, or what a branch changed", **documented(list[VcsFileDiff]))
    async def vcs_diff(
        instance: InstanceOfRequest,
        mode: Annotated[
            DiffMode,
            QueryParameter(
                name="mode", description="Since the last commit, or since the branch left the default branch."
            ),
        ],
        context: Annotated[
            int | None,
            QueryParameter(
                name="context", ge=0, le=CONTEXT_MAX, description="Lines around a change; without it, whole files."
            ),
        ] = None,
    ) -> Response[bytes]:
        return answer(await vcs.diff(instance.directory, mode, context))

    @get(
        "/vcs/diff/raw",
        summary="What is not committed, as one patch",
        **documented(str, "As git prints it.", media_type="text/x-diff; charset=utf-8"),
    )
    async def raw_diff(instance: InstanceOfRequest) -> Response[bytes]:
        return Response(await vcs.raw_diff(instance.directory), media_type="text/x-diff")

    @post(
        "/vcs/apply",
        summary="Apply a patch to the work tree, as a whole or not at all",
        dto=JsonBody[PatchToApply],
        **documented(Applied),
    )
    async def apply_patch(instance: InstanceOfRequest, data: JSONBody[PatchToApply]) -> Response[bytes]:
        await vcs.apply(instance.directory, data.patch)
        return answer(Applied(applied=True))

    @post("/project/git/init", summary="Make the directory a git work tree", **documented(Project))
    async def init(instance: InstanceOfRequest) -> Response[bytes]:
        await vcs.init(instance.directory)
        instances.dispose(instance.directory)
        await announce_disposed(instance.directory)
        return answer(await projects.current((await instances.open(instance.directory)).place))

    routes: list[Any] = [vcs_info, vcs_status, vcs_diff, raw_diff, apply_patch, init]
    return routes
