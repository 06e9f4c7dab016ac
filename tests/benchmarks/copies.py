"""Times of a follower beside its floors: a save until its file is on another host, and a first copy beside a bare loop."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from blocksd.files.inotify import MOVED_TO, Inotify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def follower(folder: Path, state: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    """A read-only follower in a process of its own, once it has caught up."""
    words = [sys.executable, "-m", "blocksd", "follow", str(folder), "--redis", url, "--state-dir", str(state)]
    process = subprocess.Popen(
        [*words, "--read-only"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "BLOCKSD_CONFIG": os.devnull, "BLOCKSD_LOG_LEVEL": "info"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "ready:" in line:
            break
    process.stderr.close()
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


class Arrivals:
    """Waits until a file comes to a name in a directory."""

    def __init__(self, directory: Path) -> None:
        self._inotify = Inotify()
        self._inotify.add(os.fsencode(directory), MOVED_TO)

    def wait_for(self, name: str) -> None:
        """Return when a file has come to this name."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            select.select([self._inotify.handle], [], [], 1.0)
            if any(event.name == name.encode() for event in self._inotify.read()):
                return
        raise TimeoutError(f"a minute without {name}")

    def close(self) -> None:
        self._inotify.close()


def bare_copy(source: Path, target: Path) -> float:
    """How long a loop takes that writes all files of a folder to another, and syncs each and the directories."""
    texts = [(path.relative_to(source), path.read_bytes()) for path in sorted(source.rglob("*.md"))]
    begin = time.perf_counter()
    directories = {target}
    for path, data in texts:
        full = target / path
        if full.parent not in directories:
            full.parent.mkdir(parents=True)
            directories.add(full.parent)
        handle = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(handle, data)
        os.fsync(handle)
        os.close(handle)
    for directory in directories:
        handle = os.open(directory, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    return time.perf_counter() - begin
