"""What a tracker is told of a run. One that fails costs a warning, never the run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ldmctl import registry
from ldmctl.attribution import culprit, named
from ldmctl.config.base import PluginConfig
from ldmctl.console import Console
from ldmctl.errors import LdmctlError, one_line


class Reports:
    """A tracker that is asked to take what is reported; what it raises is said once, and counted."""

    def __init__(self, tracker: Any, name: str, console: Console):
        self.tracker, self.name, self.console, self.failures = tracker, name, console, 0

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Numbers of a step."""
        self._ask(lambda: self.tracker.log(step, dict(scalars)))

    def image(self, step: int, path: Path) -> None:
        """A picture that was written."""
        self._ask(lambda: self.tracker.image(step, path))

    def close(self) -> None:
        """The end of the run, or of this sitting."""
        self._ask(lambda: self.tracker.close())  # noqa: PLW0108  # a tracker without one has failed, too
        if self.failures > 1:
            self.console.warn(f"{self.name} failed {self.failures} times in all; metrics.jsonl has every number.")

    def _ask(self, call: Callable[[], None]) -> None:
        try:
            call()
        except (Exception, SystemExit) as error:  # a third party's, on which training does not depend
            self.failures += 1
            if self.failures == 1:
                self.console.warn(f"{self.name} failed: {where(error)}. Training goes on, and metrics.jsonl has every number.")


def report_to(config: PluginConfig | None, run: Path, console: Console) -> Reports | None:
    """The tracker that a config names, None without. One that cannot be made for another reason than a missing package is gone without."""
    if config is None:
        return None
    plugin = registry.find("tracker", config.type)
    try:
        return Reports(registry.build("tracker", config, run=run), named(plugin), console)
    except LdmctlError:
        raise
    except Exception as error:
        console.warn(f"{named(plugin)} cannot be made: {where(error)}. Training goes on without it, and metrics.jsonl has every number.")
        return None


def where(error: BaseException) -> str:
    """What was raised, and the line of the plugin where it was."""
    found = culprit(error)
    return f"{one_line(error)[:300]}, at {found.place}" if found else one_line(error)[:300]
