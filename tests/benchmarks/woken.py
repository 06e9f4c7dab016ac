"""A daemon whose steps are timed from when a save has woken it, with cold caches, for `run.py woken`.

python tests/benchmarks/woken.py RESULT run FOLDER …    `blocksd run`, with the times in a file when it ends
"""

from __future__ import annotations

import atexit
import json
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STEPS = {
    "hear": "hear of a save: read the events",
    "read": "read the file, and parse it",
    "decide": "decide",
    "journal": "journal: two rows, one commit",
    "project": "project: commands, sent",
}
"""From the moment at which the process is woken to that at which the change is on its way to the server."""


def best_quarter(times: Sequence[float]) -> float:
    """Return the time that a quarter does not exceed: what other programs on the machine add is in the others."""
    return statistics.quantiles(times)[0]


_spent: defaultdict[str, list[float]] = defaultdict(list)
_woken = 0.0


def _timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*words: Any, **named: Any) -> Any:
        begin = time.perf_counter()
        try:
            return call(*words, **named)
        finally:
            end = time.perf_counter()
            _spent[name].append(end - begin)
            if name == "project":
                _spent["all"].append(end - _woken)

    return timed


def _waking(select: Callable[..., Any]) -> Callable[..., Any]:
    def waking(*words: Any) -> Any:
        global _woken  # noqa: PLW0603  # of a process that does nothing else
        found = select(*words)
        _woken = time.perf_counter()
        return found

    return waking


def _time_steps() -> None:
    import selectors

    from blocksd.core import core
    from blocksd.core.intake import Intake
    from blocksd.files.watcher import Watcher
    from blocksd.journal.journal import Journal
    from blocksd.mirror.mirror import Mirror

    selectors.DefaultSelector.select = _waking(selectors.DefaultSelector.select)  # type: ignore[method-assign]
    for name, owner, call in (
        ("hear", Watcher, "read"),
        ("read", Intake, "read"),
        ("decide", core, "decide"),
        ("journal", Journal, "append"),
        ("project", Mirror, "project"),
    ):
        setattr(owner, call, _timed(name, getattr(owner, call)))


def main() -> None:
    result = Path(sys.argv.pop(1))
    _time_steps()
    atexit.register(
        lambda: result.write_text(json.dumps({name: best_quarter(times) for name, times in _spent.items()}))
    )
    from blocksd.__main__ import main as run

    run()


if __name__ == "__main__":
    main()
