"""A label as people have them, all the way: from the file to the journal, the mirror, a watch, a request, and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import blocksd
from support import Daemon, RedisServer, eventually, run_here

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    RunDaemon = Callable[..., Daemon]

NAMES = [
    ("My note (draft), 2nd", False),
    ("Q&A — what's new [v2]/100% {x} `b` $HOME; #1 ~ ^", True),
    ("தமிழ்/📌 குறிப்பு", True),
    ("-x", False),
]


def run(daemon: Daemon, command: str, *names: str) -> str:
    """Run a command with names that may look like options; return what it prints."""
    done = run_here(command, "--state-dir", str(daemon.state), "--", *names, env=daemon.env)
    assert done.returncode == 0, done
    return done.stdout


def heard(event: blocksd.Change | blocksd.Reset) -> blocksd.Change:
    assert isinstance(event, blocksd.Change)
    return event


@pytest.mark.parametrize(("name", "private"), NAMES)
def test_whole_way_of_a_label(
    folder: Path, run_daemon: RunDaemon, server: RedisServer, name: str, private: bool
) -> None:
    """It is the same everywhere, under each name by which an agent or the operator calls it."""
    label = f"agents/मीना/{name}" if private else name
    file = folder / f"{label}.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("one\n" if private else "---\nagents: [मीना]\n---\none\n")
    daemon = run_daemon("--redis", server.url)
    with blocksd.connect(server.url) as client, client.watch(label=label) as watch, client.watch(agent="मीना") as seen:
        assert client.blocks.retrieve(label).value == "one"
        assert client.agents.blocks.retrieve("मीना", name).value == "one"
        assert [block.label for block in client.blocks.list(label=label)] == [label]
        changes, of_agent = iter(watch), iter(seen)
        memory = client.memory("मीना")
        memory.append(name, "two")
        assert file.read_text().endswith("one\ntwo\n")
        file.write_text(file.read_text() + "three\n")
        told = [heard(next(changes)) for _ in range(2)]
        assert [(one.label, one.version, one.author) for one in told] == [(label, 2, "मीना"), (label, 3, "file")]
        assert heard(next(of_agent)).label == label
        assert client.blocks.retrieve(label).value == "one\ntwo\nthree"
        prompt = memory.compile()
        assert "one\ntwo\nthree" in prompt
        assert f'<block name="{name.replace("&", "&amp;")}">' in prompt
    assert daemon.values(label) == ["one", "one\ntwo", "one\ntwo\nthree"]
    assert run(daemon, "show", label) == "one\ntwo\nthree\n"
    assert "मीना" in run(daemon, "history", label)
    assert [one["label"] for one in json.loads(daemon.command("ls", "--label", label, "--json").stdout)] == [label]
    run(daemon, "mv", label, f"{label} (2)")
    eventually(lambda: (folder / f"{label} (2).md").exists() and not file.exists())
    run(daemon, "append", f"{label} (2)", "four")
    run(daemon, "undo", f"{label} (2)")
    assert run(daemon, "show", f"{label} (2)") == "one\ntwo\nthree\n"
    assert daemon.command("status").returncode == 0
