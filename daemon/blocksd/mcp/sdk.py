"""Loads the server over standard input and output without the HTTP parts of the SDK, which it does not use.

They take a third of the time until a client is answered. The SDK has no other way to leave them out: its packages load all
of their modules, and the module of its server those for HTTP.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module, invalidate_caches
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SERVER = "blocksd.mcp.stdio"
_BARE = ("mcp", "mcp.server")
"""Packages whose modules are found, and which do not load them themselves."""
_LEFT_OUT = (
    "mcp.server.auth",
    "mcp.server.streamable_http",
    "mcp.server.streamable_http_manager",
    "mcp.server.transport_security",
    "starlette",
)
"""Modules, and all below them, in whose places something stands that has every name."""


def load_stdio() -> Any:
    """Return the module of the server. With another version of the SDK, in which this fails, all of the SDK is loaded."""
    if "mcp" not in sys.modules:
        try:
            with _less_loaded():
                return import_module(_SERVER)
        except Exception:  # noqa: BLE001  # whatever another version of the SDK makes of it
            for name in [*sys.modules]:
                if _is_below(name, ("mcp", "blocksd.mcp")) and name != __name__:
                    del sys.modules[name]
            invalidate_caches()
    return import_module(_SERVER)


@contextmanager
def _less_loaded() -> Iterator[None]:
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in finder.left_out:
            sys.modules.pop(name, None)


class _Finder(MetaPathFinder, Loader):
    def __init__(self) -> None:
        self.left_out: list[str] = []

    def find_spec(self, name: str, path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if name in _BARE:
            found = PathFinder.find_spec(name, path)
            spec = ModuleSpec(name, self, is_package=True)
            spec.submodule_search_locations = None if found is None else found.submodule_search_locations
            return spec
        if not _is_below(name, _LEFT_OUT):
            return None
        self.left_out.append(name)
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return ModuleType(spec.name) if spec.name in _BARE else _Placeholder(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave it as it is."""


class _Placeholder(ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def _is_below(name: str, packages: Sequence[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in packages)
