"""The second stage: a denoiser fitted to cached latents.

What decides a step's gradient (items, posterior noise, times, noise, dropped
conditions) is drawn for the global batch from (seed, step), noise for so many
rows at a time; each rank reads and keeps its rows, so neither the number of
ranks nor the micro-batch changes it.
"""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from ldmctl import registry
from ldmctl.config import network_origins
from ldmctl.config.schemas.fit_diffusion import FitDiffusion
from ldmctl.config.schemas.shared import Coding
from ldmctl.console import Console
from ldmctl.diffusion.carried import carry_encoder
from ldmctl.diffusion.conditions import SLOTS, painter_of
from ldmctl.diffusion.initial import load_initial_network
from ldmctl.diffusion.listening import begun_with, check_slots, conditioners_of, description_of, known_for, listens_to
from ldmctl.diffusion.network import Network, build_network
from ldmctl.diffusion.objective import Drawn, backward, draw, rows_read, validate
from ldmctl.diffusion.preview import check_preview, learns_with_labels, learns_without, learns_without_labels, save_preview
from ldmctl.diffusion.typical import forward_of, item_of
from ldmctl.diffusion.weighting import Uncertainty
from ldmctl.latents.codec import Codec, load_autoencoder
from ldmctl.latents.conditions import Several, on_device
from ldmctl.latents.fit import changes_of_cache, check_cache, of_cache
from ldmctl.latents.manifest import Manifest
from ldmctl.latents.pictured import prepare_maps
from ldmctl.latents.reader import Latents, open_latents
from ldmctl.latents.resident import Resident
from ldmctl.latents.stream import training_latents
from ldmctl.storage import weights
from ldmctl.storage.beginning import note_beginning, origin_file
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
from ldmctl.training.publishing import publish, said
from ldmctl.training.reporting import report_to

PREVIEWED = 4  # pictures of a preview that are decoded together
JUDGED_BY = "val/loss"


def fit_diffusion(
    config: FitDiffusion, out: str | Path, *, console: Console, overwrite: bool = False, accept_data: bool = False
) -> dict[str, Any]:
    """Fit a denoiser to a cache and leave it in the run folder `out`; the same call continues where it stopped.

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
        console.warn(f"Training without torch.compile, which needs {compiling.lacking_to_compile(engine)}, and there is none.")
    autoencoder, _ = load_autoencoder(cache / "autoencoder.safetensors", engine)
    codec = Codec(autoencoder, engine, manifest.statistics, tile=Coding().tile, at_once=PREVIEWED)
    train, val = (open_latents(cache, manifest, split) for split in ("train", "val"))
    check_slots(config)
    check_preview(config, train)
    splits = {"train": train, "val": val}
    maps, drawn = prepare_maps(cache, manifest, splits, engine, console) if config.conditions.map is not None else ({}, None)
    others = conditioners_of(config, manifest, splits, begun_with(config, out, overwrite=overwrite), drawn)
    described = description_of(config, manifest, others)
    order.reseed("weights", config.loop.seed, "denoiser")
    network = new_network(config, described, engine)
    if config.init is not None and (overwrite or not (Path(out).expanduser() / "state.safetensors").exists()):
        for line in load_initial_network(config, network, manifest):
            console.say(line)
    schedule = registry.build("schedule", config.schedule)
    sampler = registry.build("sampler", config.preview.sampler)
    known = known_for(network, cache, manifest, splits, engine, console, maps, out=out)
    console.say(f"listens to {listens_to(config.conditions, manifest, {slot: known['train'].share(slot) for slot in SLOTS}, drawn)}")
    size = " x ".join(str(side) for side in manifest.latent)
    itself = " with self-conditioning" if config.self_conditioning else ""
    console.say(
        f"denoiser {config.denoiser.type}{itself}: {parameter_count(network):,} parameters; {len(train):,} latents of {size}, {len(val):,} held out"
    )

    # Restore or start.
    plugins = [
        ("denoiser", config.denoiser),
        ("schedule", config.schedule),
        *(("conditioner", getattr(config.conditions, slot)) for slot in SLOTS),
    ]
    run = open_run(
        out, config, parent=config.latents, plugins=describe_plugins(*plugins), overwrite=overwrite, writes=engine.leads, say=console.say
    )
    with run:
        mapped = maps["train"].digest() if maps else None
        if run.resumed:
            run.note_changes(changes_of_cache(run.record, manifest, mapped, run.folder, accepted=accept_data))
        note_beginning(run, config.init, origin_file(config.init, network_origins.find))
        run.update(**of_cache(manifest, mapped), first_latents=run.record.get("first_latents", manifest.count("train")))
        if engine.leads:
            with weights.replacing(run.folder / "autoencoder.safetensors") as temporary:
                shutil.copyfile(cache / "autoencoder.safetensors", temporary)
        if config.conditions.embed_text:
            carry_encoder(network, run.folder, engine, console)
        learns = what_it_learns(config, train, known["train"])
        header = header_of(config, described, manifest, learns)
        source = Resident(train, engine) if Resident.fits(train, engine) else train  # before a micro-batch is found for what is left
        micro_batch = (
            find_micro(config, described, manifest.latent, known["train"], engine, console)
            if config.loop.micro == "auto"
            else config.loop.micro
        )
        flops = forward_flops(forward_of(network, manifest.latent, known["train"]))
        flops = training_flops(flops, checkpointing=config.loop.checkpointing, self_conditioning=config.self_conditioning)
        model = Learner(network, config.loop, engine, compiled=compiled, sharded=sharded)
        learners = {"diffusion": model}
        if config.weighting.kind == "learned":
            learners["uncertainty"] = Learner(Uncertainty().to(engine.device), config.loop, engine, averaged=False)
        tracker = report_to(config.tracker, run.folder, console) if engine.leads else None

        with Training(run, engine, config.loop, learners, header=header, console=console, tracker=tracker, flops=flops) as training:
            # One step.
            own, count = engine.share(config.loop.batch), config.loop.batch
            stream = training_latents(
                source,
                config.loop,
                engine,
                rows=rows_read(own, count),
                flip=config.flip,
                first=training.first,
                seen=training.seen,
                several=known["train"],
            )
            for step, batch in zip(training, stream, strict=False):
                key = ("noise", config.loop.seed, step)
                seen = {"known": batch.known, "painter": painter_of(network)}
                mine = draw(config, count, own, batch.stored, batch.labels, codec, schedule, engine, key, **seen)
                slices = order.micro_batches(len(mine.x), micro_batch)
                for micro, rows in enumerate(slices):
                    order.reseed("step", config.loop.seed, step, micro, engine.rank)
                    share, last = (rows.stop - rows.start) / len(mine.x), micro == len(slices) - 1
                    with ExitStack() as stack:
                        for each in learners.values():
                            stack.enter_context(each.backward_context(last=last))
                        training.add(backward(learners, mine.part(rows), share, engine), share)
                for each in learners.values():
                    training.update(step, each, batch.items)

                # Report now and then.
                if training.validates(step) and (engine.leads or sharded):  # a sharded network is gathered from all ranks
                    with training.aside(), model.averaged(), torch.no_grad():
                        values, picture = validate(config, network, val, codec, schedule, engine, known["val"]), None
                        if training.previews(step):
                            picture = run.folder / "samples" / f"{step + 1:09d}.png"
                            save_preview(config, network, codec, schedule, sampler, manifest, picture, engine, val, known["val"])
                    training.validated(step, values, judged_by=JUDGED_BY, watched=[JUDGED_BY], picture=picture)
                    training.say_risen(step)

        # Save and say where.
        published = publish(training, JUDGED_BY)
        console.say(f"The denoiser is in {run.folder / 'model.safetensors'}, samples of fixed seeds in {run.folder / 'samples'}.")
        console.say(f"Its weights are {said(published)}.")
        return {"run": str(run.folder), "model": str(run.folder / "model.safetensors"), "steps": training.done, **training.last_validation}


def what_it_learns(config: FitDiffusion, train: Latents, known: Several) -> dict[str, Any]:
    """What a network can be asked for, as its header says: labels, nothing, and each thing without the others."""
    captions = known.share("text")
    found: dict[str, Any] = {
        "conditional": learns_with_labels(config, train),
        "unconditional": learns_without_labels(config, train, captions),
    }
    if len(heard := config.conditions.slots) > 1:
        found["left_alone"] = {slot: learns_without(config, train, slot, captions) for slot in heard}
    return found


def header_of(config: FitDiffusion, described: dict[str, Any], manifest: Manifest, learns: dict[str, Any]) -> dict[str, Any]:
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
        **learns,
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


def find_micro(
    config: FitDiffusion, described: dict[str, Any], latent: tuple[int, ...], known: Several, engine: Engine, console: Console
) -> int:
    """The largest micro-batch that one real step has room for."""
    share = engine.share(config.loop.batch)
    count = share.stop - share.start
    found = try_micro(config, described, latent, known, engine, count)
    release(engine)
    console.say(f"loop.micro=auto: {found} of {count} latents per forward.")
    return found


def try_micro(config: FitDiffusion, described: dict[str, Any], latent: tuple[int, ...], known: Several, engine: Engine, share: int) -> int:
    """The same for a rank's `share` of the batch, by a network of its own."""
    model = Learner(new_network(config, described, engine), config.loop, engine, sharded=is_sharded(config, engine))

    def step(count: int) -> None:
        others = on_device(known.known(torch.full((count,), item_of(known, 1))), engine.device)
        x, label = torch.zeros(count, *latent, device=engine.device), torch.zeros(count, device=engine.device)
        parts = 2 if model.sharded and count < share else 1  # gradients of all weights wait for the last part
        for part in range(parts):
            with model.backward_context(last=part == parts - 1):
                backward({"diffusion": model}, Drawn(x, label, x, label.long(), label > 0, label + 1, label, others), 1.0, engine)
        model.update(0)
        model.track(0)

    return largest_micro(step, share, engine, memory=config.machine.memory)
