"""What each default of the adversarial phase is worth: clothing photographs at 64x64, one key changed at a time.

LDMCTL_DATA=FOLDER_WITH_clothing LDMCTL_WEIGHTS_DIR=FOLDER_WITH_squeezenet1_0-imagenet.safetensors \
    python benchmarks/adversarial.py FOLDER [--steps 250]      # FOLDER: what `benchmarks/clothing.py FOLDER` left

Every variant begins with the same weights, those of clothing.py's run before its adversarial phase, and trains for as many
steps with a discriminator from the first one on. `none` has no discriminator. The defaults are run with two seeds: a difference
smaller than between these two says nothing.
"""

import argparse
from pathlib import Path

from clothing import EVALUATION, LOSSES, MODEL
from machine import describe, keep, ldmctl

DISCRIMINATOR = "discriminator={type: patchgan, widths: [32, 64, 128]}"
VARIANTS = {
    "none": ["discriminator=null"],
    "defaults": [DISCRIMINATOR],
    "defaults, another seed": [DISCRIMINATOR, "loop.seed=1"],
    "weight 0.2": [DISCRIMINATOR, "adversarial.weight=0.2"],
    "weight 1": [DISCRIMINATOR, "adversarial.weight=1"],
    "no warm-up": [DISCRIMINATOR, "adversarial.warmup=0"],
    "no ramp": [DISCRIMINATOR, "adversarial.ramp=0"],
    "no smoothing": [DISCRIMINATOR, "adversarial.balance_smoothing=0"],
    "balance last-layer": [DISCRIMINATOR, "adversarial.balance=last-layer"],
    "norm batch": ["discriminator={type: patchgan, widths: [32, 64, 128], norm: batch}"],
}


def main() -> None:
    """Each variant, then its quality on all held-out photographs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=250)
    given = parser.parse_args()
    machine = describe()
    folder = given.folder.absolute()
    (before,) = [path for path in (folder / "runs/ae/snapshots").glob("[0-9]*.safetensors") if int(path.stem)][:1]
    loop = [f"loop.steps={given.steps}", "loop.batch=16", "loop.lr=5e-4", "loop.warmup=20", "loop.decay=cosine", "loop.ema=0.99"]
    found = {}
    for name, words in VARIANTS.items():
        out = f"variants/{name.replace(' ', '-').replace(',', '')}"
        rare = [f"loop.save={given.steps}", f"loop.preview={given.steps}", "loop.report=25"]
        init = ["--init", f"runs/ae@{int(before.stem)}", "--out", out, "--overwrite"]
        _, seconds = ldmctl("fit-ae", "--data", "clothing", *init, *MODEL, *LOSSES, "adversarial.start=0", *loop, *rare, *words, cwd=folder)
        scores, _ = ldmctl("eval-lpips", "--run", out, *EVALUATION, cwd=folder)
        found[name] = {"minutes": round(seconds / 60, 2), **scores}
    keep("adversarial", {"steps": given.steps, "begun_with_step": int(before.stem), "variants": found}, machine)


if __name__ == "__main__":
    main()
