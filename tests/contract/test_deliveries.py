"""The inboxes are read as fast as requests are carried out, and it is said when they cannot be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.deliveries import Deliveries
from blocksd.listener import Notes
from blocksd.reader import Readable
from blocksd.request import Entry
from rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import RedisServer


class Reading:
    """A reader of inboxes that reads nothing, and remembers what it was told."""

    def __init__(self) -> None:
        self.followed: list[tuple[frozenset[str], int]] = []
        self.starts = self.resumed = 0

    def start(self) -> None:
        self.starts += 1

    def follow(self, agents: frozenset[str], restarts: int) -> None:
        self.followed.append((agents, restarts))

    def resume(self) -> None:
        self.resumed += 1


@pytest.fixture
def rig(tmp_path: Path, standing_server: Callable[[str], RedisServer]) -> Iterator[Rig]:
    made = Rig(tmp_path, standing_server("valkey").url)
    made.write("notes", "---\nagents: [one]\n---\ntext\n")
    made.settle()
    yield made
    made.crash()


def deliveries_of(rig: Rig) -> tuple[Deliveries, Any]:
    reader: Any = Reading()
    return Deliveries(reader, rig.core, Notes([])), reader


def test_reader_follows_the_agents_that_are_known(rig: Rig) -> None:
    """It is told when they are others, or when everything is to be read again, and at no other time."""
    deliveries, reader = deliveries_of(rig)
    deliveries.direct()
    deliveries.direct()
    assert reader.followed == [(frozenset({"one"}), 0)]
    rig.write("notes", "---\nagents: [one, two]\n---\ntext\n")
    rig.settle()
    deliveries.direct()
    rig.core.inbox.begin_again()
    deliveries.direct()
    assert reader.followed[1:] == [(frozenset({"one", "two"}), 0), (frozenset({"one", "two"}), 1)]


def test_reader_goes_on_when_there_is_room(rig: Rig) -> None:
    """What it has read is put where requests wait; while that is full, it waits, too."""
    deliveries, reader = deliveries_of(rig)
    deliveries.direct()
    assert reader.resumed == 0, "it has not passed anything on"
    request = json.dumps({"id": "r-1", "op": "append", "label": "notes", "args": {"content": "more"}})
    deliveries.put([Entry("operator", "1-0", request)])
    deliveries.direct()
    assert (len(rig.core.inbox), reader.resumed) == (1, 1)
    deliveries.put([Entry("operator", f"2-{number}", "x" * 1_000_000) for number in range(9)])
    deliveries.direct()
    assert reader.resumed == 1
    rig.core.inbox.begin_again()
    deliveries.direct()
    deliveries.direct()
    assert reader.resumed == 2


def test_inboxes_that_cannot_be_read_are_said_once(rig: Rig) -> None:
    """If Redis is there otherwise, and it lasts; also that they can be again."""
    deliveries, reader = deliveries_of(rig)
    problems = rig.core.problems
    deliveries.note(Readable("NOPERM no xread"))
    deliveries.keep()
    deliveries.keep()
    assert "<inbox>" not in problems, "Redis may only just be back"
    before = problems.changes
    for _ in range(4):
        deliveries.keep()
    assert problems["<inbox>"].message == "no requests can be read: NOPERM no xread"
    deliveries.note(Readable(None))
    for _ in range(3):
        deliveries.keep()
    assert problems == {}
    assert problems.changes == before + 2
    assert reader.starts == 9, "one that has died is begun again"
    rig.core.projector.is_level = False
    deliveries.note(Readable("nobody there"))
    for _ in range(5):
        deliveries.keep()
    assert problems == {}, "that Redis is away is said already"
