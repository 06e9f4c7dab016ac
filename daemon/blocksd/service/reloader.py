"""The configuration in force, and what comes of reading it again."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from blocksd.errors import Misconfigured
from blocksd.model.problem import CONFIG, Problem
from blocksd.model.revision import timestamp
from blocksd.settings.config import reloaded, unknown_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blocksd.settings.config import Config, Reload


class Reloader:
    """Holds the configuration in force, which a reload replaces as far as that can be done at run time.

    `problem` is what is wrong with the configuration, `last` what `blocksd status` tells of the last reload.
    """

    def __init__(self, config: Config, read: Callable[[], Config], environ: Mapping[str, str] = os.environ) -> None:
        """`read` reads the configuration again, as it was read for `config`."""
        self.config = config
        self._read = read
        self._environ = environ
        self.last: dict[str, Any] | None = None
        self.problem = self._strangeness()

    def reload(self) -> Reload | None:
        """What comes of the configuration as it is now; None: it is wrong, and the one before stays in force."""
        self.last = {"at": timestamp(time.time()), "changed": [], "waiting": [], "error": None}
        try:
            reload = reloaded(self.config, self._read())
        except Misconfigured as error:
            self.last["error"] = error.message
            hint = "mend it, and reload again; the configuration before stays in force"
            self.problem = Problem(CONFIG, error.code, error.message, hint)
            return None
        self.last |= {"changed": reload.changed, "waiting": reload.waiting}
        self.config = reload.config
        self.problem = self._strangeness()
        return reload

    def _strangeness(self) -> Problem | None:
        """Variables that look like settings, and are none."""
        strange = unknown_variables(self._environ)
        if not strange:
            return None
        return Problem(CONFIG, "warning", "; ".join(strange), "correct the environment, and start again", warning=True)
