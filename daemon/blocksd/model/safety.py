"""Safety rules: named predicates that tell when deletions must wait.

An unmounted disk, a `git clean` in the wrong place and a person who really wants ten blocks gone all look alike. A
deletion that a predicate stops is not forgotten: the daemon looks again, and continues when the files are back.
"""

from __future__ import annotations

WIPE_ABOVE = 3
MASS_ABOVE = 10


def is_wiped(blocks: int, vanished: int) -> bool:
    """Return True if all blocks of a folder of more than `WIPE_ABOVE` vanished: a lost mount, not an edit."""
    return blocks > WIPE_ABOVE and vanished >= blocks


def is_mass_deletion(blocks: int, vanished: int) -> bool:
    """Return True if more than half of more than `MASS_ABOVE` blocks vanished in one pass."""
    return blocks > MASS_ABOVE and 2 * vanished > blocks


def is_replaced(expected: tuple[int, int] | None, found: tuple[int, int] | None) -> bool:
    """Return True if another directory (device and inode) is in the folder's place."""
    return expected is not None and found is not None and expected != found
