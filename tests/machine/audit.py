"""What must be so of a journal, a folder and a mirror, said again from the promises and not from the code."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from blocksd.document import Parser, decode, split
from blocksd.errors import InvalidFile
from blocksd.label import TEMPORARY, label_of_path
from blocksd.revision import FILE, MERGE
from rig import assert_level

if TYPE_CHECKING:
    from blocksd.block import Block
    from blocksd.revision import Revision
    from rig import Rig

SURELY_RECENT = 4.0
"""Seconds within which a save surely counts as one that may have been made of an older text."""

_ADDITIVE = ("append", "batch")


@dataclass(frozen=True, slots=True)
class Save:
    """A text that a person put into a file: when, and, if all they did was add lines, what they had read before."""

    data: bytes
    at: float
    mode: int
    read: bytes | None = None


@dataclass(slots=True)
class Asked:
    """A request, and all the replies it got."""

    id: str
    actor: str
    op: str
    labels: set[str]  # what its name for the block may mean
    text: str
    token: str = ""
    args: dict[str, Any] = field(default_factory=dict)
    replies: list[str] = field(default_factory=list)
    may_be_lost: bool = False  # Redis has lost what it held, or there was a reply that it cannot be done now

    @property
    def is_answered(self) -> bool:
        return bool(self.replies)

    @property
    def reply(self) -> dict[str, Any]:
        reply: dict[str, Any] = json.loads(self.replies[0])
        return reply

    @property
    def is_accepted(self) -> bool:
        return self.is_answered and self.reply["ok"]


@dataclass(slots=True)
class Memory:
    """All that people and clients have done, as they remember it."""

    saves: dict[str, list[Save]] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    asked: dict[str, Asked] = field(default_factory=dict)
    last: dict[str, Save | None] = field(default_factory=dict)  # path → what a person last made of it; None: gone


def block_of(label: str, data: bytes) -> Block | None:
    """What a file says; None when it says no block."""
    try:
        return Parser().parse(data, label)[0]
    except InvalidFile:
        return None


def path_of(label: str) -> str:
    return f"{label}.md"


def lines(value: str) -> Counter[str]:
    return Counter(value.split("\n"))


def joined(value: str, *contents: str) -> str:
    return "\n".join([value, *contents] if value else contents)


def check(rig: Rig, raw: Any, memory: Memory) -> None:
    """All of it, of a daemon that has come to rest."""
    revisions = rig.journal.since(0, 1_000_000)
    check_journal(revisions, memory)
    check_requests(revisions, memory)
    check_people(rig, revisions, memory)
    check_folder(rig, revisions, memory)
    assert not rig.core.intake.stale
    assert rig.journal.prepared() is None
    numbers = [entry_id.partition("-") for entry_id, _ in raw.xrange(f"{rig.namespace}:changes")]
    announced = [int(seq) for seq, _, part in numbers if part == "0"]
    assert announced == list(range(rig.journal.seq - len(announced) + 1, rig.journal.seq + 1))
    for key in list(raw.scan_iter(f"{rig.namespace}:inbox:*")):
        assert raw.xlen(key) == 0
        raw.delete(key)
    for key in list(raw.scan_iter(f"{rig.namespace}:reply:*")):
        raw.delete(key)
    assert_level(rig, raw)
    heads = [head for head in map(rig.journal.head, rig.core.ledger.paths) if head is not None]
    assert rig.mirror.differing(heads) == []


# --- the journal ---


def check_journal(revisions: list[Revision], memory: Memory) -> None:
    """Every revision follows from the one before it and from something that somebody did."""
    unused = {path: list(saves) for path, saves in memory.saves.items()}
    versions: dict[str, int] = {}
    blocks: dict[str, Block | None] = {}
    history: dict[str, list[Revision]] = {}
    for number, one in enumerate(revisions, 1):
        assert one.seq == number
        was = blocks.get(one.label)
        assert (was is not None) == (one.kind in ("updated", "deleted"))
        labels = {one.label, one.renamed_from or one.label}
        assert one.version == max(versions.get(label, 0) for label in labels) + 1, f"{one} after {versions}"
        if one.fields == ("agents",) and one.block == was:
            pass  # who is attached changed, for whatever reason
        elif one.author == FILE:
            _check_save(one, unused, memory)
        elif one.author == MERGE:
            _check_merge(one, history.get(one.label, []))
        else:
            origin = blocks.get(one.renamed_from or "")
            _check_request(one, was, origin, history.get(one.label, []), memory)
        versions[one.label] = one.version
        if one.renamed_from is not None:
            blocks[one.renamed_from] = None
        blocks[one.label] = one.block
        history.setdefault(one.label, []).append(one)
    for label, found in history.items():
        _check_stale_saves(found, memory.saves.get(path_of(label), []), memory)


def _check_save(one: Revision, unused: dict[str, list[Save]], memory: Memory) -> None:
    """A save is found once."""
    if one.block is None:
        assert one.label in memory.removed, f"nobody removed {one.label}"
        return
    saves = unused.get(path_of(one.label), [])
    save = next((save for save in saves if block_of(one.label, save.data) == one.block), None)
    assert save is not None, f"nobody saved {one}"
    saves.remove(save)


def _check_merge(one: Revision, history: list[Revision]) -> None:
    saved = history[-1]
    assert saved.author == FILE
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
        assert not any(_is_token(line) for line in lost), f"a merge lost {lost}"


def _is_token(line: str) -> bool:
    return line[:1] in "tp" and line[1:].isdigit()


def _check_request(
    one: Revision, was: Block | None, origin: Block | None, history: list[Revision], memory: Memory
) -> None:
    assert one.request_id is not None, f"nobody asked for {one}"
    asked = memory.asked[one.request_id]
    assert asked.actor == one.author
    if asked.op == "rename":
        assert one.kind == "renamed"
        assert origin is not None
        assert one.block is not None
        assert one.block.value == origin.value
        return
    if asked.op != "batch":
        assert one.label in asked.labels
    if asked.op == "delete":
        assert one.kind == "deleted"
        return
    assert one.block is not None
    value, before = one.block.value, was.value if was is not None else ""
    if asked.op == "append":
        assert value == joined(before, asked.token)
    elif asked.op == "batch":
        assert value == joined(before, asked.args[one.label])
    elif asked.op in ("attach", "detach"):
        assert value == before
    elif asked.op == "create":
        assert value == asked.token
    elif asked.op == "update":
        given, read = asked.args["value"], asked.args["read"]
        if asked.args["on_conflict"] == "merge":
            assert not lines(given) - lines(read) - lines(value)
            assert not lines(before) - lines(read) - lines(value)
        else:
            assert value == given
    else:
        assert asked.op in ("undo", "redo", "restore")
        assert value in [old.block.value for old in history if old.block is not None]


def _check_stale_saves(history: list[Revision], saves: list[Save], memory: Memory) -> None:
    """Who only added lines to a text that only requests added lines to since has taken none of those away."""
    for place, one in enumerate(history):
        if one.author != FILE or one.block is None or place == 0:
            continue
        before = history[place - 1]
        if before.block is None:
            continue
        lost = [line for line in lines(before.block.value) - lines(one.block.value) if _is_token(line)]
        meant = [save for save in saves if block_of(one.label, save.data) == one.block]
        if not lost or not meant or not all(_must_merge(history[:place], save, memory) for save in meant):
            continue
        merged = next((later for later in history[place + 1 :] if later.author != FILE), None)
        assert merged is not None, f"a stale save took {lost} away: {one}"
        assert merged.author == MERGE, f"a stale save took {lost} away: {one}"
        assert merged.block is not None
        assert set(lost) <= set(lines(merged.block.value)), f"a merge did not bring {lost} back: {merged}"


def _must_merge(history: list[Revision], save: Save, memory: Memory) -> bool:
    """Whether a save surely was of a text to which nothing but lines were added on request since, and just now."""
    if save.read is None:
        return False
    for one in reversed(history):
        if one.block is None or (one.author == FILE and one.stale_base is not None) or one.author == MERGE:
            return False
        is_recent = save.at - datetime.fromisoformat(one.at).timestamp() < SURELY_RECENT
        if one.author == FILE or not is_recent:
            return one.block == block_of(one.label, save.read) and one.author == FILE
        if one.request_id is None or memory.asked[one.request_id].op not in _ADDITIVE:
            return False
    return False


# --- requests ---


def check_requests(revisions: list[Revision], memory: Memory) -> None:
    """What was said to be done was done once, and what was refused was not done."""
    by_request: dict[str, list[Revision]] = {}
    for one in revisions:
        if one.request_id is not None:
            by_request.setdefault(one.request_id, []).append(one)
    for asked in memory.asked.values():
        assert asked.is_answered, f"no reply to {asked}"
        assert len(set(asked.replies)) == 1, f"two outcomes of {asked}"
        done = by_request.get(asked.id, [])
        if not asked.is_accepted:
            assert not done, f"refused, and done: {asked}"
            assert asked.reply["error"]["code"] not in ("error", "journal")
            continue
        assert asked.reply["id"] == asked.id
        if asked.op == "batch":
            assert {one.label for one in done} == asked.args.keys()
            assert len(done) == len(asked.args)
            assert [one["seq"] for one in asked.reply["results"]] == [one.seq for one in done]
            continue
        assert len(done) <= 1, f"done twice: {asked}"
        if asked.op in ("append", "create", "delete"):
            assert len(done) == 1, f"acknowledged, and not done: {asked}"
        for one in done:
            assert (one.seq, one.version) == (asked.reply["seq"], asked.reply["version"])


# --- people ---


def check_people(rig: Rig, revisions: list[Revision], memory: Memory) -> None:
    """What a person last made of a file is in it, or in the history; what they removed came back only if asked for."""
    problems = rig.core.intake.problems
    for path, save in memory.last.items():
        label = label_of_path(path)
        full = rig.root / path
        of_label = [one for one in revisions if one.label == label]
        if save is None:
            if full.exists():
                assert of_label, f"{path} came from nowhere"
                assert of_label[-1].author != FILE, f"{path} was removed by a person"
            continue
        block = block_of(label, save.data)
        if path in problems and not problems[path].warning:
            assert full.read_bytes() == save.data, f"{path} has a problem and was touched"
        else:
            assert block is not None, f"{path} is no block, and nothing says so"
            assert any(one.block == block for one in of_label), f"what was saved as {path} is nowhere: {save.data!r}"
    memory.last.clear()


# --- the folder ---


def check_folder(rig: Rig, revisions: list[Revision], memory: Memory) -> None:
    """Every file is in force or a problem; what is in force is what the journal says; nothing else lies about."""
    ledger, problems = rig.core.ledger, rig.core.intake.problems
    present = set()
    for directory, _, names in os.walk(rig.root):
        for name in names:
            assert not name.startswith(TEMPORARY), f"left: {name}"
            if name.endswith(".md") and not name.startswith("."):
                present.add(os.path.relpath(os.path.join(directory, name), rig.root))
    for path in present:
        assert path in ledger.labels or path in problems, f"{path} is neither in force nor a problem"
    for head in rig.journal.heads():
        assert ledger.paths.get(head.label) == head.path
    newest = {one.label: one for one in revisions}
    for label, path in ledger.paths.items():
        assert path in present or path in problems, f"{path} is in force, and not there"
        if path in problems and not problems[path].warning:
            continue
        data = (rig.root / path).read_bytes()
        assert block_of(label, data) == newest[label].block, f"{path} says another block"
        counted = Counter(line for line in data.decode().splitlines() if _is_token(line))
        assert all(count == 1 for count in counted.values()), f"doubled in {path}: {counted}"
        _check_style(rig, label, data, [one for one in revisions if one.label == label], memory)


def _check_style(rig: Rig, label: str, data: bytes, history: list[Revision], memory: Memory) -> None:
    """What people wrote around a value stays as they wrote it, for as long as only the value is changed."""
    for one, before in zip(reversed(history), [*reversed(history[:-1]), None], strict=True):
        was = before.block if before is not None else None
        if one.author == FILE and one.block != was:
            break
        if one.block is None or was is None or one.block.changed_fields(was) not in ((), ("value",)):
            return
    else:
        return
    path = path_of(label)
    saved, status = memory.saves[path][-1], (rig.root / path).stat()
    assert stat.S_IMODE(status.st_mode) == saved.mode, f"{path} has another mode"
    was_saved, document = split(decode(saved.data)), split(decode(data))
    for part in ("opening", "matter", "closing", "newline"):
        before, now = getattr(was_saved, part), getattr(document, part)
        assert before == now, f"the {part} of {path} was {before!r} and is {now!r}"
