"""One actor that sends 10,000 entries a second to its inbox, until it is killed."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import redis

_PER_SECOND = 10_000
_AT_ONCE = 50


def flood(url: str, key: str, entry: dict[str, str]) -> None:
    """Send in small parts, evenly: what could not be sent in time is sent later."""
    client: Any = redis.Redis.from_url(url)
    client.ping()
    print("ready", flush=True)
    begin, sent = time.monotonic(), 0
    while True:
        pipeline = client.pipeline(transaction=False)
        for _ in range(_AT_ONCE):
            pipeline.xadd(key, entry)
        pipeline.execute()
        sent += _AT_ONCE
        time.sleep(max(0.0, begin + sent / _PER_SECOND - time.monotonic()))


if __name__ == "__main__":
    flood(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
