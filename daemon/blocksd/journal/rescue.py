"""Repairs a journal that is damaged, or was removed, replaced or overwritten while it was in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.errors import JournalDamaged, JournalMissing, JournalUnusable, VersionDamaged

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.journal.journal import Journal
    from blocksd.journal.opening import Opened

HINT = "it is put together again from what is sound and from the folder; look at the disk's health if it happens again"

_PAUSE_SECONDS = (0.0, 60.0, 600.0)  # after so many repairs, until the next: each one copies the journal


def sentence_of(opened: Opened) -> str:
    """Return how a journal was found and what was done, for a log; empty if there is nothing to say."""
    kept = f"; what was there is kept as {opened.set_aside}" if opened.set_aside else ""
    if opened.how == "damaged":
        return f"the journal was damaged: it was put together again from what is sound and from the folder{kept}"
    if opened.how == "overwritten":
        return (
            "the journal was overwritten or cut by another program while it was in use: it was put together again from what "
            f"could still be read and from the folder, and begins a new epoch{kept}"
        )
    if opened.how == "copied":
        why = "the journal is not the file that was written last (restored, copied, or put back)"
        return f"{why}: its numbers begin a new epoch{kept}"
    return ""


class Rescue:
    """Decides when the journal must be repaired, before anything more is written to it."""

    def __init__(self, journal: Journal, *, clock: Callable[[], float]) -> None:
        self._journal = journal
        self._clock = clock
        self._is_damaged = False
        self._repairs = 0
        self._due = 0.0
        self.claim: Callable[[], object] = lambda: None
        """Called before a journal is put back: raises JournalUnusable unless its directory is this daemon's to write."""
        self.done: list[Opened] = []  # journals that have taken the place of others, for a log

    def note_error(self, error: Exception) -> bool:
        """Note an error; return True if the journal must be repaired because of it."""
        if isinstance(error, (JournalDamaged, VersionDamaged)):
            self._is_damaged = True
        return isinstance(error, (JournalDamaged, VersionDamaged, JournalMissing))

    def sentences(self) -> list[str]:
        """Return sentences for the log on the journals that have taken the place of others since the last call."""
        done, self.done = self.done, []
        return [sentence_of(opened) for opened in done]

    def repair_if_needed(self) -> bool:
        """Repair the journal if it must be; return True if it is another one now, in a new epoch.

        Raise JournalUnusable if it cannot be done yet.
        """
        if not self._journal.database.is_in_place:
            self.claim()
        opened = self._journal.put_back()
        if opened is None and self._is_damaged:
            now = self._clock()
            if now < self._due:
                raise JournalUnusable(
                    "the journal is damaged again soon after it was repaired; the next repair waits",
                    path=self._journal.path,
                )
            self._repairs += 1
            self._due = now + _PAUSE_SECONDS[min(self._repairs, len(_PAUSE_SECONDS)) - 1]
            opened = self._journal.repair()
        if opened is None:
            return False
        self._is_damaged = False
        self.done.append(opened)
        return True
