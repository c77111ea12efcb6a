"""A class learned from twelve pictures: the boldest eights of MNIST, and what samples of it look like beside samples of the class 8.

LDMCTL_DATA=FOLDER_WITH_mnist python benchmarks/learned_class.py FOLDER

FOLDER is what `benchmarks/mnist.py FOLDER` left, with its model. Results are the mean brightness of 24 samples each, and the loss on the twelve
pictures with the learned class and with 8; docs/class.png shows the twelve pictures and as many samples of both, from the same seeds.
"""

import argparse
import heapq
from pathlib import Path

import numpy as np
from machine import RESULTS, describe, keep, ldmctl
from PIL import Image

from ldmctl import registry
from ldmctl.config.presets import expand_data
from ldmctl.config.resolve import plugin_config

GIVEN, SAMPLES, DIGIT = 12, 24, 8
COLUMNS, CELL, GAP, BETWEEN = 4, 56, 4, 48


def boldest(folder: Path) -> list[Path]:
    """The pictures to learn from, written into a folder."""
    dataset = registry.build("dataset", plugin_config("dataset", expand_data("mnist")["dataset"]), split="train")
    every = ((float(np.asarray(each.picture).mean()), index) for index in range(len(dataset)) if (each := dataset[index]).label == DIGIT)
    folder.mkdir(exist_ok=True)
    files = []
    for _, index in heapq.nlargest(GIVEN, every):
        files.append(folder / f"{index:05d}.png")
        Image.fromarray(np.asarray(dataset[index].picture).reshape(28, 28)).save(files[-1])
    return sorted(files)


def brightness(files: list[Path]) -> float:
    """The mean of all pixels, of 255."""
    return round(float(np.mean([np.asarray(Image.open(file).convert("L")).mean() for file in files])), 1)


def sheet(*groups: list[Path]) -> Image.Image:
    """The first pictures of each group as a block, side by side."""
    rows = GIVEN // COLUMNS
    wide, high = COLUMNS * (CELL + GAP) - GAP, rows * (CELL + GAP) - GAP
    whole = Image.new("L", (len(groups) * (wide + BETWEEN) - BETWEEN, high), 255)
    for block, files in enumerate(groups):
        for number, file in enumerate(files[:GIVEN]):
            place = (block * (wide + BETWEEN) + number % COLUMNS * (CELL + GAP), number // COLUMNS * (CELL + GAP))
            whole.paste(Image.open(file).convert("L").resize((CELL, CELL), Image.Resampling.NEAREST), place)
    return whole


def main() -> None:
    """Learn it, draw it, look at it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder, machine = parser.parse_args().folder.absolute(), describe()
    given = boldest(folder / "bold")
    words = ["--run", "runs/ldm", "--data", "bold", "--word", "<bold>", "--init-word", str(DIGIT), "--out", "bold.safetensors"]
    learned, seconds = ldmctl("fit-token", *words, cwd=folder)
    for name, label, more in (("learned", "<bold>", ["--token", "bold.safetensors"]), ("plain", str(DIGIT), [])):
        asked = ["--run", "runs/ldm", "--label", label, *more, "--guidance", "1.5", "-n", str(SAMPLES), "--out", f"bold-{name}"]
        ldmctl("sample", *asked, cwd=folder)
    files = {name: sorted((folder / f"bold-{name}").glob("0*.png")) for name in ("plain", "learned")}
    sheet(given, files["plain"], files["learned"]).save(RESULTS.parent.parent / "docs" / "class.png", optimize=True)
    found = {
        "brightness": {"given": brightness(given), **{name: brightness(each) for name, each in files.items()}},
        "loss": {"learned": learned["loss"], "plain": learned["loss_before"]},
        "seconds_of_learning": round(seconds, 1),
    }
    keep("learned_class", found, machine)


if __name__ == "__main__":
    main()
