"""Requests on paper: what files and blocks are to become, in a real folder in which nothing is written."""

from __future__ import annotations

import itertools
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import BlocksdError, ProblemFile, Unavailable
from blocksd.files.document import Parser
from blocksd.files.file_edit import FileEdit, Postponed
from blocksd.requests import operations
from blocksd.requests.operations import carry_out
from blocksd.requests.request import Entry, Request, Unusable
from blocksd.requests.request import parse as parse_entry
from blocksd.requests.workspace import Workspace
from blocksd.state.state_draft import StateDraft
from looking import Looking
from parsed import parse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT = "2026-11-20T09:00:00.000Z"
NOTES = "---\nagents: [ann]  # her\n---\none\n"


class Office(Looking):
    """A folder that was read, and the workspace of one round."""

    def open(self) -> None:
        super().open()
        self.number = 0
        self.begin()

    def begin(self, unwritable: dict[str, BlocksdError] | None = None) -> None:
        """Begin a round on what is in force."""
        self.workspace = Workspace(self.folder, StateDraft(self.state, AT), Parser(), unwritable=unwritable or {})

    @property
    def draft(self) -> StateDraft:
        return self.workspace.draft

    def ask(self, actor: str, op: str, where: str | None = None, **args: Any) -> dict[str, Any]:
        self.number += 1
        given = {"id": f"r-{self.number}", "op": op, "args": args}
        if where is not None:
            given["label" if actor == "operator" else "name"] = where
        request = parse_entry(Entry(actor, f"{self.number}-0", json.dumps(given)))
        assert isinstance(request, Request)
        assert not isinstance(request, Unusable)
        reply: dict[str, Any] = json.loads(carry_out(self.workspace, request)[1])
        return reply

    def edits(self) -> dict[str, FileEdit]:
        return {edit.path: edit for edit in self.workspace.edits()}

    def paper(self) -> tuple[Any, ...]:
        """All that is in the workspace and drafted."""
        draft = self.draft
        return (
            dict(self.workspace.files),
            set(self.workspace.folders_made),
            set(self.workspace.folders_gone),
            list(draft.revisions),
            dict(draft.paths),
            dict(draft.attachments.attached),
            draft.attachments.known,
            draft.attachments.folders,
        )

    def assert_agreed(self) -> None:
        """What the files are to say is what is drafted, and nothing of it is in the folder yet."""
        for path, edit in self.edits().items():
            on_disk = self.root / path
            assert edit.base == (on_disk.read_bytes() if on_disk.exists() else None)
            label = path.removesuffix(".md")
            block = self.draft.block(label)
            assert (parse(edit.data, label) if edit.data is not None else None) == block
        paths = {label: self.draft.path_of(label) for label in self.workspace.files}
        assert self.workspace.paths == {label: path for label, path in paths.items() if path is not None}


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    made.write("notes", NOTES)
    made.write("open", "---\nagents: '*'\n---\nx\n")
    made.write("agents/ann/persona", "I am Ann.\n")
    made.sweep()
    made.begin()
    before = sorted(made.root.rglob("*"))
    yield made
    assert sorted(made.root.rglob("*")) == before, "something was written"
    made.close()


def test_edits_of_one_file_become_one(office: Office) -> None:
    """Each request is a revision, on top of those before; the file is changed once, from what it says now."""
    office.ask("operator", "append", "notes", content="two")
    reply = office.ask("ann", "append", "notes", content="three")
    assert (reply["version"], reply["seq"], reply["block"]["value"]) == (3, 5, "one\ntwo\nthree")
    assert office.edits() == {
        "notes.md": FileEdit("notes.md", NOTES.encode(), NOTES.replace("one", "one\ntwo\nthree").encode())
    }
    office.assert_agreed()


def test_edits_that_cancel_out_touch_no_file(office: Office) -> None:
    """The revisions are there, for that is what happened."""
    office.ask("operator", "append", "notes", content="two")
    office.ask("operator", "undo", "notes")
    assert office.edits() == {}
    assert [one.version for one in office.draft.revisions] == [2, 3]
    office.assert_agreed()


def test_block_that_comes_and_goes_touches_no_file(office: Office) -> None:
    """Created and deleted in one round."""
    office.ask("operator", "create", "new", value="x")
    office.ask("operator", "delete", "new")
    assert office.edits() == {}
    assert office.workspace.paths == {}
    assert office.workspace.gone == {"new": "new.md"}
    office.assert_agreed()


def test_block_deleted_and_created_is_one_edit(office: Office) -> None:
    """Its file is exchanged, not removed and made."""
    office.ask("operator", "delete", "notes")
    office.ask("operator", "create", "notes", value="new")
    assert office.edits() == {"notes.md": FileEdit("notes.md", NOTES.encode(), b"new\n")}
    office.assert_agreed()


def test_rename_is_two_edits(office: Office) -> None:
    """One file comes, like the one that goes; and back again is none."""
    office.ask("operator", "rename", "notes", to="a/moved")
    assert office.edits() == {
        "notes.md": FileEdit("notes.md", NOTES.encode(), None),
        "a/moved.md": FileEdit("a/moved.md", None, NOTES.encode(), "notes.md"),
    }
    office.assert_agreed()
    office.ask("operator", "rename", "a/moved", to="notes")
    assert office.edits() == {}
    office.assert_agreed()


REFUSED: list[tuple[str, str, str | None, dict[str, Any]]] = [
    ("operator", "append", "none", {"content": "x"}),
    ("operator", "replace", "notes", {"old_content": "gone", "new_content": "x"}),
    ("operator", "create", "notes", {}),
    ("operator", "create", "NOTES", {}),
    ("operator", "create", "agents/ann/open", {}),
    ("operator", "rename", "notes", {"to": "open"}),
    ("operator", "update", "notes", {"limit": 1}),
    ("operator", "create_agent", None, {"agent": "bob", "blocks": [{"name": "a"}, {"name": "../b"}]}),
    ("operator", "create_agent", None, {"agent": "bob", "attach": ["notes", "none"]}),
    ("operator", "delete_agent", None, {"agent": "nobody"}),
    ("operator", "undo", "notes", {}),
    ("ann", "delete", "notes", {}),
    ("ann", "update", "notes", {"value": "x", "limit": 5}),
    (
        "operator",
        "batch",
        None,
        {
            "requests": [
                {"op": "create", "label": "agents/zoe/x"},
                {"op": "create_agent", "args": {"agent": "bob"}},
                {"op": "delete_agent", "args": {"agent": "ann"}},
                {"op": "rename", "label": "notes", "args": {"to": "moved"}},
                {"op": "append", "label": "notes", "args": {"content": "x"}},
            ]
        },
    ),
]


@pytest.mark.parametrize(("actor", "op", "where", "args"), REFUSED)
@pytest.mark.parametrize("busy", [False, True])
def test_refusal_changes_nothing(
    office: Office, actor: str, op: str, where: str | None, args: dict[str, Any], *, busy: bool
) -> None:
    """Neither files nor draft, whatever was done in the round before it."""
    if busy:
        office.ask("operator", "append", "open", content="more")
        office.ask("operator", "create", "agents/yan/x")
    before = office.paper()
    with pytest.raises(BlocksdError):
        office.ask(actor, op, where, **args)
    assert office.paper() == before
    office.assert_agreed()


@pytest.mark.parametrize("error", [MemoryError, RecursionError, KeyError])
def test_failure_changes_nothing(office: Office, monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """Even one that comes when all is decided, and most of it is drafted; the next request is decided as ever."""
    office.ask("operator", "append", "open", content="more")
    before = office.paper()
    with monkeypatch.context() as patch:
        patch.setattr(operations, "carried_out", lambda *_: fail(error))
        with pytest.raises(error):
            office.ask("operator", "create_agent", agent="zoe", attach=["notes"])
    assert office.paper() == before
    office.assert_agreed()
    office.ask("operator", "create_agent", agent="zoe", attach=["notes"])
    office.assert_agreed()


def fail(error: type[Exception]) -> dict[str, Any]:
    raise error


def test_file_that_is_not_as_it_was_is_looked_at_first(office: Office) -> None:
    """Saved, gone, or being written: the request is postponed, and the path to look at is told; nothing has changed."""
    path = office.root / "notes.md"
    path.write_text(NOTES.replace("one", "saved"))
    before = office.paper()
    with pytest.raises(Postponed) as postponed:
        office.ask("operator", "append", "notes", content="x")
    assert postponed.value.path == "notes.md"
    path.unlink()
    with pytest.raises(Postponed):
        office.ask("operator", "append", "notes", content="x")
    path.write_text(NOTES)
    with path.open("r+b"), pytest.raises(Postponed):
        office.ask("operator", "append", "notes", content="x")
    assert office.paper() == before
    (office.root / "new.md").write_text("just made\n")
    with pytest.raises(Postponed) as postponed:
        office.ask("operator", "create", "new")
    assert postponed.value.path == "new.md"
    (office.root / "new.md").unlink()
    assert office.ask("operator", "append", "notes", content="x")["version"] == 2


def test_touched_file_is_no_other(office: Office) -> None:
    """What counts is what it says: comments and time may have changed."""
    text = NOTES.replace("# her", "# Ann")
    (office.root / "notes.md").write_text(text)
    office.ask("operator", "append", "notes", content="two")
    assert office.edits()["notes.md"].base == text.encode()
    assert office.edits()["notes.md"].data == text.replace("one", "one\ntwo").encode()


@pytest.mark.parametrize("text", ["---\nlimit: none\n---\n", "---\n", "\0"])
def test_file_with_a_problem_is_refused(office: Office, text: str) -> None:
    """With what is wrong with it."""
    (office.root / "notes.md").write_text(text)
    with pytest.raises(ProblemFile) as refusal:
        office.ask("operator", "append", "notes", content="x")
    assert refusal.value.facts["label"] == "notes"
    assert refusal.value.facts["hint"]
    (office.root / "notes.md").write_text(NOTES)


def test_file_that_could_not_be_written_is_refused(office: Office) -> None:
    """For this round, with the reason; the next one tries again."""
    office.begin({"notes.md": Unavailable("full", path="notes.md"), "agents/bob": Unavailable("full")})
    with pytest.raises(Unavailable):
        office.ask("operator", "append", "notes", content="x")
    with pytest.raises(Unavailable):
        office.ask("operator", "create_agent", agent="bob", blocks=[])
    office.ask("operator", "append", "open", content="x")
    office.begin()
    office.ask("operator", "append", "notes", content="x")


def test_agents_of_one_batch_are_all_known(office: Office) -> None:
    """One that comes does not undo another's going."""
    parts = [
        {"op": "create_agent", "args": {"agent": "bob", "blocks": []}},
        {"op": "create_agent", "args": {"agent": "carl", "blocks": []}},
        {"op": "delete_agent", "args": {"agent": "ann"}},
    ]
    office.ask("operator", "batch", requests=parts)
    assert office.draft.attachments.known == {"bob", "carl"}
    assert office.draft.attachments.attached["open"] == {"bob", "carl"}
    assert (office.workspace.folders_made, office.workspace.folders_gone) == ({"bob", "carl"}, {"ann"})
    office.assert_agreed()


def test_agent_whose_folder_is_there_can_be_created(office: Office) -> None:
    """A crash may have left it; one with as much as one block is there already."""
    office.draft.set_folders({"ann", "bob"})
    office.ask("operator", "create_agent", agent="bob")
    assert office.draft.path_of("agents/bob/persona") is not None
    with pytest.raises(BlocksdError, match="there is an agent 'ann' already"):
        office.ask("operator", "create_agent", agent="ann")


@pytest.mark.parametrize("seed", range(30))
def test_undo_and_redo_go_along_a_row_of_states(office: Office, seed: int) -> None:
    """However edits, deletions and creations are mixed: a state is a text, or that there is no block."""
    dice = random.Random(seed)
    states: list[str | None] = ["one"]
    place = 0

    def shown() -> str | None:
        block = office.draft.block("notes")
        return block.value if block is not None else None

    for step in range(40):
        op = dice.choice(("append", "delete", "create", "undo", "undo", "redo"))
        before = shown()
        assert before == states[place]
        if op in ("undo", "redo"):
            to = place + (1 if op == "redo" else -1)
            if 0 <= to < len(states):
                place = to
                office.ask("operator", op, "notes")
            else:
                with pytest.raises(BlocksdError):
                    office.ask("operator", op, "notes")
        elif (op == "create") == (before is None):
            args = {"append": {"content": str(step)}, "create": {"value": str(step)}}.get(op, {})
            office.ask("operator", op, "notes", **args)
            states = [*states[: place + 1], shown()]
            place += 1
        assert shown() == states[place]
        office.assert_agreed()


@pytest.mark.parametrize("op", ["batch", "rename", "create_agent"])
def test_directories_that_one_request_makes_are_bounded(office: Office, op: str) -> None:
    """Each of them is synced alone, so that a label may cost a hundred times what its file does."""
    deep = "/".join(["d"] * 80)
    names = [f"x{number}/{deep}/y" for number in range(13)]
    if op == "create_agent":
        args: dict[str, Any] = {"agent": "zoe", "blocks": [{"name": name, "value": "v"} for name in names]}
    elif op == "batch":
        args = {"requests": [{"op": "create", "label": name, "args": {"value": "v"}} for name in names]}
    else:
        args = {"requests": [{"op": "rename", "label": "notes", "args": {"to": names[0]}}]}
        steps = itertools.pairwise(names)
        args["requests"] += [{"op": "rename", "label": one, "args": {"to": other}} for one, other in steps]
    office.begin()
    before = office.paper()
    with pytest.raises(BlocksdError, match="1000 directories"):
        office.ask("operator", "batch" if op == "rename" else op, **args)
    assert office.paper() == before


def test_directories_that_are_to_be_made_are_part_of_the_load(office: Office) -> None:
    """A round is cut before it makes too many; those that are there cost nothing, and one is counted once."""
    office.begin()
    office.ask("operator", "create", "flat", value="v")
    flat = office.workspace.load
    office.ask("operator", "create", "one/two/three/x", value="v")
    deep = office.workspace.load - flat
    office.ask("operator", "create", "one/two/three/z", value="v")
    again = office.workspace.load - flat - deep
    assert deep > 3 * again
