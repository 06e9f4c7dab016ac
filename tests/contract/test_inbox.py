"""Requests and sources on real servers: what the mirror shows of files, and that no crash loses or doubles a request."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import JournalUnusable
from blocksd.files.folder import unpacked
from blocksd.journal.results import Results
from blocksd.requests.request import Entry
from blocksd.settings.config import SourceSettings
from rig import Ear, Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support import RedisServer

FILE = "manuals/a.txt"


@pytest.fixture
def server(any_server: RedisServer) -> RedisServer:
    """What a server decides must hold on every kind of it; the scripts are run on each by the tests of mirror and repair."""
    return any_server


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    """A client that asks, and breaks what it can."""
    client: Any = server.client()
    yield client
    client.close()


@pytest.fixture
def manuals(tmp_path: Path) -> Path:
    directory = tmp_path / "manuals"
    directory.mkdir()
    (directory / "a.txt").write_text("one\n")
    (directory / "b.txt").write_text("two\n")
    return directory


def settings_of(manuals: Path, *, name: str = "manuals") -> SourceSettings:
    return SourceSettings(name, str(manuals), "Product manuals.", None, ("support-*",), 10)


@pytest.fixture
def make_rig(tmp_path: Path, server: RedisServer, manuals: Path) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(**settings: Any) -> Rig:
        rigs.append(Rig(tmp_path / "one", server.url, **{"sources": (settings_of(manuals),)} | settings))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.crash()


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """A daemon that is level: two agents, of which one sees the manuals."""
    made = make_rig()
    made.write("notes", "---\nagents: [support-1, ann]\n---\none\n")
    settle(made)
    return made


class Ears(Ear):
    """A subscriber of every change, and of what concerns the manuals and some agents."""

    def __init__(self, raw: Any) -> None:
        own = ("source:manuals", "agent:support-1", "agent:support-2", "agent:ann")
        super().__init__(raw, "blocks:changes", *(f"blocks:changes:{channel}" for channel in own))

    def changes(self) -> list[dict[str, Any]]:
        """What was said on the channel of every change."""
        return [json.loads(text) for channel, text in self.messages() if channel == "blocks:changes"]

    def by_channel(self) -> list[tuple[str, str]]:
        """What was said on the other channels: whose it is, and the kind."""
        said = [(channel.rpartition(":")[2], json.loads(text)["kind"]) for channel, text in self.messages()]
        return sorted((whose, kind) for whose, kind in said if whose != "changes")


@pytest.fixture
def ear(raw: Any, rig: Rig) -> Iterator[Ears]:  # noqa: ARG001  # the rig is level first
    heard = Ears(raw)
    yield heard
    heard.close()


def ask(raw: Any, actor: str, request_id: str, op: str = "open_file", **args: Any) -> None:
    """Send a request, as any client of Redis can."""
    text = json.dumps({"id": request_id, "op": op, "args": args or {"file": FILE}})
    raw.xadd(f"blocks:inbox:{actor}", {"request": text})


def pass_on(rig: Rig, raw: Any, *actors: str) -> None:
    """What the reader does: hand over all that is in the inboxes."""
    for actor in actors or ("operator", "support-1", "ann"):
        entries = raw.xrange(f"blocks:inbox:{actor}")
        rig.core.inbox.add(Entry(actor, entry_id, fields.get("request")) for entry_id, fields in entries)


def reply(raw: Any, actor: str, request_id: str) -> dict[str, Any] | None:
    """The one reply there is, left where it is."""
    texts = raw.lrange(f"blocks:reply:{actor}:{request_id}", 0, -1)
    assert len(texts) < 2
    return json.loads(texts[0]) if texts else None


def served(rig: Rig, raw: Any, actor: str, request_id: str, op: str = "open_file", **args: Any) -> dict[str, Any]:
    """Ask, and see what is replied."""
    ask(raw, actor, request_id, op, **args)
    pass_on(rig, raw)
    rig.run(lambda: reply(raw, actor, request_id), f"a reply to {request_id}")
    assert raw.xlen(f"blocks:inbox:{actor}") == 0
    found = reply(raw, actor, request_id)
    assert found is not None
    return found


def of_sources(raw: Any) -> dict[str, Any]:
    """All that is shown of sources."""
    everything: dict[str, Any] = {}
    for pattern in ("sources", "source:*", "source-agents:*", "file:*", "open:*"):
        for key in raw.scan_iter(f"blocks:{pattern}"):
            kind = raw.type(key)
            read = {"set": raw.smembers, "hash": raw.hgetall, "string": raw.get}[kind]
            everything[key] = read(key)
    return everything


def settle(rig: Rig) -> None:
    """Until all that was saved is in the mirror, in sources too."""
    sources = rig.core.sources
    rig.settle()
    rig.run(lambda: sources.due > rig.clock() and not sources.unshown, "sources are settled")


def fresh(rig: Rig, raw: Any) -> dict[str, Any]:
    """What a mirror built from nothing shows of sources."""
    raw.flushall()
    settle(rig)
    return of_sources(raw)


# --- what is shown ---


@pytest.mark.every_backend
def test_source_is_shown(rig: Rig, raw: Any, manuals: Path) -> None:
    """What it is for, its files by path, and who sees it; no content as long as nobody has a file open."""
    everything = of_sources(raw)
    listing = {path: json.loads(text) for path, text in everything.pop("blocks:source:manuals").items()}
    assert {path: facts["bytes"] for path, facts in listing.items()} == {"a.txt": 4, "b.txt": 4}
    about = json.loads(everything.pop("blocks:sources")["manuals"])
    assert about == {"description": "Product manuals.", "instructions": None, "limit": 10, "directory": str(manuals)}
    assert everything == {"blocks:source-agents:manuals": {"support-1"}}
    assert rig.core.problems == {}


@pytest.mark.every_backend
def test_agent_opens_a_file(rig: Rig, raw: Any, ear: Ears) -> None:
    """It is shown to it, announced to it, and replied."""
    answer = served(rig, raw, "support-1", "r-1")
    at = answer["last_accessed_at"]
    assert answer == {"id": "r-1", "ok": True, "agent": "support-1", "file": FILE, "last_accessed_at": at}
    assert raw.hgetall("blocks:open:support-1") == {FILE: at}
    assert raw.hget(f"blocks:file:{FILE}", "value") == "one\n"
    assert 0 < raw.ttl("blocks:reply:support-1:r-1") <= 60
    said = ear.messages()
    assert [channel for channel, _ in said] == ["blocks:changes", "blocks:changes:agent:support-1"]
    for _, text in said:
        change = json.loads(text)
        assert change.pop("at").endswith("Z")
        assert change == {"kind": "opened", "agent": "support-1", "file": FILE, "epoch": rig.journal.epoch}


@pytest.mark.every_backend
def test_open_file_is_live(rig: Rig, raw: Any, ear: Ears, manuals: Path) -> None:
    """A save is in the mirror and on the channels, the source's own among them; that of another file is listed."""
    served(rig, raw, "support-1", "r-1")
    ear.changes()
    (manuals / "a.txt").write_text("changed for good\n")
    rig.core.sources.source("manuals").hint_file("a.txt", closed=True)
    settle(rig)
    assert raw.hmget(f"blocks:file:{FILE}", "value", "chars") == ["changed fo", "17"]
    assert json.loads(raw.hget("blocks:source:manuals", "a.txt"))["bytes"] == 17
    said = ear.messages()
    assert [channel for channel, _ in said] == ["blocks:changes", "blocks:changes:source:manuals"]
    for _, text in said:
        change = json.loads(text)
        assert (change["kind"], change["source"], change["files"]) == ("source", "manuals", ["a.txt"])
    (manuals / "b.txt").unlink()
    rig.core.sources.hint_all()
    settle(rig)
    assert raw.hkeys("blocks:source:manuals") == ["a.txt"]
    assert [change["files"] for change in ear.changes()] == [["b.txt"]]


@pytest.mark.every_backend
def test_file_is_closed(rig: Rig, raw: Any, ear: Ears) -> None:
    """Nothing is left of it; to close what is closed changes nothing."""
    before = of_sources(raw)
    served(rig, raw, "support-1", "r-1")
    for request_id in ("r-2", "r-3"):
        answer = served(rig, raw, "support-1", request_id, "close_file")
        assert answer == {"id": request_id, "ok": True, "agent": "support-1", "file": FILE, "last_accessed_at": None}
        assert of_sources(raw) == before
    assert [change["kind"] for change in ear.changes()] == ["opened", "closed"]


def test_operator_acts_for_an_agent(rig: Rig, raw: Any) -> None:
    """It says for which; an agent acts for itself alone."""
    answer = served(rig, raw, "operator", "r-1", agent="support-1", file=FILE)
    assert answer["agent"] == "support-1"
    assert raw.hkeys("blocks:open:support-1") == [FILE]
    answer = served(rig, raw, "ann", "r-2", agent="support-1", file=FILE)
    assert answer["error"]["code"] == "invalid_request"
    answer = served(rig, raw, "operator", "r-3", file=FILE)
    assert answer["error"]["code"] == "invalid_request"
    answer = served(rig, raw, "operator", "r-4", agent="no/agent", file=FILE)
    assert answer["error"]["code"] == "invalid_request"
    answer = served(rig, raw, "operator", "r-5", agent="stranger", file=FILE)
    assert answer["error"]["code"] == "not_found"


def test_opening_again_renews_the_time(rig: Rig, raw: Any, ear: Ears) -> None:
    """Which of an agent's files it used last, others must know."""
    first = served(rig, raw, "support-1", "r-1")["last_accessed_at"]
    rig.wall_offset = 60
    second = served(rig, raw, "support-1", "r-2")["last_accessed_at"]
    assert second > first
    assert raw.hgetall("blocks:open:support-1") == {FILE: second}
    assert ear.kinds() == ["opened", "opened"]


@pytest.mark.every_backend
def test_agents_come_and_go(rig: Rig, raw: Any, ear: Ears) -> None:
    """An agent that appears and matches sees the source at once, and is told; one that goes sees nothing."""
    served(rig, raw, "support-1", "r-1")
    ear.changes()
    rig.save_and_settle("notes", "---\nagents: [support-2, ann]\n---\none\n")
    assert raw.smembers("blocks:source-agents:manuals") == {"support-2"}
    assert not raw.exists("blocks:open:support-1", f"blocks:file:{FILE}")
    assert ear.by_channel() == [
        ("manuals", "source"),
        ("support-1", "closed"),
        ("support-1", "source"),
        ("support-1", "updated"),
        ("support-2", "source"),
        ("support-2", "updated"),
    ]
    rig.save_and_settle("notes", "---\nagents: [support-1, ann]\n---\none\n")
    assert raw.hkeys("blocks:open:support-1") == [FILE]
    assert raw.hget(f"blocks:file:{FILE}", "value") == "one\n"


def test_many_changed_files_are_named_up_to_a_hundred(rig: Rig, raw: Any, ear: Ears, manuals: Path) -> None:
    """Who listens reads the listing anyway."""
    for number in range(300):
        (manuals / f"{number}.txt").write_text("x")
    rig.core.sources.hint_all()
    settle(rig)
    assert raw.hlen("blocks:source:manuals") == 302
    named = [len(change["files"]) for change in ear.changes()]
    assert max(named) <= 100
    assert sum(named) == 300


# --- what is refused ---


@pytest.mark.every_backend
@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        '{"op": "open_file"}',
        '{"id": "a/b", "op": "open_file"}',
        '{"id": 5}',
        "\udcff",
        "x" * 3_000_000,
    ],
    ids=["empty", "no json", "list", "no id", "bad id", "number", "binary", "long"],
)
def test_entry_nobody_can_be_told_of_is_dropped(rig: Rig, raw: Any, text: str) -> None:
    """It does not stay in the way of the others, nor does it stop the daemon."""
    raw.xadd("blocks:inbox:support-1", {"request": text.encode("utf-8", "surrogateescape")})
    raw.xadd("blocks:inbox:support-1", {"other": "field"})
    reader_like = rig.client.xrange("blocks:inbox:support-1")
    rig.core.inbox.add(Entry("support-1", entry_id, fields.get("request")) for entry_id, fields in reader_like)
    rig.run(lambda: raw.xlen("blocks:inbox:support-1") == 0)
    assert len(rig.core.dropped) == 2
    assert served(rig, raw, "support-1", "r-1")["ok"]
    assert list(raw.scan_iter("blocks:reply:*")) == ["blocks:reply:support-1:r-1"]


def test_unknown_op_is_told_the_known_ones(rig: Rig, raw: Any) -> None:
    """As is every other mistake."""
    answer = served(rig, raw, "support-1", "r-1", "delete_everything")
    assert answer["ok"] is False
    assert answer["error"]["code"] == "invalid_request"
    assert {"append", "open_file"} <= set(answer["error"]["known"])


def test_passed_deadline_does_nothing(rig: Rig, raw: Any) -> None:
    """Nobody waits for it any more; the same request is done if it is sent again with more time."""
    request = {"id": "r-1", "op": "open_file", "args": {"file": FILE}, "deadline": "2020-01-01T00:00:00Z"}
    raw.xadd("blocks:inbox:support-1", {"request": json.dumps(request)})
    pass_on(rig, raw)
    rig.run(lambda: reply(raw, "support-1", "r-1"))
    assert reply(raw, "support-1", "r-1")["error"]["code"] == "unavailable"  # type: ignore[index]  # there is one
    assert not raw.exists("blocks:open:support-1")
    raw.delete("blocks:reply:support-1:r-1")
    raw.xadd("blocks:inbox:support-1", {"request": json.dumps({**request, "deadline": "2126-01-01T00:00:00Z"})})
    pass_on(rig, raw)
    rig.run(lambda: reply(raw, "support-1", "r-1"))
    assert reply(raw, "support-1", "r-1")["ok"]  # type: ignore[index]  # there is one


@pytest.mark.every_backend
@pytest.mark.parametrize("kind", ["inbox", "reply"])
def test_actor_who_spoils_its_own_keys_harms_nobody_else(rig: Rig, raw: Any, kind: str) -> None:
    """Its inbox or the key of its reply is no more what it should be: the others are served in the same moment."""
    ask(raw, "support-1", "r-1")
    ask(raw, "operator", "r-2", agent="support-1", file=FILE)
    pass_on(rig, raw)
    if kind == "inbox":
        raw.set("blocks:inbox:support-1", "mine")
    else:
        raw.set("blocks:reply:support-1:r-1", "mine")
    rig.run(lambda: reply(raw, "operator", "r-2"))
    assert reply(raw, "support-1", "r-1") is not None
    assert rig.heard.level == ["rebuilt"]
    settle(rig)
    assert rig.heard.away == []


# --- once, and only once ---


@pytest.mark.every_backend
def test_repeated_id_gets_the_first_outcome(rig: Rig, raw: Any, ear: Ears) -> None:
    """Whatever has become of the file, and of the daemon, since; for each actor its own."""
    first = served(rig, raw, "support-1", "r-1")
    served(rig, raw, "support-1", "r-2", "close_file")
    refused = served(rig, raw, "ann", "r-1")
    assert refused["error"]["code"] == "not_found"
    rig.close()
    settle(rig.open())
    ear.changes()
    for actor, outcome in (("support-1", first), ("ann", refused)):
        raw.delete(f"blocks:reply:{actor}:r-1")
        assert served(rig, raw, actor, "r-1") == outcome
    assert not raw.exists("blocks:open:support-1")
    assert ear.kinds() == []


def test_repeated_id_in_one_batch(rig: Rig, raw: Any, ear: Ears) -> None:
    """It is done once, and replied once."""
    for _ in range(3):
        ask(raw, "support-1", "r-1")
    pass_on(rig, raw)
    rig.run(lambda: raw.xlen("blocks:inbox:support-1") == 0)
    assert reply(raw, "support-1", "r-1")
    assert ear.kinds() == ["opened"]


def test_outcomes_are_not_forgotten_by_a_clock_that_was_set(rig: Rig, raw: Any) -> None:
    """The same id is the same request, whatever the clock says."""
    first = served(rig, raw, "support-1", "r-1")
    rig.resync()
    raw.delete("blocks:reply:support-1:r-1")
    assert served(rig, raw, "support-1", "r-1") == first
    rig.wall_offset = 90_000
    rig.resync()
    raw.delete("blocks:reply:support-1:r-1")
    assert served(rig, raw, "support-1", "r-1") == first


@pytest.mark.parametrize("effect", ["requests", "project", "mirror"])
def test_crash_at_any_effect_loses_and_doubles_nothing(rig: Rig, raw: Any, ear: Ears, effect: str) -> None:
    """Killed before a request is journaled, before it is shown, or after: it is in the inbox until it is replied."""
    ask(raw, "support-1", "r-1")
    pass_on(rig, raw)
    for name in rig.core.round():
        if name == effect:
            break
    rig.crash()
    rig.wall_offset = 60
    rig.open()
    rig.run(lambda: rig.core.is_settled)
    pass_on(rig, raw)
    rig.run(lambda: raw.xlen("blocks:inbox:support-1") == 0)
    settle(rig)
    answer = reply(raw, "support-1", "r-1")
    assert answer is not None
    assert raw.hgetall("blocks:open:support-1") == {FILE: answer["last_accessed_at"]}
    assert ear.kinds().count("opened") == 1
    assert rig.heard.repaired == []


def test_journal_that_takes_nothing_keeps_requests_waiting(rig: Rig, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is replied, nothing shown; when it takes them again, they are done."""

    def full(*_: Any) -> None:
        raise JournalUnusable("the journal cannot be written: the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Results, "write", full)
        ask(raw, "support-1", "r-1")
        pass_on(rig, raw)
        rig.run(lambda: "<journal>" in rig.core.problems)
        rig.round()
        assert reply(raw, "support-1", "r-1") is None
        assert not raw.exists("blocks:open:support-1")
    assert rig.core.inbox.restarts == 1
    settle(rig)
    pass_on(rig, raw)
    rig.run(lambda: reply(raw, "support-1", "r-1"))
    assert raw.hkeys("blocks:open:support-1") == [FILE]
    assert "<journal>" not in rig.core.problems


def test_journal_that_takes_no_request_is_said_once(rig: Rig, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are read again and again meanwhile, and between two tries the journal has nothing to do."""

    def full(*_: Any) -> None:
        raise JournalUnusable("the journal cannot be written: the disk is full")

    while any(
        not one or not unpacked(one)[1] for one in rig.core.state.signatures.values()
    ):  # a file that was too fresh to be known is news for the journal
        rig.resync()
    rig.heard.problems.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Results, "write", full)
        ask(raw, "support-1", "r-1")
        end, restarts = rig.clock() + 20.0, -1
        while rig.clock() < end:
            if restarts != rig.core.inbox.restarts:  # the reader begins again, a moment later
                restarts = rig.core.inbox.restarts
                rig.round()
                rig.clock.advance(0.5)
                pass_on(rig, raw)
            rig.round()
            rig.clock.advance(max(rig.core.wait_seconds(), 0.001))
    assert [problem.subject for problem in rig.heard.problems] == ["<journal>"]
    assert rig.heard.cleared == []
    pass_on(rig, raw)
    rig.run(lambda: reply(raw, "support-1", "r-1"))
    assert "<journal>" not in rig.core.problems


@pytest.mark.every_backend
def test_redis_lost_between_journal_and_mirror(rig: Rig, raw: Any, server: RedisServer) -> None:
    """Nobody is there to be replied to; who asks again gets the first outcome."""
    ask(raw, "support-1", "r-1")
    pass_on(rig, raw)
    for name in rig.core.round():
        if name == "project":
            server.kill()
    rig.run(lambda: rig.heard.away)
    server.start()
    settle(rig)
    opened = raw.hget("blocks:open:support-1", FILE)
    assert opened
    assert served(rig, raw, "support-1", "r-1")["last_accessed_at"] == opened


def test_request_is_not_carried_out_while_another_may_be_in_charge(rig: Rig, raw: Any) -> None:
    """Whoever is level with the mirror holds the lease; a daemon that is not leaves requests where they are."""
    raw.set("blocks:lease", "another daemon")
    raw.hset("blocks:meta", mapping={"host": "elsewhere", "epoch": "e", "seq": "0"})
    rig.run(lambda: not rig.core.projector.is_in_sync)
    ask(raw, "support-1", "r-1")
    pass_on(rig, raw)
    for _ in range(10):
        rig.round()
    assert raw.xlen("blocks:inbox:support-1") == 1
    assert Results(rig.journal.database).outcome_of("support-1", "r-1") is None
    raw.delete("blocks:lease")
    settle(rig)
    pass_on(rig, raw)
    rig.run(lambda: reply(raw, "support-1", "r-1"))


# --- level again ---


def test_restart_keeps_what_is_open(rig: Rig, raw: Any, ear: Ears) -> None:
    """And announces nothing, since nothing has changed."""
    served(rig, raw, "support-1", "r-1")
    everything = of_sources(raw)
    for stop in (rig.close, rig.crash):
        ear.changes()
        stop()
        settle(rig.open())
        assert of_sources(raw) == everything
        assert ear.kinds() == []


def test_what_changed_while_it_was_away_is_announced(rig: Rig, raw: Any, ear: Ears, manuals: Path) -> None:
    """Files that changed, came and went; a file that is gone is closed."""
    served(rig, raw, "support-1", "r-1")
    served(rig, raw, "support-1", "r-2", file="manuals/b.txt")
    rig.close()
    ear.changes()
    (manuals / "a.txt").unlink()
    (manuals / "b.txt").write_text("changed")
    (manuals / "c.txt").write_text("new")
    settle(rig.open())
    assert sorted((change["kind"], change.get("files") or change["file"]) for change in ear.changes()) == [
        ("closed", "manuals/a.txt"),
        ("source", ["a.txt", "b.txt", "c.txt"]),
    ]
    assert raw.hget("blocks:file:manuals/b.txt", "value") == "changed"
    assert of_sources(raw) == fresh(rig, raw)
    (manuals / "a.txt").write_text("back")
    rig.core.sources.hint_all()
    settle(rig)
    assert raw.hget(f"blocks:file:{FILE}", "value") == "back"


def test_source_that_is_no_longer_configured_is_gone(rig: Rig, raw: Any, manuals: Path) -> None:
    """With all that was shown of it; another takes its place. What was open is open again when it comes back."""
    served(rig, raw, "support-1", "r-1")
    everything = of_sources(raw)
    for sources in ((), (settings_of(manuals, name="books"),)):
        rig.close()
        rig._settings["sources"] = sources
        settle(rig.open())
        assert not [key for key in of_sources(raw) if "manuals" in key]
        assert not raw.exists("blocks:open:support-1")
    assert raw.hkeys("blocks:sources") == ["books"]
    rig.close()
    rig._settings["sources"] = (settings_of(manuals),)
    settle(rig.open())
    assert of_sources(raw) == everything


# --- configured anew ---


def reconfigure(rig: Rig, *sources: SourceSettings, **settings: Any) -> None:
    """What a reload does."""
    rig.config = replace(rig.config, sources=sources, **settings)
    rig.core.reconfigure(rig.config)


def variants(manuals: Path) -> dict[str, tuple[SourceSettings, ...]]:
    """What a person may make of the configuration of the manuals."""
    known, other = settings_of(manuals), manuals.with_name("other")
    return {
        "as it was": (known,),
        "description": (replace(known, description=None, instructions="Read them."),),
        "more agents": (replace(known, agents=("*",)),),
        "other agents": (replace(known, agents=("ann",)),),
        "no agents": (replace(known, agents=()),),
        "limit": (replace(known, limit=2),),
        "directory": (replace(known, path=str(other)),),
        "removed": (),
        "added": (replace(known, name="books", path=str(other), agents=("*",)), known),
        "renamed": (replace(known, name="books"),),
        "mistaken": (SourceSettings("manuals", mistake="it has no path"),),
        "another mistaken": (known, SourceSettings("books", mistake="it has no path")),
    }


NAMES = list(variants(Path("manuals")))


@pytest.fixture
def other(manuals: Path) -> Path:
    """Another directory, with a file of the same name."""
    directory = manuals.with_name("other")
    directory.mkdir()
    (directory / "a.txt").write_text("elsewhere\n")
    (directory / "deep").mkdir()
    (directory / "deep" / "c.txt").write_text("three\n")
    return directory


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("name", NAMES)
def test_sources_follow_a_reload(rig: Rig, raw: Any, ear: Ears, manuals: Path, name: str) -> None:
    """The mirror shows what one built anew would, and not by repair; with the old settings all is as it was."""
    served(rig, raw, "support-1", "r-1")
    before = of_sources(raw)
    reconfigure(rig, *variants(manuals)[name])
    settle(rig)
    shown = of_sources(raw)
    assert (shown == before) == (name in ("as it was", "mistaken", "another mistaken"))
    assert not {"reset", "rejected"} & set(ear.kinds()) - {"rejected" if "mistaken" in name else ""}
    assert shown == fresh(rig, raw)
    reconfigure(rig, *variants(manuals)["as it was"])
    settle(rig)
    assert of_sources(raw) == before
    assert rig.heard.repaired == []
    assert rig.core.problems == {}


def test_reload_is_told_to_those_concerned(rig: Rig, raw: Any, ear: Ears, manuals: Path) -> None:
    """Who begins or ceases to see a source, or has nothing open any more; and whoever follows the source."""
    known = settings_of(manuals)
    served(rig, raw, "support-1", "r-1")
    ear.messages()
    said = {
        "description": [("manuals", "source")],
        "other agents": [("ann", "source"), ("manuals", "source"), ("support-1", "closed"), ("support-1", "source")],
        "removed": [("ann", "source"), ("manuals", "source")],
        "as it was": [("manuals", "source"), ("support-1", "opened"), ("support-1", "source")],
    }
    for name, wanted in said.items():
        reconfigure(rig, *variants(manuals)[name])
        settle(rig)
        assert set(ear.by_channel()) == set(wanted), name
    reconfigure(rig, known)
    settle(rig)
    assert ear.by_channel() == []


def test_directory_that_is_not_there_yet(rig: Rig, raw: Any, manuals: Path) -> None:
    """Moved to one that is missing, a source shows what it showed, and says so; when it is there, that."""
    served(rig, raw, "support-1", "r-1")
    before = of_sources(raw)
    reconfigure(rig, *variants(manuals)["directory"])
    rig.run(lambda: rig.core.problems)
    assert rig.core.problems["source manuals"].code == "source_missing"
    for _ in range(20):
        rig.round()
        rig.clock.advance(0.3)
    after = of_sources(raw)
    assert after.pop("blocks:sources") != before.pop("blocks:sources")
    assert after == before
    manuals.with_name("other").mkdir()
    settle(rig)
    assert not raw.exists("blocks:source:manuals", f"blocks:file:{FILE}", "blocks:open:support-1")
    assert rig.core.problems == {}


def test_mistake_at_a_reload_keeps_what_was_served(rig: Rig, raw: Any, manuals: Path) -> None:
    """It is a problem until it is mended, and requests are served meanwhile."""
    reconfigure(rig, *variants(manuals)["mistaken"])
    settle(rig)
    problem = rig.core.problems["source manuals"]
    assert (problem.code, problem.message) == ("misconfigured", "it has no path")
    assert "it is served as before" in problem.hint
    assert served(rig, raw, "support-1", "r-1")["ok"]
    (manuals / "a.txt").write_text("later\n")
    rig.core.sources.source("manuals").hint_file("a.txt", closed=True)
    settle(rig)
    assert raw.hget(f"blocks:file:{FILE}", "value") == "later\n"
    assert "source manuals" in rig.core.problems
    reconfigure(rig)
    settle(rig)
    assert rig.core.problems == {}
    assert of_sources(raw) == {}


def test_mistake_at_the_start_is_mended_by_a_reload(make_rig: Callable[..., Rig], raw: Any, manuals: Path) -> None:
    """No restart is needed."""
    rig = make_rig(sources=variants(manuals)["mistaken"])
    rig.write("notes", "---\nagents: [support-1, ann]\n---\none\n")
    settle(rig)
    assert rig.core.problems["source manuals"].hint == "correct [sources.manuals], and reload with SIGHUP"
    assert of_sources(raw) == {}
    reconfigure(rig, settings_of(manuals))
    settle(rig)
    assert rig.core.problems == {}
    assert set(raw.hkeys("blocks:source:manuals")) == {"a.txt", "b.txt"}
    assert served(rig, raw, "support-1", "r-1")["ok"]


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("seed", range(6))
def test_reloads_at_any_moment(rig: Rig, raw: Any, manuals: Path, seed: int) -> None:
    """While the mirror is compared, built anew or away, while files change and requests come in: it ends as it must."""
    random_ = random.Random(seed)
    known = variants(manuals)
    served(rig, raw, "support-1", "r-1")
    for turn in range(60):
        deed = random_.choice(
            ["reload", "reload", "round", "round", "save", "verify", "damage", "flush", "ask", "agent"]
        )
        if deed == "reload":
            reconfigure(rig, *known[random_.choice(NAMES)])
        elif deed == "round":
            rig.round()
            rig.clock.advance(random_.choice([0.0, 0.05, 1.5]))
        elif deed == "save":
            (manuals / random_.choice("abc")).with_suffix(".txt").write_text(f"{turn}")
            rig.core.sources.hint_all()
        elif deed == "verify":
            rig.core.projector.verifier.begin()
        elif deed == "damage":
            raw.delete(random_.choice(["blocks:sources", "blocks:source:manuals"]))
        elif deed == "flush" and random_.random() < 0.2:
            raw.flushall()
        elif deed == "agent":
            rig.write("notes", f"---\nagents: [{random_.choice(['ann', 'support-1', 'support-2'])}]\n---\none\n")
        elif deed == "ask":
            op, file = (
                random_.choice(["open_file", "close_file"]),
                random_.choice([FILE, "manuals/b.txt", "books/a.txt"]),
            )
            ask(raw, "support-1", f"t-{turn}", op, file=file)
            pass_on(rig, raw)
    reconfigure(rig, *known[random_.choice([name for name in NAMES if "mistaken" not in name])])
    rig.write("notes", "---\nagents: [support-1, ann]\n---\none\n")
    settle(rig)
    rig.resync()
    settle(rig)
    shown = of_sources(raw)
    assert shown == fresh(rig, raw)


# --- damage ---


DAMAGES: dict[str, Callable[[Any], Any]] = {
    "about": lambda raw: raw.hset("blocks:sources", "manuals", "{}"),
    "stray source": lambda raw: raw.hset("blocks:sources", "stray", "{}"),
    "listing lost": lambda raw: raw.delete("blocks:source:manuals"),
    "listing": lambda raw: raw.hset("blocks:source:manuals", "stray.txt", "{}"),
    "agents": lambda raw: raw.sadd("blocks:source-agents:manuals", "mallory"),
    "agents lost": lambda raw: raw.delete("blocks:source-agents:manuals"),
    "open": lambda raw: raw.hset("blocks:open:support-1", "manuals/b.txt", "now"),
    "open lost": lambda raw: raw.delete("blocks:open:support-1"),
    "open to another": lambda raw: raw.hset("blocks:open:ann", FILE, "now"),
    "content": lambda raw: raw.hset(f"blocks:file:{FILE}", "value", "forged"),
    "content lost": lambda raw: raw.delete(f"blocks:file:{FILE}"),
    "type of the listing": lambda raw: raw.set("blocks:source:manuals", "x"),
    "type of what is open": lambda raw: raw.set("blocks:open:support-1", "x"),
    "type of the content": lambda raw: raw.set(f"blocks:file:{FILE}", "x"),
    "type of the agents": lambda raw: raw.set("blocks:source-agents:manuals", "x"),
    "type of the sources": lambda raw: raw.set("blocks:sources", "x"),
}


@pytest.mark.every_backend
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_repaired_and_told(rig: Rig, raw: Any, ear: Ears, damage: Callable[[Any], Any]) -> None:
    """Whatever of it was evicted or edited by hand: the next comparison finds it, and says what it was."""
    served(rig, raw, "support-1", "r-1")
    everything = of_sources(raw)
    ear.changes()
    damage(raw)
    assert of_sources(raw) != everything
    rig.resync()
    assert of_sources(raw) == everything
    assert len(rig.heard.repaired) == 1
    told = ear.kinds()
    assert told
    assert set(told) <= {"source", "opened", "closed", "repaired"}


def test_comparing_what_is_right_writes_nothing(rig: Rig, raw: Any, ear: Ears) -> None:
    """Only questions are asked."""
    served(rig, raw, "support-1", "r-1")
    settle(rig)
    ear.changes()
    writes = raw.info("persistence")["rdb_changes_since_last_save"]
    verifier = rig.core.projector.verifier
    passes = verifier.passes
    verifier.begin()
    rig.run(lambda: verifier.passes > passes)
    # The renewed lease is the only thing that may have been written.
    assert raw.info("persistence")["rdb_changes_since_last_save"] - writes <= 3
    assert ear.kinds() == []


@pytest.mark.every_backend
def test_emptied_server_is_filled_again(rig: Rig, raw: Any, manuals: Path) -> None:
    """FLUSHALL: all of it is there again, and requests go on being served."""
    served(rig, raw, "support-1", "r-1")
    everything = of_sources(raw)
    assert fresh(rig, raw) == everything
    assert served(rig, raw, "support-1", "r-2", "close_file")["ok"]
    (manuals / "b.txt").write_text("changed")
    rig.core.sources.hint_all()
    settle(rig)
    assert of_sources(raw) == fresh(rig, raw)


@pytest.mark.every_backend
def test_rebuild_clears_what_is_stale(rig: Rig, raw: Any) -> None:
    """A mirror of another journal: nothing of what it said of files stays; requests that wait in it do."""
    raw.hset("blocks:file:old/x.txt", "value", "x")
    raw.hset("blocks:open:stranger", "old/x.txt", "then")
    raw.sadd("blocks:source-agents:old", "stranger")
    raw.hset("blocks:source:old", "x.txt", "{}")
    ask(raw, "support-1", "r-1")
    raw.hset("blocks:meta", "epoch", "another")
    rig.run(lambda: not rig.core.projector.is_in_sync)
    settle(rig)
    assert not [key for key in of_sources(raw) if "old" in key or "stranger" in key]
    assert raw.xlen("blocks:inbox:support-1") == 1


def test_without_sources_a_save_costs_what_it_did(make_rig: Callable[..., Rig], raw: Any) -> None:
    """One call of the one script, and nothing else."""
    rig = make_rig(sources=())
    rig.write("notes", "---\nagents: [support-1]\n---\none\n")
    settle(rig)
    rig.clock.advance(rig.core.projector.due - rig.clock())
    rig.round()  # a heartbeat, so that none comes with what is counted
    raw.config_resetstat()
    rig.write("notes", "---\nagents: [support-1]\n---\ntwo\n")
    rig.run(lambda: rig.core.intake.due == float("inf"))
    rig.mirror.wait()
    stats = raw.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()}
    ignored = ("config", "info", "client", "hello")
    assert {name: count for name, count in calls.items() if not name.startswith(ignored)} == {
        "evalsha": 1,
        "get": 1,
        "hmget": 1,
        "hset": 2,
        "publish": 2,
        "xadd": 1,
        "zadd": 1,  # the time in `blocks:updated`
    }
