"""The first stage: pictures to an autoencoder, by reconstruction, perceptual and adversarial losses.

The autoencoder brings its own penalties (KL, commitment), weighted. All losses
on the picture meet at the reconstruction, where the adversarial one is balanced
against the others, and go through the decoder in one backward.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldmctl.config import origins
from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.console import Console
from ldmctl.evaluation.causes import causes
from ldmctl.evaluation.figures import write_pictures
from ldmctl.evaluation.phases import before_and_after, compared_by
from ldmctl.evaluation.reconstruction import evaluate
from ldmctl.evaluation.sameness import Sameness, look_at
from ldmctl.evaluation.verdict import verdict
from ldmctl.latents.codec import Codec
from ldmctl.losses.objective import backward, teach_again, titled, validate, weights_of
from ldmctl.losses.parts import Parts, prepare
from ldmctl.losses.rehearsal import find_micro
from ldmctl.losses.watchman import Watchman
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.images import to_uint8
from ldmctl.pictures.introduction import introduce
from ldmctl.pictures.loading import on_device, open_pictures, shown_items, training_batches
from ldmctl.pictures.png import grid, write_png
from ldmctl.pictures.sameness import changes_of_pictures, check_same_pictures, known_of
from ldmctl.pictures.telling import Telling, say_left_out
from ldmctl.storage import weights
from ldmctl.storage.beginning import note_beginning, origin_file
from ldmctl.storage.measured import last_step, measured_since, shows_others
from ldmctl.storage.record import describe_plugins
from ldmctl.storage.run import Run, open_run
from ldmctl.training import engine as engines
from ldmctl.training import order
from ldmctl.training.engine import Engine
from ldmctl.training.flops import parameter_count
from ldmctl.training.loop import Training
from ldmctl.training.publishing import publish, said
from ldmctl.training.reporting import report_to
from ldmctl.training.watch import say_unwatched

AT_ONCE = 32  # pictures at most in a forward that is judged
JUDGED = 1024  # and that the verdict at the end looks at; eval-lpips looks at all
JUDGED_BY = "val/loss"


def fit_ae(config: FitAE, out: str | Path, *, console: Console, overwrite: bool = False, accept_data: bool = False) -> dict[str, Any]:
    """Fit an autoencoder and leave it in the run folder `out`; the same call continues where it stopped.

    Pictures that have changed since are a MismatchError, unless `accept_data`.
    """
    # Build the parts.
    engine = engines.start(config.machine)
    mine = engine.share(config.loop.batch)
    train, val = open_pictures(config, "train"), open_pictures(config, "val")
    introduce({"train": train, "val": val}, console, leads=engine.leads)
    config, parts, begun = prepare(config, None if overwrite else Path(out).expanduser(), engine, console)
    perceptual, autoencoder = parts.perceptual, parts.model.module
    side = config.image.trained
    seen = "" if side == config.image.size else f", in parts of {side}x{side} pixels"
    console.say(
        f"autoencoder {config.autoencoder.type}: {parameter_count(autoencoder):,} parameters; "
        f"{len(train):,} pictures{seen}, {len(val):,} held out"
    )
    say_unwatched(config.loop, len(val), console)

    if parts.adversary is not None and (heard := parts.adversary.latest + parts.adversary.warmup) >= config.loop.steps:
        console.say(f"The run ends at step {config.loop.steps:,}, before its discriminator is heard from step {heard:,} on.")

    # Restore or start.
    named = [("dataset", config.dataset), ("autoencoder", config.autoencoder), ("discriminator", config.discriminator)]
    plugins = describe_plugins(*named, ("perceptual", config.perceptual))
    run = open_run(out, config, parent=config.init, plugins=plugins, overwrite=overwrite, writes=engine.leads, say=console.say)
    with run:
        note_beginning(run, config.init, origin_file(config.init, origins.find))
        note_pictures(run, {"train": train, "val": val}, accepted=accept_data)
        run.update(**begun)
        header = weights.describe("autoencoder", config.autoencoder, image_channels=config.image.channels)
        header["image"] = config.image.model_dump(mode="json")
        if not parts.model.parameters:
            return keep_untrained(run, autoencoder, header, console)
        say_left_out({"train": train, "val": val}, console, run.folder / "bad_images.jsonl")
        micro = pictures_per_forward(config, perceptual, engine, train, mine.stop - mine.start, console)
        patches = (config.image.size / side) ** 2
        at_once = max(1, min(AT_ONCE, int((micro or mine.stop - mine.start) / patches)))  # whole pictures that a step has room for
        tracker = report_to(config.tracker, run.folder, console) if engine.leads else None

        with Training(
            run,
            engine,
            config.loop,
            parts.learners,
            header=header,
            console=console,
            tracker=tracker,
            remembers=parts.remembers,
            items=len(train),
        ) as training:
            stream = training_batches(train, config.loop, engine, first=training.first, seen=training.seen)
            shown = on_device(shown_items(val if len(val) else train), engine)
            if training.first == 0 and (alike := look_at(train, Sameness()).sentence) and engine.leads:
                console.warn(alike)
            run.note_bad([*train.bad, *val.bad, *train.left_out, *val.left_out])
            telling = Telling({"train": train, "val": val}, engine, console)
            watchman = Watchman(parts, config, training, console)
            if training.first == 0 and config.init is not None:
                note_before_discriminator(parts, config, training, val, -1, at_once)

            # One step.
            for step, (items, batch) in zip(training, stream, strict=False):
                run.note_bad(batch.bad)
                telling.when_all_are_seen()
                one_step(parts, config, training, step, items, batch.image, micro, console)
                note_before_discriminator(parts, config, training, val, step, at_once)

                # Report now and then.
                if training.validates(step):
                    if engine.leads:
                        with training.aside(), parts.model.averaged() as averaged, torch.no_grad():
                            file, picture = run.folder / "samples" / f"{step + 1:09d}.png", None
                            if training.previews(step):
                                picture = save_reconstructions(averaged, shown, file, engine, at_once)
                            values = validate(averaged, val, config.losses, perceptual, engine, at_once, patches)
                        run.note_bad(val.bad)
                        training.validated(step, values, judged_by=JUDGED_BY, watched=watched(config, perceptual), picture=picture)
                    watchman.look(step)

        # Judge it, save and say where.
        published = publish(training, JUDGED_BY)
        telling.at_the_end()
        if engine.leads and (bad := sum('"left_out"' not in row for row in run.bad())):
            console.warn(f"{bad:,} unreadable pictures, others took their place: {run.folder / 'bad_images.jsonl'} names them.")
        result = {"run": str(run.folder), "model": str(run.folder / "model.safetensors"), "steps": training.done}
        judged = conclude(parts, config, {"val": val, "train": train}, run, engine, console, at_once) if engine.leads else {}
        which = f"the {published['which']} weights, of step {published['step']:,}"
        console.say(f"The autoencoder is in {run.folder / 'model.safetensors'} ({which}), its reconstructions in {run.folder / 'samples'}.")
        return {**result, **training.last_validation, **judged}


def pictures_per_forward(config: FitAE, perceptual: Any, engine: Engine, train: Pictures, share: int, console: Console) -> int | None:
    """The pictures of a micro-batch, found by real steps where `loop.micro` is auto; None for a rank's whole `share` at once."""
    if config.loop.micro != "auto":
        return config.loop.micro
    micro = find_micro(config, perceptual, engine, train, share)
    console.say(f"loop.micro=auto: {micro} of {share} pictures per forward.")
    return micro


def one_step(
    parts: Parts, config: FitAE, training: Training, step: int, items: Tensor, image: Tensor, micro: int | None, console: Console
) -> None:
    """Both networks learn from a rank's pictures uint8 [B,C,H,W] of these items, in micro-batches."""
    engine, slices = training.engine, order.micro_batches(len(image), micro)
    for number, rows in enumerate(slices):
        order.reseed("step", config.loop.seed, step, number, engine.rank)
        share, last = (rows.stop - rows.start) / len(image), number == len(slices) - 1
        training.add(backward(parts, config, on_device(image[rows], engine), step, share, engine, last=last), share)
    training.update(step, parts.model, items)
    if parts.shares is not None:
        parts.shares.after_step()
    if parts.adversary is not None and parts.discriminator is not None:
        if parts.adversary.trains_discriminator(step):
            training.update(step, parts.discriminator, items)
            for _ in teach_again(parts, step, engine):
                training.update(step, parts.discriminator, items)
        if parts.adversary.after_step(step):
            console.say(f"The losses have levelled off: the discriminator starts after step {step + 1:,}.")


def note_pictures(run: Run, splits: Mapping[str, Pictures], *, accepted: bool) -> None:
    """Keep in run.json which pictures these are; a run that began with others is a MismatchError unless that is accepted."""
    if not run.writes:
        return
    before = run.record.get("pictures") if run.resumed else None
    now = known_of(splits, before)
    if run.resumed and check_same_pictures(run.record, now, run.folder, accepted=accepted) and before is not None:
        run.note_changes(changes_of_pictures(before, now))
    run.update(pictures=now)


def save_reconstructions(autoencoder: nn.Module, image: Tensor, path: Path, engine: Engine, at_once: int) -> Path:
    """A row of originals over a row of reconstructions."""
    both = torch.cat([image, Codec(autoencoder, engine, at_once=at_once).reconstruct(image)])
    write_png(path, grid(to_uint8(both), columns=len(image)))
    return path


def conclude(
    parts: Parts, config: FitAE, pictures: Mapping[str, Pictures], run: Run, engine: Engine, console: Console, at_once: int
) -> dict[str, Any]:
    """What the published weights are worth on up to `JUDGED` held-out pictures, said, shown in samples/ and kept in run.json."""
    with parts.model.averaged() as averaged:
        if run.record["published"]["which"] == "best":
            file = run.folder / "model.safetensors"
            weights.load_into(averaged, weights.load(file)[0], file)
        codec = Codec(averaged, engine, at_once=at_once)
        had = {"perceptual": parts.perceptual, "adversarial": parts.discriminator}
        losses = frozenset([*(name for name, part in had.items() if part is not None), *(["shares"] if config.losses.shares else [])])
        sizes: dict[str, Any] = {"count": JUDGED, "batch": at_once, "workers": config.loop.workers}
        found = evaluate(codec, pictures, compared_by(parts.perceptual, config, engine), engine, **sizes, losses=losses, console=console)
        write_pictures(run.folder / "samples", codec, pictures, engine)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    published, before = run.record["published"], run.record.get("before_discriminator")
    told = before_and_after(before, found, published["step"], others_since=last_step(run.record, shows_others))
    done = [f"After step {each['step']:,}: {each['why']}" for each in run.record.get("watch", [])]
    of_run = [f"The published weights are {said(published)}.", *done]
    why = [each.sentence for each in causes(rows, config, since=measured_since(run.record))]
    found = replace(found, notes=[*of_run, *told, *found.notes], causes=why)
    judged = {**found.as_dict(), "verdict": verdict(found)}
    for line in judged["verdict"]:
        console.say(line)
    run.update(judged={**judged, "of_run": {"notes": of_run, "causes": why}})
    return judged


def note_before_discriminator(parts: Parts, config: FitAE, training: Training, val: Pictures, step: int, at_once: int) -> None:
    """Where the discriminator starts after this step, keep in run.json what the averaged weights are worth, as `conclude` measures it; None
    without held-out pictures. On the first rank."""
    if parts.adversary is None or not parts.adversary.starts_after(step) or not training.engine.leads:
        return
    was, engine = None, training.engine
    if len(val):
        with training.aside(), parts.model.averaged() as averaged:
            judge, codec = compared_by(parts.perceptual, config, engine), Codec(averaged, engine, at_once=at_once)
            sizes: dict[str, Any] = {"count": JUDGED, "batch": at_once, "workers": config.loop.workers}
            was = {"step": step + 1, **evaluate(codec, {"val": val}, judge, engine, **sizes).as_dict()}
    training.run.update(before_discriminator=was)


def watched(config: FitAE, perceptual: Any) -> list[str]:
    """The validation losses whose rise counts: those on the picture that were asked for."""
    return list(titled({f"val/{name}": weight for name, weight in weights_of(config.losses).items() if weight > 0}, perceptual))


def keep_untrained(run: Run, autoencoder: nn.Module, header: dict[str, Any], console: Console) -> dict[str, Any]:
    """Save an autoencoder that has nothing to learn, such as `identity`."""
    if run.writes:
        weights.save(run.folder / "model.safetensors", autoencoder.state_dict(), {**header, "step": 0})
    console.say(f"This autoencoder has nothing to learn; it is in {run.folder / 'model.safetensors'}.")
    return {"run": str(run.folder), "model": str(run.folder / "model.safetensors"), "steps": 0}
