"""How good samples are: made by a run, or lying in a folder; against the pictures that the run learned from, or others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldmctl.config.documents import write_json
from ldmctl.config.presets import pictures_of
from ldmctl.config.schemas.eval_samples import EvalSamples
from ldmctl.console import Console
from ldmctl.diffusion.making import make_samples
from ldmctl.diffusion.model import Model, open_model
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.evaluation import extractors, memorisation, sample_report
from ldmctl.evaluation.extraction import Seen, chosen, identity, look_at
from ldmctl.evaluation.extractors import Encoder
from ldmctl.evaluation.real import Aside, Real, labelled, look_at_real, set_aside
from ldmctl.evaluation.sample_verdict import judge, small
from ldmctl.evaluation.sheets import write_pairs
from ldmctl.pictures.batches import Batch, Pictures
from ldmctl.pictures.introduction import introduce
from ldmctl.pictures.loading import open_pictures, workers
from ldmctl.pictures.sampled import Sampled
from ldmctl.storage.atomic import write_text
from ldmctl.storage.folder import make_folder
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


def eval_samples(config: EvalSamples, out: str | Path, *, console: Console) -> dict[str, Any]:
    """{"of", "count", "extractor", "measures", "asked", "classes", "memorisation", "duplicates", "verdict", ...}, also written into `out`.

    Samples that a run makes lie in `out` too, and are kept: a command that was stopped goes on, as a Stopped says. With `curve` it is
    {"curve": [...], "best"} of the run's snapshots.
    """
    # Build the parts.
    folder = Path(out).expanduser()
    parts = open_parts(config, folder, console)
    make_folder(folder)

    # Look at the pictures.
    real = look_at_all(parts)
    given, made = samples_of(parts, folder)
    samples = look_at(
        noting_sizes(chosen(given, list(range(len(given))), *parts.batches, console, "looking at samples"), config, console),
        parts.extractor,
        parts.engine,
    )

    # Measure.
    result: dict[str, Any] = {
        "of": f"{config.samples}" if config.samples else f"samples of {parts.model.source if parts.model else config.run}",
        **{"count": len(samples), "made": made, "references": len(real.reference), "extractor": parts.about},
        "measures": sample_report.measures(samples, real.aside, real.compared, parts.extractor),
        "asked": sample_report.asked(samples, real, parts.extractor, parts.engine),
        "classes": sample_report.by_class(samples, real, parts.splits["train"].classes, parts.extractor, parts.engine),
    }
    result |= look_for_copies(parts, samples, real, given, folder)

    # Say it.
    result = dict(json.loads(write_json(result)))
    result["verdict"] = [each.sentence for each in judge(result)]
    if caution := small(len(samples), samples.features.shape[1], parts.about["name"]):
        result["verdict"].insert(0, caution)
    if real.aside.features.shape[0] < len(samples):
        result["verdict"].insert(0, few(len(real.aside), len(samples)))
    write_text(folder / "judgement.json", write_json(result) + "\n")
    console.say(
        f"Everything is in {folder}: judgement.json"
        + (f", {', '.join(Path(each).name for each in result['sheets'])}." if result["sheets"] else ".")
    )
    return result


def plan_eval_samples(config: EvalSamples, out: str | Path) -> dict[str, Any]:
    """What would be compared, and by what; raises as it would in earnest."""
    parts = open_parts(config, Path(out).expanduser(), Console(quiet=True))
    number = len(Sampled(config.samples, [], count=config.count)) if config.samples else config.count
    return {
        "samples": f"{number:,} of {config.samples or config.run}",
        "against": f"{len(parts.aside.reference):,} references of {len(parts.splits['train']):,} training pictures",
        "beside": f"{parts.aside.count:,} other real pictures",
        "extractor": parts.about["name"],
    }


def few(aside: int, count: int) -> str:
    """What it means that fewer real pictures stand beside the samples."""
    return (
        f"Only {aside:,} real pictures could be set aside, so real against real is of {aside:,} and samples are {count:,}. Distances of fewer "
        f"pictures are larger: take -n {aside:,} to compare at the same number."
    )


# -- parts -----------------------------------------------------------------------


def open_parts(config: EvalSamples, folder: Path, console: Console) -> Parts:
    """Everything before the first expensive second; an extractor that learns has learned."""
    engine = engines.start(config.machine)
    model = None
    if config.samples is None or run_is_there(config.run):
        model = open_model(config.run, engine, tile=config.machine.tile, ae=config.ae)
    splits = {split: open_pictures(config, split) for split in ("train", "val")}
    introduce(splits, console)
    train = splits["train"]
    encoder = Encoder(model.codec, model.decoder) if model is not None and fits(model, config) else None
    has_labels = bool(train.classes) and len(train.classes) > 1
    chosen_config = extractors.choose(config.extractor, labelled=has_labels, encoder=encoder)
    context = {"image_channels": config.image.channels, "size": config.image.size, "classes": train.classes, "encoder": encoder}
    extractor = extractors.build(chosen_config, engine, **context)
    count = len(Sampled(config.samples, [], count=config.count)) if config.samples else config.count
    aside = set_aside(len(train), len(splits["val"]), count, config.references)
    home = home_of(config, folder)
    key = preparation(config)
    if hasattr(extractor, "fit"):
        learned = identity(train, range(len(train)), {**key, "extractor": chosen_config.model_dump(mode="json")})
        number = workers(config.workers, train, engine)
        file = home / f"extractor-{chosen_config.type}-{learned[:16]}.safetensors"
        extractors.fitted(extractor, file, learned, lambda: labelled(train, config.batch, number, console), console)
    title = extractors.title_of(extractor)
    about = {"name": title, "type": chosen_config.type, "fingerprint": extractors.fingerprint(extractor, chosen_config)}
    return Parts(config, engine, model, splits, aside, extractor, about, home, console)


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
    """All that decides how a picture looks to an extractor."""
    image = config.image.model_dump(mode="json", exclude={"flip", "crop", "smallest", "max_pixels"})
    return {"image": image, "dataset": config.dataset.model_dump(mode="json") if config.dataset else None}


def cache_of(config: EvalSamples) -> Path | None:
    """The cache that the pictures are known from: `against`, or the run's; None where there is none any more."""
    if config.against is not None:
        cache = Path(config.against).expanduser()
    else:
        name = config.run.rpartition("@")[0] if "@" in Path(config.run).name else config.run
        run = Path(name).expanduser()
        cache = Path(str(config_of(run).get("latents", ""))).expanduser() if (run / "config.yaml").exists() else Path()
    return cache if (cache / "latents.json").exists() else None


def home_of(config: EvalSamples, folder: Path) -> Path:
    """Where features are kept: beside the latents of the same pictures, else in the command's own folder."""
    cache = cache_of(config)
    same = cache is not None and pictures_of(cache).get("data") == config.data
    return (cache if cache is not None and same else folder) / "features"


def look_at_all(parts: Parts) -> Real:
    """The real pictures through the extractor, or as an earlier command saw them."""
    config, (batch, number) = parts.config, parts.batches
    key = {**preparation(config), "extractor": parts.about["fingerprint"]}
    more: dict[str, Any] = {
        "every": config.nearest,
        "batch": batch,
        "workers": number,
        "home": parts.home,
        "key": key,
        "console": parts.console,
    }
    return look_at_real(parts.splits, parts.aside, parts.extractor, parts.engine, **more)


def samples_of(parts: Parts, folder: Path) -> tuple[Pictures, int]:
    """(the samples, how many were made now)."""
    config, made = parts.config, 0
    source: str | Path = config.samples or ""
    if config.samples is None:
        if parts.model is None:
            raise ConfigError("There is neither a run nor a folder of samples.")
        source, made = make_samples(parts.model, config, folder, parts.console)
    dataset: Any = Sampled(source, parts.splits["train"].classes, count=config.count)
    if config.samples is not None and len(dataset) < config.count:
        parts.console.say(f"{config.samples} holds {len(dataset):,} pictures, and {config.count:,} were asked for: those are judged.")
    return Pictures(dataset, config.image, split="samples"), made


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


# -- copies ----------------------------------------------------------------------


def look_for_copies(parts: Parts, samples: Seen, real: Real, given: Pictures, folder: Path) -> dict[str, Any]:
    """{"memorisation", "duplicates", "sheets"}: of samples among training pictures and among each other."""
    sheets = []
    twice = memorisation.duplicates(samples, real.aside) if min(len(samples), len(real.aside)) > 1 else None
    found: dict[str, Any] = {"memorisation": None, "duplicates": None}
    if twice is not None:
        found["duplicates"] = sample_report.copied(twice, of=len(samples), ordinary="real pictures")
        sheets.append(write_pairs(folder / "alike.png", twice, (given, samples), (given, samples), ("sample", "nearest other sample")))
    if real.train is not None and len(real.train) > 1:
        ordinary = "held-out pictures" if real.val is not None else "training pictures to each other"
        near = memorisation.copies(samples, real.train, real.val)
        found["memorisation"] = sample_report.copied(near, of=len(real.train), ordinary=ordinary, passes=passes_of(parts, len(real.train)))
        names = ("sample", "nearest training picture")
        sheets.append(write_pairs(folder / "closest.png", near, (given, samples), (parts.splits["train"], real.train), names))
    return {**found, "sheets": [str(sheet) for sheet in sheets]}


def passes_of(parts: Parts, count: int) -> float | None:
    """How often the run has seen each training picture; None where nobody knows."""
    if parts.model is None or parts.config.samples is not None:
        return None
    source = parts.model.source
    folder = source.parent.parent if source.parent.name == "snapshots" else source.parent
    batch = config_of(folder).get("loop", {}).get("batch") if (folder / "config.yaml").exists() else None
    return parts.model.header.get("step", 0) * batch / count if isinstance(batch, int) else None
