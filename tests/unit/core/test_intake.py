"""What the folder says: which revisions and problems follow from what is found in it."""

from __future__ import annotations

import os
import time
import unicodedata

import pytest

from blocksd.errors import InvalidFile
from blocksd.files.folder import Busy, Refused, packed
from looking import Looking, drop, fickle, fill, happened

# --- saves ---


def test_life_of_a_block(looking: Looking) -> None:
    """A block is created, updated, deleted, and created again; its versions go on, and the seqs of all have no gap."""
    looking.save("notes", "one\n")
    looking.save("other", "text\n")
    looking.save("notes", "---\nlimit: 50\ntags: [a]\n---\ntwo\n")
    looking.remove("notes")
    looking.wall += 60
    looking.save("notes", "three\n")
    revisions = looking.journal.since(0, 100)
    assert [(one.seq, one.label, one.version, one.kind) for one in revisions] == [
        (1, "notes", 1, "created"),
        (2, "other", 1, "created"),
        (3, "notes", 2, "updated"),
        (4, "notes", 3, "deleted"),
        (5, "notes", 4, "created"),
    ]
    assert revisions[2].fields == ("value", "limit", "tags")
    assert revisions[2].created_at == revisions[0].at
    assert revisions[4].created_at == revisions[4].at > revisions[0].at
    assert all(revision.author == "file" for revision in revisions)


PROTECTED = "---\nread_only: true\nagents: [ann]\n---\nNever refund.\n"


@pytest.mark.parametrize("half", ["", "\n", "Never refund.\n", "# Refunds\n"])
def test_file_that_is_truncated_and_written_again_is_one_save(looking: Looking, half: str) -> None:
    """A file that is empty, or has lost its whole frontmatter, for a moment between two saves."""
    looking.save("notes", PROTECTED)
    assert looking.save("notes", half) == []
    assert looking.wait(0.3) == []
    looking.intake.hint_file("notes.md", closed=True)
    assert looking.sweep(0.3) == []
    (revision,) = looking.save("notes", PROTECTED.replace("Never", "Seldom"))
    assert (revision.fields, set(revision.agents)) == (("value",), {"ann"})
    assert looking.wait(60) == []
    assert "notes.md" not in looking.problems


@pytest.mark.parametrize("half", ["", "Never refund.\n"])
def test_file_that_stays_empty_is_believed(looking: Looking, half: str) -> None:
    """A person who empties it, or takes the frontmatter out, has that in force after a second; each time."""
    for _ in range(2):
        looking.save("notes", PROTECTED)
        assert looking.save("notes", half) == []
        assert looking.wait(0.5) == []
        (revision,) = looking.wait(0.6)
        assert revision.detached == ("ann",)
        assert looking.value() == half.strip()


def test_file_that_loses_less_is_believed_at_once(looking: Looking) -> None:
    """One key of several, or all of its value; a new file may be empty, and one without a frontmatter be rewritten."""
    looking.save("notes", PROTECTED)
    assert happened(looking.save("notes", "---\nread_only: true\n---\nNever refund.\n")) == [("updated", "notes")]
    assert happened(looking.save("notes", "---\nread_only: true\n---\n")) == [("updated", "notes")]
    assert happened(looking.save("new", "")) == [("created", "new")]
    assert happened(looking.save("new", "text\n")) == [("updated", "new")]
    assert happened(looking.save("new", "another\n")) == [("updated", "new")]
    looking.remove("new")
    assert happened(looking.save("new", "")) == [("created", "new")]


@pytest.mark.parametrize("age", [0.0, 60.0])
def test_file_that_is_empty_at_the_start(looking: Looking, age: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is doubted if it was saved a moment before; one that has been empty for long is in force at once."""
    looking.save("notes", PROTECTED)
    looking.close()
    looking.write("notes", "")
    looking.open()
    now = time.time
    monkeypatch.setattr(looking.intake._queue, "_wall", lambda: now() + age)
    assert len(looking.sweep(0.5)) == bool(age)
    assert len(looking.wait(1.0)) == (not age)
    assert looking.value() == ""


def test_same_text_is_no_revision(looking: Looking) -> None:
    """A file saved, touched or formatted anew without another meaning changes nothing."""
    looking.save("notes", "---\nlimit: 50\ntags: [a, b]\n---\ntext\n")
    assert looking.save("notes", "---\nlimit: 50\ntags: [a, b]\n---\ntext\n") == []
    assert looking.save("notes", "---\ntags:\n- a\n- b\nlimit: 50 # as agreed\n---\n\ntext") == []
    assert looking.sweep() == []


def test_unchanged_file_is_not_read_again(looking: Looking) -> None:
    """What its stat proves to be the same is not opened: by no sweep, and by no later daemon."""
    for label in fill(looking, 3):
        os.utime(looking.root / f"{label}.md", (1_700_000_000, 1_700_000_000))
    looking.sweep()
    fickle(looking).reads.clear()
    looking.sweep()
    looking.close()
    looking.open()
    looking.sweep()
    assert fickle(looking).reads == []


def test_hint_of_what_was_written_on_request_is_no_news(looking: Looking) -> None:
    """The file is not read for it, once; anything that was done to it since is found."""
    folder = fickle(looking)
    looking.save("notes", "one\n")
    for text in ("one\n", "two\n"):
        os.utime(looking.root / "notes.md", (1_700_000_000, 1_700_000_000))  # as no later save will have it
        looking.state.signatures["notes.md"] = packed(*(folder.signature("notes.md") or ()))
        looking.state.written.add("notes.md")
        folder.reads.clear()
        looking.intake.hint_file("notes.md", closed=True)
        assert looking.look() == []
        assert folder.reads == []
        looking.state.written.add("notes.md")
        assert happened(looking.save("notes", text)) == ([] if text == "one\n" else [("updated", "notes")])
        assert folder.reads == ["notes.md"]
    looking.intake.hint_file("notes.md", closed=True)
    looking.look()
    assert folder.reads == ["notes.md", "notes.md"]


def test_file_not_journaled_is_looked_at_again(looking: Looking) -> None:
    """What was found but could not be journaled is found again: a sweep that was under way begins anew."""
    labels = [f"block-{number:03}" for number in range(600)]
    for label in labels:
        looking.write(label, f"{label}\n")
    looking.intake.hint_all()
    while not (batch := looking.intake.collect(256)[1]):
        pass
    assert looking.intake.read(batch)  # found, but lost
    looking.state.load()
    looking.intake.reset()
    assert not looking.intake.scanner.is_sweeping
    assert sorted(happened(looking.sweep())) == [("created", label) for label in labels]


def test_look_is_bounded(looking: Looking) -> None:
    """One look reads no more files than it may."""
    for number in range(100):
        looking.write(f"block-{number}", "text\n")
        looking.intake.hint_file(f"block-{number}.md", closed=True)
    assert len(looking.look_once(10)) == 10
    assert looking.intake.backlog == 90


def test_file_that_appears_is_left_alone_for_a_moment(looking: Looking) -> None:
    """A file whose writer was not seen to be done is looked at a little later; once closed, at once."""
    looking.write("notes", "text\n")
    looking.intake.hint_file("notes.md", closed=False)
    assert looking.look() == []
    assert happened(looking.wait(0.1)) == [("created", "notes")]
    looking.write("notes", "other\n")
    looking.intake.hint_file("notes.md", closed=False)
    looking.intake.hint_file("notes.md", closed=True)
    assert happened(looking.look()) == [("updated", "notes")]
    assert looking.wait(1) == []


@pytest.mark.parametrize("path", [".git/notes.md", "deep/.hidden/notes.md", "block.md/notes.md", "readme.txt", ".x.md"])
def test_hint_at_what_no_sweep_would_find(looking: Looking, path: str) -> None:
    """An event finds nothing that a sweep would not find."""
    (looking.root / path).parent.mkdir(parents=True, exist_ok=True)
    (looking.root / path).write_text("text\n")
    looking.intake.hint_file(path, closed=True)
    looking.intake.hint_tree(os.path.dirname(path))
    assert looking.wait(1) == []
    assert looking.sweep() == []
    assert looking.state.paths == {}


def test_links_are_read_again_when_a_config_map_is_swapped(looking: Looking) -> None:
    """When `..data` leads elsewhere all links are looked at, and no other file."""
    for version in ("one", "two"):
        (looking.root / f"..{version}").mkdir()
        (looking.root / f"..{version}" / "notes").write_text(version)
    (looking.root / "..data").symlink_to("..one")
    (looking.root / "notes.md").symlink_to("..data/notes")
    looking.write("plain", "text\n")
    looking.sweep()
    (looking.root / "..tmp").symlink_to("..two")
    (looking.root / "..tmp").rename(looking.root / "..data")
    fickle(looking).reads.clear()
    looking.intake.hint_file("..data", closed=False)
    assert happened(looking.look()) == [("updated", "notes")]
    assert fickle(looking).reads == ["notes.md"]
    assert looking.value() == "two"


def test_times_are_those_of_the_wall(looking: Looking) -> None:
    """The time of day goes into revisions and problems, and nowhere else."""
    looking.wall = 0.0
    looking.save("notes", "text\n")
    looking.save("bad", "---\n")
    assert looking.journal.since(0, 1)[0].at == looking.problem("bad.md").since == "1970-01-01T00:00:00.000Z"


# --- what cannot be read ---


def test_file_that_cannot_be_read_keeps_its_block(looking: Looking) -> None:
    """A file that is there but cannot be read is a problem; its block stays until it can."""
    looking.save("notes", "text\n")
    fickle(looking).answers["notes.md"] = Refused(InvalidFile("it cannot be read", hint="mend it"), None)
    looking.intake.hint_file("notes.md", closed=True)
    assert looking.wait(60) == []
    assert looking.problem().message == "it cannot be read"
    assert looking.sweep() == []
    fickle(looking).answers.clear()
    assert looking.sweep() == []
    assert looking.problems == {}
    assert looking.value() == "text"


def test_file_that_is_written_all_the_time(looking: Looking) -> None:
    """A file is looked at ever less often while someone writes it, then called a problem, and read when it can be."""
    looking.save("notes", "one\n")
    looking.write("notes", "two\n")
    fickle(looking).answers["notes.md"] = Busy()
    looking.intake.hint_file("notes.md", closed=False)
    looking.wait(1)
    assert looking.problems == {}
    looking.wait(10)
    assert looking.problem().message == "it is being written all the time"
    assert looking.intake.is_stuck
    assert looking.value() == "one"
    looking.wait(1200)  # as long as it takes
    fickle(looking).answers.clear()
    assert happened(looking.wait(2)) == [("updated", "notes")]
    assert looking.problems == {}


def test_file_that_is_saved_all_the_time_is_no_problem(looking: Looking) -> None:
    """Many saves, each of which is seen to end, are not one that does not end."""
    fickle(looking).answers["notes.md"] = Busy()
    for _ in range(100):
        looking.intake.hint_file("notes.md", closed=True)
        looking.look()
    assert looking.problems == {}
    assert not looking.intake.is_stuck


# --- names ---


@pytest.mark.parametrize("name", ["a b ", ".", "x" * 201, "a*b", "new\nline", os.fsdecode(b"\xff")])
def test_name_that_is_no_label(looking: Looking, name: str) -> None:
    """A file whose name is no label is a problem; renamed, it is a block."""
    looking.write(name, "text\n")
    looking.write("good", "text\n")
    assert happened(looking.sweep()) == [("created", "good")]
    ((subject, problem),) = looking.problems.items()
    assert subject.isprintable()
    assert problem.hint.startswith("rename the file")
    (looking.root / f"{name}.md").rename(looking.root / "renamed.md")
    assert happened(looking.sweep()) == [("created", "renamed")]
    assert looking.problems == {}


def test_of_names_that_differ_in_case_the_first_stays(looking: Looking) -> None:
    """When it goes, one of the others takes its place, and the rest is told who that is."""
    looking.save("Notes", "first\n")
    for name in ("NOTES", "notes", "nOTES"):
        assert looking.save(name, f"{name}\n") == []
    assert set(looking.problems) == {"NOTES.md", "notes.md", "nOTES.md"}
    assert looking.save("Notes", "still\n") != []
    assert happened(looking.remove("Notes")) == [("deleted", "Notes"), ("created", "NOTES")]
    messages = {subject: problem.message for subject, problem in looking.problems.items()}
    assert messages == {
        "notes.md": "its label 'notes' is taken by NOTES.md",
        "nOTES.md": "its label 'nOTES' is taken by NOTES.md",
    }
    drop(looking, ["notes"])
    looking.intake.hint_file("notes.md", closed=False)
    assert happened(looking.remove("NOTES")) == [("deleted", "NOTES"), ("created", "nOTES")]
    assert looking.problems == {}


def test_clash_is_the_same_after_a_restart(looking: Looking) -> None:
    """Who is in force stays in force, whatever the order in which the files are found."""
    looking.save("Notes", "first\n")
    looking.save("NOTES", "second\n")
    looking.close()
    looking.open()
    assert looking.sweep() == []
    assert set(looking.problems) == {"NOTES.md"}


def test_rename_in_normalization_is_no_change(looking: Looking) -> None:
    """NFC and NFD spell one label."""
    composed, decomposed = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    looking.save(decomposed, "text\n")
    assert looking.state.paths == {composed: f"{decomposed}.md"}
    (looking.root / f"{decomposed}.md").rename(looking.root / f"{composed}.md")
    looking.intake.hint_file(f"{composed}.md", closed=True)
    looking.intake.hint_file(f"{decomposed}.md", closed=False)
    assert looking.wait(5) == []
    assert looking.state.paths == {composed: f"{composed}.md"}
    assert looking.problems == {}
    assert happened(looking.remove(composed)) == [("deleted", composed)]


def test_name_taken_from_an_agent_is_said_until_it_is_free(looking: Looking) -> None:
    """An agent sees one block under a name: the later one is refused for it, over a restart, too."""
    looking.save("agents/one/persona", "mine\n")
    looking.save("persona", "---\nagents: [one, two]\n---\nours\n")
    head = looking.journal.head("persona")
    assert head is not None
    assert head.agents == {"two"}
    problem = looking.problem("persona")
    assert problem.warning
    assert "not attached to one" in problem.message
    for path in ("persona.md", "agents/one/persona.md"):
        os.utime(looking.root / path, (1_700_000_000, 1_700_000_000))
    looking.sweep()
    looking.close()
    looking.open()
    assert looking.sweep() == []
    assert looking.problem("persona").same_as(problem)
    revisions = looking.remove("agents/one/persona")
    assert ("updated", "persona") in happened(revisions)
    assert looking.problems == {}


def test_block_of_before_stays_where_its_file_is_a_problem_now(looking: Looking) -> None:
    """A journal of before knows the file, which has not changed since: it is read once more, told of, and its block stays."""
    looking.save("notes", "---\nread_only: true\n---\none\n")
    looking.save("cafe\u0301 sync-conflict-20261120-100000-ABCDEFG", "a copy\n")
    (looking.root / "notes.md").write_text("\n---\nread_only: true\n---\none\n")
    status = (looking.root / "notes.md").stat()
    signature = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
    conflict = "cafe\u0301.sync-conflict-20261120-100000-ABCDEFG.md"
    (looking.root / "cafe\u0301 sync-conflict-20261120-100000-ABCDEFG.md").rename(looking.root / conflict)
    database = looking.journal.database
    database.execute(
        "UPDATE heads SET label = ?, path = ? WHERE label != 'notes'",
        (unicodedata.normalize("NFC", conflict.removesuffix(".md")), conflict),
    )
    database.execute(
        "UPDATE revisions SET label = ? WHERE label != 'notes'", (unicodedata.normalize("NFC", conflict[:-3]),)
    )
    database.execute("DROP INDEX revisions_stale")
    for number in ("mtime_ns", "ctime_ns", "size", "inode"):  # which are one now
        database.execute(f"ALTER TABLE heads ADD COLUMN {number} INTEGER")
    database.execute("ALTER TABLE heads DROP COLUMN signature")
    for table in ("forms", "agents"):
        database.execute(f"DROP TABLE {table}")
    database.execute(
        "UPDATE heads SET mtime_ns = ?, ctime_ns = ?, size = ?, inode = ? WHERE label = 'notes'", signature
    )
    for table, column in (("revisions", "origin"), ("heads", "origin"), ("revisions", "operator")):
        database.execute(f"ALTER TABLE {table} DROP COLUMN {column}")  # which came with that schema, or later
    database.execute("PRAGMA user_version=7")
    looking.close()
    looking.open()
    looking.sweep()
    assert set(looking.problems) == {"notes.md", conflict}
    assert looking.value("notes") == "one"
    assert set(looking.state.paths.values()) == {"notes.md", conflict}
