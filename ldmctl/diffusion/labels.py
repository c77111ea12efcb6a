"""Which class each sample is of."""

import re
import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from math import isfinite
from typing import Any
from unicodedata import normalize

import torch

from ldmctl.config.schemas.sample import Sample
from ldmctl.errors import ConfigError
from ldmctl.training.order import generator

NO_LABEL = (None, ["none"], ["index:none"])  # what asks for no class, whatever the model


def labels_in_turn(config: Sample, header: dict[str, Any]) -> list[int]:
    """The class indices that pictures take in turn, `all` spelled out; none where they are drawn as the data has them.

    -1 is no class, which is also what guidance=0 makes, whatever was asked for. Labels or guidance that the model does not know are a ConfigError.
    """
    others = header.get("conditions", {})
    if header["conditioner"] is None:
        if config.label not in NO_LABEL:
            raise ConfigError("This model was trained without labels, so --label has nothing to choose. Leave it away.")
        if config.guidance != 1 and config.autoguide is None:
            if not others:
                raise ConfigError(
                    f"guidance={config.guidance:g} needs a model trained with labels; this one has none. Leave guidance at 1."
                )
            refuse_no_label(header, f"guidance={config.guidance:g}")
        return [-1]
    if config.label is not None and not config.label:
        raise ConfigError("label=[] names nothing; leave it away to draw labels as in the data, or take `none`.")
    asked = [(label, index) for label in config.label or [] for index in class_indices(label, header)]
    turn = [index for _, index in asked]
    if not header.get("conditional", True) and not others:  # older models do not say
        refuse_conditions(config, asked)
        return [-1]
    words = "text" in others and config.negative is not None and named(config.negative, header["classes"]) is None  # to go away from
    if config.guidance != 1 and not words and negative_label(config, header) < 0 and config.autoguide is None:
        refuse_no_label(header, f"guidance={config.guidance:g}")
    if turn and min(turn) < 0 and not others:  # else what is given beside it decides, see `lacking`
        refuse_no_label(header, "label=none")
    refuse_untrained(header, turn)
    return [-1] * max(len(turn), 1) if config.guidance == 0 else turn


def negative_label(config: Sample, header: dict[str, Any]) -> int:
    """The class index to go away from, -1 for no class; a ConfigError for one that the model does not know."""
    if config.negative is None:
        return -1
    if header["conditioner"] is None or not header.get("conditional", True):
        raise ConfigError(
            f"negative={config.negative} needs a model trained with labels or captions, and this one never saw any. Leave it away."
        )
    found = class_index(config.negative, header["classes"])
    refuse_untrained(header, [found])
    return found


def unused_labels(config: Sample, header: dict[str, Any]) -> str:
    """A sentence on labels that were asked for and that guidance=0 leaves unused, otherwise nothing."""
    if config.guidance or header["conditioner"] is None or config.label in NO_LABEL:
        return ""
    return f"guidance=0 ignores labels: label={','.join(config.label or [])} is not used, and pictures are recorded as of no class."


def refuse_conditions(config: Sample, asked: Sequence[tuple[str, int]]) -> None:
    """A ConfigError if labels or guidance are asked of a model that has never seen a label."""
    wanted = f"guidance={config.guidance:g}" if config.guidance not in (0, 1) and config.autoguide is None else ""
    wanted = next((f"label={label}" for label, index in asked if index >= 0), wanted)
    if wanted:
        raise ConfigError(
            f"{wanted} needs a model that learned with labels; this one never saw any: it was trained with drop=1, which leaves every "
            "label out, or no training picture has one. Leave label and guidance away, or train with drop=0.1 and labels."
        )


def refuse_no_label(header: dict[str, Any], key: str) -> None:
    """A ConfigError if the model has never seen an item without its label; older models do not say."""
    if not header.get("unconditional", True):
        what = "conditions" if header.get("conditions") else "labels"
        raise ConfigError(f"{key} needs a model that also learned without {what}; this one was trained with drop=0. Train with drop=0.1.")


def refuse_untrained(header: dict[str, Any], asked: Sequence[int]) -> None:
    """A ConfigError if one of these classes had no item to train with, only held-out ones."""
    classes, trained = header["classes"], known_classes(header)
    if unknown := [classes[label] for label in asked if label >= 0 and label not in trained]:
        some = listed([classes[label] for label in trained])
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


def known_classes(header: dict[str, Any]) -> list[int]:
    """Indices of the classes that have a training item, and of the `added` ones of fit-token, which stand behind all others."""
    count = len(header["classes"])
    return [*trained_classes(header["label_counts"]), *range(count - header.get("added", 0), count)]


def learned_classes(header: dict[str, Any]) -> list[int]:
    """Indices of the classes that a model can be asked for; none where it listens to none, or has never seen a label."""
    listens = header["conditioner"] is not None and header.get("conditional", True)
    return trained_classes(header["label_counts"]) if listens else []


# -- what a person writes ----------------------------------------------------------


def class_indices(label: str, header: dict[str, Any]) -> list[int]:
    """What one --label stands for: a class, no class (-1), or with `all` each class that was trained, and each of fit-token that is given;
    `index:all` is that too, even where a class is called `all`."""
    classes = header["classes"]
    if label not in ("all", "index:all"):
        return [class_index(label, classes)]
    if label == "all" and label in classes:
        raise ConfigError("label=all could mean the class of that name or all of them. Write class:all for the first, index:all for all.")
    if not (trained := known_classes(header)):
        raise ConfigError("label=all asks for every class, and no picture that this model learned from has one. Leave label away.")
    return trained


def class_index(label: str, classes: list[str]) -> int:
    """The class that a user means; -1 for no class. What names none, or could mean two things, is a ConfigError.

    A class's name, `class:NAME`, `index:N` counted from 0, or `none`. A bare number is an index only where no class has
    a number for its name. `index:none` is no class even where one is called `none`.
    """
    kind, colon, rest = label.partition(":")
    if colon and kind == "class" and (found := named(rest, classes)) is not None:
        return found
    if colon and kind == "index" and (rest == "none" or as_index(rest, classes) is not None):
        return -1 if rest == "none" else int(rest)
    if label == "none":
        if label in classes:
            raise ConfigError(
                "label=none could mean the class of that name or no class. Write class:none for the first, index:none for none."
            )
        return -1
    if (found := named(label, classes)) is not None:
        return found
    numbered = any(as_number(name) is not None for name in classes)
    if not numbered and (index := as_index(label, classes)) is not None:
        return index
    raise ConfigError(unknown_label(label, classes, numbered=numbered))


def named(name: str, classes: list[str]) -> int | None:
    """The class of this name, however its accents are composed; None without one, or with several."""
    if name in classes:
        return classes.index(name)
    same = [index for index, each in enumerate(classes) if normalize("NFC", each) == normalize("NFC", name)]
    return same[0] if len(same) == 1 else None


def as_index(word: str, classes: list[str]) -> int | None:
    """The index that a word of plain digits is; None for anything else, or beyond the last class."""
    return int(word) if word.isascii() and word.isdecimal() and int(word) < len(classes) else None


def as_number(name: str) -> float | None:
    """The number that a name is, such as 3 or 0.5; None for other names, nan and inf among them."""
    try:
        return number if isfinite(number := float(name)) else None
    except ValueError:
        return None


def unknown_label(label: str, classes: list[str], *, numbered: bool) -> str:
    """What is wrong with a label that names no class, and what would be right."""
    word = label.partition(":")[2] if label.startswith(("class:", "index:")) else label
    is_number = as_number(word) is not None
    said = f"There is no label {label!r}.{near(word, classes)}"
    if all(part.strip() in classes for part in label.split(",")):
        said += f" Name several one by one: {' '.join(f'--label {shlex.quote(part.strip())}' for part in label.split(','))}."
    last = len(classes) - 1
    if numbered and is_number and not label.startswith("index:"):
        said += f" Numbers are names of classes here; index:0 to index:{last} count them from 0."
    count = f"index:0 to index:{last}" if numbered else f"a number from 0 to {last}"
    if re.fullmatch(r"\W\S*|\S*\W", word) and not is_number:
        said += " A class of fit-token is known by its file: --token FILE."
    return f"{said} Labels: {listed(classes)}; or {count}, or {'index:none' if 'none' in classes else 'none'} for no class."


def near(word: str, classes: list[str]) -> str:
    """' Did you mean X?' for a class that differs by case, blanks, leading zeros or a few letters."""
    plain = {normalize("NFKC", name).casefold().strip(): name for name in reversed(classes)}
    if close := get_close_matches(normalize("NFKC", word).casefold().strip(), plain, n=1):
        return f" Did you mean {plain[close[0]]!r}?"
    same = [name for name in classes if as_number(word) is not None and as_number(name) == as_number(word)]
    return f" Did you mean {same[0]!r}?" if same else ""


def listed(classes: list[str]) -> str:
    """The names of up to 20 classes."""
    return ", ".join(classes[:20]) + (f", ... ({len(classes)} in all)" if len(classes) > 20 else "")
