"""The command line."""

from holdfast.cli.commands import app

__all__ = ["app"]
