"""A denoiser with its conditioner: one network to train, one file to sample from.

A loss that compares the denoiser's tokens with those of a frozen encoder (arXiv:2410.06940) asks `forward` for them by `block`: they
come from the same pass as the prediction, with the same labels, dropped or not. What the encoder says of each picture has its place
in a cache, the tensor `features` of a shard (`shards`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldmctl.attribution import expect, expect_shape
from ldmctl.diffusion.denoise import joined
from ldmctl.errors import MismatchError, PluginError, with_article
from ldmctl.protocols import Condition
from ldmctl.storage import headers, weights
from ldmctl.training.engine import Engine


class Network(nn.Module):
    """`denoiser` and, when there are classes to listen to, `conditioner`, trained and saved as one."""

    denoiser: Any
    conditioner: Any

    def __init__(self, denoiser: nn.Module, conditioner: nn.Module | None):
        super().__init__()
        self.denoiser = denoiser
        self.conditioner = conditioner

    def forward(self, x: Tensor, timestep: Tensor, given: Any = None, dropped: Tensor | None = None, *, block: int | None = None) -> Any:
        """x [B,c,h,w], timestep [B], what the cache gives for B items, dropped bool [B] -> [B,c,h,w].

        With `block` also the tokens after so many blocks of the denoiser, (the same, [B,N,D]); a PluginError where it shows none.
        """
        condition = self.condition(given, dropped)
        if block is None:
            said = self.denoiser(x, timestep, condition)
            if getattr(said, "shape", None) != x.shape:
                expect_shape(said, tuple(x.shape), self.denoiser, "forward")
            return said
        if not hasattr(self.denoiser, "forward_with_hidden"):  # a keyword of ours, since DistributedDataParallel calls `forward` alone
            raise PluginError(f"The denoiser {type(self.denoiser).__name__} shows no hidden layers; dit does.")
        return self.denoiser.forward_with_hidden(x, timestep, condition, block=block)

    def condition(self, given: Any, dropped: Tensor | None = None) -> Condition | None:
        """The condition of B items, the null one where `dropped`; None without a conditioner."""
        if self.conditioner is None:
            return None
        full: Condition = self.conditioner.encode(given)
        if dropped is None:
            return full
        count = len(dropped)
        both = joined(full, self.conditioner.null(count))
        rows = torch.arange(count, device=dropped.device) + count * dropped
        return Condition(*(None if part is None else part[rows] for part in both))


def build_network(description: Mapping[str, Any]) -> Network:
    """The network that `describe_network` described, without its weights."""
    conditioner = weights.rebuild(description["conditioner"]) if description["conditioner"] else None
    return Network(weights.rebuild(description["denoiser"]), conditioner)


def describe_network(denoiser: Any, conditioner: Any, *, latent: tuple[int, int, int], classes: list[str]) -> dict[str, Any]:
    """What it takes to build the network: configs, and the context that follows from latents and classes."""
    listens = None if conditioner is None else weights.describe("conditioner", conditioner, classes=classes)
    built = weights.rebuild(listens) if listens else None
    if built is not None:
        try_conditioner(built, len(classes))
    sizes = {name: getattr(built, name, 0) for name in ("vector_dim", "token_dim", "map_channels")}
    speaks = weights.describe("denoiser", denoiser, channels=latent[0], size=list(latent[1:]), **sizes)
    return {"denoiser": speaks, "conditioner": listens}


@torch.no_grad()
def try_conditioner(conditioner: Any, classes: int) -> None:
    """What would only be noticed in the first step: a conditioner that does not take labels, or gives what it has not announced."""
    labels = torch.arange(-1, min(classes, 3))
    learning = conditioner.training
    conditioner.eval()
    check_condition(conditioner.encode(labels), conditioner, len(labels), "encode")
    check_condition(conditioner.null(len(labels)), conditioner, len(labels), "null")
    conditioner.train(learning)


def check_condition(condition: Any, conditioner: Any, count: int, method: str) -> None:
    """A PluginError that names the conditioner, unless it gave for `count` pictures what it has announced."""
    expect(isinstance(condition, Condition), conditioner, f"{method} gave {type(condition).__name__}, not a Condition")
    for name, size in {"vector": "vector_dim", "tokens": "token_dim", "maps": "map_channels"}.items():
        part, announced = getattr(condition, name), getattr(conditioner, size)
        expect(
            (part is not None) == bool(announced), conditioner, f"{method} gave {'no ' * (part is None)}{name}, and {size} is {announced}"
        )
        if part is not None:
            wanted = {"vector": (count, announced), "tokens": (count, None, announced), "maps": (count, announced, None, None)}[name]
            expect_shape(part, wanted, conditioner, f"{method} ({name})")


def load_network(path: Path, engine: Engine) -> tuple[Network, dict[str, Any], str]:
    """(frozen network in eval mode on the engine's device, header, fingerprint) from its file alone."""
    tensors, header = weights.load(path)
    if header.get("kind") != "diffusion":
        raise MismatchError(
            f"{path} holds {with_article(str(header.get('kind', 'file')))}, not a denoiser. --run wants a run folder of fit-diffusion."
        )
    headers.check(headers.Diffusion, header, path)
    for name in ("denoiser", "conditioner", "schedule"):
        if header[name] is not None:
            headers.check_context(header[name], path)
    weights.refuse_oversized(header["denoiser"], tensors, path)
    network = build_network(header)
    weights.load_into(network, tensors, path)
    return network.to(engine.device).eval().requires_grad_(False), header, fingerprint_of(tensors, header)


def fingerprint_of(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """What a denoiser is known by: its weights and all that its header says but the step."""
    return weights.fingerprint(tensors, {key: value for key, value in header.items() if key != "step"})


def build_schedule(header: Mapping[str, Any]) -> Any:
    """The schedule that a denoiser was trained under."""
    return weights.rebuild(header["schedule"])
