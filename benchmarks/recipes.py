"""Which recipe makes the best digits: schedule x prediction x times x weighting on the latents of MNIST, all else equal.

LDMCTL_DATA=FOLDER_WITH_MNIST python benchmarks/recipes.py FOLDER [--steps 1500] [--count 2000] [--only NAME ...]

FOLDER is what `benchmarks/mnist.py FOLDER` left: its autoencoder and its cache. Every recipe trains the U-Net of the MNIST preset for as
many steps from the same seed, makes as many labelled samples of the same seeds without guidance, and is judged by `ldmctl eval-samples`. Three
recipes are run with two seeds each: a difference smaller than between two seeds says nothing. Distances of fewer than 5,000 samples are to be
compared with each other only. Results are written after each recipe, so an interrupted table continues; a folder of its own keeps each run.
Each number of steps has its own table, `results/recipes_STEPS.json`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from judge import judge
from machine import RESULTS, describe, keep, ldmctl

CLASSES = 10
RECIPES: dict[str, list[str]] = {
    "cosine v": ["schedule=cosine", "prediction=v"],
    "cosine v, another seed": ["schedule=cosine", "prediction=v", "loop.seed=1"],
    "cosine eps": ["schedule=cosine", "prediction=eps"],
    "cosine x0": ["schedule=cosine", "prediction=x0"],
    "cosine x0, another seed": ["schedule=cosine", "prediction=x0", "loop.seed=1"],
    "linear eps": ["schedule=linear", "prediction=eps"],
    "linear v": ["schedule=linear", "prediction=v"],
    "scaled-linear eps": ["schedule=scaled-linear", "prediction=eps"],
    "scaled-linear v": ["schedule=scaled-linear", "prediction=v"],
    "flow": ["schedule=flow", "prediction=flow"],
    "flow v": ["schedule=flow", "prediction=v"],
    "cosine v, stratified": ["schedule=cosine", "prediction=v", "times.sampling=stratified"],
    "flow, stratified": ["schedule=flow", "prediction=flow", "times.sampling=stratified"],
    "cosine v, logit-normal": ["schedule=cosine", "prediction=v", "times.sampling=logit-normal"],
    "flow, logit-normal": ["schedule=flow", "prediction=flow", "times.sampling=logit-normal"],
    "flow, logit-normal, another seed": ["schedule=flow", "prediction=flow", "times.sampling=logit-normal", "loop.seed=1"],
    "cosine v, min-snr": ["schedule=cosine", "prediction=v", "weighting.kind=min-snr"],
    "cosine v, soft-min-snr": ["schedule=cosine", "prediction=v", "weighting.kind=soft-min-snr"],
    "cosine v, learned": ["schedule=cosine", "prediction=v", "weighting.kind=learned"],
    "flow, learned": ["schedule=flow", "prediction=flow", "weighting.kind=learned"],
    "cosine v, offset noise": ["schedule=cosine", "prediction=v", "noise.offset=0.1"],
    "cosine v, perturbation": ["schedule=cosine", "prediction=v", "noise.perturbation=0.1"],
    "cosine v, self-conditioning": ["schedule=cosine", "prediction=v", "self_conditioning=true"],
}


def made(folder: Path, name: str, steps: int, count: int) -> tuple[str, float, float]:
    """(folder of a recipe and its samples, minutes of its training, its last validation loss); what is there already is kept."""
    place = f"recipes/{steps}/" + name.replace(",", "").replace(" ", "-")
    rare = [f"loop.save={steps}", f"loop.preview={steps}", "loop.report=100"]
    done, seconds = ldmctl(
        "fit-diffusion", "--latents", "cache", "--out", f"{place}/ldm", *RECIPES[name], f"loop.steps={steps}", *rare, cwd=folder
    )
    labels = [word for digit in range(CLASSES) for word in ("--label", str(digit))]
    ldmctl("sample", "batch=128", "--run", f"{place}/ldm", "-n", str(count), *labels, "--out", f"{place}/samples", cwd=folder)
    return place, seconds / 60, done["val/loss"]


def main() -> None:
    """Each recipe, then the table in order of distance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    given = parser.parse_args()
    machine, folder = describe(), given.folder.absolute()
    asked = {"steps": given.steps, "count": given.count, "judge": "eval-samples, fitted"}
    table_name = f"recipes_{given.steps}"
    file = RESULTS / f"{table_name}.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    table: dict[str, Any] = before["recipes"] if before.get("asked") == asked else {}
    for name in given.only:
        if name not in table:
            place, minutes, loss = made(folder, name, given.steps, given.count)
            words = ["--samples", f"{place}/samples", "--against", "cache", "-n", str(given.count), "nearest=false"]
            table[name] = {"minutes_of_training": round(minutes, 2), "val_loss": loss, **judge(folder, f"{place}/judged", *words)}
            ranked = dict(sorted(table.items(), key=lambda row: row[1]["frechet_distance"][0]))
            keep(table_name, {"asked": asked, "recipes": ranked}, machine)


if __name__ == "__main__":
    main()
