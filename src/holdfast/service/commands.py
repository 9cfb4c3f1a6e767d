"""Commands: prompts that the user calls by a name. Those of the configuration, the built-in ones, and every skill.

A command is a template (`service.templates`). It is filled in before the prompt is recorded; what its command lines wrote is
then part of the prompt. They are the project's or the user's own, so nobody is asked; they run as the tool bash runs its
commands, with its limits, and end with the server.

The same message id again is the same command: its command lines do not run a second time, and the answer is the first one's.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.agent.tools import ToolFailure
from holdfast.agent.tools.command_lines import TIMEOUT_MS, CommandLines
from holdfast.core.catalogue import Agent, Command, parse_model
from holdfast.core.clock import Clock
from holdfast.core.errors import Invalid, NotFound
from holdfast.core.events import CommandExecuted
from holdfast.core.ids import Prefix, check_id
from holdfast.core.messages import MessageModel, WithParts
from holdfast.core.session import Session
from holdfast.core.store import RawMessage, SessionStore
from holdfast.core.wire import Wire
from holdfast.service.instances import Instance, Instances
from holdfast.service.mcp import McpService
from holdfast.service.messages import MessageService, Prompt
from holdfast.service.offers import OfferService
from holdfast.service.prompt_parts import DIRECTORY, AgentInput, FileInput, PartInput, SubtaskInput, TextInput
from holdfast.service.sessions import check_session_id
from holdfast.service.templates import CommandLine, filled, references, words_of
from holdfast.service.turns import TurnService

COMMAND_LINES_MAX: Final = 50
REFERENCES_MAX: Final = 100

_INIT: Final = "init"


class RunCommand(Wire):
    """`model` is `provider/model`; what the command says of agent and model counts more. `parts` are files that the user
    attaches."""

    message_id: str | None = None
    agent: str | None = None
    model: str | None = None
    arguments: str
    command: str
    variant: str | None = None
    parts: tuple[FileInput, ...] | None = None


class Init(Wire):
    message_id: str
    provider_id: str
    model_id: str


class CommandService:
    """`lines` runs command lines; their output goes below `tool_output` when it is long. `home` is the user's."""

    def __init__(
        self,
        store: SessionStore,
        *,
        clock: Clock,
        new_id: Callable[[Prefix], str],
        instances: Instances,
        turns: TurnService,
        messages: MessageService,
        offers: OfferService,
        mcp: McpService,
        lines: CommandLines,
        tool_output: Path,
        home: Path,
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._instances = instances
        self._turns = turns
        self._messages = messages
        self._offers = offers
        self._mcp = mcp
        self._lines = lines
        self._tool_output = tool_output
        self._home = home
        self._recording: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def all(self, instance: Instance) -> tuple[Command, ...]:
        """Those of the configuration, then the prompts of MCP servers, then the skills. Reads files."""
        known = {command.name: command for command in instance.commands}
        for command in await self._mcp.commands(instance):
            known.setdefault(command.name, command)
        for skill in await self._offers.skills(instance):
            if skill.name not in known:
                known[skill.name] = Command(
                    name=skill.name,
                    description=skill.description,
                    source="skill",
                    template=f"{skill.content}\n\nPaths in this skill start at its base directory {Path(skill.location).parent}.",
                    hints=(),
                )
        return tuple(known.values())

    async def run(self, session_id: str, request: RunCommand) -> WithParts | RawMessage:
        """Carry out a command and wait for the end of its turn: its last message.

        Raises Invalid, NotFound, Conflict before anything is recorded; Unavailable when the server stops meanwhile."""
        session = await self._store.session(check_session_id(session_id))
        given = request.message_id
        id = check_id("msg", given, "messageID") if given is not None else self._new_id("msg")
        await self._turns.unless_stopped(self._recorded(session, id, request))
        answer = await self._messages.prompt(session_id, Prompt(message_id=id, parts=(TextInput(text=""),)))
        last = answer.id if isinstance(answer, RawMessage) else answer.info.id
        executed = CommandExecuted(
            session_id=session_id, name=request.command, arguments=request.arguments, message_id=last
        )
        with contextlib.suppress(NotFound):  # the session was deleted meanwhile
            await self._store.append(session_id, [executed], key=f"command:{id}")
        return answer

    async def init(self, session_id: str, request: Init) -> None:
        """Have the model write the project's instructions to agents; returns when it is done."""
        model = f"{request.provider_id}/{request.model_id}"
        await self.run(session_id, RunCommand(message_id=request.message_id, command=_INIT, arguments="", model=model))

    # --- recording

    async def _recorded(self, session: Session, id: str, request: RunCommand) -> None:
        """Return once the prompt is recorded. Whoever asks for the same one meanwhile joins in."""
        key = session.id, id
        recording = self._recording.get(key)
        if recording is None:
            recording = self._recording[key] = asyncio.create_task(self._record(session, id, request))
            recording.add_done_callback(lambda done: self._forget(key, done))
        await asyncio.shield(recording)

    def _forget(self, key: tuple[str, str], done: asyncio.Task[None]) -> None:
        del self._recording[key]
        if not done.cancelled():
            done.exception()  # whoever waited has seen it; perhaps nobody does any more

    async def _record(self, session: Session, id: str, request: RunCommand) -> None:
        if request.message_id is not None and await self._is_known(session.id, id):
            return
        instance = await self._instances.open(session.directory)
        command = await self._command(instance, request.command)
        prompt = await self._prompt(instance, session, command, id, request)
        await self._messages.prompt_async(session.id, prompt)

    async def _is_known(self, session_id: str, id: str) -> bool:
        try:
            await self._store.message(session_id, id)
        except NotFound:
            return False
        return True

    async def _command(self, instance: Instance, name: str) -> Command:
        commands = {command.name: command for command in await self.all(instance)}
        if name not in commands:
            known = ", ".join(sorted(commands))
            raise Invalid(f'Command not found: "{name[:64]}". Available commands: {known}', field="command")
        return commands[name]

    async def _prompt(
        self, instance: Instance, session: Session, command: Command, id: str, request: RunCommand
    ) -> Prompt:
        """The command as a prompt. Checks all of it before a command line runs."""
        asked = _model(instance, request.model, "model")
        if request.agent is not None:
            instance.agent(request.agent)
        agent = instance.agent_for(command.agent or request.agent, session.agent)
        model = _model(instance, command.model, "command") or (_own(agent) if command.agent else None) or asked
        text, written = await self._text(instance, command, id, request.arguments)
        files = request.parts or ()
        if command.subtask or (agent.mode == "subagent" and command.subtask is not False):
            task = SubtaskInput(
                agent=agent.name,
                description=command.description or command.name,
                command=command.name,
                model=model or _own(agent),
                prompt=text,
            )
            return Prompt(message_id=id, agent=request.agent, model=asked, variant=request.variant, parts=(task,))
        parts = (TextInput(text=text), *files, *await asyncio.to_thread(self._referred, instance, written))
        return Prompt(message_id=id, agent=agent.name, model=model, variant=request.variant, parts=parts)

    async def _text(self, instance: Instance, command: Command, id: str, arguments: str) -> tuple[str, str]:
        """(the template filled in; the same without what its command lines wrote)"""
        if command.source == "mcp":  # what a server says is words: nothing in them is run or looked up
            words = words_of(arguments, len(command.hints)) if command.hints else []
            return await self._mcp.prompt_text(instance, command.name, tuple(words)), ""
        pieces = filled(command.template, arguments)
        lines = [piece for piece in pieces if isinstance(piece, CommandLine)]
        if len(lines) > COMMAND_LINES_MAX:
            raise Invalid(f"The command has more than {COMMAND_LINES_MAX} command lines.", field="command")
        outputs = await self._outputs(instance, id, lines)
        whole = "".join(outputs[piece] if isinstance(piece, CommandLine) else piece for piece in pieces)
        return whole.strip(), " ".join(piece for piece in pieces if isinstance(piece, str))

    async def _outputs(self, instance: Instance, id: str, lines: Sequence[CommandLine]) -> dict[CommandLine, str]:
        async with asyncio.TaskGroup() as group:  # when one fails in a way that is ours, the others end
            tasks = {
                line: group.create_task(self._output(instance, f"{id}-{place}", line))
                for place, line in enumerate(dict.fromkeys(lines))
            }
        return {line: task.result() for line, task in tasks.items()}

    async def _output(self, instance: Instance, mark: str, line: CommandLine) -> str:
        try:
            ran = await self._lines.run(
                line.line,
                directory=Path(instance.directory),
                part_id=mark,
                file=self._tool_output / "commands" / f"{mark}.txt",
                clock=self._clock,
                record=_nothing,
                timeout_ms=TIMEOUT_MS,
            )
        except ToolFailure as failure:
            return f"({failure.message})"
        return ran.output.strip()

    def _referred(self, instance: Instance, text: str) -> list[PartInput]:
        """The files and agents that a text names."""
        parts: list[PartInput] = []
        for name in references(text):
            path = self._path(instance, name)
            if path is not None:
                mime = DIRECTORY if path.is_dir() else "text/plain"
                parts.append(FileInput(mime=mime, filename=name, url=path.as_uri()))
            elif name in instance.agents:
                parts.append(AgentInput(name=name))
            if len(parts) == REFERENCES_MAX:
                break
        return parts

    def _path(self, instance: Instance, name: str) -> Path | None:
        if name.startswith("~/"):
            places = [self._home / name[2:]]
        else:
            places = [Path(instance.directory, name)]
            if instance.place.vcs:
                places.append(Path(instance.place.worktree, name))
        for place in places:
            with contextlib.suppress(OSError, ValueError):  # no name that a file could have
                if place.exists():
                    return place
        return None


async def _nothing(metadata: dict[str, Any]) -> None:
    """There is no call to record it with: when the server dies, so does the command, and nothing was recorded."""


def _model(instance: Instance, text: str | None, field: str) -> MessageModel | None:
    if text is None:
        return None
    model = parse_model(text, field)
    instance.check_model(model.provider_id, model.model_id)
    return model


def _own(agent: Agent) -> MessageModel | None:
    return MessageModel(provider_id=agent.model.provider_id, model_id=agent.model.model_id) if agent.model else None
