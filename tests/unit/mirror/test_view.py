"""Blocks and agents as they are read, and pages of them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from blocksd.errors import Damaged
from blocksd.mirror.projection import fields_of
from blocksd.mirror.view import AgentView, BlockView, Page
from blocksd.model.block import FILE_KEYS, block_id
from rig import AT, revision

EVERYTHING: dict[str, Any] = {
    "value": "one\ntwo 💾",
    "description": "",
    "limit": 4000,
    "read_only": True,
    "hidden": True,
    "tags": ("x", "ü"),
    "metadata": {"a": [1, None, {"b": True}], "true": "false"},
    "project_id": "p",
    "is_template": True,
    "template_name": "7",
    "template_id": "t",
    "base_template_id": "b",
    "deployment_id": "d",
    "entity_id": "null",
    "preserve_on_migration": True,
}
PLAIN: dict[str, Any] = {
    "value": "",
    "description": None,
    "limit": 20_000,
    "read_only": False,
    "hidden": False,
    "tags": (),
    "metadata": {},
    "project_id": None,
    "is_template": False,
    "template_name": None,
    "template_id": None,
    "base_template_id": None,
    "deployment_id": None,
    "entity_id": None,
    "preserve_on_migration": False,
}


def shown(label: str = "notes", version: int = 7, **fields: Any) -> dict[str, str]:
    """The hash of a block in the mirror."""
    return fields_of(revision(1, label, version=version, agents=("ann",), **fields))


@pytest.mark.parametrize("fields", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_block_is_read_back(fields: dict[str, Any]) -> None:
    """Every field is what its author wrote, of the type it had: a text that looks like another type stays a text."""
    view = BlockView(shown(**fields))
    assert {name: getattr(view, name) for name in fields} == fields
    assert fields.keys() == {*FILE_KEYS, "value"} - {"agents"}
    assert (view.label, view.name, view.id, view.version) == ("notes", "notes", block_id("notes"), 7)
    assert (view.chars, view.updated_by, view.created_at, view.updated_at) == (len(fields["value"]), "file", AT, AT)
    assert re.fullmatch("[0-9a-f]{32}", view.digest)


@pytest.mark.parametrize("fields", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_block_as_json(fields: dict[str, Any]) -> None:
    """The JSON of a block has every field in one order, those that are null included; it is what the properties say."""
    view = BlockView(shown(**fields))
    shape = view.as_json()
    assert json.loads(json.dumps(shape)) == shape
    assert [*shape][:5] == ["label", "id", "version", "value", "chars"]
    assert [*shape][-4:] == ["digest", "created_at", "updated_at", "updated_by"]
    assert shape.keys() == {*fields, *shown()}
    assert shape == {name: getattr(view, name) for name in shape} | {"tags": list(view.tags)}


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("notes", "notes"),
        ("system/human", "system/human"),
        ("agents/ann/human", "human"),
        ("agents/ann/system/human", "system/human"),
    ],
)
def test_name_is_what_agents_say(label: str, name: str) -> None:
    """A private block has a name of its own for its agent, a shared one its label."""
    view = BlockView(shown(label))
    assert (view.label, view.name) == (label, name)


@pytest.mark.parametrize("field", sorted(shown(**PLAIN)))
def test_part_of_a_block_is_none(field: str) -> None:
    """Whatever a block always has, without it there is no block to see: that is damage, and what is missing is named."""
    fields = shown(**PLAIN)
    del fields[field]
    with pytest.raises(Damaged, match=f"^the mirror shows an incomplete block '[a-z]*': {field} missing$"):
        BlockView(fields)
    with pytest.raises(Damaged, match=field):
        BlockView({})


def test_null_has_no_field() -> None:
    """What a block may lack is null, and what it has beyond what is known today does no harm."""
    fields = shown(**EVERYTHING)
    for name, value in PLAIN.items():
        if value is None:
            del fields[name]
    view = BlockView({**fields, "colour": "blue"})
    assert [name for name in PLAIN if getattr(view, name) is None] == [n for n, v in PLAIN.items() if v is None]
    assert "colour" not in view.as_json()


@pytest.mark.parametrize("field", ["limit", "version", "tags", "metadata"])
@pytest.mark.parametrize("text", ["", "x", "{", "١٢x"])
def test_field_that_cannot_be_one_is_damage(field: str, text: str) -> None:
    """A field that is not what it must be is damage, whether it is asked for alone or with all others."""
    fields = {**shown(**PLAIN), field: text}
    with pytest.raises(Damaged, match="the mirror shows"):
        getattr(BlockView(fields), field)
    with pytest.raises(Damaged, match="the mirror shows"):
        BlockView(fields).as_json()


def test_what_was_read_does_not_change() -> None:
    """A block that was read is never changed: not by setting a field, nor through what it hands out."""
    view = BlockView(shown(**EVERYTHING))
    before = view.as_json()
    for name in ("value", "label", "limit", "tags", "version", "anything"):
        with pytest.raises(AttributeError):
            setattr(view, name, "x")
    view.metadata["a"].append(2)
    view.as_json()["tags"].append("z")
    assert view.as_json() == before


def test_blocks_are_compared() -> None:
    """Blocks are equal when all that was read is, whoever read it; equal ones count once in a set."""
    one, same = BlockView(shown(**EVERYTHING)), BlockView(shown(**EVERYTHING))
    assert one == same
    assert {one, same} == {one}
    for other in (shown(version=8, **EVERYTHING), shown("other", **EVERYTHING), shown(**{**EVERYTHING, "tags": ()})):
        assert one != BlockView(other)
    assert one != "notes"


def test_block_is_printed_without_its_text() -> None:
    """What is printed of a block says which it is, and not what it says."""
    assert repr(BlockView(shown(value="secret"))) == "BlockView('notes', version=7, chars=6)"


def test_agent_is_its_id() -> None:
    """An agent without properties has no other name than its id."""
    agent = AgentView("ann", {"persona": "agents/ann/persona", "notes": "notes"})
    assert (agent.id, agent.name) == ("ann", "ann")
    about: dict[str, Any] = {
        "name": "ann",
        "description": None,
        "agent_type": None,
        "system": None,
        "tags": (),
        "metadata": {},
    }
    assert agent.as_json() == {"agent": "ann", "blocks": {"persona": "agents/ann/persona", "notes": "notes"}, **about}
    assert agent == AgentView("ann", {"notes": "notes", "persona": "agents/ann/persona"})
    assert agent == AgentView.of("ann", agent.blocks, {})
    named = AgentView.of("ann", agent.blocks, {"name": "Ann", "tags": '["a"]', "metadata": '{"x": 1}'})
    assert (named.name, named.tags, named.metadata, named.description) == ("Ann", ("a",), {"x": 1}, None)
    with pytest.raises(Damaged, match="properties of the agent 'ann'"):
        AgentView.of("ann", {}, {"tags": "["})


def test_page_is_a_sequence() -> None:
    """A page is counted, indexed, sliced, searched and gone through like any sequence, and is false when empty."""
    page = Page(("a", "b", "c"), "c")
    assert (len(page), page[0], page[-1], page[1:]) == (3, "a", "c", ("b", "c"))
    assert list(page) == ["a", "b", "c"]
    assert list(reversed(page)) == ["c", "b", "a"]
    assert ("b" in page, "d" in page, page.index("b"), page.count("c")) == (True, False, 1, 1)
    assert (page.items, page.next) == (("a", "b", "c"), "c")
    assert page == Page(("a", "b", "c"), "c") != Page(("a", "b", "c"))
    assert not Page[str](())
    with pytest.raises(IndexError):
        page[3]
