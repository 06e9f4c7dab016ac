"""Writes sources and their open files to the mirror: changes, or, after a doubt, a comparison of everything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from blocksd.mirror.mirror import BATCH
from blocksd.mirror.projection import hash_commands, in_parts, set_commands

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from blocksd.mirror.mirror import Mirror
    from blocksd.mirror.projection import Command
    from blocksd.sources.sources import Sources

FILES_NAMED = 100
"""The most changed files that one notification names."""


class SourceMirror:
    """The part of the mirror that shows sources. The caller handles the mirror's errors."""

    def __init__(self, sources: Sources, mirror: Mirror) -> None:
        self._sources = sources
        self._mirror = mirror

    @property
    def is_behind(self) -> bool:
        """True if the mirror does not show all changes."""
        return bool(self._sources.unshown)

    def show_listed(self, at: str) -> None:
        """Compare the mirror with sources that were scanned for the first time, or are not served any more."""
        unshown = self._sources.unshown
        for name in sorted(unshown.listed):
            files = [file for file in self._sources.opened() if file.startswith(f"{name}/")]
            agents = {agent for file in files for agent in self._sources.opened()[file]}
            self._compare_contents(files)
            _, strays = self._compare_agents(sorted(agents), at, announce=True)
            self._compare_contents(strays)
            self._compare_files(name, at, announce=True)
            for marks in (unshown.files, unshown.agents):
                marks.pop(name, None)
        unshown.listed.clear()

    def changes(self, at: str) -> list[Command]:
        """Return commands for all changes, with their notifications. After they are sent, call `Sources.shown`."""
        keys, sources, unshown = self._mirror.keys, self._sources, self._sources.unshown
        commands: list[Command] = [
            ("HSET", keys.sources, name, sources.about(name)) for name in sorted(unshown.configured)
        ]
        for name, before in sorted(unshown.agents.items()):
            commands += set_commands(keys.source_agents(name), before, sources.agents(name))
        for file in sorted(unshown.contents):
            content = sources.content(file)
            commands.append(("DEL", keys.file(file)))
            if content is not None:
                commands += hash_commands(keys.file(file), {}, content)
        for name, paths in sorted(unshown.files.items()):
            facts = {path: sources.source(name).files.get(path) for path in sorted(paths)}
            listed = {path: one.dumps() for path, one in facts.items() if one is not None}
            commands += hash_commands(keys.source(name), dict.fromkeys(facts.keys() - listed.keys(), ""), listed)
        for name in sorted(unshown.configured | unshown.files.keys() | unshown.agents.keys()):
            concerned = unshown.agents.get(name, sources.agents(name)) ^ sources.agents(name)
            commands += self._source_changed(name, unshown.files.get(name, ()), concerned, at)
        for (agent, file), before_at in sorted(unshown.accesses.items(), key=lambda item: item[0]):
            commands += self._access_commands(agent, file, before_at, sources.opened_at(agent, file), at)
        return commands

    def _access_commands(self, agent: str, file: str, before: str | None, now: str | None, at: str) -> list[Command]:
        if before == now:
            return []
        key = self._mirror.keys.open(agent)
        stored: Command = ("HDEL", key, file) if now is None else ("HSET", key, file, now)
        return [stored, *self._opened_or_closed(agent, file, is_open=now is not None, at=at)]

    def compare(self, at: str, *, announce: bool, is_repair: bool = False) -> Iterator[int]:
        """Compare and repair everything, a slice at a time. Yield how many keys were wrong.

        `announce` publishes each difference; a reset makes that superfluous. Contents are announced only if this `is_repair`:
        else they differ because their files changed, which `changes` announces.
        """
        keys, sources = self._mirror.keys, self._sources
        (shown,) = self._mirror.read_many([("HGETALL", keys.sources)])
        if not sources.names and shown == {}:
            return
        for name in sources.names:
            yield self._compare_files(name, at, announce=announce)
        strays: set[str] = set()
        opened = sources.opened()
        for agents in in_parts(sorted(sources.known.union(*opened.values())), BATCH):
            wrong, stray = self._compare_agents(agents, at, announce=announce)
            strays |= stray
            yield wrong
        for files in in_parts(sorted(opened.keys() | strays), BATCH):
            yield self._compare_contents(files, at if announce and is_repair else None)
        (shown,) = self._mirror.read_many([("HGETALL", keys.sources)])  # they may have changed meanwhile
        wanted = {name: sources.about(name) for name in sources.names}
        # The keys of a source that is not served go before its name, so that a crash in between leaves the name to find them.
        for name in sorted(shown if isinstance(shown, dict) else ()):
            if name not in wanted:
                self._mirror.write([("DEL", keys.source(name), keys.source_agents(name))])
        repairs = hash_commands(keys.sources, shown, wanted)
        was = shown if isinstance(shown, dict) else {}
        told = (
            [name for name in sorted(was.keys() | wanted.keys()) if was.get(name) != wanted.get(name)]
            if announce
            else []
        )
        self._mirror.write([*repairs, *(one for name in told for one in self._source_changed(name, (), (), at))])
        yield int(bool(repairs))

    def _compare_files(self, name: str, at: str, *, announce: bool) -> int:
        """Compare and repair the list of one source. Return how many keys were wrong."""
        keys, agents = self._mirror.keys, self._sources.agents(name)
        source = self._sources.source(name) if name in self._sources.names else None
        shown, seen_by = self._mirror.read_many(
            [("HGETALL", keys.source(name)), ("SMEMBERS", keys.source_agents(name))]
        )
        commands: list[Command] = []
        changed: set[str] = set()
        if source is None:
            commands.append(("HDEL", keys.sources, name))
        if source is None or source.is_listed:  # else not all of them are known yet
            wanted = {path: facts.dumps() for path, facts in source.files.items()} if source is not None else {}
            commands += hash_commands(keys.source(name), shown, wanted)
            was = shown if isinstance(shown, dict) else {}
            changed = {path for path in was.keys() | wanted.keys() if was.get(path) != wanted.get(path)}
        wrong = int(bool(commands))
        more = set_commands(keys.source_agents(name), seen_by, agents)
        wrong += bool(more)
        commands += more
        if commands and announce:
            concerned = agents ^ (seen_by if isinstance(seen_by, set) else set())
            commands += self._source_changed(name, changed, concerned, at)
        self._mirror.write(commands)
        return wrong

    def _compare_agents(self, agents: Sequence[str], at: str, *, announce: bool) -> tuple[int, set[str]]:
        """Compare and repair the open files of these agents. Return how many keys were wrong, and the files shown wrongly."""
        keys, sources = self._mirror.keys, self._sources
        answers = self._mirror.read_many([("HGETALL", keys.open(agent)) for agent in agents])
        files_of: dict[str, dict[str, str]] = {agent: {} for agent in agents}
        for agent, shown in zip(agents, answers, strict=True):
            if isinstance(shown, dict):
                files_of[agent] |= {file: then for file, then in shown.items() if sources.is_undecided(agent, file)}
        for file, accesses in sources.opened().items():
            for agent in accesses.keys() & files_of.keys():
                opened_at = sources.opened_at(agent, file)
                if opened_at is not None:
                    files_of[agent][file] = opened_at
        commands: list[Command] = []
        strays: set[str] = set()
        wrong = 0
        for agent, shown in zip(agents, answers, strict=True):
            wanted = files_of[agent]
            was = shown if isinstance(shown, dict) else {}
            repairs = hash_commands(keys.open(agent), shown, wanted)
            wrong += bool(repairs)
            strays |= was.keys() - wanted.keys()
            commands += repairs
            for file in sorted(was.keys() | wanted.keys()) if repairs and announce else ():
                if was.get(file) != wanted.get(file):
                    commands += self._opened_or_closed(agent, file, is_open=file in wanted, at=at)
        self._mirror.write(commands)
        return wrong, strays

    def _compare_contents(self, files: Iterable[str], at: str | None = None) -> int:
        """Compare and repair the contents of these files. Return how many keys were wrong. With a time, announce them."""
        keys, sources = self._mirror.keys, self._sources
        wanted: dict[str, Mapping[str, str]] = {}
        for file in files:
            if not any(sources.is_undecided(agent, file) for agent in sources.opened().get(file, ())):
                wanted[keys.file(file)] = sources.content(file) or {}
        answers = self._mirror.read_many([("HGETALL", key) for key in wanted])
        repairs = [hash_commands(key, shown, wanted[key]) for key, shown in zip(wanted, answers, strict=True)]
        self._mirror.write([command for commands in repairs for command in commands])
        wrong: dict[str, set[str]] = {}
        for key, commands in zip(wanted, repairs, strict=True):
            if commands:
                name, _, path = key.removeprefix(keys.file("")).partition("/")
                wrong.setdefault(name, set()).add(path)
        if at is not None:
            self._mirror.write([one for name in wrong for one in self._source_changed(name, wrong[name], (), at)])
        return sum(map(bool, repairs))

    def _source_changed(self, name: str, paths: Iterable[str], agents: Iterable[str], at: str) -> list[Command]:
        """Return the notification that a source, or the agents that see it, have changed."""
        keys = self._mirror.keys
        notice = {
            "kind": "source",
            "source": name,
            "files": sorted(paths)[:FILES_NAMED],
            "at": at,
            "epoch": self._mirror.epoch,
        }
        text = json.dumps(notice, ensure_ascii=False)
        channels = (keys.changes, keys.changes_of_source(name), *map(keys.changes_of_agent, sorted(agents)))
        return [("PUBLISH", channel, text) for channel in channels]

    def _opened_or_closed(self, agent: str, file: str, *, is_open: bool, at: str) -> list[Command]:
        keys = self._mirror.keys
        kind = "opened" if is_open else "closed"
        notice = {"kind": kind, "agent": agent, "file": file, "at": at, "epoch": self._mirror.epoch}
        text = json.dumps(notice, ensure_ascii=False)
        return [("PUBLISH", channel, text) for channel in (keys.changes, keys.changes_of_agent(agent))]
