"""What operators ask for about agents: plans."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Unpack

from blocksd.client import asking
from blocksd.client.asking import Fields
from blocksd.client.plan import ask
from blocksd.client.queries import resolve, retrieve_block_of_agent
from blocksd.client.sending import send
from blocksd.mirror.view import AgentView
from blocksd.model.label import parse_agent
from blocksd.model.revision import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Collection

    from blocksd.client.asking import Changes
    from blocksd.client.plan import Plan
    from blocksd.client.sending import Expectation, Terms
    from blocksd.mirror.keys import Keys
    from blocksd.mirror.view import BlockView


class AgentBlock(Fields, total=False):
    """A private block of an agent to be made; `label` and `name` are the same, what the agent is to call it."""

    label: str
    name: str


def create_agent(
    keys: Keys,
    *,
    name: str | None = None,
    memory_blocks: Collection[AgentBlock] | None = None,
    block_ids: Collection[str] = (),
    tags: Collection[str] | None = None,
    model: str | None = None,  # noqa: ARG001  # what an agent runs on is of no concern here
    **terms: Unpack[Terms],
) -> Plan[AgentView]:
    """Make an agent known, with private blocks of its own and attached to shared ones: all of it, or nothing.

    `name` is its id; None makes one up. Without `memory_blocks` it has an empty `persona` and `human`; `tags` are put
    on its own blocks that have none given. `model` is accepted for programs that give it, and not kept: blocksd runs no
    models.

    Raises:
        AlreadyExists: there is such an agent.
        NotFound: one of `block_ids` is no block.
        LabelConflict: two of its blocks would have one name.
    """
    agent = parse_agent(name) if name is not None else f"agent-{uuid.uuid4().hex[:8]}"
    labels = []
    for block_id in block_ids:
        labels.append((yield from resolve(keys, block_id)))  # noqa: PERF401  # a comprehension cannot yield
    args: dict[str, Any] = {"agent": agent, "attach": labels, "tags": tags}
    if memory_blocks is not None:
        args["blocks"] = list(memory_blocks)
    yield from send(keys, OPERATOR, "create_agent", args=args, **terms)
    view = yield from _agent(keys, agent)
    return view


def delete_agent(keys: Keys, agent_id: str, **terms: Unpack[Terms]) -> Plan[None]:
    """Delete an agent with its private blocks, and detach it from the shared ones that name it."""
    yield from send(keys, OPERATOR, "delete_agent", args={"agent": parse_agent(agent_id)}, **terms)


def attach_to_agent(keys: Keys, agent_id: str, block_id: str, **terms: Unpack[Expectation]) -> Plan[AgentView]:
    """Attach a block to an agent. Raises LabelConflict when the agent has another block of this name."""
    yield from asking.attach(keys, block_id, agent_id, **terms)
    view = yield from _agent(keys, agent_id)
    return view


def detach_from_agent(keys: Keys, agent_id: str, block_id: str, **terms: Unpack[Expectation]) -> Plan[AgentView]:
    """Detach a block from an agent; the block stays. Raises NotAttached when it is not attached to it."""
    yield from asking.detach(keys, block_id, agent_id, **terms)
    view = yield from _agent(keys, agent_id)
    return view


def _agent(keys: Keys, agent_id: str) -> Plan[AgentView]:
    """What an agent is attached to; one that nothing names any more is not known, and attached to nothing."""
    agent = parse_agent(agent_id)
    (names,) = yield from ask(("HGETALL", keys.agent(agent)))
    return AgentView(agent, names)


def update_of_agent(keys: Keys, agent_id: str, block_label: str, **changes: Unpack[Changes]) -> Plan[BlockView]:
    """Change fields of the block an agent knows by this name; a shared block changes for everyone it is attached to."""
    found = yield from retrieve_block_of_agent(keys, agent_id, block_label)
    block = yield from asking.update(keys, found.label, **changes)
    return block
