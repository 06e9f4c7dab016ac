"""A local server that plays a language model: OpenAI's Chat Completions and Responses, and Anthropic's Messages.

A script decides on each answer. The server refuses what the real ones refuse: a call without a result, a result without a
call, a tool in another shape. `asked` has all requests that were taken.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Call:
    """A call of a tool."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """One request: the API, the body, the system prompt, and how the conversation ends.

    `said` is what the user said last; `results` are the texts of the results that came after it, and `failed` how many of
    them are marked as errors.
    """

    api: str
    body: dict[str, Any]
    system: str
    said: str
    results: tuple[str, ...] = ()
    failed: int = 0

    @property
    def conversation(self) -> list[Any]:
        """All messages but the system prompt."""
        if self.api == "chat":
            return list(self.body["messages"][1:])
        return list(self.body["input" if self.api == "responses" else "messages"])

    @property
    def tools(self) -> dict[str, Any]:
        """The tools that are offered, by name."""
        functions = [tool.get("function", tool) for tool in self.body["tools"]]
        return {tool["name"]: tool for tool in functions}

    def block(self, name: str) -> str:
        """The value of a block as the prompt shows it."""
        found = re.search(rf"<{name}>\n.*?<value>\n(.*?)\n</value>\n</{name}>", self.system, re.DOTALL)
        _check(found, f"no block {name} in the prompt: {self.system}")
        assert found is not None
        return found[1]


class Mistake(Exception):
    """A request that the real API refuses."""


def _check(condition: object, what: str) -> None:
    if not condition:
        raise Mistake(what)


@dataclass
class ModelServer:
    """The server, while the `with` statement runs."""

    script: Callable[[Asked], str | list[Call]]
    asked: list[Asked] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _held: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, answer = outer._answer(self.path.partition("?")[0], body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def environ(self) -> dict[str, str]:
        """What leads the SDKs here, and nowhere else."""
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return {
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENAI_API_KEY": "none",
            "OPENAI_AGENTS_DISABLE_TRACING": "1",
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "none",
        }

    def _whole(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a request of Anthropic's with all of its conversation, of which the server may hold the beginning."""
        if body.get("thread", {}).get("type") != "continue":
            return body
        held = self._held[body["thread"]["previous_message_id"]]
        return {**held, **body, "messages": [*held["messages"], *body["messages"]]}

    def _answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        try:
            _check(path in _APIS, f"there is no {path}")
            _check(body.get("model"), "no model is named")
            read, write = _APIS[path]
            body = self._whole(body)
            asked = read(body)
            self.asked.append(asked)
            answer = write(body["model"], self.script(asked))
            if body.get("thread"):
                reply = {"role": "assistant", "content": answer["content"]}
                self._held[answer["id"]] = {**body, "messages": [*body["messages"], reply]}
        except Exception as error:  # noqa: BLE001  # as an answer: a program that is wrong is to end
            self.refused.append(repr(error))
            return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": repr(error)}}
        return 200, answer


@dataclass(frozen=True)
class _Turn:
    """One step of a conversation: `kind` is `user`, `call`, `result` or `other`."""

    kind: str
    text: str = ""
    call: str = ""
    is_error: bool = False


def _asked(api: str, body: dict[str, Any], system: str, turns: list[_Turn]) -> Asked:
    """Return the request. Raises Mistake if a call has no result, or a result no call."""
    calls = sorted(turn.call for turn in turns if turn.kind == "call")
    _check(calls == sorted(turn.call for turn in turns if turn.kind == "result"), "calls and results are not the same")
    said = [turn.text for turn in turns if turn.kind == "user"]
    _check(said, "the user has said nothing")
    last = list(itertools.takewhile(lambda turn: turn.kind == "result", reversed(turns)))[::-1]
    return Asked(api, body, system, said[-1], tuple(turn.text for turn in last), sum(turn.is_error for turn in last))


def _read_chat(body: dict[str, Any]) -> Asked:
    system, *messages = body["messages"]
    _check(system["role"] == "system", "the first message is not the system prompt")
    _check(all(tool["type"] == "function" and "function" in tool for tool in body["tools"]), "a tool is no function")
    turns = []
    for message in messages:
        match message["role"]:
            case "user":
                turns.append(_Turn("user", message["content"]))
            case "tool":
                turns.append(_Turn("result", message["content"], message["tool_call_id"]))
            case "assistant":
                turns += [_Turn("call", call=call["id"]) for call in message.get("tool_calls") or ()] or [
                    _Turn("other")
                ]
    return _asked("chat", body, system["content"], turns)


def _read_responses(body: dict[str, Any]) -> Asked:
    _check(all(tool["type"] == "function" and "name" in tool for tool in body["tools"]), "a tool is no function")
    turns = []
    for item in body["input"]:
        match item.get("type", "message"):
            case "function_call":
                turns.append(_Turn("call", call=item["call_id"]))
            case "function_call_output":
                turns.append(_Turn("result", item["output"], item["call_id"]))
            case _ if item.get("role") == "user":
                turns.append(_Turn("user", item["content"]))
            case _:
                turns.append(_Turn("other"))
    return _asked("responses", body, body["instructions"], turns)


def _read_messages(body: dict[str, Any]) -> Asked:
    _check(body["max_tokens"] > 0, "there is no room for an answer")
    _check(all("input_schema" in tool or tool["type"] == "memory_20250818" for tool in body["tools"]), "no such tool")
    turns = []
    for message in body["messages"]:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            match part["type"]:
                case "tool_use":
                    turns.append(_Turn("call", call=part["id"]))
                case "tool_result":
                    is_error = bool(part.get("is_error"))
                    turns.append(_Turn("result", _plain(part["content"]), part["tool_use_id"], is_error))
                case _:
                    turns.append(_Turn("user" if message["role"] == "user" else "other", part["text"]))
    return _asked("messages", body, body["system"], turns)


def _plain(content: str | list[dict[str, str]]) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _write_chat(model: str, answer: str | list[Call]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer if isinstance(answer, str) else None}
    if not isinstance(answer, str):
        message["tool_calls"] = [
            {"id": f"call_{next(_NUMBERS)}", "type": "function", "function": _function(call)} for call in answer
        ]
    reason = "stop" if isinstance(answer, str) else "tool_calls"
    return {
        "id": f"chatcmpl-{next(_NUMBERS)}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "finish_reason": reason, "message": message, "logprobs": None}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def _write_responses(model: str, answer: str | list[Call]) -> dict[str, Any]:
    output: list[dict[str, Any]]
    if isinstance(answer, str):
        content = [{"type": "output_text", "text": answer, "annotations": [], "logprobs": []}]
        about = {"id": f"msg_{next(_NUMBERS)}", "status": "completed"}
        output = [{"type": "message", "role": "assistant", "content": content, **about}]
    else:
        output = [
            {"type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}", "status": "completed"}
            | _function(call)
            for call, number in zip(answer, _NUMBERS, strict=False)
        ]
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {
        "id": f"resp_{next(_NUMBERS)}",
        "object": "response",
        "created_at": 0,
        "status": "completed",
        "model": model,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2, **details},
    }


def _function(call: Call) -> dict[str, str]:
    return {"name": call.name, "arguments": json.dumps(call.arguments)}


def _write_messages(model: str, answer: str | list[Call]) -> dict[str, Any]:
    content: list[dict[str, Any]]
    if isinstance(answer, str):
        content = [{"type": "text", "text": answer}]
    else:
        uses = [{"type": "tool_use", "name": call.name, "input": call.arguments} for call in answer]
        content = [
            {"type": "text", "text": "I use my memory."},
            *({**use, "id": f"toolu_{next(_NUMBERS)}"} for use in uses),
        ]
    return {
        "id": f"msg_{next(_NUMBERS)}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": "end_turn" if isinstance(answer, str) else "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


_APIS = {
    "/v1/chat/completions": (_read_chat, _write_chat),
    "/v1/responses": (_read_responses, _write_responses),
    "/v1/messages": (_read_messages, _write_messages),
}
