"""Keys that autoencoders of convolutions share."""

from typing import Any, Literal

Norm = Literal["group", "layer"]
NORM = (
    "group: by the mean and variance of the whole picture in each group of channels; layer: by those of each pixel's channels alone, "
    "so that a picture is encoded in parts as it is in whole"
)
SHORTCUTS = (
    "paths without a norm: around halvings and doublings (arXiv:2410.10733) and around the last norm of the encoder and of the decoder; "
    "small networks learn several times as fast with them"
)


def shape_of(config: Any) -> dict[str, Any]:
    """What an Encoder and a Decoder are given of these keys, `layers` and `attention`."""
    groups = config.norm_groups if config.norm == "group" else None
    return {"layers": config.layers, "norm_groups": groups, "attention": config.attention, "shortcuts": config.shortcuts}
