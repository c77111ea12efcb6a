"""What a model has to be told, since it never learned to do without: its null stands for nothing that training saw.

A null is learned from items of which nothing is known, or one thing is not, and from those of which it is dropped; `what_it_learns`
writes down in a model's header which of these there were.
"""

from collections.abc import Iterable
from typing import Any

from ldmctl import registry
from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion.asking import Ask
from ldmctl.diffusion.conditions import SLOTS
from ldmctl.errors import ConfigError

NAMED = {"label": "a label", "text": "a prompt", "map": "a map", "picture": "a picture"}
GIVEN_BY = {"label": "a --label", "text": "a --prompt", "map": "a --map", "picture": "a --picture"}


def refuse_lacking(config: Sample, header: dict[str, Any], asks: Iterable[Ask], away: Ask | None, *, who: str = "This model") -> None:
    """A ConfigError where pictures are asked for, or gone `away` from, without something that the model never learned to do without.

    `who` begins the sentence. Guidance of 0 asks for nothing at all, which is refused before.
    """
    if config.guidance == 0:
        return
    beside = shown(config, header)
    for ask in dict.fromkeys(asks):
        given = [slot for slot in slots_of(header) if slot in beside | said(ask)]
        if lacking := needed(header, given):
            raise ConfigError(f"{who} {sentence(given, lacking)}")
    if away is not None and (lacking := needed(header, [slot for slot in slots_of(header) if slot in beside | said(away)])):
        raise ConfigError(
            f"negative={config.negative} goes away from pictures without {listed(NAMED, lacking)}, which this model never learned: it was "
            f"trained with {never_dropped(lacking)}. Leave it away, or train with a share that is dropped."
        )


def needed(header: dict[str, Any], given: list[str]) -> list[str]:
    """Of the slots that are not `given`, those that the model never learned to do without beside what is given."""
    slots, alone = slots_of(header), header.get("left_alone", {})
    if not given and header.get("unconditional", True):  # older models do not say
        return []
    return [slot for slot in slots if slot not in given and not alone.get(slot, len(slots) > 1)]


def slots_of(header: dict[str, Any]) -> list[str]:
    """What a model listens to."""
    heard = {"label": header["conditioner"], **header.get("conditions", {})}
    return [slot for slot in SLOTS if heard.get(slot) is not None]


def said(ask: Ask) -> set[str]:
    """The slots in which something is asked for."""
    return {slot for slot, there in {"label": ask.label >= 0, "text": bool(ask.prompt.strip())}.items() if there}


def shown(config: Sample, header: dict[str, Any]) -> set[str]:
    """The slots in which a config shows something: a map, a picture to follow, or what of a picture is not painted anew."""
    found = {slot for slot in ("map", "picture") if getattr(config, slot) is not None}
    listener = header.get("conditions", {}).get("picture")
    painted = config.mask is not None or config.outpaint is not None
    if listener and painted and getattr(registry.load("conditioner", listener["type"]), "wants", None) == "latent":
        told = config.painting.method == "condition" or "method" not in config.painting.model_fields_set
        return found | {"picture"} if told else found
    return found


def sentence(given: list[str], lacking: list[str]) -> str:
    """What was never learned, why, and what to do; whose it is goes before."""
    give = listed(GIVEN_BY, lacking)
    if not given:
        return f"never learned to do without {listed(NAMED, lacking)}: it was trained with drop=0. Give {give}, or train with drop=0.1."
    return (
        f"never learned {listed(NAMED, given)} without {listed(NAMED, lacking)}: it was trained with {never_dropped(lacking)}. "
        f"Give {give} as well, or train with a share that is dropped."
    )


def never_dropped(slots: list[str]) -> str:
    """The keys by which these were never left out alone."""
    return " and ".join(f"conditions.drop.{slot}=0" for slot in slots)


def listed(words: dict[str, str], slots: list[str]) -> str:
    """The words of some slots in a sentence."""
    return " and ".join(filter(None, [", ".join(words[slot] for slot in slots[:-1]), words[slots[-1]]]))
