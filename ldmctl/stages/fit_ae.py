"""The first stage: pictures to an autoencoder, by reconstruction, perceptual and adversarial losses.

The autoencoder brings its own penalties (KL, commitment), weighted. All losses
on the picture meet at the reconstruction, where the adversarial one is balanced
against the others, and go through the decoder in one backward.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldmctl import engine as engines
from ldmctl import registry, weights
from ldmctl.adversarial import balanced_gradient, discriminator_facts, discriminator_loss, generator_loss, start_step
from ldmctl.codec import Codec
from ldmctl.engine import Engine, Learner
from ldmctl.errors import MissingError
from ldmctl.feed import on_device, open_pictures, shown_items, training_batches
from ldmctl.images import crop_to, grid, pad_to, to_uint8, write_png
from ldmctl.loop import Training
from ldmctl.measures import psnr
from ldmctl.pictures import Pictures
from ldmctl.run import config_of, describe_plugins, open_run, parameter_count
from ldmctl.schemas import FitAE, Losses
from ldmctl.voice import Voice

VALIDATED = 256  # pictures of the held-out split that a validation looks at


def fit_ae(config: FitAE, out: str | Path, *, voice: Voice, overwrite: bool = False) -> dict[str, Any]:
    """Fit an autoencoder and leave it in the run folder `out`; the same call goes on where it stopped."""
    # Build the parts.
    engine = engines.start(config.machine)
    engine.share(config.loop.batch)
    train, val = open_pictures(config, "train"), open_pictures(config, "val")
    perceptual, config = build_perceptual(config, engine, voice)
    parts = build_parts(config, engine)
    autoencoder, discriminator = parts["autoencoder"], parts.get("discriminator")
    begins = config.loop.steps if discriminator is None else begun_start(out, config, overwrite=overwrite)
    config = config.model_copy(update={"adversarial": config.adversarial.model_copy(update={"start": begins})}) if discriminator else config
    voice.say(
        f"autoencoder {config.autoencoder.type}: {parameter_count(autoencoder):,} parameters; {len(train):,} pictures, {len(val):,} held out"
    )

    # Restore or start.
    named = [("dataset", config.dataset), ("autoencoder", config.autoencoder), ("discriminator", config.discriminator)]
    run = open_run(
        out, config, plugins=describe_plugins(*named, ("perceptual", config.perceptual)), overwrite=overwrite, writes=engine.leads
    )
    with run:
        header = weights.describe("autoencoder", config.autoencoder, image_channels=config.image.channels)
        header["image"] = config.image.model_dump(mode="json")
        if parameter_count(autoencoder) == 0:
            return keep_untrained(run, autoencoder, header, voice)
        model = Learner(autoencoder, config.loop, engine)
        learners = {"autoencoder": model}
        if discriminator is not None:
            critic = learners["discriminator"] = Learner(discriminator, config.loop, engine, averaged=False, lr=config.adversarial.lr)
        tracker = registry.build("tracker", config.tracker, run=run.folder) if config.tracker and engine.leads else None
        weight = {
            "pixel": config.losses.pixel_weight,
            "perceptual": config.losses.perceptual_weight,
            "adversarial": config.adversarial.weight,
        }

        with Training(run, engine, config.loop, learners, header=header, voice=voice, tracker=tracker) as training:
            stream = training_batches(train, config.loop, engine, first=training.first)
            shown = on_device(shown_items(val if len(val) else train), engine)
            run.note_bad([*train.bad, *val.bad])

            # One step.
            for step, (items, batch) in zip(training, stream, strict=False):
                run.note_bad(batch.bad)
                judged = discriminator is not None and step >= begins
                slices = engines.micro_batches(len(batch.image), config.loop.micro)
                for micro, rows in enumerate(slices):
                    engines.reseed("step", config.loop.seed, step, micro, engine.rank)
                    image = on_device(batch.image[rows], engine)
                    share, last = len(image) / len(batch.image), micro == len(slices) - 1
                    with model.backward_context(last=last):
                        with engine.autocast():
                            reconstruction = model.network(pad_to(image, autoencoder.factor))
                        made = crop_to(reconstruction.image.float(), (image.shape[-2], image.shape[-1]))
                        losses = picture_losses(made, image, config.losses, perceptual, engine)
                        if discriminator is not None and judged:
                            with engine.autocast():
                                losses["adversarial"] = generator_loss(config.adversarial.loss, discriminator.requires_grad_(False)(made))
                        gradient, facts = balanced_gradient(losses, weight, made, scale=model.scale)
                        penalties = [value.float() for value in reconstruction.penalties.values() if value.requires_grad]
                        scale = model.scale * share
                        torch.autograd.backward([made, *penalties], [gradient * scale, *(scale for _ in penalties)])
                    scales = {**weight, "adversarial": facts.get("adversarial_scale", 0.0)}
                    terms = {name: scales[name] * value.detach() for name, value in losses.items()} | dict(reconstruction.penalties)
                    training.add({"loss": sum(terms.values(), torch.zeros(())), **terms, **reconstruction.facts, **facts}, share)
                    if judged:
                        with critic.backward_context(last=last):
                            loss, facts = judge(critic, made.detach(), image, config.adversarial.loss, engine)
                            (loss * critic.scale * share).backward()
                        training.add(
                            {"discriminator/loss": loss, **{f"discriminator/{name}": value for name, value in facts.items()}}, share
                        )
                training.update(step, model, items)
                if judged:
                    training.update(step, critic, items)

                # Report now and then.
                if training.previews(step) and engine.leads:
                    with model.averaged() as averaged, torch.no_grad():
                        picture = save_reconstructions(averaged, shown, run.folder / "samples" / f"{step + 1:09d}.png", engine)
                        values = validate(averaged, val, config.losses, perceptual, engine)
                    run.note_bad(val.bad)
                    training.validated(step, values, judged_by="val/loss", picture=picture)

        # Save and say where.
        voice.say(f"The autoencoder is in {run.folder / 'model.safetensors'}, its reconstructions in {run.folder / 'samples'}.")
        return {"run": str(run.folder), "model": str(run.folder / "model.safetensors"), "steps": training.done, **training.last_validation}


def build_perceptual(config: FitAE, engine: Engine, voice: Voice) -> tuple[Any, FitAE]:
    """(perceptual loss or None, config). Where its weights cannot be had and the config allows it, training goes on without and says so."""
    if config.perceptual is None:
        return None, config
    try:
        built = registry.build("perceptual", config.perceptual, image_channels=config.image.channels)
    except MissingError as error:
        if config.losses.perceptual_missing == "error":
            raise type(error)(
                f"{error}\n  or train without it, for blurrier pictures: perceptual=null, or losses.perceptual_missing=skip"
            ) from None
        voice.warn(f"Training goes on WITHOUT the perceptual loss {config.perceptual.type!r}; expect blurrier pictures. {error}")
        return None, config.model_copy(update={"perceptual": None})
    return built.to(engine.device), config


def begun_start(out: str | Path, config: FitAE, *, overwrite: bool) -> int:
    """The first step with the discriminator. A share of the run counts once: a run that is prolonged keeps the step it began with."""
    folder, start = Path(out).expanduser(), config.adversarial.start
    if start < 1 and not overwrite and (folder / "state.safetensors").exists():
        start = (config_of(folder).get("adversarial") or {}).get("start", start)
    return start_step(start, config.loop.steps)


def build_parts(config: FitAE, engine: Engine) -> dict[str, Any]:
    """The networks that are trained, their initial weights decided by loop.seed."""
    parts = {}
    for kind, slot in (("autoencoder", config.autoencoder), ("discriminator", config.discriminator)):
        if slot is not None:
            engines.reseed("weights", config.loop.seed, kind)
            parts[kind] = registry.build(kind, slot, image_channels=config.image.channels).to(engine.device).train()
    return parts


def picture_losses(made: Tensor, image: Tensor, losses: Losses, perceptual: Any, engine: Engine) -> dict[str, Tensor]:
    """Scalars by name, not weighted, of a reconstruction [B,C,H,W] against the picture."""
    gap = made - image
    out = {"pixel": gap.abs().mean() if losses.pixel == "l1" else gap.square().mean()}
    if perceptual is not None:
        with engine.autocast():
            out["perceptual"] = perceptual(made, image).float().mean()
    return out


def judge(critic: Learner, made: Tensor, image: Tensor, kind: str, engine: Engine) -> tuple[Tensor, dict[str, Tensor]]:
    """The discriminator's own loss: one forward over real and made pictures together, made ones without gradient."""
    critic.module.requires_grad_(True)
    with engine.autocast():
        maps = critic.network(torch.cat([image, made]))
    real, fake = [each.chunk(2)[0] for each in maps], [each.chunk(2)[1] for each in maps]
    return discriminator_loss(kind, real, fake), discriminator_facts(real, fake)


def reconstruct(autoencoder: nn.Module, image: Tensor, engine: Engine) -> Tensor:
    """[B,C,H,W] -> [B,C,H,W] in [-1, 1] through the mode of the posterior."""
    return Codec(autoencoder, engine).reconstruct(image)


def save_reconstructions(autoencoder: nn.Module, image: Tensor, path: Path, engine: Engine) -> Path:
    """A row of originals over a row of reconstructions."""
    both = torch.cat([image, reconstruct(autoencoder, image, engine)])
    write_png(path, grid(to_uint8(both), columns=len(image)))
    return path


def validate(autoencoder: nn.Module, val: Pictures, losses: Losses, perceptual: Any, engine: Engine) -> dict[str, float]:
    """Losses and PSNR of the first held-out pictures; empty without any."""
    sums: dict[str, float] = {}
    count = min(VALIDATED, len(val))
    for first in range(0, count, 32):
        batch = val.batch([(index, None) for index in range(first, min(first + 32, count))])
        image = on_device(batch.image, engine)
        made = reconstruct(autoencoder, image, engine)
        terms = {name: float(value) for name, value in picture_losses(made, image, losses, perceptual, engine).items()}
        loss = losses.pixel_weight * terms["pixel"] + losses.perceptual_weight * terms.get("perceptual", 0.0)
        terms |= {"loss": loss, "psnr": float(psnr(made, image).mean())}
        for name, value in terms.items():
            sums[f"val/{name}"] = sums.get(f"val/{name}", 0.0) + value * len(image) / count
    return sums


def keep_untrained(run: Any, autoencoder: nn.Module, header: dict[str, Any], voice: Voice) -> dict[str, Any]:
    """Save an autoencoder that has nothing to learn, such as `identity`."""
    if run.writes:
        weights.save(run.folder / "model.safetensors", autoencoder.state_dict(), {**header, "step": 0})
    voice.say(f"This autoencoder has nothing to learn; it is in {run.folder / 'model.safetensors'}.")
    return {"run": str(run.folder), "model": str(run.folder / "model.safetensors"), "steps": 0}
