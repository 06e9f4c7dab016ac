"""Feeds the targets with inputs that atheris makes, guided by which lines they reach: run by hand, not in CI.

    pip install atheris
    python tests/fuzz/run.py request -runs=250000 -max_len=4096

What follows the name of the target is for libFuzzer. Inputs that reach new lines are kept in a directory beside the
corpus, and the one that breaks a target in the working directory: put it into `tests/fuzz/corpus/<target>`, where CI
tries it from then on.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

try:
    import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]  # it has no types, and need not be here
except ImportError:
    sys.exit("atheris is not installed: pip install atheris (Linux, CPython up to 3.13)")

with atheris.instrument_imports(include=["blocksd", "fuzz"]):
    from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"usage: run.py {'|'.join(TARGETS)} [options of libFuzzer]")
    found = Path(tempfile.gettempdir()) / f"blocksd-fuzz-corpus-{name}"
    found.mkdir(exist_ok=True)
    words = Path(__file__).parent / "words.txt"
    given = [sys.argv[0], *sys.argv[2:], f"-dict={words}", str(found), str(CORPUS / name)]
    atheris.Setup(given, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
