from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocksd.errors import InvalidField
from blocksd.model.prompt import STYLES, File, Source, Style, ToolUsageRules, compile_prompt, order
from support import examples

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True, slots=True)
class Shown:
    name: str
    value: str = ""
    description: str | None = None
    limit: int = 5000
    read_only: bool = False
    hidden: bool = False
    is_template: bool = False


SAM = Shown("persona", "I am Sam", "The persona block", read_only=True)
LINES = Shown("human", "line1\nline2\n")
PROJECT = Source(
    "project",
    "Sdesc",
    "Sinst",
    (
        File("fileA", is_open=True, value="data", limit=100),
        File("fileB", is_open=False, value="", limit=100, description="dB", read_only=False),
    ),
)


def golden(name: str) -> str:
    return (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def as_here(letta: str) -> str:
    """What Letta prints, with the two differences there are: `read_only` is always said, and no blank line comes before
    the end of the blocks. Both are so in Letta's description of the format."""
    said = letta.replace("<metadata>\n- chars_current", "<metadata>\n- read_only=false\n- chars_current")
    return said.replace("\n\n</memory_blocks>", "\n</memory_blocks>")


# The examples that are given


def test_the_format_is_that_of_the_description() -> None:
    """The example in the description of the format is what its blocks give, but for its counts, which are not true."""
    persona = "I am a helpful AI assistant with expertise in customer service and problem resolution."
    human = "The user is a software engineer seeking technical assistance with Python programming."
    example = golden("memory-block-format")
    assert example.count("chars_current=120") == example.count("chars_current=85") == 1
    counted = example.replace("=120", f"={len(persona)}").replace("=85", f"={len(human)}")
    blocks = [
        Shown(
            "persona",
            persona,
            "Stores details about your current persona, guiding how you behave and respond.",
            limit=20000,
        ),
        Shown("human", human, "Stores key details about the person you are conversing with.", limit=20000),
    ]
    assert compile_prompt(blocks) == counted


def test_standard_is_as_letta_prints_it() -> None:
    """A missing description is an empty line; a newline at the end of a value is one more line."""
    assert compile_prompt([SAM, LINES]) == as_here(golden("letta-standard"))


def test_line_numbered_is_as_letta_prints_it() -> None:
    """Every line of a value has its number, and a warning says what the numbers are for."""
    assert compile_prompt([SAM, LINES], style="line-numbered") == as_here(golden("letta-line-numbered"))


def test_tool_usage_rules_come_after_the_blocks_as_letta_prints_them() -> None:
    """The rules have an element of their own below the blocks."""
    assert compile_prompt([SAM], tool_usage_rules=ToolUsageRules("DESC", "VAL")) == as_here(
        golden("letta-tool-usage-rules")
    )


@pytest.mark.parametrize("style", ["standard", "line-numbered", "directories"])
def test_directories_are_as_letta_prints_them(style: Style) -> None:
    """An open file is shown with its text, a closed one by name."""
    assert compile_prompt([], style=style, sources=[PROJECT], max_files_open=3) == as_here(golden("letta-directories"))


def test_nested_directories_are_as_letta_prints_them_for_react_agents() -> None:
    """In the nested style a file is an element of its name, with description and value even where they are empty."""
    text = compile_prompt([], style="nested", sources=[PROJECT], max_files_open=3)
    assert text == as_here(golden("letta-directories-react"))


def test_all_parts_come_in_their_order() -> None:
    """Blocks, rules and sources follow each other with a blank line between."""
    text = compile_prompt([SAM], tool_usage_rules="VAL", sources=[PROJECT])
    assert text == (
        compile_prompt([SAM])
        + "\n\n<tool_usage_rules>\nVAL\n</tool_usage_rules>"
        + compile_prompt([], sources=[PROJECT])
    )


# Which blocks are shown, and in what order


@pytest.mark.parametrize("style", STYLES)
def test_nothing_gives_the_empty_text(style: Style) -> None:
    """No blocks, no rules and no sources are no text at all."""
    assert compile_prompt([], style=style, tool_usage_rules="", max_files_open=3) == ""


@pytest.mark.parametrize("style", STYLES)
def test_hidden_blocks_and_templates_are_left_out(style: Style) -> None:
    """They are not shown beside others, and not alone."""
    unseen = [replace(LINES, hidden=True), Shown("form", is_template=True)]
    assert compile_prompt(unseen, style=style) == ""
    assert compile_prompt([*unseen, SAM], style=style) == compile_prompt([SAM], style=style)


def test_persona_and_human_come_first() -> None:
    """The other blocks follow by name."""
    names = ["zeta", "human", "agenda", "persona", "a/human", "a"]
    assert [block.name for block in order(map(Shown, names))] == ["persona", "human", "a", "a/human", "agenda", "zeta"]


def test_the_directories_style_shows_no_blocks() -> None:
    """Only what comes after them is there."""
    assert compile_prompt([SAM, LINES], style="directories") == ""
    assert compile_prompt([SAM], style="directories", sources=[PROJECT]) == compile_prompt([], sources=[PROJECT])


def test_an_unknown_style_is_refused() -> None:
    """It is not taken for another."""
    with pytest.raises(InvalidField, match="standard, line-numbered, nested, directories, not 'fancy'"):
        compile_prompt([], style="fancy")  # type: ignore[arg-type]  # what a program without types may pass
    assert get_args(Style) == STYLES


def test_characters_are_counted_as_code_points_of_the_value_itself() -> None:
    """Neither bytes nor the backslashes that are shown count."""
    assert "- chars_current=10\n" in compile_prompt([Shown("x", "</value>é😀")])


def test_an_empty_value_has_no_numbered_lines() -> None:
    """There is nothing between the tags."""
    assert "<value>\n</value>\n" in compile_prompt([Shown("x")], style="line-numbered")
    assert "<value>\n\n</value>\n" in compile_prompt([Shown("x")])


def test_nested_blocks_are_in_the_elements_of_their_parents() -> None:
    """A parent that is itself a block comes before its children; one that is none is only an element."""
    blocks = [Shown("system", "S", "D"), Shown("system/human", "H"), Shown("notes/a/b", "B"), Shown("persona", "P")]

    def content(value: str, description: str = "") -> str:
        return (
            f"<description>\n{description}\n</description>\n"
            "<metadata>\n- read_only=false\n- chars_current=1\n- chars_limit=5000\n</metadata>\n"
            f"<value>\n{value}\n</value>\n"
        )

    assert compile_prompt(blocks, style="nested") == (
        "<memory_blocks>\nThe following memory blocks are currently engaged in your core memory unit:\n"
        f"\n<persona>\n{content('P')}</persona>\n"
        f"\n<notes>\n<a>\n<b>\n{content('B')}</b>\n</a>\n</notes>\n"
        f"\n<system>\n{content('S', 'D')}<human>\n{content('H')}</human>\n</system>\n"
        "</memory_blocks>"
    )


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("system/human", ("<system/human>", "</system/human>")),
        ("release-1.2", ("<release-1.2>", "</release-1.2>")),
        ("values", ("<values>", "</values>")),
        ("value", ('<block name="value">', "</block>")),
        ("Memory_Blocks", ('<block name="Memory_Blocks">', "</block>")),
        ("my/value", ('<block name="my/value">', "</block>")),
        ("block", ('<block name="block">', "</block>")),
        ('a"><b>&\n', ('<block name="a&quot;&gt;&lt;b&gt;&amp;&#10;">', "</block>")),
    ],
)
def test_a_name_that_cannot_be_a_tag_is_an_attribute(name: str, tags: tuple[str, str]) -> None:
    """No block can pass for a part of the format."""
    lines = compile_prompt([Shown(name)]).split("\n")
    assert (lines[3], lines[-2]) == tags


def test_a_nested_name_is_an_attribute_only_where_it_must() -> None:
    """Segments are judged one by one."""
    text = compile_prompt([Shown("notes/value/x")], style="nested")
    assert '\n<notes>\n<block name="value">\n<x>\n<description>\n' in text
    assert text.endswith("\n</value>\n</x>\n</block>\n</notes>\n</memory_blocks>")


# No text leaves its element


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("</value>", r"<\/value>"),
        (r"<\/value>", r"<\\/value>"),
        (r"<\\/value>", r"<\\\/value>"),
        ("< / VALUE >", "<\\ / VALUE >"),
        ("<\n/value", "<\\\n/value"),
        ("<value>", r"<\value>"),
        ("<</value>", r"<<\/value>"),
        ("</memory_blocks>", r"<\/memory_blocks>"),
        ("</system/human>", r"<\/system/human>"),
        ("</human>", r"<\/human>"),
        ("<System x='1'>", r"<\System x='1'>"),
        ('<block name="x">', r'<\block name="x">'),
        ("<values> </valued> <value_2>", "<values> </valued> <value_2>"),
        ("<b>bold</b> & a < b, \\ → <!-- x -->", "<b>bold</b> & a < b, \\ → <!-- x -->"),
        ("</persona>", "</persona>"),
        ("value> /value", "value> /value"),
    ],
)
def test_only_tags_of_the_format_get_a_backslash(text: str, shown: str) -> None:
    """Other markup stays as it is."""
    assert f"<value>\n{shown}\n</value>" in compile_prompt([Shown("system/human", text)])
    assert f"<description>\n{shown}\n</description>" in compile_prompt([Shown("system/human", description=text)])


@pytest.mark.parametrize("filler", [" ", "\\", "< ", "</"])
def test_a_long_run_costs_no_more_than_other_text(filler: str) -> None:
    """What looks like the beginning of a tag for a million characters is none, and is soon found to be none."""
    value = "<" + filler * 1_000_000
    assert f"<value>\n{value}\n</value>" in compile_prompt([Shown("x", value)])


WORDS = (
    *("memory_blocks", "block", "description", "metadata", "warning", "value", "tool_usage_rules"),
    *("directories", "file_limits", "directory", "instructions", "file"),
)
NAMES = (
    *("persona", "human", "system", "system/human", "system/human/prefs", "a", "a/b", "a/b/c", "a-b", "a.b", "a."),
    *("é/ß", "p", "Value", "notes/value", "block/block", "memory_blocks", "Warning/x", "1"),
)
PARTS = (
    *(
        "<",
        "</",
        ">",
        "/",
        "\\",
        " ",
        "\n",
        "\t",
        "\xa0",
        "→",
        "1→ ",
        "2→ ",
        "é",
        "😀",
        "&lt;",
        '"',
        "=",
        "x",
        "\u017f",
    ),
    *(f"<{word}>" for word in (*WORDS, *NAMES)),
    *(f"</{word}>" for word in (*WORDS, *NAMES)),
    *WORDS,
    *NAMES,
    "VALUE",
    "<\\/value>",
    "- read_only=false\n",
    "</value>\n</persona>\n\n<human>\n<description>\n",
)

texts = st.lists(st.sampled_from(PARTS) | st.text(max_size=3), max_size=8).map("".join)
names = st.sampled_from(NAMES) | st.from_regex(r"[a-z]\w{0,2}(/[a-z][a-z.-]{0,2}){0,2}", fullmatch=True)
visible = st.builds(
    Shown,
    name=names,
    value=texts,
    description=st.none() | texts,
    limit=st.integers(1, 10**6),
    read_only=st.booleans(),
)
several = st.lists(visible, max_size=5, unique_by=lambda block: block.name)
files = st.builds(
    File,
    name=names | texts,
    is_open=st.booleans(),
    value=texts,
    limit=st.integers(1, 10**6),
    description=st.none() | texts,
    read_only=st.booleans(),
    last_accessed_at=st.none() | st.sampled_from(["2026-11-20T09:00:00.000Z", "2026-11-20T09:00:01.000Z"]),
)
places = st.builds(
    Source,
    name=names | texts,
    description=st.none() | texts,
    instructions=st.none() | texts,
    files=st.lists(files, max_size=4, unique_by=lambda file: file.name).map(tuple),
)
some_places = st.lists(places, max_size=3, unique_by=lambda source: source.name)


class Reader:
    """Reads blocks back out of a text, by the format alone: an element ends where its end tag first stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.found: list[Shown] = []

    def take(self, pattern: str) -> re.Match[str]:
        match = re.match(pattern, self.text, re.DOTALL)
        assert match, (pattern, self.text)
        self.text = self.text[match.end() :]
        return match

    def blocks(self, style: Style) -> list[Shown]:
        if self.text:
            self.take("<memory_blocks>\nThe following memory blocks are currently engaged in your core memory unit:\n")
            while self.text != "</memory_blocks>":
                self.take("\n")
                self.element(style, "")
        return self.found

    def element(self, style: Style, above: str) -> None:
        start = self.take(r'<(?:block name="([^"]*)"|([^ >\n]+))>\n')
        name = above + (unescaped(start[1]) if start[2] is None else start[2])
        if self.text.startswith("<description>"):
            self.content(style, name)
        while style == "nested" and not self.text.startswith("</"):
            self.element(style, name + "/")
        self.take(f"</{re.escape(start[2] or 'block')}>\n")

    def content(self, style: Style, name: str) -> None:
        description = self.take("<description>\n(.*?)\n</description>\n")[1]
        facts = self.take(r"<metadata>\n- read_only=(\w+)\n- chars_current=(\d+)\n- chars_limit=(\d+)\n</metadata>\n")
        if style == "line-numbered":
            self.take("<warning>\n# NOTE: [^\n]*\n</warning>\n")
        lines = self.take("<value>\n(.*?)</value>\n")[1].split("\n")
        assert lines.pop() == ""
        if style == "line-numbered":
            assert all(line.startswith(f"{number}→ ") for number, line in enumerate(lines, 1))
            lines = [line.split("→ ", 1)[1] for line in lines]
        value = read_back("\n".join(lines), name)
        assert len(value) == int(facts[2])
        self.found.append(
            Shown(name, value, read_back(description, name), limit=int(facts[3]), read_only=facts[1] == "true")
        )


def read_back(shown: str, name: str) -> str:
    """The text, without the backslash that was put in."""
    words = "|".join(re.escape(word) for word in (*WORDS, name, *name.split("/")))
    return re.sub(rf"(?i)<\\(?=\\*\s*/?\s*(?:{words})(?!\w))", "<", shown)


def unescaped(attribute: str) -> str:
    """What XML has it stand for."""
    entities = {"amp": "&", "quot": '"', "lt": "<", "gt": ">"}
    return re.sub(r"&(?:#(\d+)|(\w+));", lambda found: entities.get(found[2]) or chr(int(found[1])), attribute)


def tags(text: str) -> list[str]:
    """Every tag of the format that a lenient reader may find."""
    return re.findall(rf"(?i)<\s*/?\s*(?:{'|'.join(WORDS)})(?!\w)", text)


def emptied(block: Shown) -> Shown:
    return replace(block, value="", description=None)


@settings(deadline=None, max_examples=examples(100))
@given(several, st.sampled_from(["standard", "line-numbered", "nested"]))
def test_blocks_can_be_read_back(blocks: list[Shown], style: Style) -> None:
    """The text says all of what is shown, so that different blocks never give the same text, and nested elements are
    well-formed."""
    found = Reader(compile_prompt(blocks, style=style)).blocks(style)
    expected = [replace(block, description=block.description or "") for block in blocks]
    assert sorted(found, key=lambda block: block.name) == sorted(expected, key=lambda block: block.name)


@settings(deadline=None, max_examples=examples(100))
@given(several, st.sampled_from(["standard", "line-numbered", "nested"]))
def test_no_value_leaves_its_element(blocks: list[Shown], style: Style) -> None:
    """Whatever values and descriptions say, the tags are those of blocks that say nothing."""
    text = compile_prompt(blocks, style=style)
    assert tags(text) == tags(compile_prompt(map(emptied, blocks), style=style))
    assert text.count("<value>") == text.count("</value>") == len(blocks)


@settings(deadline=None, max_examples=examples(100))
@given(visible)
def test_a_block_cannot_end_or_repeat_its_own_element(block: Shown) -> None:
    """Its tags are there once, even to a reader who overlooks case and whitespace."""
    tag = rf"(?i)<\s*/?\s*{re.escape(block.name)}(?!\w)"
    assert len(re.findall(tag, compile_prompt([block]))) == len(re.findall(tag, compile_prompt([emptied(block)])))


@settings(deadline=None, max_examples=examples(100))
@given(several, several.flatmap(lambda blocks: st.permutations(blocks).map(lambda other: (blocks, other))))
def test_the_order_they_come_in_makes_no_difference(hidden: list[Shown], pair: tuple[list[Shown], list[Shown]]) -> None:
    """Nor do hidden blocks and templates among them."""
    blocks, other = pair
    unseen = [replace(block, hidden=True) for block in hidden[::2]]
    templates = [replace(block, is_template=True) for block in hidden[1::2]]
    for style in STYLES:
        assert compile_prompt(blocks, style=style) == compile_prompt([*unseen, *other, *templates], style=style)


@settings(deadline=None, max_examples=examples(100))
@given(several.filter(bool), visible, st.data(), st.sampled_from(["standard", "line-numbered"]))
def test_a_change_of_a_block_changes_its_element_alone(
    blocks: list[Shown], change: Shown, data: st.DataObject, style: Style
) -> None:
    """All text before it stays, so that a model's cache holds up to there; and so does all text behind it."""
    place = data.draw(st.integers(0, len(blocks) - 1))
    changed = replace(change, name=blocks[place].name)
    texts = []
    for block in (blocks[place], changed):
        text = compile_prompt([*blocks[:place], block, *blocks[place + 1 :]], style=style)
        alone = compile_prompt([block], style=style)
        element = alone.partition("unit:\n")[2].removesuffix("</memory_blocks>")
        before, found, after = text.partition(element)
        assert found
        texts.append((before, after))
    assert texts[0] == texts[1]


@settings(deadline=None, max_examples=examples(100))
@given(several, some_places, texts, texts, st.none() | st.integers(0, 3), st.sampled_from(STYLES))
def test_no_text_of_rules_or_sources_leaves_its_element(
    blocks: list[Shown], sources: list[Source], description: str, value: str, most: int | None, style: Style
) -> None:
    """Descriptions, instructions, rules and files make no tags either, whatever they say and whatever they are called."""

    def silent(source: Source) -> Source:
        return replace(
            source,
            description=source.description and "x",
            instructions=source.instructions and "x",
            files=tuple(replace(file, value="", description=file.description and "x") for file in source.files),
        )

    text = compile_prompt(
        blocks,
        style=style,
        tool_usage_rules=ToolUsageRules(description, value),
        sources=sources,
        max_files_open=most,
    )
    nothing_said = compile_prompt(
        map(emptied, blocks),
        style=style,
        tool_usage_rules="x",
        sources=map(silent, sources),
        max_files_open=most,
    )
    assert tags(text) == tags(nothing_said)
    attributes = re.findall(r'^<directory name="([^"]*)">$', text, re.MULTILINE)
    assert [unescaped(name) for name in attributes] == sorted(source.name for source in sources)


# Sources


def opened(name: str, accessed: str | None, value: str = "text") -> File:
    return File(name, is_open=True, value=value, limit=100, last_accessed_at=accessed)


def statuses(text: str) -> dict[str, str]:
    return {name: status for status, name in re.findall(r'<file status="(\w+)" name="(\w+)">', text)}


@pytest.mark.parametrize(
    ("most", "shown_open"),
    [(None, "abcd"), (5, "abcd"), (4, "abcd"), (3, "abc"), (2, "ac"), (1, "c"), (0, "")],
)
def test_the_files_accessed_last_stay_open(most: int | None, shown_open: str) -> None:
    """Of files accessed at the same time the first by source and name does; one never accessed is the first to close."""
    early, late = "2026-11-20T09:00:00.000Z", "2026-11-20T10:00:00.000Z"
    sources = [
        Source("two", None, None, (opened("d", None), opened("c", late))),
        Source("one", None, None, (opened("b", early), opened("a", early))),
        Source("three", None, None, (File("e", is_open=False, value="", limit=100, last_accessed_at=late),)),
    ]
    text = compile_prompt([], sources=sources, max_files_open=most)
    assert statuses(text) == {name: "open" if name in shown_open else "closed" for name in "abcde"}
    assert text.count("<value>") == len(shown_open)
    assert (f"- current_files_open={len(shown_open)}\n- max_files_open={most}\n" in text) == (most is not None)
    assert compile_prompt([], sources=reversed(sources), max_files_open=most) == text


def test_a_closed_file_is_shown_without_its_text() -> None:
    """Its name, description and metadata are there; it has no characters."""
    file = File("x", is_open=False, value="secret", limit=100, description="D")
    metadata = "<metadata>\n- read_only=true\n- chars_current=0\n- chars_limit=100\n</metadata>\n"
    assert compile_prompt([], sources=[Source("s", None, None, (file,))]) == (
        '\n\n<directories>\n<directory name="s">\n'
        f'<file status="closed" name="x">\n<description>\nD\n</description>\n{metadata}</file>\n'
        "</directory>\n</directories>"
    )
    assert "secret" not in compile_prompt([], style="nested", sources=[Source("s", None, None, (file,))])


def test_an_open_file_may_be_empty() -> None:
    """It is shown open, and counts as open."""
    text = compile_prompt([], sources=[Source("s", None, None, (opened("x", None, ""),))], max_files_open=1)
    assert '<file status="open" name="x">' in text
    assert "<value>\n\n</value>" in text
    assert "- current_files_open=1\n" in text


def test_a_source_says_nothing_it_was_not_given() -> None:
    """Without description, instructions and files a directory has only its name."""
    text = compile_prompt([], sources=[Source("s", None, None, ())])
    assert text == '\n\n<directories>\n<directory name="s">\n</directory>\n</directories>'


def test_file_names_are_escaped_as_xml_does() -> None:
    """A file can be called anything, and is still one file of one directory."""
    name = 'a"b<c>&\n\x7f/d'
    text = compile_prompt([], sources=[Source(name, None, None, (opened(name, None),))])
    shown = "a&quot;b&lt;c&gt;&amp;&#10;&#127;/d"
    assert f'<directory name="{shown}">\n<file status="open" name="{shown}">\n' in text


def test_a_nested_file_that_cannot_be_a_tag_is_an_attribute() -> None:
    """As with blocks."""
    source = Source("s", None, None, (opened("src/main.py", None), opened("two words", None), opened("value", None)))
    text = compile_prompt([], style="nested", sources=[source])
    assert re.findall(r'<file status="open">\n(.*)\n', text) == [
        "<src/main.py>",
        '<block name="two words">',
        '<block name="value">',
    ]
