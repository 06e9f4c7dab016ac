"""Every exception blocksd raises on purpose: one tree, each carrying its facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping


class BlocksdError(Exception):
    """The base of all errors: a thing that blocksd refuses or cannot do.

    `message` is one sentence for a person, without the next step (the command line adds it).
    `facts` are the values the sentence was made of, so that a program need not parse it.
    `code` is the stable name of the kind of error, as it travels in replies and problems.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, /, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts

    def __str__(self) -> str:
        return self.message  # KeyError would show it in quotes

    def as_json(self) -> dict[str, object]:
        """Return the error as it travels: `code`, `message`, and the facts as further keys."""
        return {"code": self.code, "message": self.message, **self.facts}


class InvalidLabel(BlocksdError, ValueError):
    """A text is not a label or an agent id. Facts: `label` or `agent`."""

    code = "invalid_request"


class InvalidRequest(BlocksdError, ValueError):
    """A request asks for the impossible. Facts: `field` or `argument`, and what it was about."""

    code = "invalid_request"


class InvalidField(InvalidRequest):
    """A block's field, or an argument of a method, has a value it cannot have. Facts: `field`."""


class LimitExceeded(BlocksdError, ValueError):
    """A value has more code points than its limit. Facts: `chars`, `limit`."""

    code = "limit_exceeded"


class InvalidFile(BlocksdError):
    """A file's content is not a block. Facts: `line` (from 1) or `offset` (bytes from 0), where known, and `hint`."""

    code = "problem_file"


class EditRefused(BlocksdError):
    """A key cannot be changed in a file without touching bytes that must stay. Facts: `key`."""

    code = "problem_file"


class NotFound(BlocksdError, KeyError):
    """No such block, revision or agent. Facts: what was asked for."""

    code = "not_found"


class OtherBlock(NotFound):
    """The label is not that of the block expected: it was renamed, or is gone. Facts: `label`, `id`."""


class AlreadyExists(BlocksdError):
    """There is such a block or agent already. Facts: `label` or `agent`."""

    code = "already_exists"


class LabelConflict(BlocksdError, ValueError):
    """Two blocks could not be told apart: by a file system, or by an agent that sees both under one name. Facts: which."""

    code = "label_conflict"


class ReadOnly(BlocksdError):
    """An agent may not change this block. Facts: `label`."""

    code = "read_only"


class NotAttached(BlocksdError, KeyError):
    """The block is not attached to the agent. Facts: `agent`, `name`."""

    code = "not_attached"


class VersionConflict(BlocksdError):
    """The block is not of the version expected. Facts: `expected`, `version`, and `block` as it is."""

    code = "version_conflict"


class ProblemFile(BlocksdError):
    """The block's file has a problem, and is not written to while it has. Facts: `label`, `hint`, where known."""

    code = "problem_file"


class MergeConflict(BlocksdError):
    """Two texts changed the same place in different ways. Facts: `regions`, each with `base`, `ours`, `theirs`, and `line`."""

    code = "merge_conflict"


class BrokenMarkers(BlocksdError):
    """The markers of blocksd in a rendered file are not one pair for each agent. Facts: `line`, `path`."""

    code = "broken_markers"


class Unavailable(BlocksdError):
    """Redis or the daemon cannot be reached, or refuses to serve for now. Facts: `url`, where known."""

    code = "unavailable"


class InternalError(BlocksdError):
    """The daemon failed on this one thing, by a fault of its program. Facts: `error`, the kind of the exception."""

    code = "internal_error"


class Undecided(Unavailable):
    """A file was being replaced, and whether it was cannot be told for now: nothing else may be written. Facts: `path`."""


class Misconfigured(BlocksdError):
    """A setting is wrong, and trying again will not help. Facts: `key` or `url`."""

    code = "misconfigured"


class Superseded(Misconfigured):
    """Another host was promoted to leader, so this daemon must not serve the namespace. Facts: `generation`, the leader's."""

    code = "superseded"


class AlreadyRunning(BlocksdError):
    """Another daemon serves the folder, the state directory or the namespace. Facts: which."""

    code = "already_running"


class LeaseLost(Unavailable):
    """The mirror may not be written by this daemon: the lease is gone, or another daemon holds it. Facts: `holder`."""


class Damaged(Unavailable):
    """The mirror has something impossible, such as a key of another type. Only a rebuild helps."""


class StateUnusable(Unavailable):
    """The state directory cannot be used for now: it is full, say. Facts: `path`, `errno`."""


class JournalUnusable(BlocksdError):
    """The journal cannot be opened or written. Facts: `path`, and `hint` where the remedy is a special one."""

    code = "journal"


class JournalUnavailable(JournalUnusable, Unavailable):
    """The journal cannot be opened for now: the disk is full, say, or another program has it locked. Facts: `path`."""


class JournalDamaged(JournalUnusable):
    """The journal is not as it was written: its present state cannot be trusted. Facts: `path`."""


class JournalMissing(JournalUnusable):
    """The journal's file was removed, replaced or overwritten while it was open. Facts: `path`."""


class VersionDamaged(NotFound):
    """One version in the journal is not as it was written, and is not shown. Facts: `label`, `version`, `seq`."""


_OF_REPLIES: dict[str, type[BlocksdError]] = {
    kind.code: kind
    for kind in (
        AlreadyExists,
        InternalError,
        InvalidRequest,
        LabelConflict,
        LimitExceeded,
        MergeConflict,
        NotAttached,
        NotFound,
        ProblemFile,
        ReadOnly,
        Unavailable,
        VersionConflict,
    )
}


def from_json(given: Mapping[str, object]) -> BlocksdError:
    """Return the error that travelled as this; of the kinds that share a code, the one that says it of a request.

    A code that is not known here, as a newer daemon may send, is among the facts.
    """
    facts = {name: value for name, value in given.items() if name not in ("code", "message")}
    message, kind = str(given.get("message")), _OF_REPLIES.get(str(given.get("code")))
    return BlocksdError(message, code=given.get("code"), **facts) if kind is None else kind(message, **facts)
