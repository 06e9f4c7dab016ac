"""The files of the page: what they are sent with, and what each module must have."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from blocksd.http.page_files import DIRECTORY, routes
from support import require

if TYPE_CHECKING:
    from pathlib import Path

LINES_PER_MODULE = 350
MODULES = sorted(DIRECTORY.glob("*.js"))
FILES = sorted(DIRECTORY.iterdir())


@pytest.fixture(scope="module")
def http() -> TestClient:
    return TestClient(Starlette(routes=routes()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_is_sent_with_headers(http: TestClient, path: Path) -> None:
    """They let the page load nothing from elsewhere and nobody frame it; a browser that has the file is told so."""
    place = "/" if path.name == "index.html" else f"/page/{path.name}"
    answer = http.get(place)
    assert (answer.status_code, answer.content) == (200, path.read_bytes())
    assert answer.headers["content-security-policy"].startswith("default-src 'self'; ")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    again = http.get(place, headers={"if-none-match": f'"other", W/{answer.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert http.get(place, headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fapp.py", "../app.py", ""])
def test_nothing_else_is_sent(http: TestClient, name: str) -> None:
    """Only the files themselves have a path."""
    assert http.get(f"/page/{name}").status_code == 404


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_module_is_whole(path: Path, tmp_path: Path) -> None:
    """It begins with its sentence, is short, names only modules that are there, and makes no markup of texts."""
    text = path.read_text(encoding="utf-8")
    assert re.match(r"// [A-Z][^\n]*\.\n", text)
    assert len(text.splitlines()) <= LINES_PER_MODULE
    assert [name for name in re.findall(r'from "\./([^"]+)"', text) if not (DIRECTORY / name).exists()] == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text) == []
    copy = tmp_path / "module.mjs"
    copy.write_text(text, encoding="utf-8")
    done = subprocess.run([require("node"), "--check", copy], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_imports_are_used_and_there() -> None:
    """Each name that a module imports is exported by the other one and used; each export is used by another one."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in MODULES}
    exported = {
        name: set(re.findall(r"^export (?:async )?(?:function|const|class) (\w+)", text, re.MULTILINE))
        for name, text in texts.items()
    }
    used: dict[str, set[str]] = {name: set() for name in texts}
    wrong = []
    for name, text in texts.items():
        for names, other in re.findall(r'^import \{([^}]+)\} from "\./([^"]+)";', text, re.MULTILINE):
            for one in (word.strip() for word in names.split(",")):
                used[other].add(one)
                if one not in exported[other] or len(re.findall(rf"\b{one}\b", text)) < 2:
                    wrong.append(f"{name}: {one} of {other}")
        for space, other in re.findall(r'^import \* as (\w+) from "\./([^"]+)";', text, re.MULTILINE):
            found = set(re.findall(rf"\b{space}\.(\w+)(?!\w*\")", text))
            used[other] |= found
            wrong += [f"{name}: {one} of {other}" for one in found - exported[other]]
    unused = {name: left for name in texts if (left := exported[name] - used[name])}
    assert (wrong, unused) == ([], {})


def test_page_has_no_script_of_its_own() -> None:
    """The policy would stop it: there is no inline script, style or handler in the page's HTML."""
    html = (DIRECTORY / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=|https?:", html) == []
