"""A client as anyone could write it, in a process of its own: appends lines to a block, one after the other.

    appender.py URL ACTOR LABEL PREFIX COUNT PAUSE

Sends a request again, under the same id, as long as there is no reply; prints each line that was acknowledged.
"""

from __future__ import annotations

import json
import sys
import time

import redis


def main() -> None:
    url, actor, label, prefix, count, pause = sys.argv[1:]
    client = redis.Redis.from_url(url, decode_responses=True)
    key = "label" if actor == "operator" else "name"
    for number in range(int(count)):
        line = f"{prefix}-{number}"
        request = json.dumps({"id": line, "op": "append", key: label, "args": {"content": line}})
        while True:
            try:
                client.xadd(f"blocks:inbox:{actor}", {"request": request})
                found = client.blpop([f"blocks:reply:{actor}:{line}"], timeout=1)
            except redis.ConnectionError:  # the server is started again
                time.sleep(0.01)
                continue
            reply = json.loads(found[1]) if found is not None else None
            if reply is not None and reply["ok"]:
                break
            if reply is not None and reply["error"]["code"] != "unavailable":
                sys.exit(f"refused: {reply}")
        print(line, flush=True)
        time.sleep(float(pause))


if __name__ == "__main__":
    main()
