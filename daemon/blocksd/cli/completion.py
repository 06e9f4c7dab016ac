"""Shell completion of labels, agents and directories."""

from __future__ import annotations

import os
import re
import shlex
import threading
from typing import TYPE_CHECKING, Any

from click.shell_completion import CompletionItem

from blocksd.cli.options import load, url_of
from blocksd.errors import BlocksdError
from blocksd.mirror.connection import connect, translated
from blocksd.mirror.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Callable

    import click

_SECONDS = 0.3
_OFFERED = 500
_SPECIAL = re.compile(r"""[\s!"#$&'()*;<>?\[\\\]^`{|}~]""")
"""What a word may not hold as it is in bash, which puts in what it is offered; zsh and fish quote it themselves."""


def labels(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Return the labels in the mirror with this prefix."""
    return _offered(context, lambda keys: keys.labels, incomplete)


def agents(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Return the known agents with this prefix."""
    return _offered(context, lambda keys: keys.agents, incomplete)


def directories(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Leave directories to the shell."""
    return [CompletionItem(incomplete, type="dir")]


def _offered(context: click.Context, key: Callable[[Keys], str], incomplete: str) -> list[CompletionItem[str]]:
    """Return members of an index with this prefix; none after an error, or if that takes too long for a shell."""
    import redis  # noqa: F401  # importing takes time, which must not count

    found: list[str] = []
    asking = threading.Thread(target=_ask, args=(context.params, key, incomplete, found), daemon=True)
    asking.start()
    asking.join(_SECONDS)
    is_bash = os.environ.get("_BLOCKSD_COMPLETE") == "bash_complete"
    return [CompletionItem(shlex.quote(name) if is_bash and _SPECIAL.search(name) else name) for name in list(found)]


def _ask(typed: dict[str, Any], key: Callable[[Keys], str], incomplete: str, found: list[str]) -> None:
    try:
        config = load({name: typed.get(name) for name in ("config_path", "namespace", "redis", "state_dir")})
        url = url_of(config)
        client = connect(url, reply_seconds=_SECONDS)
        with translated(url):
            index = key(Keys(config.namespace))
            found += client.zrangebylex(index, f"[{incomplete}", f"[{incomplete}\U0010ffff", 0, _OFFERED)
    except BlocksdError:
        return
