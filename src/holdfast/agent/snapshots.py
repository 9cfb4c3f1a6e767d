"""What a project's files were at each step, so that a revert can bring them back. Kept in a bare git repository of our own
per work tree, inside the data directory: the user's `.git` is never read for content and never written.

What a snapshot covers: every file and symbolic link of the work tree that the ignore rules (`.gitignore`, the
repository's and the user's own exclude files) leave in, with its content and its executable bit. Not covered, and so never
touched by a restore: ignored files, files over the size limit, nested repositories, special files, empty directories,
files we may not read and names that are not UTF-8. Directories outside of git work the same.

Rules
 1. A restore never destroys what no snapshot has: it takes one first, and leaves alone what that one does not cover.
 2. Contents pass unchanged: no line-end conversion, no filters, whatever `.gitattributes` says.
 3. One command at a time per repository (a lock); what an earlier process left half done is cleared away at the start.
 4. Without git, or where a snapshot would be too large, there are none: `take` answers None, and all else goes on.
"""

import asyncio
import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from holdfast.agent.git import (
    FULL_CONTEXT,
    GITLINK,
    Change,
    Git,
    GitFailed,
    GitSlow,
    changes,
    indexed,
    is_installed,
    split,
)
from holdfast.agent.git import patches as git_patches
from holdfast.agent.programs import Ended
from holdfast.agent.restoring import Contents, RealDirectories, Writer, clear_unfinished, is_unfinished
from holdfast.core.errors import NotFound, Unavailable
from holdfast.core.session import FileDiff

log = structlog.get_logger()

FILE_BYTES_MAX: Final = 2 * 1024 * 1024
FILES_MAX: Final = 100_000
BYTES_MAX: Final = 1024 * 1024 * 1024
KEPT_DAYS: Final = 30

_LIST_SECONDS_MAX: Final = 20.0
_SLOW_MAX: Final = 2
_ADD_SECONDS_MAX: Final = 300.0
_TIDY_SECONDS_MAX: Final = 600.0
_TRIES: Final = 3
_FULL_CONTEXT_BYTES_MAX: Final = 64 * 1024
_PATCH_BYTES_MAX: Final = 256 * 1024
_PATCHES_BYTES_MAX: Final = 2 * 1024 * 1024
_RAW_DIFF_BYTES_MAX: Final = 1024 * 1024

_TREE: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SETTINGS: Final = """\
[core]
	autocrlf = false
	safecrlf = false
	splitIndex = false
	untrackedCache = false
	fsync = loose-object,pack,index
	fsyncMethod = batch
[gc]
	auto = 0
"""
_OWN_CONFIGURATION_ONLY: Final = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
_UNFINISHED: Final = ".new"
_ATTRIBUTES: Final = "* -text -filter -ident !eol !working-tree-encoding !diff !merge !whitespace\n"


class Patch(msgspec.Struct, frozen=True):
    """The files (absolute paths) that a step changed, and the tree as it was before: what a `patch` part records."""

    tree: str
    files: tuple[str, ...]


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """`before` is the tree as it was before the restore. `changed` and `skipped` are absolute paths: files written or
    deleted, and files left as they are because no snapshot has what is there now."""

    before: str
    changed: tuple[str, ...]
    skipped: tuple[str, ...]


class Snapshots:
    """All snapshot repositories of a server. `data` is its data directory, which no snapshot covers."""

    def __init__(
        self,
        data: Path,
        *,
        file_bytes_max: int = FILE_BYTES_MAX,
        files_max: int = FILES_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._data = Path(os.path.realpath(data))
        self._limits = _Limits(file_bytes_max, files_max, bytes_max)
        self._known: dict[str, WorkTree] = {}

    def of(self, directory: str) -> "WorkTree":
        """Snapshots of everything under a directory: the root of a git work tree, or any directory outside of git."""
        root = os.path.realpath(directory)
        found = self._known.get(root)
        if found is None:
            name = hashlib.sha256(os.fsencode(root)).hexdigest()[:24]
            found = WorkTree(root, self._data / "snapshots" / name, self._data, self._limits)
            self._known[root] = found
        return found

    async def tidy(self) -> None:
        """Remove what is older than KEPT_DAYS: snapshots, whole repositories in which none was taken since, and what a kill left
        half made."""
        for repository in await asyncio.to_thread(self._repositories):
            known = next((tree for tree in self._known.values() if tree.is_in(repository)), None)
            if known is None and await asyncio.to_thread(_is_unused, repository):
                await asyncio.to_thread(shutil.rmtree, repository, ignore_errors=True)
            elif is_installed() and repository.suffix != _UNFINISHED:
                await _collect_garbage(repository)

    def _repositories(self) -> list[Path]:
        try:
            return sorted((self._data / "snapshots").iterdir())
        except FileNotFoundError:
            return []


class _Limits(msgspec.Struct, frozen=True):
    file_bytes: int
    files: int
    bytes: int


class _TooLarge(Exception):
    pass


class WorkTree:
    """The snapshots of one work tree. A snapshot is named by its git tree (hex)."""

    def __init__(self, root: str, repository: Path, data: Path, limits: _Limits) -> None:
        self._root = root
        self._repository = repository
        self._data = data
        self._limits = limits
        self._git = Git(
            directory=root,
            variables={
                "GIT_DIR": str(repository),
                "GIT_WORK_TREE": root,
                **_OWN_CONFIGURATION_ONLY,
                "GIT_ATTR_NOSYSTEM": "1",
            },
        )
        self._lock = asyncio.Lock()
        self._excludes: tuple[str, ...] | None = None
        self._newest: str | None = None
        self._is_off = False
        self._slow = 0

    async def take(self) -> str | None:
        """The tree as the files are now; None if there are no snapshots here (rule 4). Raises nothing: a step goes on
        without a snapshot, and the log says why."""
        if self._is_off or not is_installed():
            return None
        try:
            async with self._lock:
                return await self._take()
        except _TooLarge as reason:
            self._is_off = True
            log.warning("snapshots.off", directory=self._root, reason=str(reason))
        except (Unavailable, OSError) as error:
            log.warning("snapshot.failed", directory=self._root, reason=str(error))
        return None

    async def prepare(self) -> None:
        """Take the files in ahead of the first snapshot, which is the slow one: the next `take` then has to look only at what
        changed since. Answers nothing, so that nobody takes this for what the files were at some moment."""
        if self._newest is None:
            await self.take()

    async def changed(self, old: str, new: str) -> tuple[str, ...]:
        """The absolute paths of the files that differ. Raises NotFound for a tree that is not there (any more)."""
        if old == new:
            return ()
        return tuple(self._absolute(change.name) for change in await self._changes(old, new))

    async def diff(self, old: str, new: str) -> tuple[FileDiff, ...]:
        """What happened to each file, with patches of whole files where they are small. A patch is "" for binary files and
        for what is too large to show; the counts are right all the same. Raises NotFound as `changed`."""
        if old == new:
            return ()
        found = await self._changes(old, new)
        sizes = await self._sizes(change.old_id for change in found) | await self._sizes(
            change.new_id for change in found
        )

        def size(change: Change) -> int:
            return max(sizes.get(change.old_id, 0), sizes.get(change.new_id, 0))

        text = [change for change in found if not change.is_binary]
        small = [change for change in text if size(change) <= _FULL_CONTEXT_BYTES_MAX]
        large = [change for change in text if size(change) > _FULL_CONTEXT_BYTES_MAX]
        between = ("diff-tree", "-r", old, new)
        shown = await git_patches(self._git, small, *between, context=FULL_CONTEXT, bytes_max=_PATCHES_BYTES_MAX)
        shown |= await git_patches(self._git, large, *between, bytes_max=_PATCHES_BYTES_MAX)

        def patch(change: Change) -> str:
            git_patch = shown.get(change.name, "")
            return indexed(change.file, git_patch) if 0 < len(git_patch) <= _PATCH_BYTES_MAX else ""

        return tuple(
            FileDiff(
                file=change.file,
                patch=patch(change),
                additions=change.additions,
                deletions=change.deletions,
                status=change.status,
            )
            for change in found
        )

    async def raw_diff(self, old: str, new: str) -> str:
        """The difference as `git diff` prints it, cut after 1 MB. Raises NotFound as `changed`."""
        await self._check(old, new)
        ended = await self._git.run(
            *("diff-tree", "-r", "-p", "--no-renames", "--no-ext-diff", "--no-textconv", old, new),
            output_bytes_max=_RAW_DIFF_BYTES_MAX,
        )
        return ended.output.decode(errors="replace").rstrip("\n")

    async def restore(self, tree: str, files: Collection[str] | None = None, *, kept: str | None = None) -> Restored:
        """Make the files what they were in that tree: those named (absolute paths), or all. Files that were not there are
        deleted, with directories that get empty by that, but for `kept` (a path). Files that the ignore rules of that tree
        leave out are no part of it, and stay. Raises NotFound for an unknown tree, Unavailable if there are no snapshots here."""
        wanted = None if files is None else {name for file in files if (name := self._relative(file)) is not None}
        return await self._to_the_end(self._restore({tree: wanted}, kept))

    async def undo(self, patches: Sequence[Patch], *, kept: str | None = None) -> Restored:
        """Bring back every file of these patches, oldest first, as it was before the first patch that names it. Raises as
        `restore`."""
        plan: dict[str, set[bytes] | None] = {}
        seen: set[bytes] = set()
        for patch in patches:
            names = {name for file in patch.files if (name := self._relative(file)) is not None} - seen
            seen |= names
            plan[patch.tree] = (plan.get(patch.tree) or set()) | names
        return await self._to_the_end(self._restore(plan, kept))

    async def tidy(self) -> None:
        """Remove what only snapshots older than KEPT_DAYS have, and pack the rest. Takes and restores go on meanwhile."""
        if is_installed() and self._repository.is_dir():
            await _collect_garbage(self._repository)

    def is_in(self, repository: Path) -> bool:
        return self._repository in (repository, repository.with_suffix(""))

    # --- taking

    async def _take(self) -> str:
        await self._prepare()
        for left in range(_TRIES - 1, 0, -1):
            try:
                return await self._stage()
            except GitFailed:  # a file went away or changed its kind while it was read
                self._clear_locks()
                if left == 1:  # or the index is damaged
                    (self._repository / "index").unlink(missing_ok=True)
        return await self._stage()

    async def _stage(self) -> str:
        """Bring our index up to the files, and make it a tree."""
        assert self._excludes is not None
        listed = await self._listed(self._excludes)
        if listed.is_cut:
            raise _TooLarge("too many files")
        names = {field[2:]: not field.startswith(b"?") for field in split(listed.output)}
        if not names and self._newest is not None:
            return self._newest
        if len(names) > self._limits.files:
            raise _TooLarge(f"more than {self._limits.files} files")
        current, gone = await asyncio.to_thread(self._sort, names)
        self._newest = None  # until the tree is written: what follows may be stopped half way
        if gone:
            await self._update_index("--force-remove", names=gone)
        if current:
            await self._update_index("--add", "--replace", "--remove", names=current)
        self._newest = (await self._git.run("write-tree")).output.decode().strip()
        return self._newest

    async def _listed(self, excludes: Iterable[str]) -> Ended:
        try:
            listed = await self._git.run(
                *("ls-files", "-z", "-t", "--modified", "--deleted", "--others", "--exclude-standard", *excludes),
                seconds_max=_LIST_SECONDS_MAX,
            )
        except GitSlow as error:
            self._slow += 1
            if self._slow < _SLOW_MAX:  # it may be the machine that was busy
                raise
            raise _TooLarge(f"to list its files takes more than {_LIST_SECONDS_MAX:.0f} s") from error
        self._slow = 0
        return listed

    def _sort(self, names: Mapping[bytes, bool]) -> tuple[list[bytes], list[bytes]]:
        """Names of files to take into the index, and of those in it that are none to cover any more. `names` says which
        are in the index."""
        current: list[bytes] = []
        gone: list[bytes] = []
        bytes_left = self._limits.bytes
        reached = RealDirectories(self._root)
        for name in sorted(names):
            if name.endswith(b"/"):  # a nested repository
                continue
            if is_unfinished(name) and not names[name]:
                clear_unfinished(os.path.join(os.fsencode(self._root), name))
                continue
            size = self._size_to_cover(name, reached)
            if size is not None:
                current.append(name)
                bytes_left -= size
            elif names[name]:
                gone.append(name)
        if bytes_left < 0:
            raise _TooLarge(f"more than {self._limits.bytes >> 20} MB of new content")
        return current, gone

    def _size_to_cover(self, name: bytes, reached: RealDirectories) -> int | None:
        path = os.path.join(os.fsencode(self._root), name)
        try:
            name.decode()
            if not reached.is_real(os.path.dirname(name)):
                return None
            found = os.lstat(path)
        except (OSError, UnicodeDecodeError):
            return None
        if stat.S_ISLNK(found.st_mode):
            return 0
        is_covered = stat.S_ISREG(found.st_mode) and found.st_size <= self._limits.file_bytes
        return found.st_size if is_covered and os.access(path, os.R_OK) else None

    async def _update_index(self, *options: str, names: Iterable[bytes]) -> None:
        listed = b"".join(name + b"\0" for name in names)
        await self._git.run("update-index", *options, "-z", "--stdin", input=listed, seconds_max=_ADD_SECONDS_MAX)

    async def _prepare(self) -> None:
        if self._excludes is not None and self._repository.is_dir():
            self._clear_locks()  # of a command that was killed
            return
        if _is_everything(self._root):
            raise _TooLarge("a home directory, or one above it, is not a project")
        if not self._repository.is_dir():
            self._newest = None
            await self._create()
        self._clear_locks()
        information = self._repository / "info"
        information.mkdir(exist_ok=True)
        (information / "attributes").write_text(_ATTRIBUTES)
        (information / "exclude").write_text(self._own_exclude())
        self._excludes = tuple(f"--exclude-from={path}" for path in await self._users_excludes())

    async def _create(self) -> None:
        """Appears under its name only when it is complete."""
        unfinished = self._repository.with_suffix(_UNFINISHED)
        await asyncio.to_thread(shutil.rmtree, unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        git = Git(directory=str(unfinished), variables=_OWN_CONFIGURATION_ONLY)
        await git.run("init", "--quiet", "--bare", "--template=", ".")
        with (unfinished / "config").open("a") as file:
            file.write(_SETTINGS)
        unfinished.rename(self._repository)

    def _own_exclude(self) -> str:
        """The data directory, if it lies inside: its own objects would be new files at every snapshot."""
        inside = os.path.relpath(self._data, self._root)
        if inside == ".":
            raise _TooLarge("the data directory of the server is not a project")
        return "" if inside.startswith("..") else "/" + re.sub(r"([\\*?\[\] !#])", r"\\\1", inside) + "/\n"

    async def _users_excludes(self) -> list[str]:
        """Exclude files outside of the work tree that the user's git honours here."""
        theirs = Git(directory=self._root)
        asked = [
            await theirs.line("config", "--type=path", "--get", "core.excludesFile")
            or os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "git", "ignore"),
            await theirs.line("rev-parse", "--git-path", "info/exclude"),
        ]
        paths = [os.path.join(self._root, path) for path in asked if path]
        return [path for path in paths if os.path.isfile(path) and os.access(path, os.R_OK)]

    def _clear_locks(self) -> None:
        for lock in self._repository.glob("*.lock"):
            lock.unlink(missing_ok=True)

    # --- comparing

    async def _changes(self, old: str, new: str) -> list[Change]:
        await self._check(old, new)
        return await changes(self._git, "diff-tree", "-r", old, new)

    async def _check(self, *trees: str) -> None:
        """Raises NotFound unless each is a tree of this repository."""
        for tree in trees:
            if not _TREE.fullmatch(tree) or not self._repository.is_dir():
                raise NotFound("Snapshot", tree[:64])
        kinds = await self._ask("%(objectname) %(objecttype)", trees)
        for tree in trees:
            if f"{tree} tree" not in kinds:
                raise NotFound("Snapshot", tree, hint=f"Snapshots are kept for {KEPT_DAYS} days.")

    async def _sizes(self, ids: Iterable[str]) -> dict[str, int]:
        answers = (line.rpartition(" ") for line in await self._ask("%(objectname) %(objectsize)", set(ids)))
        return {id: int(size) for id, _, size in answers if size.isdigit()}

    async def _ask(self, form: str, ids: Iterable[str]) -> list[str]:
        wanted = "".join(f"{id}\n" for id in ids).encode()
        ended = await self._git.run("cat-file", f"--batch-check={form}", input=wanted)
        return ended.output.decode().splitlines()

    # --- restoring

    async def _to_the_end(self, work: Coroutine[Any, Any, Restored]) -> Restored:
        """A restore that began is finished, even if nobody waits for it any more."""
        return await asyncio.shield(asyncio.create_task(work))

    async def _restore(self, plan: Mapping[str, Collection[bytes] | None], kept: str | None) -> Restored:
        if self._is_off or not is_installed():
            raise Unavailable("There are no snapshots of this directory.", hint="Install git to have them.")
        async with self._lock:
            await self._check(*plan)
            try:
                before = await self._take()
            except _TooLarge as reason:
                raise Unavailable(f"This directory is too large for snapshots: {reason}.") from None
            wanted: list[Change] = []
            for tree, names in plan.items():
                found = await changes(self._git, "diff-tree", "-r", before, tree)
                wanted += [change for change in found if names is None or change.name in names]
            missing = {change.new_id for change in wanted if change.new_mode not in (0, GITLINK)}
            if len(await self._sizes(missing)) < len(missing):
                raise NotFound("Snapshot", next(iter(plan)), hint=f"Snapshots are kept for {KEPT_DAYS} days.")
            directory = (self._relative(os.path.realpath(kept)) if kept is not None else None) or b""
            rules = [change for change in wanted if os.path.basename(change.name) == b".gitignore"]
            changed, _ = await asyncio.to_thread(self._write, rules, directory) if rules else ([], [])
            left = [change for change in wanted if change.name not in changed]
            doubtful = [change.name for change in left if change.new_mode == 0] if changed else []
            ignored = await self._ignored(doubtful)
            left = [change for change in left if change.name not in ignored]
            also, skipped = await asyncio.to_thread(self._write, left, directory)
        return Restored(
            before=before,
            changed=tuple(self._absolute(name) for name in (*changed, *also)),
            skipped=tuple(self._absolute(name) for name in (*skipped, *sorted(ignored))),
        )

    async def _ignored(self, names: Sequence[bytes]) -> set[bytes]:
        """Those that the ignore rules leave out, now that the rules are those of the snapshot: it says nothing of them, so
        that they were not there is not known."""
        git = self._git.having(
            GIT_LITERAL_PATHSPECS="0"
        )  # which it does not know: so that no name is a pattern, it begins with ./
        listed = b"".join(b"./" + name + b"\0" for name in names)
        found = await git.run("check-ignore", "--no-index", "-z", "--stdin", input=listed, accept=(0, 1))
        return {name.removeprefix(b"./") for name in split(found.output)}

    def _write(self, wanted: Sequence[Change], kept: bytes) -> tuple[list[bytes], list[bytes]]:
        changed: list[bytes] = []
        skipped: list[bytes] = []
        tree = Writer(self._root, kept)
        # Deletions first, and the deepest first: a file may stand where a directory has to be.
        for change in sorted(wanted, key=lambda change: change.name, reverse=True):
            if change.new_mode == 0 and change.old_mode != GITLINK:
                (changed if tree.delete(change.name) else skipped).append(change.name)
        with Contents(self._git) as contents:
            for change in sorted(wanted, key=lambda change: change.name):
                if change.new_mode in (0, GITLINK) or change.old_mode == GITLINK:
                    continue
                content = contents.read(change.new_id)
                done = tree.write(change.name, content, change.new_mode, is_covered=change.old_mode != 0)
                (changed if done else skipped).append(change.name)
        return changed, skipped

    def _absolute(self, name: bytes) -> str:
        return os.path.join(self._root, name.decode(errors="replace"))

    def _relative(self, file: str) -> bytes | None:
        path = os.path.normpath(os.path.join(self._root, file))
        is_inside = path.startswith(self._root.rstrip("/") + "/")
        return os.fsencode(os.path.relpath(path, self._root)) if is_inside else None


async def _collect_garbage(repository: Path) -> None:
    git = Git(directory=str(repository), variables={"GIT_DIR": str(repository), **_OWN_CONFIGURATION_ONLY})
    await git.run("gc", "--quiet", f"--prune={KEPT_DAYS}.days.ago", seconds_max=_TIDY_SECONDS_MAX)


def _is_unused(repository: Path) -> bool:
    """No snapshot was taken since: each but the one that finds nothing changed writes the index."""
    try:
        changed = max(path.stat().st_mtime for path in (repository, repository / "index") if path.exists())
    except (OSError, ValueError):
        return False
    return changed < time.time() - KEPT_DAYS * 24 * 3600


def _is_everything(root: str) -> bool:
    """A home directory, or one above it, that is no git work tree."""
    home = os.path.realpath(os.path.expanduser("~"))
    return not os.path.exists(os.path.join(root, ".git")) and os.path.commonpath([root, home]) == root
