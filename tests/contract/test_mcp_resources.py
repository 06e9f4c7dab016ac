"""An agent's blocks as MCP resources with updates, and its memory as instructions and as a prompt."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, TextResourceContents
from pydantic import AnyUrl

from blocksd.client.client_async import AsyncClient
from blocksd.errors import NotFound
from blocksd.mcp.places import name_in, uri_of
from gateways import daemon
from mcp_clients import ERAS, Ear, done, inside, run, soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from mcp import Client

    from support import Daemon, RedisServer

pytestmark = pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, Path]]:
    """A daemon for all tests, each with agents of its own; its folder."""
    with daemon(tmp_path_factory.mktemp("mcp")) as running:
        yield running


@pytest.fixture
def url(place: tuple[RedisServer, Path]) -> str:
    return place[0].url


NAMES = ["persona", "notes/today", "a#b c", "Q&A", "100%", "é", "日本語/メモ", "a+b=c", "tilde~x", "(v1) [draft]"]


@pytest.mark.parametrize("name", NAMES)
def test_uris_name_one_block(name: str) -> None:
    """In ASCII, without what has a meaning in a URI, the same through a client's URL type, and back to the name."""
    for agent in ("sam", "Sam-2", "björn"):
        uri = uri_of(agent, name)
        assert uri.isascii()
        assert not set(uri.removeprefix("blocks://")) & set("#?& []")
        assert name_in(uri, agent) == name
        assert name_in(str(AnyUrl(uri)), agent) == name
    assert name_in(f"blocks://sam/{name}", "sam") == name or "%" in name


@pytest.mark.parametrize(
    "uri",
    [
        *("", "blocks://", "blocks://sam", "blocks://sam/", "blocks:/sam/x", "file:///etc/passwd", "http://sam/x"),
        *("blocks://bob/persona", "blocks://%ff/persona", "blocks://sam/%ff", "blocks://sam%2Fpersona", "sam/persona"),
        *("blocks://SAM/persona", "blocks://sam@bob/persona", "blocks://bob%00sam/x"),
    ],
)
def test_other_uris_name_none(uri: str) -> None:
    """Nor do those of another agent."""
    with pytest.raises(NotFound):
        name_in(uri, "sam")


@pytest.mark.parametrize("era", ERAS)
def test_blocks_are_resources(url: str, era: str) -> None:
    """Listed as the prompt has them, with sizes in bytes; each is read by its URI, as it is now."""

    async def work() -> None:
        async with inside(url, f"reader-{era}", era) as client:
            await done(client, "memory_create", label="Q&A notes", value="Ünï", description="Odd.")
            found = await client.list_resources()
            assert [one.name for one in found.resources] == ["persona", "human", "Q&A notes"]
            (one,) = (one for one in found.resources if one.name == "Q&A notes")
            assert one.uri == f"blocks://reader-{era}/Q%26A%20notes"
            assert (one.description, one.mime_type, one.size) == ("Odd.", "text/markdown", 5)
            assert await value(client, one.uri) == "Ünï"
            await done(client, "memory_append", label="Q&A notes", content="more")
            assert await value(client, one.uri) == "Ünï\nmore"
            (template,) = (await client.list_resource_templates()).resource_templates
            assert template.uri_template == f"blocks://reader-{era}/{{+label}}"
            for uri in ("blocks://other/persona", f"blocks://reader-{era}/nope", f"blocks://reader-{era}/../x", "x"):
                with pytest.raises(MCPError, match="Not done") as caught:
                    await client.read_resource(uri)
                assert caught.value.error.code == INVALID_PARAMS

    run(work())


async def value(client: Client, uri: str) -> str:
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    assert content.uri == uri
    return content.text


def test_how_long_clients_may_keep_what(url: str) -> None:
    """Nothing is shared between clients, what is of the memory is not kept, and the tools are."""

    async def work() -> None:
        async with inside(url, "keeper") as client:
            tools, prompts = await client.list_tools(), await client.list_prompts()
            templates = await client.list_resource_templates()
            listing = await client.list_resources()
            read = await client.read_resource("blocks://keeper/human")
        assert {one.cache_scope for one in (tools, prompts, templates, listing, read)} == {"private"}
        assert tools.ttl_ms == prompts.ttl_ms == templates.ttl_ms == 3_600_000
        assert listing.ttl_ms == read.ttl_ms == 0

    run(work())


@pytest.mark.parametrize("era", ERAS)
def test_memory_is_in_the_instructions_and_the_prompt(url: str, place: tuple[RedisServer, Path], era: str) -> None:
    """As the agent sees it, in the style of its type."""
    agent = f"thinker-{era}"
    directory = place[1] / "agents" / agent
    directory.mkdir(parents=True)
    (directory / "agent.yaml").write_text("agent_type: sleeptime_agent\n")
    (directory / "plan.md").write_text("one\ntwo\n")

    async def work() -> None:
        async with AsyncClient(url) as direct:
            await soon(lambda: known(direct, agent))
            compiled = await direct.memory(agent).compile()
        assert "1→ one" in compiled
        async with inside(url, agent, era) as client:
            assert (client.instructions or "").endswith(compiled)
            assert f"agent '{agent}'" in (client.instructions or "")
            (listed,) = (await client.list_prompts()).prompts
            assert (listed.name, listed.arguments) == ("memory", None)
            await done(client, "memory_append", label="plan", content="three")
            (message,) = (await client.get_prompt("memory")).messages
            assert message.role == "user"
            assert "3→ three" in getattr(message.content, "text", "")
            with pytest.raises(MCPError, match="memory"):
                await client.get_prompt("nope")

    run(work())


async def known(client: AsyncClient, agent: str) -> bool:
    try:
        return (await client.agents.retrieve(agent)).agent_type is not None
    except NotFound:
        return False


@asynccontextmanager
async def listening(url: str, agent: str, era: str, *uris: str) -> AsyncIterator[tuple[Client, Ear]]:
    """A client that listens to these resources, and to the list."""
    ear = Ear()
    async with inside(url, agent, era, **ear.options(era)) as client, ear.listening(client, era, *uris):
        yield client, ear


@pytest.mark.parametrize("era", ERAS)
def test_updates_of_a_shared_block(url: str, place: tuple[RedisServer, Path], era: str) -> None:
    """An append of one agent is in the other's next read and in its update; so is a save of a person."""
    one, other = f"one-{era}", f"other-{era}"
    file = place[1] / f"team-{era}.md"
    file.write_text(f"---\nagents: [{one}, {other}]\n---\nMonday.\n")

    async def work() -> None:
        uri = f"blocks://{other}/team-{era}"
        async with inside(url, one, era) as first, listening(url, other, era, uri) as (second, ear):
            await soon(lambda: has(second, f"team-{era}"))
            await done(first, "memory_append", label=f"team-{era}", content="Room 4.")
            assert (await done(second, "memory_view", label=f"team-{era}"))["value"] == "Monday.\nRoom 4."
            await ear.until(uri)
            assert await value(second, uri) == "Monday.\nRoom 4."
            ear.heard.clear()
            file.write_text(f"{file.read_text()}At noon.\n")
            await ear.until(uri)
            assert await value(second, uri) == "Monday.\nRoom 4.\nAt noon."
            assert "list" not in ear.heard

    run(work())


async def has(client: Client, label: str) -> bool:
    return label in {block["label"] for block in (await done(client, "memory_list"))["blocks"]}


@pytest.mark.parametrize("era", ERAS)
def test_what_is_told(url: str, era: str) -> None:
    """Of the resources that were asked for, however their URI is written, and of the list; of nothing else."""
    agent = f"hearer-{era}"
    human, odd = f"blocks://{agent}/human", f"blocks://{agent}/a%20b"
    also_odd = f"blocks://{agent}/%61%20b"

    async def work() -> None:
        async with inside(url, agent, era) as writer, listening(url, agent, era, human, odd, also_odd) as (client, ear):
            await done(writer, "memory_append", label="human", content="x")
            await ear.until(human)
            await done(writer, "memory_create", label="a b", value="x")
            await ear.until(odd, also_odd, "list")
            ear.heard.clear()
            await done(writer, "memory_append", label="persona", content="x")  # not asked for
            await done(writer, "memory_rename", label="a b", to="c")
            await ear.until(odd, "list")
            ear.heard.clear()
            await done(writer, "memory_update_description", label="human", description="Who.")
            await ear.until("list")
            assert human not in ear.heard
            await done(writer, "memory_create", label="a b", value="y")
            await ear.until(odd)
            await done(writer, "memory_delete", label="a b")
            await ear.until("list")
            assert set(ear.heard) <= {"list", odd, also_odd}
            assert not (await client.call_tool("memory_list", {})).is_error

    run(work())


def test_subscriptions_until_2025(url: str) -> None:
    """End one by one; of another agent's resource there is none."""

    async def work() -> None:
        human, persona = "blocks://fickle/human", "blocks://fickle/persona"
        async with listening(url, "fickle", "2025-11-25", human, persona) as (client, ear):
            await client.unsubscribe_resource(human)
            await done(client, "memory_append", label="human", content="x")
            await done(client, "memory_append", label="persona", content="x")
            await ear.until(persona)
            assert human not in ear.heard
            with pytest.raises(MCPError, match="is no block of 'fickle'"):
                await client.subscribe_resource("blocks://bob/human")

    run(work())


def test_other_agents_changes_are_not_told(url: str) -> None:
    """A client may ask for any URI, and hears nothing of those of others."""

    async def work() -> None:
        uris = ("blocks://spied/human", "blocks://spy/human")
        async with inside(url, "spied") as spied, listening(url, "spy", "2026-07-28", *uris) as (spy, ear):
            await done(spied, "memory_append", label="human", content="x")
            await done(spied, "memory_create", label="new")
            await done(spy, "memory_append", label="human", content="x")
            await ear.until(uris[1])
            assert ear.heard == [uris[1]]

    run(work())


@pytest.mark.parametrize("era", ERAS)
def test_a_server_that_hangs_does_not_hold_up_the_handshake(
    run_daemon: Callable[..., Daemon], server: RedisServer, monkeypatch: pytest.MonkeyPatch, era: str
) -> None:
    """The instructions say that the memory cannot be read, and that it can later."""
    monkeypatch.setattr("blocksd.mcp.memory.PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr("blocksd.mcp.updates._PATIENCE_SECONDS", 0.1)
    run_daemon()

    async def work() -> None:
        server.pause()
        try:
            async with asyncio.timeout(5), inside(server.url, "sam", era) as client:
                assert "cannot be read for now" in (client.instructions or "")
                server.resume()
                await soon(lambda: has(client, "human"))
        finally:
            server.resume()

    run(work())


@pytest.mark.parametrize("era", ERAS)
def test_nothing_is_missed_while_redis_is_lost(
    run_daemon: Callable[..., Daemon], server: RedisServer, era: str
) -> None:
    """What was saved meanwhile is told of when Redis is back; and by who began to listen while it was gone."""
    running = run_daemon()
    file = running.folder / "agents" / "sam" / "human.md"

    async def work() -> None:
        uri = "blocks://sam/human"
        async with listening(server.url, "sam", era, uri) as (client, ear):
            await done(client, "memory_append", label="human", content="x")
            await ear.until(uri)
            await asyncio.sleep(0.2)
            ear.heard.clear()
            server.kill()
            async with listening(server.url, "sam", era, uri) as (_, late):
                file.write_text("saved meanwhile\n")
                server.launch()
                await ear.until(uri)
                await late.until(uri)

                async def is_read() -> bool:
                    return not (await client.call_tool("memory_view", {"label": "human"})).is_error

                await soon(is_read)
                assert (await value(client, uri)).endswith("saved meanwhile")

    run(work())


def test_bound_of_agents_that_are_followed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused, and may read; a refused subscription takes no place."""
    monkeypatch.setattr("blocksd.mcp.server.MOST_FOLLOWED", 0)

    async def work() -> None:
        async with inside(url, "late", "2025-11-25") as client:
            with pytest.raises(MCPError, match="is no block of"):
                await client.subscribe_resource("blocks://bob/human")
            with pytest.raises(MCPError, match="are followed already"):
                await client.subscribe_resource("blocks://late/human")
            assert await value(client, "blocks://late/human") == ""
        async with inside(url, "late") as client:
            with pytest.raises(MCPError, match="are followed already"):
                async with client.listen(resources_list_changed=True):
                    pass

    run(work())


def test_a_watch_lasts_as_long_as_a_client_listens(url: str, place: tuple[RedisServer, Path]) -> None:
    """One connection for all clients of an agent, which ends with the last of them."""

    async def work() -> None:
        with place[0].client() as redis:

            def watches() -> int:
                return len(redis.client_list(_type="pubsub"))

            async def none_is_left() -> bool:
                return watches() == before

            async def one_is_there() -> bool:
                return watches() == before + 1

            before = watches()
            async with inside(url, "heard") as client:
                assert watches() == before
                async with client.listen(resources_list_changed=True), client.listen(resources_list_changed=True):
                    await one_is_there()
                    assert watches() == before + 1
                await soon(none_is_left)
                async with client.listen(resources_list_changed=True):
                    await soon(one_is_there)
            await soon(none_is_left)

    run(work())
