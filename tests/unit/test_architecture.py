"""One way to flow: a package, and a module, imports only from those above it."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import blocksd
from fenced import ROOT as CLONE
from fenced import fenced

PACKAGES = (
    "errors",
    "model",
    "settings",
    "files",
    "journal",
    "mirror",
    "state",
    "sources",
    "requests",
    "core",
    "protocol",
    "client",
    "anthropic",
    "monitoring",
    "embedded",
    "service",
    "follow",
    "http",
    "doctor",
    "mcp",
    "assistants",
    "cli",
)
"""From the package that knows nothing of the others to the one that knows them all; `errors` is a module."""

MODULES_PER_PACKAGE = 17
LINES_PER_MODULE = 350

ROOT = Path(blocksd.__file__).parent
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.rglob("*.py")}


def imports_of(module: str) -> set[str]:
    """Return the modules that one imports, at its top, in a function, or for types alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            package, _, name = str(node.module).partition(".")
            if package == "blocksd":
                full = [f"{name}.{alias.name}".removeprefix(".") for alias in node.names]
                found |= {one if one in MODULES else name for one in full}
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("blocksd") for alias in node.names), f"{module}: import names from it"
    return found - {""}


PARTS = {module: imports_of(module) for module in MODULES if module not in ("__init__", "__main__")}


def test_packages_import_only_from_those_above() -> None:
    """Packages have an order, types included, so that a reader needs to know only those above."""
    place = {package: number for number, package in enumerate(PACKAGES)}
    wrong = [
        (module, imported)
        for module, all_imported in PARTS.items()
        for imported in all_imported
        if place[imported.partition(".")[0]] > place[module.partition(".")[0]]
    ]
    assert wrong == []


def test_no_module_needs_itself() -> None:
    """The modules have an order, too: there is no circle of imports, not even of types."""
    assert len(list(TopologicalSorter(PARTS).static_order())) == len(PARTS)


@pytest.mark.parametrize("package", PACKAGES[1:])
def test_packages_are_small_rooms(package: str) -> None:
    """A package has a sentence that says what is inside, and not too many modules."""
    text = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8")))
    assert text is not None
    assert text.endswith(".")
    assert 1 < len(list((ROOT / package).glob("*.py"))) - 1 <= MODULES_PER_PACKAGE


def test_modules_are_short_enough_to_be_read_at_once() -> None:
    """A module has one sentence; one that grows beyond the bound has two."""
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert {module: lines for module, lines in lengths.items() if lines > LINES_PER_MODULE} == {}


DRAWINGS = [block for block in fenced("daemon/docs/architecture.md") if block.mark.startswith("drawing")]
PEOPLE = {"agent", "editor", "subscribers"}


def test_map_in_the_documents_shows_the_packages() -> None:
    """All of them, in their order, with what each is for; and each file that a reader is sent to is there."""
    rows = [re.split(r" {3,}", line) for line in DRAWINGS[0].text.splitlines()]
    columns = [name for row in rows for name in " ".join(row[:-1]).split()]
    assert columns == list(PACKAGES)
    text = (CLONE / "daemon/docs/architecture.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \| \w", text, re.MULTILINE) == list(PACKAGES)
    named = re.findall(r"`(\w+/(?:\w+\.(?:py|lua))?)`", text)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_drawings_in_the_documents_name_packages() -> None:
    """The columns of a drawn way are packages and people, and the stages of a round are those of the core."""
    _, stages, *ways = DRAWINGS
    assert [name for way in ways for name in way.text.split("\n")[0].split() if name not in {*PACKAGES, *PEOPLE}] == []
    assert len(ways) == 2
    names = re.findall(
        r"\w+", (ast.get_docstring(ast.parse(MODULES["core.__init__"].read_text())) or "").partition(":")[2]
    )
    assert len(names) == 5
    assert [name for name in names if name not in stages.text] == []
