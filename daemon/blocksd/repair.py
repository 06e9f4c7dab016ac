"""Compares what the mirror shows of blocks, agents and problems with what it should, and mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.block import block_id
from blocksd.projection import fields_of, new_hash_commands, new_zset_commands

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from blocksd.mirror import Mirror
    from blocksd.projection import Command
    from blocksd.revision import Revision


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


def repair_index(mirror: Mirror, labels: Collection[str], known: frozenset[str], problems: Mapping[str, str]) -> int:
    """Compare what lists blocks, agents and problems, and mend it; how many keys were wrong.

    Of labels and ids only the number is compared: that each one is there, `differing` has seen.
    """
    keys = mirror.keys
    repairs: list[Command] = []
    if mirror.answer("ZCARD", keys.labels) != len(labels):
        repairs += new_zset_commands(keys.labels, labels)
    if mirror.answer("HLEN", keys.ids) != len(labels):
        repairs += new_hash_commands(keys.ids, {block_id(label): label for label in labels})
    if set(mirror.answer("ZRANGE", keys.agents, "0", "-1") or ()) != known:
        repairs += new_zset_commands(keys.agents, known)
    if mirror.answer("HGETALL", keys.problems) != problems:
        repairs += new_hash_commands(keys.problems, problems)
    if repairs:
        mirror.apply(repairs)
    return sum(command[0] == "DEL" for command in repairs)


def repair_agents(mirror: Mirror, names: Mapping[str, Mapping[str, str]]) -> int:
    """Compare these agents' blocks (name → label) and mend them; how many agents were wrong."""
    keys = mirror.keys
    answers = mirror.ask([("HGETALL", keys.agent(agent)) for agent in names])
    wrong = [agent for agent, shown in zip(names, answers, strict=True) if shown != names[agent]]
    if wrong:
        mirror.apply([command for agent in wrong for command in new_hash_commands(keys.agent(agent), names[agent])])
    return len(wrong)


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
