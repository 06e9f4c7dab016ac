"""`blocksd hook`: what an assistant gets from a real process, and that it never ends so that a session is blocked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.mirror.acl import users
from blocksd.mirror.keys import Keys
from support import Daemon, RedisServer, run_here

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow

START = {"session_id": "one", "hook_event_name": "SessionStart", "source": "startup"}
PROMPT = {"session_id": "one", "hook_event_name": "UserPromptSubmit", "prompt": "Hello."}
LONG = "".join(f"Line {number}.\n" for number in range(50))


class Caller:
    """Runs the hook as an assistant does, in a project's directory."""

    def __init__(self, home: Path, state: Path) -> None:
        self.project = home / "project"
        self.project.mkdir()
        self.environ = {**os.environ, "HOME": str(home), "XDG_STATE_HOME": "", "XDG_CONFIG_HOME": ""}
        self.state = state

    def run(self, given: Any, *options: str, stdin: Any = None) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "blocksd", "hook", "claude-code", "--agent", "sam", *options]
        text: dict[str, Any] = {"input": json.dumps(given)} if stdin is None else {"stdin": stdin}
        return subprocess.run(
            [*words, "--state-dir", str(self.state)],
            **text,
            cwd=self.project,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def context(self, given: Any) -> str:
        result = self.run(given)
        assert (result.returncode, result.stderr) == (0, "")
        if not result.stdout:
            return ""
        specific = json.loads(result.stdout)["hookSpecificOutput"]
        assert specific["hookEventName"] == given["hook_event_name"]
        return str(specific["additionalContext"])


@pytest.fixture
def caller(tmp_path: Path) -> Caller:
    return Caller(tmp_path, tmp_path / "state")


def test_session_of_claude_code(run_daemon: Callable[..., Daemon], folder: Path, caller: Caller) -> None:
    """The whole memory; nothing; a diff of what another agent or a person has changed, once; also after a rename."""
    notes = folder / "agents/sam/notes.md"
    notes.parent.mkdir(parents=True)
    notes.write_text(LONG)
    daemon = run_daemon()
    assert caller.context(START).startswith("<memory_blocks>\n")
    assert caller.context(PROMPT) == ""
    daemon.command("replace", "agents/sam/notes", "Line 7.", "Line seven.")
    text = caller.context(PROMPT)
    assert "Block notes was changed by operator:\n@@ " in text
    assert "\n-Line 7.\n+Line seven.\n" in text
    assert "Line 40." not in text
    assert caller.context(PROMPT) == ""
    daemon.command("mv", "agents/sam/notes", "agents/sam/plans")
    daemon.command("append", "agents/sam/plans", "End.")
    text = caller.context(PROMPT)
    assert "Block plans (it was called notes) was changed by operator:\n@@ " in text
    assert "+End." in text


@pytest.mark.parametrize("user", ["operator", "agent-sam"])
def test_users_with_the_least_rights_get_diffs(
    user: str, run_daemon: Callable[..., Daemon], server: RedisServer, folder: Path, caller: Caller
) -> None:
    """Those of `blocksd acl`: an agent's may ask for old versions as the agent alone, an operator's as an operator."""
    (folder / "notes.md").write_text(f"---\nagents: [sam]\n---\n{LONG}")
    daemon = run_daemon()
    with server.client() as client:
        for line in users(Keys("blocks"), ["sam"]):
            _, name, *rules = line.replace("PASSWORD", ">secret").split()
            client.execute_command("ACL", "SETUSER", name, *rules)
    options = ("--redis", f"unix://blocks-{user}:secret@{server.socket}")
    assert "<memory_blocks>" in caller.run(START, *options).stdout
    daemon.command("replace", "notes", "Line 7.", "Line seven.")
    context = json.loads(caller.run(PROMPT, *options).stdout)["hookSpecificOutput"]["additionalContext"]
    assert "\n-Line 7.\n+Line seven.\n" in context


def test_no_daemon(caller: Caller) -> None:
    """Exit code 0; the user sees why at the start of the session, and the model nothing."""
    result = caller.run(START)
    assert result.returncode == 0
    assert json.loads(result.stdout).keys() == {"systemMessage"}
    assert "no daemon is running" in json.loads(result.stdout)["systemMessage"]
    assert "no daemon is running" in result.stderr
    later = caller.run(PROMPT)
    assert (later.returncode, later.stdout) == (0, "")


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ("nonsense", ()),
        (START, ("--namespace", "no such:namespace")),
        (START, ("--config", "/nonexistent/blocksd.toml")),
        (START, ("--redis", "http://x")),
        (START, ("--redis", "unix:///nonexistent/socket")),
    ],
)
def test_whatever_is_wrong_blocks_nothing(given: Any, options: tuple[str, ...], caller: Caller) -> None:
    """Exit code 0, and a sentence on standard error."""
    result = caller.run(given, *options)
    assert result.returncode == 0
    assert result.stderr.startswith("blocksd: no memory of 'sam': ")
    assert "Traceback" not in result.stderr


def test_wrong_usage_blocks_nothing() -> None:
    """By exit code 2 an assistant would block what its user does."""
    for words in ([], ["claude-code"], ["nobody", "--agent", "sam"], ["codex", "--agent", "sam", "--odd"]):
        result = run_here("hook", *words)
        assert result.returncode == 1
        assert "Usage: blocksd hook" in result.stderr


def test_silence_is_not_waited_for(caller: Caller) -> None:
    """An assistant that leaves standard input open, or a server that says nothing, costs the time that was given."""
    reading, writing = os.pipe()
    try:
        result = caller.run(None, "--timeout", "0.2", stdin=reading)
    finally:
        os.close(reading)
        os.close(writing)
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == "blocksd: there was no answer within 0.2 s\n"


def test_settings_of_a_project_are_not_read(run_daemon: Callable[..., Daemon], folder: Path, caller: Caller) -> None:
    """A repository that was cloned must not say whose memory the assistant gets."""
    (folder / "agents/sam").mkdir(parents=True)
    (folder / "agents/sam/notes.md").write_text("Mine.\n")
    run_daemon()
    (caller.project / "blocksd.toml").write_text('redis = "redis://203.0.113.7:1"\nnamespace = "theirs"\n')
    assert "Mine." in caller.context(START)


def test_printed_configuration_works(run_daemon: Callable[..., Daemon], folder: Path, caller: Caller) -> None:
    """Its command, run by a shell elsewhere, answers."""
    (folder / "agents/sam").mkdir(parents=True)
    (folder / "agents/sam/notes.md").write_text("Mine.\n")
    daemon = run_daemon()
    printed = daemon.command("hook", "claude-code", "--agent", "sam", "--print-config")
    assert printed.returncode == 0
    assert printed.stderr.startswith("put this into ~/.claude/settings.json")
    (group,) = json.loads(printed.stdout)["hooks"]["SessionStart"]
    (hook,) = group["hooks"]
    result = subprocess.run(
        ["sh", "-c", hook["command"]],
        input=json.dumps(START),
        cwd="/",
        env=caller.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert "Mine." in json.loads(result.stdout)["hookSpecificOutput"]["additionalContext"]
