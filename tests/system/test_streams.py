"""Commands whose standard streams are full or closed: they say so, and end with an exit code."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from blocksd.cli.main import cli
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import Daemon

    RunDaemon = Callable[..., Daemon]

pytestmark = pytest.mark.slow

PRINTING = {
    "ls": "",
    "show": "notes",
    "agents": "",
    "render": "one",
    "history": "notes",
    "diff": "notes",
    "watch": "--since 0",
    "audit": "",
    "new": "more text",
    "set": "notes first",
    "append": "notes second",
    "replace": "notes second third",
    "undo": "notes",
    "redo": "notes",
    "restore": "notes 1",
    "attach": "notes three",
    "detach": "notes three",
    "mv": "notes moved",
    "rm": "moved",
    "status": "",
    "check": "FOLDER",
    "doctor": "",
    "config": "",
    "acl": "",
    "completion": "bash",
}
"""All commands that print something, in an order in which each can do what it is to do; and their arguments."""

SILENT = {
    "merge": "notes 1",
    "run": "missing.d",
    "serve": "--listen nowhere:x",
    "follow": "--metrics nowhere:x",
    "mcp": "--print-config nobody",
    "hook": "nobody",
    "stop": "--timeout x",
    "resume": "",
}
"""The others, with arguments that they refuse."""

_FORK = """
import json, os, sys
import redis.cluster, redis.sentinel
import blocksd.cli.main, blocksd.client.blocking.client, blocksd.doctor.finding, blocksd.journal.history
NAMES = "stdin", "stdout", "stderr"
dict(blocksd.cli.main.cli.commands)
for words, closed, target in json.loads(sys.argv[1]):
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(target, os.O_RDWR | os.O_CREAT), 2)
        for number in closed:
            os.close(number)
            setattr(sys, NAMES[number], None)  # as Python does at its start
        sys.argv = ["blocksd", *words]
        blocksd.cli.main.main()
        sys.exit(0)
    with open(target + ".code", "w") as file:
        file.write(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
"""
"""Runs commands with closed streams, each in a process of its own, without loading the program again each time."""


def run_closed(tmp_path: Path, commands: list[list[str]], *closed: int) -> list[tuple[int, str]]:
    """Run commands with these streams closed; the exit code and what is said of each."""
    jobs: list[tuple[list[str], tuple[int, ...], str]]
    jobs = [(words, closed, str(tmp_path / f"said-{closed}-{number}")) for number, words in enumerate(commands)]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    result = subprocess.run(
        [sys.executable, "-c", _FORK, json.dumps(jobs)], check=False, timeout=60, env=environ, capture_output=True
    )
    assert (result.returncode, result.stderr) == (0, b"")
    found = []
    for _, _, target in jobs:
        with open(target) as said, open(f"{target}.code") as code:
            found.append((int(code.read()), said.read()))
    return found


@pytest.fixture
def daemon(folder: Path, run_daemon: RunDaemon) -> Iterator[Daemon]:
    folder.mkdir(exist_ok=True)
    (folder / "notes.md").write_text("---\nagents: [one]\n---\nfirst\n")
    running = run_daemon()
    yield running
    running.stop()


def words_of(name: str, arguments: str, daemon: Daemon) -> list[str]:
    words = [name, *arguments.replace("FOLDER", str(daemon.folder)).split()]
    has_state = any("--state-dir" in option.opts for option in cli.commands[name].params)
    return [*words, "--state-dir", str(daemon.state)] if has_state else words


def test_every_command_with_closed_output(daemon: Daemon, tmp_path: Path) -> None:
    """Each says that the output is closed, and ends with 1, like one on a full disk; there is no traceback."""
    assert {**PRINTING, **SILENT}.keys() == cli.commands.keys()
    commands = [words_of(name, arguments, daemon) for name, arguments in PRINTING.items()]
    for words, (code, said) in zip(commands, run_closed(tmp_path, commands, 1), strict=True):
        assert "the output cannot be written: it is closed" in said, (words, said)
        assert code == 1, (words, code, said)
        assert "Traceback" not in said
        assert "Exception" not in said


def test_every_command_that_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    """Which streams are closed changes nothing in how it ends, nor in what it says, where that can be said."""
    commands = [words_of(name, arguments, daemon) for name, arguments in SILENT.items()]
    commands += [["show", "none", "--state-dir", str(daemon.state)], ["ls", "--frobnicate"], ["ls", "--namespace", ":"]]
    whole = run_closed(tmp_path, commands)
    assert all(code in (1, 2) for code, _ in whole)
    for closed in ((1,), (0, 1, 2)):
        found = run_closed(tmp_path, commands, *closed)
        assert found == [(code, said if 2 not in closed else "") for code, said in whole], closed


def test_closed_input(daemon: Daemon, tmp_path: Path) -> None:
    """A command that reads a text from it says that it cannot, and changes nothing."""
    commands = [words_of(name, "notes", daemon) for name in ("set", "append")]
    for code, said in run_closed(tmp_path, commands, 0):
        assert code == 1
        assert "standard input cannot be read" in said
    assert daemon.values("notes") == ["first"]


def test_daemon_without_streams(folder: Path, tmp_path: Path) -> None:
    """A daemon that is started without any serves, and none of its files takes the place of one."""
    folder.mkdir(exist_ok=True)
    (folder / "notes.md").write_text("first\n")
    state = tmp_path / "state"
    command = [sys.executable, "-m", "blocksd", "run", str(folder), "--state-dir", str(state)]
    process = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command])
    try:
        eventually((state / "redis-url").exists, "it serves")
        for number in range(3):
            assert os.readlink(f"/proc/{process.pid}/fd/{number}") == os.devnull
    finally:
        process.terminate()
        assert process.wait(10) == 0


@pytest.mark.parametrize("words", [["--help"], ["config"], ["config", "--json"]], ids=" ".join)
def test_output_that_cannot_be_written(words: list[str]) -> None:
    """A full disk behind standard output ends a command with a sentence, also where Python gathers what is printed."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "blocksd", *words]
        result = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=30, env=environ
        )
    assert result.returncode == 1
    assert result.stderr.startswith("blocksd: the output cannot be written")
    assert os.strerror(errno.ENOSPC) in result.stderr
    assert "Exception" not in result.stderr
    assert "Traceback" not in result.stderr
