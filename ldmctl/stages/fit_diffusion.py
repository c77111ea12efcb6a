"""The second stage: a denoiser fitted to cached latents.

What decides a step's gradient (items, posterior noise, times, noise, dropped
conditions) is drawn for the global batch from (seed, step), noise for so many
rows at a time; each rank reads and keeps its rows, so neither the number of
ranks nor the micro-batch changes it.
"""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ldmctl import registry
from ldmctl.config.schemas.fit_diffusion import FitDiffusion
from ldmctl.config.schemas.shared import Coding
from ldmctl.console import Voice
from ldmctl.diffusion.network import Network, build_network, describe_network
from ldmctl.diffusion.process import draw_times, noised, target, timestep
from ldmctl.diffusion.sampling import sample_latents, trained_classes
from ldmctl.diffusion.spacing import levels
from ldmctl.diffusion.weighting import Uncertainty, binned, log_level, loss_weight, positions, validation_times, with_uncertainty
from ldmctl.errors import ConfigError
from ldmctl.latents.codec import Codec, load_autoencoder
from ldmctl.latents.fit import check_cache, check_same_cache, of_cache
from ldmctl.latents.manifest import Manifest
from ldmctl.latents.reader import Latents, evenly, open_latents
from ldmctl.latents.resident import Resident
from ldmctl.latents.stream import training_latents
from ldmctl.pictures.images import to_uint8
from ldmctl.pictures.png import grid, write_png
from ldmctl.storage import weights
from ldmctl.storage.record import describe_plugins
from ldmctl.storage.run import open_run
from ldmctl.training import compiling, order
from ldmctl.training import engine as engines
from ldmctl.training.engine import Engine
from ldmctl.training.flops import forward_flops, parameter_count, training_flops
from ldmctl.training.fsdp import refuse_single_numbers
from ldmctl.training.learner import Learner
from ldmctl.training.loop import Training
from ldmctl.training.memory import largest_micro, release
from ldmctl.training.order import generator

VALIDATED = 512  # held-out latents that a validation looks at
PREVIEWED = 4  # pictures of a preview that are decoded together
CHUNK = 64  # rows of the global batch whose noise is drawn together, whichever rank keeps them


class Drawn(NamedTuple):
    """What one step learns from, of one rank or micro-batch."""

    x: Tensor  # noised latents [B,c,h,w]
    told: Tensor  # timesteps [B]
    goal: Tensor  # [B,c,h,w]
    labels: Tensor  # [B], -1 when unknown
    dropped: Tensor  # bool [B]
    weight: Tensor  # of each loss [B]
    level: Tensor  # ln(sigma / alpha) [B]


def fit_diffusion(
    config: FitDiffusion, out: str | Path, *, voice: Voice, overwrite: bool = False, accept_data: bool = False
) -> dict[str, Any]:
    """Fit a denoiser to a cache and leave it in the run folder `out`; the same call goes on where it stopped.

    A cache whose items have changed since is a MismatchError, unless `accept_data`.
    """
    # Build the parts.
    engine = engines.start(config.machine)
    engine.share(config.loop.batch)
    cache = Path(config.latents).expanduser()
    manifest = check_cache(config, cache)
    sharded = is_sharded(config, engine)
    compiled = not sharded and compiling.compiles(config.machine.compile, engine)
    if config.machine.compile == "auto" and engine.device.type == "cuda" and not sharded and not compiled:
        voice.warn(f"Training without torch.compile, which needs {compiling.lacking_to_compile(engine)}, and there is none.")
    autoencoder, _ = load_autoencoder(cache / "autoencoder.safetensors", engine)
    codec = Codec(autoencoder, engine, manifest.statistics, tile=Coding().tile, at_once=PREVIEWED)
    train, val = (open_latents(cache, manifest, split) for split in ("train", "val"))
    check_preview(config, train)
    described = describe_network(config.denoiser, config.conditioner, latent=manifest.latent, classes=manifest.classes)
    order.reseed("weights", config.loop.seed, "denoiser")
    network = new_network(config, described, engine)
    schedule = registry.build("schedule", config.schedule)
    sampler = registry.build("sampler", config.preview.sampler)
    levels(schedule, config.preview.steps)  # more steps than the schedule has are refused now
    size = " x ".join(str(side) for side in manifest.latent)
    voice.say(
        f"denoiser {config.denoiser.type}: {parameter_count(network):,} parameters; {len(train):,} latents of {size}, {len(val):,} held out"
    )

    # Restore or start.
    plugins = [("denoiser", config.denoiser), ("schedule", config.schedule), ("conditioner", config.conditioner)]
    run = open_run(out, config, parent=config.latents, plugins=describe_plugins(*plugins), overwrite=overwrite, writes=engine.leads)
    with run:
        if run.resumed:
            check_same_cache(run.record, manifest, run.folder, accepted=accept_data)
        run.update(**of_cache(manifest), first_latents=run.record.get("first_latents", manifest.count("train")))
        if engine.leads:
            with weights.replacing(run.folder / "autoencoder.safetensors") as temporary:
                shutil.copyfile(cache / "autoencoder.safetensors", temporary)
        header = header_of(config, described, manifest, unconditional=learns_without_labels(config, train))
        source = (
            Resident(train, engine) if Resident.fits(train, engine) else train
        )  # before a micro-batch is found for the room that is left
        micro_batch = find_micro(config, described, manifest.latent, engine, voice) if config.loop.micro == "auto" else config.loop.micro
        flops = training_flops(flops_of(network, manifest.latent), checkpointing=config.loop.checkpointing)
        model = Learner(network, config.loop, engine, compiled=compiled, sharded=sharded)
        learners = {"diffusion": model}
        if config.weighting.kind == "learned":
            learners["uncertainty"] = Learner(Uncertainty().to(engine.device), config.loop, engine, averaged=False)
        tracker = registry.build("tracker", config.tracker, run=run.folder) if config.tracker and engine.leads else None

        with Training(run, engine, config.loop, learners, header=header, voice=voice, tracker=tracker, flops=flops) as training:
            # One step.
            own, count = engine.share(config.loop.batch), config.loop.batch
            stream = training_latents(source, config.loop, engine, rows=rows_read(own, count), flip=config.flip, first=training.first)
            for step, batch in zip(training, stream, strict=False):
                key = ("noise", config.loop.seed, step)
                mine = draw(config, count, own, batch.stored, batch.labels, codec, schedule, engine, key)
                slices = order.micro_batches(len(mine.x), micro_batch)
                for micro, rows in enumerate(slices):
                    order.reseed("step", config.loop.seed, step, micro, engine.rank)
                    share, last = (rows.stop - rows.start) / len(mine.x), micro == len(slices) - 1
                    with ExitStack() as stack:
                        for each in learners.values():
                            stack.enter_context(each.backward_context(last=last))
                        training.add(backward(learners, Drawn(*(part[rows] for part in mine)), share, engine), share)
                for each in learners.values():
                    training.update(step, each, batch.items)

                # Report now and then.
                if training.previews(step) and (engine.leads or sharded):  # a sharded network is gathered from all ranks
                    with training.aside(), model.averaged(), torch.no_grad():
                        values = validate(config, network, val, codec, schedule, engine)
                        picture = run.folder / "samples" / f"{step + 1:09d}.png"
                        save_preview(config, network, codec, schedule, sampler, manifest, picture, engine)
                    training.validated(step, values, judged_by="val/loss", picture=picture)

        # Save and say where.
        voice.say(f"The denoiser is in {run.folder / 'model.safetensors'}, samples of fixed seeds in {run.folder / 'samples'}.")
        return {"run": str(run.folder), "model": str(run.folder / "model.safetensors"), "steps": training.done, **training.last_validation}


def header_of(config: FitDiffusion, described: dict[str, Any], manifest: Manifest, *, unconditional: bool) -> dict[str, Any]:
    """What a model's file says of itself, so that it can be rebuilt and sampled from alone."""
    return {
        "kind": "diffusion",
        **described,
        "schedule": weights.describe("schedule", config.schedule),
        "prediction": config.prediction,
        "latent": list(manifest.latent),
        "statistics": manifest.statistics.model_dump(),
        "classes": manifest.classes,
        "label_counts": manifest.label_counts,
        "unconditional": unconditional,
        "image": manifest.image,
        "autoencoder": manifest.autoencoder,
    }


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


def find_micro(config: FitDiffusion, described: dict[str, Any], latent: tuple[int, ...], engine: Engine, voice: Voice) -> int:
    """The largest micro-batch that one real step has room for."""
    share = engine.share(config.loop.batch)
    count = share.stop - share.start
    found = try_micro(config, described, latent, engine, count)
    release(engine)
    voice.say(f"loop.micro=auto: {found} of {count} latents per forward.")
    return found


def try_micro(config: FitDiffusion, described: dict[str, Any], latent: tuple[int, ...], engine: Engine, share: int) -> int:
    """The same for a rank's `share` of the batch, by a network of its own."""
    model = Learner(new_network(config, described, engine), config.loop, engine, sharded=is_sharded(config, engine))

    def step(count: int) -> None:
        x, label = torch.zeros(count, *latent, device=engine.device), torch.zeros(count, device=engine.device)
        parts = 2 if model.sharded and count < share else 1  # gradients of all weights wait for the last part
        for part in range(parts):
            with model.backward_context(last=part == parts - 1):
                backward({"diffusion": model}, Drawn(x, label, x, label.long(), label > 0, label + 1, label), 1.0, engine)
        model.update(0)
        model.track(0)

    return largest_micro(step, share, engine, memory=config.machine.memory)


def rows_read(rows: slice, count: int) -> slice:
    """The rows that a rank reads of a batch: its own, to whole chunks."""
    return slice(rows.start // CHUNK * CHUNK, min(-(-rows.stop // CHUNK) * CHUNK, count))


def draw(
    config: FitDiffusion,
    count: int,
    rows: slice,
    stored: Tensor,
    labels: Tensor,
    codec: Codec,
    schedule: Any,
    engine: Engine,
    key: Sequence[object],
    *,
    times: Tensor | None = None,
) -> Drawn:
    """Noised latents, times and targets of those `rows` of a batch of `count` items; what is `stored` of them and their `labels` were read for `rows_read`.

    `key` decides all that is random in the whole batch, but for `times` [count] when they are given.
    """
    device, read = engine.device, rows_read(rows, count)
    random = generator(device, *key)
    t = draw_times(schedule, positions(config.times, count, random, device)) if times is None else on(times, device)
    dropped = torch.rand(count, generator=random, device=device) < config.drop
    clean, noise = [], []
    for start in range(read.start, read.stop, CHUNK):
        random = generator(device, *key, start)
        clean.append(codec.draw(stored[start - read.start : start - read.start + CHUNK], random))
        noise.append(torch.randn(clean[-1].shape, generator=random, device=device))
    mine = slice(rows.start - read.start, rows.stop - read.start)
    x, e, t = codec.whiten(torch.cat(clean)[mine]), torch.cat(noise)[mine], t[rows]
    return Drawn(
        noised(schedule, x, e, t),
        timestep(schedule, t),
        target(config.prediction, schedule, x, e, t),
        labels[mine],
        dropped[rows],
        loss_weight(config.weighting, config.prediction, schedule, t),
        log_level(schedule, t),
    )


def learns_without_labels(config: FitDiffusion, train: Latents) -> bool:
    """Whether the network also learns from items without their label, as guidance wants it."""
    return config.conditioner is None or config.drop > 0 or bool((train.labels < 0).any())


def check_preview(config: FitDiffusion, train: Latents) -> None:
    """A ConfigError if previews need "no class" and the network never learns what that is."""
    if config.preview.guidance != 1 and not learns_without_labels(config, train):
        raise ConfigError(
            f"preview.guidance={config.preview.guidance:g} needs a network that also learns without labels; with drop=0 this one never does, "
            "since every item has its label. Take drop=0.1, or preview.guidance=1."
        )


def on(times: Tensor, device: torch.device) -> Tensor:
    """Times on a device, float64 where it has that."""
    return times.to(device, torch.float32 if device.type == "mps" else times.dtype)


def flops_of(network: Network, latent: tuple[int, ...]) -> int:
    """Floating-point operations of one latent's forward, where the network is."""
    device = next(network.parameters()).device
    one = torch.zeros(1, *latent, device=device)
    return forward_flops(lambda: network(one, one.new_zeros(1), torch.zeros(1, dtype=torch.long, device=device)))


def denoising_losses(network: Any, drawn: Drawn, engine: Engine) -> Tensor:
    """Mean squared error of the prediction of each item, float32 [B]."""
    with engine.autocast():
        said = network(drawn.x, drawn.told, drawn.labels, drawn.dropped)
    return (said.float() - drawn.goal).square().flatten(1).mean(1)


def backward(learners: Mapping[str, Learner], drawn: Drawn, share: float, engine: Engine) -> dict[str, Tensor]:
    """Add the gradients of a micro-batch, `share` of this rank's batch -> its losses: as they are, and as they count."""
    model, uncertainty = learners["diffusion"], learners.get("uncertainty")
    losses = denoising_losses(model.network, drawn, engine)
    if uncertainty is None:
        counted = losses * drawn.weight
        total = counted.mean() * model.scale
    else:
        counted, own = with_uncertainty(losses, uncertainty.network(drawn.level))
        total = counted.mean() * model.scale + own.mean() * uncertainty.scale
    (total * share).backward()
    return {"loss": losses.mean(), "loss_weighted": counted.mean()}


def validate(config: FitDiffusion, network: Any, val: Latents, codec: Codec, schedule: Any, engine: Engine) -> dict[str, float]:
    """The unweighted loss on held-out latents, evenly over the split, in all and by noise level; empty without any.

    Which latents, their noise and their times never change.
    """
    rows = evenly(len(val), VALIDATED)
    count = len(rows)
    if not count:
        return {}
    still = config.model_copy(update={"drop": 0.0})
    times, losses, levels = validation_times(schedule, count), [], []
    for first in range(0, count, CHUNK):
        items = rows[first : first + CHUNK]
        stored, labels = val.stored(items).to(engine.device), val.labels[items].to(engine.device)
        key, here = ("validation", first), times[first : first + CHUNK]
        drawn = draw(still, len(items), slice(0, len(items)), stored, labels, codec, schedule, engine, key, times=here)
        losses.append(denoising_losses(network, drawn, engine))
        levels.append(drawn.level)
    return {"val/loss": float(torch.cat(losses).mean()), **binned(torch.cat(losses), torch.cat(levels))}


def save_preview(
    config: FitDiffusion, network: Network, codec: Codec, schedule: Any, sampler: Any, manifest: Manifest, path: Path, engine: Engine
) -> None:
    """A grid of samples whose seeds and labels never change, written by the first rank."""
    count = config.preview.count
    classes = trained_classes(manifest.label_counts) if config.conditioner is not None else [-1]
    labels = [classes[index % len(classes)] for index in range(count)]
    latent = sample_latents(
        network,
        schedule,
        sampler,
        engine,
        prediction=config.prediction,
        shape=manifest.latent,
        seeds=range(count),
        labels=labels,
        guidance=config.preview.guidance if config.conditioner is not None else 1.0,
        steps=config.preview.steps,
        batch=count,
    )
    size = int(manifest.image["size"])
    if engine.leads:
        write_png(path, grid(to_uint8(codec.decode(latent, (size, size)))))
