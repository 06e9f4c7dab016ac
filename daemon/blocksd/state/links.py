"""Tells which files change with others: symlinks with what they lead to, and the names of one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.errors import ProblemFile
from blocksd.model.label import printable
from blocksd.model.problem import Warned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from blocksd.files.folder import Signature

_HINT = "remove one of them, or put a copy in its place"


class Links:
    """The symlinks among the block files, each with the paths on its way, and the block files that are one file (hard links)."""

    def __init__(self) -> None:
        self.ways: dict[str, tuple[str, ...]] = {}  # symlink → the symlinks that it leads through, and its target
        self.followers: dict[str, set[str]] = {}  # path → files to read when something happens there
        self.names: set[str] = set()
        """Names of files that symlinks have led through, for a watcher, in another thread: there may be too many."""
        self.refusals: dict[str, ProblemFile] = {}
        """Why files are not written to that are one with others: a new text would part them."""
        self.inodes: dict[str, int] = {}  # block file → its inode, of files with several names
        self._same: dict[int, set[str]] = {}

    def note(self, path: str, way: tuple[str, ...], inode: int | None) -> set[str]:
        """Note where a file leads, and which file it is, if that has several names.

        Return the files to read again: those that it is one with now, or was before.
        """
        if self.ways.get(path, ()) != way:
            for hop in self.ways.pop(path, ()):
                self._unfollow(hop, path)
            if way:
                self.ways[path] = way
                self.names.update(hop.rpartition("/")[2] for hop in way)
                for hop in way:
                    self.followers.setdefault(hop, set()).add(path)
        if self.inodes.get(path) == inode:
            return set()
        left, joined = self._leave(path), set[str]()
        if inode is not None:
            self.inodes[path] = inode
            joined = self._same.setdefault(inode, set())
            for other in joined:
                self.followers.setdefault(other, set()).add(path)
                self.followers.setdefault(path, set()).add(other)
            joined.add(path)
            self._refuse(joined)
        return left | (joined if len(joined) > 1 else set())

    def forget(self, path: str) -> set[str]:
        """Forget a file that is gone; return the files to read again."""
        return self.note(path, (), None)

    def _leave(self, path: str) -> set[str]:
        inode = self.inodes.pop(path, None)
        if inode is None:
            return set()
        left = self._same[inode]
        left.discard(path)
        self.refusals.pop(path, None)
        self._refuse(left)
        for other in left:
            self._unfollow(other, path)
            self._unfollow(path, other)
        if not left:
            del self._same[inode]
        return left

    def _unfollow(self, path: str, follower: str) -> None:
        self.followers[path].discard(follower)
        if not self.followers[path]:
            del self.followers[path]

    def below(self, directory: str) -> list[str]:
        """Return the symlinks that lead through a path, or one below it."""
        below = f"{directory}/"
        return [link for link, way in self.ways.items() if any(f"{hop}/".startswith(below) for hop in way)]

    def warning(self, path: str, inode: int, signature: Callable[[str], Signature | None]) -> Warned | None:
        """Return the warning that a file is one with others, if they still are; `signature` gives that of a file that is there."""
        signatures = {other: signature(other) for other in self._same.get(inode, ()) if other != path}
        others = {other for other, found in signatures.items() if found is not None and found[3] == inode}
        if not others:
            return None
        message = (
            f"it is one file with {_named(others)} (a hard link): a save of one is a save of all; requests are refused"
        )
        return Warned(message, None, _HINT)

    def _refuse(self, same: set[str]) -> None:
        for path in same:
            self.refusals.pop(path, None)
            if len(same) > 1:
                others = _named(same - {path})
                message = f"{printable(path)} is one file with {others} (a hard link), and a write would part them"
                self.refusals[path] = ProblemFile(message, path=path, hint=_HINT)


def _named(paths: Iterable[str]) -> str:
    first, *more = sorted(map(printable, paths))
    return first + (f" and {len(more)} more" if more else "")
