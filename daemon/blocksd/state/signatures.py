"""The signature that each file had when it was read, in few bytes, directory by directory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import MutableMapping
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from blocksd.files.folder import NO_SIGNATURE
from blocksd.model.label import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_SIZE, _END = len(NO_SIGNATURE), len(SUFFIX)
_NONE: Mapping[str, bytes] = {}


class Run(NamedTuple):
    """Files of one directory as they were loaded: their names, in order, and their numbers."""

    names: Sequence[str]
    numbers: Sequence[int]


class Signatures(MutableMapping[str, bytes]):
    """Signatures by path, packed; empty: it proves nothing.

    A start loads one for each block, and the first sweep compares them: `load` makes no object for each, and `run_of`
    gives all of a directory together. Those of files that are new since are in dictionaries, one for each directory.
    """

    def __init__(self) -> None:
        self._of: dict[str, dict[str, bytes]] = {}  # directory → name → signature
        self._count = 0  # of these
        self._stems: list[str] = []  # paths that were loaded, sorted, without their ending
        self._loaded = bytearray()  # their signatures, one after the other
        self._gone: set[str] = set()  # stems that were loaded, and are not known any more

    def load(self, stems: Sequence[str], signatures: bytes) -> None:
        """Take over the signatures of files, whose stems are sorted and come after those that were loaded before."""
        self._stems += stems
        self._loaded += signatures

    def get(self, path: str, default: Any = None) -> Any:
        """Return the signature of a path. No error is made on the way: most new files are not known."""
        directory, _, name = path.rpartition("/")
        found = self._of.get(directory, _NONE).get(name)
        if found is None and self._stems and (number := self._number_of(path)) >= 0:
            found = bytes(self._loaded[number * _SIZE : (number + 1) * _SIZE])
            return found if found != NO_SIGNATURE else b""
        return default if found is None else found

    def __getitem__(self, path: str) -> bytes:
        found: bytes | None = self.get(path)
        if found is None:
            raise KeyError(path)
        return found

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and self.get(path) is not None

    def _number_of(self, path: str) -> int:
        """Return the number of a path that was loaded; -1 if it was not."""
        if not path.endswith(SUFFIX):
            return -1
        stem = path[:-_END]
        number = bisect_left(self._stems, stem)
        is_there = number < len(self._stems) and self._stems[number] == stem and stem not in self._gone
        return number if is_there else -1

    def __setitem__(self, path: str, signature: bytes) -> None:
        number = self._number_of(path) if self._stems else -1
        if number >= 0:
            self._loaded[number * _SIZE : (number + 1) * _SIZE] = signature or NO_SIGNATURE
            return
        directory, _, name = path.rpartition("/")
        of = self._of.get(directory)
        if of is None:
            of = self._of[directory] = {}
        self._count += name not in of
        of[name] = signature

    def __delitem__(self, path: str) -> None:
        directory, _, name = path.rpartition("/")
        of = self._of.get(directory)
        if of is not None and name in of:
            del of[name]
            self._count -= 1
            if not of:
                del self._of[directory]
        elif self._number_of(path) >= 0:
            self._gone.add(path[:-_END])
        else:
            raise KeyError(path)

    def __len__(self) -> int:
        return self._count + len(self._stems) - len(self._gone)

    def __iter__(self) -> Iterator[str]:
        new = (f"{directory}/{name}" if directory else name for directory, of in self._of.items() for name in of)
        return chain(new, (f"{stem}{SUFFIX}" for stem in self._stems if stem not in self._gone))

    # --- by directory ---

    def new_of(self, directory: str) -> Mapping[str, bytes]:
        """Return those of a directory that are not of a run, by name."""
        return self._of.get(directory, _NONE)

    def run_of(self, directory: str) -> Run:
        """Return the files of a directory that were loaded."""
        stems, (first, last), prefix = self._stems, self._below(directory), f"{directory}/" if directory else ""
        if first == last:
            return Run((), ())
        text = "\n".join(stems[first:last])
        if text.count("/") == prefix.count("/") * (last - first) and not self._gone:  # none is in a directory below
            text = f"\n{text}".replace(f"\n{prefix}", f"{SUFFIX}\n")[_END + 1 :]
            return Run(f"{text}{SUFFIX}".split("\n"), range(first, last))
        directly = self._directly(first, last, len(prefix))
        numbers = [number for number in directly if stems[number] not in self._gone]
        return Run([stems[number][len(prefix) :] + SUFFIX for number in numbers], numbers)

    def _below(self, directory: str) -> tuple[int, int]:
        """Return the numbers of the first that was loaded in a directory or below it, and after the last."""
        if not directory:
            return 0, len(self._stems)
        return bisect_left(self._stems, f"{directory}/"), bisect_left(self._stems, f"{directory}0")  # 0 follows /

    def _directly(self, first: int, last: int, start: int) -> Iterator[int]:
        while first < last:
            stem = self._stems[first]
            end = stem.find("/", start)
            if end < 0:
                yield first
                first += 1
            else:
                first = bisect_left(self._stems, f"{stem[:end]}0", first, last)

    def are(self, numbers: Sequence[int], found: Sequence[bytes]) -> bool:
        """Return True if the files of these numbers, of a run, have these signatures."""
        loaded = self._loaded
        if isinstance(numbers, range):
            return b"".join(found) == loaded[numbers.start * _SIZE : numbers.stop * _SIZE]
        return b"".join(found) == b"".join([loaded[number * _SIZE : (number + 1) * _SIZE] for number in numbers])

    def directories(self, below: str = "") -> set[str]:
        """Return the directories that have known files; with `below`, that one and those below it."""
        first, last = self._below(below)
        loaded = {stem.rpartition("/")[0] for stem in self._stems[first:last] if stem not in self._gone}
        return loaded.union(one for one in self._of if not below or f"{one}/".startswith(f"{below}/"))

    def new_directories(self) -> set[str]:
        """Return the directories that have known files that are not of a run."""
        return set(self._of)

    def names(self, directory: str) -> set[str]:
        """Return the names of the known files in a directory."""
        return {*self.run_of(directory).names, *self.new_of(directory)}
