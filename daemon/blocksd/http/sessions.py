"""Sessions: the cookie by which a browser is signed in with a token, without keeping the token.

The cookie is the time when it expires, and a code made of that with the token's digest as the key. So each gateway that
has the token knows the session, none keeps anything, and a token that is taken away ends its sessions. Nothing in the cookie
can be turned back into the token.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocksd.http.tokens import Caller, Tokens

SECONDS = 7 * 24 * 3600
"""How long a session lasts."""

_PURPOSE = b"blocksd session until "
_MOST = 200
_MOST_COOKIES = 10
"""How many cookies of the session's name are looked at."""
_SAFE = ("GET", "HEAD", "OPTIONS")


def cookie_for(tokens: Tokens, token: str, host: str, now: float, *, is_secure: bool) -> str:
    """Return the header `Set-Cookie` that signs in with a token, which is one of these."""
    expires = int(now) + SECONDS
    return _cookie(f"{expires}.{tokens.code(token, _text(expires))}", host, SECONDS, is_secure=is_secure)


def end_cookie(host: str, *, is_secure: bool) -> str:
    """Return the header `Set-Cookie` that signs out."""
    return _cookie("", host, 0, is_secure=is_secure)


def caller_of(tokens: Tokens, headers: Mapping[bytes, bytes], now: float) -> Caller | None:
    """Return who is signed in by the cookie of a request; None: nobody is."""
    text = headers.get(b"cookie", b"").decode("latin-1")
    if not text:
        return None
    host = headers.get(b"host", b"").decode("latin-1")
    names = [_name(host, is_secure=is_secure) for is_secure in (True, False)]
    # Other programs of the host set cookies, too, also of this name, and not all of them as standards have it.
    pairs = (pair.strip().partition("=") for pair in text.split(";"))
    for value in islice((value for name, _, value in pairs if name in names), _MOST_COOKIES):
        expires, _, code = value[:_MOST].partition(".")
        if expires.isascii() and expires.isdigit() and int(expires) > now:
            caller = tokens.caller_by_code(code, _text(int(expires)))
            if caller is not None:
                return caller
    return None


def is_forged(method: str, headers: Mapping[bytes, bytes], *, by_cookie: bool) -> bool:
    """Return True if a request that changes something may have been made by another page in the name of this browser.

    The browser says from where a request comes. A request by the cookie must say so; others may come from no browser.
    """
    if method in _SAFE:
        return False
    site = headers.get(b"sec-fetch-site", b"").decode("latin-1")
    if site and site != "none":
        return site != "same-origin"
    return by_cookie and b"origin" not in headers  # one that is there was found to be ours


def is_secure(scheme: str, headers: Mapping[bytes, bytes]) -> bool:
    """Return True if the browser reached the gateway by TLS, which may end at a proxy: the page's origin tells."""
    return scheme == "https" or headers.get(b"origin", b"").startswith(b"https://")


def _text(expires: int) -> bytes:
    return _PURPOSE + str(expires).encode()


def _name(host: str, *, is_secure: bool) -> str:
    """Return the cookie's name. Cookies know no ports: so gateways at several ports of one host have several names."""
    port = urlsplit(f"//{host}").port
    return f"{'__Host-' if is_secure else ''}blocksd{'' if port is None else f'-{port}'}"


def _cookie(value: str, host: str, seconds: int, *, is_secure: bool) -> str:
    secure = "; Secure" if is_secure else ""
    name = _name(host, is_secure=is_secure)
    return f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
