"""Commands in a locale that knows ASCII only: texts and names are UTF-8 all the same, and what is not is refused in words."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support import Daemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support import RedisServer

pytestmark = pytest.mark.slow

LOCALES = {
    "C": {"LC_ALL": "C"},
    "C, and Python is not to help": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ASCII": {"PYTHONIOENCODING": "ascii"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "bl\u00f6cke"
    path.mkdir()
    return path


@pytest.fixture
def daemon(folder: Path, tmp_path: Path, server: RedisServer) -> Iterator[Daemon]:
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    running = Daemon(folder, tmp_path / "zust\u00e4nde", "--redis", server.url, env=env)
    yield running.start()
    running.kill()


def command(env: dict[str, str], *words: str | bytes, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    result = subprocess.run(
        [sys.executable, "-m", "blocksd", *words],
        input=given,
        capture_output=True,
        check=False,
        timeout=30,
        env={**os.environ, "BLOCKSD_CONFIG": os.devnull, **env},
    )
    assert b"Traceback" not in result.stderr + result.stdout, result
    return result


@pytest.mark.parametrize("env", LOCALES.values(), ids=LOCALES)
def test_what_is_not_ascii_comes_and_goes(daemon: Daemon, folder: Path, env: dict[str, str]) -> None:
    """Labels, texts, what is piped in and what is printed; the daemon itself runs in such a locale, too."""
    state = ("--state-dir", os.fsencode(daemon.state))
    label = "notizen-\u00e4\u00f6"
    assert command(env, "new", label.encode(), "gr\u00fc\u00dfe \u732b".encode(), *state).returncode == 0
    assert (folder / f"{label}.md").read_text(encoding="utf-8").endswith("gr\u00fc\u00dfe \u732b\n")
    result = command(env, "set", label.encode(), *state, given="\u00e9t\u00e9".encode())
    assert result.returncode == 0, result
    shown = command(env, "show", label.encode(), *state)
    assert "\u00e9t\u00e9" in shown.stdout.decode("utf-8")
    assert label in command(env, "ls", *state).stdout.decode("utf-8")
    assert command(env, "check", os.fsencode(folder)).returncode == 0


def test_what_is_not_utf8_is_refused_in_words(daemon: Daemon) -> None:
    """In a label, a text, a path, or what is piped in: one sentence, and no traceback."""
    env = LOCALES["C, and Python is not to help"]
    state = ("--state-dir", os.fsencode(daemon.state))
    for words, given in (
        (("show", b"\xff"), b""),
        (("new", b"notes", b"\xff"), b""),
        (("append", b"notes", b"caf\xe9"), b""),
        (("set", b"notes"), b"caf\xe9"),
        (("check", b"\xff"), b""),
        (("new", b"notes", b"x", "--tag", b"\xff"), b""),
        (("show", b"notes", "--namespace", b"\xff"), b""),
    ):
        result = command(env, *words, *state, given=given)
        assert result.returncode in (1, 2), (words, result)
        assert result.stderr.strip()
