"""Options of the commands: the numbers they take; which problem of a file a command tells, and when it can be undone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner

from blocksd.cli.console import print_configuration
from blocksd.cli.main import cli
from blocksd.cli.options import given_options, problem_of_file, undoing
from blocksd.settings.config import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def numbers(command: click.Command = cli, path: str = "") -> Iterator[tuple[str, click.Parameter]]:
    """Every option and argument of every command that takes a number, but for those that are settings."""
    for one in command.params:
        if isinstance(one.type, (click.types.IntParamType, click.types.FloatParamType)) and one.name not in SETTINGS:
            yield f"{path} {one.name}".strip(), one
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from numbers(below, f"{path} {name}")


NUMBERS = dict(numbers())


@pytest.mark.parametrize("name", NUMBERS)
def test_number_has_a_range(name: str) -> None:
    """What is no number, or none in the range, is refused in click's words; a setting is checked as in its file."""
    for value in ("nan", "inf", "-inf", "x", "", "-2", "9" * 30, "9" * 5000):
        with pytest.raises(click.BadParameter, match=r"range|not a (valid|number)"):
            NUMBERS[name].type.convert(value, NUMBERS[name], None)


@pytest.mark.parametrize("name", NUMBERS)
def test_number_is_shown_as_a_letter(name: str) -> None:
    """And not as click's `INTEGER RANGE`, which says nothing beside the range."""
    assert len(NUMBERS[name].metavar or "") in range(1, 5)


def test_numbers_are_found() -> None:
    assert {"stop timeout", "history limit", "set version", "new limit", "audit stale_days"} < NUMBERS.keys()


def test_defaults_are_those_of_the_command() -> None:
    """The daemon starts a server where the others find one; a client's command reads no settings of the project."""
    shown = {
        name: {option.name: option.help or "" for option in command.params if isinstance(option, click.Option)}
        for name, command in cli.commands.items()
    }
    assert "[default: the running daemon's]" in shown["ls"]["redis"]
    assert "[default: an embedded server]" in shown["run"]["redis"]
    assert "[default: blocksd.toml]" in shown["run"]["config_path"]
    for name in ("mcp", "hook"):
        assert "[default: ~/.config/blocksd/blocksd.toml]" in shown[name]["config_path"]


def test_configuration_says_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the client would say only that it cannot connect."""
    words = ["mcp", "--agent", "me", "--print-config", "cursor"]
    assert "needs" not in CliRunner().invoke(cli, words, catch_exceptions=False).stderr
    monkeypatch.setattr("blocksd.cli.commands_daemon.find_spec", lambda _: None)
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert (result.exit_code, "mcpServers" in result.stdout) == (0, True)
    assert "the MCP server needs the package mcp: pip install 'blocksd[mcp]'" in result.stderr


def problem(subject: str, label: str | None, code: str = "problem_file", **facts: Any) -> dict[str, Any]:
    return {"subject": subject, "label": label, "code": code, "message": "wrong", "warning": False, **facts}


def test_problem_is_that_of_the_file_of_the_block() -> None:
    """Not a warning, and not that of another file which says the same label."""
    warned = problem("notes.md", "notes", "warning", warning=True)
    other = problem("note\u0301s.md", "notes", "label_conflict")
    assert problem_of_file([warned, other], "notes") is None
    own, never = problem("Notes.md", "notes"), problem("bad.md", None)
    assert problem_of_file([warned, other, own], "notes") is own
    assert problem_of_file([own, never], "bad") is never


def test_only_a_text_with_a_problem_is_undone() -> None:
    """There must be a version in force, and a text that can be kept."""
    assert undoing(problem("my notes.md", "my notes")) == "`blocksd undo 'my notes'`"
    assert undoing(problem("bad.md", None)) == ""
    assert undoing(problem("notes.md", "notes", message="it cannot be read: Permission denied")) == ""
    assert undoing(problem("Notes.md", "Notes", "label_conflict")) == ""


def test_options_of_this_environment_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For a program that is started elsewhere; what is given beside them counts more. Nothing in a URL is a variable."""
    monkeypatch.chdir(tmp_path)
    for name, value in (
        ("REDIS", "redis://me:p$w{x}@h"),
        ("NAMESPACE", "theirs"),
        ("CONFIG", "a.toml"),
        ("STATE_DIR", ""),
    ):
        monkeypatch.setenv(f"BLOCKSD_{name}", value)
    flags = {"namespace": "mine", "redis": None, "state_dir": None, "config_path": None}
    words = ["--namespace", "mine", "--redis", "redis://me:p%24w%7Bx%7D@h", "--config", str(tmp_path / "a.toml")]
    assert given_options(flags) == words


@pytest.mark.parametrize(
    ("url", "is_told"), [("redis://me:secret@h", True), ("redis://h", False), ("redis://h?password=x", True)]
)
def test_password_in_settings_is_told(url: str, is_told: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """With another way; the settings are printed as they are."""
    print_configuration("text", "the file", ["--redis", url])
    out, said = capsys.readouterr()
    assert out == "text\n"
    assert said.startswith("put this into the file\n")
    assert ("a settings file that only you can read" in said) is is_told
    assert "secret" not in said
