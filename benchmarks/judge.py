"""A fixed judge of made MNIST digits: how far they are from real ones, how readable, how obedient, how new.

LDMCTL_DATA=FOLDER_WITH_MNIST python benchmarks/judge.py FOLDER_OF_PNG [--labels FILE] [--cache FOLDER]

It looks through a small classifier, trained once on the 60,000 training digits by RECIPE (always on the CPU in float32, on one
thread: a minute or two) and kept in a cache folder. `classifier_frechet_distance` is the Fréchet distance (arXiv:1706.08500, eq. 6) between
the Gaussians of the classifier's FEATURES features over the samples and over the 10,000 test digits. It is not FID: other features,
other numbers. `floor` is the same distance of as many real training digits, in disjoint draws; `ratio` is distance / floor.
Compare distances of equally many samples only; the numbers to quote are of 5,000.

Labels are read from the PNG texts that `ldmctl sample` writes, or from FILE: one digit per line, in the order of the file names.
RECIPE is not to be changed: results that are compared come from one judge.
"""

import argparse
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmctl import registry
from ldmctl.config.resolve import plugin_config
from ldmctl.errors import DataError, MismatchError
from ldmctl.evaluation import frechet
from ldmctl.evaluation.memorisation import search
from ldmctl.pictures.images import read
from ldmctl.pictures.png import read_png_text
from ldmctl.storage import weights

FEATURES = 96
CLASSES = 10
SIDE = 28
LEAST = 0.985  # accuracy on the test digits without which nothing is judged
CONFIDENT = 0.95  # the largest probability above which the classifier is sure
DRAWS = 4  # of real training digits, for the floor
MNIST = {"type": "idx", "path": ["MNIST/raw", "mnist"], "download": "mnist"}


@dataclass(frozen=True)
class Recipe:
    """How the classifier is trained."""

    version: int = 1
    seed: int = 0
    epochs: int = 4
    batch: int = 128
    lr: float = 2e-3  # at the top of its one cycle
    weight_decay: float = 1e-2
    shift: int = 2  # pixels that a batch is moved by at most


RECIPE = Recipe()


class Classifier(nn.Module):
    """Three strided convolutions and two linear layers, 155,626 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 32, 5, stride=2, padding=2), nn.SiLU()),
            *(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.SiLU()),
            *(nn.Conv2d(64, 64, 3, stride=2, padding=1), nn.SiLU()),
            *(nn.Flatten(), nn.Linear(64 * 4 * 4, FEATURES), nn.SiLU()),
        )
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """[B,1,28,28] in [0, 1] -> logits [B,10]."""
        return self.head(self.body(image))


@dataclass(frozen=True)
class Digits:
    """Real digits."""

    pictures: Tensor  # uint8 [N,28,28]
    labels: Tensor  # [N]


@dataclass(frozen=True)
class Judge:
    """The trained classifier, and the real digits as it sees them."""

    classifier: Classifier
    train: Digits
    test: Digits
    train_features: Tensor  # [60000,F]
    test_features: Tensor  # [10000,F]
    facts: dict[str, Any]  # recipe, accuracy, what is true of the test digits


# -- measures ----------------------------------------------------------------------


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Of features [N,F] and [M,F]."""
    return frechet.frechet_distance(frechet.statistics_of(one), frechet.statistics_of(other))


def confident_share(logits: Tensor) -> float:
    """How many of the rows [N,C] have a probability above CONFIDENT."""
    return float((logits.double().softmax(1).amax(1) > CONFIDENT).double().mean())


def accuracy(logits: Tensor, labels: Tensor) -> float | None:
    """How many of the labelled rows [N,C] have their largest logit at their label [N]; None when all labels are -1."""
    known = labels >= 0
    return float((logits[known].argmax(1) == labels[known]).double().mean()) if known.any() else None


def label_histogram(logits: Tensor) -> list[int]:
    """How many of the rows [N,C] have their largest logit at each label."""
    return torch.bincount(logits.argmax(1), minlength=logits.shape[1]).tolist()


def nearest_distances(queries: Tensor, references: Tensor, *, chunk: int = 256) -> Tensor:
    """The Euclidean distance [N] of each query [N,D] to its nearest reference [M,D]; a copy has exactly 0."""
    return search(queries, references, rows=chunk)[0]


def spread_of(distances: Tensor) -> dict[str, float]:
    """Median and first percentile."""
    return {"median": significant(distances.median()), "percentile_1": significant(distances.quantile(0.01))}


def real_floor(train: Tensor, test: Tensor, count: int) -> dict[str, Any]:
    """The distance of `count` training digits' features to the test digits', mean and range over disjoint draws of a fixed seed."""
    if not 2 <= count <= len(train):
        raise DataError(f"The judge compares 2 to {len(train):,} samples with as many real digits, not {count:,}; results are of 5,000.")
    draws = min(DRAWS, len(train) // count)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(RECIPE.seed))
    found = [frechet_distance(train[rows], test) for rows in order[: draws * count].split(count)]
    return {"mean": sum(found) / draws, "low": min(found), "high": max(found), "draws": draws}


def significant(value: Tensor | float) -> float:
    """The number with four significant digits."""
    return float(f"{float(value):.4g}")


# -- the judge ---------------------------------------------------------------------


def judge_pictures(judge: Judge, pictures: Tensor, labels: Tensor) -> dict[str, Any]:
    """What is said of samples, uint8 [N,28,28], that were asked to be labels [N] (-1: none)."""
    logits, features = look(judge.classifier, pictures)
    distance = frechet_distance(features, judge.test_features)
    floor = real_floor(judge.train_features, judge.test_features, len(pictures))
    return {
        "count": len(pictures),
        "classifier_frechet_distance": significant(distance),
        "floor": {**{name: significant(floor[name]) for name in ("mean", "low", "high")}, "draws": floor["draws"]},
        "ratio": significant(distance / floor["mean"]),
        "confident_share": round(confident_share(logits), 4),
        "accuracy": None if (right := accuracy(logits, labels)) is None else round(right, 4),
        "nearest_training_picture": nearness(judge.train, judge.train_features, pictures, features),
        "label_histogram": label_histogram(logits),
    }


def nearness(train: Digits, train_features: Tensor, pictures: Tensor, features: Tensor) -> dict[str, Any]:
    """How far pictures uint8 [N,28,28] are from the training digits: in pixels from 0 to 1, and in features [N,F]."""
    pixels = nearest_distances(pictures.flatten(1) / 255, train.pictures.flatten(1) / 255)
    return {"pixels": spread_of(pixels), "features": spread_of(nearest_distances(features, train_features))}


@torch.no_grad()
def look(classifier: Classifier, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """(logits [N,10], features [N,F]) of uint8 [N,28,28], float32."""
    features = torch.cat([classifier.body(part[:, None] / 255) for part in pictures.split(1000)])
    return classifier.head(features), features


def open_judge(cache: str | Path) -> Judge:
    """The judge whose classifier is kept in the folder `cache`; trained there if it is not, or is another one."""
    train, test = digits("train"), digits("val")
    wanted = {"recipe": asdict(RECIPE), "data": fingerprint(train, test), "torch": torch.__version__}
    file = Path(cache).expanduser() / "judge.safetensors"
    if (kept := read_kept(file, wanted)) is None:
        kept = learn(train, test)
        weights.save(file, kept[0], {"kind": "judge", "wanted": wanted, "facts": kept[1]})
    tensors, facts = kept
    classifier = Classifier().eval().requires_grad_(False)
    classifier.load_state_dict({name: value for name, value in tensors.items() if name.startswith(("body.", "head."))})
    return Judge(classifier, train, test, tensors["train_features"], tensors["test_features"], {**wanted, **facts})


def read_kept(file: Path, wanted: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """(tensors, facts) of a kept judge, None when there is none or it is not the one that is wanted."""
    try:
        tensors, header = weights.load(file)
    except MismatchError:
        return None
    return (tensors, header["facts"]) if header.get("wanted") == wanted else None


def learn(train: Digits, test: Digits) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(weights and features, facts) of a judge made now; one that reads too few test digits is a MismatchError."""
    began = time.perf_counter()
    with one_thread():
        classifier = fit(train)
    seconds = time.perf_counter() - began
    logits, features = look(classifier, test.pictures)
    right = accuracy(logits, test.labels) or 0.0
    if right < LEAST:
        raise MismatchError(f"The judge reads {right:.2%} of the test digits and must read {LEAST:.1%}: nothing is judged with it.")
    train_features = look(classifier, train.pictures)[1]
    facts = {
        "parameters": sum(parameter.numel() for parameter in classifier.parameters()),
        "training_seconds": round(seconds, 1),
        "test_digits": {
            "accuracy": round(right, 4),
            "confident_share": round(confident_share(logits), 4),
            "nearest_training_picture": nearness(train, train_features, test.pictures, features),
            "label_histogram": label_histogram(logits),
        },
    }
    return {**classifier.state_dict(), "train_features": train_features, "test_features": features}, facts


def fit(train: Digits) -> Classifier:
    """The classifier trained by RECIPE: AdamW, one cycle of the learning rate, each batch shifted by up to `shift` pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RECIPE.seed)
        classifier = Classifier()
    random = torch.Generator().manual_seed(RECIPE.seed)
    batch, shift, steps = RECIPE.batch, RECIPE.shift, len(train.labels) // RECIPE.batch
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=RECIPE.lr, weight_decay=RECIPE.weight_decay, fused=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RECIPE.lr, total_steps=RECIPE.epochs * steps)
    padded = F.pad(train.pictures, (shift, shift, shift, shift))
    for _ in range(RECIPE.epochs):
        for rows in torch.randperm(len(padded), generator=random)[: steps * batch].split(batch):
            top, left = torch.randint(0, 2 * shift + 1, (2,), generator=random).tolist()
            image = padded[rows, None, top : top + SIDE, left : left + SIDE] / 255
            F.cross_entropy(classifier(image), train.labels[rows]).backward()
            optimizer.step()
            optimizer.zero_grad()
            rate.step()
    return classifier.eval().requires_grad_(False)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread whatever the environment says: how many there are decides how gradients are rounded."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# -- files -------------------------------------------------------------------------


def digits(split: str) -> Digits:
    """The training digits (`train`) or the test digits (`val`)."""
    dataset: Any = registry.build("dataset", plugin_config("dataset", MNIST), split=split)
    return Digits(torch.tensor(dataset.images), torch.tensor(dataset.labels, dtype=torch.long))


def fingerprint(*sets: Digits) -> str:
    """SHA-256 of pictures and labels, hexadecimal."""
    digest = hashlib.sha256()
    for each in sets:
        digest.update(each.pictures.numpy().tobytes() + each.labels.numpy().tobytes())
    return digest.hexdigest()


def picture_files(folder: Path) -> list[Path]:
    """The PNG files of a folder and of those in it, by name, without grid.png; DataError when there are none."""
    found = sorted(file for file in folder.rglob("*.png") if file.name != "grid.png")
    if not found:
        raise DataError(f"{folder} holds no PNG files to judge.")
    return found


def read_pictures(files: Sequence[Path]) -> Tensor:
    """uint8 [N,28,28] of files of that size; DataError for another."""
    pictures = [read(file, channels=1)[0] for file in files]
    wrong = [file for file, picture in zip(files, pictures, strict=True) if picture.shape != (SIDE, SIDE)]
    if wrong:
        raise DataError(f"{wrong[0]} is not {SIDE}x{SIDE} pixels, as the digits are that it would be judged by.")
    return torch.stack(pictures)


def label_of(file: Path) -> int:
    """The digit that a sample was asked to be, by its PNG text `label` or the one of `ldmctl sample`; -1 when it says none."""
    texts = read_png_text(file)
    said = texts.get("label") or json.loads(texts.get("ldmctl", "{}")).get("label")
    return -1 if said is None else int(said)


def read_labels(file: Path, count: int) -> Tensor:
    """Labels [N] of a text file with one digit per line; DataError when there are not `count` of them."""
    words = file.read_text(encoding="utf-8").split()
    if len(words) != count or not all(word.isdecimal() and int(word) < CLASSES for word in words):
        raise DataError(
            f"{file} must hold {count:,} digits, one a line, in the order of the pictures' names; it holds {len(words):,} words."
        )
    return torch.tensor([int(word) for word in words])


def judge_folder(judge: Judge, folder: Path, labels: Path | None = None) -> dict[str, Any]:
    """What is said of the PNG files in a folder."""
    files = picture_files(folder)
    asked = read_labels(labels, len(files)) if labels else torch.tensor([label_of(file) for file in files])
    return judge_pictures(judge, read_pictures(files), asked)


def usual_cache() -> Path:
    """Where the judge is kept when nobody says where."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ldmctl" / "judge"


def main() -> None:
    """Judge one folder and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--cache", type=Path, default=usual_cache(), help=f"where the classifier is kept [default: {usual_cache()}]")
    given = parser.parse_args()
    judge = open_judge(given.cache)
    print(json.dumps({"judge": judge.facts, **judge_folder(judge, given.folder, given.labels)}, indent=2))


if __name__ == "__main__":
    main()
