"""The lease of one daemon on one namespace, and the generations of leaders: the newest alone gets it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from blocksd.errors import LeaseLost, Superseded
from blocksd.mirror.connection import masked
from blocksd.mirror.keys import Place, number_of
from blocksd.mirror.script import Script

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocksd.mirror.keys import Keys

LEASE_SECONDS = 10


class Answer(NamedTuple):
    """What lease.lua answers: who held the lease before, where the mirror stands, the namespace's generation, and if it is ours."""

    held: str
    place: Place
    generation: int
    is_ours: bool


class Lease:
    """What this daemon asks with. `generation` is that of its journal: how many promotions there were up to its own."""

    def __init__(
        self, client: Any, keys: Keys, *, url: str, epoch: str, token: str, about: Mapping[str, str], generation: int
    ) -> None:
        self._keys = keys
        self._url = url
        self._token = token
        self.generation = generation
        self._script = Script(client, "lease.lua", url=url)
        self.describe(epoch, about)

    def describe(self, epoch: str, about: Mapping[str, str]) -> None:
        """Take the epoch of the journal, and the facts about this daemon."""
        self.about = about
        self.value = f"{epoch} {self._token} {about.get('machine') or '-'} {about.get('folder_id') or '-'}"
        """The value of the lease's key while this daemon holds it."""

    @property
    def facts(self) -> dict[str, str]:
        """What the mirror says of the daemon that keeps it."""
        return {**self.about, **({"generation": str(self.generation)} if self.generation else {})}

    def ask(self) -> Answer:
        """Take or renew the lease, if no other daemon has it, and none of a higher generation ever had."""
        words = (self.value, str(LEASE_SECONDS * 1000), str(self.generation))
        held, epoch, seq, generation, is_ours = self._script.call((self._keys.lease, self._keys.meta), words)
        return Answer(held, place_of(epoch, seq), generation, bool(is_ours))

    def refusal(self, answer: Answer, there: Mapping[str, str]) -> LeaseLost | Superseded:
        """Return why the lease was refused; `there` is what the mirror says of the daemon that keeps it."""
        if answer.generation != self.generation:
            return superseded(self._keys.namespace, self.generation, answer.generation, there.get("host"))

        def place(about: Mapping[str, str]) -> str:
            ids = f"machine {about.get('machine') or 'unknown'}, folder {about.get('folder_id') or 'unknown'}"
            return f"for {about.get('directory', '?')} ({ids})"

        other = f"the daemon with pid {there.get('pid', '?')} on {there.get('host', '?')}, {place(there)}"
        if answer.held.split()[2:] != [there.get("machine") or "-", there.get("folder_id") or "-"]:
            other = "another daemon, which has just begun"  # what the mirror says is of the one before
        return LeaseLost(
            f"namespace {self._keys.namespace!r} at {masked(self._url)} is served by {other}; this one is on "
            f"{self.about.get('host', '?')}, {place(self.about)}",
            holder=there,
        )


def superseded(namespace: str, own: int, newer: int, host: str | None) -> Superseded:
    """Return why a daemon of the generation `own` must not serve a namespace that has a leader of a `newer` one."""
    message = (
        f"{host or 'another host'} was promoted to leader of the namespace {namespace!r} (generation {newer}; here {own}): "
        "this daemon writes neither the mirror nor a file for an agent"
    )
    hint = (
        "'blocksd follow FOLDER --adopt' makes the folder a copy, and keeps what differs in it; if the new leader is lost "
        "for good, 'blocksd run FOLDER --promote' makes this host the leader again"
    )
    return Superseded(message, key="generation", generation=newer, hint=hint)


def place_of(epoch: str, seq: str) -> Place:
    """Return the position that a mirror names; none if no daemon writes it like that."""
    number = number_of(seq)
    return Place(epoch, number) if epoch and number is not None else Place(None, 0)
