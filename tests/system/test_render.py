"""`blocksd render --output`: exit codes, settings, and a process that follows until a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support import Daemon, eventually, run_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture
def daemon(run_daemon: Callable[..., Daemon], folder: Path) -> Daemon:
    """A daemon with two agents."""
    for agent in ("bob", "sam"):
        (folder / "agents" / agent).mkdir(parents=True)
        (folder / "agents" / agent / "persona.md").write_text(f"I am {agent.title()}.\n")
    return run_daemon()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file."""
    return tmp_path / "CLAUDE.md"


def test_one_file_once(daemon: Daemon, path: Path) -> None:
    """Exit code 0 when it is up to date in the end, with nothing on standard output."""
    path.write_text("# Rules\n")
    checked = daemon.command("render", "sam", "--output", str(path), "--check")
    assert (checked.returncode, checked.stderr) == (1, f"{path} is not up to date\n")
    assert path.read_text() == "# Rules\n"
    written = daemon.command("render", "sam", "--output", str(path))
    assert (written.returncode, written.stdout, written.stderr) == (0, "", f"wrote {path}\n")
    assert path.read_text().startswith("# Rules\n\n<!-- blocksd:begin sam ")
    again = daemon.command("render", "sam", "-o", str(path), "--check")
    assert (again.returncode, again.stderr) == (0, f"{path} is up to date\n")


def test_edit_and_what_the_message_advises(daemon: Daemon, path: Path) -> None:
    """Exit code 1, the file as it was; the command that is named writes it."""
    daemon.command("render", "sam", "--output", str(path))
    edited = path.read_text().replace("I am Sam.", "I was here.")
    path.write_text(edited)
    result = daemon.command("render", "sam", "--output", str(path))
    assert result.returncode == 1
    assert "was edited between the markers of blocksd, below line 1, and is left as it is" in result.stderr
    assert path.read_text() == edited
    command = f"blocksd render sam --output {path} --discard-edits"
    assert result.stderr.rstrip().endswith(command)
    assert daemon.command(*command.split()[1:]).returncode == 0
    assert "I am Sam." in path.read_text()


def test_files_of_the_settings(daemon: Daemon, tmp_path: Path) -> None:
    """All of them; one that cannot be written keeps none of the others from it."""
    settings = tmp_path / "blocksd.toml"
    settings.write_text(
        f'[render.a]\nagent = "sam"\noutput = "{tmp_path}/a.md"\n'
        f'[render.b]\nagent = "bobb"\noutput = "{tmp_path}/b.md"\n'
        f'[render.c]\nagent = "bob"\noutput = "{tmp_path}/c.md"\nstyle = "line-numbered"\n'
    )
    result = daemon.command("render", "--config", str(settings))
    assert result.returncode == 1
    assert "blocksd: there is no agent 'bobb'\n  did you mean 'bob'?" in result.stderr
    assert "I am Sam." in (tmp_path / "a.md").read_text()
    assert "1→ I am Bob." in (tmp_path / "c.md").read_text()
    settings.write_text(f'[render.a]\nagent = "sam"\noutptu = "{tmp_path}/a.md"\n')
    wrong = daemon.command("render", "--config", str(settings), "--follow")
    assert wrong.returncode == 2
    assert "render.a: there is an unknown key 'outptu'; did you mean 'output'?" in wrong.stderr
    assert f"({settings}:3)" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name an AGENT, or files in the settings"),
        (["sam", "--follow"], "need a file: --output FILE"),
        (["--output", "x"], "name the AGENT"),
        (["sam", "--output", "x", "--output", "./x"], "is named twice for the agent 'sam'"),
        (["sam", "--output", "x", "--json"], "do not go together"),
        (["sam", "--output", "x", "--check", "--discard-edits"], "do not go together"),
    ],
)
def test_wrong_usage(words: list[str], said: str) -> None:
    """It is named, with exit code 2."""
    result = run_here("render", *words, env={"BLOCKSD_CONFIG": os.devnull})
    assert result.returncode == 2
    assert said in result.stderr


def test_no_daemon(daemon: Daemon, path: Path) -> None:
    """A command that ends says so with exit code 3, as all do."""
    assert daemon.stop() == 0
    assert daemon.command("render", "sam", "--output", str(path)).returncode == 3
    assert not path.exists()


class Following:
    """A `blocksd render --follow` in a process of its own."""

    def __init__(self, daemon: Daemon, log: Path, *words: str) -> None:
        self.log = log
        command = [sys.executable, "-m", "blocksd", "render", *words, "--follow", "--state-dir", str(daemon.state)]
        with log.open("wb") as out:
            environ = {**os.environ, "BLOCKSD_CONFIG": os.devnull}
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environ)


@pytest.fixture
def follow(daemon: Daemon, tmp_path: Path) -> Iterator[Callable[..., Following]]:
    """Start to follow."""
    begun: list[Following] = []

    def start(*words: str) -> Following:
        begun.append(Following(daemon, tmp_path / "follow.log", *words))
        return begun[-1]

    yield start
    for one in begun:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_follows_through_a_restart_of_the_daemon(
    daemon: Daemon, folder: Path, path: Path, follow: Callable[..., Following], number: int
) -> None:
    """What changes before, while and after the daemon is down is written; a signal ends it with 0 and no traceback."""
    following = follow("sam", "--output", str(path))
    eventually(lambda: path.exists() and "I am Sam." in path.read_text())
    persona = folder / "agents/sam/persona.md"
    persona.write_text("One.\n")
    eventually(lambda: "One." in path.read_text())
    daemon.kill()
    persona.write_text("Two.\n")
    daemon.start()
    eventually(lambda: "Two." in path.read_text())
    persona.write_text("Three.\n")
    eventually(lambda: "Three." in path.read_text())
    following.process.send_signal(number)
    assert following.process.wait(10) == 0
    said = following.log.read_text()
    assert "Traceback" not in said
    assert said.endswith("stopped\n")
