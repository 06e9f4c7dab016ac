"""Files as people have them: what is in force, what is a problem or a warning, and what is told of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocksd.files.document import edited, serialize, split
from blocksd.files.frontmatter import set_key
from blocksd.files.lookalike import conflict, lookalike
from blocksd.files.yaml_reader import load
from blocksd.model.block import replaced
from parsed import parse
from support import examples

if TYPE_CHECKING:
    from blocksd.model.problem import Problem
    from looking import Looking

NOTHING = ""


NAMED = [
    # path, label or what is told of it
    ("My note (draft), 2nd.md", "My note (draft), 2nd", NOTHING),
    ("Q&A — what's new? no.md", None, "'Q&A — what's new no.md'"),
    ("हिन्दी.md", "हिन्दी", NOTHING),
    ("தமிழ்/குறிப்பு.md", "தமிழ்/குறிப்பு", NOTHING),
    ("ภาษาไทย.md", "ภาษาไทย", NOTHING),
    ("می\u200cخواهم.md", "می\u200cخواهم", NOTHING),
    ("📌 pinned.md", "📌 pinned", NOTHING),
    ("a\u202egnp.md", None, "right-to-left override"),
    (" leading.md", None, "may not start with a space"),
    ("trailing .md", None, "may not end with a space"),
    ("persona.sync-conflict-20261120-100000-ABCDEFG.md", None, "delete this copy"),
    ("persona_LOCAL_4711.md", None, "a merge tool made of persona.md"),
    ("other_LOCAL_4711.md", "other_LOCAL_4711", NOTHING),
    ("persona (conflicted copy 2026-11-20).md", None, "delete this copy"),
]


@pytest.mark.parametrize(("path", "label", "words"), NAMED, ids=[ascii(path)[1:30] for path, *_ in NAMED])
def test_name_of_a_file(looking: Looking, path: str, label: str | None, words: str) -> None:
    """It is a block's label, or a problem that says the reason and a way out."""
    looking.write("persona", "Who I am.\n")
    looking.write(path.removesuffix(".md"), "text\n")
    looking.sweep()
    assert looking.state.paths == {"persona": "persona.md"} | ({label: path} if label else {})
    told = [problem.sentence() for problem in looking.problems.values()]
    assert len(told) == (label is None)
    assert all(words in sentence for sentence in told)


def test_directory_named_like_a_block(looking: Looking) -> None:
    """It is a problem, and not entered; one named like an editor's temporary is ignored."""
    looking.write("x.md/y", "text\n")
    looking.write("foo.swp/y", "text\n")
    looking.sweep()
    assert looking.state.paths == {}
    assert [*looking.problems] == ["x.md"]


def test_markdown_under_other_endings_is_told_of_once(looking: Looking) -> None:
    """One warning for all such files, which is over when they are renamed; nothing is told of files of other kinds."""
    for name in ("NOTES.MD", "a/b.markdown", "c.mdx", "d.md.txt", ".e.MD", "f.txt"):
        path = looking.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("text\n")
    looking.sweep()
    (problem,) = looking.problems.values()
    assert problem.warning
    assert problem.message.startswith("4 Markdown files are no blocks")
    assert "NOTES.MD, a/b.markdown, c.mdx, …" in problem.message
    assert problem.hint == "rename what is a block, for example to 'NOTES.md'"
    for name in ("NOTES.MD", "c.mdx", "d.md.txt"):
        (looking.root / name).unlink()
    (looking.root / "a/b.markdown").rename(looking.root / "a/b.md")
    looking.sweep()
    assert looking.problems == {}
    assert [*looking.state.paths] == ["a/b"]


class Case(NamedTuple):
    """A file, what becomes of it (`force`, `problem`, `warning`), and what is told of it."""

    text: str
    outcome: str
    words: tuple[str, ...] = ()


OURS = "read_only: true\nagents: [a1]\n"
TEXTS = [
    # --- a frontmatter that is not seen as one
    Case(
        f"\n---\n{OURS}---\nNever refund.\n", "problem", ("a blank line stands above", "'read_only' and 'agents' are")
    ),
    Case(f"\n \n\n---\n{OURS}---\nX\n", "problem", ("a blank line stands above", "md:4:")),
    Case(f"<!-- policy -->\n---\n{OURS}---\nX\n", "problem", ("a comment stands above",)),
    Case(f"<!-- a\npolicy -->\n\n---\n{OURS}---\nX\n", "problem", ("a comment stands above", "md:4:")),
    Case(f"# Policy\n---\n{OURS}---\nX\n", "problem", ("a comment or a heading stands above",)),
    Case(f"\ufeff\ufeff---\n{OURS}---\nX\n", "problem", ("U+FEFF", "stands before")),
    Case(" ---\nlimit: 5\n---\nX\n", "problem", ("a space stands before", "'limit' is not in force")),
    Case("\t---\nlimit: 5\n---\nX\n", "problem", ("a tab stands before",)),
    Case("----\nread_only: true\n----\nX\n", "problem", ("its first line is '----'",)),
    Case("--\nread_only: true\n--\nX\n", "problem", ("its first line is '--'",)),
    Case("—\nread_only: true\n—\nX\n", "problem", ("its first line is '—'",)),
    Case("—-\nread_only: true\n—-\nX\n", "problem", ("its first line is '—-'",)),
    Case("---yaml\nread_only: true\n---\nX\n", "problem", ("its first line is '---yaml'",)),
    Case("--- # about\nread_only: true\n---\nX\n", "problem", ("its first line is '--- # about'",)),
    Case("---\u00a0\nlimit: 5\n---\nX\n", "problem", ("U+00A0 (no-break space) stands behind",)),
    Case("---\rlimit: 5\r---\rX\r", "problem", ("end with CR alone", "LF or CRLF")),
    Case("***\nread_only: true\n***\nX\n", "problem", ("its first line is '***'", "write '---' for '***'")),
    Case("====\nagents:\n  - a1\nlimit: 5\n====\nX\n", "problem", ("its first line is '===='", "'agents' and 'limit'")),
    Case("___\r\ntags: [a]\r\n___\r\nX\r\n", "problem", ("its first line is '___'",)),
    Case("+++\nread_only: true\n+++\nX\n", "problem", ("TOML",)),
    Case("+++\nlimit = 5\n+++\nX\n", "problem", ("TOML", "write it in YAML")),
    Case("+++\n# a comment\n[params]\ntags = ['a']\n+++\nX\n", "problem", ("TOML",)),
    Case('{"limit": 5}\n\nX\n', "problem", ("JSON", "write it in YAML")),
    Case('\n{\n  "description": "x",\n  "title": "y"\n}\nX\n', "problem", ("JSON",)),
    Case("\n---\nreadonly: true\n---\nX\n", "problem", ("'read_only'",)),
    Case(
        "---\ntitle: x\n---\n---\nread_only: true\nagents: [a1]\n---\nX\n", "problem", ("a second frontmatter", "md:4:")
    ),
    Case("---\ntitle: x\n---\n\n---\nread_only: true\n---\nX\n", "warning", ("a second frontmatter", "md:5:")),
    Case(f"\n---\n{OURS}\nNever closed.\n", "problem", ("a blank line stands above", "'read_only' and 'agents' are")),
    Case("\n---\nagents:\n  - a1\n# all\nlimit: 5\nX", "problem", ("'agents' and 'limit' are",)),
    Case("\n" * 90 + f"---\n{OURS}---\nX\n", "problem", ("a blank line stands above", "md:91:")),
    # --- a value that only resembles one
    Case("\n---\ntags: a, b\n\nNever closed.\n", "force"),
    Case("\n---\n\nagents: those who act for others.\n\nProse.\n", "force"),
    Case("\n---\nname: x\n\nread_only: is a key.\n", "force"),
    Case('{"colour": 5}\n\nX\n', "force"),
    Case('{"limit": 5, "tags": ["a"]}\n', "force"),
    Case('{"tags": ["a"]}\n{"tags": ["b"]}\n', "force"),
    Case("{{< figure >}}\nlimit: 5\n", "force"),
    Case(f"---\n---\n---\n{OURS}---\nX\n", "force"),
    Case("\n---\ntitle: a dialogue\n---\nX\n", "force"),
    Case("\n---\n\nLimit: of what we do.\n\nMore prose.\n", "force"),
    Case("# Title\n\n---\n\ntags: a, b\n\n---\n\nProse\n", "force"),
    Case("***\nread_only: true\n\nand prose\n***\n", "force"),
    Case("***\nread_only: true\n", "force"),
    Case("***\n***\nX\n", "force"),
    Case("***\nNote: tags are words.\ntags: a\n***\n", "force"),
    Case("X\n\n***\nread_only: true\n***\n", "force"),
    Case("Title\n=====\nlimit: 5\n=====\n", "force"),
    Case("~~~\nread_only: true\n~~~\n", "force"),
    Case("----\n\nSome prose.\n\nlimit: 5\n\n----\n", "force"),
    Case("Intro\n\n---\nlimit: 5\n---\nX\n", "force"),
    Case(f"```yaml\n---\n{OURS}---\n```\n", "force"),
    Case("Title\n-----\ntags: a\n-----\n", "force"),
    Case("a | b\n--- | ---\nlimit: 1 | 2\n", "force"),
    Case("| a |\n|---|\n| 1 |\n", "force"),
    Case("=====\nTitle\n=====\n", "force"),
    Case("<!-- toc\nnever closed\n---\nlimit: 5\n---\n", "force"),
    Case("- a\n- b\n", "force"),
    Case("%% a note %%\ntext\n", "force"),
    # --- thematic breaks
    Case("---\n\n# Title\n\n---\nX\n", "warning", ("the heading '# Title'", "'***'", "md:3:")),
    Case("---\n# a comment of the frontmatter\n---\nX\n", "force"),
    Case("---\n\n# limit: 5\n\n---\nX\n", "force"),
    Case("---\n\n---\nX\n", "force"),
    Case("---\n\nProse.\n\n---\nX\n", "problem", ("not a mapping", "'***'")),
    # --- fences
    Case("---\nlimit: 5\n...\nX\n", "problem", ("line 3", "'...'")),
    Case("---\nlimit: 5\n...\nX\n\n---\nY\n", "problem", ("'...'", "close it with '---'")),
    Case("---\nlimit: 5\n----\nX\n", "problem", ("never closed", "line 3", "'----'")),
    Case("---\nlimit: 5\n --- \nX\n", "problem", ("never closed", "line 3")),
    Case("---\nlimit: 5\nX\n", "problem", ("never closed", "add a line '---'")),
    # --- what Git leaves
    Case("---\nlimit: 5000\n---\n<<<<<<< HEAD\nA\n=======\nB\n>>>>>>> theirs\n", "problem", ("conflict", "md:4:")),
    Case("<<<<<<< HEAD\n---\nlimit: 5\n=======\n---\nlimit: 6\n>>>>>>> x\n---\nA\n", "problem", ("conflict", "md:1:")),
    Case("---\n<<<<<<< HEAD\nlimit: 5\n=======\nlimit: 6\n>>>>>>> x\n---\nA\n", "problem", ("conflict", "md:2:")),
    Case("a\r\n<<<<<<< HEAD\r\nA\r\n=======\r\nB\r\n>>>>>>> x\r\n", "problem", ("conflict", "md:2:")),
    Case("<<<<<<< a\nA\n||||||| b\nB\n=======\nC\n>>>>>>> c\n", "problem", ("conflict",)),
    Case(
        "<<<<<<< Conflict 1 of 1\n%%%%%%% diff\n-a\n+++++++ b\nc\n>>>>>>> Conflict 1 ends\n", "problem", ("conflict",)
    ),
    Case("<<<<<<< a\n```\nA\n```\n=======\n```\nB\n```\n>>>>>>> c\n", "problem", ("conflict",)),
    Case("```\n<<<<<<< a\nA\n=======\nB\n>>>>>>> c\n", "problem", ("conflict",)),
    Case("```\n<<<<<<< a\nA\n=======\nB\n>>>>>>> c\n```\n", "force"),
    Case("~~~~ text\n```\n<<<<<<< a\n=======\n>>>>>>> c\n~~~~\n", "force"),
    Case("    <<<<<<< a\n    =======\n    >>>>>>> c\n", "force"),
    Case("The marker `<<<<<<<` begins it, `>>>>>>>` ends it.\n=======\n", "force"),
    Case(">>>>>>> a\n=======\n<<<<<<< b\n", "force"),
    Case(
        "version https://git-lfs.github.com/spec/v1\n"
        "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n",
        "problem",
        ("Git LFS", "git lfs pull"),
    ),
    # --- keys
    Case("---\ntitle: Refunds\ndate: 2026-11-20\naliases: [r]\ncssclass: wide\n---\nX\n", "force"),
    Case("---\nname: x\nlayout: post\ncategories: a\nagenda: b\ntime: c\nallowed-tools: Bash\n---\nX\n", "force"),
    Case(
        "---\nreadonly: true\ndescripton: x\nLimit: 5\nagent: a1\n---\nX\n",
        "warning",
        (
            "'readonly' is ignored, and agents may change the block",
            "mean 'read_only'",
            "line 3: unknown key 'descripton' is ignored (did you mean 'description'",
            "'limit'",
            "line 5: unknown key 'agent' is ignored (did you mean 'agents'",
        ),
    ),
    Case("---\nlabel: x\n---\nX\n", "warning", ("the label is the file's path",)),
    Case('---\nread_only: "no"\nlimit: many\n---\nX\n', "problem", ("write read_only: false", "line 3: limit must be")),
    Case("---\nread_only: 5\nlimit: 2\ntags: 1\n---\nX\u0007\n", "problem", ('tags: ["1"]', "line 6: value holds")),
    Case("---\nagents: support-1, support-2\n---\nX\n", "problem", ("agents: [support-1, support-2]",)),
    Case("---\nagents: support-1\n---\nX\n", "problem", ("agents: [support-1]",)),
    Case("---\ntags:\n- \nagents:\n  - a\n  -\n---\nX\n", "force"),
    Case("---\ntags: a b c\n---\nX\n", "problem", ("tags: [a, b, c]",)),
    Case("---\ntags: [2024, x y]\n---\nX\n", "problem", ('tags: ["2024", "x y"]',)),
    Case("---\nread_only: yes\n---\nX\n", "problem", ("read_only: true", "true and false alone")),
    Case("---\nread_only: off\n---\nX\n", "problem", ("read_only: false",)),
    Case("---\nlimit: 5,000\n---\nX\n", "problem", ("limit: 5000",)),
    Case('---\nlimit: "5000"\n---\nX\n', "problem", ("limit: 5000",)),
    Case("---\ndescription: 2026\n---\nX\n", "problem", ('description: "2026"',)),
    Case("---\nglobs: **/*.py\n---\nX\n", "problem", ('globs: "**/*.py"',)),
    Case("---\nname: {{ cookiecutter.name }}\n---\nX\n", "problem", ("'{{'", 'name: "{{ cookiecutter.name }}"')),
    Case("---\ndescription: Use when: asked\n---\nX\n", "problem", ('description: "Use when: asked"',)),
    Case("---\ndescription: @handle\n---\nX\n", "problem", ('description: "@handle"',)),
    Case("---\nmetadata:\n\ta: b\n---\nX\n", "problem", ("tab", "spaces")),
]


@pytest.mark.parametrize("case", TEXTS, ids=[repr(case.text)[1:40] for case in TEXTS])
def test_text_of_a_file(looking: Looking, case: Case) -> None:
    """It is in force, or a problem that says what and where, and what to do; a warning changes nothing."""
    looking.save("notes", case.text)
    assert ("notes" in looking.state.paths) is (case.outcome != "problem")
    problem: Problem | None = looking.problems.get("notes.md")
    assert (problem is not None) is (case.outcome != "force"), problem
    if problem is not None:
        assert problem.warning is (case.outcome == "warning")
        assert problem.hint
        for words in case.words:
            assert words in problem.sentence()


@pytest.mark.parametrize(
    "case", [case for case in TEXTS if case.outcome == "problem"], ids=lambda case: repr(case.text)[:30]
)
def test_last_good_version_stays_in_force(looking: Looking, case: Case) -> None:
    """Also where the file is one that was a block until its text was looked at more closely."""
    looking.save("notes", f"---\n{OURS}---\nAs it was.\n")
    looking.save("notes", case.text)
    assert looking.value() == "As it was."
    assert looking.problem().code == "problem_file"


def test_emoji_stays_as_it_was_typed() -> None:
    """Where another key of its frontmatter is changed, and where the text itself is."""
    text = '---\ndescription: "📌 pinned"\n---\nX\n'
    block = parse(text.encode(), "notes")
    with_limit = edited(split(text), block, replaced(block, {"limit": 50}))
    assert with_limit.text == '---\ndescription: "📌 pinned"\nlimit: 50\n---\nX\n'
    changed = edited(split(text), block, replaced(block, {"description": "🩷 it's: new"}))
    assert changed.text == "---\ndescription: '🩷 it''s: new'\n---\nX\n"
    assert parse(changed.text.encode(), "notes").description == "🩷 it's: new"


@settings(deadline=None, max_examples=examples(50))
@given(
    st.recursive(
        st.text(st.characters(codec="utf-8"), max_size=8),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_every_printable_character_stays(value: object) -> None:
    """Whatever is written in a frontmatter is read back, and no emoji is escaped."""
    matter = set_key("", "metadata", {"x": value})
    assert load(matter)["metadata"] == {"x": value}
    assert not re.search(r"(?<!\\)(?:\\\\)*\\U000[1-9]", matter) or "\\U000" in str(value)


def test_append_changes_no_other_lines_end() -> None:
    """In a file whose lines end in several ways."""
    assert split("l1\nl2\r\nl3\n").with_value("l1\nl2\nl3\nl4").text == "l1\nl2\r\nl3\nl4\n"
    assert split("l1\r\nl2\nl3").with_value("l1\nl2\nl3\nl4").text == "l1\r\nl2\nl3\r\nl4"
    assert split("l1\rl2\nl3\r\n").with_value("l0\nl1\nl2\nl3").text == "l0\nl1\rl2\nl3\r\n"
    mixed = "---\nlimit: 50\n---\r\na\r\nb\r\nc\r\n"
    assert split(mixed).with_value("a\nB\nc").text == "---\nlimit: 50\n---\r\na\r\nB\nc\r\n"
    many = "".join(f"line {number}\r\n" if number % 3 else f"line {number}\n" for number in range(50))
    value = split(many).value.replace("line 7\n", "line seven\n").replace("line 30\n", "")
    assert split(many).with_value(value).text == many.replace("line 7\r\n", "line seven\n").replace("line 30\n", "")


PIECES = [
    "---",
    "----",
    " ---",
    "---yaml",
    "—",
    "+++",
    "...",
    "\n",
    "\n",
    "limit: 5",
    "read_only: true",
    "agents = 1",
    "x: 1",
]
PIECES += [
    '{"limit": 5}',
    "\ufeff",
    "\u00a0",
    "<!-- c -->",
    "# T",
    "version https://git-lfs.github.com/spec/v1\noid sha256:",
    "X",
]
STARTS = [
    "",
    "X\n",
    "---\n---\n",
    "---\nlimit: 500\n---\n",
    "---\nlimit: 500\n---\n\nX\n",
    "---\r\nlimit: 500\r\n---",
    "\ufeffX\r\n",
]
STARTS += ["---\n# only a comment\n---\nX\n", "---\n---\n---\nread_only: true\n---\nX\n"]


@settings(deadline=None, max_examples=examples(1000))
@given(
    st.sampled_from(STARTS),
    st.lists(st.sampled_from(PIECES), max_size=10).map("".join),
    st.sampled_from([None, 7, 900]),
)
def test_value_that_looks_like_a_frontmatter_is_read_back(start: str, value: str, limit: int | None) -> None:
    """Whatever a request writes as a value is the value, and says nothing of the block; also when a key comes or goes."""
    before = parse(start.encode(), "notes")
    document = edited(split(start), before, replaced(before, {"value": value}))
    after = parse(document.text.encode(), "notes")
    assert after == replaced(before, {"value": value})
    if limit is None or len(value) <= limit:
        changed = replaced(after, {"limit": limit or 20_000})
        assert parse(edited(document, after, changed).text.encode(), "notes") == changed
    assert parse(serialize(after), "notes") == after


@pytest.mark.parametrize(
    "text",
    [
        "```\n" + "<<<<<<< a\n=======\n>>>>>>> b\n" * 30_000 + "```\n",
        "\n---\n" + "read_onlx: 5\n" * 200_000,
        "\n" * 1_000_000,
        "\n---\n" + "a " * 500_000 + "\n---\n",
        " " * 1_000_000 + "---\nx: 5\n---\n",
        '{"a": "' + "x" * 1_000_000 + '"} text',
        "<!--" * 200_000,
    ],
    ids=["conflicts", "keys", "lines", "key", "spaces", "json", "comments"],
)
@pytest.mark.timeout(20)
def test_odd_text_is_looked_at_in_bounded_time(text: str) -> None:
    """Not in the square of its length: a second for each would be minutes."""
    assert lookalike(text) is None or text.startswith("\n---")
    assert conflict(text) is None
