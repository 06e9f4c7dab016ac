"""What is written to a mirror is decided without a server."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import redis

from blocksd.mirror.keys import Keys
from blocksd.mirror.projection import change_of, commands_of, hash_commands, set_commands
from rig import revision

EPOCH = "e" * 32


def test_commands_are_data() -> None:
    """What a revision writes is decided without a server: a list of words, the data before the notifications."""
    keys = Keys("blocks")
    new = revision(7, agents=("ann",), value="n")
    commands = commands_of(new, keys, EPOCH)
    change = change_of(new, EPOCH)
    assert all(isinstance(word, str) for command in commands for word in command)
    (told,) = [command for command in commands if command[0] == "ANNOUNCE"]
    data = [
        command for command in commands if command[0] in ("HSET", "SADD", "ZADD", "DEL") and command[1] != keys.meta
    ]
    assert commands.index(told) > max(map(commands.index, data))
    entry_id, _, text, *channels = told[1:]
    assert (entry_id, text) == ("7-0", change)
    assert channels == ["blocks:changes", "blocks:changes:block:notes", "blocks:changes:agent:ann"]
    assert commands[-1] == ("HSET", "blocks:meta", "seq", "7")


@pytest.mark.parametrize("kind", ["created", "updated", "deleted"])
def test_commands_of_equal_revisions_are_equal(kind: Literal["created", "updated", "deleted"]) -> None:
    """The same revision always writes the same: that is what makes a replay harmless."""
    made = [
        revision(3, kind=kind, version=3, agents=() if kind == "deleted" else ("b", "a"), detached=("c", "d"))
        for _ in "ab"
    ]
    assert commands_of(made[0], Keys("blocks"), EPOCH) == commands_of(made[1], Keys("blocks"), EPOCH)


@pytest.mark.parametrize(
    ("shown", "commands"),
    [
        ({"a": "1", "b": "2"}, []),
        ({"a": "1"}, [("HSET", "k", "b", "2")]),
        ({"a": "0", "b": "2", "c": "3"}, [("HDEL", "k", "c"), ("HSET", "k", "a", "1")]),
        ({}, [("HSET", "k", "a", "1", "b", "2")]),
        (redis.ResponseError("WRONGTYPE"), [("DEL", "k"), ("HSET", "k", "a", "1", "b", "2")]),
    ],
)
def test_hash_is_mended_where_it_differs(shown: object, commands: list[Any]) -> None:
    """What is right is not written; what is of another type goes first."""
    assert hash_commands("k", shown, {"a": "1", "b": "2"}) == commands


@pytest.mark.parametrize(
    ("shown", "commands"),
    [
        ({"a", "b"}, []),
        ({"a", "c"}, [("SREM", "k", "c"), ("SADD", "k", "b")]),
        (redis.ResponseError("WRONGTYPE"), [("DEL", "k"), ("SADD", "k", "a", "b")]),
    ],
)
def test_set_is_mended_where_it_differs(shown: object, commands: list[Any]) -> None:
    """As a hash is."""
    assert set_commands("k", shown, {"a", "b"}) == commands
