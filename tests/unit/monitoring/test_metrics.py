"""What Prometheus is told, as Prometheus reads it."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from blocksd.errors import Misconfigured, Unavailable
from blocksd.model.faults import Fault
from blocksd.model.problem import FOLDER, Problem, Tally
from blocksd.model.revision import Revision
from blocksd.monitoring.events import Started
from blocksd.monitoring.metrics import Metrics
from blocksd.monitoring.status import Status
from blocksd.requests.reply import Answer, accepted, refused
from blocksd.requests.request import OPS, Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

AT = "2026-11-20T09:00:00.000Z"
STATUS = Status(
    blocks=4,
    agents=2,
    seq=41,
    mirror="behind",
    mirror_seq=38,
    away_since=None,
    away_reason=None,
    files=7,
    requests=3,
    watches=5,
    watch_limit=1000,
    tally=Tally(1, 2),
    read=None,
    halted=None,
)
STARTED = Started("/folder", "redis", "blocks", "/state")
"""It asks nothing of the service."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    made = Metrics("127.0.0.1", free_port())
    yield made
    made.on_stop()


def read(text: str) -> dict[str, float]:
    """Sample with its labels → value, as Prometheus' own parser reads the text."""
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def samples(metrics: Metrics) -> dict[str, float]:
    return read(generate_latest(metrics.registry).decode())


def test_revisions_by_kind_and_source(metrics: Metrics) -> None:
    """Every agent is one source: who it was would be a series for each."""
    revision = Revision(1, "notes", 1, "created", None, AT, AT)
    metrics.on_revision(revision)
    for author in ("file", "merge", "operator", "support-1", "support-2"):
        metrics.on_revision(replace(revision, kind="updated", author=author))
    found = samples(metrics)
    assert found["blocksd_revisions_total created file"] == 1
    assert found["blocksd_revisions_total updated agent"] == 2
    for source in ("file", "merge", "operator"):
        assert found[f"blocksd_revisions_total updated {source}"] == 1
    assert not [name for name in found if "notes" in name or "support" in name]


def test_requests_by_outcome(metrics: Metrics) -> None:
    """`ok`, or the code of the error; what is no request counts, too; and how long each took."""
    entry = Entry("support-1", "1-0", "{}")
    metrics.on_request(Answer(entry, "a", accepted("a", {"seq": 1}, "")[1], "append"), 0.003)
    metrics.on_request(Answer(entry, "b", refused("b", Unavailable("later")), "append"), 0.3)
    metrics.on_request(Answer(entry, None, None), 0.0)
    found = samples(metrics)
    assert found["blocksd_requests_total append ok"] == 1
    assert found["blocksd_requests_total append unavailable"] == 1
    assert found["blocksd_requests_total none invalid_request"] == 1
    assert {found[f"blocksd_requests_total {op} ok"] for op in OPS if op != "append"} == {0.0}
    assert found["blocksd_request_seconds_count"] == 3
    assert found["blocksd_request_seconds_sum"] == pytest.approx(0.303)
    assert found["blocksd_request_seconds_bucket 0.005"] == 2


def test_every_failure_counts(metrics: Metrics) -> None:
    """Also one of a kind that was told of before."""
    for is_new in (True, False):
        metrics.on_fault(Fault("reading", "KeyError", "x.py:3", ""), is_new=is_new)
    assert samples(metrics)["blocksd_internal_errors_total"] == 2


def test_stages_are_histograms(metrics: Metrics) -> None:
    """Named after the effects of a round, as Prometheus likes names."""
    metrics.on_stage("put in", 0.02)
    metrics.on_stage("journal", 0.0002)
    found = samples(metrics)
    assert (found["blocksd_stage_seconds_bucket 0.01 put_in"], found["blocksd_stage_seconds_bucket 0.025 put_in"]) == (
        0,
        1,
    )
    assert found["blocksd_stage_seconds_count journal"] == 1


def test_halts_are_counted_once_each(metrics: Metrics) -> None:
    """However often the numbers in the message change; another problem is none."""
    halted = Problem(FOLDER, "halted", "7 of 12 blocks vanished at once")
    for problem in (halted, replace(halted, message="8 of 12"), Problem("bad.md", "problem_file", "no")):
        metrics.on_problem(problem)
    metrics.on_cleared(Problem("bad.md", "problem_file", "no"))
    metrics.on_problem(halted)
    assert samples(metrics)["blocksd_halts_total"] == 1
    metrics.on_cleared(halted)
    metrics.on_problem(halted)
    assert samples(metrics)["blocksd_halts_total"] == 2


def test_reconnects_follow_an_absence(metrics: Metrics) -> None:
    """Being level for the first time is none."""
    metrics.on_mirror_in_sync("rebuilt")
    metrics.on_mirror_unreachable(Unavailable("gone"))
    metrics.on_mirror_unreachable(Misconfigured("refused"))
    assert samples(metrics)["blocksd_reconnects_total"] == 0
    metrics.on_mirror_in_sync("level")
    metrics.on_mirror_in_sync("level")
    assert samples(metrics)["blocksd_reconnects_total"] == 1


def test_how_it_stands(metrics: Metrics) -> None:
    """As of the last second."""
    metrics.on_status(STATUS)
    found = samples(metrics)
    wanted = {
        "blocks": 4,
        "agents": 2,
        "seq": 41,
        "mirror_lag": 3,
        "mirror_level": 0,
        "watches": 5,
        "ready": 1,
        "problems problem": 1,
        "problems warning": 2,
        "queue files": 7,
        "queue requests": 3,
    }
    assert {name: found[f"blocksd_{name}"] for name in wanted} == wanted
    assert found["blocksd_heartbeat_timestamp_seconds"] > 1e9
    assert found["blocksd_refused_entries_total dropped"] == 0
    metrics.on_status(replace(STATUS, mirror="level", mirror_seq=41, read=3, refused={"dropped": 5}))
    metrics.on_status(replace(STATUS, mirror="level", mirror_seq=41, read=3, refused={"dropped": 7, "surplus": 1}))
    found = samples(metrics)
    refused = [found[f"blocksd_refused_entries_total {reason}"] for reason in ("dropped", "oversized", "surplus")]
    assert refused == [7, 0, 1]
    assert (found["blocksd_mirror_level"], found["blocksd_mirror_lag"], found["blocksd_ready"]) == (1, 0, 0)


def test_names_follow_the_conventions(metrics: Metrics) -> None:
    """Counters end in `_total`, times in `_seconds`; each is explained; the process itself is among them."""
    families = list(text_string_to_metric_families(generate_latest(metrics.registry).decode()))
    assert all(family.documentation for family in families)
    ours = [family for family in families if family.name.startswith("blocksd_")]
    assert all(sample.name.endswith("_total") for one in ours if one.type == "counter" for sample in one.samples)
    assert all(one.name.endswith("_seconds") for one in ours if one.type == "histogram")
    assert not [sample.name for one in ours for sample in one.samples if sample.name.endswith("_created")]
    names = {family.name for family in families}
    assert {"blocksd_build_info", "process_resident_memory_bytes"} <= names


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_served_for_as_long_as_it_runs(host: str) -> None:
    """From its start to its stop, which leaves no thread; then the port is free again."""
    if host == "::1":
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind((host, 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    before, port = threading.active_count(), free_port()
    for _ in range(2):
        metrics = Metrics(host, port)
        metrics.on_start(STARTED)
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert read(answer.read().decode())["blocksd_halts_total"] == 0
        metrics.on_stop()
        metrics.on_stop()
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url, timeout=10)
    assert threading.active_count() == before


@pytest.mark.parametrize(("host", "why"), [("127.0.0.1", "is in use"), ("192.0.2.1", "cannot be used")])
def test_address_that_cannot_be_had(host: str, why: str) -> None:
    """That is a mistake in the configuration, said at start."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(Misconfigured, match=why):
            Metrics(host, other.getsockname()[1]).on_start(STARTED)
