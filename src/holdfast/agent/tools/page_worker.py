"""Makes Markdown or plain text of an HTML page: `python -I -S page_worker.py markdown|text`.

A program of its own, because a hostile page can keep Python's HTML parser busy for very long: whoever started it ends it.
Imports only the standard library. Standard input: the page in UTF-8. Standard output: the text in UTF-8.
"""

import re
import resource
import sys
from html.parser import HTMLParser

SECONDS_MAX = 10
_DEPTH_MAX = 100

_LEFT_OUT = frozenset(("script", "style", "noscript", "template", "svg", "math", "iframe", "object", "select"))
_OF_HEAD = frozenset(("title", "base", "link", "meta", "script", "style", "noscript", "template"))
"""Any other tag ends the head of a page, which need not be closed."""
_BLOCKS = frozenset(
    (
        *(
            "address",
            "article",
            "aside",
            "blockquote",
            "body",
            "dd",
            "details",
            "div",
            "dl",
            "dt",
            "fieldset",
            "figcaption",
        ),
        *(
            "figure",
            "footer",
            "form",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "header",
            "hr",
            "html",
            "li",
            "main",
            "nav",
            "ol",
        ),
        *("p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul"),
    )
)
_MARKS = {"strong": "**", "b": "**", "em": "*", "i": "*", "code": "`", "del": "~~", "s": "~~"}
_VOID = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")
)


class Page(HTMLParser):
    """Text as it comes, in blocks. White space is what HTML makes of it, except in `pre`."""

    def __init__(self, *, markdown: bool) -> None:
        super().__init__(convert_charrefs=True)
        self._markdown = markdown
        self._blocks: list[str] = []
        self._line: list[str] = []
        self._left_out = 0
        self._in_head = False
        self._pre = 0
        self._quotes = 0
        self._lists: list[int | None] = []
        self._first = ""  # what the next block of a list item begins with
        self._indent = ""  # what its other lines begin with
        self._links: list[str] = []
        self._cells = 0
        self._rows = 0

    def text(self) -> str:
        self._end_block()
        text = "\n\n".join(self._blocks)
        # Items of a list and rows of a table stand together.
        return re.sub(r"\n\n(?=\x00)", "\n", text).replace("\x00", "").strip() + "\n"

    # --- tags

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _LEFT_OUT:
            self._left_out += 1
            return
        if self._left_out:
            return
        self._in_head = tag == "head" or (self._in_head and tag in _OF_HEAD)
        if tag in _BLOCKS:
            self._end_block()
        attributes = dict(attrs)
        if tag == "br":
            self._line.append("\n")
        elif tag == "hr":
            self._add("---" if self._markdown else "")
        elif tag == "pre":
            self._pre += 1
        elif tag == "blockquote":
            self._quotes += 1
        elif tag in ("ul", "ol"):
            self._lists.append(0 if tag == "ol" else None)
        elif tag == "li":
            self._begin_item()
        elif tag in ("td", "th"):
            self._cells += 1
            if self._cells > 1:
                self._line.append(" | ")
        elif tag == "tr":
            self._cells = 0
        elif tag == "table":
            self._rows = 0
        elif self._markdown:
            self._begin_inline(tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        if tag in _LEFT_OUT:
            self._left_out = max(0, self._left_out - 1)
            return
        if tag == "head":
            self._in_head = False
        if self._left_out or tag in _VOID:
            return
        if self._markdown and tag == "tr" and self._cells:
            self._end_row()
        elif self._markdown and len(tag) == 2 and tag[0] == "h" and tag[1] in "123456":
            heading = " ".join("".join(self._line).split())
            self._line = [f"{'#' * int(tag[1])} {heading}"] if heading else []
        if tag in _BLOCKS:
            self._end_block()
        if tag == "pre":
            self._pre = max(0, self._pre - 1)
        elif tag == "blockquote":
            self._quotes = max(0, self._quotes - 1)
        elif tag in ("ul", "ol") and self._lists:
            self._lists.pop()
            self._first = ""
            self._indent = self._indent[:-2] if self._lists else ""
        elif tag == "li":
            self._first = ""
        elif self._markdown and tag == "a" and self._links:
            target = self._links.pop()
            if target:
                self._line.append(f"]({target})")
        elif self._markdown and tag in _MARKS and not self._pre:
            self._line.append(_MARKS[tag])

    def handle_data(self, data: str) -> None:
        if not self._left_out and not self._in_head:
            self._line.append(
                data.replace("\x00", "") if self._pre else re.sub(r"[ \t\n\r\f]+", " ", data).replace("\x00", "")
            )

    # --- blocks

    def _begin_inline(self, tag: str, attributes: dict[str, str | None]) -> None:
        if tag == "a":
            target = attributes.get("href") or ""
            target = "" if target.startswith(("#", "javascript:")) else target.replace(" ", "%20").replace(")", "%29")
            self._links.append(target)
            if target:
                self._line.append("[")
        elif tag == "img" and attributes.get("alt"):
            self._line.append(f"![{attributes['alt']}]({attributes.get('src') or ''})")
        elif tag in _MARKS and not self._pre:
            self._line.append(_MARKS[tag])

    def _begin_item(self) -> None:
        depth = min(max(1, len(self._lists)), _DEPTH_MAX)
        number = self._lists[-1] if self._lists else None
        if number is not None:
            self._lists[-1] = number + 1
        self._indent = "  " * depth
        self._first = "\x00" + "  " * (depth - 1) + ("- " if number is None else f"{number + 1}. ")

    def _end_row(self) -> None:
        row = "".join(self._line).strip()
        self._rows += 1
        self._line = [f"\x00| {row} |"]
        if self._rows == 1:
            self._line.append(f"\n|{' --- |' * self._cells}")

    def _end_block(self) -> None:
        text = "".join(self._line)
        self._line = []
        if self._pre:
            body = text.strip("\n")
            if body.strip():
                self._add(f"```\n{body}\n```" if self._markdown else body)
            return
        lines = [" ".join(line.split(" ")).strip() for line in text.split("\n")]
        body = re.sub(r" {2,}", " ", "\n".join(lines)).strip()
        if body.strip("*`~"):
            self._add(body)

    def _add(self, body: str) -> None:
        if not body:
            return
        starts_row = body.startswith("\x00")
        lines = body.removeprefix("\x00").split("\n")
        first, self._first = self._first or self._indent, ""
        quote = "> " * min(self._quotes, _DEPTH_MAX) if self._markdown else ""
        joined = [quote + (first.lstrip("\x00") if n == 0 else self._indent) + line for n, line in enumerate(lines)]
        together = starts_row or first.startswith("\x00")
        self._blocks.append(("\x00" if together and self._blocks else "") + "\n".join(joined))


def main() -> int:
    # Should the server die, nobody ends us: then the kernel does.
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS_MAX + 5, SECONDS_MAX + 5))
    page = Page(markdown=sys.argv[1] == "markdown")
    page.feed(sys.stdin.buffer.read().decode(errors="replace"))
    page.close()
    sys.stdout.buffer.write(page.text().encode(errors="replace"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
