"""Which agents have a private folder, by the directories that are seen, and what is in those without blocks in force."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from blocksd.errors import InvalidLabel
from blocksd.model.label import PRIVATE, is_block_file, parse_agent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blocksd.files.folder import Folder
    from blocksd.state.state import Ledger

_MOST_FILES = 1000  # are looked at, in a folder without a block in force, to find a block among them


class PrivateFolders:
    """Tells the ledger of private folders that came or went. A directory is given by its path below the folder."""

    def __init__(self, folder: Folder, ledger: Ledger) -> None:
        self._folder = folder
        self._ledger = ledger

    def look_at(self, directories: Iterable[str]) -> bool:
        """Something happened to these directories: whether a private folder has come or gone."""
        has_news = False
        for directory in filter(_is_private, directories):
            agent = directory.partition("/")[2]
            agents = self._ledger.attachments.folders
            is_there = self._folder.is_directory(directory)
            if is_there is None:
                continue
            is_there = is_there and self._is_home(directory)
            has_news |= self._set(agents | {agent} if is_there else agents - {agent})
        return has_news

    def set(self, directories: Iterable[str]) -> bool:
        """These are all the directories there are: whether a private folder has come or gone."""
        self._ledger.has_seen_folders = True
        owners = self._ledger.attachments.owners
        return self._set(
            agent
            for directory in directories
            if _is_private(directory) and ((agent := directory.partition("/")[2]) in owners or self._is_home(directory))
        )

    def _is_home(self, directory: str) -> bool:
        """Return True if there is a block in a private folder, or nothing: other files alone make nobody known.

        So a client that deletes an agent is rid of it, though files of other programs stay where it was.
        """
        is_empty = True
        for path in islice(self._folder.content(directory), _MOST_FILES):
            if is_block_file(path.rpartition("/")[2]):
                return True
            is_empty = False
        return is_empty

    def _set(self, names: Iterable[str]) -> bool:
        # A private folder whose blocks are still in force is still there, as far as anyone is told.
        agents = self._ledger.attachments.owners
        for name in names:
            try:
                agents.add(parse_agent(name))
            except InvalidLabel:
                continue  # the files in it are reported, each with its own path
        return self._ledger.set_folders(agents)


def _is_private(path: str) -> bool:
    return path.startswith(f"{PRIVATE}/") and path.count("/") == 1
