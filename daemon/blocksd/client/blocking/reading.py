# Made of reading_async.py by tests/generate_client.py: edit that, and run this.
"""Reads from the mirror that several parts of the client share: labels, blocks, agents, and an agent's sight."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from blocksd.client.blocking.transport import Transport
from blocksd.errors import Damaged, NotFound, Unavailable
from blocksd.mirror.file_form import form_shown
from blocksd.mirror.view import AgentView, BlockView, shown_as
from blocksd.model.label import PRIVATE, is_properties, name_for_agent, owner, parse_agent, parse_label
from blocksd.model.revision import OPERATOR
from blocksd.protocol import listing
from blocksd.protocol.sight import Look, Sight, not_attached

_ID = re.compile(r"block-[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_HINTS = 10_000  # labels that are remembered
_ATTEMPTS = 5  # at reading what is changed while it is read
_label_of = lru_cache(maxsize=4096)(parse_label)


def resolve(transport: Transport, block: str) -> str:
    """The label of a block named by its id or its label. The block of a label need not be there.

    Raises:
        InvalidLabel: it is neither.
        NotFound: no block has this id.
    """
    if not _ID.fullmatch(block):
        return _label_of(block)
    (label,) = transport.read(("HGET", transport.keys.ids, block))
    if label is None:
        raise NotFound(f"there is no block with the id {block}", id=block)
    return str(label)


def request_of(
    transport: Transport, op: str, block: str, args: Mapping[str, Any] | None, **terms: Any
) -> dict[str, Any]:
    """Make a request of the operator to change a block named by its id or its label; the reply.

    A block that was named by its id before is looked for under the label it had then: the daemon checks that it is the same.
    """
    if not _ID.fullmatch(block):
        return transport.request(OPERATOR, op, args, label=parse_label(block), **terms)
    label = transport.labels.pop(block, "")
    for _ in range(_ATTEMPTS):
        label = label or resolve(transport, block)
        try:
            reply = transport.request(OPERATOR, op, args, label=label, expect_id=block, **terms)
        except NotFound as error:
            if error.facts.get("id") != block:
                raise
            label = ""
        else:
            _remember(transport, block, reply.get("label") or label)
            return reply
    raise Unavailable(f"the block {block} is renamed faster than it can be found")


def resolve_all(transport: Transport, blocks: Sequence[str]) -> list[str]:
    """The labels of these blocks, as `resolve` gives them, in one round trip."""
    ids = [block for block in blocks if _ID.fullmatch(block)]
    if not ids:
        return [parse_label(block) for block in blocks]
    (found,) = transport.read(("HMGET", transport.keys.ids, *ids))
    labels = dict(zip(ids, found, strict=True))
    for block, label in labels.items():
        if label is None:
            raise NotFound(f"there is no block with the id {block}", id=block)
    return [labels[block] if block in labels else parse_label(block) for block in blocks]


def block_named(transport: Transport, block_id: str) -> BlockView:
    """One block, by its id or its label. Raises as `blocks.retrieve` does.

    A block that was read by its id before is looked for under the label it had then: that it is the same is seen in it.
    """
    label, block = transport.labels.pop(block_id, ""), None
    if label:
        block = _block_under(transport, label)
    if block is None or block.id != block_id:
        label = resolve(transport, block_id)
        block = _block_under(transport, label)
    if block is not None:
        if block.id == block_id:
            _remember(transport, block_id, label)
        return block
    keys = transport.keys
    commands = ("HGETALL", keys.block(label)), ("ZSCORE", keys.labels, label)
    fields, score = transport.read(*commands, together=True)
    block = shown_as(label, fields)
    if block is None and score is not None:
        raise Damaged(f"the mirror lists the block {label!r} and does not show it", label=label)
    if block is None:
        raise NotFound(f"there is no block {label!r}", label=label)
    return block


def _remember(transport: Transport, block_id: str, label: str) -> None:
    if len(transport.labels) >= _HINTS:
        transport.labels.clear()
    transport.labels[block_id] = label


def _block_under(transport: Transport, label: str) -> BlockView | None:
    """The block of a label; None tells nothing. What is there is true without the epoch, by which `read` knows what is not."""
    (fields,) = transport.ask(("HGETALL", transport.keys.block(label)))
    return shown_as(label, fields)


def blocks_with(transport: Transport, labels: Sequence[str]) -> list[BlockView]:
    """The blocks of these labels, without those that are not there."""
    found: list[BlockView] = []
    for some in listing.parts(labels, listing.PAGE):
        replies = transport.read(*(("HGETALL", transport.keys.block(label)) for label in some))
        blocks = (shown_as(label, fields) for label, fields in zip(some, replies, strict=True))
        found += [block for block in blocks if block is not None]
    return found


def agent_named(transport: Transport, agent_id: str) -> AgentView:
    """A known agent. Raises as `agents.retrieve` does."""
    keys, agent = transport.keys, parse_agent(agent_id)
    hashes = ("HGETALL", keys.agent(agent)), ("HGETALL", keys.agent_info(agent))
    scores = ("ZSCORE", keys.agents, agent), ("ZSCORE", keys.agents_created, agent)
    names, info, score, created_ms = transport.read(*hashes, *scores)
    if not names and score is None:
        raise NotFound(f"there is no agent {agent!r}", agent=agent)
    return AgentView.of(agent, names, info, created_ms)


def file_of(transport: Transport, block_id: str) -> bytes:
    """The bytes of a block's file, or of an agent's `agent.yaml`. Raises as `blocks.file` does."""
    if is_properties(block_id):
        agent = parse_agent(str(owner(block_id)))
        (text,) = transport.read(("HGET", transport.keys.agent_info(agent), "file"))
        if text is None:
            raise NotFound(f"the agent {agent!r} has no agent.yaml", agent=agent)
        return str(text).encode()
    label = resolve(transport, block_id)
    (fields,) = transport.read(("HGETALL", transport.keys.block(label)))
    block = shown_as(label, fields)
    if block is None:
        raise NotFound(f"there is no block {label!r}", label=label)
    return form_shown(fields).data(block.value)


def agents_with(transport: Transport, agents: Sequence[str]) -> list[AgentView]:
    """The agents of these ids, each with what it is attached to: nothing, if it is not known."""
    views: list[AgentView] = []
    for some in listing.parts(agents, listing.PAGE):
        keys, size = transport.keys, len(some)
        names = (("HGETALL", keys.agent(agent)) for agent in some)
        infos = (("HGETALL", keys.agent_info(agent)) for agent in some)
        *replies, times = transport.read(*names, *infos, ("ZMSCORE", keys.agents_created, *some))
        found = zip(some, replies[:size], replies[size:], times, strict=True)
        views += [AgentView.of(*one) for one in found]
    return views


def block_of_agent(transport: Transport, agent_id: str, block_label: str) -> BlockView:
    """The block an agent knows by this name, or by this label or id. Raises as `agents.blocks.retrieve` does.

    One that was read before is looked for where it was then: that the agent has it is asked for with it.
    """
    keys, agent = transport.keys, parse_agent(agent_id)
    try:
        label = resolve(transport, block_label)
    except NotFound:  # the same as for the id of a block of others
        label = block_label
    name = name_for_agent(label) if owner(label) == agent else label
    # A name may be that of either block; a private label or an id means the one block, whichever has the name.
    is_name = name == label and not _ID.fullmatch(block_label)
    candidates = (f"{PRIVATE}/{agent}/{name}", name) if is_name else (label,)
    hint = f"{agent} {block_label}"
    known = transport.labels.get(hint, "")
    if known in candidates:
        found, fields = transport.ask(("HGET", keys.agent(agent), name), ("HGETALL", keys.block(known)))
        if found == known and (block := shown_as(found, fields)) is not None:
            return block
    for _ in range(_ATTEMPTS):
        found, *hashes = transport.read(
            ("HGET", keys.agent(agent), name), *(("HGETALL", keys.block(one)) for one in candidates)
        )
        if found not in candidates:
            break
        block = shown_as(found, hashes[candidates.index(found)])
        if block is not None:
            _remember(transport, hint, found)
            return block
    else:
        raise Damaged(f"the mirror does not show the block {found!r}, which agent {agent!r} has")
    raise not_attached(agent, block_label, (agent_named(transport, agent)).blocks)


def look(transport: Transport, agent: str) -> Sight:
    """Read an agent's sight.

    Raises:
        NotFound: it is not known.
        Unavailable: the mirror is being built, or changes faster than it can be read.
    """
    for _ in range(_ATTEMPTS):
        one = Look(transport.keys, agent)
        replies = transport.ask(*one.first_commands())
        sight = one.sight(transport.ask(*one.second_commands(replies)))
        if sight is not None:
            return sight
    raise Unavailable(f"the blocks of {agent!r} change faster than they can be read")
