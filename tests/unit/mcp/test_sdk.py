"""The start of `blocksd mcp`: what of the SDK it loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
from blocksd.mcp import sdk
{before}
server = sdk.load_stdio()
from blocksd.mcp.server import Handlers
Handlers(None, None).server()
loaded = ("starlette", "uvicorn", "httpx2", "mcp.client", "mcp.server.streamable_http", "mcp.server.auth.settings")
print(server.__name__, [name for name in loaded if name in sys.modules])
{after}
"""


def said(before: str = "", after: str = "") -> str:
    script = SCRIPT.format(before=before, after=after)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


def test_http_parts_are_not_loaded() -> None:
    """They take a third of the start. They can be loaded afterwards: nothing stands in their place any more."""
    after = "from starlette.routing import Route; import inspect; print(inspect.isclass(Route) and Route.__module__)"
    assert said(after=after) == "blocksd.mcp.stdio []\nstarlette.routing\n"


def test_other_versions_of_the_sdk_are_loaded_whole() -> None:
    """If something in it does not bear that parts are left out."""
    broken = "sdk._LEFT_OUT += ('mcp.shared.exceptions', 'anyio')"
    assert said(broken).startswith("blocksd.mcp.stdio ['starlette', ")
