"""`/mcp`: how MCP servers are, switching them on and off, logging in at them; and what they offer to read."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from litestar import Response, delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, PathParameter

from holdfast.core.mcp import McpResource, McpStatus
from holdfast.server.bodies import JsonBody, answer
from holdfast.server.errors import TaggedError
from holdfast.server.opencode.parameters import InstanceOfRequest, documented
from holdfast.service.mcp import McpCode, McpForgotten, McpLogin, McpService, NewMcpServer

McpName = Annotated[str, PathParameter(name="name", description="The server's name in the configuration.")]
NO_SERVER: Final = "There is no such MCP server."


def mcp_routes(mcp: McpService) -> Sequence[HTTPRouteHandler]:
    missing: Mapping[str, Any] = {"missing": NO_SERVER, "missing_shape": TaggedError}

    @get("/mcp", summary="How MCP servers are", **documented(dict[str, McpStatus]))
    async def status(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(await mcp.status(instance))

    @post(
        "/mcp",
        summary="Add an MCP server, until the instance is disposed of",
        dto=JsonBody[NewMcpServer],
        **documented(dict[str, McpStatus]),
    )
    async def add(instance: InstanceOfRequest, data: JSONBody[NewMcpServer]) -> Response[bytes]:
        return answer(await mcp.add(instance, data))

    @post("/mcp/{name:str}/connect", summary="Switch an MCP server on", **documented(bool, **missing))
    async def connect(instance: InstanceOfRequest, name: McpName) -> Response[bytes]:
        await mcp.connect(instance, name)
        return answer(True)

    @post("/mcp/{name:str}/disconnect", summary="Switch an MCP server off", **documented(bool, **missing))
    async def disconnect(instance: InstanceOfRequest, name: McpName) -> Response[bytes]:
        await mcp.disconnect(instance, name)
        return answer(True)

    @post(
        "/mcp/{name:str}/auth",
        summary="Begin a login",
        **documented(McpLogin, "The page that the user has to open.", **missing),
    )
    async def log_in(instance: InstanceOfRequest, name: McpName) -> Response[bytes]:
        return answer(await mcp.log_in(instance, name))

    @post(
        "/mcp/{name:str}/auth/callback",
        summary="Finish a login with the code that the browser brought",
        dto=JsonBody[McpCode],
        **documented(McpStatus, **missing),
    )
    async def finish_login(instance: InstanceOfRequest, name: McpName, data: JSONBody[McpCode]) -> Response[bytes]:
        return answer(await mcp.finish_login(instance, name, data.code))

    @post(
        "/mcp/{name:str}/auth/authenticate",
        summary="Log in, and wait until the browser came back",
        **documented(McpStatus, **missing),
    )
    async def authenticate(instance: InstanceOfRequest, name: McpName) -> Response[bytes]:
        return answer(await mcp.authenticate(instance, name))

    @delete("/mcp/{name:str}/auth", summary="Forget a login", **documented(McpForgotten, **missing))
    async def log_out(instance: InstanceOfRequest, name: McpName) -> Response[bytes]:
        await mcp.log_out(instance, name)
        return answer(McpForgotten(success=True))

    @get(
        "/experimental/resource",
        summary="What MCP servers offer to read",
        **documented(dict[str, McpResource], "By `server:name`."),
    )
    async def resources(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(await mcp.resources(instance))

    routes: list[Any] = [
        *(status, add, connect, disconnect),
        *(log_in, finish_login, authenticate, log_out),
        resources,
    ]
    return routes
