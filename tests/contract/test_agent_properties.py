"""The properties of agents, `agents/<agent>/agent.yaml`, through the whole daemon on a real server."""

from __future__ import annotations

import itertools
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from blocksd import Client
from blocksd.errors import NotFound
from blocksd.mirror.view import VersionView
from blocksd.model.label import properties_label
from blocksd.model.revision import Change
from blocksd.requests.request import OPS, Entry
from rig import Ear, Rig, assert_level
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import RedisServer

SAM = "# who Sam is\nname: Sam   # for people\ntags: [a]\n\nsystem: |\n  You are Sam.\n"
INFO = "blocks:agent-info:sam"
LABEL = "agents/sam/agent.yaml"
NUMBERS = itertools.count(1)

ARGS: dict[str, dict[str, Any]] = {
    "create": {"value": "x"},
    "update": {"value": "{}"},
    "append": {"content": "x"},
    "replace": {"old_content": "Sam", "new_content": "Boss"},
    "insert": {"content": "x"},
    "patch": {"patch": "@@\n-a\n+b\n"},
    "delete": {},
    "undo": {},
    "redo": {},
    "restore": {"version": 1},
    "merge": {},
    "rename": {"to": "x"},
    "attach": {"agents": ["kim"]},
    "detach": {"agents": ["sam"]},
    "history": {},
    "version": {"version": 1},
}
"""Each op on one block, with arguments that are right."""
OF_READERS = {"history", "version"}
"""Those by which an operator may read the versions of properties."""
OF_VERSIONS = {"undo", "redo", "restore", "merge"}
"""Those by which an operator may bring them back."""
OF_OTHERS = {"create_agent", "update_agent", "delete_agent", "batch", "open_file", "close_file", "status"}
OF_OTHERS |= {"accept_deletions", "save"}


@pytest.fixture
def server(standing_server: Callable[[str], RedisServer]) -> RedisServer:
    return standing_server("valkey")


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    client: Any = server.client()
    yield client
    client.close()


@pytest.fixture
def rig(tmp_path: Path, server: RedisServer) -> Iterator[Rig]:
    office = Rig(tmp_path, server.url)
    office.save_and_settle("agents/sam/persona", "I am Sam.\n")
    yield office
    office.close()


@pytest.fixture
def ear(server: RedisServer) -> Iterator[Ear]:
    heard = Ear(server.client(), "blocks:changes", "blocks:changes:agent:sam")
    heard.messages()
    yield heard
    heard.close()


def say(rig: Rig, text: str | None, agent: str = "sam") -> None:
    """Save or remove an agent's file, and have the core told."""
    path = rig.root / properties_label(agent)
    if text is None:
        path.unlink()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    rig.core.intake.hint_file(properties_label(agent), closed=True)


def ask(rig: Rig, actor: str, op: str, **args: Any) -> dict[str, Any]:
    """Ask for something, and return the reply."""
    return send(rig, actor, {"op": op, "args": args})


def send(rig: Rig, actor: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Send a request, and return the reply."""
    raw, request_id, op = rig.client, f"r-{next(NUMBERS)}", asked["op"]
    request = {"id": request_id, **asked}
    entry = raw.xadd(f"blocks:inbox:{actor}", {"request": json.dumps(request)})
    rig.core.inbox.add([Entry(actor, entry, json.dumps(request))])
    key = f"blocks:reply:{actor}:{request_id}"
    rig.run(lambda: raw.exists(key), f"a reply to {op}")
    reply: dict[str, Any] = json.loads(raw.lpop(key))
    raw.delete(f"blocks:inbox:{actor}")
    return reply


def refused(rig: Rig, actor: str, op: str, **args: Any) -> tuple[str, str | None]:
    """Return the code and the field of a refusal."""
    error = ask(rig, actor, op, **args)["error"]
    return error["code"], error.get("field")


def says(rig: Rig) -> str:
    return (rig.root / LABEL).read_text()


def test_properties_are_in_force_as_the_file_says_them(rig: Rig, raw: Any, ear: Ear) -> None:
    """In the mirror, the history and the changes, under the next seq; what is no block is listed as none."""
    labels, seq = raw.zrange("blocks:labels", 0, -1), rig.journal.seq
    say(rig, SAM)
    rig.settle()
    info = raw.hgetall(INFO)
    assert (info["agent"], info["name"], info["tags"], info["system"]) == ("sam", "Sam", '["a"]', "You are Sam.\n")
    assert (info["metadata"], info["version"], info["updated_by"]) == ("{}", "1", "file")
    assert "description" not in info
    changes = ear.changes()
    assert [one["seq"] for one in changes] == [seq + 1, seq + 1]  # on both channels
    assert (changes[0]["kind"], changes[0]["label"], changes[0]["fields"]) == (
        "created",
        LABEL,
        ["name", "system", "tags"],
    )
    assert (changes[0]["attached"], raw.hkeys("blocks:agent:sam")) == ([], ["persona"])
    assert raw.zrange("blocks:labels", 0, -1) == labels
    assert not raw.exists(f"blocks:block:{LABEL}")
    say(rig, SAM.replace("name: Sam", "name: Kim"))
    rig.settle()
    assert raw.hget(INFO, "name") == "Kim"
    assert [(one.version, one.fields) for one in rig.journal.history(LABEL)] == [
        (2, ("name",)),
        (1, ("name", "system", "tags")),
    ]
    say(rig, None)
    rig.settle()
    rig.clock.advance(5)
    rig.settle()
    assert not raw.exists(INFO)
    assert rig.journal.history(LABEL)[0].kind == "deleted"
    assert raw.zscore("blocks:agents", "sam") == 0
    assert_level(rig, raw)


def test_bad_file_is_a_problem_and_the_last_good_one_stays(rig: Rig, raw: Any) -> None:
    """All that is wrong is told at once, with the lines; a known key with a typo is a warning; foreign keys are none."""
    say(rig, SAM)
    rig.settle()
    say(rig, "name: [x]\ndescription: 5\n")
    rig.settle()
    problem = rig.core.problems[LABEL]
    assert (problem.code, problem.warning) == ("problem_file", False)
    assert "name must be text" in problem.message
    assert "description must be text" in problem.message
    assert raw.hget(INFO, "name") == "Sam"
    for text in ("name: 'a", "- a\n", "name: a\nname: b\n", "name: ''\n", "metadata: [1]\n", "name: |\n  a\n  b\n"):
        say(rig, text)
        rig.settle()
        assert LABEL in rig.core.problems, text
        assert raw.hget(INFO, "name") == "Sam"
    say(rig, "---\nnane: Sam\nmodel: x\n")
    rig.settle()
    assert rig.core.problems[LABEL].warning
    assert "did you mean 'name'" in str(rig.core.problems[LABEL].hint)
    assert raw.hget(INFO, "name") == "sam"
    assert_level(rig, raw)
    assert refused(rig, "operator", "create_agent", agent="sam") == ("already_exists", None)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("---\nname: Sam\n---\n", "the file holds a second document", "remove the lines '---': agent.yaml has none"),
        ("name: Sam\n...\nx\n", "the file ends at '...'", "remove the line '...'"),
        ("- a\n", "the file is not a mapping", "write lines of the form 'key: value'"),
        (f"system: {'a' * 300_000}\n", "the file is over 256 KiB", "shorten it"),
        (f"#{'a' * 5_000_000}\n", "the file is 5000002 bytes, over the 4194304 that are read", "shorten it"),
        ("name: a\nname: b\n", "the file has 'name' twice", "remove one of the two"),
    ],
)
def test_problem_speaks_of_the_file(rig: Rig, text: str, message: str, hint: str) -> None:
    """It has no frontmatter, and is no block."""
    say(rig, text)
    rig.settle()
    problem = rig.core.problems[LABEL]
    assert (problem.message, problem.hint) == (message, hint)


def test_agent_that_cannot_be_is_told_of_with_its_directory(rig: Rig) -> None:
    say(rig, SAM, "bad id")
    rig.settle()
    assert rig.core.problems["agents/bad id/agent.yaml"].hint == "rename its directory, for example to 'agents/bad-id'"


def test_request_may_not_make_the_file_too_large(rig: Rig, raw: Any) -> None:
    """Nothing is changed then; a large file can be made smaller by the same request that adds to it."""
    say(rig, f"system: {'a' * 262_100}\n")
    rig.settle()
    error = ask(rig, "operator", "update_agent", agent="sam", description="b" * 100)["error"]
    assert (error["code"], error["message"]) == ("limit_exceeded", "the file would be over 256 KiB")
    assert refused(rig, "operator", "create_agent", agent="kim", properties={"system": "a" * 300_000})[0] == (
        "limit_exceeded"
    )
    assert not (rig.root / "agents/kim").exists()
    assert ask(rig, "operator", "update_agent", agent="sam", name="Sam", description="b" * 100, system=None)["ok"]
    assert says(rig) == f"name: Sam\ndescription: {'b' * 100}\n"
    assert ask(rig, "operator", "update_agent", agent="sam", system="a" * 200_000)["ok"]
    assert ask(rig, "operator", "update_agent", agent="sam", description="b" * 200_000, system="a")["ok"]
    say(rig, "{name: Sam}\n")
    rig.settle()
    error = ask(rig, "operator", "update_agent", agent="sam", name="Kim")["error"]
    assert (error["code"], error["message"]) == (
        "problem_file",
        "the file is written in braces, so 'name' cannot be changed in place",
    )
    assert_level(rig, raw)


def test_request_changes_what_it_names_and_no_other_byte(rig: Rig, raw: Any, ear: Ear) -> None:
    """Comments and order stay; null takes a property away; nothing new is no revision; a missing file is made."""
    reply = ask(rig, "operator", "update_agent", agent="sam", agent_type="react_agent")
    assert says(rig) == "agent_type: react_agent\n"
    assert reply["results"][0]["block"] == {
        "agent": "sam",
        "name": None,
        "description": None,
        "agent_type": "react_agent",
        "system": None,
        "tags": [],
        "metadata": {},
    }
    say(rig, SAM)
    rig.settle()
    ear.messages()
    ask(rig, "operator", "update_agent", agent="sam", name="Kim", metadata={"a": 1}, tags=None)
    assert says(rig) == SAM.replace("name: Sam", "name: Kim").replace("tags: [a]\n", "") + "metadata: {a: 1}\n"
    assert (raw.hget(INFO, "name"), raw.hget(INFO, "tags"), raw.hget(INFO, "updated_by")) == ("Kim", "[]", "operator")
    assert ear.changes()[0]["fields"] == ["name", "tags", "metadata"]
    seq = rig.journal.seq
    assert ask(rig, "operator", "update_agent", agent="sam", name="Kim")["results"][0]["seq"] == seq
    assert (rig.journal.seq, ask(rig, "operator", "update_agent", agent="sam", name=None)["ok"]) == (seq, True)
    assert raw.hget(INFO, "name") == "sam"
    rig.save_and_settle("agents/kim/persona", "I am Kim.\n")
    assert ask(rig, "operator", "update_agent", agent="kim")["results"] == []
    assert not (rig.root / "agents/kim/agent.yaml").exists()
    assert_level(rig, raw)


def test_request_for_properties_is_refused(rig: Rig) -> None:
    """Of an agent, for an agent that is not known, of other properties, and while the file has a problem."""
    before = rig.journal.seq
    assert refused(rig, "sam", "update_agent", agent="sam", name="x") == ("invalid_request", "op")
    assert refused(rig, "operator", "update_agent", agent="nobody", name="x")[0] == "not_found"
    assert refused(rig, "operator", "update_agent", agent="sam", nmae="x") == ("invalid_request", "args.nmae")
    assert refused(rig, "operator", "update_agent", agent="sam", name=5) == ("invalid_request", "args.name")
    assert refused(rig, "operator", "update_agent", agent="sam", system="a\x00b") == ("invalid_request", "args.system")
    wrong = refused(rig, "operator", "create_agent", agent="kim", properties=[])
    assert wrong == ("invalid_request", "args.properties")
    assert rig.journal.seq == before
    say(rig, "name: 'a")
    rig.settle()
    assert refused(rig, "operator", "update_agent", agent="sam", name="x")[0] == "problem_file"
    assert says(rig) == "name: 'a"


def test_no_op_takes_properties_for_a_block(rig: Rig, raw: Any) -> None:
    """An agent does not reach its own by a name, alone or in a batch, nor below them.

    Nor does the operator any by a label, but to bring a version of them back, or to delete them.
    """
    say(rig, SAM)
    rig.settle()
    say(rig, SAM + "agent_type: a\n")
    rig.settle()
    rig.save_and_settle("notes", "---\nagents: [sam]\n---\nx\n")
    before = rig.journal.seq, os.listdir(rig.root / "agents/sam")
    assert ARGS.keys() | OF_OTHERS == set(OPS)
    words = "is no label: it is the file of an agent's properties"
    for op, args in ARGS.items():
        one = {"op": op, "name": "agent.yaml", "args": args}
        forms = [("sam", one)]
        if op not in OF_READERS:
            forms.append(("sam", {"op": "batch", "args": {"requests": [one]}}))
        if op not in OF_READERS | OF_VERSIONS | {"delete"}:
            labelled = {"op": op, "label": LABEL, "args": args}
            forms += [("operator", labelled), ("operator", {"op": "batch", "args": {"requests": [labelled]}})]
        for actor, request in forms:
            error = send(rig, actor, request)["error"]
            assert (error["code"], error["message"]) == ("invalid_request", f"{LABEL!r} {words}"), request
    for actor, request in (
        ("sam", {"op": "rename", "name": "persona", "args": {"to": "agent.yaml"}}),
        ("operator", {"op": "rename", "label": "notes", "args": {"to": LABEL}}),
        ("operator", {"op": "create_agent", "args": {"agent": "kim", "blocks": [{"name": "agent.yaml"}]}}),
        ("sam", {"op": "create", "name": "agent.yaml/x", "args": {}}),
        ("operator", {"op": "create", "label": "agents/new/agent.yaml/x/y", "args": {}}),
    ):
        assert "is the file of an agent's properties" in send(rig, actor, request)["error"]["message"], request
    assert before == (rig.journal.seq, os.listdir(rig.root / "agents/sam"))
    assert says(rig) == SAM + "agent_type: a\n"
    assert_level(rig, raw)
    deleted = send(rig, "operator", {"op": "delete", "label": LABEL, "expect": {"version": 2}})
    assert (deleted["version"], (rig.root / LABEL).exists()) == (3, False)
    assert_level(rig, raw)


def test_operator_reads_the_versions_of_properties(rig: Rig, server: RedisServer) -> None:
    """By their label, also after the file is gone; and follows them."""
    with Client(server.url) as client, client.watch(label=LABEL) as items:
        say(rig, SAM)
        rig.settle()
        say(rig, SAM.replace("name: Sam", "name: Kim"))
        rig.settle()
        say(rig, None)
        rig.settle()
        rig.clock.advance(5)
        rig.settle()
        seen = [next(items) for _ in range(3)]
    assert [(one.kind, one.label) for one in seen if isinstance(one, Change)] == [
        ("created", LABEL),
        ("updated", LABEL),
        ("deleted", LABEL),
    ]
    reply = send(rig, "operator", {"op": "history", "label": LABEL})
    assert [(one["version"], one["fields"]) for one in reply["versions"]][1:] == [
        (2, ["name"]),
        (1, ["name", "system", "tags"]),
    ]
    reply = send(rig, "operator", {"op": "version", "label": LABEL, "args": {"version": 1}})
    found = VersionView.of(reply)
    assert (found.block, found.properties) == (
        None,
        {
            "name": "Sam",
            "description": None,
            "agent_type": None,
            "system": "You are Sam.\n",
            "tags": ["a"],
            "metadata": {},
        },
    )
    last = VersionView.of(send(rig, "operator", {"op": "version", "label": LABEL, "args": {"version": 3}}))
    assert (last.kind, last.properties) == ("deleted", None)
    wrong = {"op": "history", "label": "agents/nobody/agent.yaml"}
    assert send(rig, "operator", wrong)["error"]["code"] == "not_found"


def bring(rig: Rig, op: str, **args: Any) -> dict[str, Any]:
    """Have an operator bring properties back by their label."""
    return send(rig, "operator", {"op": op, "label": LABEL, "args": args})


def test_operator_undoes_redoes_and_restores_properties(rig: Rig, raw: Any) -> None:
    """As a block's text, and with no other byte changed; also in a batch, and after the file is gone."""
    say(rig, SAM)
    rig.settle()
    ask(rig, "operator", "update_agent", agent="sam", name="Kim", metadata={"a": 1})
    changed = says(rig)
    reply = bring(rig, "undo")
    assert (reply["label"], reply["version"], reply["block"]["name"], says(rig)) == (LABEL, 3, "Sam", SAM)
    assert bring(rig, "undo")["error"]["message"] == f"{LABEL!r} is at its earliest version: there is nothing to undo"
    assert bring(rig, "redo")["ok"]
    assert says(rig) == changed
    assert raw.hget(INFO, "name") == "Kim"
    say(rig, None)
    rig.settle()
    rig.clock.advance(5)
    rig.settle()
    assert not raw.exists(INFO)
    assert bring(rig, "undo")["block"]["name"] == "Kim"
    assert json.loads(raw.hget(INFO, "metadata")) == {"a": 1}
    part = {"op": "restore", "label": LABEL, "args": {"version": 1}}
    assert ask(rig, "operator", "batch", requests=[part])["results"][0]["block"]["name"] == "Sam"
    wrong = {**part, "expect": {"version": 1}}
    assert send(rig, "operator", wrong)["error"]["code"] == "version_conflict"
    assert bring(rig, "restore", version=99)["error"]["code"] == "not_found"
    other = {"op": "undo", "label": "agents/nobody/agent.yaml"}
    assert send(rig, "operator", other)["error"]["code"] == "not_found"
    assert_level(rig, raw)


def test_undo_brings_the_last_good_properties_into_a_bad_file(rig: Rig) -> None:
    """What it said before is kept beside it; where that is over the limit of a block, too."""
    say(rig, f"system: {'a' * 50_000}\n")
    rig.settle()
    ask(rig, "operator", "update_agent", agent="sam", name="Sam")
    for op, args in (("undo", {}), ("restore", {"version": 2})):
        say(rig, "name: [")
        rig.settle()
        reply = bring(rig, op, **args)
        assert "agent.yaml.rejected" in reply["rejected"], reply
        assert (rig.root / reply["rejected"]).read_text() == "name: ["
        rig.settle()
        assert not rig.core.problems
        assert says(rig) == f"name: Sam\nsystem: {'a' * 50_000}\n"


def test_private_properties_come_back_beside_a_shared_block_of_that_name(rig: Rig, raw: Any) -> None:
    """Their label is no name that the agent has."""
    say(rig, SAM)
    rig.save_and_settle("agent.yaml", "---\nagents: [sam]\n---\nx\n")
    say(rig, None)
    rig.settle()
    rig.clock.advance(5)
    rig.settle()
    assert bring(rig, "undo")["ok"]
    assert_level(rig, raw)


def test_save_of_an_old_text_is_merged_with_what_was_asked_for(rig: Rig, raw: Any) -> None:
    """Each property is whose changed it, and no line that the person wrote is touched."""
    say(rig, SAM)
    rig.settle()
    ask(rig, "operator", "update_agent", agent="sam", name="Kim", metadata={"a": 1})
    say(rig, SAM + "description: Answers.  # on weekends\n")
    rig.settle()
    assert says(rig) == SAM.replace("name: Sam", "name: Kim") + (
        "description: Answers.  # on weekends\nmetadata: {a: 1}\n"
    )
    newest, saved, *_ = rig.journal.history(LABEL)
    assert (newest.author, newest.reverts, saved.author) == ("merge", (), "file")
    assert raw.hget(INFO, "name") == "Kim"
    assert_level(rig, raw)


def test_save_that_takes_properties_away_is_told_of(rig: Rig, raw: Any, ear: Ear) -> None:
    """Where it cannot be merged, or puts an earlier text back; `merge` brings them back, unless they were changed since."""
    say(rig, SAM)
    rig.settle()
    ask(rig, "operator", "update_agent", agent="sam", name="Kim", tags=["a", "b"])
    ear.messages()
    say(rig, SAM)
    rig.settle()
    assert ear.changes()[0]["reverts"] == [2]
    assert bring(rig, "merge")["block"]["tags"] == ["a", "b"]
    assert says(rig) == SAM.replace("name: Sam", "name: Kim").replace("[a]", "[a, b]")
    say(rig, SAM.replace("name: Sam", "name: Bob"))
    rig.settle()
    error = bring(rig, "merge")["error"]
    assert (error["code"], "name was changed in two ways" in error["message"]) == ("merge_conflict", True)
    assert bring(rig, "undo")["block"]["name"] == "Kim"
    assert bring(rig, "merge")["error"]["code"] == "invalid_request"
    say(rig, f"{SAM}# more\n")  # which says what it said at first, too
    rig.settle()
    assert rig.journal.history(LABEL)[0].reverts
    assert_level(rig, raw)


def test_shared_block_may_be_called_agent_yaml(rig: Rig, raw: Any) -> None:
    """An agent that has properties, too, reaches the block by this name, and not those."""
    say(rig, SAM)
    rig.save_and_settle("agent.yaml", "---\nagents: [sam]\n---\nx\n")
    assert send(rig, "sam", {"op": "append", "name": "agent.yaml", "args": {"content": "y"}})["label"] == "agent.yaml"
    assert send(rig, "sam", {"op": "history", "name": "agent.yaml"})["label"] == "agent.yaml"
    assert says(rig) == SAM
    assert_level(rig, raw)


def test_agent_is_created_and_deleted_with_its_properties(rig: Rig, raw: Any) -> None:
    """In one request, which is all or nothing; an agent with nothing but properties is known, also after a restart."""
    about = {"name": "Kim", "description": "Helps."}
    reply = ask(rig, "operator", "create_agent", agent="kim", blocks=[], properties=about)
    assert reply["ok"], reply
    assert (rig.root / "agents/kim/agent.yaml").read_text() == "name: Kim\ndescription: Helps.\n"
    assert raw.zscore("blocks:agents", "kim") == 0
    rig.crash()
    rig.open()
    assert rig.core.state.attachments.is_known("kim")
    seq = rig.journal.seq
    rig.settle()
    assert (rig.journal.seq, rig.core.state.properties) == (seq, {"agents/kim/agent.yaml"})
    assert_level(rig, raw)
    assert ask(rig, "operator", "delete_agent", agent="kim")["left"] == []
    rig.settle()
    assert not (rig.root / "agents/kim").exists()
    assert raw.zscore("blocks:agents", "kim") is None
    assert_level(rig, raw)


@pytest.mark.parametrize("is_known", [True, False])
def test_directory_in_place_of_the_file_is_a_problem(rig: Rig, raw: Any, is_known: bool) -> None:
    """At once and after a restart, also where a FIFO was; requests are refused; nothing below it is read."""
    if is_known:
        say(rig, SAM)
        rig.settle()
        (rig.root / LABEL).unlink()
    os.mkfifo(rig.root / LABEL)
    rig.core.intake.hint_file(LABEL, closed=False)
    rig.settle()
    assert rig.core.problems[LABEL].message == "a FIFO cannot be agent.yaml"
    (rig.root / LABEL).unlink()
    (rig.root / LABEL).mkdir()
    (rig.root / LABEL / "x.md").write_text("x\n")
    rig.core.intake.hint_tree(LABEL)
    rig.core.intake.hint_file(f"{LABEL}/x.md", closed=True)
    for _ in range(2):
        rig.settle()
        rig.clock.advance(5)
        rig.settle()
        assert rig.core.problems.keys() == {LABEL}
        assert rig.core.problems[LABEL].message == "a directory cannot be agent.yaml"
        assert "a regular file" in rig.core.problems[LABEL].hint
        assert raw.hget(INFO, "name") == ("Sam" if is_known else None)
        assert refused(rig, "operator", "update_agent", agent="sam", name="Kim")[0] == "problem_file"
        if is_known:
            assert refused(rig, "operator", "delete_agent", agent="sam")[0] == "problem_file"
        rig.crash()
        rig.open()
    rig.settle()
    if not is_known:
        assert ask(rig, "operator", "delete_agent", agent="sam")["left"] == [LABEL]
        rig.settle()
        rig.resync()
        assert rig.core.state.attachments.is_known("sam")
    assert_level(rig, raw)
    (rig.root / LABEL / "x.md").unlink()
    (rig.root / LABEL).rmdir()
    rig.core.intake.hint_tree(LABEL)
    rig.settle()
    rig.clock.advance(5)
    rig.settle()
    assert not rig.core.problems
    assert not raw.exists(INFO)
    assert_level(rig, raw)


def test_bad_file_stays_when_its_agent_is_deleted(rig: Rig, raw: Any) -> None:
    """It is named, and makes the agent known: before and after a restart, until it is gone."""
    say(rig, "name: [")
    rig.settle()
    assert ask(rig, "operator", "delete_agent", agent="sam")["left"] == [LABEL]
    for _ in range(2):
        rig.settle()
        assert (says(rig), raw.zscore("blocks:agents", "sam")) == ("name: [", 0)
        rig.crash()
        rig.open()
    rig.settle()
    assert ask(rig, "operator", "create_agent", agent="sam", blocks=[])["ok"]
    assert_level(rig, raw)


def test_mirror_of_properties_is_repaired_and_rebuilt(rig: Rig, raw: Any) -> None:
    """An evicted or edited key, one of an agent without properties, and all of it after the server lost everything."""
    say(rig, SAM)
    rig.settle()
    for damage in (("DEL", INFO), ("HSET", INFO, "name", "x"), ("HSET", "blocks:agent-info:ghost", "name", "x")):
        raw.execute_command(*damage)
        rig.resync()
        rig.run(lambda: not raw.exists("blocks:agent-info:ghost") and raw.hget(INFO, "name") == "Sam", str(damage))
        assert_level(rig, raw)
    raw.flushall()
    rig.run(lambda: raw.hget(INFO, "name") == "Sam", "rebuilt")
    rig.settle()
    assert_level(rig, raw)


def test_folder_that_is_renamed_takes_its_properties_along(rig: Rig, raw: Any) -> None:
    """They are those of the other agent then, from their first version on."""
    say(rig, SAM)
    rig.settle()
    (rig.root / "agents/sam").rename(rig.root / "agents/kim")
    rig.resync()
    rig.clock.advance(5)
    rig.resync()
    assert raw.hget("blocks:agent-info:kim", "name") == "Sam"
    assert not raw.exists(INFO)
    assert_level(rig, raw)


def test_crash_at_any_moment_leaves_all_or_nothing(tmp_path: Path, server: RedisServer, raw: Any) -> None:
    """After a restart file, history and mirror agree, and the request is done once."""
    step, is_over = 0, False
    while not is_over:
        raw.flushall()
        rig = Rig(tmp_path / str(step), server.url)
        rig.save_and_settle("agents/sam/persona", "I am Sam.\n")
        say(rig, SAM)
        rig.settle()
        request = json.dumps({"id": "r-1", "op": "update_agent", "args": {"agent": "sam", "name": "Kim"}})
        entry = Entry("operator", raw.xadd("blocks:inbox:operator", {"request": request}), request)
        rig.core.inbox.add([entry])
        is_over = True
        for number, _ in enumerate(rig.core.round()):
            if number == step:
                is_over = False
                break
        rig.crash()
        rig.open()
        rig.settle()
        rig.core.inbox.add([entry])
        rig.run(lambda: raw.exists("blocks:reply:operator:r-1"), f"a reply after a crash at {step}")
        rig.settle()
        assert rig.journal.history(LABEL)[0].fields == ("name",)
        assert rig.journal.history(LABEL)[0].version == 2
        assert says(rig) == SAM.replace("name: Sam", "name: Kim")
        raw.delete("blocks:inbox:operator", "blocks:reply:operator:r-1")
        assert_level(rig, raw)
        rig.close()
        step += 1
    assert step > 3


def test_id_is_made_of_the_name(rig: Rig, raw: Any) -> None:
    """One that no agent has, nor one that some file systems could not tell from it, also within a batch."""

    def made(name: str, **more: Any) -> Any:
        return ask(rig, "operator", "create_agent", properties={"name": name, **more}, blocks=[])["agent"]

    assert [made("sam"), made("Sam"), made("Sam!")] == ["sam-2", "Sam-3", "Sam-4"]
    assert (rig.root / "agents/Sam-4/agent.yaml").read_text() == "name: Sam!\n"
    assert made("kim", description="Helps.") == "kim"
    assert (rig.root / "agents/kim/agent.yaml").read_text() == "description: Helps.\n"
    parts = [{"op": "create_agent", "args": {"properties": {"name": "zoe"}}} for _ in range(2)]
    labels = [one["label"] for one in ask(rig, "operator", "batch", requests=parts)["results"]]
    assert {label.split("/")[1] for label in labels} == {"zoe", "zoe-2"}
    gone = {"op": "delete_agent", "args": {"agent": "zoe"}}
    labels = [one["label"] for one in ask(rig, "operator", "batch", requests=[gone, parts[0]])["results"]]
    assert {label.split("/")[1] for label in labels} == {"zoe"}
    for wrong in ({}, {"name": ""}, {"name": 5}, {"name": "a\nb"}, {"name": "a" * 201}):
        assert refused(rig, "operator", "create_agent", properties=wrong)[0] == "invalid_request", wrong
    assert ask(rig, "operator", "create_agent", agent="lee", properties={"name": "sam"}, blocks=[])["agent"] == "lee"
    assert_level(rig, raw)


def test_agent_is_made_once_of_its_name(tmp_path: Path, server: RedisServer, raw: Any) -> None:
    """Whenever the daemon is killed meanwhile: no other agent is left, and the same request has the same reply."""
    step, is_over = 0, False
    while not is_over:
        raw.flushall()
        rig = Rig(tmp_path / str(step), server.url)
        rig.save_and_settle("agents/sam/persona", "I am Sam.\n")
        args = {"properties": {"name": "sam"}, "blocks": [{"name": "persona", "value": "I am Sam, too."}]}
        request = json.dumps({"id": "r-1", "op": "create_agent", "args": args})
        entry = Entry("operator", raw.xadd("blocks:inbox:operator", {"request": request}), request)
        rig.core.inbox.add([entry])
        is_over = True
        for number, _ in enumerate(rig.core.round()):
            if number == step:
                is_over = False
                break
        rig.crash()
        rig.open()
        rig.settle()
        replies = []
        for again in (entry, Entry("operator", raw.xadd("blocks:inbox:operator", {"request": request}), request)):
            rig.core.inbox.add([again])
            rig.run(lambda: raw.exists("blocks:reply:operator:r-1"), f"a reply after a crash at {step}")
            replies.append(raw.lpop("blocks:reply:operator:r-1"))
        assert json.loads(replies[0])["agent"] == json.loads(replies[1])["agent"] == "sam-2", step
        rig.settle()
        assert rig.core.state.attachments.known == {"sam", "sam-2"}, step
        raw.delete("blocks:inbox:operator")
        assert_level(rig, raw)
        rig.close()
        step += 1
    assert step > 3


def test_client_reads_and_changes_properties(rig: Rig, server: RedisServer) -> None:
    """Names and descriptions are listed; a memory is shown in the style of the agent's type, and follows its change."""
    say(rig, SAM)
    rig.save_and_settle("agents/kim/persona", "I am Kim.\n")
    with Client(server.url) as client:
        sam = client.agents.retrieve("sam")
        assert (sam.id, sam.name, sam.tags, sam.system, sam.agent_type) == (
            "sam",
            "Sam",
            ("a",),
            "You are Sam.\n",
            None,
        )
        assert [(one.id, one.name, one.description) for one in client.agents.list()] == [
            ("kim", "kim", None),
            ("sam", "Sam", None),
        ]
        assert client.agents.retrieve("kim").as_json()["name"] == "kim"
        with pytest.raises(NotFound):
            client.agents.retrieve("nobody")
        with client.memory("sam") as memory:
            standard = memory.compile()
            assert "1→" not in standard
            say(rig, SAM + "agent_type: sleeptime_agent\n")
            rig.settle()
            eventually(lambda: "1→" in memory.compile(), "the style follows the type")
            assert memory.compile(style="standard") == standard
        assert "1→" in client.agents.retrieve("sam").memory.compile()
