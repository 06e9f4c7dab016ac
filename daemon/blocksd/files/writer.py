"""Puts new texts into files, all at once and without losing what somebody else has just saved there."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from blocksd.errors import ProblemFile, Unavailable, Undecided
from blocksd.files.beneath import NOT_THERE
from blocksd.files.content import Content, content, digest, digest_if_readable, digest_of
from blocksd.files.file_edit import Staged
from blocksd.files.folder import signature_of
from blocksd.files.fresh_file import Mark, make
from blocksd.files.links import resolve, through_symlink
from blocksd.files.root import Root, kept
from blocksd.model.label import TEMPORARY, is_junk, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blocksd.files.file_edit import FileEdit
    from blocksd.files.folder import Signature

_MOST_UNSYNCED = 64  # each is an open file
_MOST_NAMED = 1000  # directories that need not be synced again
_TURNS = 100
_TRIES = 3
_LOOKS, _LOOK_SECONDS = 50, 0.001  # at a file that was open for writing when it was displaced


class Found(NamedTuple):
    """A file as a crash has left it."""

    inode: int
    digest: str


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
        self._marks: dict[str, Mark] = {}  # of new texts, by `aside`
        self._places: dict[str, str] = {}  # where the new texts go, by `aside`
        self._unsynced: dict[str, tuple[str, int]] = {}  # new texts on their way to disk: aside → path, handle
        self._made: list[str] = []  # directories, for what is staged
        self._named: dict[str, int] = {}  # directories whose names are on disk, with their inodes
        self.left: dict[str, str] = {}  # temporaries that could not be removed: path → why

    def _place(self, edit: FileEdit | Staged) -> str:
        """Where an edit is made: what a symlink leads to is written, not the link; of one that is to go, what it leads to stays.

        A symlink may be turned since an edit was staged: its place stays what it was.
        """
        if edit.data is None:
            return edit.path
        known = self._places.get(edit.aside) if isinstance(edit, Staged) else None
        return known if known is not None else self._target(edit.path)

    def _target(self, path: str) -> str:
        """Where a file really is, there or not; of a symlink that leads out or to nothing, where that is."""
        try:
            return resolve(self._root, path)
        except OSError as error:
            if error.errno not in (*NOT_THERE, errno.EXDEV):
                raise
            return path

    def _aside(self, staged: Staged) -> str:
        """What lies beside the file. An exchange that a crash has left half done is finished first."""
        if not self._root.exists(staged.aside) and self._root.exists(kept(staged.aside)):
            self._root.rename(kept(staged.aside), staged.aside)
        return staged.aside

    def stage(self, edit: FileEdit) -> Staged:
        """Write an edit's new text beside its file. It is on its way to disk; `flush` waits until it is there.

        Raises:
            Unavailable, ProblemFile: it cannot be written there; nothing is left behind.
        """
        if len(self._unsynced) >= _MOST_UNSYNCED:
            self.flush()
        self._root.check(edit.path)
        aside = ""
        try:
            status = self._status(edit.path)
            is_link = status is not None and stat.S_ISLNK(status.st_mode)
            full = self._target(edit.path) if is_link and edit.data is not None else edit.path
            if full != edit.path:
                status = self._status(full)
            directory = os.path.dirname(full)
            aside = os.path.join(directory, f"{TEMPORARY}{secrets.token_hex(8)}")
            old = None if edit.base is None or status is None else status.st_ino
            staged = Staged(edit.path, aside, digest(edit.base), digest(edit.data), None, old)
            if edit.data is None:
                return staged
            self._places[aside] = full
            self._make_directory(directory)
            like = full if edit.like in (None, edit.path) else self._target(edit.like)
            new = self._write(staged, edit.data, like=like)
            return staged._replace(new=new)
        except OSError as error:
            if aside:
                self._places.pop(aside, None)
                self.remove(aside)
            raise self._unwritable(edit.path, error) from None

    def _status(self, path: str) -> os.stat_result | None:
        """The status of what is there, be it a symlink; None: nothing."""
        try:
            return self._root.stat(path)
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
            return None

    def _write(self, staged: Staged, data: bytes, *, like: str) -> int:
        """Write a new text aside; the inode of it."""
        handle, mark = make(self._root, staged.aside, data, like=like)
        try:
            inode = self._root.status(handle).st_ino
        except OSError:
            self._root.close(handle)
            raise
        if mark is not None:
            self._marks[staged.aside] = mark
        if self.is_durable:
            self._root.start_sync(handle)
            self._unsynced[staged.aside] = staged.path, handle
        else:
            self._root.close(handle)
        return inode

    def flush(self, named: Iterable[Staged] = ()) -> None:
        """Have all new texts on disk, waiting for them together: each alone would wait for as long; then some of their names.

        Raises:
            Unavailable: that cannot be said of one of them.
        """
        while self._unsynced:
            aside = next(iter(self._unsynced))
            path, handle = self._unsynced.pop(aside)
            try:
                try:
                    self._root.sync(handle)
                finally:
                    self._root.close(handle)
            except OSError as error:
                raise self._unwritable(path, error) from None
        self.sync(named)

    def make_directory(self, path: str) -> None:
        """Make a directory below the folder, with those above it.

        Raises:
            Unavailable, ProblemFile: it cannot be made.
        """
        self._root.check(path)
        try:
            self._make_directory(path)
        except OSError as error:
            refusal = through_symlink(self._root, f"{path}/") if error.errno == errno.ELOOP else None
            raise refusal or self._unwritable(path, error) from None

    def _make_directory(self, directory: str) -> None:
        """Make a directory, unless it is there. Its name and those above it are on disk when this returns.

        One that is there may have been made a moment ago, by a person or by a daemon that ended: what is written in it is
        lost with its name. So its name is synced, too, once for as long as it is the same directory.
        RACE: one that is removed and made again by a person may get the same inode, and counts as the same.
        """
        if not directory:
            return
        inode = self._inode_of_directory(directory)
        if inode is not None and (not self.is_durable or self._named.get(directory) == inode):
            return
        above = os.path.dirname(directory)
        self._make_directory(above)
        if inode is None:
            with suppress(FileExistsError):
                self._root.make_directory(directory)
                self._made.append(directory)
        if self.is_durable:
            self._root.sync_directory(above)
            if len(self._named) >= _MOST_NAMED:
                self._named.clear()
            if (inode := self._inode_of_directory(directory)) is not None:
                self._named[directory] = inode

    def _inode_of_directory(self, path: str) -> int | None:
        """Return the inode of a directory, None if there is nothing."""
        try:
            status = self._root.stat(path)
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(status.st_mode):
            number = errno.ELOOP if stat.S_ISLNK(status.st_mode) else errno.ENOTDIR
            raise OSError(number, os.strerror(number), path)
        return status.st_ino

    def keep_made(self) -> None:
        """The directories made so far, for what was staged, are to stay."""
        self._made.clear()

    def remove_made(self) -> None:
        """Remove those that were made since, for what is not to be, unless somebody has put something in them."""
        while self._made:
            with suppress(OSError):
                directory = self._made.pop()
                self._named.pop(directory, None)
                self._root.remove_directory(directory)

    def put_in(self, staged: Staged) -> bool:
        """Put the new text in, in place of what was read; False when another process has saved meanwhile, or is about to.

        Then the file says what they saved. What lies aside stays until `discard`: it tells that nothing was put in.

        Raises:
            Unavailable, ProblemFile: it cannot be done; nothing was changed.
            Undecided: whether it was done cannot be told.
        """
        self._root.check(staged.path)
        try:
            full, aside = self._place(staged), staged.aside
            if staged.base is not None and content(self._root, full) != (staged.base, False):
                # An exchange would tell, too. But for a moment, a reader could see a text that never was in force, and who
                # has the file open would write to what is displaced.
                return False
        except OSError as error:
            raise self._unwritable(staged.path, error) from None
        try:
            if staged.base is None:
                self._root.move(aside, full)
            elif staged.data is None:
                self._root.move(full, aside)
            else:
                self._root.exchange(aside, full)
        except (FileExistsError, FileNotFoundError):
            return False
        except OSError as error:
            if not self.take_back(staged):
                raise self._undecided(staged, error) from None
            raise self._unwritable(staged.path, error) from None
        if staged.base is None:
            return True
        try:
            if self._settled(aside) == (staged.base, False):
                return True
        except OSError as error:  # another text may have been displaced: it goes back, unread
            if not self._insist_to_give_back(staged, full):
                raise self._undecided(staged, error) from None
            raise self._unwritable(staged.path, error) from None
        # A save S came between the look and the exchange.
        #   1. It goes back, and our text comes out again: then nothing was put in, and the request is done on top of S.
        #   2. What comes out is not our text: so a process has saved over it, and may have made that save of it. To do the
        #      request again would double its text. So it counts as put in, their save stands as a later one, and S is kept
        #      aside and shown.
        # RACE: a process may read our text in that moment, and save what it made of it after (1): then the text is there
        # twice, since no file tells what it was made of. Nothing is lost: their save is in the file as they made it, the
        # request is done on top of it, and S was theirs to replace, since it was back in the file before they saved.
        return not self._insist_to_give_back(staged, full)

    def is_saved_late(self, staged: Staged) -> bool:
        """Return True if a process that had open what `put_in` took the place of has saved to it since.

        Raises:
            Undecided: it cannot be told.
        """
        try:
            return staged.base is not None and digest_of(self._root, staged.aside) not in (None, staged.base)
        except OSError as error:
            raise self._undecided(staged, error) from None

    def give_back_save(self, staged: Staged) -> None:
        """Put such a save back: it is on disk in its place when this returns, and nothing need be known of it any more.

        That it lay aside told that our text was put in: the journal must have that on disk before.

        Raises:
            Unavailable, ProblemFile: that cannot be said.
            Undecided: it cannot be done, or its place was saved to as well, and each of the two saves may be of worth.
        """
        try:
            full = self._place(staged)
            is_saved_over = digest_of(self._root, full) not in (None, staged.data)
        except OSError as error:
            raise self._undecided(staged, error) from None
        if is_saved_over:
            raise saved_over(staged)
        try:
            # The text that it replaces is on disk, and what comes in its place may have been written just now: a power cut
            # must not leave a part of it there.
            if self.is_durable:
                self._sync_text(staged.aside)
        except OSError as error:
            raise self._undecided(staged, error) from None
        if not self._give_back(staged, full):
            raise saved_over(staged)
        self.sync([staged])

    def _sync_text(self, path: str) -> None:
        handle = self._root.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            self._root.sync(handle)
        finally:
            self._root.close(handle)

    def _insist_to_give_back(self, staged: Staged, full: str) -> bool:
        try:
            return self._give_back(staged, full)
        except Undecided:
            return self.take_back(staged)

    def _give_back(self, staged: Staged, full: str) -> bool:
        """Put back what was displaced; False if there was a save over our text, which stays, and what was displaced lies aside."""
        root, aside, ours = self._root, staged.aside, staged.data
        is_saved_over = False
        try:
            if ours is None:
                with suppress(FileNotFoundError, FileExistsError):  # what came to an empty place is the newest there is
                    root.move(aside, full)
                self.remove(aside)
                return True
            for _ in range(_TURNS):
                displaced = digest_if_readable(root, aside)
                try:
                    if not root.exists(full):  # gone, or to be gone: what is aside is the newest there is
                        root.move(aside, full)
                        return not is_saved_over
                    root.exchange(aside, full)
                except (FileExistsError, FileNotFoundError):
                    continue
                found = self._settled(aside).digest
                if found == ours:
                    if not is_saved_over:
                        self.remove(aside)
                    return not is_saved_over
                # There was a save over what we had put there. That is the newest: it goes back in.
                ours, is_saved_over = displaced, True
        except OSError as error:
            raise self._undecided(staged, error) from None
        return not is_saved_over

    def _settled(self, aside: str) -> Content:
        """What stands for the content of what was just displaced, and whether it is still open for writing.

        Editors that save in place open the file, and only then empty it and write: that is waited for, for a moment.
        RACE: of whom it cannot be told that they have it open may still write before `give_back_save`; after that they write
        to what is no longer there.
        """
        found = content(self._root, aside)
        for _ in range(_LOOKS):
            if not found.is_open:
                break
            time.sleep(_LOOK_SECONDS)
            found = content(self._root, aside)
        return found

    def take_back(self, staged: Staged) -> bool:
        """Undo `put_in`; False if there was a save since, which stays: it may have been made of the new text.

        It is tried several times: as long as it is not done, a save may be made of a text that is not to be. A new file
        lies aside again until `discard`: as long as it does, it can be told that it is not put in.

        Raises:
            Undecided: whether there is anything to undo cannot be told, or it cannot be undone now.
        """
        for _ in range(_TRIES - 1):
            with suppress(Undecided):
                return self._take_back(staged)
        return self._take_back(staged)

    def _take_back(self, staged: Staged) -> bool:
        root = self._root
        try:
            full, aside = self._place(staged), self._aside(staged)
            if staged.base is None:
                return self._withdraw(staged, full)
            if not root.exists(aside):
                return staged.data is None or digest_of(root, full) in (None, staged.base)
            if staged.data is not None and digest_of(root, full) != staged.data:
                return digest_of(root, aside) == staged.data  # else it was put in, and there was a save over it
            return self._give_back(staged, full)
        except OSError as error:
            raise self._undecided(staged, error) from None

    def _withdraw(self, staged: Staged, full: str) -> bool:
        """Take a new file back; False if there was a save over it since it was put in."""
        root, aside = self._root, staged.aside
        if not root.exists(aside):
            found = digest_of(root, full)
            if found != staged.data:
                return found is None  # its directory may have been moved
            with suppress(FileNotFoundError, FileExistsError):
                root.move(full, aside)
        found = digest_of(root, aside)
        if found not in (None, staged.data):  # saved in between
            with suppress(FileExistsError):
                root.move(aside, full)
        return found in (None, staged.data)

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
        self._places.pop(staged.aside, None)
        _, handle = self._unsynced.pop(staged.aside, ("", None))
        if handle is not None:
            with suppress(OSError):
                self._root.close(handle)
        self.remove(staged.aside)

    def remove(self, path: str) -> None:
        """Remove a temporary, if it is there. One that cannot be removed is `left`: the sweeps find it, and it is tried again."""
        try:
            self._root.unlink(path)
        except OSError as error:
            if error.errno not in NOT_THERE:
                self.left[path] = os.strerror(error.errno or 0)
                return
        self.left.pop(path, None)

    def sync(self, staged: Iterable[Staged]) -> None:
        """Have the names of these files, and of what lies beside them, on disk.

        Raises:
            Unavailable: that cannot be said of one of them.
        """
        if self.is_durable:
            for directory, path in {os.path.dirname(one.aside): one.path for one in staged}.items():
                try:
                    self._root.sync_directory(directory)
                except OSError as error:
                    if error.errno not in NOT_THERE:
                        raise self._unwritable(path, error) from None

    def remove_directory(self, directory: str) -> bool:
        """Remove a directory below the folder, with the empty ones in it, and what desktops or a crash have left there.

        Returns whether it is gone. What anybody else has put in it stays, and so do the directories above that. Nothing
        may be staged in it.
        """
        for name in [name for name in self._named if name == directory or name.startswith(f"{directory}/")]:
            del self._named[name]
        with suppress(OSError):
            self._empty(directory)
            self._root.remove_directory(directory)
        try:
            if self.is_durable:
                self._root.sync_directory(os.path.dirname(directory))
            return not self._root.exists(directory)
        except OSError as error:
            return error.errno in NOT_THERE

    def _empty(self, directory: str) -> None:
        """Remove the empty directories in a directory, the temporaries of ours, and what desktops leave behind."""
        with self._root.scandir(directory) as entries:
            found = [(f"{directory}/{entry.name}", entry.is_dir(follow_symlinks=False)) for entry in entries]
        for path, is_directory in found:
            if is_directory:
                with suppress(OSError):
                    self._empty(path)
                    self._root.remove_directory(path)
            elif is_junk(path.rpartition("/")[2]):
                with suppress(OSError):
                    self.remove(path)

    def look(self, staged: Staged) -> tuple[Found | None, Found | None]:
        """Return what is in the place of an edit that a crash may have interrupted, and beside it; None: nothing.

        Raises:
            Undecided: that cannot be told now.
        """
        try:
            return self._found(self._place(staged), staged), self._found(self._aside(staged), staged)
        except OSError as error:
            raise self._undecided(staged, error) from None

    def _found(self, path: str, staged: Staged) -> Found | None:
        try:
            status = self._root.stat(path)
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
            return None
        if status.st_ino == staged.new:
            return Found(status.st_ino, digest_if_readable(self._root, path) or "")
        return Found(status.st_ino, digest_of(self._root, path) or "")

    @property
    def is_empty(self) -> bool:
        """Return True if there is nothing at all in the folder, or no folder.

        Raises:
            Undecided: it cannot be told.
        """
        try:
            return not self._root.names()
        except OSError as error:
            if error.errno in NOT_THERE:
                return True
            raise Undecided(f"the folder cannot be read: {os.strerror(error.errno or 0)}", path="") from None

    def _unwritable(self, path: str, error: OSError) -> Unavailable | ProblemFile:
        reason = os.strerror(error.errno or 0)
        name = errno.errorcode.get(error.errno or 0, "?")
        if error.errno == errno.ELOOP and (refusal := through_symlink(self._root, path)) is not None:
            return refusal
        if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP):
            return ProblemFile(f"{path} cannot be written: {reason}", path=path, errno=name)
        return Unavailable(f"{path} cannot be written: {reason}", path=path, errno=name)

    def _undecided(self, staged: Staged, error: OSError) -> Undecided:
        reason = os.strerror(error.errno or 0)
        name = errno.errorcode.get(error.errno or 0, "?")
        message = f"whether {printable(staged.path)} was written cannot be told: {reason}"
        return Undecided(message, path=staged.path, errno=name)


def saved_over(staged: Staged) -> Undecided:
    """Why an edit that was put in cannot be taken back: a person may have read it, and gone on from there."""
    return Undecided(f"{printable(staged.path)} was saved right after it was written", path=staged.path)
