"""The request `save`: a file edited on another host comes into force here, and what was written since stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from blocksd.files.staging import digest
from contract.test_requests import NOTES, Office, crashed_at
from rig import Ear, assert_level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import RedisServer

MIXED = "\ufeff---\r\n# why\r\ndescription:  'x'\r\n---\r\n\r\none\r\ntwo\nthree"


@pytest.fixture
def server(standing_server: Callable[[str], RedisServer]) -> RedisServer:
    return standing_server("valkey")


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    client: Any = server.client()
    yield client
    client.close()


@pytest.fixture
def rig(tmp_path: Path, server: RedisServer, raw: Any) -> Iterator[Office]:
    rig = Office(tmp_path, server.url, raw)
    rig.write("notes", NOTES)
    rig.write("agents/ann/persona", "I am Ann.\n")
    rig.settle()
    yield rig
    rig.close()


@pytest.fixture
def ear(rig: Office) -> Iterator[Ear]:
    ear = Ear(rig.raw, "blocks:changes")
    yield ear
    ear.close()


def save(rig: Office, label: str, text: str, version: int, base: str | None = None, **given: Any) -> dict[str, Any]:
    more = {} if base is None else {"base": digest(base.encode())}
    return rig.do("operator", "save", label, file=text, version=version, by="laptop", **more, **given)


def history(rig: Office, label: str) -> list[tuple[int, str, str | None, tuple[int, ...]]]:
    return [(one.version, one.author, one.by, one.reverts) for one in rig.journal.history(label)]


def test_save_of_the_present_text_is_put_in_to_the_byte(rig: Office, ear: Ear) -> None:
    """By the version alone, or by the digest of the text that it was made of; who saved it is told."""
    ear.changes()
    reply = save(rig, "notes", MIXED, 1)
    assert (reply["label"], reply["version"], reply["block"]["description"]) == ("notes", 2, "x")
    assert rig.text("notes") == MIXED
    save(rig, "notes", NOTES, 1, MIXED)
    assert rig.text("notes") == NOTES
    rig.settle()
    changes = ear.changes()
    assert [(one["author"], one["by"], one["version"]) for one in changes] == [
        ("file", "laptop", 2),
        ("file", "laptop", 3),
    ]
    assert_level(rig, rig.raw)


def test_new_block(rig: Office) -> None:
    """Of version 0; the same again is nothing to do, another text is merged with it."""
    text = "---\r\nagents: [ann] # hers\r\n---\r\nnew\r\n"
    assert save(rig, "deep/new", text, 0)["version"] == 1
    assert rig.text("deep/new") == text
    assert save(rig, "deep/new", text, 0)["version"] == 1
    assert save(rig, "deep/new", text.replace("new", "other"), 0)["version"] == 3
    assert rig.value("deep/new") == "new\nother"
    assert [one[1] for one in history(rig, "deep/new")] == ["merge", "file", "file"]
    assert_level(rig, rig.raw)


def test_save_of_an_older_version_is_merged(rig: Office) -> None:
    """Both texts are in the block, and each is in the history."""
    rig.do("ann", "append", "notes", content="from Ann")
    reply = save(rig, "notes", NOTES.replace("one", "zero\none"), 1, NOTES)
    assert (reply["version"], reply["saved"], reply["block"]["value"]) == (4, 3, "zero\none\nfrom Ann")
    assert rig.text("notes") == NOTES.replace("one", "zero\none\nfrom Ann")
    assert history(rig, "notes")[:2] == [(4, "merge", "laptop", ()), (3, "file", "laptop", ())]
    assert rig.journal.version("notes", 3).block.value == "zero\none"  # type: ignore[union-attr]
    seq = rig.journal.seq
    rig.resync()
    assert rig.journal.seq == seq
    assert_level(rig, rig.raw)


@pytest.mark.parametrize("is_here", [True, False])
def test_comments_of_the_side_that_wrote_them_stay(rig: Office, is_here: bool) -> None:
    """If only the value was changed in the folder, the head is that which was saved; else that of the folder."""
    rig.do("ann", "append", "notes", content="from Ann")
    commented = NOTES.replace("---\n", "---\n# why\n", 1)
    if is_here:
        rig.write("notes", commented.replace("one", "one\nfrom Ann"))
        rig.settle()
    saved = (NOTES if is_here else commented).replace("one", "zero\none")
    save(rig, "notes", saved, 1, NOTES)
    assert rig.text("notes") == commented.replace("one", "zero\none\nfrom Ann")
    assert_level(rig, rig.raw)


def test_conflict_stands_and_is_told(rig: Office) -> None:
    """The text that it takes away is in the history, and can be brought back."""
    rig.do("ann", "replace", "notes", old_content="one", new_content="ONE")
    save(rig, "notes", NOTES.replace("one", "uno"), 1, NOTES)
    assert rig.text("notes") == NOTES.replace("one", "uno")
    assert history(rig, "notes")[0] == (3, "file", "laptop", (2,))


def test_save_that_the_block_has_already(rig: Office) -> None:
    """Nothing happens."""
    rig.do("ann", "append", "notes", content="from Ann")
    seq = rig.journal.seq
    assert save(rig, "notes", NOTES, 1, NOTES)["version"] == 2
    assert (rig.journal.seq, rig.value("notes")) == (seq, "one\nfrom Ann")


def test_editor_that_read_an_older_text_than_its_host_had(rig: Office) -> None:
    """Its save is merged, as one in the folder is; but what was saved on the same host was read."""
    appended = NOTES.replace("one", "one\nfrom Ann")
    rig.do("ann", "append", "notes", content="from Ann")
    save(rig, "notes", NOTES.replace("one", "zero\none"), 2, appended)
    assert rig.value("notes") == "zero\none\nfrom Ann"
    rig.clock.advance(10.0)
    save(rig, "notes", "first\n", 4)
    save(rig, "notes", "second\n", 5)
    assert rig.value("notes") == "second"
    assert history(rig, "notes")[:2] == [(6, "file", "laptop", ()), (5, "file", "laptop", (2,))]


@pytest.mark.parametrize("is_newer", [False, True], ids=["its host has the newest", "another text came meanwhile"])
def test_editor_on_a_host_that_had_an_older_text_a_moment_ago(rig: Office, is_newer: bool) -> None:
    """Its save is merged whenever it comes: it is made of that version since `oldest` which it is most like."""
    rig.do("ann", "append", "notes", content="from Ann")
    rig.save_and_settle("notes", NOTES.replace("one", "one\nfrom Ann\nfrom Bob"))
    had = rig.text("notes")
    rig.clock.advance(60.0)
    if is_newer:
        rig.do("ann", "append", "notes", content="later")
    save(rig, "notes", NOTES.replace("one", "zero\none"), 3, had, oldest=1)
    assert rig.value("notes") == "zero\none\nfrom Ann\nfrom Bob" + ("\nlater" if is_newer else "")
    assert_level(rig, rig.raw)


def test_editor_that_had_read_what_its_host_had(rig: Office) -> None:
    """What it takes away stays away, and is told, however recent it is."""
    rig.do("ann", "append", "notes", content="from Ann")
    had = rig.text("notes")
    save(rig, "notes", NOTES.replace("one", "zero\none"), 2, had, oldest=2)
    assert rig.value("notes") == "zero\none"
    assert history(rig, "notes")[0] == (3, "file", "laptop", (2,))


def test_comment_alone_is_no_revision(rig: Office, ear: Ear) -> None:
    """The file has it, and the mirror shows it."""
    ear.changes()
    text = NOTES.replace("---\n", "---\n# why\n", 1)
    assert save(rig, "notes", text, 1, NOTES)["version"] == 1
    rig.settle()
    assert rig.text("notes") == text
    assert [(one["kind"], one["version"]) for one in ear.changes()] == [("file", 1)]
    assert_level(rig, rig.raw)


def test_deleted_block_is_made_again(rig: Office) -> None:
    """Nothing of the text that somebody edited elsewhere is lost."""
    rig.do("operator", "delete", "notes")
    assert save(rig, "notes", MIXED, 1, NOTES)["version"] == 3
    assert rig.text("notes") == MIXED


def test_renamed_block_gets_what_was_saved_under_its_old_label(rig: Office) -> None:
    """What was appended since stays, too; as a new block, the label is free."""
    rig.do("ann", "append", "notes", content="from Ann")
    rig.do("operator", "rename", "notes", to="other")
    assert save(rig, "notes", NOTES.replace("one", "zero\none"), 1, NOTES)["label"] == "other"
    assert rig.value("other") == "zero\none\nfrom Ann"
    save(rig, "notes", "new\n", 0)
    assert rig.value("notes") == "new"


@pytest.mark.parametrize("version", [7, 10**15])
def test_version_that_is_not_kept(rig: Office, version: int) -> None:
    """What both have is there once, and nothing of either is lost."""
    save(rig, "notes", NOTES.replace("one", "zero\none"), version)
    assert rig.value("notes") == "zero\none"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("---\nagents: [ann\n---\none\n", "not YAML"),
        ("---\nlimit: 2\n---\none\n", "Exceeds character limit"),
        ("---\nlimit: 2\n", "never closed"),
        ("one\n<<<<<<< HEAD\ntwo\n=======\nthree\n>>>>>>> other\n", "conflict"),
        ("one\0", "NUL"),
    ],
)
def test_text_with_a_problem_is_refused(rig: Office, text: str, message: str) -> None:
    """With the words of the problem; nothing has changed."""
    for label, version in (("notes", 1), ("fresh", 0)):
        error = rig.refuse("operator", "save", label, file=text, version=version)
        assert error["code"] == "problem_file"
        assert message in error["message"]
        assert error["hint"]


@pytest.mark.parametrize(
    ("where", "given", "code"),
    [
        ("notes", {"file": "x"}, "invalid_request"),
        ("notes", {"version": 1}, "invalid_request"),
        ("notes", {"file": 1, "version": 1}, "invalid_request"),
        ("notes", {"file": "x", "version": -1}, "invalid_request"),
        ("notes", {"file": "x", "version": True}, "invalid_request"),
        ("notes", {"file": "x", "version": 1, "base": "abc"}, "invalid_request"),
        ("notes", {"file": "x", "version": 1, "more": 1}, "invalid_request"),
        ("../notes", {"file": "x", "version": 0}, "invalid_request"),
        ("NOTES", {"file": "x", "version": 0}, "label_conflict"),
    ],
)
def test_save_that_cannot_be(rig: Office, where: str, given: dict[str, Any], code: str) -> None:
    """It is refused, and changes nothing."""
    assert rig.refuse("operator", "save", where, **given)["code"] == code


def test_agent_may_not_save_files(rig: Office) -> None:
    """Nor is a save part of a batch."""
    assert rig.refuse("ann", "save", "notes", file="x", version=1)["code"] == "invalid_request"
    part = {"op": "save", "label": "notes", "args": {"file": "x", "version": 1}}
    assert rig.refuse("operator", "batch", requests=[part])["code"] == "invalid_request"


def test_file_with_a_problem_is_not_saved_over(rig: Office) -> None:
    """A person is about to correct it."""
    rig.write("notes", "---\nagents: [ann\n---\none\n")
    rig.settle()
    assert rig.refuse("operator", "save", "notes", file=NOTES + "two\n", version=1)["code"] == "problem_file"


def test_properties_of_an_agent(rig: Office) -> None:
    """They are saved as blocks are, and merged property by property."""
    label = "agents/ann/agent.yaml"
    save(rig, label, "# who\nname:  Ann\n", 0)
    assert (rig.root / label).read_text() == "# who\nname:  Ann\n"
    rig.do("operator", "update_agent", agent="ann", description="hers")
    save(rig, label, "# who\nname:  Anne\n", 1, "# who\nname:  Ann\n")
    rig.settle()
    info = rig.raw.hgetall("blocks:agent-info:ann")
    assert (info["name"], info["description"], info["file"]) == ("Anne", "hers", (rig.root / label).read_text())
    assert "# who" in info["file"]
    assert_level(rig, rig.raw)


def test_later_save_in_the_folder_of_an_older_text_is_merged(rig: Office) -> None:
    """An editor in the folder has not seen what came from the other host."""
    save(rig, "notes", NOTES.replace("one", "one\nfrom the laptop"), 1, NOTES)
    rig.write("notes", NOTES.replace("one", "zero\none"))
    rig.settle()
    assert rig.value("notes") == "zero\none\nfrom the laptop"


def test_request_that_is_sent_again_is_done_once(rig: Office) -> None:
    """By its id, and also when the block has changed since."""
    given = {"file": NOTES.replace("one", "zero\none"), "version": 1}
    first = rig.replies(("operator", rig.send("operator", "save", "notes", request_id="s-1", **given)))
    rig.do("ann", "append", "notes", content="from Ann")
    seq = rig.journal.seq
    assert rig.replies(("operator", rig.send("operator", "save", "notes", request_id="s-1", **given))) == first
    assert rig.journal.seq == seq


def crash_and_save(rig: Office, number: int) -> str | None:
    rig.do("ann", "append", "notes", content="from Ann")
    given = {"file": NOTES.replace("one", "zero\none"), "version": 1}
    sent = ("operator", rig.send("operator", "save", "notes", request_id="s-1", **given))
    rig.pass_on()
    at = crashed_at(rig, number, lambda: rig.reply(*sent) is not None)
    if at is not None:
        rig.settle()
        rig.send("operator", "save", "notes", request_id="s-1", **given)
        rig.pass_on()
        rig.run(lambda: not rig.raw.xlen("blocks:inbox:operator"), "the save is done")
    rig.settle()
    rig.raw.delete("blocks:reply:operator:s-1", "blocks:inbox:operator")
    return at


def test_every_crash_of_a_save_is_survived(tmp_path: Path, server: RedisServer, raw: Any) -> None:
    """Wherever it comes, the save is there once, and so is what was appended."""
    seen = []
    for number in range(100):
        raw.flushall()
        rig = Office(tmp_path / str(number), server.url, raw)
        rig.write("notes", NOTES)
        rig.settle()
        at = crash_and_save(rig, number)
        assert rig.text("notes") == NOTES.replace("one", "zero\none\nfrom Ann")
        assert [one[1] for one in history(rig, "notes")] == ["merge", "file", "ann", "file"]
        assert_level(rig, raw)
        rig.close()
        if at is None:
            break
        seen.append(at)
    assert {"stage", "prepare", "put in", "project"} <= set(seen)


@pytest.mark.parametrize("version", [0, 2, 7])
def test_version_of_another_leader_means_nothing(rig: Office, version: int) -> None:
    """It was lost, and its journal: the text that the edit was made of is known by its digest, whatever number it had there."""
    was = "---\nlimit: 900\n---\none\n\ntwo\n\nthree\n"
    rig.save_and_settle("a", was)
    rig.save_and_settle("a", was.replace("one", "ONE"))
    reply = save(rig, "a", was.replace("three", "THREE"), version, was)
    assert (rig.root / "a.md").read_text() == was.replace("one", "ONE").replace("three", "THREE")
    assert reply["saved"] == 3
    assert history(rig, "a")[:2] == [(4, "merge", "laptop", ()), (3, "file", "laptop", ())]
