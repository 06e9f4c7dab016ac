"""The audit: findings for a maintainer, each with advice."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from blocksd.model.block import default_description
from blocksd.model.label import PRIVATE, name_for_agent, owner, path_of_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Kind = Literal["unused", "orphan", "undescribed", "default_description", "near_limit", "oversize_prompt", "stale"]

MOST_DAYS = 36_500
"""The longest time after which a block can count as stale: the longest for which the settings keep versions."""

_PLACES = {kind: place for place, kind in enumerate(get_args(Kind))}
_LARGEST = 3


@dataclass(frozen=True, slots=True)
class Audited:
    """The facts of a block that the audit uses.

    `chars` is the length of its value, in code points as `limit`; `updated_at` is RFC 3339, in UTC; `agents` is how many
    are attached.
    """

    label: str
    chars: int
    limit: int
    description: str | None
    updated_at: str
    agents: int
    read_only: bool
    hidden: bool
    is_template: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at. Nothing is broken by it, and the daemon does nothing about it.

    `subject` is a label, or for `orphan` and `oversize_prompt` an agent id. `kind` is stable, `message` says what was
    found, `advice` what to do and in which file.
    """

    kind: Kind
    subject: str
    message: str
    advice: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The thresholds of findings.

    `near_limit` is a share of a block's limit. `prompt_chars` is the most a prompt may have: 65,536 characters, some
    16,000 tokens, is what Letta allows all of an agent's core memory. `stale_days` is how long a block may go unchanged.
    """

    near_limit: float = 0.9
    prompt_chars: int = 65_536
    stale_days: int = 90


_DEFAULTS = Thresholds()


def audit(
    blocks: Iterable[Audited],
    agents: Mapping[str, Mapping[str, str]],
    prompts: Mapping[str, int],
    *,
    now: datetime,
    thresholds: Thresholds = _DEFAULTS,
) -> list[Finding]:
    """Return all findings, by kind in the order of `Kind`, then by subject.

    `agents` holds every known agent with what it is attached to (name → label), `prompts` the characters of each
    agent's compiled prompt, as far as they are wanted. `now` is aware of its time zone.

    - `unused`: a block attached to no agent. A template need not be.
    - `orphan`: a known agent attached to nothing: an empty private folder.
    - `undescribed`: a block without a description, or with a blank one. A hidden block needs none, since no prompt
      shows it.
    - `default_description`: a persona or human that is not hidden and has Letta's default text.
    - `near_limit`: a value that fills `near_limit` of its limit, or all of it.
    - `oversize_prompt`: a prompt of more than `prompt_chars`.
    - `stale`: a block with agents attached that may change it, unchanged for `stale_days`.
    """
    by_label = {block.label: block for block in blocks}
    findings = [finding for block in by_label.values() for finding in _of_block(block, now, thresholds)]
    findings += [_orphan(agent) for agent, names in agents.items() if not names]
    for agent, chars in prompts.items():
        if chars > thresholds.prompt_chars:
            attached = [by_label[label] for label in agents.get(agent, {}).values() if label in by_label]
            findings.append(_oversize(agent, chars, thresholds.prompt_chars, attached))
    return sorted(findings, key=lambda finding: (_PLACES[finding.kind], finding.subject))


def _of_block(block: Audited, now: datetime, thresholds: Thresholds) -> Iterator[Finding]:
    label, path = block.label, path_of_label(block.label)
    if block.agents == 0 and not block.is_template:
        if owner(label) is None:
            advice = f"name those who should see it under 'agents' in {path}, or remove the file"
        else:
            advice = f"'blocksd status' says what takes its name; rename {path}, or remove it"
        yield Finding("unused", label, "no agent is attached to it", advice)
    if not block.hidden:
        yield from _description(block, path)
    # Divided, not multiplied: 9 of 10 is then exactly the 0.9 that was asked for.
    if block.chars / block.limit >= min(thresholds.near_limit, 1.0):
        figures = f"{block.chars} of {block.limit} characters"
        if block.chars >= block.limit:
            message = f"it is full: {figures}"
            advice = f"nothing more can be written to it; shorten {path}, or raise 'limit' in it"
        else:  # rounded down, so that only what is full is at 100 %
            message = f"it holds {figures} ({100 * block.chars // block.limit} %)"
            advice = f"shorten {path}, or raise 'limit' in it, before a longer text is refused"
        yield Finding("near_limit", label, message, advice)
    age = now - datetime.fromisoformat(block.updated_at)
    if block.agents and not block.read_only and age >= timedelta(days=thresholds.stale_days):
        # A date, and no count of days: a text of findings changes only when they do.
        message = f"agents are attached to it, and it is unchanged since {block.updated_at[:10]}"
        advice = (
            f"see whether it still holds: correct {path}, set 'read_only' in it if it is meant to stay, or remove it"
        )
        yield Finding("stale", label, message, advice)


def _description(block: Audited, path: str) -> Iterator[Finding]:
    default = default_description(block.label)
    description = default if block.description is None else block.description
    if not description or not description.strip():
        message = "it has no description, by which agents know what to read in it and what to write to it"
        yield Finding("undescribed", block.label, message, f"say what it is for under 'description' in {path}")
    elif description == default:
        message = f"it has the default description of a {name_for_agent(block.label).removeprefix('system/')}"
        advice = f"that may be all it needs; if not, write 'description' in {path}"
        yield Finding("default_description", block.label, message, advice)


def _orphan(agent: str) -> Finding:
    advice = f"remove its empty folder {PRIVATE}/{agent}, or name it under 'agents' in a block's file"
    return Finding("orphan", agent, "the agent is attached to no block", advice)


def _oversize(agent: str, chars: int, most: int, attached: Iterable[Audited]) -> Finding:
    shown = [block for block in attached if not block.hidden and not block.is_template]
    shown.sort(key=lambda block: (-block.chars, block.label))
    largest = ", ".join(f"{path_of_label(block.label)} ({block.chars})" for block in shown[:_LARGEST])
    advice = "shorten its largest blocks, or detach it from one" + (f": {largest}" if largest else "")
    return Finding("oversize_prompt", agent, f"its prompt is {chars} characters, over {most}", advice)
