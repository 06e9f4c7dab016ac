"""Files that change together: symlinks with what they lead to, and the names of one file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from looking import GRACE, Looking, fickle, happened

if TYPE_CHECKING:
    from blocksd.model.revision import Revision


def hint_save(looking: Looking, path: str, text: str) -> list[Revision]:
    """Save a file of whatever name, and tell of it."""
    (looking.root / path).write_text(text)
    looking.intake.hint_file(path, closed=True)
    return looking.look()


# --- symlinks ---


@pytest.mark.parametrize("target", ["target.md", "data/text", "..data/text", ".hidden/target.md"])
def test_symlink_follows_its_target_at_once(looking: Looking, target: str) -> None:
    """Whatever that is called, and wherever in the folder it is."""
    (looking.root / target).parent.mkdir(exist_ok=True)
    (looking.root / target).write_text("one\n")
    (looking.root / "link.md").symlink_to(target)
    looking.sweep()
    assert looking.value("link") == "one"
    labels = {one.label for one in hint_save(looking, target, "two\n")}
    assert labels == ({"target", "link"} if target == "target.md" else {"link"})
    assert looking.value("link") == "two"
    (looking.root / "new").write_text("three\n")
    (looking.root / "new").rename(looking.root / target)
    looking.intake.hint_file(target, closed=True)
    assert "link" in {one.label for one in looking.look()}
    assert os.path.basename(target) in looking.intake.links.names


def test_symlink_by_way_of_others(looking: Looking) -> None:
    """Each link of a chain, and the directories that are links on it, may be switched."""
    for version in ("v1", "v2"):
        (looking.root / version).mkdir()
        (looking.root / version / "text").write_text(f"{version}\n")
    (looking.root / "current").symlink_to("v1")
    (looking.root / "other").write_text("other\n")
    (looking.root / "middle").symlink_to("current/text")
    (looking.root / "link.md").symlink_to("middle")
    looking.sweep()
    assert looking.value("link") == "v1"
    (looking.root / "tmp").symlink_to("v2")
    (looking.root / "tmp").rename(looking.root / "current")
    looking.intake.hint_tree("current")
    assert happened(looking.look()) == [("updated", "link")]
    assert looking.value("link") == "v2"
    assert happened(hint_save(looking, "v2/text", "more\n")) == [("updated", "link")]
    (looking.root / "tmp").symlink_to("other")
    (looking.root / "tmp").rename(looking.root / "middle")
    looking.intake.hint_file("middle", closed=True)
    looking.look()
    assert looking.value("link") == "other"
    assert hint_save(looking, "v2/text", "even more\n") == []
    assert happened(hint_save(looking, "other", "o\n")) == [("updated", "link")]


def test_symlink_whose_target_is_gone_for_a_while(looking: Looking) -> None:
    """The last text stays in force, and the next one comes as soon as it is there; so does the first."""
    (looking.root / "link.md").symlink_to("text")
    looking.sweep()
    assert looking.problem("link.md").message == "the symlink leads to nothing"
    assert happened(hint_save(looking, "text", "one\n")) == [("created", "link")]
    (looking.root / "text").unlink()
    looking.intake.hint_file("text", closed=False)
    assert looking.wait(GRACE) == []
    assert looking.problem("link.md").message == "the symlink leads to nothing"
    assert looking.value("link") == "one"
    assert happened(hint_save(looking, "text", "two\n")) == [("updated", "link")]
    assert looking.problems == {}


def test_symlink_that_is_gone_or_leads_elsewhere(looking: Looking) -> None:
    """It is not read for what it led to."""
    (looking.root / "link.md").symlink_to("text")
    (looking.root / "text").write_text("one\n")
    looking.save("other", "o\n")
    looking.sweep()
    looking.remove("link")
    fickle(looking).reads.clear()
    assert hint_save(looking, "text", "two\n") == []
    assert fickle(looking).reads == []
    assert looking.intake.links.followers == {}


# --- hard links ---


def test_both_names_of_a_file_are_told(looking: Looking) -> None:
    """Once, over sweeps and restarts; until one of them is gone, or another file."""
    looking.save("a", "one\n")
    looking.save("other", "o\n")
    os.link(looking.root / "a.md", looking.root / "b.md")
    assert happened(looking.sweep()) == [("created", "b")]
    for path, other in (("a.md", "b.md"), ("b.md", "a.md")):
        problem = looking.problem(path)
        assert problem.warning
        assert problem.message.startswith(f"it is one file with {other} (a hard link)")
    changes = looking.problems.changes
    looking.sweep()
    looking.intake.hint_file("a.md", closed=True)
    looking.look()
    assert looking.problems.changes == changes
    looking.close()
    looking.open()
    assert looking.sweep() == []
    assert set(looking.problems) == {"a.md", "b.md"} == set(looking.intake.links.refusals)
    (looking.root / "b.md").unlink()
    looking.intake.hint_file("b.md", closed=False)
    assert happened(looking.wait(GRACE * 2)) == [("deleted", "b")]
    assert looking.problems == {}
    assert looking.intake.links.refusals == {}


def test_names_that_were_there_at_the_first_start_are_told_at_the_second(looking: Looking) -> None:
    """Neither file is like any other that was journaled: both are read again, and neither is written to."""
    looking.write("a", "one\n")
    os.utime(looking.root / "a.md", (1000, 1000))  # so old that its signature proves what it says
    os.link(looking.root / "a.md", looking.root / "b.md")
    for _ in range(3):
        looking.sweep()
        assert set(looking.problems) == {"a.md", "b.md"} == set(looking.intake.links.refusals)
        looking.close()
        looking.open()


def test_save_under_one_name_is_a_save_under_all(looking: Looking) -> None:
    """An editor that keeps the link tells of one name alone."""
    looking.save("a", "one\n")
    os.link(looking.root / "a.md", looking.root / "b.md")
    looking.sweep()
    with (looking.root / "a.md").open("a") as file:
        file.write("two\n")
    looking.intake.hint_file("a.md", closed=True)
    assert happened(looking.look()) == [("updated", "a"), ("updated", "b")]


def test_names_that_are_parted(looking: Looking) -> None:
    """By an editor that puts a new file in the place of one of them."""
    looking.save("a", "one\n")
    os.link(looking.root / "a.md", looking.root / "b.md")
    looking.sweep()
    (looking.root / "new").write_text("two\n")
    (looking.root / "new").rename(looking.root / "a.md")
    looking.intake.hint_file("a.md", closed=True)
    assert happened(looking.wait(GRACE)) == [("updated", "a")]
    assert looking.problems == {}
    assert looking.value("b") == "one"


def test_other_name_of_a_file_is_looked_for_once(looking: Looking) -> None:
    """However often the file is read because of a problem that it has."""
    looking.write("bad", "---\n")
    os.link(looking.root / "bad.md", looking.home / "copy")
    looking.sweep()
    looking.write("other", "o\n")
    os.link(looking.root / "other.md", looking.home / "copy-2")
    looking.intake.hint_file("other.md", closed=True)
    looking.look()
    sweeps = looking.intake.scanner.sweeps
    for _ in range(3):
        for path in ("other.md", "bad.md"):
            looking.intake.hint_file(path, closed=True)
        looking.look()
    assert looking.intake.scanner.sweeps == sweeps


def test_file_with_a_name_elsewhere_that_is_moved(looking: Looking) -> None:
    """It is not one with the file that it was."""
    for label in ("a", "b", "c"):
        looking.save(label, f"{label}\n")
        os.link(looking.root / f"{label}.md", looking.home / label)
    looking.sweep()
    (looking.root / "a.md").rename(looking.root / "b.md")
    for path in ("a.md", "b.md"):
        looking.intake.hint_file(path, closed=path == "b.md")
    assert happened(looking.look()) == [("updated", "b")]
    assert looking.problems == {}
    assert looking.wait(GRACE / 2) == []
    assert looking.intake.links.refusals == {}
    assert happened(looking.wait(GRACE)) == [("deleted", "a")]
    assert looking.problems == {}


def test_name_outside_the_folder_is_no_problem(looking: Looking) -> None:
    """It may be a backup, for which a write that parts the two is right."""
    looking.save("a", "one\n")
    os.link(looking.root / "a.md", looking.home / "copy")
    assert looking.sweep() == []
    assert looking.problems == {}
    assert looking.intake.links.refusals == {}
