"""A moved file is a renamed block, whoever moves it, and however that is noticed."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from blocksd.errors import ProblemFile
from looking import GRACE, Looking, fill, happened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from blocksd.model.revision import Revision


def move(looking: Looking, old: str, new: str) -> None:
    """Give a file another name, without a word to anyone."""
    target = looking.root / f"{new}.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    (looking.root / f"{old}.md").rename(target)


def hint_move(looking: Looking, old: str, new: str) -> None:
    """What the watcher tells of it."""
    looking.intake.hint_file(f"{old}.md", closed=False)
    looking.intake.hint_file(f"{new}.md", closed=True)


def is_renamed(revisions: Iterable[Revision], old: str, new: str) -> bool:
    return [(one.kind, one.renamed_from, one.label, one.author) for one in revisions] == [("renamed", old, new, "file")]


def by_hints(looking: Looking, old: str, new: str) -> list[Revision]:
    move(looking, old, new)
    hint_move(looking, old, new)
    return looking.wait(GRACE * 2)


def into_a_new_directory(looking: Looking, old: str, new: str) -> list[Revision]:
    """Its directory is heard of first, and then that it is gone from where it was."""
    move(looking, old, new)
    looking.intake.hint_tree(new.rpartition("/")[0])
    revisions = looking.look()
    hint_move(looking, old, new)
    return revisions + looking.wait(GRACE * 2)


def by_late_hint_of_the_new_name(looking: Looking, old: str, new: str) -> list[Revision]:
    move(looking, old, new)
    looking.intake.hint_file(f"{old}.md", closed=False)
    revisions = looking.wait(GRACE / 2)
    looking.intake.hint_file(f"{new}.md", closed=True)
    return revisions + looking.wait(GRACE * 2)


def by_sweep(looking: Looking, old: str, new: str) -> list[Revision]:
    move(looking, old, new)
    return looking.sweep()


def while_down(looking: Looking, old: str, new: str) -> list[Revision]:
    looking.close()
    move(looking, old, new)
    looking.open()
    return looking.sweep()


def by_copy_and_removal(looking: Looking, old: str, new: str) -> list[Revision]:
    """As `git checkout` does it: the file at the new name is another one, with the same content."""
    data = (looking.root / f"{old}.md").read_bytes()
    (looking.root / f"{old}.md").unlink()
    looking.write(new, data)
    hint_move(looking, old, new)
    return looking.wait(GRACE * 2)


def by_copy_and_removal_while_down(looking: Looking, old: str, new: str) -> list[Revision]:
    looking.close()
    looking.write(new, (looking.root / f"{old}.md").read_bytes())
    (looking.root / f"{old}.md").unlink()
    looking.open()
    return looking.sweep()


def out_and_back(looking: Looking, old: str, new: str) -> list[Revision]:
    """By way of a directory that is not watched."""
    elsewhere = looking.home / "elsewhere.md"
    (looking.root / f"{old}.md").rename(elsewhere)
    looking.intake.hint_file(f"{old}.md", closed=False)
    revisions = looking.wait(GRACE / 2)
    (looking.root / f"{new}.md").parent.mkdir(exist_ok=True)
    elsewhere.rename(looking.root / f"{new}.md")
    looking.intake.hint_file(f"{new}.md", closed=True)
    return revisions + looking.wait(GRACE * 2)


WAYS: tuple[Callable[[Looking, str, str], list[Revision]], ...] = (
    by_hints,
    into_a_new_directory,
    by_late_hint_of_the_new_name,
    by_sweep,
    while_down,
    by_copy_and_removal,
    by_copy_and_removal_while_down,
    out_and_back,
)


@pytest.mark.parametrize("is_old", [True, False], ids=["old", "fresh"])
@pytest.mark.parametrize("move_file", WAYS, ids=lambda way: way.__name__)
def test_moved_file_is_a_renamed_block(
    looking: Looking, move_file: Callable[[Looking, str, str], list[Revision]], *, is_old: bool
) -> None:
    """One revision says so; history and attachment follow, and the versions go on."""
    looking.save("other", "another\n")
    looking.save("plan", "---\nagents: [ann]\n---\none\n")
    looking.save("plan", "---\nagents: [ann]\n---\ntwo\n")
    if is_old:
        os.utime(looking.root / "plan.md", (1_700_000_000, 1_700_000_000))
        looking.sweep()
    revisions = move_file(looking, "plan", "old/goals")
    assert is_renamed(revisions, "plan", "old/goals")
    (renamed,) = revisions
    assert (renamed.version, renamed.agents, renamed.fields) == (3, frozenset({"ann"}), ("label",))
    assert [one.version for one in looking.journal.history("old/goals")] == [3, 2, 1]
    assert looking.state.paths == {"other": "other.md", "old/goals": "old/goals.md"}
    assert looking.problems == {}
    assert not looking.intake.deletions.missing
    assert looking.sweep() == []
    looking.close()
    looking.open()
    assert looking.sweep() == []


@pytest.mark.parametrize("is_told", [True, False])
def test_moved_directory(looking: Looking, *, is_told: bool) -> None:
    """Each block in it is renamed, however many there are; no deletion is held back for it."""
    labels = [f"notes/{number:03}" for number in range(600)]
    for label in labels:
        looking.write(label, f"{label}\n")
    looking.sweep()
    (looking.root / "notes").rename(looking.root / "archive")
    if is_told:
        looking.intake.hint_tree("notes")
        looking.intake.hint_tree("archive")
    revisions = looking.wait(GRACE * 3) if is_told else looking.sweep()
    assert {one.kind for one in revisions} == {"renamed"}
    assert sorted((str(one.renamed_from), one.label) for one in revisions) == [
        (label, label.replace("notes", "archive")) for label in labels
    ]
    assert looking.problems == {}


def test_moved_directory_that_is_read_for_longer_than_the_grace(looking: Looking) -> None:
    """Deletions wait for the files that are known to need reading: one of those may be a missing one."""
    labels = [f"notes/{number:02}" for number in range(20)]
    for label in labels:
        looking.write(label, f"{label}\n")
    looking.sweep()
    (looking.root / "notes").rename(looking.root / "archive")
    looking.intake.hint_tree("notes")
    looking.intake.hint_tree("archive")
    revisions = []
    for _ in range(20):
        revisions += looking.look_once(3)
        looking.now += GRACE / 2
    assert {one.kind for one in revisions} == {"renamed"}
    assert len(revisions) == 20


def test_moved_private_folder(looking: Looking) -> None:
    """The blocks are another agent's then, and the one who had them is not known any more."""
    looking.write("agents/ann/persona", "I am Ann.\n")
    looking.write("agents/ann/notes", "one\n")
    looking.sweep()
    (looking.root / "agents/ann").rename(looking.root / "agents/bob")
    looking.intake.hint_tree("agents/ann")
    looking.intake.hint_tree("agents/bob")
    revisions = looking.wait(GRACE * 2)
    assert sorted((one.kind, one.renamed_from, one.label) for one in revisions) == [
        ("renamed", "agents/ann/notes", "agents/bob/notes"),
        ("renamed", "agents/ann/persona", "agents/bob/persona"),
    ]
    assert all(
        (one.agents, one.attached, one.detached) == (frozenset({"bob"}), ("bob",), ("ann",)) for one in revisions
    )
    assert looking.state.attachments.known == {"bob"}


def test_private_block_that_is_shared_by_a_move(looking: Looking) -> None:
    """Its folder goes with its last block."""
    looking.write("agents/ann/notes", "one\n")
    looking.sweep()
    move(looking, "agents/ann/notes", "notes")
    (looking.root / "agents/ann").rmdir()
    hint_move(looking, "agents/ann/notes", "notes")
    assert is_renamed(looking.wait(GRACE * 2), "agents/ann/notes", "notes")
    assert looking.state.attachments.known == set()


@pytest.mark.parametrize("move_file", WAYS[:5], ids=lambda way: way.__name__)
def test_name_in_another_case_is_a_rename(
    looking: Looking, move_file: Callable[[Looking, str, str], list[Revision]]
) -> None:
    """Notes and notes cannot both be in force: one takes the other's place at once."""
    looking.save("team/notes", "one\n")
    looking.save("other", "two\n")
    assert is_renamed(move_file(looking, "team/notes", "team/Notes"), "team/notes", "team/Notes")
    assert looking.problems == {}


def test_description_that_comes_with_a_name_changes_with_it(looking: Looking) -> None:
    """A file without a description has Letta's under some names."""
    looking.save("draft", "I am.\n")
    assert is_renamed(by_hints(looking, "draft", "persona"), "draft", "persona")
    head = looking.journal.head("persona")
    assert head is not None
    assert head.block is not None
    assert head.block.description is not None
    assert is_renamed(by_copy_and_removal(looking, "persona", "draft"), "persona", "draft")


def test_swapped_files_say_each_others_text(looking: Looking) -> None:
    """Neither name was gone for long: two updates, whatever was seen in between."""
    looking.save("a", "one\n")
    looking.save("b", "two\n")
    for old, new in (("a", "t"), ("b", "a"), ("t", "b")):
        move(looking, old, new)
        hint_move(looking, old, new)
    assert happened(looking.wait(GRACE * 2)) == [("updated", "a"), ("updated", "b")]
    assert (looking.value("a"), looking.value("b")) == ("two", "one")


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_swap_that_is_seen_half_done(looking: Looking, looks: int) -> None:
    """The file at a new name may be moved on, and the old name be taken, before that is believed."""
    looking.save("a", "one\n")
    looking.save("b", "two\n")
    revisions = []
    for number, (old, new) in enumerate((("a", "t"), ("b", "a"), ("t", "b"))):
        move(looking, old, new)
        hint_move(looking, old, new)
        if number < looks:
            revisions += looking.look()
    revisions += looking.wait(GRACE * 2)
    assert {one.kind for one in revisions} == {"updated"}
    assert (looking.value("a"), looking.value("b")) == ("two", "one")


def test_slow_swap_is_three_renames(looking: Looking) -> None:
    """Who waits long enough between the moves has moved the blocks."""
    looking.save("a", "one\n")
    looking.save("b", "two\n")
    for old, new in (("a", "t"), ("b", "a"), ("t", "b")):
        assert is_renamed(by_hints(looking, old, new), old, new)
    assert looking.journal.history("b")[-1].label == "a"


def test_file_moved_over_another(looking: Looking) -> None:
    """The block at that name says another text then, and the one that was moved is gone."""
    looking.save("a", "one\n")
    looking.save("b", "two\n")
    looking.save("c", "three\n")
    move(looking, "a", "b")
    hint_move(looking, "a", "b")
    assert happened(looking.wait(GRACE * 2)) == [("updated", "b"), ("deleted", "a")]
    assert looking.value("b") == "one"


def test_saves_by_way_of_another_name_are_no_moves(looking: Looking) -> None:
    """An editor that moves the old text aside and writes a new file: under a name that is ignored or no block's."""
    looking.save("notes", "one\n")
    for number, aside in enumerate(("notes.md~", ".notes.md.swp", "notes.md.bak", "4913")):
        (looking.root / "notes.md").rename(looking.root / aside)
        looking.intake.hint_file("notes.md", closed=False)
        assert looking.wait(GRACE / 2) == []
        assert happened(looking.save("notes", f"{number}\n")) == [("updated", "notes")]
    assert looking.wait(GRACE * 2) == []


def test_file_put_aside_and_written_anew_at_once(looking: Looking) -> None:
    """What is moved aside by `sed -i'bak_*'` is a copy for those who look a moment later."""
    looking.save("notes", "one\n")
    move(looking, "notes", "bak_notes")
    hint_move(looking, "notes", "bak_notes")
    looking.look()  # in between
    looking.write("notes", "two\n")
    looking.intake.hint_file("notes.md", closed=True)
    assert sorted(happened(looking.wait(GRACE * 2))) == [("created", "bak_notes"), ("updated", "notes")]


def test_removed_and_created_files_of_one_inode_are_two_blocks(looking: Looking) -> None:
    """File systems give an inode to the next file at once: it says nothing alone."""
    looking.save("plan", "one\n")
    (looking.root / "plan.md").unlink()
    looking.write("goals", "two\n")
    hint_move(looking, "plan", "goals")
    assert happened(looking.wait(GRACE * 2)) == [("created", "goals"), ("deleted", "plan")]


@pytest.mark.parametrize("text", ["", "---\nlimit: 50\n---\n"])
def test_content_that_says_nothing_is_no_move(looking: Looking, text: str) -> None:
    """A file without a value, made when another such one is removed, is a new block."""
    looking.save("plan", text)
    assert happened(by_copy_and_removal(looking, "plan", "goals")) == [("created", "goals"), ("deleted", "plan")]


def test_private_text_that_another_agent_has_too_is_no_move(looking: Looking) -> None:
    """Else the one would have the history of the other."""
    looking.save("other", "o\n")
    looking.save("agents/ann/plan", "mine\n")
    revisions = by_copy_and_removal(looking, "agents/ann/plan", "agents/bob/plan")
    assert sorted(one.kind for one in revisions) == ["created", "deleted"]
    assert all(one.renamed_from is None for one in revisions)


def test_same_content_twice_is_no_move(looking: Looking) -> None:
    """Which of two was moved, or to which of two names, cannot be told."""
    looking.save("a", "same\n")
    looking.save("b", "same\n")
    looking.save("c", "c\n")
    for label in ("a", "b"):
        (looking.root / f"{label}.md").unlink()
        looking.intake.hint_file(f"{label}.md", closed=False)
    looking.write("d", "same\n")
    looking.intake.hint_file("d.md", closed=True)
    assert sorted(happened(looking.wait(GRACE * 2))) == [("created", "d"), ("deleted", "a"), ("deleted", "b")]
    (looking.root / "d.md").unlink()
    looking.intake.hint_file("d.md", closed=False)
    for label in ("e", "f"):
        looking.write(label, "same\n")
        looking.intake.hint_file(f"{label}.md", closed=True)
    assert sorted(happened(looking.wait(GRACE * 2))) == [("created", "e"), ("created", "f"), ("deleted", "d")]


def test_file_that_was_seen_under_two_names(looking: Looking) -> None:
    """The block that had it first has it again; the other one is gone."""
    looking.save("other", "o\n")
    looking.save("plan", "one\n")
    os.link(looking.root / "plan.md", looking.root / "a-name.md")
    looking.sweep()
    assert set(looking.state.paths) == {"other", "plan", "a-name"}
    (looking.root / "a-name.md").unlink()
    move(looking, "plan", "goals")
    revisions = looking.sweep()
    assert sorted((one.kind, one.renamed_from, one.label) for one in revisions) == [
        ("deleted", None, "a-name"),
        ("renamed", "plan", "goals"),
    ]


def test_hard_links_that_are_moved(looking: Looking) -> None:
    """Each is a renamed block."""
    looking.save("other", "o\n")
    looking.save("a", "one\n")
    os.link(looking.root / "a.md", looking.root / "b.md")
    looking.sweep()
    for old, new in (("a", "c"), ("b", "d")):
        move(looking, old, new)
    assert happened(looking.sweep()) == [("renamed", "c"), ("renamed", "d")]


def test_copy_is_no_move(looking: Looking) -> None:
    """As long as the file is there, another of the same content is another block."""
    looking.save("plan", "one\n")
    shutil.copy2(looking.root / "plan.md", looking.root / "goals.md")
    looking.intake.hint_file("goals.md", closed=True)
    assert happened(looking.wait(GRACE * 2)) == [("created", "goals")]


def test_deleted_label_goes_on_with_the_block_that_comes_to_it(looking: Looking) -> None:
    """Versions of a label are never given out twice."""
    looking.save("other", "o\n")
    for text in ("one\n", "two\n", "three\n"):
        looking.save("goals", text)
    looking.remove("goals")
    looking.save("plan", "four\n")
    (renamed,) = by_hints(looking, "plan", "goals")
    assert (renamed.kind, renamed.version) == ("renamed", 5)


# --- names that cannot be, and files with problems ---


@pytest.mark.parametrize("new", ["a?b", "agents/notes", "draft.md"])
def test_block_stays_when_its_file_is_moved_to_no_label(looking: Looking, new: str) -> None:
    """It is in force under the label that it has until the file has a good name, or is gone."""
    looking.save("other", "o\n")
    looking.save("plan", "one\n")
    assert by_hints(looking, "plan", new) == []
    problem = looking.problem(f"{new}.md")
    assert problem.label == "plan"
    assert problem.message.endswith("; 'plan', whose file it was, stays as it is")
    assert not problem.warning
    assert looking.sweep() == []
    assert looking.intake.is_idle
    assert isinstance(looking.intake.deletions.refusal("plan.md"), ProblemFile)
    assert is_renamed(by_hints(looking, new, "goals"), "plan", "goals")
    assert looking.problems == {}


def test_moved_file_with_a_problem_is_renamed_when_it_is_over(looking: Looking) -> None:
    """The last good version stays in force meanwhile."""
    looking.save("other", "o\n")
    looking.save("agents/ann/plan", "one\n")
    looking.save("plan", "---\nagents: [ann]\n---\none\n")
    assert by_hints(looking, "plan", "agents/ann/goals") == []  # a private block has no `agents`
    assert looking.value("plan") == "one"
    revisions = looking.save("agents/ann/goals", "two\n")
    assert happened(revisions) == [("renamed", "agents/ann/goals"), ("updated", "agents/ann/goals")]
    assert revisions[0].renamed_from == "plan"
    assert looking.problems == {}


def test_label_stays_taken_while_its_file_has_a_problem(looking: Looking) -> None:
    """Another spelling of it is a problem until then, and is not looked at again and again."""
    looking.save("other", "o\n")
    looking.save("Plan", "one\n")
    by_hints(looking, "Plan", "x:y")
    assert looking.save("plan", "two\n") == []
    assert looking.wait(GRACE * 3) == []
    assert looking.intake.due == float("inf")
    assert looking.problem("plan.md").message == "its label 'plan' is taken by x:y.md"
    assert [one.kind for one in by_hints(looking, "x:y", "goals")] == ["renamed", "created"]
    assert looking.problems == {}


def test_file_moved_beside_another_spelling_has_the_name_when_that_is_free(looking: Looking) -> None:
    """The journal knows its file, so that a restart has it in force."""
    looking.save("other", "o\n")
    for label, text in (("Plan", "one\n"), ("notes", "two\n")):
        looking.write(label, text)
        os.utime(looking.root / f"{label}.md", (1e9, 1e9))  # so long ago that its signature proves what it says
        looking.intake.hint_file(f"{label}.md", closed=True)
        looking.look()
    assert by_hints(looking, "notes", "plan") == []
    assert [(one.kind, one.label) for one in looking.remove("Plan")] == [("deleted", "Plan"), ("renamed", "plan")]
    looking.close()
    looking.open()
    assert looking.sweep() == []
    assert looking.state.paths == {"other": "other.md", "plan": "plan.md"}


def test_spoiled_file_that_is_moved(looking: Looking) -> None:
    """Its block keeps its last good version; repaired under the new name, it has that name."""
    looking.save("other", "o\n")
    looking.save("plan", "one\n")
    looking.save("plan", "---\nlimit: [\n---\n")
    assert by_hints(looking, "plan", "goals") == []
    assert looking.sweep() == []
    assert set(looking.problems) == {"goals.md"}
    assert looking.value("plan") == "one"
    assert happened(looking.save("goals", "one\n")) == [("renamed", "goals")]
    assert looking.problems == {}


def test_file_with_a_problem_that_goes_after_all(looking: Looking) -> None:
    """Then its block is deleted, as it would have been."""
    looking.save("other", "o\n")
    looking.save("plan", "one\n")
    by_hints(looking, "plan", "a?b")
    (looking.root / "a?b.md").unlink()
    looking.intake.hint_file("a?b.md", closed=False)
    assert happened(looking.wait(GRACE * 2)) == [("deleted", "plan")]
    assert looking.problems == {}


def test_file_that_comes_back_from_a_name_with_a_problem(looking: Looking) -> None:
    """Nothing has happened."""
    looking.save("other", "o\n")
    looking.save("plan", "one\n")
    by_hints(looking, "plan", "a?b")
    assert by_hints(looking, "a?b", "plan") == []
    assert looking.problems == {}
    assert happened(looking.remove("plan")) == [("deleted", "plan")]


def test_name_with_a_problem_over_a_restart(looking: Looking) -> None:
    """The file is known again by its signature."""
    looking.save("other", "o\n")
    looking.save("plan", "one\n")
    by_hints(looking, "plan", "a?b")
    looking.close()
    looking.open()
    assert looking.sweep() == []
    assert looking.state.paths["plan"] == "plan.md"
    assert is_renamed(by_hints(looking, "a?b", "goals"), "plan", "goals")


def test_half_of_all_blocks_moved_and_the_rest_removed(looking: Looking) -> None:
    """Only what is really gone counts as missing."""
    labels = fill(looking, 20)
    for number, label in enumerate(labels):
        if number % 2:
            move(looking, label, f"moved/{label}")
        elif number < 8:
            (looking.root / f"{label}.md").unlink()
    revisions = looking.sweep()
    assert sorted({one.kind for one in revisions}) == ["deleted", "renamed"]
    assert len(revisions) == 14
