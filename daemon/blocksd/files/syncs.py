"""Syncs many files at once, while the caller goes on: by io_submit(2), for which Python has no function."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_NUMBERS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2), "riscv64": (0, 1, 4, 2)}
"""Those of io_setup, io_destroy, io_getevents and io_submit; on other machines, files are synced one after the other."""

_FSYNC = 2
_ORDER = struct.Struct("@QII HhI QQqQ II")  # struct iocb, where numbers begin with the lowest byte
_DONE = struct.Struct("@QQqq")  # struct io_event

_libc = ctypes.CDLL(None, use_errno=True)


class Syncs:
    """A queue of syncs, which the kernel works on while the caller goes on: all at once, with few writes of its journal.

    One at a time, they take as long as all of them together. At most `MOST` are in the queue.
    """

    MOST = 64

    def __init__(self) -> None:
        """Raise OSError if there is no such queue: the kernel, or the filter of a container, may not have it."""
        numbers = _NUMBERS.get(platform.machine())
        if numbers is None or sys.byteorder != "little" or sys.maxsize < 2**32:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        self._context = ctypes.c_ulong(0)
        setup, self._destroy, self._getevents, self._submit = numbers
        _checked(_libc.syscall(ctypes.c_long(setup), ctypes.c_long(self.MOST), ctypes.byref(self._context)))
        self._orders = ctypes.create_string_buffer(self.MOST * _ORDER.size)
        first = ctypes.addressof(self._orders)
        self._places = (ctypes.c_void_p * self.MOST)(*range(first, first + self.MOST * _ORDER.size, _ORDER.size))
        self._done = ctypes.create_string_buffer(self.MOST * _DONE.size)
        self._count = 0

    def begin(self, handles: Sequence[int]) -> int:
        """Begin to sync files; return how many: their file system may not have it, and then none of the rest is begun."""
        self.end()
        for place, handle in enumerate(handles):
            _ORDER.pack_into(self._orders, place * _ORDER.size, handle, 0, 0, _FSYNC, 0, handle, 0, 0, 0, 0, 0, 0)
        number, count = ctypes.c_long(self._submit), ctypes.c_long(len(handles))
        self._count = max(0, _libc.syscall(number, self._context, count, self._places))
        return self._count

    def end(self) -> dict[int, int]:
        """Wait for all that were begun; the number of the error of each, by handle: 0 says that the file is on disk.

        Raise OSError if that cannot be told; the queue is of no use any more then.
        """
        found: dict[int, int] = {}
        while self._count:
            number, count = ctypes.c_long(self._getevents), ctypes.c_long(self._count)
            came = _libc.syscall(number, self._context, count, count, self._done, None)
            if came < 0:
                if ctypes.get_errno() != errno.EINTR:
                    self._count = 0
                    _checked(came)
                continue
            self._count -= came
            for handle, _, result, _ in _DONE.iter_unpack(self._done.raw[: came * _DONE.size]):
                found[handle] = max(0, -result)
        return found

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            _libc.syscall(ctypes.c_long(self._destroy), self._context)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
