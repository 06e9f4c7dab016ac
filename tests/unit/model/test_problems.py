"""What is known to be wrong: said once, counted, and right again."""

from __future__ import annotations

import pytest

from blocksd.model.problem import Problem, Problems, Warned, count, warning_of


def test_problem_is_as_old_as_the_first_of_its_subject() -> None:
    """Saying the same again is no change; another one in its place is, and is no younger."""
    now = 0.0
    problems = Problems(lambda: now)
    problems.set(Problem("notes.md", "odd", "one"))
    now = 60.0
    problems.set(Problem("notes.md", "odd", "one"))
    assert problems.changes == 1
    problems.set(Problem("notes.md", "odd", "two"))
    assert problems.changes == 2
    assert problems == {"notes.md": Problem("notes.md", "odd", "two", since="1970-01-01T00:00:00.000Z")}
    assert "notes.md" in problems
    assert len(problems) == 1


def test_what_is_right_again_is_a_change_once() -> None:
    """What never was wrong cannot be right again; a copy stays as it was."""
    problems = Problems(lambda: 0.0)
    problems.set(Problem("notes.md", "odd", "one"))
    before = problems.copy()
    for _ in range(2):
        problems.remove("notes.md")
    assert problems.changes == 2
    assert problems == {}
    assert list(before) == ["notes.md"]


def test_warnings_are_counted() -> None:
    """Of all that is wrong they are what keeps nothing from being in force."""
    problems = Problems(lambda: 0.0)
    for warning in (True, True, False, True):
        problems.set(Problem("notes.md", "odd", f"{warning}", warning=warning))
        assert problems.tally.warnings == warning
    problems.set(Problem("other.md", "odd", "odd", warning=True))
    assert problems.tally == (0, 2)
    for subject in ("notes.md", "notes.md", "other.md"):
        problems.remove(subject)
    assert problems.tally.warnings == 0


def test_all_that_is_told_of_a_file_is_one_sentence() -> None:
    """Each part with its line and its hint, the first eight of many."""
    parts = [Warned(f"m{line}", line or None, f"h{line}") for line in (2, 0, 5)]
    told = warning_of("notes.md", "notes", parts)
    assert told.sentence() == "notes.md:2: m2 (h2); m0 (h0); line 5: m5 (h5)"
    assert warning_of("notes.md", "notes", parts[:1]).sentence() == "notes.md:2: m2 (h2)"
    many = [Warned(f"m{line}", line, "") for line in range(1, 13)]
    told = warning_of("notes.md", "notes", many)
    assert told.sentence().endswith("line 8: m8; and 4 more (correct these first)")


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [
        (0, "file", "0 files"),
        (1, "temporary file", "1 temporary file"),
        (2, "directory", "2 directories"),
        (2, "day", "2 days"),
    ],
)
def test_numbers_have_their_noun(number: int, noun: str, words: str) -> None:
    """One file, and two files."""
    assert count(number, noun) == words
