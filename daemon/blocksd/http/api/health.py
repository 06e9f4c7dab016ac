"""Our routes about the whole: problems, the audit, the daemon's status, and deletions that are held back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.client.reading_async import agent_named
from blocksd.errors import InvalidField
from blocksd.http.call import AGENTS, READS, WRITES, route
from blocksd.http.description import ANYTHING, FLAG, NUMBER, TEXT, About, keys, listed, mapped, or_null
from blocksd.model.audit import Thresholds

if TYPE_CHECKING:
    from starlette.routing import Route

    from blocksd.http.call import Call, Gateway

_STATUS_SECONDS = 5.0
_MOST = 10**9
_POSITIVE = {"type": "integer", "minimum": 1, "maximum": _MOST}
_FINDING = keys({"kind": TEXT, "subject": TEXT, "message": TEXT, "advice": TEXT})
_PROBLEM = keys(
    {"subject": TEXT, "code": TEXT, "message": TEXT, "hint": TEXT, "label": or_null(TEXT), "line": or_null(NUMBER)},
    {"warning": FLAG, "since": or_null(TEXT)},
)


def routes(gateway: Gateway) -> list[Route]:
    """Return the routes."""
    return [
        route(
            "/api/problems",
            "GET",
            problems,
            gateway,
            READS + AGENTS,
            About(
                "List the problems, with what to do; to an agent, those of its blocks.",
                answer=keys({"items": listed(_PROBLEM)}),
            ),
        ),
        route(
            "/api/status",
            "GET",
            status,
            gateway,
            READS,
            About("Ask the daemon how it is, as `blocksd status --json` shows it.", answer=mapped(ANYTHING)),
        ),
        route(
            "/api/audit",
            "GET",
            audit,
            gateway,
            READS,
            About(
                "Find blocks and agents that need care, as `blocksd audit` does.",
                query={"stale_days": _POSITIVE, "prompt_chars": _POSITIVE},
                answer=keys({"items": listed(_FINDING)}),
            ),
        ),
        route(
            "/api/resume",
            "POST",
            resume,
            gateway,
            WRITES,
            About(
                "Accept the deletions that the daemon holds back.",
                body=keys({"accept_deletions": {"type": "boolean", "const": True}}, others=False),
                answer=keys({"accepted": or_null(NUMBER)}),
            ),
        ),
    ]


async def problems(call: Call) -> dict[str, Any]:
    found = await call.client.problems()
    if call.agent is not None:
        labels = set((await agent_named(call.transport, call.agent)).blocks.values())
        found = [one for one in found if one["label"] in labels]
    return {"items": found}


async def status(call: Call) -> dict[str, Any]:
    return await call.client.status(timeout_seconds=_STATUS_SECONDS)


async def audit(call: Call) -> dict[str, Any]:
    default = Thresholds()
    days = call.query.number("stale_days", least=1, most=_MOST) or default.stale_days
    chars = call.query.number("prompt_chars", least=1, most=_MOST) or default.prompt_chars
    async with call.auditing:
        findings = await call.client.audit(stale_days=days, prompt_chars=chars)
    return {"items": [finding.as_json() for finding in findings]}


async def resume(call: Call) -> dict[str, Any]:
    """Accept deletions; how many are held back so far, null if none are."""
    if call.body() != {"accept_deletions": True}:
        raise InvalidField("the body must say what to accept: accept_deletions, true", field="accept_deletions")
    reply = await call.ask("accept_deletions")
    return {"accepted": reply["accepted"]}
