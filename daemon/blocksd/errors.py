"""Every exception blocksd raises on purpose: one tree, each carrying its facts."""

from __future__ import annotations

from typing import ClassVar


class BlocksdError(Exception):
    """Something blocksd refuses or cannot do.

    `message` is one sentence for a person, without the next step (the command line adds it).
    `facts` are the values the sentence was made of, so that a program need not parse it.
    `code` is the stable name of the kind of error, as it travels in replies and problems.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts

    def as_json(self) -> dict[str, object]:
        """The error as it travels: `code`, `message`, and the facts as further keys."""
        return {"code": self.code, "message": self.message, **self.facts}


class InvalidLabel(BlocksdError, ValueError):
    """A text is not a label or an agent id. Facts: `label`."""

    code = "invalid_request"


class InvalidField(BlocksdError, ValueError):
    """A block field has a value it cannot have. Facts: `field`."""

    code = "invalid_request"


class LimitExceeded(BlocksdError, ValueError):
    """A value has more code points than its limit. Facts: `chars`, `limit`."""

    code = "limit_exceeded"


class InvalidFile(BlocksdError):
    """A file's content is not a block. Facts: `line` (from 1) or `offset` (bytes from 0), where known, and `hint`."""

    code = "problem_file"


class EditRefused(BlocksdError):
    """A key cannot be changed in a file without touching bytes that must stay. Facts: `key`."""

    code = "problem_file"


class NotFound(BlocksdError, LookupError):
    """No such block, revision or agent. Facts: what was asked for."""

    code = "not_found"


class InvalidRequest(BlocksdError, ValueError):
    """A request asks for what cannot be done. Facts: `field` or `argument`, and what it was about."""

    code = "invalid_request"


class Unavailable(BlocksdError):
    """Redis or the daemon cannot be reached, or refuses to serve for now. Facts: `url`, where known."""

    code = "unavailable"


class Misconfigured(BlocksdError):
    """A setting is wrong, and trying again will not help. Facts: `key` or `url`."""

    code = "misconfigured"


class AlreadyRunning(BlocksdError):
    """Another daemon is in charge of the folder, the state directory or the namespace. Facts: who."""

    code = "already_running"


class LeaseLost(Unavailable):
    """The mirror is not ours to write: the lease is gone, or another daemon holds it. Facts: `holder`."""


class Damaged(Unavailable):
    """Something stands in the mirror where it cannot be: a key of another type. Only a rebuild helps."""


class JournalUnusable(BlocksdError):
    """The journal cannot be opened or written. Facts: `path`."""

    code = "journal"
