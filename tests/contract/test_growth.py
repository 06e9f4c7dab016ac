"""Agents that come and go, one for each conversation, leave nothing behind for good: not in journal, Redis or memory."""

from __future__ import annotations

import gc
import itertools
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.requests.request import Entry
from rig import Rig, assert_level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import RedisServer

HALF_A_DAY = 0.5
SESSIONS = int(os.environ.get("BLOCKSD_TEST_SESSIONS", "20"))


class Town(Rig):
    """A daemon whose clocks go on together, and whose inboxes are read whenever something is asked."""

    numbers = itertools.count(1)

    def __init__(self, home: Path, server: RedisServer, **settings: Any) -> None:
        self.raw: Any = server.client()
        super().__init__(home, server.url, departed_days=HALF_A_DAY, durability="process", **settings)

    def send(self, actor: str, op: str, **more: Any) -> str:
        request_id = f"r-{next(self.numbers)}"
        self.raw.xadd(f"blocks:inbox:{actor}", {"request": json.dumps({"id": request_id, "op": op, **more})})
        return request_id

    def pass_on(self) -> None:
        """Hand over what is in the inboxes of known agents, as the reader does."""
        for actor in sorted(self.core.state.attachments.known | {"operator"}):
            found = self.raw.xrange(f"blocks:inbox:{actor}")
            self.core.inbox.add(Entry(actor, one, fields["request"]) for one, fields in found)

    def do(self, actor: str, op: str, **more: Any) -> None:
        request_id = self.send(actor, op, **more)
        key = f"blocks:reply:{actor}:{request_id}"
        self.pass_on()
        self.run(lambda: self.raw.exists(key), f"a reply to {op}")
        assert 0 < self.raw.ttl(key) <= 60
        reply = json.loads(self.raw.lpop(key))
        assert reply["ok"], reply

    def session(self, agent: str, *, by_hand: bool) -> None:
        """One conversation: its agent is made, takes notes, and is deleted or has its folder removed."""
        self.do("operator", "create_agent", args={"agent": agent, "blocks": [{"name": "notes", "value": "begin\n"}]})
        self.do(agent, "append", name="notes", args={"content": "more"})
        if by_hand:
            shutil.rmtree(self.root / "agents" / agent)
            self.core.intake.hint_tree(f"agents/{agent}")
            self.run(lambda: not self.core.state.attachments.is_known(agent), f"{agent} is gone")
        else:
            self.do("operator", "delete_agent", args={"agent": agent})

    def folder_of(self, agent: str) -> None:
        """An agent that has but an empty folder."""
        (self.root / "agents" / agent).mkdir()
        self.core.intake.hint_tree(f"agents/{agent}")
        self.resync()
        assert self.core.state.attachments.is_known(agent)

    def wait(self, seconds: float) -> None:
        """Let time pass, and what is due then be done."""
        for _ in range(int(seconds / 1800) + 1):
            self.clock.advance(1800.0)
            self.wall_offset += 1800.0
            self.run(lambda: self.core.schedule["retention"] > self.clock() + 1)

    def inboxes(self) -> set[str]:
        return {key.removeprefix("blocks:inbox:") for key in self.raw.scan_iter("blocks:inbox:*", count=1000)}

    def rows(self) -> dict[str, int]:
        """How many rows the tables of the journal have that say something of blocks, agents or requests."""
        tables = ("heads", "revisions", "agent_lists", "requests", "spent", "open_files", "damaged", "prepared")
        execute = self.journal.database.execute
        return {table: execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}

    def names_in_memory(self) -> int:
        """How many strings there are in memory that name an agent of a session, or something of its."""
        found: set[str] = set()
        for one in gc.get_objects():
            if isinstance(one, (dict, set, frozenset, list, tuple)) and type(one).__module__ != __name__:
                found.update(name for name in one if type(name) is str and "session-" in name)
        return len(found)


@pytest.fixture
def make(tmp_path: Path, standing_server: Callable[[str], RedisServer]) -> Iterator[Callable[..., Town]]:
    made: list[Town] = []

    def town(**settings: Any) -> Town:
        made.append(Town(tmp_path / f"town-{len(made)}", standing_server("valkey"), **settings))
        return made[-1]

    yield town
    for one in made:
        one.crash()
        one.raw.close()


@pytest.fixture
def town(make: Callable[..., Town]) -> Town:
    """A block for everybody, and an agent that stays."""
    made = make()
    made.write("shared", "---\nagents: '*'\n---\nfor all\n")
    made.write("agents/ann/persona", "I am Ann.\n")
    made.settle()
    return made


def test_sessions_leave_nothing_for_good(town: Town) -> None:
    """At once no key in Redis but of what is there; once it is old, no row of the journal; and nothing in memory."""
    for number in range(SESSIONS):
        town.session(f"session-{number:06}", by_hand=number % 2 == 1)
    town.settle()
    assert town.inboxes() <= {"operator"}
    town.raw.delete("blocks:inbox:operator")
    assert_level(town, town.raw)
    before = town.rows()
    assert before["heads"] == 2 + SESSIONS
    town.wait(2.5 * 86_400)
    town.core.idle()
    after = town.rows()
    assert after["heads"] <= 3  # the newest revision of all may be that of a deletion
    assert after["revisions"] <= 2 + 2 * SESSIONS + 3  # of the block for everybody, whose versions are kept
    assert after["requests"] <= 2 * SESSIONS  # the operator's, the newest of which are kept
    assert (after["spent"], after["open_files"]) == (1, 0)
    assert after["prepared"] <= 1  # what the last files displaced
    gc.collect()
    assert town.names_in_memory() < 400 + 2 * SESSIONS
    town.crash()
    town.open()
    town.settle()
    assert town.journal.count() == 2


def test_block_for_everybody_has_few_lists(town: Town) -> None:
    """Of who it was attached to, session by session: as many as its versions have."""
    for number in range(10):
        town.session(f"session-{number:06}", by_hand=False)
    versions = len(town.journal.history("shared"))
    town.wait(7200)
    assert town.rows()["agent_lists"] <= versions + 2


@pytest.mark.parametrize("has_blocks", [True, False], ids=["with blocks", "with an empty folder"])
def test_crash_before_the_mirror_hears_of_a_deleted_agent(town: Town, *, has_blocks: bool) -> None:
    """What waits in its inbox and what is open for it are gone all the same: the next of that name begins empty."""
    if has_blocks:
        town.do("operator", "create_agent", args={"agent": "bob", "blocks": [{"name": "notes"}]})
    else:
        town.remove("shared")
        town.folder_of("bob")
    town.raw.hset("blocks:open:bob", "m/a", "2026-11-20T09:00:00.000Z")
    if has_blocks:
        town.send("bob", "append", name="notes", args={"content": "too late"})
    else:
        town.raw.xdel("blocks:inbox:bob", town.raw.xadd("blocks:inbox:bob", {"request": "x"}))
    town.send("operator", "delete_agent", args={"agent": "bob"})
    found = town.raw.xrange("blocks:inbox:operator")
    town.core.inbox.add(Entry("operator", one, fields["request"]) for one, fields in found)
    for effect in town.core.round():
        if effect == "project":
            break
    assert town.inboxes() >= {"bob"}
    town.crash()
    town.open()
    town.settle()
    town.resync()
    assert town.inboxes() == {"operator"}
    assert not town.raw.exists("blocks:open:bob", "blocks:agent:bob")


def test_request_behind_a_deleted_agent_without_blocks_goes(town: Town) -> None:
    """Also if no block was attached to it, so that no revision tells of its end."""
    town.remove("shared")
    town.settle()
    town.folder_of("bob")
    town.raw.xadd("blocks:inbox:bob", {"request": "x"})
    seq = town.journal.seq
    town.do("operator", "delete_agent", args={"agent": "bob"})
    assert (town.journal.seq, "bob" in town.inboxes()) == (seq, False)


def test_request_of_an_agent_whose_folder_is_away_waits_an_hour(town: Town) -> None:
    """As while a branch is checked out that does not have it."""
    aside = town.home / "aside"
    town.raw.xadd("blocks:inbox:ann", {"request": json.dumps({"id": "r", "op": "append", "name": "persona"})})
    (town.root / "agents" / "ann").rename(aside)
    town.core.intake.hint_tree("agents/ann")
    town.settle()
    town.resync()
    assert not town.core.state.attachments.is_known("ann")
    assert "ann" in town.inboxes()
    town.wait(3600)
    town.resync()
    assert "ann" not in town.inboxes()


def test_empty_inbox_goes_with_its_agent(town: Town) -> None:
    """At once, not when everything is compared the next time."""
    town.raw.xdel("blocks:inbox:ann", town.raw.xadd("blocks:inbox:ann", {"request": "x"}))
    town.run(lambda: town.core.projector.verifier.passes > 0)
    shutil.rmtree(town.root / "agents" / "ann")
    town.core.intake.hint_tree("agents/ann")
    town.run(lambda: not town.core.state.attachments.is_known("ann"))
    town.round()
    assert (town.inboxes(), town.core.projector.verifier.passes) == (set(), 1)


def test_inbox_of_an_agent_that_never_was_goes(town: Town) -> None:
    """Once it is empty; the operator's stays, and so do those of known agents."""
    for actor in ("operator", "ann", "mallory"):
        town.raw.xdel(f"blocks:inbox:{actor}", town.raw.xadd(f"blocks:inbox:{actor}", {"request": "x"}))
    town.resync()
    assert town.inboxes() == {"operator", "ann"}


def test_requests_sent_while_no_daemon_ran_are_kept_until_folders_were_seen(town: Town) -> None:
    """An agent that has but an empty folder is known by the first sweep: what waits for it before that stays."""
    town.folder_of("eve")
    town.crash()
    town.raw.xadd("blocks:inbox:eve", {"request": "x"})
    town.open()
    strays = town.core.projector.verifier._strays
    town.core.projector.step()
    town.run(lambda: town.core.projector.is_in_sync)
    strays._unknown["blocks:inbox:eve"] = float("-inf")
    town.core.state.has_seen_folders = False
    strays.begin()
    strays.step()
    assert "eve" in town.inboxes()
