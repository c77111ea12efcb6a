"""A training step timed round after round: what the reports of one run say of it, and what is kept of all rounds."""

import json
import statistics
from pathlib import Path
from typing import Any


def refuse_few(steps: int, report: int) -> None:
    """End where a run has no report between the first, which holds the start, and the last, which holds a validation."""
    if steps < 3 * report:
        raise SystemExit("--steps must be at least three times --report: the first report and the last are left out.")


def reported(run: Path, key: str) -> list[float]:
    """One number of every report of a run folder."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row[key] for row in lines if key in row]


def rates(run: Path) -> list[float]:
    """Images per second of every report but the first and the last."""
    return reported(run, "images_per_second")[1:-1]


def summary(runs: list[dict[str, Any]], batch: int) -> dict[str, Any]:
    """Medians of runs {"seconds": of a step in each report, "resident_mib", "device_mib"}, with the median of each round beside."""
    rounds = [statistics.median(run["seconds"]) for run in runs]
    seconds = statistics.median(rounds)
    out = {
        "seconds_per_step": round(seconds, 5),
        "images_per_second": round(batch / seconds, 1),
        "rounds": [round(each, 5) for each in rounds],
    }
    for name in ("resident_mib", "device_mib"):
        if runs[0][name] is not None:
            out[name] = round(statistics.median(run[name] for run in runs))
    return out
