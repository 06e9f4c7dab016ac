"""What is in force, and which revisions follow when that changes."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from blocksd.errors import JournalDamaged, VersionDamaged
from blocksd.model.attachment import NOBODY, Attachments
from blocksd.model.block import Block
from blocksd.model.label import clash_key, owner
from blocksd.model.revision import FILE, Revision, timestamp
from blocksd.model.rollback import Undo, UndoDict, UndoSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from blocksd.files.folder import Signature
    from blocksd.journal.journal import Journal
    from blocksd.model.revision import Kind

_NEWEST_KEPT = 256


class Ledger:
    """The blocks in force, each with its file, version and attachment set.

    It is the journal's state and, on top of it, the revisions drafted since: `drafted`, which the journal is to have
    next. Whoever has journaled them says so with `settle`; whoever could not says so with `begin_again`, which costs as
    much as was drafted, not as there are blocks. A part of a draft is taken back by `mark` and `back_to`.
    """

    def __init__(self, journal: Journal, *, wall: Callable[[], float]) -> None:
        self._journal = journal
        self._wall = wall
        self.load()

    def load(self, folders: Iterable[str] = ()) -> None:
        """Begin from what the journal holds. `folders` are agents that are known to have a private folder.

        Raises:
            JournalUnusable: it cannot be read; all is as it was.
        """
        heads = list(self._journal.heads(in_force=True))
        # Blocks that are deleted may be many, and are few of those asked for: the journal knows them.
        self._has_deleted = self._journal.has_deleted()
        self._undo = undo = Undo()
        self.attachments = Attachments(undo)
        self.drafted: list[Revision] = []
        self._newest: dict[str, Revision] = {}
        self._come: UndoSet[str] = UndoSet(undo)  # labels that came into force, and of which nothing is drafted yet
        self._moved: dict[
            str, frozenset[str]
        ] = {}  # sets changed by private folders, or by a lost journal, not yet drafted
        self._together: dict[str, str] | None = None  # label → by whom, while what is done goes together
        self.has_seen_folders = False  # until a sweep has, agents without blocks are not known
        self._began_at = 0.0  # when what is drafted happens
        self._at_text = ""  # the same as text, once it is wanted
        attach = self.attachments.load
        versions: dict[str, int] = {}
        signatures: dict[str, Signature | None] = {}
        paths: dict[str, str] = {}
        labels: dict[str, str] = {}
        taken: dict[str, str] = {}
        for label, version, entries, agents, path, signature in heads:
            assert path is not None
            versions[label] = version
            paths[label] = path
            labels[path] = label
            signatures[path] = signature
            if not (label.islower() and label.isascii()):  # else it is its own clash key
                taken[clash_key(label)] = label
            attach(label, entries, agents)
        self.paths = UndoDict(undo, paths)  # of the blocks in force: label → path
        self.labels = UndoDict(undo, labels)  # path → label
        self.signatures = UndoDict(undo, signatures)  # of every file looked at, in force or not
        self._versions = UndoDict(undo, versions)  # of the blocks in force, and of what is drafted
        self._taken = UndoDict(undo, taken)  # clash key → label; those that are their own key may be left out
        # The journal has no list of private folders. Until the first sweep has seen them, they are where blocks are.
        self.attachments.loaded(folders)
        if self._journal.opened.how in (
            "damaged",
            "overwritten",
        ):  # what was lost may have told who is attached to what is left
            self._moved = self.attachments.expand_all()
        undo.forget()

    def reload(self) -> None:
        """Begin from what the journal holds, which others wrote to; private folders stay as they are."""
        self.back_to(0)
        has_seen_folders = self.has_seen_folders
        self.load(self.attachments.folders)
        self.has_seen_folders = has_seen_folders

    def begin(self) -> None:
        """What is drafted from here on happens now."""
        self._began_at, self._at_text = self._wall(), ""
        if not self.drafted:
            self._undo.forget()

    @property
    def _at(self) -> str:
        """When what is drafted happens."""
        if not self._at_text:
            self._at_text = timestamp(self._began_at)
        return self._at_text

    def begin_again(self) -> None:
        """Nothing of what was drafted is to be: all is as the journal has it, and private folders as they were then."""
        self.back_to(0)

    @property
    def mark(self) -> int:
        """The present state of the draft, for `back_to`; it is valid until the next `begin` or `settle`."""
        return self._undo.mark

    def back_to(self, mark: int) -> None:
        """Take back all that was drafted, looked at or moved since the mark."""
        self._undo.back_to(mark)

    def settle(self) -> list[Revision]:
        """The drafted revisions are journaled: these."""
        drafted, self.drafted = self.drafted, []
        for revision in drafted:
            for label in (revision.label, revision.renamed_from):
                if label is not None and label not in self.paths and label in self._versions:
                    del self._versions[label]
                    self._has_deleted = True
        self._undo.forget()
        return drafted

    def forget(self, label: str) -> None:
        """The journal knows nothing any more of a label that no block has."""
        if label not in self.paths:
            self._versions.pop(label, None)
            self._newest.pop(label, None)

    # --- what is ---

    def newest(self, label: str) -> Revision | None:
        """The newest revision of a label, drafted ones included; None when it never had one.

        Raises:
            JournalDamaged: it is not as it was written.
        """
        newest = self._newest.get(label)
        if newest is not None:
            return newest
        if label in self.paths and label in self._versions:
            return self.head(label)
        return self._journal.head(label) if self.version_of(label) else None

    def head(self, label: str) -> Revision:
        """The newest revision, as the journal has it, of a block that was in force when that was last written.

        Raises:
            JournalDamaged: it is not as it was written, or not the one that is in force.
        """
        head = self._journal.head(label)
        if head is None or head.block is None or head.version != self._versions.get(label):
            raise JournalDamaged(
                f"the journal has lost the version of {label!r} that is in force", path=self._journal.path
            )
        return head

    def confirmed(self, label: str) -> Revision:
        """The same, and it says what is known of who is attached: what the mirror may be made of.

        Raises:
            JournalDamaged: it does not.
        """
        head, attachments = self.head(label), self.attachments
        assert head.block is not None
        if head.agents != attachments.attached.get(label) or head.block.agents != attachments.entries(label):
            path = self._journal.path
            raise JournalDamaged(f"the journal does not agree with itself on who is attached to {label!r}", path=path)
        return head

    def version_of(self, label: str) -> int:
        """The version of the newest revision of a label, drafted ones included; 0 when none is known."""
        version = self._versions.get(label)
        if version is None:
            version = self._journal.version_of(label) if self._has_deleted else 0
        return version

    def block(self, label: str) -> Block | None:
        """The block in force under a label."""
        newest = self.newest(label) if label in self.paths else None
        return newest.block if newest is not None else None

    def holder(self, label: str) -> str | None:
        """The label in force that no other than this one may stand beside: itself, or one in another spelling."""
        key = clash_key(label)
        return key if key in self.paths else self._taken.get(key)

    def version(self, label: str, version: int) -> Revision | None:
        """A version of a block, drafted ones included; None when it is not kept."""
        for revision in reversed(self.drafted):
            if revision.label == label:
                if revision.version == version:
                    return revision
                label = revision.renamed_from or label
        newest = self._newest.get(label)
        if newest is not None and newest.version == version:
            return newest
        return self._journal.version(label, version)

    def revision(self, seq: int) -> Revision | None:
        """Return the revision of this number, drafted ones included; None when it is not kept."""
        drafted = seq - self._journal.seq - 1
        return self.drafted[drafted] if 0 <= drafted < len(self.drafted) else self._journal.revision(seq)

    def kept(self, label: str, version: int) -> Revision | None:
        """The same, but None also when it is damaged in the journal: for what can do without it."""
        try:
            return self.version(label, version)
        except VersionDamaged:
            return None

    def positions(self, label: str) -> dict[int, int | None]:
        """The versions of a block that are kept, drafted ones included: where those that undo or redo made stand."""
        drafted: dict[int, int | None] = {}
        for revision in reversed(self.drafted):
            if revision.renamed_from == label:  # the block that had the label took its versions along
                return drafted
            if revision.label == label:
                drafted[revision.version] = revision.position
                label = revision.renamed_from or label
        return self._journal.positions(label) | drafted

    def _before(self, label: str) -> Revision | None:
        """What was in force under a label, if anything was: the block it last had may have been renamed."""
        newest = self.newest(label)
        if newest is not None and label in self._come:
            return replace(newest, block=None, agents=NOBODY)
        return newest

    # --- what changes ---

    def enforce(self, label: str, path: str) -> None:
        """The file at `path` says the label."""
        before = self.paths.get(label)
        if before is None:
            self._come.add(label)
            agent = owner(label)
            if agent is not None and not self.attachments.has_folder(agent):
                self.set_folders(self.attachments.folders | {agent})
        elif before != path:
            self.labels.pop(before, None)
            self.signatures.pop(before, None)
        self.paths[label] = path
        self.labels[path] = label
        self._taken[clash_key(label)] = label

    def put(
        self,
        block: Block,
        *,
        author: str = FILE,
        request_id: str | None = None,
        position: int | None = None,
        reverts: tuple[int, ...] = (),
        stale_base: int | None = None,
    ) -> bool:
        """The block is in force as it is here: whether that makes a revision. Others may follow, of who is attached.

        `position` is the version that an undo or redo went to; `reverts` are versions whose text is undone by it;
        `stale_base` is the version that a stale save was made of.
        """
        before = self._before(block.label)
        is_new = before is None or before.block is None
        fields = (Block(block.label) if before is None or before.block is None else before.block).changed_fields(block)
        self._come.discard(block.label)
        if not is_new and not fields:
            return False
        others: dict[str, frozenset[str]] = {}
        if is_new or "agents" in fields:
            others = self.attachments.put(block.label, block.agents)
            others.pop(block.label, None)
        self._draft(before, block, fields, author, request_id, position, reverts, stale_base)
        self._others_changed(others, author)
        return True

    def delete(
        self, label: str, *, author: str = FILE, request_id: str | None = None, position: int | None = None
    ) -> None:
        """The block is gone, and its file with it. `position` is the deletion that an undo or redo went to."""
        before = self.newest(label)
        assert before is not None
        self._forget(label)
        others = self.attachments.drop(label)
        self._append(
            Revision(
                seq=self._next_seq,
                label=label,
                version=before.version + 1,
                kind="deleted",
                block=None,
                at=self._at,
                created_at=before.created_at,
                author=author,
                detached=tuple(sorted(before.agents)),
                request_id=request_id,
                position=position,
            )
        )
        self._others_changed(others, author)

    def rename(self, block: Block, *, old: str, path: str, author: str, request_id: str) -> None:
        """The block has another label, and its file another path; its history goes on under it."""
        before, there = self.newest(old), self.newest(block.label)
        assert before is not None
        self._forget(old)
        others = self.attachments.drop(old)
        others |= self.attachments.put(block.label, block.agents)
        others.pop(block.label, None)
        self.enforce(block.label, path)
        self._come.discard(block.label)
        self._versions[block.label] = max(before.version, there.version if there is not None else 0)
        self._draft(before, block, ("label",), author, request_id, _position(before), kind="renamed", renamed_from=old)
        self._others_changed(others, author)

    def set_folders(self, agents: Iterable[str]) -> bool:
        """These agents have a private folder, and no others: whether that is new. `follow_folders` drafts what follows."""
        agents = set(agents)
        if agents == self.attachments.folders:
            return False
        self._set_moved(self._moved | self.attachments.set_folders(agents))
        return True

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is done within is one change: who is attached to other blocks by it is drafted once, at its end.

        Else a hundred agents that come at once would be a hundred revisions of each block that is for all of them.
        """
        self._together = {}
        try:
            yield
            changed, self._together = self._together, None
            for label, author in changed.items():
                self._reattach((label,), author)
            self.follow_folders()
        finally:
            self._together = None

    def _others_changed(self, changed: Iterable[str], author: str) -> None:
        """Draft who is attached to these blocks, whose files have not changed, now or at the end of what goes together."""
        if self._together is None:
            self._reattach(changed, author)
        else:
            for label in changed:
                self._together.setdefault(label, author)

    def follow_folders(self) -> None:
        """Draft what private folders that came or went have changed."""
        if self._moved:
            moved = self._moved
            self._set_moved({})
            self._reattach(moved, FILE)

    def _set_moved(self, moved: dict[str, frozenset[str]]) -> None:
        self._undo.add(setattr, self, "_moved", self._moved)
        self._moved = moved

    @property
    def _next_seq(self) -> int:
        return self._journal.seq + len(self.drafted) + 1

    def _forget(self, label: str) -> None:
        path = self.paths.pop(label)
        del self.labels[path]
        self.signatures.pop(path, None)
        self._taken.pop(clash_key(label), None)

    def _draft(
        self,
        before: Revision | None,
        block: Block,
        fields: tuple[str, ...],
        author: str,
        request_id: str | None,
        position: int | None = None,
        reverts: tuple[int, ...] = (),
        stale_base: int | None = None,
        *,
        kind: Kind | None = None,
        renamed_from: str | None = None,
    ) -> None:
        """The revision that makes `block` the newest of its label, with the attachment set of the moment."""
        label = block.label
        is_new = before is None or before.block is None
        had = before.agents if before is not None else NOBODY
        has = self.attachments.attached[label]
        # The same object compares element by element, too; and the journal knows a set by its identity.
        if has is not had and has == had:
            has = had
        self._append(
            Revision(
                seq=self._next_seq,
                label=label,
                version=self.version_of(label) + 1,
                kind=kind or ("created" if is_new else "updated"),
                block=block,
                at=self._at,
                created_at=self._at if before is None or is_new else before.created_at,
                author=author,
                fields=fields,
                agents=has,
                attached=tuple(sorted(has - had)) if has is not had else (),
                detached=tuple(sorted(had - has)) if has is not had else (),
                digest=_digest(before if fields == ("agents",) else None, block),
                request_id=request_id,
                renamed_from=renamed_from,
                position=position,
                reverts=reverts,
                stale_base=stale_base,
            )
        )

    def _reattach(self, changed: Iterable[str], author: str) -> None:
        """Revisions of blocks whose files have not changed, but who is attached to them has."""
        for label in sorted(changed):
            newest = self.newest(label) if label in self.paths else None
            if newest is not None and newest.block is not None and newest.agents != self.attachments.attached[label]:
                # No edit: undo passes over it, and a stale save that is to be merged still is.
                stale_base = newest.stale_base
                self._draft(newest, newest.block, ("agents",), author, None, _position(newest), stale_base=stale_base)

    def _append(self, revision: Revision) -> None:
        before = self._newest.pop(revision.label, None)
        self._undo.add(self._withdraw, before)
        self.drafted.append(revision)
        self._versions[revision.label] = revision.version
        self._newest[revision.label] = revision
        while len(self._newest) > max(_NEWEST_KEPT, len(self.drafted)):
            del self._newest[next(iter(self._newest))]

    def _withdraw(self, before: Revision | None) -> None:
        """Take the newest draft back; `before` is what was remembered as the newest of its label."""
        label = self.drafted.pop().label
        self._newest.pop(label, None)
        if (
            before is not None and before.seq > self._journal.seq
        ):  # a draft; what is journaled is read again when wanted
            self._newest[label] = before


def _digest(before: Revision | None, block: Block) -> str:
    """A block's digest; of one with the value of its revision before, that is known if the facts are the same, too."""
    if before is not None and before.block is not None and before.digest and before.block.facts == block.facts:
        return before.digest
    return block.digest


def _position(revision: Revision) -> int:
    """The version at which a revision stands: its own, unless it is no edit."""
    return revision.version if revision.position is None else revision.position
