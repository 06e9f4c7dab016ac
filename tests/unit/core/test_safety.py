"""When deletions are doubted."""

from __future__ import annotations

import pytest

from blocksd.core import deletions as safety


@pytest.mark.parametrize(
    ("blocks", "vanished", "wiped"),
    [(1, 1, False), (3, 3, False), (4, 4, True), (4, 3, False), (1000, 1000, True), (1000, 999, False), (0, 0, False)],
)
def test_all_of_more_than_three_is_a_wipe(blocks: int, vanished: int, *, wiped: bool) -> None:
    """All blocks vanishing at once is a lost mount, unless there were very few."""
    assert safety.is_wiped(blocks, vanished) is wiped


@pytest.mark.parametrize(
    ("blocks", "vanished", "mass"),
    [
        (10, 9, False),
        (11, 5, False),
        (11, 6, True),
        (12, 6, False),
        (12, 7, True),
        (1000, 500, False),
        (1000, 501, True),
    ],
)
def test_more_than_half_of_more_than_ten_is_a_mass_deletion(blocks: int, vanished: int, *, mass: bool) -> None:
    """Exactly half may still be meant; one more is doubted."""
    assert safety.is_mass_deletion(blocks, vanished) is mass


@pytest.mark.parametrize(
    ("expected", "found", "replaced"),
    [
        ((1, 2), (1, 2), False),
        ((1, 2), (1, 3), True),
        ((1, 2), (2, 2), True),
        ((1, 2), None, False),
        (None, (1, 2), False),
    ],
)
def test_another_inode_is_another_folder(
    expected: tuple[int, int] | None, found: tuple[int, int] | None, *, replaced: bool
) -> None:
    """A folder is its device and inode; one that is gone is not replaced."""
    assert safety.is_replaced(expected, found) is replaced
