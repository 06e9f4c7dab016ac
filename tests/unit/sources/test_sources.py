"""What is taken for a text file of a source, who sees it, and what is open: over real directories, on a virtual clock."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import NotFound, Unavailable
from blocksd.files.folder import Folder
from blocksd.files.root import Root
from blocksd.journal.results import Access
from blocksd.model.problem import Problems
from blocksd.settings.config import SourceSettings
from blocksd.sources import source as source_module
from blocksd.sources.source import Source, differing
from blocksd.sources.sources import Sources
from blocksd.state.schedule import Schedule
from rig import Clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blocksd.model.problem import Problem
    from blocksd.sources.text_file import Unshown

THEN = "2026-11-20T09:00:00.000Z"
LATER = "2026-11-20T09:00:01.000Z"


class Said(Problems):
    """What is wrong, and all that was ever said to be."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.sayings: list[str] = []

    def set(self, problem: Problem) -> None:
        before = self.changes
        super().set(problem)
        if self.changes != before:
            self.sayings.append(problem.message)


class Shelf:
    """Sources that are looked at when a test says so."""

    def __init__(self, home: Path) -> None:
        self.root = home / "manuals"
        self.root.mkdir()
        self.clock = Clock()
        self.problems = Said()
        self.state: Any = SimpleNamespace(attachments=SimpleNamespace(known=frozenset({"support-1", "ann"})))
        self.accesses: list[Access] = []
        self.settings: dict[str, Any] = {"agents": ("support-*",), "limit": 10}

    def open(self, *more: SourceSettings) -> Shelf:
        settings = (SourceSettings("manuals", str(self.root), **self.settings), *more)
        self.sources = Sources(settings, self.state, self.problems, self.accesses, Schedule(), clock=self.clock)
        self.look()
        return self

    @property
    def source(self) -> Source:
        return self.sources.source("manuals")

    def look(self) -> Unshown:
        """All that is due; what has come to be unshown by it."""
        self.sources.look()
        while self.sources.due <= self.clock():
            self.sources.look()
        unshown = self.sources.unshown
        self.sources.shown()
        return unshown

    def save(self, path: str, data: bytes | str) -> Unshown:
        """Save a file, tell of it, and see what comes of it."""
        write(self.root / path, data)
        self.source.hint_file(path, closed=True)
        return self.look()

    def remove(self, path: str) -> Unshown:
        (self.root / path).unlink()
        self.source.hint_file(path, closed=True)
        return self.look()

    def scan(self) -> Unshown:
        self.sources.hint_all()
        return self.look()

    def let_open(self, agent: str, file: str, at: str = THEN) -> Unshown:
        """What a request does."""
        self.sources.check_open(agent, file)
        self.sources.apply([Access(agent, file, at)])
        return self.look()

    def problem(self) -> Problem | None:
        return self.problems.get("source manuals")


def write(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


# --- what is listed ---


def test_text_files_are_listed(shelf: Shelf) -> None:
    """Regular files of UTF-8 text, whatever they are called and however deep; with their size and age."""
    write(shelf.root / "a.txt", "one\n")
    write(shelf.root / "deep/er/naïve file.rst", "é")
    write(shelf.root / "empty", "")
    write(shelf.root / "bom.md", b"\xef\xbb\xbfx")
    os.utime(shelf.root / "a.txt", ns=(0, 1_795_165_200_123_000_000))
    files = shelf.open().source.files
    assert sorted(files) == ["a.txt", "bom.md", "deep/er/naïve file.rst", "empty"]
    assert json.loads(files["a.txt"].dumps()) == {"bytes": 4, "updated_at": "2026-11-20T09:00:00.123Z"}
    assert files["deep/er/naïve file.rst"].size == 2
    assert shelf.problem() is None


@pytest.mark.parametrize("name", [".hidden", ".git/config", "a.txt~", "#a.txt#", ".a.txt.swp", "deep/.b/c"])
def test_hidden_and_temporary_files_are_not(shelf: Shelf, name: str) -> None:
    """They are nobody's business, and no word is lost on them."""
    write(shelf.root / name, "x")
    assert shelf.open().source.files == {}
    shelf.save(name, "y")
    assert shelf.source.files == {}
    assert shelf.problems.sayings == []


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"caf\xe9", "it is not UTF-8"), (b"a\0b", "it has a NUL byte"), (b"x" * 5_000_000, "over the 4194304")],
    ids=["latin-1", "nul", "large"],
)
def test_what_is_not_text_is_left_out(shelf: Shelf, data: bytes, why: str) -> None:
    """It is said once, as a warning; when it is text, it is listed."""
    write(shelf.root / "a.txt", "text")
    write(shelf.root / "b.bin", data)
    shelf.open()
    shelf.scan()
    assert list(shelf.source.files) == ["a.txt"]
    problem = shelf.problem()
    assert problem is not None
    assert problem.warning
    assert "b.bin" in problem.message
    assert why in problem.message
    assert len(shelf.problems.sayings) == 1
    assert shelf.save("b.bin", "text now").files == {"manuals": {"b.bin"}}
    assert shelf.problem() is None


def test_name_that_cannot_be_shown_is_left_out(shelf: Shelf) -> None:
    """Names that are not UTF-8, or hold a newline, could be in no key and no message."""
    write(shelf.root / os.fsdecode(b"caf\xe9.txt"), "x")
    write(shelf.root / "two\nlines", "x")
    shelf.open()
    assert shelf.source.files == {}
    assert "caf\\\\xe9.txt (its name cannot be shown), and 1 more" in shelf.problems.sayings[0]


def test_links_lead_only_inside(shelf: Shelf, tmp_path: Path) -> None:
    """A link to a file inside is a file; one that leads out is left out; directories are not followed."""
    write(tmp_path / "secret.txt", "secret")
    (tmp_path / "dir").mkdir()
    write(tmp_path / "dir/x.txt", "secret")
    write(shelf.root / "real/a.txt", "a")
    (shelf.root / "link.txt").symlink_to("real/a.txt")
    (shelf.root / "out.txt").symlink_to("../secret.txt")
    (shelf.root / "dir").symlink_to("../dir")
    (shelf.root / "loop").symlink_to("loop")
    os.mkfifo(shelf.root / "fifo")
    shelf.open()
    assert sorted(shelf.source.files) == ["link.txt", "real/a.txt"]
    for file in ("manuals/out.txt", "manuals/dir/x.txt", "manuals/../secret.txt", "manuals/fifo", "manuals/real"):
        with pytest.raises(NotFound):
            shelf.sources.check_open("support-1", file)


def test_source_may_be_a_link_that_is_turned(shelf: Shelf, tmp_path: Path) -> None:
    """`current` leads to another release: the next scan goes there."""
    for release in ("one", "two"):
        write(tmp_path / release / f"{release}.txt", release)
    shelf.root.rmdir()
    shelf.root.symlink_to("one")
    shelf.open()
    assert list(shelf.source.files) == ["one.txt"]
    shelf.root.unlink()
    shelf.root.symlink_to("two")
    assert shelf.scan().files == {"manuals": {"one.txt", "two.txt"}}
    assert list(shelf.source.files) == ["two.txt"]


def test_there_can_be_too_many_files(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those listed first stay; the others are a problem until there is room."""
    monkeypatch.setattr(source_module, "MAX_FILES", 5)
    for number in range(7):
        write(shelf.root / f"{number}.txt", "x")
    shelf.open()
    first = set(shelf.source.files)
    assert len(first) == 5
    problem = shelf.problem()
    assert problem is not None
    assert problem.code == "too_many_files"
    shelf.scan()
    assert set(shelf.source.files) == first
    shelf.save("new.txt", "x")
    assert set(shelf.source.files) == first
    for path in sorted(first)[:3]:
        (shelf.root / path).unlink()
    shelf.scan()
    assert len(shelf.source.files) == 5
    assert shelf.problem() is None


def test_differing_is_what_must_be_looked_at() -> None:
    """New, changed, missing; and whatever a signature proves nothing of."""
    one, other = (1, 1, 1, 1), (2, 2, 2, 2)
    known = {"same": one, "changed": one, "gone": one, "unsure": None}
    assert differing(known, {"same": one, "changed": other, "unsure": one, "new": one}) == (
        ["changed", "unsure", "new"],
        {"gone"},
    )


# --- what changes ---


def test_only_what_changed_is_unshown(shelf: Shelf) -> None:
    """A save, a new file and one that is gone: each by its path. A scan that finds nothing new says nothing."""
    write(shelf.root / "a.txt", "one")
    write(shelf.root / "b.txt", "two")
    shelf.open()
    assert shelf.save("a.txt", "1").files == {"manuals": {"a.txt"}}
    assert shelf.save("c.txt", "3").files == {"manuals": {"c.txt"}}
    assert shelf.remove("b.txt").files == {"manuals": {"b.txt"}}
    assert not shelf.scan()
    shelf.source.hint_file("never/was.txt", closed=True)
    assert not shelf.look()


def test_scan_finds_what_nobody_hinted_at(shelf: Shelf) -> None:
    """Hints may be lost: the directory is compared by stat."""
    write(shelf.root / "a.txt", "one")
    write(shelf.root / "b.txt", "two")
    shelf.open()
    write(shelf.root / "a.txt", "changed")
    (shelf.root / "b.txt").unlink()
    write(shelf.root / "d/c.txt", "new")
    assert shelf.scan().files == {"manuals": {"a.txt", "b.txt", "d/c.txt"}}


def test_unchanged_files_are_not_read_again(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing costs a stat for each file."""
    for number in range(9):
        write(shelf.root / f"{number}.txt", "x")
        os.utime(shelf.root / f"{number}.txt", ns=(0, 0))
    shelf.open()
    monkeypatch.setattr(Folder, "read", lambda _, path, **__: pytest.fail(f"{path} is read"))
    assert not shelf.scan()


def test_file_that_is_being_written_is_waited_for(shelf: Shelf) -> None:
    """As long as its writer has it open, what was read before stays; when it is closed, it is read."""
    write(shelf.root / "a.txt", "whole")
    shelf.open()
    shelf.let_open("support-1", "manuals/a.txt")
    with (shelf.root / "a.txt").open("w") as file:
        file.write("ha")
        file.flush()
        shelf.source.hint_file("a.txt", closed=False)
        for _ in range(1200):
            shelf.clock.advance(1)
            shelf.look()
        assert content(shelf)["value"] == "whole"
    shelf.source.hint_file("a.txt", closed=True)
    shelf.look()
    assert content(shelf)["value"] == "ha"


def content(shelf: Shelf, file: str = "manuals/a.txt") -> dict[str, str]:
    found = shelf.sources.content(file)
    assert found is not None
    return dict(found)


# --- what cannot be read ---


def test_missing_directory_is_a_problem_that_passes(shelf: Shelf) -> None:
    """It is created, and served; nothing need be done by hand."""
    shelf.root.rmdir()
    shelf.open()
    problem = shelf.problem()
    assert problem is not None
    assert (problem.code, problem.warning) == ("source_missing", False)
    write(shelf.root / "a.txt", "x")
    shelf.clock.advance(1.1)
    assert shelf.look().listed == {"manuals"}
    assert shelf.problem() is None
    assert list(shelf.source.files) == ["a.txt"]


def test_directory_that_goes_keeps_what_was_read(shelf: Shelf, tmp_path: Path) -> None:
    """An unmounted disk is no reason to forget; back, it is compared."""
    write(shelf.root / "a.txt", "x")
    shelf.open()
    shelf.let_open("support-1", "manuals/a.txt")
    shelf.root.rename(tmp_path / "away")
    shelf.source.hint_file("a.txt", closed=False)
    shelf.clock.advance(0.1)
    assert not shelf.look()
    assert shelf.problem() is not None
    assert shelf.sources.opened_at("support-1", "manuals/a.txt") == THEN
    (tmp_path / "away").rename(shelf.root)
    shelf.clock.advance(1.1)
    assert not shelf.look()
    assert shelf.problem() is None


def test_directory_that_is_moved_away_is_missed(shelf: Shelf, tmp_path: Path) -> None:
    """No event tells of it, so it is asked for."""
    shelf.open()
    shelf.sources.check_roots()
    assert shelf.sources.due > shelf.clock()
    shelf.root.rename(tmp_path / "away")
    shelf.sources.check_roots()
    shelf.look()
    assert shelf.problem() is not None


def test_file_in_the_place_of_the_directory(shelf: Shelf) -> None:
    """It is as if there were none."""
    shelf.root.rmdir()
    shelf.root.write_text("x")
    shelf.open()
    problem = shelf.problem()
    assert problem is not None
    assert problem.code == "source_missing"


def test_unreadable_is_neither_absent_nor_changed(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be listed, a file that cannot be opened: what was read of them stays."""
    write(shelf.root / "a.txt", "x")
    write(shelf.root / "d/b.txt", "x")
    shelf.open()
    shut: list[str] = ["d"]

    def forbidding(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(root: Root, path: str, *words: Any) -> Any:
            if path in shut:
                raise PermissionError(13, "Permission denied", path)
            return real(root, path, *words)

        return call

    monkeypatch.setattr(Root, "scandir", forbidding(Root.scandir))
    monkeypatch.setattr(Root, "open", forbidding(Root.open))
    assert not shelf.scan()
    assert "1 of its directories cannot be listed: d" in str(shelf.problem())
    shut[:] = ["a.txt"]
    shelf.source.hint_file("a.txt", closed=True)
    assert not shelf.look()
    shelf.scan()
    assert "a.txt (it cannot be read: Permission denied)" in str(shelf.problem())
    with pytest.raises(Unavailable, match="Permission denied"):
        shelf.sources.check_open("support-1", "manuals/a.txt")
    shut[:] = [""]
    assert not shelf.scan()
    assert "cannot be listed" in str(shelf.problem())
    shut.clear()
    shelf.clock.advance(1.1)
    shelf.source.hint_file("a.txt", closed=True)
    shelf.look()
    assert shelf.problem() is None
    assert sorted(shelf.source.files) == ["a.txt", "d/b.txt"]


def test_mistake_in_the_settings_is_a_problem(shelf: Shelf) -> None:
    """That source is not served; the others are."""
    write(shelf.root / "a.txt", "x")
    shelf.open(SourceSettings("other", mistake="it has no path"))
    assert shelf.sources.names == ["manuals"]
    assert shelf.problems["source other"].message == "it has no path"
    with pytest.raises(NotFound):
        shelf.sources.check_open("support-1", "other/a.txt")


def test_directory_that_is_not_watched_is_a_warning(shelf: Shelf) -> None:
    """It is served, only later."""
    shelf.open().sources.set_unwatched("manuals", "it cannot be watched")
    problem = shelf.problem()
    assert problem is not None
    assert problem.warning
    shelf.sources.set_unwatched("manuals", "")
    assert shelf.problem() is None


# --- who sees it ---


def know(shelf: Shelf, *agents: str) -> Unshown:
    shelf.state.attachments.known = frozenset(agents)
    return shelf.look()


def test_agents_are_those_that_match(shelf: Shelf) -> None:
    """Of the known agents, whenever they change."""
    shelf.settings["agents"] = ("support-*", "boss", "nobody")
    shelf.open()
    assert shelf.sources.agents("manuals") == {"support-1"}
    unshown = know(shelf, "support-1", "support-2", "boss")
    assert unshown.agents == {"manuals": frozenset({"support-1"})}
    assert shelf.sources.agents("manuals") == {"support-1", "support-2", "boss"}
    assert not know(shelf, "support-1", "support-2", "boss", "other")


def test_everybody(shelf: Shelf) -> None:
    """`*` is every known agent."""
    shelf.settings["agents"] = ("*",)
    assert shelf.open().sources.agents("manuals") == {"support-1", "ann"}


def test_agent_that_no_longer_sees_the_source_has_nothing_open(shelf: Shelf) -> None:
    """What it opened is remembered, and open again when it sees the source again."""
    write(shelf.root / "a.txt", "x")
    shelf.open()
    shelf.let_open("support-1", "manuals/a.txt")
    unshown = know(shelf, "ann")
    assert unshown.accesses == {("support-1", "manuals/a.txt"): THEN}
    assert unshown.contents == {"manuals/a.txt"}
    assert shelf.sources.opened_at("support-1", "manuals/a.txt") is None
    assert shelf.sources.content("manuals/a.txt") is None
    unshown = know(shelf, "support-1")
    assert unshown.accesses == {("support-1", "manuals/a.txt"): None}
    assert shelf.sources.opened_at("support-1", "manuals/a.txt") == THEN
    assert content(shelf)["value"] == "x"


# --- what is open ---


def test_open_file_is_shown_up_to_its_limit(shelf: Shelf) -> None:
    """In characters, with `\\n` at the end of lines; how many there are in all is told."""
    write(shelf.root / "a.txt", "\ufeffzwölf\r\nzeichen\rund mehr 🐈")
    shelf.open()
    unshown = shelf.let_open("support-1", "manuals/a.txt")
    assert unshown.accesses == {("support-1", "manuals/a.txt"): None}
    assert unshown.contents == {"manuals/a.txt"}
    shown = content(shelf)
    assert shown.pop("updated_at").endswith("Z")
    assert shown == {
        "value": "zwölf\nzeic",
        "chars": "24",
        "limit": "10",
        "source": "manuals",
        "path": "a.txt",
    }


def test_open_file_follows_the_disk(shelf: Shelf) -> None:
    """A save changes what is shown, and who has it open stays as it is."""
    write(shelf.root / "a.txt", "one")
    shelf.open()
    shelf.let_open("support-1", "manuals/a.txt")
    unshown = shelf.save("a.txt", "two")
    assert (unshown.contents, unshown.accesses) == ({"manuals/a.txt"}, {})
    assert content(shelf)["value"] == "two"
    assert shelf.save("b.txt", "not open").contents == set()
    assert shelf.sources.content("manuals/b.txt") is None


@pytest.mark.parametrize("gone", ["removed", "not text", "a directory"])
def test_open_file_that_goes_is_open_again_when_it_returns(shelf: Shelf, gone: str) -> None:
    """Meanwhile it is shown as closed."""
    write(shelf.root / "a.txt", "one")
    shelf.open()
    shelf.let_open("support-1", "manuals/a.txt")
    unshown = shelf.save("a.txt", b"\xff\xfe") if gone == "not text" else shelf.remove("a.txt")
    if gone == "a directory":
        (shelf.root / "a.txt").mkdir()
        shelf.scan()
    assert unshown.accesses == {("support-1", "manuals/a.txt"): THEN}
    assert shelf.sources.opened_at("support-1", "manuals/a.txt") is None
    if gone == "a directory":
        (shelf.root / "a.txt").rmdir()
    unshown = shelf.save("a.txt", "two")
    assert unshown.accesses == {("support-1", "manuals/a.txt"): None}
    assert shelf.sources.opened_at("support-1", "manuals/a.txt") == THEN
    assert content(shelf)["value"] == "two"


def test_opening_again_renews(shelf: Shelf) -> None:
    """The time is the only thing that changes."""
    write(shelf.root / "a.txt", "x")
    shelf.open()
    shelf.let_open("support-1", "manuals/a.txt")
    unshown = shelf.let_open("support-1", "manuals/a.txt", LATER)
    assert (unshown.accesses, unshown.contents) == ({("support-1", "manuals/a.txt"): THEN}, set())
    assert shelf.sources.opened_at("support-1", "manuals/a.txt") == LATER


def test_closed_by_one_is_open_to_the_other(shelf: Shelf) -> None:
    """The content goes with the last who has it open."""
    shelf.state.attachments.known = frozenset({"support-1", "support-2"})
    write(shelf.root / "a.txt", "x")
    shelf.open()
    shelf.let_open("support-1", "manuals/a.txt")
    assert shelf.let_open("support-2", "manuals/a.txt").contents == set()
    for agent, contents in (("support-1", set()), ("support-2", {"manuals/a.txt"})):
        shelf.sources.check_close(agent, "manuals/a.txt")
        shelf.sources.apply([Access(agent, "manuals/a.txt", None)])
        unshown = shelf.look()
        assert unshown.accesses == {(agent, "manuals/a.txt"): THEN}
        assert unshown.contents == contents
    assert shelf.sources.opened() == {}


@pytest.mark.parametrize(
    ("agent", "file"),
    [
        ("ann", "manuals/a.txt"),
        ("stranger", "manuals/a.txt"),
        ("support-1", "other/a.txt"),
        ("support-1", "manuals"),
        ("support-1", "manuals/"),
        ("support-1", ""),
        ("support-1", "manuals/b.txt"),
        ("support-1", "manuals//a.txt"),
        ("support-1", "manuals/./a.txt"),
        ("support-1", "manuals/d/../a.txt"),
        ("support-1", "manuals/a.txt/"),
        ("support-1", "manuals/a.txt\0"),
        ("support-1", "manuals/.hidden"),
        ("support-1", "manuals/" + "x" * 5000),
        ("support-1", "manuals//etc/passwd"),
    ],
)
def test_what_is_not_seen_is_not_found(shelf: Shelf, agent: str, file: str) -> None:
    """No such agent, source or file, or not for this agent: it is the same to who asks."""
    write(shelf.root / "a.txt", "x")
    write(shelf.root / ".hidden", "x")
    (shelf.root / "d").mkdir()
    shelf.open()
    with pytest.raises((NotFound, Unavailable)) as refusal:
        shelf.sources.check_open(agent, file)
    assert refusal.type is NotFound or len(file) > 4000
    with pytest.raises(NotFound):
        shelf.sources.check_close(agent, file)


def test_file_can_be_opened_before_it_was_hinted_at(shelf: Shelf) -> None:
    """To open is to look: a file just written is there, one just removed is not, one just changed is read."""
    shelf.open()
    write(shelf.root / "a.txt", "one")
    assert shelf.let_open("support-1", "manuals/a.txt").files == {"manuals": {"a.txt"}}
    write(shelf.root / "a.txt", "changed")
    shelf.let_open("support-1", "manuals/a.txt")
    assert content(shelf)["value"] == "changed"
    (shelf.root / "a.txt").unlink()
    with pytest.raises(NotFound):
        shelf.sources.check_open("support-1", "manuals/a.txt")
    shelf.sources.check_close("support-1", "manuals/a.txt")


def test_open_files_are_known_from_the_start(shelf: Shelf) -> None:
    """What the journal holds is open as soon as it has been read, and until then it is undecided."""
    write(shelf.root / "a.txt", "x")
    shelf.accesses = [Access("support-1", "manuals/a.txt", THEN), Access("support-1", "gone/b.txt", THEN)]
    settings = [SourceSettings("manuals", str(shelf.root), agents=("support-*",))]
    shelf.sources = Sources(settings, shelf.state, shelf.problems, shelf.accesses, Schedule(), clock=shelf.clock)
    shelf.sources._attach(shelf.source, shelf.state.attachments.known)
    assert shelf.sources.is_undecided("support-1", "manuals/a.txt")
    assert not shelf.sources.is_undecided("support-1", "gone/b.txt")
    unshown = shelf.look()
    assert not shelf.sources.is_undecided("support-1", "manuals/a.txt")
    assert (unshown.listed, unshown.accesses, unshown.contents) == ({"manuals"}, {}, set())
    assert shelf.sources.opened_at("support-1", "manuals/a.txt") == THEN


def test_nothing_is_looked_at_without_sources(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has none pays nothing."""
    sources = Sources((), shelf.state, shelf.problems, (), Schedule(), clock=shelf.clock)
    monkeypatch.setattr("os.stat", lambda *_: pytest.fail("a stat"))
    sources.look()
    sources.hint_all()
    assert sources.due == float("inf")
    assert sources.is_settled
    assert not sources.unshown


def test_a_directory_that_is_removed_takes_its_files_along(shelf: Shelf) -> None:
    """A scan tells, whatever events there were."""
    write(shelf.root / "d/a.txt", "x")
    write(shelf.root / "b.txt", "x")
    shelf.open()
    shutil.rmtree(shelf.root / "d")
    assert shelf.scan().files == {"manuals": {"d/a.txt"}}
