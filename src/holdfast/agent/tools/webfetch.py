"""The tool `webfetch`: reads a page of the web.

Rules: only http and https; a redirect is followed on the same host, where the user's permission holds, and told when it
leads to another; bounded in time and size; a page is converted by a program of its own (`page_worker`). Permission is
asked for the URL as it is requested, so "always" is for its host and nothing that only looks like it. Addresses of this
machine and its network are not treated apart: documentation is often served there, and a rule on `webfetch` can forbid it.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import re
import sys
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

import holdfast
from holdfast.agent.permissions import Ask
from holdfast.agent.programs import run
from holdfast.agent.tools import page_worker
from holdfast.agent.tools.base import ToolContext, ToolFailure, ToolResult
from holdfast.agent.tools.results import result
from holdfast.core.messages import FilePart, ToolPart

if TYPE_CHECKING:
    import httpx

SECONDS: Final = 30
SECONDS_MAX: Final = 120
BYTES_MAX: Final = 5 * 1024 * 1024
REDIRECTS_MAX: Final = 5
URL_CHARACTERS_MAX: Final = 8000

_IMAGES: Final = frozenset(("image/png", "image/jpeg", "image/gif", "image/webp"))
_TEXTS: Final = re.compile(r"text/.*|application/(.*\+)?(json|xml|yaml|javascript|ecmascript|toml|x-yaml|x-sh)")
_PAGES: Final = frozenset(("text/html", "application/xhtml+xml"))
_CHARSET: Final = re.compile(rb"<meta[^>]{0,200}charset=[\"']?([\w-]{1,40})", re.IGNORECASE)
_NOT_IN_URLS: Final = re.compile(r"[\s\\\x00-\x1f\x7f]")
_PACKINGS: Final = ("gzip", "x-gzip", "deflate")
_ANY_ZLIB_FORMAT: Final = 32 + zlib.MAX_WBITS
_NOT_READ: Final = tuple(map(ipaddress.ip_network, ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128")))
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class _Page(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    type: str
    charset: str | None
    data: bytes


class WebFetch:
    id = "webfetch"
    repeatable = True
    description = f"""\
Reads a page of the web, or anything else that a URL leads to: text, JSON, an image.

- Pages come as Markdown, unless `format` is text or html.
- Only GET, at most {BYTES_MAX // 1024 // 1024} MB, without cookies or credentials. It does not run scripts.
- When the page is now on another host, the result says where: call it again with that URL.
- For pages that need more than this, use a program with the bash tool."""
    parameters: dict[str, Any] = {  # noqa: RUF012 - the port's shape; nobody writes to it
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "url": {
                "type": "string",
                "minLength": 1,
                "maxLength": URL_CHARACTERS_MAX,
                "description": "The whole URL, with http:// or https://",
            },
            "format": {
                "type": "string",
                "enum": ["text", "markdown", "html"],
                "default": "markdown",
                "description": "How to give a page (default markdown)",
            },
            "timeout": {
                "type": "number",
                "description": f"After how many seconds to give up (default {SECONDS}, at most {SECONDS_MAX})",
            },
        },
        "required": ["url"],
    }

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        url = _parsed(input["url"])
        always = str(url.copy_with(path="/*", query=None))
        return [Ask(permission=self.id, patterns=(str(url),), always=(always,), metadata=input)]

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        url, format = _parsed(input["url"]), input.get("format", "markdown")
        seconds = min(float(input.get("timeout") or SECONDS), SECONDS_MAX)
        if seconds <= 0:
            seconds = SECONDS
        try:
            async with asyncio.timeout(seconds):
                page = await _fetched(url, format)
        except TimeoutError:
            raise ToolFailure(
                f"{url} did not answer within {seconds:g} s. Try again later, or with a larger timeout."
            ) from None
        title = f"{page.url} ({page.type or 'unknown type'})"
        if page.type in _IMAGES:
            return ToolResult(
                title=title,
                output="The image is attached.",
                metadata={"truncated": False},
                attachments=(_attachment(page, context),),
            )
        if page.type and not _TEXTS.fullmatch(page.type):
            raise ToolFailure(
                f"{page.url} is of type {page.type}, which cannot be shown. Use a program with the bash tool."
            )
        text = _decoded(page)
        if page.type in _PAGES and format != "html":
            text = await _converted(text, format, page.url)
        return await result(context, title=title, output=text, metadata={})

    async def clean_up(self, part: ToolPart) -> None:
        """It only read."""


# --- the request ------------------------------------------------------------------------------------------------


def _parsed(text: str) -> httpx.URL:
    import httpx

    text = text.strip()
    if _NOT_IN_URLS.search(text):
        raise ToolFailure("A URL holds no spaces, control characters or backslashes: write %20 for a space.")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise ToolFailure(f"This is not a URL: {error}") from error
    if url.scheme not in _DEFAULT_PORTS or not url.host:
        raise ToolFailure("A URL to fetch begins with http:// or https:// and the name of a host.")
    if url.userinfo:
        raise ToolFailure("A URL with a user name or password is not fetched: what is recorded must not hold secrets.")
    return url.copy_with(fragment=None, raw_path=url.raw_path)  # without a path it is /, and has to look like it


async def _fetched(url: httpx.URL, format: str) -> _Page:
    import httpx

    headers = {
        "User-Agent": f"holdfast/{holdfast.__version__}",
        "Accept": "text/html, text/*;q=0.9, */*;q=0.5"
        if format == "html"
        else "text/markdown, text/html, text/*, */*;q=0.5",
        "Accept-Encoding": "identity",  # what is small on the way can be huge when unpacked
    }
    try:
        async with httpx.AsyncClient(headers=headers, follow_redirects=False, timeout=None) as client:
            for _ in range(REDIRECTS_MAX + 1):
                async with client.stream("GET", url) as response:
                    _check_address(url, response)
                    if response.has_redirect_location:
                        url = _redirected(url, response)
                        continue
                    return await _body(response)
    except httpx.HTTPError as error:
        raise ToolFailure(f"{url} could not be fetched: {error or type(error).__name__}.") from error
    raise ToolFailure(f"The page is redirected more than {REDIRECTS_MAX} times; the last one leads to {url}.")


def _check_address(url: httpx.URL, response: httpx.Response) -> None:
    """Where the connection went, after all names were looked up."""
    stream = response.extensions.get("network_stream")
    peer = stream.get_extra_info("server_addr") if stream is not None else None
    if isinstance(peer, tuple) and peer and is_not_read(str(cast(tuple[object, ...], peer)[0])):
        raise ToolFailure(f"{url} is at an address from which nothing is read: clouds keep credentials there.")


def is_not_read(address: str) -> bool:
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return any(ip in network for network in _NOT_READ)


def _redirected(url: httpx.URL, response: httpx.Response) -> httpx.URL:
    """On the same host only, and never from https to http."""
    target = _parsed(str(url.join(response.headers["location"])))
    same_port = _port(target) == _port(url) or (url.scheme, target.scheme) == ("http", "https")
    if target.host != url.host or not same_port or (url.scheme, target.scheme) == ("https", "http"):
        raise ToolFailure(f"{url} is redirected to {target}. If that is the page you want, fetch this URL.")
    return target


def _port(url: httpx.URL) -> int:
    return url.port or _DEFAULT_PORTS[url.scheme]


async def _body(response: httpx.Response) -> _Page:
    if response.status_code >= 400:
        raise ToolFailure(f"{response.url} answered {response.status_code} {response.reason_phrase}.")
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    unpacker = zlib.decompressobj(_ANY_ZLIB_FORMAT) if packing in _PACKINGS else None
    if unpacker is None and packing != "identity":
        raise ToolFailure(
            f"{response.url} answered with packed content ({packing[:50]}), which it was asked not to do."
        )
    pieces: list[bytes] = []
    size = 0
    async for piece in response.aiter_raw():
        if unpacker is not None:
            try:  # never more at once than is allowed in all
                piece = unpacker.decompress(piece, BYTES_MAX + 1)
            except zlib.error as error:
                raise ToolFailure(f"{response.url} answered with damaged content: {error}.") from error
        size += len(piece)
        if size > BYTES_MAX:
            raise ToolFailure(
                f"{response.url} has more than {BYTES_MAX // 1024 // 1024} MB. Fetch it with a program with the bash tool."
            )
        pieces.append(piece)
    return _Page(
        url=str(response.url),
        type=response.headers.get("content-type", "").partition(";")[0].strip().lower(),
        charset=response.charset_encoding,
        data=b"".join(pieces),
    )


# --- the content ------------------------------------------------------------------------------------------------


def _decoded(page: _Page) -> str:
    declared = _CHARSET.search(page.data[:4096]) if page.type in _PAGES and page.charset is None else None
    charset = page.charset or (declared[1].decode() if declared else "utf-8")
    try:
        return page.data.decode(charset, errors="replace")
    except (LookupError, ValueError):  # there is no such charset, or it is one of Python's that is no text
        return page.data.decode(errors="replace")


async def _converted(text: str, format: str, url: str) -> str:
    try:
        ended = await run(
            *(sys.executable, "-I", "-S", page_worker.__file__, format),
            directory="/",
            environment={},
            seconds_max=page_worker.SECONDS_MAX,
            output_bytes_max=4 * BYTES_MAX,
            input=text.encode(errors="replace"),
        )
    except TimeoutError:
        ended = None
    if ended is None or ended.status != 0:
        raise ToolFailure(f"{url} could not be converted. Fetch it with format html.")
    return ended.output.decode(errors="replace")


def _attachment(page: _Page, context: ToolContext) -> FilePart:
    return FilePart(
        id=f"{context.part_id}-1",
        session_id=context.session_id,
        message_id=context.message_id,
        mime=page.type,
        url=f"data:{page.type};base64,{base64.b64encode(page.data).decode()}",
    )
