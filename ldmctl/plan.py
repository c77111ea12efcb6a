"""What a command would cost: parameters, latent shape, memory and disk, found by building its networks and one tiny forward.

This file is longer than a page because there is a plan for each verb, and they share what they try out.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ldmctl import registry
from ldmctl.config.schemas.encode_dataset import EncodeDataset
from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.config.schemas.fit_diffusion import FitDiffusion
from ldmctl.config.schemas.sample import Sample
from ldmctl.config.sharing import per_device
from ldmctl.console import Console, duration
from ldmctl.contention import BUSY, Contention
from ldmctl.diffusion.beginning import sides_of
from ldmctl.diffusion.editing import levels_below
from ldmctl.diffusion.foreseen import classes_of, foresee
from ldmctl.diffusion.initial import load_initial_network
from ldmctl.diffusion.listening import begun_with, check_slots, conditioners_of, description_of, listens_to
from ldmctl.diffusion.model import open_model
from ldmctl.diffusion.network import build_network
from ldmctl.diffusion.preview import check_preview
from ldmctl.diffusion.prompts import expect_encoder
from ldmctl.diffusion.shown import paints_by_condition, shown_of
from ldmctl.diffusion.spacing import levels
from ldmctl.diffusion.trace import evaluations_of
from ldmctl.diffusion.typical import forward_of, typical
from ldmctl.diffusion.wanted import wanted
from ldmctl.errors import MissingError
from ldmctl.latents.codec import load_autoencoder
from ldmctl.latents.conditions import Several
from ldmctl.latents.fit import check_cache
from ldmctl.latents.manifest import WIDTHS
from ldmctl.latents.pictured import find_maps
from ldmctl.latents.reader import open_latents
from ldmctl.latents.store import refuse_without_codes, smallest
from ldmctl.losses.adversary import Adversary
from ldmctl.losses.parts import try_perceptual
from ldmctl.losses.rehearsal import rehearsal
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.images import pad_to
from ldmctl.pictures.introduction import datasets, sayings, summary
from ldmctl.pictures.loading import open_pictures
from ldmctl.storage.initial import load_initial
from ldmctl.storage.record import model_file
from ldmctl.training import engine as engines
from ldmctl.training.costs import costs, held_bytes, human, per_forward, saved_bytes
from ldmctl.training.flops import forward_flops, parameter_count, peak_rate, seconds_of, training_flops
from ldmctl.training.fsdp import refuse_single_numbers
from ldmctl.training.learner import Learner
from ldmctl.training.memory import allowance, used

PATIENCE = 1.0  # seconds that a timed step may take; where arithmetic foretells it, at the device's peak, and it takes a few times as long
TIMED = 0.5  # of the room that is left, for what a timed forward keeps: its backward needs more beside it
HOST = engines.Engine(torch.device("cpu"), torch.float32)


def plan_fit_ae(config: FitAE) -> dict[str, Any]:
    """Parameters, latent, steps, memory, disk and time of a fit-ae; what cannot work raises as it would in earnest."""
    engine = engines.start(config.machine)
    per_device(config.loop.batch, config.machine.devices)
    train, val = open_pictures(config, "train"), open_pictures(config, "val")
    autoencoder = registry.build("autoencoder", config.autoencoder, image_channels=config.image.channels)
    if config.init is not None:
        load_initial(config.init, autoencoder, config)  # refuses weights that do not fit
    engines.recompute(autoencoder, config.loop.checkpointing)
    whole, image = (torch.zeros(1, config.image.channels, side, side) for side in (config.image.size, config.image.trained))
    with torch.no_grad():
        latent = autoencoder.draw(autoencoder.encode(pad_to(whole, autoencoder.factor))).shape[1:]
    count = averaged = parameter_count(autoencoder)
    activations = saved_bytes(autoencoder, lambda: autoencoder(pad_to(image, autoencoder.factor)).image)
    out = planned_pictures({"train": train, "val": val}) | {
        "autoencoder": f"{count:,} parameters, factor {autoencoder.factor}",
        "latent": " x ".join(str(side) for side in latent),
    }
    if config.discriminator is not None:
        discriminator = registry.build("discriminator", config.discriminator, image_channels=config.image.channels)
        adversary = Adversary(config.adversarial, config.loop.steps)  # refuses what can never be
        begins = "when the losses level off" if config.adversarial.start == "auto" else f"from step {int(adversary.begun):,}"
        critics = parameter_count(discriminator)
        activations += 3 * saved_bytes(discriminator, lambda: discriminator(image)[0])
        count += critics
        out["discriminator"] = f"{critics:,} parameters, {begins}"
    perceptual = None
    if config.perceptual is not None:
        perceptual = planned_perceptual(config, learns=averaged > 0)
        missing = "WITHOUT: its weights cannot be had, and losses.perceptual_missing is skip"
        out["perceptual"] = missing if perceptual is None else f"{config.perceptual.type}, its weights are there"
    if perceptual is not None and averaged:
        made = image.clone().requires_grad_()
        activations += saved_bytes(perceptual, lambda: perceptual(made, image))
        perceptual = perceptual.to(engine.device)
    out |= costs(config.loop, config.machine.devices, count, activations, len(train), len(val), averaged=averaged)
    if averaged:
        contention = Contention()
        spent = time_of_fit_ae(config, perceptual, engine, held_bytes(config.loop, count, averaged=averaged), activations)
        out["time"] = spent + while_busy(contention)
    return out


def planned_perceptual(config: FitAE, *, learns: bool) -> Any:
    """The perceptual loss on the CPU, None where the run would go without; raises where its absence, or pictures too small for it where
    an autoencoder `learns` by it, would stop the run."""
    try:
        perceptual = registry.build("perceptual", config.perceptual, image_channels=config.image.channels)
    except MissingError:
        if config.losses.perceptual_missing == "error":
            raise
        return None
    if learns:
        try_perceptual(perceptual, config, HOST)
    return perceptual


def time_of_fit_ae(config: FitAE, perceptual: Any, engine: engines.Engine, held: int, activations: int) -> str:
    """How long it would take, by whole steps that are timed, first of one picture, then of as many as take a second."""
    limit = config.machine.memory if config.loop.micro == "auto" else None
    left = allowance(engine, limit) - used(engine) - held
    if not timed_count(1, 1, left, activations):
        return "not measured: there seems to be no room for a step of one picture on this device"
    most, side, devices = per_forward(config.loop, config.machine.devices), config.image.trained, config.machine.devices
    pictures = torch.randint(256, (most, config.image.channels, side, side), dtype=torch.uint8)

    def rate(config: FitAE) -> tuple[float, int]:
        step = rehearsal(config, perceptual, engine)
        count = timed_count(most, PATIENCE / seconds_of(lambda: step(pictures[:1]), engine), left, activations)
        return devices * count / seconds_of(lambda: step(pictures[:count]), engine), count

    alone, count = rate(config.model_copy(update={"discriminator": None}))
    if config.discriminator is None:
        return f"about {duration(config.loop.steps * config.loop.batch / alone)} in all: {alone:,.3g} pictures/s, by a step of {count}"
    together, count = rate(config)
    first = Adversary(config.adversarial, config.loop.steps).latest
    spent = config.loop.batch * (first / alone + (config.loop.steps - first) / together)
    return f"about {duration(spent)} in all: {alone:,.3g} pictures/s, {together:,.3g} with the discriminator, by a step of {count}"


def planned_pictures(splits: dict[str, Pictures]) -> dict[str, Any]:
    """How many pictures a data set has and what is known of them; what it left out is a warning."""
    opened = datasets(splits)
    for warning in sayings(opened, "warnings"):
        Console(quiet=True).warn(warning)
    return {"data": " ".join([*sayings(opened, "remarks"), summary(opened)])}


def plan_encode_dataset(config: EncodeDataset) -> dict[str, Any]:
    """Items, shape and disk of a cache."""
    autoencoder, _ = load_autoencoder(model_file(config.run, verb="fit-ae"), HOST)
    refuse_without_codes(config, autoencoder)
    splits = {split: open_pictures(config, split) for split in ("train", "val")}
    counts = {split: len(pictures) for split, pictures in splits.items()}
    image = torch.zeros(1, config.image.channels, config.image.size, config.image.size)
    with torch.no_grad():
        stored = autoencoder.encode(pad_to(image, autoencoder.factor))
        stored = stored if config.store == "moments" else autoencoder.codes(stored)
    dtype = smallest(autoencoder.code_count) if config.store == "codes" else "float32" if config.dtype == "float32" else "float16"
    size = sum(counts.values()) * stored[0].numel() * WIDTHS[dtype] * (2 if config.flip else 1)
    return planned_pictures(splits) | {
        "pictures": f"{counts['train']:,} + {counts['val']:,}",
        config.store: " x ".join(str(side) for side in stored.shape[1:]),
        "disk": human(size),
    }


def plan_fit_diffusion(config: FitDiffusion) -> dict[str, Any]:
    """Parameters, arithmetic, steps, memory, disk and time of a fit-diffusion; no time where this device may have no room for a step.

    What cannot work raises as it would in earnest.
    """
    engine, devices = engines.start(config.machine), config.machine.devices
    per_device(config.loop.batch, devices)
    manifest = check_cache(config, cache := Path(config.latents).expanduser())
    check_slots(config)
    splits = {split: open_latents(cache, manifest, split) for split in ("train", "val")}
    check_preview(config, splits["train"])
    levels(registry.build("schedule", config.schedule), config.preview.steps)  # a schedule that cannot be sampled is refused
    maps = find_maps(cache, manifest, splits) if config.conditions.map is not None else None
    drawn = None if maps is None else classes_of(maps)
    others = conditioners_of(config, manifest, splits, begun_with(config), drawn)
    network = build_network(description_of(config, manifest, others))
    if config.init is not None:
        load_initial_network(config, network, manifest)  # refuses a network that does not fit
    engines.recompute(network, config.loop.checkpointing)
    foreseen = foresee(network, cache, manifest, splits, maps, drawn["channels"] if drawn else 1)
    forward = forward_of(network, manifest.latent, foreseen.known)
    activations, flops = saved_bytes(network, forward), forward_flops(forward)
    if config.machine.parallel == "fsdp":
        refuse_single_numbers(network)
    train, sharing, count = manifest.count("train"), devices if config.machine.parallel == "fsdp" else 1, parameter_count(network)
    out = {
        "network": f"{count:,} parameters, {flops / 1e9:.3g} GFLOP per latent and forward",
        "latent": " x ".join(str(side) for side in manifest.latent),
        "listens": f"to {listens_to(config.conditions, manifest, foreseen.shares, drawn)}",
        **foreseen.said,
        **costs(config.loop, devices, count, activations, train, manifest.count("val"), averaged=count, share=sharing),
    }
    if sharing > 1:
        return out
    peak, plain = peak_rate(engine), training_flops(flops, checkpointing=config.loop.checkpointing)
    arithmetic = training_flops(flops, checkpointing=config.loop.checkpointing, self_conditioning=config.self_conditioning)
    limit = config.machine.memory if config.loop.micro == "auto" else None
    left = allowance(engine, limit) - used(engine) - held_bytes(config.loop, count, averaged=count)
    timed = timed_count(per_forward(config.loop, devices), PATIENCE * peak / max(arithmetic, 1), left, activations)
    if not timed:
        return out | {"time": "not measured: there seems to be no room for a step of one latent on this device"}
    contention = Contention()
    rate = training_rate(network.to(engine.device), config, manifest.latent, timed, engine, foreseen.known) * plain / max(arithmetic, 1)
    out["time"] = (
        f"about {duration(train / rate)} per epoch, {duration(config.loop.steps * config.loop.batch / rate)} in all: {rate:,.3g} latents/s, "
        f"{rate / devices * arithmetic / peak:.0%} of this device's peak, by one step of {timed} without compiling{while_busy(contention)}"
    )
    return out


def while_busy(contention: Contention) -> str:
    """A clause behind a time that was measured while others kept the processors busy, else nothing."""
    share = contention.share()
    if share is None or share < BUSY:
        return ""
    return f". Other processes used {share:.0%} of the processors while this was measured: on a quiet machine it is less"


def timed_count(wanted: int, affordable: float, left: float, activations: int) -> int:
    """How many of the `wanted` latents a timed step takes: as many as are `affordable` in time, one at least, and as have room in
    the bytes that are `left`, which may be none."""
    return min(wanted, max(1, int(affordable)), max(0, int(TIMED * left / max(activations, 1))))


def training_rate(
    network: nn.Module, config: FitDiffusion, latent: tuple[int, ...], count: int, engine: engines.Engine, known: Several
) -> float:
    """Latents per second over all devices, by a step of `count` latents that is timed; their captions are longer than most."""
    model = Learner(network.train(), config.loop, engine)
    x, given = torch.randn(count, *latent, device=engine.device), typical(known, count, engine.device)

    def step() -> None:
        with engine.autocast():
            said = network(x, x.new_zeros(count), given)
        (said.float().square().mean() * model.scale).backward()
        model.update(0)
        model.track(0)

    return config.machine.devices * count / seconds_of(step, engine)


def plan_sample(config: Sample) -> dict[str, Any]:
    """How much work samples are; what the command would refuse raises as it would there."""
    model = open_model(config.run, HOST, tile=config.machine.tile, ae=config.ae)  # refuses a decoder that does not fit
    network, header = model.network, model.header_for(config)  # refuses words and classes that were learned for another model
    asked, sides = wanted(config, header), sides_of(config, header)  # refuses labels and guidance that this model does not know
    expect_encoder(config, network, header)
    model.settings(config)  # refuses pictures, masks, maps, guides and weaker models that cannot be read or do not fit
    shown_of(config, model, [asked.seeds[0]], sides)  # refuses a map of classes that this model does not know
    levels_below(model.schedule, config.steps, config.spacing, config.level)  # refuses steps and levels that this schedule does not have
    count, each = len(asked), evaluations_of(config, registry.build("sampler", config.sampler))
    both = 1 if config.guidance in (0, 1) else 2
    paints = (config.mask or config.outpaint) and config.painting.method == "pigdm" and not paints_by_condition(config, network)
    backwards = bool(config.guide) + bool(paints)
    height, width = sides
    return {
        "network": f"{sum(p.numel() for p in network.parameters()):,} parameters",
        "pictures": f"{count} of {width} x {height}",
        "forwards": "as many as the pictures need" if each is None else f"{count * each * both:,}",
        **({"backwards": f"{count * each * backwards:,}"} if backwards and each else {}),
    }
