"""What a file's content comes to: a block, or a problem that harms nothing."""

from __future__ import annotations

import os

import pytest

from faulty import BAD, GOOD, Bad
from looking import Looking, happened


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_content_of_a_new_file(looking: Looking, bad: Bad) -> None:
    """A new file that is no block is a problem with its place and a way out; mended, it comes into force."""
    assert looking.save("notes", bad.data) == []
    problem = looking.problem()
    assert bad.message in problem.message
    assert (problem.subject, problem.line, problem.label, problem.warning) == ("notes.md", bad.line, None, False)
    assert problem.hint
    assert problem.since
    assert happened(looking.save("notes", "good\n")) == [("created", "notes")]
    assert looking.problems == {}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_last_good_version_stays_in_force(looking: Looking, bad: Bad) -> None:
    """A block whose file turns bad stays as it was, for as long as it takes, over a restart, too."""
    looking.save("notes", "good\n")
    assert looking.save("notes", bad.data) == []
    assert looking.value() == "good"
    assert looking.problem().label == "notes"
    looking.close()
    looking.open()
    assert looking.sweep() == []
    assert looking.value() == "good"
    assert bad.message in looking.problem().message
    assert looking.save("notes", "good\n") == []
    assert looking.problems == {}
    assert [revision.fields for revision in looking.save("notes", "better\n")] == [("value",)]


@pytest.mark.parametrize(("data", "value"), GOOD.values(), ids=GOOD)
def test_odd_but_good_content(looking: Looking, data: bytes, value: str) -> None:
    """What looks odd but says a block is accepted, without a word."""
    assert happened(looking.save("notes", data)) == [("created", "notes")]
    assert looking.value() == value
    assert looking.problems == {}


def test_unknown_key_is_a_warning(looking: Looking) -> None:
    """A key nobody knows does not keep the file from being in force; the nearest known one is suggested."""
    assert happened(looking.save("notes", "---\ntags: []\nreadonly: true\n---\ntext\n")) == [("created", "notes")]
    problem = looking.problem()
    assert problem.warning
    assert problem.line == 3
    assert "readonly" in problem.message
    assert "read_only" in problem.hint
    looking.save("notes", "---\nread_only: true\n---\ntext\n")
    assert looking.problems == {}


def test_warning_outlives_a_restart(looking: Looking) -> None:
    """A file that is warned of is warned of again by the next daemon, though it has not changed."""
    looking.save("notes", "---\nreadonly: true\n---\ntext\n")
    os.utime(looking.root / "notes.md", (1_700_000_000, 1_700_000_000))
    looking.sweep()
    looking.close()
    looking.open()
    assert looking.sweep() == []
    assert looking.problem().warning


def test_same_problem_is_said_once(looking: Looking) -> None:
    """A problem seen again is no news; another one in its place is, but is as old as the first."""
    looking.save("notes", "---\nlimit: 0\n---\n")
    first, count = looking.problem(), looking.problems.changes
    looking.wall += 100
    looking.save("notes", "---\nlimit: 0\n---\nother\n")
    looking.sweep()
    assert (looking.problem(), looking.problems.changes) == (first, count)
    looking.save("notes", "---\nlimit: -1\n---\n")
    assert looking.problems.changes == count + 1
    assert looking.problem().since == first.since


def test_bad_file_that_goes_takes_its_problem_along(looking: Looking) -> None:
    """A problem ends with its file; a block that was in force under it is deleted after the grace."""
    looking.save("notes", "---\n")
    assert looking.remove("notes") == []
    assert looking.problems == {}
    looking.save("notes", "good\n")
    looking.save("notes", "---\n")
    assert happened(looking.remove("notes")) == [("deleted", "notes")]
    assert looking.problems == {}


def test_sparse_gigabyte_is_not_read(looking: Looking) -> None:
    """A file's size is looked at before it is opened."""
    with (looking.root / "notes.md").open("wb") as file:
        file.truncate(1 << 30)
    looking.sweep()
    assert "over the 4194304 that are read" in looking.problem().message
