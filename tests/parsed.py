"""The block that a file's bytes describe, for tests that parse one file once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.files.document import Parser

if TYPE_CHECKING:
    from blocksd.model.block import Block


def parse(data: bytes, label: str) -> Block:
    """Return the block that a file describes. Raise InvalidFile if it describes none."""
    return Parser().parse(data, label)[0]
