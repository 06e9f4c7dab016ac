"""The file of an agent's properties: its text ↔ the block that holds them, and byte-preserving edits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from blocksd.errors import InvalidFile
from blocksd.files.frontmatter import keys_of, lines_of_keys, set_key
from blocksd.files.yaml_reader import Words
from blocksd.model.label import owner
from blocksd.model.nearest import misspelt
from blocksd.model.problem import Warned, together
from blocksd.model.properties import (
    PROPERTIES,
    block_of_properties,
    changed_properties,
    properties_and_errors,
    properties_of,
)

if TYPE_CHECKING:
    from blocksd.model.block import Block

FILE = Words(
    "the file",
    too_large="shorten it",
    no_mapping="write lines of the form 'key: value'",
    second_document="remove the lines '---': agent.yaml has none",
    ended="remove the line '...'",
)

_GUESSES, _LONGEST_KEY = 100, 40  # for how many unknown keys, and of which length, the known ones are searched


def parse(text: str, label: str) -> tuple[Block, tuple[Warned, ...]]:
    """Return the block of the properties that a file says, and what to tell of it.

    Raise InvalidFile if it says none; the message tells all that is wrong.
    """
    given = keys_of(text, 0, FILE) if text else {}
    properties, wrong = properties_and_errors(given)
    unknown = [key for key in given if key not in PROPERTIES and len(key) <= _LONGEST_KEY][:_GUESSES]
    lines = lines_of_keys(text) if unknown or wrong else {}
    if wrong:
        fields = [(error.message, str(error.facts["field"])) for error in wrong]
        told = together([Warned(message, lines.get(key), f"correct {key!r}") for message, key in fields])
        raise InvalidFile(told.message, **({} if told.line is None else {"line": told.line}), hint=told.hint)
    near = [(key, misspelt(key, PROPERTIES)) for key in unknown]
    warnings = [
        Warned(f"unknown key {key!r} is ignored", lines.get(key), f"did you mean {meant!r}?")
        for key, meant in near
        if meant is not None
    ]
    return block_of_properties(str(owner(label)), properties), tuple(warnings)


def edited(text: str, block: Block | None, new: Block) -> str:
    """Return the text of a file that says `block` with the differences of `new`; None stands for a new file.

    Raise EditRefused if the text that must stay would be touched, LimitExceeded if it would be too large.
    """
    old, said = properties_of(block).said, properties_of(new).said
    # What becomes shorter comes first: so the text is never longer on the way than at both ends.
    for key in sorted(changed_properties(block, new), key=lambda key: _size(said.get(key)) > _size(old.get(key))):
        text = set_key(text, key, said.get(key), FILE)
    return text


def _size(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False))
