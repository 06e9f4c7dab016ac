"""What programs read through the client: alike whether they block or await, and on every kind of server."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import os
import random
import selectors
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import fakeredis
import pytest
import redis

import rig as rig_module
from blocksd import AsyncClient, Client, aconnect, connect
from blocksd.client import subscription_async, transport_async
from blocksd.client.blocking import subscription, transport
from blocksd.errors import Damaged, InvalidField, InvalidLabel, Misconfigured, NotFound, Unavailable
from blocksd.mirror.connection import connect as connect_to_server
from blocksd.model.block import block_id
from blocksd.protocol import listing, watching, wire
from following import alike, looping
from rig import Rig
from support import BACKENDS, Daemon, RedisServer, binary_of, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from blocksd import BlockView, Page
    from blocksd.errors import BlocksdError

    Ask = Callable[[Client], object]
    Listing = Callable[..., Page[Any]]

FAKE = "redis://fake"

FILES = {
    "agents/ann/human": "Ann speaks with Bob.\n",
    "agents/ann/persona": "I am Ann.\n",
    "agents/bob/human": "Bob speaks with Alice.\n",
    "agents/bob/system/human": "Not what Bob calls human.\n",
    "café": "Die STRASSE am Fluß\n",
    "human": "Anyone.\n",
    "notes": "---\nagents: [ann, bob]\ndescription: What we KNOW\ntags: [x, y]\nmetadata: {a: [1, null]}\n---\n"
    "one\n\ttwo – ünï 💾\n",
    "organization": "---\nagents: [ann, bob, cat]\nlimit: 4000\nread_only: true\ntags: [x, policy]\n---\n"
    "Organization: Letta\n",
    "secret": "---\nagents: [cat]\nhidden: true\ntags: [y]\n---\nHush.\n",
    "starter": "---\nis_template: true\ntemplate_name: first\n---\nHello.\n",
}
BAD = {"bad": "---\nlimit: none\n---\n", "also bad?": "x\n"}

SHOWN = [label for label in FILES if label not in ("secret", "starter")]
"""The labels of the blocks that are neither hidden nor templates, in their order: that of their bytes."""
HUMANS = ["agents/ann/human", "agents/bob/human", "human"]
AGENTS = ["ann", "bob", "cat", "idle"]
ANNS = ["human", "notes", "organization", "persona"]

LISTINGS: dict[str, tuple[Listing, Sequence[str]]] = {
    "blocks": (lambda client, **cursors: client.blocks.list(**cursors), SHOWN),
    "hidden blocks and templates, too": (
        lambda client, **cursors: client.blocks.list(show_hidden_blocks=True, show_templates=True, **cursors),
        [*FILES],
    ),
    "blocks by label": (lambda client, **cursors: client.blocks.list(label="human", **cursors), HUMANS),
    "blocks by tag": (lambda client, **cursors: client.blocks.list(tags=["x"], **cursors), ["notes", "organization"]),
    "agents": (lambda client, **cursors: client.agents.list(**cursors), AGENTS),
    "agents of a block": (lambda client, **cursors: client.blocks.agents.list("organization", **cursors), AGENTS[:3]),
    "blocks of an agent": (lambda client, **cursors: client.agents.blocks.list("ann", **cursors), ANNS),
}
"""Everything that comes in pages, and what all of it is."""


def names(listing: str, page: Page[Any]) -> list[str]:
    """What the items of a page are called as cursors."""
    if listing == "blocks of an agent":
        return [block.name for block in page]
    return [getattr(item, "label", None) or item.id for item in page]


# --- either client, on any server ---


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with looping() as running:
        yield running


@pytest.fixture(params=[Client, AsyncClient], ids=["blocking", "asyncio"])
def open_client(request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop) -> Iterator[Callable[[str], Client]]:
    """A client for the server at a URL, of either kind, and used like a blocking one."""
    opened: list[Client] = []

    def start(url: str) -> Client:
        opened.append(alike(request.param(url), loop))
        return opened[-1]

    yield start
    for client in opened:
        client.close()


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory that is closed is not waited for as long as in life."""
    monkeypatch.setattr(watching, "LISTEN_SECONDS", 0.05)


@pytest.fixture(scope="module")
def library_url(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A mirror of `FILES` that is only read."""
    if backend == "fakeredis":
        fake = fakeredis.FakeServer()
        options: dict[str, Any] = {
            "decode_responses": True,
            "encoding_errors": "surrogateescape",
            "legacy_responses": False,
        }

        def connect_to_fake(url: str, *, asynchronous: bool = False, **others: Any) -> Any:
            if url != FAKE:
                return connect_to_server(url, asynchronous=asynchronous, **others)
            return (fakeredis.FakeAsyncRedis if asynchronous else fakeredis.FakeRedis)(server=fake, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rig_module, "connect", connect_to_fake)
            for module in (transport, transport_async, subscription, subscription_async):
                patch.setattr(module, "connect", connect_to_fake)
            yield from _library(FAKE, tmp_path_factory.mktemp("library"))
    else:
        server = RedisServer(binary_of(backend))
        server.start()
        yield from _library(server.url, tmp_path_factory.mktemp("library"))
        server.remove()


def _library(url: str, home: Path) -> Iterator[str]:
    keeper = Rig(home, url)
    (keeper.root / "agents" / "idle").mkdir(parents=True)
    for label, text in (FILES | BAD).items():
        keeper.write(label, text)
    keeper.core.intake.hint_all()  # the folder of an agent is seen by a sweep
    keeper.settle()
    yield url
    keeper.close()


@pytest.fixture
def library(library_url: str, open_client: Callable[[str], Client]) -> Client:
    """A client that reads the mirror of `FILES`."""
    return open_client(library_url)


@pytest.fixture
def emptied(backend: str, standing_server: Callable[[str], RedisServer]) -> RedisServer:
    """A server with nothing on it."""
    return standing_server(backend)


@pytest.fixture
def rig(tmp_path: Path, emptied: RedisServer) -> Iterator[Rig]:
    """A mirror that a test may change."""
    made = Rig(tmp_path / "one", emptied.url)
    made.write("notes", FILES["notes"])
    made.write("agents/ann/persona", FILES["agents/ann/persona"])
    made.settle()
    yield made
    made.crash()


@pytest.fixture
def client(rig: Rig, open_client: Callable[[str], Client]) -> Client:
    return open_client(rig.url)


@pytest.fixture
def raw(emptied: RedisServer) -> Iterator[Any]:
    looking: Any = emptied.client()
    yield looking
    looking.close()


# --- one block ---


@pytest.mark.every_backend
def test_block_is_retrieved_as_it_is(rig: Rig, client: Client) -> None:
    """A block comes with all its fields, and with what its newest revision says."""
    shown = client.blocks.retrieve("notes")
    newest = rig.journal.head("notes")
    assert newest is not None
    assert newest.block is not None
    assert shown.value == "one\n\ttwo – ünï 💾"
    assert shown.as_json() == {
        **newest.block.as_json(),
        "tags": ["x", "y"],
        "id": block_id("notes"),
        "version": 1,
        "chars": len(shown.value),
        "digest": newest.digest,
        "created_at": newest.created_at,
        "updated_at": newest.at,
        "updated_by": "file",
    }
    rig.save_and_settle("notes", "two\n")
    assert (client.blocks.retrieve("notes").value, client.blocks.retrieve("notes").version) == ("two", 2)
    assert (shown.version, shown.tags) == (1, ("x", "y")), "what was read before stays what it was"


@pytest.mark.parametrize("label", FILES)
def test_block_is_known_by_id_and_label(library: Client, label: str) -> None:
    """Every block, hidden, private or a template, is retrieved by its id and by its label alike."""
    block = library.blocks.retrieve(label)
    assert (block.label, block.id) == (label, block_id(label))
    assert library.blocks.retrieve(block.id) == block


@pytest.mark.every_backend
def test_label_has_many_spellings(library: Client) -> None:
    """A label is found in whatever Unicode form it is written."""
    assert library.blocks.retrieve("cafe\N{COMBINING ACUTE ACCENT}").label == "café"
    assert labels_of(library.blocks.list(label="cafe\N{COMBINING ACUTE ACCENT}")) == ["café"]


# --- which blocks ---


def labels_of(page: Page[BlockView]) -> list[str]:
    return [block.label for block in page]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, SHOWN),
        ({"show_hidden_blocks": True}, [label for label in FILES if label != "starter"]),
        ({"show_templates": True}, [label for label in FILES if label != "secret"]),
        ({"show_hidden_blocks": True, "show_templates": True}, list(FILES)),
        ({"show_templates": True, "label_search": "star"}, ["starter"]),
        ({"label_search": "star"}, []),
        ({"label": "starter"}, []),
        ({"label": "human"}, HUMANS),
        ({"label": "system/human"}, ["agents/bob/system/human"]),
        ({"label": "agents/ann/human"}, ["agents/ann/human"]),
        ({"label": "notes"}, ["notes"]),
        ({"label": "nothing"}, []),
        ({"label": "secret"}, []),
        ({"label": "secret", "show_hidden_blocks": True}, ["secret"]),
        ({"label_search": "HUM"}, [*HUMANS[:2], "agents/bob/system/human", "human"]),
        ({"label_search": "organization"}, ["organization"]),
        ({"label_search": "é"}, ["café"]),
        ({"label_search": "*"}, []),
        ({"label_search": ""}, SHOWN),
        ({"label": "human", "label_search": "ann"}, ["agents/ann/human"]),
        ({"description_search": "we know"}, ["notes"]),
        ({"description_search": "friend-like"}, [*HUMANS[:2], "agents/bob/system/human", "human"]),
        ({"description_search": "nothing of the kind"}, []),
        ({"value_search": "speaks WITH"}, HUMANS[:2]),
        ({"value_search": "straße"}, ["café"]),
        ({"value_search": "💾"}, ["notes"]),
        ({"value_search": "one\n"}, ["notes"]),
        ({"value_search": "hush"}, []),
        ({"tags": ["x"]}, ["notes", "organization"]),
        ({"tags": {"y", "policy"}}, ["notes", "organization"]),
        ({"tags": ["x", "y"], "match_all_tags": True}, ["notes"]),
        ({"tags": ("x", "x"), "match_all_tags": True}, ["notes", "organization"]),
        ({"tags": ["z"]}, []),
        ({"tags": []}, SHOWN),
        ({"tags": [], "match_all_tags": True}, SHOWN),
        ({"tags": ["y"], "show_hidden_blocks": True}, ["notes", "secret"]),
        ({"connected_to_agents_count_gt": 1}, ["notes", "organization"]),
        ({"connected_to_agents_count_gt": 0}, [label for label in SHOWN if label not in ("café", "human")]),
        ({"connected_to_agents_count_gt": 3}, []),
        ({"connected_to_agents_count_lt": 1}, ["café", "human"]),
        ({"connected_to_agents_count_lt": 1, "show_templates": True}, ["café", "human", "starter"]),
        ({"connected_to_agents_count_gt": 1, "tags": ["policy"]}, ["organization"]),
        ({"connected_to_agents_count_gt": 0, "connected_to_agents_count_eq": [0, 3]}, ["organization"]),
        ({"connected_to_agents_count_lt": 0}, []),
        ({"connected_to_agents_count_eq": 3}, ["organization"]),
        ({"connected_to_agents_count_eq": 0}, ["café", "human"]),
        ({"connected_to_agents_count_eq": [2, 3, 4]}, ["notes", "organization"]),
        ({"connected_to_agents_count_eq": {1}, "show_hidden_blocks": True, "label_search": "ecre"}, ["secret"]),
        ({"connected_to_agents_count_eq": []}, []),
        ({"connected_to_agents_count_gt": 1, "connected_to_agents_count_lt": 3}, ["notes"]),
        ({"templates_only": True}, ["starter"]),
        ({"templates_only": True, "value_search": "nothing"}, []),
        ({"label": "human", "value_search": "bob", "connected_to_agents_count_gt": 0}, HUMANS[:2]),
        ({"tags": ["x"], "description_search": "know", "value_search": "two"}, ["notes"]),
        ({"label": None, "label_search": None, "description_search": None, "value_search": None}, SHOWN),
        (dict.fromkeys(f"connected_to_agents_count_{word}" for word in ("gt", "lt", "eq")), SHOWN),
    ],
)
def test_blocks_are_those_for_which_every_condition_holds(
    library: Client, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any], found: list[str]
) -> None:
    """Blocks are listed, either way round, and counted alike, whether the mirror is read in one part or in many."""
    blocks = library.blocks
    assert labels_of(blocks.list(**wanted)) == found
    assert blocks.count(**wanted) == len(found)
    monkeypatch.setattr(listing, "PAGE", 2)
    monkeypatch.setattr(listing, "NAMES", 2)
    monkeypatch.setattr(listing, "SCANNED", 1)
    monkeypatch.setattr(listing, "COUNTED", 3)
    assert labels_of(blocks.list(**wanted)) == found
    assert labels_of(blocks.list(order="desc", **wanted)) == found[::-1]
    assert blocks.count(**wanted) == len(found)
    monkeypatch.setattr(blocks._transport, "may_run_scripts", False)
    assert blocks.count(**wanted) == len(found)


@pytest.mark.every_backend
def test_listed_blocks_are_whole(library: Client) -> None:
    """A block in a listing is the block one retrieves."""
    listed = library.blocks.list(show_hidden_blocks=True, show_templates=True)
    assert list(listed) == [library.blocks.retrieve(block.id) for block in listed]
    assert listed.next is None


# --- pages ---


@pytest.mark.parametrize("listing", LISTINGS)
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_of_any_size_give_everything_once(library: Client, listing: str, order: str) -> None:
    """Followed by `next`, pages give everything once and in order, and say when there is no more."""
    ask, everything = LISTINGS[listing]
    in_order = list(everything if order == "asc" else everything[::-1])
    for limit in range(1, len(everything) + 2):
        pages = [ask(library, limit=limit, order=order)]
        while pages[-1].next is not None:
            pages.append(ask(library, limit=limit, order=order, after=pages[-1].next))
        assert [name for page in pages for name in names(listing, page)] == in_order
        assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
        assert 0 < len(pages[-1]) <= limit


@pytest.mark.parametrize("listing", LISTINGS)
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_are_walked_backwards(library: Client, listing: str, order: str) -> None:
    """With `before` alone, a page is the part that ends there: from the end back, everything comes once."""
    ask, everything = LISTINGS[listing]
    in_order = list(everything if order == "asc" else everything[::-1])
    end = "zzz" if order == "asc" else "0"
    for limit in range(1, len(everything) + 2):
        found: list[str] = []
        while page := names(listing, ask(library, limit=limit, order=order, before=found[0] if found else end)):
            found = page + found
        assert found == in_order


def expected_page(
    in_order: list[str], after: str | None, before: str | None, limit: int | None, *, is_reversed: bool
) -> tuple[list[str], str | None]:
    """What lies between two cursors, and where the part that follows begins."""

    def follows(name: str, cursor: str) -> bool:
        return name.encode() < cursor.encode() if is_reversed else name.encode() > cursor.encode()

    between = [
        name
        for name in in_order
        if (after is None or follows(name, after))
        and (before is None or (name != before and not follows(name, before)))
    ]
    if limit is None:
        return between, None
    if before is not None and after is None:
        return between[-limit:], between[-1] if between else None
    return between[:limit], between[limit - 1] if len(between) > limit else None


@pytest.mark.every_backend
@pytest.mark.parametrize("listing", LISTINGS)
def test_page_lies_between_its_cursors(library: Client, backend: str, listing: str) -> None:
    """Whatever cursors, size and order: the page is what lies between, and `next` is where the rest begins.

    One server is asked for all of it, the others for each kind of range.
    """
    ask, everything = LISTINGS[listing]
    cursors: Sequence[str | None] = [None, "0", everything[len(everything) // 2], "zzz"]
    limits: Sequence[int | None] = [None, 2]
    if backend == BACKENDS[0]:
        cursors = [*cursors, everything[0], "m", everything[-1]]
        limits = [*limits, 1, 100]
    for after, before, limit, order in itertools.product(cursors, cursors, limits, ("asc", "desc")):
        in_order = list(everything if order == "asc" else everything[::-1])
        page = ask(library, after=after, before=before, limit=limit, order=order)
        wanted = expected_page(in_order, after, before, limit, is_reversed=order == "desc")
        assert (names(listing, page), page.next) == wanted, (after, before, limit, order)


def test_id_is_a_cursor(library: Client) -> None:
    """The id of a block stands for its label."""
    blocks, notes, human = library.blocks, block_id("notes"), block_id("human")
    assert blocks.list(after=notes) == blocks.list(after="notes")
    assert blocks.list(before=notes, limit=2) == blocks.list(before="notes", limit=2)
    assert labels_of(blocks.list(after=notes, before=human, order="desc")) == []
    assert labels_of(blocks.list(after=human, before=notes)) == []
    assert labels_of(blocks.list(after=notes, order="desc", limit=1)) == ["human"]


@pytest.mark.every_backend
def test_cursor_outlives_its_block(rig: Rig, client: Client) -> None:
    """Where a block was that is deleted by now, a listing goes on; what came behind the cursor is not shown twice."""
    for name in "abcdef":
        rig.write(name, f"{name}\n")
    rig.settle()
    first = client.blocks.list(limit=4)
    assert labels_of(first) == ["a", "agents/ann/persona", "b", "c"]
    rig.remove("c")
    rig.write("aa", "new\n")
    rig.write("da", "new\n")
    rig.settle()
    assert labels_of(client.blocks.list(limit=4, after=first.next)) == ["d", "da", "e", "f"]
    assert labels_of(client.blocks.list(limit=2, before="c")) == ["agents/ann/persona", "b"]
    assert labels_of(client.blocks.list(limit=2, after="c", order="desc")) == ["b", "agents/ann/persona"]
    with pytest.raises(NotFound):
        client.blocks.list(after=block_id("c"))


def test_listings_are_longer_than_one_reading(rig: Rig, client: Client) -> None:
    """More blocks and agents than are asked for at once come whole, and in order."""
    labels = [f"b{number:04}" for number in range(1100)]
    for label in labels:
        rig.write(label, f"---\nagents: [agent-{label}]\n---\n{label}\n")
    rig.settle()
    assert labels_of(client.blocks.list(after="b")) == [*labels, "notes"]
    assert labels_of(client.blocks.list(value_search="b0999")) == ["b0999"]
    assert client.blocks.count(label_search="b") == 1100
    assert [agent.id for agent in client.agents.list(before="ann")] == [f"agent-{label}" for label in labels]
    assert client.blocks.agents.counts([*labels, "notes", "nothing"]) == {
        **dict.fromkeys(labels, 1),
        "notes": 2,
        "nothing": 0,
    }


# --- agents ---


@pytest.mark.every_backend
def test_agents_come_with_their_blocks(library: Client) -> None:
    """A known agent is shown with the names it has for its blocks; one that nothing is attached to has none."""
    agents = library.agents
    assert [agent.id for agent in agents.list()] == AGENTS
    assert agents.count() == 4
    for agent in agents.list():
        assert agents.retrieve(agent.id) == agent
    assert agents.retrieve("ann").blocks == {
        "human": "agents/ann/human",
        "notes": "notes",
        "organization": "organization",
        "persona": "agents/ann/persona",
    }
    assert agents.retrieve("idle").blocks == {}
    assert agents.retrieve("idle").name == "idle"


@pytest.mark.every_backend
def test_agents_of_a_block(library: Client) -> None:
    """The agents attached to a block are listed and counted, whether it is named by id or label."""
    agents = library.blocks.agents
    for label, attached in {
        "organization": AGENTS[:3],
        "agents/bob/human": ["bob"],
        "secret": ["cat"],
        "human": [],
    }.items():
        assert [agent.id for agent in agents.list(label)] == attached
        assert agents.list(block_id=block_id(label)) == agents.list(label)
        assert agents.count(label) == agents.count(block_id(label)) == len(attached)
    assert agents.list("notes")[0] == library.agents.retrieve("ann")
    assert agents.counts(["notes", "human", "nothing"]) == {"notes": 2, "human": 0, "nothing": 0}
    assert agents.counts([]) == {}


@pytest.mark.every_backend
def test_blocks_of_an_agent(library: Client) -> None:
    """An agent's blocks come by its own names for them, hidden ones included."""
    blocks = library.agents.blocks
    assert [(block.name, block.label) for block in blocks.list("ann")] == [
        ("human", "agents/ann/human"),
        ("notes", "notes"),
        ("organization", "organization"),
        ("persona", "agents/ann/persona"),
    ]
    assert [block.name for block in blocks.list(agent_id="bob")] == ["human", "notes", "organization", "system/human"]
    assert [block.name for block in blocks.list("cat")] == ["organization", "secret"]
    assert list(blocks.list("idle")) == []


@pytest.mark.every_backend
def test_block_of_an_agent(library: Client) -> None:
    """An agent's block is found by the name the agent has for it, by its label and by its id."""
    retrieve = library.agents.blocks.retrieve
    for agent in ("ann", "bob", "cat"):
        for name, label in library.agents.retrieve(agent).blocks.items():
            block = library.blocks.retrieve(label)
            for known_as in (name, label, block.id):
                assert retrieve(agent, known_as) == block
    assert retrieve(agent_id="ann", block_label="human").value == "Ann speaks with Bob."
    assert retrieve(agent_id="bob", block_label="human").value == "Bob speaks with Alice."


def test_name_means_the_block_that_has_it(rig: Rig, client: Client) -> None:
    """Of two blocks that want one name, an agent has the one that had it first; the other is not found, by any name."""
    rig.save_and_settle("agents/ann/notes", "mine\n")
    retrieve, private = client.agents.blocks.retrieve, "agents/ann/notes"
    assert client.agents.retrieve("ann").blocks["notes"] == "notes"
    assert retrieve("ann", "notes").label == retrieve("ann", block_id("notes")).label == "notes"
    for known_as in (private, block_id(private)):
        with pytest.raises(NotFound, match=f"agent 'ann' has no block '{known_as}'"):
            retrieve("ann", known_as)
    rig.save_and_settle("notes", "shared with nobody\n")
    assert client.agents.retrieve("ann").blocks["notes"] == private
    assert {retrieve("ann", known_as).label for known_as in ("notes", private, block_id(private))} == {private}
    with pytest.raises(NotFound, match="agent 'ann' has no block 'block-"):
        retrieve("ann", block_id("notes"))


def test_id_is_not_looked_for_where_it_was(rig: Rig, client: Client) -> None:
    """Another block that has its place and its name for the agent by now is not it."""
    moved = block_id("agents/ann/persona")
    assert client.agents.blocks.retrieve("ann", moved).label == "agents/ann/persona"
    os.rename(rig.root / "agents/ann/persona.md", rig.root / "persona.md")
    rig.core.intake.hint_all()
    rig.settle()
    rig.save_and_settle("agents/ann/persona", "I am another.\n")
    assert client.blocks.retrieve(moved).label == "persona"
    assert client.agents.blocks.retrieve("ann", "persona").value == "I am another."
    with pytest.raises(NotFound, match="agent 'ann' has no block 'block-"):
        client.agents.blocks.retrieve("ann", moved)


# --- what the index answers ---


def asked_from_now(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | int, ...]]:
    """The commands that clients send from now on."""
    sent: list[tuple[str | int, ...]] = []
    for module in (transport.Transport, transport_async.AsyncTransport):
        original: Any = module.ask

        def ask(self: Any, *commands: Any, original: Any = original, together: bool = False) -> Any:
            sent.extend(commands)
            return original(self, *commands, together=together)

        monkeypatch.setattr(module, "ask", ask)
    return sent


@pytest.mark.every_backend
@pytest.mark.parametrize(
    "wanted",
    [
        {"tags": ["x"]},
        {"tags": ["x", "policy"], "match_all_tags": True},
        {"label": "human"},
        {"label_search": "organ"},
        {"connected_to_agents_count_gt": 1},
        {"templates_only": True},
    ],
    ids=str,
)
def test_index_answers(library: Client, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]) -> None:
    """Blocks are found without being read: a listing reads those it gives, and a count none."""
    sent = asked_from_now(monkeypatch)
    found = library.blocks.list(**wanted)
    read = [command[1] for command in sent if command[0] == "HGETALL"]
    assert read == [f"blocks:block:{block.label}" for block in found]
    assert 0 < len(read) < len(SHOWN)
    sent.clear()
    assert library.blocks.count(**wanted) == len(found)
    assert {command[0] for command in sent if command[1] != "blocks:meta"} <= {
        "ZSCAN",
        "ZCOUNT",
        "ZCARD",
        "ZSCORE",
        "EVAL_RO",
    }


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"tags": ["x"]}, 31),
        ({"tags": ["x", "t"]}, 31),
        ({"tags": ["x", "t"], "match_all_tags": True}, 30),
        ({"label_search": "B"}, 30),
        ({"tags": ["x"], "connected_to_agents_count_lt": 2}, 30),
    ],
    ids=str,
)
def test_server_counts(
    rig: Rig, client: Client, raw: Any, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any], count: int
) -> None:
    """The server counts, and sends a number. It sends what is found to users that have no right to run scripts."""
    for number in range(30):
        rig.write(f"many/b{number}", "---\ntags: [x, t]\n---\n")
    rig.settle()
    sent = asked_from_now(monkeypatch)
    assert client.blocks.count(**wanted) == count
    assert [command[0] for command in sent] == ["HMGET", "EVAL_RO"]
    raw.execute_command("ACL", "SETUSER", "limited", "on", ">secret", "~*", "&*", "+@all", "-eval_ro")
    with Client(rig.url.replace("unix://", "unix://limited:secret@")) as limited:
        sent.clear()
        assert [limited.blocks.count(**wanted) for _ in range(2)] == [count, count]
    assert [command[0] for command in sent if command[0] in ("EVAL_RO", "ZSCAN")][:3] == ["EVAL_RO", "ZSCAN", "ZSCAN"]
    raw.execute_command("ACL", "DELUSER", "limited")


def test_server_finds_tags(rig: Rig, client: Client, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server sends each tag once, whatever blocks have it; without the right to run scripts, the same is found."""
    for number in range(30):
        rig.write(f"many/b{number}", f"---\ntags: [x, 't {number % 3}', 'ü:{number}']\n---\n")
    rig.write("hidden", "---\ntags: [h]\nhidden: true\n---\n")
    rig.settle()
    monkeypatch.setattr(listing, "COUNTED", 7)  # in several parts
    sent = asked_from_now(monkeypatch)
    found = client.tags.list().items
    assert {command[0] for command in sent} == {"HMGET", "EVAL_RO"}
    assert set(found) > {"h", "x", "t 0", "t 1", "t 2", *(f"ü:{number}" for number in range(30))}
    raw.execute_command("ACL", "SETUSER", "limited", "on", ">secret", "~*", "&*", "+@all", "-eval_ro")
    with Client(rig.url.replace("unix://", "unix://limited:secret@")) as limited:
        assert [limited.tags.list().items for _ in range(2)] == [found, found]
    raw.execute_command("ACL", "DELUSER", "limited")


@pytest.mark.every_backend
def test_index_takes_every_text_as_it_is(rig: Rig, client: Client) -> None:
    """What is a pattern elsewhere is a text here, in tags and in labels."""
    odd = ["a*", "*", "[x]", "[^a]", "a-b", "\\", "?", "a\nb", "ü", "S", "ab", " "]
    rig.write("odd", f"---\ntags: {json.dumps(odd)}\n---\n")
    rig.write("other", "---\ntags: [ab, 'ax', x]\n---\n")
    rig.write("x-y.z", "one\n")
    rig.write("x_y.z", "---\ntags: [a.b]\n---\n")
    rig.settle()
    for tag in odd:
        assert labels_of(client.blocks.list(tags=[tag])) == (["odd", "other"] if tag == "ab" else ["odd"]), tag
    assert labels_of(client.blocks.list(tags=odd, match_all_tags=True)) == ["odd"]
    assert labels_of(client.blocks.list(tags=["a", "b", "", "A*"])) == []
    assert labels_of(client.blocks.list(label_search="x-y")) == ["x-y.z"]
    assert labels_of(client.blocks.list(label_search="Y.")) == ["x-y.z", "x_y.z"]
    assert labels_of(client.blocks.list(label_search="a.b")) == []
    assert client.tags.list().items == tuple(sorted({*odd, "ax", "x", "a.b", "y"}, key=str.encode))


@pytest.mark.every_backend
def test_index_follows_every_change(rig: Rig, client: Client) -> None:
    """Tags, flags, agents, labels: what changes is found as it is now, and no longer as it was."""
    rig.write("notes", "---\ntags: [a]\nagents: [ann]\n---\none\n")
    rig.settle()
    assert labels_of(client.blocks.list(tags=["a"])) == ["notes"]
    assert labels_of(client.blocks.list(connected_to_agents_count_eq=1, tags=["a"])) == ["notes"]
    rig.save_and_settle("notes", "---\ntags: [b]\nagents: [ann, bob]\n---\none\n")
    assert labels_of(client.blocks.list(tags=["a"])) == []
    assert labels_of(client.blocks.list(tags=["b"], connected_to_agents_count_gt=1)) == ["notes"]
    rig.save_and_settle("notes", "---\ntags: [b]\nhidden: true\n---\none\n")
    assert labels_of(client.blocks.list(tags=["b"])) == []
    assert client.blocks.count(connected_to_agents_count_lt=1, show_hidden_blocks=True) == 1
    assert client.blocks.count(connected_to_agents_count_lt=1) == 0
    rig.save_and_settle("notes", "---\ntags: [b]\n---\none\n")
    rig.remove("notes")
    rig.write("diary", "---\ntags: [b]\n---\none\n")
    rig.settle()
    assert labels_of(client.blocks.list(tags=["b"])) == ["diary"]
    assert labels_of(client.blocks.list(label_search="note")) == []
    assert client.blocks.count(connected_to_agents_count_lt=1) == 1


@pytest.mark.every_backend
def test_index_of_another_layout_is_unavailable(client: Client, raw: Any) -> None:
    """While an older daemon keeps the mirror, or none has built it, nothing is said to be not there."""
    raw.hset("blocks:meta", "schema", "1")
    with pytest.raises(Unavailable, match="the daemon keeps the mirror in layout 1, and this client reads 4"):
        client.blocks.list(tags=["x"])
    raw.hdel("blocks:meta", "epoch")
    with pytest.raises(Unavailable, match="built anew"):
        client.blocks.count(label="notes")


def test_block_is_found_by_its_id_under_whatever_label(rig: Rig, client: Client) -> None:
    """The label that it had before is asked for first, and not believed: it may be gone, or another block's."""
    rig.save_and_settle("old", "one\n")
    held = client.blocks.retrieve("old").id
    assert [client.blocks.retrieve(held).label for _ in range(2)] == ["old"] * 2
    (rig.root / "old.md").rename(rig.root / "new.md")
    rig.resync()
    rig.save_and_settle("old", "another\n")
    assert [client.blocks.retrieve(held).label for _ in range(2)] == ["new"] * 2
    (rig.root / "new.md").rename(rig.root / "newer.md")
    rig.resync()
    assert client.blocks.retrieve(held).label == "newer"
    rig.remove("newer")
    rig.settle()
    with pytest.raises(NotFound, match=held):
        client.blocks.retrieve(held)


# --- in the order of time ---


@pytest.mark.every_backend
def test_blocks_in_the_order_of_time(rig: Rig, client: Client) -> None:
    """By creation or by the newest change, either way round, in pages; equal times in the order of labels."""
    for label in ("c", "a", "b"):
        rig.clock.advance(1)
        rig.save_and_settle(label, "one\n")
    rig.clock.advance(1)
    rig.save_and_settle("a", "two\n")
    rig.clock.advance(1)
    rig.write("y", "---\ntags: [t]\n---\n")
    rig.write("x", "---\ntags: [t]\n---\n")
    rig.settle()
    found = ["c", "a", "b", "x", "y"]
    blocks = client.blocks
    assert labels_of(blocks.list(order_by="created_at"))[-5:] == found
    assert labels_of(blocks.list(order_by="updated_at"))[-5:] == ["c", "b", "a", "x", "y"]
    assert labels_of(blocks.list(order_by="created_at", order="desc", limit=3)) == ["y", "x", "b"]
    assert labels_of(blocks.list(order_by="created_at", after="c", limit=2)) == ["a", "b"]
    assert labels_of(blocks.list(order_by="created_at", before="y", limit=2)) == ["b", "x"]
    assert labels_of(blocks.list(order_by="created_at", after=block_id("b"))) == ["x", "y"]
    assert labels_of(blocks.list(order_by="updated_at", tags=["t"])) == ["x", "y"]
    page = blocks.list(order_by="updated_at", order="desc", limit=2)
    assert (labels_of(page), page.next) == (["y", "x"], "x")
    with pytest.raises(NotFound, match="there is no block 'gone'"):
        blocks.list(order_by="created_at", after="gone")


def test_pages_by_time_are_the_whole_listing(rig: Rig, client: Client) -> None:
    """Pages of any size, both ways round, forwards and backwards, are together what a listing without a limit gives.

    Some blocks have equal times, some are hidden, and few or many of those next to each other are found.
    """
    for number in range(24):
        tags = "tags: [t]\n" if 6 < number < 15 or number == 20 else ""
        hidden = "hidden: true\n" if number % 6 == 1 else ""
        rig.write(f"b{number * 7 % 24}", f"---\n{tags}{hidden}---\n{'three' if number % 3 else 'two'}\n")
        if number % 5 == 0:
            rig.settle()
            rig.clock.advance(1)
    rig.settle()
    for number in (3, 9, 11):
        rig.clock.advance(1)
        rig.save_and_settle(f"b{number}", f"---\n{'tags: [t]' if number == 9 else 'limit: 99'}\n---\nthree 3\n")
    conditions: list[dict[str, Any]] = [{}, {"tags": ["t"]}, {"label_search": "2"}, {"value_search": "three"}]
    for times in ({"order_by": field, **wanted} for field in ("created_at", "updated_at") for wanted in conditions):
        whole = [*client.blocks.list(**times)]
        assert len(whole) > 3
        assert whole == sorted(whole, key=lambda block: (getattr(block, times["order_by"]), block.label.encode()))
        assert_pages(partial(client.blocks.list, **times), whole)
        assert_pages(partial(client.blocks.list, order="desc", **times), whole[::-1])


def assert_pages(listing: Callable[..., Page[BlockView]], whole: list[BlockView]) -> None:
    """The pages of a listing, forwards and backwards, are together the whole of it."""
    assert [*listing()] == whole
    for limit in (1, 2, 5, 40):
        page = listing(limit=limit)
        found = [*page]
        while page.next is not None:
            page = listing(limit=limit, after=page.next)
            assert len(page) <= limit
            found += page
        assert found == whole
        page = listing(limit=limit, before=whole[-1].label)
        found = [*page, whole[-1]]
        while page.next is not None:
            page = listing(limit=limit, before=found[0].label)
            found[:0] = page
        assert found == whole
    first, second, third = (block.label for block in whole[:3])
    page = listing(limit=9, after=first, before=third)
    assert (labels_of(page), page.next) == ([second], None)
    assert labels_of(listing(limit=9, after=third, before=first)) == []


def test_page_by_time_reads_no_more_than_it_gives(rig: Rig, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest blocks are found among many without their times being read, and only they are read."""
    for number in range(40):
        rig.write(f"many/b{number}", f"---\ntags: [{'x' if number % 2 else 'y'}]\n---\n")
    rig.settle()
    rig.clock.advance(1)
    for number in range(5):
        rig.save_and_settle(f"many/b{number}", "---\ntags: [x]\n---\nnew\n")
    sent = asked_from_now(monkeypatch)
    conditions: list[dict[str, Any]] = [{}, {"tags": ["x"]}, {"label_search": "many"}]
    for wanted in conditions:
        sent.clear()
        page = client.blocks.list(order_by="updated_at", order="desc", limit=4, **wanted)
        assert labels_of(page) == [f"many/b{number}" for number in (4, 3, 2, 1)]
        read = [command for command in sent if command[0] == "HGETALL"]
        assert [command[1] for command in read] == [f"blocks:block:many/b{number}" for number in (4, 3, 2, 1, 0)]
        assert ("ZRANGE", "blocks:updated", 0, 4, "REV") in sent
        assert not {"ZSCAN", "ZMSCORE", "HGET"} & {command[0] for command in sent if command[1] != "blocks:meta"}
        assert len(sent) <= 16


def test_page_by_time_while_blocks_change(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that is saved between two steps of a listing moves all that are newer: none is left out for that."""
    for number in range(9):
        rig.clock.advance(1)
        rig.save_and_settle(f"b{number}", f"---\nhidden: {'false' if number % 2 == 0 else 'true'}\n---\n{number}\n")
    rig.clock.advance(1)
    saves, original = ["b1", "b3"], transport.Transport.ask

    def ask(self: Any, *commands: Any, together: bool = False) -> Any:
        if saves and commands[0][0] == "ZRANGE":
            rig.save_and_settle(saves.pop(), "---\nhidden: true\n---\nnew\n")
        return original(self, *commands, together=together)

    monkeypatch.setattr(transport.Transport, "ask", ask)
    with Client(rig.url) as client:
        page = client.blocks.list(order_by="updated_at", after="b0", limit=3)
    assert (labels_of(page), page.next) == (["b2", "b4", "b6"], "b6")
    assert not saves


# --- what is not there, and what cannot be ---

_SEGMENTS = "'?' cannot be in a file name on every system"
_IDS = "it is letters, digits, '_', '-' and '.', and starts with a letter, a digit or '_'"
_NO_ID = block_id("nothing")
_ANN = {"agent": "ann", "names": ANNS}

ERRORS: list[tuple[Ask, type[BlocksdError], str, dict[str, Any]]] = [
    (lambda c: c.blocks.retrieve("nothing"), NotFound, "there is no block 'nothing'", {"label": "nothing"}),
    (lambda c: c.blocks.retrieve(_NO_ID), NotFound, f"there is no block with the id {_NO_ID}", {"id": _NO_ID}),
    (lambda c: c.blocks.retrieve("persona"), NotFound, "there is no block 'persona'", {"label": "persona"}),
    (lambda c: c.blocks.retrieve("a?b"), InvalidLabel, f"'a?b' is not a label: {_SEGMENTS}", {"label": "a?b"}),
    (
        lambda c: c.blocks.retrieve(""),
        InvalidLabel,
        "'' is not a label: it is empty, or has an empty segment",
        {"label": ""},
    ),
    (
        lambda c: c.blocks.retrieve("agents/ann"),
        InvalidLabel,
        "'agents/ann' is in agents/ but belongs to no agent",
        {"label": "agents/ann"},
    ),
    (lambda c: c.blocks.retrieve("block-1"), NotFound, "there is no block 'block-1'", {"label": "block-1"}),
    (lambda c: c.blocks.list(label="a?b"), InvalidLabel, f"'a?b' is not a label: {_SEGMENTS}", {"label": "a?b"}),
    (lambda c: c.blocks.count(label="a?b"), InvalidLabel, f"'a?b' is not a label: {_SEGMENTS}", {"label": "a?b"}),
    (lambda c: c.blocks.list(after="a?b"), InvalidLabel, f"'a?b' is not a label: {_SEGMENTS}", {"label": "a?b"}),
    (lambda c: c.blocks.list(before=_NO_ID), NotFound, f"there is no block with the id {_NO_ID}", {"id": _NO_ID}),
    (
        lambda c: c.blocks.list(limit=0),
        InvalidField,
        "limit must be a whole number from 1 to 9007199254740992, not 0",
        {"field": "limit"},
    ),
    (
        lambda c: c.agents.list(limit=-1),
        InvalidField,
        "limit must be a whole number from 1 to 9007199254740992, not -1",
        {"field": "limit"},
    ),
    (
        lambda c: c.blocks.list(order=cast("Any", "up")),
        InvalidField,
        "order must be 'asc' or 'desc', not 'up'",
        {"field": "order"},
    ),
    (
        lambda c: c.blocks.list(order_by=cast("Any", "value")),
        InvalidField,
        "order_by must be one of label, created_at, updated_at, not 'value'",
        {"field": "order_by"},
    ),
    (lambda c: c.blocks.list(tags=cast("Any", [1])), InvalidField, "tags must be a list of texts", {"field": "tags"}),
    (lambda c: c.blocks.agents.list("nothing"), NotFound, "there is no block 'nothing'", {"label": "nothing"}),
    (lambda c: c.blocks.agents.count("nothing"), NotFound, "there is no block 'nothing'", {"label": "nothing"}),
    (lambda c: c.blocks.agents.list(_NO_ID), NotFound, f"there is no block with the id {_NO_ID}", {"id": _NO_ID}),
    (lambda c: c.agents.retrieve("nobody"), NotFound, "there is no agent 'nobody'", {"agent": "nobody"}),
    (lambda c: c.agents.retrieve("a/b"), InvalidLabel, f"'a/b' is not an agent id: {_IDS}", {"agent": "a/b"}),
    (lambda c: c.agents.blocks.list("nobody"), NotFound, "there is no agent 'nobody'", {"agent": "nobody"}),
    (lambda c: c.agents.blocks.retrieve("nobody", "x"), NotFound, "there is no agent 'nobody'", {"agent": "nobody"}),
    (
        lambda c: c.agents.blocks.retrieve("idle", "human"),
        NotFound,
        "agent 'idle' has no block 'human' (it has: none)",
        {"agent": "idle", "name": "human", "names": []},
    ),
    (
        lambda c: c.agents.blocks.retrieve("ann", "secret"),
        NotFound,
        "agent 'ann' has no block 'secret' (it has: human, notes, organization, persona)",
        {**_ANN, "name": "secret"},
    ),
    (
        lambda c: c.agents.blocks.retrieve("ann", block_id("human")),
        NotFound,
        f"agent 'ann' has no block '{block_id('human')}' (it has: human, notes, organization, persona)",
        {**_ANN, "name": block_id("human")},
    ),
    (
        lambda c: c.agents.blocks.retrieve("ann", "agents/bob/human"),
        NotFound,
        "agent 'ann' has no block 'agents/bob/human' (it has: human, notes, organization, persona)",
        {**_ANN, "name": "agents/bob/human"},
    ),
    (
        lambda c: c.agents.blocks.retrieve("ann", _NO_ID),
        NotFound,
        f"agent 'ann' has no block '{_NO_ID}' (it has: human, notes, organization, persona)",
        {**_ANN, "name": _NO_ID},
    ),
    (
        lambda c: c.agents.blocks.retrieve("ann", "a?b"),
        InvalidLabel,
        f"'a?b' is not a label: {_SEGMENTS}",
        {"label": "a?b"},
    ),
    (
        lambda c: c.memory("a b"),
        InvalidLabel,
        f"'a b' is not an agent id: {_IDS}",
        {"agent": "a b"},
    ),
]


@pytest.mark.parametrize(("ask", "error", "message", "facts"), ERRORS)
def test_error_says_what_was_asked_for(
    library: Client, ask: Ask, error: type[BlocksdError], message: str, facts: dict[str, Any]
) -> None:
    """What is not there is not found, what cannot be is invalid: in a sentence, and in facts for a program."""
    with pytest.raises(error) as raised:
        ask(library)
    assert type(raised.value) is error
    assert raised.value.message == message
    assert raised.value.facts == facts


def test_many_names_are_not_all_told(rig: Rig, client: Client) -> None:
    """The sentence names the first ten blocks an agent has; the facts have all of them."""
    for number in range(12):
        rig.write(f"agents/zoe/b{number:02}", "x\n")
    rig.settle()
    with pytest.raises(NotFound) as raised:
        client.agents.blocks.retrieve("zoe", "x")
    assert raised.value.message.endswith("(it has: b00, b01, b02, b03, b04, b05, b06, b07, b08, b09, …)")
    assert raised.value.facts["names"] == [f"b{number:02}" for number in range(12)]


# --- the mirror itself ---


@pytest.mark.every_backend
def test_mirror_tells_of_itself(library: Client) -> None:
    """How much there is, what is wrong with which file, and how far the mirror is."""
    assert library.counts() == {"blocks": len(FILES), "agents": len(AGENTS), "problems": len(BAD)}
    problems = library.problems()
    assert [problem["subject"] for problem in problems] == ["also bad?.md", "bad.md"]
    assert "limit" in problems[1]["message"]
    assert library.meta()["seq"] == str(len(FILES))


@pytest.mark.every_backend
def test_mirror_outlives_its_daemon(rig: Rig, client: Client) -> None:
    """When the daemon stops, its mirror is still read, and known to be kept by nobody."""
    assert client.is_kept()
    rig.close()
    assert not client.is_kept()
    assert client.blocks.retrieve("notes").value.startswith("one")


@pytest.mark.every_backend
def test_server_without_a_mirror_is_unavailable(emptied: RedisServer, open_client: Callable[[str], Client]) -> None:
    """Where no daemon ever was, or Redis was emptied, nothing is known: that is not the same as nothing being there."""
    client = open_client(emptied.url)
    assert (client.meta(), client.is_kept()) == ({}, False)
    for name in QUESTIONS.keys() - {"meta", "is_kept"}:
        with pytest.raises(Unavailable, match="no mirror in Redis yet, or it is being built anew"):
            QUESTIONS[name](client)


# --- when it cannot be read ---


def remembered(client: Client) -> list[BlockView]:
    with client.memory("ann") as memory:
        return memory.get_blocks()


QUESTIONS: dict[str, Ask] = {
    "blocks.list": lambda client: client.blocks.list(),
    "blocks.list by label": lambda client: client.blocks.list(label="notes"),
    "blocks.count": lambda client: client.blocks.count(),
    "blocks.count by agents": lambda client: client.blocks.count(connected_to_agents_count_gt=1),
    "tags.list": lambda client: client.tags.list(),
    "blocks.retrieve": lambda client: client.blocks.retrieve("notes"),
    "blocks.retrieve by id": lambda client: client.blocks.retrieve(block_id("notes")),
    "blocks.agents.list": lambda client: client.blocks.agents.list("notes"),
    "blocks.agents.count": lambda client: client.blocks.agents.count("notes"),
    "blocks.agents.counts": lambda client: client.blocks.agents.counts(["notes"]),
    "agents.list": lambda client: client.agents.list(),
    "agents.count": lambda client: client.agents.count(),
    "agents.retrieve": lambda client: client.agents.retrieve("ann"),
    "agents.blocks.list": lambda client: client.agents.blocks.list("ann"),
    "agents.blocks.retrieve": lambda client: client.agents.blocks.retrieve("ann", "notes"),
    "meta": lambda client: client.meta(),
    "is_kept": lambda client: client.is_kept(),
    "counts": lambda client: client.counts(),
    "problems": lambda client: client.problems(),
    "memory.get_blocks": remembered,
}

READS = {
    "block:notes": {
        "blocks.list",
        "blocks.list by label",
        "blocks.retrieve",
        "blocks.retrieve by id",
        "agents.blocks.list",
        "agents.blocks.retrieve",
    },
    "attached:notes": {"blocks.agents.list", "blocks.agents.count", "blocks.agents.counts"},
    "labels": {
        "blocks.list",
        "blocks.agents.list",
        "blocks.agents.count",
        "counts",
    },
    "agents": {"agents.list", "agents.count", "agents.retrieve", "agents.blocks.list", "counts"},
    "agent:ann": {
        "agents.list",
        "agents.retrieve",
        "agents.blocks.list",
        "agents.blocks.retrieve",
        "blocks.agents.list",
    },
    "ids": {"blocks.retrieve by id"},
    "index": {"blocks.list by label", "blocks.count", "blocks.count by agents", "tags.list"},
    "counts": {"blocks.count by agents"},
    "problems": {"problems", "counts"},
    "meta": QUESTIONS.keys() - {"is_kept", "blocks.retrieve"},  # a block that is there needs no epoch
}
"""Which questions are about which key."""


@pytest.mark.every_backend
@pytest.mark.parametrize("key", READS)
def test_key_of_another_type_is_damage(rig: Rig, client: Client, raw: Any, key: str) -> None:
    """What cannot be read is neither absent nor an error of Redis, until it is mended; the rest is read as ever."""
    raw.delete(f"blocks:{key}")
    raw.set(f"blocks:{key}", "x")
    for question in QUESTIONS.keys() - {"memory.get_blocks"}:
        if question in READS[key]:
            with pytest.raises(Damaged, match="the mirror cannot be read"):
                QUESTIONS[question](client)
        else:
            QUESTIONS[question](client)
    rig.resync()
    for ask in QUESTIONS.values():
        ask(client)


@pytest.mark.every_backend
def test_half_a_block_is_no_block(rig: Rig, client: Client, raw: Any) -> None:
    """A block of which the mirror shows only a part, until it is mended, is neither absent nor half a block."""
    raw.delete("blocks:block:notes")
    rig.save_and_settle("notes", FILES["notes"].replace("one", "two"))
    for question in READS["block:notes"]:
        with pytest.raises(Damaged, match=r"the mirror shows an incomplete block '': .*\blabel\b.* missing"):
            QUESTIONS[question](client)
    assert labels_of(client.blocks.list(label_search="persona")) == ["agents/ann/persona"]
    rig.resync()
    assert client.blocks.retrieve("notes").value.startswith("two")


@pytest.mark.parametrize("field", ["limit", "version", "tags", "metadata"])
def test_field_that_cannot_be_one_is_damage(client: Client, raw: Any, field: str) -> None:
    """A field that is not what it must be is noticed when it is asked for, if not before."""
    raw.hset("blocks:block:notes", field, "x{")
    with pytest.raises(Damaged, match="the mirror shows"):
        getattr(client.blocks.retrieve("notes"), field)
    assert client.blocks.retrieve("agents/ann/persona").value == "I am Ann."


def test_block_an_agent_has_is_never_absent(rig: Rig, client: Client, raw: Any) -> None:
    """A block that is attached, and not shown, cannot be read: that is not to say that the agent has none."""
    raw.delete("blocks:block:notes")
    with pytest.raises(Unavailable, match="'notes'"):
        client.agents.blocks.retrieve("ann", "notes")
    rig.resync()
    assert client.agents.blocks.retrieve("ann", "notes").label == "notes"


def test_server_that_is_down_is_unavailable(any_server: RedisServer, open_client: Callable[[str], Client]) -> None:
    """Every question says so; and is answered, by the same client, when the server is back."""
    client = open_client(any_server.url)
    assert client.meta() == {}
    any_server.kill()
    for ask in QUESTIONS.values():
        with pytest.raises(Unavailable, match="does not serve") as raised:
            ask(client)
        assert raised.value.facts == {"url": any_server.url}
    any_server.start()
    assert client.meta() == {}


def test_server_that_hangs_is_unavailable(
    any_server: RedisServer, open_client: Callable[[str], Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply is waited for only so long; a late one is not taken for that to the next question."""
    monkeypatch.setattr(wire, "REPLY_SECONDS", 0.2)
    client = open_client(any_server.url)
    assert not client.is_kept()
    any_server.pause()
    with pytest.raises(Unavailable, match="does not serve"):
        client.is_kept()
    any_server.resume()
    assert client.meta() == {}


# --- connections ---


def test_closed_client_leaves_no_connection(any_server: RedisServer, open_client: Callable[[str], Client]) -> None:
    """Nothing is opened before it is needed, and what was opened is closed with the client, or with its `with`."""
    looking = any_server.client()

    def connections() -> int:
        return len(looking.client_list())

    client, entered = open_client(any_server.url), open_client(any_server.url)
    assert connections() == 1
    client.meta()
    assert connections() == 2
    client.close()
    eventually(lambda: connections() == 1, "the connection is closed")
    client.close()
    with entered as same:
        assert same.meta() == {}
        assert connections() == 2
    eventually(lambda: connections() == 1, "the connection is closed")
    with pytest.raises(Unavailable), entered:
        entered.blocks.retrieve("nothing")
    eventually(lambda: connections() == 1, "an error in between closes it, too")
    looking.close()


def test_client_is_shared(rig: Rig, client: Client) -> None:
    """Many threads, or tasks, may ask one client at once, and each has its own answer."""
    for number in range(20):
        rig.write(f"b{number}", f"value of b{number}\n")
    rig.settle()

    def ask(number: int) -> str:
        return client.blocks.retrieve(f"b{number}").value

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, list(range(20)) * 20))
    assert answers == [f"value of b{number}" for number in range(20)] * 20


class Between:
    """Stands between clients and their server, passes everything on, and counts how often the server was turned to."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        path = server.directory / "between.sock"
        self.url = f"unix://{path}"
        self.turns = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._end, self._ended = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._ended, selectors.EVENT_READ)
            peers: dict[socket.socket, socket.socket] = {}
            asking: dict[socket.socket, bool] = {}  # of a client: whether its question is still unanswered
            while True:
                for key, _ in selector.select():
                    ready = cast("socket.socket", key.fileobj)
                    if ready is self._ended:
                        for one in peers:
                            one.close()
                        return
                    if ready is self._listener:
                        client, server = self._listener.accept()[0], socket.socket(socket.AF_UNIX)
                        server.connect(str(self._server.socket))
                        peers |= {client: server, server: client}
                        asking[client] = False
                        for one in (client, server):
                            selector.register(one, selectors.EVENT_READ)
                        continue
                    if ready not in peers:
                        continue
                    data = ready.recv(1 << 16)
                    if data:
                        if ready in asking:
                            self.turns += not asking[ready]
                        asking[ready if ready in asking else peers[ready]] = ready in asking
                        peers[ready].sendall(data)
                    else:
                        for one in (ready, peers[ready]):
                            selector.unregister(one)
                            peers.pop(one).close()

    def close(self) -> None:
        self._end.close()
        self._thread.join()
        self._ended.close()
        self._listener.close()


ROUND_TRIPS: list[tuple[int, Ask]] = [
    (1, lambda client: client.agents.blocks.retrieve("ann", "persona")),
    (1, lambda client: client.agents.blocks.retrieve("ann", "notes")),
    (1, lambda client: client.agents.blocks.retrieve("ann", "agents/ann/persona")),
    (1, lambda client: client.blocks.retrieve("notes")),
    (1, lambda client: client.agents.retrieve("ann")),
    (1, lambda client: client.blocks.agents.count("notes")),
    (1, lambda client: client.counts()),
    (2, lambda client: client.agents.blocks.retrieve("ann", block_id("notes"))),
    (2, lambda client: client.blocks.retrieve(block_id("notes"))),
    (1, lambda client: client.blocks.retrieve(block_id("notes"))),
    (2, lambda client: client.blocks.list()),
    (2, lambda client: client.blocks.list(tags=["x"])),
    (3, lambda client: client.blocks.list(tags=["x"], connected_to_agents_count_gt=1)),
    (2, lambda client: client.agents.list()),
    (2, lambda client: client.agents.blocks.list("ann")),
]


@pytest.mark.usefixtures("rig")
def test_round_trips_are_few(emptied: RedisServer, open_client: Callable[[str], Client]) -> None:
    """An agent's block by its name is one round trip; an id is one more the first time, and a listing is two for 500 blocks."""
    between = Between(emptied)
    client = open_client(between.url)
    try:
        client.meta()  # with a connection's first words to the server
        for turns, ask in ROUND_TRIPS:
            before = between.turns
            ask(client)
            assert between.turns - before == turns, inspect.getsource(ask)
    finally:
        client.close()
        between.close()
        (emptied.directory / "between.sock").unlink()


# --- which server ---


@pytest.fixture(params=[connect, aconnect], ids=["blocking", "asyncio"])
def find(
    request: pytest.FixtureRequest,
    loop: asyncio.AbstractEventLoop,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Callable[..., Client]]:
    """`connect` or `aconnect`, of which what it gives is used like a blocking client; nothing is set."""
    opened: list[Client] = []

    def start(*args: Any, **kwargs: Any) -> Client:
        opened.append(alike(request.param(*args, **kwargs), loop))
        return opened[-1]

    for variable in ("BLOCKSD_REDIS", "BLOCKSD_CONFIG", "STATE_DIRECTORY", "BLOCKSD_NAMESPACE"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.setenv("BLOCKSD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    yield start
    for client in opened:
        client.close()


def test_url_comes_before_the_settings(
    find: Callable[..., Client], server: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server is named by the argument, else by the environment, else by the file of settings."""
    settings = tmp_path / "config" / "blocksd" / "blocksd.toml"
    settings.parent.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    settings.write_text(f'redis = "{server.url}"\n')
    assert find().meta() == {}
    monkeypatch.setenv("BLOCKSD_REDIS", "unix:///nowhere/redis.sock")
    with pytest.raises(Unavailable, match=r"/nowhere/redis\.sock"):
        find().meta()
    assert find(server.url).meta() == {}
    monkeypatch.setenv("BLOCKSD_REDIS", server.url)
    settings.write_text('redis = "unix:///nowhere/redis.sock"\n')
    assert find().meta() == {}


def test_what_belongs_to_the_program_is_not_read(
    find: Callable[..., Client],
    run_daemon: Callable[..., Daemon],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program with a state directory from systemd, or a file of that name beside it, finds the daemon all the same."""
    (folder / "notes.md").write_text("one\n")
    monkeypatch.delenv("BLOCKSD_STATE_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "states"))
    (tmp_path / "states" / "blocksd").mkdir(parents=True)
    run_daemon(state="states/blocksd/blocks")
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "of-the-program"))
    (tmp_path / "blocksd.toml").write_text('namespace = "other"\nredis = "unix:///nowhere/redis.sock"\n')
    assert find().blocks.retrieve("notes").value == "one"


def test_daemon_that_runs_here_is_found(
    find: Callable[..., Client], run_daemon: Callable[..., Daemon], folder: Path, tmp_path: Path
) -> None:
    """With no server named, it is the one of the daemon that runs; when that has stopped or was killed, there is none."""
    with pytest.raises(Unavailable) as raised:
        find()
    said = f"no daemon is running for the namespace 'blocks' (state in {tmp_path / 'state'})"
    assert raised.value.message == said
    (folder / "notes.md").write_text("one\n")
    daemon = run_daemon()
    assert find().blocks.retrieve("notes").value == "one"
    daemon.kill()
    with pytest.raises(Unavailable, match="no daemon is running"):
        find()
    daemon.start()
    assert find().blocks.retrieve("notes").value == "one"
    assert daemon.stop() == 0
    with pytest.raises(Unavailable, match="no daemon is running"):
        find()


def test_server_that_the_daemon_started_is_found(find: Callable[..., Client], folder: Path, tmp_path: Path) -> None:
    """Where nothing at all is set up, a program finds the blocks of the daemon that runs beside it."""
    (folder / "notes.md").write_text("one\n")
    daemon = Daemon(folder, tmp_path / "state").start()
    try:
        assert find().blocks.retrieve("notes").value == "one"
    finally:
        daemon.stop()


def test_namespaces_are_apart(
    find: Callable[..., Client], run_daemon: Callable[..., Daemon], server: RedisServer, folder: Path
) -> None:
    """A client reads the namespace it is made for, and no other."""
    (folder / "notes.md").write_text("one\n")
    run_daemon("--namespace", "team")
    assert find(namespace="team").blocks.count() == 1
    assert find(server.url, namespace="team").blocks.count() == 1
    assert find(server.url).meta() == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "http://:pw@host"}, "http://:***@host is not a Redis URL: the forms are "),
        ({"url": "redis://localhost/", "namespace": "a:b"}, "'a:b' is not a namespace: "),
        ({"namespace": "a:b"}, "'a:b' is not a namespace: "),
    ],
)
def test_wrong_server_is_misconfigured(find: Callable[..., Client], arguments: dict[str, str], message: str) -> None:
    """What cannot be a server, or a namespace, is refused at once, without telling a password."""
    with pytest.raises(Misconfigured) as raised:
        find(**arguments)
    assert raised.value.message.startswith(message)


def test_server_is_not_asked_by_connecting(find: Callable[..., Client]) -> None:
    """A client of a server that is not there is made; its first question says that it is not."""
    client = find("unix:///nowhere/redis.sock")
    for ask in (client.counts, partial(client.blocks.retrieve, "notes")):
        with pytest.raises(Unavailable, match=r"Redis at unix:///nowhere/redis\.sock does not serve"):
            ask()


def test_question_given_up_leaves_no_reply_behind(rig: Rig) -> None:
    """With asyncio, a question that is cancelled leaves nothing on the connection that could be taken for another's reply."""

    async def main() -> None:
        given_up = 0
        async with AsyncClient(rig.url) as client:
            while given_up < 20:
                try:
                    async with asyncio.timeout(random.uniform(0, 0.001)):
                        await client.agents.blocks.retrieve("ann", "notes")
                except TimeoutError:
                    given_up += 1
                for label in ("notes", "agents/ann/persona"):
                    assert (await client.blocks.retrieve(label)).label == label

    asyncio.run(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt, redis.ResponseError])
def test_error_leaves_no_reply_behind(rig: Rig, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    """After a command is refused, or Ctrl-C, a reply that comes late is not taken for that to the next question."""
    with Client(rig.url) as client:
        asked = client._transport
        reply = asked._redis.parse_response

        def answer(connection: Any, name: str) -> Any:
            if name == "GET":
                reply(connection, name)
                raise error
            return reply(connection, name)

        monkeypatch.setattr(asked._redis, "parse_response", answer)
        with pytest.raises((KeyboardInterrupt, Unavailable, Damaged)):
            asked.ask(("GET", "blocks:nothing"), ("BLPOP", "blocks:nowhere", "0.1"))
        assert asked.ask(("ECHO", "mine")) == ["mine"]


@pytest.mark.every_backend
def test_key_renamed_by_hand_is_no_block(client: Client, raw: Any) -> None:
    """What stands under another's key is not shown as if it were there: a stray is no block, and a block is not it."""
    raw.rename("blocks:block:notes", "blocks:block:stray")
    with pytest.raises(NotFound):
        client.blocks.retrieve("stray")
    with pytest.raises(Damaged, match="does not show it"):
        client.blocks.retrieve("notes")
    assert [block.label for block in client.blocks.list()] == ["agents/ann/persona"]
    raw.copy("blocks:block:stray", "blocks:block:agents/ann/persona", replace=True)
    assert list(client.blocks.list()) == []
    with pytest.raises(Damaged):
        client.agents.blocks.retrieve("ann", "persona")
    with client.memory("ann") as memory, pytest.raises(Unavailable):
        memory.compile()
