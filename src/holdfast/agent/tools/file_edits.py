"""Changes files for `write`, `edit` and `apply_patch`: all of a call, or nothing, also when the server is killed in it.

The order is the rule
 1. read what is there, and refuse what the LLM has not seen in this state (see `stamps`)
 2. plan: contents before → contents after, with a diff
 3. record the plan, with a stamp of every content before and after
 4. stage: every new content in a file beside its target, complete and on disk
 5. commit: rename each onto its target (or remove the target), then make the directories durable

A call that is run again after the server died looks at stamps. If nothing was renamed yet, it starts again from 1. If
something was, then everything is staged, and it finishes 5. So a call takes effect once.

Then the formatters may have the files, which is recorded first: where the server died in that, the change is made already, and
they are run again. What they make of a file counts as seen, unless it cannot be told that it is theirs. Then clients are told
which files changed. At last language servers are asked what is wrong in them now. Other calls need not wait for that; where the
server died in it, they are asked again.

A link is followed to its target, which is what is asked for and changed. Mode, owner (where we may) and extended
attributes stay. Two calls for one file, in whatever session, follow each other.
"""

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from weakref import WeakValueDictionary

import msgspec

from holdfast.agent.permissions import Ask
from holdfast.agent.tools.base import FileChange, ToolContext, ToolFailure
from holdfast.agent.tools.diagnostics import CodeChecks, FileErrors, wire, worth_telling
from holdfast.agent.tools.formatters import Formatters
from holdfast.agent.tools.places import external, is_inside, resolved, shown
from holdfast.agent.tools.stamps import FILE_BYTES_MAX, SEEN, stamp_of
from holdfast.core.messages import ToolPart, ToolRunning

_WRITES: Final = "writes"
"""Key in the metadata of a running call: what it is about to do."""

_FORMATTING: Final = "formatting"
"""Key there: the files that are changed, and with the formatters now. What was to be done is recorded beside it."""

_FORMATTED: Final = "formatted"
"""Key in the metadata of a call: the files that a formatter changed."""

_T = TypeVar("_T")


class FileEdit(msgspec.Struct, frozen=True):
    """None: there is no such file. A file that moves has its mode and owner from `attributes_of`."""

    path: Path
    before: bytes | None
    after: bytes | None
    attributes_of: Path | None = None


class Plan(msgspec.Struct, frozen=True):
    """`metadata` is what clients see; its `diff` is also shown to the user who is asked for permission."""

    edits: tuple[FileEdit, ...]
    metadata: dict[str, Any]


Contents = Mapping[Path, bytes | None]
Planner = Callable[[Contents], Plan]
"""What to do, given what is there. Pure; runs in a thread. Raises ToolFailure."""


class _Write(msgspec.Struct, frozen=True):
    """An edit as it is recorded: stamps instead of contents. `staged` is where the new content waits; `moved_from` is where
    the file was before, which is a write of its own."""

    path: str
    before: str | None
    after: str | None
    staged: str
    moved_from: str | None = None


class Made(msgspec.Struct, frozen=True):
    """A call's metadata, and what is wrong in the code after it."""

    metadata: dict[str, Any]
    errors: Mapping[str, FileErrors] = {}


class FileEdits:
    """One for all tools of a server, since it keeps their calls apart."""

    def __init__(self, formatters: Formatters | None = None, checks: CodeChecks | None = None) -> None:
        self._formatters = formatters
        self._checks = checks
        self._locks: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()

    async def asks(self, paths: Sequence[str], plan: Planner, context: ToolContext) -> list[Ask]:
        """What the user is asked: leave to go to places outside of the project, and to make this change."""
        targets = _resolved(paths, context)
        async with self._alone(targets):  # or content and stamp could be from before and after another call
            planned = await self._planned(targets, plan, context)
        names = tuple(shown(context, target) for target in targets)
        metadata = {"filepath": ", ".join(names), "diff": planned.metadata["diff"]}
        if "files" in planned.metadata:
            metadata["files"] = planned.metadata["files"]
        outside = {ask.patterns: ask for target in targets for ask in external(context, target)}
        return [*outside.values(), Ask(permission="edit", patterns=names, always=("*",), metadata=metadata)]

    async def run(self, paths: Sequence[str], plan: Planner, context: ToolContext) -> Made:
        """Make the change. Once it has begun to rename files, it ends, even if it is cancelled."""
        targets = _resolved(paths, context)
        async with self._alone(targets):
            writes, metadata = await self._made(targets, plan, context)
        return await self._checked(writes, metadata, context)

    async def _made(
        self, targets: Sequence[Path], plan: Planner, context: ToolContext
    ) -> tuple[Sequence[_Write], dict[str, Any]]:
        recorded = _recorded(context.recorded)
        known = {key: value for key, value in context.recorded.items() if key not in (_WRITES, _FORMATTING)}
        if _FORMATTING in context.recorded or (recorded and await _uninterrupted(partial(_finish, recorded))):
            return recorded, await self._changed(recorded, known, context)
        planned = await self._planned(targets, plan, context, recorded)
        edits = [edit for edit in planned.edits if edit.before != edit.after]
        writes = [_write(edit, number, context) for number, edit in enumerate(edits)]
        seen = {str(edit.path): stamp_of(edit.after) for edit in planned.edits if edit.after is not None}
        metadata = {**planned.metadata, SEEN: seen}
        if writes:
            await context.progress(None, {**metadata, _WRITES: msgspec.to_builtins(writes)})
            await _uninterrupted(partial(_change, edits, writes))
        return writes, await self._changed(writes, metadata, context)

    async def clean_up(self, part: ToolPart) -> None:
        """Take away what a call that is not run again had staged."""
        recorded = _recorded(part.state.metadata) if isinstance(part.state, ToolRunning) else []
        await asyncio.to_thread(_discard, recorded)

    async def _planned(
        self, targets: Sequence[Path], plan: Planner, context: ToolContext, recorded: Sequence[_Write] = ()
    ) -> Plan:
        contents = await asyncio.to_thread(lambda: {target: _read(target) for target in targets})
        # What the first run of this call began with, it had found to be seen.
        accepted = {write.path: write.before for write in recorded}
        for target, content in contents.items():
            if content and stamp_of(content) != accepted.get(str(target)):  # an empty file has nothing to overlook
                _check_seen(target, content, await context.host.seen(str(target)))
        return await asyncio.to_thread(plan, contents)

    async def _changed(
        self, writes: Sequence[_Write], metadata: dict[str, Any], context: ToolContext
    ) -> dict[str, Any]:
        """The files are changed: the formatters may have them, then clients are told. The metadata of the call after that."""
        if not writes:
            return metadata
        metadata = await self._formatted(writes, metadata, context)
        await context.host.changed(_changes(writes))
        return metadata

    async def _checked(self, writes: Sequence[_Write], metadata: dict[str, Any], context: ToolContext) -> Made:
        checks = self._checks
        if checks is None:
            return Made(metadata)
        directory = context.directory
        taken = [change for change in _changes(writes) if checks.take(directory, change.path)]
        changes = [change for change in taken if is_inside(context, Path(change.path))]
        if not changes:
            return Made(metadata)
        found = await checks.changed(directory, changes)
        errors = worth_telling(found, [change.path for change in changes])
        return Made({**metadata, "diagnostics": wire(errors)} if errors else metadata, errors)

    async def _formatted(
        self, writes: Sequence[_Write], metadata: dict[str, Any], context: ToolContext
    ) -> dict[str, Any]:
        formatters = self._formatters
        paths = [write.path for write in writes if write.after is not None]
        taken = [path for path in paths if formatters.take(context.directory, path)] if formatters is not None else []
        if formatters is None or not taken:
            return metadata
        await context.progress(None, {**metadata, _WRITES: msgspec.to_builtins(writes), _FORMATTING: taken})
        before = await asyncio.to_thread(_stamps_at, taken)
        await formatters.run(context.directory, taken)
        after = await asyncio.to_thread(_stamps_at, taken)
        seen: dict[str, str] = metadata[SEEN]
        known = {path: stamp for path, stamp in after.items() if stamp and before[path] == seen.get(path)}
        changed = [path for path in taken if after[path] != before[path]]
        return {**metadata, SEEN: {**seen, **known}, **({_FORMATTED: changed} if changed else {})}

    @contextlib.asynccontextmanager
    async def _alone(self, targets: Sequence[Path]) -> AsyncGenerator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for target in sorted(set(targets)):  # in order, or two calls could wait for each other
                await stack.enter_async_context(self._locks.setdefault(target, asyncio.Lock()))
            yield


def _resolved(paths: Sequence[str], context: ToolContext) -> list[Path]:
    return list(dict.fromkeys(resolved(context, path) for path in paths))


def _check_seen(target: Path, content: bytes, seen: frozenset[str]) -> None:
    if not seen:
        raise ToolFailure(
            f"{target} exists, and was not read in this session. Read it first, so that nothing in it is lost by mistake."
        )
    if stamp_of(content) not in seen:
        raise ToolFailure(
            f"{target} was changed by somebody else since it was last read in this session. Nothing was done. Read it again "
            "and then make your change to what is there now."
        )


# --- before -----------------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes | None:
    """Raises ToolFailure for what is no file, or none that can be edited."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ToolFailure(f"{path} cannot be opened: {error.strerror}.") from error
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise ToolFailure(f"{path} is a directory, not a file.")
        if not stat.S_ISREG(found.st_mode):
            raise ToolFailure(f"{path} is a device, pipe or socket: it cannot be edited.")
        if not os.access(path, os.W_OK):
            raise ToolFailure(f"{path} is read-only. If it has to change, make it writable first, with the bash tool.")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(FILE_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    if len(data) > FILE_BYTES_MAX:
        raise ToolFailure(
            f"{path} is larger than {FILE_BYTES_MAX // 1024 // 1024} MB, the most that can be edited. Use a program (sed, a "
            "script) with the bash tool."
        )
    return data


def _write(edit: FileEdit, number: int, context: ToolContext) -> _Write:
    return _Write(
        path=str(edit.path),
        before=stamp_of(edit.before) if edit.before is not None else None,
        after=stamp_of(edit.after) if edit.after is not None else None,
        staged=str(edit.path.parent / f".holdfast-{context.part_id[-40:]}-{number}"),
        moved_from=str(edit.attributes_of) if edit.attributes_of is not None else None,
    )


# --- on disk ----------------------------------------------------------------------------------------------------


def _change(edits: Sequence[FileEdit], writes: Sequence[_Write]) -> None:
    made: list[Path] = []
    try:
        for edit, write in zip(edits, writes, strict=True):
            if edit.after is not None:
                made += _make_directory(edit.path.parent)
                _stage(edit.attributes_of or edit.path, edit.after, Path(write.staged))
        for edit in edits:  # a last look: they may have been changed while we wrote
            if _read(edit.path) != edit.before:
                raise ToolFailure(
                    f"{edit.path} was changed by somebody else just now. Nothing was done. Read it again."
                )
        _commit(writes)
        for directory in {*(edit.path.parent for edit in edits), *(directory.parent for directory in made)}:
            _sync_directory(directory)
    except BaseException as error:
        _discard(writes)
        for directory in reversed(made):
            with contextlib.suppress(OSError):  # by now there may be something in it
                directory.rmdir()
        if isinstance(error, OSError):
            raise ToolFailure(
                f"{error.filename or 'The file'} cannot be written: {error.strerror}.", metadata={}
            ) from error
        raise


def _stage(like: Path, content: bytes, staged: Path) -> None:
    staged.unlink(missing_ok=True)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with contextlib.suppress(FileNotFoundError):
            _keep_attributes(like, descriptor)
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _keep_attributes(like: Path, descriptor: int) -> None:
    found = os.stat(like)
    with contextlib.suppress(PermissionError):  # only root may give files away
        os.fchown(descriptor, found.st_uid, found.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
    if hasattr(os, "listxattr"):
        with contextlib.suppress(OSError):  # not every file system has them
            for name in os.listxattr(like):
                with contextlib.suppress(OSError):
                    os.setxattr(descriptor, name, os.getxattr(like, name))


def _commit(writes: Sequence[_Write]) -> None:
    """Rename and remove. What is in its place already stays."""
    done: list[str] = []
    for write in writes:
        try:
            if write.after is None:
                Path(write.path).unlink(missing_ok=True)
            elif os.path.lexists(write.staged):
                os.rename(write.staged, write.path)
        except OSError as error:
            changed = f"Changed already: {', '.join(done)}." if done else "Nothing was changed."
            raise ToolFailure(f"{write.path} cannot be replaced: {error.strerror}. {changed}", metadata={}) from error
        done.append(write.path)


def _make_directory(directory: Path) -> list[Path]:
    """Which ones had to be made, outermost first."""
    missing = [place for place in (directory, *directory.parents) if not place.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(writes: Sequence[_Write]) -> None:
    for write in writes:
        with contextlib.suppress(OSError):
            os.unlink(write.staged)


# --- again ------------------------------------------------------------------------------------------------------


def _finish(writes: Sequence[_Write]) -> bool:
    """What an earlier run recorded: True if it is done, now at the latest; False if it had changed nothing yet. Raises
    ToolFailure if it cannot be told, or not be finished."""
    states = [_state(write) for write in writes]
    if "done" not in states:
        _discard(writes)
        return False
    for write, state in zip(writes, states, strict=True):
        if state == "other":
            _discard(writes)
            raise ToolFailure(
                f"The server was stopped in the middle of this change, and {write.path} was changed by somebody else since. "
                f"Read these files to see what is there: {', '.join(one.path for one in writes)}."
            )
    _commit(writes)
    for directory in {Path(write.path).parent for write in writes}:
        with contextlib.suppress(FileNotFoundError):  # it can be gone if all was removed from it
            _sync_directory(directory)
    return True


def _state(write: _Write) -> Literal["done", "ready", "other"]:
    there = _stamp_at(write.path)
    if there == write.after:
        return "done"
    ready = write.after is None or _stamp_at(write.staged) == write.after
    return "ready" if there == write.before and ready else "other"


def _stamp_at(path: str) -> str | None:
    try:
        content = _read(Path(path))
    except ToolFailure:
        return ""
    return None if content is None else stamp_of(content)


def formatting_note(metadata: Mapping[str, Any]) -> str:
    """For the LLM, which knows the text as it was before."""
    formatted = metadata.get(_FORMATTED)
    return f"\nA formatter changed the text afterwards: {', '.join(formatted)}" if formatted else ""


def _changes(writes: Sequence[_Write]) -> list[FileChange]:
    changes: list[FileChange] = []
    moved = {write.moved_from for write in writes}
    for write in writes:
        if write.after is None:
            if write.path not in moved:
                changes.append(FileChange(write.path, "unlink"))
            continue
        if write.moved_from is not None:
            changes.append(FileChange(write.moved_from, "unlink"))
        changes.append(FileChange(write.path, "add" if write.before is None else "change"))
    return changes


def _stamps_at(paths: Sequence[str]) -> dict[str, str | None]:
    return {path: _stamp_at(path) for path in paths}


def _recorded(metadata: Mapping[str, Any] | None) -> list[_Write]:
    try:
        return msgspec.convert((metadata or {}).get(_WRITES, []), list[_Write])
    except msgspec.ValidationError:
        return []


async def _uninterrupted(work: Callable[[], _T]) -> _T:
    """In a thread, to its end; if we are cancelled meanwhile, that is raised afterwards."""
    task = asyncio.get_running_loop().run_in_executor(None, work)  # no task: nobody else can cancel it
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()
        raise cancelled
    return task.result()
