"""Version control of a project, as far as a client asks for it: branch, changes, applying a patch, a first repository.

What is not committed counts as one: staged, unstaged and new files (those that are not ignored). The user's repository is
only read, but for `apply`, which changes files of the work tree and nothing of git, and `init`. Outside of git there is
nothing to report, which is no error.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, Literal

import msgspec

from holdfast.agent.git import FULL_CONTEXT, Change, Git, GitFailed, changes, is_installed, patches, split
from holdfast.core.errors import Invalid, TooLarge, Unavailable
from holdfast.core.workspace import VcsFileDiff, VcsFileStatus, VcsInfo

PATCH_BYTES_MAX: Final = 10 * 1024 * 1024
RAW_DIFF_BYTES_MAX: Final = 32 * 1024 * 1024
CONTEXT_MAX: Final = FULL_CONTEXT

DiffMode = Literal["git", "branch"]

_NEW_FILES_MAX: Final = 10_000


class PatchRefused(Invalid):
    """A patch was not applied; nothing changed. `reason` is "non-git" or "not-clean"."""

    code = "patch_refused"

    def __init__(self, message: str, reason: Literal["non-git", "not-clean"], *, hint: str | None = None) -> None:
        super().__init__(message, field="patch", hint=hint)
        self.reason: Literal["non-git", "not-clean"] = reason


class VcsService:
    """Of any project directory; each method is given a directory (absolute)."""

    async def info(self, directory: str) -> VcsInfo:
        git = await _git_at(directory)
        if git is None:
            return VcsInfo()
        return VcsInfo(branch=await _branch(git), default_branch=await _default_branch(git))

    async def status(self, directory: str) -> tuple[VcsFileStatus, ...]:
        """The files that differ from the last commit, by name."""
        return tuple(
            VcsFileStatus(
                file=change.file, additions=change.additions, deletions=change.deletions, status=change.status
            )
            for change in await changed_files(directory)
        )

    async def diff(self, directory: str, mode: DiffMode, context: int | None = None) -> tuple[VcsFileDiff, ...]:
        """What is not committed (`git`), or everything since the branch left the default branch (`branch`), the new files
        included. `context` is in lines; without it, patches show whole files."""
        if context is not None and not 0 <= context <= CONTEXT_MAX:
            raise Invalid(f"context is 0 to {CONTEXT_MAX}.", field="context")
        git = await _git_at(directory)
        base = await _base(git, mode) if git is not None else None
        if git is None or base is None:
            return ()
        async with _with_new_files(git) as git:
            found = await changes(git, "diff", base)
            shown = await patches(
                git,
                found,
                *("diff", base),
                context=FULL_CONTEXT if context is None else context,
                bytes_max=PATCH_BYTES_MAX,
            )
        return tuple(
            VcsFileDiff(
                file=change.file,
                patch=shown.get(change.name),
                additions=change.additions,
                deletions=change.deletions,
                status=change.status,
            )
            for change in found
        )

    async def raw_diff(self, directory: str) -> bytes:
        """What is not committed as one patch that `apply` takes, binary files included. Raises TooLarge."""
        git = await _git_at(directory)
        if git is None:
            return b""
        base = await _head(git)
        async with _with_new_files(git) as git:
            ended = await git.run(
                *("diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames"),
                *("--ignore-submodules=dirty", "--src-prefix=a/", "--dst-prefix=b/", base, "--"),
                output_bytes_max=RAW_DIFF_BYTES_MAX,
            )
        if ended.is_cut:
            raise TooLarge(
                f"The changes have more than {RAW_DIFF_BYTES_MAX >> 20} MB.", hint="Ask for the diff file by file."
            )
        return ended.output

    async def apply(self, directory: str, patch: str) -> None:
        """Change files of the work tree as a patch says: all of it or nothing. Raises PatchRefused, TooLarge."""
        try:
            data = patch.encode(errors="surrogateescape")
        except UnicodeEncodeError:
            raise Invalid("The patch is not Unicode text.", field="patch") from None
        if len(data) > RAW_DIFF_BYTES_MAX:
            raise TooLarge(f"A patch has at most {RAW_DIFF_BYTES_MAX >> 20} MB.", field="patch")
        git = await _git_at(directory)
        if git is None:
            raise PatchRefused("Patch can't be applied because the project is not git-based", "non-git")
        # A patch whose end was lost must not be applied to half; git itself refuses paths that lead out of the work tree
        # (`..`, links, `.git`), and looks at all files before it writes the first.
        try:
            await git.run("apply", "--whitespace=nowarn", "-", input=data if data.endswith(b"\n") else data + b"\n")
        except GitFailed as error:
            said = error.said.replace("error: ", "").splitlines()
            raise PatchRefused(
                "Patch can't be applied", "not-clean", hint="; ".join(said[:3])[:500] or "It is no patch."
            ) from error

    async def init(self, directory: str) -> None:
        """Make the directory a git work tree, if it is not in one already. Raises Unavailable without git."""
        if await _git_at(directory) is None:
            await Git(directory=directory).run("init", "--quiet")


# --- what differs -----------------------------------------------------------------------------------------------


async def changed_files(directory: str, *, below: str | None = None) -> list[Change]:
    """The files that differ from the last commit, the new ones included. With `below`, those under that directory, named
    relative to it."""
    git = await _git_at(directory)
    if git is None:
        return []
    base = await _head(git)
    async with _with_new_files(git) as git:
        if below is not None:
            git = msgspec.structs.replace(git, directory=below)
            return await changes(git, "diff", "--relative", base)
        return await changes(git, "diff", base)


async def default_commit(git: Git) -> str | None:
    """Where the default branch is, as the remote had it when it was last asked, else as it is here."""
    default = await _default_branch(git)
    for name in (f"refs/remotes/origin/{default}", f"refs/heads/{default}"):
        if default is not None and (commit := await git.line("rev-parse", "--verify", "--quiet", name)) is not None:
            return commit
    return None


@asynccontextmanager
async def _with_new_files(git: Git) -> AsyncGenerator[Git]:
    """git on a copy of the user's index in which the new files have a place, so that a diff shows them like all others."""
    directory = await asyncio.to_thread(tempfile.mkdtemp, prefix="holdfast-")
    try:
        index = os.path.join(directory, "index")
        theirs = await git.line("rev-parse", "--git-path", "index")
        if theirs is not None and os.path.exists(theirs := os.path.join(git.directory, theirs)):
            # With its time: git looks into files that are as old as the index, and trusts those that are older.
            await asyncio.to_thread(shutil.copy2, theirs, index)
        scratch = git.having(GIT_INDEX_FILE=index)
        listed = await git.run("ls-files", "-z", "--others", "--exclude-standard")
        new = [name for name in split(listed.output) if not name.endswith(b"/")][:_NEW_FILES_MAX]
        if new:
            empty = await git.line("hash-object", "-t", "blob", os.devnull)
            # The content that is named here is never looked at: an entry that was not compared yet is read from the file.
            entries = b"".join(b"100644 %b 0\t%b\0" % ((empty or "").encode(), name) for name in new)
            await scratch.run("update-index", "-z", "--index-info", input=entries)
        yield scratch
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


# --- places -----------------------------------------------------------------------------------------------------


async def _git_at(directory: str) -> Git | None:
    """git at the root of the work tree around a directory; None outside of git, and without git."""
    if not is_installed():
        return None
    root = await Git(directory=directory).line("rev-parse", "--show-toplevel")
    return Git(directory=root) if root is not None else None


async def _head(git: Git) -> str:
    """The last commit; the empty tree if there is none."""
    commit = await git.line("rev-parse", "--verify", "--quiet", "HEAD")
    return commit or await _empty_tree(git)


async def _empty_tree(git: Git) -> str:
    empty = await git.line("hash-object", "-t", "tree", os.devnull)
    if empty is None:
        raise Unavailable("git cannot read this repository.")
    return empty


async def _base(git: Git, mode: DiffMode) -> str | None:
    """What to compare with; None if there is nothing to compare."""
    if mode == "git":
        return await _head(git)
    default = await _default_branch(git)
    if default is None or default == await _branch(git):
        return None
    for name in (f"refs/remotes/origin/{default}", f"refs/heads/{default}"):
        if (base := await git.line("merge-base", name, "HEAD")) is not None:
            return base
    return None


async def _branch(git: Git) -> str | None:
    return await git.line("symbolic-ref", "--quiet", "--short", "HEAD")


async def _default_branch(git: Git) -> str | None:
    """That of the remote; else the usual names, if there is such a branch; else the only one there is."""
    remote = await git.line("symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD")
    if remote is not None:
        return remote.removeprefix("origin/")
    listed = await git.run("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads")
    branches = listed.output.decode(errors="replace").split("\n")[:-1]
    usual = (await git.line("config", "--get", "init.defaultBranch"), "main", "master")
    for name in usual:
        if name in branches:
            return name
    return branches[0] if len(branches) == 1 else None
