"""The findings of the audit: in a block, so that an agent can act on them, and by a timer of systemd."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING, Literal

from blocksd.errors import InvalidRequest, Misconfigured, NotFound
from blocksd.model.block import DEFAULT_LIMIT
from blocksd.model.problem import count
from blocksd.settings.record import write_private

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocksd.client.blocking.client import Client
    from blocksd.model.audit import Finding

TAG = "audit"
"""The tag of the blocks that findings are written to: another block is never written."""

_DESCRIPTION = (
    "Findings of the last audit of the memory: blocks and agents that need care, with advice. 'blocksd audit' writes this "
    "block, and nobody else."
)


def findings_text(findings: Sequence[Finding], limit: int) -> str:
    """Return the findings as a list in Markdown; of those that do not fit into `limit` characters, how many there are."""
    if not findings:
        return "No findings."
    entries = [f"- {finding.subject}: {finding.message}\n  {finding.advice}\n" for finding in findings]
    text = "".join(entries).rstrip("\n")
    kept = len(entries)
    while len(text) > limit and kept:
        kept -= 1
        more = f"… and {count(len(entries) - kept, 'more finding')}: 'blocksd audit' lists all"
        text = f"{''.join(entries[:kept])}{more}"
    return text[:limit]


def write_findings(
    client: Client, label: str, findings: Sequence[Finding]
) -> Literal["created", "updated", "unchanged"]:
    """Write the findings to a block, unless it says the same; make the block if there are findings and it is not there.

    Raises:
        InvalidRequest: there is such a block already, for something else.
        BlocksdError: as `create` and `update` do.
    """
    found = [finding for finding in findings if finding.subject != label]  # it is no finding itself
    try:
        block = client.blocks.retrieve(label)
    except NotFound:
        if not found:
            return "unchanged"
        text = findings_text(found, DEFAULT_LIMIT)
        client.blocks.create(label=label, value=text, description=_DESCRIPTION, tags=[TAG], read_only=True)
        return "created"
    if TAG not in block.tags:
        hint = f"name another block, or give this one the tag {TAG!r}: its text is then replaced"
        raise InvalidRequest(f"the block {label!r} is not one that the audit writes", field="to_block", hint=hint)
    text = findings_text(found, block.limit)
    if text == block.value:
        return "unchanged"
    client.blocks.update(block.label, value=text, expect_version=block.version)
    return "updated"


def units(name: str, words: Sequence[str], calendar: str) -> dict[str, str]:
    """Return the texts of a service that runs this command once, and of its timer, by file name."""
    service = f"""\
# Made by 'blocksd audit --schedule', which replaces it.
[Unit]
Description=Audit of the memory of AI agents

[Service]
Type=oneshot
ExecStart={" ".join(map(_quoted, words))}
Nice=10
NoNewPrivileges=yes
"""
    timer = f"""\
# Made by 'blocksd audit --schedule', which replaces it.
[Unit]
Description=Audit of the memory of AI agents, now and then

[Timer]
OnCalendar={calendar.replace("%", "%%")}
Persistent=yes

[Install]
WantedBy=timers.target
"""
    return {f"{name}.service": service, f"{name}.timer": timer}


def schedule(name: str, words: Sequence[str], calendar: str) -> str:
    """Have systemd run a command at these times, for this user, or for the machine if that is root; return the timer's path.

    Raises:
        Misconfigured: the times are none, or systemd does not run or does not take the units. Fact: `hint`.
        OSError: the units cannot be written.
    """
    if shutil.which("systemd-analyze") is not None:
        _run("systemd-analyze", "calendar", calendar, hint="see systemd.time(7): for example daily, weekly, Mon 06:00")
    of_user = [] if os.geteuid() == 0 else ["--user"]
    by_cron = f"where systemd does not run, have cron run: {shlex.join(words)}"
    _run("systemctl", *of_user, "show", "--property=Version", hint=by_cron)
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    directory = os.path.join(home, "systemd", "user") if of_user else "/etc/systemd/system"
    os.makedirs(directory, exist_ok=True)
    for file, text in units(name, words, calendar).items():
        write_private(os.path.join(directory, file), text)  # the words may have a password
    for command in (("daemon-reload",), ("enable", "--now", f"{name}.timer"), ("restart", f"{name}.timer")):
        line = ["systemctl", *of_user, *command]
        _run(*line, hint=f"the units are in {directory}; see 'journalctl', then run: {' '.join(line)}")
    return os.path.join(directory, f"{name}.timer")


def _run(*words: str, hint: str) -> None:
    """Run a command of systemd. Raise Misconfigured with its last line if it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise Misconfigured(f"{words[0]} cannot be run: {error.strerror}", key="schedule", hint=hint) from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise Misconfigured(f"{words[0]} refuses: {said[-1]}", key="schedule", hint=hint)


def _quoted(word: str) -> str:
    r"""Return a word as ExecStart= takes it: systemd.service(5), where `%`, `$`, `"` and `\` mean something."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
