"""Changes lie on top of a dictionary that stays as it is."""

from __future__ import annotations

import random
from typing import Any

import pytest

from blocksd.model.layer import Layer


def change(layer: Any, dice: random.Random) -> None:
    """Set or remove some key."""
    key = dice.choice("abcdef")
    if dice.randrange(3):
        layer[key] = dice.randrange(9)
    else:
        layer.pop(key, None)


@pytest.mark.parametrize("seed", range(20))
def test_layer_is_as_a_copy_that_was_changed(seed: int) -> None:
    """Whatever is changed, in one layer or in one on top of it; and then it is merged into what is below."""
    dice = random.Random(seed)
    base = {key: dice.randrange(9) for key in "abcd"}
    before, copy = dict(base), dict(base)
    lower: Layer[str, int] = Layer(base)
    for _ in range(5):
        state = dice.getstate()
        change(lower, dice)
        dice.setstate(state)
        change(copy, dice)
    between = dict(copy)
    upper: Layer[str, int] = Layer(lower)
    for _ in range(5):
        state = dice.getstate()
        change(upper, dice)
        dice.setstate(state)
        change(copy, dice)
    assert (base, dict(lower), dict(upper)) == (before, between, copy)
    assert (len(upper), set(upper)) == (len(copy), set(copy))
    assert all((key in upper) == (key in copy) and upper.get(key) == copy.get(key) for key in "abcdefg")
    upper.merge()
    assert (base, dict(lower)) == (before, copy)
    lower.merge()
    assert base == copy


def test_what_is_not_there_cannot_be_removed() -> None:
    """As in any dictionary, also once it was removed."""
    layer: Layer[str, int] = Layer({"a": 1})
    del layer["a"]
    for key in ("a", "b"):
        with pytest.raises(KeyError):
            del layer[key]
        with pytest.raises(KeyError):
            layer[key]
    assert layer.has_changed("a")
    assert not layer.has_changed("b")


def test_layers_in_a_layer_are_merged_with_it() -> None:
    """The dictionary within is the one that was there, or a new one."""
    base: dict[str, Any] = {"old": {"x": 1}}
    inner, layer = base["old"], Layer[str, Any](base)
    layer["old"] = Layer(inner)
    layer["old"]["y"] = 2
    layer["new"] = Layer({})
    layer["new"]["z"] = 3
    assert base == {"old": {"x": 1}}
    layer.merge()
    assert base == {"old": {"x": 1, "y": 2}, "new": {"z": 3}}
    assert base["old"] is inner
    assert type(base["new"]) is dict
