"""Every Redis key and channel name.

All of a namespace's keys start with `<namespace>:`. With the namespace `blocks`:

| key | type | holds |
|---|---|---|
| `blocks:block:<label>` | hash | the block: `value description limit read_only hidden tags metadata …`, and `label version digest id created_at updated_at updated_by chars`; lists and maps as JSON, booleans `true`/`false`, no field for null; of its file `path head newline tail file mode` (`file_form.py`), those that are not as usual |
| `blocks:attached:<label>` | set | ids of the agents attached to it |
| `blocks:agent:<agent>` | hash | name → label of every block attached to the agent |
| `blocks:agent-info:<agent>` | hash | the properties of an agent that has an `agent.yaml`: `name description agent_type system tags metadata`, as in a block, and `agent version digest created_at updated_at updated_by`; `file`, its text |
| `blocks:agents` | zset | known agents, score 0 |
| `blocks:agents-created` | zset | known agents, each with when it became known as its score, in milliseconds since 1970 |
| `blocks:departed` | hash | agent that is not known any more → its score there; goes an hour after the last one, and begins anew at 10,000 |
| `blocks:labels` | zset | labels, score 0 |
| `blocks:ids` | hash | block id → label |
| `blocks:counts` | zset | labels, each with the number of agents attached to the block as its score |
| `blocks:index` | zset | for each block its label and the facts by which listings find it, score 0 (`index.py`) |
| `blocks:created` | zset | labels, each with the block's `created_at` as its score, in milliseconds since 1970 |
| `blocks:updated` | zset | the same of `updated_at` |
| `blocks:problems` | hash | path → JSON of a `Problem` |
| `blocks:meta` | hash | `epoch seq schema generation directory host machine folder_id pid started_at run` |
| `blocks:lease` | string | `<epoch> <token> <machine> <folder_id>` of the daemon that serves the namespace; expires unless renewed |
| `blocks:changes` | stream | one entry per change, id `<seq>-0`, field `change`; what has no seq follows as `<seq>-1` … |
| `blocks:sources` | hash | source → JSON of its `description`, `instructions`, `limit` and `directory` |
| `blocks:source:<source>` | hash | path of each of its text files, below its directory → JSON of its `bytes` and `updated_at` |
| `blocks:source-agents:<source>` | set | ids of the agents that see it |
| `blocks:file:<source>/<path>` | hash | a file that is open for some agent: `value` (its first `limit` characters), `chars` (of all of it), `limit source path updated_at` |
| `blocks:open:<agent>` | hash | `<source>/<path>` of each file open for the agent → when it was last opened |
| `blocks:inbox:<actor>` | stream | requests of an agent, or of `operator`: one field `request`, JSON; an entry is removed when it is done |
| `blocks:reply:<actor>:<request id>` | list | the one reply to a request, JSON; expires after 60 s |

Channels: `blocks:changes` (every change), `blocks:changes:reset` (resets, for subscribers of one block or agent), `blocks:changes:block:<label>` (one block's), `blocks:changes:agent:<agent>`
(what came to or went from an agent, and its private blocks' changes), `blocks:changes:source:<source>` (one source's).
Each message is a change as one line of JSON. Changes of sources and open files have no seq and are not in the stream:
`{"kind": "source", "source", "files": [at most 100 paths that changed], "at", "epoch"}`, also to each agent that began
or ceased to see the source, and to an agent `{"kind": "opened" | "closed", "agent", "file", "at", "epoch"}`.

On a Redis Cluster the namespace carries a hash tag (`{blocks}`), so that all of its keys live in one slot.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blocksd.model.label import parse_namespace

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = 4
"""The version of this layout. A mirror of another one is built anew."""

_NUMBER = re.compile("0|[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a mirror: the epoch it was projected from, None if unknown, and the last seq it shows."""

    epoch: str | None
    seq: int


def number_of(shown: str | None) -> int | None:
    """Return a number that a mirror shows; None if it shows none, or no daemon writes it like that."""
    return int(shown) if shown is not None and _NUMBER.fullmatch(shown) else None


class Keys:
    """The key and channel names of one namespace.

    Those with a label, an agent or a source in them are made of their beginning: `keys.block(label)`. A file is named
    `<source>/<path>`, and a reply `<actor>:<request id>`.
    """

    def __init__(self, namespace: str) -> None:
        """Take a namespace. Raises Misconfigured if it is invalid."""
        self.namespace = parse_namespace(namespace)
        self.agents = f"{namespace}:agents"
        self.agents_created = f"{namespace}:agents-created"
        self.departed = f"{namespace}:departed"
        self.labels = f"{namespace}:labels"
        self.ids = f"{namespace}:ids"
        self.counts = f"{namespace}:counts"
        self.index = f"{namespace}:index"
        self.created = f"{namespace}:created"
        self.updated = f"{namespace}:updated"
        self.problems = f"{namespace}:problems"
        self.meta = f"{namespace}:meta"
        self.lease = f"{namespace}:lease"
        self.changes = f"{namespace}:changes"
        self.sources = f"{namespace}:sources"
        self.resets = f"{self.changes}:reset"
        """The channel of resets, for subscribers of one block or agent."""
        self.block = _named(f"{namespace}:block:")
        self.attached = _named(f"{namespace}:attached:")
        self.agent = _named(f"{namespace}:agent:")
        self.agent_info = _named(f"{namespace}:agent-info:")
        self.source = _named(f"{namespace}:source:")
        self.source_agents = _named(f"{namespace}:source-agents:")
        self.file = _named(f"{namespace}:file:")
        self.open = _named(f"{namespace}:open:")
        of_blocks_and_agents = (self.block, self.attached, self.agent, self.agent_info)
        self.of_a_kind = (*of_blocks_and_agents, self.source, self.source_agents, self.file, self.open)
        """What makes the keys that the mirror has of each block, agent, source and file."""
        self.inbox = _named(f"{namespace}:inbox:")
        self.reply = _named(f"{namespace}:reply:")
        self.changes_of_block = _named(f"{self.changes}:block:")
        self.changes_of_agent = _named(f"{self.changes}:agent:")
        self.changes_of_source = _named(f"{self.changes}:source:")

    def times(self, field: str) -> str:
        """Return the key of the times of all blocks that the field `created_at` or `updated_at` has."""
        return self.created if field == "created_at" else self.updated


def _named(beginning: str) -> Callable[[str], str]:
    """Return a function that adds a name to this beginning."""
    return beginning.__add__
