"""Changes a block in a changeset: changes it, makes it, renames it or removes it, if its name and its fields allow that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.errors import AlreadyExists, InvalidFile, InvalidRequest, LabelConflict, LimitExceeded, ProblemFile
from blocksd.files.document import decode, serialize, split
from blocksd.mirror.file_form import form_of_file
from blocksd.model.attachment import NOBODY, matches
from blocksd.model.block import check_value
from blocksd.model.label import PRIVATE, is_properties, name_for_agent, owner, printable
from blocksd.requests.arguments import OF_AGENTS
from blocksd.state.state_draft import Put

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blocksd.model.block import Block
    from blocksd.requests.changeset import Changeset

MAX_DIRECTORIES = 1000
"""How many directories one request may make for its files: each is made, and synced in the one above it, one by one."""


def put(changeset: Changeset, label: str, new: Block, *, position: int | None = None) -> None:
    """The block is to be `new`."""
    changeset.spend(len(new.value))
    block = changeset.present(label)
    if new == block:
        return
    changed = new.changed_fields(block)
    if not changeset.is_operator and not set(changed) <= set(OF_AGENTS):
        what = ", ".join(name for name in changed if name not in OF_AGENTS)
        raise InvalidRequest(f"an agent may change {' and '.join(OF_AGENTS)}, not {what}", field="args")
    _check_value(new)
    if "agents" in changed:
        _check_names(changeset, label, new.agents)
    changeset.change(label, new, position)


def repair(changeset: Changeset, label: str) -> bool:
    """Have a file with a problem say again what is in force; True if it had one. Its text is kept in a file beside it.

    Of a deleted block, whose file came back with a problem, nothing is in force: False, and the block may be made in its place.
    """
    found = changeset.workspace.broken(label) if label not in changeset.files else None
    if found is None:
        return False
    file, kept = found
    assert file.base is not None
    changeset.spend(len(file.base))
    if file.block is None:
        changeset.files[label] = file
    else:
        changeset.set_file(label, file)
    changeset.rejected[kept] = file.base, file.path
    changeset.facts["rejected"] = printable(kept)
    return file.block is not None


def make(changeset: Changeset, block: Block, *, position: int | None = None) -> None:
    """The block is to come into being."""
    label = block.label
    check_free(changeset, label)
    _check_value(block)
    _check_names(changeset, label, block.agents)
    document = split(decode(serialize(block)), label)
    file = changeset.file(label)
    count_directories(changeset, file.path)
    data = changeset.workspace.parser.confirm(document, block)
    changeset.set_file(label, file._replace(block=block, document=document, data=data))
    changeset.step(Put(block, position, file.path))


def remove(changeset: Changeset, label: str, *, position: int | None = None) -> None:
    """The block is to be no more."""
    changeset.check_present(label)
    author, request_id = changeset.actor, changeset.request_id
    if not changeset.is_operator and owner(label) != author:
        raise InvalidRequest(f"an agent may delete its private blocks, not {label!r}, which is shared", field="name")
    changeset.end(label)
    changeset.steps.append(lambda draft: draft.delete(label, author=author, request_id=request_id, position=position))


def rename(changeset: Changeset, label: str, new: str) -> None:
    """The block is to be called `new`, with its file."""
    changeset.present(label)
    changeset.write_out(label)
    file, parser = changeset.files[label], changeset.workspace.parser
    if file.base is not None and changeset.workspace.folder.is_symlink(file.path):
        raise ProblemFile(
            f"the file of {label!r} is a symlink, which would become a file by this",
            label=label,
            path=file.path,
            hint="rename the symlink in the folder: its block follows",
        )
    assert file.document is not None
    assert file.data is not None
    changeset.spend(len(file.data))
    try:
        block, _ = parser.parse(file.data, new)
    except InvalidFile as error:
        message = f"{label!r} cannot be {new!r}: {error.message}"
        raise InvalidRequest(message, field="args.to", label=label, owner=owner(new)) from None
    changeset.count(block)
    changeset.end(label)
    check_free(changeset, new)
    _check_names(changeset, new, block.agents)
    there = changeset.file(new)
    count_directories(changeset, there.path)
    data = parser.confirm(file.document, block)
    file = there._replace(block=block, document=file.document, data=data, like=file.path, mode=file.mode)
    changeset.set_file(new, file)
    author, request_id = changeset.actor, changeset.request_id
    changeset.steps.append(
        lambda draft: draft.rename(
            *(block,), old=label, path=there.path, author=author, request_id=request_id, form=form_of_file(file)
        )
    )


def _check_value(block: Block) -> None:
    """Check a value by the limit of its block: properties have none, but their file has."""
    if not is_properties(block.label):
        check_value(block.value, block.limit)


def count_directories(changeset: Changeset, path: str) -> None:
    """Raises LimitExceeded when too many directories are to be made so that this file, too, can be there."""
    directories, directory = changeset.directories, path.rpartition("/")[0]
    while directory and directory not in directories and not changeset.workspace.has_directory(directory):
        directories.add(directory)
        directory = directory.rpartition("/")[0]
    if len(directories) > MAX_DIRECTORIES:
        raise LimitExceeded(
            f"one request may make {MAX_DIRECTORIES} directories, not more; make fewer blocks at a time",
            limit=MAX_DIRECTORIES,
        )


def check_free(changeset: Changeset, label: str) -> None:
    """Raises AlreadyExists, or LabelConflict when some file systems could not tell the label from another."""
    if changeset.has(label):
        raise AlreadyExists(f"there is a block {label!r} already", label=label)
    for other in (changeset.draft.holder(label), *changeset.files_like(label)[0]):
        if other is not None and other != label and changeset.has(other):
            raise LabelConflict(f"{label!r} could not be told from {other!r}", label=label, other=other)


def _check_names(changeset: Changeset, label: str, entries: Iterable[str]) -> None:
    """Raises LabelConflict when an agent would see two blocks under one name (Letta's unique constraint)."""
    if is_properties(label):
        return  # no agent sees them under a name
    name, agent, attachments = name_for_agent(label), owner(label), changeset.draft.attachments
    rivals = {
        one
        for one in attachments.rivals(label, entries) - attachments.refused.get(label, NOBODY)
        if changeset.has(name if agent is not None else f"{PRIVATE}/{one}/{name}")
    }
    if agent is not None and agent not in attachments.known:  # it is about to be, and will match
        shared = changeset.peek(name)
        rivals |= {agent} if shared is not None and any(matches(entry, agent) for entry in shared.agents) else set()
    for other in changeset.files_like(label)[1]:
        file = changeset.files[other]
        if other == label or file.block is None:
            continue
        if agent is None and owner(other) is not None:
            rivals |= {str(owner(other))} if any(matches(entry, str(owner(other))) for entry in entries) else set()
        elif agent is not None and owner(other) is None:
            rivals |= {agent} if any(matches(entry, agent) for entry in file.block.agents) else set()
    if rivals:
        some = ", ".join(sorted(rivals)[:5]) + (", …" if len(rivals) > 5 else "")
        raise LabelConflict(
            f"Unique constraint violation: {some} has another block {name!r} already",
            label=label,
            agents=sorted(rivals),
        )
