"""The chapter of a run of fit-ae or fit-diffusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmctl.config.schemas.verbs import VERBS
from ldmctl.config.usual import ABSENT, beside_defaults
from ldmctl.console import duration
from ldmctl.evaluation.report.curves import curves
from ldmctl.evaluation.report.parts import Chapter, Key, Score, Scores, Sheet, written
from ldmctl.evaluation.report.pictures import Album, previews, said_below
from ldmctl.storage.runs import VAL, Look, finite, size_of, word

TITLES = {"fit-ae": "Autoencoder", "fit-diffusion": "Denoiser", "encode-dataset": "Cache of latents"}
PARTS = {"fit-ae": "autoencoder", "fit-diffusion": "denoiser"}
ENDS = {
    "running": "It is still running.",
    "stopped": "It was stopped and everything is saved: the same command continues it.",
    "killed": "Its process ended without a word: the same command continues it from the last saved state.",
    "diverged": "It diverged: numbers were no longer finite. A lower loop.lr is the first thing to try.",
    "damaged": "Its run.json cannot be read, so little is known of it.",
}
SHOWN = {
    "fit-ae": "held-out pictures over their reconstructions",
    "fit-diffusion": "samples of the same seeds and labels",
}
LONG = 20  # characters of a hash


def training(look: Look, album: Album) -> Chapter:
    """What a run says of itself."""
    verb, record = look.verb or "", look.record
    chapter = Chapter(TITLES.get(verb, "A run"), str(look.folder), lead(look), look.state, troubles=list(look.troubles))
    facts(chapter, look)
    judged = record.get("judged")
    if isinstance(judged, Mapping):
        chapter.verdict += [("", str(each)) for each in judged.get("verdict") or []]
        chapter.scores += measured(judged)
    shown, more = curves(look)
    chapter.plots, chapter.more_plots = shown, more
    if not look.rows:
        chapter.troubles.append("It has reported no numbers yet, so there are no curves.")
    elif not look.values(VAL)[0]:
        chapter.troubles.append("Nothing was validated: there is no validation loss.")
    samples = look.folder / "samples"
    chapter.slides = previews(samples, album, SHOWN.get(verb, "preview"))
    for name, title in (("verdict", "Reconstructions"), ("latents", "Latent channels")):
        if (file := samples / f"{name}.png").exists() and (figure := album.add(file, f"{title}. {said_below(file)}", said_below(file))):
            chapter.figures.append(figure)
    if (file := look.folder / "checkup" / "checkup.png").exists() and (
        figure := album.add(file, "The checkup of ldmctl doctor", said_below(file))
    ):
        chapter.figures.append(figure)
    chapter.sheets += [*commands(record), *changes(record)]
    chapter.config = keys(look)
    chapter.repeat = repeat(look)
    return chapter


def lead(look: Look) -> str:
    """What it is, and how far."""
    part = look.config.get(PARTS.get(look.verb or "", ""))
    kind = part.get("type") if isinstance(part, Mapping) else None
    what = f"A {kind} {PARTS.get(look.verb or '', 'run')}" if kind else "A run"
    data = look.config.get("data") if look.verb == "fit-ae" else look.config.get("latents")
    on = f", trained on {data}" if data else ""
    steps = "" if look.step is None else f" {look.step:,}" + (f" of {look.steps:,}" if look.steps else "") + " steps are done."
    return " ".join(each for each in (f"{what}{on}.", steps.strip(), ENDS.get(look.state, "")) if each)


def facts(chapter: Chapter, look: Look) -> None:
    """How it was made, what it cost, and by what it is known."""
    record, last = look.record, look.last()
    chapter.fact("command", word(record.get("command")))
    chapter.fact("started", word(record.get("started")))
    chapter.fact("time", None if look.seconds is None else duration(look.seconds))
    speed = look.values("images_per_second")[1]
    chapter.fact("speed", f"{sorted(speed)[len(speed) // 2]:,.0f} pictures a second" if speed else None)
    chapter.fact("memory", f"{max(look.values('memory_gib')[1]):.2f} GiB at most" if "memory_gib" in last else None)
    chapter.fact("disk", f"{size_of(look.folder) / 2**20:,.1f} MiB")
    counts = (
        {split: each.get("count") for split, each in (record.get("pictures") or {}).items() if isinstance(each, Mapping)}
        if isinstance(record.get("pictures"), Mapping)
        else record.get("cache_items")
    )
    if isinstance(counts, Mapping):
        chapter.fact("pictures", ", ".join(f"{split} {count:,}" for split, count in counts.items() if isinstance(count, int)))
        chapter.fact("passes over them", passes(look, counts.get("train")))
    if (best := look.best()) is not None:
        chapter.fact("best validation loss", f"{best[1]:.4g} at step {best[0]:,}")
    published = record.get("published")
    if isinstance(published, Mapping):
        chapter.fact(
            "published weights", f"the {published.get('which')} ones, of step {written(published.get('step'))}: {published.get('why')}"
        )
    chapter.fact("made from", word(record.get("parent")))
    plugins = record.get("plugins")
    chapter.fact("plugins", ", ".join(map(str, plugins)) if isinstance(plugins, list) else None)
    versions = record.get("versions")
    chapter.fact("versions", ", ".join(f"{name} {value}" for name, value in versions.items()) if isinstance(versions, Mapping) else None)
    for name, title in (("cache", "fingerprint of the cache"), ("latent_space", "fingerprint of the autoencoder")):
        chapter.fact(title, (word(record.get(name)) or "")[:LONG])
    pictures = record.get("pictures")
    train = pictures.get("train") if isinstance(pictures, Mapping) else None
    chapter.fact("hash of the pictures' names", (word(train.get("names")) or "")[:LONG] if isinstance(train, Mapping) else None)


def passes(look: Look, count: Any) -> str | None:
    """How often each training picture was seen."""
    loop = look.config.get("loop")
    batch = loop.get("batch") if isinstance(loop, Mapping) else None
    return f"{look.step * batch / count:,.1f}" if look.step and isinstance(batch, int) and isinstance(count, int) and count else None


def measured(judged: Mapping[str, Any]) -> list[Scores]:
    """PSNR, SSIM and distances of an autoencoder, beside the pictures merely shrunk."""
    baseline = judged.get("baseline")
    rows = []
    for name, each in judged.items():
        if isinstance(each, Mapping) and (mean := finite(each.get("mean"))) is not None and "low" in each:
            theirs = baseline.get(name) if isinstance(baseline, Mapping) else None
            other = finite(theirs.get("mean")) if isinstance(theirs, Mapping) else None
            rows.append(Score(name.upper(), mean, finite(each["low"]), finite(each.get("high")), other))
    caption = f"Reconstructions of {written(judged.get('count'))} pictures of the {judged.get('split')} split"
    return [Scores(caption, "merely shrunk", rows)] if rows else []


def commands(record: Mapping[str, Any]) -> list[Sheet]:
    """Each command that worked on it, where there were several."""
    told = record.get("history")
    rows = [
        [written(each.get(name)) if each.get(name) is not None else "" for name in ("started", "status", "from_step", "to_step", "command")]
        for each in (told if isinstance(told, list) else [])
        if isinstance(each, Mapping)
    ]
    return (
        [Sheet("Commands that worked on it", ["started", "ended", "from step", "to step", "command"], rows, folded=True)]
        if len(rows) > 1
        else []
    )


def changes(record: Mapping[str, Any]) -> list[Sheet]:
    """Keys that were changed on the way."""
    told = record.get("changes")
    rows = [
        [str(each.get("key")), written(each.get("from")), written(each.get("to")), written(each.get("step"))]
        for each in (told if isinstance(told, list) else [])
        if isinstance(each, Mapping)
    ]
    return [Sheet("Changed on the way", ["key", "from", "to", "from step"], rows)] if rows else []


def keys(look: Look) -> list[Key]:
    """Every key, and whether it is at its default."""
    schema = VERBS.get(look.verb or "")
    if schema is None or not look.config:
        return []
    return [
        Key(path, written(value), "" if default is ABSENT else written(default), default is not ABSENT and value != default)
        for path, value, default in beside_defaults(schema, look.config)
    ]


def repeat(look: Look) -> list[str]:
    """The commands that make it again: as it was made, and from its config."""
    said = word(look.record.get("command"))
    again = f"ldmctl {look.verb} --config {look.folder / 'config.yaml'} --out {look.folder}-again" if look.verb in PARTS else None
    return [each for each in (said, again) if each]
