from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, replace
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocksd.errors import BlocksdError, InvalidField, LimitExceeded
from blocksd.model.block import (
    DEFAULT_LIMIT,
    FILE_KEYS,
    MAX_LIMIT,
    Block,
    block_id,
    check_fields,
    check_text,
    check_value,
    default_description,
    facts_of,
)
from support import examples

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT_KEYS = (
    "description",
    "project_id",
    "template_name",
    "template_id",
    "base_template_id",
    "deployment_id",
    "entity_id",
)
FLAG_KEYS = ("read_only", "hidden", "is_template", "preserve_on_migration")

NOT_TEXT: list[object] = [1, 0, True, 1.5, [], ["a"], {}, {"a": 1}]
NOT_A_FLAG: list[object] = ["no", "yes", "true", "false", "", 0, 1, 1.0, [], {}]
NOT_A_LIMIT: list[object] = [0, -1, True, False, "100", 100.0, MAX_LIMIT + 1, 10**30, [], {}, float("inf")]
NOT_TAGS: list[object] = ["policy", "", 1, True, {}, {"a": 1}, [1], [None], ["a", True], [["a"]], [""]]
NOT_METADATA: list[object] = ["a", "", 1, False, [], [["a", 1]]]
NOT_AGENTS: list[object] = ["alice", "", "support-*", 1, True, {}, {"alice": 1}, [1], [None], ["alice", True], [["a"]]]

WRONG = [
    *((key, value) for key in TEXT_KEYS for value in NOT_TEXT),
    *((key, value) for key in FLAG_KEYS for value in NOT_A_FLAG),
    *(("limit", value) for value in NOT_A_LIMIT),
    *(("tags", value) for value in NOT_TAGS),
    *(("metadata", value) for value in NOT_METADATA),
    *(("agents", value) for value in NOT_AGENTS),
]

RIGHT: list[tuple[str, object, object]] = [
    *((key, "text", "text") for key in TEXT_KEYS),
    *((key, "", "") for key in TEXT_KEYS),
    *((key, flag, flag) for key in FLAG_KEYS for flag in (True, False)),
    ("description", "two\nlines\tand a tab", "two\nlines\tand a tab"),
    ("limit", 1, 1),
    ("limit", MAX_LIMIT, MAX_LIMIT),
    ("tags", [], ()),
    ("tags", ["b", "a", "b"], ("b", "a")),
    ("tags", ("a",), ("a",)),
    ("metadata", {}, {}),
    ("metadata", {"owner": ["ops", {"n": 1.5, "on": None}]}, {"owner": ["ops", {"n": 1.5, "on": None}]}),
    ("agents", [], ()),
    ("agents", "*", ("*",)),
    ("agents", ["*"], ("*",)),
    ("agents", ["bob", "support-*", "alice", "bob"], ("bob", "support-*", "alice")),
    ("agents", ["e\u0301ve", "\xe9ve"], ("\xe9ve",)),
]


def digest_of(label: str, given_fields: dict[str, Any]) -> str:
    return Block(label, **check_fields(label, given_fields)).digest


def refusal(act: Callable[[], object]) -> BlocksdError | None:
    try:
        act()
    except BlocksdError as error:
        return error
    return None


@pytest.mark.parametrize(("key", "given_value", "field"), RIGHT)
def test_a_field_of_the_right_type_is_taken(key: str, given_value: object, field: object) -> None:
    """A right value is the field; lists become tuples, without repetition, in the order written."""
    result = check_fields("x", {key: given_value})[key]
    assert result == field
    assert type(result) is type(field)


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_field_of_the_wrong_type_is_refused(key: str, value: object) -> None:
    """Types are checked, never coerced; the message and the facts name the field."""
    with pytest.raises(InvalidField) as caught:
        check_fields("x", {key: value})
    assert caught.value.facts["field"] == key
    assert caught.value.message.startswith(key)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("key", FILE_KEYS)
def test_null_is_the_default(key: str) -> None:
    """A key that says null is like a key that is absent."""
    assert check_fields("x", {key: None}) == check_fields("x", {})


def test_keys_that_are_no_field_are_left_out() -> None:
    """Unknown keys, and those the path and the body speak for, make no field."""
    assert check_fields("x", {"limti": 5, "label": "y", "value": "v", "": 1, "digest": "d"}) == {"description": None}


def test_every_field_has_a_check() -> None:
    """No key a file may have goes unchecked: a set is right for none of them."""
    for key in FILE_KEYS:
        with pytest.raises(InvalidField):
            check_fields("x", {key: object()})


def test_the_defaults_are_those_of_the_format() -> None:
    """An absent key takes its default."""
    block = Block("x", **check_fields("x", {}))
    assert block == Block("x")
    assert (block.value, block.description, block.limit, DEFAULT_LIMIT) == ("", None, 20_000, 20_000)
    assert (block.tags, block.metadata, block.agents) == ((), {}, ())
    assert not any(getattr(block, key) for key in FLAG_KEYS)


@pytest.mark.parametrize("key", ["alice", "support-*", "*"])
def test_a_private_block_cannot_list_agents(key: str) -> None:
    """A block below agents/<agent>/ is that agent's alone."""
    with pytest.raises(InvalidField, match="belongs to 'bob' alone") as caught:
        check_fields("agents/bob/notes", {"agents": [key]})
    assert caught.value.facts == {"field": "agents", "label": "agents/bob/notes", "owner": "bob"}


@pytest.mark.parametrize("nobody", [None, []])
def test_a_private_block_may_list_nobody(nobody: object) -> None:
    """An empty list says no more than no list."""
    assert not check_fields("agents/bob/notes", {"agents": nobody}).get("agents")


@pytest.mark.parametrize("agent", ["../x", "a/b", "", "a b", ".a", "a\n", "x" * 101, "{a}*", "a\0"])
def test_an_agents_entry_that_is_no_id_is_refused(agent: str) -> None:
    """The grammar of agent ids holds in a frontmatter too."""
    with pytest.raises(InvalidField, match=r"^agents: ") as caught:
        check_fields("x", {"agents": ["alice", agent]})
    assert caught.value.facts["field"] == "agents"


@pytest.mark.parametrize(
    ("label", "begins"),
    [
        ("persona", "The persona block:"),
        ("human", "The human block:"),
        ("system/persona", "The persona block:"),
        ("agents/alice/human", "The human block:"),
        ("agents/alice/system/human", "The human block:"),
    ],
)
def test_a_persona_and_a_human_describe_themselves(label: str, begins: str) -> None:
    """Without a description, these two have Letta's; what the author says wins, "" included."""
    text = check_fields(label, {})["description"]
    assert text == default_description(label) == check_fields(label, {"description": None})["description"]
    assert text.startswith(begins)
    assert check_fields(label, {"description": ""})["description"] == ""


@pytest.mark.parametrize("label", ["organization", "personas", "team/human", "agents/persona/notes", "human.old"])
def test_other_blocks_have_no_description_of_their_own(label: str) -> None:
    """Only a block an agent calls persona or human has a default description."""
    assert default_description(label) is None


@pytest.mark.parametrize("character", ["a", "é", "𝒳", "👩", "\n", "\t", "\u2028"])
def test_the_limit_counts_code_points(character: str) -> None:
    """A code point is one, whatever its size in bytes or UTF-16 units; the limit itself is allowed."""
    check_value(character * 10, 10)
    with pytest.raises(
        LimitExceeded, match=r"^Exceeds character limit: value is 11 characters, over its limit of 10$"
    ) as caught:
        check_value(character * 11, 10)
    assert caught.value.facts == {"chars": 11, "limit": 10}
    assert caught.value.as_json()["code"] == "limit_exceeded"


@pytest.mark.parametrize("character", ["\0", "\x07", "\x0b", "\x0c", "\r", "\x1b", "\x7f", "\x85", "\x9f"])
def test_a_control_character_is_refused_with_its_line(character: str) -> None:
    """Only tab and newline are text; any other control character is named, with the line it is on."""
    with pytest.raises(InvalidField, match=f"^value holds the control character U\\+{ord(character):04X}$") as caught:
        check_value(f"one\n\ttwo\nthree{character}\nfour{character}", 100)
    assert caught.value.facts == {"field": "value", "line": 3}


@pytest.mark.parametrize("half", [chr(0xD800), chr(0xDCFF), chr(0xDFFF)], ids=ascii)
def test_a_lone_surrogate_is_refused(half: str) -> None:
    """Half of a pair is no character: no file and no digest could hold it."""
    with pytest.raises(InvalidField, match="lone surrogate"):
        check_value(f"a{half}", 100)
    for key, value in (("description", half), ("tags", [half]), ("metadata", {"a": [half]}), ("metadata", {half: 1})):
        with pytest.raises(InvalidField):
            check_fields("x", {key: value})


@pytest.mark.parametrize("key", TEXT_KEYS)
def test_control_characters_are_refused_in_every_text(key: str) -> None:
    """The texts of a frontmatter follow the rule of the value."""
    with pytest.raises(InvalidField, match=f"^{key} holds the control character U\\+0007$"):
        check_fields("x", {key: "a\x07"})
    with pytest.raises(InvalidField, match=r"^tags holds"):
        check_fields("x", {"tags": ["a\x07"]})


@settings(deadline=None, max_examples=examples(200))
@given(st.text(st.characters(), max_size=20))
def test_a_text_that_passes_can_be_stored(text: str) -> None:
    """What check_text lets through is UTF-8, has no control character, and is left as it is."""
    error = refusal(lambda: check_text(text, "value"))
    if error:
        assert error.facts["line"] in range(1, text.count("\n") + 2)
    else:
        assert text.encode("utf-8").decode("utf-8") == text
        assert all(character.isprintable() or character.isspace() or ord(character) > 0x9F for character in text)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": [value]} if depth % 2 else {"a": value}
    return value


@pytest.mark.parametrize(
    "metadata",
    [{"a": float("nan")}, {"a": [float("-inf")]}, {"a": object()}, {1: "a"}, nested(34), nested(500)],
    ids=["nan", "infinity", "object", "number as key", "34 deep", "500 deep"],
)
def test_metadata_that_a_file_could_not_hold_is_refused(metadata: object) -> None:
    """A request may bring what JSON parsers admit and files do not."""
    with pytest.raises(InvalidField) as caught:
        check_fields("x", {"metadata": metadata})
    assert caught.value.facts == {"field": "metadata"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=examples(200))
@given(st.dictionaries(st.sampled_from((*FILE_KEYS, "label", "x")), json_values, max_size=6))
def test_any_mapping_is_fields_or_refused(given_fields: dict[str, Any]) -> None:
    """Whatever a frontmatter or a request says, it makes a block with a digest, or one clear error."""
    for label in ("x", "agents/bob/persona"):
        error = refusal(partial(digest_of, label, given_fields))
        assert error is None or error.facts["field"] in given_fields


def test_the_digest_is_stable() -> None:
    """A digest once written to a journal is the digest of the same block in every later release."""
    assert Block("x").digest == "266a8519e122890dc1b92ec0bb998f45"


def test_the_digest_is_what_its_docstring_says() -> None:
    """Any program can compute a digest: BLAKE2b-128 of compact JSON, keys sorted, a newline and the value, in UTF-8."""
    block = Block("a/é", value="v\n𝒳", tags=("t",), metadata={"z": 1, "a": None}, agents=("bob",))
    stored = {f.name: getattr(block, f.name) for f in fields(block) if f.name not in ("agents", "value", "_facts")}
    text = json.dumps(stored, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert block.digest == blake2b(f"{text}\n{block.value}".encode(), digest_size=16).hexdigest()


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "tags": st.lists(st.text(st.characters(codec="utf-8"))).map(tuple),
            "metadata": st.dictionaries(
                st.text(max_size=3), st.none() | st.booleans() | st.integers() | st.floats(-9, 9)
            ),
            "limit": st.integers(1, MAX_LIMIT),
            **dict.fromkeys(TEXT_KEYS, st.none() | st.text(st.characters(codec="utf-8"))),
            **dict.fromkeys(FLAG_KEYS, st.booleans()),
        },
    ),
    st.text(st.characters(codec="utf-8")),
)
@settings(deadline=None, max_examples=100)
def test_facts_are_what_json_makes_of_them(given_fields: dict[str, Any], label: str) -> None:
    """However they are put together: they are in every digest."""
    block = Block(label, **given_fields)
    stored = {f.name: getattr(block, f.name) for f in fields(block) if f.name not in ("agents", "value", "_facts")}
    assert block.facts == json.dumps(stored, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert facts_of(label, {**given_fields, "agents": ("ann",)}) == block.facts


CHANGES: list[tuple[str, object]] = [
    ("label", "y"),
    ("value", "v"),
    ("limit", 5),
    ("tags", ("a",)),
    ("metadata", {"a": 1}),
    *((key, "") for key in TEXT_KEYS),
    *((key, True) for key in FLAG_KEYS),
]


@pytest.mark.parametrize(("key", "value"), CHANGES)
def test_every_other_field_is_in_the_digest(key: str, value: object) -> None:
    """Two blocks that differ in a field have different digests, and the field is named as changed."""
    changed = replace(Block("x"), **{key: value})  # type: ignore[arg-type]  # the table holds right values
    assert changed.digest != Block("x").digest
    assert Block("x").changed_fields(changed) == (key,)


def test_the_agents_are_not_in_the_digest() -> None:
    """Attaching an agent is not another text: the digest stays, and `agents` is named as changed."""
    block = Block("x", agents=("bob",))
    assert block.digest == Block("x").digest
    assert block.changed_fields(Block("x")) == ("agents",)
    assert block != Block("x")


def test_the_order_of_metadata_does_not_matter() -> None:
    """Metadata is a mapping: its order is no change."""
    one, other = Block("x", metadata={"a": 1, "b": 2}), Block("x", metadata={"b": 2, "a": 1})
    assert one.digest == other.digest
    assert one.changed_fields(other) == ()


def test_a_block_is_immutable() -> None:
    """A field cannot be set."""
    with pytest.raises(FrozenInstanceError):
        Block("x").value = "y"  # type: ignore[misc]  # that it cannot is the test


def test_the_json_of_a_block_has_every_field_but_the_agents() -> None:
    """Who is attached is not in it; the rest is, in JSON types."""
    data = Block("x", tags=("a",)).as_json()
    assert set(data) == {f.name for f in fields(Block)} - {"agents", "_facts"}
    assert json.loads(json.dumps(data))["tags"] == ["a"]


def test_a_block_has_the_same_id_everywhere() -> None:
    """The id depends on the label alone, for good."""
    assert block_id("x") == "block-b6c7979f-0369-5b3a-8684-b2b5589a6f2f"
    assert block_id("y") != block_id("x")
