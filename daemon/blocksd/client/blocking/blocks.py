# Made of blocks_async.py by tests/generate_client.py: edit that, and run this.
"""The blocks of a namespace, as a resource of the client."""

import builtins
from collections.abc import Collection, Mapping
from operator import attrgetter
from typing import Any

from blocksd.client.blocking.agents import BlockAgents
from blocksd.client.blocking.batch import done_together
from blocksd.client.blocking.block_edits import BlockEdits
from blocksd.client.blocking.finding import (
    first_by_time,
    first_with,
    labels_with,
    number_with,
    tags_in_use,
    timed,
    times_with,
)
from blocksd.client.blocking.reading import block_named, blocks_with, file_of, resolve, resolve_all
from blocksd.client.blocking.transport import Transport
from blocksd.client.blocking.versions import Versions
from blocksd.mirror.view import BlockView, Page
from blocksd.model.properties import parse_versioned
from blocksd.model.revision import OPERATOR
from blocksd.protocol import listing
from blocksd.protocol.fields import FIELDS, TERMS, UNCHANGED, Unchanged, Update, given
from blocksd.protocol.listing import FILTERS, SEPARATOR, Filter, Order, OrderBy, Span, Walk
from blocksd.protocol.numbers import whole
from blocksd.protocol.wire import TIMEOUT_SECONDS, OnConflict, block_of


class Tags:
    """The tags of all blocks."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        query_text: str | None = None,
        limit: int | None = None,
        before: str | None = None,
        after: str | None = None,
        order: Order = "asc",
    ) -> Page[str]:
        """The tags that blocks have, hidden blocks and templates among them; the cursors are tags.

        `query_text` finds a part of a tag, in capital or small letters alike.

        Raises:
            InvalidField: `order` or `limit` cannot be so.
        """
        span = Span.of(after=after, before=before, order=order, limit=limit)
        part = (query_text or "").casefold()
        return span.page(span.between(tag for tag in tags_in_use(self._transport) if part in tag.casefold()), str)


class Blocks(BlockEdits):
    """All blocks."""

    @property
    def agents(self) -> BlockAgents:
        """The agents attached to a block."""
        return BlockAgents(self._transport)

    @property
    def versions(self) -> Versions:
        """The versions of a block."""
        return Versions(self._transport)

    def list(
        self,
        *,
        limit: int | None = None,
        before: str | None = None,
        after: str | None = None,
        order: Order = "asc",
        label: str | None = None,
        label_search: str | None = None,
        description_search: str | None = None,
        value_search: str | None = None,
        tags: Collection[str] = (),
        match_all_tags: bool = False,
        connected_to_agents_count_gt: int | None = None,
        connected_to_agents_count_lt: int | None = None,
        connected_to_agents_count_eq: int | Collection[int] | None = None,
        templates_only: bool = False,
        show_templates: bool = False,
        show_hidden_blocks: bool = False,
        order_by: OrderBy = "label",
    ) -> Page[BlockView]:
        """Blocks, by label: all that are neither hidden nor templates, or those for which every condition given holds.

        `limit` None gives all of them. `after` and `before` are labels (or ids) between which the page lies, in the order
        of the listing; with `before` alone, it ends there. A label serves as a cursor even when its block is gone.

        `label` finds this label, and blocks of agents by the name the agent has for it: `human` finds each agent's
        `human` as well. The searches look for a part of the text, in capital or small letters alike. `tags` finds blocks
        with any of these tags, or, with `match_all_tags`, all of them. `connected_to_agents_count_gt`, `_lt` and `_eq`
        are about how many agents are attached; `_eq` may be several numbers.

        Hidden blocks are listed with `show_hidden_blocks`, templates with `show_templates`, and alone with `templates_only`.

        `order_by` is `label`, or a time: `created_at` or `updated_at`. A cursor of a listing by time is the label (or id) of
        a block that is still there.

        Raises:
            InvalidLabel: a cursor or `label` is none.
            InvalidField: `order`, `order_by`, `limit` or `tags` cannot be so.
            NotFound: a cursor is the id of no block, or, of a listing by time, the label of none.
        """
        wanted = Filter(given(locals(), FILTERS))
        listing.check_order_by(order_by)
        after, before = [None if one is None else resolve(self._transport, one) for one in (after, before)]
        span = Span.of(after=after, before=before, order=order, limit=limit)
        if order_by != "label" and limit is not None:
            key = self._transport.keys.times(order_by)
            walk = Walk(key, after=after, before=before, order=order)
            first = first_by_time(self._transport, wanted, walk, limit + 1)
            if first is not None:
                return span.page(first, attrgetter("label"))
        if order_by != "label":
            after, before = [None if one is None else timed(self._transport, one, order_by) for one in (after, before)]
            span = Span.of(after=after, before=before, order=order, limit=limit)
        found: list[BlockView] = []
        if order_by == "label" and not wanted.is_of_index:
            size = listing.PAGE if limit is None else min(listing.PAGE, limit + 1)
            while not span.is_done and (limit is None or len(found) <= limit):
                (labels,) = self._transport.read(span.command(self._transport.keys.labels, size))
                found += filter(wanted.wants, blocks_with(self._transport, span.take(labels, size)))
                size = listing.PAGE
            return span.page(found, attrgetter("label"))
        labels = None
        if limit is not None and order_by == "label" and wanted.ranges is None and not wanted.needs_blocks:
            labels = first_with(self._transport, wanted, span, limit + 1)
        if labels is None:
            labels = labels_with(self._transport, wanted)
        if order_by != "label":
            labels = times_with(self._transport, labels, order_by)
        # One more block than is asked for tells if something follows.
        for some in listing.parts(
            span.between(labels), listing.PAGE if limit is None else min(listing.PAGE, limit + 1)
        ):
            found += filter(wanted.wants, blocks_with(self._transport, [one.rpartition(SEPARATOR)[2] for one in some]))
            if limit is not None and len(found) > limit:
                break
        return span.page(found, attrgetter("label"))

    def count(
        self,
        *,
        label: str | None = None,
        label_search: str | None = None,
        description_search: str | None = None,
        value_search: str | None = None,
        tags: Collection[str] = (),
        match_all_tags: bool = False,
        connected_to_agents_count_gt: int | None = None,
        connected_to_agents_count_lt: int | None = None,
        connected_to_agents_count_eq: int | Collection[int] | None = None,
        templates_only: bool = False,
        show_templates: bool = False,
        show_hidden_blocks: bool = False,
    ) -> int:
        """How many blocks `list` would give with these conditions."""
        wanted = Filter(given(locals(), FILTERS))
        if not wanted.needs_blocks:
            return number_with(self._transport, wanted)
        labels = labels_with(self._transport, wanted)
        count = 0
        for some in listing.parts(labels, listing.PAGE):
            count += sum(map(wanted.wants, blocks_with(self._transport, some)))
        return count

    def retrieve(self, block_id: str) -> BlockView:
        """One block, by its id or its label.

        Raises:
            NotFound: there is no such block.
            InvalidLabel: it is neither an id nor a label.
        """
        return block_named(self._transport, block_id)

    def file(self, block_id: str) -> bytes:
        """The bytes of a block's file; also of an agent's properties, by the label `agents/<agent>/agent.yaml`.

        Raises:
            NotFound: there is no such block.
        """
        return file_of(self._transport, block_id)

    def save(
        self,
        label: str,
        file: str,
        *,
        version: int,
        base: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> int:
        """Save the text of a block's file, as a person or program does in the folder; return the version it has then.

        The text was made of `version`, 0 for a new block, and of the file with the digest `base`: BLAKE2b with 16 bytes, in
        hex. If the file is another one, both are merged; what cannot be merged stands. Also of an agent's properties.

        Raises:
            ProblemFile: the text would be a file with a problem, or the file has one.
        """
        label = parse_versioned(label)
        args = {"file": file, "version": whole("version", version, 0), "base": base}
        args = {name: value for name, value in args.items() if value is not None}
        terms = {"timeout_seconds": timeout_seconds, "request_id": request_id}
        return int((self._transport.request(OPERATOR, "save", args, label=label, **terms))["version"])

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
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Make a block, and its file. A private one has the label `agents/<agent>/<name>`.

        None stands for a field's default. `agents` says who it is attached to: ids, patterns (`support-*`), or `*` for
        every agent.

        Raises:
            AlreadyExists: there is one.
            LabelConflict: its label could not be told from another, or one of its agents has another block of this name.
            LimitExceeded: its value is over its limit.
            InvalidRequest: it cannot be: what is wrong is in the message.
        """
        fields = {name: value for name, value in given(locals(), FIELDS).items() if value is not None}
        terms = {"timeout_seconds": timeout_seconds, "request_id": request_id}
        return block_of(self._transport.request(OPERATOR, "create", fields, label=label, **terms))

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
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> BlockView:
        """Change fields of a block; the others stay, and so does all of its file that says them.

        None stands for a field's default. The last four arguments are those of every edit.

        Raises:
            NotFound: there is no such block.
            VersionConflict, MergeConflict: it is not of the version expected.
            LabelConflict: one of its new agents has another block of this name.
            LimitExceeded: its value would be over its limit.
            InvalidRequest: a field cannot be so: what is wrong is in the message.
            ProblemFile: its file has a problem, or cannot say this.
        """
        return self._edit("update", block_id, given(locals(), FIELDS), given(locals(), TERMS))

    modify = update

    def update_many(
        self,
        updates: Collection[Update],
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> builtins.list[BlockView]:
        """Change several blocks at once: all of them, or, if one cannot be, none.

        Raises:
            BlocksdError: what `update` raises. Facts: `request`, which of them it was, from 1.
        """
        parts = []
        for one in updates:
            fields = given(one, one)
            del fields["block_id"]
            version, on_conflict = fields.pop("expect_version", None), fields.pop("on_conflict", None)
            expect = None if version is None else {"version": version}
            parts.append({"op": "update", "args": fields, "expect": expect, "on_conflict": on_conflict})
        labels = resolve_all(self._transport, [one["block_id"] for one in updates])
        parts = [{**part, "label": label} for part, label in zip(parts, labels, strict=True)]
        done = done_together(self._transport, parts, timeout_seconds=timeout_seconds, request_id=request_id)
        return [block for block in done if block is not None]
