"""`/experimental/worktree`: further work trees of a project."""

from collections.abc import Sequence
from typing import Any

from litestar import Response, delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from holdfast.server.bodies import JsonBody, answer
from holdfast.server.opencode.parameters import InstanceOfRequest, documented
from holdfast.service.instances import Instances
from holdfast.service.projects import ProjectService
from holdfast.service.worktrees import NewWorktree, Worktree, WorktreePlace, WorktreeService


def worktree_routes(
    worktrees: WorktreeService, instances: Instances, projects: ProjectService
) -> Sequence[HTTPRouteHandler]:
    @get("/experimental/worktree", summary="Work trees of the project", **documented(list[str], "Their directories."))
    async def list_worktrees(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(await worktrees.list(instance))

    @post(
        "/experimental/worktree",
        summary="Make a work tree, on a branch of its own",
        dto=JsonBody[NewWorktree],
        **documented(Worktree),
    )
    async def create_worktree(
        instance: InstanceOfRequest, data: JSONBody[NewWorktree | None] = None
    ) -> Response[bytes]:
        return answer(await worktrees.create(instance, data or NewWorktree()))

    @delete(
        "/experimental/worktree",
        summary="Remove a work tree, with what is not committed in it",
        dto=JsonBody[WorktreePlace],
        **documented(bool),
    )
    async def remove_worktree(instance: InstanceOfRequest, data: JSONBody[WorktreePlace]) -> Response[bytes]:
        instances.dispose(await worktrees.remove(instance, data.directory))
        projects.changed(instance.place.id, instance.directory)
        return answer(True)

    @post(
        "/experimental/worktree/reset",
        summary="Set a work tree back to the default branch",
        dto=JsonBody[WorktreePlace],
        **documented(bool),
    )
    async def reset_worktree(instance: InstanceOfRequest, data: JSONBody[WorktreePlace]) -> Response[bytes]:
        await worktrees.reset(instance, data.directory)
        return answer(True)

    routes: list[Any] = [list_worktrees, create_worktree, remove_worktree, reset_worktree]
    return routes
