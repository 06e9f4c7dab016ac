"""What a shell offers for a label, an agent or a directory that is being typed."""

from __future__ import annotations

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


def labels(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The labels in the mirror that begin so."""
    return _offered(context, lambda keys: keys.labels, incomplete)


def agents(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The known agents that begin so."""
    return _offered(context, lambda keys: keys.agents, incomplete)


def directories(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Any directory: the shell knows them."""
    return [CompletionItem(incomplete, type="dir")]


def _offered(context: click.Context, key: Callable[[Keys], str], incomplete: str) -> list[CompletionItem[str]]:
    """What of an index begins so. Nobody wants to wait for that, or to read what went wrong: then it is nothing."""
    import redis  # noqa: F401  # takes its time, which is not the server's

    found: list[str] = []
    asking = threading.Thread(target=_ask, args=(context.params, key, incomplete, found), daemon=True)
    asking.start()
    asking.join(_SECONDS)
    return [CompletionItem(name) for name in list(found)]


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
