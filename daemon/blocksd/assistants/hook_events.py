"""What coding assistants send to their hooks, and the JSON in which they take context: daemon/docs/mcp.md has the sources."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from blocksd.errors import InvalidRequest

CLIENTS = ("claude-code", "codex", "cursor", "gemini", "vscode")

Wanted = Literal["everything", "changes"]

_WANTED: dict[str, Wanted] = {
    "sessionstart": "everything",
    "subagentstart": "everything",
    "userpromptsubmit": "changes",
    "beforesubmitprompt": "changes",  # Cursor
    "beforeagent": "changes",  # Gemini CLI
    "posttooluse": "changes",
    "aftertool": "changes",  # Gemini CLI
}
"""The events at which an assistant takes context, in lower case: Cursor writes them with a small letter first."""

_SESSION_KEYS = ("session_id", "sessionId", "conversation_id")
_EVENT_KEYS = ("hook_event_name", "hookEventName")


@dataclass(frozen=True, slots=True)
class Event:
    """A call of a hook. `wanted` is None for an event at which nothing is given."""

    client: str
    name: str
    session: str
    wanted: Wanted | None

    @property
    def is_of_session(self) -> bool:
        """False for a sub-agent's: it has the id of its parent's session, and its own context."""
        return self.name.lower() != "subagentstart"

    def context(self, text: str) -> str:
        """Return the JSON that gives this text to the model."""
        if self.client == "cursor":
            found: dict[str, Any] = {"additional_context": text}
            if self.name == "beforeSubmitPrompt":
                found["continue"] = True
        else:
            found = {"hookSpecificOutput": {"hookEventName": self.name, "additionalContext": text}}
        return json.dumps(found, ensure_ascii=False)

    def warning(self, text: str) -> str:
        """Return the JSON that shows a warning to the user; empty where the client has none. Nothing is blocked by it."""
        return "" if self.client == "cursor" else json.dumps({"systemMessage": text}, ensure_ascii=False)


def parse_event(client: str, text: str) -> Event:
    """Return the event that a client has written to a hook's standard input.

    Raises:
        InvalidRequest: it is no JSON object with a name of an event and a session.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise InvalidRequest("the hook got no JSON object on standard input", field="stdin")
    name = next((given[key] for key in _EVENT_KEYS if isinstance(given.get(key), str)), "")
    session = next((given[key] for key in _SESSION_KEYS if isinstance(given.get(key), str)), "")
    if not name or not session:
        missing = "hook_event_name" if not name else "session_id"
        raise InvalidRequest(f"the hook got no {missing} on standard input", field="stdin")
    if client != "cursor" and "hookEventName" in given:
        client = "vscode"  # it also runs the hooks that are set for Claude Code
    wanted = _WANTED.get(name.lower())
    if client == "vscode" and name == "UserPromptSubmit":
        wanted = None  # it takes no context there
    return Event(client, name, session, wanted)
