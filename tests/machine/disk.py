"""A disk whose power may be cut: which states a folder and a database may be in afterwards.

The folder is on a file system that journals metadata and not data, as POSIX allows it:

- An operation on directory entries (create, rename, exchange, link, unlink, mkdir, rmdir) is atomic. It is durable once one
  of its directories was synced after it, with all earlier operations on the same names. Until then it is done or not done,
  each by itself: any subset may be done that is consistent, so that every operation finds the names it changes as it
  found them before. Syncing a file makes its data durable, and no name of it; syncing a directory makes its entries
  durable, and not its own name in the directory above.
- The data of a file that was written after its last sync is whole, cut, empty, or all zeros.
- The inode of a file stays: a file that a power cut brings back is the same one. It is given out again once nothing that
  may still be true has a name for it.

What people do is subject to this like what the daemon does: nobody syncs for them. Not modelled: times and modes that are
lost alone, and a ctime that stays (a file that a cut has touched has a new one here).

The database is an SQLite file with a write-ahead log: after a cut it is at any commit from the last one with
synchronous=FULL on. What a checkpoint has moved was synced before, and is there.
"""

from __future__ import annotations

import itertools
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Slot = tuple[int, str]
"""A name in a directory, which has a number."""

_TOP = 0


@dataclass(frozen=True, slots=True)
class Operation:
    """What becomes of which names, all at once: slot → what it was, and what it is (a node, or None)."""

    changes: dict[Slot, tuple[int | None, int | None]]

    @property
    def directories(self) -> set[int]:
        return {directory for directory, _ in self.changes}


@dataclass(frozen=True, slots=True)
class Choice:
    """What a power cut does, in numbers that a test draws: small ones mean that less has reached the disk.

    Bit n of `entries` tells whether the n-th operation on names that was not synced is done; the n-th digit to base four of
    `contents` what the n-th file that was not synced holds: nothing, zeros, a part, or everything. `commits` are those
    that are there beyond the last that must be.
    """

    entries: int = 0
    contents: int = 0
    commits: int = 0
    loses_redis: bool = False


ALL = -1
"""As `entries` or `contents` of a choice: everything has reached the disk."""


class Disk:
    """The folder at `root`, with what of it is durable. Files are negative numbers in it, directories positive."""

    def __init__(self, root: Path, store: Path) -> None:
        """All that is there now is durable. `store` is a directory on the same file system, for names that keep inodes."""
        self._root = str(root)
        self._store = str(store)
        os.mkdir(self._store)
        self._numbers = itertools.count(1)
        self._directories: dict[int, int] = {}  # inode → number, of those that are there
        self._stored: set[int] = set()
        self._synced: dict[int, bytes] = {}
        self._now = self._scan()
        self.settle()

    def settle(self) -> None:
        """Everything is on disk."""
        self._note()
        self._durable = dict(self._now)
        self._pending: list[Operation] = []
        for node in self._durable.values():
            if node < 0:
                self._synced[node] = self._read(node)

    # --- what happens ---

    def note(self) -> None:
        """Something may have been done to names: see what."""
        self._note()

    def synced_file(self, handle: int) -> None:
        node = -os.fstat(handle).st_ino
        if node in self._stored:
            self._synced[node] = self._read(node)

    def synced_directory(self, path: str) -> None:
        """A directory below the folder was synced: its operations are durable, and what they depend on."""
        self._note()
        number = self._number(os.path.join(self._root, path))
        needed: set[Slot] = set()
        done: list[Operation] = []
        for operation in reversed(self._pending):
            if number in operation.directories or not needed.isdisjoint(operation.changes):
                needed |= operation.changes.keys()
                done.append(operation)
        for operation in reversed(done):
            _apply(operation, self._durable)
        kept = set(map(id, done))
        self._pending = [operation for operation in self._pending if id(operation) not in kept]
        self._forget_files()

    @property
    def doubtful(self) -> int:
        """How many operations on names are not durable."""
        return len(self._pending)

    def cut(self, choice: Choice) -> None:
        """Bring the folder to a state in which a power cut may leave it now."""
        self._note()
        state = dict(self._durable)
        for number, operation in enumerate(self._pending):
            is_chosen = choice.entries >> number & 1
            if is_chosen and _is_possible(operation, state):
                _apply(operation, state)
        digits = choice.contents
        for node in sorted({node for node in state.values() if node < 0}, reverse=True):
            data = self._read(node)
            if data != self._synced.get(node):
                self._leave(node, data, digits & 3)
                digits >>= 2
        self._rebuild(state)
        self._now = self._scan()
        self.settle()
        self._forget_files()

    # --- how it is done ---

    def _scan(self) -> dict[Slot, int]:
        """What is there: slot → node. A file that is seen for the first time gets another name, which keeps its inode."""
        found: dict[Slot, int] = {}
        seen: dict[int, int] = {}
        todo = [(self._root, _TOP)]
        while todo:
            path, number = todo.pop()
            with os.scandir(path) as entries:
                for entry in entries:
                    inode = entry.inode()
                    if entry.is_dir(follow_symlinks=False):
                        known = self._directories.get(inode)
                        seen[inode] = node = known if known is not None else next(self._numbers)
                        todo.append((entry.path, node))
                    else:
                        node = -inode
                        if node not in self._stored:
                            os.link(entry.path, self._name(node), follow_symlinks=False)
                            self._stored.add(node)
                    found[number, entry.name] = node
        self._directories = seen
        return found

    def _note(self) -> None:
        was, self._now = self._now, self._scan()
        changes = {
            slot: (was.get(slot), self._now.get(slot))
            for slot in was.keys() | self._now.keys()
            if was.get(slot) != self._now.get(slot)
        }
        if changes:
            self._pending += map(Operation, _connected(changes))

    def _number(self, path: str) -> int:
        return _TOP if os.path.samefile(path, self._root) else self._directories[os.stat(path).st_ino]

    def _name(self, node: int) -> str:
        return f"{self._store}/{-node}"

    def _read(self, node: int) -> bytes:
        with open(self._name(node), "rb") as file:
            return file.read()

    def _leave(self, node: int, data: bytes, digit: int) -> None:
        left = (b"", bytes(len(data)), data[: len(data) // 2], data)[digit]
        if left != data:
            status = os.stat(self._name(node))
            with open(self._name(node), "wb") as file:
                file.write(left)
            os.utime(self._name(node), ns=(status.st_atime_ns, status.st_mtime_ns))

    def _rebuild(self, state: dict[Slot, int]) -> None:
        for path, _, names in os.walk(self._root, topdown=False):
            for name in names:
                os.unlink(os.path.join(path, name))
            if path != self._root:
                os.rmdir(path)
        self._directories = {}
        todo = [(self._root, _TOP)]
        while todo:
            path, number = todo.pop()
            for (directory, name), node in state.items():
                if directory != number:
                    continue
                full = os.path.join(path, name)
                if node > 0:
                    os.mkdir(full)
                    self._directories[os.stat(full).st_ino] = node
                    todo.append((full, node))
                else:
                    os.link(self._name(node), full)

    def _forget_files(self) -> None:
        """Let go of the inodes that nothing has a name for, whatever becomes of the power."""
        named = {*self._now.values(), *self._durable.values()}
        for operation in self._pending:
            named |= {node for change in operation.changes.values() for node in change if node is not None}
        for node in self._stored - named:
            os.unlink(self._name(node))
            self._synced.pop(node, None)
        self._stored &= named


def _is_possible(operation: Operation, state: dict[Slot, int]) -> bool:
    if any(state.get(slot) != before for slot, (before, _) in operation.changes.items()):
        return False
    removed = {before for before, after in operation.changes.values() if before is not None and before > 0}
    removed -= {after for _, after in operation.changes.values() if after is not None}
    return not any(directory in removed for directory, _ in state)


def _apply(operation: Operation, state: dict[Slot, int]) -> None:
    for slot, (_, after) in operation.changes.items():
        if after is None:
            state.pop(slot, None)
        else:
            state[slot] = after


def _connected(
    changes: dict[Slot, tuple[int | None, int | None]],
) -> Iterator[dict[Slot, tuple[int | None, int | None]]]:
    """Divide changes into those that are one operation: a node that left one name and came to another connects them.

    Directories come first: what is in a new one comes after it, and what was in an old one goes before it.
    """
    left = dict(sorted(changes.items(), key=lambda one: one[1][1] is None))
    while left:
        slot = next(iter(left))
        group = {slot: left.pop(slot)}
        nodes = set(group[slot]) - {None}
        while more := {slot: change for slot, change in left.items() if not nodes.isdisjoint(set(change) - {None})}:
            for one, change in more.items():
                group[one] = left.pop(one)
                nodes |= set(change) - {None}
        yield group


class Log:
    """The write-ahead log of the SQLite file at `path`, and from where on its commits are in doubt."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._floor = (b"", 0)

    @property
    def _wal(self) -> Path:
        return self._path.with_name(f"{self._path.name}-wal")

    def synced(self) -> None:
        """Everything that was committed is on disk."""
        salt, ends = self._ends()
        self._floor = salt, ends[-1] if ends else 0

    def states(self) -> list[int]:
        """How long the log may be after a power cut now, from the least to the most."""
        salt, ends = self._ends()
        floor = max(self._floor[1] if self._floor[0] == salt else 0, self._moved())
        return [end for end in (0, *ends) if end >= floor] or [floor]

    def take(self, choice: Choice) -> tuple[bytes, bytes]:
        """The two files as a power cut leaves them, to be `put` once the database was closed."""
        states = self.states()
        end = states[min(choice.commits, len(states) - 1)]
        wal = self._wal.read_bytes()[:end] if self._wal.exists() else b""
        return self._path.read_bytes(), wal

    def put(self, data: bytes, wal: bytes) -> None:
        self._path.write_bytes(data)  # in place: it is the same file
        self._wal.unlink(missing_ok=True)
        self._path.with_name(f"{self._path.name}-shm").unlink(missing_ok=True)
        if wal:
            self._wal.write_bytes(wal)

    def _ends(self) -> tuple[bytes, list[int]]:
        """The salts of the log in force, and where each of its commits ends."""
        try:
            data = self._wal.read_bytes()
        except FileNotFoundError:
            return b"", []
        if len(data) < _HEADER:
            return b"", []
        size, salt, ends = _FRAME + struct.unpack_from(">I", data, 8)[0], data[16:24], list[int]()
        for start in range(_HEADER, len(data) - size + 1, size):
            if data[start + 8 : start + 16] != salt:
                break
            if data[start + 4 : start + 8] != b"\0\0\0\0":  # the last frame of a commit
                ends.append(start + size)
        return salt, ends

    def _moved(self) -> int:
        """How much of the log is in the database already."""
        try:
            with self._path.with_name(f"{self._path.name}-shm").open("rb") as file:
                file.seek(96)  # nBackfill, after two copies of the index's header
                (frames,) = struct.unpack("=I", file.read(4))
            with self._wal.open("rb") as file:
                file.seek(8)
                (page,) = struct.unpack(">I", file.read(4))
        except (FileNotFoundError, struct.error):
            return 0
        return _HEADER + frames * (_FRAME + page) if frames else 0


_HEADER, _FRAME = 32, 24
