"""One way to flow: a module imports only from those above it."""

from __future__ import annotations

import ast
from pathlib import Path

import blocksd

ORDER = (
    "errors",
    "machine",
    "lock",
    "label",
    "nearest",
    "block",
    "frontmatter",
    "document",
    "problem",
    "rollback",
    "attachment",
    "edits",
    "differences",
    "merge",
    "prompt",
    "revision",
    "problems",
    "faults",
    "safety",
    "health",
    "audit",
    "stale",
    "beneath",
    "root",
    "links",
    "unclosed",
    "openers",
    "folder",
    "look_queue",
    "tables",
    "identity",
    "row",
    "agent_lists",
    "swap",
    "salvage",
    "database",
    "history",
    "journal",
    "rescue",
    "pending",
    "outcomes",
    "keys",
    "acl",
    "settings_file",
    "config",
    "sentinel",
    "connection",
    "request",
    "reply",
    "inbox",
    "begun",
    "inboxes",
    "spent",
    "reader",
    "script",
    "projection",
    "mirror",
    "repair",
    "view",
    "sheet",
    "undoing",
    "arguments",
    "attempt",
    "agent_operations",
    "operations",
    "desk",
    "content",
    "fresh_file",
    "writer",
    "ledger",
    "retention",
    "private_folders",
    "sweeper",
    "deletions",
    "intake",
    "scrub",
    "source",
    "sources",
    "source_mirror",
    "strays",
    "verifier",
    "projector",
    "recovery",
    "clerk",
    "core",
    "watcher",
    "record",
    "server_data",
    "embedded",
    "notify",
    "control",
    "standing",
    "listener",
    "presence",
    "lookout",
    "deliveries",
    "supervisor",
    "pulse",
    "guard",
    "reloader",
    "stages",
    "service",
    "plan",
    "queries",
    "sending",
    "asking",
    "agent_asking",
    "lazy_blocks",
    "watching",
    "memory",
    "tools",
    "runner",
    "subscription",
    "watch",
    "agent_memory",
    "resources",
    "client",
    "report",
    "metrics",
    "console",
    "options",
    "completion",
    "finding",
    "host",
    "server",
    "host_checks",
    "server_checks",
    "doctor",
    "commands_config",
    "commands_daemon",
    "commands_read",
    "commands_write",
    "commands_admin",
    "cli",
    "manual",
)
"""The modules, from those that know nothing of the others to the one that knows them all. What is imported for types
alone does not count."""

PACKAGE = Path(blocksd.__file__).parent


class _Imports(ast.NodeVisitor):
    """Which modules of the package a module imports when it runs, at its top or in a function."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "imports are absolute"
        package, _, module = str(node.module).partition(".")
        if package == "blocksd":
            self.found |= {module.partition(".")[0]} if module else {alias.name for alias in node.names}

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            package, _, module = alias.name.partition(".")
            if package == "blocksd" and module:
                self.found.add(module)


def imports_of(module: str) -> set[str]:
    visitor = _Imports()
    visitor.visit(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8")))
    return visitor.found


def test_every_module_has_its_place() -> None:
    """A new module is put into the order, or the order is not one."""
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert modules == set(ORDER)
    assert len(ORDER) == len(set(ORDER))


def test_modules_import_only_from_those_above() -> None:
    """Whoever reads a module needs to know those before it in the order, and no others."""
    wrong = {
        (module, imported)
        for place, module in enumerate(ORDER)
        for imported in imports_of(module)
        if imported not in ORDER[:place]
    }
    assert wrong == set()
