"""The commands and their options. What they do is in one module each, imported when the command is called: `holdfast
--help` must not wait for a web framework."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast import __version__
from holdfast.cli.outcome import conclude, told_plainly

if TYPE_CHECKING:
    from holdfast.client import Client

app = typer.Typer(
    name="holdfast",
    help="A server in which AI-agent sessions outlive everything around them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"holdfast {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


ServerUrl = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="Where the server is, for example http://127.0.0.1:4096."),
]
Password = Annotated[
    str | None, typer.Option("--password", envvar="OPENCODE_SERVER_PASSWORD", help="What the server asks for.")
]


DataDirectory = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="The data directory.", show_default="$XDG_DATA_HOME/holdfast"),
]


@app.command()
def serve(
    context: typer.Context,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other than loopback needs a password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 picks one that is free.", min=0, max=65535)] = 4096,
    data: DataDirectory = None,
    directory: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The project that requests mean when they name none.", show_default="here"),
    ] = None,
    username: Annotated[str, typer.Option(envvar="OPENCODE_SERVER_USERNAME")] = "opencode",
    password: Annotated[
        str | None,
        typer.Option(
            envvar="OPENCODE_SERVER_PASSWORD",
            help="What every request must bring. Better in the variable: others see a command line.",
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Web pages of this origin may use the server. Repeatable."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A further name that this server goes by. Repeatable.")
    ] = None,
    keep_deltas: Annotated[
        int, typer.Option(metavar="SECONDS", help="How long pieces of a finished text are kept beside it.", min=0)
    ] = 3600,
    long_poll_seconds: Annotated[
        float, typer.Option(help="How long a long-poll on a stream waits at most.", min=0.01, max=600)
    ] = 15,
    sse_seconds: Annotated[
        float, typer.Option(help="After how long an SSE read of a stream ends; clients resume.", min=1)
    ] = 60,
    stream_body_bytes: Annotated[
        int, typer.Option(metavar="BYTES", help="How large one append to a stream may be.", min=1)
    ] = 16 << 20,
    stream_rate: Annotated[
        float | None,
        typer.Option(
            metavar="N", help="Requests on streams a second for each client.", show_default="no limit", min=0.1
        ),
    ] = None,
    stream_access: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Bearer tokens and the streams each is good for, as JSON.")
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="What links to this server begin with.", show_default="as addressed"),
    ] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C. Whatever was going on goes on at the next start, even after a kill -9."""
    from holdfast.bootstrap import Settings
    from holdfast.cli.data import data_directory
    from holdfast.cli.serve import serve as command
    from holdfast.server.streams import StreamOptions
    from holdfast.service.stream_access import read_credentials

    with told_plainly():
        settings = Settings(
            data=data_directory(data),
            directory=(directory or Path()).resolve(),
            host=host,
            port=port,
            username=username,
            password=password or None,
            cors=tuple(cors or ()),
            allow_hosts=tuple(allow_host or ()),
            delta_age_ms=keep_deltas * 1000,
            streams=StreamOptions(
                body_bytes_max=stream_body_bytes,
                long_poll_seconds=long_poll_seconds,
                sse_seconds=sse_seconds,
                public_url=public_url.rstrip("/") if public_url is not None else None,
                credentials=read_credentials(stream_access) if stream_access is not None else (),
                requests_per_second=stream_rate,
            ),
        )
    source = context.get_parameter_source("password")
    command(settings, password_is_visible=source is not None and source.name == "COMMANDLINE")


@app.command()
def run(
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads it from standard input.")],
    session: Annotated[str | None, typer.Option(metavar="ID", help="Go on in this session.")] = None,
    model: Annotated[str | None, typer.Option(metavar="PROVIDER/MODEL", help="Who answers.")] = None,
    agent: Annotated[str | None, typer.Option(metavar="NAME", help="How it works: an agent of the server.")] = None,
    directory: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where a new session works.", show_default="here, on this machine")
    ] = None,
    server: ServerUrl = None,
    password: Password = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the events of the turn, a JSON line each.")] = False,
) -> None:
    """Ask for something and watch the turn, over restarts of the server, until it has ended. Ctrl-C aborts it. In a
    terminal, permissions and questions of the turn are asked there."""
    from holdfast.cli import run as command
    from holdfast.cli.asking import lines_of
    from holdfast.cli.terminal import Terminal

    given = sys.stdin.buffer.read() if prompt == "-" else os.fsencode(prompt)
    asks = prompt != "-" and not as_json and sys.stdin.isatty() and sys.stderr.isatty()

    async def main() -> int:
        asked = command.Prompt(
            text=command.text_of(given), session_id=session, model=command.parse_model(model), agent=agent
        )
        async with _client(server, password, directory or _here(server)) as client:
            return await command.run(
                client,
                asked,
                Terminal(answers_here=asks),
                as_json=as_json,
                read_line=lines_of(sys.stdin.fileno()) if asks else None,
            )

    conclude(main)


@app.command()
def tail(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Its id.")],
    after: Annotated[
        str | None, typer.Option(metavar="OFFSET", help="Only what follows.", show_default="from the beginning")
    ] = None,
    server: ServerUrl = None,
    password: Password = None,
) -> None:
    """Print a session's events as JSON lines, with their offsets, for ever. Goes on by itself when the server was gone."""
    from holdfast.cli.tail import tail as command
    from holdfast.core.offsets import parse_offset

    async def main() -> None:
        async with _client(server, password, None) as client:
            await command(client, session, after=parse_offset(after) if after else None)

    conclude(main)


@app.command()
def verify(data: DataDirectory = None) -> None:
    """Fold every log again and compare it with the stored state. Also while a server runs. Exit code 1 on any difference."""
    from holdfast.cli.data import data_directory
    from holdfast.cli.verify import verify as command

    conclude(lambda: command(data_directory(data)))


@app.command()
def sessions(
    directory: Annotated[Path | None, typer.Option(metavar="DIR", help="Only those that work there.")] = None,
    data: DataDirectory = None,
    server: ServerUrl = None,
    password: Password = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON line each.")] = False,
) -> None:
    """List sessions, newest first: of the data directory, or with --server of a directory there."""
    from holdfast.cli.data import data_directory
    from holdfast.cli.sessions import sessions_in, sessions_of

    async def main() -> None:
        if server is None:
            await sessions_in(data_directory(data), directory and str(directory.absolute()), as_json=as_json)
            return
        async with _client(server, password, str(directory) if directory else _here(server)) as client:
            await sessions_of(client, as_json=as_json)

    conclude(main)


@app.command()
def export(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Its id.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to.", show_default="standard output")
    ] = None,
    data: DataDirectory = None,
    server: ServerUrl = None,
    password: Password = None,
) -> None:
    """Write a session to a file: its whole log. From the data directory, or with --server over HTTP."""
    from holdfast.cli.data import data_directory
    from holdfast.cli.transfer import export_to

    async def main() -> None:
        if server is None:
            await export_to(output, session, data_directory(data))
            return
        async with _client(server, password, None) as client:
            await export_to(output, session, client)

    conclude(main)


@app.command("import")
def import_(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="What export wrote.", show_default="standard input")
    ] = None,
    data: DataDirectory = None,
    server: ServerUrl = None,
    password: Password = None,
) -> None:
    """Read a session from a file of `export`, into the data directory, or with --server over HTTP. Never replaces one."""
    from holdfast.cli.data import data_directory
    from holdfast.cli.transfer import import_from

    async def main() -> None:
        if server is None:
            await import_from(file, data_directory(data))
            return
        async with _client(server, password, None) as client:
            await import_from(file, client)

    conclude(main)


@app.command()
def doctor(
    data: DataDirectory = None,
    directory: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Whose opencode.json.", show_default="here")
    ] = None,
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 4096,
) -> None:
    """Check this machine: Python, data directory, database, stored keys, configuration, programs, port. Changes nothing."""
    from holdfast.cli.data import data_directory
    from holdfast.cli.doctor import doctor as command

    conclude(lambda: command(data_directory(data), (directory or Path()).resolve(), host, port))


def _client(server: str | None, password: str | None, directory: str | None) -> "Client":
    from holdfast.client import DEFAULT_URL, Client

    return Client(
        server or DEFAULT_URL,
        username=os.environ.get("OPENCODE_SERVER_USERNAME", "opencode"),
        password=password,
        directory=directory,
    )


def _here(server: str | None) -> str | None:
    """The working directory, if the server sees the same files."""
    from holdfast.client import is_local

    return os.getcwd() if server is None or is_local(server) else None
