"""Whatever a request looks like: never a 5xx, and every answer is one that the generated OpenAPI document promises.

Each operation is asked with what schemathesis makes of its schema, valid or not; then once more with a session that exists
and without the names that a random text cannot guess, so that what lies behind the lookups is reached too.
"""

import asyncio
import json
import threading
from collections.abc import Iterator, MutableMapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    negative_data_rejection,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from holdfast.bootstrap import Application, Settings, open_application
from holdfast.server.listener import Listener

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
EXAMPLES = 10
SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large, HealthCheck.large_base_example]
CONFIG = {"provider": {"demo": {"options": {"wordsPerSecond": 0}}}}


class Fuzzed:
    """A server on a thread of its own: schemathesis is not asynchronous."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: Future[str] = Future()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def start(self) -> None:
        self._thread.start()
        self.url = self._started.result(60)
        self.api = httpx.Client(base_url=self.url, timeout=60)

    def stop(self) -> None:
        self.api.close()
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        self._done = asyncio.Event()
        environ = {"OPENCODE_CONFIG_CONTENT": json.dumps(CONFIG)}
        settings = Settings(data=None, directory=self._directory, home=self._directory, environ=environ)
        async with (
            open_application(settings) as self._application,
            Listener(self._application.asgi, "127.0.0.1", 0, stopping=self._application.stop) as listener,
        ):
            self._started.set_result(listener.url)
            await self._done.wait()

    def differences(self) -> list[Any]:
        async def verify(application: Application) -> list[Any]:
            return [difference async for difference in application.store.verify()]

        return asyncio.run_coroutine_threadsafe(verify(self._application), self._loop).result(60)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    server = Fuzzed(tmp_path_factory.mktemp("fuzzed"))
    server.start()
    yield server
    try:
        assert server.differences() == []
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_request_brings_the_server_into_trouble(fuzzed: Fuzzed):
    # Streams never end, and somebody who waits for the next request to a TUI waits long; sharing is a 503 for as long as
    # there is no hub; a changed configuration would spoil the rest.
    document = schemathesis.openapi.from_url(f"{fuzzed.url}/doc")
    fuzz_all(fuzzed, document.exclude(path_regex="/(event|control/next|share|config)$"))


@pytest.mark.slow
def test_no_change_of_the_configuration_brings_the_server_into_trouble(tmp_path: Path):
    server = Fuzzed(tmp_path)
    server.start()
    try:
        fuzz_all(server, schemathesis.openapi.from_url(f"{server.url}/doc").include(path_regex="/config$"))
        for path in ("/config", "/global/config", "/agent", "/provider", "/command"):
            server.api.get(path).raise_for_status()
    finally:
        server.stop()


def fuzz_all(fuzzed: Fuzzed, document: Any) -> None:
    failures: list[Exception] = []
    for operation in document.get_all_operations():
        try:
            fuzz(fuzzed, cast(Any, operation).ok())
        except Exception as failure:
            failures.append(failure)
    if failures:
        raise ExceptionGroup("The server did not keep to its document", failures)


def fuzz(fuzzed: Fuzzed, operation: Any) -> None:
    @settings(max_examples=EXAMPLES, derandomize=True, database=None, suppress_health_check=SLOW)
    @given(case=st.one_of(operation.as_strategy(), operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)))
    def ask(case: Case) -> None:
        case.call_and_validate(checks=CHECKS, timeout=60)
        make_plausible(case, fuzzed)
        case.validate_response(case.call(timeout=60), checks=[not_a_server_error, response_schema_conformance])

    ask()


def make_plausible(case: Case, fuzzed: Fuzzed) -> None:
    """What a random text can only be wrong about: which sessions, directories, agents and models there are."""
    if "sessionID" in (case.path_parameters or {}):
        case.path_parameters["sessionID"] = fuzzed.api.post("/session").json()["id"]
    for container, names in (
        (case.query, ("directory",)),
        (case.headers, ("x-opencode-directory",)),
        (case.body, ("agent", "model", "messageID", "parentID", "id")),
    ):
        for name in names:
            if isinstance(container, MutableMapping):
                container.pop(name, None)


def test_every_route_is_documented_with_what_it_does(fuzzed: Fuzzed):
    document = fuzzed.api.get("/doc").json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]

    assert len(operations) > 30
    assert all(operation["summary"] for operation in operations)
    assert {"/event", "/global/event"} <= document["paths"].keys()
