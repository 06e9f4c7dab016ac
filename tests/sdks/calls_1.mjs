// Each call of Letta's TypeScript SDK 1.x for blocks and agents.

import assert from "node:assert/strict";
import Letta from "@letta-ai/letta-client";

const client = new Letta({ baseURL: process.env.BASE_URL, apiKey: "none" });
const all = async (page) => {
  const found = [];
  for await (const one of page) found.push(one.label ?? one.id ?? one);
  return found;
};

assert.equal((await client.health()).status, "ok");

// blocks
const block = await client.blocks.create({ label: "one/a", value: "first", description: "about", tags: ["t"] });
assert.equal((await client.blocks.retrieve(block.id)).value, "first");
assert.equal(block.version, 1);
const changed = await client.blocks.update(block.id, { value: "second", description: null });
assert.deepEqual([changed.value, changed.description], ["second", "about"]);
assert.equal((await client.blocks.update(block.id, { label: "one/b" })).id, block.id);
for (const name of ["c", "d", "e"]) await client.blocks.create({ label: `one/${name}`, value: name });
const where = { label_search: "one/", limit: 2 };
assert.deepEqual(await all(client.blocks.list(where)), ["one/b", "one/c", "one/d", "one/e"]);
assert.deepEqual(await all(client.blocks.list({ ...where, order: "desc" })), ["one/e", "one/d", "one/c", "one/b"]);
assert.deepEqual(await all(client.blocks.list({ tags: ["t", "u"] })), ["one/b"]);
assert.deepEqual(await all(client.blocks.list({ connected_to_agents_count_eq: [5, 6] })), []);

// agents
const own = [{ label: "human", value: "Bob" }, { ...block, label: "persona" }];
const agent = await client.agents.create({ name: "sam", memory_blocks: own });
assert.deepEqual(agent.blocks.map((one) => [one.label, one.value]), [["persona", "first"], ["human", "Bob"]]);
assert.deepEqual(await client.agents.retrieve(agent.id), agent);
assert.deepEqual(await all(client.agents.list({ limit: 1 })), ["sam"]);

const kim = { name: "Kim!", description: "d", tags: ["x"], metadata: { y: 1 }, agent_type: "react_agent" };
const other = await client.agents.create(kim);
assert.deepEqual({ ...other, ...kim }, other);
assert.deepEqual((await client.agents.update(other.id, { name: "Kim", tags: ["z"] })).tags, ["z"]);
assert.deepEqual(await all(client.agents.list({ tags: ["z", "w"] })), [other.id]);
await client.agents.delete(other.id);

// blocks of an agent
assert.equal((await client.agents.blocks.attach(block.id, { agent_id: agent.id })).id, agent.id);
assert.deepEqual(await all(client.blocks.agents.list(block.id, { limit: 1 })), ["sam"]);
assert.deepEqual((await all(client.agents.blocks.list(agent.id, { limit: 1 }))).sort(), ["human", "one/b", "persona"]);
assert.equal((await client.agents.blocks.retrieve("one/b", { agent_id: agent.id })).id, block.id);
assert.equal((await client.agents.blocks.update("one/b", { agent_id: agent.id, value: "third" })).value, "third");
assert.ok((await client.agents.recompile(agent.id)).includes("third"));
const run = { agent_id: agent.id, args: { label: "one/b", content: "more" } };
assert.equal((await client.agents.tools.run("core_memory_append", run)).status, "success");
assert.equal((await client.blocks.retrieve(block.id)).value, "third\nmore");
await client.agents.blocks.detach(block.id, { agent_id: agent.id });
const labels = (await client.agents.update(agent.id, { block_ids: [block.id] })).blocks.map((one) => one.label);
assert.deepEqual(labels, ["persona", "human", "one/b"]);
assert.deepEqual(await client.tags.list({ query_text: "t", limit: 1 }), ["t"]);

await assert.rejects(client.blocks.retrieve("block-nowhere"), Letta.NotFoundError);
await assert.rejects(client.agents.identities.attach("identity-1", { agent_id: agent.id }), Letta.NotFoundError);
await assert.rejects(client.agents.messages.create(agent.id, { messages: [] }), Letta.NotFoundError);
await assert.rejects(client.blocks.create({ label: "one/b", value: "x" }), Letta.ConflictError);
await assert.rejects(client.blocks.update(block.id, { value: "xx", limit: 1 }), Letta.UnprocessableEntityError);

// a walk that deletes what it finds
const seen = [];
for await (const one of client.blocks.list(where)) {
  await client.blocks.delete(one.id);
  seen.push(one.label);
}
assert.deepEqual(seen, ["one/b", "one/c", "one/d", "one/e"]);
await client.agents.delete(agent.id);
await assert.rejects(client.agents.retrieve(agent.id), Letta.NotFoundError);
