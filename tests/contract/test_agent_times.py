"""When an agent was created: when it became known, kept through restarts, crashes and the loss of Redis."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.model.attachment import Attachments
from blocksd.model.revision import milliseconds
from rig import Rig, assert_level

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support import RedisServer


class Village(Rig):
    """A daemon, and a client that looks at its server."""

    def __init__(self, home: Path, server: RedisServer) -> None:
        self.raw: Any = server.client()
        super().__init__(home, server.url)

    @property
    def times(self) -> dict[str, int]:
        """The times of the known agents, as the mirror shows them and the journal has them."""
        assert_level(self, self.raw)
        shown = {agent: int(at) for agent, at in self.raw.zrange("blocks:agents-created", 0, -1, withscores=True)}
        assert shown == dict(self.journal.database.execute("SELECT * FROM agents"))
        return shown

    def pass_time(self) -> None:
        """The time of day is another one from now on."""
        self.wall_offset += 60

    def folder_of(self, agent: str) -> None:
        """An agent that has but an empty folder."""
        (self.root / "agents" / agent).mkdir(parents=True)
        self.core.intake.hint_tree(f"agents/{agent}")
        self.settle()


@pytest.fixture
def rig(tmp_path: Path, any_server: RedisServer) -> Iterator[Village]:
    """Ann is named by a block, Bob has a private one, Cid an empty folder, Dan properties: they came in this order."""
    made = Village(tmp_path, any_server)
    made.settle()
    made.save_and_settle("notes", "---\nagents: [ann]\n---\none\n")
    made.pass_time()
    made.save_and_settle("agents/bob/persona", "I am Bob.\n")
    made.pass_time()
    made.folder_of("cid")
    made.pass_time()
    (made.root / "agents/dan").mkdir()
    (made.root / "agents/dan/agent.yaml").write_text("name: Daniel\n")
    made.core.intake.hint_tree("agents/dan")
    made.settle()
    made.pass_time()
    yield made
    made.crash()
    made.raw.close()


def test_agents_are_created_when_they_become_known(rig: Village) -> None:
    """By a block, with the very time of the revision; by a folder; by properties. What comes later changes nothing in that."""
    times = rig.times
    assert sorted(times, key=times.__getitem__) == ["ann", "bob", "cid", "dan"]
    by_label = {one.label: milliseconds(one.at) for one in rig.heard.revisions}
    assert (times["ann"], times["bob"]) == (by_label["notes"], by_label["agents/bob/persona"])
    assert times["dan"] <= by_label["agents/dan/agent.yaml"]  # the folder was there before
    rig.save_and_settle("notes", "---\nagents: [ann, bob, eve]\n---\ntwo\n")
    rig.save_and_settle("agents/cid/persona", "I am Cid.\n")
    assert {agent: at for agent, at in rig.times.items() if agent != "eve"} == times


@pytest.mark.parametrize("how", ["stopped", "killed", "with Redis lost", "of another layout", "reloaded"])
def test_times_stay(rig: Village, how: str) -> None:
    """Through a restart, though an empty folder is not known until the first sweep, and whatever becomes of Redis."""
    before = rig.times
    if how == "reloaded":
        rig.core.failures.must_reload = True
        rig.save_and_settle("notes", "---\nagents: [ann]\n---\ntwo\n")
    elif how == "stopped":
        rig.close()
        rig.open().settle()
    else:
        rig.crash()
        if how == "with Redis lost":
            rig.raw.flushall()
        if how == "of another layout":
            rig.raw.delete("blocks:agents-created")
            rig.raw.hset("blocks:meta", "schema", "3")
        rig.open().settle()
    assert rig.times == before
    assert rig.heard.repaired == []


def test_agent_that_comes_again(rig: Village) -> None:
    """It is created anew. When it was created before can be read for an hour."""
    before = rig.times
    rig.remove("notes")
    rig.settle()
    assert rig.times.keys() == {"bob", "cid", "dan"}
    assert int(rig.raw.hget("blocks:departed", "ann")) == before["ann"]
    assert 0 < rig.raw.ttl("blocks:departed") <= 3600
    rig.pass_time()
    rig.save_and_settle("notes", "---\nagents: [ann]\n---\nagain\n")
    assert rig.times["ann"] > max(before.values())
    assert {**rig.times, "ann": before["ann"]} == before


def test_agents_that_changed_while_no_daemon_ran(rig: Village) -> None:
    """Those that came are created when the daemon sees them, those that left have no time any more."""
    before = rig.times
    rig.close()
    rig.pass_time()
    (rig.root / "agents/cid").rmdir()
    (rig.root / "agents/eve").mkdir()
    (rig.root / "notes.md").write_text("---\nagents: [fay]\n---\none\n")
    rig.open().settle()
    after = rig.times
    assert after.keys() == {"bob", "dan", "eve", "fay"}
    assert min(after["eve"], after["fay"]) > max(before.values())
    assert (after["bob"], after["dan"]) == (before["bob"], before["dan"])


@pytest.mark.parametrize("effect", ["agents", "project"])
def test_crash_before_a_time_is_stored(rig: Village, effect: str) -> None:
    """The agent is created when the revision says that names it, not when the daemon comes again."""
    rig.write("more", "---\nagents: [eve]\n---\none\n")
    for one in rig.core.round():
        if one == effect:
            break
    made = milliseconds(rig.journal.since(rig.journal.seq - 1, 1)[0].at)
    rig.crash()
    rig.pass_time()
    rig.open().settle()
    assert rig.times["eve"] == made


def test_journal_of_before_agents_had_times(rig: Village) -> None:
    """Each agent was created when the journal first tells of it; one that has but a folder, when that is seen."""
    before = rig.times
    rig.save_and_settle("agents/bob/more", "x\n")
    rig.save_and_settle("other", "---\nagents: [ann, bob]\n---\nx\n")
    rig.close()
    rig.pass_time()
    rig.open()
    rig.journal.database.execute("DELETE FROM agents")
    rig.settle()
    after = rig.times
    assert (after["ann"], after["bob"]) == (before["ann"], before["bob"])
    properties = rig.journal.head("agents/dan/agent.yaml")
    assert properties is not None
    assert after["dan"] == milliseconds(properties.created_at)
    assert after["cid"] > max(before.values())


def test_journal_that_takes_no_times(rig: Village, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent gets the time of its revision as soon as the journal can be written."""
    database = rig.journal.database
    execute, failures = database.executemany, iter(range(3))

    def failing(statement: str, rows: Any) -> Any:
        if "INTO agents" in statement and next(failures, None) is not None:
            raise sqlite3.OperationalError("database or disk is full")
        return execute(statement, rows)

    monkeypatch.setattr(database, "executemany", failing)
    rig.save_and_settle("more", "---\nagents: [eve]\n---\none\n")
    assert next(failures, None) is None
    head = rig.journal.head("more")
    assert head is not None
    assert rig.times["eve"] == milliseconds(head.at)


def test_times_that_cannot_be_stored_are_shown(rig: Village) -> None:
    """What the journal has no time of yet is shown with the one that it will get."""
    before = rig.times
    rig.journal.database.execute("DELETE FROM agents WHERE agent IN ('ann', 'cid')")
    shown = rig.core.state.agent_times.of(["ann", "bob", "cid"])
    assert (shown["ann"], shown["bob"]) == (before["ann"], before["bob"])
    assert abs(shown["cid"] - (time.time() + rig.wall_offset) * 1000) < 60_000


def test_work_grows_with_the_agents_that_came_and_left(rig: Village) -> None:
    """Once the journal was compared, nothing is done for the agents that stay."""

    class Many(Attachments):
        known = property(lambda _: pytest.fail("all known agents were listed"))

    times = rig.core.state.agent_times
    many = Many()
    many.set_entries("notes", ("ann", "eve"))
    assert times.is_due(many, are_all_known=True)
    times.note(many, 1, are_all_known=True)
    assert times.of(["eve"]) == {"eve": 1}
    assert not times.is_due(many, are_all_known=True)
    many.set_entries("notes", ("eve", "ann"))
    assert not times.is_due(many, are_all_known=True)
    many.remove("notes")
    times.note(many, 2, are_all_known=True)
    assert rig.journal.database.execute("SELECT count(*) FROM agents WHERE agent = 'eve'").fetchone() == (0,)
