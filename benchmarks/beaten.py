"""The setting in which a beaten discriminator ruined first stages, step by step, without and with what guards them today.

LDMCTL_DATA=FOLDER_WITH_clothing_AND_noto-emoji LDMCTL_WEIGHTS_DIR=FOLDER_WITH_squeezenet1_0-imagenet.safetensors \
    python benchmarks/beaten.py FOLDER [--sets clothing emoji] [--guards yes no watch] [--steps 2000]   # trains what FOLDER does not have yet
    python benchmarks/beaten.py FOLDER --picture clothing        # docs/beaten-clothing.png, of the previews of these runs
    python benchmarks/beaten.py FOLDER --table                   # all steps and ends; docs/numbers.md has most of them

64x64, factor 4, 16 pictures per step, SqueezeNet's features at weight 1, learning rate 5e-4, the discriminator from the middle on. Runs of one
set share their first half, which knows no discriminator: each goes on from a copy of it. Those that are guarded come first, so that all validations
of their watch are there; with `watch` the discriminator is heard however little it knows, and the losses are watched. The
networks are those that the preset for folders had then.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from machine import RESULTS, describe, keep
from photographs import FEATURES, GUARDS, SETS, judge, numbers
from PIL import Image

from ldmctl.storage import weights
from ldmctl.training import state

DOCS = RESULTS.parent.parent / "docs"
STEPS, EVERY = 2000, 100
SETTING = [
    *("image.size=64", "image.patch=null"),
    "autoencoder={type: vae, channels: 4, widths: [32, 64, 128], layers: 1, norm_groups: 8}",
    "discriminator={type: patchgan, widths: [64, 128, 256]}",
    "perceptual=features",
    *("losses.pixel=l1", "losses.shares=null"),
    *("loop.batch=16", "loop.lr=5e-4", "loop.warmup=500", "loop.decay=constant", "loop.ema=0.999"),
]
COLUMNS = {  # of the table: a key of metrics.jsonl and how it is shown
    "pixel": ("pixel", "{:.3f}"),
    "features": (FEATURES, "{:.3f}"),
    "adversarial scale": ("adversarial_scale", "{:.3g}"),
    "its share": ("adversarial_share", "{:.3f}"),
    "advantage": ("discriminator/advantage", "{:.2f}"),
    "logits real": ("discriminator/logits_real", "{:.2f}"),
    "made": ("discriminator/logits_fake", "{:.2f}"),
    "gradient": ("autoencoder/gradient", "{:.1f}"),
    "largest latent": ("latent_max", "{:.1f}"),
}


def train(folder: Path, data: Path, pictures: str, guard: str, steps: int) -> None:
    """The run SET-GUARD up to its end, begun anew, from where it was stopped, or from a copy of SET-start, which the first run of a set leaves."""
    name, start, half = f"{pictures}-{guard}", folder / f"{pictures}-start", steps // 2
    if start.exists() and not (folder / name).exists():
        shutil.copytree(start, folder / name)
    phase = [f"adversarial.start={half}", f"adversarial.warmup={half // 25}", f"adversarial.ramp={half // 10}"]
    often = [f"loop.{key}={value}" for key, value in {"steps": steps, "save": half // 5, "preview": EVERY, "report": EVERY}.items()]
    often.append(f"loop.watch.every={EVERY / steps}")
    words = ["fit-ae", "--data", str(data), "--out", name, *SETTING, *phase, *often, *GUARDS[guard], "-q"]
    with subprocess.Popen([sys.executable, "-m", "ldmctl", *words], cwd=folder) as process:
        while process.poll() is None:
            if not start.exists() and saved(folder / name) == half:
                shutil.copytree(folder / name, begun := folder / f"{pictures}-copying")
                begun.rename(start)
            time.sleep(1)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}.")


def saved(run: Path) -> int:
    """The step that a run would go on from."""
    return weights.read_header(run / state.FILE)["scalars"]["step"] if (run / state.FILE).exists() else 0


def run(folder: Path, data: Path, pictures: str, guard: str, steps: int) -> dict:
    """What one run went through after its first half, and what it was worth before and after."""
    name, half = f"{pictures}-{guard}", steps // 2
    if saved(folder / name) < steps:
        train(folder, data, pictures, guard, steps)
    record = json.loads((folder / name / "run.json").read_text())
    found = judge(folder, name)
    lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    return {
        "steps": [
            {key: line.get(key) for key in ("step", *(key for key, _ in COLUMNS.values()))}
            for line in lines
            if "pixel" in line and line["step"] >= half
        ],
        "validations": [
            {"step": line["step"], "psnr": line["val/psnr"], "pixel": line["val/pixel"], "features": line[f"val/{FEATURES}"]}
            for line in lines
            if "val/psnr" in line
        ],
        "before": {"step": half, **numbers(record["before_discriminator"], record["before_discriminator"], "made")},
        "end": numbers(found, found, "made"),
        "shrunk": numbers(found["baseline"], found, "baseline"),
        "events": record.get("watch", []),
        "published": record["published"],
    }


def table(found: dict) -> str:
    """The steps of each run, then what each was worth."""
    parts = []
    for pictures, guards in found.items():
        for guard, one in guards.items():
            psnr = {each["step"]: each["psnr"] for each in one["validations"]}
            rows = [f"{pictures}, guarded: {guard}", "", f"| step | PSNR | {' | '.join(COLUMNS)} |", "|---" * (2 + len(COLUMNS)) + "|"]
            for line in one["steps"]:
                shown = ["-" if line[key] is None else form.format(line[key]) for key, form in COLUMNS.values()]
                rows.append(f"| {line['step']:,} | {psnr[line['step']]:.1f} | {' | '.join(shown)} |")
            parts.append("\n".join(rows))
    rows = [
        "| set | guarded | PSNR before | end | features before | end | Frechet before | end | downsampled | what was done |",
        "|---" * 10 + "|",
    ]
    for pictures, guards in found.items():
        for guard, one in guards.items():
            before, end = one["before"], one["end"]
            shown = [
                f"{each[key]:{form}}" for key, form in (("psnr", ".2f"), ("features", ".3f"), ("frechet", ".3f")) for each in (before, end)
            ]
            done = ", ".join(f"{each['what']} after {each['step']:,}" for each in one["events"]) or "-"
            rows.append(
                f"| {pictures} | {guard} | {' | '.join(shown)} | {one['shrunk']['psnr']:.2f} | {done}, step {one['published']['step']:,} published |"
            )
    return "\n\n".join([*parts, "\n".join(rows)])


def picture(folder: Path, pictures: str, steps: int) -> None:
    """Held-out pictures over their reconstructions: where the discriminator begins, at the end unguarded, at the end guarded."""
    previews = [
        (folder / f"{pictures}-{guard}" / "samples" / f"{step:09d}.png")
        for guard, step in (("no", steps // 2), ("no", steps), ("yes", steps))
    ]
    first, *others = [Image.open(file).convert("RGB") for file in previews]
    width, row = first.width, first.height // 2
    sheet = Image.new("RGB", (width, first.height + len(others) * row), "white")
    sheet.paste(first, (0, 0))
    for number, each in enumerate(others):
        sheet.paste(each.crop((0, first.height - row, width, first.height)), (0, first.height + number * row))
    sheet.save(DOCS / f"beaten-{pictures}.png", optimize=True)


def main() -> None:
    """The runs that were asked for, or what is shown of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", choices=["clothing", "emoji"], default=["clothing", "emoji"])
    parser.add_argument("--guards", nargs="+", choices=GUARDS, default=["yes", "no"])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--picture", choices=["clothing", "emoji"], metavar="SET")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    file, folder = RESULTS / "beaten.json", given.folder.absolute()
    if given.picture:
        picture(folder, given.picture, given.steps)
        return
    found = json.loads(file.read_text())["sets"] if file.exists() else {}
    if given.table:
        print(table(found))
        return
    machine, place = describe(), Path(os.environ.get("LDMCTL_DATA", "data")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for pictures in given.sets:
        for guard in (each for each in GUARDS if each in given.guards):  # those that watch first, in whatever order they are named
            one = run(folder, place / SETS[pictures][0], pictures, guard, given.steps)
            found = json.loads(file.read_text())["sets"] if file.exists() else {}  # another process may have added to it
            found.setdefault(pictures, {})[guard] = {"machine": machine, **one}
            keep("beaten", {"sets": found}, machine, show=False)
    print(table(found))


if __name__ == "__main__":
    main()
