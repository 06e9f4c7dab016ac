"""The mirror gives back the very bytes of every file, alike on every server."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.mirror.file_form import form_shown
from contract.test_requests import Office
from rig import Ear, assert_level
from support import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import RedisServer

FILES = {
    "plain": b"one\n",
    "empty": b"",
    "line": b"\n",
    "unended": b"one",
    "mark": b"\xef\xbb\xbfone\n\n\n",
    "windows": b"---\r\ndescription: x # why\r\nagents: [ann]\r\n---\r\n\r\none\r\ntwo\r\n",
    "mixed": b"one\r\ntwo\nthree\r",
    "fences": b"---\n---\n---\nlimit: 5\n---\n",
    "bare": b"---\nagents: ann\n---".replace(b"ann", b"['*', ann]"),
    "agents/ann/notes": "---\n# kept\nx-mine: 1\n---\n\u200dé𝄞\u2028\n".encode(),
    "agents/ann/agent.yaml": b"\xef\xbb\xbf# who\r\nname:  Ann\r\n",
}
COMMENTED = "---\n# why\nagents: [ann]\n---\none\n"


@pytest.fixture(params=BACKENDS)
def server(request: pytest.FixtureRequest, standing_server: Callable[[str], RedisServer]) -> RedisServer:
    return standing_server(request.param)


@pytest.fixture
def rig(tmp_path: Path, server: RedisServer, raw: Any) -> Iterator[Office]:
    rig = Office(tmp_path, server.url, raw)
    rig.write("notes", "---\nagents: [ann]\n---\none\n")
    rig.settle()
    yield rig
    rig.close()


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    client = server.client()
    yield client
    client.close()


@pytest.fixture
def ear(rig: Office) -> Iterator[Ear]:
    ear = Ear(rig.raw, "blocks:changes")
    yield ear
    ear.close()


def put(rig: Office, label: str, data: bytes) -> None:
    path = rig.root / (label if label.endswith(".yaml") else f"{label}.md")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    rig.core.intake.hint_file(str(path.relative_to(rig.root)), closed=True)


def shown(raw: Any, label: str) -> bytes:
    """The bytes that the mirror shows of a file."""
    if label.endswith(".yaml"):
        return str(raw.hget(f"blocks:agent-info:{label.split('/')[1]}", "file")).encode()
    fields = raw.hgetall(f"blocks:block:{label}")
    return form_shown(fields).data(fields["value"])


def all_shown(raw: Any) -> dict[str, bytes]:
    return {label: shown(raw, label) for label in FILES}


def test_every_file_is_shown_to_the_byte(rig: Office, raw: Any) -> None:
    """When it is saved, after a start, by a mirror that is built anew, and after a start with another Redis."""
    for label, data in FILES.items():
        put(rig, label, data)
    rig.settle()
    assert all_shown(raw) == FILES
    assert_level(rig, raw)
    rig.crash()
    rig.open()
    rig.settle()
    assert all_shown(raw) == FILES
    raw.flushall()
    rig.settle()
    assert rig.heard.level[-1] == "rebuilt"
    assert all_shown(raw) == FILES
    assert_level(rig, raw)
    rig.crash()
    raw.flushall()
    rig.open()
    rig.settle()
    assert all_shown(raw) == FILES


def test_file_without_frontmatter_needs_no_fields(rig: Office, raw: Any) -> None:
    """What is usual takes nothing."""
    put(rig, "plain", FILES["plain"])
    put(rig, "windows", FILES["windows"])
    rig.settle()
    usual = raw.hgetall("blocks:block:plain").keys()
    assert raw.hgetall("blocks:block:windows").keys() - usual == {"head", "newline", "tail", "description"}


def test_comment_is_no_revision_and_is_shown(rig: Office, raw: Any, ear: Ear) -> None:
    """Subscribers of everything are told, in the stream, too; nobody else; once."""
    seq = rig.journal.seq
    ear.changes()
    rig.write("notes", COMMENTED)
    rig.settle()
    (change,) = ear.changes()
    facts = {"seq": None, "kind": "file", "label": "notes", "version": 1}
    assert change == {**facts, "at": change["at"], "epoch": rig.journal.epoch}
    assert rig.journal.seq == seq
    entry_id, fields = raw.xrevrange("blocks:changes", count=1)[0]
    assert json.loads(fields["change"]) == change
    assert entry_id.startswith(f"{seq}-")
    assert shown(raw, "notes") == COMMENTED.encode()
    os.utime(rig.root / "notes.md")
    rig.resync()
    assert ear.changes() == []
    rig.write("notes", COMMENTED + "two\n")
    rig.settle()
    assert [one["seq"] for one in ear.changes()] == [seq + 1]
    assert_level(rig, raw)


def test_comment_while_redis_is_unreachable(rig: Office, raw: Any) -> None:
    """It is shown when Redis is back; if the daemon starts meanwhile, by the comparison after its start."""
    for is_crash in (False, True):
        rig.core.projector.hold(is_held=True)
        rig.core.projector.is_in_sync = False
        text = COMMENTED.replace("why", f"why {is_crash}")
        rig.write("notes", text)
        for _ in range(5):
            rig.clock.advance(0.1)
            rig.round()
        assert shown(raw, "notes") != text.encode()
        if is_crash:
            rig.crash()
            rig.open()
        rig.core.projector.hold(is_held=False)
        rig.settle()
        if is_crash:
            rig.resync()
        assert shown(raw, "notes") == text.encode()
        assert_level(rig, raw)


@pytest.mark.parametrize("end", ["", "\n"])
def test_request_for_a_file_that_says_the_same_in_another_form(rig: Office, raw: Any, ear: Ear, end: str) -> None:
    """In one round with it: the mirror shows the form of what was asked for, also where the end of the file is usual again."""
    rig.write("notes", f"---\nagents: [ann]\n---\none{end}")
    rig.settle()
    ear.changes()
    rig.write("notes", f"---\n# why\nagents: [ann]\n---\none{end}")
    (rig.root / "notes.md").chmod(0o600)
    assert rig.do("ann", "append", "notes", content="two")["version"] == 2
    rig.settle()
    kinds = [(one["kind"], one["version"]) for one in ear.changes()]
    assert kinds in ([("updated", 2)], [("updated", 2), ("file", 2)])
    assert (shown(raw, "notes"), raw.hget("blocks:block:notes", "mode")) == (rig.read("notes.md"), "600")
    assert_level(rig, raw)


def test_mode_is_shown(rig: Office, raw: Any) -> None:
    """A sweep sees that it was changed; a block that a request makes has the mode of a new file."""
    (rig.root / "notes.md").chmod(0o640)
    rig.resync()
    assert raw.hget("blocks:block:notes", "mode") == "640"
    mask = os.umask(0o077)
    try:
        rig.do("operator", "create", "fresh", value="new")
        assert raw.hget("blocks:block:fresh", "mode") == "600"
    finally:
        os.umask(mask)
    assert_level(rig, raw)


def test_path_is_shown_if_it_is_spelled_otherwise(rig: Office, raw: Any) -> None:
    """A label is in NFC, and a file may be in NFD; a file that is moved takes its form along."""
    put(rig, "cafe\u0301", COMMENTED.encode())
    rig.settle()
    assert raw.hget("blocks:block:caf\u00e9", "path") == "cafe\u0301.md"
    (rig.root / "cafe\u0301.md").rename(rig.root / "tea.md")
    rig.core.compare_soon()
    rig.settle()
    assert shown(raw, "tea") == COMMENTED.encode()
    assert not raw.hexists("blocks:block:tea", "path")
    assert_level(rig, raw)


def test_form_of_a_file_with_a_problem_stays(rig: Office, raw: Any) -> None:
    """As its last good version does: until it is in order again, also in a mirror that is built anew meanwhile."""
    rig.write("notes", COMMENTED)
    rig.settle()
    rig.write("notes", "---\nagents: [ann\n---\none\n")
    rig.settle()
    assert shown(raw, "notes") == COMMENTED.encode()
    raw.flushall()
    rig.settle()
    assert shown(raw, "notes") == COMMENTED.encode()


def test_symlink_shows_its_target(rig: Office, raw: Any) -> None:
    """The bytes and the mode of the file that it leads to."""
    target = rig.root / "target.txt"
    target.write_text(COMMENTED)
    target.chmod(0o600)
    (rig.root / "link.md").symlink_to("target.txt")
    rig.core.compare_soon()
    rig.settle()
    assert shown(raw, "link") == COMMENTED.encode()
    assert raw.hget("blocks:block:link", "mode") == "600"


def test_writes_on_request_change_the_form(rig: Office, raw: Any) -> None:
    """Of a value, the head stays as it is; of a field, it is the file's as it was written; a renamed file keeps it."""
    rig.write("notes", COMMENTED)
    rig.settle()
    rig.do("operator", "append", "notes", content="two")
    assert shown(raw, "notes") == (COMMENTED + "two\n").encode()
    rig.do("operator", "update", "notes", description="why not")
    text = (rig.root / "notes.md").read_bytes()
    assert b"why not" in text
    assert b"# why\n" in text
    assert shown(raw, "notes") == text
    rig.do("operator", "rename", "notes", to="other")
    assert shown(raw, "other") == text
    raw.flushall()
    rig.settle()
    assert shown(raw, "other") == text
    rig.do("operator", "delete", "other")
    rig.do("operator", "undo", "other")
    assert shown(raw, "other") == (rig.root / "other.md").read_bytes()
    assert_level(rig, raw)


@pytest.mark.parametrize(
    "damage",
    [("hdel", "head"), ("hset", "head", "---\nlimit: 5\n---\n"), ("hset", "tail", ""), ("hset", "mode", "777")],
)
def test_damage_to_a_form_is_repaired(rig: Office, raw: Any, damage: tuple[str, ...]) -> None:
    """It is compared as all that the mirror shows."""
    command, *words = damage
    getattr(raw, command)("blocks:block:notes", *words)
    rig.resync()
    assert shown(raw, "notes") == (rig.root / "notes.md").read_bytes()
    assert_level(rig, raw)
