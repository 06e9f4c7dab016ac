"""The blocks attached to one agent, followed through the changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.model.label import properties_label

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blocksd.model.revision import Change


class Attached:
    """The labels of an agent's blocks, as of the last change that was followed."""

    def __init__(self, agent: str, labels: Iterable[str] = ()) -> None:
        self.agent = agent
        self.labels = set(labels)
        self.moves = 0
        """How often the labels have changed."""

    def follow(self, change: Change) -> bool:
        """Take a revision: True if it concerns the agent."""
        label, agent = change.label or "", self.agent
        came, went = agent in change.attached, agent in change.detached
        was_renamed = change.renamed_from in self.labels
        is_ours = came or went or was_renamed or label in self.labels or label == properties_label(agent)
        self.moves += came or went or was_renamed
        if was_renamed:
            self.labels.discard(str(change.renamed_from))
        if came or was_renamed:
            self.labels.add(label)
        if went:
            self.labels.discard(label)
        return is_ours

    def is_in(self, repaired: Change) -> bool:
        """Return True if the mirror showed the agent or its blocks wrongly, going by a `repaired`."""
        return self.agent in repaired.raw.get("agents", ()) or not self.labels.isdisjoint(repaired.labels)
