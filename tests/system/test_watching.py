"""Following the changes of a real daemon, by programs that may be killed at any moment."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from blocksd import Reset
from blocksd.mirror.view import BlockView
from blocksd.model.revision import Change
from blocksd.protocol import watching as watching_module
from blocksd.protocol import wire
from following import WAYS, Follower, Scope, client_of
from support import DEADLINE, Daemon, RedisServer, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blocksd import Item

SCOPES = {"everything": Scope(), "a block": Scope(label="notes"), "an agent": Scope(agent="ann")}

LABELS = ("notes", "other", "others", "moved", "agents/ann/persona")

PROGRAM = """
import json, sys
from blocksd import Change, Reset, connect
from blocksd.protocol import watching

watching.LISTEN_SECONDS, watching.PROVE_SECONDS = 0.05, 0.3
url, options, last = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
since = None
if last is not None:
    since = Reset(last["seq"], last["epoch"], {}) if last["kind"] == "reset" else Change.loads(json.dumps(last))
with connect(url) as client, client.watch(since=since, **options) as watch:
    print(json.dumps({"kind": "begun", "place": watch.place}), flush=True)
    for item in watch:
        if isinstance(item, Reset):
            blocks = {label: block._fields for label, block in item.blocks.items()}
            print(json.dumps({"kind": "reset", "seq": item.seq, "epoch": item.epoch, "blocks": blocks}), flush=True)
        else:
            print(json.dumps(item.raw), flush=True)
"""


class Program:
    """A program that writes down every item as it comes; when it is killed, another goes on from the last line."""

    def __init__(self, url: str, scope: Scope, log: Path) -> None:
        self._words = [sys.executable, "-c", PROGRAM, url, json.dumps(scope.options)]
        self._log = log
        self._log.touch()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, from after the last line that is whole; it listens when this returns."""
        lines = self.lines()
        begun = sum(line["kind"] == "begun" for line in lines)
        last = next((line for line in reversed(lines) if line["kind"] != "begun"), None)
        self._log.write_text("".join(json.dumps(line) + "\n" for line in lines))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*self._words, json.dumps(last)], stdin=subprocess.DEVNULL, stdout=log)
        if not begun:
            eventually(self.lines, "the program listens")

    def lines(self) -> list[dict[str, Any]]:
        """What it has written down; a line that was cut short by its death counts for nothing."""
        return [json.loads(line) for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def items(self) -> list[Item]:
        return [_item(line) for line in self.lines() if line["kind"] != "begun"]

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(DEADLINE)


def _item(line: dict[str, Any]) -> Item:
    if line["kind"] != "reset":
        return Change.loads(json.dumps(line))
    return Reset(line["seq"], line["epoch"], {label: BlockView(fields) for label, fields in line["blocks"].items()})


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching_module, "LISTEN_SECONDS", 0.05)
    monkeypatch.setattr(watching_module, "PROVE_SECONDS", 0.3)
    monkeypatch.setattr(wire, "REPLY_SECONDS", 1.0)


def save(folder: Path, label: str, text: str) -> None:
    path = folder / f"{label}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("way", WAYS)
def test_edits_are_heard(run_daemon: Callable[..., Daemon], server: RedisServer, folder: Path, way: str) -> None:
    """Files that are saved, moved and removed: whoever follows everything, one block or one agent hears of just that."""
    save(folder, "notes", "---\nagents: [ann]\n---\none\n")
    daemon = run_daemon()
    start = daemon.revisions(*LABELS)[-1].seq
    followers = [(scope, Follower(way, server.url, **scope.options)) for scope in SCOPES.values()]
    save(folder, "agents/ann/persona", "I am Ann.\n")
    save(folder, "others", "not hers\n")
    save(folder, "notes", "---\nagents: [ann]\n---\ntwo\n")
    (folder / "others.md").rename(folder / "moved.md")
    save(folder, "moved", "---\nagents: [ann]\n---\nhers\n")
    (folder / "agents" / "ann" / "persona.md").unlink()
    wanted = {"notes": "two", "moved": "hers"}
    eventually(lambda: {label: value(server, label) for label in wanted} == wanted, "it is all in the mirror")
    eventually(lambda: value(server, "agents/ann/persona") is None, "and so is what is gone")
    save(folder, "notes", "---\nagents: [ann]\n---\nlast\n")
    eventually(lambda: value(server, "notes") == "last", "and the last")
    revisions = daemon.revisions(*LABELS)
    for scope, follower in followers:
        follower.until(revisions[-1].seq)
        follower.close()
        scope.check(follower.heard, revisions, after=start)
        assert {item.kind for item in follower.heard} >= {"updated"}
        assert "reset" not in {item.kind for item in follower.heard}


def value(server: RedisServer, label: str) -> str | None:
    client: Any = server.client()
    try:
        found: str | None = client.hget(f"blocks:block:{label}", "value")
        return found
    finally:
        client.close()


@pytest.mark.parametrize("way", WAYS)
def test_memory_follows_the_files(
    run_daemon: Callable[..., Daemon], server: RedisServer, folder: Path, way: str
) -> None:
    """The text of an agent is current after each save, also of a block that was only just attached to it."""
    save(folder, "agents/ann/persona", "I am Ann.\n")
    run_daemon()
    heard: list[Item] = []
    with client_of(way, server.url) as client:
        memory = client.memory("ann")
        with memory.watch(callback=heard.append):
            assert "I am Ann." in memory.compile()
            for number in range(5):
                save(folder, "notes", f"---\nagents: [ann]\n---\nnumber {number}\n")
                eventually(lambda number=number: f"number {number}\n" in memory.compile(), "the save is seen")  # type: ignore[misc]
            save(folder, "notes", "nobody's\n")
            eventually(lambda: memory.list_block_labels() == ["persona"], "it is detached")
            eventually(lambda: len(heard) == 6, "the watch has heard the same")
    assert [item.kind for item in heard] == ["created", *["updated"] * 5]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCOPES)
def test_killed_programs_go_on(
    run_daemon: Callable[..., Daemon], server: RedisServer, folder: Path, tmp_path: Path, name: str
) -> None:
    """A program that is killed and started again from its last item misses nothing and hears nothing twice.

    Meanwhile the daemon is killed, too, the server loses all it has, and the connections are cut.
    """
    scope = SCOPES[name]
    save(folder, "notes", "---\nagents: [ann]\n---\nfirst\n")
    daemon = run_daemon()
    start = daemon.revisions(*LABELS)[-1].seq
    program = Program(server.url, scope, tmp_path / "items.jsonl")
    choose = random.Random(name)
    looking: Any = server.client()
    for number in range(1, 60):
        label = choose.choice(("notes", "other", "agents/ann/persona"))
        agents = "" if "/" in label else f"---\nagents: {choose.choice(('[ann]', '[bob]', '[]'))}\n---\n"
        save(folder, label, f"{agents}value {number}\n")
        if choose.random() < 0.8:
            eventually(lambda: value(server, label) == f"value {number}", "it is in the mirror")  # noqa: B023
        if number % 20 == 0:
            program.kill()
            save(folder, "notes", f"---\nagents: [ann]\n---\nwhile away {number}\n")
            program.start()
        if number % 15 == 0:
            looking.client_kill_filter(_type="pubsub")
        if number == 25:
            daemon.kill()
            daemon.start()
        if number == 35:
            looking.flushall()
    save(folder, "notes", "---\nagents: [ann]\n---\nthe very last\n")
    eventually(lambda: value(server, "notes") == "the very last", "all is in the mirror")
    seq = int(looking.hget("blocks:meta", "seq"))
    save(folder, "notes", "---\nagents: [ann]\n---\nafter that\n")
    eventually(lambda: any((item.seq or 0) > seq for item in program.items()), "the program has heard it")
    program.kill()
    looking.close()
    revisions = daemon.revisions(*LABELS)
    assert len(revisions) > 40
    scope.check(program.items(), revisions, after=start)
