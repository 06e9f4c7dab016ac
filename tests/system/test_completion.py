"""Completion as shells ask for it: by the scripts that `blocksd completion` prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from blocksd.cli import completion
from blocksd.cli.main import cli
from support import eventually, require

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import Daemon, RedisServer

    RunDaemon = Callable[..., Daemon]

pytestmark = pytest.mark.slow

PROGRAM = Path(sys.executable).with_name("blocksd")
LABELS = ["notes", "policies/refunds", "policies/returns"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """That of a user who has the program on PATH, and whose daemon is the one of the test."""
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("BLOCKSD_")},
        "PATH": path,
        "HOME": str(tmp_path),
        "BLOCKSD_CONFIG": os.devnull,
        "BLOCKSD_STATE_DIR": str(tmp_path / "state"),
    }


@pytest.fixture
def daemon(folder: Path, run_daemon: RunDaemon) -> Daemon:
    (folder / "policies").mkdir()
    for label in LABELS:
        (folder / f"{label}.md").write_text("---\nagents: [support-1, support-2, ann]\n---\ntext\n")
    return run_daemon()


def run(command: list[str], environment: dict[str, str], **options: Any) -> str:
    """What it prints on standard output; it may print nothing else."""
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        stdin=subprocess.DEVNULL,
        env=environment,
        **options,
    )
    assert (result.returncode, result.stderr) == (0, ""), result
    return str(result.stdout)


def offered(environment: dict[str, str], *words: str) -> list[str]:
    """What bash is told for the last of these words: `plain,<word>`, or `dir` or `file` for it to complete itself."""
    asking = {"_BLOCKSD_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    return run([str(PROGRAM)], {**environment, **asking}).split()


def script(shell: str, environment: dict[str, str], tmp_path: Path) -> Path:
    path = tmp_path / f"completion.{shell}"
    path.write_text(run([str(PROGRAM), "completion", shell], environment))
    return path


# --- what is offered ---


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("blocksd show no", ["notes"]),
        ("blocksd show policies/", ["policies/refunds", "policies/returns"]),
        ("blocksd show x", []),
        ("blocksd rm notes pol", ["policies/refunds", "policies/returns"]),
        ("blocksd watch --block n", ["notes"]),
        ("blocksd render su", ["support-1", "support-2"]),
        ("blocksd ls --agent a", ["ann"]),
        ("blocksd attach notes support", ["support-1", "support-2"]),
        ("blocksd render --style line", ["line-numbered"]),
        ("blocksd hist", ["history"]),
        ("blocksd completion z", ["zsh"]),
    ],
)
def test_words(environment: dict[str, str], typed: str, expected: list[str]) -> None:
    """Labels and agents of the running daemon, the words an option may have, and commands."""
    wanted = [f"plain,{word}" for word in expected]
    eventually(lambda: offered(environment, *typed.split(" ")) == wanted, typed)


@pytest.mark.parametrize(
    ("typed", "kind"),
    [
        ("run b", "dir"),
        ("check b", "dir"),
        ("doctor b", "dir"),
        ("ls --state-dir s", "file"),
        ("ls --config b", "file"),
    ],
)
def test_paths(environment: dict[str, str], typed: str, kind: str) -> None:
    """Paths are left to the shell."""
    assert [word.partition(",")[0] for word in offered(environment, "blocksd", *typed.split(" "))] == [kind]


def test_server_that_was_typed(environment: dict[str, str], daemon: Daemon, server: RedisServer) -> None:
    """The options that were typed before say which daemon is meant."""
    elsewhere = {**environment, "BLOCKSD_STATE_DIR": str(daemon.state.with_name("elsewhere"))}
    assert offered(elsewhere, "blocksd", "show", "no") == []
    eventually(lambda: offered(elsewhere, "blocksd", "show", "--redis", server.url, "no") == ["plain,notes"])
    eventually(lambda: offered(elsewhere, "blocksd", "show", "--state-dir", str(daemon.state), "no") == ["plain,notes"])


@pytest.mark.parametrize("fault", ["paused", "killed", "no daemon", "wrong settings"])
def test_nothing_is_said_of_what_goes_wrong(
    environment: dict[str, str], run_daemon: RunDaemon, server: RedisServer, tmp_path: Path, fault: str
) -> None:
    """Whoever presses Tab is neither kept waiting nor told of errors: nothing is offered."""
    if fault != "no daemon":
        run_daemon()
    if fault == "paused":
        server.pause()
    elif fault == "killed":
        server.kill()
    elif fault == "wrong settings":
        (tmp_path / "wrong.toml").write_text("namspace = 1\n")
        environment["BLOCKSD_CONFIG"] = str(tmp_path / "wrong.toml")
    assert offered(environment, "blocksd", "show", "no") == []


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_label_and_agent_is_completed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No argument or option that takes a label or an agent is left out."""
    monkeypatch.setattr(completion, "_ask", lambda _typed, _key, _incomplete, found: found.append("one"))
    command = cli.commands[name]
    context = click.Context(command)
    for parameter in command.params:
        word = (parameter.metavar or "" if isinstance(parameter, click.Option) else parameter.name or "").lower()
        if word.rstrip("s") in ("label", "agent"):
            assert [item.value for item in parameter.shell_complete(context, "")] == ["one"], parameter.name


# --- shells ---


@pytest.mark.usefixtures("daemon")
def test_bash(environment: dict[str, str], tmp_path: Path) -> None:
    """The script, sourced, registers a function that bash calls, and that offers what there is."""
    commands = (
        f"source {script('bash', environment, tmp_path)}; complete -p blocksd; "
        "COMP_WORDS=(blocksd show pol); COMP_CWORD=2; _blocksd_completion blocksd pol show; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    bash = [require("bash"), "--norc", "--noprofile", "-c", commands]
    expected = ["complete -o nosort -F _blocksd_completion blocksd", "policies/refunds", "policies/returns"]
    eventually(lambda: run(bash, environment).splitlines() == expected, "bash offers them")


@pytest.mark.usefixtures("daemon")
def test_bash_is_offered_words_that_it_can_put_in(environment: dict[str, str], folder: Path, tmp_path: Path) -> None:
    """A label with spaces and quotes is one word, also when a part of it was typed."""
    (folder / "My note's [draft], 2nd.md").write_text("text\n")
    commands = (
        f"source {script('bash', environment, tmp_path)}; COMP_WORDS=(blocksd show 'My\\ no'); COMP_CWORD=2; "
        "_blocksd_completion blocksd no show; [ ${#COMPREPLY[@]} = 1 ] && eval \"printf '%s\\n' ${COMPREPLY[0]}\""
    )
    bash = [require("bash"), "--norc", "--noprofile", "-c", commands]
    eventually(
        lambda: (
            subprocess.run(bash, capture_output=True, text=True, check=False, timeout=30, env=environment).stdout
            == "My note's [draft], 2nd\n"
        ),
        "bash offers it",
    )


@pytest.mark.usefixtures("daemon")
def test_zsh(environment: dict[str, str], tmp_path: Path) -> None:
    """The same in zsh; what its completion system would be handed is printed."""
    commands = (
        "compdef() { print compdef $@ }; compadd() { print -l $completions }; _describe() { print -l $@ }; "
        f"source {script('zsh', environment, tmp_path)}; words=(blocksd show pol); CURRENT=3; _blocksd_completion"
    )
    zsh = [require("zsh"), "-f", "-c", commands]
    expected = ["compdef _blocksd_completion blocksd", "policies/refunds", "policies/returns"]
    eventually(lambda: run(zsh, environment).splitlines() == expected, "zsh offers them")


@pytest.mark.usefixtures("daemon")
def test_fish(environment: dict[str, str], tmp_path: Path) -> None:
    """The same in fish, which can be asked itself."""
    commands = f"source {script('fish', environment, tmp_path)}; complete -C 'blocksd show pol'"
    fish = [require("fish"), "--no-config", "-c", commands]
    eventually(lambda: run(fish, environment).splitlines() == ["policies/refunds", "policies/returns"], "fish offers")


def test_unknown_shell(environment: dict[str, str]) -> None:
    """A shell it has no script for is refused, with those it has."""
    command = [str(PROGRAM), "completion", "ksh"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=environment)
    assert result.returncode == 2
    assert "'bash', 'zsh', 'fish'" in result.stderr
