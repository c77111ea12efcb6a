"""Which of a run's snapshots, and which length of its averages, makes the best samples: the same seeds through each, judged alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ldmctl.console import Console
from ldmctl.diffusion.network import fingerprint_of
from ldmctl.errors import MismatchError
from ldmctl.evaluation.comparison import Interval
from ldmctl.storage import weights
from ldmctl.storage.record import model_file
from ldmctl.training.posthoc_ema import snapshot_name, write_model

LENGTHS = (0.03, 0.05, 0.075, 0.1, 0.15, 0.2)  # between which the best lies nearly always (arXiv:2312.02696, figure 4)
BY = "frechet_distance"  # what the best has least of


def candidates(run: str, console: Console) -> Iterator[str]:
    """`runs/ldm` and `runs/ldm@NAME` of each snapshot. Where averages are stored, those of `LENGTHS` are built first, as `ldmctl ema` does."""
    name = run.rpartition("@")[0] if "@" in Path(run).name else run
    folder = Path(name).expanduser()
    if any((folder / "averages").glob("*.safetensors")):
        for length in LENGTHS:
            if not (folder / "snapshots" / f"{snapshot_name(length)}.safetensors").exists():
                file, _ = write_model(folder, length)
                console.say(f"Built the average of length {length:g}: {file}.")
    yield name
    for file in sorted((folder / "snapshots").glob("*.safetensors")):
        yield f"{name}@{file.stem}"


def curve(run: str, score: Callable[[str], tuple[int, dict[str, Interval]]], console: Console) -> dict[str, Any]:
    """{"curve": [{"run", "step", measure: {"value", "low", "high"}}, ...] by step, "best", "verdict"}, equal models once; `score` makes and compares samples."""
    rows: list[dict[str, Any]] = []
    judged: dict[str, str] = {}  # names by the fingerprints of their models
    for name in candidates(run, console):
        try:
            model = fingerprint_of(*weights.load(model_file(name, verb="fit-diffusion")))
            if (same := judged.setdefault(model, name)) != name:
                console.say(f"{name} is the same model as {same}, so it is left out.")
                continue
            step, found = score(name)
        except MismatchError as error:
            console.warn(f"{name} is left out: {error}")
            continue
        rows.append(
            {"run": name, "step": step, **{key: dict(zip(("value", "low", "high"), value, strict=True)) for key, value in found.items()}}
        )
        console.say(f"{name}, step {step:,}: {BY.replace('_', ' ')} {found[BY][0]:.4g} ({found[BY][1]:.4g} to {found[BY][2]:.4g})")
    if not rows:
        raise MismatchError(f"None of the snapshots of {run} can be judged.")
    rows.sort(key=lambda row: (row["step"], row["run"]))
    best = min(rows, key=lambda row: row[BY]["value"])
    return {"curve": rows, "best": best["run"], "verdict": [sentence(rows, best)]}


def sentence(rows: list[dict[str, Any]], best: dict[str, Any]) -> str:
    """Which is best, and which others may be as good."""
    alike = [row["run"] for row in rows if row is not best and row[BY]["low"] <= best[BY]["high"]]
    said = f"{best['run']} (step {best['step']:,}) has the least Frechet distance of {len(rows)}: {best[BY]['value']:.4g}."
    if not alike:
        return f"{said} No other comes near it."
    return f"{said} At this number of samples {', '.join(alike[:5])}{' and others' if len(alike) > 5 else ''} cannot be told from it."
