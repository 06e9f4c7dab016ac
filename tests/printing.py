"""`blocksd watch` as a program that prints every change, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from support import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


class Printed:
    """`blocksd watch` in a process: the changes that it has printed."""

    def __init__(self, url: str, log: Path, namespace: str = "blocks", *, under: Sequence[str] = ()) -> None:
        """`under` is a command that runs it in its own place."""
        self._log = log
        words = ["watch", "--json", "--redis", url, "--namespace", namespace]
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [*under, sys.executable, "-m", "blocksd", *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "BLOCKSD_CONFIG": os.devnull},
            )

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def close(self) -> None:
        self._process.kill()
        self._process.wait(DEADLINE)


def has_seq(changes: Callable[[], list[dict[str, Any]]], seq: int) -> bool:
    """Return True if a change with this number or a later one came."""
    return any((change["seq"] or 0) >= seq for change in changes())


def check_numbers(changes: list[dict[str, Any]], last: int) -> int:
    """Each change came once and in order up to the last, or a reset came instead; how many resets."""
    at = changes[0]["seq"] - 1
    for change in changes:
        assert change["kind"] == "reset" or change["seq"] == at + 1, (at, change)
        at = change["seq"]
    assert at >= last
    return sum(change["kind"] == "reset" for change in changes)
