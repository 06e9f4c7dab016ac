"""What coding assistants write to their hooks, and the JSON that they take: checked against their published schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from blocksd.assistants.hook_events import CLIENTS, parse_event
from blocksd.errors import InvalidRequest

SCHEMAS: dict[str, Any] = json.loads((Path(__file__).parent / "schemas.json").read_text(encoding="utf-8"))
"""The parts that are used of each schema, with its place."""

STARTS = dict.fromkeys(CLIENTS, "SessionStart") | {"cursor": "sessionStart"}
PROMPTS = {
    "claude-code": "UserPromptSubmit",
    "codex": "UserPromptSubmit",
    "cursor": "beforeSubmitPrompt",
    "gemini": "BeforeAgent",
    "vscode": "PostToolUse",
}


def fits(name: str, value: Any) -> None:
    jsonschema.validate(value, SCHEMAS[name]["schema"], jsonschema.Draft7Validator)


def sent(client: str, event: str) -> str:
    """As the client's documentation has it."""
    common = {"cwd": "/x", "prompt": "Hello.", "source": "startup"}
    if client == "vscode":
        return json.dumps(
            {**common, "sessionId": "one", "hookEventName": event, "timestamp": "2026-02-09T10:30:00.000Z"}
        )
    session = "conversation_id" if client == "cursor" else "session_id"
    return json.dumps({**common, session: "one", "hook_event_name": event, "transcript_path": None})


@pytest.mark.parametrize("client", CLIENTS)
def test_events_of_each_client_are_known(client: str) -> None:
    """One begins a session, and one comes at each turn; others are none of ours."""
    start = parse_event(client, sent(client, STARTS[client]))
    assert (start.wanted, start.session, start.is_of_session) == ("everything", "one", True)
    assert parse_event(client, sent(client, PROMPTS[client])).wanted == "changes"
    assert parse_event(client, sent(client, "Stop")).wanted is None
    child = parse_event(client, sent(client, "SubagentStart"))
    assert (child.wanted, child.is_of_session) == ("everything", False)


@pytest.mark.parametrize("client", ["claude-code", "codex", "gemini", "vscode"])
@pytest.mark.parametrize("events", [STARTS, PROMPTS])
def test_context_names_the_event(client: str, events: dict[str, str]) -> None:
    """As `hookSpecificOutput.additionalContext`."""
    given = json.loads(parse_event(client, sent(client, events[client])).context("é </x>"))
    assert given == {"hookSpecificOutput": {"hookEventName": events[client], "additionalContext": "é </x>"}}
    if client == "codex":
        fits(f"codex: output of {events[client]}", given)


def test_context_for_cursor() -> None:
    """It has other names, and a prompt goes on only if that is said."""
    start = parse_event("cursor", sent("cursor", "sessionStart"))
    assert json.loads(start.context("x")) == {"additional_context": "x"}
    prompt = parse_event("cursor", sent("cursor", "beforeSubmitPrompt"))
    assert json.loads(prompt.context("x")) == {"continue": True, "additional_context": "x"}


@pytest.mark.parametrize("client", CLIENTS)
def test_warning_blocks_nothing(client: str) -> None:
    """It is for the user alone."""
    text = parse_event(client, sent(client, STARTS[client])).warning("no daemon")
    assert text == ("" if client == "cursor" else '{"systemMessage": "no daemon"}')
    if client == "codex":
        fits("codex: output of SessionStart", json.loads(text))


def test_hook_of_claude_code_that_vscode_runs() -> None:
    """It reads ~/.claude/settings.json, too, writes other keys, and takes no context at a prompt: that must not be lost."""
    event = parse_event("claude-code", sent("vscode", "UserPromptSubmit"))
    assert event.wanted is None
    assert parse_event("claude-code", sent("vscode", "SessionStart")).wanted == "everything"


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", '{"session_id": 5}', '{"session_id": "x"}', "[" * 10_000])
@pytest.mark.parametrize("client", CLIENTS)
def test_what_is_no_event_is_refused(client: str, text: str) -> None:
    """By name."""
    with pytest.raises(InvalidRequest, match="on standard input"):
        parse_event(client, text)
