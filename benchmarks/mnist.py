"""MNIST from pictures to samples: minutes of each stage, PSNR of all 10,000 test digits, and grids to look at.

LDMCTL_DATA=FOLDER_WITH_MNIST python benchmarks/mnist.py [FOLDER]     # a folder that is kept; else a temporary one

PSNR is the mean over pictures of per-picture PSNR, data range 1, after the 8-bit
round trip, of EMA weights.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from machine import RESULTS, describe, keep, ldmctl

STAGES = {
    "fit-ae": ["--data", "mnist"],
    "eval-lpips": ["perceptual=null"],
    "encode-dataset": [],
    "fit-diffusion": [],
    "sample": ["-n", "64"],
}


def main() -> None:
    """Run the chain, then the labelled and the unconditional samples."""
    machine = describe()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        results, seconds = {}, {}
        for verb, words in STAGES.items():
            results[verb], seconds[verb] = ldmctl(verb, *words, cwd=folder)
        ldmctl("sample", "-n", "16", "--label", "7", "--guidance", "2", "--out", "sevens", cwd=folder)
        ldmctl("sample", "-n", "64", "--label", "none", "--out", "unconditional", cwd=folder)
        RESULTS.mkdir(exist_ok=True)
        for name in ("samples", "sevens", "unconditional"):
            shutil.copyfile(folder / name / "grid.png", RESULTS / f"mnist-{name}.png")
        keep(
            "mnist",
            {
                "minutes": {verb: round(value / 60, 2) for verb, value in seconds.items()},
                "minutes_in_all": round(sum(seconds.values()) / 60, 2),
                "psnr_db": results["eval-lpips"]["psnr"],
                "test_pictures": results["eval-lpips"]["count"],
            },
            machine,
        )


if __name__ == "__main__":
    main()
