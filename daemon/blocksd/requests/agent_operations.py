"""The ops on a whole agent, and on the files that it has open."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from blocksd.errors import AlreadyExists, InvalidField, InvalidRequest, NotFound
from blocksd.journal.results import Access
from blocksd.model.attachment import matches
from blocksd.model.label import (
    PRIVATE,
    clash_key,
    is_block_file,
    is_properties,
    owner,
    parse_agent,
    parse_label,
    printable,
    properties_label,
)
from blocksd.model.properties import (
    PROPERTIES,
    block_of_properties,
    id_of_name,
    properties_and_errors,
    properties_of,
)
from blocksd.model.revision import OPERATOR
from blocksd.requests.arguments import check_shared, named, new_block, private_label
from blocksd.requests.block_changes import make, put, remove
from blocksd.requests.changeset import MAX_BLOCKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.requests.changeset import Changeset
    from blocksd.requests.request import Request
    from blocksd.sources.sources import Sources


_NAMESAKES = 1000
"""How many agents may have ids that are made of one name."""

MOST_LEFT = 100
"""How many files a reply names that stay where an agent was."""


def create_agent(changeset: Changeset, request: Request) -> None:
    """An agent with private blocks, attached to others."""
    request.only("agent", "blocks", "attach", "tags", "properties")
    properties = request.args.get("properties")
    if not isinstance(properties, dict | None):
        raise InvalidField("properties must be an object", field="args.properties")
    properties = properties or {}
    if request.args.get("agent") is None and properties.get("name") is not None:
        agent = _free_id(changeset, properties["name"])
        properties = {**properties, "name": None if properties["name"] == agent else properties["name"]}
    else:
        agent = parse_agent(request.text("agent"))
        # A folder alone may be what a crash has left of this very request.
        if _private(changeset, agent) or _naming(changeset, agent):
            raise AlreadyExists(f"there is an agent {agent!r} already", agent=agent)
    blocks = request.args.get("blocks")
    blocks = [{"name": "persona"}, {"name": "human"}] if blocks is None else blocks
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise InvalidField("blocks must be a list of objects", field="args.blocks")
    if len(blocks) > MAX_BLOCKS:
        raise InvalidField(f"blocks are {len(blocks)}, over the {MAX_BLOCKS} of one request", field="args.blocks")
    _make_folder(changeset, agent)
    if not blocks and (others := [path for path in _left_of(changeset, agent) if not is_properties(path)]):
        raise InvalidField(
            f"agents/{agent} holds {others[0]!r}, which is no block: an agent without blocks needs an empty folder",
            field="args.blocks",
        )
    for given in blocks:
        args = {"tags": request.args.get("tags"), **given}
        name = args.pop("name", None) or args.pop("label", None)
        label = private_label(agent, named(name, "name", "a block needs a name"))
        make(changeset, new_block(label, args, is_operator=changeset.is_operator))
        changeset.labels.append(label)
    for name in request.list_of("attach"):
        label = parse_label(name)
        block = changeset.present(label)
        check_shared(label, "args.attach")
        if not any(matches(entry, agent) for entry in block.agents):
            put(changeset, label, replace(block, agents=(*block.agents, agent)))
        changeset.labels.append(label)
    if properties:
        _set_properties(changeset, agent, properties)
    changeset.facts["agent"] = agent


def _free_id(changeset: Changeset, name: object) -> str:
    """Return an id for an agent of this name: made of it, and not to be taken for that of another agent on any file system.

    Raises:
        InvalidField: it cannot be a name.
        AlreadyExists: there are too many agents of this name.
    """
    _, errors = properties_and_errors({"name": name})
    if errors:
        raise InvalidField(errors[0].message, field="args.properties")
    known = changeset.draft.attachments.known | changeset.folders_made
    changeset.spend(len(known))
    taken = {clash_key(one) for one in known if one not in changeset.agents_gone or _has_folder(changeset, one)}
    for agent in (id_of_name(str(name), number) for number in range(1, _NAMESAKES + 1)):
        if clash_key(agent) not in taken or (changeset.is_again and _is_bare(changeset, agent)):
            return agent
    first = id_of_name(str(name), 1)
    raise AlreadyExists(f"there are agents {first!r} to '…-{_NAMESAKES}': choose another name, or an id", agent=first)


def update_agent(changeset: Changeset, request: Request) -> None:
    """The agent has these properties, and else those it had; null stands for none."""
    request.only("agent", *PROPERTIES)
    agent = parse_agent(request.text("agent"))
    if not (_has_folder(changeset, agent) or _private(changeset, agent) or _naming(changeset, agent)):
        raise NotFound(f"there is no agent {agent!r}", agent=agent)
    _set_properties(changeset, agent, {key: value for key, value in request.args.items() if key != "agent"})
    changeset.facts["agent"] = agent


def _set_properties(changeset: Changeset, agent: str, given: dict[str, Any]) -> None:
    """Have an agent's file say these properties too; the file is made if there is none, and something to say."""
    label = properties_label(agent)
    for key in given:
        if key not in PROPERTIES:
            known = ", ".join(PROPERTIES)
            raise InvalidRequest(f"an agent has no property {key[:80]!r}; they are {known}", field=f"args.{key[:80]}")
    _, errors = properties_and_errors(given)
    if errors:
        raise InvalidField(errors[0].message, field=f"args.{errors[0].facts['field']}")
    before = changeset.file(label).block
    new, _ = properties_and_errors({**properties_of(before).said, **given})
    block = block_of_properties(agent, new)
    changeset.spend(len(block.value))
    if before is not None and block != before:
        changeset.change(label, block, None)
    elif before is None and new.said:
        make(changeset, block)
    if changeset.has(label):
        changeset.labels.append(label)


def delete_agent(changeset: Changeset, request: Request) -> None:
    """The agent's own blocks go, no other names it any more, and what it has open is closed.

    Files that are not in force stay where they are, and are named. Where one of them is meant to be a block, or to say the
    agent's properties, the agent is known as before: it has a private folder.
    """
    request.only("agent")
    agent = parse_agent(request.text("agent"))
    private, naming = _private(changeset, agent), _naming(changeset, agent)
    if not (private or naming or _has_folder(changeset, agent)):
        raise NotFound(f"there is no agent {agent!r}", agent=agent)
    for label in private:
        remove(changeset, label)
        changeset.labels.append(label)
    for label in naming:
        block = changeset.present(label)
        put(changeset, label, replace(block, agents=tuple(entry for entry in block.agents if entry != agent)))
        changeset.labels.append(label)
    left = _left_of(changeset, agent)
    if not any(is_block_file(path.rpartition("/")[2]) or is_properties(path) for path in left):
        _remove_folder(changeset, agent)
    changeset.agents_gone.add(agent)
    changeset.facts["agent"] = agent
    changeset.facts["left"] = [*changeset.facts.get("left", ()), *map(printable, left)][:MOST_LEFT]


def _private(changeset: Changeset, agent: str) -> list[str]:
    """Return the private blocks of an agent as they are so far."""
    changeset.spend(len(changeset.draft.state.paths))  # at most so many are looked through
    labels = {
        properties_label(agent),
        *changeset.draft.attachments.private(agent),
        *(label for label in changeset.files if owner(label) == agent),
    }
    return sorted(filter(changeset.has, labels))


def _naming(changeset: Changeset, agent: str) -> list[str]:
    """Return the blocks that name an agent plainly so far."""
    changeset.spend(len(changeset.draft.state.paths))
    labels = {*changeset.draft.attachments.naming(agent), *changeset.files}
    return sorted(label for label in labels if (block := changeset.peek(label)) is not None and agent in block.agents)


def _is_bare(changeset: Changeset, agent: str) -> bool:
    """Return True if an agent is a folder alone, as a crash may leave one of a request that creates it."""
    return _has_folder(changeset, agent) and not (_private(changeset, agent) or _naming(changeset, agent))


def _has_folder(changeset: Changeset, agent: str) -> bool:
    return agent in changeset.folders_made or (
        changeset.draft.attachments.has_folder(agent) and agent not in changeset.folders_gone
    )


def _left_of(changeset: Changeset, agent: str) -> list[str]:
    """The files in an agent's private folder that are none of its blocks, at most `MOST_LEFT`."""
    draft = changeset.draft
    ours = {draft.path_of(label) for label in (properties_label(agent), *draft.attachments.private(agent))}
    for files in (changeset.files, changeset.workspace.files):
        ours |= {file.path for label, file in files.items() if owner(label) == agent}
    return sorted(islice(changeset.workspace.others(f"{PRIVATE}/{agent}", ours), MOST_LEFT))


def _make_folder(changeset: Changeset, agent: str) -> None:
    """The agent is to have a private folder."""
    changeset.spend(len(changeset.draft.attachments.folders))
    changeset.workspace.check_writable(f"{PRIVATE}/{agent}")
    changeset.workspace.check_no_symlink(f"{PRIVATE}/{agent}/")
    changeset.folders_made.add(agent)
    changeset.folders_gone.discard(agent)
    changeset.steps.append(lambda draft: draft.set_folders(draft.attachments.folders | {agent}))


def _remove_folder(changeset: Changeset, agent: str) -> None:
    """The agent is to have none."""
    changeset.spend(len(changeset.draft.attachments.folders))
    changeset.folders_gone.add(agent)
    changeset.folders_made.discard(agent)
    changeset.steps.append(lambda draft: draft.set_folders(draft.attachments.folders - {agent}))


def access_of(request: Request, sources: Sources, check_known: Callable[[str], None], at: str) -> Access:
    """Return what a request to open or close a file comes to, at this time.

    Raises:
        BlocksdError: it may not, or there is no such agent or file.
    """
    if request.actor == OPERATOR:
        agent, file = request.texts("agent", "file")
        agent = parse_agent(agent)
    else:
        agent, (file,) = request.actor, request.texts("file")
    check_known(agent)
    if request.op == "close_file":
        sources.check_close(agent, file)
        return Access(agent, file, None)
    sources.check_open(agent, file)
    return Access(agent, file, at)
