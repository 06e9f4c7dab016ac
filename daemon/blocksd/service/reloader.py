"""The configuration in force, and its reload."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from blocksd.errors import Misconfigured
from blocksd.model.problem import CONFIG, Problem
from blocksd.model.revision import timestamp
from blocksd.settings.config import reloaded
from blocksd.settings.loading import unknown_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blocksd.settings.config import Config, Reload


class Reloader:
    """Holds the configuration in force. A reload replaces the settings that can change at run time.

    `problem` is a problem with the configuration, `last` the report on the last reload for `blocksd status`.
    """

    def __init__(self, config: Config, read: Callable[[], Config], environ: Mapping[str, str] = os.environ) -> None:
        """Begin with `config`; `read` reads the configuration again."""
        self.config = config
        self._read = read
        self._environ = environ
        self.last: dict[str, Any] | None = None
        self.problem = self._check_variables()

    def reload(self) -> Reload | None:
        """Read the configuration again, and return the changes; None: it is invalid, and the one before stays in force."""
        self.last = {"at": timestamp(time.time()), "changed": [], "waiting": [], "error": None}
        try:
            reload = reloaded(self.config, self._read())
        except Misconfigured as error:
            self.last["error"] = error.message
            hint = "correct it, and reload again; the configuration before stays in force"
            self.problem = Problem(CONFIG, error.code, error.message, hint)
            return None
        self.last |= {"changed": reload.changed, "waiting": reload.waiting}
        self.config = reload.config
        self.problem = self._check_variables()
        return reload

    def _check_variables(self) -> Problem | None:
        """Return a warning about environment variables that look like settings and are none."""
        unknown = unknown_variables(self._environ)
        if not unknown:
            return None
        return Problem(CONFIG, "warning", "; ".join(unknown), "correct the environment, and restart", warning=True)
