"""What a request may be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from blocksd.errors import InvalidRequest, Unavailable
from blocksd.requests.reply import refused
from blocksd.requests.request import MAX_BYTES, MAX_DEPTH, MAX_NUMBER, Entry, Request, Unusable, parse


def entry(text: str | None = None, *, actor: str = "ann", number: int = 1, **given: Any) -> Entry:
    whole = {"id": "r-1", "op": "open_file", "args": {"file": "manuals/a.txt"}} | given
    return Entry(actor, f"{number}-0", json.dumps(whole) if text is None else text)


def request(**given: Any) -> Request:
    made = parse(entry(**given))
    assert isinstance(made, Request), made
    return made


def unusable(one: Entry) -> Unusable:
    made = parse(one)
    assert isinstance(made, Unusable), made
    assert made.error.code == "invalid_request"
    return made


def test_request_is_read_whole() -> None:
    """All its keys are there by name; the entry it came in knows whose it is."""
    made = request(
        expect={"version": 7}, on_conflict="merge", label="a", name="b", deadline="2026-11-20T10:00:00+01:00"
    )
    assert (made.actor, made.id, made.op, made.args) == ("ann", "r-1", "open_file", {"file": "manuals/a.txt"})
    assert (made.expect, made.on_conflict, made.label, made.name) == (7, "merge", "a", "b")
    assert made.deadline is not None
    assert made.deadline.isoformat() == "2026-11-20T09:00:00+00:00"


def test_expected_id_is_no_part_of_what_is_asked() -> None:
    """It checks the label: a request that is sent again with it, or without, is the same."""
    plain, checked = (
        request(label="a", expect={"version": 7}),
        request(label="a", expect={"version": 7, "id": "block-x"}),
    )
    assert (checked.expect, checked.expect_id, plain.expect_id) == (7, "block-x", None)
    assert request(expect={"id": "block-x"}).expect is None
    assert plain.mark == checked.mark


def test_what_is_not_given_is_none() -> None:
    """Only id and op are needed."""
    made = parse(entry('{"id": "x", "op": "close_file"}'))
    assert made == Request(entry('{"id": "x", "op": "close_file"}'), "x", "close_file")


def test_null_is_as_not_given() -> None:
    """Programs that write all keys need not leave any out."""
    made = request(expect=None, on_conflict=None, label=None, name=None, deadline=None, args=None)
    assert (made.args, made.expect, made.label, made.name, made.deadline) == ({}, None, None, None, None)


@pytest.mark.parametrize("by", ["a", "Zoë Müller", "安", "ops: on call #3", "x" * 100, None])
def test_operator_may_say_who_they_are(by: str | None) -> None:
    """By 1 to 100 printable characters; null is as not given."""
    assert request(actor="operator", by=by).by == by


@pytest.mark.parametrize(
    "by", ["", " ", " a", "a ", "a\n", "a\tb", "x" * 101, "\u202eann", "a\u200b", "\ud800", 5, True, ["a"], {}]
)
def test_what_cannot_be_said_of_the_operator(by: object) -> None:
    """It is shown on one line, and to people."""
    assert unusable(entry(actor="operator", by=by)).error.facts["field"] in ("by", "request")


def test_agent_is_not_signed() -> None:
    """The author of what an agent asks for is the agent, whoever it says that it is."""
    assert unusable(entry(actor="ann", by="the boss")).error.facts["field"] == "by"
    assert request(actor="ann", by=None).by is None


def test_part_of_a_batch_is_not_signed() -> None:
    """The batch says who asks for all of it."""
    batch = request(actor="operator", op="batch", by="ann")
    with pytest.raises(InvalidRequest, match="no key 'by'"):
        batch.part({"op": "delete", "label": "a", "by": "bob"})


def test_mark_of_a_request_without_by_stays() -> None:
    """A request that was sent to an older version, and is sent again, is the same one; under another name it is not."""
    asked = request(actor="operator", op="delete", label="a", args={}, deadline="2026-11-20T10:00:00Z")
    assert asked.mark == "0baa2790d7188222"
    assert request(actor="operator", op="delete", label="a", args={}, by="ann").mark != asked.mark


@pytest.mark.parametrize("request_id", ["", "a b", "a/b", "a:b", "x" * 101, "é", "a\n", 5, None, ["a"], {"a": 1}])
def test_request_without_a_usable_id_is_not_replied_to(request_id: object) -> None:
    """There is no key for the reply."""
    assert unusable(entry(id=request_id)).id is None


@pytest.mark.parametrize("request_id", ["x", "A-1_b.c", "x" * 100, "."])
def test_id_of_a_request(request_id: str) -> None:
    """1 to 100 letters, digits, `_`, `-` and `.`."""
    assert request(id=request_id).id == request_id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("nonsense", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"id": "r-1"', "not JSON"),
        ("5", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"op": "open_file"}', "id must be"),
    ],
)
def test_text_that_is_no_request(text: str, message: str) -> None:
    """It is refused in words that tell what it is not."""
    assert message in unusable(entry(text)).error.message


def test_entry_without_a_request() -> None:
    """Any field may be in a stream."""
    assert unusable(Entry("ann", "1-0", None)).id is None


@pytest.mark.parametrize(
    "text",
    [
        '{"id": "r-1", "op": "open_file"',
        '{"id":"r-1","args":{"x":NaN}}',
        '{"id": "r-1", "args": ' + "[" * 100_000,
        '{"id": "r-1", "args": {"file": "\\ud800"}}',
        '{"id": "r-1", "args": {"file": "\udcff"}}',
        '{"id": "r-1", "args": {"n": ' + "9" * 5000 + "}}",
        json.dumps({"id": "r-1", "op": "open_file", "args": {"file": "x" * MAX_BYTES}}),
        json.dumps({"id": "r-1", "op": "open_file", "args": {"file": "é" * (MAX_BYTES // 2)}}, ensure_ascii=False),
    ],
    ids=["cut", "nan", "deep", "half a character", "not UTF-8", "digits", "too long", "too many bytes"],
)
def test_who_sent_what_cannot_be_read_is_told(text: str) -> None:
    """The id stands at the beginning, and is found even in what is no JSON, or is too much of it."""
    assert unusable(entry(text)).id == "r-1"


def test_request_may_be_a_mebibyte_long() -> None:
    """To the byte."""
    frame = json.dumps({"id": "r-1", "op": "open_file", "args": {"file": ""}})
    text = frame.replace('""', f'"{"x" * (MAX_BYTES - len(frame))}"')
    assert isinstance(parse(entry(text)), Request)
    assert "1048577 bytes, over the 1048576" in unusable(entry(text.replace("xx", "xxx", 1))).error.message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"op": "open"}, "op must be one of create, update"),
        ({"op": None}, "op must be one of"),
        ({"op": ["open_file"]}, "op must be one of"),
        ({"args": []}, "args must be an object"),
        ({"args": "manuals/a.txt"}, "args must be an object"),
        ({"label": 5}, "label must be text"),
        ({"name": {}}, "name must be text"),
        ({"expect": 7}, "expect must be"),
        ({"expect": {"version": "7"}}, "expect must be"),
        ({"expect": {"version": True}}, "expect must be"),
        ({"expect": {"version": 1, "x": 1}}, "expect must be"),
        ({"expect": {}}, "expect must be"),
        ({"expect": {"id": 7}}, "expect must be"),
        ({"expect": {"id": "block-x", "version": None}}, "expect must be"),
        ({"on_conflict": "force"}, "on_conflict must be one of fail, merge, overwrite"),
        ({"on_conflict": ["merge"]}, "on_conflict must be"),
        ({"deadline": "soon"}, "deadline must be"),
        ({"deadline": "2026-11-20T09:00:00"}, "deadline must be"),
        ({"deadline": 1795165200}, "deadline must be"),
        ({"deadline": "9999-12-31T23:59:59-12:00"}, "deadline must be"),
        ({"expects": {"version": 1}}, "a request has no key 'expects'; the keys are id, op"),
    ],
)
def test_request_with_something_wrong_in_it(given: dict[str, Any], message: str) -> None:
    """Nothing is guessed and nothing ignored: who sent it is told what it should be."""
    made = unusable(entry(**given))
    assert made.id == "r-1"
    assert message in made.error.message
    json.loads(refused("r-1", made.error))


def test_deadline_passes() -> None:
    """At its deadline a request is in time, after it too late."""
    made = request(deadline="1970-01-01T00:01:40Z")
    made.check_deadline(100.0)
    with pytest.raises(Unavailable, match="nothing was done") as caught:
        made.check_deadline(100.001)
    assert not isinstance(caught.value, ValueError)
    request().check_deadline(1e12)


@pytest.mark.parametrize(
    "args", [{}, {"file": 5}, {"file": None}, {"file": "x", "more": "y"}, {"file": "x", "agent": "bob"}, {"agent": "x"}]
)
def test_arguments_are_those_of_the_op(args: dict[str, Any]) -> None:
    """None is missing, of another type, or unknown."""
    with pytest.raises(InvalidRequest, match=r"open_file (needs the argument 'file'|takes no argument)"):
        request(args=args).texts("file")
    assert request(args={"file": "x"}).texts("file") == ["x"]


# --- parts of a batch ---


def test_part_is_whose_the_batch_is() -> None:
    """It has the batch's id, and its own op, block, arguments and expectations."""
    batch = request(op="batch", args={"requests": []})
    part = batch.part({"op": "append", "name": "notes", "args": {"content": "x"}, "expect": {"version": 2}})
    assert (part.actor, part.id, part.entry) == (batch.actor, batch.id, batch.entry)
    assert (part.op, part.name, part.label, part.args) == ("append", "notes", None, {"content": "x"})
    assert (part.expect, part.on_conflict, part.deadline) == (2, None, None)


@pytest.mark.parametrize(
    "given",
    [
        None,
        5,
        "append",
        [],
        {},
        {"op": "nothing"},
        {"op": "append", "id": "mine"},
        {"op": "append", "deadline": "2026-11-20T09:00:00Z"},
        {"op": "append", "args": []},
        {"op": "append", "expect": 1},
        {"op": "append", "label": 5},
    ],
)
def test_part_that_is_no_request(given: object) -> None:
    """It is refused as a request of its own would be; of an id and a deadline there is only the batch's."""
    with pytest.raises(InvalidRequest) as refusal:
        request(op="batch").part(given)
    assert refusal.value.facts["field"]


def nested(depth: int) -> str:
    return '{"id": "x", "op": "update", "args": {"metadata": ' + "[" * (depth - 2) + "]" * (depth - 2) + "}}"


def test_lists_lie_in_one_another_so_deep() -> None:
    """And no deeper, wherever they are; brackets in a text are none."""
    assert isinstance(parse(Entry("ann", "1-0", nested(MAX_DEPTH))), Request)
    for depth in (MAX_DEPTH + 1, 900, 100_000):
        refused = parse(Entry("ann", "1-0", nested(depth)))
        assert isinstance(refused, Unusable)
        assert refused.error.code == "invalid_request"
    text = json.dumps({"id": "x", "op": "append", "args": {"content": "[{" * 1000}})
    assert isinstance(parse(Entry("ann", "1-0", text)), Request)


@pytest.mark.parametrize("where", ["args", "key", "label", "deadline"])
def test_half_a_character_is_nowhere(where: str) -> None:
    """JSON can name one, and UTF-8 cannot say it."""
    given = {"args": {"x": "\ud800"}, "key": {"\udfff": 1}}.get(where, "\ud800")
    text = json.dumps({"id": "x", "op": "append", "args" if where == "key" else where: given})
    refused = parse(Entry("ann", "1-0", text))
    assert isinstance(refused, Unusable)
    assert (refused.id, refused.error.facts["field"]) == ("x", "request")


def test_numbers_and_names_have_ranges() -> None:
    """A version that is expected is 0 to 2^53, whatever SQLite could hold; a name has no more than 1000 characters."""

    def asked(**given: object) -> Request | Unusable:
        return parse(Entry("ann", "1-0", json.dumps({"id": "x", "op": "append", **given})))

    for version in (0, 1, MAX_NUMBER):
        request = asked(expect={"version": version})
        assert isinstance(request, Request)
        assert request.expect == version
    for wrong in (-1, MAX_NUMBER + 1, 2**63, 10**400, 1.0, True, "1", None):
        refused = asked(expect={"version": wrong})
        assert isinstance(refused, Unusable), wrong
    assert isinstance(asked(name="x" * 1000), Request)
    assert isinstance(asked(name="x" * 1001), Unusable)
