"""The first stage on MNIST alone: minutes, PSNR of all 10,000 test digits and how many of the codes they use.

LDMCTL_DATA=FOLDER_WITH_MNIST python benchmarks/autoencoder_mnist.py [FOLDER]     # a folder that is kept; else a temporary one

The preset `mnist` as it is: a VQ-VAE to 3x7x7 with 512 codes, no perceptual loss. PSNR is the mean over pictures of
per-picture PSNR, data range 1, after the 8-bit round trip, of EMA weights.
"""

import sys
import tempfile
from pathlib import Path

from machine import describe, keep, ldmctl


def main() -> None:
    """Fit and judge."""
    machine = describe()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        _, seconds = ldmctl("fit-ae", "--data", "mnist", cwd=folder)
        found, _ = ldmctl("eval-lpips", "perceptual=null", cwd=folder)
        keep("autoencoder_mnist", {"minutes": round(seconds / 60, 2), **found}, machine)


if __name__ == "__main__":
    main()
