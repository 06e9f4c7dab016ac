"""An overlay on the state: the differences that revisions make which are not journaled yet."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from blocksd.errors import NotFound, VersionDamaged
from blocksd.files.folder import packed, unpacked
from blocksd.model.block import origins_of
from blocksd.model.label import SUFFIX, clash_key, is_properties
from blocksd.model.revision import FILE
from blocksd.state.state import RECENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blocksd.files.folder import Signature
    from blocksd.model.attachment import Attachments
    from blocksd.model.block import Block
    from blocksd.model.revision import Revision
    from blocksd.state.state import State


FORGOTTEN: Signature = (-1, -1, -1, -1)
"""In place of a signature: the file was never read, or is not there any more."""


_TIMED = 10_000  # revisions of which it is remembered when they came into force


@dataclass(slots=True, eq=False)
class Overlay:
    """Differences from the state, which stays as it is: they cost as much as was drafted, and are thrown away for nothing.

    An overlay may lie on top of another one (`below`), which takes over what it holds by `absorb`. In the dictionaries,
    None stands for what is no longer there.
    """

    state: State
    at: str
    """When its revisions happen."""
    below: Overlay | None = None
    revisions: list[Revision] = field(default_factory=list)
    paths: dict[str, str | None] = field(default_factory=dict)
    labels: dict[str, str | None] = field(default_factory=dict)
    taken: dict[str, str | None] = field(default_factory=dict)
    signatures: dict[str, Signature | None] = field(default_factory=dict)
    origins: dict[str, str | None] = field(default_factory=dict)
    """What the ids of blocks are made of; None: of the label, or it is not in force."""
    released: dict[str, str] = field(default_factory=dict)
    """Labels that became free, with the file that had each."""
    versions: dict[str, int] = field(default_factory=dict)
    drafted: dict[str, Revision] = field(default_factory=dict)
    """The newest revision of each label, of those drafted here."""
    forms: dict[str, Mapping[str, str] | None] = field(default_factory=dict)
    """The forms of files that were read or are to be written, by label, as `Revision.form` has them."""
    reformed: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Those of files that say the same as before, in another form."""
    has_attachments: bool = False
    """True if `attachments` are its own, and not those below."""
    layers: tuple[Overlay, ...] = field(init=False, repr=False)
    """This overlay and those below it, the uppermost first."""
    attachments: Attachments = field(init=False, repr=False)
    first_seq: int = field(init=False)
    """The number of the first revision drafted here."""

    def clear(self) -> None:
        """Forget what was drafted, which is below now."""
        self.revisions = []
        self.released = {}
        for part in (self.paths, self.labels, self.taken, self.signatures, self.versions, self.drafted, self.origins):
            part.clear()
        self.forms.clear()
        self.reformed.clear()

    def absorb(self, above: Overlay) -> None:
        """Take over what an overlay on top of this one holds."""
        if above.has_attachments:
            if self.has_attachments:
                self.attachments.merge(above.attachments)
            else:
                self.attachments, self.has_attachments = above.attachments, True
        self.revisions = self.revisions + above.revisions
        for name in (
            "paths",
            "labels",
            "taken",
            "signatures",
            "origins",
            "released",
            "versions",
            "drafted",
            "forms",
            "reformed",
        ):
            getattr(self, name).update(getattr(above, name))

    def apply(self, written: Mapping[str, Signature | None] | None = None) -> None:
        """Put into force what is held here, which was journaled, after what is below; then it holds nothing.

        `written` are the signatures of files that were written for it; None: a signature proves nothing.
        """
        if self.below is not None:
            self.below.absorb(self)
            self.below.apply(written)
            self.clear()
            return
        state = self.state
        if written:
            self.signatures.update(written)
            state.written.update(path for path, signature in written.items() if signature is not None)
        if self.has_attachments:
            state.attachments.merge(self.attachments)
        for changes, ours in ((self.paths, state.paths), (self.taken, state.taken)):
            for key, value in changes.items():
                if value is None:
                    ours.pop(key, None)
                else:
                    ours[key] = value
        for label, path in self.paths.items():
            if is_properties(label):
                (state.properties.add if path is not None else state.properties.discard)(label)
        for path, signature in self.signatures.items():
            if signature == FORGOTTEN:
                state.signatures.pop(path, None)
                state.written.discard(path)
            else:
                state.signatures[path] = packed(*signature) if signature is not None else b""
        for label, origin in self.origins.items():
            was = state.origins.pop(label, None)
            if was is not None and state.labels_of_origins.get(was) == label:
                del state.labels_of_origins[was]
            if origin is not None:
                state.origins[label], state.labels_of_origins[origin] = origin, label
        state.moved = {}
        for revision in self.revisions:
            if revision.label in state.versions:
                state.versions[revision.label] = revision.version
            state.recent.pop(revision.label, None)
            state.recent[revision.label] = revision
            is_on_request = revision.author != FILE or revision.request_id is not None
            if is_on_request:
                state.made_at[revision.seq] = state.clock()
            if is_on_request or revision.renamed_from is not None:
                state.others.pop(revision.label, None)
                state.others.pop(revision.renamed_from or "", None)
            for label in filter(None, (revision.label, revision.renamed_from)):
                state.unmerged.discard(label)
                if label not in state.versions:
                    state.has_deleted = True
            if revision.stale_base is not None:
                state.unmerged.add(revision.label)
        state.reformed.update(self.reformed)
        for label, form in self.forms.items():
            newest = state.recent.get(label)
            if newest is not None and newest.form != form:
                state.recent[label] = replace(newest, form=form)
        while len(state.recent) > RECENT:
            del state.recent[next(iter(state.recent))]
        while len(state.made_at) > _TIMED:
            del state.made_at[next(iter(state.made_at))]
        self.clear()

    def __bool__(self) -> bool:
        """Return True if there is anything to journal or to put into force."""
        return bool(self.revisions or self.paths or self.signatures or self.has_attachments)

    # --- what is in force ---

    def path_of(self, label: str) -> str | None:
        """The file of the block in force under a label."""
        for one in self.layers:
            if label in one.paths:
                return one.paths[label]
        state = self.state  # most files are named as their blocks are
        return state.paths.odd.get(label, label + SUFFIX) if label in state.versions else None

    def label_of(self, path: str) -> str | None:
        """The block in force that a file has."""
        for one in self.layers:
            if path in one.labels:
                return one.labels[path]
        return self.state.labels.get(path)

    def signature_of(self, path: str) -> Signature | None:
        """The signature that a file had when it was read, `FORGOTTEN` if it is not known; None: it proves nothing."""
        for one in self.layers:
            if path in one.signatures:
                return one.signatures[path]
        known = self.state.signatures.get(path)
        return FORGOTTEN if known is None else unpacked(known) if known else None

    def holder(self, label: str) -> str | None:
        """The label in force that no other than this one may stand beside: itself, or one in another spelling."""
        key = clash_key(label)
        if self.path_of(key) is not None:
            return key
        for one in self.layers:
            if key in one.taken:
                return one.taken[key]
        return self.state.taken.get(key)

    def newest(self, label: str) -> Revision | None:
        """The newest revision of a label; None when it never had one.

        Raises:
            JournalDamaged: it is not as it was written.
        """
        for one in self.layers:
            if label in one.drafted:
                return one.drafted[label]
        return self.state.recent.get(label) or self.state.newest(label)

    def known(self, path: str, label: str) -> tuple[str | None, Signature | None, Revision | None]:
        """The file of a block, the signature that the file at `path` had when it was read, and the newest revision."""
        return self.path_of(label), self.signature_of(path), self.newest(label)

    def form_of(self, newest: Revision) -> Mapping[str, str] | None:
        """The form of the file of a block in force, of which this is the newest revision; None: it is unknown."""
        for one in self.layers:
            if newest.label in one.forms:
                return one.forms[newest.label]
        return newest.form

    def version_of(self, label: str) -> int:
        """The version of the newest revision of a label; 0 when none is known."""
        for one in self.layers:
            if label in one.versions:
                return one.versions[label]
        return self.state.versions.get(label) or self.state.version_of(label)

    def in_force_at(self, label: str) -> tuple[str | None, Block | None]:
        """The file of the block in force under a label, and the block."""
        path = self.path_of(label)
        newest = self.newest(label) if path is not None else None
        return path, newest.block if newest is not None else None

    def block(self, label: str) -> Block | None:
        """The block in force under a label."""
        return self.in_force_at(label)[1]

    def origin_of(self, label: str) -> str | None:
        """What the id of the block in force under a label is made of, if it is not the label."""
        for one in self.layers:
            if label in one.origins:
                return one.origins[label]
        return self.state.origins.get(label)

    def new_origin(self, label: str, before: Revision | None) -> str:
        """What the id of a block is made of that comes into force under a label: the same as before, unless another has it."""
        if before is not None and before.origin is not None and not self._has_other(before.origin, label):
            return before.origin
        if not (self.state.origins or any(one.origins for one in self.layers)):
            return label
        return next(origin for origin in origins_of(label) if not self._has_other(origin, label))

    def _has_other(self, origin: str, label: str) -> bool:
        """Return True if the id that is made of an origin is that of another block in force than the one under a label."""
        held = [other for one in self.layers for other, its in one.origins.items() if its == origin]
        held += [origin, self.state.labels_of_origins.get(origin, label)]
        return any(
            other != label and self.path_of(other) is not None and (self.origin_of(other) or other) == origin
            for other in held
        )

    def in_force(self) -> list[str]:
        """All labels of blocks in force."""
        changed = {label: path for one in reversed(self.layers) for label, path in one.paths.items()}
        new = [label for label, path in changed.items() if path is not None]
        return new + [label for label in self.state.paths if label not in changed]

    # --- what was ---

    def _drafted(self) -> Iterator[Revision]:
        """All that is drafted here and below, the newest first."""
        for one in self.layers:
            yield from reversed(one.revisions)

    def version(self, label: str, version: int) -> Revision | None:
        """A version of a block; None when it is not kept.

        Raises:
            VersionDamaged: it is not as it was written.
        """
        for revision in self._drafted():
            if revision.label == label:
                if revision.version == version:
                    return revision
                label = revision.renamed_from or label
        return self.state.version(label, version)

    def kept_version(self, label: str, version: int) -> Revision:
        """The same. Raise NotFound if it is not kept."""
        found = self.version(label, version)
        if found is None:
            raise NotFound(f"version {version} of {label!r} is not kept", label=label, version=version)
        return found

    def undamaged(self, label: str, version: int) -> Revision | None:
        """The same; None also when it is damaged, for a caller that can do without it."""
        try:
            return self.version(label, version)
        except VersionDamaged:
            return None

    def _journaled_label(self, label: str) -> str:
        """The label that the versions of a block have in the journal: it may be renamed here."""
        for revision in self._drafted():
            if revision.label == label:
                label = revision.renamed_from or label
        return label

    def by_others(self, label: str) -> list[int]:
        """The last few versions of a block in the journal that were not saved in its file, the newest first."""
        return self.state.by_others(self._journaled_label(label))

    def has_been(self, block: Block) -> bool:
        """Return True if one of the last versions of a block was like this, as far as they are not damaged."""
        versions = self.state.journal.versions_like(self._journaled_label(block.label), block)
        older = (self.undamaged(block.label, version) for version in versions)
        return any(one is not None and one.block is not None and one.block.named(block.label) == block for one in older)

    def reverted(self, label: str) -> tuple[int, ...]:
        """The versions whose text the newest save of a block took away that took any; none if none did of late."""
        for revision in self._drafted():
            if revision.label == label:
                if revision.reverts:
                    return revision.reverts
                label = revision.renamed_from or label
        return self.state.journal.reverted(label)

    def revision(self, seq: int) -> Revision | None:
        """The revision of this number; None when it is not kept."""
        if seq <= self.state.journal.seq:
            return self.state.journal.revision(seq)
        return next((revision for revision in self._drafted() if revision.seq == seq), None)

    def positions(self, label: str) -> dict[int, int | None]:
        """The versions of a block that are kept: where those that undo or redo made stand."""
        drafted: dict[int, int | None] = {}
        for revision in self._drafted():
            if revision.renamed_from == label:  # the block that had the label took its versions along
                return drafted
            if revision.label == label:
                drafted[revision.version] = revision.position
                label = revision.renamed_from or label
        return self.state.journal.positions(label) | drafted
