"""What users can type or set is in the README, and what other programs meet is in the specifications."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

import blocksd
from blocksd import errors
from blocksd.cli.main import cli
from blocksd.mirror.acl import users
from blocksd.mirror.keys import Keys
from blocksd.mirror.projection import fields_of
from blocksd.model.block import FILE_KEYS
from blocksd.model.problem import Problem
from blocksd.model.revision import Kind
from blocksd.requests import request
from blocksd.settings.config import SETTINGS, Config
from fenced import BY_HAND, BY_PARSER, ROOT
from rig import revision

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (ROOT / "README.md").read_text(encoding="utf-8")
LAYOUT = (ROOT / "daemon/docs/redis.md").read_text(encoding="utf-8")
SOURCES = [path.read_text(encoding="utf-8") for path in Path(blocksd.__file__).parent.rglob("*.py")]
DOCUMENTS = (*BY_HAND, *BY_PARSER)


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_command_is_in_the_readme(command: str) -> None:
    """A command nobody reads of is one nobody uses."""
    assert f"`blocksd {command}" in README


@pytest.mark.parametrize("name", [setting.name for setting in fields(Config)])
def test_every_setting_is_in_the_readme(name: str) -> None:
    """With its key in TOML and its name in the environment."""
    assert f"| `{name}` | `BLOCKSD_{name.upper()}` |" in README


def test_what_needs_a_restart_is_in_the_readme() -> None:
    """Those settings and no others, so that nobody waits for a reload to do it."""
    *others, last = [f"`{name}`" for name, setting in SETTINGS.items() if not setting.metadata["is_live"]]
    assert f"All but {', '.join(others)} and {last} follow" in " ".join(README.split())


@pytest.mark.parametrize("key", FILE_KEYS)
def test_every_frontmatter_key_is_in_the_readme(key: str) -> None:
    """Those of blocksd in the table, those that are only carried below it."""
    assert f"`{key}`" in README


def test_every_key_of_the_mirror_is_in_the_readme() -> None:
    """Other programs read them."""
    keys = vars(Keys("blocks"))
    del keys["namespace"]
    assert not [name for name in keys.values() if f"`{name}`" not in README]


def test_every_key_is_specified() -> None:
    """Each with its type and what it holds, those of single blocks, agents and files too."""
    keys = Keys("blocks")
    single = [name for name in vars(keys).values() if name != "blocks"]
    of_a_kind = [
        *(keys.block("<label>"), keys.attached("<label>"), keys.agent("<agent>"), keys.open("<agent>")),
        *(keys.source("<source>"), keys.source_agents("<source>"), keys.file("<source>/<path>")),
        *(keys.inbox("<actor>"), keys.reply("<actor>", "<request id>")),
    ]
    assert [name for name in (*single, *of_a_kind) if f"| `{name}` |" not in LAYOUT] == []
    channels = [keys.changes_of_block("<label>"), keys.changes_of_agent("<agent>"), keys.changes_of_source("<source>")]
    channels.append(keys.resets)
    assert [name for name in (keys.changes, *channels) if f"| channel `{name}` |" not in LAYOUT] == []


@pytest.mark.parametrize("op", request.OPS)
def test_every_op_is_specified(op: str) -> None:
    """In the table of operations, and by a request that a test sends."""
    assert f"| `{op}` |" in LAYOUT
    assert f'"op": "{op}"' in LAYOUT


@pytest.mark.parametrize("code", errors._OF_REPLIES)
def test_every_error_is_specified(code: str) -> None:
    """Programs decide by it what to do."""
    assert f"| `{code}` |" in LAYOUT


@pytest.mark.parametrize("key", request._KEYS)
def test_every_key_of_a_request_is_specified(key: str) -> None:
    """There are no others."""
    assert f"| `{key}` |" in LAYOUT


def test_every_kind_of_change_is_specified() -> None:
    """In words and by an example."""
    written = {kind for text in SOURCES for kind in re.findall(r'"kind": "(\w+)"', text)}
    kinds = {*get_args(Kind), *written, "opened", "closed"}
    assert len(kinds) == 11
    assert [kind for kind in kinds if f"`{kind}`" not in LAYOUT or f'"kind": "{kind}"' not in LAYOUT] == []


def test_every_key_of_a_change_is_specified() -> None:
    """Those that are rarely there, too."""
    change = revision(1, kind="renamed", value="x").change("e")
    rare = {"from", "reverts"}
    assert [key for key in {*json.loads(change), *rare} if not re.search(rf"^\| .*`{key}`", LAYOUT, re.MULTILINE)] == []


def test_every_field_of_a_block_is_specified() -> None:
    """All that can stand in its hash."""
    assert [name for name in {*fields_of(revision(1, value="x")), *FILE_KEYS} if f"`{name}`" not in LAYOUT] == []


def test_every_problem_is_specified() -> None:
    """Each code, and each key of the JSON."""
    codes = {errors.InvalidFile.code, errors.JournalUnusable.code}
    codes |= {code for text in SOURCES for code in codes_in(ast.parse(text))}
    assert len(codes) >= 13
    assert [code for code in codes if not re.search(rf"^\| .*`{code}`.* \|", LAYOUT, re.MULTILINE)] == []
    assert [field.name for field in fields(Problem) if f'"{field.name}"' not in LAYOUT] == []


def codes_in(tree: ast.AST) -> Iterator[str]:
    """The codes of problems that a module makes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            given = [*node.args[:2], *(word.value for word in node.keywords if word.arg == "code")]
            for value in given if called in ("Problem", "_problem", "replace") else ():
                if isinstance(value, ast.Constant) and re.fullmatch("[a-z_]+", str(value.value)):
                    yield str(value.value)


def test_every_redis_user_is_specified() -> None:
    """By name, with what it may do."""
    lines = users(Keys("blocks"), ["ann"])
    names = [line.split()[1].replace("ann", "<agent>") for line in lines]
    assert [name for name in names if f"| `{name}` |" not in LAYOUT] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    """Those to files of this repository."""
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    here = (ROOT / document).parent
    assert [link for link in links if not (here / link.partition("#")[0]).exists()] == []


def test_no_document_of_the_package_is_left_out() -> None:
    """A document whose examples nobody runs would be believed all the same."""
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "daemon/docs").glob("*.md")}
    assert there <= {*DOCUMENTS}


def test_the_sample_blocks_are_in_order() -> None:
    """The first folder a user sees has no problem."""
    from blocksd.cli.commands_daemon import examine

    blocks, problems = examine(str(ROOT / "blocks.d"))
    assert (blocks, problems) == (4, [])


def test_every_metric_is_in_the_readme() -> None:
    """Whoever draws or alerts reads of them there."""
    from blocksd.monitoring.metrics import Metrics

    metrics = Metrics("127.0.0.1", 0)
    names = {metric.name for metric in metrics.registry.collect() if metric.name.startswith("blocksd_")}
    assert not [name for name in names if f"`{name}" not in README]
