"""What the adversarial phase does to a first stage, in every cell of sets x models x losses x learning rates x seeds.

LDMCTL_DATA=FOLDER_WITH_clothing_AND_noto-emoji LDMCTL_WEIGHTS_DIR=FOLDER_WITH_squeezenet1_0-imagenet.safetensors \
    python benchmarks/photographs.py FOLDER [--sets clothing emoji crops] [--models vae vqvae] [--losses weight shares-3-6-1 none ...] \
        [--rates 1e-4 5e-4 1e-3] [--seeds 0 1 2] [--steps 800] [--batch 16] [--guard yes] [--missing] [--table]

A cell is a run at 32x32, factor 4, 16 pictures per step, with an absolute pixel loss and a learning rate that falls to 0, whose discriminator
starts half-way. `weight` has the features of SqueezeNet at weight 1, `shares-3-6-1` at {pixel: 0.3, perceptual: 0.6, adversarial: 0.1}, `none`
not at all; `weight-lecam` and the like add a remedy to `weight`. It is measured on all held-out pictures where the discriminator starts and at
the end, by the same features; `shrunk` are the pictures merely shrunk. With `--guard no` the discriminator is heard however little it knows, and
nothing watches, as it was before; with `--guard watch` the losses are watched, and nothing else is done. Cells that FOLDER has are not trained
again, with `--missing` those that the result has neither, so that the table can be made in several sittings and on several machines; --table
prints it. `crops` are made in FOLDER by `benchmarks/crops.py`. The cells in bf16 are of an older recipe: a constant learning rate, an average
over 1,000 steps, self-attention at the smallest map.
"""

import argparse
import json
import os
from itertools import product
from pathlib import Path

import crops
from machine import RESULTS, describe, keep, ldmctl

from ldmctl.storage import weights

SETS = {"clothing": ("clothing", []), "emoji": ("noto-emoji", []), "crops": ("crops", [])}
MODELS = {
    "vae": "autoencoder={type: vae, channels: 4, widths: [16, 32, 64], layers: 1, norm_groups: 4, attention: false}",
    "vqvae": "autoencoder={type: vqvae, channels: 4, codebook_size: 1024, widths: [16, 32, 64], layers: 1, norm_groups: 4, attention: false}",
}
LOSSES = {
    "weight": ["perceptual=features", "losses.shares=null"],
    "shares-5-4-1": ["perceptual=features", "losses.shares={pixel: 0.5, perceptual: 0.4, adversarial: 0.1}"],
    "shares-3-6-1": ["perceptual=features", "losses.shares={pixel: 0.3, perceptual: 0.6, adversarial: 0.1}"],
    "shares-2-6-2": ["perceptual=features", "losses.shares={pixel: 0.2, perceptual: 0.6, adversarial: 0.2}"],
    "none": ["perceptual=null", "losses.shares=null"],
}
GRID = ["weight", "shares-3-6-1", "none"]
HELPS = {  # what others do for a discriminator that has few pictures or is beaten, each added to `weight`
    "lecam": ["adversarial.lecam=0.1"],
    "r1": ["adversarial.r1=1"],
    "spectral": ["discriminator.norm=spectral"],
    "augment": ["adversarial.augment=[colour,translation,cutout]"],
    "betas": ["adversarial.betas=[0.5,0.9]"],
    "fast": ["adversarial.lr=2e-3"],
    "twice": ["adversarial.updates=2"],
    "fixed": ["adversarial.balance=none", "adversarial.weight=0.01"],
}
LOSSES |= {f"weight-{name}": [*LOSSES["weight"], *words] for name, words in HELPS.items()}
HEARD = ["adversarial.advantage=0", "adversarial.balance_growth=null"]
GUARDS = {"yes": [], "watch": HEARD, "no": [*HEARD, "loop.watch.bound=null", "loop.publish=last"]}
COMMON = [  # all that decides about a cell, so that it stays what it is when the preset changes
    *("image.size=32", "image.patch=null"),
    *("discriminator={type: patchgan, widths: [32, 64, 128]}", "losses.pixel=l1", "losses.perceptual_missing=error"),
    *("adversarial.start=0.5", "loop.warmup=100", "loop.decay=cosine", "loop.ema=0.998", "loop.report=50"),
]
FEATURES = "features-squeezenet1_0"
HEAD = "| set | model | losses | rate | seed | guarded | steps | PSNR before | end | features before | end | Frechet before | end | shrunk | what was done | goals |"
LOST = 1.0  # dB that the adversarial phase may cost


def cell(folder: Path, given: argparse.Namespace, name: str, words: list[str], data: str) -> dict:
    """What one run was worth, kept beside it."""
    kept = folder / name / "cell.json"
    if kept.exists():
        return json.loads(kept.read_text())
    half = given.steps // 2
    often = [
        f"loop.steps={given.steps}",
        f"loop.batch={given.batch}",
        f"loop.preview={half}",
        f"loop.save={half}",
        f"loop.keep.every={half}",
    ]
    _, seconds = ldmctl("fit-ae", "--data", data, "--out", name, *COMMON, *words, *often, "-q", cwd=folder)
    record = json.loads((folder / name / "run.json").read_text())
    judged = {"before": record["before_discriminator"], "end": record["judged"]}
    if FEATURES not in judged["end"]:  # a run without a perceptual loss is judged by the others' features all the same
        judged = {when: judge(folder, run) for when, run in (("before", f"{name}@{half}"), ("end", name))}
    best = weights.read_header(folder / name / "snapshots" / "best.safetensors")["step"]
    judged["best"] = judged["end"] if best == record["published"]["step"] else judge(folder, f"{name}@best")
    scores: dict = {when: numbers(found, found, "made") for when, found in judged.items()}
    scores["best"]["step"] = best
    scores["shrunk"] = numbers(judged["end"]["baseline"], judged["end"], "baseline")
    found = {"minutes": round(seconds / 60, 2), **scores, "events": record.get("watch", []), "published": record["published"]}
    kept.write_text(json.dumps(found, indent=1))
    return found


def place(folder: Path, pictures: str) -> Path:
    """Where a set lies; the crops are made."""
    if pictures != "crops":
        return Path(os.environ.get("LDMCTL_DATA", "data")).absolute() / SETS[pictures][0]
    if not (folder / "crops").exists():
        crops.make(folder / "crops")
    return folder / "crops"


def judge(folder: Path, run: str) -> dict:
    """What eval-lpips says of a run by SqueezeNet's features."""
    return ldmctl("eval-lpips", "--run", run, "perceptual=features", "-q", cwd=folder)[0]


def numbers(found: dict, whole: dict, which: str) -> dict:
    """The four numbers of a cell."""
    means = {name: found[key]["mean"] for name, key in (("psnr", "psnr"), ("ssim", "ssim"), ("features", FEATURES))}
    return means | {"frechet": whole["frechet"][FEATURES][which]}


def row(found: dict) -> str:
    """A line of the table."""
    key = [*found["cell"], f"{found['steps']} x {found.get('batch', 16)}"]
    before, end, shrunk = found["before"], found["end"], found["shrunk"]
    done = ", ".join(f"{each['what']} after {each['step']:,}" for each in found["events"]) or "-"
    if found["published"]["which"] == "best":
        done += f"; published step {found['published']['step']:,}"
    shown = [f"{before['psnr']:.2f}", f"{end['psnr']:.2f}", f"{before['features']:.3f}", f"{end['features']:.3f}"]
    shown += [f"{before['frechet']:.4f}", f"{end['frechet']:.4f}", f"{shrunk['psnr']:.2f}"]
    return f"| {' | '.join(map(str, [*key, *shown, done, '; '.join(missed(found)) or 'met']))} |"


def missed(found: dict) -> list[str]:
    """The goals that a cell did not reach: nothing is lost in the adversarial phase, it is worth its time, and shrinking is no better."""
    before, end, shrunk = found["before"], found["end"], found["shrunk"]
    ended = any(each["what"] == "ended" for each in found["events"])
    goals = {
        f"lost {before['psnr'] - end['psnr']:.2f} dB": ended or end["psnr"] >= before["psnr"] - LOST,
        "no nearer by Frechet distance": ended or end["frechet"] < before["frechet"],
        f"{shrunk['psnr'] - end['psnr']:.2f} dB below shrinking": end["psnr"] >= shrunk["psnr"],
    }
    return [said for said, reached in goals.items() if not reached]


def together(folder: Path) -> list[dict]:
    """The cells that were kept before, on other machines too, and those of `folder`, which take the place of their like."""
    kept = RESULTS / "photographs.json"
    before = json.loads(kept.read_text())["cells"] if kept.exists() else []
    here = [found for file in sorted(folder.glob("*/cell.json")) if "cell" in (found := json.loads(file.read_text()))]
    return list({identity(each): each for each in [*before, *here]}.values())


def identity(kept: dict) -> tuple:
    """All that tells one cell from another; those that say nothing of a batch are of 16 pictures."""
    return (*kept["cell"], kept["steps"], kept.get("batch", 16), kept["precision"])


def main() -> None:
    """All cells that were asked for, then every cell that the folder has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, choices, default in (("sets", SETS, SETS), ("models", MODELS, MODELS), ("losses", LOSSES, GRID)):
        parser.add_argument(f"--{name}", nargs="+", choices=choices, default=list(default))
    parser.add_argument("--rates", nargs="+", default=["1e-4", "5e-4", "1e-3"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--guard", choices=GUARDS, default="yes")
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    kept = RESULTS / "photographs.json"
    if given.table:
        cells = json.loads(kept.read_text())["cells"]
        print("\n".join([HEAD, f"|{'---|' * 16}", *map(row, cells)]))
        return
    machine, folder = describe(), given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    precision = "bf16" if machine["bf16"] else "fp32"
    asked = product(given.seeds, given.rates, given.losses, given.models, given.sets)
    for seed, rate, losses, model, pictures in asked:
        name = f"{pictures}-{model}-{losses}-{rate}-{seed}-{given.guard}-{given.steps}x{given.batch}"
        about = {
            "cell": (pictures, model, losses, rate, seed, given.guard),
            "steps": given.steps,
            "batch": given.batch,
            "precision": precision,
        }
        if given.missing and identity(about) in map(identity, together(folder)):
            continue
        own = SETS[pictures][1]
        words = [MODELS[model], *LOSSES[losses], f"loop.lr={rate}", f"loop.seed={seed}", *own, *GUARDS[given.guard]]
        found = cell(folder, given, name, words, str(place(folder, pictures)))
        (folder / name / "cell.json").write_text(json.dumps(about | found, indent=1))
        print(row(about | found), flush=True)
        keep("photographs", {"cells": together(folder)}, machine, show=False)


if __name__ == "__main__":
    main()
