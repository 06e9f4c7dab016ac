"""How the application finds the route of a request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router

from blocksd.http.app import application
from blocksd.http.places import Places
from blocksd.http.tokens import Tokens
from blocksd.mcp.over_http import OverHTTP

if TYPE_CHECKING:
    import pytest
    from starlette.types import Scope


def test_routes_are_found_as_starlette_finds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them, whatever follows its first two parts, also by a method that it has not; and what is no route."""
    app = application(
        "unix:///nowhere", "blocks", tokens=Tokens(), places=Places(None, has_tokens=False), parts=[OverHTTP]
    )
    found: list[Route] = []

    async def handle(route: Route, *_: Any) -> None:
        found.append(route)

    monkeypatch.setattr(Route, "handle", handle)

    def by(router: Router, scope: Scope) -> Any:
        none: Any = None  # which `handle` does not use
        try:
            router.app({**scope}, none, none).send(None)
        except StopIteration:
            route = found.pop()
            return route if scope["method"] in (route.methods or (scope["method"],)) else 405
        except HTTPException as error:
            return error.status_code

    plain = Router(app.routes, redirect_slashes=False)
    routes = [route for route in app.routes if isinstance(route, Route)]
    paths = {
        re.sub(r"{\w+(:path)?}", filled, route.path) for route in routes for filled in ("x", "a%2Fb", "count", "a/b")
    }
    wrong = {f"{path}/nothing" for path in paths} | {
        "/v1",
        "/v1/nothing",
        "/nothing",
        "//",
        "/v1//",
        "",
        "/page",
        "/api/{label}",
    }
    for path in paths | wrong:
        for method in ("GET", "POST", "PATCH", "DELETE", "PUT", "BREW"):
            scope: Scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": [], "app": app}
            assert by(app.router, scope) == by(plain, scope), (method, path)
