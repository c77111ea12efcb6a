"""What the preset for folders makes of photographs of clothing, by the clock, and what else was tried.

LDMCTL_DATA=FOLDER_WITH_clothing LDMCTL_WEIGHTS_DIR=FOLDER_WITH_squeezenet1_0-imagenet.safetensors \
    python benchmarks/hour.py FOLDER                      # the preset, no key given: minutes from nothing, and eval-lpips
    python benchmarks/hour.py FOLDER --tried [NAME ...]   # other recipes, each for as long, with the discriminator from the first step

Recipes that FOLDER has are not trained again; the preset is timed in a folder that has no run of it. The result keeps what it had of the other kind.
"""

import argparse
import json
import os
from pathlib import Path

from machine import RESULTS, describe, keep, ldmctl
from photographs import judge, numbers

TRIED = {  # pictures per step, steps, and what else differs from the preset
    "batch 16": (16, 240, ["losses.pixel=l1"]),
    "batch 8": (8, 480, ["losses.pixel=l1"]),
    "batch 8, lr 2e-3": (8, 480, ["losses.pixel=l1", "loop.lr=2e-3"]),
    "batch 8, widths 24, 48, 96": (8, 560, ["losses.pixel=l1", "autoencoder.widths=[24,48,96]"]),
    "batch 8, squared pixels": (8, 480, ["losses.pixel=l2"]),
}


def tried(folder: Path, data: Path, name: str) -> dict:
    """One short run, judged by the command itself."""
    batch, steps, words = TRIED[name]
    run = name.replace(",", "").replace(" ", "-")
    if not (folder / run / "model.safetensors").exists():
        often = [f"loop.steps={steps}", f"loop.batch={batch}", f"loop.preview={steps}", f"loop.save={steps}", "loop.report=50"]
        fixed = ["loop.warmup=50", "loop.watch.bound=null", "adversarial.start=1"]
        ldmctl("fit-ae", "--data", str(data), "--out", run, *often, *fixed, *words, "-q", cwd=folder)
    rows = [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
    rates = sorted(row["images_per_second"] for row in rows if "images_per_second" in row)
    judged = json.loads((folder / run / "run.json").read_text())["judged"]
    return {"steps": steps, "batch": batch, "images_per_second": rates[len(rates) // 2], **numbers(judged, judged, "made")}


def preset(folder: Path, data: Path) -> dict:
    """The whole run, with no key given, and what it is worth on all held-out pictures."""
    if (folder / "run").exists():
        raise SystemExit(f"{folder / 'run'} is there already, so it would not be timed from nothing: name another folder.")
    _, seconds = ldmctl("fit-ae", "--data", str(data), "--out", "run", "-q", cwd=folder)
    found, record = judge(folder, "run"), json.loads((folder / "run" / "run.json").read_text())
    before = record["before_discriminator"]
    return {
        "minutes": round(seconds / 60, 1),
        "steps": record["step"],
        "before": {"step": before["step"], **numbers(before, before, "made")},
        "end": numbers(found, found, "made"),
        "low_and_high": [found["psnr"]["low"], found["psnr"]["high"]],
        "shrunk": numbers(found["baseline"], found, "baseline"),
        "events": record.get("watch", []),
        "published": record["published"],
    }


def main() -> None:
    """The preset, or the recipes that were tried."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tried", nargs="*", choices=TRIED, metavar="NAME")
    given = parser.parse_args()
    machine, folder = describe(), given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    data = Path(os.environ.get("LDMCTL_DATA", "data")).absolute() / "clothing"
    file = RESULTS / "hour.json"
    found = {key: value for key, value in json.loads(file.read_text()).items() if key in ("preset", "tried")} if file.exists() else {}
    if given.tried is None:
        found["preset"] = {"machine": machine, **preset(folder, data)}
    for name in TRIED if given.tried == [] else given.tried or ():
        found.setdefault("tried", {})[name] = {"threads": machine["threads"], **tried(folder, data, name)}
    keep("hour", found, machine)


if __name__ == "__main__":
    main()
