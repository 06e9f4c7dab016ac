"""The protocol between a client and Redis, without any I/O: commands, requests, replies and errors."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import hiredis

from blocksd.errors import Damaged, InvalidRequest, NotFound, Unavailable, from_json
from blocksd.mirror.connection import Translated
from blocksd.mirror.view import BlockView, view_of
from blocksd.model.revision import OPERATOR
from blocksd.protocol.numbers import seconds, whole
from blocksd.requests.request import MAX_BYTES
from blocksd.settings.record import looked_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocksd.mirror.keys import Keys

Command = tuple[str | int, ...]
"""A Redis command, word by word."""

OnConflict = Literal["fail", "merge", "overwrite"]

REPLY_SECONDS = 10.0
"""How long a client waits for Redis."""
TIMEOUT_SECONDS = 30.0
"""How long a client waits for the daemon, unless the caller says otherwise."""
WAIT_SECONDS = 1.0
"""How long one command waits for the daemon's reply: less than any connection waits for Redis."""
LISTEN_REPLY_SECONDS = 5.0
"""How long a watch waits for Redis, apart from listening."""
MANY_LOOPS = "this client is in use in another event loop: make a client in each"
PROTOCOL = 2
"""The protocol of a watch, in which a pong comes in order with the messages, and looks like one."""
_LONGEST_PAUSE = 1.0


def reading_mirror(url: str) -> _Reading:
    """Translate errors. A key of another type, until the daemon repairs it, is a mirror that does not serve."""
    return _Reading(url)


class _Reading(Translated):
    """The context of `reading_mirror`."""

    __slots__ = ()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            super().__exit__(kind, error, traceback)
        except Damaged as damage:
            raise Damaged(f"the mirror cannot be read: {damage.__cause__ or damage}") from damage


def packed(commands: Iterable[Command]) -> bytes:
    """The bytes by which commands are sent; redis-py makes them in Python for asyncio code, word by word."""
    pack: Any = hiredis.pack_command
    # Encoded as words of replies are decoded. A function for each word would take as long as the rest.
    encoded = [
        tuple([word if isinstance(word, int) else word.encode("utf-8", "surrogateescape") for word in command])
        for command in commands
    ]
    return b"".join([pack(command) for command in encoded])


def moved_to(url: str, error: Exception) -> str:
    """The URL of the daemon's server now, after `error` at the one it had. Raises `error` when it is the same."""
    found = looked_up(url)
    if found == url:
        raise error
    return found


class Request:
    """One request until its reply: the commands to send next, and the meaning of the answers.

    The daemon replies when the file is replaced, the revision is in the history and the mirror shows it. When the
    connection fails, the same request is sent again: under one id, it is done once.
    """

    def __init__(
        self,
        keys: Keys,
        actor: str,
        op: str,
        *,
        label: str | None = None,
        name: str | None = None,
        args: Mapping[str, Any] | None = None,
        expect_version: int | None = None,
        expect_id: str | None = None,
        on_conflict: OnConflict | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
        by: str | None = None,
    ) -> None:
        """Raises InvalidRequest when the request cannot be sent as JSON, and InvalidField when a number is none."""
        seconds("timeout_seconds", timeout_seconds)
        if expect_version is not None:
            expect_version = whole("expect_version", expect_version)
        self._id = request_id or str(uuid.uuid4())
        self._keys = keys
        self._actor = actor
        self._seconds = timeout_seconds
        self._give_up_at = time.monotonic() + timeout_seconds
        expect = {name: what for name, what in (("version", expect_version), ("id", expect_id)) if what is not None}
        deadline = datetime.now(UTC) + timedelta(seconds=timeout_seconds)
        request = {
            "id": self._id,  # first, so that it is found in a request that cannot be read whole
            "op": op,
            "label": label,
            "name": name,
            "args": args,
            "expect": expect or None,
            "on_conflict": on_conflict,
            "deadline": deadline.isoformat(timespec="milliseconds"),
            "by": by,
        }
        self._put: Command = ("XADD", keys.inbox(actor), "*", "request", _encoded(request))
        self._is_put = False
        self._master: object = None
        self._is_kept = True
        self._failures = 0
        self._trouble: Unavailable | None = None

    @property
    def is_open(self) -> bool:
        """True while there is time left for the reply."""
        return self._left() > 0

    def _left(self) -> float:
        return self._give_up_at - time.monotonic()

    def aim(self, master: object) -> None:
        """Put the request into the inbox again, if another server than before is the master: that one may not have it."""
        if master != self._master:
            self._master, self._is_put = master, False

    def check_commands(self) -> Sequence[Command]:
        """Ask if the agent is known, before a request is put into its inbox."""
        if self._actor == OPERATOR or self._is_put:
            return ()
        return ("ZSCORE", self._keys.agents, self._actor), ("HGET", self._keys.meta, "epoch")

    def check(self, replies: Sequence[Any]) -> None:
        """Raise NotFound when the agent is not known, so that nobody reads what it sends."""
        if replies and replies[0] is None and replies[1] is not None:
            raise NotFound(f"there is no agent {self._actor!r}", agent=self._actor)

    def commands(self) -> Sequence[Command]:
        """Put the request into the inbox, and wait for the reply: one round trip."""
        seconds = max(min(self._left(), WAIT_SECONDS), 0.01)
        wait: Command = ("BLPOP", self._keys.reply(f"{self._actor}:{self._id}"), f"{seconds:.3f}")
        return *(() if self._is_put else (self._put,)), ("EXISTS", self._keys.lease), wait

    def take(self, replies: Sequence[Any]) -> dict[str, Any] | None:
        """The daemon's reply among the answers to `commands`, or None: go on waiting.

        Raises:
            BlocksdError: the daemon refuses: the exception of the reply's code, with its facts.
        """
        *_, self._is_kept, reply = replies
        self._trouble, self._failures, self._is_put = None, 0, True
        return None if reply is None else outcome(reply[1], self._id)

    def failed(self, error: Unavailable) -> float:
        """Note that Redis did not serve; the seconds to wait before the next attempt."""
        self._trouble, self._is_put = error, False
        self._failures = min(self._failures + 1, 8)
        return max(min(0.05 * (1 << self._failures), _LONGEST_PAUSE, self._left()), 0.0) * random.uniform(0.5, 1.0)

    def unanswered(self) -> Unavailable:
        """The error when there was no reply in time: the request may or may not have been done."""
        unknown = f"whether the request {self._id} was done is not known"
        if self._trouble is not None:
            facts = {**self._trouble.facts, "request_id": self._id}
            return Unavailable(f"{self._trouble.message}; {unknown}", **facts)
        who = "the daemon has not replied" if self._is_kept else "no daemon is in charge, and none has replied"
        return Unavailable(f"{who} within {self._seconds:g} s; {unknown}", request_id=self._id)


def _encoded(request: Mapping[str, Any]) -> str:
    """The JSON of a request, without what is null. Raises InvalidRequest when it has none in UTF-8."""
    text = _json("the request", "args", {name: value for name, value in request.items() if value is not None})
    size = len(text.encode("utf-8"))
    if size > MAX_BYTES:  # the daemon would refuse it, but Redis would have to hold it first
        raise InvalidRequest(f"the request is {size} bytes, over the {MAX_BYTES} allowed", field="request")
    return text


def _json(what: str, field: str, value: object) -> str:
    """The JSON of a value, which has some in UTF-8. Raises InvalidRequest, which names the argument, when it has none."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
        text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        arguments = value.get("args") if isinstance(value, Mapping) and field == "args" else None
        for name, one in (arguments or {}).items():
            _json(name, f"args.{name}", one)
        raise InvalidRequest(f"{what} cannot be written as JSON: {str(error)[:200]}", field=field) from None
    return text


def _plain(value: object) -> object:
    """The collections that JSON has no name for, as those it has."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Collection) and not isinstance(value, (bytes, bytearray)):
        return sorted(value) if isinstance(value, AbstractSet) else list(value)
    raise TypeError(f"there is no JSON for {type(value).__name__}")


def outcome(text: str, request_id: str) -> dict[str, Any]:
    """A reply of the daemon. Raises what it refuses, and Damaged when it is no reply."""
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


def block_of(reply: Mapping[str, Any]) -> BlockView:
    """The block that a reply shows. Raises Damaged when it shows none."""
    block = reply.get("block")
    if not isinstance(block, dict):
        raise Damaged("a reply shows no block where one must be")
    return view_of(block)
