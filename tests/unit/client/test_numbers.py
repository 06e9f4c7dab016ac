"""Numbers that programs give to the client: each out of range, or none, is refused by name before anything is sent."""

from __future__ import annotations

import asyncio
import collections.abc
import inspect
import itertools
import math
import typing
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from blocksd import AsyncClient, BasicBlockMemory, ChatMemory, Client
from blocksd.errors import InvalidField, Unavailable
from blocksd.mirror.keys import Keys
from blocksd.model.audit import MOST_DAYS
from blocksd.model.block import MAX_LIMIT, Block
from blocksd.protocol.numbers import MOST_SECONDS
from blocksd.protocol.wire import Request
from blocksd.requests.request import MAX_NUMBER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RANGES: dict[str, tuple[float, float]] = {
    "expect_version": (0, MAX_NUMBER),
    "line": (-1, MAX_NUMBER),
    "version": (1, MAX_NUMBER),
    "old": (0, MAX_NUMBER),
    "new": (0, MAX_NUMBER),
    "after": (1, MAX_NUMBER),
    "since": (0, MAX_NUMBER),
    "connected_to_agents_count_gt": (0, MAX_NUMBER),
    "connected_to_agents_count_lt": (0, MAX_NUMBER),
    "connected_to_agents_count_eq": (0, MAX_NUMBER),
    "max_files_open": (0, MAX_NUMBER),
    "stale_days": (1, MOST_DAYS),
    "prompt_chars": (1, MAX_NUMBER),
    "timeout_seconds": (0.001, MOST_SECONDS),
}
"""The range of each number by the name of its parameter; that of a `limit` depends on what is limited."""
NO_NUMBERS: tuple[object, ...] = (
    math.nan,
    math.inf,
    -math.inf,
    True,
    False,
    "x",
    "",
    "1.5",
    b"1",
    1.5,
    [math.nan],
    {},
    object(),
)
MORE: dict[str, tuple[object, ...]] = {
    "since": ("7", ("epoch", math.nan), ("epoch", -1), ("epoch", True), (1, 2), ("epoch",), ()),
    "connected_to_agents_count_eq": ("12", [1, -1], [True], ["1"]),
    "after": ("٣", "-1", "0", "9" * 5000),
}
FITTING: dict[str, tuple[object, ...]] = {
    "since": (("epoch", 0),),
    "connected_to_agents_count_eq": ([], [0, 3]),
    "after": ("12",),
}
OTHERS: dict[str, object] = {
    "change": str.upper,
    "agents": ["ann"],
    "updates": [],
    "labels": [],
    "counter": len,
}
"""What the parameters beside the number are given; texts are given "notes"."""


def parts(client: Any) -> Iterator[Any]:
    """The client, and what it hands out."""
    yield from (client, client.blocks, client.blocks.agents, client.blocks.versions, client.tags, client.batch())
    yield from (client.agents, client.agents.blocks, client.agents.files, client.memory("ann"))


def kinds_of(hint: Any) -> Iterator[Any]:
    """The types that a hint names, also as parts of others; not what a function takes and gives."""
    yield hint
    if typing.get_origin(hint) is not collections.abc.Callable:
        for part in typing.get_args(hint):
            yield from kinds_of(part)


def numbers() -> Iterator[tuple[str, Any, str, bool]]:
    """Every public method of either client with each of its numbers: part, method, parameter, and if it may be None."""
    for kind in (Client, AsyncClient):
        for part in parts(kind("unix:///none")):
            for name, _ in inspect.getmembers_static(type(part), inspect.isfunction):
                if name.startswith("_"):
                    continue
                method = getattr(part, name)
                for parameter, hint in typing.get_type_hints(method).items():
                    if parameter != "return" and (kinds := set(kinds_of(hint))) & {int, float}:
                        yield f"{type(part).__name__}.{name}", method, parameter, type(None) in kinds


NUMBERS = [*numbers()]


def called(method: Any, parameter: str, value: object) -> None:
    """Call a method with one number, and something for what it cannot do without."""
    needed = {
        name: OTHERS.get(name, 1 if name in RANGES else "notes")
        for name, one in inspect.signature(method).parameters.items()
        if one.default is inspect.Parameter.empty
    }
    if parameter != "timeout_seconds" and "timeout_seconds" in inspect.signature(method).parameters:
        needed["timeout_seconds"] = 0.001
    result = method(**{**needed, parameter: value})
    if inspect.iscoroutine(result):
        asyncio.run(result)


def range_of(name: str, parameter: str) -> tuple[float, float]:
    """The range of a parameter."""
    if parameter == "limit":
        return 1, MAX_NUMBER if name.endswith(".list") else MAX_LIMIT
    return (0, MAX_NUMBER) if f"{name}-{parameter}".endswith(".save-version") else RANGES[parameter]


def test_numbers_are_found() -> None:
    """What is walked are all methods of both clients, and every name of a range is that of a parameter."""
    assert len(NUMBERS) > 150
    assert {parameter for _, _, parameter, _ in NUMBERS} == {*RANGES, "limit"}
    names = {name for name, *_ in NUMBERS}
    for name in ("Client.watch", "Blocks.list", "AsyncBatch.restore", "Memory.compile", "AsyncVersions.diff"):
        assert name in names


@pytest.mark.parametrize(
    ("name", "method", "parameter", "is_optional"),
    NUMBERS,
    ids=[f"{name}-{parameter}" for name, _, parameter, _ in NUMBERS],
)
def test_number_out_of_range_is_refused_by_name(
    name: str, method: Callable[..., object], parameter: str, is_optional: bool
) -> None:
    """What is no number, or no sensible one, is refused with its parameter and what is allowed; the bounds are taken."""
    least, most = range_of(name, parameter)
    bad = [one for one in NO_NUMBERS if not (one == 1.5 and parameter == "timeout_seconds")]
    bad += [-(10**19), 10**19, 10**5000, least - 1, most + 1, *MORE.get(parameter, ())]
    bad += [] if is_optional else [None]
    for value in bad:
        with pytest.raises(InvalidField) as caught:
            called(method, parameter, value)
        assert caught.value.facts == {"field": parameter}
        allowed = f"{parameter} must be a number" if parameter == "timeout_seconds" else f"{parameter} must be"
        assert caught.value.message.startswith(allowed)
        assert str(most) in caught.value.message
        assert len(caught.value.message) < 200
    bounds = (least,) if parameter == "timeout_seconds" else (least, most)  # the most would be waited for
    for value in (*bounds, *FITTING.get(parameter, ()), *((None,) if is_optional else ())):
        with suppress(Unavailable):  # it was sent
            called(method, parameter, value)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("key", "value"),
    [*itertools.product(("limit", "expect_version"), (math.nan, math.inf, True, "7", -1, 10**19))],
)
def test_numbers_of_several_updates_are_refused_by_name(kind: Any, key: str, value: Any) -> None:
    """A number in one of several updates is checked as that of one is."""
    client = kind("unix:///none")
    with pytest.raises(InvalidField, match=f"^{key} must be a whole number") as caught:
        called(client.blocks.update_many, "updates", [{"block_id": "notes", key: value}])
    assert caught.value.facts == {"field": key}


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, 0, -1, True, "7", None, MOST_SECONDS + 1, 10**400])
def test_time_to_wait_is_in_range(seconds: Any) -> None:
    """A request has a deadline that every language can read."""
    with pytest.raises(InvalidField, match=r"^timeout_seconds must be a number over 0 and at most 31536000, not "):
        Request(Keys("blocks"), "operator", "undo", timeout_seconds=seconds)
    assert Request(Keys("blocks"), "operator", "undo", timeout_seconds=MOST_SECONDS).is_open


@pytest.mark.parametrize("number", [math.nan, math.inf, 10**5000], ids=["nan", "inf", "huge"])
def test_argument_that_json_cannot_have_is_named(number: Any) -> None:
    """JSON has no such number: of several arguments the message says which one it is."""
    with pytest.raises(ValueError, match="metadata cannot be written as JSON") as caught:
        Request(Keys("blocks"), "operator", "update", args={"value": "x", "metadata": {"a": [number]}})
    assert caught.value.facts == {"field": "args.metadata"}  # type: ignore[attr-defined]  # of ours


@pytest.mark.parametrize("limit", [math.nan, math.inf, -1, 0, True, "7", 1.5, MAX_LIMIT + 1])
def test_container_takes_no_other_limits_than_a_file(limit: Any) -> None:
    """Letta's container in this process refuses a limit that no block can have."""
    with pytest.raises(InvalidField, match=r"^limit must be a whole number from 1 to"):
        ChatMemory("I am Ann.", "Bob", limit=limit)
    assert ChatMemory("I am Ann.", "Bob", limit=MAX_LIMIT).get_block("persona").limit == MAX_LIMIT


@pytest.mark.parametrize("number", [math.nan, math.inf, -1, True, "7", 10**19])
def test_container_takes_no_other_number_of_files_than_a_memory(number: Any) -> None:
    """Letta's container in this process refuses a number of files that cannot be."""
    container = BasicBlockMemory([Block("persona", "I am Ann.")])
    with pytest.raises(InvalidField, match=r"^max_files_open must be a whole number from 0 to"):
        container.compile(max_files_open=number)
