"""A hook's answers over a session: the whole memory, then what has changed, by the mirror and the daemon's history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from blocksd.assistants import hook as hook_module
from blocksd.assistants.hook import Hook
from blocksd.assistants.hook_events import Event
from blocksd.assistants.sessions import Sessions
from blocksd.client.blocking.transport import Transport
from blocksd.errors import NotFound, Unavailable
from rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import RedisServer

START = Event("claude-code", "SessionStart", "one", "everything")
PROMPT = Event("claude-code", "UserPromptSubmit", "one", "changes")
SAM = "agents/sam/notes"
LONG = "".join(f"Line {number}.\n" for number in range(50))


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no threads that would answer a request."""
    monkeypatch.setattr(hook_module, "_REQUEST_SECONDS", 0.05)


@pytest.fixture
def rig(tmp_path: Path, standing_server: Callable[[str], RedisServer]) -> Iterator[Rig]:
    """A daemon without threads, with one agent."""
    made = Rig(tmp_path / "one", standing_server("valkey").url)
    made.save_and_settle(SAM, LONG)
    yield made
    made.crash()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The requests made of the daemon."""
    made: list[object] = []
    request = Transport.request

    def counted(*given: Any, **terms: Any) -> Any:
        made.append(given)
        return request(*given, **terms)

    monkeypatch.setattr(Transport, "request", counted)
    return made


@pytest.fixture
def call(rig: Rig, tmp_path: Path) -> Callable[..., str]:
    """Call the hook, in a process of its own as far as it can tell."""

    def ask(event: Event, agent: str = "sam", directory: Path = tmp_path / "sessions", *, is_given: bool = True) -> str:
        transport = Transport(rig.url, "blocks")
        try:
            hook = Hook(lambda: transport, "blocks", agent, Sessions(str(directory)), 10_000)
            text, confirm = hook.context(event)
        finally:
            transport.close()
        if is_given:
            confirm()
        return text

    return ask


def test_session_is_shown_everything_and_then_changes(rig: Rig, call: Callable[..., str]) -> None:
    """Each change once; nothing when nothing has changed, nor when something has that is none of the agent's."""
    assert call(START).startswith("<memory_blocks>\n")
    assert call(PROMPT) == ""
    rig.save_and_settle("agents/bob/notes", "Bob's.\n")
    assert call(PROMPT) == ""
    rig.save_and_settle(SAM, LONG.replace("Line 7.", "Line seven."))
    text = call(PROMPT)
    assert "Block notes was changed" in text
    assert "Line seven." in text
    assert call(PROMPT) == ""
    assert "Line seven." in call(START)


def test_session_that_is_not_known_is_shown_everything(call: Callable[..., str]) -> None:
    """As when the daemon did not run when it began, or when it was forgotten; each session stands for itself."""
    assert call(PROMPT).startswith("<memory_blocks>\n")
    assert call(PROMPT) == ""
    other = Event("claude-code", "UserPromptSubmit", "two", "changes")
    assert call(other).startswith("<memory_blocks>\n")


def test_subagent_is_shown_everything_and_changes_nothing(rig: Rig, call: Callable[..., str]) -> None:
    """It bears the id of its parent's session, which has not seen what it sees."""
    call(START)
    rig.save_and_settle(SAM, "New.\n")
    assert "New." in call(Event("claude-code", "SubagentStart", "one", "everything"))
    assert "New." in call(PROMPT)


def test_another_epoch_is_no_reason_to_show_all_again(rig: Rig, call: Callable[..., str], asked: list[object]) -> None:
    """What is the same is not shown, though its versions are others; what is not is shown whole: no version is asked for."""
    rig.save_and_settle("agents/sam/other", "Other.\n")
    call(START)
    rig.crash()
    (rig.home / "journal.db").unlink()
    rig.open()
    for text in ("Once.\n", "Twice.\n"):
        rig.save_and_settle("agents/sam/other", text)
    text = call(PROMPT)
    assert "Block other was changed. It is now:\n" in text
    assert "Line 7." not in text
    assert asked == []
    assert call(PROMPT) == ""


def test_daemon_that_does_not_answer_is_asked_once(rig: Rig, call: Callable[..., str], asked: list[object]) -> None:
    """Then every changed block is shown as it is."""
    rig.save_and_settle("agents/sam/other", LONG)
    call(START)
    rig.write(SAM, f"{LONG}End.\n")
    rig.save_and_settle("agents/sam/other", f"{LONG}End.\n")
    text = call(PROMPT)
    assert "Block notes was changed. It is now:\n" in text
    assert "Block other was changed. It is now:\n" in text
    assert len(asked) == 1


def test_what_was_not_given_is_given_at_the_next_turn(rig: Rig, call: Callable[..., str]) -> None:
    """As when the assistant did not wait for the answer."""
    call(START)
    rig.save_and_settle(SAM, LONG.replace("Line 7.", "Line seven."))
    text = call(PROMPT, is_given=False)
    assert "Line seven." in text
    assert call(PROMPT) == text
    assert call(PROMPT) == ""


def test_start_that_gives_nothing_is_made_up_for(rig: Rig, call: Callable[..., str]) -> None:
    """After a compaction the model has lost what the session was shown: if Redis is lost then, it gets everything later."""
    call(START)
    rig.client.rename("blocks:meta", "kept")
    with pytest.raises(Unavailable):
        call(START)
    rig.client.rename("kept", "blocks:meta")
    assert call(PROMPT).startswith("<memory_blocks>\n")


def test_what_cannot_be_remembered_is_not_shown_at_each_turn(call: Callable[..., str], tmp_path: Path) -> None:
    """At the start it is shown all the same."""
    (tmp_path / "file").write_text("")
    assert call(START, directory=tmp_path / "file" / "x").startswith("<memory_blocks>\n")
    with pytest.raises(OSError, match="file"):
        call(PROMPT, directory=tmp_path / "file" / "x")


def test_agent_or_mirror_that_is_not_there(rig: Rig, call: Callable[..., str]) -> None:
    """Is an error, for the command to report."""
    with pytest.raises(NotFound, match="there is no agent 'bob'"):
        call(START, agent="bob")
    rig.client.flushall()
    with pytest.raises(Unavailable):
        call(START)


def test_other_events_are_not_answered(call: Callable[..., str]) -> None:
    """They ask nothing of Redis."""
    assert call(Event("claude-code", "Stop", "one", None)) == ""
