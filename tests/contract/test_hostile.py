"""Requests that are too large, too deep, too many or meant to harm: each ends itself at most, and nobody else waits."""

from __future__ import annotations

import difflib
import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import Unavailable
from blocksd.files import document as documents
from blocksd.files import file_edit
from blocksd.files.document import Parser
from blocksd.files.writer import Writer
from blocksd.model.label import clash_key as clash_key_of
from blocksd.model.problem import INTERNAL
from blocksd.requests import answers, changeset, operations
from blocksd.requests import workspace as workspaces
from blocksd.requests.inbox import ATTEMPTS, _Key
from blocksd.requests.operations import Operations
from blocksd.requests.reply import carried_out as real_reply
from blocksd.requests.request import Entry
from blocksd.settings.config import SourceSettings
from blocksd.state.state_draft import StateDraft
from rig import Rig, assert_level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blocksd.files.document import Document
    from blocksd.model.block import Block
    from blocksd.model.faults import Fault
    from support import RedisServer


class Office(Rig):
    """A daemon whose inboxes are passed on by hand."""

    numbers = itertools.count(1)

    def put(self, actor: str, **request: Any) -> str:
        """Put a request into an inbox; its id."""
        request_id = f"h-{next(self.numbers)}"
        self.put_text(actor, json.dumps({"id": request_id, **request}))
        return request_id

    def put_text(self, actor: str, text: str) -> None:
        self.client.xadd(f"blocks:inbox:{actor}", {"request": text})

    def pass_on(self) -> None:
        for key in sorted(self.client.scan_iter("blocks:inbox:*")):
            actor = key.removeprefix("blocks:inbox:")
            self.core.inbox.add(Entry(actor, one, fields.get("request")) for one, fields in self.client.xrange(key))

    def reply(self, actor: str, request_id: str) -> dict[str, Any]:
        """What is replied; it is taken away."""
        key = f"blocks:reply:{actor}:{request_id}"
        self.run(lambda: self.client.exists(key), f"a reply to {request_id}")
        (text,) = self.client.lrange(key, 0, -1)
        self.client.delete(key)
        reply: dict[str, Any] = json.loads(text)
        return reply

    def ask(self, actor: str, op: str, where: str | None = None, **args: Any) -> dict[str, Any]:
        named = {} if where is None else {"label" if actor == "operator" else "name": where}
        request_id = self.put(actor, op=op, args=args, **named)
        self.pass_on()
        return self.reply(actor, request_id)

    def value(self, label: str) -> str:
        head = self.journal.head(label)
        assert head is not None
        assert head.block is not None
        return head.block.value


@pytest.fixture
def server(standing_server: Callable[[str], RedisServer]) -> RedisServer:
    return standing_server("valkey")


@pytest.fixture
def rig(tmp_path: Path, server: RedisServer) -> Iterator[Office]:
    """Two agents; a block for both."""
    manuals = tmp_path / "manuals"
    manuals.mkdir()
    (manuals / "a.txt").write_text("A\n")
    office = Office(tmp_path, server.url, sources=(SourceSettings("manuals", str(manuals), agents=("*",)),))
    office.write("notes", "---\nagents: [ann, bob]\n---\none\n")
    office.write("all", "---\nagents: '*'\n---\nfor all\n")
    office.write("agents/ann/persona", "I am Ann.\n")
    office.settle()
    yield office
    assert_level(office, office.client) if False else None
    office.crash()


# --- one fault, one casualty ---

DEADLY: dict[str, str] = {
    "version over 64 bits": '{"id": "x", "op": "restore", "label": "notes", "args": {"version": 9223372036854775808}}',
    "expected version over 64 bits": '{"id": "x", "op": "append", "label": "notes", "args": {"content": "x"}, '
    '"expect": {"version": 9223372036854775808}, "on_conflict": "merge"}',
    "line over 64 bits": '{"id": "x", "op": "insert", "label": "notes", "args": {"content": "x", "line": 1e400}}',
    "digits": '{"id": "x", "op": "restore", "label": "notes", "args": {"version": ' + "9" * 5000 + "}}",
    "metadata with many digits": '{"id": "x", "op": "update", "label": "notes", "args": {"metadata": {"a": '
    + "9" * 100
    + "}}}",
    "lists in lists": '{"id": "x", "op": "append", "label": "notes", "args": {"content": '
    + "[" * 900
    + "]" * 900
    + "}}",
    "far deeper": '{"id": "x", "op": "append", "args": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "half a character": '{"id": "x", "op": "append", "label": "notes", "args": {"content": "\\ud800"}}',
    "half a character in a name": '{"id": "x", "op": "create", "label": "\\udfff"}',
    "combining marks": json.dumps({"id": "x", "op": "create", "label": "a" + "\u0301\u0327" * 100_000}),
    "combining marks of an agent": json.dumps(
        {"id": "x", "op": "create_agent", "args": {"agent": "a" + "\u0301\u0327" * 100_000}}
    ),
    "combining marks in a list": json.dumps(
        {"id": "x", "op": "attach", "label": "notes", "args": {"agents": ["a" + "\u0301\u0327" * 100_000]}}
    ),
    "a long label": json.dumps({"id": "x", "op": "append", "label": "a/" * 400_000, "args": {"content": "x"}}),
}


@pytest.mark.parametrize("text", DEADLY.values(), ids=DEADLY)
def test_what_no_number_depth_or_name_may_be_is_refused(rig: Office, text: str) -> None:
    """With a reply, before anything is done with it; nothing has failed, and the next request is served."""
    rig.put_text("operator", text)
    rig.pass_on()
    reply = rig.reply("operator", "x")
    assert reply["error"]["code"] == "invalid_request"
    assert len(reply["error"]["message"]) < 400
    assert rig.core.faults.count == 0
    assert rig.ask("ann", "append", "notes", content="two")["ok"]
    assert not rig.client.xlen("blocks:inbox:operator")


class Failing:
    """A part of the program that fails each time."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.is_on = True

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [OverflowError("too large"), MemoryError(), RecursionError(), KeyError("label")])
def test_whatever_fails_ends_one_request(rig: Office, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """It is refused, removed, logged once with its traceback, counted, and shown; those beside it in the round are done."""
    faults: list[tuple[Fault, bool]] = []
    monkeypatch.setattr(rig.heard, "on_fault", lambda fault, is_new: faults.append((fault, is_new)), raising=False)
    monkeypatch.setattr(Operations, "_insert", Failing(error))
    for number in range(3):
        before = rig.put("operator", op="append", label="notes", args={"content": f"before {number}"})
        bad = rig.put("operator", op="insert", label="notes", args={"content": "x"})
        after = rig.put("operator", op="append", label="notes", args={"content": f"after {number}"})
        rig.pass_on()
        assert rig.reply("operator", before)["ok"]
        refusal = rig.reply("operator", bad)["error"]
        assert (refusal["code"], refusal["error"]) == ("internal_error", type(error).__name__)
        assert rig.reply("operator", after)["ok"]
    assert rig.value("notes").count("\n") == 6
    assert not rig.client.xlen("blocks:inbox:operator")
    assert [is_new for _, is_new in faults] == [True, False, False]
    assert "test_hostile.py" in faults[0][0].text
    assert "Traceback" in faults[0][0].text or "raise self.error" in faults[0][0].text
    problem = rig.core.problems[INTERNAL]
    assert (problem.code, problem.warning) == ("internal_error", True)
    rig.settle()
    assert json.loads(rig.client.hget("blocks:problems", INTERNAL))["code"] == "internal_error"


def test_failure_after_a_request_was_decided_takes_it_back(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, files and revisions alike, and none of what was decided before it in the same round."""
    first = rig.put("operator", op="append", label="notes", args={"content": "two"})
    bad = rig.put("operator", op="create_agent", args={"agent": "zoe", "attach": ["notes"]})
    real = StateDraft.follow_folders

    def follow_folders(draft: StateDraft, *args: Any, **options: Any) -> None:
        real(draft, *args, **options)
        if "zoe" in draft.attachments.known:
            raise OverflowError

    monkeypatch.setattr(StateDraft, "follow_folders", follow_folders)
    rig.pass_on()
    assert rig.reply("operator", first)["ok"]
    assert rig.reply("operator", bad)["error"]["code"] == "internal_error"
    assert not (rig.root / "agents/zoe").exists()
    assert (rig.root / "notes.md").read_text() == "---\nagents: [ann, bob]\n---\none\ntwo\n"
    assert "zoe" not in rig.core.state.attachments.known
    rig.settle()


def test_reply_that_cannot_be_made_takes_its_request_back(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block was decided on by then: neither its file nor its history has changed."""

    def carried_out(request: Any, facts: Any, newest: Any) -> tuple[str, str]:
        if request.id == bad:
            raise MemoryError
        return real_reply(request, facts, newest)

    monkeypatch.setattr(operations, "carried_out", carried_out)
    bad = rig.put("operator", op="append", label="notes", args={"content": "lost"})
    good = rig.put("operator", op="append", label="all", args={"content": "kept"})
    rig.pass_on()
    assert rig.reply("operator", bad)["error"]["code"] == "internal_error"
    assert rig.reply("operator", good)["ok"]
    assert (rig.root / "notes.md").read_text().endswith("\none\n")
    assert rig.value("notes") == "one"
    assert rig.ask("operator", "append", "notes", content="two")["block"]["value"] == "one\ntwo"


def test_whatever_fails_ends_the_look_at_one_file(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a problem; its last good version stays in force; other files are read, and it is, once it can be."""
    real = Parser.parse

    def parse(parser: Parser, data: bytes, label: str, **how: Any) -> Any:
        if b"deadly" in data:
            raise RecursionError
        return real(parser, data, label, **how)

    monkeypatch.setattr(Parser, "parse", parse)
    rig.write("notes", "deadly\n")
    rig.write("other", "fine\n")
    rig.settle()
    assert rig.value("other") == "fine"
    assert rig.value("notes") == "one"
    problem = rig.core.problems["notes.md"]
    assert (problem.code, problem.label) == ("internal_error", "notes")
    count = rig.core.faults.count
    rig.resync()
    assert rig.core.faults.count == count, "a file that has not changed is not looked at again"
    rig.write("notes", "harmless\n")
    rig.settle()
    assert rig.value("notes") == "harmless"
    assert "notes.md" not in rig.core.problems


# --- rounds have bounds ---


def test_edits_of_a_block_in_a_batch_are_one_revision(rig: Office) -> None:
    """And its file is made, and read back, once; the reply has each part, and the block once."""
    parts: list[dict[str, Any]] = [{"op": "append", "label": "notes", "args": {"content": f"{n}"}} for n in range(50)]
    parts.insert(20, {"op": "update", "label": "notes", "args": {"description": "d"}})
    parts.insert(30, {"op": "replace", "label": "notes", "args": {"old_content": "one", "new_content": "1"}})
    parts.append({"op": "append", "label": "all", "args": {"content": "x"}})
    reply = rig.ask("operator", "batch", requests=parts)
    assert reply["ok"]
    assert rig.value("notes") == "\n".join(["1", *map(str, range(50))])
    history = rig.journal.history("notes")
    assert [(one.version, one.fields) for one in history] == [(2, ("value", "description")), (1, ("value", "agents"))]
    results = reply["results"]
    assert [one["label"] for one in results] == ["notes"] * 52 + ["all"]
    assert {one["seq"] for one in results[:52]} == {history[0].seq}
    assert [number for number, one in enumerate(results) if "block" in one] == [0, 52]
    assert results[0]["block"]["value"] == rig.value("notes")
    assert results[0]["block"]["description"] == "d"


def test_appends_of_a_batch_put_the_value_together_once(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand appends to a long block cost what they append, and the block a few times: its file is made once."""
    limit = 3_000_000
    rig.write("long", f"---\nlimit: {limit}\n---\n" + "x" * 1_000_000 + "\n")
    rig.settle()
    made: list[int] = []
    changesets: list[changeset.Changeset] = []

    def edited(document: Document, block: Block, new: Block) -> Document:
        made.append(1)
        return real(document, block, new)

    def watched(*args: Any, **options: Any) -> changeset.Changeset:
        changesets.append(changeset.Changeset(*args, **options))
        return changesets[-1]

    real = documents.edited
    monkeypatch.setattr(documents, "edited", edited)
    monkeypatch.setattr(operations, "Changeset", watched)
    parts = [{"op": "append", "label": "long", "args": {"content": f"line {n}"}} for n in range(1000)]
    assert rig.ask("operator", "batch", requests=parts)["ok"]
    assert rig.value("long").endswith("\nline 999")
    assert (len(made), len(changesets)) == (1, 1)
    assert changesets[0].work < 4_000_000


def test_batch_that_takes_too_much_work_is_refused(rig: Office) -> None:
    """With a sentence that says so, and nothing done."""
    rig.write("long", "---\nlimit: 4000000\n---\n" + "a\n" * 900_000)
    rig.settle()
    patch = {"op": "patch", "label": "long", "args": {"patch": "@@ -0,0 +1 @@\n+b\n"}}
    error = rig.ask("operator", "batch", requests=[patch] * 100)["error"]
    assert (error["code"], error["limit"]) == ("limit_exceeded", changeset.MAX_WORK)
    assert "work" in error["message"]
    assert error["request"] < 10
    assert rig.journal.history("long")[0].version == 1


def test_patch_of_many_hunks_that_must_be_searched_is_refused(rig: Office) -> None:
    """Each is searched for in the whole value: it is told to give line ranges, or fewer of them."""
    rig.write("long", "---\nlimit: 4000000\n---\n" + "".join(f"line {n}\n" for n in range(100_000)))
    rig.settle()
    patch = "".join(f"@@\n-line {n}\n+x\n" for n in range(40_000))
    error = rig.ask("operator", "patch", "long", patch=patch)["error"]
    assert (error["code"], error["limit"]) == ("limit_exceeded", changeset.MAX_WORK)
    exact = "".join(f"@@ -{n + 1} +{n + 1} @@\n-line {n}\n+x\n" for n in range(20_000))
    assert rig.ask("operator", "patch", "long", patch=exact)["ok"]


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("create_agent", {"agent": "zoe", "blocks": [{"name": f"b{n}"} for n in range(1001)]}),
        (
            "batch",
            {
                "requests": [
                    {
                        "op": "create_agent",
                        "args": {"agent": f"z{n}", "blocks": [{"name": f"b{m}"} for m in range(100)]},
                    }
                    for n in range(11)
                ]
            },
        ),
    ],
    ids=["create_agent", "batch"],
)
def test_request_has_a_bound_of_blocks(rig: Office, op: str, args: dict[str, Any]) -> None:
    """It is told which; nothing is done."""
    error = rig.ask("operator", op, **args)["error"]
    assert error["code"] in ("invalid_request", "limit_exceeded")
    assert "1000" in error["message"]
    assert not [name for name in (rig.root / "agents").iterdir() if name.name != "ann"]


def test_agent_with_many_blocks_costs_what_it_has(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its names is compared with a few others, not with all."""
    calls = 0
    real = clash_key_of

    def clash_key(label: str) -> str:
        nonlocal calls
        calls += 1
        return real(label)

    monkeypatch.setattr(changeset, "clash_key", clash_key)
    monkeypatch.setattr(changeset, "name_for_agent", clash_key)
    reply = rig.ask("operator", "create_agent", agent="zoe", blocks=[{"name": f"b{n}"} for n in range(200)])
    assert reply["ok"]
    assert len(reply["results"]) == 200
    assert calls < 200 * 12


def test_round_ends_when_it_has_much_to_write(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that are over it wait for the next round, in their order; each is replied to."""
    size = 100_000
    monkeypatch.setattr(answers, "ROUND", 8 * size // 3)
    rig.write("long", f"---\nlimit: {size + 100_000}\n---\n" + "x" * size + "\n")
    rig.settle()
    sent = [rig.put("operator", op="append", label="long", args={"content": str(n)}) for n in range(8)]
    rig.pass_on()
    rounds = 0
    while not rig.client.exists(f"blocks:reply:operator:{sent[-1]}"):
        seq = rig.journal.seq
        rig.round()
        assert rig.journal.seq - seq <= 3, "a round's bound and one request over it"
        rounds += 1
        assert rounds < 30
    assert all(rig.reply("operator", one)["ok"] for one in sent)
    assert rounds >= 3
    assert rig.value("long").endswith("\n".join(map(str, range(8))))


def test_reply_to_a_batch_has_a_bound(rig: Office) -> None:
    """Of the blocks that it does not show it tells label, seq and version."""
    labels = [f"b{n}" for n in range(4)]
    for label in labels:
        rig.write(label, "---\nlimit: 500000\n---\n" + "x" * 400_000 + "\n")
    rig.settle()
    parts = [{"op": "append", "label": label, "args": {"content": "y"}} for label in labels]
    reply = rig.ask("operator", "batch", requests=parts)
    assert ["block" in one for one in reply["results"]] == [True, True, False, False]
    assert [one["version"] for one in reply["results"]] == [2] * 4
    assert len(json.dumps(reply)) < 1_200_000


# --- what ends the daemon ---


class Killed(BaseException):
    """The process is gone."""


def test_request_that_ends_the_daemon_is_refused(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it was begun three times; it is logged, and those that were sent with it are done, each once."""
    real = Operations.do

    def do(operations: Operations, op: str, request: Any) -> Any:
        if op == "delete":
            raise Killed
        return real(operations, op, request)

    monkeypatch.setattr(Operations, "do", do)
    good = rig.put("operator", op="append", label="notes", args={"content": "two"})
    bad = rig.put("operator", op="delete", label="notes")
    late = rig.put("operator", op="append", label="notes", args={"content": "three"})
    deaths = 0
    while deaths <= ATTEMPTS and not rig.client.exists(f"blocks:reply:operator:{late}"):
        rig.pass_on()
        try:
            rig.run(lambda: rig.client.exists(f"blocks:reply:operator:{late}"))
        except Killed:
            deaths += 1
            rig.crash()
            rig.open().settle()
    assert deaths == ATTEMPTS
    assert rig.reply("operator", bad)["error"]["code"] == "internal_error"
    assert rig.reply("operator", good)["ok"]
    assert rig.reply("operator", late)["ok"]
    assert rig.value("notes") == "one\ntwo\nthree"
    assert "begun 3 times" in rig.core.problems[INTERNAL].message or rig.core.faults.count == 1
    monkeypatch.setattr(Operations, "do", real)
    assert rig.ask("operator", "delete", "notes")["ok"], "another request is not suspected"


def test_suspect_is_begun_though_another_waits_for_a_file(rig: Office) -> None:
    """Each suspect is begun alone, in its turn: one whose file is open for writing does not keep the next from it."""
    rig.ask("operator", "create", "other")
    with (rig.root / "notes.md").open("rb+"):
        waits = rig.put("operator", op="append", label="notes", args={"content": "two"})
        suspect = rig.put("operator", op="append", label="other", args={"content": "two"})
        found = rig.client.xrange("blocks:inbox:operator")
        rig.core._started.counts.update({_Key("operator", entry_id): ATTEMPTS - 1 for entry_id, _ in found})
        rig.pass_on()
        rig.run(lambda: rig.client.exists(f"blocks:reply:operator:{suspect}"))
        assert not rig.client.exists(f"blocks:reply:operator:{waits}")
        assert rig.reply("operator", suspect)["ok"]


def test_request_that_waits_is_not_taken_for_one_that_ends_the_daemon(
    rig: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the daemon is killed meanwhile: it was not under way."""
    with monkeypatch.context() as patch:
        patch.setattr(workspaces.Workspace, "open", Failing(file_edit.Postponed("notes.md")))
        sent = rig.put("operator", op="append", label="notes", args={"content": "two"})
        for _ in range(ATTEMPTS + 1):
            rig.pass_on()
            for _ in range(3):
                rig.round()
                rig.clock.advance(0.1)
            rig.crash()
            rig.open().settle()
    rig.pass_on()
    assert rig.reply("operator", sent)["ok"]


# --- an agent that is deleted ---


def test_deleted_agent_is_gone_though_files_are_left(rig: Office) -> None:
    """The reply names them; blocks for everybody no longer count it; whoever has the name next begins with nothing open."""
    home = rig.root / "agents/ann"
    (home / ".DS_Store").write_bytes(b"x")
    (home / "drafts").mkdir()
    (home / "drafts/photo.png").write_bytes(b"x")
    assert rig.ask("ann", "open_file", file="manuals/a.txt")["ok"]
    assert rig.client.hkeys("blocks:open:ann") == ["manuals/a.txt"]
    reply = rig.ask("operator", "delete_agent", agent="ann")
    assert (reply["ok"], reply["left"]) == (True, ["agents/ann/drafts/photo.png"])
    for _ in range(2):
        rig.resync()
        assert rig.client.zscore("blocks:agents", "ann") is None
        assert rig.client.smembers("blocks:attached:all") == {"bob"}
        assert not rig.client.exists("blocks:open:ann", "blocks:inbox:ann", "blocks:agent:ann")
        rig.crash()
        rig.open()
        rig.settle()
    assert (home / "drafts/photo.png").exists()
    assert not (home / ".DS_Store").exists() or (home / "drafts").exists()
    error = rig.ask("operator", "create_agent", agent="ann", blocks=[])["error"]
    assert (error["code"], "photo.png" in error["message"]) == ("invalid_request", True)
    assert rig.ask("operator", "create_agent", agent="ann")["ok"]
    rig.settle()
    assert not rig.client.exists("blocks:open:ann")
    assert rig.client.zscore("blocks:agents", "ann") == 0


def test_agent_stays_for_as_long_as_a_block_of_its_is_refused(rig: Office) -> None:
    """That block is named, and nobody is told that the agent went and came."""
    (rig.root / "agents/ann/bad.md").write_text("---\n")
    rig.resync()
    seq = rig.journal.seq
    reply = rig.ask("operator", "delete_agent", agent="ann")
    assert (reply["ok"], reply["left"]) == (True, ["agents/ann/bad.md"])
    rig.resync()
    assert "ann" in rig.client.smembers("blocks:attached:all")
    assert [one.label for one in rig.journal.since(seq, 10)] == ["agents/ann/persona", "notes"]
    (rig.root / "agents/ann/bad.md").unlink()
    rig.resync()
    rig.clock.advance(5)
    rig.settle()
    reply = rig.ask("operator", "delete_agent", agent="ann")
    assert (reply["ok"], reply["left"]) == (True, [])
    assert rig.client.smembers("blocks:attached:all") == {"bob"}


def test_deleted_agent_asks_in_vain(rig: Office) -> None:
    """What it had asked for and is not done would bring it back: it is refused, in the same round, too."""
    gone = rig.put("operator", op="delete_agent", args={"agent": "ann"})
    rig.pass_on()
    late = rig.put("ann", op="create", name="diary", args={"value": "I am still here"})
    rig.core.inbox.add([Entry("ann", one, f["request"]) for one, f in rig.client.xrange("blocks:inbox:ann")])
    assert rig.reply("operator", gone)["ok"]
    assert rig.reply("ann", late)["error"]["code"] == "not_found"
    rig.resync()
    assert not (rig.root / "agents/ann").exists()
    assert not rig.client.exists("blocks:inbox:ann")


@pytest.mark.parametrize("is_at_once", [False, True])
def test_agent_that_comes_again_has_nothing_open(rig: Office, *, is_at_once: bool) -> None:
    """Neither in the same batch, nor later."""
    assert rig.ask("operator", "open_file", agent="ann", file="manuals/a.txt")["ok"]
    parts: list[dict[str, Any]] = [
        {"op": "delete_agent", "args": {"agent": "ann"}},
        {"op": "create_agent", "args": {"agent": "ann"}},
    ]
    for some in [parts] if is_at_once else [[part] for part in parts]:
        assert rig.ask("operator", "batch", requests=some)["ok"]
        rig.settle()
    assert rig.client.zscore("blocks:agents", "ann") == 0
    assert not rig.client.exists("blocks:open:ann")
    assert rig.core.sources.opened_by("ann") == []


def test_open_files_are_closed_though_the_daemon_ends_at_once(rig: Office) -> None:
    """At each moment after the agent's files are gone."""
    for effect in ("remove folders", "settle", "project"):
        assert rig.ask("operator", "open_file", agent="ann", file="manuals/a.txt")["ok"]
        rig.put("operator", op="delete_agent", args={"agent": "ann"})
        rig.pass_on()
        for name in itertools.chain.from_iterable(rig.core.round() for _ in range(5)):
            if name == effect:
                break
        rig.crash()
        rig.open()
        rig.settle()
        assert "ann" not in rig.core.state.attachments.known, effect
        assert rig.ask("operator", "create_agent", agent="ann")["ok"]
        rig.settle()
        assert not rig.client.exists("blocks:open:ann"), effect


# --- undo and redo past a deletion ---


def test_undo_and_redo_pass_deletions(rig: Office) -> None:
    """A block that was deleted and came again is deleted by undo, and then brought back; redo goes the same way."""
    said: list[str | None] = ["one"]
    rig.ask("operator", "delete", "notes")
    said.append(None)
    rig.ask("operator", "create", "notes", value="again")
    said.append("again")
    rig.ask("operator", "append", "notes", content="more")
    said.append("again\nmore")
    for op, states in (("undo", said[-2::-1]), ("redo", said[1:])):
        for state in states:
            reply = rig.ask("operator", op, "notes")
            assert reply["ok"], reply
            assert (reply["block"] and reply["block"]["value"]) == state
            assert (rig.root / "notes.md").exists() is (state is not None)
            rig.settle()
        assert rig.ask("operator", op, "notes")["error"]["code"] == "invalid_request"


def test_agent_undoes_what_it_may_undo(rig: Office) -> None:
    """The return of its own block, and not that of a shared one."""
    for op in ("delete", "create"):
        assert rig.ask("ann", op, "persona")["ok"]
    assert rig.ask("ann", "undo", "persona")["block"] is None
    assert rig.ask("ann", "redo", "persona")["block"]["value"] == ""
    rig.ask("operator", "delete", "notes")
    rig.ask("operator", "create", "notes", agents=["ann"])
    assert rig.ask("ann", "undo", "notes")["error"]["code"] == "invalid_request"
    assert rig.value("notes") == ""


# --- what cannot be written ---


def test_stale_save_that_cannot_be_merged_is_tried_less_and_less(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shown for as long as it lasts, nothing is read anew for it, and it is merged when it can be."""
    tries = 0
    real = Writer.stage

    def stage(*_: Any) -> Any:
        nonlocal tries
        tries += 1
        raise Unavailable("notes.md cannot be written: Permission denied", path="notes.md")

    assert rig.ask("ann", "append", "notes", content="two")["ok"]
    monkeypatch.setattr(Writer, "stage", stage)
    monkeypatch.setattr(rig.journal, "heads", lambda: pytest.fail("all blocks were read"))
    rig.write("notes", "---\nagents: [ann, bob]\n---\none\nthree\n")
    for _ in range(600):
        rig.round()
        rig.clock.advance(1.0)
    assert 5 <= tries <= 12
    problem = rig.core.problems["merge notes"]
    assert (problem.code, problem.warning, problem.label) == ("unmerged", True, "notes")
    monkeypatch.setattr(Writer, "stage", real)
    rig.clock.advance(300)
    rig.settle()
    assert rig.value("notes") == "one\ntwo\nthree"
    assert "merge notes" not in rig.core.problems


# --- guesses ---


def test_nobody_waits_for_a_guess(rig: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label that is not there, among many long ones like it, is compared with few of them."""
    compared = 0
    real = difflib.SequenceMatcher.ratio

    def ratio(matcher: difflib.SequenceMatcher[str]) -> float:
        nonlocal compared
        compared += 1
        return real(matcher)

    monkeypatch.setattr(difflib.SequenceMatcher, "ratio", ratio)
    stem = "/".join(["x" * 40] * 4)
    for number in range(300):
        rig.write(f"{stem}/b{number}", "x\n")
    rig.settle()
    error = rig.ask("operator", "append", f"{stem}/b1000", content="x")["error"]
    assert error["code"] == "not_found"
    assert compared <= 3
    assert rig.ask("operator", "append", "note", content="x")["error"]["near"] == ["notes"]
