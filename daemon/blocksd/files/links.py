"""Follows symlinks in the folder one by one, so that the kernel follows none."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from blocksd.errors import ProblemFile
from blocksd.files.beneath import os_error
from blocksd.model.label import printable

if TYPE_CHECKING:
    from blocksd.files.root import Root

_MOST_LINKS = 40  # on one way, as the kernel has it


def resolve(root: Root, path: str, way: list[str] | None = None) -> str:
    """Return the path of what is there, after following the symlinks that it is and leads through.

    The symlinks are added to `way`, and what the last one leads to, also if that is not there.

    Raises:
        OSError: EXDEV when it leads out of the folder, ENOENT when it leads to nothing, ELOOP when it leads in a circle or
            a directory on the way to it is a symlink; any other: it cannot be told.
    """
    if not _is_link(root, path):
        return path
    *done, name = path.split("/")
    todo, links = [name], 0
    while todo:
        name = todo.pop()
        if name in ("", "."):
            continue
        if name == "..":
            if not done:  # it may come in again
                return _below(root, "/".join([os.path.dirname(root.path), *reversed(todo)]))
            done.pop()
            continue
        at = "/".join([*done, name])
        if way is not None and not todo:
            way.append(at)
        if not _is_link(root, at):
            done.append(name)
            continue
        if way is not None and todo:
            way.append(at)
        links += 1
        if links > _MOST_LINKS:
            raise os_error(errno.ELOOP, path)
        target = root.readlink(at)
        if target.startswith("/"):
            found = _below(root, "/".join([target, *reversed(todo)]))
            if way is not None:
                way.append(found)
            return found
        todo += reversed(target.split("/"))
    return "/".join(done)


def _is_link(root: Root, path: str) -> bool:
    return stat.S_ISLNK(root.stat(path).st_mode)


def _below(root: Root, full: str) -> str:
    """Return the path in the folder of what a symlink names by its full path."""
    try:
        found = os.path.realpath(full, strict=True)
    except FileNotFoundError:
        if _is_below(root, os.path.realpath(full)):
            raise
        raise os_error(errno.EXDEV, full) from None
    if not _is_below(root, found):
        raise os_error(errno.EXDEV, full)
    return found[len(root.path) :].lstrip("/")


def _is_below(root: Root, full: str) -> bool:
    return f"{full}/".startswith(root.path.rstrip("/") + "/")


def through_symlink(root: Root, path: str) -> ProblemFile | None:
    """Return why nothing is read or written at a path that leads through a symlink; None if it leads through none.

    The path of a directory ends in a slash.
    """
    link = symlink_on(root, path)
    if link is None:
        return None
    why = f"{printable(link)} is a symlink, and blocks are never written through a symlinked directory"
    message = f"{printable(path)} cannot be written: {why}"
    hint = f"put a directory in the place of {printable(link)}, or choose another label"
    return ProblemFile(message, path=path.rstrip("/"), errno="ELOOP", hint=hint)


def symlink_on(root: Root, path: str) -> str | None:
    """Return the first directory on a path that is a symlink, for a message; None if there is none, or it cannot be told."""
    segments = path.split("/")
    try:
        for number in range(1, len(segments)):
            directory = "/".join(segments[:number])
            if _is_link(root, directory):
                return directory
    except OSError:
        return None
    return None
