"""Times of a follower beside its floors: a save until its file is on another host, and a first copy beside a bare loop."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from blocksd.files.inotify import MOVED_TO, Inotify
from blocksd.files.syncs import Syncs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PAGE = 256
"""How many blocks a bare loop reads in one round trip."""


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


SYNCS = {
    "each": "syncs each",
    "together": "syncs 64 at once",
    "none": "syncs nothing",
}
"""How a bare loop has on disk what it has written aside, before it renames it: fsync, io_submit, or not at all.

The first two sync each directory at the end.
"""


def texts_of(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by their paths below it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.md"))}


def write_all(texts: Mapping[str, bytes], target: Path, how: str) -> None:
    """Write files aside, and put them in their places, as one of `SYNCS` says."""
    queue = Syncs() if how == "together" else None
    directories, aside = set[Path](), list[tuple[Path, Path, int]]()
    for name, data in texts.items():
        path = target / name
        if path.parent not in directories:
            path.parent.mkdir(parents=True, exist_ok=True)
            directories.add(path.parent)
        beside = path.with_name(f".{path.name}.new")
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(handle, data)
        if queue is not None:
            aside.append((beside, path, handle))
            if len(aside) == Syncs.MOST:
                _put_in(aside, queue)
            continue
        if how == "each":
            os.fsync(handle)
        os.close(handle)
        os.rename(beside, path)
    if queue is not None:
        _put_in(aside, queue)
    for directory in directories if how != "none" else ():
        handle = os.open(directory, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def _put_in(aside: list[tuple[Path, Path, int]], queue: Syncs) -> None:
    queue.begin([handle for _, _, handle in aside])
    assert not any(queue.end().values())
    for beside, path, handle in aside:
        os.close(handle)
        os.rename(beside, path)
    aside.clear()


def fetch_and_write(url: str, labels: Sequence[str], target: Path, how: str) -> None:
    """Read these blocks from Redis, some at a time, and write their files as `write_all` does."""
    client: Any = redis.Redis.from_url(url)
    for first in range(0, len(labels), PAGE):
        some = labels[first : first + PAGE]
        pipeline = client.pipeline(transaction=False)
        for label in some:
            pipeline.hgetall(f"blocks:block:{label}")
        blocks = zip(some, pipeline.execute(), strict=True)
        write_all({f"{label}.md": one.get(b"head", b"") + one[b"value"] + b"\n" for label, one in blocks}, target, how)


def find_differing(url: str, labels: Sequence[str], known: Mapping[str, bytes]) -> list[str]:
    """Ask for the digest of each block, some at a time; the labels of those that are not the `known` ones."""
    client: Any = redis.Redis.from_url(url)
    found: list[str] = []
    for first in range(0, len(labels), PAGE):
        some = labels[first : first + PAGE]
        pipeline = client.pipeline(transaction=False)
        for label in some:
            pipeline.hget(f"blocks:block:{label}", "digest")
        found += [label for label, one in zip(some, pipeline.execute(), strict=True) if known.get(label) != one]
    return found


def bare_copy(source: Path, target: Path) -> float:
    """How long a loop takes that writes all files of a folder to another, and syncs each and the directories."""
    texts = texts_of(source)
    begin = time.perf_counter()
    write_all(texts, target, "each")
    return time.perf_counter() - begin
