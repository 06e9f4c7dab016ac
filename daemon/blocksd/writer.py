"""Puts new texts into files, all at once and without losing what somebody else has just saved there."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
import time
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING

from blocksd.errors import ProblemFile, Unavailable
from blocksd.folder import has_writer, signature_of
from blocksd.label import TEMPORARY
from blocksd.pending import Staged
from blocksd.renames import exchange, kept, move

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blocksd.folder import Signature
    from blocksd.sheet import FileEdit

_WRITE = 2
_MOST_UNSYNCED = 64  # each is an open file
_TURNS = 100
_LOOKS, _LOOK_SECONDS = 50, 0.001  # at a file that was open for writing when it was displaced

_libc = ctypes.CDLL(None, use_errno=True)


class Writer:
    """The only hand that writes block files.

    Invariants:
      1. at every instant a file says its old text or its new one, whole;
      2. what is displaced is kept under `aside` until it is known to be what was read;
      3. a new text has the time one nanosecond before it was written, which no later write can have: as long as its file
         has that time, it says that text.
    """

    def __init__(self, root: str, *, is_durable: bool = True) -> None:
        """Write below `root`; if not `is_durable`, what is written survives a crash of this process, not of the machine."""
        self._root = root
        self.is_durable = is_durable
        self._marks: dict[str, tuple[int, int, int]] = {}  # of new texts: aside → mtime in ns, size, inode
        self._unsynced: dict[str, tuple[str, int]] = {}  # new texts on their way to disk: aside → path, handle
        self._made: list[str] = []  # directories, for what is staged
        self._held: set[str] = set()  # files whose writers kept them open for longer than was waited

    def _full(self, path: str) -> str:
        """Where a file really is: what a symlink leads to is written, not the link."""
        full = os.path.join(self._root, path)
        return os.path.realpath(full) if os.path.islink(full) else full

    def _place(self, edit: FileEdit | Staged) -> str:
        """Where an edit is made: of a symlink that is to go, what it leads to stays."""
        return self._full(edit.path) if edit.data is not None else os.path.join(self._root, edit.path)

    def _aside(self, staged: Staged) -> str:
        """What lies beside the file. An exchange that a crash has left half done is finished first."""
        aside = os.path.join(self._root, staged.aside)
        if not os.path.lexists(aside):
            with suppress(FileNotFoundError):
                os.rename(kept(aside), aside)
        return aside

    def stage(self, edit: FileEdit) -> Staged:
        """Write an edit's new text beside its file. It is on its way to disk; `flush` waits until it is there.

        Raises:
            Unavailable: it cannot be written there; nothing is left behind.
        """
        if len(self._unsynced) >= _MOST_UNSYNCED:
            self.flush()
        full = self._place(edit)
        directory = os.path.dirname(full)
        aside = os.path.join(directory, f"{TEMPORARY}{secrets.token_hex(8)}")
        staged = Staged(edit.path, os.path.relpath(aside, self._root), digest(edit.base), digest(edit.data))
        if edit.data is None:
            return staged
        try:
            self._make_directory(directory)
            self._write(staged, aside, edit.data, like=self._full(edit.like) if edit.like is not None else full)
        except OSError as error:
            with suppress(OSError):
                os.unlink(aside)
            raise _unwritable(edit.path, error) from None
        return staged

    def _write(self, staged: Staged, aside: str, data: bytes, *, like: str) -> None:
        # Whoever may not read the file may not read it under this name either.
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(handle, left) :]
            mark = _marked(handle)
            _take_over(handle, like)
        except BaseException:
            os.close(handle)
            raise
        if mark is not None:
            self._marks[staged.aside] = mark
        if self.is_durable:
            _start_writing(handle)
            self._unsynced[staged.aside] = staged.path, handle
        else:
            os.close(handle)

    def flush(self) -> None:
        """Have all new texts on disk, waiting for them together: each alone would wait for as long.

        Raises:
            Unavailable: that cannot be said of one of them.
        """
        while self._unsynced:
            aside = next(iter(self._unsynced))
            path, handle = self._unsynced.pop(aside)
            try:
                os.fsync(handle)
            except OSError as error:
                raise _unwritable(path, error) from None
            finally:
                os.close(handle)

    def make_directory(self, path: str) -> None:
        """Make a directory below the folder, with those above it.

        Raises:
            Unavailable, ProblemFile: it cannot be made.
        """
        try:
            self._make_directory(os.path.join(self._root, path))
        except OSError as error:
            raise _unwritable(path, error) from None

    def _make_directory(self, directory: str) -> None:
        if os.path.isdir(directory):
            return
        above = os.path.dirname(directory)
        self._make_directory(above)
        with suppress(FileExistsError):
            os.mkdir(directory)
            self._made.append(directory)
        if self.is_durable:
            _sync_directory(above)

    def keep_made(self) -> None:
        """The directories made so far, for what was staged, are to stay."""
        self._made.clear()

    def remove_made(self) -> None:
        """Remove those that were made since, for what is not to be, unless somebody has put something in them."""
        while self._made:
            with suppress(OSError):
                os.rmdir(self._made.pop())

    def put_in(self, staged: Staged) -> bool:
        """Put the new text in, in place of what was read; False when somebody else has saved meanwhile.

        Then the file says what they saved, and nothing of ours is left.

        Raises:
            Unavailable: it cannot be done; nothing was changed.
        """
        full, aside = self._place(staged), os.path.join(self._root, staged.aside)
        if staged.base is not None and _digest_of(full) != staged.base:
            # An exchange would tell, too. But for a moment, whoever has saved could read a text that never was in force.
            self.discard(staged)
            return False
        try:
            if staged.base is None:
                move(aside, full)
            elif staged.data is None:
                move(full, aside)
            else:
                exchange(aside, full)
        except (FileExistsError, FileNotFoundError):
            self.discard(staged)
            return False
        except OSError as error:
            self.take_back(staged)
            raise _unwritable(staged.path, error) from None
        if staged.base is None or self._settled_digest(full, aside) == staged.base:
            return True
        self._give_back(full, aside, ours=staged.data)
        return False

    def give_back_save(self, staged: Staged) -> bool:
        """Put back what `put_in` took the place of, if somebody who had it open has saved to it since; whether that is so."""
        aside = os.path.join(self._root, staged.aside)
        if staged.base is None or _digest_of(aside) in (None, staged.base):
            return False
        self._give_back(self._place(staged), aside, ours=staged.data)
        return True

    def _give_back(self, full: str, aside: str, *, ours: str | None) -> None:
        """What was displaced is not what was read: put it back, and whatever was saved since we took its place."""
        if ours is None:
            with suppress(FileNotFoundError, FileExistsError):  # what came to an empty place is the newest there is
                move(aside, full)
            _remove(aside)
            return
        for _ in range(_TURNS):
            newest = _digest_of(aside)
            try:
                if not os.path.exists(full):  # gone, or to be gone: what is aside is the newest there is
                    move(aside, full)
                    return
                exchange(aside, full)
            except (FileExistsError, FileNotFoundError):
                continue
            if self._settled_digest(full, aside) == ours:
                os.unlink(aside)
                return
            # Somebody saved over what we had put there. That is the newest: it goes back in.
            ours = newest

    def _settled_digest(self, full: str, aside: str) -> str | None:
        """What stands for the content of what was just displaced from `full`, once nobody writes to it any more.

        Editors that save in place open the file, and only then empty it and write. Who has it open for longer than is waited
        for here, or of whom it cannot be told, may still write before `give_back_save`. RACE: after that they write to what
        is no longer there.
        """
        found, is_open = _seen(aside)
        for _ in range(0 if full in self._held else _LOOKS):
            if not is_open:
                break
            time.sleep(_LOOK_SECONDS)
            found, is_open = _seen(aside)
        (self._held.add if is_open else self._held.discard)(full)
        return found

    def take_back(self, staged: Staged) -> None:
        """Undo `put_in`: the file says again what it did, unless somebody has saved since."""
        full, aside = self._place(staged), self._aside(staged)
        if staged.base is None:
            with suppress(FileNotFoundError, FileExistsError):
                if _digest_of(full) == staged.data:
                    move(full, aside)
                if _digest_of(aside) not in (None, staged.data):  # saved in between
                    move(aside, full)
        elif os.path.lexists(aside) and (staged.data is None or _digest_of(full) == staged.data):
            self._give_back(full, aside, ours=staged.data)
        self.discard(staged)

    def signature(self, staged: Staged) -> Signature | None:
        """The signature of a file with the new text, after `put_in`; None when it may say something else by now."""
        mark = self._marks.get(staged.aside)
        if mark is None:
            return None
        try:
            found = signature_of(os.lstat(self._place(staged)))
        except OSError:
            return None
        mtime_ns, _, size, inode = found
        return found if (mtime_ns, size, inode) == mark else None

    def discard(self, staged: Staged) -> None:
        """Remove what lies beside the file."""
        self._marks.pop(staged.aside, None)
        _, handle = self._unsynced.pop(staged.aside, ("", None))
        if handle is not None:
            os.close(handle)
        self.remove(staged.aside)

    def remove(self, path: str) -> None:
        """Remove a file below the folder, if it is there."""
        _remove(os.path.join(self._root, path))

    def sync(self, paths: Iterable[str]) -> None:
        """Have the directories of these files on disk.

        Raises:
            Unavailable: that cannot be said of one of them.
        """
        if self.is_durable:
            for directory, path in {os.path.dirname(self._full(path)): path for path in paths}.items():
                try:
                    _sync_directory(directory)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise _unwritable(path, error) from None

    def remove_directory(self, directory: str) -> bool:
        """Remove a directory below the folder, with the empty ones in it and what a crash has left there of ours.

        Returns whether it is gone. What anybody else has put in it stays, and so do the directories above that. Nothing
        may be staged in it.
        """
        full = os.path.join(self._root, directory)
        for path, _, names in os.walk(full, topdown=False):
            for name in names:
                if name.startswith(TEMPORARY):
                    _remove(os.path.join(path, name))
            with suppress(OSError):
                os.rmdir(path)
        if self.is_durable:
            with suppress(OSError):
                _sync_directory(os.path.dirname(full))
        return not os.path.lexists(full)

    def is_in(self, staged: Staged) -> bool:
        """Whether an edit that a crash may have interrupted was put in; what is aside tells, whoever has saved since."""
        aside = _digest_of(self._aside(staged))
        if staged.base is None:
            return aside is None
        if staged.data is None:
            return aside == staged.base
        return aside == staged.base or (aside is None and _digest_of(self._place(staged)) == staged.data)

    def has_displaced(self, staged: Staged) -> bool:
        """Whether what an edit took the place of is another text than the one that was read."""
        aside = _digest_of(self._aside(staged))
        return aside is not None and aside not in (staged.base, staged.data)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing at all in the folder, or no folder."""
        return not (os.path.isdir(self._root) and os.listdir(self._root))


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def digest(data: bytes | None) -> str | None:
    """What stands for a file's content; None for none."""
    return None if data is None else blake2b(data, digest_size=16).hexdigest()


def _digest_of(path: str) -> str | None:
    """What stands for the content of what is there; a directory, or what cannot be read, is like no file."""
    return _seen(path)[0]


def _seen(path: str) -> tuple[str | None, bool]:
    """The same, and whether somebody had it open for writing before it was read, as far as that can be told."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            is_open = has_writer(file.fileno()) is True
            return digest(file.read()), is_open
    except FileNotFoundError:
        return None, False
    except OSError:
        return "", False


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO in its place is not waited for


def _start_writing(handle: int) -> None:
    """Begin to write a file to disk, and do not wait: sync_file_range(2). Where there is no such thing, fsync does it all."""
    start = getattr(_libc, "sync_file_range", None)
    if start is not None:
        start(handle, ctypes.c_int64(0), ctypes.c_int64(0), _WRITE)


def _marked(handle: int) -> tuple[int, int, int] | None:
    """Give a file that was just written the time one nanosecond before that; its time, size and inode.

    None where the file system cannot tell such a time from the one it had.
    """
    written_at = os.fstat(handle).st_mtime_ns
    os.utime(handle, ns=(written_at, written_at - 1))
    status = os.fstat(handle)
    return (status.st_mtime_ns, status.st_size, status.st_ino) if status.st_mtime_ns < written_at else None


def _take_over(handle: int, like: str) -> None:
    """Mode, owner and extended attributes of the file at `like`, if there is one; else what a new file gets.

    A daemon that is not root cannot give files away: then the owner is its own, the group stays if it may, and what the
    owner could do, the group can, or whoever has saved the file could not save it again.
    """
    try:
        status = os.stat(like)
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(handle, 0o666 & ~mask)
        return
    own = os.fstat(handle)
    if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
        for uid, gid in ((status.st_uid, status.st_gid), (-1, status.st_gid)):
            try:
                os.fchown(handle, uid, gid)
                break
            except OSError:  # it may not, or there is no such user in its user namespace
                continue
    with suppress(OSError):
        for name in os.listxattr(like):
            with suppress(OSError):
                os.setxattr(handle, name, os.getxattr(like, name))
    mode = stat.S_IMODE(status.st_mode)
    if os.fstat(handle).st_uid != status.st_uid:
        mode |= (mode & stat.S_IRWXU) >> 3
    try:
        os.fchmod(handle, mode)
    except PermissionError:
        # A service may be forbidden to set the bits before the permissions, which mean nothing here.
        os.fchmod(handle, mode & 0o777)


def _sync_directory(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(path: str, error: OSError) -> Unavailable | ProblemFile:
    reason = os.strerror(error.errno or 0)
    name = errno.errorcode.get(error.errno or 0, "?")
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP):
        return ProblemFile(f"{path} cannot be written: {reason}", path=path, errno=name)
    return Unavailable(f"{path} cannot be written: {reason}", path=path, errno=name)
