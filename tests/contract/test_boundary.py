"""The folder has a boundary: what is beyond it is neither read nor written, whatever takes the place of its directories."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.files.folder import Folder
from blocksd.files.root import Root
from blocksd.model.problem import FOLDER
from blocksd.requests.answers import WRITER_PATIENCE_SECONDS
from contract.test_requests import NOTES, Office, effects
from failing import ERRORS, FailingRoot
from rig import assert_level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import RedisServer

pytestmark = pytest.mark.slow


@pytest.fixture
def rig(tmp_path: Path, standing_server: Callable[[str], RedisServer]) -> Iterator[Office]:
    """Two agents, blocks of theirs, and one in a directory."""
    server = standing_server("valkey")
    raw: Any = server.client()
    made = Office(tmp_path / "one", server.url, raw)
    made.write("notes", NOTES)
    made.write("team/goals", "---\nagents: [ann]\n---\none\n")
    made.write("agents/ann/persona", "I am Ann.\n")
    made.settle()
    yield made
    assert made.temporaries() == []
    made.crash()
    raw.close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A directory beyond the folder, with what must stay there."""
    path = tmp_path / "elsewhere"
    (path / "empty").mkdir(parents=True)
    (path / ".blocksd-0123456789abcdef").write_text("theirs")
    (path / "empty/.blocksd-fedcba9876543210").write_text("theirs")
    (path / "goals.md").write_text("---\nagents: [ann]\n---\none\n")
    return path


def contents(path: Path) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for where, directories, files in os.walk(path):
        found |= {os.path.relpath(os.path.join(where, name), path): None for name in directories}
        for name in files:
            full = os.path.join(where, name)
            with open(full) as file:
                found[os.path.relpath(full, path)] = file.read()
    return found


def pass_time(rig: Office, seconds: float = 3.0) -> None:
    """So many rounds, whatever comes of them."""
    for _ in range(int(seconds * 20)):
        rig.round()
        rig.clock.advance(0.05)
        rig.wall_offset += 0.05


# --- symlinked directories ---


@pytest.mark.parametrize("label", ["plans/x", "plans/deep/x"])
def test_nothing_is_created_through_a_symlinked_directory(rig: Office, elsewhere: Path, label: str) -> None:
    """The refusal names the symlink, and says what to do."""
    (rig.root / "plans").symlink_to(elsewhere)
    before = contents(elsewhere)
    error = rig.refuse("operator", "create", label, value="x")
    assert error["code"] == "problem_file"
    assert "plans is a symlink" in error["message"]
    assert error["hint"]
    assert contents(elsewhere) == before


THROUGH_TEAM: list[tuple[str, str | None, dict[str, Any]]] = [
    ("create", "team/new", {"value": "x"}),
    ("append", "team/goals", {"content": "x"}),
    ("delete", "team/goals", {}),
    ("undo", "team/goals", {}),
    ("restore", "team/goals", {"version": 1}),
    ("rename", "notes", {"to": "team/notes"}),
    ("batch", None, {"requests": [{"op": "create", "label": "team/new", "args": {"value": "x"}}]}),
]
THROUGH_AGENTS: list[tuple[str, str | None, dict[str, Any]]] = [
    ("create", "agents/eve/x", {"value": "x"}),
    ("create_agent", None, {"agent": "eve", "blocks": [{"name": "persona"}]}),
    ("create_agent", None, {"agent": "eve", "blocks": []}),
    ("create_agent", None, {"agent": "eve"}),
]


@pytest.mark.parametrize(
    ("link", "op", "label", "args"),
    [
        *(("team", *request) for request in THROUGH_TEAM),
        *((link, *request) for link in ("agents", "agents/eve") for request in THROUGH_AGENTS),
    ],
)
def test_every_request_through_a_symlink_is_told_the_same(
    rig: Office, elsewhere: Path, link: str, op: str, label: str | None, args: dict[str, Any]
) -> None:
    """Which symlink it is, that blocks are never written through one, and what to do."""
    if (rig.root / link).exists():
        (rig.root / link).rename(rig.home / "was there")
        rig.resync()
    (rig.root / link).symlink_to(elsewhere)
    before = contents(elsewhere)
    error = rig.ask("operator", op, *([label] if label else []), **args)["error"]
    assert error["code"] == "problem_file"
    sentence = f" cannot be written: {link} is a symlink, and blocks are never written through a symlinked directory"
    assert error["message"].endswith(sentence)
    assert error["hint"] == f"put a directory in the place of {link}, or choose another label"
    assert not error["path"].endswith("/")
    assert contents(elsewhere) == before


def test_symlink_that_appears_when_a_private_folder_is_made(rig: Office, elsewhere: Path) -> None:
    """The same is said."""
    sent = rig.send("operator", "create_agent", agent="eve", blocks=[])
    rig.pass_on()
    for effect in effects(rig):
        if effect == "make folder":
            (rig.root / "agents/eve").symlink_to(elsewhere)
        if rig.reply("operator", sent) is not None:
            break
    reply = rig.reply("operator", sent)
    assert reply is not None
    assert "agents/eve is a symlink, and blocks are never" in reply["error"]["message"]
    assert reply["error"]["hint"]


def test_nothing_is_created_through_a_symlink_to_a_directory_inside(rig: Office) -> None:
    """No sweep would see it there under that label."""
    (rig.root / "plans").symlink_to("team")
    assert rig.refuse("operator", "create", "plans/x", value="x")["code"] == "problem_file"
    assert rig.refuse("operator", "rename", "notes", to="plans/notes")["code"] == "problem_file"


@pytest.mark.parametrize("op", ["append", "delete", "create", "rename"])
@pytest.mark.parametrize("moment", ["stage", "prepare", "put in", "renameat2"])
def test_directory_that_is_swapped_for_a_symlink_in_between(
    rig: Office, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, op: str, moment: str
) -> None:
    """At any moment of an edit: nothing beyond is touched, and nothing is said to be done that is not."""
    before = contents(elsewhere)
    label, args = {
        "append": ("team/goals", {"content": "two"}),
        "delete": ("team/goals", {}),
        "create": ("team/new", {"value": "x"}),
        "rename": ("notes", {"to": "team/notes"}),
    }[op]

    def swap() -> None:
        if not (rig.root / "team").is_symlink():
            (rig.root / "team").rename(rig.root / "moved")
            (rig.root / "team").symlink_to(elsewhere)

    if moment == "renameat2":
        real = Root.renameat2

        def renameat2(root: Root, old: str, new: str, flags: int) -> None:
            swap()
            real(root, old, new, flags)

        monkeypatch.setattr(Root, "renameat2", renameat2)
    sent = rig.send("operator", op, label, **args)
    rig.pass_on()
    for effect in effects(rig):
        if effect == moment:
            swap()
        if rig.reply("operator", sent) is not None:
            break
    reply = rig.reply("operator", sent)
    assert reply is not None
    assert not reply["ok"], reply
    assert contents(elsewhere) == before
    (rig.root / "team").unlink()
    (rig.root / "moved").rename(rig.root / "team")
    rig.resync()
    assert rig.value("team/goals") == "one"
    assert rig.value("notes") == "one"


@pytest.mark.parametrize("name", ["agents/ann", "agents"])
def test_folder_of_an_agent_that_is_a_symlink(rig: Office, elsewhere: Path, name: str) -> None:
    """Nothing beyond is removed, or counts as an agent's."""
    (elsewhere / "ann").mkdir()
    (elsewhere / "eve").mkdir()
    before = contents(elsewhere)
    (rig.root / name).rename(rig.home / "away")
    (rig.root / name).symlink_to(elsewhere)
    rig.core.intake.hint_tree("agents/ann")
    rig.core.intake.hint_tree("agents/eve")
    rig.round()
    assert "eve" not in rig.core.state.attachments.known
    rig.resync()
    assert "eve" not in rig.core.state.attachments.known
    for agent in ("ann", "eve"):
        rig.ask("operator", "delete_agent", agent=agent)
    rig.resync()
    assert contents(elsewhere) == before
    assert rig.ask("operator", "create", "agents/eve/x", value="x")["ok"] is (name == "agents/ann")
    assert contents(elsewhere) == before


def test_what_is_left_by_a_crash_is_removed_inside_only(rig: Office, elsewhere: Path) -> None:
    """A temporary of another daemon's, in a folder that a symlink leads to, is not ours."""
    (rig.root / "plans").symlink_to(elsewhere)
    (rig.root / "team/.blocksd-0123456789abcdef").write_text("left")
    before = contents(elsewhere)
    rig.resync()
    assert contents(elsewhere) == before
    assert not (rig.root / "team/.blocksd-0123456789abcdef").exists()


# --- symlinked files ---


def test_symlink_to_a_file_inside_is_followed_by_both(rig: Office) -> None:
    """Read and written, through directories that are symlinks, too, as Kubernetes lays them out; the links stay."""
    (rig.root / "..2026").mkdir()
    (rig.root / "..2026/plan").write_text("one\n")
    (rig.root / "..data").symlink_to("..2026")
    (rig.root / "plan.md").symlink_to("..data/plan")
    rig.core.intake.hint_file("plan.md", closed=True)
    rig.settle()
    rig.do("operator", "append", "plan", content="two")
    assert (rig.root / "..2026/plan").read_text() == "one\ntwo\n"
    assert os.readlink(rig.root / "plan.md") == "..data/plan"
    assert rig.value("plan") == "one\ntwo"


def test_symlink_that_is_turned_outside_is_not_followed(
    rig: Office, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the moment in which what it led to is written."""
    (rig.root / "text").write_text("one\n")
    (rig.root / "plan.md").symlink_to("text")
    rig.core.intake.hint_file("plan.md", closed=True)
    rig.settle()
    before, real = contents(elsewhere), Root.renameat2

    def renameat2(root: Root, old: str, new: str, flags: int) -> None:
        (rig.root / "plan.md").unlink(missing_ok=True)
        (rig.root / "plan.md").symlink_to(elsewhere / "goals.md")
        real(root, old, new, flags)

    monkeypatch.setattr(Root, "renameat2", renameat2)
    rig.ask("operator", "append", "plan", content="two")
    assert contents(elsewhere) == before


# --- the folder itself ---


def go(rig: Office, elsewhere: Path, how: str) -> None:
    """The folder goes, in one of the ways it can."""
    if how == "removed":
        shutil.rmtree(rig.root)
    elif how == "moved":
        rig.root.rename(rig.home / "away")
    else:
        rig.root.rename(rig.home / "away")
        if how == "replaced":
            rig.root.mkdir()  # as the mount point of a disk that is unmounted
        else:
            rig.root.symlink_to(elsewhere / "empty")


WAYS = ["removed", "moved", "replaced", "a symlink"]
EDITS: list[tuple[str, str | None, dict[str, Any]]] = [
    ("create", "new", {"value": "x"}),
    ("create", "team/new", {"value": "x"}),
    ("append", "notes", {"content": "two"}),
    ("delete", "notes", {}),
    ("create_agent", None, {"agent": "zoe"}),
]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("edit", EDITS, ids=[f"{op} {where or ''}" for op, where, _ in EDITS])
def test_folder_that_is_gone_is_not_made_anew(
    rig: Office, elsewhere: Path, how: str, edit: tuple[str, str | None, dict[str, Any]]
) -> None:
    """Nor is anything written to what is in its place, from the first moment on: requests are refused until it is back."""
    op, where, args = edit
    before = contents(elsewhere)
    go(rig, elsewhere, how)
    for _ in range(2):  # before it is noticed, and after
        reply = rig.ask("operator", op, where, **args)
        assert not reply["ok"], reply
        assert reply["error"]["code"] == "unavailable"
        rig.clock.advance(1.1)
        rig.round()
    assert contents(elsewhere) == before
    assert os.path.lexists(rig.root) is (how in ("replaced", "a symlink"))
    if how == "replaced":
        assert os.listdir(rig.root) == []
    if how == "removed":
        return
    if os.path.lexists(rig.root):
        rig.root.unlink() if rig.root.is_symlink() else rig.root.rmdir()
    (rig.home / "away").rename(rig.root)
    rig.clock.advance(1.1)
    rig.round()
    rig.settle()
    rig.do("operator", op, where, **args)


@pytest.mark.parametrize("how", WAYS[1:])
@pytest.mark.parametrize("effect", ["stage", "prepare", "put in"])
def test_folder_that_goes_in_the_middle_of_an_edit(rig: Office, elsewhere: Path, how: str, effect: str) -> None:
    """Nothing of it is written to what is in its place, and the text that was there is there when it is back."""
    before = contents(elsewhere)
    sent = rig.send("operator", "append", "notes", content="two")
    rig.pass_on()
    for seen in effects(rig):
        if seen == effect and not (rig.home / "away").exists():
            go(rig, elsewhere, how)
        if rig.reply("operator", sent) is not None:
            break
    reply = rig.reply("operator", sent)
    assert reply is not None
    assert reply["error"]["code"] == "unavailable"
    assert contents(elsewhere) == before
    if os.path.lexists(rig.root):
        rig.root.unlink() if rig.root.is_symlink() else rig.root.rmdir()
    (rig.home / "away").rename(rig.root)
    rig.clock.advance(1.1)
    rig.round()
    rig.settle()
    assert rig.value("notes") == "one"
    rig.do("operator", "append", "notes", content="two")
    assert rig.value("notes") == "one\ntwo"


def test_symlinked_folder_that_is_switched_is_a_replaced_folder(rig: Office) -> None:
    """Blocks that are missing in what it leads to now are kept; those that are there are served, and written."""
    one, two = rig.home / "first", rig.home / "second"
    rig.crash()
    rig.root.rename(one)
    rig.root.symlink_to(one)
    rig.open().settle()
    shutil.copytree(one, two)
    (two / "team/goals.md").unlink()
    (two / "notes.md").write_text(NOTES.replace("one", "other"))
    rig.root.unlink()
    rig.root.symlink_to(two)
    pass_time(rig)
    assert "1 of 3 blocks are missing" in rig.problem("<folder>")["message"]
    assert rig.raw.hget("blocks:block:notes", "value") == "other"
    assert rig.ask("operator", "append", "notes", content="x")["error"]["code"] == "unavailable"
    shutil.copy(one / "team/goals.md", two / "team/goals.md")
    rig.resync()
    rig.do("operator", "append", "notes", content="x")
    assert (two / "notes.md").read_text().endswith("other\nx\n")
    assert (one / "notes.md").read_text() == NOTES


# --- labels ---


@pytest.mark.parametrize("name", ["x.md", "foo.swp", "x___jb_tmp___"])
def test_label_that_no_sweep_would_see_is_refused(rig: Office, name: str) -> None:
    """By every operation that gives one."""
    requests: list[tuple[str, str | None, dict[str, Any]]] = [
        ("create", f"{name}/y", {"value": "x"}),
        ("create", name, {"value": "x"}),
        ("rename", "notes", {"to": f"{name}/notes"}),
        ("create_agent", None, {"agent": name}),
        ("create_agent", None, {"agent": "zoe", "blocks": [{"name": f"{name}/y", "value": "x"}]}),
    ]
    for op, where, args in requests:
        assert rig.refuse("operator", op, where, **args)["code"] == "invalid_request"
    assert rig.refuse("ann", "create", f"{name}/y", value="x")["code"] == "invalid_request"


# --- files that are open for writing ---


def test_file_that_is_open_for_writing_is_not_replaced(rig: Office) -> None:
    """A request waits for ten seconds, and is refused then. All that the program writes later is in the file, and in force
    when it is closed; until then the last good version is.
    """
    with (rig.root / "notes.md").open("a") as file:
        file.write("hal")
        file.flush()
        rig.core.intake.hint_file("notes.md", closed=False)
        began = rig.clock()
        reply = rig.ask("ann", "append", "notes", content="from Ann")
        assert reply["error"]["code"] == "unavailable"
        assert "notes.md" in reply["error"]["message"]
        assert WRITER_PATIENCE_SECONDS <= rig.clock() - began < WRITER_PATIENCE_SECONDS + 3
        pass_time(rig, 60)
        assert f"open for writing by {os.getpid()} (" in rig.problem("notes.md")["message"]
        assert rig.raw.hget("blocks:block:notes", "value") == "one"
        file.write("f\n")
    rig.core.intake.hint_file("notes.md", closed=True)
    rig.settle()
    assert "notes.md" not in rig.core.problems
    assert rig.value("notes") == "one\nhalf"
    rig.do("ann", "append", "notes", content="from Ann")
    assert rig.value("notes") == "one\nhalf\nfrom Ann"


@pytest.mark.parametrize("op", ["append", "delete", "rename"])
def test_request_is_done_when_the_file_is_closed_in_time(rig: Office, op: str) -> None:
    """On top of what was written; others are served meanwhile. No event need tell that it was closed."""
    args = {"append": {"content": "two"}, "delete": {}, "rename": {"to": "other"}}[op]
    with (rig.root / "notes.md").open("a") as file:
        sent = rig.send("operator", op, "notes", **args)
        rig.pass_on()
        pass_time(rig, 5)
        assert rig.reply("operator", sent) is None
        rig.do("ann", "append", "team/goals", content="two")
        file.write("more\n")
    (reply,) = rig.replies(("operator", sent))
    assert reply["ok"], reply
    if op == "append":
        assert rig.value("notes") == "one\nmore\ntwo"


def test_file_that_is_opened_while_it_is_replaced_goes_back(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request waits then, as for any open file."""
    opened: list[Any] = []
    real = Root.renameat2

    def renameat2(root: Root, old: str, new: str, flags: int) -> None:
        if not opened and new == "notes.md":
            opened.append((rig.root / "notes.md").open("a"))
        real(root, old, new, flags)

    monkeypatch.setattr(Root, "renameat2", renameat2)
    monkeypatch.setattr("time.sleep", lambda _: None)
    sent = rig.send("ann", "append", "notes", content="from Ann")
    rig.pass_on()
    pass_time(rig)
    assert rig.reply("ann", sent) is None
    assert (rig.root / "notes.md").read_text() == NOTES
    opened[0].write("more\n")
    opened[0].close()
    assert rig.replies(("ann", sent))[0]["ok"]
    assert rig.value("notes") == "one\nmore\nfrom Ann"


def test_half_a_save_is_not_published_however_long_its_writer_pauses(rig: Office) -> None:
    """Also when it has set the time of the file back."""
    with (rig.root / "notes.md").open("r+") as file:
        file.truncate()
        rig.core.intake.hint_file("notes.md", closed=False)
        os.utime(rig.root / "notes.md", (1e9, 1e9))
        pass_time(rig, 120)
        rig.core.intake.hint_all()
        pass_time(rig)
        assert rig.raw.hget("blocks:block:notes", "value") == "one"
        file.write(NOTES.replace("one", "two"))
    pass_time(rig)
    assert rig.value("notes") == "two"


# --- calls that fail ---


class Failing(Office):
    """A daemon whose calls on the folder fail with this probability, while `is_on`."""

    def __init__(self, home: Path, url: str, raw: Any, *, rate: float, seed: int) -> None:
        self.dice = random.Random(seed)
        self.is_on = False
        self.rate = rate
        self.disk: FailingRoot

        def folder(path: str) -> Folder:
            self.disk = FailingRoot(path, self._fails, self.dice)
            return Folder(self.disk)

        super().__init__(home, url, raw, kind=folder)

    def _fails(self, _name: str, *_: Any) -> int | None:
        return self.dice.choice(ERRORS) if self.is_on and self.dice.random() < self.rate else None


class Broken(Office):
    """A daemon some of whose calls on the folder fail, always: those for which `breaks` is true."""

    def __init__(self, home: Path, url: str, raw: Any) -> None:
        self.breaks: Callable[..., bool] = lambda *_: False
        self.number = errno.EIO

        def folder(path: str) -> Folder:
            self.disk = FailingRoot(path, lambda *words: self.number if self.breaks(*words) else None)
            return Folder(self.disk)

        super().__init__(home, url, raw, kind=folder)


@pytest.fixture
def broken(tmp_path: Path, standing_server: Callable[[str], RedisServer]) -> Iterator[Broken]:
    server = standing_server("valkey")
    raw: Any = server.client()
    made = Broken(tmp_path / "one", server.url, raw)
    made.write("notes", NOTES)
    made.write("agents/ann/persona", "I am Ann.\n")
    made.settle()
    yield made
    assert made.temporaries() == []
    made.crash()
    raw.close()


BEHIND = ("unlink", "close", "remove_directory", "scandir")


@pytest.mark.parametrize("call", BEHIND)
@pytest.mark.parametrize("number", ERRORS, ids=[errno.errorcode[number] for number in ERRORS])
def test_clean_up_that_fails_takes_nothing_back(broken: Broken, call: str, number: int) -> None:
    """Behind an acknowledged step, any error of any call: what was asked for is done, and said to be; what is left is
    removed by a sweep, once it can be. A daemon that starts meanwhile lives.
    """
    rig = broken
    rig.number = number
    for agent in ("zoe", "eve"):
        rig.do("operator", "create_agent", agent=agent, blocks=[{"name": "persona", "value": "x"}])
    rig.breaks = lambda name, *words: name == call and (call != "scandir" or words[0].startswith("agents/"))
    if call != "close":  # which may tell that a new text is not on disk: then nothing is acknowledged
        rig.do("ann", "append", "notes", content="two")
        rig.do("operator", "delete", "agents/ann/persona")
        rig.do("operator", "delete_agent", agent="zoe")
    else:
        assert rig.ask("ann", "append", "notes", content="two")["error"]["code"] == "unavailable"
    pass_time(rig, 2)
    assert rig.disk.failed
    if call == "unlink":
        problem = rig.problem("<temporaries>")
        assert problem["warning"]
        assert os.strerror(number) in problem["message"]
        assert len([one for one in rig.heard.problems if one.subject == "<temporaries>"]) <= 3
    rig.crash()
    rig.open()
    pass_time(rig, 2)
    assert rig.core.failures.unexpected is None
    rig.breaks = lambda *_: False
    rig.resync()
    rig.resync()
    assert "<temporaries>" not in rig.core.problems
    assert rig.value("notes") == ("one" if call == "close" else "one\ntwo")


CALLS_AT_A_START = (
    "open",
    "stat",
    "read",
    "status",
    "renameat2",
    "unlink",
    "sync_directory",
    "close",
    "scandir",
    "identity",
)


@pytest.mark.parametrize("call", CALLS_AT_A_START)
@pytest.mark.parametrize("moment", ["put in", "finish"])
def test_daemon_starts_with_something_prepared_whatever_fails(broken: Broken, call: str, moment: str) -> None:
    """It tries again until it can tell what was done, and does it once."""
    rig = broken
    rig.send("ann", "append", "notes", content="two", request_id="same")
    rig.pass_on()
    for effect in effects(rig):
        if effect == moment:
            break
    rig.crash()
    rig.breaks = lambda name, *_: name == call
    for number in ERRORS[::3]:
        rig.number = number
        rig.open()
        pass_time(rig, 1.5)
        assert rig.core.failures.unexpected is None
        rig.crash()
    rig.breaks = lambda *_: False
    rig.open().settle()
    rig.raw.delete("blocks:reply:ann:same")  # which came before the revision was in force
    rig.do("ann", "append", "notes", content="two", request_id="same")
    assert rig.value("notes") == "one\ntwo"
    rig.resync()


@pytest.mark.parametrize("op", ["append", "delete", "create"])
def test_what_was_done_and_cannot_be_told_waits(broken: Broken, op: str) -> None:
    """A rename is done, says that it failed, and from then on nothing can be seen: the request is neither refused nor done
    again, nobody else's is taken in, and all goes on when it can be told.
    """
    rig, args = broken, {"append": {"content": "two"}, "delete": {}, "create": {"value": "x"}}[op]
    label = "new" if op == "create" else "notes"
    is_over: list[str] = []

    def breaks(name: str, *words: Any) -> bool:
        if name == "renameat2" and not is_over:
            is_over.append(name)
            Root.renameat2(rig.disk, *words)
        return bool(is_over)

    rig.breaks = breaks
    sent = rig.send("operator", op, label, **args)
    rig.pass_on()
    pass_time(rig)
    assert is_over
    assert rig.reply("operator", sent) is None
    assert "<journal>" in rig.core.problems
    rig.breaks = lambda *_: False
    rig.send("operator", op, label, request_id=sent, **args)
    (reply,) = rig.replies(("operator", sent))
    assert reply["ok"], reply
    rig.resync()
    if op == "append":
        assert rig.value("notes") == "one\ntwo"
    elif op == "create":
        assert rig.value("new") == "x"
    else:
        assert not (rig.root / "notes.md").exists()
    assert rig.core.problems == {}


def test_late_save_that_cannot_be_read_is_kept_until_it_can(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that nobody could tell had the file open wrote to what was displaced: that is all there is of its text."""
    monkeypatch.setattr(Root, "has_writer", lambda *_: None)
    monkeypatch.setattr(
        "blocksd.files.open_writers._SETTLE_SECONDS", 0.0
    )  # of real time, of which a test's clock knows nothing
    rig = broken
    rig.settle()
    sent = rig.send("operator", "append", "notes", content="two")
    rig.pass_on()
    with (rig.root / "notes.md").open("r+") as file:
        is_finished = False
        for effect in effects(rig):
            is_finished |= effect == "finish"
            if effect == "clear away" and is_finished and not rig.disk.failed:
                file.write(NOTES.replace("one", "mine\none"))
                file.flush()
                rig.breaks = lambda name, *_: name in ("open", "read", "stat")
            if effect == "mirror" and rig.disk.failed:
                break
    pass_time(rig)
    assert rig.reply("operator", sent) is not None
    assert len([name for name in rig.names() if ".blocksd" in name]) == 1
    rig.breaks = lambda *_: False
    pass_time(rig)
    assert rig.value("notes") == "mine\none\ntwo"


def test_file_that_cannot_be_read_is_read_when_it_can(broken: Broken) -> None:
    """Its last good version is in force until then. A request to it is refused as one that may be sent again."""
    broken.breaks = lambda name, *_: name == "read"
    broken.write("notes", NOTES.replace("one", "saved"))
    pass_time(broken)
    assert "Input/output error" in broken.problem("notes.md")["message"]
    assert broken.ask("ann", "append", "notes", content="x")["error"]["code"] == "unavailable"
    assert broken.raw.hget("blocks:block:notes", "value") == "one"
    broken.breaks = lambda *_: False
    broken.resync()
    assert broken.value("notes") == "saved"
    assert "notes.md" not in broken.core.problems


@pytest.mark.parametrize("op", ["create", "rename"])
def test_place_of_a_new_file_that_cannot_be_read_is_not_taken(broken: Broken, op: str) -> None:
    """Nobody knows whether there is a file: the request is refused as one that may be sent again, and is done then."""
    broken.breaks = lambda name, path="", *_: name in ("open", "stat") and str(path).endswith("new.md")
    broken.core.intake.hint_file("new.md", closed=True)
    pass_time(broken)
    assert "Input/output error" in broken.problem("new.md")["message"]
    asked = ("operator", "create", "new", {}) if op == "create" else ("operator", "rename", "notes", {"to": "new"})
    *words, given = asked
    assert broken.ask(*words, **given)["error"]["code"] == "unavailable"
    broken.breaks = lambda *_: False
    assert broken.ask(*words, **given)["ok"]
    broken.settle()
    assert "new" in broken.core.state.paths


def test_failed_write_is_not_held_against_a_later_round(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that was read again in between is tried again: the call that failed may not fail any more."""
    broken.breaks = lambda name, *_: name == "make_directory"
    sent = broken.send("operator", "create_agent", agent="eve")
    broken.pass_on()
    broken.round()
    broken.breaks = lambda *_: False
    with monkeypatch.context() as patch:
        patch.setattr(broken.core.projector, "confirm", lambda: False)
        broken.round()
    broken.pass_on()
    broken.run(lambda: broken.reply("operator", sent) is not None)
    reply = broken.reply("operator", sent)
    assert reply is not None
    assert reply["ok"], reply


STEPS = int(os.environ.get("BLOCKSD_TEST_FAILING_STEPS", "100"))


@pytest.mark.parametrize(("rate", "seed"), [(0.01, 1), (0.03, 2), (0.2, 4)])
def test_calls_that_fail_lose_and_double_nothing(
    tmp_path: Path, standing_server: Callable[[str], RedisServer], rate: float, seed: int
) -> None:
    """Whatever fails, and whether it was done all the same: what was acknowledged, and what was saved, is there once."""
    server = standing_server("valkey")
    raw: Any = server.client()
    rig = Failing(tmp_path / "one", server.url, raw, rate=rate, seed=seed)
    labels = ["notes", "team/goals", "agents/ann/persona"]
    for label in labels:
        rig.write(label, "---\nlimit: 50000\n---\nbegin\n")
    rig.settle()
    dice, numbers = random.Random(seed), itertools.count()
    tokens: dict[str, list[str]] = {label: [] for label in labels}
    waiting: dict[str, tuple[str, str]] = {}  # request → label, token
    rig.is_on = True
    for _ in range(STEPS):
        label, token = dice.choice(labels), f"t{next(numbers)}"
        if dice.random() < 0.3:
            path = rig.root / f"{label}.md"
            path.with_suffix(".new").write_text(f"{path.read_text()}{token}\n")
            path.with_suffix(".new").rename(path)
            rig.core.intake.hint_file(f"{label}.md", closed=True)
            tokens[label].append(token)
        else:
            waiting[rig.send("operator", "append", label, content=token)] = label, token
        rig.pass_on()
        for _ in range(dice.randrange(4)):
            rig.round()
            rig.clock.advance(dice.choice((0.01, 0.3)))
        collect(rig, waiting, tokens)
        if dice.random() < 0.03:
            rig.crash()
            rig.open()
    rig.is_on = False
    rig.core.intake.hint_all()
    rig.run(lambda: not collect(rig, waiting, tokens))
    rig.resync()
    for label in labels:
        value = rig.value(label)
        assert Counter(value.split()) - Counter(tokens[label]) == Counter(["begin"]), "nothing is doubled"
        assert Counter(tokens[label]) - Counter(value.split()) == Counter(), "nothing is lost"
    assert rig.core.failures.unexpected is None
    assert rig.core.problems == {}
    assert rig.temporaries() == []
    raw.delete("blocks:inbox:operator")
    assert_level(rig, raw)
    rig.crash()
    raw.close()


def collect(rig: Failing, waiting: dict[str, tuple[str, str]], tokens: dict[str, list[str]]) -> int:
    """What a client does: a request that is refused as unavailable is sent again under its id; how many wait."""
    for request_id, (label, token) in list(waiting.items()):
        reply = rig.reply("operator", request_id)
        if reply is None:
            continue
        rig.raw.delete(f"blocks:reply:operator:{request_id}")
        if reply["ok"]:
            tokens[label].append(token)
            del waiting[request_id]
        else:
            assert reply["error"]["code"] == "unavailable", reply
            rig.send("operator", "append", label, content=token, request_id=request_id)
    rig.pass_on()
    return len(waiting)


# --- symlinks in the place of directories ---


def swap_for_symlink(rig: Office, directory: str) -> Path:
    """A directory is moved elsewhere, and a symlink leads there; the events of it come. Where it is now."""
    moved = rig.home / "moved"
    (rig.root / directory).rename(moved)
    (rig.root / directory).symlink_to(moved)
    rig.core.intake.hint_tree(directory)
    return moved


def test_symlink_in_the_place_of_a_directory_is_a_problem_at_once(rig: Office) -> None:
    """It has a remedy; when that is done, the problem is over and the blocks are back."""
    moved = swap_for_symlink(rig, "team")
    rig.settle()
    assert rig.core.intake.scanner.sweeps == 1
    problem = rig.core.problems["team"]
    assert "symlink to a directory" in problem.message
    assert "put the directory itself here" in problem.hint
    assert "team/goals" not in rig.core.state.paths
    (rig.root / "team").unlink()
    moved.rename(rig.root / "team")
    rig.core.intake.hint_tree("team")
    rig.settle()
    assert "team" not in rig.core.problems
    assert rig.value("team/goals") == "one"
    rig.resync()
    assert dict(rig.core.problems) == {}


def test_symlink_is_a_problem_until_it_is_a_directory_that_only_a_sweep_finds(rig: Office) -> None:
    """As where no events come."""
    moved = swap_for_symlink(rig, "team")
    rig.settle()
    (rig.root / "team").unlink()
    moved.rename(rig.root / "team")
    rig.resync()
    assert dict(rig.core.problems) == {}


def test_symlink_that_takes_many_blocks_away_halts_as_any_deletion(rig: Office) -> None:
    """Nothing is deleted, and all is well again when the directory is back."""
    for number in range(12):
        rig.write(f"agents/ann/block-{number}", "text\n")
    rig.settle()
    moved = swap_for_symlink(rig, "agents")
    rig.run(lambda: FOLDER in rig.core.problems)
    rig.run(lambda: "agents" in rig.core.problems)
    pass_time(rig)
    assert rig.journal.head("agents/ann/block-0").kind == "created"  # type: ignore[union-attr]  # it is there
    (rig.root / "agents").unlink()
    moved.rename(rig.root / "agents")
    rig.core.intake.hint_tree("agents")
    rig.run(lambda: not rig.core.problems)
    rig.settle()
    assert rig.value("agents/ann/block-0") == "text"
