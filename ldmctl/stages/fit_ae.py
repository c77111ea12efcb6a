"""The first stage: pictures to an autoencoder, by reconstruction, perceptual and adversarial losses.

The autoencoder brings its own penalties (KL, commitment), weighted. All losses
on the picture meet at the reconstruction, where the adversarial one is balanced
against the others, and go through the decoder in one backward.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ldmctl import registry
from ldmctl.config.schemas.fit_ae import FitAE, Losses
from ldmctl.console import Voice
from ldmctl.errors import ConfigError, MissingError
from ldmctl.evaluation.figures import write_pictures
from ldmctl.evaluation.metrics import psnr
from ldmctl.evaluation.reconstruction import examine
from ldmctl.evaluation.verdict import verdict
from ldmctl.latents.codec import Codec
from ldmctl.losses.adversary import Adversary, in_whole_steps
from ldmctl.losses.balance import Balance
from ldmctl.losses.equivariance import Equivariant
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.images import crop_to, pad_to, to_uint8
from ldmctl.pictures.loading import on_device, open_pictures, shown_items, training_batches
from ldmctl.pictures.png import grid, write_png
from ldmctl.storage import weights
from ldmctl.storage.initial import decoder_only, load_initial
from ldmctl.storage.record import config_of, describe_plugins, record_of
from ldmctl.storage.run import Run, open_run
from ldmctl.training import engine as engines
from ldmctl.training import order
from ldmctl.training.engine import Engine
from ldmctl.training.flops import parameter_count
from ldmctl.training.learner import Learner
from ldmctl.training.loop import Training
from ldmctl.training.memory import largest_micro, release

Value = TypeVar("Value", Tensor, float)
VALIDATED = 256  # pictures of the held-out split that a validation looks at
AT_ONCE = 32  # pictures at most in a forward that is judged
JUDGED = 1024  # and that the verdict at the end looks at; eval-lpips looks at all


@dataclass(frozen=True)
class Parts:
    """What one step is made of."""

    model: Learner
    critic: Learner | None
    adversary: Adversary | None
    perceptual: Any

    @property
    def learners(self) -> dict[str, Learner]:
        """By name, the published one first."""
        return {"autoencoder": self.model} | ({"discriminator": self.critic} if self.critic else {})


def fit_ae(config: FitAE, out: str | Path, *, voice: Voice, overwrite: bool = False) -> dict[str, Any]:
    """Fit an autoencoder and leave it in the run folder `out`; the same call goes on where it stopped."""
    # Build the parts.
    engine = engines.start(config.machine)
    mine = engine.share(config.loop.batch)
    train, val = open_pictures(config, "train"), open_pictures(config, "val")
    folder = Path(out).expanduser()
    resumes = not overwrite and (folder / "state.safetensors").exists()
    asked, shares = config.perceptual, shares_of(config)
    known, record = (config_of(folder), record_of(folder)) if resumes else ({}, None)
    if record is not None:
        record = {"shares": shares, "perceptual_skipped": known.get("perceptual") is None, **record}
    perceptual, config = build_perceptual(config, engine, voice, record=record)
    before = record["shares"] if record else {}
    config = settled(config, {name: known["adversarial"][name] for name, share in shares.items() if before.get(name) == share})
    parts = build_parts(config, perceptual, engine, voice=None if resumes else voice)
    autoencoder = parts.model.module
    voice.say(
        f"autoencoder {config.autoencoder.type}: {parameter_count(autoencoder):,} parameters; {len(train):,} pictures, {len(val):,} held out"
    )

    # Restore or start.
    named = [("dataset", config.dataset), ("autoencoder", config.autoencoder), ("discriminator", config.discriminator)]
    plugins = describe_plugins(*named, ("perceptual", config.perceptual))
    run = open_run(out, config, parent=config.init, plugins=plugins, overwrite=overwrite, writes=engine.leads)
    with run:
        skipped = record["perceptual_skipped"] if record else asked is not None and config.perceptual is None
        run.update(shares={**shares, **before}, perceptual_skipped=skipped)  # as it was begun, however it is gone on with
        header = weights.describe("autoencoder", config.autoencoder, image_channels=config.image.channels)
        header["image"] = config.image.model_dump(mode="json")
        if not parts.model.parameters:
            return keep_untrained(run, autoencoder, header, voice)
        micro = config.loop.micro
        if micro == "auto":
            micro = find_micro(config, perceptual, engine, train, mine.stop - mine.start)
            voice.say(f"loop.micro=auto: {micro} of {mine.stop - mine.start} pictures per forward.")
        at_once = min(AT_ONCE, micro or mine.stop - mine.start)  # what a step has room for
        tracker = registry.build("tracker", config.tracker, run=run.folder) if config.tracker and engine.leads else None
        remembers = {"adversary": parts.adversary} if parts.adversary else {}

        with Training(
            run,
            engine,
            config.loop,
            parts.learners,
            header=header,
            voice=voice,
            tracker=tracker,
            remembers=remembers,
            items=len(train),
        ) as training:
            stream = training_batches(train, config.loop, engine, first=training.first)
            shown = on_device(shown_items(val if len(val) else train), engine)
            run.note_bad([*train.bad, *val.bad])

            # One step.
            for step, (items, batch) in zip(training, stream, strict=False):
                run.note_bad(batch.bad)
                slices = order.micro_batches(len(batch.image), micro)
                for number, rows in enumerate(slices):
                    order.reseed("step", config.loop.seed, step, number, engine.rank)
                    share, last = (rows.stop - rows.start) / len(batch.image), number == len(slices) - 1
                    training.add(backward(parts, config, on_device(batch.image[rows], engine), step, share, engine, last=last), share)
                training.update(step, parts.model, items)
                if parts.adversary is not None and parts.critic is not None:
                    if parts.adversary.judges(step):
                        training.update(step, parts.critic, items)
                    if parts.adversary.after_step(step):
                        voice.say(f"The losses have levelled off: the discriminator starts after step {step + 1:,}.")

                # Report now and then.
                if training.previews(step) and engine.leads:
                    with training.aside(), parts.model.averaged() as averaged, torch.no_grad():
                        picture = save_reconstructions(averaged, shown, run.folder / "samples" / f"{step + 1:09d}.png", engine, at_once)
                        values = validate(averaged, val, config.losses, perceptual, engine, at_once)
                    run.note_bad(val.bad)
                    training.validated(step, values, judged_by="val/loss", picture=picture)

        # Judge it, save and say where.
        if engine.leads and (bad := len(run.bad())):
            voice.warn(f"{bad:,} unreadable pictures, others took their place: {run.folder / 'bad_images.jsonl'} names them.")
        result = {"run": str(run.folder), "model": str(run.folder / "model.safetensors"), "steps": training.done}
        judged = conclude(parts, config, {"val": val, "train": train}, run, engine, voice, at_once) if engine.leads else {}
        voice.say(f"The autoencoder is in {run.folder / 'model.safetensors'}, its reconstructions in {run.folder / 'samples'}.")
        return {**result, **training.last_validation, **judged}


def backward(parts: Parts, config: FitAE, image: Tensor, step: int, share: float, engine: Engine, *, last: bool) -> dict[str, Tensor]:
    """Leave the gradients of one micro-batch [B,C,H,W], which is `share` of this rank's batch, with both learners -> losses and facts."""
    model, critic, adversary = parts.model, parts.critic, parts.adversary
    autoencoder: Any = model.module
    weight = {
        "pixel": config.losses.pixel_weight,
        "perceptual": config.losses.perceptual_weight,
        "adversarial": adversary.weight(step) if adversary else 0.0,
    }
    with model.backward_context(last=last):
        with engine.autocast():
            reconstruction = model.network(pad_to(image, autoencoder.factor))
        made = crop_to(reconstruction.image.float(), (image.shape[-2], image.shape[-1]))
        losses = picture_losses(made, image, config.losses, parts.perceptual, engine)
        if adversary is not None and critic is not None and weight["adversarial"]:
            with engine.autocast():
                losses["adversarial"] = adversary.opinion(critic.module, made)
        last_layer = getattr(autoencoder, "last_layer", None)
        listen = (adversary or Balance("none")).gradient
        gradient, facts = listen(losses, weight, made, step=step, share=share, scale=model.scale, last_layer=last_layer)
        penalties = [value.float() for value in reconstruction.penalties.values() if value.requires_grad]
        scale = model.scale * share
        torch.autograd.backward([made, *penalties], [gradient * scale, *(scale for _ in penalties)])
    scales = {**weight, "adversarial": facts.get("adversarial_scale", 0.0)}
    terms = {name: scales[name] * value.detach() for name, value in losses.items()} | dict(reconstruction.penalties)
    said = {"loss": sum(terms.values(), torch.zeros(())), **titled(terms | facts, parts.perceptual), **reconstruction.facts}
    if adversary is not None:
        said["adversarial_weight"] = made.new_full((), weight["adversarial"])
        if critic is not None and adversary.judges(step):
            with critic.backward_context(last=last):
                critic.module.requires_grad_(True)
                loss, facts = adversary.judgement(critic.network, made, image, step=step, autocast=engine.autocast)
                (loss * critic.scale * share).backward()
            said |= {"discriminator/loss": loss.detach(), **{f"discriminator/{name}": value for name, value in facts.items()}}
    return said


def build_perceptual(config: FitAE, engine: Engine, voice: Voice, *, record: Mapping[str, Any] | None = None) -> tuple[Any, FitAE]:
    """(perceptual loss or None, config). Where its weights cannot be had and the config allows it, training goes on without and says so.

    A run that goes on, which has a `record`, keeps its losses: begun without, it stays so; begun with it, it needs the weights.
    """
    if config.perceptual is None:
        return None, config
    if record and record.get("perceptual_skipped") and config.losses.perceptual_missing == "skip":
        voice.warn(
            f"This run was begun WITHOUT the perceptual loss {config.perceptual.type!r}, whose weights were missing, and goes on so."
        )
        return None, config.model_copy(update={"perceptual": None})
    try:
        built = registry.build("perceptual", config.perceptual, image_channels=config.image.channels)
    except MissingError as error:
        if record is not None:
            raise type(error)(f"{error}\n  A run that goes on keeps its losses, so this one cannot be left out now.") from None
        if config.losses.perceptual_missing == "error":
            raise type(error)(
                f"{error}\n  or train without it, for blurrier pictures: perceptual=null, or losses.perceptual_missing=skip"
            ) from None
        voice.warn(f"Training goes on WITHOUT the perceptual loss {config.perceptual.type!r}; expect blurrier pictures. {error}")
        return None, config.model_copy(update={"perceptual": None})
    return built.to(engine.device), config


def shares_of(config: FitAE) -> dict[str, float]:
    """The phases of the adversary that are given as shares of the run."""
    phases = {name: getattr(config.adversarial, name) for name in ("start", "warmup", "ramp")} if config.discriminator else {}
    return {name: value for name, value in phases.items() if isinstance(value, float) and 0 < value < 1}


def settled(config: FitAE, kept: Mapping[str, int]) -> FitAE:
    """The config with shares of the run turned into steps. They count once: a run that is prolonged has `kept` the steps of its phases."""
    if config.discriminator is None:
        return config
    return config.model_copy(update={"adversarial": in_whole_steps(config.adversarial.model_copy(update=dict(kept)), config.loop.steps)})


def build_parts(config: FitAE, perceptual: Any, engine: Engine, *, voice: Voice | None = None) -> Parts:
    """The networks that are trained. Their initial weights are those that `init` names, or decided by loop.seed;
    without a voice, which says where they are from, they are to be replaced by those of a state."""
    networks: dict[str, Any] = {}
    for kind, slot in (("autoencoder", config.autoencoder), ("discriminator", config.discriminator)):
        if slot is not None:
            order.reseed("weights", config.loop.seed, kind)
            networks[kind] = registry.build(kind, slot, image_channels=config.image.channels).to(engine.device).train()
            engines.recompute(networks[kind], config.loop.checkpointing)
    autoencoder, discriminator = networks["autoencoder"], networks.get("discriminator")
    if config.init is not None and voice is not None:
        for line in load_initial(config.init, autoencoder, config):
            voice.say(line)
    if config.train == "decoder":
        decoder_only(autoencoder)
    learns = any(parameter.requires_grad for parameter in autoencoder.parameters())
    if discriminator is not None and learns:
        try_out(discriminator, autoencoder, config, engine)
    if perceptual is not None and learns:
        try_perceptual(perceptual, config, engine)
    around = None
    if config.losses.equivariance_weight:
        keys = config.losses
        around = Equivariant(autoencoder, weight=keys.equivariance_weight, share=keys.equivariance_share, squared=keys.pixel == "l2")
    return Parts(
        model=Learner(autoencoder, config.loop, engine, around=around, alters=config.train == "all"),
        critic=Learner(discriminator, config.loop, engine, averaged=False, lr=config.adversarial.lr) if discriminator else None,
        adversary=Adversary(config.adversarial, config.loop.steps).to(engine.device) if discriminator else None,
        perceptual=perceptual,
    )


def try_out(discriminator: nn.Module, autoencoder: nn.Module, config: FitAE, engine: Engine) -> None:
    """What would only be noticed when the adversarial phase begins: pictures too small for it, an autoencoder without its last layer."""
    if config.adversarial.balance == "last-layer" and not hasattr(autoencoder, "last_layer"):
        raise ConfigError(
            f"adversarial.balance=last-layer needs an autoencoder that has one, {config.autoencoder.type} has not. Take adversarial.balance=image."
        )
    size, learning = config.image.size, discriminator.training
    with torch.no_grad():
        discriminator.eval()(torch.zeros(1, config.image.channels, size, size, device=engine.device))
    discriminator.train(learning)


def try_perceptual(perceptual: Any, config: FitAE, engine: Engine) -> None:
    """What would only be noticed in the first step, when the run folder is made: pictures too small for the perceptual loss."""
    blank = torch.zeros(1, config.image.channels, config.image.size, config.image.size, device=engine.device)
    with torch.no_grad(), engine.autocast():
        perceptual(blank, blank)


def find_micro(config: FitAE, perceptual: Any, engine: Engine, train: Pictures, share: int) -> int:
    """The largest micro-batch that one real step has room for."""
    found = try_micro(config, perceptual, engine, train.batch([(index % len(train), None) for index in range(share)]).image)
    release(engine)
    return found


def try_micro(config: FitAE, perceptual: Any, engine: Engine, pictures: Tensor) -> int:
    """The same for a rank's `pictures`, by parts of its own."""
    step = rehearsal(config, perceptual, engine)
    return largest_micro(lambda count: step(pictures[:count]), len(pictures), engine, memory=config.machine.memory)


def rehearsal(config: FitAE, perceptual: Any, engine: Engine) -> Callable[[Tensor], None]:
    """A step on pictures uint8 [B,C,H,W] with all that a step can have: both networks, all losses, optimizers and averages; made of
    parts of its own, which are thrown away."""
    always = config.adversarial.model_copy(update={"start": 0, "warmup": 0, "ramp": 0})
    config = config.model_copy(update={"adversarial": always})
    parts = build_parts(config, perceptual, engine)

    def step(pictures: Tensor) -> None:
        backward(parts, config, on_device(pictures, engine), 0, 1.0, engine, last=True)
        for learner in parts.learners.values():
            learner.update(0)
            learner.after_step()
            if learner.average:
                learner.track(0)

    return step


def picture_losses(made: Tensor, image: Tensor, losses: Losses, perceptual: Any, engine: Engine) -> dict[str, Tensor]:
    """Scalars by name, not weighted, of a reconstruction [B,C,H,W] against the picture."""
    gap = made - image
    out = {"pixel": gap.abs().mean() if losses.pixel == "l1" else gap.square().mean()}
    if perceptual is not None:
        with engine.autocast():
            out["perceptual"] = perceptual(made, image).float().mean()
    return out


def titled(values: Mapping[str, Value], perceptual: Any) -> dict[str, Value]:
    """The same, with the perceptual loss under its own name: what is not LPIPS is not called so."""
    title = getattr(perceptual, "title", "perceptual")
    return {name.replace("perceptual", title): value for name, value in values.items()}


def save_reconstructions(autoencoder: nn.Module, image: Tensor, path: Path, engine: Engine, at_once: int) -> Path:
    """A row of originals over a row of reconstructions."""
    both = torch.cat([image, Codec(autoencoder, engine, at_once=at_once).reconstruct(image)])
    write_png(path, grid(to_uint8(both), columns=len(image)))
    return path


def validate(autoencoder: nn.Module, val: Pictures, losses: Losses, perceptual: Any, engine: Engine, at_once: int) -> dict[str, float]:
    """Losses and PSNR of the first held-out pictures, so many at a time; empty without any."""
    sums: dict[str, float] = {}
    count = min(VALIDATED, len(val))
    for first in range(0, count, at_once):
        batch = val.batch([(index, None) for index in range(first, min(first + at_once, count))])
        image = on_device(batch.image, engine)
        made = Codec(autoencoder, engine).reconstruct(image)
        terms = {name: float(value) for name, value in picture_losses(made, image, losses, perceptual, engine).items()}
        loss = losses.pixel_weight * terms["pixel"] + losses.perceptual_weight * terms.get("perceptual", 0.0)
        terms |= {"loss": loss, "psnr": float(psnr(made, image).mean())}
        for name, value in titled(terms, perceptual).items():
            sums[f"val/{name}"] = sums.get(f"val/{name}", 0.0) + float(value) * len(image) / count
    return sums


def conclude(
    parts: Parts, config: FitAE, pictures: Mapping[str, Pictures], run: Run, engine: Engine, voice: Voice, at_once: int
) -> dict[str, Any]:
    """What the averaged weights are worth on up to `JUDGED` held-out pictures, said, shown in samples/ and kept in run.json."""
    with parts.model.averaged() as averaged:
        codec = Codec(averaged, engine, at_once=at_once)
        had = {"perceptual": parts.perceptual, "adversarial": parts.critic}
        losses = frozenset(name for name, part in had.items() if part is not None)
        sizes: dict[str, Any] = {"count": JUDGED, "batch": at_once, "workers": config.loop.workers}
        found = examine(codec, pictures, parts.perceptual, engine, **sizes, losses=losses, voice=voice)
        write_pictures(run.folder / "samples", codec, pictures, engine)
    judged = {**found.as_dict(), "verdict": verdict(found)}
    for line in judged["verdict"]:
        voice.say(line)
    run.update(judged=judged)
    return judged


def keep_untrained(run: Run, autoencoder: nn.Module, header: dict[str, Any], voice: Voice) -> dict[str, Any]:
    """Save an autoencoder that has nothing to learn, such as `identity`."""
    if run.writes:
        weights.save(run.folder / "model.safetensors", autoencoder.state_dict(), {**header, "step": 0})
    voice.say(f"This autoencoder has nothing to learn; it is in {run.folder / 'model.safetensors'}.")
    return {"run": str(run.folder), "model": str(run.folder / "model.safetensors"), "steps": 0}
