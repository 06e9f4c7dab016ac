"""Reads from the mirror how the leader's files are, some at a time."""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from blocksd.client.blocking.transport import Transport
from blocksd.errors import Damaged, InvalidLabel, Unavailable
from blocksd.files.document import MAX_BYTES
from blocksd.follow.plan import Wanted
from blocksd.mirror.connection import connect, masked
from blocksd.mirror.file_form import FORM_FIELDS, form_shown
from blocksd.mirror.keys import SCHEMA, Keys, number_of
from blocksd.model.label import SUFFIX, is_properties, label_of_path, owner, path_of_label, printable, properties_label
from blocksd.service.machine import machine_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PAGE = 256
"""How many blocks are read in one round trip."""
_PAGE_BYTES = 8 * 1024 * 1024
"""How much text is read in one round trip, about."""

Shown = Wanted | Damaged | None
"""What the mirror shows of a block's file. None: there is no such block; Damaged: what it shows cannot be."""

_Reply = Sequence[str | None] | Damaged

_FORM = ("digest", *FORM_FIELDS)
_ALL = ("version", *_FORM, "value")
_LIGHT = ("version", *_FORM, "chars")


class Stand(NamedTuple):
    """Where the mirror stands, on which host its daemon keeps it, and of which generation that is as the leader.

    `epoch` is None while there is no mirror. `folder` is the id of the leader's folder, if that is on this machine, else
    empty. `is_led`: a daemon has the lease.
    """

    epoch: str | None
    seq: int
    host: str
    generation: int
    folder: str
    is_led: bool


class _Transport(Transport):
    """A transport that waits no longer for Redis than the daemon does: the main loop waits with it."""

    def _connect(self) -> None:
        self._redis = connect(self.url)


class Mirrored:
    """The leader's files, as one namespace of a server shows them.

    Every method raises Unavailable when Redis does not serve, has no whole mirror, or one that lacks what was seen before,
    and Misconfigured when it refuses the login.
    """

    def __init__(self, url: str, namespace: str) -> None:
        """Nothing is sent yet."""
        self._url = url
        self._keys = Keys(namespace)
        self._transport = _Transport(url, namespace)
        self._seen: tuple[str, int] | None = None

    def close(self) -> None:
        self._transport.close()

    @property
    def epoch(self) -> str | None:
        """The epoch of the newest change that was seen."""
        return self._seen[0] if self._seen is not None else None

    def see(self, epoch: str, seq: int) -> None:
        """Note a change that was made: a mirror of this epoch that lacks it has lost it, until its daemon writes it again.

        Numbers of an epoch are given out once, so a server that has fewer is one that replaced another too early.
        """
        if self._seen is None or self._seen[0] != epoch or self._seen[1] < seq:
            self._seen = epoch, seq

    def check(self, epoch: str | None, seq: int) -> None:
        """Raise Unavailable if a mirror that stands there is older than what was seen."""
        if self._seen is not None and epoch == self._seen[0] and seq < self._seen[1]:
            message = f"the mirror at {masked(self._url)} is older than this copy (at seq {seq}, not {self._seen[1]})"
            hint = (
                "files stay as they are until the leader's daemon has written there what is missing: see that it runs"
            )
            raise Unavailable(message, hint=hint)

    def stand(self) -> Stand:
        """Return where the mirror stands, even if that is behind what was seen."""
        names = ("epoch", "seq", "host", "schema", "generation", "machine", "folder_id")
        (epoch, seq, host, schema, generation, machine, folder), leases = self._ask(
            ("HMGET", self._keys.meta, *names), ("EXISTS", self._keys.lease), is_whole=False
        )
        if epoch is not None and schema != str(SCHEMA):
            message = f"the mirror at {masked(self._url)} has another layout ({schema}, not {SCHEMA})"
            raise Unavailable(message, hint="install the same version of blocksd on the leader's host and on this one")
        number = self._number(seq, epoch)
        if not _is_epoch(epoch or "-"):
            raise self._placeless(seq, epoch)
        is_here = bool(machine) and machine == machine_id()
        return Stand(
            epoch,
            number,
            printable(host or "?"),
            number_of(generation) or 0,
            folder or "" if is_here else "",
            is_led=bool(leases),
        )

    def labels(self) -> tuple[str, list[str]]:
        """Return the epoch, and the labels of all blocks and of the properties of all agents that may have some."""
        epoch, blocks, agents = self._ask(
            ("HGET", self._keys.meta, "epoch"),
            ("ZRANGE", self._keys.labels, 0, -1),
            ("ZRANGE", self._keys.agents, 0, -1),
        )
        if not _is_epoch(epoch):
            raise Damaged(f"the mirror at {masked(self._url)} has no epoch, but {epoch!r:.50}")
        return epoch, texts([*blocks, *map(properties_label, agents)])

    def read(self, labels: Sequence[str]) -> dict[str, Shown]:
        """Return the files of a few blocks, with their texts."""
        return {label: _wanted(label, reply) for label, reply in self._replies(labels, _ALL).items()}

    def differing(
        self, labels: Sequence[str], known: Mapping[str, tuple[int, str]]
    ) -> Iterator[tuple[int, dict[str, Shown]]]:
        """Yield the files of those blocks whose version and form are not the `known` ones, and how many were looked at.

        Those that differ are yielded many together, wherever they are in the list: who writes them waits for the disk once
        for all of them.
        """
        unread, room = list[str](), _PAGE_BYTES
        for first in range(0, len(labels), PAGE):
            some = labels[first : first + PAGE]
            replies = self._replies(some, _LIGHT)
            sizes = {label: _size(one) for label, one in replies.items() if not _is_known(one, known.get(label))}
            yield len(some) - len(sizes), {}
            for label, size in sizes.items():
                if unread and (size > room or len(unread) == PAGE):
                    yield len(unread), self.read(unread)
                    unread, room = [], _PAGE_BYTES
                unread.append(label)
                room -= size
        if unread:
            yield len(unread), self.read(unread)

    def _replies(self, labels: Sequence[str], names: tuple[str, ...]) -> dict[str, _Reply]:
        """Return these fields of some blocks; Damaged for one whose key is of another type."""
        try:
            replies = self._ask(*(self._command(label, names) for label in labels))
        except Damaged as error:
            self.stand()  # raises it, if it is not of these keys
            if len(labels) == 1:
                return {labels[0]: error}
            return {label: reply for one in labels for label, reply in self._replies([one], names).items()}
        return dict(zip(labels, replies, strict=True))

    def _command(self, label: str, fields: tuple[str, ...]) -> tuple[str, ...]:
        if is_properties(label):
            return ("HMGET", self._keys.agent_info(str(owner(label))), *fields)
        return ("HMGET", self._keys.block(label), *fields)

    def _ask(self, *commands: tuple[str | int, ...], is_whole: bool = True) -> list[Any]:
        """Send commands in one round trip. If it must be whole, raise Unavailable when it is not, or is older than what was seen."""
        if not is_whole:
            return self._transport.ask(*commands)
        # Its seq comes first, as it grows, and its epoch last: a mirror that is built anew is without it from before the beginning.
        seq, *replies, epoch = self._transport.ask(
            ("HGET", self._keys.meta, "seq"), *commands, ("HGET", self._keys.meta, "epoch")
        )
        if epoch is None:
            raise no_mirror(self._url, self._keys.namespace)
        self.check(epoch, self._number(seq, epoch))
        return replies

    def _number(self, seq: str | None, epoch: str | None) -> int:
        """Return the seq that the mirror names. Raise Damaged if no daemon writes it like that."""
        number = number_of(seq or "0")
        if number is None:
            raise self._placeless(seq, epoch)
        return number

    def _placeless(self, seq: str | None, epoch: str | None) -> Damaged:
        place = f"seq {seq!r:.50}, epoch {epoch!r:.50}"
        return Damaged(f"the mirror at {masked(self._url)} does not tell where it is: {place}")


def no_mirror(url: str, namespace: str) -> Unavailable:
    """Return the error for a server without a mirror of the namespace."""
    return Unavailable(
        f"there is no mirror of the namespace {namespace!r} at {masked(url)} yet, or it is being built anew",
        hint="start the leader with 'blocksd run', or correct --namespace or --redis here; local files stay as they are",
    )


def _size(reply: _Reply) -> int:
    """Return about how many bytes the text of a file has, by the fields in `_LIGHT`."""
    if isinstance(reply, Damaged):
        return 0
    return (number_of(reply[-1]) or 0) + sum(len(text or "") for text in reply)


def texts(labels: Iterable[object]) -> list[str]:
    """Return those of the labels that are UTF-8: no block has another one, whatever is in Redis."""
    found = []
    for label in labels:
        with suppress(UnicodeEncodeError):
            if isinstance(label, str) and (label.isascii() or label.encode()):
                found.append(label)
    return found


def _is_epoch(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _is_known(reply: _Reply, known: tuple[int, str] | None) -> bool:
    """Return True if the fields in `_LIGHT` are of this version and form."""
    if known is None or isinstance(reply, Damaged) or reply[0] != str(known[0]):
        return False
    return _form_of(_form_fields(reply)) == known[1]


def _form_fields(reply: Sequence[str | None]) -> dict[str, str]:
    """Return the fields in `_FORM` that a reply has."""
    return {name: text for name, text in zip(_FORM, reply[1:], strict=False) if text is not None}


def _form_of(fields: Mapping[str, str]) -> str:
    """Return the digest of a block's own digest and of all else that the mirror shows of its file, but its value."""
    return blake2b(json.dumps(sorted(fields.items())).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _wanted(label: str, reply: _Reply) -> Shown:
    """Return the file of a block by the fields in `_ALL`; None: its hash is not there, or has no file."""
    if isinstance(reply, Damaged):
        return Damaged(f"the mirror does not show the file of {label!r}: {reply.message}", label=label)
    fields, version, value = _form_fields(reply), reply[0], reply[-1]
    if version is None or (is_properties(label) and "file" not in fields):
        return None
    try:
        form = form_shown(fields)
        path = form.path or path_of_label(label)
        if label_of_path(path) != label or not (path.endswith(SUFFIX) or is_properties(path)):
            raise ValueError(f"the path {path[:80]!r} is of another label")
        number = number_of(version)
        if number is None or "digest" not in fields:
            raise ValueError(f"it has no digest, or no version, but {version[:80]!r}")
        if value is None and form.raw is None:
            raise ValueError("it has no value")
        data = form.data(value or "")
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is {len(data)} bytes, over the {MAX_BYTES} that are read")
        return Wanted(path, label, number, _form_of(fields), form.mode | stat.S_IRUSR, data)
    except (ValueError, InvalidLabel) as error:
        return Damaged(f"the mirror does not show the file of {label!r}: {error!s:.200}", label=label)
