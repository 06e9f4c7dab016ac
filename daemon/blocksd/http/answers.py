"""Answers: JSON, and errors with the status and the headers that SDKs decide by."""

from __future__ import annotations

import json
import logging
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from blocksd.errors import (
    AlreadyExists,
    BlocksdError,
    Damaged,
    InvalidField,
    InvalidLabel,
    InvalidRequest,
    LabelConflict,
    LimitExceeded,
    MergeConflict,
    Misconfigured,
    NotAttached,
    NotFound,
    ProblemFile,
    ReadOnly,
    Unavailable,
    VersionConflict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request


class PreconditionFailed(VersionConflict):
    """The block is not of the version that `If-Match` names."""


_STATUS: tuple[tuple[type[BlocksdError], int], ...] = (
    (NotFound, 404),
    (NotAttached, 404),
    (ReadOnly, 403),
    (AlreadyExists, 409),
    (LabelConflict, 409),
    (PreconditionFailed, 412),
    (VersionConflict, 409),
    (MergeConflict, 409),
    (ProblemFile, 409),
    (LimitExceeded, 422),
    (InvalidRequest, 422),
    (InvalidField, 422),
    (InvalidLabel, 422),
    (Unavailable, 503),
    (Misconfigured, 503),
)
"""The status of each kind of error; the first that fits, else 500."""

_NOT_SHOWN = frozenset(("url", "state", "path", "socket"))
"""Facts that concern the machine of the daemon, and nobody else."""

_LOG = logging.getLogger("blocksd.http")
_MOST_LOGGED = 100
_logged: set[str] = set()

_CACHED = "private, no-cache"  # by the caller, who asks each time

_FINAL = {"x-should-retry": "false"}
"""Tells the SDKs that the same request would fail again; they repeat a 409 and a 5xx otherwise."""


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # `dumps` would make one for each answer


class JSONAnswer(Response):
    """An answer in JSON. `version` is that of the block that it shows, if it shows one."""

    media_type = "application/json"

    def __init__(
        self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None, *, version: int | None = None
    ) -> None:
        super().__init__(content, status, headers)
        self.version = version

    def render(self, content: Any) -> bytes:
        return _encode(content).encode("utf-8")

    def tagged(self, known: str | None) -> Response:
        """Return this answer with its `ETag`, or 304 if that is among the `known` ones (`If-None-Match`).

        The tag is the version, for `If-Match`, and a digest: the versions of a journal that was lost begin anew, and
        callers of several roles are not shown the same.
        """
        digest = blake2b(self.body, digest_size=8).hexdigest()
        tag = f'"{digest}"' if self.version is None else f'"{self.version}-{digest}"'
        if known is not None and not {tag, "*"}.isdisjoint(one.strip().removeprefix("W/") for one in known.split(",")):
            return Response(status_code=304, headers={"etag": tag, "cache-control": _CACHED})
        self.raw_headers += ((b"etag", tag.encode("ascii")), (b"cache-control", _CACHED.encode("ascii")))
        return self


def refusal(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> JSONAnswer:
    """Return an error: `{"detail": …}`, and further keys."""
    final = _FINAL if status in (409, 500) else {}
    return JSONAnswer({"detail": detail, **more}, status, {**final, **(headers or {})})


async def answer_error(_request: Request, error: Exception) -> Response:
    """Return the answer to a request that failed with an error of this package."""
    assert isinstance(error, BlocksdError)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if isinstance(error, Misconfigured):
        # Of the server behind the gateway: its message may name users and addresses. The log has each message once.
        if error.message not in _logged and len(_logged) < _MOST_LOGGED:
            _logged.add(error.message)
            _LOG.error("%s", error.message)
        return refusal(503, "the gateway's login or settings for Redis are wrong: see its log", _FINAL)
    if status == 503:
        message = "Redis does not serve" if "url" in error.facts and not isinstance(error, Damaged) else error.message
        return refusal(503, message, {"retry-after": "1"}, code=error.code)
    facts = {name: value for name, value in error.facts.items() if name not in _NOT_SHOWN}
    return refusal(status, error.message, code=error.code, facts=facts)


async def answer_http(request: Request, error: Exception) -> Response:
    """Return the answer where no route fits, or not by this method: never 5xx, which SDKs would repeat."""
    assert isinstance(error, HTTPException)
    path = request.scope["path"][:200]
    if error.status_code == 405:
        return refusal(405, f"blocksd has {path}, and no {request.method} for it", error.headers)
    if error.status_code != 404:
        return refusal(error.status_code, str(error.detail), error.headers)
    if "/identities" in path:
        return refusal(404, "blocksd has no identities: put what identifies a person into a block's metadata")
    return refusal(404, f"blocksd has no {path}: it keeps memory blocks, and runs no agents, models or tools")


async def answer_fault(_request: Request, _error: Exception) -> Response:
    """Return the answer after a fault of the gateway, whose log has the traceback."""
    return refusal(500, "the gateway failed on this request, by a fault in blocksd: its log says more")
