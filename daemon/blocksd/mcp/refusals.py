"""Refusals: an error of blocksd as a text for a language model, with the next step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.client.tools import Mistake
from blocksd.errors import (
    AlreadyExists,
    BlocksdError,
    Damaged,
    InternalError,
    InvalidLabel,
    InvalidRequest,
    LabelConflict,
    LimitExceeded,
    MergeConflict,
    Misconfigured,
    NotAttached,
    NotFound,
    ProblemFile,
    ReadOnly,
    Unavailable,
    VersionConflict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_LABELS = "a label is a name such as 'plan', or a path such as 'notes/today'"
_STEPS: tuple[tuple[type[BlocksdError], str], ...] = (
    (NotAttached, "memory_list lists your blocks"),
    (NotFound, "memory_list lists your blocks, and memory_create makes a private one"),
    (ReadOnly, "only a person changes it: put the text into another block, or tell the person"),
    (InvalidLabel, _LABELS),
    (LimitExceeded, "write less, make room with memory_rethink, or use another block"),
    (AlreadyExists, "choose another label, or change that block"),
    (LabelConflict, "choose another label"),
    (VersionConflict, "memory_view shows the present text: make the change again in it"),
    (MergeConflict, "memory_view shows the present text: make the change again in it"),
    (ProblemFile, "a person must repair its file: 'blocksd status' says what is wrong with it"),
    (InternalError, "this is a fault of blocksd: its log says more; other blocks can be changed"),
    (Misconfigured, "an operator must correct the settings: 'blocksd doctor' checks them"),
)
"""The next step after each kind of error; the first that fits."""


def is_unknown_agent(error: BlocksdError, agent: str) -> bool:
    """Return True if the error says that this agent is not known."""
    return isinstance(error, NotFound) and error.facts == {"agent": agent}


def refusal(error: BlocksdError | Mistake, names: Mapping[str, str] | None = None, *, agent: str = "") -> str:
    """Return the text. `names` are a tool's arguments → their names in blocksd, where these differ."""
    if isinstance(error, Mistake):
        return f"Not done: {error.message}."
    message = _trouble(error)
    if is_unknown_agent(error, agent):
        step = (
            f"an operator makes it known: 'blocksd attach LABEL {agent}', a folder agents/{agent}, or "
            f"'blocksd mcp --agent {agent} --create'"
        )
        return f"Not done: {message} yet. Next step: {step}."
    if isinstance(error, Unavailable):
        return f"Not done: {message}. Next step: {_after(error)}."
    argument = str(error.facts.get("argument", ""))
    if argument and message.startswith(f"{argument} "):
        shown = next((name for name, its in (names or {}).items() if its == argument), argument)
        message = shown + message.removeprefix(argument)
    step = next((step for kind, step in _STEPS if isinstance(error, kind)), "")
    if isinstance(error, InvalidRequest):
        step = _after_request(error)
    return f"Not done: {message}." + (f" Next step: {step}." if step else "")


def _after_request(error: InvalidRequest) -> str:
    facts = error.facts
    if "argument" in facts:
        return "memory_view shows the present text"
    if facts.get("field") == "request":
        return "send it in several calls"
    return _LABELS if "label" in facts and "field" not in facts else ""


def _trouble(error: BlocksdError) -> str:
    """Return what is wrong, without addresses and users of Redis: they are for the log, and not for a model."""
    facts = error.facts
    if facts.get("lacks") == "login":
        return "Redis refuses the login"
    if facts.get("lacks") == "right":
        return "Redis does not permit this to its user"
    if isinstance(error, Unavailable) and "url" in facts and "mirror" not in facts and not isinstance(error, Damaged):
        return "Redis does not serve, so that memory can be neither read nor written"
    return error.message.replace(f" at {facts['url']}", "") if "url" in facts else error.message


def _after(error: Unavailable) -> str:
    if "request_id" in error.facts:
        return "memory_view shows if it was done; if not, try again in a moment"
    if "state" in error.facts:
        return "a person must start the daemon with 'blocksd run FOLDER'; then try again"
    return "try again in a moment; 'blocksd status' tells a person what is wrong"
