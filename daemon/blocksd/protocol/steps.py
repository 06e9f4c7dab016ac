"""The steps of a watch, and how it reads the mirror by them.

A watch is a generator of steps. Its driver performs each step and sends back the result; when Redis does not serve,
the driver raises `Unavailable` at the step. So blocking and asyncio code follow changes in the same way.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from blocksd.errors import Damaged
from blocksd.mirror.keys import number_of
from blocksd.model.revision import Change

if TYPE_CHECKING:
    from blocksd.mirror.keys import Keys
    from blocksd.protocol.reset import Item
    from blocksd.protocol.wire import Command

R = TypeVar("R")
ENTRIES = 1000
"""How many entries of the stream are read in one round trip."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Send these commands in one round trip: a list of their replies."""

    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait, then go on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a connection for listening, in place of the one there was."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Ask for these channels (or, `off`, not for them any more)."""

    channels: tuple[str, ...]
    off: bool = False


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask for a `pong` on the connection for listening."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Wait for what comes, at most so long; a Heard, or None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Heard:
    """A message on the connection: a `message`, a `subscribe` or `unsubscribe` confirmed, a `pong`."""

    kind: str
    channel: str
    data: str


@dataclass(frozen=True, slots=True)
class Emit:
    """Pass this on."""

    item: Item


@dataclass(frozen=True, slots=True)
class Live:
    """From here on, whatever happens will be heard."""


Step = Ask | Connect | Subscribe | Ping | Listen | Emit | Live | Pause
Steps = Generator[Step, Any, R]


def ask(*commands: Command) -> Steps[list[Any]]:
    """One round trip: the replies."""
    replies: list[Any] = (yield Ask(commands)) if commands else []
    return replies


def epoch_and_seq(keys: Keys) -> Steps[tuple[str | None, int]]:
    """Where the mirror stands: its epoch (None: it is being rebuilt) and seq."""
    ((epoch, seq),) = yield from ask(("HMGET", keys.meta, "epoch", "seq"))
    number = number_of(seq or "0")
    if number is None:
        raise Damaged(f"the mirror does not tell where it is: its seq is {seq!r:.50}")
    return epoch, number


def entries_after(keys: Keys, after: str) -> Steps[tuple[list[tuple[str, Change]], str | None]]:
    """The next changes of the stream, each with the id of its entry; and the entry to go on after, None at the end."""
    (entries,) = yield from ask(("XRANGE", keys.changes, f"({after}", "+", "COUNT", ENTRIES))
    changes = [(entry, parsed((fields or {}).get("change"))) for entry, fields in entries]
    ours = [(entry, change) for entry, change in changes if change is not None and _is_place(entry)]
    return ours, entries[-1][0] if len(entries) == ENTRIES else None


def resets_at(keys: Keys, seq: int) -> Steps[list[dict[str, Any]]]:
    """The entries of the stream at `seq` besides the revision itself."""
    (entries,) = yield from ask(("XRANGE", keys.changes, f"({seq}-0", str(seq)))
    changes = [parsed((fields or {}).get("change")) for _, fields in entries]
    return [change.raw for change in changes if change is not None]


def sources_of(keys: Keys, agent: str) -> Steps[set[str]]:
    """The file sources an agent sees."""
    (known,) = yield from ask(("HKEYS", keys.sources))
    seen = yield from ask(*(("SISMEMBER", keys.source_agents(name), agent) for name in known))
    return {name for name, is_seen in zip(known, seen, strict=True) if is_seen}


def labels_at(keys: Keys, agent: str, seq: int) -> Steps[set[str]]:
    """The blocks attached to an agent at `seq`: those of now, without what the stream shows to have changed since."""
    (names,) = yield from ask(("HGETALL", keys.agent(agent)))
    labels, told = set(names.values()), set()
    after: str | None = f"{seq}-0"
    while after is not None:
        entries, after = yield from entries_after(keys, after)
        for _, change in entries:
            came, went = agent in change.attached, agent in change.detached
            if change.label is not None and change.label not in told and (came or went):
                told.add(change.label)
                (labels.add if went else labels.discard)(change.label)
    return labels


def parsed(text: str | None) -> Change | None:
    """A change as it was sent; None for what another program put there: the next number, or a proof, shows what is missing."""
    try:
        change = Change.loads(text or "")
    except Damaged:
        return None
    return change if change.seq is None or change.seq >= 0 else None


def _is_place(entry_id: str) -> bool:
    return entry_id.partition("-")[0].isdigit()
