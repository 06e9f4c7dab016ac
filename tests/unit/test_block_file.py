"""What the specification of the block file shows is what the parser does."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import InvalidFile, InvalidLabel
from blocksd.files.document import Parser
from blocksd.model.block import FILE_KEYS, Block, block_id, check_fields
from blocksd.model.label import label_of_path, path_of_label
from blocksd.model.problem import Problem, problem_of
from fenced import BY_PARSER, fenced
from parsed import parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fenced import Fenced

BLOCKS = [block for document in BY_PARSER for block in fenced(document)]
EXAMPLES = [(block, outcome) for block, outcome in pairwise(BLOCKS) if block.language == "markdown"]
VECTORS = [
    (block, vector)
    for block in BLOCKS
    if block.language == "json" and block.text.startswith("[")
    for vector in json.loads(block.text)
]


def test_every_block_is_an_example_or_a_list_of_them() -> None:
    """None is only to be looked at: a file is followed by what it means, all else is a list."""
    shown = [block for pair in EXAMPLES for block in pair] + [block for block, _ in VECTORS]
    assert [str(block) for block in BLOCKS if block not in shown] == []


@pytest.mark.parametrize(("example", "outcome"), EXAMPLES, ids=[str(example) for example, _ in EXAMPLES])
def test_file_means_what_stands_below_it(example: Fenced, outcome: Fenced) -> None:
    """A block, all of whose other fields are at their defaults, or what `blocksd check` says of it."""
    path = re.findall(r"`([^`\n]+\.md)`", example.before)[-1]
    if outcome.language == "json":
        wanted = json.loads(outcome.text)
        assert wanted["label"] == label_of_path(path)
        assert said_of(parse(example.text.encode(), wanted["label"])) == wanted
    else:
        assert outcome.language == "text"
        assert complaints(example.text.encode(), path) == outcome.text.splitlines()


@pytest.mark.parametrize(("block", "vector"), VECTORS, ids=[str(block) for block, _ in VECTORS])
def test_list_is_true(block: Fenced, vector: dict[str, Any]) -> None:
    """Each line of it is what comes of what it begins with."""
    (first, given), *rest = vector.items()
    outcome = WHAT_COMES_OF[first](given, vector)
    assert [(name, outcome.get(name)) for name, _ in rest] == rest, block


def comes_of_path(path: str, _: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {"label": label_of_path(path)}
    except InvalidLabel as error:
        return {"error": error.message}


def comes_of_label(label: str, _: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": block_id(label)}


def comes_of_file(text: str, vector: Mapping[str, Any]) -> dict[str, Any]:
    label = vector.get("label", "block")
    wrong = complaints(text.encode(), path_of_label(label))
    if wrong:
        return {"error": wrong[0]}
    block = parse(text.encode(), label)
    return {**block.as_json(), "facts": block.facts, "digest": block.digest}


def comes_of_yaml(yaml: str, _: Mapping[str, Any]) -> dict[str, Any]:
    data = f"---\nmetadata: {{x: {yaml}}}\n---\n".encode()
    wrong = complaints(data, "block.md")
    return {"error": wrong[0]} if wrong else {"means": parse(data, "block").metadata["x"]}


WHAT_COMES_OF = {"path": comes_of_path, "label": comes_of_label, "file": comes_of_file, "yaml": comes_of_yaml}


def said_of(block: Block) -> dict[str, Any]:
    """What a block says but for its defaults."""
    nothing = Block(block.label)
    fields = {key: getattr(block, key) for key in FILE_KEYS if getattr(block, key) != getattr(nothing, key)}
    said: dict[str, Any] = json.loads(json.dumps({"label": block.label, "value": block.value, **fields}))
    return said


def complaints(data: bytes, path: str) -> list[str]:
    """What `blocksd check` says of a file."""
    try:
        label = label_of_path(path)
        _, warnings = Parser().parse(data, label)
    except InvalidFile as error:
        return [problem_of(path, error).sentence()]
    return [
        Problem(path, "warning", one.message, one.hint, label, one.line, warning=True).sentence() for one in warnings
    ]


def test_defaults_are_those_of_a_block_that_says_nothing() -> None:
    """The table of keys, which has four columns, names each with its default."""
    table = {
        row[0]: row[2]
        for row in re.findall(
            r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|[^|\n]*\|$", "\n".join(b.before for b in BLOCKS), re.MULTILINE
        )
    }
    defaults = {key: json.loads(text.split(";")[0].strip("`")) for key, text in table.items()}
    nothing = check_fields("notes", {})
    block = Block("notes", **nothing)
    assert defaults == {key: json.loads(json.dumps(getattr(block, key), default=dict)) for key in FILE_KEYS}
