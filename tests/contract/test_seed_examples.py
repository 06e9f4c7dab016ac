"""The examples of Letta's documentation of memory blocks that read run here as they stand, but for import and connect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import blocksd
from rig import Rig
from support import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blocksd import AgentView, BlockView, Client
    from support import RedisServer

AGENTS = ("shared_block_agent1", "shared_block_agent2")

FILES = {
    "organization": "---\n"
    f"agents: [{', '.join(AGENTS)}]\n"
    "description: A block to store information about the organization\n"
    "limit: 4000\n"
    "---\n"
    "Organization: Letta\n",
    "agents/shared_block_agent1/persona": "I am agent 1\n",
    "agents/shared_block_agent1/human": "---\nlimit: 5000\n---\nThe human's name is Bob the Builder.\n",
    "agents/shared_block_agent2/persona": "I am agent 2\n",
    "agents/shared_block_agent2/human": "The human's name is Alice.\n",
}
"""What the documentation's examples have created by the time they read: two agents that share a block."""


@pytest.fixture(params=BACKENDS)
def rig(request: pytest.FixtureRequest, tmp_path: Path, standing_server: Callable[[str], RedisServer]) -> Iterator[Rig]:
    made = Rig(tmp_path / "one", standing_server(request.param).url)
    for label, text in FILES.items():
        made.write(label, text)
    made.settle()
    yield made
    made.crash()


@pytest.fixture
def client(rig: Rig) -> Iterator[Client]:
    with blocksd.connect(rig.url) as connected:
        yield connected


@pytest.fixture
def block(client: Client) -> BlockView:
    return client.blocks.retrieve("organization")


@pytest.fixture
def agent(client: Client) -> AgentView:
    return client.agents.retrieve("shared_block_agent1")


# Between two empty comments stands the documentation's code, word for word.


def test_retrieving_a_block(client: Client, block: BlockView, capsys: pytest.CaptureFixture[str]) -> None:
    """A block is retrieved by its id, and its contents are its `value`."""
    #
    block = client.blocks.retrieve(block.id)
    print(block.value)  # access the block's content
    #
    assert capsys.readouterr().out == "Organization: Letta\n"
    assert block.label == "organization"
    assert block.description == "A block to store information about the organization"
    assert block.limit == 4000
    assert not block.read_only


def test_listing_blocks(client: Client) -> None:
    """Blocks are listed, by label (that of every agent's own `human`, too), and by part of a label."""
    #
    # list all blocks
    blocks = client.blocks.list()

    # filter by label
    human_blocks = client.blocks.list(label="human")

    # search by label text
    search_results = client.blocks.list(label_search="organization")
    #
    assert sorted(block.label for block in blocks) == sorted(FILES)
    assert [block.value for block in human_blocks] == [
        "The human's name is Bob the Builder.",
        "The human's name is Alice.",
    ]
    assert [block.label for block in search_results] == ["organization"]


def test_agents_that_use_a_block(client: Client, block: BlockView, capsys: pytest.CaptureFixture[str]) -> None:
    """The agents that have a block attached are counted and named, all of them or a page."""
    #
    # list all agents that use this block
    agents_with_block = client.blocks.agents.list(block_id=block.id)
    print(f"Used by {len(agents_with_block)} agents:")
    for agent in agents_with_block:
        print(f"  - {agent.name}")

    # with pagination
    agents_page = client.blocks.agents.list(block_id=block.id, limit=10, order="asc")
    #
    assert capsys.readouterr().out == "Used by 2 agents:\n  - shared_block_agent1\n  - shared_block_agent2\n"
    assert tuple(agent.id for agent in agents_page) == AGENTS
    assert agents_page.next is None


def test_blocks_of_an_agent(client: Client, agent: AgentView) -> None:
    """All blocks attached to an agent are listed, shared ones and its own."""
    #
    agent_blocks = client.agents.blocks.list(agent_id=agent.id)
    #
    assert {block.name: block.value for block in agent_blocks} == {
        "persona": "I am agent 1",
        "human": "The human's name is Bob the Builder.",
        "organization": "Organization: Letta",
    }


def test_block_of_an_agent_by_label(client: Client, agent: AgentView, capsys: pytest.CaptureFixture[str]) -> None:
    """An agent's block is retrieved by the label the agent knows it by."""
    #
    # get the agent's current knowledge about the human
    human_block = client.agents.blocks.retrieve(agent_id=agent.id, block_label="human")
    print(human_block.value)
    #
    assert capsys.readouterr().out == "The human's name is Bob the Builder.\n"
    assert human_block.limit == 5000


def test_update_once_visible_everywhere(client: Client, rig: Rig, block: BlockView) -> None:
    """A shared block that is updated once is current for every agent it is attached to."""
    rig.save_and_settle("organization", FILES["organization"].replace("Letta", "Letta - Building agentic AI"))
    for name in AGENTS:
        shared = client.agents.blocks.retrieve(agent_id=name, block_label="organization")
        assert shared.id == block.id
        assert shared.value == "Organization: Letta - Building agentic AI"


def test_default_descriptions(client: Client, agent: AgentView) -> None:
    """Where none is given, `persona` and `human` are described by the documentation's own words."""
    described = {block.name: block.description for block in client.agents.blocks.list(agent.id)}
    assert described["persona"] == (
        "The persona block: Stores details about your current persona, guiding how you behave and respond. "
        "This helps you to maintain consistency and personality in your interactions."
    )
    assert described["human"] == (
        "The human block: Stores key details about the person you are conversing with, "
        "allowing for more personalized and friend-like conversation."
    )


# --- the methods of Letta's Memory container ---


def test_memory_container(client: Client, agent: AgentView) -> None:
    """`get_blocks`, `get_block` and `list_block_labels` show what the agent has in mind, under its own names."""
    with client.memory(agent.id) as memory:
        assert memory.list_block_labels() == ["persona", "human", "organization"]
        assert [block.value for block in memory.get_blocks()] == [
            "I am agent 1",
            "The human's name is Bob the Builder.",
            "Organization: Letta",
        ]
        assert memory.get_block("human").limit == 5000
        assert memory.get_block(label="organization") == client.blocks.retrieve("organization")
        with pytest.raises(LookupError, match=r"no block 'x' \(it has: human, organization, persona\)"):
            memory.get_block("x")


PROMPT = """\
<memory_blocks>
The following memory blocks are currently engaged in your core memory unit:

<persona>
<description>
Stores details about your current persona, guiding how you behave and respond.
</description>
<metadata>
- read_only=false
- chars_current=86
- chars_limit=20000
</metadata>
<value>
I am a helpful AI assistant with expertise in customer service and problem resolution.
</value>
</persona>

<human>
<description>
Stores key details about the person you are conversing with.
</description>
<metadata>
- read_only=false
- chars_current=85
- chars_limit=20000
</metadata>
<value>
The user is a software engineer seeking technical assistance with Python programming.
</value>
</human>
</memory_blocks>"""
"""The documentation's example of a prompt, with the number of characters that its first value has."""


def test_compile(client: Client, rig: Rig) -> None:
    """What is compiled for an agent is, letter by letter, the documented format: persona first, then human."""
    rig.write(
        "agents/sam/human",
        "---\ndescription: Stores key details about the person you are conversing with.\n---\n"
        "The user is a software engineer seeking technical assistance with Python programming.\n",
    )
    rig.write(
        "agents/sam/persona",
        "---\ndescription: Stores details about your current persona, guiding how you behave and respond.\n---\n"
        "I am a helpful AI assistant with expertise in customer service and problem resolution.\n",
    )
    rig.settle()
    with client.memory("sam") as memory:
        assert memory.compile() == PROMPT
        with_rules = memory.compile(tool_usage_rules="Ask first.", sources=[], max_files_open=5)
    assert with_rules.startswith(PROMPT)
    assert "Ask first." in with_rules.removeprefix(PROMPT)
