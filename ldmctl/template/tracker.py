"""The numbers of a run as lines of a CSV file, which any spreadsheet opens."""

import csv
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from ldmctl.config import PluginConfig


class Template:
    """Appends a line for each number and each picture; a resumed run adds to the same file."""

    class Config(PluginConfig):
        file: str = Field("metrics.csv", description="the file's name inside the run folder")

    def __init__(self, config: Config, *, run: Path):
        self.path = Path(run) / config.file

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """step, name and value of each number."""
        self._append([(step, name, value) for name, value in scalars.items()])

    def image(self, step: int, path: Path) -> None:
        """The name of the picture in place of a value."""
        self._append([(step, path.parent.name, path.name)])

    def close(self) -> None:
        """Nothing is left open between two lines."""

    def _append(self, rows: list[tuple[int, str, float | str]]) -> None:
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow(("step", "name", "value"))
            writer.writerows(rows)
