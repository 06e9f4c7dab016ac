"""Makes session.svg: a daemon at work, an editor, a subscriber and a shell, as they really look; and mcp.svg: a daemon, an
editor, and two MCP clients that share a block.

    python daemon/docs/record.py [session.svg]
    python daemon/docs/record.py --mcp [mcp.svg]

Needs the package with its extra `embedded`, Git, tmux and vim; for mcp.svg also the extra `mcp`.
"""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import string
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT = 112, 26
LEFT, UPPER = 58, 15
HOME = "/home/you"
PLACE = "/tmp/"  # noqa: S108  # what is made in it has a name of chance, and is made or not at all
DEADLINE = 20.0


class Pane(NamedTuple):
    """Where one of the four is: `id` is tmux's."""

    id: str
    left: int
    top: int
    width: int
    height: int


class Tmux:
    """A separate tmux server with one window."""

    def __init__(self, directory: str) -> None:
        self._words = ["tmux", "-f", os.devnull, "-S", f"{directory}/tmux"]

    def __call__(self, *words: str) -> str:
        return subprocess.run([*self._words, *words], check=True, capture_output=True, text=True).stdout

    def type(self, pane: str, *keys: str) -> None:
        """Press these keys: names of tmux's (`Enter`, `Escape`), or text."""
        self("send-keys", "-t", pane, *keys)

    def shows(self, pane: str) -> str:
        return self("capture-pane", "-p", "-t", pane)

    def wait(self, pane: str, what: str) -> None:
        """Until the pane shows a text that matches."""
        deadline = time.monotonic() + DEADLINE
        while not re.search(what, self.shows(pane)):
            if time.monotonic() > deadline:
                sys.exit(f"not within {DEADLINE:g} s: {what}\n{self.shows(pane)}")
            time.sleep(0.05)

    def panes(self) -> list[Pane]:
        form = "#{pane_id} #{pane_left} #{pane_top} #{pane_width} #{pane_height}"
        found = [line.split() for line in self("list-panes", "-F", form).splitlines()]
        return [Pane(name, *map(int, place)) for name, *place in found]


@contextmanager
def home() -> Iterator[str]:
    """A directory whose name is as long as the one that is shown in its place, so that lines break where they would."""
    name = "".join(random.choices(string.ascii_lowercase, k=len(HOME) - len(PLACE)))
    directory = PLACE + name
    os.mkdir(directory, 0o700)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)  # after a failure the daemon is still about to end in it


def record(tmux: Tmux, directory: str, play: Callable[[Tmux, list[str]], None]) -> list[Text]:
    """Play a session; the lines of the window at its end."""
    work = f"{directory}/blocksd"
    os.mkdir(work)
    # The sample as Git has it: who has tried blocksd in this clone has edited it.
    archived = ["git", "-C", str(HERE.parents[1]), "archive", f"--output={directory}/sample.tar", "HEAD", "blocks.d"]
    subprocess.run(archived, check=True)
    shutil.unpack_archive(f"{directory}/sample.tar", work, filter="data")
    shutil.copy(HERE / "talk.py", work)
    scripts = str(Path(sys.executable).parent)
    # With this path alone the daemon finds no server that is installed, and starts the one of the extra.
    shells = {"run": scripts, "other": f"{scripts}:{os.environ['PATH']}"}
    started = {
        name: f"env -i HOME={directory} PATH={path} PS1='$ ' HISTFILE= TERM=screen-256color LANG=C.UTF-8 {shutil.which('bash')} --norc"
        for name, path in shells.items()
    }
    tmux("new-session", "-d", "-x", str(WIDTH), "-y", str(HEIGHT), "-c", work, started["run"])
    tmux("set", "-g", "status", "off")
    tmux("resize-window", "-x", str(WIDTH), "-y", str(HEIGHT))
    tmux("split-window", "-h", "-l", str(WIDTH - LEFT - 1), "-c", work, started["other"])
    tmux("split-window", "-v", "-l", str(HEIGHT - UPPER - 1), "-c", work, started["other"])
    tmux("split-window", "-v", "-t", "{left}", "-l", str(HEIGHT - UPPER - 1), "-c", work, started["other"])
    panes = [pane.id for pane in sorted(tmux.panes(), key=lambda pane: (pane.left, pane.top))]
    run, _, editor, _ = panes
    for one in panes:
        tmux.wait(one, r"^\$")
    tmux.type(run, "blocksd run blocks.d", "Enter")
    tmux.wait(run, "ready: 4 blocks")
    play(tmux, panes)
    lines = [Text("") for _ in range(HEIGHT)]
    for pane in sorted(tmux.panes(), key=lambda pane: (pane.left, pane.top)):
        shown = tmux("capture-pane", "-e", "-p", "-t", pane.id).replace(directory, HOME).splitlines()
        for row in range(pane.height):
            line = Text.from_ansi(shown[row] if row < len(shown) else "")
            line.truncate(pane.width, pad=True)
            lines[pane.top + row].append_text(line)
            if pane.left == 0:
                lines[pane.top + row].append("│", "bright_black")
    lines[UPPER] = Text("─" * LEFT + "┼" + "─" * (WIDTH - LEFT - 1), "bright_black")
    # They write to the directory that is about to go.
    tmux.type(editor, ":q", "Enter")
    tmux.wait(editor, r"^\$")
    tmux.type(run, "C-c")
    tmux.wait(run, "stopped")
    return lines


def play_session(tmux: Tmux, panes: list[str]) -> None:
    """Play a subscriber, an editor and a shell."""
    run, watch, editor, shell = panes
    tmux.type(watch, "blocksd watch", "Enter")
    tmux.wait(watch, "following")
    tmux.type(editor, "vim blocks.d/persona.md", "Enter")
    tmux.wait(editor, r"persona\.md.*B")
    tmux.type(editor, "Go", "I ask when I am not sure.", "Escape", ":w", "Enter")
    tmux.wait(watch, "updated persona v2")
    tmux.type(shell, "blocksd append human 'Likes tea.'", "Enter")
    tmux.wait(watch, "updated human v3")
    tmux.wait(shell, r"updated human v3.*\n\$\s*$")
    tmux.type(editor, "2GO", "limit: many", "Escape", ":w", "Enter")
    tmux.wait(watch, "rejected")
    tmux.type(editor, "Vclimit: 5000", "Escape", ":w", "Enter")
    tmux.wait(watch, r"updated persona v3")
    tmux.type(shell, "blocksd undo human", "Enter")
    tmux.wait(watch, "updated human v4")
    tmux.wait(shell, r"undone human.*\n\$\s*$")
    tmux.wait(run, r"updated human v4 .* by operator")


def play_mcp(tmux: Tmux, panes: list[str]) -> None:
    """Play two MCP clients of two agents that share the block `human`, and an editor."""
    run, first, editor, second = panes
    for pane, agent in ((first, "support-1"), (second, "support-2")):
        tmux.type(pane, f"python talk.py {agent} human", "Enter")
        tmux.wait(pane, f"{agent}>")
    tmux.type(first, "Kim likes tea.", "Enter")
    for pane in (first, second):
        tmux.wait(pane, "human: .*Kim likes tea")
    tmux.type(editor, "vim blocks.d/human.md", "Enter")
    tmux.wait(editor, r"human\.md.*B")
    tmux.type(editor, "Go", "Without sugar.", "Escape", ":w", "Enter")
    for pane in (first, second):
        tmux.wait(pane, "human: .*Without sugar")
    tmux.type(second, "And without milk.", "Enter")
    for pane in (first, second):
        tmux.wait(pane, "human: .*without milk")
    tmux.wait(run, r"updated human v5 .* by support-2")


def picture(lines: list[Text]) -> str:
    """The lines as SVG, in whatever monospaced font there is: an image on a page may not load any."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), color_system="truecolor")
    for line in lines:
        console.print(line, soft_wrap=True)
    svg = console.export_svg(title="blocksd", unique_id="session")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<!-- Generated with Rich.*?-->", "", svg)
    return svg.replace("Fira Code, monospace", "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace")


def main() -> None:
    words = sys.argv[1:]
    is_mcp = words[:1] == ["--mcp"]
    named = words[is_mcp:]
    target = Path(named[0]) if named else HERE / ("mcp.svg" if is_mcp else "session.svg")
    with home() as directory, tempfile.TemporaryDirectory() as sockets:
        tmux = Tmux(sockets)
        try:
            lines = record(tmux, directory, play_mcp if is_mcp else play_session)
        finally:
            tmux("kill-server")
    target.write_text(picture(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
