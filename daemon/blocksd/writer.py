"""Puts new texts into files, all at once and without losing what somebody else has just saved there."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING

from blocksd.errors import ProblemFile, Unavailable
from blocksd.folder import signature_of
from blocksd.label import TEMPORARY
from blocksd.pending import Staged
from blocksd.root import Root, kept

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blocksd.folder import Signature
    from blocksd.sheet import FileEdit

_READ_AT_ONCE = 1024 * 1024
_MOST_UNSYNCED = 64  # each is an open file
_TURNS = 100
_LOOKS, _LOOK_SECONDS = 50, 0.001  # at a file that was open for writing when it was displaced


class Writer:
    """The only hand that writes block files.

    Invariants:
      1. at every instant a file says its old text or its new one, whole;
      2. what is displaced is kept under `aside` until it is known to be what was read;
      3. a new text has the time one nanosecond before it was written, which no later write can have: as long as its file
         has that time, it says that text.
    """

    def __init__(self, root: Root | str, *, is_durable: bool = True) -> None:
        """Write below `root`; if not `is_durable`, what is written survives a crash of this process, not of the machine."""
        self._root = root if isinstance(root, Root) else Root(root)
        self.is_durable = is_durable
        self._marks: dict[str, tuple[int, int, int]] = {}  # of new texts: aside → mtime in ns, size, inode
        self._unsynced: dict[str, tuple[str, int]] = {}  # new texts on their way to disk: aside → path, handle
        self._made: list[str] = []  # directories, for what is staged
        self._held: set[str] = set()  # files whose writers kept them open for longer than was waited

    def _place(self, edit: FileEdit | Staged) -> str:
        """Where an edit is made: what a symlink leads to is written, not the link; of one that is to go, what it leads to stays."""
        return self._target(edit.path) if edit.data is not None else edit.path

    def _target(self, path: str) -> str:
        """Where a file really is, there or not."""
        try:
            return self._root.resolve(path)
        except (FileNotFoundError, NotADirectoryError):
            return path

    def _aside(self, staged: Staged) -> str:
        """What lies beside the file. An exchange that a crash has left half done is finished first."""
        if not self._root.exists(staged.aside):
            with suppress(FileNotFoundError):
                self._root.rename(kept(staged.aside), staged.aside)
        return staged.aside

    def stage(self, edit: FileEdit) -> Staged:
        """Write an edit's new text beside its file. It is on its way to disk; `flush` waits until it is there.

        Raises:
            Unavailable: it cannot be written there; nothing is left behind.
        """
        if len(self._unsynced) >= _MOST_UNSYNCED:
            self.flush()
        aside = ""
        try:
            full = self._place(edit)
            directory = os.path.dirname(full)
            aside = os.path.join(directory, f"{TEMPORARY}{secrets.token_hex(8)}")
            staged = Staged(edit.path, aside, digest(edit.base), digest(edit.data))
            if edit.data is None:
                return staged
            self._make_directory(directory)
            self._write(staged, edit.data, like=self._target(edit.like) if edit.like is not None else full)
        except OSError as error:
            with suppress(OSError):
                self._root.unlink(aside)
            raise _unwritable(edit.path, error) from None
        return staged

    def _write(self, staged: Staged, data: bytes, *, like: str) -> None:
        # Whoever may not read the file may not read it under this name either.
        root = self._root
        handle = root.open(staged.aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            left = memoryview(data)
            while left:
                left = left[root.write(handle, left) :]
            mark = self._marked(handle)
            self._take_over(handle, like)
        except BaseException:
            root.close(handle)
            raise
        if mark is not None:
            self._marks[staged.aside] = mark
        if self.is_durable:
            root.start_sync(handle)
            self._unsynced[staged.aside] = staged.path, handle
        else:
            root.close(handle)

    def _marked(self, handle: int) -> tuple[int, int, int] | None:
        """Give a file that was just written the time one nanosecond before that; its time, size and inode.

        None where the file system cannot tell such a time from the one it had.
        """
        root = self._root
        written_at = root.status(handle).st_mtime_ns
        root.set_times(handle, (written_at, written_at - 1))
        status = root.status(handle)
        return (status.st_mtime_ns, status.st_size, status.st_ino) if status.st_mtime_ns < written_at else None

    def _take_over(self, handle: int, like: str) -> None:
        """Mode, owner and extended attributes of the file at `like`, if there is one; else what a new file gets.

        A daemon that is not root cannot give files away: then the owner is its own, the group stays if it may, and what the
        owner could do, the group can, or whoever has saved the file could not save it again.
        """
        root = self._root
        try:
            status = root.stat(like)
        except FileNotFoundError:
            mask = os.umask(0)
            os.umask(mask)
            root.set_mode(handle, 0o666 & ~mask)
            return
        own = root.status(handle)
        if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
            for uid, gid in ((status.st_uid, status.st_gid), (-1, status.st_gid)):
                try:
                    root.set_owner(handle, uid, gid)
                    break
                except OSError:  # it may not, or there is no such user in its user namespace
                    continue
        with suppress(OSError):
            self._take_over_attributes(handle, like)
        mode = stat.S_IMODE(status.st_mode)
        if root.status(handle).st_uid != status.st_uid:
            mode |= (mode & stat.S_IRWXU) >> 3
        try:
            root.set_mode(handle, mode)
        except PermissionError:
            # A service may be forbidden to set the bits before the permissions, which mean nothing here.
            root.set_mode(handle, mode & 0o777)

    def _take_over_attributes(self, handle: int, like: str) -> None:
        other = self._root.open(like, os.O_RDONLY | os.O_NONBLOCK)
        try:
            attributes = self._root.attributes(other)
        finally:
            self._root.close(other)
        for name, value in attributes.items():
            with suppress(OSError):
                self._root.set_attribute(handle, name, value)

    def flush(self) -> None:
        """Have all new texts on disk, waiting for them together: each alone would wait for as long.

        Raises:
            Unavailable: that cannot be said of one of them.
        """
        while self._unsynced:
            aside = next(iter(self._unsynced))
            path, handle = self._unsynced.pop(aside)
            try:
                self._root.sync(handle)
            except OSError as error:
                raise _unwritable(path, error) from None
            finally:
                self._root.close(handle)

    def make_directory(self, path: str) -> None:
        """Make a directory below the folder, with those above it.

        Raises:
            Unavailable, ProblemFile: it cannot be made.
        """
        try:
            self._make_directory(path)
        except OSError as error:
            raise _unwritable(path, error) from None

    def _make_directory(self, directory: str) -> None:
        if not directory or self._is_directory(directory):
            return
        above = os.path.dirname(directory)
        self._make_directory(above)
        with suppress(FileExistsError):
            self._root.make_directory(directory)
            self._made.append(directory)
        if self.is_durable:
            self._root.sync_directory(above)

    def _is_directory(self, path: str) -> bool:
        """Return True if there is a directory, False if there is nothing."""
        try:
            mode = self._root.stat(path).st_mode
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(mode):
            number = errno.ELOOP if stat.S_ISLNK(mode) else errno.ENOTDIR
            raise OSError(number, os.strerror(number), path)
        return True

    def keep_made(self) -> None:
        """The directories made so far, for what was staged, are to stay."""
        self._made.clear()

    def remove_made(self) -> None:
        """Remove those that were made since, for what is not to be, unless somebody has put something in them."""
        while self._made:
            with suppress(OSError):
                self._root.remove_directory(self._made.pop())

    def put_in(self, staged: Staged) -> bool:
        """Put the new text in, in place of what was read; False when somebody else has saved meanwhile.

        Then the file says what they saved, and nothing of ours is left.

        Raises:
            Unavailable: it cannot be done; nothing was changed.
        """
        full, aside = self._place(staged), staged.aside
        if staged.base is not None and self._digest_of(full) != staged.base:
            # An exchange would tell, too. But for a moment, whoever has saved could read a text that never was in force.
            self.discard(staged)
            return False
        try:
            if staged.base is None:
                self._root.move(aside, full)
            elif staged.data is None:
                self._root.move(full, aside)
            else:
                self._root.exchange(aside, full)
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
        if staged.base is None or self._digest_of(staged.aside) in (None, staged.base):
            return False
        self._give_back(self._place(staged), staged.aside, ours=staged.data)
        return True

    def _give_back(self, full: str, aside: str, *, ours: str | None) -> None:
        """What was displaced is not what was read: put it back, and whatever was saved since we took its place."""
        if ours is None:
            with suppress(FileNotFoundError, FileExistsError):  # what came to an empty place is the newest there is
                self._root.move(aside, full)
            self.remove(aside)
            return
        for _ in range(_TURNS):
            newest = self._digest_of(aside)
            try:
                if not self._root.exists(full):  # gone, or to be gone: what is aside is the newest there is
                    self._root.move(aside, full)
                    return
                self._root.exchange(aside, full)
            except (FileExistsError, FileNotFoundError):
                continue
            if self._settled_digest(full, aside) == ours:
                self._root.unlink(aside)
                return
            # Somebody saved over what we had put there. That is the newest: it goes back in.
            ours = newest

    def _settled_digest(self, full: str, aside: str) -> str | None:
        """What stands for the content of what was just displaced from `full`, once nobody writes to it any more.

        Editors that save in place open the file, and only then empty it and write. Who has it open for longer than is waited
        for here, or of whom it cannot be told, may still write before `give_back_save`. RACE: after that they write to what
        is no longer there.
        """
        found, is_open = self._seen(aside)
        for _ in range(0 if full in self._held else _LOOKS):
            if not is_open:
                break
            time.sleep(_LOOK_SECONDS)
            found, is_open = self._seen(aside)
        (self._held.add if is_open else self._held.discard)(full)
        return found

    def take_back(self, staged: Staged) -> None:
        """Undo `put_in`: the file says again what it did, unless somebody has saved since."""
        full, aside = self._place(staged), self._aside(staged)
        if staged.base is None:
            with suppress(FileNotFoundError, FileExistsError):
                if self._digest_of(full) == staged.data:
                    self._root.move(full, aside)
                if self._digest_of(aside) not in (None, staged.data):  # saved in between
                    self._root.move(aside, full)
        elif self._root.exists(aside) and (staged.data is None or self._digest_of(full) == staged.data):
            self._give_back(full, aside, ours=staged.data)
        self.discard(staged)

    def signature(self, staged: Staged) -> Signature | None:
        """The signature of a file with the new text, after `put_in`; None when it may say something else by now."""
        mark = self._marks.get(staged.aside)
        if mark is None:
            return None
        try:
            found = signature_of(self._root.stat(self._place(staged)))
        except OSError:
            return None
        mtime_ns, _, size, inode = found
        return found if (mtime_ns, size, inode) == mark else None

    def discard(self, staged: Staged) -> None:
        """Remove what lies beside the file."""
        self._marks.pop(staged.aside, None)
        _, handle = self._unsynced.pop(staged.aside, ("", None))
        if handle is not None:
            self._root.close(handle)
        self.remove(staged.aside)

    def remove(self, path: str) -> None:
        """Remove a file below the folder, if it is there."""
        with suppress(FileNotFoundError):
            self._root.unlink(path)

    def sync(self, paths: Iterable[str]) -> None:
        """Have the directories of these files on disk.

        Raises:
            Unavailable: that cannot be said of one of them.
        """
        if self.is_durable:
            for directory, path in {os.path.dirname(self._target(path)): path for path in paths}.items():
                try:
                    self._root.sync_directory(directory)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise _unwritable(path, error) from None

    def remove_directory(self, directory: str) -> bool:
        """Remove a directory below the folder, with the empty ones in it and what a crash has left there of ours.

        Returns whether it is gone. What anybody else has put in it stays, and so do the directories above that. Nothing
        may be staged in it.
        """
        with suppress(FileNotFoundError, NotADirectoryError):
            self._empty(directory)
        with suppress(OSError):
            self._root.remove_directory(directory)
        if self.is_durable:
            with suppress(OSError):
                self._root.sync_directory(os.path.dirname(directory))
        return not self._root.exists(directory)

    def _empty(self, directory: str) -> None:
        """Remove the empty directories in a directory, and the temporaries of ours."""
        with self._root.scandir(directory) as entries:
            found = [(f"{directory}/{entry.name}", entry.is_dir(follow_symlinks=False)) for entry in entries]
        for path, is_directory in found:
            if is_directory:
                with suppress(OSError):
                    self._empty(path)
                    self._root.remove_directory(path)
            elif path.rpartition("/")[2].startswith(TEMPORARY):
                self.remove(path)

    def is_in(self, staged: Staged) -> bool:
        """Whether an edit that a crash may have interrupted was put in; what is aside tells, whoever has saved since."""
        aside = self._digest_of(self._aside(staged))
        if staged.base is None:
            return aside is None
        if staged.data is None:
            return aside == staged.base
        return aside == staged.base or (aside is None and self._digest_of(self._place(staged)) == staged.data)

    def has_displaced(self, staged: Staged) -> bool:
        """Whether what an edit took the place of is another text than the one that was read."""
        aside = self._digest_of(self._aside(staged))
        return aside is not None and aside not in (staged.base, staged.data)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing at all in the folder, or no folder."""
        try:
            return not self._root.names()
        except (FileNotFoundError, NotADirectoryError):
            return True

    def _digest_of(self, path: str) -> str | None:
        """What stands for the content of what is there; a directory, or what cannot be read, is like no file."""
        return self._seen(path)[0]

    def _seen(self, path: str) -> tuple[str | None, bool]:
        """The same, and whether somebody had it open for writing before it was read, as far as that can be told."""
        root = self._root
        try:
            handle = self._open(path)
        except FileNotFoundError:
            return None, False
        except OSError:
            return "", False
        try:
            is_open = root.has_writer(handle) is True
            return digest(_read_all(root, handle)), is_open
        except OSError:
            return "", False
        finally:
            root.close(handle)

    def _open(self, path: str) -> int:
        """Open a file, or what a symlink leads to, to read it. A FIFO in its place is not waited for."""
        try:
            return self._root.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return self._root.open(self._root.resolve(path), os.O_RDONLY | os.O_NONBLOCK)


def _read_all(root: Root, handle: int) -> bytes:
    parts = []
    while part := root.read(handle, _READ_AT_ONCE):
        parts.append(part)
    return b"".join(parts)


def digest(data: bytes | None) -> str | None:
    """What stands for a file's content; None for none."""
    return None if data is None else blake2b(data, digest_size=16).hexdigest()


def _unwritable(path: str, error: OSError) -> Unavailable | ProblemFile:
    reason = os.strerror(error.errno or 0)
    name = errno.errorcode.get(error.errno or 0, "?")
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP):
        return ProblemFile(f"{path} cannot be written: {reason}", path=path, errno=name)
    return Unavailable(f"{path} cannot be written: {reason}", path=path, errno=name)
