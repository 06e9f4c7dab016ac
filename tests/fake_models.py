"""Clients with the shapes of OpenAI's and Anthropic's packages, and a model that needs no network.

The model notes what the user says by `core_memory_append`, and then answers with one sentence. It refuses what the real API would
refuse: a tool in another shape, a result that answers no call, and a prompt without the memory.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, Self


def _check(condition: object, what: str) -> None:
    if not condition:
        raise ValueError(what)


def _check_prompt(prompt: str) -> None:
    _check(prompt.startswith("<memory_blocks>") and "<persona>" in prompt, f"no memory in the prompt: {prompt}")


def _check_result(result: str, noted: str, prompt: str) -> None:
    _check(result.startswith("Done: 'persona' has "), f"the tool said: {result}")
    _check(noted in prompt, f"the prompt is not current: {prompt}")


def _check_schema(schemas: dict[str, Any]) -> None:
    schema = schemas["core_memory_append"]
    _check(schema["type"] == "object" and set(schema["required"]) == {"label", "content"}, f"no schema: {schema}")


def _openai(*, model: str, messages: list[Any], tools: list[dict[str, Any]]) -> Any:
    _check(model, "no model is named")
    system, *_, last = messages
    _check(system["role"] == "system", "the first message is the system prompt")
    _check_prompt(system["content"])
    _check(all(tool["type"] == "function" for tool in tools), f"no functions: {tools}")
    _check_schema({tool["function"]["name"]: tool["function"]["parameters"] for tool in tools})
    if last["role"] == "user":
        arguments = json.dumps({"label": "persona", "content": last["content"]})
        function = SimpleNamespace(name="core_memory_append", arguments=arguments)
        message = SimpleNamespace(
            role="assistant", content=None, tool_calls=[SimpleNamespace(id="1", function=function)]
        )
    else:
        (call,) = messages[-2].tool_calls
        _check((last["role"], last["tool_call_id"]) == ("tool", call.id), f"no result of the call: {last}")
        _check_result(last["content"], json.loads(call.function.arguments)["content"], system["content"])
        message = SimpleNamespace(role="assistant", content="I have noted it.", tool_calls=None)
    return SimpleNamespace(choices=[SimpleNamespace(message=message)])


def _responses(*, model: str, instructions: str, input: list[Any], tools: list[dict[str, Any]]) -> Any:  # noqa: A002
    _check(model, "no model is named")
    _check_prompt(instructions)
    _check(all(tool["type"] == "function" and tool["strict"] is False for tool in tools), f"no functions: {tools}")
    _check_schema({tool["name"]: tool["parameters"] for tool in tools})
    last = input[-1]
    if last.get("role") == "user":
        arguments = json.dumps({"label": "persona", "content": last["content"]})
        call = SimpleNamespace(type="function_call", call_id="1", name="core_memory_append", arguments=arguments)
        return SimpleNamespace(output=[SimpleNamespace(type="reasoning"), call], output_text="")
    call = input[-2]
    _check((last["type"], last["call_id"]) == ("function_call_output", call.call_id), f"no result of the call: {last}")
    _check_result(last["output"], json.loads(call.arguments)["content"], instructions)
    return SimpleNamespace(output=[SimpleNamespace(type="message")], output_text="I have noted it.")


def _anthropic(
    *, model: str, max_tokens: int, system: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> Any:
    _check(model and max_tokens > 0, "no model, or no room for its answer")
    _check_prompt(system)
    _check_schema({tool["name"]: tool["input_schema"] for tool in tools})
    last = messages[-1]
    _check(last["role"] == "user", f"the last message is not the user's: {last}")
    if isinstance(last["content"], str):
        given = {"label": "persona", "content": last["content"]}
        text = SimpleNamespace(type="text", text="I note it.")
        return SimpleNamespace(
            content=[text, SimpleNamespace(type="tool_use", id="1", name="core_memory_append", input=given)]
        )
    call, (result,) = messages[-2]["content"][-1], last["content"]
    _check((result["type"], result["tool_use_id"]) == ("tool_result", call.id), f"no result of the call: {result}")
    _check(result["is_error"] is False, f"the call failed: {result}")
    _check_result(result["content"], call.input["content"], system)
    return SimpleNamespace(content=[SimpleNamespace(type="text", text="I have noted it.")])


async def _openai_async(**request: Any) -> Any:
    return _openai(**request)


async def _anthropic_async(**request: Any) -> Any:
    return _anthropic(**request)


class OpenAI:
    def __init__(self) -> None:
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=_openai))
        self.responses = SimpleNamespace(create=_responses)


class Anthropic:
    def __init__(self) -> None:
        self.messages = SimpleNamespace(create=_anthropic)


class _Async:
    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


class AsyncOpenAI(_Async):
    def __init__(self) -> None:
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=_openai_async))


class AsyncAnthropic(_Async):
    def __init__(self) -> None:
        self.messages = SimpleNamespace(create=_anthropic_async)
