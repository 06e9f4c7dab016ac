"""Decides what the requests of one round come to: each is answered, refused, or has to wait."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from blocksd.errors import (
    BlocksdError,
    InvalidRequest,
    JournalDamaged,
    JournalUnusable,
    Misconfigured,
    NotFound,
    OtherBlock,
    Unavailable,
)
from blocksd.files.file_edit import Postponed
from blocksd.journal.results import Access
from blocksd.model.faults import Fault
from blocksd.model.label import printable
from blocksd.model.problem import FOLDER, Problem, unmerged, unmerged_subject
from blocksd.model.revision import MERGE, OPERATOR, timestamp
from blocksd.requests.agent_operations import access_of
from blocksd.requests.changeset import Changeset
from blocksd.requests.inbox import ATTEMPTS
from blocksd.requests.operations import carry_out
from blocksd.requests.queries import ACCEPT_DELETIONS, QUERIES, answer_query
from blocksd.requests.reply import Answer, accepted, kept_refusal, marked, refused, repeated, shown, unmarked
from blocksd.requests.request import Request, Unusable, parse
from blocksd.state.stale import lost_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from blocksd.journal.results import Results
    from blocksd.model.faults import Faults
    from blocksd.model.problem import Problems
    from blocksd.model.revision import Revision
    from blocksd.requests.inbox import Handled, StartedRequests
    from blocksd.requests.request import Entry
    from blocksd.requests.workspace import Workspace
    from blocksd.sources.sources import Sources

ROUND = 8 * 1024 * 1024
"""How many characters a round takes requests for, of revisions to write and of texts to search: what goes over it waits
for the next, so that a round takes a fraction of the time after which the daemon counts as hung."""

WRITER_PATIENCE_SECONDS = 10.0
"""For how long a request waits for a file that another program has open for writing."""

MERGE_SECONDS = (1.0, 300.0)
"""Until a stale save whose file could not be written is merged again, the first time and at most."""

PAUSE_SECONDS = (0.01, 1.0)
"""Until a request to a file that another program is changing is tried again, at least and at most."""

Key = tuple[str, str]
"""The actor and the id of a request."""


@dataclass(frozen=True, slots=True)
class RequestView:
    """All that may be read while requests are decided, besides the workspace; nothing of it is changed.

    `waiting` are requests that wait for a file that is open: since when.
    """

    results: Results
    handled: Handled
    started: StartedRequests
    sources: Sources
    problems: Problems
    faults: Faults
    waiting: Mapping[Entry, float]
    refusal: Callable[[str], BlocksdError | None]
    """Return why nothing can be written to the block of a missing file; None if that is about to change."""
    is_folder_in_doubt: bool
    held_back: Callable[[], int | None]
    """Return how many deletions are held back; None: the daemon has not halted."""
    status: Callable[[], Mapping[str, Any]]
    """Return the status of the daemon."""
    now: float
    wall: float


@dataclass(slots=True)
class Answers:
    """The outcome of the requests of a round.

    `replies` are those of all its requests. Outcomes, as they are kept, are `settled` if they wait for no file, else
    `edited`: they stand as soon as the files say so. Of merges, `merged` are over, and `unmerged` are tried again, first
    after the shorter of two times.
    """

    answers: list[Answer] = field(default_factory=list)
    replies: dict[Key, str] = field(default_factory=dict)
    settled: dict[Key, str] = field(default_factory=dict)
    edited: dict[Key, str] = field(default_factory=dict)
    accesses: list[Access] = field(default_factory=list)
    postponed: list[Entry] = field(default_factory=list)
    cut: Sequence[Entry] = ()  # those of the postponed that wait for nothing but the next round
    waiting: dict[Entry, float] = field(default_factory=dict)  # those that wait for an open file: since when
    accepts_deletions: bool = False  # those that are held back
    dropped: list[Unusable] = field(default_factory=list)  # entries that cannot be replied to, for a log
    reread: list[str] = field(default_factory=list)  # files that are not as they were read last
    merged: list[str] = field(default_factory=list)
    unmerged: dict[str, tuple[float, float]] = field(default_factory=dict)
    losses: list[Revision] = field(default_factory=list)  # stale saves that cannot be merged, with what they revert
    problems: dict[str, Problem | None] = field(default_factory=dict)  # by subject


def answer_requests(
    view: RequestView, workspace: Workspace, entries: Sequence[Entry], merges: Iterable[str], later: Sequence[Entry]
) -> Answers:
    """Merge stale saves and decide on requests, in a workspace; those that come `later` wait for the next round."""
    deciding = _Deciding(view, workspace)
    answers = deciding.answers
    for label in sorted(merges):
        deciding.merge(label)
    for place, entry in enumerate(entries):
        if place and workspace.load > ROUND:
            answers.cut = [*entries[place:], *later]
            answers.postponed += answers.cut
            return answers
        answer = deciding.answer(entry)
        if answer is not None:
            answers.answers.append(answer)
    if later:
        # One that waits for a file must not be taken again and again in the place of one to be done alone.
        answers.cut = later
        answers.postponed = [*later, *answers.postponed]
    return answers


class _Deciding:
    """The requests of one round so far."""

    def __init__(self, view: RequestView, workspace: Workspace) -> None:
        self._view = view
        self._workspace = workspace
        self.answers = Answers()

    def merge(self, label: str) -> None:
        """Put a stale save and what came before it together; what cannot be merged any more stays as it was saved."""
        answers, workspace = self.answers, self._workspace
        changeset = Changeset(workspace, workspace.draft.branch(), MERGE, "", is_operator=True)
        try:
            changeset.merge_stale(label)
            workspace.take(changeset.draft, changeset.files)
        except Postponed as postponed:
            answers.reread.append(postponed.path)
            answers.unmerged[label] = PAUSE_SECONDS
            return
        except JournalDamaged:
            raise
        except (Unavailable, JournalUnusable) as error:
            answers.unmerged[label] = MERGE_SECONDS
            answers.problems[unmerged_subject(label)] = unmerged(label, error)
            return
        except BlocksdError:
            self._note_loss(label)
        except Exception as error:  # noqa: BLE001  # a fault of ours: the save stays as it is
            self._view.faults.count_error("merging a save", error)
            self._note_loss(label)
        answers.merged.append(label)
        answers.problems[unmerged_subject(label)] = None

    def _note_loss(self, label: str) -> None:
        """Note which versions' text a stale save has taken away for good."""
        draft = self._workspace.draft
        newest = draft.newest(label)
        if newest is not None and newest.stale_base is not None:
            reverts = lost_by(newest, draft)
            if reverts:
                self.answers.losses.append(replace(newest, reverts=reverts))

    def answer(self, entry: Entry) -> Answer | None:
        """The answer to an entry, whatever goes wrong with it; None: it has to wait."""
        request: Request | Unusable | None = None
        try:
            request = parse(entry)
            if isinstance(request, Unusable):
                return self._answer_unusable(request)
            return self._answer_request(request)
        except (JournalUnusable, Misconfigured):
            raise
        except Exception as error:  # noqa: BLE001  # a fault of ours: this request ends by it, and nothing else
            return self._failed(entry, request, error)

    def _failed(self, entry: Entry, request: Request | Unusable | None, error: Exception) -> Answer:
        answers = self.answers
        key = entry.actor, getattr(request, "id", None) or ""
        answers.edited.pop(key, None)
        answers.replies.pop(key, None)
        failure = self._view.faults.count_error("carrying a request out", error)
        if request is None or request.id is None:
            answers.dropped.append(Unusable(entry, None, failure))
            return Answer(entry, None, None)
        outcome = refused(request.id, failure)
        if isinstance(request, Request):
            answers.settled[key], answers.replies[key] = marked(outcome, request.mark), outcome
        return Answer(entry, request.id, outcome, getattr(request, "op", None))

    def _answer_unusable(self, unusable: Unusable) -> Answer:
        if unusable.id is None:
            self.answers.dropped.append(unusable)
            return Answer(unusable.entry, None, None)
        return Answer(unusable.entry, unusable.id, refused(unusable.id, unusable.error))

    def _answer_request(self, request: Request) -> Answer | None:
        entry, answers = request.entry, self.answers
        key = (entry.actor, request.id)
        if request.op in QUERIES:
            return Answer(entry, request.id, self._answer_query(request), request.op)
        try:
            outcome = self._repeated(key, request)
        except InvalidRequest as other:
            return Answer(entry, request.id, refused(request.id, other), request.op)
        if outcome is None:
            try:
                self._check_entry(entry)
                outcome = self._do(request, key)
            except Postponed as postponed:
                error = self._why_not_wait(postponed, entry)
                if error is None:
                    answers.reread.append(postponed.path)
                    answers.postponed.append(entry)
                    return None
                outcome = self._refuse(request, key, error)
            except JournalDamaged:
                raise
            except JournalUnusable as error:  # a version that is wanted for this, and cannot be read
                outcome = refused(request.id, Unavailable(error.message))
            except BlocksdError as error:
                outcome = self._refuse(request, key, error)
        return Answer(entry, request.id, outcome, request.op)

    def _answer_query(self, request: Request) -> str:
        """The reply to a request that only reads: it is not kept, and made again if the request is repeated."""
        try:
            if request.deadline is not None:
                request.check_deadline(self._view.wall)
            self._check_known(request.actor)
            facts = answer_query(request, self._workspace.draft, self._view.status, self._view.held_back)
            self.answers.accepts_deletions |= request.op == ACCEPT_DELETIONS
        except JournalDamaged:
            raise
        except JournalUnusable as error:
            return refused(request.id, Unavailable(error.message))
        except BlocksdError as error:
            return refused(request.id, error)
        return accepted(request.id, facts, "")[1]

    def _refuse(self, request: Request, key: Key, error: BlocksdError) -> str:
        """The reply that says why a request is refused; it stands, unless the reason may pass and another try is worth it."""
        outcome, answers = refused(request.id, error), self.answers
        if not isinstance(error, (Unavailable, OtherBlock)):
            label = error.facts.get("label")
            is_shown = "block" in error.facts and isinstance(label, str)
            in_it = self._workspace.draft.newest(str(label)) if is_shown else None
            answers.settled[key] = marked(kept_refusal(request.id, error, in_it), request.mark)
            answers.replies[key] = outcome
        return outcome

    def _repeated(self, key: Key, request: Request) -> str | None:
        """The reply to a request that was done before, made again; None when it was not, or too long ago.

        Raises:
            InvalidRequest: another request was sent under its id.
        """
        answers = self.answers
        outcome = answers.edited.get(key) or answers.settled.get(key) or self._view.results.outcome_of(*key)
        if outcome is None:
            return None
        outcome = unmarked(outcome, request.mark)
        return answers.replies.get(key) or repeated(outcome, self._block_of)

    def _block_of(self, seq: int) -> dict[str, Any] | None:
        revision = self._workspace.draft.revision(seq)
        return shown(revision) if revision is not None else None

    def _check_entry(self, entry: Entry) -> None:
        """Check that an entry may be carried out.

        Raises:
            InvalidRequest: it was dealt with so long ago that its outcome is forgotten.
            InternalError: the daemon ended each time it began this request.
        """
        if self._view.handled.marks and self._view.handled.has(entry):
            raise InvalidRequest(
                f"the entry {entry.id} is not newer than others of this inbox that were dealt with long ago: nothing was done; "
                "read the block, and send the request again if it is still wanted",
                field="id",
            )
        attempts = self._view.started.attempts(entry) if self._view.started.counts else 0
        if attempts >= ATTEMPTS:
            inbox = f"inbox of {printable(entry.actor)}"
            text = f"the request {entry.id} in the {inbox} was begun {attempts} times"
            raise self._view.faults.count_fault(Fault("each time it began a request", "Unfinished", inbox, text))

    def _do(self, request: Request, key: Key) -> str:
        """The reply to a request, once it is done.

        Raises:
            Postponed: it cannot be done yet.
            BlocksdError: it is refused.
        """
        view, workspace, answers = self._view, self._workspace, self.answers
        if request.deadline is not None:
            request.check_deadline(view.wall)
        if request.op in ("open_file", "close_file"):
            access = access_of(request, view.sources, self._check_known, timestamp(view.wall))
            answers.accesses.append(access)
            answers.settled[key], reply = accepted(request.id, access.as_json(), request.mark)
            answers.replies[key] = reply
            return reply
        if view.is_folder_in_doubt and (problem := view.problems.get(FOLDER)) is not None:
            raise Unavailable(f"{problem.message}; nothing can be written meanwhile", path="", hint=problem.hint)
        self._check_known(request.entry.actor)
        before = workspace.agents_gone
        is_again = bool(view.started.counts) and view.started.attempts(request.entry) > 0
        edited, reply = carry_out(workspace, request, is_again=is_again)
        for agent in workspace.agents_gone - before:
            opened = {*view.sources.opened_by(agent), *(one.file for one in answers.accesses if one.agent == agent)}
            answers.accesses += [Access(agent, file, None) for file in sorted(opened)]
        answers.edited[key], answers.replies[key] = edited, reply
        return reply

    def _check_known(self, agent: str) -> None:
        """Raises NotFound when there is no such agent any more: what it had asked for would bring it back."""
        attachments = self._workspace.draft.attachments
        if agent != OPERATOR and agent not in (attachments.listed or ()) and not attachments.is_known(agent):
            raise NotFound(f"there is no agent {printable(agent)!r}", agent=printable(agent))

    def _why_not_wait(self, postponed: Postponed, entry: Entry) -> BlocksdError | None:
        """Why a request is refused that waits for a file; None while it may wait."""
        view, path = self._view, printable(postponed.path)
        refusal = view.refusal(postponed.path)
        if refusal is not None:
            return refusal
        if not postponed.is_open:
            return None
        since = view.waiting.get(entry, view.now)
        if view.now - since < WRITER_PATIENCE_SECONDS:
            self.answers.waiting[entry] = since
            return None
        problem = view.problems.get(path)
        why = problem.message if problem is not None else "it is open for writing by another program"
        return Unavailable(f"{path}: {why}; nothing is written to it until it is closed", path=path)
