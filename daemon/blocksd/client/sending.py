"""One request to the daemon, until it is replied to: a plan.

When it returns, what was asked for is done: the file is replaced, the revision is in the history, and the mirror shows
it. What the daemon refuses is raised, as the exception of the reply's code, with its facts.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from blocksd.client.plan import Pause, ask
from blocksd.errors import Damaged, InvalidRequest, NotFound, Unavailable, from_json
from blocksd.mirror.view import BlockView, view_of
from blocksd.model.revision import OPERATOR
from blocksd.requests.request import MAX_BYTES

if TYPE_CHECKING:
    from blocksd.client.plan import Plan
    from blocksd.mirror.keys import Keys

OnConflict = Literal["fail", "merge", "overwrite"]

TIMEOUT_SECONDS = 30.0
_WAIT_SECONDS = 1.0  # at a time; less than any connection waits for a reply
_LONGEST_PAUSE = 1.0


class Terms(TypedDict, total=False):
    """How a request is made."""

    timeout_seconds: float
    """For how long its reply is waited for. What is not done by then is not done later either."""
    request_id: str | None
    """A request that is made again under the id of an earlier one is done once, and has the first outcome."""


class Expectation(Terms, total=False):
    """How a request to change one block is made."""

    expect_version: int | None
    """The version the block must have."""
    on_conflict: OnConflict | None
    """What to do when it has another: `fail` (VersionConflict, the default), `overwrite`, or `merge` what is asked for
    with what was written since, which is a MergeConflict where both changed the same place."""


def send(
    keys: Keys,
    actor: str,
    op: str,
    *,
    label: str | None = None,
    name: str | None = None,
    args: Mapping[str, Any] | None = None,
    expect_version: int | None = None,
    on_conflict: OnConflict | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    request_id: str | None = None,
) -> Plan[dict[str, Any]]:
    """Make one request, and wait for the reply to it: one round trip.

    When the connection fails, the same request is sent again: under one id, it is done once.

    Raises:
        Unavailable: there was no reply in time; whether it was done is not known. Facts: `request_id`.
        NotFound: `actor` is no agent that is known, so that nobody reads what it sends.
        BlocksdError: the daemon refuses.
    """
    request_id = request_id or str(uuid.uuid4())
    give_up_at = time.monotonic() + timeout_seconds
    request = {
        "id": request_id,  # first, so that it is found in a request that cannot be read whole
        "op": op,
        "label": label,
        "name": name,
        "args": args,
        "expect": None if expect_version is None else {"version": expect_version},
        "on_conflict": on_conflict,
        "deadline": _deadline(timeout_seconds),
    }
    put = ("XADD", keys.inbox(actor), "*", "request", _encoded(request))
    failures, is_put, is_kept = 0, False, True
    trouble: Unavailable | None = None
    while (left := give_up_at - time.monotonic()) > 0:
        wait = ("BLPOP", keys.reply(actor, request_id), f"{max(min(left, _WAIT_SECONDS), 0.01):.3f}")
        try:
            if actor != OPERATOR and not is_put:
                yield from _check_agent(keys, actor)
            *_, is_kept, reply = yield from ask(*(() if is_put else (put,)), ("EXISTS", keys.lease), wait)
        except Unavailable as error:
            trouble, is_put = error, False
            failures = min(failures + 1, 8)
            yield Pause(min(0.05 * 2**failures, _LONGEST_PAUSE, left) * random.uniform(0.5, 1.0))
            continue
        trouble, failures, is_put = None, 0, True
        if reply is not None:
            return _outcome(reply[1], request_id)
    raise _unanswered(request_id, timeout_seconds, trouble, is_kept=bool(is_kept))


def _deadline(timeout_seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=timeout_seconds)).isoformat(timespec="milliseconds")


def _encoded(request: Mapping[str, Any]) -> str:
    """The JSON of a request, without what is null. Raises InvalidRequest when it has none in UTF-8."""
    try:
        text = json.dumps(
            {name: value for name, value in request.items() if value is not None},
            ensure_ascii=False,
            allow_nan=False,
            default=_plain,
        )
        size = len(text.encode("utf-8"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request cannot be written as JSON: {str(error)[:200]}", field="args") from None
    if size > MAX_BYTES:  # the daemon would refuse it, but Redis would have to hold it first
        raise InvalidRequest(f"the request is {size} bytes, over the {MAX_BYTES} allowed", field="request")
    return text


def _plain(value: object) -> object:
    """The collections that JSON has no name for, as those it has."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Collection) and not isinstance(value, (bytes, bytearray)):
        return sorted(value) if isinstance(value, AbstractSet) else list(value)
    raise TypeError(f"there is no JSON for {type(value).__name__}")


def _check_agent(keys: Keys, agent: str) -> Plan[None]:
    score, epoch = yield from ask(("ZSCORE", keys.agents, agent), ("HGET", keys.meta, "epoch"))
    if score is None and epoch is not None:
        raise NotFound(f"there is no agent {agent!r}", agent=agent)


def _outcome(text: str, request_id: str) -> dict[str, Any]:
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError):
        reply = None
    if isinstance(reply, dict):
        if reply.get("ok") is True:
            return reply
        if reply.get("ok") is False and isinstance(reply.get("error"), dict):
            raise from_json(reply["error"])
    raise Damaged(f"there is {text[:40]!r} where the reply must be", request_id=request_id)


def _unanswered(request_id: str, seconds: float, trouble: Unavailable | None, *, is_kept: bool) -> Unavailable:
    unknown = f"whether the request {request_id} was done is not known"
    if trouble is not None:
        return Unavailable(f"{trouble.message}; {unknown}", **{**trouble.facts, "request_id": request_id})
    who = "the daemon has not replied" if is_kept else "no daemon is in charge, and none has replied"
    return Unavailable(f"{who} within {seconds:g} s; {unknown}", request_id=request_id)


def block_of(reply: Mapping[str, Any]) -> BlockView:
    """The block that a reply shows. Raises Damaged when it shows none."""
    block = reply.get("block")
    if not isinstance(block, dict):
        raise Damaged("a reply shows no block where one must be")
    return view_of(block)
