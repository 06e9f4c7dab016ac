"""Each call of Letta's Python SDK 0.1.x for blocks and agents."""

import os

from letta_client import Letta
from letta_client.core import ApiError

client = Letta(base_url=os.environ["BASE_URL"])

assert client.health.check().status == "ok"

# blocks
block = client.blocks.create(label="one/a", value="first", description="about", metadata={"x": 1})
assert client.blocks.retrieve(block.id).value == "first"
changed = client.blocks.modify(block.id, value="second", description=None)
assert (changed.value, changed.description) == ("second", "about")
assert client.blocks.modify(block.id, label="one/b").id == block.id
client.blocks.create(label="one/c", value="c")
client.blocks.create(label="made", value="", is_template=True, name="of this template")
assert [one.label for one in client.blocks.list(label_search="one/", limit=1)] == ["one/b"]
assert [one.label for one in client.blocks.list(label_search="one/", after=block.id)] == ["one/c"]
assert [one.label for one in client.blocks.list(templates_only=True, name="of this template")] == ["made"]
assert [one.label for one in client.blocks.list(connected_to_agents_count_eq=[0, 5], label_search="one/")] == [
    "one/b",
    "one/c",
]
assert client.blocks.count() == 3

# agents
agent = client.agents.create(name="sam", memory_blocks=[{"label": "human", "value": "Bob"}], block_ids=[block.id])
assert {one.label: one.value for one in agent.memory.blocks} == {"human": "Bob", "one/b": "second"}
assert client.agents.retrieve(agent.id).memory.blocks == agent.memory.blocks
assert [one.id for one in client.agents.list(limit=1)] == ["sam"]
assert client.agents.count() == 1
assert [one.id for one in client.blocks.agents.list(block.id)] == [agent.id]
assert {one.label for one in client.agents.modify(agent.id, block_ids=[]).memory.blocks} == {"human"}

other = client.agents.create(name="Kim!", description="d", tags=["x"], metadata={"y": 1}, agent_type="react_agent")
assert (other.name, other.description, other.tags, other.metadata) == ("Kim!", "d", ["x"], {"y": 1})
other = client.agents.modify(other.id, name="Kim", system="s", tags=["z"])
assert (other.name, other.system, other.tags, other.agent_type) == ("Kim", "s", ["z"], "react_agent")
assert [one.id for one in client.agents.list(tags=["z", "w"])] == [other.id]
client.agents.delete(other.id)

# blocks of an agent
assert client.agents.blocks.attach(agent_id=agent.id, block_id=block.id).id == agent.id
assert {one.label for one in client.agents.blocks.list(agent.id)} == {"human", "one/b"}
assert client.agents.blocks.retrieve(agent.id, "one/b").id == block.id  # sent with a raw slash
assert client.agents.blocks.modify(agent.id, "one/b", value="third").value == "third"
assert {one.label for one in client.agents.core_memory.retrieve(agent.id).blocks} == {"human", "one/b"}
assert "third" in client.agents.context.retrieve(agent.id).core_memory
assert client.agents.memory_variables.list(agent.id).variables == {}
assert client.agents.blocks.detach(agent_id=agent.id, block_id=block.id).id == agent.id
assert client.tags.list() == []


def refused(status, call):
    """Assert that a call raises the SDK's error with this status, and a sentence."""
    try:
        call()
    except ApiError as error:
        assert error.status_code == status, error
        assert error.body["detail"], error
    else:
        raise AssertionError(status)


refused(404, lambda: client.blocks.retrieve("block-nowhere"))
refused(404, lambda: client.agents.blocks.detach(agent_id=agent.id, block_id=block.id))
refused(404, lambda: client.identities.list())
refused(404, lambda: client.agents.messages.list(agent.id))
refused(409, lambda: client.blocks.create(label="one/b", value="x"))
client.blocks.delete(block.id)
client.agents.delete(agent.id)
refused(404, lambda: client.agents.retrieve(agent.id))
