"""Which folder a journal is of: the one it was made of, wherever it is now, and no other."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from blocksd.errors import InvalidFile
from blocksd.files.folder import Folder, Refused
from blocksd.journal import identity
from blocksd.state.folder_match import Match, match_folder
from looking import Fickle, Looking, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(params=["with births", "without births"])
def served(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Looking]:
    """A folder of ten blocks that was served; file systems without births give no identity."""
    if request.param == "without births":
        monkeypatch.setattr(identity, "_birth_of", lambda _: None)
    looking = Looking(tmp_path)
    fill(looking, 10)
    yield looking
    looking.close()


def matched(served: Looking, place: Path) -> Match | None:
    return match_folder(served.journal, Folder(str(place)))


def another(served: Looking, place: Path, looked_for: int, found: int) -> Match:
    return Match(str(served.root), str(place), looked_for, found)


def moved(served: Looking, place: Path) -> None:
    served.root.rename(place)


def moved_and_edited(served: Looking, place: Path) -> None:
    """Four of the files, so that the others still tell."""
    served.root.rename(place)
    for path in sorted(place.iterdir())[:4]:
        path.write_text("another text\n")


def copied(served: Looking, place: Path) -> None:
    shutil.copytree(served.root, place)


def cloned(served: Looking, place: Path) -> None:
    """By a tool that keeps no times, as git does."""
    shutil.copytree(served.root, place, copy_function=shutil.copyfile)


def restored_from_backup(served: Looking, place: Path) -> None:
    """Texts that were in force once; some files are newer than the backup."""
    shutil.copytree(served.root, place, copy_function=shutil.copyfile)
    for path in served.root.iterdir():
        path.write_text(f"newer {path.stem}\n")
    served.write("made-after-it", "text\n")
    assert len(served.sweep()) == 11


def copied_and_more(served: Looking, place: Path) -> None:
    shutil.copytree(served.root, place)
    for number in range(30):
        (place / f"more-{number}.md").write_text("more\n")


def linked(served: Looking, place: Path) -> None:
    """The folder was reached by its own path before."""
    place.symlink_to(served.root)


@pytest.mark.parametrize(
    "act", [moved, moved_and_edited, copied, cloned, restored_from_backup, copied_and_more, linked]
)
def test_folder_that_is_the_same(served: Looking, tmp_path: Path, act: Callable[[Looking, Path], None]) -> None:
    """However it came to its new place, most of its files say what the journal has."""
    act(served, tmp_path / "elsewhere")
    assert matched(served, tmp_path / "elsewhere") is None


def test_moved_folder_is_told_by_its_identity(looking: Looking, tmp_path: Path) -> None:
    """Also if each of its files was edited, or removed, meanwhile."""
    fill(looking, 3)
    looking.sweep()
    facts = looking.journal.folder_facts()
    if facts is None or not facts.identity:
        pytest.skip("this file system keeps no births")
    looking.root.rename(tmp_path / "elsewhere")
    for path in (tmp_path / "elsewhere").iterdir():
        path.write_text("another text\n")
    assert matched(looking, tmp_path / "elsewhere") is None


def of_the_same_names(place: Path, _: Looking) -> None:
    """Two folders made of one template have files of the same names."""
    for number in range(10):
        (place / f"block-{number:03}.md").write_text("another text\n")


def of_other_names(place: Path, _: Looking) -> None:
    for number in range(10):
        (place / f"other-{number:02}.md").write_text(f"block-{number:03}\n")


def with_some_in_common(place: Path, served: Looking) -> None:
    """Such as a text that every folder has from its template."""
    of_other_names(place, served)
    for path in sorted(served.root.iterdir())[:5]:
        shutil.copy2(path, place)


def with_files_that_are_no_blocks(place: Path, served: Looking) -> None:
    for path in served.root.iterdir():
        (place / path.name).write_bytes(b"\xff")


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda *_: None, 0),
        (of_the_same_names, 0),
        (of_other_names, 0),
        (with_some_in_common, 5),
        (with_files_that_are_no_blocks, 0),
    ],
    ids=["empty", "the same names", "other names", "some in common", "no blocks"],
)
def test_folder_that_is_another(
    served: Looking, tmp_path: Path, make: Callable[[Path, Looking], None], found: int
) -> None:
    """It has few of the texts, whatever its files are called."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    make(place, served)
    assert matched(served, place) == another(served, place, 10, found)


def test_number_that_is_given_out_again_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without births a directory made after another one was removed could be taken for that."""
    monkeypatch.setattr(identity, "_birth_of", lambda _: None)
    looking = Looking(tmp_path)
    fill(looking, 3)
    shutil.rmtree(looking.root)
    for number in range(100):
        (tmp_path / f"other-{number}").mkdir()
        assert matched(looking, tmp_path / f"other-{number}") == another(looking, tmp_path / f"other-{number}", 3, 0)
    looking.close()


def test_emptied_folder_is_the_same(served: Looking) -> None:
    """At its own path, where a disk may be that is not mounted: the guard of deletions is there for that."""
    for path in served.root.iterdir():
        path.unlink()
    assert matched(served, served.root) is None
    shutil.rmtree(served.root)
    served.root.mkdir()
    assert matched(served, served.root) is None


def test_symlink_that_is_switched_is_the_same_folder(tmp_path: Path) -> None:
    """From one release to the next: the folder is what the path says that the daemon was given."""
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "notes.md").write_text(f"{release}\n")
    (tmp_path / "blocks.d").symlink_to("one")
    looking = Looking(tmp_path)
    looking.sweep()
    (tmp_path / "blocks.d").unlink()
    (tmp_path / "blocks.d").symlink_to("two")
    assert matched(looking, tmp_path / "blocks.d") is None
    assert matched(looking, tmp_path / "two") == Match(str(tmp_path / "one"), str(tmp_path / "two"), 1, 0)
    looking.close()


def test_any_folder_is_that_of_a_journal_without_blocks(looking: Looking, tmp_path: Path) -> None:
    """There is nothing to mix it up with: a folder that was empty, or whose blocks were all deleted."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.md").write_text("text\n")
    assert matched(looking, tmp_path / "other") is None
    looking.save("old", "text\n")
    looking.remove("old")
    assert matched(looking, tmp_path / "other") is None


def test_file_that_cannot_be_read_tells_nothing(served: Looking, tmp_path: Path) -> None:
    """It is neither the same nor another one; nothing but such files is no proof that a folder is the same."""
    place = tmp_path / "elsewhere"
    shutil.copytree(served.root, place, copy_function=shutil.copyfile)
    folder = Fickle(str(place))
    names = sorted(os.listdir(place))
    folder.answers = {name: Refused(InvalidFile("it cannot be read"), None) for name in names[:9]}
    assert match_folder(served.journal, folder) is None
    folder.answers[names[9]] = Refused(InvalidFile("it cannot be read"), None)
    assert match_folder(served.journal, folder) == another(served, place, 10, 0)


def test_large_folder_is_told_by_some_of_its_files(looking: Looking, tmp_path: Path) -> None:
    for number in range(1000):
        looking.write(f"block-{number:04}", f"{number}\n")
    looking.sweep()
    place = tmp_path / "elsewhere"
    shutil.copytree(looking.root, place, copy_function=shutil.copyfile)
    folder = Fickle(str(place))
    assert match_folder(looking.journal, folder) is None
    assert 100 < len(folder.reads) <= 400
