from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocksd.errors import MergeConflict
from blocksd.model.edits import append
from blocksd.model.merge import CAP, merge
from support import examples, require

if TYPE_CHECKING:
    from pathlib import Path

BASE, OURS, THEIRS = "←↑→↓↔↕↖↗", "○□△", "●■▲"  # each sign is a word

lines = st.lists(st.sampled_from("abcd"), max_size=10)
texts = lines.map("\n".join)
prose = st.lists(st.sampled_from(["one", "two", "three", " ", "  ", "\n", ",", "é", "\t", "."]), max_size=12).map(
    "".join
)


@st.composite
def edited(draw: st.DrawFn, base: list[str], new: str) -> list[str]:
    """`base` after up to three edits, of at most two lines each."""
    edited = list(base)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(edited)))
        edited[place : place + draw(st.integers(0, 2))] = draw(st.lists(st.sampled_from(new), max_size=2))
    return edited


@st.composite
def sides(draw: st.DrawFn) -> tuple[str, str, str]:
    """A text of repeated lines, and what two sides made of it."""
    base = draw(st.lists(st.sampled_from("abcdef"), max_size=24))
    ours, theirs = draw(edited(base, "abcdef")), draw(edited(base, "abcdef"))
    return "\n".join(base), "\n".join(ours), "\n".join(theirs)


@st.composite
def told_apart(draw: st.DrawFn) -> tuple[str, str, str]:
    """Signs of which each is there once, and what two sides made of them, each with signs of its own."""
    base = BASE[: draw(st.integers(0, 8))]
    made = []
    for own in (OURS, THEIRS):
        kept = [sign for sign in base if draw(st.integers(0, 3))]
        for sign in own[: draw(st.integers(0, 3))]:
            kept.insert(draw(st.integers(0, len(kept))), sign)
        made.append("".join(kept))
    return base, made[0], made[1]


def merged(base: str, ours: str, theirs: str, *, union_insertions: bool = False, cap: int = CAP) -> str | None:
    """None for a conflict."""
    try:
        return merge(base, ours, theirs, union_insertions=union_insertions, cap=cap)
    except MergeConflict:
        return None


def conflict(base: str, ours: str, theirs: str, *, union_insertions: bool = False) -> MergeConflict:
    with pytest.raises(MergeConflict) as caught:
        merge(base, ours, theirs, union_insertions=union_insertions)
    return caught.value


# What holds for all texts


@given(texts | prose, texts | prose, st.booleans())
def test_what_only_one_side_changed_is_changed(base: str, new: str, union: bool) -> None:
    """A side that changed nothing takes nothing away from the other, and two that did the same did it once."""
    assert merge(base, base, new, union_insertions=union) == new
    assert merge(base, new, base, union_insertions=union) == new
    assert merge(base, new, new, union_insertions=union) == new


@settings(deadline=None, max_examples=examples(400))
@given(texts | prose, texts | prose, texts | prose)
def test_neither_side_comes_first(base: str, ours: str, theirs: str) -> None:
    """The same is merged, and the same is in conflict, whichever side is called ours."""
    result = merged(base, ours, theirs)
    assert merged(base, theirs, ours) == result
    if result is None:
        regions, mirrored = conflict(base, ours, theirs).facts["regions"], conflict(base, theirs, ours).facts["regions"]
        assert isinstance(regions, list)
        assert mirrored == [{**region, "ours": region["theirs"], "theirs": region["ours"]} for region in regions]


@settings(deadline=None, max_examples=examples(400))
@given(sides())
def test_no_line_is_invented(three: tuple[str, str, str]) -> None:
    """Every line of a result stood in one of the texts."""
    result = merged(*three)
    if result is not None:
        assert set(result.split("\n")) <= {line for text in three for line in text.split("\n")}


@pytest.mark.parametrize("between", ["\n", ""])
@pytest.mark.parametrize("union", [False, True])
@settings(deadline=None, max_examples=examples(400))
@given(told_apart(), st.sampled_from([CAP, 0, 5, 20, 50, 100, 200]))
def test_what_a_side_did_is_done(between: str, union: bool, three: tuple[str, str, str], cap: int) -> None:
    """A merge has what either side added, once, has what neither took away, and nothing else, all in its order.

    This is so for lines and for words, and however few comparisons there may be.
    """
    base, ours, theirs = three
    result = merged(*(between.join(text) for text in three), union_insertions=union, cap=cap)
    if result is None:
        return
    signs = [sign for sign in result if sign != "\n"]
    assert set(signs) == (set(ours) | set(theirs)) - (set(base) - set(ours)) - (set(base) - set(theirs))
    for text in (base, ours, theirs):
        assert [sign for sign in signs if sign in text] == [sign for sign in text if sign in signs]
    assert len(signs) == len(set(signs))


# As git does it


def by_git(directory: Path, base: str, ours: str, theirs: str) -> str | None:
    """What `git merge-file` makes of the texts, each of whose lines has an end there; None for a conflict."""
    for name, text in (("base", base), ("ours", ours), ("theirs", theirs)):
        (directory / name).write_text(f"{text}\n" if text else "")
    done = subprocess.run(
        [require("git"), "merge-file", "-p", "-q", "ours", "base", "theirs"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
        env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
    )
    assert 0 <= done.returncode < 128, done.stderr
    return done.stdout.removesuffix("\n") if done.returncode == 0 else None


@settings(deadline=None, max_examples=examples(400), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sides())
def test_what_git_merges_is_merged_alike(tmp_path: Path, three: tuple[str, str, str]) -> None:
    """Whatever git merges, also where lines repeat and a change could be seen in several places."""
    expected = by_git(tmp_path, *three)
    if expected is not None:
        assert merged(*three) == expected


# Lines


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "result"),
    [
        ("a\nb\nc", "A\nb\nc", "a\nb\nC", "A\nb\nC"),
        ("a\nb\nc", "a\nc", "a\nb\nc\nd", "a\nc\nd"),
        ("a\nb\nc", "x\na\nb\nc", "a\nb\nc\ny", "x\na\nb\nc\ny"),
        ("a\nb\nc\nd", "a\nB\nc\nd", "a\nB\nc\nD", "a\nB\nc\nD"),
        ("a\nb\nc", "a\n\nb\nc", "a\nb\nc\n", "a\n\nb\nc\n"),
        ("a\n", "a", "b\na\n", "b\na"),
    ],
)
def test_changes_in_different_places_are_all_made(base: str, ours: str, theirs: str, result: str) -> None:
    """An unchanged line between them is enough. Empty lines are lines, at the end as well."""
    assert merge(base, ours, theirs) == result


def test_to_append_does_not_change_the_last_line() -> None:
    """A value has no line feed at its end, and what comes after one does not touch the line above."""
    assert merge("a\nb", "A\nb", "a\nb\nc") == "A\nb\nc"


def test_a_conflict_names_its_regions() -> None:
    """Each with its text on all sides, without what surrounds it, and with its first line in the base."""
    error = conflict("a\nb\nc\nd\ne", "a\nB\nc\nd\nE", "a\nX\nc\nd\nY\nZ")
    first = {"line": 2, "base": "b", "ours": "B", "theirs": "X"}
    second = {"line": 5, "base": "e", "ours": "E", "theirs": "Y\nZ"}
    assert error.facts == {"regions": [first, second], "line": 2}
    assert "in 2 places, first at line 2" in error.message
    assert "at line 1" in conflict("a", "b", "c").message


# Words


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "result"),
    [
        ("Sam likes tea.", "Sam likes green tea.", "Sam likes tea!", "Sam likes green tea!"),
        ("one two three", "1 two three", "one two 3", "1 two 3"),
        ("a, b, c", "a, b, c, d", "x, b, c", "x, b, c, d"),
        ("a\nb", "A\nb", "a\nB", "A\nB"),
        ("a b\tc", "a  b\tc", "a b c", "a  b c"),
        ("naïve café", "naive café", "naïve cafe", "naive cafe"),
        ("a\nb", "a\nB", "a\nb\nc", "a\nB\nc"),
        ("a b c d e", "a B c D e", "a b C d e", "a B C D e"),
    ],
)
def test_different_words_of_a_line_are_all_changed(base: str, ours: str, theirs: str, result: str) -> None:
    """Where lines conflict, words are compared: git does not do this."""
    assert merge(base, ours, theirs) == result


@pytest.mark.parametrize(
    ("base", "ours", "theirs"),
    [
        ("a b", "a c", "a d"),
        ("a b c d", "x y z", "a b Q c d"),
        ("a", "a b", "a c"),
        ("a b c", "a c", "a x c"),
        ("ab", "aXb", "abY"),
        ("x", "", "x y"),
    ],
)
def test_the_same_word_changed_twice_is_a_conflict(base: str, ours: str, theirs: str) -> None:
    """So are words put in at one place, or beside a word the other side changed. Words are not taken apart."""
    assert conflict(base, ours, theirs).facts["regions"] == [{"line": 1, "base": base, "ours": ours, "theirs": theirs}]


# Insertions that are all kept


def test_insertions_at_one_place_conflict_unless_united() -> None:
    """United, theirs comes first, then ours, whole."""
    assert conflict("a", "a\n\no", "a\n\nt").facts["line"] == 2
    assert merge("a", "a\n\no", "a\n\nt", union_insertions=True) == "a\n\nt\n\no"
    assert merge("a", "o\na", "t\na", union_insertions=True) == "t\no\na"
    assert merge("", "o", "t", union_insertions=True) == "t\no"


def test_united_insertions_stand_beside_what_the_other_side_changed() -> None:
    """A line is appended by one side while the other rewrites or deletes the last one: both are done."""
    assert merge("a\nb c", "a\nx y", "a\nb c\nt", union_insertions=True) == "a\nx y\nt"
    assert merge("a\nb", "a", "a\nb\nt", union_insertions=True) == "a\nt"
    assert merge("a\nb", "o\na\nb", "A\nb", union_insertions=True) == "o\nA\nb"
    assert merge("a", "", "a\nt", union_insertions=True) == "t"


def test_united_insertions_are_not_repeated() -> None:
    """A side that has the other's lines already knew of them."""
    assert merge("a", "a\nt\no", "a\nt", union_insertions=True) == "a\nt\no"
    assert merge("a", "a\no\nt", "a\nt", union_insertions=True) == "a\no\nt"
    assert merge("a", "a\no", "a\no\nt", union_insertions=True) == "a\no\nt"
    assert merge("a\nb", "a\nB\nt", "a\nb\nt", union_insertions=True) == "a\nB\nt"


def test_only_insertions_are_united() -> None:
    """What is changed or deleted on both sides, or put inside what the other deleted, is in conflict all the same."""
    assert conflict("a", "b", "c", union_insertions=True)
    assert conflict("a\nb\nc", "", "a\nb\nt\nc", union_insertions=True)
    assert conflict("a\nb", "b", "a\nX", union_insertions=True)


@settings(deadline=None, max_examples=examples(300))
@given(lines, lines, st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=3))
def test_an_appended_text_stays_whatever_the_other_side_does(base: list[str], ours: list[str], new: list[str]) -> None:
    """United with an append, any text keeps all it has and gets the appended lines, which stay together."""
    appended, text = "\n".join(new), "\n".join(ours)
    result = merge("\n".join(base), text, append("\n".join(base), appended), union_insertions=True)
    assert appended in result
    before, _, after = result.partition(appended)
    assert "\n".join(part.strip("\n") for part in (before, after) if part) == text or not text


# Bounds


def test_with_fewer_comparisons_more_is_in_conflict() -> None:
    """What is not compared counts as changed: nothing is merged that should not be."""
    base = [f"{number % 7}" for number in range(200)]
    ours, theirs = list(base), list(base)
    ours[10:12] = reversed(ours[10:12])
    ours[190:192] = reversed(ours[190:192])
    theirs[100] = "x"
    three = tuple("\n".join(text) for text in (base, ours, theirs))
    ours[100] = "x"
    assert merged(*three) == "\n".join(ours)
    assert merged(*three, cap=1000) is None


def test_long_texts_that_differ_in_one_place_are_merged() -> None:
    """What is common to all three texts is not compared, so there may be any amount of it."""
    around = "\n".join(["line"] * 200_000)
    base, ours, theirs = (f"{around}\n{middle}\n{around}" for middle in ("m", "o\nm", "m\nt"))
    assert merge(base, ours, theirs) == f"{around}\no\nm\nt\n{around}"


def test_the_regions_of_long_texts_are_in_their_place() -> None:
    """Lines are counted from the start of the base, also when it was left out."""
    three = ("\n".join([*["line"] * 200_000, last, *["line"] * 200_000]) for last in ("a b", "a c", "a d"))
    assert conflict(*three).facts["regions"] == [{"line": 200_001, "base": "a b", "ours": "a c", "theirs": "a d"}]


@pytest.mark.parametrize("piece", ["\n", "a\n", ",", "a ", "a"])
def test_texts_of_any_size_and_kind_come_to_an_end(piece: str) -> None:
    """Four million characters that are changed throughout are in conflict, which is soon found."""
    size = (4 << 20) // len(piece)
    base, ours, theirs = (new + piece * size + new for new in ("x\n", "y\n", "z\n"))
    assert conflict(base, ours, theirs).facts["line"] == 1
    shuffled = "".join(str(number * number % 7) + piece for number in range(size // 10))
    assert merged(base, ours, shuffled) is None
