"""All that users can type, set or read is in a document, and each document names only what there is."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from unittest.mock import Mock

import pytest

import blocksd
import blocksd.anthropic
from blocksd import errors
from blocksd.cli.main import cli
from blocksd.http.app import SUBJECTS
from blocksd.http.call import Described
from blocksd.mcp.definitions import CALLED
from blocksd.mirror.acl import users
from blocksd.mirror.keys import Keys
from blocksd.mirror.projection import change_of, fields_of
from blocksd.model.block import FILE_KEYS
from blocksd.model.problem import Problem
from blocksd.model.revision import Kind
from blocksd.requests import request
from blocksd.settings.config import SETTINGS, Config
from fenced import BY_HAND, BY_PARSER, ROOT, copy_sample
from rig import revision

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "daemon/docs").glob("*.md")}
LAYOUT = PAGES["redis"]
SOURCES = [path.read_text(encoding="utf-8") for path in Path(blocksd.__file__).parent.rglob("*.py")]
DOCUMENTS = (*BY_HAND, *BY_PARSER, "systemd/README.md")


def test_readme_is_short() -> None:
    """A screen and a half; the rest is in `daemon/docs`."""
    assert len(README.splitlines()) <= 220


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_page_is_in_the_readme(page: str) -> None:
    """With what it describes."""
    assert re.search(rf"^\| \[{page}\.md\]\(daemon/docs/{page}\.md\) \| \w", README, re.MULTILINE)


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_command_is_described(command: str) -> None:
    """By a row in the page of commands."""
    assert re.search(rf"^\| `blocksd {command}[ `]", PAGES["cli"], re.MULTILINE)


def test_no_other_commands_are_described() -> None:
    """In no document: a command that is not there would be tried."""
    texts = {"README": README, **PAGES, "systemd": (ROOT / "systemd/README.md").read_text(encoding="utf-8")}
    named = {
        (page, word)
        for page, text in texts.items()
        for word in re.findall(r"(?:`|^[$#] )blocksd ([a-z]+)", text, re.MULTILINE)
    }
    assert {(page, word) for page, word in named if word not in cli.commands} == set()


@pytest.mark.parametrize("name", [setting.name for setting in fields(Config)])
def test_every_setting_is_described(name: str) -> None:
    """With its key in TOML and its name in the environment."""
    assert f"| `{name}` | `BLOCKSD_{name.upper()}` |" in PAGES["settings"]


def test_what_needs_a_restart_is_described() -> None:
    """Those settings and no others, so that nobody waits for a reload to do it."""
    *others, last = [f"`{name}`" for name, setting in SETTINGS.items() if not setting.metadata["is_live"]]
    assert f"All but {', '.join(others)} and {last} follow" in " ".join(PAGES["settings"].split())


@pytest.mark.parametrize("key", FILE_KEYS)
def test_every_frontmatter_key_is_described(key: str) -> None:
    """By a row in the specification of the block file, and in the comparison with Letta if Letta has it."""
    assert re.search(rf"^\| `{key}` \|", PAGES["block-file"], re.MULTILINE)
    assert f"`{key}`" in PAGES["letta"] or key == "agents"


@pytest.mark.parametrize("name", sorted(blocksd.__all__))
def test_every_error_of_the_client_is_described(name: str) -> None:
    """By a row in the page about Python, but for the root of the tree."""
    public = getattr(blocksd, name)
    if isinstance(public, type) and issubclass(public, blocksd.BlocksdError) and public is not blocksd.BlocksdError:
        assert re.search(rf"^\| .*`{name}`.* \|", PAGES["python"], re.MULTILINE)


def test_calls_in_documents_exist() -> None:
    """Whatever is called `client.…`, `memory.…` or `tools.…` there is an attribute of these objects."""
    with blocksd.connect("redis://127.0.0.1:1", "blocks") as client:
        memory = client.memory("ann")
        roots: dict[str, Any] = {"client": client, "memory": memory, "tools": memory.tools(), "blocksd": blocksd}
        text = "\n".join((README, PAGES["python"], PAGES["agents"], PAGES["letta"]))
        text = text.replace("client.memory(agent_id).tools()", "tools").replace("client.memory(agent_id)", "memory")
        called = set(re.findall(r"(?<![\w./-])(client|memory|tools|blocksd)((?:\.[a-z_]\w*)+)", text))
        assert len(called) > 40
        missing = []
        for root, path in called:
            found = roots[root]
            for name in path.split(".")[1:]:
                found = getattr(found, name, None)
            if found is None and path != ".toml":
                missing.append(f"{root}{path}")
    assert missing == []


def test_every_tool_is_described() -> None:
    """In the comparison with Letta's tools, with its parameters in order."""
    with blocksd.connect("redis://127.0.0.1:1", "blocks") as client:
        definitions = client.memory("ann").tools().definitions
    tools = [f"`{one['name']}({', '.join(one['parameters']['properties'])})`" for one in definitions]
    assert [tool for tool in tools if f"| {tool} |" not in PAGES["letta"]] == []


def test_every_tool_for_mcp_is_described() -> None:
    """In the page about MCP, with its parameters in order; no other is."""
    tools = {
        f"{tool.name}({', '.join(f'{name}?' if name in tool.optional else name for name in tool.parameters)})"
        for tool in CALLED.values()
    }
    assert set(re.findall(r"^\| `(memory_\w+\(.*?\))` \|", PAGES["mcp"], re.MULTILINE)) == tools


def test_every_key_is_specified() -> None:
    """Each with its type and what it holds, those of single blocks, agents and files too."""
    keys = Keys("blocks")
    single = [name for name in vars(keys).values() if isinstance(name, str) and name not in ("blocks", keys.resets)]
    of_a_kind = [
        *(keys.block("<label>"), keys.attached("<label>"), keys.agent("<agent>"), keys.open("<agent>")),
        keys.agent_info("<agent>"),
        *(keys.source("<source>"), keys.source_agents("<source>"), keys.file("<source>/<path>")),
        *(keys.inbox("<actor>"), keys.reply("<actor>:<request id>")),
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
    assert len(kinds) == 12
    assert [kind for kind in kinds if f"`{kind}`" not in LAYOUT or f'"kind": "{kind}"' not in LAYOUT] == []


def test_every_key_of_a_change_is_specified() -> None:
    """Those that are rarely there, too."""
    change = change_of(revision(1, kind="renamed", value="x"), "e")
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
    """Those to files of this repository, and to headings in them."""
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    here = (ROOT / document).parent
    assert [link for link in links if not (here / link.partition("#")[0]).exists()] == []
    for path, _, anchor in (link.partition("#") for link in links if "#" in link):
        linked = (here / path if path else ROOT / document).read_text(encoding="utf-8")
        assert anchor in {anchor_of(heading) for heading in re.findall(r"^#+ (.+)$", linked, re.MULTILINE)}, anchor


def anchor_of(heading: str) -> str:
    """Return the name under which a page links to a heading, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_no_document_of_the_package_is_left_out() -> None:
    """A document whose examples nobody runs would be believed all the same."""
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "daemon/docs").glob("*.md")}
    assert there <= {*DOCUMENTS}


def test_the_sample_blocks_are_in_order(tmp_path: Path) -> None:
    """The first folder a user sees has no problem."""
    from blocksd.cli.commands_check import examine

    blocks, problems = examine(str(copy_sample(tmp_path)))
    assert (blocks, problems) == (4, [])


def test_every_route_is_described() -> None:
    """By its method and path, in the page about the gateway; and no other is."""
    gateway: Any = None
    short = {"{block_id}": "{id}", "{block_id:path}": "{id}", "{block_label:path}": "{label}", "{agent_id}": "{agent}"}
    short["{label:path}"] = "{label}"
    routes = set()
    for route in (route for subject in SUBJECTS for route in subject.routes(gateway) if isinstance(route, Described)):
        path = re.sub(r"{\w+(:path)?}", lambda found: short.get(found[0], found[0]), route.path)
        routes |= {f"{method} {path}" for method in route.methods or () if method != "HEAD"}
    assert set(re.findall(r"^\| `([A-Z]+ /\S*)` \|", PAGES["http"], re.MULTILINE)) == routes


def test_every_metric_is_described() -> None:
    """An operator who draws graphs or sets alerts reads of them in the page about operations."""
    from blocksd.http.guesses import Guesses
    from blocksd.http.metrics import Metrics as GatewayMetrics
    from blocksd.monitoring.follower_metrics import FollowerMetrics
    from blocksd.monitoring.metrics import Metrics

    metrics, feed = Metrics("127.0.0.1", 0), Mock(streams=0, cut_off=0)
    both = (metrics, FollowerMetrics("127.0.0.1", 0))
    names = {one.name for own in both for one in own.registry.collect() if one.name.startswith("blocksd_")}
    names |= {
        metric.name
        for metric in GatewayMetrics([], feed, Guesses()).registry.collect()
        if metric.name.startswith("blocksd_")
    }
    assert not [name for name in names if f"`{name}" not in PAGES["operations"]]
