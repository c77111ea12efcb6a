"""What each default of the adversarial phase is worth: clothing photographs at 64x64, one key changed at a time.

LDMCTL_DATA=FOLDER_WITH_clothing LDMCTL_WEIGHTS_DIR=FOLDER_WITH_squeezenet1_0-imagenet.safetensors \
    python benchmarks/adversarial.py FOLDER [--steps 160] [--only NAME ...]      # FOLDER: what `benchmarks/clothing.py FOLDER` left

Every variant begins with the same weights, those of clothing.py's run before its adversarial phase, and trains for as many
steps with a discriminator from the first one on: 30 steps alone, then 40 over which its weight rises. `none` has no
discriminator. A variant that is finished in FOLDER is not trained again. `course` is what metrics.jsonl said on the way.
"""

import argparse
import json
from pathlib import Path

from clothing import EVALUATION, LOSSES, MODEL
from machine import describe, keep, ldmctl

DISCRIMINATOR = "discriminator={type: patchgan, widths: [32, 64, 128]}"
VARIANTS = {
    "none": ["discriminator=null"],
    "weight 0.5": [DISCRIMINATOR, "adversarial.weight=0.5"],
    "weight 0.1": [DISCRIMINATOR, "adversarial.weight=0.1"],
    "weight 0.5, last-layer": [DISCRIMINATOR, "adversarial.weight=0.5", "adversarial.balance=last-layer"],
    "weight 0.5, betas 0.5 0.9": [DISCRIMINATOR, "adversarial.weight=0.5", "loop.betas=[0.5,0.9]"],
    "weight 0.1, betas 0.5 0.9": [DISCRIMINATOR, "adversarial.weight=0.1", "loop.betas=[0.5,0.9]"],
    "weight 0.5, last-layer, betas 0.5 0.9": [
        DISCRIMINATOR,
        "adversarial.weight=0.5",
        "adversarial.balance=last-layer",
        "loop.betas=[0.5,0.9]",
    ],
    "weight 0.1, lr 1e-4": [DISCRIMINATOR, "adversarial.weight=0.1", "adversarial.lr=1e-4"],
}
FOLLOWED = (
    "pixel",
    "adversarial_scale",
    "adversarial_share",
    "discriminator/logits_real",
    "discriminator/logits_fake",
    "autoencoder/gradient",
)


def course(run: Path) -> dict[str, list[float]]:
    """What every report said of the numbers that tell a good phase from a bad one."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {name: [float(f"{row[name]:.3g}") for row in rows if name in row] for name in FOLLOWED}


def main() -> None:
    """Each variant, then its quality on all held-out photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    given = parser.parse_args()
    machine, folder = describe(), given.folder.absolute()
    begun = min(int(path.stem) for path in (folder / "runs/ae/snapshots").glob("[0-9]*.safetensors"))
    loop = [f"loop.steps={given.steps}", "loop.batch=16", "loop.lr=5e-4", "loop.warmup=20", "loop.decay=cosine", "loop.ema=0.98"]
    rare = [f"loop.save={given.steps}", f"loop.preview={given.steps // 2}", "loop.report=20"]
    phase = ["adversarial.start=0", "adversarial.warmup=30", "adversarial.ramp=40"]
    found = {}
    for name in given.only:
        out = "variants/" + name.replace(",", "").replace(" ", "-")
        ldmctl(
            "fit-ae", "--data", "clothing", "--init", f"runs/ae@{begun}", "--out", out, *MODEL, *LOSSES, *phase, *loop, *rare, *VARIANTS[name],
            cwd=folder,
        )  # fmt: skip
        scores, _ = ldmctl("eval-lpips", "--run", out, *EVALUATION, cwd=folder)
        kept = {key: value for key, value in scores.items() if key in ("psnr", "ssim", "verdict") or key.startswith("features")}
        found[name] = {**kept, "course": course(folder / out)}
        keep("adversarial", {"steps": given.steps, "begun_with_step": begun, "variants": found}, machine)


if __name__ == "__main__":
    main()
