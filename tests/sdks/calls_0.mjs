// Each call of Letta's TypeScript SDK 0.x for blocks and agents.

import assert from "node:assert/strict";
import { LettaClient } from "@letta-ai/letta-client";

const client = new LettaClient({ baseUrl: process.env.BASE_URL }); // without a token it sends "Bearer undefined"

assert.equal((await client.health.check()).status, "ok");

// blocks
const block = await client.blocks.create({ label: "one/a", value: "first", description: "about", metadata: { x: 1 } });
assert.equal((await client.blocks.retrieve(block.id)).value, "first");
assert.equal((await client.blocks.modify(block.id, { value: "second" })).value, "second");
assert.equal((await client.blocks.modify(block.id, { label: "one/b" })).id, block.id);
await client.blocks.create({ label: "one/c", value: "c" });
assert.deepEqual((await client.blocks.list({ labelSearch: "one/", limit: 1 })).map((one) => one.label), ["one/b"]);
assert.equal(await client.blocks.count(), 2);

// agents
const own = [{ label: "human", value: "Bob", readOnly: true }];
const agent = await client.agents.create({ name: "sam", memoryBlocks: own, blockIds: [block.id] });
assert.deepEqual(agent.memory.blocks.map((one) => [one.label, one.value, one.readOnly]), [
  ["human", "Bob", true],
  ["one/b", "second", false],
]);
assert.deepEqual((await client.agents.retrieve(agent.id)).memory, agent.memory);
assert.deepEqual((await client.agents.list({ limit: 1 })).map((one) => one.id), ["sam"]);
assert.equal(await client.agents.count(), 1);
assert.deepEqual((await client.blocks.agents.list(block.id)).map((one) => one.id), ["sam"]);
assert.equal((await client.agents.modify(agent.id, { blockIds: [] })).memory.blocks.length, 1);

const kim = { name: "Kim!", description: "d", tags: ["x"], metadata: { y: 1 }, agentType: "react_agent" };
const other = await client.agents.create(kim);
assert.deepEqual({ ...other, ...kim }, other);
assert.deepEqual((await client.agents.modify(other.id, { name: "Kim", tags: ["z"] })).tags, ["z"]);
assert.deepEqual((await client.agents.list({ tags: ["z", "w"] })).map((one) => one.id), [other.id]);
await client.agents.delete(other.id);

// blocks of an agent
assert.equal((await client.agents.blocks.attach(agent.id, block.id)).id, agent.id);
assert.equal((await client.agents.blocks.list(agent.id)).length, 2);
assert.equal((await client.agents.blocks.retrieve(agent.id, "one/b")).id, block.id);
assert.equal((await client.agents.blocks.modify(agent.id, "one/b", { value: "third" })).value, "third");
assert.equal((await client.agents.coreMemory.retrieve(agent.id)).blocks.length, 2);
assert.ok((await client.agents.context.retrieve(agent.id)).coreMemory.includes("third"));
assert.deepEqual((await client.agents.memoryVariables.list(agent.id)).variables, {});
assert.equal((await client.agents.blocks.detach(agent.id, block.id)).id, agent.id);
assert.deepEqual(await client.tags.list(), []);

const refused = (call, statusCode) => assert.rejects(call, (error) => error.statusCode === statusCode && error.body.detail.length > 0);
await refused(client.blocks.retrieve("block-nowhere"), 404);
await refused(client.agents.blocks.detach(agent.id, block.id), 404);
await refused(client.identities.list(), 404);
await refused(client.agents.messages.list(agent.id), 404);
await refused(client.blocks.create({ label: "one/b", value: "x" }), 409);
await client.blocks.delete(block.id);
await client.agents.delete(agent.id);
await refused(client.agents.retrieve(agent.id), 404);
