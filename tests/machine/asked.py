"""What clients ask for, and what that is to make of blocks, said again from the promises and not from the code."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from blocksd.errors import InvalidFile
from blocksd.files.document import Parser

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blocksd.model.block import Block

EDITS = ("append", "replace", "insert", "patch", "update")
"""What gives a block another value, made of the one that is there."""

SEVERAL = ("batch", "create_agent", "delete_agent")
"""What changes several blocks, or none."""

WHOLE = (*SEVERAL, "update_agent")
"""What is looked at as a whole."""

Made = list[tuple[str, "Block | None"]]
"""What becomes of which block, one after the other; None: it is deleted."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines that become others, and the place, from 0, where they were in the text that the client had read."""

    stated: int
    old: list[str]
    new: list[str]


@dataclass(slots=True)
class Asked:
    """A request, and all the replies it got; the journal was at seq `since` when it was sent, and at `until` when done."""

    id: str
    actor: str
    op: str
    labels: set[str]  # what its name for the block may mean
    text: str
    args: dict[str, Any]
    since: int
    until: int = 0
    expect: int | None = None
    on_conflict: str | None = None
    hunks: list[Hunk] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    deaths: int = 0  # how often the daemon died before there was a reply
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


def block_of(label: str, data: bytes) -> Block | None:
    """What a file says; None when it says no block."""
    try:
        return Parser().parse(data, label)[0]
    except InvalidFile:
        return None


def lines_of(value: str) -> list[str]:
    return value.split("\n") if value else []


def joined(value: str, content: str) -> str:
    return "\n".join([*lines_of(value), content])


# --- one value ---


def after(asked: Asked, value: str) -> str | None:
    """What an edit makes of a value; None: it cannot be made."""
    args = asked.args
    if asked.op == "append":
        return joined(value, args["content"])
    if asked.op == "insert":
        return _inserted(value, args["content"], args["line"])
    if asked.op == "replace":
        return _replaced(value, args["old_content"], args["new_content"])
    if asked.op == "patch":
        return _patched(value, asked.hunks)
    assert asked.op == "update"
    given: str = args["value"]
    return given


def _inserted(value: str, content: str, line: int) -> str | None:
    lines = lines_of(value)
    if line > len(lines):
        return None
    lines.insert(line if line >= 0 else len(lines), content)
    return "\n".join(lines)


def _replaced(value: str, old: str, new: str) -> str | None:
    places = [place for place in range(len(value)) if value.startswith(old, place)]
    return value[: places[0]] + new + value[places[0] + len(old) :] if len(places) == 1 else None


def _patched(value: str, hunks: list[Hunk]) -> str | None:
    lines, result, done = lines_of(value), list[str](), 0
    for hunk in hunks:
        size = len(hunk.old)
        places = [place for place in range(done, len(lines) - size + 1) if lines[place : place + size] == hunk.old]
        if hunk.stated in places:
            place = hunk.stated
        elif len(places) == 1 and (
            hunk.old or not (value or result)
        ):  # where lines are to be added, only the client can tell
            place = places[0]
        else:
            return None
        result += lines[done:place] + hunk.new
        done = place + size
    return "\n".join(result + lines[done:])


# --- several blocks ---


def made_of(asked: Asked, blocks: Mapping[str, Block]) -> Made | None:
    """What a request makes of the blocks in force; by label, and each label's in order.

    The edits of one block are one: what it was in between is never in force, and if it is as before, nothing was done.
    None: a block that it needs is not there.
    """
    now = dict(blocks)
    try:
        return _made_of(asked, blocks, now)
    except KeyError:
        return None


def _made_of(asked: Asked, blocks: Mapping[str, Block], now: dict[str, Block]) -> Made:
    made: dict[str, list[Block | None]] = {}
    for label, block in _steps(asked.op, "", asked.args, now):
        steps = made.setdefault(label, [])
        if block is not None and steps and steps[-1] is not None:
            steps.pop()
        steps.append(block)
        if block is None:
            del now[label]
        else:
            now[label] = block
    for label, steps in made.items():
        if steps[0] is not None and steps[0] == blocks.get(label):
            del steps[0]
    return [(label, block) for label in sorted(made) for block in made[label]]


def _steps(op: str, label: str, args: Mapping[str, Any], now: dict[str, Block]) -> Iterator[tuple[str, Block | None]]:
    """One step after the other; `now` is what is in force after the steps before."""
    if op == "batch":
        for part in args["requests"]:
            yield from _steps(part["op"], part.get("label", ""), part["args"], now)
    elif op == "append":
        yield label, replace(now[label], value=joined(now[label].value, args["content"]))
    elif op == "delete_agent":
        agent = args["agent"]
        for one, block in list(now.items()):
            if one.startswith(f"agents/{agent}/"):
                yield one, None
            elif agent in block.agents:
                yield one, replace(block, agents=tuple(entry for entry in block.agents if entry != agent))
    elif op == "update_agent":
        yield from _said(args["agent"], {key: value for key, value in args.items() if key != "agent"}, now)
    else:
        assert op == "create_agent"
        agent = args["agent"]
        for given in args.get("blocks", ({"name": "persona"}, {"name": "human"})):
            one = f"agents/{agent}/{given['name']}"
            yield one, block_of(one, given.get("value", "").encode())
        for one in args["attach"]:
            block = now[one]
            if not any(fnmatchcase(agent, entry) for entry in block.agents):
                yield one, replace(block, agents=(*block.agents, agent))
        yield from _said(agent, args.get("properties", {}), now)


def _said(agent: str, given: Mapping[str, Any], now: dict[str, Block]) -> Iterator[tuple[str, Block]]:
    """What an agent's file is to say: what it said, with what is given; null takes a property away."""
    label = f"agents/{agent}/agent.yaml"
    before = json.loads(now[label].value) if label in now else {}
    said = {key: value for key, value in {**before, **given}.items() if value not in (None, [], {})}
    if said or label in now:
        block = block_of(label, json.dumps(said).encode())
        assert block is not None
        yield label, block
