"""How good an autoencoder is and whether that is enough for diffusion; or how far two folders of pictures are apart."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldmctl import registry
from ldmctl.config.differences import flatten
from ldmctl.config.documents import write_override
from ldmctl.config.resolve import plugin_config
from ldmctl.config.schemas.eval_lpips import EvalLpips
from ldmctl.console import Console
from ldmctl.errors import ConfigError, DataError, LdmctlError, MismatchError, MissingError
from ldmctl.evaluation.figures import write_pictures
from ldmctl.evaluation.metrics import Mean
from ldmctl.evaluation.reconstruction import evaluate, measure, title_of
from ldmctl.evaluation.verdict import verdict
from ldmctl.latents.codec import Codec, load_autoencoder
from ldmctl.pictures.album import refuse_foreign
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.images import read
from ldmctl.pictures.introduction import introduce
from ldmctl.pictures.loading import on_device, open_pictures
from ldmctl.pictures.sampled import SUFFIXES
from ldmctl.storage.folder import make_folder
from ldmctl.storage.record import config_of, model_file, told_of
from ldmctl.training import engine as engines
from ldmctl.training.engine import Engine
from ldmctl.training.order import generator

SMALLEST = {"ssim": 11}  # pixels that a measure's window needs


def eval_lpips(config: EvalLpips, *, console: Console, out: str | Path | None = None) -> dict[str, Any]:
    """{"of", "count", "psnr": {"mean", "low", "high"}, ...}; for a run also what `Examination.as_dict` has, and the "verdict".

    With `out`, the pictures of the verdict are written into that folder.
    """
    if config.pairs is not None:
        if out is not None:
            raise ConfigError("--out takes the pictures of a run's verdict; --pairs makes none. Leave one of them out.")
        return compare_pairs(config, console)

    # Build the parts.
    if out is not None:
        refuse_foreign(*(Path(out) / name for name in ("verdict.png", "latents.png")))
    engine = engines.start(config.machine)
    source = model_file(config.run, verb="fit-ae")
    autoencoder, splits = open_run_and_pictures(config, source, engine)
    introduce(splits, console, leads=engine.leads)
    codec, distances = Codec(autoencoder, engine, tile=config.machine.tile), build_distances(config, source, engine, console)

    # Measure.
    found = evaluate(
        codec,
        splits,
        distances,
        engine,
        count=config.count,
        batch=config.batch,
        workers=config.workers,
        losses=losses_of(source),
        console=console,
    )

    # Say it.
    notes, causes = told_of(source)
    found = replace(found, notes=[*notes, *found.notes], causes=causes)
    result = {"of": f"reconstructions by {source} of the {found.split} split", **found.as_dict(), "verdict": verdict(found)}
    if out is not None:
        make_folder(Path(out).expanduser())
        result["pictures"] = [str(path) for path in write_pictures(out, codec, splits, engine)]
        console.say(f"Pictures: {', '.join(result['pictures'])}.")
    return result


def plan_eval_lpips(config: EvalLpips) -> dict[str, Any]:
    """What would be measured, and by what; raises as it would in earnest."""
    engine = Engine(torch.device("cpu"), torch.float32)
    if config.pairs is not None:
        total, of = len(paired_files(*config.pairs)), f"{config.pairs[0]} against {config.pairs[1]}"
        distances = [build_perceptual(config, engine, 3)] if config.perceptual else []
    else:
        source = model_file(config.run, verb="fit-ae")
        split, pictures = next(iter(open_run_and_pictures(config, source, engine)[1].items()))
        total, of = len(pictures), f"reconstructions by {source} of the {split} split"
        distances = build_distances(config, source, engine, Console())
    measures = ", ".join(["psnr", "ssim", *map(title_of, distances)])
    return {"pictures": f"{min(config.count or total, total):,}", "of": of, "measures": measures}


def open_run_and_pictures(config: EvalLpips, source: Path, engine: Engine) -> tuple[Any, dict[str, Pictures]]:
    """(the run's autoencoder, {split: its pictures}); of splits that were not asked for, the first that has pictures."""
    autoencoder, header = load_autoencoder(source, engine)
    if config.image.channels != header["context"]["image_channels"]:
        raise MismatchError(
            f"{source} takes pictures of {header['context']['image_channels']} channels, image.channels={config.image.channels} was asked for."
        )
    for split in [config.split] if config.split else ["val", "train"]:
        pictures = open_pictures(config, split)
        if len(pictures):
            return autoencoder, {split: pictures}
    raise DataError(f"The {config.split} split has no pictures; leave split out." if config.split else "There are no pictures to measure.")


# -- two folders -------------------------------------------------------------


def compare_pairs(config: EvalLpips, console: Console) -> dict[str, Any]:
    """{"of", "count", "psnr": {"mean", "low", "high"}, ...} over pairs of pictures of equal names."""
    engine = engines.start(config.machine)
    first, second = config.pairs  # type: ignore[misc]
    files = paired_files(first, second)[: config.count]
    distances = {title_of(each): each for each in [build_perceptual(config, engine, 3)] if each is not None}
    means: dict[str, Mean] = {}
    with console.bar("measuring", len(files)) as bar, torch.no_grad():
        for done, (made, image) in enumerate(pairs_of_files(files, engine), start=1):
            measures = ["psnr", *(["ssim"] if min(image.shape[-2:]) >= SMALLEST["ssim"] else []), *distances]
            for name, value in measure(made, image, measures, distances, engine).items():
                means.setdefault(name, Mean()).add(value)
            bar.advance(done, amount=done)
    result = {name: dict(zip(("mean", "low", "high"), mean.interval(), strict=True)) for name, mean in means.items()}
    return {"of": f"{first} against {second}", "count": len(files), **result}


def paired_files(one: str, other: str) -> list[tuple[Path, Path]]:
    """Pictures with equal names below two folders; a DataError names what one of them lacks."""
    first, second = Path(one).expanduser(), Path(other).expanduser()
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


# -- distances ---------------------------------------------------------------


def build_distances(config: EvalLpips, source: Path, engine: Engine, console: Console) -> list[Any]:
    """The perceptual distance that is asked for, and the one that the run was trained with where that is another; none with perceptual=null.

    The one that is asked for must be there. The other is left out with a warning if it cannot be had here.
    """
    if config.perceptual is None:
        return []
    trained = trained_with(source)
    asked = build_perceptual(config, engine, config.image.channels, trained)
    if trained is None:
        return [asked]
    try:
        own = plugin_config("perceptual", trained)
        if own == config.perceptual:
            return [asked]
        built = registry.build("perceptual", own, image_channels=config.image.channels).to(engine.device)
    except LdmctlError as error:
        console.warn(f"The run was trained with the perceptual distance {trained['type']}, which is not measured: {error}")
        return [asked]
    if title_of(built) == title_of(asked):  # such as other layers of the same network
        if agree(asked, built, config, engine):
            return [asked]
        built.title = f"{title_of(built)}-trained"
    return [asked, built]


def agree(one: Any, other: Any, config: EvalLpips, engine: Engine) -> bool:
    """Whether two distances say the same of two pictures of noise, as they do when they differ in where their weights lie."""
    shape = (1, config.image.channels, config.image.size, config.image.size)
    pair = [torch.rand(shape, generator=generator("cpu", "agree", index)).to(engine.device) * 2 - 1 for index in range(2)]
    with torch.no_grad():
        return torch.equal(one(*pair), other(*pair))


def config_beside(source: Path) -> dict[str, Any] | None:
    """The config of the run that a file of weights lies in; None without one."""
    folders = (source.parent, source.parent.parent)  # a snapshot lies one deeper
    return next((config_of(folder) for folder in folders if (folder / "config.yaml").exists()), None)


def trained_with(source: Path) -> dict[str, Any] | None:
    """The perceptual slot in the config of the run that a file of weights lies in; None without one, or without its config."""
    slot = (config_beside(source) or {}).get("perceptual")
    return slot if isinstance(slot, dict) and "type" in slot else None


def losses_of(source: Path) -> frozenset[str] | None:
    """Which of the losses perceptual and adversarial that run had, and whether it had `shares`; None without its config."""
    config = config_beside(source)
    slots = {"perceptual": "perceptual", "adversarial": "discriminator"}
    if config is None:
        return None
    shared = (config.get("losses") or {}).get("shares") is not None
    return frozenset([*(loss for loss, slot in slots.items() if config.get(slot)), *(["shares"] if shared else [])])


def build_perceptual(config: EvalLpips, engine: Engine, channels: int, trained: dict[str, Any] | None = None) -> Any:
    """The perceptual distance asked for; without its weights a MissingError that also says how to have the other numbers."""
    if config.perceptual is None:
        return None
    try:
        return registry.build("perceptual", config.perceptual, image_channels=channels).to(engine.device)
    except MissingError as error:
        ways = "For PSNR and SSIM alone: ldmctl eval-lpips perceptual=null"
        if trained is not None and (words := words_for(trained)) != words_for(config.perceptual.model_dump(mode="json")):
            ways += f"\nWith the distance that the run was trained with: ldmctl eval-lpips {words}"
        raise type(error)(f"{error}\n{ways}") from None


def words_for(slot: dict[str, Any]) -> str:
    """What asks for the perceptual distance of a slot: its type, and its keys that are not at their defaults."""
    with suppress(LdmctlError):  # of a plugin that is not here
        config = plugin_config("perceptual", slot)
        fields, dumped = type(config).model_fields, config.model_dump(mode="json")
        slot = {
            key: dumped[key]
            for key in fields
            if key == "type" or getattr(config, key) != fields[key].get_default(call_default_factory=True)
        }
    keys = [write_override(f"perceptual.{path}", value) for path, value in flatten(slot) if path != "type"]
    return " ".join([f"perceptual={slot['type']}", *keys])
