"""Compares blocks, agents and problems in the mirror with the journal's, and repairs the mirror."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from blocksd.mirror.file_form import FORM_FIELDS
from blocksd.mirror.index import bounds_of, entry_of, member_of
from blocksd.mirror.projection import (
    fields_of,
    in_parts,
    new_hash_commands,
    new_zset_commands,
    properties_fields,
)
from blocksd.model.block import block_id
from blocksd.model.label import owner
from blocksd.model.revision import milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from blocksd.journal.history import HeadDigest
    from blocksd.mirror.mirror import Mirror
    from blocksd.mirror.projection import Command
    from blocksd.model.revision import Revision

_COMPARED_CHARS = 1000  # of the form of a file


def suspects(mirror: Mirror, heads: Sequence[HeadDigest]) -> list[str]:
    """Return the labels of the blocks whose version, digest, form, number of agents, time or listing is wrong in the mirror."""
    keys = mirror.keys
    blocks = [
        [
            head.label,
            str(head.version),
            head.digest,
            head.agents,
            head.id,
            *map(milliseconds, (head.created_at, head.at)),
            _as_compared(head.form),
        ]
        for head in heads
    ]
    found = mirror.compare(json.dumps(blocks, ensure_ascii=False), keys.block(""), keys.attached(""))
    return [heads[number - 1].label for number in found]


def _as_compared(form: Mapping[str, str] | None) -> str | int | bool:
    """Return the form of a file as compare.lua takes it: long ones are compared by their size, and in full now and then."""
    if form is None:
        return False
    text = "".join(f"{name}\x1f{form[name]}\x1e" for name in FORM_FIELDS if name in form)
    return text if len(text) <= _COMPARED_CHARS else len(text.encode())


def differing(mirror: Mirror, revisions: Sequence[Revision]) -> list[Revision]:
    """Return the blocks that the mirror shows wrongly: evicted, expired, edited by hand."""
    keys = mirror.keys
    questions: list[Command] = []
    for revision in revisions:
        questions += [
            ("HGETALL", keys.block(revision.label)),
            ("SMEMBERS", keys.attached(revision.label)),
            ("ZSCORE", keys.labels, revision.label),
            ("HGET", keys.ids, revision.id),
            *(("ZSCORE", key, revision.label) for key in (keys.counts, keys.created, keys.updated)),
            ("ZRANGEBYLEX", keys.index, *bounds_of(revision.label)),
            ("ZSCORE", keys.index, member_of(revision.block) if revision.block else ""),
        ]
    answers = iter(mirror.read_many(questions))
    return [
        revision
        for revision, shown in zip(revisions, zip(*[answers] * 9, strict=True), strict=True)
        if shown != _wanted(revision)
    ]


def differing_properties(mirror: Mirror, revisions: Sequence[Revision]) -> list[Revision]:
    """Return the properties of agents that the mirror shows wrongly."""
    keys = [mirror.keys.agent_info(str(owner(revision.label))) for revision in revisions]
    shown = mirror.read_many([("HGETALL", key) for key in keys])
    return [one for one, its in zip(revisions, shown, strict=True) if its != properties_fields(one)]


def _wanted(revision: Revision) -> tuple[object, ...]:
    assert revision.block is not None
    agents, member = revision.agents, member_of(revision.block)
    scores = float(len(agents)), float(milliseconds(revision.created_at)), float(milliseconds(revision.at))
    return fields_of(revision), set(agents), 0.0, revision.label, *scores, [member], 0.0


def repair_index(
    mirror: Mirror,
    labels: Collection[str],
    known: frozenset[str],
    problems: Mapping[str, str],
    *,
    origins: Mapping[str, str],
    times_of: Callable[[Collection[str]], Mapping[str, int]],
    reads_agents: bool = True,
    reads_problems: bool = True,
) -> list[str]:
    """Compare and repair the lists of blocks, agents and problems. Return the names of the lists that were wrong.

    `origins` are what the ids of blocks are made of, where that is not the label; `times_of` tells when agents became known.
    Of labels, ids, counts, index and times only the number is compared, because `differing` checks each one; of agents and problems
    as well, unless `reads_agents` and `reads_problems`.
    """
    keys = mirror.keys
    repairs: dict[str, list[Command]] = {}
    if mirror.read_one("ZCARD", keys.labels) != len(labels):
        repairs["labels"] = new_zset_commands(keys.labels, dict.fromkeys(labels, 0))
    if mirror.read_one("HLEN", keys.ids) != len(labels):
        repairs["ids"] = new_hash_commands(keys.ids, {block_id(origins.get(label, label)): label for label in labels})
    # What is missing in these, `differing` finds; here, what is left of blocks that are gone.
    for name in ("counts", "index", "created", "updated"):
        key: str = getattr(keys, name)
        if (count := mirror.read_one("ZCARD", key)) is None:  # the key is of another type
            repairs[name] = [("DEL", key)]
        elif count != len(labels) and (found := _strays(mirror, key, labels)):
            repairs[name] = found
    if reads_agents:
        listed = set(mirror.read_one("ZRANGE", keys.agents, "0", "-1") or ())
        is_same = listed == known
    else:
        listed = set()
        is_same = mirror.read_one("ZCARD", keys.agents) == len(known)
    if not is_same:
        repairs["agents"] = new_zset_commands(keys.agents, dict.fromkeys(known, 0))
        # The next agent of that name begins with nothing open.
        repairs["agents"] += [("UNLINK", keys.open(agent)) for agent in sorted(listed - known)]
    is_same = mirror.read_one("ZCARD", keys.agents_created) == len(known)
    if is_same and reads_agents:
        times = times_of(known)
        parts = list(in_parts(list(times.items())))
        shown = mirror.read_many([("ZMSCORE", keys.agents_created, *dict(part)) for part in parts])
        is_same = all(its == [at for _, at in part] for its, part in zip(shown, parts, strict=True))
    if not is_same:
        repairs["agents-created"] = new_zset_commands(keys.agents_created, times_of(known))
    if reads_problems:
        is_same = mirror.read_one("HGETALL", keys.problems) == problems
    else:
        is_same = mirror.read_one("HLEN", keys.problems) == len(problems)
    if not is_same:
        repairs["problems"] = new_hash_commands(keys.problems, problems)
    if repairs:
        mirror.apply([command for commands in repairs.values() for command in commands])
    return list(repairs)


def _strays(mirror: Mirror, key: str, labels: Collection[str]) -> list[Command]:
    members: list[str] = mirror.read_one("ZRANGE", key, "0", "-1") or []
    if key == mirror.keys.index:
        strays = [one for one in members if (entry := entry_of(one)) is None or entry.label not in labels]
    else:
        strays = [one for one in members if one not in labels]
    return [("ZREM", key, *part) for part in in_parts(strays)]


def repair_agents(mirror: Mirror, names: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Compare and repair the blocks of these agents (name → label). Return the agents that were wrong."""
    keys = mirror.keys
    answers = mirror.read_many([("HGETALL", keys.agent(agent)) for agent in names])
    wrong = [agent for agent, shown in zip(names, answers, strict=True) if shown != names[agent]]
    if wrong:
        mirror.apply([command for agent in wrong for command in new_hash_commands(keys.agent(agent), names[agent])])
    return wrong


def repair_changes(mirror: Mirror) -> bool:
    """Return True if the stream ends at the mirror's position; remove a stream that does not.

    The rest of a stream would make readers believe that they have seen all, and an end above the mirror's position would
    keep every later change out. In a new stream, a reset tells readers what is missing.
    """
    assert mirror.place is not None
    last = mirror.read_one("XREVRANGE", mirror.keys.changes, "+", "-", "COUNT", "1")
    if last:
        is_sound = str(last[0][0]).startswith(f"{mirror.place.seq}-")
    else:
        is_sound = last is not None and mirror.place.seq == 0
    if not is_sound:
        mirror.apply([("DEL", mirror.keys.changes)])
    return is_sound
