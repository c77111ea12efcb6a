"""Samples judged: what two halves of one data set have of each other, how long judging takes, and whether a run that copies is caught.

python benchmarks/judging.py floor DATA WEIGHTS     # MNIST and Fashion-MNIST by `fitted`, clothing by torchvision's SqueezeNet
python benchmarks/judging.py speed DATA             # 5,000 samples against 10,000 references at 28x28, as a user would, and torch-fidelity
python benchmarks/judging.py network DATA WEIGHTS   # the same by torchvision's SqueezeNet at 64 pixels a side, without torch-fidelity
python benchmarks/judging.py copying                # 64 pictures learned by heart

DATA is a folder with MNIST/raw, FashionMNIST/raw and clothing. Each part is kept in results/judging_PART.json.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import describe, keep
from process import command
from torch import Tensor

from ldmctl.config.resolve import plugin_config, resolve
from ldmctl.config.schemas.eval_samples import EvalSamples
from ldmctl.console import Console
from ldmctl.evaluation import extractors
from ldmctl.evaluation.comparison import Reference, compare
from ldmctl.evaluation.extraction import chosen, look_at
from ldmctl.evaluation.frechet import frechet_distance, statistics_of
from ldmctl.evaluation.kernels import kernel_distance, polynomial
from ldmctl.evaluation.neighbours import neighbourhood
from ldmctl.evaluation.real import labelled
from ldmctl.evaluation.reconstruction import title_of
from ldmctl.pictures.batches import evenly
from ldmctl.pictures.loading import open_pictures
from ldmctl.pictures.png import write_png
from ldmctl.training.engine import Engine

ENGINE = Engine(torch.device("cpu"), torch.float32)
QUIET = Console(quiet=True)
NUMBERS = (500, 1000, 2000, 5000)
DRAWS = 4
COPIED, SAMPLES = 64, 300


def open_set(name: str, data: Path) -> Any:
    """The training pictures of a set, prepared as its preset says; clothing at 128 pixels."""
    raw = {
        "mnist": {"dataset": {"type": "idx", "path": str(data / "MNIST/raw")}, "image": {"size": 28, "channels": 1}},
        "fashion-mnist": {"dataset": {"type": "idx", "path": str(data / "FashionMNIST/raw")}, "image": {"size": 28, "channels": 1}},
        "clothing": {"dataset": {"type": "folder", "path": str(data / "clothing")}, "image": {"size": 128}},
    }[name]
    return open_pictures(resolve(EvalSamples, [raw], source=name), "train")


def floor(data: Path, weights: Path) -> dict[str, Any]:
    """Distances of disjoint halves of each set at several numbers: the mean, the least and the most of some draws."""
    found = {}
    for name in ("mnist", "fashion-mnist", "clothing"):
        pictures, began = open_set(name, data), time.perf_counter()
        keys = {"type": "torchvision", "weights": str(weights)} if name == "clothing" else {"type": "fitted"}
        config = plugin_config("extractor", keys)
        context = {"image_channels": pictures.settings.channels, "size": pictures.settings.size, "classes": pictures.classes}
        extractor = extractors.build(config, ENGINE, **context, encoder=None)
        if hasattr(extractor, "fit"):
            extractor.fit(labelled(pictures, 256, 0, QUIET))
        fitted = time.perf_counter() - began
        most = min(len(pictures), 2 * DRAWS * max(NUMBERS))
        features = look_at(chosen(pictures, evenly(len(pictures), most).tolist(), 64, 0, QUIET, name), extractor, ENGINE).features
        rows = {str(number): draws(features, number) for number in NUMBERS if 2 * number <= len(features)}
        found[name] = {"extractor": title_of(extractor, "extractor"), "features": features.shape[1], "of": len(features)}
        found[name] |= {"fitting_seconds": round(fitted, 1), "minutes": round((time.perf_counter() - began) / 60, 2), "numbers": rows}
    return found


def draws(features: Tensor, number: int) -> dict[str, Any]:
    """{measure: {"mean", "low", "high"}} of up to `DRAWS` pairs of disjoint halves."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    pairs = [order[at : at + 2 * number] for at in range(0, len(order) - 2 * number + 1, 2 * number)][:DRAWS]
    each = [
        {name: value[0] for name, value in compare(features[pair[:number]], Reference(features[pair[number:]])).items()} for pair in pairs
    ]
    shown = lambda value: float(f"{value:.4g}")
    return {"draws": len(pairs)} | {
        name: {
            "mean": shown(sum(row[name] for row in each) / len(each)),
            "low": shown(min(row[name] for row in each)),
            "high": shown(max(row[name] for row in each)),
        }
        for name in each[0]
    }


def timed(data: Path, extractor: list[str]) -> dict[str, Any]:
    """The command with and without the nearest training pictures, fresh and again."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = open_set("mnist", data)
        for index, row in enumerate(evenly(len(made), 5000).tolist()):
            write_png(folder / "samples" / f"{index:06d}.png", made.item(row))
        raw = ["dataset.type=idx", f"dataset.path={data / 'MNIST/raw'}", "image.size=28", "image.channels=1", "workers=0"]
        words = ["eval-samples", "--samples", "samples", "-n", "5000", *extractor, "--device", "cpu", *raw]
        for name, more in {"compared": ["nearest=false"], "compared_again": ["nearest=false"], "nearest_too": []}.items():
            began = time.perf_counter()
            told = command(*words, *more, "--out", folder / "out", cwd=folder)
            found[name] = {"seconds": round(time.perf_counter() - began, 1), "resident_mib": told["resident_mib"]}
        found["frechet_distance"] = told["measures"]["frechet_distance"]
    return found


def beside_torch_fidelity() -> dict[str, Any]:
    """Seconds and values of both on the same features, 5,000 of 96 and of 2,048 numbers against 10,000; {} where it is not installed."""
    try:
        import torch_fidelity
    except ImportError:
        return {}
    found = {"torch_fidelity": torch_fidelity.__version__}
    for width in (96, 2048):
        random = torch.Generator().manual_seed(0)
        mix = torch.randn(width, width, generator=random, dtype=torch.float64) / width**0.5
        one, other = (torch.randn(count, width, generator=random, dtype=torch.float64) @ mix for count in (5000, 10_000))
        for name, (ours, theirs) in measured_by_both(one, other * 1.1).items():
            (mine, seconds), (value, their_seconds) = timed_value(ours), timed_value(theirs)
            found[f"{name}_{width}"] = {"ours": mine, "theirs": value, "seconds": seconds, "their_seconds": their_seconds}
    return {"on_the_same_features": found}


def measured_by_both(one: Tensor, other: Tensor) -> dict[str, tuple[Any, Any]]:
    """{measure: (ours, torch-fidelity's)}, neither with an interval but where ours always has one."""
    from torch_fidelity import metric_fid, metric_kid, metric_prc

    half, whole = other[: len(one)], {"kid_subsets": 1, "kid_subset_size": len(one), "verbose": False}
    theirs = {
        "fid": lambda: metric_fid.fid_statistics_to_metric(*map(metric_fid.fid_features_to_statistics, (one, other)), False),
        "kid": lambda: metric_kid.kid_features_to_metric(one, half, **whole),
        "precision": lambda: metric_prc.prc_features_to_metric(one, half, verbose=False, prc_neighborhood=3),
    }
    return {
        "fid": (lambda: frechet_distance(statistics_of(one), statistics_of(other)), lambda: first(theirs["fid"]())),
        "kid": (lambda: kernel_distance(one, half, polynomial)[0], lambda: first(theirs["kid"]())),
        "precision": (lambda: neighbourhood(one, half, k=3).precision[0], lambda: first(theirs["precision"]())),
    }


def first(values: dict[str, float]) -> float:
    """The first of a result's numbers."""
    return next(iter(values.values()))


def timed_value(make: Any) -> tuple[float, float]:
    """(value, seconds)."""
    began = time.perf_counter()
    value = float(make())
    return value, round(time.perf_counter() - began, 2)


def copying(steps: int) -> dict[str, Any]:
    """A chain on 64 small pictures, long enough to learn them by heart, and one that only began; 200 others are held out."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for split, count, seed in (("train", COPIED, 0), ("val", 200, 1)):
            small = torch.randint(0, 256, (count, 3, 3, 3), generator=torch.Generator().manual_seed(seed)).float()
            large = F.interpolate(small, (8, 8), mode="bicubic", align_corners=False).round().clamp(0, 255).to(torch.uint8)
            for row, picture in enumerate(large):
                write_png(folder / "pictures" / split / f"{row:03d}.png", picture)
        run = lambda *words: command(*words, "--device", "cpu", cwd=folder)
        run("fit-ae", "--data", "pictures", "image.size=8", "autoencoder=identity", "perceptual=null", "discriminator=null", "loop.steps=2")
        run("encode-dataset")
        found: dict[str, Any] = {"pictures": COPIED}
        for number in (10, steps):
            out, network = f"ldm-{number}", ["denoiser.widths=[32,64]", "denoiser.norm_groups=8", "denoiser.attention=[false,false]"]
            recipe = [
                "conditioner=null",
                "loop.batch=64",
                "loop.lr=3e-3",
                "loop.ema=0.95",
                "loop.warmup=5",
                "loop.decay=cosine",
                "loop.publish=last",
            ]
            run("fit-diffusion", "--out", out, *network, *recipe, f"loop.steps={number}")
            told = run(
                "eval-samples", "--run", out, "-n", str(SAMPLES), "--steps", "25", "--extractor", "latent", "--out", f"judged-{number}"
            )
            found[str(number)] = {"memorisation": told["memorisation"], "verdict": told["verdict"][-2]}
        return found


def main() -> None:
    """One part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["floor", "speed", "network", "copying"])
    parser.add_argument("data", type=Path, nargs="?", default=Path("data"))
    parser.add_argument("weights", type=Path, nargs="?")
    parser.add_argument("--steps", type=int, default=1500, help="of the denoiser of `copying`")
    given = parser.parse_args()
    machine = describe()
    data = given.data.absolute()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "floor": lambda: floor(data, given.weights),
        "speed": lambda: timed(data, ["--extractor", "fitted"]) | beside_torch_fidelity(),
        "network": lambda: timed(
            data, ["--extractor", "torchvision", f"extractor.weights={given.weights.absolute()}", "extractor.size=64"]
        ),
        "copying": lambda: copying(given.steps),
    }
    found = parts[given.part]()
    keep(f"judging_{given.part}", found, machine)


if __name__ == "__main__":
    main()
