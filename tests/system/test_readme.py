"""What the README shows works as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import Daemon

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"<!-- example -->\n```python\n(.*?)```", README, re.DOTALL)


def test_there_are_examples() -> None:
    """The ones marked are found, so that they can be run."""
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_python_example_runs(number: int, tmp_path: Path, folder: Path, run_daemon: Callable[..., Daemon]) -> None:
    """With the sample blocks, while somebody edits the blocks it follows, it comes to its end."""
    shutil.copytree(ROOT / "blocks.d", folder, dirs_exist_ok=True)
    run_daemon(state="state")
    environment = {**os.environ, "BLOCKSD_STATE_DIR": str(tmp_path / "state"), "BLOCKSD_CONFIG": os.devnull}
    process = subprocess.Popen(
        [sys.executable, "-c", EXAMPLES[number]],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    result = folder / "research" / "result.md"
    result.parent.mkdir()
    edits = 0

    def is_done() -> bool:
        nonlocal edits
        edits += 1
        (folder / "persona.md").write_text(f"I am edit {edits}.\n")
        result.write_text(f"found {edits}\n")
        return process.poll() is not None

    eventually(is_done, "the example ends")
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 0, output
