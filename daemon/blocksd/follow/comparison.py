"""Compares files of the copy with what the mirror shows, and returns what is to be written and removed."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from blocksd.errors import BlocksdError, Damaged, InvalidFile, LabelConflict
from blocksd.files.file_edit import FileEdit
from blocksd.files.folder import Absent, Busy, Refused, Text, packed
from blocksd.files.staging import digest
from blocksd.follow.plan import UNKNOWN, Wanted, Written, decide
from blocksd.mirror.file_form import USUAL_MODE
from blocksd.model.label import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blocksd.files.folder import Folder, Signature
    from blocksd.follow.mirrored import Shown
    from blocksd.follow.names import NameRules
    from blocksd.follow.place import Place


class Found(NamedTuple):
    """A file on disk: its digest (None: there is none; UNKNOWN: it cannot be read), and its text."""

    digest: str | None
    data: bytes | None = None
    signature: Signature | None = None
    error: BlocksdError | None = None
    is_busy: bool = False
    saved_at: float = 0.0
    """When it was saved, or put where it is, in seconds since 1970; of an edit, when it may have been saved first."""


class Task(NamedTuple):
    """A file that is to be written, or, if nothing is wanted, removed."""

    path: str
    label: str
    wanted: Wanted | None
    edit: FileEdit
    mode: int | None = None
    """The permission bits that it is to have; None: those of the file before, or of a new one."""


@dataclass(slots=True)
class Outcome:
    """What became of files, or is to become of them."""

    tasks: list[Task] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    """Paths of files that are as the leader's."""
    edited: dict[str, Found] = field(default_factory=dict)
    """Files with a local edit: they stay as they are."""
    missing: list[str] = field(default_factory=list)
    """Files that were removed here."""
    failed: dict[str, BlocksdError] = field(default_factory=dict)
    """Subjects (paths, or labels) of what could not be done for now."""
    is_busy: bool = False
    """True if another process is writing one of the files."""
    notes: dict[str, Written | None] = field(default_factory=dict)
    """What is to be noted of files; None: there is no such file."""
    modes: dict[str, int] = field(default_factory=dict)
    """Modes that files are to be given, whose text stays."""
    due: set[str] = field(default_factory=set)
    """Labels of blocks that are to be looked at again."""
    done: set[str] = field(default_factory=set)
    """Labels of blocks whose files are as the leader's."""

    def fail(self, subject: str, label: str, error: BlocksdError) -> None:
        """Note that something could not be done for now."""
        self.failed[subject] = error
        self.due.add(label)


class Comparer:
    """Knows the folder, and what was written there last."""

    def __init__(self, folder: Folder, place: Place, rules: NameRules) -> None:
        self._folder = folder
        self._place = place
        self._rules = rules

    def written_at(self, path: str) -> str:
        """Return the path under which a file was written that a listing shows at this one, in another spelling maybe."""
        if self._rules.are_exact or path in self._place.files:
            return path
        key = self._rules.key(path)
        return next((known for known in self._place.files if self._rules.key(known) == key), path)

    def look(self, path: str) -> Found:
        """Return what is on disk at a path, without its text where the signature proves it."""
        written = self._place.files.get(path)
        if written is not None and written.signature is not None:
            signature = self._folder.signature(path)
            if signature is not None and packed(*signature) == written.signature:
                return Found(written.digest, None, signature)
        return self.read(path)

    def read(self, path: str) -> Found:
        """Return what is on disk at a path, with its text."""
        reading = self._folder.read(path, closed=False)
        if isinstance(reading, Text) and reading.way:
            return Found(UNKNOWN, error=_linked("it", "file"))
        if isinstance(reading, Text):
            return Found(digest(reading.data), reading.data, reading.signature, saved_at=reading.saved_at)
        if isinstance(reading, Absent):
            return (
                Found(UNKNOWN, error=_linked("its directory", "directory"))
                if self._is_below_link(path)
                else Found(None)
            )
        if isinstance(reading, Busy):
            return Found(UNKNOWN, is_busy=True)
        return Found(UNKNOWN, error=reading.error if isinstance(reading, Refused) else None)

    def _is_below_link(self, path: str) -> bool:
        """Return True if a directory on the way is a symlink: what is behind it is not gone."""
        try:
            self._folder.directory.stat(path)
        except OSError as error:
            return error.errno == errno.ELOOP
        return False

    def compare(self, shown: Mapping[str, Shown], *, restores: bool, accepted: Mapping[str, str | None]) -> Outcome:
        """Compare the files of these blocks. The tasks of the outcome are still to be done.

        `restores`: a file that was removed here is written again. `accepted` are the digests of local texts, by path, that
        may be written over.
        """
        outcome = Outcome()
        targets = self._targets(shown, accepted, outcome)
        holders = {} if self._rules.are_exact else {self._rules.key(path): path for path in self._place.files}
        for path, (label, wanted) in targets.items():
            if wanted is not None and not self._rules.are_exact:
                holder = holders.setdefault(self._rules.key(path), path)
                if holder != path:
                    gone = targets.get(holder, (label, wanted))[1] is None  # then its turn comes when the name is free
                    outcome.due.add(label) if gone else outcome.fail(path, label, _name_taken(path, holder))
                    continue
            self._compare(path, label, wanted, outcome, restores=restores, accepted=accepted)
        return outcome

    def proof(self, found: Found) -> bytes | None:
        """Return the signature that proves the text of a file, as it is noted."""
        return packed(*found.signature) if found.signature is not None else None

    def _targets(
        self, shown: Mapping[str, Shown], accepted: Iterable[str], outcome: Outcome
    ) -> dict[str, tuple[str, Wanted | None]]:
        """Return what is wanted at each path, with its label; at those that are `accepted`, nothing if no block is there."""
        label = next(iter(shown), "")
        targets: dict[str, tuple[str, Wanted | None]] = dict.fromkeys(accepted, (label, None))
        for label, one in shown.items():
            if isinstance(one, Damaged):
                outcome.fail(label, label, one)
                continue
            before = self._place.paths.get(label)
            if before is not None and (one is None or one.path != before):
                targets.setdefault(before, (label, None))
            if one is not None:
                targets[one.path] = (label, one)
            elif before is None:
                outcome.done.add(label)
        return targets

    def _compare(
        self,
        path: str,
        label: str,
        wanted: Wanted | None,
        outcome: Outcome,
        *,
        restores: bool,
        accepted: Mapping[str, str | None],
    ) -> None:
        if path in self._place.awaited:  # what was written last is not what this file was made of, until it is answered
            outcome.due.add(label)
            return
        written, found = self._place.files.get(path), self.look(path)
        data = wanted.data if wanted is not None else None
        new = digest(data)
        step = decide(new, accepted.get(path, written.digest if written is not None else None), found.digest)
        if step in ("nothing", "note", "forget"):
            outcome.done.add(label)
            outcome.settled.append(path)
            self._settle(path, wanted, written, found, outcome)
            return
        if step in ("write", "remove") or (step == "missing" and restores):
            seen = found
            if found.digest is not None and found.data is None:
                found = self.read(path)  # for its text, which is compared once more when it is displaced
            if found.digest == seen.digest:
                mode = _mode_change(wanted, written)
                edit = FileEdit(path, found.data, data, path, found.signature)
                outcome.tasks.append(Task(path, label, wanted, edit, mode))
                return
            step = "keep"
            found = found._replace(is_busy=True)
        outcome.due.add(label)
        if wanted is not None and written is not None and not written.version and new == written.digest:
            outcome.notes[path] = written._replace(version=wanted.version, form=wanted.form)  # the edit was made of it
        if step == "missing":
            outcome.missing.append(path)
        elif found.error is not None:
            outcome.failed[path] = found.error
        elif step == "keep" and not found.is_busy:
            outcome.edited[path] = found
        else:
            outcome.is_busy = True

    def _settle(
        self, path: str, wanted: Wanted | None, written: Written | None, found: Found, outcome: Outcome
    ) -> None:
        """Note a file that is as it is wanted, if that is not known yet."""
        if wanted is None:
            if written is not None:
                outcome.notes[path] = None
            return
        mode = _mode_change(wanted, written)
        if mode is not None:
            outcome.modes[path] = mode
        signature = self.proof(found) if mode is None else None
        new = Written(wanted.label, wanted.version, wanted.form, str(found.digest), wanted.mode, signature)
        if written is None or new != written._replace(earlier=()):
            outcome.notes[path] = new


def _mode_change(wanted: Wanted | None, written: Written | None) -> int | None:
    """Return the mode that a file is to be given; None: it stays, or is that of a new file here."""
    if wanted is None or wanted.mode == (written.mode if written is not None else USUAL_MODE):
        return None
    if wanted.mode != USUAL_MODE:
        return wanted.mode
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _linked(what: str, kind: str) -> InvalidFile:
    return InvalidFile(
        f"{what} is a symlink: nothing is sent or written through it", hint=f"put the {kind} itself here"
    )


def _name_taken(path: str, holder: str) -> LabelConflict:
    message = f"the file system takes {printable(path)} and {printable(holder)} for one file: only {printable(holder)} is written"
    return LabelConflict(message, other=holder, hint="rename one of the two blocks on the leader")
