"""Where settings come from, and which are refused."""

from __future__ import annotations

import os
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from blocksd.cli.advice import next_step
from blocksd.cli.main import cli
from blocksd.errors import Misconfigured
from blocksd.settings.config import (
    SETTINGS,
    TABLES,
    Config,
    Reload,
    RenderSettings,
    SourceSettings,
    listen_address,
    reloaded,
)
from blocksd.settings.loading import load, resolve, unknown_variables

NOWHERE = {"BLOCKSD_CONFIG": os.devnull}


def toml(tmp_path: Path, text: str) -> str:
    path = tmp_path / "blocksd.toml"
    path.write_text(text)
    return str(path)


def refused(
    flags: dict[str, Any] | None = None, *, path: str | None = None, environ: dict[str, str] | None = None
) -> str:
    with pytest.raises(Misconfigured) as caught:
        load(flags or {}, path=path, environ={**NOWHERE, **(environ or {})})
    return caught.value.message


def test_defaults() -> None:
    """Without any setting the defaults are in force."""
    assert load({}, environ=NOWHERE) == Config()


PLACES = ("default", "file", "credential", "environment", "flag")
"""Where the URL of Redis can be set; each goes before those that precede it here."""


@pytest.mark.parametrize("made", range(2 ** (len(PLACES) - 1)), ids=lambda made: f"{made:04b}")
def test_precedence(tmp_path: Path, made: int) -> None:
    """Flags, environment, credential, file, default: of those that say something the first is heard, and is told."""
    used = {place for bit, place in enumerate(PLACES[1:]) if made >> bit & 1}
    path = toml(tmp_path, "\nredis = 'redis://file'\n" if "file" in used else "")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    if "credential" in used:
        (tmp_path / "blocksd.redis").write_text("  redis://credential\n")
    if "environment" in used:
        environ["BLOCKSD_REDIS"] = "redis://environment"
    resolved = resolve({"redis": "redis://flag" if "flag" in used else None}, path=path, environ=environ)
    first = next((place for place in reversed(PLACES) if place in used), "default")
    assert resolved.config.redis == (None if first == "default" else f"redis://{first}")
    origins = {
        "default": "default",
        "file": f"{path}:2",
        "credential": "credential blocksd.redis",
        "environment": "$BLOCKSD_REDIS",
        "flag": "--redis",
    }
    assert resolved.origin("redis") == origins[first]


def test_each_setting_has_its_own_origin(tmp_path: Path) -> None:
    """Each place overrides the ones behind it, setting by setting; a flag that was not given overrides nothing."""
    path = toml(tmp_path, 'namespace = "file"\ndelete_grace = 3\nresync_seconds = 7.5\n')
    environ = {"BLOCKSD_NAMESPACE": "environ", "BLOCKSD_DELETE_GRACE": "4"}
    resolved = resolve({"namespace": "flag", "poll": None, "folder": "f"}, path=path, environ=environ)
    config = resolved.config
    assert (config.namespace, config.delete_grace, config.resync_seconds, config.poll) == ("flag", 4.0, 7.5, False)
    names = ("folder", "namespace", "delete_grace", "resync_seconds", "poll")
    origins = ["the argument FOLDER", "--namespace", "$BLOCKSD_DELETE_GRACE", f"{path}:3", "default"]
    assert [resolved.origin(name) for name in names] == origins
    assert resolved.file == path


def test_file_named_in_the_environment(tmp_path: Path) -> None:
    """`BLOCKSD_CONFIG` names the file, unless a flag does."""
    path = toml(tmp_path, 'namespace = "one"\n')
    assert load({}, environ={"BLOCKSD_CONFIG": path}).namespace == "one"
    (tmp_path / "other.toml").write_text('namespace = "two"\n')
    assert load({}, path=str(tmp_path / "other.toml"), environ={"BLOCKSD_CONFIG": path}).namespace == "two"


def test_file_found_in_its_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`blocksd.toml` is looked for where one works, then in the user's configuration."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "config"
    (home / "blocksd").mkdir(parents=True)
    (home / "blocksd" / "blocksd.toml").write_text('namespace = "user"\n')
    environ = {"XDG_CONFIG_HOME": str(home)}
    assert load({}, environ=environ).namespace == "user"
    toml(tmp_path, 'namespace = "here"\n')
    assert load({}, environ=environ).namespace == "here"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("namspace = 'x'", ":3 has an unknown key 'namspace'; did you mean 'namespace'?"),
        ("[surces.x]", ":3 has an unknown key 'surces'; did you mean 'sources'?"),
        ("zzz = 1", ":3 has an unknown key 'zzz'; the keys are folder, namespace"),
        ("namespace = 5", "namespace must be text, not 5"),
        ("poll = 'yes'", "poll must be true or false, not 'yes'"),
        ("poll = 1", "poll must be true or false, not 1"),
        ("history_versions = 2.5", "history_versions must be a whole number, not 2.5"),
        ("history_versions = true", "history_versions must be a whole number, not True"),
        ("history_versions = 0", "history_versions must be at least 1, not 0"),
        ("resync_seconds = 0", "resync_seconds must be at least 0.1, not 0"),
        ("resync_seconds = nan", "resync_seconds must be at least 0.1, not nan"),
        ("delete_grace = -1", "delete_grace must be at least 0, not -1"),
        ("stale_window = -1", "stale_window must be at least 0, not -1"),
        ("history_days = inf", "history_days must be at most 36500, not inf"),
        ("history_versions = 1_000_000_001", "history_versions must be at most 1000000000, not 1000000001"),
        ("resync_seconds = inf", "resync_seconds must be at most 31536000, not inf"),
        ("delete_grace = inf", "delete_grace must be at most 31536000, not inf"),
        ("stale_window = 1e300", "stale_window must be at most 31536000, not 1e+300"),
        ("poll_seconds = 1" + 400 * "0", "poll_seconds must be at most 31536000, not inf"),
        ("delete_grace = -1" + 400 * "0", "delete_grace must be at least 0, not -inf"),
        ("history_versions = 1" + 400 * "0", "history_versions must be at most 1000000000, not 1000"),
        ("log_level = 'loud'", "log_level must be 'error', 'warning', 'info' or 'debug', not 'loud'"),
        ("durability = 1", "durability must be text, not 1"),
        ("metrics = true", "metrics must be text, not True"),
        ("metrics = 65536", "metrics must be a port from 1 to 65535, or host:port as in 127.0.0.1:9464 or"),
        ("log_format = 'xml'", "log_format must be 'text' or 'json', not 'xml'"),
        ("namespace = 'a b'", "'a b' is not a namespace"),
        ("namespace = ", ":3:13 is not TOML: Invalid value"),
        ("[redis]\nurl = 'x'", "redis must be text"),
    ],
)
def test_file_with_a_wrong_setting(tmp_path: Path, text: str, message: str) -> None:
    """A setting that cannot be is refused, with the file and the line it is on."""
    path = toml(tmp_path, f"folder = 'f'\n# a comment\n{text}\n")
    said = refused(path=path)
    assert message in said
    assert f"{path}:3" in said


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that was named must be there, and be text."""
    assert "cannot be read: No such file" in refused(path=str(tmp_path / "missing.toml"))
    assert "cannot be read: Is a directory" in refused(path=str(tmp_path))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert "is not TOML" in refused(path=str(tmp_path / "binary"))


@pytest.mark.parametrize(("text", "value"), [("1", True), ("TRUE", True), ("yes", True), ("0", False), ("No", False)])
def test_flag_in_the_environment(text: str, *, value: bool) -> None:
    """The environment has only texts: true and false have the spellings people use."""
    assert load({}, environ={**NOWHERE, "BLOCKSD_POLL": text}).poll is value


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("BLOCKSD_POLL", "maybe", "poll must be true or false, not 'maybe' ($BLOCKSD_POLL)"),
        ("BLOCKSD_POLL_SECONDS", "often", "poll_seconds must be a number, not 'often' ($BLOCKSD_POLL_SECONDS)"),
        ("BLOCKSD_POLL_SECONDS", "0", "poll_seconds must be at least 0.05, not 0 ($BLOCKSD_POLL_SECONDS)"),
        ("BLOCKSD_HISTORY_VERSIONS", "1e3", "history_versions must be a whole number, not '1e3'"),
    ],
)
def test_environment_with_a_wrong_setting(variable: str, text: str, message: str) -> None:
    """The variable that holds it is named."""
    assert message in refused(environ={variable: text})


def test_flag_with_a_wrong_setting() -> None:
    """The flag is named as one types it."""
    assert refused({"delete_grace": -1.0}) == "delete_grace must be at least 0, not -1 (--delete-grace)"
    assert refused({"namespace": "a:b"}).endswith("(--namespace)")


@pytest.mark.parametrize("text", ["redis = ['redis://:hunter2@h']", "redis = {url = 'redis://:hunter2@h'}"])
def test_secret_is_in_no_message(tmp_path: Path, text: str) -> None:
    """Nor in what Python shows of a configuration."""
    assert "hunter2" not in refused(path=toml(tmp_path, text))
    assert "hunter2" not in repr(load({"redis": "redis://:hunter2@h"}, environ=NOWHERE))


# --- credentials of systemd ---


def test_credential_that_is_not_there_is_none(tmp_path: Path) -> None:
    """Other credentials may be, or no directory for them at all."""
    (tmp_path / "other").write_text("x")
    assert load({}, environ={**NOWHERE, "CREDENTIALS_DIRECTORY": str(tmp_path)}).redis is None
    assert load({}, environ={**NOWHERE, "CREDENTIALS_DIRECTORY": str(tmp_path / "gone")}).redis is None
    assert load({}, environ={**NOWHERE, "CREDENTIALS_DIRECTORY": ""}).redis is None


@pytest.mark.parametrize(
    ("data", "why"),
    [(b" \n", "is empty: it holds the URL of the Redis server"), (b"caf\xe9", "is not UTF-8")],
    ids=["empty", "latin-1"],
)
def test_credential_that_says_nothing(tmp_path: Path, data: bytes, why: str) -> None:
    """It is meant to say something: its file is named."""
    (tmp_path / "blocksd.redis").write_bytes(data)
    said = refused(environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert said == f"the credential {tmp_path}/blocksd.redis {why}"


def test_credential_that_cannot_be_read(tmp_path: Path) -> None:
    """For whatever reason."""
    (tmp_path / "blocksd.redis").mkdir()
    said = refused(environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert said == f"the credential {tmp_path}/blocksd.redis cannot be read: Is a directory"


# --- variables that are none ---


def test_unknown_variables_are_told() -> None:
    """With what was probably meant; a person who misspells a setting believes that it is in force."""
    environ = {
        "BLOCKSD_NAMSPACE": "x",
        "BLOCKSD_ZZZ": "x",
        "BLOCKSD_CONFIG": "x",
        "BLOCKSD_LOG_LEVEL": "x",
        "HOME": "x",
    }
    assert unknown_variables(environ) == [
        "$BLOCKSD_NAMSPACE is no setting; did you mean '$BLOCKSD_NAMESPACE'?",
        "$BLOCKSD_ZZZ is no setting",
    ]


def test_variables_of_others_are_not() -> None:
    """The tests' own, and what Kubernetes tells every container of a service called blocksd."""
    names = ("TEST_TOOLS", "MACHINE_EXAMPLES", "SERVICE_HOST", "SERVICE_PORT_REDIS", "PORT", "PORT_6379_TCP_ADDR")
    assert unknown_variables({f"BLOCKSD_{name}": "x" for name in names}) == []


# --- where metrics are served ---


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9464", ("127.0.0.1", 9464)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]:65535", ("::1", 65_535)),
        ("[::]:80", ("::", 80)),
        ("0.0.0.0:09464", ("0.0.0.0", 9464)),
        ("node-1.example.org:9464", ("node-1.example.org", 9464)),
    ],
)
def test_listen_address(text: str, address: tuple[str, int]) -> None:
    """A bare port is one of this machine alone."""
    assert listen_address(text) == address
    assert load({"metrics": text}, environ=NOWHERE).metrics_address == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "65536", "-1", "x", "host", ":9464", "::1:9464", "[::1]", "[1.2.3.4]:1", "[::x]:1", "[:]:1"),
        *("a b:1", "h:", "http://h:1", "1:2:3", "h:1\n", "٣", "127.0.0.1:99999"),
    ],
)
def test_what_is_no_listen_address(text: str) -> None:
    """It is refused at the start, not when the first scrape fails."""
    with pytest.raises(Misconfigured, match="metrics must be a port from 1 to 65535"):
        listen_address(text)


def test_metrics_may_be_a_number(tmp_path: Path) -> None:
    """As one writes a port in TOML; nowhere is the default."""
    assert load({}, path=toml(tmp_path, "metrics = 9464"), environ=NOWHERE).metrics_address == ("127.0.0.1", 9464)
    assert Config().metrics_address is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9464", ("127.0.0.1", 9464)),
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("[::1]:9464", ("::1", 9464)),
        ("a-host.example:1", ("a-host.example", 1)),
    ],
)
def test_address_for_metrics(text: str, address: tuple[str, int]) -> None:
    """A port is one of this machine alone."""
    assert load({"metrics": text}, environ=NOWHERE).metrics_address == address


@pytest.mark.parametrize("text", ["", "0", "65536", "host", "host:", ":9464", "::1:9464", "http://localhost:9464"])
def test_address_that_is_none(text: str) -> None:
    """It is refused before anything is begun; none given, none is served."""
    assert "metrics must be a port from 1 to 65535" in refused({"metrics": text})
    assert load({}, environ=NOWHERE).metrics_address is None


def test_log_levels() -> None:
    """There are four."""
    assert load({"log_level": "debug"}, environ=NOWHERE).log_level == "debug"
    assert "'error', 'warning', 'info' or 'debug', not 'loud'" in refused(environ={"BLOCKSD_LOG_LEVEL": "loud"})


def test_state_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The state is where it is told to be, else where systemd says, else in the user's state by namespace."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert Config(namespace="n").state == "/state/blocksd/n"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/one")
    assert Config().state == "/home/one/.local/state/blocksd/blocks"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/blocksd:/var/lib/other")
    assert Config().state == "/var/lib/blocksd"
    assert Config(state_dir="here").state == str(tmp_path / "here")


def test_every_setting_says_what_it_means() -> None:
    """The meaning of each setting is part of it, so that documentation cannot lack one."""
    assert all(setting.metadata["meaning"] for setting in fields(Config))


# --- sources ---


def test_sources_are_tables(tmp_path: Path) -> None:
    """One for each; what is not given has its default."""
    path = toml(
        tmp_path,
        '[sources.manuals]\npath = "/srv/manuals"\ndescription = "d"\ninstructions = "i"\n'
        'agents = ["ann", "support-*"]\nlimit = 7\n[sources.all]\npath = "x"\nagents = "*"\n',
    )
    assert load({}, path=path).sources == (
        SourceSettings("manuals", "/srv/manuals", "d", "i", ("ann", "support-*"), 7),
        SourceSettings("all", "x", None, None, ("*",), 20_000),
    )


def test_sources_in_the_environment() -> None:
    """As the same table, in TOML."""
    config = load({}, environ={**NOWHERE, "BLOCKSD_SOURCES": '[manuals]\npath = "/srv"\n'})
    assert config.sources == (SourceSettings("manuals", "/srv"),)
    assert "sources must be a table, not" in refused(environ={"BLOCKSD_SOURCES": "nonsense"})
    (wrong,) = load({}, environ={**NOWHERE, "BLOCKSD_SOURCES": "[manuals]"}).sources
    assert wrong.mistake == "it has no path ($BLOCKSD_SOURCES)"


@pytest.mark.parametrize(
    ("name", "text", "mistake"),
    [
        ("m", "", "it has no path"),
        ("m", 'path = ""', "it has no path"),
        ("m", 'path = "a\\u0000b"', "it has no path"),
        ("m", "path = 5", "path must be text, not 5"),
        ("m", 'pth = "x"', "there is an unknown key 'pth'; did you mean 'path'?"),
        (
            "m",
            'zzz = "x"',
            "there is an unknown key 'zzz'; the keys are path, description, instructions, agents, limit",
        ),
        ("m", 'name = "x"', "there is an unknown key 'name'"),
        ("m", 'path = "x"\nlimit = 0', "limit must be at least 1, not 0"),
        ("m", 'path = "x"\nlimit = 5_000_000', "limit must be at most 4194304, not 5000000"),
        ("m", 'path = "x"\nlimit = nan', "limit must be a whole number, not nan"),
        ("m", 'path = "x"\nlimit = true', "limit must be a whole number, not True"),
        ("m", 'path = "x"\nagents = 5', "agents must be a list of agent ids and patterns, not 5"),
        ("m", 'path = "x"\nagents = [5]', "agents must be a list of agent ids and patterns, not [5]"),
        ("m", 'path = "x"\nagents = ["a/b"]', "'a/b' is not an agent id"),
        ("m", 'path = "x"\ndescription = ["d"]', "description must be text"),
        ('"a/b"', 'path = "x"', "'a/b' is no name of a source"),
        ('"a b"', 'path = "x"', "'a b' is no name of a source"),
        ('""', 'path = "x"', "is not a label"),
        ('"u\\u0308"', 'path = "x"', "is no name of a source"),
    ],
)
def test_mistake_in_a_source_is_kept_for_the_daemon_to_report(
    tmp_path: Path, name: str, text: str, mistake: str
) -> None:
    """It is no reason not to start: the other sources, and the blocks, are not concerned."""
    path = toml(tmp_path, f'[sources.{name}]\n{text}\n[sources.good]\npath = "/srv"\n')
    wrong, good = load({}, path=path).sources
    assert mistake in wrong.mistake
    assert good == SourceSettings("good", "/srv")


def test_mistake_in_a_source_is_said_with_its_line(tmp_path: Path) -> None:
    """That of the key, wherever tables are written; of a table that lacks something, its own."""
    path = toml(
        tmp_path,
        '[sources.one]\npath = "x"\n# a comment\nagents = [\n  5,\n]\n[sources.two]\nlimit = 5\n[sources]\n'
        'three = { path = "x", limt = 5 }\nfour.path = "x"\nfour.agents = "a/b"\n"fi ve".path = "x"\nsix = 6\n',
    )
    found = {source.name: source.mistake for source in load({}, path=path).sources}
    rule = "it is letters, digits, '_', '-' and '.', and starts with a letter, a digit or '_'"
    assert found == {
        "one": f"agents must be a list of agent ids and patterns, not [5] ({path}:4)",
        "two": f"it has no path ({path}:7)",
        "three": f"there is an unknown key 'limt'; did you mean 'limit'? ({path}:10)",
        "four": f"'a/b' is not an agent id: {rule} ({path}:12)",
        "fi ve": f"'fi ve' is no name of a source: it is letters, digits, '_', '-' and '.' ({path}:13)",
        "six": f"a source is a table [sources.NAME], not 6 ({path}:14)",
    }


def test_source_that_is_no_table(tmp_path: Path) -> None:
    """One such is a mistake of that source; with `sources` itself no table, no source has a name."""
    (wrong,) = load({}, path=toml(tmp_path, '[sources]\nmanuals = "/srv"\n')).sources
    assert (wrong.name, wrong.mistake.partition(" (")[0]) == (
        "manuals",
        "a source is a table [sources.NAME], not '/srv'",
    )
    assert "sources must be a table, not 'x'" in refused(path=toml(tmp_path, 'sources = "x"\n'))


# --- reading it again ---


OTHER: dict[str, Any] = {
    "folder": "other.d",
    "namespace": "other",
    "redis": "redis://other",
    "by": "ann",
    "state_dir": "/other",
    "resync_seconds": 7.0,
    "delete_grace": 7.0,
    "stale_window": 7.0,
    "poll": True,
    "poll_seconds": 7.0,
    "history_versions": 7,
    "history_days": 7.0,
    "departed_days": 7.0,
    "durability": "process",
    "log_level": "debug",
    "log_format": "json",
    "metrics": "9464",
    "http": True,
    "listen": "8284",
    "hosts": "memory.example.com",
    "tokens": "reader 0123456789abcdef",
    "tokens_file": "/tokens",
    "certificate": "/tls.pem",
    "certificate_key": "/tls.key",
    "sources": (SourceSettings("manuals", "/srv"),),
    "render": (RenderSettings("claude", "sam", "CLAUDE.md"),),
}
NEEDS_A_RESTART = [
    *("folder", "namespace", "redis", "state_dir", "poll", "metrics"),
    *("http", "listen", "hosts", "tokens", "tokens_file", "certificate", "certificate_key"),
]


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_comes_into_force_or_is_said_not_to(name: str) -> None:
    """At a reload, of all settings one or the other is true."""
    new = replace(Config(), **{name: OTHER[name]})
    if name in NEEDS_A_RESTART:
        assert reloaded(Config(), new) == Reload(Config(), [], [name])
    else:
        assert reloaded(Config(), new) == Reload(new, [name], [])


def test_reload_of_everything() -> None:
    """What follows does so, whatever does not; read again as it was, nothing is to say."""
    after = reloaded(Config(), Config(**OTHER))
    assert after.waiting == NEEDS_A_RESTART
    assert after.config == Config(**{name: value for name, value in OTHER.items() if name not in NEEDS_A_RESTART})
    assert reloaded(Config(**OTHER), Config(**OTHER)) == Reload(Config(**OTHER), [], [])


# --- outputs ---


def test_outputs_are_tables(tmp_path: Path) -> None:
    """One for each file that `blocksd render` keeps up to date."""
    text = '[render.claude]\nagent = "sam"\noutput = "CLAUDE.md"\nstyle = "nested"\n'
    assert load({}, path=toml(tmp_path, text)).render == (RenderSettings("claude", "sam", "CLAUDE.md", "nested"),)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ('agent = "sam"', "it has no output"),
        ('output = "x"', "it has no agent"),
        ('agent = "a b"\noutput = "x"', "a b"),
        ('agent = "sam"\noutput = "x"\nstyle = "odd"', "style must be"),
        (
            'agent = "sam"\noutput = ["x", "y"]',
            "output must be one file, not ['x', 'y']: each has a table [render.NAME]",
        ),
        ('agent = "sam"\noutputs = "x"', "there is an unknown key 'outputs'; did you mean 'output'?"),
    ],
)
def test_wrong_output_is_no_reason_not_to_start(text: str, mistake: str, tmp_path: Path) -> None:
    """The daemon does not use it; `blocksd render` and `blocksd config` report it, with its place."""
    (wrong,) = load({}, path=toml(tmp_path, f"[render.x]\n{text}\n")).render
    assert mistake in wrong.mistake
    assert "blocksd.toml:" in wrong.mistake


# --- the example ---


def example() -> str:
    result = CliRunner().invoke(cli, ["config", "--example"], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_example_is_the_file_beside_the_unit() -> None:
    """What administrators copy is what the command prints."""
    root = Path(__file__).resolve().parents[3]
    assert (root / "systemd" / "blocksd.toml").read_text(encoding="utf-8") == example()


def test_example_sets_nothing(tmp_path: Path) -> None:
    """As it stands, the defaults are in force."""
    assert load({}, path=toml(tmp_path, example()), environ=NOWHERE) == Config()


def test_example_has_every_key_with_its_default(tmp_path: Path) -> None:
    """With the mark before each key removed it is a settings file; where there is no default, it shows what can be."""
    lines = [line[1:] if line[:1] == "#" and line[1:2] != " " else line for line in example().splitlines()]
    text = "\n".join(lines)
    given = tomllib.loads(text)
    assert list(given) == list(SETTINGS)
    assert list(given["sources"]["manuals"]) == list(TABLES["sources"])
    assert list(given["render"]["claude"]) == list(TABLES["render"])
    config = load({}, path=toml(tmp_path, text), environ=NOWHERE)
    (source,), (output,) = config.sources, config.render
    assert not source.mistake
    assert not output.mistake
    assert source.limit == SourceSettings("x").limit
    for setting in fields(Config):
        if setting.default not in (None, ()):
            assert getattr(config, setting.name) == setting.default
        else:
            assert getattr(config, setting.name)


def test_example_says_what_each_key_means() -> None:
    """In lines that fit any terminal."""
    words = " ".join(example().replace("\n# ", " ").split())
    for about in [setting.metadata for setting in fields(Config)] + [
        key.metadata for keys in TABLES.values() for key in keys.values()
    ]:
        assert about["meaning"][1:] in words
    assert max(map(len, example().splitlines())) <= 80


@pytest.mark.parametrize("home", ["", "relative", "~"])
def test_user_without_a_home_must_name_a_state_directory(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is put into a directory that happens to be called '~', nor into the root of the file system."""
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", home)
    with pytest.raises(Misconfigured, match="no home directory") as caught:
        _ = Config().state
    assert "--state-dir" in next_step(caught.value)
    assert Config(state_dir="/s").state == "/s"
