"""Makes page-light.png and page-dark.png: the page in the browser, with blocks of a support team.

    python daemon/docs/screenshots.py [DIRECTORY]

Needs the package with its extras `embedded` and `http`, playwright, and Chromium.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

HERE = Path(__file__).resolve().parent
SAMPLE = HERE.parents[1] / "blocks.d"
DEADLINE = 30.0
MOST_BYTES = 150_000

BLOCKS = {
    "policies/refunds": """---
description: The refund policy. Binding for every agent; only people change it.
limit: 700
read_only: true
tags: [policy, money]
agents: ["support-*"]
---
# Refunds

Refunds are granted within **30 days** of purchase, in the currency that was paid in.

| Amount | Who decides |
|---|---|
| up to 100 EUR | any agent |
| up to 500 EUR | an agent, with a note in `team/decisions` |
| above | a person: hand the conversation over |

- Ask for the order's number first.
- Never promise a date on which the bank shows the money.
- [x] Shipping costs are part of the refund

> "Was it our mistake?" If so, refund at once and say sorry.
""",
    "policies/shipping": "---\ntags: [policy]\nagents: ['support-*']\nlimit: 200\n---\n"
    + "Parcels leave our house within a day. " * 5,
    "team/decisions": "---\nagents: ['support-*']\ntags: [scratchpad]\nlimit: 400\n---\n- Order 4711: refunded, 240 EUR.\n",
    "team/on call": "---\nagents: ['*']\n---\nThis week: Kim.\n",
    "products/lamp": "---\ntags: [catalogue]\nagents: [support-1]\n---\nThe lamp has a bulb of 9 W, which can be exchanged.\n",
    "products/desk": "---\ntags: [catalogue]\nagents: [support-1]\n---\nThe desk is 120 cm wide.\n",
    "agents/support-1/notes": "Kim likes short answers.\n",
}
LATER = (
    ("team/decisions", "- Order 4711: refunded, 240 EUR.\n- Order 4720: a new lamp was sent.\n"),
    (
        "team/decisions",
        "- Order 4711: refunded, 240 EUR, with a note to the customer.\n- Order 4720: a new lamp was sent.\n",
    ),
)
"""What is written when the blocks are there, one after the other."""


def main(directory: Path) -> None:
    with served() as (base, folder), sync_playwright() as playwright:
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        for number, (label, value) in enumerate(LATER, 2):
            head = BLOCKS[label].rpartition("---\n")[0]
            (folder / f"{label}.md").write_text(f"{head}---\n{value}", encoding="utf-8")
            until(lambda at=f"{base}/api/version/{label}?version={number}": is_there(at))
        page = shown(browser, f"{base}/#/blocks/policies/refunds", "light")
        page.locator(".markdown table").wait_for()
        picture(page, directory / "page-light.png")
        page = shown(browser, f"{base}/#/blocks/team/decisions?part=versions", "dark")
        page.locator(".diff ins").first.wait_for()
        picture(page, directory / "page-dark.png")
        browser.close()


def shown(browser: Browser, place: str, scheme: Literal["light", "dark"]) -> Page:
    """Open a place of the page."""
    context = browser.new_context(viewport={"width": 1240, "height": 760}, color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    page.goto(place)
    page.get_by_role("treeitem", name="lamp").wait_for()
    page.get_by_text("Live").wait_for()
    return page


def picture(page: Page, path: Path) -> None:
    page.screenshot(path=path)
    assert path.stat().st_size < MOST_BYTES, f"{path} is too large to be loaded with a README"


@contextmanager
def served() -> Iterator[tuple[str, Path]]:
    """Run a daemon with a gateway over these blocks and the sample's, and a server that it starts itself."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory, "blocks.d")
        shutil.copytree(SAMPLE, folder)
        for label, text in BLOCKS.items():
            path = folder / f"{label}.md"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        words = [sys.executable, "-m", "blocksd", "run", str(folder), "--state-dir", f"{directory}/state"]
        daemon = subprocess.Popen([*words, "--http", str(port)], env={**os.environ, "BLOCKSD_CONFIG": os.devnull})
        try:
            base = f"http://127.0.0.1:{port}"
            until(lambda: is_there(f"{base}/api/blocks/products/lamp"))
            yield base, folder
        finally:
            daemon.terminate()
            daemon.wait(30)


def is_there(place: str) -> bool:
    try:
        with urllib.request.urlopen(place, timeout=5) as answer:  # noqa: S310  # a place of ours
            return answer.status == 200  # type: ignore[no-any-return]
    except OSError:
        return False


def until(condition: object) -> None:
    """Wait until this is true."""
    assert callable(condition)
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
