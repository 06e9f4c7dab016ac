"""Makes the blocking client of the asyncio one: `python tests/generate_client.py`. With `--check`, only compares.

Each hand-written module `X_async` gives a module `blocking/X` beside it, by the replacements below and ruff. `# asyncio only` at the end of a
line drops it there.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "daemon" / "blocksd"
HEADER = "# Made of {name} by tests/generate_client.py: edit that, and run this.\n"

REPLACEMENTS = [
    (r"^.*# asyncio only.*\n", ""),
    (r"\basync (?=def|with|for)", ""),
    (r"\bawait ", ""),
    (r"\bAwaitable\[object\] \| object\b", "object"),
    (r"\bAwaitable, ", ""),
    (r"\b(Beta)?Async(?=[A-Z])", r"\1"),
    (r"\baconnect\b", "connect"),
    (r"\bblocksd\.(client|anthropic)\.(\w+)_async\b", r"blocksd.\1.blocking.\2"),
    (r"\b(\w+)_async\b", r"\1"),
    (r"from asyncio import sleep", "from time import sleep"),
    (r"asynchronous=True", "asynchronous=False"),
    (r"__a(enter|exit)__", r"__\1__"),
    (r"\baclose\b", "close"),
    (r"\basyncio code", "blocking code"),
    (r"Several tasks", "Several threads"),
]


def words(text: str) -> str:
    """The text of an asyncio module or docstring as that of its blocking twin."""
    for pattern, replacement in REPLACEMENTS:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def sources() -> list[Path]:
    """The hand-written modules."""
    return sorted(PACKAGE.rglob("*_async.py"))


def target_of(source: Path) -> Path:
    """The module that is made of `source`."""
    return source.parent / "blocking" / source.name.replace("_async.py", ".py")


def generated(source: Path) -> str:
    """The blocking twin of a module, as it must be in the repository."""
    text = HEADER.format(name=source.name) + words(source.read_text(encoding="utf-8"))
    name = ("--stdin-filename", str(target_of(source)), "-")
    for command in (("check", "--quiet", "--select", "I", "--fix-only"), ("format", "--quiet")):
        text = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *name], input=text, capture_output=True, text=True, check=True
        ).stdout
    return text


def main() -> int:
    """The exit code: 1 when `--check` finds a module that is not as it must be."""
    stale = False
    for source in sources():
        target, text = target_of(source), generated(source)
        if target.exists() and target.read_text(encoding="utf-8") == text:
            continue
        stale = True
        print(f"{'stale' if '--check' in sys.argv else 'made'}: {target.name}")
        if "--check" not in sys.argv:
            target.write_text(text, encoding="utf-8")
    return int(stale and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
