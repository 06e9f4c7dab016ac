"""Makes this daemon the leader of its namespace: waits for the lease, is promoted, and steps down for another that was."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from blocksd.errors import AlreadyRunning, BlocksdError, LeaseLost, Misconfigured, Superseded, Unavailable
from blocksd.mirror.lease import LEASE_SECONDS
from blocksd.mirror.mirror import BATCH
from blocksd.model.problem import count

if TYPE_CHECKING:
    from blocksd.core.projector import Projector
    from blocksd.journal.journal import Journal
    from blocksd.mirror.keys import Place
    from blocksd.mirror.mirror import Mirror
    from blocksd.monitoring.events import Notices

_POLL_SECONDS = 0.2  # between two looks at another daemon's lease
_MARGIN_SECONDS = 2.0
_NAMED = 5  # blocks in a message


class Promotion(NamedTuple):
    """A place of a journal, up to which a folder that is to be the leader's has all, and the generation of its leader.

    `epoch` is None for the folder of the journal in the state directory, which was the leader's before.
    """

    epoch: str | None = None
    seq: int = 0
    generation: int = 0


def wait_for_lease(mirror: Mirror, journal: Journal, notices: Notices) -> Place:
    """Take the lease; return where the mirror stands. While another daemon has it, wait until it expires or is renewed.

    Raises:
        AlreadyRunning: the other daemon renews its lease, so it is alive.
        Misconfigured: Redis refuses the login; Superseded, if another host was promoted.
        Unavailable: Redis does not serve.
    """
    deadline = time.monotonic() + LEASE_SECONDS + _MARGIN_SECONDS
    left_before: int | None = None
    while True:
        try:
            return mirror.take_lease()
        except LeaseLost as error:
            left = mirror.lease_left()
            if left_before is None:
                notices.post(f"{error.message}; waiting to see whether that daemon is alive", "warning")
            elif left > left_before or time.monotonic() > deadline:
                raise AlreadyRunning(error.message, **error.facts) from None
            left_before = left
        except Superseded as error:
            _note(journal, error)
            raise
        time.sleep(_POLL_SECONDS)


def promote(promotion: Promotion, journal: Journal, mirror: Mirror, notices: Notices, *, is_shared: bool) -> bool:
    """Make this daemon the leader, of the next generation: first in its journal, then in Redis. False: it is the leader.

    Other daemons and followers see nothing of it until the last step. What a crash interrupts is begun again. If the server
    is not `is_shared`, no other daemon has a lease there.

    Raises:
        Misconfigured: there is a leader, or Redis has changes that the folder has not.
        Unavailable: whether there is a leader cannot be told.
    """
    generation = promotion.generation
    if is_shared:
        try:
            shown = mirror.shown_generation()
            if promotion.epoch is None and shown <= journal.generation == journal.newest_generation:
                return False  # the option has stayed in its command
            generation = max(generation, shown)
            mirror.begin_generation(journal.epoch, shown)  # a leader that is alive stays it
            _check_all_is_here(promotion, journal, mirror, wait_for_lease(mirror, journal, notices))
        except AlreadyRunning as error:  # no manager of services is to try it until the leader is lost
            hint = "follow it with 'blocksd follow'; or stop it first, if this host is to take its place"
            raise Misconfigured(f"there is a leader: {error.message}", key="promote", hint=hint) from None
        except Unavailable as error:
            error.facts.setdefault("hint", "name a server that serves: it must tell that no leader is alive")
            raise
    elif promotion.epoch is None and journal.generation == journal.newest_generation:
        return False
    journal.begin_generation(max(generation, journal.newest_generation) + 1)
    mirror.begin_generation(journal.epoch, journal.generation)
    if is_shared:
        mirror.take_lease()
    namespace = mirror.keys.namespace
    alone = "" if is_shared else "; its own Redis tells no leader that still runs: see that the lost host is off"
    notices.post(f"this host is the leader of {namespace!r} now, of generation {journal.generation}{alone}", "warning")
    return True


def _check_all_is_here(promotion: Promotion, journal: Journal, mirror: Mirror, place: Place) -> None:
    """Check that the folder has all that Redis has; else give the lease back."""
    epoch, seq = promotion.epoch, promotion.seq
    if epoch is None:
        epoch, seq = journal.epoch, journal.seq
    if place.epoch is None or (place.epoch == epoch and place.seq <= seq):
        return
    mirror.release_lease()
    message = "Redis has what another leader wrote, which this folder has not"
    if place.epoch == epoch:
        message = f"the copy is {count(place.seq - seq, 'change')} behind what Redis has"
    hint = "start 'blocksd follow' until it is in sync, then stop it; where the folder is no follower's, with --adopt"
    raise Misconfigured(message, key="folder", hint=hint)


def step_down(projector: Projector, mirror: Mirror, journal: Journal) -> None:
    """Raise Superseded if another host was promoted to leader, with what is in this folder alone."""
    error, shown = projector.last_error, projector.shown_seq
    if not isinstance(error, Superseded):
        return
    _note(journal, error)
    labels: dict[str, None] = {}
    if shown is not None:
        shown = shown if mirror.failed_at is None else min(shown, mirror.failed_at)
        with suppress(BlocksdError, sqlite3.Error):
            labels = dict.fromkeys(revision.label for revision in journal.since(shown, BATCH))
    if labels:
        few = ", ".join(map(repr, list(labels)[:_NAMED])) + (", …" if len(labels) > _NAMED else "")
        error.message += f"; what was saved last of {few} is in this folder alone"
    raise error


def _note(journal: Journal, error: Superseded) -> None:
    """Note in the journal that there is a newer leader, for a start at a Redis that was emptied meanwhile."""
    with suppress(BlocksdError, sqlite3.Error):
        journal.note_generation(int(str(error.facts["generation"])))
