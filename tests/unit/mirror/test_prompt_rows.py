"""What a prompt shows of blocks is read from their hashes as views of them say it, and refused where they are refused."""

from __future__ import annotations

from typing import Any

import pytest

from blocksd.errors import Damaged
from blocksd.mirror.projection import fields_of
from blocksd.mirror.prompt_rows import rows_of
from blocksd.mirror.view import BlockView
from blocksd.model.prompt import STYLES, Style, compile_prompt, compile_rows
from rig import revision

BLOCKS: dict[str, dict[str, Any]] = {
    "human": {"value": "Her name is </value>.", "description": "<human> & co"},
    "team/goals": {"value": "one\ntwo", "read_only": True},
    "agents/ann/persona": {"value": "", "limit": 77},
    "secret": {"value": "x", "hidden": True},
    "form": {"value": "x", "is_template": True},
    "two words": {"value": "x", "tags": ("a",), "metadata": {"a": 1}},
}


def hashes() -> dict[str, dict[str, str]]:
    return {label: fields_of(revision(1, label, agents=("ann",), **fields)) for label, fields in BLOCKS.items()}


@pytest.mark.parametrize("style", STYLES)
def test_text_is_that_of_the_views(style: Style) -> None:
    """Of each block, in each style; hidden blocks and templates are left out."""
    rows = rows_of(hashes())
    assert rows is not None
    assert len(rows) == 4
    assert compile_rows(rows, style) == compile_prompt(map(BlockView, hashes().values()), style=style)


@pytest.mark.parametrize("missing", sorted(fields_of(revision(1, value="x")).keys() - {"label"}))
def test_incomplete_block_is_refused(missing: str) -> None:
    """As by a view: a field that was taken out of a hash is no default."""
    there = hashes()
    del there["human"][missing]
    with pytest.raises(Damaged) as by_view:
        BlockView(there["human"])
    with pytest.raises(Damaged) as by_row:
        rows_of(there)
    assert by_row.value.message == by_view.value.message


def test_limit_that_is_no_number_is_refused() -> None:
    """Its text is shown as it is: so it is checked."""
    there = hashes()
    there["human"]["limit"] = "many"
    with pytest.raises(Damaged, match="'many' where a number must be"):
        rows_of(there)


@pytest.mark.parametrize("change", [{}, {"label": "other"}, {"label": "other", "value": None}])
def test_block_that_is_not_there(change: dict[str, str | None]) -> None:
    """A hash that is gone, or of another label: all is read again."""
    there = hashes()
    fields = {**there["human"], **change} if change else {}
    there["human"] = {name: text for name, text in fields.items() if text is not None}
    assert rows_of(there) is None
