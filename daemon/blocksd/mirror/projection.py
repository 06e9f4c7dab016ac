"""Redis commands that show blocks, agents, problems and replies in the mirror. Nothing is sent from here."""

from __future__ import annotations

import json
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

from blocksd.files.document import serialize
from blocksd.mirror.file_form import FORM_FIELDS, USUAL_MODE, form_fields
from blocksd.mirror.index import INDEXED, bounds_of, member_of
from blocksd.model.block import FILE_KEYS, Block
from blocksd.model.label import PRIVATE, PROPERTIES_END, is_properties, name_for_agent, owner, path_of_label
from blocksd.model.properties import properties_of
from blocksd.model.revision import milliseconds

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from blocksd.mirror.keys import Keys
    from blocksd.model.revision import Revision

T = TypeVar("T")

Command = tuple[str, ...]
"""A Redis command, word by word, or one that apply.lua explains: ANNOUNCE, REPLY, FORGET, DEPART.

On a cluster it publishes by SPUBLISH.
"""

CHANGES_KEPT = 100_000

_VALUE = ("value",)  # the fields of most changes
_WORDS = 1000  # Lua unpacks at most about 8,000 words into one call


def fields_of(revision: Revision) -> dict[str, str]:
    """Return a block's hash in the mirror."""
    block = revision.block
    assert block is not None
    fields = {"label": block.label, "id": revision.id, "created_at": revision.created_at}
    fields |= _shown(revision, _VALUE)
    fields |= _PLAIN_SHOWN
    for name, plain, value in zip(_NAMES, _PLAIN, _values_of(block), strict=True):
        if value is not plain and value is not None:
            fields[name] = value if isinstance(value, str) else _json(value)
        elif value is not plain:
            del fields[name]
    fields.update(form_of_revision(revision))
    return fields


def _shown(revision: Revision, names: Iterable[str]) -> dict[str, str]:
    """Return these fields of a block's hash, without null, and the fields that every revision changes."""
    block = revision.block
    shown = {
        "version": str(revision.version),
        "digest": revision.digest or "",
        "updated_at": revision.at,
        "updated_by": revision.author,
    }
    for name in names:
        value = getattr(block, name)
        if name == "value":
            shown["value"] = value
            shown["chars"] = str(len(value))
        elif name != "agents" and value is not None:
            shown[name] = value if isinstance(value, str) else _json(value)
    return shown


_encode = json.JSONEncoder(ensure_ascii=False).encode
_quoted = json.encoder.encode_basestring  # of a text, as `_encode` has it


def _json(value: object) -> str:
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int):
        return str(value)
    return _encode(value) if value else "{}" if isinstance(value, dict) else "[]"


_NAMES = tuple(name for name in FILE_KEYS if name != "agents")
_values_of = attrgetter(*_NAMES)
_PLAIN = _values_of(Block(""))
_PLAIN_SHOWN = {name: _json(value) for name, value in zip(_NAMES, _PLAIN, strict=True) if value is not None}
"""What the hash of a block shows of fields that are at their defaults, as most are."""


def commands_of(revision: Revision, keys: Keys, epoch: str) -> list[Command]:
    """Return the commands for one revision: first the data, then its entry in the stream and its notifications."""
    label, block = revision.label, revision.block
    key = keys.block(label)
    commands: list[Command]
    if label.endswith(PROPERTIES_END) and is_properties(label):
        commands = _properties_commands(revision, keys)
    elif block is not None and revision.kind == "updated":
        shown = _shown(revision, revision.fields)
        commands = [("HSET", key, *chain.from_iterable(shown.items()))]
        if revision.is_reformed:
            commands += reforming_commands(revision, keys)
        if revision.fields != _VALUE:
            nulls = [name for name in revision.fields if name not in shown and name != "agents"]
            if nulls:
                commands.append(("HDEL", key, *nulls))
            if not INDEXED.isdisjoint(revision.fields):
                commands += _index_commands(block, keys)
        commands.append(("ZADD", keys.updated, str(milliseconds(revision.at)), label))
        if revision.attached or revision.detached:
            commands.append(_count_command(revision, keys))
    else:
        commands = _block_commands(revision, keys)
    if revision.renamed_from is not None:
        commands += _renaming_commands(revision, revision.renamed_from, keys)
    elif revision.attached or revision.detached:
        name = name_for_agent(label)
        for words in in_parts(revision.detached):
            commands.append(("SREM", keys.attached(label), *words))
            commands += [("HDEL", keys.agent(agent), name) for agent in words]
        for words in in_parts(revision.attached):
            commands.append(("SADD", keys.attached(label), *words))
            commands += [("HSET", keys.agent(agent), name, label) for agent in words]
    return [*commands, *change_commands(revision, keys, epoch), ("HSET", keys.meta, "seq", str(revision.seq))]


def change_commands(revision: Revision, keys: Keys, epoch: str) -> list[Command]:
    """Return the commands that put the notification of a revision into the stream, and publish it to all it concerns."""
    label = revision.label
    channels = [keys.changes_of_block(label)]
    if revision.renamed_from is not None or revision.attached or revision.detached or label.startswith(PRIVATE):
        labels = [label]
        if revision.renamed_from is not None:
            labels.append(revision.renamed_from)
            channels.append(keys.changes_of_block(revision.renamed_from))
        owners = [owner(one) for one in labels if one.startswith(PRIVATE)]
        concerned = sorted({*revision.attached, *revision.detached, *filter(None, owners)})
        channels += map(keys.changes_of_agent, concerned)
    return [announcement(f"{revision.seq}-0", change_of(revision, epoch), keys.changes, *channels)]


def change_of(revision: Revision, epoch: str) -> str:
    """Return the notification of a revision: one line of JSON.

    It is put together here: an encoder would be made anew for each save, and takes four times as long.
    """
    one = revision
    more = f', "from": {_quoted(one.renamed_from)}' if one.renamed_from is not None else ""
    if one.reverts:
        more += f', "reverts": [{", ".join(map(str, one.reverts))}]'
    if one.by is not None:
        more += f', "by": {_quoted(one.by)}'
    return (
        f'{{"seq": {one.seq}, "kind": "{one.kind}", "label": {_quoted(one.label)}, "version": {one.version}, '
        f'"fields": [{", ".join(map(_quoted, one.fields))}], "attached": [{", ".join(map(_quoted, one.attached))}], '
        f'"detached": [{", ".join(map(_quoted, one.detached))}], "author": {_quoted(one.author)}, '
        f'"digest": {_quoted_or_null(one.digest)}, "at": {_quoted(one.at)}, '
        f'"request_id": {_quoted_or_null(one.request_id)}, "epoch": {_quoted(epoch)}{more}}}'
    )


def _quoted_or_null(text: str | None) -> str:
    return _quoted(text) if text is not None else "null"


def properties_fields(revision: Revision) -> dict[str, str]:
    """Return the hash of an agent's properties in the mirror, without null."""
    agent, shown = str(owner(revision.label)), properties_of(revision.block)
    said = {"name": agent, "tags": shown.tags, "metadata": shown.metadata, **shown.said}
    fields = {key: value if isinstance(value, str) else _json(value) for key, value in said.items()}
    times = {"created_at": revision.created_at, "updated_at": revision.at, "updated_by": revision.author}
    facts = {"agent": agent, **fields, "version": str(revision.version), "digest": revision.digest or "", **times}
    return {**facts, **form_of_revision(revision)}


def _properties_commands(revision: Revision, keys: Keys) -> list[Command]:
    key = keys.agent_info(str(owner(revision.label)))
    return new_hash_commands(key, properties_fields(revision) if revision.block is not None else {})


def _renaming_commands(revision: Revision, old: str, keys: Keys) -> list[Command]:
    """Move a block to its new label, for the agents that had it under the old one.

    Other agents are left alone: one that was attached just now may have another block under the old name.
    """
    label, name, old_name = revision.label, name_for_agent(revision.label), name_for_agent(old)
    had = revision.agents.difference(revision.attached).union(revision.detached)
    commands: list[Command] = [
        ("DEL", keys.block(old), keys.attached(old), keys.attached(label)),
        *_unlisting_commands(old, keys),
    ]
    commands += [("HDEL", keys.agent(agent), old_name) for agent in sorted(had)]
    for words in in_parts(sorted(revision.agents)):
        commands.append(("SADD", keys.attached(label), *words))
        commands += [("HSET", keys.agent(agent), name, label) for agent in words]
    return commands


def announcement(entry_id: str, change: str, *channels: str) -> Command:
    """Return the command that adds a change to the stream and publishes it, sent once, to any number of channels.

    Without an `entry_id` it is the next entry behind the last revision that the mirror shows.
    """
    return ("ANNOUNCE", entry_id, str(CHANGES_KEPT), change, *channels)


def _block_commands(revision: Revision, keys: Keys) -> list[Command]:
    """Return commands that replace a block's keys, except those of its agents."""
    label = revision.label
    if revision.block is None:
        return [
            ("DEL", keys.block(label), keys.attached(label)),
            *_unlisting_commands(label, keys),
            ("HDEL", keys.ids, revision.id),
        ]
    fields = fields_of(revision)
    return [
        ("DEL", keys.block(label)),
        ("HSET", keys.block(label), *chain.from_iterable(fields.items())),
        ("ZADD", keys.labels, "0", label),
        ("HSET", keys.ids, fields["id"], label),
        _count_command(revision, keys),
        ("ZADD", keys.created, str(milliseconds(revision.created_at)), label),
        ("ZADD", keys.updated, str(milliseconds(revision.at)), label),
        *_index_commands(revision.block, keys),
    ]


def _unlisting_commands(label: str, keys: Keys) -> list[Command]:
    """Return commands that take a label out of all lists of blocks; its id, which may have another label, is not one."""
    return [
        *(("ZREM", key, label) for key in (keys.labels, keys.counts, keys.created, keys.updated)),
        unindexing_command(label, keys),
    ]


def unindexing_command(label: str, keys: Keys) -> Command:
    """Return the command that takes a block out of the index, whatever the index shows of it."""
    return ("ZREMRANGEBYLEX", keys.index, *bounds_of(label))


def _index_commands(block: Block, keys: Keys) -> list[Command]:
    return [unindexing_command(block.label, keys), ("ZADD", keys.index, "0", member_of(block))]


def _count_command(revision: Revision, keys: Keys) -> Command:
    return ("ZADD", keys.counts, str(len(revision.agents)), revision.label)


def rebuild_commands(revision: Revision, keys: Keys) -> list[Command]:
    """Return commands that replace all keys of a block, without a notification."""
    if is_properties(revision.label):
        return _properties_commands(revision, keys)
    commands = _block_commands(revision, keys)
    commands.append(("DEL", keys.attached(revision.label)))
    name = name_for_agent(revision.label)
    for words in in_parts(sorted(revision.agents)):
        commands.append(("SADD", keys.attached(revision.label), *words))
        commands += [("HSET", keys.agent(agent), name, revision.label) for agent in words]
    return commands


def new_zset_commands(key: str, scores: Mapping[str, int]) -> list[Command]:
    """Return commands that replace a key by a sorted set of these members, each with its score."""
    parts = in_parts([word for member, score in scores.items() for word in (str(score), member)])
    return [("DEL", key), *(("ZADD", key, *part) for part in parts)]


def new_hash_commands(key: str, fields: Mapping[str, str]) -> list[Command]:
    """Return commands that replace a key by a hash of these fields."""
    parts = in_parts([word for pair in fields.items() for word in pair])
    return [("DEL", key), *(("HSET", key, *part) for part in parts)]


def hash_commands(key: str, shown: object, wanted: Mapping[str, str]) -> list[Command]:
    """Return commands that turn the shown hash, or another value in its place, into the wanted one."""
    if not isinstance(shown, dict):
        return new_hash_commands(key, wanted)
    stray = sorted(field for field in shown if field not in wanted)
    changed = {field: text for field, text in wanted.items() if shown.get(field) != text}
    return [*(("HDEL", key, *part) for part in in_parts(stray)), *new_hash_commands(key, changed)[1:]]


def set_commands(key: str, shown: object, wanted: Collection[str]) -> list[Command]:
    """Return the same for a set."""
    commands: list[Command] = []
    if not isinstance(shown, (set, frozenset)):
        commands, shown = [("DEL", key)], frozenset[str]()
    commands += [("SREM", key, *part) for part in in_parts(sorted(shown - set(wanted)))]
    return commands + [("SADD", key, *part) for part in in_parts(sorted(set(wanted) - shown))]


def written_keys(words: Sequence[str]) -> set[str]:
    """Return the keys that commands write which travel as these words, apart from the stream of changes."""
    keys: set[str] = set()
    at = 0
    while at < len(words):
        name, *rest = words[at + 1 : at + 1 + int(words[at])]
        at += len(rest) + 2
        if name == "REPLY":
            keys.update(rest[0:1], rest[2:3])
        elif name == "DEPART":
            keys.update(rest[0:2])
        elif name in ("DEL", "UNLINK"):
            keys.update(rest)
        elif name not in ("ANNOUNCE", "PUBLISH"):
            keys.add(rest[0])
    return keys


def in_parts(words: Sequence[T], size: int = _WORDS) -> Iterator[Sequence[T]]:
    """Yield the words, `size` of them at a time; by default as many as one command may have."""
    for start in range(0, len(words), size):
        yield words[start : start + size]


def form_of_revision(revision: Revision) -> Mapping[str, str]:
    """Return the form by which a revision is shown; if it is unknown, that of a new file which says the block."""
    block = revision.block
    assert block is not None
    if revision.form is not None:
        return revision.form
    return form_fields(serialize(block), block, path=path_of_label(block.label), mode=USUAL_MODE)


def reforming_commands(revision: Revision, keys: Keys) -> list[tuple[str, ...]]:
    """Return the commands that show the form of the file of a block in force, and nothing else of it."""
    label, form = revision.label, form_of_revision(revision)
    key = keys.agent_info(str(owner(label))) if is_properties(label) else keys.block(label)
    absent = [name for name in FORM_FIELDS if name not in form]
    commands: list[tuple[str, ...]] = [("HDEL", key, *absent)] if absent else []
    return [*commands, ("HSET", key, *(word for pair in form.items() for word in pair))] if form else commands
