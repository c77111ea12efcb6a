"""The chapter of a run of fit-ae or fit-diffusion."""

from __future__ import annotations

import shlex
from typing import Any

from ldmctl.config.schemas.verbs import VERBS
from ldmctl.config.usual import ABSENT, beside_defaults
from ldmctl.console import duration
from ldmctl.evaluation.report.curves import curves
from ldmctl.evaluation.report.parts import Chapter, Found, Key, Score, Scores, Sheet, listing, objects, part, written
from ldmctl.evaluation.report.pictures import Album, previews, said_below
from ldmctl.storage.runs import VAL, Look, finite, size_of, whole, word

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
    chapter.verdict = [("", str(each)) for each in listing(part(record, "judged"), "verdict")]
    chapter.scores = measured(part(record, "judged"))
    shown, more = curves(look)
    chapter.plots, chapter.more_plots = shown, more
    if not look.rows:
        chapter.troubles.append(f"It has reported no numbers{' yet' if look.state == 'running' else ''}, so there are no curves.")
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
    kind = part(look.config, PARTS.get(look.verb or "", "")).get("type")
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
    pictures = part(record, "pictures")
    counts = {split: part(pictures, split).get("count") for split in pictures} or part(record, "cache_items")
    chapter.fact("pictures", ", ".join(f"{split} {count:,}" for split, count in counts.items() if isinstance(count, int)))
    chapter.fact("passes over them", passes(look, counts.get("train")))
    if (best := look.best()) is not None:
        chapter.fact("best validation loss", f"{best[1]:.4g} at step {best[0]:,}")
    if published := part(record, "published"):
        said = f"the {published.get('which')} ones, of step {written(published.get('step'))}: {published.get('why')}"
        chapter.fact("published weights", said)
    chapter.fact("made from", word(record.get("parent")))
    chapter.fact("plugins", ", ".join(map(str, listing(record, "plugins"))))
    chapter.fact("versions", ", ".join(f"{name} {value}" for name, value in part(record, "versions").items()))
    chapter.fact("fingerprint of the cache", (word(record.get("cache")) or "")[:LONG])
    chapter.fact("fingerprint of the latents' space", (word(record.get("latent_space")) or "")[:LONG])
    chapter.fact("hash of the pictures' names", (word(part(pictures, "train").get("names")) or "")[:LONG])


def passes(look: Look, count: Any) -> str | None:
    """How often each training picture was seen."""
    batch, count = whole(part(look.config, "loop").get("batch")), whole(count)
    return f"{look.step * batch / count:,.1f}" if look.step and batch and count else None


def measured(judged: Found) -> list[Scores]:
    """PSNR, SSIM and distances of an autoencoder, beside the downsampled pictures."""
    rows = []
    for name in judged:
        each = part(judged, name)
        if (mean := finite(each.get("mean"))) is not None and "low" in each:
            other = finite(part(part(judged, "baseline"), name).get("mean"))
            rows.append(Score(name.upper(), mean, finite(each["low"]), finite(each.get("high")), other))
    caption = f"Reconstructions of {written(judged.get('count'))} pictures of the {judged.get('split')} split"
    return [Scores(caption, "downsampled", rows)] if rows else []


def commands(record: Found) -> list[Sheet]:
    """Each command that worked on it, where there were several."""
    names = ("started", "status", "from_step", "to_step", "command")
    rows = [["" if each.get(name) is None else written(each[name]) for name in names] for each in objects(record, "history")]
    head = ["started", "ended", "from step", "to step", "command"]
    return [Sheet("Commands that worked on it", head, rows, folded=True)] if len(rows) > 1 else []


def changes(record: Found) -> list[Sheet]:
    """Keys that were changed on the way."""
    rows = [[written(each.get(name)) for name in ("key", "from", "to", "step")] for each in objects(record, "changes")]
    return [Sheet("Changed on the way", ["key", "from", "to", "from step"], rows)] if rows else []


def keys(look: Look) -> list[Key]:
    """Every key, and whether it is at its default."""
    schema = VERBS.get(look.verb or "")
    if schema is None or not look.config:
        return []
    return [
        Key(path, written(value), "" if default is ABSENT else written(default), default is not ABSENT and value != default)
        for path, value, default in beside_defaults(schema, look.config, look.record.get("defaults"))
    ]


def repeat(look: Look) -> list[str]:
    """The commands that make it again: as it was made, and from its config."""
    said = word(look.record.get("command"))
    words = ["ldmctl", str(look.verb), "--config", str(look.folder / "config.yaml"), "--out", f"{look.folder}-again"]
    again = shlex.join(words) if look.verb in PARTS else None
    return [
        *(["# as it was made", said] if said else []),
        *(["# from its config, whatever presets have become", again] if again else []),
    ]
