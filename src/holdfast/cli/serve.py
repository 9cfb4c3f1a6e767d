"""`holdfast serve`: the server as a process. The first line on stdout says where it listens, once requests are served."""

import gc
import sys

import structlog
import uvloop

from holdfast.bootstrap import Settings
from holdfast.bootstrap import serve as serve_until_signalled
from holdfast.cli.logs import log_to_stderr
from holdfast.cli.outcome import conclude


def serve(settings: Settings, *, password_is_visible: bool) -> None:
    log_to_stderr()
    log = structlog.get_logger()
    if password_is_visible:
        log.warning("password.visible", hint="Other users see it in the process list: set OPENCODE_SERVER_PASSWORD.")

    def listening(url: str) -> None:
        # All that was loaded so far stays. Looked through in every full collection, it stops the server for 40 ms.
        gc.freeze()
        sys.stdout.write(f"holdfast listening on {url}\n")
        sys.stdout.flush()
        log.info("server.started", url=url, data=str(settings.data), directory=str(settings.directory))

    async def main() -> None:
        await serve_until_signalled(settings, listening=listening)
        log.info("server.stopped")

    conclude(main, loop_factory=uvloop.new_event_loop)
