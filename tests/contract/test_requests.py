"""Requests through the whole daemon, on a real server: what is asked for is in file, journal and mirror, or nowhere."""

from __future__ import annotations

import itertools
import json
import os
import stat
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocksd.errors import JournalUnusable, MergeConflict, Unavailable
from blocksd.files import writer as writing
from blocksd.files.file_edit import Postponed
from blocksd.files.root import Root
from blocksd.journal.intents import Intents
from blocksd.journal.results import Results
from blocksd.mirror.script import Script
from blocksd.requests import queries
from blocksd.requests.changeset import Changeset
from blocksd.requests.request import OPS, Entry
from parsed import parse
from rig import Ear, Rig, assert_level, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import RedisServer

NOTES = "---\n# who may see it\nagents: [ann,  bob]   # two of them\ntags: ['x', \"y\"]\n---\none\n"


@pytest.fixture
def server(standing_server: Callable[[str], RedisServer]) -> RedisServer:
    return standing_server("valkey")


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    client: Any = server.client()
    yield client
    client.close()


class Office(Rig):
    """A daemon with somebody who asks it for things, as any client of Redis can."""

    numbers = itertools.count(1)

    def __init__(self, home: Path, url: str, raw: Any, **settings: Any) -> None:
        self.raw = raw
        super().__init__(home, url, **settings)

    def send(
        self, actor: str, op: str, where: str | None = None, *, request_id: str | None = None, **given: Any
    ) -> str:
        """Put a request into an inbox. `where` is a label for the operator, a name for an agent; `args` are `given`."""
        keys: dict[str, Any] = {
            key: given.pop(key) for key in ("expect", "on_conflict", "deadline", "by") if key in given
        }
        if isinstance(keys.get("expect"), int):
            keys["expect"] = {"version": keys["expect"]}
        request_id = request_id or f"r-{next(self.numbers)}"
        request = {"id": request_id, "op": op, "args": given, **keys}
        if where is not None:
            request["label" if actor == "operator" else "name"] = where
        self.raw.xadd(f"blocks:inbox:{actor}", {"request": json.dumps(request, ensure_ascii=False)})
        return request_id

    def pass_on(self) -> None:
        """What the reader does: hand over all that is in the inboxes."""
        for key in sorted(self.raw.scan_iter("blocks:inbox:*")):
            actor = key.removeprefix("blocks:inbox:")
            self.core.inbox.add(Entry(actor, one, fields.get("request")) for one, fields in self.raw.xrange(key))

    def reply(self, actor: str, request_id: str) -> dict[str, Any] | None:
        texts = self.raw.lrange(f"blocks:reply:{actor}:{request_id}", 0, -1)
        assert len(texts) < 2, "replied once"
        return json.loads(texts[0]) if texts else None

    def replies(self, *sent: tuple[str, str]) -> list[dict[str, Any]]:
        """What is replied to requests (actor, id) that were sent, in one round if that can be."""
        self.pass_on()
        self.run(lambda: all(self.reply(*one) for one in sent), f"replies to {sent}")
        found = [self.reply(*one) for one in sent]
        for actor, request_id in sent:
            self.raw.delete(f"blocks:reply:{actor}:{request_id}")
            if not self.raw.xlen(f"blocks:inbox:{actor}"):
                self.raw.delete(f"blocks:inbox:{actor}")
        return [one for one in found if one is not None]

    def ask(self, actor: str, op: str, where: str | None = None, **given: Any) -> dict[str, Any]:
        (reply,) = self.replies((actor, self.send(actor, op, where, **given)))
        assert not self.raw.exists(f"blocks:inbox:{actor}")
        return reply

    def do(self, actor: str, op: str, where: str | None = None, **given: Any) -> dict[str, Any]:
        reply = self.ask(actor, op, where, **given)
        assert reply["ok"], reply
        return reply

    def refuse(self, actor: str, op: str, where: str | None = None, **given: Any) -> dict[str, Any]:
        """Why it is refused; nothing at all has changed by it."""
        before = self.everything()
        reply = self.ask(actor, op, where, **given)
        assert not reply["ok"], reply
        assert self.everything() == before
        error: dict[str, Any] = reply["error"]
        assert error["message"]
        return error

    def everything(self) -> dict[str, Any]:
        """Files to the byte, inode and mode, the journal and the mirror; all but what went to and fro with requests."""
        return {
            "files": {name: (self.read(name), os.stat(self.root / name).st_ino) for name in self.lasting()},
            "revisions": self.journal.since(0, 10_000),
            "heads": sorted((head.label, head.version, head.path) for head in self.journal.heads()),
            "prepared": Intents(self.journal).prepared(),
            "mirror": shown(self.raw),
            "announced": self.raw.xlen("blocks:changes"),
        }

    def names(self) -> list[str]:
        """Every file and directory below the folder, hidden ones included."""
        found = []
        for where, directories, files in os.walk(self.root):
            found += [os.path.relpath(os.path.join(where, name), self.root) for name in (*directories, *files)]
        return sorted(found)

    def lasting(self) -> list[str]:
        """The same, but for what is kept until the journal is on disk."""
        return [name for name in self.names() if not self.core.executor.needs(name)]

    def temporaries(self) -> list[str]:
        return [name for name in self.lasting() if ".blocksd" in name]

    def read(self, name: str) -> bytes | None:
        path = self.root / name
        return path.read_bytes() if path.is_file() else None

    def text(self, label: str) -> str:
        return (self.root / f"{label}.md").read_bytes().decode()

    def value(self, label: str) -> str:
        """The value, which file, journal and mirror agree on."""
        self.settle()
        head = self.journal.head(label)
        assert head is not None
        assert head.block is not None
        assert parse((self.root / f"{label}.md").read_bytes(), label) == head.block
        assert self.raw.hget(f"blocks:block:{label}", "value") == head.block.value
        return head.block.value

    def versions(self, label: str) -> list[tuple[int, str, str | None]]:
        """Version, author and value of all that is in the history, newest first."""
        return [
            (one.version, one.author, one.block.value if one.block is not None else None)
            for one in self.journal.history(label)
        ]

    def problem(self, subject: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.raw.hget("blocks:problems", subject))
        return found


@pytest.fixture
def make(tmp_path: Path, server: RedisServer, raw: Any) -> Iterator[Callable[..., Office]]:
    made: list[Office] = []

    def office(name: str = "one", **options: Any) -> Office:
        made.append(Office(tmp_path / name, server.url, raw, **options))
        return made[-1]

    yield office
    for one in made:
        assert one.temporaries() == []
        one.crash()


@pytest.fixture
def rig(make: Callable[..., Office]) -> Office:
    """Two agents with a persona each; a block for both, one for both that is read-only, and one for Bob."""
    made = make()
    made.write("notes", NOTES)
    made.write("policy", "---\nread_only: true\nagents: '*'\n---\nlaw\n")
    made.write("other", "---\nagents: [bob]\n---\nfor Bob\n")
    made.write("agents/ann/persona", "I am Ann.\n")
    made.write("agents/bob/persona", "I am Bob.\n")
    made.settle()
    return made


@pytest.fixture
def ear(raw: Any, rig: Rig) -> Iterator[Ear]:  # noqa: ARG001  # the rig is level first
    heard = Ear(raw, "blocks:changes")
    yield heard
    heard.close()


# --- what each operation does ---

LINES = "one\ntwo\nthree"

TEXT_OPS: dict[str, tuple[str, dict[str, Any], str]] = {
    "append": ("append", {"content": "four"}, "one\ntwo\nthree\nfour"),
    "append with carriage returns": ("append", {"content": "a\r\nb\rc"}, "one\ntwo\nthree\na\nb\nc"),
    "replace": ("replace", {"old_content": "two", "new_content": "\t2"}, "one\n\t2\nthree"),
    "insert first": ("insert", {"content": "zero", "line": 0}, "zero\none\ntwo\nthree"),
    "insert in between": ("insert", {"content": "x", "line": 2}, "one\ntwo\nx\nthree"),
    "insert last": ("insert", {"content": "end"}, "one\ntwo\nthree\nend"),
    "patch": ("patch", {"patch": "@@ -2 +2 @@\n-two\n+2\n"}, "one\n2\nthree"),
    "update": ("update", {"value": "new\n\n"}, "new\n\n"),
    "update to nothing": ("update", {"value": ""}, ""),
    "update to the default": ("update", {"value": None}, ""),
}


def test_who_the_operator_is_stays_with_every_revision(rig: Office, ear: Ear) -> None:
    """In changes, history and journal, of each block that a request changes; nothing else is signed."""
    rig.save_and_settle("notes", "---\nagents: '*'\n---\none\n")
    ear.messages()
    rig.do("operator", "create_agent", agent="sam", by="Zoë")
    rig.do("operator", "append", "notes", content="two", by="Zoë")
    rig.do("operator", "append", "notes", content="three")
    rig.do("operator", "batch", requests=[{"op": "undo", "label": "notes"}], by="Bob")
    rig.do("sam", "append", "notes", content="four")
    rig.do("operator", "rename", "notes", to="minutes", by="Zoë")
    rig.do("operator", "delete", "minutes", by="安")
    signed = [(change["label"], change["author"], change.get("by", "-")) for change in ear.changes()]
    assert signed == [
        ("agents/sam/persona", "operator", "Zoë"),
        ("agents/sam/human", "operator", "Zoë"),
        ("notes", "operator", "Zoë"),
        ("policy", "operator", "Zoë"),
        ("notes", "operator", "Zoë"),
        ("notes", "operator", "-"),
        ("notes", "operator", "Bob"),
        ("notes", "sam", "-"),
        ("minutes", "operator", "Zoë"),
        ("minutes", "operator", "安"),
    ]
    told = rig.do("operator", "history", "minutes")["versions"]
    assert [one["by"] for one in told[:8]] == ["安", "Zoë", None, "Bob", None, "Zoë", "Zoë", None]
    assert rig.do("operator", "version", "minutes", version=told[0]["version"])["by"] == "安"
    assert [one.by for one in rig.journal.history("minutes")] == [one["by"] for one in told]


def test_request_under_another_name_is_another_one(rig: Office) -> None:
    """Sent again as it was, it is done once; under the same id by another, it is refused."""
    rig.save_and_settle("notes", "one\n")
    first = rig.do("operator", "append", "notes", request_id="a", content="two", by="Zoë")
    assert rig.do("operator", "append", "notes", request_id="a", content="two", by="Zoë") == first
    assert rig.refuse("operator", "append", "notes", request_id="a", content="two", by="Bob")["field"] == "id"
    assert rig.refuse("ann", "append", "notes", content="two", by="Bob")["field"] == "by"


@pytest.mark.parametrize("actor", ["operator", "ann"])
@pytest.mark.parametrize(("op", "args", "after"), TEXT_OPS.values(), ids=TEXT_OPS)
def test_text_is_changed(rig: Office, ear: Ear, actor: str, op: str, args: dict[str, Any], after: str) -> None:
    """By operators and agents alike: one revision, one change, a reply that shows the block; the rest of the file stays."""
    rig.save_and_settle("notes", NOTES.replace("one", LINES))
    ear.messages()
    seq = rig.journal.seq
    reply = rig.do(actor, op, "notes", **args)
    assert (reply["label"], reply["seq"], reply["version"]) == ("notes", seq + 1, 3)
    assert (reply["block"]["value"], reply["block"]["version"]) == (after, 3)
    assert reply["block"]["updated_by"] == actor
    assert rig.value("notes") == after
    assert rig.text("notes").startswith(NOTES.removesuffix("one\n"))
    (change,) = ear.changes()
    assert (change["kind"], change["label"], change["author"]) == ("updated", "notes", actor)
    assert (change["fields"], change["request_id"]) == (["value"], reply["id"])
    assert_level(rig, rig.raw)


def test_block_is_created(rig: Office, ear: Ear) -> None:
    """With any field; the file names what is not default, and agents that were not known are."""
    fields: dict[str, Any] = {
        "value": "v",
        "description": "d",
        "limit": 50,
        "read_only": True,
        "hidden": True,
        "tags": ["t"],
        "metadata": {"a": [1, None, "x"]},
        "agents": ["ann", "new-*", "carl"],
        "template_name": "n",
        "is_template": True,
    }
    block = rig.do("operator", "create", "a/b/new", **fields)["block"]
    assert {key: block[key] for key in fields if key != "agents"} == {k: v for k, v in fields.items() if k != "agents"}
    assert rig.value("a/b/new") == "v"
    assert rig.raw.smembers("blocks:attached:a/b/new") == {"ann", "carl"}
    changes = ear.changes()
    assert [(change["kind"], change["label"]) for change in changes] == [("created", "a/b/new"), ("updated", "policy")]
    assert changes[0]["attached"] == ["ann", "carl"]
    assert_level(rig, rig.raw)


def test_empty_block_is_created(rig: Office) -> None:
    """Nothing need be said of a block but its label."""
    block = rig.do("operator", "create", "new")["block"]
    assert (block["value"], block["limit"], block["description"]) == ("", 20000, None)
    assert rig.value("new") == ""
    assert "memory block" not in rig.text("new")


def test_agent_creates_a_block_of_its_own(rig: Office) -> None:
    """Under its own name for it, below its private folder; it alone is attached."""
    reply = rig.do("ann", "create", "diary/today", value="dear", description="mine")
    assert reply["label"] == "agents/ann/diary/today"
    assert rig.value("agents/ann/diary/today") == "dear"
    assert rig.raw.hget("blocks:agent:ann", "diary/today") == "agents/ann/diary/today"
    rig.do("ann", "append", "diary/today", content="diary")
    assert rig.value("agents/ann/diary/today") == "dear\ndiary"
    assert_level(rig, rig.raw)


def test_private_block_makes_its_agent_known(rig: Office) -> None:
    """At once: it may act in the same moment."""
    rig.do("operator", "create", "agents/zoe/diary", value="x")
    assert rig.raw.zscore("blocks:agents", "zoe") == 0
    assert "zoe" in rig.raw.smembers("blocks:attached:policy")
    rig.settle()
    assert_level(rig, rig.raw)


def test_fields_are_updated(rig: Office, ear: Ear) -> None:
    """Those that are named; null puts one back to its default, and its line is gone."""
    rig.do("operator", "update", "notes", limit=10, description="d", metadata={"k": 1})
    block = parse((rig.root / "notes.md").read_bytes(), "notes")
    assert (block.limit, block.description, block.metadata, block.agents) == (10, "d", {"k": 1}, ("ann", "bob"))
    rig.do("operator", "update", "notes", limit=None, description=None, metadata=None, tags=["x", "y"])
    assert rig.text("notes") == NOTES
    assert [change["fields"] for change in ear.changes()] == [["description", "limit", "metadata"]] * 2
    assert_level(rig, rig.raw)


def test_agent_updates_its_description(rig: Office) -> None:
    """Besides the value, that is what it may change."""
    assert rig.do("ann", "update", "notes", description="mine")["block"]["description"] == "mine"
    assert rig.do("ann", "update", "notes", description=None, value="x")["block"]["description"] is None
    rig.settle()
    assert_level(rig, rig.raw)


def test_block_is_deleted(rig: Office, ear: Ear) -> None:
    """Its file and all of its keys are gone, its history is not; the version goes on when it comes again."""
    reply = rig.do("operator", "delete", "notes")
    assert (reply["version"], reply["block"]) == (2, None)
    assert not (rig.root / "notes.md").exists()
    assert not rig.raw.exists("blocks:block:notes", "blocks:attached:notes")
    (change,) = ear.changes()
    assert (change["kind"], change["author"], change["detached"]) == ("deleted", "operator", ["ann", "bob"])
    assert_level(rig, rig.raw)
    assert rig.refuse("operator", "append", "notes", content="x")["code"] == "not_found"
    assert rig.do("operator", "create", "notes", value="again")["version"] == 3
    assert [version for version, _, _ in rig.versions("notes")] == [3, 2, 1]


def test_agent_deletes_its_own_block(rig: Office) -> None:
    """And no other; it can bring it back."""
    rig.do("ann", "delete", "persona")
    assert not (rig.root / "agents/ann/persona.md").exists()
    assert rig.refuse("ann", "delete", "persona")["code"] == "not_found"
    assert rig.refuse("ann", "delete", "notes")["code"] == "invalid_request"
    assert rig.do("ann", "undo", "persona")["block"]["value"] == "I am Ann."
    assert rig.value("agents/ann/persona") == "I am Ann."
    assert_level(rig, rig.raw)


def test_block_is_attached_and_detached(rig: Office, ear: Ear) -> None:
    """Only the list in the file changes; who is attached already is not listed again."""
    rig.do("operator", "attach", "notes", agents=["carl", "ann", "carl"])
    assert rig.raw.smembers("blocks:attached:notes") == {"ann", "bob", "carl"}
    assert parse((rig.root / "notes.md").read_bytes(), "notes").agents == ("ann", "bob", "carl")
    rig.do("operator", "detach", "notes", agents=["carl"])
    assert rig.raw.smembers("blocks:attached:notes") == {"ann", "bob"}
    assert not rig.raw.exists("blocks:agent:carl")
    assert rig.text("notes").replace("[ann, bob]", "[ann,  bob]") == NOTES
    said = [(one["label"], one["attached"], one["detached"]) for one in ear.changes()]
    assert ("notes", ["carl"], []) in said
    assert ("notes", [], ["carl"]) in said
    rig.settle()
    assert_level(rig, rig.raw)


def test_last_agent_is_detached(rig: Office) -> None:
    """Nobody is a set as any other."""
    rig.do("operator", "detach", "notes", agents=["ann", "bob"])
    assert not rig.raw.exists("blocks:attached:notes")
    assert parse((rig.root / "notes.md").read_bytes(), "notes").agents == ()
    assert "# who may see it" in rig.text("notes")


def test_patterns_are_not_undone_by_a_detachment(rig: Office) -> None:
    """Who is attached by a pattern cannot be taken out of it; the refusal names the pattern."""
    error = rig.refuse("operator", "detach", "policy", agents=["ann"])
    assert (error["code"], error["field"]) == ("invalid_request", "args.agents")
    assert "'*'" in error["message"]
    reply = rig.do("operator", "attach", "policy", agents=["ann"])
    assert reply["version"] == 1  # it is attached already
    error = rig.refuse("operator", "detach", "other", agents=["ann"])
    assert (error["code"], error["agent"]) == ("not_attached", "ann")


# --- undo, redo, restore ---


# --- reading ---


def versions_of(reply: dict[str, Any]) -> list[int]:
    return [one["version"] for one in reply["versions"]]


def test_history_is_read_by_request(rig: Office) -> None:
    """Versions come newest first, as the journal has them, in pages; nothing is kept of it, and nothing changes."""
    for number in range(4):
        rig.do("ann", "append", "notes", content=str(number))
    rig.do("operator", "rename", "notes", to="diary")
    rig.do("operator", "delete", "diary")
    before = rig.everything()
    outcomes = rig.journal.database.execute("SELECT count(*) FROM requests").fetchone()
    reply = rig.do("operator", "history", "diary")
    assert (reply["label"], versions_of(reply), reply["damaged"], reply["next"]) == (
        "diary",
        [7, 6, 5, 4, 3, 2, 1],
        [],
        None,
    )
    newest, renamed, edited = reply["versions"][:3]
    assert (newest["kind"], newest["chars"], newest["detached"]) == ("deleted", None, ["ann", "bob"])
    assert (renamed["kind"], renamed["from"], renamed["label"]) == ("renamed", "notes", "diary")
    assert (edited["author"], edited["fields"], edited["chars"]) == ("ann", ["value"], len("one\n0\n1\n2\n3"))
    assert "block" not in edited
    pages = [rig.do("operator", "history", "diary", limit=3)]
    while pages[-1]["next"] is not None:
        pages.append(rig.do("operator", "history", "diary", limit=3, before=pages[-1]["next"]))
    assert [versions_of(page) for page in pages] == [[7, 6, 5], [4, 3, 2], [1]]
    assert rig.everything() == before
    assert rig.journal.database.execute("SELECT count(*) FROM requests").fetchone() == outcomes


def test_version_is_read_by_request(rig: Office) -> None:
    """With all its fields, and under the label it had then; one that is not kept is told from a block that never was."""
    rig.do("operator", "update", "notes", value="two", description="d")
    rig.do("operator", "rename", "notes", to="diary")
    reply = rig.do("operator", "version", "diary", version=1)
    assert (reply["label"], reply["version"], reply["block"]["value"]) == ("notes", 1, "one")
    assert rig.do("operator", "version", "diary", version=2)["block"]["description"] == "d"
    assert rig.refuse("operator", "version", "diary", version=9)["message"] == "version 9 of 'diary' is not kept"
    assert rig.refuse("operator", "version", "dairy", version=1)["near"] == ["diary"]
    assert rig.refuse("operator", "history", "dairy")["code"] == "not_found"
    assert rig.refuse("operator", "version", "diary")["field"] == "args.version"
    assert rig.refuse("operator", "history", "diary", before=0)["field"] == "args.before"
    assert rig.refuse("operator", "history", "diary", version=1)["message"].startswith("history takes no argument")


def test_agents_read_what_they_see(rig: Office) -> None:
    """Their private blocks, deleted ones, too, and those attached to them; of others they learn nothing."""
    rig.do("ann", "create", "scratch", value="x")
    rig.do("ann", "delete", "scratch")
    assert versions_of(rig.do("ann", "history", "scratch")) == [2, 1]
    assert rig.do("ann", "version", "persona", version=1)["block"]["value"] == "I am Ann."
    assert rig.do("ann", "version", "policy", version=1)["label"] == "policy"
    for name in ("other", "nothing"):
        for op, args in (("history", {}), ("version", {"version": 1})):
            error = rig.refuse("ann", op, name, **args)
            assert (error["code"], error["message"]) == ("not_found", f"'ann' has no block {name!r}")


def test_reading_sees_what_was_done_before_it(rig: Office) -> None:
    """Requests that come together are done in order: a version that is made in the same round is read."""
    sent = [
        ("ann", rig.send("ann", "append", "notes", content="two")),
        ("ann", rig.send("ann", "history", "notes")),
        ("ann", rig.send("ann", "version", "notes", version=2)),
    ]
    _, history, version = rig.replies(*sent)
    assert versions_of(history) == [2, 1]
    assert version["block"]["value"] == "one\ntwo"


def test_large_versions_come_a_few_at_a_time(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply reads no more text than a round may, however many versions are asked for."""
    monkeypatch.setattr(queries, "_MOST_CHARS", 1000)
    monkeypatch.setattr(queries, "_AT_ONCE", 2)
    for number in range(7):
        rig.do("operator", "update", "notes", value=str(number) * 600)
    pages = [rig.do("operator", "history", "notes", limit=1000)]
    while pages[-1]["next"] is not None:
        pages.append(rig.do("operator", "history", "notes", limit=1000, before=pages[-1]["next"]))
    assert [versions_of(page) for page in pages] == [[8, 7], [6, 5], [4, 3], [2, 1]]


def test_status_is_read_by_request(rig: Office) -> None:
    """It is what the service says; in a batch, nothing is read."""
    rig.core.requests.status = lambda: {"blocks": 5}
    assert rig.do("operator", "status")["status"] == {"blocks": 5}
    assert rig.do("ann", "status")["status"] == {"blocks": 5}
    for op in ("history", "version", "status", "accept_deletions"):
        refused = rig.refuse("operator", "batch", requests=[{"op": op, "label": "notes"}])
        assert refused["message"] == f"{op} cannot be part of a batch"


def test_deletions_are_accepted_by_request(rig: Office) -> None:
    """Those that are held back: by the operator, and not by an agent; where none are, that is said."""
    assert rig.do("operator", "accept_deletions")["accepted"] is None
    labels = [f"many/{number}" for number in range(30)]
    for label in labels:
        rig.write(label, "x\n")
    rig.settle()
    for label in labels:
        rig.remove(label)
    rig.run(lambda: rig.core.problems.get("<folder>") is not None, "deletions are held back")
    assert "may not" in rig.refuse("ann", "accept_deletions")["message"]
    assert rig.core.problems.get("<folder>") is not None
    assert rig.do("operator", "accept_deletions")["accepted"] == 30
    rig.run(lambda: "many/1" not in rig.core.state.paths, "the deletions are done")
    assert rig.core.problems.get("<folder>") is None


def test_edits_are_undone_and_redone(rig: Office) -> None:
    """One after the other, each as a revision of its own, until there is nothing left."""
    for word in ("two", "three"):
        rig.do("ann", "append", "notes", content=word)
    assert rig.do("operator", "undo", "notes")["block"]["value"] == "one\ntwo"
    assert rig.do("ann", "undo", "notes")["block"]["value"] == "one"
    assert rig.refuse("operator", "undo", "notes")["code"] == "invalid_request"
    assert rig.do("operator", "redo", "notes")["block"]["value"] == "one\ntwo"
    assert rig.do("operator", "redo", "notes")["block"]["value"] == "one\ntwo\nthree"
    assert rig.refuse("operator", "redo", "notes")["code"] == "invalid_request"
    rig.do("operator", "undo", "notes")
    rig.do("ann", "append", "notes", content="else")
    assert rig.refuse("operator", "redo", "notes")["code"] == "invalid_request"
    assert rig.do("operator", "undo", "notes")["block"]["value"] == "one\ntwo"
    assert [version for version, _, _ in rig.versions("notes")] == list(range(len(rig.versions("notes")), 0, -1))
    assert rig.value("notes") == "one\ntwo"
    assert rig.text("notes").startswith(NOTES.removesuffix("one\n"))


def test_another_version_is_told_before_nothing_to_redo(rig: Office) -> None:
    """Who expects another version is told of that first: what there is to undo or redo may be another thing then."""
    rig.do("ann", "append", "notes", content="two")
    for op in ("undo", "redo"):
        assert rig.refuse("operator", op, "notes", expect=1)["code"] == "version_conflict"
    assert rig.refuse("operator", "redo", "notes", expect=2)["code"] == "invalid_request"


def test_undo_repairs_a_file_that_is_not_in_force(rig: Office) -> None:
    """What is undone is the save with a problem: the file says again what is in force, and the text lies beside it."""
    rig.do("ann", "append", "notes", content="two")
    broken = "---\nlimit: many\n---\nmy long thoughts\n"
    rig.save_and_settle("notes", broken)
    seq = rig.journal.seq
    assert rig.problem("notes.md")["code"] == "problem_file"
    assert rig.refuse("ann", "undo", "notes")["code"] == "problem_file"
    reply = rig.do("operator", "undo", "notes")
    assert (reply["version"], reply["block"]["value"], reply["rejected"]) == (2, "one\ntwo", "notes.md.rejected")
    assert (rig.root / "notes.md.rejected").read_text() == broken
    rig.settle()
    assert rig.journal.seq == seq
    assert not rig.raw.hexists("blocks:problems", "notes.md")
    assert rig.value("notes") == "one\ntwo"
    assert b"agents:" in (rig.read("notes.md") or b"")
    assert_level(rig, rig.raw)
    assert rig.do("operator", "undo", "notes")["block"]["value"] == "one"


def test_restore_repairs_a_file_that_is_not_in_force(rig: Office) -> None:
    """The file says the older version, whatever its problem was; no text that lies beside it is replaced."""
    rig.do("ann", "append", "notes", content="two")
    for number, broken in enumerate(("---\nlimit: many\n---\n", "---\n", "---\nlimit: 1\n---\ntoo long\n"), 1):
        rig.save_and_settle("notes", broken)
        reply = rig.do("operator", "restore", "notes", version=1)
        assert reply["block"]["value"] == "one"
        name = "notes.md.rejected" + (f"-{number}" if number > 1 else "")
        assert reply["rejected"] == name
        assert (rig.root / name).read_text() == broken
        rig.settle()
        assert not rig.raw.hexists("blocks:problems", "notes.md")
    assert rig.value("notes") == "one"
    assert_level(rig, rig.raw)


@pytest.mark.parametrize(("op", "given"), [("undo", {}), ("restore", {"version": 1})])
def test_file_of_a_deleted_block_that_came_back_with_a_problem_is_repaired(
    rig: Office, op: str, given: dict[str, Any]
) -> None:
    """The block is there again as it was, the text lies beside its file, and only the operator may ask for it."""
    broken = "---\nlimit: many\n---\nfrom a backup\n"
    rig.do("operator", "delete", "notes")
    rig.save_and_settle("notes", broken)
    assert rig.problem("notes.md")["code"] == "problem_file"
    seq = rig.journal.seq
    rig.refuse("ann", op, "notes", **given)
    assert rig.refuse("operator", "create", "notes", value="x")["code"] == "problem_file"
    assert rig.refuse("operator", "restore", "notes", version=2)["code"] == "invalid_request"  # it is the deletion
    assert (rig.journal.seq, rig.text("notes"), (rig.root / "notes.md.rejected").exists()) == (seq, broken, False)
    reply = rig.do("operator", op, "notes", **given)
    assert (reply["version"], reply["block"]["value"], reply["rejected"]) == (3, "one", "notes.md.rejected")
    assert (rig.root / "notes.md.rejected").read_text() == broken
    rig.settle()
    rig.resync()
    assert rig.journal.seq == seq + 1
    assert not rig.raw.hexists("blocks:problems", "notes.md")
    assert rig.value("notes") == "one"
    assert_level(rig, rig.raw)


@pytest.mark.parametrize("is_deleted", [False, True])
def test_repair_survives_every_crash(make: Callable[..., Office], raw: Any, is_deleted: bool) -> None:
    """Before any durable effect: asked again, the file says what is in force, and no text of it is lost."""
    broken = "---\nlimit: many\n---\nmy long thoughts\n"
    seen: set[str | None] = set()
    for number in itertools.count():
        raw.flushall()
        rig = make(f"run{number}")
        rig.save_and_settle("notes", "one\n")
        if is_deleted:
            rig.do("operator", "delete", "notes")
        rig.save_and_settle("notes", broken)
        rig.send("operator", "undo", "notes", request_id="same")
        rig.pass_on()
        at = crashed_at(rig, number, lambda rig=rig: rig.reply("operator", "same"))  # type: ignore[misc]  # rig is bound
        seen.add(at)
        rig.raw.delete("blocks:reply:operator:same")
        rig.settle()
        rig.send("operator", "undo", "notes", request_id="same")
        rig.pass_on()
        rig.run(lambda rig=rig: not rig.raw.xlen("blocks:inbox:operator"), "all is done")  # type: ignore[misc]  # as above
        rig.raw.delete("blocks:reply:operator:same", "blocks:inbox:operator")
        rig.resync()
        assert rig.value("notes") == "one", at
        assert (rig.root / "notes.md.rejected").read_text() == broken, at
        assert rig.temporaries() == [], at
        assert Intents(rig.journal).prepared() is None
        assert_level(rig, raw)
        rig.close()
        if at is None:
            break
    assert {"stage", "prepare", "put in", "finish"} <= seen


def test_save_is_undone(rig: Office) -> None:
    """What a person saved is an edit like any other; what undo writes is not taken for another save."""
    rig.save_and_settle("notes", NOTES.replace("one", "saved"))
    assert rig.do("operator", "undo", "notes")["block"]["value"] == "one"
    seq = rig.journal.seq
    rig.resync()
    assert rig.journal.seq == seq
    assert rig.do("operator", "redo", "notes")["block"]["value"] == "saved"


def test_deletion_is_undone(rig: Office) -> None:
    """By a person or by request; the block is as it was, attached to whom it was."""
    rig.do("operator", "delete", "notes")
    assert rig.do("operator", "undo", "notes")["block"]["value"] == "one"
    assert rig.raw.smembers("blocks:attached:notes") == {"ann", "bob"}
    rig.remove("notes")
    rig.settle()
    assert rig.do("operator", "undo", "notes")["block"]["value"] == "one"
    assert rig.value("notes") == "one"
    assert_level(rig, rig.raw)


def test_agents_that_come_do_not_stand_in_the_way_of_undo(rig: Office) -> None:
    """A revision that only expands a pattern is no edit."""
    rig.save_and_settle("policy", "---\nread_only: true\nagents: '*'\n---\nlaw\nmore\n")
    rig.do("operator", "create_agent", agent="carl")
    rig.do("operator", "create_agent", agent="dora")
    assert "dora" in rig.raw.smembers("blocks:attached:policy")
    assert rig.do("operator", "undo", "policy")["block"]["value"] == "law"
    rig.do("operator", "create_agent", agent="eve")
    assert rig.do("operator", "redo", "policy")["block"]["value"] == "law\nmore"
    assert rig.do("operator", "undo", "policy")["block"]["value"] == "law"
    assert rig.refuse("operator", "undo", "policy")["code"] == "invalid_request"
    assert rig.raw.smembers("blocks:attached:policy") == {"ann", "bob", "carl", "dora", "eve"}


def test_edits_are_undone_past_a_renaming(rig: Office) -> None:
    """Which is no edit itself: the label stays, whatever is undone and redone; the same through crash and restart."""
    rig.do("ann", "append", "notes", content="two")
    rig.do("operator", "create", "team/minutes", value="of old")
    rig.do("operator", "append", "team/minutes", content="of old")
    rig.do("operator", "delete", "team/minutes")
    assert rig.do("operator", "rename", "notes", to="team/minutes")["version"] == 4
    rig.do("operator", "append", "team/minutes", content="three")
    assert rig.do("operator", "undo", "team/minutes")["block"]["value"] == "one\ntwo"
    rig.do("operator", "rename", "team/minutes", to="minutes")
    rig.crash()
    rig.open().settle()
    assert rig.do("operator", "undo", "minutes")["block"]["value"] == "one"
    assert rig.refuse("operator", "undo", "minutes")["code"] == "invalid_request"
    for value in ("one\ntwo", "one\ntwo\nthree"):
        assert rig.do("operator", "redo", "minutes")["block"]["value"] == value
    assert rig.refuse("operator", "redo", "minutes")["code"] == "invalid_request"
    assert rig.do("operator", "restore", "minutes", version=2)["block"]["value"] == "one\ntwo"
    assert_level(rig, rig.raw)


def test_description_of_a_name_is_not_brought_along(rig: Office) -> None:
    """A block named persona has a description of its own accord; under another name it is not written into its file."""
    rig.do("ann", "append", "persona", content="more")
    rig.do("ann", "rename", "persona", to="self")
    block = rig.do("ann", "undo", "self")["block"]
    assert (block["value"], block["description"]) == ("I am Ann.", None)
    assert rig.text("agents/ann/self") == "I am Ann.\n"
    assert rig.do("ann", "rename", "self", to="persona")["block"]["description"].startswith("The persona block")


def test_edit_and_renaming_of_one_round_are_undone(rig: Office) -> None:
    """What is not in the journal yet is among the versions, too."""
    sent = [
        ("operator", rig.send("operator", "append", "notes", content="two")),
        ("operator", rig.send("operator", "rename", "notes", to="minutes")),
        ("operator", rig.send("operator", "undo", "minutes")),
    ]
    *_, undone = rig.replies(*sent)
    assert (undone["version"], undone["block"]["value"]) == (4, "one")


def test_undo_does_not_reach_another_block_of_the_label(rig: Office) -> None:
    """One that had it before, and took its versions along. Both are in the label's history, and can be restored."""
    rig.do("operator", "rename", "notes", to="minutes")
    refused = rig.refuse("operator", "undo", "notes")
    assert (refused["message"], refused["renamed_to"]) == ("the block 'notes' was renamed to 'minutes'", "minutes")
    rig.do("operator", "create", "notes", value="new")
    assert "nothing to undo" in rig.refuse("operator", "undo", "notes")["message"]
    rig.do("operator", "append", "notes", content="more")
    assert rig.do("operator", "undo", "notes")["block"]["value"] == "new"
    assert "nothing to undo" in rig.refuse("operator", "undo", "notes")["message"]
    assert rig.do("operator", "restore", "notes", version=1)["block"]["value"] == "one"


def test_edit_of_the_block_that_had_the_label_is_not_merged(rig: Office) -> None:
    """Its number may be one that the block which has the label now had under another."""
    rig.do("operator", "create", "minutes", value="one\ntwo\nthree")
    rig.do("operator", "delete", "minutes")
    rig.do("operator", "rename", "notes", to="minutes")
    error = rig.refuse("operator", "append", "minutes", expect=1, on_conflict="merge", content="four")
    assert (error["code"], error["version"]) == ("version_conflict", 3)


def test_version_is_restored(rig: Office) -> None:
    """As a new one, with every field as it was then; the versions in between stay in the history."""
    rig.do("operator", "update", "notes", value="two", limit=10)
    rig.do("operator", "update", "notes", value="three")
    reply = rig.do("operator", "restore", "notes", version=1)
    assert (reply["version"], reply["block"]["value"], reply["block"]["limit"]) == (4, "one", 20000)
    assert rig.text("notes") == NOTES
    assert [value for _, _, value in rig.versions("notes")] == ["one", "three", "two", "one"]
    rig.do("operator", "delete", "notes")
    assert rig.do("operator", "restore", "notes", version=3)["block"]["value"] == "three"
    error = rig.refuse("operator", "restore", "notes", version=5)
    assert (error["code"], error["field"]) == ("invalid_request", "args.version")
    error = rig.refuse("operator", "restore", "notes", version=99)
    assert (error["code"], error["version"]) == ("not_found", 99)
    error = rig.refuse("operator", "restore", "never", version=1)
    assert error["code"] == "not_found"
    assert rig.refuse("operator", "restore", "notes", version="1")["code"] == "invalid_request"
    assert rig.refuse("operator", "restore", "notes", version=True)["code"] == "invalid_request"


def test_agent_cannot_restore_what_it_may_not_set(rig: Office) -> None:
    """A version with another limit is not for it to bring back."""
    rig.do("operator", "update", "notes", limit=10)
    error = rig.refuse("ann", "undo", "notes")
    assert (error["code"], "limit" in error["message"]) == ("invalid_request", True)
    assert rig.refuse("ann", "restore", "notes", version=1)["code"] == "invalid_request"


# --- renaming ---


def test_block_is_renamed(rig: Office, ear: Ear) -> None:
    """History, file mode and attachment go with it; under the old label nothing is left, and the change says from where."""
    (rig.root / "notes.md").chmod(0o640)
    rig.do("ann", "append", "notes", content="two")
    ear.messages()
    reply = rig.do("operator", "rename", "notes", to="a/minutes")
    assert (reply["label"], reply["version"], reply["block"]["value"]) == ("a/minutes", 3, "one\ntwo")
    assert rig.text("a/minutes") == NOTES.replace("one", "one\ntwo")
    assert stat.S_IMODE((rig.root / "a/minutes.md").stat().st_mode) == 0o640
    assert not (rig.root / "notes.md").exists()
    assert not rig.raw.exists("blocks:block:notes", "blocks:attached:notes")
    assert rig.raw.hget("blocks:agent:ann", "a/minutes") == "a/minutes"
    assert not rig.raw.hexists("blocks:agent:ann", "notes")
    (change,) = ear.changes()
    assert (change["kind"], change["label"], change["from"]) == ("renamed", "a/minutes", "notes")
    assert_level(rig, rig.raw)
    assert rig.versions("a/minutes") == [(3, "operator", "one\ntwo"), (2, "ann", "one\ntwo"), (1, "file", "one")]
    assert rig.do("operator", "restore", "a/minutes", version=1)["block"]["value"] == "one"
    seq = rig.journal.seq
    rig.resync()
    assert rig.journal.seq == seq
    rig.crash()
    rig.open().settle()
    assert rig.journal.seq == seq
    assert_level(rig, rig.raw)


def test_label_of_a_renamed_block_can_be_used_again(rig: Office) -> None:
    """By another block, whose versions go on; each has its own history."""
    rig.do("operator", "rename", "notes", to="minutes")
    assert rig.do("operator", "create", "notes", value="other")["version"] == 2
    rig.do("operator", "append", "minutes", content="two")
    rig.do("operator", "delete", "notes")
    assert rig.do("operator", "rename", "minutes", to="notes")["version"] == 4
    assert rig.do("operator", "rename", "notes", to="minutes")["version"] == 5
    assert rig.value("minutes") == "one\ntwo"
    rig.crash()
    rig.open().settle()
    assert_level(rig, rig.raw)


def test_block_renamed_to_another_agent_takes_no_other_block_along(rig: Office) -> None:
    """Its new agent keeps what it has under the old name, and its former agent what it has under the new one."""
    rig.do("operator", "create", "agents/bob/goals")
    rig.do("operator", "rename", "agents/bob/persona", to="agents/ann/goals")
    assert_level(rig, rig.raw)
    assert rig.raw.hget("blocks:agent:ann", "persona") == "agents/ann/persona"
    assert rig.raw.hget("blocks:agent:bob", "goals") == "agents/bob/goals"


def test_agent_renames_its_own_block(rig: Office) -> None:
    """To another of its own names; not one that is shared, and to nobody else's."""
    reply = rig.do("ann", "rename", "persona", to="self")
    assert reply["label"] == "agents/ann/self"
    assert rig.raw.hgetall("blocks:agent:ann")["self"] == "agents/ann/self"
    assert rig.refuse("ann", "rename", "notes", to="x")["code"] == "invalid_request"
    reply = rig.do("ann", "rename", "self", to="agents/bob/x")  # her own name for it, whatever it looks like
    assert reply["label"] == "agents/ann/agents/bob/x"
    assert rig.refuse("ann", "rename", "agents/bob/x", to="../../bob/x")["code"] == "invalid_request"
    assert_level(rig, rig.raw)


def test_private_block_becomes_shared_and_back(rig: Office) -> None:
    """Shared, it is for whom it lists; private, for its agent alone, and cannot list any."""
    rig.do("operator", "rename", "agents/ann/persona", to="about-ann")
    assert not rig.raw.exists("blocks:attached:about-ann")
    rig.do("operator", "attach", "about-ann", agents=["bob"])
    error = rig.refuse("operator", "rename", "about-ann", to="agents/bob/about")
    assert (error["code"], error["field"]) == ("invalid_request", "args.to")
    rig.do("operator", "detach", "about-ann", agents=["bob"])
    rig.do("operator", "rename", "about-ann", to="agents/ann/persona")
    assert rig.raw.smembers("blocks:attached:agents/ann/persona") == {"ann"}
    assert rig.value("agents/ann/persona") == "I am Ann."
    assert "agents" not in rig.text("agents/ann/persona")
    assert_level(rig, rig.raw)


def test_rename_to_where_something_is(rig: Office) -> None:
    """Never over another block, nor beside one that some file systems could not tell from it."""
    error = rig.refuse("operator", "rename", "notes", to="other")
    assert (error["code"], error["label"]) == ("already_exists", "other")
    error = rig.refuse("operator", "rename", "notes", to="OTHER")
    assert (error["code"], error["label"], error["other"]) == ("label_conflict", "OTHER", "other")
    seq = rig.journal.seq
    assert rig.do("operator", "rename", "notes", to="notes")["version"] == 1
    assert rig.journal.seq == seq
    rig.do("operator", "rename", "notes", to="Notes")
    assert rig.value("Notes") == "one"
    assert_level(rig, rig.raw)


def test_symlinked_block_is_not_renamed_and_is_deleted_alone(rig: Office) -> None:
    """What the link leads to is another file, and stays; under another name the block would be a file that it does not follow."""
    (rig.root / "link.md").symlink_to("other.md")
    rig.core.intake.hint_file("link.md", closed=True)
    rig.settle()
    rig.do("operator", "append", "link", content="more")
    rig.settle()
    assert (rig.root / "link.md").is_symlink()
    assert rig.text("other") == rig.text("link")
    rig.core.intake.hint_file("other.md", closed=True)
    rig.settle()
    assert rig.value("other") == "for Bob\nmore"
    error = rig.refuse("operator", "rename", "link", to="copy")
    assert (error["code"], error["path"]) == ("problem_file", "link.md")
    rig.do("operator", "delete", "link")
    assert not (rig.root / "link.md").is_symlink()
    assert rig.value("other") == "for Bob\nmore"
    assert rig.core.problems == {}


def test_file_with_two_names_is_not_written(rig: Office) -> None:
    """A new text would part them. It is written again when one name is gone; one outside the folder does not count."""
    os.link(rig.root / "other.md", rig.root / "twin.md")
    rig.core.intake.hint_file("twin.md", closed=True)
    rig.settle()
    for label in ("other", "twin"):
        error = rig.refuse("operator", "append", label, content="more")
        assert error["code"] == "problem_file"
        assert "is one file with" in error["message"]
        assert error["hint"] == "remove one of them, or put a copy in its place"
    assert rig.do("operator", "append", "notes", content="more")["version"] == 2
    os.rename(rig.root / "twin.md", rig.home / "twin.md")
    rig.core.intake.hint_file("twin.md", closed=False)
    rig.settle()
    assert rig.do("operator", "append", "other", content="more")["block"]["value"] == "for Bob\nmore"
    assert rig.core.problems == {}


# --- agents ---


def test_agent_is_created(rig: Office) -> None:
    """With the blocks asked for and attached to those that are named; it is known at once, and may act."""
    reply = rig.do(
        "operator",
        "create_agent",
        agent="carl",
        blocks=[{"name": "persona", "value": "I am Carl.", "limit": 100}, {"name": "diary"}],
        attach=["notes", "policy"],
    )
    assert reply["agent"] == "carl"
    assert rig.raw.hgetall("blocks:agent:carl") == {
        "persona": "agents/carl/persona",
        "diary": "agents/carl/diary",
        "notes": "notes",
        "policy": "policy",
    }
    assert parse((rig.root / "notes.md").read_bytes(), "notes").agents == ("ann", "bob", "carl")
    assert "carl" not in rig.text("policy")  # the pattern says it
    rig.do("carl", "append", "diary", content="first")
    assert rig.value("agents/carl/diary") == "first"
    rig.settle()
    assert_level(rig, rig.raw)


def test_agent_without_blocks_is_known(rig: Office) -> None:
    """Its folder is there, through crashes and resyncs, and patterns name it."""
    rig.do("operator", "create_agent", agent="carl", blocks=[])
    assert (rig.root / "agents/carl").is_dir()
    assert rig.raw.zscore("blocks:agents", "carl") == 0
    assert "carl" in rig.raw.smembers("blocks:attached:policy")
    rig.resync()
    rig.crash()
    rig.open().settle()
    assert rig.raw.zscore("blocks:agents", "carl") == 0
    assert_level(rig, rig.raw)


def test_agent_has_a_persona_and_a_human_unless_told_otherwise(rig: Office) -> None:
    """As in Letta."""
    rig.do("operator", "create_agent", agent="carl")
    assert {"persona", "human"} < set(rig.raw.hkeys("blocks:agent:carl"))


def test_agent_that_cannot_be_created(rig: Office) -> None:
    """One that is known, or with blocks that cannot be: nothing of it is there."""
    error = rig.refuse("operator", "create_agent", agent="ann")
    assert (error["code"], error["agent"]) == ("already_exists", "ann")
    assert rig.refuse("operator", "create_agent", agent="a/b")["code"] == "invalid_request"
    assert rig.refuse("operator", "create_agent")["code"] == "invalid_request"
    for blocks in ([{"value": "x"}], [{"name": "../x"}], ["x"], "x", [{"name": "a"}, {"name": "a"}], [{"name": 5}]):
        error = rig.refuse("operator", "create_agent", agent="carl", blocks=blocks)
        assert error["code"] in ("invalid_request", "already_exists")
    error = rig.refuse("operator", "create_agent", agent="carl", blocks=[{"name": "a", "value": "xx", "limit": 1}])
    assert (error["code"], error["chars"], error["limit"]) == ("limit_exceeded", 2, 1)
    assert rig.refuse("operator", "create_agent", agent="carl", attach=["none"])["code"] == "not_found"
    assert rig.refuse("operator", "create_agent", agent="carl", attach=["agents/ann/persona"])["code"] == (
        "invalid_request"
    )
    assert not (rig.root / "agents/carl").exists()


def test_who_made_an_agent_wrote_what_follows_from_it(rig: Office) -> None:
    """A block for all agents that a new one is attached to, or a deleted one detached from, has the operator as author."""
    rig.save_and_settle("all", "---\nagents: ['*']\n---\nx\n")
    for op, more in (("create_agent", {"blocks": list[str]()}), ("delete_agent", {})):
        seq = rig.journal.seq
        rig.do("operator", op, None, agent="carl", **more)
        followed = [one for one in rig.journal.since(seq, 100) if one.label == "all"]
        assert [one.author for one in followed] == ["operator"]
        assert [*followed[0].attached, *followed[0].detached] == ["carl"]


def test_agent_is_deleted(rig: Office) -> None:
    """Its own blocks and its folder are gone, lists no longer name it; what is gone can be brought back."""
    reply = rig.do("operator", "delete_agent", agent="bob")
    assert reply["agent"] == "bob"
    assert rig.raw.zscore("blocks:agents", "bob") is None
    assert not rig.raw.exists("blocks:agent:bob")
    assert not (rig.root / "agents/bob").exists()
    assert parse((rig.root / "notes.md").read_bytes(), "notes").agents == ("ann",)
    assert parse((rig.root / "other.md").read_bytes(), "other").agents == ()
    assert rig.raw.smembers("blocks:attached:policy") == {"ann"}
    rig.resync()
    assert_level(rig, rig.raw)
    assert rig.refuse("operator", "delete_agent", agent="bob")["code"] == "not_found"
    assert rig.do("operator", "undo", "agents/bob/persona")["block"]["value"] == "I am Bob."
    assert rig.raw.zscore("blocks:agents", "bob") == 0
    rig.resync()
    assert_level(rig, rig.raw)


@pytest.mark.parametrize("op", ["update", "append", "delete", "rename"])
def test_block_that_is_not_the_one_expected(rig: Office, op: str) -> None:
    """A request with an id is refused where the label is of another block, or of none; under its id it may be sent again
    with the right label. By agents alike."""
    args = {"append": {"content": "x"}, "rename": {"to": "c"}, "update": {"value": "x"}}.get(op, {})
    first = rig.do("operator", "create", "a", value="one")["block"]["id"]
    rig.do("operator", "rename", "a", to="b")
    assert rig.refuse("operator", op, "a", expect={"id": first}, **args)["id"] == first
    made = rig.do("operator", "create", "a", value="two", agents=["ann"])
    second, version = made["block"]["id"], made["version"]
    assert first != second
    error = rig.refuse("operator", op, "a", request_id="again", expect={"id": first}, **args)
    assert (error["code"], error["label"], error["id"]) == ("not_found", "a", first)
    assert rig.refuse("ann", "append", "a", expect={"id": first}, content="x")["code"] == "not_found"
    assert rig.do("operator", op, "b", request_id="again", expect={"id": first}, **args)["ok"]
    assert (
        rig.do("ann", "append", "a", expect={"id": second, "version": version}, content="x")["block"]["value"]
        == "two\nx"
    )


def test_agent_that_is_deleted_and_created_at_once_is_known(rig: Office) -> None:
    """In one round, in two requests or in a batch: what was asked last holds."""
    parts = [
        {"op": "delete_agent", "args": {"agent": "bob"}},
        {"op": "create_agent", "args": {"agent": "bob", "blocks": []}},
    ]
    one = rig.send("operator", "delete_agent", agent="bob")
    other = rig.send("operator", "create_agent", agent="bob", blocks=[])
    assert all(reply["ok"] for reply in rig.replies(("operator", one), ("operator", other)))
    assert [name for name in rig.lasting() if name.startswith("agents/bob")] == ["agents/bob"]
    for number in range(2):
        rig.do("operator", "batch", requests=parts)
        assert [name for name in rig.lasting() if name.startswith("agents/bob")] == ["agents/bob"]
        rig.resync()
        assert rig.raw.zscore("blocks:agents", "bob") == 0, number
    rig.do("operator", "batch", requests=[*parts, parts[0]])
    assert not (rig.root / "agents/bob").exists()
    rig.resync()
    assert rig.raw.zscore("blocks:agents", "bob") is None
    assert_level(rig, rig.raw)


@pytest.mark.parametrize(
    "first",
    [
        {"op": "create_agent", "args": {"agent": "zoe"}},
        {"op": "create", "label": "agents/zoe/plan"},
        {"op": "attach", "label": "notes", "args": {"agents": ["zoe"]}},
    ],
    ids=lambda part: part["op"],
)
def test_agent_that_came_in_a_batch_is_deleted_by_it(rig: Office, first: dict[str, Any]) -> None:
    """All that was made of it before, in the same batch, goes; what is deleted twice is not there the second time."""
    delete = {"op": "delete_agent", "args": {"agent": "zoe"}}
    error = rig.refuse("operator", "batch", requests=[first, delete, delete])
    assert (error["code"], error["request"]) == ("not_found", 3)
    before = rig.value("notes")
    rig.do("operator", "batch", requests=[first, delete])
    assert not (rig.root / "agents/zoe").exists()
    assert rig.value("notes") == before
    assert "zoe" not in rig.text("notes")
    rig.resync()
    assert rig.raw.zscore("blocks:agents", "zoe") is None
    assert_level(rig, rig.raw)


def test_agent_with_blocks_is_made_anew_in_a_batch(rig: Office) -> None:
    """It has the blocks it was created with, and no others; their versions go on."""
    parts = [
        {"op": "delete_agent", "args": {"agent": "ann"}},
        {"op": "create_agent", "args": {"agent": "ann", "blocks": [{"name": "persona", "value": "I am new."}]}},
    ]
    assert rig.refuse("operator", "batch", requests=parts[::-1])["code"] == "already_exists"
    rig.do("operator", "batch", requests=parts)
    assert rig.versions("agents/ann/persona") == [
        (3, "operator", "I am new."),
        (2, "operator", None),
        (1, "file", "I am Ann."),
    ]
    assert rig.raw.hgetall("blocks:agent:ann") == {"persona": "agents/ann/persona", "policy": "policy"}
    assert_level(rig, rig.raw)


def test_folder_of_a_deleted_agent_that_holds_more_stays(rig: Office) -> None:
    """A file that is no block is not the daemon's to remove: the reply names it, and the agent is no longer known."""
    (rig.root / "agents/bob/photo.png").write_bytes(b"x")
    assert rig.do("operator", "delete_agent", agent="bob")["left"] == ["agents/bob/photo.png"]
    assert (rig.root / "agents/bob/photo.png").exists()
    assert rig.raw.zscore("blocks:agents", "bob") is None
    rig.resync()
    assert rig.raw.zscore("blocks:agents", "bob") is None
    assert_level(rig, rig.raw)


# --- names ---


def test_name_is_unique_for_an_agent(rig: Office) -> None:
    """A second block under a name an agent has already is refused, whichever comes first."""
    rig.do("operator", "create", "persona", value="shared")
    error = rig.refuse("operator", "attach", "persona", agents=["ann"])
    assert (error["code"], error["agents"]) == ("label_conflict", ["ann"])
    assert "Unique constraint violation" in error["message"]
    assert rig.refuse("operator", "update", "persona", agents=["*"])["agents"] == ["ann", "bob"]
    assert rig.refuse("operator", "create", "agents/ann/notes", value="x")["code"] == "label_conflict"
    assert rig.refuse("ann", "create", "notes", value="x")["code"] == "label_conflict"
    assert rig.refuse("ann", "rename", "persona", to="notes")["code"] == "label_conflict"
    error = rig.refuse("operator", "create", "agents/ann/human", agents=["bob"])
    assert error["code"] == "invalid_request"


def test_name_is_unique_within_a_request(rig: Office) -> None:
    """What one part of it takes another cannot have."""
    both = [
        {"op": "create", "label": "diary", "args": {"agents": ["ann"]}},
        {"op": "create", "label": "agents/ann/diary"},
    ]
    for parts in (both, both[::-1]):
        error = rig.refuse("operator", "batch", requests=parts)
        assert (error["code"], error["request"]) == ("label_conflict", 2)
    cases = [{"op": "create", "label": "Same"}, {"op": "create", "label": "same"}]
    error = rig.refuse("operator", "batch", requests=cases)
    assert (error["code"], error["request"]) == ("label_conflict", 2)
    error = rig.refuse("operator", "create_agent", agent="carl", blocks=[{"name": "policy"}])
    assert (error["code"], error["agents"]) == ("label_conflict", ["carl"])
    error = rig.refuse("operator", "create_agent", agent="carl", blocks=[{"name": "notes"}], attach=["notes"])
    assert error["code"] == "label_conflict"


def test_conflict_that_files_made_keeps_nobody_from_writing(rig: Office) -> None:
    """It is a problem for that agent only: both blocks can be changed by those who see them."""
    rig.save_and_settle("persona", "---\nagents: '*'\n---\nfor all\n")
    rig.save_and_settle("agents/zoe/x", "x\n")
    rig.core.intake.hint_all()
    rig.settle()
    assert rig.problem("persona")["code"] == "name_conflict"
    rig.do("operator", "append", "persona", content="more")
    rig.do("operator", "append", "agents/ann/persona", content="more")
    rig.do("ann", "append", "persona", content="mine")
    rig.do("zoe", "append", "persona", content="hers")
    assert rig.value("agents/ann/persona") == "I am Ann.\nmore\nmine"
    assert rig.value("persona") == "for all\nmore\nhers"
    assert_level(rig, rig.raw)


def test_agent_means_the_block_it_sees(rig: Office) -> None:
    """Of two with one name, one of which it was refused, its name is that of the other."""
    rig.save_and_settle("agents/ann/notes", "never seen\n")
    assert rig.problem("agents/ann/notes")["code"] == "name_conflict"
    assert rig.do("ann", "append", "notes", content="two")["label"] == "notes"
    assert rig.value("notes") == "one\ntwo"
    assert rig.value("agents/ann/notes") == "never seen"
    rig.do("operator", "append", "agents/ann/notes", content="x")
    assert rig.value("agents/ann/notes") == "never seen\nx"


# --- who may what ---

EVERY_EDIT: list[tuple[str, dict[str, Any]]] = [
    ("update", {"value": "x"}),
    ("update", {"description": "x"}),
    ("append", {"content": "x"}),
    ("replace", {"old_content": "law", "new_content": "x"}),
    ("insert", {"content": "x"}),
    ("patch", {"patch": "@@\n law\n+x\n"}),
    ("delete", {}),
    ("undo", {}),
    ("redo", {}),
    ("restore", {"version": 1}),
    ("rename", {"to": "x"}),
]


@pytest.mark.parametrize(("op", "args"), EVERY_EDIT)
def test_agent_cannot_touch_what_is_read_only(rig: Office, op: str, args: dict[str, Any]) -> None:
    """In no way; the operator can."""
    rig.save_and_settle("policy", "---\nread_only: true\nagents: '*'\n---\nlaw\nmore\n")
    rig.save_and_settle("policy", "---\nread_only: true\nagents: '*'\n---\nlaw\n")
    rig.do("operator", "undo", "policy")
    rig.do("operator", "replace", "policy", old_content="\nmore", new_content="")
    if op == "redo":
        rig.do("operator", "undo", "policy")
    error = rig.refuse("ann", op, "policy", **args)
    assert (error["code"], error["label"]) == ("read_only", "policy")
    rig.do("operator", op, "policy", **args)


@pytest.mark.parametrize(("op", "args"), EVERY_EDIT)
def test_agent_cannot_touch_its_own_read_only_block(rig: Office, op: str, args: dict[str, Any]) -> None:
    """Being its own makes no difference."""
    rig.save_and_settle("agents/ann/persona", "---\nread_only: true\n---\nlaw\nmore\n")
    rig.save_and_settle("agents/ann/persona", "---\nread_only: true\n---\nlaw\n")
    if op == "redo":
        rig.do("operator", "undo", "agents/ann/persona")
    error = rig.refuse("ann", op, "persona", **args)
    assert (error["code"], error["label"]) == ("read_only", "agents/ann/persona")


@pytest.mark.parametrize(("op", "args"), EVERY_EDIT)
@pytest.mark.parametrize(
    ("name", "code"),
    [("other", "not_attached"), ("agents/bob/persona", "not_attached"), ("none", "not_found"), ("human", "not_found")],
)
def test_agent_cannot_touch_what_it_does_not_see(
    rig: Office, op: str, args: dict[str, Any], name: str, code: str
) -> None:
    """Neither a block that is not attached to it, nor another agent's, nor one that is not there."""
    error = rig.refuse("ann", op, name, **args)
    assert (error["code"], error["agent"], error["name"]) == (code, "ann", name)


@pytest.mark.parametrize(
    "fields",
    [
        {"limit": 5},
        {"read_only": True},
        {"agents": ["ann"]},
        {"hidden": True},
        {"tags": ["x"]},
        {"metadata": {"a": 1}},
        {"value": "x", "limit": None},
        {"template_id": "x"},
    ],
)
def test_agent_cannot_set_what_is_the_operators(rig: Office, fields: dict[str, Any]) -> None:
    """Not of shared blocks, nor of its own, nor when it makes one."""
    for op, name in (("update", "notes"), ("update", "persona"), ("create", "new")):
        error = rig.refuse("ann", op, name, **fields)
        assert error["code"] == "invalid_request"
        assert error["field"].removeprefix("args.") in fields


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("attach", {"agents": ["ann"]}),
        ("detach", {"agents": ["bob"]}),
        ("create_agent", {"agent": "carl"}),
        ("delete_agent", {"agent": "bob"}),
    ],
)
def test_agent_cannot_manage(rig: Office, op: str, args: dict[str, Any]) -> None:
    """Who sees what, and who there is, is the operator's."""
    assert rig.refuse("ann", op, "notes", **args)["code"] == "invalid_request"
    error = rig.refuse("ann", "batch", requests=[{"op": op, "name": "notes", "args": args}])
    assert (error["code"], error["request"]) == ("invalid_request", 1)


def test_operators_say_labels_and_agents_names(rig: Office) -> None:
    """One in place of the other is no name."""
    for actor, key in (("operator", "name"), ("ann", "label")):
        before = rig.everything()
        text = json.dumps({"id": f"x-{actor}", "op": "append", key: "notes", "args": {"content": "x"}})
        rig.raw.xadd(f"blocks:inbox:{actor}", {"request": text})
        (reply,) = rig.replies((actor, f"x-{actor}"))
        assert reply["error"]["code"] == "invalid_request"
        assert reply["error"]["field"] == ("label" if key == "name" else "name")
        assert rig.everything() == before


# --- refusals ---

LONG = "x" * 10_000
ATTACKS = [
    "../x",
    "/etc/passwd",
    "a\0b",
    "a\nb",
    "a//b",
    "a/../b",
    ".hidden",
    "agents/x",
    "*",
    "a?b",
    "a b ",
    LONG,
    "",
    "a/" * 490 + "b" * 50,
    "\u202e",
    "x.md/..",
    "a\\b",
    "x" * 201,
    "foo.swp/y",
    "x (conflicted copy 2026-11-20)",
]


@pytest.mark.parametrize("label", ATTACKS)
def test_label_that_is_none(rig: Office, label: str) -> None:
    """One grammar, wherever a label or a name can be given; what is told of it is short."""
    for actor, op, where, args in (
        ("operator", "create", label, {}),
        ("operator", "append", label, {"content": "x"}),
        ("operator", "rename", "notes", {"to": label}),
        ("operator", "restore", label, {"version": 1}),
        ("ann", "append", label, {"content": "x"}),
        ("operator", "attach", "notes", {"agents": [label]}),
        ("operator", "create_agent", None, {"agent": label}),
        ("operator", "create_agent", None, {"agent": "carl", "blocks": [{"name": label}]}),
        ("operator", "create_agent", None, {"agent": "carl", "attach": [label]}),
        ("operator", "delete_agent", None, {"agent": label}),
    ):
        error = rig.refuse(actor, op, where, **args)
        assert error["code"] in ("invalid_request", "not_found"), (op, error)
        assert len(json.dumps(error)) < 2000
    for op in ("create", "rename"):
        if label != "agents/x":
            where, args = (label, {}) if op == "create" else ("persona", {"to": label})
            assert rig.refuse("ann", op, where, **args)["code"] == "invalid_request"
    assert not (rig.home / "x").exists()
    assert not (rig.home / "x.md").exists()


@pytest.mark.parametrize(
    ("op", "args", "field"),
    [
        ("append", {}, "args.content"),
        ("append", {"content": 5}, "args.content"),
        ("append", {"content": "x", "more": 1}, "args.more"),
        ("replace", {"old_content": "one"}, "args.new_content"),
        ("insert", {"content": "x", "line": "0"}, "args.line"),
        ("insert", {"content": "x", "line": True}, "args.line"),
        ("insert", {"content": "x", "row": 1}, "args.row"),
        ("patch", {}, "args.patch"),
        ("delete", {"really": True}, "args.really"),
        ("undo", {"steps": 2}, "args.steps"),
        ("restore", {}, "args.version"),
        ("rename", {}, "args.to"),
        ("attach", {}, "args.agents"),
        ("attach", {"agents": []}, "args.agents"),
        ("attach", {"agents": "ann"}, "args.agents"),
        ("attach", {"agents": [5]}, "args.agents"),
        ("update", {"vlaue": "x"}, "args.vlaue"),
        ("update", {"value": 5}, "args.value"),
        ("update", {"limit": "5"}, "limit"),
        ("update", {"limit": 0}, "limit"),
        ("update", {"limit": 1e3}, "limit"),
        ("update", {"read_only": "no"}, "read_only"),
        ("update", {"tags": "x"}, "tags"),
        ("update", {"agents": {"a": 1}}, "agents"),
        ("update", {"metadata": []}, "metadata"),
        ("update", {"label": "x"}, "args.label"),
        ("create", {"vlaue": "x"}, "args.vlaue"),
    ],
)
def test_arguments_that_are_wrong(rig: Office, op: str, args: dict[str, Any], field: str) -> None:
    """Nothing is guessed or left out: the refusal names the field."""
    error = rig.refuse("operator", op, "new" if op == "create" else "notes", **args)
    assert (error["code"], error["field"]) == ("invalid_request", field)


@pytest.mark.parametrize(
    ("op", "args", "fact"),
    [
        ("replace", {"old_content": "e", "new_content": "x"}, {"lines": [1, 2, 3]}),
        ("replace", {"old_content": "", "new_content": "x"}, {"argument": "old_content"}),
        ("replace", {"old_content": "four", "new_content": "x"}, {"lines": []}),
        ("insert", {"content": "x", "line": 9}, {"line": 9, "count": 4}),
        ("append", {"content": "1→ x"}, {"argument": "content"}),
        ("patch", {"patch": "@@\n-nine\n+x\n"}, {"hunk": 1}),
        ("patch", {"patch": "@@\n one\n+x\n@@\n-nine\n"}, {"hunk": 2}),
    ],
)
def test_edits_that_cannot_be_made(rig: Office, op: str, args: dict[str, Any], fact: dict[str, Any]) -> None:
    """They are made whole or not at all, with the facts of the text operation in the reply."""
    rig.save_and_settle("notes", NOTES.replace("one", "one\nwe\ne\ntwo"))
    error = rig.refuse("operator", op, "notes", **args)
    assert error["code"] == "invalid_request"
    assert {key: error[key] for key in fact} == fact


def test_limit_is_kept(rig: Office) -> None:
    """In code points, on every way a value can grow, and nothing is cut off."""
    rig.do("operator", "update", "notes", limit=5)
    rig.do("ann", "append", "notes", content="🐈")
    for op, args in (
        ("append", {"content": "x"}),
        ("update", {"value": "🐈" * 6}),
        ("insert", {"content": ""}),
        ("replace", {"old_content": "one", "new_content": "four"}),
        ("patch", {"patch": "@@\n one\n+x\n"}),
    ):
        error = rig.refuse("ann", op, "notes", **args)
        assert (error["code"], error["limit"]) == ("limit_exceeded", 5)
        assert error["chars"] > 5
    assert rig.refuse("operator", "update", "notes", limit=4)["code"] == "limit_exceeded"
    assert rig.refuse("operator", "create", "new", value="xx", limit=1)["code"] == "limit_exceeded"
    rig.do("operator", "update", "notes", limit=6, value="123456")


def test_file_has_a_largest_size(rig: Office) -> None:
    """What would not be read again is not written."""
    rig.do("operator", "create", "big", limit=4 * 1024 * 1024, value="é" * 500_000)
    rig.do("operator", "append", "big", content="é" * 500_000)
    rig.do("operator", "append", "big", content="é" * 500_000)
    rig.do("operator", "append", "big", content="é" * 500_000)
    error = rig.refuse("operator", "append", "big", content="é" * 500_000)
    assert (error["code"], error["label"]) == ("limit_exceeded", "big")
    assert len(rig.value("big")) == 2_000_003


@pytest.mark.parametrize("value", ["a\0b", "\x1b[31m", "\x07", "\x85"])
def test_control_characters_are_refused(rig: Office, value: str) -> None:
    """They would make the file a problem."""
    for op, args in (("append", {"content": value}), ("update", {"value": value}), ("update", {"description": value})):
        assert rig.refuse("ann", op, "notes", **args)["code"] == "invalid_request"
    assert rig.refuse("operator", "update", "notes", tags=[value])["code"] == "invalid_request"


def test_unknown_label_is_told_the_nearest(rig: Office) -> None:
    """A slip of the pen is the usual reason."""
    error = rig.refuse("operator", "append", "noets", content="x")
    assert (error["code"], error["label"], error["near"]) == ("not_found", "noets", ["notes"])


def test_create_where_something_is(rig: Office) -> None:
    """Neither a block nor a file that is none is written over."""
    error = rig.refuse("operator", "create", "notes", value="x")
    assert (error["code"], error["label"]) == ("already_exists", "notes")
    error = rig.refuse("operator", "create", "NOTES", value="x")
    assert (error["code"], error["other"]) == ("label_conflict", "notes")
    rig.save_and_settle("bad", "---\nlimit: none\n---\n")
    error = rig.refuse("operator", "create", "bad", value="x")
    assert (error["code"], error["label"]) == ("problem_file", "bad")
    rig.write("fresh", "not looked at\n")
    error = rig.ask("operator", "create", "fresh", value="x")["error"]
    assert error["code"] == "already_exists"
    (rig.root / "unnoticed.md").write_text("nobody has told of it\n")
    error = rig.ask("operator", "create", "unnoticed", value="x")["error"]
    assert error["code"] == "already_exists"
    assert rig.value("unnoticed") == "nobody has told of it"


# --- versions expected ---


def conflict(rig: Office) -> None:
    """`notes` at version 3: its first and its third line were changed since version 2."""
    rig.do("operator", "update", "notes", value="a\nb\nc\nd\ne")
    rig.do("operator", "update", "notes", value="A\nb\nc\nd\ne")


@pytest.mark.parametrize("on_conflict", ["fail", None])
@pytest.mark.parametrize("expect", [2, 4, 0])
@pytest.mark.parametrize(
    ("op", "args"),
    [
        *EVERY_EDIT[:3],
        ("delete", {}),
        ("rename", {"to": "x"}),
        ("undo", {}),
        ("restore", {"version": 1}),
        ("attach", {"agents": ["carl"]}),
        ("detach", {"agents": ["bob"]}),
    ],
)
def test_other_version_is_a_conflict(
    rig: Office, op: str, args: dict[str, Any], expect: int, on_conflict: str | None
) -> None:
    """Nothing is done, and the refusal shows the block as it is."""
    conflict(rig)
    error = rig.refuse("operator", op, "notes", expect=expect, on_conflict=on_conflict, **args)
    assert (error["code"], error["label"]) == ("version_conflict", "notes")
    assert (error["expected"], error["version"], error["block"]["value"]) == (expect, 3, "A\nb\nc\nd\ne")


@pytest.mark.parametrize("on_conflict", ["fail", "merge", "overwrite", None])
@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("update", {"value": "x"}),
        ("append", {"content": "x"}),
        ("delete", {}),
        ("undo", {}),
        ("attach", {"agents": ["carl"]}),
    ],
)
def test_version_that_is_there_is_no_conflict(
    rig: Office, op: str, args: dict[str, Any], on_conflict: str | None
) -> None:
    """Whatever was to be done in case of one."""
    conflict(rig)
    assert rig.do("operator", op, "notes", expect=3, on_conflict=on_conflict, **args)["version"] == 4


def test_conflict_is_merged(rig: Office) -> None:
    """Both changes are there; those of one line word by word; other fields each for itself."""
    conflict(rig)
    asked = {"expect": 2, "on_conflict": "merge"}
    reply = rig.do("ann", "update", "notes", value="a\nb\nc\nd\nE", **asked)
    assert reply["block"]["value"] == rig.value("notes") == "A\nb\nc\nd\nE"
    reply = rig.do("operator", "update", "notes", description="d", **asked)
    assert (reply["block"]["description"], reply["block"]["value"]) == ("d", "A\nb\nc\nd\nE")
    reply = rig.do("operator", "replace", "notes", old_content="b\nc", new_content="B\nc", **asked)
    assert reply["block"]["value"] == "A\nB\nc\nd\nE"


def test_true_conflict_is_refused(rig: Office) -> None:
    """With both texts and where they stand."""
    conflict(rig)
    asked = {"expect": 2, "on_conflict": "merge"}
    error = rig.refuse("ann", "update", "notes", value="X\nb\nc\nd\ne", **asked)
    assert error["code"] == "merge_conflict"
    (region,) = error["regions"]
    assert (region["base"], region["ours"], region["theirs"], error["line"]) == ("a", "X", "A", 1)
    rig.do("operator", "update", "notes", description="now")
    error = rig.refuse("operator", "update", "notes", description="then", **asked)
    assert (error["code"], error["field"], error["theirs"]) == ("merge_conflict", "description", "now")
    rig.do("operator", "update", "notes", description="now", expect=2, on_conflict="merge")


@pytest.mark.parametrize("expect", [99, -1, 0])
def test_merge_needs_the_version(rig: Office, expect: int) -> None:
    """One that is not kept, or never was, cannot be merged against."""
    conflict(rig)
    error = rig.refuse("operator", "update", "notes", value="x", expect=expect, on_conflict="merge")
    assert error["code"] in ("not_found", "version_conflict", "invalid_request")


def test_conflict_is_overwritten(rig: Office) -> None:
    """If that is what is asked for; what was there is in the history."""
    conflict(rig)
    reply = rig.do("operator", "update", "notes", value="mine", expect=1, on_conflict="overwrite")
    assert (reply["version"], reply["block"]["value"]) == (4, "mine")
    assert rig.versions("notes")[1][2] == "A\nb\nc\nd\ne"


def test_first_version_can_be_expected(rig: Office) -> None:
    """A block that is not there is at version 0; one that was deleted is at that of its deletion."""
    rig.do("operator", "delete", "notes", expect=1)
    assert rig.refuse("operator", "undo", "notes", expect=1)["code"] == "version_conflict"
    assert rig.do("operator", "undo", "notes", expect=2)["version"] == 3


# --- no change, no revision ---


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("update", {"value": "one"}),
        ("update", {}),
        ("update", {"agents": ["ann", "bob"], "tags": ["x", "y"], "limit": None}),
        ("replace", {"old_content": "one", "new_content": "one"}),
        ("rename", {"to": "notes"}),
        ("restore", {"version": 1}),
        ("attach", {"agents": ["ann"]}),
    ],
)
def test_what_changes_nothing_makes_no_revision(rig: Office, op: str, args: dict[str, Any]) -> None:
    """It is accepted, and neither file nor journal nor mirror is touched."""
    before = rig.everything()
    reply = rig.do("operator", op, "notes", **args)
    assert (reply["version"], reply["block"]["value"]) == (1, "one")
    assert rig.everything() == before


# --- one request id, one outcome ---


def test_repeated_id_gets_the_first_outcome(rig: Office) -> None:
    """In another round, and after a restart."""
    first = rig.do("ann", "append", "notes", content="two", request_id="same")
    assert rig.ask("ann", "append", "notes", content="two", request_id="same") == first
    rig.crash()
    rig.open().settle()
    assert rig.ask("ann", "append", "notes", content="two", request_id="same") == first
    assert rig.value("notes") == "one\ntwo"
    assert rig.do("bob", "append", "notes", content="three", request_id="same")["version"] == 3


def test_id_of_another_request_is_refused(rig: Office) -> None:
    """Nothing is done under an id that was used for something else, whatever came of that; the first reply stays."""
    first = rig.do("ann", "append", "notes", content="two", request_id="same")
    refusal = rig.refuse("ann", "append", "policy", content="x", request_id="failed")
    opened = rig.ask("ann", "open_file", file="manuals/none.txt", request_id="opened")
    for restart in (False, True):
        if restart:
            rig.crash()
            rig.open().settle()
        for request_id in ("same", "failed", "opened"):
            error = rig.refuse("ann", "delete", "persona", request_id=request_id)
            assert (error["code"], error["field"]) == ("invalid_request", "id")
            assert "another request" in error["message"]
        assert rig.refuse("ann", "append", "notes", content="tow", request_id="same")["field"] == "id"
        assert rig.ask("ann", "append", "notes", content="two", request_id="same") == first
        assert rig.refuse("ann", "append", "policy", content="x", request_id="failed") == refusal
        assert rig.ask("ann", "open_file", file="manuals/none.txt", request_id="opened") == opened
    assert rig.do("bob", "append", "notes", content="three", request_id="same")["version"] == 3


def test_id_of_another_request_of_the_same_round_is_refused(rig: Office) -> None:
    """Of two requests under one id that come at once the first is done; the one reply that both wait for tells of it."""
    sent = [rig.send("ann", "append", "notes", content=word, request_id="same") for word in ("two", "three")]
    rig.pass_on()
    rig.run(lambda: rig.raw.xlen("blocks:inbox:ann") == 0)
    texts = rig.raw.lrange(f"blocks:reply:ann:{sent[0]}", 0, -1)
    rig.raw.delete(f"blocks:reply:ann:{sent[0]}")
    assert rig.value("notes") == "one\ntwo"
    assert "another request" in json.loads(texts[-1])["error"]["message"]


def test_deadline_is_no_part_of_what_is_asked_for(rig: Office) -> None:
    """A client that asks again gives the request more time: it is the same request."""
    first = rig.do("ann", "append", "notes", content="two", request_id="same", deadline="2126-01-01T00:00:00Z")
    again = rig.ask("ann", "append", "notes", content="two", request_id="same", deadline="2126-01-01T00:00:01Z")
    assert again == first


def test_refusal_is_an_outcome_too(rig: Office) -> None:
    """What was refused once is not done when it comes again, though by then it could be."""
    first = rig.refuse("operator", "append", "new", content="x", request_id="same")
    rig.do("operator", "create", "new")
    assert rig.refuse("operator", "append", "new", content="x", request_id="same") == first


def test_conflict_that_is_repeated_shows_what_it_showed(rig: Office, raw: Any) -> None:
    """The same reply to the byte, with the block of then, not of now; also after a crash."""

    def ask() -> str:
        rig.send("ann", "update", "notes", request_id="same", value="mine", expect=7, on_conflict="fail")
        rig.pass_on()
        rig.run(lambda: raw.exists("blocks:reply:ann:same"))
        (text,) = raw.lrange("blocks:reply:ann:same", 0, -1)
        raw.delete("blocks:reply:ann:same")
        assert isinstance(text, str)
        return text

    first = ask()
    assert json.loads(first)["error"]["block"]["value"] == "one"
    rig.do("bob", "append", "notes", content="two")
    assert ask() == first
    rig.crash()
    rig.open().settle()
    assert ask() == first


def test_doubled_entries_of_one_round(rig: Office, raw: Any) -> None:
    """A client that sends again what it does not know to have arrived: one effect, for each entry the same reply."""
    for _ in range(3):
        rig.send("ann", "append", "notes", content="two", request_id="same")
    rig.pass_on()
    rig.run(lambda: raw.xlen("blocks:inbox:ann") == 0)
    texts = raw.lrange("blocks:reply:ann:same", 0, -1)
    assert len({json.dumps(json.loads(text), sort_keys=True) for text in texts}) == 1
    assert rig.value("notes") == "one\ntwo"


# --- several at once ---


def test_batch_is_done_as_a_whole(rig: Office, ear: Ear) -> None:
    """Each part on top of those before; the reply shows what each came to."""
    reply = rig.do(
        "operator",
        "batch",
        requests=[
            {"op": "create", "label": "new", "args": {"value": "a"}},
            {"op": "append", "label": "new", "args": {"content": "b"}},
            {"op": "rename", "label": "new", "args": {"to": "newer"}},
            {"op": "append", "label": "newer", "args": {"content": "c"}},
            {"op": "delete", "label": "other"},
            {"op": "create_agent", "args": {"agent": "carl", "blocks": []}},
            {"op": "attach", "label": "newer", "args": {"agents": ["carl"]}},
            {"op": "create", "label": "agents/zoe/diary"},
            {"op": "rename", "label": "policy", "args": {"to": "law"}},
        ],
    )
    assert rig.value("newer") == "a\nb\nc"
    assert reply["seq"] == rig.journal.seq
    assert {change["request_id"] for change in ear.changes() if change["label"] == "newer"} == {reply["id"]}
    assert rig.raw.smembers("blocks:attached:newer") == {"carl"}
    assert not rig.raw.exists("blocks:block:other", "blocks:block:policy")
    assert rig.raw.smembers("blocks:attached:law") == {"ann", "bob", "carl", "zoe"}
    rig.settle()
    assert_level(rig, rig.raw)
    rig.crash()
    rig.open().settle()
    assert rig.do("operator", "create", "new", value="again")["ok"]
    assert_level(rig, rig.raw)


@pytest.mark.parametrize(
    "bad",
    [
        {"op": "append", "label": "none", "args": {"content": "x"}},
        {"op": "replace", "label": "notes", "args": {"old_content": "gone", "new_content": "x"}},
        {"op": "update", "label": "notes", "expect": {"version": 7}, "args": {"value": "x"}},
        {"op": "create", "label": "other"},
        {"op": "create", "label": "new"},
        {"op": "batch", "args": {"requests": []}},
        {"op": "open_file", "args": {"agent": "ann", "file": "a/b"}},
        {"op": "nothing"},
        {"op": "append", "label": "notes", "id": "x", "args": {"content": "x"}},
        {"op": "append", "label": "notes", "deadline": "2020-01-01T00:00:00Z", "args": {"content": "x"}},
        "x",
        None,
    ],
)
def test_batch_is_all_or_nothing(rig: Office, bad: Any) -> None:
    """One part that cannot be done, and nothing at all has changed; the refusal tells which part."""
    parts = [
        {"op": "create", "label": "new", "args": {"value": "x", "agents": ["carl"]}},
        {"op": "rename", "label": "notes", "args": {"to": "moved"}},
        {"op": "create", "label": "notes", "args": {"value": "x"}},
        {"op": "create_agent", "args": {"agent": "dora"}},
        {"op": "delete", "label": "agents/bob/persona"},
        bad,
        {"op": "append", "label": "policy", "args": {"content": "x"}},
    ]
    error = rig.refuse("operator", "batch", requests=parts)
    assert error["request"] == 6
    rig.settle()
    assert_level(rig, rig.raw)


@pytest.mark.parametrize("parts", [[], {}, None, "x", [[]] * 1001])
def test_batch_that_is_none(rig: Office, parts: Any) -> None:
    """It has 1 to 1000 parts."""
    assert rig.refuse("operator", "batch", requests=parts)["code"] == "invalid_request"


def test_agents_may_batch(rig: Office) -> None:
    """By their own names, with their own rights."""
    rig.do(
        "ann",
        "batch",
        requests=[
            {"op": "create", "name": "diary", "args": {"value": "a"}},
            {"op": "append", "name": "diary", "args": {"content": "b"}},
            {"op": "append", "name": "notes", "args": {"content": "b"}},
        ],
    )
    assert rig.value("agents/ann/diary") == "a\nb"
    parts = [{"op": "delete", "name": "diary"}, {"op": "append", "name": "policy", "args": {"content": "x"}}]
    assert rig.refuse("ann", "batch", requests=parts)["code"] == "read_only"


def test_undo_in_a_batch_undoes_what_the_batch_did(rig: Office) -> None:
    """Or is refused: it never undoes another edit than the newest."""
    rig.do("operator", "append", "notes", content="two")
    parts = [
        {"op": "append", "label": "notes", "args": {"content": "three"}},
        {"op": "undo", "label": "notes"},
    ]
    rig.ask("operator", "batch", requests=parts)
    assert rig.value("notes") == "one\ntwo"
    parts = [{"op": "undo", "label": "notes"}, {"op": "undo", "label": "notes"}]
    error = rig.refuse("operator", "batch", requests=parts)
    assert error["code"] == "invalid_request"


@pytest.fixture
def put_in_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that something was put into, by path."""
    real = writing.Writer.put_in
    done: list[str] = []

    def put_in(self: writing.Writer, staged: Any) -> bool:
        done.append(staged.path)
        return real(self, staged)

    monkeypatch.setattr(writing.Writer, "put_in", put_in)
    return done


def test_requests_of_one_round_share_a_write(rig: Office, put_in_files: list[str]) -> None:
    """However many there are to one block: each is a revision, in the order they came in, and the file is written once."""
    sent = [
        (actor, rig.send(actor, "append", "notes", content=f"{actor} {n}"))
        for n in range(20)
        for actor in ("ann", "bob")
    ]
    inode = (rig.root / "notes.md").stat().st_ino
    replies = rig.replies(*sent)
    assert put_in_files == ["notes.md"]
    assert [reply["version"] for reply in replies] == list(range(2, 42))
    assert rig.value("notes").split("\n") == ["one", *(f"{actor} {n}" for n in range(20) for actor in ("ann", "bob"))]
    assert len(rig.versions("notes")) == 41
    assert (rig.root / "notes.md").stat().st_ino != inode
    assert_level(rig, rig.raw)


def test_refused_request_does_not_harm_those_beside_it(rig: Office) -> None:
    """In one round, before and after it."""
    sent = [
        ("operator", rig.send("operator", "append", "notes", content="two")),
        ("operator", rig.send("operator", "replace", "notes", old_content="gone", new_content="x")),
        ("operator", rig.send("operator", "create", "notes")),
        ("operator", rig.send("operator", "append", "notes", content="three")),
    ]
    assert [reply["ok"] for reply in rig.replies(*sent)] == [True, False, False, True]
    assert rig.value("notes") == "one\ntwo\nthree"


# --- files as their authors wrote them ---

STYLES = {
    "comments and order": "---\n# first\nlimit: 50   # enough\n\ntags:\n  - a\n  # in between\n  - 'b'\ndescription: >-\n  folded\n  text\nmine: {x: 1}\n---\n\nbody\n",
    "crlf": "---\r\n# first\r\nlimit: 50\r\n---\r\nbody\r\n",
    "byte order mark": "\ufeff---\nlimit: 50\n---\nbody\n",
    "byte order mark and crlf": "\ufeff---\r\nlimit: 50\r\n---\r\nbody",
    "no newline at the end": "---\nlimit: 50\n---\nbody",
    "blank line": "---\nlimit: 50\n---\n\nbody\n",
    "no frontmatter": "body\n",
    "trailing spaces": "---   \nlimit: 50   \n---  \nbody\n",
    "empty frontmatter": "---\n---\nbody\n",
}


@pytest.mark.parametrize("text", STYLES.values(), ids=STYLES)
def test_only_what_must_change_changes(rig: Office, text: str) -> None:
    """A value changes the bytes of the body, a field those of its line; undone, the file is byte for byte as it was."""
    data = text.encode()
    path = rig.root / "styled.md"
    path.write_bytes(data)
    path.chmod(0o604)
    rig.core.intake.hint_file("styled.md", closed=True)
    rig.settle()
    rig.do("operator", "replace", "styled", old_content="body", new_content="other")
    assert path.read_bytes() == data.replace(b"body", b"other")
    rig.do("operator", "undo", "styled")
    assert path.read_bytes() == data
    rig.do("operator", "append", "styled", content="more")
    newline = b"\r\n" if b"\r\n" in data else b"\n"
    assert path.read_bytes() == data.replace(b"body", b"body" + newline + b"more")
    rig.do("operator", "undo", "styled")
    rig.do("operator", "update", "styled", hidden=True)
    added = path.read_bytes()
    assert b"hidden: true" in added
    for line in data.splitlines():
        assert line.removeprefix(b"\xef\xbb\xbf") in added
    if b"limit" in data:
        rig.do("operator", "update", "styled", limit=51)
        assert path.read_bytes() == added.replace(b"50", b"51")
        rig.do("operator", "update", "styled", limit=50)
        assert path.read_bytes() == added
        rig.do("operator", "update", "styled", hidden=None)
        assert path.read_bytes() == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    rig.settle()
    assert_level(rig, rig.raw)


def test_value_that_looks_like_a_frontmatter(rig: Office) -> None:
    """Any text is read back as it was given."""
    for number, value in enumerate(
        ["---\nlimit: 5\n---\nx", "---", "\ufeffx", "\n\nx\n\n", "\n", "---\n---", "...", " "]
    ):
        rig.do("operator", "create", f"v{number}", value=value)
        rig.do("operator", "update", f"v{number}", value="x")
        rig.do("operator", "update", f"v{number}", value=value)
        assert rig.value(f"v{number}") == value
    rig.resync()
    assert_level(rig, rig.raw)


def test_file_with_a_problem_is_not_written_to(rig: Office) -> None:
    """The block is in force as it last was, and refuses to be changed; the refusal tells what is wrong, and where."""
    for text, line in (("---\nlimit: none\n---\nx\n", 2), ("---\nlimit: 5\n", 1), ("x\0", 1)):
        rig.save_and_settle("notes", text)
        error = rig.refuse("ann", "append", "notes", content="x")
        assert (error["code"], error["label"], error["line"]) == ("problem_file", "notes", line)
        assert error["hint"]
        assert rig.refuse("operator", "delete", "notes")["code"] == "problem_file"
        assert rig.refuse("operator", "rename", "notes", to="x")["code"] == "problem_file"
        assert rig.text("notes") == text
    rig.write("notes", NOTES)
    rig.do("ann", "append", "notes", content="x")
    assert rig.value("notes") == "one\nx"


def test_save_that_was_not_looked_at_comes_first(rig: Office) -> None:
    """A request is done on top of what a person has just saved, though nobody has told of it yet."""
    (rig.root / "notes.md").write_text(NOTES.replace("one", "saved"))
    assert rig.do("ann", "append", "notes", content="two")["version"] == 3
    assert rig.value("notes") == "saved\ntwo"
    assert [author for _, author, _ in rig.versions("notes")] == ["ann", "file", "file"]


def test_file_that_is_being_written_is_waited_for(rig: Office) -> None:
    """The request stays until its writer is done, then it is done on top."""
    with open(rig.root / "notes.md", "r+b") as file:
        file.write(NOTES.replace("one", "half").encode())
        file.flush()
        request = rig.send("ann", "append", "notes", content="two")
        rig.pass_on()
        for _ in range(20):
            rig.round()
            rig.clock.advance(0.02)
        assert rig.reply("ann", request) is None
        assert rig.do("bob", "append", "other", content="meanwhile")["ok"]
        file.write(b"whole\n")
    (reply,) = rig.replies(("ann", request))
    assert reply["ok"]
    assert rig.value("notes").endswith("whole\ntwo")


def test_request_to_a_file_that_is_gone(rig: Office) -> None:
    """A deletion that is still in doubt is waited for; then there is no such block."""
    (rig.root / "notes.md").unlink()
    reply = rig.ask("ann", "append", "notes", content="two")
    assert reply["error"]["code"] in ("not_found", "not_attached")
    assert not (rig.root / "notes.md").exists()


def test_request_that_waits_is_tried_when_there_is_news(rig: Office) -> None:
    """Not all the time: in the round that decides about its file it is done; what came meanwhile is not kept waiting."""
    rig.remove("notes")
    request = rig.send("ann", "append", "notes", content="two")
    rig.pass_on()
    rig.round()
    assert rig.ask("bob", "append", "other", content="meanwhile")["ok"]
    rounds = 0
    while rig.reply("ann", request) is None:
        assert rig.versions("notes")[0][2] is not None, "its deletion is not decided yet"
        rig.clock.advance(rig.core.wait_seconds())
        rig.round()
        rounds += 1
    assert rounds <= 5


def test_folder_that_is_gone(rig: Office) -> None:
    """Nothing can be written, and that is no outcome: the same request is done when it is back."""
    rig.root.rename(rig.home / "away")
    rig.clock.advance(2)
    rig.round()
    reply = rig.ask("ann", "append", "notes", content="two", request_id="same")
    assert reply["error"]["code"] == "unavailable"
    assert "folder" in reply["error"]["message"]
    (rig.home / "away").rename(rig.root)
    rig.clock.advance(2)
    rig.settle()
    rig.do("ann", "append", "notes", content="two", request_id="same")
    assert rig.value("notes") == "one\ntwo"


def test_folder_that_was_emptied(rig: Office) -> None:
    """As long as deletions are held back, requests to what is missing are told so, and nothing is made anew."""
    kept = rig.home / "kept"
    kept.mkdir()
    for name in os.listdir(rig.root):
        (rig.root / name).rename(kept / name)
    rig.core.intake.hint_all()
    rig.run(lambda: rig.core.problems, "halted")
    reply = rig.ask("ann", "append", "notes", content="two", request_id="same")
    assert reply["error"]["code"] == "unavailable"
    assert os.listdir(rig.root) == []
    for name in os.listdir(kept):
        (kept / name).rename(rig.root / name)
    rig.core.intake.hint_all()
    rig.settle()
    rig.do("ann", "append", "notes", content="two", request_id="same")
    assert rig.value("notes") == "one\ntwo"


# --- when it cannot be written ---


@pytest.mark.parametrize("step", ["stage", "put_in", "sync"])
def test_file_that_cannot_be_written(rig: Office, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Requests to it are refused with the reason, those to others are done; that is no outcome, and passes."""
    real = getattr(writing.Writer, step)

    def broken(self: writing.Writer, what: Any) -> Any:
        paths = [one.path for one in what] if step == "sync" else [what.path]
        if "notes.md" in paths:
            raise self._unwritable("notes.md", OSError(28, "full"))
        return real(self, what)

    with monkeypatch.context() as patch:
        patch.setattr(writing.Writer, step, broken)
        sent = [
            ("operator", rig.send("operator", "append", "other", content="a")),
            ("ann", rig.send("ann", "append", "notes", content="b", request_id="same")),
            ("operator", rig.send("operator", "append", "agents/ann/persona", content="c")),
            ("bob", rig.send("bob", "rename", "persona", to="self")),
        ]
        replies = rig.replies(*sent)
    assert [reply["ok"] for reply in replies] == [True, False, True, True]
    error = replies[1]["error"]
    assert (error["code"], error["errno"], error["path"]) == ("unavailable", "ENOSPC", "notes.md")
    assert rig.value("notes") == "one"
    assert rig.value("other") == "for Bob\na"
    assert rig.temporaries() == []
    assert Intents(rig.journal).prepared() is None
    assert_level(rig, rig.raw)
    rig.do("ann", "append", "notes", content="b", request_id="same")
    assert rig.value("notes") == "one\nb"


def test_text_that_readers_saw_is_not_taken_back_for_one_call_that_fails(
    rig: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have read it, and then its save would have the text twice."""
    failed: list[str] = []

    def once(name: str) -> Callable[..., Any]:
        real = getattr(Root, name)

        def call(self: Root, path: str, *args: Any, **options: Any) -> Any:
            is_seen = "new text" in (rig.root / "notes.md").read_text()
            if is_seen and name not in failed:
                failed.append(name)
                raise OSError(5, "Input/output error")
            return real(self, path, *args, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("open", "sync_directory"):
            patch.setattr(Root, name, once(name))
        patch.setattr(writing.Writer, "take_back", lambda *_: pytest.fail("it was taken back"))
        patch.setattr(writing.Writer, "_give_back", lambda *_: pytest.fail("it was taken back"))
        rig.do("operator", "append", "notes", content="new text")
    assert sorted(failed) == ["open", "sync_directory"]


def test_refusal_for_the_moment_that_was_lost_is_no_outcome(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request is served when it comes in again, although meanwhile it was noted up to where all was dealt with."""

    def broken(self: writing.Writer, edit: Any) -> None:
        raise self._unwritable(edit.path, OSError(28, "full"))

    def lose(self: Script) -> None:
        self.under_way = None
        raise Unavailable("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(writing.Writer, "stage", broken)
        patch.setattr(Script, "send", lambda self, *_: setattr(self, "under_way", (0,)))
        patch.setattr(Script, "outcome", lose)
        request = rig.send("operator", "append", "notes", content="two")
        rig.pass_on()
        rig.run(lambda: rig.heard.away)
    rig.core.requests.forget_results(is_steady=False)
    rig.settle()
    assert rig.replies(("operator", request))[0]["ok"]
    assert rig.value("notes") == "one\ntwo"


def test_request_that_waits_is_not_taken_for_done(rig: Office) -> None:
    """Although one that waited before it and one that came after it were replied to before."""
    with (rig.root / "notes.md").open("a"):
        first = rig.send("operator", "append", "notes", content="two")
        rig.pass_on()
        rig.round()
        rig.clock.advance(5.0)
        second = rig.send("operator", "append", "notes", content="three")
        other = rig.send("operator", "create", "new", value="text")
        (created,) = rig.replies(("operator", other))
        assert created["ok"], created
        (refusal,) = rig.replies(("operator", first))
        assert refusal["error"]["code"] == "unavailable"
        assert not rig.reply("operator", second)
        rig.core.requests.forget_results(is_steady=False)
    (done,) = rig.replies(("operator", second))
    assert done["ok"], done
    assert rig.value("notes") == "one\nthree"


def test_file_that_a_batch_leaves_as_it_was_is_still_known(rig: Office) -> None:
    """Moved by a person, it is a renamed block."""
    known = rig.core.state.signatures["notes.md"]
    parts: list[dict[str, Any]] = [
        {"op": "create_agent", "args": {"agent": "cyd", "attach": ["notes"]}},
        {"op": "delete_agent", "args": {"agent": "cyd"}},
    ]
    rig.do("operator", "batch", requests=parts)
    assert rig.core.state.signatures["notes.md"] == known != b""
    (rig.root / "notes.md").rename(rig.root / "moved.md")
    rig.resync()
    head = rig.journal.head("moved")
    assert head is not None
    assert head.renamed_from == "notes"


def test_file_of_a_block_that_changes_only_who_has_it_is_still_known(rig: Office) -> None:
    """Over a restart, too: moved by a person meanwhile, it is a renamed block."""
    rig.save_and_settle("empty", "---\nagents: [c*]\n---\n")
    rig.do("operator", "create_agent", agent="cyd", attach=["empty"], blocks=[])
    head = rig.journal.head("empty")
    assert head is not None
    assert head.attached == ("cyd",)
    rig.crash()
    (rig.root / "empty.md").rename(rig.root / "moved.md")
    rig.open().settle()
    head = rig.journal.head("moved")
    assert head is not None
    assert head.renamed_from == "empty"


def test_folder_of_an_agent_that_cannot_be_made(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is no such agent, and that is what is replied."""

    def broken(self: writing.Writer, path: str) -> None:
        raise self._unwritable(path, OSError(28, "full"))

    with monkeypatch.context() as patch:
        patch.setattr(writing.Writer, "make_directory", broken)
        error = rig.refuse("operator", "create_agent", agent="carl", blocks=[])
    assert error["code"] == "unavailable"
    assert rig.raw.zscore("blocks:agents", "carl") is None
    rig.do("operator", "create_agent", agent="carl", blocks=[])


@pytest.mark.parametrize("what", ["files.writer.Writer._write", "files.root.Root.move"])
def test_directories_of_what_is_not_done_do_not_stay(rig: Office, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Else an agent would be known that nobody has made. Where somebody has put something in one, it stays."""
    requests: list[tuple[str, str | None, dict[str, Any]]] = [
        ("create", "agents/zoe/plans/today", {"value": "x"}),
        ("create_agent", None, {"agent": "zoe"}),
        ("rename", "notes", {"to": "team/notes"}),
    ]

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "full")

    monkeypatch.setattr(f"blocksd.{what}", full)
    for op, where, args in requests:
        assert rig.refuse("operator", op, where, **args)["code"] == "unavailable"

    def disturbed(*_: Any, **__: Any) -> None:
        (rig.root / "agents/zoe/photo.png").write_bytes(b"x")
        full()

    monkeypatch.setattr(f"blocksd.{what}", disturbed)
    assert rig.ask("operator", "create", "agents/zoe/plan", value="x")["error"]["code"] == "unavailable"
    assert os.listdir(rig.root / "agents/zoe") == ["photo.png"]


def test_agent_whose_outcome_is_journaled_stays_as_it_is(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the journal then takes no more: what is known of folders is not that of before."""

    def full(*_: Any) -> None:
        raise JournalUnusable("the journal cannot be written: full", path="")

    requests = [
        rig.send("operator", "delete_agent", agent="bob"),
        rig.send("operator", "create_agent", agent="zoe"),
        rig.send("operator", "delete", "nowhere"),  # a refusal is settled after what is done
    ]
    rig.pass_on()
    with monkeypatch.context() as patch:
        patch.setattr(Results, "write", full)
        rig.round()
    assert "<journal>" in rig.core.problems
    assert rig.core.state.attachments.known == {"ann", "zoe"}
    assert [reply["ok"] for reply in rig.replies(*(("operator", one) for one in requests))] == [True, True, False]
    assert_level(rig, rig.raw)


# --- what follows ---


def test_what_requests_set_free_is_seen_at_once(rig: Office) -> None:
    """A label that another file stood back for, in the round that follows at once, and a name."""
    rig.write("Other", "stood back\n")
    rig.write("persona", "---\nagents: [ann]\n---\nrefused\n")
    rig.settle()
    assert rig.problem("Other.md")["code"] == "label_conflict"
    assert rig.problem("persona")["code"] == "name_conflict"
    rig.send("operator", "delete", "other")
    rig.send("ann", "rename", "persona", to="self")
    rig.pass_on()
    rig.round()
    assert rig.core.wait_seconds() == 0.0
    rig.round()
    assert rig.raw.hget("blocks:block:Other", "value") == "stood back"
    assert rig.raw.hget("blocks:agent:ann", "persona") == "persona"
    assert rig.raw.hgetall("blocks:problems") == {}


# --- saves of an old text ---


def changes_of(ear: Ear, label: str) -> list[tuple[str, int, list[int] | None]]:
    """Author, version and what it reverts of each change of a block."""
    changes = [one for one in ear.changes() if one.get("label") == label and "version" in one]
    return [(one["author"], one["version"], one.get("reverts")) for one in changes]


def test_stale_save_is_merged(rig: Office, ear: Ear) -> None:
    """An editor saves what it had read before an append: the save is in the history as it is, both texts are in the block."""
    rig.do("ann", "append", "notes", content="from Ann")
    rig.write("notes", NOTES.replace("one", "zero\none"))
    rig.settle()
    assert rig.value("notes") == "zero\none\nfrom Ann"
    assert rig.text("notes") == NOTES.replace("one", "zero\none\nfrom Ann")
    assert rig.versions("notes") == [
        (4, "merge", "zero\none\nfrom Ann"),
        (3, "file", "zero\none"),
        (2, "ann", "one\nfrom Ann"),
        (1, "file", "one"),
    ]
    assert changes_of(ear, "notes") == [("ann", 2, None), ("file", 3, None), ("merge", 4, None)]
    seq = rig.journal.seq
    rig.resync()
    assert rig.journal.seq == seq
    assert_level(rig, rig.raw)


@pytest.mark.parametrize(
    ("how", "after", "is_merged"),
    [
        ("killed", 30.0, True),
        ("stopped", 30.0, True),
        ("killed", 90.0, False),
        ("stopped", 90.0, False),
        ("stopped long after", 3630.0, False),
    ],
)
def test_save_while_the_daemon_is_off(
    rig: Office, monkeypatch: pytest.MonkeyPatch, how: str, after: float, *, is_merged: bool
) -> None:
    """When its text was saved first is not known: it may have been as soon as the daemon had ended, but not long before."""
    rig.do("ann", "append", "notes", content="from Ann")
    if how == "killed":
        rig.crash()
    else:
        later = time.time() + 3600.0 * (how == "stopped long after")
        with monkeypatch.context() as patch:
            patch.setattr("blocksd.journal.journal.time.time", lambda: later)
            rig.close()
    path = rig.root / "notes.md"
    path.write_text(NOTES.replace("one", "zero\none"))
    os.utime(path, (time.time() + after,) * 2)
    rig.open()
    rig.settle()
    assert rig.value("notes") == ("zero\none\nfrom Ann" if is_merged else "zero\none")


def test_text_of_an_earlier_version_is_put_back(rig: Office, ear: Ear) -> None:
    """At once after an append, as git checkout does it, an editor's undo, or a program that takes the line out: it stands."""
    rig.do("ann", "append", "notes", content="from Ann")
    rig.write("notes", NOTES)
    rig.settle()
    assert rig.value("notes") == "one"
    assert changes_of(ear, "notes") == [("ann", 2, None), ("file", 3, [2])]
    rig.save_and_settle("notes", NOTES.replace("one", "two"))
    rig.do("ann", "append", "notes", content="more")
    rig.save_and_settle("notes", NOTES)  # as it was before the last two
    assert rig.value("notes") == "one"
    assert changes_of(ear, "notes")[-1] == ("file", 6, [5])


def test_line_is_taken_out_by_a_program_that_has_read_the_newest_text(rig: Office, ear: Ear) -> None:
    """It has left in what the second agent wrote, and so it has read what the first one did."""
    rig.do("ann", "append", "notes", content="from Ann")
    rig.do("bob", "append", "notes", content="from Bob")
    rig.write("notes", NOTES.replace("one", "one, changed\nfrom Bob"))
    rig.settle()
    assert rig.value("notes") == "one, changed\nfrom Bob"
    assert changes_of(ear, "notes")[-1] == ("file", 4, [2])


def test_line_does_not_come_back_twice(rig: Office, ear: Ear) -> None:
    """Who takes out what a merge has brought back means it, with other edits or alone; what came since is merged."""
    rig.do("ann", "append", "notes", content="from Ann")
    rig.save_and_settle("notes", NOTES.replace("one", "zero\none"))
    assert rig.value("notes") == "zero\none\nfrom Ann"
    rig.do("bob", "append", "notes", content="from Bob")
    rig.save_and_settle("notes", NOTES.replace("one", "zero\none\nmine"))
    assert sorted(rig.value("notes").split("\n")) == ["from Bob", "mine", "one", "zero"]
    rig.save_and_settle("notes", NOTES.replace("one", "zero\none\nmine"))
    assert rig.value("notes") == "zero\none\nmine"
    assert changes_of(ear, "notes")[-1] == ("file", 8, [5])


def test_save_of_what_was_appended_is_not_stale(rig: Office, ear: Ear) -> None:
    """Who has read the newest text and goes on from there is not merged with anything."""
    rig.do("ann", "append", "notes", content="from Ann")
    rig.write("notes", NOTES.replace("one", "one\nfrom Ann\nmine"))
    rig.settle()
    assert rig.value("notes") == "one\nfrom Ann\nmine"
    assert changes_of(ear, "notes") == [("ann", 2, None), ("file", 3, None)]


def test_save_in_conflict_stands(rig: Office, ear: Ear) -> None:
    """A person's word is a person's word; the change says whose text it takes away."""
    rig.do("ann", "update", "notes", value="Ann's")
    rig.do("bob", "replace", "notes", old_content="Ann", new_content="Bob")
    rig.write("notes", NOTES.replace("one", "mine"))
    rig.settle()
    assert rig.value("notes") == "mine"
    assert changes_of(ear, "notes") == [("ann", 2, None), ("bob", 3, None), ("file", 4, [3])]
    assert rig.versions("notes")[1] == (3, "bob", "Bob's")


def test_save_after_the_window_stands(rig: Office, ear: Ear) -> None:
    """Who saves long after an agent's write has had the time to see it."""
    rig.do("ann", "append", "notes", content="from Ann")
    rig.clock.advance(60)
    rig.write("notes", NOTES.replace("one", "one\nmine"))
    rig.settle()
    assert rig.value("notes") == "one\nmine"
    assert changes_of(ear, "notes") == [("ann", 2, None), ("file", 3, [2])]


def test_save_that_takes_text_away_is_told_of(rig: Office) -> None:
    """A warning says how it comes back, until the block changes again; that agents come and go is no change of it."""
    rig.save_and_settle("my notes", "---\nagents: '*'\n---\none\n")
    rig.do("ann", "append", "my notes", content="from Ann")
    rig.clock.advance(60)
    rig.save_and_settle("my notes", "---\nagents: '*'\n---\none\nmine\n")
    problem = rig.problem("merge my notes")
    assert (problem["code"], problem["warning"], problem["label"]) == ("reverted", True, "my notes")
    assert problem["message"] == "a save, version 3 of 'my notes', took away text of version 2"
    assert problem["hint"] == "to bring it back: blocksd merge 'my notes'"
    rig.save_and_settle("late", "---\nagents: [zoe]\n---\nfor Zoe\n")
    assert rig.raw.hexists("blocks:problems", "merge my notes")
    rig.do("operator", "merge", "my notes")
    rig.settle()
    assert not rig.raw.hexists("blocks:problems", "merge my notes")
    assert_level(rig, rig.raw)


def test_merge_that_leaves_out_what_others_wrote_is_told_of(rig: Office, ear: Ear) -> None:
    """An editor that saves twice without reading the file again: the first line comes back once, and is not lost in silence."""
    text = NOTES
    for number in (1, 2):
        rig.do("ann", "append", "notes", content=f"line {number}")
        text = text.replace("one", "one more")
        rig.save_and_settle("notes", text)
        rig.clock.advance(4.0)
    assert rig.value("notes") == "one more more\nline 2"
    assert changes_of(ear, "notes")[-2:] == [("file", 6, None), ("merge", 7, [2])]
    assert "merge notes" in rig.core.problems
    rig.do("operator", "merge", "notes")
    assert sorted(rig.value("notes").split("\n")) == ["line 1", "line 2", "one more more"]


@pytest.mark.parametrize("ends", ["rename", "delete", "an hour"])
def test_warning_of_text_taken_away_ends(rig: Office, ends: str) -> None:
    """With the block, too, and in time."""
    rig.do("ann", "append", "notes", content="from Ann")
    rig.save_and_settle("notes", NOTES)
    assert rig.raw.hexists("blocks:problems", "merge notes")
    if ends == "an hour":
        rig.clock.advance(3500)
        rig.resync()
        assert rig.raw.hexists("blocks:problems", "merge notes")
        rig.resync()
        rig.resync()
    else:
        rig.do("operator", ends, "notes", **({"to": "others"} if ends == "rename" else {}))
        rig.settle()
    assert not rig.raw.hexists("blocks:problems", "merge notes")


def test_stale_save_that_can_never_be_merged_is_told_of(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it stands, though its change could not say so."""
    rig.do("ann", "append", "notes", content="from Ann")
    rig.write("notes", NOTES.replace("one", "zero\none"))
    with monkeypatch.context() as patch:
        patch.setattr(Changeset, "merge_stale", lambda *_: (_ for _ in ()).throw(MergeConflict("no")))
        rig.settle()
    assert rig.value("notes") == "zero\none"
    assert rig.problem("merge notes")["message"] == "a save, version 3 of 'notes', took away text of version 2"
    assert rig.problem("merge notes")["hint"] == "to bring it back: blocksd merge notes 2"
    rig.do("operator", "merge", "notes", version=2)
    assert rig.value("notes") == "zero\none\nfrom Ann"
    assert not rig.raw.hexists("blocks:problems", "merge notes")


def test_stale_save_beside_a_changed_field(rig: Office) -> None:
    """What was changed in the frontmatter by request and in the body by hand are both in the file, and the other way round."""
    rig.do("operator", "update", "notes", description="by request", tags=["z"])
    rig.write("notes", NOTES.replace("one", "mine"))
    rig.settle()
    block = parse((rig.root / "notes.md").read_bytes(), "notes")
    assert (block.description, block.tags, block.value) == ("by request", ("z",), "mine")
    assert "# who may see it" in rig.text("notes")
    text = rig.text("notes")
    rig.do("ann", "append", "notes", content="from Ann")
    rig.write("notes", text.replace("by request", "by hand"))
    rig.settle()
    block = parse((rig.root / "notes.md").read_bytes(), "notes")
    assert (block.description, block.value) == ("by hand", "mine\nfrom Ann")
    assert_level(rig, rig.raw)


def test_one_field_changed_in_two_ways(rig: Office, ear: Ear) -> None:
    """That is a conflict, as two texts are."""
    rig.do("operator", "update", "notes", description="by request")
    rig.write("notes", NOTES.replace("---\none", "description: by hand\n---\none"))
    rig.settle()
    assert changes_of(ear, "notes")[-1] == ("file", 3, [2])
    assert parse((rig.root / "notes.md").read_bytes(), "notes").description == "by hand"


def test_stale_save_with_agents_coming_in_between(rig: Office) -> None:
    """That a pattern names one agent more keeps nothing from being merged, before the save or with it."""
    rig.save_and_settle("open", "---\nagents: '*'\n---\none\n")
    rig.do("ann", "append", "open", content="from Ann")
    rig.save_and_settle("late", "---\nagents: [zoe]\n---\nfor Zoe\n")
    rig.write("open", "---\nagents: '*'\n---\nzero\none\n")
    rig.write("later", "---\nagents: [yan]\n---\nfor Yan\n")
    rig.settle()
    assert rig.value("open") == "zero\none\nfrom Ann"
    assert rig.raw.smembers("blocks:attached:open") == {"ann", "bob", "yan", "zoe"}
    assert_level(rig, rig.raw)


def test_stale_save_that_cannot_be_merged_yet(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file cannot be written for a while, it is merged when it can."""
    real = writing.Writer.stage
    rig.do("ann", "append", "notes", content="from Ann")
    with monkeypatch.context() as patch:
        patch.setattr(
            writing.Writer,
            "stage",
            lambda self, edit: (_ for _ in ()).throw(self._unwritable(edit.path, OSError(28, ""))),
        )
        rig.write("notes", NOTES.replace("one", "zero\none"))
        for _ in range(10):
            rig.round()
            rig.clock.advance(0.1)
    assert writing.Writer.stage is real
    assert rig.text("notes") == NOTES.replace("one", "zero\none")
    rig.settle()
    assert rig.value("notes") == "zero\none\nfrom Ann"


@pytest.mark.parametrize("error", [MergeConflict("both changed it"), RuntimeError("a fault of ours")])
def test_stale_save_that_cannot_be_merged_any_more(
    rig: Office, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It stays as it is, and is told with the versions whose text is gone: not those whose text was replaced before."""
    rig.do("ann", "append", "notes", content="from Ann")
    rig.do("bob", "replace", "notes", old_content="from Ann", new_content="from Bob")
    rig.do("operator", "update", "notes", tags=[])
    monkeypatch.setattr(Changeset, "merge_stale", lambda *_: (_ for _ in ()).throw(error))
    rig.write("notes", NOTES.replace("one", "zero\none"))
    rig.settle()
    assert rig.value("notes") == "zero\none"
    assert rig.problem("merge notes")["message"] == "a save, version 5 of 'notes', took away text of version 3"


def test_stale_save_in_a_file_that_is_held_open(rig: Office) -> None:
    """It is merged when whoever saved it closes it."""
    rig.do("ann", "append", "notes", content="from Ann")
    rig.write("notes", NOTES.replace("one", "zero\none"))
    for effect in rig.core.round():
        if effect == "stage":
            break
    rig.crash()
    with open(rig.root / "notes.md", "r+b"):
        rig.open()
        for _ in range(20):
            rig.round()
            rig.clock.advance(0.02)
    rig.settle()
    assert rig.value("notes") == "zero\none\nfrom Ann"


def test_request_to_a_stale_save_that_waits_to_be_merged(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge that could not be made, and waits a while before it is retried, goes before what is asked for meanwhile."""
    rig.do("ann", "append", "notes", content="from Ann")
    rig.write("notes", NOTES.replace("one", "zero\none"))
    with monkeypatch.context() as patch:
        patch.setattr(Changeset, "merge_stale", lambda *_: (_ for _ in ()).throw(Postponed("notes.md")))
        rig.round()
    assert rig.core.state.unmerged == {"notes"}
    sent = ("ann", rig.send("ann", "append", "notes", content="more"))
    rig.pass_on()
    rig.round()  # before the clock has moved
    assert rig.reply(*sent) is not None
    rig.settle()
    assert rig.value("notes") == "zero\none\nfrom Ann\nmore"


@pytest.mark.parametrize("fails", ["sync_directory", "the other file"])
def test_save_made_of_what_is_to_be_taken_back(rig: Office, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    """A person has read a text that was put in, and saved it with a line more, before the round failed: it stands, once."""
    real = Root.sync_directory
    replaced: list[str] = []
    failed: list[str] = []
    exchange = Root.renameat2

    def save() -> None:
        (rig.root / "notes.md").write_text((rig.root / "notes.md").read_text() + "mine\n")

    def put_in(root: Root, old: str, new: str, flags: int) -> None:
        if fails == "the other file" and new == "other.md" and "notes.md" in replaced and "other.md" not in replaced:
            save()
            (rig.root / "other.md").write_text((rig.root / "other.md").read_text() + "saved first\n")
        replaced.append(new)
        exchange(root, old, new, flags)

    def sync(root: Root, path: str) -> None:
        if fails == "sync_directory" and replaced.count("notes.md") == 1 and len(failed) < 3:
            if not failed:
                save()
            failed.append(path)
            raise OSError(5, os.strerror(5))
        real(root, path)

    monkeypatch.setattr(Root, "renameat2", put_in)
    monkeypatch.setattr(Root, "sync_directory", sync)
    sent = [
        ("ann", rig.send("ann", "append", "notes", content="from Ann")),
        ("bob", rig.send("bob", "append", "other", content="from Bob")),
    ]

    def are_done() -> bool:
        rig.pass_on()  # again, as the reader does when the round was given up
        return all((reply := rig.reply(*one)) and reply["ok"] for one in sent)

    rig.run(are_done)
    rig.settle()
    lines = rig.value("notes").split("\n")
    assert sorted(lines) == sorted(["one", "from Ann", "mine"])
    assert rig.value("other").split("\n").count("from Bob") == 1
    rig.raw.delete(*rig.raw.keys("blocks:inbox:*"), *rig.raw.keys("blocks:reply:*"))
    assert_level(rig, rig.raw)


def test_person_saves_while_the_daemon_writes(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the reading and the exchange: both texts are in the file, and each is a revision."""
    real = Root.renameat2
    saves = iter(["\nmine 1", "\nmine 1\nmine 2"])

    def busy(root: Root, old: str, new: str, flags: int) -> None:
        if new.endswith("notes.md") and (more := next(saves, None)) is not None:
            (rig.root / "notes.md").write_text(NOTES.replace("one", f"one{more}"))
        real(root, old, new, flags)

    monkeypatch.setattr(Root, "renameat2", busy)
    sent = [
        ("ann", rig.send("ann", "append", "notes", content="from Ann")),
        ("bob", rig.send("bob", "append", "other", content="from Bob")),
    ]
    assert all(reply["ok"] for reply in rig.replies(*sent))
    lines = rig.value("notes").split("\n")
    assert sorted(lines) == ["from Ann", "mine 1", "mine 2", "one"]
    assert rig.value("other") == "for Bob\nfrom Bob"
    assert rig.temporaries() == []
    assert_level(rig, rig.raw)


@pytest.mark.parametrize("op", ["append", "delete"])
def test_person_saves_to_a_file_they_had_open_before(rig: Office, monkeypatch: pytest.MonkeyPatch, op: str) -> None:
    """They opened it before the exchange, which nobody can tell of another user's file, and write after it: that is a
    save as any other.
    """
    monkeypatch.setattr(Root, "has_writer", lambda *_: None)
    os.utime(rig.root / "notes.md", (1e9, 1e9))  # long ago, so that nobody asks whether it is being written
    rig.settle()
    args = {"content": "from Ann"} if op == "append" else {}
    sent = ("operator", rig.send("operator", op, "notes", **args))
    rig.pass_on()
    with (rig.root / "notes.md").open("r+") as file:
        for effect in effects(rig):
            if file.closed:
                break
            if effect == "clear away":
                file.write(NOTES.replace("one", "mine\none"))
                file.close()
                rig.core.intake.hint_file("notes.md", closed=True)
    rig.settle()
    assert rig.replies(sent)[0]["ok"]
    assert rig.value("notes").split("\n") == (["mine", "one", "from Ann"] if op == "append" else ["mine", "one"])
    assert rig.temporaries() == []
    assert_level(rig, rig.raw)


def test_request_to_a_file_that_is_being_saved_in_two_steps(rig: Office, ear: Ear) -> None:
    """It waits, and is done to the whole text; meanwhile what was in force is shown."""
    rig.write("notes", "")
    sent = ("ann", rig.send("ann", "append", "notes", content="from Ann"))
    for _ in range(8):
        rig.pass_on()
        rig.round()
        rig.clock.advance(0.05)
    assert rig.reply(*sent) is None
    assert rig.raw.hget("blocks:block:notes", "value") == "one"
    assert rig.text("notes") == ""
    rig.write("notes", NOTES.replace("one", "two"))
    assert rig.replies(sent)[0]["ok"]
    assert rig.value("notes") == "two\nfrom Ann"
    assert changes_of(ear, "notes") == [("file", 2, None), ("ann", 3, None)]


def test_request_to_a_file_that_was_emptied(rig: Office) -> None:
    """It is done when that is believed."""
    rig.write("other", "")
    assert rig.do("operator", "append", "other", content="more")["block"]["version"] == 3
    assert rig.value("other") == "more"


# --- merging back ---


def test_merge_brings_back_what_a_save_took(rig: Office) -> None:
    """All versions that the newest such save names, into what the block is now; and then there is nothing more to merge."""
    rig.do("ann", "append", "notes", content="from Ann")
    rig.do("bob", "append", "notes", content="from Bob")
    rig.clock.advance(60)
    rig.save_and_settle("notes", NOTES.replace("one", "one\nmine"))
    rig.do("ann", "insert", "notes", content="zero", line=0)
    reply = rig.do("operator", "merge", "notes")
    assert reply["block"]["version"] == 6
    assert sorted(rig.value("notes").split("\n")) == ["from Ann", "from Bob", "mine", "one", "zero"]
    assert rig.versions("notes")[0][:2] == (6, "operator")
    error = rig.refuse("operator", "merge", "notes")
    assert error["code"] == "invalid_request"
    assert error["message"] == "the text of versions 2 and 3 is in 'notes': there is nothing to merge"
    assert_level(rig, rig.raw)


def test_merge_names_all_that_conflict(rig: Office) -> None:
    """Nothing is merged; the reply says which versions cannot be, which can, and how."""
    rig.save_and_settle("notes", NOTES.replace("one", "one\n-\n-\n-\ntwo\n-\n-\n-"))
    rig.do("ann", "replace", "notes", old_content="one", new_content="Ann's one")
    rig.do("bob", "replace", "notes", old_content="two", new_content="Bob's two")
    rig.do("bob", "append", "notes", content="from Bob")
    rig.clock.advance(60)
    rig.save_and_settle("notes", NOTES.replace("one", "my one\n-\n-\n-\nmy two\n-\n-\n-"))
    error = rig.refuse("operator", "merge", "notes")
    assert (error["code"], error["versions"], error["mergeable"]) == ("merge_conflict", [3, 4], [5])
    assert error["message"].startswith("version 3 of 'notes' cannot be merged: ")
    assert error["message"].endswith("; nor can version 4; nothing was merged, and version 5 can be")
    assert error["hint"].startswith("to merge the others: blocksd merge notes 5; 'blocksd diff notes 2 3' shows")
    assert "from Bob" not in rig.value("notes")
    rig.do("operator", "merge", "notes", version=5)
    assert rig.value("notes").endswith("my two\n-\n-\n-\nfrom Bob")


def test_merge_of_one_version(rig: Office) -> None:
    """Any that is kept, with what it brought alone; an agent may, where it may restore."""
    rig.do("ann", "append", "notes", content="from Ann")
    rig.do("bob", "append", "notes", content="from Bob")
    rig.save_and_settle("notes", NOTES)
    rig.do("ann", "merge", "notes", version=3)
    assert rig.value("notes") == "one\nfrom Bob"
    rig.do("operator", "update", "notes", read_only=True)
    assert rig.refuse("ann", "merge", "notes", version=2)["code"] == "read_only"


def test_merge_of_what_made_the_block(rig: Office) -> None:
    """Before it there was nothing."""
    rig.do("ann", "create", "diary", value="from Ann")
    rig.save_and_settle("agents/ann/diary", "mine\n")
    assert rig.problem("merge agents/ann/diary")["hint"].endswith("blocksd merge agents/ann/diary")
    rig.do("ann", "merge", "diary")
    assert sorted(rig.value("agents/ann/diary").split("\n")) == ["from Ann", "mine"]


def test_merge_of_what_a_block_was_under_another_label(rig: Office) -> None:
    """The versions go with the block."""
    rig.do("ann", "append", "notes", content="from Ann")
    rig.save_and_settle("notes", NOTES)
    rig.do("operator", "rename", "notes", to="others")
    rig.do("operator", "merge", "others")
    assert rig.value("others") == "one\nfrom Ann"


@pytest.mark.parametrize(
    ("saved", "args", "code", "message"),
    [
        ("one\nmore", {}, "invalid_request", "no save of 'notes' took text away of late: there is nothing to merge"),
        ("mine", {}, "merge_conflict", "version 2 of 'notes' cannot be merged: both sides changed the same text"),
        ("mine", {"version": 9}, "not_found", "version 9 of 'notes' is not kept"),
        ("mine", {"version": 0}, "invalid_request", "version must be a whole number from 1"),
        ("mine", {"versions": 2}, "invalid_request", "merge takes no argument 'versions'"),
    ],
)
def test_merge_that_is_refused(rig: Office, saved: str, args: dict[str, Any], code: str, message: str) -> None:
    """It says why, and leaves the file alone."""
    rig.do("ann", "update", "notes", value="Ann's")
    rig.clock.advance(60)
    rig.save_and_settle("notes", NOTES.replace("one", saved.replace("one", "Ann's")))
    text = rig.text("notes")
    error = rig.refuse("operator", "merge", "notes", **args)
    assert error["message"].startswith(message)
    assert error["code"] == code
    if code == "merge_conflict":
        assert error["hint"] == "'blocksd diff notes 1 2' shows what it brought: add that by hand"
    assert rig.text("notes") == text


# --- crashes ---


def effects(rig: Rig) -> Iterator[str]:
    """The durable effects from now on, as they come."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        yield from rig.core.round()
        rig.clock.advance(max(rig.core.wait_seconds(), 0.001))


def crashed_at(rig: Office, number: int, done: Callable[[], bool]) -> str | None:
    """Crash before the durable effect of this number, from 0, and start again; None when all was done before it."""
    for count, effect in enumerate(effects(rig)):
        if done() and effect != "clear away":  # which comes after all that is waited for
            return None
        if count == number:
            rig.crash()
            rig.open()
            return effect
    pytest.fail("it is never done")


def mixed(rig: Office) -> list[tuple[str, str]]:
    """One request of each kind, in one round; the same again when they are sent again."""
    asked: list[tuple[str, str, str | None, dict[str, Any]]] = [
        ("operator", "append", "notes", {"content": "<1>"}),
        ("ann", "append", "notes", {"content": "<2>"}),
        ("operator", "create", "new/block", {"value": "<3>", "agents": ["dora"]}),
        ("bob", "rename", "persona", {"to": "self"}),
        ("operator", "delete", "other", {}),
        ("operator", "create_agent", None, {"agent": "carl", "attach": ["notes"]}),
        ("ann", "create", "diary", {"value": "<4>"}),
        ("ann", "replace", "none", {"old_content": "a", "new_content": "b"}),
        (
            "operator",
            "batch",
            None,
            {
                "requests": [
                    {"op": "append", "label": "notes", "args": {"content": "<5>"}},
                    {"op": "update", "label": "policy", "args": {"value": "<6>"}},
                    {"op": "attach", "label": "policy", "args": {"agents": ["eve"]}},
                ]
            },
        ),
        ("ann", "undo", "persona", {}),
        ("operator", "delete_agent", None, {"agent": "zoe"}),
        ("operator", "delete_agent", None, {"agent": "yan"}),
    ]
    return [
        (actor, rig.send(actor, op, where, request_id=f"m-{number}", **args))
        for number, (actor, op, where, args) in enumerate(asked)
    ]


def as_done(rig: Office) -> dict[str, Any]:
    """What all of it comes to: files, and the number of revisions of each block."""
    return {
        "files": {name: rig.read(name) for name in rig.names()},
        "versions": {head.label: head.version for head in rig.journal.heads()},
        "seq": rig.journal.seq,
    }


def crash_and_ask_again(rig: Office, number: int) -> str | None:
    """The requests of `mixed`, with a crash before a durable effect, and then once more; before which, or None."""
    rig.write("notes", NOTES)
    rig.write("policy", "---\nread_only: true\nagents: '*'\n---\nlaw\n")
    rig.write("other", "---\nagents: [bob]\n---\nfor Bob\n")
    rig.write("agents/ann/persona", "I was Ann.\n")
    rig.write("agents/bob/persona", "I am Bob.\n")
    rig.write("agents/zoe/old/plan", "to be forgotten\n")
    (rig.root / "agents/yan").mkdir()
    rig.settle()
    rig.save_and_settle("agents/ann/persona", "I am Ann.\n")
    assert rig.core.state.attachments.known >= {"yan", "zoe"}
    sent = mixed(rig)
    rig.pass_on()
    at = crashed_at(rig, number, lambda: all(rig.reply(*one) for one in sent))
    first = {one: rig.reply(*one) for one in sent}
    for actor, request_id in sent:
        rig.raw.delete(f"blocks:reply:{actor}:{request_id}")
    rig.settle()
    mixed(rig)
    rig.pass_on()
    rig.run(lambda: not any(rig.raw.xlen(f"blocks:inbox:{actor}") for actor, _ in sent), "all is done")
    rig.settle()
    for actor, request_id in sent:
        (text, *more) = rig.raw.lrange(f"blocks:reply:{actor}:{request_id}", 0, -1)
        assert all(json.loads(other) == json.loads(text) for other in more)
        reply = json.loads(text)
        assert reply["ok"] == (request_id != "m-7"), (at, reply)
        assert reply == (first[actor, request_id] or reply)
        rig.raw.delete(f"blocks:reply:{actor}:{request_id}", f"blocks:inbox:{actor}")
    return at


@pytest.mark.slow
def test_every_crash_is_survived(make: Callable[..., Office], raw: Any) -> None:
    """Before any durable effect: asked again under the same ids, each request is done, once, and replied to."""
    plain: dict[str, Any] | None = None
    seen: set[str | None] = set()
    for number in itertools.count():
        raw.flushall()
        rig = make(f"run{number}")
        at = crash_and_ask_again(rig, number)
        seen.add(at)
        assert rig.temporaries() == []
        assert Intents(rig.journal).prepared() is None
        assert_level(rig, raw)
        assert sorted(rig.value("notes").split("\n")) == ["<1>", "<2>", "<5>", "one"], at
        assert rig.core.state.attachments.known == {"ann", "bob", "carl", "dora"}, at
        done = as_done(rig)
        plain = plain or done
        assert done["versions"] == plain["versions"], (at, number)
        assert done == plain, (at, number)
        if at is None:
            break
    assert seen >= {"make folder", "stage", "prepare", "put in", "finish", "settle", "project"}


def crash_and_merge(rig: Office, number: int) -> str | None:
    """A stale save, with a crash before a durable effect; before which, or None."""
    rig.write("notes", NOTES)
    rig.settle()
    rig.do("ann", "append", "notes", content="from Ann")
    rig.write("notes", NOTES.replace("one", "zero\none"))
    at = crashed_at(rig, number, lambda: "from Ann" in rig.text("notes") and rig.is_settled())
    rig.settle()
    return at


def test_every_crash_of_a_merge_is_survived(make: Callable[..., Office], raw: Any) -> None:
    """A stale save is merged, once, whatever the daemon was about to do when it ended."""
    for number in itertools.count():
        raw.flushall()
        rig = make(f"run{number}")
        at = crash_and_merge(rig, number)
        assert rig.value("notes") == "zero\none\nfrom Ann", at
        assert [author for _, author, _ in rig.versions("notes")] == ["merge", "file", "ann", "file"], at
        assert_level(rig, raw)
        if at is None:
            break


@pytest.mark.parametrize("saved", ["before", "after"])
def test_crash_with_a_save_in_between(rig: Office, saved: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person saves just before or just after the exchange, and the daemon ends there: both texts are there."""
    real = Root.renameat2

    class Crash(BaseException):
        pass

    def busy(root: Root, old: str, new: str, flags: int) -> None:
        if saved == "before":
            (rig.root / "notes.md").write_text(NOTES.replace("one", "one\nmine"))
        real(root, old, new, flags)
        if saved == "after":
            (rig.root / "notes.md").write_text(NOTES.replace("one", "one\nfrom Ann\nmine"))
        raise Crash

    rig.send("ann", "append", "notes", content="from Ann", request_id="same")
    rig.pass_on()
    with monkeypatch.context() as patch:
        patch.setattr(Root, "renameat2", busy)
        with pytest.raises(Crash):
            rig.run(lambda: False)
    rig.crash()
    rig.open().settle()
    rig.do("ann", "append", "notes", content="from Ann", request_id="same")
    assert rig.value("notes").split("\n") in (["one", "mine", "from Ann"], ["one", "from Ann", "mine"])
    assert rig.temporaries() == []
    assert_level(rig, rig.raw)


# --- anything at all ---

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 30) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
LABELS = st.sampled_from(
    [
        "notes",
        "other",
        "policy",
        "persona",
        "agents/ann/persona",
        "agents/ann/x",
        "new",
        "New",
        "a/b",
        "../x",
        "",
        "agents/x",
    ]
) | st.text(max_size=10)
TEXTS = st.sampled_from(
    ["one", "two", "", "\n", "---\n", "1→ x", "@@\n+x\n", "@@ -1 +1 @@\n-one\n+1\n", "\0", "\ud800", "\r\n"]
) | st.text(max_size=20)
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "value": TEXTS | JSON,
        "content": TEXTS | JSON,
        "old_content": TEXTS,
        "new_content": TEXTS,
        "patch": TEXTS | JSON,
        "line": st.integers(-2, 5) | JSON,
        "version": st.integers(-1, 9) | JSON,
        "to": LABELS | JSON,
        "agents": st.lists(st.sampled_from(["ann", "bob", "zoe", "z*", "*", "", "a/b"]), max_size=3) | JSON,
        "agent": st.sampled_from(["ann", "zoe", "../x"]) | JSON,
        "blocks": st.lists(st.fixed_dictionaries({"name": LABELS}, optional={"value": TEXTS}), max_size=2) | JSON,
        "attach": st.lists(LABELS, max_size=2) | JSON,
        "limit": st.integers(-1, 30) | JSON,
        "description": TEXTS | JSON,
        "tags": JSON,
        "metadata": JSON,
        "read_only": st.booleans() | JSON,
        "file": LABELS,
    },
)
EXPECTED = st.fixed_dictionaries({"version": st.integers(0, 9)}) | JSON


def requests(arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"op": st.sampled_from(OPS)},
        optional={
            "label": LABELS | JSON,
            "name": LABELS | JSON,
            "args": arguments,
            "expect": EXPECTED,
            "on_conflict": st.sampled_from(["fail", "merge", "overwrite"]) | JSON,
        },
    )


BATCHES = requests(ARGUMENTS) | st.fixed_dictionaries(
    {
        "op": st.just("batch"),
        "args": st.fixed_dictionaries({"requests": st.lists(requests(ARGUMENTS), max_size=3) | JSON}),
    }
)


@pytest.fixture
def fuzzed(tmp_path: Path, server: RedisServer, raw: Any) -> Iterator[Office]:
    office = Office(tmp_path / "fuzzed", server.url, raw)
    office.write("notes", NOTES)
    office.write("policy", "---\nread_only: true\nagents: '*'\n---\nlaw\n")
    office.write("agents/ann/persona", "I am Ann.\n")
    office.settle()
    yield office
    office.crash()


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(st.tuples(st.sampled_from(["operator", "ann"]), BATCHES | JSON), min_size=1, max_size=4))
def test_anything_may_be_asked(fuzzed: Office, asked: list[tuple[str, Any]]) -> None:
    """Whatever comes in: who gives an id is replied to once, nothing is left lying about, and all stays level."""
    sent = []
    for actor, request in asked:
        request_id = f"f-{next(fuzzed.numbers)}"
        whole = {"id": request_id, **request} if isinstance(request, dict) else request
        sent += [(actor, request_id)] if isinstance(request, dict) else []
        fuzzed.raw.xadd(f"blocks:inbox:{actor}", {"request": json.dumps(whole)})
    replies = fuzzed.replies(*sent)
    for reply in replies:
        assert reply["ok"] or reply["error"]["code"] != "error", reply
    fuzzed.run(lambda: not any(fuzzed.raw.xlen(f"blocks:inbox:{actor}") for actor in ("operator", "ann")))
    assert fuzzed.temporaries() == []
    assert Intents(fuzzed.journal).prepared() is None
    fuzzed.settle()
    assert_agreed(fuzzed)


def assert_agreed(rig: Office) -> None:
    """Files, ledger and mirror say the same."""
    for label, path in rig.core.state.paths.items():
        block = rig.core.state.block(label)
        assert parse((rig.root / path).read_bytes(), label) == block, label
        assert block is not None
        assert rig.raw.hget(f"blocks:block:{label}", "value") == block.value
    files = {name.removesuffix(".md") for name in rig.names() if name.endswith(".md")}
    assert files == set(rig.core.state.paths)
    assert set(rig.raw.zrange("blocks:labels", 0, -1)) == files
    for key in rig.raw.scan_iter("blocks:reply:*"):
        rig.raw.delete(key)


# --- who is told ---


def test_listeners_hear_of_every_reply_once(rig: Office) -> None:
    """What was asked for and what came of it, refusals and what is no request included; the reply to a repetition, too."""
    rig.do("operator", "create", "new", value="one")
    again = rig.send("operator", "append", "new", content="two")
    rig.replies(("operator", again))
    rig.send("operator", "append", "new", request_id=again, content="two")
    rig.replies(("operator", again))
    rig.refuse("operator", "append", "missing", content="x")
    rig.raw.xadd("blocks:inbox:operator", {"request": "no JSON"})
    rig.pass_on()
    rig.settle()
    told = [(answer.op, answer.outcome) for answer in rig.heard.answers]
    assert told == [
        ("create", "ok"),
        ("append", "ok"),
        ("append", "ok"),
        ("append", "not_found"),
        (None, "invalid_request"),
    ]


def test_listeners_hear_of_no_reply_that_was_lost(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """While Redis is away nobody is replied to; once it is back, and the reply was made, that counts once."""

    def lose(*_: Any) -> None:
        raise Unavailable("nobody is there")

    with monkeypatch.context() as patch:
        patch.setattr(rig.mirror, "project", lose)
        request = rig.send("operator", "append", "notes", content="two")
        rig.pass_on()
        rig.run(lambda: rig.heard.away)
    assert rig.heard.answers == []
    rig.settle()
    rig.replies(("operator", request))
    assert [(answer.op, answer.outcome) for answer in rig.heard.answers] == [("append", "ok")]


CONFLICT = "<<<<<<< HEAD\nA\n=======\nB\n>>>>>>> theirs"


@pytest.mark.parametrize("op", ["update", "append", "create", "replace"])
def test_no_request_writes_what_would_be_a_problem(rig: Office, op: str) -> None:
    """A conflict that Git has left is refused, with a way to write about one; in a code block it is text."""
    rig.save_and_settle("notes", "---\nagents: [ann]\nlimit: 500\n---\none\n")
    args = {
        "update": {"value": CONFLICT},
        "append": {"content": CONFLICT},
        "create": {"value": CONFLICT},
        "replace": {"old_content": "one", "new_content": CONFLICT},
    }[op]
    label = "conflicts" if op == "create" else "notes"
    error = rig.refuse("operator", op, label, **args)
    assert error["code"] == "invalid_request", error
    assert "code block" in error["message"]
    key = [*args][-1]
    rig.do("operator", op, label, **{**args, key: f"```\n{CONFLICT}\n```"})


@pytest.mark.parametrize("head", ["", "---\nagents: [ann]\n---\n"])
def test_value_that_begins_like_a_frontmatter(rig: Office, head: str) -> None:
    """It is written so that it is read back as the value, and attaches nobody."""
    rig.save_and_settle("notes", f"{head}one\n")
    value = "---\nread_only: true\nagents: [eve]\n---\nX"
    rig.do("operator", "update", "notes", value=value)
    rig.do("operator", "update", "notes", limit=900)
    rig.do("operator", "append", "notes", content="more")
    rig.settle()
    block = rig.core.state.block("notes")
    assert block is not None
    assert (block.value, block.read_only) == (f"{value}\nmore", False)
    assert "eve" not in rig.core.state.attachments.known
