"""Our route for the description of all routes, as OpenAPI has it: it is made of the routes themselves."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from blocksd.http.api.shapes import SCHEMAS
from blocksd.http.call import Described, route
from blocksd.http.description import ANYTHING, TEXT, About, known, mapped
from blocksd.http.letta.descriptions import SCHEMAS as SCHEMAS_OF_LETTA

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.routing import BaseRoute, Route

    from blocksd.http.call import Call, Gateway

_PATH = re.compile(r"{(\w+)(?::path)?}")
_NAME = {**TEXT, "minLength": 1}
_EXAMPLES = {"agent_id": "support-1", "tool": "core_memory_append"}
"""What stands in a path, for people to try: the agent and the block of the sample folder."""
_ERRORS = {
    401: "tokens are set, and this is none",
    403: "the role, or `read_only`, forbids it; a foreign `Host` or `Origin`",
    404: "there is no such block, agent or version, or not for this caller",
    409: "a label is taken, a file has a problem, or others changed it meanwhile",
    412: "the block is not of the version that `If-Match` names",
    413: "the body is too large",
    422: "a value cannot be so: the sentence says why",
    429: "too many wrong tokens came from this address",
    503: "Redis or the daemon does not serve for now",
}


def routes(gateway: Gateway) -> list[Route]:
    """Return the route."""
    about = About("Describe all routes, as OpenAPI 3.1 has it.", answer=mapped(ANYTHING))
    return [route("/openapi.json", "GET", openapi, gateway, (), about)]


async def openapi(call: Call) -> dict[str, Any]:
    return document(call.routes)


def document(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """Return the description of these routes."""
    paths: dict[str, dict[str, Any]] = {}
    for one in routes:
        if isinstance(one, Described):
            (method,) = (one.methods or set()) - {"HEAD"}
            paths.setdefault(_PATH.sub(r"{\1}", one.path), {})[method.lower()] = _operation(one, method)
    return {
        "openapi": "3.1.0",
        "info": {"title": "blocksd", "version": version("blocksd"), "description": "Memory blocks for AI agents."},
        "security": [{}, {"token": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": {**SCHEMAS, **SCHEMAS_OF_LETTA},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "blocksd",
                    "description": "with the port behind it",
                },
            },
        },
    }


def _operation(one: Described, method: str) -> dict[str, Any]:
    about = one.about
    words = re.findall(r"\w+", _PATH.sub(r"by_\1", one.path))
    found: dict[str, Any] = {
        "operationId": "_".join((method.lower(), *words)),
        "summary": about.summary,
        "tags": ["Letta" if one.path.startswith("/v1/") else "blocksd"],
        "parameters": _parameters(one, method),
        "responses": _responses(one, method),
    }
    if about.body is not None:
        found["requestBody"] = {
            "required": bool(about.body.get("required")),
            "content": {"application/json": {"schema": about.body}},
        }
    if not one.roles:
        found["security"] = [{}]
    return found


def _parameters(one: Described, method: str) -> list[dict[str, Any]]:
    names = _PATH.findall(one.path)
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _NAME, "example": _EXAMPLES.get(name, "persona")}
        for name in names
    ]
    found += [
        {"name": name, "in": "query", "required": name in one.about.needs, "schema": schema}
        for name, schema in one.about.query.items()
    ]
    headers: dict[str, dict[str, Any]] = {}
    if one.about.takes_version:
        headers["If-Match"] = {**TEXT, "pattern": r'^("[0-9]{1,15}(-[0-9a-f]{16})?"|\*)$'}
    if _is_tagged(one, method):
        headers["If-None-Match"] = {**TEXT, "minLength": 1}
    if method != "GET" and one.roles:
        headers["Idempotency-Key"] = {**TEXT, "minLength": 1}
    if one.about.media_type == "text/event-stream":
        headers["Last-Event-ID"] = {**TEXT, "pattern": r"^[0-9A-Za-z]{1,64}-[0-9]{1,16}$"}
    return found + [{"name": name, "in": "header", "schema": schema} for name, schema in headers.items()]


def _responses(one: Described, method: str) -> dict[str, Any]:
    about = one.about
    good: dict[str, Any] = {"description": "done"}
    if about.answer is not None:
        good["content"] = {about.media_type: {"schema": about.answer}}
    elif about.media_type != "application/json":
        good["content"] = {about.media_type: {"schema": TEXT}}
    if about.shows_version or _is_tagged(one, method):
        what = "the version of the block, and a digest of" if about.shows_version else "a digest of"
        good["headers"] = {"ETag": {"description": f"{what} the answer", "schema": TEXT}}
    same = {"304": {"description": "the answer has the `ETag` that `If-None-Match` names"}}
    statuses = {403, 404, 422, 503}
    if one.roles or about.body is not None:  # or a token that is wrong
        statuses |= {401, 429}
    if method != "GET":
        statuses |= {409, 413} | ({412} if about.takes_version else set())
    errors = {
        str(status): {
            "description": _ERRORS[status],
            "content": {"application/json": {"schema": known("Error")}},
        }
        for status in sorted(statuses)
    }
    return {str(about.status): good, **(same if _is_tagged(one, method) else {}), **errors}


def _is_tagged(one: Described, method: str) -> bool:
    """Return True if the answer can be asked for by `If-None-Match`."""
    return method == "GET" and one.about.media_type == "application/json"
