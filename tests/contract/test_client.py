"""What programs read and hear through the client: blocks as they are, and every change once and in order."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from blocksd import client as client_module
from blocksd.block import Block, block_id
from blocksd.client import Client
from blocksd.errors import NotFound, Unavailable
from rig import Rig
from support import RedisServer, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blocksd.revision import Change


@pytest.fixture
def server(any_server: RedisServer) -> RedisServer:
    """All of this must hold on every kind of server."""
    return any_server


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is doubted sooner than in life."""
    monkeypatch.setattr(client_module, "_SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(client_module, "_LISTEN_SECONDS", 0.05)


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    looking: Any = server.client()
    yield looking
    looking.close()


@pytest.fixture
def rig(tmp_path: Path, server: RedisServer) -> Iterator[Rig]:
    made = Rig(tmp_path / "one", server.url)
    made.write("notes", "---\nagents: [ann, bob]\ndescription: d\ntags: [x]\nmetadata: {a: [1]}\n---\none\n")
    made.write("agents/ann/persona", "I am Ann.\n")
    made.write("bad", "---\nlimit: none\n---\n")
    made.settle()
    yield made
    made.crash()


@pytest.fixture
def client(server: RedisServer) -> Iterator[Client]:
    made = Client(server.url)
    yield made
    made.close()


class Watcher:
    """A program that follows the changes, in a thread of its own."""

    def __init__(self, server: RedisServer, **options: Any) -> None:
        self._server = server
        self._client = Client(server.url)
        self._watch = self._client.watch(**options)
        # What every watch passes on, though it is no change: it concerns the block, or the agent.
        self._signal = {"kind": "cleared", "label": options.get("label", "signal"), "attached": [options.get("agent")]}
        self._signals = {"begin": threading.Event(), "end": threading.Event()}
        self.error: Exception | None = None
        self.heard: list[Change] = []
        threading.Thread(target=self._follow, daemon=True).start()
        eventually(self.is_subscribed, "it has subscribed")
        self._send("begin")  # heard after all that is caught up with

    def is_subscribed(self) -> bool:
        looking = self._server.client()
        try:
            return self.error is not None or bool(looking.pubsub_numsub("blocks:changes")[0][1])
        finally:
            looking.close()

    def _send(self, signal: str) -> None:
        looking = self._server.client()
        text = json.dumps({**self._signal, "signal": signal})
        eventually(
            lambda: looking.publish("blocks:changes", text) is None or self._signals[signal].wait(0.1),
            f"the watch passes on {signal}; it failed with {self.error}",
        )
        looking.close()

    def _follow(self) -> None:
        try:
            for change in self._watch:
                signal = change.raw.get("signal")
                if signal is None:
                    self.heard.append(change)
                elif signal in self._signals:
                    self._signals[signal].set()
                    if signal == "end":
                        break
        except Unavailable as error:
            self.error = error
            self._signals["begin"].set()
            self._signals["end"].set()
        self._watch.close()  # type: ignore[attr-defined]

    def until(self, seq: int) -> list[tuple[str, int | None]]:
        """All that was heard, once it includes this seq: kind and seq."""
        eventually(lambda: any((change.seq or 0) >= seq for change in list(self.heard)), f"seq {seq} is heard")
        return self.all()

    def all(self) -> list[tuple[str, int | None]]:
        return [(change.kind, change.seq) for change in self.heard]

    def close(self) -> None:
        self._send("end")
        self._client.close()


@pytest.fixture
def watch(server: RedisServer) -> Iterator[Callable[..., Watcher]]:
    watchers: list[Watcher] = []

    def start(**options: Any) -> Watcher:
        watchers.append(Watcher(server, **options))
        return watchers[-1]

    yield start
    for watcher in watchers:
        watcher.close()


def in_order(heard: list[tuple[str, int | None]]) -> bool:
    """Whether the changes heard are gap-free, each once."""
    seqs = [seq for kind, seq in heard if kind != "reset" and seq is not None]
    return seqs == list(range(seqs[0], seqs[0] + len(seqs)))


# --- reading ---


def test_block_is_retrieved_as_it_is(rig: Rig, client: Client) -> None:
    """A block comes with all its fields, the ids attached to it, and what its revision says."""
    shown = client.retrieve("notes")
    newest = rig.journal.head("notes")
    assert newest is not None
    assert shown.block == Block(
        "notes", "one", description="d", tags=("x",), metadata={"a": [1]}, agents=("ann", "bob")
    )
    assert (shown.version, shown.digest, shown.id) == (1, newest.digest, block_id("notes"))
    assert (shown.created_at, shown.updated_at, shown.updated_by) == (newest.created_at, newest.at, "file")
    assert shown.as_json()["chars"] == 3
    assert json.loads(json.dumps(shown.as_json()))["agents"] == ["ann", "bob"]


def test_many_blocks_are_retrieved_at_once(rig: Rig, client: Client) -> None:
    """Many are asked for in few round trips; those that are not there are left out, the others keep their order."""
    for number in range(600):
        rig.write(f"b{number:03}", f"{number}\n")
    rig.settle()
    shown = client.retrieve_many(["notes", "nothing", *(f"b{number:03}" for number in range(600)), "gone"])
    assert [one.block.label for one in shown] == ["notes", *(f"b{number:03}" for number in range(600))]
    assert client.retrieve_many([]) == []


def test_what_is_not_there_is_not_found(rig: Rig, client: Client) -> None:
    """No block, no agent: that is said, with what was asked for."""
    with pytest.raises(NotFound) as missing:
        client.retrieve("nothing")
    assert missing.value.facts == {"label": "nothing"}
    with pytest.raises(NotFound) as missing:
        client.blocks_of("nobody")
    assert missing.value.facts == {"agent": "nobody"}
    rig.write("notes", "alone\n")
    rig.settle()
    with pytest.raises(NotFound):
        client.blocks_of("bob")


def test_half_evicted_block_is_no_block(rig: Rig, client: Client, raw: Any) -> None:
    """A block the mirror shows only a part of, until it is repaired, is Unavailable: neither absent nor half a block."""
    raw.delete("blocks:block:notes")
    rig.save_and_settle("notes", "---\nagents: [ann, bob]\ndescription: d\ntags: [x]\nmetadata: {a: [1]}\n---\ntwo\n")
    with pytest.raises(Unavailable, match="notes"):
        client.retrieve("notes")
    rig.resync()
    assert client.retrieve("notes").block.value == "two"


@pytest.mark.parametrize("key", ["block:notes", "attached:notes", "labels", "agents", "agent:ann", "problems", "meta"])
def test_damaged_mirror_is_unavailable(rig: Rig, client: Client, raw: Any, key: str) -> None:
    """A key of another type, until it is mended, is said to be unavailable, in words of our own."""
    raw.delete(f"blocks:{key}")
    raw.set(f"blocks:{key}", "x")
    ask: dict[str, Callable[[], object]] = {
        "labels": client.labels,
        "agents": client.agents,
        "agent:ann": lambda: client.blocks_of("ann"),
        "problems": client.problems,
        "meta": client.meta,
    }
    with pytest.raises(Unavailable):
        ask.get(key, lambda: client.retrieve("notes"))()
    rig.resync()
    ask.get(key, lambda: client.retrieve("notes"))()


def test_since_a_reset_is_told_of_it(rig: Rig, watch: Callable[..., Watcher]) -> None:
    """Who resumes where the mirror was built anew cannot know whether that was before or after: it is told to read."""
    start = rig.journal.seq
    rig.save_and_settle("agents/ann/persona", "two\n")
    assert watch(since=start).until(start + 1) == [("reset", start), ("updated", start + 1)]


def test_lists(rig: Rig, client: Client) -> None:
    """Labels and agents come in order; an agent's blocks by its own names; problems by path."""
    rig.write("agents/zoe/persona", "I am Zoe.\n")
    rig.write("also bad", "x\n")
    rig.core.intake.hint_all()  # the folder of an agent is seen by a sweep
    rig.settle()
    assert client.labels() == ["agents/ann/persona", "agents/zoe/persona", "notes"]
    assert client.agents() == ["ann", "bob", "zoe"]
    assert client.blocks_of("ann") == {"notes": "notes", "persona": "agents/ann/persona"}
    assert [problem["subject"] for problem in client.problems()] == ["also bad.md", "bad.md"]
    assert client.counts() == {"blocks": 3, "agents": 3, "problems": 2}
    assert client.meta()["seq"] == str(rig.journal.seq)
    assert client.is_kept()
    rig.close()
    assert not client.is_kept()


def test_agent_without_blocks_has_none(rig: Rig, client: Client) -> None:
    """A known agent that nothing is attached to has no blocks: that is not an error."""
    (rig.root / "agents" / "idle").mkdir()
    rig.core.intake.hint_all()
    rig.settle()
    assert client.blocks_of("idle") == {}


def test_server_that_is_down_is_unavailable(server: RedisServer, client: Client) -> None:
    """Every method says so, and so does a watch that never began."""
    server.kill()
    for ask in (client.labels, client.agents, client.problems, client.meta, client.counts, client.is_kept):
        with pytest.raises(Unavailable):
            ask()
    with pytest.raises(Unavailable):
        client.retrieve("notes")
    with pytest.raises(Unavailable):
        next(client.watch())


# --- following ---


def test_every_change_once_in_order(rig: Rig, watch: Callable[..., Watcher]) -> None:
    """A watch passes on each change from the moment it began, and nothing from before."""
    first = rig.journal.seq + 1
    watcher = watch()
    for number in range(20):
        rig.save_and_settle("agents/ann/persona", f"{number}\n")
    assert watcher.until(rig.journal.seq) == [("updated", seq) for seq in range(first, first + 20)]


def test_no_reset_from_before(rig: Rig, watch: Callable[..., Watcher]) -> None:
    """A mirror that was built before the watch began is no news to it, however long nothing happens."""
    watcher = watch()
    eventually(lambda: _has_doubted(rig, watcher), "it has looked after a silence")
    rig.save_and_settle("agents/ann/persona", "two\n")
    assert watcher.until(rig.journal.seq) == [("updated", rig.journal.seq)]


def _has_doubted(rig: Rig, watcher: Watcher) -> bool:
    """Whether the watch has read the stream of its own accord: seen by what the server counts."""
    calls = rig.client.info("commandstats").get("cmdstat_xrange", {}).get("calls", 0)
    return bool(calls >= 2) and watcher.error is None


def test_problems_are_passed_on(rig: Rig, watch: Callable[..., Watcher]) -> None:
    """Problems come and go among the changes, without a number."""
    watcher = watch()
    rig.write("worse", "---\nlimit: none\n---\n")
    rig.settle()
    rig.save_and_settle("worse", "good\n")
    watcher.until(rig.journal.seq)
    eventually(lambda: len(watcher.heard) == 3)
    assert [kind for kind, _ in watcher.all()] == ["rejected", "created", "cleared"]
    assert watcher.heard[0].raw["problem"]["subject"] == "worse.md"


def test_since_resumes(rig: Rig, watch: Callable[..., Watcher]) -> None:
    """With `since`, what was missed comes first, then what happens; from any point that the stream still has."""
    start = rig.journal.seq
    for number in range(5):
        rig.save_and_settle("agents/ann/persona", f"{number}\n")
    watcher = watch(since=start + 2)
    watcher.until(start + 5)
    rig.save_and_settle("agents/ann/persona", "last\n")
    assert watcher.until(start + 6) == [("updated", seq) for seq in range(start + 3, start + 7)]


def test_since_the_newest_is_silent(rig: Rig, watch: Callable[..., Watcher]) -> None:
    """Who has seen everything hears only what comes."""
    rig.save_and_settle("agents/ann/persona", "two\n")
    watcher = watch(since=rig.journal.seq)
    rig.save_and_settle("agents/ann/persona", "three\n")
    assert watcher.until(rig.journal.seq) == [("updated", rig.journal.seq)]


def test_long_gap_is_read_in_pages(rig: Rig, watch: Callable[..., Watcher]) -> None:
    """However much was missed, it comes whole and in order."""
    rig.save_and_settle("notes", "alone\n")
    start = rig.journal.seq
    for number in range(1300):
        rig.write(f"b{number}", "x\n")
    rig.settle()
    heard = watch(since=start).until(rig.journal.seq)
    assert heard == [("created", seq) for seq in range(start + 1, start + 1301)]


def test_trimmed_stream_is_a_reset(rig: Rig, raw: Any, watch: Callable[..., Watcher]) -> None:
    """Who asks for what the stream has no longer is told to read everything again, and then hears the rest."""
    start = rig.journal.seq
    for number in range(6):
        rig.save_and_settle("agents/ann/persona", f"{number}\n")
    raw.xtrim("blocks:changes", maxlen=2, approximate=False)
    heard = watch(since=start + 1).until(start + 6)
    assert heard == [("reset", start + 4), ("updated", start + 5), ("updated", start + 6)]


def test_since_the_future_is_a_reset(rig: Rig, watch: Callable[..., Watcher]) -> None:
    """Who has seen more than there is has seen another journal's: read everything again."""
    seq = rig.journal.seq
    watcher = watch(since=seq + 100)
    eventually(lambda: watcher.heard)
    assert watcher.all() == [("reset", seq)]
    rig.save_and_settle("agents/ann/persona", "two\n")
    assert watcher.until(seq + 1) == [("reset", seq), ("updated", seq + 1)]


def test_lost_messages_are_caught_up(rig: Rig, raw: Any, watch: Callable[..., Watcher]) -> None:
    """Changes whose messages were lost come after a silence; those that are heard after a gap, in order with it."""
    first = rig.journal.seq + 1
    watcher = watch()
    raw.client_kill_filter(_type="pubsub")
    rig.save_and_settle("agents/ann/persona", "one\n")
    watcher.until(first)
    for number in range(10):
        raw.client_kill_filter(_type="pubsub")
        rig.save_and_settle("agents/ann/persona", f"again {number}\n")
    assert watcher.until(first + 10) == [("updated", seq) for seq in range(first, first + 11)]


def test_gap_is_noticed_by_the_next_message(
    rig: Rig, raw: Any, watch: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that is not the next one makes the watch read what is between, without waiting for a silence."""
    monkeypatch.setattr(client_module, "_SILENCE_SECONDS", 3600.0)
    watcher = watch()
    first = rig.journal.seq + 1
    for seq in range(first, first + 3):
        change = json.dumps({"kind": "updated", "seq": seq, "label": "notes", "epoch": rig.journal.epoch})
        raw.xadd("blocks:changes", {"change": change}, id=f"{seq}-0")
        raw.hset("blocks:meta", "seq", str(seq))
    raw.publish("blocks:changes", change)  # of the last alone
    assert watcher.until(first + 2) == [("updated", seq) for seq in range(first, first + 3)]


@pytest.mark.parametrize("saved", ["while away", "after"])
def test_server_restarted_with_its_data(
    tmp_path: Path, server: RedisServer, watch: Callable[..., Watcher], saved: str
) -> None:
    """After kill and restart of a server that keeps its data, each change is heard, once, without a reset."""
    keeping = ("--appendonly", "yes", "--appendfsync", "always")
    server.kill()
    server.start(*keeping)
    rig = Rig(tmp_path / "kept", server.url)
    rig.write("notes", "one\n")
    rig.settle()
    watcher = watch()
    rig.save_and_settle("notes", "two\n")
    watcher.until(2)
    server.kill()
    if saved == "while away":
        rig.write("notes", "three\n")
        rig.run(lambda: rig.journal.seq == 3)
    server.start(*keeping)
    rig.settle()
    if saved != "while away":
        rig.save_and_settle("notes", "three\n")
    assert watcher.until(3) == [("updated", 2), ("updated", 3)]
    rig.crash()


def test_server_restarted_empty_is_a_reset(rig: Rig, server: RedisServer, watch: Callable[..., Watcher]) -> None:
    """After kill and restart of a server that keeps nothing, a reset tells to read everything again."""
    watcher = watch()
    rig.save_and_settle("agents/ann/persona", "two\n")
    seq = rig.journal.seq
    watcher.until(seq)
    server.kill()
    server.start()
    rig.settle()
    eventually(lambda: ("reset", seq) in watcher.all(), "the reset is heard")
    rig.save_and_settle("agents/ann/persona", "three\n")
    assert watcher.until(seq + 1) == [("updated", seq), ("reset", seq), ("updated", seq + 1)]


def test_each_reset_is_heard(rig: Rig, server: RedisServer, watch: Callable[..., Watcher]) -> None:
    """Also the second time the mirror is built at the same seq while nobody listens, that is told."""
    watcher = watch()
    for times in range(1, 4):
        server.kill()
        server.start()
        rig.settle()
        eventually(lambda times=times: len(watcher.heard) >= times, "the reset is heard")  # type: ignore[misc]
    assert watcher.all() == [("reset", rig.journal.seq)] * 3


def test_flushed_mirror_is_a_reset(rig: Rig, raw: Any, watch: Callable[..., Watcher]) -> None:
    """FLUSHALL, and the mirror built again: one reset, then changes as before; also for who follows one block or agent."""
    everything, block, agent = watch(), watch(label="agents/ann/persona"), watch(agent="ann")
    raw.flushall()
    rig.settle()
    seq = rig.journal.seq
    rig.save_and_settle("agents/ann/persona", "two\n")
    for watcher in (everything, block, agent):
        assert watcher.until(seq + 1) == [("reset", seq), ("updated", seq + 1)]


def test_repaired_mirror_is_a_reset(rig: Rig, raw: Any, watch: Callable[..., Watcher]) -> None:
    """A mirror that was found damaged and repaired is read again by all who follow it."""
    watcher = watch()
    raw.hset("blocks:block:notes", "value", "forged")
    rig.resync()
    eventually(lambda: watcher.heard)
    assert watcher.all() == [("reset", rig.journal.seq)]


def test_another_journal_is_a_reset(
    rig: Rig, tmp_path: Path, server: RedisServer, watch: Callable[..., Watcher]
) -> None:
    """When another journal takes the namespace over, numbers begin anew, after a reset."""
    watcher = watch()
    rig.close()
    other = Rig(tmp_path / "two", server.url)
    other.write("notes", "x\n")
    other.settle()
    other.save_and_settle("notes", "y\n")
    eventually(lambda: watcher.heard and watcher.heard[-1].seq == 2 and watcher.heard[-1].kind == "updated")
    assert watcher.heard[0].kind == "reset"
    assert {change.epoch for change in watcher.heard} == {other.journal.epoch}
    assert in_order(watcher.all())
    other.crash()


def test_watch_begins_before_the_daemon(tmp_path: Path, server: RedisServer, watch: Callable[..., Watcher]) -> None:
    """A watch of a namespace nobody keeps yet waits, also through a restart of the server, and hears what comes."""
    watcher = watch()
    server.kill()
    server.start()
    eventually(watcher.is_subscribed, "it has subscribed again")
    rig = Rig(tmp_path / "late", server.url)
    rig.write("notes", "one\n")
    rig.settle()
    rig.save_and_settle("notes", "two\n")
    eventually(lambda: ("updated", 2) in watcher.all() or watcher.error)
    assert watcher.error is None
    assert in_order(watcher.all())
    rig.crash()


# --- filters ---


def test_following_one_block(rig: Rig, watch: Callable[..., Watcher]) -> None:
    """With `label`, only that block's changes are passed on: from its creation to its deletion, and creation again."""
    watcher = watch(label="new")
    rig.save_and_settle("notes", "---\nagents: [ann, bob]\n---\ntwo\n")
    rig.save_and_settle("new", "one\n")
    rig.save_and_settle("agents/ann/persona", "two\n")
    rig.remove("new")
    rig.settle()
    rig.save_and_settle("new", "again\n")
    watcher.until(rig.journal.seq)
    assert [(change.kind, change.label, change.raw["version"]) for change in watcher.heard] == [
        ("created", "new", 1),
        ("deleted", "new", 2),
        ("created", "new", 3),
    ]


def test_following_one_agent(rig: Rig, watch: Callable[..., Watcher]) -> None:
    """With `agent`, the changes of the blocks attached to it: also the one by which a block comes or goes."""
    watcher = watch(agent="ann")
    rig.save_and_settle("notes", "---\nagents: [ann, bob]\n---\ntwo\n")  # attached from the beginning
    rig.save_and_settle("other", "---\nagents: [bob]\n---\none\n")  # not hers
    rig.save_and_settle("other", "---\nagents: [bob, ann]\n---\none\n")  # comes
    rig.save_and_settle("other", "---\nagents: [bob, ann]\n---\ntwo\n")
    rig.save_and_settle("other", "---\nagents: [bob]\n---\ntwo\n")  # goes
    rig.save_and_settle("other", "---\nagents: [bob]\n---\nthree\n")  # not hers any more
    rig.save_and_settle("agents/ann/human", "h\n")
    rig.save_and_settle("agents/ann/human", "i\n")
    rig.remove("agents/ann/human")
    rig.settle()
    watcher.until(rig.journal.seq)
    assert [(change.kind, change.label) for change in watcher.heard] == [
        ("updated", "notes"),
        ("updated", "other"),
        ("updated", "other"),
        ("updated", "other"),
        ("created", "agents/ann/human"),
        ("updated", "agents/ann/human"),
        ("deleted", "agents/ann/human"),
    ]
    assert watcher.heard[3].raw["detached"] == ["ann"]


def test_following_one_agent_through_a_gap(rig: Rig, raw: Any, watch: Callable[..., Watcher]) -> None:
    """What came and went while the connection was lost is passed on all the same, comings and goings included."""
    watcher = watch(agent="ann")
    seq = rig.journal.seq
    rig.save_and_settle("agents/ann/persona", "two\n")
    watcher.until(seq + 1)
    raw.client_kill_filter(_type="pubsub")
    rig.save_and_settle("other", "---\nagents: [ann]\n---\none\n")
    rig.save_and_settle("other", "---\nagents: [ann]\n---\ntwo\n")
    rig.save_and_settle("other", "alone\n")
    rig.save_and_settle("other", "three\n")
    rig.save_and_settle("agents/ann/persona", "three\n")
    watcher.until(rig.journal.seq)
    assert [(change.label, change.seq) for change in watcher.heard] == [
        ("agents/ann/persona", seq + 1),
        ("other", seq + 2),
        ("other", seq + 3),
        ("other", seq + 4),
        ("agents/ann/persona", seq + 6),
    ]


def test_following_one_agent_since(rig: Rig, watch: Callable[..., Watcher]) -> None:
    """With `agent` and `since`, nothing that concerned the agent then is left out, though it is detached by now."""
    rig.save_and_settle("agents/ann/persona", "one\n")
    start = rig.journal.seq
    rig.save_and_settle("other", "---\nagents: [ann]\n---\none\n")
    rig.save_and_settle("other", "---\nagents: [ann]\n---\ntwo\n")
    rig.save_and_settle("other", "alone\n")
    rig.save_and_settle("agents/ann/persona", "two\n")
    watcher = watch(agent="ann", since=start)
    watcher.until(start + 4)
    assert [change.seq for change in watcher.heard] == [start + 1, start + 2, start + 3, start + 4]
    late = watch(agent="ann", since=start + 1)
    late.until(start + 4)
    assert [change.seq for change in late.heard] == [start + 2, start + 3, start + 4]
