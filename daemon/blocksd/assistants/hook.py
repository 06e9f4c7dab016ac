"""Answers a call of an assistant's hook: the whole memory at the start, and then what has changed since the last turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.assistants.changes import changes, shown, visible, whole
from blocksd.assistants.sessions import Place
from blocksd.client.blocking.reading import look
from blocksd.client.blocking.versions import Versions
from blocksd.errors import BlocksdError, NotFound

if TYPE_CHECKING:
    from blocksd.assistants.hook_events import Event
    from blocksd.assistants.sessions import Sessions
    from blocksd.client.blocking.transport import Transport
    from blocksd.mirror.view import BlockView

_MOST_REQUESTS = 20
"""How many old versions are asked for at most; blocks beyond are shown whole."""
_REQUEST_SECONDS = 1.0


class Hook:
    """One call of a hook for one agent."""

    def __init__(self, transport: Transport, agent: str, sessions: Sessions, most: int) -> None:
        """At most about `most` characters are given."""
        self._transport = transport
        self._agent = agent
        self._sessions = sessions
        self._most = most
        self._asked = 0

    def context(self, event: Event) -> str:
        """Return the text for the model; empty if there is none.

        Raises:
            NotFound: the agent is not known.
            Unavailable: Redis does not serve, or has no mirror.
            OSError: what was shown cannot be remembered, so that it would be shown at each turn; at the start it is shown.
        """
        if event.wanted is None:
            return ""
        session = event.client, self._transport.keys.namespace, self._agent, event.session
        before = self._sessions.place(*session) if event.wanted == "changes" else None
        # First the place: what comes after it is looked at again, and found to be known.
        ((epoch, number),) = self._transport.read(("HMGET", self._transport.keys.meta, "epoch", "seq"))
        seq = int(number or 0)
        if before is not None and (before.epoch, before.seq) == (epoch, seq):
            return ""
        sight = look(self._transport, self._agent)
        blocks = visible(sight)
        place = Place(epoch, seq, {block.id: shown(block) for block in blocks})
        if before is None:
            text = whole(sight, self._most)
        else:
            if before.epoch != epoch:  # its versions are others
                self._asked = _MOST_REQUESTS
            text = changes(before.blocks, blocks, self._past, self._most)
        if event.is_of_session:
            try:
                self._sessions.remember(place, *session)
            except OSError:
                if event.wanted == "changes":
                    raise
        return text

    def _past(self, block: BlockView, version: int) -> BlockView | None:
        """Return a block as it was in a version; None if the daemon does not answer, or has not kept it."""
        self._asked += 1
        if self._asked > _MOST_REQUESTS:
            return None
        try:
            versions = Versions(self._transport)
            return versions.retrieve(block.label, version, timeout_seconds=_REQUEST_SECONDS).block
        except NotFound:
            return None
        except BlocksdError:
            self._asked = _MOST_REQUESTS  # the others would wait as long
            return None
