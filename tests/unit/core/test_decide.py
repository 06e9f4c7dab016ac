"""Deciding changes nothing: what follows is a draft, which can be printed, and thrown away."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from blocksd.core import decide as deciding
from blocksd.core.decide import Asked, Draft, decide_on_files
from looking import GRACE, Looking, drop, happened

if TYPE_CHECKING:
    import pytest

    from blocksd.state.observed import Observed

AT = "2026-11-20T09:00:00.000Z"


def seen(looking: Looking) -> Observed:
    """What a round would see now."""
    found, batch = looking.intake.collect(256)
    found.files = looking.intake.read(batch)
    return found


def facts(looking: Looking) -> dict[str, Any]:
    """All of the state that a draft may stand on."""
    state = looking.state
    names = ("paths", "labels", "signatures", "versions", "taken", "unmerged")
    return {name: copy.copy(getattr(state, name)) for name in names} | {
        "attached": dict(state.attachments.attached),
        "known": state.attachments.known,
        "problems": looking.problems.copy(),
        "seq": looking.journal.seq,
    }


def drafted(draft: Draft) -> list[tuple[int, str, str, int]]:
    return [(one.seq, one.kind, one.label, one.version) for one in draft.observed.revisions]


def test_the_same_follows_however_often_it_is_decided(looking: Looking) -> None:
    """The state, the problems and the journal are as they were; only what is committed changes them."""
    looking.save("notes", "---\nagents: '*'\n---\none\n")
    looking.save("old", "old text\n")
    looking.write("notes", "---\nagents: '*'\n---\ntwo\n")
    looking.write("new", "text\n")
    looking.write("bad", "---\n")
    looking.write("agents/ann/persona", "I am Ann.\n")
    drop(looking, ["old"])
    looking.intake.hint_all()
    observed, before = seen(looking), facts(looking)
    first = decide_on_files(looking.view, observed, Asked(), AT)
    assert drafted(first) == [
        (3, "created", "agents/ann/persona", 1),
        (4, "created", "new", 1),
        (5, "updated", "notes", 2),
    ]
    assert first.news.missing["old.md"]
    assert first.news.reports["bad.md"] is not None
    assert facts(looking) == before
    again = decide_on_files(looking.view, observed, Asked(), AT)
    assert (again.observed.revisions, again.files, again.news) == (first.observed.revisions, first.files, first.news)
    assert str(first).splitlines()[0] == "3 created agents/ann/persona v1 by file"


def test_file_on_which_the_daemon_fails_is_a_problem_and_nothing_else(
    looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was drafted of it is not in the draft; the others are."""
    real = deciding._enforce

    def failing(view: Any, draft: Draft, one: Any, *more: Any, **facts: Any) -> None:
        real(view, draft, one, *more, **facts)
        if one.path == "bad.md":
            raise ZeroDivisionError

    looking.write("good", "text\n")
    looking.write("bad", "text\n")
    looking.intake.hint_all()
    with monkeypatch.context() as patch:
        patch.setattr(deciding, "_enforce", failing)
        assert happened(looking.wait(GRACE)) == [("created", "good")]
    assert looking.problem("bad.md").code == "internal_error"
    assert "bad" not in looking.state.paths
