"""Compares what the mirror shows of blocks, agents and problems with what it should, and repairs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from blocksd.mirror.projection import fields_of, new_hash_commands, new_zset_commands
from blocksd.model.block import block_id

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from blocksd.journal.history import HeadDigest
    from blocksd.mirror.mirror import Mirror
    from blocksd.mirror.projection import Command
    from blocksd.model.revision import Revision


def suspects(mirror: Mirror, heads: Sequence[HeadDigest]) -> list[str]:
    """Of these blocks, the labels of those whose version, digest, number of agents or listing is not as it should be."""
    keys = mirror.keys
    blocks = [[head.label, str(head.version), head.digest, head.agents, block_id(head.label)] for head in heads]
    found = mirror.compare(json.dumps(blocks, ensure_ascii=False), keys.block(""), keys.attached(""))
    return [heads[number - 1].label for number in found]


def differing(mirror: Mirror, revisions: Sequence[Revision]) -> list[Revision]:
    """Of these blocks, those the mirror does not show as they are: evicted, expired, edited by hand."""
    keys = mirror.keys
    questions: list[Command] = []
    for revision in revisions:
        questions += [
            ("HGETALL", keys.block(revision.label)),
            ("SMEMBERS", keys.attached(revision.label)),
            ("ZSCORE", keys.labels, revision.label),
            ("HGET", keys.ids, block_id(revision.label)),
        ]
    answers = iter(mirror.ask(questions))
    return [
        revision
        for revision, shown in zip(revisions, zip(*[answers] * 4, strict=True), strict=True)
        if shown != (fields_of(revision), set(revision.agents), 0.0, revision.label)
    ]


def repair_index(
    mirror: Mirror,
    labels: Collection[str],
    known: frozenset[str],
    problems: Mapping[str, str],
    *,
    reads_agents: bool = True,
    reads_problems: bool = True,
) -> list[str]:
    """Compare what lists blocks, agents and problems, and repair it; the names of those that were wrong.

    Of labels and ids only the number is compared: that each one is there, `differing` has seen. So it is of agents and
    problems, unless they are to be read.
    """
    keys = mirror.keys
    repairs: dict[str, list[Command]] = {}
    if mirror.answer("ZCARD", keys.labels) != len(labels):
        repairs["labels"] = new_zset_commands(keys.labels, labels)
    if mirror.answer("HLEN", keys.ids) != len(labels):
        repairs["ids"] = new_hash_commands(keys.ids, {block_id(label): label for label in labels})
    if reads_agents:
        listed = set(mirror.answer("ZRANGE", keys.agents, "0", "-1") or ())
        is_same = listed == known
    else:
        listed = set()
        is_same = mirror.answer("ZCARD", keys.agents) == len(known)
    if not is_same:
        repairs["agents"] = new_zset_commands(keys.agents, known)
        # The next agent of that name begins with nothing open.
        repairs["agents"] += [("UNLINK", keys.open(agent)) for agent in sorted(listed - known)]
    if reads_problems:
        is_same = mirror.answer("HGETALL", keys.problems) == problems
    else:
        is_same = mirror.answer("HLEN", keys.problems) == len(problems)
    if not is_same:
        repairs["problems"] = new_hash_commands(keys.problems, problems)
    if repairs:
        mirror.apply([command for commands in repairs.values() for command in commands])
    return list(repairs)


def repair_agents(mirror: Mirror, names: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Compare these agents' blocks (name → label) and repair them; the agents that were wrong."""
    keys = mirror.keys
    answers = mirror.ask([("HGETALL", keys.agent(agent)) for agent in names])
    wrong = [agent for agent, shown in zip(names, answers, strict=True) if shown != names[agent]]
    if wrong:
        mirror.apply([command for agent in wrong for command in new_hash_commands(keys.agent(agent), names[agent])])
    return wrong


def mend_changes(mirror: Mirror) -> bool:
    """Whether the stream still ends where the mirror stands; one that does not is removed.

    What is left of it would make readers believe they have seen all, and an end above the mirror's place would
    keep every later change out: in a new one a reset tells what is missing.
    """
    assert mirror.place is not None
    last = mirror.answer("XREVRANGE", mirror.keys.changes, "+", "-", "COUNT", "1")
    if last:
        is_sound = str(last[0][0]).startswith(f"{mirror.place.seq}-")
    else:
        is_sound = last is not None and mirror.place.seq == 0
    if not is_sound:
        mirror.apply([("DEL", mirror.keys.changes)])
    return is_sound
