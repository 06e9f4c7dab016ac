"""What tells how far an edit came, and which requests share a fate."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from blocksd.core.recovery import State, groups_of, part_of, state_of
from blocksd.files.file_edit import Staged
from blocksd.files.writer import LeftFile
from blocksd.journal.intents import Prepared
from journaled import THEN
from rig import revision

BASE, DATA, OTHER = "b" * 32, "d" * 32, "e" * 32
OLD, NEW, THEIRS = 10, 11, 12
UPDATE = Staged("notes.md", ".blocksd-1", BASE, DATA, NEW, OLD)
CREATE = Staged("notes.md", ".blocksd-1", None, DATA, NEW, None)
DELETE = Staged("notes.md", ".blocksd-1", BASE, None, None, OLD)

old, new, theirs = LeftFile(OLD, BASE), LeftFile(NEW, DATA), LeftFile(THEIRS, OTHER)
overwritten, edited = LeftFile(OLD, OTHER), LeftFile(NEW, OTHER)
"""The old and the new file after a program wrote to them in place, or a power cut left something else in them."""

CASES: dict[str, tuple[Staged, LeftFile | None, LeftFile | None, State]] = {
    # staged, in its place, aside, state
    "the new text is aside": (UPDATE, old, new, State.OUT),
    "the new text is aside, and a person saved": (UPDATE, theirs, new, State.OUT),
    "the old text is aside": (UPDATE, new, old, State.IN),
    "the old text is aside, and a person saved": (UPDATE, theirs, old, State.IN),
    "the old text is aside, and a person saved the same": (UPDATE, LeftFile(THEIRS, BASE), old, State.IN),
    "the old text is aside, and a person wrote in place": (UPDATE, edited, old, State.IN),
    "the old text is aside, and a person removed the file": (UPDATE, None, old, State.IN),
    "a copy of the old text is aside": (UPDATE, new, LeftFile(THEIRS, BASE), State.IN),
    "another text is aside": (UPDATE, new, theirs, State.DISPLACED),
    "a directory is aside": (UPDATE, new, LeftFile(THEIRS, ""), State.DISPLACED),
    "nothing is aside: the name was not on disk": (UPDATE, old, None, State.OUT),
    "nothing is aside: nor in its place": (UPDATE, None, None, State.IN),
    "nothing is aside, and a person saved": (UPDATE, theirs, None, State.IN),
    "nothing is aside, but the new text is in": (UPDATE, new, None, State.IN),
    "nothing is aside, but the new file is in": (UPDATE, edited, None, State.IN),
    "a new file is aside": (CREATE, None, new, State.OUT),
    "a new file is aside, and a person made one": (CREATE, theirs, new, State.OUT),
    "a new file is in": (CREATE, new, None, State.IN),
    "a new file is in, and a person saved": (CREATE, theirs, None, State.IN),
    "a new file was in, and a person removed it": (CREATE, None, None, State.IN),
    "what is to go is there": (DELETE, old, None, State.OUT),
    "what is to go is there, cut by a power cut": (DELETE, overwritten, None, State.OUT),
    "what is to go was replaced before": (DELETE, theirs, None, State.OUT),
    "what is to go is aside": (DELETE, None, old, State.IN),
    "what is to go is aside, and a person made another": (DELETE, theirs, old, State.IN),
    "what is to go was replaced, and is aside": (DELETE, None, theirs, State.DISPLACED),
    "what is to go is gone altogether": (DELETE, None, None, State.IN),
}


@pytest.mark.parametrize("is_same_boot", [True, False])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_state_is_seen_from_what_is_there(
    case: tuple[Staged, LeftFile | None, LeftFile | None, State], *, is_same_boot: bool
) -> None:
    """Whoever has saved since, and whether the machine has run since or not."""
    staged, place, aside, state = case
    assert state_of(staged, place, aside, is_same_boot=is_same_boot) is state


@pytest.mark.parametrize("staged", [UPDATE, DELETE])
def test_late_save_is_one_only_while_the_machine_runs(staged: Staged) -> None:
    """After a power cut no program has the displaced file open: its text is what the cut has left of it."""
    place = new if staged is UPDATE else None
    assert state_of(staged, place, overwritten, is_same_boot=True) is State.SAVED_LATE
    assert state_of(staged, place, overwritten, is_same_boot=False) is State.IN


@pytest.mark.parametrize("one", CASES.values(), ids=CASES)
def test_intent_without_inodes_is_put_in_when_in_doubt(
    one: tuple[Staged, LeftFile | None, LeftFile | None, State],
) -> None:
    """As it was prepared by an earlier version, which removed what lay aside before that was on disk."""
    staged, place, aside, state = one
    known = staged._replace(new=None, old=None)
    found = state_of(known, place, aside, is_same_boot=False)
    is_only_told_by_inodes = {place, aside} & {overwritten, edited}
    if state is State.OUT and aside is None and place in (None, theirs):
        assert found is State.IN
    elif not is_only_told_by_inodes:
        assert found is state


# --- groups ---


def prepared(
    *revisions: Any,
    paths: dict[str, str] | None = None,
    staged: tuple[str, ...] = (),
    outcomes: dict[tuple[str, str], dict[str, Any]] | None = None,
    folders: tuple[str, ...] = (),
) -> Prepared:
    return Prepared(
        revisions,
        paths or {},
        [Staged(path, f"{path}.aside", BASE, DATA) for path in staged],
        {key: json.dumps({"id": key[1], "ok": True, **facts}) for key, facts in (outcomes or {}).items()},
        THEN,
        folders,
    )


def made(seq: int, label: str, request_id: str | None = None, **more: Any) -> Any:
    kind = more.pop("kind", "updated")
    return replace(revision(seq, label, kind=kind, version=2, value="x"), author="ann", request_id=request_id, **more)


def fates(whole: Prepared) -> list[list[str]]:
    """The files of each group."""
    return sorted(sorted(one.path for one in group.staged) for group in groups_of(whole))


def test_requests_without_a_common_file_are_apart() -> None:
    """Each with its revision, its file and its outcome."""
    whole = prepared(
        made(3, "a", "1"),
        made(4, "b", "2"),
        staged=("a.md", "B.md"),
        paths={"a": "a.md", "b": "B.md"},
        outcomes={("ann", "1"): {"label": "a", "seq": 3}, ("ann", "2"): {"label": "b", "seq": 4}},
    )
    groups = groups_of(whole)
    assert [[one.label for one in group.revisions] for group in groups] == [["a"], ["b"]]
    assert [group.keys for group in groups] == [[("ann", "1")], [("ann", "2")]]
    assert fates(whole) == [["B.md"], ["a.md"]]


def test_what_shares_a_file_a_block_or_a_request_is_together() -> None:
    """Also through others, and a request that changed nothing is with the block that its reply shows."""
    assert fates(
        prepared(made(3, "a", "1"), made(4, "a", "2"), made(5, "b", "2"), made(6, "c"), staged=("a.md", "b.md", "c.md"))
    ) == [["a.md", "b.md"], ["c.md"]]
    renamed = replace(made(3, "b", "1"), kind="renamed", renamed_from="a")
    assert fates(prepared(renamed, made(4, "a", "2", kind="created"), staged=("a.md", "b.md"))) == [["a.md", "b.md"]]
    (group, other) = groups_of(
        prepared(made(3, "a", "1"), made(4, "b", "2"), outcomes={("bob", "1"): {"results": [{"label": "b"}]}})
    )
    assert (group.keys, other.keys) == ([], [("bob", "1")])


def test_file_is_repaired_only_together_with_its_text() -> None:
    """Else a power cut between the two could leave the repaired file, and lose what it had said."""
    whole = prepared(staged=("a.md", "a.md.rejected-2", "b.md", "b.md.rejected", "c.rejected.md"), paths={"a": "a.md"})
    assert fates(whole) == [["a.md", "a.md.rejected-2"], ["b.md", "b.md.rejected"], ["c.rejected.md"]]


def test_what_changes_who_is_known_is_together() -> None:
    """Revisions of blocks whose agents come or go, folders that go, and requests that name no block."""
    whole = prepared(
        made(3, "a", "1", attached=("x",)),
        made(4, "c", "3"),
        made(5, "b", None, detached=("x",)),
        staged=("a.md", "agents/x/p.md", "c.md"),
        outcomes={("ann", "4"): {"agent": "x"}, ("ann", "3"): {"label": "c"}},
        folders=("agents/x",),
    )
    assert fates(whole) == [["a.md", "agents/x/p.md"], ["c.md"]]
    (group,) = [group for group in groups_of(whole) if group.folders_gone]
    assert group.keys == [("ann", "4")]
    assert [one.seq for one in group.revisions] == [3, 5]


def test_part_is_numbered_without_a_gap() -> None:
    """Revisions and the outcomes that name them; what was replied to a request that changed nothing stays."""
    whole = prepared(
        made(3, "a", "1"),
        made(4, "b", "2"),
        made(5, "c", "3"),
        outcomes={
            ("ann", "1"): {"label": "a", "seq": 3, "block": True},
            ("ann", "2"): {"label": "b", "seq": 4, "block": True},
            ("ann", "3"): {"seq": 5, "results": [{"label": "c", "seq": 5}, {"label": "d", "seq": 1}]},
        },
    )
    _, second, third = groups_of(whole)
    part = part_of(whole, [third, second])
    assert [(one.seq, one.label) for one in part.revisions] == [(3, "b"), (4, "c")]
    outcomes = {key: json.loads(text) for key, text in part.outcomes.items()}
    assert outcomes == {
        ("ann", "2"): {"id": "2", "ok": True, "label": "b", "seq": 3, "block": True},
        ("ann", "3"): {
            "id": "3",
            "ok": True,
            "seq": 4,
            "results": [{"label": "c", "seq": 4}, {"label": "d", "seq": 1}],
        },
    }
