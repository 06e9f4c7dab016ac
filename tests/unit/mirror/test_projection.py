"""What is written to a mirror is decided without a server."""

from __future__ import annotations

import json
from dataclasses import replace
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


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"digest": None, "kind": "deleted", "detached": ("ann", "bob")},
        {
            "label": 'Ärger/"x"\\y',
            "author": "o'neil",
            "request_id": 'say "hi"\n\x01\u2028',
            "fields": ("value", "limit"),
        },
        {"attached": ("ann", "bob"), "reverts": (3, 12), "by": "Zoë 🙂", "renamed_from": "was"},
    ],
)
def test_notification_is_json_as_an_encoder_writes_it(facts: dict[str, Any]) -> None:
    """Though none is used, it has the same spaces and escapes, and the keys that are seldom there come last."""
    one = replace(revision(7, value="n"), **facts)
    names = [
        "seq",
        "kind",
        "label",
        "version",
        "fields",
        "attached",
        "detached",
        "author",
        "digest",
        "at",
        "request_id",
    ]
    wanted = {name: getattr(one, name) for name in names} | {"epoch": EPOCH}
    seldom = {"from": one.renamed_from, "reverts": one.reverts, "by": one.by}
    wanted |= {name: said for name, said in seldom.items() if said}
    assert change_of(one, EPOCH) == json.dumps(wanted, ensure_ascii=False)


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
