"""Redis commands that show many new blocks together, as a folder has them that is read for the first time."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING

from blocksd.mirror.index import member_of
from blocksd.mirror.projection import change_commands, commands_of, fields_of, in_parts, unindexing_command
from blocksd.model.label import is_properties, name_for_agent
from blocksd.model.revision import milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blocksd.mirror.keys import Keys
    from blocksd.mirror.projection import Command
    from blocksd.model.revision import Revision

_RUN_CHARS = 256 * 1024  # of values, about


def commands_of_runs(revisions: Sequence[Revision], keys: Keys, epoch: str) -> Iterator[tuple[int, list[Command]]]:
    """Yield the commands for these revisions, each time with the seq before the first of those that they are for."""
    for run in _runs(revisions):
        yield run[0].seq - 1, _commands_of_run(run, keys, epoch) if len(run) > 1 else commands_of(run[0], keys, epoch)


def _runs(revisions: Sequence[Revision]) -> Iterator[Sequence[Revision]]:
    """Yield the revisions; those that make new blocks together, as far as each is of another block."""
    run: list[Revision] = []
    labels: set[str] = set()
    chars = 0
    for revision in revisions:
        label, block = revision.label, revision.block
        is_new = revision.kind == "created" and block is not None and not revision.detached and not is_properties(label)
        if run and (not is_new or label in labels or chars > _RUN_CHARS):
            yield run
            run, labels, chars = [], set(), 0
        if not is_new or block is None:
            yield (revision,)
            continue
        run.append(revision)
        labels.add(label)
        chars += len(block.value)
    if run:
        yield run


def _commands_of_run(run: Sequence[Revision], keys: Keys, epoch: str) -> list[Command]:
    """Return the commands for one of these runs: what goes into the same key goes there with one command."""
    commands: list[Command] = [("DEL", *part) for part in in_parts([keys.block(one.label) for one in run])]
    ids: list[str] = []
    listed: defaultdict[str, list[str]] = defaultdict(list)  # sorted set → scores and members
    seen: defaultdict[str, list[str]] = defaultdict(list)  # hash of an agent → names and labels
    changes: list[Command] = []
    for one in run:
        assert one.block is not None
        label, name = one.label, name_for_agent(one.label)
        fields = fields_of(one)
        commands.append(("HSET", keys.block(label), *chain.from_iterable(fields.items())))
        commands.append(unindexing_command(label, keys))
        commands += [("SADD", keys.attached(label), *part) for part in in_parts(one.attached)]
        ids += (fields["id"], label)
        listed[keys.labels] += ("0", label)
        listed[keys.counts] += (str(len(one.agents)), label)
        listed[keys.created] += (str(milliseconds(one.created_at)), label)
        listed[keys.updated] += (str(milliseconds(one.at)), label)
        listed[keys.index] += ("0", member_of(one.block))
        for agent in one.attached:
            seen[keys.agent(agent)] += (name, label)
        changes += change_commands(one, keys, epoch)
    commands += [("HSET", keys.ids, *part) for part in in_parts(ids)]
    commands += [("ZADD", key, *part) for key, words in listed.items() for part in in_parts(words)]
    commands += [("HSET", key, *part) for key, words in seen.items() for part in in_parts(words)]
    return [*commands, *changes, ("HSET", keys.meta, "seq", str(run[-1].seq))]
