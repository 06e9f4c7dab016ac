"""What the folder says: looks at files, and decides which revisions and problems follow.

Hints say where to look, nothing more. What is known of the folder between two looks is here, and is rebuilt from the
journal at start; nothing here writes anything.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from blocksd import safety
from blocksd.attachment import NOBODY, Attachments
from blocksd.block import Block
from blocksd.document import Parser
from blocksd.errors import BlocksdError, InvalidFile, InvalidLabel
from blocksd.folder import Absent, Busy, Refused, Text, unreadable_directory
from blocksd.label import (
    CONFIG_MAP,
    PRIVATE,
    clash_key,
    is_block_file,
    is_ignored,
    label_of_path,
    name_for_agent,
    parse_agent,
    printable,
)
from blocksd.problem import FOLDER, Problem, problem_of
from blocksd.revision import Revision, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from blocksd.folder import Folder, Found, Signature
    from blocksd.journal import Journal

SETTLE_SECONDS = 0.02
"""How long a file that appeared is left alone, unless its writer is seen to close it first."""

_RETRY_SECONDS = 1.0
_PATIENCE = 8  # looks at a file that is being written, each after a longer wait, before it is called a problem
_LONGEST_GATHERING = 60.0
_NEWEST_KEPT = 256


@dataclass(slots=True)
class Findings:
    """What one look came to: revisions for the journal, and which file says each label now."""

    revisions: list[Revision] = field(default_factory=list)
    files: dict[str, tuple[str, Signature | None]] = field(default_factory=dict)  # label → path, signature

    def __bool__(self) -> bool:
        return bool(self.revisions or self.files)


class Intake:
    """The daemon's view of one folder. Times are of a monotonic clock, in seconds."""

    def __init__(
        self,
        folder: Folder,
        journal: Journal,
        *,
        delete_grace: float,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._journal = journal
        self._delete_grace = delete_grace
        self._clock = clock
        self._wall = wall
        self._identity = folder.identity()
        self._is_gone = False
        # The folder was gone, or replaced, or is not the one the journal was made of, and not all blocks were seen since.
        self._in_doubt = journal.folder not in (None, folder.root)
        self._accepted = False  # a person has accepted the deletions that are held back
        self.problems: dict[str, Problem] = {}
        self.problem_changes = 0  # counts up whenever `problems` changes
        self._ready: dict[str, bool] = {}  # path → whether its writer was seen to close it
        self._later: dict[str, float] = {}
        self._looks: dict[str, int] = {}
        self._gone: dict[str, float] = {}
        self._deletions_due = float("inf")
        self._trees: set[str] = set()
        self._sweep: Iterator[list[Found]] | None
        self._standing_back: dict[str, set[str]] = {}  # clash key → files whose label another has
        self.directories: set[str] = set()  # as of the last sweep
        self.sweeps = 0
        self._now_text = ""  # the time of the look that is going on
        self.load()

    def load(self) -> None:
        """Begin from what the journal holds. A sweep under way has compared with what is forgotten now: it is void."""
        self._sweep = None
        self.attachments = Attachments()
        self._moved: dict[str, frozenset[str]] = {}  # sets changed by private folders, not yet drafted
        self._names_noted = False
        self._parser = Parser()
        self._versions: dict[str, int] = {}
        self._newest: dict[str, Revision] = {}
        self.paths: dict[str, str] = {}  # of the blocks in force: label → path
        self._labels: dict[str, str] = {}  # path → label
        self._taken: dict[str, str] = {}  # clash key → label; those that are their own key may be left out
        self._signatures: dict[str, Signature | None] = {}  # of every file looked at, in force or not
        self._links: set[str] = set()
        attach, versions, signatures = self.attachments.load, self._versions, self._signatures
        paths, labels, taken = self.paths, self._labels, self._taken
        for label, version, entries, agents, path, signature in self._journal.heads():
            versions[label] = version
            if path is not None:
                paths[label] = path
                labels[path] = label
                signatures[path] = signature
                if not (label.islower() and label.isascii()):  # else it is its own clash key
                    taken[clash_key(label)] = label
                attach(label, entries, agents)
        # The journal has no list of private folders. Until the first sweep has seen them, they are where blocks are.
        self.attachments.loaded()

    # --- hints ---

    def hint_file(self, path: str, *, closed: bool) -> None:
        """Something happened to this file; `closed` if its writer was seen to be done."""
        *directories, name = path.split("/")
        if any(is_ignored(directory) or is_block_file(directory) for directory in directories):
            return  # no sweep goes there either
        if is_block_file(name):
            if closed:
                self._later.pop(path, None)
                self._looks.pop(path, None)  # if it is being written again, that is another save
                self._ready[path] = True
            elif path not in self._ready:
                self._later.setdefault(path, self._clock() + SETTLE_SECONDS)
        elif name == CONFIG_MAP:  # what the links lead to has changed, all at once
            self._ready.update(dict.fromkeys(self._links, True))

    def hint_tree(self, path: str) -> None:
        """Something happened to this directory, or to the folder itself (the empty path)."""
        if is_block_file(path.rpartition("/")[2]):  # in the place of a block
            self.hint_file(path, closed=False)
        elif not path or not any(map(is_ignored, path.split("/"))):
            self._trees.add(path)

    def hint_all(self) -> None:
        """Something happened somewhere: sweep the folder from the beginning."""
        self._sweep = self._sweeping()

    def accept_deletions(self) -> None:
        """A person says that the deletions held back are meant: these, not any that are still to come."""
        if FOLDER in self.problems:
            self._accepted = True
            self._deletions_due = self._clock()

    # --- when ---

    @property
    def backlog(self) -> int:
        """How many files are known to need a look."""
        return len(self._ready)

    @property
    def is_sweeping(self) -> bool:
        return self._sweep is not None

    @property
    def due(self) -> float:
        """When the next look is due."""
        if self._ready or self._trees or self._sweep is not None:
            return 0.0
        return min(self._deletions_due, min(self._later.values(), default=float("inf")))

    @property
    def is_stuck(self) -> bool:
        """Whether all that is left to look at is being written, and has been waited for in vain."""
        nothing = not (self._ready or self._trees or self._sweep is not None)
        return nothing and all(self._looks.get(path, 0) > _PATIENCE for path in self._later)

    # --- looking ---

    def look(self, limit: int) -> Findings:
        """Look at what is due, at most `limit` files, and decide. The journal must take the findings, or `load` again."""
        now = self._clock()
        self._now_text = timestamp(self._wall())
        findings = Findings()
        for path in [path for path, due in self._later.items() if due <= now]:
            del self._later[path]
            self._ready.setdefault(path, False)
        if self._trees:
            self._look_at_trees()
        if now >= self._deletions_due:
            self._decide_deletions(findings)
        # The first sweep goes first: it tells how much there is to read. Later ones use the time between looks.
        if self._sweep is not None and (not self.sweeps or not self._ready):
            if next(self._sweep, None) is None:
                self._sweep = None
        elif self._ready:
            batch = sorted(islice(self._ready, limit), key=_private_first)
            for path in batch:
                self._look_at(path, findings, closed=self._ready.pop(path))
        if self._moved:
            moved, self._moved = self._moved, {}
            self._reattach(moved, findings)
        if not self._names_noted:
            self._note_refused_names()
        if not (self._gone or self._ready or self._later or self._sweep) and self.sweeps:
            self._end_doubt()
        return findings

    def check_root(self) -> bool:
        """Look whether the folder is still the one that was opened; False when it is another or gone."""
        try:
            found = self._folder.identity()
        except OSError:
            return True
        if found is not None and found == self._identity:
            if self._is_gone:
                self._is_gone = False
                self.hint_all()
            return True
        self._in_doubt = True
        if found is None:
            self._is_gone = True
            self._halt("the folder is gone", "put it back, or mount it again; all blocks stay as they are until then")
            return False
        if safety.is_replaced(self._identity, found):
            self._halt("the folder was replaced by another directory", "all blocks that are missing in it are kept")
        self._identity = found
        self._is_gone = False
        self.hint_all()
        return False

    def _look_at(self, path: str, findings: Findings, *, closed: bool) -> None:
        reading = self._folder.read(path, closed=closed)
        if isinstance(reading, Busy):
            self._wait_for_writer(path)
            return
        self._looks.pop(path, None)
        if isinstance(reading, Absent):
            self._miss(path)
            return
        self._unmiss(path)
        if isinstance(reading, Refused):
            self._signatures[path] = reading.signature
            self._report(path, reading.error)
            return
        try:
            label = label_of_path(path)
            if not self._may_enforce(label, path, reading):
                return
            block, warnings = self._parser.parse(reading.data, label)
        except BlocksdError as error:
            self._signatures[path] = reading.signature
            self._report(path, error if isinstance(error, InvalidFile) else _unusable_name(error))
            return
        if warnings:
            first = warnings[0]
            message = "; ".join(warning.message for warning in warnings[:5])
            self.set_problem(Problem(printable(path), "warning", message, first.hint, label, first.line, warning=True))
        else:
            self._clear(path)
        self._accept(path, block, reading, findings, is_odd=bool(warnings))

    def _accept(self, path: str, block: Block, reading: Text, findings: Findings, *, is_odd: bool) -> None:
        label = block.label
        (self._links.add if reading.is_link else self._links.discard)(path)
        before = self._newest_of(label)
        is_new = before is None or before.block is None
        fields = (Block(label) if before is None or before.block is None else before.block).changed_fields(block)
        known_signature = self._signatures.get(path)
        self._enforce(label, path)
        self._signatures[path] = reading.signature
        if is_new or fields or reading.signature != known_signature:
            # What a file is warned of is not journaled: after a restart it is read again, and warned of again.
            findings.files[label] = (path, None if is_odd else reading.signature)
        if not is_new and not fields:
            return
        others: dict[str, frozenset[str]] = {}
        if is_new or "agents" in fields:
            others = self.attachments.put(label, block.agents)
            others.pop(label, None)
            self._names_noted = False
        self._draft(before, block, fields, findings)
        self._reattach(others, findings)

    def _draft(self, before: Revision | None, block: Block, fields: tuple[str, ...], findings: Findings) -> None:
        """The revision that makes `block` the newest of its label, with the attachment set of the moment."""
        label, at = block.label, self._now_text
        is_new = before is None or before.block is None
        had = before.agents if before is not None else NOBODY
        has = self.attachments.attached[label]
        # The same object compares element by element, too; and the journal knows a set by its identity.
        if has is not had and has == had:
            has = had
        self._append(
            findings,
            Revision(
                seq=self._journal.seq + len(findings.revisions) + 1,
                label=label,
                version=self._versions.get(label, 0) + 1,
                kind="created" if is_new else "updated",
                block=block,
                at=at,
                created_at=at if before is None or is_new else before.created_at,
                fields=fields,
                agents=has,
                attached=tuple(sorted(has - had)) if has is not had else (),
                detached=tuple(sorted(had - has)) if has is not had else (),
                digest=before.digest if before is not None and fields == ("agents",) else block.digest,
            ),
        )

    def _reattach(self, changed: dict[str, frozenset[str]], findings: Findings) -> None:
        """Revisions of blocks whose files have not changed, but who is attached to them has."""
        for label in sorted(changed):
            newest = self._newest_of(label)
            if newest is not None and newest.block is not None and newest.agents != self.attachments.attached[label]:
                self._draft(newest, newest.block, ("agents",), findings)

    def _delete(self, path: str, findings: Findings) -> None:
        label = self._labels.pop(path)
        del self.paths[label]
        self._taken.pop(clash_key(label), None)
        self._signatures.pop(path, None)
        self._links.discard(path)
        self._parser.forget(label)
        self._clear(path)
        before = self._newest_of(label)
        assert before is not None
        others = self.attachments.drop(label)
        self._names_noted = False
        at = self._now_text
        self._append(
            findings,
            Revision(
                seq=self._journal.seq + len(findings.revisions) + 1,
                label=label,
                version=self._versions[label] + 1,
                kind="deleted",
                block=None,
                at=at,
                created_at=before.created_at,
                detached=tuple(sorted(before.agents)),
            ),
        )
        self._reattach(others, findings)
        # One of the files that had to stand back for this label may have it now.
        for other in self._standing_back.pop(clash_key(label), ()):
            self._ready.setdefault(other, False)

    def _append(self, findings: Findings, revision: Revision) -> None:
        findings.revisions.append(revision)
        self._versions[revision.label] = revision.version
        self._newest.pop(revision.label, None)
        self._newest[revision.label] = revision
        while len(self._newest) > max(_NEWEST_KEPT, len(findings.revisions)):
            del self._newest[next(iter(self._newest))]

    def _newest_of(self, label: str) -> Revision | None:
        if label not in self._versions:
            return None
        newest = self._newest.get(label)
        return newest if newest is not None else self._journal.head(label)

    def _enforce(self, label: str, path: str) -> None:
        self.paths[label] = path
        self._labels[path] = label
        self._taken[clash_key(label)] = label

    def _may_enforce(self, label: str, path: str, reading: Text) -> bool:
        """Whether this file may say the label: the first file in force keeps it, for as long as it is there."""
        key = clash_key(label)
        holder = key if key in self.paths else self._taken.get(key)
        if holder is None or self.paths[holder] == path:
            return True
        other = self.paths[holder]
        if self._folder.is_absent(other):
            if holder == label:  # the same label in another spelling: the file was renamed
                self._labels.pop(other, None)
                self._signatures.pop(other, None)
                self._unmiss(other)
                return True
            self._miss(other)
            self._later[path] = self._clock() + self._delete_grace
            return False
        self._signatures[path] = reading.signature
        self._standing_back.setdefault(clash_key(label), set()).add(path)
        self.set_problem(
            Problem(
                printable(path),
                "label_conflict",
                f"its label {label!r} is taken by {printable(other)}",
                "rename one of the two",
                label,
            )
        )
        return False

    def _wait_for_writer(self, path: str) -> None:
        looks = self._looks[path] = self._looks.get(path, 0) + 1
        self._later[path] = self._clock() + min(SETTLE_SECONDS * 2**looks, _RETRY_SECONDS)
        if looks > _PATIENCE:
            error = InvalidFile("it is being written all the time", hint="it is read as soon as its writer closes it")
            self._report(path, error)

    # --- deletions ---

    def _miss(self, path: str) -> None:
        """The file is not there. If it was in force, that is a deletion only if it stays so."""
        if path not in self._labels:
            self._signatures.pop(path, None)
            self._clear(path)
            return
        if path in self._gone:
            return
        now = self._gone[path] = self._clock()
        # Deletions are gathered until no more come, and judged together: a thousand at once are another thing than one.
        first = next(iter(self._gone.values()))
        self._deletions_due = min(now + self._delete_grace, first + _LONGEST_GATHERING)

    def _unmiss(self, path: str) -> None:
        if self._gone.pop(path, None) is not None and not self._gone:
            self._deletions_due = float("inf")

    def _decide_deletions(self, findings: Findings) -> None:
        self._deletions_due = float("inf")
        if not self.check_root():
            self._deletions_due = self._clock() + _RETRY_SECONDS
            return
        for path in list(self._gone):
            if not self._folder.is_absent(path):
                self._ready.setdefault(path, False)
                del self._gone[path]
        if not self._gone:
            return
        blocks, vanished = len(self.paths), len(self._gone)
        why = None
        if self._accepted:
            pass
        elif self._in_doubt:
            before = self._journal.folder
            since = "it was gone or replaced" if before == self._folder.root else f"another was served ({before})"
            why = f"{vanished} of {blocks} blocks are missing in the folder since {since}"
        elif safety.is_wiped(blocks, vanished):
            why = f"all {blocks} blocks vanished at once"
        elif safety.is_mass_deletion(blocks, vanished):
            why = f"{vanished} of {blocks} blocks vanished at once"
        if why is not None:
            self._halt(why, "put the files back, or run 'blocksd resume --accept-deletions'")
            # Hints and sweeps tell when files are back; this is for those that neither sees, and need not be soon.
            self._deletions_due = self._clock() + _RETRY_SECONDS * max(1, vanished // 100)
            return
        for path in sorted(self._gone):
            self._delete(path, findings)
        self._gone.clear()

    def _halt(self, message: str, hint: str) -> None:
        self.set_problem(Problem(FOLDER, "halted", f"{message}: deletions are held back", hint))

    def _end_doubt(self) -> None:
        """Nothing is missing any more, or what is missing is meant to be."""
        if not self._is_gone:
            self._accepted = self._in_doubt = False
            self.remove_problem(FOLDER)
            if self._journal.folder != self._folder.root:
                self._journal.folder = self._folder.root

    # --- sweeping ---

    def _look_at_trees(self) -> None:
        trees, self._trees = self._trees, set()
        if "" in trees or len(trees) > 16:
            self.hint_all()
            return
        for tree in trees:
            below = f"{tree}/"
            for path in [path for path in self._signatures if path.startswith(below)]:
                self._ready.setdefault(path, False)
            for found in self._folder.sweep(tree):
                self._compare(found, set(), set(), set())
            if _is_private_folder(tree):
                agent = tree.partition("/")[2]
                is_there = os.path.isdir(os.path.join(self._folder.root, tree))
                agents = self.attachments.folders
                self._set_folders(agents | {agent} if is_there else agents - {agent})

    def _sweeping(self) -> Iterator[list[Found]]:
        """Compare the whole folder with what is known of it, a slice at a time."""
        unseen = set(self._signatures)
        unlisted: set[str] = set()
        directories: set[str] = set()
        for found in self._folder.sweep():
            self._compare(found, unseen, directories, unlisted)
            yield found
        for directory in unlisted:
            below = f"{directory}/" if directory else ""
            unseen = {path for path in unseen if not path.startswith(below)}
        for problem in list(self.problems.values()):
            if problem.code == "unreadable_directory" and problem.subject.rstrip("/") not in unlisted:
                self.remove_problem(problem.subject)
        for path in unseen:
            self._ready.setdefault(path, False)
        if not unlisted and not self._in_doubt and self.check_root():
            self._set_folders(path.partition("/")[2] for path in directories if _is_private_folder(path))
        self.directories = directories
        self.sweeps += 1

    def _compare(self, found: Sequence[Found], unseen: set[str], directories: set[str], unlisted: set[str]) -> None:
        signatures, ready = self._signatures, self._ready
        for path, kind, signature, error in found:
            if kind == "file":
                unseen.discard(path)
                if signatures.get(path) != signature:
                    ready.setdefault(path, False)
            elif kind == "directory":
                directories.add(path)
            elif kind == "unreadable":
                assert error is not None
                unlisted.add(path)
                problem = problem_of(f"{path}/", unreadable_directory(error))
                self.set_problem(replace(problem, code="unreadable_directory"))
            else:
                unseen.discard(path)
                ready.setdefault(path, False)

    def _set_folders(self, names: Iterable[str]) -> None:
        # A private folder whose blocks are still in force is still there, as far as anyone is told.
        agents = self.attachments.owners
        for name in names:
            try:
                agents.add(parse_agent(name))
            except InvalidLabel:
                continue  # the files in it are reported, each with its own path
        if agents != self.attachments.folders:
            self._moved |= self.attachments.set_folders(agents)
            self._names_noted = False

    # --- problems ---

    def _report(self, path: str, error: BlocksdError) -> None:
        self.set_problem(problem_of(path, error, label=self._labels.get(path)))

    def set_problem(self, problem: Problem) -> None:
        """Something is wrong; saying the same again changes nothing."""
        known = self.problems.get(problem.subject)
        if not problem.same_as(known):
            since = known.since if known is not None else timestamp(self._wall())
            self.problems[problem.subject] = replace(problem, since=since)
            self.problem_changes += 1

    def _clear(self, path: str) -> None:
        self.remove_problem(printable(path))

    def remove_problem(self, subject: str) -> None:
        """It is right again."""
        if self.problems.pop(subject, None) is not None:
            self.problem_changes += 1

    def _note_refused_names(self) -> None:
        """A block that some agents cannot have, since they see another under its name: a problem under its label."""
        self._names_noted = True
        refused = self.attachments.refused
        for problem in [p for p in self.problems.values() if p.code == "name_conflict" and p.subject not in refused]:
            self.remove_problem(problem.subject)
        for label, agents in refused.items():
            name = name_for_agent(label)
            some = ", ".join(sorted(agents)[:5]) + (", …" if len(agents) > 5 else "")
            message = f"not attached to {some}: another block is attached there as {name!r} (unique constraint)"
            hint = "rename one of the two blocks, or take the agent out of 'agents'"
            self.set_problem(Problem(label, "name_conflict", message, hint, label, warning=True))


def _is_private_folder(path: str) -> bool:
    return path.startswith(f"{PRIVATE}/") and path.count("/") == 1


def _private_first(path: str) -> tuple[bool, str]:
    return (not path.startswith(f"{PRIVATE}/"), path)


def _unusable_name(error: BlocksdError) -> InvalidFile:
    return InvalidFile(error.message, **error.facts, hint="rename the file")
