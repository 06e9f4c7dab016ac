"""Agent loops: the programs of the documentation with the real SDKs, against a local server that plays the model."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import pytest

from blocksd import AsyncClient, Client, NotFound
from fenced import fenced
from gateways import daemon
from model_server import Asked, Call, ModelServer
from newcomer import OF_MODELS
from support import DEADLINE, do_without, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

BLOCKS = fenced("daemon/docs/agents.md")
PROGRAMS = {block.mark.removeprefix("file: "): block.text for block in BLOCKS if block.mark.startswith("file: ")}
NEEDS = {
    "agent_openai.py": "openai",
    "agent_responses.py": "openai",
    "agent_sdk.py": "agents",
    "three_agents.py": "openai",
}
"""What a program needs besides Anthropic's SDK, which the tests always have."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    files = {
        "agents/support-1/persona.md": "I am Sam.\n",
        "agents/support-2/persona.md": "I am Kim.\n",
        "agents/support-2/zeal.md": "High.\n",
        "policy.md": "---\nread_only: true\nagents: [support-2]\n---\nRefunds within 30 days.\n",
        "team.md": "---\nagents: [support-1, support-2]\n---\nBob is a customer.\n",
    }
    with daemon(tmp_path_factory.mktemp("place"), files) as (server, _):
        yield server


class Conversation:
    """A program that is talked to line by line."""

    def __init__(self, name: str, directory: Path, server: RedisServer, model: ModelServer) -> None:
        for package in filter(None, [NEEDS.get(name)]):
            if importlib.util.find_spec(package) is None:
                do_without(f"{package} is not installed")
        (directory / name).write_text(PROGRAMS[name])
        self.process = subprocess.Popen(
            [sys.executable, "-u", name, "a-model"],
            cwd=directory,
            env={**os.environ, "BLOCKSD_CONFIG": os.devnull, "BLOCKSD_REDIS": server.url, **model.environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def say(self, line: str) -> str:
        """Say a line, and return the line that is answered."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            pytest.fail(self.process.communicate(timeout=30)[1])
        return answer.rstrip("\n")

    def end(self) -> str:
        """Say nothing more; what the program wrote to stderr."""
        error = self.process.communicate(timeout=30)[1]
        assert self.process.returncode == 0, error
        return error


def plays(asked: Asked) -> str | list[Call]:
    """Notes what it is told to note, tries what it may not, and else says what it sees of the team's block."""
    word, _, rest = asked.said.partition(": ")
    if asked.results:
        return " | ".join(asked.results)
    if word == "Share":
        return [Call("core_memory_append", {"label": "team", "content": rest})]
    if word == "Note":
        if "memory" in asked.tools:
            return [Call("memory", {"command": "create", "path": "/memories/note.md", "file_text": f"{rest}\n"})]
        return [Call("core_memory_append", {"label": "persona", "content": rest})]
    if word == "Break":
        labels = ("policy", "polcy")
        calls = [Call("core_memory_append", {"label": label, "content": "None."}) for label in labels]
        wrong = Call("memory", {"command": "delete", "path": "/memories/../policy.md"})
        return [*calls, wrong] if "memory" in asked.tools else calls
    return asked.block("team").split("\n")[-1]


def check_cached(one: Asked, other: Asked) -> None:
    """Between them nothing was written: the later request begins with all of the earlier one, tools and prompt included."""
    assert other.system == one.system
    assert json.dumps(other.body["tools"]) == json.dumps(one.body["tools"])
    assert json.dumps(other.conversation[: len(one.conversation)]) == json.dumps(one.conversation)
    assert len(other.conversation) > len(one.conversation)


def check_changed(before: str, after: str, name: str) -> None:
    """The prompts differ in the element of this block alone."""
    start, end = f"\n<{name}>\n", f"</{name}>\n"
    assert before.partition(start)[::2] != after.partition(start)[::2]
    assert before.partition(start)[0] == after.partition(start)[0]
    assert before.partition(end)[2] == after.partition(end)[2]


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name.startswith("agent_")])
def test_loop_of_an_agent(name: str, place: RedisServer, tmp_path: Path) -> None:
    """Memory is in the prompt, tools change it, refusals reach the model, and what another agent writes is in the next turn."""
    is_files = name == "agent_files.py"
    with (
        Client(place.url) as client,
        ModelServer(plays) as model,
        Conversation(name, tmp_path, place, model) as program,
    ):
        before = client.blocks.retrieve("team").value
        assert program.say("What is new?") == before.split("\n")[-1]
        (first,) = model.asked
        assert first.system == client.memory("support-2").compile()

        told = program.say("Note: I answer in French.")
        _, asked, noted = model.asked
        block = "note" if is_files else "persona"
        assert told.startswith("File created successfully at: " if is_files else "Done: 'persona' has ")
        assert noted.results == (told,)
        assert asked.said == noted.said
        assert client.agents.blocks.retrieve("support-2", block).value.endswith("I answer in French.")
        if not is_files:  # of which the runner keeps the prompt of its turn
            assert noted.block("persona").endswith("I answer in French.")

        program.say("What is new?")
        program.say("What is new?")
        check_cached(*model.asked[-2:])
        quiet = model.asked[-1]

        news = f"Sam: the refund is paid ({name})."
        client.memory("support-1").append("team", news)
        eventually(lambda: program.say("What is new?") == news, "the program has heard of it")
        assert model.asked[-1].block(block).endswith("I answer in French.")
        check_changed(quiet.system, model.asked[-1].system, "team")

        assert program.say("Share: Kim has told Bob.").startswith("Done: 'team' has ")
        team = client.blocks.retrieve("team")
        assert (team.updated_by, team.value) == ("support-2", f"{before}\n{news}\nKim has told Bob.")

        program.say("Break: the rules.")
        refused = model.asked[-1]
        assert [text[:10] for text in refused.results[:2]] == ["Not done: "] * 2
        if is_files:
            assert refused.results[2].startswith("Error: The path /memories/../policy.md is not possible")
        assert refused.failed == (len(refused.results) if refused.api == "messages" else 0)
        assert client.blocks.retrieve("policy").value == "Refunds within 30 days."

        assert program.end() == ""
        assert model.refused == []
        if is_files:
            client.memory("support-2").delete_block("note")


def test_parent_is_woken_by_its_helpers(place: RedisServer, tmp_path: Path) -> None:
    """While the helpers work, the parent asks nothing; when both have written, it answers with what they wrote."""
    answers = {"refunds": threading.Event(), "delivery": threading.Event()}

    def waits(asked: Asked) -> str | list[Call]:
        for word, may_answer in answers.items():
            if word in asked.said and not asked.results:
                assert may_answer.wait(DEADLINE)
                return [Call("core_memory_append", {"label": "findings", "content": f"Of {word}: fine."})]
        return asked.block("findings").replace("\n", " ")

    with Client(place.url) as client, ModelServer(waits) as model:
        raw = place.client()
        others = {one["id"] for one in raw.client_list()}

        def commands() -> dict[str, int]:
            return {one["id"]: int(one["tot-cmds"]) for one in raw.client_list() if one["id"] not in others}

        with Conversation("three_agents.py", tmp_path, place, model) as program:
            eventually(lambda: len(model.asked) == 2, "both helpers are at work")
            before = commands()
            time.sleep(1.0)  # in which a program that polls would ask
            after = commands()
            assert before.keys() == after.keys()
            assert sum(after.values()) - sum(before.values()) <= len(before)  # at most a ping on each connection
            answers["refunds"].set()
            eventually(lambda: "helper-1: done" in client.blocks.retrieve("findings").value, "one helper has written")
            answers["delivery"].set()
            said, error = program.process.communicate(timeout=DEADLINE)
        raw.close()
        assert (said, error) == ("Of refunds: fine. [helper-1: done] Of delivery: fine. [helper-2: done]\n", "")
        assert model.refused == []
        late = [asked for asked in model.asked if "delivery" in asked.said and asked.results]
        assert late[0].block("findings") == "Of refunds: fine.\n[helper-1: done]\nOf delivery: fine."


def test_parent_does_not_wait_for_a_helper_that_fails(place: RedisServer, tmp_path: Path) -> None:
    """It is told of one that has failed, and of one that has found nothing; the next run finds no block of this one."""

    def fails(asked: Asked) -> str:
        assert "refunds" not in asked.said, "no such model"
        return asked.block("findings").replace("\n", " ")

    with ModelServer(fails) as model, Conversation("three_agents.py", tmp_path, place, model) as program:
        said, error = program.process.communicate(timeout=DEADLINE)
    assert sorted(said.strip("[]\n").split("] [")) == ["helper-1: failed", "helper-2: done"]
    assert "no such model" in error
    with Client(place.url) as client, pytest.raises(NotFound):
        client.blocks.retrieve("findings")


def test_documentation_says_how_each_program_is_run() -> None:
    """With the name of a model, and what the user says."""
    commands = [OF_MODELS.fullmatch(block.text.strip().removeprefix("$ ")) for block in BLOCKS if block.mark == ""]
    assert [command and command[1] for command in commands] == list(PROGRAMS)


def test_tools_are_as_the_sdks_declare() -> None:
    """Every definition, and the results as the documentation sends them, fit the SDKs' types, with no key too many."""
    for package in ("openai", "anthropic"):
        if importlib.util.find_spec(package) is None:
            do_without(f"{package} is not installed")
    from anthropic.types import ToolParam, ToolResultBlockParam
    from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionToolMessageParam
    from openai.types.responses import FunctionToolParam
    from openai.types.responses.response_input_param import FunctionCallOutput
    from pydantic import ConfigDict, TypeAdapter, with_config

    with Client("redis://127.0.0.1:1", "blocks") as client:
        tools = client.memory("ann").tools()
    shapes: list[tuple[Any, list[dict[str, Any]]]] = [
        (ChatCompletionFunctionToolParam, tools.openai()),
        (ChatCompletionToolMessageParam, [{"role": "tool", "tool_call_id": "1", "content": "Done"}]),
        (FunctionToolParam, tools.openai_responses()),
        (FunctionCallOutput, [{"type": "function_call_output", "call_id": "1", "output": "Done"}]),
        (ToolParam, tools.anthropic()),
        (
            ToolResultBlockParam,
            [{"type": "tool_result", "tool_use_id": "1", "content": "Done", "is_error": False}],
        ),
    ]
    for shape, items in shapes:
        strict = TypeAdapter(with_config(ConfigDict(extra="forbid"))(shape))
        assert [strict.validate_python(item, strict=True) for item in items]


def test_memory_tool_in_the_runner_for_asyncio_code(place: RedisServer) -> None:
    """The SDK's runner calls the tool, and the model is told what was done and what was refused."""
    from anthropic import AsyncAnthropic

    from blocksd.anthropic import AsyncMemoryTool

    commands = [
        {"command": "view", "path": "/memories"},
        {"command": "create", "path": "/memories/plan.md", "file_text": "rest\n"},
        {"command": "str_replace", "path": "/memories/plan.md", "old_str": "work", "new_str": "rest"},
        {"command": "delete", "path": "/memories/plan.md"},
    ]

    def steps(asked: Asked) -> str | list[Call]:
        done = sum(1 for message in asked.conversation if message["role"] == "assistant")
        return [Call("memory", commands[done])] if done < len(commands) else "I am done."

    async def run(model: ModelServer) -> str:
        sdk = AsyncAnthropic(base_url=model.environ["ANTHROPIC_BASE_URL"], api_key="none")
        async with (
            sdk,
            AsyncClient(place.url) as client,
            client.memory("support-1") as memory,
        ):
            runner = sdk.beta.messages.tool_runner(
                model="a-model",
                max_tokens=100,
                system=await memory.compile(),
                messages=[{"role": "user", "content": "Plan."}],
                tools=[AsyncMemoryTool(memory)],
            )
            reply = await runner.until_done()
            return "".join(part.text for part in reply.content if part.type == "text")

    with ModelServer(steps) as model:
        assert asyncio.run(run(model)) == "I am done."
    told = [asked.results[0] for asked in model.asked[1:]]
    assert told[0].endswith("10B\t/memories\n10B\t/memories/persona.md")
    assert told[1:] == [
        "File created successfully at: /memories/plan.md",
        "No replacement was performed, old_str `work` did not appear verbatim in /memories/plan.md.",
        "Successfully deleted /memories/plan.md",
    ]
    assert [asked.failed for asked in model.asked] == [0, 0, 0, 1, 0]
    assert model.refused == []
