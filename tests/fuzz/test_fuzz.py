"""Texts that others have written: whatever they are, they are read, or refused by an error that was meant.

The corpus is tried in full. It holds what once broke a target, and what reached new lines. Further inputs are made by
hypothesis: BLOCKSD_FUZZ_EXAMPLES tells how many of each kind; they are the same each time, unless there is a variable
BLOCKSD_FUZZ_RANDOM (and --hypothesis-seed, to have a run again). `run.py` makes more, guided by the lines they reach.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocksd.requests.request import OPS
from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
EXAMPLES = int(os.environ.get("BLOCKSD_FUZZ_EXAMPLES", "60"))
IS_SEEDED = "BLOCKSD_FUZZ_RANDOM" in os.environ
some = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not IS_SEEDED,
    suppress_health_check=list(HealthCheck),
    database=None,
)

NAMES = ("notes", "open", "policy", "persona", "agents/ann/persona", "agents/zoe/x", "NOTES", "../x", "", "a" * 101)
numbers = st.integers(-(2**70), 2**70) | st.integers(-2, 4) | st.floats()
texts = st.sampled_from(
    (*NAMES, "one", "two\n", "\r\n", "→", "1→ x", "@@ -1 +1 @@\n-one\n+1\n", "*", "b*", "ann", "manuals/one.txt")
) | st.text(st.characters() | st.sampled_from("\u0301\u0327\u202e\u0000\ud800"), max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
ARGS = (
    *("value", "description", "limit", "read_only", "tags", "metadata", "agents", "content", "line", "old_content"),
    *("new_content", "patch", "version", "to", "agent", "blocks", "attach", "file", "name", "label"),
)
args = st.dictionaries(st.sampled_from(ARGS) | texts, json_values | texts | st.lists(texts, max_size=3), max_size=4)
expect = st.none() | st.fixed_dictionaries({"version": numbers}) | json_values
one = st.fixed_dictionaries(
    {"op": st.sampled_from(OPS), "args": args},
    optional={"label": texts, "name": texts, "expect": expect, "on_conflict": st.sampled_from(("merge", "overwrite"))},
)
requests = one | st.lists(one, max_size=5).map(lambda parts: {"op": "batch", "args": {"requests": parts}}) | json_values


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_corpus(path: Path) -> None:
    """What was found once stays harmless."""
    TARGETS[path.parent.name](path.read_bytes())


@some
@given(st.integers(0, 3), requests)
def test_any_request_is_decided(actor: int, given: Any) -> None:
    """It is done or refused, and taken back without a trace."""
    if isinstance(given, dict):
        given = {"id": "x", **given}
    TARGETS["request"](bytes([actor]) + json.dumps(given).encode())


KEYS = ("limit", "agents", "tags", "read_only", "metadata", "description", "hidden", "value", "limits", "'a b'")
values = (
    st.sampled_from(
        ("1", "no", "'*'", "[ann, b*]", "{a: {b: [1]}}", "|\n  x\n  y", ">-\n x", "&a [*a]", "!!int 3", "~", "")
    )
    | texts
)
lines = st.tuples(st.sampled_from(KEYS) | texts, values).map(lambda pair: f"{pair[0]}: {pair[1]}")


@some
@given(st.lists(lines, max_size=5), texts, st.sampled_from(("\n", "\r\n")), st.binary(max_size=5))
def test_any_file_is_read(matter: list[str], body: str, newline: str, more: bytes) -> None:
    """It is a block or a problem."""
    text = "\n".join(["---", *matter, "---", body]).replace("\n", newline)
    TARGETS["file"](text.encode("utf-8", "surrogatepass") + more)


@pytest.mark.parametrize("name", TARGETS)
@some
@given(st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode()))
def test_anything_at_all(name: str, data: bytes) -> None:
    """Whatever stands there."""
    TARGETS[name](data)
