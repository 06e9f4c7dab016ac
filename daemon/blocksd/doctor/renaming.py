"""Files whose names cannot be labels: what each could be called, and the renaming."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from blocksd.files.root import Root
from blocksd.model.label import clash_key, is_block_file, is_ignored, printable
from blocksd.model.proposal import is_misnamed, proposed_path

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Renaming:
    """A file that could be called `new`, by paths below the folder; `obstacle` is why it cannot, empty if it can."""

    old: str
    new: str
    obstacle: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the renaming with paths that can be printed."""
        return {**asdict(self), "old": printable(self.old), "new": printable(self.new)}


def renamings(folder: str) -> list[Renaming]:
    """Return what the files of a folder that need another name could be called; nothing is done."""
    paths = sorted(_files(folder))
    taken = {clash_key(path): path for path in paths}
    found: list[Renaming] = []
    for path in paths:
        new = proposed_path(path)
        if new is None:
            continue
        other = taken.get(clash_key(new), path)
        obstacle = (
            "" if other == path else f"{printable(other)} has this name, or one that some file systems take for it"
        )
        if not obstacle:
            taken[clash_key(new)] = path
        found.append(Renaming(path, new, obstacle))
    return found


def _files(folder: str) -> Iterator[str]:
    """Yield the paths of all files that are, or are meant to be, blocks."""
    for directory, below, names in os.walk(folder):
        below[:] = [name for name in below if not is_ignored(name)]
        place = os.path.relpath(directory, folder)
        for name in names:
            if is_block_file(name) or (is_misnamed(name) and not is_ignored(name)):
                yield name if place == "." else f"{place}/{name}"


def rename(folder: str, renaming: Renaming) -> None:
    """Rename a file, unless something has its new name, and remove the directories that are empty by that.

    Raise OSError if it cannot be done; then nothing was.
    """
    root = Root(folder)
    try:
        os.makedirs(os.path.join(folder, os.path.dirname(renaming.new)), exist_ok=True)
        root.move(renaming.old, renaming.new)
    finally:
        root.release()
    directory = os.path.dirname(renaming.old)
    with suppress(OSError):  # it is not empty
        while directory and not f"{renaming.new}/".startswith(f"{directory}/"):
            os.rmdir(os.path.join(folder, directory))
            directory = os.path.dirname(directory)
