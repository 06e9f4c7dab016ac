"""Lays new texts beside their files, until they are put in or discarded."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from blocksd.errors import ProblemFile, Unavailable, Undecided
from blocksd.files.beneath import NOT_THERE, os_error
from blocksd.files.directories import Directories
from blocksd.files.file_edit import Staged
from blocksd.files.links import resolve
from blocksd.files.root import Root, kept
from blocksd.files.syncs import Syncs
from blocksd.model.label import TEMPORARY, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from blocksd.files.file_edit import FileEdit
    from blocksd.files.folder import Signature

TRIES = 3
_ACL = "system.posix_acl_access"


class _WouldWiden(PermissionError):
    """More users could read the new file than the one whose place it takes."""

    def __init__(self) -> None:
        super().__init__(errno.EPERM, "more users could read it")


class Mark(NamedTuple):
    """Tells a file that was made here from one that was written to later."""

    mtime_ns: int
    size: int
    inode: int


class Staging(Directories):
    """The texts that lie beside files of a folder.

    A new text has the time one nanosecond before it was written, which no later write can have: as long as its file has
    that time, it has that text.
    """

    def __init__(self, root: Root | str, *, is_durable: bool = True) -> None:
        """Write as `Directories` does."""
        super().__init__(root, is_durable=is_durable)
        self._marks: dict[str, Mark] = {}  # of new texts, by `aside`
        self._places: dict[str, str] = {}  # where the new texts go, by `aside`
        # Of what is to be displaced, as it was read: by `aside`, where that proves it.
        self._read: dict[str, Signature] = {}
        # Of new texts when they were put in: by `aside`, where that proves them.
        self._placed: dict[str, Signature] = {}
        self._compared: dict[str, Signature] = {}  # of what was displaced, and compared then: by `aside`
        self._unsynced: dict[str, tuple[str, int]] = {}  # new texts on their way to disk: aside → path, handle
        self._syncs: Syncs | None = None
        self._has_syncs = True  # as far as is known
        self.left: dict[str, str] = {}  # temporaries that could not be removed: path → why

    def _place(self, edit: FileEdit | Staged) -> str:
        """Return the place of an edit: the target of a symlink is written, but a link is removed alone.

        A symlink may be changed after an edit was staged: the place stays what it was.
        """
        if edit.data is None:
            return edit.path
        known = self._places.get(edit.aside) if isinstance(edit, Staged) else None
        return known if known is not None else self._target(edit.path)

    def _target(self, path: str) -> str:
        """Return the path that a symlink leads to; the path itself, if it is none, or leads to nothing in the folder."""
        try:
            return resolve(self._root, path)
        except OSError as error:
            if error.errno not in (*NOT_THERE, errno.EXDEV):
                raise
            return path

    def _aside(self, staged: Staged) -> str:
        """Return the path of the staged text, after finishing an exchange that a crash has left half done."""
        if not self._root.exists(staged.aside) and self._root.exists(kept(staged.aside)):
            self._root.rename(kept(staged.aside), staged.aside)
        return staged.aside

    def stage(self, edit: FileEdit) -> Staged:
        """Write an edit's new text beside its file. It is on its way to disk; `flush` waits until it is there.

        Raise Unavailable or ProblemFile if it cannot be written there; nothing is left behind.
        """
        if len(self._unsynced) >= Syncs.MOST:
            self.start_flush()
            self.flush()
        aside = ""
        try:
            status = self._root.find_to_write(edit.path)
            is_link = status is not None and stat.S_ISLNK(status.st_mode)
            full = self._target(edit.path) if is_link and edit.data is not None else edit.path
            if full != edit.path:
                status = self._root.find(full)
            directory = os.path.dirname(full)
            aside = os.path.join(directory, f"{TEMPORARY}{secrets.token_hex(8)}")
            old = None if edit.base is None or status is None else status.st_ino
            staged = Staged(edit.path, aside, digest(edit.base), digest(edit.data), None, old)
            if edit.signature is not None:
                self._read[aside] = edit.signature
            if edit.data is None:
                return staged
            self._places[aside] = full
            if directory:
                self._make_directory(directory)
            if edit.like not in (None, edit.path):
                full = self._target(edit.like)
                status = self._root.find(full)
            new = self._write(staged, edit.data, full, status)
            return staged._replace(new=new)
        except OSError as error:
            if aside:
                self._places.pop(aside, None)
                self._read.pop(aside, None)
                self.remove(aside)
            raise self._unwritable(edit.path, error) from None

    def _write(self, staged: Staged, data: bytes, like: str, status: os.stat_result | None) -> int:
        """Write a new text aside; return its inode."""
        handle, inode, mark = _make(self._root, staged.aside, data, like, status)
        if mark is not None:
            self._marks[staged.aside] = mark
        if self.is_durable:
            if not self._has_queue():  # which begins with all of them at once, for a quarter less CPU
                self._root.start_sync(handle)
            self._unsynced[staged.aside] = staged.path, handle
        else:
            self._root.close(handle)
        return inode

    def _has_queue(self) -> bool:
        """Return True if the kernel syncs many files at once, as far as is known."""
        return self._has_syncs and self._root.sync is os.fsync  # a test may have another

    def start_flush(self) -> None:
        """Begin to sync all new texts, without waiting. Where the kernel has no queue for that, `flush` does all of it."""
        if self._unsynced and self._has_queue():
            try:
                self._syncs = self._syncs or Syncs()
                self._syncs.begin([handle for _, handle in self._unsynced.values()])
            except OSError:
                self._syncs, self._has_syncs = None, False

    def flush(self, named: Iterable[Staged] = ()) -> None:
        """Wait until all new texts are on disk; then sync the names of those in `named`.

        Raise Unavailable if one of them cannot be synced.
        """
        ended: dict[int, int] = {}
        if self._syncs is not None:
            try:
                ended = self._syncs.end()
            except OSError:
                self._syncs, self._has_syncs = None, False
        while self._unsynced:
            aside = next(iter(self._unsynced))
            path, handle = self._unsynced.pop(aside)
            try:
                try:
                    number = ended.get(handle)
                    if number is None:
                        self._root.sync(handle)
                    elif number:
                        raise os_error(number, path)
                finally:
                    self._root.close(handle)
            except OSError as error:
                raise self._unwritable(path, error) from None
        self.sync(named)

    def discard(self, staged: Staged) -> None:
        """Remove the staged text, or what it has displaced."""
        self._marks.pop(staged.aside, None)
        self._places.pop(staged.aside, None)
        self._read.pop(staged.aside, None)
        self._placed.pop(staged.aside, None)
        self._compared.pop(staged.aside, None)
        _, handle = self._unsynced.pop(staged.aside, ("", None))
        if handle is not None:
            with suppress(OSError):
                self._root.close(handle)
        self.remove(staged.aside)

    def remove(self, path: str) -> None:
        """Remove a temporary, if it is there. One that cannot be removed is in `left`: the sweeps find it and try again."""
        try:
            self._root.unlink(path)
        except OSError as error:
            if error.errno not in NOT_THERE:
                self.left[path] = os.strerror(error.errno or 0)
                return
        self.left.pop(path, None)

    def sync(self, staged: Iterable[Staged]) -> None:
        """Have the names of these files, and of what lies beside them, on disk.

        Raise Unavailable if one of them cannot be synced.
        """
        if self.is_durable:
            for directory, path in {os.path.dirname(one.aside): one.path for one in staged}.items():
                try:
                    self._root.sync_directory(directory)
                except OSError as error:
                    if error.errno not in NOT_THERE:
                        raise self._unwritable(path, error) from None

    def settle(self, staged: Sequence[Staged]) -> dict[str, Signature | None]:
        """Have the names of new texts that were put in on disk; return the signatures that prove them, or None.

        Try several times: readers see them, and what a process saves of a text that is taken back would be there twice.
        Raise Unavailable or ProblemFile if one of them cannot be synced.
        """
        if self.is_durable:
            self._insist_on_sync(staged)
        return {one.path: self._placed.get(one.aside) for one in staged}

    def _insist_on_sync(self, staged: Sequence[Staged]) -> None:
        for _ in range(TRIES - 1):
            with suppress(Unavailable, ProblemFile):
                self.sync(staged)
                return
        self.sync(staged)

    def _unwritable(self, path: str, error: OSError) -> Unavailable | ProblemFile:
        if isinstance(error, _WouldWiden):
            message = f"{path} is not written, since its owner or group cannot be kept, and others could read it then"
            hint = "give the file to the daemon's user, or to a group of the daemon that may read and write it"
            return ProblemFile(message, path=path, hint=hint)
        return super()._unwritable(path, error)

    def _undecided(self, staged: Staged, error: OSError) -> Undecided:
        reason = os.strerror(error.errno or 0)
        name = errno.errorcode.get(error.errno or 0, "?")
        message = f"whether {printable(staged.path)} was written cannot be told: {reason}"
        return Undecided(message, path=staged.path, errno=name)


def digest(data: bytes | None) -> str | None:
    """Return the digest of these bytes; None for no file."""
    return None if data is None else blake2b(data, digest_size=16).hexdigest()


def mode_of_new() -> int:
    """Return the permission bits that a new file gets."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _make(root: Root, path: str, data: bytes, like: str, status: os.stat_result | None) -> tuple[int, int, Mark | None]:
    """Make a new file at `path`, like the one at `like`, whose `status` this is; return its handle, inode and mark.

    There is no mark where the file system cannot tell the time of a file from one a nanosecond earlier, or where its
    permission bits are not those of the other: it is read again.
    Raise OSError if it could not be made whole.
    """
    # A user who may not read the other file may not read it under this name either.
    handle, attributes = root.make_file(path, like if status is not None else None)
    try:
        left = memoryview(data)
        while left:
            left = left[root.write(handle, left) :]
        # It is to have the time one nanosecond before it was written, which no later write can have.
        written_at = root.status(handle).st_mtime_ns
        root.set_times(handle, ns=(written_at, written_at - 1))
        own = root.status(handle)
        is_proof = _take_over(root, handle, own, status, attributes) and own.st_mtime_ns < written_at
    except BaseException:
        with suppress(OSError):
            root.close(handle)
        raise
    return handle, own.st_ino, Mark(own.st_mtime_ns, own.st_size, own.st_ino) if is_proof else None


def _take_over(
    root: Root, handle: int, own: os.stat_result, status: os.stat_result | None, attributes: Mapping[str, bytes]
) -> bool:
    """Give a file, whose `own` status this is, mode, owner and attributes of another one, or those of a new file.

    Return False if its permission bits are not those of the other.

    A daemon that is not root cannot give files away: then the owner is its own, the group stays if it may, and what the
    owner could do, the group can, or the user who saved the file could not save it again.
    Raise _WouldWiden where a group could read the file then that cannot read it now.
    """
    if status is None:
        root.set_mode(handle, mode_of_new())
        return True
    if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
        for uid, gid in ((status.st_uid, status.st_gid), (-1, status.st_gid)):
            try:
                root.set_owner(handle, uid, gid)
                break
            except OSError:  # it may not, or there is no such user in its user namespace
                continue
        own = root.status(handle)
    _take_over_attributes(root, handle, attributes)
    mode = stat.S_IMODE(status.st_mode)
    could_read = mode & (stat.S_IRGRP if own.st_gid == status.st_gid else stat.S_IROTH)
    if own.st_uid != status.st_uid:
        mode |= (mode & stat.S_IRWXU) >> 3
    if mode & stat.S_IRGRP and not could_read:
        raise _WouldWiden
    try:
        root.set_mode(handle, mode)
    except PermissionError:
        # A service may be forbidden to set the bits before the permissions, which mean nothing here.
        root.set_mode(handle, mode & 0o777)
    return (mode ^ status.st_mode) & 0o777 == 0


def _take_over_attributes(root: Root, handle: int, attributes: Mapping[str, bytes]) -> None:
    """Copy the extended attributes, as far as that is possible; an access control list must not be left out."""
    for name, value in attributes.items():
        try:
            root.set_attribute(handle, name, value)
        except OSError:
            if name == _ACL:  # the bits of its mode that are the group's say more than the list
                raise _WouldWiden from None
