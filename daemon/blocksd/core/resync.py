"""Brings a mirror that this daemon has just taken over in sync with the journal: catches it up, or rebuilds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.errors import NotFound, Unavailable
from blocksd.mirror.aside import gone_commands
from blocksd.mirror.keys import SCHEMA
from blocksd.mirror.mirror import BATCH
from blocksd.mirror.projection import in_parts
from blocksd.model.revision import FILE, timestamp
from blocksd.state.part import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from blocksd.core.verifier import Verifier
    from blocksd.mirror.keys import Place
    from blocksd.mirror.mirror import Mirror
    from blocksd.model.revision import Revision
    from blocksd.state.part import Shared


class Resync(Part):
    """The way of the mirror to where the journal is. Nothing is ever decided by what the mirror lacks: epoch and seq are compared."""

    def __init__(
        self,
        shared: Shared,
        mirror: Mirror,
        verifier: Verifier,
        comparing_aside: Callable[[bool], Iterator[object]],
    ) -> None:
        """`comparing_aside` compares all that is shown besides blocks, a slice at a time; given True, it announces what differs."""
        super().__init__(shared)
        self._mirror = mirror
        self._verifier = verifier
        self._comparing_aside = comparing_aside
        self.must_rebuild = False
        self.shown_seq: int | None = None
        """Where the mirror was last known to stand; None while it is rebuilt."""

    def run(self) -> Generator[None, None, str]:
        """Take the lease and bring the mirror in sync, a slice at a time; return how: `level`, `caught up` or `rebuilt`."""
        journal = self._journal
        place = self._mirror.take_lease()
        how = "level"
        if place.epoch == journal.epoch and (place.seq > journal.seq or not self._is_of_this_journal()):
            # The journal is older than the mirror, or another one was continued from where it was copied: numbers that
            # it gives out now were given out before, for other changes.
            journal.begin_epoch()
            self._mirror.epoch = journal.epoch
        is_ours = place.epoch == journal.epoch and place.seq <= journal.seq and self._has_this_layout()
        if self.must_rebuild or not is_ours or not journal.reaches_back(place.seq):
            how = "rebuilt"
            yield from self._rebuilding()
            self.must_rebuild = False
        else:
            if place.seq < journal.seq:
                how = "caught up"
            self.shown_seq = place.seq
            self._mirror.describe()
            self._sign()
            for _ in self._comparing_aside(True):
                yield
        while (self._mirror.place or place).seq < journal.seq:
            if self.catch_up().seq < journal.seq:
                yield
        self.shown_seq = journal.seq
        return how

    def catch_up(self) -> Place:
        """Show a batch of the revisions that the mirror lacks; return the position that it has then."""
        assert self._mirror.place is not None
        try:
            revisions = self._journal.since(self._mirror.place.seq, BATCH)
            self._mirror.project(revisions, gone_commands(self._deleted_by(revisions), self._mirror.keys))
        except NotFound:  # pruned in the meantime: only a rebuild can bring the mirror in sync
            self.must_rebuild = True
            raise Unavailable("the journal no longer reaches back to where the mirror stands") from None
        self.shown_seq = self._mirror.place.seq
        return self._mirror.place

    def _deleted_by(self, revisions: Iterable[Revision]) -> set[str]:
        """The agents that are not known any more since a request: a crash came before their inboxes were removed."""
        agents: set[str] = set()
        for revision in revisions:
            if revision.author != FILE:
                agents.update(revision.detached)
        return {agent for agent in agents if not self._state.attachments.is_known(agent)}

    def _rebuilding(self) -> Iterator[None]:
        self.shown_seq = None
        yield from self._mirror.begin_rebuild()
        # What is journaled while this goes on is projected after it, in full: nothing of it can be missed.
        seq = self._journal.seq
        for number, some in enumerate(in_parts(list(self._state.paths), BATCH)):
            if number:
                yield
            self._verifier.rebuild([self._state.confirmed(label) for label in some if label in self._state.paths])
        for _ in self._comparing_aside(False):
            yield
        self._mirror.end_rebuild(seq, timestamp(self._wall()))
        self._sign()

    def _sign(self) -> None:
        """Note in the mirror which run of the journal writes it: of a journal that is restored, this run is not one."""
        self._mirror.write([("HSET", self._mirror.keys.meta, "run", self._journal.run)])

    def _is_of_this_journal(self) -> bool:
        """Return True if this journal wrote what the mirror shows, as far as can be told."""
        return self._journal.is_of_run(self._mirror.read_one("HGET", self._mirror.keys.meta, "run"))

    def _has_this_layout(self) -> bool:
        """Return True if the mirror was written in the layout of this version of blocksd, or was not written yet."""
        return self._mirror.read_one("HGET", self._mirror.keys.meta, "schema") in (None, str(SCHEMA))
