"""How good samples are: made by a run, or lying in a folder; against the pictures that the run learned from, or others."""

import json
from pathlib import Path
from typing import Any

from ldmctl.config.documents import write_json
from ldmctl.config.schemas.eval_samples import EvalSamples
from ldmctl.console import Console
from ldmctl.diffusion.making import make_samples
from ldmctl.diffusion.model import open_model
from ldmctl.errors import ConfigError
from ldmctl.evaluation import memorisation, sample_report
from ldmctl.evaluation.comparison import Interval, compare
from ldmctl.evaluation.curve import curve
from ldmctl.evaluation.extraction import Seen, chosen, look_at
from ldmctl.evaluation.hearing import heard
from ldmctl.evaluation.judging import (
    Parts,
    learned_from,
    noting_sizes,
    number_of,
    open_parts,
    preparation,
    prepared_alike,
    samples_in,
    samples_of,
)
from ldmctl.evaluation.real import Real, look_at_real
from ldmctl.evaluation.sample_verdict import judge, small
from ldmctl.evaluation.sheets import write_pairs
from ldmctl.pictures.album import refuse_foreign
from ldmctl.pictures.batches import Pictures, evenly
from ldmctl.pictures.sampled import Sampled
from ldmctl.storage.answers import refuse_foreign_answer
from ldmctl.storage.atomic import write_text
from ldmctl.storage.folder import make_folder
from ldmctl.storage.record import config_of


def eval_samples(config: EvalSamples, out: str | Path, *, console: Console) -> dict[str, Any]:
    """{"of", "count", "extractor", "measures", "asked", "classes", "words", "memorisation", "duplicates", "verdict", ...}, also written into `out`.

    Samples that a run makes lie in `out` too, and are kept: a command that was stopped goes on, as a Stopped says. With `curve` it is
    {"curve": [...], "best"} of the run's snapshots.
    """
    refuse_both(config)

    # Build the parts.
    folder = Path(out).expanduser()
    parts = open_parts(config, folder, console)
    make_folder(folder)
    refuse_foreign(folder / "closest.png", folder / "alike.png")
    refuse_foreign_answer(folder / "judgement.json", ("measures", "extractor", "verdict"))
    refuse_foreign_answer(folder / "curve.json", ("curve", "extractor"))

    # Look at the pictures.
    real = look_at_all(parts)
    if config.curve:
        scored = {"of": config.run, "extractor": parts.about, **judge_snapshots(parts, real, folder)}
        write_text(folder / "curve.json", write_json(scored) + "\n")
        return dict(json.loads(write_json(scored)))
    given, made = samples_of(parts, folder)
    samples = look_at(
        noting_sizes(chosen(given, range(len(given)), *parts.batches, console, "looking at samples"), config, console),
        parts.extractor,
        parts.engine,
    )

    if given.bad:
        many = f"{len(given.bad):,} samples" if given.bad[1:] else "1 sample"
        console.warn(f"{many} cannot be read and {'are' if given.bad[1:] else 'is'} left out; the first: {given.bad[0]['reason']}.")

    # Measure.
    result: dict[str, Any] = {
        "of": f"{config.samples}" if config.samples else f"samples of {parts.model.source if parts.model else config.run}",
        **{
            "count": len(samples),
            "there": there_of(given) if config.samples else None,
            "unreadable": [item["reason"] for item in given.bad],
            "made": made,
            "references": len(real.reference),
            "extractor": {**parts.about, "features": samples.features.shape[1]},
        },
        "measures": sample_report.measures(samples, real.aside, real.compared, parts.extractor),
        "asked": sample_report.asked(samples, real, parts.extractor, parts.engine),
        "classes": sample_report.by_class(samples, real, parts.splits["train"].classes, parts.extractor, parts.engine),
        "words": heard(parts, given),
    }
    result |= look_for_copies(parts, samples, real, given, folder)

    # Say it.
    result = dict(json.loads(write_json(result)))
    judgements = judge(result)
    result["judgements"] = [each._asdict() for each in judgements]
    result["verdict"] = [each.sentence for each in judgements]
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
    refuse_both(config)
    parts = open_parts(config, Path(out).expanduser(), Console(quiet=True), learns=False)
    count, there = number_of(config, parts.model), samples_in(config)
    return {
        "samples": f"{count:,} of {config.samples or config.run}"
        if there is None or there <= count
        else f"{count:,} of {there:,} pictures in {config.samples}, evenly",
        "against": f"{len(parts.aside.reference):,} references of {len(parts.splits['train']):,} training pictures",
        "beside": f"{parts.aside.count:,} other real pictures",
        "extractor": parts.about["name"],
    }


def few(aside: int, count: int) -> str:
    """What it means that fewer real pictures stand beside the samples."""
    return (
        f"Only {aside:,} real pictures could be set aside, beside {count:,} samples. Distances of fewer pictures are larger, so they are judged by "
        f"{aside:,} of the samples, evenly: take -n {aside:,} to have one number of both."
    )


def refuse_both(config: EvalSamples) -> None:
    """A ConfigError for a folder of samples where the snapshots of a run are to be judged."""
    if config.curve and config.samples is not None:
        raise ConfigError("curve judges the snapshots of a run; leave samples out.")


def there_of(given: Pictures) -> int:
    """How many pictures the folder of samples holds, of which these are judged."""
    dataset: Any = given.dataset
    return int(dataset.found)


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


def judge_snapshots(parts: Parts, real: Real, folder: Path) -> dict[str, Any]:
    """What `curve` says of the run's snapshots; each makes the same seeds."""
    config = parts.config

    def score(name: str) -> tuple[int, dict[str, Interval]]:
        model = open_model(name, parts.engine, tile=config.machine.tile, ae=config.ae)
        made, _ = make_samples(model, config, folder, parts.console)
        dataset: Any = Sampled(made, [], count=number_of(config, model))
        pictures = prepared_alike(dataset, config)
        seen = look_at(
            chosen(pictures, range(len(pictures)), *parts.batches, parts.console, "looking at samples"), parts.extractor, parts.engine
        )
        return int(model.header.get("step", 0)), compare(seen.features, real.compared)

    return curve(config.run, score, parts.console)


# -- copies ----------------------------------------------------------------------


def look_for_copies(parts: Parts, samples: Seen, real: Real, given: Pictures, folder: Path) -> dict[str, Any]:
    """{"memorisation", "duplicates", "sheets"}: of samples among training pictures and among each other."""
    sheets = []
    count = min(len(samples), len(real.reference))  # of both: neighbours are nearer in a denser set
    mine, others = (each.take(evenly(len(each), count)) for each in (samples, real.reference))
    twice = memorisation.duplicates(mine, others) if count > 1 else None
    found: dict[str, Any] = {"memorisation": None, "duplicates": None}
    if twice is not None:
        found["duplicates"] = sample_report.copied(twice, of=len(samples))
        sheets.append(write_pairs(folder / "alike.png", twice, (given, mine), (given, mine), ("sample", "nearest other sample")))
    if real.train is not None and len(real.train) > 1:
        near, learned = memorisation.copies(samples, real.train, real.val), learned_from(parts.config, parts.model, given)
        passes = passes_of(parts, len(real.train)) if learned else None
        found["memorisation"] = sample_report.copied(near, of=len(real.train), passes=passes, learned=learned)
        names = ("sample", "nearest training picture" if learned else "nearest picture compared with")
        sheets.append(write_pairs(folder / "closest.png", near, (given, samples), (parts.splits["train"], real.train), names))
    return {**found, "sheets": [str(sheet) for sheet in sheets]}


def passes_of(parts: Parts, count: int) -> float | None:
    """How often the run has seen each training picture; None where nobody knows."""
    if parts.model is None:
        return None
    source = parts.model.source
    folder = source.parent.parent if source.parent.name == "snapshots" else source.parent
    batch = config_of(folder).get("loop", {}).get("batch") if (folder / "config.yaml").exists() else None
    return parts.model.header.get("step", 0) * batch / count if isinstance(batch, int) else None
