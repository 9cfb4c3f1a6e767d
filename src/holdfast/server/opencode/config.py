"""`/config`, `/global/config`: the configuration of a directory, the user's own, and changes to both."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from litestar import Response, get, patch
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from holdfast.core.config import Config, public
from holdfast.server.bodies import JsonBody, answer
from holdfast.server.opencode.parameters import InstanceOfRequest, documented
from holdfast.service.config_changes import ConfigChanges
from holdfast.service.instances import Instances


class ConfigPatch(JsonBody[Config]):
    """Documented as a configuration, handed over as it came: a setting that is left out is not one that is null."""

    decoded_type = dict[str, Any]


def config_routes(
    changes: ConfigChanges, instances: Instances, announce_disposed: Callable[[str | None], Awaitable[None]]
) -> Sequence[HTTPRouteHandler]:
    """`announce_disposed` tells event streams that a directory (None: every one) starts anew."""

    @get("/config", summary="The configuration, without secrets", **documented(Config))
    async def config(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(public(instance.config))

    @patch(
        "/config",
        summary="Change the configuration of the directory",
        dto=ConfigPatch,
        **documented(Config, "The configuration as it is now, without secrets."),
    )
    async def change_config(instance: InstanceOfRequest, data: JSONBody[dict[str, Any]]) -> Response[bytes]:
        root = instance.place.worktree if instance.place.vcs else instance.directory
        if await asyncio.to_thread(changes.change, instance.directory, root, data):
            instances.dispose(instance.directory)
            await announce_disposed(instance.directory)
        return answer(public((await instances.open(instance.directory)).config))

    @get("/global/config", summary="The user's own configuration, without secrets", **documented(Config))
    async def own_config() -> Response[bytes]:
        return answer(public(await asyncio.to_thread(changes.own)))

    @patch(
        "/global/config",
        summary="Change the user's own configuration",
        dto=ConfigPatch,
        **documented(Config, "The user's own configuration as it is now, without secrets."),
    )
    async def change_own_config(data: JSONBody[dict[str, Any]]) -> Response[bytes]:
        if await asyncio.to_thread(changes.change_own, data):
            instances.dispose()
            await announce_disposed(None)
        return answer(public(await asyncio.to_thread(changes.own)))

    routes: list[Any] = [config, change_config, own_config, change_own_config]
    return routes
