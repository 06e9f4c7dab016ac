"""Where settings come from, and which are refused."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.config import Config, SourceSettings, load
from blocksd.errors import Misconfigured

if TYPE_CHECKING:
    from pathlib import Path

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


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    """Each place overrides the ones behind it, setting by setting; a flag that was not given overrides nothing."""
    path = toml(tmp_path, 'namespace = "file"\ndelete_grace = 3\nresync_seconds = 7.5\n')
    environ = {"BLOCKSD_NAMESPACE": "environ", "BLOCKSD_DELETE_GRACE": "4"}
    config = load({"namespace": "flag", "poll": None}, path=path, environ=environ)
    assert (config.namespace, config.delete_grace, config.resync_seconds, config.poll) == ("flag", 4.0, 7.5, False)


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
        ("namspace = 'x'", "has an unknown key 'namspace'; did you mean 'namespace'?"),
        ("zzz = 1", "has an unknown key 'zzz'; the keys are folder, namespace"),
        ("namespace = 5", "namespace must be text, not 5"),
        ("poll = 'yes'", "poll must be true or false, not 'yes'"),
        ("poll = 1", "poll must be true or false, not 1"),
        ("history_versions = 2.5", "history_versions must be a whole number, not 2.5"),
        ("history_versions = true", "history_versions must be a whole number, not True"),
        ("history_versions = 0", "history_versions must be at least 1, not 0"),
        ("resync_seconds = 0", "resync_seconds must be at least 0.1, not 0"),
        ("resync_seconds = nan", "resync_seconds must be at least 0.1, not nan"),
        ("delete_grace = -1", "delete_grace must be at least 0, not -1"),
        ("log_format = 'xml'", "log_format must be 'text' or 'json', not 'xml'"),
        ("namespace = 'a b'", "'a b' is not a namespace"),
        ("namespace = ", "is not TOML"),
        ("[redis]\nurl = 'x'", "redis must be text"),
    ],
)
def test_file_with_a_wrong_setting(tmp_path: Path, text: str, message: str) -> None:
    """A setting that cannot be is refused, and the file it is in is named."""
    path = toml(tmp_path, text)
    said = refused(path=path)
    assert message in said
    assert path in said or "namespace" in message


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
    assert "is not a namespace" in refused({"namespace": "a:b"})


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
    assert "sources must be a table of sources" in refused(environ={"BLOCKSD_SOURCES": "nonsense"})


@pytest.mark.parametrize(
    ("name", "text", "mistake"),
    [
        ("m", "", "it has no path"),
        ("m", 'path = ""', "it has no path"),
        ("m", 'path = "a\\u0000b"', "it has no path"),
        ("m", "path = 5", "path must be text, not 5"),
        ("m", 'pth = "x"', "there is an unknown key 'pth'; the keys are path, description"),
        ("m", 'path = "x"\nlimit = 0', "limit must be at least 1, not 0"),
        ("m", 'path = "x"\nlimit = true', "limit must be a whole number, not True"),
        ("m", 'path = "x"\nagents = 5', "agents must be a list of agent ids and patterns, not 5"),
        ("m", 'path = "x"\nagents = [5]', "agents must be a list of agent ids and patterns, not [5]"),
        ("m", 'path = "x"\nagents = ["a/b"]', "'a/b' is not a label"),
        ("m", 'path = "x"\ndescription = ["d"]', "description must be text"),
        ('"a/b"', 'path = "x"', "'a/b' is no name of a source"),
        ('"a b"', 'path = "x"', "'a b' is not a label"),
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


def test_source_that_is_no_table(tmp_path: Path) -> None:
    """One such is a mistake of that source; with `sources` itself no table, no source has a name."""
    (wrong,) = load({}, path=toml(tmp_path, '[sources]\nmanuals = "/srv"\n')).sources
    assert (wrong.name, wrong.mistake) == ("manuals", "a source is a table, not '/srv'")
    assert "sources must be a table of sources, not 'x'" in refused(path=toml(tmp_path, 'sources = "x"\n'))
