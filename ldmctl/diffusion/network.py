"""A denoiser with its conditioners: one network to train, one file to sample from.

A loss that compares the denoiser's tokens with those of a frozen encoder (arXiv:2410.06940) asks `forward` for them by `block`: they
come from the same pass as the prediction, with the same labels, dropped or not. What the encoder says of each picture has its place
in a cache, the tensor `features` of a shard (`shards`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldmctl.attribution import expect_shape, resembles
from ldmctl.diffusion.carried import at_home
from ldmctl.diffusion.conditions import SLOTS, heard, merged, null_of, refuse_other_slot, sizes_of, try_conditioner
from ldmctl.diffusion.self_conditioning import Recalled, with_estimate
from ldmctl.errors import MismatchError, PluginError, with_article
from ldmctl.protocols import Condition
from ldmctl.storage import headers, weights
from ldmctl.storage.record import run_of
from ldmctl.training.engine import Engine


class Network(nn.Module):
    """`denoiser` and what it listens through, trained and saved as one: a conditioner for each thing that is known of pictures.

    With `self_conditioning` the denoiser's last input channels are for its own clean estimate.
    """

    denoiser: Any
    conditioner: Any  # of labels; files have called it so since there was no other
    text: Any
    map: Any
    picture: Any

    def __init__(
        self,
        denoiser: nn.Module,
        conditioner: nn.Module | None = None,
        *,
        text: nn.Module | None = None,
        map: nn.Module | None = None,
        picture: nn.Module | None = None,
        self_conditioning: bool = False,
    ):
        super().__init__()
        self.denoiser = denoiser
        self.conditioner = conditioner
        self.text, self.map, self.picture = text, map, picture
        self.self_conditioning = self_conditioning

    @property
    def conditioners(self) -> dict[str, Any]:
        """The conditioners that there are, by what they listen to."""
        every = {"label": self.conditioner, "text": self.text, "map": self.map, "picture": self.picture}
        return {slot: conditioner for slot, conditioner in every.items() if conditioner is not None}

    def hear_by(self, slot: str, conditioner: nn.Module) -> None:
        """Have another conditioner listen in this slot from now on."""
        setattr(self, "conditioner" if slot == "label" else slot, conditioner)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        given: Any = None,
        dropped: Any = None,
        *,
        block: int | None = None,
        estimate: Tensor | None = None,
    ) -> Any:
        """x [B,c,h,w], timestep [B], what is known of B items, dropped bool [B] -> [B,c,h,w]; see `condition`.

        With `block` also the tokens after so many blocks of the denoiser, (the same, [B,N,D]); a PluginError where it shows none. With
        self-conditioning `estimate` [B,c,h,w] is what it said is clean before, None for nothing.
        """
        condition = self.condition(given, dropped, like=x)
        if self.self_conditioning:
            condition = with_estimate(condition, torch.zeros_like(x) if estimate is None else estimate)
        if block is None:
            said = self.denoiser(x, timestep, condition)
            if not resembles(said, x):
                expect_shape(said, tuple(x.shape), self.denoiser, "forward", like=x)
            return said
        if not hasattr(self.denoiser, "forward_with_hidden"):  # a keyword of ours, since DistributedDataParallel calls `forward` alone
            raise PluginError(f"The denoiser {type(self.denoiser).__name__} shows no hidden layers; dit does.")
        return self.denoiser.forward_with_hidden(x, timestep, condition, block=block)

    def voice(self, *, twice: bool = False) -> Any:
        """The denoiser, as `Denoise` asks it for one batch; see `Recalled`."""
        return Recalled(self.denoiser, twice=twice) if self.self_conditioning else self.denoiser

    def condition(self, given: Any, dropped: Any = None, *, like: Tensor | None = None) -> Condition | None:
        """The condition of the B items of `like` [B,c,h,w]; None without a conditioner.

        `given` is what is known of them by slot: a value that its conditioner takes, `Known`, or None for nothing; labels alone may stand
        for themselves. Conditions are null where `dropped`: bool [B] for all slots, or by slot.
        """
        known = given if isinstance(given, Mapping) else {"label": given}
        left = dropped if isinstance(dropped, Mapping) else dict.fromkeys(SLOTS, dropped)
        return merged([heard(slot, each, known.get(slot), left.get(slot), like) for slot, each in self.conditioners.items()])

    def null(self, like: Tensor) -> Condition | None:
        """The condition of nothing, of as many items as `like` [B,c,h,w] has; None without a conditioner."""
        return merged([null_of(each, len(like), like) for each in self.conditioners.values()])


def build_network(description: Mapping[str, Any]) -> Network:
    """The network that `describe_network` described, without its weights."""
    conditioner = weights.rebuild(description["conditioner"]) if description["conditioner"] else None
    others = {slot: weights.rebuild(each) for slot, each in description.get("conditions", {}).items()}
    hears_itself = bool(description.get("self_conditioning", False))
    return Network(weights.rebuild(description["denoiser"]), conditioner, **others, self_conditioning=hears_itself)


def describe_network(
    denoiser: Any,
    conditioner: Any = None,
    *,
    latent: tuple[int, int, int],
    classes: list[str],
    others: Mapping[str, tuple[Any, Mapping[str, Any]]] | None = None,
    self_conditioning: bool = False,
) -> dict[str, Any]:
    """What it takes to build the network: configs, and the context that follows from latents and classes.

    `others` are the configs and contexts of what else it listens to, by slot.
    """
    asked = {} if conditioner is None else {"label": (conditioner, {"classes": classes})}
    listens = {slot: weights.describe("conditioner", config, **context) for slot, (config, context) in {**asked, **(others or {})}.items()}
    built = {slot: weights.rebuild(each) for slot, each in listens.items()}
    for slot, each in built.items():
        refuse_other_slot(slot, each)
    if "label" in built:
        try_conditioner(built["label"], len(classes))
    sizes = sizes_of(built)
    sizes["map_channels"] += latent[0] * self_conditioning
    speaks = weights.describe("denoiser", denoiser, channels=latent[0], size=list(latent[1:]), **sizes)
    described = {"denoiser": speaks, "conditioner": listens.pop("label", None)}
    described |= {"conditions": listens} if listens else {}
    return described | ({"self_conditioning": True} if self_conditioning else {})


def load_network(path: Path, engine: Engine, *, option: str = "--run") -> tuple[Network, dict[str, Any], str]:
    """(frozen network in eval mode on the engine's device, header, fingerprint) from its file alone, which an option named."""
    tensors, header = weights.load(path)
    if header.get("kind") != "diffusion":
        raise MismatchError(
            f"{path} holds {with_article(str(header.get('kind', 'file')))}, not a denoiser. {option} wants a run folder of fit-diffusion."
        )
    headers.check(headers.Diffusion, header, path)
    for described in (header["denoiser"], header["conditioner"], header["schedule"], *header.get("conditions", {}).values()):
        if described is not None:
            headers.check_context(described, path)
    weights.refuse_oversized(header["denoiser"], tensors, path)
    network = build_network(header)
    weights.load_into(network, tensors, path)
    at_home(network, run_of(path))
    return engine.frozen(network), header, fingerprint_of(tensors, header)


def fingerprint_of(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """What a denoiser is known by: its weights and all that its header says but the step."""
    return weights.fingerprint(tensors, {key: value for key, value in header.items() if key != "step"})


def build_schedule(header: Mapping[str, Any]) -> Any:
    """The schedule that a denoiser was trained under."""
    return weights.rebuild(header["schedule"])
