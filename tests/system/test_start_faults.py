"""Any system call on the state directory fails while a daemon starts or ends: it is one error in words, or no matter."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.cli.console import exit_code
from blocksd.embedded import server as embedded
from blocksd.embedded.binary import Binary
from blocksd.errors import BlocksdError
from blocksd.service.service import Service
from blocksd.settings.config import Config
from support import valkey_binary

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

CALLS = ("makedirs", "mkdir", "open", "replace", "chmod", "unlink", "fsync", "rename", "stat")


class Failing:
    """One of the module's calls, which fails the n-th time that it is made on anything in a directory."""

    def __init__(self, patch: pytest.MonkeyPatch, name: str, number: int, error: int, state: str) -> None:
        self.calls = 0
        real = getattr(os, name)

        def call(path: Any, *args: Any, **options: Any) -> Any:
            if isinstance(path, int) or os.fspath(path).startswith(state):
                self.calls += 1
                if self.calls == number:
                    raise OSError(error, os.strerror(error), path if isinstance(path, str) else None)
            return real(path, *args, **options)

        patch.setattr(os, name, call)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", CALLS)
def test_call_fails_at_a_start(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: int
) -> None:
    """With a server of its own: the state directory, its lock, the journal, the password, the record, each in turn."""
    monkeypatch.setattr(embedded, "find_binary", lambda: Binary(valkey_binary(), "Valkey 9.1"))
    (folder / "notes.md").write_text("one\n")
    codes: list[int] = []
    for number in range(1, 40):
        state = tmp_path / f"state-{number}"
        with monkeypatch.context() as patch:
            failing = Failing(patch, name, number, error, str(state))
            try:
                service = Service(Config(folder=str(folder), state_dir=str(state)), [])
            except BlocksdError as refusal:
                codes.append(exit_code(refusal))
            else:
                service.close()
            if failing.calls < number:
                break
    else:
        pytest.fail("there is no end of calls")
    assert set(codes) <= {1, 2, 3}


@pytest.mark.parametrize("name", ["open", "fstat"])
@pytest.mark.parametrize(
    "error", [errno.EIO, errno.ESTALE, errno.ENOMEM, errno.ENOENT, errno.EACCES], ids=errno.errorcode.get
)
def test_folder_cannot_be_opened_at_a_start(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: int
) -> None:
    """What may pass is worth another try: a service that ends with 2 is not started again."""
    real = getattr(os, name)

    def call(what: Any, *args: Any, **options: Any) -> Any:
        if str(folder) == (os.readlink(f"/proc/self/fd/{what}") if name == "fstat" else what):
            raise OSError(error, os.strerror(error))
        return real(what, *args, **options)

    monkeypatch.setattr(os, name, call)
    with pytest.raises(BlocksdError, match=f"{folder}.*{os.strerror(error)}") as refusal:
        Service(Config(folder=str(folder), state_dir=str(tmp_path / "state")), [])
    assert exit_code(refusal.value) == (2 if error in (errno.ENOENT, errno.EACCES) else 3)


@pytest.mark.parametrize("pages", [1, 5, 20])
def test_full_disk_at_a_start(folder: Path, tmp_path: Path, pages: int) -> None:
    """A real one, with so many pages left: worth another try, by its exit status; with room again the daemon starts."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    command = f"{sys.executable} -m blocksd run {folder} --state-dir {tmp_path}/small/state --redis unix:///nowhere"
    script = f"""
        mount -t tmpfs -o size=1M tmpfs {tmp_path}/small || exit 77
        head -c {(256 - pages) * 4096} /dev/zero > {tmp_path}/small/fill
        timeout 20 {command}
        echo "status $?"
        rm {tmp_path}/small/fill
        timeout 20 {command} > {tmp_path}/log 2>&1 &
        for _ in $(seq 200); do grep -q ready: {tmp_path}/log && break; sleep 0.1; done
        kill $!
        wait
    """
    (tmp_path / "small").mkdir()
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "BLOCKSD_CONFIG": os.devnull},
    )
    if result.returncode == 77 or "unshare" in result.stderr:
        pytest.skip(f"nothing can be mounted here: {result.stderr}")
    assert "status 3" in result.stdout, result
    assert "Traceback" not in result.stderr
    assert "blocksd: the journal cannot be opened: " in result.stderr
    assert "ready:" in (tmp_path / "log").read_text()
