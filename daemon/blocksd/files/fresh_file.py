"""Makes a new file with mode, owner, group and extended attributes of the one whose place it takes."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from blocksd.files.root import Root


_ACL = "system.posix_acl_access"


class WouldWiden(PermissionError):
    """More users could read the new file than the one whose place it takes."""

    def __init__(self) -> None:
        super().__init__(errno.EPERM, "more users could read it")


class Mark(NamedTuple):
    """Tells a file that was made here from one that was written to later."""

    mtime_ns: int
    size: int
    inode: int


def make(root: Root, path: str, data: bytes, like: str, status: os.stat_result | None) -> tuple[int, Mark | None]:
    """Make a new file at `path`, like the one at `like`, whose `status` this is; return its handle and its mark.

    There is no mark where the file system cannot tell the time of a file from one a nanosecond earlier.
    Raise OSError if it could not be made whole.
    """
    # A user who may not read the other file may not read it under this name either.
    handle = root.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        left = memoryview(data)
        while left:
            left = left[root.write(handle, left) :]
        mark = _mark(root, handle)
        _take_over(root, handle, like, status)
    except BaseException:
        with suppress(OSError):
            root.close(handle)
        raise
    return handle, mark


def _mark(root: Root, handle: int) -> Mark | None:
    """Give a file that was just written the time one nanosecond before that, which no later write can have."""
    written_at = root.status(handle).st_mtime_ns
    root.set_times(handle, ns=(written_at, written_at - 1))
    status = root.status(handle)
    return Mark(status.st_mtime_ns, status.st_size, status.st_ino) if status.st_mtime_ns < written_at else None


def _take_over(root: Root, handle: int, like: str, status: os.stat_result | None) -> None:
    """Give a file the mode, owner and extended attributes of the one at `like`, or those of a new file if there is none.

    A daemon that is not root cannot give files away: then the owner is its own, the group stays if it may, and what the
    owner could do, the group can, or the user who saved the file could not save it again.
    Raise WouldWiden where a group could read the file then that cannot read it now.
    """
    if status is None:
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
    _take_over_attributes(root, handle, like)
    mode, own = stat.S_IMODE(status.st_mode), root.status(handle)
    could_read = mode & (stat.S_IRGRP if own.st_gid == status.st_gid else stat.S_IROTH)
    if own.st_uid != status.st_uid:
        mode |= (mode & stat.S_IRWXU) >> 3
    if mode & stat.S_IRGRP and not could_read:
        raise WouldWiden
    try:
        root.set_mode(handle, mode)
    except PermissionError:
        # A service may be forbidden to set the bits before the permissions, which mean nothing here.
        root.set_mode(handle, mode & 0o777)


def _take_over_attributes(root: Root, handle: int, like: str) -> None:
    """Copy the extended attributes, as far as that is possible; an access control list must not be left out."""
    try:
        attributes = root.attributes_of(like)
    except OSError:
        return
    for name, value in attributes.items():
        try:
            root.set_attribute(handle, name, value)
        except OSError:
            if name == _ACL:  # the bits of its mode that are the group's say more than the list
                raise WouldWiden from None
