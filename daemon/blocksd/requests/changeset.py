"""What one request is to change, until it is known that all of it can be done."""

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

    from blocksd.files.file_edit import Sheet
    from blocksd.model.block import Block
    from blocksd.requests.request import Request
    from blocksd.requests.workspace import Desk

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
    """What one block becomes by a request, however many of its parts edit it."""

    block: Block
    position: int | None
    path: str | None = None  # of a block that is to come into being


@dataclass(slots=True)
class _Tail:
    """What was appended to a value, which has `chars` characters with it."""

    chars: int
    pieces: list[str] = field(default_factory=list)

    def add(self, content: str) -> None:
        pieces = ["\n", content] if self.chars else [content]
        self.pieces += pieces
        self.chars += sum(map(len, pieces))


class Attempt:
    """One request of an actor, who may not change everything: sheets on top of the desk's, and what they come to.

    `steps` tell the ledger, `labels` and `facts` are for the reply. The edits of one block by one request are one step,
    and its file is made, and checked, once: what the block was in between is never in force.
    """

    def __init__(self, desk: Desk, actor: str) -> None:
        self._desk = desk
        self._ledger = desk.ledger
        self.actor = actor
        self.sheets: dict[str, Sheet] = {}
        self.steps: list[Callable[[str, str], object]] = []
        self._changed: dict[str, int | None] = {}  # label → the part of the batch that changed it last
        self._edits: dict[str, _Edit] = {}  # label → the step that a further edit of the block joins
        self._said: dict[str, Block] = {}  # label → what the document of a sheet says, where its block is ahead
        self._tails: dict[str, _Tail] = {}  # label → what was appended, and is not yet part of the sheet's block
        self._keys: dict[str, set[str]] = {}  # clash key → labels with sheets
        self._names: dict[str, set[str]] = {}  # what agents call a block → labels with sheets
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

    @property
    def is_operator(self) -> bool:
        return self.actor == OPERATOR

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

    # --- what is there by now ---

    def _sheet(self, label: str) -> Sheet:
        """A block's sheet, without what was appended since."""
        if label not in self.sheets:
            if len(self.sheets) >= MAX_BLOCKS:
                raise LimitExceeded(f"one request may touch {MAX_BLOCKS} blocks, not more", limit=MAX_BLOCKS)
            self._desk.merge_first(label)
            sheet = self._desk.open(label)
            self.spend(len(sheet.base or b""))
            self._set(label, sheet)
        return self.sheets[label]

    def _set(self, label: str, sheet: Sheet) -> None:
        self.sheets[label] = sheet
        self._keys.setdefault(clash_key(label), set()).add(label)
        self._names.setdefault(name_for_agent(label), set()).add(label)

    def _peek(self, label: str) -> Block | None:
        """A block as it is by now, its value perhaps without what was appended; without a look at its file."""
        for sheets in (self.sheets, self._desk.sheets):
            if label in sheets:
                return sheets[label].block
        return self._ledger.block(label)

    def block(self, label: str) -> Block | None:
        """A block as it is by now, without a look at its file."""
        self._gather(label)
        return self._peek(label)

    def has(self, label: str) -> bool:
        """Return True if there is such a block by now, without a look at what it says."""
        for sheets in (self.sheets, self._desk.sheets):
            if label in sheets:
                return sheets[label].block is not None
        return label in self._ledger.paths

    def present(self, label: str) -> Block:
        """A block that is there and may be changed by who asks."""
        self.check_present(label)
        self._gather(label)
        block = self.sheets[label].block
        assert block is not None
        return block

    def check_present(self, label: str) -> Block:
        """The same, but what was appended may not be part of its value yet."""
        block = self._sheet(label).block
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
        self._desk.check_no_symlink(path_of_label(label))
        return NotFound(f"there is no block {label!r}", label=label, near=nearest(label, self._ledger.paths))

    def is_changed(self, label: str) -> bool:
        """Whether this very attempt is to change it."""
        return label in self._changed

    def private(self, agent: str) -> list[str]:
        """The private blocks of an agent as they are by now."""
        self.spend(len(self._ledger.paths))  # at most so many are looked through
        labels = {*self._ledger.attachments.private(agent), *(label for label in self.sheets if owner(label) == agent)}
        return sorted(filter(self.has, labels))

    def naming(self, agent: str) -> list[str]:
        """The blocks that name an agent plainly by now."""
        self.spend(len(self._ledger.paths))
        labels = {*self._ledger.attachments.naming(agent), *self.sheets}
        return sorted(label for label in labels if (block := self._peek(label)) is not None and agent in block.agents)

    def has_folder(self, agent: str) -> bool:
        return agent in self.folders_made or (
            self._ledger.attachments.has_folder(agent) and agent not in self.folders_gone
        )

    def left_of(self, agent: str) -> list[str]:
        """The files in an agent's private folder that are none of its blocks, at most `MOST_LEFT`."""
        ours = {self._ledger.paths[label] for label in self._ledger.attachments.private(agent)}
        ours |= {sheet.path for label, sheet in self.sheets.items() if owner(label) == agent}
        ours |= {sheet.path for label, sheet in self._desk.sheets.items() if owner(label) == agent}
        return sorted(islice(self._desk.others(f"{PRIVATE}/{agent}", ours), MOST_LEFT))

    def expected(self, label: str, request: Request) -> Block | None:
        """The block to merge against, when it is not of the version expected; else None.

        Raises:
            VersionConflict: it is not, and neither to be merged nor overwritten.
        """
        if request.expect is None or request.on_conflict == "overwrite":
            return None
        version = self._ledger.version_of(label)
        if request.expect == version:
            return None
        if request.on_conflict == "merge":
            base = self._desk.version(label, request.expect)
            self.spend(len(base.block.value) if base.block is not None else 0)
            # What the block was under another label, nobody has read under this one: they mean another block's version.
            if base.block is not None and base.label == label:
                return base.block
        newest = self._ledger.newest(label)
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
        """The block's value is to have `content` on a line of its own at the end.

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
            block = self.sheets[label].block
            assert block is not None
            value = block.value + "".join(tail.pieces)
            self.spend(len(value))
            self._change(label, replaced(block, {"value": value}), None)

    def _change(self, label: str, new: Block, position: int | None) -> None:
        """Note what a block is to be: with its first edit as a step, with further ones in that step."""
        sheet = self.sheets[label]
        assert sheet.block is not None
        self._said.setdefault(label, sheet.block)
        if new is not sheet.block:
            self._set(label, replace(sheet, block=new))
        self._changed[label] = self.part
        edit = self._edits.get(label)
        if edit is None:
            self._step(label, _Edit(new, position))
        else:
            edit.block, edit.position = new, position

    def _step(self, label: str, edit: _Edit) -> None:
        self._count(edit.block)
        self._edits[label] = edit

        def step(actor: str, request_id: str) -> None:
            if edit.path is not None:
                self._ledger.enforce(label, edit.path)
            self._ledger.put(edit.block, author=actor, request_id=request_id, position=edit.position)

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
        while directory and directory not in self.directories and not self._desk.has_directory(directory):
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
        self._count_directories(self._sheet(label).path)
        self._keep(label, replace(self._sheet(label), block=block, document=document))
        self._step(label, _Edit(block, position, self.sheets[label].path))

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
        """Have the document of a sheet say what its block says."""
        self._gather(label)
        said = self._said.pop(label, None)
        sheet = self.sheets[label]
        if said is None or sheet.block is None or sheet.document is None:
            return
        try:
            document = edited(sheet.document, said, sheet.block)
        except EditRefused as error:
            raise ProblemFile(error.message, label=label, **error.facts) from None
        self._keep(label, replace(sheet, document=document))

    def _keep(self, label: str, sheet: Sheet) -> None:
        data = sheet.data
        assert data is not None
        if len(data) > MAX_BYTES:
            raise LimitExceeded(f"the file would be {len(data)} bytes, over the {MAX_BYTES} that are read", label=label)
        if self._desk.parse(data, label) != sheet.block:
            raise ProblemFile(
                f"the file of {label!r} cannot say this without losing something", label=label, hint="edit it by hand"
            )
        self._set(label, sheet)
        self._changed.setdefault(label, self.part)

    def _check_free(self, label: str) -> None:
        """Raises AlreadyExists, or LabelConflict when some file systems could not tell the label from another."""
        if self.has(label):
            raise AlreadyExists(f"there is a block {label!r} already", label=label)
        for other in (self._ledger.holder(label), *self._keys.get(clash_key(label), ())):
            if other is not None and other != label and self.has(other):
                raise LabelConflict(f"{label!r} could not be told from {other!r}", label=label, other=other)

    def _check_names(self, label: str, entries: Iterable[str]) -> None:
        """Raises LabelConflict when an agent would see two blocks under one name (Letta's unique constraint)."""
        name, agent, attachments = name_for_agent(label), owner(label), self._ledger.attachments
        rivals = {
            one
            for one in attachments.rivals(label, entries) - attachments.refused.get(label, NOBODY)
            if self.has(name if agent is not None else f"{PRIVATE}/{one}/{name}")
        }
        if agent is not None and agent not in attachments.known:  # it is about to be, and will match
            shared = self._peek(name)
            rivals |= {agent} if shared is not None and any(matches(entry, agent) for entry in shared.agents) else set()
        for other in self._names.get(name, ()):
            sheet = self.sheets[other]
            if other == label or sheet.block is None:
                continue
            if agent is None and owner(other) is not None:
                rivals |= {str(owner(other))} if any(matches(entry, str(owner(other))) for entry in entries) else set()
            elif agent is not None and owner(other) is None:
                rivals |= {agent} if any(matches(entry, agent) for entry in sheet.block.agents) else set()
        if rivals:
            some = ", ".join(sorted(rivals)[:5]) + (", …" if len(rivals) > 5 else "")
            raise LabelConflict(
                f"{some} has another block {name!r} already (unique constraint)", label=label, agents=sorted(rivals)
            )

    def remove(self, label: str, *, position: int | None = None) -> None:
        """The block is to be no more."""
        self.check_present(label)
        if not self.is_operator and owner(label) != self.actor:
            raise InvalidRequest(f"an agent may delete blocks of its own, not {label!r}, which is shared", field="name")
        self._go(label)
        self.steps.append(
            lambda actor, id_: self._ledger.delete(label, author=actor, request_id=id_, position=position)
        )

    def _go(self, label: str) -> None:
        """There is no such block any more: what was to become of it stands as a step of its own."""
        self._gather(label)
        self._edits.pop(label, None)
        self._said.pop(label, None)
        self._set(label, replace(self.sheets[label], block=None, document=None))
        self._changed[label] = self.part

    def rename(self, label: str, new: str) -> None:
        """The block is to be called `new`, with its file."""
        self.present(label)
        self._write_out(label)
        sheet = self.sheets[label]
        document = sheet.document
        assert document is not None
        data = document.text.encode("utf-8")
        self.spend(len(data))
        try:
            block = self._desk.parse(data, new)
        except InvalidFile as error:
            raise InvalidRequest(f"{label!r} cannot be {new!r}: {error.message}", field="args.to") from None
        self._count(block)
        self._go(label)
        self._check_free(new)
        self._check_names(new, block.agents)
        self._count_directories(self._sheet(new).path)
        self._keep(new, replace(self._sheet(new), block=block, document=document, like=sheet.path))
        path = self.sheets[new].path
        self.steps.append(
            lambda actor, id_: self._ledger.rename(block, old=label, path=path, author=actor, request_id=id_)
        )

    def make_folder(self, agent: str) -> None:
        """The agent is to have a private folder."""
        self.spend(len(self._ledger.attachments.folders))
        self._desk.check_writable(f"{PRIVATE}/{agent}")
        self._desk.check_no_symlink(f"{PRIVATE}/{agent}/")
        self.folders_made.add(agent)
        self.folders_gone.discard(agent)
        self.steps.append(lambda _actor, _id: self._ledger.set_folders(self._ledger.attachments.folders | {agent}))

    def remove_folder(self, agent: str) -> None:
        """The agent is to have none."""
        self.spend(len(self._ledger.attachments.folders))
        self.folders_gone.add(agent)
        self.folders_made.discard(agent)
        self.steps.append(lambda _actor, _id: self._ledger.set_folders(self._ledger.attachments.folders - {agent}))
