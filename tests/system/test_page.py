"""The page, in a real Chromium over a real gateway and daemon: each of its flows."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

import blocksd
from browsers import Watched, axe_core, chromium, violations
from gateways import FILE, TOKENS, Served
from support import Daemon, RedisServer, eventually, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page, Route

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

REFUNDS = """---
description: Binding for every agent.
tags: [policy, money]
agents: [ann, bob]
limit: 400
---
# Refunds

Within **30 days**, as `policy` says:

- in full
- [more](https://example.org/more)

| item | days |
|---|---|
| shoes | 30 |
"""


class World:
    """A server, a daemon, a gateway, and pages that show it."""

    def __init__(self, directory: Path, browser: Browser, more: dict[str, str] | None = None) -> None:
        """`more` are further blocks that are there at the start: texts by label."""
        self.directory = directory
        self.browser = browser
        self.folder = directory / "blocks.d"
        self.folder.mkdir()
        self.server = RedisServer(valkey_binary())
        self.server.start()
        self.daemon = Daemon(self.folder, directory / "state", "--redis", self.server.url, "--delete-grace", "0.05")
        self.watched: list[Watched] = []
        self.gateways: list[Served] = []
        self.save("human", "Name: Bob.\nLikes: short answers.\n")
        self.save("policies/refunds", REFUNDS)
        self.save("agents/ann/diary", "Today.\n")
        for label, text in (more or {}).items():
            self.save(label, text)
        self.daemon.start()
        self.served = Served(directory / "serve.log", "--redis", self.server.url).ready()
        self.port = self.served.port

    def save(self, label: str, text: str) -> None:
        path = self.folder / f"{label}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def text(self, label: str) -> str:
        return (self.folder / f"{label}.md").read_text(encoding="utf-8")

    def serve_again(self) -> None:
        """Start the gateway again, at the same place."""
        listen = ("--listen", str(self.port))
        self.served = Served(self.directory / "serve.log", "--redis", self.server.url, *listen).ready()

    def serve(self, name: str, *options: str, **environ: str) -> int:
        """Run another gateway until the end of the test; its port."""
        self.gateways.append(
            Served(self.directory / f"{name}.log", "--redis", self.server.url, *options, **environ).ready()
        )
        return self.gateways[-1].port

    def open(self, place: str = "", *, port: int | None = None, **how: Any) -> Page:
        """Show a place, of another gateway if its `port` is given, in a window that shares nothing with others."""
        size = how.pop("size", (1200, 800))
        context = self.browser.new_context(viewport={"width": size[0], "height": size[1]}, **how)
        return self.watch(context.new_page(), port).go(place)

    def watch(self, page: Page, port: int | None = None) -> Watched:
        self.watched.append(Watched(page, f"http://127.0.0.1:{port or self.port}"))
        return self.watched[-1]

    def check(self) -> None:
        """Nothing went wrong in any page."""
        wrong = [line for one in self.watched for line in one.wrong]
        for one in self.watched:
            with contextlib.suppress(Exception):
                one.page.context.close()
        self.watched.clear()
        while self.gateways:
            self.gateways.pop().end()
        assert wrong == []

    def end(self) -> None:
        self.served.end()
        self.daemon.stop()
        self.server.remove()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def running(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("page"), browser)
    yield world
    world.end()


@pytest.fixture
def world(running: World) -> Iterator[World]:
    """The world that the tests of this file share; each uses other blocks."""
    yield running
    running.check()


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    return axe_core(tmp_path_factory.mktemp("axe"))


def shows(page: Page, text: str, within: str = "body") -> None:
    page.locator(within).get_by_text(text).first.wait_for()


def press(page: Page, name: str, role: Any = "button", **how: Any) -> None:
    page.get_by_role(role, name=name, **how).first.click()


# --- blocks ---


def test_blocks_are_listed_and_found(world: World) -> None:
    """A tree with tags, the number of agents and a gauge; a search opens the folders of what it finds."""
    page = world.open()
    tree = page.get_by_role("tree")
    row = tree.get_by_role("treeitem", name=re.compile("refunds.*2 agents"))
    row.wait_for()
    assert row.get_by_text("policy").is_visible()
    assert row.get_by_role("img").get_attribute("aria-label") == "136 of 400 characters"
    page.keyboard.press("/")
    page.keyboard.type("tag:money ref")
    shows(page, "1 of", ".found")
    assert tree.get_by_role("treeitem").count() == 2
    page.keyboard.press("ArrowDown")  # from the search into the tree
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="policies/refunds").wait_for()
    assert page.title().startswith("policies/refunds")
    page.get_by_role("searchbox").fill("short answers")
    shows(page, "No block fits")
    page.get_by_label("Search in texts, too").check()
    tree.get_by_role("treeitem", name="human").wait_for()


def test_block_is_rendered_and_raw(world: World) -> None:
    """Markdown becomes elements; the raw text is beside it; links open elsewhere and tell nothing of where they were."""
    page = world.open("#/blocks/policies/refunds")
    text = page.locator(".markdown")
    text.get_by_role("heading", name="Refunds").wait_for()
    assert text.locator("strong").inner_text() == "30 days"
    assert text.locator("table td").all_inner_texts() == ["shoes", "30"]
    link = text.get_by_role("link", name="more")
    assert (link.get_attribute("href"), link.get_attribute("rel")) == (
        "https://example.org/more",
        "noopener noreferrer nofollow",
    )
    press(page, "Raw")
    shows(page, "**30 days**", "pre")


EVIL = """<script>window.evil = 1</script><img src=x onerror="window.evil = 1">
[a](javascript:window.evil=1) [b](JaVaScRiPt:window.evil=1) [c](data:text/html,x) ![d](http://127.0.0.1:1/x.png)
<a href="javascript:window.evil=1">e</a> [<img src=x onerror=alert(1)>](https://example.org/)
"""


def test_texts_are_never_markup(world: World) -> None:
    """HTML stays text, no address but http and mailto becomes a link, and no picture is loaded."""
    world.save("evil", EVIL + "> " * 500 + "deep\n" + "*_[`~" * 3000 + "\n")
    page = world.open("#/blocks/evil")
    text = page.locator(".markdown")
    text.wait_for()
    assert "<script>window.evil = 1</script>" in text.inner_text()
    found = text.get_by_role("link").evaluate_all("links => links.map(link => link.href)")
    assert found == ["http://127.0.0.1:1/x.png", "https://example.org/"]
    assert text.locator("img, script").count() == 0
    assert page.evaluate("window.evil") is None
    page.goto(f"{page.url.split('#')[0]}#/blocks/evil?part=versions")
    shows(page, "window.evil", ".diff")
    assert page.evaluate("window.evil") is None


MARKUP = "<img src=x onerror='window.evil = 1'>"


def test_no_field_is_markup(world: World) -> None:
    """Not a label, a field, a property of an agent, an author, a problem or the version's diff."""
    label = "evil/&lt;img src=x&gt; 'onerror=1' `${1}` #a%3Fb%2Fc"
    fields = f"description: {json.dumps(MARKUP)}\ntags: [{json.dumps(MARKUP)}]\nagents: [eve]\nmetadata: {{x: {json.dumps(MARKUP)}}}"
    world.save(label, f"---\n{fields}\n---\n{MARKUP}\n")
    world.save("evil/bad", f"---\nlimit: {json.dumps(MARKUP)}\n---\n{MARKUP}\n")
    properties = f"name: {json.dumps(MARKUP)}\ndescription: {json.dumps(MARKUP)}\ntags: [{json.dumps(MARKUP)}]\nagent_type: {json.dumps(MARKUP)}"
    (world.folder / "agents/eve").mkdir()
    (world.folder / "agents/eve/agent.yaml").write_text(f"{properties}\n")
    port = world.serve("by", BLOCKSD_BY=MARKUP)
    eventually(lambda: world.daemon.values(label))
    body = json.dumps({"op": "append", "content": MARKUP}).encode()
    place = f"http://127.0.0.1:{port}/api/edit/{quote(label, safe='')}"
    urlopen(Request(place, body, {"content-type": "application/json"})).close()
    page = world.open()
    page.get_by_role("treeitem", name="&lt;img").click()
    page.get_by_role("heading", name="onerror").wait_for()
    assert page.locator("h1").last.inner_text().replace("\n", "") == label
    for part in ("", "Fields", "Agents", "Versions"):
        if part:
            page.locator(".parts").get_by_role("link", name=part).click()
        page.locator(".detail .description", has_text=MARKUP).wait_for()
    page.locator("td", has_text=f"{MARKUP} (operator)").wait_for()
    page.go_back()
    shows(page, "eve", ".detail")
    page.reload()
    page.get_by_role("link", name="eve", exact=True).click()
    for within in ("h1", ".description", ".tag", ".badge", "pre"):
        page.locator(f".detail {within}", has_text=MARKUP).first.wait_for()
    press(page, "Health", "link")
    page.locator(".problem", has_text=MARKUP).first.wait_for()
    press(page, "Changes", "link")
    world.save("evil/bad", f"---\nlimit: {json.dumps(MARKUP * 2)}\n---\n{MARKUP}\n")
    page.locator(".feed", has_text=MARKUP).first.wait_for()
    assert page.evaluate("window.evil") is None
    (world.folder / "evil/bad.md").unlink()


def test_address_of_nothing_is_answered(world: World) -> None:
    """Also one that names what each object has."""
    page = world.open("#/constructor")
    page.get_by_role("treeitem", name="human").wait_for()
    for place in ("human?part=constructor", "human?part=versions&from=x&to=-1", "%E0%A4%A", "__proto__"):
        page.goto(f"http://127.0.0.1:{world.port}/#/blocks/{place}")
        page.locator(".detail h1").wait_for()
    page.goto(f"http://127.0.0.1:{world.port}/#/blocks/human")
    press(page, "Redo")
    page.locator(".notice.error", has_text="nothing to redo").wait_for()
    page.goto(f"http://127.0.0.1:{world.port}/#/agents/ann?style=constructor")
    page.locator(".notice.error").wait_for(state="detached")  # an error goes with what it was about
    shows(page, "Today.", "pre")


def test_block_is_created_renamed_and_deleted(world: World) -> None:
    """Each is a file's; a deletion asks, and is undone; a label that is taken is refused where it was entered."""
    page = world.open("#/blocks/policies/refunds")
    press(page, "New block")
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_label("Label").input_value() == "policies/"
    dialog.get_by_label("Label").fill("policies/refunds")
    dialog.get_by_label("Text").fill("New text")
    dialog.get_by_role("button", name="Create").click()
    dialog.get_by_role("alert").filter(has_text="policies/refunds").wait_for()
    dialog.get_by_label("Label").fill("made/a new one")
    dialog.get_by_role("button", name="Create").click()
    page.get_by_role("heading", name="made/a new one").wait_for()
    assert world.text("made/a new one") == "New text\n"
    press(page, "Rename")
    dialog.get_by_label("Label").fill("made/two")
    dialog.get_by_role("button", name="Rename").click()
    page.get_by_role("heading", name="made/two").wait_for()
    page.get_by_role("treeitem", name="two").wait_for()
    assert not (world.folder / "made/a new one.md").exists()
    press(page, "Delete")
    dialog.get_by_role("button", name="Cancel").click()
    assert world.text("made/two") == "New text\n"
    press(page, "Delete")
    dialog.get_by_role("button", name="Delete").click()
    shows(page, "made/two is deleted", "#notices")
    assert not (world.folder / "made/two.md").exists()
    page.get_by_role("treeitem", name="two").wait_for(state="detached")
    press(page, "Undo")
    shows(page, "New text", ".markdown")
    assert world.text("made/two") == "New text\n"
    press(page, "Delete")
    dialog.get_by_role("button", name="Delete").click()
    shows(page, "made/two is deleted", "#notices")
    world.save("made/two", "another's\n")
    page.get_by_role("treeitem", name="two").wait_for()
    page.locator("#notices").get_by_role("button", name="Undo").last.click()
    page.locator("#notices .error").wait_for()
    assert world.text("made/two") == "another's\n"


def test_fields_are_changed(world: World) -> None:
    """Only those that were edited; a change by another is shown, and what was entered stays."""
    world.save("fields", "---\ntags: [a]\n---\ntext\n")
    page = world.open("#/blocks/fields?part=fields")
    page.get_by_label("Description").fill("About it")
    page.get_by_label("Read-only").check()
    page.get_by_role("button", name="Save fields").click()
    shows(page, "read-only", ".badges")
    assert "description: About it" in world.text("fields")
    page.get_by_label("Tags").fill("a, b")
    world.save("fields", world.text("fields").replace("About it", "By another"))
    shows(page, "By another", ".description")
    assert page.get_by_label("Tags").input_value() == "a, b"
    page.get_by_label("Metadata").fill("{")
    page.get_by_role("button", name="Save fields").click()
    page.get_by_role("alert").filter(has_text="no JSON").wait_for()
    page.get_by_label("Metadata").fill('{"x": 1}')
    page.get_by_role("button", name="Save fields").click()
    shows(page, "b", ".badges")
    eventually(lambda: "x: 1" in world.text("fields"))
    assert "By another" in world.text("fields")
    world.save("fields", '---\ntags: ["a, b", \'"c"\', d]\n---\ntext\n')
    shows(page, "a, b", ".badges")
    page.get_by_label("Tags").fill(page.get_by_label("Tags").input_value() + ", e f")
    press(page, "Save fields")
    shows(page, "e f", ".badges")
    assert page.locator(".badges .tag").all_inner_texts() == ["a, b", '"c"', "d", "e f"]


def test_entries_of_forms_are_kept(world: World) -> None:
    """Through another view, a reload and Escape; until they are saved or discarded."""
    world.save("entries", "text\n")
    page = world.open("#/blocks/entries?part=fields")
    page.get_by_label("Description").fill("Entered")
    page.get_by_label("Hidden").check()
    press(page, "Health", "link")
    page.go_back()
    page.reload()
    shows(page, "is still here", ".fields")
    assert page.get_by_label("Description").input_value() == "Entered"
    assert page.get_by_label("Hidden").is_checked()
    world.save("entries", "---\ntags: [new]\n---\ntext\n")
    shows(page, "new", ".badges")
    assert page.get_by_label("Tags").input_value() == "new"
    press(page, "Discard")
    assert page.get_by_label("Description").input_value() == ""
    page.get_by_label("Description").fill("Saved")
    press(page, "Save fields")
    shows(page, "Saved", ".description")
    page.reload()
    page.get_by_label("Description").wait_for()
    assert page.get_by_text("is still here").count() == 0
    for keep in ("Escape", "reload"):
        press(page, "New block")
        page.get_by_role("dialog").get_by_label("Text").fill(keep)
        page.keyboard.press("Escape") if keep == "Escape" else page.reload()
        press(page, "New block")
        shows(page, "is still here", "dialog")
        assert page.get_by_role("dialog").get_by_label("Text").input_value() == keep
        press(page, "Cancel")
    press(page, "New block")
    assert page.get_by_role("dialog").get_by_label("Text").input_value() == ""


# --- editing ---


def edit(page: Page) -> Any:
    press(page, "Edit", "link")
    return page.get_by_role("textbox", name="Text of")


def test_text_is_edited_and_counted(world: World) -> None:
    """By keyboard alone; characters are counted as blocksd counts them; over the limit it is refused and stays."""
    world.save("edited", "---\nlimit: 20\n---\none\n")
    page = world.open("#/blocks/edited")
    text = edit(page)
    text.fill("two 🙂")
    shows(page, "5 of 20 characters", ".counter")
    page.keyboard.press("Control+s")
    shows(page, "two 🙂", ".markdown")
    assert world.text("edited").endswith("two 🙂\n")
    edit(page).fill("x" * 25)
    shows(page, "5 too many", ".counter")
    page.keyboard.press("Control+s")
    shows(page, "Not saved", ".wrong")
    assert page.get_by_role("textbox", name="Text of").input_value() == "x" * 25
    page.get_by_role("textbox", name="Text of").press("Escape")
    shows(page, "not saved", ".block-body .note")
    press(page, "Go on editing", "link")
    assert page.get_by_role("textbox", name="Text of").input_value() == "x" * 25
    page.get_by_role("textbox", name="Text of").press("Escape")
    press(page, "Discard it")
    page.locator(".block-body .note").wait_for(state="detached")
    assert edit(page).input_value() == "two 🙂"


def test_text_is_merged_with_what_another_writes(world: World) -> None:
    """Saved over another version than it was made of, the text and the other one are both there."""
    world.save("merged", "one\ntwo\nthree\nfour\n")
    page = world.open("#/blocks/merged")
    edit(page).fill("one\ntwo\nthree\n4")
    world.save("merged", "1\ntwo\nthree\nfour\n")
    shows(page, "both texts are merged", ".notes")
    press(page, "Save", exact=True)
    shows(page, "merged with what others wrote", "#notices")
    assert world.text("merged") == "1\ntwo\nthree\n4\n"
    shows(page, "three", ".markdown")


def test_conflict_is_shown_in_three_panes(world: World) -> None:
    """Before, now in force and mine; what is decided is saved, and each of the texts is a version."""
    world.save("conflict", "Name: Bob\n")
    page = world.open("#/blocks/conflict")
    edit(page).fill("Name: Alice")
    world.save("conflict", "Name: Carol\n")
    shows(page, "both texts are merged", ".notes")
    press(page, "Save", exact=True)
    panes = page.locator(".pane")
    panes.nth(2).wait_for()
    assert [panes.nth(n).locator(".diff").inner_text().strip() for n in (0, 1)] == ["Name: Bob", "Name: Carol"]
    mine = page.get_by_role("textbox", name="Your text of conflict")
    assert mine.input_value() == "Name: Alice"
    mine.fill("Name: Alice, or Carol")
    page.reload()  # also what is decided on is kept
    text = page.get_by_role("textbox", name="Text of conflict")
    assert text.input_value() == "Name: Alice, or Carol"
    press(page, "Save", exact=True)
    mine.wait_for()
    press(page, "Save my text")
    shows(page, "Saved as version 3", "#notices")
    assert world.text("conflict") == "Name: Alice, or Carol\n"
    assert world.daemon.values("conflict") == ["Name: Bob", "Name: Carol", "Name: Alice, or Carol"]


def test_failed_save_loses_nothing(world: World) -> None:
    """Without a gateway the text stays, over a reload, too; it is saved once the gateway is there again."""
    world.save("kept", "one\n")
    page = world.open("#/blocks/kept")
    edit(page).fill("typed")
    world.served.end()
    press(page, "Save", exact=True)
    shows(page, "Not saved", ".wrong")
    shows(page, "Connecting", ".state")
    page.get_by_role("textbox", name="Text of kept").fill("typed more")
    world.serve_again()
    shows(page, "Live", ".state")
    page.reload()
    text = page.get_by_role("textbox", name="Text of kept")
    assert text.input_value() == "typed more"
    shows(page, "your text that was not saved", ".notes")
    press(page, "Save", exact=True)
    shows(page, "Saved as version 2", "#notices")
    assert world.text("kept") == "typed more\n"
    page.reload()
    shows(page, "typed more", ".markdown")


def test_draft_of_a_deleted_block_is_kept(world: World) -> None:
    """Saving brings the block back, and the text with it."""
    world.save("gone", "one\n")
    page = world.open("#/blocks/gone")
    edit(page).fill("one\ntwo")
    (world.folder / "gone.md").unlink()
    shows(page, "was deleted meanwhile", ".notes")
    press(page, "Save", exact=True)
    press(page, "Bring the block back, and save")
    eventually(lambda: (world.folder / "gone.md").exists() and world.text("gone") == "one\ntwo\n")


def test_block_that_another_brings_back_stays(world: World) -> None:
    """Who saves then decides between the two texts. What is made at the last moment is not taken for what was deleted."""
    world.save("gone twice", "one\n")
    page = world.open("#/blocks/gone%20twice")
    edit(page).fill("mine")
    (world.folder / "gone twice.md").unlink()
    shows(page, "was deleted meanwhile", ".notes")
    press(page, "Save", exact=True)
    page.get_by_role("button", name="Bring the block back, and save").wait_for()

    def make(route: Route) -> None:
        world.save("gone twice", "another's\n")
        eventually(lambda: world.daemon.values("gone twice")[-1] == "another's")
        route.continue_()

    page.route("**/api/undo/*", make)
    press(page, "Bring the block back, and save")
    shows(page, "Not saved", ".wrong")
    page.unroute("**/api/undo/*")
    assert world.text("gone twice") == "another's\n"
    press(page, "Try again")
    shows(page, "another's", ".pane")
    assert world.text("gone twice") == "another's\n"


def test_draft_of_another_tab_is_offered(world: World) -> None:
    """A tab that was closed leaves what was typed in it to the next one."""
    world.save("tabs", "one\n")
    page = world.open("#/blocks/tabs")
    edit(page).fill("typed in the first")
    second = world.watch(page.context.new_page()).go("#/blocks/tabs")
    page.close()
    shows(second, "Another tab has a text")
    press(second, "Edit that text here")
    text = second.get_by_role("textbox", name="Text of tabs")
    text.wait_for()
    assert text.input_value() == "typed in the first"
    press(second, "Save", exact=True)
    eventually(lambda: world.text("tabs") == "typed in the first\n")


def test_copy_of_a_tab_has_drafts_apart_from_it(world: World) -> None:
    """A browser gives the copy what the first one stores; each of both texts stays, whichever is taken over."""
    world.save("copied", "one\n")
    page = world.open("#/blocks/copied")
    edit(page).fill("of the first")
    with page.context.expect_page() as opened:
        page.evaluate("window.open(location.href.split('?')[0])")
    second = world.watch(opened.value).page
    shows(second, "Another tab has a text")
    edit(second).fill("of the second")
    assert page.get_by_role("textbox", name="Text of").input_value() == "of the first"
    second.get_by_role("textbox", name="Text of").press("Escape")
    press(second, "Edit that text here")
    assert second.get_by_role("textbox", name="Text of").input_value() == "of the first"
    second.get_by_role("textbox", name="Text of").press("Escape")
    shows(second, "Another tab has a text")
    page.close()
    kept = second.evaluate("Object.values(localStorage).map((one) => JSON.parse(one).text).sort()")
    assert kept == ["of the first", "of the second"]


def test_draft_follows_its_block_that_was_renamed(world: World) -> None:
    """Also while the page showed something else; the list of blocks says where texts are whose block is not there."""
    world.save("left/a", "one\n")
    page = world.open("#/blocks/left/a")
    edit(page).fill("typed")
    page.get_by_role("treeitem", name="human").click()
    page.get_by_role("heading", name="human").wait_for()
    (world.folder / "left/a.md").rename(world.folder / "left/b.md")
    page.locator(".lost-texts").get_by_role("link", name="left/a").click()
    page.get_by_role("heading", name="left/b").wait_for()
    press(page, "Go on editing", "link")
    assert page.get_by_role("textbox", name="Text of left/b").input_value() == "typed"
    press(page, "Save", exact=True)
    eventually(lambda: world.text("left/b") == "typed\n")
    page.locator(".lost-texts .note").wait_for(state="detached")
    edit(page).fill("typed again")
    world.save("left/b", "by another\n")
    shows(page, "Version 4", ".notes")
    (world.folder / "left/b.md").rename(world.folder / "left/c.md")
    page.get_by_role("heading", name="left/c").wait_for()
    press(page, "Save", exact=True)
    panes = page.locator(".pane")
    panes.nth(2).wait_for()
    assert [panes.nth(n).locator(".diff").inner_text().strip() for n in (0, 1)] == ["typed", "by another"]
    shows(page, "renamed the block", "#notices")  # and it covers no button
    assert page.evaluate("main.getBoundingClientRect().bottom <= notices.getBoundingClientRect().top")
    press(page, "Save my text")
    eventually(lambda: world.text("left/c") == "typed again\n")


# --- versions ---


def test_versions_are_compared_and_restored(world: World) -> None:
    """With author and time; any two of them; restoring and undoing are versions, too."""
    world.save("history", "one\n")
    page = world.open("#/blocks/history?part=versions")
    page.get_by_text("created").first.wait_for()
    for number, text in ((2, "two"), (3, "three")):
        world.save("history", f"{text}\n")
        page.get_by_label(f"Compare to version {number}").wait_for()
    row = page.locator("tbody tr").first
    assert row.locator("td").nth(4).inner_text() == "file"
    shows(page, "three", ".diff ins")
    page.get_by_label("Compare from version 1").check()
    shows(page, "From version 1 to 3", ".difference")
    assert page.locator(".diff del").inner_text().endswith("one")
    page.get_by_role("button", name="Text of version 2").click()
    shows(page, "two", ".difference pre")
    page.get_by_role("button", name="Restore version 1").click()
    shows(page, "Version 4 is what version 1 was", "#notices")
    assert world.text("history") == "one\n"
    shows(page, "version 4", ".facts")
    press(page, "Undo", exact=True)
    eventually(lambda: world.text("history") == "three\n")
    shows(page, "version 5", ".facts")
    press(page, "Redo", exact=True)
    eventually(lambda: world.text("history") == "one\n")
    page.get_by_role("button", name="Restore version 2").click()
    shows(page, "Version 7 is what version 2 was", "#notices")
    world.save("history", "another's\n")
    page.get_by_label("Compare to version 8").wait_for()
    shows(page, "takes back", ".versions")
    assert page.locator(".versions").evaluate("(table) => table.offsetWidth <= table.parentElement.clientWidth")
    page.locator("#notices").get_by_role("button", name="Undo").last.click()
    page.locator("#notices .error").wait_for()
    assert world.text("history") == "another's\n"


@pytest.mark.parametrize("name", ["Undo", "Redo"])
def test_undo_takes_away_nothing_of_others(world: World, name: str) -> None:
    """What another does between the look and the click stays, and is shown: a save, or something else that is undone."""
    label = f"changed/{name}"
    world.save(label, "one\n")
    page = world.open(f"#/blocks/{label}")
    for text in ("one", "two", "three"):
        world.save(label, f"{text}\n")
        shows(page, text, ".markdown")
    if name == "Redo":
        press(page, "Undo", exact=True)
        shows(page, "two", ".markdown")

    def meanwhile(route: Route) -> None:
        with blocksd.connect(world.server.url) as client:
            if name == "Redo":
                client.blocks.undo(label)
            else:
                client.blocks.update(label, value="one")
        route.continue_()

    page.route(f"**/api/{name.lower()}/**", meanwhile)
    press(page, name, exact=True)
    page.locator("#notices .error").wait_for()
    shows(page, "one", ".markdown")
    assert world.text(label) == "one\n"


# --- agents ---


def test_agent_is_created_shared_with_and_deleted(world: World) -> None:
    """Its prompt in each style, with sizes; attaching and detaching; deleting asks."""
    world.save("shared one", "Shared text.\n")
    page = world.open("#/agents")
    press(page, "New agent")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Id").fill("zoe")
    dialog.get_by_label("Name").fill("Zoe of support")
    dialog.get_by_label("Blocks to attach").fill("human")
    dialog.get_by_role("button", name="Create").click()
    page.get_by_role("heading", name="Zoe of support").wait_for()
    page.get_by_role("option", name="Zoe of support").wait_for()
    shows(page, "Likes: short answers.", "pre")
    press(page, "Line-numbered", "link")
    shows(page, "1→ Name: Bob.", "pre")
    page.get_by_label("Attach a block").fill("shared one")
    press(page, "Attach", exact=True)
    shows(page, "Shared text.", "pre")
    eventually(lambda: "zoe" in world.text("shared one"))
    row = page.locator("tbody tr").filter(has_text="shared one")
    assert int(row.locator("td").nth(2).inner_text()) > 50
    press(page, "Detach shared one")
    row.wait_for(state="detached")
    press(page, "Edit properties")
    dialog.get_by_label("Type").fill("react_agent")
    dialog.get_by_role("button", name="Save").click()
    shows(page, "react_agent", ".badges")
    press(page, "Delete", exact=True)
    dialog.get_by_role("button", name="Delete").click()
    page.get_by_role("option", name="Zoe of support").wait_for(state="detached")


def test_properties_that_another_changes_stay(world: World) -> None:
    """Only what was edited in the dialog is sent."""
    world.save("agents/pat/notes", "text\n")
    page = world.open("#/agents/pat")
    press(page, "Edit properties")
    page.get_by_role("dialog").get_by_label("Description").fill("Mine")
    (world.folder / "agents/pat/agent.yaml").write_text("name: Patricia\n")
    page.locator("h1", has_text="Patricia").wait_for()
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    shows(page, "Mine", ".description")
    page.locator("h1", has_text="Patricia").wait_for()
    assert "name: Patricia" in (world.folder / "agents/pat/agent.yaml").read_text()


def test_block_shows_its_agents(world: World) -> None:
    """They are attached and detached from there, too."""
    world.save("sharing", "---\nagents: [ann]\n---\ntext\n")
    page = world.open("#/blocks/sharing?part=agents")
    page.get_by_role("link", name="ann").wait_for()
    page.get_by_label("Attach an agent").fill("bob")
    press(page, "Attach", exact=True)
    page.get_by_role("button", name="Detach bob").wait_for()
    press(page, "Detach ann")
    page.get_by_role("button", name="Detach ann").wait_for(state="detached")
    eventually(lambda: "bob" in world.text("sharing") and "ann" not in world.text("sharing"))


# --- changes and health ---


def test_changes_are_followed_through_restarts(world: World) -> None:
    """Each is shown once, also those made while the gateway was being started again; filters choose among them."""
    page = world.open("#/changes")
    shows(page, "Live", ".state")
    world.save("feed/a", "one\n")
    feed = page.locator(".feed").first
    feed.get_by_role("link", name="feed/a", exact=True).wait_for()
    world.served.end()
    shows(page, "Connecting", ".state")
    world.save("feed/a", "two\n")
    world.save("feed/b", "one\n")
    eventually(lambda: world.daemon.values("feed/b") and len(world.daemon.values("feed/a")) == 2)
    world.serve_again()
    shows(page, "Live", ".state")
    feed.get_by_role("link", name="feed/b", exact=True).wait_for()
    shown = feed.locator("li").filter(has_text="feed/")
    assert [re.sub(r"\s+", " ", one).split(" by")[0][:20] for one in shown.all_inner_texts()] != []
    assert shown.count() == 3
    page.get_by_label("Block").fill("feed/b")
    page.wait_for_url("**block=feed*")
    world.save("feed/a", "three\n")
    world.save("feed/b", "two\n")
    feed.get_by_role("link", name="Version 2 of feed/b").wait_for()
    assert feed.locator("li").filter(has_text="feed/a").count() == 0
    page.get_by_label("Author").fill("nobody")
    feed.wait_for(state="hidden")


def test_sleep_is_noticed(world: World) -> None:
    """After it the stream, which may be dead without a sign, is begun anew where it was; nothing is shown twice."""
    page = world.watch(world.browser.new_context().new_page()).page
    page.clock.install()
    page.goto(f"http://127.0.0.1:{world.port}/#/changes")
    shows(page, "Live", ".state")
    feed = page.locator(".feed").first
    world.save("asleep", "one\n")
    feed.get_by_role("link", name="Version 1 of asleep").wait_for()
    with page.expect_request(lambda request: "last_event_id" in request.url):
        page.clock.fast_forward(120_000)
    world.save("asleep", "two\n")
    feed.get_by_role("link", name="Version 2 of asleep").wait_for()
    assert feed.locator("li").filter(has_text="asleep").count() == 2


def test_change_during_the_first_list_is_seen(world: World) -> None:
    """The list is read from when changes are announced; what changes while it is read is read again."""
    page = world.watch(world.browser.new_context().new_page()).page

    held: list[Any] = []

    def hold(route: Any) -> None:
        if held or "order_by" in route.request.url:
            route.fallback()
        else:
            held.append((route, route.fetch()))

    page.route("**/api/blocks?*", hold)
    page.goto(f"http://127.0.0.1:{world.port}/#/changes")
    shows(page, "Live", ".state")
    while not held:
        page.wait_for_timeout(10)  # until the browser has asked for the list
    world.save("during", "one\n")
    page.get_by_role("link", name="Version 1 of during").wait_for()
    page.wait_for_timeout(200)  # longer than the page waits before it reads what changed
    route, answer = held[0]
    route.fulfill(response=answer)
    press(page, "Blocks", "link", exact=True)
    page.get_by_role("treeitem", name="during").wait_for()


def test_stream_that_cannot_begin_is_tried_again(world: World) -> None:
    """A browser gives up on it; the page does not, and reads anew what it shows."""
    page = world.watch(world.browser.new_context().new_page()).page
    page.route("**/api/changes*", lambda route: route.fulfill(status=503, body="{}"))
    world.save("refused", "one\n")
    page.goto(f"http://127.0.0.1:{world.port}/#/blocks/refused")
    shows(page, "one", ".markdown")
    shows(page, "Connecting", ".state")
    world.save("refused", "two\n")
    eventually(lambda: len(world.daemon.values("refused")) == 2)
    page.unroute("**/api/changes*")
    shows(page, "Live", ".state")
    shows(page, "two", ".markdown")


def test_list_that_could_not_be_read_is_read_again(world: World) -> None:
    """A block that changed, too; what is shown of it becomes current without another change."""
    world.save("later/read", "one\n")
    page = world.open("#/blocks/later/read")
    page.clock.install()
    page.reload()
    shows(page, "one", ".markdown")
    page.get_by_role("treeitem", name=re.compile("^read 3 of")).wait_for()
    asked: list[str] = []

    def fail(route: Any) -> None:
        asked.append(route.request.url)
        route.fulfill(status=503, body='{"detail": "Redis does not serve"}')

    page.route("**/api/blocks/later*", fail)
    world.save("later/read", "---\ntags: [second]\n---\ntwo\n")
    shows(page, "Redis does not serve", "#notices")
    while len(asked) < 2:  # by the list and by the block
        page.wait_for_timeout(10)
    page.unroute("**/api/blocks/later*")
    page.clock.fast_forward(2500)
    shows(page, "two", ".markdown")
    page.clock.fast_forward(100)
    page.get_by_role("treeitem", name=re.compile("second")).wait_for()
    asked.clear()
    page.route("**/api/blocks?*", fail)
    world.server.client().flushall()  # the daemon makes the mirror anew, and the stream says that all is to be read again
    while not asked:
        page.wait_for_timeout(10)
    with page.expect_request("**/api/blocks?*"):
        page.clock.fast_forward(2500)


def test_daemon_is_restarted_under_the_page(world: World) -> None:
    """What it does after its restart appears without a reload."""
    world.save("restart", "one\n")
    page = world.open("#/blocks/restart")
    shows(page, "one", ".markdown")
    world.daemon.kill()
    world.save("restart", "two\n")
    world.daemon.start()
    shows(page, "two", ".markdown")


def test_two_pages_at_once(world: World) -> None:
    """One shows at once what another one does, in the list and in the block."""
    world.save("both/seen", "one\n")
    first, second = world.open("#/blocks/both/seen"), world.open("#/blocks/both/seen")
    shows(second, "one", ".markdown")
    edit(first).fill("from the first")
    first.keyboard.press("Control+s")
    shows(second, "from the first", ".markdown")
    press(second, "Rename")
    second.get_by_role("dialog").get_by_label("Label").fill("both/moved")
    second.get_by_role("dialog").get_by_role("button", name="Rename").click()
    first.get_by_role("heading", name="both/moved").wait_for()
    first.get_by_role("treeitem", name="moved").wait_for()


def test_health_has_problems_with_remedies(world: World) -> None:
    """A bad file is a problem at its block and in health, until it is repaired."""
    world.save("sick", "good\n")
    page = world.open("#/health")
    shows(page, "in sync", ".cards")
    shows(page, "Problems", "main")
    world.save("sick", "---\nlimit: many\n---\nbad\n")
    card = page.locator(".card.problem").filter(has_text="sick.md")
    card.wait_for()
    card.get_by_role("link", name="Go to the block").click()
    page.locator(".problems .card").filter(has_text="limit").wait_for()
    page.get_by_role("treeitem", name=re.compile("sick.*1 problem")).wait_for()
    shows(page, "good", ".markdown")  # the last good version stays in force
    world.save("sick", "better\n")
    shows(page, "better", ".markdown")
    page.locator(".problems .card").wait_for(state="detached")


def test_text_that_a_save_took_away_is_brought_back(world: World) -> None:
    """The block says so, with a button."""
    world.save("taken", "one\n")
    page = world.open("#/blocks/taken")
    edit(page).fill("one\ntwo")
    page.keyboard.press("Control+s")
    shows(page, "two", ".markdown")
    world.save("taken", "one\n")
    press(page, "Bring the text back")
    eventually(lambda: world.text("taken") == "one\ntwo\n")
    page.get_by_role("button", name="Bring the text back").wait_for(state="detached")


def test_halted_deletions_are_accepted(world: World) -> None:
    """They are shown with a button, which asks before it accepts them."""
    for number in range(80):
        world.save(f"many/{number}", "text\n")
    eventually(lambda: world.daemon.values("many/79"))
    page = world.open("#/health")
    shows(page, "in sync", ".cards")
    shutil.rmtree(world.folder / "many")
    press(page, "Accept the deletions")
    page.get_by_role("dialog").get_by_role("button", name="Accept").click()
    page.get_by_role("button", name="Accept the deletions").wait_for(state="detached")
    eventually(lambda: world.daemon.values("many/0")[-1] is None)


# --- the whole ---


def test_ten_thousand_blocks(browser: Browser, tmp_path: Path) -> None:
    """Only the visible rows are in the document, at the start, at the end and in a search."""
    names = [(folder, number) for folder in range(100) for number in range(100)]
    world = World(
        tmp_path, browser, {f"folder {folder}/block {number}": f"Text {number}.\n" for folder, number in names}
    )
    try:
        page = world.open()
        shows(page, "10,003 blocks", ".found")
        items = page.get_by_role("treeitem")
        page.get_by_role("searchbox").fill("folder")
        shows(page, "10,000 of 10,003", ".found")
        assert items.count() < 60
        page.get_by_role("tree").press("End")
        page.get_by_role("treeitem", name="block 99").wait_for()
        assert items.count() < 60
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="folder 99/block 99").wait_for()
        page.get_by_role("searchbox").fill("folder 7/ ock")
        shows(page, "1,000 of 10,003", ".found")
        page.get_by_role("searchbox").fill("")
        page.get_by_role("searchbox").press_sequentially("block 42", delay=20)
        shows(page, "199 of 10,003", ".found")  # in folder 42, and one in each other
        assert items.count() < 60
        world.check()
    finally:
        world.end()


VIEWS = {
    "blocks": "#/blocks",
    "text": "#/blocks/policies/refunds",
    "edit": "#/blocks/human?edit=1",
    "fields": "#/blocks/policies/refunds?part=fields",
    "agents of a block": "#/blocks/policies/refunds?part=agents",
    "versions": "#/blocks/policies/refunds?part=versions",
    "no block": "#/blocks/nothing",
    "agents": "#/agents",
    "agent": "#/agents/ann",
    "changes": "#/changes",
    "health": "#/health",
}


DESKTOP, PHONE = {"width": 1200, "height": 800}, {"width": 390, "height": 780}


def wrong_in(page: Page, axe: str, name: str) -> dict[str, list[str]]:
    """What axe-core finds in what is shown, in light and dark, on a desktop and on a phone."""
    found = {}
    for width, size in (("a phone", PHONE), ("a desktop", DESKTOP)):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            # The schemes differ in their colours alone.
            rules = [] if scheme == "light" else ["color-contrast"]
            found[f"{name} in {scheme} on {width}"] = violations(page, axe, *rules)
    return {name: wrong for name, wrong in found.items() if wrong}


def test_views_are_accessible(world: World, axe: str) -> None:
    """axe-core finds nothing in any view, nor in a conflict, a dialog and a notice."""
    world.save("policies/bad", "---\nlimit: many\n---\n")
    world.save("panes", "one\n")
    page = world.open(reduced_motion="reduce")
    found: dict[str, list[str]] = {}
    for name, place in VIEWS.items():
        page.goto(f"http://127.0.0.1:{world.port}/{place}")
        page.locator("h1:not(.unseen), .big").first.wait_for()
        found |= wrong_in(page, axe, name)
    shows(page, "policies/bad.md", "main")
    shows(page, "Audit", "main")
    found |= wrong_in(page, axe, "all of health")
    page.goto(f"http://127.0.0.1:{world.port}/#/blocks/panes")
    edit(page).fill("two")
    world.save("panes", "three\n")
    shows(page, "both texts are merged", ".notes")
    found |= wrong_in(page, axe, "a newer version")
    press(page, "Save", exact=True)
    page.locator(".pane").nth(2).wait_for()
    found |= wrong_in(page, axe, "conflict")
    press(page, "Take the text in force")
    page.goto(f"http://127.0.0.1:{world.port}/#/blocks/human")
    press(page, "Delete", exact=True)
    found |= wrong_in(page, axe, "dialog")
    page.keyboard.press("Escape")
    press(page, "Redo")  # there is nothing to redo
    page.locator(".notice.error").wait_for()
    found |= wrong_in(page, axe, "notice")
    assert found == {}
    (world.folder / "policies/bad.md").unlink()


def test_page_fits_a_phone(world: World) -> None:
    """Nothing is wider than the screen, and a list and what is chosen of it are two pages."""
    page = world.open(size=(360, 700), has_touch=True)
    page.get_by_role("searchbox").fill("human")
    page.get_by_role("treeitem", name="human").click()
    page.get_by_role("heading", name="human").wait_for()
    assert not page.get_by_role("tree").is_visible()
    for place in VIEWS.values():
        page.goto(f"http://127.0.0.1:{world.port}/{place}")
        page.locator("#views a").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, place
    page.goto(f"http://127.0.0.1:{world.port}/#/agents/ann")
    for name in ("Standard", "Directories"):  # all of them are seen
        box = page.get_by_role("link", name=name).bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 360
    page.goto(f"http://127.0.0.1:{world.port}/#/blocks/human")
    press(page, "All blocks", "link")
    page.get_by_role("tree").wait_for()


def test_sign_in_with_a_token(world: World, tmp_path: Path, axe: str) -> None:
    """Nothing is shown before; a reader has no buttons that write; an agent sees its blocks alone; signing out ends it."""
    tokens = tmp_path / "tokens"
    tokens.write_text(FILE)
    tokens.chmod(0o600)
    world.save("signed", "Name: Bob.\n")
    port = world.serve("signed", "--tokens-file", str(tokens))
    page = world.open("#/blocks/signed", port=port, reduced_motion="reduce")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Token").fill("not a token at all")
    dialog.get_by_role("button", name="Sign in").click()
    shows(page, "No caller has this token", "dialog")
    assert wrong_in(page, axe, "sign-in") == {}
    dialog.get_by_label("Token").fill(TOKENS["reader"])
    page.keyboard.press("Enter")
    shows(page, "Name: Bob.", ".markdown")
    assert page.get_by_role("button", name="New block").count() == 0
    assert page.get_by_role("link", name="Edit").count() == 0
    page.reload()
    shows(page, "Name: Bob.", ".markdown")
    press(page, "Sign out")
    dialog.get_by_label("Token").fill(TOKENS["kim"])
    page.keyboard.press("Enter")
    shows(page, "Name: Bob.", ".markdown")
    shows(page, "Live", "#state")  # nothing is read any more, which would ask for the token before the save does
    edit(page).fill("Name: Carol.")
    page.context.clear_cookies()  # as if the session had ended meanwhile
    page.keyboard.press("Control+s")
    dialog.get_by_label("Token").fill(TOKENS["kim"])
    page.keyboard.press("Enter")
    press(page, "Try again")
    shows(page, "Name: Carol.", ".markdown")
    edit(page).fill("Name: Dan.")
    press(page, "Sign out")
    dialog.get_by_label("Token").fill(TOKENS["kim"])
    page.keyboard.press("Enter")
    shows(page, "This is your text that was not saved", ".notes")
    assert page.get_by_role("textbox", name="Text of").input_value() == "Name: Dan."
    press(page, "Discard it")
    page.goto(f"{page.url.split('#')[0]}#/blocks/signed?part=versions")
    shows(page, "kim (operator)", "tbody")
    agent = world.open("#/blocks/signed", port=port)
    agent.get_by_role("dialog").get_by_label("Token").fill(TOKENS["ann"])
    agent.keyboard.press("Enter")
    agent.get_by_role("treeitem", name="diary").wait_for()
    assert agent.get_by_role("treeitem", name="signed").count() == 0
    assert page.evaluate("document.cookie") == ""
