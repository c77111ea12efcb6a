"""Curves and pictures of a run in TensorBoard: `tensorboard --logdir runs`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from ldmctl.config import PluginConfig
from ldmctl.errors import MissingError, one_line


class TensorBoard:
    """Writes event files into the run folder. A run that is resumed from an earlier step hides what was logged after it."""

    class Config(PluginConfig):
        folder: str = Field("tensorboard", description="where the event files go, inside the run folder")

    def __init__(self, config: Config, *, run: Path):
        self._make = _summary_writer()
        self._folder = Path(run) / config.folder
        self._opened: Any = None

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """One point on the curve of each name; what was logged reaches the disk."""
        writer = self._writer(step)
        for name, value in scalars.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    def image(self, step: int, path: Path) -> None:
        """The picture, under its folder's and its own name without the step: all steps of `samples/000500.png` share one slider."""
        import numpy as np
        from PIL import Image

        words = [path.parent.name, *(word for word in re.split(r"[-_.]", path.stem) if word and not word.isdigit())]
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGBA" if "A" in picture.getbands() else "RGB"))
        writer = self._writer(step)
        writer.add_image("/".join(words), pixels, step, dataformats="HWC")
        writer.flush()

    def close(self) -> None:
        """Writes the rest and lets the files go; may be called twice."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _writer(self, step: int) -> Any:
        if self._opened is None:  # only now is the step known from which an interrupted run continues
            self._opened = self._make(str(self._folder), purge_step=step)
        return self._opened


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except (ImportError, RuntimeError, TypeError, AttributeError) as error:  # also a protobuf that does not fit
        raise MissingError(f"The tracker needs TensorBoard: pip install 'ldmctl[tensorboard]' ({one_line(error)}).") from None
    return SummaryWriter
