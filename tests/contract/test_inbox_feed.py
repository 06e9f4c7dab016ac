"""The inboxes are read as fast as requests are carried out, and it is said when they cannot be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.monitoring.events import Notices, ServiceListener
from blocksd.monitoring.status import status_of
from blocksd.requests.consumer import Readable, Refused
from blocksd.requests.request import Entry
from blocksd.service.inbox_feed import InboxFeed
from rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import RedisServer


class Reading:
    """A reader of inboxes that reads nothing, and remembers what it was told."""

    def __init__(self) -> None:
        self.followed: list[tuple[frozenset[str], int]] = []
        self.starts = self.resumed = self.reconnects = 0
        self.held_back: frozenset[str] = frozenset()
        self.strangers = 0

    def read_strangers(self) -> None:
        self.strangers += 1

    def start(self) -> None:
        self.starts += 1

    def follow(self, agents: frozenset[str], restarts: int) -> None:
        self.followed.append((agents, restarts))

    def resume(self) -> None:
        self.resumed += 1

    def hold_back(self, actors: frozenset[str]) -> None:
        self.held_back = actors

    def reconnect(self) -> None:
        self.reconnects += 1


@pytest.fixture
def rig(tmp_path: Path, standing_server: Callable[[str], RedisServer]) -> Iterator[Rig]:
    made = Rig(tmp_path, standing_server("valkey").url)
    made.write("notes", "---\nagents: [one]\n---\ntext\n")
    made.settle()
    yield made
    made.crash()


def test_unknown_agents_are_read_once_the_folder_was(rig: Rig, tmp_path: Path) -> None:
    """As long as files are still to be read, an agent that is not known may be named by one of them."""
    fresh = Rig(tmp_path / "fresh", rig.url, namespace="fresh")
    fresh.write("notes", "---\nagents: [one]\n---\ntext\n")
    feed, reader = feed_of(fresh)
    feed.direct()
    assert reader.strangers == 0
    fresh.settle()
    feed.direct()
    feed.direct()
    assert reader.strangers == 1
    fresh.crash()


def feed_of(rig: Rig) -> tuple[InboxFeed, Any]:
    reader: Any = Reading()
    return InboxFeed(reader, rig.core, Notices([])), reader


def test_reader_follows_the_agents_that_are_known(rig: Rig) -> None:
    """It is told when they are others, or when everything is to be read again, and at no other time."""
    feed, reader = feed_of(rig)
    feed.direct()
    feed.direct()
    assert reader.followed == [(frozenset({"one"}), 0)]
    rig.write("notes", "---\nagents: [one, two]\n---\ntext\n")
    rig.settle()
    feed.direct()
    rig.core.inbox.forget_all()
    feed.direct()
    assert reader.followed[1:] == [(frozenset({"one", "two"}), 0), (frozenset({"one", "two"}), 1)]


def test_reader_goes_on_when_there_is_room(rig: Rig) -> None:
    """What it has read is put where requests wait; while that is full, it waits, too."""
    feed, reader = feed_of(rig)
    feed.direct()
    assert reader.resumed == 0, "it has not passed anything on"
    request = json.dumps({"id": "r-1", "op": "append", "label": "notes", "args": {"content": "more"}})
    feed.receive([Entry("operator", "1-0", request)])
    assert (len(rig.core.inbox), reader.resumed) == (1, 1), "it reads on while that is carried out"
    feed.direct()
    assert reader.resumed == 1
    feed.receive([Entry("operator", f"2-{number}", "x" * 1_000_000) for number in range(9)])
    feed.direct()
    assert reader.resumed == 1
    rig.core.inbox.forget_all()
    feed.direct()
    feed.direct()
    assert reader.resumed == 2


def test_inboxes_that_cannot_be_read_are_said_once(rig: Rig) -> None:
    """If Redis is there otherwise, and it lasts; also that they can be again."""
    feed, reader = feed_of(rig)
    problems = rig.core.problems
    feed.set_obstacle(Readable("NOPERM no xread"))
    feed.check()
    feed.check()
    assert "<inbox>" not in problems, "Redis may only just be back"
    before = problems.changes
    for _ in range(4):
        feed.check()
    assert problems["<inbox>"].message == "no requests can be read: NOPERM no xread"
    feed.set_obstacle(Readable(None))
    for _ in range(3):
        feed.check()
    assert problems == {}
    assert problems.changes == before + 2
    assert reader.starts == 9, "one that has died is begun again"
    rig.core.projector.is_in_sync = False
    feed.set_obstacle(Readable("nobody there"))
    for _ in range(5):
        feed.check()
    assert problems == {}, "that Redis is away is said already"


def test_reader_begins_anew_when_redis_was_lost(rig: Rig) -> None:
    """Once, when the mirror is in sync again: it may be on another server, and replies may be lost."""
    feed, reader = feed_of(rig)
    feed.direct()
    rig.core.projector.is_in_sync = False
    feed.direct()
    feed.direct()
    assert reader.reconnects == 0
    rig.core.projector.is_in_sync = True
    feed.direct()
    feed.direct()
    assert reader.reconnects == 1


def test_actor_with_much_is_held_back(rig: Rig) -> None:
    """The reader is told when that begins and when it ends; others' entries are read meanwhile."""
    feed, reader = feed_of(rig)
    feed.receive([Entry("operator", f"1-{number}", "{}") for number in range(200)])
    feed.direct()
    assert (reader.held_back, reader.resumed) == ({"operator"}, 1)
    rig.core.inbox.forget_all()
    feed.direct()
    assert reader.held_back == frozenset()


class Words(ServiceListener):
    """Remembers what is logged."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def on_notice(self, message: str, level: str) -> None:
        self.said.append(message)


def test_refused_entries_are_counted_and_logged_seldom(rig: Rig) -> None:
    """Of each actor once a minute, and then all of them; `status` has the numbers."""
    words, now = Words(), 100.0
    feed = InboxFeed(Reading(), rig.core, Notices([words], clock=lambda: now))  # type: ignore[arg-type]
    feed.receive(Refused("loud", dropped=3))
    rig.core.inbox.add([Entry("ann", "1-0", "not JSON")])
    rig.run(lambda: rig.core.dropped)
    feed.direct()
    feed.check()
    assert sorted(words.said) == [
        "dropped from the inbox of ann: 1 that are no requests and have no id to reply to",
        "dropped from the inbox of loud: 3 that are no requests and have no id to reply to",
    ]
    for _ in range(3):
        feed.receive(Refused("loud", dropped=500, surplus=7))
        feed.receive(Refused("loud", oversized=1))
        feed.check()
    assert len(words.said) == 2
    now += 61
    feed.check()
    feed.check()
    (last,) = words.said[2:]
    assert last.startswith("dropped from the inbox of loud: 1500 that are no requests and have no id to reply to, ")
    assert last.endswith(" 3 of over 1048576 bytes, 21 beyond the 10000 that wait")
    assert rig.core.inbox.refused == {"dropped": 1504, "oversized": 3, "surplus": 21}
    status = status_of(rig.core, seq=1, read=None, watches=0, watch_limit=None)
    assert status.as_json()["refused"] == {"dropped": 1504, "oversized": 3, "surplus": 21}
