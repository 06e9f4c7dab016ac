"""Local edits on their way to the leader: what is to be sent, and what follows from its answers."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blocksd.errors import (
    AlreadyExists,
    BlocksdError,
    InvalidLabel,
    Misconfigured,
    NotFound,
    Unavailable,
    VersionConflict,
)
from blocksd.files.document import Parser
from blocksd.files.folder import unpacked
from blocksd.files.staging import digest
from blocksd.follow.marker import foreign_directory, not_sent
from blocksd.follow.outbox import Outbox, Unsent, new_id
from blocksd.follow.plan import UNKNOWN_VERSION, Wanted, Written, removes_too_much
from blocksd.mirror.file_form import USUAL_MODE
from blocksd.model.label import is_properties, label_of_path, printable
from blocksd.model.problem import Problem, count, problem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from blocksd.files.folder import Signature
    from blocksd.follow.comparison import Found
    from blocksd.follow.mirrored import Shown
    from blocksd.follow.opening import Copy
    from blocksd.follow.report import Report
    from blocksd.follow.sender import Answered, Sender

LOCAL_DELETIONS = "<local deletions>"
"""The subject of the problem that the deletion of many files here is held back."""

UNSENT = "<unsent>"
"""The subject of the problem that the leader takes no edits for now."""

_LONGEST_PAUSE = 30.0
_NEVER = float("inf")


class Outgoing:
    """Turns local edits into requests, and answers into what is known of the files.

    Invariants:
      1. an edit is on disk in the outbox before it is sent, and stays there until it is answered;
      2. of one file one edit is under way: what is saved meanwhile is sent when that is answered;
      3. what the leader has answered may be written over, for it is in the leader's history.
    """

    def __init__(self, copy: Copy, report: Report, sender: Sender) -> None:
        self._copy = copy
        self._place = copy.place
        self._report = report
        self._sender = sender
        self.outbox = Outbox(copy.place)
        self._under_way: str | None = None  # the id of a request
        self._retry_at, self._failures = 0.0, 0
        self.held: int | None = None
        """How many deletions are held back."""
        self._accepts_deletions = False
        self._taken: dict[str, tuple[int, int]] = {}  # time and inode of the files whose texts are edits
        report.unsent = self.outbox
        for edit in self.outbox.edits.values():
            self._tell(edit)

    # --- edits ---

    def edit(self, path: str, found: Found, missing: Collection[str], *, is_unknown: bool = False) -> str | None:
        """Take a file that was saved here; return the path that it had before, if it is one of the `missing` that was moved.

        `is_unknown`: it may be an older version of the leader's.
        """
        queued, written = self.outbox.edits.get(path), self._place.files.get(path)
        if queued is not None and (
            (queued.digest == found.digest and not self._is_saved_again(queued, found))
            or (queued.refusal is None and (queued.is_sent or queued.op == "rename"))  # that is seen to when it is sent
        ):
            return None
        if found.data is None:
            found = self._copy.comparer.read(path)._replace(saved_at=found.saved_at)
            if found.data is None:
                return None
        if written is None and not is_properties(path) and (old := self._moved_from(found, missing)) is not None:
            before = self._place.files[old]
            self._put(Unsent(old, new_id(), "rename", before.label, before.version, before.digest, to=path))
            return old
        try:
            label = written.label if written is not None else label_of_path(path)
        except InvalidLabel as error:
            self._report.set(replace(problem_of(path, error), hint="rename it"))
            return None
        version, base = (written.version, written.digest) if written is not None else (0, None)
        if is_unknown and written is None:
            version = UNKNOWN_VERSION
        oldest = written.oldest(found.saved_at, self._place.window) if written is not None else 0
        if queued is not None and queued.op == "save" and queued.version == version:  # this text was made of that one
            oldest = min(oldest, queued.oldest)
        edit = Unsent(path, new_id(), "save", label, version, base, found.digest, found.data, oldest=oldest)
        if found.signature is not None:
            self._taken[path] = _save_of(found.signature)
        self._put(edit)
        return None

    def _is_saved_again(self, queued: Unsent, found: Found) -> bool:
        """Return True if a text that the leader has refused was saved once more, as it is: a person asks to send it again."""
        if queued.refusal is None or found.signature is None:
            return False
        now = _save_of(found.signature)
        return self._taken.setdefault(queued.path, now) != now

    def _moved_from(self, found: Found, missing: Collection[str]) -> str | None:
        """Return the missing file that this one was: it has the inode and size of that, or alone its text."""
        files, edits = self._place.files, self.outbox.edits
        same = [
            path
            for path in missing
            if path in files and files[path].digest == found.digest and path not in edits and not is_properties(path)
        ]
        for path in same:
            signature = self._place.files[path].signature
            if signature is not None and found.signature is not None and unpacked(signature)[3] == found.signature[3]:
                return path
        return same[0] if len(same) == 1 else None

    def take_back_rename(self, path: str) -> str | None:
        """Take back a rename that is not under way, as its new file is gone; return the path of the file that is missing then."""
        old = self.outbox.targets.get(path)
        if old is None or (self.outbox.edits[old].is_sent and self.outbox.edits[old].refusal is None):
            return None
        self.outbox.remove(old)
        self._report.settle(old)
        return old

    def settle(self, path: str) -> None:
        """A file is as it was written last: an edit that nobody has seen is none any more."""
        queued = self.outbox.edits.get(path)
        if queued is not None and (queued.refusal is not None or (not queued.is_sent and queued.op != "rename")):
            self.outbox.remove(path)

    def delete(self, paths: Collection[str], missing: int) -> bool:
        """Take files that were removed here; return False if that is held back, since too many of all files are `missing`.

        Then it is held back until none is missing, or a person says that it is meant.
        """
        total = len(self._place.files)
        is_too_much = self.held is not None or missing >= total or removes_too_much(self._place.files, missing)
        if missing and is_too_much and not self._accepts_deletions:
            self.held = missing
            message = f"{count(missing, 'file')} of {total} are gone here: the leader is not told"
            hint = "put them back, or have 'blocksd follow --revert PATH' write them; if they are to be deleted everywhere: "
            self._report.set(
                Problem(LOCAL_DELETIONS, "halted", message, f"{hint}'blocksd resume --accept-deletions' here")
            )
            return False
        self._report.clear(LOCAL_DELETIONS)
        self._accepts_deletions, self.held = False, None
        for path in paths:
            written, queued = self._place.files.get(path), self.outbox.edits.get(path)
            if queued is not None and (queued.op != "save" or (queued.is_sent and queued.refusal is None)):
                continue
            if written is None:
                self.outbox.remove(path)
            else:
                self._put(Unsent(path, new_id(), "delete", written.label, written.version, written.digest))
        return True

    def accept_deletions(self) -> int | None:
        """Let the deletions that are held back be sent; return how many they are."""
        self._accepts_deletions = self.held is not None
        return self.held

    def _put(self, edit: Unsent) -> None:
        self.outbox.put(edit)
        self._report.settle(edit.path)

    def _tell(self, edit: Unsent) -> None:
        if edit.refusal is not None:
            code, message, hint = edit.refusal
            hint = f"{hint} " if hint.endswith(",") else f"{hint}; " if hint else ""
            hint += "" if code == AlreadyExists.code else "save it again, or "
            hint += f"have the leader's version: 'blocksd follow --revert {printable(edit.path)}'"
            self._report.edit(Problem(printable(edit.path), edit.refusal.code, message, hint), edit.path)

    # --- sending ---

    @property
    def due_at(self) -> float:
        """When something is to be sent."""
        if self.is_asking or self.outbox.next() is None:
            return _NEVER
        return self._retry_at

    @property
    def is_asking(self) -> bool:
        """True while the leader's answer is waited for."""
        return self._under_way is not None

    def retry_by(self, at: float) -> None:
        """Send what the leader has not taken no later than this."""
        self._retry_at = min(self._retry_at, at)

    def go_on(self, now: float, read: Callable[[Sequence[str]], Mapping[str, Shown]]) -> list[str]:
        """Send the next edit, if none is under way; return the paths of edits that are none any more.

        `read` reads from the mirror. Raise what it raises: then nothing is sent.
        """
        if self.is_asking or now < self._retry_at:
            return []
        edit = self.outbox.next()
        if edit is None:
            return []
        if edit.op != "save" and not edit.is_sent and self._copy.comparer.look(edit.path).digest is not None:
            self.outbox.remove(edit.path)  # it is back
            return edit.paths
        edit = self._as_counted_now(edit)
        if edit.op == "save" and edit.base is None and not edit.is_sent:
            written = self._place.files.get(edit.path)
            if written is not None:  # it was moved here before it was edited, and the leader has been told that since
                self.outbox.put(edit._replace(version=written.version, base=written.digest, oldest=written.version))
                return self.go_on(now, read)
            if not self._may_be_sent(edit, read([edit.label])[edit.label]):
                return edit.paths
        self._under_way = edit.id
        self._sender.send(self.outbox.mark_sent(edit.path))
        return []

    def _as_counted_now(self, edit: Unsent) -> Unsent:
        """Return an edit with the version that its text has at the leader that is followed now; 0: that is not known."""
        written = self._place.files.get(edit.path)
        if edit.is_sent or edit.op == "rename" or written is None or written.digest != edit.base:
            return edit
        if written.version != edit.version:
            edit = edit._replace(version=written.version, oldest=written.version)
            self.outbox.put(edit)
        return edit

    def _may_be_sent(self, edit: Unsent, there: Shown) -> bool:
        """Return True if a new file is to be sent. It is kept if the leader has another, or may have removed it.

        Of which of the leader's versions it was made, nobody knows.
        """
        if isinstance(there, Wanted) and digest(there.data) == edit.digest:
            self.outbox.remove(edit.path)
        elif there is not None:
            message = "the leader has another file of this name, and this one was not made of it"
            self._refuse(edit, AlreadyExists(message, label=edit.label, hint="keep what you need of it elsewhere"))
        elif (directory := foreign_directory(self._copy.root, edit.path, self._copy.leader_folder)) is not None:
            self._refuse(edit, not_sent(edit.path, directory))
        elif edit.version == UNKNOWN_VERSION:
            message = "the leader has no such file, and may have removed it: it is kept here, and not sent"
            self._refuse(edit, NotFound(message, label=edit.label, hint="remove it, or, to send it as a new one,"))
        else:
            return True
        return False

    def _refuse(self, edit: Unsent, error: BlocksdError) -> None:
        self.outbox.refuse(edit, error)
        self._tell(self.outbox.edits[edit.path])

    def take(self, answered: Answered) -> tuple[list[str], list[str]]:
        """Take an answer; return the labels to be read again, and the paths to be looked at again."""
        edit, error = answered.edit, answered.error
        self._under_way = None
        if self.outbox.edits.get(edit.path, edit).id != edit.id:
            return [], []
        if isinstance(error, (Unavailable, Misconfigured)):
            self._failures = min(self._failures + 1, 10)
            self._retry_at = time.monotonic() + min(0.05 * 2**self._failures, _LONGEST_PAUSE)
            hint = (
                str(error.facts.get("hint", ""))
                or "they are sent again by themselves; see that 'blocksd run' runs there"
            )
            message = f"local edits wait for the leader: {error.message}"
            self._report.set(Problem(UNSENT, error.code, message, hint, warning=isinstance(error, Unavailable)))
            return [], []
        self._failures, self._retry_at = 0, 0.0
        self._report.clear(UNSENT)
        if error is None:
            return self._accepted(edit, answered.reply or {})
        return self._refused(edit, error)

    def _accepted(self, edit: Unsent, reply: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """Note that the leader has an edit: from now on its text may be written over."""
        label, version = str(reply.get("to") or reply.get("label") or edit.label), reply.get("version")
        written = self._place.files.get(edit.path)
        mode = written.mode if written is not None else USUAL_MODE
        number = version if isinstance(version, int) else edit.version
        paths = [edit.path]
        if edit.op == "save":
            number = _version_of(edit, reply, number)
            notes: dict[str, Written | None] = {edit.path: Written(label, number, "", str(edit.digest), mode)}
        else:
            notes = {edit.path: None}
            if edit.to is not None:
                notes[edit.to] = Written(label_of_path(edit.to), number, "", str(edit.base), mode)
                paths.append(edit.to)
        self.outbox.finish(edit.path, notes, [edit.label, label], are_saves=True)
        self._report.settle(edit.path)
        what = {"save": "sent", "delete": "sent the deletion of", "rename": "sent the new name of"}[edit.op]
        self._report.notice(f"{what} {printable(edit.path)}{f' v{number}' if edit.op == 'save' else ''}")
        return [edit.label, label], paths

    def _refused(self, edit: Unsent, error: BlocksdError) -> tuple[list[str], list[str]]:
        there = error.facts.get("version")
        if edit.op == "rename" and isinstance(error, VersionConflict) and isinstance(there, int):
            self.outbox.put(edit._replace(id=new_id(), version=there, is_sent=False))
            return [], []
        if edit.op != "save" and isinstance(error, (VersionConflict, NotFound)):
            # The leader's text has changed, or is gone: what was removed here is written again, if it is there.
            self.outbox.finish(edit.path, {edit.path: None}, [edit.label], are_saves=False)
            return [edit.label], edit.paths
        self._refuse(edit, error)
        return [edit.label], [edit.path]


def _save_of(signature: Signature) -> tuple[int, int]:
    """Return the time and the inode of a file: after another save one of them is another."""
    return signature[0], signature[3]


def _version_of(edit: Unsent, reply: Mapping[str, Any], newest: int) -> int:
    """Return the version that has the text of a save, of which the next one will be made.

    Where the leader has merged it, and does not say which version it is, that is the one before both: to count the merged one
    would take the other host's text for removed.
    """
    saved = reply.get("saved")
    if isinstance(saved, int) or not edit.version:
        return saved if isinstance(saved, int) else newest
    try:
        value = Parser().parse(edit.text or b"", edit.label)[0].value
    except BlocksdError:
        return edit.version
    return newest if value == (reply.get("block") or {}).get("value") else edit.version
