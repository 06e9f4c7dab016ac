"""The code blocks of a Markdown file, with what stands before each, and the sample folder that they speak of."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]

BY_HAND = (
    "README.md",
    "CONTRIBUTING.md",
    "daemon/docs/agents.md",
    "daemon/docs/architecture.md",
    "daemon/docs/benchmarks.md",
    "daemon/docs/cli.md",
    "daemon/docs/followers.md",
    "daemon/docs/http.md",
    "daemon/docs/letta.md",
    "daemon/docs/mcp.md",
    "daemon/docs/operations.md",
    "daemon/docs/python.md",
    "daemon/docs/redis.md",
    "daemon/docs/scale.md",
    "daemon/docs/settings.md",
)
"""Documents that a test follows from top to bottom, with a daemon running. (tests/system/test_systemd.py follows
systemd/README.md on a separate machine.)"""

BY_PARSER = ("daemon/docs/block-file.md",)
"""Documents whose examples are given to the parser."""

_FENCE = re.compile(r"(?P<indent> *)```(?P<language>.*)")
_COMMENT = re.compile(r"<!-- (?P<words>.+) -->")


@dataclass(frozen=True, slots=True)
class Fenced:
    """One code block.

    `line` is that of its first fence, from 1. `before` is the text between the last block and this one, `mark` what the
    last line before it says if that is a comment.
    """

    document: str
    line: int
    language: str
    text: str
    before: str
    mark: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line} ({self.language})"


class _Open(NamedTuple):
    line: int
    indent: str
    language: str


def fenced(document: str) -> list[Fenced]:
    """All code blocks of a document of this repository, in order."""
    found: list[Fenced] = []
    before: list[str] = []
    inside: list[str] = []
    opened: _Open | None = None
    for number, line in enumerate((ROOT / document).read_text(encoding="utf-8").split("\n"), 1):
        fence = _FENCE.fullmatch(line)
        if opened is None:
            if fence is not None:
                opened = _Open(number, fence["indent"], fence["language"])
            else:
                before.append(line)
        elif fence is not None and not fence["language"]:
            text = "".join(f"{one.removeprefix(opened.indent)}\n" for one in inside)
            comment = _COMMENT.fullmatch(before[-1].strip()) if before else None
            mark = comment["words"] if comment is not None else ""
            found.append(Fenced(document, opened.line, opened.language, text, "\n".join(before), mark))
            before, inside, opened = [], [], None
        else:
            inside.append(line)
    assert opened is None, f"{document}: the block in line {opened and opened.line} is never closed"
    return found


def copy_sample(directory: Path) -> Path:
    """Copy the sample folder as Git has it: who has tried blocksd in this clone has edited it. Return the copy."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD", "blocks.d"], capture_output=True, check=False)
    if archive.returncode:  # no repository, but what was made of one
        shutil.copytree(ROOT / "blocks.d", directory / "blocks.d")
    else:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(directory, filter="data")
    return directory / "blocks.d"
