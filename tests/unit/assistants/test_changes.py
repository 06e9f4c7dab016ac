"""An agent's memory in words for its model: as a whole, and as that which has changed since a turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from blocksd.assistants.changes import changes, shown, whole
from blocksd.mirror.prompt_rows import rows_of
from blocksd.mirror.view import BlockView, view_of
from blocksd.model.prompt import render_block
from blocksd.protocol.sight import Sight
from rig import AT

if TYPE_CHECKING:
    from collections.abc import Iterable


def sight_of(blocks: Iterable[BlockView], agent_type: str | None = None) -> Sight:
    hashes = {one.label: one._fields for one in blocks}
    rows = rows_of(hashes)
    assert rows is not None
    return Sight(hashes, rows, (), agent_type)


def block(label: str, value: str, version: int = 1, **fields: Any) -> BlockView:
    facts = {
        "label": label,
        "id": f"block-{label}",
        "version": version,
        "value": value,
        "chars": len(value),
        "digest": "",
        "created_at": AT,
        "updated_at": AT,
        "updated_by": "file",
        "limit": 50_000,
        "read_only": False,
        "hidden": False,
        "tags": [],
        "metadata": {},
        "is_template": False,
        "preserve_on_migration": False,
        "description": None,
    }
    return view_of({**facts, **fields})


def seen(*blocks: BlockView) -> dict[str, Any]:
    return {one.id: shown(one) for one in blocks}


LONG = "\n".join(f"Line {number}." for number in range(100))


def test_nothing_changed_gives_nothing() -> None:
    """Not a word."""
    notes = block("notes", LONG)
    assert changes(seen(notes), [notes], lambda *_: None, 10_000) == ""
    assert changes({}, [], lambda *_: None, 10_000) == ""


def test_change_is_a_short_diff() -> None:
    """With who made it; the rest of the block is not repeated."""
    old = block("notes", LONG)
    new = block("notes", LONG.replace("Line 50.", "Line fifty."), 2, updated_by="bob")
    text = changes(seen(old), [new], lambda _, version: old if version == 1 else None, 10_000)
    assert text.startswith("<memory_changes>\nYour memory has changed since your last turn:\n\n")
    assert "Block notes was changed by bob:\n@@ -48,7 +48,7 @@\n" in text
    assert "\n-Line 50.\n+Line fifty.\n" in text
    assert "Line 60." not in text
    assert text.endswith("\n</memory_changes>")


def test_block_is_shown_whole_where_a_diff_says_less() -> None:
    """The old text is not known, is all different, or something else than the value changed."""
    old = block("notes", LONG)
    new = block("notes", LONG.replace("Line 50.", "?"), 2)
    for past in (None, block("notes", "Wholly different.\n" * 100), block("notes", LONG, description="Other.")):
        text = changes(seen(old), [new], lambda *_, past=past: past, 10_000)
        assert "Block notes was changed. It is now:\n<notes>\n" in text
        assert "Line 60." in text


def test_blocks_that_come_go_and_are_renamed() -> None:
    """Each is named."""
    notes, todo = block("notes", "One."), block("todo", "Two.")
    fresh = block("fresh", "Three.", updated_by="operator")
    renamed = block("plans", "Two.", 2, id=todo.id)
    text = changes(seen(notes, todo), [fresh, renamed], lambda *_: todo, 10_000)
    assert "New block fresh by operator:\n<fresh>\n" in text
    assert "Block plans (it was called todo) was changed. It is now:\n<plans>\n" in text
    assert "No longer in your memory: notes\n" in text


def test_much_that_changed_is_named() -> None:
    """The assistant would cut a longer text off."""
    blocks = [block(f"b{number}", LONG) for number in range(30)]
    text = changes({}, blocks, lambda *_: None, 3000)
    assert len(text) <= 3000
    assert text.endswith("</memory_changes>")
    assert "New block b0:\n" in text
    assert "These blocks of your memory do not fit here: b2 (" in text
    assert ", and 8 more. Read them with" in text


def test_text_of_a_block_stays_in_the_element() -> None:
    """As in prompts, by a backslash."""
    text = changes({}, [block("notes", "</memory_changes>")], lambda *_: None, 10_000)
    assert text.count("</memory_changes>") == 1
    assert "<\\/memory_changes>" in text


def test_whole_memory_that_fits_is_the_prompt() -> None:
    """As `blocksd render` prints it; hidden blocks are left out."""
    sight = sight_of([block("notes", "One."), block("secret", "Hush.", hidden=True)])
    text = whole(sight, 10_000)
    assert text.startswith("<memory_blocks>\n")
    assert "One." in text
    assert "Hush." not in text
    assert whole(sight_of([]), 10_000) == ""


def test_whole_memory_that_does_not_fit_is_named() -> None:
    """What fits is shown, in whole blocks, the persona first."""
    sight = sight_of([block("a", LONG * 9), block("persona", "Sam."), block("z", "End.")])
    text = whole(sight, 2000)
    assert len(text) <= 2000
    assert "Sam." in text
    assert "End." in text
    assert text.endswith(
        f"do not fit here: a ({len(LONG) * 9} characters). Read them with the tools of your memory, or "
        "with 'blocksd show LABEL'."
    )
    numbered = whole(sight_of(sight.blocks.values(), "sleeptime_agent"), 1000)
    assert "1→ Sam." in numbered


@pytest.mark.parametrize("most", [100, 1000, 10_000])
def test_nothing_is_longer_than_was_asked_for(most: int) -> None:
    """As assistants count, which shorten what is longer by one: long names, files and characters beyond U+FFFF included."""
    blocks = [block("/".join(f"{number:03}{'n' * 150}" for _ in range(6)), "𝒳" * 300 + LONG) for number in range(40)]
    for text in (
        whole(sight_of(blocks), most),
        changes({}, blocks, lambda *_: None, most),
        changes(seen(*blocks), [], lambda *_: None, most),
        changes(seen(*blocks[20:]), blocks[:20], lambda *_: None, most),
    ):
        assert 0 < len(text.encode("utf-16-le")) // 2 <= most
        assert text.startswith(("<memory_", "These blocks"))


def test_frame_and_note_count_too() -> None:
    """Where the blocks alone would just fit, one more of them is named."""
    blocks = [block(f"b{number}", LONG) for number in range(5)]
    most = sum(len(render_block(one)) for one in blocks[:4])
    text = whole(sight_of(blocks), most)
    assert len(text) <= most
    assert "do not fit here: b3 (889 characters), b4 (889 characters)." in text
