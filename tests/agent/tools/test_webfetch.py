"""The tool `webfetch` against a server of our own, and what it makes of pages."""

import asyncio
import base64
import gzip
import ipaddress
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.agent.tools import ToolFailure, ToolResult, page_worker, webfetch
from holdfast.agent.tools.page_worker import Page
from holdfast.agent.tools.webfetch import BYTES_MAX, WebFetch, is_not_read
from holdfast.testing.loop_time import let_pass
from tests.agent.tools.hosts import Session


class Web:
    """Answers each path with the bytes it was given, or lets a function do it."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes | Callable[[asyncio.StreamWriter], Any]] = {}
        self.requests: list[str] = []
        self.port = 0

    def page(self, path: str, body: bytes, type: str = "text/html", status: str = "200 OK", **headers: str) -> str:
        lines = [f"HTTP/1.1 {status}", f"Content-Type: {type}", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.pages[path] = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        return self.url(path)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(head)
        answer = self.pages.get(head.split()[1], b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        try:
            if callable(answer):
                await answer(writer)
            else:
                writer.write(answer)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    web = Web()
    server = await asyncio.start_server(web.serve, "127.0.0.1", 0)
    web.port = server.sockets[0].getsockname()[1]
    yield web
    server.close()


async def fetch(session: Session, url: str, **input: Any) -> ToolResult:
    return await session.call(WebFetch(), url=url, **input)


async def test_a_page_comes_as_markdown_as_text_or_as_it_is(session: Session, web: Web) -> None:
    html = "<html><head><title>t</title></head><body><h1>Hé</h1><p>a <b>b</b></p></body></html>"
    url = web.page("/a", html.encode())

    result = await fetch(session, url)

    assert result.output == "# Hé\n\na **b**\n"
    assert result.title == f"{url} (text/html)"
    assert result.metadata == {"truncated": False}
    assert (await fetch(session, url, format="text")).output == "Hé\n\na b\n"
    assert (await fetch(session, url, format="html")).output == html
    assert "cookie" not in web.requests[0].lower()


async def test_what_is_no_page_comes_as_it_is(session: Session, web: Web) -> None:
    assert (await fetch(session, web.page("/j", b'{"a": 1}', "application/json"))).output == '{"a": 1}'
    assert (await fetch(session, web.page("/t", b"<b>", "text/plain"))).output == "<b>"
    with pytest.raises(ToolFailure, match="of type application/zip, which cannot be shown"):
        await fetch(session, web.page("/z", b"PK", "application/zip"))


@pytest.mark.parametrize(
    ("address", "not_read"),
    [
        ("169.254.169.254", True),
        ("::ffff:169.254.169.254", True),
        ("fe80::1%eth0", True),
        ("fd00:ec2::254", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("fd00::1", False),
        ("", False),
    ],
)
def test_the_addresses_at_which_clouds_keep_credentials(address: str, not_read: bool) -> None:
    assert is_not_read(address) == not_read


async def test_where_a_name_leads_counts_and_a_page_from_there_is_not_told(
    session: Session, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = web.page("/latest", b"credentials", "text/plain")
    monkeypatch.setattr(webfetch, "_NOT_READ", (ipaddress.ip_network("127.0.0.0/8"),))
    for url in (secret, web.url("/latest", host="localhost"), web.url("/latest", host="2130706433")):
        with pytest.raises(ToolFailure, match="nothing is read"):
            await fetch(session, url)


async def test_the_charset_is_the_one_declared(session: Session, web: Web) -> None:
    assert (await fetch(session, web.page("/1", b"caf\xe9", "text/plain; charset=latin-1"))).output == "café"
    page = b'<meta charset="windows-1252"><p>\x80</p>'
    assert (await fetch(session, web.page("/2", page))).output == "€\n"
    assert (await fetch(session, web.page("/3", b"\xff", "text/plain; charset=nonsense"))).output == "�"


async def test_an_image_is_attached(session: Session, web: Web) -> None:
    result = await fetch(session, web.page("/i", b"\x89PNG", "image/png"))

    (attachment,) = result.attachments
    assert attachment.mime == "image/png"
    assert attachment.url == "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()


async def test_a_long_page_is_shortened_and_kept_in_a_file(session: Session, web: Web) -> None:
    result = await fetch(session, web.page("/l", b"line\n" * 100_000, "text/plain"))

    assert len(result.output) < 60_000
    assert result.metadata["truncated"] is True
    assert Path(result.metadata["outputPath"]).stat().st_size == 500_000


# --- limits -----------------------------------------------------------------------------------------------------


async def test_more_than_5_mb_are_refused(session: Session, web: Web) -> None:
    with pytest.raises(ToolFailure, match="more than 5 MB"):
        await fetch(session, web.page("/b", b"x" * (BYTES_MAX + 1), "text/plain"))


async def test_an_answer_without_end_is_given_up_at_the_limit(session: Session, web: Web) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            writer.write(b"x" * 100_000)
            await writer.drain()

    web.pages["/endless"] = endless
    with pytest.raises(ToolFailure, match="more than 5 MB"):
        await fetch(session, web.url("/endless"))


async def test_packed_content_does_not_grow_over_the_limit(session: Session, web: Web) -> None:
    assert (
        await fetch(session, web.page("/g", gzip.compress(b"hi"), "text/plain", Content_Encoding="gzip"))
    ).output == "hi"
    bomb = web.page("/bomb", gzip.compress(b"\0" * 200_000_000), "text/plain", Content_Encoding="gzip")
    tracemalloc.start()
    with pytest.raises(ToolFailure, match="more than 5 MB"):
        await fetch(session, bomb)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most < 50_000_000
    with pytest.raises(ToolFailure, match="damaged content"):
        await fetch(session, web.page("/d", b"no gzip", "text/plain", Content_Encoding="gzip"))
    with pytest.raises(ToolFailure, match=r"packed content \(br\)"):
        await fetch(session, web.page("/br", b"x", "text/plain", Content_Encoding="br"))


async def test_a_server_that_does_not_answer_is_given_up_after_the_timeout(session: Session, web: Web) -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        let_pass(20)
        await asyncio.sleep(60)

    web.pages["/silent"] = silent
    with pytest.raises(ToolFailure, match=r"did not answer within 20 s"):
        await fetch(session, web.url("/silent"), timeout=20)


# --- where it goes ----------------------------------------------------------------------------------------------


async def test_redirects_on_the_same_host_are_followed(session: Session, web: Web) -> None:
    web.page("/a", b"", status="302 Found", Location="/b")
    web.page("/b", b"", status="301 Moved", Location=web.url("/c?x=1"))
    web.page("/c?x=1", b"here", "text/plain")

    result = await fetch(session, web.url("/a"))

    assert result.output == "here"
    assert result.title.startswith(web.url("/c?x=1"))


async def test_a_redirect_to_another_place_is_told_and_not_followed(session: Session, web: Web) -> None:
    """The user allowed one host; the next may be a service of the cloud that gives out credentials."""
    for target in (web.url("/secret", "localhost"), "http://127.0.0.1:1/", "file:///etc/passwd", "//localhost/x"):
        web.page("/a", b"", status="302 Found", Location=target)
        with pytest.raises(ToolFailure, match=r"is redirected to|begins with http"):
            await fetch(session, web.url("/a"))

    assert all(request.startswith("GET /a ") for request in web.requests)


async def test_redirects_in_a_circle_end(session: Session, web: Web) -> None:
    web.page("/a", b"", status="302 Found", Location="/a")

    with pytest.raises(ToolFailure, match="more than 5 times"):
        await fetch(session, web.url("/a"))
    assert len(web.requests) == 6


@pytest.mark.parametrize(
    ("url", "pattern", "always"),
    [
        ("https://Docs.Example.com", "https://docs.example.com/", "https://docs.example.com/*"),
        ("http://example.com:80/a/../b?q=1#f", "http://example.com/b?q=1", "http://example.com/*"),
        ("http://localhost:3000/x", "http://localhost:3000/x", "http://localhost:3000/*"),
    ],
)
async def test_the_user_is_asked_for_the_url_that_is_requested(
    session: Session, url: str, pattern: str, always: str
) -> None:
    (ask,) = await WebFetch().asks({"url": url}, session.context)

    assert (ask.permission, ask.patterns, ask.always) == ("webfetch", (pattern,), (always,))


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/",
        "example.com",
        "http://",
        "http:///path",
        "http://user:secret@example.com/",
        "http://docs.example.com@evil.example/",
        "http://exa mple.com/",
        "http://[::1",
        "javascript:alert(1)",
    ],
)
async def test_what_is_no_url_of_the_web_is_refused(session: Session, url: str) -> None:
    with pytest.raises(ToolFailure) as failure:
        await WebFetch().asks({"url": url}, session.context)
    assert "secret" not in failure.value.message.replace("must not hold secrets", "")


async def test_errors_are_told(session: Session, web: Web) -> None:
    with pytest.raises(ToolFailure, match="answered 404 Not Found"):
        await fetch(session, web.url("/none"))
    with pytest.raises(ToolFailure, match="could not be fetched"):
        await fetch(session, "http://127.0.0.1:1/")


# --- pages ------------------------------------------------------------------------------------------------------


def markdown(html: str, *, text: bool = False) -> str:
    page = Page(markdown=not text)
    page.feed(html)
    page.close()
    return page.text()


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>a\n   b</p><p>c<br>d</p>", "a b\n\nc\nd\n"),
        ("<h2> A  <a href='#x'>#</a></h2>x", "## A #\n\nx\n"),
        ("<a href='/x y'>link</a> <em>e</em> <code>c</code>", "[link](/x%20y) *e* `c`\n"),
        ("<ul><li>a</li><li>b<ol><li>c</li><li>d</li></ol></li></ul><p>e", "- a\n- b\n  1. c\n  2. d\n\ne\n"),
        ("<li><p>a</p><p>b</p></li>", "- a\n\n  b\n"),
        ("<pre>  a\n\tb\n</pre>", "```\n  a\n\tb\n```\n"),
        ("<pre><code>a <b>b</b></code></pre>", "```\na b\n```\n"),
        ("<blockquote><p>a</p><p>b</p></blockquote>", "> a\n\n> b\n"),
        (
            "<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>",
            "| a | b |\n| --- | --- |\n| 1 | 2 |\n",
        ),
        ("<img alt='A' src='a.png'>", "![A](a.png)\n"),
        ("a<hr>b", "a\n\n---\n\nb\n"),
        ("<script>x</script><style>y</style><svg><text>z</text></svg>w &amp; &#233;", "w & é\n"),
        ("<head><title>t</title><style>s</style></head>a", "a\n"),
        ("<head><meta charset=utf-8><title>t</title><body><p>a", "a\n"),
        ("<head><title>t</title><script>x</script><h1>a</h1>b", "# a\n\nb\n"),
        ("", "\n"),
    ],
)
def test_markdown_of_a_page(html: str, expected: str) -> None:
    assert markdown(html) == expected


def test_text_of_a_page_has_no_marks() -> None:
    html = "<h1>A</h1><p><b>b</b> <a href='x'>c</a></p><pre>d</pre><table><tr><td>1</td><td>2</td></tr></table>"

    assert markdown(html, text=True) == "A\n\nb c\n\nd\n\n1 | 2\n"


names = [
    "p",
    "b",
    "a",
    "ul",
    "ol",
    "li",
    "pre",
    "table",
    "tr",
    "td",
    "h1",
    "blockquote",
    "br",
    "code",
    "div",
    "hr",
    "img",
]
tags = st.one_of(*(st.sampled_from([f"<{name}>", f"</{name}>"]) for name in names))


@given(st.lists(st.one_of(tags, st.sampled_from(["one", "two", "three", " ", "\n"])), max_size=30), st.booleans())
@settings(deadline=None)
def test_no_word_of_a_page_is_lost(parts: list[str], text: bool) -> None:
    """Whatever the tags and their order, all words are there, in order."""
    page = markdown("".join(parts), text=text)

    words = "".join(part for part in parts if part in ("one", "two", "three"))
    assert "".join(c for c in page if c.isalpha()) == words


@given(st.lists(st.one_of(tags, st.text("ab <&\0\n*!-/[]", max_size=6)), max_size=30), st.booleans())
@settings(deadline=None)
def test_any_page_gives_some_text(parts: list[str], text: bool) -> None:
    assert "\0" not in markdown("".join(parts), text=text)


def test_the_worker_needs_nothing_but_the_standard_library() -> None:
    ended = subprocess.run(
        [sys.executable, "-I", "-S", page_worker.__file__, "markdown"],
        input="<h1>é</h1>".encode(),
        capture_output=True,
        check=True,
        env={},
    )
    assert ended.stdout.decode() == "# é\n"
