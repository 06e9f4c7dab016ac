"""The tools for models have the shapes that the newest SDKs of OpenAI and Anthropic declare."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import blocksd

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

CHECK = """
import json
import sys
from anthropic.types import ToolParam, ToolResultBlockParam
from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionToolMessageParam
from openai.types.responses import FunctionToolParam
from openai.types.responses.response_input_param import FunctionCallOutput
from pydantic import ConfigDict, TypeAdapter, with_config

shapes = {
    "openai": ChatCompletionFunctionToolParam,
    "openai result": ChatCompletionToolMessageParam,
    "responses": FunctionToolParam,
    "responses result": FunctionCallOutput,
    "anthropic": ToolParam,
    "anthropic result": ToolResultBlockParam,
}
for name, items in json.load(sys.stdin).items():
    shape = with_config(ConfigDict(extra="forbid"))(shapes[name])
    for item in items:
        TypeAdapter(shape).validate_python(item, strict=True)
    print(name, len(items))
"""


def test_tools_are_as_the_sdks_declare(tmp_path: Path) -> None:
    """Every definition, and the results as the documentation sends them, fit the SDKs' types, with no key too many."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin/pip", "install", "--quiet", "openai", "anthropic"], check=True)
    with blocksd.connect("redis://127.0.0.1:1", "blocks") as client:
        tools = client.memory("ann").tools()
    shapes = {
        "openai": tools.openai(),
        "openai result": [{"role": "tool", "tool_call_id": "1", "content": "Done"}],
        "responses": tools.openai_responses(),
        "responses result": [{"type": "function_call_output", "call_id": "1", "output": "Done"}],
        "anthropic": tools.anthropic(),
        "anthropic result": [{"type": "tool_result", "tool_use_id": "1", "content": "Done", "is_error": False}],
    }
    told = subprocess.run(
        [venv / "bin/python", "-c", CHECK], input=json.dumps(shapes), capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.split("\n")[:-1] == [f"{name} {len(items)}" for name, items in shapes.items()]
