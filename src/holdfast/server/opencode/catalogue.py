"""What the server offers and where it is: health, models, agents, projects, paths."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final

from litestar import Response, get, patch, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, PathParameter
from msgspec.structs import replace

from holdfast import __version__
from holdfast.core.catalogue import Agent, ConfigProviders, Path, Project, ProviderList
from holdfast.core.codec import to_json
from holdfast.core.config import public_settings
from holdfast.core.wire import Wire
from holdfast.server.bodies import JsonBody, answer
from holdfast.server.errors import TaggedError
from holdfast.server.opencode.parameters import InstanceOfRequest, documented
from holdfast.service.instances import Instances
from holdfast.service.project_details import ProjectChange
from holdfast.service.projects import Locations, ProjectService

NO_PROJECT: Final = "There is no such project."

ProjectId = Annotated[str, PathParameter(name="projectID")]


class Health(Wire):
    healthy: bool
    version: str


class ProjectDirectory(Wire):
    directory: str


def catalogue_routes(
    instances: Instances,
    projects: ProjectService,
    locations: Locations,
    announce_disposed: Callable[[str | None], Awaitable[None]],
    announce: Callable[[str, str, bytes], None],
) -> Sequence[HTTPRouteHandler]:
    """`announce_disposed` tells event streams that a directory (None: every one) starts anew; `announce` tells those of a
    directory anything else: type and properties of an event."""

    @get("/global/health", summary="Is the server up?", **documented(Health))
    async def health() -> Response[bytes]:
        return answer(Health(healthy=True, version=__version__))

    @get("/config/providers", summary="Providers that are configured", **documented(ConfigProviders))
    async def config_providers(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(instance.registry.config_providers())

    @get("/provider", summary="Providers", **documented(ProviderList))
    async def providers(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(await asyncio.to_thread(instance.registry.provider_list))  # it may read the price list

    @get("/agent", summary="Agents", **documented(list[Agent]))
    async def agents(instance: InstanceOfRequest) -> Response[bytes]:
        shown = [replace(agent, options=public_settings(agent.options)) for agent in instance.agents.values()]
        return answer(shown)

    @get("/path", summary="Where things are", **documented(Path))
    async def path(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(
            Path(
                home=locations.home,
                state=locations.state,
                config=locations.config,
                worktree=instance.place.worktree,
                directory=instance.directory,
            )
        )

    @get("/project", summary="Projects that have sessions", **documented(list[Project], "Newest use first."))
    async def list_projects() -> Response[bytes]:
        return answer(await projects.all())

    @get("/project/current", summary="The project of the directory", **documented(Project))
    async def current_project(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(await projects.current(instance.place))

    @patch(
        "/project/{projectID:str}",
        summary="Give a project a name, an icon, a start command",
        dto=JsonBody[ProjectChange],
        **documented(Project, missing=NO_PROJECT, missing_shape=TaggedError),
    )
    async def change_project(
        project_id: ProjectId, instance: InstanceOfRequest, data: JSONBody[ProjectChange]
    ) -> Response[bytes]:
        project = await projects.change(project_id, data, instance.place)
        announce(instance.directory, "project.updated", to_json(project))
        return answer(project)

    @get(
        "/project/{projectID:str}/directories",
        summary="Directories of a project that have sessions",
        **documented(list[ProjectDirectory], missing=NO_PROJECT, missing_shape=TaggedError),
    )
    async def project_directories(project_id: ProjectId, instance: InstanceOfRequest) -> Response[bytes]:
        found = await projects.directories(project_id, instance.place, instance.directory)
        return answer([ProjectDirectory(directory=name) for name in found])

    @post("/instance/dispose", summary="Read the directory's configuration again", **documented(bool))
    async def dispose_instance(instance: InstanceOfRequest) -> Response[bytes]:
        instances.dispose(instance.directory)
        await announce_disposed(instance.directory)
        return answer(True)

    @post("/global/dispose", summary="Read every configuration again", **documented(bool))
    async def dispose_all() -> Response[bytes]:
        instances.dispose()
        await announce_disposed(None)
        return answer(True)

    routes: list[Any] = [
        health,
        config_providers,
        providers,
        agents,
        path,
        list_projects,
        current_project,
        change_project,
        project_directories,
        dispose_instance,
        dispose_all,
    ]
    return routes
