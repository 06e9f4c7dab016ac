// The TypeScript examples of Letta's documentation of memory blocks, word for word but for the line that connects.

import assert from "node:assert/strict";
import { LettaClient } from "@letta-ai/letta-client";

const client = new LettaClient({ baseUrl: process.env.BASE_URL });  // as written: { token: process.env.LETTA_API_KEY }

// create an agent with two basic self-editing memory blocks
const agentState = await client.agents.create({
  memoryBlocks: [
    {
      label: "human",
      value: "The human's name is Bob the Builder.",
      limit: 5000,
    },
    {
      label: "persona",
      value: "My name is Sam, the all-knowing sentient AI.",
      limit: 5000,
    },
  ],
  model: "openai/gpt-4o-mini",
});

assert.deepEqual(agentState.memory.blocks.map((one) => [one.label, one.limit]).sort(), [["human", 5000], ["persona", 5000]]);

// create a persisted block, which can be attached to agents
const block = await client.blocks.create({
  label: "organization",
  description: "A block to store information about the organization",
  value: "Organization: Letta",
  limit: 4000,
});


// create an agent with both a shared block and its own blocks
const sharedBlockAgent1 = await client.agents.create({
  name: "shared_block_agent1",
  memoryBlocks: [
    {
      label: "persona",
      value: "I am agent 1",
    },
  ],
  blockIds: [block.id],
  model: "openai/gpt-4o-mini",
});


// create another agent with the same shared block
const sharedBlockAgent2 = await client.agents.create({
  name: "shared_block_agent2",
  memoryBlocks: [
    {
      label: "persona",
      value: "I am agent 2",
    },
  ],
  blockIds: [block.id],
  model: "openai/gpt-4o-mini",
});

assert.deepEqual(sharedBlockAgent1.memory.blocks.map((one) => one.label), ["persona", "organization"]);
assert.deepEqual(sharedBlockAgent2.memory.blocks.map((one) => one.label), ["persona", "organization"]);
const agent = agentState;

await client.agents.blocks.attach(agent.id, block.id);

console.log(block.value); // access the block's content

assert.equal((await client.blocks.retrieve(block.id)).value, "Organization: Letta");

// list all blocks
const blocks = await client.blocks.list();


// filter by label
const humanBlocks = await client.blocks.list({
label: "human"
});


// search by label text
const searchResults = await client.blocks.list({
labelSearch: "organization"
});

assert.equal(blocks.length, 5);
assert.deepEqual(humanBlocks.map((one) => one.value), ["The human's name is Bob the Builder."]);
assert.deepEqual(searchResults.map((one) => one.id), [block.id]);

// update the block's value - completely replaces the content
await client.blocks.modify(block.id, {
  value: "Updated organization information: Letta - Building agentic AI",
});


// update multiple properties
await client.blocks.modify(block.id, {
  value: "New content",
  limit: 6000,
  description: "Updated description",
});

const changed = await client.blocks.retrieve(block.id);
assert.deepEqual([changed.value, changed.limit, changed.description], ["New content", 6000, "Updated description"]);

// list all agents that use this block
const agentsWithBlock = await client.blocks.agents.list(block.id);
console.log(`Used by ${agentsWithBlock.length} agents:`);
for (const agent of agentsWithBlock) {
  console.log(`  - ${agent.name}`);
}


// with pagination
const agentsPage = await client.blocks.agents.list(block.id, {
  limit: 10,
  order: "asc",
});

assert.equal(agentsWithBlock.length, 3);
assert.equal(agentsPage.length, 3); // this SDK sends neither limit nor order

client.agents.blocks.list(agent.id);

assert.equal((await client.agents.blocks.list(agent.id)).length, 3);

// get the agent's current knowledge about the human
const humanBlock = await client.agents.blocks.retrieve( agent.id, "human" );
console.log(humanBlock.value);

assert.equal(humanBlock.value, "The human's name is Bob the Builder.");

// update the agent's human block
await client.agents.blocks.modify(agent.id, "human", {
  value: "The human's name is Alice. She prefers Python over TypeScript."
});

assert.equal((await client.agents.blocks.retrieve(agent.id, "human")).value, "The human's name is Alice. She prefers Python over TypeScript.");

await client.agents.blocks.detach(agent.id, block.id);

assert.equal((await client.agents.blocks.list(agent.id)).length, 2);

await client.blocks.delete(block.id);

assert.deepEqual(await client.blocks.list({ label: "organization" }), []);
