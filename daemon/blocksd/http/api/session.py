"""Our routes for the page's session: who is signed in, signing in with a token, and signing out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from blocksd.http import sessions
from blocksd.http.answers import JSONAnswer
from blocksd.http.arguments import text_of
from blocksd.http.call import route
from blocksd.http.description import FLAG, TEXT, About, keys, one_of, or_null
from blocksd.http.tokens import ANYONE

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.routing import Route

    from blocksd.http.call import Call, Gateway
    from blocksd.http.tokens import Caller


def routes(gateway: Gateway) -> list[Route]:
    """Return the routes; they answer everyone."""
    who = keys(
        {
            "role": or_null(one_of("operator", "reader", "agent")),
            "name": or_null(TEXT),
            "agent": or_null(TEXT),
            "tokens": FLAG,
        }
    )
    return [
        route(
            "/api/session",
            "GET",
            session,
            gateway,
            (),
            About(
                "Say who the caller is, and if tokens are in force. Without a session, the role is null.", answer=who
            ),
        ),
        route(
            "/api/session",
            "POST",
            sign_in,
            gateway,
            (),
            About("Sign in with a token: the answer sets a cookie.", body=keys({"token": TEXT}), answer=who),
        ),
        route(
            "/api/session",
            "DELETE",
            sign_out,
            gateway,
            (),
            About("Sign out: the answer takes the cookie away.", answer=who),
        ),
    ]


async def session(call: Call) -> dict[str, Any]:
    return _shown(call, call.caller)


async def sign_in(call: Call) -> Response:
    token = text_of(call.body(), "token") or ""
    caller = call.tokens.caller(token.strip())
    if caller is None:
        return call.wrong_token("this is no token that is in force")
    answer = JSONAnswer(_shown(call, caller))
    if call.tokens:
        cookie = sessions.cookie_for(
            call.tokens, token.strip(), call.header("host") or "", time.time(), is_secure=call.is_secure
        )
        answer.headers["set-cookie"] = cookie
    return answer


async def sign_out(call: Call) -> Response:
    cookie = sessions.end_cookie(call.header("host") or "", is_secure=call.is_secure)
    return JSONAnswer(_shown(call, None if call.tokens else ANYONE), headers={"set-cookie": cookie})


def _shown(call: Call, caller: Caller | None) -> dict[str, Any]:
    name = None if caller is None or caller.agent is not None else caller.name
    if caller is ANYONE:
        name = call.transport.by
    return {
        "role": None if caller is None else caller.role,
        "name": name,
        "agent": None if caller is None else caller.agent,
        "tokens": bool(call.tokens),
    }
