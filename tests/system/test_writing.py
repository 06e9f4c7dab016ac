"""Requests by the real wire, while others save, and while the daemon is killed: all is done, and done once."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rig import EFFECTS
from support import MORTAL, Daemon, RedisServer, eventually, quiet_environ, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    RunDaemon = Callable[..., Daemon]

HERE = Path(__file__).parent
HEAD = "---\n# ours\nagents: [ann, \"bob\"]   # both\ndescription: 'what we know'\n---\n"
CLIENTS = 8
APPENDS = 100


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    connected = server.client()
    yield connected
    connected.close()


@pytest.fixture
def appenders(server: RedisServer) -> Iterator[Callable[..., list[subprocess.Popen[str]]]]:
    """Start clients, each a process: the operator's, and those of two agents."""
    started: list[subprocess.Popen[str]] = []

    def start(*, count: int = APPENDS, pause: float = 0.0) -> list[subprocess.Popen[str]]:
        for number in range(CLIENTS):
            actor = ("operator", "ann", "bob")[number % 3]
            words = [server.url, actor, "notes", f"c{number}", str(count), str(pause)]
            started.append(
                subprocess.Popen(
                    [*MORTAL, sys.executable, str(HERE / "appender.py"), *words], stdout=subprocess.PIPE, text=True
                )
            )
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


ALL_KEPT = {"BLOCKSD_HISTORY_VERSIONS": "1000000"}
"""So that all versions of a busy file can be counted."""


def acknowledged(processes: list[subprocess.Popen[str]], *, count: int = APPENDS) -> list[str]:
    """All lines of which a client was told that they are there, once they all are."""
    lines: list[str] = []
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        lines += output.split()
    assert len(set(lines)) == CLIENTS * count
    return lines


def assert_once(daemon: Daemon, client: Any, lines: list[str]) -> None:
    """Each of these lines is in the file once, below an untouched frontmatter; each request made one revision."""
    path = daemon.folder / "notes.md"
    eventually(lambda: client.hget("blocks:block:notes", "value") == body(path), "the mirror shows the file")
    assert path.read_text().startswith(HEAD)
    counted = Counter(body(path).split("\n"))
    assert {line for line in lines if counted[line] != 1} == set()
    eventually(
        lambda: not any(name.startswith(".blocksd-") for name in os.listdir(daemon.folder)),
        "what was displaced is gone",
    )
    revisions = daemon.revisions("notes")
    assert [revision.version for revision in revisions] == list(range(1, len(revisions) + 1))
    asked = Counter(revision.request_id for revision in revisions if revision.request_id is not None)
    assert asked.keys() == {line for line in lines if line.startswith("c")}
    assert set(asked.values()) == {1}
    assert client.xlen("blocks:inbox:operator") == client.xlen("blocks:inbox:ann") == 0


def assert_all_of_both(daemon: Daemon, client: Any, lines: list[str], written: list[str]) -> None:
    """What was acknowledged and what a person saved is there, each line once."""
    path = daemon.folder / "notes.md"
    eventually(lambda: {*lines, *written}.issubset(body(path).split("\n")), "the last save is merged")
    assert_once(daemon, client, lines + written)


def body(path: Path) -> str:
    return path.read_text().removeprefix(HEAD).removesuffix("\n")


def test_appends_of_many_processes_are_all_there_once(
    folder: Path, client: Any, run_daemon: RunDaemon, appenders: Callable[..., list[subprocess.Popen[str]]]
) -> None:
    """Eight processes append a hundred lines each to one block: 800 acknowledged, 800 in the file, each once."""
    (folder / "notes.md").write_text(HEAD)
    daemon = run_daemon(**ALL_KEPT)
    assert_once(daemon, client, acknowledged(appenders()))


def save_anew(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.swp")
    temporary.write_text(text)
    temporary.replace(path)


def save_in_place(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.mark.slow
@pytest.mark.parametrize("save", [save_anew, save_in_place])
def test_person_and_processes_lose_nothing_of_each_other(
    folder: Path,
    client: Any,
    run_daemon: RunDaemon,
    appenders: Callable[..., list[subprocess.Popen[str]]],
    save: Callable[[Path, str], None],
) -> None:
    """An editor that saves, again and again, a text it has read a tenth of a second before, with a line added, takes
    nothing of what was appended meanwhile, and loses none of its own lines.
    """
    path = folder / "notes.md"
    path.write_text(HEAD)
    daemon = run_daemon(**ALL_KEPT)
    written: list[str] = []
    is_over = threading.Event()

    def edit() -> None:
        while not is_over.wait(0.01):
            text = path.read_text()
            time.sleep(0.1)
            written.append(f"p{len(written)}")
            save(path, f"{text}{written[-1]}\n")

    editor = threading.Thread(target=edit)
    processes = appenders(pause=0.01)
    editor.start()
    try:
        lines = acknowledged(processes)
    finally:
        is_over.set()
        editor.join()
    assert len(written) > 10
    assert_all_of_both(daemon, client, lines, written)


class Vim:
    """A session that stays open: what it has read at its start is never read again, and written with a line more each time."""

    def __init__(self, path: Path, *options: str) -> None:
        # Nothing is too unimportant for a backup because it is below /tmp, and what it does is said.
        words = [word for option in ("set backupskip= verbose=1", *options) for word in ("-c", option)]
        self._process = subprocess.Popen(
            [*MORTAL, require("vim"), "-u", "NONE", "-N", "-i", "NONE", "-es", *words, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=quiet_environ(),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._commands, self._said = self._process.stdin.fileno(), self._process.stdout.fileno()

    def save_with(self, line: str) -> None:
        """Add a line, and write, although the file may be another since it was read.

        If it becomes another in this very moment, vim writes nothing, says so (E949), and is told once more.
        """
        os.write(self._commands, f"$put ='{line}'\n".encode())
        heard = "E949"
        while "E949" in heard:
            os.write(self._commands, b"w!\n")
            heard = self._hear("written", "E949", "(y/n)?")
            if "(y/n)?" in heard:
                os.write(self._commands, b"y")
                heard = self._hear("written", "E949")

    def _hear(self, *words: str) -> str:
        said = ""
        while not any(word in said for word in words):
            more = os.read(self._said, 4096).decode()
            assert more, f"vim has ended: {said}"
            said += more
        return said

    def quit(self) -> None:
        self._process.communicate(b"q!\n", timeout=30)


@contextmanager
def saving_in_vim(path: Path, backupcopy: str) -> Iterator[list[str]]:
    """Somebody who saves every tenth of a second what they had read at the start, with their own lines: these."""
    vim = Vim(path, f"set backupcopy={backupcopy}")
    written: list[str] = []
    is_over = threading.Event()

    def edit() -> None:
        while not is_over.wait(0.1):
            written.append(f"p{len(written)}")
            vim.save_with(written[-1])

    editor = threading.Thread(target=edit)
    editor.start()
    try:
        yield written
    finally:
        is_over.set()
        editor.join()
        vim.quit()


@pytest.mark.slow
@pytest.mark.parametrize("backupcopy", ["auto", "yes", "no"])
def test_vim_and_processes_lose_nothing_of_each_other(
    folder: Path,
    client: Any,
    run_daemon: RunDaemon,
    appenders: Callable[..., list[subprocess.Popen[str]]],
    backupcopy: str,
) -> None:
    """Vim saves every tenth of a second what it had read before anything was appended, with its own lines: all of them
    are in the file at the end, beside all that were acknowledged. By default (`auto`) and with `no` it moves the old file
    away and writes a new one, with `yes` it writes in place.
    """
    path = folder / "notes.md"
    path.write_text(HEAD)
    daemon = run_daemon(**ALL_KEPT)
    with saving_in_vim(path, backupcopy) as written:
        lines = acknowledged(appenders(pause=0.02))
    assert len(written) > 20
    assert_all_of_both(daemon, client, lines, written)


@pytest.mark.slow
@pytest.mark.parametrize("backupcopy", ["auto", "yes"])
def test_killed_twenty_times_it_does_every_request_once(
    folder: Path,
    client: Any,
    run_daemon: RunDaemon,
    appenders: Callable[..., list[subprocess.Popen[str]]],
    backupcopy: str,
) -> None:
    """kill -9 again and again, while eight processes append, and send again what was not acknowledged, and while somebody
    saves in vim.
    """
    path = folder / "notes.md"
    path.write_text(HEAD)
    daemon = run_daemon(**ALL_KEPT)
    processes = appenders(pause=0.1)
    random_ = random.Random(2026)
    with saving_in_vim(path, backupcopy) as written:
        for _ in range(20):
            time.sleep(random_.uniform(0.02, 0.3))
            daemon.kill()
            daemon.start()
        lines = acknowledged(processes)
    assert_all_of_both(daemon, client, lines, written)


REQUESTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("operator", {"op": "append", "label": "notes", "args": {"content": "one"}}),
    ("ann", {"op": "append", "name": "notes", "args": {"content": "two"}}),
    ("ann", {"op": "append", "name": "nowhere", "args": {"content": "refused"}}),
    ("operator", {"op": "create", "label": "new", "args": {"value": "three"}}),
    ("operator", {"op": "rename", "label": "old", "args": {"to": "team/moved"}}),
    ("operator", {"op": "delete", "label": "gone"}),
    (
        "operator",
        {
            "op": "batch",
            "args": {
                "requests": [
                    {"op": "append", "label": "notes", "args": {"content": "four"}},
                    {"op": "append", "label": "team/moved", "args": {"content": "five"}},
                ]
            },
        },
    ),
    ("operator", {"op": "create_agent", "args": {"agent": "cyd", "blocks": [{"name": "persona", "value": "six"}]}}),
    ("operator", {"op": "delete_agent", "args": {"agent": "dan"}}),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("effect", "person"),
    [*((effect, False) for effect in EFFECTS), ("put in", True), ("finish", True), ("project", True)],
)
def test_killed_before_any_effect_it_has_done_all_or_nothing(
    tmp_path: Path, server: RedisServer, client: Any, effect: str, *, person: bool
) -> None:
    """Killed before its first or third effect of a kind, it comes back, and each request is done once; what a person
    saves in between stays.
    """
    home = tmp_path / "home"
    folder = home / "blocks.d"
    for count in (1, 3):
        client.flushall()
        folder.mkdir(parents=True)
        (folder / "notes.md").write_text(f"{HEAD}zero\n")
        (folder / "old.md").write_text(f"{HEAD}zero\n")
        (folder / "gone.md").write_text("zero\n")
        (folder / "agents" / "dan").mkdir(parents=True)
        (folder / "agents" / "dan" / "persona.md").write_text("zero\n")
        live(home, server, "none", 0)
        for number, (actor, request) in enumerate(REQUESTS):
            client.xadd(f"blocks:inbox:{actor}", {"request": json.dumps({"id": f"r{number}", **request})})
        (folder / "later.md").write_text("zero\n")
        live(home, server, effect, count)
        if person:
            (folder / "notes.md").write_text((folder / "notes.md").read_text() + "mine\n")
        live(home, server, "none", 0)
        texts = {str(file.relative_to(folder)): file.read_text() for file in sorted(folder.rglob("*.md"))}
        assert texts.keys() == {"agents/cyd/persona.md", "later.md", "new.md", "notes.md", "team/moved.md"}
        assert os.listdir(folder / "agents") == ["cyd"]
        assert texts["agents/cyd/persona.md"] == "six\n"
        assert texts["new.md"] == "three\n"
        assert texts["team/moved.md"] == f"{HEAD}zero\nfive\n"
        assert texts["notes.md"].startswith(HEAD)
        own = ["mine"] if person else []
        assert sorted(body(folder / "notes.md").split("\n")) == sorted(["zero", "one", "two", "four", *own])
        assert [file.name for file in folder.rglob(".*")] == []
        for number, (actor, _) in enumerate(REQUESTS):
            (text,) = client.lrange(f"blocks:reply:{actor}:r{number}", 0, -1)
            assert json.loads(text)["ok"] == (number != 2)
        home.rename(tmp_path / f"home-{count}")


def live(home: Path, server: RedisServer, effect: str, count: int) -> None:
    """A daemon that dies at this effect, or one that comes to rest."""
    words = [sys.executable, str(HERE / "mortal.py"), str(home), server.url, effect, str(count)]
    ended = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
    )
    assert ended.returncode in ((0, -9) if count else (0,)), ended.stderr
