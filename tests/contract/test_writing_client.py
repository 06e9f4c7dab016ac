"""What programs write through the client: alike whether they block or await, with a real daemon on real servers."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

import pytest

from blocksd import AsyncClient, Change, Client, errors
from blocksd.errors import (
    AlreadyExists,
    BlocksdError,
    InvalidField,
    InvalidLabel,
    InvalidRequest,
    LabelConflict,
    LimitExceeded,
    MergeConflict,
    NotAttached,
    NotFound,
    ProblemFile,
    ReadOnly,
    Unavailable,
    VersionConflict,
)
from blocksd.protocol import watching, wire
from following import Between, alike, looping
from support import DEADLINE, Daemon, RedisServer, binary_of, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blocksd import BlockView, Memory
    from blocksd.model.revision import Revision

NAMES = itertools.count(1)


class Place:
    """A daemon with its server and its folder, as they stand while a test runs."""

    def __init__(self, server: RedisServer, home: Path) -> None:
        self.server = server
        self.folder = home / "blocks.d"
        self.folder.mkdir()
        (home / "manuals").mkdir()
        (home / "manuals" / "a.txt").write_text("Turn it on.\n")
        (home / "manuals" / "b.txt").write_text("Turn it off.\n")
        config = home / "blocksd.toml"
        config.write_text(f'[sources.manuals]\npath = "{home}/manuals"\nagents = "*"\nlimit = 100\n')
        self.daemon = Daemon(self.folder, home / "state", "--redis", server.url, env={"BLOCKSD_CONFIG": str(config)})
        self.daemon.start()

    def write(self, label: str, text: str) -> None:
        """Save a file, and wait until its text is in force."""
        path = self.folder / f"{label}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        raw = self.server.client()
        try:
            value = text.rpartition("---\n")[2].removesuffix("\n")
            eventually(lambda: raw.hget(f"blocks:block:{label}", "value") == value, f"{label} is shown")
        finally:
            raw.close()

    def text(self, label: str) -> str:
        return (self.folder / f"{label}.md").read_text()

    def revisions(self, label: str) -> list[Revision]:
        """Oldest first."""
        return self.daemon.revisions(label)

    def close(self) -> None:
        if self.daemon.process is not None and self.daemon.process.poll() is None:
            self.daemon.kill()


@pytest.fixture(scope="module")
def place(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all tests that leave it as it is; each has labels of its own."""
    server = RedisServer(binary_of(backend))
    server.start()
    made = Place(server, tmp_path_factory.mktemp("place"))
    yield made
    made.close()
    server.remove()


@pytest.fixture
def own(tmp_path: Path, server: RedisServer) -> Iterator[Place]:
    """One that a test may break."""
    home = tmp_path / "own"
    home.mkdir()
    made = Place(server, home)
    yield made
    made.close()


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with looping() as running:
        yield running


@pytest.fixture(params=["blocking", "asyncio"])
def open_client(request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop) -> Iterator[Callable[[str], Client]]:
    """A client of either kind for the server at a URL, used like a blocking one."""
    opened: list[Client] = []

    def start(url: str) -> Client:
        opened.append(alike(Client(url) if request.param == "blocking" else AsyncClient(url), loop))
        return opened[-1]

    yield start
    for client in opened:
        client.close()


@pytest.fixture
def client(place: Place, open_client: Callable[[str], Client]) -> Client:
    return open_client(place.server.url)


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is silent is doubted sooner than in life."""
    monkeypatch.setattr(watching, "LISTEN_SECONDS", 0.05)
    monkeypatch.setattr(wire, "REPLY_SECONDS", 1.0)
    monkeypatch.setattr(wire, "WAIT_SECONDS", 0.3)


@pytest.fixture
def label() -> str:
    """A label that no other test has."""
    return f"block-{next(NAMES)}"


@pytest.fixture
def agent() -> str:
    """An agent that no other test has."""
    return f"agent-{next(NAMES)}"


# --- blocks ---


def test_id_that_was_renamed_behind_the_clients_back(place: Place, client: Client, label: str) -> None:
    """The label that an id had is a hint: its block is changed under the new label, and another block that has the old
    label now stays as it is. While the hint is right, nothing is asked before the request."""
    with Client(place.server.url) as other:
        block = client.blocks.create(label=label, value="one")
        for value in ("two", "three"):
            assert client.blocks.update(block.id, value=value).value == value
        other.blocks.rename(block.id, f"{label}/new")
        second = other.blocks.create(label=label, value="another")
        assert second.id != block.id
        changed = client.blocks.update(block.id, value="four", request_id=f"hinted-{label}")
        assert (changed.label, changed.id, changed.value) == (f"{label}/new", block.id, "four")
        assert other.blocks.retrieve(label).value == "another"
        other.blocks.delete(block.id)
        with pytest.raises(NotFound):
            client.blocks.append(block.id, "five")
        assert other.blocks.retrieve(label).value == "another"


@pytest.mark.every_backend
def test_create_makes_block_and_file(place: Place, client: Client, label: str, agent: str) -> None:
    """A block is made with all that is given; what is returned is what the mirror shows by then, and the file says it."""
    block = client.blocks.create(
        label=label,
        value="one\ntwo – ünï 💾",
        description="What we know: all of it",
        limit=4000,
        read_only=True,
        hidden=True,
        tags={"b", "a"},
        metadata={"owner": "ops", "n": [1, None]},
        agents=[agent],
        project_id="p-1",
        is_template=True,
        template_name="first",
    )
    assert block == client.blocks.retrieve(label)
    assert block == client.blocks.retrieve(block.id)
    assert {name: value for name, value in block.as_json().items() if name not in ("id", "digest")} == {
        "label": label,
        "version": 1,
        "value": "one\ntwo – ünï 💾",
        "chars": 15,
        "description": "What we know: all of it",
        "limit": 4000,
        "read_only": True,
        "hidden": True,
        "tags": ["a", "b"],
        "metadata": {"owner": "ops", "n": [1, None]},
        "project_id": "p-1",
        "is_template": True,
        "template_name": "first",
        "template_id": None,
        "base_template_id": None,
        "deployment_id": None,
        "entity_id": None,
        "preserve_on_migration": False,
        "created_at": block.created_at,
        "updated_at": block.created_at,
        "updated_by": "operator",
    }
    assert [one.id for one in client.blocks.agents.list(block.id)] == [agent]
    assert place.text(label).endswith("---\none\ntwo – ünï 💾\n")


@pytest.mark.every_backend
@pytest.mark.parametrize("by", ["id", "label"])
def test_block_is_written_to_by_id_and_label(place: Place, client: Client, label: str, agent: str, by: str) -> None:
    """Every way of writing takes a block's id as well as its label, and returns the block as it is then."""
    made = client.blocks.create(label=label, value="one")
    block_id = made.id if by == "id" else label
    blocks = client.blocks
    steps: list[tuple[Callable[[], BlockView | None], str]] = [
        (lambda: blocks.append(block_id, "two"), "one\ntwo"),
        (lambda: blocks.replace(block_id, "two", "2"), "one\n2"),
        (lambda: blocks.insert(block_id, "zero", 0), "zero\none\n2"),
        (lambda: blocks.insert(block_id, content="end"), "zero\none\n2\nend"),
        (lambda: blocks.apply_patch(block_id, "@@\n one\n-2\n+two\n"), "zero\none\ntwo\nend"),
        (lambda: blocks.update(block_id, value="new"), "new"),
        (lambda: blocks.modify(block_id, value="newer", limit=100), "newer"),
        (lambda: blocks.undo(block_id), "new"),
        (lambda: blocks.redo(block_id), "newer"),
        (lambda: blocks.restore(block_id, 2), "one\ntwo"),
        (lambda: blocks.merge(block_id, 4), "zero\none\ntwo"),
        (lambda: blocks.attach(block_id, agent), "zero\none\ntwo"),
        (lambda: blocks.detach(block_id, [agent]), "zero\none\ntwo"),
        (lambda: blocks.update_many([{"block_id": block_id, "value": "of many"}])[0], "of many"),
        (lambda: client.edit(block_id, str.upper), "OF MANY"),
    ]
    for version, (step, value) in enumerate(steps, 2):
        block = step()
        assert block is not None
        assert (block.value, block.version) == (value, version)
        assert block == client.blocks.retrieve(label), "the mirror shows it by then"
    assert place.text(label).endswith("OF MANY\n")
    blocks.delete(block_id)
    assert not (place.folder / f"{label}.md").exists()
    with pytest.raises(NotFound):
        blocks.retrieve(label)


FILE = """\
# for everyone
description: "What we know"  # quoted
limit: 4000
tags: [b, a]
"""


def test_update_keeps_the_rest_of_the_file(place: Place, client: Client, label: str) -> None:
    """What is not given stays, comments, order, quoting, line ends and mode included; None is a field's default."""
    place.write(label, f"---\n{FILE}---\none\n")
    path = place.folder / f"{label}.md"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    path.chmod(0o640)
    client.blocks.update(label, value="one\ntwo")
    block = client.blocks.update(label, limit=5000)
    assert (block.value, block.limit, block.description, block.tags) == ("one\ntwo", 5000, "What we know", ("b", "a"))
    expected = f"---\n{FILE.replace('4000', '5000')}---\none\ntwo\n"
    assert path.read_bytes() == expected.replace("\n", "\r\n").encode()
    assert path.stat().st_mode & 0o777 == 0o640
    block = client.blocks.update(label, limit=None, tags=None, value=None)
    assert (block.value, block.limit, block.description, block.tags) == ("", 20000, "What we know", ())


def test_update_that_changes_nothing(place: Place, client: Client, label: str) -> None:
    """What is so already makes no revision; the block comes back as it is."""
    client.blocks.create(label=label, value="one")
    assert client.blocks.update(label, value="one", limit=20000).version == 1
    assert len(place.revisions(label)) == 1


def test_rename_keeps_id_history_and_agents(place: Place, client: Client, label: str, agent: str) -> None:
    """A renamed block is found by its id; its versions go on, and who was attached to it still is."""
    made = client.blocks.create(label=label, value="one", agents=[agent])
    block = client.blocks.rename(made.id, f"{label}/new")
    assert (block.label, block.value, block.version) == (f"{label}/new", "one", 2)
    assert block.id == made.id
    assert client.blocks.retrieve(made.id) == block
    assert [one.id for one in client.blocks.agents.list(block.id)] == [agent]
    assert client.blocks.restore(block.id, 2).value == "one"
    assert place.text(f"{label}/new").endswith("---\none\n")
    with pytest.raises(NotFound):
        client.blocks.retrieve(label)
    other = client.blocks.create(label=label, value="two")
    assert other.id != made.id
    assert client.blocks.retrieve(made.id).label == f"{label}/new"
    client.blocks.delete(label)
    client.blocks.delete(made.id)
    assert client.blocks.undo(f"{label}/new") is not None
    assert client.blocks.retrieve(made.id).value == "one"


def test_files_are_read_and_saved(place: Place, client: Client, label: str, agent: str) -> None:
    """To the byte, those of blocks and of agents' properties; made of an older text, a save is merged."""
    text = "---\r\n# why\r\nlimit: 500\r\n---\r\none\r\n"
    assert client.blocks.save(label, text, version=0) == 1
    assert (place.folder / f"{label}.md").read_bytes() == text.encode()
    assert client.blocks.file(client.blocks.retrieve(label).id) == text.encode()
    client.blocks.append(label, "two")
    base = blake2b(text.encode(), digest_size=16).hexdigest()
    assert client.blocks.save(label, text.replace("one", "zero\r\none"), version=1, base=base) == 4
    whole = text.replace("one", "zero\r\none\r\ntwo").encode()
    assert (client.blocks.file(label), (place.folder / f"{label}.md").read_bytes()) == (whole, whole)
    properties = f"agents/{agent}/agent.yaml"
    for _ in range(2):
        assert client.blocks.save(properties, "# who\nname: Ann\n", version=0) == 1
    assert client.blocks.file(properties) == b"# who\nname: Ann\n"
    with pytest.raises(ProblemFile, match="never closed"):
        client.blocks.save(label, "---\n", version=4)
    for name in (f"{label}/none", f"agents/{agent}-2/agent.yaml"):
        with pytest.raises(NotFound):
            client.blocks.file(name)


def test_undo_brings_a_deleted_block_back(client: Client, label: str) -> None:
    """A block that was deleted is brought back by its label, with what it said."""
    client.blocks.create(label=label, value="one", tags=["a"])
    client.blocks.delete(label)
    block = client.blocks.undo(label)
    assert block is not None
    assert (block.value, block.tags, block.version) == ("one", ("a",), 3)
    assert client.blocks.redo(label) is None
    assert client.blocks.create(label=label, value="two").version == 5
    assert client.blocks.undo(label) is None
    block = client.blocks.redo(label)
    assert block is not None
    assert (block.value, block.version) == ("two", 7)


def test_detach_of_several(client: Client, label: str) -> None:
    """Agents are attached and detached one by one or several at once; any collection of ids will do."""
    client.blocks.create(label=label)
    client.blocks.attach(label, {f"{label}-b": 1, f"{label}-a": 1})
    assert [one.id for one in client.blocks.agents.list(label)] == [f"{label}-a", f"{label}-b"]
    client.blocks.detach(label, f"{label}-a")
    assert [one.id for one in client.blocks.agents.list(label)] == [f"{label}-b"]


def test_update_many_is_all_or_nothing(place: Place, client: Client, label: str) -> None:
    """Of several updates all are done, in one request; if one is refused, none is, and the error says which it was."""
    made = [client.blocks.create(label=f"{label}-{number}", value="one") for number in range(3)]
    after = client.blocks.update_many(
        [
            {"block_id": made[0].id, "value": "two", "description": "x"},
            {"block_id": made[1].label, "value": "two", "expect_version": 1},
            {"block_id": made[2].label, "tags": ("a",)},
        ]
    )
    assert [(block.label, block.value, block.version) for block in after] == [
        (f"{label}-0", "two", 2),
        (f"{label}-1", "two", 2),
        (f"{label}-2", "one", 2),
    ]
    assert after[0].description == "x"
    with pytest.raises(VersionConflict) as caught:
        client.blocks.update_many(
            [
                {"block_id": made[0].label, "value": "three"},
                {"block_id": made[1].label, "value": "three", "expect_version": 1},
            ]
        )
    assert caught.value.facts["request"] == 2
    assert [len(place.revisions(block.label)) for block in made] == [2, 2, 2]
    assert place.text(made[0].label).endswith("two\n")
    assert client.blocks.update_many([]) == []


def test_agent_that_is_created_again_is_the_first(client: Client, label: str) -> None:
    """A request to create one without a name is done once under its id: the second reply shows the first agent."""
    blocks: list[Any] = [{"label": "persona", "value": "I am new."}]
    made = client.agents.create(memory_blocks=blocks, request_id=f"{label}-1")
    assert client.agents.create(memory_blocks=blocks, request_id=f"{label}-1") == made
    assert client.agents.retrieve(made.id).blocks == {"persona": f"agents/{made.id}/persona"}
    assert client.agents.create(memory_blocks=blocks, request_id=f"{label}-2").id != made.id
    assert client.agents.create(memory_blocks=blocks).id not in (made.id, f"{label}-2")


def test_properties_are_brought_back(place: Place, client: Client, agent: str) -> None:
    """Undone, done again, restored; a save that took them away is merged with what they were."""
    client.agents.create(name=agent, memory_blocks=[{"label": "own", "value": "x"}], description="one")
    client.agents.update(agent, description="two", tags=["a"])
    assert client.agents.undo(agent).description == "one"
    assert client.agents.redo(agent).tags == ("a",)
    assert client.agents.restore(agent, 1).tags == ()
    assert client.agents.restore(agent, 2, request_id=agent) == client.agents.restore(agent, 2, request_id=agent)
    label = f"agents/{agent}/agent.yaml"
    path = place.folder / label
    path.write_text("description: one\n")
    eventually(lambda: client.agents.retrieve(agent).description == "one")
    assert client.blocks.versions.list(label, limit=1)[0].reverts
    assert client.agents.merge(agent).tags == ("a",)
    with pytest.raises(InvalidRequest, match="nothing to merge"):
        client.agents.merge(agent)
    with pytest.raises(NotFound):
        client.agents.undo("nobody")
    with pytest.raises(NotFound):
        client.agents.restore(agent, 99)
    with pytest.raises(InvalidLabel, match="the file of an agent's properties"):
        client.blocks.undo(label)


def test_attaching_to_an_agent_that_is_not_known(client: Client, label: str) -> None:
    """It is NotFound, as any call on an agent; attaching the block to it makes it known."""
    client.blocks.create(label=label, value="one")
    with pytest.raises(NotFound, match="there is no agent"):
        client.agents.blocks.attach(f"{label}-new", label)
    assert list(client.blocks.agents.list(label)) == []
    client.blocks.attach(label, f"{label}-new")
    assert client.agents.blocks.list(f"{label}-new")[0].label == label


def test_batch_is_one_request(place: Place, client: Client, label: str) -> None:
    """All kinds of edits are sent together when the `with` ends: those of one block are one version."""
    old = client.blocks.create(label=f"{label}-old", value="one\ntwo", agents=[f"{label}-b"])
    with client.batch() as batch:
        batch.create(label=f"{label}-new", value="x", tags=["t"], agents=[f"{label}-a"])
        batch.append(f"{label}-new", "y")
        batch.replace(old.id, "one", "1")
        batch.insert(old.id, "0", 0)
        batch.apply_patch(old.id, "@@\n-two\n+2\n")
        batch.update(old.id, description="d", expect_version=1)
        batch.attach(old.id, f"{label}-a")
        batch.detach(old.id, [f"{label}-b"])
        batch.create(label=f"{label}-gone")
        batch.delete(f"{label}-gone")
        batch.rename(f"{label}-new", f"{label}-newer")
        with pytest.raises(InvalidRequest, match="has not been done"):
            _ = batch.results
    done = [None if block is None else (block.label, block.value) for block in batch.results]
    assert done[2:8] == [(old.label, "0\n1\n2")] * 6
    assert done[8:10] == [None, None]
    assert done[10] == (f"{label}-newer", "x\ny")
    assert client.blocks.retrieve(old.id).version == 2
    assert [one.id for one in client.blocks.agents.list(old.id)] == [f"{label}-a"]
    requests = {revision.request_id for revision in place.revisions(old.label)[1:]}
    assert requests == {revision.request_id for revision in place.revisions(f"{label}-newer")[-1:]}


def test_batch_is_all_or_nothing(place: Place, client: Client, label: str) -> None:
    """A part that is refused refuses all, and is named; a `with` that ends by an error sends nothing."""
    client.blocks.create(label=label, value="one")

    def write(*, fails: bool) -> None:
        with client.batch() as batch:
            batch.append(label, "two")
            if fails:
                raise KeyError
            batch.append(f"{label}-nothing", "two")

    with pytest.raises(NotFound) as caught:
        write(fails=False)
    assert caught.value.facts["request"] == 2
    with pytest.raises(KeyError):
        write(fails=True)
    assert client.blocks.retrieve(label).value == "one"
    batch = client.batch()
    batch.restore(label, 1)
    batch.append(label, "two")
    assert [block.value for block in batch.send(request_id=f"{label}-1") if block] == ["one\ntwo"] * 2
    with pytest.raises(InvalidRequest, match="was done before"):
        batch.send()
    again = client.batch()
    again.restore(label, 1)
    again.append(label, "two")
    assert [block.version for block in again.send(request_id=f"{label}-1") if block] == [2, 2]
    assert len(place.revisions(label)) == 2
    assert client.batch().send() == []
    with client.batch() as batch:
        batch.update(label, value="one")
        batch.merge(label, 2)
    assert client.blocks.retrieve(label).value == "one\ntwo"


# --- history ---


@pytest.mark.every_backend
def test_who_the_operator_is_shows_in_the_history(place: Place, label: str) -> None:
    """A client that is told so says it of all that the operator asks for, and of nothing that an agent does."""
    with Client(place.server.url, by="Zoë") as client, client.watch(label=label) as watch:
        client.blocks.create(label=label, value="one", agents=["ann"])
        client.memory("ann").append(label, "two")
        assert [change.by for change in itertools.islice(watch, 2) if isinstance(change, Change)] == ["Zoë", None]
        assert [one.by for one in client.blocks.versions.list(label)] == [None, "Zoë"]
        assert client.blocks.versions.retrieve(label, 1).by == "Zoë"
        client.blocks.undo(label)
    with Client(place.server.url, by="a\nb") as client, pytest.raises(InvalidRequest, match="by must be"):
        client.blocks.undo(label)
    assert [one.by for one in place.revisions(label)] == ["Zoë", None, "Zoë"]


def test_versions_of_a_block(place: Place, client: Client, label: str) -> None:
    """They are what the journal has: listed newest first and in pages, and retrieved one by one, by label or id."""
    made = client.blocks.create(label=label, value="one", tags=["x"])
    client.blocks.append(label, "two")
    client.blocks.update(made.id, description="d")
    listed = client.blocks.versions.list(made.id)
    assert listed.next is None
    assert [(one.version, one.author, one.fields) for one in listed] == [
        (3, "operator", ("description",)),
        (2, "operator", ("value",)),
        (1, "operator", ("value", "tags")),
    ]
    assert [one.seq for one in listed] == [one.seq for one in place.revisions(label)[::-1]]
    page = client.blocks.versions.list(label, limit=2)
    assert ([one.version for one in page], page.next) == ([3, 2], "2")
    assert [one.version for one in client.blocks.versions.list(label, limit=2, after=page.next)] == [1]
    first = client.blocks.versions.retrieve(label, 1)
    assert first.block == made
    assert (first.version, first.chars, first.digest) == (1, 3, made.digest)
    client.blocks.delete(label)
    gone = client.blocks.versions.retrieve(label, 4)
    assert (gone.kind, gone.block, gone.chars) == ("deleted", None, None)
    assert client.blocks.versions.list(label)[0].version == 4
    with pytest.raises(NotFound, match="version 9 of"):
        client.blocks.versions.retrieve(label, 9)
    with pytest.raises(NotFound, match="there is no block"):
        client.blocks.versions.list(f"{label}-nothing")


def test_difference_of_versions(client: Client, label: str) -> None:
    """Of the newest change, of one version and the newest, or of any two; version 0 is nothing."""
    client.blocks.create(label=label, value="one")
    client.blocks.append(label, "two")
    client.blocks.replace(label, "one", "1")
    diff = client.blocks.versions.diff
    newest = f"--- {label} v2\n+++ {label} v3\n@@ -1,2 +1,2 @@\n-one\n+1\n two\n"
    assert diff(label) == diff(label, 2) == diff(label, 2, 3) == newest
    assert diff(label, 0, 1) == f"--- {label} v0\n+++ {label} v1\n@@ -0,0 +1 @@\n+one\n"
    assert diff(label, 3, 3) == ""


def test_status_of_the_daemon(place: Place, client: Client) -> None:
    """It is asked of the daemon, without access to its disk."""
    assert place.daemon.process is not None
    status = client.status()
    assert (status["pid"], status["folder"]) == (place.daemon.process.pid, str(place.folder))
    assert status["mirror"] == "level"


# --- files ---


def test_files_of_an_agent(client: Client, label: str, agent: str) -> None:
    """The files it sees are listed, opened and closed; their text is there while they are open."""
    client.blocks.create(label=label, agents=[agent])
    files = client.agents.files
    eventually(lambda: len(files.list(agent)) == 2, "the source is shown")
    assert [(one.file, one.is_open, one.value) for one in files.list(agent)] == [
        ("manuals/a.txt", False, None),
        ("manuals/b.txt", False, None),
    ]
    opened = files.open(agent_id=agent, file="manuals/a.txt")
    assert (opened.source, opened.path, opened.value, opened.limit) == ("manuals", "a.txt", "Turn it on.\n", 100)
    assert opened.opened_at is not None
    assert [one.path for one in files.list(agent, is_open=True)] == ["a.txt"]
    assert [one.path for one in files.list(agent, is_open=False)] == ["b.txt"]
    with client.memory(agent) as memory:
        assert "Turn it on." in memory.compile()
    files.close(agent, "manuals/a.txt")
    assert list(files.list(agent, is_open=True)) == []
    files.close(agent, "manuals/a.txt")
    with pytest.raises(NotFound):
        files.open(agent, "manuals/c.txt")
    with pytest.raises(NotFound, match="there is no agent"):
        files.list(f"{agent}-nobody")


# --- what is refused ---


def refusals(label: str, agent: str) -> dict[type[BlocksdError], tuple[Callable[[Client], object], dict[str, Any]]]:
    """For each exception, what raises it, and facts that it has."""
    other = f"{label}-other"

    def memory(client: Client) -> Memory:
        return client.memory(agent)

    return {
        NotFound: (lambda client: client.blocks.append(f"{label}x", "x"), {"label": f"{label}x", "near": [label]}),
        AlreadyExists: (lambda client: client.blocks.create(label=label), {"label": label}),
        LabelConflict: (
            lambda client: client.blocks.attach(f"{label}/notes", agent),
            {"label": f"{label}/notes", "agents": [agent]},
        ),
        LimitExceeded: (lambda client: client.blocks.update(label, value="x" * 11), {"chars": 11, "limit": 10}),
        ReadOnly: (lambda client: memory(client).append(label, "x"), {"label": label}),
        NotAttached: (lambda client: memory(client).append(other, "x"), {"agent": agent, "name": other}),
        VersionConflict: (
            lambda client: client.blocks.update(label, value="x", expect_version=1),
            {"label": label, "expected": 1, "version": 2},
        ),
        MergeConflict: (
            lambda client: client.blocks.update(label, value="xyz", expect_version=1, on_conflict="merge"),
            {"regions": [{"base": "one", "ours": "xyz", "theirs": "two", "line": 1}]},
        ),
        InvalidRequest: (
            lambda client: client.blocks.replace(label, "x", "y"),
            {"argument": "old_content", "lines": []},
        ),
        ProblemFile: (lambda client: client.blocks.append(f"{label}-bad", "x"), {"label": f"{label}-bad", "line": 2}),
    }


@pytest.mark.parametrize("kind", [*refusals("", "")], ids=lambda kind: kind.__name__)
def test_refusal_is_raised_with_its_facts(
    place: Place, client: Client, label: str, agent: str, kind: type[BlocksdError]
) -> None:
    """What the daemon refuses is raised as the exception of its code, with the facts; nothing has changed."""
    client.agents.create(name=agent, memory_blocks=[{"name": f"{label}/notes"}])
    client.blocks.create(label=label, value="one", limit=10, read_only=True, agents=[agent])
    client.blocks.update(label, value="two")
    for name in (f"{label}/notes", f"{label}-other", f"{label}-bad"):
        client.blocks.create(label=name, value="one")
    (place.folder / f"{label}-bad.md").write_text("---\nlimit: x\n---\n")
    eventually(lambda: any(label in one["subject"] for one in client.problems()), "the bad file is seen")
    ask, facts = refusals(label, agent)[kind]
    with pytest.raises(kind) as caught:
        ask(client)
    assert type(caught.value) is kind
    assert caught.value.message
    assert {name: caught.value.facts.get(name) for name in facts} == facts
    if kind is VersionConflict:
        assert cast("Any", caught.value.facts["block"])["value"] == "two"
    assert [revision.version for revision in place.revisions(label)] == [1, 2]


@pytest.mark.parametrize(
    ("kind", "ask"),
    [
        (InvalidLabel, lambda client: client.blocks.update("no label?", value="x")),
        (InvalidLabel, lambda client: client.agents.create(name="no agent!")),
        (InvalidRequest, lambda client: client.blocks.create(label="a?b")),
        (InvalidRequest, lambda client: client.blocks.create(label="unmade", limit="x")),
        (TypeError, lambda client: client.blocks.create(label="unmade", valeu="x")),
        (InvalidRequest, lambda client: client.blocks.create(label="unmade", metadata={"x": object()})),
        (InvalidRequest, lambda client: client.blocks.create(label="unmade", metadata={"x": float("nan")})),
        (InvalidRequest, lambda client: client.blocks.create(label="unmade", value="\ud800")),
        (InvalidRequest, lambda client: client.blocks.create(label="unmade", value="é" * (1 << 19))),
        (NotFound, lambda client: client.blocks.append("block-00000000-0000-5000-8000-000000000000", "x")),
        (NotFound, lambda client: client.agents.delete("nobody")),
        (TypeError, lambda client: client.blocks.append("notes", "x", wait=3)),
    ],
)
def test_request_that_is_none(client: Client, kind: type[Exception], ask: Callable[[Client], object]) -> None:
    """What can be told to be wrong is refused, whichever side tells it, and nothing comes of it."""
    with pytest.raises(kind):
        ask(client)
    with pytest.raises(NotFound):
        client.blocks.retrieve("unmade")


def test_daemon_that_cannot_write(own: Place, open_client: Callable[[str], Client]) -> None:
    """What the daemon cannot do for now is Unavailable, with its reason; asked for again later, it is done."""
    client = open_client(own.server.url)
    client.blocks.create(label="notes", value="one")
    away = own.folder.with_name("away")
    own.folder.rename(away)
    eventually(client.problems, "the folder is missed")
    with pytest.raises(Unavailable, match="nothing can be written meanwhile") as refusal:
        client.blocks.append("notes", "two", request_id="one-and-the-same")
    assert refusal.value.facts["hint"] == client.problems()[0]["hint"]
    away.rename(own.folder)
    eventually(lambda: not client.problems(), "the folder is back")
    assert client.blocks.append("notes", "two", request_id="one-and-the-same").value == "one\ntwo"


# --- two who write ---


def test_conflict_is_refused_merged_or_overwritten(
    place: Place, open_client: Callable[[str], Client], label: str
) -> None:
    """Of two who write on top of one version the later is refused, unless it asks to be merged or to overwrite."""
    one, other = open_client(place.server.url), open_client(place.server.url)
    seen = one.blocks.create(label=label, value="a\nb\nc")
    other.blocks.update(label, value="A\nb\nc", expect_version=seen.version)
    for on_conflict in (None, "fail"):
        with pytest.raises(VersionConflict):
            one.blocks.update(label, value="a\nb\nC", expect_version=seen.version, on_conflict=on_conflict)
    merged = one.blocks.update(label, value="a\nb\nC", expect_version=seen.version, on_conflict="merge")
    assert (merged.value, merged.version) == ("A\nb\nC", 3)
    forced = other.blocks.update(label, value="mine", expect_version=seen.version, on_conflict="overwrite")
    assert (forced.value, forced.version) == ("mine", 4)
    assert one.blocks.update(label, value="last", expect_version=4).value == "last"


@pytest.mark.every_backend
def test_edit_loses_nothing(place: Place, client: Client, label: str) -> None:
    """Eight who edit one block at once, each on top of what it read, lose none of each other's edits."""
    client.blocks.create(label=label)

    def add(line: str, value: str) -> str:
        return f"{value}\n{line}" if value else line

    def edit(number: int) -> None:
        for line in (f"{number}.{turn}" for turn in range(4)):
            client.edit(label, partial(add, line))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(edit, range(8)))
    lines = client.blocks.retrieve(label).value.split("\n")
    assert sorted(lines) == sorted(f"{number}.{turn}" for number in range(8) for turn in range(4))
    assert len(place.revisions(label)) == 33


@pytest.mark.every_backend
def test_crowd(place: Place, label: str) -> None:
    """More who write at once through one client than it has connections lose nothing, and none is refused."""

    async def write() -> None:
        async with AsyncClient(place.server.url) as client:
            await client.blocks.create(label=label)
            await asyncio.gather(*(client.blocks.append(label, str(number)) for number in range(250)))
            block = await client.blocks.retrieve(label)
        assert sorted(map(int, block.value.split("\n"))) == [*range(250)]

    asyncio.run(write())


def test_edit_begins_again_with_the_newer_value(client: Client, label: str) -> None:
    """Whenever somebody else has written meanwhile, an edit is made anew of what they wrote."""
    client.blocks.create(label=label, value="one")
    seen: list[str] = []
    interrupted = threading.Event()

    def change(value: str) -> str:
        seen.append(value)
        if not interrupted.is_set():
            interrupted.set()
            with Client(_url_of(client)) as other:
                other.blocks.append(label, "two")
        return value.upper()

    assert client.edit(label, change).value == "ONE\nTWO"
    assert seen == ["one", "one\ntwo"]


def _url_of(client: Any) -> str:
    target: Any = getattr(client, "_target", client)
    url: str = target._transport.url
    return url


def test_edit_that_changes_nothing(place: Place, client: Client, label: str) -> None:
    """An edit that leaves the value as it is, or that fails, writes nothing."""
    client.blocks.create(label=label, value="one")
    assert client.edit(label, str).version == 1
    with pytest.raises(ZeroDivisionError):
        client.edit(label, lambda _: str(1 // 0))
    with pytest.raises(ValueError, match="must be a string"):
        client.edit(label, cast("Any", lambda _: None))
    assert len(place.revisions(label)) == 1


# --- agents ---


@pytest.mark.every_backend
def test_create_agent(place: Place, client: Client, label: str, agent: str) -> None:
    """An agent is made with blocks of its own and attached to shared ones; its id is the name that is given."""
    shared = client.blocks.create(label=label, value="shared")
    made = client.agents.create(
        name=agent,
        memory_blocks=[{"label": "human", "value": "Bob", "limit": 5000}, {"name": "persona", "tags": ["own"]}],
        block_ids=[shared.id],
        tags=["all"],
        model="openai/gpt-4o-mini",
    )
    assert (made.id, made.name) == (agent, agent)
    assert made.blocks == {
        "human": f"agents/{agent}/human",
        "persona": f"agents/{agent}/persona",
        label: label,
    }
    assert made == client.agents.retrieve(agent)
    human, persona = (client.agents.blocks.retrieve(agent, name) for name in ("human", "persona"))
    assert (human.value, human.limit, human.tags, persona.tags) == ("Bob", 5000, ("all",), ("own",))
    assert (place.folder / "agents" / agent).is_dir()


def test_create_agent_with_nothing_given(client: Client) -> None:
    """Without a name an agent gets an id of its own, and without blocks an empty persona and human."""
    one, other = client.agents.create(), client.agents.create(memory_blocks=())
    assert one.id != other.id
    assert one.id.startswith("agent-")
    assert one.blocks == {"human": f"agents/{one.id}/human", "persona": f"agents/{one.id}/persona"}
    assert "guiding how you behave" in (client.agents.blocks.retrieve(one.id, "persona").description or "")
    assert (other.blocks, client.agents.retrieve(other.id)) == ({}, other)


def test_create_agent_is_all_or_nothing(client: Client, agent: str) -> None:
    """An agent that cannot be made as asked is not made at all."""
    with pytest.raises(AlreadyExists):
        client.agents.create(name=agent, memory_blocks=[{"name": "a"}, {"name": "a"}])
    with pytest.raises(NotFound):
        client.agents.create(name=agent, block_ids=["no-such-block"])
    with pytest.raises(NotFound):
        client.agents.retrieve(agent)
    client.agents.create(name=agent)
    with pytest.raises(AlreadyExists) as caught:
        client.agents.create(name=agent)
    assert caught.value.facts == {"agent": agent}


def test_delete_agent(place: Place, client: Client, label: str, agent: str) -> None:
    """A deleted agent is known no more, its private blocks are gone, and shared ones stay without it."""
    client.blocks.create(label=label, value="shared", agents=[agent, f"{agent}-other"])
    client.agents.create(name=f"{agent}-third")
    client.agents.create(name=f"{agent}-new", block_ids=[label])
    client.agents.delete(f"{agent}-new")
    client.agents.delete(agent_id=agent)
    assert [one.id for one in client.blocks.agents.list(label)] == [f"{agent}-other"]
    for gone in (agent, f"{agent}-new"):
        with pytest.raises(NotFound):
            client.agents.retrieve(gone)
    assert not (place.folder / "agents" / f"{agent}-new").exists()
    assert client.agents.retrieve(f"{agent}-third").blocks


@pytest.mark.every_backend
def test_blocks_of_an_agent(client: Client, label: str, agent: str) -> None:
    """A block is attached to and detached from an agent by id, and changed by the name the agent has for it."""
    shared = client.blocks.create(label=label, value="one")
    client.agents.create(name=agent, memory_blocks=[])
    attached = client.agents.blocks.attach(agent_id=agent, block_id=shared.id)
    assert (attached.id, attached.blocks) == (agent, {label: label})
    assert client.agents.blocks.update(agent_id=agent, block_label=label, value="two").value == "two"
    client.blocks.create(label=f"agents/{agent}/human", value="nobody")
    assert client.agents.blocks.modify(agent_id=agent, block_label="human", value="Alice").label.endswith("/human")
    detached = client.agents.blocks.detach(agent_id=agent, block_id=shared.id)
    assert detached.blocks == {"human": f"agents/{agent}/human"}
    with pytest.raises(NotAttached):
        client.agents.blocks.detach(agent_id=agent, block_id=shared.id)
    assert client.blocks.retrieve(label).value == "two"


def test_last_block_detached(client: Client, label: str, agent: str) -> None:
    """An agent that was known by one block only is attached to nothing once that is detached."""
    client.blocks.create(label=label, agents=[agent])
    assert client.agents.blocks.detach(agent, label).blocks == {}


# --- an agent's memory ---


@pytest.fixture
def memory(client: Client, label: str, agent: str) -> Iterator[Memory]:
    """The memory of an agent with a block of its own and a shared one."""
    client.blocks.create(label=label, value="shared")
    client.agents.create(name=agent, memory_blocks=[{"name": "human", "value": "Bob"}], block_ids=[label])
    opened = client.memory(agent)
    yield opened
    opened.close()


@pytest.mark.every_backend
def test_memory_writes_as_the_agent(place: Place, memory: Memory, label: str, agent: str) -> None:
    """Whatever an agent writes, under its own names, is in the file, has it for author, and is returned."""
    steps: list[tuple[Callable[[], BlockView], str]] = [
        (lambda: memory.append("human", "tea"), "Bob\ntea"),
        (lambda: memory.replace("human", "tea", "coffee"), "Bob\ncoffee"),
        (lambda: memory.insert("human", "first", line=0), "first\nBob\ncoffee"),
        (lambda: memory.insert("human", "last"), "first\nBob\ncoffee\nlast"),
        (lambda: memory.apply_patch("human", "@@\n-first\n Bob\n"), "Bob\ncoffee\nlast"),
        (lambda: memory.rethink("human", "Alice"), "Alice"),
        (lambda: memory.update_block_value(label="human", value="Alice, 30"), "Alice, 30"),
        (lambda: memory.set_block("human", "Bob", "Who it is"), "Bob"),
        (lambda: memory.append("human", "x", expect_version=9), "Bob\nx"),
    ]
    for version, (step, value) in enumerate(steps, 2):
        block = step()
        assert (block.name, block.value, block.version, block.updated_by) == ("human", value, version, agent)
        assert memory.get_block("human") == block, "its own write is seen at once"
        assert f"<value>\n{value}\n</value>" in memory.compile()
    assert memory.get_block("human").description == "Who it is"
    undone = memory.undo("human")
    assert undone is not None
    assert (undone.value, undone.updated_by) == ("Bob", agent)
    memory.append("human", "x")
    assert memory.append(label, "mine, too").value == "shared\nmine, too"
    assert place.text(f"agents/{agent}/human").endswith("---\nBob\nx\n")


def test_core_memory_methods(memory: Memory) -> None:
    """The two methods that Letta's memory has by these names return nothing."""
    appended: Any = cast("Any", memory).core_memory_append(label="human", content="Likes tea.")
    replaced: Any = cast("Any", memory).core_memory_replace("human", old_content="tea", new_content="coffee")
    assert (appended, replaced) == (None, None)
    assert memory.get_block("human").value == "Bob\nLikes coffee."


def test_blocks_of_its_own(memory: Memory, label: str, agent: str) -> None:
    """An agent makes, renames and deletes blocks of its own; those it shares it does not."""
    assert memory.set_block("plan/today", "rest", description="What to do").label == f"agents/{agent}/plan/today"
    assert memory.set_block("plan/today", "work").description == "What to do"
    assert memory.rename_block("plan/today", "plan/done").name == "plan/done"
    assert "plan/done" in memory.list_block_labels()
    memory.delete_block("plan/done")
    assert "plan/done" not in memory.list_block_labels()
    restored = memory.undo("plan/done")
    assert restored is not None
    assert restored.value == "work"
    assert memory.create_block("scratch").value == ""
    for refused in (lambda: memory.delete_block(label), lambda: memory.rename_block(label, "x")):
        with pytest.raises(InvalidRequest, match="which is shared"):
            refused()
    with pytest.raises(AlreadyExists):
        memory.create_block("scratch")
    with pytest.raises(LabelConflict):
        memory.create_block(label)


@pytest.mark.parametrize(
    "write",
    [
        lambda memory: memory.append("human", 7),
        lambda memory: memory.replace("human", None, "x"),
        lambda memory: memory.insert("human", ["x"]),
        lambda memory: memory.apply_patch("human", b"x"),
        lambda memory: memory.rethink("human", None),
        lambda memory: memory.update_block_value("human", 3.5),
        lambda memory: memory.set_block("human", {}),
        lambda memory: memory.core_memory_append("human", None),
    ],
)
def test_value_that_is_no_text(memory: Memory, write: Callable[[Any], object]) -> None:
    """What is not a string is a ValueError, before anything is asked."""
    with pytest.raises(ValueError, match=r"^Provided value must be a string$") as caught:
        write(memory)
    assert isinstance(caught.value, InvalidField)
    assert memory.get_block("human").version == 1


def test_memory_of_nobody(client: Client, agent: str) -> None:
    """Nobody reads what an unknown agent writes: it is NotFound at once, not a timeout."""
    with pytest.raises(NotFound) as caught:
        client.memory(agent).append("human", "x", timeout_seconds=60)
    assert caught.value.facts == {"agent": agent}


@pytest.mark.every_backend
def test_own_write_is_never_hidden_by_what_is_kept(place: Place, memory: Memory, label: str) -> None:
    """Whoever writes and then reads sees it, as often as it is done, while others write as well."""
    with Client(place.server.url) as other:
        for turn in range(25):
            assert memory.compile()
            memory.rethink("human", f"turn {turn}")
            assert memory.get_block("human").value == f"turn {turn}"
            other.blocks.append(label, str(turn))


def test_agents_of_one_client_see_at_once_what_it_writes(
    client: Client, memory: Memory, label: str, agent: str
) -> None:
    """A block that one agent has changed is so in the next prompt of another, and so are blocks that come, go or move."""
    other = f"{agent}-2"
    client.blocks.attach(label, [other])
    with closing(client.memory(other)) as others:
        for number in range(30):
            memory.append(label, f"{number}.")
            assert others.get_block(label).value.endswith(f"\n{number}.")
            client.blocks.append(label, f"{number}, too.")
            assert memory.get_block(label).value == others.get_block(label).value
            others.create_block(f"n-{number}", "mine")
            client.blocks.create(label=f"{label}/{number}", value="new", agents=[other])
            assert f"{label}/{number}" in others.list_block_labels()
            client.blocks.rename(f"{label}/{number}", f"{label}/r{number}")
            assert f"{label}/r{number}" in others.list_block_labels()
            with client.batch() as batch:
                batch.update(label, description=f"Of {number}.")
                batch.delete(f"{label}/r{number}")
            assert others.get_block(label).description == f"Of {number}."
            assert f"{label}/r{number}" not in others.list_block_labels()


def test_what_a_client_writes_elsewhere_costs_a_memory_nothing(client: Client, memory: Memory, label: str) -> None:
    """The text of an agent is the very same object while no block of it is written."""
    client.blocks.create(label=f"{label}-other", value="x")
    text = memory.compile()
    client.blocks.append(f"{label}-other", "y")
    client.blocks.update(f"{label}-other", value="z")
    client.blocks.versions.list(f"{label}-other")
    assert memory.compile() is text


# --- tools ---


def test_tools_write_and_tell(memory: Memory, label: str, agent: str) -> None:
    """Each tool does what it says, and tells the model what came of it."""
    tools = memory.tools()
    calls: list[tuple[str, dict[str, Any], str]] = [
        ("core_memory_append", {"label": "human", "content": "tea"}, "Bob\ntea"),
        ("memory_replace", {"label": "human", "old_string": "tea", "new_string": "coffee"}, "Bob\ncoffee"),
        ("core_memory_replace", {"label": "human", "old_content": "Bob", "new_content": "Bo"}, "Bo\ncoffee"),
        ("core_memory_replace", {"label": "human", "old_content": "Bo", "new_content": "Bob"}, "Bob\ncoffee"),
        ("memory_insert", {"label": "human", "new_string": "Dr.", "insert_line": 0}, "Dr.\nBob\ncoffee"),
        ("memory_insert", {"label": "human", "new_string": "end", "insert_line": None}, "Dr.\nBob\ncoffee\nend"),
        ("memory_apply_patch", {"label": "human", "patch": "@@\n-Dr.\n Bob\n"}, "Bob\ncoffee\nend"),
        ("memory_rethink", {"label": "human", "new_memory": "Alice"}, "Alice"),
    ]
    for name, arguments, value in calls:
        result = tools.call(name, json.dumps(arguments))
        assert result.text == f"Done: 'human' has {len(value)} of at most 20000 characters"
        assert result.ok
        assert result.block == memory.get_block("human")
        assert memory.get_block("human").value == value
    tools.call("memory_create", {"label": "plan", "value": "rest", "description": "What to do"})
    assert memory.get_block("plan").description == "What to do"
    tools.call("memory_update_description", {"label": "plan", "description": "What is done"})
    viewed = tools.call("memory_view", {"label": "plan"})
    assert viewed.block == memory.get_block("plan")
    assert "What is done" in viewed.text
    tools.call("memory_rename", {"label": "plan", "to": "done"})
    assert memory.get_block("done").value == "rest"
    assert tools.call("memory_delete", {"label": "done"}).text == "Done: 'done' is deleted"
    result = tools.call("core_memory_append", {"label": "humn", "content": "x"})
    assert not result.ok
    assert result.text == f"Not done: {agent!r} has no block 'humn'. Your blocks: human, {label}"
    result = tools.call("memory_rethink", {"label": "human", "new_memory": "x" * 20001})
    assert result.text == "Not done: Exceeds character limit: value is 20001 characters, over its limit of 20000"


# --- when something is away ---


def test_nobody_replies(own: Place, open_client: Callable[[str], Client]) -> None:
    """Without a reply in time it is Unavailable, with the request's id; what was not done by then is not done later."""
    client = open_client(own.server.url)
    client.blocks.create(label="notes", value="one")
    assert own.daemon.stop() == 0
    with pytest.raises(Unavailable, match="no daemon is in charge") as caught:
        client.blocks.append("notes", "late", timeout_seconds=0.5)
    assert uuid.UUID(cast("str", caught.value.facts["request_id"]))
    own.daemon.start()
    assert client.blocks.append("notes", "two").value == "one\ntwo"


def test_daemon_that_is_slow(own: Place, open_client: Callable[[str], Client]) -> None:
    """A daemon that is in charge and does not reply is told from one that is not there."""
    client = open_client(own.server.url)
    assert own.daemon.process is not None
    own.daemon.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(
            Unavailable, match=r"the daemon has not replied within 0\.5 s; whether the request x was done"
        ):
            client.blocks.create(label="notes", timeout_seconds=0.5, request_id="x")
    finally:
        own.daemon.process.send_signal(signal.SIGCONT)


def test_hundreds_of_calls_wait_at_once(own: Place, open_client: Callable[[str], Client]) -> None:
    """Each call that waits for the daemon has a connection: none is refused because others wait."""
    client, calls = open_client(own.server.url), 300
    client.blocks.create(label="notes")
    assert own.daemon.process is not None
    raw: Any = own.server.client()
    with ThreadPoolExecutor(calls) as pool:
        own.daemon.process.send_signal(signal.SIGSTOP)
        try:
            asked = [pool.submit(client.blocks.append, "notes", str(number)) for number in range(calls)]
            eventually(lambda: raw.xlen("blocks:inbox:operator") >= calls, "all are put")
            eventually(lambda: raw.info("clients")["blocked_clients"] >= calls, "all wait")
        finally:
            own.daemon.process.send_signal(signal.SIGCONT)
        for one in asked:
            one.result()
    raw.close()
    assert sorted(map(int, client.blocks.retrieve("notes").value.split())) == [*range(calls)]


def test_daemon_comes_back(own: Place, open_client: Callable[[str], Client]) -> None:
    """A request that is made while the daemon is away is done when it is back, once."""
    client = open_client(own.server.url)
    client.blocks.create(label="notes", value="one")
    own.daemon.kill()
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(client.blocks.append, "notes", "two")
        raw = own.server.client()
        eventually(lambda: raw.xlen("blocks:inbox:operator"), "it is asked for")
        raw.close()
        own.daemon.start()
        assert waiting.result(DEADLINE).value == "one\ntwo"
    assert own.daemon.values("notes") == ["one", "one\ntwo"]


@pytest.mark.parametrize("kept", [True, False], ids=["what it held is kept", "what it held is lost"])
def test_server_is_restarted_meanwhile(own: Place, open_client: Callable[[str], Client], kept: bool) -> None:
    """When the server goes and comes back while a reply is waited for, the request is sent again, and done once."""
    client = open_client(own.server.url)
    client.blocks.create(label="notes", value="one")
    assert own.daemon.process is not None
    own.daemon.process.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(client.blocks.append, "notes", "two")
        raw = own.server.client()
        eventually(lambda: raw.xlen("blocks:inbox:operator"), "it is asked for")
        if kept:
            raw.save()
        raw.close()
        own.server.kill()
        own.server.start()
        own.daemon.process.send_signal(signal.SIGCONT)
        assert waiting.result(DEADLINE).value == "one\ntwo"
    assert own.daemon.values("notes") == ["one", "one\ntwo"]


def test_reply_is_lost(own: Place, open_client: Callable[[str], Client]) -> None:
    """When the connection is cut before the reply has come, the request is sent again, and done once."""
    between = Between(own.server.socket)
    try:
        client = open_client(between.url)
        client.blocks.create(label="notes", value="one")
        assert own.daemon.process is not None
        own.daemon.process.send_signal(signal.SIGSTOP)
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(client.blocks.append, "notes", "two")
            raw = own.server.client()
            eventually(lambda: raw.xlen("blocks:inbox:operator"), "it is asked for")
            between.cut()
            eventually(lambda: raw.xlen("blocks:inbox:operator") > 1, "it is asked for again")
            raw.close()
            own.daemon.process.send_signal(signal.SIGCONT)
            assert waiting.result(DEADLINE).value == "one\ntwo"
        client.close()
    finally:
        between.close()
    assert own.daemon.values("notes") == ["one", "one\ntwo"]


def test_server_hangs(own: Place, open_client: Callable[[str], Client]) -> None:
    """A server that says nothing is asked again for as long as there is time; when it goes on, nothing is done late."""
    client = open_client(own.server.url)
    client.blocks.create(label="notes", value="one")
    own.server.pause()
    try:
        with pytest.raises(Unavailable, match=r"does not serve.*whether the request .* was done is not known"):
            client.blocks.append("notes", "two", timeout_seconds=1.2)
    finally:
        own.server.resume()
    assert client.blocks.append("notes", "three").value == "one\nthree"


def test_server_is_away(open_client: Callable[[str], Client], tmp_path: Path) -> None:
    """Without a server, a request is tried until its time is over, and no longer."""
    client = open_client(f"unix://{tmp_path}/none.sock")
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        client.blocks.create(label="notes", timeout_seconds=0.5, request_id="x")
    assert 0.5 <= time.monotonic() - started < 5
    assert caught.value.facts == {"url": f"unix://{tmp_path}/none.sock", "request_id": "x"}


@pytest.mark.every_backend
def test_same_id_is_done_once(place: Place, client: Client, label: str) -> None:
    """A request that is made again under its id has the first outcome, be it done or refused."""
    client.blocks.create(label=label, value="one")
    first, again = (client.blocks.append(label, "two", request_id=f"{label}-a") for _ in range(2))
    assert first == again
    for _ in range(2):
        with pytest.raises(LimitExceeded):
            client.blocks.update(label, value="x" * 20001, request_id=f"{label}-b")
    with pytest.raises(InvalidRequest, match="another request"):
        client.blocks.update(label, value="short enough", request_id=f"{label}-b")
    assert [revision.version for revision in place.revisions(label)] == [1, 2]


# --- errors as they travel ---


def _kinds(kind: type[BlocksdError] = BlocksdError) -> Iterator[type[BlocksdError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


@pytest.mark.parametrize("kind", [*_kinds()], ids=lambda kind: kind.__name__)
def test_error_travels(kind: type[BlocksdError]) -> None:
    """An error that travelled has its message and facts; its class is the one of its code that requests are refused by."""
    sent = kind("Said so.", label="notes", lines=[1])
    got = errors.from_json(json.loads(json.dumps(sent.as_json())))
    assert (got.message, got.facts["label"], got.facts["lines"]) == ("Said so.", "notes", [1])
    assert type(got) is BlocksdError or type(got).code == kind.code
    if type(got) is BlocksdError:
        assert got.facts["code"] == kind.code
    else:
        assert issubclass(kind, type(got)) or kind in (
            InvalidLabel,
            InvalidField,
            errors.InvalidFile,
            errors.EditRefused,
        )


def test_inbox_that_is_none(own: Place, open_client: Callable[[str], Client]) -> None:
    """An inbox that another program has made something else of is made anew by the daemon: a request takes a retry, if that."""
    client = open_client(own.server.url)
    client.agents.create(name="ann")
    raw = own.server.client()
    raw.set("blocks:inbox:ann", "x")
    raw.close()
    block = client.memory("ann").append("human", "x")
    assert block.value.endswith("x")
