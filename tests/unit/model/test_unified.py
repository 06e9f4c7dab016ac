"""Unified diffs: they lead from one text to the other, as Python's do, and take bounded time."""

from __future__ import annotations

import random
from difflib import unified_diff

import pytest

from blocksd.model import edits
from blocksd.model.differences import UNIFIED_EFFORT, Effort, differences, unified


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("a", "a"),
        ("", "a\nb"),
        ("a\nb", ""),
        ("a\nb\nc", "a\nx\nc"),
        ("\n".join("abcdefghijklmnopq"), "\n".join("abcXefghijklmnopZ")),
        ("\n".join("abcdefghij"), "\n".join("XabcdefghijY")),
        ("\n".join("abcdefghijk"), "\n".join("aXcdefghYjk")),
    ],
)
def test_is_as_pythons(old: str, new: str) -> None:
    """Line for line, where there is one way to show it."""
    before, after = (text.split("\n") if text else [] for text in (old, new))
    assert unified(before, after, "a v1", "a v2") == list(unified_diff(before, after, "a v1", "a v2", lineterm=""))


@pytest.mark.parametrize("seed", range(30))
def test_leads_to_the_new_text(seed: int) -> None:
    """Applied as a patch."""
    chance = random.Random(seed)
    old = [chance.choice("abcdef") for _ in range(40)]
    new = [chance.choice("xyz") if chance.random() < 0.2 else line for line in old if chance.random() < 0.9]
    diff = unified(old, new, "a", "b")
    assert edits.patch("\n".join(old), "\n".join(diff) + "\n") == "\n".join(new)


def test_time_is_bounded() -> None:
    """Texts that have little in order in common are not compared to the end."""
    chance = random.Random(1)
    old, new = ([str(chance.randrange(200)) for _ in range(50_000)] for _ in range(2))
    effort = Effort(UNIFIED_EFFORT)
    list(differences(old, new, effort))
    assert effort.left <= 0
    lines = unified(old, new, "a", "b")
    assert len([line for line in lines if line.startswith("-")]) == len(old) + 1
