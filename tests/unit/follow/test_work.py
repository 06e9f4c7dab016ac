"""What a follower takes from what it hears of the leader: which mirror is too old to be read, and when it tries again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import Unavailable
from blocksd.follow.leader import Begun
from blocksd.follow.local_edits import LocalEdits
from blocksd.follow.mirrored import Mirrored
from blocksd.follow.outgoing import Outgoing
from blocksd.follow.report import LEADER, Report
from blocksd.follow.sender import Answered
from blocksd.follow.work import Work
from blocksd.model.revision import Change
from blocksd.settings.config import Config
from followers import Side, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from blocksd.follow.mirrored import Shown
    from blocksd.follow.outbox import Unsent


class Served(Mirrored):
    """A mirror that stands where a test says, and has one text."""

    def __init__(self) -> None:
        super().__init__("redis://127.0.0.1:1", "blocks")
        self.at: tuple[str, int] | None = ("e", 5)
        self.text: str | None = "old"

    def read(self, labels: Sequence[str]) -> dict[str, Shown]:
        if self.at is None:
            raise Unavailable("Redis does not serve")
        self.check(*self.at)
        return {label: wanted(label, self.text) for label in labels}


class Host:
    """A writable follower that was in sync at change 5 of the epoch `e`."""

    def __init__(self, path: Path) -> None:
        self.side = Side(path)
        self.side.bring({"notes": "old"})
        self.side.place.move("e", 5)
        self.sent: list[Unsent] = []
        self.mirrored = Served()
        copy: Any = self.side
        copy.is_marked, copy.mark = False, lambda _epoch: None
        sender: Any = self
        config = Config(state_dir=str(path / "state"), delete_grace=0.0)
        self.report = Report(config, copy, "", [])
        self.outgoing = Outgoing(copy, self.report, sender)
        edits = LocalEdits(copy, self.report, config, self.outgoing)
        self.work = Work(config, copy, self.mirrored, edits, self.outgoing, self.report, lambda _done, _left: None)
        self.work.begin(Begun("e", 5, 5))

    def send(self, edit: Unsent) -> None:
        self.sent.append(edit)

    def go_on(self) -> None:
        while not self.work.go_on():
            pass

    def hear(self, seq: int) -> None:
        self.work.hear(Change.loads(f'{{"kind": "updated", "label": "notes", "epoch": "e", "seq": {seq}}}'))

    def text(self) -> str:
        return (self.side.path / "notes.md").read_text()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.side.close()


def test_text_that_the_leader_has_taken_outlives_an_older_mirror(host: Host) -> None:
    """The reply came, and the server with its change was replaced by one without, before the change was heard."""
    (host.side.path / "notes.md").write_text("new")
    host.work.sweep_soon()
    host.go_on()
    host.work.answer(Answered(host.sent[0], {"label": "notes", "version": 2, "seq": 6}))
    host.go_on()
    assert host.text() == "new"
    assert "older than this copy" in str(host.report.problems.get(LEADER))
    host.mirrored.at, host.mirrored.text = ("e", 6), "new"
    host.hear(6)
    go_on_now(host)
    assert host.text() == "new"
    assert host.side.place.seq == 6


def test_number_of_another_journal_is_not_waited_for(host: Host) -> None:
    """The leader answers, and takes another journal, whose numbers begin again."""
    (host.side.path / "notes.md").write_text("new")
    host.work.sweep_soon()
    host.go_on()
    host.mirrored.at, host.mirrored.text = ("f", 1), "of the other journal"
    host.mirrored.see("f", 1)
    host.work.answer(Answered(host.sent[0], {"label": "notes", "version": 2, "seq": 6}))
    go_on_now(host)
    assert host.text() == "of the other journal"
    with pytest.raises(Unavailable):
        host.mirrored.check("f", 0)


@pytest.mark.parametrize(
    "news",
    [
        lambda work: work.begin(Begun("e", 6, 5)),
        lambda work: work.hear(Change("updated", 6, "e", "notes", {})),
        Work.leader_serves,
    ],
    ids=["begun", "a change", "it is heard again"],
)
def test_what_failed_is_tried_soon_when_the_leader_is_heard_again(host: Host, news: Callable[[Work], object]) -> None:
    """It was tried later each time: after a while a minute later."""
    host.mirrored.at = None
    host.hear(6)
    for _ in range(10):
        host.work.go_on()
        host.work._retry_at = 0.0
    host.work.go_on()
    assert host.work.due_at > time.monotonic() + 10
    news(host.work)
    assert host.work.due_at < time.monotonic() + 10


def go_on_now(host: Host) -> None:
    host.work._retry_at = 0.0
    host.go_on()
