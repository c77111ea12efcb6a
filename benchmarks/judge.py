"""What `ldmctl eval-samples` says of samples, as the benchmarks keep it: each number beside real pictures at the same number."""

import time
from pathlib import Path
from typing import Any

from machine import ldmctl

SHARES = ("precision", "recall", "density", "coverage")
DISTANCES = ("frechet_distance", "kernel_distance")


def judge(folder: Path, out: str, *words: str) -> dict[str, Any]:
    """`eval-samples WORDS --out OUT` in a folder -> `brief` of what it said, and the minutes that it took, samples that it made included."""
    began = time.perf_counter()
    answer, _ = ldmctl("eval-samples", *words, "--out", out, "-q", cwd=folder)
    return {**brief(answer), "made": answer["made"], "minutes": round((time.perf_counter() - began) / 60, 2)}


def brief(answer: dict[str, Any]) -> dict[str, Any]:
    """Of a judgement: how many samples, by which extractor; [value, low, high] of each number, and its value for as many real pictures."""
    numbers = {name: answer["measures"][name] for name in (*DISTANCES, *SHARES)}
    if answer["asked"] is not None:
        numbers["seen_as_asked"] = answer["asked"]
    if answer["memorisation"] is not None:
        numbers["copied"] = {**answer["memorisation"], "value": answer["memorisation"]["share"], "real": None}
    return {
        "count": answer["count"],
        "extractor": answer["extractor"]["name"],
        **{name: [significant(row[key]) for key in ("value", "low", "high")] for name, row in numbers.items()},
        "real": {name: significant(row["real"]["value"]) for name, row in numbers.items() if row["real"] is not None},
    }


def significant(value: float) -> float:
    """The number with four significant digits."""
    return float(f"{value:.4g}")
