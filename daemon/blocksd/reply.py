"""What whoever sent a request is told."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

from blocksd.errors import InvalidRequest

if TYPE_CHECKING:
    from blocksd.errors import BlocksdError
    from blocksd.request import Entry

_REFUSED = re.compile(
    r'\{"id": "[^"]*", "ok": false, "error": \{"code": "(\w+)"'
)  # how `refused` begins; replies may be long


class Answer(NamedTuple):
    """An entry is done. The reply is JSON; None: whoever sent it cannot be told. `op` is None if it was no request."""

    entry: Entry
    id: str | None
    reply: str | None
    op: str | None = None

    @property
    def outcome(self) -> str:
        """`ok`, or the code of the error."""
        found = _REFUSED.match(self.reply) if self.reply is not None else None
        return found[1] if found else "ok" if self.reply is not None else InvalidRequest.code


def accepted(request_id: str, **facts: object) -> str:
    """The reply that says it was done."""
    return json.dumps({"id": request_id, "ok": True, **facts})


def refused(request_id: str, error: BlocksdError) -> str:
    """The reply that says why it was not."""
    return json.dumps({"id": request_id, "ok": False, "error": error.as_json()})
