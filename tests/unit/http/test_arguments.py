"""The body of a request."""

from __future__ import annotations

import pytest

from blocksd.errors import InvalidField
from blocksd.http.arguments import json_object


@pytest.mark.parametrize(
    "data",
    [
        b"\xed\xa0\x80",
        b'{"a": "\xed\xa0\x80"}',
        b'{"\xed\xa0\x80": 1}',
        rb'{"a": "\ud800"}',
        r'{"a": "\ud800"}'.encode("utf-16"),
        '{"a": 1}'.encode("utf-32"),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[]",
        b"\x1f\x8b\x08",
    ],
)
def test_what_is_no_object_in_utf8(data: bytes) -> None:
    """Halves of surrogate pairs are no text, in whatever way they come."""
    with pytest.raises(InvalidField, match="the body"):
        json_object(data)


def test_what_is_one() -> None:
    """A mark of UTF-8 at the beginning is no part of it; what is null counts as not given."""
    assert json_object(b'\xef\xbb\xbf{"a": "\\ud83d\\ude00", "b": null}') == {"a": "😀"}
    assert json_object(b" ") == json_object(b"null") == {}
