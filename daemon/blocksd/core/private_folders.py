"""Which agents have a private folder, by the directories that are seen, and what is in those without blocks in force."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from blocksd.errors import InvalidLabel
from blocksd.model.label import PRIVATE, is_block_file, parse_agent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blocksd.files.folder import Folder
    from blocksd.model.attachment import Attachments

_MOST_FILES = 1000  # are looked at, in a folder without a block in force, to find a block among them


def look_at_some(folder: Folder, directories: Iterable[str]) -> dict[str, bool]:
    """Return which agents have a private folder, of the directories that something happened to; a path is below the folder."""
    found: dict[str, bool] = {}
    for directory in filter(_is_private, directories):
        is_there = folder.is_directory(directory)
        if is_there is not None:
            found[_agent_of(directory)] = is_there and _is_home(folder, directory)
    return found


def look_at_all(folder: Folder, directories: Iterable[str], owners: set[str]) -> set[str]:
    """Return the agents that have a private folder, if these are all the directories there are.

    In the folders of the `owners` are blocks in force: they need not be looked into.
    """
    return {
        _agent_of(directory)
        for directory in directories
        if _is_private(directory) and (_agent_of(directory) in owners or _is_home(folder, directory))
    }


def private_folders(attachments: Attachments, some: Mapping[str, bool], every: set[str] | None) -> set[str]:
    """Return which agents have a private folder, by what was seen of some of them, or of all.

    One whose blocks are still in force is still there, as far as anyone is told.
    """
    names = (
        set(every)
        if every is not None
        else {*attachments.folders, *(name for name, is_there in some.items() if is_there)}
    )
    if every is None:
        names -= {name for name, is_there in some.items() if not is_there}
    agents = attachments.owners
    for name in names:
        try:
            agents.add(parse_agent(name))
        except InvalidLabel:
            continue  # the files in it are reported, each with its own path
    return agents


def _is_home(folder: Folder, directory: str) -> bool:
    """Return True if there is a block in a private folder, or nothing: other files alone make nobody known.

    So a client that deletes an agent is rid of it, though files of other programs stay where it was.
    """
    is_empty = True
    for path in islice(folder.content(directory), _MOST_FILES):
        if is_block_file(path.rpartition("/")[2]):
            return True
        is_empty = False
    return is_empty


def _agent_of(directory: str) -> str:
    return directory.partition("/")[2]


def _is_private(path: str) -> bool:
    return path.startswith(f"{PRIVATE}/") and path.count("/") == 1
