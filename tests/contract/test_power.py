"""A power cut at the worst moment: the journal is back at its last synced commit, and the files are as they were."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import JournalUnusable
from blocksd.files.root import Root
from blocksd.journal.database import WritingDurably
from blocksd.journal.intents import Intents
from blocksd.journal.results import Results
from blocksd.model.label import TEMPORARY
from blocksd.requests.request import Entry
from failing import call_of_root
from journaled import prune
from rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blocksd.journal.intents import Prepared
    from support import RedisServer


class Powered(Rig):
    """A daemon whose machine may lose its power. After that the journal is at the last commit that was synced."""

    def __init__(self, home: Path, url: str, raw: Any, **settings: Any) -> None:
        self.raw = raw
        self.sent = 0
        self.pruned = 0
        super().__init__(home, url, **settings)

    def ask(self, *requests: dict[str, Any]) -> list[dict[str, Any]]:
        """Ask for all of it at once, as the operator; the replies."""
        ids = []
        for request in requests:
            self.sent += 1
            ids.append(request.get("id", f"r-{self.sent}"))
            self.raw.xadd("blocks:inbox:operator", {"request": json.dumps({"args": {}, **request, "id": ids[-1]})})
        self.pass_on()
        self.run(lambda: all(self.raw.exists(f"blocks:reply:operator:{one}") for one in ids), "replies")
        return [self.reply(one) for one in ids]

    def pass_on(self) -> None:
        found = self.raw.xrange("blocks:inbox:operator")
        self.core.inbox.add(Entry("operator", one, fields.get("request")) for one, fields in found)

    def reply(self, request_id: str) -> dict[str, Any]:
        (text,) = self.raw.lrange(f"blocks:reply:operator:{request_id}", 0, -1)
        reply: dict[str, Any] = json.loads(text)
        return reply

    def remember(self) -> None:
        """Remember the journal as it is on disk now."""
        shutil.rmtree(self.home / "disk", ignore_errors=True)
        (self.home / "disk").mkdir()
        for path in self.home.glob("journal.db*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, self.home / "disk")

    def lose_power(self, *, boots: bool = True) -> None:
        """What was synced last is what the journal says; or, if it does not boot, after kill -9, what was written last."""
        self.crash()
        if boots:
            self.boot_id = f"{self.boot_id} more"
            for path in self.home.glob("journal.db*"):
                path.unlink()
            for path in (self.home / "disk").iterdir():
                shutil.copy(path, self.home)
        self.open()

    def value(self, label: str) -> str | None:
        """The value, which file, journal and mirror agree on."""
        self.settle()
        block = self.core.state.block(label)
        assert self.raw.hget(f"blocks:block:{label}", "value") == (block.value if block is not None else None)
        path = self.root / f"{label}.md"
        assert path.exists() == (block is not None)
        assert block is None or path.read_text().rstrip("\n").endswith(block.value)
        return block.value if block is not None else None

    def kinds(self, label: str) -> list[tuple[str, str]]:
        """Kind and author of every version of a block, the oldest first."""
        self.settle()
        return [(one.kind, one.author) for one in reversed(self.journal.history(label))]

    def temporaries(self) -> list[str]:
        return [name for _, _, names in os.walk(self.root) for name in names if name.startswith(".blocksd")]


@pytest.fixture
def raw(standing_server: Callable[[str], RedisServer]) -> Iterator[Any]:
    client: Any = standing_server("valkey").client()
    yield client
    client.close()


@pytest.fixture
def rig(
    tmp_path: Path, standing_server: Callable[[str], RedisServer], raw: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Powered]:
    """Two blocks; the journal is remembered each time that it is on disk."""
    made = Powered(tmp_path, standing_server("valkey").url, raw, stale_window=0)
    made.write("notes", "one\n")
    made.write("other", "two\n")
    made.settle()
    end = WritingDurably.__exit__

    def remembered(self: WritingDurably, kind: object, error: BaseException | None, traceback: object) -> None:
        end(self, kind, error, traceback)
        if error is None:
            made.remember()

    monkeypatch.setattr(WritingDurably, "__exit__", remembered)
    yield made
    made.settle()
    assert made.temporaries() == []
    assert Intents(made.journal).prepared() is None
    assert made.journal.reaches_back(made.pruned), "no number is missing"
    made.crash()


def append(label: str, content: str, **more: Any) -> dict[str, Any]:
    return {"op": "append", "label": label, "args": {"content": content}, **more}


def create(label: str, value: str = "new") -> dict[str, Any]:
    return {"op": "create", "label": label, "args": {"value": value}}


def rename(label: str, to: str) -> dict[str, Any]:
    return {"op": "rename", "label": label, "args": {"to": to}}


def delete(label: str) -> dict[str, Any]:
    return {"op": "delete", "label": label}


def save(rig: Powered, label: str, text: str) -> None:
    """As editors do: a new file in the place of the old one."""
    path = rig.root / f"{label}.md"
    (rig.root / "editing").write_text(text)
    (rig.root / "editing").rename(path)


# --- what was acknowledged stands ---


def test_generation_of_a_leader_stands(rig: Powered) -> None:
    """It is on disk before Redis has it: else a promoted leader would be an older one than itself after a power cut."""
    before = rig.journal.epoch
    rig.journal.begin_generation(1)
    rig.lose_power()
    assert (rig.journal.generation, rig.journal.epoch == before) == (1, False)
    rig.journal.note_generation(2)
    rig.lose_power()
    assert (rig.journal.generation, rig.journal.newest_generation) == (1, 2)


def test_rename_that_was_acknowledged_stands(rig: Powered) -> None:
    """The block is there under its new label, and it is one block."""
    (reply,) = rig.ask(rename("notes", "diary"))
    rig.lose_power()
    assert (rig.value("notes"), rig.value("diary")) == (None, "one")
    assert rig.kinds("diary") == [("created", "file"), ("renamed", "operator")]
    assert rig.journal.seq == reply["seq"]


@pytest.mark.parametrize("boots", [True, False], ids=["power cut", "kill -9"])
def test_properties_that_were_acknowledged_stand(rig: Powered, *, boots: bool) -> None:
    """Of an agent: made, changed and deleted by requests, each in a round of its own."""
    path = rig.root / "agents/ann/agent.yaml"
    for request, kind in (
        ({"op": "create_agent", "args": {"agent": "ann", "blocks": [], "properties": {"name": "Ann"}}}, "created"),
        ({"op": "update_agent", "args": {"agent": "ann", "name": "Anna"}}, "updated"),
        ({"op": "delete_agent", "args": {"agent": "ann"}}, "deleted"),
    ):
        (reply,) = rig.ask(request)
        assert reply["ok"], reply
        rig.lose_power(boots=boots)
        assert rig.kinds("agents/ann/agent.yaml")[-1] == (kind, "operator")
        name = {"created": "Ann", "updated": "Anna"}.get(kind)
        assert rig.raw.hget("blocks:agent-info:ann", "name") == name
        assert (path.read_text() if path.exists() else None) == (f"name: {name}\n" if name else None)


def test_create_that_was_acknowledged_beside_a_deletion_stands(rig: Powered) -> None:
    """Each is seen to be done by its own file."""
    assert all(reply["ok"] for reply in rig.ask(create("new"), delete("other")))
    rig.lose_power()
    assert (rig.value("new"), rig.value("other")) == ("new", None)
    assert rig.kinds("new") == [("created", "operator")]


@pytest.mark.parametrize("saved", ["two\nby hand\n", "two\n", ""])
def test_create_stands_when_a_person_saved_what_else_was_written(rig: Powered, saved: str) -> None:
    """Whatever they saved over it, be it what it said before."""
    assert all(reply["ok"] for reply in rig.ask(create("new"), append("other", "added")))
    save(rig, "other", saved)
    rig.lose_power()
    assert rig.value("new") == "new"
    assert rig.kinds("new") == [("created", "operator")]
    assert rig.value("other") == saved.rstrip("\n")
    assert rig.kinds("other") == [("created", "file"), ("updated", "operator"), ("updated", "file")]


def test_version_of_an_agent_is_in_the_history_when_a_person_saved_over_it(rig: Powered) -> None:
    """Both are, the person's last."""
    rig.ask(append("notes", "added"))
    save(rig, "notes", "by hand\n")
    rig.lose_power()
    assert rig.value("notes") == "by hand"
    history = rig.journal.history("notes")
    assert [one.block.value for one in history if one.block] == ["by hand", "one\nadded", "one"]


@pytest.mark.parametrize("request_", [create("new"), rename("notes", "new")], ids=["create", "rename"])
def test_new_file_that_a_person_removed_was_there(rig: Powered, request_: dict[str, Any]) -> None:
    """It is in the history, and deleted by them."""
    rig.ask(request_)
    (rig.root / "new.md").unlink()
    rig.lose_power()
    rig.clock.advance(60)
    assert rig.value("new") is None
    assert rig.kinds("new")[-2:] == [
        ("created" if request_["op"] == "create" else "renamed", "operator"),
        ("deleted", "file"),
    ]


def test_directory_that_a_person_moved_takes_what_tells_along(furnished: Powered) -> None:
    """What an agent wrote is in the history of the block that is gone, and in the file that was moved."""
    furnished.ask(append("deep/down/plan", "added", id="same"))
    (furnished.root / "deep").rename(furnished.root / "moved")
    furnished.lose_power()
    assert furnished.value("moved/down/plan") == "a plan\nadded"
    furnished.clock.advance(60)
    assert furnished.value("deep/down/plan") is None
    assert furnished.kinds("deep/down/plan")[:2] == [("created", "file"), ("updated", "operator")]


def test_file_that_was_deleted_and_made_again_by_a_person(rig: Powered) -> None:
    """It is another block's first version."""
    rig.ask(delete("notes"))
    save(rig, "notes", "again\n")
    rig.lose_power()
    assert rig.value("notes") == "again"
    assert rig.kinds("notes") == [("created", "file"), ("deleted", "operator"), ("created", "file")]


@pytest.mark.parametrize("left", [b"", b"\0\0\0\0", b"on"])
def test_displaced_text_that_was_not_on_disk_replaces_nothing(rig: Powered, left: bytes) -> None:
    """A person saved without a sync, and an agent wrote on top of it, which is."""
    rig.ask(append("notes", "added"))
    (aside,) = rig.temporaries()
    (rig.root / aside).write_bytes(left)
    rig.lose_power()
    assert rig.value("notes") == "one\nadded"
    assert rig.kinds("notes") == [("created", "file"), ("updated", "operator")]


@pytest.mark.parametrize("boots", [True, False])
def test_request_that_is_repeated_after_it_is_done_once(rig: Powered, *, boots: bool) -> None:
    """Under its id, to whatever the journal remembers."""
    (reply,) = rig.ask(append("notes", "added", id="same"))
    rig.lose_power(boots=boots)
    rig.settle()
    rig.raw.delete("blocks:reply:operator:same")
    assert rig.ask(append("notes", "added", id="same")) == [reply]
    assert rig.value("notes") == "one\nadded"


def test_second_round_takes_the_first_along(rig: Powered) -> None:
    """What it has displaced is needed for no longer, since it is on disk that it is finished."""
    rig.ask(append("notes", "added"))
    (first,) = rig.temporaries()
    rig.ask(append("other", "added"))
    (second,) = rig.temporaries()
    assert first != second
    rig.lose_power()
    assert (rig.value("notes"), rig.value("other")) == ("one\nadded", "two\nadded")


def test_what_was_displaced_goes_in_an_idle_moment(rig: Powered) -> None:
    """One more sync, after a while without a request, and nothing is due."""
    rig.ask(append("notes", "added"))
    assert rig.temporaries() != []
    rig.clock.advance(rig.core.wait_seconds())
    rig.run(lambda: not rig.temporaries(), "tidied up")
    assert rig.core.schedule["tidy"] == float("inf")
    rig.lose_power()
    assert Intents(rig.journal).prepared() is None
    assert rig.value("notes") == "one\nadded"


def test_what_was_displaced_goes_with_a_stop_in_good_order(rig: Powered) -> None:
    """Nothing is left for the next start."""
    rig.ask(append("notes", "added"))
    rig.close()
    assert rig.temporaries() == []
    rig.open()


def test_what_was_displaced_is_not_swept_up_before(rig: Powered) -> None:
    """It lies there as what a crash leaves does."""
    rig.ask(append("notes", "added"))
    before = rig.temporaries()
    rig.clock.advance(rig.core.schedule["tidy"] - rig.clock() - 0.5)
    sweeps = rig.core.intake.scanner.sweeps
    rig.core.intake.hint_all()
    while rig.core.intake.scanner.sweeps == sweeps:
        rig.round()
    rig.round()
    assert rig.temporaries() == before != []


def test_deletion_of_an_agent_stands_when_a_person_made_it_again(furnished: Powered) -> None:
    """Its folder is removed at once, and with it what tells: so that the blocks were deleted is on disk before."""
    furnished.ask({"op": "delete_agent", "args": {"agent": "ann"}})
    assert not (furnished.root / "agents/ann").exists()
    (furnished.root / "agents/ann").mkdir()
    (furnished.root / "agents/ann/persona.md").write_text("I am Ann again.\n")
    furnished.lose_power()
    assert furnished.value("agents/ann/persona") == "I am Ann again."
    assert furnished.kinds("agents/ann/persona")[1:] == [("deleted", "operator"), ("created", "file")]


def test_log_is_bounded_between_rounds(rig: Powered) -> None:
    """Although the daemon is never idle."""
    rig.journal._next_log_bytes = 1
    size = os.path.getsize(rig.journal.path)
    rig.ask(append("notes", "x" * 15_000))
    assert os.path.getsize(rig.journal.path) > size


def test_nothing_is_kept_where_the_disk_is_not_waited_for(rig: Powered, raw: Any, tmp_path: Path) -> None:
    """Then a power cut may lose it anyway."""
    other = Powered(tmp_path / "other", rig.url, raw, namespace="others", durability="process")
    other.write("notes", "one\n")
    other.settle()
    raw.xadd("others:inbox:operator", {"request": json.dumps(append("notes", "x", id="1"))})
    found = raw.xrange("others:inbox:operator")
    other.core.inbox.add(Entry("operator", one, fields.get("request")) for one, fields in found)
    other.run(lambda: raw.exists("others:reply:operator:1"))
    assert other.temporaries() == []
    other.crash()


# --- what was not ---


class Dead(BaseException):
    """The machine is."""


def dies(*_: object, **__: object) -> None:
    raise Dead


def dies_before_putting_in(
    rig: Powered, monkeypatch: pytest.MonkeyPatch, number: int, *requests: dict[str, Any]
) -> None:
    """The round of these requests, until this many of its files are put in."""
    with monkeypatch.context() as patch:
        moves: list[str] = []
        real = Root.renameat2

        def counted(held: Root, old: str, new: str, flags: int) -> None:
            if len(moves) == number:
                raise Dead
            moves.append(new)
            real(held, old, new, flags)

        patch.setattr(Root, "renameat2", counted)
        with pytest.raises(Dead):
            rig.ask(*requests)


@pytest.mark.parametrize("boots", [True, False])
@pytest.mark.parametrize("done", [0, 1, 2])
def test_requests_of_a_round_are_finished_or_taken_back_each_by_its_own_file(
    rig: Powered, monkeypatch: pytest.MonkeyPatch, done: int, *, boots: bool
) -> None:
    """Those that are in stand, numbered without a gap; the others are as if they had never been, until asked again."""
    asked = [append("other", "a", id="1"), append("notes", "b", id="2"), create("new")]
    dies_before_putting_in(rig, monkeypatch, done, *asked)
    rig.lose_power(boots=boots)
    assert rig.journal.seq == 2 + done
    values = [rig.value(label) for label in ("other", "notes", "new")]
    assert values == [*["two\na", "one\nb", "new"][:done], *["two", "one", None][done:]]
    rig.pass_on()
    rig.run(lambda: not rig.raw.xlen("blocks:inbox:operator"))
    assert [rig.value(label) for label in ("other", "notes", "new")] == ["two\na", "one\nb", "new"]
    assert rig.journal.seq == 5
    for number, one in enumerate(("1", "2")):
        reply = rig.reply(one)
        assert (reply["ok"], reply["version"]) == (True, 2)
        revision = rig.journal.revision(reply["seq"])
        assert revision is not None
        assert (revision.label, revision.request_id) == (("other", "notes")[number], one)


@pytest.mark.parametrize("boots", [True, False])
@pytest.mark.parametrize("done", [1, 2])
def test_request_for_several_files_is_rolled_forward(
    rig: Powered, monkeypatch: pytest.MonkeyPatch, done: int, *, boots: bool
) -> None:
    """Once one of them is in, the rest follows."""
    parts = [append("notes", "a"), append("other", "b"), create("new")]
    dies_before_putting_in(rig, monkeypatch, done, {"op": "batch", "args": {"requests": parts}})
    rig.lose_power(boots=boots)
    assert [rig.value(label) for label in ("notes", "other", "new")] == ["one\na", "two\nb", "new"]


@pytest.mark.parametrize("boots", [True, False])
def test_request_for_several_files_is_taken_back_if_a_person_saved_one(
    rig: Powered, monkeypatch: pytest.MonkeyPatch, *, boots: bool
) -> None:
    """All of it, and nothing else of its round."""
    parts = [append("notes", "a"), append("other", "b")]
    asked = [create("new"), {"op": "batch", "args": {"requests": parts}}]
    dies_before_putting_in(rig, monkeypatch, 2, *asked)
    save(rig, "other", "by hand\n")
    rig.raw.delete("blocks:inbox:operator")
    rig.lose_power(boots=boots)
    assert [rig.value(label) for label in ("notes", "other", "new")] == ["one", "by hand", "new"]
    assert rig.kinds("notes") == [("created", "file")]


def test_what_is_taken_back_is_not_taken_for_done_by_the_next_start(
    rig: Powered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person saves another file of the round; then the daemon is killed before the journal knows. The new file lies
    aside, and is seen not to be in."""
    real = Root.renameat2
    moved: list[str] = []

    def disturbed(root: Root, old: str, new: str, flags: int) -> None:
        moved.append(new)
        if len(moved) == 2:
            save(rig, "other", "by hand\n")
        real(root, old, new, flags)

    with monkeypatch.context() as patch:
        patch.setattr(Root, "renameat2", disturbed)
        patch.setattr(Intents, "give_up", dies)
        with pytest.raises(Dead):
            rig.ask(create("new"), append("other", "b"))
    rig.raw.delete("blocks:inbox:operator")
    rig.lose_power(boots=False)
    assert [rig.value(label) for label in ("other", "new")] == ["by hand", None]
    assert rig.kinds("new") == []


def test_late_save_to_what_was_displaced_is_the_newest(rig: Powered) -> None:
    """A program had the file open while the daemon was killed: nobody has after a power cut."""
    rig.ask(append("notes", "added"))
    (aside,) = rig.temporaries()
    (rig.root / aside).write_text("late\n")
    rig.crash()
    disk = rig.home / "disk"
    for path in rig.home.glob("journal.db*"):
        path.unlink()
    for path in disk.iterdir():
        shutil.copy(path, rig.home)
    rig.open()
    assert rig.value("notes") == "late"
    history = rig.journal.history("notes")
    assert [one.block.value for one in history if one.block] == ["late", "one\nadded", "one"]


def test_folder_that_cannot_be_read_at_a_start_is_tried_again(rig: Powered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is decided until it can, and the daemon lives."""
    rig.ask(append("notes", "added"))
    with monkeypatch.context() as patch:
        patch.setattr(Root, "stat", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        rig.lose_power()
        rig.round()
        assert Intents(rig.journal).prepared() is not None
    assert rig.value("notes") == "one\nadded"


# --- names are on disk ---


class Names:
    """The names in directories that were given, changed or taken, and are not known to be on disk."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.unsynced: set[str] = set()
        self.directories: set[str] = set()
        self.checks: list[str] = []
        patch.setattr(Root, "open", self._creating(Root.open))
        for name, places in {
            "renameat2": 2,
            "rename": 2,
            "link": 2,
            "make_directory": 1,
            "remove_directory": 1,
        }.items():
            patch.setattr(Root, name, self._noting(getattr(Root, name), places, is_directory="directory" in name))
        patch.setattr(Root, "unlink", self._unlinking(Root.unlink))
        patch.setattr(Root, "sync_directory", self._syncing(Root.sync_directory))
        patch.setattr(Intents, "prepare", self._checked(Intents.prepare, self._is_prepared))
        for name in ("finish", "give_up", "forget_folders"):
            patch.setattr(Intents, name, self._checked(getattr(Intents, name), self._is_done))
        patch.setattr(Results, "write", self._checked(Results.write, self._is_done))

    def _creating(self, real: Callable[..., int]) -> Callable[..., int]:
        def opening(root: Root, path: str, flags: int, *more: Any) -> int:
            handle = real(root, path, flags, *more)
            if flags & os.O_CREAT:
                self.unsynced.add(path)
            return handle

        return opening

    def _noting(self, real: Callable[..., Any], places: int, *, is_directory: bool) -> Callable[..., Any]:
        def noting(root: Root, *args: Any) -> Any:
            result = real(root, *args)
            self.unsynced.update(args[:places])
            if is_directory:
                self.directories.update(args[:places])
            return result

        return noting

    def _unlinking(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def unlinking(root: Root, path: str) -> None:
            real(root, path)
            if os.path.basename(path).startswith(TEMPORARY):
                self.unsynced.discard(path)  # whether it is there after a power cut is of no account
            else:
                self.unsynced.add(path)

        return unlinking

    def _syncing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def syncing(root: Root, path: str) -> None:
            real(root, path)
            for names in (self.unsynced, self.directories):
                names -= {name for name in names if os.path.dirname(name) == path}

        return syncing

    def _checked(self, real: Callable[..., Any], check: Callable[..., None]) -> Callable[..., Any]:
        def checking(pending: Intents | Results, *args: Any, **options: Any) -> Any:
            check(real.__name__, *args)
            return real(pending, *args, **options)

        return checking

    def _is_prepared(self, what: str, prepared: Prepared) -> None:
        """New directories are there, and the names that tell by their absence that a file was put in."""
        self.checks.append(what)
        assert not self.directories, self.directories
        assert not self.unsynced & {one.aside for one in prepared.staged if one.base is None}

    def _is_done(self, what: str, *_: Any) -> None:
        self.checks.append(what)
        named = {name for name in self.unsynced if not os.path.basename(name).startswith(TEMPORARY)}
        assert not (named if what == "give_up" else self.unsynced), what


OPERATIONS: dict[str, list[dict[str, Any]]] = {
    "append": [append("notes", "x")],
    "create": [create("new")],
    "create in new directories": [create("a/b/c/new")],
    "create an agent": [{"op": "create_agent", "args": {"agent": "zoe", "blocks": []}}],
    "create an agent with blocks": [
        {"op": "create_agent", "args": {"agent": "zoe", "blocks": [{"name": "persona", "value": "x"}]}}
    ],
    "delete": [delete("deep/down/plan")],
    "delete an agent": [{"op": "delete_agent", "args": {"agent": "ann"}}],
    "rename": [rename("deep/down/plan", "up/plan")],
    "write through a link": [append("link", "x")],
    "remove a link": [delete("link")],
    "batch": [{"op": "batch", "args": {"requests": [append("notes", "x"), create("a/new"), delete("other")]}}],
    "many": [append("notes", "x"), create("a/new"), delete("other"), rename("deep/down/plan", "plan")],
}


@pytest.fixture
def furnished(rig: Powered) -> Powered:
    """Blocks in directories, an agent, and a link to a file in another directory."""
    (rig.root / "elsewhere").mkdir()
    (rig.root / "elsewhere/text.txt").write_text("linked\n")
    (rig.root / "link.md").symlink_to("elsewhere/text.txt")
    rig.core.intake.hint_file("link.md", closed=True)
    rig.write("agents/ann/persona", "I am Ann.\n")
    rig.write("deep/down/plan", "a plan\n")
    rig.settle()
    return rig


@pytest.mark.parametrize("asked", OPERATIONS.values(), ids=OPERATIONS)
def test_names_that_an_acknowledgement_relies_on_are_on_disk(
    furnished: Powered, monkeypatch: pytest.MonkeyPatch, asked: list[dict[str, Any]]
) -> None:
    """Before the journal says so: of files, and of the directories made on the way or removed."""
    with monkeypatch.context() as patch:
        names = Names(patch)
        assert [reply["ok"] for reply in furnished.ask(*asked)] == [True] * len(asked)
        assert {"finish", "write"} & set(names.checks)


@pytest.mark.parametrize("boots", [True, False])
@pytest.mark.parametrize(
    ("what", "done"),
    [("many", 0), ("many", 1), ("many", 3), ("batch", 0), ("batch", 1), ("batch", 2), ("rename", 1)],
)
def test_names_that_recovery_relies_on_are_on_disk(
    furnished: Powered, monkeypatch: pytest.MonkeyPatch, what: str, done: int, *, boots: bool
) -> None:
    """Also those of what was done before the crash: nobody knows whether they were."""
    asked = OPERATIONS[what]
    with monkeypatch.context() as patch:
        names = Names(patch)
        dies_before_putting_in(furnished, monkeypatch, done, *asked)
        furnished.raw.delete("blocks:inbox:operator")
        furnished.lose_power(boots=boots)
        assert {"finish", "give_up"} & set(names.checks)
        assert Intents(furnished.journal).prepared() is None


@pytest.mark.parametrize("is_saved", [True, False])
def test_what_is_taken_back_is_on_disk_before_it_is_forgotten(
    furnished: Powered, monkeypatch: pytest.MonkeyPatch, *, is_saved: bool
) -> None:
    """A person saves one of the files at the last moment, or one cannot be written: the other was put in."""
    real = Root.renameat2
    moved: list[str] = []

    def disturbed(root: Root, old: str, new: str, flags: int) -> None:
        moved.append(new)
        if not is_saved and 2 <= len(moved) <= 4:  # it is tried three times
            raise OSError(28, "No space left on device")
        if is_saved and len(moved) == 2:
            save(furnished, "other", "by hand\n")
        real(root, old, new, flags)

    with monkeypatch.context() as patch:
        patch.setattr(Root, "renameat2", disturbed)
        names = Names(patch)
        furnished.ask(append("notes", "x"), append("other", "y"))
        assert "give_up" in names.checks


@pytest.mark.parametrize("what", ["append", "create", "batch"])
def test_new_text_is_on_disk_before_it_is_put_in(
    furnished: Powered, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It gets there while the intent does, unless recovery is to find it beside its file: then it is there before."""
    done: list[str] = []

    def noted(owner: Any, name: str) -> None:
        real = call_of_root(name) if owner is Root else getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            done.append(name)
            return real(*args, **options)

        monkeypatch.setattr(owner, name, call)

    for name in ("sync", "renameat2"):
        noted(Root, name)
    noted(Intents, "prepare")
    assert furnished.ask(*OPERATIONS[what])[0]["ok"]
    assert max(place for place, name in enumerate(done) if name == "sync") < done.index("renameat2")
    assert (done.index("prepare") < done.index("sync")) == (what == "append")


# --- a reply comes before it is journaled that the revision is in force ---


def until_replied(rig: Powered, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    """Send requests, and follow their round up to where they are replied to and not finished; the replies."""
    for request in requests:
        rig.raw.xadd("blocks:inbox:operator", {"request": json.dumps(request)})
    rig.pass_on()
    for name in rig.core.round():
        if name == "finish":
            break
    rig.core.projector._mirror.wait()
    return [json.loads(rig.raw.lpop(f"blocks:reply:operator:{request['id']}")) for request in requests]


@pytest.mark.parametrize("boots", [True, False])
def test_what_was_replied_to_is_in_force_after_a_crash(rig: Powered, *, boots: bool) -> None:
    """Under the numbers that were told, and once; it is known that it was done."""
    asked = [append("notes", "added", id="same"), append("other", "more", id="too")]
    replies = until_replied(rig, *asked)
    assert all(reply["ok"] for reply in replies)
    assert rig.journal.seq == min(reply["seq"] for reply in replies) - 1
    rig.lose_power(boots=boots)
    assert rig.value("notes") == "one\nadded"
    assert {one.seq for label in ("notes", "other") for one in rig.journal.history(label)[:1]} == {
        reply["seq"] for reply in replies
    }
    assert rig.ask(*asked) == replies
    assert rig.kinds("notes") == [("created", "file"), ("updated", "operator")]
    assert rig.temporaries() == []


@pytest.mark.parametrize("times", [1, 4])
def test_journal_that_takes_no_more_right_after_a_reply(
    rig: Powered, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """What was replied to is finished when it can be, before anything else is done."""
    failed: list[int] = []
    real = Intents.finish

    def full(*args: Any, **options: Any) -> None:
        if len(failed) < times:
            failed.append(1)
            raise JournalUnusable("the journal cannot be written: database or disk is full", path=rig.journal.path)
        real(*args, **options)

    monkeypatch.setattr(Intents, "finish", full)
    (reply,) = rig.ask(append("notes", "added", id="same"))
    assert reply["ok"]
    assert len(failed) == 1
    rig.write("other", "by hand\n")
    rig.run(lambda: rig.raw.hget("blocks:block:other", "value") == "by hand", "the save is shown")
    assert len(failed) == times
    assert rig.value("notes") == "one\nadded"
    assert rig.journal.history("notes")[0].seq == reply["seq"]
    assert rig.ask(append("notes", "added", id="same")) == [reply]
    assert rig.core.failures.unexpected is None
    rig.resync()
    assert rig.temporaries() == []


# --- a request that is repeated ---


@pytest.mark.parametrize("days", [1.5, 400.0, -3.0])
def test_request_that_is_repeated_after_days_is_done_once(rig: Powered, days: float) -> None:
    """What came of the newest requests of an actor is known whatever the time of day is, or was."""
    (reply,) = rig.ask(append("notes", "added", id="same"))
    rig.wall_offset = days * 86_400
    for _ in range(3):
        rig.clock.advance(rig.config.sweep_seconds + 1)
        rig.settle()
    rig.raw.delete("blocks:reply:operator:same")
    assert rig.ask(append("notes", "added", id="same")) == [reply]
    assert rig.value("notes") == "one\nadded"


@pytest.mark.parametrize("call", ["sync", "renameat2", "sync_directory", "write"])
def test_request_that_was_refused_as_unavailable_is_done_once(
    rig: Powered, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Whatever it was that failed, nothing of it is left when it is asked for again under its id."""
    calls: list[int] = []
    real = call_of_root(call)

    def failing(*args: Any) -> Any:
        calls.append(1)
        if len(calls) <= (
            3 if call in ("sync_directory", "renameat2") else 1
        ):  # these two are tried again: readers see what is put in
            raise OSError(5, "Input/output error")
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Root, call, failing)
        (reply,) = rig.ask(append("notes", "added", id="same"))
    assert (reply["ok"], reply["error"]["code"]) == (False, "unavailable")
    assert rig.value("notes") == "one"
    rig.raw.delete("blocks:reply:operator:same")
    assert rig.ask(append("notes", "added", id="same"))[0]["ok"]
    assert rig.value("notes") == "one\nadded"
    assert rig.kinds("notes") == [("created", "file"), ("updated", "operator")]


@pytest.mark.parametrize("crashes", [True, False])
def test_request_whose_reply_was_lost_with_redis_is_done_once(rig: Powered, *, crashes: bool) -> None:
    """Redis forgets everything, or comes back with a snapshot in which the request still waits."""
    (reply,) = rig.ask(append("notes", "added", id="same"))
    rig.raw.flushall()
    if crashes:
        rig.lose_power()
    rig.settle()
    rig.raw.xadd("blocks:inbox:operator", {"request": json.dumps(append("notes", "added", id="same"))}, id="1-1")
    rig.pass_on()
    rig.run(lambda: rig.raw.exists("blocks:reply:operator:same"), "replied to again")
    assert rig.reply("same") == reply
    assert rig.value("notes") == "one\nadded"


def test_reply_that_is_made_again_is_the_first(rig: Powered) -> None:
    """With the block as it was then, whatever has become of it; of a batch and a deletion, too. None if it is not kept."""
    parts = [append("notes", "b"), append("other", "c")]
    asked = [
        append("notes", "a", id="1"),
        {"op": "batch", "args": {"requests": parts}, "id": "2"},
        {**delete("other"), "id": "3"},
        {**rename("notes", "diary"), "id": "4"},
        {**append("none", "x"), "id": "5"},
        {**append("diary", "x"), "expect": {"version": 1}, "id": "6"},
    ]
    first = [rig.ask(one)[0] for one in asked]
    assert [reply["ok"] for reply in first] == [True] * 4 + [False] * 2
    assert first[-1]["error"]["block"]["label"] == "diary"
    rig.raw.delete(*(f"blocks:reply:operator:{number}" for number in range(1, 7)))
    assert [rig.ask(one)[0] for one in asked] == first
    prune(rig.journal, "notes", versions=1)
    rig.pruned = rig.journal.seq
    rig.raw.delete("blocks:reply:operator:1")
    assert rig.ask(asked[0]) == [{**first[0], "block": None}]
