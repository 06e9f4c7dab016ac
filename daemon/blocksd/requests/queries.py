"""Answers requests that change no block: its versions, one of them, the daemon's status, and deletions held back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.errors import InvalidRequest, NotFound, VersionDamaged
from blocksd.model.label import parse_label
from blocksd.model.nearest import nearest
from blocksd.model.properties import parse_versioned
from blocksd.model.revision import OPERATOR
from blocksd.requests.arguments import named, private_label
from blocksd.requests.reply import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blocksd.model.revision import Revision
    from blocksd.requests.request import Request
    from blocksd.state.state_draft import StateDraft

ACCEPT_DELETIONS = "accept_deletions"
QUERIES = ("history", "version", "status", ACCEPT_DELETIONS)

_MOST_VERSIONS = 1000
_AT_ONCE = 16  # versions read together; each may have 4 MiB
_MOST_CHARS = 8 * 1024 * 1024  # of versions read for one reply: each is checked as a whole before it is listed


def answer_query(
    request: Request, draft: StateDraft, status: Callable[[], Mapping[str, Any]], held_back: Callable[[], int | None]
) -> dict[str, Any]:
    """Return the facts of the reply, with what earlier requests of the round have changed.

    `held_back` returns how many deletions are held back; None: the daemon has not halted.

    Raises:
        BlocksdError: there is no such block or version, or an argument cannot be so.
    """
    if request.op == "status":
        request.only()
        return {"status": dict(status())}
    if request.op == ACCEPT_DELETIONS:
        request.only()
        if request.actor != OPERATOR:
            raise InvalidRequest("an agent may not accept deletions", field="op")
        return {"accepted": held_back()}
    label = _label(request, draft)
    if request.op == "version":
        request.only("version")
        return _version(draft, label, request.number("version", least=1))
    request.only("limit", "before")
    limit = min(request.number("limit", 50, least=1), _MOST_VERSIONS)
    before = None if request.args.get("before") is None else request.number("before", least=1)
    return _history(draft, label, limit, before)


def _label(request: Request, draft: StateDraft) -> str:
    """The label of the block that a request names, which may be deleted; to an operator, also of an agent's properties."""
    if request.actor == OPERATOR:
        return parse_versioned(named(request.label, "label", "operators name a block by its label"))
    name = parse_label(named(request.name, "name", "agents name a block by the name they have for it"))
    attached = draft.attachments.attached
    if request.actor in attached.get(name, ()):
        return name
    private = private_label(request.actor, name)
    if request.actor not in attached.get(private, ()) and draft.newest(private) is None:
        raise NotFound(f"{request.actor!r} has no block {name!r}", agent=request.actor, name=name)
    return private


def _version(draft: StateDraft, label: str, number: int) -> dict[str, Any]:
    found = draft.version(label, number)
    if found is None:
        if draft.newest(label) is None:
            raise _unknown(draft, label)
        raise NotFound(f"version {number} of {label!r} is not kept", label=label, version=number)
    return {**_summary(found), "block": shown(found)}


def _history(draft: StateDraft, label: str, limit: int, before: int | None) -> dict[str, Any]:
    """The versions before `before`, newest first; `next` is the `before` of those that follow, null at the end."""
    found: list[Revision] = []
    damaged: list[VersionDamaged] = []
    if draft.newest(label) is None:
        raise _unknown(draft, label)
    name = label
    for revision in reversed(draft.revisions):  # of this round: they are not in the journal yet
        if revision.label == name:
            found.append(revision)
            name = revision.renamed_from or name
    found = [one for one in found if before is None or one.version < before][:limit]
    least = min((one.version for one in found), default=before)
    chars, size = 0, _AT_ONCE
    while (left := limit - len(found) - len(damaged)) > 0 and chars <= _MOST_CHARS and size == _AT_ONCE:
        wrong: list[VersionDamaged] = []
        some = draft.state.journal.history(name, limit=min(_AT_ONCE, left), damaged=wrong, before=least)
        found, damaged, size = found + some, damaged + wrong, len(some) + len(wrong)
        least = min([one.version for one in some] + [int(str(one.facts["version"])) for one in wrong], default=least)
        chars += sum(len(one.block.value) for one in some if one.block is not None)
    is_more = bool(draft.state.journal.history(name, limit=1, damaged=damaged[:0], before=least))
    return {
        "label": label,
        "versions": [_summary(one) for one in found],
        "damaged": [one.facts["version"] for one in damaged],
        "next": least if is_more else None,
    }


def _unknown(draft: StateDraft, label: str) -> NotFound:
    return NotFound(f"there is no block {label!r}", label=label, near=nearest(label, draft.state.paths))


def _summary(revision: Revision) -> dict[str, Any]:
    return {
        **{
            name: getattr(revision, name)
            for name in ("seq", "version", "kind", "label", "at", "author", "by", "fields")
        },
        **{name: getattr(revision, name) for name in ("attached", "detached", "digest", "request_id", "reverts")},
        "from": revision.renamed_from,
        "chars": None if revision.block is None else len(revision.block.value),
    }
