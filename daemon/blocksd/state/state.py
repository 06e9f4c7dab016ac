"""The blocks in force, as the journal has them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from blocksd.errors import JournalDamaged
from blocksd.journal.history import LAST
from blocksd.model.attachment import Attachments
from blocksd.model.label import SUFFIX, clash_key, is_properties, owner
from blocksd.model.revision import milliseconds
from blocksd.state.agent_times import AgentTimes
from blocksd.state.paths import Labels, Paths
from blocksd.state.signatures import Signatures

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from blocksd.journal.journal import Journal
    from blocksd.model.block import Block
    from blocksd.model.revision import Revision

RECENT = 256  # labels of which the newest revision is remembered
_OTHERS = 256  # labels of which it is remembered which versions others wrote


class State:
    """Each block in force with its file, version and attachment set; what it says is read from the journal when needed.

    The dictionaries are for every reader. Only an overlay changes them, once what it holds is journaled.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.journal = journal
        self.clock = clock
        self.agent_times = AgentTimes(journal, wall)
        self.reformed: set[str] = set()  # labels of files that say the same in another form, until the mirror shows it
        self.made_at: dict[int, float] = {}  # seq → when it came into force, of the newest by request in this run
        self.has_seen_folders = False  # until a sweep has, agents without blocks are not known
        self.load()

    def load(self, folders: Iterable[str] = ()) -> None:
        """Read what the journal holds. `folders` are agents that are known to have a private folder.

        Raises:
            JournalUnusable: it cannot be read; all is as it was.
        """
        attachments = Attachments()
        signatures = Signatures()
        versions: dict[str, int] = {}
        paths = Paths(versions)
        taken: dict[str, str] = {}
        origins: dict[str, str] = {}
        properties: set[str] = set()  # the labels of agents' properties, which are no blocks
        for labels, its_versions, entries, agents, packed, odd, its_origins in self.journal.columns_of_heads():
            versions.update(zip(labels, its_versions, strict=True))
            signatures.load(labels, packed)
            attachments.load(labels, entries, agents)
            origins.update(its_origins)
            text = "\n".join(labels)
            if not (text.isascii() and text == text.lower()):  # else each is its own clash key
                taken.update([(clash_key(one), one) for one in labels if not (one.islower() and one.isascii())])
            for number, path in odd.items():
                label, signature = labels[number], signatures[f"{labels[number]}{SUFFIX}"]
                del signatures[f"{label}{SUFFIX}"]
                paths[label], signatures[path] = path, signature
                if is_properties(label):
                    properties.add(label)
        # Blocks that are deleted may be many, and are few of those asked for: the journal knows them.
        self.has_deleted = self.journal.has_deleted(len(versions))
        self.unmerged = set(self.journal.unmerged())  # blocks whose newest revision is a stale save, to be merged
        self.origins = origins  # label → what the id is made of, where that is not the label
        self.labels_of_origins = {origin: label for label, origin in self.origins.items()}
        self.attachments = attachments
        self.agent_times.restart()
        self.paths = paths  # label → path
        self.labels = Labels(paths)  # path → label
        self.signatures = signatures  # of every file that was read, in force or not, packed; empty: it proves nothing
        # Files that were written on request and not read since, if a signature proves it.
        self.written: set[str] = set()
        self.versions = versions  # of the blocks in force
        self.taken = taken  # clash key → label; those that are their own key may be left out
        self.recent: dict[str, Revision] = {}  # the newest revisions of some labels
        self.others: dict[str, list[int]] = {}  # of some labels, the last versions by others: see `by_others`
        self.properties = properties
        # The journal has no list of private folders. Until the first sweep has seen them, they are where blocks are.
        self.attachments.loaded({*folders, *(str(owner(label)) for label in self.properties)})
        # What a journal has lost may have told who is attached to what is left.
        is_partial = self.journal.opened.how in ("damaged", "overwritten")
        self.moved = self.attachments.expand_all() if is_partial else {}  # changed sets that are not drafted yet

    def blocks(self) -> Collection[str]:
        """Return the labels of the blocks in force: all but the properties of agents."""
        return self.paths.keys() - self.properties if self.properties else self.paths.keys()

    @property
    def block_count(self) -> int:
        """How many blocks are in force."""
        return len(self.paths) - len(self.properties)

    def reload(self) -> None:
        """Read what the journal holds, which others wrote to; private folders stay as they are."""
        self.load(self.attachments.folders)

    def note_agents(self, revisions: Sequence[Revision]) -> Iterator[str]:
        """Journal which agents have become known, with these revisions if there are any, or are not known any more.

        Yields the name of a durable effect before it happens, as a round does.
        """
        if self.agent_times.is_due(self.attachments, are_all_known=self.has_seen_folders):
            yield "agents"
            at = milliseconds(revisions[0].at) if revisions else None
            self.agent_times.note(self.attachments, at, are_all_known=self.has_seen_folders)

    def forget(self, label: str) -> None:
        """Forget a label that no block has, of which the journal knows nothing any more."""
        if label not in self.paths:
            self.recent.pop(label, None)

    # --- what the journal has of it ---

    def newest(self, label: str) -> Revision | None:
        """The newest revision of a label; None when it never had one.

        Raises:
            JournalDamaged: it is not as it was written.
        """
        newest = self.recent.get(label)
        if newest is not None:
            return newest
        if label in self.paths:
            return self.remembered(self.head(label))
        return self.journal.head(label) if self.version_of(label) else None

    def remembered(self, newest: Revision) -> Revision:
        """Remember the newest revision of a label, which was read or journaled just now."""
        self.recent.pop(newest.label, None)
        self.recent[newest.label] = newest
        while len(self.recent) > RECENT:
            del self.recent[next(iter(self.recent))]
        return newest

    def head(self, label: str) -> Revision:
        """The newest revision, as the journal has it, of a block in force.

        Raises:
            JournalDamaged: it is not as it was written, or not the one that is in force.
        """
        head = self.journal.head(label)
        if head is None or head.block is None or head.version != self.versions.get(label):
            raise JournalDamaged(
                f"the journal has lost the version of {label!r} that is in force", path=self.journal.path
            )
        return head

    def confirmed(self, label: str) -> Revision:
        """The same, if it says what is known of who is attached: what the mirror may be made of.

        Raises:
            JournalDamaged: it does not.
        """
        head, attachments = self.head(label), self.attachments
        assert head.block is not None
        if head.agents != attachments.attached.get(label) or head.block.agents != attachments.entries(label):
            path = self.journal.path
            raise JournalDamaged(f"the journal does not agree with itself on who is attached to {label!r}", path=path)
        return head

    def version_of(self, label: str) -> int:
        """The version of the newest revision of a label; 0 when none is known."""
        version = self.versions.get(label)
        if version is None:
            version = self.journal.version_of(label) if self.has_deleted else 0
        return version

    def block(self, label: str) -> Block | None:
        """The block in force under a label."""
        newest = self.newest(label) if label in self.paths else None
        return newest.block if newest is not None else None

    def by_others(self, label: str) -> list[int]:
        """The last few versions of a block that were not saved in its file, the newest first."""
        found = self.others.get(label)
        if found is None:
            while len(self.others) >= _OTHERS:
                del self.others[next(iter(self.others))]
            found = self.others[label] = self.journal.by_others(label)
        oldest = self.version_of(label) - LAST
        return [version for version in found if version > oldest]

    def version(self, label: str, version: int) -> Revision | None:
        """A version of a block; None when it is not kept.

        Raises:
            VersionDamaged: it is not as it was written.
        """
        newest = self.recent.get(label)
        if newest is not None and newest.version == version:
            return newest
        return self.journal.version(label, version)
