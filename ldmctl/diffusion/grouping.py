"""How many pictures go through the network together: `batch` of them, which decides their last bits, or more where it does not.

A CPU's kernels idle on a few small maps. From some number of rows on they round every row alike, however many there are; where that is
so, which is tried and not believed, several batches go through the network as one.
"""

from typing import Any

import torch
from torch import Tensor

from ldmctl import registry
from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion.asking import Ask
from ldmctl.diffusion.beginning import Given, shape_of
from ldmctl.diffusion.guidance import tries_steps
from ldmctl.diffusion.sampling import condition_of, even_threads, rows_of

SMALLEST, LARGEST = 16, 64  # pictures
ON_CPU, ON_GPU = 2**12, 2**16  # cells of latents that are together enough to do
WORTH = 10  # times the work of trying


def with_batch(config: Sample, model: Any) -> Sample:
    """The same config with its `batch`: where none is named, what suits these latents and the device, whatever is asked for."""
    if config.batch is not None:
        return config
    roomy = model.engine.device.type == "cuda" and not (config.guide or config.start)  # whose backward passes need more memory
    many = suited(config, model, ON_GPU) if roomy else SMALLEST
    return config.model_copy(update={"batch": many})


def suited(config: Sample, model: Any, cells: int) -> int:
    """A power of two from 16 to 64: as many latents as have so many cells."""
    _, height, width = shape_of(config, model.header, model.codec)
    return min(max(1 << (cells // (height * width)).bit_length() >> 1, SMALLEST), LARGEST)


def together(config: Sample, model: Any, left: int, ask: Ask, given: Given | None = None) -> int:
    """How many pictures to make next of those that are left, which are asked to be like this one: `batch`, or several times as many.

    Edits and guides, which need more memory, and samplers that go on until the last picture of a batch is good enough stay with `batch`.
    """
    batch = config.batch or SMALLEST
    engine, begun = model.engine, given or Given()
    edited = config.start or config.guide or config.map or config.picture or begun.canvas or begun.guides or begun.watch
    if edited or tries_steps(registry.build("sampler", config.sampler)):
        return batch
    if engine.device.type != "cpu" or engine.world > 1 or batch < SMALLEST or batch != rows_of(batch):
        return batch
    most = suited(config, model, ON_CPU)
    if most <= batch or left < most:
        return batch
    if most not in model.alike:
        if left * config.steps < WORTH * (most + batch):
            return batch
        model.alike[most] = rounds_alike(config, model, ask, batch, most)
    return most if model.alike[most] else batch


@torch.no_grad()
def rounds_alike(config: Sample, model: Any, ask: Ask, few: int, many: int) -> bool:
    """Whether the network makes the same bits of latents, however many of them go through it together."""
    shape, times = shape_of(config, model.header, model.codec), many // few
    x = torch.randn(few, *shape, generator=torch.Generator().manual_seed(0))
    voice = model.network.voice()
    model.vocabulary.hear(config)

    def said(x: Tensor) -> Tensor:
        condition = condition_of(model.network, [ask] * len(x), model.engine, x)
        return voice(x, torch.full((len(x),), 0.5), condition)

    with even_threads(), model.engine.autocast():
        return torch.equal(said(x).repeat(times, 1, 1, 1), said(x.repeat(times, 1, 1, 1)))
