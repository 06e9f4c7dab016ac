"""File sources, end to end: a real daemon, a bare client of Redis, and what people do to directories."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from support import bound_by_rights, eventually, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import Changes, Daemon, RedisServer

    RunDaemon = Callable[..., Daemon]

pytestmark = pytest.mark.slow

FILE = "manuals/guide.txt"


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    connected = server.client()
    yield connected
    connected.close()


@pytest.fixture
def manuals(tmp_path: Path) -> Path:
    directory = tmp_path / "manuals"
    directory.mkdir()
    (directory / "guide.txt").write_text("one\n")
    return directory


@pytest.fixture
def run(tmp_path: Path, folder: Path, manuals: Path, run_daemon: RunDaemon) -> RunDaemon:
    """Start a daemon whose configuration has the manuals, for every support agent; one is known."""
    config = tmp_path / "blocksd.toml"
    config.write_text(f'[sources.manuals]\npath = "{manuals}"\nagents = ["support-*"]\nlimit = 12\n')
    (folder / "notes.md").write_text("---\nagents: [support-1, ann]\n---\nnotes\n")
    return lambda *options, **env: run_daemon(*options, BLOCKSD_CONFIG=str(config), **env)


def send(client: Any, actor: str, request_id: str, op: str = "open_file", file: str = FILE) -> None:
    text = json.dumps({"id": request_id, "op": op, "args": {"file": file}})
    client.xadd(f"blocks:inbox:{actor}", {"request": text})


def answer(client: Any, actor: str, request_id: str) -> dict[str, Any]:
    """What is replied, waited for as clients do."""
    found = client.blpop([f"blocks:reply:{actor}:{request_id}"], timeout=20)
    assert found, "no reply"
    reply: dict[str, Any] = json.loads(found[1])
    return reply


def shown(client: Any, file: str = FILE) -> str | None:
    value: str | None = client.hget(f"blocks:file:{file}", "value")
    return value


def problem(client: Any) -> dict[str, Any] | None:
    text = client.hget("blocks:problems", "source manuals")
    return json.loads(text) if text else None


def test_open_file_follows_its_editor(run: RunDaemon, client: Any, changes: Changes, manuals: Path) -> None:
    """Opened by a bare XADD; from then on each save is in the mirror and announced."""
    run()
    send(client, "support-1", "r-1")
    assert answer(client, "support-1", "r-1")["ok"]
    assert shown(client) == "one\n"
    changes.until(lambda change: change["kind"] == "opened", "it was opened")
    for text in ("two\n", "three, and more than is shown\n", ""):
        (manuals / "guide.txt").write_text(text)
        changes.until(lambda change: change["kind"] == "source" and change["files"] == ["guide.txt"], "it was saved")
        eventually(lambda: shown(client) == text[:12], "it is shown")  # noqa: B023  # right here
    send(client, "support-1", "r-2", "close_file")
    assert answer(client, "support-1", "r-2")["ok"]
    assert not client.exists(f"blocks:file:{FILE}", "blocks:open:support-1")


def test_source_that_the_agent_does_not_see_is_told(run: RunDaemon) -> None:
    """`render --source` never leaves out in silence what was asked for: it names what there is."""
    daemon = run()
    shown = eventually(
        lambda: (done := daemon.command("render", "support-1", "--source", "manuals")).returncode == 0 and done
    )
    assert "manuals" in shown.stdout
    assert "manuals" not in daemon.command("render", "support-1", "--no-sources").stdout
    refused = daemon.command("render", "support-1", "--source", "manuals", "--source", "manual")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "'support-1' sees no file source 'manual'" in refused.stderr
    assert "did you mean 'manuals'?" in refused.stderr
    assert "it sees 'manuals'" in daemon.command("render", "support-1", "--source", "xyz").stderr
    assert "it sees none" in daemon.command("render", "ann", "--source", "manuals").stderr


def test_real_editor(run: RunDaemon, client: Any, manuals: Path) -> None:
    """An editor that writes another file and renames it is followed as well."""
    vim = require("vim")
    run()
    send(client, "support-1", "r-1")
    answer(client, "support-1", "r-1")
    words = [vim, "-u", "NONE", "-es", "-c", "set backup writebackup", "-c", "%s/one/vim/", "-c", "wq"]
    subprocess.run([*words, str(manuals / "guide.txt")], check=True, timeout=20, stdin=subprocess.DEVNULL)
    eventually(lambda: shown(client) == "vim\n", "what the editor wrote is shown")
    assert sorted(client.hkeys("blocks:source:manuals")) == ["guide.txt"]


def test_files_come_and_go(run: RunDaemon, client: Any, manuals: Path) -> None:
    """In new directories too, and with directories that are moved in and out."""
    run()
    (manuals / "new/deep").mkdir(parents=True)
    (manuals / "new/deep/a.txt").write_text("a")
    eventually(lambda: client.hexists("blocks:source:manuals", "new/deep/a.txt"))
    (manuals / "new/deep/b.txt").write_text("b")
    eventually(lambda: client.hexists("blocks:source:manuals", "new/deep/b.txt"))
    (manuals / "new").rename(manuals / "old")
    eventually(lambda: set(client.hkeys("blocks:source:manuals")) == {"guide.txt", "old/deep/a.txt", "old/deep/b.txt"})
    (manuals / "old/deep/b.txt").write_text("changed")
    eventually(lambda: json.loads(client.hget("blocks:source:manuals", "old/deep/b.txt"))["bytes"] == 7)
    shutil.rmtree(manuals / "old")
    eventually(lambda: client.hkeys("blocks:source:manuals") == ["guide.txt"])


@pytest.mark.slow
def test_killed_daemon_loses_and_doubles_no_request(run: RunDaemon, client: Any, manuals: Path) -> None:
    """kill -9 while requests come in: each is replied once, and what is shown is what was replied last."""
    names = [f"{number}.txt" for number in range(20)]
    for name in names:
        (manuals / name).write_text(name)
    replied: dict[str, dict[str, Any]] = {}
    for turn in range(4):
        daemon = run()
        for number in range(150):
            send(client, "support-1", f"r-{turn}-{number}", file=f"manuals/{names[number % 20]}")
        eventually(lambda: client.xlen("blocks:inbox:support-1") < 100, "some of them are done")
        daemon.kill()
    run()
    eventually(lambda: client.xlen("blocks:inbox:support-1") == 0, "all of them are done")
    for turn in range(4):
        for number in range(150):
            replies = client.lrange(f"blocks:reply:support-1:r-{turn}-{number}", 0, -1)
            assert len(replies) == 1
            replied[f"manuals/{names[number % 20]}"] = json.loads(replies[0])
    opened = client.hgetall("blocks:open:support-1")
    assert opened == {file: reply["last_accessed_at"] for file, reply in replied.items()}
    assert all(shown(client, file) == file.partition("/")[2] for file in opened)


def test_restart_keeps_what_is_open(run: RunDaemon, client: Any, manuals: Path) -> None:
    """Stopped, and the file edited meanwhile: it is still open, as it is now."""
    daemon = run()
    send(client, "support-1", "r-1")
    opened = answer(client, "support-1", "r-1")["last_accessed_at"]
    daemon.stop()
    (manuals / "guide.txt").write_text("later\n")
    run()
    eventually(lambda: shown(client) == "later\n")
    assert client.hgetall("blocks:open:support-1") == {FILE: opened}


def test_emptied_server_is_filled_again(run: RunDaemon, client: Any) -> None:
    """FLUSHALL, and a moment later all is there, and requests are served."""
    run()
    send(client, "support-1", "r-1")
    opened = answer(client, "support-1", "r-1")["last_accessed_at"]
    client.flushall()
    eventually(lambda: shown(client) == "one\n")
    eventually(lambda: client.hget("blocks:open:support-1", FILE) == opened)
    eventually(lambda: client.smembers("blocks:source-agents:manuals") == {"support-1"})
    send(client, "support-1", "r-2")
    assert answer(client, "support-1", "r-2")["ok"]


def test_server_that_restarts_serves_requests_again(run: RunDaemon, client: Any, server: RedisServer) -> None:
    """Killed and started empty: the daemon finds back by itself, and so do its inboxes."""
    run()
    server.kill()
    server.start()
    send(client, "support-1", "r-1")
    assert answer(client, "support-1", "r-1")["ok"]


def test_directory_goes_and_comes_back(run: RunDaemon, client: Any, manuals: Path, tmp_path: Path) -> None:
    """It is a problem meanwhile, what was read stays, and afterwards it is followed as before."""
    run()
    send(client, "support-1", "r-1")
    answer(client, "support-1", "r-1")
    manuals.rename(tmp_path / "away")
    assert eventually(lambda: problem(client))["code"] == "source_missing"
    assert shown(client) == "one\n"
    (tmp_path / "away").rename(manuals)
    eventually(lambda: problem(client) is None, "the problem is gone")
    (manuals / "guide.txt").write_text("after\n")
    eventually(lambda: shown(client) == "after\n")


def test_daemon_starts_before_the_directory_is_there(run: RunDaemon, client: Any, manuals: Path) -> None:
    """Mounted later, it is served then."""
    shutil.rmtree(manuals)
    run()
    assert problem(client)
    manuals.mkdir()
    (manuals / "late.txt").write_text("x")
    eventually(lambda: client.hkeys("blocks:source:manuals") == ["late.txt"])
    eventually(lambda: problem(client) is None)


def test_unreadable_directory(run: RunDaemon, client: Any, manuals: Path) -> None:
    """Nobody may list it for a while: what was read of it stays."""
    run(under=bound_by_rights(), BLOCKSD_RESYNC_SECONDS="0.5")
    manuals.chmod(0)
    try:
        assert eventually(lambda: problem(client))["code"] == "source_unreadable"
        assert client.hkeys("blocks:source:manuals") == ["guide.txt"]
    finally:
        manuals.chmod(0o700)
    eventually(lambda: problem(client) is None)


def test_agent_that_appears_is_served_within_moments(run: RunDaemon, client: Any, folder: Path) -> None:
    """Its request may have come before anyone knew of it."""
    run()
    send(client, "support-9", "r-1")
    (folder / "agents/support-9").mkdir(parents=True)
    assert answer(client, "support-9", "r-1")["ok"]
    assert client.smembers("blocks:source-agents:manuals") == {"support-1", "support-9"}


def test_inbox_of_a_stranger_is_not_read(run: RunDaemon, client: Any) -> None:
    """Nobody knows of it."""
    run()
    send(client, "stranger", "r-1")
    send(client, "support-1", "r-1")
    answer(client, "support-1", "r-1")
    assert client.xlen("blocks:inbox:stranger") == 1


def test_hostile_entries_are_survived(run: RunDaemon, client: Any) -> None:
    """Whatever an agent puts into its inbox, it and all others go on being served."""
    daemon = run()
    entries: list[dict[Any, Any]] = [
        {"request": b"\xff\xfe\x00"},
        {"request": ""},
        {"request": "[" * 900_000},
        {"request": '{"id": "' + "x" * 5_000_000},
        {"request": json.dumps({"id": "h-1", "op": "open_file", "args": {"file": "../../etc/passwd"}})},
        {"request": json.dumps({"id": "h-2", "op": "open_file", "args": {"file": "manuals/../../../etc/passwd"}})},
        {"request": json.dumps({"id": "h-3", "op": "eval", "args": {"agent": "\ud800"}})},
        {"other": "x"},
        {b"request\xff": b"\xff"},
    ]
    for entry in entries * 20:
        client.xadd("blocks:inbox:ann", entry)
    send(client, "support-1", "r-1")
    assert answer(client, "support-1", "r-1")["ok"]
    eventually(lambda: client.xlen("blocks:inbox:ann") == 0, "all are done")
    assert {answer(client, "ann", f"h-{number}")["error"]["code"] for number in (1, 2)} == {"not_found"}
    assert answer(client, "ann", "h-3")["error"]["code"] == "invalid_request"
    client.set("blocks:inbox:ann", "mine")
    send(client, "support-1", "r-2")
    assert answer(client, "support-1", "r-2")["ok"]
    assert daemon.process is not None
    assert daemon.process.poll() is None
    eventually(lambda: "dropped from the inbox of ann: " in daemon.said(), "it is logged")
    assert "Traceback" not in daemon.said()


def test_mistake_in_one_source_stops_nothing(tmp_path: Path, folder: Path, run_daemon: RunDaemon, client: Any) -> None:
    """It is said where problems are, and the rest is served."""
    config = tmp_path / "blocksd.toml"
    config.write_text('[sources.one]\npath = "/srv"\nagents = 5\n[sources.two]\npth = "x"\n')
    (folder / "notes.md").write_text("notes\n")
    run_daemon(BLOCKSD_CONFIG=str(config))
    problems = {subject: json.loads(text)["message"] for subject, text in client.hgetall("blocks:problems").items()}
    assert problems == {
        "source one": f"agents must be a list of agent ids and patterns, not 5 ({config}:3)",
        "source two": f"there is an unknown key 'pth'; did you mean 'path'? ({config}:5)",
    }
    assert client.hget("blocks:block:notes", "value") == "notes"


def test_polling_finds_changes(run: RunDaemon, client: Any, manuals: Path) -> None:
    """Where there are no file events, sweeps find them."""
    run("--poll", BLOCKSD_POLL_SECONDS="0.1")
    send(client, "support-1", "r-1")
    answer(client, "support-1", "r-1")
    (manuals / "guide.txt").write_text("polled\n")
    eventually(lambda: shown(client) == "polled\n")


def test_daemon_with_a_source_stops_in_order(run: RunDaemon, client: Any) -> None:
    """At once, and with exit code 0."""
    daemon = run()
    send(client, "support-1", "r-1")
    answer(client, "support-1", "r-1")
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.said()
    assert not client.exists("blocks:lease")
