"""What the preset for folders makes of photographs and drawings, by the clock, and what else was tried.

LDMCTL_DATA=FOLDER_WITH_clothing_AND_noto-emoji LDMCTL_WEIGHTS_DIR=FOLDER_WITH_squeezenet1_0-imagenet.safetensors \
    python benchmarks/hour.py FOLDER [--sets clothing emoji crops]   # no key given: minutes from nothing, and eval-lpips
    python benchmarks/hour.py FOLDER --config laptop-128             # the same with another preset
    python benchmarks/hour.py FOLDER --keys losses.pixel=l1          # or with other keys
    python benchmarks/hour.py FOLDER --tried [NAME ...]   # other recipes on clothing, the discriminator from the first step

A recipe takes about 11 minutes on one thread. Runs that FOLDER has are not trained again, and those that were interrupted go on; the minutes of
a preset are known where it ran at once.
The result keeps what it had of other recipes and sets. `crops` are made in FOLDER by `benchmarks/crops.py`.
"""

import argparse
import json
from pathlib import Path

from machine import RESULTS, describe, keep, ldmctl
from photographs import FEATURES, SETS, judge, numbers, place

from ldmctl.stages.fit_ae import JUDGED

COMMON = [  # so that a recipe stays what it is when the preset changes
    *("image.patch=null", "discriminator.widths=[32,64,128]", "adversarial.start=1"),
    *("loop.lr=1e-3", "loop.warmup=50", "loop.ema=0.998", "loop.watch.bound=null"),
]
AT_128 = ["image.size=128", "autoencoder.widths=[16,32,64,96]"]
OF_32 = ["image.patch=32", "discriminator.widths=[32,64]"]  # a patch of 32 pixels is too small for a third layer
TRIED = {  # pictures per step, steps, and what else differs from the preset
    "batch 16": (16, 240, ["losses.pixel=l1"]),
    "batch 8": (8, 480, ["losses.pixel=l1"]),
    "batch 8, lr 2e-3": (8, 480, ["losses.pixel=l1", "loop.lr=2e-3"]),
    "batch 8, widths 24, 48, 96": (8, 560, ["losses.pixel=l1", "autoencoder.widths=[24,48,96]"]),
    "batch 8, squared pixels": (8, 480, ["losses.pixel=l2"]),
    "batch 4, squared pixels": (4, 960, ["losses.pixel=l2"]),
    "batch 2, squared pixels": (2, 1920, ["losses.pixel=l2"]),
    "batch 4 of patches of 48": (4, 1700, ["losses.pixel=l2", "image.patch=48"]),
    "batch 8 of patches of 32": (8, 1900, ["losses.pixel=l2", *OF_32]),
    "batch 4 of patches of 32": (4, 3800, ["losses.pixel=l2", *OF_32]),
    "128, batch 8": (8, 280, AT_128),
    "128, batch 4": (4, 560, AT_128),
    "128, batch 2": (2, 1120, AT_128),
    "128, batch 4, 8 channels": (4, 560, [*AT_128, "autoencoder.channels=8"]),
    "128, batch 16 of patches of 64": (16, 560, [*AT_128, "image.patch=64"]),
    "128, batch 4, widths 24, 48, 64, 96": (4, 400, ["image.size=128", "autoencoder.widths=[24,48,64,96]"]),
    "128, batch 1, 8 channels": (1, 2240, [*AT_128, "autoencoder.channels=8"]),
    "128, batch 8 of patches of 64, 8 channels": (8, 1120, [*AT_128, "autoencoder.channels=8", "image.patch=64"]),
    "128, batch 4 of patches of 64, 8 channels": (4, 2240, [*AT_128, "autoencoder.channels=8", "image.patch=64"]),
    "128, batch 8 of patches of 32, 8 channels": (8, 4480, [*AT_128, "autoencoder.channels=8", *OF_32]),
}


def tried(folder: Path, data: Path, name: str) -> dict:
    """One short run, judged by the command itself."""
    batch, steps, words = TRIED[name]
    run = name.replace(",", "").replace(" ", "-")
    if "judged" not in record(folder / run):
        often = [f"loop.steps={steps}", f"loop.batch={batch}", f"loop.preview={steps}", f"loop.save={steps}", "loop.report=50"]
        ldmctl("fit-ae", "--data", str(data), "--out", run, *often, *COMMON, *words, "-q", cwd=folder)
    rows = [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
    rates = sorted(row["images_per_second"] for row in rows if "images_per_second" in row)
    judged = record(folder / run)["judged"]
    return {"steps": steps, "batch": batch, "images_per_second": rates[len(rates) // 2], **numbers(judged, judged, "made")}


def preset(folder: Path, pictures: str, words: list[str]) -> dict:
    """The whole run, with nothing given but these words, and what it is worth on all held-out pictures."""
    run = "-".join(["run", pictures, *(word.removeprefix("--") for word in words)]).replace("=", "-")
    begun = record(folder / run)
    if "judged" not in begun:
        _, seconds = ldmctl("fit-ae", "--data", str(place(folder, pictures)), "--out", run, *words, "-q", cwd=folder)
    kept = record(folder / run)
    before, own = kept["before_discriminator"], kept["judged"]
    found = own if own["count"] < JUDGED and FEATURES in own else judge(folder, run)  # its own verdict is of all held-out pictures
    return {
        "minutes": None if begun else round(seconds / 60, 1),
        "steps": kept["step"],
        "before": {"step": before["step"], **numbers(before, before, "made")},
        "end": numbers(found, found, "made"),
        "low_and_high": [found["psnr"]["low"], found["psnr"]["high"]],
        "shrunk": numbers(found["baseline"], found, "baseline"),
        "events": kept.get("watch", []),
        "published": kept["published"],
    }


def record(run: Path) -> dict:
    """What the run keeps of itself by now; nothing if there is no run."""
    file = run / "run.json"
    return json.loads(file.read_text()) if file.exists() else {}


def add(kind: str, name: str, one: dict, machine: dict) -> None:
    """Keep one recipe, or one set by a preset, beside those that the result has by now."""
    file = RESULTS / "hour.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    found = {key: before.get(key, {}) for key in ("preset", "tried")}
    found[kind][name] = one
    keep("hour", found, machine)


def main() -> None:
    """The preset, or the recipes that were tried."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["clothing"])
    parser.add_argument("--config", default="default", metavar="PRESET")
    parser.add_argument("--keys", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--tried", nargs="*", choices=TRIED, metavar="NAME")
    given = parser.parse_args()
    machine, folder = describe(), given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    words = [*([] if given.config == "default" else [f"--config={given.config}"]), *given.keys]
    if given.tried is None:
        for pictures in given.sets:
            add("preset", " ".join([pictures, *words]), {"machine": machine, **preset(folder, pictures, words)}, machine)
    for name in TRIED if given.tried == [] else given.tried or ():
        add("tried", name, {"threads": machine["threads"], **tried(folder, place(folder, "clothing"), name)}, machine)


if __name__ == "__main__":
    main()
