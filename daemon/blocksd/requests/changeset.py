"""The changes of one request, until it is known that all of them can be made."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from blocksd.errors import (
    BlocksdError,
    EditRefused,
    JournalUnusable,
    LimitExceeded,
    NotFound,
    ProblemFile,
    ReadOnly,
    Unavailable,
    VersionConflict,
)
from blocksd.files.document import edited, normalize_newlines
from blocksd.mirror.file_form import form_of_file
from blocksd.model import edits
from blocksd.model.block import check_value, is_unfit
from blocksd.model.differences import Effort
from blocksd.model.label import PRIVATE, PROPERTIES_FILE, clash_key, name_for_agent, path_of_label
from blocksd.model.merge import CAP
from blocksd.model.nearest import nearest
from blocksd.model.revision import MERGE
from blocksd.requests.reply import shown
from blocksd.state.stale import merge_of
from blocksd.state.state_draft import Put

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.files.file_edit import BlockFile
    from blocksd.model.block import Block
    from blocksd.requests.request import Request
    from blocksd.requests.workspace import Workspace
    from blocksd.state.state_draft import StateDraft

MAX_BLOCKS = 1000
"""How many blocks one request may touch: each is a file to read, to stage and to put in, and a round waits for them all."""

MAX_WRITTEN = 32 * 1024 * 1024
"""How many characters the revisions of one request may have: each is held in memory several times until it is journaled."""

MAX_WORK = 64 * 1024 * 1024
"""How many characters one request may have searched, split and copied: about a second."""

MERGES = 4
"""How many merges of the longest kind one request may take."""


@dataclass(eq=False)
class Changeset:
    """Changes of one request of an actor: files and a draft on top of the workspace's, and the steps of the draft.

    `labels` and `facts` are for the reply. The edits of one block by one request are one step, and its file is made, and
    checked, once: what the block was in between is never in force.
    """

    workspace: Workspace
    draft: StateDraft
    actor: str
    request_id: str
    is_operator: bool
    is_again: bool = False  # a daemon ended while it did the same
    files: dict[str, BlockFile] = field(default_factory=dict)
    steps: list[Put | Callable[[StateDraft], object]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    """Directories that are to be made for files."""
    folders_made: set[str] = field(default_factory=set)
    folders_gone: set[str] = field(default_factory=set)
    agents_gone: set[str] = field(default_factory=set)
    """Agents whose open files are closed."""
    rejected: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    """Texts of files that are repaired, as the workspace has them."""
    part: int | None = None
    """The part of a batch that is being done, from 1."""
    effort: Effort = field(default_factory=partial(Effort, MERGES * CAP))
    work: int = 0
    _written: int = 0
    changed: dict[str, int | None] = field(default_factory=dict)  # label → the part that changed it last
    _puts: dict[str, Put] = field(default_factory=dict)  # label → the step that a further edit of the block joins
    _said: dict[str, Block] = field(default_factory=dict)  # label → what a file says, where its block is ahead
    # Label → appended, and not yet part of the file's block.
    _tails: dict[str, edits.Tail] = field(default_factory=dict)
    _keys: dict[str, set[str]] = field(default_factory=dict)  # clash key → labels in `files`
    _names: dict[str, set[str]] = field(default_factory=dict)  # what agents call a block → labels in `files`
    _indexed: int = 0  # so many of `files` are in these two

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

    def file(self, label: str) -> BlockFile:
        """A block's file, without what was appended since."""
        if label not in self.files:
            if len(self.files) >= MAX_BLOCKS:
                raise LimitExceeded(f"one request may touch {MAX_BLOCKS} blocks, not more", limit=MAX_BLOCKS)
            self.merge_first(label)
            if label not in self.files:
                self.files[label] = self.workspace.open(label)
            self.spend(len(self.files[label].base or b""))
        return self.files[label]

    def merge_first(self, label: str) -> None:
        """Merge a stale save of this block before anything is made of it: a request on top of it would stand for good.

        A save that cannot be merged stays as it is.

        Raises:
            Postponed, Unavailable, ProblemFile: the file cannot be read or written now.
        """
        draft = self.draft
        if label not in draft.state.unmerged and not any(label in one.drafted for one in draft.layers):
            return
        if label in self.workspace.unmergeable:
            return
        try:
            self.merge_stale(label)
        except (Unavailable, ProblemFile, JournalUnusable):
            raise
        except BlocksdError:
            self.workspace.unmergeable.add(label)

    def merge_stale(self, label: str) -> None:
        """Put a stale save, if that is the newest revision, and what had been written before it together.

        Raises:
            Postponed, BlocksdError: it cannot be done (yet).
        """
        newest = self.draft.newest(label)
        if newest is None or newest.block is None or newest.stale_base is None:
            return
        file = self.workspace.open(label)
        merge = merge_of(newest, file.block, self.draft) if file.block is not None else None
        if merge is None or file.block is None or file.document is None:
            return
        document = edited(file.document, file.block, merge.block)
        file = file._replace(block=merge.block, document=document, data=document.text.encode("utf-8"))
        self.draft.put(merge.block, author=MERGE, reverts=merge.reverts, form=form_of_file(file))
        self.files[label] = file

    def peek(self, label: str) -> Block | None:
        """Return a block as it is so far, its value perhaps without what was appended; its file is not read."""
        for files in (self.files, self.workspace.files):
            if label in files:
                return files[label].block
        return self.draft.block(label)

    def has(self, label: str) -> bool:
        """Return True if there is such a block so far; its file is not read."""
        for files in (self.files, self.workspace.files):
            if label in files:
                return files[label].block is not None
        return label in self.draft.attachments.attached

    def called(self, name: str) -> str | None:
        """Return the label of the block that the actor, an agent, calls so; None: there is none, or it is not attached."""
        private = f"{PRIVATE}/{self.actor}/{name}"
        attachments = self.draft.attachments
        if name != PROPERTIES_FILE and self.has(private) and private not in attachments.refused:
            return private
        return name if self.has(name) and self.actor in attachments.attached.get(name, ()) else None

    def present(self, label: str) -> Block:
        """A block that is there and may be changed by who asks."""
        self.check_present(label)
        self.gather(label)
        block = self.files[label].block
        assert block is not None
        return block

    def check_present(self, label: str) -> Block:
        """The same, but what was appended may not be part of its value yet."""
        block = self.file(label).block
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
        self.workspace.check_no_symlink(path_of_label(label))
        return NotFound(f"there is no block {label!r}", label=label, near=nearest(label, self.draft.in_force()))

    def files_like(self, label: str) -> tuple[set[str], set[str]]:
        """Return the labels in `files` that some file systems could not tell from one, and those that agents call the same."""
        for other in islice(self.files, self._indexed, None):
            self._keys.setdefault(clash_key(other), set()).add(other)
            self._names.setdefault(name_for_agent(other), set()).add(other)
        self._indexed = len(self.files)
        return self._keys.get(clash_key(label), set()), self._names.get(name_for_agent(label), set())

    def expected(self, label: str, request: Request) -> Block | None:
        """The block to merge against, when it is not of the version expected; else None.

        Raises:
            VersionConflict: it is not, and neither to be merged nor overwritten.
        """
        if request.expect is None or request.on_conflict == "overwrite":
            return None
        self.merge_first(label)
        version = self.draft.version_of(label)
        if request.expect == version:
            return None
        if request.on_conflict == "merge":
            base = self.draft.kept_version(label, request.expect)
            self.spend(len(base.block.value) if base.block is not None else 0)
            # What the block was under another label, nobody has read under this one: they mean another block's version.
            if base.block is not None and base.label == label:
                return base.block
        newest = self.draft.newest(label)
        raise VersionConflict(
            f"{label!r} is at version {version}, not {request.expect}",
            label=label,
            expected=request.expect,
            version=version,
            block=shown(newest) if newest is not None else None,
        )

    # --- changing ---

    def append(self, label: str, content: str) -> None:
        """The block's value is to have `content` on a separate line at the end.

        The value is put together when it is needed: many appends cost what they append, and the block once.
        """
        block = self.check_present(label)
        if "\r" in content:
            content = normalize_newlines(content)
        tail = self._tails.get(label) or edits.Tail(len(block.value))
        before = tail.chars
        tail.add(content)
        if tail.chars > block.limit or is_unfit(content):  # refused: put together, for the error to name the line
            check_value(block.value + "".join(tail.pieces), block.limit)
        if tail.chars == before:
            return
        if label not in self._tails:
            self._tails[label] = tail
            self.change(label, block, None)
        self.changed[label] = self.part

    def gather(self, label: str) -> None:
        """Put what was appended to a block into its value."""
        tail = self._tails.pop(label, None)
        if tail is not None:
            block = self.files[label].block
            assert block is not None
            value = block.value + "".join(tail.pieces)
            self.spend(len(value))
            self.change(label, replace(block, value=value), None)

    def change(self, label: str, new: Block, position: int | None) -> None:
        """Note what a block is to be: with its first edit as a step, with further ones in that step."""
        file = self.files[label]
        assert file.block is not None
        self._said.setdefault(label, file.block)
        if new is not file.block:
            self.files[label] = file._replace(block=new)
        self.changed[label] = self.part
        put = self._puts.get(label)
        if put is None:
            self.step(Put(new, position))
        else:
            put.block, put.position = new, position

    def step(self, put: Put) -> None:
        """Note that a block is to be made or changed; further edits of it join this step."""
        self.count(put.block)
        self._puts[put.block.label] = put
        self.steps.append(put)

    def count(self, block: Block) -> None:
        """Count the characters of a revision that is to be written. Raises LimitExceeded when they are too many."""
        self._written += len(block.value)
        if self._written > MAX_WRITTEN:
            raise LimitExceeded(
                f"the request would write over {MAX_WRITTEN} characters; change fewer blocks at a time",
                limit=MAX_WRITTEN,
            )

    def finish(self) -> None:
        """Make the files of what was changed, and draft the revisions.

        Raises:
            BlocksdError: a file cannot say its block; in a batch, `request` is the part that changed it last.
        """
        for label in list(self.changed):
            try:
                self.write_out(label)
            except BlocksdError as error:
                part = self.changed[label]
                if part is not None:
                    error.facts["request"] = part
                raise
        for label, put in self._puts.items():
            put.form = form_of_file(self.files[label])
        self.draft.take_steps(self.steps, author=self.actor, request_id=self.request_id)

    def write_out(self, label: str) -> None:
        """Have the document of a file say what its block says."""
        self.gather(label)
        said = self._said.pop(label, None)
        file = self.files[label]
        if said is None or file.block is None or file.document is None:
            return
        try:
            document, data = self.workspace.parser.edit(file.document, said, file.block)
        except EditRefused as error:
            raise ProblemFile(error.message, label=label, **error.facts) from None
        self.set_file(label, file._replace(document=document, data=data))

    def set_file(self, label: str, file: BlockFile) -> None:
        """Note the file of a block that is made or changed."""
        self.files[label] = file
        self.changed.setdefault(label, self.part)

    def end(self, label: str) -> None:
        """There is no such block any more: what was to become of it stands as a separate step."""
        self.gather(label)
        self._puts.pop(label, None)
        self._said.pop(label, None)
        self.files[label] = self.files[label]._replace(block=None, document=None, data=None)
        self.changed[label] = self.part
