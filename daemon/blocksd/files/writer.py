"""Puts staged texts in the place of files, each at once, and takes them back, without losing a save of another process."""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from blocksd.errors import Undecided
from blocksd.files.beneath import NOT_THERE
from blocksd.files.folder import signature_of
from blocksd.files.links import resolve
from blocksd.files.staging import TRIES, Staging
from blocksd.model.label import printable

if TYPE_CHECKING:
    from blocksd.files.file_edit import Staged
    from blocksd.files.folder import Signature
    from blocksd.files.root import Root

OTHER = "other"
"""The digest of what is no regular file, or is far larger than any block's."""

UNREAD = "unread"
"""The digest of a file that cannot be read, where that must stop nothing. It equals no other digest."""

_MOST_BYTES = 64 * 1024 * 1024
_READ_AT_ONCE = 1024 * 1024
_NO_FILE = (errno.EXDEV, errno.ENXIO)  # a symlink that leads out of the folder, a socket


_TURNS = 100
_LOOKS, _LOOK_SECONDS = 50, 0.001  # at a file that was open for writing when it was displaced


class Content(NamedTuple):
    """`digest` is None when there is nothing; `is_open` if a process has it open for writing, as far as that can be told."""

    digest: str | None
    is_open: bool
    signature: Signature | None = None
    """That of a file which the kernel says no process has open for writing."""

    def is_all_of(self, digest: str | None) -> bool:
        """Return True if this is the content, and no process is about to change it."""
        return self.digest == digest and not self.is_open


class LeftFile(NamedTuple):
    """A file as a crash has left it."""

    inode: int
    digest: str


class Writer(Staging):
    """The only code that changes block files.

    Invariants:
      1. at every instant a file has its old text or its new one, whole;
      2. the displaced file is kept under `aside` until it is known to be the one that was read.

    The file is read once more, when it is displaced. Before and after that its signature tells as much, if no process had
    it open, and its time is older than any later write can make it.
    """

    def put_in(self, staged: Staged) -> bool:
        """Put the new text in place of the one that was read; return False if another process has saved, or is about to.

        Then the file has their save. The staged text stays until `discard`: it tells that nothing was put in.

        Raises:
            Unavailable, ProblemFile: it cannot be done; nothing was changed.
            Undecided: whether it was done cannot be told.
        """
        try:
            full, aside = self._places.get(staged.aside) or self._place(staged), staged.aside
            known = self._read.get(aside)
            if staged.base is not None and not content(self._root, full, Content(staged.base, False, known)).is_all_of(
                staged.base
            ):
                # An exchange would tell, too. But for a moment, a reader could see a text that never was in force, and who
                # has the file open would write to what is displaced.
                return False
        except OSError as error:
            raise self._unwritable(staged.path, error) from None
        try:
            old, new = (aside, full) if staged.data is not None else (full, aside)
            has_both = staged.base is not None and staged.data is not None
            status = self._root.put_in(staged.path, old, new, has_both=has_both)
        except (FileExistsError, FileNotFoundError):
            return False
        except OSError as error:
            if not self.take_back(staged):
                raise self._undecided(staged, error) from None
            raise self._unwritable(staged.path, error) from None
        if status is not None and (status.st_mtime_ns, status.st_size, status.st_ino) == self._marks.get(aside):
            self._placed[aside] = signature_of(status)
        if staged.base is None:
            return True
        try:
            found = self._insist_on_displaced(aside)
            if found.is_all_of(staged.base):
                # Its time is that of what was read: no later write can have it.
                if known is not None and found.signature is not None and found.signature[0] == known[0]:
                    self._compared[aside] = found.signature
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
        # RACE: a process may read our text in that moment, and save what it made of it after (1), or, where a call fails again
        # and again, after the text is taken back: then the text is there twice, since no file tells what it was made of.
        # Nothing is lost: their save is in the file as they made it, the request is done on top of it, and S was theirs to
        # replace, since it was back in the file before they saved.
        return not self._insist_to_give_back(staged, full)

    def _insist_on_displaced(self, aside: str) -> Content:
        """Return the content of the file that was just displaced; try several times, for the same reason."""
        for _ in range(TRIES - 1):
            with suppress(OSError):
                return self._settled(aside)
        return self._settled(aside)

    def is_saved_late(self, staged: Staged) -> bool:
        """Return True if a process that had open what `put_in` took the place of has saved to it since.

        Raise Undecided if it cannot be told.
        """
        known = self._compared.get(staged.aside)
        try:
            if (
                known is not None
                and (status := self._root.find(staged.aside)) is not None
                and signature_of(status) == known
            ):
                return False
            return staged.base is not None and digest_of(self._root, staged.aside) not in (None, staged.base)
        except OSError as error:
            raise self._undecided(staged, error) from None

    def give_back_save(self, staged: Staged) -> None:
        """Put such a save back: it is on disk in its place when this returns.

        Its lying aside tells that our text was put in: the journal must have that on disk before.

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
        """Put the displaced file back; return False if there was a save over our text, which stays instead."""
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
        """Return the content of the file that was just displaced, after waiting a moment for a writer that has it open.

        Editors that save in place open the file, and only then empty it and write.
        RACE: a writer that nothing shows may still write before `give_back_save`; later, to a file without a name.
        """
        found = content(self._root, aside)
        for _ in range(_LOOKS):
            if not found.is_open:
                break
            time.sleep(_LOOK_SECONDS)
            found = content(self._root, aside)
        return found

    def take_back(self, staged: Staged) -> bool:
        """Undo `put_in`; return False if there was a save since, which stays: it may have been made of the new text.

        Try several times: until it is done, a save may be made of a text that must not be. A new file lies aside again
        until `discard`, to tell that it is not put in.
        Raise Undecided if it cannot be told whether there is anything to undo, or it cannot be undone now.
        """
        for _ in range(TRIES - 1):
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
        """Take a new file back; return False if there was a save over it since it was put in."""
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

    def inspect(self, staged: Staged) -> tuple[LeftFile | None, LeftFile | None]:
        """Return what is in the place of an edit that a crash may have interrupted, and beside it; None: nothing.

        Raise Undecided if it cannot be told now.
        """
        try:
            return self._found(self._place(staged), staged), self._found(self._aside(staged), staged)
        except OSError as error:
            raise self._undecided(staged, error) from None

    def _found(self, path: str, staged: Staged) -> LeftFile | None:
        status = self._root.find(path)
        if status is None:
            return None
        read = digest_if_readable if status.st_ino == staged.new else digest_of
        return LeftFile(status.st_ino, read(self._root, path) or "")


def saved_over(staged: Staged) -> Undecided:
    """Return why an edit that was put in cannot be taken back: another process may have read it and gone on from there."""
    return Undecided(f"{printable(staged.path)} was saved right after it was written", path=staged.path)


def content(root: Root, path: str, known: Content | None = None) -> Content:
    """Return the content of a file, or of the target of a symlink. Raise OSError if it cannot be told.

    A file that has the signature of `known`, and that no process has open, is not read.
    """
    try:
        handle, has_writer = _open(root, path)
    except OSError as error:
        if error.errno in NOT_THERE:
            return Content(None, is_open=False)
        if error.errno in _NO_FILE:
            return Content(OTHER, is_open=False)
        raise
    try:
        status = root.status(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            return Content(OTHER, is_open=False)
        signature = signature_of(status) if has_writer is False else None
        if known is not None and signature is not None and signature == known.signature:
            return known
        hashed, left = blake2b(digest_size=16), status.st_size
        # No more is asked for than is there, and one byte that is not: memory for a megabyte takes 40 µs to get.
        while part := root.read(handle, min(left + 1, _READ_AT_ONCE)):
            hashed.update(part)
            left = max(0, left - len(part))
        return Content(hashed.hexdigest(), has_writer is True, signature)
    finally:
        with suppress(OSError):
            root.close(handle)


def digest_of(root: Root, path: str) -> str | None:
    """Return the digest of a file; None when there is none. Raise OSError if it cannot be told."""
    return content(root, path).digest


def digest_if_readable(root: Root, path: str) -> str | None:
    """Return the same, or `UNREAD` when it cannot be told."""
    try:
        return digest_of(root, path)
    except OSError:
        return UNREAD


def _open(root: Root, path: str) -> tuple[int, bool | None]:
    """Open a file, or what a symlink leads to, to read it. A FIFO in its place is not waited for."""
    try:
        return root.open_to_read(path)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return root.open_to_read(resolve(root, path))
