"""The arguments of a request are what the op takes, or it is said which are not."""

from __future__ import annotations

from typing import Any

import pytest

from blocksd.errors import BlocksdError
from blocksd.model.block import default_block
from blocksd.requests.arguments import agents_of, block_fields, new_block
from blocksd.requests.request import Entry, Request


def request(op: str = "append", **args: Any) -> Request:
    return Request(Entry("ann", "1-0", "{}"), "r-1", op, args)


def test_arguments_are_had_by_their_names() -> None:
    """As they were given, where they are of their kind."""
    request(content="x", line=3).only("content", "line")
    assert request(content="x").text("content") == "x"
    assert request(old_content="x", new_content="").texts("old_content", "new_content") == ["x", ""]
    assert request(line=3).number("line", -1, least=-1) == 3
    assert request().number("line", -1, least=-1) == -1
    assert request(attach=["a", "b"]).list_of("attach") == ["a", "b"]
    assert request().list_of("attach") == request(attach=None).list_of("attach") == []
    assert agents_of(request(agents=["ann"])) == ["ann"]


@pytest.mark.parametrize(
    ("ask", "args", "field", "said"),
    [
        (lambda it: it.only("content"), {"c": 1}, "args.c", "append takes no argument 'c'; it takes content"),
        (lambda it: it.only(), {"c": 1}, "args.c", "append takes no argument 'c'; it takes none"),
        (lambda it: it.text("content"), {}, "args.content", "append needs the argument 'content', a text"),
        (
            lambda it: it.text("content"),
            {"content": 1},
            "args.content",
            "append needs the argument 'content', a text",
        ),
        (lambda it: it.texts("content"), {"content": "x", "c": 1}, "args.c", "append takes no argument 'c'"),
        (lambda it: it.number("line", -1, least=-1), {"line": True}, "args.line", "line must be a whole number"),
        (
            lambda it: it.number("line", -1, least=-1),
            {"line": -2},
            "args.line",
            "line must be a whole number from -1 to 9007199",
        ),
        (lambda it: it.number("version", least=1), {}, "args.version", "version must be a whole number"),
        (
            lambda it: it.number("version", least=1),
            {"version": 2**53 + 1},
            "args.version",
            "version must be a whole number from 1 to 9007199254740992",
        ),
        (lambda it: it.list_of("attach"), {"attach": [1]}, "args.attach", "attach must be a list of texts"),
        (agents_of, {"agents": []}, "args.agents", "agents must name at least one agent"),
    ],
)
def test_what_is_wrong_is_named(ask: Any, args: dict[str, Any], field: str, said: str) -> None:
    """The op, the argument, and what it takes instead."""
    with pytest.raises(BlocksdError) as refusal:
        ask(request(**args))
    assert refusal.value.message.startswith(said)
    assert refusal.value.facts["field"] == field


def test_fields_of_a_block() -> None:
    """Null is the default, newlines are made alike, and what is not given is not there."""
    assert block_fields("notes", {"value": "a\r\nb", "limit": None}, is_operator=True) == {
        "value": "a\nb",
        "limit": default_block("notes").limit,
    }
    assert block_fields("notes", {"value": None}, is_operator=True) == {"value": ""}
    assert new_block("notes", {}, is_operator=True) == default_block("notes")
    assert new_block("notes", {"description": "d"}, is_operator=False).description == "d"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"limt": 1}, "a block has no field 'limt'; did you mean 'limit'?"),
        ({"limit": 1}, "an agent may change value and description, not limit"),
        ({"value": 1}, "Provided value must be a string, not int"),
    ],
)
def test_fields_an_agent_may_not_set(args: dict[str, Any], said: str) -> None:
    """Those there are not, and those that are an operator's."""
    with pytest.raises(BlocksdError) as refusal:
        block_fields("notes", args, is_operator=False)
    assert refusal.value.message == said
