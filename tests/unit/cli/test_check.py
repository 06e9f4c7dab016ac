"""What `blocksd check` says of a folder and of one file, and which names it proposes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from blocksd.cli.main import cli
from blocksd.doctor.renaming import Renaming, rename, renamings
from blocksd.errors import Misconfigured
from blocksd.journal.journal import Journal
from rig import revision

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of blocks, by the settings of this place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLOCKSD_CONFIG", os.devnull)
    monkeypatch.setenv("BLOCKSD_STATE_DIR", str(tmp_path / "state"))
    path = tmp_path / "blocks.d"
    path.mkdir()
    return path


def check(*words: str, code: int) -> Result:
    result = CliRunner().invoke(cli, ["check", *words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def test_one_file_of_the_folder_is_checked(folder: Path) -> None:
    """What is wrong with the other files is not said, and does not count; its label is that below the folder."""
    (folder / "agents" / "one").mkdir(parents=True)
    (folder / "bad.md").write_text("---\n")
    (folder / "agents" / "one" / "persona.md").write_text("---\nagents: [two]\n---\n")
    (folder / "good.md").write_text("text\n")
    assert check("blocks.d/good.md", code=0).output == "1 block in order, 0 problems, 0 warnings\n"
    said = check("blocks.d/bad.md", code=1).output
    assert said.splitlines()[1:] == ["0 blocks in order, 1 problem, 0 warnings"]
    assert said.startswith("bad.md:1: the frontmatter is opened")
    said = check("blocks.d/agents/one/persona.md", code=1).output
    assert "a private block belongs to 'one' alone" in said


def test_file_beside_the_folder_is_checked_by_itself(folder: Path, tmp_path: Path) -> None:
    """A draft anywhere can be checked; the files around it are not."""
    (tmp_path / "draft.md").write_text("---\nlimit: 3\n---\nfour\n")
    (tmp_path / "Draft.md").write_text("other\n")
    assert "draft.md: Exceeds character limit" in check("draft.md", code=1).output
    (folder / "notes.txt").write_text("x")
    assert "notes.txt: it is no block" in check("blocks.d/notes.txt", code=1).output
    with pytest.raises(Misconfigured, match=r"no folder or file 'nothing\.md'"):
        check("nothing.md", code=2)


def test_what_is_no_regular_file_is_not_opened(folder: Path, tmp_path: Path) -> None:
    """Alone it is checked as in a folder: a FIFO would be waited for, and a link out of the folder is no block."""
    os.mkfifo(tmp_path / "pipe.md")
    (tmp_path / "out.md").symlink_to("/etc/hostname")
    (tmp_path / "nowhere.md").symlink_to("gone.md")
    assert folder.exists()
    for name, why in (("pipe", "a FIFO cannot"), ("out", "out of the folder"), ("nowhere", "leads to nothing")):
        assert why in check(f"{name}.md", code=1).output


@pytest.mark.parametrize("held", ["notes.md", "Notes.md"])
def test_label_conflict_is_that_of_the_daemon(folder: Path, tmp_path: Path, held: str) -> None:
    """Of two files with one label that one is in force that the daemon has, whatever their order."""
    for name in ("notes.md", "Notes.md"):
        (folder / name).write_text("text\n")
    (tmp_path / "state").mkdir()
    journal = Journal(str(tmp_path / "state" / "journal.db"))
    label = held.removesuffix(".md")
    journal.append([revision(1, label, value="text")], {label: (held, None)})
    journal.close()
    other = ({"notes.md", "Notes.md"} - {held}).pop()
    said = check("blocks.d", code=1).output
    assert f"{other}: its label {other.removesuffix('.md')!r} is taken by {held}" in said
    assert held in check(f"blocks.d/{other}", code=1).output
    check(f"blocks.d/{held}", code=0)


def test_names_are_proposed_and_files_renamed_when_asked(folder: Path) -> None:
    """Without a yes nothing is renamed; with one, what has no obstacle is, and directories emptied by that go."""
    (folder / "what?" / "deep").mkdir(parents=True)
    (folder / "what?" / "deep" / "why?.md").write_text("why\n")
    (folder / "a:b.md").write_text("new\n")
    (folder / "c|d.md").write_text("other\n")
    (folder / "C-D.md").write_text("there\n")
    (folder / "fine.md").write_text("fine\n")
    (folder / ".obsidian").mkdir()
    (folder / ".obsidian" / "x?.md").write_text("not ours\n")
    before = sorted(path for path in folder.rglob("*"))
    said = check("blocks.d", "--rename", code=1).output
    assert "a:b.md → a-b.md\n" in said
    assert "c|d.md → c-d.md: C-D.md has this name" in said
    assert "what?/deep/why?.md → what/deep/why.md\n" in said
    assert "fine.md →" not in said
    assert ".obsidian" not in said
    assert sorted(path for path in folder.rglob("*")) == before
    found = json.loads(check("blocks.d", "--rename", "--format", "json", code=1).output)
    assert {"old": "a:b.md", "new": "a-b.md", "obstacle": ""} in found["renamings"]
    check("blocks.d", "--rename", "--yes", code=1)
    files = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "a-b.md": "new\n",
        "c|d.md": "other\n",
        "C-D.md": "there\n",
        "fine.md": "fine\n",
        "what/deep/why.md": "why\n",
        ".obsidian/x?.md": "not ours\n",
    }
    assert not (folder / "what?").exists()
    (folder / "c|d.md").unlink()
    assert check("blocks.d", "--rename", code=0).output.endswith("no file needs another name\n")


def test_two_files_are_not_given_one_name(folder: Path) -> None:
    """Of two files for which the same name is proposed, one keeps its own."""
    (folder / "a:b.md").write_text("one\n")
    (folder / "a|b.md").write_text("two\n")
    first, second = renamings(str(folder))
    assert (first.new, first.obstacle) == ("a-b.md", "")
    assert (second.new, second.obstacle != "") == ("a-b.md", True)


def test_file_that_came_meanwhile_is_not_replaced(folder: Path) -> None:
    """Nothing is ever renamed over another file."""
    (folder / "a:b.md").write_text("one\n")
    (folder / "a-b.md").write_text("two\n")
    with pytest.raises(FileExistsError):
        rename(str(folder), Renaming("a:b.md", "a-b.md"))
    assert (folder / "a:b.md").read_text() == "one\n"
    assert (folder / "a-b.md").read_text() == "two\n"
