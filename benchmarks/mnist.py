"""MNIST from pictures to samples: minutes of each stage, PSNR of all 10,000 test digits, grids to look at, and how good the samples are.

LDMCTL_DATA=FOLDER_WITH_MNIST python benchmarks/mnist.py [FOLDER] [--plain]     # a new folder that is kept; else a temporary one
LDMCTL_DATA=FOLDER_WITH_MNIST python benchmarks/mnist.py --only-judge FOLDER    # what an earlier run left

PSNR is the mean over pictures of per-picture PSNR, data range 1, after the 8-bit round trip, of EMA weights.

`minutes` are those of everything from fit-ae to 64 samples. Then `ldmctl eval-samples` makes 5,000 samples with labels drawn as in the data, 5,000
with guidance, and 5,000 without labels, and judges them through the extractor `fitted`; that takes minutes of its own. With --plain,
benchmarks/plain_recipe.py trains on the same cache for as many minutes as fit-diffusion took, and its 5,000 samples of the labels in turn, with the
same guidance, stand beside. --only-judge trains nothing, makes no sample that is there already, and renews
what the result says of the samples.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from judge import judge
from machine import RESULTS, describe, keep, ldmctl

STAGES = {
    "fit-ae": ["--data", "mnist"],
    "eval-lpips": ["perceptual=null"],
    "encode-dataset": [],
    "fit-diffusion": [],
    "sample": ["-n", "64"],
}
JUDGED = 5000  # samples
PLAIN = "judged/plain"


def arguments() -> argparse.Namespace:
    """What was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="kept; a temporary one by default")
    parser.add_argument("--plain", action="store_true", help="train the plain recipe too, for as many minutes")
    parser.add_argument("--only-judge", type=Path, metavar="FOLDER", help="judge what is there, train nothing")
    parser.add_argument("--guidance", type=float, default=2.0, help="of the samples that are made with it [default: 2]")
    return parser.parse_args()


def fit(folder: Path) -> dict[str, Any]:
    """The chain, then few labelled and unconditional samples to look at -> minutes and PSNR."""
    results, seconds = {}, {}
    for verb, words in STAGES.items():
        results[verb], seconds[verb] = ldmctl(verb, *words, cwd=folder)
    ldmctl("sample", "-n", "16", "--label", "7", "--guidance", "2", "--out", "sevens", cwd=folder)
    ldmctl("sample", "-n", "64", "--label", "none", "--out", "unconditional", cwd=folder)
    RESULTS.mkdir(exist_ok=True)
    for name in ("samples", "sevens", "unconditional"):
        shutil.copyfile(folder / name / "grid.png", RESULTS / f"mnist-{name}.png")
    return {
        "minutes": {verb: round(value / 60, 2) for verb, value in seconds.items()},
        "minutes_in_all": round(sum(seconds.values()) / 60, 2),
        "psnr_db": results["eval-lpips"]["psnr"],
        "test_pictures": results["eval-lpips"]["count"],
    }


def make_plain(folder: Path, minutes: float, guidance: float) -> dict[str, Any]:
    """The plain recipe's samples after so many minutes of training -> what it took."""
    script = Path(__file__).with_name("plain_recipe.py")
    words = ["--minutes", str(minutes), "--guidance", str(guidance), "--count", str(JUDGED)]
    command = [sys.executable, str(script), str(folder / "cache"), str(folder / PLAIN), *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def judged(folder: Path, guidance: float) -> dict[str, Any]:
    """What is said of each set of samples."""
    sets = {"labelled": [], "guided": ["--guidance", f"{guidance:g}"], "unconditional": ["label=none"]}
    many = ["-n", str(JUDGED), "batch=128"]
    found = {name: judge(folder, f"judged/{name}", *many, *words) for name, words in sets.items()}
    if (folder / PLAIN).is_dir():
        found["plain"] = judge(folder, f"{PLAIN}-judged", *many, "--samples", PLAIN, "--against", "cache")
    return found


def main() -> None:
    """Run the chain, make the samples, judge them."""
    given = arguments()
    if given.only_judge:
        known = json.loads((RESULTS / "mnist.json").read_text())
        keep("mnist", {**known, "guidance": given.guidance, **judged(given.only_judge.absolute(), given.guidance)}, known["machine"])
        return
    machine = describe()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.folder or temporary).absolute()
        if (folder / "runs").exists():
            raise SystemExit(f"{folder} has runs already, whose minutes nobody knows. Judge them by --only-judge, or name another folder.")
        folder.mkdir(parents=True, exist_ok=True)
        found = {**fit(folder), "guidance": given.guidance}
        keep("mnist", found, machine)
        if given.plain:
            found["plain_recipe"] = make_plain(folder, found["minutes"]["fit-diffusion"], given.guidance)
        keep("mnist", {**found, **judged(folder, given.guidance)}, machine)


if __name__ == "__main__":
    main()
