"""What the audit finds, what it leaves alone, and that its advice names the file."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, get_args

import pytest

from blocksd.model.audit import Audited, Finding, Kind, Thresholds, audit
from blocksd.model.block import default_description
from blocksd.model.revision import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)

SOUND = Audited(
    label="notes",
    chars=100,
    limit=20_000,
    description="What is noted.",
    updated_at="2026-11-19T09:00:00.000Z",
    agents=1,
    read_only=False,
    hidden=False,
    is_template=False,
)
"""A block with nothing to be said of it."""


def found(
    *blocks: Audited,
    agents: Mapping[str, Mapping[str, str]] | None = None,
    prompts: Mapping[str, int] | None = None,
    thresholds: Thresholds | None = None,
) -> list[Finding]:
    return audit(blocks, agents or {}, prompts or {}, now=NOW, thresholds=thresholds or Thresholds())


def only(*blocks: Audited) -> Finding:
    """The one thing that is found."""
    (finding,) = found(*blocks)
    return finding


def at(age: timedelta) -> str:
    return timestamp((NOW - age).timestamp())


# --- nothing ---


def test_nothing_to_look_at() -> None:
    """A folder in order, and an empty one, have no findings."""
    assert found(SOUND, agents={"one": {"notes": "notes"}}, prompts={"one": 400}) == []
    assert found() == []


# --- unused ---


def test_block_without_agents_is_unused() -> None:
    """A block attached to nobody is in nobody's context: attach it, or remove it."""
    assert only(replace(SOUND, agents=0)) == Finding(
        "unused",
        "notes",
        "no agent is attached to it",
        "name those who should see it under 'agents' in notes.md, or remove the file",
    )


def test_template_needs_no_agents() -> None:
    """A template is there for blocks to be made from, not to be seen."""
    assert found(replace(SOUND, agents=0, is_template=True)) == []


def test_private_block_without_its_agent_has_lost_its_name() -> None:
    """A private block is attached to its agent without being listed, unless another block has its name."""
    finding = only(replace(SOUND, label="agents/one/tasks", agents=0))
    assert finding.kind == "unused"
    assert "rename agents/one/tasks.md" in finding.advice
    assert "'agents'" not in finding.advice


# --- orphan ---


def test_agent_attached_to_nothing_is_an_orphan() -> None:
    """An agent that nothing names and that has no block is known for its empty folder alone."""
    (finding,) = found(agents={"one": {}, "two": {"notes": "notes"}})
    assert (finding.kind, finding.subject) == ("orphan", "one")
    assert "remove its empty folder agents/one" in finding.advice


# --- undescribed, default_description ---


@pytest.mark.parametrize("description", [None, "", " \n"])
def test_block_without_a_description(description: str | None) -> None:
    """Agents go by the description; a blank one says as little as none."""
    finding = only(replace(SOUND, description=description))
    assert (finding.kind, finding.subject) == ("undescribed", "notes")
    assert finding.advice == "say what it is for under 'description' in notes.md"


@pytest.mark.parametrize("name", ["persona", "human"])
@pytest.mark.parametrize("place", ["", "system/", "agents/one/", "agents/one/system/"])
def test_default_description(place: str, name: str) -> None:
    """A persona or human is never undescribed; that it has only the default is said, whether filled in or not."""
    label = place + name
    for description in (None, default_description(label)):
        finding = only(replace(SOUND, label=label, description=description))
        assert (finding.kind, finding.subject) == ("default_description", label)
        assert finding.message == f"it has the default description of a {name}"
        assert f"'description' in {label}.md" in finding.advice


def test_persona_with_a_description_of_its_own() -> None:
    """What someone has written is not the default; what someone has emptied is no description."""
    assert found(replace(SOUND, label="persona")) == []
    assert only(replace(SOUND, label="persona", description="")).kind == "undescribed"


def test_default_of_another_block_is_a_description() -> None:
    """The default text of a persona says something when it stands in another block."""
    assert found(replace(SOUND, description=default_description("persona"))) == []


def test_hidden_block_needs_no_description() -> None:
    """No prompt shows it."""
    assert found(replace(SOUND, hidden=True, description=None)) == []
    assert found(replace(SOUND, label="human", hidden=True, description=None)) == []


# --- near_limit ---


@pytest.mark.parametrize(
    ("chars", "limit", "near"),
    [
        (17_999, 20_000, False),
        (18_000, 20_000, True),
        (8, 10, False),
        (9, 10, True),
        (0, 1, False),
        (1, 1, True),
        (62, 70, False),
        (63, 70, True),
    ],
)
def test_nine_tenths_of_the_limit_are_near(chars: int, limit: int, *, near: bool) -> None:
    """Exactly nine tenths are near the limit, one character less is not, however they divide."""
    assert [finding.kind for finding in found(replace(SOUND, chars=chars, limit=limit))] == ["near_limit"] * near


def test_block_near_its_limit() -> None:
    """There is room left: it is said how much is taken, and what becomes of a longer text."""
    finding = only(replace(SOUND, chars=18_500))
    assert finding.message == "it holds 18500 of 20000 characters (92 %)"
    assert finding.advice == "shorten notes.md, or raise 'limit' in it, before a longer text is refused"


def test_full_block() -> None:
    """At the limit nothing more can be written, which is more than being near it."""
    assert only(replace(SOUND, chars=19_999)).message == "it holds 19999 of 20000 characters (99 %)"
    finding = only(replace(SOUND, chars=20_000))
    assert finding.message == "it is full: 20000 of 20000 characters"
    assert finding.advice == "nothing more can be written to it; shorten notes.md, or raise 'limit' in it"


def test_share_of_the_limit_can_be_set() -> None:
    """Who wants to know earlier can; a full block is reported whatever was set."""
    half = replace(SOUND, chars=10_000)
    assert [finding.kind for finding in found(half, thresholds=Thresholds(near_limit=0.5))] == ["near_limit"]
    full = replace(SOUND, chars=20_000)
    assert [finding.kind for finding in found(full, thresholds=Thresholds(near_limit=2.0))] == ["near_limit"]


# --- oversize_prompt ---


def test_prompt_over_the_most() -> None:
    """Exactly the most is allowed; one more is too much."""
    assert found(prompts={"one": 65_536}) == []
    (finding,) = found(prompts={"one": 65_537})
    assert (finding.kind, finding.subject) == ("oversize_prompt", "one")
    assert finding.message == "its prompt is 65537 characters, over 65536"
    assert found(prompts={"one": 65_537}, thresholds=Thresholds(prompt_chars=100_000)) == []


def test_oversize_prompt_names_the_largest_blocks() -> None:
    """Where to begin: the three largest blocks the agent sees, not those hidden, nor those of others."""
    chars = {"a": 5, "b": 40_000, "agents/one/c": 20_000, "d": 20_000}
    blocks = [replace(SOUND, label=label, chars=size, limit=100_000) for label, size in chars.items()]
    others = [
        replace(SOUND, label="hidden", chars=50_000, limit=100_000, hidden=True),
        replace(SOUND, label="template", chars=50_000, limit=100_000, is_template=True),
        replace(SOUND, label="foreign", chars=50_000, limit=100_000),
    ]
    names = {"a": "a", "b": "b", "c": "agents/one/c", "d": "d", "hidden": "hidden", "template": "template"}
    (finding,) = found(*blocks, *others, agents={"one": names}, prompts={"one": 80_100})
    assert finding.advice.endswith(": b.md (40000), agents/one/c.md (20000), d.md (20000)")


def test_block_that_went_while_it_was_counted() -> None:
    """What an agent is attached to may be gone from the blocks: the prompt is too large all the same."""
    (finding,) = found(agents={"one": {"gone": "gone"}}, prompts={"one": 70_000})
    assert finding.kind == "oversize_prompt"


# --- stale ---


@pytest.mark.parametrize(
    ("age", "stale"),
    [
        (timedelta(days=90), True),
        (timedelta(days=90) - timedelta(milliseconds=1), False),
        (timedelta(days=-1), False),
    ],
)
def test_ninety_days_are_stale(age: timedelta, *, stale: bool) -> None:
    """Ninety days to the millisecond are stale; a clock that was ahead makes nothing stale."""
    assert [finding.kind for finding in found(replace(SOUND, updated_at=at(age)))] == ["stale"] * stale


def test_stale_block() -> None:
    """It is said since when, so that the finding is the same tomorrow, and what one may do."""
    block = replace(SOUND, updated_at=at(timedelta(days=120, hours=23)))
    finding = only(block)
    assert finding.message == f"agents are attached to it, and it is unchanged since {block.updated_at[:10]}"
    assert "notes.md" in finding.advice
    assert "'read_only'" in finding.advice


def test_what_is_meant_to_stay_is_not_stale() -> None:
    """A read-only block is there to stay, and what nobody is attached to misleads nobody."""
    old = replace(SOUND, updated_at=at(timedelta(days=1000)))
    assert found(replace(old, read_only=True)) == []
    assert only(replace(old, agents=0)).kind == "unused"


def test_days_can_be_set() -> None:
    """What is stale depends on what one keeps in blocks."""
    week = replace(SOUND, updated_at=at(timedelta(days=7)))
    assert [finding.kind for finding in found(week, thresholds=Thresholds(stale_days=7))] == ["stale"]
    assert found(week) == []


# --- all together ---


def test_order_is_by_kind_then_subject() -> None:
    """The kinds come in one order, and subjects in theirs, whatever order the blocks come in."""
    worst = replace(SOUND, chars=20_000, updated_at=at(timedelta(days=91)))
    blocks = [
        replace(worst, label="b", description=None),
        replace(worst, label="a", description=None),
        replace(SOUND, label="z", agents=0),
        replace(SOUND, label="human", description=None),
    ]
    findings = found(*blocks, agents={"two": {}, "one": {}}, prompts={"one": 70_000})
    assert [(finding.kind, finding.subject) for finding in findings] == [
        ("unused", "z"),
        ("orphan", "one"),
        ("orphan", "two"),
        ("undescribed", "a"),
        ("undescribed", "b"),
        ("default_description", "human"),
        ("near_limit", "a"),
        ("near_limit", "b"),
        ("oversize_prompt", "one"),
        ("stale", "a"),
        ("stale", "b"),
    ]
    assert {finding.kind for finding in findings} == set(get_args(Kind))
    assert found(*reversed(blocks), agents={"one": {}, "two": {}}, prompts={"one": 70_000}) == findings


def test_finding_is_json() -> None:
    """Programs get each finding with its four facts."""
    finding = only(replace(SOUND, agents=0))
    assert json.loads(json.dumps(finding.as_json())) == {
        "kind": "unused",
        "subject": "notes",
        "message": finding.message,
        "advice": finding.advice,
    }
