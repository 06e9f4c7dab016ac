"""A real Chromium for tests of the page, and what axe-core says of what it shows."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from support import DEADLINE, do_without, require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--renderer-process-limit=1",  # a window has no process of its own, which would have to start first
)
AXE = "axe-core@4"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's browser, without a window. Playwright gives it a directory that goes with it."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        do_without("playwright is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require("chromium"), args=list(ARGUMENTS))
        yield browser
        browser.close()


def axe_core(directory: Path) -> str:
    """The program of axe-core, installed with npm in this directory."""
    (directory / "package.json").write_text("{}")
    words = [require("npm"), "install", "--silent", "--no-audit", "--no-fund", AXE]
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode:
        do_without(f"{AXE} could not be installed: {(done.stderr or done.stdout)[-300:]}")
    return (directory / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def violations(page: Page, axe: str, *rules: str) -> list[str]:
    """What axe-core finds wrong in what the page shows, by these rules or by all."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(axe)  # by the debugger, which no policy of the page stops
    found: list[dict[str, Any]] = page.evaluate(
        "(options) => axe.run(document, options).then((result) => result.violations)",
        {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})},
    )
    return [f"{one['id']}: {json.dumps([node['html'][:200] for node in one['nodes'][:3]])}" for one in found]


class Watched:
    """A page, and all that went wrong in it: errors, messages on the console, requests to elsewhere."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base
        self.wrong: list[str] = []
        page.set_default_timeout(DEADLINE * 1000)
        page.on("pageerror", lambda error: self.wrong.append(f"{error}"))
        page.on("console", lambda said: self._said(said.type, said.text))
        page.on("request", lambda request: self._asked(request.url))

    def _said(self, kind: str, text: str) -> None:
        # The browser says this of every answer that is an error, and of a server that is being started again.
        if kind in ("error", "warning") and "Failed to load resource" not in text and "net::ERR_" not in text:
            self.wrong.append(text)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.base, "data:", "blob:")):
            self.wrong.append(f"asked for {url}")

    def go(self, place: str) -> Page:
        """Show a view by its address."""
        self.page.goto(f"{self.base}/{place}")
        return self.page
