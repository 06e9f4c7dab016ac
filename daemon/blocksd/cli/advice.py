"""The next step after an error, from its facts: a sentence for the command line."""

from __future__ import annotations

import errno
import shlex
from typing import TYPE_CHECKING

from blocksd.errors import (
    AlreadyExists,
    AlreadyRunning,
    BlocksdError,
    InvalidLabel,
    InvalidRequest,
    JournalUnavailable,
    LabelConflict,
    LimitExceeded,
    MergeConflict,
    Misconfigured,
    NotAttached,
    NotFound,
    ProblemFile,
    Unavailable,
    VersionConflict,
)
from blocksd.model.label import PRIVATE, SUFFIX, name_for_agent
from blocksd.model.proposal import proposed_path

if TYPE_CHECKING:
    from collections.abc import Callable

UNKNOWN_AGENT = (
    "make one with 'blocksd new agents/AGENT/persona TEXT' or 'blocksd attach LABEL AGENT'; "
    "'blocksd agents' lists those known"
)
_ARGUMENTS = {"old_content": "OLD", "new_content": "NEW", "content": "CONTENT"}
"""The arguments of requests that the commands call otherwise."""
_FEW = 3
"""How many daemons are named at most."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM)


def command(*words: str) -> str:
    """Return a command of blocksd to be typed as it is, in quotes."""
    line = shlex.join(("blocksd", *words))
    return f"`{line}`" if "'" in line else f"'{line}'"


def in_own_words(error: BlocksdError) -> str:
    """Return the message of an error, with the argument of a request named as the command line has it."""
    argument = str(error.facts.get("argument", ""))
    if argument in _ARGUMENTS and error.message.startswith(f"{argument} "):
        return _ARGUMENTS[argument] + error.message.removeprefix(argument)
    return error.message


def next_step(error: BlocksdError) -> str:
    """Return what a person can do about an error; empty if the message says it all.

    The fact `hint` is the advice of who raised it. `near` is a name that was probably meant.
    """
    near, hint = error.facts.get("near"), error.facts.get("hint")
    if isinstance(near, (list, tuple)) and near:
        return f"did you mean {near[0]!r}?"
    if isinstance(hint, str) and hint:
        return hint
    if "errno" in error.facts:
        return _after_os_error(error)
    return next((say(error) for kind, say in _STEPS if isinstance(error, kind)), "")


def _after_os_error(error: BlocksdError) -> str:
    given = error.facts["errno"]
    number = given if isinstance(given, int) else getattr(errno, str(given), 0)
    path = error.facts.get("path") or "the folder"
    if error.facts.get("key") == "state_dir":
        right = "give this user the right to read and write it, or " if number in _DENIED else ""
        return f"{right}name another directory with --state-dir DIR"
    if number in _DENIED:
        return f"give the daemon's user the right to read and write {path}, and its directory; 'blocksd doctor' checks"
    if number in _FULL:
        return f"free some space on the disk of {path}, then try again"
    if number == errno.EROFS:
        return f"the disk of {path} is mounted read-only: mount it for writing, then try again"
    return "try again; 'blocksd doctor' checks the disk, and 'blocksd status' shows what is wrong"


def _after_not_found(error: BlocksdError) -> str:
    facts = error.facts
    if "version" in facts:
        return f"{command('history', _label(facts))} lists the versions that are kept"
    if "label" not in facts and "agent" in facts and "name" not in facts:
        return UNKNOWN_AGENT.replace("AGENT", str(facts["agent"]))
    return "'blocksd ls --all' lists the blocks, and 'blocksd new LABEL' makes one"


def _after_not_attached(error: BlocksdError) -> str:
    return f"{command('show', str(error.facts.get('name', 'LABEL')))} shows the agents that have it"


def _after_label(error: BlocksdError) -> str:
    if "agent" in error.facts:
        return "an agent id is a name such as support-1: 'blocksd agents' lists those known"
    path = str(error.facts.get("label", ""))
    if path.endswith(SUFFIX) and path != SUFFIX:
        return f"the label of the file {path} is {path.removeprefix('./').removesuffix(SUFFIX)!r}"
    first, *others = path.split("/")
    if first == PRIVATE and len(list(filter(None, others))) == 1:
        agent = next(filter(None, others))
        return f"a private block is {PRIVATE}/AGENT/NAME: for example {PRIVATE}/{agent}/persona, of the agent {agent!r}"
    proposed = proposed_path(f"{path}{SUFFIX}")
    if proposed is not None and ".." not in others:
        return f"a label that is allowed: {proposed.removesuffix(SUFFIX)!r}"
    return "a label is the path of the block's file below the folder, without .md: 'blocksd ls' lists those in force"


def _after_version_conflict(error: BlocksdError) -> str:
    label, version = _label(error.facts), error.facts.get("version")
    return f"{command('show', label)} shows version {version}; then retry with --version {version}"


def _after_merge_conflict(error: BlocksdError) -> str:
    return f"{command('show', _label(error.facts))} shows the present text; make the change again in it"


def _after_limit(error: BlocksdError) -> str:
    return (
        "shorten the text, or raise the limit with --limit N, as in 'blocksd set LABEL --limit N'"
        if "chars" in error.facts
        else ""
    )


def _after_exists(error: BlocksdError) -> str:
    label = _label(error.facts)
    return f"choose another label, or change that block: {command('set', label)}" if "label" in error.facts else ""


def _after_label_conflict(error: BlocksdError) -> str:
    if "other" in error.facts:
        change = command("set", str(error.facts["other"]))
        return f"some file systems take the two for one: choose another label, or change that block: {change}"
    return "choose another label, or detach one of the two blocks: 'blocksd detach LABEL AGENT'"


def _after_request(error: BlocksdError) -> str:
    names_one = not error.facts.keys().isdisjoint(("label", "agent"))
    if names_one and error.facts.keys().isdisjoint(("field", "argument")):  # it travelled in a reply
        return _after_label(error)
    if "owner" in error.facts and error.facts.get("field") != "args.to":
        label = _label(error.facts)
        shared = command("mv", label, name_for_agent(label))
        return f"to share it, rename it first: {shared}; then attach that block"
    if error.facts.get("field") == "op" and "label" in error.facts:
        label = _label(error.facts)
        versions, back = command("history", label), command("restore", label, "VERSION")
        return f"{versions} lists its versions, and {back} brings one back"
    if error.facts.get("field") == "args.to" and "owner" in error.facts:
        return f"a private block names no agents: take them out first: {command('set', _label(error.facts), '--agent', '')}"
    if error.facts.get("field") == "args.agents" and "label" in error.facts:
        replacing = command("set", _label(error.facts), "--agent", "AGENT")
        return f"{replacing} replaces the list; repeat --agent for each entry"
    return ""


def _after_running(error: BlocksdError) -> str:
    manager = error.facts.get("command")
    if manager:
        return f"stop it with: {manager}"
    stop = command("stop", *next(iter(_running(error).values()), []))
    return (
        f"stop it with {stop}, or give this one another folder and --state-dir, and a daemon another --namespace, too"
    )


def _running(error: BlocksdError) -> dict[str, list[str]]:
    """Return the options that name each daemon that runs, by folder."""
    running = error.facts.get("running")
    return running if isinstance(running, dict) else {}


def other_daemons(running: dict[str, list[str]]) -> str:
    """Return how to name a daemon that runs, of those with these options; empty if none needs options."""
    named = [f"{shlex.join(options)} (folder {folder})" for folder, options in running.items() if options]
    more = ", or …" if len(named) > _FEW else ""
    return f"name a daemon that runs: {', or '.join(named[:_FEW])}{more}" if named else ""


def _after_misconfigured(error: BlocksdError) -> str:
    facts = error.facts
    if facts.get("key") == "folder":
        return "make one with 'mkdir', or name another: 'blocksd run FOLDER'"
    if facts.get("key") == "state_dir":
        return "name another directory with --state-dir DIR"
    if facts.get("lacks") == "right":
        return (
            "'blocksd acl' prints users with the rights that are needed, and 'blocksd doctor' says which one is missing"
        )
    if facts.get("lacks") == "login":
        return "correct user and password in the URL: redis://USER:PASSWORD@HOST:PORT"
    if facts.get("lacks") == "cluster":
        return "name some of its nodes: --redis redis+cluster://HOST:PORT,HOST:PORT"
    if facts.get("lacks") == "braces":
        return "give it to the daemon and to every client: --namespace '{NAME}'"
    if "://" not in str(facts.get("url", "://")):
        return f"did you mean 'redis://{facts['url']}'?"
    return ""


def _after_unavailable(error: BlocksdError) -> str:
    facts = error.facts
    if "socket" in facts:
        return "it may be stopped (SIGSTOP), hang, or be starting: see its log, or stop it with 'blocksd stop'"
    if "pid" in facts:
        return f"wait, or look into its log; 'kill -9 {facts['pid']}' loses nothing that was acknowledged"
    if "state" in facts or "journal" in facts:
        other = other_daemons(_running(error))
        if other:
            return f"{other}; or start one with 'blocksd run FOLDER'"
        if "journal" in facts:
            return "start a daemon with 'blocksd run FOLDER', or name its --state-dir or --namespace"
        return "start one with 'blocksd run FOLDER', or name a server with --redis URL or another --state-dir DIR"
    if "request_id" in facts:
        return "'blocksd status' tells if the daemon runs and answers; then look if it was done before you ask again"
    if "field" in facts:
        return "try again"
    if "mirror" in facts:
        return "a running daemon builds it within seconds: 'blocksd status' tells if one runs"
    if "url" in facts:
        return "check that the server runs and that the URL is right; 'blocksd status' tells how the daemon sees it"
    return "try again; 'blocksd status' shows what is wrong"


def _label(facts: dict[str, object]) -> str:
    return str(facts.get("label", "LABEL"))


_STEPS: tuple[tuple[type[BlocksdError], Callable[[BlocksdError], str]], ...] = (
    (NotAttached, _after_not_attached),
    (NotFound, _after_not_found),
    (InvalidLabel, _after_label),
    (VersionConflict, _after_version_conflict),
    (MergeConflict, _after_merge_conflict),
    (LabelConflict, _after_label_conflict),
    (LimitExceeded, _after_limit),
    (AlreadyExists, _after_exists),
    (ProblemFile, lambda _: "'blocksd status' shows what is wrong with the file"),
    (InvalidRequest, _after_request),
    (AlreadyRunning, _after_running),
    (Misconfigured, _after_misconfigured),
    (JournalUnavailable, lambda _: "check that its disk has space and that no other program holds it; then try again"),
    (Unavailable, _after_unavailable),
)
"""For each kind of error what it advises; the first that fits."""
