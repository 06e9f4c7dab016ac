"""What is read of the inboxes, and when: nothing is missed, and nothing is read for what the daemon itself removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from blocksd.requests.inbox_session import Orders, Session
from blocksd.requests.inboxes import Reading
from blocksd.requests.request import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blocksd.requests.inboxes import Inboxes


class Served:
    """Inboxes as a server tells of them: each change of one is a message."""

    is_told = True

    def __init__(self) -> None:
        self.held: dict[str, list[str]] = {}
        self.messages: dict[str, int] = {}
        self.readings = 0

    def add(self, actor: str, entry_id: str) -> None:
        self.held.setdefault(actor, []).append(entry_id)
        self.messages[actor] = self.messages.get(actor, 0) + 1

    def remove(self, actor: str, entry_id: str) -> None:
        self.held[actor].remove(entry_id)
        self.messages[actor] = self.messages.get(actor, 0) + 1

    def changed(self) -> dict[str, int]:
        changed, self.messages = self.messages, {}
        return changed

    def find(self, actors: Iterable[str], *, thorough: bool) -> list[str]:
        return [actor for actor in actors if self.held.get(actor)] if not thorough else []

    def read(self, wanted: Iterable[tuple[str, str, int]], *, lease: str) -> dict[str, Reading]:
        self.readings += 1
        readings = {}
        for actor, cursor, _ in wanted:
            held = self.held.get(actor, [])
            new = [entry_id for entry_id in held if entry_id > cursor]
            last = new[-1] if new else cursor
            readings[actor] = Reading(False, last, len(held), [Entry(actor, one, lease) for one in new], 0, 0, 0)
        return readings


class Sitting:
    """A session of the operator's inbox, at a time that a test sets."""

    def __init__(self) -> None:
        self.served = Served()
        self.now = 100.0
        self.session = Session(cast("Inboxes", self.served), Orders(), self.now)
        self.step()

    def step(self) -> list[str]:
        """The ids of the entries that are read now."""
        session = self.session
        session.take(Orders(), self.now)
        session.hear(self.now)
        session.look(self.now)
        if not session.is_ready(self.now):
            return []
        session.read(self.now, "")
        entries, session.entries = session.entries, []
        return [entry.id for entry in entries]

    @property
    def wait(self) -> float:
        return self.session.wait_seconds(self.now, has_room=True)


def test_own_removal_is_not_read_for() -> None:
    """As long as requests come one after the other, each is read once; only when none comes, the inbox is seen to be empty."""
    sitting = Sitting()
    served, before = sitting.served, sitting.served.readings
    for number in range(1, 6):
        served.add("operator", f"{number}")
        assert sitting.step() == [f"{number}"]
        served.remove("operator", f"{number}")
        assert sitting.step() == []
        assert not sitting.session.wants_room
        sitting.now += 0.0005
    assert served.readings - before == 5
    assert 0 < sitting.wait <= 0.002
    sitting.now += sitting.wait
    assert sitting.step() == []
    assert served.readings - before == 6
    assert not sitting.session.cursors
    assert sitting.wait > 0.1


def test_request_beside_one_under_way_is_read() -> None:
    """At once if two messages tell of changes, together or one after the other; else a moment later."""
    sitting = Sitting()
    served = sitting.served
    served.add("operator", "1")
    assert sitting.step() == ["1"]
    served.add("operator", "2")
    assert sitting.step() == []
    served.remove("operator", "1")
    assert sitting.step() == ["2"]
    served.remove("operator", "2")
    served.add("operator", "3")
    assert sitting.step() == ["3"]
    served.messages.clear()
    served.held["operator"] = ["4"]
    served.messages["operator"] = 1  # the removal of one, and another added in the same moment
    assert sitting.step() == []
    sitting.now += sitting.wait
    assert sitting.step() == ["4"]


def test_first_request_is_read_at_once() -> None:
    """Nothing of its inbox is under way."""
    sitting = Sitting()
    for number in range(1, 3):
        sitting.served.add("operator", f"{number}")
        assert sitting.step() == [f"{number}"]
        sitting.served.remove("operator", f"{number}")
        sitting.step()
        sitting.now += 0.01
        assert sitting.step() == []


def test_what_is_put_off_is_read_when_all_is_read_again() -> None:
    """And it is forgotten with its actor."""
    sitting = Sitting()
    sitting.served.add("operator", "1")
    sitting.step()
    sitting.served.add("operator", "2")
    sitting.session.hear(sitting.now)
    assert sitting.session.put_off
    sitting.session.take(Orders(restarts=1), sitting.now)
    assert not sitting.session.put_off
    assert sitting.session.wants_room
