"""A guess at what a name was meant to be, which nobody waits for."""

from __future__ import annotations

import difflib

import pytest

from blocksd.model import nearest as module
from blocksd.model.nearest import nearest


@pytest.mark.parametrize(
    ("name", "names", "found"),
    [
        ("note", ["notes", "plan"], ["notes"]),
        ("policy", ["policies/refunds", "polices", "human"], ["polices"]),
        ("x", ["notes"], []),
        ("", ["notes"], []),
        ("notes", [], []),
        ("y" * 1000, ["y" * 1000], []),
        ("notes", [f"notes{n}" for n in range(1001)], []),
    ],
)
def test_nearest_name_is_found(name: str, names: list[str], found: list[str]) -> None:
    """One that is alike, if there is one, and if it can be found at once."""
    assert nearest(name, names) == found


def test_same_is_found_as_by_difflib() -> None:
    """Where that takes no time."""
    names = ["persona", "human", "notes/today", "notes/monday", "policies/refunds", "plan", "team/goals"]
    for name in ("personna", "humans", "note/today", "notes/mondy", "policy/refund", "plans", "teams/goal", "zzz"):
        assert nearest(name, names) == difflib.get_close_matches(name, names, n=1)


def test_work_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the names are like: few are compared letter by letter."""
    pairs = 0

    class Counting(difflib.SequenceMatcher[str]):
        def ratio(self) -> float:
            nonlocal pairs
            pairs += len(self.a) * len(self.b)  # type: ignore[attr-defined]  # typeshed leaves them out
            return super().ratio()

    monkeypatch.setattr(module, "SequenceMatcher", Counting)
    nearest("a" * 200, ["a" * 199 + str(n) for n in range(990)])
    assert 0 < pairs <= 60_000
