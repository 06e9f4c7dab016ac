"""Our routes for blocks: lists of them, and one of them with its edits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.errors import InvalidField, MergeConflict
from blocksd.http.api.listing import LIST, page_of
from blocksd.http.api.naming import change, changed, own_name, shown
from blocksd.http.arguments import text_of
from blocksd.http.call import AGENTS, READS, WRITES, route
from blocksd.http.description import ANYTHING, FLAG, NUMBER, TEXT, About, keys, known, listed, mapped, one_of, or_null
from blocksd.mirror.view import view_of
from blocksd.protocol.fields import FIELDS

if TYPE_CHECKING:
    from starlette.routing import Route

    from blocksd.http.answers import JSONAnswer
    from blocksd.http.call import Call, Gateway
    from blocksd.http.description import Schema

_TEXTS = ("value", "description", *(name for name in FIELDS if name.endswith(("_id", "_name"))))
_FLAGS = ("read_only", "hidden", "is_template", "preserve_on_migration")
FIELD_SCHEMAS: dict[str, Schema] = {
    **{name: or_null(TEXT) for name in _TEXTS},
    **{name: or_null(FLAG) for name in _FLAGS},
    "limit": or_null(NUMBER),
    "tags": or_null(listed(TEXT)),
    "metadata": or_null(mapped(ANYTHING)),
    "agents": or_null(listed(TEXT)),
}
EDITS: dict[str, dict[str, Schema]] = {
    "append": {"content": TEXT},
    "replace": {"old_content": TEXT, "new_content": TEXT},
    "insert": {"content": TEXT, "line": {"type": "integer"}},
    "patch": {"patch": TEXT},
}
"""The edits of a text, with their arguments."""

_VERSIONED = {"anyOf": [known("Block"), known("Properties"), known("DeletedBlock")]}
"""What undo, redo, restore and merge may be of: a block, or the properties of an agent, by their label."""


def routes(gateway: Gateway) -> list[Route]:
    """Return the routes."""
    label, read, write = "{label:path}", READS + AGENTS, WRITES + AGENTS

    def about(summary: str, body: Schema | None, answer: Schema | None = None) -> About:
        return About(summary, body=body, answer=answer or known("Block"), shows_version=True, takes_version=True)

    arguments = {name: schema for edit in EDITS.values() for name, schema in edit.items()}
    version = keys({"version": NUMBER}, others=False)
    nothing = keys({}, others=False)
    merging = keys({}, {"value": TEXT, "base": NUMBER, "version": NUMBER}, others=False)
    return [
        route("/api/blocks", "GET", list_blocks, gateway, read, LIST),
        route(
            "/api/blocks",
            "POST",
            create,
            gateway,
            write,
            About(
                "Make a block, and its file; of an agent, a private one.",
                body=keys({"label": TEXT}, FIELD_SCHEMAS, others=False),
                answer=known("Block"),
                status=201,
                shows_version=True,
            ),
        ),
        route(
            f"/api/blocks/{label}",
            "GET",
            retrieve,
            gateway,
            read,
            About("Read a block.", answer=known("Block"), shows_version=True),
        ),
        route(
            f"/api/blocks/{label}",
            "PATCH",
            update,
            gateway,
            write,
            about(
                "Change fields of a block. null stands for a field's default.", keys({}, FIELD_SCHEMAS, others=False)
            ),
        ),
        route(
            f"/api/blocks/{label}",
            "DELETE",
            delete,
            gateway,
            write,
            About("Delete a block and its file; its history stays.", answer=known("DeletedBlock"), takes_version=True),
        ),
        route(
            f"/api/edit/{label}",
            "POST",
            edit,
            gateway,
            write,
            about(
                "Edit the text of a block: append, replace, insert or apply a patch.",
                keys({"op": one_of(*EDITS)}, arguments, others=False),
            ),
        ),
        route(
            f"/api/merge/{label}",
            "POST",
            merge,
            gateway,
            write,
            about(
                "Merge a whole text, made of version `base`, with what was written since; or bring back what a save took "
                "away: what `version` brought or, without it, all that the newest such save took.",
                merging,
                _VERSIONED,
            ),
        ),
        route(
            f"/api/rename/{label}",
            "POST",
            rename,
            gateway,
            write,
            about("Give a block another label.", keys({"label": TEXT}, others=False)),
        ),
        route(
            f"/api/undo/{label}",
            "POST",
            undo,
            gateway,
            write,
            about("Undo the newest edit that is not undone, also a deletion.", nothing, _VERSIONED),
        ),
        route(
            f"/api/redo/{label}",
            "POST",
            redo,
            gateway,
            write,
            about("Redo what was undone last.", nothing, _VERSIONED),
        ),
        route(
            f"/api/restore/{label}",
            "POST",
            restore,
            gateway,
            write,
            about("Make a block again what it was at a version.", version, _VERSIONED),
        ),
    ]


async def list_blocks(call: Call) -> dict[str, Any]:
    return await page_of(call)


async def create(call: Call) -> JSONAnswer:
    body = call.body()
    label = text_of(body, "label")
    if not label:
        raise InvalidField("a block needs a label", field="label")
    del body["label"]
    called = {"label": label} if call.agent is None else {"name": own_name(call.agent, label)}
    reply = await call.ask("create", body, **called)
    return await shown(call, view_of(reply["block"]), status=201)


async def retrieve(call: Call) -> JSONAnswer:
    return await shown(call, await call.block(call.path("label")))


async def update(call: Call) -> JSONAnswer:
    return await changed(call, "update", call.path("label"), call.body(with_nulls=True))


async def delete(call: Call) -> dict[str, Any]:
    reply = await change(call, "delete", call.path("label"))
    return {"label": reply["label"], "version": reply["version"]}


async def edit(call: Call) -> JSONAnswer:
    body = call.body()
    op = text_of(body, "op")
    if op not in EDITS:
        raise InvalidField(f"op must be one of {', '.join(EDITS)}", field="op")
    del body["op"]
    return await changed(call, op, call.path("label"), body)


async def merge(call: Call) -> JSONAnswer:
    """Merge; a conflict has the whole texts among its facts, so that a person can decide with all three in view."""
    body, label = call.body(), call.path("label")
    if "value" not in body:
        if "base" in body:
            raise InvalidField("base goes with value: the text that was made of it", field="value")
        return await changed(call, "merge", label, body)
    value, base = text_of(body, "value"), body.get("base")
    if not isinstance(base, int) or isinstance(base, bool) or base < 1 or "version" in body:
        raise InvalidField(
            "with value, base is the version that the text was made of, and there is no version", field="base"
        )
    try:
        return await changed(call, "update", label, {"value": value}, expect_version=base, on_conflict="merge")
    except MergeConflict as error:
        block = await call.block(label)
        version = await call.versions.retrieve(block.label, base)
        texts = {
            "base": "" if version.block is None else version.block.value,
            "mine": value,
            "theirs": block.value,
            "version": block.version,
        }
        raise MergeConflict(error.message, **error.facts, **texts) from None


async def rename(call: Call) -> JSONAnswer:
    to = text_of(call.body(), "label")
    if not to:
        raise InvalidField("label must be the new label", field="label")
    if call.agent is not None:
        to = own_name(call.agent, to)
    return await changed(call, "rename", call.path("label"), {"to": to})


async def undo(call: Call) -> JSONAnswer:
    return await changed(call, "undo", call.path("label"), call.body())


async def redo(call: Call) -> JSONAnswer:
    return await changed(call, "redo", call.path("label"), call.body())


async def restore(call: Call) -> JSONAnswer:
    return await changed(call, "restore", call.path("label"), call.body())
