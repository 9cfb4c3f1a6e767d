"""`/tui/*`: remote control of the TUIs that follow a directory. What they are told is not recorded: it is about a screen, not
about a session, and whoever is not there does not hear of it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from holdfast.core.codec import to_json
from holdfast.core.errors import Unavailable
from holdfast.core.wire import Wire
from holdfast.server.bodies import JsonBody, answer
from holdfast.server.opencode.parameters import InstanceOfRequest, documented
from holdfast.server.opencode.sessions import NO_SESSION
from holdfast.service.sessions import SessionService

Announce = Callable[[str, str, bytes], None]
"""(directory, type of the event, its properties as JSON)."""

_WAIT_SECONDS: Final = 20.0
_WAITING_MAX: Final = 64
_TOAST_MS: Final = 5000

# Names of commands that clients know from before commands were named after what they act on.
_OLD_NAMES: Final[Mapping[str, str]] = {
    "session_new": "session.new",
    "session_share": "session.share",
    "session_interrupt": "session.interrupt",
    "session_compact": "session.compact",
    "messages_page_up": "session.page.up",
    "messages_page_down": "session.page.down",
    "messages_line_up": "session.line.up",
    "messages_line_down": "session.line.down",
    "messages_half_page_up": "session.half.page.up",
    "messages_half_page_down": "session.half.page.down",
    "messages_first": "session.first",
    "messages_last": "session.last",
    "agent_cycle": "agent.cycle",
}

_COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "/tui/open-help": ("help.show", "Open the help"),
    "/tui/open-sessions": ("session.list", "Open the list of sessions"),
    "/tui/open-themes": ("theme.switch", "Open the list of themes"),
    "/tui/open-models": ("model.list", "Open the list of models"),
    "/tui/submit-prompt": ("prompt.submit", "Submit the prompt that stands there"),
    "/tui/clear-prompt": ("prompt.clear", "Clear the prompt"),
}

# --- shapes -----------------------------------------------------------------------------------------------------


class PromptText(Wire):
    text: str


class CommandName(Wire):
    command: str


class Toast(Wire):
    """`duration` is milliseconds."""

    title: str | None = None
    message: str
    variant: Literal["info", "success", "warning", "error"]
    duration: Annotated[int, msgspec.Meta(gt=0)] | None = None


class SelectedSession(Wire):
    session_id: str = msgspec.field(name="sessionID")


class PromptAppend(Wire, tag_field="type", tag="tui.prompt.append"):
    properties: PromptText


class CommandExecute(Wire, tag_field="type", tag="tui.command.execute"):
    properties: CommandName


class ToastShow(Wire, tag_field="type", tag="tui.toast.show"):
    properties: Toast


class SessionSelect(Wire, tag_field="type", tag="tui.session.select"):
    properties: SelectedSession


TuiEvent = PromptAppend | CommandExecute | ToastShow | SessionSelect


class TuiRequest(Wire):
    """A request to one of the other routes, for a program that acts in place of a TUI."""

    path: str
    body: Any


# --- routes -----------------------------------------------------------------------------------------------------


def tui_routes(sessions: SessionService, control: "TuiControl") -> Sequence[HTTPRouteHandler]:
    @post("/tui/append-prompt", summary="Add text to the prompt", dto=JsonBody[PromptText], **documented(bool))
    async def append_prompt(instance: InstanceOfRequest, data: JSONBody[PromptText]) -> Response[bytes]:
        control.tell(instance.directory, "/tui/append-prompt", PromptAppend(properties=data))
        return answer(True)

    @post("/tui/execute-command", summary="Execute a command", dto=JsonBody[CommandName], **documented(bool))
    async def execute_command(instance: InstanceOfRequest, data: JSONBody[CommandName]) -> Response[bytes]:
        name = CommandName(command=_OLD_NAMES.get(data.command, data.command))
        control.tell(instance.directory, "/tui/execute-command", CommandExecute(properties=name))
        return answer(True)

    @post("/tui/show-toast", summary="Show a message for a moment", dto=JsonBody[Toast], **documented(bool))
    async def show_toast(instance: InstanceOfRequest, data: JSONBody[Toast]) -> Response[bytes]:
        control.tell(instance.directory, "/tui/show-toast", ToastShow(properties=data))
        return answer(True)

    @post(
        "/tui/select-session",
        summary="Go to a session",
        dto=JsonBody[SelectedSession],
        **documented(bool, missing=NO_SESSION),
    )
    async def select_session(instance: InstanceOfRequest, data: JSONBody[SelectedSession]) -> Response[bytes]:
        await sessions.get(data.session_id)
        control.tell(instance.directory, "/tui/select-session", SessionSelect(properties=data))
        return answer(True)

    @post(
        "/tui/publish",
        summary="Any of these, as the event that a TUI is told",
        dto=JsonBody[TuiEvent],
        **documented(bool, missing=NO_SESSION),
    )
    async def publish(instance: InstanceOfRequest, data: JSONBody[TuiEvent]) -> Response[bytes]:
        if isinstance(data, SessionSelect):
            await sessions.get(data.properties.session_id)
        control.tell(instance.directory, "/tui/publish", data)
        return answer(True)

    @get(
        "/tui/control/next",
        summary="The next request to any of these",
        **documented(TuiRequest, "The first one after this was asked."),
    )
    async def control_next(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(await control.next(instance.directory))

    @post(
        "/tui/control/response",
        summary="What came of that request",
        dto=JsonBody[Any],
        **documented(bool, "Taken note of; nobody waits for it."),
    )
    async def control_response(instance: InstanceOfRequest, data: JSONBody[Any]) -> Response[bytes]:
        return answer(True)

    routes: list[Any] = [
        append_prompt,
        execute_command,
        show_toast,
        select_session,
        publish,
        control_next,
        control_response,
        *(_command(control, path, command, summary) for path, (command, summary) in _COMMANDS.items()),
    ]
    return routes


def _command(control: "TuiControl", path: str, command: str, summary: str) -> Any:
    @post(path, summary=summary, **documented(bool))
    async def execute(instance: InstanceOfRequest) -> Response[bytes]:
        control.tell(instance.directory, path, CommandExecute(properties=CommandName(command=command)))
        return answer(True)

    return execute


class TuiControl:
    """Tells TUIs, and whoever waits in a TUI's place. `closed` returns when the server stops."""

    def __init__(self, announce: Announce, closed: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._announce = announce
        self._closed = closed
        self._waiting: dict[str, list[asyncio.Future[TuiRequest]]] = {}

    def tell(self, directory: str, path: str, event: TuiEvent) -> None:
        properties = event.properties
        if isinstance(properties, Toast) and properties.duration is None:
            properties = msgspec.structs.replace(properties, duration=_TOAST_MS)
        kind: str = type(event).__struct_config__.tag  # pyright: ignore[reportAssignmentType]
        self._announce(directory, kind, to_json(properties))
        body = event if path == "/tui/publish" else event.properties
        for waiting in self._waiting.pop(directory, ()):
            if not waiting.done():
                waiting.set_result(TuiRequest(path=path, body=body))

    async def next(self, directory: str) -> TuiRequest:
        """Raises Unavailable if nothing is asked for a while, so that nobody waits for ever, or if the server stops."""
        waiting = self._waiting.setdefault(directory, [])
        if len(waiting) >= _WAITING_MAX:
            raise Unavailable("Too many already wait for the next request.")
        request: asyncio.Future[TuiRequest] = asyncio.get_running_loop().create_future()
        waiting.append(request)
        closed = asyncio.create_task(self._closed())
        try:
            await asyncio.wait((request, closed), timeout=_WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if request.done():
                return request.result()
            if closed.done():
                raise Unavailable("The server is stopping.", hint="Ask again when it is back.")
            raise Unavailable(f"Nothing was asked for {_WAIT_SECONDS:.0f} seconds.", hint="Ask again.")
        finally:
            closed.cancel()
            if request in waiting:
                waiting.remove(request)


__all__ = ["TuiControl", "tui_routes"]
