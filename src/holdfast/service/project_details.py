"""What users call their projects: name, icon, the command that prepares a new work tree. One small file beside the records,
because a project is no session and has no log (decision 0075).
"""

import asyncio
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec.structs import replace

from holdfast.core.catalogue import Project, ProjectCommands, ProjectIcon
from holdfast.core.codec import to_json
from holdfast.core.errors import Conflict, StorageError
from holdfast.core.wire import Wire
from holdfast.service.durable_files import replace_file

_FILE_BYTES_MAX: Final = 16 * 1024 * 1024

Text = Annotated[str, msgspec.Meta(max_length=1000)]
Image = Annotated[str, msgspec.Meta(max_length=200_000)]


class IconChange(Wire):
    """`url` may be a `data:` URL."""

    url: Image | None = None
    override: Image | None = None
    color: Text | None = None


class CommandsChange(Wire):
    start: Text | None = None


class ProjectChange(Wire):
    """What is left out stays; an empty text takes out what was there."""

    name: Text | None = None
    icon: IconChange | None = None
    commands: CommandsChange | None = None


class _Details(Wire):
    name: str | None = None
    icon: ProjectIcon | None = None
    commands: ProjectCommands | None = None


_decoder: Final = msgspec.json.Decoder(dict[str, _Details])


class ProjectDetails:
    """`file` None: in memory, for as long as the server runs. Raises StorageError for a file that is damaged."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._known = _read(file) if file is not None and file.exists() else {}
        self._lock = asyncio.Lock()

    def added_to(self, project: Project) -> Project:
        known = self._known.get(project.id)
        if known is None:
            return project
        return replace(project, name=known.name, icon=known.icon, commands=known.commands)

    async def change(self, project_id: str, change: ProjectChange) -> None:
        """Durable when this returns. Raises Conflict if the file cannot be written."""
        async with self._lock:
            details = _changed(self._known.get(project_id, _Details()), change)
            known = {**self._known, project_id: details}
            if self._file is not None:
                data = to_json(known)
                if len(data) > _FILE_BYTES_MAX:
                    raise Conflict("The icons of all projects together are too large.")
                try:
                    await asyncio.to_thread(replace_file, self._file, data)
                except OSError as error:
                    reason = (error.strerror or type(error).__name__).lower()
                    raise Conflict(f"{self._file} cannot be written: {reason}.") from error
            self._known = known


def _read(file: Path) -> dict[str, _Details]:
    try:
        return _decoder.decode(file.read_bytes())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StorageError(
            f"{file} cannot be read: {type(error).__name__}.", hint="It only holds names of projects: move it away."
        ) from error


def _changed(details: _Details, change: ProjectChange) -> _Details:
    return _Details(
        name=_chosen(details.name, change.name),
        icon=_fields(ProjectIcon, details.icon, change.icon),
        commands=_fields(ProjectCommands, details.commands, change.commands),
    )


def _fields(kind: type[Any], before: Any, change: Any) -> Any:
    """None when nothing is left."""
    if change is None:
        return before
    names = kind.__struct_fields__
    chosen = {name: _chosen(getattr(before, name, None), getattr(change, name)) for name in names}
    return kind(**chosen) if any(value is not None for value in chosen.values()) else None


def _chosen(before: str | None, after: str | None) -> str | None:
    return before if after is None else after or None
