"""The journal fails at any of its calls, once or for a while, and the daemon goes on without losing or doubling anything."""

from __future__ import annotations

import json
import logging
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import JournalUnusable
from blocksd.journal.intents import Intents
from blocksd.journal.journal import Journal
from blocksd.requests.request import Entry
from rig import Rig, assert_level
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support import RedisServer

ERRORS = (
    sqlite3.OperationalError("disk I/O error"),
    sqlite3.DatabaseError("database disk image is malformed"),
    sqlite3.IntegrityError("constraint failed"),
)
FOR_A_WHILE = 25
"""Calls that fail one after the other: some attempts to begin again are among them."""


class Failing:
    """The calls of a journal's connection, of which some fail."""

    def __init__(self, rig: Rig) -> None:
        self.calls = 0
        self.failing = range(0)
        self.error: Exception = ERRORS[0]
        database = rig.journal.database
        for name in ("execute", "executemany"):
            self._wrap(database, name)

    def _wrap(self, database: Any, name: str) -> None:
        real = getattr(database, name)

        def call(*args: Any) -> Any:
            self.calls += 1
            if self.calls in self.failing:
                raise self.error
            return real(*args)

        setattr(database, name, call)


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    client: Any = server.client()
    yield client
    client.close()


@pytest.fixture
def rig(tmp_path: Path, server: RedisServer) -> Iterator[Rig]:
    made = Rig(tmp_path, server.url, history_versions=1)
    made.write("notes", "one\n")
    made.write("doomed", "text\n")
    made.settle()
    yield made
    made.client.close()


def ask(raw: Any, request_id: str, **args: str) -> None:
    request = {"id": request_id, "op": "append", "label": "log", "args": args}
    raw.xadd("blocks:inbox:operator", {"request": json.dumps(request)})


def live(rig: Rig, raw: Any, number: int) -> None:
    """A save, a deletion, a request and a comparison of everything; the request is read again until it is done."""
    rig.write("notes", f"{number}\n")
    if number % 2:
        rig.remove("doomed")
    else:
        rig.write("doomed", "text\n")
    ask(raw, f"r-{number}", content=f"line {number}")

    def read() -> bool:
        entries = raw.xrange("blocks:inbox:operator")
        rig.core.inbox.add(Entry("operator", one, fields.get("request")) for one, fields in entries)
        rig.round()
        rig.core.idle()
        rig.clock.advance(max(rig.core.wait_seconds(), 0.01))
        return not entries

    eventually(read, "the request is done")
    (reply,) = raw.lrange(f"blocks:reply:operator:r-{number}", 0, -1)
    assert json.loads(reply)["ok"], reply
    rig.clock.advance(rig.config.resync_seconds + 1)
    eventually(lambda: read() and rig.is_settled() and not rig.core.problems, "all is well again")


def assert_all_is_there(rig: Rig, raw: Any, number: int) -> None:
    assert (rig.root / "log.md").read_text() == "".join(f"line {done}\n" for done in range(1, number + 1))
    assert (rig.root / "notes.md").read_text() == f"{number}\n"
    raw.delete("blocks:inbox:operator", *raw.scan_iter("blocks:reply:*"))
    assert_level(rig, raw)
    log = rig.journal.head("log")
    assert log is not None
    assert log.version == number + 1, "each request made one version"


@pytest.mark.parametrize(
    ("error", "length"),
    [(ERRORS[1], 1), (ERRORS[0], FOR_A_WHILE), (ERRORS[2], FOR_A_WHILE)],
    ids=["once", "for a while", "of another kind"],
)
def test_journal_fails_at_any_call(rig: Rig, raw: Any, error: Exception, length: int) -> None:
    """Whichever call of SQLite fails, also those made while an earlier failure is handled: nothing ends, nothing is lost."""
    rig.write("log", "")
    rig.settle()
    failing = Failing(rig)
    failing.error = error
    live(rig, raw, 1)
    of_one_life = failing.calls
    assert of_one_life > 20
    for number, first in enumerate(range(1, of_one_life, 2 if length == 1 else 5), start=2):
        failing.calls = 0
        failing.failing = range(first, first + length)
        live(rig, raw, number)
        failing.failing = range(0)
        assert_all_is_there(rig, raw, number)
    assert rig.core.failures.unexpected is None


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_journal_fails_while_it_is_closed(rig: Rig, error: Exception) -> None:
    """The daemon ends in order whichever call fails then; the next start doubts what was not closed."""
    rig.write("log", "1\n")
    rig.settle()
    for first in range(1, 6):
        failing = Failing(rig)
        failing.failing = range(first, first + 100)
        failing.error = error
        rig.close()
        rig.open()
        rig.settle()
    rig.close()


def test_failure_after_a_commit_leaves_memory_as_the_journal_is(
    rig: Rig, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed is in force, whatever fails behind it: an agent whose deletion was journaled is not known."""
    rig.write("agents/ann/persona", "I am Ann.\n")
    rig.settle()
    failed: list[int] = []

    def fails(_intents: Intents) -> list[str]:
        failed.append(rig.journal.seq)
        raise JournalUnusable("the journal cannot be read: once", path=rig.journal.path)

    text = json.dumps({"id": "r", "op": "delete_agent", "args": {"agent": "ann"}})
    entry = Entry("operator", raw.xadd("blocks:inbox:operator", {"request": text}), text)
    with monkeypatch.context() as patch:
        patch.setattr(Intents, "folders_gone", fails)
        rig.core.inbox.add([entry])
        rig.round()
    assert failed == [rig.journal.seq]
    assert "ann" not in rig.core.state.attachments.known
    rig.settle()
    raw.delete("blocks:inbox:operator")
    assert_level(rig, raw)


def test_error_that_lasts_is_logged_once(rig: Rig, raw: Any, caplog: pytest.LogCaptureFixture) -> None:
    """However often a stage is retried; and the problem of what is done again stays the same, so that it is announced once."""
    failing = Failing(rig)
    failing.failing = range(1, 10**9)
    rig.write("notes", "two\n")
    end = rig.clock() + 30.0
    with caplog.at_level(logging.WARNING, "blocksd.core.core"):
        rig.run(lambda: rig.clock() > end)
    said = [problem.message.partition(":")[0] for problem in rig.heard.problems]
    assert said == [
        "the journal cannot be written",
        "the journal cannot be read",
    ]  # the save, and then all that is in force
    assert len(caplog.messages) <= 3, caplog.messages
    assert any("could not take in what is new" in message for message in caplog.messages)
    failing.failing = range(0)
    rig.settle()
    assert_level(rig, raw)


def test_round_that_fails_when_its_files_are_in_is_finished_once(
    rig: Rig, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was prepared is brought into force by the recovery, and not once more on top of what was saved since."""

    def fault(*_: Any) -> None:
        rig.write("notes", "one\ntwo\nthree\n")
        raise ZeroDivisionError("a fault")

    rig.tolerates_errors = True
    request = {"id": "r", "op": "append", "label": "notes", "args": {"content": "two"}}
    raw.xadd("blocks:inbox:operator", {"request": json.dumps(request)})
    ((one, fields),) = raw.xrange("blocks:inbox:operator")
    with monkeypatch.context() as patch:
        patch.setattr(rig.core.requests, "follow", fault)
        rig.core.inbox.add([Entry("operator", one, fields["request"])])
        rig.run(lambda: rig.core.failures.unexpected is not None)
    with monkeypatch.context() as patch:
        patch.setattr(rig.core.projector, "confirm", lambda: 0.0)  # no request may be done meanwhile
        for _ in range(10):
            assert "finish" not in list(rig.core.round())
            assert rig.core.failures.blocked_until == 0.0
            rig.clock.advance(0.5)
    head = rig.journal.head("notes")
    assert head is not None
    assert head.block is not None
    assert (head.version, head.block.value) == (3, "one\ntwo\nthree")
    assert {found.label: found.version for found in rig.journal.heads()}["notes"] == 3
    assert rig.core.state.version_of("notes") == 3


def test_unforeseen_error_ends_a_stage_and_not_the_daemon(rig: Rig, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours is a problem; when it has passed, all is as the files say."""

    def fault(*_: Any) -> None:
        raise ZeroDivisionError("a fault")

    rig.tolerates_errors = True
    with monkeypatch.context() as patch:
        patch.setattr(rig.core.intake, "collect", fault)
        rig.write("notes", "two\n")
        rig.run(lambda: "<journal>" in rig.core.problems)
        end = rig.clock() + 10.0
        rig.run(lambda: rig.clock() > end)
        assert rig.core.problems["<journal>"].code == "internal_error"
    assert isinstance(rig.core.failures.unexpected, ZeroDivisionError)
    with monkeypatch.context() as patch:
        patch.setattr(rig.core.projector, "step", fault)
        rig.write("notes", "three\n")
        rig.run(lambda: rig.journal.head("notes").block.value == "three")  # type: ignore[union-attr]  # it is there
    rig.settle()
    assert "<journal>" not in rig.core.problems
    assert_level(rig, raw)


def test_transaction_that_can_neither_be_committed_nor_rolled_back(tmp_path: Path) -> None:
    """Nobody sees what it has not written: neither who reads next, nor who writes."""
    journal = Journal(str(tmp_path / "journal.db"))
    database: Any = journal.database
    real = database.execute

    def failing(text: str, *args: Any) -> Any:
        if text in ("COMMIT", "ROLLBACK"):
            raise sqlite3.OperationalError("disk I/O error")
        return real(text, *args)

    for use in (database.reading, database.transaction):
        database.execute = failing
        with pytest.raises(sqlite3.OperationalError), database.transaction:
            database.execute("INSERT INTO meta VALUES ('torn', 1)")
        database.execute = real
        with use:
            assert real("SELECT count(*) FROM meta WHERE key = 'torn'").fetchone() == (0,)
    journal.close()
