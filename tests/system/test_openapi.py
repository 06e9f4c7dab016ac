"""The description of the routes: it is of all routes and no others, and answers are as it says, whatever is sent."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from blocksd.http.api.document import document
from blocksd.http.app import application
from blocksd.http.call import Described
from blocksd.http.places import Places
from blocksd.http.tokens import Tokens
from gateways import Served, daemon
from support import do_without

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = 15


def test_every_route_is_described() -> None:
    """Each by its method and path, with a sentence, and each schema that is referred to is there."""
    app = application("redis://127.0.0.1:1", "blocks", tokens=Tokens(), places=Places(None, has_tokens=False))
    found = document(app.routes)
    described = {(method.upper(), path) for path, methods in found["paths"].items() for method in methods}
    routes = {
        (method, route.path.replace(":path}", "}"))
        for route in app.routes
        if isinstance(route, Described)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert described == routes
    assert len([route for route in app.routes if isinstance(route, Described)]) == len(routes)
    operations = [one for methods in found["paths"].values() for one in methods.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    assert [one for one in operations if not one["summary"].endswith(".")] == []
    text = str(found)
    names = {part.partition("'")[0] for part in text.split("#/components/schemas/")[1:]}
    assert names == set(found["components"]["schemas"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_answers_are_as_described(tmp_path: Path) -> None:
    """schemathesis sends what fits the description and what does not: there is no 5xx, and nothing that is not described."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    install = [str(tmp_path / "venv/bin/pip"), "install", "--quiet", "schemathesis==4.*"]
    done = subprocess.run(install, capture_output=True, text=True, timeout=200, check=False)
    if done.returncode:
        do_without(f"schemathesis could not be installed: {(done.stderr or done.stdout)[-300:]}")
    (tmp_path / "daemon").mkdir()
    # Those of the examples, so that not all is 404.
    files = {f"{name}.md": '---\nagents: ["*"]\n---\ntext\n' for name in ("persona", "human", "notes")}
    with daemon(tmp_path / "daemon", {**files, "agents/support-1/own.md": "own\n"}) as (server, _):
        served = Served(tmp_path / "log", "--redis", server.url).ready()
        try:
            checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance"
            words = [
                *(str(tmp_path / "venv/bin/schemathesis"), "run", f"http://127.0.0.1:{served.port}/openapi.json"),
                *("--checks", f"{checks},response_schema_conformance", "--phases", "examples,coverage,fuzzing"),
                *("--max-examples", str(EXAMPLES), "--seed", "1", "--exclude-path", "/api/changes", "--no-shrink"),
                *("--suppress-health-check", "all", "--warnings", "off"),  # those that do not end are tested apart
            ]
            environ = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
            ran = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environ, check=False)
            assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-1000:]
        finally:
            served.end()
        assert "Traceback" not in served.said()
