"""`holdfast export` and `holdfast import`: sessions as files. Through a server, or in a data directory: reading goes beside
a server that has it, writing does not."""

import contextlib
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from holdfast.bootstrap import open_reader, open_store
from holdfast.cli.words import counted
from holdfast.client import Client
from holdfast.core.errors import Invalid, StorageLocked
from holdfast.service.transfer import Imported, export_session, import_session


async def export_to(output: Path | None, session_id: str, source: Client | Path) -> None:
    """To standard output without `output`. A file is there whole, or not at all."""
    if isinstance(source, Client):
        await _write(output, source.export_session(session_id))
        return
    reader = open_reader(source)
    try:
        await _write(output, export_session(reader, session_id))
    finally:
        await reader.close()


async def _write(output: Path | None, pieces: AsyncGenerator[bytes]) -> None:
    async with contextlib.aclosing(pieces):  # whoever reads our output may go (`… | head`)
        if output is None:
            async for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        if not output.name:
            raise Invalid(f"Cannot write {output}: it is a directory")
        unfinished = output.with_name(f"{output.name}.part")
        try:
            with unfinished.open("wb") as file:
                async for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(output)
        except OSError as error:
            raise Invalid(f"Cannot write {output}: {error.strerror}") from error
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink()


async def import_from(file: Path | None, target: Client | Path) -> None:
    """From standard input without `file`."""
    try:
        content = file.read_bytes() if file is not None else sys.stdin.buffer.read()
    except OSError as error:
        raise Invalid(f"Cannot read {file}: {error.strerror}") from error
    if isinstance(target, Client):
        imported = await target.import_session(content)
    else:
        imported = await _import_into(target, content)
    print(f"{imported.session_id}: {counted(imported.records, 'record')} imported")
    if imported.unfinished:
        print("It was in the middle of a turn; a server takes that up.")


async def _import_into(data: Path, content: bytes) -> Imported:
    try:
        store = await open_store(data)
    except StorageLocked as error:
        raise StorageLocked(error.message, hint="Import through that server: add --server URL.") from error
    try:
        return await import_session(store, content.split(b"\n"))
    finally:
        await store.close()
