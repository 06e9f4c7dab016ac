"""Local edits become requests, each is done once, and nothing is written over before the leader has it."""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import (
    BlocksdError,
    InternalError,
    InvalidLabel,
    Misconfigured,
    NotFound,
    ProblemFile,
    StateUnusable,
    Unavailable,
    VersionConflict,
)
from blocksd.files.document import MAX_BYTES
from blocksd.files.staging import digest
from blocksd.follow.local_edits import LocalEdits
from blocksd.follow.outbox import Outbox
from blocksd.follow.outgoing import LOCAL_DELETIONS, UNSENT, Outgoing
from blocksd.follow.report import Report
from blocksd.follow.sender import Answered
from blocksd.settings.config import Config
from followers import Side, wanted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blocksd.follow.outbox import Unsent
    from blocksd.follow.plan import Wanted


class Sent(list["Unsent"]):
    """A sender that only remembers what it is to send."""

    def send(self, edit: Unsent) -> None:
        self.append(edit)


class Host:
    """A writable follower on a clock that only a test moves."""

    def __init__(self, path: Path, *, is_read_only: bool = False) -> None:
        self.side = Side(path)
        copy: Any = self.side
        self.now = 0.0
        self.there: dict[str, Wanted | None] = {}  # what the leader has
        self.sent = Sent()
        sender: Any = self.sent
        config = Config(state_dir=str(path / "state"), delete_grace=1.0)
        self.report = Report(config, copy, "", [])
        self.outgoing = Outgoing(copy, self.report, sender)
        self.edits = LocalEdits(copy, self.report, config, None if is_read_only else self.outgoing)

    def write(self, name: str, text: str) -> None:
        (self.side.path / f"{name}.md").write_text(text)
        self.edits.hint(f"{name}.md")

    def remove(self, *names: str) -> None:
        for name in names:
            (self.side.path / f"{name}.md").unlink()
            self.edits.hint(f"{name}.md")

    def move(self, old: str, new: str) -> None:
        (self.side.path / f"{old}.md").rename(self.side.path / f"{new}.md")
        self.edits.hint(f"{new}.md")
        self.edits.hint(f"{old}.md")

    def go_on(self, seconds: float = 0.0) -> list[tuple[str, str]]:
        """Look, and send what is to be sent; what was sent by now."""
        self.now += seconds
        self.edits.take_due(self.now)
        for path in self.outgoing.go_on(
            self.now + 1e9, lambda labels: {label: self.there.get(label) for label in labels}
        ):
            self.edits.hint(path)
        return [(edit.op, edit.path) for edit in self.sent]

    def answer(self, error: BlocksdError | None = None, **reply: Any) -> None:
        """The leader answers what was sent last."""
        _, paths = self.outgoing.take(Answered(self.sent[-1], None if error else reply, error))
        for path in paths:
            self.edits.hint(path)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    made.side.bring({name: f"{name} 1" for name in ("a", "b", "c", "d", "e")})
    yield made
    made.side.close()


def test_save_is_sent_with_the_version_that_it_was_made_of(host: Host) -> None:
    """And is over when it is answered: then the leader's text may be written over it."""
    host.write("a", "a 2")
    assert host.go_on() == [("save", "a.md")]
    (edit,) = host.sent
    assert (edit.label, edit.version, edit.base, edit.text) == ("a", 1, host.side.place.files["a.md"].digest, b"a 2")
    assert edit.is_sent
    assert Outbox(host.side.place).edits == {"a.md": edit}
    assert host.side.bring({"a": "a 3"}, restores=False).written == []
    host.answer(label="a", version=2, block={"value": "a 2"})
    assert host.outgoing.outbox.edits == {}
    assert host.side.place.files["a.md"].version == 2
    assert host.side.bring({"a": "a 3"}, restores=False).written == ["a.md"]


def test_one_edit_of_a_file_is_under_way(host: Host) -> None:
    """What is saved meanwhile is sent when that is answered, as made of it."""
    host.write("a", "a 2")
    host.go_on()
    host.write("a", "a 3")
    host.write("b", "b 2")
    assert host.go_on() == [("save", "a.md")]
    host.answer(label="a", version=2, block={"value": "a 2"})
    host.go_on()
    host.answer(label="b", version=2, block={"value": "b 2"})
    assert host.go_on() == [("save", "a.md"), ("save", "b.md"), ("save", "a.md")]
    assert (host.sent[-1].version, host.sent[-1].oldest, host.sent[-1].text) == (2, 2, b"a 3")


@pytest.mark.parametrize(("more", "version"), [({"saved": 4}, 4), ({}, 1)])
def test_save_after_one_that_was_merged(host: Host, more: dict[str, Any], version: int) -> None:
    """It is made of the text that was saved here, and never of the merged one: that would remove the other host's text."""
    host.write("a", "a 2")
    host.go_on()
    host.write("a", "a 3")
    host.answer(label="a", version=5, block={"value": "a 2 and theirs"}, **more)
    host.go_on()
    assert host.sent[-1].version == version


def test_editor_may_have_read_what_the_file_had_just_before(host: Host) -> None:
    """The oldest version that it may have read is sent, also after a kill; a text that is typed on is made of the same."""
    for version in (2, 3):
        shown = {name: wanted(name, f"{name} {version}", version=version) for name in ("a", "b", "c")}
        host.side.copier.bring(shown, restores=False)
    host.write("a", "a, edited")
    host.go_on()
    again = Host(host.side.path.parent)
    again.write("b", "b, edited")
    again.go_on()
    again.go_on()
    again.side.place.window = 0.0
    again.write("b", "b, edited again")
    again.write("c", "c, edited after a while")
    again.go_on()
    edits = again.outgoing.outbox.edits
    assert {path: (edit.version, edit.oldest) for path, edit in edits.items()} == {
        "a.md": (3, 1),
        "b.md": (3, 1),
        "c.md": (3, 3),
    }
    again.side.close()


@pytest.mark.parametrize("is_swept", [False, True])
def test_editor_that_saved_while_the_follower_was_off(host: Host, is_swept: bool) -> None:
    """When it saved first is not known: it may have read what the file had just before, unless that is long ago."""
    host.side.place.window = 0.0 if is_swept else 5.0
    for version in (2, 3):
        host.side.copier.bring({"a": wanted("a", f"a {version}", version=version)}, restores=False)
    for _ in range(2 * is_swept):
        assert list(host.edits.sweep())
    host.side.close()
    (host.side.path / "a.md").write_text("a, edited")
    again = Host(host.side.path.parent)
    again.side.place.window = 0.0
    assert list(again.edits.sweep())
    again.go_on()
    (edit,) = again.outgoing.outbox.edits.values()
    assert (edit.version, edit.oldest) == (3, 3 if is_swept else 1)
    again.side.close()


@pytest.mark.parametrize(("after", "oldest"), [(30.0, 1), (90.0, 3)])
def test_editor_that_saved_while_the_follower_did_not_look(host: Host, after: float, oldest: int) -> None:
    """As one that is paused, or waits to try again: the text may have been saved several times since the last look, for a while."""
    host.go_on()
    for version in (2, 3):
        host.side.copier.bring({"a": wanted("a", f"a {version}", version=version)}, restores=False)
    host.write("a", "a, edited")
    os.utime(host.side.path / "a.md", (time.time() + after,) * 2)
    host.side.place.window = 0.0
    host.go_on()
    assert host.sent[-1].oldest == oldest


def test_edit_that_was_not_sent_is_replaced(host: Host) -> None:
    """The last text is the one that is sent; one that is undone is not sent at all."""
    host.write("a", "a 2")
    host.go_on()
    host.write("b", "b 2")
    host.write("c", "c 2")
    host.go_on()
    host.write("b", "b 3")
    host.write("c", "c 1")
    host.go_on()
    assert {edit.path: edit.text for edit in host.outgoing.outbox.edits.values()} == {"a.md": b"a 2", "b.md": b"b 3"}


@pytest.mark.parametrize("error", [Unavailable("no answer", request_id="x"), InternalError("fault", error="x")])
def test_edit_without_an_answer_is_sent_again(host: Host, error: BlocksdError) -> None:
    """Under the same id, so that it is done once; a fault of the leader's program is its answer, too."""
    host.write("a", "a 2")
    host.go_on()
    host.answer(error)
    host.go_on()
    if isinstance(error, Unavailable):
        assert [edit.id for edit in host.sent] == [host.sent[0].id] * 2
    else:
        assert len(host.sent) == 1
        assert host.outgoing.outbox.edits["a.md"].refusal is not None


def test_leader_that_takes_no_edits_is_reported(host: Host) -> None:
    """As long as that lasts: the edit may wait for days."""
    host.write("a", "a 2")
    host.go_on()
    host.answer(Unavailable("OOM command not allowed"))
    (problem,) = host.report.problems.values()
    assert (problem.subject, problem.warning) == (UNSENT, True)
    assert "OOM" in problem.message
    host.go_on()
    host.answer(label="a", version=2)
    assert not host.report.problems


def test_file_whose_new_name_is_on_its_way_stays_as_it_is(host: Host) -> None:
    """Also when it is edited, and moved on, before the leader has answered: the first name is not written again."""
    host.move("a", "b2")
    host.go_on()
    host.write("b2", "a 2")
    host.go_on()
    again = Host(host.side.path.parent)
    assert again.side.place.awaited == host.side.place.awaited == {"a.md", "b2.md"}
    again.side.close()
    host.move("b2", "b3")
    host.go_on()
    assert host.side.place.awaited == {"a.md", "b2.md"}
    assert host.side.bring({"a": None, "b2": "a 1"}, restores=False).written == []
    host.answer(label="b2", to="b2", version=2)
    assert host.side.place.awaited == set()


def test_answer_is_noted_whole_or_not_at_all(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noted in part, the answer of the same edit would be noted again, when the file has the leader's newer text."""
    host.write("a", "a 2")
    host.remove("b")
    host.go_on()
    host.go_on(2.0)

    def crash(_path: str) -> None:
        raise StateUnusable("the disk is full", path="x")

    monkeypatch.setattr(host.outgoing.outbox, "remove", crash)
    host.answer(label="a", version=2, block={"value": "a 2"})
    host.go_on()
    host.answer(NotFound("it is gone"))
    assert Outbox(host.side.place).edits == host.outgoing.outbox.edits == {}
    assert host.side.place.files["a.md"].version == 2


@pytest.mark.parametrize(
    "damage",
    [
        "INSERT INTO facts VALUES ('seq', 'x')",
        "INSERT INTO unsent VALUES ('a', '', '', '', 1, '', '', '', '', 0, '{', 0)",
    ],
)
def test_damaged_state_is_told(host: Host, damage: str) -> None:
    """With the way out."""
    host.side.place.execute(damage)
    with pytest.raises(Misconfigured, match="is damaged"):
        Host(host.side.path.parent)


def test_file_that_was_moved_is_renamed(host: Host) -> None:
    """Whichever of the two names is seen first; the block keeps its history."""
    host.move("a", "moved")
    assert host.go_on() == [("rename", "a.md")]
    assert (host.sent[0].label, host.sent[0].to) == ("a", "moved.md")
    host.answer(VersionConflict("newer", expected=1, version=7))
    host.go_on()
    assert (host.sent[-1].op, host.sent[-1].version) == ("rename", 7)
    host.answer(label="moved", version=8)
    assert host.side.place.paths["moved"] == "moved.md"
    assert "a.md" not in host.side.place.files
    assert host.go_on(10.0) == [("rename", "a.md")] * 2


def test_new_file_that_is_removed_before_it_is_answered(host: Host) -> None:
    """The leader shows it already: it is not written again, but deleted there."""
    host.write("new", "1")
    host.go_on()
    host.remove("new")
    host.go_on()
    assert host.side.bring({"new": "1"}, restores=False).written == []
    again = Host(host.side.path.parent)  # as after a kill
    assert again.side.bring({"new": "1"}, restores=False).written == []
    again.side.close()
    host.answer(label="new", version=1, block={"value": "1"})
    host.go_on()
    assert host.go_on(2.0) == [("save", "new.md"), ("delete", "new.md")]


def test_save_that_is_undone_before_it_is_answered(host: Host) -> None:
    """The text from before is a save, too: it is not written over, and sent."""
    host.write("a", "a 2")
    host.go_on()
    host.write("a", "a 1")
    host.go_on()
    assert host.side.bring({"a": "a 2"}, restores=False).written == []
    host.answer(label="a", version=2, block={"value": "a 2"})
    assert host.go_on() == [("save", "a.md")] * 2
    assert (host.sent[-1].version, host.sent[-1].text) == (2, b"a 1")


def test_moved_file_that_is_removed_before_it_is_answered(host: Host) -> None:
    """It is not written under the new name, but deleted there."""
    host.move("a", "moved")
    host.go_on()
    host.remove("moved")
    host.go_on()
    assert host.side.bring({"a": None, "moved": "a 1"}, restores=False).written == []
    host.answer(label="moved", version=2)
    host.go_on()
    assert host.go_on(2.0) == [("rename", "a.md"), ("delete", "moved.md")]


def test_moved_file_that_is_edited_before_it_is_answered(host: Host) -> None:
    """The edit is made of the text that was moved."""
    host.move("a", "moved")
    host.go_on()
    host.write("moved", "a 2")
    host.go_on()
    host.there["moved"] = wanted("moved", "a 1")
    host.answer(label="moved", version=2)
    assert host.go_on() == [("rename", "a.md"), ("save", "moved.md")]
    assert (host.sent[-1].version, host.sent[-1].base) == (2, host.sent[0].base)


def test_removed_file_that_is_back_before_it_is_answered(host: Host) -> None:
    """It is not removed again, but a new block."""
    host.remove("a")
    host.go_on()
    host.go_on(2.0)
    host.write("a", "a 1")
    host.go_on()
    assert host.side.bring({"a": None}, restores=False).removed == []
    host.answer(label="a", version=2)
    assert host.go_on() == [("delete", "a.md"), ("save", "a.md")]


def test_removed_file_is_deleted_after_the_grace(host: Host) -> None:
    """An editor may put it back before."""
    host.remove("a", "b")
    assert host.go_on() == []
    host.write("b", "b 1")
    assert host.go_on(2.0) == [("delete", "a.md")]
    assert host.sent[0].version == 1
    host.answer(label="a", version=2)
    assert "a.md" not in host.side.place.files


@pytest.mark.parametrize("error", [VersionConflict("newer", expected=1, version=2), NotFound("gone", label="a")])
def test_deletion_that_is_refused(host: Host, error: BlocksdError) -> None:
    """The leader's text is newer, or is gone as well: what it has now is what this file becomes."""
    host.remove("a")
    host.go_on()
    host.go_on(2.0)
    host.answer(error)
    assert host.outgoing.outbox.edits == {}
    assert host.side.bring({"a": "a 2"}, restores=False).written == ["a.md"]


def test_most_files_are_not_deleted(host: Host) -> None:
    """Not before a person says that it is meant, nor when some of them are back; nor if the follower is killed."""
    host.remove("a", "b", "c", "d", "e")
    host.go_on()
    assert host.go_on(2.0) == []
    assert LOCAL_DELETIONS in host.report.problems
    host.write("a", "a 1")
    assert host.go_on(2.0) == []
    assert host.outgoing.accept_deletions() == 4
    assert host.go_on(2.0) == [("delete", "b.md")]
    assert LOCAL_DELETIONS not in host.report.problems


def test_deletions_that_were_held_back_are_over_when_all_are_back(host: Host) -> None:
    """Then a single one is an edit again."""
    host.remove("a", "b", "c", "d", "e")
    host.go_on()
    host.go_on(2.0)
    for name in ("a", "b", "c", "d", "e"):
        host.write(name, f"{name} 1")
    host.go_on(2.0)
    assert LOCAL_DELETIONS not in host.report.problems
    host.remove("a")
    host.go_on()
    assert host.go_on(2.0) == [("delete", "a.md")]


def test_refused_text_stays_a_problem_until_it_changes(host: Host) -> None:
    """It is not sent again as it is, by a new start neither."""
    host.write("a", "bad")
    host.go_on()
    host.answer(ProblemFile("line 1 is wrong", label="a", hint="correct it"))
    assert host.report.problems["a.md"].message == "line 1 is wrong"
    host.edits.hint("a.md")
    assert host.go_on() == [("save", "a.md")]
    again = Host(host.side.path.parent)
    again.edits.hint("a.md")
    assert again.go_on() == []
    assert "a.md" in again.report.problems
    again.write("a", "good")
    assert again.go_on() == [("save", "a.md")]
    assert "a.md" not in again.report.problems
    again.side.close()


def test_new_file_that_the_leader_has_too(host: Host) -> None:
    """An equal one is no edit; another one is kept, and not sent: it may be an older version of the leader's."""
    host.there = {name: wanted(name, "theirs") for name in ("new", "same")}
    host.write("new", "ours")
    host.write("same", "theirs")
    host.write("only", "ours")
    host.go_on()
    host.go_on()
    host.side.bring({"same": "theirs"})
    host.edits.hint("same.md")
    host.go_on()
    assert [edit.path for edit in host.sent] == ["only.md"]
    assert host.report.problems["new.md"].code == "already_exists"
    assert list(host.outgoing.outbox.edits) == ["new.md", "only.md"]


def test_file_that_is_renamed_twice_before_the_leader_has_its_name(host: Host) -> None:
    """The last name is sent; of one that was renamed and then removed the deletion is."""
    host.write("e", "e 2")
    host.go_on()  # is under way
    host.move("a", "b2")
    host.move("c", "c2")
    host.go_on()
    host.move("b2", "b3")
    host.remove("c2")
    host.go_on()
    host.go_on(2.0)
    edits = {path: (edit.op, edit.to) for path, edit in host.outgoing.outbox.edits.items()}
    assert edits == {"e.md": ("save", None), "a.md": ("rename", "b3.md"), "c.md": ("delete", None)}
    again = Host(host.side.path.parent)
    again.move("b3", "b4")
    again.go_on()
    assert again.outgoing.outbox.edits["a.md"].to == "b4.md"
    again.side.close()


def test_name_that_the_leader_refuses_is_corrected(host: Host) -> None:
    """By another rename: the block is renamed, and neither is there twice."""
    host.move("a", "a:b")
    host.go_on()
    host.answer(InvalidLabel("':' cannot be in a name"))
    host.go_on()
    assert "a.md" in host.report.problems
    host.move("a:b", "ab")
    host.go_on()
    assert (host.sent[-1].op, host.sent[-1].path, host.sent[-1].to) == ("rename", "a.md", "ab.md")
    assert not host.report.problems


def test_symlinks_that_a_person_makes(host: Host) -> None:
    """Nothing is written or sent through one, and what is behind one is not gone."""
    copy = host.side.path
    host.side.bring({"part/x": "x 1", "part/y": "y 1"})
    (copy / "part").rename(copy.parent / "part")
    (copy / "part").symlink_to(copy.parent / "part")
    host.remove("a")
    (copy / "a.md").symlink_to("b.md")
    for path in ("part/x.md", "part/y.md", "a.md"):
        host.edits.hint(path)
    host.go_on()
    assert host.go_on(5.0) == []
    outcome = host.side.bring({"a": "a 2", "part/x": "x 2", "part/new": "new"}, restores=False)
    assert sorted(outcome.failed) == ["a.md", "part/new.md", "part/x.md"]
    assert all("is a symlink" in error.message for error in outcome.failed.values())
    assert (copy / "b.md").read_text() == "b 1"
    assert (copy / "part/x.md").read_text() == "x 1"
    (copy / "part").unlink()
    (copy.parent / "part").rename(copy / "part")
    assert sorted(host.side.bring({"part/x": "x 2"}).written) == ["part/x.md"]


def test_new_file_that_cannot_be_sent_is_told(host: Host) -> None:
    """Whatever it is; the problem is over when it is gone."""
    (host.side.path / "large.md").write_bytes(b"x" * (MAX_BYTES + 1))
    os.mkfifo(host.side.path / "fifo.md")
    (host.side.path / "folder.md").mkdir()
    (host.side.path / "link.md").symlink_to("/etc/hostname")
    names = ["fifo.md", "folder.md", "large.md", "link.md"]
    for name in names:
        host.edits.hint(name)
    assert host.go_on() == []
    assert sorted(host.report.problems) == names
    assert all(problem.hint for problem in host.report.problems.values())
    host.remove("fifo", "large", "link")
    (host.side.path / "folder.md").rmdir()
    host.edits.hint("folder.md")
    host.go_on()
    assert not host.report.problems


def test_versions_of_another_journal_mean_nothing(host: Host) -> None:
    """What was made of one is known by its text alone."""
    host.write("b", "b 2")
    host.go_on()
    host.write("a", "a 2")
    host.go_on()
    host.side.place.forget_versions()
    host.answer(label="b", version=2)
    host.go_on()
    assert (host.sent[-1].path, host.sent[-1].version) == ("a.md", 0)
    assert host.sent[-1].base == digest(b"a 1")


@pytest.mark.parametrize("rounds", [0, 2])
def test_refused_text_that_is_saved_again_is_sent_again(host: Host, rounds: int) -> None:
    """As it is: what was wrong may have been at the leader. So is one that is saved before the follower has looked again."""
    host.write("a", "a 2")
    host.go_on()
    host.answer(ProblemFile("the disk is full"))
    for _ in range(rounds):
        host.go_on()
    assert len(host.sent) == 1
    host.write("a", "a 2")
    assert len(host.go_on()) == 2
    assert host.sent[0].id != host.sent[1].id


def test_read_only_copy_writes_what_was_removed_and_rests(tmp_path: Path) -> None:
    """After the grace; then there is nothing to wait for."""
    host = Host(tmp_path, is_read_only=True)
    host.side.bring({"a": "1", "b": "1"})
    host.remove("a")
    host.write("b", "mine")
    assert host.edits.take_due(1.0) == ["b"]
    assert host.edits.due_at == 2.0
    assert host.edits.take_due(2.0) == ["a"]
    assert host.edits.due_at == float("inf")
    assert list(host.report.edits) == ["b.md"]
    assert host.sent == []
    host.side.close()


def test_new_file_that_can_be_no_block_is_told(host: Host) -> None:
    """Its name is no label, so nothing is sent."""
    host.write("a:b", "text")
    assert host.go_on() == []
    assert "a:b.md" in host.report.problems


def test_versions_of_a_lost_leader_are_not_sent(host: Host) -> None:
    """An edit that waited through a promotion is made of the version that the new leader has of that text, or of none."""
    host.side.bring({"a": "a 1"})
    host.write("a", "a 2")
    host.write("b", "b 2")
    host.remove("c", "d")
    host.edits.take_due(0.0)
    host.edits.take_due(5.0)
    waiting = {edit.path: edit.version for edit in host.outgoing.outbox.edits.values()}
    assert waiting == dict.fromkeys(("a.md", "b.md", "c.md", "d.md"), 1)
    host.side.place.note_generation(1)
    there = {name: wanted(name, text) for name, text in (("a", "a 1"), ("b", "b 0"), ("c", "c 1"), ("d", "d 0"))}
    there = {name: one._replace(version=7, form="new") for name, one in there.items() if one is not None}
    outcome = host.side.copier.bring(there, restores=False)
    assert sorted(outcome.edited) == ["a.md", "b.md"]
    for _ in waiting:
        host.go_on()
        host.answer(version=8)
    assert {edit.path: edit.version for edit in host.sent} == {"a.md": 7, "b.md": 0, "c.md": 7, "d.md": 0}
    assert [edit.base is not None for edit in host.sent] == [True] * 4


def test_modes_are_not_sent(host: Host) -> None:
    """A change of the mode alone is no edit; a new file's mode stays here when the leader has its text."""
    (host.side.path / "a.md").chmod(0o600)
    host.edits.hint("a.md")
    assert host.go_on() == []
    host.write("new", "new 1")
    (host.side.path / "new.md").chmod(0o600)
    assert host.go_on() == [("save", "new.md")]
    host.answer(label="new", version=1)
    host.side.bring({"new": "new 1"})
    host.side.bring({"new": "new 2", "a": "a 2"})
    modes = {name: stat.S_IMODE((host.side.path / f"{name}.md").stat().st_mode) for name in ("a", "new")}
    assert modes == {"a": 0o600, "new": 0o600}
