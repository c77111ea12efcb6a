"""What `eval-samples` says of samples, as plain values for JSON: each number with its interval, beside real pictures at the same number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ldmctl.evaluation import extractors, memorisation
from ldmctl.evaluation.comparison import Interval, Reference, compare, evenly_of
from ldmctl.evaluation.extraction import Seen
from ldmctl.evaluation.memorisation import Copies
from ldmctl.evaluation.metrics import mean_with_interval
from ldmctl.evaluation.neighbours import share
from ldmctl.evaluation.real import Real
from ldmctl.evaluation.reconstruction import title_of
from ldmctl.pictures.batches import evenly
from ldmctl.training.engine import Engine

ENOUGH = 50  # pictures of a class that distances are taken of
PLAIN = {
    "frechet_distance": "Frechet distance",
    "kernel_distance": "kernel distance",
    "gaussian_kernel_distance": "Gaussian kernel distance",
}


def measures(samples: Seen, aside: Seen, reference: Reference, extractor: Any) -> dict[str, Any]:
    """{"frechet_distance": {"title", "value", "low", "high", "real": {"value", "low", "high", "count"}}, ...}.

    Distances fall with the number of pictures, so real ones are no more than the samples; where they are fewer, "same" has the numbers
    of as few samples, {"value", "low", "high", "count"}, to be judged in place of those of all.
    """
    count = min(len(samples), len(aside))
    own, real = compare(samples.features, reference), compare(evenly_of(aside.features, count), reference)
    few = compare(evenly_of(samples.features, count), reference) if count < len(samples) else None
    names = PLAIN | {"frechet_distance": getattr(extractor, "frechet", PLAIN["frechet_distance"])}
    names |= {"kernel_distance": getattr(extractor, "kernel", PLAIN["kernel_distance"])}
    title = title_of(extractor, "extractor")
    return {
        name: {
            "title": f"{names.get(name, name)} ({title})",
            **values(own[name]),
            "real": {**values(real[name]), "count": count},
            **({"same": {**values(few[name]), "count": count}} if few else {}),
        }
        for name in own
    }


def asked(samples: Seen, real: Real, extractor: Any, engine: Engine) -> dict[str, Any] | None:
    """How often the judge sees the class that a sample was asked to be, and a held-out picture is; None where either has no labels."""
    pool = real.reference
    right = [of_class(each, pool, extractor, engine) for each in (samples, real.aside)]
    if not all(len(each) for each in right):
        return None
    own, others = (share(mean_with_interval(each), len(each)) for each in right)
    title = title_of(extractor, "extractor")
    judge = title if hasattr(extractor, "logits") else f"the nearest references in {title}"
    return {"judge": judge, "count": len(right[0]), **values(own), "real": {**values(others), "count": len(right[1])}}


def of_class(seen: Seen, pool: Seen, extractor: Any, engine: Engine) -> Tensor:
    """[N]: 1 where a labelled picture looks like its label most, otherwise 0."""
    known = seen.take(seen.labels >= 0)
    if not len(known) or not bool((pool.labels >= 0).any()):
        return torch.empty(0)
    found = extractors.seen_as(extractor, known.features, engine, reference=pool.features, labels=pool.labels)
    return (found == known.labels).float()


def by_class(samples: Seen, real: Real, classes: Sequence[str], extractor: Any, engine: Engine) -> dict[str, Any]:
    """Of each class that samples were asked to be: how many, what the judge sees, and distances where there are enough, of as many samples
    ("compared") as real pictures of it stand aside."""
    found: dict[str, Any] = {}
    for index, name in enumerate(classes):
        own, pool, aside = (each.take(each.labels == index) for each in (samples, real.reference, real.aside))
        if not len(own):
            continue
        right = of_class(own, real.reference, extractor, engine)
        row: dict[str, Any] = {"count": len(own), "asked": values(share(mean_with_interval(right), len(right))) if len(right) else None}
        if min(len(own), len(pool), len(aside)) >= ENOUGH:
            row["compared"] = min(len(own), len(aside))
            few = own.take(evenly(len(own), row["compared"]))
            row["measures"] = measures(few, aside, Reference(pool.features), extractor)
        found[name] = row
    return found


def copied(found: Copies, *, of: int, passes: float | None = None, learned: bool | None = True) -> dict[str, Any]:
    """The share of copies among "count" samples with its interval, and how near they are in features and pixels beside ordinary pictures.
    `learned`: whether the pictures that they were looked for in are those that the run learned from, None where nobody knows."""
    _, low, high = share(mean_with_interval(found.copied.float()), len(found.copied))
    return {
        "share": found.share,
        "count": len(found.copied),
        **{"low": low, "high": high, "quantile": memorisation.QUANTILE, "of": of, "ordinary": found.kind, "ordinary_count": found.count},
        **{"passes": passes, "learned": learned},
        "features": {"median": found.features.distance.median().item(), "ordinary_median": found.ordinary[0], "bound": found.bounds[0]},
        "pixels": {"median": found.pixels.distance.median().item(), "ordinary_median": found.ordinary[1], "bound": found.bounds[1]},
    }


def values(found: Interval) -> dict[str, float]:
    """By name."""
    return dict(zip(("value", "low", "high"), found, strict=True))
