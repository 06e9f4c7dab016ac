"""Our route for several changes at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.client.reading_async import resolve_all
from blocksd.errors import InvalidField
from blocksd.http.api.naming import own_name
from blocksd.http.arguments import list_of
from blocksd.http.call import AGENTS, WRITES, route
from blocksd.http.description import ANYTHING, NUMBER, TEXT, About, keys, listed, mapped, one_of, or_null
from blocksd.requests.queries import QUERIES
from blocksd.requests.request import OPS

if TYPE_CHECKING:
    from starlette.routing import Route

    from blocksd.http.call import Call, Gateway

_OPS = tuple(op for op in OPS if op not in ("batch", "open_file", "close_file", *QUERIES))


def routes(gateway: Gateway) -> list[Route]:
    """Return the route."""
    part = keys(
        {"op": one_of(*_OPS)},
        {
            "label": TEXT,
            "args": mapped(ANYTHING),
            "expect": keys({}, {"version": NUMBER, "id": TEXT}, others=False),
            "on_conflict": one_of("fail", "merge", "overwrite"),
        },
        others=False,
    )
    done = keys({"label": TEXT, "seq": or_null(NUMBER), "version": NUMBER})
    return [
        route(
            "/api/batch",
            "POST",
            batch,
            gateway,
            WRITES + AGENTS,
            About(
                "Change several blocks at once: all of it is done, or none.",
                body=keys({"requests": listed(part)}, others=False),
                answer=keys({"results": listed(done)}),
            ),
        )
    ]


async def batch(call: Call) -> dict[str, Any]:
    """Change several blocks. A part is what the daemon's batch takes; an agent, too, names blocks by `label` here."""
    body = call.body()
    parts = list_of(body, "requests", dict)
    if body.keys() != {"requests"}:
        raise InvalidField("a batch has the key requests: a list of requests, each with its op", field="requests")
    wrong = [part["label"] for part in parts if "label" in part and not isinstance(part["label"], str)]
    if wrong:
        raise InvalidField("label must be a text", field="label")
    if call.agent is None:
        places = [place for place, part in enumerate(parts) if "label" in part]
        labels = await resolve_all(call.transport, [parts[place]["label"] for place in places])
        parts = [dict(part) for part in parts]
        for place, label in zip(places, labels, strict=True):
            parts[place]["label"] = label
    else:
        parts = [_of_agent(call.agent, part) for part in parts]
    reply = await call.ask("batch", {"requests": parts})
    shown = ("label", "seq", "version")
    return {"results": [{name: one[name] for name in shown} for one in reply["results"]]}


def _of_agent(agent: str, part: dict[str, Any]) -> dict[str, Any]:
    """Return a part as the agent sends it: with its name for the block."""
    others = {name: value for name, value in part.items() if name != "label"}
    return {**others, "name": own_name(agent, part["label"])} if "label" in part else others
