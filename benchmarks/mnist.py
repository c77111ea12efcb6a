"""MNIST from pictures to samples: minutes of each stage, PSNR of all 10,000 test digits, grids to look at, and a verdict.

LDMCTL_DATA=FOLDER_WITH_MNIST python benchmarks/mnist.py [FOLDER] [--plain]     # a new folder that is kept; else a temporary one
LDMCTL_DATA=FOLDER_WITH_MNIST python benchmarks/mnist.py --only-judge FOLDER    # of an earlier run, or a folder of PNG files

PSNR is the mean over pictures of per-picture PSNR, data range 1, after the 8-bit
round trip, of EMA weights.

`minutes` are those of everything from fit-ae to 64 samples. Then 5,000 labelled samples (500 of each digit, with guidance) and 5,000
unconditional ones are made, timed on their own in `sampling_minutes`, and judged by benchmarks/judge.py, whose classifier is trained
outside these minutes too. With --plain, benchmarks/plain_recipe.py trains on the same cache for as many minutes as fit-diffusion took
and its 5,000 labelled samples are judged beside ours. --only-judge trains nothing and prints its verdict; samples that an
earlier run has not made yet are made.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from judge import CLASSES, Judge, judge_folder, open_judge, picture_files, significant, usual_cache
from machine import RESULTS, describe, keep, ldmctl

STAGES = {
    "fit-ae": ["--data", "mnist"],
    "eval-lpips": ["perceptual=null"],
    "encode-dataset": [],
    "fit-diffusion": [],
    "sample": ["-n", "64"],
}
JUDGED = 5000  # samples
SETS = {"labelled": "judged/labelled", "unconditional": "judged/unconditional", "plain": "judged/plain"}


def arguments() -> argparse.Namespace:
    """What was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="kept; a temporary one by default")
    parser.add_argument("--plain", action="store_true", help="train the plain recipe too, for as many minutes")
    parser.add_argument("--only-judge", type=Path, metavar="FOLDER", help="judge what is there, train nothing")
    parser.add_argument(
        "--guidance", type=float, default=1.0, help="of the labelled samples [default: 1, none, which keeps them as varied as the data]"
    )
    parser.add_argument("--cache", type=Path, default=usual_cache(), help=f"where the judge is kept [default: {usual_cache()}]")
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


def make_samples(folder: Path, guidance: float) -> dict[str, float]:
    """The samples to be judged; those that are there already are kept -> minutes of each set."""
    labels = [word for digit in range(CLASSES) for word in ("--label", str(digit))]
    words = {"labelled": [*labels, "--guidance", str(guidance)], "unconditional": ["--label", "none"]}
    minutes = {}
    for name, choice in words.items():
        _, seconds = ldmctl("sample", "batch=128", "-n", str(JUDGED), *choice, "--out", SETS[name], cwd=folder)
        minutes[name] = round(seconds / 60, 2)
    return minutes


def make_plain(folder: Path, minutes: float, guidance: float) -> dict[str, Any]:
    """The plain recipe's samples after so many minutes of training -> what it took."""
    script = Path(__file__).with_name("plain_recipe.py")
    words = ["--minutes", str(minutes), "--guidance", str(guidance), "--count", str(JUDGED)]
    command = [sys.executable, str(script), str(folder / "cache"), str(folder / SETS["plain"]), *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def judge_sets(judge: Judge, folder: Path) -> dict[str, Any]:
    """The verdict on each set of samples that is there, and ours in ratio to the plain recipe's."""
    found = {name: judge_folder(judge, folder / place) for name, place in SETS.items() if (folder / place).is_dir()}
    if "plain" in found:
        ours, plain = (found[name]["classifier_frechet_distance"] for name in ("labelled", "plain"))
        found["labelled_over_plain"] = significant(ours / plain)
    return {"judge": judge.facts, **found}


def judge_only(folder: Path, guidance: float, cache: Path) -> dict[str, Any]:
    """The verdict on the folder of an earlier run, or on a folder of PNG files."""
    judge = open_judge(cache)
    if (folder / "runs").is_dir():
        minutes = make_samples(folder, guidance)
        return {"guidance": guidance, "sampling_minutes": minutes, **judge_sets(judge, folder)}
    picture_files(folder)
    return {"judge": judge.facts, "samples": judge_folder(judge, folder)}


def main() -> None:
    """Run the chain, make the samples, judge them."""
    given = arguments()
    if given.only_judge:
        print(json.dumps(judge_only(given.only_judge.absolute(), given.guidance, given.cache), indent=2))
        return
    machine = describe()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.folder or temporary).absolute()
        if (folder / "runs").exists():
            raise SystemExit(f"{folder} has runs already, whose minutes nobody knows. Judge them by --only-judge, or name another folder.")
        folder.mkdir(parents=True, exist_ok=True)
        found = fit(folder)
        found |= {"guidance": given.guidance, "sampling_minutes": make_samples(folder, given.guidance)}
        if given.plain:
            found["plain_recipe"] = make_plain(folder, found["minutes"]["fit-diffusion"], given.guidance)
        keep("mnist", {**found, **judge_sets(open_judge(given.cache), folder)}, machine)


if __name__ == "__main__":
    main()
