"""How good reconstructions are, or how far two folders of pictures are apart: LPIPS, PSNR and SSIM with 95 % intervals."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldmctl import engine as engines
from ldmctl import registry
from ldmctl.codec import Codec, load_autoencoder
from ldmctl.engine import Engine
from ldmctl.errors import DataError, MismatchError, MissingError
from ldmctl.feed import in_order, on_device, open_pictures
from ldmctl.images import read, to_uint8
from ldmctl.measures import Mean, psnr, ssim
from ldmctl.run import model_file
from ldmctl.schemas import EvalLpips
from ldmctl.voice import Voice

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
SMALLEST = {"ssim": 11}  # pixels that a measure's window needs


def eval_lpips(config: EvalLpips, *, voice: Voice) -> dict[str, Any]:
    """{"count", "of", "psnr": {"mean", "low", "high"}, ...} over reconstructions, or over pairs of pictures."""
    # Build the parts.
    engine = engines.start(config.machine)
    pairs, of, channels, total = source_of(config, engine)
    perceptual = build_perceptual(config, engine, channels)

    # Measure.
    means: dict[str, Mean] = {}
    done = 0
    with voice.bar("measuring", total) as bar, torch.no_grad():
        for made, image in pairs:
            values = {"psnr": psnr(made, image)}
            if min(image.shape[-2:]) >= SMALLEST["ssim"]:
                values["ssim"] = ssim(made, image)
            if perceptual is not None:
                with engine.autocast():
                    values[config.perceptual.type] = perceptual(made, image).float()  # type: ignore[union-attr]
            for name, value in values.items():
                means.setdefault(name, Mean()).add(value)
            done += len(image)
            bar.advance(done, amount=done)
    if not means:
        raise DataError(f"There are no pictures to measure in {of}.")

    # Say it.
    result = {name: dict(zip(("mean", "low", "high"), mean.interval(), strict=True)) for name, mean in means.items()}
    return {"of": of, "count": done, **result}


def plan_eval_lpips(config: EvalLpips) -> dict[str, Any]:
    """What would be measured, and by what; raises as it would in earnest."""
    engine = Engine(torch.device("cpu"), torch.float32)
    _, of, channels, count = source_of(config, engine)
    perceptual = [config.perceptual.type] if build_perceptual(config, engine, channels) is not None else []  # type: ignore[union-attr]
    return {"pictures": f"{count:,}", "of": of, "measures": ", ".join(["psnr", "ssim", *perceptual])}


def source_of(config: EvalLpips, engine: Engine) -> tuple[Iterator[tuple[Tensor, Tensor]], str, int, int]:
    """(batches of (made, image) in [-1, 1], what they are, channels, how many)."""
    if config.pairs is not None:
        files = paired_files(*(Path(folder).expanduser() for folder in config.pairs))[: config.count]
        return pairs_of_files(files, engine), f"{config.pairs[0]} against {config.pairs[1]}", 3, len(files)
    source = model_file(config.run, verb="fit-ae")
    autoencoder, header = load_autoencoder(source, engine)
    if config.image.channels != header["context"]["image_channels"]:
        raise MismatchError(
            f"{source} takes pictures of {header['context']['image_channels']} channels, image.channels={config.image.channels} was asked for."
        )
    pictures = open_pictures(config, config.split)
    if not len(pictures):
        raise DataError(f"The {config.split} split has no pictures; try split=train.")
    of = f"reconstructions by {source} of the {config.split} split"
    total = min(config.count or len(pictures), len(pictures))
    return reconstructions(config, Codec(autoencoder, engine), engine), of, config.image.channels, total


def reconstructions(config: EvalLpips, codec: Codec, engine: Engine) -> Iterator[tuple[Tensor, Tensor]]:
    """Each picture with its reconstruction, rounded to 8 bits as it would be saved."""
    pictures = open_pictures(config, config.split)
    for batch in in_order(pictures, config.batch, engine, wanted=config.workers, count=config.count):
        good = [row for row, (asked, used) in enumerate(zip(batch.index, batch.used, strict=True)) if asked == used]
        image = on_device(batch.image[good], engine)
        yield on_device(to_uint8(codec.reconstruct(image)), engine), image


def paired_files(first: Path, second: Path) -> list[tuple[Path, Path]]:
    """Pictures with equal names below two folders; a DataError names what one of them lacks."""
    names = []
    for folder in (first, second):
        if not folder.is_dir():
            raise DataError(f"There is no folder {folder}.")
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES}
        if not found:
            raise DataError(f"{folder} holds no pictures.")
        names.append(found)
    if lacking := sorted(names[0] ^ names[1]):
        raise DataError(
            f"{first} and {second} differ in {len(lacking)} file names, the first of them {lacking[0]}. Pairs need equal names."
        )
    return [(first / name, second / name) for name in sorted(names[0])]


def pairs_of_files(files: list[tuple[Path, Path]], engine: Engine) -> Iterator[tuple[Tensor, Tensor]]:
    """Pair by pair, since sizes may differ from one pair to the next."""
    for one, other in files:
        made, image = read(one), read(other)
        if made.shape != image.shape:
            raise DataError(f"{one} has {list(made.shape[1:])} pixels, {other} has {list(image.shape[1:])}. A pair must agree in size.")
        yield on_device(made[None], engine), on_device(image[None], engine)


def build_perceptual(config: EvalLpips, engine: Engine, channels: int) -> Any:
    """The perceptual measure; without its weights a MissingError that also says how to have the other numbers."""
    if config.perceptual is None:
        return None
    try:
        return registry.build("perceptual", config.perceptual, image_channels=channels).to(engine.device)
    except MissingError as error:
        raise type(error)(f"{error}\nFor PSNR and SSIM alone: ldmctl eval-lpips perceptual=null") from None
