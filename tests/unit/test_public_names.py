"""What `import blocksd` offers, and what it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import blocksd


def test_catalogue_is_complete() -> None:
    """The catalogue of public names, what a type checker sees, and what can be had are the same names, sorted."""
    tree = ast.parse(Path(blocksd.__file__).read_text(encoding="utf-8"))
    checking = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname or alias.name: node.module
        for node in checking.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(blocksd.__all__) == set(seen)
    assert blocksd.__all__ == sorted(blocksd.__all__)
    assert {name: f"blocksd.{home}" for name, home in blocksd._HOMES.items()} == seen


@pytest.mark.parametrize("name", blocksd.__all__)
def test_public_name_resolves(name: str) -> None:
    """Every public name can be had from the package, and is what the module it lives in has under that name."""
    home = sys.modules[f"blocksd.{blocksd._HOMES[name]}"] if getattr(blocksd, name) else None
    assert getattr(blocksd, name) is getattr(home, name)


def test_all_names_are_imported_at_once() -> None:
    """`from blocksd import *` gives the catalogue, and nothing else."""
    given: dict[str, object] = {}
    exec("from blocksd import *", given)
    assert given.keys() - {"__builtins__"} == set(blocksd.__all__)


def test_other_names_are_not_there() -> None:
    """A name that is none is an AttributeError that says so, and an ImportError where it is imported."""
    with pytest.raises(AttributeError, match=r"^module 'blocksd' has no attribute 'Nothing'$"):
        blocksd.Nothing  # noqa: B018  # asking is the test
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        exec("from blocksd import Nothing")
    assert not hasattr(blocksd, "__wrapped__")


def loaded_by(code: str) -> set[str]:
    """The modules a fresh interpreter has loaded after this."""
    script = f"import sys\n{code}\nprint(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_import_loads_nothing() -> None:
    """Importing the package loads none of its modules, and nothing it depends on."""
    added = loaded_by("import blocksd") - loaded_by("")
    assert {name for name in added if name.startswith("blocksd.")} == set()
    assert not added & {"redis", "watchdog", "yaml", "click", "rich", "sqlite3", "asyncio"}


def test_errors_are_caught_without_redis() -> None:
    """Who names an error or a client has not loaded Redis, nor what only the daemon needs."""
    loaded = loaded_by("from blocksd import NotFound, Unavailable, Client, AsyncClient, connect")
    assert not loaded & {"redis", "watchdog", "yaml", "click", "rich"}


def test_memory_tool_needs_the_sdk_when_it_is_used() -> None:
    """The SDK, which takes a second or two to load, is not loaded before; without it, the error says what to install."""
    assert "anthropic" not in loaded_by("import blocksd, blocksd.anthropic")
    script = "import sys\nsys.modules['anthropic'] = None\nimport blocksd\nimport blocksd.anthropic"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert told.stderr.endswith(
        "ModuleNotFoundError: blocksd.anthropic needs Anthropic's SDK: install it by pip install 'blocksd[anthropic]'\n"
    )
