"""The second stage: a denoiser fitted to cached latents.

What decides a step's gradient (items, posterior noise, times, noise, dropped
conditions) is drawn for the global batch from (seed, step); each rank and
micro-batch keeps its rows, so neither changes it.
"""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ldmctl import engine as engines
from ldmctl import manifest as manifests
from ldmctl import registry, weights
from ldmctl.codec import Codec, autoencoder_fingerprint, load_autoencoder
from ldmctl.diffusion import draw_times, noised, target, timestep
from ldmctl.engine import Engine, Learner, generator
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.images import grid, to_uint8, write_png
from ldmctl.latents import Latents, Resident, open_latents
from ldmctl.loop import Training
from ldmctl.manifest import Manifest
from ldmctl.network import Network, build_network, describe_network
from ldmctl.room import largest_micro
from ldmctl.run import describe_plugins, open_run, parameter_count
from ldmctl.sampling import sample_latents
from ldmctl.schemas import FitDiffusion
from ldmctl.voice import Voice

VALIDATED = 512  # held-out latents that a validation looks at


class Drawn(NamedTuple):
    """What one step learns from, for the global batch."""

    x: Tensor  # noised latents [B,c,h,w]
    told: Tensor  # timesteps [B]
    goal: Tensor  # [B,c,h,w]
    labels: Tensor  # [B], -1 when unknown
    dropped: Tensor  # bool [B]


def fit_diffusion(config: FitDiffusion, out: str | Path, *, voice: Voice, overwrite: bool = False) -> dict[str, Any]:
    """Fit a denoiser to a cache and leave it in the run folder `out`; the same call goes on where it stopped."""
    # Build the parts.
    engine = engines.start(config.machine)
    engine.share(config.loop.batch)
    cache = Path(config.latents).expanduser()
    manifest = check_cache(config, cache)
    autoencoder, _ = load_autoencoder(cache / "autoencoder.safetensors", engine)
    codec = Codec(autoencoder, engine, manifest.statistics)
    train, val = (open_latents(cache, manifest, split) for split in ("train", "val"))
    described = describe_network(config.denoiser, config.conditioner, latent=manifest.latent, classes=manifest.classes)
    engines.reseed("weights", config.loop.seed, "denoiser")
    network = build_network(described).to(engine.device).train()
    engines.recompute(network, config.loop.checkpointing)
    schedule = registry.build("schedule", config.schedule)
    sampler = registry.build("sampler", config.preview.sampler)
    size = " x ".join(str(side) for side in manifest.latent)
    voice.say(
        f"denoiser {config.denoiser.type}: {parameter_count(network):,} parameters; {len(train):,} latents of {size}, {len(val):,} held out"
    )

    # Restore or start.
    plugins = [("denoiser", config.denoiser), ("schedule", config.schedule), ("conditioner", config.conditioner)]
    run = open_run(out, config, parent=config.latents, plugins=describe_plugins(*plugins), overwrite=overwrite, writes=engine.leads)
    with run:
        check_same_cache(run.record.get("cache"), manifest, run.folder, resumed=run.resumed)
        run.update(cache=manifest.fingerprint)
        if engine.leads:
            shutil.copyfile(cache / "autoencoder.safetensors", run.folder / "autoencoder.safetensors")
        header = {
            "kind": "diffusion",
            **described,
            "schedule": weights.describe("schedule", config.schedule),
            "prediction": config.prediction,
            "latent": list(manifest.latent),
            "statistics": manifest.statistics.model_dump(),
            "classes": manifest.classes,
            "label_counts": manifest.label_counts,
            "image": manifest.image,
            "autoencoder": manifest.autoencoder,
        }
        micro_batch = find_micro(config, described, manifest.latent, engine, voice) if config.loop.micro == "auto" else config.loop.micro
        model = Learner(network, config.loop, engine)
        source = Resident(train, engine) if Resident.fits(train, engine) else train
        tracker = registry.build("tracker", config.tracker, run=run.folder) if config.tracker and engine.leads else None

        with Training(run, engine, config.loop, {"diffusion": model}, header=header, voice=voice, tracker=tracker) as training:
            # One step.
            for step in training:
                items = engines.batch_items(config.loop.seed, len(train), config.loop.batch, step)
                drawn = draw(
                    config, items, source, train.labels, codec, schedule, engine, generator(engine.device, "noise", config.loop.seed, step)
                )
                mine = Drawn(*(part[engine.share(config.loop.batch)] for part in drawn))
                slices = engines.micro_batches(len(mine.x), micro_batch)
                for micro, rows in enumerate(slices):
                    engines.reseed("step", config.loop.seed, step, micro, engine.rank)
                    share, last = (rows.stop - rows.start) / len(mine.x), micro == len(slices) - 1
                    with model.backward_context(last=last):
                        loss = denoising_loss(model.network, Drawn(*(part[rows] for part in mine)), engine)
                        (loss * model.scale * share).backward()
                    training.add({"loss": loss}, share)
                training.update(step, model, items)

                # Report now and then.
                if training.previews(step) and engine.leads:
                    with model.averaged(), torch.no_grad():
                        values = validate(config, network, val, codec, schedule, engine)
                        picture = run.folder / "samples" / f"{step + 1:09d}.png"
                        save_preview(config, network, codec, schedule, sampler, manifest, picture, engine)
                    training.validated(step, values, judged_by="val/loss", picture=picture)

        # Save and say where.
        voice.say(f"The denoiser is in {run.folder / 'model.safetensors'}, samples of fixed seeds in {run.folder / 'samples'}.")
        return {"run": str(run.folder), "model": str(run.folder / "model.safetensors"), "steps": training.done, **training.last_validation}


def find_micro(config: FitDiffusion, described: dict[str, Any], latent: tuple[int, ...], engine: Engine, voice: Voice) -> int:
    """The largest micro-batch that one real step has room for, by a network of its own, which is thrown away."""
    network = build_network(described).to(engine.device).train()
    engines.recompute(network, config.loop.checkpointing)
    model, mine = Learner(network, config.loop, engine), engine.share(config.loop.batch)

    def step(count: int) -> None:
        x, label = torch.zeros(count, *latent, device=engine.device), torch.zeros(count, device=engine.device)
        loss = denoising_loss(model.network, Drawn(x, label, x, label.long(), label > 0), engine)
        (loss * model.scale).backward()
        model.update(0)
        model.track(0)

    found = largest_micro(step, mine.stop - mine.start, engine, memory=config.machine.memory)
    voice.say(f"loop.micro=auto: {found} of {mine.stop - mine.start} latents per forward.")
    return found


def check_cache(config: FitDiffusion, cache: Path) -> Manifest:
    """The manifest of a cache that this config can train on; otherwise a MismatchError or ConfigError."""
    manifest = manifests.read(cache)
    if not manifest.count("train"):
        raise MismatchError(f"{cache} has no training latents.")
    if autoencoder_fingerprint(cache / "autoencoder.safetensors") != manifest.autoencoder["fingerprint"]:
        raise MismatchError(
            f"{cache / 'autoencoder.safetensors'} is not the autoencoder that made the latents beside it. Encode again: ldmctl encode-dataset --overwrite."
        )
    if config.flip and not manifest.flipped:
        raise ConfigError(f"flip=true, but {cache} holds no mirrored variants. Encode them: ldmctl encode-dataset flip=true --overwrite.")
    if config.conditioner is not None and not sum(manifest.label_counts):
        raise ConfigError(f"conditioner={config.conditioner.type} has nothing to listen to: {cache} has no labels. Take conditioner=null.")
    return manifest


def check_same_cache(known: str | None, manifest: Manifest, folder: Path, *, resumed: bool) -> None:
    """A run that began on other latents does not go on with these: MismatchError."""
    if resumed and known is not None and known != manifest.fingerprint:
        raise MismatchError(
            f"The cache has changed since {folder} was begun ({manifest.count('train'):,} training latents now). "
            "Begin anew: --out another folder, or --overwrite."
        )


def draw(
    config: FitDiffusion,
    items: Tensor,
    source: Latents | Resident,
    labels: Tensor,
    codec: Codec,
    schedule: Any,
    engine: Engine,
    random: torch.Generator,
) -> Drawn:
    """Noised latents, times and targets of some items, all randomness from one generator."""
    count = len(items)
    mirrored = torch.rand(count, generator=random, device=engine.device) < 0.5 if config.flip else None
    u = torch.rand(count, generator=random, device=engine.device)
    dropped = torch.rand(count, generator=random, device=engine.device) < config.drop
    moments = source.moments(items, mirrored if mirrored is None else mirrored.cpu())
    clean = codec.whiten(codec.draw(moments.to(engine.device, non_blocking=True), random))
    noise = torch.randn(clean.shape, generator=random, device=engine.device)
    t = draw_times(schedule, u)
    goal = target(config.prediction, schedule, clean, noise, t)
    return Drawn(
        noised(schedule, clean, noise, t), timestep(schedule, t), goal, labels[items].to(engine.device, non_blocking=True), dropped
    )


def denoising_loss(network: Any, drawn: Drawn, engine: Engine) -> Tensor:
    """Mean squared error of the prediction, float32 scalar."""
    with engine.autocast():
        said = network(drawn.x, drawn.told, drawn.labels, drawn.dropped)
    return (said.float() - drawn.goal).square().mean()


def validate(config: FitDiffusion, network: Any, val: Latents, codec: Codec, schedule: Any, engine: Engine) -> dict[str, float]:
    """The loss on held-out latents with noise and times that never change; empty without any."""
    count = min(VALIDATED, len(val))
    total = 0.0
    for first in range(0, count, 64):
        items = torch.arange(first, min(first + 64, count))
        still = config.model_copy(update={"flip": False, "drop": 0.0})
        drawn = draw(still, items, val, val.labels, codec, schedule, engine, generator(engine.device, "validation", first))
        total += float(denoising_loss(network, drawn, engine)) * len(items) / count
    return {"val/loss": total} if count else {}


def save_preview(
    config: FitDiffusion, network: Network, codec: Codec, schedule: Any, sampler: Any, manifest: Manifest, path: Path, engine: Engine
) -> None:
    """A grid of samples whose seeds and labels never change."""
    count = config.preview.count
    labels = [index % len(manifest.classes) for index in range(count)] if config.conditioner is not None else [-1] * count
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
    write_png(path, grid(to_uint8(codec.decode(latent, (size, size)))))
