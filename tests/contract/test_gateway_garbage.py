"""Whatever is sent, the gateway answers with 4xx and a sentence, or does it; never 5xx."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.http.app import SUBJECTS
from gateways import FILE, TOKENS, daemon, gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.testclient import TestClient

pytestmark = pytest.mark.slow

REQUESTS = 400
WORDS = (
    *(
        "persona",
        "human",
        "ann",
        "bob",
        "x",
        "",
        "a/b",
        "agents/ann/persona",
        "agents/ann",
        "..",
        ".",
        "a.md",
        "*",
        "?",
    ),
    *("block-00000000-0000-5000-8000-000000000000", "ü", "\u202e", "\0", "a" * 300, "%", "%zz", "😀", "\n"),
    *("core_memory_append", "memory_view", "attach/x", "operator", "9" * 400, "-1", "true", "null", "NaN"),
)
VALUES: tuple[Any, ...] = (
    *WORDS,
    *(
        None,
        True,
        False,
        0,
        -1,
        5,
        2**70,
        1e400,
        float("nan"),
        1.5,
        [],
        {},
        [[]],
        ["a"],
        [1],
        {"a": 1},
        {"label": 3},
        [{}],
    ),
    *([{"label": "x", "value": "y"}], [None], {"a": {"b": [[[[1]]]]}}, "x" * 30_000),
)
KEYS = (
    *("label", "value", "limit", "description", "tags", "metadata", "read_only", "name", "memory_blocks", "block_ids"),
    *("args", "hidden", "is_template", "agents", "template_name", "unknown", "project_id"),
    *(
        "op",
        "content",
        "old_content",
        "line",
        "patch",
        "base",
        "version",
        "requests",
        "id",
        "attach",
        "blocks",
        "token",
    ),
)
QUERIES = (
    *(
        "limit",
        "after",
        "before",
        "order",
        "order_by",
        "label",
        "label_search",
        "value_search",
        "tags",
        "match_all_tags",
    ),
    *(
        "connected_to_agents_count_gt",
        "connected_to_agents_count_eq",
        "templates_only",
        "name",
        "query_text",
        "identity_id",
    ),
    *("search", "text", "tag", "agent", "templates", "from", "to", "version", "style"),
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with daemon(tmp_path_factory.mktemp("garbage")) as (server, _):
        yield server.url


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[TestClient]:
    with gateway(url, tokens=FILE) as client:
        for agent in ("ann", "bob"):
            body = {"name": agent, "memory_blocks": [{"label": "persona", "value": "x"}]}
            client.post("/v1/agents/", json=body, headers={"authorization": f"Bearer {TOKENS['kim']}"})
        yield client


def quoted(chance: random.Random, text: str) -> str:
    """A word in a path: quoted well, half or not at all."""
    if chance.random() < 0.2:
        return text.replace("\n", "").replace("\0", "").replace("?", "").replace("#", "")
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def body_of(chance: random.Random) -> bytes:
    kind = chance.random()
    if kind < 0.1:
        return chance.choice((b"{", b"\xff\xfe", b'"\\ud800"', b"null", b"[]", b"[" * 50_000, b'{"label": "\\udc00"}'))
    if kind < 0.2:
        return json.dumps(chance.choice(VALUES)).encode()
    found = {chance.choice(KEYS): chance.choice(VALUES) for _ in range(chance.randrange(5))}
    if chance.random() < 0.5:
        found["label"] = chance.choice(WORDS)
    return json.dumps(found).encode()


@pytest.mark.parametrize("seed", range(3))
def test_garbage(http: TestClient, seed: int) -> None:
    """Of every route, by callers of every role, with words and bodies that are no use."""
    chance = random.Random(seed)
    nothing: Any = None
    # But for the one that does not end, which test_api_changes asks.
    routes = [route for subject in SUBJECTS for route in subject.routes(nothing) if route.path != "/api/changes"]
    for _ in range(REQUESTS):
        route = chance.choice(routes)
        path, methods = route.path, sorted(route.methods or ())
        while "{" in path:
            start, _, rest = path.partition("{")
            path = start + quoted(chance, chance.choice(WORDS)) + rest.partition("}")[2]
        method = chance.choice(methods if chance.random() < 0.9 else ("PUT", "DELETE", "OPTIONS"))
        params: Any = [(chance.choice(QUERIES), str(chance.choice(WORDS))) for _ in range(chance.randrange(4))]
        headers = {"authorization": f"Bearer {chance.choice(list(TOKENS.values()))}"}
        if chance.random() < 0.2:
            headers["x-stainless-retry-count"] = chance.choice(("0", "1", "x", "9" * 50))
        body = body_of(chance)
        answer = http.request(method, path or "/", params=params, headers=headers, content=body)
        assert answer.status_code < 500, (method, path, params, body[:200], answer.text)
        if answer.status_code >= 400 and method != "HEAD":
            assert answer.json()["detail"], (method, path)
