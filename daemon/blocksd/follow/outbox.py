"""The outbox: local edits that the leader has not answered yet, kept on disk until it has."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from blocksd.errors import BlocksdError
    from blocksd.follow.place import Place
    from blocksd.follow.plan import Written

Op = Literal["save", "delete", "rename"]


class Refusal(NamedTuple):
    """Why the leader refuses an edit, and what a person can do."""

    code: str
    message: str
    hint: str


class Unsent(NamedTuple):
    """An edit of the file at `path`: of the block `label`, made of its `version` (0: it is a new block;
    UNKNOWN_VERSION: it may be an older one of the leader's).

    `base` is the digest of the text that it was made of, `digest` and `text` are those of the new one, `to` the new path of a
    renamed file, `oldest` the oldest version that the editor may have read. `is_sent`: the leader may have it; the same `id` keeps it from being done twice.
    """

    path: str
    id: str
    op: Op
    label: str
    version: int
    base: str | None = None
    digest: str | None = None
    text: bytes | None = None
    to: str | None = None
    is_sent: bool = False
    refusal: Refusal | None = None
    oldest: int = 0

    @property
    def paths(self) -> list[str]:
        """The paths that it is about."""
        return [self.path] if self.to is None else [self.path, self.to]


def new_id() -> str:
    """Return an id for a request."""
    return str(uuid.uuid4())


class Outbox:
    """The edits by path, one for each file. What is put here is on disk when the call returns.

    Every method that changes it raises StateUnusable when the state directory cannot be written for now.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.edits: dict[str, Unsent] = {}
        self.targets: dict[str, str] = {}
        """The new paths of renamed files, and the paths that they have at the leader."""
        for row in place.execute("SELECT * FROM unsent"):
            edit = Unsent(*row)
            try:
                why = Refusal(*json.loads(row[10])) if row[10] is not None else None
            except (ValueError, TypeError) as error:
                raise place.damaged(error) from None
            self._keep(edit._replace(is_sent=bool(edit.is_sent), refusal=why))

    def put(self, edit: Unsent) -> None:
        """Add an edit, in place of the one of the same file."""
        refusal = json.dumps(edit.refusal) if edit.refusal is not None else None
        with self._place.transaction():
            row = (*edit[:-2], refusal, edit.oldest)
            self._place.execute("INSERT OR REPLACE INTO unsent VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._keep(edit)

    def remove(self, path: str) -> None:
        """Remove the edit of a file, if there is one: it was answered, or is none any more."""
        if path in self.edits:
            with self._place.transaction():
                self._place.execute("DELETE FROM unsent WHERE path = ?", (path,))
            self._forget(path)

    def finish(self, path: str, files: Mapping[str, Written | None], due: Collection[str], *, are_saves: bool) -> None:
        """Remove the edit of a file together with a note of what became of files, as `Place.finish` does it.

        Else a crash in between would have the answer of the same edit noted once more, when the files have newer texts.
        """
        self._place.finish(files, due=due, answered=(path,), are_saves=are_saves)
        self._forget(path)

    def _keep(self, edit: Unsent) -> None:
        before = self.edits.get(edit.path, edit)
        if before.to is not None:
            self.targets.pop(before.to, None)
        self.edits[edit.path] = edit  # in the place of the one before: the order stays
        if edit.to is not None:
            self.targets[edit.to] = edit.path
        self._await(*before.paths, *edit.paths)

    def _forget(self, path: str) -> None:
        edit = self.edits.pop(path)
        if edit.to is not None:
            self.targets.pop(edit.to, None)
        self._await(*edit.paths)

    def _await(self, *paths: str) -> None:
        """Note which of these files an edit is about that the leader may have: two edits may be about one, as after a rename."""
        for path in paths:
            edits = self.edits.get(path), self.edits.get(self.targets.get(path, ""))
            if any(edit is not None and edit.is_sent and edit.refusal is None for edit in edits):
                self._place.awaited.add(path)
            else:
                self._place.awaited.discard(path)

    def mark_sent(self, path: str) -> Unsent:
        """Note that an edit is about to be sent; return it."""
        edit = self.edits[path]
        if not edit.is_sent:
            edit = edit._replace(is_sent=True)
            self.put(edit)
        return edit

    def refuse(self, edit: Unsent, error: BlocksdError) -> Refusal:
        """Note that the leader refuses an edit: it is not sent again as it is."""
        refusal = Refusal(error.code, error.message, str(error.facts.get("hint", "")))
        self.put(edit._replace(refusal=refusal))
        return refusal

    def next(self) -> Unsent | None:
        """Return the first edit that is to be sent, or sent again; None if there is none."""
        return next((edit for edit in self.edits.values() if edit.refusal is None), None)

    @property
    def waiting(self) -> int:
        """How many edits wait for the leader."""
        return sum(edit.refusal is None for edit in self.edits.values())
