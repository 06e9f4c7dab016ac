"""The wheel has what it needs, and nothing else: built, installed where there is nothing but it, and used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import eventually, require

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "daemon" / "blocksd"

# What it needs may have to be fetched.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def run(*words: str | Path, **options: Any) -> str:
    """What a program prints; it must end with 0."""
    result = subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=300, stdin=subprocess.DEVNULL, **options
    )
    assert result.returncode == 0, result
    return str(result.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", directory, ROOT)
    (built,) = directory.iterdir()
    return built


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, what it depends on, and a server; and a place to use it from."""

    environment: Path
    place: Path

    @property
    def python(self) -> Path:
        return self.environment / "bin" / "python"

    def variables(self) -> dict[str, str]:
        """Those of a user who has nothing else on PATH, and no configuration."""
        return {"HOME": str(self.place), "PATH": str(self.environment / "bin"), "LANG": "C.UTF-8"}

    def __call__(self, *words: str) -> str:
        """What a command of it prints."""
        return run(self.environment / "bin" / "blocksd", *words, cwd=self.place, env=self.variables())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    home = tmp_path_factory.mktemp("installed")
    made = Installed(home / "environment", home / "place")
    (made.place / "blocks.d").mkdir(parents=True)
    (made.place / "blocks.d" / "notes.md").write_text("one\n")
    run(sys.executable, "-m", "venv", made.environment)
    run(made.python, "-m", "pip", "install", "--quiet", "--no-warn-script-location", f"{wheel}[embedded]")
    return made


def test_contents(wheel: Path) -> None:
    """All of the package, its scripts for Redis and its mark of being typed; the licence and the man page; no tests."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {
        f"blocksd/{path.relative_to(PACKAGE)}"
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {name for name in names if name.startswith("blocksd/")} == package
    assert {
        "blocksd/http/page/index.html",
        "blocksd/mirror/apply.lua",
        "blocksd/mirror/lease.lua",
        "blocksd/py.typed",
        "blocksd/cli/main.py",
    } <= package
    about = {name.partition("/")[2] for name in names - package}
    assert about == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
        "data/share/man/man1/blocksd.1",
    }


def test_metadata(wheel: Path) -> None:
    """What a registry shows: the README, the licence, and the Python it needs."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        text = archive.read(name).decode()
    about, _, readme = text.partition("\n\n")
    for line in ("Name: blocksd", "License-Expression: MIT", "Requires-Python: >=3.11", "Provides-Extra: embedded"):
        assert f"\n{line}\n" in about
    assert readme.strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()


def test_it_is_the_installed_one(installed: Installed) -> None:
    """Nothing of the source tree is used."""
    code = "import blocksd, blocksd.cli; print(blocksd.__file__)"
    where = Path(run(installed.python, "-I", "-c", code, cwd=installed.place).strip())
    assert where.is_relative_to(installed.environment)
    assert run(installed.python, "-m", "pip", "check", cwd=installed.place).startswith("No broken")
    page = installed.environment / "share" / "man" / "man1" / "blocksd.1"
    assert page.read_bytes() == (ROOT / "daemon" / "man" / "blocksd.1").read_bytes()


def test_commands_that_need_no_daemon(installed: Installed) -> None:
    """They work as they are."""
    assert installed("--version").startswith("blocksd 0.")
    assert installed("check", "blocks.d") == "1 block in order, 0 problems, 0 warnings\n"
    assert "_blocksd_completion" in installed("completion", "zsh")
    words = (installed.environment / "bin" / "blocksd", "doctor", "blocks.d", "--json")
    done = subprocess.run(
        words, cwd=installed.place, env=installed.variables(), capture_output=True, text=True, check=False
    )
    # Its exit code may tell of a warning of the disk that the tests are on.
    findings = {found["check"]: found for found in json.loads(done.stdout)}
    assert findings["folder.access"]["state"] == "ok"
    assert str(installed.environment) in findings["redis.server"]["message"]


def test_daemon_with_the_server_of_the_extra(installed: Installed) -> None:
    """It serves a folder with the one server there is, shows what is saved, and ends in order."""
    log = installed.place / "log"
    program = installed.environment / "bin" / "blocksd"
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            [program, "run", "blocks.d"],
            cwd=installed.place,
            env=installed.variables(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        eventually(lambda: "ready: 1 block" in log.read_text() or daemon.poll() is not None, "it is ready")
        assert "embedded Valkey" in log.read_text()
        (installed.place / "blocks.d" / "notes.md").write_text("two\n")
        eventually(lambda: installed("show", "notes") == "two\n", "what was saved is shown")
        installed("append", "notes", "three")
        assert (installed.place / "blocks.d" / "notes.md").read_text() == "two\nthree\n"
        code = "import blocksd; print(blocksd.connect().blocks.retrieve('notes').version)"
        assert run(installed.python, "-I", "-c", code, cwd=installed.place, env=installed.variables()) == "3\n"
    finally:
        daemon.terminate()
        daemon.wait(20)
    assert daemon.returncode == 0, log.read_text()


def test_types_of_the_installed_package(installed: Installed) -> None:
    """A type checker knows what a client gives, and tells when it is taken for something else."""
    mypy = require(str(Path(sys.executable).with_name("mypy")))
    program = installed.place / "program.py"
    options = ("--strict", "--python-executable", str(installed.python), "--cache-dir", str(installed.place / "cache"))
    environment = {name: value for name, value in os.environ.items() if name != "MYPYPATH"}
    lines = "import blocksd\n\nversion: {} = blocksd.connect().blocks.retrieve('notes').version\n"
    program.write_text(lines.format("int"))
    assert "Success" in run(mypy, *options, program, cwd=installed.place, env=environment)
    program.write_text(lines.format("str"))
    wrong = subprocess.run(
        [mypy, *options, program], capture_output=True, text=True, check=False, cwd=installed.place, env=environment
    )
    assert 'expression has type "int", variable has type "str"' in wrong.stdout
