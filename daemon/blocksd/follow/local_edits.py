"""Finds local edits, which are never written over, and gives the leader's version back where a person asks for it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from blocksd.errors import InvalidLabel, NotFound, StateUnusable, Unavailable
from blocksd.follow.plan import UNKNOWN
from blocksd.model.label import SUFFIX, is_properties, label_of_path, printable
from blocksd.model.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocksd.follow.comparison import Found, Outcome
    from blocksd.follow.mirrored import Mirrored
    from blocksd.follow.opening import Copy
    from blocksd.follow.report import Report
    from blocksd.settings.config import Config

_BUSY_SECONDS = 0.1
_NEVER = float("inf")
KEPT = "kept"
"""The directory below the state directory for texts that made way for the leader's."""


class LocalEdits:
    """What differs in the folder from what was written there last."""

    def __init__(self, copy: Copy, report: Report, config: Config) -> None:
        self._copy = copy
        self._report = report
        self._grace = config.delete_grace
        self._kept = os.path.join(config.state, KEPT)
        self._due: dict[str, float] = {}  # path → when to look at it
        self._missing: set[str] = set()  # files that were seen to be gone, and are looked at once more
        self._is_swept = False

    @property
    def due_at(self) -> float:
        """When the next file is to be looked at, on the monotonic clock."""
        return min(self._due.values(), default=_NEVER)

    def hint(self, path: str) -> None:
        """Look at a file soon."""
        self._due[path] = 0.0

    def take_due(self, now: float) -> list[str]:
        """Look at the files whose time has come; return the labels of those that are not as they were written last."""
        place, labels = self._copy.place, list[str]()
        proven = {}
        for path in [path for path, at in self._due.items() if at <= now]:
            del self._due[path]
            written, found = place.files.get(path), self._copy.comparer.look(path)
            if found.is_busy:
                self._due[path] = now + _BUSY_SECONDS
                continue
            label = written.label if written is not None else _label_of(path)
            if found.digest is not None:
                self._missing.discard(path)
            if written is not None and found.digest == written.digest:
                if found.signature is not None and written.signature is None:
                    proven[path] = written._replace(signature=self._copy.comparer.proof(found))
                if path in self._report.edits:
                    labels.append(written.label)  # the leader's may be a newer one
                self._report.settle(path)
            elif found.digest is None and written is None:
                self._report.settle(path)
            elif found.digest is None and path not in self._missing:
                self._missing.add(path)  # an editor may be about to put it back
                self._due[path] = now + self._grace
            elif label is not None:
                self._missing.discard(path)
                self._tell(path, found)
                labels.append(label)
        if proven:
            place.finish(proven)
        return labels

    def take(self, outcome: Outcome) -> None:
        """Report the local edits among these files."""
        for path, found in outcome.edited.items():
            self._tell(path, found)
        for path in outcome.settled:
            self._report.settle(path)

    def _tell(self, path: str, found: Found) -> None:
        if found.digest in (None, UNKNOWN):
            return
        is_new = path not in self._copy.place.files
        what = "is here, and not among the leader's" if is_new else "was edited here"
        message = f"the file {what}: it is kept, and the leader's version is not written"
        hint = (
            f"to have the leader's version: 'blocksd follow --revert {printable(path)}' (the text here is kept aside)"
        )
        self._report.edit(Problem(printable(path), "local_edit", message, hint, warning=True), path)

    # --- sweeps ---

    def sweep(self) -> Iterator[None]:
        """Compare all files with their signatures, a part at a time, and look at those that differ."""
        copy = self._copy
        files = copy.place.files
        known = {path: written.signature for path, written in files.items() if written.signature is not None}
        same, seen, unlisted = list[str](), set[str](), list[str]()
        for part in copy.folder.sweep(known=known, same=same):
            for entry in part:
                if entry.kind == "left":
                    if not self._is_swept and not copy.copier.needs(entry.path):
                        copy.writer.remove(entry.path)
                elif entry.kind == "unreadable":
                    unlisted.append(f"{entry.path}/" if entry.path else "")
                elif entry.kind != "directory":
                    seen.add(entry.path)
                    self.hint(entry.path)
            yield
        self._is_swept = True
        seen.update(same)
        for path in [*files, *self._report.edits]:
            if path not in seen and not path.startswith(tuple(unlisted)):
                self.hint(path)

    # --- giving way ---

    def revert(self, name: str, mirrored: Mirrored) -> dict[str, Any]:
        """Take the leader's version of a file; the text that was here is kept aside.

        Raises:
            NotFound: there is no such file, here or there.
            BlocksdError: it cannot be done now.
        """
        copy = self._copy
        path = name if name.endswith(SUFFIX) or is_properties(name) else name + SUFFIX
        label = written.label if (written := copy.place.files.get(path)) is not None else _label_of(path)
        if label is None:
            raise NotFound(f"{name!r} is no file of a block", label=name)
        shown, found = mirrored.read([label]), copy.comparer.read(path)
        if found.digest == UNKNOWN:
            raise found.error or Unavailable(f"{printable(path)} is being written: try again", path=path)
        if shown[label] is None and found.digest is None:
            raise NotFound(f"there is no file {printable(path)}, here or at the leader", label=label)
        kept = None
        if path in self._report.edits and found.data is not None:
            kept = self.keep_text(path, found.data)
        if kept is not None or found.digest is None:
            outcome = copy.copier.bring(shown, restores=True, accepted={path: found.digest})
            self.take(outcome)
            self._report.take(outcome)
            for error in outcome.failed.values():
                raise error
        return {"path": path, "kept": kept}

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
