"""Makes the replies to requests."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from blocksd.errors import InvalidRequest
from blocksd.mirror.view import ORDER
from blocksd.model.block import block_id
from blocksd.model.label import PROPERTIES_END, is_properties, owner
from blocksd.model.properties import PROPERTIES, properties_of
from blocksd.model.revision import Revision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from blocksd.errors import BlocksdError
    from blocksd.requests.request import Entry, Request

MAX_REPLY = 1024 * 1024
"""How many characters of blocks a reply about several blocks shows; of the others it tells where they are."""

# How `refused` begins; replies may be long.
_REFUSED = re.compile(r'\{"id": "[^"]*", "ok": false, "error": \{"code": "(\w+)"')


class Answer(NamedTuple):
    """An entry is done. The reply is JSON; None: there is no id to reply to. `op` is None if it was no request."""

    entry: Entry
    id: str | None
    reply: str | None
    op: str | None = None

    @property
    def outcome(self) -> str:
        """`ok`, or the code of the error."""
        found = _REFUSED.match(self.reply) if self.reply is not None else None
        return found[1] if found else "ok" if self.reply is not None else InvalidRequest.code


def accepted(request_id: str, facts: Mapping[str, Any], mark: str) -> tuple[str, str]:
    """The reply that says it was done: as it is kept, with the mark of the request, and as it is sent."""
    head = {"id": request_id, "ok": True}
    if not facts.get("block") or list(facts)[-1] != "block":
        return marked(json.dumps({**head, **kept(facts)}), mark), json.dumps({**head, **facts})
    text = json.dumps({**head, **kept(facts)})
    return marked(text, mark), f"{text[: -len('true}')]}{json.dumps(facts['block'])}}}"


def carried_out(request: Request, facts: Mapping[str, Any], newest: Revision | Sequence[Revision]) -> tuple[str, str]:
    """The same, with the newest revision of the block, or with those of several blocks, in the order of the request."""
    found = _result(newest) if isinstance(newest, Revision) else _results(newest)
    return accepted(request.id, {**facts, **found}, request.mark)


def _result(newest: Revision) -> dict[str, Any]:
    return {"label": newest.label, "seq": newest.seq, "version": newest.version, "block": shown(newest)}


def _results(revisions: Sequence[Revision]) -> dict[str, Any]:
    """The facts of a reply about several blocks: a block once, and no more of them than a reply may hold."""
    results: list[dict[str, Any]] = []
    told: set[str] = set()
    left = MAX_REPLY
    for newest in revisions:
        result: dict[str, Any] = {"label": newest.label, "seq": newest.seq, "version": newest.version}
        size = len(newest.block.value) + len(newest.block.facts) if newest.block is not None else 0
        if newest.label not in told and size <= left:
            told.add(newest.label)
            left -= size
            result["block"] = shown(newest)
        results.append(result)
    return {"seq": max((one["seq"] for one in results), default=None), "results": results}


def shown(revision: Revision) -> dict[str, Any] | None:
    """Return a block, or an agent's properties, as replies show it: every field, as JSON types; None: it was deleted."""
    block = revision.block
    if block is None:
        return None
    if block.label.endswith(PROPERTIES_END) and is_properties(block.label):
        properties = properties_of(block)
        return {"agent": owner(block.label), **{key: getattr(properties, key) for key in PROPERTIES}}
    facts = {
        "id": block_id(revision.origin or revision.label),
        "version": revision.version,
        "chars": len(block.value),
        "digest": revision.digest,
        "created_at": revision.created_at,
        "updated_at": revision.at,
        "updated_by": revision.author,
    }
    return {name: facts[name] if name in facts else getattr(block, name) for name in ORDER}


def kept(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of the facts of a reply, from which the reply can be made again.

    A block is kept in its revision, not a second time: it is true here, beside the `seq` of the revision.
    """
    return {name: _kept(name, value) for name, value in facts.items()}


def _kept(name: str, value: Any) -> Any:
    if name == "block" and value is not None:
        return True
    return [kept(one) for one in value] if name == "results" else value


def repeated(outcome: str, block_of: Callable[[int], dict[str, Any] | None]) -> str:
    """Return a reply made again of what was kept of it; `block_of` is the block of a revision, None if it is not kept."""
    if '"block": ' not in outcome:
        return outcome
    reply = json.loads(outcome)
    for one in (reply, *reply.get("results", ())):
        if one.get("block") is True:
            one["block"] = block_of(one["seq"])
    error = reply.get("error", {})
    if isinstance(error.get("block"), int):
        error["block"] = block_of(error["block"])
    return json.dumps(reply)


_MARK = re.compile(r', "sent": "([0-9a-f]{16})"\}$')


def marked(outcome: str, mark: str) -> str:
    """Return an outcome as it is kept, with the mark of the request that it belongs to."""
    return f'{outcome[:-1]}, "sent": "{mark}"}}'


def unmarked(outcome: str, mark: str) -> str:
    """Return a kept outcome without its mark; older outcomes have none.

    Raises:
        InvalidRequest: it belongs to another request than that with this mark.
    """
    found = _MARK.search(outcome)
    if found is None:
        return outcome
    if found[1] != mark:
        raise InvalidRequest("another request was sent under this id: give each request a new one", field="id")
    return f"{outcome[: found.start()]}}}"


def refused(request_id: str, error: BlocksdError) -> str:
    """The reply that says why it was not."""
    return json.dumps({"id": request_id, "ok": False, "error": error.as_json()})


def kept_refusal(request_id: str, error: BlocksdError, newest: Revision | None) -> str:
    """Return the same as it is kept: in place of the block that it may show, the number of its `newest` revision."""
    facts = error.as_json()
    if facts.get("block") is not None:
        facts["block"] = newest.seq if newest is not None else None
    return json.dumps({"id": request_id, "ok": False, "error": facts})
