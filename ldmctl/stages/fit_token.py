"""One word, learned from a few pictures for a model that stays as it is (textual inversion, arXiv:2208.01618).

The pictures are encoded once, by the autoencoder beside the model. The file that is written holds the word's vectors and what the
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
from ldmctl.diffusion.inversion import Inversion, first_vectors
from ldmctl.diffusion.labels import class_index, refuse_untrained
from ldmctl.diffusion.learned_words import KIND, LearnedWord, listener, read_word, refuse_known, spoken_by
from ldmctl.diffusion.model import Model, open_model
from ldmctl.errors import ConfigError, DataError, MismatchError, Stopped
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
    """Learn the word and leave it in the file `out` -> {"token", "word", "steps", "loss", "loss_before"}; the same call continues.

    A file there of another word, model or other settings is a MismatchError, unless `overwrite`; one that fit-token did not write always is.
    """
    # Build the parts.
    engine = engines.start(config.machine)
    model = open_model(config.run, engine, tile=config.machine.tile)
    conditioner, known_by, label = hearing(config, model)
    first = first_vectors(conditioner, config.init_word, config.vectors)
    stored, captions, pictures = encoded(config, model.codec, conditioner, console)
    inversion = Inversion(config, model, stored, captions, first, label=label)

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
    loss, loss_before = inversion.measure(inversion.vectors.detach()), inversion.measure(first.to(engine.device))
    (console.say if loss < loss_before else console.warn)(
        f"The loss on the pictures is {loss:.4g} with {config.word!r}, and {loss_before:.4g} with {config.init_word!r} in its place."
        + ("" if loss < loss_before else " Nothing was learned: take a lower lr, or more steps.")
    )
    console.say(f"The word is in {file}: ldmctl sample --run {config.run} --token {file} --prompt '{config.captions[0]}'")
    return {"token": str(file), "word": config.word, "steps": done, "loss": round(loss, 6), "loss_before": round(loss_before, 6)}


def hearing(config: FitToken, model: Model) -> tuple[Any, Mapping[str, Any], int]:
    """(the conditioner that is to hear the word, what a file says it is for, the class of the pictures or -1).

    What does not fit the model is a ConfigError.
    """
    conditioner = listener(model.network.text, config.run)
    refuse_known(conditioner, config.word)
    if not len(conditioner.word_vectors(config.init_word)):
        raise ConfigError(f"init_word={config.init_word!r} says nothing to this model. Take another word, such as a.")
    header = model.header
    given = {key: header["image"][key] for key in ("size", "channels")}
    if apart := [key for key, value in given.items() if getattr(config.image, key) != value]:
        raise ConfigError(
            f"The model makes pictures of image.{apart[0]}={given[apart[0]]}, and no others can be learned from. Leave it away."
        )
    label = -1 if config.label is None else label_of(config.label, header)
    if label < 0 and header["conditioner"] is not None and not header["left_alone"]["label"]:
        raise ConfigError("This model was never trained on words without a label: name the class of the pictures by --label.")
    if needed := [slot for slot in ("map", "picture") if not header.get("left_alone", {}).get(slot, True)]:
        raise ConfigError(
            f"This model was never trained on words without a {needed[0]} (conditions.drop.{needed[0]}=0), so no word can be learned for it."
        )
    described = header["conditions"]["text"]
    known_by = {"type": described["type"], "conditioner": spoken_by(conditioner, described)}
    conditioner.with_word(config.word, first_vectors(conditioner, config.init_word, config.vectors))
    if long := [caption for caption in config.captions if conditioner.cut(caption)]:
        raise ConfigError(f"The caption {long[0]!r} is longer than the model hears: take fewer vectors, or a shorter template.")
    return conditioner, known_by, label


def label_of(name: str, header: Mapping[str, Any]) -> int:
    """The class of a name; a ConfigError for one that the model does not know."""
    if header["conditioner"] is None:
        raise ConfigError("This model was trained without labels, so --label has nothing to choose. Leave it away.")
    label = class_index(name, header["classes"])
    refuse_untrained(dict(header), [label])
    return label


def encoded(config: FitToken, codec: Codec, conditioner: Any, console: Console) -> tuple[Tensor, list[Sequence[str]], str]:
    """(moments [N,m,h,w] of all pictures and of mirrored ones, on the device, what may be said of each, a hash of pixels and captions)."""
    splits = {split: open_pictures(config, split) for split in ("train", "val")}
    for warning in sayings(datasets(splits), "warnings"):
        console.warn(warning)
    moments, captions, digest = [], list[Sequence[str]](), hashlib.sha256()
    for pictures in splits.values():
        for batch in in_order(pictures, TOGETHER, codec.engine, wanted=config.workers):
            good = [row for row, (asked, used) in enumerate(zip(batch.index, batch.used, strict=True)) if asked == used]
            image = batch.image[good]
            said = [captions_of(pictures, batch, row, config, conditioner) for row in good]
            digest.update(image.numpy().tobytes() + repr(said).encode())
            for each in [image, image.flip(3)] if config.flip else [image]:
                moments.append(codec.encode(on_device(each, codec.engine)))
                captions += said
        for bad in pictures.bad:
            console.warn(f"Left out: {bad['reason']}")
    if not (count := sum(map(len, moments))):
        raise DataError(f"There are no pictures to learn from in {config.data or 'the data set'}.")
    own = sum(each != tuple(config.captions) for each in captions)
    told = f", {own:,} with captions of their own that say {config.word!r}" if own else ""
    console.say(f"{count:,} picture{'s' * (count != 1)} to learn from{', half of them mirrored' if config.flip else ''}{told}.")
    return torch.cat(moments), captions, digest.hexdigest()


def captions_of(pictures: Pictures, batch: Batch, row: int, config: FitToken, conditioner: Any) -> tuple[str, ...]:
    """What may be said of a picture: its own captions where they say the word and are heard to there, else the templates."""
    every = pictures.captions(batch.used[row]) or (batch.text[row],)
    own = tuple(text for text in every if config.word in text and config.word not in conditioner.cut(text))
    return own or tuple(config.captions)


def there(file: Path, *, overwrite: bool) -> LearnedWord | None:
    """The word that the file has from before; None without one, or where it is to be overwritten. A MismatchError for any other file."""
    if not os.path.lexists(file):
        return None
    try:
        known = read_word(file)
    except MismatchError as error:
        raise MismatchError(f"{error} It is not replaced: name another --out.") from None
    return None if overwrite else known


def refuse_changed(known: LearnedWord, config: FitToken, about: Mapping[str, Any]) -> None:
    """A MismatchError where a file was begun for another word, with another model, pictures or keys."""
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
    conditioner, _, _ = hearing(config, model)
    count = sum(len(open_pictures(config, split)) for split in ("train", "val"))
    return {
        "network": f"{sum(parameter.numel() for parameter in model.network.parameters()):,} parameters, none of which changes",
        "word": f"{config.vectors} x {conditioner.word_vectors(config.init_word).shape[1]:,} numbers",
        "pictures": f"{count:,}{', and mirrored' if config.flip else ''}",
        "captions": "; ".join(config.captions),
        "forwards": f"{config.steps:,} of {config.batch}, each with its backward",
    }
