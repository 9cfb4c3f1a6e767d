"""Keys of providers: stored so that nobody reads them by accident, and found wherever a user has them."""

import json
import os
import stat
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.credentials import ApiKey, Credential, OAuthTokens, WellKnown
from holdfast.core.errors import Conflict, Invalid
from holdfast.service.credentials import Credentials
from holdfast.service.seal import Seal

KEY = "sk-very-secret-key"


class Place:
    """A user's files. `credentials()` is what a server that starts now would have."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.file = root / "data" / "auth.json"
        self.key_file = root / "config" / "auth.key"
        self.environ: dict[str, str] = {}

    def seal(self, entropy: Callable[[int], bytes] = os.urandom) -> Seal:
        return Seal(self.key_file, environ=self.environ, entropy=entropy)

    def credentials(self, entropy: Callable[[int], bytes] = os.urandom) -> Credentials:
        return Credentials(self.file, seal=self.seal(entropy), environ=self.environ, home=self.home)

    def opencode(self, content: Any) -> Path:
        file = self.home / ".local" / "share" / "opencode" / "auth.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
        return file


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def keys(credentials: Credentials) -> dict[str, str]:
    return dict(credentials.keys().by_provider)


def test_a_key_is_there_after_a_restart(place: Place):
    place.credentials().set("anthropic", ApiKey(key=KEY))

    assert keys(place.credentials()) == {"anthropic": KEY}


def test_no_file_has_it_in_clear_and_nobody_else_may_read_them(place: Place):
    place.credentials().set("anthropic", ApiKey(key=KEY))

    assert KEY.encode() not in place.file.read_bytes()
    assert KEY.encode() not in place.key_file.read_bytes()
    for file in (place.file, place.key_file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_data_directory_alone_gives_nothing_away(place: Place):
    """A copy of it, on another machine, has no keys and says so; giving the key again mends it."""
    place.credentials().set("anthropic", ApiKey(key=KEY))
    place.credentials().set("openai", ApiKey(key="other"))
    place.key_file.unlink()

    assert keys(place.credentials()) == {}
    place.credentials().set("anthropic", ApiKey(key="new"))
    assert keys(place.credentials()) == {"anthropic": "new"}


def test_an_entry_cannot_be_moved_to_another_provider(place: Place):
    """Who can write the file cannot make the server send a key somewhere else."""
    place.credentials().set("anthropic", ApiKey(key=KEY))
    content = json.loads(place.file.read_text())
    content["credentials"]["elsewhere"] = content["credentials"].pop("anthropic")
    place.file.write_text(json.dumps(content))

    assert keys(place.credentials()) == {}


def test_the_key_to_seal_with_may_come_from_the_environment(place: Place):
    place.environ["HOLDFAST_AUTH_KEY"] = b64encode(bytes(range(32))).decode()
    place.credentials().set("anthropic", ApiKey(key=KEY))

    assert not place.key_file.exists()
    assert keys(place.credentials()) == {"anthropic": KEY}
    place.environ["HOLDFAST_AUTH_KEY"] = "short"
    with pytest.raises(Invalid, match="HOLDFAST_AUTH_KEY"):
        place.credentials().set("openai", ApiKey(key=KEY))
    assert keys(place.credentials()) == {}


def test_removed_is_removed(place: Place):
    credentials = place.credentials()
    credentials.set("anthropic", ApiKey(key=KEY))
    before = credentials.stamp()

    credentials.remove("anthropic")
    credentials.remove("never-there")

    assert credentials.stamp() != before
    assert keys(place.credentials()) == {}
    assert "anthropic" not in place.file.read_text()


def test_opencodes_keys_count_and_its_file_is_not_touched(place: Place):
    content = {"anthropic": {"type": "api", "key": KEY}, "broken": {"type": "api"}, "own": {"type": "api", "key": "x"}}
    file = place.opencode(content)
    credentials = place.credentials()
    credentials.set("own", ApiKey(key="mine"))

    assert keys(credentials) == {"anthropic": KEY, "own": "mine"}

    credentials.remove("anthropic")
    credentials.remove("own")
    assert keys(place.credentials()) == {}
    assert json.loads(file.read_text()) == content
    credentials.set("anthropic", ApiKey(key="again"))
    assert keys(place.credentials()) == {"anthropic": "again"}


def test_a_text_in_the_environment_stands_for_opencodes_file(place: Place):
    place.opencode({"anthropic": {"type": "api", "key": "of the file"}})
    place.environ["OPENCODE_AUTH_CONTENT"] = json.dumps({"openai": {"type": "api", "key": KEY}})

    assert keys(place.credentials()) == {"openai": KEY}


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"anthropic": 3}'])
def test_a_broken_file_of_opencode_is_as_none(place: Place, content: str):
    place.opencode({}).write_text(content)

    assert keys(place.credentials()) == {}


def test_tokens_are_stored_as_they_are_given_and_are_no_keys(place: Place):
    tokens: list[Credential] = [
        OAuthTokens(refresh="r", access="a", expires=3, account_id="me"),
        WellKnown(key="COMPANY_TOKEN", token=KEY),
    ]
    for number, credential in enumerate(tokens):
        place.credentials().set(f"p{number}", credential)

    found = place.credentials().keys()
    assert found.by_provider == {}
    assert found.variables == {"COMPANY_TOKEN": KEY}
    assert KEY not in place.file.read_text()


@pytest.mark.parametrize(
    ("provider_id", "credential"),
    [
        ("", ApiKey(key=KEY)),
        ("a" * 300, ApiKey(key=KEY)),
        ("a\nb", ApiKey(key=KEY)),
        ("p", ApiKey(key="")),
        ("p", ApiKey(key="two\nlines")),
        ("p", ApiKey(key="schlüssel")),
        ("p", ApiKey(key="x" * 20_000)),
        ("p", OAuthTokens(refresh="", access="a", expires=1)),
        ("p", WellKnown(key="A", token="\x00")),
    ],
)
def test_what_is_no_key_is_refused_and_not_repeated(place: Place, provider_id: str, credential: Credential):
    with pytest.raises(Invalid) as refused:
        place.credentials().set(provider_id, credential)

    assert not place.file.exists()
    assert "schlüssel" not in str(refused.value)


def test_a_broken_file_is_said_and_kept_and_holds_up_nothing(place: Place):
    place.file.parent.mkdir()
    place.file.write_text("{")

    with pytest.raises(Conflict, match=r"auth\.json cannot be read"):
        place.credentials().set("anthropic", ApiKey(key=KEY))
    assert keys(place.credentials()) == {}
    assert place.file.read_text() == "{"


def test_what_cannot_be_written_is_said(place: Place):
    place.file.parent.write_text("a file where the directory should be")

    with pytest.raises(Conflict, match=r"cannot be (written|read)"):
        place.credentials().set("anthropic", ApiKey(key=KEY))


def test_without_a_data_directory_keys_live_as_long_as_the_server(place: Place):
    place.opencode({"openai": {"type": "api", "key": "x"}})
    credentials = Credentials(None, seal=place.seal(), environ={}, home=place.home)
    credentials.set("anthropic", ApiKey(key=KEY))
    credentials.remove("openai")

    assert keys(credentials) == {"anthropic": KEY}
    assert not place.key_file.exists()
