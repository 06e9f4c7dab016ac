"""The tools a language model is given, and what it is told when it calls them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import pytest

from blocksd import AsyncMemory, Memory
from blocksd.client.blocking.transport import Transport
from blocksd.client.transport_async import AsyncTransport
from blocksd.errors import BlocksdError, InvalidRequest, Misconfigured, NotFound, Unavailable
from blocksd.mirror.keys import Keys
from blocksd.mirror.projection import fields_of
from blocksd.mirror.view import shown
from blocksd.model.block import Block
from blocksd.model.revision import Revision

if TYPE_CHECKING:
    from blocksd import Tools
    from blocksd.protocol.wire import Command

NAMES = [
    "memory_append",
    "memory_replace",
    "memory_insert",
    "memory_rethink",
    "memory_apply_patch",
    "memory_create",
    "memory_delete",
    "memory_rename",
]
AT = "2026-11-20T09:00:00.000Z"
BLOCK = Block("agents/ann/human", value="Bob")
REVISION = Revision(1, BLOCK.label, 1, "created", BLOCK, AT, AT, digest=BLOCK.digest)


class Script(Transport):
    """Redis and a daemon that give one outcome to every request, and remember the requests."""

    def __init__(self, outcome: BlocksdError | None = None) -> None:
        self.keys = Keys("blocks")
        self.outcome = outcome
        self.requests: list[dict[str, Any]] = []

    def ask(self, *commands: Command, together: bool = False) -> list[Any]:
        return [self._reply_to(*command) for command in commands]

    def _reply_to(self, word: str | int, key: str | int, *rest: str | int) -> Any:
        if word == "XADD":
            self.requests.append(json.loads(str(rest[-1])))
        if word == "BLPOP":
            return [key, self._outcome()]
        if word == "HGETALL":
            mirror: dict[str | int, dict[str, str]] = {
                "blocks:agent:ann": {"human": BLOCK.label},
                f"blocks:block:{BLOCK.label}": fields_of(REVISION),
            }
            return mirror.get(key, {})
        return "1"

    def _outcome(self) -> str:
        if self.outcome is not None:
            return json.dumps({"id": "1", "ok": False, "error": self.outcome.as_json()})
        gone = self.requests[-1]["op"] == "delete"
        return json.dumps({"id": "1", "ok": True, "block": None if gone else shown(REVISION)})


class AsyncScript(AsyncTransport):
    """The same, to be awaited."""

    def __init__(self) -> None:
        self.keys = Keys("blocks")

    async def ask(self, *commands: Command, together: bool = False) -> list[Any]:
        await asyncio.sleep(0)
        return Script().ask(*commands)


def tools_of(script: Transport) -> Tools:
    return Memory(script, "ann", WeakSet()).tools()


# --- definitions ---


def test_definitions_are_complete() -> None:
    """Each tool has a name, says what it does, and describes every parameter; nothing else may be given."""
    definitions = tools_of(Script()).definitions
    assert [one["name"] for one in definitions] == NAMES
    for one in definitions:
        schema = one["parameters"]
        assert one.keys() == {"name", "description", "parameters"}
        assert one["description"]
        assert schema["type"] == "object"
        assert schema["additionalProperties"] is False
        assert set(schema["required"]) <= schema["properties"].keys()
        assert schema["required"][0] == "label"
        for about in schema["properties"].values():
            assert about["type"] in ("string", "integer")
            assert about["description"]


def test_definitions_as_two_interfaces_have_them() -> None:
    """The same definitions in the forms that OpenAI's and Anthropic's interfaces take, ready to be sent as JSON."""
    tools = tools_of(Script())
    for neutral, openai, anthropic in zip(tools.definitions, tools.openai(), tools.anthropic(), strict=True):
        assert openai == {"type": "function", "function": neutral}
        assert anthropic == {
            "name": neutral["name"],
            "description": neutral["description"],
            "input_schema": neutral["parameters"],
        }
    assert json.loads(json.dumps(tools.openai())) == tools.openai()


def test_definitions_may_be_changed() -> None:
    """Whoever adds to a definition changes it for nobody else."""
    tools = tools_of(Script())
    tools.definitions[0]["parameters"]["properties"].clear()
    assert tools.definitions[0]["parameters"]["properties"]


# --- calls ---

CALLS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("memory_append", {"content": "x"}, {"op": "append", "args": {"content": "x"}}),
    (
        "memory_replace",
        {"old_content": "x", "new_content": ""},
        {"op": "replace", "args": {"old_content": "x", "new_content": ""}},
    ),
    ("memory_insert", {"content": "x", "line": 0}, {"op": "insert", "args": {"content": "x", "line": 0}}),
    ("memory_insert", {"content": "x"}, {"op": "insert", "args": {"content": "x", "line": -1}}),
    ("memory_rethink", {"new_value": "x"}, {"op": "update", "args": {"value": "x"}}),
    ("memory_apply_patch", {"patch": "x"}, {"op": "patch", "args": {"patch": "x"}}),
    ("memory_create", {"value": "x"}, {"op": "create", "args": {"value": "x", "description": None}}),
    ("memory_create", {"description": None}, {"op": "create", "args": {"value": "", "description": None}}),
    ("memory_delete", {}, {"op": "delete", "args": {}}),
    ("memory_rename", {"to": "x"}, {"op": "rename", "args": {"to": "x"}}),
]


@pytest.mark.parametrize(("name", "arguments", "request_"), CALLS)
def test_call_is_a_request_of_the_agent(name: str, arguments: dict[str, Any], request_: dict[str, Any]) -> None:
    """A call is the request it says, of the agent's own; its arguments may be a mapping, or the model's JSON."""
    for given in ({"label": "human", **arguments}, json.dumps({"label": "human", **arguments})):
        script = Script()
        told = tools_of(script).call(name, given)
        assert told.startswith("Done: 'human' ")
        (sent,) = script.requests
        assert {key: sent[key] for key in ("op", "name", "args")} == {"name": "human", **request_}


def test_every_tool_is_called_above() -> None:
    """No tool is offered that is not tried."""
    assert {name for name, _, _ in CALLS} == set(NAMES)


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("memory_forget", {}, f"Not done: there is no tool 'memory_forget'. The tools: {', '.join(NAMES)}"),
        ("memory_delete", '{"label": ', "Not done: the arguments are not JSON: Expecting value"),
        ("memory_delete", '["human"]', "Not done: the arguments of memory_delete are an object"),
        ("memory_delete", "[" * 100_000, "Not done: the arguments are not JSON: "),
        ("memory_delete", "", "Not done: memory_delete needs the argument 'label'"),
        ("memory_append", {"label": "human"}, "Not done: memory_append needs the argument 'content'"),
        ("memory_append", {"label": "human", "content": None}, "Not done: 'content' must be a text"),
        ("memory_append", {"label": "human", "content": 7}, "Not done: 'content' must be a text"),
        (
            "memory_append",
            {"label": "human", "content": "x", "where": "end"},
            "Not done: memory_append has no argument 'where'. Its arguments: label, content",
        ),
        ("memory_insert", {"label": "human", "content": "x", "line": "3"}, "Not done: 'line' must be a whole number"),
        ("memory_insert", {"label": "human", "content": "x", "line": True}, "Not done: 'line' must be a whole number"),
    ],
)
def test_mistakes_are_told(name: str, arguments: dict[str, Any] | str, told: str) -> None:
    """What a model gets wrong is told it in words it can act on; nothing is asked for."""
    script = Script()
    assert tools_of(script).call(name, arguments).startswith(told)
    assert script.requests == []


def test_refusals_are_told() -> None:
    """What the daemon refuses is told in its words; of a block that is not there, also which ones are."""
    arguments = {"label": "human", "content": "x"}
    refused = tools_of(Script(InvalidRequest("line must be from 0 to 2", argument="line")))
    assert refused.call("memory_insert", arguments) == "Not done: line must be from 0 to 2"
    unknown = tools_of(Script(NotFound("'ann' has no block 'humn'", agent="ann", name="humn")))
    assert unknown.call("memory_append", arguments) == "Not done: 'ann' has no block 'humn'. Your blocks: human"


def test_what_is_no_mistake_of_the_model_is_raised() -> None:
    """That the daemon does not serve is for the program to know."""
    tools = tools_of(Script(Unavailable("The folder is gone.")))
    with pytest.raises(Unavailable, match=r"The folder is gone\."):
        tools.call("memory_append", {"label": "human", "content": "x"})

    class Refused(Script):
        def ask(self, *commands: Command, together: bool = False) -> list[Any]:
            raise Misconfigured("Redis refuses the login.")

    with pytest.raises(Misconfigured):
        tools_of(Refused()).call("memory_delete", {"label": "human"})


def test_calls_are_awaited_in_asyncio_code() -> None:
    """For asyncio code the same definitions and the same calls, to be awaited."""
    tools = AsyncMemory(AsyncScript(), "ann", WeakSet()).tools()
    assert tools.definitions == tools_of(Script()).definitions
    told = asyncio.run(tools.call("memory_append", {"label": "human", "content": "x"}))
    assert told == "Done: 'human' has 3 of at most 20000 characters"
