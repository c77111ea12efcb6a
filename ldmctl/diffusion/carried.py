"""The text encoder of a run, which travels by name and hash, or as a copy in the run's folder."""

import shutil
from pathlib import Path
from typing import Any

from ldmctl.console import Console
from ldmctl.errors import ConfigError, LdmctlError
from ldmctl.storage.atomic import replacing
from ldmctl.storage.record import config_of
from ldmctl.training.costs import human
from ldmctl.training.engine import Engine

FOLDER = "text-encoder"


def at_home(network: Any, run: str | Path) -> None:
    """Let the conditioner of captions look for its encoder in the folder of a run first, and also where the run names it today."""
    if hasattr(network.text, "home"):
        folder = Path(run).expanduser()
        network.text.home, network.text.renamed = folder / FOLDER, named_in(folder)


def named_in(run: Path) -> str | None:
    """The encoder that the config of a run names; None where it names none."""
    if not (run / "config.yaml").is_file():
        return None
    try:
        said = config_of(run).get("conditions")
    except LdmctlError:  # which is said where the run itself is opened
        return None
    text = said.get("text") if isinstance(said, dict) else None
    named = text.get("encoder") if isinstance(text, dict) else None
    return named if isinstance(named, str) else None


def expect_same_encoder(network: Any) -> None:
    """A MissingError where a run that goes on names another encoder than it began with, and there is none of the same files by that name."""
    text = network.text
    if getattr(text, "renamed", None) not in (None, getattr(text.config, "encoder", None)):
        text.find_named()


def carry_encoder(network: Any, run: Path, engine: Engine, console: Console) -> None:
    """Copy the encoder of captions into a run, unless it is there already; a copy that is half there has another hash and is not used.

    A ConfigError where no captions are listened to, a MissingError where the encoder is not to be had.
    """
    text = network.text
    if text is None:
        raise ConfigError(
            "--embed-text copies the encoder of captions, and this denoiser listens to none. Leave it away, or set conditions.text."
        )
    if not hasattr(text, "needed"):
        console.say("--embed-text has nothing to copy: what captions are heard by is learned along, and in the model's file.")
        return
    home = run / FOLDER
    if engine.leads and (files := [file for file in text.needed if file.parent != home]):
        home.mkdir(exist_ok=True)
        for file in files:
            with replacing(home / file.name) as temporary:
                shutil.copyfile(file, temporary)
        size = sum(file.stat().st_size for file in files)
        console.say(f"The text encoder is copied into {home} ({human(size)}), so the folder travels alone.")
    engine.barrier()
