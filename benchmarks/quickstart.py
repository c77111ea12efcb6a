"""How long `ldmctl quickstart` takes, and how many of its samples of labels and of sentences show what was asked for.

python benchmarks/quickstart.py [FOLDER]                  # a folder that is kept; else a temporary one
python benchmarks/quickstart.py FOLDER --only-judge       # what an earlier run left

The judge is benchmarks/shapes_rule.py, fixed: its own hit rate on real held-out
pictures stands beside, since a rule that misses these cannot be asked for more.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from machine import RESULTS, describe, keep, ldmctl
from shapes_rule import name_shape, says, see

from ldmctl.config.resolve import plugin_config
from ldmctl.pictures.images import read, to_tensor
from ldmctl.registry import build

EACH = 10  # labelled samples of each class


def main() -> None:
    """Run quickstart, sample every class, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="kept; a temporary one by default")
    parser.add_argument(
        "--only-judge", action="store_true", help="judge the quickstart in FOLDER, and renew what the result says of samples"
    )
    given = parser.parse_args()
    if given.only_judge:
        known = json.loads((RESULTS / "quickstart.json").read_text())
        keep("quickstart", {**known, **judged(given.folder.absolute())}, known["machine"])
        return
    machine = describe()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        result, seconds = ldmctl("quickstart", "--out", "quickstart", cwd=folder)
        trained = {"quickstart_minutes": round(seconds / 60, 2), "psnr_db": round(result["eval-lpips"]["psnr"]["mean"], 2)}
        keep("quickstart", {**trained, **judged(folder)}, machine)


def judged(folder: Path) -> dict[str, Any]:
    """How many samples of labels and of sentences show what they ask for."""
    dataset = build("dataset", plugin_config("dataset", {"type": "shapes"}), split="val")
    count = EACH * len(dataset.classes)
    common = ["sample", "--run", "quickstart/runs/ldm", "-n", str(count), "--guidance", "2", "--overwrite"]
    labels = [word for name in dataset.classes for word in ("--label", name)]
    asked, sampling = ldmctl(*common, *labels, "--out", "judged", cwd=folder)
    sentences = [f"a {name} on a {background} background" for name in dataset.classes for background in ("dark", "light")]
    prompts = [word for sentence in sentences for word in ("--prompt", sentence)]
    spoken, _ = ldmctl(*common, *prompts, "--out", "spoken", cwd=folder)
    heard = [see(read(folder / "spoken" / f"{seed:06d}.png")) for seed in spoken["seeds"]]
    said = [name_shape(read(folder / "judged" / f"{seed:06d}.png")) for seed in asked["seeds"]]
    real = [(name_shape(to_tensor(item.picture)), dataset.classes[item.label]) for item in map(dataset.__getitem__, range(len(dataset)))]
    return {
        "judged_samples": count,
        "guidance": 2,
        "share_right": round(share(zip(said, asked["labels"], strict=True)), 3),
        "share_right_colour": round(share((a.split()[0], b.split()[0]) for a, b in zip(said, asked["labels"], strict=True)), 3),
        "share_right_of_sentences": round(share((says(a, b), True) for a, b in zip(spoken["prompts"], heard, strict=True)), 3),
        "share_right_on_real_pictures": round(share(real), 3),
        "sampling_seconds": round(sampling, 1),
    }


def share(pairs) -> float:
    """Of the pairs, how many agree."""
    rows = [one == other for one, other in pairs]
    return sum(rows) / len(rows)


if __name__ == "__main__":
    main()
