"""Every code block of the README and of the documents beside it does what the document says.

The blocks of a document are one story, done from top to bottom: a block is done after all that stand before it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from fenced import BY_HAND, ROOT, fenced
from newcomer import Newcomer
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fenced import Fenced

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

BLOCKS = {document: fenced(document) for document in BY_HAND}
LAYOUT = "daemon/docs/redis.md"
OPERATIONS = "daemon/docs/operations.md"
NOT_INSTALLED = ("README.md",)
"""Documents that tell how to install the package."""
WITHOUT_DAEMON = ("README.md", "CONTRIBUTING.md", OPERATIONS)
"""Documents that need no daemon, or start one themselves."""


def write_again(newcomer: Newcomer) -> None:
    newcomer.enter("blocksd append persona 'I am version two.'")


def spoil(newcomer: Newcomer) -> None:
    (newcomer.clone / "blocks.d" / "persona.md").write_text("spoilt\n", encoding="utf-8")
    (newcomer.clone / "blocks.d" / "human.md").unlink()
    (newcomer.home / ".local/state/blocksd/blocks/journal.db").unlink()


def is_restored(newcomer: Newcomer) -> None:
    """Assert that blocks and history are those of the backup."""
    assert (newcomer.clone / "blocks.d" / "persona.md").read_text(encoding="utf-8").endswith("I am version two.\n")
    assert (newcomer.clone / "blocks.d" / "human.md").exists()
    newcomer.enter("blocksd restore persona 1 && blocksd restore persona 2")


MEANWHILE: dict[str, Callable[[Newcomer], None]] = {
    "## Change settings\n\nAfter": write_again,
    "To restore a backup": spoil,
    "## Upgrade": is_restored,
    "## Uninstall": is_restored,
}
"""What happens before a block of a document, by the text that stands before it."""


class Story:
    """A document, the newcomer who follows it, and the outcome of each block done so far."""

    def __init__(self, document: str, newcomer: Newcomer) -> None:
        self.newcomer = newcomer
        self._blocks = BLOCKS[document]
        self._outcomes: list[BaseException | None] = []

    def read_to(self, block: Fenced) -> None:
        """Go on until this block is done. Raises its failure, if it did not come true."""
        number = self._blocks.index(block)
        while len(self._outcomes) <= number:
            try:
                next_one = self._blocks[len(self._outcomes)]
                for words, act in MEANWHILE.items():
                    if words in next_one.before:
                        act(self.newcomer)
                self.newcomer.do(next_one)
                self._outcomes.append(None)
            except (Exception, pytest.fail.Exception, pytest.skip.Exception) as outcome:  # noqa: BLE001  # raised below
                self._outcomes.append(outcome)
        outcome_of_it = self._outcomes[number]
        if outcome_of_it is not None:
            raise outcome_of_it


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Story]]:
    """Each document, with a newcomer who has what it asks for."""
    begun: dict[str, Story] = {}

    def story(document: str) -> Story:
        if document not in begun:
            newcomer = Newcomer(tmp_path_factory.mktemp("story"), is_installed=document not in NOT_INSTALLED)
            begun[document] = Story(document, newcomer)
            if document not in WITHOUT_DAEMON:
                prepare(document, newcomer)
        return begun[document]

    yield story
    for one in begun.values():
        one.newcomer.end()


@pytest.fixture(scope="module")
def layout(stories: Callable[[str], Story]) -> Story:
    """A daemon that has been through all that can be announced."""
    return stories(LAYOUT)


def prepare(document: str, newcomer: Newcomer) -> None:
    """Start a daemon, and for the Redis layout announce a change of every kind."""
    if document == LAYOUT:
        (newcomer.clone / "manuals").mkdir()
        (newcomer.clone / "manuals" / "returns.txt").write_text("Goods come back within 30 days.\n")
        settings = (
            'delete_grace = 0.1\nresync_seconds = 1\n[sources.manuals]\npath = "manuals"\nagents = ["support-*"]\n'
        )
        (newcomer.clone / "blocksd.toml").write_text(settings)
    newcomer.enter(". .venv/bin/activate")
    newcomer.enter("blocksd run blocks.d")
    if document == LAYOUT:
        stir(newcomer)


def stir(newcomer: Newcomer) -> None:
    """Do something of every kind that is announced, and remember what was."""
    pubsub = newcomer.client.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe("blocks:changes")
    eventually(lambda: pubsub.subscribed and pubsub.get_message(timeout=0.1) is None, "subscribed")

    def has_come(kind: str) -> bool:
        message = pubsub.get_message(timeout=0.1)
        if message is not None:
            newcomer.heard.append(json.loads(message["data"]))
        return any(one["kind"] == kind for one in newcomer.heard)

    newcomer.ask({"id": "s1", "op": "create", "label": "scene/a", "args": {"value": "a", "agents": ["support-1"]}})
    newcomer.ask({"id": "s2", "op": "rename", "label": "scene/a", "args": {"to": "scene/b"}})
    newcomer.ask({"id": "s3", "op": "delete", "label": "scene/b"})
    newcomer.ask({"id": "s4", "op": "open_file", "args": {"file": "manuals/returns.txt"}})
    newcomer.ask({"id": "s5", "op": "close_file", "args": {"file": "manuals/returns.txt"}})
    newcomer.ask({"id": "s6", "op": "append", "name": "policies/refunds", "args": {"content": "Never."}})
    (newcomer.clone / "manuals" / "new.txt").write_text("new\n")
    persona = newcomer.clone / "blocks.d" / "persona.md"
    persona.write_text(persona.read_text() + "I ask when I am not sure.\n")
    draft = newcomer.clone / "blocks.d" / "notes" / "draft.md"
    draft.parent.mkdir()
    draft.write_text("---\n")
    eventually(lambda: has_come("rejected"), "rejected")
    draft.unlink()
    newcomer.client.delete("blocks:block:human")
    persona.chmod(0o600)
    kinds = ("created", "updated", "renamed", "deleted", "opened", "closed", "source", "cleared", "repaired", "file")
    for kind in kinds:
        eventually(lambda kind=kind: has_come(kind), kind)  # type: ignore[misc]  # mypy knows no default of a lambda
    pubsub.close()


@pytest.mark.parametrize("document", BY_HAND)
def test_document(document: str, stories: Callable[[str], Story], subtests: pytest.Subtests) -> None:
    """A reader who follows it from top to bottom sees what it says: of each command, program, request and file."""
    story = stories(document)
    for block in BLOCKS[document]:
        with subtests.test(str(block)):
            story.read_to(block)


def test_uninstalling_leaves_the_blocks(stories: Callable[[str], Story]) -> None:
    """The program and, if asked for, the state are removed; the folder is as it was."""
    story = stories(OPERATIONS)
    story.read_to(BLOCKS[OPERATIONS][-1])
    assert not (story.newcomer.clone / ".venv").exists()
    assert list((story.newcomer.home / ".local/state/blocksd").glob("*")) == []
    assert (story.newcomer.clone / "blocks.d" / "persona.md").exists()


def test_program_that_misses_nothing_reads_all_again_after_a_loss(layout: Story) -> None:
    """When Redis has lost everything, the program of the specification notices, and finds all blocks again."""
    block = next(b for b in BLOCKS[LAYOUT] if b.text == "$ python every_change.py\n")
    layout.read_to(block)
    newcomer = layout.newcomer
    program = next(one for one in newcomer.terminals if "every_change" in one.command)
    count = newcomer.client.zcard("blocks:labels")
    newcomer.client.flushall()
    program.wait_for(rf"read again: {count} blocks at seq \d+")
    newcomer.enter("blocksd append persona 'I am back.'")
    program.wait_for(r"read again(.|\n)*\d+ updated persona\n")


def facts_of(code: str) -> set[str]:
    """What the specification says that an error of this code tells."""
    text = (ROOT / LAYOUT).read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{code}` \| [^|]+ \| (.+) \|$", text, re.MULTILINE)
    return {"code", "message", "request", *re.findall(r"`(\w+)`", row)}


VERSION_0 = {"expect": {"version": 0}}
REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("not_found", "operator", {"op": "append", "label": "persna", "args": {"content": "x"}}),
    ("not_found", "operator", {"op": "restore", "label": "persona", "args": {"version": 999_999}}),
    ("not_found", "operator", {"op": "delete_agent", "args": {"agent": "nobody"}}),
    ("not_found", "support-2", {"op": "append", "name": "nothing", "args": {"content": "x"}}),
    ("not_found", "support-2", {"op": "open_file", "args": {"file": "manuals/nothing.txt"}}),
    ("already_exists", "operator", {"op": "create", "label": "persona"}),
    ("already_exists", "operator", {"op": "create_agent", "args": {"agent": "support-1"}}),
    ("label_conflict", "operator", {"op": "create", "label": "PERSONA"}),
    ("label_conflict", "operator", {"op": "attach", "label": "persona", "args": {"agents": ["support-2"]}}),
    ("limit_exceeded", "operator", {"op": "update", "label": "persona", "args": {"limit": 1}}),
    ("read_only", "support-2", {"op": "append", "name": "policies/refunds", "args": {"content": "x"}}),
    ("not_attached", "operator", {"op": "detach", "label": "persona", "args": {"agents": ["support-2"]}}),
    ("version_conflict", "operator", {"op": "delete", "label": "persona", **VERSION_0}),
    (
        "merge_conflict",
        "operator",
        {
            "op": "update",
            "label": "contested",
            "args": {"value": "three"},
            "expect": {"version": 1},
            "on_conflict": "merge",
        },
    ),
    ("invalid_request", "operator", {"op": "dance"}),
    ("invalid_request", "operator", {"op": "create", "label": "a?b"}),
    ("invalid_request", "operator", {"op": "update", "label": "persona", "args": {"limits": 1}}),
    ("invalid_request", "operator", {"op": "update", "label": "persona", "args": {"value": "\u0007"}}),
    (
        "invalid_request",
        "operator",
        {"op": "replace", "label": "human", "args": {"old_content": "e", "new_content": ""}},
    ),
    ("invalid_request", "operator", {"op": "insert", "label": "human", "args": {"content": "x", "line": 99}}),
    ("invalid_request", "operator", {"op": "patch", "label": "human", "args": {"patch": "@@\n-nothing\n"}}),
    ("invalid_request", "operator", {"op": "batch", "args": {"requests": [{"op": "create", "label": "x?y"}]}}),
    ("problem_file", "operator", {"op": "append", "label": "broken", "args": {"content": "x"}}),
]


def test_errors_tell_what_the_specification_says(layout: Story) -> None:
    """Every fact of an error that a program may come by is in its row."""
    newcomer = layout.newcomer
    newcomer.ask({"id": "e-new", "op": "create", "label": "contested", "args": {"value": "one"}})
    newcomer.ask({"id": "e-newer", "op": "update", "label": "contested", "args": {"value": "two"}})
    newcomer.ask({"id": "e-broken", "op": "create", "label": "broken", "args": {"value": "x"}})
    (newcomer.clone / "blocks.d" / "broken.md").write_text("---\nlimit: many\n---\nx\n")
    for number, (code, actor, request) in enumerate(REFUSED):
        reply = newcomer.ask({"id": f"e-{number}", **request}, actor)
        assert not reply["ok"], (request, reply)
        error = reply["error"]
        assert error["code"] == code, error
        assert error.keys() <= facts_of(code), f"{code}: {error.keys() - facts_of(code)} are not in the specification"


def test_without_its_folder_the_daemon_is_unavailable(layout: Story) -> None:
    """What is asked for then is refused for now, and done when it is sent again later under the same id."""
    newcomer = layout.newcomer
    folder, away = newcomer.clone / "blocks.d", newcomer.clone / "away"
    request = {"id": "u", "op": "append", "label": "human", "args": {"content": "Has moved."}}
    folder.rename(away)
    eventually(lambda: newcomer.client.hexists("blocks:problems", "<folder>"), "the daemon halts")
    error = newcomer.ask(request)["error"]
    away.rename(folder)
    eventually(lambda: not newcomer.client.hexists("blocks:problems", "<folder>"), "the daemon goes on")
    assert error["code"] == "unavailable"
    assert error.keys() <= facts_of("unavailable")
    assert newcomer.ask(request)["ok"]
