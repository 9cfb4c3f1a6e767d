"""opencode.json: which files count, in which order, and what is said when one is wrong."""

import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.agent.providers.connections import Connections
from holdfast.core.config import Config, public
from holdfast.core.errors import Invalid
from holdfast.service.config import Configuration, config_directory

SECRET = "sk-very-secret-key"


class Disk:
    """A home and a project with files in them."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.worktree = root / "home" / "project"
        self.directory = self.worktree / "src" / "deep"
        self.directory.mkdir(parents=True)
        self.environ: dict[str, str] = {}
        self._configuration: Configuration | None = None

    def write(self, file: Path, settings: Any) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(settings if isinstance(settings, str) else json.dumps(settings), encoding="utf-8")
        return file

    @property
    def configuration(self) -> Configuration:
        if self._configuration is None:
            self._configuration = Configuration(environ=self.environ, home=self.home, connections=Connections())
        return self._configuration

    def config(self) -> Config:
        return self.configuration.config(str(self.directory), str(self.worktree))

    def refused(self) -> Invalid:
        with pytest.raises(Invalid) as error:
            self.config()
        assert SECRET not in f"{error.value} {error.value.hint} {error.value.field}"
        return error.value


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


# --- commands and agents in files of their own


@pytest.mark.parametrize("folder", ["command", "commands"])
def test_a_command_may_be_a_file_of_its_own(disk: Disk, folder: str):
    text = "---\ndescription: says hello\nsubtask: true\nargument-hint: name\n---\n\nHello $1\n"
    disk.write(disk.worktree / ".opencode" / folder / "hello.md", text)
    (command,) = (disk.config().command or {}).items()
    assert command[0] == "hello"
    assert (command[1].template, command[1].description, command[1].subtask) == ("Hello $1", "says hello", True)


def test_a_command_in_a_folder_has_the_folder_in_its_name_and_needs_no_settings(disk: Disk):
    disk.write(disk.worktree / ".opencode" / "command" / "git" / "tidy.md", "Tidy up.\r\n")
    assert {name: command.template for name, command in (disk.config().command or {}).items()} == {
        "git/tidy": "Tidy up."
    }


def test_an_agent_may_be_a_file_of_its_own_and_settings_of_opencode_json_join_it(disk: Disk):
    disk.write(disk.home / ".config" / "opencode" / "agent" / "poet.md", "---\nmode: subagent\ntop_k: 3\n---\nRhyme.\n")
    disk.write(disk.worktree / "opencode.json", {"agent": {"poet": {"temperature": 1.5}}})
    poet = (disk.config().agent or {})["poet"]
    assert (poet.prompt, poet.mode, poet.temperature, poet.options) == ("Rhyme.", "subagent", 1.5, {"top_k": 3})


def test_the_nearest_file_of_a_command_wins(disk: Disk):
    for folder in (disk.home / ".config" / "opencode", disk.worktree / ".opencode", disk.directory / ".opencode"):
        disk.write(folder / "command" / "where.md", str(folder))
    assert (disk.config().command or {})["where"].template == str(disk.directory / ".opencode")


def test_a_command_that_was_added_changed_or_removed_is_noticed(disk: Disk):
    assert disk.config().command == {}
    file = disk.write(disk.worktree / ".opencode" / "command" / "a.md", "one")
    assert (disk.config().command or {})["a"].template == "one"
    disk.write(file, "another")
    assert (disk.config().command or {})["a"].template == "another"
    file.unlink()
    assert disk.config().command == {}


def test_a_value_with_a_colon_needs_no_quotes(disk: Disk):
    disk.write(disk.worktree / ".opencode" / "command" / "a.md", "---\ndescription: one: two\nsubtask: true\n---\nx")
    command = (disk.config().command or {})["a"]
    assert (command.description, command.subtask) == ("one: two", True)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("---\ndescription: [1\n---\nx", "line 2: "),
        ("---\n- a\n---\nx", "`name: value`"),
        ("---\nsubtask: perhaps\n---\nx", "subtask: Expected bool, got str."),
        ("---\ndescription: 5\n---\nx", "description: Expected str, got int."),
    ],
)
def test_a_command_that_is_wrong_is_named_with_what_is_wrong(disk: Disk, text: str, complaint: str):
    file = disk.write(disk.worktree / ".opencode" / "command" / "a.md", text)
    refused = disk.refused()
    assert str(file) in refused.message
    assert complaint in refused.message


# --- which files


def test_without_any_file_there_is_an_empty_configuration(disk: Disk) -> None:
    config = disk.config()

    assert config.provider is None
    assert (config.command, config.agent, config.mode, config.plugin) == ({}, {}, {}, ())
    assert config.username


def test_later_files_win(disk: Disk) -> None:
    """Each file is overruled by the next: the newest of each time is the one that holds."""
    user = config_directory(disk.environ, disk.home)
    disk.environ |= {"OPENCODE_CONFIG": str(disk.home / "named.json"), "OPENCODE_CONFIG_DIR": str(disk.home / "extra")}
    for number, file in enumerate(
        [
            user / "config.json",
            user / "opencode.json",
            user / "opencode.jsonc",
            disk.home / "named.json",
            disk.worktree / "opencode.json",
            disk.worktree / "opencode.jsonc",
            disk.worktree / "src" / "opencode.json",
            disk.directory / "opencode.json",
            disk.home / ".opencode" / "opencode.json",
            disk.worktree / ".opencode" / "opencode.json",
            disk.directory / ".opencode" / "opencode.jsonc",
            disk.home / "extra" / "opencode.json",
        ]
    ):
        if "named" not in file.name and not (disk.home / "named.json").exists():
            disk.write(disk.home / "named.json", {})
        disk.write(file, {"model": f"p/{number}"})

        assert disk.config().model == f"p/{number}", file

    disk.environ["OPENCODE_CONFIG_CONTENT"] = '{"model": "p/content"}'
    disk.write(disk.directory / "opencode.json", {})

    assert disk.config().model == "p/content"


def test_files_above_the_work_tree_do_not_count(disk: Disk) -> None:
    disk.write(disk.home / "opencode.json", {"model": "p/outside"})

    assert disk.config().model is None


def test_outside_of_git_all_files_on_the_way_count(disk: Disk) -> None:
    disk.write(disk.home / "opencode.json", {"model": "p/home"})

    assert disk.configuration.config(str(disk.directory), "/").model == "p/home"


def test_the_project_can_be_left_out(disk: Disk) -> None:
    disk.write(disk.worktree / "opencode.json", {"model": "p/project"})
    disk.write(disk.worktree / ".opencode" / "opencode.json", {"model": "p/project"})
    disk.environ["OPENCODE_DISABLE_PROJECT_CONFIG"] = "1"

    assert disk.config().model is None


def test_the_users_directory_may_be_elsewhere(disk: Disk) -> None:
    disk.environ["XDG_CONFIG_HOME"] = str(disk.home / "xdg")
    disk.write(disk.home / "xdg" / "opencode" / "opencode.json", {"model": "p/xdg"})

    assert disk.config().model == "p/xdg"


def test_settings_are_merged_one_by_one_and_lists_are_replaced_but_for_two(disk: Disk) -> None:
    disk.write(
        disk.worktree / "opencode.json",
        {
            "provider": {"p": {"name": "P", "options": {"baseURL": "http://a", "timeout": 5}, "models": {"m": {}}}},
            "instructions": ["A.md", "B.md"],
            "disabled_providers": ["x"],
        },
    )
    disk.write(
        disk.directory / "opencode.json",
        {
            "provider": {"p": {"options": {"baseURL": "http://b"}, "models": {"n": {"name": "N"}}}},
            "instructions": ["B.md", "C.md"],
            "disabled_providers": ["y"],
        },
    )
    config = disk.config()
    provider = (config.provider or {})["p"]

    assert provider.name == "P"
    assert provider.options == {"baseURL": "http://b", "timeout": 5}
    assert list(provider.models or {}) == ["m", "n"]
    assert config.instructions == ("A.md", "B.md", "C.md")
    assert config.disabled_providers == ("y",)


def test_permissions_may_come_from_the_environment(disk: Disk) -> None:
    disk.environ["OPENCODE_PERMISSION"] = '{"bash": "deny"} // strict'
    disk.write(disk.worktree / "opencode.json", {"permission": {"bash": "allow", "edit": "ask"}})

    assert disk.config().permission == {"bash": "deny", "edit": "ask"}


def test_a_changed_file_counts_at_once_and_an_unchanged_one_is_not_read_again(disk: Disk) -> None:
    file = disk.write(disk.directory / "opencode.json", {"model": "p/1"})
    first = disk.config()
    assert disk.config() is first
    assert disk.configuration.providers(str(disk.directory), str(disk.worktree)) is disk.configuration.providers(
        str(disk.directory), str(disk.worktree)
    )

    disk.write(file, {"model": "p/two"})
    assert disk.config().model == "p/two"

    file.unlink()
    assert disk.config().model is None


def test_only_so_many_directories_are_remembered(disk: Disk) -> None:
    for number in range(300):
        disk.configuration.config(f"/nowhere/{number}", "/nowhere")

    assert len(disk.configuration._known) == 256


# --- references


def test_variables_and_files_are_filled_in(disk: Disk) -> None:
    disk.environ |= {"KEY": SECRET, "TRAP": "{file:~/key}"}
    disk.write(disk.home / "key", f"\n  {SECRET}\n\n")
    disk.write(disk.worktree / "prompt.md", 'Say "hi",\n\\o/')
    disk.write(
        disk.worktree / "opencode.jsonc",
        """{
            // {file:./missing} in a comment is no reference
            "provider": {"p": {"options": {"apiKey": "{env:KEY}", "b": "{file:~/key}", "c": "x{env:NONE}y{env:KEY}",
                                           "d": ["{env:TRAP}"]}}},
            "agent": {"a": {"prompt": "{file:prompt.md}"}},
        }""",
    )
    config = disk.config()

    assert (config.provider or {})["p"].options == {
        "apiKey": SECRET,
        "b": SECRET,
        "c": f"xy{SECRET}",
        "d": ["{file:~/key}"],  # what a variable holds is not looked into
    }
    assert (config.agent or {})["a"].prompt == 'Say "hi",\n\\o/'


def test_a_changed_file_that_is_referred_to_counts_too(disk: Disk) -> None:
    key = disk.write(disk.home / "key", "one")
    disk.write(disk.worktree / "opencode.json", {"username": "{file:~/key}"})
    assert disk.config().username == "one"

    disk.write(key, "other")

    assert disk.config().username == "other"


def test_a_file_that_is_missing_is_named_where_it_is_referred_to(disk: Disk) -> None:
    file = disk.write(disk.worktree / "opencode.json", '{\n  "model": "a/b",\n  "username": "{file:./gone}"\n}')
    error = disk.refused()

    assert str(error) == f"{file}:3:15: username: {{file:./gone}} cannot be read: no such file or directory."
    assert error.field == "username"


# --- what is wrong


@pytest.mark.parametrize(
    ("text", "place", "field", "complaint"),
    [
        ('{"model": 5}', "1:11", "model", "Expected str, got int."),
        (
            '{"provider": {"a": {}, "b": {"models": {"m": {}, "n": {"limit": {"context": "x", "output": 1}}}}}}',
            "1:77",
            "provider.b.models.n.limit.context",
            "Expected int, got str.",
        ),
        (
            '{"provider": {"p": {"options": {\n"timeout": "5"}}}}',
            "2:12",
            "provider.p.options.timeout",
            "Expected bool | int, got str.",
        ),
        ('{"instructions": ["a",\n 5]}', "2:2", "instructions.1", "Expected str, got int."),
        (
            '{"command": {"a": {"template": "x"}, "b": {}}}',
            "1:43",
            "command.b",
            "Object missing required field template.",
        ),
        (f'{{"share": "{SECRET}"}}', "1:11", "share", "Not one of the values that this setting can have."),
        ("[]", "1:1", None, "Expected object, got array."),
        ('{"a": }', "1:7", None, "A value is expected here."),
        (f'{{"a": "{SECRET}" "b": 1}}', "1:28", None, '"," or "}" is expected here.'),
    ],
)
def test_a_mistake_has_file_line_column_and_setting(
    disk: Disk, text: str, place: str, field: str | None, complaint: str
) -> None:
    file = disk.write(disk.worktree / "opencode.json", text)
    error = disk.refused()

    assert str(error) == f"{file}:{place}: {f'{field}: ' if field else ''}{complaint}"
    assert error.field == field


def test_a_mistake_in_the_environment_is_named_after_the_variable(disk: Disk) -> None:
    disk.environ["OPENCODE_CONFIG_CONTENT"] = '{"model": 1}'
    assert str(disk.refused()).startswith("OPENCODE_CONFIG_CONTENT:1:11: model")

    disk.environ["OPENCODE_CONFIG_CONTENT"] = ""
    disk.environ["OPENCODE_PERMISSION"] = "{"
    assert str(disk.refused()).startswith("OPENCODE_PERMISSION:")


def test_a_named_file_must_be_there(disk: Disk) -> None:
    disk.environ["OPENCODE_CONFIG"] = "gone.json"

    assert "gone.json, which does not exist" in str(disk.refused())


def test_files_that_are_no_text_are_refused_by_name(disk: Disk) -> None:
    file = disk.worktree / "opencode.json"
    file.write_bytes(b"\xff\xfe{")
    assert str(disk.refused()) == f"{file} cannot be read: it is not UTF-8 text."

    file.write_bytes(b" " * 2_000_000)
    assert "larger than" in str(disk.refused())

    file.unlink()
    file.mkdir()
    assert "is a directory" in str(disk.refused())


def test_an_empty_file_and_a_byte_order_mark_do_no_harm(disk: Disk) -> None:
    disk.write(disk.worktree / "opencode.json", "\n")
    disk.write(disk.directory / "opencode.json", '\ufeff{"model": "a/b"}')

    assert disk.config().model == "a/b"


def test_settings_that_we_do_not_know_are_no_mistake(disk: Disk) -> None:
    disk.write(disk.worktree / "opencode.json", {"keybinds": {"leader": 5}, "theme": "x", "server": {"new": []}})

    assert disk.config().server is not None


# --- old names


def test_old_names_mean_what_the_new_ones_do(disk: Disk) -> None:
    disk.write(
        disk.worktree / "opencode.json",
        {
            "mode": {"build": {"model": "a/b"}},
            "agent": {
                "build": {"temperature": 0.5},
                "x": {"maxSteps": 3, "tools": {"write": False, "bash": True}, "reasoningEffort": "high"},
            },
            "tools": {"webfetch": False},
            "permission": {"edit": "ask"},
            "autoshare": True,
        },
    )
    config = disk.config()
    agents = config.agent or {}

    assert (agents["build"].mode, agents["build"].model, agents["build"].temperature) == ("primary", "a/b", 0.5)
    assert (agents["x"].steps, agents["x"].permission) == (3, {"edit": "deny", "bash": "allow"})
    assert agents["x"].options == {"reasoningEffort": "high"}
    assert config.permission == {"webfetch": "deny", "edit": "ask"}
    assert config.share == "auto"


# --- what may be shown


def test_no_secret_is_shown(disk: Disk) -> None:
    hidden = {"a": SECRET}
    disk.write(
        disk.worktree / "opencode.json",
        {
            "model": "p/m",
            "provider": {
                "p": {
                    "api": f"http://u:{SECRET}@h/v1",
                    "options": {"apiKey": SECRET, "baseURL": "http://h/v1", "headers": hidden, "x": {"y": SECRET}},
                    "models": {
                        "m": {
                            "headers": hidden,
                            "options": {"apiKey": SECRET, "effort": "low"},
                            "variants": {"v": {"token": SECRET}},
                        }
                    },
                }
            },
            "mcp": {
                "s": {
                    "type": "local",
                    "command": ["run"],
                    "environment": hidden,
                    "headers": hidden,
                    "oauth": {"clientSecret": SECRET},
                }
            },
            "agent": {"a": {"options": {"apiKey": SECRET}, "someToken": SECRET}},
            "formatter": {"f": {"environment": hidden}},
            "lsp": {"l": {"command": ["l"], "env": hidden}},
            "plugin": [["p", {"key": SECRET}]],
        },
    )
    shown = msgspec.json.decode(msgspec.json.encode(public(disk.config())))

    assert SECRET not in json.dumps(shown)
    assert shown["provider"]["p"]["options"] == {"baseURL": "http://h/v1", "x": {}}
    assert shown["provider"]["p"]["models"]["m"]["options"] == {"effort": "low"}
    assert shown["mcp"]["s"]["command"] == ["run"]
    assert shown["model"] == "p/m"


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["run", "--token", SECRET, "--fast"], ["run", "--token", "…", "--fast"]),
        (["run", f"--api-key={SECRET}", "-v"], ["run", "--api-key=…", "-v"]),
        (["env", f"GITHUB_TOKEN={SECRET}", "run"], ["env", "GITHUB_TOKEN=…", "run"]),
        (["run", "-H", f"Authorization: Bearer {SECRET}"], ["run", "-H", "Authorization: …"]),
        (["run", f"https://u:{SECRET}@h/a?key={SECRET}&page=2"], ["run", "https://h/a?key=…&page=2"]),
        (["npx", "-y", "server", "--root=/a", "--token"], ["npx", "-y", "server", "--root=/a", "--token"]),
    ],
)
def test_arguments_that_are_named_like_secrets_are_not_shown(disk: Disk, command: list[str], shown: list[str]) -> None:
    disk.write(disk.worktree / "opencode.json", {"mcp": {"s": {"type": "local", "command": command}}})
    server = (public(disk.config()).mcp or {})["s"]
    assert list(server.command or ()) == shown


def test_parameters_of_an_address_that_are_named_like_secrets_are_not_shown(disk: Disk) -> None:
    address = f"https://u:{SECRET}@h/mcp?version=2&api_key={SECRET}#there"
    disk.write(disk.worktree / "opencode.json", {"mcp": {"s": {"type": "remote", "url": address}}})
    server = (public(disk.config()).mcp or {})["s"]
    assert server.url == "https://h/mcp?version=2&api_key=…#there"


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.text() | st.integers() | st.none(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        ),
    )
)
def test_any_settings_are_read_or_refused(settings: dict[str, Any]) -> None:
    configuration = Configuration(
        environ={"OPENCODE_CONFIG_CONTENT": json.dumps(settings), "OPENCODE_DISABLE_PROJECT_CONFIG": "1"},
        home=Path("/nowhere"),
        connections=Connections(),
    )
    with contextlib.suppress(Invalid):
        public(configuration.config("/nowhere", "/nowhere"))
