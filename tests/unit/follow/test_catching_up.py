"""What a follower that has much to catch up with looks at, and when it says that it has caught up."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.follow.leader import Begun
from blocksd.follow.local_edits import LocalEdits
from blocksd.follow.report import Report
from blocksd.follow.resync import Resync
from blocksd.follow.work import Work
from blocksd.model.revision import Change
from blocksd.settings.config import Config
from followers import Side, wanted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path


@pytest.fixture
def side(tmp_path: Path) -> Iterator[Side]:
    made = Side(tmp_path)
    yield made
    made.close()


class Parts:
    """A follower without threads: its work, and how often the whole folder or some directories were swept."""

    def __init__(self, side: Side) -> None:
        copy: Any = side
        copy.is_read_only = copy.is_marked = copy.adopts = True
        copy.refusal = lambda: None
        copy.mark = lambda _epoch: None
        config = Config(state_dir=str(side.path.parent / "state"))
        self.report = Report(config, copy, "", [])
        self.edits = LocalEdits(copy, self.report, config, None)
        self.swept: list[set[str]] = []
        self.shown: dict[str, str] = {}
        self.read: list[str] = []
        sweep = self.edits.sweep

        def counted(below: Collection[str] = ("",)) -> Iterator[None]:
            self.swept.append(set(below))
            yield from sweep(below)

        self.edits.sweep = counted  # type: ignore[method-assign]
        mirrored: Any = SimpleNamespace(read=self._read, see=lambda _epoch, _seq: None, epoch="e")
        self.work = Work(config, copy, mirrored, self.edits, None, self.report, lambda _done, _left: None)

    def _read(self, labels: list[str]) -> dict[str, Any]:
        self.read += labels
        return {label: wanted(label, self.shown.get(label)) for label in labels}

    def rest(self) -> None:
        while not self.work.go_on():
            pass


def test_directory_that_comes_is_swept_alone(side: Side) -> None:
    """Else a first copy would look at all files again for each directory that it makes."""
    side.bring({f"{part}/{name}": name for part in ("one", "two") for name in "abc"})
    side.place.move("e", 3)
    parts = Parts(side)
    parts.rest()
    assert parts.swept == [{""}]
    for part in ("one", "two"):
        (side.path / part / "a.md").write_text("mine")
        (side.path / part / "b.md").unlink()
    (side.path / "one" / "new.md").write_text("new")
    parts.work.sweep_soon("one")
    parts.rest()
    assert parts.swept == [{""}, {"one"}]
    assert sorted(parts.report.edits) == ["one/a.md", "one/new.md"]
    assert set(parts.edits._missing) == {"one/b.md"}
    parts.work.sweep_soon("two")
    parts.work.sweep_soon()
    parts.rest()
    assert parts.swept == [{""}, {"one"}, {""}]
    assert sorted(parts.report.edits) == ["one/a.md", "one/new.md", "two/a.md"]


def test_place_stays_until_what_was_missed_is_heard(side: Side) -> None:
    """A follower that is killed then has lost none of it; and only then it says that it is ready."""
    side.bring({"a": "1", "b": "1"})
    side.place.move("e", 3)
    parts = Parts(side)
    parts.work.begin(Begun("e", 5, 3))
    parts.rest()
    assert (side.place.seq, parts.work.has_arrived) == (3, False)
    for seq, label in ((4, "a"), (5, "b")):
        parts.shown[label] = "2"
        parts.work.hear(Change.loads(json.dumps({"kind": "updated", "seq": seq, "epoch": "e", "label": label})))
        parts.rest()
        assert (side.place.seq, parts.work.has_arrived) == (seq, seq == 5)
    assert side.tree() == {"a.md": "2", "b.md": "2"}


def test_comparison_looks_at_what_differs_alone(side: Side) -> None:
    """And at what is due, edited here, or not proven by its signature; sweeps look at the other files."""
    side.bring(dict.fromkeys(("same", "due", "edited", "unproven"), "1"))
    side.place.move("e", 3)
    (side.path / "edited.md").write_text("mine")
    parts = Parts(side)
    parts.rest()
    side.place.finish({"unproven.md": side.place.files["unproven.md"]._replace(signature=None)}, due=["due"])
    asked: list[dict[str, tuple[int, str]]] = []

    def differing(labels: list[str], known: dict[str, tuple[int, str]]) -> Iterator[tuple[int, dict[str, Any]]]:
        asked.append(known)
        yield len(labels), {}

    mirrored: Any = SimpleNamespace(
        labels=lambda: ("e", ["same", "due", "edited", "unproven"]),
        differing=differing,
        stand=lambda: SimpleNamespace(epoch="e", generation=0),
    )
    copy: Any = side
    resync = Resync(copy, mirrored, ("e", 9), parts.report)
    while resync.go_on() is not None:
        pass
    same = side.place.files["same.md"]
    assert asked == [{"same": (same.version, same.form)}]
    assert (resync.done, resync.left) == (4, 0)


def test_copy_is_not_in_sync_until_what_an_answer_is_about_was_read(side: Side) -> None:
    """Where the leader has renamed a block that was edited here, the old file is still there then."""
    side.place.move("e", 3)
    parts = Parts(side)
    parts.work.begin(Begun("e", 3, 3))
    parts.rest()
    parts.report.ready()
    assert parts.report.is_in_sync
    parts.work._outgoing = SimpleNamespace(  # type: ignore[assignment]
        take=lambda _answered: (["a"], []),
        due_at=float("inf"),
        go_on=lambda _now, _read: [],
        is_asking=False,
    )
    parts.shown["a"] = "1"
    answered: Any = SimpleNamespace(reply=None)
    parts.work.answer(answered)
    assert not parts.report.is_in_sync
    parts.rest()
    assert parts.report.is_in_sync
    assert side.tree() == {"a.md": "1"}
