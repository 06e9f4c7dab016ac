"""How long the parts of a round take, by the effects it yields."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def timed(
    effects: Iterable[str], tell: Callable[[str, float], object], *, clock: Callable[[], float] = time.perf_counter
) -> None:
    """Do a round, and `tell` of each part, from the beginning of its effect to that of the next, and its seconds.

    What comes before the first effect is called `look`, and is not told of in a round that finds nothing.
    """
    stage, began = "look", clock()
    for effect in effects:
        now = clock()
        if stage != "look" or effect != "mirror":  # a round that finds nothing is none of interest
            tell(stage, now - began)
        stage, began = effect, now
    tell(stage, clock() - began)
