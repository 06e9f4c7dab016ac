"""The examples of Letta's documentation of memory blocks that write run here as they stand, but for import and connect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import blocksd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blocksd import AgentView, BlockView, Client
    from support import Daemon, RedisServer


@pytest.fixture
def client(run_daemon: Callable[..., Daemon], server: RedisServer) -> Iterator[Client]:
    run_daemon()
    with blocksd.connect(server.url, "blocks") as connected:
        yield connected


@pytest.fixture
def block(client: Client) -> BlockView:
    return client.blocks.create(
        label="organization",
        description="A block to store information about the organization",
        value="Organization: Letta",
        limit=4000,
    )


@pytest.fixture
def agent(client: Client) -> AgentView:
    return client.agents.create(name="sam")


# Between two empty comments stands the documentation's code, word for word, and laid out as it is there.
# fmt: off


def test_creating_an_agent_with_memory_blocks(client: Client) -> None:
    """An agent that is created with memory blocks has them attached, with the limits and values given."""
    #
    # create an agent with two basic self-editing memory blocks
    agent_state = client.agents.create(
        memory_blocks=[
            {
              "label": "human",
              "value": "The human's name is Bob the Builder.",
              "limit": 5000
            },
            {
              "label": "persona",
              "value": "My name is Sam, the all-knowing sentient AI.",
              "limit": 5000
            }
        ],
        model="openai/gpt-4o-mini"
    )
    #
    blocks = client.agents.blocks.list(agent_id=agent_state.id)
    assert {(block.name, block.value, block.limit) for block in blocks} == {
        ("human", "The human's name is Bob the Builder.", 5000),
        ("persona", "My name is Sam, the all-knowing sentient AI.", 5000),
    }
    with client.memory(agent_state.id) as memory:
        assert "My name is Sam, the all-knowing sentient AI." in memory.compile()


def test_creating_and_attaching_memory_blocks(client: Client, folder: Path) -> None:
    """A block that is created is attached to two agents by their `block_ids`: shared memory."""
    #
    # create a persisted block, which can be attached to agents
    block = client.blocks.create(
        label="organization",
        description="A block to store information about the organization",
        value="Organization: Letta",
        limit=4000,
    )


    # create an agent with both a shared block and its own blocks
    shared_block_agent1 = client.agents.create(
        name="shared_block_agent1",
        memory_blocks=[
            {
                "label": "persona",
                "value": "I am agent 1"
            },
        ],
        block_ids=[block.id],
        model="openai/gpt-4o-mini"
    )


    # create another agent sharing the block
    shared_block_agent2 = client.agents.create(
        name="shared_block_agent2",
        memory_blocks=[
            {
                "label": "persona",
                "value": "I am agent 2"
            },
        ],
        block_ids=[block.id],
        model="openai/gpt-4o-mini"
    )
    #
    for number, agent in enumerate((shared_block_agent1, shared_block_agent2), 1):
        blocks = {one.name: one.value for one in client.agents.blocks.list(agent_id=agent.id)}
        assert blocks == {"persona": f"I am agent {number}", "organization": "Organization: Letta"}
    assert [one.id for one in client.blocks.agents.list(block.id)] == ["shared_block_agent1", "shared_block_agent2"]
    assert (folder / "organization.md").read_text().endswith("---\nOrganization: Letta\n")


def test_attaching_and_detaching(client: Client, agent: AgentView, block: BlockView) -> None:
    """A block is attached to an agent that exists, and detached again without being deleted."""
    #
    client.agents.blocks.attach(agent_id=agent.id, block_id=block.id)
    #
    assert [one.id for one in client.blocks.agents.list(block.id)] == [agent.id]
    #
    client.agents.blocks.detach(agent_id=agent.id, block_id=block.id)
    #
    assert list(client.blocks.agents.list(block.id)) == []
    assert client.blocks.retrieve(block.id).value == "Organization: Letta"


def test_modifying_a_block(client: Client, block: BlockView) -> None:
    """A block's value is replaced by `modify`, and so are several of its properties at once."""
    #
    # update the block's value - completely replaces the content
    client.blocks.modify(
        block.id,
        value="Updated organization information: Letta - Building agentic AI"
    )
    #
    assert client.blocks.retrieve(block.id).value == "Updated organization information: Letta - Building agentic AI"
    #
    # update multiple properties
    client.blocks.modify(
        block.id,
        value="New content",
        limit=6000,
        description="Updated description"
    )
    #
    now = client.blocks.retrieve(block.id)
    assert (now.value, now.limit, now.description) == ("New content", 6000, "Updated description")


def test_deleting_a_block(client: Client, agent: AgentView, block: BlockView) -> None:
    """A block that is deleted is gone from every agent that had it attached."""
    client.agents.blocks.attach(agent_id=agent.id, block_id=block.id)
    #
    client.blocks.delete(block_id=block.id)
    #
    assert [one.name for one in client.agents.blocks.list(agent.id)] == ["human", "persona"]


def test_modifying_a_block_of_an_agent(client: Client, agent: AgentView) -> None:
    """An agent's block is modified by the label the agent knows it by."""
    #
    client.agents.blocks.modify(
        agent_id=agent.id,
        block_label="human",
        value="The human's name is Alice. She prefers Python over TypeScript."
    )
    #
    human_block = client.agents.blocks.retrieve(agent_id=agent.id, block_label="human")
    assert human_block.value == "The human's name is Alice. She prefers Python over TypeScript."


def test_read_only_block(client: Client, agent: AgentView, block: BlockView) -> None:
    """A block that is read-only is one an agent cannot update, and whoever manages blocks can."""
    client.blocks.modify(block.id, read_only=True, agents=[agent.id])
    with client.memory(agent.id) as memory, pytest.raises(blocksd.ReadOnly):
        memory.update_block_value("organization", "mine")
    assert client.blocks.modify(block.id, value="theirs").value == "theirs"


# fmt: on
# --- the methods of Letta's Memory container ---


def test_memory_manipulation(client: Client, agent: AgentView) -> None:
    """`core_memory_append` adds a line, `core_memory_replace` replaces what is there exactly; both return None."""
    client.agents.blocks.modify(agent.id, "human", value="Previous user detail")
    with client.memory(agent.id) as memory:
        container: Any = memory
        result = container.core_memory_append(
            label="persona",
            content="I'm a helpful AI assistant focused on customer service.",
        )
        assert result is None
        result = container.core_memory_replace(
            label="human",
            old_content="Previous user detail",
            new_content="Updated user information",
        )
        assert result is None
        assert memory.get_block("persona").value == "I'm a helpful AI assistant focused on customer service."
        assert memory.get_block("human").value == "Updated user information"
        with pytest.raises(ValueError, match="old_content 'Previous user detail' is not in the value"):
            memory.core_memory_replace("human", "Previous user detail", "x")


def test_update_block_value(client: Client, agent: AgentView) -> None:
    """The whole value is updated by `update_block_value`, which takes strings only, and no label that is not there."""
    with client.memory(agent.id) as memory:
        memory.update_block_value(label="human", value="Alice")
        assert memory.get_block("human").value == "Alice"
        wrong: Any = 7
        with pytest.raises(ValueError, match="Provided value must be a string"):
            memory.update_block_value(label="human", value=wrong)
        with pytest.raises(KeyError, match="no block 'nothing'"):
            memory.update_block_value(label="nothing", value="x")
        with pytest.raises(KeyError, match="no block 'nothing'"):
            memory.get_block("nothing")
        with pytest.raises(
            ValueError, match="Exceeds character limit: value is 20001 characters, over its limit of 20000"
        ):
            memory.update_block_value(label="human", value="x" * 20001)


def test_set_block(client: Client, agent: AgentView) -> None:
    """A block is added or updated by `set_block`."""
    with client.memory(agent.id) as memory:
        memory.set_block("task", "Write it down.", description="What to do")
        memory.set_block("human", "Alice")
        assert memory.list_block_labels() == ["persona", "human", "task"]
        assert [one.value for one in memory.get_blocks()] == ["", "Alice", "Write it down."]


def test_two_blocks_under_one_label(client: Client, agent: AgentView) -> None:
    """A second block under a label that the agent has already is refused, as by a unique constraint."""
    other = client.blocks.create(label="human", value="Somebody else.")
    with pytest.raises(blocksd.LabelConflict, match="Unique constraint violation") as caught:
        client.agents.blocks.attach(agent_id=agent.id, block_id=other.id)
    assert isinstance(caught.value, ValueError)


def test_default_blocks(client: Client, agent: AgentView) -> None:
    """An agent that is created without memory blocks has an empty human and persona, with their descriptions."""
    blocks = {block.name: block for block in client.agents.blocks.list(agent.id)}
    assert {name: block.value for name, block in blocks.items()} == {"human": "", "persona": ""}
    assert str(blocks["human"].description).startswith("The human block: Stores key details about the person")
    assert str(blocks["persona"].description).startswith("The persona block: Stores details about your current persona")
