"""What whoever sent a request is told."""

from __future__ import annotations

import json

from blocksd.errors import NotFound, VersionConflict
from blocksd.requests.reply import Answer, accepted, refused
from blocksd.requests.request import Entry


def test_replies() -> None:
    """One says what was done, the other why not, with the facts beside the sentence."""
    assert json.loads(accepted("r-1", {"agent": "ann"}, "")[1]) == {"id": "r-1", "ok": True, "agent": "ann"}
    error = {"code": "not_found", "message": "no such file", "file": "\ud800"}
    text = refused("r-1", NotFound("no such file", file="\ud800"))
    assert json.loads(text) == {"id": "r-1", "ok": False, "error": error}
    assert text.isascii()


def test_outcome_of_a_reply() -> None:
    """`ok`, or the code of the error, whatever else is in the reply."""
    for reply, outcome in (
        (accepted("r-1", {"seq": 7, "block": {"value": '"ok": false, "error": {"code": "unavailable"'}}, "")[1], "ok"),
        (refused("r-1", VersionConflict("it is another", expected=1, version=2)), "version_conflict"),
        (None, "invalid_request"),
    ):
        assert Answer(Entry("ann", "1-0", "{}"), "r-1", reply, "update").outcome == outcome
