"""Who may use the gateway, from where, and what each role sees."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

import blocksd
from blocksd.http.guard import MAX_BODY
from blocksd.model.block import block_id
from gateways import FILE, TOKENS, daemon, gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.testclient import TestClient

    from support import RedisServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with daemon(tmp_path_factory.mktemp("access")) as (running, _):
        yield running


@pytest.fixture(scope="module")
def http(server: RedisServer) -> Iterator[TestClient]:
    """A gateway with tokens, and blocks of two agents, shared ones among them."""
    with gateway(server.url, tokens=FILE) as client:
        kim = of("kim")
        for agent in ("ann", "bob"):
            own = [{"label": "diary", "value": f"of {agent}", "tags": [agent]}]
            assert (
                client.post("/v1/agents/", json={"name": agent, "memory_blocks": own}, headers=kim).status_code == 200
            )
        for label in ("shared", "law", "others"):
            body = {"label": label, "value": "one", "read_only": label == "law"}
            assert client.post("/v1/blocks/", json=body, headers=kim).status_code == 200
        for label in ("shared", "law"):
            client.patch(f"/v1/agents/ann/core-memory/blocks/attach/{label}", headers=kim)
        client.patch("/v1/agents/bob/core-memory/blocks/attach/others", headers=kim)
        yield client


def of(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKENS[name]}"}


def shown(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return sorted(one["label"] for one in answer.json())


# --- tokens ---


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer undefined"},
        {"authorization": "Bearer "},
        {"authorization": TOKENS["kim"]},
        {"authorization": f"Basic {TOKENS['kim']}"},
        {"authorization": f"Bearer {TOKENS['kim']}x"},
        {"x-bare-password": TOKENS["kim"]},
    ],
)
@pytest.mark.parametrize("path", ["/v1/blocks/", "/v1/agents/ann", "/nowhere", "/api/blocks", "/metrics"])
def test_without_a_token(http: TestClient, headers: dict[str, str], path: str) -> None:
    """401, whatever is asked for; health alone is open."""
    answer = http.get(path, headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"})
    assert http.get("/v1/health/", headers=headers).status_code == 200


def test_both_forms_of_a_token(http: TestClient) -> None:
    """As a bearer's, and as Letta's server takes its password."""
    assert http.get("/v1/blocks/", headers=of("kim")).status_code == 200
    assert http.get("/v1/blocks/", headers={"authorization": f"bearer {TOKENS['kim']}"}).status_code == 200
    bare = {"x-bare-password": f"password {TOKENS['reader']}"}
    assert http.get("/v1/blocks/", headers=bare).status_code == 200


def test_tokens_are_not_logged(http: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a right one nor a wrong one."""
    caplog.set_level(logging.DEBUG)
    http.get("/v1/blocks/", headers=of("kim"))
    http.get("/v1/blocks/", headers={"authorization": "Bearer a-wrong-token-of-someone"})
    assert TOKENS["kim"] not in caplog.text
    assert "a-wrong-token" not in caplog.text


# --- roles ---


def test_operators_name_is_in_the_history(http: TestClient, server: RedisServer) -> None:
    """Each operator signs with the name of the token; an agent is the author itself."""
    made = http.post("/v1/blocks/", json={"label": "signed", "value": "one"}, headers=of("kim")).json()
    http.patch(f"/v1/blocks/{made['id']}", json={"value": "two", "label": "signed/2"}, headers=of("kim"))
    http.patch("/v1/agents/bob/core-memory/blocks/diary", json={"value": "of bob", "tags": ["b"]}, headers=of("kim"))
    http.patch("/v1/agents/bob/core-memory/blocks/diary", json={"value": "by bob"}, headers=of("bob"))
    with blocksd.connect(server.url, "blocks") as client:
        signed = client.blocks.versions.list("signed/2")
        assert {(version.author, version.by) for version in signed} == {("operator", "kim")}
        diary = client.blocks.versions.list("agents/bob/diary")
        assert [(version.author, version.by) for version in diary][:2] == [("bob", None), ("operator", "kim")]


def test_operator_without_tokens(server: RedisServer) -> None:
    """The setting `by` says who it is."""
    with gateway(server.url, by="sam") as http, blocksd.connect(server.url, "blocks") as client:
        http.post("/v1/blocks/", json={"label": "unsigned", "value": "one"})
        assert [version.by for version in client.blocks.versions.list("unsigned")] == ["sam"]


def test_reader_reads(http: TestClient) -> None:
    """All of it, the prompts of agents too, and changes nothing."""
    headers = of("reader")
    assert set(shown(http.get("/v1/blocks/", headers=headers))) >= {"diary", "law", "others", "shared"}
    assert "of ann" in http.post("/v1/agents/ann/recompile", headers=headers).json()
    attempts = [
        ("POST", "/v1/blocks/"),
        ("PATCH", "/v1/blocks/shared"),
        ("DELETE", "/v1/blocks/shared"),
        ("POST", "/v1/agents/"),
        ("PATCH", "/v1/agents/ann"),
        ("DELETE", "/v1/agents/ann"),
        ("PATCH", "/v1/agents/ann/core-memory/blocks/diary"),
        ("PATCH", "/v1/agents/ann/core-memory/blocks/attach/others"),
        ("POST", "/v1/agents/ann/tools/core_memory_append/run"),
    ]
    for method, path in attempts:
        answer = http.request(method, path, headers=headers, json={"value": "x", "label": "shared", "name": "x"})
        assert answer.status_code == 403, (method, path, answer.text)
        assert "may not" in answer.json()["detail"]


def test_agent_sees_its_own(http: TestClient) -> None:
    """Its private blocks and those attached to it; of others there is nothing."""
    ann = of("ann")
    assert shown(http.get("/v1/blocks/", headers=ann)) == ["diary", "law", "shared"]
    assert shown(http.get("/v1/blocks/?label=diary", headers=ann)) == ["diary"]
    assert shown(http.get("/v1/blocks/?value_search=OF&tags=ann", headers=ann)) == ["diary"]
    assert shown(http.get("/v1/blocks/?connected_to_agents_count_gt=1", headers=ann)) == []
    assert http.get("/v1/blocks/count", headers=ann).json() == 3
    assert http.get("/v1/tags/", headers=ann).json() == ["ann"]
    assert [one["id"] for one in http.get("/v1/agents/", headers=ann).json()] == ["ann"]
    assert http.get("/v1/agents/?name=bob", headers=ann).json() == []
    assert http.get("/v1/agents/count", headers=ann).json() == 1
    assert [one["id"] for one in http.get("/v1/blocks/shared/agents", headers=ann).json()] == ["ann"]
    assert http.get("/v1/agents/ann/core-memory/blocks/diary", headers=ann).json()["value"] == "of ann"
    first = http.get("/v1/blocks/?limit=1", headers=ann).json()
    rest = http.get(f"/v1/blocks/?after={first[0]['id']}", headers=ann).json()
    assert sorted(one["label"] for one in first + rest) == ["diary", "law", "shared"]


def test_agent_lists_its_blocks_by_time(http: TestClient) -> None:
    """As an operator does, in any order, and on from a block that it has deleted meanwhile."""
    ann, names = of("ann"), [f"order{number}" for number in (3, 1, 4, 2)]
    for name in names:
        assert http.post("/v1/blocks/", json={"label": name, "value": "x"}, headers=ann).status_code == 200
    assert http.patch(f"/v1/blocks/agents%2Fann%2F{names[1]}", json={"value": "y"}, headers=ann).status_code == 200
    where = "/v1/blocks/?label_search=order"

    def page(query: str = "") -> list[dict[str, Any]]:
        answer = http.get(f"{where}{query}", headers=ann)
        assert answer.status_code == 200, answer.text
        return list(answer.json())

    def labels(query: str = "") -> list[str]:
        return [one["label"] for one in page(query)]

    assert labels() == labels("&order_by=created_at&order=asc") == names
    assert labels("&order=desc") == names[::-1]
    assert labels("&order_by=updated_at")[-1] == names[1]
    assert labels("&order_by=label") == sorted(names)
    third = page()[2]["id"]
    assert labels(f"&before={third}") == names[:2]
    assert labels(f"&before={third}&limit=1") == names[1:2]
    assert labels(f"&order_by=label&after={third}") == []
    seen: list[str] = []
    after = ""
    while found := page(f"&limit=2{after}"):
        seen += [one["label"] for one in found]
        for one in found:
            assert http.delete(f"/v1/blocks/{one['id']}", headers=ann).status_code == 200
        after = f"&after={found[-1]['id']}"
    assert seen == names
    hidden = http.get("/v1/blocks/others", headers=of("kim")).json()["id"]
    for cursor in (hidden, "others", block_id("nowhere"), "nowhere"):
        assert http.get(f"{where}&after={cursor}", headers=ann).status_code == 404, cursor


def test_blocks_of_others_are_not_there(http: TestClient) -> None:
    """404 by id, by label and by every route, as for what does not exist."""
    ann = of("ann")
    theirs = http.get("/v1/agents/bob/core-memory/blocks/diary", headers=of("kim")).json()
    for path in (
        *(
            f"/v1/blocks/{theirs['id']}",
            "/v1/blocks/agents%2Fbob%2Fdiary",
            "/v1/blocks/others",
            "/v1/blocks/others/agents",
        ),
        *(
            "/v1/agents/bob",
            "/v1/agents/bob/core-memory",
            "/v1/agents/bob/core-memory/blocks",
            "/v1/agents/bob/context",
        ),
        *("/v1/agents/bob/core-memory/blocks/diary", "/v1/agents/bob/core-memory/variables", "/v1/agents/nobody"),
        *(f"/v1/agents/ann/core-memory/blocks/{theirs['id']}", "/v1/agents/ann/core-memory/blocks/others"),
    ):
        answer = http.get(path, headers=ann)
        assert answer.status_code == 404, path
        assert "of bob" not in answer.text
    for method, path in (
        ("PATCH", f"/v1/blocks/{theirs['id']}"),
        ("DELETE", f"/v1/blocks/{theirs['id']}"),
        ("PATCH", "/v1/agents/bob/core-memory/blocks/diary"),
        ("POST", "/v1/agents/bob/recompile"),
        ("POST", "/v1/agents/bob/tools/memory_view/run"),
    ):
        assert http.request(method, path, headers=ann, json={"value": "x"}).status_code == 404, path


ASKED = (
    *(("GET", path, None) for path in ("/v1/blocks/@", "/v1/blocks/@/agents", "/v1/agents/ann/core-memory/blocks/@")),
    *(("GET", path, None) for path in ("/api/blocks/@", "/api/versions/@", "/api/version/@?version=1")),
    *(("GET", path, None) for path in ("/api/diff/@?to=1", "/v1/blocks?label=@", "/api/blocks?search=@")),
    ("PATCH", "/v1/blocks/@", {"value": "x"}),
    ("DELETE", "/v1/blocks/@", None),
    ("PATCH", "/v1/agents/ann/core-memory/blocks/@", {"value": "x"}),
    ("PATCH", "/api/blocks/@", {"value": "x"}),
    ("DELETE", "/api/blocks/@", None),
    ("POST", "/api/edit/@", {"op": "append", "content": "x"}),
    ("POST", "/api/merge/@", {"value": "x", "base": 1}),
    ("POST", "/api/rename/@", {"label": "mine"}),
    *(("POST", f"/api/{op}/@", {}) for op in ("undo", "redo")),
    ("POST", "/api/restore/@", {"version": 1}),
    *(
        ("POST", "/api/batch", {"requests": [{"op": "append", name: "@", "args": {"content": "x"}}]})
        for name in ("label", "name")
    ),
    *(
        ("POST", f"/v1/agents/ann/tools/{tool}/run", {"args": {"label": "@", "content": "x", "new_label": "mine"}})
        for tool in ("memory_view", "core_memory_append", "memory_rename", "memory_delete")
    ),
)


@pytest.mark.parametrize(("label", "none"), [("agents/bob/diary", "agents/bob/poems"), ("others", "nobody")])
@pytest.mark.parametrize("is_id", [False, True], ids=["label", "id"])
@pytest.mark.parametrize(("method", "path", "body"), ASKED, ids=lambda value: value if isinstance(value, str) else "")
def test_nobody_learns_what_others_have(
    http: TestClient, method: str, path: str, body: dict[str, Any] | None, label: str, none: str, *, is_id: bool
) -> None:
    """An agent gets the same answer for a block that others have, and for one that nobody has."""

    def answer(name: str) -> tuple[int, str]:
        sent = None if body is None else json.loads(json.dumps(body).replace("@", name))
        found = http.request(method, path.replace("@", quote(name, safe="")), json=sent, headers=of("ann"))
        return found.status_code, found.text.replace(name, "NAME")

    names = [block_id(one) if is_id else one for one in (label, none)]
    there, missing = map(answer, names)
    assert there == missing
    assert label not in there[1]


def test_agent_writes_what_it_may(http: TestClient) -> None:
    """As the agent: private blocks, and the values of those attached to it that are not read-only."""
    ann = of("ann")
    made = http.post("/v1/blocks/", json={"label": "scratch", "value": "one"}, headers=ann).json()
    assert (made["full_label"], made["last_updated_by_id"]) == ("agents/ann/scratch", "ann")
    path = f"/v1/blocks/{made['id']}"
    changed = http.patch(path, json={"value": "two", "label": "todo"}, headers=ann).json()
    assert (changed["id"], changed["label"], changed["value"]) == (made["id"], "todo", "two")
    assert http.patch(path, json={"label": "list"}, headers=ann).json()["full_label"] == "agents/ann/list"
    assert http.delete(path, headers=ann).status_code == 200
    shared = http.patch("/v1/blocks/shared", json={"value": "by ann"}, headers=ann)
    assert shared.json()["last_updated_by_id"] == "ann"
    url = "/v1/agents/ann/core-memory/blocks/shared"
    assert http.patch(url, json={"value": "by ann too"}, headers=ann).json()["value"] == "by ann too"
    run = {"args": {"label": "shared", "content": "appended"}}
    ran = http.post("/v1/agents/ann/tools/core_memory_append/run", json=run, headers=ann).json()
    assert ran["status"] == "success"


def test_agent_is_refused_the_rest(http: TestClient) -> None:
    """Read-only blocks, fields that protect, and everything that is an operator's."""
    ann = of("ann")
    assert http.patch("/v1/blocks/law", json={"value": "x"}, headers=ann).status_code == 403
    assert http.patch("/v1/blocks/shared", json={"read_only": True}, headers=ann).status_code == 422
    assert http.delete("/v1/blocks/shared", headers=ann).status_code in (403, 422)
    for method, path in (
        ("POST", "/v1/agents/"),
        ("DELETE", "/v1/agents/ann"),
        ("PATCH", "/v1/agents/ann"),
        ("PATCH", "/v1/agents/ann/core-memory/blocks/attach/others"),
        ("PATCH", "/v1/agents/ann/core-memory/blocks/detach/shared"),
    ):
        assert http.request(method, path, headers=ann, json={}).status_code == 403, path
    assert http.get("/v1/blocks/law", headers=of("kim")).json()["value"] == "one"


# --- places ---


def test_names_of_other_machines_are_refused(server: RedisServer) -> None:
    """A foreign page that leads its own name here, by DNS rebinding, gets nothing."""
    with gateway(server.url) as http:
        assert http.get("/v1/blocks/").status_code == 200
        answer = http.get("/v1/blocks/", headers={"host": "evil.example"})
        assert answer.status_code == 403
        assert "the setting hosts" in answer.json()["detail"]
        assert http.get("/v1/health/", headers={"host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:3000"])
def test_pages_of_other_origins_are_refused(server: RedisServer, origin: str) -> None:
    """Whatever the browser would let them send: no request of theirs does anything."""
    with gateway(server.url) as http:
        body = {"label": "planted", "value": "x"}
        assert http.post("/v1/blocks/", json=body, headers={"origin": origin}).status_code == 403
        assert http.get("/v1/blocks/planted").status_code == 404
        own = {"origin": "http://127.0.0.1:8283"}
        assert http.get("/v1/blocks/", headers=own).status_code == 200


def test_any_token_is_taken_where_none_are_set(server: RedisServer) -> None:
    """An SDK without one sends `Bearer undefined`."""
    with gateway(server.url) as http:
        assert http.get("/v1/blocks/", headers={"authorization": "Bearer undefined"}).status_code == 200


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/blocks", "GET, HEAD, POST"),
        ("/v1/blocks/shared", "DELETE, GET, HEAD, PATCH"),
        ("/latest/agents/ann/", "DELETE, GET, HEAD, PATCH"),
        ("/api/session", "DELETE, GET, HEAD, POST"),
        ("/api/agents/ann/blocks/a%2Fb", "DELETE, PUT"),
        ("/", "GET, HEAD"),
    ],
)
def test_methods_that_are_not_there(http: TestClient, path: str, methods: str) -> None:
    """405, with all that are."""
    for method in ("OPTIONS", "TRACE", "BREW"):
        answer = http.request(method, path, headers=of("kim"))
        assert (answer.status_code, answer.headers["allow"]) == (405, methods)
        assert f"no {method} for it" in answer.json()["detail"]


# --- faults ---


def test_login_that_redis_refuses(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """503 that is not repeated, without a name or an address; the log says what is wrong, once."""
    with gateway(f"unix://stranger:secret@{server.socket}") as http:
        for _ in range(2):
            answer = http.get("/v1/blocks/")
            assert (answer.status_code, answer.headers["x-should-retry"]) == (503, "false")
            assert "stranger" not in answer.text
            assert server.url not in answer.text
    told = [record.getMessage() for record in caplog.records if record.name == "blocksd.http"]
    assert len(told) == 1
    assert "refuses the login" in told[0]
    assert "secret" not in told[0]


def test_fault_of_the_gateway(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 with a sentence, which is not repeated either; the next request is answered."""
    from blocksd.http.letta import blocks

    def fail(_block: object) -> None:
        raise ZeroDivisionError

    with gateway(server.url, raises=False) as http:
        http.post("/v1/blocks/", json={"label": "faulty", "value": "x"})
        with monkeypatch.context() as broken:
            broken.setattr(blocks, "block_json", fail)
            answer = http.get("/v1/blocks/faulty")
        assert (answer.status_code, answer.headers["x-should-retry"]) == (500, "false")
        assert "its log says more" in answer.json()["detail"]
        assert http.get("/v1/blocks/faulty").status_code == 200


# --- sizes ---


def test_body_that_is_too_large(server: RedisServer) -> None:
    """413, by its declared length or once that much was read; nothing of it reaches the daemon."""
    with gateway(server.url) as http:
        body = b'{"label": "big", "value": "' + b"x" * MAX_BODY + b'"}'
        answer = http.post("/v1/blocks/", content=body)
        assert (answer.status_code, "divide" in answer.json()["detail"]) == (413, True)
        pieces = http.post("/v1/blocks/", content=iter([body[:1000], body[1000:]]))
        assert pieces.status_code == 413
        assert http.post("/v1/blocks/", content=b"{}", headers={"content-length": "x"}).status_code == 413


def test_answers_end_early(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page has as many blocks as an answer may show, and at least one; the next page goes on."""
    from blocksd.http.letta import agents, listing

    with gateway(server.url) as http:
        for number in range(3):
            http.post("/v1/blocks/", json={"label": f"large/{number}", "value": "x" * 600})
        body = {"name": "large", "block_ids": [f"large/{number}" for number in range(3)]}
        http.post("/v1/agents/", json=body)
        monkeypatch.setattr(listing, "MOST_CHARS", 1000)
        monkeypatch.setattr(listing, "_AT_ONCE", 1)
        monkeypatch.setattr(agents, "MOST_CHARS", 1000)
        where = {"label_search": "large/"}
        page = http.get("/v1/blocks/", params=where).json()
        assert [one["label"] for one in page] == ["large/0"]
        rest = http.get("/v1/blocks/", params={**where, "after": page[-1]["id"]}).json()
        assert [one["label"] for one in rest] == ["large/1"]
        before = http.get("/v1/blocks/", params={**where, "before": "large/2"}).json()
        assert [one["label"] for one in before] == ["large/1"]
        path = "/v1/agents/large/core-memory/blocks"
        assert len(own := http.get(path).json()) == 1
        monkeypatch.setattr(listing, "MOST_CHARS", 1_000_000)
        ids = [one["id"] for one in http.get(path).json()]
        monkeypatch.setattr(listing, "MOST_CHARS", 1000)
        assert [own[0]["id"], len(ids)] == [ids[0], 3]
        assert [one["id"] for one in http.get(f"{path}?before={ids[2]}").json()] == [ids[1]]
        http.post("/v1/agents/", json={"name": "largest", "block_ids": ["large/0"]})
        assert [one["id"] for one in http.get("/v1/agents/").json()] == ["largest"]
        assert [one["id"] for one in http.get("/v1/agents/?before=large").json()] == ["largest"]
