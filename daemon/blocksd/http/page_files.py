"""The files of the page in the browser, with the headers that keep it to itself."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from blocksd.http.guard import PAGE

if TYPE_CHECKING:
    from starlette.requests import Request

DIRECTORY = Path(__file__).parent / "page"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",  # a browser asks each time, by the digest
}


def routes() -> list[Route]:
    """Return the routes. They answer everyone: nothing in the files is of blocks."""
    files = {path.name: _File(path) for path in DIRECTORY.iterdir() if path.suffix in _TYPES}

    async def page(request: Request) -> Response:
        return files["index.html"].answer(request)

    async def part(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            raise HTTPException(404)
        return files[name].answer(request)

    return [Route("/", page, methods=["GET"]), Route(f"{PAGE}{{name}}", part, methods=["GET"])]


class _File:
    """A file, read once."""

    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()
        self._tag = f'"{sha256(self._content).hexdigest()[:32]}"'
        self._headers = {**_HEADERS, "content-type": _TYPES[path.suffix], "etag": self._tag}

    def answer(self, request: Request) -> Response:
        known = (tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(","))
        if self._tag in known:
            return Response(status_code=304, headers=self._headers)
        return Response(self._content, headers=self._headers)
