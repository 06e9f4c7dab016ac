"""Which problem of a file a command tells, and when it can be undone."""

from __future__ import annotations

from typing import Any

from blocksd.cli.options import problem_of_file, undoing


def problem(subject: str, label: str | None, code: str = "problem_file", **facts: Any) -> dict[str, Any]:
    return {"subject": subject, "label": label, "code": code, "message": "wrong", "warning": False, **facts}


def test_problem_is_that_of_the_file_of_the_block() -> None:
    """Not a warning, and not that of another file which says the same label."""
    warned = problem("notes.md", "notes", "warning", warning=True)
    other = problem("note\u0301s.md", "notes", "label_conflict")
    assert problem_of_file([warned, other], "notes") is None
    own, never = problem("Notes.md", "notes"), problem("bad.md", None)
    assert problem_of_file([warned, other, own], "notes") is own
    assert problem_of_file([own, never], "bad") is never


def test_only_a_text_with_a_problem_is_undone() -> None:
    """There must be a version in force, and a text that can be kept."""
    assert undoing(problem("my notes.md", "my notes")) == "`blocksd undo 'my notes'`"
    assert undoing(problem("bad.md", None)) == ""
    assert undoing(problem("notes.md", "notes", message="it cannot be read: Permission denied")) == ""
    assert undoing(problem("Notes.md", "Notes", "label_conflict")) == ""
