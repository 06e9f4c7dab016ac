"""What a mirror shows wrongly is found and mended, alike on every server."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from bench import EPOCH, project, without_meta
from blocksd.mirror.aside import agents_commands, problem_commands
from blocksd.mirror.repair import differing, repair_agents, repair_changes, repair_index
from blocksd.model.block import block_id
from blocksd.model.problem import Problem
from rig import AT, MADE, announced, made_at, revision
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench import Bench


NOTES, HIDDEN = "notes\x1fS\x1f\x1enotes", "notes\x1fH\x1f\x1enotes"
"""The member of the index for the block `notes`, and another one that it could have."""

BLOCK_DAMAGES: dict[str, Callable[[Any], Any]] = {
    "evicted": lambda client: client.delete("blocks:block:notes"),
    "set evicted": lambda client: client.delete("blocks:attached:notes"),
    "edited": lambda client: client.hset("blocks:block:notes", "value", "forged"),
    "field added": lambda client: client.hset("blocks:block:notes", "colour", "red"),
    "field removed": lambda client: client.hdel("blocks:block:notes", "limit"),
    "agent added": lambda client: client.sadd("blocks:attached:notes", "mallory"),
    "agent removed": lambda client: client.srem("blocks:attached:notes", "ann"),
    "unlisted": lambda client: client.zrem("blocks:labels", "notes"),
    "score edited": lambda client: client.zadd("blocks:labels", {"notes": 7}),
    "id removed": lambda client: client.hdel("blocks:ids", block_id("notes")),
    "count removed": lambda client: client.zrem("blocks:counts", "notes"),
    "count edited": lambda client: client.zadd("blocks:counts", {"notes": 7}),
    **{
        f"{name} {damage}": partial(damaged, key=f"blocks:{name}")
        for name in ("created", "updated")
        for damage, damaged in {
            "removed": lambda client, key: client.zrem(key, "notes"),
            "edited": lambda client, key: client.zadd(key, {"notes": 7}),
        }.items()
    },
    "unindexed": lambda client: client.zrem("blocks:index", NOTES),
    "indexed otherwise": lambda client: (client.zrem("blocks:index", NOTES), client.zadd("blocks:index", {HIDDEN: 0})),
    "indexed twice": lambda client: client.zadd("blocks:index", {HIDDEN: 0}),
    "id edited": lambda client: client.hset("blocks:ids", block_id("notes"), "other"),
    "hash of another type": lambda client: (client.delete("blocks:block:notes"), client.set("blocks:block:notes", "x")),
    "set of another type": lambda client: (
        client.delete("blocks:attached:notes"),
        client.rpush("blocks:attached:notes", "x"),
    ),
}


@pytest.mark.parametrize("damage", BLOCK_DAMAGES)
def test_block_that_differs_is_found_and_mended(bench: Bench, damage: str) -> None:
    """A block the mirror does not show as it is, is found among the others, and written again."""
    heads = [revision(1, "notes", agents=("ann",), value="x"), revision(2, "other", agents=("ann",), value="y")]
    mirror = bench.fresh(*heads)
    assert differing(mirror, heads) == []
    before = without_meta(bench)
    BLOCK_DAMAGES[damage](bench.client)
    assert differing(mirror, heads) == heads[:1]
    mirror.rebuild(heads[:1])
    assert without_meta(bench) == before
    assert differing(mirror, heads) == []


def test_expired_block_is_found(bench: Bench) -> None:
    """A block that someone let expire is missed, and its rewriting has no expiry."""
    heads = [revision(1, value="x")]
    mirror = bench.fresh(*heads)
    bench.client.pexpire("blocks:block:notes", 1)
    eventually(lambda: differing(mirror, heads) == heads, "it has expired")
    mirror.rebuild(heads)
    assert bench.client.ttl("blocks:block:notes") == -1
    assert differing(mirror, heads) == []


INDEX_DAMAGES: dict[str, Callable[[Any], Any]] = {
    "labels evicted": lambda client: client.delete("blocks:labels"),
    "label added": lambda client: client.zadd("blocks:labels", {"stray": 0}),
    "labels of another type": lambda client: (client.delete("blocks:labels"), client.set("blocks:labels", "x")),
    "ids evicted": lambda client: client.delete("blocks:ids"),
    "id added": lambda client: client.hset("blocks:ids", "block-0", "stray"),
    "ids of another type": lambda client: (client.delete("blocks:ids"), client.set("blocks:ids", "x")),
    "count added": lambda client: client.zadd("blocks:counts", {"stray": 0}),
    "creation added": lambda client: client.zadd("blocks:created", {"stray": 0}),
    "update added": lambda client: client.zadd("blocks:updated", {"stray": 0}),
    "member added": lambda client: client.zadd("blocks:index", {"stray\x1fS\x1f\x1estray": 0}),
    "member that is none added": lambda client: client.zadd("blocks:index", {"notes": 0}),
    "agents evicted": lambda client: client.delete("blocks:agents"),
    "agent added": lambda client: client.zadd("blocks:agents", {"stray": 0}),
    "agent renamed": lambda client: (client.zrem("blocks:agents", "ann"), client.zadd("blocks:agents", {"stray": 0})),
    "times of agents evicted": lambda client: client.delete("blocks:agents-created"),
    "time of an agent added": lambda client: client.zadd("blocks:agents-created", {"stray": 0}),
    "time of an agent edited": lambda client: client.zadd("blocks:agents-created", {"ann": 7}),
    "times of agents of another type": lambda client: (
        client.delete("blocks:agents-created"),
        client.set("blocks:agents-created", "x"),
    ),
    "agents of another type": lambda client: (client.delete("blocks:agents"), client.set("blocks:agents", "x")),
    "problems evicted": lambda client: client.delete("blocks:problems"),
    "problem edited": lambda client: client.hset("blocks:problems", "bad.md", "{}"),
    "problem added": lambda client: client.hset("blocks:problems", "stray.md", "{}"),
    "problems of another type": lambda client: (client.delete("blocks:problems"), client.set("blocks:problems", "x")),
}


@pytest.mark.parametrize("damage", INDEX_DAMAGES)
def test_index_that_differs_is_mended(bench: Bench, damage: str) -> None:
    """The lists of blocks, agents and problems are compared and mended; it is told how many were wrong."""
    mirror = bench.fresh(revision(1, "notes", agents=("ann",), value="x"))
    problem = Problem("bad.md", "problem_file", "bad", since=AT)
    mirror.write(
        [*agents_commands({"ann": MADE}, (), mirror.keys), *problem_commands("bad.md", problem, AT, mirror.keys, EPOCH)]
    )
    wanted = (["notes"], frozenset({"ann"}), {"bad.md": problem.dumps()})
    assert repair_index(mirror, *wanted, origins={}, times_of=made_at) == []
    before = without_meta(bench)
    INDEX_DAMAGES[damage](bench.client)
    assert len(repair_index(mirror, *wanted, origins={}, times_of=made_at)) == 1
    assert without_meta(bench) == before


def test_score_in_the_index_is_set_right(bench: Bench) -> None:
    """One wrong score makes the order of all members undefined: each block that cannot be found is written again."""
    heads = [revision(1, "notes", value="x"), revision(2, "other", value="y")]
    mirror = bench.fresh(*heads)
    before = without_meta(bench)
    bench.client.zadd("blocks:index", {NOTES: 7})
    assert heads[0] in differing(mirror, heads)
    mirror.rebuild(differing(mirror, heads))
    assert without_meta(bench) == before
    assert differing(mirror, heads) == []


@pytest.mark.parametrize("key", ["blocks:counts", "blocks:index", "blocks:created", "blocks:updated"])
@pytest.mark.parametrize("damage", ["evicted", "of another type"])
def test_list_that_is_lost_is_filled_again(bench: Bench, key: str, damage: str) -> None:
    """A list of which only the journal knows the contents is filled block by block, once nothing else is in its place."""
    heads = [revision(1, "notes", agents=("ann",), value="x"), revision(2, "other", tags=("a",), value="y")]
    mirror = bench.fresh(*heads)
    mirror.write(agents_commands({"ann": MADE}, (), mirror.keys))
    before = without_meta(bench)
    bench.client.delete(key)
    if damage == "of another type":
        bench.client.set(key, "x")
        assert repair_index(mirror, ["notes", "other"], frozenset({"ann"}), {}, origins={}, times_of=made_at) == [
            key.partition(":")[2]
        ]
    assert differing(mirror, heads) == heads
    mirror.rebuild(heads)
    assert without_meta(bench) == before


def test_index_of_nothing_is_nothing(bench: Bench) -> None:
    """Where there are no blocks, agents and problems, stray ones are removed."""
    mirror = bench.fresh()
    client = bench.client
    client.zadd("blocks:labels", {"stray": 0})
    client.zadd("blocks:agents", {"stray": 0})
    client.hset("blocks:ids", "x", "stray")
    client.hset("blocks:problems", "x", "stray")
    assert len(repair_index(mirror, [], frozenset(), {}, origins={}, times_of=made_at)) == 4
    assert without_meta(bench) == {}


AGENT_DAMAGES: dict[str, Callable[[Any], Any]] = {
    "evicted": lambda client: client.delete("blocks:agent:ann"),
    "edited": lambda client: client.hset("blocks:agent:ann", "notes", "other"),
    "name added": lambda client: client.hset("blocks:agent:ann", "stray", "stray"),
    "of another type": lambda client: (client.delete("blocks:agent:ann"), client.set("blocks:agent:ann", "x")),
}


@pytest.mark.parametrize("damage", AGENT_DAMAGES)
def test_agent_that_differs_is_mended(bench: Bench, damage: str) -> None:
    """What an agent is shown to be attached to is compared and mended; an agent without blocks has no key."""
    mirror = bench.fresh(revision(1, "notes", agents=("ann", "bob"), value="x"))
    wanted = {"ann": {"notes": "notes"}, "bob": {"notes": "notes"}, "cid": {}}
    assert repair_agents(mirror, wanted) == []
    before = without_meta(bench)
    AGENT_DAMAGES[damage](bench.client)
    assert len(repair_agents(mirror, wanted)) == 1
    assert without_meta(bench) == before
    bench.client.hset("blocks:agent:cid", "stray", "stray")
    assert len(repair_agents(mirror, wanted)) == 1
    assert without_meta(bench) == before


def test_stream_that_does_not_end_right_is_removed(bench: Bench) -> None:
    """The stream must end where the mirror stands; one that lost its end, or was added to, gives way to a reset."""
    mirror = bench.fresh()
    assert repair_changes(mirror)
    project(mirror, revision(1, value="x"), revision(2, "other", value="y"))
    assert repair_changes(mirror)
    mirror.announce_reset(AT)
    assert repair_changes(mirror)
    bench.client.xdel("blocks:changes", "2-0", "2-1")
    assert not repair_changes(mirror)
    assert not bench.client.exists("blocks:changes")
    assert not repair_changes(mirror)
    bench.client.set("blocks:changes", "x")
    assert not repair_changes(mirror)
    mirror.announce_reset(AT)
    assert announced(bench.client) == [("2-1", "reset")]
    assert repair_changes(mirror)
    bench.client.xadd("blocks:changes", {"change": "forged"})
    assert not repair_changes(mirror)
    project(mirror, revision(3, "third", value="z"))
    assert announced(bench.client) == [("3-0", "created")]
    assert repair_changes(mirror)
