"""Logging in at a remote server, done by the `mcp` library; imported like `session`. Without somebody who asks the user, what
would need the user is `NeedsAuth`."""

import time
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthMetadata,
    OAuthToken,
)
from pydantic import AnyUrl, ValidationError

from holdfast.agent.mcp.base import NeedsAuth, ServerFailed
from holdfast.agent.mcp.logins import Attempt, Login


def provider(login: Login, attempt: Attempt | None) -> OAuthClientProvider:
    """Adds what was granted to each request, renews it, and asks for it through `attempt`. Raises ServerFailed."""
    try:
        redirect = AnyUrl(login.redirect_uri)
    except ValidationError:
        raise ServerFailed("oauth.redirectUri is not an address.") from None
    metadata = OAuthClientMetadata(
        client_name="Holdfast",
        redirect_uris=[redirect],
        token_endpoint_auth_method="client_secret_post" if login.settings.client_secret else "none",
        scope=login.settings.scope,
    )
    made: OAuthClientProvider

    async def ask(address: str) -> None:
        if attempt is None:
            raise NeedsAuth
        server = made.context.oauth_metadata
        if server is not None:
            login.keep(msgspec.structs.replace(login.grant, server=server.model_dump(mode="json", exclude_none=True)))
        attempt.ask(_with_scope(address, login.settings.scope))

    async def answer() -> AuthorizationCodeResult:
        assert attempt is not None
        return AuthorizationCodeResult(code=await attempt.code, state=attempt.state)

    made = _Provider(login, metadata, ask, answer)
    return made


class _Provider(OAuthClientProvider):
    def __init__(self, login: Login, metadata: OAuthClientMetadata, *ask_and_answer: object) -> None:
        super().__init__(login.url, metadata, _Kept(login), *ask_and_answer)  # pyright: ignore[reportArgumentType]
        self._login = login

    async def _initialize(self) -> None:
        """What the library would forget over a restart: until when the token is good, and where it is renewed."""
        await super()._initialize()
        grant = self._login.grant
        if self.context.current_tokens is not None and grant.expires_ms is not None:
            self.context.token_expiry_time = grant.expires_ms / 1000
        if grant.server is not None and self.context.oauth_metadata is None:
            self.context.oauth_metadata = OAuthMetadata.model_validate(grant.server)


class _Kept:
    """The library's storage, on a grant. A client that the configuration names is never registered."""

    def __init__(self, login: Login) -> None:
        self._login = login

    async def get_tokens(self) -> OAuthToken | None:
        tokens = self._login.grant.tokens
        return OAuthToken.model_validate(tokens) if tokens is not None else None

    async def set_tokens(self, tokens: OAuthToken) -> None:
        expires_ms = int((time.time() + tokens.expires_in) * 1000) if tokens.expires_in is not None else None
        self._login.keep(
            msgspec.structs.replace(
                self._login.grant, tokens=tokens.model_dump(mode="json", exclude_none=True), expires_ms=expires_ms
            )
        )

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        settings = self._login.settings
        if settings.client_id:
            return OAuthClientInformationFull(
                client_id=settings.client_id,
                client_secret=settings.client_secret,
                redirect_uris=[AnyUrl(self._login.redirect_uri)],
                token_endpoint_auth_method="client_secret_post" if settings.client_secret else "none",
            )
        client = self._login.grant.client
        if client is None or self._login.redirect_uri not in client.get("redirect_uris", ()):
            return None
        return OAuthClientInformationFull.model_validate(client)

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        client = client_info.model_dump(mode="json", exclude_none=True)
        client.setdefault("redirect_uris", [self._login.redirect_uri])
        self._login.keep(msgspec.structs.replace(self._login.grant, client=client))


def _with_scope(address: str, scope: str | None) -> str:
    """What the configuration says goes before what the server asks for."""
    if scope is None:
        return address
    parts = urlsplit(address)
    query = [(name, value) for name, value in parse_qsl(parts.query) if name != "scope"]
    return urlunsplit(parts._replace(query=urlencode([*query, ("scope", scope)])))
