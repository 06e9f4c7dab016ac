"""What differs from what is known of the folder is looked at, wherever it is."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING
from unittest.mock import Mock

from blocksd.files.root import Root
from blocksd.model.label import printable
from looking import GRACE, Looking, drop, fill, happened

if TYPE_CHECKING:
    import pytest


def test_small_folder_is_compared_and_read_in_one_look(looking: Looking) -> None:
    """A sweep takes no more looks than it has slices, and what it finds is read in the same one."""
    fill(looking, 3)
    looking.write("block-001", "saved\n")
    looking.intake.hint_all()
    assert [one.label for one in looking.look_once(256)] == ["block-001"]
    assert not looking.intake.scanner.is_sweeping
    assert looking.intake.backlog == 0


def test_directory_that_cannot_be_listed_keeps_its_blocks(looking: Looking, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing below a directory that cannot be listed counts as gone; what is beside it does."""
    looking.write("deep/er/block", "text\n")
    looking.write("deep/block", "text\n")
    looking.write("deeper", "text\n")
    looking.write("notes", "text\n")
    looking.sweep()
    real = Root.scandir

    def scandir(root: Root, path: str) -> object:
        if path.startswith("deep"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(root, path)

    monkeypatch.setattr(Root, "scandir", scandir)
    drop(looking, ["deeper"])
    assert happened(looking.sweep()) == [("deleted", "deeper")]
    assert looking.problem("deep/").message == "the directory cannot be listed: Permission denied"
    monkeypatch.undo()
    assert looking.sweep() == []
    assert looking.problems == {}


def test_problem_of_a_file_that_is_gone_goes_with_it(looking: Looking) -> None:
    """No event need tell of it; nor need the state know of a file that never was in force."""
    looking.write("notes", b"\xff")
    looking.sweep()
    assert looking.problem().code == "problem_file"
    odd = os.fsdecode(b"caf\xe9.md")
    (looking.root / odd).write_bytes(b"")
    looking.sweep()
    (looking.root / "notes.md").unlink()
    looking.sweep()
    assert list(looking.problems) == [printable(odd)]


def test_directory_that_vanishes_takes_its_blocks_along(looking: Looking) -> None:
    """A hint at a directory is one at all that was below it."""
    for label in ("deep/one", "deep/er/two", "deepest", "notes"):
        looking.save(label, "text\n")
    shutil.rmtree(looking.root / "deep")
    looking.intake.hint_tree("deep")
    assert happened(looking.wait(GRACE * 2)) == [("deleted", "deep/er/two"), ("deleted", "deep/one")]


def test_many_trees_are_one_sweep(looking: Looking) -> None:
    """A few trees are compared one by one; the folder as a whole, or many of them, slice by slice."""
    scanner = looking.intake.scanner
    for trees, is_swept in ((["one", "two"], False), ([""], True), (map(str, range(17)), True)):
        before = scanner.sweeps
        for tree in trees:
            looking.intake.hint_tree(tree)
        assert scanner.is_due
        looking.look()
        assert not scanner.is_due
        assert scanner.sweeps - before == is_swept


def test_sweep_that_is_given_up_has_seen_nothing(looking: Looking) -> None:
    """What it would have found, the next one finds."""
    looking.write("notes", "text\n")
    looking.intake.hint_all()
    looking.intake.scanner.give_up()
    assert looking.look() == []
    assert looking.intake.scanner.sweeps == 1
    assert happened(looking.sweep()) == [("created", "notes")]


def test_sweep_that_finds_all_that_is_known_asks_for_no_list_of_it(
    looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where a directory is missing, those that are known are gone through."""
    for number in range(600):
        looking.write(f"topic{number % 2}/block-{number:03}", "text\n")
    looking.sweep()
    asked = Mock(wraps=looking.state.signatures.directories)
    monkeypatch.setattr(looking.state.signatures, "directories", asked)
    looking.sweep()
    assert asked.call_count == 0
    (looking.root / "topic1").rename(looking.root.parent / "topic1")
    looking.intake.scanner.begin()
    looking.look()
    assert asked.call_count == 1
    assert len(looking.intake.deletions.missing) == 300


def test_file_with_a_problem_is_read_once(looking: Looking) -> None:
    """However often the folder is swept, or its directory looked at, as long as it stays as it is."""
    looking.write("topic/bad", "---\n")
    os.utime(looking.root / "topic" / "bad.md", (1_700_000_000, 1_700_000_000))  # its signature proves something
    looking.sweep()
    assert list(looking.problems) == ["topic/bad.md"]
    looking.intake.hint_all()
    assert looking.intake.collect(256)[1] == {}
    looking.intake.hint_tree("topic")
    assert looking.intake.collect(256)[1] == {}
    (looking.root / "topic" / "bad.md").unlink()
    looking.sweep()
    assert looking.problems == {}
