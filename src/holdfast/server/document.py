"""The OpenAPI document of the typed routes, as Litestar makes it of their declarations."""

from collections.abc import Mapping, Sequence

import msgspec
from litestar import Litestar
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig

from holdfast import __version__
from holdfast.server.routing import Provider


def document(handlers: Sequence[HTTPRouteHandler], providers: Mapping[str, Provider]) -> bytes:
    """As JSON. Takes a good part of a second."""
    described = Litestar(
        route_handlers=handlers,
        dependencies={name: Provide(provider) for name, provider in providers.items()},
        openapi_config=OpenAPIConfig(title="Holdfast", version=__version__, use_handler_docstrings=False),
        logging_config=None,
    )
    return msgspec.json.encode(described.openapi_schema.to_schema())
