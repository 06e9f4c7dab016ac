"""All sources: which agents see which text files beside the blocks, and have which of them open."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from blocksd.errors import NotFound, Unavailable
from blocksd.model.attachment import NOBODY, matches
from blocksd.model.label import printable
from blocksd.model.problem import Problem
from blocksd.sources.source import Source
from blocksd.sources.text_file import Unshown, content_of, is_path, source_of
from blocksd.state.schedule import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from blocksd.journal.results import Access
    from blocksd.model.problem import Problems
    from blocksd.settings.config import SourceSettings
    from blocksd.sources.text_file import Seen
    from blocksd.state.schedule import Schedule
    from blocksd.state.state import State


class Sources:
    """All sources, and which of their files are open. A file is named `<source>/<path>`.

    Invariants, between two calls of `look`:
      1. a file is open to an agent iff the agent opened and did not close it, sees its source, and its content is known;
      2. contents are known only of files that are open to an agent, or that a request just named;
      3. `unshown` names all that the mirror does not show yet. Of a source whose first scan is under way it names only
         what agents did: the rest is compared when the scan is done.
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
        """Serve the sources of `settings`; `accesses` are the files that agents have open, from the journal."""
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

    # --- settings ---

    def reconfigure(self, settings: Iterable[SourceSettings]) -> None:
        """Serve these sources from here on. One with other settings is scanned as if it were new.

        One that was served, and whose settings are wrong now, is served as before.
        """
        settings = list(settings)
        self.is_used = self.is_used or bool(settings)
        before, sources = self._sources, dict[str, Source]()
        mistaken, self._mistakes = self._mistakes.keys(), {}
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
            self._forget_source(name)
        for name, source in sources.items():
            if before.get(name) is not source:
                self._agents.setdefault(name, NOBODY)
                self.unshown.configured.add(name)
                self._attach(source, self.known)
            self._report(source)
        for problem in self._mistakes.values():
            self._problems.set(problem)
        for name in (before.keys() | mistaken) - sources.keys() - self._mistakes.keys():
            self._problems.remove(_subject(name))

    def _forget_source(self, name: str) -> None:
        """Forget what is known of a source. The mirror is compared when it is known again, or now if it is not served any more."""
        for file in [file for file in self._contents if source_of(file) == name]:
            del self._contents[file]
        self._unmark(name)
        if name not in self._sources:
            del self._agents[name]
            self.unshown.agents.pop(name, None)
            self.unshown.configured.discard(name)
            self.unshown.listed.add(name)

    def _unmark(self, name: str) -> None:
        """Remove a source's files from `unshown`, because all of them are going to be compared."""
        self.unshown.files.pop(name, None)
        for file, agents in self._opened.items():
            if source_of(file) == name:
                self.unshown.contents.discard(file)
                for agent in agents:
                    self.unshown.accesses.pop((agent, file), None)

    # --- facts ---

    @property
    def names(self) -> list[str]:
        """The names of the sources that are served."""
        return list(self._sources)

    def source(self, name: str) -> Source:
        return self._sources[name]

    def about(self, name: str) -> str:
        """Return a source's description as JSON."""
        settings = self._sources[name].settings
        facts = {key: getattr(settings, key) for key in ("description", "instructions", "limit")}
        return json.dumps({**facts, "directory": os.path.abspath(settings.path)}, ensure_ascii=False)

    @property
    def known(self) -> frozenset[str]:
        """The known agents, as of the last call of `look`."""
        return self._known or NOBODY

    def agents(self, name: str) -> frozenset[str]:
        """Return the agents that see a source."""
        return self._agents.get(name, NOBODY)

    def opened(self) -> Mapping[str, Mapping[str, str]]:
        """Return all files that agents opened and did not close, even those that do not exist: file → agent → when."""
        return self._opened

    def opened_at(self, agent: str, file: str) -> str | None:
        """Return when the agent last opened a file; None: it is not open to the agent."""
        at = self._opened.get(file, {}).get(agent)
        return at if at is not None and file in self._contents and self._sees(agent, file) else None

    def is_undecided(self, agent: str, file: str) -> bool:
        """Return True if a file that the agent opened has not been read yet, so that its content is unknown."""
        source = self._sources.get(source_of(file))
        is_unread = source is not None and not source.is_listed and file not in self._contents
        return is_unread and self._sees(agent, file) and agent in self._opened.get(file, ())

    def content(self, file: str) -> Mapping[str, str] | None:
        """Return a file's content as the mirror shows it; None: it is open to no agent."""
        return self._contents.get(file) if self._is_wanted(file) else None

    def _sees(self, agent: str, file: str) -> bool:
        return agent in self._agents.get(source_of(file), NOBODY)

    def _is_wanted(self, file: str) -> bool:
        return any(self._sees(agent, file) for agent in self._opened.get(file, ()))

    # --- reading ---

    def hint_all(self) -> None:
        """Compare every source soon."""
        for source in self._sources.values():
            source.hint_all()

    def check_roots(self) -> None:
        """Compare the sources whose directory is another one than was scanned."""
        for source in self._sources.values():
            source.check_root()

    @property
    def due(self) -> float:
        """The time of the next read or scan."""
        return min((source.due for source in self._sources.values()), default=float("inf"))

    @property
    def is_settled(self) -> bool:
        """True if every source has been read, or has a problem that says why not."""
        return all(source.is_settled for source in self._sources.values())

    def look(self) -> None:
        """Read what is due, for a few milliseconds, and follow changes of the known agents."""
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
            for seen in source.read_due():
                self._record(source, seen)
            if source.is_listed and not was_listed:
                self._unmark(source.name)
                self.unshown.listed.add(source.name)
            self._report(source)
        self._schedule["sources"] = self.due

    def set_unwatched(self, name: str, why: str) -> None:
        """Record why (parts of) this source give no file events; empty: they do."""
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
        """Find out which of the known agents see a source."""
        before = self._agents[source.name]
        now = frozenset(agent for agent in known if any(matches(entry, agent) for entry in source.settings.agents))
        changed = now ^ before
        if not changed:
            return
        files = [
            file for file, agents in self._opened.items() if source_of(file) == source.name and agents.keys() & changed
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

    def _record(self, source: Source, seen: Seen, *, asked: bool = False) -> None:
        """Record what was read of a file. Its content is kept if it is open, or `asked` for by a request."""
        file = f"{source.name}/{seen.path}"
        if source.is_listed and seen.is_news:
            self.unshown.files.setdefault(source.name, set()).add(seen.path)
        if seen.facts is None:
            self._note_accesses(source, file)
            self._forget(source, file)
        elif asked or self._is_wanted(file):
            content = content_of(source.settings, seen.path, seen.facts, seen.text)
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
        """Note in `unshown` which agents have the file open, before that changes."""
        if source.is_listed:
            for agent in self._opened.get(file, ()):
                self.unshown.accesses.setdefault((agent, file), self.opened_at(agent, file))

    def shown(self) -> None:
        """Record that the mirror shows all that `unshown` names."""
        self.unshown = Unshown()

    # --- requests ---

    def check_open(self, agent: str, file: str) -> None:
        """Check that the agent may open this file now, and read its content.

        Raises:
            NotFound: there is no such text file, or the agent does not see its source.
            Unavailable: it cannot be read for now.
        """
        name, _, path = file.partition("/")
        source = self._sources.get(name)
        if source is None or not self._sees(agent, file) or not is_path(path):
            raise _unseen(agent, file)
        if file not in self._contents or not source.is_same(path):
            seen = source.read(path)
            if seen is not None:
                self._record(source, seen, asked=True)
            elif file not in self._contents:
                why = source.why_not(path)
                raise Unavailable(f"{file[:200]!r} cannot be read for now{why and ': '}{why}", file=file[:200])
        if file not in self._contents:
            why = source.why_not(path)
            raise NotFound(f"there is no text file {file[:200]!r}{why and ': '}{why}", agent=agent, file=file[:200])

    def check_close(self, agent: str, file: str) -> None:
        """Check that the agent may close this file: it opened it, or could open it.

        Raises:
            NotFound: it is neither.
        """
        name, _, path = file.partition("/")
        is_listed = self._sees(agent, file) and path in self._sources[name].files
        if not is_listed and agent not in self._opened.get(file, ()):
            raise _unseen(agent, file)

    def opened_by(self, agent: str) -> list[str]:
        """Return the files that an agent has opened and not closed."""
        return sorted(file for file, agents in self._opened.items() if agent in agents)

    def apply(self, accesses: Iterable[Access]) -> None:
        """Apply accesses that were checked and journaled."""
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
    meanwhile = "; until then, or a restart, it is served as before" if is_served else ""
    hint = f"correct [sources.{printable(settings.name)}], and reload with SIGHUP{meanwhile}"
    return Problem(_subject(settings.name), "misconfigured", settings.mistake, hint)


def _unseen(agent: str, file: str) -> NotFound:
    return NotFound(f"{agent} sees no file {file[:200]!r}", agent=agent, file=file[:200])
