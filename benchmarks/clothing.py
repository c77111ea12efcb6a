"""Clothing photographs at 64x64, factor 4: quality before and after the adversarial phase, and the pictures.

LDMCTL_DATA=FOLDER_WITH_clothing LDMCTL_WEIGHTS_DIR=FOLDER_WITH_squeezenet1_0-imagenet.safetensors \
    python benchmarks/clothing.py [FOLDER] [--steps 3000]      # a folder that is kept; else a temporary one

One run with the feature loss of SqueezeNet (not LPIPS) and a discriminator for its last part. `before` is the average of
the weights at the step at which the discriminator begins, `after` the one at the end; both on all held-out photographs.
`alone` is a run of as many steps without a discriminator, when --alone is given.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from machine import RESULTS, describe, keep, ldmctl

MODEL = [
    "autoencoder={type: vae, channels: 4, widths: [32, 64, 96], layers: 1, norm_groups: 8, attention: false}",
    "image.size=64",
    "image.patch=null",
]
LOSSES = ["perceptual=features", "losses.pixel=l1", "losses.shares=null", "losses.perceptual_weight=0.02"]
START = 0.5
EVALUATION = ["perceptual=features"]


def fit(folder: Path, out: str, steps: int, *words: str) -> tuple[dict, float]:
    """One training on the photographs."""
    begins = round(START * steps)
    loop = [f"loop.steps={steps}", "loop.batch=16", "loop.lr=1e-3", "loop.warmup=100", "loop.decay=cosine", "loop.ema=0.995"]
    every = [f"loop.keep.every={begins}", f"loop.preview={begins}", f"loop.save={begins}", "loop.report=50"]
    return ldmctl("fit-ae", "--data", "clothing", "--out", out, *MODEL, *LOSSES, *loop, *every, *words, cwd=folder)


def main() -> None:
    """The run, then what it was worth before and after."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--alone", action="store_true")
    given = parser.parse_args()
    machine = describe()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.folder or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        _, seconds = fit(
            folder, "runs/ae", given.steps, "discriminator={type: patchgan, widths: [32, 64, 128]}", f"adversarial.start={START}"
        )
        runs = {"before": f"runs/ae@{round(START * given.steps)}", "after": "runs/ae"}
        minutes = {"fit-ae": round(seconds / 60, 2)}
        if given.alone:
            _, seconds = fit(folder, "runs/alone", given.steps)
            runs["alone"], minutes["alone"] = "runs/alone", round(seconds / 60, 2)
        found = {}
        for name, run in runs.items():
            found[name], _ = ldmctl("eval-lpips", "--run", run, *EVALUATION, "--out", f"verdict-{name}", cwd=folder)
            shutil.copyfile(folder / f"verdict-{name}" / "verdict.png", RESULTS / f"clothing-{name}.png")
        keep("clothing", {"minutes": minutes, "steps": given.steps, "adversarial_start": START, **found}, machine)


if __name__ == "__main__":
    main()
