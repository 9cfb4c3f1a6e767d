"""Logging in at a remote MCP server that wants OAuth: its authorization server is written here, the browser is a plain client."""

import asyncio
import contextlib
import secrets
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    RefreshToken,
    construct_redirect_uri,
)
from mcp.server.auth.settings import AuthSettings, ClientRegistrationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from msgspec.structs import replace
from pydantic import AnyHttpUrl

from holdfast.testing.server_process import free_port
from tests.agent.mcp.everything import make
from tests.agent.mcp.servers import on_loopback, serving
from tests.server.harness import Server


class Authority:
    """Says yes to everybody who comes with a browser. What it knows is gone with it; what it gave out is in `issued`."""

    def __init__(self) -> None:
        self.clients: dict[str, OAuthClientInformationFull] = {}
        self.codes: dict[str, AuthorizationCode] = {}
        self.access: dict[str, AccessToken] = {}
        self.refresh: dict[str, RefreshToken] = {}
        self.scopes_asked: list[list[str] | None] = []
        self.renewals = 0

    @property
    def issued(self) -> list[str]:
        client_secrets = [client.client_secret for client in self.clients.values() if client.client_secret]
        return [*self.codes, *self.access, *self.refresh, *client_secrets]

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        return self.clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        self.clients[client_info.client_id] = client_info

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        self.scopes_asked.append(params.scopes)
        code = AuthorizationCode(
            code=f"code-{secrets.token_hex(8)}",
            scopes=params.scopes or [],
            expires_at=time.time() + 600,
            client_id=client.client_id,
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
        )
        self.codes[code.code] = code
        return construct_redirect_uri(str(params.redirect_uri), code=code.code, state=params.state)

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        return self._tokens(client.client_id, authorization_code.scopes)

    async def load_refresh_token(self, client: OAuthClientInformationFull, refresh_token: str) -> RefreshToken | None:
        return self.refresh.get(refresh_token)

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        self.renewals += 1
        return self._tokens(client.client_id, scopes)

    async def load_access_token(self, token: str) -> AccessToken | None:
        return self.access.get(token)

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        raise AssertionError

    def _tokens(self, client_id: str, scopes: list[str]) -> OAuthToken:
        access, refresh = f"access-{secrets.token_hex(8)}", f"refresh-{secrets.token_hex(8)}"
        self.access[access] = AccessToken(
            token=access, client_id=client_id, scopes=scopes, expires_at=int(time.time()) + 3600
        )
        self.refresh[refresh] = RefreshToken(token=refresh, client_id=client_id, scopes=scopes)
        return OAuthToken(access_token=access, refresh_token=refresh, expires_in=3600)


@contextlib.asynccontextmanager
async def protected(authority: Authority, *, registers: bool = True) -> AsyncIterator[str]:
    """An MCP server that lets in only whom the authority knows, and its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = AuthSettings(
        issuer_url=AnyHttpUrl(url),
        resource_server_url=AnyHttpUrl(f"{url}/mcp"),
        client_registration_options=ClientRegistrationOptions(enabled=registers),
        validate_token_resource=False,
    )
    app = make(auth_server_provider=authority, auth=settings).streamable_http_app()
    async with on_loopback(app, port=port):
        yield f"{url}/mcp"


def far(url: str, **oauth: Any) -> dict[str, Any]:
    return {"far": {"type": "remote", "url": url, "oauth": {"callbackPort": free_port(), **oauth}}}


async def browsed(address: str) -> str:
    """Where the browser is sent back to after the user said yes."""
    async with httpx.AsyncClient(timeout=60) as browser:
        answer = await browser.get(address)
    assert answer.status_code == 302, answer.text
    return answer.headers["location"]


async def status(server: Server) -> str:
    return (await server.api.get("/mcp")).json()["far"]["status"]


async def log_in(server: Server) -> str:
    """The code that was used."""
    login = (await server.api.post("/mcp/far/auth")).raise_for_status().json()
    page = parse_qs(urlsplit(await browsed(login["authorizationUrl"])).query)
    assert page["state"] == [login["oauthState"]]
    answer = await server.api.post("/mcp/far/auth/callback", json={"code": page["code"][0]})
    assert answer.json() == {"status": "connected"}
    return page["code"][0]


async def test_the_user_is_sent_to_a_page_and_the_code_that_comes_back_connects_the_server(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    authority = Authority()
    async with protected(authority) as url, serving(tmp_path, far(url), data=tmp_path / "data") as server:
        assert await status(server) == "needs_auth"
        login = (await server.api.post("/mcp/far/auth")).json()
        assert await status(server) == "needs_auth"  # and nobody waits for the user but who asked
        page = parse_qs(urlsplit(await browsed(login["authorizationUrl"])).query)
        answer = await server.api.post("/mcp/far/auth/callback", json={"code": page["code"][0]})
        assert answer.json() == {"status": "connected"}
        tools = server.application.services.mcp.tools(str(tmp_path), ())
        assert "far_add" in {tool.id for tool in tools}

        file = tmp_path / "data" / "mcp-auth.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert not any(secret in file.read_text() for secret in authority.issued)
        assert (await server.api.post("/mcp/far/auth")).json() == {"authorizationUrl": "", "oauthState": ""}
        answers = [(await server.api.get(path)).text for path in ("/mcp", "/config")]
        assert (await server.api.delete("/mcp/far/auth")).json() == {"success": True}
        assert await status(server) == "needs_auth"
        assert not any(token in file.read_text() for token in authority.access)
    logged = "".join(capfd.readouterr())

    assert authority.issued
    assert not [secret for secret in authority.issued if any(secret in text for text in [*answers, logged])]


async def test_what_was_granted_holds_over_a_restart_and_is_renewed(tmp_path: Path):
    authority = Authority()
    async with protected(authority) as url:
        config = far(url)
        async with serving(tmp_path, config, data=tmp_path / "data") as server:
            await log_in(server)
            grants = server.application.services.mcp._grants
            grants.put(f"far {url}", replace(grants.get(f"far {url}"), expires_ms=1))
        for token in authority.access.values():
            token.expires_at = 1
        async with serving(tmp_path, config, data=tmp_path / "data") as server:
            assert await status(server) == "connected"
    assert (authority.renewals, len(authority.clients)) == (1, 1)


async def test_the_browser_may_come_back_to_the_machine_of_the_server(tmp_path: Path):
    authority = Authority()
    async with protected(authority) as url, serving(tmp_path, far(url)) as server:
        await server.listen()
        async with server.events("/event") as events:
            await events.until("server.connected")
            waiting = asyncio.create_task(server.api.post("/mcp/far/auth/authenticate"))
            told = (await events.until("mcp.browser.open.failed"))[-1].json["properties"]
            assert told["mcpName"] == "far"
            back = await browsed(told["url"])
            async with httpx.AsyncClient(timeout=60) as browser:
                forged = back.partition("state=")[0] + "state=forged"
                assert (await browser.get(forged)).status_code == 400
                assert not waiting.done()
                assert "You are logged in" in (await browser.get(back)).text
            assert (await waiting).json() == {"status": "connected"}
            with pytest.raises(httpx.ConnectError):
                async with httpx.AsyncClient(timeout=60) as browser:
                    await browser.get(back)


async def test_a_login_that_the_user_refuses_is_over(tmp_path: Path):
    async with protected(Authority()) as url, serving(tmp_path, far(url)) as server:
        await server.listen()
        async with server.events("/event") as events:
            await events.until("server.connected")
            waiting = asyncio.create_task(server.api.post("/mcp/far/auth/authenticate"))
            told = (await events.until("mcp.browser.open.failed"))[-1].json["properties"]
            query = parse_qs(urlsplit(told["url"]).query)
            async with httpx.AsyncClient(timeout=60) as browser:
                params = {"error": "access_denied", "state": query["state"][0]}
                assert (await browser.get(query["redirect_uri"][0], params=params)).status_code == 400
            answer = (await waiting).json()
            assert answer == {"status": "failed", "error": "The login was refused."}


async def test_a_code_that_is_none_is_not_taken_and_a_new_login_can_begin(tmp_path: Path):
    async with protected(Authority()) as url, serving(tmp_path, far(url)) as server:
        await server.api.post("/mcp/far/auth")
        assert (await server.api.post("/mcp/far/auth/callback", json={"code": ""})).status_code == 400
        answer = (await server.api.post("/mcp/far/auth/callback", json={"code": "made-up"})).json()
        assert answer["status"] == "failed"
        assert answer["error"].startswith("The login failed: Token exchange failed (400)")
        assert (await server.api.post("/mcp/far/auth/callback", json={"code": "made-up"})).status_code == 409
        await log_in(server)


async def test_a_server_that_registers_nobody_needs_a_client_in_the_configuration(tmp_path: Path):
    authority = Authority()
    async with protected(authority, registers=False) as url:
        async with serving(tmp_path, far(url)) as server:
            answer = (await server.api.get("/mcp")).json()["far"]
            assert answer["status"] == "needs_client_registration"
            assert answer["error"].startswith("Registration failed: 404")
            assert (await server.api.post("/mcp/far/auth")).status_code == 409
        config = far(url, clientId="known", clientSecret="s3cret-client", scope="notes:read")
        redirect = f"http://127.0.0.1:{config['far']['oauth']['callbackPort']}/mcp/oauth/callback"
        authority.clients["known"] = OAuthClientInformationFull(
            client_id="known",
            client_secret="s3cret-client",
            redirect_uris=[redirect],  # pyright: ignore[reportArgumentType]
            token_endpoint_auth_method="client_secret_post",
            scope="notes:read",
        )
        async with serving(tmp_path, config) as server:
            await log_in(server)
            assert authority.scopes_asked == [["notes:read"]]


async def test_a_server_without_logins_says_that_it_was_refused(tmp_path: Path):
    async with protected(Authority()) as url:
        config = {"far": {"type": "remote", "url": url, "oauth": False}}
        async with serving(tmp_path, config) as server:
            answer = (await server.api.get("/mcp")).json()["far"]
            assert (answer["status"], "HTTP 401" in answer["error"]) == ("failed", True)
            assert (await server.api.post("/mcp/far/auth")).json() == {"error": "MCP server far does not support OAuth"}
