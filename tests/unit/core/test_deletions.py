"""Which missing files delete their blocks, when, and what holds that back."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from blocksd.files.folder import Absent
from blocksd.model.problem import FOLDER
from blocksd.state.sweep import Sweep
from looking import GRACE, Looking, drop, fickle, fill, happened

if TYPE_CHECKING:
    from collections.abc import Callable


# --- files ---


def test_deletion_waits_for_its_grace(looking: Looking) -> None:
    """A file must stay away for a while; one that comes back in time was never gone."""
    looking.save("notes", "one\n")
    drop(looking, ["notes"])
    looking.intake.hint_file("notes.md", closed=False)
    assert looking.wait(GRACE * 0.9) == []
    assert happened(looking.save("notes", "two\n")) == [("updated", "notes")]
    assert looking.wait(10) == []


def test_file_back_without_a_word_is_not_deleted(looking: Looking) -> None:
    """Before a deletion is decided the file is looked for once more."""
    looking.save("notes", "one\n")
    drop(looking, ["notes"])
    looking.intake.hint_file("notes.md", closed=False)
    looking.wait(GRACE * 0.5)
    looking.write("notes", "two\n")
    assert happened(looking.wait(GRACE * 2)) == [("updated", "notes")]


def test_sweeps_do_not_put_a_deletion_off(looking: Looking) -> None:
    """Seeing again that a file is gone, as polling does all the time, is no reason to wait longer."""
    looking.save("notes", "one\n")
    drop(looking, ["notes"])
    revisions = []
    for _ in range(5):
        looking.intake.hint_all()
        revisions += looking.wait(GRACE / 4)
    assert happened(revisions) == [("deleted", "notes")]


def test_deletions_are_judged_together(looking: Looking) -> None:
    """Files that vanish one after the other, each within the grace of the one before, are one event."""
    labels = fill(looking, 12)
    for label in labels[:7]:
        drop(looking, [label])
        looking.intake.hint_file(f"{label}.md", closed=False)
        assert looking.wait(GRACE * 0.8) == []
    assert looking.wait(GRACE * 2) == []
    assert "7 of 12 blocks vanished at once" in looking.problem(FOLDER).message


@pytest.mark.parametrize(
    ("count", "gone", "said"),
    [(3, 3, None), (4, 4, "all 4 blocks vanished"), (4, 3, None), (10, 9, None), (12, 7, "7 of 12"), (12, 6, None)],
)
def test_what_is_doubted(looking: Looking, count: int, gone: int, said: str | None) -> None:
    """Few deletions go through; too many at once are held back."""
    labels = fill(looking, count)
    drop(looking, labels[:gone])
    revisions = looking.sweep(10)
    if said is None:
        assert happened(revisions) == [("deleted", label) for label in labels[:gone]]
        assert looking.problems == {}
    else:
        assert revisions == []
        assert said in looking.problem(FOLDER).message
        assert looking.problem(FOLDER).code == "halted"


def test_saves_go_on_while_deletions_are_held_back(looking: Looking) -> None:
    """To halt is to hold deletions back, nothing else; files that return end it, one and all."""
    labels = fill(looking, 12)
    drop(looking, labels[:7])
    looking.sweep(10)
    assert happened(looking.save(labels[8], "other\n")) == [("updated", labels[8])]
    assert happened(looking.save("new", "text\n")) == [("created", "new")]
    for label in labels[:6]:
        looking.write(label, f"{label}\n")
    assert happened(looking.wait(10)) == [("deleted", labels[6])]
    assert looking.problems == {}


def test_accepted_deletions_go_through_once(looking: Looking) -> None:
    """A person's word is for what is held back at that moment."""
    labels = fill(looking, 40)
    drop(looking, labels[:25])
    looking.sweep(10)
    looking.intake.deletions.accept()
    assert happened(looking.wait(1)) == [("deleted", label) for label in labels[:25]]
    assert looking.problems == {}
    drop(looking, labels[25:])
    assert looking.sweep(10) == []
    assert "all 15 blocks" in looking.problem(FOLDER).message


def test_accepting_when_nothing_is_held_back_is_no_licence(looking: Looking) -> None:
    """Someone who says yes to nothing has not said yes to the next disaster."""
    labels = fill(looking, 5)
    looking.intake.deletions.accept()
    looking.wait(10)
    drop(looking, labels)
    assert looking.sweep(10) == []
    assert "all 5 blocks" in looking.problem(FOLDER).message


def test_doubt_outlives_a_restart(looking: Looking) -> None:
    """What is held back is held back by the next daemon, too."""
    labels = fill(looking, 12)
    drop(looking, labels[:11])
    looking.sweep(10)
    looking.close()
    looking.open()
    assert looking.sweep(10) == []
    assert "11 of 12 blocks" in looking.problem(FOLDER).message


# --- the folder itself ---


def replace(looking: Looking) -> None:
    shutil.copytree(looking.root, looking.root.with_name("copy"))
    shutil.rmtree(looking.root)
    looking.root.with_name("copy").rename(looking.root)


def move_and_back(looking: Looking) -> None:
    looking.root.rename(looking.root.with_name("away"))
    looking.intake.check_root()
    looking.sweep(10)
    assert "the folder is gone" in looking.problem(FOLDER).message
    looking.root.with_name("away").rename(looking.root)


@pytest.mark.parametrize("act", [replace, move_and_back])
@pytest.mark.parametrize("count", [1, 5])
def test_folder_that_comes_back_whole(looking: Looking, act: Callable[[Looking], None], count: int) -> None:
    """A folder that was away, or is another directory with the same files, is served on without a change."""
    fill(looking, count)
    act(looking)
    looking.intake.check_root()
    assert looking.wait(10) == []
    assert looking.problems == {}
    assert happened(looking.save("alive", "text\n")) == [("created", "alive")]


def test_folder_that_comes_back_with_less(looking: Looking) -> None:
    """After a folder was away even one missing block is doubted."""
    labels = fill(looking, 5)
    looking.root.rename(looking.root.with_name("away"))
    assert not looking.intake.check_root()
    drop_from = looking.root.with_name("away")
    (drop_from / f"{labels[0]}.md").unlink()
    drop_from.rename(looking.root)
    looking.intake.check_root()
    assert looking.wait(10) == []
    assert "1 of 5 blocks are missing" in looking.problem(FOLDER).message
    looking.intake.deletions.accept()
    assert happened(looking.wait(2)) == [("deleted", labels[0])]
    assert looking.problems == {}


def test_folder_replaced_during_a_sweep_is_swept_again(looking: Looking) -> None:
    """What a sweep saw of the directory before says nothing of this one: the doubt lasts until all of it was seen."""
    for number in range(600):
        looking.write(f"block-{number:03}", "text\n")
    looking.sweep()
    path = next(iter(Sweep(looking.folder).walk()))[0].path
    looking.intake.hint_all()
    looking.look_once(256)
    assert looking.intake.scanner.is_sweeping
    shutil.copytree(looking.root, looking.root.with_name("copy"))
    looking.root.rename(looking.root.with_name("away"))
    looking.root.with_name("copy").rename(looking.root)
    (looking.root / path).unlink()
    assert looking.wait(10) == []
    assert "1 of 600 blocks are missing" in looking.problem(FOLDER).message


def test_folder_that_cannot_be_looked_at_is_not_gone(looking: Looking) -> None:
    """An error in asking for the folder is no answer: nothing is concluded from it."""
    fill(looking, 5)
    fickle(looking).is_unknown = True
    assert looking.intake.check_root()
    assert looking.wait(10) == []
    assert looking.problems == {}


def test_no_deletion_is_decided_while_the_folder_is_gone(looking: Looking) -> None:
    """Files that vanished just before their folder did are kept with the rest."""
    looking.save("notes", "text\n")
    drop(looking, ["notes"])
    looking.intake.hint_file("notes.md", closed=False)
    looking.wait(GRACE / 2)
    looking.root.rename(looking.root.with_name("away"))
    assert looking.wait(10) == []
    assert looking.value() == "text"


def test_file_that_seems_to_be_gone_only_once(looking: Looking) -> None:
    """A file system that says for a moment that a file is not there deletes nothing."""
    looking.save("notes", "text\n")
    fickle(looking).answers["notes.md"] = Absent()
    looking.intake.hint_file("notes.md", closed=True)
    looking.wait(GRACE / 2)
    fickle(looking).answers.clear()
    assert looking.wait(10) == []
