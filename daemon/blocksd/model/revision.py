"""`Revision` and `Change`, and their JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from blocksd.errors import Damaged
from blocksd.model.attachment import NOBODY
from blocksd.model.block import block_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blocksd.model.block import Block

Kind = Literal["created", "updated", "deleted", "renamed"]

FILE = "file"
"""The author of a file save."""
OPERATOR = "operator"
"""The actor and author for the person who manages the blocks."""
MERGE = "merge"
"""The author of a merge of a stale save with the text written on request meanwhile."""


MAX_BY = 100
"""How many characters the `by` of a request may have."""


def is_by(by: object) -> bool:
    """Return True if a request may say this of who the operator is: 1 to `MAX_BY` printable characters, no space at an end."""
    return isinstance(by, str) and 0 < len(by) <= MAX_BY and by.isprintable() and by == by.strip()


def timestamp(seconds: float) -> str:
    """Return a time for revisions and problems: RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def milliseconds(at: str) -> int:
    """Return a time that `timestamp` made as milliseconds since 1970."""
    return round(datetime.fromisoformat(at).timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class Revision:
    """One accepted change to one block, with the whole block after it.

    `seq` is its gap-free number among all revisions of the folder, `version` among those of the block. `agents` are the
    ids attached after it, `attached` and `detached` those that it added and removed. `block` is None after a deletion.
    `created_at` is the time of the first revision since the last deletion. Times as `timestamp` makes them.

    `renamed_from` is the label before a renaming. A revision by undo or redo, or of nothing but the label or the agents
    that match a pattern, stands at the version `position`. `reverts` are versions by others whose text a save took away. A
    stale save was made of version `stale_base`, and a revision of the author `merge` follows it. The block's id is made of
    `origin`, or of the label if that is None. `by` says who the operator was that asked for it, if the request did.

    `form` are the fields by which the mirror shows the form of the block's file; None: unknown, as of earlier versions. It
    `is_reformed` unless the file had that form before.
    """

    seq: int
    label: str
    version: int
    kind: Kind
    block: Block | None
    at: str
    created_at: str
    author: str = FILE
    fields: tuple[str, ...] = ()
    agents: frozenset[str] = NOBODY
    attached: tuple[str, ...] = ()
    detached: tuple[str, ...] = ()
    digest: str | None = None
    request_id: str | None = None
    renamed_from: str | None = None
    position: int | None = None
    reverts: tuple[int, ...] = ()
    stale_base: int | None = None
    origin: str | None = None
    by: str | None = None
    form: Mapping[str, str] | None = field(default=None, compare=False)
    is_reformed: bool = field(default=True, compare=False)

    @property
    def who(self) -> str:
        """The author for people to read; of an operator who is named, with the name."""
        return who(self.author, self.by)

    @property
    def id(self) -> str:
        """The id of its block."""
        return block_id(self.origin or self.label)

    @property
    def is_on_request(self) -> bool:
        """False if a person or program saved the file in the folder: then the daemon has not written it."""
        return self.author != FILE or self.request_id is not None

    @property
    def is_edit(self) -> bool:
        """False if agents that match a pattern came or went, and the block stayed as it was."""
        return self.kind != "updated" or self.position is None or self.request_id is not None

    def summary(self) -> dict[str, object]:
        """Return kind, block, time and author."""
        names = ("seq", "kind", "label", "version", "author", "by", "at")
        return {name: getattr(self, name) for name in names}


def who(author: str | None, by: str | None) -> str:
    """Return an author for people to read, and who that was, if it is known: `operator (ann)`."""
    return str(author) if by is None else f"{author} ({by})"


_TEXT, _NUMBER, _LIST = (str, type(None)), (int, type(None)), (list, type(None))
_KEYS: dict[str, tuple[type, ...]] = {
    "kind": (str,),
    "seq": _NUMBER,
    "version": _NUMBER,
    **dict.fromkeys(("epoch", "label", "author", "by", "at", "from", "request_id"), _TEXT),
    **dict.fromkeys(("fields", "attached", "detached", "reverts"), _LIST),
}
"""The types of the values that a notification may have under these keys."""


def _is_one_of(value: object, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Change:
    """A notification as a subscriber receives it.

    `kind` is a revision's (`created`, `updated`, `deleted`, `renamed`), or `reset` (the mirror was built anew at `seq`).
    Without a `seq` it is `repaired` (the mirror was wrong about the blocks in `labels` and the agents in `raw["agents"]`),
    `rejected` or `cleared` (a problem came or went), `source`, `opened` or `closed` (files beside the blocks). `raw` is all
    that was sent.
    """

    kind: str
    seq: int | None
    epoch: str | None
    label: str | None
    raw: dict[str, Any]

    @classmethod
    def loads(cls, text: str) -> Change:
        """Read a notification. Raise Damaged if it is none: a client that may publish may publish anything."""
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError):
            raw = None
        if not isinstance(raw, dict) or not all(_is_one_of(raw.get(key), kinds) for key, kinds in _KEYS.items()):
            raise Damaged(f"there is {text[:40]!r} where a change must be")
        for key in ("fields", "attached", "detached"):
            if not all(isinstance(one, str) for one in raw.get(key) or ()):
                raise Damaged(f"a change names {str(raw[key])[:40]} as its {key}")
        if not all(_is_one_of(one, (int,)) for one in raw.get("reverts") or ()):
            raise Damaged(f"a change names {str(raw['reverts'])[:40]} as the versions that it reverts")
        return cls(raw["kind"], raw.get("seq"), raw.get("epoch"), raw.get("label"), raw)

    @property
    def version(self) -> int | None:
        """The block's version after it."""
        return self.raw.get("version")

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields that changed; of a new block, those that are not at their defaults."""
        return tuple(self.raw.get("fields") or ())

    @property
    def labels(self) -> tuple[str, ...]:
        """The blocks it is about: of `repaired`, those to read again."""
        return tuple(self.raw.get("labels", () if self.label is None else (self.label,)))

    @property
    def attached(self) -> tuple[str, ...]:
        """The agents that came."""
        return tuple(self.raw.get("attached") or ())

    @property
    def detached(self) -> tuple[str, ...]:
        """The agents that went."""
        return tuple(self.raw.get("detached") or ())

    @property
    def author(self) -> str | None:
        """The author: `file`, `operator`, `merge` or an agent id."""
        return self.raw.get("author")

    @property
    def by(self) -> str | None:
        """The name that the operator who asked for it gave, if one did."""
        return self.raw.get("by")

    @property
    def at(self) -> str | None:
        """The time, as `timestamp` makes it."""
        return self.raw.get("at")

    @property
    def renamed_from(self) -> str | None:
        """The label the block had before, when it was renamed."""
        return self.raw.get("from")

    @property
    def reverts(self) -> tuple[int, ...]:
        """The versions by others whose text a save took away; `blocks.merge` brings it back."""
        return tuple(self.raw.get("reverts") or ())

    @property
    def request_id(self) -> str | None:
        """The request that asked for it, if one did."""
        return self.raw.get("request_id")


UNNUMBERED = ("repaired", "file")
"""The kinds of changes that are in the stream and are no revisions, besides resets."""


def reset(seq: int, epoch: str, at: str) -> str:
    """Return the change that says: the mirror was built anew, read everything again."""
    return json.dumps({"seq": seq, "kind": "reset", "at": at, "epoch": epoch})


def repaired(labels: Sequence[str], agents: Sequence[str], indexes: Sequence[str], epoch: str, at: str) -> str:
    """Return the change that says: these blocks, lists and indexes were wrong in the mirror, and are right again."""
    facts = {"labels": list(labels), "agents": list(agents), "indexes": list(indexes)}
    return json.dumps({"seq": None, "kind": "repaired", **facts, "at": at, "epoch": epoch}, ensure_ascii=False)
