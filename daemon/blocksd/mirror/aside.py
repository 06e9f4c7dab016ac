"""Redis commands that show what belongs to no revision: agents, problems, replies, and new forms of files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from blocksd.mirror.projection import announcement, in_parts, new_zset_commands, reforming_commands

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blocksd.mirror.keys import Keys
    from blocksd.mirror.projection import Command
    from blocksd.model.problem import Problem
    from blocksd.model.revision import Revision

REPLY_SECONDS = 60
"""How long a reply waits for its reader."""
MOST_DEPARTED = 10_000
DEPARTED_SECONDS = 3600
"""Of how many agents that are not known any more it is shown when they were created, and for how long after the last one."""
_encode = json.JSONEncoder(ensure_ascii=False).encode


def agents_commands(known: Mapping[str, int], unknown: Iterable[str], keys: Keys) -> list[Command]:
    """Return commands for agents that became known at these times, and for ones that left.

    Of those, the inboxes go, unless a request waits, and a list of agents goes on after them for an hour.
    """
    removed: list[Command] = [("ZREM", keys.agents, *part) for part in in_parts(sorted(unknown))]
    for agent in sorted(unknown):
        removed.append(("DEPART", keys.agents_created, keys.departed, agent, str(MOST_DEPARTED), str(DEPARTED_SECONDS)))
        removed.append(("FORGET", keys.inbox(agent)))
    listed = new_zset_commands(keys.agents, dict.fromkeys(known, 0))[1:]
    return listed + new_zset_commands(keys.agents_created, known)[1:] + removed


def gone_commands(agents: Iterable[str], keys: Keys) -> list[Command]:
    """Return commands for agents that requests deleted: their inboxes and open files go."""
    return [("DEL", keys.inbox(agent), keys.open(agent)) for agent in sorted(agents)]


def problem_commands(subject: str, problem: Problem | None, at: str, keys: Keys, epoch: str) -> list[Command]:
    """Return commands for a problem that came or changed; None: that was cleared."""
    notice: dict[str, Any] = {"kind": "cleared", "subject": subject, "at": at, "epoch": epoch}
    stored: Command = ("HDEL", keys.problems, subject)
    if problem is not None:
        notice |= {"kind": "rejected", "label": problem.label, "problem": problem.as_json()}
        stored = ("HSET", keys.problems, subject, problem.dumps())
    return [stored, ("PUBLISH", keys.changes, _encode(notice))]


def changed_problems(
    shown: Mapping[str, Problem], problems: Mapping[str, Problem], at: str, keys: Keys, epoch: str
) -> list[Command]:
    """Return commands for all problems that came, changed or were cleared since these were shown."""
    commands: list[Command] = []
    for subject in sorted(problems.keys() | shown.keys()):
        problem = problems.get(subject)
        if problem != shown.get(subject):
            commands += problem_commands(subject, problem, at, keys, epoch)
    return commands


def reply_command(actor: str, entry_id: str, request_id: str | None, reply: str | None, keys: Keys) -> Command:
    """Return the command that removes an entry of an inbox and, unless `reply` is None, sends the reply."""
    done: Command = ("REPLY", keys.inbox(actor), entry_id)
    if request_id is None or reply is None:
        return done
    return (*done, keys.reply(f"{actor}:{request_id}"), str(REPLY_SECONDS), reply)


def reformed_commands(newest: Iterable[Revision | None], at: str, keys: Keys, epoch: str) -> list[Command]:
    """Return commands for blocks whose files say the same in another form: that is no revision."""
    commands: list[Command] = []
    for one in newest:
        if one is not None:
            facts = {"seq": None, "kind": "file", "label": one.label, "version": one.version, "at": at, "epoch": epoch}
            commands += [*reforming_commands(one, keys), announcement("", _encode(facts), keys.changes)]
    return commands
