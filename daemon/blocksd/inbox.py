"""Requests in, replies out."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from blocksd.connection import connect, translated
from blocksd.errors import BlocksdError, InvalidRequest, Misconfigured, Unavailable
from blocksd.revision import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from blocksd.keys import Keys

OPS = (
    "create",
    "update",
    "append",
    "replace",
    "insert",
    "patch",
    "delete",
    "undo",
    "redo",
    "restore",
    "rename",
    "attach",
    "detach",
    "create_agent",
    "delete_agent",
    "batch",
    "open_file",
    "close_file",
)
ON_CONFLICT = ("fail", "merge", "overwrite")
"""What to do when the block is not of the version expected."""

MAX_BYTES = 1024 * 1024
"""How long a request may be, in UTF-8."""

_KEYS = ("id", "op", "label", "name", "args", "expect", "on_conflict", "deadline")
_KEYS_OF_PARTS = ("op", "label", "name", "args", "expect", "on_conflict")
_ID = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_ID_IN_TEXT = re.compile(r'"id"\s*:\s*"([A-Za-z0-9_.-]{1,100})"')
_ID_WITHIN = 1000
_REFUSED = re.compile(
    r'\{"id": "[^"]*", "ok": false, "error": \{"code": "(\w+)"'
)  # how `refused` begins; replies may be long

_READ_PER_INBOX = 16
_HELD = 1024
_HELD_CHARS = 8 * MAX_BYTES
_BLOCK_SECONDS = 0.5
_BACK_OFF_SECONDS = (0.05, 1.0)


class Entry(NamedTuple):
    """One entry of an inbox: whose, its id in the stream, and the text of its field `request`, if it has one."""

    actor: str
    id: str
    text: str | None


@dataclass(frozen=True, slots=True)
class Request:
    """What an actor asks for. The keys of the JSON that are not there are None; `args` is then empty."""

    entry: Entry
    id: str
    op: str
    args: Mapping[str, Any] = field(default_factory=dict)
    label: str | None = None
    name: str | None = None
    expect: int | None = None  # the version the block must have
    on_conflict: str | None = None
    deadline: datetime | None = None

    @property
    def actor(self) -> str:
        return self.entry.actor

    def texts(self, *names: str) -> list[str]:
        """These arguments, all of them texts, and no others.

        Raises:
            InvalidRequest: they are not what was given.
        """
        for name in self.args:
            if name not in names:
                takes = ", ".join(names)
                raise InvalidRequest(
                    f"{self.op} takes no argument {name[:80]!r}; it takes {takes}", field=f"args.{name[:80]}"
                )
        for name in names:
            if not isinstance(self.args.get(name), str):
                raise InvalidRequest(f"{self.op} needs the argument {name!r}, a text", field=f"args.{name}")
        return [self.args[name] for name in names]

    def part(self, given: object) -> Request:
        """One request of a batch: whose it is, and until when it may be done, the batch says.

        Raises:
            InvalidRequest: it is none.
        """
        if not isinstance(given, dict):
            raise InvalidRequest("a request is an object", field="args.requests")
        for key in given:
            if key not in _KEYS_OF_PARTS:
                keys = ", ".join(_KEYS_OF_PARTS)
                raise InvalidRequest(
                    f"a request in a batch has no key {str(key)[:80]!r}; the keys are {keys}", field=str(key)[:80]
                )
        return _request(self.entry, {**given, "id": self.id})

    def check_deadline(self, now: float) -> None:
        """Raises InvalidRequest when it is too late (`now` in seconds since 1970)."""
        if self.deadline is not None and self.deadline.timestamp() < now:
            raise InvalidRequest("the deadline has passed: nothing was done", field="deadline")


@dataclass(frozen=True, slots=True)
class Unusable:
    """An entry that is no request, and why. Without an `id` there is nowhere to reply to."""

    entry: Entry
    id: str | None
    error: BlocksdError


class Answer(NamedTuple):
    """An entry is done. The reply is JSON; None: whoever sent it cannot be told. `op` is None if it was no request."""

    entry: Entry
    id: str | None
    reply: str | None
    op: str | None = None

    @property
    def outcome(self) -> str:
        """`ok`, or the code of the error."""
        found = _REFUSED.match(self.reply) if self.reply is not None else None
        return found[1] if found else "ok" if self.reply is not None else InvalidRequest.code


def accepted(request_id: str, **facts: object) -> str:
    """The reply that says it was done."""
    return json.dumps({"id": request_id, "ok": True, **facts})


def refused(request_id: str, error: BlocksdError) -> str:
    """The reply that says why it was not."""
    return json.dumps({"id": request_id, "ok": False, "error": error.as_json()})


def parse(entry: Entry) -> Request | Unusable:
    """What an entry asks for."""
    request_id: str | None = None
    try:
        given = _load(entry.text)
        if isinstance(given.get("id"), str) and _ID.fullmatch(given["id"]):
            request_id = given["id"]
        return _request(entry, given)
    except InvalidRequest as error:
        if request_id is None and error.facts["field"] == "request" and entry.text is not None:
            # It could not be read whole. Requests begin with their id.
            found = _ID_IN_TEXT.search(entry.text[:_ID_WITHIN])
            request_id = found[1] if found else None
        return Unusable(entry, request_id, error)


def _load(text: str | None) -> dict[str, Any]:
    if text is None:
        raise InvalidRequest("the entry has no field 'request'", field="request")
    try:
        size = len(text.encode("utf-8"))
        given = json.loads(text, parse_constant=_no_number) if size <= MAX_BYTES else {}
        json.dumps(given, ensure_ascii=False).encode("utf-8")  # JSON can name half a character, UTF-8 cannot
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request is not JSON: {str(error)[:200]}", field="request") from None
    if size > MAX_BYTES:
        raise InvalidRequest(f"the request is {size} bytes, over the {MAX_BYTES} allowed", field="request")
    if not isinstance(given, dict):
        raise InvalidRequest("the request is not a JSON object", field="request")
    return given


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _request(entry: Entry, given: dict[str, Any]) -> Request:
    if not isinstance(given.get("id"), str) or not _ID.fullmatch(given["id"]):
        raise InvalidRequest("id must be 1 to 100 letters, digits, '_', '-' and '.'", field="id")
    for key in given:
        if key not in _KEYS:
            raise InvalidRequest(f"a request has no key {key[:80]!r}; the keys are {', '.join(_KEYS)}", field=key[:80])
    given = {key: value for key, value in given.items() if value is not None}
    if given.get("op") not in OPS:
        raise InvalidRequest(
            f"op must be one of {', '.join(OPS)}, not {str(given.get('op'))[:80]!r}", field="op", known=OPS
        )
    for key in ("label", "name"):
        if not isinstance(given.get(key, ""), str):
            raise InvalidRequest(f"{key} must be text", field=key)
    if not isinstance(given.get("args", {}), dict):
        raise InvalidRequest("args must be an object", field="args")
    return Request(
        entry=entry,
        id=given["id"],
        op=given["op"],
        args=given.get("args", {}),
        label=given.get("label"),
        name=given.get("name"),
        expect=_expected_version(given.get("expect")),
        on_conflict=_on_conflict(given.get("on_conflict")),
        deadline=_deadline(given.get("deadline")),
    )


def _expected_version(expect: Any) -> int | None:
    if expect is None:
        return None
    if not isinstance(expect, dict) or expect.keys() != {"version"} or type(expect["version"]) is not int:
        raise InvalidRequest('expect must be {"version": a whole number}', field="expect")
    version: int = expect["version"]
    return version


def _on_conflict(text: Any) -> str | None:
    if text is not None and text not in ON_CONFLICT:
        raise InvalidRequest(f"on_conflict must be one of {', '.join(ON_CONFLICT)}", field="on_conflict")
    conflict: str | None = text
    return conflict


def _deadline(text: Any) -> datetime | None:
    if text is None:
        return None
    try:
        deadline = datetime.fromisoformat(text)
        if deadline.tzinfo is None:
            raise ValueError
        return deadline.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest(
            "deadline must be a time as in RFC 3339, with its offset from UTC", field="deadline"
        ) from None


class Inbox:
    """Entries that were read and are not done: those that wait, by actor, and those that are under way.

    All of them are still in Redis, and are removed from there when they are done: what is here may be forgotten at any
    time, and is read again.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[str, deque[Entry]] = {}
        self._held: dict[Entry, float] = {}  # entry → when it was put in
        self._under_way: list[Entry] = []
        self._chars = 0
        self._due = 0.0
        self.restarts = 0  # how often everything must have been read again

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to take."""
        return bool(self._waiting)

    @property
    def due(self) -> float:
        """When there is something to take, on the clock of whoever postpones."""
        return self._due if self._waiting else float("inf")

    @property
    def is_full(self) -> bool:
        """Whether no more should be read for now."""
        return len(self._held) >= _HELD or self._chars >= _HELD_CHARS

    def put(self, entries: Iterable[Entry]) -> None:
        """These were read; those that are here already are not taken twice."""
        now = self._clock()
        for entry in entries:
            if entry not in self._held:
                self._held[entry] = now
                self._chars += len(entry.text or "")
                self._waiting.setdefault(entry.actor, deque()).append(entry)
                self._due = 0.0

    def received_at(self, entry: Entry) -> float:
        """When an entry that is here was put in."""
        return self._held[entry]

    def __len__(self) -> int:
        """How many entries wait, or are under way."""
        return len(self._held)

    def take(self, limit: int) -> list[Entry]:
        """The entries to deal with next, at most `limit`: one of each actor in turn, each actor's in their order."""
        taken: list[Entry] = []
        while self._waiting and len(taken) < limit:
            actor = next(iter(self._waiting))
            entries = self._waiting.pop(actor)
            taken.append(entries.popleft())
            if entries:
                self._waiting[actor] = entries  # behind the others
        self._under_way += taken
        return taken

    def postpone(self, entries: Iterable[Entry], until: float) -> None:
        """These were taken, and cannot be dealt with yet: they are the first of their actors' again."""
        entries = list(entries)
        for entry in reversed(entries):
            self._under_way.remove(entry)
            self._waiting.setdefault(entry.actor, deque()).appendleft(entry)
        self._due = until if entries else 0.0

    def done(self) -> None:
        """What was taken is done: replied to, and removed from Redis."""
        for entry in self._under_way:
            del self._held[entry]
            self._chars -= len(entry.text or "")
        self._under_way.clear()

    def begin_again(self) -> None:
        """Forget all: where it is kept, it is read again."""
        self._waiting.clear()
        self._held.clear()
        self._under_way.clear()
        self._chars = 0
        self.restarts += 1


class Readable(NamedTuple):
    """Whether inboxes can be read: if not, why."""

    obstacle: str | None


class Reader:
    """Reads the inboxes, from a thread and a connection of its own, and passes what is in them to `sink`.

    What it passes is a list of entries, or, when that has changed, whether they can be read. It decides nothing and
    removes nothing.
    """

    def __init__(self, url: str, keys: Keys, sink: Callable[[list[Entry] | Readable], object]) -> None:
        self._url = url
        self._keys = keys
        self._sink = sink
        self._wanted: tuple[frozenset[str], int] = (frozenset(), 0)
        self._room = threading.Event()
        self._room.set()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, or begin again if the thread has ended."""
        if not self.is_alive():
            self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)
            self._thread.start()

    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """End, within the time that one reading takes."""
        self._ending.set()
        self._room.set()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(4 * _BLOCK_SECONDS)

    def follow(self, agents: frozenset[str], restarts: int) -> None:
        """Read the inboxes of these agents, besides the operator's; when `restarts` changes, from the beginning."""
        self._wanted = (agents, restarts)

    def resume(self) -> None:
        """What was passed on has been taken: go on."""
        self._room.set()

    def _run(self) -> None:
        import redis

        failures = 0
        client: Any = None
        said = ""
        cursors: dict[str, str] = {}
        restarts = 0
        while not self._ending.is_set():
            agents, wanted = self._wanted
            if wanted != restarts:
                restarts = wanted
                cursors.clear()
                self._ending.wait(_BLOCK_SECONDS)  # whatever it was that could not be done, it takes a moment
            try:
                if client is None:
                    client = connect(self._url)
                entries = self._read(client, agents, cursors)
                failures = 0
                if said:
                    said = ""
                    self._sink(Readable(None))
            except (Unavailable, Misconfigured, redis.ResponseError) as error:
                if said != type(error).__name__:
                    said = type(error).__name__
                    self._sink(Readable(str(error)))
                cursors.clear()
                first, longest = _BACK_OFF_SECONDS
                self._ending.wait(min(first * 2**failures, longest))
                failures = min(failures + 1, 16)
                continue
            if entries:
                self._room.clear()
                self._sink(entries)
                self._room.wait()
            else:
                # Nothing new. What was read and is still there was forgotten, or the stream is another by now.
                cursors.clear()
        if client is not None:
            client.close()

    def _read(self, client: Any, agents: frozenset[str], cursors: dict[str, str]) -> list[Entry]:
        actors = {self._keys.inbox(actor): actor for actor in agents | {OPERATOR}}
        streams = {key: cursors.get(key, "0") for key in actors}
        with translated(self._url):
            answer = _xread(client, streams)
            if answer is None:
                # An actor made something else of its own inbox: that must not keep the others from being read.
                sound = self._sound(client, streams)
                answer = _xread(client, sound) if sound else None
            if answer is None:
                self._ending.wait(_BLOCK_SECONDS)
                return []
        entries: list[Entry] = []
        for key, found in answer.items():
            for entry_id, fields in found:
                entries.append(Entry(actors[key], entry_id, (fields or {}).get("request")))
                cursors[key] = entry_id
        return entries

    def _sound(self, client: Any, streams: dict[str, str]) -> dict[str, str]:
        """Those of the streams that are streams, or nothing yet."""
        pipeline = client.pipeline(transaction=False)
        for key in streams:
            pipeline.type(key)
        kinds = pipeline.execute()
        return {
            key: cursor
            for (key, cursor), kind in zip(streams.items(), kinds, strict=True)
            if kind in ("stream", "none")
        }


def _xread(client: Any, streams: dict[str, str]) -> dict[str, Any] | None:
    """What is in these streams, as soon as there is something; None when one of them is no stream."""
    import redis

    try:
        answer: dict[str, Any] = client.xread(streams, count=_READ_PER_INBOX, block=int(_BLOCK_SECONDS * 1000))
    except redis.ResponseError as error:
        if "WRONGTYPE" in str(error):
            return None
        raise
    return answer
