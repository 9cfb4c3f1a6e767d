"""The HTTP server and the faces it shows."""

from holdfast.server.app import routes

__all__ = ["routes"]
