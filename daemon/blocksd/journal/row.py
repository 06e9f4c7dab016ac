"""`Revision` ↔ a row of the journal's table of revisions."""

from __future__ import annotations

import json
import zlib
from hashlib import blake2b
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from blocksd.errors import VersionDamaged
from blocksd.model.block import Block
from blocksd.model.revision import Revision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COLUMNS = (
    "seq, label, version, kind, value, facts, entries, agents, fields, attached, detached, digest, author, at, "
    "created_at, request_id, renamed_from, position, reverts, stale_base, origin, operator"
)
MARKS = ", ".join("?" * len(COLUMNS.split(",")))
STORED = f"{COLUMNS}, checksum"
"""What the log has of a revision; the checksum is of all but its value and facts, which have a digest."""
SELDOM = COLUMNS.split(", ").index("request_id")
"""The place in a row from which on most revisions have nothing but their checksum."""
ENTRIES, AGENTS = 6, 7
"""Where in a row the numbers of its two lists of agents are."""

_NAMES = COLUMNS.split(", ")
_VALUE, _FACTS, _DIGEST = (_NAMES.index(name) for name in ("value", "facts", "digest"))
_ALWAYS = _NAMES.index("origin")  # so many columns are in every checksum
_LISTS = ("fields", "attached", "detached")
_first = attrgetter("seq", "label", "version", "kind")
_lists = attrgetter(*_LISTS)
_last = attrgetter("digest", "author", "at", "created_at", "request_id", "renamed_from", "position")
ROW_CHARS = 1000  # about what a revision takes besides its value
_COMPRESS_CHARS = 4096  # what is longer takes more than a page of the log
_FASTEST = 1
_decoded = json.JSONDecoder().raw_decode
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def chars_of(revision: Revision) -> int:
    """Return about how many characters a revision takes in the log."""
    return ROW_CHARS + (len(revision.block.value) if revision.block is not None else 0)


def stored_row(revision: Revision, entries: int | None, agents: int | None) -> tuple[object, ...]:
    """Return the row of a revision, in the order of `STORED`, with the numbers of its two lists of agents."""
    block = revision.block
    row = (
        *_first(revision),
        _stored(block.value) if block is not None else None,
        block.facts if block is not None else None,
        entries,
        agents,
        *map(",".join, _lists(revision)),
        *_last(revision),
        ",".join(map(str, revision.reverts)) or None,
        revision.stale_base,
        revision.origin,
        revision.by,
    )
    return (*row, checksum_of(row))


def _stored(value: str) -> str | bytes:
    """Return the text, or the same compressed if that saves pages of the log: they cost more than to compress it."""
    if len(value) < _COMPRESS_CHARS:
        return value
    data = value.encode("utf-8")
    compressed = zlib.compress(data, _FASTEST)
    return compressed if len(compressed) < len(data) else value


def stored_form(form: Mapping[str, str] | None) -> str | bytes | None:
    """Return the form of a file as the journal has it, unless it is the usual one: JSON behind its checksum."""
    if form is None:
        return None
    text = _encode(form)
    return _stored(f"{zlib.crc32(text.encode()):08x}{text}")


def form_of(stored: Any) -> dict[str, str] | None:
    """Return the form that is stored, empty for the usual one (''); None if it is unknown, or not what was written."""
    if stored == "":
        return {}
    try:
        whole = text_of(stored)
        form: dict[str, str] = _decoded(whole, 8)[0]
        return form if int(whole[:8], 16) == zlib.crc32(whole[8:].encode()) else None
    except (TypeError, ValueError, zlib.error):
        return None


def checksum_of(row: Sequence[object]) -> int:
    """Return the checksum of a row in the order of `COLUMNS`.

    Columns that were added later are in it up to the last that is not null: a row without them has the one it always had.
    """
    end = len(_NAMES)
    while end > _ALWAYS and row[end - 1] is None:
        end -= 1
    return zlib.crc32(repr((*row[:_VALUE], row[_FACTS] is None, *row[ENTRIES:end])).encode("utf-8", "replace"))


def check(row: Sequence[Any], *, unchecked: int = 0) -> None:
    """Check that a row of `STORED` is as it was written; up to the seq `unchecked` rows may have no checksum.

    Raise VersionDamaged if it is not.
    """
    seq, label, version, facts, checksum = row[0], row[1], row[2], row[_FACTS], row[-1]
    has_none = checksum is None and type(seq) is int and seq <= unchecked
    is_sound = has_none or checksum == checksum_of(row)
    if is_sound and facts is not None:
        try:
            is_sound = row[_DIGEST] == blake2b(f"{facts}\n{text_of(row[_VALUE])}".encode(), digest_size=16).hexdigest()
        except (TypeError, ValueError, zlib.error):
            is_sound = False
    if not is_sound:
        raise VersionDamaged(
            f"version {version!r:.20} of {label!r:.200} is damaged in the journal: it is not what was written",
            label=str(label),
            version=version if type(version) is int else None,
            seq=seq,
        )


def text_of(value: str | bytes) -> str:
    """Return a value as it was before it was compressed, if it was.

    Raise TypeError, ValueError or zlib.error if it is neither a text nor a compressed one.
    """
    return value if isinstance(value, str) else zlib.decompress(value).decode("utf-8")


def revision_of(
    row: Sequence[Any], entries: tuple[str, ...], agents: frozenset[str], form: Mapping[str, str] | None = None
) -> Revision:
    """Return the revision in a row, with the lists of agents whose numbers are in it, and the form of its file."""
    seq, label, version, kind, value, facts = row[:ENTRIES]
    fields, attached, detached, digest, author, at, created_at, request, renamed, position, reverts, *last = row[
        8 : len(_NAMES)
    ]
    block = None
    if facts is not None:
        known = _decoded(facts)[0]
        known["tags"] = tuple(known["tags"])
        block = Block(value=text_of(value), agents=entries, _facts=facts, **known)
    came, went = words(attached) if attached else (), words(detached) if detached else ()
    first = (seq, label, version, kind, block, at, created_at, author, words(fields), agents, came, went)
    return Revision(
        *(*first, digest, request, renamed, position),
        *(tuple(map(int, words(reverts))) if reverts else (), *last, form),
    )


def words(text: str) -> tuple[str, ...]:
    """Split a text at its commas: neither a field nor an agent has one in its name."""
    return tuple(text.split(",")) if text else ()


def digest_of_list(base: int | None, text: str) -> bytes:
    """Return the digest of a list as it is stored, which shows damage to it."""
    whole = f"{text}" if base is None else f"{base};{text}"
    return blake2b(whole.encode("utf-8", "replace"), digest_size=16).digest()
