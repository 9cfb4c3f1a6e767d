"""The typed routes, served from the declarations that document them.

A route is declared once, with Litestar's decorators and annotations. Litestar makes the OpenAPI document of them
(`document`) and serves nothing: for a small request that took more time than all the rest (decision 0085). `Routes` reads
the same declarations when the server starts; a request then costs a walk along its path, a conversion for each parameter
that is no text, and the decoding of its body.

Rules
 1. A declaration that is not understood in full is an error at the start; nothing is left out silently.
 2. All that is wrong with the parameters is said at once; then comes the body, then what the handler finds.
 3. Slashes at the end of a path, or too many of them, do not count.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, cast, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec
from litestar import Response
from litestar.di import Dependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import HeaderParameter, ParameterKwarg, PathParameter, QueryParameter

from holdfast.core.errors import Invalid
from holdfast.server.asgi import HttpScope, Receive, Send, read_body, respond
from holdfast.server.bodies import JsonBody, decode_body
from holdfast.server.errors import Answer, Refused, named

Provider = Callable[..., Awaitable[Any]]
"""Makes the value of a parameter that is a dependency; its own parameters come from the request as well."""

_PATH, _QUERY, _HEADER = 0, 1, 2
_KINDS: Final = {_PATH: "Params", _QUERY: "Query", _HEADER: "Headers"}
_CONSTRAINTS: Final = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")
_SIMPLE: Final = (str, int, float, bool, NoneType)


class Routes:
    """`providers` are the dependencies by name; `body_bytes_max` holds for routes that do not say otherwise. `otherwise`
    may have an answer to (method, path) that no route serves.

    Raises TypeError for a declaration that it cannot serve."""

    def __init__(
        self,
        handlers: Iterable[HTTPRouteHandler],
        providers: Mapping[str, Provider],
        *,
        body_bytes_max: int,
        otherwise: Callable[[str, str], Answer | None] = lambda method, path: None,
    ) -> None:
        self._otherwise = otherwise
        self._root = _Node()
        for handler in handlers:
            for path in handler.paths:
                node, names = self._root.place(path)
                endpoint = _Endpoint(handler, names, providers, body_bytes_max)
                for method in handler.http_methods:
                    if method in node.endpoints:
                        raise TypeError(f"{method} {path} is declared twice.")
                    node.endpoints[str(method)] = endpoint

    async def __call__(
        self, scope: HttpScope, headers: Mapping[bytes, bytes], method: str, receive: Receive, send: Send
    ) -> None:
        """Raises Refused, HoldfastError; before anything is sent."""
        node: _Node | None = self._root
        values: list[str] = []
        for piece in scope["path"].split("/"):
            if piece:
                below = node.pieces.get(piece)
                if below is None:
                    below = node.parameter
                    values.append(piece)
                node = below
                if node is None:
                    break
        if node is None or not node.endpoints:
            answer = self._otherwise(method, scope["path"])
            raise Refused(answer or named(404, f"There is no {method} {scope['path']}"))
        endpoint = node.endpoints.get(method)
        if endpoint is not None:
            await endpoint(scope, headers, values, receive, send)
            return
        allow = (b"allow", ", ".join(sorted({*node.endpoints, "OPTIONS"})).encode())
        if method != "OPTIONS":
            answer = self._otherwise(method, scope["path"])
            raise Refused(answer or named(405, f"{scope['path']} does not know {method}."), [allow])
        await respond(send, 204, headers=[allow])


class _Node:
    """A place in the tree of paths."""

    def __init__(self) -> None:
        self.pieces: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.endpoints: dict[str, _Endpoint] = {}

    def place(self, path: str) -> tuple["_Node", list[str]]:
        """`/session/{sessionID:str}` → its node, and the names of its parameters."""
        node = self
        names: list[str] = []
        for piece in filter(None, path.split("/")):
            if not piece.startswith("{"):
                node = node.pieces.setdefault(piece, _Node())
            elif piece.endswith(":str}"):
                names.append(piece.removeprefix("{").removesuffix(":str}"))
                node.parameter = node = node.parameter or _Node()
            else:
                raise TypeError(f"{path}: a parameter of a path is a text, like {{name:str}}.")
        return node, names


class _Parameter(NamedTuple):
    """`key` is where it stands in the request. `type` None: it is taken as it is."""

    name: str
    source: int
    key: Any
    type: Any
    is_required: bool


class _Endpoint:
    def __init__(
        self,
        handler: HTTPRouteHandler,
        path_names: Sequence[str],
        providers: Mapping[str, Provider],
        body_bytes_max: int,
    ) -> None:
        where = f"{sorted(handler.http_methods)} {sorted(handler.paths)}"
        self._function: Callable[..., Any] = handler.fn
        self._is_async = inspect.iscoroutinefunction(handler.fn)
        self._status = handler.status_code
        self._body_bytes_max = _limit(handler.request_max_body_size, body_bytes_max)
        self._body: Literal["typed", "raw"] | None = None
        self._body_type: Any = None
        self._needs_body = False
        self._takes_scope = False
        self._providers: list[tuple[str, Provider, list[_Parameter]]] = []
        self._parameters: list[_Parameter] = []
        signature = inspect.signature(handler.fn, eval_str=True)
        for parameter in signature.parameters.values():
            self._read(parameter, handler, path_names, providers, where)
        self._looks_in_query = any(
            parameter.source == _QUERY
            for parameters in (self._parameters, *(found[2] for found in self._providers))
            for parameter in parameters
        )
        answer = signature.return_annotation
        kinds = get_args(answer) if get_origin(answer) in (Union, UnionType) else (answer,)
        if not all(kind in (None, Response) or get_origin(kind) in (Response, Callable) for kind in kinds):
            raise TypeError(f"{where}: a handler answers a Response, an ASGI application or None, not {answer}.")

    def _read(
        self,
        parameter: inspect.Parameter,
        handler: HTTPRouteHandler,
        path_names: Sequence[str],
        providers: Mapping[str, Provider],
        where: str,
    ) -> None:
        name = parameter.name
        if name == "data":
            self._body = "typed"
            declared = cast(Any, handler).dto
            if not (isinstance(declared, type) and issubclass(declared, JsonBody)):
                raise TypeError(f"{where}: a body is declared with dto=JsonBody[…].")
            self._body_type = cast(Any, declared).decoded_type or cast(Any, declared).model_type
            self._needs_body = parameter.default is parameter.empty
        elif name == "body":
            self._body = "raw"
        elif name == "scope":
            self._takes_scope = True
        elif any(isinstance(mark, Dependency) for mark in _marks(parameter)):
            provider = providers[name]
            asked = inspect.signature(provider, eval_str=True).parameters.values()
            self._providers.append((name, provider, [_parameter(one, path_names, where) for one in asked]))
        else:
            self._parameters.append(_parameter(parameter, path_names, where))

    async def __call__(
        self, scope: HttpScope, headers: Mapping[bytes, bytes], values: Sequence[str], receive: Receive, send: Send
    ) -> None:
        query: Mapping[str, str] = {}
        if self._looks_in_query and scope["query_string"]:
            query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        sources = (values, query, headers)
        problems: list[tuple[_Parameter, str]] = []
        arguments = _arguments(self._parameters, sources, problems)
        given = [(name, make, _arguments(asked, sources, problems)) for name, make, asked in self._providers]
        if problems:
            raise _refusal(problems)
        if self._body is not None:
            body = await read_body(receive, headers, self._body_bytes_max)
            if self._body == "raw":
                arguments["body"] = body
            elif body:
                arguments["data"] = decode_body(self._body_type, body)
            elif self._needs_body:
                raise Invalid("Send a JSON body.")
        for name, make, asked in given:
            arguments[name] = await make(**asked)
        if self._takes_scope:
            arguments["scope"] = scope
        answer = await self._function(**arguments) if self._is_async else self._function(**arguments)
        if isinstance(answer, Response):
            await _send(send, cast("Response[bytes | str]", answer), self._status)
        elif answer is None:
            await respond(send, self._status)
        else:
            await answer(scope, receive, send)


# --- reading declarations ---------------------------------------------------------------------------------------


def _marks(parameter: inspect.Parameter) -> tuple[Any, ...]:
    return get_args(parameter.annotation)[1:] if get_origin(parameter.annotation) is Annotated else ()


def _parameter(parameter: inspect.Parameter, path_names: Sequence[str], where: str) -> _Parameter:
    marks = [mark for mark in _marks(parameter) if isinstance(mark, ParameterKwarg)]
    if len(marks) != 1:
        raise TypeError(f"{where}: it is not said where {parameter.name} comes from.")
    [mark] = marks
    name = mark.name or parameter.name
    annotation = get_args(parameter.annotation)[0]
    kinds = set(_kinds_of(annotation))
    if not kinds <= {*_SIMPLE, Literal}:
        raise TypeError(f"{where}: {name} is {annotation}, but a parameter is one text, number or truth value.")
    constraints = {key: getattr(mark, key) for key in _CONSTRAINTS if getattr(mark, key) is not None}
    type = None if kinds <= {str, NoneType} and not constraints else _constrained(annotation, constraints)
    msgspec.json.Decoder(type)  # raises TypeError now if it cannot be converted to later
    is_required = parameter.default is parameter.empty
    match mark:
        case PathParameter():
            return _Parameter(parameter.name, _PATH, path_names.index(name), type, is_required)
        case QueryParameter():
            return _Parameter(parameter.name, _QUERY, name, type, is_required)
        case HeaderParameter():
            return _Parameter(parameter.name, _HEADER, name.lower().encode(), type, is_required)
        case _:
            raise TypeError(f"{where}: {name} cannot come from there.")


def _constrained(annotation: Any, constraints: Mapping[str, Any]) -> Any:
    if not constraints:
        return annotation
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    meta = msgspec.Meta(**constraints)
    return Union[*(part if part is NoneType else Annotated[part, meta] for part in parts)]


def _kinds_of(annotation: Any) -> Iterable[Any]:
    if get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _kinds_of(part)
    else:
        yield get_origin(annotation) or annotation


def _limit(declared: object, otherwise: int) -> int:
    return declared if isinstance(declared, int) else otherwise


# --- reading requests -------------------------------------------------------------------------------------------


def _arguments(
    parameters: Sequence[_Parameter],
    sources: tuple[Sequence[str], Mapping[str, str], Mapping[bytes, bytes]],
    problems: list[tuple[_Parameter, str]],
) -> dict[str, Any]:
    """What the request gives. Parameters that it does not have are left to their defaults."""
    arguments: dict[str, Any] = {}
    for parameter in parameters:
        name, source, key, type, is_required = parameter
        if source == _PATH:
            value = sources[_PATH][key]
        elif source == _QUERY:
            value = sources[_QUERY].get(key)
        else:
            header = sources[_HEADER].get(key)
            value = header.decode("latin-1") if header is not None else None
        if value is None:
            if is_required:
                problems.append((parameter, "Missing"))
        elif type is None:
            arguments[name] = value
        else:
            try:
                arguments[name] = msgspec.convert(value, type, strict=False)
            except msgspec.ValidationError as error:
                problems.append((parameter, str(error)))
    return arguments


def _refusal(problems: Sequence[tuple[_Parameter, str]]) -> Refused:
    """`limit: Expected int >= 1; …`"""
    reasons = [f"{_wire_name(parameter)}: {reason}" for parameter, reason in problems]
    kinds = {_KINDS[parameter.source] for parameter, _ in problems}
    return Refused(named(400, "; ".join(reasons), kind=kinds.pop() if len(kinds) == 1 else "Payload"))


def _wire_name(parameter: _Parameter) -> str:
    match parameter.key:
        case bytes() as header:
            return header.decode()
        case str() as name:
            return name
        case _:
            return parameter.name


async def _send(send: Send, answer: Response[bytes | str], status: int) -> None:
    content = answer.content
    media_type = str(answer.media_type)
    if media_type.startswith("text/"):
        media_type += "; charset=utf-8"
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
    headers.append((b"content-type", media_type.encode()))
    body = content.encode() if isinstance(content, str) else content
    await respond(send, answer.status_code or status, body, headers)
