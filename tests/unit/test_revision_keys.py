from __future__ import annotations

import json
from dataclasses import replace

import pytest

from blocksd.errors import Damaged, Misconfigured
from blocksd.mirror.keys import Keys
from blocksd.mirror.projection import change_of
from blocksd.model.revision import Change, reset, timestamp
from rig import AT, revision


def test_change_has_the_documented_keys_in_order() -> None:
    """The JSON of a change has these keys, in this order, on one line."""
    made = revision(
        41, "organization", kind="updated", version=7, agents=("support-2",), attached=("support-2",), value="x"
    )
    text = change_of(made, "e" * 32)
    assert "\n" not in text
    assert list(json.loads(text).items()) == [
        ("seq", 41),
        ("kind", "updated"),
        ("label", "organization"),
        ("version", 7),
        ("fields", ["value"]),
        ("attached", ["support-2"]),
        ("detached", []),
        ("author", "file"),
        ("digest", made.digest),
        ("at", AT),
        ("request_id", None),
        ("epoch", "e" * 32),
    ]


def test_change_of_a_deletion_has_no_digest() -> None:
    """A deleted block has nothing to have a digest of."""
    raw = json.loads(change_of(revision(2, kind="deleted", version=2, detached=("ann",)), "e"))
    assert (raw["kind"], raw["digest"], raw["detached"]) == ("deleted", None, ["ann"])


def test_change_keeps_unicode() -> None:
    """Labels of any script travel as they are."""
    assert '"日本/ü"' in change_of(revision(1, "日本/ü", value="x"), "e")


def test_change_is_read_as_it_was_said() -> None:
    """A subscriber gets kind, seq, epoch and label by name, and all else as it was sent."""
    text = change_of(revision(3, "notes", value="x"), "e")
    change = Change.loads(text)
    assert (change.kind, change.seq, change.epoch, change.label) == ("created", 3, "e", "notes")
    assert change.raw == json.loads(text)


def test_change_says_whose_text_a_save_took_away() -> None:
    """Only then it has the key; what are no versions is no change."""
    saved = replace(revision(4, kind="updated", version=4, value="x"), reverts=(2, 3))
    assert Change.loads(change_of(saved, "e")).reverts == (2, 3)
    assert Change.loads(change_of(revision(4, value="x"), "e")).reverts == ()
    for wrong in ('["2"]', "[true]", "2"):
        with pytest.raises(Damaged):
            Change.loads(f'{{"kind": "updated", "reverts": {wrong}}}')


def test_change_without_a_seq_is_a_problem() -> None:
    """What says nothing of the sequence has no number."""
    change = Change.loads('{"kind": "cleared", "subject": "x.md"}')
    assert (change.kind, change.seq, change.label) == ("cleared", None, None)


def test_reset_names_the_place_to_read_from() -> None:
    """A reset has the seq up to which everything must be read again."""
    assert json.loads(reset(9, "e", AT)) == {"seq": 9, "kind": "reset", "at": AT, "epoch": "e"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1795165200.0, "2026-11-20T09:00:00.000Z"),
        (1795165200.1239, "2026-11-20T09:00:00.123Z"),
        (1795165200.9999, "2026-11-20T09:00:00.999Z"),
        (-1.5, "1969-12-31T23:59:58.500Z"),
    ],
)
def test_timestamp_is_rfc_3339_in_utc(seconds: float, text: str) -> None:
    """Times are in UTC, to the millisecond, all of one length, so that they sort as text."""
    assert timestamp(seconds) == text


@pytest.mark.parametrize(
    "namespace", ["blocks", "b", "B_1.x-y", "0", "{blocks}", "{a.b-c}", "x" * 64, "{" + "x" * 62 + "}"]
)
def test_namespace(namespace: str) -> None:
    """Letters, digits, `_`, `-` and `.`; all of it may be in braces, for a cluster."""
    keys = Keys(namespace)
    names = [keys.agents, keys.labels, keys.ids, keys.problems, keys.meta, keys.lease, keys.changes]
    names += [
        keys.block("a/b"),
        keys.attached("a/b"),
        keys.agent("x"),
        keys.changes_of_block("l"),
        keys.changes_of_agent("x"),
    ]
    assert all(name.startswith(f"{namespace}:") for name in names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "namespace",
    [
        "",
        "a:b",
        "a b",
        "a*",
        "-a",
        ".a",
        "a\n",
        "ü",
        "{}",
        "{a",
        "a}",
        "x{a}",
        "{a}x",
        "x" * 65,
        "{" + "x" * 63 + "}",
        "a/b",
        "[a]",
    ],
)
def test_no_namespace(namespace: str) -> None:
    """What could be a pattern, another namespace's key or two slots is refused."""
    with pytest.raises(Misconfigured) as refusal:
        Keys(namespace)
    assert refusal.value.facts["key"] == "namespace"


def test_key_names() -> None:
    """The names other programs rely on."""
    keys = Keys("blocks")
    assert keys.block("system/human") == "blocks:block:system/human"
    assert keys.attached("system/human") == "blocks:attached:system/human"
    assert keys.agent("ann") == "blocks:agent:ann"
    assert keys.changes_of_block("system/human") == "blocks:changes:block:system/human"
    assert keys.changes_of_agent("ann") == "blocks:changes:agent:ann"
    assert keys.changes_of_source("manuals") == "blocks:changes:source:manuals"
    assert (keys.sources, keys.source("manuals")) == ("blocks:sources", "blocks:source:manuals")
    assert keys.source_agents("manuals") == "blocks:source-agents:manuals"
    assert (keys.file("manuals/a b.txt"), keys.open("ann")) == ("blocks:file:manuals/a b.txt", "blocks:open:ann")
    assert (keys.inbox("ann"), keys.reply("ann:r-1")) == ("blocks:inbox:ann", "blocks:reply:ann:r-1")
    assert (keys.labels, keys.agents, keys.ids, keys.problems, keys.meta, keys.lease, keys.changes) == tuple(
        f"blocks:{name}" for name in ("labels", "agents", "ids", "problems", "meta", "lease", "changes")
    )
