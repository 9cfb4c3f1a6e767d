"""A real MCP server with one of everything, for tests: over stdin and stdout when run as a program, or over HTTP (`asgi`)."""

import sys
from typing import Any

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.types import CallToolResult, EmbeddedResource, TextContent, TextResourceContents, ToolAnnotations

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d494844520000000100000001080600000"
    "01f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)


def make(**options: Any) -> MCPServer:
    server = MCPServer("everything", log_level="ERROR", **options)

    @server.tool(description="Adds two numbers.", annotations=ToolAnnotations(read_only_hint=True))
    def add(a: int, b: int) -> int:
        return a + b

    @server.tool(description="Says it again.", structured_output=False)
    def echo(text: str) -> str:
        return text

    @server.tool(name="odd.name/with spaces", description="Has a name that no LLM may write.", structured_output=False)
    def odd() -> str:
        return "odd"

    @server.tool(description="Shows a picture.", structured_output=False)
    def picture() -> Image:
        return Image(data=PIXEL, format="png")

    @server.tool(description="Fails.", structured_output=False)
    def fail(reason: str) -> str:
        raise ValueError(reason)

    @server.tool(description="Returns an embedded resource.")
    def embedded() -> CallToolResult:
        resource = TextResourceContents(uri="note://one", text="from a resource", mime_type="text/plain")
        return CallToolResult(
            content=[TextContent(type="text", text="first"), EmbeddedResource(type="resource", resource=resource)],
            structured_content={"kind": "note"},
        )

    @server.tool(description="Adds the tool `late`, and says so.", structured_output=False)
    async def grow(ctx: Context) -> str:
        server.add_tool(lambda: "late", name="late", description="Came late.", structured_output=False)
        await ctx.session.send_tool_list_changed()
        return "grown"

    @server.prompt(description="Asks for a review.")
    def review(what: str, how: str = "thoroughly") -> str:
        return f"Review {what} {how}."

    @server.resource("note://one", name="note one", description="A note.", mime_type="text/plain")
    def note() -> str:
        return "the note"

    return server


if __name__ == "__main__":
    print("ready", file=sys.stderr)
    make().run()
