"""The ops on a whole agent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from blocksd.errors import AlreadyExists, InvalidField, InvalidRequest, NotFound
from blocksd.model.attachment import matches
from blocksd.model.label import PRIVATE, is_block_file, owner, parse_agent, parse_label, printable
from blocksd.requests.arguments import list_of, named, new_block, only, text_of
from blocksd.requests.changeset import MAX_BLOCKS, MOST_LEFT

if TYPE_CHECKING:
    from blocksd.requests.changeset import Changeset
    from blocksd.requests.request import Request


def create_agent(changeset: Changeset, request: Request) -> None:
    """An agent with private blocks, attached to others."""
    only(request, "agent", "blocks", "attach", "tags")
    agent = parse_agent(text_of(request, "agent"))
    # A folder alone may be what a crash has left of this very request.
    if changeset.private(agent) or changeset.naming(agent):
        raise AlreadyExists(f"there is an agent {agent!r} already", agent=agent)
    blocks = request.args.get("blocks")
    blocks = [{"name": "persona"}, {"name": "human"}] if blocks is None else blocks
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise InvalidField("blocks must be a list of objects", field="args.blocks")
    if len(blocks) > MAX_BLOCKS:
        raise InvalidField(f"blocks are {len(blocks)}, over the {MAX_BLOCKS} of one request", field="args.blocks")
    changeset.make_folder(agent)
    if not blocks and (others := changeset.left_of(agent)):
        raise InvalidField(
            f"agents/{agent} holds {others[0]!r}, which is no block: an agent without blocks needs an empty folder",
            field="args.blocks",
        )
    for given in blocks:
        args = {"tags": request.args.get("tags"), **given}
        name = args.pop("name", None) or args.pop("label", None)
        label = parse_label(f"{PRIVATE}/{agent}/{parse_label(named(name, 'name', 'a block needs a name'))}")
        changeset.make(new_block(label, args, is_operator=changeset.is_operator))
        changeset.labels.append(label)
    for name in list_of(request, "attach"):
        label = parse_label(name)
        block = changeset.present(label)
        if owner(label) is not None:
            raise InvalidRequest(f"{label!r} is private: it cannot be attached", field="args.attach")
        if not any(matches(entry, agent) for entry in block.agents):
            changeset.put(label, replace(block, agents=(*block.agents, agent)))
        changeset.labels.append(label)
    changeset.facts["agent"] = agent


def delete_agent(changeset: Changeset, request: Request) -> None:
    """The agent's own blocks go, no other names it any more, and what it has open is closed.

    Files that are not its blocks stay where they are, and are named. Where one of them is meant to be a block, the agent
    is known as before: it has a private folder.
    """
    only(request, "agent")
    agent = parse_agent(text_of(request, "agent"))
    private, naming = changeset.private(agent), changeset.naming(agent)
    if not (private or naming or changeset.has_folder(agent)):
        raise NotFound(f"there is no agent {agent!r}", agent=agent)
    for label in private:
        changeset.remove(label)
        changeset.labels.append(label)
    for label in naming:
        block = changeset.present(label)
        changeset.put(label, replace(block, agents=tuple(entry for entry in block.agents if entry != agent)))
        changeset.labels.append(label)
    left = changeset.left_of(agent)
    if not any(is_block_file(path.rpartition("/")[2]) for path in left):
        changeset.remove_folder(agent)
    changeset.agents_gone.add(agent)
    changeset.facts["agent"] = agent
    changeset.facts["left"] = [*changeset.facts.get("left", ()), *map(printable, left)][:MOST_LEFT]
