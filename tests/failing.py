"""A folder whose system calls fail: at random, or one of them always. What a failing call has done is nothing, or all of it."""

from __future__ import annotations

import errno
import inspect
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from blocksd.files.root import Root

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

ERRORS = (
    errno.EIO,
    errno.ENOSPC,
    errno.EROFS,
    errno.EACCES,
    errno.EDQUOT,
    errno.EPERM,
    errno.ENOMEM,
    errno.ESTALE,
    errno.EBUSY,
    errno.ENOTCONN,
)

_CHANGING = ("rename", "renameat2", "link", "unlink", "make_directory", "remove_directory")
CALLS = (
    *_CHANGING,
    "open",
    "stat",
    "readlink",
    "scandir",
    "sync_directory",
    "identity",
    "status",
    "read",
    "write",
    "sync",
    "close",
    "set_times",
    "set_mode",
    "set_owner",
    "attributes",
    "set_attribute",
)


class FailingRoot(Root):
    """`fails` is asked before each call, by its name and arguments: the number of an error, or None."""

    def __init__(self, path: str, fails: Callable[..., int | None], dice: random.Random | None = None) -> None:
        super().__init__(path)
        self.fails = fails
        self._dice = dice
        self.failed = 0

    def _does(self, name: str, call: Callable[..., Any], *args: Any) -> Any:
        number = self.fails(name, *args)
        if number is None:
            return call(*args)
        self.failed += 1
        # As on a disk that goes, or a server that does not answer in time: it may be done all the same.
        if name == "close" or (name in _CHANGING and self._dice is not None and self._dice.random() < 0.5):
            with suppress(OSError):
                call(*args)
        raise OSError(number, os.strerror(number))


def call_of_root(name: str) -> Callable[..., Any]:
    """A call of a root, as a function of the root and the arguments."""
    found: Any = inspect.getattr_static(Root, name)
    if isinstance(found, staticmethod):  # it is of the system, and takes a handle
        return lambda _root, *args, **options: found.__func__(*args, **options)
    return found  # type: ignore[no-any-return]  # a method


def _failing(name: str) -> Any:
    real = call_of_root(name)
    if name == "scandir":

        @contextmanager
        def scandir(self: FailingRoot, path: str) -> Iterator[Any]:
            self._does(name, lambda _: None, path)
            with real(self, path) as entries:
                yield entries

        return scandir
    return lambda self, *args, **options: self._does(name, lambda *words: real(self, *words, **options), *args)


for _name in CALLS:
    setattr(FailingRoot, _name, _failing(_name))
