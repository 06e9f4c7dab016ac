# Made of batch_async.py by tests/generate_client.py: edit that, and run this.
"""Several edits of blocks as one request: all of them are done, or none."""

from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any, Self

from blocksd.client.blocking.reading import block_named, resolve_all
from blocksd.client.blocking.transport import Transport
from blocksd.errors import InvalidRequest
from blocksd.mirror.view import BlockView
from blocksd.model.revision import OPERATOR
from blocksd.protocol.fields import FIELDS, UNCHANGED, Unchanged, given, listed
from blocksd.protocol.numbers import seconds, whole
from blocksd.protocol.wire import TIMEOUT_SECONDS, OnConflict, block_of


class Batch:
    """Edits that are sent as one request, when the `with` statement ends without an error, or by `send`.

    All of them are done, or, if one cannot be, none. They are done in their order, and those of one block are one version.
    A request has at most 1,000 edits and 1 MiB. The methods take the arguments of those of `client.blocks`, and send nothing.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._parts: list[dict[str, Any]] = []
        self._results: list[BlockView | None] | None = None

    @property
    def results(self) -> list[BlockView | None]:
        """The block of each edit as it was after the whole batch; None: it was deleted. Raises InvalidRequest before that."""
        if self._results is None:
            raise InvalidRequest("the batch has not been done", field="requests")
        return list(self._results)

    def create(
        self,
        *,
        label: str,
        value: str | None = None,
        description: str | None = None,
        limit: int | None = None,
        read_only: bool | None = None,
        hidden: bool | None = None,
        tags: Collection[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        agents: Collection[str] | None = None,
        project_id: str | None = None,
        is_template: bool | None = None,
        template_name: str | None = None,
        template_id: str | None = None,
        base_template_id: str | None = None,
        deployment_id: str | None = None,
        entity_id: str | None = None,
        preserve_on_migration: bool | None = None,
    ) -> None:
        """Make a block. None stands for a field's default."""
        fields = {name: value for name, value in given(locals(), FIELDS).items() if value is not None}
        self._add("create", label, fields, None, None)

    def update(
        self,
        block_id: str,
        *,
        value: str | Unchanged | None = UNCHANGED,
        description: str | Unchanged | None = UNCHANGED,
        limit: int | Unchanged | None = UNCHANGED,
        read_only: bool | Unchanged | None = UNCHANGED,
        hidden: bool | Unchanged | None = UNCHANGED,
        tags: Collection[str] | Unchanged | None = UNCHANGED,
        metadata: Mapping[str, Any] | Unchanged | None = UNCHANGED,
        agents: Collection[str] | Unchanged | None = UNCHANGED,
        project_id: str | Unchanged | None = UNCHANGED,
        is_template: bool | Unchanged | None = UNCHANGED,
        template_name: str | Unchanged | None = UNCHANGED,
        template_id: str | Unchanged | None = UNCHANGED,
        base_template_id: str | Unchanged | None = UNCHANGED,
        deployment_id: str | Unchanged | None = UNCHANGED,
        entity_id: str | Unchanged | None = UNCHANGED,
        preserve_on_migration: bool | Unchanged | None = UNCHANGED,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
    ) -> None:
        """Change fields of a block; the others stay. None stands for a field's default."""
        self._add("update", block_id, given(locals(), FIELDS), expect_version, on_conflict)

    def append(
        self,
        block_id: str,
        content: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
    ) -> None:
        """Add `content` on a new line at the end of the value."""
        self._add("append", block_id, {"content": content}, expect_version, on_conflict)

    def replace(
        self,
        block_id: str,
        old_content: str,
        new_content: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
    ) -> None:
        """Replace `old_content`, which must be in exactly one place of the value."""
        self._add(
            "replace", block_id, {"old_content": old_content, "new_content": new_content}, expect_version, on_conflict
        )

    def insert(
        self,
        block_id: str,
        content: str,
        line: int = -1,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
    ) -> None:
        """Put `content` after line `line` of the value: 0 is before the first, -1 after the last."""
        self._add(
            "insert", block_id, {"content": content, "line": whole("line", line, -1)}, expect_version, on_conflict
        )

    def apply_patch(
        self,
        block_id: str,
        patch: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
    ) -> None:
        """Apply a unified diff to the value."""
        self._add("patch", block_id, {"patch": patch}, expect_version, on_conflict)

    def rename(
        self,
        block_id: str,
        to: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
    ) -> None:
        """Give a block another label."""
        self._add("rename", block_id, {"to": to}, expect_version, on_conflict)

    def attach(
        self,
        block_id: str,
        agents: str | Collection[str],
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
    ) -> None:
        """Attach a block to these agents."""
        self._add("attach", block_id, {"agents": listed(agents)}, expect_version, on_conflict)

    def detach(
        self,
        block_id: str,
        agents: str | Collection[str],
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
    ) -> None:
        """Detach a block from these agents."""
        self._add("detach", block_id, {"agents": listed(agents)}, expect_version, on_conflict)

    def restore(
        self,
        block_id: str,
        version: int,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
    ) -> None:
        """Make a block again what it was at a version."""
        self._add("restore", block_id, {"version": whole("version", version, 1)}, expect_version, on_conflict)

    def merge(
        self,
        block_id: str,
        version: int | None = None,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
    ) -> None:
        """Merge text back into a block that a save took away."""
        args = {"version": whole("version", version, 1)} if version is not None else {}
        self._add("merge", block_id, args, expect_version, on_conflict)

    def delete(
        self,
        block_id: str,
        *,
        expect_version: int | None = None,
        on_conflict: OnConflict | None = None,
    ) -> None:
        """Delete a block and its file, for every agent; its history is kept."""
        self._add("delete", block_id, {}, expect_version, on_conflict)

    def _add(
        self, op: str, block_id: str, args: Mapping[str, Any], version: int | None, on_conflict: OnConflict | None
    ) -> None:
        expect = None if version is None else {"version": whole("expect_version", version)}
        self._parts.append({"op": op, "label": block_id, "args": args, "expect": expect, "on_conflict": on_conflict})

    def send(
        self, *, timeout_seconds: float = TIMEOUT_SECONDS, request_id: str | None = None
    ) -> list[BlockView | None]:
        """Do all of it, and return the block of each edit, as `results` does. An empty batch does nothing.

        Raises:
            BlocksdError: what the edit raises that cannot be done. Facts: `request`, which of them it is, from 1.
            InvalidRequest: the batch was done before.
        """
        if self._results is not None:
            raise InvalidRequest("the batch was done before: begin another one", field="requests")
        labels = resolve_all(self._transport, [part["label"] for part in self._parts])
        parts = [{**part, "label": label} for part, label in zip(self._parts, labels, strict=True)]
        terms = {"timeout_seconds": timeout_seconds, "request_id": request_id}
        self._results = done_together(self._transport, parts, **terms)
        return list(self._results)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None and self._results is None:
            self.send()


def done_together(transport: Transport, parts: Collection[Mapping[str, Any]], **terms: Any) -> list[BlockView | None]:
    """Make a request of these parts; the block of each, as it is after all of them. Raises as `Batch.send` does."""
    seconds("timeout_seconds", terms["timeout_seconds"])
    if not parts:
        return []
    reply = transport.request(OPERATOR, "batch", {"requests": parts}, **terms)
    shown: dict[str, BlockView | None] = {}
    for one in reply["results"]:
        if "block" in one:
            shown[one["label"]] = None if one["block"] is None else block_of(one)
        elif one["label"] not in shown:  # more than a reply shows: as it is now
            shown[one["label"]] = block_named(transport, one["label"])
    return [shown[one["label"]] for one in reply["results"]]
