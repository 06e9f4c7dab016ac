"""Reads the directory of block files, so that half a save is never taken for a whole one."""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from blocksd.errors import BlocksdError, InvalidFile
from blocksd.files.beneath import NOT_THERE
from blocksd.files.document import MAX_BYTES
from blocksd.files.links import resolve
from blocksd.files.open_writers import OpenWriters, openers_of
from blocksd.files.root import Root
from blocksd.model.label import SUFFIX, is_junk, is_properties, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Signature = tuple[int, int, int, int]
"""What a file's stat tells of its content: mtime in ns, ctime in ns, size in bytes, inode."""

FRESH_SECONDS = 0.02
"""A file whose mtime is this close to the moment it was read may be written again within the same tick of the file
system's clock, and keep its signature: its signature proves nothing yet."""


@dataclass(frozen=True, slots=True)
class Text:
    """A file was read whole, and was the same before and after. Its signature is `unproven` while it proves nothing.

    `way` is of a symlink: the other symlinks that it leads through, and its target. `names` is how many names
    the file has. `saved_at` is when it was saved, or put where it is, in seconds since 1970. `mode` are its permission bits.
    """

    data: bytes
    signature: Signature
    way: tuple[str, ...] = ()
    names: int = 1
    saved_at: float = 0.0
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Absent:
    """There is no such file, nor could it be elsewhere."""


@dataclass(frozen=True, slots=True)
class Busy:
    """The file is being written: look again. `is_open`: a process has it open for writing, and may pause for long."""

    is_open: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The file is there but cannot be a block, or could not be read: neither absent nor changed."""

    error: BlocksdError
    signature: Signature | None
    way: tuple[str, ...] = ()


Reading = Text | Absent | Busy | Refused

signature_of: Callable[[os.stat_result], Signature] = attrgetter("st_mtime_ns", "st_ctime_ns", "st_size", "st_ino")

_PACKED = struct.Struct("<qqqQ")
packed: Callable[[int, int, int, int], bytes] = _PACKED.pack
"""Returns the four numbers of a signature in 32 bytes: a daemon keeps one for each block, in a third of the memory."""
unpacked: Callable[[bytes], Signature] = _PACKED.unpack
NO_SIGNATURE = bytes(_PACKED.size)
"""In place of a packed signature that proves nothing, where all have one size."""


def packed_or_none(*numbers: Any) -> bytes | None:
    """Return a signature packed; None if it is none: a number is missing, or out of range, as in a damaged row."""
    try:
        return packed(*numbers)
    except struct.error:
        return None


def unproven(signature: Signature) -> Signature:
    """Return a signature that no file has, so that the file is read again; it still tells which file it was."""
    mtime_ns, _, size, inode = signature
    return (mtime_ns, 0, size, inode)


class Folder:
    """A directory of block files, addressed by paths below it (`os.fsdecode`d, `/` between segments)."""

    def __init__(self, root: Root | str) -> None:
        self.directory = root if isinstance(root, Root) else Root(root)
        self._open_writers = OpenWriters()

    @property
    def root(self) -> str:
        """The path of the directory, wherever symlinks led."""
        return self.directory.path

    def identity(self) -> tuple[int, int] | None:
        """Return device and inode of the directory that is there now; None when there is none.

        Raise OSError if it cannot be told.
        """
        return self.directory.identity()

    def expect_writers(self, directory: str) -> None:
        """Have it noticed from now on who writes in a directory, if its files will give no lease.

        Raise OSError if it cannot be looked at.
        """
        self._open_writers.expect(os.path.join(self.root, directory), self.directory.stat(directory).st_mode)

    def read(self, path: str, *, closed: bool) -> Reading:
        """Read a file.

        `closed` tells that a writer was just seen to close it (or to move it in whole): then it need not have settled
        where nothing tells whether it is open. A file in the middle of a write is Busy.
        """
        root, way = self.directory, list[str]()
        try:
            status, opened = root.look(path, MAX_BYTES)
            is_link = stat.S_ISLNK(status.st_mode)
            full = path
            if is_link:
                full, status = self._follow(path, way)
            if stat.S_ISDIR(status.st_mode) and not is_link and not (path.endswith(SUFFIX) or is_properties(path)):
                return Absent()  # where a symlink was
            if not stat.S_ISREG(status.st_mode):
                return Refused(_special(status, path, is_link=is_link), None)
            signature = signature_of(status)
            if status.st_size > MAX_BYTES:
                return Refused(_too_large(status.st_size, path), signature)
        except OSError as error:
            # ELOOP: a directory on the way is a symlink, which no sweep follows.
            is_absent = error.errno in NOT_THERE
            return Absent() if is_absent else Refused(_unreadable(error, path, is_seen=False), None)
        except InvalidFile as error:
            return Refused(error, None, _without(path, way))
        try:
            if isinstance(opened, OSError):
                raise opened
            handle, has_writer = opened or root.open_to_read(full)
        except (FileNotFoundError, NotADirectoryError):
            return Absent()
        except OSError as error:
            return Busy() if error.errno == errno.ELOOP else Refused(_unreadable(error, path), None)
        try:
            if has_writer is None:
                has_writer = self._open_writers.may_have(os.path.join(self.root, full), status, was_closed=closed)
            if has_writer:
                return Busy(is_open=True)
            data = root.read(handle, status.st_size + 1)
            if len(data) != status.st_size or signature_of(root.status(handle)) != signature:
                return Busy()
        except OSError as error:
            return Refused(_unreadable(error, path), None)  # what it says is not known: it is read again
        finally:
            with suppress(OSError):
                root.close(handle)
        is_fresh, saved_at = abs(time.time() - status.st_mtime) < FRESH_SECONDS, max(status.st_mtime, status.st_ctime)
        known, by = unproven(signature) if is_fresh else signature, _without(path, way) if way else ()
        return Text(data, known, by, status.st_nlink, saved_at, status.st_mode & 0o777)

    def content(self, below: str) -> Iterator[str]:
        """Yield the files in a directory and those below it, of any kind but junk; a link is a file.

        What cannot be listed is named as if it were a file. No file is opened.
        """
        todo = [below]
        while todo:
            directory = todo.pop()
            try:
                with self.directory.scandir(directory) as entries:
                    for entry in entries:
                        path = f"{directory}/{entry.name}"
                        if entry.is_dir(follow_symlinks=False) and not is_properties(path):
                            todo.append(path)
                        elif not is_junk(entry.name):
                            yield path
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                yield directory

    def signature(self, path: str) -> Signature | None:
        """Return the signature of a regular file that is there; None when there is none, or it cannot be told."""
        try:
            status = self.directory.stat(path)
        except OSError:
            return None
        return signature_of(status) if stat.S_ISREG(status.st_mode) else None

    def is_absent(self, path: str) -> bool:
        """Return True if it is certain that there is no such file: what cannot be told is not absent."""
        with suppress(OSError):
            return self.directory.find(path) is None
        return False

    def is_symlink(self, path: str) -> bool:
        """Return True if a path is surely that of a symlink."""
        with suppress(OSError):
            status = self.directory.find(path)
            return status is not None and stat.S_ISLNK(status.st_mode)
        return False

    def is_directory(self, path: str) -> bool | None:
        """Return True if there is a directory, and no symlink to one; None when it cannot be told."""
        with suppress(OSError):
            status = self.directory.find(path)
            return status is not None and stat.S_ISDIR(status.st_mode)
        return None

    def writers(self, path: str) -> str:
        """Return the processes that have a file open for writing, for a message; the empty text when none can be seen."""
        try:
            status = self.directory.stat(resolve(self.directory, path))
        except OSError:
            return ""
        return ", ".join(map(str, openers_of(status)[:3]))

    def _follow(self, path: str, way: list[str]) -> tuple[str, os.stat_result]:
        """Return the target of a symlink, which must be inside the folder, and its status."""
        try:
            target = resolve(self.directory, path, way)
            return target, self.directory.stat(target)
        except OSError as error:
            if error.errno in NOT_THERE:
                hint = "create its target, or remove the link"
                raise InvalidFile("the symlink leads to nothing", hint=hint) from None
            if error.errno != errno.EXDEV:
                raise
            if self.directory.leads_to_directory(path):
                raise _linked_directory() from None
            hint = "copy the file here; only links inside it are followed"
            raise InvalidFile("the symlink leads out of the folder", hint=hint) from None


def _without(path: str, way: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(hop for hop in way if hop != path))


def _special(status: os.stat_result, path: str, *, is_link: bool) -> InvalidFile:
    if is_link and stat.S_ISDIR(status.st_mode):
        return _linked_directory()
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    what = kinds.get(stat.S_IFMT(status.st_mode), "not a regular file")
    it, whose = ("agent.yaml", "the properties of an agent are") if is_properties(path) else ("a block", "a block is")
    return InvalidFile(f"{what} cannot be {it}", hint=f"{whose} a regular file; rename or remove this")


def _linked_directory() -> InvalidFile:
    message = "it is a symlink to a directory: no block is read or written through it"
    return InvalidFile(message, hint="put the directory itself here, or link each file in it")


def _too_large(size: int, path: str) -> InvalidFile:
    hint = "shorten it" if is_properties(path) else "is this a block? if so, split it"
    return InvalidFile(f"the file is {size} bytes, over the {MAX_BYTES} that are read", hint=hint)


def _unreadable(error: OSError, path: str, *, is_seen: bool = True) -> InvalidFile:
    """Return the error for a file that cannot be read; unless it `is_seen`, its directory cannot be entered."""
    directory = printable(path.rpartition("/")[0]) or "the folder"
    right = f"give the daemon's user the right to {f'read {printable(path)}' if is_seen else f'enter {directory}'}"
    hints = {errno.EACCES: right, errno.EPERM: right, errno.EIO: "check the disk"}
    return InvalidFile(
        f"it cannot be read: {os.strerror(error.errno or 0)}",
        errno=errno.errorcode.get(error.errno or 0, "?"),
        hint=hints.get(error.errno or 0, "it is tried again at every resync"),
    )
