"""Which class each sample is of."""

from collections.abc import Sequence
from typing import Any

import torch

from ldmctl.config.schemas.sample import Sample
from ldmctl.errors import ConfigError, did_you_mean
from ldmctl.training.order import generator


def choose_labels(config: Sample, header: dict[str, Any], seeds: Sequence[int]) -> list[int]:
    """A class index for each seed: the labels asked for, in turn; without any, drawn as the data has them."""
    if header["conditioner"] is None:
        if config.label is not None and config.label != ["none"]:
            raise ConfigError("This model was trained without labels, so --label has nothing to choose. Leave it away.")
        if config.guidance != 1:
            raise ConfigError(f"guidance={config.guidance:g} needs a model trained with labels; this one has none. Leave guidance at 1.")
        return [-1] * len(seeds)
    if config.guidance != 1:
        refuse_no_label(header, f"guidance={config.guidance:g}")
    if config.label is None:
        return labels_as_in_data(seeds, header["label_counts"])
    if not config.label:
        raise ConfigError("label=[] names nothing; leave it away to draw labels as in the data, or take `none`.")
    asked = [class_index(label, header["classes"]) for label in config.label]
    if min(asked) < 0:
        refuse_no_label(header, "label=none")
    refuse_untrained(header, asked)
    return [asked[index % len(asked)] for index in range(len(seeds))]


def refuse_no_label(header: dict[str, Any], key: str) -> None:
    """A ConfigError if the model has never seen an item without its label; older models do not say."""
    if not header.get("unconditional", True):
        raise ConfigError(f"{key} needs a model that also learned without labels; this one was trained with drop=0. Train with drop=0.1.")


def refuse_untrained(header: dict[str, Any], asked: Sequence[int]) -> None:
    """A ConfigError if one of these classes had no item to train with, only held-out ones."""
    classes, trained = header["classes"], trained_classes(header["label_counts"])
    if unknown := [classes[label] for label in asked if label >= 0 and label not in trained]:
        some = ", ".join(classes[label] for label in trained[:20]) + (", ..." if len(trained) > 20 else "")
        raise ConfigError(
            f"label={unknown[0]} was never learned: no training picture of this model has it. Classes that were trained: {some}."
        )


def labels_as_in_data(seeds: Sequence[int], counts: Sequence[int]) -> list[int]:
    """A class index for each seed, drawn as often as the data has it; -1 for all when nothing is labelled."""
    if not sum(counts):
        return [-1] * len(seeds)
    shares = torch.tensor(counts, dtype=torch.float64)
    return [int(torch.multinomial(shares, 1, generator=generator("cpu", "label", seed))) for seed in seeds]


def trained_classes(counts: Sequence[int]) -> list[int]:
    """Indices of the classes that have a training item; what stands for any other has never been learned."""
    return [index for index, count in enumerate(counts) if count]


def class_index(label: str, classes: list[str]) -> int:
    """The class that a user means by a name or a number; -1 for `none`. Anything else is a ConfigError."""
    if label == "none":
        return -1
    if label in classes:
        return classes.index(label)
    if label.isdecimal() and int(label) < len(classes):
        return int(label)
    some = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
    raise ConfigError(
        f"There is no label {label!r}.{did_you_mean(label, classes)} Labels: {some}; or a number from 0 to {len(classes) - 1}, or none."
    )
