"""Answers a call of an assistant's hook: the whole memory at the start, and then what has changed since the last turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.assistants.changes import changes, shown, visible, whole
from blocksd.assistants.sessions import Place
from blocksd.client.blocking.reading import look
from blocksd.client.blocking.versions import Versions
from blocksd.errors import BlocksdError, Misconfigured, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.assistants.hook_events import Event
    from blocksd.assistants.sessions import Sessions
    from blocksd.client.blocking.transport import Transport
    from blocksd.mirror.view import BlockView

_MOST_REQUESTS = 20
"""How many old versions are asked for at most; blocks beyond are shown whole."""
_REQUEST_SECONDS = 1.0


class Hook:
    """One call of a hook for one agent."""

    def __init__(
        self, connect: Callable[[], Transport], namespace: str, agent: str, sessions: Sessions, most: int
    ) -> None:
        """`connect` finds the server; at most `most` characters are given."""
        self._connect = connect
        self._namespace = namespace
        self._agent = agent
        self._sessions = sessions
        self._most = most
        self._asked = 0
        self._asker: str | None = agent
        self._transport: Transport | None = None

    def context(self, event: Event) -> tuple[str, Callable[[], None]]:
        """Return the text for the model, empty if there is none, and what is to be called once it is given.

        Raises:
            NotFound: the agent is not known.
            Unavailable: Redis does not serve, or has no mirror.
            OSError: what was shown cannot be remembered, so that it would be shown at each turn; at the start it is shown.
        """
        if event.wanted is None:
            return "", _nothing
        session = event.client, self._namespace, self._agent, event.session
        before = None
        if event.wanted == "changes":
            before = self._sessions.place(*session)
        elif event.is_of_session:
            self._sessions.forget(*session)  # if this start gives nothing, the next turn gives everything
        transport = self._transport = self._connect()
        # First the place: what comes after it is looked at again, and found to be known.
        ((epoch, number),) = transport.read(("HMGET", transport.keys.meta, "epoch", "seq"))
        seq = int(number or 0)
        if before is not None and (before.epoch, before.seq) == (epoch, seq):
            return "", _nothing
        sight = look(transport, self._agent)
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
                return text, self._sessions.stage(place, *session)
            except OSError:
                if event.wanted == "changes":
                    raise
        return text, _nothing

    def _past(self, block: BlockView, version: int) -> BlockView | None:
        """Return a block as it was in a version; None if the daemon does not answer, or has not kept it."""
        self._asked += 1
        if self._asked > _MOST_REQUESTS:
            return None
        assert self._transport is not None
        versions = Versions(self._transport, self._asker)
        try:
            name = block.label if self._asker is None else block.name
            return versions.retrieve(name, version, timeout_seconds=_REQUEST_SECONDS).block
        except NotFound:
            return None
        except Misconfigured:
            if self._asker is None:
                self._asked = _MOST_REQUESTS
                return None
            self._asker = None  # this Redis user may ask as an operator, and not as an agent
            return self._past(block, version)
        except BlocksdError:
            self._asked = _MOST_REQUESTS  # the others would wait as long
            return None


def _nothing() -> None:
    """Do nothing."""
