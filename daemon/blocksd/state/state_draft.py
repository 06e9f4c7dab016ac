"""Drafts revisions: what becomes of the blocks in force when files say something else, or requests ask for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from blocksd.model.attachment import NOBODY
from blocksd.model.block import fields_changed
from blocksd.model.label import PROPERTIES_END, clash_key, is_properties, owner
from blocksd.model.properties import changed_properties
from blocksd.model.revision import FILE, OPERATOR, Revision
from blocksd.state.overlay import FORGOTTEN, Overlay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from blocksd.model.attachment import Attachments
    from blocksd.model.block import Block
    from blocksd.model.revision import Kind


@dataclass(slots=True)
class Put:
    """A block is to be as it is here; with a `path`, it comes into being there. The others are those of `StateDraft.put`."""

    block: Block
    position: int | None = None
    path: str | None = None
    form: Mapping[str, str] | None = None


@dataclass(slots=True, eq=False)
class StateDraft(Overlay):
    """An overlay on which changes are drafted: each method adds the revisions that follow from one change."""

    moved: dict[str, frozenset[str]] = field(default_factory=dict)
    """Sets changed by private folders, or by a journal that has lost something, not yet drafted."""
    _come: set[str] = field(default_factory=set)  # labels that came into force, and of which nothing is drafted yet
    _together: dict[str, str] | None = None  # label → by which author, while changes go together
    by: str | None = None  # who the operator is whose changes are drafted here; it is not handed down

    def __post_init__(self) -> None:
        below = self.below
        if below is None:
            self.layers, self.attachments = (self,), self.state.attachments
            self.first_seq = self.state.journal.seq + 1
            self.moved = dict(self.state.moved)
        else:
            self.layers, self.attachments = (self, *below.layers), below.attachments
            self.first_seq = below.first_seq + len(below.revisions)

    def branch(self, *, by: str | None = None) -> StateDraft:
        """Return a draft on top of this one, of changes of the operator who is called so, if that is known."""
        return StateDraft(self.state, self.at, self, by=by)

    @property
    def next_seq(self) -> int:
        return self.first_seq + len(self.revisions)

    # --- what changes ---

    def forget_file(self, path: str) -> None:
        """A file that no block has is not there any more."""
        self.signatures[path] = FORGOTTEN

    def enforce(self, label: str, path: str) -> None:
        """The file at `path` says the label."""
        before = self.path_of(label)
        if before is None:
            self._come.add(label)
            agent = owner(label)
            if agent is not None and not self.attachments.has_folder(agent):
                self.set_folders(self.attachments.folders | {agent})
        elif before == path:
            return
        else:
            self.labels[before] = None
            self.signatures[before] = FORGOTTEN
        self.paths[label] = path
        self.labels[path] = label
        self.taken[clash_key(label)] = label

    def put(
        self,
        block: Block,
        *,
        author: str = FILE,
        request_id: str | None = None,
        position: int | None = None,
        reverts: tuple[int, ...] = (),
        stale_base: int | None = None,
        form: Mapping[str, str] | None = None,
    ) -> bool:
        """Draft a block as it is here; True if that makes a revision. Others may follow, of who is attached.

        `position` is the version that an undo or redo went to; `reverts` are versions whose text is undone by it;
        `stale_base` is the version that a stale save was made of; `form` is as in `Revision`.
        """
        label = block.label
        before = self._before(label)
        known = before.block if before is not None else None
        is_new, is_info = known is None, label.endswith(PROPERTIES_END) and is_properties(label)
        fields = changed_properties(known, block) if is_info else fields_changed(known, block)
        self._come.discard(label)
        if not is_new and not fields:
            return False
        others: dict[str, frozenset[str]] = {}
        if is_new or "agents" in fields:
            others = self._changing_attachments().set_entries(label, block.agents)
            others.pop(label, None)
        self._draft(before, block, fields, author, request_id, position, reverts, stale_base, form=form)
        if others:
            self._others_changed(others, author)
        return True

    def reform(self, newest: Revision, form: Mapping[str, str]) -> bool:
        """Note the form of the file of a block, of which this is the newest revision; True if it has another one now."""
        if self.form_of(newest) == form:
            return False
        self.forms[newest.label] = self.reformed[newest.label] = form
        return True

    def delete(
        self, label: str, *, author: str = FILE, request_id: str | None = None, position: int | None = None
    ) -> None:
        """Draft that a block is gone, and its file with it. `position` is the deletion that an undo or redo went to."""
        before = self.newest(label)
        assert before is not None
        self._release(label)
        others = self._changing_attachments().remove(label)
        self._append(
            Revision(
                seq=self.next_seq,
                label=label,
                version=before.version + 1,
                kind="deleted",
                block=None,
                at=self.at,
                created_at=before.created_at,
                author=author,
                detached=tuple(sorted(before.agents)),
                request_id=request_id,
                position=position,
                origin=before.origin,
            )
        )
        self._others_changed(others, author)

    def rename(
        self,
        block: Block,
        *,
        old: str,
        path: str,
        author: str,
        request_id: str | None = None,
        form: Mapping[str, str] | None = None,
    ) -> None:
        """Draft that a block has another label, and its file another path; its history goes on under it.

        A stale save that is still to be merged still is, if the file was moved: on request it was merged before.
        """
        before, there = self.newest(old), self.newest(block.label)
        assert before is not None
        self._release(old)
        attachments = self._changing_attachments()
        others = attachments.remove(old)
        others |= attachments.set_entries(block.label, block.agents)
        others.pop(block.label, None)
        self.enforce(block.label, path)
        self._come.discard(block.label)
        self.versions[block.label] = max(before.version, there.version if there is not None else 0)
        stale_base = before.stale_base if author == FILE and self.versions[block.label] == before.version else None
        self._draft(
            *(before, block, ("label",), author, request_id, _position(before)),
            stale_base=stale_base,
            kind="renamed",
            renamed_from=old,
            form=form,
        )
        self._others_changed(others, author)

    def set_folders(self, agents: Iterable[str]) -> bool:
        """Set which agents have a private folder; True if that is new. `follow_folders` drafts what follows."""
        agents = set(agents)
        if agents == self.attachments.folders:
            return False
        self.moved = self.moved | self._changing_attachments().set_folders(agents)
        return True

    def take_steps(
        self, steps: Iterable[Put | Callable[[StateDraft], object]], *, author: str, request_id: str
    ) -> None:
        """Draft steps that are one change: who is attached to other blocks by it is drafted once, at its end.

        Else a hundred agents that come at once would be a hundred revisions of each block that is for all of them.
        """
        self._together = {}
        try:
            for step in steps:
                if isinstance(step, Put):
                    if step.path is not None:
                        self.enforce(step.block.label, step.path)
                    self.put(step.block, author=author, request_id=request_id, position=step.position, form=step.form)
                else:
                    step(self)
            changed, self._together = self._together, None
            for label, author in changed.items():
                self._reattach((label,), author)
            self.follow_folders(author)
        finally:
            self._together = None

    def _others_changed(self, changed: Iterable[str], author: str) -> None:
        """Draft who is attached to these blocks, whose files have not changed, now or at the end of what goes together."""
        if self._together is None:
            self._reattach(changed, author)
        else:
            for label in changed:
                self._together.setdefault(label, author)

    def follow_folders(self, author: str = FILE) -> None:
        """Draft what private folders that came or went have changed."""
        if self.moved:
            moved, self.moved = self.moved, {}
            self._reattach(moved, author)

    def _changing_attachments(self) -> Attachments:
        """The attachments, to be changed here and nowhere else."""
        if not self.has_attachments:
            self.attachments, self.has_attachments = self.attachments.branch(), True
        return self.attachments

    def _before(self, label: str) -> Revision | None:
        """The revision in force under a label, if there is one: the block it last had may have been renamed."""
        newest = self.newest(label)
        if newest is not None and label in self._come:
            return replace(newest, block=None, agents=NOBODY)
        return newest

    def _release(self, label: str) -> None:
        path = self.path_of(label)
        assert path is not None
        self.paths[label] = self.labels[path] = self.taken[clash_key(label)] = None
        self.signatures[path] = FORGOTTEN
        if self.origin_of(label) is not None:
            self.origins[label] = None
        self.released[label] = path

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
        form: Mapping[str, str] | None = None,
    ) -> None:
        """Append the revision that makes `block` the newest of its label, with the attachment set of the moment."""
        label = block.label
        is_new = before is None or before.block is None
        had = before.agents if before is not None else NOBODY
        has = self.attachments.attached[label]
        if kind == "renamed":
            assert before is not None
            origin, version = before.origin or before.label, self.version_of(label)
        elif is_new:
            origin, version = self.new_origin(label, before), self.version_of(label)
        else:
            assert before is not None
            origin, version = before.origin or label, before.version
        is_as_before = before is not None and not is_new and kind != "renamed" and form is not None
        is_first = True not in [label in one.forms for one in self.layers]  # as of most
        was = None if before is None else before.form if is_first else self.form_of(before)
        is_reformed = not is_as_before or was != form
        self.forms[label] = form
        # The same object compares element by element, too; and the journal knows a set by its identity.
        if has is not had and has == had:
            has = had
        self._append(
            Revision(
                seq=self.next_seq,
                label=label,
                version=version + 1,
                kind=kind or ("created" if is_new else "updated"),
                block=block,
                at=self.at,
                created_at=self.at if before is None or is_new else before.created_at,
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
                origin=origin if origin != label else None,
                form=form,
                is_reformed=is_reformed,
            )
        )

    def _reattach(self, changed: Iterable[str], author: str) -> None:
        """Draft revisions of blocks whose files have not changed, but who is attached to them has."""
        for label in sorted(changed):
            newest = self.newest(label) if self.path_of(label) is not None else None
            if newest is not None and newest.block is not None and newest.agents != self.attachments.attached[label]:
                # No edit: undo passes over it, and a stale save that is to be merged still is.
                at, base = _position(newest), newest.stale_base
                form = self.form_of(newest)
                self._draft(newest, newest.block, ("agents",), author, None, at, stale_base=base, form=form)

    def _append(self, revision: Revision) -> None:
        is_theirs = revision.author == OPERATOR or revision.request_id is not None
        if self.by is not None and is_theirs:  # a stale save that is merged first is not
            revision = replace(revision, by=self.by)
        self.revisions.append(revision)
        self.versions[revision.label] = revision.version
        self.drafted[revision.label] = revision
        if revision.kind in ("created", "renamed") and revision.origin != self.origin_of(revision.label):
            self.origins[revision.label] = revision.origin


def _digest(before: Revision | None, block: Block) -> str:
    """A block's digest; of one with the value of its revision before, that is known if the facts are the same, too."""
    if before is not None and before.block is not None and before.digest and before.block.facts == block.facts:
        return before.digest
    return block.digest


def _position(revision: Revision) -> int:
    """The version at which a revision stands: its own, unless it is no edit."""
    return revision.version if revision.position is None else revision.position
