"""What is printed of many problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.cli.console import print_problems

if TYPE_CHECKING:
    import pytest


def problem(subject: str, message: str, *, warning: bool = False) -> dict[str, Any]:
    hint = f"correct {subject}"
    return {
        "subject": subject,
        "code": "problem_file",
        "message": message,
        "hint": hint,
        "line": None,
        "warning": warning,
    }


PROBLEMS = [
    problem("w.md", "there is an unknown key 'limt'", warning=True),
    *(problem(f"{n}.md", f"{f'note {n}?'!r} is not a label: no '?'") for n in range(10)),
    *(problem(f"long-{n}.md", f"value is {n} characters, over its limit of 3") for n in (4, 5)),
]


def test_problems_of_one_kind_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """The first three of a kind are shown, with their remedies, and the others counted; warnings come last."""
    print_problems(PROBLEMS, "  ", everything=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip().partition(":")[0] for line in lines] == [
        *("0.md", "correct 0.md", "1.md", "correct 1.md", "2.md", "correct 2.md", "… and 7 more of this kind"),
        *("long-4.md", "correct long-4.md", "long-5.md", "correct long-5.md"),
        *("warning", "correct w.md"),
    ]


def test_all_problems_are_shown_where_that_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is left out, and nothing counted."""
    print_problems(PROBLEMS, "", everything=True)
    said = capsys.readouterr().out
    assert all(f"correct {problem['subject']}" in said for problem in PROBLEMS)
    assert "more of this kind" not in said
