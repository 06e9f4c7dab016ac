"""What must be so of a journal, a folder and a mirror, said again from the promises and not from the code."""

from __future__ import annotations

import math
import os
import re
import stat
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from blocksd.files.document import decode, split
from blocksd.journal.intents import Intents
from blocksd.mirror.repair import differing, differing_properties
from blocksd.model.label import TEMPORARY, is_pattern, is_properties, label_of_path
from blocksd.model.problem import JOURNAL, KEPT
from blocksd.model.revision import FILE, MERGE, OPERATOR
from blocksd.requests.inbox import ATTEMPTS
from machine.asked import EDITS, WHOLE, after, block_of, made_of
from machine.broken import checks, must
from rig import assert_level

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from blocksd.model.block import Block
    from blocksd.model.revision import Revision
    from machine.asked import Asked
    from rig import Rig

    Blocks = dict[str, Block]  # those in force, by label

TOKEN_CHARS = 5
"""How long the lines are that people and clients add; no line is part of another, and none is there twice."""

_TOKEN = re.compile(r"\b[tp][0-9]{4}\b")

SURELY_RECENT = 4.0
"""Seconds within which a save surely counts as one that may have been made of an older text."""

_LOOKED_AT, _NAMED, _PUT_BACK = 32, 8, 100
"""Among how many of the last versions a save looks for those by others, how many of these it names, and among how many
for one that it puts back."""

_ADDITIVE = ("append", "insert", "batch", "update_agent")

OF_PROPERTIES = (b"name", b"description", b"agent_type", b"system", b"tags", b"metadata", b" ", b"{")
"""How the lines of an `agent.yaml` begin that a request may change, as people write them here."""


@dataclass(frozen=True, slots=True)
class Save:
    """A text that a person put into a file: when, and, if all they did was add lines, what they had read before."""

    data: bytes
    at: float
    mode: int
    read: bytes | None = None


@dataclass(slots=True)
class Memory:
    """All that people and clients have done, as they remember it."""

    saves: dict[str, list[Save]] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    asked: dict[str, Asked] = field(default_factory=dict)
    last: dict[str, Save | None] = field(default_factory=dict)  # path → what a person last made of it; None: gone
    has_crashed: bool = False
    clock: dict[int, float] = field(default_factory=dict)  # seq → when, at the latest, its revision was made

    def note_death(self) -> None:
        """The daemon died: maybe while it did what was asked."""
        self.has_crashed = True
        # The next one knows the times of day, and here they do not go on as the clock does: all was just now.
        self.clock = dict.fromkeys(self.clock, math.nan)
        for asked in self.asked.values():
            asked.deaths += not asked.is_answered


def path_of(label: str) -> str:
    return label if is_properties(label) else f"{label}.md"


def is_read(path: str) -> bool:
    """Return True of a file that the daemon reads: of a block, or of an agent's properties."""
    return is_properties(path) or (path.endswith(".md") and not os.path.basename(path).startswith("."))


def lines(value: str) -> Counter[str]:
    """The lines of a value; of one that holds properties, what people and clients have put in them."""
    return Counter(_TOKEN.findall(value) if value.startswith("{") else value.split("\n"))


@checks("rest")
def check(rig: Rig, raw: Any, memory: Memory) -> None:
    """All of it, of a daemon that has come to rest."""
    revisions = rig.journal.since(0, 1_000_000)
    states = check_journal(revisions, memory)
    known = rig.core.state.attachments.known | {OPERATOR}
    check_requests(revisions, states, memory, known)
    check_people(rig, revisions, memory)
    check_folder(rig, revisions, memory)
    must("rest", not rig.core.state.unmerged)
    must("nothing prepared", Intents(rig.journal).prepared() is None)
    numbers = [entry_id.partition("-") for entry_id, _ in raw.xrange(f"{rig.namespace}:changes")]
    announced = [int(seq) for seq, _, part in numbers if part == "0"]
    must("stream", announced == list(range(rig.journal.seq - len(announced) + 1, rig.journal.seq + 1)))
    for key in list(raw.scan_iter(f"{rig.namespace}:inbox:*")):
        actor = key.rpartition(":")[2]
        must("inbox", actor not in known or raw.xlen(key) == 0)
        raw.delete(key)
        for asked in memory.asked.values():
            asked.may_be_lost |= asked.actor == actor
    for key in list(raw.scan_iter(f"{rig.namespace}:reply:*")):
        raw.delete(key)
    must("mirror", raw.exists(f"{rig.namespace}:meta"), "there is none")
    checks("mirror")(assert_level)(rig, raw)
    heads = [head for head in map(rig.journal.head, rig.core.state.paths) if head is not None]
    must("mirror", differing(rig.mirror, [one for one in heads if not is_properties(one.label)]) == [])
    must("mirror", differing_properties(rig.mirror, [one for one in heads if is_properties(one.label)]) == [])


# --- the journal ---


@checks("numbers")
def check_journal(revisions: list[Revision], memory: Memory) -> list[Blocks]:
    """Every revision follows from the one before it and from something that somebody did.

    What was in force at each seq, from 0 on.
    """
    unused = {path: list(saves) for path, saves in memory.saves.items()}
    versions: dict[str, int] = {}
    states: list[Blocks] = [{}]
    ids: dict[str, str] = {}  # of the blocks in force, by label
    history: dict[str, list[Revision]] = {}
    shown: dict[str, list[Revision]] = {}  # what history shows: with what a block was before, under other labels
    own: dict[str, list[Revision]] = {}  # the same without what had the label before, and was given another
    for number, one in enumerate(revisions, 1):
        must("numbers", one.seq == number)
        blocks = states[-1]
        was = blocks.get(one.label)
        must("numbers", (was is not None) == (one.kind in ("updated", "deleted")))
        labels = {one.label, one.renamed_from or one.label}
        must("numbers", one.version == max(versions.get(label, 0) for label in labels) + 1, one, "after", versions)
        if one.fields == ("agents",) and one.block == was:
            pass  # who is attached changed, for whatever reason
        elif one.author in (FILE, MERGE) and one.request_id is not None:
            is_merged = number < len(revisions) and revisions[number].request_id == one.request_id
            _check_saved_elsewhere(one, memory.asked[one.request_id], shown.get(one.label, []), is_merged=is_merged)
        elif one.author == FILE:
            _check_save(one, blocks.get(one.renamed_from or ""), unused, memory)
            _check_reverts(one, shown.get(one.renamed_from or one.label, []))
        elif one.author == MERGE:
            _check_merge(one, shown.get(one.label, []))
        else:
            origin = blocks.get(one.renamed_from or "")
            kept = [*history.get(one.label, []), *shown.get(one.label, [])]  # what is shown goes before
            _check_request(one, was, origin, {old.version: old for old in kept}, own.get(one.label, []), memory)
        versions[one.label] = one.version
        had = ids.pop(one.renamed_from or one.label, None)
        must("ids", had in (None, one.id), one.label, "has another id than before")
        must("ids", one.id not in ids.values(), one.label, "has the id of another block")
        if one.block is not None:
            ids[one.label] = one.id
        if one.renamed_from is not None:
            shown[one.label], own[one.label] = list(shown[one.renamed_from]), own.pop(one.renamed_from)
        gone = (one.label, one.renamed_from)
        blocks = {label: block for label, block in blocks.items() if label not in gone}
        states.append(blocks if one.block is None else {**blocks, one.label: one.block})
        for rows in (history, shown, own):
            rows.setdefault(one.label, []).append(one)
    for label, found in history.items():
        _check_stale_saves(found, memory.saves.get(path_of(label), []), memory)
    return states


@checks("saved")
def _check_save(one: Revision, origin: Block | None, unused: dict[str, list[Save]], memory: Memory) -> None:
    """A save is found once; who moved a file has changed the name of its block, and nothing else."""
    if one.block is None:
        must("removed", one.label in memory.removed, "nobody removed", one.label)
        return
    saves = unused.get(path_of(one.label), [])
    save = next((save for save in saves if block_of(one.label, save.data) == one.block), None)
    if one.renamed_from is not None:
        assert origin is not None
        must("moved", one.renamed_from in memory.removed, "nobody moved", one)
        must("moved", one.block == _called(one.label, origin), one, "was", origin)
        if save is None:  # it had a problem, and says something else once that is over
            must(
                "moved", any(block_of(one.label, spoiled.data) is None for spoiled in memory.saves[path_of(one.label)])
            )
            return
    must("saved", save is not None, "nobody saved", one)
    assert save is not None
    saves.remove(save)


def is_of_a_person(one: Revision) -> bool:
    """Return True of a save in the folder: what comes from another host the daemon writes."""
    return one.author == FILE and one.request_id is None


@checks("saved elsewhere")
def _check_saved_elsewhere(one: Revision, asked: Asked, history: list[Revision], *, is_merged: bool) -> None:
    """A file that was saved on another host is in force as it was sent, or is a version, and the next has both texts."""
    must("saved elsewhere", asked.op == "save", asked, "made", one)
    assert one.block is not None
    if one.author == FILE:
        must("saved elsewhere", one.block == block_of(one.label, asked.args["file"].encode()), asked, "made", one)
        if one.stale_base is not None or not is_merged:  # it may be made of no version that is known
            _check_reverts(one, history)
        return
    saved, before = history[-1], history[-2]
    must("saved elsewhere", (saved.author, saved.request_id) == (FILE, one.request_id), one, "merges what nobody saved")
    version = saved.stale_base if saved.stale_base is not None else asked.args["version"]
    base = next((old for old in reversed(history[:-1]) if old.version == version), None)
    had = lines(base.block.value) if base is not None and base.block is not None else Counter()
    for side in (saved, before):
        assert side.block is not None
        lost = lines(side.block.value) - had - lines(one.block.value)
        must("saved elsewhere", not any(map(is_token, lost)), "a merge lost", lost)


@checks("merged")
def _check_merge(one: Revision, history: list[Revision]) -> None:
    saved = history[-1]
    must("merged", is_of_a_person(saved))
    assert saved.stale_base is not None
    theirs = next(old for old in reversed(history) if old.stale_base is None)
    base = next(old for old in history if old.version == saved.stale_base)
    while base.version > theirs.version:  # a stale save, too, and all it added is to be merged with the rest
        base = next(old for old in history if old.version == base.stale_base)
    assert base.block is not None
    assert one.block is not None
    assert theirs.block is not None
    assert saved.block is not None
    for side in (theirs, saved):
        assert side.block is not None
        lost = lines(side.block.value) - lines(base.block.value) - lines(one.block.value)
        must("merged", not any(is_token(line) for line in lost), "a merge lost", lost)


def is_token(line: str) -> bool:
    return len(line) == TOKEN_CHARS and line[0] in "tp" and line[1:].isdigit()


@checks("asked")
def _check_request(
    one: Revision,
    was: Block | None,
    origin: Block | None,
    versions: Mapping[int, Revision],
    own: Sequence[Revision],
    memory: Memory,
) -> None:
    """`versions` are those that can be restored, `own` those that undo and redo may go to."""
    must("asked", one.request_id is not None, "nobody asked for", one)
    assert one.request_id is not None
    asked = memory.asked[one.request_id]
    must("asked", asked.actor == one.author)
    must("asked", one.author == OPERATOR or not is_properties(one.label), "an agent changed its properties:", one)
    if asked.op in WHOLE:
        return  # looked at as a whole, below
    if asked.op == "rename":
        must("asked", one.kind == "renamed")
        assert origin is not None
        assert one.block is not None
        must("asked", one.block.value == origin.value)
        return
    must("asked", one.label in asked.labels)
    if asked.op == "delete":
        must("asked", one.kind == "deleted")
        return
    if one.block is None:  # as it was at the version that undo or redo went to
        assert asked.op in ("undo", "redo")
        assert was is not None
        assert any(old.block is None for old in own), f"it was never deleted: {one}"
        return
    if asked.op == "create":
        must("asked", was is None)
        must("asked", one.block.value == asked.args["value"])
    elif asked.op == "merge":
        assert was is not None
        _check_merge_back(asked, one.block, was, versions)
    elif asked.op in ("undo", "redo", "restore"):
        wanted = [versions[asked.args["version"]]] if asked.op == "restore" else own
        must("asked", one.block in [_called(one.label, old.block) for old in wanted if old.block is not None])
    else:
        assert was is not None
        if asked.op in ("attach", "detach"):
            (agent,) = asked.args["agents"]
            rest = tuple(entry for entry in was.agents if entry != agent)
            must("asked", one.block == replace(was, agents=(*rest, agent) if asked.op == "attach" else rest))
        else:
            _check_edit(asked, one, was, versions)


@checks("merged back")
def _check_merge_back(asked: Asked, block: Block, was: Block, versions: Mapping[int, Revision]) -> None:
    """All lines that were there still are, and those that came are of the version that was named, or of one that a save
    took away.
    """
    named = asked.args.get("version")
    taken = {version for one in versions.values() for version in one.reverts} if named is None else {named}
    there, came = lines(was.value), lines(block.value) - lines(was.value)
    had = [lines(one.block.value) for version in taken if (one := versions.get(version)) is not None and one.block]
    must("merged back", all(any(line in some for some in had) for line in came if is_token(line)), asked, "made", block)
    if named is None:
        must("merged back", not [line for line in there - lines(block.value) if is_token(line)], asked, "made", block)


def _called(label: str, block: Block) -> Block:
    """A block under another label; a description that comes with a name is that of the other name then."""
    before, now = (block_of(name, b"") for name in (block.label, label))
    assert before is not None
    assert now is not None
    description = now.description if block.description == before.description else block.description
    return replace(block, label=label, description=description, _facts="")


@checks("edited")
def _check_edit(asked: Asked, one: Revision, was: Block, versions: Mapping[int, Revision]) -> None:
    """A value is what the edit makes of the one before; or both are in it, if the client had read another."""
    must("edited", asked.op in EDITS)
    assert one.block is not None
    value = one.block.value
    must("edited", one.block == replace(was, value=value))
    is_of_this = asked.expect in (None, one.version - 1)
    if is_of_this or asked.on_conflict != "merge":
        must("edited", is_of_this or asked.on_conflict == "overwrite")
        must("edited", value == after(asked, was.value), asked, "made", value, "of", was.value)
        return
    assert asked.expect is not None
    base = versions[asked.expect].block
    assert base is not None
    given = after(asked, base.value)
    assert given is not None
    for side in (given, was.value):
        must("edited", not lines(side) - lines(base.value) - lines(value), asked, "made", value, "of", was.value)


@checks("reverts")
def _check_reverts(one: Revision, history: Sequence[Revision]) -> None:
    """A save that stands names those of the last versions by others whose lines it takes away, and no other.

    `history` is what the block was before, under other labels, too. A save to be merged names none, and is made of no
    text from before a line that it has.
    """
    said = lines(one.block.value) if one.block is not None else Counter()
    if one.stale_base is not None:
        must("reverts", not one.reverts)
        read = [_brought(line, history)[0] for line in said if line.startswith("t") and is_token(line)]
        must("stale base", all(version <= one.stale_base for version in read), one, "is not made of", one.stale_base)
        return
    by_others = [old.version for old in history[-_LOOKED_AT:] if not is_of_a_person(old)][-_NAMED:]
    must("reverts", set(one.reverts) <= set(by_others), one, "names what is no version of others")
    before = history[-1] if history else None
    if one.kind == "created" or one.block is None or before is None or before.block is None:
        return  # a new block takes nothing from the one that had its label, and was moved
    lost = [line for line in lines(before.block.value) - said if line.startswith("t") and is_token(line)]
    takers = [_brought(line, history)[-1] for line in lost]
    must("reverts", set(takers) & set(by_others) <= set(one.reverts), one, "does not say that it took", lost, "away")


def _brought(line: str, history: Sequence[Revision]) -> list[int]:
    """The versions that brought a line on request, the oldest first; 0 if none did."""
    found = [0]
    there = False
    for one in history:
        was, there = there, one.block is not None and line in lines(one.block.value)
        if there and not was and one.author != MERGE and not is_of_a_person(one):
            found.append(one.version)
    return found[1:] or found


@checks("stale save")
def _check_stale_saves(history: list[Revision], saves: list[Save], memory: Memory) -> None:
    """Who only added lines to a text that only requests added lines to since has taken none of those away.

    But who puts an earlier text back. What a merge has brought back, no other merge does.
    """
    _check_merges(history, memory.clock)
    for place, one in enumerate(history):
        if not is_of_a_person(one) or one.block is None or place == 0:
            continue
        before = history[place - 1]
        if before.block is None or one.kind in ("created", "renamed"):
            continue
        # Before it came here, the label was another block's.
        came = max((at for at in range(place) if history[at].kind == "renamed"), default=0)
        if any(old.block == one.block for old in history[max(came, place - _PUT_BACK) : place]):
            must("put back", one.stale_base is None or one.block == before.block, "put back, and overruled:", one)
            continue
        lost = [line for line in lines(before.block.value) - lines(one.block.value) if is_token(line)]
        meant = [save for save in saves if block_of(one.label, save.data) == one.block]
        if not lost or not meant or not all(_must_merge(history[:place], one, save, memory) for save in meant):
            continue
        merged = next((later for later in history[place + 1 :] if not is_of_a_person(later) or _stands(later)), None)
        must("stale save", merged is not None, "a stale save took", lost, "away:", one)
        assert merged is not None
        if is_of_a_person(merged):
            continue  # before it could be merged, the file was removed, or an earlier text was put back
        must("stale save", merged.author == MERGE, "a stale save took", lost, "away:", one)
        assert merged.block is not None
        must("stale save", set(lost) <= set(lines(merged.block.value)), "a merge did not bring", lost, "back:", merged)


def _stands(one: Revision) -> bool:
    """Return True of a save or a removal that is not to be merged."""
    return one.stale_base is None and one.fields != ("agents",)


LONGEST_AT_ONCE = 3.5
"""Seconds in which a save may be of a text from before a merge, and a moment more."""


@checks("came back")
def _check_merges(history: Sequence[Revision], clock: Mapping[int, float]) -> None:
    """A line that was taken out comes back by a merge once, unless it was written anew, or at once again."""
    returned: dict[str, float] = {}
    there: set[str] = set()
    for one in history:
        was, there = there, set(lines(one.block.value)) if one.block is not None else set()
        new = {line for line in there - was if is_token(line)}
        if one.author == MERGE:
            now = clock.get(one.seq, math.nan)  # that of a round that was killed is not known
            again = {line for line in new & returned.keys() if now - returned[line] > LONGEST_AT_ONCE}
            must("came back", not again, again, "came back again:", one)
            returned.update(dict.fromkeys(new, now))
        else:
            for line in new & returned.keys():
                del returned[line]


def _must_merge(history: list[Revision], saved: Revision, save: Save, memory: Memory) -> bool:
    """Whether a save surely was of a text to which nothing but lines were added on request since, and just now."""
    if save.read is None:
        return False
    for one in reversed(history):
        if one.block is None or (one.author == FILE and one.stale_base is not None) or one.author == MERGE:
            return False
        # A rest may take a minute of the daemon's clock, and no time of the day.
        waited = memory.clock.get(saved.seq, 0.0) - memory.clock.get(one.seq, math.inf)
        passed = save.at - datetime.fromisoformat(one.at).timestamp()
        is_recent = passed < SURELY_RECENT and not waited >= SURELY_RECENT  # what was waited may be unknown
        if is_of_a_person(one) or not is_recent:
            return one.block == block_of(one.label, save.read) and is_of_a_person(one)
        if one.request_id is None or memory.asked[one.request_id].op not in _ADDITIVE:
            return False
    return False


# --- requests ---


@checks("replied")
def check_requests(revisions: list[Revision], states: Sequence[Blocks], memory: Memory, known: frozenset[str]) -> None:
    """What was said to be done was done once, and what was refused was not done. Only who is `known` is listened to."""
    by_request: dict[str, list[Revision]] = {}
    for one in revisions:
        if one.request_id is not None:
            by_request.setdefault(one.request_id, []).append(one)
    for asked in memory.asked.values():
        if not asked.is_answered:
            must("replied", asked.actor not in known, "no reply to", asked)
            continue
        must("one outcome", len(set(asked.replies)) == 1, "two outcomes of", asked)
        done = by_request.get(asked.id, [])
        if not asked.is_accepted:
            code = asked.reply["error"]["code"]
            is_suspect = asked.reply["error"].get("error") == "Unfinished" and asked.deaths >= ATTEMPTS
            must("no unforeseen error", code != "internal_error" or is_suspect, asked)
            must("refusal", not done, "refused, and done:", asked)
            must("replied", asked.reply["error"]["code"] not in ("error", "journal"))
            _check_refusal(asked, states)
            continue
        must("replied", asked.reply["id"] == asked.id)
        if asked.op in WHOLE:
            _check_several(asked, done, states)
            continue
        if asked.op == "save":
            must("acknowledged", [one.author for one in done] in (["file"], ["file", "merge"]), asked, "made", done)
            done = done[-1:]
        must("done once", len(done) <= 1, "done twice:", asked)
        if asked.op in (*EDITS, "create", "delete"):
            must("acknowledged", len(done) == 1, "acknowledged, and not done:", asked)
        for one in done:
            must("replied", (one.seq, one.version) == (asked.reply["seq"], asked.reply["version"]))


@checks("several")
def _check_several(asked: Asked, done: Sequence[Revision], states: Sequence[Blocks]) -> None:
    """Each of the blocks became what it was to become of what was there, and no other did."""
    made = sorted(((one.label, one.block) for one in done), key=lambda one: one[0])
    before = [states[done[0].seq - 1]] if done else states[asked.since : asked.until + 1]
    wanted = [made_of(asked, blocks) for blocks in before]
    must("several", made in wanted, asked, "made", made, ", not", wanted[0])
    if asked.op == "batch" and all(part["op"] == "append" for part in asked.args["requests"]):
        must("several", [one["seq"] for one in asked.reply["results"]] == [one.seq for one in done])


@checks("refusal")
def _check_refusal(asked: Asked, states: Sequence[Blocks]) -> None:
    """An edit that could not be made could not be made of what was there at some moment since it was asked for."""
    if asked.op in EDITS and asked.expect is None and "argument" in asked.reply["error"]:
        found = [
            blocks[label] for blocks in states[asked.since : asked.until + 1] for label in asked.labels & blocks.keys()
        ]
        must("refusal", any(after(asked, block.value) is None for block in found), "it could have been done:", asked)


# --- people ---


@checks("people")
def check_people(rig: Rig, revisions: list[Revision], memory: Memory) -> None:
    """What a person last made of a file is in it, or in the history; what they removed came back only if asked for."""
    problems = rig.core.problems
    for path, save in memory.last.items():
        label = label_of_path(path)
        full = rig.root / path
        of_label = [one for one in revisions if one.label == label]
        if save is None:
            if full.exists():
                must("removed", of_label, path, "came from nowhere")
                must("removed", not is_of_a_person(of_label[-1]), path, "was removed by a person")
            continue
        block = block_of(label, save.data)
        if block is None and _is_kept_beside(full, save.data):
            continue  # an operator has had the block restored: the text that was in the way lies beside it
        if path in problems and not problems[path].warning:
            must("untouched", full.read_bytes() == save.data, path, "has a problem and was touched")
        else:
            must("people", block is not None, path, "is no block, and nothing says so")
            must(
                "people",
                any(one.block == block for one in of_label),
                "what was saved as",
                path,
                "is nowhere:",
                save.data,
            )
    memory.last.clear()


def _is_kept_beside(full: Path, data: bytes) -> bool:
    beside = full.parent.iterdir() if full.parent.is_dir() else ()
    return any(other != full and other.is_file() and other.read_bytes() == data for other in beside)


# --- the folder ---


@checks("in force")
def check_folder(rig: Rig, revisions: list[Revision], memory: Memory) -> None:
    """Every file is in force or a problem; what is in force is what the journal says; nothing else lies about."""
    state, problems = rig.core.state, rig.core.problems
    # A late save, maybe, that cannot be put back: it is a problem until a person removes it.
    kept = {os.path.basename(one.staged.aside) for one in rig.core._intents.kept} if KEPT in problems else set()
    present = set()
    for directory, _, names in os.walk(rig.root):
        for name in names:
            if name in kept:
                continue
            must("litter", not name.startswith(TEMPORARY), "left:", name)
            path = os.path.relpath(os.path.join(directory, name), rig.root)
            if is_read(path):
                present.add(path)
    for path in present:
        must("in force", path in state.labels or path in problems, path, "is neither in force nor a problem")
    for head in rig.journal.heads():
        must("in force", state.paths.get(head.label) == head.path)
    check_agents(rig)
    newest = {one.label: one for one in revisions}
    moved = {problem.label for subject, problem in problems.items() if subject in present and not problem.warning}
    for label, path in state.paths.items():
        if path not in present and path not in problems and label in moved:
            continue  # its file has a problem under another name
        must("in force", path in present or path in problems, path, "is in force, and not there")
        if path in problems and not problems[path].warning:
            continue
        data = (rig.root / path).read_bytes()
        must("in force", block_of(label, data) == newest[label].block, path, "says another block")
        counted = Counter(line for line in data.decode().splitlines() if is_token(line))
        must("doubled", all(count == 1 for count in counted.values()), "doubled in", path, ":", counted)
        _check_style(rig, label, data, [one for one in revisions if one.label == label], memory)


@checks("agents")
def check_agents(rig: Rig) -> None:
    """Who is known has a folder, or is named by a block."""
    folders = set(private_folders(rig))
    named = {entry for head in rig.journal.heads() if head.path is not None for entry in head.entries}
    known = rig.core.state.attachments.known
    must(
        "agents",
        known == folders | {entry for entry in named if not is_pattern(entry)},
        known,
        ":",
        folders,
        ",",
        named,
    )


def private_folders(rig: Rig) -> list[str]:
    """The agents that have a folder."""
    place = rig.root / "agents"
    return [entry.name for entry in place.iterdir() if entry.is_dir()] if place.is_dir() else []


def private_files(rig: Rig) -> set[str]:
    """The files below private folders, by path."""
    place = rig.root / "agents"
    return {str(path.relative_to(rig.root)) for path in place.rglob("*") if path.is_file()}


def agent_parts(asked: Asked) -> list[dict[str, Any]]:
    """What a request says of agents that are to be, or no longer to be: `op` and `args`."""
    parts = asked.args["requests"] if asked.op == "batch" else [{"op": asked.op, "args": asked.args}]
    return [part for part in parts if part["op"] in ("create_agent", "delete_agent")]


@checks("folders")
def check_folders(
    rig: Rig,
    before: Sequence[str],
    files: set[str],
    seq: int,
    done: Sequence[Asked],
    memory: Memory,
    *,
    can_remove: bool,
) -> None:
    """Right after a round: an agent that was made in it has a folder; one that was deleted has none, or what is not ours
    in it; and no other has one, but for a block or a file that was put in it.

    `before` are the folders that were there before it, and `files` those in them, when the journal was at `seq`; `done` is
    what was asked of agents and done in it, in order. A file that a person removed in it was there when it was decided that
    the folder stays. Unless it `can_remove` them, because a call for that failed, folders may be left.
    """
    folders = private_folders(rig)
    if len(done) > 1 and any(asked.may_be_lost for asked in done):
        return  # clients have repeated them, in an order that this does not know: the last one stands
    last = {part["args"]["agent"]: part["op"] for asked in done for part in agent_parts(asked)}
    deleted = {agent for agent, op in last.items() if op == "delete_agent"}
    must("folders", set(before) - set(folders) <= deleted, "a folder is gone, and nobody asked for it")
    must("folders", last.keys() - deleted <= set(folders), "no folder was made for one of", last)
    if not can_remove:
        return  # no promise: a directory that cannot be removed now stays, as if another program had put it there
    ours = {path_of(one.label) for one in rig.journal.since(seq, 1_000_000) if one.kind == "deleted"}
    left_or_removed = private_files(rig) | {path for path in files - ours if memory.last.get(path, path) is None}
    for agent in deleted:
        left = [path for path in left_or_removed if path.startswith(f"agents/{agent}/")]
        must("folders", agent not in folders or left, "the folder of", agent, "is still there")
        named = any(agent in head.entries for head in rig.journal.heads() if head.path is not None)
        is_known = agent in rig.core.state.attachments.known
        must("folders", is_known == named or left, agent, "is still known")
    if memory.has_crashed or JOURNAL in rig.core.problems:
        return  # it may be of a request that a crash has interrupted: it is done again, or was refused since
    used = [*memory.saves, *(path_of(one.label) for one in rig.journal.since(seq, 1_000_000))]
    for agent in set(folders) - set(before) - last.keys():
        must("folders", any(path.startswith(f"agents/{agent}/") for path in used), "nobody asked for", agent)


@checks("style")
def _check_style(rig: Rig, label: str, data: bytes, history: list[Revision], memory: Memory) -> None:
    """What people wrote around a value stays as they wrote it, for as long as only the value is changed."""
    for one, before in zip(reversed(history), [*reversed(history[:-1]), None], strict=True):
        was = before.block if before is not None else None
        if one.author in (FILE, MERGE) and one.request_id is not None:
            return  # the file is that which was sent
        if one.author == FILE and one.block != was:
            break
        if one.block is None or was is None or one.block.changed_fields(was) not in ((), ("value",)):
            return
    else:
        return
    path = path_of(label)
    saved, status = memory.saves[path][-1], (rig.root / path).stat()
    if block_of(label, saved.data) is None:
        return  # it was repaired: the file is that of the version that was restored
    must("style", stat.S_IMODE(status.st_mode) == saved.mode, path, "has another mode")
    if is_properties(label):
        kept, rest = (
            [line for line in text.splitlines() if line and not line.startswith(OF_PROPERTIES)]
            for text in (saved.data, data)
        )
        must("style", kept == rest, "besides its properties", path, "said", kept, "and says", rest)
        return
    was_saved, document = split(decode(saved.data)), split(decode(data))
    for part in ("opening", "matter", "closing", "newline"):
        before, now = getattr(was_saved, part), getattr(document, part)
        must("style", before == now, "the", part, "of", path, "was", before, "and is", now)
