"""Reads what a prompt shows of blocks straight from their hashes.

A prompt is compiled anew from all of an agent's blocks whenever one of them has changed. It needs little of each, and that
takes half as long as a view of each block does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.mirror.view import incomplete, needed, number, short_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocksd.model.prompt import Row


def rows_of(hashes: Mapping[str, Mapping[str, str]]) -> list[Row] | None:
    """Return the rows of blocks by their hashes, which are those of these labels; None: one of the blocks is not there.

    Hidden blocks and templates are left out. Raises Damaged for the same hashes as making views of them does.
    """
    rows: list[Row] = []
    for label, fields in hashes.items():
        if not fields:
            return None
        try:
            found = needed(fields)
        except KeyError:
            if fields.get("label", label) != label:
                return None
            raise incomplete(fields) from None
        # In the order of `needed`: label, value, limit, read_only, hidden, is_template, and what is only to be there.
        if found[0] != label:
            return None
        if not found[2].isdecimal():
            number(found[2])
        if found[4] != "true" and found[5] != "true":
            rows.append((short_name(label), found[1], fields.get("description"), found[3] == "true", found[2]))
    return rows
