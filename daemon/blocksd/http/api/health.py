"""Our routes about the whole: problems, the audit, the daemon's status, and deletions that are held back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.client.reading_async import agent_named
from blocksd.http.call import AGENTS, READS, route
from blocksd.http.description import ANYTHING, FLAG, NUMBER, TEXT, About, keys, listed, mapped, or_null

if TYPE_CHECKING:
    from starlette.routing import Route

    from blocksd.http.call import Call, Gateway

_STATUS_SECONDS = 5.0
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
    ]


async def problems(call: Call) -> dict[str, Any]:
    found = await call.client.problems()
    if call.agent is not None:
        labels = set((await agent_named(call.transport, call.agent)).blocks.values())
        found = [one for one in found if one["label"] in labels]
    return {"items": found}


async def status(call: Call) -> dict[str, Any]:
    return await call.client.status(timeout_seconds=_STATUS_SECONDS)
