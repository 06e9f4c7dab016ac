"""Our routes for the versions of a block: a list of them, one of them, and what differs between two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.errors import InvalidField
from blocksd.http.api.shapes import version_json
from blocksd.http.call import AGENTS, READS, route
from blocksd.http.description import ANYTHING, NUMBER, TEXT, About, keys, known, listed, mapped, or_null

if TYPE_CHECKING:
    from starlette.routing import Route

    from blocksd.http.call import Call, Gateway

_LIMIT = 50
_MOST = 1000
_NEEDED = {"type": "integer", "minimum": 1}


def routes(gateway: Gateway) -> list[Route]:
    """Return the routes."""
    read = READS + AGENTS
    some = {"limit": {"type": "integer", "minimum": 1, "maximum": _MOST}, "before": _NEEDED}
    page = keys({"items": listed(known("Version")), "next": or_null(NUMBER)})
    one = {"allOf": [known("Version"), keys({"block": or_null(mapped(ANYTHING))})]}
    texts = keys({"from": NUMBER, "to": NUMBER, "diff": TEXT})
    return [
        route(
            "/api/versions/{label:path}",
            "GET",
            versions,
            gateway,
            read,
            About("List the versions of a block, newest first; also of a deleted one.", query=some, answer=page),
        ),
        route(
            "/api/version/{label:path}",
            "GET",
            version,
            gateway,
            read,
            About(
                "Read one version, with the block as it was.",
                query={"version": _NEEDED},
                needs=("version",),
                answer=one,
            ),
        ),
        route(
            "/api/diff/{label:path}",
            "GET",
            diff,
            gateway,
            read,
            About(
                "Compare the texts of two versions: without `to` the newest, without `from` the one before. 0 is no text.",
                query={"from": NUMBER, "to": _NEEDED},
                answer=texts,
            ),
        ),
    ]


async def versions(call: Call) -> dict[str, Any]:
    query = call.query
    limit, before = query.number("limit", least=1, most=_MOST) or _LIMIT, query.number("before", least=1)
    page = await call.versions.list(call.path("label"), limit=limit, after=before)
    return {
        "items": [version_json(one) for one in page.items],
        "next": None if page.next is None else int(page.next),
    }


async def version(call: Call) -> dict[str, Any]:
    number = call.query.number("version", least=1)
    if number is None:
        raise InvalidField("version must be in the query: the number of a version", field="version")
    found = await call.versions.retrieve(call.path("label"), number)
    block = found.properties if found.block is None else found.block.as_json()
    return {**version_json(found), "block": block}


async def diff(call: Call) -> dict[str, Any]:
    old, new = call.query.number("from"), call.query.number("to", least=1)
    if new is None:
        page = await call.versions.list(call.path("label"), limit=1)
        new = page.items[0].version if page.items else 1
    old = new - 1 if old is None else old
    async with call.comparing:
        return {"from": old, "to": new, "diff": await call.versions.diff(call.path("label"), old, new)}
