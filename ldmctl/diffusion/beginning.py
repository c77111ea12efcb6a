"""From the keys of a command to what a batch begins with: its size, pictures as latents, noise between two seeds, corrections."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion.editing import Correction, Edit, Look, slerp
from ldmctl.diffusion.guides import Guides
from ldmctl.diffusion.inpainting import Blend, Cells, Pigdm, Repaint, free_cells
from ldmctl.diffusion.network import Network
from ldmctl.errors import ConfigError, DataError
from ldmctl.latents.codec import Codec
from ldmctl.latents.conditions import Known
from ldmctl.pictures.canvas import Canvas, feathered, filled
from ldmctl.pictures.images import to_float

LARGE = 64 * 64  # cells of a latent that take a CPU longer than to find out without it whether they can be taken
METHODS = {"blend": Blend, "pigdm": Pigdm}


def sides_of(config: Sample, header: dict[str, Any]) -> tuple[int, int]:
    """(height, width) of the pictures, pixels."""
    size = int(header["image"]["size"])
    return (config.size[1], config.size[0]) if config.size else (size, size)


def shape_of(config: Sample, header: dict[str, Any], codec: Codec) -> tuple[int, int, int]:
    """(c, h, w) of their latents."""
    height, width = (-(-side // codec.autoencoder.factor) for side in sides_of(config, header))
    return (int(header["latent"][0]), height, width)


@torch.no_grad()
def refuse_size(config: Sample, header: dict[str, Any], codec: Codec, network: Network) -> None:
    """A ConfigError for a size that the network cannot take."""
    shape, device = shape_of(config, header, codec), codec.engine.device
    if config.size is None or list(shape) == list(header["latent"]):
        return
    if shape[1] * shape[2] > LARGE and passes(network, shape):
        return
    try:
        given = torch.full((1,), -1, device=device)
        with codec.engine.autocast():
            network(torch.zeros(1, *shape, device=device), torch.zeros(1, device=device), given)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"size={config.size[0]}x{config.size[1]} is not what this denoiser can take, it was made for latents of "
            f"{header['latent'][2]}x{header['latent'][1]}: {error}"
        ) from None


def passes(network: Network, shape: Sequence[int]) -> bool:
    """Whether latents of this shape [c,h,w] go through the network without their numbers, which takes milliseconds; False where that cannot be told."""
    like = {name: tensor.to("meta") for name, tensor in network.state_dict().items()}
    try:
        given = (torch.zeros(1, *shape, device="meta"), torch.zeros(1, device="meta"), torch.full((1,), -1, device="meta"))
        torch.func.functional_call(network, like, given)
    except Exception:  # what a plugin does with numbers may need them
        return False
    return True


def caveat(config: Sample, header: dict[str, Any]) -> str:
    """A sentence on a size that the model was not trained on, otherwise nothing."""
    height, width = sides_of(config, header)
    size = int(header["image"]["size"])
    if (height, width) == (size, size):
        return ""
    return f"The model was trained on {size}x{size} pixels and makes {width}x{height}: larger pictures tend to repeat things, smaller ones to lose them."


@torch.no_grad()
def latents_of(codec: Codec, images: Tensor) -> Tensor:
    """uint8 or float [B,C,H,W] -> latents of the denoiser [B,c,h,w], without the encoder's noise."""
    images = to_float(images) if images.dtype == torch.uint8 else images
    moments = codec.encode(images.to(codec.engine.device))
    mode = getattr(codec.autoencoder, "mode", codec.autoencoder.draw)
    return codec.whiten(mode(moments).float())


class Given(NamedTuple):
    """What a batch is begun with or held to that is no key of a config: opened, built, or in memory from the start."""

    canvas: Canvas | None = None
    guides: Sequence[Any] = ()
    watch: Callable[[Look], None] | None = None


def edit_of(
    config: Sample, given: Given, codec: Codec, seeds: Sequence[int], header: dict[str, Any], *, by_condition: bool = False
) -> Edit:
    """What a batch of these seeds begins with; seeds may come several times.

    `by_condition` the network hears what is known of a picture, which is held as `blend` holds it.
    """
    canvas, shape, sides = given.canvas, shape_of(config, header, codec), sides_of(config, header)
    first = None if config.interpolate is None else between(config, seeds, shape, codec)
    stream = config.interpolate[0] if config.interpolate else None
    edit = Edit(first=first, stream=stream, watch=given.watch)
    if given.guides:
        edit = edit._replace(corrections=[Guides(given.guides, lambda latent: codec.picture_of(latent, sides))])
    if canvas is None:
        return edit
    images = torch.stack([canvas.picture(seed) for seed in seeds])
    latent = latents_of(codec, images) if config.level < 1 else None
    edit = edit._replace(latent=latent, strength=config.level)
    if canvas.free is None:
        return edit
    cells = painted_cells(canvas.free, codec)
    known = latents_of(codec, filled(to_float(images), canvas.free))
    corrections: list[Correction] = []
    if given.guides:
        corrections.append(Guides(given.guides, lambda latent: codec.picture_of(latent, sides), cells.at))
    if by_condition:
        mask = cells.free.float().expand(len(known), 1, *known.shape[2:])
        heard = {"picture": Known({"latent": known, "mask": mask})} if config.guidance != 0 else {}
        return edit._replace(corrections=[*corrections, Blend(known, cells)], pictures=heard)
    if config.painting.method == "repaint":
        return edit._replace(corrections=corrections, repaint=partial(Repaint, known, cells, config.painting.repeats))
    return edit._replace(corrections=[*corrections, METHODS[config.painting.method](known, cells)])


def painted_cells(free: Tensor, codec: Codec) -> Cells:
    """The cells of latents with pixels that may change, bool [H,W]; a DataError where these are all."""
    factor = codec.autoencoder.factor
    cells = free_cells(free, factor).to(codec.engine.device)
    if bool(cells.free.all()):
        raise DataError(
            f"The mask leaves nothing of the picture to hold on to: a cell of this autoencoder's latents is {factor} pixels, and each has "
            "some that are white. Take a smaller mask."
        )
    return cells


def between(config: Sample, seeds: Sequence[int], shape: tuple[int, int, int], codec: Codec) -> Tensor:
    """Noise [B,c,h,w] on the arc between that of two seeds, from the first to the last picture."""
    from ldmctl.diffusion.denoise import Noise

    assert config.interpolate is not None
    one, other = Noise(config.interpolate, shape).first()
    shares = [seed / ((config.between or config.count) - 1) for seed in seeds]
    return torch.stack([slerp(one, other, share) for share in shares]).to(codec.engine.device)


def put_back(picture: Tensor, config: Sample, canvas: Canvas | None, seeds: Sequence[int], factor: int) -> Tensor:
    """float [B,C,H,W] with the pixels that were not to be painted as they were, but for a feather around the mask."""
    if canvas is None or canvas.free is None:
        return picture
    seen = feathered(canvas.free, factor if config.painting.feather is None else config.painting.feather).to(picture.device)
    before = to_float(torch.stack([canvas.picture(seed) for seed in seeds])).to(picture.device)
    return torch.where(seen > 0, seen * picture + (1 - seen) * before, before)
