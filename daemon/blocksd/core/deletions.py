"""Files in force that are missing, and whether their blocks are deleted for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from blocksd.errors import ProblemFile, Unavailable
from blocksd.journal.identity import facts_of
from blocksd.model.label import printable
from blocksd.model.problem import FOLDER, Problem
from blocksd.state.part import Part

if TYPE_CHECKING:
    from blocksd.errors import BlocksdError
    from blocksd.files.folder import Folder
    from blocksd.state.part import Shared

RootState = Literal["same", "unknown", "back", "gone", "another"]

WIPE_ABOVE = 3
MASS_ABOVE = 10
_RETRY_SECONDS = 1.0
_LONGEST_GATHERING = 60.0


_PUT_BACK = "put the files back, or run 'blocksd resume --accept-deletions'"

# --- safety rules ---
# An unmounted disk, a `git clean` in the wrong place and a person who really wants ten blocks gone all look alike. A
# deletion that a predicate stops is not forgotten: the daemon looks again, and continues when the files are back.


def is_wiped(blocks: int, vanished: int) -> bool:
    """Return True if all blocks of a folder of more than `WIPE_ABOVE` vanished: a lost mount, not an edit."""
    return blocks > WIPE_ABOVE and vanished >= blocks


def is_mass_deletion(blocks: int, vanished: int) -> bool:
    """Return True if more than half of more than `MASS_ABOVE` blocks vanished in one pass."""
    return blocks > MASS_ABOVE and 2 * vanished > blocks


def is_replaced(expected: tuple[int, int] | None, found: tuple[int, int] | None) -> bool:
    """Return True if another directory (device and inode) is in the folder's place."""
    return expected is not None and found is not None and expected != found


class Decision(NamedTuple):
    """Of the files that were missing: which are back, without a word of it, and which are deleted. The rest is held back."""

    back: list[str]
    deleted: list[str]


class Deletions(Part):
    """Missing files: for how long they may be missing, and why their deletions are held back. Times are of a monotonic clock.

    It halts when too much is missing, or the folder as a whole: that is a problem, and ends by itself when the files are
    back, or with a person's word.
    """

    def __init__(self, shared: Shared, folder: Folder, *, grace: float) -> None:
        super().__init__(shared)
        self._folder = folder
        self.grace = grace  # seconds that a file may be missing
        self.is_folder_gone = False
        # The folder was gone, or replaced, or is not the one the journal was made of, and not all blocks were seen since.
        self.is_in_doubt = self._journal.folder not in (None, folder.root)
        self.is_open = True  # it is in doubt, has halted, or the journal does not know its folder yet
        self._accepted = False  # a person has accepted the deletions that are held back
        self.missing: dict[str, float] = {}  # path → since when
        # File with a problem → the missing file that it was: the block of that one stays.
        self.heirs: dict[str, str] = {}
        self._inherited: dict[str, str] = {}  # the other way round
        self.due = float("inf")  # when to decide

    @property
    def has_halted(self) -> bool:
        """Return True if deletions are held back."""
        return FOLDER in self._problems

    def refusal(self, path: str) -> BlocksdError | None:
        """Return why nothing can be written to the block of a missing file; None if it is about to be deleted."""
        if path in self.missing and self.has_halted:
            problem = self._problems[FOLDER]
            return Unavailable(problem.message, hint=problem.hint)
        heir = self.heir_of(path)
        if heir is None:
            return None
        label = self._state.labels.get(path)
        message = f"the file of {label!r} was moved to {printable(heir)}, which has a problem"
        return ProblemFile(message, label=label, hint="see its problem first")

    def heir_of(self, path: str) -> str | None:
        """The file with a problem that a missing file has become, if its block is in force for that."""
        return self._inherited.get(path)

    def has_missed(self, path: str) -> bool:
        """Return True if the file of a block in force was seen to be missing."""
        return path in self.missing or path in self._inherited

    def miss(self, path: str) -> None:
        """The file of a block in force is not there: that is a deletion only if it stays so."""
        if self.has_missed(path):
            return
        now = self.missing[path] = self._clock()
        # Deletions are gathered until no more come, and judged together: a thousand at once are another thing than one.
        first = next(iter(self.missing.values()))
        self.due = min(now + self.grace, first + _LONGEST_GATHERING)

    def forget(self, path: str) -> None:
        """The file is there, or need not be."""
        self.heirs.pop(self._inherited.pop(path, ""), None)
        if self.missing.pop(path, None) is not None and not self.missing:
            self.due = float("inf")

    def inherit(self, path: str, heir: str) -> None:
        """The missing file is there under another name, with a problem: its block stays until that is over."""
        self.forget(path)
        self.disown(heir)
        self.heirs[heir], self._inherited[path] = path, heir

    def disown(self, heir: str) -> None:
        """The file with the problem is not there any more, so that the one that it was is missing."""
        path = self.heirs.pop(heir, None)
        if path is not None:
            del self._inherited[path]
            self.miss(path)

    def accept(self) -> int | None:
        """A person says that the deletions held back are meant: these, not any that are still to come.

        Returns how many are held back so far; None when it has not halted.
        """
        if self.has_halted:
            self._accepted = True
            self.due = self._clock()
            self._schedule.hasten("files", self.due)
        return self.held_back

    @property
    def held_back(self) -> int | None:
        """How many deletions are held back; None when it has not halted."""
        return len(self.missing) if self.has_halted else None

    def take_over(self) -> None:
        """A person says that this folder takes the place of the one the journal was made of: what is missing here is deleted."""
        self._accepted = self.is_in_doubt

    def may_decide(self, backlog: int, limit: int) -> bool:
        """Return True unless more files than `limit` are to be read: any of those may be a missing one that was moved."""
        if backlog <= limit:
            return True
        now = self._clock()
        return now >= next(iter(self.missing.values()), now) + _LONGEST_GATHERING

    def put_off(self) -> None:
        """Nothing can be decided now."""
        self.due = self._clock() + _RETRY_SECONDS

    def decide(self) -> Decision:
        """Look once more for what is missing, and judge it, in a folder that is the one that was opened."""
        self.due = float("inf")
        back = [path for path in self.missing if not self._folder.is_absent(path)]
        for path in back:
            del self.missing[path]
        why = self._why_held_back() if self.missing else None
        if why is not None:
            self._halt(why, _PUT_BACK)
            # Hints and sweeps tell when files are back; this is for those that neither sees, and need not be soon.
            self.due = self._clock() + _RETRY_SECONDS * max(1, len(self.missing) // 100)
            return Decision(back, [])
        deleted = sorted(self.missing)
        self.missing.clear()
        return Decision(back, deleted)

    def _why_held_back(self) -> str | None:
        blocks, vanished = len(self._state.paths), len(self.missing)
        if self._accepted:
            return None
        if self.is_in_doubt:
            is_moved = self._journal.folder not in (None, self._folder.root)
            since = f"it was {self._journal.folder}" if is_moved else "it was gone or replaced"
            return f"{vanished} of {blocks} blocks are missing in the folder since {since}"
        if is_wiped(blocks, vanished):
            return f"all {blocks} blocks vanished at once"
        if is_mass_deletion(blocks, vanished):
            return f"{vanished} of {blocks} blocks vanished at once"
        return None

    def see_root(self) -> RootState:
        """Look whether the folder is still the one that was opened; when it is not, nothing missing in it is deleted."""
        try:
            found = self._folder.identity()
        except OSError:
            return "unknown"
        directory = self._folder.directory
        if found is not None and found == directory.held:
            was_gone, self.is_folder_gone = self.is_folder_gone, False
            return "back" if was_gone else "same"
        self.is_in_doubt = self.is_open = True
        if found is None:
            self.is_folder_gone = True
            self._halt("the folder is gone", "put it back, or mount it again; all blocks stay as they are until then")
            return "gone"
        if is_replaced(directory.held, found):
            self._halt("the folder was replaced by another directory", "all blocks that are missing in it are kept")
        directory.reopen()
        if directory.refusal is not None:
            self.is_folder_gone = True
            self._halt(directory.refusal.message, "stop that daemon, or put the folder back that was there before")
            return "gone"
        self.is_folder_gone = False
        return "another"

    def _halt(self, message: str, hint: str) -> None:
        self.is_open = True
        self._problems.set(Problem(FOLDER, "halted", f"{message}: deletions are held back", hint))

    def end_doubt(self) -> None:
        """Nothing is missing any more, or what is missing is meant to be."""
        if not self.is_folder_gone:
            self._accepted = self.is_in_doubt = self.is_open = False
            self._problems.remove(FOLDER)
            facts = facts_of(self._folder.root, self._folder.directory.given)
            if self._journal.folder_facts() != facts:
                self._journal.keep_folder_facts(facts)
