"""What it saves that networks in use keep the channels of a pixel side by side (channels last): work of one processor, beside the usual layout.

python benchmarks/frozen_layout.py [--rounds 15]      # a minute or two on one core

Networks of the presets with random weights, in float32, on one thread: autoencoders encode and decode, denoisers are evaluated once. Both layouts
take turns; a number is the median of the rounds, in milliseconds of processor time, which other processes disturb less than the clock.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import describe, keep
from torch import Tensor, nn

from ldmctl import registry
from ldmctl.config.presets import compose
from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.config.schemas.fit_diffusion import FitDiffusion
from ldmctl.training.engine import Engine

AUTOENCODERS = [("shapes", 3, 32, 16), ("mnist", 1, 28, 16), ("default", 3, 64, 4)]  # preset, channels, side and number of pictures
DENOISERS = [("mnist", (3, 7, 7), 16), ("shapes", (4, 8, 8), 16), ("default", (4, 16, 16), 8)]  # preset, latents, how many


def main() -> None:
    """Build, measure, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=15)
    asked = options.parse_args()
    machine = describe()
    torch.set_num_threads(1)
    rows = []
    for preset, channels, side, count in AUTOENCODERS:
        config = compose(FitAE, config=preset)[0].autoencoder
        network = registry.build("autoencoder", config, image_channels=channels).eval().requires_grad_(False)
        pictures = torch.randn(count, channels, side, side)
        latents = torch.randn(count, network.channels, side // network.factor, side // network.factor)
        work = {"encode": lambda each, x=pictures: each.encode(x), "decode": lambda each, x=latents: each.decode(x)}
        about = {"network": f"{config.type} of fit-ae/{preset}", "input": [count, channels, side, side]}
        rows += [about | {"work": name} | measured(network, do, asked.rounds) for name, do in work.items()]
    for preset, shape, count in DENOISERS:
        config = compose(FitDiffusion, config=preset)[0].denoiser
        network = registry.build("denoiser", config, channels=shape[0], size=shape[1:]).eval().requires_grad_(False)
        noised, times = torch.randn(count, *shape), torch.full((count,), 500.0)
        found = measured(spread(network), lambda each, x=noised, t=times: each(x, t, None), asked.rounds)
        rows.append({"network": f"{config.type} of fit-diffusion/{preset}", "input": [count, *shape], "work": "one evaluation"} | found)
    keep("frozen_layout", {"rounds": asked.rounds, "rows": rows}, machine)


def spread(network: nn.Module) -> nn.Module:
    """The same with weights that are nowhere 0, so that no work can be left out."""
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.02)
    return network


@torch.no_grad()
def measured(network: nn.Module, work: Callable[[Any], Tensor], rounds: int) -> dict[str, Any]:
    """Milliseconds in both layouts, and how many times as fast the one is that is used."""
    both = {"usual": network, "channels_last": Engine(torch.device("cpu"), torch.float32).frozen(copy.deepcopy(network))}
    spent: dict[str, list[float]] = {name: [] for name in both}
    for _ in range(rounds + 1):
        for name, each in both.items():
            began = time.process_time()
            work(each)
            spent[name].append(time.process_time() - began)
    found = {name: 1000 * statistics.median(times[1:]) for name, times in spent.items()}  # the first finds memory
    return {**{name: round(value, 2) for name, value in found.items()}, "times_faster": round(found["usual"] / found["channels_last"], 2)}


if __name__ == "__main__":
    main()
