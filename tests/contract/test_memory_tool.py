"""Anthropic's memory tool over an agent's private blocks, with the SDK's own classes, and a real daemon.

The texts are those of the tool's documentation ("Tool commands" of the page Memory tool, platform.claude.com/docs). The SDK
takes a second or two to load: it is loaded by the process that runs these tests, and not by all that collect them.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest

from blocksd import AsyncClient, Client, anthropic
from blocksd.errors import NotFound, Unavailable
from following import looping
from gateways import daemon
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support import RedisServer

NAMES = itertools.count(1)
HEAD = "Here're the files and directories up to 2 levels deep in {}, excluding hidden items and node_modules:\n"
CONTENT = "Here's the content of {} with line numbers:\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, Path]]:
    """A daemon for all tests; each has an agent of its own."""
    with daemon(tmp_path_factory.mktemp("place")) as running:
        yield running


@pytest.fixture(scope="module")
def operator(place: tuple[RedisServer, Path]) -> Iterator[Client]:
    with Client(place[0].url) as client:
        yield client


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with looping() as running:
        yield running


class Given:
    """One agent and its tool, which is called as the SDK's runner calls it."""

    def __init__(
        self, operator: Client, folder: Path, tool: anthropic.MemoryTool | anthropic.AsyncMemoryTool, agent: str
    ) -> None:
        self.operator = operator
        self.agent = agent
        self.folder = folder / "agents" / agent
        self.tool = tool
        self.loop: asyncio.AbstractEventLoop | None = None

    def call(self, given: Any) -> Any:
        if isinstance(self.tool, anthropic.MemoryTool):
            return self.tool.call(given)
        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(self.tool.call(given), self.loop).result()

    def does(self, command: str, path: str | None = None, **rest: Any) -> str:
        """The text of a command that is done."""
        text: str = self.call({"command": command, **({} if path is None else {"path": path}), **rest})
        return text

    def fails(self, command: str, path: str | None = None, **rest: Any) -> str:
        """The text of a command that is refused."""
        return self.refuses({"command": command, **({} if path is None else {"path": path}), **rest})

    def refuses(self, given: Any) -> str:
        """The text of the SDK's error."""
        from anthropic.lib.tools import ToolError

        with pytest.raises(ToolError) as refused:
            self.call(given)
        assert isinstance(refused.value.content, str)
        return refused.value.content

    def saves(self, name: str, text: str) -> None:
        """A person saves a file, and the mirror shows it."""
        path = self.folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        value = text.rpartition("---\n")[2].removesuffix("\n")
        eventually(lambda: self.value(name) == value, f"{name} is shown")

    def value(self, name: str) -> str | None:
        """The value of a private block."""
        try:
            return self.operator.blocks.retrieve(f"agents/{self.agent}/{name}").value
        except NotFound:
            return None

    def names(self) -> list[str]:
        return sorted(self.operator.agents.retrieve(self.agent).blocks)


@pytest.fixture(params=["blocking", pytest.param("asyncio", marks=pytest.mark.slow)])
def given(
    request: pytest.FixtureRequest,
    place: tuple[RedisServer, Path],
    operator: Client,
    loop: asyncio.AbstractEventLoop,
) -> Iterator[Given]:
    """An agent without blocks, and its tool."""
    agent = f"agent-{next(NAMES)}"
    operator.agents.create(name=agent, memory_blocks=[])
    if request.param == "blocking":
        with Client(place[0].url) as client, client.memory(agent) as memory:
            yield Given(operator, place[1], anthropic.MemoryTool(memory), agent)
        return
    client_async = AsyncClient(place[0].url)
    memory_async = client_async.memory(agent)
    made = Given(operator, place[1], anthropic.AsyncMemoryTool(memory_async), agent)
    made.loop = loop
    yield made
    for closing in (memory_async.close(), client_async.close()):
        asyncio.run_coroutine_threadsafe(closing, loop).result()


# --- what the SDK needs ---


def test_tools_are_those_of_the_sdk(given: Given) -> None:
    """They are subclasses of the SDK's classes, and are offered to a model as the memory tool."""
    from anthropic.lib.tools import BetaAbstractMemoryTool, BetaAsyncAbstractMemoryTool

    base = BetaAbstractMemoryTool if isinstance(given.tool, anthropic.MemoryTool) else BetaAsyncAbstractMemoryTool
    assert isinstance(given.tool, base)
    assert given.tool.to_dict() == {"type": "memory_20250818", "name": "memory"}


def test_unknown_agent_is_for_the_program(operator: Client) -> None:
    """That there is no such agent, or no daemon, is no mistake of the model."""
    with operator.memory("nobody") as memory:
        tool = anthropic.MemoryTool(memory)
        with pytest.raises(NotFound, match="there is no agent 'nobody'"):
            tool.call({"command": "view", "path": "/memories"})
    with Client("redis://127.0.0.1:1", "blocks") as client, pytest.raises(Unavailable):
        anthropic.MemoryTool(client.memory("ann")).call({"command": "view", "path": "/memories"})


NO_COMMAND = "Error: There is no such command. The commands: view, create, str_replace, insert, delete, rename"
NO_SENSE: list[tuple[Any, str]] = [
    ({}, NO_COMMAND),
    ("view", NO_COMMAND),
    ({"command": "chmod", "path": "/memories/x"}, NO_COMMAND),
    ({"command": "view"}, "Error: The argument `path` must be a text"),
    ({"command": "view", "path": None}, "Error: The argument `path` must be a text"),
    ({"command": "create", "path": "/memories/x.md"}, "Error: The argument `file_text` must be a text"),
    ({"command": "create", "path": 7, "file_text": "x"}, "Error: The argument `path` must be a text"),
    ({"command": "rename", "path": "/memories/x.md"}, "Error: The argument `old_path` must be a text"),
    (
        {"command": "insert", "path": "/memories/x.md", "insert_line": "one", "insert_text": "x"},
        "Error: The argument `insert_line` must be a whole number",
    ),
]


def test_calls_that_make_no_sense(given: Given) -> None:
    """A model is told what is wrong with a call that the tool does not have."""
    for command, text in NO_SENSE:
        assert given.refuses(command) == text


# --- view ---


def test_empty_directory_is_no_error(given: Given) -> None:
    """The first view of an agent without blocks is one line, of the directory."""
    assert given.does("view", "/memories") == HEAD.format("/memories") + "0B\t/memories"


def test_listing(given: Given) -> None:
    """Sizes and paths with a tab between; two levels deep; without hidden blocks, templates and node_modules."""
    given.does("create", "/memories/notes.txt", file_text="x" * 1535 + "\n")
    given.does("create", "/memories/a/b/deep.md", file_text="ü\n")
    given.does("create", "/memories/a/b.xml", file_text="<b/>")
    given.does("create", "/memories/node_modules/left.md", file_text="pad")
    given.saves("persona", "I am Ann.\n")
    given.saves("secret", "---\nhidden: true\n---\nhush\n")
    given.saves("form", "---\nis_template: true\n---\nDear …\n")
    eventually(lambda: "persona" in given.does("view", "/memories"), "the memory has heard of it")
    assert given.does("view", "/memories").split("\n") == [
        HEAD.format("/memories")[:-1],
        "1.5K\t/memories",
        "8B\t/memories/a/",
        "3B\t/memories/a/b/",
        "5B\t/memories/a/b.xml",
        "1.5K\t/memories/notes.txt",
        "10B\t/memories/persona.md",
    ]
    assert given.does("view", "/memories/a/").split("\n") == [
        HEAD.format("/memories/a/")[:-1],
        "8B\t/memories/a/",
        "3B\t/memories/a/b/",
        "3B\t/memories/a/b/deep.md",
        "5B\t/memories/a/b.xml",
    ]
    assert given.does("view", "/memories/secret.md") == CONTENT.format("/memories/secret.md") + "     1\thush"


@pytest.mark.parametrize(
    "path", ["/memories/notes.md", "/memories/notes.txt", "/memories/a/b/notes.xml", "/memories/v1.2.md"]
)
def test_created_file_is_listed_as_it_was_created(given: Given, path: str) -> None:
    """By the path of the listing it is shown, and has the text that the model gave it."""
    assert given.does("create", path, file_text="one\n\n  two\n") == f"File created successfully at: {path}"
    (listed,) = (line.partition("\t")[2] for line in given.does("view", path.rpartition("/")[0]).splitlines()[2:])
    assert listed == path
    assert given.does("view", path) == CONTENT.format(path) + "     1\tone\n     2\t\n     3\t  two"


def test_file_without_an_extension_has_two_paths(given: Given) -> None:
    """It is listed with `.md`, as people see it in the folder, and is found by both."""
    given.does("create", "/memories/plan", file_text="rest")
    assert "5B\t/memories/plan.md" in given.does("view", "/memories")
    assert (given.folder / "plan.md").read_text() == "rest\n"
    for path in ("/memories/plan", "/memories/plan.md"):
        assert given.does("view", path).endswith("     1\trest")
    assert given.fails("create", "/memories/plan.md", file_text="x") == "Error: File /memories/plan.md already exists"


def test_files_and_directories_of_one_name(given: Given) -> None:
    """A directory has the path without `.md`; a file of its name is listed with it, whatever its extension."""
    given.saves("notes", "file\n")
    given.saves("notes/today", "below\n")
    given.saves("a.txt", "file\n")
    given.saves("a.txt/b", "below\n")
    listing = given.does("view", "/memories").splitlines()[2:]
    assert [line.partition("\t")[2] for line in listing] == [
        *("/memories/a.txt/", "/memories/a.txt/b.md", "/memories/a.txt.md"),
        *("/memories/notes/", "/memories/notes/today.md", "/memories/notes.md"),
    ]
    for path in ("/memories/notes.md", "/memories/a.txt.md"):
        assert given.does("view", path).endswith("     1\tfile")
    for path in ("/memories/notes", "/memories/a.txt"):
        assert given.does("view", path).startswith("Here're")
        assert given.fails("insert", path, insert_line=0, insert_text="x") == f"Error: The path {path} does not exist"
        assert given.fails("create", path, file_text="x").startswith(f"Error: The path {path} is that of a directory")


def test_lines_of_a_file(given: Given) -> None:
    """Numbers are six characters wide, then a tab; `view_range` names the first and the last line, -1 is the end."""
    path = "/memories/lines.txt"
    given.does("create", path, file_text="".join(f"line {number}\n" for number in range(1, 101)))
    shown = given.does("view", path).split("\n")
    assert shown[0] + "\n" == CONTENT.format(path)
    assert (shown[1], shown[10], shown[100]) == ("     1\tline 1", "    10\tline 10", "   100\tline 100")
    assert given.does("view", path, view_range=[2, 3]).split("\n")[1:] == ["     2\tline 2", "     3\tline 3"]
    assert given.does("view", path, view_range=[99, -1]).split("\n")[1:] == shown[99:]
    assert given.does("view", path, view_range=[99, 1000]).split("\n")[1:] == shown[99:]
    for wrong in ([0, 1], [101, -1], [3, 2], [1], ["a", "b"], "1-2"):
        assert given.fails("view", path, view_range=wrong) == (
            f"Error: Invalid `view_range` parameter: {wrong}. "
            "It should be within the range of lines of the file: [1, 100]"
        )
    given.does("create", "/memories/empty.txt", file_text="")
    assert given.does("view", "/memories/empty.txt", view_range=[1, -1]) == CONTENT.format("/memories/empty.txt")


def test_long_files_are_shown_in_part(given: Given) -> None:
    """A model that names no lines sees 16,000 characters, and how to see the others; what it names it sees."""
    path = "/memories/long.txt"
    given.does("create", path, file_text="".join(f"{'x' * 92}\n" for _ in range(200)))
    shown = given.does("view", path).split("\n")[1:]
    assert shown[:-1] == [f"{number:6}\t{'x' * 92}" for number in range(1, 162)]
    assert shown[-1] == "(Lines 1 to 161 of 200. To see others, name them in `view_range`: [162, 200])"
    assert len(given.does("view", path, view_range=[1, -1]).split("\n")) == 201
    given.does("create", "/memories/one.txt", file_text="y" * 20_000)
    shown = given.does("view", "/memories/one.txt").split("\n")[1:]
    assert (len(shown[0]), shown[1]) == (
        16_000,
        "(The first 16000 characters of line 1 of 1. To see all of it: `view_range` [1, 1])",
    )
    assert "y" * 20_000 in given.does("view", "/memories/one.txt", view_range=[1, 1])


def test_view_of_nothing(given: Given) -> None:
    """The documentation has a text for it, without `Error`."""
    text = "The path /memories/none.txt does not exist. Please provide a valid path."
    assert given.fails("view", "/memories/none.txt") == text


# --- edits ---


def test_create_makes_a_block(given: Given) -> None:
    """It is a private block, with its file; what exists is not overwritten."""
    given.does("create", "/memories/notes.md", file_text="Meeting notes:\n- Discussed timeline\n")
    assert (given.folder / "notes.md").read_text() == "Meeting notes:\n- Discussed timeline\n"
    assert given.operator.blocks.retrieve(f"agents/{given.agent}/notes").updated_by == given.agent
    assert given.fails("create", "/memories/notes.md", file_text="x") == "Error: File /memories/notes.md already exists"
    assert given.value("notes") == "Meeting notes:\n- Discussed timeline"


def test_no_file_below_a_file(given: Given) -> None:
    """Neither a new one nor a renamed one."""
    given.does("create", "/memories/a.txt", file_text="x")
    given.does("create", "/memories/b.txt", file_text="x")
    assert (
        given.fails("create", "/memories/a.txt/c.md", file_text="x")
        == "Error: /memories/a.txt is a file, not a directory"
    )
    told = given.fails("rename", old_path="/memories/b.txt", new_path="/memories/a.txt/b.txt")
    assert told == "Error: /memories/a.txt is a file, not a directory"
    given.does("create", "/memories/c.md", file_text="x")
    given.does("create", "/memories/c/d.md", file_text="x")  # as in the folder, where c.md and c/ are two
    assert given.names() == ["a.txt", "b.txt", "c", "c/d"]


def test_str_replace(given: Given) -> None:
    """The answer is the documentation's sentence, and the lines around the edit."""
    path = "/memories/preferences.txt"
    given.does("create", path, file_text="one\ntwo\nFavorite color: blue\nfour\nfive\nsix\n")
    text = given.does("str_replace", path, old_str="Favorite color: blue", new_str="Favorite color: green\nand red")
    assert text.startswith("The memory file has been edited.")
    assert text.split("\n")[1:] == [
        *("     1\tone", "     2\ttwo", "     3\tFavorite color: green", "     4\tand red"),
        *("     5\tfour", "     6\tfive"),
    ]
    assert given.value("preferences.txt") == "one\ntwo\nFavorite color: green\nand red\nfour\nfive\nsix"
    given.does("str_replace", path, old_str="five\nsix\n", new_str="end\n")  # with the line feed at the end of the file
    given.does("str_replace", path, old_str="two\n")  # without new_str it is deleted
    assert given.value("preferences.txt") == "one\nFavorite color: green\nand red\nfour\nend"
    given.does("create", "/memories/arrows.txt", file_text="1→ one\n2→ two\n")
    given.does("str_replace", "/memories/arrows.txt", old_str="2→ two", new_str="2→ three")
    given.does("insert", "/memories/arrows.txt", insert_line=2, insert_text="3→ four")
    assert given.value("arrows.txt") == "1→ one\n2→ three\n3→ four"


def test_str_replace_that_is_not_done(given: Given) -> None:
    """Each reason has the documentation's text, and the file stays as it is."""
    path = "/memories/preferences.txt"
    given.does("create", path, file_text="aa\nb\naa\naaa\n")
    for missing in ("/memories/none.txt", "/memories"):
        assert given.fails("str_replace", missing, old_str="a", new_str="b") == (
            f"Error: The path {missing} does not exist. Please provide a valid path."
        )
    assert given.fails("str_replace", path, old_str="zz", new_str="y") == (
        f"No replacement was performed, old_str `zz` did not appear verbatim in {path}."
    )
    assert given.fails("str_replace", path, old_str="aa", new_str="y") == (
        "No replacement was performed. Multiple occurrences of old_str `aa` in lines: 1, 3, 4. Please ensure it is unique"
    )
    assert (
        given.fails("str_replace", path, old_str="", new_str="y")
        == "Error: No replacement was performed: old_str is empty"
    )
    assert given.value("preferences.txt") == "aa\nb\naa\naaa"


def test_insert(given: Given) -> None:
    """Lines are inserted after the one that is named; 0 is the beginning."""
    path = "/memories/todo.txt"
    given.does("create", path, file_text="one\ntwo\n")
    for line, text in ((0, "zero\n"), (3, "three"), (1, "half\n\n")):
        told = given.does("insert", path, insert_line=line, insert_text=text)
        assert told == f"The file {path} has been edited."
    assert given.value("todo.txt") == "zero\nhalf\n\none\ntwo\nthree"
    for line in (-1, 7):
        assert given.fails("insert", path, insert_line=line, insert_text="x") == (
            f"Error: Invalid `insert_line` parameter: {line}. "
            "It should be within the range of lines of the file: [0, 6]"
        )
    missing = given.fails("insert", "/memories/none.txt", insert_line=0, insert_text="x")
    assert missing == "Error: The path /memories/none.txt does not exist"


def test_edits_lose_nothing_that_others_write(given: Given) -> None:
    """Insertions of many at once are all there: each is made of the text of the one before."""
    given.does("create", "/memories/log.txt", file_text="begin\n")
    threads = [
        threading.Thread(
            target=given.does, args=("insert", "/memories/log.txt"), kwargs={"insert_line": 1, "insert_text": f"{n}"}
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(str(given.value("log.txt")).split("\n")) == [*map(str, range(8)), "begin"]


# --- delete and rename ---


def test_delete(given: Given) -> None:
    """A file, or a directory with all that is in it; not the root."""
    for path in ("/memories/a.txt", "/memories/d/b.txt", "/memories/d/e/c.md", "/memories/d.txt", "/memories/dd/f.md"):
        given.does("create", path, file_text="x")
    assert given.does("delete", "/memories/a.txt") == "Successfully deleted /memories/a.txt"
    assert given.does("delete", "/memories/d") == "Successfully deleted /memories/d"
    assert given.names() == ["d.txt", "dd/f"]
    for missing in ("/memories/a.txt", "/memories/d", "/memories/d.txt/"):
        assert given.fails("delete", missing) == f"Error: The path {missing} does not exist"
    for root in ("/memories", "/memories/"):
        assert given.fails("delete", root) == "Error: The directory /memories itself cannot be deleted"
    given.operator.blocks.undo(f"agents/{given.agent}/d/e/c")  # the history has it
    assert given.value("d/e/c") == "x"


def test_rename(given: Given) -> None:
    """A file, or a directory with all that is in it; nothing is overwritten."""
    for path in ("/memories/draft.txt", "/memories/d/b.txt", "/memories/d/e/c.md", "/memories/other.md"):
        given.does("create", path, file_text=path)
    before = given.operator.blocks.retrieve(f"agents/{given.agent}/draft.txt").id
    told = given.does("rename", old_path="/memories/draft.txt", new_path="/memories/done/final.md")
    assert told == "Successfully renamed /memories/draft.txt to /memories/done/final.md"
    assert given.operator.blocks.retrieve(f"agents/{given.agent}/done/final").id == before
    assert given.does("rename", old_path="/memories/d", new_path="/memories/new/d2").startswith("Successfully renamed")
    assert given.names() == ["done/final", "new/d2/b.txt", "new/d2/e/c", "other"]
    assert (
        given.fails("rename", old_path="/memories/d", new_path="/memories/x")
        == "Error: The path /memories/d does not exist"
    )
    for taken in ("/memories/other.md", "/memories/other", "/memories/new", "/memories"):
        told = given.fails("rename", old_path="/memories/done/final.md", new_path=taken)
        assert told == f"Error: The destination {taken} already exists"
    told = given.fails("rename", old_path="/memories/new", new_path="/memories/new/deeper")
    assert told == "Error: The directory /memories/new cannot be moved into itself"
    told = given.fails("rename", old_path="/memories", new_path="/memories/x")
    assert told == "Error: The directory /memories itself cannot be renamed"
    told = given.fails("rename", old_path="/memories/other.md", new_path="/memories/box/")
    assert told == "Error: The destination /memories/box/ is that of a directory: name a file in it"
    assert given.names() == ["done/final", "new/d2/b.txt", "new/d2/e/c", "other"]


# --- what an agent may not do ---


def test_read_only_blocks_are_shown_and_stay(given: Given) -> None:
    """Nothing of a directory is deleted or renamed when one of its blocks is read-only."""
    given.saves("rules/one", "---\nread_only: true\n---\nBe kind.\n")
    given.does("create", "/memories/rules/two.md", file_text="x")
    path = "/memories/rules/one.md"
    assert given.does("view", path).endswith("     1\tBe kind.")
    refused = [
        given.fails("str_replace", path, old_str="kind", new_str="cruel"),
        given.fails("insert", path, insert_line=0, insert_text="x"),
        given.fails("delete", path),
        given.fails("rename", old_path=path, new_path="/memories/free.md"),
        given.fails("delete", "/memories/rules"),
        given.fails("rename", old_path="/memories/rules", new_path="/memories/laws"),
    ]
    assert refused == [f"Error: The file {path} is read-only"] * 6
    assert given.names() == ["rules/one", "rules/two"]


def test_limits_hold(given: Given) -> None:
    """The text says how much there would be, and how much there may be."""
    given.saves("short", "---\nlimit: 10\n---\n12345\n")
    over = "Error: The file /memories/short.md would have 11 characters, and may have 10: write less"
    eventually(lambda: "short" in given.does("view", "/memories"), "the memory has heard of it")
    assert given.fails("insert", "/memories/short.md", insert_line=0, insert_text="67890") == over
    assert given.fails("str_replace", "/memories/short.md", old_str="1", new_str="1234567") == over
    told = given.fails("create", "/memories/long.md", file_text="x" * 20_001)
    assert told == "Error: The file /memories/long.md would have 20001 characters, and may have 20000: write less"
    assert given.names() == ["short"]


def test_shared_blocks_are_not_there(given: Given) -> None:
    """They are neither listed nor read nor written; their names are taken."""
    label = f"shared-{given.agent}"
    given.operator.blocks.create(label=label, value="ours", agents=[given.agent])
    eventually(lambda: label in given.names(), "attached")
    path = f"/memories/{label}.md"
    assert given.does("view", "/memories") == HEAD.format("/memories") + "0B\t/memories"
    given.fails("view", path)
    for command, rest in (
        ("str_replace", {"old_str": "ours"}),
        ("insert", {"insert_line": 0, "insert_text": "x"}),
        ("delete", {}),
    ):
        assert "does not exist" in given.fails(command, path, **rest)
    assert given.fails("create", path, file_text="mine").startswith(f"Error: The file {path} cannot be changed so: ")
    assert given.operator.blocks.retrieve(label).value == "ours"


def test_text_that_cannot_be_saved(given: Given) -> None:
    """A character that no block may have is named; no answer has one that cannot be sent."""
    told = given.fails("create", "/memories/bell.md", file_text="a\x07")
    assert "U+0007" in told
    given.fails("create", "/memories/half.md", file_text="a\ud800").encode()
    assert given.names() == []
    given.does("create", "/memories/a.md", file_text="a")
    given.fails("str_replace", "/memories/a.md", old_str="\ud800", new_str="b").encode()
    given.fails("str_replace", "/memories/a.md", old_str="a", new_str="\ud800").encode()
    given.fails("insert", "/memories/a.md", insert_line=1, insert_text="\ud800").encode()
    assert given.value("a") == "a"


ODD = [
    *("", "/", "/etc/passwd", "memories/x.md", "/memoriesx/y.md", "/memories.md", "/Memories/x.md", "~/memories/x.md"),
    *("/memories/../secrets.env", "/memories/../../x", "/memories/a/../b.md", "/memories/./a.md", "/memories/.."),
    *("/memories/..\\..\\x", "/memories/a\\b.md", "/memories/%2e%2e%2fsecrets", "/memories/a%2Fb.md", "/memories/%5C"),
    *("/memories//a.md", "/memories/a//b.md", "//memories/a.md", "/memories/a.md//", "/memories///"),
    *("/memories/.hidden", "/memories/a/.git/x.md", "/memories/.md", "/memories/a.md/b.md", "/memories/a.md.md"),
    *("/memories/a\x00.md", "/memories/a\nb.md", "/memories/a\u202eb.md", "/memories/ a.md", "/memories/a .md"),
    *(
        "/memories/agent.yaml",
        "/memories/agent.yaml/x.md",
        "/memories/a:b",
        "/memories/" + "x" * 300,
        "/memories/\ud800",
    ),
    *("/memories/x~", "/memories/#x#", "/memories/" + "é" * 2000, "/memories/" + "a/" * 600 + "b"),
]


def test_odd_paths_are_refused(given: Given) -> None:
    """By every command, in words; nothing is made or changed, here or elsewhere."""
    given.does("create", "/memories/a/b.md", file_text="mine")
    for path in ODD:
        refused = [
            given.fails("view", path),
            given.fails("create", path, file_text="x"),
            given.fails("str_replace", path, old_str="mine", new_str="x"),
            given.fails("insert", path, insert_line=0, insert_text="x"),
            given.fails("delete", path),
            given.fails("rename", old_path=path, new_path="/memories/new.md"),
            given.fails("rename", old_path="/memories/a/b.md", new_path=path),
        ]
        for text in refused:
            assert text.startswith("Error: The path "), (path, text)
            assert len(text.encode()) < 1000
            assert "is not a label" not in text  # a model has paths here
    assert given.names() == ["a/b"]
    assert given.value("a/b") == "mine"
