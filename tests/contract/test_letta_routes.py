"""Letta's routes, as its SDKs ask for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from blocksd.client.transport_async import AsyncTransport
from blocksd.http.app import application
from blocksd.http.connections import SharedTransport
from blocksd.http.letta import listing
from blocksd.http.places import Places
from blocksd.http.tokens import Tokens
from gateways import daemon, gateway
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.testclient import TestClient

    from support import RedisServer


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, Path]]:
    with daemon(tmp_path_factory.mktemp("letta")) as running:
        yield running


@pytest.fixture(scope="module")
def http(served: tuple[RedisServer, Path]) -> Iterator[TestClient]:
    with gateway(served[0].url) as client:
        yield client


@pytest.fixture
def folder(served: tuple[RedisServer, Path]) -> Path:
    return served[1]


def made(http: TestClient, label: str, value: str = "one", **fields: Any) -> dict[str, Any]:
    answer = http.post("/v1/blocks/", json={"label": label, "value": value, **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def agent_named(http: TestClient, name: str, **fields: Any) -> dict[str, Any]:
    answer = http.post("/v1/agents/", json={"name": name, **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


# --- blocks ---


def test_block_has_lettas_fields(http: TestClient, folder: Path) -> None:
    """All that Letta has, and ours beside them; the file is there when the answer is."""
    block = made(http, "shape", "one", description="about", limit=4000, tags=["a"], metadata={"x": 1}, unknown=1)
    expected = {
        "label": "shape",
        "value": "one",
        "description": "about",
        "limit": 4000,
        "tags": ["a"],
        "metadata": {"x": 1},
        "read_only": False,
        "hidden": False,
        "is_template": False,
        "full_label": "shape",
        "version": 1,
        "last_updated_by_id": "operator",
    }
    assert block.items() >= expected.items()
    assert block["id"].startswith("block-")
    assert (folder / "shape.md").read_text().endswith("one\n")
    assert http.get(f"/v1/blocks/{block['id']}").json() == block
    assert http.get("/v1/blocks/shape").json() == block


@pytest.mark.parametrize("path", ["/v1/blocks", "/v1/blocks/", "/latest/blocks", "/latest/blocks/"])
def test_each_form_of_a_path(http: TestClient, path: str) -> None:
    """With and without a slash at the end, under `/v1` and `/latest`, and without a redirection."""
    answer = http.get(path, follow_redirects=False)
    assert answer.status_code == 200
    assert isinstance(answer.json(), list)


def test_null_is_left_alone(http: TestClient) -> None:
    """SDKs send null for what a caller passes as None, and Letta leaves that as it is."""
    block = made(http, "nulls", "one", description="about", tags=["a"], limit=None)
    assert block["limit"] == 20_000
    body = {"value": None, "description": None, "tags": None, "label": None, "limit": 500}
    changed = http.patch(f"/v1/blocks/{block['id']}", json=body).json()
    assert (changed["value"], changed["description"], changed["tags"], changed["limit"]) == ("one", "about", ["a"], 500)
    assert http.patch(f"/v1/blocks/{block['id']}", json={"tags": []}).json()["tags"] == []
    assert http.patch(f"/v1/blocks/{block['id']}", json={}).json()["version"] == changed["version"] + 1
    assert http.post("/v1/blocks/", json={"label": "nulls2", "value": None}).json()["value"] == ""


def test_rename_keeps_the_id(http: TestClient, folder: Path) -> None:
    """A label is changed as any other field, alone or with others; a program that holds the id finds the block."""
    block = made(http, "before")
    renamed = http.patch(f"/v1/blocks/{block['id']}", json={"label": "after"}).json()
    assert (renamed["id"], renamed["label"]) == (block["id"], "after")
    both = http.patch(f"/v1/blocks/{block['id']}", json={"label": "later", "value": "two", "read_only": True}).json()
    assert (both["id"], both["label"], both["value"], both["read_only"]) == (block["id"], "later", "two", True)
    assert (folder / "later.md").exists()
    assert not (folder / "after.md").exists()
    assert http.get(f"/v1/blocks/{block['id']}").json() == both
    assert http.get("/v1/blocks/before").status_code == 404
    same = http.patch(f"/v1/blocks/{block['id']}", json={"label": "later", "value": "three"}).json()
    assert (same["label"], same["value"]) == ("later", "three")


def test_id_of_a_block_that_was_renamed_by_hand(http: TestClient, folder: Path) -> None:
    """The gateway remembers labels, and does not believe them."""
    block = made(http, "held")
    assert http.get(f"/v1/blocks/{block['id']}").json()["label"] == "held"
    (folder / "held.md").rename(folder / "moved.md")
    eventually(lambda: http.get(f"/v1/blocks/{block['id']}").json().get("label") == "moved")


def test_deleted_block(http: TestClient) -> None:
    """The answer is null, and the next one 404."""
    block = made(http, "gone")
    answer = http.delete(f"/v1/blocks/{block['id']}")
    assert (answer.status_code, answer.json()) == (200, None)
    again = http.get(f"/v1/blocks/{block['id']}")
    assert again.status_code == 404
    assert "gone" in again.json()["detail"] or block["id"] in again.json()["detail"]


def test_label_with_a_slash(http: TestClient) -> None:
    """As `%2F` everywhere; a raw slash, as one SDK sends it, in an agent's blocks."""
    block = made(http, "policies/refunds")
    assert http.get("/v1/blocks/policies%2Frefunds").json() == block
    agent = agent_named(http, "slashes", block_ids=[block["id"]])
    (block,) = agent["blocks"]
    below = f"/v1/agents/{agent['id']}/core-memory/blocks"
    for label in ("policies%2Frefunds", "policies/refunds", block["id"]):
        assert http.get(f"{below}/{label}").json() == block
    assert http.patch(f"{below}/policies/refunds", json={"value": "two"}).json()["value"] == "two"
    made(http, "attach/x")
    http.patch(f"{below}/attach/attach%2Fx")
    assert http.patch(f"{below}/attach%2Fx", json={"value": "three"}).json()["value"] == "three"


def test_label_that_is_taken(http: TestClient) -> None:
    """409, with the remedy, and not to be repeated."""
    made(http, "taken")
    answer = http.post("/v1/blocks/", json={"label": "taken", "value": "two"})
    assert answer.status_code == 409
    assert answer.headers["x-should-retry"] == "false"
    assert "update 'taken' by PATCH, choose another label" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"value": "x"}, "needs a label"),
        ({"label": "a:b"}, "':' cannot be in a file name"),
        ({"label": 3}, "label must be a text"),
        ({"label": "wrong", "limit": "many"}, "limit"),
        ({"label": "wrong", "value": "xx", "limit": 1}, "2 characters"),
        ({"label": "wrong", "value": 5}, "value"),
        ({"label": "wrong", "tags": "a"}, "tags"),
        ([], "must be a JSON object"),
        (b"{", "not JSON"),
        (b'{"label": "\\ud800"}', "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_what_cannot_be(http: TestClient, body: Any, words: str) -> None:
    """422 with a sentence."""
    given = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = http.post("/v1/blocks/", **given)
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["detail"]


@pytest.mark.parametrize(
    "query", ["limit=x", "limit=0", "limit=-1", "limit=99999", "order=up", "order_by=size", "templates_only=perhaps"]
)
def test_what_no_query_can_be(http: TestClient, query: str) -> None:
    """422 with a sentence that names the key."""
    answer = http.get(f"/v1/blocks/?{query}")
    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.json()["detail"]


# --- listings ---


def labels(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["full_label"] for one in answer.json()]


def test_blocks_are_listed_as_they_were_created(http: TestClient) -> None:
    """In pages after and before an id, either way round; each walk ends."""
    names = ["walk/c", "walk/a", "walk/b", "walk/e", "walk/d"]
    ids = [made(http, name)["id"] for name in names]
    where = {"label_search": "walk/"}
    assert labels(http.get("/v1/blocks/", params=where)) == names
    assert labels(http.get("/v1/blocks/", params={**where, "order": "desc"})) == names[::-1]
    for size in (1, 2, 5, 6):
        assert walked(http, where, size) == names
        assert walked(http, {**where, "order": "desc"}, size) == names[::-1]
        assert walked(http, where, size, backwards=ids[4]) == names[:4]
    between = {**where, "after": ids[0], "before": ids[3]}
    assert labels(http.get("/v1/blocks/", params=between)) == names[1:3]
    assert labels(http.get("/v1/blocks/", params={**where, "order_by": "label", "after": "walk/c"})) == [
        "walk/d",
        "walk/e",
    ]


def walked(http: TestClient, query: dict[str, Any], size: int, *, backwards: str | None = None) -> list[str]:
    """All pages, as an SDK of 1.x asks for them, until one is empty."""
    found: list[str] = []
    cursor: dict[str, str] = {} if backwards is None else {"before": backwards}
    for _ in range(100):
        page = http.get("/v1/blocks/", params={**query, "limit": size, **cursor}).json()
        if not page:
            return found
        shown = [one["full_label"] for one in page]
        found = found + shown if backwards is None else shown + found
        cursor = {"after": page[-1]["id"]} if backwards is None else {"before": page[0]["id"]}
    pytest.fail("the pages never end")


@pytest.mark.parametrize("query", [{}, {"order": "desc"}, {"order_by": "label"}, {"order_by": "updated_at"}])
def test_a_walk_that_deletes_what_it_finds(http: TestClient, query: dict[str, str]) -> None:
    """The block of a cursor may be gone: the walk goes on behind it, and none is left out."""
    names = [f"sweep/{number}" for number in range(5)]
    for name in names:
        made(http, name)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(10):
        where: dict[str, Any] = {"label_search": "sweep/", "limit": 2, **query, **cursor}
        answer = http.get("/v1/blocks/", params=where)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        if not page:
            break
        for one in page:
            seen.append(one["label"])
            http.delete(f"/v1/blocks/{one['id']}")
        cursor = {"after": page[-1]["id"]}
    assert seen == (names if query.get("order") != "desc" else names[::-1])


def test_cursors_of_blocks_that_are_gone(http: TestClient, folder: Path) -> None:
    """A page before one, and between two; blocks that were made at the same moment are in the order of labels."""
    for name in ("b", "d", "a", "e", "c"):
        (folder / f"tie-{name}.md").write_text("one\n")
    where: dict[str, Any] = {"label_search": "tie-"}
    found: list[dict[str, Any]] = eventually(
        lambda: (page := http.get("/v1/blocks/", params=where).json()) and len(page) == 5 and page
    )
    labels_found, ids = [one["label"] for one in found], [one["id"] for one in found]
    for gone in (1, 3):
        http.delete(f"/v1/blocks/{ids[gone]}")
    rest = [labels_found[0], labels_found[2], labels_found[4]]

    def page(**query: Any) -> list[str]:
        return labels(http.get("/v1/blocks/", params={**where, **query}))

    assert page(after=ids[1]) == rest[1:]
    assert page(before=ids[3]) == rest[:2]
    assert page(before=ids[3], limit=1) == rest[1:2]
    assert page(after=ids[1], before=ids[3]) == rest[1:2]
    assert page(after=ids[3], order="desc") == rest[1::-1]
    assert page(before=ids[1], order="desc", limit=1) == rest[1:2]
    http.delete(f"/v1/blocks/{ids[0]}")
    http.delete(f"/v1/blocks/{ids[4]}")
    assert page(after=ids[0]) == page(before=ids[4]) == rest[1:2]
    assert page(before=ids[0]) == page(after=ids[4]) == []


def test_cursor_of_no_block(http: TestClient) -> None:
    """404: an answer from the start would make SDKs ask for ever, and an empty one would hide what follows."""
    answer = http.get("/v1/blocks/?after=block-00000000-0000-5000-8000-000000000000")
    assert answer.status_code == 404
    assert "list from the start" in answer.json()["detail"]


def test_conditions_of_a_listing(http: TestClient) -> None:
    """Each of Letta's that blocks can have."""
    made(http, "cond/a", "Red apples", description="Fruit", tags=["x", "y"], project_id="p")
    made(http, "cond/b", "green", tags=["x"], is_template=True, template_name="t")
    made(http, "cond/c", "blue", hidden=True)
    agent_named(http, "cond-1", block_ids=["cond/a"])
    agent_named(http, "cond-2", block_ids=["cond/a"])

    def found(query: str) -> list[str]:
        return labels(http.get(f"/v1/blocks/?label_search=cond/&{query}"))

    assert found("") == ["cond/a", "cond/b"]
    assert found("show_hidden_blocks=true") == ["cond/a", "cond/b", "cond/c"]
    assert found("templates_only=true") == ["cond/b"]
    assert found("value_search=APPLE") == ["cond/a"]
    assert found("description_search=fru") == ["cond/a"]
    assert found("tags=x&tags=y") == ["cond/a", "cond/b"]
    assert found("tags=x&tags=y&match_all_tags=true") == ["cond/a"]
    assert found("connected_to_agents_count_gt=1") == ["cond/a"]
    assert found("connected_to_agents_count_lt=1") == ["cond/b"]
    assert found("connected_to_agents_count_eq=0&connected_to_agents_count_eq=2") == ["cond/a", "cond/b"]
    assert found("project_id=p") == ["cond/a"]
    assert found("project_id=q") == []
    assert found("name=t") == ["cond/b"]
    assert found("identity_id=identity-1") == []
    assert found("limit=1&before=cond/b") == ["cond/a"]
    assert http.get("/v1/blocks/count?label=cond/a").json() == 1
    assert http.get("/v1/blocks/count?label_search=cond/&project_id=p").json() == 1
    assert http.get("/v1/blocks/count").json() >= 2


def test_private_blocks_have_their_short_names(http: TestClient) -> None:
    """Two agents may each have a `user1`; both are found under it."""
    for name in ("duo-1", "duo-2"):
        agent_named(http, name, memory_blocks=[{"label": "user1", "value": name}])
    found = http.get("/v1/blocks/?label=user1").json()
    assert [(one["label"], one["value"]) for one in found] == [("user1", "duo-1"), ("user1", "duo-2")]
    renamed = http.patch(f"/v1/blocks/{found[0]['id']}", json={"label": "user2"}).json()
    assert (renamed["label"], renamed["full_label"]) == ("user2", "agents/duo-1/user2")


# --- agents ---


def test_agent_is_created_with_its_blocks(http: TestClient, folder: Path) -> None:
    """Private ones with their fields, shared ones by id; keys of no field are ignored, as when a block is passed on."""
    shared = made(http, "organization", limit=4000)
    own = {"label": "human", "value": "Bob", "limit": 5000, "id": "block-1", "version": 3, "created_by_id": None}
    agent = agent_named(http, "maker", memory_blocks=[own], block_ids=[shared["id"]], model="openai/gpt-4o-mini")
    assert [(one["label"], one["value"], one["limit"]) for one in agent["blocks"]] == [
        ("human", "Bob", 5000),
        ("organization", "one", 4000),
    ]
    assert agent["memory"]["blocks"] == agent["blocks"]
    assert (folder / "agents/maker/human.md").exists()
    assert http.get("/v1/agents/maker").json() == agent
    assert http.get("/v1/agents/maker/core-memory").json()["blocks"] == agent["blocks"]


def test_agent_without_blocks_and_name(http: TestClient) -> None:
    """As in Letta it has no block, and a name is made up."""
    first, second = http.post("/v1/agents/", json={}).json(), http.post("/v1/agents/", json={}).json()
    assert first["blocks"] == []
    assert first["id"] != second["id"]
    assert http.get(f"/v1/agents/{first['id']}").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "words"),
    [
        ("POST", "agents/", {"memoryBlocks": []}, "'memoryBlocks' is called 'memory_blocks' here"),
        ("POST", "agents/", {"blockIds": []}, "'blockIds' is called 'block_ids' here"),
        ("POST", "agents/", {"memory_blocks": [{"label": "a", "readOnly": True}]}, "'read_only'"),
        ("POST", "blocks/", {"label": "camel", "value": "", "readOnly": True}, "'read_only'"),
        ("GET", "blocks/?labelSearch=x", None, "'label_search'"),
        ("GET", "agents/?queryText=x", None, "'query_text'"),
        ("GET", "blocks/count?connectedToAgentsCountGt=1", None, "'connected_to_agents_count_gt'"),
    ],
)
def test_key_in_camel_case(http: TestClient, method: str, path: str, body: Any, words: str) -> None:
    """As a program for the TypeScript SDK 0.x sends it with 1.x: ignored, it would make an agent without memory."""
    answer = http.request(method, f"/v1/{path}", json=body)
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["detail"]
    assert http.get("/v1/blocks/camel").status_code == 404
    assert http.post("/v1/agents/", json={"name": "camel", "toolIds": [], "Unknown": 1}).status_code == 200
    assert http.delete("/v1/agents/camel").status_code == 200


def test_agents_of_one_name(http: TestClient) -> None:
    """Each has an id; a name that can be no id is made one."""
    assert [agent_named(http, "sam")["id"] for _ in range(3)] == ["sam", "sam-2", "sam-3"]
    assert agent_named(http, "Bob the Builder!")["id"] == "Bob-the-Builder"
    assert agent_named(http, "operator")["id"] == "agent-operator"


def test_agents_are_listed(http: TestClient) -> None:
    """The newest first unless told otherwise, in pages, whatever their ids are."""
    names = [f"list-{number}" for number in (2, 4, 0, 3, 1)]
    made_at = [agent_named(http, name)["created_at"] for name in names]
    assert made_at == sorted(made_at)
    assert len(set(made_at)) == 5
    where = {"query_text": "LIST-"}

    def ids(**query: Any) -> list[str]:
        return [one["id"] for one in http.get("/v1/agents/", params={**where, **query}).json()]

    assert ids() == names[::-1]
    assert [one["id"] for one in http.get("/v1/agents/?limit=5").json()] == names[::-1]
    assert [one["id"] for one in http.get(f"/v1/agents/?limit=2&after={names[3]}").json()] == [names[2], names[1]]
    assert [one["id"] for one in http.get(f"/v1/agents/?limit=2&before={names[1]}").json()] == [names[3], names[2]]
    assert ids(order="asc", limit=2) == names[:2]
    assert ids(order="asc", limit=2, after=names[1]) == names[2:4]
    assert ids(order="asc", limit=2, before=names[4]) == names[2:4]
    assert ids(limit=2, after=names[3]) == [names[2], names[1]]
    assert ids(limit=2, before=names[1]) == [names[3], names[2]]
    assert ids(after=names[4], before=names[1]) == [names[3], names[2]]
    assert [one["id"] for one in http.get("/v1/agents/?name=list-3").json()] == ["list-3"]
    assert http.get("/v1/agents/?name=nobody").json() == []
    assert ids(ascending="true") == ids(order_by="created_at", ascending="true", order="asc") == names
    assert ids(ascending="false") == ids(ascending="true", order="desc") == names[::-1]
    for none in ("created_by_id", "last_stop_reason", "project_id", "template_id", "base_template_id", "identity_id"):
        assert ids(**{none: "x"}) == [], none
    for key in ("order_by", "sort_by"):  # none has ever run: they are all equal in that
        assert ids(**{key: "last_run_completion"}) == ids(**{key: "created_at"}) == names[::-1]
        assert http.get(f"/v1/agents/?{key}=name").status_code == 422
    answer = http.post("/v1/agents/", json={"memory_blocks": [{"value": "x"}]})
    assert (answer.status_code, answer.json()["detail"]) == (422, "each of memory_blocks needs a label")
    assert http.get("/v1/agents/count").json() >= 5


def test_agents_are_listed_by_their_last_change(http: TestClient) -> None:
    """By `updated_at`: when their properties changed last, or else when they were created."""
    first, second, third = (agent_named(http, f"{name}-by-change") for name in ("c", "b", "a"))
    assert first["updated_at"] == first["created_at"]
    changed = http.patch(f"/v1/agents/{first['id']}", json={"description": "new"}).json()
    assert changed["updated_at"] > third["created_at"]
    assert changed["created_at"] == first["created_at"]
    where = "/v1/agents/?query_text=by-change&order_by=updated_at"

    def ids(more: str = "") -> list[str]:
        return [one["id"] for one in http.get(f"{where}{more}").json()]

    assert ids() == [first["id"], third["id"], second["id"]]
    assert ids(f"&after={third['id']}") == [second["id"]]
    assert ids(f"&order=asc&before={first['id']}&limit=1") == [third["id"]]
    assert [one["id"] for one in http.get("/v1/agents/?order_by=updated_at&limit=1").json()] == [first["id"]]
    assert http.delete(f"/v1/agents/{first['id']}").status_code == 200  # with its properties, which said when
    assert ids(f"&after={first['id']}") == [third["id"], second["id"]]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("condition", ["", "&query_text=gone-"])
def test_agents_that_are_deleted_while_they_are_listed(http: TestClient, order: str, condition: str) -> None:
    """The next page goes on where the deleted agent was, as for a program that deletes what it lists."""
    names = [f"gone-{order}{len(condition)}-{number}" for number in (3, 1, 5, 2, 4)]
    for name in names:
        agent_named(http, name)
    seen: list[str] = []
    after = ""
    while page := [one["id"] for one in http.get(f"/v1/agents/?order={order}&limit=2{condition}{after}").json()]:
        seen += page
        for agent in page:
            if agent in names:
                assert http.delete(f"/v1/agents/{agent}").status_code == 200
        after = f"&after={page[-1]}"
    assert [one for one in seen if one in names] == (names if order == "asc" else names[::-1])
    assert len(seen) == len(set(seen))
    again = agent_named(http, names[0])
    assert again["id"] == names[0]
    assert [one["id"] for one in http.get("/v1/agents/?limit=1").json()] == [again["id"]]


def test_a_cursor_that_never_was_an_agent(http: TestClient) -> None:
    """It is refused: a list that began anew would never end."""
    for query in (
        "after=never-was",
        "before=never-was",
        "query_text=x&after=never-was",
        "order_by=updated_at&after=no",
    ):
        answer = http.get(f"/v1/agents/?{query}")
        assert answer.status_code == 404
        assert "list from the start" in answer.json()["detail"]


def test_properties_of_agents(http: TestClient, folder: Path) -> None:
    """They round-trip through create, update and list, and are in the agent's file; null leaves them alone."""
    said = {
        "name": "Kim, of Support!",
        "description": "Answers on weekends.",
        "agent_type": "sleeptime_agent",
        "system": "You are Kim.",
        "tags": ["weekend", "support"],
        "metadata": {"team": 3},
    }
    agent = http.post("/v1/agents/", json={**said, "model": "openai/gpt-4o-mini"}).json()
    assert agent["id"] == "Kim-of-Support"
    assert agent.items() >= said.items()
    assert agent["memory"]["agent_type"] == "sleeptime_agent"
    assert "Answers on weekends." in (folder / "agents/Kim-of-Support/agent.yaml").read_text()
    path = f"/v1/agents/{agent['id']}"
    assert http.get(path).json() == agent
    changed = http.patch(
        path, json={"name": "Kim", "tags": [], "description": None, "agent_type": "react_agent"}
    ).json()
    assert (changed["name"], changed["tags"], changed["description"]) == ("Kim", [], "Answers on weekends.")
    block = made(http, "both")
    both = http.patch(path, json={"system": "You are still Kim.", "block_ids": [block["id"]]}).json()
    assert (both["system"], [one["label"] for one in both["blocks"]]) == ("You are still Kim.", ["both"])
    assert http.patch(path, json={"name": "two\nlines"}).status_code == 422
    assert http.patch(path, json={"tags": "x"}).status_code == 422
    assert http.get(path).json() == both
    second = agent_named(http, "Kim", tags=["support", "weekend"])
    assert second["id"] == "Kim"
    assert "name" not in (folder / "agents/Kim/agent.yaml").read_text()

    def ids(query: str) -> list[str]:
        return [one["id"] for one in http.get(f"/v1/agents/?{query}&order=asc").json()]

    assert ids("name=Kim") == ["Kim-of-Support", "Kim"]
    assert ids("name=Kim&limit=1&after=Kim-of-Support") == ["Kim"]
    assert ids("tags=support&tags=nothing") == ["Kim"]
    assert ids("tags=support&tags=nothing&match_all_tags=true") == []
    assert ids("identity_id=identity-1") == []
    assert "weekend" in http.get("/v1/tags/").json()


def test_type_of_an_agent_is_its_style(http: TestClient) -> None:
    """As in Letta: lines are numbered for one that edits by them."""
    blocks = [{"label": "persona", "value": "I am Kim."}]
    agent_named(http, "numbered", agent_type="sleeptime_agent", memory_blocks=blocks)
    assert "1→ I am Kim." in http.post("/v1/agents/numbered/recompile").json()
    assert "1→ I am Kim." in http.get("/v1/agents/numbered/context").json()["core_memory"]
    assert http.get("/v1/agents/numbered/core-memory").json()["agent_type"] == "sleeptime_agent"


def test_attach_and_detach(http: TestClient) -> None:
    """Attaching twice is as attaching once; detaching what is not attached is 404."""
    block, agent = made(http, "shared-1"), agent_named(http, "attached")
    below = f"/v1/agents/{agent['id']}/core-memory/blocks"
    for _ in range(2):
        answer = http.patch(f"{below}/attach/{block['id']}", headers={"content-type": "application/json"})
        assert answer.status_code == 200, answer.text
        assert [one["id"] for one in answer.json()["blocks"]] == [block["id"]]
    assert [one["id"] for one in http.get(f"/v1/blocks/{block['id']}/agents").json()] == ["attached"]
    assert http.patch(f"{below}/detach/{block['id']}").json()["blocks"] == []
    again = http.patch(f"{below}/detach/{block['id']}")
    assert (again.status_code, "not attached" in again.json()["detail"]) == (404, True)
    assert http.get(f"/v1/blocks/{block['id']}/agents").json() == []


def test_second_block_of_one_name(http: TestClient) -> None:
    """409 with the remedy: an agent could not tell them apart."""
    agent_named(http, "twice", memory_blocks=[{"label": "twin", "value": "own"}])
    shared = made(http, "twin")
    answer = http.patch(f"/v1/agents/twice/core-memory/blocks/attach/{shared['id']}")
    assert answer.status_code == 409
    assert "detach or rename" in answer.json()["detail"]
    assert answer.headers["x-should-retry"] == "false"


def test_agents_of_a_block_in_pages(http: TestClient) -> None:
    """The newest first, and after an agent that was deleted or detached meanwhile, too."""
    block = made(http, "many-agents")
    names = [f"of-{number}" for number in (1, 3, 0, 2)]
    for name in names:
        agent_named(http, name, block_ids=[block["id"]])
    where = f"/v1/blocks/{block['id']}/agents"

    def ids(query: str) -> list[str]:
        return [one["id"] for one in http.get(f"{where}?{query}").json()]

    assert ids("limit=2") == ids("limit=2&order_by=created_at") == ["of-2", "of-0"]
    assert ids("order=asc&after=of-3") == ["of-0", "of-2"]
    assert http.delete("/v1/agents/of-0").json() == {"message": "Agent id=of-0 successfully deleted"}
    assert ids("limit=2&after=of-0") == ["of-3", "of-1"]
    assert http.patch(f"/v1/agents/of-3/core-memory/blocks/detach/{block['id']}").status_code == 200
    assert ids("limit=2&after=of-3") == ["of-1"]
    assert http.get(f"{where}?order_by=name").status_code == 422
    assert http.get("/v1/agents/of-0").status_code == 404


def test_page_of_an_agents_blocks_reads_no_others(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many the agent has: an answer of two blocks costs the texts of two."""
    agent_named(http, "many", memory_blocks=[{"label": f"b{number}", "value": "x" * 50} for number in range(9)])
    ask, asked = AsyncTransport.ask, list[Any]()

    async def spying(self: AsyncTransport, *commands: Any, **options: Any) -> list[Any]:
        asked.extend(commands)
        return await ask(self, *commands, **options)

    monkeypatch.setattr(AsyncTransport, "ask", spying)
    monkeypatch.setattr(listing, "MOST_CHARS", 120)
    where = "/v1/agents/many/core-memory/blocks"
    first = http.get(f"{where}?limit=7").json()
    rest = http.get(f"{where}?after={first[-1]['id']}&limit=1").json()
    assert [len(first), len(rest)] == [2, 1]
    assert first[-1]["id"] > rest[0]["id"]
    assert sum(words[0] == "HGETALL" and ":block:" in words[1] for words in asked) == 3


def test_blocks_of_an_agent_in_pages(http: TestClient) -> None:
    """By id, the last one first, as in Letta; a cursor may be of a block that is gone."""
    agent_named(http, "paged", memory_blocks=[{"label": f"b{number}", "value": ""} for number in range(5)])
    where = "/v1/agents/paged/core-memory/blocks"
    found = [one["id"] for one in http.get(where).json()]
    assert found == sorted(found, reverse=True)
    assert len(found) == 5
    assert [one["id"] for one in http.get(f"{where}?limit=2&after={found[1]}").json()] == found[2:4]
    assert [one["id"] for one in http.get(f"{where}?limit=2&before={found[3]}").json()] == found[1:3]
    assert [one["id"] for one in http.get(f"{where}?order=asc").json()] == found[::-1]
    http.delete(f"/v1/blocks/{found[1]}")
    assert [one["id"] for one in http.get(f"{where}?limit=2&after={found[1]}").json()] == found[2:4]


def test_operator_changes_read_only_blocks(http: TestClient) -> None:
    """A program is no agent: `read_only` is what binds those."""
    agent_named(http, "strict", memory_blocks=[{"label": "rules", "value": "one", "read_only": True}])
    answer = http.patch("/v1/agents/strict/core-memory/blocks/rules", json={"value": "two"})
    assert (answer.status_code, answer.json()["value"]) == (200, "two")


def test_agents_blocks_are_set(http: TestClient) -> None:
    """By `block_ids`, in one step; its private blocks stay."""
    first, second = made(http, "set-1"), made(http, "set-2")
    agent_named(http, "setter", block_ids=[first["id"]], memory_blocks=[{"label": "own", "value": ""}])
    answer = http.patch("/v1/agents/setter", json={"block_ids": [second["id"]]})
    assert [one["label"] for one in answer.json()["blocks"]] == ["own", "set-2"]


# --- memory ---


def test_prompt(http: TestClient) -> None:
    """Recompiling gives the prompt of now; the context shows the same, and knows of no messages."""
    agent_named(http, "prompted", memory_blocks=[{"label": "persona", "value": "I am Kim."}])
    answer = http.post("/v1/agents/prompted/recompile?dry_run=true")
    assert answer.json().startswith("<memory_blocks>")
    assert "I am Kim." in answer.json()
    context = http.get("/v1/agents/prompted/context").json()
    assert context["core_memory"] == answer.json()
    assert (context["num_messages"], context["messages"]) == (0, [])
    assert http.get("/v1/agents/prompted/core-memory/variables").json() == {"variables": {}}
    for path in ("context", "core-memory", "core-memory/variables", "core-memory/blocks", "core-memory/blocks/x"):
        assert http.get(f"/v1/agents/nobody/{path}").status_code == 404


def test_tools_are_run_as_the_agent(http: TestClient) -> None:
    """What the agent may not do is an answer in words; what is no tool of memory is 404."""
    blocks = [{"label": "notes", "value": "one"}, {"label": "law", "value": "x", "read_only": True}]
    agent_named(http, "runner", memory_blocks=blocks)

    def run(tool: str, **arguments: Any) -> dict[str, Any]:
        return dict(http.post(f"/v1/agents/runner/tools/{tool}/run", json={"args": arguments}).json())

    assert run("core_memory_append", label="notes", content="two")["status"] == "success"
    block = http.get("/v1/agents/runner/core-memory/blocks/notes").json()
    assert (block["value"], block["last_updated_by_id"]) == ("one\ntwo", "runner")
    refused = run("core_memory_append", label="law", content="y")
    assert (refused["status"], "read-only" in refused["func_return"]) == ("error", True)
    answer = http.post("/v1/agents/runner/tools/send_message/run", json={"args": {}})
    assert answer.status_code == 404
    assert "memory_replace" in answer.json()["detail"]


def test_tags(http: TestClient) -> None:
    """The tags of blocks, in pages."""
    made(http, "tagged", tags=["zebra-1", "zebra-2", "zebra-3"])
    assert http.get("/v1/tags/?query_text=ZEBRA").json() == ["zebra-1", "zebra-2", "zebra-3"]
    assert http.get("/v1/tags/?query_text=zebra&limit=1&after=zebra-1").json() == ["zebra-2"]


# --- what is not there, and what is sent again ---


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/agents/x/messages", 404),
        ("GET", "/v1/tools/", 404),
        ("GET", "/v1/identities/", 404),
        ("PATCH", "/v1/agents/x/identities/attach/y", 404),
        ("POST", "/v1/agents/search", 405),
        ("PUT", "/v1/blocks/", 405),
        ("DELETE", "/v1/agents/x/core-memory/blocks/y", 405),
        ("GET", "/nowhere", 404),
    ],
)
def test_what_is_not_implemented(http: TestClient, method: str, path: str, status: int) -> None:
    """404 or 405, naming blocksd: an SDK would repeat a 5xx."""
    answer = http.request(method, path)
    assert answer.status_code == status, answer.text
    assert "blocksd has" in answer.json()["detail"]


def test_a_request_that_is_sent_again_is_done_once(http: TestClient) -> None:
    """An SDK counts its attempts; two requests that are alike, and no attempts of one, are two."""

    def post(count: str, **more: str) -> dict[str, Any]:
        headers = {"x-stainless-retry-count": count, **more}
        return dict(http.post("/v1/agents/", json={"name": "again"}, headers=headers).json())

    assert [post("0")["id"], post("1")["id"], post("2")["id"]] == ["again"] * 3
    assert [post("0")["id"], post("1")["id"]] == ["again-2"] * 2
    key = {"idempotency-key": "ours"}
    assert [post("0", **key)["id"], post("0", **key)["id"]] == ["again-3"] * 2
    url = "/v1/agents/again/tools/core_memory_append/run"
    agent_named(http, "appender", memory_blocks=[{"label": "log", "value": ""}])
    url = "/v1/agents/appender/tools/core_memory_append/run"
    for count in ("0", "1"):
        body = {"args": {"label": "log", "content": "once"}}
        http.post(url, json=body, headers={"x-stainless-retry-count": count})
    assert http.get("/v1/agents/appender/core-memory/blocks/log").json()["value"] == "once"


def test_agent_of_a_taken_name_is_made_once(served: tuple[RedisServer, Path], http: TestClient) -> None:
    """Under one key, by whichever gateway; and each of several clients that ask at once gets another agent."""
    body, headers = {"name": "of many gateways"}, {"idempotency-key": "k-1"}
    first = http.post("/v1/agents/", json=body, headers=headers).json()
    with gateway(served[0].url) as another:
        for path in ("/v1/agents/", "/v1/agents/"):
            assert another.post(path, json=body, headers=headers).json() == first
    made = http.post("/v1/agents/", json=body).json()
    assert (made["id"], made["name"]) == ("of-many-gateways-2", "of many gateways")

    async def main() -> set[str]:
        app = application(served[0].url, "blocks", tokens=Tokens(), places=Places(None, has_tokens=False))
        over = httpx2.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=over, base_url="http://127.0.0.1:8283", timeout=60) as client,
        ):
            answers = [client.post("/v1/agents/", json={"name": "rush"}) for _ in range(8)]
            return {answer.json()["id"] for answer in await asyncio.gather(*answers)}

    assert asyncio.run(main()) == {"rush", *(f"rush-{number}" for number in range(2, 9))}
    assert len(http.get("/v1/agents/?name=rush").json()) == 8


def test_many_at_once(served: tuple[RedisServer, Path], http: TestClient) -> None:
    """Hundreds of changes and reads at one moment: each is answered, none for want of a connection."""
    agent_named(http, "crowd", memory_blocks=[{"label": "log", "value": ""}])
    path = "/v1/agents/crowd/core-memory/blocks/log"

    async def main() -> set[int]:
        app = application(served[0].url, "blocks", tokens=Tokens(), places=Places(None, has_tokens=False))
        over = httpx2.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=over, base_url="http://127.0.0.1:8283", timeout=60) as client,
        ):
            writes = [client.patch(path, json={"value": str(number)}) for number in range(300)]
            reads = [client.get(path) for _ in range(300)]
            return {answer.status_code for answer in await asyncio.gather(*writes, *reads)}

    assert asyncio.run(main()) == {200}


def test_requests_that_are_sent_again_at_once(
    served: tuple[RedisServer, Path], http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first is on its way: all of them are answered, and it is done once."""
    agent_named(http, "hasty", memory_blocks=[{"label": "log", "value": ""}])
    path, body = "/v1/agents/hasty/tools/core_memory_append/run", {"args": {"label": "log", "content": "once"}}

    began, ask = asyncio.Event(), SharedTransport.request

    async def request(transport: SharedTransport, *words: Any, **terms: Any) -> dict[str, Any]:
        began.set()
        return await ask(transport, *words, **terms)

    monkeypatch.setattr(SharedTransport, "request", request)

    async def main() -> set[str]:
        app = application(served[0].url, "blocks", tokens=Tokens(), places=Places(None, has_tokens=False))
        over = httpx2.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=over, base_url="http://127.0.0.1:8283", timeout=60) as client,
        ):
            first = asyncio.ensure_future(client.post(path, json=body, headers={"x-stainless-retry-count": "0"}))
            await began.wait()
            again = [client.post(path, json=body, headers={"x-stainless-retry-count": "1"}) for _ in range(5)]
            return {answer.json()["status"] for answer in await asyncio.gather(first, *again)}

    assert asyncio.run(main()) == {"success"}
    value = http.get("/v1/agents/hasty/core-memory/blocks/log").json()["value"]
    assert value == "once"


def test_health(http: TestClient) -> None:
    """Both forms, with a version."""
    for path in ("/v1/health", "/v1/health/", "/latest/health/", "/v1/ready"):
        assert http.get(path).json()["status"] == "ok"


def test_without_redis(tmp_path: Path) -> None:
    """503 with a time to try again, and nothing about the server's address."""
    with gateway(f"unix://{tmp_path}/nowhere.sock") as http:
        for path in ("/v1/health", "/v1/blocks/", "/v1/blocks/x"):
            answer = http.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "nowhere" not in answer.text
