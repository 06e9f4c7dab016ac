"""Versions of an agent's properties: compared and merged property by property, and not by the lines of their JSON."""

from __future__ import annotations

from typing import Any

import pytest

from blocksd.errors import MergeConflict
from blocksd.model.block import Block
from blocksd.model.properties import block_of_properties, lines_of, merged_properties, properties_and_errors


def block(**said: Any) -> Block:
    properties, errors = properties_and_errors(said)
    assert not errors
    return block_of_properties("sam", properties)


def merged(base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    return merged_properties(*(block(**said).value for said in (base, ours, theirs)))


def test_each_property_is_whose_changed_it() -> None:
    """Also one that came, and one that went; their order is the same in every version."""
    base = {"name": "a", "system": "s", "tags": ["x"]}
    ours = {"name": "a", "tags": ["x", "y"], "description": "d"}
    theirs = {"name": "b", "system": "s", "tags": ["x"], "metadata": {"m": 1}}
    both = block(name="b", description="d", tags=["x", "y"], metadata={"m": 1}).value
    assert merged(base, ours, theirs) == merged(base, theirs, ours) == both
    assert merged(base, {**base, "name": "c"}, {**base, "name": "c"}) == block(**base).value.replace('"a"', '"c"')
    assert merged({}, {"name": "a"}, {"tags": ["x"]}) == block(name="a", tags=["x"]).value
    assert merged_properties("", block(name="a").value, block().value) == block(name="a").value


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [({"name": "b"}, {"name": "c"}), ({}, {"name": "c"}), ({"name": "b"}, {}), ({"name": "b"}, {"name": ""})],
)
def test_two_values_of_one_property_conflict(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    values = [f'{{"name": "{said["name"]}"}}' if said else "{}" for said in ({"name": "a"}, ours, theirs)]
    with pytest.raises(MergeConflict, match="name was changed in two ways"):
        merged_properties(*values)


def test_lines_are_properties_and_their_items() -> None:
    """So the place of a property among others makes no difference; a block has the lines of its value."""
    one, two = block(name="a", tags=["x", "y"]), block(name="a", metadata={"m": [1]})
    assert lines_of(one) == ['name: "a"', 'tags: "x"', 'tags: "y"']
    assert lines_of(two) == ['name: "a"', 'metadata: ["m", [1]]']
    assert lines_of(Block("agents/sam/agent.yaml")) == lines_of(Block("notes")) == []
    assert lines_of(Block("notes", "a\nb")) == ["a", "b"]
