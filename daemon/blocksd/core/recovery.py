"""Finishes, or takes back, what a crash has interrupted: each request by what its own files tell."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from blocksd.errors import Misconfigured, ProblemFile, Unavailable, Undecided
from blocksd.model.label import path_of_label, repaired_path

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from blocksd.files.file_edit import Staged
    from blocksd.files.writer import LeftFile, Writer
    from blocksd.journal.intents import Intents, Key, Prepared
    from blocksd.model.revision import Revision


class State(Enum):
    """How far an edit of a file came."""

    OUT = auto()
    """It was not put in."""
    IN = auto()
    """It was put in, whatever was saved over it since."""
    SAVED_LATE = auto()
    """It was put in, and a program that had the displaced file open has saved to that since."""
    DISPLACED = auto()
    """It was put in, in the place of another text than the one that was read: nothing was acknowledged yet."""


def state_of(one: Staged, place: LeftFile | None, aside: LeftFile | None, *, is_same_boot: bool) -> State:
    """Return how far an edit came, by what is in its place and what lies beside it.

    The inodes tell, since a power cut may have left any text in a file that its writer did not sync: the new text is
    synced before it is put in, what it displaces may not be. `aside` is a random name that only we use, and an inode
    cannot be given to another file while a name has it. So of what is aside:

    1. the inode of the new text: it was not put in. No other file can have that inode, since its name never went.
    2. the inode of the old text, or its digest: it was put in. If the machine has run since and the text is another, a
       program that had the file open has written to it. After a power cut no program has, and the text is not looked at.
       RACE: if the old file was replaced twice by saves in the moment before, its inode may have been given out again.
    3. any other: a save came between the last look and the exchange, which was not acknowledged. If the new text was
       saved over since, that may have been made of it: it stands as if it had come later, and the first save is kept.

    What is aside stays until the end of the edit is on disk. So if nothing is aside, a new file was put in: its name
    aside was on disk before it was prepared. A text that replaces another was not put in if its place has the old one, nor
    was a file removed whose place has any. Where neither name is left, or a save stands where the old text was, a
    directory may have been moved or replaced: it counts as put in, as if the save had come later.

    What was prepared before inodes were noted has lost what was aside earlier: then a file was removed unless it is there.
    """
    is_base = place is not None and (place.digest == one.base or place.inode == one.old)
    if one.base is None:
        return State.IN if aside is None else State.OUT
    if aside is None:
        is_saved = place is not None and not is_base
        return State.IN if place is None or (is_saved and (one.data is not None or one.old is None)) else State.OUT
    if one.data is not None and (aside.inode == one.new or aside.digest == one.data):
        return State.OUT
    if aside.digest == one.base:
        return State.IN
    if aside.inode == one.old:
        return State.SAVED_LATE if is_same_boot else State.IN
    is_saved_over = one.data is not None and (place is None or place.digest != one.data)
    return State.SAVED_LATE if is_saved_over else State.DISPLACED


@dataclass(slots=True)
class Group:
    """Changes prepared for requests that have a file or a block in common: all of them are made, or none."""

    revisions: list[Revision] = field(default_factory=list)
    staged: list[Staged] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    folders_gone: list[str] = field(default_factory=list)


class _Union:
    """Which things belong together (union-find)."""

    def __init__(self) -> None:
        self._above: dict[Hashable, Hashable] = {}

    def find(self, thing: Hashable) -> Hashable:
        while (above := self._above.setdefault(thing, thing)) != thing:
            self._above[thing] = thing = self._above[above]
        return thing

    def join(self, *things: Hashable) -> None:
        for thing in things[1:]:
            self._above[self.find(thing)] = self.find(things[0])


_AGENTS = ("agents",)


def groups_of(prepared: Prepared) -> list[Group]:
    """Divide what is prepared into groups that do not depend on each other.

    What changes which agents are known, or attached, is one group: one that becomes known by one request may be attached
    by another.
    """
    union = _Union()
    for label, path in prepared.paths.items():
        union.join(("label", label), ("path", path))
    for rejected in prepared.staged:  # a file is repaired only if its text is kept
        union.join(("path", rejected.path), ("path", repaired_path(rejected.path)))
    for one in prepared.revisions:
        # An id may be given to another block in the same round.
        things = [_first(one), ("id", one.id), ("path", prepared.paths.get(one.label) or path_of_label(one.label))]
        if one.request_id is not None:
            things.append(("key", (one.author, one.request_id)))
        if one.renamed_from is not None:
            things.append(("label", one.renamed_from))
        if one.attached or one.detached:
            things.append(_AGENTS)
        union.join(*things)
    for key, outcome in prepared.outcomes.items():
        labels: list[Hashable] = [("label", label) for label in _labels(json.loads(outcome))]
        union.join(("key", key), *(labels or [_AGENTS]))
    for folder in prepared.folders_gone:
        inside = [("path", one.path) for one in prepared.staged if one.path.startswith(f"{folder}/")]
        union.join(_AGENTS, ("folder", folder), *inside)
    groups: defaultdict[Hashable, Group] = defaultdict(Group)
    for revision in prepared.revisions:
        groups[union.find(_first(revision))].revisions.append(revision)
    for staged in prepared.staged:
        groups[union.find(("path", staged.path))].staged.append(staged)
    for key in prepared.outcomes:
        groups[union.find(("key", key))].keys.append(key)
    for folder in prepared.folders_gone:
        groups[union.find(("folder", folder))].folders_gone.append(folder)
    return list(groups.values())


def _first(revision: Revision) -> tuple[object, ...]:
    return ("label", revision.label)


def _labels(outcome: dict[str, Any]) -> Iterator[str]:
    for one in (outcome, *outcome.get("results", ())):
        if isinstance(label := one.get("label"), str):
            yield label


def part_of(prepared: Prepared, groups: Sequence[Group]) -> Prepared:
    """Return what is prepared for some of the groups, its revisions numbered without a gap.

    Nothing of the round was acknowledged, or all of its groups would be complete: so nobody has seen a number.
    """
    first = prepared.revisions[0].seq if prepared.revisions else 0
    seqs = sorted(one.seq for group in groups for one in group.revisions)
    numbers = {seq: first + index for index, seq in enumerate(seqs)}
    keys = {key for group in groups for key in group.keys}
    folders = {folder for group in groups for folder in group.folders_gone}
    return replace(
        prepared,
        revisions=[replace(one, seq=numbers[one.seq]) for one in prepared.revisions if one.seq in numbers],
        staged=[one for group in groups for one in group.staged],
        outcomes={key: _renumbered(text, numbers) for key, text in prepared.outcomes.items() if key in keys},
        folders_gone=[folder for folder in prepared.folders_gone if folder in folders],
    )


def _renumbered(outcome: str, numbers: dict[int, int]) -> str:
    reply = json.loads(outcome)
    for one in (reply, *reply.get("results", ())):
        if one.get("seq") in numbers:
            one["seq"] = numbers[one["seq"]]
    return json.dumps(reply)


def recover(intents: Intents, writer: Writer, *, is_patient: bool = False) -> bool:
    """Finish, or take back, what a crash, or a journal that took no more, has interrupted.

    Returns True if there was anything. If a symlink or a file has come to stand where a directory was, nothing can be told
    of the files below it, now or later: unless `is_patient`, those requests count as done, and what lies aside is kept.

    Raises:
        Misconfigured: the folder cannot be the one that was written to.
        JournalUnusable: the journal still takes no more.
        Unavailable, ProblemFile: the files cannot be read or written now; nothing was decided of their requests.
    """
    prepared = intents.prepared()
    if prepared is not None:
        _finish_or_take_back(prepared, intents, writer, is_patient=is_patient)
    give_back_kept(intents, writer)  # before a request is done on top of what it would be put back over
    remove_folders(intents, writer)
    return prepared is not None


_IN_THE_WAY = ("ELOOP", "ENOTDIR")  # something that is no directory is on the path


def _finish_or_take_back(prepared: Prepared, intents: Intents, writer: Writer, *, is_patient: bool) -> None:
    if prepared.staged and writer.is_empty:
        raise Misconfigured("the folder is empty, but files in it were being written: is it mounted?", key="folder")
    groups = groups_of(prepared)
    done: list[Group] = []
    untold: set[Staged] = set()
    for group in groups:
        try:
            if _settle(group, writer, is_same_boot=prepared.is_same_boot):
                done.append(group)
        except (Undecided, ProblemFile) as error:
            if is_patient or error.facts.get("errno") not in _IN_THE_WAY:
                raise
            untold.update(group.staged)
            done.append(group)  # it may have been acknowledged, right before the crash
    told = [one for one in prepared.staged if one not in untold]
    late = [one for one in told if _state(one, writer, prepared) is State.SAVED_LATE]
    # What was done before the crash may not be on disk, either: after the next line of the journal nobody looks again.
    writer.sync(told)
    kept = [*untold, *late]
    if len(done) == len(groups):
        intents.finish(prepared, is_durable=True, kept=kept)
    elif done:
        intents.finish(part_of(prepared, done), is_durable=True, was=prepared, kept=kept)
    else:
        intents.give_up(kept)
    for one in told:
        if one not in late:
            writer.discard(one)
    if len(done) < len(groups):
        writer.remove_made()


def give_back_kept(intents: Intents, writer: Writer) -> list[str]:
    """Put back the saves among the files that are kept aside, as far as they can be read now; return where.

    What says its old text, or the new one that was never put in, is removed. What was kept before the machine ended may
    be what a power cut has left of a text: it stays where it is, until a person removes it.
    """
    if not intents.kept:
        return []
    left, given_back = [], []
    for kept in intents.kept:
        one = kept.staged
        try:
            _, aside = writer.inspect(one)
            is_new = aside is not None and one.data is not None and one.data == aside.digest
            if aside is not None and aside.digest != one.base and not is_new and kept.boot != intents.boot_id:
                left.append(kept)
                continue
            if not is_new and writer.is_saved_late(one):
                intents.sync()
                writer.give_back_save(one)
                given_back.append(one.path)
        except (Unavailable, ProblemFile):
            left.append(kept)
        else:
            writer.discard(one)
    intents.set_kept(left)
    return given_back


def _state(one: Staged, writer: Writer, prepared: Prepared) -> State:
    return state_of(one, *writer.inspect(one), is_same_boot=prepared.is_same_boot)


def _settle(group: Group, writer: Writer, *, is_same_boot: bool) -> bool:
    """Bring the files of a group to where all say what was prepared, or none; return True if all do.

    A reply is sent once all files of its round are in and synced, perhaps before that is journaled. So a group that is not
    complete was not acknowledged.
    """
    if not group.staged:
        return True
    states = {one: state_of(one, *writer.inspect(one), is_same_boot=is_same_boot) for one in group.staged}
    put_in = [one for one, state in states.items() if state is not State.OUT]
    if not put_in:
        return False
    if State.DISPLACED not in states.values():
        for one, state in states.items():
            if state is State.OUT:
                if not writer.put_in(one):
                    break
                put_in.append(one)
        else:
            return True
        if not all(_can_be_taken_back(one, writer, is_same_boot=is_same_boot) for one in put_in):
            return True  # as if what was saved had been saved later
    for one in reversed(put_in):
        writer.take_back(one)
    return False


def _can_be_taken_back(one: Staged, writer: Writer, *, is_same_boot: bool) -> bool:
    """Return True unless the old text is lost: the power cut came before its writer had it on disk."""
    _, aside = writer.inspect(one)
    return is_same_boot or one.data is None or aside is None or aside.digest in (one.base, one.data)


def remove_folders(intents: Intents, writer: Writer) -> list[str]:
    """Remove the directories of deleted agents, but for those in which another program has put something: return those."""
    folders = intents.folders_gone()
    left = [folder for folder in folders if not writer.remove_directory(folder)]
    if folders:
        intents.forget_folders()
    return left
