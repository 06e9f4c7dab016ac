"""The configuration in force, and what comes of reading it again."""

from __future__ import annotations

from dataclasses import replace

from blocksd.errors import Misconfigured
from blocksd.model.problem import CONFIG
from blocksd.service.reloader import Reloader
from blocksd.settings.config import Config

OLD = Config(folder="blocks.d", history_versions=10)


class Settings:
    """What a reload reads."""

    def __init__(self) -> None:
        self.config: Config | Misconfigured = OLD

    def read(self) -> Config:
        if isinstance(self.config, Misconfigured):
            raise self.config
        return self.config


def test_what_can_change_does() -> None:
    """The rest waits for the next start, and both are told."""
    settings = Settings()
    reloader = Reloader(OLD, settings.read, environ={})
    assert (reloader.config, reloader.last, reloader.problem) == (OLD, None, None)
    settings.config = replace(OLD, history_versions=20, namespace="other")
    reload = reloader.reload()
    assert reload is not None
    assert reload.config == reloader.config == replace(OLD, history_versions=20)
    assert reloader.last is not None
    assert reloader.last | {"at": ""} == {
        "at": "",
        "changed": ["history_versions"],
        "waiting": ["namespace"],
        "error": None,
    }


def test_wrong_configuration_leaves_the_one_before_in_force() -> None:
    """It is a problem until one is read that is right."""
    settings = Settings()
    reloader = Reloader(OLD, settings.read, environ={})
    settings.config = Misconfigured("history_versions must be at least 1, not 0", key="history_versions")
    assert reloader.reload() is None
    assert reloader.config == OLD
    assert reloader.last is not None
    assert reloader.last["error"] == "history_versions must be at least 1, not 0"
    problem = reloader.problem
    assert problem is not None
    assert (problem.subject, problem.message, problem.warning) == (CONFIG, settings.config.message, False)
    settings.config = OLD
    assert reloader.reload() is not None
    assert reloader.problem is None
    assert reloader.last["error"] is None


def test_variable_that_is_no_setting_is_warned_of() -> None:
    """Before the first reload and after each; a wrong configuration comes first."""
    settings = Settings()
    reloader = Reloader(OLD, settings.read, environ={"BLOCKSD_NAMESPAC": "mine"})
    warning = reloader.problem
    assert warning is not None
    assert warning.warning
    assert "BLOCKSD_NAMESPAC" in warning.message
    settings.config = Misconfigured("wrong", key="redis")
    reloader.reload()
    assert reloader.problem is not None
    assert reloader.problem.message == "wrong"
    settings.config = OLD
    reloader.reload()
    assert reloader.problem == warning
