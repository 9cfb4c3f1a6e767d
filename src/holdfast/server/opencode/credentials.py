"""`/auth`, `/provider/auth`, `/provider/{id}/oauth/…`: keys of providers, and how to get them. No answer ever shows one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal

from litestar import Response, delete, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, PathParameter

from holdfast.core.credentials import Credential
from holdfast.core.errors import Invalid
from holdfast.core.wire import Wire
from holdfast.server.bodies import JsonBody, answer
from holdfast.server.opencode.parameters import InstanceOfRequest, documented
from holdfast.service.credentials import Credentials
from holdfast.service.instances import Instances


class AuthMethod(Wire):
    type: Literal["oauth", "api"]
    label: str


class Authorize(Wire):
    """`method` counts the entries of `GET /provider/auth`."""

    method: int
    inputs: dict[str, str] | None = None


class Callback(Wire):
    method: int
    code: str | None = None


class Authorization(Wire):
    url: str
    method: Literal["auto", "code"]
    instructions: str


ProviderID = Annotated[str, PathParameter(name="providerID")]


def credential_routes(
    credentials: Credentials, instances: Instances, announce_disposed: Callable[[str | None], Awaitable[None]]
) -> Sequence[HTTPRouteHandler]:
    """`announce_disposed` tells event streams that every directory starts anew: its models may be others now."""

    async def changed() -> None:
        instances.look_again()
        await announce_disposed(None)

    @put("/auth/{providerID:str}", summary="Store a key", dto=JsonBody[Credential], **documented(bool))
    async def set_auth(provider_id: ProviderID, data: JSONBody[Any]) -> Response[bytes]:
        await asyncio.to_thread(credentials.set, provider_id, data)
        await changed()
        return answer(True)

    @delete("/auth/{providerID:str}", summary="Remove a key", **documented(bool))
    async def remove_auth(provider_id: ProviderID) -> Response[bytes]:
        await asyncio.to_thread(credentials.remove, provider_id)
        await changed()
        return answer(True)

    @get(
        "/provider/auth",
        summary="What each provider takes for a key",
        **documented(dict[str, list[AuthMethod]]),
    )
    async def auth_methods(instance: InstanceOfRequest) -> Response[bytes]:
        registry = instance.registry
        by_key = [AuthMethod(type="api", label="API key")]
        return answer({id: by_key for id in registry.ids() if registry.takes_key(id)})

    def no_oauth(instance: InstanceOfRequest, provider_id: str) -> Invalid:
        registry = instance.registry
        if provider_id not in registry.ids():
            return Invalid(f"There is no provider {provider_id[:64]!r}.", field="providerID")
        return Invalid(
            f"Provider {provider_id} has no OAuth here.",
            field="method",
            hint=f"Store a key: PUT /auth/{provider_id}." if registry.takes_key(provider_id) else None,
        )

    @post(
        "/provider/{providerID:str}/oauth/authorize",
        summary="Begin OAuth: no provider has it here",
        dto=JsonBody[Authorize],
        **documented(Authorization),
    )
    async def authorize(
        instance: InstanceOfRequest, provider_id: ProviderID, data: JSONBody[Authorize]
    ) -> Response[bytes]:
        raise no_oauth(instance, provider_id)

    @post(
        "/provider/{providerID:str}/oauth/callback",
        summary="End OAuth: no provider has it here",
        dto=JsonBody[Callback],
        **documented(bool),
    )
    async def callback(
        instance: InstanceOfRequest, provider_id: ProviderID, data: JSONBody[Callback]
    ) -> Response[bytes]:
        raise no_oauth(instance, provider_id)

    routes: list[Any] = [set_auth, remove_auth, auth_methods, authorize, callback]
    return routes
