"""The second stage: a denoiser fitted to cached latents.

What decides a step's gradient (items, posterior noise, times, noise, dropped
conditions) is drawn for the global batch from (seed, step), noise for so many
rows at a time; each rank reads and keeps its rows, so neither the number of
ranks nor the micro-batch changes it.
"""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

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
from ldmctl.diffusion.network import Network
from ldmctl.diffusion.objective import backward, draw, rows_read, validate
from ldmctl.diffusion.placing import find_micro, is_compiled, is_sharded, new_network
from ldmctl.diffusion.preview import check_preview, learns_with_labels, learns_without, learns_without_labels, previewed_split, save_preview
from ldmctl.diffusion.spacing import levels
from ldmctl.diffusion.typical import forward_of
from ldmctl.diffusion.weighting import Uncertainty
from ldmctl.latents.codec import Codec, load_autoencoder
from ldmctl.latents.conditions import Several
from ldmctl.latents.fit import changes_of_cache, check_cache, of_cache
from ldmctl.latents.manifest import Manifest
from ldmctl.latents.pictured import prepare_maps
from ldmctl.latents.reader import Latents, open_latents
from ldmctl.latents.resident import Resident
from ldmctl.latents.stream import training_latents
from ldmctl.storage import weights
from ldmctl.storage.beginning import note_beginning, origin_file
from ldmctl.storage.record import describe_plugins
from ldmctl.storage.run import Run, open_run
from ldmctl.training import engine as engines
from ldmctl.training import order
from ldmctl.training.engine import Engine
from ldmctl.training.flops import forward_flops, parameter_count, training_flops
from ldmctl.training.learner import Learner
from ldmctl.training.loop import Training
from ldmctl.training.publishing import publish, said
from ldmctl.training.reporting import report_to
from ldmctl.training.watch import say_unwatched

PREVIEWED = 4  # pictures of a preview that are decoded together
JUDGED_BY = "val/loss"


class Parts(NamedTuple):
    """What is trained, and on what, before there is a run folder."""

    manifest: Manifest
    latents: dict[str, Latents]  # of each split
    maps: dict[str, Any]  # of each split, where the network listens to maps
    known: dict[str, Several]  # of each split, what is known beside the latents
    codec: Codec
    described: dict[str, Any]  # the network, as a header has it
    network: Network
    schedule: Any
    sampler: Any  # of previews

    @property
    def mapped(self) -> str | None:
        """The digest of the training maps."""
        return self.maps["train"].digest() if self.maps else None

    @property
    def previewed(self) -> str:
        """The split whose items previews are made of."""
        return previewed_split({split: len(each) for split, each in self.latents.items()}, self.known)


def fit_diffusion(
    config: FitDiffusion, out: str | Path, *, console: Console, overwrite: bool = False, accept_data: bool = False
) -> dict[str, Any]:
    """Fit a denoiser to a cache and leave it in the run folder `out`; the same call continues where it stopped.

    A cache whose items have changed since is a MismatchError, unless `accept_data`.
    """
    engine = engines.start(config.machine)
    own, count = engine.share(config.loop.batch), config.loop.batch
    compiled = is_compiled(config, engine, console)
    parts = build_parts(config, out, engine, console, overwrite=overwrite)
    run = open_run(
        out, config, parent=config.latents, plugins=plugins_of(config), overwrite=overwrite, writes=engine.leads, say=console.say
    )
    with run:
        begin(run, config, parts, engine, console, accept_data=accept_data)
        train, known = parts.latents["train"], parts.known["train"]
        source = Resident(train, engine) if Resident.fits(train, engine) else train  # before a micro-batch is found for what is left
        micro_batch = config.loop.micro
        if micro_batch == "auto":
            micro_batch = find_micro(config, parts.described, parts.manifest.latent, known, engine, console)
        flops = training_flops(
            forward_flops(forward_of(parts.network, parts.manifest.latent, known)),
            checkpointing=config.loop.checkpointing,
            self_conditioning=config.self_conditioning,
        )
        learners = learners_of(config, parts.network, engine, compiled=compiled)
        header = header_of(config, parts.described, parts.manifest, what_it_learns(config, train, known))
        tracker = report_to(config.tracker, run.folder, console) if engine.leads else None

        with Training(run, engine, config.loop, learners, header=header, console=console, tracker=tracker, flops=flops) as training:
            rows = rows_read(own, count)
            stream = training_latents(
                source, config.loop, engine, rows=rows, flip=config.flip, first=training.first, seen=training.seen, several=known
            )
            for step, batch in zip(training, stream, strict=False):
                key = ("noise", config.loop.seed, step)
                seen = {"known": batch.known, "painter": painter_of(parts.network)}
                mine = draw(config, count, own, batch.stored, batch.labels, parts.codec, parts.schedule, engine, key, **seen)
                slices = order.micro_batches(len(mine.x), micro_batch)
                for micro, part in enumerate(slices):
                    order.reseed("step", config.loop.seed, step, micro, engine.rank)
                    share, last = (part.stop - part.start) / len(mine.x), micro == len(slices) - 1
                    with ExitStack() as stack:
                        for each in learners.values():
                            stack.enter_context(each.backward_context(last=last))
                        training.add(backward(learners, mine.part(part), share, engine), share)
                for each in learners.values():
                    training.update(step, each, batch.items)
                if training.validates(step) and (engine.leads or training.model.sharded):  # a sharded network is gathered from all ranks
                    validate_and_preview(training, step, config, parts, engine)

        published = publish(training, JUDGED_BY)
        console.say(f"The denoiser is in {run.folder / 'model.safetensors'}, samples of fixed seeds in {run.folder / 'samples'}.")
        console.say(f"Its weights are {said(published)}.")
        return {"run": str(run.folder), "model": str(run.folder / "model.safetensors"), "steps": training.done, **training.last_validation}


def build_parts(config: FitDiffusion, out: str | Path, engine: Engine, console: Console, *, overwrite: bool) -> Parts:
    """Open the cache, check that the config fits it, and build what is trained on it; what it is, is said."""
    cache = Path(config.latents).expanduser()
    manifest = check_cache(config, cache)
    autoencoder, _ = load_autoencoder(cache / "autoencoder.safetensors", engine)
    codec = Codec(autoencoder, engine, manifest.statistics, tile=Coding().tile, at_once=PREVIEWED)
    latents = {split: open_latents(cache, manifest, split) for split in ("train", "val")}
    check_slots(config)
    check_preview(config, latents["train"])
    maps, drawn = prepare_maps(cache, manifest, latents, engine, console) if config.conditions.map is not None else ({}, None)
    others = conditioners_of(config, manifest, latents, begun_with(config, out, overwrite=overwrite), drawn)
    described = description_of(config, manifest, others)
    order.reseed("weights", config.loop.seed, "denoiser")
    network = new_network(config, described, engine)
    if config.init is not None and (overwrite or not (Path(out).expanduser() / "state.safetensors").exists()):
        for line in load_initial_network(config, network, manifest):
            console.say(line)
    schedule, sampler = registry.build("schedule", config.schedule), registry.build("sampler", config.preview.sampler)
    levels(schedule, config.preview.steps)  # a schedule that cannot be sampled is refused now
    known = known_for(network, cache, manifest, latents, engine, console, maps, out=out)
    console.say(f"listens to {listens_to(config.conditions, manifest, {slot: known['train'].share(slot) for slot in SLOTS}, drawn)}")
    size = " x ".join(str(side) for side in manifest.latent)
    itself = " with self-conditioning" if config.self_conditioning else ""
    counted = f"{len(latents['train']):,} latents of {size}, {len(latents['val']):,} held out"
    console.say(f"denoiser {config.denoiser.type}{itself}: {parameter_count(network):,} parameters; {counted}")
    say_unwatched(config.loop, len(latents["val"]), console)
    parts = Parts(manifest, latents, maps, known, codec, described, network, schedule, sampler)
    if known["train"].sources and parts.previewed == "train":
        console.say("Previews show training items beside their samples, since no held-out item has what is listened to.")
    return parts


def begin(run: Run, config: FitDiffusion, parts: Parts, engine: Engine, console: Console, *, accept_data: bool) -> None:
    """Write down what the run learns from and how it began, and keep what a model needs beside itself."""
    if run.resumed:
        run.note_changes(changes_of_cache(run.record, parts.manifest, parts.mapped, run.folder, accepted=accept_data))
    note_beginning(run, config.init, origin_file(config.init, network_origins.find))
    run.update(**of_cache(parts.manifest, parts.mapped), first_latents=run.record.get("first_latents", parts.manifest.count("train")))
    if engine.leads:
        with weights.replacing(run.folder / "autoencoder.safetensors") as temporary:
            shutil.copyfile(Path(config.latents).expanduser() / "autoencoder.safetensors", temporary)
    if config.conditions.embed_text:
        carry_encoder(parts.network, run.folder, engine, console)


def validate_and_preview(training: Training, step: int, config: FitDiffusion, parts: Parts, engine: Engine) -> None:
    """Validate, and make the previews that are due."""
    picture = None
    with training.aside(), training.model.averaged(), torch.no_grad():
        values = validate(config, parts.network, parts.latents["val"], parts.codec, parts.schedule, engine, parts.known["val"])
        if training.previews(step):
            picture = training.run.folder / "samples" / f"{step + 1:09d}.png"
            shown = parts.latents[parts.previewed], parts.known[parts.previewed]
            save_preview(config, parts.network, parts.codec, parts.schedule, parts.sampler, parts.manifest, picture, engine, *shown)
    training.validated(step, values, judged_by=JUDGED_BY, watched=[JUDGED_BY], picture=picture)
    training.say_risen(step)


def learners_of(config: FitDiffusion, network: Network, engine: Engine, *, compiled: bool) -> dict[str, Learner]:
    """Those that learn: the network, and with weighting=learned how much each noise level counts."""
    learners = {"diffusion": Learner(network, config.loop, engine, compiled=compiled, sharded=is_sharded(config, engine))}
    if config.weighting.kind == "learned":
        learners["uncertainty"] = Learner(Uncertainty().to(engine.device), config.loop, engine, averaged=False)
    return learners


def plugins_of(config: FitDiffusion) -> list[str]:
    """The plugins of a run, as its record names them."""
    heard = (("conditioner", getattr(config.conditions, slot)) for slot in SLOTS)
    return describe_plugins(("denoiser", config.denoiser), ("schedule", config.schedule), *heard)


def what_it_learns(config: FitDiffusion, train: Latents, known: Several) -> dict[str, Any]:
    """What a network can be asked for, as its header says: labels, nothing, and each thing without the others."""
    found: dict[str, Any] = {
        "conditional": learns_with_labels(config, train),
        "unconditional": learns_without_labels(config, train, known),
    }
    if len(heard := config.conditions.slots) > 1:
        found["left_alone"] = {slot: learns_without(config, train, slot, known) for slot in heard}
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
