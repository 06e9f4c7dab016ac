"""The next step that is named beneath an error."""

from __future__ import annotations

import pytest

from blocksd.cli.advice import in_own_words, next_step
from blocksd.errors import (
    AlreadyExists,
    AlreadyRunning,
    BlocksdError,
    InvalidLabel,
    InvalidRequest,
    JournalUnavailable,
    JournalUnusable,
    LabelConflict,
    LimitExceeded,
    MergeConflict,
    Misconfigured,
    NotAttached,
    NotFound,
    ProblemFile,
    StateUnusable,
    Unavailable,
    VersionConflict,
)

FIRST = "start one with 'blocksd run FOLDER'"


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (Unavailable("x", state="/s"), FIRST),
        (Unavailable("x", journal="/s/journal.db"), "start a daemon"),
        (Unavailable("x", state="/s", running={"/f": ["--state-dir", "/t"]}), "--state-dir /t (folder /f); or start"),
        (Unavailable("x", journal="/s", running={"/f": ["--state-dir", "/t"]}), "--state-dir /t (folder /f); or start"),
        (Unavailable("x", label="notes", errno="EACCES", path="notes.md"), "the right to read and write notes.md"),
        (Unavailable("x", errno="EPERM", path=""), "the right to read and write the folder"),
        (Unavailable("x", errno="ENOSPC", path="notes.md"), "free some space on the disk of notes.md"),
        (Unavailable("x", errno="EDQUOT", path="notes.md"), "free some space"),
        (Unavailable("x", errno="EROFS", path="notes.md"), "mounted read-only"),
        (Unavailable("x", errno="EIO", path="notes.md"), "'blocksd doctor' checks the disk"),
        (Unavailable("x", errno="EIO", hint="check the disk"), "check the disk"),
        (Unavailable("x", path="notes.md"), "try again; 'blocksd status'"),
        (Unavailable("x", socket="/s/control.sock"), "stopped (SIGSTOP), hang"),
        (Unavailable("x", pid=7), "'kill -9 7' loses nothing"),
        (Unavailable("x", url="redis://x"), "check that the server runs"),
        (Unavailable("x", url="redis://x", mirror=None), "a running daemon builds it"),
        (Unavailable("x", request_id="r"), "look if it was done"),
        (Unavailable("x", field="deadline"), "try again"),
        (Unavailable("x"), "try again; 'blocksd status'"),
        (StateUnusable("x", path="/s", errno=28), "free some space on the disk of /s"),
        (JournalUnavailable("x", path="/s/journal.db"), "its disk has space"),
        (JournalUnusable("x", path="/s", hint="move it away"), "move it away"),
        (Misconfigured("x", key="state_dir", errno=13), "--state-dir DIR"),
        (Misconfigured("x", key="state_dir"), "--state-dir DIR"),
        (Misconfigured("x", key="state_dir", errno=13), "give this user the right"),
        (Misconfigured("x", key="state_dir", errno=17), "name another directory with --state-dir DIR"),
        (Misconfigured("x", key="folder", path="/f", errno=13), "the right to read and write /f"),
        (Misconfigured("x", url="here:6379"), "did you mean 'redis://here:6379'?"),
        (Misconfigured("x", url="redis://here:x"), ""),
        (LabelConflict("x", label="Notes", other="notes"), "change that block: 'blocksd set notes'"),
        (LabelConflict("x", label="notes", agents=["ann"]), "'blocksd detach LABEL AGENT'"),
        (InvalidRequest("x", field="args.to", label="notes", owner="ann"), "`blocksd set notes --agent ''`"),
        (Misconfigured("x", key="folder"), "mkdir"),
        (Misconfigured("x", lacks="right", url="u"), "'blocksd acl'"),
        (Misconfigured("x", lacks="login", url="u"), "USER:PASSWORD"),
        (Misconfigured("x", key="limit"), ""),
        (NotFound("x", label="nots", near=["notes"]), "did you mean 'notes'?"),
        (NotFound("x", label="notes", near=[]), "'blocksd ls --all' lists"),
        (NotFound("x", label="notes", version=9), "'blocksd history notes'"),
        (NotFound("x", label="my notes", version=9), "`blocksd history 'my notes'`"),
        (NotFound("x", agent="ghost"), "'blocksd attach LABEL ghost'"),
        (NotAttached("x", agent="ann", name="notes"), "'blocksd show notes'"),
        (InvalidLabel("x", label="a/foo.md"), "is 'a/foo'"),
        (InvalidLabel("x", label="./foo.md"), "is 'foo'"),
        (InvalidLabel("x", label="a:b"), "a label that is allowed: 'a-b'"),
        (InvalidLabel("x", label="../b"), "a label is the path"),
        (InvalidLabel("x", label=""), "a label is the path"),
        (InvalidLabel("x", label="agents/zz"), "agents/zz/persona, of the agent 'zz'"),
        (InvalidLabel("x", label="agents/zz/"), "agents/zz/persona"),
        (InvalidLabel("x", agent="a b"), "'blocksd agents'"),
        (InvalidRequest("x", agent="a b"), "'blocksd agents'"),
        (InvalidRequest("x", field="label", label="agents/a/x", owner="a"), "'blocksd mv agents/a/x x'"),
        (InvalidRequest("x", label="foo.md"), "is 'foo'"),
        (VersionConflict("x", label="notes", expected=3, version=5), "--version 5"),
        (MergeConflict("x", label="notes"), "'blocksd show notes'"),
        (LimitExceeded("x", chars=5, limit=3), "--limit N"),
        (LimitExceeded("x", limit=1000), ""),
        (AlreadyExists("x", label="notes"), "choose another label, or change that block: 'blocksd set notes'"),
        (AlreadyExists("x", agent="ann"), ""),
        (ProblemFile("x", label="notes"), "'blocksd status'"),
        (ProblemFile("x", label="notes", hint="add a line '---'"), "add a line '---'"),
        (InvalidRequest("x", field="op", label="notes"), "'blocksd restore notes VERSION'"),
        (InvalidRequest("x", field="args.agents", label="notes"), "'blocksd set notes --agent AGENT'"),
        (InvalidRequest("x", field="op"), ""),
        (AlreadyRunning("x", pid=7), "'blocksd stop'"),
        (AlreadyRunning("x", pid=7, running={"/f": ["--namespace", "n"]}), "'blocksd stop --namespace n', or give"),
        (AlreadyRunning("x", pid=7, command="systemctl stop b.service"), "systemctl stop b.service"),
    ],
    ids=lambda value: f"{type(value).__name__} {value.facts}" if isinstance(value, BlocksdError) else None,
)
def test_next_step_is_of_the_case(error: BlocksdError, step: str) -> None:
    """What to do follows from what happened, and not from the kind of the error alone."""
    said = next_step(error)
    assert (step in said) if step else not said
    assert step.endswith((FIRST, "or start")) or FIRST not in said


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InvalidRequest("old_content 'a' is in two places", argument="old_content"), "OLD 'a' is in two places"),
        (InvalidRequest("new_content has line numbers", argument="new_content"), "NEW has line numbers"),
        (InvalidRequest("content has line numbers", argument="content"), "CONTENT has line numbers"),
        (InvalidRequest("the patch has no hunk", argument="patch"), "the patch has no hunk"),
        (InvalidRequest("content is", field="args.content"), "content is"),
    ],
)
def test_arguments_are_called_as_in_the_commands(error: BlocksdError, words: str) -> None:
    """The argument of a request is named as `--help` names it."""
    assert in_own_words(error) == words
