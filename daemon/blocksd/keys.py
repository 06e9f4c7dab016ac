"""Every Redis key and channel name.

All of a namespace's keys start with `<namespace>:`. With the namespace `blocks`:

| key | type | holds |
|---|---|---|
| `blocks:block:<label>` | hash | the block: `value description limit read_only hidden tags metadata …`, and `label version digest id created_at updated_at updated_by chars`; lists and maps as JSON, booleans `true`/`false`, no field for null |
| `blocks:attached:<label>` | set | ids of the agents attached to it |
| `blocks:agent:<agent>` | hash | name → label of every block attached to the agent |
| `blocks:agents` | zset | known agents, score 0 |
| `blocks:labels` | zset | labels, score 0 |
| `blocks:ids` | hash | block id → label |
| `blocks:problems` | hash | path → JSON of a `Problem` |
| `blocks:meta` | hash | `epoch seq schema directory host pid started_at` |
| `blocks:lease` | string | `<epoch> <token>` of the daemon in charge; expires unless renewed |
| `blocks:changes` | stream | one entry per change, id `<seq>-0`, field `change`; a reset is `<seq>-1` |

Channels: `blocks:changes` (every change), `blocks:changes:block:<label>` (one block's), `blocks:changes:agent:<agent>`
(what came to or went from an agent, and its private blocks' changes). Each message is a change as one line of JSON.

On a Redis Cluster the namespace carries a hash tag (`{blocks}`), so that all of its keys live in one slot.
"""

from __future__ import annotations

import re

from blocksd.errors import Misconfigured

SCHEMA = 1

_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}|\{[A-Za-z0-9_][A-Za-z0-9_.-]{0,61}\}")


class Keys:
    """The key and channel names of one namespace."""

    def __init__(self, namespace: str) -> None:
        """Raises Misconfigured when `namespace` is not one."""
        if not _NAMESPACE.fullmatch(namespace):
            raise Misconfigured(
                f"{namespace[:80]!r} is not a namespace: use letters, digits, '_', '-' and '.'", key="namespace"
            )
        self.namespace = namespace
        self.agents = f"{namespace}:agents"
        self.labels = f"{namespace}:labels"
        self.ids = f"{namespace}:ids"
        self.problems = f"{namespace}:problems"
        self.meta = f"{namespace}:meta"
        self.lease = f"{namespace}:lease"
        self.changes = f"{namespace}:changes"

    def block(self, label: str) -> str:
        return f"{self.namespace}:block:{label}"

    def attached(self, label: str) -> str:
        return f"{self.namespace}:attached:{label}"

    def agent(self, agent: str) -> str:
        return f"{self.namespace}:agent:{agent}"

    def changes_of_block(self, label: str) -> str:
        """The channel of one block's changes."""
        return f"{self.changes}:block:{label}"

    def changes_of_agent(self, agent: str) -> str:
        """The channel of what comes to and goes from one agent."""
        return f"{self.changes}:agent:{agent}"
