"""The commands: what they print, how they end, and that each error names the next step."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from blocksd import Client
from blocksd.cli.main import cli
from support import Daemon, RedisServer, bound_by_rights, eventually, run_here, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    RunDaemon = Callable[..., Daemon]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory in which nothing is configured and nothing runs."""
    for name in list(os.environ):
        if name.startswith(("BLOCKSD_", "STATE_DIRECTORY", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocksd(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "blocksd", *words]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=30, stdin=subprocess.DEVNULL, **options
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result


def fails(code: int, *words: str) -> str:
    """What a command that must fail with `code` says: on standard error, and nothing elsewhere."""
    result = blocksd(*words) if words[0] == "run" else run_here(*words)
    assert result.returncode == code, result
    assert result.stdout == ""
    return result.stderr


def fill(folder: Path) -> None:
    """Three blocks of two agents, one block that will go, a warning and a problem."""
    (folder / "agents" / "one").mkdir(parents=True)
    (folder / "agents" / "one" / "persona.md").write_text("mine\n")
    (folder / "notes.md").write_text("---\ndescription: What is noted.\nagents: [one, two]\ntags: [a]\n---\nfirst\n")
    (folder / "hidden.md").write_text("---\nhidden: true\nlimt: 5\n---\nsecret\n")
    (folder / "bad.md").write_text("---\n")
    (folder / "gone.md").write_text("text\n")


def change(running: Daemon) -> None:
    """A change and a deletion."""
    folder = running.folder
    (folder / "notes.md").write_text("---\ndescription: What is noted.\nagents: [one, two]\ntags: [a]\n---\nsecond\n")
    (folder / "gone.md").unlink()
    eventually(lambda: None in running.values("gone") and len(running.values("notes")) == 2)


@pytest.fixture
def daemon(folder: Path, run_daemon: RunDaemon) -> Iterator[Daemon]:
    """A daemon over a folder with three blocks, two agents, a change, a deletion, a warning and a problem."""
    fill(folder)
    running = run_daemon("--delete-grace", "0.1")
    change(running)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def standing_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """The same, one for all tests that change nothing."""
    directory = tmp_path_factory.mktemp("standing")
    folder = directory / "blocks.d"
    fill(folder)
    server = RedisServer(valkey_binary())
    server.start()
    running = Daemon(folder, directory / "state", "--redis", server.url, "--delete-grace", "0.1")
    try:
        change(running.start())
        yield running
    finally:
        if running.process is not None:
            running.stop()
        server.remove()


def as_json(daemon: Daemon, *words: str, code: int = 0) -> Any:
    result = daemon.command(*words)
    assert (result.returncode, result.stderr) == (code, "")
    return json.loads(result.stdout)


# --- help ---


def test_help_shows_every_command_whole() -> None:
    """Each in its section, with a sentence that fits on a line of a terminal of 80 columns."""
    result = blocksd("--help", env={**os.environ, "COLUMNS": "80"})
    lines = result.stdout.splitlines()
    assert not [line for line in lines if line.startswith("  ") and line.endswith("...")]
    assert max(map(len, lines)) <= 80
    shown = re.findall(r"^  ([a-z]+)  +[A-Z]", result.stdout, re.MULTILINE)
    assert shown == list(cli.commands)


@pytest.mark.parametrize(
    "words", [[], *([name] for name in sorted(cli.commands))], ids=lambda words: " ".join(words) or "-"
)
def test_help_of_every_command(words: list[str]) -> None:
    """`--help` says in a sentence what the command does, and what its options mean."""
    result = run_here(*words, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("Usage:")
    command = cli.commands[words[0]] if words else cli
    assert command.help
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help, f"{option.name} has no help"


def test_version() -> None:
    """`--version` names the program and its version."""
    assert blocksd("--version").stdout.startswith("blocksd 0.")


def test_check_fits_on_a_terminal(place: Path) -> None:
    """What is wrong, and what to do, in lines of 80 columns; elsewhere in a line each."""
    (place / "blocks.d").mkdir()
    (place / "blocks.d" / "notes.md").write_text('---\nlimit: "as many as ever you like"\n---\n')
    ours, terminal = pty.openpty()
    command = [sys.executable, "-m", "blocksd", "check"]
    assert subprocess.run(command, stdout=terminal, check=False, timeout=30).returncode == 1
    os.close(terminal)
    shown = os.read(ours, 10_000).decode().splitlines()
    os.close(ours)
    assert max(map(len, shown)) <= 80
    piped = blocksd("check").stdout.splitlines()
    assert len(piped) < len(shown)
    assert piped[0].startswith("notes.md:2: limit must be")
    assert " ".join(" ".join(shown).split()).startswith(piped[0].partition(" (")[0])


# --- wrong usage: 2 ---


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["show"], "Missing argument 'LABEL'"),
        (["ls", "--frobnicate"], "No such option"),
        (["history", "x", "-n", "0"], "0 is not in the range"),
        (["history", "x", "-n", "9" * 22], "is not in the range"),
        (["audit", "--stale-days", "9" * 22], "is not in the range"),
        (["audit", "--prompt-chars", "9" * 22], "is not in the range"),
        (["render", "x", "--max-files-open", "9" * 22], "is not in the range"),
        (["stop", "--timeout", "nan"], "'nan' is not a number of seconds"),
        (["stop", "--timeout", "inf"], "inf is not in the range"),
        (["stop", "--timeout", "-1"], "-1.0 is not in the range"),
        (["audit", "--stale-days", "36501"], "36501 is not in the range"),
        (["new", "x", "y", "--tag", "a,b c"], "'a,b c' would be one tag with a comma in it; for several: --tag a"),
        (["set", "x", "--tag", ","], "for several: --tag TAG"),
        (
            ["new", "x", "y", "--agent", "a,b"],
            "'a,b' would be one agent with a comma in it; for several: --agent a --agent b",
        ),
        (["set", "x", "--agent", ","], "for several: --agent AGENT"),
        (["new", "x", "y", "--limit", "0"], "0 is not in the range"),
        (["set", "x", "y", "--limit", "9" * 5000], "is not a valid integer"),
        (["set", "x", "y", "--version", "-1"], "-1 is not in the range"),
        (["rm", "x", "--version", "9" * 22], "is not in the range"),
        (["watch", "--since", "-1"], "'-1' is not EPOCH:SEQ"),
        (["watch", "--since", ":5"], "':5' is not EPOCH:SEQ"),
        (["run", "--log-format", "xml", "."], "'xml' is not one of"),
        (["run", "--delete-grace", "-1", "."], "delete_grace must be at least 0"),
        (["run", "missing.d"], "there is no folder 'missing.d'"),
        (["run"], "there is no folder 'blocks.d'"),
        (["run", "a-file"], "'a-file' is no directory"),
        (["run", ".", "--redis", "http://localhost"], "http://localhost"),
        (["run", ".", "--namespace", "a:b"], "is not a namespace"),
        (["run", ".", "--state-dir", "a-file"], "a-file"),
        (["run", ".", "--state-dir", "/proc/nowhere"], "/proc/nowhere"),
        (["check", "missing.d"], "there is no folder or file 'missing.d'"),
        (["ls", "--config", "missing.toml"], "missing.toml cannot be read"),
        (["ls", "--config", "wrong.toml"], "did you mean 'namespace'?"),
        (["ls", "--namespace", ""], "is not a namespace"),
        (["ls", "--state-dir", ""], "state_dir must be the path of a directory, and is empty (--state-dir)"),
        (["ls", "--redis", "here:6379"], "did you mean 'redis://here:6379'?"),
        (["check", "a-block"], "did you mean 'a-block.md'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(place: Path, words: list[str], said: str) -> None:
    """What was typed or configured wrongly is said, with exit code 2."""
    (place / "a-file").write_text("text")
    (place / "a-block.md").write_text("text")
    (place / "wrong.toml").write_text("namspace = 'x'\n")
    assert said in fails(2, *words)


@pytest.mark.usefixtures("place")
def test_missing_folder_names_the_next_step() -> None:
    """Someone who has no folder yet is told how to get one."""
    assert "make one with 'mkdir'" in fails(2, "run")


# --- nobody there: 3 ---


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("words", ["ls", "show notes", "agents", "watch", "resume --accept-deletions"])
def test_no_daemon(words: str) -> None:
    """Without a daemon the commands that need one end with 3 and say how to start one."""
    said = fails(3, *words.split())
    assert "no daemon is running for the namespace 'blocks'" in said
    assert "blocksd run FOLDER" in said


@pytest.mark.usefixtures("place")
def test_daemon_that_runs_elsewhere_is_named(folder: Path, run_daemon: RunDaemon) -> None:
    """Who misses the one daemon that runs is told which options name it; `stop` and `run`, too."""
    running = run_daemon("--namespace", "other")
    named = f"--namespace other --state-dir {running.state} (folder {folder})"
    for words in ("ls", "show notes", "history notes", "resume --accept-deletions", "stop"):
        said = fails(3, *words.split())
        assert named in said
        assert "blocksd run FOLDER" in said or words == "stop"
    assert named in blocksd("status").stderr
    here = ("--state-dir", str(running.state))
    said = fails(3, "ls", *here)
    assert "serves the namespace 'other', not 'blocks'" in said
    assert named in said
    stop = f"stop it with 'blocksd stop --namespace other --state-dir {running.state}'"
    assert stop in fails(1, "run", str(folder), "--state-dir", "another")
    assert blocksd("stop", *here).returncode == 0


@pytest.mark.parametrize("words", ["history notes", "diff notes"])
def test_no_journal(place: Path, words: str) -> None:
    """Without a journal there is no history, and it is said where it was looked for."""
    said = fails(3, *words.split())
    assert f"there is no journal in {place}/.local/state/blocksd/blocks" in said
    assert "blocksd run FOLDER" in said


@pytest.mark.parametrize("words", ["ls", "show notes", "agents", "watch"])
def test_no_redis(place: Path, words: str) -> None:
    """A Redis that is not there is named, without its password."""
    said = fails(3, *words.split(), "--redis", f"unix://user:hush@{place}/nowhere.sock")
    assert "nowhere.sock" in said
    assert "hush" not in said


@pytest.mark.usefixtures("place")
def test_status_without_a_daemon() -> None:
    """`status` tells as much as can be told, says how to start one, and ends with 3."""
    result = run_here("status")
    assert result.returncode == 3
    assert "not running" in result.stdout
    assert "blocksd run FOLDER" in result.stderr
    assert "problems     unknown: no daemon answers" in result.stdout
    assert json.loads(run_here("status", "--json").stdout)["running"] is False


# --- refused: 1 ---


@pytest.mark.parametrize(
    ("words", "said", "step"),
    [
        ("show note", "there is no block 'note'", "did you mean 'notes'?"),
        ("show zzzzzz", "there is no block 'zzzzzz'", "'blocksd ls --all' lists the blocks"),
        ("show ../../etc/passwd", "'../../etc/passwd' is not a label", "'blocksd ls'"),
        ("show gone", "there is no block 'gone'", "it was deleted: 'blocksd undo gone' brings it back"),
        ("append gone x", "there is no block 'gone'", "it was deleted: 'blocksd undo gone' brings it back"),
        (
            "show bad",
            "'bad' is not in force, and its file has a problem: bad.md:1: the frontmatter",
            "add a line '---'",
        ),
        ("append bad x", "'bad' is not in force, and its file has a problem: bad.md:1: ", "add a line '---'"),
        ("new bad x", "'bad' is not in force, and its file has a problem: bad.md:1: ", "add a line '---'"),
        ("new notes x", "there is a block 'notes' already", "change that block: 'blocksd set notes'"),
        ("new foo.md x", "'foo.md' is not a label", "the label of the file foo.md is 'foo'"),
        ("restore notes 44", "version 44 of 'notes' is not kept", "'blocksd history notes'"),
        ("redo notes", "there is nothing to redo", "'blocksd history notes' lists its versions"),
        ("redo gone", "'gone' is deleted: there is nothing to redo", "bring it back with: blocksd undo gone"),
        ("render nobody", "there is no agent 'nobody'", "'blocksd new agents/nobody/persona TEXT'"),
        ("render bad:agent", "'bad:agent' is not an agent id", "'blocksd agents' lists those known"),
        ("attach notes bad:agent", "'bad:agent' is not an agent id", "'blocksd agents' lists those known"),
        ("attach bad:label one", "'bad:label' is not a label", "a label that is allowed: 'bad-label'"),
        ("attach agents/one/persona two", "it belongs to 'one' alone", "'blocksd mv agents/one/persona persona'"),
        ("detach agents/one/persona one", "it belongs to 'one' alone", "'blocksd mv agents/one/persona persona'"),
        ("set agents/one/persona --agent two", "belongs to 'one' alone", "'blocksd mv agents/one/persona persona'"),
        ("new agents/zz x", "belongs to no agent", "for example agents/zz/persona, of the agent 'zz'"),
        ("mv notes agents/one/notes", "cannot have an 'agents' key", "`blocksd set notes --agent ''`"),
        ("new Notes x", "'Notes' could not be told from 'notes'", "or change that block: 'blocksd set notes'"),
        ("history a:b", "'a:b' is not a label", "a label that is allowed: 'a-b'"),
        ("replace notes zzz x", "OLD 'zzz' is not in the value", ""),
        ("append notes 1→no", "CONTENT has line numbers", ""),
        ("history bad", "'bad' is not in force, and its file has a problem: bad.md:1: the", "add a line '---'"),
        ("attach notes *", "'*' is a pattern, and no agent's id", "`blocksd set notes --agent '*'`"),
        ("detach notes zoe", "'notes' is not attached to 'zoe'", "'blocksd show notes' shows the agents"),
        ("set notes x --version 1", "'notes' is at version 2, not 1", "retry with --version 2"),
        ("set notes --limit 3", "Exceeds character limit", "--limit N"),
        ("set notes", "standard input is empty: nothing was changed", "blocksd set notes ''"),
        ("set notes -", "standard input is empty: nothing was changed", "blocksd set notes ''"),
        ("append notes", "standard input is empty: nothing was changed", "blocksd append notes ''"),
        ("history note", "the journal has no block 'note'", "did you mean 'notes'?"),
        ("diff note", "the journal has no block 'note'", "did you mean 'notes'?"),
        ("diff notes 7", "version 7 of 'notes' is not kept", "'blocksd"),
        ("ls --agent nobody", "there is no agent 'nobody'", "'blocksd agents'"),
    ],
)
def test_what_is_not_there(standing_daemon: Daemon, words: str, said: str, step: str) -> None:
    """What nobody knows ends with 1, and with the nearest thing that is known, or where to look."""
    result = standing_daemon.command(*words.split())
    assert (result.returncode, result.stdout) == (1, "")
    assert said in result.stderr
    assert step in result.stderr


@pytest.mark.parametrize("words", ["show notes", "append notes x", "undo notes", "diff notes", "history notes"])
def test_old_label_leads_to_the_present_one(daemon: Daemon, words: str) -> None:
    """Who knows a block by a label that it had is told the one it has; and, when that is gone, how it comes back."""
    daemon.command("mv", "notes", "memo")
    daemon.command("mv", "memo", "diary")
    said = daemon.command(*words.split()).stderr
    assert "renamed to 'diary'" in said
    assert "'blocksd show diary'" in said or "'blocksd history diary' has all of its versions" in said
    daemon.command("rm", "diary")
    assert "'blocksd undo diary' brings it back" in daemon.command("show", "notes").stderr
    daemon.command("new", "notes", "another")
    assert "diary" not in daemon.command(*words.split()).stderr


@pytest.mark.parametrize("words", [("show",), ("append", "x"), ("history",), ("new", "x"), ("undo",)])
def test_path_of_a_file_leads_to_its_label(standing_daemon: Daemon, words: tuple[str, ...]) -> None:
    """A shell completes paths: who names a block by the path of its file is told the label."""
    command, *others = words
    result = standing_daemon.command(command, str(standing_daemon.folder / "notes.md"), *others)
    assert (result.returncode, result.stderr.splitlines()[-1]) == (1, "  did you mean 'notes'?")
    outside = standing_daemon.command(command, "/nowhere/notes.md", *others).stderr
    assert "did you mean" not in outside


def test_deleting_several_names_all_that_are_not_there(daemon: Daemon) -> None:
    """Each block is deleted by itself: every one that is not there is named, and the others are deleted."""
    result = daemon.command("rm", "nobody", "notes", "hidn", "hidden")
    assert (result.returncode, result.stdout) == (1, "deleted notes\ndeleted hidden\n")
    assert [line for line in result.stderr.splitlines() if line.startswith("blocksd: ")] == [
        "blocksd: there is no block 'nobody'",
        "blocksd: there is no block 'hidn'",
    ]
    assert daemon.command("rm", "agents/one/persona").returncode == 0


def test_watch_says_what_is_not_there_yet(daemon: Daemon) -> None:
    """A watch of a block or an agent that is not there says so, with the one that was probably meant, and waits for it."""
    with watching(daemon, "--agent", "onee") as watch:
        assert watch.stderr is not None
        assert watch.stderr.readline() == "there is no agent 'onee'; waiting for it (did you mean 'one'?)\n"
        watch.send_signal(signal.SIGINT)
        watch.wait(10)
    with watching(daemon, "--block", "note") as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert watch.stderr.readline() == "there is no block 'note'; waiting for it (did you mean 'notes'?)\n"
        daemon.command("new", "note", "text")
        assert " created note v1 " in watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
        watch.wait(10)


def test_what_changes_nothing_is_not_called_a_change(daemon: Daemon) -> None:
    """A command says that it has changed something only if it has."""
    for words in (
        ("set", "notes", "second"),
        ("set", "notes", "--tag", "a"),
        ("replace", "notes", "second", "second"),
        ("attach", "notes", "one"),
        ("restore", "notes", "2"),
        ("mv", "notes", "notes"),
    ):
        result = daemon.command(*words)
        assert result.stdout == "nothing changed: notes v2 · 6 of 20000 characters\n", words
        assert result.returncode == 0
    assert daemon.command("set", "notes", "third").stdout.startswith("updated notes v3")
    assert daemon.command("set", "notes", "").stdout.startswith("updated notes v4 · 0 of")
    assert daemon.command("set", "notes", "--agent", "", "--tag", "").stdout.startswith("updated notes v5")
    assert as_json(daemon, "show", "notes", "--json")["agents"] == []
    assert daemon.command("set", "notes", "--agent", "*").stdout.startswith("updated notes v6")
    assert daemon.command("append", "notes", "").stdout.startswith("nothing changed: notes v6 · 0 of")
    result = daemon.command("attach", "notes", "nobody")
    assert result.stdout.startswith("nothing changed: notes v6")
    assert "nobody, not known so far: make one with 'blocksd new agents/AGENT/persona TEXT'" in result.stderr


def test_file_that_may_not_be_read_is_told_alike(folder: Path, run_daemon: RunDaemon) -> None:
    """Every command says which file it is, and who needs which right, in the same words; the exit code is 1."""
    (folder / "sub").mkdir()
    for name in ("notes", "sub/deep"):
        (folder / f"{name}.md").write_text("text\n")
    running = run_daemon(under=bound_by_rights())
    for path, locked, right in (
        ("notes.md", "notes.md", "to read notes.md"),
        ("sub/deep.md", "sub", "to enter sub"),
    ):
        mode = (folder / locked).stat().st_mode
        (folder / locked).chmod(0)
        label = path.removesuffix(".md")
        message, hint = f"{path}: it cannot be read: Permission denied", f"give the daemon's user the right {right}"
        for words in (("append", label, "x"), ("rm", label), ("mv", label, "other")):
            result = running.command(*words)
            assert (result.returncode, result.stderr) == (1, f"blocksd: {message}\n  {hint}\n")
        command = [*bound_by_rights(), sys.executable, "-m", "blocksd", "check", str(folder / path)]
        checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=running.env)
        assert checked.returncode == 1
        assert "it cannot be read: Permission denied (give the daemon's user the right to" in checked.stdout
        (folder / locked).chmod(mode)


def edited(daemon: Daemon, editor: str, *words: str) -> tuple[int, str]:
    """Run a command on a terminal with this editor; return its exit code, and what it said."""
    ours, terminal = pty.openpty()
    command = [sys.executable, "-m", "blocksd", *words, "--state-dir", str(daemon.state)]
    env = {**daemon.env, "EDITOR": editor, "VISUAL": ""}
    result = subprocess.run(
        command,
        stdin=terminal,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=30,
        env=env,
    )
    os.close(terminal)
    os.close(ours)
    return result.returncode, result.stderr


@pytest.mark.parametrize("editor", ["no-such-editor", "false"])
def test_editor_that_fails_is_told(daemon: Daemon, editor: str) -> None:
    """An editor that cannot be started, or ends with an error, changes nothing; the next step is named."""
    for words in (("set", "notes"), ("append", "notes"), ("new", "other")):
        code, said = edited(daemon, editor, *words)
        assert code == 1
        assert said.startswith(f"blocksd: nothing was changed: {editor}: Editing failed")
        assert "\n  name another with $EDITOR" in said
    assert daemon.values("notes") == ["first", "second"]


def test_text_of_the_editor_is_kept_if_it_is_refused(daemon: Daemon) -> None:
    """What a person has typed is in a file, which is named, when the block cannot have it."""
    code, said = edited(daemon, "sed -i s/.*/typed/", "new", "notes")
    assert code == 1
    assert "there is a block 'notes' already" in said
    path = Path(said.splitlines()[0].removeprefix("what you wrote is in "))
    assert path.read_text() == "typed\n"
    path.unlink()


def test_text_of_several_words_wants_quotes(daemon: Daemon) -> None:
    """Words too many after a text are most likely one text; where there is no text, nothing of the kind is said."""
    assert "a text of several words stands in quotes" in daemon.command("append", "notes", "two", "words").stderr
    assert "quotes" not in daemon.command("show", "notes", "two").stderr


def test_option_for_several_is_repeated(daemon: Daemon) -> None:
    """A word after an option that may be repeated is most likely meant for the option, too."""
    said = daemon.command("new", "notes", "text", "--agent", "one", "two").stderr
    assert "repeat --agent for each value" in said
    assert "repeat" not in daemon.command("new", "notes", "two", "words").stderr


def test_file_that_is_not_in_force_is_told(daemon: Daemon) -> None:
    """Who looks at a block is told that the file on disk says something else."""
    assert as_json(daemon, "show", "notes", "--json")["problem"] is None
    (daemon.folder / "notes.md").write_text("---\nlimit: many\n---\nthird\n")
    shown = eventually(lambda: (result := daemon.command("show", "notes")).stderr.count("not in force") and result)
    assert shown.stdout == "second\n"
    assert "notes.md:2, has a problem: limit must be" in shown.stderr
    assert as_json(daemon, "show", "notes", "--json")["problem"]["subject"] == "notes.md"
    refused = daemon.command("append", "notes", "more")
    assert (refused.returncode, "'blocksd undo notes'" in refused.stderr) == (1, True)
    listed = daemon.command("ls", "--all")
    marks = {line.split("\t")[0]: line.split("\t")[2] for line in listed.stdout.splitlines()}
    assert marks == {"agents/one/persona": "", "hidden": "warning", "notes": "problem"}
    assert listed.stderr == "not in force as on disk: 2 files; 'blocksd status' says why\n"
    undone = daemon.command("undo", "notes")
    assert undone.stdout == "undone notes v2 · 6 of 20000 characters\n"
    assert undone.stderr == "notes.md is in force again; what it said before is in the newest file notes.md.rejected*\n"
    assert (daemon.folder / "notes.md.rejected").read_text() == "---\nlimit: many\n---\nthird\n"
    eventually(lambda: not daemon.command("show", "notes").stderr.count("not in force"), "it is in force")


def test_file_with_a_warning_is_told(daemon: Daemon) -> None:
    """Who lists or looks at a block learns that a misspelt key does not protect it; programs get the same output as ever."""
    (daemon.folder / "notes.md").write_text("---\nreadonly: true\n---\nsecond\n")
    shown = eventually(lambda: (result := daemon.command("show", "notes")).stderr.count("readonly") and result, "told")
    assert shown.stdout == "second\n"
    assert "warning: notes.md:2: unknown key 'readonly' is ignored, and agents may change the block" in shown.stderr
    assert "did you mean 'read_only'?" in shown.stderr
    assert as_json(daemon, "show", "notes", "--json")["problem"] is None
    marks = {line.split("\t")[0]: line.split("\t")[2] for line in daemon.command("ls").stdout.splitlines()}
    assert marks["notes"] == "warning"


def test_file_of_a_deleted_block_that_came_back_with_a_problem(daemon: Daemon) -> None:
    """Who looks at the block is told the command that brings it back, which it does."""
    daemon.command("rm", "notes")
    (daemon.folder / "notes.md").write_text("---\nlimit: many\n---\nthird\n")
    shown = eventually(
        lambda: (result := daemon.command("show", "notes")).stderr.count("limit must be") and result, "it is told"
    )
    assert (shown.returncode, "'blocksd undo notes' brings it back" in shown.stderr) == (1, True)
    assert daemon.command("undo", "notes").returncode == 0
    assert daemon.command("show", "notes").stdout == "second\n"
    assert (daemon.folder / "notes.md.rejected").read_text() == "---\nlimit: many\n---\nthird\n"


def test_check_without_a_folder_names_that_of_the_daemon(daemon: Daemon, tmp_path: Path) -> None:
    """Who is in another directory is told which folder to check."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    words = (sys.executable, "-m", "blocksd", "check", "--config", "/dev/null")
    state = {**os.environ, "BLOCKSD_STATE_DIR": str(daemon.state)}
    done = subprocess.run(words, cwd=elsewhere, env=state, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"name one: 'blocksd check {daemon.folder}'" in done.stderr


def test_version_that_is_none(standing_daemon: Daemon) -> None:
    """A version is a number, with or without a v; anything else is wrong usage."""
    result = standing_daemon.command("diff", "notes", "first")
    assert result.returncode == 2
    assert "'first' is not a version" in result.stderr
    assert standing_daemon.command("diff", "notes", "v1", "v2").returncode == 0


def test_resume_with_nothing_held_back(standing_daemon: Daemon) -> None:
    """Deletions are accepted once they are held back, not in advance."""
    result = standing_daemon.command("resume", "--accept-deletions")
    assert (result.returncode, result.stdout) == (0, "no deletions are held back\n")


def test_resume_wants_to_be_told(standing_daemon: Daemon) -> None:
    """`resume` alone accepts nothing."""
    result = standing_daemon.command("resume")
    assert result.returncode == 2
    assert "--accept-deletions" in result.stderr


@pytest.mark.usefixtures("place")
def test_check_of_a_bad_folder(folder: Path) -> None:
    """`check` needs no daemon, ends with 1 if a file is no block, and with 0 if there are but warnings."""
    (folder / "bad.md").write_text("---\n")
    (folder / "odd.md").write_text("---\nlimt: 5\n---\n")
    result = run_here("check", str(folder))
    assert result.returncode == 1
    assert "bad.md:1: the frontmatter is opened with '---' but never closed (add a line" in result.stdout
    assert "warning: odd.md:2: " in result.stdout
    (folder / "bad.md").unlink()
    assert run_here("check", str(folder)).returncode == 0


# --- done: 0 ---


def test_json_of_every_reading_command(standing_daemon: Daemon) -> None:
    """With `--json` a program can read it, all on standard output."""
    status = as_json(standing_daemon, "status", "--json", code=1)
    assert status["running"] is True
    assert (status["blocks"], status["agents"], status["mirror"]) == (3, 2, "level")
    assert {problem["subject"] for problem in status["problems"]} == {"bad.md", "hidden.md"}
    assert [block["label"] for block in as_json(standing_daemon, "ls", "--json")] == ["agents/one/persona", "notes"]
    assert [block["label"] for block in as_json(standing_daemon, "ls", "--json", "--all")][1] == "hidden"
    assert [block["name"] for block in as_json(standing_daemon, "ls", "--json", "--agent", "one")] == [
        "notes",
        "persona",
    ]
    assert [block["attached"] for block in as_json(standing_daemon, "ls", "--json")] == [1, 2]
    shown = as_json(standing_daemon, "show", "notes", "--json")
    assert (shown["value"], shown["version"], shown["agents"], shown["chars"]) == ("second", 2, ["one", "two"], 6)
    agents = as_json(standing_daemon, "agents", "--json")
    assert [(one["agent"], one["name"], one["blocks"]) for one in agents] == [
        ("one", "one", {"notes": "notes", "persona": "agents/one/persona"}),
        ("two", "two", {"notes": "notes"}),
    ]
    history = as_json(standing_daemon, "history", "notes", "--json")
    assert [(one["version"], one["kind"], one["block"]["value"]) for one in history] == [
        (2, "updated", "second"),
        (1, "created", "first"),
    ]
    assert as_json(standing_daemon, "history", "gone", "--json")[0]["block"] is None
    result = run_here("check", str(standing_daemon.folder), "--format", "json")
    assert (result.returncode, json.loads(result.stdout)["blocks"]) == (1, 3)


def test_templates_are_listed_on_request(folder: Path, run_daemon: RunDaemon) -> None:
    """`ls` leaves templates out as the client does, and so does the list of an agent's blocks; `--all` shows them."""
    (folder / "form.md").write_text("---\nis_template: true\nagents: [one]\n---\nfill in\n")
    (folder / "notes.md").write_text("---\nagents: [one]\n---\ntext\n")
    running = run_daemon()
    for words in (["ls"], ["ls", "--agent", "one"]):
        assert [block["label"] for block in as_json(running, *words, "--json")] == ["notes"]
        assert [block["label"] for block in as_json(running, *words, "--json", "--all")] == ["form", "notes"]
    running.stop()


def test_properties_of_an_agent(daemon: Daemon, server: RedisServer) -> None:
    """A saved `agent.yaml` is in the list of agents at once, and decides the style of the prompt; `check` tells of a bad one."""
    file = daemon.folder / "agents" / "one" / "agent.yaml"
    file.write_text("name: Uno\ndescription: The first.\nagent_type: sleeptime_agent\n")
    eventually(lambda: "one\t2\tnotes, persona\tUno\tThe first." in daemon.command("agents").stdout)
    assert "1→" in daemon.command("render", "one").stdout
    assert "1→" not in daemon.command("render", "one", "--style", "standard").stdout
    assert as_json(daemon, "render", "one", "--json")["style"] == "line-numbered"
    label = "agents/one/agent.yaml"
    assert daemon.command("history", label).stdout.splitlines()[0].startswith("v1\t")
    with watching(daemon, "--since", "0", "--block", label, "--json") as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert json.loads(watch.stdout.readline())["kind"] == "reset"
        file.write_text("name: One\n")
        assert json.loads(watch.stdout.readline())["label"] == label
        watch.send_signal(signal.SIGINT)
        watch.wait(10)
        assert "waiting for it" not in watch.stderr.read()
    with Client(server.url) as client:
        assert [one.version for one in client.blocks.versions.list(label)] == [2, 1]
        properties = client.blocks.versions.retrieve(label, 1).properties
        assert properties is not None
        assert properties["name"] == "Uno"
        assert '+ "name": "One"' in client.blocks.versions.diff(label)
    assert daemon.command("undo", label).stdout == f"undone {label} v3\n"
    assert file.read_text() == "name: Uno\ndescription: The first.\nagent_type: sleeptime_agent\n"
    assert daemon.command("redo", label).stdout == f"redone {label} v4\n"
    assert as_json(daemon, "restore", label, "v1", "--json")["description"] == "The first."
    assert daemon.command("restore", label, "1").stdout == f"nothing changed: {label} v5\n"
    assert "there is nothing to merge" in daemon.command("merge", label).stderr
    assert "near" not in daemon.command("undo", "agents/two/agent.yaml").stderr
    assert [block["label"] for block in as_json(daemon, "ls", "--json", "--all")] == [
        "agents/one/persona",
        "hidden",
        "notes",
    ]
    file.write_text("name: [Uno]\n")
    result = blocksd("check", str(daemon.folder))
    assert "agents/one/agent.yaml:1: name must be text" in result.stdout
    assert "3 blocks in order" in result.stdout
    eventually(lambda: "agents/one/agent.yaml:1: name must be text" in daemon.command("status").stdout)
    assert as_json(daemon, "status", "--json", code=1)["blocks"] == 3
    undone = daemon.command("undo", label)
    assert undone.stdout == f"undone {label} v5\n"
    assert "agent.yaml.rejected" in undone.stderr
    eventually(lambda: "name must be text" not in daemon.command("status").stdout)


def test_name_of_the_operator(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--by`, else the setting, stands beside the author in history, changes, status and log."""
    assert daemon.command("append", "notes", "third", "--by", "Zoë").returncode == 0
    assert daemon.command("history", "notes").stdout.splitlines()[0].split("\t")[3] == "operator (Zoë)"
    assert as_json(daemon, "history", "notes", "--json")[0]["by"] == "Zoë"
    assert as_json(daemon, "status", "--json", code=1)["last_change"]["by"] == "Zoë"
    assert " by operator (Zoë)" in daemon.command("status").stdout
    eventually(lambda: "updated notes v3 (value) by operator (Zoë)" in daemon.said())
    with watching(daemon, "--since", "0", "--block", "notes") as watch:
        assert watch.stdout is not None
        assert " reset: " in watch.stdout.readline()
        monkeypatch.setitem(daemon.env, "BLOCKSD_BY", "Bob")
        daemon.command("undo", "notes")
        assert watch.stdout.readline().endswith(" updated notes v4 (value) by operator (Bob)\n")
        watch.send_signal(signal.SIGINT)
        watch.wait(10)
    assert as_json(daemon, "history", "notes", "--json")[0]["by"] == "Bob"
    refused = daemon.command("undo", "notes", "--by", "a\nb")
    assert (refused.returncode, "by must be 1 to 100 printable characters" in refused.stderr) == (2, True)


def test_option_before_the_command() -> None:
    """Where it belongs is said; of one that no command has, nothing."""
    for words in (("--namespace", "x", "ls"), ("--json", "ls")):
        result = run_here(*words)
        assert result.returncode == 2
        assert result.stderr.endswith(
            f"No such option '{words[0]}'. It comes after the command: 'blocksd ls {words[0]} …'\n"
        )
    assert "after the command" not in run_here("--nope", "ls").stderr


def test_text_for_people(standing_daemon: Daemon) -> None:
    """The value of a block goes to standard output alone, so that it can be piped; tables are cut by tabs."""
    shown = standing_daemon.command("show", "notes")
    assert shown.stdout == "second\n"
    assert "notes v2 · 6 of 20000 characters" in shown.stderr
    lines = standing_daemon.command("ls").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["agents/one/persona", "notes"]
    assert standing_daemon.command("ls", "--search", "SECOND").stdout.startswith("notes\t6/20000")
    tagged = standing_daemon.command("ls", "--tag", "b")
    assert (tagged.stdout, tagged.stderr.splitlines()[0]) == ("", "no block fits; none has the tag 'b'")
    assert standing_daemon.command("agents").stdout.splitlines()[1].rstrip("\t") == "two\t1\tnotes"
    assert standing_daemon.command("history", "gone").stdout.splitlines()[0].startswith("v2\t")
    assert "-first\n+second" in standing_daemon.command("diff", "notes").stdout
    found = json.loads(standing_daemon.command("diff", "notes", "--json").stdout)
    assert (found["label"], found["from"], found["to"]) == ("notes", 1, 2)
    assert found["diff"].endswith("-first\n+second\n")
    status = standing_daemon.command("status")
    assert status.returncode == 1
    assert "running, pid" in status.stdout
    assert "bad.md:1: the frontmatter is opened" in status.stdout


def test_status_after_the_daemon_has_stopped(daemon: Daemon, server: RedisServer) -> None:
    """What the journal and Redis still hold is told; the exit code says that nobody keeps it."""
    daemon.stop()
    status = as_json(daemon, "status", "--json", "--redis", server.url, code=3)
    assert (status["running"], status["blocks"], status["mirror"]) == (False, 3, "level")
    assert daemon.command("show", "notes", "--redis", server.url).stdout == "second\n"
    assert daemon.command("history", "notes").returncode == 0


def watching(daemon: Daemon, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "blocksd", "watch", "--state-dir", str(daemon.state), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=daemon.env)


def test_watch_prints_what_was_and_what_comes(daemon: Daemon) -> None:
    """From a number on, every change is one line of JSON, those that come later included; Ctrl-C ends it with 130."""
    with watching(daemon, "--since", "0", "--block", "notes", "--json") as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert watch.stdout.readline().startswith('{"seq": ')  # the first mirror was a reset: what is there now
        lines = []
        (daemon.folder / "notes.md").write_text("third\n")
        lines.append(json.loads(watch.stdout.readline()))
        assert (lines[-1]["label"], lines[-1]["version"]) == ("notes", 3)
        watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == 130
        taken, go_on = watch.stderr.read().strip().splitlines()
    place = f"{lines[-1]['epoch']}:{lines[-1]['seq']}"
    assert taken == f"--since 0 is taken to be in the epoch {lines[-1]['epoch']}"
    assert go_on == f"continue with --since {place}"
    daemon.command("append", "notes", "later")
    with watching(daemon, "--since", place, "--json") as watch:
        assert watch.stdout is not None
        assert json.loads(watch.stdout.readline())["seq"] == lines[-1]["seq"] + 1
        watch.send_signal(signal.SIGINT)
        watch.wait(10)
    with watching(daemon, "--since", f"another:{lines[-1]['seq']}", "--json") as watch:
        assert watch.stdout is not None
        assert json.loads(watch.stdout.readline())["kind"] == "reset"
        watch.send_signal(signal.SIGINT)
        watch.wait(10)


def test_text_that_a_save_takes_away_is_told_of_and_brought_back(daemon: Daemon) -> None:
    """`sed` removes an agent's line right after it came: log, watch, status and history say so, and how it comes back."""
    file = daemon.folder / "notes.md"
    daemon.command("append", "notes", "from an agent")
    with watching(daemon, "--since", "0", "--block", "notes") as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert " reset: " in watch.stdout.readline()
        subprocess.run(["sed", "-i", "/from an agent/d", file], check=True, timeout=10)
        line = watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
        watch.wait(10)
    assert line.endswith(
        " updated notes v4 (value) by file, took away text of v3; to bring it back: blocksd merge notes\n"
    )
    warning = (
        "merge notes: a save, version 4 of 'notes', took away text of version 3 (to bring it back: blocksd merge notes)"
    )
    assert warning.partition(" (")[0] in " ".join(daemon.command("status").stdout.split())
    told = "updated notes v4 (value), took away text of v3; to bring it back: blocksd merge notes\n"
    assert told in daemon.said()
    assert warning not in daemon.said()  # one line is enough
    assert daemon.command("history", "notes").stdout.splitlines()[0].rstrip().endswith("value; took away text of v3")
    assert json.loads(daemon.command("history", "notes", "--json").stdout)[0]["reverts"] == [3]
    assert "from an agent" not in file.read_text()
    assert daemon.command("merge", "notes").stdout.startswith("merged notes v5 ·")
    assert file.read_text().endswith("second\nfrom an agent\n")
    assert "nothing to merge" in daemon.command("merge", "notes", "v3").stderr
    eventually(lambda: "took away" not in daemon.command("status").stdout)


def test_reader_that_goes_away(daemon: Daemon) -> None:
    """A pipe that nobody reads any more, as behind `head`, ends a command without a word."""
    with watching(daemon) as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        (daemon.folder / "ready.md").write_text("one\n")
        eventually(lambda: daemon.values("ready") if (daemon.state / "journal.db").exists() else None)
        watch.stdout.close()
        number = 0

        def has_ended() -> bool:
            nonlocal number
            number += 1
            (daemon.folder / "ready.md").write_text(f"{number}\n")
            return watch.poll() is not None

        eventually(has_ended)
        assert watch.stderr.read() == ""


def test_log_for_programs(folder: Path, run_daemon: RunDaemon) -> None:
    """With `--log-format json` each event is one line of JSON, with its facts."""
    (folder / "notes.md").write_text("one\n")
    (folder / "bad.md").write_text("---\n")
    running = run_daemon("--log-format", "json", ready=False)
    eventually(lambda: '"event": "ready"' in running.said())
    (folder / "notes.md").write_text("two\n")
    eventually(lambda: '"event": "updated"' in running.said())
    assert running.stop() == 0
    events = {event["event"]: event for event in map(json.loads, running.said().splitlines())}
    assert events["ready"]["blocks"] == 1
    assert events["problem"]["subject"] == "bad.md"
    assert (events["updated"]["label"], events["updated"]["version"]) == ("notes", 2)
    assert events["stop"]["message"] == "stopped"


def test_module_is_the_command() -> None:
    """`python -m blocksd` and `blocksd` are one."""
    script = Path(sys.executable).with_name("blocksd")
    if not script.exists():
        pytest.skip("the command is not installed beside this Python")
    shown = subprocess.run([script, "--version"], capture_output=True, text=True, check=True, timeout=30)
    assert shown.stdout == blocksd("--version").stdout
