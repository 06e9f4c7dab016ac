"""A sweep of the folder: what it lists, and what it makes of the files that are known."""

from __future__ import annotations

import errno
import os
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.files.folder import NO_SIGNATURE, Folder, packed, signature_of
from blocksd.files.root import Root
from blocksd.state.signatures import Signatures
from blocksd.state.sweep import FolderEntry, Sweep

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "blocks.d"
    path.mkdir()
    return path


def swept(root: Path, below: str = "") -> dict[str, str]:
    return {entry.path: entry.kind for entries in Sweep(Folder(str(root))).walk(below) for entry in entries}


def test_sweep_lists_what_could_matter(root: Path) -> None:
    """Blocks, directories, links and oddities are listed; what is hidden or an editor's own is not even entered."""
    for path in ("notes.md", "deep/er/block.md", ".git/config.md", "deep/.hidden/block.md", "block.md~", "readme.txt"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("text")
    (root / "link.md").symlink_to("notes.md")
    os.mkfifo(root / "fifo.md")
    (root / "directory.md").mkdir()
    (root / "directory.md" / "inner.md").write_text("text")
    (root / "linked").symlink_to("deep")
    assert swept(root) == {
        "notes.md": "file",
        "deep": "directory",
        "deep/er": "directory",
        "deep/er/block.md": "file",
        "link.md": "link",
        "fifo.md": "special",
        "directory.md": "special",
        "linked": "special",
    }
    assert swept(root, "deep") == {"deep/er": "directory", "deep/er/block.md": "file"}
    assert swept(root, "missing") == {}


def test_directory_in_the_place_of_what_was_known_is_listed(root: Path) -> None:
    """A symlink that no block may be below was known; the directory that has its place now is listed at once."""
    (root / "deep").mkdir()
    (root / "deep" / "block.md").write_text("text")
    known = Signatures()
    known["deep"] = b""
    entries = [entry for entries in Sweep(Folder(str(root)), known).walk() for entry in entries]
    kinds = {entry.path: entry.kind for entry in entries if entry.kind != "missing"}
    assert kinds == {"deep": "directory", "deep/block.md": "file"}


def test_sweep_gives_slices(root: Path) -> None:
    """A large folder is listed a few hundred entries at a time, each once."""
    names = {f"block-{number}.md" for number in range(1000)}
    for name in names:
        (root / name).write_text("text")
    slices = list(Sweep(Folder(str(root))).walk())
    assert len(slices) > 2
    assert max(map(len, slices)) < 500
    assert sorted(entry.path for entries in slices for entry in entries) == sorted(names)


def test_sweep_reports_what_it_cannot_list(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be listed is reported with the reason; one that has gone in the meantime is not."""
    for name in ("closed", "gone", "open"):
        (root / name).mkdir()
        (root / name / "block.md").write_text("text")
    real = Root.scandir

    def scandir(held: Root, path: str) -> Any:
        if path.endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied")
        if path.endswith("gone"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return real(held, path)

    monkeypatch.setattr(Root, "scandir", scandir)
    entries = [entry for some in Sweep(Folder(str(root))).walk() for entry in some if entry.kind != "directory"]
    assert [(entry.path, entry.kind) for entry in sorted(entries)] == [
        ("closed", "unreadable"),
        ("open/block.md", "file"),
    ]
    assert isinstance(entries[0].error or entries[1].error, PermissionError)


def test_sweep_keeps_names_that_are_not_utf8(root: Path) -> None:
    """A name is whatever bytes the file system has."""
    (root / os.fsdecode(b"\xff.md")).write_text("text")
    ((entry,),) = Sweep(Folder(str(root))).walk()
    assert isinstance(entry, FolderEntry)
    assert os.fsencode(entry.path) == b"\xff.md"


# --- files that are known ---


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def known(root: Path, *paths: str, loaded: bool) -> Signatures:
    """Signatures of these files as they are now, as a start loads them, or as they are when they were read."""
    signatures = Signatures()
    found = {path.removesuffix(".md"): packed(*signature_of((root / path).stat())) for path in paths}
    if loaded:
        signatures.load(sorted(found), b"".join(found[stem] for stem in sorted(found)))
    else:
        signatures.update({f"{stem}.md": signature for stem, signature in found.items()})
    return signatures


def differing(root: Path, signatures: Signatures, at_once: int = 256) -> tuple[dict[str, object], Sweep]:
    """What a sweep finds, but for the directories, and the sweep."""
    sweep = Sweep(Folder(str(root)), signatures, at_once=at_once)
    found: dict[str, object] = {
        entry.path: entry.kind for some in sweep.walk() for entry in some if entry.kind != "directory"
    }
    return found, sweep


PATHS = ("a.md", "a-b.md", "a/same.md", "a/b/c.md", "a/z.md", "ab.md", "z/one.md", "z/two.md")


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.parametrize("at_once", [1, 2, 256])
def test_file_that_is_as_it_was_read_is_no_entry(root: Path, loaded: bool, at_once: int) -> None:
    """In every directory, whichever lies in which."""
    write(root, *PATHS)
    signatures = known(root, *PATHS, loaded=loaded)
    found, sweep = differing(root, signatures, at_once)
    assert found == {}
    assert sweep.covered == len(signatures) == len(PATHS)
    assert sweep.listed == {"", "a", "a/b", "z"} == {*signatures.directories(), ""}


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.parametrize("at_once", [1, 2, 256])
def test_what_is_not_as_it_was_read_is_an_entry(root: Path, loaded: bool, at_once: int) -> None:
    """A file that was changed, one whose signature proves nothing, a new one, and one that is missing."""
    write(root, *PATHS)
    signatures = known(root, *PATHS, loaded=loaded)
    (root / "a" / "same.md").write_text("changed")
    write(root, "a/new.md", "a/.hidden.md", "new/deep.md")
    (root / "ab.md").unlink()
    (root / "z" / "two.md").unlink()
    (root / "z" / "two.md").symlink_to("one.md")
    signatures["z/one.md"] = b""
    found, sweep = differing(root, signatures, at_once)
    changed = {"a/same.md": "file", "z/one.md": "file", "z/two.md": "link"}
    assert found == changed | {"a/new.md": "file", "new/deep.md": "file", "ab.md": "missing"}
    assert sweep.covered == len(PATHS)


@pytest.mark.parametrize("loaded", [True, False])
def test_directory_that_is_gone_is_not_among_those_listed(root: Path, loaded: bool) -> None:
    """Then not all that is known was covered, and its files are found by the directories."""
    write(root, *PATHS)
    signatures = known(root, *PATHS, loaded=loaded)
    (root / "a" / "b").rename(root / "moved")
    found, sweep = differing(root, signatures)
    assert found == {"moved/c.md": "file"}
    assert sweep.covered == len(PATHS) - 1
    assert signatures.directories() - sweep.listed == {"a/b"}
    assert signatures.names("a/b") == {"c.md"}


def test_file_that_cannot_be_looked_at_hides_no_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If one status fails, each file of the slice is looked at again, and none counts as missing."""
    write(root, "a.md", "b.md", "c.md")
    signatures = known(root, "a.md", "b.md", "c.md", loaded=True)
    (root / "c.md").write_text("changed")
    real = Root.scandir

    class Entry:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name, self._entry = entry.name, entry

        def stat(self, *, follow_symlinks: bool) -> os.stat_result:
            if self.name == "b.md":
                raise OSError(errno.EIO, "Input/output error")
            return self._entry.stat(follow_symlinks=follow_symlinks)

    @contextmanager
    def scandir(held: Root, path: str) -> Any:
        with real(held, path) as entries:
            yield map(Entry, entries)

    monkeypatch.setattr(Root, "scandir", scandir)
    assert differing(root, signatures)[0] == {"a.md": "file", "b.md": "file", "c.md": "file"}


# --- what is known ---


def test_signatures_are_a_dictionary() -> None:
    """Whether they were loaded or set, however they change: all that a dictionary tells is told."""
    dice = random.Random(7)
    loaded = {f"{one}.md": packed(number, 1, 1, 1) for number, one in enumerate(("a", "a/b", "a/c", "b", "ü"), 1)}
    loaded["a/c.md"] = b""
    signatures, plain = Signatures(), dict(loaded)
    signatures.load([path[:-3] for path in loaded], b"".join(one or NO_SIGNATURE for one in loaded.values()))
    paths = [*loaded, "a/d.md", "new/x.md", "agents/ann/agent.yaml", "z.md"]
    for turn in range(500):
        path = dice.choice(paths)
        if dice.randrange(3):
            signatures[path] = plain[path] = dice.choice((b"", packed(turn, 2, 3, 4)))
        else:
            assert signatures.pop(path, None) == plain.pop(path, None)
        assert signatures == plain
        assert len(signatures) == len(plain)
        assert [path in signatures for path in paths] == [path in plain for path in paths]
        assert signatures.directories() == {path.rpartition("/")[0] for path in plain}
        assert {f"a/{name}" for name in signatures.names("a")} == {one for one in plain if one.startswith("a/")}
    with pytest.raises(KeyError):
        del signatures["nothing.md"]
