"""An agent's memory as MCP tools: what clients of both eras can do, and what they are told when they cannot."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from mcp.shared.exceptions import MCPError

from blocksd.client.client_async import AsyncClient
from blocksd.client.transport_async import AsyncTransport
from blocksd.errors import NotFound
from blocksd.mcp.definitions import CALLED, listed
from blocksd.mcp.memory import Access, AgentMemory
from gateways import daemon
from mcp_clients import ERAS, done, inside, refused, run, soon, text_of
from support import Daemon, RedisServer, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mcp import Client

POLICY = "---\nagents: '*'\nread_only: true\n---\nBe kind.\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, Path]]:
    """A daemon for all tests, each with agents of its own; its folder."""
    with daemon(tmp_path_factory.mktemp("mcp"), {"policy.md": POLICY}) as running:
        yield running


@pytest.fixture
def url(place: tuple[RedisServer, Path]) -> str:
    return place[0].url


@pytest.mark.parametrize("era", ERAS)
def test_tools_are_listed_with_schemas_and_hints(url: str, era: str) -> None:
    """In both eras, the same; each says what it takes, what it answers, and if it changes or removes anything."""

    async def work() -> None:
        async with inside(url, "lister", era) as client:
            assert client.protocol_version == era
            tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == list(CALLED)
        for tool in tools:
            assert tool.description
            assert tool.annotations is not None
            assert tool.annotations.open_world_hint is False
            assert tool.input_schema["additionalProperties"] is False
            assert tool.output_schema is not None
            for schema in (tool.input_schema, tool.output_schema):
                jsonschema.Draft202012Validator.check_schema(schema)
        hints = {tool.name: tool.annotations for tool in tools if tool.annotations is not None}
        reading = ["memory_list", "memory_view", "memory_search", "memory_history"]
        assert [name for name, hint in hints.items() if hint.read_only_hint] == reading
        adding = ["memory_append", "memory_insert", "memory_create"]
        assert [name for name in hints if not hints[name].destructive_hint] == [*reading[:3], *adding, "memory_history"]
        assert hints["memory_rethink"].idempotent_hint
        assert not hints["memory_append"].idempotent_hint

    run(work())


@pytest.mark.parametrize("era", ERAS)
def test_every_tool_does_what_it_says(url: str, place: tuple[RedisServer, Path], era: str) -> None:
    """From a new block to its deletion; the client checks each answer against the tool's schema."""
    agent = f"doer-{era}"
    file = place[1] / "agents" / agent / "tea.md"

    async def work() -> None:
        async with inside(url, agent, era) as client:
            made = await done(client, "memory_create", label="tea", value="Green.", description="Which tea.")
            assert made == {"label": "tea", "chars": 6, "limit": 20000, "version": 1}
            await done(client, "memory_append", label="tea", content="No sugar.")
            await done(client, "memory_insert", label="tea", new_string="Tea:", insert_line=0)
            await done(client, "memory_replace", label="tea", old_string="Green", new_string="Black")
            assert file.read_text().endswith("Tea:\nBlack.\nNo sugar.\n")
            await done(client, "memory_update_description", label="tea", description="How Kim takes tea.")
            viewed = await done(client, "memory_view", label="tea")
            assert (viewed["value"], viewed["description"]) == ("Tea:\nBlack.\nNo sugar.", "How Kim takes tea.")
            assert (viewed["private"], viewed["read_only"], viewed["updated_by"]) == (True, False, agent)
            assert (await done(client, "memory_view", label="tea", version=1))["value"] == "Green."
            blocks = (await done(client, "memory_list"))["blocks"]
            assert [block["label"] for block in blocks] == ["persona", "human", "policy", "tea"]
            found = await done(client, "memory_search", query="SUGAR")
            assert found == {"matches": [{"label": "tea", "line": 3, "text": "No sugar."}], "more": False}
            kinds = [one["fields"] for one in (await done(client, "memory_history", label="tea", limit=2))["versions"]]
            assert kinds == [["description"], ["value"]]
            await done(client, "memory_undo", label="tea")
            await done(client, "memory_undo", label="tea")
            assert (await done(client, "memory_view", label="tea"))["value"] == "Tea:\nGreen.\nNo sugar."
            await done(client, "memory_rethink", label="tea", new_memory="None.")
            await done(client, "memory_rename", label="tea", to="drinks/tea")
            assert (await done(client, "memory_delete", label="drinks/tea"))["version"] is None
            await refused(client, "memory_view", label="drinks/tea")
            assert (await done(client, "memory_undo", label="drinks/tea"))["chars"] == 5

    run(work())


def test_answers_in_words_say_the_same(url: str) -> None:
    """For clients that show a model the text alone."""

    async def work() -> None:
        async with inside(url, "reader") as client:
            await done(client, "memory_append", label="human", content="Likes tea, and\nlong walks.")
            listing = text_of(await client.call_tool("memory_list"))
            assert "human (26 of 20000 characters): The human block" in listing
            assert "policy (8 of 20000 characters, read-only)" in listing
            assert "<value>\nLikes tea, and\nlong walks.\n</value>" in text_of(
                await client.call_tool("memory_view", {"label": "human"})
            )
            found = await client.call_tool("memory_search", {"query": "walks"})
            assert text_of(found) == "human, line 2: long walks."
            assert text_of(await client.call_tool("memory_search", {"query": "coffee"})) == "Nothing found."
            history = text_of(await client.call_tool("memory_history", {"label": "human"}))
            assert history.splitlines()[0].endswith("updated by reader: value")

    run(work())


def test_rights_are_those_of_the_agent(url: str, place: tuple[RedisServer, Path]) -> None:
    """Other agents' private blocks are not there, read-only blocks and limits hold, and shared blocks stay."""
    (place[1] / "team.md").write_text("---\nagents: [ann, bob]\nlimit: 30\n---\nWe share this.\n")

    async def work() -> None:
        async with inside(url, "ann") as ann, inside(url, "bob") as bob:
            await done(bob, "memory_create", label="secret", value="Bob's PIN is 1234.")
            for label in ("secret", "agents/bob/secret", "agents/bob/persona"):
                said = await refused(ann, "memory_view", label=label)
                assert "memory_list lists your blocks" in said
                assert "1234" not in said
                await refused(ann, "memory_append", label=label, content="x")
                await refused(ann, "memory_history", label=label)
                await refused(ann, "memory_undo", label=label)
            assert (await done(ann, "memory_search", query="PIN"))["matches"] == []
            for tool, arguments in (
                ("memory_append", {"content": "x"}),
                ("memory_rethink", {"new_memory": "x"}),
                ("memory_update_description", {"description": "x"}),
                ("memory_delete", {}),
                ("memory_undo", {}),
            ):
                said = await refused(ann, tool, label="policy", **arguments)
                assert "read-only" in said or "shared" in said or "nothing to undo" in said
            assert "only a person changes it" in await refused(ann, "memory_append", label="policy", content="x")
            assert "Next step: write less" in await refused(ann, "memory_append", label="team", content="x" * 40)
            assert "shared" in await refused(ann, "memory_rename", label="team", to="mine")
            assert (await done(bob, "memory_view", label="team"))["value"] == "We share this."

    eventually(lambda: _names(url, "ann") == {"policy", "team"}, "the shared block is there")
    run(work())


def _names(url: str, agent: str) -> set[str]:
    async def work() -> set[str]:
        async with AsyncClient(url) as client:
            try:
                return {block.name for block in await client.agents.blocks.list(agent)}
            except NotFound:  # before its first block is read
                return set()

    return run(work())


@pytest.mark.parametrize("era", ERAS)
def test_unknown_agent(url: str, era: str) -> None:
    """Is an error with the next step, and no reason not to begin; with `creates` it is made at the first call."""

    async def work() -> None:
        name = f"stranger-{era}"
        async with inside(url, name, era, creates=False) as client:
            assert f"there is no agent '{name}' yet" in (client.instructions or "")
            for tool, arguments in (
                ("memory_list", {}),
                ("memory_view", {"label": "human"}),
                ("memory_append", {"label": "human", "content": "x"}),
                ("memory_history", {"label": "human"}),
            ):
                assert "--create" in await refused(client, tool, **arguments)
            async with inside(url, name, era) as other:
                assert "<human>" in (other.instructions or "")
            await done(client, "memory_append", label="human", content="x")

    run(work())


def test_agent_that_is_created_by_several_at_once(url: str) -> None:
    """By clients that start together: one creates it, and all go on."""

    async def work() -> None:
        access = Access(lambda: AsyncTransport(url, "blocks"), creates=True)
        try:
            found = await asyncio.gather(*(AgentMemory(access, "twin").sight() for _ in range(5)))
        finally:
            await access.close()
        assert all("human" in sight.blocks for sight in found)

    run(work())


HOSTILE: list[tuple[str, dict[str, Any], str]] = [
    ("memory_append", {"label": "human"}, "needs the argument 'content'"),
    ("memory_append", {"label": "human", "content": 3}, "'content' must be a text"),
    ("memory_append", {"label": "human", "content": None}, "'content' must be a text"),
    ("memory_append", {"label": "human", "content": ["x"]}, "'content' must be a text"),
    ("memory_append", {"label": {"a": 1}, "content": "x"}, "'label' must be a text"),
    ("memory_append", {"label": "human", "content": "x", "agent": "bob"}, "has no argument 'agent'"),
    ("memory_append", {"label": "human", "content": "x" * 30_000}, "over its limit"),
    ("memory_append", {"label": "human", "content": "x" * 2_000_000}, "Next step: send it in several calls"),
    ("memory_append", {"label": "human", "content": "a\x00b"}, "control character"),
    ("memory_append", {"label": "h" * 100_000, "content": "x"}, "Not done"),
    ("memory_append", {"label": "", "content": "x"}, "Not done"),
    ("memory_append", {"label": "../../etc/passwd", "content": "x"}, "Not done"),
    ("memory_append", {"label": "agents/bob/human", "content": "x"}, "Not done"),
    ("memory_create", {"label": "../x"}, "such as 'notes/today'"),
    ("memory_create", {"label": "/etc/x"}, "Not done"),
    ("memory_create", {"label": "a\nb"}, "Not done"),
    ("memory_rename", {"label": "human", "to": "../x"}, "Not done"),
    ("memory_insert", {"label": "human", "new_string": "x", "insert_line": "1"}, "must be a whole number"),
    ("memory_insert", {"label": "human", "new_string": "x", "insert_line": True}, "must be a whole number"),
    ("memory_insert", {"label": "human", "new_string": "x", "insert_line": 1.5}, "must be a whole number"),
    ("memory_insert", {"label": "human", "new_string": "x", "insert_line": 10**30}, "Not done"),
    ("memory_insert", {"label": "human", "new_string": "x", "insert_line": 99}, "Not done"),
    ("memory_replace", {"label": "human", "old_string": "", "new_string": "x"}, "old_string"),
    ("memory_view", {"label": "human", "version": 0}, "Not done"),
    ("memory_view", {"label": "human", "version": -(10**20)}, "Not done"),
    ("memory_view", {"label": "human", "version": 999}, "Not done"),
    ("memory_search", {"query": ""}, "'query' is empty"),
    ("memory_search", {"query": "x", "limit": 0}, "from 1 to"),
    ("memory_history", {"label": "human", "limit": 10**9}, "from 1 to"),
    ("memory_history", {"label": "nope"}, "memory_list"),
]


@pytest.fixture(scope="module")
def hostile_files(place: tuple[RedisServer, Path]) -> set[str]:
    """The files that are there before."""

    async def work() -> None:
        async with inside(place[0].url, "victim") as client:
            await done(client, "memory_append", label="human", content="Unharmed.")

    run(work())
    return files_in(place[1])


def files_in(folder: Path) -> set[str]:
    return {str(path) for path in folder.parent.rglob("*") if path.suffix == ".md"}


@pytest.mark.parametrize(("tool", "arguments", "words"), HOSTILE)
def test_hostile_arguments(
    url: str, place: tuple[RedisServer, Path], hostile_files: set[str], tool: str, arguments: dict[str, Any], words: str
) -> None:
    """Are refused with a reason, change nothing, and the next call is served."""

    async def work() -> None:
        async with inside(url, "victim") as client:
            assert words in await refused(client, tool, **arguments)
            assert (await done(client, "memory_view", label="human"))["value"] == "Unharmed."

    run(work())
    assert files_in(place[1]) == hostile_files


def test_lone_surrogates(url: str) -> None:
    """Are refused in words that can be sent, wherever they stand."""

    async def work() -> None:
        async with inside(url, "victim") as client:
            for tool, arguments in (
                ("memory_append", {"label": "human", "content": "\ud800"}),
                ("memory_view", {"label": "\udc00"}),
                ("memory_create", {"label": "x\ud800"}),
                ("memory_append", {"label": "human", "\ud800": "x"}),
            ):
                (await refused(client, tool, **arguments)).encode()
            assert (await done(client, "memory_search", query="\ud800"))["matches"] == []

    run(work())


def test_unknown_tool(url: str) -> None:
    """Is an error of the protocol, which names the tools there are."""

    async def work() -> None:
        async with inside(url, "victim") as client:
            with pytest.raises(MCPError, match="memory_append"):
                await client.call_tool("core_memory_append", {"label": "human", "content": "x"})

    run(work())


def test_no_argument_and_no_answer_is_undescribed() -> None:
    """Each property of each schema has a type; a client that checks strictly accepts them."""
    for tool in listed():
        for about in tool.input_schema["properties"].values():
            assert about["type"] in ("string", "integer")
            assert about["description"]


def test_concurrent_calls_lose_nothing(url: str) -> None:
    """Fifty appends of two clients at once are fifty lines."""

    async def work() -> None:
        async with inside(url, "busy") as one, inside(url, "busy", "2025-11-25") as other:
            await asyncio.gather(
                *(done(one, "memory_append", label="human", content=f"one {n}") for n in range(25)),
                *(done(other, "memory_append", label="human", content=f"other {n}") for n in range(25)),
            )
            value = (await done(one, "memory_view", label="human"))["value"]
            assert sorted(value.split("\n")) == sorted(
                [f"one {n}" for n in range(25)] + [f"other {n}" for n in range(25)]
            )

    run(work())


@pytest.mark.parametrize("era", ERAS)
def test_cancelled_calls(run_daemon: Callable[..., Daemon], server: RedisServer, era: str) -> None:
    """A client that gives up a call, while the daemon does not reply, can go on at once; what was asked is done or not."""
    running = run_daemon()

    async def work() -> None:
        async with inside(server.url, "hasty", era) as client:
            await done(client, "memory_append", label="human", content="first")
            assert running.process is not None
            running.process.send_signal(signal.SIGSTOP)
            try:
                for _ in range(3):
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.2):
                            await client.call_tool("memory_append", {"label": "human", "content": "given up"})
                assert (await done(client, "memory_view", label="human"))["value"] == "first"
            finally:
                running.process.send_signal(signal.SIGCONT)
            await done(client, "memory_append", label="human", content="last")
            lines = (await done(client, "memory_view", label="human"))["value"].split("\n")
            assert lines[0] == "first"
            assert lines[-1] == "last"
            assert set(lines[1:-1]) <= {"given up"}

    run(work())


@pytest.mark.parametrize("era", ERAS)
def test_lost_server_and_daemon(run_daemon: Callable[..., Daemon], server: RedisServer, era: str) -> None:
    """While Redis or the daemon is gone, each tool says so and what to do; afterwards the same client goes on."""
    running = run_daemon()

    async def works(client: Client) -> bool:
        result = await client.call_tool("memory_append", {"label": "human", "content": "x"})
        return not result.is_error

    async def work() -> None:
        async with inside(server.url, "patient", era) as client:
            assert await works(client)
            server.kill()
            for tool, arguments in (
                ("memory_list", {}),
                ("memory_view", {"label": "human"}),
                ("memory_history", {"label": "human"}),
            ):
                said = await refused(client, tool, **arguments)
                assert "Redis does not serve" in said
                assert "try again" in said
                assert str(server.socket) not in said
            server.launch()
            await soon(lambda: works(client))
            running.stop()
            assert (await done(client, "memory_view", label="human"))["value"]
            running.start()
            await soon(lambda: works(client))

    run(work())
