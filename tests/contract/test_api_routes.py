"""Our routes: blocks with their versions, agents, batches, and the whole; for operators, readers and agents."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.http.answers import JSONAnswer
from gateways import FILE, TOKENS, daemon, gateway
from support import DEADLINE, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.testclient import TestClient

    from support import RedisServer


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, Path]]:
    with daemon(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(scope="module")
def http(served: tuple[RedisServer, Path]) -> Iterator[TestClient]:
    """A gateway without tokens."""
    with gateway(served[0].url) as client:
        yield client


@pytest.fixture(scope="module")
def guarded(served: tuple[RedisServer, Path]) -> Iterator[TestClient]:
    """A gateway with tokens, and the agents ann and bob."""
    with gateway(served[0].url, tokens=FILE) as client:
        for agent in ("ann", "bob"):
            body = {"id": agent, "blocks": [{"name": "diary", "value": f"of {agent}", "tags": [agent]}]}
            assert client.post("/api/agents", json=body, headers=of("kim")).status_code == 201
        for label in ("shared", "law", "others"):
            new = {"label": label, "value": "one", "read_only": label == "law"}
            assert client.post("/api/blocks", json=new, headers=of("kim")).status_code == 201
        for label in ("shared", "law"):
            assert client.put(f"/api/agents/ann/blocks/{label}", headers=of("kim")).status_code == 200
        yield client


def of(name: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKENS[name]}", **more}


def ok(answer: Any, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


def refused(answer: Any, status: int) -> Any:
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]
    return answer.json()


def made(http: TestClient, label: str, value: str = "one", **fields: Any) -> dict[str, Any]:
    return dict(ok(http.post("/api/blocks", json={"label": label, "value": value, **fields}), 201))


# --- blocks ---


def test_block_is_created_and_read(http: TestClient, served: tuple[RedisServer, Path]) -> None:
    """With all its fields, its agents and its version, with which the ETag begins; the file is there when the answer is."""
    answer = http.post("/api/blocks", json={"label": "a/new one", "value": "ten", "tags": ["x"], "agents": ["zoe"]})
    block = ok(answer, 201)
    wanted = {"label": "a/new one", "value": "ten", "size": 3, "tags": ["x"], "agents": ["zoe"], "version": 1}
    assert block.items() >= {**wanted, "author": "operator", "read_only": False, "hidden": False}.items()
    assert answer.headers["etag"].startswith('"1-')
    assert (served[1] / "a/new one.md").read_text().endswith("ten\n")
    for path in ("a/new%20one", "a%2Fnew%20one", block["id"]):
        read = http.get(f"/api/blocks/{path}")
        assert (ok(read), read.headers["etag"]) == (block, answer.headers["etag"])
    refused(http.get("/api/blocks/nothing"), 404)
    assert refused(http.post("/api/blocks", json={"label": "a/new one"}), 409)["code"] == "already_exists"
    assert "did you mean" in refused(http.post("/api/blocks", json={"label": "y", "valu": "x"}), 422)["detail"]
    refused(http.post("/api/blocks", json={"value": "x"}), 422)


def test_fields_are_changed(http: TestClient) -> None:
    """Those that are given; null stands for the default; the whole text is replaced."""
    made(http, "fields", "one", description="about", tags=["a"], limit=100)
    path = "/api/blocks/fields"
    block = ok(http.patch(path, json={"value": "two", "description": None, "tags": None}))
    assert (block["value"], block["description"], block["tags"], block["limit"]) == ("two", None, [], 100)
    assert block["version"] == 2
    assert ok(http.patch(path, json={}))["version"] == 2
    assert refused(http.patch(path, json={"value": "x" * 101}), 422)["code"] == "limit_exceeded"
    refused(http.patch(path, json={"unknown": 1}), 422)
    refused(http.patch(path, json={"tags": "a"}), 422)
    refused(http.patch(path, content=b"[]"), 422)


def test_text_is_edited(http: TestClient) -> None:
    """In each way that a request has."""
    made(http, "edits", "one")
    path = "/api/edit/edits"
    assert ok(http.post(path, json={"op": "append", "content": "two"}))["value"] == "one\ntwo"
    replaced = {"op": "replace", "old_content": "two", "new_content": "2"}
    assert ok(http.post(path, json=replaced))["value"] == "one\n2"
    assert ok(http.post(path, json={"op": "insert", "content": "0", "line": 0}))["value"] == "0\none\n2"
    assert ok(http.post(path, json={"op": "patch", "patch": "@@\n-one\n+1\n"}))["value"] == "0\n1\n2"
    for body in ({}, {"op": "delete"}, {"op": "append"}, {"op": 3}, {"op": "append", "content": 1}):
        refused(http.post(path, json=body), 422)


def test_if_match(http: TestClient) -> None:
    """A change of another version than is named is refused with 412, and with the present one; nothing is done."""
    made(http, "matched", "one")
    path = "/api/blocks/matched"
    assert ok(http.patch(path, json={"value": "two"}, headers={"if-match": '"1"'}))["version"] == 2
    for method, target, body in (
        ("PATCH", path, {"value": "three"}),
        ("DELETE", path, None),
        ("POST", "/api/edit/matched", {"op": "append", "content": "x"}),
        ("POST", "/api/rename/matched", {"label": "elsewhere"}),
        ("POST", "/api/undo/matched", {}),
        ("POST", "/api/restore/matched", {"version": 1}),
    ):
        answer = refused(http.request(method, target, json=body, headers={"if-match": '"1"'}), 412)
        assert (answer["code"], answer["facts"]["version"]) == ("version_conflict", 2)
    assert ok(http.get(path))["value"] == "two"
    ok(http.patch(path, json={"value": "three"}, headers={"if-match": "*"}))
    ok(http.patch(path, json={"value": "four"}, headers={"if-match": 'W/"3"'}))
    current = http.get(path).headers["etag"]
    assert ok(http.patch(path, json={"value": "five"}, headers={"if-match": current}))["version"] == 5
    refused(http.patch(path, json={"value": "six"}, headers={"if-match": current}), 412)
    for wrong in ("3", '"x"', '"1", "2"', '"5-"', '"5-xyz"', '""', '"99999999999999999999"'):
        refused(http.patch(path, json={"value": "no"}, headers={"if-match": wrong}), 422)


def test_if_none_match(http: TestClient) -> None:
    """Nothing is sent again that the caller has: of a block, of lists, of Letta's routes; also by HEAD."""
    made(http, "cached/one", "one", agents=["cached-*"])
    ok(http.post("/api/agents", json={"id": "cached-1"}), 201)
    for path in (
        "/api/blocks/cached%2Fone",
        "/api/blocks?search=cached/",
        "/api/agents/cached-1",
        "/v1/blocks/cached%2Fone",
        "/v1/blocks/?label_search=cached/",
        "/v1/agents/cached-1/core-memory/blocks",
    ):
        first = http.get(path)
        tag = first.headers["etag"]
        assert (first.status_code, first.headers["cache-control"]) == (200, "private, no-cache"), path
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            again = http.get(path, headers={"if-none-match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag), (path, known)
        assert http.head(path, headers={"if-none-match": tag}).status_code == 304
        other = http.get(path, headers={"if-none-match": '"1-0123456789abcdef"'})
        assert (other.status_code, other.content) == (200, first.content)
    refused(http.get("/api/blocks/cached%2Fnone", headers={"if-none-match": "*"}), 404)


def test_versions_that_begin_anew() -> None:
    """After the loss of a journal a version may come again, of another text: that is not what the caller knows."""
    before, after = (JSONAnswer({"value": value}, version=1).tagged(None).headers["etag"] for value in ("one", "two"))
    assert before != after
    assert JSONAnswer({"value": "two"}, version=1).tagged(before).status_code == 200


def test_idempotency_key(http: TestClient) -> None:
    """A request that is sent again under its key is done once; another one under the same key is refused."""
    made(http, "once", "one")
    headers = {"idempotency-key": "an append"}
    first = ok(http.post("/api/edit/once", json={"op": "append", "content": "two"}, headers=headers))
    again = ok(http.post("/api/edit/once", json={"op": "append", "content": "two"}, headers=headers))
    assert (first["value"], again["value"]) == ("one\ntwo", "one\ntwo")
    refused(http.post("/api/edit/once", json={"op": "append", "content": "three"}, headers=headers), 422)


def test_merge_of_a_text(http: TestClient) -> None:
    """What was made of an older version is merged with what was written since; a conflict shows all three texts."""
    made(http, "merged", "one\ntwo\nthree")
    ok(http.patch("/api/blocks/merged", json={"value": "1\ntwo\nthree"}))
    path = "/api/merge/merged"
    assert ok(http.post(path, json={"value": "one\ntwo\n3", "base": 1}))["value"] == "1\ntwo\n3"
    answer = refused(http.post(path, json={"value": "uno\ntwo\nthree", "base": 1}), 409)
    assert answer["code"] == "merge_conflict"
    texts = {"base": "one\ntwo\nthree", "mine": "uno\ntwo\nthree", "theirs": "1\ntwo\n3", "version": 3}
    assert answer["facts"].items() >= texts.items()
    for body in ({"value": "x"}, {"value": "x", "base": "1"}, {"base": 1}, {"value": "x", "base": True}):
        refused(http.post(path, json=body), 422)
    refused(http.post(path, json={"value": "x", "base": 99}), 404)


def test_merge_of_a_version(http: TestClient) -> None:
    """What a version brought comes back, as `blocksd merge` does it."""
    made(http, "taken", "one")
    ok(http.post("/api/edit/taken", json={"op": "append", "content": "two"}))
    refused(http.post("/api/merge/taken", json={"version": 2}), 422)
    ok(http.post("/api/restore/taken", json={"version": 1}))
    refused(http.post("/api/merge/taken", json={"version": 99}), 404)
    assert ok(http.post("/api/merge/taken", json={"version": 2}))["value"] == "one\ntwo"
    refused(http.post("/api/merge/taken", json={}), 422)


def test_rename_and_delete(http: TestClient) -> None:
    """The id and the history stay; a deleted block comes back by undo."""
    block = made(http, "before", "one")
    renamed = ok(http.post("/api/rename/before", json={"label": "after/it"}))
    assert (renamed["label"], renamed["id"], renamed["version"]) == ("after/it", block["id"], 2)
    refused(http.get("/api/blocks/before"), 404)
    assert ok(http.delete("/api/blocks/after/it")) == {"label": "after/it", "version": 3}
    refused(http.get("/api/blocks/after/it"), 404)
    assert [one["kind"] for one in ok(http.get("/api/versions/after/it"))["items"]] == ["deleted", "renamed", "created"]
    assert ok(http.post("/api/undo/after/it"))["value"] == "one"
    assert ok(http.post("/api/redo/after/it")) == {"label": "after/it", "version": 5}
    refused(http.post("/api/rename/after/it", json={}), 422)


def test_undo_redo_restore(http: TestClient) -> None:
    """Each is a new version."""
    made(http, "undone", "one")
    ok(http.patch("/api/blocks/undone", json={"value": "two"}))
    assert ok(http.post("/api/undo/undone"))["value"] == "one"
    assert ok(http.post("/api/redo/undone", json={}))["value"] == "two"
    assert ok(http.post("/api/restore/undone", json={"version": 1}))["value"] == "one"
    refused(http.post("/api/restore/undone", json={"version": 99}), 404)
    refused(http.post("/api/restore/undone", json={}), 422)
    refused(http.post("/api/undo/undone", json={"steps": 2}), 422)


# --- lists ---


def test_lists_of_blocks(http: TestClient) -> None:
    """By part of a label or of the text, tag, agent and time; a page at a time, without the texts."""
    for number in range(5):
        made(http, f"listed/{number}", "x" * number, tags=["odd"] if number % 2 else ["even"], agents=["lister"])
    made(http, "listed/hidden", "needle", hidden=True)
    made(http, "listed/template", "x", is_template=True)

    def labels(**query: Any) -> list[str]:
        return [one["label"].removeprefix("listed/") for one in ok(http.get("/api/blocks", params=query))["items"]]

    assert labels(search="LISTED/") == [*"01234", "hidden"]
    assert labels(search="listed/", templates="true") == [*"01234", "hidden", "template"]
    assert labels(search="listed/", tag="odd") == ["1", "3"]
    assert labels(text="NEEDLE") == ["hidden"]
    assert labels(agent="lister") == [*"01234"]
    assert labels(agent="lister", tag="even", order="desc") == ["4", "2", "0"]
    assert labels(agent="lister", order_by="created_at", order="desc", limit=2) == ["4", "3"]
    assert labels(search="listed/", order_by="updated_at", order="desc", limit=2) == ["hidden", "4"]
    page = ok(http.get("/api/blocks", params={"search": "listed/", "limit": 2}))
    first = page["items"][0]
    assert (page["next"], "value" in first, first["size"], first["shared_by"]) == ("listed/1", False, 0, 1)
    for query in ({"search": "listed/"}, {"agent": "lister"}):
        page, seen = ok(http.get("/api/blocks", params={**query, "limit": 2})), list[str]()
        while True:
            seen += [one["label"] for one in page["items"]]
            if page["next"] is None:
                break
            page = ok(http.get("/api/blocks", params={**query, "limit": 2, "after": page["next"]}))
        assert len(seen) == len(set(seen)) >= 5
    refused(http.get("/api/blocks", params={"agent": "nobody"}), 404)
    refused(http.get("/api/blocks", params={"agent": "lister", "after": "x"}), 404)
    for query in ({"limit": "0"}, {"limit": "1001"}, {"order": "up"}, {"order_by": "value"}, {"templates": "maybe"}):
        refused(http.get("/api/blocks", params=query), 422)


def test_brief_list_of_blocks(http: TestClient) -> None:
    """All blocks, a page at a time, with the facts of the whole list; it takes no conditions, and reads no texts."""
    for number in range(3):
        made(
            http, f"brief/{number}", "x" * number, tags=["a"], description="What for", hidden=number == 1, agents=["al"]
        )
    whole: dict[str, Any] = {}
    after = None
    while page := ok(http.get("/api/blocks", params={"templates": "true", "limit": 1000, "after": after or ""})):
        whole |= {one["label"]: one for one in page["items"]}
        if (after := page["next"]) is None:
            break
    seen: list[str] = []
    while page := ok(http.get("/api/blocks", params={"brief": "true", "limit": 2, "after": after or ""})):
        for one in page["items"]:
            assert one.items() < whole[one["label"]].items()
            seen.append(one["label"])
        if (after := page["next"]) is None:
            break
    assert seen == list(whole)
    assert [one for one in seen if one.startswith("brief/")] == ["brief/0", "brief/1", "brief/2"]
    keys = {"label", "version", "size", "limit", "description", "read_only", "tags", "shared_by"}
    assert page["items"][0].keys() == keys
    for query in (
        {"text": "x"},
        {"search": "x"},
        {"tag": "a"},
        {"agent": "al"},
        {"order": "desc"},
        {"templates": "true"},
    ):
        refused(http.get("/api/blocks", params={"brief": "true", **query}), 422)


# --- versions ---


def test_versions(http: TestClient) -> None:
    """Newest first, a page at a time; one of them with the block as it was; and what differs between two."""
    made(http, "history", "one\n1")
    for value in ("two\n1", "three\n1"):
        ok(http.patch("/api/blocks/history", json={"value": value}))
    page = ok(http.get("/api/versions/history", params={"limit": 2}))
    assert ([one["version"] for one in page["items"]], page["next"]) == ([3, 2], 2)
    newest = page["items"][0]
    assert (
        newest.items() >= {"kind": "updated", "author": "operator", "by": None, "size": 7, "fields": ["value"]}.items()
    )
    page = ok(http.get("/api/versions/history", params={"before": 2}))
    assert ([one["version"] for one in page["items"]], page["next"]) == ([1], None)
    version = ok(http.get("/api/version/history", params={"version": 1}))
    assert (version["version"], version["block"]["value"]) == (1, "one\n1")
    assert ok(http.get("/api/diff/history")) == {
        "from": 2,
        "to": 3,
        "diff": "--- history v2\n+++ history v3\n@@ -1,2 +1,2 @@\n-two\n+three\n 1\n",
    }
    assert "-one\n+three" in ok(http.get("/api/diff/history", params={"from": 1, "to": 3}))["diff"]
    assert "+one" in ok(http.get("/api/diff/history", params={"from": 0, "to": 1}))["diff"]
    refused(http.get("/api/version/history"), 422)
    refused(http.get("/api/version/history", params={"version": 9}), 404)
    refused(http.get("/api/diff/history", params={"from": 1, "to": 9}), 404)
    refused(http.get("/api/versions/nothing"), 404)
    refused(http.get("/api/versions/history", params={"before": "x"}), 422)


def test_others_go_on_while_texts_are_compared(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes a second for large ones: it holds nobody up, and many of them have one thread together."""
    made(http, "large", "one")
    inside, at_once, go_on = Counter[str](), list[int](), threading.Event()

    def slow(*_: Any) -> list[str]:
        inside["now"] += 1
        at_once.append(inside["now"])
        assert go_on.wait(DEADLINE)
        inside["now"] -= 1
        return []

    monkeypatch.setattr("blocksd.client.versions_async.unified", slow)
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(http.get, "/api/diff/large") for _ in range(3)]
        eventually(lambda: at_once)
        for _ in range(20):
            ok(http.get("/api/version/large", params={"version": 1}))
        go_on.set()
        assert [ok(answer.result())["diff"] for answer in answers] == ["", "", ""]
    assert at_once == [1, 1, 1]


# --- agents ---


def test_versions_of_properties(http: TestClient) -> None:
    """By the label of the file; undone, done again, restored and merged, on condition of a version, too."""
    ok(http.post("/api/agents", json={"id": "may", "name": "May", "blocks": []}), 201)
    ok(http.patch("/api/agents/may", json={"name": "June"}))
    label = "agents/may/agent.yaml"
    assert [one["version"] for one in ok(http.get(f"/api/versions/{label}"))["items"]] == [2, 1]
    assert '+ "name": "June"' in ok(http.get(f"/api/diff/{label}"))["diff"]
    answer = http.post(f"/api/undo/{label}", headers={"if-match": '"2"'})
    assert ok(answer).items() >= {"label": label, "version": 3, "agent": "may", "name": "May", "tags": []}.items()
    assert answer.headers["etag"].startswith('"3-')
    assert refused(http.post(f"/api/undo/{label}", headers={"if-match": '"2"'}), 412)["facts"]["version"] == 3
    assert ok(http.get("/api/agents/may"))["name"] == "May"
    assert ok(http.post(f"/api/redo/{label}"))["name"] == "June"
    assert ok(http.post(f"/api/restore/{label}", json={"version": 1}))["name"] == "May"
    assert "nothing to merge" in refused(http.post(f"/api/merge/{label}", json={}), 422)["detail"]
    refused(http.post("/api/undo/agents/nobody/agent.yaml"), 404)
    for method, path, body in (
        ("PATCH", "blocks", {"value": "x"}),
        ("GET", "blocks", None),
        ("POST", "edit", {"op": "append", "content": "x"}),
        ("POST", "rename", {"label": "x"}),
        ("POST", "merge", {"value": "{}", "base": 1}),
    ):
        refused(http.request(method, f"/api/{path}/{label}", json=body), 422)
    ok(http.delete(f"/api/blocks/{label}"))
    assert ok(http.get("/api/agents/may"))["name"] == "may"


def test_agent_does_not_reach_its_properties(guarded: TestClient) -> None:
    """By no route of versions, neither its own nor another's; a reader reads them, and an operator does all."""
    label = "agents/ann/agent.yaml"
    for name in ("Ann", "Anna"):
        ok(guarded.patch("/api/agents/ann", json={"name": name}, headers=of("kim")))
    for agent in ("ann", "bob"):
        for op in ("undo", "redo", "restore", "merge"):
            for target in (label, "agent.yaml"):
                body = {"version": 1} if op == "restore" else {}
                refused(guarded.post(f"/api/{op}/{target}", json=body, headers=of(agent)), 422)
        refused(guarded.get(f"/api/versions/{label}", headers=of(agent)), 422)
    assert ok(guarded.get(f"/api/versions/{label}", headers=of("reader")))["items"]
    refused(guarded.post(f"/api/undo/{label}", headers=of("reader")), 403)
    assert ok(guarded.get("/api/agents/ann", headers=of("kim")))["name"] == "Anna"
    assert ok(guarded.post(f"/api/undo/{label}", headers=of("kim")))["name"] == "Ann"


def test_agents(http: TestClient) -> None:
    """Made with private blocks and shared ones, listed, read, and deleted."""
    made(http, "common", "for all")
    body = {"id": "kay", "blocks": [{"name": "persona", "value": "I am Kay."}], "attach": ["common"]}
    agent = ok(http.post("/api/agents", json=body), 201)
    assert agent.items() >= {"id": "kay", "name": "kay", "blocks": ["agents/kay/persona", "common"]}.items()
    assert ok(http.get("/api/agents/kay")) == agent
    said = {"name": "Kay", "description": "Answers.", "agent_type": "react_agent", "tags": ["a"], "metadata": {"x": 1}}
    agent = ok(http.patch("/api/agents/kay", json=said))
    assert agent.items() >= said.items()
    assert ok(http.patch("/api/agents/kay", json={"description": None, "name": "kay"}))["description"] is None
    refused(http.patch("/api/agents/kay", json={"unknown": 1}), 422)
    refused(http.patch("/api/agents/nobody", json={"description": "x"}), 404)
    named = ok(http.post("/api/agents", json={"name": "Kay Two"}), 201)
    assert named["id"] == "Kay-Two"
    listed = ok(http.get("/api/agents", params={"limit": 1, "after": "Kay-Tw"}))
    assert ([one["id"] for one in listed["items"]], listed["next"]) == (["Kay-Two"], "Kay-Two")
    assert ok(http.delete("/api/agents/Kay-Two")) == {"id": "Kay-Two"}
    refused(http.get("/api/agents/Kay-Two"), 404)
    refused(http.post("/api/agents", json=body), 409)
    for wrong in ({}, {"id": "x/y"}, {"id": "kim", "unknown": 1}, {"id": "kim", "blocks": "x"}, {"id": 3}):
        refused(http.post("/api/agents", json=wrong), 422)


def test_attach_and_detach(http: TestClient) -> None:
    """The answer says which agents have the block now."""
    made(http, "loose")
    ok(http.post("/api/agents", json={"id": "lee", "blocks": []}), 201)
    assert ok(http.put("/api/agents/lee/blocks/loose")) == {"label": "loose", "agents": ["lee"]}
    assert ok(http.put("/api/agents/lee/blocks/loose"))["agents"] == ["lee"]
    assert ok(http.delete("/api/agents/lee/blocks/loose")) == {"label": "loose", "agents": []}
    refused(http.delete("/api/agents/lee/blocks/loose"), 404)
    refused(http.put("/api/agents/nobody/blocks/loose"), 404)
    refused(http.put("/api/agents/lee/blocks/nothing"), 404)


def test_prompts(http: TestClient) -> None:
    """In each style, with the characters of all and of each block."""
    body = {"id": "max", "blocks": [{"name": "persona", "value": "I am Max."}, {"name": "a/b", "value": "x"}]}
    ok(http.post("/api/agents", json=body), 201)
    prompt = ok(http.get("/api/prompt/max"))
    assert prompt["style"] == "standard"
    assert "<persona>" in prompt["prompt"]
    assert prompt["characters"] == len(prompt["prompt"])
    assert [one["label"] for one in prompt["blocks"]] == ["agents/max/persona", "agents/max/a/b"]
    assert all(one["characters"] > 50 for one in prompt["blocks"])
    assert "1→ I am Max." in ok(http.get("/api/prompt/max?style=line-numbered"))["prompt"]
    refused(http.get("/api/prompt/max?style=loud"), 422)
    refused(http.get("/api/prompt/nobody"), 404)


# --- batches, and the whole ---


def test_batches(http: TestClient) -> None:
    """All of it is done, or none."""
    parts = [
        {"op": "create", "label": "batch/a", "args": {"value": "a"}},
        {"op": "create", "label": "batch/b", "args": {"value": "b"}},
        {"op": "append", "label": "batch/a", "args": {"content": "more"}},
    ]
    done = ok(http.post("/api/batch", json={"requests": parts}))
    assert [one["label"] for one in done["results"]] == ["batch/a", "batch/b", "batch/a"]
    assert ok(http.get("/api/blocks/batch/a"))["value"] == "a\nmore"
    parts = [{"op": "delete", "label": "batch/a"}, {"op": "create", "label": "batch/b"}]
    assert refused(http.post("/api/batch", json={"requests": parts}), 409)["facts"]["request"] == 2
    ok(http.get("/api/blocks/batch/a"))
    for body in ({}, {"requests": 1}, {"requests": ["x"]}, {"requests": [], "x": 1}, {"requests": [{"op": "status"}]}):
        refused(http.post("/api/batch", json=body), 422)
    refused(http.post("/api/batch", json={"requests": [{"op": "delete", "label": 3}]}), 422)


def test_problems_and_status(http: TestClient, served: tuple[RedisServer, Path]) -> None:
    """As the daemon has them."""
    (served[1] / "broken.md").write_text("---\nlimit: x\n---\n")
    eventually(lambda: ok(http.get("/api/problems"))["items"], "the problem is seen")
    (problem,) = ok(http.get("/api/problems"))["items"]
    assert problem.items() >= {"subject": "broken.md", "code": "problem_file", "line": 2}.items()
    status = ok(http.get("/api/status"))
    assert status["mirror"] == "level"
    (served[1] / "broken.md").unlink()
    made(http, "nobody/has/it")
    made(http, "read/by/one", "a text of more than ten characters", agents=["reader-of-it"])
    findings = ok(http.get("/api/audit"))["items"]
    assert {"unused", "nobody/has/it"} <= {word for one in findings for word in (one["kind"], one["subject"])}
    assert "oversize_prompt" in {one["kind"] for one in ok(http.get("/api/audit?prompt_chars=10"))["items"]}
    refused(http.get("/api/audit?stale_days=0"), 422)


def test_deletions_are_accepted(http: TestClient, served: tuple[RedisServer, Path]) -> None:
    """Those that the daemon holds back, since too many files are gone at once."""
    assert ok(http.post("/api/resume", json={"accept_deletions": True})) == {"accepted": None}
    for body in ({}, {"accept_deletions": False}, {"accept_deletions": True, "x": 1}):
        refused(http.post("/api/resume", json=body), 422)
    parts = [{"op": "create", "label": f"gone/{number}"} for number in range(200)]
    ok(http.post("/api/batch", json={"requests": parts}))
    (served[1] / "gone").rename(served[1].parent / "gone")  # all at once, however busy the machine is
    eventually(lambda: "200" in (ok(http.get("/api/status"))["halted"] or ""), "all deletions are held back")
    assert ok(http.post("/api/resume", json={"accept_deletions": True}))["accepted"] == 200
    eventually(lambda: not ok(http.get("/api/blocks?search=gone/"))["items"], "they are done")


# --- roles ---


def test_reader_reads_and_changes_nothing(guarded: TestClient) -> None:
    """All that is read, of everyone."""
    reader = of("reader")
    for path in ("/api/blocks", "/api/blocks/agents/ann/diary", "/api/agents", "/api/prompt/ann", "/api/problems"):
        ok(guarded.get(path, headers=reader))
    for path in (
        "/api/status",
        "/api/versions/shared",
        "/api/version/shared?version=1",
        "/api/diff/shared",
        "/api/audit",
    ):
        ok(guarded.get(path, headers=reader))
    for method, path in (
        ("POST", "/api/blocks"),
        ("PATCH", "/api/blocks/shared"),
        ("DELETE", "/api/blocks/shared"),
        ("POST", "/api/edit/shared"),
        ("POST", "/api/merge/shared"),
        ("POST", "/api/rename/shared"),
        ("POST", "/api/undo/shared"),
        ("POST", "/api/redo/shared"),
        ("POST", "/api/restore/shared"),
        ("POST", "/api/batch"),
        ("POST", "/api/resume"),
        ("POST", "/api/agents"),
        ("DELETE", "/api/agents/ann"),
        ("PATCH", "/api/agents/ann"),
        ("PUT", "/api/agents/ann/blocks/others"),
        ("DELETE", "/api/agents/ann/blocks/shared"),
    ):
        refused(guarded.request(method, path, headers=reader, json={}), 403)


def test_agent_sees_its_own(guarded: TestClient) -> None:
    """Its private blocks and those attached to it; of the others there is nothing."""
    ann = of("ann")
    listed = ok(guarded.get("/api/blocks", headers=ann))["items"]
    assert [one["label"] for one in listed] == ["agents/ann/diary", "law", "shared"]
    assert {one["shared_by"] for one in listed} == {None}
    brief = ok(guarded.get("/api/blocks?brief=true&limit=2", headers=ann))
    assert ([one["label"] for one in brief["items"]], brief["next"]) == (["agents/ann/diary", "law"], "law")
    brief = ok(guarded.get("/api/blocks?brief=true&after=law", headers=ann))
    assert ([one["label"] for one in brief["items"]], brief["next"]) == (["shared"], None)
    assert brief["items"][0]["shared_by"] is None
    assert ok(guarded.get("/api/blocks/agents/ann/diary", headers=ann))["value"] == "of ann"
    assert ok(guarded.get("/api/blocks/diary", headers=ann))["label"] == "agents/ann/diary"
    assert ok(guarded.get("/api/blocks/shared", headers=ann))["agents"] == ["ann"]
    assert [one["id"] for one in ok(guarded.get("/api/agents", headers=ann))["items"]] == ["ann"]
    assert "of ann" in ok(guarded.get("/api/prompt/ann", headers=ann))["prompt"]
    assert len(ok(guarded.get("/api/versions/agents/ann/diary", headers=ann))["items"]) == 1
    theirs = ok(guarded.get("/api/blocks/agents/bob/diary", headers=of("kim")))["id"]
    for label in ("agents/bob/diary", "agents%2Fbob%2Fdiary", "others", theirs):
        for kind in ("blocks", "versions", "diff"):
            assert "of bob" not in str(refused(guarded.get(f"/api/{kind}/{label}", headers=ann), 404))
        refused(guarded.get(f"/api/version/{label}?version=1", headers=ann), 404)
        for method, path in (
            ("PATCH", f"/api/blocks/{label}"),
            ("DELETE", f"/api/blocks/{label}"),
            ("POST", f"/api/undo/{label}"),
            ("POST", f"/api/redo/{label}"),
        ):
            refused(guarded.request(method, path, headers=ann, json={}), 404)
        append = {"op": "append", "content": "x"}
        refused(guarded.post(f"/api/edit/{label}", headers=ann, json=append), 404)
        refused(guarded.post(f"/api/merge/{label}", headers=ann, json={"value": "x", "base": 1}), 404)
        refused(guarded.post(f"/api/rename/{label}", headers=ann, json={"label": "x"}), 404)
        refused(guarded.post(f"/api/restore/{label}", headers=ann, json={"version": 1}), 404)
        parts = [{"op": "append", "label": label, "args": {"content": "x"}}]
        refused(guarded.post("/api/batch", headers=ann, json={"requests": parts}), 404)
    for path in ("/api/agents/bob", "/api/prompt/bob", "/api/blocks?agent=bob", "/api/agents/nobody"):
        refused(guarded.get(path, headers=ann), 404)


def test_agent_writes_what_it_may(guarded: TestClient) -> None:
    """As the agent: private blocks, and the texts of those attached to it that are not read-only."""
    ann = of("ann")
    for label in ("scratch", "agents/ann/list"):
        block = ok(guarded.post("/api/blocks", json={"label": label, "value": "one"}, headers=ann), 201)
        assert (block["label"], block["author"]) == (f"agents/ann/{label.rpartition('/')[2]}", "ann")
    path = "agents/ann/scratch"
    assert ok(guarded.patch(f"/api/blocks/{path}", json={"value": "two"}, headers=ann))["value"] == "two"
    assert ok(guarded.post(f"/api/undo/{path}", headers=ann))["value"] == "one"
    renamed = ok(guarded.post(f"/api/rename/{path}", json={"label": "agents/ann/todo"}, headers=ann))
    assert renamed["label"] == "agents/ann/todo"
    ok(guarded.delete("/api/blocks/agents/ann/todo", headers=ann))
    assert ok(guarded.post("/api/undo/agents/ann/todo", headers=ann))["value"] == "one"
    edited = ok(guarded.post("/api/edit/shared", json={"op": "append", "content": "by ann"}, headers=ann))
    assert (edited["author"], edited["agents"]) == ("ann", ["ann"])
    parts = [{"op": "append", "label": label, "args": {"content": "x"}} for label in ("shared", "agents/ann/todo")]
    assert len(ok(guarded.post("/api/batch", json={"requests": parts}, headers=ann))["results"]) == 2
    refused(guarded.patch("/api/blocks/law", json={"value": "x"}, headers=ann), 403)
    refused(guarded.patch("/api/blocks/shared", json={"read_only": True}, headers=ann), 422)
    refused(guarded.post("/api/blocks", json={"label": "agents/bob/x"}, headers=ann), 404)
    for method, target in (
        ("POST", "/api/agents"),
        ("DELETE", "/api/agents/ann"),
        ("PATCH", "/api/agents/ann"),
        ("PUT", "/api/agents/ann/blocks/others"),
        ("GET", "/api/status"),
        ("GET", "/api/audit"),
        ("POST", "/api/resume"),
    ):
        refused(guarded.request(method, target, headers=ann, json={}), 403)
    for label in ("agents/ann/todo", "agents/ann/list"):  # another test has the list of what she sees
        ok(guarded.delete(f"/api/blocks/{label}", headers=ann))


def test_operators_name_is_in_the_history(guarded: TestClient) -> None:
    """It is that of the token."""
    ok(guarded.post("/api/blocks", json={"label": "signed"}, headers=of("kim")), 201)
    (version,) = ok(guarded.get("/api/versions/signed", headers=of("kim")))["items"]
    assert (version["author"], version["by"]) == ("operator", "kim")
