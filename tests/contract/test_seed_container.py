"""Letta's container of blocks, as the documentation that the project was founded on uses it, over ours."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import blocksd
from blocksd import BasicBlockMemory, ChatMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blocksd import AgentView, Client
    from support import Daemon, RedisServer

LIMIT = 20000


@pytest.fixture
def client(run_daemon: Callable[..., Daemon], server: RedisServer) -> Iterator[Client]:
    run_daemon()
    with blocksd.connect(server.url, "blocks") as connected:
        yield connected


@pytest.fixture
def agent_state(client: Client) -> AgentView:
    return client.agents.create(
        name="sam",
        memory_blocks=[
            {"label": "human", "value": "Previous user detail", "limit": 5000},
            {"label": "persona", "value": "I am Sam.", "limit": 5000},
        ],
    )


# Between two empty comments stands the documentation's code, word for word, and laid out as it is there.
# fmt: off


def test_memory_manipulation(client: Client, agent_state: Any) -> None:
    """The two functions are called on the class with an agent's state, and write the agent's blocks."""
    BasicBlockMemory: Any = blocksd.BasicBlockMemory  # noqa: N806  # as the documentation has it
    #
    # Appending to persona block
    result = BasicBlockMemory.core_memory_append(
        agent_state=agent_state,
        label="persona",
        content="I'm a helpful AI assistant focused on customer service."
    )
    # Result: Updates persona block with appended text
    #
    assert result is None
    #
    # Replacing specific text in human block
    result = BasicBlockMemory.core_memory_replace(
        agent_state=agent_state,
        label="human",
        old_content="Previous user detail",
        new_content="Updated user information"
    )
    # Result: Exact match replacement in human block
    #
    assert result is None
    blocks = {block.name: block.value for block in client.agents.blocks.list(agent_state.id)}
    assert blocks == {
        "persona": "I am Sam.\nI'm a helpful AI assistant focused on customer service.",
        "human": "Updated user information",
    }
    assert client.blocks.versions.list("agents/sam/human")[0].author == "sam"


# fmt: on


@pytest.fixture(params=["of an agent", "alone"])
def memory(request: pytest.FixtureRequest, client: Client, agent_state: AgentView) -> BasicBlockMemory:
    """The same blocks, of an agent, or in this process alone."""
    if request.param == "of an agent":
        made: BasicBlockMemory = client.agents.retrieve(agent_state.id).memory
        return made
    return ChatMemory(persona="I am Sam.", human="Previous user detail", limit=5000)


def test_container_methods(memory: BasicBlockMemory) -> None:
    """All that the documentation's table lists: blocks are read, set, added and updated."""
    assert sorted(memory.list_block_labels()) == ["human", "persona"]
    assert {block.value for block in memory.get_blocks()} == {"I am Sam.", "Previous user detail"}
    assert [block.limit for block in memory.blocks] == [5000, 5000]
    assert memory.get_block("persona").description.startswith("The persona block: Stores details about your current")
    memory.update_block_value(label="human", value="Bob")
    assert memory.get_block("human").value == "Bob"
    memory.set_block(SimpleNamespace(label="plan", value="rest", description="What to do"))
    memory.set_block(memory.get_block("plan"))
    assert (memory.get_block("plan").value, memory.get_block("plan").description) == ("rest", "What to do")
    memory.core_memory_append(label="plan", content="work")
    memory.core_memory_replace(label="plan", old_content="rest", new_content="sleep")
    assert memory.get_block("plan").value == "sleep\nwork"
    assert memory.file_blocks == []


def test_container_errors(memory: BasicBlockMemory) -> None:
    """As the documentation has them: ValueErrors with its words, and a KeyError."""
    with pytest.raises(ValueError, match="Provided value must be a string"):
        memory.update_block_value("human", 7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Exceeds character limit"):
        memory.update_block_value("human", "x" * 5001)
    with pytest.raises(ValueError, match="old_content 'nothing' is not in the value"):
        memory.core_memory_replace(label="human", old_content="nothing", new_content="x")
    with pytest.raises(KeyError, match="humn"):
        memory.get_block("humn")
    with pytest.raises(ValueError, match="an agent_state with a memory is needed"):
        BasicBlockMemory.core_memory_append(label="human", content="x")
    assert memory.get_block("human").value == "Previous user detail"


def test_container_compiles_by_type_of_agent(client: Client, memory: BasicBlockMemory, agent_state: AgentView) -> None:
    """In the style of the documentation's table, whatever else is given; a template is kept, and changes nothing."""
    ours = client.memory(agent_state.id)
    memory.set_prompt_template("{{ blocks }}")
    assert memory.get_prompt_template() == "{{ blocks }}"
    anthropic, openai = (SimpleNamespace(model_endpoint_type=kind) for kind in ("anthropic", "openai"))
    for agent_type, style in (
        (None, "standard"),
        ("memgpt_v2_agent", "standard"),
        ("sleeptime_agent", "line-numbered"),
        ("react_agent", "nested"),
        ("workflow_agent", "directories"),
    ):
        memory.agent_type = agent_type
        wanted = ours.compile(style=style)  # type: ignore[arg-type]
        assert memory.compile() == memory.compile(llm_config=anthropic) == wanted
        assert asyncio.run(memory.compile_async(llm_config=anthropic)) == wanted
    memory.agent_type = "sleeptime_agent"
    assert memory.compile(llm_config=openai) == ours.compile()
    with_rules = memory.compile("Ask first.", [], 5, None)
    assert with_rules == ours.compile(
        style="line-numbered", tool_usage_rules="Ask first.", sources=[], max_files_open=5
    )


def test_container_refuses_what_is_over_its_limit() -> None:
    """When it is made, too."""
    assert ChatMemory("p", "h").get_block("human").limit == LIMIT
    with pytest.raises(ValueError, match="Exceeds character limit"):
        ChatMemory(persona="x" * 11, human="", limit=10)


def test_container_is_closed_with_its_client(client: Client, agent_state: Any) -> None:
    """What it follows in the background ends with the client that it came from."""
    assert agent_state.memory.get_blocks()
    (follower,) = client._opened
    client.close()
    assert list(follower) == []
