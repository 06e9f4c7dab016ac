"""What can change while the daemon runs does, from the next time it matters."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.core.core import SWEEP_PAUSE
from blocksd.files.root import Root
from blocksd.requests.request import Entry
from rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import RedisServer


class Reloading(Rig):
    """A daemon whose settings a test changes."""

    numbers = itertools.count(1)

    def reconfigure(self, **settings: Any) -> None:
        self.config = replace(self.config, **settings)
        self.core.reconfigure(self.config)

    def append(self, label: str, content: str) -> None:
        """What an agent or an operator asks for, carried out."""
        number = next(self.numbers)
        request = {"id": f"r-{number}", "op": "append", "label": label, "args": {"content": content}}
        self.core.inbox.add([Entry("operator", f"{number}-0", json.dumps(request))])
        self.settle()

    def texts(self, label: str) -> list[str | None]:
        """Every text of a block that is kept, oldest first."""
        return [one.block.value if one.block else None for one in reversed(self.journal.history(label))]


@pytest.fixture
def rig(tmp_path: Path, standing_server: Callable[[str], RedisServer]) -> Iterator[Reloading]:
    made = Reloading(tmp_path, standing_server("valkey").url)
    made.save_and_settle("notes", "one\n")
    yield made
    made.crash()


def test_everything_is_compared(rig: Reloading) -> None:
    """At once, whatever has changed: what came by no event is found."""
    (rig.root / "unseen.md").write_text("unseen\n")
    rig.settle()
    assert "unseen" not in rig.core.state.paths
    rig.reconfigure()
    assert rig.core.wait_seconds() == 0
    rig.settle()
    assert "unseen" in rig.core.state.paths
    assert rig.heard.repaired == []


def test_sweep_under_way_begins_again(rig: Reloading) -> None:
    """What it has passed already is compared, too."""
    for number in range(600):
        (rig.root / f"block-{number}.md").write_text("text\n")
    rig.core.intake.hint_all()
    rig.round()
    assert rig.core.intake.scanner.is_sweeping
    (rig.root / "aaa.md").write_text("late\n")
    rig.reconfigure()
    rig.settle()
    assert len(rig.core.state.paths) == 602


@pytest.mark.parametrize(
    "settings", [{"resync_seconds": 7.0}, {"poll": True, "poll_seconds": 7.0}], ids=["resync", "poll"]
)
def test_time_between_comparisons(rig: Reloading, settings: dict[str, Any]) -> None:
    """Of everything."""
    rig.reconfigure(**settings)
    rig.settle()
    sweeps, begun = rig.core.intake.scanner.sweeps, rig.clock()
    rig.run(lambda: rig.core.intake.scanner.sweeps > sweeps)
    assert 4 < rig.clock() - begun < 8


def test_delete_grace(rig: Reloading) -> None:
    """For how long a file may be gone."""
    rig.reconfigure(delete_grace=20.0)
    rig.settle()
    rig.remove("notes")
    gone = rig.clock()
    rig.run(lambda: rig.clock() > gone + 15)
    assert rig.texts("notes") == ["one"]
    rig.run(lambda: rig.texts("notes") == ["one", None])
    assert rig.clock() >= gone + 20


def test_stale_window(rig: Reloading) -> None:
    """For how long a save may be one of the text before."""
    rig.wall_offset = -3.0
    rig.append("notes", "asked for")
    rig.save_and_settle("notes", "one\nsaved\n")
    assert sorted(str(rig.texts("notes")[-1]).split("\n")) == ["asked for", "one", "saved"]
    rig.reconfigure(stale_window=1.0)
    rig.save_and_settle("notes", "one\n")
    rig.append("notes", "asked again")
    rig.save_and_settle("notes", "one\nsaved\n")
    assert rig.texts("notes")[-2:] == ["one\nasked again", "one\nsaved"]


def test_durability(rig: Reloading, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a write waits for the disk."""
    waits: list[int] = []
    monkeypatch.setattr(os, "fsync", waits.append)
    rig.append("notes", "two")
    assert waits
    waits.clear()
    rig.reconfigure(durability="process")
    rig.append("notes", "three")
    assert waits == []
    rig.reconfigure(durability="disk")
    rig.append("notes", "four")
    assert waits
    assert rig.texts("notes")[-1] == "one\ntwo\nthree\nfour"


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"history_versions": 2}, ["4", "5"]),
        ({"history_days": 1.0}, ["5"]),
        ({"history_days": 36_500.0}, ["one", "2", "3", "4", "5"]),
    ],
    ids=["versions", "days", "century"],
)
def test_history(rig: Reloading, settings: dict[str, Any], kept: list[str]) -> None:
    """How much of it is kept of a block that changes."""
    for number in range(2, 5):
        rig.save_and_settle("notes", f"{number}\n")
    rig.wall_offset = 100_000.0
    rig.save_and_settle("notes", "5\n")
    rig.reconfigure(**settings)
    rig.settle()
    for _ in range(6):  # what is old is told once the time of day has gone on for an hour
        rig.clock.advance(1900.0)
        rig.wall_offset += 1900.0
        rig.run(lambda: rig.core.schedule["retention"] > rig.clock() + 1)
    assert rig.texts("notes") == kept


@pytest.mark.parametrize("poll", [False, True])
def test_folder_that_takes_long_to_compare_is_compared_less_often(
    rig: Reloading, monkeypatch: pytest.MonkeyPatch, *, poll: bool
) -> None:
    """A sweep of two seconds is not made every minute, unless there is nothing but sweeps to find changes by."""
    scandir = Root.scandir

    def slow(root: Root, path: str) -> object:
        rig.clock.advance(2.0)
        return scandir(root, path)

    rig.reconfigure(poll=poll)
    monkeypatch.setattr(Root, "scandir", slow)
    rig.run(lambda: rig.core.intake.scanner.seconds >= 2.0)
    begun = rig.clock()
    sweeps = rig.core.intake.scanner.sweeps
    monkeypatch.undo()
    rig.core.schedule["sweep"] = begun
    rig.run(lambda: rig.core.intake.scanner.sweeps > sweeps)
    pause = rig.config.poll_seconds if poll else 2.0 * SWEEP_PAUSE
    assert rig.core.schedule["sweep"] == pytest.approx(begun + pause, abs=1.0)
    rig.core.schedule["sweep"] = rig.clock()
    rig.round()  # the last sweep took no time
    assert rig.core.schedule["sweep"] == rig.clock() + rig.config.sweep_seconds
