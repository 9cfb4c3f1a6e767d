"""`/find`, `/file`: what is in the project directory."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter

from holdfast.core.workspace import FileChange, FileContent, FileNode, Symbol, TextMatch
from holdfast.server.bodies import answer
from holdfast.server.opencode.parameters import InstanceOfRequest, documented
from holdfast.service.files import FOUND_MAX, FOUND_MAX_MAX, FileService, FileType
from holdfast.service.lsp import LspService

PathQuery = Annotated[str, QueryParameter(name="path", description="Relative to the project directory, and inside it.")]
QueryQuery = Annotated[str, QueryParameter(name="query")]


def file_routes(files: FileService, lsp: LspService) -> Sequence[HTTPRouteHandler]:
    @get(
        "/find",
        summary="Lines that match a regular expression",
        **documented(
            list[TextMatch], "The first hundred, in no particular order; ignored and binary files are left out."
        ),
    )
    async def find_text(
        instance: InstanceOfRequest, pattern: Annotated[str, QueryParameter(name="pattern")]
    ) -> Response[bytes]:
        return answer(await files.find_text(instance.directory, pattern))

    @get("/find/file", summary="Files and directories by name", **documented(list[str], "The closest name first."))
    async def find_files(
        instance: InstanceOfRequest,
        wanted: QueryQuery,
        dirs: Annotated[
            Literal["true", "false"], QueryParameter(name="dirs", description="Whether directories are wanted too.")
        ] = "true",
        type: Annotated[FileType | None, QueryParameter(name="type")] = None,
        limit: Annotated[int, QueryParameter(name="limit", ge=1, le=FOUND_MAX_MAX)] = FOUND_MAX,
    ) -> Response[bytes]:
        found = await files.find_files(instance.directory, wanted, type=type, dirs=dirs == "true", limit=limit)
        return answer(found)

    @get(
        "/find/symbol",
        summary="Names in the code",
        **documented(list[Symbol], "At most ten of each language server that is configured."),
    )
    async def find_symbols(instance: InstanceOfRequest, wanted: QueryQuery) -> Response[bytes]:
        return answer(await lsp.find_symbols(instance, wanted))

    @get("/file", summary="Entries of a directory", **documented(list[FileNode], missing="There is no such directory."))
    async def list_files(instance: InstanceOfRequest, path: PathQuery) -> Response[bytes]:
        return answer(await files.list(instance.directory, path))

    @get("/file/content", summary="Content of a file", **documented(FileContent, missing="There is no such file."))
    async def read_file(instance: InstanceOfRequest, path: PathQuery) -> Response[bytes]:
        return answer(await files.read(instance.directory, path))

    @get("/file/status", summary="Files that differ from the last commit", **documented(list[FileChange]))
    async def file_status(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(await files.status(instance.directory))

    routes: list[Any] = [find_text, find_files, find_symbols, list_files, read_file, file_status]
    return routes
