"""Sources: who sees which text files beside the blocks, and who has which of them open.

What agents opened is in the journal; what changed since the mirror was last told is in `unshown`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blocksd.errors import NotFound, Unavailable
from blocksd.files.document import normalize_newlines
from blocksd.model.attachment import NOBODY, matches
from blocksd.model.label import printable
from blocksd.model.problem import Problem
from blocksd.sources.source import Source, is_path
from blocksd.state.schedule import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from blocksd.journal.results import Access
    from blocksd.model.problems import Problems
    from blocksd.settings.config import SourceSettings
    from blocksd.sources.source import Facts, Seen
    from blocksd.state.schedule import Schedule
    from blocksd.state.state import State


@dataclass(slots=True)
class Unshown:
    """What has changed since it was last shown: where to look, and what it was before where that matters."""

    configured: set[str] = field(default_factory=set)  # sources that are new, or have other settings now
    files: dict[str, set[str]] = field(default_factory=dict)  # source → paths that came, changed or went
    agents: dict[str, frozenset[str]] = field(default_factory=dict)  # source → who saw it
    accesses: dict[tuple[str, str], str | None] = field(default_factory=dict)  # agent, file → `opened_at`
    contents: set[str] = field(default_factory=set)  # files
    listed: set[str] = field(default_factory=set)  # sources that have come to be known in full, or have gone

    def __bool__(self) -> bool:
        return any((self.configured, self.files, self.agents, self.accesses, self.contents, self.listed))


class Sources:
    """All sources, and which of their files are open. A file is named `<source>/<path>`.

    Invariants, between two looks:
      1. a file is open to an agent iff the agent opened and did not close it, sees its source, and its content is known;
      2. contents are known only of files that are open to someone, or that a request just asked for;
      3. `unshown` names all that differs from what the mirror was last told. Of a source whose first scan is under way
         it names only what agents did: the rest is compared when the scan is done.
    """

    def __init__(
        self,
        settings: Iterable[SourceSettings],
        state: State,
        problems: Problems,
        accesses: Iterable[Access],
        schedule: Schedule,
        *,
        clock: Callable[[], float],
    ) -> None:
        """`accesses` are the files that agents have open, as the journal has them."""
        self._state = state
        self._problems = problems
        self._schedule = schedule
        self._clock = clock
        self._known: frozenset[str] | None = None
        self._sources: dict[str, Source] = {}
        self._mistakes: dict[str, Problem] = {}
        self._agents: dict[str, frozenset[str]] = {}
        self.is_used = False  # there are sources, or files that agents have opened, or were
        self._opened: dict[str, dict[str, str]] = {}  # file → agent → when it last opened it
        self._contents: dict[str, dict[str, str]] = {}
        self.unshown = Unshown()
        self.reconfigure(settings)
        for agent, file, at in accesses:
            self.is_used = True
            if at is not None:
                self._opened.setdefault(file, {})[agent] = at

    # --- which there are ---

    def reconfigure(self, settings: Iterable[SourceSettings]) -> None:
        """Serve these from now on; one whose settings have changed is looked at as if it were new.

        One that was served, and whose settings are wrong now, is served as it was.
        """
        settings = list(settings)
        self.is_used = self.is_used or bool(settings)
        before, sources = self._sources, dict[str, Source]()
        strange, self._mistakes = self._mistakes.keys(), {}
        for one in settings:
            source = before.get(one.name)
            if one.mistake:
                self._mistakes[one.name] = _mistake(one, is_served=source is not None)
            elif source is None or source.settings != one:
                source = Source(one, self._schedule, clock=self._clock)
            if source is not None:
                sources[one.name] = source
        self._sources = sources
        for name in [name for name, source in before.items() if sources.get(name) is not source]:
            self._begin_anew(name)
        for name, source in sources.items():
            if before.get(name) is not source:
                self._agents.setdefault(name, NOBODY)
                self.unshown.configured.add(name)
                self._attach(source, self.known)
            self._report(source)
        for problem in self._mistakes.values():
            self._problems.set(problem)
        for name in (before.keys() | strange) - sources.keys() - self._mistakes.keys():
            self._problems.remove(_subject(name))

    def _begin_anew(self, name: str) -> None:
        """What is known of a source is void: what is shown of it is compared when it is known again, or now if it has gone."""
        for file in [file for file in self._contents if _source_of(file) == name]:
            del self._contents[file]
        self._unmark(name)
        if name not in self._sources:
            del self._agents[name]
            self.unshown.agents.pop(name, None)
            self.unshown.configured.discard(name)
            self.unshown.listed.add(name)

    def _unmark(self, name: str) -> None:
        """All of a source that is listed or open is going to be compared, so that it need not be named."""
        self.unshown.files.pop(name, None)
        for file, agents in self._opened.items():
            if _source_of(file) == name:
                self.unshown.contents.discard(file)
                for agent in agents:
                    self.unshown.accesses.pop((agent, file), None)

    # --- what there is ---

    @property
    def names(self) -> list[str]:
        """The sources that are served."""
        return list(self._sources)

    def source(self, name: str) -> Source:
        return self._sources[name]

    def about(self, name: str) -> str:
        """A source as JSON: what it is for, and where."""
        settings = self._sources[name].settings
        facts = {
            "description": settings.description,
            "instructions": settings.instructions,
            "limit": settings.limit,
            "directory": os.path.abspath(settings.path),
        }
        return json.dumps(facts, ensure_ascii=False)

    @property
    def known(self) -> frozenset[str]:
        """The known agents, as of the last look."""
        return self._known or NOBODY

    def agents(self, name: str) -> frozenset[str]:
        """Who sees a source."""
        return self._agents.get(name, NOBODY)

    def opened(self) -> Mapping[str, Mapping[str, str]]:
        """All files that agents opened and did not close, whether they are there or not: file → agent → when."""
        return self._opened

    def opened_at(self, agent: str, file: str) -> str | None:
        """When the agent last opened a file that is open to it; None when it is not."""
        at = self._opened.get(file, {}).get(agent)
        return at if at is not None and file in self._contents and self._sees(agent, file) else None

    def is_undecided(self, agent: str, file: str) -> bool:
        """Whether a file that the agent opened has not been looked at yet, so that it is not known what to show of it."""
        source = self._sources.get(_source_of(file))
        is_new = source is not None and not source.is_listed and file not in self._contents
        return is_new and self._sees(agent, file) and agent in self._opened.get(file, ())

    def content(self, file: str) -> Mapping[str, str] | None:
        """What is shown of a file that is open to some agent; None for any other."""
        return self._contents.get(file) if self._is_wanted(file) else None

    def _sees(self, agent: str, file: str) -> bool:
        return agent in self._agents.get(_source_of(file), NOBODY)

    def _is_wanted(self, file: str) -> bool:
        return any(self._sees(agent, file) for agent in self._opened.get(file, ()))

    # --- looking ---

    def hint_all(self) -> None:
        """Something happened somewhere: compare every source with what is known of it."""
        for source in self._sources.values():
            source.hint_all()

    def check_roots(self) -> None:
        """See whether each source's directory is still the one that was scanned."""
        for source in self._sources.values():
            source.check_root()

    @property
    def due(self) -> float:
        """When the next look is due."""
        return min((source.due for source in self._sources.values()), default=float("inf"))

    @property
    def is_settled(self) -> bool:
        """Whether every source has been looked at, or cannot be, and that was said."""
        return all(source.is_settled for source in self._sources.values())

    def look(self) -> None:
        """Look at what is due, for a few milliseconds, and at who the agents are."""
        if not self._sources:
            self._schedule["sources"] = NEVER
            return
        known = self._state.attachments.known
        if known is not self._known:
            self._known = known
            for source in self._sources.values():
                self._attach(source, known)
        for source in [source for source in self._sources.values() if source.is_due]:
            was_listed = source.is_listed
            for seen in source.look():
                self._take(source, seen)
            if source.is_listed and not was_listed:
                self._unmark(source.name)
                self.unshown.listed.add(source.name)
            self._report(source)
        self._schedule["sources"] = self.due

    def set_unwatched(self, name: str, why: str) -> None:
        """No events come from (parts of) this source; the empty text: they do."""
        source = self._sources[name]
        if source.unwatched != why:
            source.unwatched = why
            self._report(source)

    def _report(self, source: Source) -> None:
        problem = self._mistakes.get(source.name) or source.problem()
        if problem is not None:
            self._problems.set(problem)
        else:
            self._problems.remove(source.subject)

    def _attach(self, source: Source, known: frozenset[str]) -> None:
        """The known agents are others than before: who sees the source?"""
        before = self._agents[source.name]
        entries = source.settings.agents
        now = frozenset(agent for agent in known if any(matches(entry, agent) for entry in entries))
        changed = now ^ before
        if not changed:
            return
        files = [
            file for file, agents in self._opened.items() if _source_of(file) == source.name and agents.keys() & changed
        ]
        for file in files:
            self._note_accesses(source, file)
        self.unshown.agents.setdefault(source.name, before)
        self._agents[source.name] = now
        for file in files:
            if not self._is_wanted(file):
                self._forget(source, file)
            elif file not in self._contents:
                source.hint_file(file.partition("/")[2], closed=True)

    def _take(self, source: Source, seen: Seen, *, asked: bool = False) -> None:
        """What a look at a file came to. Its content is of interest if it is open, or was `asked` for."""
        file = f"{source.name}/{seen.path}"
        if source.is_listed and seen.is_news:
            self.unshown.files.setdefault(source.name, set()).add(seen.path)
        if seen.facts is None:
            self._note_accesses(source, file)
            self._forget(source, file)
        elif asked or self._is_wanted(file):
            content = _content(source.settings, seen.path, seen.facts, seen.text)
            if file not in self._contents:
                self._note_accesses(source, file)
            if self._contents.get(file) != content:
                self._contents[file] = content
                if source.is_listed:
                    self.unshown.contents.add(file)

    def _forget(self, source: Source, file: str) -> None:
        if self._contents.pop(file, None) is not None and source.is_listed:
            self.unshown.contents.add(file)

    def _note_accesses(self, source: Source, file: str) -> None:
        """To whom the file is open, before that changes."""
        if source.is_listed:
            for agent in self._opened.get(file, ()):
                self.unshown.accesses.setdefault((agent, file), self.opened_at(agent, file))

    def shown(self) -> None:
        """All that `unshown` names has been shown."""
        self.unshown = Unshown()

    # --- what agents ask for ---

    def check_open(self, agent: str, file: str) -> None:
        """See that the agent may open this file now; its content is known then.

        Raises:
            NotFound: there is no such text file, or the agent does not see its source.
            Unavailable: it cannot be read for now.
        """
        name, _, path = file.partition("/")
        source = self._sources.get(name)
        if source is None or not self._sees(agent, file) or not is_path(path):
            raise _unseen(agent, file)
        if file not in self._contents or not source.is_same(path):
            seen = source.look_at(path)
            if seen is not None:
                self._take(source, seen, asked=True)
            elif file not in self._contents:
                why = source.why_not(path)
                raise Unavailable(f"{file[:200]!r} cannot be read for now{why and ': '}{why}", file=file[:200])
        if file not in self._contents:
            why = source.why_not(path)
            raise NotFound(f"there is no text file {file[:200]!r}{why and ': '}{why}", agent=agent, file=file[:200])

    def check_close(self, agent: str, file: str) -> None:
        """See that the agent may close this file: one that it opened, or could open.

        Raises:
            NotFound: it is neither.
        """
        name, _, path = file.partition("/")
        is_seen = self._sees(agent, file) and path in self._sources[name].files
        if not is_seen and agent not in self._opened.get(file, ()):
            raise _unseen(agent, file)

    def opened_by(self, agent: str) -> list[str]:
        """The files that an agent has opened and not closed."""
        return sorted(file for file, agents in self._opened.items() if agent in agents)

    def apply(self, accesses: Iterable[Access]) -> None:
        """These accesses, which were checked, have been journaled."""
        for agent, file, at in accesses:
            self.unshown.accesses.setdefault((agent, file), self.opened_at(agent, file))
            was_wanted = self._is_wanted(file)
            agents = self._opened.setdefault(file, {})
            if at is not None:
                agents[agent] = at
            else:
                agents.pop(agent, None)
            if not agents:
                del self._opened[file]
            if not self._is_wanted(file):
                self._contents.pop(file, None)
            if self._is_wanted(file) != was_wanted:
                self.unshown.contents.add(file)


def _subject(name: str) -> str:
    return f"source {printable(name)}"


def _mistake(settings: SourceSettings, *, is_served: bool) -> Problem:
    meanwhile = "; until then, or a restart, it is served as it was" if is_served else ""
    hint = f"mend [sources.{printable(settings.name)}], and reload with SIGHUP{meanwhile}"
    return Problem(_subject(settings.name), "misconfigured", settings.mistake, hint)


def _source_of(file: str) -> str:
    return file.partition("/")[0]


def _unseen(agent: str, file: str) -> NotFound:
    return NotFound(f"{agent} sees no file {file[:200]!r}", agent=agent, file=file[:200])


def _content(settings: SourceSettings, path: str, facts: Facts, text: str) -> dict[str, str]:
    """An open file as the mirror shows it."""
    value = normalize_newlines(text)
    return {
        "value": value[: settings.limit],
        "chars": str(len(value)),
        "limit": str(settings.limit),
        "source": settings.name,
        "path": path,
        "updated_at": facts.updated_at,
    }
