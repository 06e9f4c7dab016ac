"""Each call of Letta's Python SDK 1.x for blocks and agents, with strict parsing of the answers."""

import os

import letta_client
from letta_client import Letta

client = Letta(base_url=os.environ["BASE_URL"], api_key="none", _strict_response_validation=True)

assert client.health().status == "ok"

# blocks
block = client.blocks.create(label="one/a", value="first", description="about", tags=["t"], metadata={"x": 1})
assert client.blocks.retrieve(block.id).value == "first"
assert block.model_extra["version"] == 1
changed = client.blocks.update(block.id, value="second", description=None)
assert (changed.value, changed.description) == ("second", "about")
assert client.blocks.update(block.id, label="one/b").id == block.id
for name in ("c", "d", "e"):
    client.blocks.create(label=f"one/{name}", value=name)
pages = client.blocks.list(label_search="one/", limit=2)
assert [one.label for one in pages.items] == ["one/b", "one/c"]
assert [one.label for one in client.blocks.list(label_search="one/", limit=2)] == ["one/b", "one/c", "one/d", "one/e"]
assert [one.label for one in client.blocks.list(tags=["t", "u"], limit=1)] == ["one/b"]
assert client.blocks.list(label_search="one/", order="desc", limit=3).items[0].label == "one/e"
assert [one.label for one in client.blocks.list(connected_to_agents_count_eq=[5, 6])] == []

# agents
agent = client.agents.create(
    name="sam", memory_blocks=[{"label": "human", "value": "Bob"}, block.to_dict() | {"label": "persona"}]
)
assert {one.label: one.value for one in agent.blocks} == {"human": "Bob", "persona": "first"}
assert client.agents.retrieve(agent.id, include=["agent.blocks"]) == agent
assert [one.id for one in client.agents.list(limit=1)] == ["sam"]
assert [one.id for one in client.agents.list(name="sam", include=["agent.blocks", "agent.tags"])] == ["sam"]

other = client.agents.create(name="Kim!", description="d", tags=["x"], metadata={"y": 1}, agent_type="react_agent")
assert (other.name, other.description, other.tags, other.metadata) == ("Kim!", "d", ["x"], {"y": 1})
other = client.agents.update(other.id, name="Kim", system="s", tags=["z"])
assert (other.name, other.system, other.tags, other.agent_type) == ("Kim", "s", ["z"], "react_agent")
assert [one.id for one in client.agents.list(tags=["z", "w"])] == [other.id]
assert list(client.tags.list(query_text="z")) == ["z"]
client.agents.delete(other.id)

# blocks of an agent
assert client.agents.blocks.attach(block.id, agent_id=agent.id).id == agent.id
assert [one.id for one in client.blocks.agents.list(block.id, limit=1)] == [agent.id]
assert {one.label for one in client.agents.blocks.list(agent.id, limit=1)} == {"human", "persona", "one/b"}
assert client.agents.blocks.retrieve("one/b", agent_id=agent.id).id == block.id
assert client.agents.blocks.update("one/b", agent_id=agent.id, value="third").value == "third"
assert client.agents.blocks.update("human", agent_id=agent.id, read_only=True).read_only
assert "third" in client.agents.recompile(agent.id)
ran = client.agents.tools.run("core_memory_append", agent_id=agent.id, args={"label": "one/b", "content": "more"})
assert ran.status == "success"
assert client.blocks.retrieve(block.id).value == "third\nmore"
client.agents.blocks.detach(block.id, agent_id=agent.id)
assert {one.label for one in client.agents.update(agent.id, block_ids=[block.id]).blocks} == {
    "human",
    "persona",
    "one/b",
}
assert list(client.tags.list(query_text="t", limit=1)) == ["t"]


def refused(kind, call):
    """Assert that a call raises this error of the SDK, with a sentence."""
    try:
        call()
    except kind as error:
        assert error.body["detail"], error
    else:
        raise AssertionError(kind)


refused(letta_client.NotFoundError, lambda: client.blocks.retrieve("block-nowhere"))
refused(letta_client.NotFoundError, lambda: client.agents.identities.attach("identity-1", agent_id=agent.id))
refused(letta_client.NotFoundError, lambda: client.agents.messages.create(agent.id, messages=[]))
refused(letta_client.ConflictError, lambda: client.blocks.create(label="one/b", value="x"))
refused(letta_client.UnprocessableEntityError, lambda: client.blocks.update(block.id, value="xx", limit=1))

# a walk that deletes what it finds
seen = []
for one in client.blocks.list(label_search="one/", limit=2):
    client.blocks.delete(one.id)
    seen.append(one.label)
assert seen == ["one/b", "one/c", "one/d", "one/e"], seen
client.agents.delete(agent.id)
refused(letta_client.NotFoundError, lambda: client.agents.retrieve(agent.id))
