"""Curves and pictures of a run on Weights & Biases (https://wandb.ai), or in its files until `wandb sync` uploads them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from ldmctl.config import PluginConfig
from ldmctl.errors import MissingError, one_line


class WandB:
    """Logs a run folder as one run of Weights & Biases. Its id is kept in wandb.json, so that a resumed run is continued there too."""

    class Config(PluginConfig):
        project: str = Field("ldmctl", description="the project that the run belongs to")
        entity: str | None = Field(None, description="user or team that owns the project; null: that of the login")
        name: str | None = Field(None, description="what the run is called; null: the run folder's name")
        group: str | None = Field(None, description="runs of one group are shown together; null: none")
        tags: list[str] = Field([], description="words to find the run by")
        mode: Literal["online", "offline", "disabled"] = Field(
            "online", description="offline: files in the run folder, for `wandb sync`; disabled: nothing is kept"
        )

    def __init__(self, config: Config, *, run: Path):
        wandb = self._wandb = _package()
        folder = Path(run).absolute()
        note, values = folder / "wandb.json", folder / "config.yaml"
        try:
            self._run = wandb.init(
                project=config.project,
                entity=config.entity,
                name=config.name or folder.name,
                group=config.group,
                tags=config.tags,
                mode=config.mode,
                dir=str(folder),
                config=yaml.safe_load(values.read_text(encoding="utf-8")) if values.exists() else None,
                allow_val_change=True,  # of keys that may change when a run is resumed
                id=json.loads(note.read_text(encoding="utf-8"))["id"] if note.exists() else None,
                resume="allow" if config.mode == "online" else None,
                reinit="create_new",  # beside any run that the calling program has there
            )
        except wandb.errors.Error as error:
            raise MissingError(
                f"The tracker wandb cannot start a run ({one_line(error)}). Log in with `wandb login`, or take tracker.mode=offline."
            ) from None
        if config.mode != "disabled" and not note.exists():
            note.write_text(json.dumps({"id": self._run.id}) + "\n", encoding="utf-8")
        # Its own step only counts up, so it cannot say that a resumed run went back.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """One point on the curve of each name, over `step`."""
        self._run.log({"step": step, **scalars})

    def image(self, step: int, path: Path) -> None:
        """The picture, under its folder's and its own name without the step, as in `samples/train`."""
        words = [path.parent.name, *(word for word in re.split(r"[-_.]", path.stem) if word and not word.isdigit())]
        self._run.log({"step": step, "/".join(words): self._wandb.Image(str(path), caption=f"step {step:,}")})

    def close(self) -> None:
        """Uploads the rest, and says whether an error ended the run; may be called twice."""
        self._run.finish(exit_code=int(sys.exc_info()[0] is not None))


def _package() -> Any:
    try:
        import wandb
    except Exception as error:  # ImportError, or a dependency that does not fit
        raise MissingError(f"The tracker needs Weights & Biases: pip install 'ldmctl[wandb]' ({one_line(error)}).") from None
    return wandb
