"""Sends local edits to the leader, one at a time, in a thread: an answer may be waited for."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from blocksd.client.blocking.transport import Transport
from blocksd.errors import BlocksdError, InternalError, InvalidFile
from blocksd.model.label import label_of_path
from blocksd.model.revision import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.follow.outbox import Unsent

_ANSWER_SECONDS = 10.0
"""How long an answer is waited for; then the same request is sent again."""


class Answered(NamedTuple):
    """The leader's answer to an edit: its reply, or why there is none."""

    edit: Unsent
    reply: dict[str, Any] | None
    error: BlocksdError | None = None


class Sender:
    """A thread that asks the daemon of a namespace, and passes its answers to `sink`."""

    def __init__(self, url: str, namespace: str, by: str, sink: Callable[[Answered], object]) -> None:
        self._transport = Transport(url, namespace, by)
        self._sink = sink
        self._edits: queue.SimpleQueue[Unsent | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="blocksd-sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, edit: Unsent) -> None:
        """Send an edit; its answer comes to the sink."""
        self._edits.put(edit)

    def stop(self) -> None:
        """End the thread, after the request in hand or with the process: it is on disk, and sent again."""
        self._edits.put(None)

    def _run(self) -> None:
        while (edit := self._edits.get()) is not None:
            try:
                self._sink(Answered(edit, self._ask(edit)))
            except BlocksdError as error:
                self._sink(Answered(edit, None, error))
            except Exception as error:  # noqa: BLE001  # it is this edit's alone
                failed = InternalError(
                    f"the edit cannot be sent, by a fault in blocksd: {error!r}", error=type(error).__name__
                )
                self._sink(Answered(edit, None, failed))

    def _ask(self, edit: Unsent) -> dict[str, Any]:
        terms: dict[str, Any] = {"label": edit.label, "request_id": edit.id, "timeout_seconds": _ANSWER_SECONDS}
        args: dict[str, Any] | None = None
        if edit.op == "save":
            args = {"file": _text_of(edit), "version": edit.version, "oldest": edit.oldest}
            if edit.base is not None:
                args["base"] = edit.base
        else:
            terms["expect_version"] = edit.version
            if edit.to is not None:
                args = {"to": label_of_path(edit.to)}
        return self._transport.request(OPERATOR, edit.op, args, **terms)


def _text_of(edit: Unsent) -> str:
    try:
        return (edit.text or b"").decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidFile("the file is not UTF-8", hint="convert it, for example with iconv -t UTF-8") from None
