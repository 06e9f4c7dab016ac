"""What becomes of a file follows from three digests, and no choice of them has a local edit written over."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocksd.follow.plan import UNKNOWN, Written, decide, removes_too_much
from support import examples

TEXTS = (None, "a", "b", "c")


@pytest.mark.parametrize(
    ("wanted", "written", "found", "step"),
    [
        ("a", "a", "a", "nothing"),
        (None, None, None, "nothing"),
        ("b", "a", "b", "note"),
        ("a", None, "a", "note"),
        (None, "a", None, "forget"),
        ("b", "a", "a", "write"),
        ("a", None, None, "write"),
        (None, "a", "a", "remove"),
        ("a", "a", None, "missing"),
        ("b", "a", None, "missing"),
        ("a", "a", "mine", "keep"),
        ("b", "a", "mine", "keep"),
        (None, "a", "mine", "keep"),
        ("a", None, "mine", "keep"),
        (None, None, "mine", "keep"),
        ("a", "a", UNKNOWN, "keep"),
    ],
)
def test_each_case(wanted: str | None, written: str | None, found: str | None, step: str) -> None:
    """The leader's text, what was written last, and what is on disk."""
    assert decide(wanted, written, found) == step


def test_only_what_was_written_here_is_written_over_or_removed() -> None:
    """For every choice of texts; and what is as it is wanted is not written again."""
    for wanted, written, found in product(TEXTS, TEXTS, (*TEXTS, UNKNOWN)):
        step = decide(wanted, written, found)
        if step in ("write", "remove"):
            assert found == written != wanted
        if found == wanted:
            assert step in ("nothing", "note", "forget")
        if found not in (wanted, written, None):
            assert step == "keep"


@settings(max_examples=examples(200))
@given(
    st.lists(st.tuples(st.sampled_from(("leader", "edit", "revert", "remove")), st.sampled_from("abcd")), max_size=30)
)
def test_copy_converges_and_no_edit_is_lost(acts: list[tuple[str, str]]) -> None:
    """Whatever the leader writes and people edit, in any order: a text of a person goes only by that person."""
    leader: str | None = None
    written: str | None = None
    disk: str | None = None
    edited: str | None = None  # the text of a person that is on disk
    for act, text in acts:
        if act == "leader":
            leader = None if text == "d" else text
        elif act == "edit":
            disk = edited = f"mine {text}"
        elif act == "remove":
            disk = edited = None
        else:
            disk, edited = written, None
        for _ in range(2):
            step = decide(leader, written, disk)
            if step in ("write", "missing"):
                disk = written = leader
            elif step == "remove":
                disk = written = None
            elif step in ("note", "forget"):
                written = leader
        assert edited is None or disk == edited
        if edited is None:
            assert disk == written == leader


@pytest.mark.parametrize(
    ("files", "removed", "is_too_much"), [(3, 3, False), (4, 4, True), (4, 3, False), (20, 10, False), (20, 11, True)]
)
def test_most_files_are_not_removed_at_once(files: int, removed: int, is_too_much: bool) -> None:
    """A few files may all go; of more files at most half."""
    written = {f"{number}.md": Written(str(number), 1, "", "d", 0o644) for number in range(files)}
    assert removes_too_much(written, removed) is is_too_much
