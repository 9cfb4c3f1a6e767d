"""What a client sees of MCP servers: how each is, and what it offers. Shapes as in OpenCode's V1 API."""

from holdfast.core.wire import Wire


class McpConnected(Wire, tag_field="status", tag="connected"):
    """Its tools can be called."""


class McpDisabled(Wire, tag_field="status", tag="disabled"):
    """The configuration or the user switched it off."""


class McpFailed(Wire, tag_field="status", tag="failed"):
    """It could not be reached, or went away. It is tried again by itself."""

    error: str


class McpNeedsAuth(Wire, tag_field="status", tag="needs_auth"):
    """The user has to log in there first."""


class McpNeedsClientRegistration(Wire, tag_field="status", tag="needs_client_registration"):
    """It does not register clients by itself: `oauth.clientId` is missing in the configuration."""

    error: str


McpStatus = McpConnected | McpDisabled | McpFailed | McpNeedsAuth | McpNeedsClientRegistration


class McpResource(Wire):
    """Something a server offers to read. `client` is the server's name."""

    name: str
    uri: str
    description: str | None = None
    mime_type: str | None = None
    client: str
