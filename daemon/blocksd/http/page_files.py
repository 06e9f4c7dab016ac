"""The files of the page in the browser, with the headers that keep it to itself."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from blocksd.http.guard import PAGE

if TYPE_CHECKING:
    from starlette.requests import Request

    from blocksd.http.call import Gateway

DIRECTORY = Path(__file__).parent / "page"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",  # a browser asks each time, by the digest
}


def routes(_gateway: Gateway) -> list[Route]:
    """Return the routes. They answer everyone: nothing in the files is of blocks."""
    files = {path.name: path for path in sorted(DIRECTORY.iterdir()) if path.suffix in _TYPES}
    paths = {PAGE + name: path for name, path in files.items() if path.suffix != ".html"}
    return [_route(place, path) for place, path in {"/": files["index.html"], **paths}.items()]


def _route(place: str, path: Path) -> Route:
    content = path.read_bytes()
    tag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "content-type": _TYPES[path.suffix], "etag": tag}

    async def endpoint(request: Request) -> Response:
        known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
        if tag in known or known == ["*"]:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers)

    return Route(place, endpoint, methods=["GET"])
