"""The Python examples of Letta's documentation of memory blocks, word for word but for the line that connects."""

import os

from letta_client import Letta

client = Letta(base_url=os.environ["BASE_URL"])  # as written: Letta(token=os.getenv("LETTA_API_KEY"))

# fmt: off


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

assert {one.label: (one.value, one.limit) for one in agent_state.memory.blocks} == {
    "human": ("The human's name is Bob the Builder.", 5000),
    "persona": ("My name is Sam, the all-knowing sentient AI.", 5000),
}

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

for shared in (shared_block_agent1, shared_block_agent2):
    assert {one.label for one in shared.memory.blocks} == {"persona", "organization"}
agent = agent_state

client.agents.blocks.attach(agent_id=agent.id, block_id=block.id)

assert {one.label for one in client.agents.retrieve(agent.id).memory.blocks} == {"human", "persona", "organization"}

block = client.blocks.retrieve(block.id)
print(block.value) # access the block's content

assert block.value == "Organization: Letta"

# list all blocks
blocks = client.blocks.list()


# filter by label
human_blocks = client.blocks.list(label="human")


# search by label text
search_results = client.blocks.list(label_search="organization")

assert len(list(blocks)) == 5
assert [one.value for one in human_blocks] == ["The human's name is Bob the Builder."]
assert [one.id for one in search_results] == [block.id]

# update the block's value - completely replaces the content
client.blocks.modify(
    block.id,
    value="Updated organization information: Letta - Building agentic AI"
)

assert client.blocks.retrieve(block.id).value == "Updated organization information: Letta - Building agentic AI"

# update multiple properties
client.blocks.modify(
    block.id,
    value="New content",
    limit=6000,
    description="Updated description"
)

changed = client.blocks.retrieve(block.id)
assert (changed.value, changed.limit, changed.description) == ("New content", 6000, "Updated description")

# list all agents that use this block
agents_with_block = client.blocks.agents.list(block_id=block.id)
print(f"Used by {len(agents_with_block)} agents:")
for agent in agents_with_block:
    print(f"  - {agent.name}")


# with pagination
agents_page = client.blocks.agents.list(
    block_id=block.id,
    limit=10,
    order="asc"
)

assert len(list(agents_with_block)) == 3
assert [one.id for one in agents_page] == sorted(one.id for one in agents_with_block)
agent = agent_state

agent_blocks = client.agents.blocks.list(agent_id=agent.id)

assert {one.label for one in agent_blocks} == {"human", "persona", "organization"}

# get the agent's current
# knowledge about the human
human_block = client.agents.blocks.retrieve(
agent_id=agent.id, block_label="human" )
print(human_block.value)

assert human_block.value == "The human's name is Bob the Builder."

# update the agent's human block
client.agents.blocks.modify(
    agent_id=agent.id,
    block_label="human",
    value="The human's name is Alice. She prefers Python over TypeScript."
)

human_block = client.agents.blocks.retrieve(agent_id=agent.id, block_label="human")
assert human_block.value == "The human's name is Alice. She prefers Python over TypeScript."

client.agents.blocks.detach(agent_id=agent.id, block_id=block.id)

assert {one.label for one in client.agents.blocks.list(agent_id=agent.id)} == {"human", "persona"}

client.blocks.delete(block_id=block.id)

assert list(client.blocks.list(label="organization")) == []
assert {one.label for one in client.agents.blocks.list(agent_id=shared_block_agent1.id)} == {"persona"}
