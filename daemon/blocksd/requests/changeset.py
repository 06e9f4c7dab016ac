"""The changes of one request, until it is known that all of them can be made."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from blocksd.errors import (
    AlreadyExists,
    BlocksdError,
    EditRefused,
    InvalidFile,
    InvalidRequest,
    LabelConflict,
    LimitExceeded,
    NotFound,
    ProblemFile,
    ReadOnly,
    VersionConflict,
)
from blocksd.files.document import MAX_BYTES, decode, normalize_newlines, serialize, split
from blocksd.files.file_edit import edited, replaced
from blocksd.mirror.view import shown
from blocksd.model import edits
from blocksd.model.attachment import NOBODY, matches
from blocksd.model.block import check_value, is_unfit
from blocksd.model.differences import Effort
from blocksd.model.edits import check_content
from blocksd.model.label import PRIVATE, clash_key, name_for_agent, owner, path_of_label
from blocksd.model.merge import CAP
from blocksd.model.nearest import nearest
from blocksd.model.revision import OPERATOR
from blocksd.requests.arguments import OF_AGENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from blocksd.files.file_edit import BlockFile
    from blocksd.model.block import Block
    from blocksd.requests.request import Request
    from blocksd.requests.workspace import Workspace
    from blocksd.state.state_draft import StateDraft

MAX_BLOCKS = 1000
"""How many blocks one request may touch: each is a file to read, to stage and to put in, and a round waits for them all."""

MAX_DIRECTORIES = 1000
"""How many directories one request may make for its files: each is made, and synced in the one above it, one by one."""

MAX_WRITTEN = 32 * 1024 * 1024
"""How many characters the revisions of one request may have: each is held in memory several times until it is journaled."""

MAX_WORK = 64 * 1024 * 1024
"""How many characters one request may have searched, split and copied: about a second."""

MOST_LEFT = 100
"""How many files a reply names that stay where an agent was."""

MERGES = 4
"""How many merges of the longest kind one request may take."""


@dataclass(slots=True)
class _Edit:
    """The result of a request for one block, however many of its parts edit it."""

    block: Block
    position: int | None
    path: str | None = None  # of a block that is to come into being


@dataclass(slots=True)
class _Tail:
    """Texts appended to a value, which has `chars` characters with them."""

    chars: int
    pieces: list[str] = field(default_factory=list)

    def add(self, content: str) -> None:
        pieces = ["\n", content] if self.chars else [content]
        self.pieces += pieces
        self.chars += sum(map(len, pieces))


class Changeset:
    """Changes of one request of an actor: files on top of the workspace's, and the steps that draft its revisions.

    `labels` and `facts` are for the reply. The edits of one block by one request are one step, and its file is made, and
    checked, once: what the block was in between is never in force.
    """

    def __init__(self, workspace: Workspace, actor: str) -> None:
        self._workspace = workspace
        self.actor = actor
        self.is_operator = actor == OPERATOR
        self.files: dict[str, BlockFile] = {}
        self.steps: list[Callable[[StateDraft, str, str], object]] = []
        self._changed: dict[str, int | None] = {}  # label → the part of the batch that changed it last
        self._edits: dict[str, _Edit] = {}  # label → the step that a further edit of the block joins
        self._said: dict[str, Block] = {}  # label → what the document of a file says, where its block is ahead
        self._tails: dict[str, _Tail] = {}  # label → what was appended, and is not yet part of the file's block
        self._keys: dict[str, set[str]] = {}  # clash key → labels with files
        self._names: dict[str, set[str]] = {}  # what agents call a block → labels with files
        self.labels: list[str] = []
        self.facts: dict[str, Any] = {}
        self.directories: set[str] = set()  # that are to be made for files
        self.folders_made: set[str] = set()
        self.folders_gone: set[str] = set()
        self.agents_gone: set[str] = set()  # whose open files are closed
        self.part: int | None = None  # which part of a batch is being done, from 1
        self.effort = Effort(MERGES * CAP)
        self.work = 0
        self._written = 0

    def spend(self, chars: int) -> None:
        """Count so many characters that are about to be gone through.

        Raises:
            LimitExceeded: they are too many for one request.
        """
        self.work += chars
        if self.work > MAX_WORK:
            raise LimitExceeded(
                f"the request takes more work than one may: its edits go through over {MAX_WORK} characters; "
                "make fewer of them at a time",
                limit=MAX_WORK,
            )

    # --- what is there so far ---

    def _file(self, label: str) -> BlockFile:
        """A block's file, without what was appended since."""
        if label not in self.files:
            if len(self.files) >= MAX_BLOCKS:
                raise LimitExceeded(f"one request may touch {MAX_BLOCKS} blocks, not more", limit=MAX_BLOCKS)
            self._workspace.merge_first(label)
            file = self._workspace.open(label)
            self.spend(len(file.base or b""))
            self._set(label, file)
        return self.files[label]

    def _set(self, label: str, file: BlockFile) -> None:
        if label in self.files:
            self.files[label] = file
            return
        self.files[label] = file
        self._keys.setdefault(clash_key(label), set()).add(label)
        self._names.setdefault(name_for_agent(label), set()).add(label)

    def _peek(self, label: str) -> Block | None:
        """Return a block as it is so far, its value perhaps without what was appended; its file is not read."""
        for files in (self.files, self._workspace.files):
            if label in files:
                return files[label].block
        return self._workspace.draft.block(label)

    def block(self, label: str) -> Block | None:
        """Return a block as it is so far; its file is not read."""
        self._gather(label)
        return self._peek(label)

    def has(self, label: str) -> bool:
        """Return True if there is such a block so far; its file is not read."""
        for files in (self.files, self._workspace.files):
            if label in files:
                return files[label].block is not None
        return self._workspace.draft.path_of(label) is not None

    def present(self, label: str) -> Block:
        """A block that is there and may be changed by who asks."""
        self.check_present(label)
        self._gather(label)
        block = self.files[label].block
        assert block is not None
        return block

    def check_present(self, label: str) -> Block:
        """The same, but what was appended may not be part of its value yet."""
        block = self._file(label).block
        if block is None:
            raise self.unknown(label)
        if block.read_only and not self.is_operator:
            raise ReadOnly(f"the block {name_for_agent(label)!r} is read-only", label=label)
        return block

    def unknown(self, label: str) -> NotFound:
        """The error that there is no such block; it names one that is called nearly so.

        Raises:
            ProblemFile: there can be none, since its path leads through a symlink.
        """
        self._workspace.check_no_symlink(path_of_label(label))
        return NotFound(
            f"there is no block {label!r}", label=label, near=nearest(label, self._workspace.draft.in_force())
        )

    def is_changed(self, label: str) -> bool:
        """Return True if this very request changes the block."""
        return label in self._changed

    def private(self, agent: str) -> list[str]:
        """Return the private blocks of an agent as they are so far."""
        self.spend(len(self._workspace.draft.state.paths))  # at most so many are looked through
        labels = {
            *self._workspace.draft.attachments.private(agent),
            *(label for label in self.files if owner(label) == agent),
        }
        return sorted(filter(self.has, labels))

    def naming(self, agent: str) -> list[str]:
        """Return the blocks that name an agent plainly so far."""
        self.spend(len(self._workspace.draft.state.paths))
        labels = {*self._workspace.draft.attachments.naming(agent), *self.files}
        return sorted(label for label in labels if (block := self._peek(label)) is not None and agent in block.agents)

    def has_folder(self, agent: str) -> bool:
        return agent in self.folders_made or (
            self._workspace.draft.attachments.has_folder(agent) and agent not in self.folders_gone
        )

    def left_of(self, agent: str) -> list[str]:
        """The files in an agent's private folder that are none of its blocks, at most `MOST_LEFT`."""
        ours = {str(self._workspace.draft.path_of(label)) for label in self._workspace.draft.attachments.private(agent)}
        ours |= {file.path for label, file in self.files.items() if owner(label) == agent}
        ours |= {file.path for label, file in self._workspace.files.items() if owner(label) == agent}
        return sorted(islice(self._workspace.others(f"{PRIVATE}/{agent}", ours), MOST_LEFT))

    def expected(self, label: str, request: Request) -> Block | None:
        """The block to merge against, when it is not of the version expected; else None.

        Raises:
            VersionConflict: it is not, and neither to be merged nor overwritten.
        """
        if request.expect is None or request.on_conflict == "overwrite":
            return None
        version = self._workspace.draft.version_of(label)
        if request.expect == version:
            return None
        if request.on_conflict == "merge":
            base = self._workspace.version(label, request.expect)
            self.spend(len(base.block.value) if base.block is not None else 0)
            # What the block was under another label, nobody has read under this one: they mean another block's version.
            if base.block is not None and base.label == label:
                return base.block
        newest = self._workspace.draft.newest(label)
        raise VersionConflict(
            f"{label!r} is at version {version}, not {request.expect}",
            label=label,
            expected=request.expect,
            version=version,
            block=shown(newest) if newest is not None else None,
        )

    # --- changing ---

    def put(self, label: str, new: Block, *, position: int | None = None) -> None:
        """The block is to be `new`."""
        self.spend(len(new.value))
        block = self.present(label)
        if new == block:
            return
        changed = new.changed_fields(block)
        if not self.is_operator and not set(changed) <= set(OF_AGENTS):
            what = ", ".join(name for name in changed if name not in OF_AGENTS)
            raise InvalidRequest(f"an agent may change {' and '.join(OF_AGENTS)}, not {what}", field="args")
        check_value(new.value, new.limit)
        if "agents" in changed:
            self._check_names(label, new.agents)
        self._change(label, new, position)

    def append(self, label: str, content: str) -> None:
        """The block's value is to have `content` on a separate line at the end.

        The value is put together when it is needed: many appends cost what they append, and the block once.
        """
        block = self.check_present(label)
        check_content(content)
        content = normalize_newlines(content)
        tail = self._tails.get(label) or _Tail(len(block.value))
        chars = tail.chars + bool(tail.chars) + len(content)
        if chars > block.limit or is_unfit(content):  # refused: put together, for the error to name the line
            self.put(label, replaced(self.present(label), {"value": edits.append(self.present(label).value, content)}))
            return
        if chars == tail.chars:
            return
        if label not in self._tails:
            self._tails[label] = tail
            self._change(label, block, None)
        self._changed[label] = self.part
        tail.add(content)

    def _gather(self, label: str) -> None:
        """Put what was appended to a block into its value."""
        tail = self._tails.pop(label, None)
        if tail is not None:
            block = self.files[label].block
            assert block is not None
            value = block.value + "".join(tail.pieces)
            self.spend(len(value))
            self._change(label, replaced(block, {"value": value}), None)

    def _change(self, label: str, new: Block, position: int | None) -> None:
        """Note what a block is to be: with its first edit as a step, with further ones in that step."""
        file = self.files[label]
        assert file.block is not None
        self._said.setdefault(label, file.block)
        if new is not file.block:
            self._set(label, replace(file, block=new))
        self._changed[label] = self.part
        edit = self._edits.get(label)
        if edit is None:
            self._step(label, _Edit(new, position))
        else:
            edit.block, edit.position = new, position

    def _step(self, label: str, edit: _Edit) -> None:
        self._count(edit.block)
        self._edits[label] = edit

        def step(draft: StateDraft, actor: str, request_id: str) -> None:
            if edit.path is not None:
                draft.enforce(label, edit.path)
            draft.put(edit.block, author=actor, request_id=request_id, position=edit.position)

        self.steps.append(step)

    def _count(self, block: Block) -> None:
        self._written += len(block.value)
        if self._written > MAX_WRITTEN:
            raise LimitExceeded(
                f"the request would write over {MAX_WRITTEN} characters; change fewer blocks at a time",
                limit=MAX_WRITTEN,
            )

    def _count_directories(self, path: str) -> None:
        """Raises LimitExceeded when too many directories are to be made so that this file, too, can be there."""
        directory = path.rpartition("/")[0]
        while directory and directory not in self.directories and not self._workspace.has_directory(directory):
            self.directories.add(directory)
            directory = directory.rpartition("/")[0]
        if len(self.directories) > MAX_DIRECTORIES:
            raise LimitExceeded(
                f"one request may make {MAX_DIRECTORIES} directories, not more; make fewer blocks at a time",
                limit=MAX_DIRECTORIES,
            )

    def make(self, block: Block, *, position: int | None = None) -> None:
        """The block is to come into being."""
        label = block.label
        self._check_free(label)
        check_value(block.value, block.limit)
        self._check_names(label, block.agents)
        document = split(decode(serialize(block)))
        self._count_directories(self._file(label).path)
        self._keep(label, replace(self._file(label), block=block, document=document))
        self._step(label, _Edit(block, position, self.files[label].path))

    def finish(self) -> None:
        """Make the files of what was changed.

        Raises:
            BlocksdError: one of them cannot say its block; in a batch, `request` is the part that changed it last.
        """
        for label in list(self._changed):
            try:
                self._write_out(label)
            except BlocksdError as error:
                part = self._changed[label]
                if part is not None:
                    error.facts["request"] = part
                raise

    def _write_out(self, label: str) -> None:
        """Have the document of a file say what its block says."""
        self._gather(label)
        said = self._said.pop(label, None)
        file = self.files[label]
        if said is None or file.block is None or file.document is None:
            return
        try:
            document = edited(file.document, said, file.block)
        except EditRefused as error:
            raise ProblemFile(error.message, label=label, **error.facts) from None
        self._keep(label, replace(file, document=document))

    def _keep(self, label: str, file: BlockFile) -> None:
        data = file.data
        assert data is not None
        if len(data) > MAX_BYTES:
            raise LimitExceeded(f"the file would be {len(data)} bytes, over the {MAX_BYTES} that are read", label=label)
        if self._workspace.parse(data, label) != file.block:
            raise ProblemFile(
                f"the file of {label!r} cannot say this without losing something", label=label, hint="edit it by hand"
            )
        self._set(label, file)
        self._changed.setdefault(label, self.part)

    def _check_free(self, label: str) -> None:
        """Raises AlreadyExists, or LabelConflict when some file systems could not tell the label from another."""
        if self.has(label):
            raise AlreadyExists(f"there is a block {label!r} already", label=label)
        for other in (self._workspace.draft.holder(label), *self._keys.get(clash_key(label), ())):
            if other is not None and other != label and self.has(other):
                raise LabelConflict(f"{label!r} could not be told from {other!r}", label=label, other=other)

    def _check_names(self, label: str, entries: Iterable[str]) -> None:
        """Raises LabelConflict when an agent would see two blocks under one name (Letta's unique constraint)."""
        name, agent, attachments = name_for_agent(label), owner(label), self._workspace.draft.attachments
        rivals = {
            one
            for one in attachments.rivals(label, entries) - attachments.refused.get(label, NOBODY)
            if self.has(name if agent is not None else f"{PRIVATE}/{one}/{name}")
        }
        if agent is not None and agent not in attachments.known:  # it is about to be, and will match
            shared = self._peek(name)
            rivals |= {agent} if shared is not None and any(matches(entry, agent) for entry in shared.agents) else set()
        for other in self._names.get(name, ()):
            file = self.files[other]
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

    def remove(self, label: str, *, position: int | None = None) -> None:
        """The block is to be no more."""
        self.check_present(label)
        if not self.is_operator and owner(label) != self.actor:
            raise InvalidRequest(
                f"an agent may delete its private blocks, not {label!r}, which is shared", field="name"
            )
        self._go(label)
        self.steps.append(
            lambda draft, actor, id_: draft.delete(label, author=actor, request_id=id_, position=position)
        )

    def _go(self, label: str) -> None:
        """There is no such block any more: what was to become of it stands as a separate step."""
        self._gather(label)
        self._edits.pop(label, None)
        self._said.pop(label, None)
        self._set(label, replace(self.files[label], block=None, document=None))
        self._changed[label] = self.part

    def rename(self, label: str, new: str) -> None:
        """The block is to be called `new`, with its file."""
        self.present(label)
        self._write_out(label)
        file = self.files[label]
        document = file.document
        assert document is not None
        data = document.text.encode("utf-8")
        self.spend(len(data))
        try:
            block = self._workspace.parse(data, new)
        except InvalidFile as error:
            raise InvalidRequest(f"{label!r} cannot be {new!r}: {error.message}", field="args.to") from None
        self._count(block)
        self._go(label)
        self._check_free(new)
        self._check_names(new, block.agents)
        self._count_directories(self._file(new).path)
        self._keep(new, replace(self._file(new), block=block, document=document, like=file.path))
        path = self.files[new].path
        self.steps.append(
            lambda draft, actor, id_: draft.rename(block, old=label, path=path, author=actor, request_id=id_)
        )

    def make_folder(self, agent: str) -> None:
        """The agent is to have a private folder."""
        self.spend(len(self._workspace.draft.attachments.folders))
        self._workspace.check_writable(f"{PRIVATE}/{agent}")
        self._workspace.check_no_symlink(f"{PRIVATE}/{agent}/")
        self.folders_made.add(agent)
        self.folders_gone.discard(agent)
        self.steps.append(lambda draft, _actor, _id: draft.set_folders(draft.attachments.folders | {agent}))

    def remove_folder(self, agent: str) -> None:
        """The agent is to have none."""
        self.spend(len(self._workspace.draft.attachments.folders))
        self.folders_gone.add(agent)
        self.folders_made.discard(agent)
        self.steps.append(lambda draft, _actor, _id: draft.set_folders(draft.attachments.folders - {agent}))
