"""What a mirror does, alike on every server: Valkey, Debian's Redis 7.0 and, as far as it can tell, fakeredis."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import redis

from bench import EPOCH, project, rebuild, without_meta
from blocksd.errors import Damaged, LeaseLost
from blocksd.mirror import aside
from blocksd.mirror.aside import agents_commands, problem_commands, reply_command
from blocksd.mirror.keys import Keys, Place
from blocksd.mirror.projection import change_of, commands_of, fields_of
from blocksd.mirror.repair import differing, repair_agents, repair_index
from blocksd.mirror.view import BlockView
from blocksd.model.attachment import NOBODY
from blocksd.model.block import Block, block_id
from blocksd.model.problem import Problem
from rig import ABOUT, AT, MADE, announced, expected, made_at, revision, shown
from support import BACKENDS, eventually

if TYPE_CHECKING:
    from bench import Bench
    from blocksd.model.revision import Kind

OTHER_EPOCH = "f" * 32
WRONG_TYPES = (
    "block:notes",
    "attached:notes",
    "agent:ann",
    "agents",
    "labels",
    "ids",
    "counts",
    "index",
    "problems",
    "meta",
    "changes",
)


# --- what a block looks like ---


def test_block_is_a_hash_of_texts(bench: Bench) -> None:
    """Lists and maps are JSON, booleans are `true` and `false`, numbers decimal; what is null has no field."""
    new = revision(
        1,
        "system/human",
        agents=("ann", "support-1"),
        value='naïve 🙂\nsecond line\t"quoted" \\ \u2028end',
        description="who",
        limit=4000,
        read_only=True,
        tags=("policy", "ünï"),
        metadata={"owner": "ops", "deep": [1, None, {"x": 1.5}]},
        template_name="t",
    )
    bench.fresh(new)
    assert bench.client.hgetall("blocks:block:system/human") == {
        "label": "system/human",
        "value": 'naïve 🙂\nsecond line\t"quoted" \\ \u2028end',
        "description": "who",
        "limit": "4000",
        "read_only": "true",
        "hidden": "false",
        "tags": '["policy", "ünï"]',
        "metadata": '{"owner": "ops", "deep": [1, null, {"x": 1.5}]}',
        "template_name": "t",
        "is_template": "false",
        "preserve_on_migration": "false",
        "version": "1",
        "digest": new.digest,
        "id": block_id("system/human"),
        "created_at": AT,
        "updated_at": AT,
        "updated_by": "file",
        "chars": "35",
    }


def test_block_comes_back_as_it_was(bench: Bench) -> None:
    """A block read from its hash is the block that was written."""
    block = Block("notes", value="x\r", description="", tags=("a", "b"), metadata={"a": [True, "1"]}, entity_id="1")
    bench.fresh(revision(1, value=block.value, description="", tags=block.tags, metadata=block.metadata, entity_id="1"))
    shown = BlockView(bench.client.hgetall("blocks:block:notes")).as_json()
    assert shown.items() >= json.loads(json.dumps(block.as_json())).items()


def test_field_that_became_null_is_gone(bench: Bench) -> None:
    """An update that takes a description away takes its field away, and leaves the other fields as they are."""
    mirror = bench.fresh(revision(1, value="one", description="d", project_id="p"))
    after = revision(2, kind="updated", version=2, value="two", project_id="p", changed=("value", "description"))
    project(mirror, after)
    assert bench.client.hgetall("blocks:block:notes") == fields_of(after)
    assert not bench.client.hexists("blocks:block:notes", "description")


def test_all_keys_of_two_blocks(bench: Bench) -> None:
    """Labels and agents are sorted sets of score 0, ids lead to labels, and each agent knows its blocks by their names."""
    revisions = [
        revision(1, "notes", agents=("ann", "bob"), value="n"),
        replace(revision(2, "agents/bob/persona", attached=("bob",), value="p"), agents=frozenset({"bob"})),
    ]
    mirror = bench.fresh(*revisions)
    mirror.write(agents_commands({"ann": MADE, "bob": MADE}, (), mirror.keys))
    assert bench.client.hgetall("blocks:agent:bob") == {"notes": "notes", "persona": "agents/bob/persona"}
    assert bench.client.smembers("blocks:attached:agents/bob/persona") == {"bob"}
    heads = [revisions[0], revision(2, "agents/bob/persona", agents=("bob",), value="p")]
    wanted = expected(heads, made_at(("ann", "bob")))
    wanted["blocks:block:agents/bob/persona"]["digest"] = revisions[1].digest
    assert without_meta(bench) == wanted
    assert shown(bench.client)["blocks:meta"] == {**ABOUT, "epoch": EPOCH, "schema": "4", "seq": "2"}


def test_agents_come_and_go(bench: Bench) -> None:
    """The set of a block and the hashes of its agents follow each revision."""
    mirror = bench.fresh(revision(1, agents=("ann", "bob"), value="n"))
    after = revision(
        2,
        kind="updated",
        version=2,
        agents=("bob", "cid"),
        attached=("cid",),
        detached=("ann",),
        value="n",
        changed=("agents",),
    )
    project(mirror, after)
    mirror.write(agents_commands({"bob": MADE, "cid": MADE}, {"ann"}, mirror.keys))
    assert without_meta(bench) == expected([after], made_at(("bob", "cid")))


def test_agent_unknown_again_leaves_the_list(bench: Bench) -> None:
    """The list of known agents is changed by what came and went, and keeps the rest."""
    mirror = bench.fresh()
    mirror.write(agents_commands({"ann": MADE, "bob": MADE}, (), mirror.keys))
    mirror.write(agents_commands({"cid": MADE}, {"ann"}, mirror.keys))
    assert bench.client.zrange("blocks:agents", 0, -1) == ["bob", "cid"]


def test_deleted_block_leaves_nothing(bench: Bench) -> None:
    """Of a deleted block only its changes remain; its agents no longer see it."""
    mirror = bench.fresh(revision(1, agents=("ann",), value="n"), revision(2, "other", agents=("ann",), value="o"))
    project(mirror, revision(3, kind="deleted", version=2, detached=("ann",)))
    assert without_meta(bench) == expected([revision(2, "other", agents=("ann",), value="o")], {})
    assert announced(bench.client)[-1] == ("3-0", "deleted")


def test_block_made_again_goes_on_counting(bench: Bench) -> None:
    """A label deleted and made again is listed again, under the next version."""
    again = revision(3, version=3, value="new")
    bench.fresh(revision(1, value="n"), revision(2, kind="deleted", version=2), again)
    assert without_meta(bench) == expected([again], {})


def test_problem_is_kept_and_announced(bench: Bench) -> None:
    """A problem stands under its subject and travels as `rejected`, its end as `cleared`, both without a seq."""
    mirror = bench.fresh()
    ear = bench.ear("blocks:changes")
    problem = Problem("notes.md", "problem_file", "value is 5 characters, over its limit of 4", "cut it", "notes", 3)
    mirror.write(problem_commands("notes.md", problem, AT, mirror.keys, EPOCH))
    assert json.loads(bench.client.hget("blocks:problems", "notes.md")) == problem.as_json()
    mirror.write(problem_commands("notes.md", None, AT, mirror.keys, EPOCH))
    assert not bench.client.exists("blocks:problems")
    rejected, cleared = ear.changes()
    assert rejected == {
        "kind": "rejected",
        "subject": "notes.md",
        "label": "notes",
        "at": AT,
        "epoch": EPOCH,
        "problem": problem.as_json(),
    }
    assert (cleared["kind"], cleared["subject"]) == ("cleared", "notes.md")
    assert "seq" not in rejected
    assert "seq" not in cleared


# --- how it is written and told ---


def test_one_change_is_one_text_everywhere(bench: Bench) -> None:
    """The stream and every channel a change concerns carry the same JSON: also that of an agent just detached."""
    mirror = bench.fresh(revision(1, agents=("ann", "bob"), value="n"))
    channels = [
        "blocks:changes",
        "blocks:changes:block:notes",
        *(f"blocks:changes:agent:{name}" for name in ("ann", "bob", "cid")),
    ]
    ear = bench.ear(*channels, "blocks:changes:block:other")
    after = revision(
        2,
        kind="updated",
        version=2,
        agents=("bob", "cid"),
        attached=("cid",),
        detached=("ann",),
        value="m",
        changed=("value", "agents"),
    )
    project(mirror, after)
    change = change_of(after, EPOCH)
    assert sorted(ear.messages()) == sorted((channel, change) for channel in channels if not channel.endswith(":bob"))
    assert bench.client.xrange("blocks:changes", "2-0", "2-0") == [("2-0", {"change": change})]


def test_private_block_is_told_to_its_owner(bench: Bench) -> None:
    """Every change of a private block goes to its agent's channel; of a shared one only comings and goings do."""
    label = "agents/ann/human"
    mirror = bench.fresh(
        revision(1, label, attached=("ann",), value="n"), revision(2, "shared", agents=("ann",), value="s")
    )
    ear = bench.ear("blocks:changes:agent:ann")
    project(
        mirror,
        *[
            revision(3, label, kind="updated", version=2, value="m"),
            revision(4, "shared", kind="updated", version=2, agents=("ann",), value="t", changed=("value",)),
        ],
    )
    assert [change["seq"] for change in ear.changes()] == [3]


def test_stream_ids_are_seqs(bench: Bench) -> None:
    """Each change has one entry, called `<seq>-0`, without a gap; a reset at a seq is `<seq>-1`."""
    bench.fresh(*[revision(seq, f"b{seq}", value="v") for seq in range(1, 6)])
    assert announced(bench.client) == [("0-1", "reset"), *((f"{seq}-0", "created") for seq in range(1, 6))]


def test_data_is_there_before_the_notification(bench: Bench) -> None:
    """Whoever reads the mirror on hearing of a version sees that version, or a later one."""
    mirror = bench.fresh(revision(1, value="v1"))
    ear = bench.ear("blocks:changes")
    reader = bench.ear("blocks:changes:block:notes")
    seen: list[tuple[int, int, int]] = []

    def read() -> None:
        client = reader._client
        while len(seen) < 60:
            message = reader._next()
            fields = client.hgetall("blocks:block:notes")
            change = json.loads(message["data"])
            entry = client.xrange("blocks:changes", f"{change['seq']}-0", f"{change['seq']}-0")
            assert entry[0][1]["change"] == message["data"]
            assert fields["value"] == f"v{fields['version']}"
            seen.append((change["version"], int(fields["version"]), int(client.hget("blocks:meta", "seq"))))

    thread = threading.Thread(target=read)
    thread.start()
    for seq in range(2, 62):
        project(mirror, revision(seq, kind="updated", version=seq, value=f"v{seq}"))
    thread.join(20)
    assert [told for told, _, _ in seen] == list(range(2, 62))
    assert all(told <= there and told <= seq for told, there, seq in seen)
    assert len(ear.messages()) == 60


def test_new_blocks_are_shown_together_as_one_by_one(bench: Bench) -> None:
    """With fewer commands; whatever else happens among them, and to the same blocks."""
    properties = Block("agents/ann/agent.yaml", value="{}")
    plans: list[tuple[str, Kind, dict[str, Any]]] = [
        *((f"b{number}", "created", {"agents": ("ann", "bob")[: number % 3]}) for number in range(5)),
        ("b1", "updated", {"value": "2", "tags": ("a",), "version": 2}),
        ("agents/ann/b6", "created", {"agents": ("ann",), "description": "", "metadata": {"a": [1]}}),
        ("b6", "created", {"agents": ("bob",), "limit": 7, "hidden": True, "tags": ("b", "a")}),
        ("b2", "deleted", {"detached": ("ann", "bob"), "version": 2}),
        ("b2", "created", {"agents": ("bob",), "version": 3}),
        ("b7", "created", {"value": "x" * 300_000}),
        ("b8", "created", {"value": "x" * 900_000}),
        ("b9", "created", {"read_only": True}),
    ]
    revisions = [revision(seq, label, kind=kind, **given) for seq, (label, kind, given) in enumerate(plans, 1)]
    revisions.insert(4, replace(revisions[0], label=properties.label, block=properties, agents=NOBODY, attached=()))
    revisions = [replace(one, seq=seq) for seq, one in enumerate(revisions, 1)]
    ear, other_ear = (
        bench.ear("one:changes", "one:changes:agent:bob"),
        bench.ear("many:changes", "many:changes:agent:bob"),
    )
    one_by_one = bench.fresh(namespace="one")
    for one in revisions:
        project(one_by_one, one)
    together = bench.fresh(*revisions, namespace="many")

    def there(namespace: str) -> dict[str, Any]:
        return {key.removeprefix(namespace): content for key, content in shown(bench.client, namespace).items()}

    assert there("many") == there("one")
    assert announced(bench.client, "many") == announced(bench.client, "one")
    assert [(channel[4:], text) for channel, text in other_ear.messages()] == [
        (channel[3:], text) for channel, text in ear.messages()
    ]
    assert together.place == one_by_one.place == Place(EPOCH, len(revisions))


def test_replay_doubles_nothing(bench: Bench) -> None:
    """Revisions whose entries are in the stream already, after a call that was cut short, are not entered again."""
    if bench.name == "fakeredis":
        pytest.skip("fakeredis hands Lua an exception object where every server hands it the error's text")
    revisions = [revision(seq, f"b{seq}", agents=("ann",), value="v") for seq in range(1, 5)]
    mirror = bench.fresh(*revisions)
    before = without_meta(bench)
    bench.client.hset("blocks:meta", "seq", "1")
    again = bench.mirror()
    assert again.take_lease() == Place(EPOCH, 1)
    project(again, *revisions[1:])
    assert announced(bench.client) == [("0-1", "reset"), *((f"{seq}-0", "created") for seq in range(1, 5))]
    assert without_meta(bench) == before
    assert again.place == mirror.place == Place(EPOCH, 4)


def test_projection_needs_its_place(bench: Bench) -> None:
    """Revisions are refused, and nothing at all is written, when the mirror is not where they begin."""
    mirror = bench.fresh(revision(1, value="one"))
    bench.client.hset("blocks:meta", "seq", "5")
    ear = bench.ear("blocks:changes")
    before = shown(bench.client)
    with pytest.raises(LeaseLost, match="has moved"):
        project(mirror, revision(2, "new", agents=("ann",), value="x"))
    assert shown(bench.client) == before
    assert announced(bench.client)[-1] == ("1-0", "created")
    assert ear.messages() == []
    assert mirror.place is None


def test_projection_needs_its_epoch(bench: Bench) -> None:
    """A mirror of another journal is not written, even at the same seq."""
    mirror = bench.fresh(revision(1, value="one"))
    bench.client.hset("blocks:meta", "epoch", OTHER_EPOCH)
    before = shown(bench.client)
    with pytest.raises(LeaseLost):
        project(mirror, revision(2, "new", value="x"))
    assert shown(bench.client) == before


@pytest.mark.parametrize("held", ["an unknown one", f"{OTHER_EPOCH} t2 m1 fd:1"])
def test_projection_needs_the_lease(bench: Bench, held: str) -> None:
    """Without the lease nothing is written: neither revisions, nor agents and problems, nor a rebuild."""
    mirror = bench.fresh(revision(1, value="one"))
    bench.client.set("blocks:lease", held)
    before = shown(bench.client)
    with pytest.raises(LeaseLost, match="another daemon"):
        project(mirror, revision(2, "new", value="x"))
    with pytest.raises(LeaseLost):
        mirror.write(agents_commands({"ann": MADE}, (), mirror.keys))
    with pytest.raises(LeaseLost):
        next(mirror.begin_rebuild())
    with pytest.raises(LeaseLost):
        mirror.rebuild([revision(1, value="one")])
    assert shown(bench.client) == before


@pytest.mark.parametrize("moved", ["seq", "epoch", "all"])
def test_lease_that_is_gone_with_the_mirror(bench: Bench, moved: str) -> None:
    """A lease that is gone is taken again only where the mirror stands as it was left: else it was another daemon's."""
    mirror = bench.fresh(revision(1, value="one"))
    bench.client.delete("blocks:lease")
    if moved == "all":
        bench.client.flushall()
    else:
        bench.client.hset("blocks:meta", moved, "7")
    before = {key: content for key, content in shown(bench.client).items() if key != "blocks:lease"}
    with pytest.raises(LeaseLost, match=r"evicted|moved") as lost:
        project(mirror, revision(2, "new", value="x"))
    assert "another daemon" not in lost.value.message
    mirror.take_lease()
    bench.client.delete("blocks:lease")
    if moved == "epoch":
        with pytest.raises(LeaseLost, match="evicted"):
            mirror.write(agents_commands({"ann": MADE}, (), mirror.keys))
    assert shown(bench.client) == before


# --- the lease ---


def test_lease_is_taken_and_given_up(bench: Bench) -> None:
    """The lease carries epoch and token, expires by itself within ten seconds, and is gone once released."""
    mirror = bench.mirror()
    assert mirror.take_lease() == Place(None, 0)
    assert bench.client.get("blocks:lease") == f"{EPOCH} t1 m1 fd:1"
    assert 9_000 < bench.client.pttl("blocks:lease") <= 10_000
    mirror.release_lease()
    assert not bench.client.exists("blocks:lease")


def test_lease_is_renewed(bench: Bench) -> None:
    """Renewing sets the ten seconds anew, and tells that the mirror is where it was left."""
    mirror = bench.fresh(revision(1, value="one"))
    bench.client.pexpire("blocks:lease", 5_000)
    assert mirror.renew_lease()
    assert bench.client.pttl("blocks:lease") > 9_000


def test_renewing_notices_a_mirror_that_moved(bench: Bench) -> None:
    """Renewing tells when the mirror has another place, or is empty, or another daemon has the lease.

    A lease that has only been evicted, or has run out, is taken again: nobody has written since.
    """
    mirror = bench.fresh(revision(1, value="one"))
    bench.client.hset("blocks:meta", "seq", "0")
    assert not mirror.renew_lease()
    bench.client.hset("blocks:meta", "seq", "1")
    assert mirror.renew_lease()
    lease = bench.client.get("blocks:lease")
    bench.client.delete("blocks:lease")
    assert mirror.renew_lease()
    assert bench.client.get("blocks:lease") == lease
    bench.client.set("blocks:lease", "another daemon's", px=5_000)
    assert not mirror.renew_lease()
    bench.client.delete("blocks:lease")
    bench.client.hset("blocks:meta", "seq", "2")
    assert not mirror.renew_lease()
    bench.client.flushall()
    assert not mirror.renew_lease()


def test_second_daemon_is_refused(bench: Bench) -> None:
    """A namespace that another folder's daemon keeps is refused; the refusal names both: pid, host, directory and ids."""
    bench.fresh(revision(1, value="one"))
    second = bench.mirror(epoch=OTHER_EPOCH, token="t2", directory="/other", host="two", machine="m2", folder_id="fd:2")
    first_named = r"'blocks'.*pid 11 on one, for /srv/blocks\.d \(machine m1, folder fd:1\)"
    with pytest.raises(
        LeaseLost, match=rf"{first_named}; .* on two, for /other \(machine m2, folder fd:2\)"
    ) as refusal:
        second.take_lease()
    holder: Any = refusal.value.facts["holder"]
    assert holder["pid"] == "11"
    assert 0 < second.lease_left() <= 10_000
    assert not second.renew_lease()
    with pytest.raises(LeaseLost):
        second.release_lease()
    assert bench.client.get("blocks:lease") == f"{EPOCH} t1 m1 fd:1"
    assert second.place is None


@pytest.mark.parametrize(
    "about",
    [
        {"epoch": OTHER_EPOCH, "machine": "m2"},
        {"machine": "m2"},
        {"epoch": OTHER_EPOCH, "folder_id": "fd:2"},
        {"machine": "", "folder_id": ""},
    ],
    ids=["equal names on another machine", "a clone, journal and all", "another folder under the path", "in doubt"],
)
def test_lease_is_respected_unless_its_daemon_is_proven_dead(bench: Bench, about: dict[str, str]) -> None:
    """Host name and path say nothing: machines share names. What is no dead daemon's for sure is waited for."""
    bench.fresh(revision(1, value="one"))
    second = bench.mirror(token="t2", **about)
    with pytest.raises(LeaseLost):
        second.take_lease()
    assert bench.client.get("blocks:lease") == f"{EPOCH} t1 m1 fd:1"
    bench.client.delete("blocks:lease")  # as when it has expired
    assert second.take_lease() == Place(EPOCH, 1)


def test_unknown_machine_is_nobodys_twin(bench: Bench) -> None:
    """Two daemons that both cannot tell where they are do not take each other for dead."""
    bench.fresh(machine="", folder_id="")
    with pytest.raises(LeaseLost):
        bench.mirror(token="t2", machine="", folder_id="").take_lease()


@pytest.mark.parametrize("lease", [f"{EPOCH} t0", "nonsense", "a b c d e"])
def test_lease_of_another_form_is_respected(bench: Bench, lease: str) -> None:
    """As an older daemon writes it, say."""
    bench.client.set("blocks:lease", lease, px=10_000)
    with pytest.raises(LeaseLost):
        bench.mirror().take_lease()
    assert bench.client.get("blocks:lease") == lease


def test_refused_daemon_gets_what_was_given_up(bench: Bench) -> None:
    """Once the first has released the lease, or it has run out, the second takes it."""
    first = bench.fresh(revision(1, value="one"))
    second = bench.mirror(epoch=OTHER_EPOCH, token="t2", folder_id="fd:2")
    with pytest.raises(LeaseLost):
        second.take_lease()
    first.release_lease()
    assert second.take_lease() == Place(EPOCH, 1)
    bench.client.pexpire("blocks:lease", 1)
    eventually(lambda: not bench.client.exists("blocks:lease"), "the lease runs out")
    bench.mirror(token="t3").take_lease()
    assert bench.client.get("blocks:lease") == f"{EPOCH} t3 m1 fd:1"


@pytest.mark.parametrize("folder_id", ["fd:1", "fd:2"], ids=["same folder", "folder made anew"])
def test_own_epoch_is_taken_over_at_once(bench: Bench, folder_id: str) -> None:
    """A lease of this very journal, of this machine, is a dead daemon's: its successor need not wait, the dead may not write."""
    dead = bench.fresh(revision(1, value="one"))
    alive = bench.mirror(token="t2", pid="12", folder_id=folder_id)
    assert alive.take_lease() == Place(EPOCH, 1)
    assert bench.client.get("blocks:lease") == f"{EPOCH} t2 m1 {folder_id}"
    with pytest.raises(LeaseLost):
        project(dead, revision(2, "new", value="x"))
    project(alive, revision(2, "new", value="x"))


def test_own_folder_is_taken_over_at_once(bench: Bench) -> None:
    """So is one of the same directory on this machine, whose journal was lost: the folder's lock proves it dead."""
    bench.fresh(revision(1, value="one"))
    alive = bench.mirror(epoch=OTHER_EPOCH, token="t2", pid="12")
    assert alive.take_lease() == Place(EPOCH, 1)
    assert bench.client.get("blocks:lease") == f"{OTHER_EPOCH} t2 m1 fd:1"


def test_successor_puts_its_own_facts_down(bench: Bench) -> None:
    """Who asks the mirror who keeps it is told of the daemon in charge, not of its predecessor."""
    bench.fresh(revision(1, value="one"))
    alive = bench.mirror(token="t2", pid="12")
    alive.take_lease()
    alive.describe()
    assert shown(bench.client)["blocks:meta"] == {**ABOUT, "pid": "12", "epoch": EPOCH, "schema": "4", "seq": "1"}


@pytest.mark.parametrize("key", ["blocks:lease", "blocks:meta"])
def test_taking_heals_what_it_needs(bench: Bench, key: str) -> None:
    """Keys of another type where lease and meta belong keep no daemon out."""
    bench.client.rpush(key, "a list")
    mirror = bench.mirror()
    assert mirror.take_lease() == Place(None, 0)
    assert bench.client.get("blocks:lease") == f"{EPOCH} t1 m1 fd:1"


@pytest.mark.parametrize("seq", ["", "x", "-1", "1.0", "007", "²", "9" * 5000])
def test_nonsense_is_no_place(bench: Bench, seq: str) -> None:
    """A mirror whose seq is none says nothing about where it stands."""
    mirror = bench.fresh(revision(1, value="one"))
    bench.client.hset("blocks:meta", "seq", seq)
    assert not mirror.renew_lease()
    assert mirror.take_lease() == Place(None, 0)


def test_lease_that_never_expires_is_no_daemons(bench: Bench) -> None:
    """Put there by hand, say: it keeps nobody out."""
    bench.client.set("blocks:lease", "forged")
    assert bench.mirror().take_lease() == Place(None, 0)
    assert bench.client.get("blocks:lease") == f"{EPOCH} t1 m1 fd:1"


# --- rebuilding ---


def test_rebuild_writes_all_and_nothing_else(bench: Bench) -> None:
    """A rebuild shows the blocks as they are, and removes what does not belong there, in this namespace alone."""
    mirror = bench.fresh(
        revision(1, "gone", agents=("old",), value="x"), revision(2, "kept", agents=("old",), value="x")
    )
    client = bench.client
    client.hset("blocks:block:stray", "value", "x")
    client.sadd("blocks:attached:stray", "x")
    client.hset("blocks:agent:stray", "x", "x")
    client.hset("blocks:problems", "stray.md", "{}")
    client.hset("blocks2:block:neighbour", "value", "x")
    client.set("blocks", "x")
    heads = [
        revision(9, "kept", agents=("ann", "bob"), value="y"),
        revision(8, "agents/bob/kept2", agents=("bob",), value="z"),
    ]
    rebuild(mirror, heads, seq=9)
    mirror.write(agents_commands({"ann": MADE, "bob": MADE}, (), mirror.keys))
    everything = shown(client)
    assert everything.pop("blocks:meta") == {**ABOUT, "epoch": EPOCH, "schema": "4", "seq": "9"}
    wanted = expected(heads, made_at(("ann", "bob")))
    assert everything == wanted
    assert client.hgetall("blocks2:block:neighbour") == {"value": "x"}
    assert client.get("blocks") == "x"
    assert announced(client) == [("9-1", "reset")]
    assert mirror.place == Place(EPOCH, 9)


def test_reset_is_told_to_all_who_follow(bench: Bench) -> None:
    """On a channel of resets, to which all listen who follow only one block or one agent: nothing need be listed."""
    mirror = bench.fresh()
    ear = bench.ear("blocks:changes", "blocks:changes:reset", "blocks:changes:block:notes", "blocks2:changes")
    rebuild(mirror, [revision(3, value="x")], seq=3)
    messages = ear.messages()
    assert [channel for channel, _ in messages] == ["blocks:changes", "blocks:changes:reset"]
    assert all(json.loads(text) == {"kind": "reset", "seq": 3, "epoch": EPOCH, "at": AT} for _, text in messages)


def test_resets_at_one_seq_are_told_apart(bench: Bench) -> None:
    """A second reset where nothing else has happened gets the next id, and a change after it its own."""
    mirror = bench.fresh(revision(1, value="x"))
    mirror.announce_reset(AT)
    mirror.announce_reset(AT)
    project(mirror, revision(2, kind="updated", version=2, value="y"))
    assert announced(bench.client) == [
        ("0-1", "reset"),
        ("1-0", "created"),
        ("1-1", "reset"),
        ("1-2", "reset"),
        ("2-0", "updated"),
    ]


def test_rebuild_cut_short_has_no_place(bench: Bench) -> None:
    """Between its first step and its last, a mirror says of itself that it is nowhere."""
    mirror = bench.fresh(revision(1, value="x"))
    bench.client.mset({f"blocks:more:{number}": "" for number in range(3000)})
    steps = mirror.begin_rebuild()
    next(steps)
    assert bench.mirror(token="t2").take_lease() == Place(None, 0)


@pytest.mark.parametrize("key", WRONG_TYPES)
@pytest.mark.parametrize("kind", ["string", "list"])
def test_wrong_type_is_healed_by_a_rebuild(bench: Bench, key: str, kind: str) -> None:
    """Whatever key has another type: the projection says Damaged or goes through, and a rebuild makes all good."""
    mirror = bench.fresh(revision(1, agents=("ann",), value="x"))
    bench.client.delete(f"blocks:{key}")
    if kind == "string":
        bench.client.set(f"blocks:{key}", "x")
    else:
        bench.client.rpush(f"blocks:{key}", "x")
    after = revision(
        2, kind="updated", version=2, agents=("ann", "bob"), attached=("bob",), value="y", changed=("value", "agents")
    )
    try:
        project(mirror, after)
    except (Damaged, LeaseLost):
        assert mirror.place is None
    assert mirror.take_lease() is not None
    rebuild(mirror, [after], seq=2)
    repair_index(mirror, ["notes"], frozenset({"ann", "bob"}), {}, origins={}, times_of=made_at)
    assert without_meta(bench) == expected([after], made_at(("ann", "bob")))
    assert mirror.renew_lease()


def test_agents_that_left_are_shown_for_a_while(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the time at which they were created; no more than a bound, and whatever another program put in that place."""
    monkeypatch.setattr(aside, "MOST_DEPARTED", 2)
    mirror = bench.fresh()
    mirror.write(agents_commands({"ann": 1, "bob": 2, "cid": 3, "dan": 4}, (), mirror.keys))
    mirror.write(agents_commands({}, {"ann", "bob", "nobody"}, mirror.keys))
    assert bench.client.hgetall("blocks:departed") == {"ann": "1", "bob": "2"}
    assert bench.client.zrange("blocks:agents-created", 0, -1) == ["cid", "dan"]
    mirror.write(agents_commands({}, {"cid"}, mirror.keys))
    assert bench.client.hgetall("blocks:departed") == {"cid": "3"}
    bench.client.set("blocks:departed", "x")
    mirror.write(agents_commands({}, {"dan"}, mirror.keys))
    assert bench.client.hgetall("blocks:departed") == {"dan": "4"}
    assert 0 < bench.client.ttl("blocks:departed") <= 3600


# --- much at once ---


@pytest.mark.parametrize("bench", BACKENDS, indirect=True)  # fakeredis takes a minute to take 50,000 words apart
def test_ten_thousand_agents_at_once(bench: Bench) -> None:
    """A block may be attached to ten thousand agents by one revision, and be detached from them by another."""
    agents = tuple(f"agent-{number:05d}" for number in range(10_000))
    mirror = bench.fresh()
    ear = bench.ear("blocks:changes:agent:agent-09999")
    new = revision(1, agents=agents, value="x")
    project(mirror, new)
    assert bench.client.scard("blocks:attached:notes") == 10_000
    assert bench.client.hget("blocks:agent:agent-09999", "notes") == "notes"
    mirror.write(agents_commands(made_at(agents), (), mirror.keys))
    assert bench.client.zcard("blocks:agents") == 10_000
    assert differing(mirror, [new]) == []
    project(mirror, revision(2, kind="updated", version=2, value="x", detached=agents, changed=("agents",)))
    assert not bench.client.exists("blocks:attached:notes", "blocks:agent:agent-00000", "blocks:agent:agent-09999")
    assert [change["seq"] for change in ear.changes()] == [1, 2]


@pytest.mark.parametrize("bench", BACKENDS, indirect=True)  # fakeredis takes a minute to take 50,000 words apart
def test_rebuild_with_ten_thousand_agents(bench: Bench) -> None:
    """So may a rebuilt one be."""
    agents = tuple(f"agent-{number:05d}" for number in range(10_000))
    mirror = bench.fresh()
    head = revision(1, agents=agents, value="x")
    rebuild(mirror, [head], seq=1)
    assert repair_index(mirror, ["notes"], frozenset(agents), {}, origins={}, times_of=made_at) == [
        "agents",
        "agents-created",
    ]
    assert differing(mirror, [head]) == []
    assert repair_agents(mirror, {agent: {"notes": "notes"} for agent in agents}) == []


def test_values_of_four_mebibytes(bench: Bench) -> None:
    """The largest value a file can have is mirrored as it is, several of them one after the other, too."""
    values = [f"{number}" + 'ä\n"\\' * (4 * 1024 * 1024 // 5 - 1) for number in range(3)]
    revisions = [revision(seq, f"b{seq}", value=value) for seq, value in enumerate(values, start=1)]
    mirror = bench.fresh(*revisions)
    assert differing(mirror, revisions) == []
    rebuild(mirror, revisions, seq=3)
    assert differing(mirror, revisions) == []
    assert mirror.place == Place(EPOCH, 3)


def test_many_revisions_are_projected_in_order(bench: Bench) -> None:
    """More than one call's worth of revisions comes through whole, each entered and told once."""
    ear = bench.ear("blocks:changes")
    bench.fresh(
        *[
            revision(seq, kind="created" if seq == 1 else "updated", version=seq, value="x" * 300_000 + str(seq))
            for seq in range(1, 13)
        ]
    )
    assert [change["seq"] for change in ear.changes()] == list(range(13))
    assert [entry_id for entry_id, _ in announced(bench.client)] == ["0-1", *(f"{seq}-0" for seq in range(1, 13))]
    assert bench.client.hget("blocks:block:notes", "value").endswith("x12")


def test_namespace_with_a_hash_tag(bench: Bench) -> None:
    """All of a namespace in braces lives under it, beside a namespace of the same name without."""
    bench.fresh(revision(1, "plain", agents=("ann",), value="x"))
    mirror = bench.fresh(revision(1, "tagged", agents=("ann",), value="x"), namespace="{blocks}")
    rebuild(mirror, [revision(1, "tagged", agents=("ann",), value="x")], seq=1)
    assert without_meta(bench, "{blocks}") == expected(
        [revision(1, "tagged", agents=("ann",), value="x")], {}, "{blocks}"
    )
    assert without_meta(bench) == expected([revision(1, "plain", agents=("ann",), value="x")], {})
    assert all(key.startswith(("blocks:", "{blocks}:")) for key in bench.client.scan_iter("*"))


def test_two_namespaces_have_two_daemons(bench: Bench) -> None:
    """Namespaces on one server know nothing of each other."""
    bench.fresh(revision(1, "plain", value="x"))
    other = bench.fresh(revision(1, "plain", value="y"), namespace="blocks2", epoch=OTHER_EPOCH, host="two")
    assert other.renew_lease()
    assert bench.client.hget("blocks:block:plain", "value") == "x"
    assert bench.client.hget("blocks2:block:plain", "value") == "y"


def test_script_is_sent_again_when_the_server_forgot_it(bench: Bench) -> None:
    """NOSCRIPT: after SCRIPT FLUSH, or on another server, the scripts are loaded again without a word."""
    mirror = bench.fresh(revision(1, value="x"))
    bench.client.script_flush()
    project(mirror, revision(2, "other", value="y"))
    bench.client.script_flush()
    assert mirror.renew_lease()


def test_only_commands_of_the_floor_are_used(bench: Bench) -> None:
    """Every command a projection consists of is known to the oldest server that is supported."""
    if bench.name == "fakeredis":
        pytest.skip("fakeredis has no COMMAND INFO, and knows commands no server has")
    new = revision(1, agents=("ann",), value="x", detached=("bob",))
    words = {command[0] for command in commands_of(new, Keys("blocks"), EPOCH)} - {"ANNOUNCE"} | {"XADD", "PUBLISH"}
    known = bench.client.execute_command("COMMAND", "INFO", *sorted(words))
    assert len(known) == len(words)
    assert all(known.values() if isinstance(known, dict) else known)
    with pytest.raises(redis.ResponseError):
        bench.client.execute_command("NO-SUCH-COMMAND")


# --- what belongs to no revision ---


def test_reply_takes_the_place_of_the_entry(bench: Bench) -> None:
    """The reply is there, for a minute, when the entry is gone; an entry nobody can be told of just goes."""
    mirror, client = bench.fresh(), bench.client
    first, second = client.xadd("blocks:inbox:ann", {"request": "1"}), client.xadd("blocks:inbox:ann", {"request": "2"})
    mirror.write([reply_command("ann", first, "r-1", '{"naïve": "🙂"}', mirror.keys)])
    assert client.lrange("blocks:reply:ann:r-1", 0, -1) == ['{"naïve": "🙂"}']
    assert 0 < client.ttl("blocks:reply:ann:r-1") <= 60
    mirror.write([reply_command("ann", first, "r-1", "again", mirror.keys)])
    assert client.lrange("blocks:reply:ann:r-1", 0, -1) == ["again"]
    mirror.write([reply_command("ann", second, None, None, mirror.keys)])
    assert client.xlen("blocks:inbox:ann") == 0


def test_reply_is_given_by_who_is_in_charge(bench: Bench) -> None:
    """Without the lease nothing is replied, and the entry stays."""
    mirror = bench.fresh()
    entry_id = bench.client.xadd("blocks:inbox:ann", {"request": "1"})
    bench.client.set("blocks:lease", "another")
    with pytest.raises(LeaseLost):
        mirror.write([reply_command("ann", entry_id, "r-1", "x", mirror.keys)])
    assert bench.client.xlen("blocks:inbox:ann") == 1
    assert not bench.client.exists("blocks:reply:ann:r-1")


@pytest.mark.parametrize("spoilt", ["blocks:inbox:ann", "blocks:reply:ann:r-1"])
def test_reply_where_an_actor_spoilt_its_keys(bench: Bench, spoilt: str) -> None:
    """What else is in the same call is done all the same."""
    mirror = bench.fresh()
    bench.client.set(spoilt, "mine")
    commands = [reply_command("ann", "1-0", "r-1", "x", mirror.keys), ("SADD", "blocks:source-agents:m", "ann")]
    mirror.write(commands)
    assert bench.client.lrange("blocks:reply:ann:r-1", 0, -1) == ["x"]
    assert bench.client.smembers("blocks:source-agents:m") == {"ann"}


def test_much_is_noted_in_several_calls(bench: Bench) -> None:
    """No call is so long that others would wait for it."""
    mirror = bench.fresh()
    mirror.write([("HSET", "blocks:file:m/a", f"f{number}", "x" * 300_000) for number in range(10)])
    assert bench.client.hlen("blocks:file:m/a") == 10
    mirror.write([])


def test_questions_are_answered_each_for_itself(bench: Bench) -> None:
    """One about a key of another type is answered with an error, and the others are answered."""
    mirror = bench.fresh()
    bench.client.set("blocks:open:ann", "x")
    bench.client.sadd("blocks:source-agents:m", "ann")
    spoilt, agents, nothing = mirror.read_many(
        [("HGETALL", "blocks:open:ann"), ("SMEMBERS", "blocks:source-agents:m"), ("HGETALL", "blocks:sources")]
    )
    assert isinstance(spoilt, redis.ResponseError)
    assert (agents, nothing) == ({"ann"}, {})


def test_rebuild_leaves_what_actors_wrote(bench: Bench) -> None:
    """Requests that wait and replies that were not fetched are none of the mirror's; all it shows of sources is."""
    mirror = bench.fresh()
    client = bench.client
    client.xadd("blocks:inbox:ann", {"request": "1"})
    client.rpush("blocks:reply:ann:r-1", "x")
    for key in ("sources", "source:m", "file:m/a", "open:ann"):
        client.hset(f"blocks:{key}", "x", "y")
    client.sadd("blocks:source-agents:m", "ann")
    client.set("blocksmith:file:m/a", "another's")
    rebuild(mirror, [], seq=0)
    assert sorted(client.scan_iter("blocks*")) == [
        "blocks:changes",
        "blocks:inbox:ann",
        "blocks:lease",
        "blocks:meta",
        "blocks:reply:ann:r-1",
        "blocksmith:file:m/a",
    ]
