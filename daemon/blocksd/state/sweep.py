"""Lists the folder, a slice at a time, and compares it with what is known of its files. No file is opened."""

from __future__ import annotations

import errno
import stat
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Literal, NamedTuple

from blocksd.files.folder import packed, signature_of
from blocksd.model.label import SUFFIX, TEMPORARY, is_ignored, is_properties
from blocksd.model.proposal import is_misnamed
from blocksd.state.signatures import Signatures

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    from blocksd.files.folder import Folder, Signature
    from blocksd.state.signatures import Run

SLICE = 256
"""How many directory entries are looked at in one slice."""

_MAYBE_IGNORED = frozenset(".#~")  # how the name of an ignored file begins, if it ends as a block's does
_TOGETHER = 1024  # files that are compared at once


class FolderEntry(NamedTuple):
    """One directory entry that could matter.

    `kind`: `file` (with its signature), `link`, `special` (no regular file, but named like a block), `directory`,
    `unreadable` (a directory that could not be listed: nothing is known of what is below), `left` (a temporary of ours
    that a crash has left), `misnamed` (Markdown that is no block for its name alone), `missing` (a known file that is not
    in its directory).
    """

    path: str
    kind: Literal["file", "link", "special", "directory", "unreadable", "left", "misnamed", "missing"]
    signature: Signature | None = None
    error: OSError | None = None


class Sweep:
    """One walk through the folder, or through one directory of it.

    A directory that cannot be listed is reported, one that is gone is not: then it is not among those that were `listed`.
    A file whose signature is the known one is no entry.
    """

    def __init__(self, folder: Folder, known: Signatures | None = None, *, at_once: int = SLICE) -> None:
        self._folder = folder
        self._known = Signatures() if known is None else known
        self._at_once = at_once
        self._looks = 0  # in this slice
        self._found: list[FolderEntry] = []
        self._todo: list[str] = []
        self.listed: set[str] = set()
        self.covered = 0
        """How many known files are or were in these."""

    def walk(self, below: str = "") -> Iterator[list[FolderEntry]]:
        """Yield all that could matter, a few hundred entries at a time."""
        self._todo.append(below)
        while self._todo:
            directory = self._todo.pop()
            try:
                yield from self._list(directory)
                self.listed.add(directory)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                # ELOOP: a symlink has come to be where a directory was.
                kind: Literal["special", "unreadable"] = "special" if error.errno == errno.ELOOP else "unreadable"
                self._found.append(FolderEntry(directory, kind, error=error))
        yield self._found

    def _slice(self) -> list[FolderEntry]:
        found, self._found, self._looks = self._found, [], 0
        return found

    def _list(self, directory: str) -> Iterator[list[FolderEntry]]:
        """List one directory, and compare what is in it. This loop is most of a start."""
        prefix = f"{directory}/" if directory else ""
        run, new = self._known.run_of(directory), self._known.new_of(directory)
        has_known, found = bool(run.names or new), dict[str, bytes]()  # signatures of files that may be known, by name
        pack, signature = packed, signature_of
        self._folder.expect_writers(directory)
        with self._folder.directory.scandir(directory) as entries:
            while some := list(islice(entries, self._at_once - self._looks)):
                self._looks += len(some)
                if has_known:
                    try:
                        read = {
                            name: pack(*signature(entry.stat(follow_symlinks=False)))
                            for entry in some
                            if (name := entry.name).endswith(SUFFIX)
                            or (name in new and not entry.is_dir(follow_symlinks=False))
                        }
                    except OSError:  # of one of them
                        read = dict.fromkeys((entry.name for entry in some if entry.name.endswith(SUFFIX)), b"")
                    some = [entry for entry in some if entry.name not in read] if len(read) < len(some) else []
                    found.update(read)
                for entry in some:
                    self._look(prefix + entry.name, entry.name, entry)
                if self._looks >= self._at_once:
                    yield self._slice()
        self.covered += len(run.names) + len(new)
        if has_known:
            yield from self._compare(prefix, run, new, found)

    def _compare(
        self, prefix: str, run: Run, new: Mapping[str, bytes], found: dict[str, bytes]
    ) -> Iterator[list[FolderEntry]]:
        """Compare the signatures that were found in a directory, many together, with those that are known."""
        same: list[str] = []
        todo = list(new)
        for first in range(0, len(run.names), _TOGETHER):
            names = run.names[first : first + _TOGETHER]
            are_same = self._known.are(run.numbers[first : first + _TOGETHER], [found.get(name, b"") for name in names])
            (same if are_same else todo).extend(names)
        if len(found) == len(same) and not todo:
            return
        todo += found.keys() - same - set(todo)
        for name in todo:
            path = prefix + name
            if name not in found:
                self._found.append(FolderEntry(path, "missing"))
            elif not found[name] or found[name] != self._known.get(path):
                self._look_at_file(path, name, partial(self._folder.directory.stat, path))
                if len(self._found) >= self._at_once:
                    yield self._slice()

    def _look(self, path: str, name: str, entry: os.DirEntry[str]) -> None:
        """Note what an entry is; a directory is listed later."""
        if name.endswith(SUFFIX) or is_properties(path):
            self._look_at_file(path, name, partial(entry.stat, follow_symlinks=False))
        elif is_ignored(name):
            if name.startswith(TEMPORARY):
                self._found.append(FolderEntry(path, "left"))
        elif entry.is_dir(follow_symlinks=False):
            self._todo.append(path)
            self._found.append(FolderEntry(path, "directory"))
        elif entry.is_symlink() and entry.is_dir():
            self._found.append(FolderEntry(path, "special"))
        elif is_misnamed(name):
            self._found.append(FolderEntry(path, "misnamed"))

    def _look_at_file(self, path: str, name: str, status_of: Callable[[], os.stat_result]) -> None:
        """Note what there is that has the name of a file that is read."""
        if name[0] in _MAYBE_IGNORED and is_ignored(name):
            return
        try:
            status = status_of()
        except OSError as error:
            self._found.append(FolderEntry(path, "special", error=error))
            return
        if stat.S_ISREG(status.st_mode):
            self._found.append(FolderEntry(path, "file", signature_of(status)))
        else:
            self._found.append(FolderEntry(path, "link" if stat.S_ISLNK(status.st_mode) else "special"))
