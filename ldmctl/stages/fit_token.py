"""One word, or one class, learned from a few pictures for a model that stays as it is (textual inversion, arXiv:2208.01618).

The pictures are encoded once, by the autoencoder beside the model. The file that is written holds its vectors and what the
optimizer knows of them, so the same command continues, and with more steps learns on.
"""

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldmctl.config.differences import fixed_differences, placeless
from ldmctl.config.schemas.fit_token import FitToken
from ldmctl.console import Console
from ldmctl.diffusion.inversion import Inversion
from ldmctl.diffusion.learned_words import KIND, LearnedWord, read_word
from ldmctl.diffusion.lesson import Lesson, lesson_of
from ldmctl.diffusion.model import open_model
from ldmctl.errors import DataError, MismatchError, Stopped
from ldmctl.latents.codec import Codec
from ldmctl.pictures.batches import Batch, Pictures
from ldmctl.pictures.introduction import datasets, sayings
from ldmctl.pictures.loading import in_order, on_device, open_pictures
from ldmctl.signals import Signals
from ldmctl.storage import weights
from ldmctl.storage.folder import make_folder
from ldmctl.training import engine as engines

TOGETHER = 16  # pictures that are encoded in one forward
WAYS = "Two ways on: another file (--out), or start over in this one (--overwrite)."


def fit_token(config: FitToken, out: str | Path, *, console: Console, overwrite: bool = False) -> dict[str, Any]:
    """Learn the word, or class, and leave it in the file `out` -> {"token", "kind", "word", "steps", "loss", "loss_before"}; the same call continues.

    A file there of another word, model or other settings is a MismatchError, unless `overwrite`; one that fit-token did not write always is.
    """
    # Build the parts.
    engine = engines.start(config.machine)
    model = open_model(config.run, engine, tile=config.machine.tile)
    lesson = lesson_of(config, model)
    config, kind = lesson.config, lesson.listener.kind
    console.say(f"{config.word!r} is learned as a {kind}, which begins as {lesson.beginning}.")
    known_by = lesson.listener.known_by
    stored, captions, pictures = encoded(lesson, model.codec, console)
    inversion = Inversion(model, lesson, stored, captions)

    # Restore or start.
    file = Path(out).expanduser()
    make_folder(file.parent)
    about = {**known_by, "model": model.fingerprint, "config": placeless(FitToken, config.model_dump(mode="json")), "pictures": pictures}
    begun = 0
    if (known := there(file, overwrite=overwrite)) is not None:
        refuse_changed(known, config, about)
        inversion.restore(weights.load(file)[0])
        begun = int(known.header["step"])
        console.say(f"{file} has {config.word!r} after {begun:,} of {config.steps:,} steps.")

    def save(step: int) -> None:
        weights.save(file, inversion.state(), {"kind": KIND, "word": config.word, "step": step, **about})

    # Learn.
    done, total, since = begun, torch.zeros((), device=engine.device), begun
    began = time.monotonic()
    with Signals(console.say) as signals, console.bar("learning", config.steps, done=begun, unit="steps") as bar:
        for step in range(begun, config.steps):
            total += inversion.step(step)
            done = step + 1
            bar.advance(done)
            if done % config.report == 0 or done == config.steps or signals.asked:
                save(done)
                bar.report({"loss": float(total) / (done - since)}, rate=(done - begun) / max(time.monotonic() - began, 1e-9))
                total, since = torch.zeros_like(total), done
            if signals.asked and done < config.steps:
                raise Stopped(f"Stopped after {done:,} of {config.steps:,} steps, which are in {file}. Run the same command to continue.")

    # Say what it is worth, and where it is.
    loss, loss_before = inversion.measure(inversion.vectors.detach()), inversion.measure(inversion.first)
    (console.say if loss < loss_before else console.warn)(
        f"The loss on the pictures is {loss:.4g} with {config.word!r}, and {loss_before:.4g} with {lesson.beginning} in its place."
        + ("" if loss < loss_before else " Nothing was learned: take a lower lr, or more steps.")
    )
    console.say(f"The {kind} is in {file}: ldmctl sample --run {config.run} --token {file} {lesson.asking}")
    losses = {"loss": round(loss, 6), "loss_before": round(loss_before, 6)}
    return {"token": str(file), "kind": kind, "word": config.word, "steps": done, **losses}


def encoded(lesson: Lesson, codec: Codec, console: Console) -> tuple[Tensor, list[Sequence[str]], str]:
    """(moments [N,m,h,w] of all pictures and of mirrored ones, on the device, what may be said of each, a hash of pixels and captions)."""
    config = lesson.config
    splits = {split: open_pictures(config, split) for split in ("train", "val")}
    for warning in sayings(datasets(splits), "warnings"):
        console.warn(warning)
    moments, captions, digest = [], list[Sequence[str]](), hashlib.sha256()
    for pictures in splits.values():
        for batch in in_order(pictures, TOGETHER, codec.engine, wanted=config.workers):
            good = [row for row, (asked, used) in enumerate(zip(batch.index, batch.used, strict=True)) if asked == used]
            image = batch.image[good]
            said = [captions_of(pictures, batch, row, lesson) for row in good]
            digest.update(image.numpy().tobytes() + repr(said).encode())
            for each in [image, image.flip(3)] if config.flip else [image]:
                moments.append(codec.encode(on_device(each, codec.engine)))
                captions += said
        for bad in pictures.bad:
            console.warn(f"Left out: {bad['reason']}")
    if not (count := sum(map(len, moments))):
        raise DataError(f"There are no pictures to learn from in {config.data or 'the data set'}.")
    own = sum(each != lesson.captions for each in captions)
    told = f", {own:,} with captions of their own that say {config.word!r}" if own else ""
    console.say(f"{count:,} picture{'s' * (count != 1)} to learn from{', half of them mirrored' if config.flip else ''}{told}.")
    return torch.cat(moments), captions, digest.hexdigest()


def captions_of(pictures: Pictures, batch: Batch, row: int, lesson: Lesson) -> tuple[str, ...]:
    """What may be said of a picture of a word: its own captions where they say it and are heard to there, else the templates. Of a class nothing."""
    if not lesson.captions:
        return ()
    word, conditioner = lesson.config.word, lesson.listener.conditioner
    every = pictures.captions(batch.used[row]) or (batch.text[row],)
    return tuple(text for text in every if word in text and word not in conditioner.cut(text)) or lesson.captions


def there(file: Path, *, overwrite: bool) -> LearnedWord | None:
    """The word or class that the file has from before; None without one, or where it is to be overwritten. A MismatchError for any other file."""
    if not os.path.lexists(file):
        return None
    try:
        known = read_word(file)
    except MismatchError as error:
        raise MismatchError(f"{error} It is not replaced: name another --out.") from None
    return None if overwrite else known


def refuse_changed(known: LearnedWord, config: FitToken, about: Mapping[str, Any]) -> None:
    """A MismatchError where a file was begun for another word or class, with another model, pictures or keys."""
    changed = fixed_differences(FitToken, known.header.get("config", {}), about["config"])
    said = [f"{path} was {old!r} and is {new!r}" for path, old, new in changed]
    said += [
        f"{what} others"
        for key, what in {"model": "the weights of the model are", "pictures": "the pictures are"}.items()
        if known.header.get(key) != about[key]
    ]
    if said:
        raise MismatchError(f"{known.file} was begun otherwise: {'; '.join(said)}. {WAYS}")


def plan_fit_token(config: FitToken) -> dict[str, Any]:
    """What would be learned, and from what; what cannot work raises as it would in earnest."""
    model = open_model(config.run, engines.start(config.machine), tile=config.machine.tile)
    lesson = lesson_of(config, model)
    count = sum(len(open_pictures(config, split)) for split in ("train", "val"))
    return {
        "network": f"{sum(parameter.numel() for parameter in model.network.parameters()):,} parameters, none of which changes",
        lesson.listener.kind: f"{config.vectors} x {lesson.known.shape[1]:,} numbers, which begin as {lesson.beginning}",
        "pictures": f"{count:,}{', and mirrored' if config.flip else ''}",
        **({"captions": "; ".join(lesson.captions)} if lesson.captions else {}),
        "forwards": f"{config.steps:,} of {config.batch}, each with its backward",
    }
