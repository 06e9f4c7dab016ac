"""A save is announced once, with the text in the mirror."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Daemon, RedisServer


def test_saved_text_is_in_the_mirror(folder: Path, server: RedisServer, run_daemon: Callable[..., Daemon]) -> None:
    """What a file says is what the mirror shows."""
    (folder / "notes.md").write_text("one\n")
    run_daemon()
    (folder / "notes.md").write_text("two\n")
    client = server.client()
    eventually(lambda: client.hget("blocks:block:notes", "value") == "two")
