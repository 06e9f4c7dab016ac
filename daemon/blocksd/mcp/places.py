"""The URIs of an agent's blocks: `blocks://<agent>/<name>`, with `%` and two digits for what a URI cannot hold."""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

from blocksd.errors import NotFound

SCHEME = "blocks"


def uri_of(agent: str, name: str) -> str:
    """Return the URI of a block, by the agent's name for it."""
    return f"{SCHEME}://{quote(agent, safe='')}/{quote(name, safe='/')}"


def name_in(uri: str, agent: str) -> str:
    """Return the agent's name for the block with this URI.

    Raises:
        NotFound: it is no URI of a block, or that of another agent's.
    """
    scheme, _, rest = uri.partition("://")
    host, _, path = rest.partition("/")
    try:
        owner, name = (unquote_to_bytes(part).decode() for part in (host, path))
    except (UnicodeError, ValueError):
        owner = name = ""
    if scheme.lower() != SCHEME or owner != agent or not name:
        raise NotFound(f"{uri[:200]!r} is no block of {agent!r}: its URIs begin with {uri_of(agent, '')}", uri=uri)
    return name
