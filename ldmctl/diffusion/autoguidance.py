"""Autoguidance: a weaker model of the same latents to go away from, such as an early snapshot or a smaller network (arXiv:2406.02507)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ldmctl.diffusion.learned_words import Vocabulary
from ldmctl.diffusion.network import Network, load_network
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.storage.apart import folder_of
from ldmctl.storage.record import model_file
from ldmctl.training.engine import Engine

SAME = {  # of the two headers: what must be equal, in words
    "schedule": "under another schedule",
    "prediction": "to predict something else",
    "latent": "on latents of another shape",
    "statistics": "on latents that were whitened otherwise",
    "autoencoder": "on latents of another autoencoder",
}


class Weaker(NamedTuple):
    """A model that guidance goes away from."""

    network: Network
    fingerprint: str
    vocabulary: Vocabulary  # what it hears words by
    header: dict[str, Any]


def load_weaker(run: str, header: Mapping[str, Any], better: str, engine: Engine) -> Weaker:
    """The model of a run of fit-diffusion, or of a snapshot, to guide the one with this header and the fingerprint `better`.

    A MismatchError unless it was trained as that one, a ConfigError where it is that one.
    """
    if not folder_of(run).exists():
        raise MismatchError(f"There is no run folder {folder_of(run)} of a weaker model. --autoguide names a run of fit-diffusion.")
    source = model_file(run, verb="fit-diffusion")
    network, other, fingerprint = load_network(source, engine, option="--autoguide")
    apart = [words for key, words in SAME.items() if said(other, key) != said(header, key)]
    if other["conditioner"] is not None and other["classes"] != header["classes"]:
        apart.append("with other classes")
    if apart:
        raise MismatchError(
            f"autoguide={run} was trained {apart[0]} than the model it should guide, so their estimates cannot be compared. Name a run, "
            f"or a snapshot (RUN@STEP), that was trained on the same cache with the same schedule and prediction."
        )
    if fingerprint == better:
        raise ConfigError(
            f"autoguide={run} is the same model as the one that it should guide, so it would change nothing at twice the cost. Name an "
            "earlier snapshot (RUN@STEP), or a run of a weaker model."
        )
    return Weaker(network, fingerprint, Vocabulary(network, other, run), other)


def said(header: Mapping[str, Any], key: str) -> Any:
    """What a header says of one of `SAME`; of an autoencoder its fingerprint alone."""
    return header[key]["fingerprint"] if key == "autoencoder" else header[key]
