"""The tools a language model is given, and what it is told when it calls them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import pytest

from blocksd import AsyncMemory, Memory, ToolResult
from blocksd.client.blocking.transport import Transport
from blocksd.client.tools import TOOLS, Mistake
from blocksd.client.transport_async import AsyncTransport
from blocksd.errors import BlocksdError, InvalidField, InvalidRequest, Misconfigured, NotFound, Unavailable
from blocksd.mirror.keys import Keys
from blocksd.mirror.projection import fields_of
from blocksd.mirror.view import view_of
from blocksd.model.block import Block
from blocksd.model.revision import Revision
from blocksd.protocol.sight import Written
from blocksd.requests.reply import shown

if TYPE_CHECKING:
    from blocksd import Tools
    from blocksd.protocol.wire import Command

NAMES = [
    "memory_view",
    "core_memory_append",
    "core_memory_replace",
    "memory_replace",
    "memory_insert",
    "memory_rethink",
    "memory_apply_patch",
    "memory_update_description",
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
        self.labels = {}
        self.written = Written()
        self.outcome = outcome
        self.requests: list[dict[str, Any]] = []

    def _master(self) -> object:
        return None

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
        if word == "HGET" and key == "blocks:agent:ann":
            return BLOCK.label if rest == ("human",) else None
        return 1.0 if word == "ZSCORE" else "1"

    def _outcome(self) -> str:
        if self.outcome is not None:
            return json.dumps({"id": "1", "ok": False, "error": self.outcome.as_json()})
        gone = self.requests[-1]["op"] == "delete"
        return json.dumps({"id": "1", "ok": True, "block": None if gone else shown(REVISION)})


class AsyncScript(AsyncTransport):
    """The same, to be awaited."""

    def __init__(self) -> None:
        self.keys = Keys("blocks")
        self.written = Written()

    async def _master(self) -> object:
        return None

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


LETTAS = {
    "core_memory_append": ["label", "content"],
    "core_memory_replace": ["label", "old_content", "new_content"],
    "memory_insert": ["label", "new_string", "insert_line"],
    "memory_replace": ["label", "old_string", "new_string"],
    "memory_rethink": ["label", "new_memory"],
    "memory_apply_patch": ["label", "patch"],
}


@pytest.mark.parametrize("name", LETTAS)
def test_tools_and_arguments_have_lettas_names(name: str) -> None:
    """A model or a prompt that knows Letta's tools finds them here, with the same arguments in the same order."""
    (found,) = [one for one in tools_of(Script()).definitions if one["name"] == name]
    assert list(found["parameters"]["properties"]) == LETTAS[name]


def test_some_tools_may_be_offered_alone() -> None:
    """Others are then neither defined nor called; a name that is none is refused."""
    script = Script()
    tools = Memory(script, "ann", WeakSet()).tools(only=["memory_replace", "memory_view"])
    assert [one["name"] for one in tools.definitions] == ["memory_view", "memory_replace"]
    assert len(tools.openai()) == len(tools.openai_responses()) == len(tools.anthropic()) == 2
    result = tools.call("memory_delete", {"label": "human"})
    assert result.text == "Not done: there is no tool 'memory_delete'. The tools: memory_view, memory_replace"
    assert script.requests == []
    with pytest.raises(InvalidField, match="there is no tool 'memory_forget'"):
        Memory(script, "ann", WeakSet()).tools(only=["memory_forget"])


def test_definitions_as_three_interfaces_have_them() -> None:
    """The same definitions in the forms that OpenAI's and Anthropic's interfaces take, ready to be sent as JSON."""
    tools = tools_of(Script())
    for neutral, openai, responses, anthropic in zip(
        tools.definitions, tools.openai(), tools.openai_responses(), tools.anthropic(), strict=True
    ):
        assert openai == {"type": "function", "function": neutral}
        assert responses == {"type": "function", "strict": False, **neutral}
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
    ("core_memory_append", {"content": "x"}, {"op": "append", "args": {"content": "x"}}),
    (
        "core_memory_replace",
        {"old_content": "x", "new_content": ""},
        {"op": "replace", "args": {"old_content": "x", "new_content": ""}},
    ),
    (
        "memory_replace",
        {"old_string": "x", "new_string": ""},
        {"op": "replace", "args": {"old_content": "x", "new_content": ""}},
    ),
    ("memory_insert", {"new_string": "x", "insert_line": 0}, {"op": "insert", "args": {"content": "x", "line": 0}}),
    ("memory_insert", {"new_string": "x"}, {"op": "insert", "args": {"content": "x", "line": -1}}),
    ("memory_insert", {"new_string": "x", "insert_line": None}, {"op": "insert", "args": {"content": "x", "line": -1}}),
    ("memory_rethink", {"new_memory": "x"}, {"op": "update", "args": {"value": "x"}}),
    ("memory_apply_patch", {"patch": "x"}, {"op": "patch", "args": {"patch": "x"}}),
    ("memory_update_description", {"description": "x"}, {"op": "update", "args": {"description": "x"}}),
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
        result = tools_of(script).call(name, given)
        assert result.ok
        assert result.text.startswith("Done: 'human' ")
        assert result.block == (None if name == "memory_delete" else view_of(shown(REVISION) or {}))
        (sent,) = script.requests
        assert {key: sent[key] for key in ("op", "name", "args")} == {"name": "human", **request_}


def test_a_tool_reads() -> None:
    """It shows a block as prompts do, by one read of the mirror; of a block that is not there it says which ones are."""
    script = Script()
    result = tools_of(script).call("memory_view", {"label": "human"})
    assert result.ok
    assert result.text == (
        f"<human>\n<description>\n{BLOCK.description or ''}\n</description>\n<metadata>\n- read_only=false\n"
        "- chars_current=3\n- chars_limit=20000\n</metadata>\n<value>\nBob\n</value>\n</human>"
    )
    assert result.block is not None
    assert result.block.value == "Bob"
    assert script.requests == []
    missing = tools_of(script).call("memory_view", {"label": "humn"})
    assert missing == ToolResult(ok=False, text="Not done: agent 'ann' has no block 'humn' (it has: human)")


def test_every_tool_is_called_above() -> None:
    """No tool is offered that is not tried."""
    assert {"memory_view", *(name for name, _, _ in CALLS)} == set(NAMES)


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("memory_forget", {}, f"Not done: there is no tool 'memory_forget'. The tools: {', '.join(NAMES)}"),
        ("memory_delete", '{"label": ', "Not done: the arguments are not JSON: Expecting value"),
        ("memory_delete", '["human"]', "Not done: the arguments of memory_delete are an object"),
        ("memory_delete", "[" * 100_000, "Not done: the arguments are not JSON: "),
        ("memory_delete", "", "Not done: memory_delete needs the argument 'label'"),
        ("core_memory_append", {"label": "human"}, "Not done: core_memory_append needs the argument 'content'"),
        ("core_memory_append", {"label": "human", "content": None}, "Not done: 'content' must be a text"),
        ("core_memory_append", {"label": "human", "content": 7}, "Not done: 'content' must be a text"),
        (
            "core_memory_append",
            {"label": "human", "content": "x", "where": "end"},
            "Not done: core_memory_append has no argument 'where'. Its arguments: label, content",
        ),
        (
            "memory_insert",
            {"label": "human", "new_string": "x", "insert_line": "3"},
            "Not done: 'insert_line' must be a whole number",
        ),
        (
            "memory_insert",
            {"label": "human", "new_string": "x", "insert_line": True},
            "Not done: 'insert_line' must be a whole number",
        ),
    ],
)
def test_mistakes_are_told(name: str, arguments: dict[str, Any] | str, told: str) -> None:
    """What a model gets wrong is told it in words it can act on; nothing is asked for."""
    script = Script()
    result = tools_of(script).call(name, arguments)
    assert result.text.startswith(told)
    assert (result.ok, result.block) == (False, None)
    assert script.requests == []


def test_whole_numbers_may_have_a_point() -> None:
    """JSON has one kind of number, and the schema's `integer` is any without a fraction; some SDKs make all of them floats."""
    assert TOOLS["memory_insert"].checked({"label": "a", "new_string": "x", "insert_line": 2.0})["insert_line"] == 2
    for odd in (2.5, float("inf"), float("nan")):
        with pytest.raises(Mistake):
            TOOLS["memory_insert"].checked({"label": "a", "new_string": "x", "insert_line": odd})


def test_refusals_are_told() -> None:
    """What the daemon refuses is told in its words; of a block that is not there, also which ones are."""
    arguments = {"label": "human", "content": "x"}
    refused = tools_of(Script(InvalidRequest("line must be from 0 to 2", argument="line")))
    assert refused.call("core_memory_append", arguments).text == "Not done: line must be from 0 to 2"
    unknown = tools_of(Script(NotFound("'ann' has no block 'humn'", agent="ann", name="humn")))
    assert (
        unknown.call("core_memory_append", arguments).text == "Not done: 'ann' has no block 'humn'. Your blocks: human"
    )


def test_what_is_no_mistake_of_the_model_is_raised() -> None:
    """That the daemon does not serve is for the program to know."""
    tools = tools_of(Script(Unavailable("The folder is gone.")))
    with pytest.raises(Unavailable, match=r"The folder is gone\."):
        tools.call("core_memory_append", {"label": "human", "content": "x"})

    class Refused(Script):
        def ask(self, *commands: Command, together: bool = False) -> list[Any]:
            raise Misconfigured("Redis refuses the login.")

    with pytest.raises(Misconfigured):
        tools_of(Refused()).call("memory_delete", {"label": "human"})


def test_calls_are_awaited_in_asyncio_code() -> None:
    """For asyncio code the same definitions and the same calls, to be awaited."""
    tools = AsyncMemory(AsyncScript(), "ann", WeakSet()).tools()
    assert tools.definitions == tools_of(Script()).definitions
    result = asyncio.run(tools.call("core_memory_append", {"label": "human", "content": "x"}))
    assert result.text == "Done: 'human' has 3 of at most 20000 characters"
