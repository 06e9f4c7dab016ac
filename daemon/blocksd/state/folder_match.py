"""Tells whether a folder is the one that a journal was made of, or another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from blocksd.errors import InvalidFile, Misconfigured
from blocksd.files.document import Parser
from blocksd.files.folder import Absent, Text
from blocksd.journal.identity import facts_of

if TYPE_CHECKING:
    from blocksd.files.folder import Folder
    from blocksd.journal.heads import Head
    from blocksd.journal.history import History

_MOST = 200  # files are looked at


class Match(NamedTuple):
    """How many blocks of another folder were looked for in a folder, and how many of their files say what the journal has."""

    other: str
    here: str
    looked_for: int
    found: int

    def error(self, state: str) -> Misconfigured:
        """Return why a daemon does not serve the folder with this state directory. Facts: `key`, `folder` (the other one)."""
        few = f"{self.found} of {self.looked_for}" if self.found else "none"
        return Misconfigured(
            f"the state directory {state} is that of another folder, {self.other}: {few} of its blocks are in {self.here}",
            key="folder",
            folder=self.other,
            hint="to serve both, start this one with another --namespace and, if you name it, another --state-dir; if it takes "
            f"the place of {self.other}, whose blocks are then deleted and stay in the history, start it with --take-over",
        )


def match_folder(journal: History, folder: Folder) -> Match | None:
    """Return how little a folder has of the blocks in the journal; None if it is the folder that the journal was made of.

    A folder is the same one wherever it is moved or mounted, which its identity tells, and so is a copy of it: most of its
    files say what a kept version of their blocks says. So does a backup. The path as it was given tells, too: it may be a
    symlink that is switched from one release to the next. A file that cannot be read tells nothing.

    Raises:
        JournalUnusable: the journal cannot be read.
    """
    known, facts = journal.folder_facts(), facts_of(folder.root, folder.directory.given)
    if known is None or facts.path == known.path or facts.given in (known.given, known.path):
        return None
    if facts.identity and facts.identity == known.identity:
        return None
    heads = list(journal.heads(in_force=True))
    if not heads:
        return None
    parser = Parser()
    answers = [_says_the_same(journal, folder, head, parser) for head in heads[:: max(1, len(heads) // _MOST)]]
    found, other = answers.count(True), answers.count(False)
    return None if found > other else Match(known.path, folder.root, len(answers), found)


def _says_the_same(journal: History, folder: Folder, head: Head, parser: Parser) -> bool | None:
    """Return True if the file of a block says what a kept version of it says; None if it cannot be read."""
    path = head.path
    assert path is not None
    signature = folder.signature(path)
    if signature is not None and head.signature is not None and _is_copy(signature, head.signature):
        return True
    reading = folder.read(path, closed=True)
    if isinstance(reading, Absent):
        return False
    if not isinstance(reading, Text):
        return None
    try:
        block, _ = parser.parse(reading.data, head.label)
    except InvalidFile:
        return False
    return bool(journal.versions_like(head.label, block))


def _is_copy(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Return True if two files have the same size and time of the last write, to the nanosecond, as tools that copy keep it."""
    return one[0] == other[0] and one[2] == other[2]
