"""A network's weights in the numbers that autocast computes in, cast once and not at every evaluation."""

import torch
from torch import nn

from ldmctl.attribution import plugin_of
from ldmctl.training.engine import Engine

CAST = (nn.Conv2d, nn.Linear)  # what autocast runs in its own numbers, weights and biases included


def cast_once(denoiser: nn.Module, engine: Engine) -> None:
    """Convolutions and linear layers of a denoiser that comes with ldmctl take the dtype of autocast: each output stays what it was, bit for bit.

    Those of others are left as they are, since they may compute with a weight outside of autocast.
    """
    made_by = plugin_of(denoiser)
    if engine.dtype == torch.float32 or made_by is None or not made_by.built_in:
        return
    for module in denoiser.modules():
        if type(module) in CAST:
            module.to(engine.dtype)
