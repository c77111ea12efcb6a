"""What `eval-samples` judges with: pictures, samples, an extractor that has learned, and where features are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldmctl.config.compared import pictures_for
from ldmctl.config.differences import PLACES
from ldmctl.config.presets import pictures_of
from ldmctl.config.relocated import beside
from ldmctl.config.resolve import plugin_config
from ldmctl.config.schemas.eval_samples import EvalSamples
from ldmctl.console import Console
from ldmctl.diffusion.making import make_samples
from ldmctl.diffusion.model import Model, open_model
from ldmctl.diffusion.wanted import wanted, wanted_so_far
from ldmctl.errors import ConfigError, LdmctlError, MismatchError
from ldmctl.evaluation import extractors
from ldmctl.evaluation.comparison import refuse_few
from ldmctl.evaluation.extraction import identity
from ldmctl.evaluation.extractors import Encoder
from ldmctl.evaluation.prompting import asked_for_captions, unspoken
from ldmctl.evaluation.real import Aside, labelled, set_aside
from ldmctl.evaluation.reconstruction import title_of
from ldmctl.pictures.batches import Batch, Pictures
from ldmctl.pictures.choosing import LEAST
from ldmctl.pictures.introduction import introduce
from ldmctl.pictures.loading import open_pictures, workers
from ldmctl.pictures.sampled import Sampled
from ldmctl.storage.apart import folder_of
from ldmctl.storage.record import config_of, model_file
from ldmctl.training import engine as engines
from ldmctl.training.engine import Engine


@dataclass(frozen=True)
class Parts:
    """What one command judges with."""

    config: EvalSamples
    engine: Engine
    model: Model | None
    splits: dict[str, Pictures]
    aside: Aside
    extractor: Any
    about: dict[str, Any]  # the extractor, as the result names it
    home: Path  # where features are kept
    console: Console

    @property
    def batches(self) -> tuple[int, int]:
        """Pictures of a batch, processes that decode."""
        return self.config.batch, workers(self.config.workers, self.splits["train"], self.engine)


def open_parts(config: EvalSamples, folder: Path, console: Console, *, learns: bool = True) -> Parts:
    """Everything before the pictures are looked at; an extractor that learns has learned, unless it is only asked what would be done."""
    engine = engines.start(config.machine)
    model = None
    if config.samples is None or run_is_there(config.run):
        model = open_model(config.run, engine, tile=config.machine.tile, ae=config.ae)
    refuse_none(config)
    splits = {split: open_pictures(config, split) for split in ("train", "val")}
    introduce(splits, console)
    train = splits["train"]
    encoder = Encoder(model.codec, model.decoder) if model is not None and fits(model, config) else None
    has_labels = bool(train.classes) and len(train.classes) > 1
    chosen_config = extractors.choose(config.extractor, labelled=has_labels, encoder=encoder)
    context = {"image_channels": config.image.channels, "size": config.image.size, "classes": train.classes, "encoder": encoder}
    extractor = extractors.build(chosen_config, engine, **context)
    count = number_of(config, model)
    aside = set_aside(len(train), len(splits["val"]), count, config.references)
    refuse_few(min(count, aside.count), len(aside.reference))
    config = asked_for_captions(config, model, splits, aside, console)
    if model is not None and config.samples is None:
        wanted(config, model.header_for(config))  # refuses what it never learned to do without
    home = home_of(config, folder)
    key = preparation(config)
    if learns and hasattr(extractor, "fit"):
        learned = identity(train, range(len(train)), {**key, "extractor": chosen_config.model_dump(mode="json")})
        number = workers(config.workers, train, engine)
        file = home / f"extractor-{chosen_config.type}-{learned[:16]}.safetensors"
        extractors.fitted(extractor, file, learned, lambda: labelled(train, config.batch, number, console), engine=engine, console=console)
    title = title_of(extractor, "extractor")
    about = {"name": title, "type": chosen_config.type, "resize": str(getattr(extractor, "resize", "") or "") or None}
    about["fingerprint"] = extractors.fingerprint(extractor, chosen_config)
    return Parts(config, engine, model, splits, aside, extractor, about, home, console)


def refuse_none(config: EvalSamples) -> None:
    """A MismatchError where nothing says which pictures to compare with: the cache that the run was made from does, and it was moved."""
    if config.dataset is not None:
        return
    folder = folder_of(config.run)
    cache = config_of(folder).get("latents") if (folder / "config.yaml").exists() else None
    if cache is None:
        raise MismatchError("Nothing says which pictures to compare with: name them, or a cache, by --against.")
    raise MismatchError(
        f"The cache {cache} that {config.run} was made from is not here, or says no pictures; name it, or the pictures, by --against."
    )


def run_is_there(run: str) -> bool:
    """Whether `--run` names a model that can be opened."""
    try:
        return model_file(run, verb="fit-diffusion").exists()
    except MismatchError:
        return False


def fits(model: Model, config: EvalSamples) -> bool:
    """Whether the model's encoder takes the pictures that are compared."""
    return int(model.header["image"]["channels"]) == config.image.channels


def preparation(config: EvalSamples) -> dict[str, Any]:
    """All that decides how a picture looks to an extractor; where it lies does not: pictures are known by their stamps."""
    return {
        "image": config.image.preparation(),
        "dataset": config.dataset.model_dump(mode="json", exclude=PLACES) if config.dataset else None,
    }


def cache_of(config: EvalSamples) -> Path | None:
    """The cache that the pictures are known from: `against`, or the run's; None where there is none any more."""
    if config.against is not None:
        cache = Path(config.against).expanduser()
    else:
        name = config.run.rpartition("@")[0] if "@" in Path(config.run).name else config.run
        run = Path(name).expanduser()
        cache = Path(beside(run, str(config_of(run).get("latents", "")))).expanduser() if (run / "config.yaml").exists() else Path()
    return cache if (cache / "latents.json").exists() else None


def home_of(config: EvalSamples, folder: Path) -> Path:
    """Where features are kept: beside the latents of the same pictures, else in the command's own folder."""
    cache = cache_of(config)
    said = config.dataset.model_dump(mode="json") if config.dataset else None
    same = cache is not None and pictures_of(cache).get("dataset") == said
    return (cache if cache is not None and same else folder) / "features"


def samples_in(config: EvalSamples) -> int | None:
    """How many pictures the folder of samples holds; None where a run makes them."""
    return None if config.samples is None else Sampled(config.samples, []).found


def number_of(config: EvalSamples, model: Model | None) -> int:
    """How many samples there are to judge."""
    if config.samples is not None:
        return len(Sampled(config.samples, [], count=config.count))
    return config.count if model is None else len(wanted_so_far(config, model.header_for(config)))


def learned_from(config: EvalSamples, model: Model | None, samples: Pictures) -> bool | None:
    """Whether the pictures compared with are those that what made the samples learned from; None where nobody knows: of a folder whose
    pictures do not say that the run made them, or a run whose cache is not there."""
    dataset: Any = samples.dataset
    if config.samples is not None and (model is None or {model.fingerprint} != dataset.models()):
        return None
    own = pictures_for(folder_of(config.run)).get("dataset")
    if own is None or config.dataset is None:
        return None
    try:
        return bool(plugin_config("dataset", own).model_dump(mode="json") == config.dataset.model_dump(mode="json"))
    except LdmctlError:  # of a plugin that is not here, or of keys that it has no more
        return None


def samples_of(parts: Parts, folder: Path) -> tuple[Pictures, int]:
    """(the samples, how many were made now)."""
    config, made = parts.config, 0
    source: str | Path = config.samples or ""
    if config.samples is None:
        if parts.model is None:
            raise ConfigError("There is neither a run nor a folder of samples.")
        source, made = make_samples(parts.model, config, folder, parts.console)
        if unspoken(config, parts.model):
            parts.console.say(
                "This run hears words, and its samples are made without any, while the pictures that it learned from have captions. Judge what it "
                "makes of words with prompt=TEXT, or sample by prompts and judge the folder by --samples."
            )
    given = config.samples is not None
    dataset: Any = Sampled(source, parts.splits["train"].classes, count=number_of(config, parts.model), evenly=given)
    if given and dataset.found > len(dataset):
        parts.console.say(f"{config.samples} holds more pictures: {len(dataset):,} of {dataset.found:,} are judged, evenly. -n takes more.")
    if config.samples is not None and "count" in config.model_fields_set and len(dataset) < config.count:
        parts.console.say(f"{config.samples} holds {len(dataset):,} pictures, and {config.count:,} were asked for: those are judged.")
    return prepared_alike(dataset, config), made


def prepared_alike(samples: Any, config: EvalSamples) -> Pictures:
    """Samples, prepared as real pictures are, all of them: image.smallest says which real ones are too small to learn from."""
    return Pictures(samples, config.image.model_copy(update={"smallest": LEAST}), split="samples")


def noting_sizes(found: Iterator[Batch], config: EvalSamples, console: Console) -> Iterator[Batch]:
    """The same, with a warning in the end where samples had to be resized."""
    other: dict[tuple[int, int], None] = {}
    size = (config.image.size, config.image.size)
    for batch in found:
        other |= {facts.size: None for facts in batch.facts if facts.size != size}
        yield batch
    if other:
        some = ", ".join(f"{width}x{height}" for width, height in list(other)[:3])
        console.warn(
            f"Samples of {some} pixels were brought to {size[0]}x{size[1]}, as the real pictures are: resizing moves every distance."
        )
