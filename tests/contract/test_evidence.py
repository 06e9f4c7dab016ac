"""The journal is removed, restored, copied or damaged: what is shown is what the files say, and no number means two things."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import BlocksdError, VersionDamaged
from blocksd.files.folder import packed, signature_of
from blocksd.journal.history import JournalReader
from blocksd.model.problem import HISTORY, JOURNAL
from blocksd.requests.request import Entry
from rig import Ear, Rig, assert_level
from support import RedisServer, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    running = RedisServer(valkey_binary())
    running.start()
    yield running
    running.remove()


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    client: Any = server.client()
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def make_rig(tmp_path: Path, server: RedisServer, raw: Any) -> Iterator[Callable[..., Rig]]:  # noqa: ARG001  # it is emptied
    rigs: list[Rig] = []

    def make(name: str = "one", **options: Any) -> Rig:
        rigs.append(Rig(tmp_path / name, server.url, **options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.crash()


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """A daemon that is in sync, with three blocks and two agents."""
    made = make_rig()
    made.write("notes", "---\nagents: [ann]\n---\none\n")
    made.write("agents/bob/persona", "I am Bob.\n")
    made.write("shared", "---\nagents: '*'\n---\nfor all\n")
    made.settle()
    for number in range(3):
        made.save_and_settle("notes", f"---\nagents: [ann]\n---\nline {number}\n")
    return made


def ask(raw: Any, rig: Rig, actor: str, request_id: str, op: str, label: str, **args: Any) -> Any:
    """Ask for an edit, and wait for the reply."""
    text = json.dumps({"id": request_id, "op": op, "label": label, "args": args})
    raw.xadd(f"blocks:inbox:{actor}", {"request": text})
    key = f"blocks:reply:{actor}:{request_id}"
    rig.run(lambda: deliver(raw, rig, actor) and raw.exists(key), "it is replied to")
    raw.delete(f"blocks:inbox:{actor}")
    return json.loads(raw.lpop(key))


def deliver(raw: Any, rig: Rig, actor: str) -> bool:
    """Put what is in an inbox where the reader does; done."""
    found = raw.xrange(f"blocks:inbox:{actor}")
    rig.core.inbox.add([Entry(actor, one, fields["request"]) for one, fields in found])
    return True


def backup(rig: Rig, name: str) -> Path:
    """A copy of the state, as `tar` makes it while the daemon is stopped."""
    there = rig.home.parent / name
    shutil.copytree(rig.home, there)
    return there


def restore(rig: Rig, there: Path) -> None:
    """Bring a copy back, as the guide says: remove what is there, and extract."""
    shutil.rmtree(rig.home)
    shutil.copytree(there, rig.home)


# --- numbers mean one thing ---


def test_stop_and_start_keep_the_epoch(rig: Rig) -> None:
    """Nothing was restored: numbers go on, and no reset is announced."""
    epoch = rig.journal.epoch
    for _ in range(3):
        rig.close()
        rig.open().settle()
        assert rig.heard.level == ["level"]
    rig.journal.database.close()
    rig.open().settle()
    assert rig.journal.epoch == epoch


def test_moved_state_keeps_the_epoch(rig: Rig) -> None:
    """A directory that is moved holds the same file."""
    epoch = rig.journal.epoch
    rig.close()
    os.rename(rig.home / "journal.db", rig.home / "x")
    os.rename(rig.home / "x", rig.home / "journal.db")
    rig.open().settle()
    assert rig.journal.epoch == epoch


@pytest.mark.parametrize("is_mirror_kept", [True, False], ids=["mirror kept", "mirror empty"])
def test_restored_journal_takes_a_new_epoch(rig: Rig, raw: Any, *, is_mirror_kept: bool) -> None:
    """Numbers given out since the backup are not given out again, and who listens hears a reset."""
    rig.close()
    there = backup(rig, "backup")
    rig.open().settle()
    epoch, seq = rig.journal.epoch, rig.journal.seq
    for number in range(3):
        rig.save_and_settle("notes", f"---\nagents: [ann]\n---\nlater {number}\n")
    rig.close()
    restore(rig, there)
    if not is_mirror_kept:
        raw.flushall()
    ear = Ear(raw, "blocks:changes")
    rig.open().settle()
    assert rig.journal.opened.how == "copied"
    assert (rig.journal.seq, rig.journal.epoch != epoch) == (seq, True)
    assert "reset" in ear.kinds()
    ear.close()
    assert_level(rig, raw)


def same_file_again(rig: Rig, there: Path) -> None:
    """Restore the bytes of a journal into the very file: not even its inode tells."""
    data = (there / "journal.db").read_bytes()
    for suffix in ("-wal", "-shm"):
        (rig.home / f"journal.db{suffix}").unlink(missing_ok=True)
    with open(rig.home / "journal.db", "r+b") as file:
        file.truncate()
        file.write(data)


@pytest.mark.parametrize("later", [3, 1], ids=["fewer revisions", "as many revisions"])
def test_journal_older_than_the_mirror_takes_a_new_epoch(rig: Rig, raw: Any, later: int) -> None:
    """The mirror knows numbers that the journal does not; or as many, which another run of the journal gave out."""
    rig.close()
    there = backup(rig, "backup")
    rig.open().settle()
    epoch = rig.journal.epoch
    for number in range(3):
        rig.save_and_settle("notes", f"---\nagents: [ann]\n---\nlater {number}\n")
    rig.close()
    same_file_again(rig, there)
    if later == 1:
        raw.hset("blocks:meta", "seq", raw.hget("blocks:meta", "seq"))
        with sqlite3.connect(there / "journal.db") as db:
            (seq,) = db.execute("SELECT max(seq) FROM revisions").fetchone()
        raw.hset("blocks:meta", "seq", seq)
    ear = Ear(raw, "blocks:changes")
    rig.open().settle()
    assert rig.journal.epoch != epoch
    assert "reset" in ear.kinds()
    ear.close()
    assert_level(rig, raw)
    epoch = rig.journal.epoch
    rig.close()
    rig.open().settle()
    assert rig.journal.epoch == epoch


# --- removed or replaced while it runs ---


def replaced(rig: Rig) -> None:
    shutil.copy(rig.home / "journal.db", rig.home / "other.db")
    os.replace(rig.home / "other.db", rig.home / "journal.db")


LOSSES: dict[str, Callable[[Rig], object]] = {
    "journal removed": lambda rig: (rig.home / "journal.db").unlink(),
    "journal and log removed": lambda rig: list(map(os.unlink, rig.home.glob("journal.db*"))),
    "log removed": lambda rig: (rig.home / "journal.db-wal").unlink(),
    "journal replaced": replaced,
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("is_idle", [True, False], ids=["idle", "busy"])
def test_lost_journal_is_put_back(rig: Rig, raw: Any, loss: str, *, is_idle: bool) -> None:
    """Every version written so far, and after it, is in the journal at the path, in a new epoch; what is acknowledged is."""
    epoch, seq = rig.journal.epoch, rig.journal.seq
    assert ask(raw, rig, "operator", "1", "append", "notes", content="before")["ok"]
    LOSSES[loss](rig)
    if is_idle:
        rig.clock.advance(1.1)
        rig.round()
        with JournalReader(str(rig.home / "journal.db")).database.connection as db:
            assert db.execute("SELECT count(*) FROM revisions").fetchone()[0] == seq + 1
    assert ask(raw, rig, "operator", "2", "append", "notes", content="after")["ok"]
    rig.settle()
    assert rig.journal.epoch != epoch
    assert [one.how for one in rig.core.rescue.done] == ["copied"]
    assert_level(rig, raw)
    reader = JournalReader(str(rig.home / "journal.db"))
    found = [one.block.value for one in reader.history("notes") if one.block]
    reader.close()
    assert found[:2] == ["line 2\nbefore\nafter", "line 2\nbefore"]
    assert ask(raw, rig, "operator", "2", "append", "notes", content="after")["ok"]  # the first outcome
    assert (rig.root / "notes.md").read_text().count("after") == 1
    assert JOURNAL not in rig.core.problems


def test_nothing_is_acknowledged_while_the_journal_is_lost(rig: Rig, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be put back, that is a problem, and requests wait."""
    for one in rig.home.glob("journal.db*"):
        one.unlink()
    monkeypatch.setattr("blocksd.journal.opening.put_in_place", refuse)
    request = json.dumps({"id": "1", "op": "append", "label": "notes", "args": {"content": "x"}})
    raw.xadd("blocks:inbox:operator", {"request": request})
    for _ in range(5):
        deliver(raw, rig, "operator")
        rig.round()
        rig.clock.advance(1.0)
    assert not raw.exists("blocks:reply:operator:1")
    assert "put back" in rig.core.problems[JOURNAL].message
    monkeypatch.undo()
    rig.run(lambda: deliver(raw, rig, "operator") and raw.exists("blocks:reply:operator:1"))
    raw.delete("blocks:reply:operator:1", "blocks:inbox:operator")
    rig.settle()
    assert JOURNAL not in rig.core.problems
    assert_level(rig, raw)


def refuse(*_: str) -> None:
    raise PermissionError(13, "Permission denied")


# --- damaged ---


def damage(path: Path, statement: str, *values: object) -> None:
    """Change what stands in a journal, past its checks."""
    with sqlite3.connect(path) as db:
        db.execute(statement, values)
    db.close()


DAMAGES = {
    "value": "UPDATE revisions SET value = 'line 3' WHERE seq = (SELECT seq FROM heads WHERE label = 'notes')",
    "author": "UPDATE revisions SET author = 'eve' WHERE seq = (SELECT seq FROM heads WHERE label = 'notes')",
    "label": "UPDATE revisions SET label = 'nodes' WHERE seq = (SELECT seq FROM heads WHERE label = 'notes')",
    "version": "UPDATE revisions SET version = 9 WHERE seq = (SELECT seq FROM heads WHERE label = 'notes')",
    "agents": "UPDATE revisions SET agents = NULL WHERE seq = (SELECT seq FROM heads WHERE label = 'notes')",
    "head's label": "UPDATE heads SET label = 'nodes' WHERE label = 'notes'",
    "head's version": "UPDATE heads SET version = 1 WHERE label = 'notes'",
    "head's path": "UPDATE heads SET path = 'nodes.md' WHERE label = 'notes'",
    "head's agents": "UPDATE heads SET agents = (SELECT agents FROM heads WHERE label = 'shared') WHERE label = 'notes'",
    "head's entries": "UPDATE heads SET entries = NULL WHERE label = 'notes'",
    "no such list": "UPDATE heads SET agents = 99 WHERE label = 'notes'",
    "list": "UPDATE agent_lists SET agents = 'eve' WHERE agents = 'ann'",
    "head gone": "DELETE FROM heads WHERE label = 'notes'",
    "revision gone": "DELETE FROM revisions WHERE seq = (SELECT seq FROM heads WHERE label = 'notes')",
    "facts": "UPDATE revisions SET facts = replace(facts, '20000', '20001') WHERE label = 'notes'",
    "no facts": "UPDATE revisions SET facts = NULL WHERE label = 'notes'",
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_journal_is_not_believed(rig: Rig, raw: Any, name: str) -> None:
    """Whatever of the present is damaged, the mirror shows what the files say, and history goes on."""
    rig.close()
    damage(rig.home / "journal.db", DAMAGES[name])
    raw.flushall()
    rig.open().settle()
    assert shown_blocks(raw) == IN_FILES
    assert rig.core.state.attachments.known == {"ann", "bob"}
    rig.save_and_settle("notes", "---\nagents: [ann]\n---\nstill alive\n")
    assert_level(rig, raw)


IN_FILES = {
    "notes": ("line 2", {"ann"}),
    "agents/bob/persona": ("I am Bob.", {"bob"}),
    "shared": ("for all", {"ann", "bob"}),
}


def shown_blocks(raw: Any) -> dict[str, tuple[str, set[str]]]:
    """What the mirror shows: label → value and who is attached."""
    return {
        label: (raw.hget(f"blocks:block:{label}", "value"), raw.smembers(f"blocks:attached:{label}"))
        for label in raw.zrange("blocks:labels", 0, -1)
    }


@pytest.mark.slow
def test_flipped_bits_are_never_silent(rig: Rig, raw: Any) -> None:
    """Of a journal with a bit flipped anywhere, the mirror shows what the files say, or the daemon refuses in words."""
    rig.close()
    sound = (rig.home / "journal.db").read_bytes()
    chance = random.Random(int(os.environ.get("BLOCKSD_TEST_SEED", "30")))
    refused = 0
    for _ in range(int(os.environ.get("BLOCKSD_TEST_FLIPS", "40"))):
        data = bytearray(sound)
        for _ in range(3):  # most of a young journal is empty
            place = chance.randrange(len(data))
            while not data[place]:
                place = chance.randrange(len(data))
            data[place] ^= 1 << chance.randrange(8)
        for one in rig.home.glob("journal.db*"):
            one.unlink()
        (rig.home / "journal.db").write_bytes(data)
        raw.flushall()
        try:
            rig.open()
        except BlocksdError:
            refused += 1
            continue
        rig.settle()
        assert shown_blocks(raw) == IN_FILES
        for label in IN_FILES:
            with suppress(BlocksdError):  # in words
                found = rig.journal.history(label, damaged=[])
                assert all(one.digest == (one.block.digest if one.block else None) for one in found)
        rig.close()
    assert refused < 15
    for one in rig.home.glob("journal.db*"):
        one.unlink()
    rig.open().settle()


def test_damaged_version_is_not_shown(rig: Rig, raw: Any) -> None:
    """An old version that is damaged is refused by name; the others are shown, and the block goes on."""
    damage(rig.home / "journal.db", "UPDATE revisions SET value = 'forged' WHERE label = 'notes' AND version = 2")
    wrong: list[VersionDamaged] = []
    assert [one.version for one in rig.journal.history("notes", damaged=wrong)] == [4, 3, 1]
    assert [error.facts["version"] for error in wrong] == [2]
    refusal = ask(raw, rig, "operator", "1", "restore", "notes", version=2)
    assert (refusal["ok"], refusal["error"]["code"]) == (False, "not_found")
    assert "version 2 of 'notes' is damaged" in refusal["error"]["message"]
    assert ask(raw, rig, "operator", "2", "restore", "notes", version=3)["ok"]
    rig.settle()
    assert (rig.root / "notes.md").read_text().endswith("line 1\n")
    assert not rig.core.rescue.done


def scrub(rig: Rig) -> None:
    """Let the time for the next slices of the scrub come."""
    for _ in range(3):
        rig.clock.advance(10.1)
        rig.round()
        rig.settle()


def test_scrub_repairs_from_the_file(rig: Rig, raw: Any) -> None:
    """What is in force and damaged is written again as the file says it, without a new version."""
    epoch, seq = rig.journal.epoch, rig.journal.seq
    head = rig.journal.head("notes")
    damage(
        rig.home / "journal.db",
        "UPDATE revisions SET value = 'forged' WHERE seq = (SELECT seq FROM heads WHERE label = 'notes')",
    )
    scrub(rig)
    assert rig.core.scrub.repaired == 1
    assert rig.journal.head("notes") == head
    assert (rig.journal.epoch, rig.journal.seq) == (epoch, seq)
    assert_level(rig, raw)


def test_scrub_takes_damaged_versions_out(rig: Rig, raw: Any) -> None:
    """An old version that is damaged is kept aside, and named in a warning, also after a restart."""
    damage(rig.home / "journal.db", "UPDATE revisions SET author = 'eve' WHERE label = 'notes' AND version = 2")
    scrub(rig)
    assert [one.version for one in rig.journal.history("notes")] == [4, 3, 1]
    assert "notes v2" in rig.core.problems[HISTORY].message
    assert rig.core.problems[HISTORY].warning
    rig.close()
    rig.open().settle()
    assert "notes v2" in rig.core.problems[HISTORY].message
    assert_level(rig, raw)


@pytest.mark.parametrize("name", ["author", "head's version", "head's agents", "revision gone"])
def test_scrub_finds_damage_to_the_present(rig: Rig, raw: Any, name: str) -> None:
    """While the daemon runs, and nobody asks: the journal is put together again, in a new epoch."""
    epoch = rig.journal.epoch
    damage(rig.home / "journal.db", DAMAGES[name])
    scrub(rig)
    assert [one.how for one in rig.core.rescue.done] == ["damaged"]
    assert rig.journal.epoch != epoch
    assert shown_blocks(raw) == IN_FILES
    assert_level(rig, raw)


def test_scrub_reads_files_that_look_unchanged(rig: Rig, raw: Any) -> None:
    """A file whose bytes changed under the same signature says what is in force."""
    path = rig.root / "notes.md"
    before = os.stat(path)
    signature = rig.core.state.signatures["notes.md"]
    with open(path, "r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"7")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    now = os.stat(path)
    rig.core.state.signatures["notes.md"] = packed(*signature_of(now))
    assert signature != rig.core.state.signatures["notes.md"]
    scrub(rig)
    assert raw.hget("blocks:block:notes", "value") == "line 7"


# --- clocks that are set ---


@pytest.mark.parametrize("offset", [2 * 86_400.0, 3.0])
def test_append_by_a_clock_that_was_ahead_overrules_nobody(rig: Rig, raw: Any, offset: float) -> None:
    """A person who saves long after it is not taken for one who had not seen it."""
    rig.wall_offset = offset
    assert ask(raw, rig, "operator", "1", "append", "notes", content="appended")["ok"]
    rig.wall_offset = 0.0
    rig.settle()
    rig.clock.advance(rig.config.stale_window + 1)
    rig.save_and_settle("notes", "---\nagents: [ann]\n---\nmine alone\n")
    assert (rig.root / "notes.md").read_text().endswith("mine alone\n")
    assert rig.journal.head("notes").stale_base is None  # type: ignore[union-attr]  # it is there
    assert raw.hget("blocks:block:notes", "value") == "mine alone"


# --- what was done is done once ---


def again(raw: Any, rig: Rig, entry: str, request_id: str) -> Any:
    """Put an entry back into the operator's inbox, as a snapshot of Redis does, and wait for the reply."""
    request = {"id": request_id, "op": "append", "label": "notes", "args": {"content": f"asked by {request_id}"}}
    raw.delete("blocks:inbox:operator")
    raw.xadd("blocks:inbox:operator", {"request": json.dumps(request)}, id=entry)
    key = f"blocks:reply:operator:{request_id}"
    rig.run(lambda: deliver(raw, rig, "operator") and raw.exists(key), "it is replied to")
    raw.delete("blocks:inbox:operator")
    return json.loads(raw.lpop(key))


def pass_time(rig: Rig, hours: float) -> None:
    """Let time pass on both clocks, with a sweep now and then."""
    for _ in range(int(hours * 2)):
        rig.clock.advance(1800.0)
        rig.wall_offset += 1800.0
        rig.settle()


def test_entry_from_an_old_snapshot_is_not_done_twice(rig: Rig, raw: Any) -> None:
    """Its outcome is forgotten by then: it is refused in words, also after a restart. What is sent anew is done."""
    now = int(time.time() * 1000)
    assert again(raw, rig, f"{now}-0", "r-1")["ok"]
    assert again(raw, rig, f"{now}-0", "r-1")["ok"]  # the first outcome
    pass_time(rig, 26)
    rig.journal.database.execute("DELETE FROM requests")  # however many are kept
    for _ in range(2):
        refusal = again(raw, rig, f"{now}-0", "r-1")
        assert (refusal["ok"], refusal["error"]["code"]) == (False, "invalid_request")
        rig.journal.database.execute("DELETE FROM requests")
        rig.close()
        rig.open().settle()
    assert again(raw, rig, f"{now}-1", "r-1")["ok"]
    assert (rig.root / "notes.md").read_text().count("asked by r-1") == 2
    assert again(raw, rig, f"{now + 10**9}-0", "r-2")["ok"]  # ids that are made up lock no inbox
    pass_time(rig, 1)
    assert again(raw, rig, f"{now + 2}-0", "r-3")["ok"]


def test_clock_that_jumps_for_a_moment_forgets_no_outcome(rig: Rig, raw: Any) -> None:
    """Two days ahead and back: the request that is sent again gets the first outcome."""
    now = int(time.time() * 1000)
    assert again(raw, rig, f"{now}-0", "r-1")["ok"]
    rig.resync()
    rig.wall_offset = 2 * 86_400.0
    rig.resync()
    rig.wall_offset = 0.0
    rig.resync()
    assert again(raw, rig, f"{now}-5", "r-1")["ok"]
    assert (rig.root / "notes.md").read_text().count("asked by r-1") == 1
