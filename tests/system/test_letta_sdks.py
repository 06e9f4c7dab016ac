"""Letta's own SDKs against the gateway: both generations, in Python and TypeScript, from the registries.

The programs are in `tests/sdks`: the examples of Letta's documentation, word for word but for the line that connects, and a
call of each route that an SDK has. The examples are written for 0.x. Of Python's, 1.x renamed one method; of TypeScript's it
changed the class, the case of all keys and most arguments. `daemon/docs/http.md` says which lines are to be changed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateways import Served, daemon
from support import do_without, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAMS = Path(__file__).parents[1] / "sdks"
VERSIONS = {"py0": "letta-client==0.1.*", "py1": "letta-client==1.*", "js0": "0", "js1": "1"}


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """Installs an SDK once; the command that runs a program with it, and where the program must be."""
    made: dict[str, Path] = {}

    def installed(name: str) -> list[str]:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            (install_python if name.startswith("py") else install_node)(made[name], VERSIONS[name])
        return [str(made[name] / "bin" / "python")] if name.startswith("py") else [require("node"), str(made[name])]

    return installed


def install_python(directory: Path, package: str) -> None:
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    run_installer([str(directory / "bin" / "pip"), "install", "--quiet", package], directory)


def install_node(directory: Path, version: str) -> None:
    (directory / "package.json").write_text(json.dumps({"type": "module"}))
    package = f"@letta-ai/letta-client@{version}"
    run_installer([require("npm"), "install", "--silent", "--no-audit", "--no-fund", package], directory)


def run_installer(words: list[str], directory: Path) -> None:
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, timeout=200, check=False)
    if done.returncode:
        do_without(f"{words[-1]} could not be installed: {(done.stderr or done.stdout)[-300:]}")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Served]:
    with daemon(tmp_path) as (server, _):
        served = Served(tmp_path / "serve.log", "--redis", server.url).ready()
        yield served
        served.end()


RENAMED = {
    "py1": (("modify\\(", "update("), (r"len\((agents_with_block)\)", r"len(\1.items)")),
    "js1": (
        (r"import \{ LettaClient \}", "import Letta"),
        (r"new LettaClient\(\{ baseUrl: (.+?) \}\)", r'new Letta({ baseURL: \1, apiKey: "none" })'),
        ("memoryBlocks", "memory_blocks"),
        ("blockIds", "block_ids"),
        ("labelSearch", "label_search"),
        (r"\.(attach|detach)\((agent\.id), (block\.id)\)", r".\1(\3, { agent_id: \2 })"),
        (r'\.retrieve\( ?agent\.id, "human" ?\)', '.retrieve("human", { agent_id: agent.id })'),
        (r'\.modify\(agent\.id, "human", \{', '.update("human", { agent_id: agent.id,'),
        (r"\.modify\(", ".update("),
        (r"\b(blocks|agentsWithBlock|agentsPage)\.length", r"\1.items.length"),
        (r"\b(humanBlocks|searchResults)\.map", r"\1.items.map"),
        (r"(blocks\.list\(.*?\)\))\.length", r"\1.items.length"),
        (r'(list\(\{ label: "organization" \}\)), \[\]', r"\1.then((page) => page.items), []"),
        (r"for \(const", "for await (const"),
    ),
}
"""What must be written otherwise in the examples for 1.x, in order: patterns, and what takes their place."""


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("py0", "examples.py"),
        ("py0", "calls_0.py"),
        ("py1", "examples.py"),
        ("py1", "calls_1.py"),
        ("js0", "examples.mjs"),
        ("js0", "calls_0.mjs"),
        ("js1", "examples.mjs"),
        ("js1", "calls_1.mjs"),
    ],
)
def test_programs_of_letta_run(
    name: str, program: str, sdk: Callable[[str], list[str]], gateway: Served, tmp_path: Path
) -> None:
    """Without an error, and each assertion in them holds."""
    text = (PROGRAMS / program).read_text(encoding="utf-8")
    for old, new in RENAMED.get(name, ()) if program.startswith("examples") else ():
        assert re.search(old, text), old
        text = re.sub(old, new, text)
    command = sdk(name)
    path = (
        Path(command.pop()) if program.endswith(".mjs") else tmp_path
    ) / program  # Node looks for packages beside it
    path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [*command, str(path)],
        env={**os.environ, "BASE_URL": f"http://127.0.0.1:{gateway.port}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{gateway.said()}"
    assert "Traceback" not in gateway.said()
