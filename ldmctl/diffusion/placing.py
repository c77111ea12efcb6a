"""A network that is to be trained: where it lies, whether it is compiled or sharded, and how many latents one forward has room for."""

from typing import Any

import torch

from ldmctl.config.schemas.fit_diffusion import FitDiffusion
from ldmctl.console import Console
from ldmctl.diffusion.network import Network, build_network
from ldmctl.diffusion.objective import Drawn, backward
from ldmctl.diffusion.typical import item_of
from ldmctl.latents.conditions import Several, on_device
from ldmctl.training import compiling
from ldmctl.training import engine as engines
from ldmctl.training.engine import Engine
from ldmctl.training.fsdp import refuse_single_numbers
from ldmctl.training.learner import Learner
from ldmctl.training.memory import largest_micro, release


def is_compiled(config: FitDiffusion, engine: Engine, console: Console) -> bool:
    """Whether torch.compile translates the network; where it was wished for and cannot, that is said."""
    sharded = is_sharded(config, engine)
    compiled = not sharded and compiling.compiles(config.machine.compile, engine)
    if config.machine.compile == "auto" and engine.device.type == "cuda" and not sharded and not compiled:
        console.warn(f"Training without torch.compile, which needs {compiling.lacking_to_compile(engine)}, and there is none.")
    return compiled


def is_sharded(config: FitDiffusion, engine: Engine) -> bool:
    """Whether there are ranks and they share the network itself."""
    return config.machine.parallel == "fsdp" and engine.world > 1


def new_network(config: FitDiffusion, described: dict[str, Any], engine: Engine) -> Network:
    """The network to train, on the device; one that is to be sharded stays on the CPU, from where its Learner takes it piece by piece."""
    network = build_network(described).train()
    engines.recompute(network, config.loop.checkpointing)
    if is_sharded(config, engine):
        refuse_single_numbers(network)
        return network
    return network.to(engine.device)


def find_micro(
    config: FitDiffusion, described: dict[str, Any], latent: tuple[int, ...], known: Several, engine: Engine, console: Console
) -> int:
    """The largest micro-batch that one real step has room for."""
    share = engine.share(config.loop.batch)
    count = share.stop - share.start
    found = try_micro(config, described, latent, known, engine, count)
    release(engine)
    console.say(f"loop.micro=auto: {found} of {count} latents per forward.")
    return found


def try_micro(config: FitDiffusion, described: dict[str, Any], latent: tuple[int, ...], known: Several, engine: Engine, share: int) -> int:
    """The same for a rank's `share` of the batch, by a network of its own."""
    model = Learner(new_network(config, described, engine), config.loop, engine, sharded=is_sharded(config, engine))

    def step(count: int) -> None:
        others = on_device(known.known(torch.full((count,), item_of(known, 1))), engine.device)
        x, label = torch.zeros(count, *latent, device=engine.device), torch.zeros(count, device=engine.device)
        parts = 2 if model.sharded and count < share else 1  # gradients of all weights wait for the last part
        for part in range(parts):
            with model.backward_context(last=part == parts - 1):
                backward({"diffusion": model}, Drawn(x, label, x, label.long(), label > 0, label + 1, label, others), 1.0, engine)
        model.update(0)
        model.track(0)

    return largest_micro(step, share, engine, memory=config.machine.memory)
