"""The hot paths take no more of the processor's instructions than they did: tests/benchmarks/instructions.py counts them."""

from __future__ import annotations

import sys

import pytest

import instructions
from support import require

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the bounds are those of Python 3.11: others compile otherwise"
)
def test_hot_paths_take_no_more_instructions() -> None:
    """A save, an append, the parse of a file, a prompt and a retrieve, each with a margin of 15 %."""
    require("valgrind")
    counted = instructions.counts()
    grown = [
        f"{name}: {count:.0f} thousand instructions, {count / instructions.BOUNDS[name] - 1:+.0%}"
        for name, count in counted.items()
        if count > instructions.BOUNDS[name] * instructions.MARGIN
    ]
    assert counted.keys() == instructions.BOUNDS.keys()
    assert not grown, (
        f"a hot path has become slower ({'; '.join(grown)}). If it must, set BOUNDS in tests/benchmarks/instructions.py "
        "to what that program prints, and say why in the commit message."
    )
