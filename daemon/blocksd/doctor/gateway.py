"""Checks of the gateway: whether it answers, who may use it, and whether tokens pass over the network unencrypted."""

from __future__ import annotations

import json
import os
import ssl
import stat
import urllib.error
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from blocksd.doctor.finding import Finding
from blocksd.errors import Misconfigured
from blocksd.http.places import check_address, is_loopback
from blocksd.http.tokens import configured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocksd.settings.config import Config

Answer = Literal["ok", "no blocks", "no answer", "not blocksd"]
"""What a gateway's /v1/health says; `no blocks`: it answers, and cannot read Redis."""

ANSWERS: dict[Answer, str] = {
    "ok": "it answers",
    "no blocks": "it answers, and cannot read blocks from Redis",
    "no answer": "it does not answer",
    "not blocksd": "another program answers there",
}

_SECONDS = 2.0


def url_of(config: Config) -> str:
    """Return where a gateway with these settings is reached."""
    host, port = config.gateway_address
    scheme = "https" if config.certificate is not None else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def health(url: str) -> Answer:
    """Ask a gateway of this machine for its health."""
    parts = urlsplit(url)
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(parts.hostname or "", parts.netloc.rpartition(":")[0])  # noqa: S104
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE  # nothing secret is sent, and a name may be missing
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))
    request = urllib.request.Request(f"{parts.scheme}://{host}:{parts.port}/v1/health")  # noqa: S310  # http or https
    try:
        with opener.open(request, timeout=_SECONDS) as answer:
            return "ok" if "version" in json.load(answer) else "not blocksd"
    except urllib.error.HTTPError as error:
        with suppress(ValueError, OSError):
            if "detail" in json.load(error):  # 403: it is not reached by this name, and alive
                return "no blocks" if error.code == 503 else "ok"
        return "not blocksd"
    except ValueError:
        return "not blocksd"
    except OSError:
        return "no answer"


def is_unencrypted(url: str) -> bool:
    """Return True if what is sent there passes over the network unencrypted."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def findings(config: Config) -> Iterator[Finding]:
    """Yield what is to be said of the gateway: nothing where none is configured and none answers."""
    url = url_of(config)
    answer = health(url)
    if config.http and answer != "ok":
        advice = "'blocksd status' says why it does not run; with no daemon, start one"
        yield Finding("gateway.answer", "wrong", f"the gateway at {url}: {ANSWERS[answer]}", advice)
    elif answer in ("ok", "no blocks"):
        state: Literal["ok", "warning"] = "ok" if answer == "ok" else "warning"
        advice = "" if answer == "ok" else "see that Redis runs and takes the gateway's login: its log says more"
        yield Finding("gateway.answer", state, f"the gateway at {url}: {ANSWERS[answer]}", advice)
    try:
        has_tokens = bool(configured(config))
        check_address(config.gateway_address[0], has_tokens=has_tokens)
    except Misconfigured as error:
        yield Finding("gateway.access", "wrong", f"the gateway does not start: {error.message}", "correct the setting")
        return
    if config.tokens_file is not None and (mode := stat.S_IMODE(os.stat(config.tokens_file).st_mode)) & 0o077:
        message = f"other users may read the tokens in {config.tokens_file} (mode {mode:o})"
        yield Finding("gateway.access", "warning", message, f"chmod 600 {config.tokens_file}")
    if is_unencrypted(url):
        advice = "set certificate, or listen at 127.0.0.1 behind a proxy that has one"
        yield Finding("gateway.network", "warning", f"tokens and blocks pass to {url} without TLS", advice)
