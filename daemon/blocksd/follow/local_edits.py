"""Finds local edits, which are never written over, and gives the leader's version back where a person asks for it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

from blocksd.errors import InvalidLabel, NotFound, StateUnusable, Unavailable
from blocksd.files.folder import packed
from blocksd.follow.plan import UNKNOWN, Written
from blocksd.model.label import SUFFIX, is_properties, label_of_path, printable
from blocksd.model.problem import Problem, problem_of
from blocksd.state.stale import UNSEEN_SECONDS
from blocksd.state.sweep import Sweep

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from blocksd.follow.comparison import Found, Outcome
    from blocksd.follow.mirrored import Mirrored
    from blocksd.follow.opening import Copy
    from blocksd.follow.outgoing import Outgoing
    from blocksd.follow.report import Report
    from blocksd.settings.config import Config

_BUSY_SECONDS = 0.1
_HELD_SECONDS = 1.0  # between two looks at deletions that are held back
_NEVER = float("inf")
KEPT = "kept"
"""The directory below the state directory for texts that made way for the leader's."""


class LocalEdits:
    """What differs in the folder from what was written there last."""

    def __init__(self, copy: Copy, report: Report, config: Config, outgoing: Outgoing | None) -> None:
        """`outgoing` takes the edits; None: none is sent to the leader."""
        self._copy = copy
        self._outgoing = outgoing
        self._report = report
        self._grace = config.delete_grace
        self._kept = os.path.join(config.state, KEPT)
        self._due: dict[str, float] = {}  # path → when to look at it
        self._missing: dict[str, float] = {}  # files that were seen to be gone, and since when
        self._gone_at = _NEVER  # when those are judged
        self._is_swept = False
        self._looked_at = 0.0  # by the time of day: what is found next may have been saved several times since
        self._unknown: set[str] = set()  # were there when the folder was adopted

    @property
    def due_at(self) -> float:
        """When the next file is to be looked at, on the monotonic clock."""
        return min(self._gone_at, min(self._due.values(), default=_NEVER))

    def hint(self, path: str) -> None:
        """Look at a file soon."""
        self._due[self._copy.comparer.written_at(path)] = 0.0

    def take_due(self, now: float) -> list[str]:
        """Look at the files whose time has come; return the labels of those that are not as they were written last."""
        found = {path: self._copy.comparer.look(path) for path, at in self._due.items() if at <= now}
        for path in found:
            del self._due[path]
        labels, proven = list[str](), dict[str, Written]()
        # Those that are gone come first: another one may be one of them, moved.
        for path, one in sorted(found.items(), key=lambda item: item[1].digest is not None):
            if one.is_busy:
                self._due[path] = now + _BUSY_SECONDS
            elif one.digest is None:
                labels += self._miss(path, now)
            else:
                self._missing.pop(path, None)
                labels += self._see(path, one, proven)
        if proven:
            self._copy.place.finish(proven)
        if self._copy.place.is_adopted and self._is_swept and not self._unknown & self._due.keys():
            self._copy.place.note(adopted=None)
            self._unknown.clear()
        if self._outgoing is not None and self._gone_at <= now:
            self._give_up_missing(now)
        self._looked_at = time.time()
        return labels

    def _miss(self, path: str, now: float) -> list[str]:
        """Note a file that is gone: an editor may be about to put it back."""
        written = self._copy.place.files.get(path)
        if written is None:
            if self._outgoing is not None:
                self._outgoing.settle(path)
                old = self._outgoing.take_back_rename(path)
                if old is not None:
                    self._missing[old], self._gone_at = now, now + self._grace
            self._missing.pop(path, None)
            self._report.settle(path)
        elif path not in self._missing:
            self._missing[path] = now
            if self._outgoing is None:
                self._due[path] = now + self._grace
            else:
                self._gone_at = now + self._grace
        elif self._outgoing is None:
            del self._missing[path]
            return [written.label]  # it is written again
        return []

    def _give_up_missing(self, now: float) -> None:
        """Have the leader told of files that stayed away, all together: many at once are another thing than one."""
        assert self._outgoing is not None
        paths = [path for path, since in self._missing.items() if now - since >= self._grace]
        if self._outgoing.delete(paths, len(self._missing)):
            for path in paths:
                del self._missing[path]
        is_held = self._outgoing.held is not None
        self._gone_at = now + max(self._grace, _HELD_SECONDS) if self._missing or is_held else _NEVER

    def _see(self, path: str, found: Found, proven: dict[str, Written]) -> list[str]:
        """Look at a file that is there; return its label if it is not as it was written last, or was not until now."""
        written = self._copy.place.files.get(path)
        label = written.label if written is not None else _label_of(path)
        if written is None or found.digest != written.digest:
            self._tell(path, found)
            return [label] if label is not None else []
        if found.signature is not None and written.signature is None:
            proven[path] = written._replace(signature=self._copy.comparer.proof(found))
        was_edited = path in self._report.edits
        if self._outgoing is not None:
            self._outgoing.settle(path)
        self._report.settle(path)
        return [written.label] if was_edited else []  # the leader's may be a newer one

    def take(self, outcome: Outcome, now: float) -> None:
        """Report the local edits among these files, or have them sent."""
        for path, found in outcome.edited.items():
            self._tell(path, found)
        for path in outcome.missing:
            if self._outgoing is not None and path not in self._outgoing.outbox.edits:
                self._miss(path, now)
        for path in outcome.settled:
            self._missing.pop(path, None)
            if self._outgoing is not None:
                self._outgoing.settle(path)
            self._report.settle(path)

    def _tell(self, path: str, found: Found) -> None:
        if found.digest in (None, UNKNOWN):
            is_block = path in self._copy.place.files  # then it is reported with that
            if found.error is not None and not is_block:
                self._report.set(problem_of(path, found.error))
            return
        if self._outgoing is not None:
            first = max(min(found.saved_at, self._looked_at), found.saved_at - UNSEEN_SECONDS)
            is_unknown = path in self._unknown
            old = self._outgoing.edit(path, found._replace(saved_at=first), self._missing, is_unknown=is_unknown)
            if old is not None:
                del self._missing[old]
            return
        is_new = path not in self._copy.place.files
        message, otherwise = (
            ("the file is not from the leader: it is kept here, and not sent", ", or no file if it has none")
            if is_new
            else ("the file was edited here: it is kept, and the leader's version is not written", "")
        )
        command = f"'blocksd follow --revert {printable(path)}'"
        hint = f"to have the leader's version{otherwise}: {command} (the text here is kept aside)"
        self._report.edit(Problem(printable(path), "local_edit", message, hint, warning=True), path)

    # --- sweeps ---

    def sweep(self, below: Collection[str] = ("",)) -> Iterator[None]:
        """Compare all files below these directories with their signatures, a part at a time, and look at those that differ.

        The empty path is the folder.
        """
        copy = self._copy
        files = copy.place.files
        if self._is_swept:
            copy.place.forget_earlier()
        seen, unlisted = set[str](), list[str]()
        for part in chain.from_iterable(Sweep(copy.folder).walk(directory) for directory in below):
            for entry in part:
                path, signature = copy.comparer.written_at(entry.path), entry.signature
                if entry.kind == "left":
                    if not self._is_swept and not copy.copier.needs(entry.path):
                        copy.writer.remove(entry.path)
                elif entry.kind == "unreadable":
                    unlisted.append(f"{entry.path}/" if entry.path else "")
                elif entry.kind != "directory":
                    seen.add(path)
                    known = files.get(path)
                    if known is None and copy.place.is_adopted:
                        self._unknown.add(path)
                    if known is None or signature is None or known.signature != packed(*signature):
                        self.hint(path)
            yield
        self._is_swept = self._is_swept or "" in below
        inside = tuple(f"{directory}/" if directory else "" for directory in below)
        for path in [*files, *self._report.edits]:
            if path not in seen and path.startswith(inside) and not path.startswith(tuple(unlisted)):
                self.hint(path)

    # --- giving way ---

    def revert(self, name: str, mirrored: Mirrored) -> dict[str, Any]:
        """Take the leader's version of a file; the text that was here is kept aside.

        Raises:
            NotFound: there is no such file, here or there.
            BlocksdError: it cannot be done now.
        """
        copy, outgoing = self._copy, self._outgoing
        path = name if name.endswith(SUFFIX) or is_properties(name) else name + SUFFIX
        label = written.label if (written := copy.place.files.get(path)) is not None else _label_of(path)
        if label is None:
            raise NotFound(f"{name!r} is no file of a block", label=name)
        shown, found = mirrored.read([label]), copy.comparer.read(path)
        if found.digest == UNKNOWN:
            raise found.error or Unavailable(f"{printable(path)} is being written: try again", path=path)
        if shown[label] is None and found.digest is None:
            raise NotFound(f"there is no file {printable(path)}, here or at the leader", label=label)
        queued = outgoing.outbox.edits.get(path) if outgoing is not None else None
        if queued is not None and queued.is_sent and queued.refusal is None:
            raise Unavailable(
                f"{printable(path)} is on its way to the leader: try again when it is answered", path=path
            )
        kept = None
        if found.data is not None and (path in self._report.edits or queued is not None):
            kept = self.keep_text(path, found.data)
        if self._missing.pop(path, None) is not None and outgoing is not None:
            self._gone_at = 0.0  # those that are left are judged anew
        if outgoing is not None:
            outgoing.outbox.remove(path)
        if kept is not None or found.digest is None:
            outcome = copy.copier.bring(shown, restores=True, accepted={path: found.digest})
            self.take(outcome, time.monotonic())
            self._report.take(outcome)
            for error in outcome.failed.values():
                raise error
        return {"path": path, "kept": kept, "is_back": found.digest is None}

    def keep_text(self, path: str, data: bytes) -> str:
        """Keep a text in the state directory, on disk; return where."""
        try:
            os.makedirs(self._kept, mode=0o700, exist_ok=True)
            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
            name = f"{stamp}-{path.replace('/', '%')}"[:200]
            where = os.path.join(self._kept, name)
            number = 1
            while os.path.exists(where):
                number += 1
                where = os.path.join(self._kept, f"{name}-{number}")
            handle = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(handle)
            directory = os.open(self._kept, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            message = f"the text cannot be kept in {self._kept}: {error.strerror or error}"
            raise StateUnusable(message, path=self._kept, errno=error.errno) from None
        return where

    def keep_aside(self, aside: str) -> None:
        """Keep a text that a crash has left beside a file, and that may be a save."""
        found = self._copy.comparer.read(aside)
        if found.data is not None:
            where = self.keep_text(aside, found.data)
            self._copy.writer.remove(aside)
            self._report.notice(f"a text that was displaced, and may be a save, is kept as {where}", "warning")


def _label_of(path: str) -> str | None:
    with suppress(InvalidLabel):
        return label_of_path(path)
    return None
