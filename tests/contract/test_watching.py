"""Every change once, in order and without a gap: blocking and asyncio watches, on real servers, whatever happens."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from blocksd import AsyncClient, AsyncWatch, Client, Reset
from blocksd.client import watch as watch_module
from blocksd.errors import InvalidLabel, Misconfigured, Unavailable
from blocksd.protocol import watching as watching_module
from blocksd.protocol import wire
from blocksd.protocol.driver import Driver
from following import Between, Follower, Scope, client_of
from rig import Rig
from support import DEADLINE, RedisServer, binary_of, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blocksd import Item

ANN = "agents/ann/persona"
ENDLESS = 3600.0
EVERY = {"everything": {}, "a block": {"label": ANN}, "an agent": {"agent": "ann"}}


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is doubted sooner than in life."""
    monkeypatch.setattr(watching_module, "LISTEN_SECONDS", 0.02)
    monkeypatch.setattr(watching_module, "PROVE_SECONDS", 0.2)
    monkeypatch.setattr(watching_module, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(wire, "REPLY_SECONDS", 0.4)


@pytest.fixture(params=[("valkey", "blocking"), ("redis", "asyncio")], ids="-".join)
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Server and way of following; who listens makes no difference to what a server of the other kind says."""
    pair: tuple[str, str] = request.param
    return pair


@pytest.fixture
def way(kind: tuple[str, str]) -> str:
    return kind[1]


@pytest.fixture
def emptied(kind: tuple[str, str], standing_server: Callable[[str], RedisServer]) -> RedisServer:
    """A server with nothing on it, that stays."""
    return standing_server(kind[0])


@pytest.fixture
def server(kind: tuple[str, str]) -> Iterator[RedisServer]:
    """A server that may be killed."""
    mortal = RedisServer(binary_of(kind[0]))
    mortal.start()
    yield mortal
    mortal.remove()


@pytest.fixture
def raw(emptied: RedisServer) -> Iterator[Any]:
    looking: Any = emptied.client()
    yield looking
    looking.close()


@pytest.fixture
def rig(tmp_path: Path, emptied: RedisServer) -> Iterator[Rig]:
    yield from begun(tmp_path, emptied)


@pytest.fixture
def rig_on_mortal(tmp_path: Path, server: RedisServer) -> Iterator[Rig]:
    """The same, on a server that may be killed."""
    yield from begun(tmp_path, server)


def begun(tmp_path: Path, server: RedisServer) -> Iterator[Rig]:
    made = Rig(tmp_path / "one", server.url)
    made.write("notes", "---\nagents: [ann, bob]\n---\none\n")
    made.write(ANN, "I am Ann.\n")
    made.settle()
    yield made
    made.crash()


@pytest.fixture
def follow(way: str) -> Iterator[Callable[..., Follower]]:
    """Start to follow the changes on a server."""
    followers: list[Follower] = []

    def start(server: RedisServer | Between, **options: Any) -> Follower:
        followers.append(Follower(way, server.url, **options))
        return followers[-1]

    yield start
    for follower in followers:
        follower.close()


@pytest.fixture
def watch(emptied: RedisServer, follow: Callable[..., Follower]) -> Callable[..., Follower]:
    return lambda **options: follow(emptied, **options)


@pytest.fixture
def between(emptied: RedisServer) -> Iterator[Between]:
    made = Between(emptied.socket)
    yield made
    made.close()


@pytest.fixture
def client(way: str, rig: Rig) -> Iterator[Client]:
    with client_of(way, rig.url) as made:
        yield made


def told(items: list[Item]) -> list[tuple[str, int | None]]:
    return [(item.kind, item.seq) for item in items]


# --- from the beginning ---


def test_every_change_once_in_order(rig: Rig, watch: Callable[..., Follower]) -> None:
    """A watch passes on each change from the moment it was made, and nothing from before."""
    first = rig.journal.seq + 1
    follower = watch()
    for number in range(20):
        rig.save_and_settle(ANN, f"{number}\n")
    assert follower.until(rig.journal.seq) == [("updated", seq) for seq in range(first, first + 20)]


def test_change_tells_what_happened(rig: Rig, watch: Callable[..., Follower]) -> None:
    """A change names the block, its version, what of it changed, who came and went, by whom, and when."""
    follower = watch()
    rig.save_and_settle("notes", "---\nagents: [bob, cat]\nlimit: 4000\n---\none\n")
    follower.until(rig.journal.seq)
    (change,) = follower.heard
    assert not isinstance(change, Reset)
    newest = rig.journal.head("notes")
    assert newest is not None
    assert (change.kind, change.label, change.version, change.author) == ("updated", "notes", 2, "file")
    assert (change.attached, change.detached, set(change.fields)) == (("cat",), ("ann",), {"limit", "agents"})
    assert (change.seq, change.epoch, change.at) == (newest.seq, rig.journal.epoch, newest.at)
    assert change.request_id is None


def test_what_happens_after_it_was_made_is_in_it(rig: Rig, client: Client) -> None:
    """A change that is made before anyone asks for the first item is not lost."""
    with client.watch() as everything, client.watch(agent="ann") as ann, client.watch(label=ANN) as block:
        rig.save_and_settle(ANN, "two\n")
        for one in (everything, ann, block):
            assert next(one).seq == rig.journal.seq
            assert one.place == (rig.journal.epoch, rig.journal.seq)


def test_no_reset_from_before(rig: Rig, watch: Callable[..., Follower], raw: Any) -> None:
    """A mirror that was built before the watch began is no news to it, however long nothing happens."""
    follower = watch()
    before = pings(raw)
    eventually(lambda: pings(raw) >= before + 2, "it has proved its subscription after a silence")
    rig.save_and_settle(ANN, "two\n")
    assert follower.until(rig.journal.seq) == [("updated", rig.journal.seq)]


def pings(raw: Any) -> int:
    calls: int = raw.info("commandstats").get("cmdstat_ping", {}).get("calls", 0)
    return calls


def test_problems_are_passed_on(rig: Rig, watch: Callable[..., Follower]) -> None:
    """Problems come and go among the changes, without a number."""
    follower = watch()
    rig.write("worse", "---\nlimit: none\n---\n")
    rig.settle()
    rig.save_and_settle("worse", "good\n")
    eventually(lambda: len(follower.heard) == 3)
    assert [kind for kind, _ in follower.all()] == ["rejected", "created", "cleared"]
    rejected = follower.heard[0]
    assert not isinstance(rejected, Reset)
    assert rejected.raw["problem"]["subject"] == "worse.md"


def test_unavailable_at_the_start_is_raised(
    rig_on_mortal: Rig, server: RedisServer, way: str, follow: Callable[..., Follower]
) -> None:
    """A watch that cannot begin says so; one that has begun waits for the server to come back."""
    follower = follow(server)
    server.kill()
    with pytest.raises(Unavailable):
        Follower(way, server.url)
    server.start()
    rig_on_mortal.settle()
    rig_on_mortal.save_and_settle(ANN, "two\n")
    follower.until(rig_on_mortal.journal.seq)
    assert follower.error is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"label": "notes", "agent": "ann"}, Misconfigured),
        ({"label": "no/../label"}, InvalidLabel),
        ({"agent": "a/b"}, InvalidLabel),
    ],
)
def test_what_cannot_be_watched(rig: Rig, way: str, options: dict[str, str], error: type[Exception]) -> None:
    """A watch is about one block or one agent, by a name that can be one; everything else is an error at once."""
    with pytest.raises(error):
        Follower(way, rig.url, **options)


# --- going on ---


def test_since_resumes(rig: Rig, watch: Callable[..., Follower]) -> None:
    """With `since`, what was missed comes first, then what happens; from any point that the stream still has."""
    start = rig.journal.seq
    for number in range(5):
        rig.save_and_settle(ANN, f"{number}\n")
    follower = watch(since=start + 2)
    follower.until(start + 5)
    rig.save_and_settle(ANN, "last\n")
    assert follower.until(start + 6) == [("updated", seq) for seq in range(start + 3, start + 7)]


def test_since_the_last_item(rig: Rig, watch: Callable[..., Follower], raw: Any) -> None:
    """Whoever keeps the last item, a change or a reset, goes on after it, whoever passed it on."""
    rig.save_and_settle(ANN, "two\n")
    raw.xtrim("blocks:changes", maxlen=1, approximate=False)
    first = watch(since=1)
    first.until(rig.journal.seq)
    (reset,) = first.heard
    assert isinstance(reset, Reset)
    second = watch(since=reset)
    rig.save_and_settle(ANN, "three\n")
    second.until(rig.journal.seq)
    third = watch(since=second.heard[-1])
    rig.save_and_settle(ANN, "four\n")
    seq = rig.journal.seq
    assert (second.until(seq), third.until(seq)) == ([("updated", seq - 1), ("updated", seq)], [("updated", seq)])


def test_since_the_newest_is_silent(rig: Rig, watch: Callable[..., Follower]) -> None:
    """Who has seen everything hears only what comes."""
    rig.save_and_settle(ANN, "two\n")
    follower = watch(since=rig.journal.seq)
    rig.save_and_settle(ANN, "three\n")
    assert follower.until(rig.journal.seq) == [("updated", rig.journal.seq)]


def test_since_a_reset_is_told_of_it(rig: Rig, watch: Callable[..., Follower]) -> None:
    """Who resumes where the mirror was built anew cannot know whether that was before or after: it is told to read."""
    start = rig.journal.seq
    rig.resync()
    raw_reset = watch(since=start - 1)
    rig.save_and_settle(ANN, "two\n")
    heard = raw_reset.until(start + 1)
    assert heard[0][0] == "reset"
    assert heard[-1] == ("updated", start + 1)


@pytest.mark.parametrize("scope", EVERY)
def test_since_the_future_is_a_reset(rig: Rig, watch: Callable[..., Follower], scope: str) -> None:
    """Who has seen more than there is has seen another journal's: how things stand, then what happens."""
    seq = rig.journal.seq
    follower = watch(since=seq + 100, **EVERY[scope])
    eventually(lambda: follower.heard)
    rig.save_and_settle(ANN, "two\n")
    assert follower.until(seq + 1) == [("reset", seq), ("updated", seq + 1)]


@pytest.mark.parametrize("scope", EVERY)
def test_reset_has_the_blocks(rig: Rig, watch: Callable[..., Follower], scope: str) -> None:
    """A Reset carries the blocks the watch is about, as they are."""
    rig.save_and_settle("other", "x\n")
    follower = watch(since=rig.journal.seq + 1, **EVERY[scope])
    eventually(lambda: follower.heard)
    (reset,) = follower.heard
    assert isinstance(reset, Reset)
    wanted = {ANN: "I am Ann.", "notes": "one", "other": "x"}
    labels = {"everything": [*wanted], "a block": [ANN], "an agent": [ANN, "notes"]}[scope]
    assert {label: block.value for label, block in reset.blocks.items()} == {label: wanted[label] for label in labels}
    assert reset.epoch == rig.journal.epoch


def test_since_another_epoch_is_a_reset(
    rig: Rig, tmp_path: Path, emptied: RedisServer, watch: Callable[..., Follower]
) -> None:
    """The last item of another journal has no place in this one, though its seq would do."""
    follower = watch()
    rig.save_and_settle(ANN, "two\n")
    follower.until(rig.journal.seq)
    last = follower.heard[-1]
    follower.close()
    rig.close()
    other = Rig(tmp_path / "two", emptied.url)
    for number in range(5):
        other.save_and_settle("notes", f"{number}\n")
    late = watch(since=last)
    eventually(lambda: late.heard)
    assert (late.heard[0].kind, late.heard[0].seq, late.heard[0].epoch) == ("reset", 5, other.journal.epoch)
    other.crash()


def test_long_gap_is_read_in_pages(rig: Rig, watch: Callable[..., Follower]) -> None:
    """However much was missed, it comes whole and in order."""
    rig.save_and_settle("notes", "alone\n")
    start = rig.journal.seq
    for number in range(1300):
        rig.write(f"b{number}", "x\n")
    rig.settle()
    heard = watch(since=start).until(rig.journal.seq)
    assert heard == [("created", seq) for seq in range(start + 1, start + 1301)]


MANY = """
for seq = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  local change = string.format('{"seq":%d,"kind":"updated","label":"notes","version":%d,"epoch":"%s"}', seq, seq, ARGV[3])
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], seq .. '-0', 'change', change)
end
redis.call('HSET', KEYS[2], 'seq', ARGV[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", [("valkey", "blocking"), ("redis", "asyncio")], ids="-".join)
@pytest.mark.parametrize(("missed", "kept"), [(100_000, 100_000), (100_000, 50_000)], ids=["kept", "gone"])
def test_a_hundred_thousand_changes_missed(
    rig: Rig, raw: Any, watch: Callable[..., Follower], missed: int, kept: int
) -> None:
    """Whoever missed so many gets all of them, if the stream still has them, and otherwise a Reset; then the next one."""
    rig.save_and_settle(ANN, "two\n")
    seq = rig.journal.seq
    raw.eval(MANY, 2, "blocks:changes", "blocks:meta", seq + 1, seq + missed, rig.journal.epoch, kept)
    late = watch(since=seq)
    late.reach(seq + missed)
    change = json.dumps({"kind": "updated", "seq": seq + missed + 1, "label": "notes", "epoch": rig.journal.epoch})
    raw.xadd("blocks:changes", {"change": change}, id=f"{seq + missed + 1}-0")
    raw.hset("blocks:meta", "seq", str(seq + missed + 1))
    raw.publish("blocks:changes", change)
    heard = late.until(seq + missed + 1)
    if kept == missed:
        assert heard == [("updated", number) for number in range(seq + 1, seq + missed + 2)]
    else:
        assert heard == [("reset", seq + missed), ("updated", seq + missed + 1)]


# --- losses ---


def test_trimmed_stream_is_a_reset(rig: Rig, raw: Any, watch: Callable[..., Follower]) -> None:
    """Who asks for what the stream has no longer is told how things stand, and then hears the rest."""
    start = rig.journal.seq
    for number in range(6):
        rig.save_and_settle(ANN, f"{number}\n")
    raw.xtrim("blocks:changes", maxlen=2, approximate=False)
    follower = watch(since=start + 1)
    follower.until(start + 6)
    rig.save_and_settle(ANN, "last\n")
    assert follower.until(start + 7) == [("reset", start + 6), ("updated", start + 7)]


@pytest.mark.parametrize("scope", EVERY)
@pytest.mark.parametrize("how", ["killed", "cut", "stalled"])
def test_lost_messages_are_caught_up(
    rig: Rig, raw: Any, between: Between, follow: Callable[..., Follower], how: str, scope: str
) -> None:
    """Connections that are ended, at either side, or pass nothing on without a sign: every change comes all the same."""
    first = rig.journal.seq + 1
    follower = follow(between, **EVERY[scope])
    losing: dict[str, Callable[[], object]] = {
        "killed": lambda: raw.client_kill_filter(_type="pubsub"),
        "cut": between.cut,
        "stalled": between.stall,
    }
    for number in range(2):
        losing[how]()
        rig.save_and_settle(ANN, f"{number}\n")
        follower.until(first + number)
        rig.save_and_settle(ANN, f"again {number}\n")
        rig.remove(ANN)
        rig.settle()
        rig.save_and_settle(ANN, f"{number}\n")
        first += 3
    last = rig.journal.seq
    heard = follower.until(last)
    assert [seq for _, seq in heard] == list(range(last - len(heard) + 1, last + 1))
    assert len(heard) == 8


def test_gap_is_noticed_by_the_next_message(
    rig: Rig, raw: Any, watch: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that is not the next one makes the watch read what is between, without waiting for a silence."""
    monkeypatch.setattr(watching_module, "PROVE_SECONDS", ENDLESS)
    follower = watch()
    first = rig.journal.seq + 1
    for seq in range(first, first + 3):
        change = json.dumps({"kind": "updated", "seq": seq, "label": "notes", "epoch": rig.journal.epoch})
        raw.xadd("blocks:changes", {"change": change}, id=f"{seq}-0")
        raw.hset("blocks:meta", "seq", str(seq))
    raw.publish("blocks:changes", change)  # of the last alone
    assert follower.until(first + 2) == [("updated", seq) for seq in range(first, first + 3)]


@pytest.mark.parametrize("options", [{"label": "agents/zoe/persona"}, {"agent": "zoe"}], ids=["a block", "an agent"])
def test_place_of_a_quiet_watch_moves(rig: Rig, watch: Callable[..., Follower], options: dict[str, str]) -> None:
    """Whoever hears of nothing that concerns it can still go on from where everything is."""
    follower = watch(**options)
    rig.save_and_settle(ANN, "two\n")
    assert follower.reach(rig.journal.seq) == []
    assert follower.place == (rig.journal.epoch, rig.journal.seq)


@pytest.mark.parametrize("saved", ["while away", "after"])
def test_server_restarted_with_its_data(
    tmp_path: Path, server: RedisServer, follow: Callable[..., Follower], saved: str
) -> None:
    """After kill and restart of a server that keeps its data, each change is heard, once, without a reset."""
    keeping = ("--appendonly", "yes", "--appendfsync", "always")
    server.kill()
    server.start(*keeping)
    rig = Rig(tmp_path / "kept", server.url)
    rig.write("notes", "one\n")
    rig.settle()
    follower = follow(server)
    rig.save_and_settle("notes", "two\n")
    follower.until(2)
    server.kill()
    if saved == "while away":
        rig.write("notes", "three\n")
        rig.run(lambda: rig.journal.seq == 3)
    server.start(*keeping)
    rig.settle()
    if saved != "while away":
        rig.save_and_settle("notes", "three\n")
    assert follower.until(3) == [("updated", 2), ("updated", 3)]
    rig.crash()


def test_server_restarted_empty_is_a_reset(
    rig_on_mortal: Rig, server: RedisServer, follow: Callable[..., Follower]
) -> None:
    """After kill and restart of a server that keeps nothing, a Reset tells how things stand; each time."""
    rig = rig_on_mortal
    followers = [follow(server, **options) for options in EVERY.values()]
    seq = rig.journal.seq
    for times in range(1, 3):
        server.kill()
        server.start()
        rig.settle()
        for follower in followers:
            eventually(lambda follower=follower, times=times: len(follower.heard) >= times, "the reset is heard")  # type: ignore[misc]
    rig.save_and_settle(ANN, "two\n")
    for follower in followers:
        assert follower.until(seq + 1) == [("reset", seq), ("reset", seq), ("updated", seq + 1)]


def test_server_restarted_with_older_data(
    rig_on_mortal: Rig, server: RedisServer, follow: Callable[..., Follower]
) -> None:
    """A server that comes back as it was once: what is heard leads to how things are, whatever it led through."""
    rig = rig_on_mortal
    rig.client.save()
    start = rig.journal.seq
    followers = [(scope, follow(server, **scope.options)) for scope in (Scope(), Scope(label=ANN), Scope(agent="ann"))]
    for number in range(3):
        rig.save_and_settle(ANN, f"{number}\n")
    for _, follower in followers:
        follower.until(rig.journal.seq)
    server.kill()
    server.start("--dbfilename", "dump.rdb")
    for _, follower in followers:
        eventually(lambda follower=follower: follower.place == (rig.journal.epoch, start), "it has gone back")  # type: ignore[misc]
    rig.settle()
    rig.save_and_settle(ANN, "last\n")
    for _, follower in followers:
        heard = follower.until(rig.journal.seq)
        once = [("updated", seq) for seq in range(start + 1, start + 4)]
        assert heard == [*once, ("reset", start), *once, ("updated", start + 4)]


def test_flushed_mirror_is_a_reset(rig: Rig, raw: Any, watch: Callable[..., Follower]) -> None:
    """FLUSHALL, and the mirror built again: one Reset, then changes as before; also for who follows one block or agent."""
    followers = [watch(**options) for options in EVERY.values()]
    raw.flushall()
    rig.settle()
    for follower in followers:
        eventually(lambda follower=follower: follower.heard, "the reset is heard")  # type: ignore[misc]
    seq = rig.journal.seq
    rig.save_and_settle(ANN, "two\n")
    for follower in followers:
        assert follower.until(seq + 1) == [("reset", seq), ("updated", seq + 1)]


def test_repaired_block_is_told(rig: Rig, raw: Any, watch: Callable[..., Follower]) -> None:
    """A block that was found damaged and repaired is told to who follows it, its agents or everything; nobody else."""
    followers = {name: watch(**options) for name, options in EVERY.items()}
    notes = watch(label="notes")
    raw.hset(f"blocks:block:{ANN}", "value", "forged")
    rig.resync()
    for follower in followers.values():
        eventually(follower.all)
        assert follower.all() == [("repaired", None)]
        (change,) = follower.heard
        assert not isinstance(change, Reset)
        assert change.labels == (ANN,)
    rig.save_and_settle("notes", "two\n")
    assert notes.until(rig.journal.seq) == [("updated", rig.journal.seq)]


def test_two_databases_of_a_server_are_kept_apart(
    rig: Rig, tmp_path: Path, emptied: RedisServer, watch: Callable[..., Follower]
) -> None:
    """Two daemons, one namespace, two databases: channels are the server's, but each watch passes on its own changes only."""
    url = f"{emptied.url}?db=1"
    other = Rig(tmp_path / "two", url)
    other.write("notes", "---\nagents: [ann]\n---\ntheirs\n")
    other.settle()
    followers = {name: watch(**options) for name, options in EVERY.items()}
    blocks = watch(label="notes")
    for number in range(3):
        other.save_and_settle("notes", f"---\nagents: [ann]\n---\ntheirs {number}\n")
        other.save_and_settle("bad", "---\nlimit: none\n---\n" if number % 2 else f"good {number}\n")
        rig.save_and_settle(ANN, f"mine {number}\n")
    seq = rig.journal.seq
    for follower in followers.values():
        assert follower.until(seq) == [("updated", seq - 2), ("updated", seq - 1), ("updated", seq)]
    rig.save_and_settle("notes", "mine\n")
    assert blocks.until(rig.journal.seq) == [("updated", rig.journal.seq)]
    other.crash()


def test_another_journal_is_a_reset(
    rig: Rig, tmp_path: Path, emptied: RedisServer, watch: Callable[..., Follower]
) -> None:
    """When another journal takes the namespace over, numbers begin anew, after a Reset."""
    follower = watch()
    rig.close()
    other = Rig(tmp_path / "two", emptied.url)
    other.write("notes", "x\n")
    other.settle()
    other.save_and_settle("notes", "y\n")
    eventually(lambda: follower.place == (other.journal.epoch, 2))
    assert follower.heard[0].kind == "reset"
    assert {item.epoch for item in follower.heard} == {other.journal.epoch}
    Scope().check(follower.heard, other.journal.since(0, 100), after=0)
    other.crash()


def test_watch_begins_before_the_daemon(tmp_path: Path, server: RedisServer, follow: Callable[..., Follower]) -> None:
    """A watch of a namespace nobody keeps yet waits, also through a restart of the server, and hears what comes."""
    follower = follow(server)
    server.kill()
    server.start()
    rig = Rig(tmp_path / "late", server.url)
    rig.write("notes", "one\n")
    rig.settle()
    rig.save_and_settle("notes", "two\n")
    follower.until(2)
    Scope().check(follower.heard, rig.journal.since(0, 100), after=0)
    rig.crash()


# --- one block, one agent ---


def test_following_one_block(rig: Rig, watch: Callable[..., Follower]) -> None:
    """With `label`, only that block's changes are passed on: from its creation to its deletion, and creation again."""
    follower = watch(label="new")
    rig.save_and_settle("notes", "---\nagents: [ann, bob]\n---\ntwo\n")
    rig.save_and_settle("new", "one\n")
    rig.save_and_settle(ANN, "two\n")
    rig.remove("new")
    rig.settle()
    rig.save_and_settle("new", "again\n")
    follower.until(rig.journal.seq)
    assert [(item.kind, item.label, item.version) for item in follower.heard if not isinstance(item, Reset)] == [
        ("created", "new", 1),
        ("deleted", "new", 2),
        ("created", "new", 3),
    ]


def test_following_one_agent(rig: Rig, client: Client) -> None:
    """With `agent`, the changes of the blocks attached to it: also the one by which a block comes or goes."""
    with client.watch(agent="ann") as one, client.memory("ann").watch() as other:
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
        for watch in (one, other):
            heard: list[Any] = [next(watch) for _ in range(7)]
            assert [(item.kind, item.label) for item in heard] == [
                ("updated", "notes"),
                ("updated", "other"),
                ("updated", "other"),
                ("updated", "other"),
                ("created", "agents/ann/human"),
                ("updated", "agents/ann/human"),
                ("deleted", "agents/ann/human"),
            ]
            assert heard[3].detached == ("ann",)


def test_following_one_agent_through_a_gap(rig: Rig, between: Between, follow: Callable[..., Follower]) -> None:
    """What came and went while the connection was lost is passed on all the same, comings and goings included."""
    follower = follow(between, agent="ann")
    seq = rig.journal.seq
    rig.save_and_settle(ANN, "two\n")
    follower.until(seq + 1)
    between.stall()
    rig.save_and_settle("other", "---\nagents: [ann]\n---\none\n")
    rig.save_and_settle("other", "---\nagents: [ann]\n---\ntwo\n")
    rig.save_and_settle("other", "alone\n")
    rig.save_and_settle("other", "three\n")
    rig.save_and_settle(ANN, "three\n")
    heard = follower.until(rig.journal.seq)
    assert [number for _, number in heard] == [seq + 1, seq + 2, seq + 3, seq + 4, seq + 6]


def test_following_one_agent_since(rig: Rig, watch: Callable[..., Follower]) -> None:
    """With `agent` and `since`, nothing that concerned the agent then is left out, though it is detached by now."""
    rig.save_and_settle(ANN, "one\n")
    start = rig.journal.seq
    rig.save_and_settle("other", "---\nagents: [ann]\n---\none\n")
    rig.save_and_settle("other", "---\nagents: [ann]\n---\ntwo\n")
    rig.save_and_settle("other", "alone\n")
    rig.save_and_settle("other", "not hers\n")
    rig.save_and_settle(ANN, "two\n")
    for since in (start, start + 1, start + 3):
        heard = watch(agent="ann", since=since).until(start + 5)
        assert [seq for _, seq in heard] == [seq for seq in range(since + 1, start + 6) if seq != start + 4]


# --- ending ---


def test_callback_gets_the_items_in_order(rig: Rig, client: Client) -> None:
    """A thread or task passes every item to the callback, one after the other, until the watch is closed."""
    heard: list[Item] = []
    watch = client.watch(callback=heard.append)
    with watch:
        first = rig.journal.seq + 1
        for number in range(10):
            rig.save_and_settle(ANN, f"{number}\n")
        eventually(lambda: len(heard) == 10)
    assert told(heard) == [("updated", seq) for seq in range(first, first + 10)]
    rig.save_and_settle(ANN, "after\n")
    assert len(heard) == 10
    assert next(iter(watch), None) is None


def test_callback_of_the_agent_gets_what_was_missed(rig: Rig, client: Client) -> None:
    """A callback may go on from an earlier place, and follow one agent."""
    heard: list[Item] = []
    rig.save_and_settle(ANN, "two\n")
    rig.save_and_settle(ANN, "three\n")
    with client.memory("ann").watch(since=rig.journal.seq - 1, callback=heard.append):
        eventually(lambda: heard)
    assert told(heard) == [("updated", rig.journal.seq)]


def test_coroutine_function_is_a_callback(rig: Rig) -> None:
    """With asyncio, the next item comes when the coroutine of the one before has ended; also without `async with`."""
    heard: list[int | None] = []
    start = rig.journal.seq + 1
    for number in range(5):
        rig.save_and_settle(ANN, f"{number}\n")

    async def main() -> None:
        done = asyncio.Event()

        async def hear(item: Item) -> None:
            await asyncio.sleep(0)
            heard.append(item.seq)
            if len(heard) == 4:
                done.set()

        async with AsyncClient(rig.url) as client:
            watch = client.watch(since=start, callback=hear)
            await done.wait()
            await watch.close()

    asyncio.run(main())
    assert heard == list(range(start + 1, start + 5))


def test_callback_may_close_its_watch(rig: Rig, client: Client) -> None:
    """From within the callback, too, a watch can be ended."""
    heard: list[Item] = []
    closing: list[Any] = []

    def hear(item: Item) -> Any:
        heard.append(item)
        return closing[0].close()

    with client.watch(callback=hear) as watch:
        closing.append(getattr(watch, "_target", watch))  # the task closes what it runs in, not its twin
        rig.save_and_settle(ANN, "two\n")
        eventually(lambda: heard)
        rig.save_and_settle(ANN, "three\n")
    assert len(heard) == 1


def test_exception_of_the_callback_is_logged(rig: Rig, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """With its traceback; the callback gets the next item, and the client is closed as ever."""
    heard: list[Any] = []

    def hear(item: Any) -> None:
        heard.append(item)
        if len(heard) == 1:
            raise ZeroDivisionError

    with client.watch(callback=hear):
        rig.save_and_settle(ANN, "two\n")
        rig.save_and_settle(ANN, "three\n")
        eventually(lambda: len(heard) == 2)
    (record,) = [record for record in caplog.records if record.name == "blocksd.client.watch"]
    assert record.getMessage().startswith("the callback of a watch failed on Change(kind='updated'")
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    assert [item.version for item in heard] == [2, 3]


def test_interruption_of_a_callback_is_logged(
    server: RedisServer, rig_on_mortal: Rig, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once when the connection is lost, and once when it is there again; no change is missed."""
    caplog.set_level("INFO", "blocksd.client.watch")
    rig, heard = rig_on_mortal, list[Any]()
    with client_of(way, server.url) as client:
        client.watch(callback=heard.append, since=rig.journal.seq)
        rig.save_and_settle(ANN, "two\n")
        eventually(lambda: heard)
        server.kill()
        eventually(lambda: caplog.records)
        server.start()
        rig.tolerates_errors = True
        rig.run(lambda: rig.heard.level[-1] == "rebuilt" and len(rig.heard.level) == 2)
        eventually(lambda: len(caplog.records) == 2)
        eventually(lambda: heard[-1].kind == "reset")
    lost, again = caplog.records
    assert (lost.levelname, again.levelname) == ("WARNING", "INFO")
    assert lost.getMessage().startswith("a watch is interrupted: Redis at ")
    assert lost.exc_info is None
    assert again.getMessage() == "a watch that was interrupted goes on"


def test_error_of_the_watch_itself_is_logged(
    rig: Rig, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it is, the background goes on after it with a new connection, and misses nothing."""
    monkeypatch.setattr(watch_module, "RETRY_SECONDS", 0.01)
    heard: list[Any] = []
    hear, calls = watching_module.Watching._hear, iter(range(100))

    def fail_once(self: Any, change: Any) -> Any:
        if next(calls) == 0:
            raise ZeroDivisionError("no reason")
        return hear(self, change)

    monkeypatch.setattr(watching_module.Watching, "_hear", fail_once)
    with client.watch(callback=heard.append, since=rig.journal.seq):
        for count in range(100):  # until one is heard, not read
            rig.save_and_settle(ANN, f"{count}\n")
            eventually(
                lambda: [one.seq for one in heard if not isinstance(one, Reset)] == [*range(3, rig.journal.seq + 1)]
            )
            if caplog.records:
                break
    assert "a watch is interrupted: no reason; it connects again" in [record.getMessage() for record in caplog.records]
    assert caplog.records[0].exc_info is not None


def test_close_closes_everything(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though one of the watches cannot be closed, the others are, and the connections, too."""

    async def close() -> tuple[bool, bool]:
        client = AsyncClient(rig.url)
        broken, watch = client.watch(), client.watch()
        await broken.start()
        await watch.start()

        async def fail() -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(broken, "close", fail)
        await client.close()
        pool = client._transport._redis.connection_pool
        await AsyncWatch.close(broken)
        return [item async for item in watch] == [], not any(one.is_connected for one in pool._available_connections)

    assert asyncio.run(close()) == (True, True)


def test_iterating_after_close_stops(rig: Rig, client: Client) -> None:
    """A closed watch has no further items, and may be closed again."""
    with client.watch() as watch:
        rig.save_and_settle(ANN, "two\n")
        next(watch)
    rig.save_and_settle(ANN, "three\n")
    assert list(watch) == []
    watch.close()
    assert watch.place == (rig.journal.epoch, rig.journal.seq - 1)


def test_close_while_another_waits(rig: Rig, watch: Callable[..., Follower]) -> None:
    """Closing from another thread or task ends the waiting for the next item, and no more than that."""
    follower = watch()
    rig.save_and_settle(ANN, "two\n")
    follower.until(rig.journal.seq)
    follower.close()
    assert follower.all() == [("updated", rig.journal.seq)]


def test_close_while_the_server_is_away(server: RedisServer, follow: Callable[..., Follower]) -> None:
    """A watch that waits for the server to come back can be ended, too."""
    follower = follow(server)
    server.kill()
    follower.close()
    assert follower.error is None


def test_client_closes_its_watches(rig: Rig, way: str) -> None:
    """When a client is closed, its watches end, whoever waits for them."""
    with client_of(way, rig.url) as client:
        watch = client.watch()
        waiting = threading.Thread(target=list, args=(watch,))
        waiting.start()
        client.close()
        waiting.join()
        assert list(watch) == []


def test_closing_waits_for_no_message(rig: Rig, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever listens stops at once when the watch, a memory or the client is closed, and nothing is logged as lost."""
    monkeypatch.setattr(watching_module, "LISTEN_SECONDS", ENDLESS)
    lost: list[str] = []
    monkeypatch.setattr(Driver, "fail", lambda _, error, __: lost.append(str(error)))

    def close_all() -> None:
        with client_of(way, rig.url) as client:
            memory = client.memory("ann")
            memory.compile()
            watch = client.watch()
            waiting = threading.Thread(target=list, args=(watch,), daemon=True)
            waiting.start()
            called = client.watch(callback=print)
            memory.close()
            called.close()
            watch.close()
            waiting.join()
            client.memory("ann").compile()

    closing = threading.Thread(target=close_all, daemon=True)
    closing.start()
    closing.join(DEADLINE)
    assert not closing.is_alive()
    assert lost == []


def test_waiting_may_be_given_up(rig: Rig, raw: Any) -> None:
    """With asyncio, a wait for the next item that is cancelled, by a timeout say, loses nothing and harms nothing."""

    async def main() -> list[int]:
        seqs = []
        async with AsyncClient(rig.url) as client, client.watch() as watch:
            for number in range(150):
                if number % 3 == 0:
                    rig.save_and_settle(ANN, f"{number}\n")
                if number % 40 == 0:
                    raw.client_kill_filter(_type="pubsub")
                try:
                    async with asyncio.timeout(random.uniform(0, 0.004)):
                        seqs.append((await anext(watch)).seq or 0)
                except TimeoutError:
                    pass
            while not seqs or seqs[-1] < rig.journal.seq:
                seqs.append((await anext(watch)).seq or 0)
        return seqs

    first = rig.journal.seq + 1
    assert asyncio.run(main()) == list(range(first, rig.journal.seq + 1))


def test_nothing_is_left_of_closed_watches(rig: Rig, way: str, raw: Any) -> None:
    """Fifty watches, closed: what is left is what the client itself has, a connection or two."""
    with client_of(way, rig.url) as client:
        gc.collect()
        threads, files, connections = threading.active_count(), len(os.listdir("/proc/self/fd")), len(raw.client_list())
        for number in range(50):
            options: dict[str, Any] = [{}, {"label": ANN}, {"agent": "ann"}][number % 3]
            callback = (lambda _: None) if number % 10 == 0 else None
            with client.watch(callback=callback, **options):
                pass
        assert threading.active_count() == threads
        assert len(os.listdir("/proc/self/fd")) <= files + 2
        eventually(lambda: len(raw.client_list()) <= connections + 2, "the server has seen them go")


@pytest.mark.parametrize("kind", [("valkey", "blocking"), ("redis", "blocking")], ids="-".join)
def test_login_that_is_refused_is_an_error(rig_on_mortal: Rig, server: RedisServer) -> None:
    """A watch whose login is refused from some time on ends with that error: trying again would not help."""
    raw = rig_on_mortal.client
    with Client(server.url) as client, client.watch() as watch:
        raw.config_set("requirepass", "secret")
        raw.client_kill_filter(_type="pubsub", skipme=True)
        raw.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(Misconfigured):
            next(watch)
        assert list(watch) == []


# --- whatever happens ---


class Trouble:
    """A daemon that makes random changes while random things happen to the server and to the connections to it."""

    LABELS = ("notes", "other", "third", "agents/ann/persona", "agents/bob/persona", "fourth")

    def __init__(self, seed: int, rig: Rig, server: RedisServer, between: Between, *, is_kept: bool) -> None:
        self._random = random.Random(seed)
        self._rig = rig
        self._server = server
        self._between = between
        self._options = ("--appendonly", "yes", "--appendfsync", "always") if is_kept else ()
        self._is_kept = is_kept
        self._count = 0
        self._raw: Any = server.client()

    def step(self) -> None:
        doing = [self._save] * 8 + [self._remove] * 3 + [self._rig.round] * 3 + [self._rig.settle] * 3
        chance = self._random.random()
        if chance < 0.01:
            doing = [self._restart, self._flush]
        elif chance < 0.08:
            doing = [self._kill_pubsub, self._kill_normal, self._between.cut, self._between.stall, self._trim]
        self._random.choice(doing)()

    def _save(self) -> None:
        label = self._random.choice(self.LABELS)
        self._count += 1
        agents = self._random.choice(("[]", "[ann]", "[ann, bob]", "[bob]"))
        head = "" if label.startswith("agents/") else f"---\nagents: {agents}\n---\n"
        self._rig.write(label, f"{head}value {self._count}\n")

    def _remove(self) -> None:
        label = self._random.choice(self.LABELS)
        if (self._rig.root / f"{label}.md").exists():
            self._rig.remove(label)

    def _kill_pubsub(self) -> None:
        self._raw.client_kill_filter(_type="pubsub")

    def _kill_normal(self) -> None:
        self._raw.client_kill_filter(_type="normal", skipme=True)

    def _trim(self) -> None:
        # One entry stays: a stream whose end is lost is not how trimming leaves it.
        self._raw.xtrim("blocks:changes", maxlen=self._random.choice((1, 3, 30)), approximate=False)

    def _flush(self) -> None:
        self._raw.flushall()

    def _restart(self) -> None:
        self._server.kill()
        self._rig.round()
        self._server.launch(*self._options)
        self._server.wait()

    def close(self) -> None:
        self._raw.close()


def begin(way: str, url: str, **options: Any) -> Follower:
    """Follow, as soon as the server lets anybody begin."""
    made: list[Follower] = []

    def try_to() -> bool:
        try:
            made.append(Follower(way, url, **options))
        except Unavailable:
            return False
        return True

    eventually(try_to, "a watch can begin")
    return made[0]


@pytest.mark.parametrize(
    ("seed", "kind"),
    [(seed, (("valkey", "blocking"), ("redis", "asyncio"))[seed // 2 % 2]) for seed in (1, 2, 3, 4, 5)],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else str(value),
)
def test_whatever_happens(seed: int, tmp_path: Path, server: RedisServer, way: str) -> None:
    """Each change is heard once and in order, or a Reset is instead, and what was heard adds up to the blocks there are.

    Connections are ended and stalled, the server is killed, with and without keeping its data, the stream trimmed, the
    mirror flushed, and watches are ended and go on from the last item they passed on.
    """
    if seed % 2:
        server.kill()
        server.start("--appendonly", "yes", "--appendfsync", "always")
    rig = Rig(tmp_path / "one", server.url, reply_seconds=0.5)
    rig.write("notes", "---\nagents: [ann]\n---\nfirst\n")
    rig.settle()
    start = rig.journal.seq
    between = Between(server.socket)
    trouble = Trouble(seed, rig, server, between, is_kept=bool(seed % 2))
    scopes = [Scope(), Scope(label="notes"), Scope(agent="ann")]
    followers = [Follower(way, between.url, **scope.options) for scope in scopes]
    heard: list[list[Item]] = [[], [], []]
    choose = random.Random(seed + 1000)
    try:
        for _ in range(120):
            trouble.step()
            index = choose.randrange(3)
            if choose.random() < 0.1:
                rig.settle()
                followers[index].reach(rig.journal.seq)
            if choose.random() < 0.03:
                followers[index].close()
                followers[index].all()
                heard[index] += followers[index].heard
                since: Any = heard[index][-1] if heard[index] else start
                if choose.random() < 0.3 and heard[index]:
                    since = heard[index][-1].seq
                followers[index] = begin(way, between.url, since=since, **scopes[index].options)
        rig.settle()
        rig.write("notes", "---\nagents: [ann]\n---\nthe very last\n")
        rig.settle()
        for scope, follower, before in zip(scopes, followers, heard, strict=True):
            follower.until(rig.journal.seq)
            follower.reach(rig.journal.seq)
            scope.check([*before, *follower.heard], rig.journal.since(0, 10_000), after=start)
    finally:
        for follower in followers:
            follower.close()
        trouble.close()
        between.close()
        rig.crash()
