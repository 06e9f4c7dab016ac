"""Redis users with the least rights that daemon, agents, operators and readers need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.model.label import parse_agent
from blocksd.model.revision import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blocksd.mirror.keys import Keys

_CONNECTING = (
    *("+hello", "+auth", "+ping", "+echo", "+reset", "+quit", "+multi", "+exec"),
    *("+client|setname", "+client|getname", "+client|id"),
)
"""Commands that client libraries send by themselves, each by its name: a category also has commands that disturb others.

CLIENT SETINFO is not among them: Redis 7.0 refuses a rule that names it, and clients do without."""
_CLUSTER = (
    *("+cluster|slots", "+cluster|shards", "+cluster|nodes", "+command", "+asking", "+readonly", "+readwrite"),
    *("+ssubscribe", "+sunsubscribe"),
)
"""Commands that clients of a cluster send as well."""
_READING = (
    *("+get", "+exists", "+type", "+hget", "+hmget", "+hgetall", "+hkeys", "+hlen"),
    *("+smembers", "+sismember", "+scard", "+zrange", "+zrangebylex", "+zrevrangebylex", "+zscore", "+zcard"),
    *("+zscan", "+zcount", "+zmscore", "+zrank", "+zrevrank"),
    *("+xrange", "+xrevrange", "+xread", "+subscribe", "+unsubscribe"),
)


def users(keys: Keys, agents: Iterable[str], *, database: int = 0) -> list[str]:
    """Return ACL rules, a line for each user: for a users file, or, without the word `user`, for ACL SETUSER.

    They are `<namespace>-daemon`, `-operator`, `-reader`, `-gateway`, and `-agent-<id>` for each agent, without a password: put
    `>password` in place of `PASSWORD`. Selectors and read-only keys are those of Redis 7.0. A `database` other than 0
    may be selected, and no other one; a namespace in braces is on a cluster, whose map may be asked for, and whose channels
    are those of shards.

    Raises:
        InvalidLabel: one of `agents` is no agent id.
    """
    name = keys.namespace.strip("{}")
    mirror = _mirror(keys)
    reading: tuple[str, ...] = (*_CONNECTING, *_READING)
    if database:
        reading += (f"+select|{database}",)
    if keys.namespace.startswith("{"):
        reading += _CLUSTER
    # The gateway asks for each caller with a token: an operator, or any agent.
    asking = {
        OPERATOR: f"{name}-operator",
        "*": f"{name}-gateway",
        **{parse_agent(agent): f"{name}-agent-{agent}" for agent in agents},
    }
    return [
        # The daemon's scripts run with its rights, and it scans all keys.
        _line(
            f"{name}-daemon", f"~{keys.namespace}:*", f"&{keys.namespace}:*", "+@all", "-@admin", "-@dangerous", "+info"
        ),
        _line(f"{name}-reader", *mirror, *reading),
        *(
            _line(
                user,
                *mirror,
                f"%W~{keys.inbox(actor)}",
                f"~{keys.reply(f'{actor}:*')}",
                *reading,
                "+xadd",
                "+blpop",
                *(("+eval_ro",) if actor in (OPERATOR, "*") else ()),
            )
            for actor, user in asking.items()
        ),
    ]


def daemon_commands(keys: Keys) -> list[tuple[str | int, ...]]:
    """Return a command of each kind that the daemon sends, and one for each kind of key and channel it uses.

    They serve to check the rights of a user, and are not executed.
    """
    key = keys.meta
    lists = (keys.agents, keys.labels, keys.ids, keys.counts, keys.index, keys.created, keys.updated)
    indexes = (*lists, keys.agents_created, keys.departed, keys.problems, keys.sources, keys.lease, keys.changes)
    touched = (
        *indexes,
        *(kind("x") for kind in keys.of_a_kind),
        keys.inbox(OPERATOR),
        keys.reply(f"{OPERATOR}:x"),
    )
    channels = (
        keys.changes,
        keys.resets,
        keys.changes_of_block("x"),
        keys.changes_of_agent("x"),
        keys.changes_of_source("x"),
    )
    publish = "SPUBLISH" if keys.namespace.startswith("{") else "PUBLISH"
    return [
        ("EVALSHA", "0" * 40, 1, key),
        ("EVAL", "return 1", 1, key),
        ("GET", key),
        ("SET", key, "x", "PX", 1),
        *((command, key) for command in ("PTTL", "TYPE", "DEL", "UNLINK")),
        ("EXPIRE", key, 1),
        *((command, key) for command in ("HGETALL", "HLEN")),
        *((command, key, "x") for command in ("HGET", "HMGET", "HDEL")),
        ("HSET", key, "x", "x"),
        ("SMEMBERS", key),
        *((command, key, "x") for command in ("SADD", "SREM", "RPUSH", "XDEL")),
        ("ZADD", key, 0, "x"),
        *((command, key, "x") for command in ("ZREM", "ZSCORE", "ZMSCORE")),
        ("ZCARD", key),
        *((command, key, "-", "+") for command in ("ZREMRANGEBYLEX", "ZLEXCOUNT", "ZRANGEBYLEX")),
        ("SCARD", key),
        ("ZRANGE", key, 0, -1),
        ("XADD", key, "*", "x", "x"),
        *((command, key, "-", "+") for command in ("XRANGE", "XREVRANGE")),
        ("XLEN", key),
        ("XINFO", "STREAM", key),
        ("MEMORY", "USAGE", key),
        ("CLIENT", "TRACKING", "ON"),
        ("SCAN", 0),
        *((publish, channel, "x") for channel in channels),
        *(("TYPE", one) for one in touched),
    ]


def _line(user: str, *rules: str) -> str:
    return " ".join(("user", user, "on", "PASSWORD", "resetkeys", "resetchannels", *rules))


def _mirror(keys: Keys) -> tuple[str, ...]:
    """Return the rules to read the whole mirror, but no inbox and no reply."""
    lists = (keys.agents, keys.labels, keys.ids, keys.counts, keys.index, keys.created, keys.updated)
    single = (
        *lists,
        keys.agents_created,
        keys.departed,
        keys.problems,
        keys.sources,
        keys.meta,
        keys.lease,
        keys.changes,
    )
    readable = (*single, *(key("*") for key in keys.of_a_kind))
    return (*(f"%R~{key}" for key in readable), f"&{keys.changes}", f"&{keys.changes}:*")
