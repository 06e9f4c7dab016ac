"""A file that holds an agent's memory: written whole, only when it changes, and never over an edit."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from blocksd.assistants import rendered_file
from blocksd.assistants.rendered_file import Outcome, RenderedFile
from blocksd.assistants.section import digest_of
from blocksd.errors import BrokenMarkers, InvalidFile, ProblemFile
from blocksd.files.writer import Writer

if TYPE_CHECKING:
    from pathlib import Path

    from blocksd.files.file_edit import Staged


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another program writes is not waited for."""
    monkeypatch.setattr(rendered_file, "_PAUSE_SECONDS", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is, or is to be."""
    return tmp_path / "CLAUDE.md"


def output(path: Path) -> RenderedFile:
    return RenderedFile(str(path), "sam")


def test_file_is_made_and_kept_up_to_date(path: Path) -> None:
    """Written when it has not the memory yet, and not touched when it has; nothing else is left in the directory."""
    assert output(path).update("I am Sam.") is Outcome.WRITTEN
    before = path.stat()
    assert output(path).update("I am Sam.") is Outcome.CURRENT
    assert path.stat() == before
    assert output(path).update("I am Sam. I like tea.") is Outcome.WRITTEN
    assert "I like tea." in path.read_text()
    assert os.listdir(path.parent) == [path.name]


def test_mode_is_kept(path: Path) -> None:
    """Whoever could read the file can, and nobody else."""
    path.write_text("# Rules\n")
    path.chmod(0o640)
    output(path).update("I am Sam.")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_symlink_is_written_through(path: Path, tmp_path: Path) -> None:
    """Its target gets the text, wherever it is; the link stays one."""
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "AGENTS.md"
    target.write_text("# Rules\n")
    path.symlink_to("elsewhere/AGENTS.md")
    assert output(path).update("I am Sam.") is Outcome.WRITTEN
    assert path.is_symlink()
    assert "I am Sam." in target.read_text()


def test_symlink_to_nothing_makes_its_target(path: Path, tmp_path: Path) -> None:
    """As an editor would."""
    path.symlink_to("AGENTS.md")
    assert output(path).update("I am Sam.") is Outcome.WRITTEN
    assert "I am Sam." in (tmp_path / "AGENTS.md").read_text()
    assert path.is_symlink()


def test_edit_between_the_markers_is_kept(path: Path) -> None:
    """Until the caller says that it is to go."""
    output(path).update("I am Sam.")
    edited = path.read_text().replace("I am Sam.", "I am Sam, and I was here.")
    path.write_text(edited)
    file = output(path)
    assert file.update("I am new.") is Outcome.EDITED
    assert file.edited_line == 1
    assert path.read_text() == edited
    assert file.update("I am new.", discards_edits=True) is Outcome.WRITTEN
    assert "I was here" not in path.read_text()
    assert file.update("I am newer.") is Outcome.WRITTEN


def test_edit_that_comes_to_the_same_is_none(path: Path) -> None:
    """Someone has made the change by hand that the memory now has, too."""
    output(path).update("I am Sam.")
    path.write_text(path.read_text().replace("I am Sam.", "I am Bob."))
    assert output(path).update("I am Bob.") is Outcome.WRITTEN
    assert output(path).update("I am Bob.") is Outcome.CURRENT


def test_nothing_is_written_where_that_is_forbidden(path: Path) -> None:
    """It is only said if it would be."""
    assert output(path).update("I am Sam.", may_write=False) is Outcome.STALE
    assert not path.exists()


def test_broken_markers_are_refused_with_the_file_named(path: Path) -> None:
    """And what to do."""
    output(path).update("I am Sam.")
    broken = path.read_text().replace("<!-- blocksd:end sam -->\n", "")
    path.write_text(broken)
    with pytest.raises(BrokenMarkers, match=r"CLAUDE\.md is not written: line 1 ") as caught:
        output(path).update("I am new.")
    assert "remove the markers" in str(caught.value.facts["hint"])
    assert path.read_text() == broken


@pytest.mark.parametrize(("data", "why"), [(b"\xff\xfe", "not UTF-8"), (b"a\0b", "no text")])
def test_file_that_is_no_text_is_refused(data: bytes, why: str, path: Path) -> None:
    """Its bytes stay."""
    path.write_bytes(data)
    with pytest.raises(InvalidFile, match=why):
        output(path).update("I am Sam.")
    assert path.read_bytes() == data


@pytest.mark.parametrize("mine", ["", "# Mine\n"])
def test_byte_order_mark_stays(mine: str, path: Path) -> None:
    """Also where it stands before a marker."""
    path.write_text(f"\ufeff{mine}")
    for memory in ("I am Sam.", "I am new."):
        assert output(path).update(memory) is Outcome.WRITTEN
        assert output(path).update(memory) is Outcome.CURRENT
        assert path.read_text().startswith("\ufeff" + (mine or "<!-- blocksd:begin"))
        assert path.read_text().count("\ufeff") == 1
    path.write_text(path.read_text().replace("I am new.", "I am edited."))
    assert output(path).update("I am newer.") is Outcome.EDITED


def test_what_a_kill_has_left_is_removed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a person's text in it is that of the file, and nobody can be at work on it any more."""
    path.write_text("# Mine\n")
    output(path).update("I am Sam.")
    text = path.read_text()
    path.write_text(f"# More\n{text}End.\n")
    lefts = {
        "old": text.replace("I am Sam.", "I am old.").replace(digest_of("I am Sam.\n"), digest_of("I am old.\n")),
        "edited": text.replace("I am Sam.", "I am edited."),
        "longer": f"{text}A late save.\n",
        "other": "# Mine\n",
        "broken": "# Mine\n<!-- blocksd:begin sam\n",
    }
    for name, its in lefts.items():
        (path.parent / f".blocksd-{name}").write_text(its)
    (path.parent / ".blocksd-link").symlink_to(path)
    output(path).update("I am new.", may_write=False)
    output(path).update("I am new.")
    assert (path.parent / ".blocksd-old").exists()
    monkeypatch.setattr(rendered_file, "_LEFT_SECONDS", 0)
    output(path).update("I am new.")
    left = sorted(one.name.removeprefix(".blocksd-") for one in path.parent.iterdir() if one != path)
    assert left == ["broken", "edited", "link", "longer", "other"]


def test_read_only_file_is_refused(path: Path) -> None:
    """Though its directory would allow to replace it: who took the right to write away meant it."""
    path.write_text("# Rules\n")
    path.chmod(0o444)
    with pytest.raises(ProblemFile, match=r"CLAUDE\.md is not written: it is read-only"):
        output(path).update("I am Sam.")
    assert path.read_text() == "# Rules\n"


def test_missing_directory_is_named(tmp_path: Path) -> None:
    """It is not made: it may be one that is not mounted, or a slip."""
    with pytest.raises(ProblemFile, match="there is no directory") as caught:
        output(tmp_path / "no" / "CLAUDE.md").update("I am Sam.")
    assert caught.value.facts["hint"] == f"make it with 'mkdir --parents {tmp_path / 'no'}'"
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_other_things_than_files_are_refused(kind: str, path: Path) -> None:
    """And not waited for."""
    if kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(ProblemFile, match=r"CLAUDE\.md is not written: it is no file") as caught:
        output(path).update("I am Sam.")
    assert "name another file" in str(caught.value.facts["hint"])


def test_save_at_the_same_moment_is_not_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes between reading and writing is read, and the memory goes beside it."""
    path.write_text("# Rules\n")
    put_in, saves = Writer.put_in, ["# New rules\n"]

    def disturbed(writer: Writer, staged: Staged) -> bool:
        if saves:
            path.write_text(saves.pop())
        return put_in(writer, staged)

    monkeypatch.setattr(Writer, "put_in", disturbed)
    assert output(path).update("I am Sam.") is Outcome.WRITTEN
    text = path.read_text()
    assert text.startswith("# New rules\n")
    assert "I am Sam." in text
    assert os.listdir(path.parent) == [path.name]


def test_file_that_is_being_written_is_left_alone(path: Path) -> None:
    """An editor that has it open for writing would go on in a file that is not there any more."""
    path.write_text("# Rules\n")
    with (
        path.open("a"),
        pytest.raises(ProblemFile, match=r"CLAUDE\.md is not written: another program is writing it"),
    ):
        output(path).update("I am Sam.")
    assert path.read_text() == "# Rules\n"
    assert os.listdir(path.parent) == [path.name]


def test_home_and_working_directory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path may begin with `~`, or be relative."""
    monkeypatch.setenv("HOME", str(path.parent))
    monkeypatch.chdir(path.parent)
    assert RenderedFile("~/CLAUDE.md", "sam").update("I am Sam.") is Outcome.WRITTEN
    assert RenderedFile("CLAUDE.md", "sam").update("I am Sam.") is Outcome.CURRENT
