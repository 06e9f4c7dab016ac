from __future__ import annotations

import difflib
import re
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from blocksd.errors import InvalidRequest
from blocksd.model.edits import append, insert, patch, replace
from blocksd.model.prompt import compile_prompt
from support import examples, require

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def refused(edit: Callable[..., str], *arguments: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        edit(*arguments)
    return caught.value


TRICKY = ["a", "b", "", " ", "\tx", "--- a", "+++ b", "-- ", "@@ -1 +1 @@", "@@", "*** c", "\\ No", "diff x", "é"]
lines = st.lists(st.sampled_from(TRICKY), max_size=8)
values = lines.map("\n".join)
texts = st.text(st.characters(exclude_characters="→\r"), max_size=20)


# Append


def test_append_puts_the_content_on_a_line_of_its_own() -> None:
    """A line feed stands between what was there and what is appended, and none is put after it."""
    assert append("a", "b") == "a\nb"
    assert append("a\n", "b") == "a\n\nb"
    assert append("a", "b\n") == "a\nb\n"


def test_append_to_the_empty_value_gives_the_content() -> None:
    """There is no line to part it from: Letta begins the value with an empty line here."""
    assert append("", "b") == "b"
    assert append("", "") == ""


# Replace


def test_replace_changes_the_one_place() -> None:
    """What is replaced may be a part of a line, or go over several."""
    assert replace("one two three", "two", "2") == "one 2 three"
    assert replace("a\nb\nc", "a\nb", "x") == "x\nc"
    assert replace("abc", "abc", "") == ""


@given(texts, texts.filter(bool), texts, texts)
def test_replace_leaves_all_else(before: str, old: str, new: str, after: str) -> None:
    """The text before and after the place stays as it is, whatever characters any of them has."""
    value = before + old + after
    places = [place for place in range(len(value)) if value.startswith(old, place)]
    if len(places) == 1:
        assert replace(value, old, new) == before + new + after
    else:
        assert refused(replace, value, old, new).facts["lines"]


def test_replacing_a_text_by_itself_changes_nothing() -> None:
    """It is no error to ask for what is so already."""
    assert replace("a b", "a", "a") == "a b"


def test_what_is_taken_for_a_template_elsewhere_is_text_here() -> None:
    """Backslashes, dollar signs and braces are put in as they are given."""
    assert replace("a (b) c", "(b)", r"\1 $& {0} \n") == r"a \1 $& {0} \n c"


def test_replace_refuses_what_is_not_there() -> None:
    """The error quotes what was looked for and says that it must be there exactly."""
    error = refused(replace, "a\nb", "c", "d")
    assert error.facts == {"argument": "old_content", "lines": []}
    assert "'c' is not in the value" in error.message


def test_replace_refuses_several_places_and_names_their_lines() -> None:
    """The lines are those where the places start, each once, also for an old content of several lines."""
    assert refused(replace, "x\ny\nx\nx x", "x", "z").facts["lines"] == [1, 3, 4]
    error = refused(replace, "a\nb\n\na\nb", "a\nb", "z")
    assert error.facts == {"argument": "old_content", "lines": [1, 4]}
    assert "lines 1, 4" in error.message


def test_places_that_overlap_are_several() -> None:
    """Either of them could be meant: Letta counts one, and replaces the first."""
    assert refused(replace, "aaaa", "aaa", "b").facts["lines"] == [1]
    assert refused(replace, "a\na\na", "a\na", "b").facts["lines"] == [1, 2]


def test_the_empty_text_is_nowhere_in_particular() -> None:
    """An empty old content is refused, also in the empty value."""
    assert refused(replace, "abc", "", "x").facts["argument"] == "old_content"
    assert refused(replace, "", "", "x").facts["argument"] == "old_content"


def test_of_very_many_places_the_first_are_named() -> None:
    """The error stays of a bounded size, and finding the places takes a bounded time."""
    assert refused(replace, "a\n" * 5000, "a", "b").facts["lines"] == list(range(1, 1001))
    assert refused(replace, "a" * 4_000_000, "a" * 2_000_000, "b").facts["lines"] == [1]


# Insert


@pytest.mark.parametrize(
    ("value", "line", "result"),
    [
        ("a\nb", 0, "x\na\nb"),
        ("a\nb", 1, "a\nx\nb"),
        ("a\nb", 2, "a\nb\nx"),
        ("a\nb", -1, "a\nb\nx"),
        ("a\n", 1, "a\nx\n"),
        ("a\n", 2, "a\n\nx"),
        ("", 0, "x"),
        ("", -1, "x"),
    ],
)
def test_insert_puts_the_content_after_the_line(value: str, line: int, result: str) -> None:
    """Lines count from 1; 0 is the start and -1 the end. The empty value has no line, and becomes the content."""
    assert insert(value, "x", line) == result


def test_insert_is_at_the_end_unless_told_otherwise() -> None:
    """As `append` is."""
    assert insert("a", "b") == append("a", "b")


@pytest.mark.parametrize(("value", "line", "count"), [("a\nb", 3, 2), ("a", -2, 1), ("", 1, 0)])
def test_insert_refuses_lines_that_are_not_there(value: str, line: int, count: int) -> None:
    """The error says how many lines the value has."""
    error = refused(insert, value, "x", line)
    assert error.facts == {"argument": "line", "line": line, "count": count}
    assert f"from 0 to {count}" in error.message


@given(lines.filter(bool), st.data())
def test_inserted_lines_are_where_they_were_put(start: list[str], data: st.DataObject) -> None:
    """After line n, the new line is line n + 1, and the others are in their order."""
    line = data.draw(st.integers(0, len(start)))
    assert insert("\n".join(["s", *start]), "new", line + 1).split("\n") == ["s", *start[:line], "new", *start[line:]]


# Line numbers


@dataclass(frozen=True)
class Shown:
    value: str
    name: str = "notes"
    description: str | None = None
    limit: int = 5000
    read_only: bool = False
    hidden: bool = False
    is_template: bool = False


EDITS: list[tuple[str, Callable[[str], str]]] = [
    ("content", lambda text: append("a", text)),
    ("content", lambda text: insert("a", text)),
    ("old_content", lambda text: replace("a", text, "b")),
    ("new_content", lambda text: replace("a", "a", text)),
    ("patch", lambda text: patch("a", "@@\n-a\n" + re.sub("^", "+", text, flags=re.MULTILINE))),
]


@pytest.mark.parametrize(("argument", "edit"), EDITS)
@pytest.mark.parametrize(("text", "found"), [("12→ x", [1]), ("  1→x", [1]), ("x\n\t3→ y\nz\n4→", [2, 4])])
def test_line_numbers_are_refused(argument: str, edit: Callable[[str], str], text: str, found: list[int]) -> None:
    """What was copied from a value shown with line numbers is refused in every argument, which the error names."""
    error = refused(edit, text)
    assert error.facts["argument"] == argument
    assert error.facts["lines"] == found
    assert "leave them out" in error.message


@pytest.mark.parametrize(("argument", "edit"), EDITS)
def test_the_note_on_line_numbers_is_refused(argument: str, edit: Callable[[str], str]) -> None:
    """So is what is said above them."""
    shown = compile_prompt([Shown("first\nsecond")], style="line-numbered")
    note = next(line for line in shown.split("\n") if "→" in line)
    assert refused(edit, note).facts["argument"] == argument
    assert refused(edit, shown).facts["argument"] == argument


@pytest.mark.parametrize("text", ["1: x", "x 1→ y", "→ x", "a → b", "1 → 2"])
def test_other_arrows_and_numbers_are_text(text: str) -> None:
    """Only what stands where the numbers stand is taken for one."""
    assert append("", text) == text


def test_patched_lines_with_numbers_are_refused_wherever_they_stand() -> None:
    """In context, deleted and added lines alike; the error says in which hunk."""
    for hunk in ("@@\n 1→ a\n+b", "@@\n-1→ a", "@@\n a\n+1→ b"):
        error = refused(patch, "a", f"@@\n a\n{hunk}")
        assert error.facts == {"argument": "patch", "hunk": 2, "lines": error.facts["lines"]}


# Patch


@settings(deadline=None, max_examples=examples(500))
@given(lines, lines, st.integers(0, 4))
def test_the_difference_of_two_values_makes_one_the_other(old: list[str], new: list[str], context: int) -> None:
    """Any unified diff with ranges, of whatever lines, with or without file headers, gives exactly the new value."""
    before, after = "\n".join(old), "\n".join(new)
    diff = list(difflib.unified_diff(before.split("\n"), after.split("\n"), "a", "b", lineterm="", n=context))
    if before == after or not (before or context):  # here the empty value has a line, and it stays: see below
        return
    assert patch(before, "\n".join(diff)) == after
    assert patch(before, "\n".join(diff) + "\n") == after
    assert patch(before, "\n".join(diff[2:])) == after
    assert patch(before, "\n".join(["diff --git a/x b/x", "index 1..2", *diff])) == after
    stripped = "\n".join("" if line == " " else line for line in diff) + "\n"
    assert patch(before, stripped) == after


@settings(deadline=None, max_examples=examples(300))
@given(lines, lines)
def test_ranges_can_be_left_out(old: list[str], new: list[str]) -> None:
    """A hunk with all of the value as its context needs no ranges, and as the only one not even the line `@@`."""
    before, after = "\n".join(old), "\n".join(new)
    diff = list(difflib.unified_diff(before.split("\n"), after.split("\n"), "a", "b", lineterm="", n=20))
    if before == after:
        return
    for head in ("@@", "@@ @@", "@@ def f(x): @@"):
        assert patch(before, "\n".join([head, *diff[3:], ""])) == after
        assert patch(before, "\n".join([*diff[:2], head, *diff[3:], ""])) == after
    if diff[3][0] in "+- " and not diff[3].startswith("--- "):
        assert patch(before, "\n".join([*diff[3:], ""])) == after


@settings(deadline=None, max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(lines, lines), st.integers(0, 3), st.tuples(st.booleans(), st.booleans()))
@example((["a", "b"], ["a"]), 0, (False, False))
@example(([], ["a"]), 0, (False, False))
@example((["a"], []), 0, (True, True))
def test_what_diff_prints_is_applied_to_the_byte(
    tmp_path: Path, sides: tuple[list[str], list[str]], context: int, ends: tuple[bool, bool]
) -> None:
    """`\\ No newline at end of file` is understood: the result ends with a line feed just where the new file does."""
    before, after = ("\n".join(side) + ("\n" if end else "") for side, end in zip(sides, ends, strict=True))
    (tmp_path / "a").write_text(before)
    (tmp_path / "b").write_text(after)
    command = [require("diff"), f"-U{context}", "a", "b"]
    diff = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=10).stdout
    if diff and (before or "\\ No newline" in diff):  # what is put into the empty value needs no line feed: see below
        assert patch(before, diff) == after


def test_a_value_need_not_end_with_a_line_feed() -> None:
    """Without the mark, hunks are about lines alone, so a diff of files fits a value without their last line feed."""
    assert patch("a\nb", "@@ -1,2 +1,3 @@\n a\n-b\n+c\n+d\n") == "a\nc\nd"
    assert patch("", "@@ -0,0 +1,2 @@\n+a\n+b\n") == "a\nb"
    assert patch("a\nb", "@@ -1,2 +0,0 @@\n-a\n-b\n") == ""


@pytest.mark.parametrize(
    ("value", "diff", "result"),
    [
        ("a", "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a", "a\n"),
        ("a\n", "@@ -1 +1 @@\n-a\n+a\n\\ No newline at end of file", "a"),
        ("a", "@@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file", "b"),
        ("a\na", "@@\n-a\n+b\n\\ No newline at end of file", None),
        ("a\na", "@@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file", "a\nb"),
        ("a\nb", "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+c\n\\ No newline at end of file", None),
    ],
)
def test_the_mark_of_a_last_line_without_a_line_feed(value: str, diff: str, result: str | None) -> None:
    """A marked hunk is about the end of the value, and about no other place."""
    if result is None:
        assert refused(patch, value, diff).facts["hunk"] == 1
    else:
        assert patch(value, diff) == result


def test_a_hunk_is_found_where_its_lines_are() -> None:
    """Its ranges may be out of date: where its lines are in one place only, it belongs there."""
    assert patch("new\nnew\na\nb\nc", "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c") == "new\nnew\na\nB\nc"


def test_of_several_places_the_one_its_ranges_name_is_meant() -> None:
    """Where the lines are there more than once, the stated line decides."""
    assert patch("a\nb\na\nb", "@@ -4 +4 @@\n-b\n+B") == "a\nb\na\nB"
    assert patch("a\nb\na\nb", "@@ -2 +2 @@\n-b\n+B") == "a\nB\na\nb"


def test_the_hunk_before_tells_places_apart() -> None:
    """Hunks come in order, so a hunk belongs after the one before."""
    assert patch("a\nb\nc\na\nd", "@@\n-c\n+C\n@@\n-a\n+A") == "a\nb\nC\nA\nd"


def test_a_hunk_that_is_nowhere_is_refused() -> None:
    """The error names the hunk, its lines, and the line that the value does not have."""
    error = refused(patch, "a\nb", "@@\n-a\n+A\n@@ -9,2 +9 @@\n b\n-c")
    assert error.facts == {"argument": "patch", "hunk": 2, "expected": ["b", "c"], "lines": []}
    assert "'c'" in error.message
    assert "not one after the other" in refused(patch, "a\nb\nc", "@@\n a\n-c").message


def test_a_hunk_that_could_be_in_several_places_is_refused() -> None:
    """The error names the lines where it would fit, from 1."""
    error = refused(patch, "a\nb\na\nb", "@@ -3,2 +3,2 @@\n-b\n+B\n \n")
    assert error.facts["lines"] == []
    error = refused(patch, "a\nb\na\nb", "@@ -3 +3 @@\n-b\n+B")
    assert error.facts == {"argument": "patch", "hunk": 1, "expected": ["b"], "lines": [2, 4]}
    assert "lines 2, 4" in error.message
    assert refused(patch, "a\na\na", "@@\n a\n-a").facts["lines"] == [1, 2]


def test_only_whole_lines_are_found() -> None:
    """A line that begins or ends with the expected text is another line."""
    assert patch("xab\nab\nabx", "@@\n-ab\n+c") == "xab\nc\nabx"


def test_hunks_neither_overlap_nor_go_back() -> None:
    """A hunk whose lines are only before the end of the one before is refused, with where they are."""
    error = refused(patch, "a\nb\nc", "@@\n b\n-c\n@@\n-a\n+A")
    assert (error.facts["hunk"], error.facts["lines"]) == (2, [1])
    assert "in order" in error.message
    assert refused(patch, "a\nb\nc", "@@ -1,2 +1,2 @@\n-a\n+A\n b\n@@ -2 +2 @@\n-b\n+B").facts["hunk"] == 2


def test_only_added_lines_need_a_place() -> None:
    """They go where their ranges say, or into the empty value; Letta puts them at the end, wherever they were meant."""
    assert patch("a\nb", "@@ -1,0 +2 @@\n+x") == "a\nx\nb"
    assert patch("a\nb", "@@ -0,0 +1 @@\n+x") == "x\na\nb"
    assert patch("", "@@\n+x\n+y") == "x\ny"
    assert "does not say where" in refused(patch, "a", "@@\n+x").message
    assert "3" in refused(patch, "a\nb", "@@ -3,0 +4 @@\n+x").message
    assert refused(patch, "", "@@\n+x\n@@\n+y").facts["hunk"] == 2


def test_content_that_looks_like_a_header_is_content() -> None:
    """Inside a hunk, only the first character tells what a line is."""
    value = "-- a\n++ b\n@@ c\n** d\n-- e"
    diff = "--- a\n+++ b\n@@ -1,5 +1,5 @@\n--- a\n+++ A\n ++ b\n-@@ c\n+@@ -9 +9 @@\n ** d\n--- e\n+*** e\n"
    assert patch(value, diff) == "++ A\n++ b\n@@ -9 +9 @@\n** d\n*** e"
    assert patch(value, diff.replace("@@ -1,5 +1,5 @@", "@@")) == "++ A\n++ b\n@@ -9 +9 @@\n** d\n*** e"


def test_tabs_survive() -> None:
    """In what is changed and in what is not: Letta puts spaces for them."""
    assert patch("\ta\n\tb\t", "@@\n-\ta\n+\t\tA") == "\t\tA\n\tb\t"
    assert replace("\ta b", "a", "c") == "\tc b"


@pytest.mark.parametrize("text", ["", "\n", "--- a\n+++ b\n", "@@\n", "@@ -1 +1 @@\n", "diff --git a/x b/x\n"])
def test_a_patch_that_says_nothing_is_refused(text: str) -> None:
    """It was hardly meant so."""
    assert refused(patch, "a", text).facts["argument"] == "patch"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("please replace a by b", "line 1 of the patch, 'please"),
        ("*** Begin Patch\n*** Update Block: x\n-a\n+b\n*** End Patch", "line 1 of the patch, '*** Begin"),
        ("@@\n-a\n+b\n```", "line 4 of the patch, '```'"),
        ("@@ -1 +1 @@\n-a\n+b\n+c", "line 4 of the patch, '+c'"),
        ("@@ -1,2 +1 @@\n-a\n+b", "has 1 old and 1 new lines, but its ranges say 2 and 1"),
        ("@@ -1 +1,2 @@\n-a\n+b\n@@ -3 +3 @@\n-c", "has 1 old and 1 new lines, but its ranges say 1 and 2"),
        ("@@ -1 +1\n-a\n+b", "write @@ -START,COUNT"),
        ("--- a\n+++ a\n@@ -1 +1 @@\n-a\n+b\n--- c\n+++ c\n@@ -1 +1 @@\n-a\n+b", "another file"),
        ("@@ -1 +1 @@\n-a\n+b\ndiff --git a/c b/c", "another file"),
    ],
)
def test_what_is_no_patch_is_refused_with_the_reason(text: str, said: str) -> None:
    """The error says which line or hunk is wrong and what would be right."""
    assert said in refused(patch, "a", text).message


def test_a_patch_is_made_whole_or_not_at_all() -> None:
    """One hunk that does not fit is enough for all to be refused: Letta keeps those before it."""
    assert refused(patch, "a\nb", "@@\n-a\n+A\n@@\n-x").facts["hunk"] == 2


def test_a_patch_may_change_nothing() -> None:
    """What is the same before and after gives the value as it was."""
    assert patch("a\nb", "@@\n-a\n+a\n b") == "a\nb"


@settings(deadline=None, max_examples=examples(100))
@given(values, st.lists(st.sampled_from([*TRICKY, "+a", "-a", " a", "@@ -1,2 +1 @@", "\\ No newline"])).map("\n".join))
def test_no_patch_ends_in_another_error(value: str, text: str) -> None:
    """Whatever stands in a patch, it is applied or refused."""
    with suppress(InvalidRequest):
        patch(value, text)


def test_messages_quote_the_beginning_of_long_texts() -> None:
    """An error is for reading: it does not repeat a whole block."""
    long = "x" * 10_000
    for error in (refused(replace, "a", long, "b"), refused(patch, "a", f"@@\n-{long}"), refused(patch, "a", long)):
        assert len(error.message) < 400
        assert "…" in error.message


def test_patch_tells_what_it_searches() -> None:
    """For each hunk that is not where its ranges say; so that many of them on a long value can be refused."""
    value = "".join(f"line {n}\n" for n in range(1000))
    spent: list[int] = []
    hunks = "".join(f"@@\n-line {n}\n+x\n" for n in range(50))
    patch(value, hunks, spend=spent.append)
    assert len(spent) == 50
    assert 50 * len(value) // 8 < sum(spent) <= 50 * len(value) // 4
    spent.clear()
    patch(value, "@@ -3 +3 @@\n-line 2\n+x\n", spend=spent.append)
    assert spent == []
