"""What each picture is asked to be, and how a network hears it: a class, words, a map, a picture.

Words are prepared and encoded one prompt at a time and padded to one length, so that a picture does not depend on those beside it.
"""

import re
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ldmctl.diffusion.denoise import joined
from ldmctl.errors import ConfigError
from ldmctl.latents.conditions import Known
from ldmctl.latents.prepared import padded
from ldmctl.protocols import Condition
from ldmctl.training.engine import Engine

EVEN = 64  # tokens that prompts are padded to a multiple of, where a conditioner does not say by `length` how many it hears
LARGEST = 1e30  # share of a part, so that their sum is finite
MIXED = re.compile(r"(?<!\\)\|")  # between the parts of a mixed prompt
NUMBER = r"[-+]?[0-9.][-+0-9.,%]*(?:e[-+]?[0-9]+)?|[-+]?(?:nan|inf|infinity)"  # or what is meant as one
SHARE = re.compile(rf"^(?P<words>.*?)\s*(?<!\\):\s*(?P<share>{NUMBER})\s*$", re.DOTALL | re.IGNORECASE)


class Ask(NamedTuple):
    """What one picture is asked to be."""

    label: int = -1  # class index, -1 for no class
    prompt: str = ""  # words; empty for none


class Part(NamedTuple):
    """Of a prompt: some words, and their share."""

    words: str
    share: float


def parts_of(prompt: str) -> list[Part]:
    """The parts of a prompt with shares that add up to 1: `a red circle :0.6 | a blue star :0.4`; one of all where it is not mixed.

    `\\|` and `\\:` stand for themselves. Shares that are no positive numbers are a ConfigError.
    """
    pieces = MIXED.split(prompt)
    if len(pieces) == 1:
        return [Part(plain(prompt), 1.0)]
    found = []
    for piece in pieces:
        said = SHARE.match(piece.strip())
        words, share = (said["words"], said["share"]) if said else (piece.strip(), "1")
        try:
            number = float(share)
        except ValueError:
            number = 0.0
        if not (0 < number <= LARGEST) or not words:
            raise ConfigError(
                f"The mixed prompt {prompt!r} wants words and a share above 0 in each part, such as 'a red circle :0.6 | a blue star :0.4'. "
                "Where | is meant as it stands, write \\|."
            )
        found.append(Part(plain(words), number))
    total = sum(part.share for part in found)
    return [Part(part.words, part.share / total) for part in found]


def plain(words: str) -> str:
    """Words without the marks that let `|` and `:` stand for themselves."""
    return words.replace("\\|", "|").replace("\\:", ":")


def cut_off(conditioner: Any, prompt: str) -> str:
    """The end of a prompt that is not heard, empty where all of it is."""
    return "; ".join(end for part in parts_of(prompt) if (end := conditioner.cut(part.words)))


def short(words: str, most: int = 60) -> str:
    """Words, or their beginning and their end."""
    return words if len(words) <= most else f"{words[: most // 2]} ... {words[-most // 2 :]}"


def words_known(conditioner: Any, prompts: Sequence[str], engine: Engine) -> Known:
    """What a conditioner of text says of these prompts, mixed where they are; rows of empty ones are not known."""
    once = {prompt: heard_words(conditioner, prompt, engine) for prompt in dict.fromkeys(prompts)}
    rows = [once[prompt] for prompt in prompts]
    there = torch.tensor([bool(prompt.strip()) for prompt in prompts], device=engine.device)
    return Known(reduce(joined, rows), there)


@torch.no_grad()
def heard_words(conditioner: Any, prompt: str, engine: Engine) -> Condition:
    """The condition [1, ...] of one prompt, its tokens padded to as many as any prompt has."""
    said = parts_of(prompt)
    rows = conditioner.prepare([part.words for part in said], device=engine.device)
    most = int(getattr(conditioner, "length", 0) or getattr(getattr(conditioner, "config", None), "length", 0)) or EVEN
    every = [conditioner.encode({name: value.to(engine.device) for name, value in padded([row], even=most).items()}) for row in rows]
    return mixed(every, [part.share for part in said]) if len(every) > 1 else every[0]


def mixed(conditions: Sequence[Condition], shares: Sequence[float]) -> Condition:
    """The weighted mean of conditions [1, ...]; where only some have a token, of those."""
    vectors = [each.vector for each in conditions if each.vector is not None]
    vector = sum((share * each for share, each in zip(shares, vectors, strict=True)), start=torch.zeros(())) if vectors else None
    if conditions[0].tokens is None:
        return Condition(vector)
    longest = max(each.tokens.shape[1] for each in conditions if each.tokens is not None)
    tokens, masks = zip(*(_as_long(each, longest) for each in conditions), strict=True)
    weight = torch.stack([share * mask.float() for share, mask in zip(shares, masks, strict=True)])[..., None]
    total = weight.sum(0)
    mean = (weight * torch.stack(tokens)).sum(0) / total.clamp(min=1e-9)
    return Condition(vector, mean, (total > 0).squeeze(-1))


def _as_long(condition: Condition, length: int) -> tuple[Tensor, Tensor]:
    assert condition.tokens is not None
    count = condition.tokens.shape[1]
    mask = condition.mask if condition.mask is not None else condition.tokens.new_ones(condition.tokens.shape[:2], dtype=torch.bool)
    return pad(condition.tokens, (0, 0, 0, length - count)), pad(mask, (0, length - count))


def known_of(network: Any, asks: Sequence[Ask], engine: Engine, pictures: Mapping[str, Known] | None = None) -> dict[str, Known]:
    """What a network is given of these asks, by slot; `pictures` are maps and pictures that were opened before."""
    found: dict[str, Known] = {}
    if network.conditioner is not None:
        found["label"] = Known(torch.tensor([ask.label for ask in asks], device=engine.device))
    if network.text is not None and any(ask.prompt.strip() for ask in asks):
        found["text"] = words_known(network.text, [ask.prompt for ask in asks], engine)
    return found | {slot: each for slot, each in (pictures or {}).items() if getattr(network, slot) is not None}
