"""One full training step of an autoencoder, ours beside the same step made of diffusers and lpips.

python benchmarks/autoencoder_step.py              # a quarter of an hour on two cores; writes results/autoencoder_step.json
python benchmarks/autoencoder_step.py --rounds 1 --steps 3 --print   # only a look

A step is one update of the autoencoder and one of the discriminator on batches of one size: pixel, LPIPS (VGG16) and adversarial loss with its adaptive
weight, clipping, AdamW, moving average. Ours is the command `ldmctl fit-ae` as it is, reading pictures from a folder; its time is that of metrics.jsonl
without the first report and the last, which holds a validation. Theirs is benchmarks/diffusers_step.py, its pictures decoded beforehand; `written` is
what the example scripts do, `repaired` what they mean to do, and what ours is compared with. Both use one file with a VGG16 of random weights, which
costs what the trained one does, and first show that they find the same distances with it.

Every side runs in a process of its own, in turn, round after round. A time is the median of the rounds' medians.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from machine import describe, keep
from process import command, script
from rounds import rates, refuse_few, summary

from ldmctl import registry
from ldmctl.config.resolve import plugin_config
from ldmctl.pictures.images import read
from ldmctl.pictures.png import write_png
from ldmctl.training.engine import has_bf16

SIZES = {
    "cpu": {"size": 64, "batch": 8, "widths": [64, 128, 256], "layers": 1, "pictures": 64},
    "cuda": {"size": 256, "batch": 16, "widths": [128, 256, 256, 512], "layers": 2, "pictures": 256},
}
OURS = {"kl": "vae", "vq": "vqvae"}
DISCRIMINATOR = {"type": "patchgan", "widths": [64, 128, 256], "flat": [512]}  # patches of 70 pixels, as theirs
TOLERANCE = 1e-3  # relative, between two distances


def main() -> None:
    """Prepare the files, compare the distances, measure, write."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--report", type=int, default=1)
    options.add_argument("--print", action="store_true", help="show the result and keep nothing")
    asked = options.parse_args()
    refuse_few(asked.steps, asked.report)
    machine = describe()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        work = prepare(Path(folder), device) | {"device": device, "steps": asked.steps, "report": asked.report}
        found = {"sizes": SIZES[device], "steps": asked.steps, "report": asked.report, "rounds": asked.rounds}
        found |= {"distances": same_distances(work), "parameters": parameters(work), "lines": compared(work, asked.rounds)}
    if asked.print:
        print(json.dumps(found, indent=2))
    else:
        keep("autoencoder_step", found, machine)


def lines(device: str) -> dict[str, dict[str, dict[str, Any]]]:
    """What is compared: line -> side -> its settings. Ours is `ours`."""
    out = {}
    for model in OURS:
        out[f"{model}, defaults"] = {
            "ours": {"model": model, "precision": "auto", "norm": "group"},
            "repaired": {"model": model, "precision": "fp32"},
            "written": {"model": model, "precision": "fp32"},
        }
        for precision in ["fp32"] + ["bf16"] * has_bf16(torch.device(device)):
            out[f"{model}, {precision}"] = {
                "ours": {"model": model, "precision": precision, "norm": "batch"},
                "repaired": {"model": model, "precision": precision},
            }
    return out


def compared(work: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Each side once per round, in turn; then medians and ratios."""
    every = lines(work["device"])
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {(line, side): [] for line, sides in every.items() for side in sides}
    for number in range(rounds):
        for (line, side), done in runs.items():
            settings = every[line][side]
            done.append(ours(work, settings) if side == "ours" else theirs(work, settings, side))
            print(f"round {number + 1}: {line}: {side}: {statistics.median(done[-1]['seconds']):.3f} s", file=sys.stderr)
    out: dict[str, Any] = {}
    for line, sides in every.items():
        # theirs shows each of its networks a batch of its own, ours both the same
        out[line] = {side: summary(runs[line, side], work["batch"] * (1 if side == "ours" else 2)) for side in sides}
        for side in sides.keys() - {"ours"}:
            out[line][f"{side}_over_ours"] = round(out[line][side]["seconds_per_step"] / out[line]["ours"]["seconds_per_step"], 2)
    return out


# -- what both get -----------------------------------------------------------------


def prepare(folder: Path, device: str) -> dict[str, Any]:
    """A folder of pictures, the same as a tensor, and a VGG16."""
    from torchvision.models import vgg16

    torch.manual_seed(0)
    sizes = SIZES[device]
    for split, count in (("train", sizes["pictures"]), ("val", 4)):
        (folder / "pictures" / split).mkdir(parents=True)
        for index in range(count):
            coarse = torch.rand(1, 3, 8, 8)
            picture = torch.nn.functional.interpolate(coarse, size=(sizes["size"],) * 2, mode="bicubic")[0]
            write_png(folder / "pictures" / split / f"{index:03d}.png", (picture.clamp(0, 1) * 255).byte())
    decoded = torch.stack([read(path) for path in sorted((folder / "pictures" / "train").iterdir())])
    torch.save(decoded, folder / "pictures.pt")
    torch.save({f"features.{name}": value for name, value in vgg16(weights=None).features.state_dict().items()}, folder / "vgg16.pth")
    return {"folder": folder, **sizes, "vgg": str(folder / "vgg16.pth")}


def same_distances(work: dict[str, Any]) -> dict[str, list[float]]:
    """Distances of four pairs by our plugin and by the lpips package, with the same weights; they must agree."""
    from diffusers_step import perceptual_of

    image, target = (torch.rand(4, 3, work["size"], work["size"]) * 2 - 1 for _ in range(2))
    own = registry.build("perceptual", plugin_config("perceptual", {"type": "lpips", "weights": work["vgg"]}), image_channels=3)
    with torch.no_grad():
        pair = own(image, target), perceptual_of(work["vgg"])(image, target).flatten()
    if not torch.allclose(*pair, rtol=TOLERANCE, atol=0):
        raise SystemExit(f"The two LPIPS do not agree: {pair[0].tolist()} and {pair[1].tolist()}.")
    return {"ours": pair[0].tolist(), "lpips": pair[1].tolist()}


def parameters(work: dict[str, Any]) -> dict[str, dict[str, int]]:
    """How many parameters each side trains; the autoencoders must have the same."""
    from diffusers_step import autoencoder_of, patch_discriminator

    def count(module: Any) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    out = {}
    for model in OURS:
        own = registry.build("autoencoder", plugin_config("autoencoder", autoencoder(work, model)), image_channels=3)
        critic = registry.build("discriminator", plugin_config("discriminator", DISCRIMINATOR), image_channels=3)
        peer = autoencoder_of(model, work["widths"], work["layers"])
        out[model] = {"ours": count(own), "theirs": count(peer)}
        out["discriminator"] = {"ours": count(critic), "theirs": count(patch_discriminator())}
        if out[model]["ours"] != out[model]["theirs"]:
            raise SystemExit(f"The autoencoders are not of one size: {out[model]}.")
    return out


def autoencoder(work: dict[str, Any], model: str) -> dict[str, Any]:
    """Our autoencoder of the architecture that both have."""
    return {"type": OURS[model], "channels": 4, "widths": work["widths"], "layers": work["layers"]}


# -- the two sides -----------------------------------------------------------------


def ours(work: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """`ldmctl fit-ae`: seconds of a step in each report, and memory."""
    config = {
        "dataset": {"type": "folder", "path": str(work["folder"] / "pictures")},
        "image": {"size": work["size"], "channels": 3},
        "autoencoder": autoencoder(work, settings["model"]),
        "perceptual": {"type": "lpips", "weights": work["vgg"]},
        "discriminator": {**DISCRIMINATOR, "norm": settings["norm"]},
        "adversarial": {"start": 0, "warmup": 0, "ramp": 0},
        "loop": {"steps": work["steps"], "batch": work["batch"], "report": work["report"], "save": 10**6, "preview": 10**6},
        "machine": {"device": work["device"], "precision": settings["precision"]},
    }
    (work["folder"] / "ours.yaml").write_text(json.dumps(config))
    out = work["folder"] / "run"
    ran = command("fit-ae", "--config", "ours.yaml", "--out", out, "--overwrite", cwd=work["folder"])
    return {"seconds": [work["batch"] / rate for rate in rates(out)], **{name: ran[name] for name in ("resident_mib", "device_mib")}}


def theirs(work: dict[str, Any], settings: dict[str, Any], variant: str) -> dict[str, Any]:
    """The step made of diffusers and lpips."""
    given = {name: work[name] for name in ("widths", "layers", "batch", "vgg", "device", "steps", "report")}
    given |= {"pictures": str(work["folder"] / "pictures.pt"), "variant": variant, **settings}
    return script(Path(__file__).with_name("diffusers_step.py"), json.dumps(given))


if __name__ == "__main__":
    main()
