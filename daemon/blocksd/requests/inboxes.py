"""The inboxes on one server: which of them have changed, and what is in them."""

from __future__ import annotations

import hashlib
import json
import select
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from blocksd.errors import InvalidRequest, Unavailable
from blocksd.mirror.connection import REPLY_SECONDS, connect, masked, translated
from blocksd.mirror.script import packed
from blocksd.requests.reply import refused
from blocksd.requests.request import MAX_BYTES, Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blocksd.mirror.keys import Keys

KEPT = 10_000
"""How many entries an inbox may hold. The newest of those beyond are refused: what was sent first is done first."""

READ_PER_INBOX = 16
_TOTAL_BYTES = 2 * MAX_BYTES
_LOOKS = 512
_READING_SECONDS = 6.0  # a server copies an entry of 512 MB several times before a script sees how long it is


class Reading(NamedTuple):
    """The result of one reading of one inbox.

    `left` is how many entries it holds now. `dropped` entries ask for nothing and have no id to reply to, `oversized`
    ones are longer than a request may be, `surplus` ones are beyond what an inbox may hold; all of them are removed.
    """

    is_more: bool
    cursor: str
    left: int
    entries: list[Entry]
    dropped: int
    oversized: int
    surplus: int

    @property
    def is_used(self) -> bool:
        """Return True if anything was read or removed."""
        return bool(self.entries or self.dropped or self.oversized or self.surplus)


class Inboxes:
    """One connection to the server, on which it tells of changed inboxes, and on which they are read.

    The server's client-side caching is the bell: with `CLIENT TRACKING ON BCAST PREFIX <namespace>:inbox:` it sends the
    names of the keys that any client changes there, and nothing of what is in them. That costs the same for ten inboxes
    and for ten thousand. The messages come between the replies of this connection (RESP 3), so there is one connection
    to lose: while it is there, no change goes unheard. Where a server, a proxy or an ACL does not have it, `is_told` is
    False, and the reader must look.

    Every method raises Unavailable, Misconfigured or Damaged, after which only `close` may follow.
    """

    def __init__(self, url: str, keys: Keys) -> None:
        """Connect. From here on, every change is told of."""
        self._url = url
        self._keys = keys
        self._prefix = keys.inbox("")
        self._changed: dict[str, int] = {}  # key → how many messages told that it has changed
        self._connection: Any = None
        self._may_hold = True  # something may have been received that was not read, or can be received
        self._is_readable = False  # and something can
        self._rules = json.dumps(_rules(keys))
        self.is_told = False
        self._client = connect(url, protocol=3)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        import redis

        with translated(self._url):
            try:
                self._connect()
                self._connection._parser.set_invalidation_push_handler(self._hear)  # noqa: SLF001  # there is no public way
                self._ask("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._prefix)
                self.is_told = True
            except (redis.AuthenticationError, redis.ConnectionError, redis.TimeoutError):
                raise
            except (redis.RedisError, AttributeError):
                # Not known here, or not allowed; or RESP 3 is not.
                self.close()
                self._client = connect(self._url)
                self._connect()

    def _connect(self) -> None:
        client = self._client
        if hasattr(client, "get_node_from_key"):  # a cluster: the node that has the namespace
            client = client.get_redis_connection(client.get_node_from_key(self._prefix))
        self._pool = client.connection_pool
        self._connection = self._pool.get_connection()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self._pool.release(self._connection)
            self._connection = None
        self._client.close()

    def wait(self, seconds: float, wake: int) -> bool:
        """Wait until inboxes have changed, `wake` can be read, or the time is over; True if `wake` can be read."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        if self.is_told:
            if self._changed or self._may_hold:
                return False
            poll.register(self._connection._sock, select.POLLIN)  # noqa: SLF001  # `can_read` waits for one socket only
        found = [handle for handle, _ in poll.poll(max(0.0, seconds) * 1000)]
        self._may_hold = self._is_readable = found != [wake] and bool(found)
        return wake in found

    def changed(self) -> dict[str, int]:
        """The actors whose inboxes have changed since the last call, by any client, and how often that was told."""
        if self.is_told and self._may_hold:
            with translated(self._url):
                while self._is_readable or self._connection.can_read(0):  # which would look three times more
                    self._is_readable = False
                    self._connection.read_response(push_request=True)
            self._may_hold = False
        changed = {key[len(self._prefix) :]: count for key, count in self._changed.items()}
        self._changed.clear()
        return changed

    def _hear(self, message: list[Any]) -> None:
        if message[1] is not None:  # else all keys are gone, and there is nothing to read
            for key in message[1]:
                self._changed[key] = self._changed.get(key, 0) + 1

    def find(self, actors: Sequence[str], *, thorough: bool) -> list[str]:
        """Those of the actors whose inboxes hold something; `thorough`: or can take nothing more and must be made anew."""
        self._check_master()
        keys = [self._keys.inbox(actor) for actor in actors]
        places = self._call("find_inboxes.lua", keys, "1" if thorough else "0")
        return [actors[place - 1] for place in places]

    def read(self, wanted: Iterable[tuple[str, str, int]], *, lease: str) -> dict[str, Reading]:
        """Read a part of these inboxes: of each actor after a cursor, at most so many entries.

        Only who holds the `lease` may remove what cannot be used; without it, or without holding it, none is removed.
        """
        actors, words = [], []
        for actor, cursor, count in wanted:
            actors.append(actor)
            words += [cursor, str(count)]
        keys = [self._keys.lease, *(self._keys.inbox(actor) for actor in actors)]
        rows = self._call("read_inboxes.lua", keys, lease, self._rules, *words, seconds=_READING_SECONDS)
        readings = {}
        for actor, found in zip(actors, rows, strict=True):
            is_more, cursor, left, flat, *refusals = found
            pairs = zip(flat[::2], flat[1::2], strict=True)
            entries = [Entry(actor, entry_id, text) for entry_id, text in pairs]
            readings[actor] = Reading(bool(is_more), cursor, left, entries, *refusals)
        return readings

    def _check_master(self) -> None:
        """Raise Unavailable if sentinels name another master: the one before may live on, and hear of no request."""
        check = getattr(self._pool, "check_master", None)
        if check is None:
            return
        from blocksd.mirror.sentinel import is_left_behind

        check()
        if is_left_behind(self._client, self._connection):
            raise Unavailable(
                f"another server than this is the master of {masked(self._url)} now", url=masked(self._url)
            )

    def _call(self, name: str, keys: Sequence[str], *arguments: str, seconds: float = REPLY_SECONDS) -> Any:
        import redis

        script, sha = _source(name)
        words = (len(keys), *keys, *arguments)
        with translated(self._url):
            try:
                return self._ask("EVALSHA", sha, *words, seconds=seconds)
            except redis.exceptions.NoScriptError:
                # With its text, which the server keeps, and not loaded first: it may be flushed again in between.
                return self._ask("EVAL", script, *words, seconds=seconds)

    def _ask(self, *words: Any, seconds: float = REPLY_SECONDS) -> Any:
        self._may_hold, self._is_readable = True, False  # messages may come with the reply
        self._connection.send_packed_command(packed(*words))
        return self._connection.read_response(timeout=seconds)


@cache
def _source(name: str) -> tuple[str, str]:
    """A script of the package, and the name a server gives it."""
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _rules(keys: Keys) -> dict[str, Any]:
    """The limits that read_inboxes.lua keeps, and its replies to entries that it refuses."""
    too_long = InvalidRequest(f"the request is @SIZE@ bytes, over the {MAX_BYTES} allowed", field="request")
    too_many = Unavailable(f"the inbox holds {KEPT} requests that are not done: try again later")
    return {
        "bytes": MAX_BYTES,
        "total": _TOTAL_BYTES,
        "looks": _LOOKS,
        "kept": KEPT,
        "inbox": keys.inbox(""),
        "reply": f"{keys.namespace}:reply:",
        "oversized": refused("@ID@", too_long),
        "surplus": refused("@ID@", too_many),
    }
