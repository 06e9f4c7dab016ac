"""Walks the directory of a source, and yields what may be a text file."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING

from blocksd.files.folder import signature_of
from blocksd.files.links import resolve
from blocksd.model.label import is_ignored
from blocksd.state.sweep import FolderEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocksd.files.root import Root

_SLICE = 256


def walk(root: Root) -> Iterator[list[FolderEntry]]:
    """Yield the files and directories below `root`, a few hundred at a time. No file is opened."""
    todo = [""]
    found: list[FolderEntry] = []
    while todo:
        directory = todo.pop()
        prefix = f"{directory}/" if directory else ""
        try:
            with root.scandir(directory) as entries:
                for entry in entries:
                    if is_ignored(entry.name):
                        continue
                    if len(found) >= _SLICE:
                        yield found
                        found = []
                    path = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(path)
                        found.append(FolderEntry(path, "directory"))
                        continue
                    try:
                        status = entry.stat(follow_symlinks=False)
                        if stat.S_ISLNK(status.st_mode):
                            status = root.stat(_led_to(root, path))
                    except OSError:
                        continue
                    if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                        found.append(FolderEntry(path, "file", signature_of(status)))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            found.append(FolderEntry(directory, "unreadable", error=error))
    yield found


def _led_to(root: Root, path: str) -> str:
    """Return where a symlink leads. One that leads out of the source is refused when it is read."""
    try:
        return resolve(root, path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return path
