"""Parameters that many routes share, and what their answers are documented to be."""

from typing import Annotated, Any, Final
from urllib.parse import unquote

from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import HeaderParameter, PathParameter, QueryParameter, SkipValidation

from holdfast.core.errors import Invalid
from holdfast.core.wire import Wire
from holdfast.server.errors import NamedError, TaggedError
from holdfast.service.instances import Instance, Instances

LIMIT_MAX: Final = 1_000_000

SessionId = Annotated[str, PathParameter(name="sessionID", description="`ses_…`")]
MessageId = Annotated[str, PathParameter(name="messageID", description="`msg_…`")]
RequestId = Annotated[str, PathParameter(name="requestID", description="`per_…` or `que_…`")]

DirectoryQuery = Annotated[
    str | None, QueryParameter(name="directory", description="Absolute path of the project directory.")
]
DirectoryHeader = Annotated[
    str | None,
    HeaderParameter(
        name="x-opencode-directory", description="The same as a header, URL-encoded; the query goes first."
    ),
]

InstanceOfRequest = NamedDependency[SkipValidation[Instance]]
"""The instance of the directory that the request names. Routes take it as `instance`."""


class InstanceProvider:
    """The dependency behind `InstanceOfRequest`."""

    def __init__(self, instances: Instances) -> None:
        self._instances = instances

    async def __call__(self, directory: DirectoryQuery = None, directory_header: DirectoryHeader = None) -> Instance:
        return await self._instances.open(directory or decoded(directory_header))


LocationQuery = Annotated[
    str | None, QueryParameter(name="location[directory]", description="Absolute path of the project directory.")
]

InstanceOfLocation = NamedDependency[SkipValidation[Instance]]
"""The same for routes below `/api/`, which name the directory as `location[directory]`. Routes take it as `located`."""


class LocationProvider:
    """The dependency behind `InstanceOfLocation`."""

    def __init__(self, instances: Instances) -> None:
        self._instances = instances

    async def __call__(self, location: LocationQuery = None, directory_header: DirectoryHeader = None) -> Instance:
        return await self._instances.open(location or decoded(directory_header))


def decoded(header: str | None) -> str | None:
    if header is None:
        return None
    try:
        return unquote(header, errors="strict")
    except UnicodeDecodeError:
        raise Invalid("x-opencode-directory is not URL-encoded UTF-8.", field="directory") from None


def documented(
    shape: Any,
    description: str = "Done.",
    *,
    missing: str | None = None,
    missing_shape: type[Wire] = NamedError,
    invalid_shape: type[Wire] = NamedError,
    status: int = 200,
    media_type: str = "application/json",
) -> dict[str, Any]:
    """The keyword arguments of a route that answers with this type; `missing` is what a 404 means, if there is one."""
    responses = {
        status: ResponseSpec(shape, generate_examples=False, description=description, media_type=media_type),
        400: ResponseSpec(
            invalid_shape, generate_examples=False, description="The request is wrong; the message says where."
        ),
    }
    if missing is not None:
        responses[404] = ResponseSpec(missing_shape, generate_examples=False, description=missing)
    return {"status_code": status, "responses": responses}


def documented_second(shape: Any, description: str = "Done.", **more: Any) -> dict[str, Any]:
    """The same for a route of the second API, whose errors are all tagged."""
    return documented(shape, description, **more, missing_shape=TaggedError, invalid_shape=TaggedError)
