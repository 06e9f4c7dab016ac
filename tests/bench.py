"""Mirrors on a server, one after the other or beside each other, and what they show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.mirror.keys import Keys
from blocksd.mirror.mirror import Mirror
from rig import ABOUT, AT, Ear, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.model.revision import Revision

EPOCH = "e" * 32


class Bench:
    """One emptied server, a client that looks at it, and the mirrors a test makes on it."""

    def __init__(self, name: str, url: str, make: Callable[[], Any]) -> None:
        self.name = name
        self.url = url
        self._make = make
        self.client = make()
        self._opened: list[Any] = [self.client]

    def mirror(self, *, epoch: str = EPOCH, token: str = "t1", namespace: str = "blocks", **about: str) -> Mirror:
        return Mirror(self._client(), Keys(namespace), url=self.url, epoch=epoch, token=token, about={**ABOUT, **about})

    def fresh(self, *revisions: Revision, **options: Any) -> Mirror:
        """A mirror in charge of an empty namespace, brought level at 0, with these revisions projected."""
        mirror = self.mirror(**options)
        mirror.take_lease()
        rebuild(mirror, [], seq=0)
        if revisions:
            project(mirror, *revisions)
        return mirror

    def ear(self, *channels: str) -> Ear:
        return Ear(self._client(), *channels)

    def _client(self) -> Any:
        self._opened.append(self._make())
        return self._opened[-1]

    def close(self) -> None:
        for client in self._opened:
            client.close()


def project(mirror: Mirror, *revisions: Revision) -> None:
    """Project, and wait for what comes of it."""
    mirror.project(revisions)
    mirror.wait()


def rebuild(mirror: Mirror, heads: list[Revision], *, seq: int) -> None:
    for _ in mirror.begin_rebuild():
        pass
    mirror.rebuild(heads)
    mirror.end_rebuild(seq, AT)


def without_meta(bench: Bench, namespace: str = "blocks") -> dict[str, Any]:
    everything = shown(bench.client, namespace)
    everything.pop(f"{namespace}:meta", None)
    return everything
