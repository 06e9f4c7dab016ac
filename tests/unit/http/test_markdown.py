"""The page's Markdown, run by Node with elements that are plain objects."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.http.page_files import DIRECTORY
from support import DEADLINE, require

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ELEMENTS = """
export const el = (what, properties, ...children) => ({
  tagName: what.split(".")[0].toUpperCase(),
  href: properties?.href,
  childNodes: children.flat(5).filter((child) => child),
  setAttribute() {},
  querySelectorAll() { return []; },
});
"""
RUN = """
import { readFileSync } from "node:fs";
import { markdown } from "./markdown.js";
const shown = (one) => typeof one === "string" ? one : [one.tagName, ...(one.href ? [one.href] : []), ...one.childNodes.map(shown)];
console.log(JSON.stringify(JSON.parse(readFileSync(0)).map((text) => markdown(text).map(shown))));
"""


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Any]]:
    """Texts as lists of their elements: a tag, and what is inside."""
    directory: Path = tmp_path_factory.mktemp("markdown")
    (directory / "package.json").write_text('{"type": "module"}')
    (directory / "dom.js").write_text(ELEMENTS)
    (directory / "run.js").write_text(RUN)
    (directory / "markdown.js").write_bytes((DIRECTORY / "markdown.js").read_bytes())

    def render(*texts: str) -> list[Any]:
        words = [require("node"), "run.js"]
        done = subprocess.run(
            words, cwd=directory, input=json.dumps(texts), capture_output=True, text=True, check=True, timeout=DEADLINE
        )
        found: list[Any] = json.loads(done.stdout)
        return found

    return render


def test_forms(rendered: Callable[..., list[Any]]) -> None:
    """Each where it begins and ends."""
    known = {
        "# One": [["H3", "One"]],
        "## Two ##": [["H4", "Two"]],
        "# C#": [["H3", "C#"]],
        "# a # b #": [["H3", "a # b"]],
        "#": [["H3"]],
        "# ##": [["H3"]],
        "#none": [["P", "#none"]],
        "#\tTab": [["H3", "Tab"]],
        "# a\u2028b": [["H3", "a\u2028b"]],
        "- a\n- b": [["UL", ["LI", "a"], ["LI", "b"]]],
        "-": [["UL", ["LI"]]],
        "-none": [["P", "-none"]],
        "3.   x": [["OL", ["LI", "x"]]],
        "> a\u2028b": [["BLOCKQUOTE", ["P", "a\u2028b"]]],
        "* * *": [["HR"]],
        "```js\nx\n```": [["PRE", ["CODE", "x"]]],
        "```x``` y": [["P", ["CODE", "x"], " y"]],
        "~~~ `\nx\n~~~": [["PRE", ["CODE", "x"]]],
        "a `b` c": [["P", "a ", ["CODE", "b"], " c"]],
        "a ``b ` c``": [["P", "a ``b ` c``"]],
        "``a`": [["P", "``a`"]],
        "a  \nb": [["P", "a", ["BR"], "b"]],
        "a \nb": [["P", "a \nb"]],
        "a|b\n-|:-:\n1|2": [
            ["DIV", ["TABLE", ["THEAD", ["TR", ["TH", "a"], ["TH", "b"]]], ["TBODY", ["TR", ["TD", "1"], ["TD", "2"]]]]]
        ],
        "a|b\n-|x": [["P", "a|b\n-|x"]],
        "[a](https://x.org)": [["P", ["A", "https://x.org", "a"]]],
        "[a](javascript:alert(1))": [["P", "[a](javascript:alert(1))"]],
        "[a](data:text/html,x)": [["P", "[a](data:text/html,x)"]],
        "[a](//x.org)": [["P", "[a](//x.org)"]],
        "<javascript:alert(1)>": [["P", "<javascript:alert(1)>"]],
        "<b onclick=x>": [["P", "<b onclick=x>"]],
    }
    found = dict(zip(known, rendered(*known), strict=True))
    assert found == known


LONG = 150_000
SPACES = " " * LONG


def test_texts_that_are_made_to_take_long(rendered: Callable[..., list[Any]]) -> None:
    """Take as long as others of their size: an agent could stop the page of everyone who looks at its block."""
    texts = (
        f"# {' ' * 8000}\u2028x",
        f"# a{SPACES}\u2028",
        f"# a{SPACES}x",
        f"- {SPACES}\u2028",
        f"a|b\n-|-{SPACES}x",
        f"```{SPACES}`",
        f"x{'`' * LONG}",
        f"a{SPACES}b",
        f"[a](x{SPACES}y",
        f"- a\n{LONG * chr(10)}x",
    )
    assert len(rendered(*texts)) == len(texts)
