"""Which words each sample is of, and which words or class guidance goes away from."""

from typing import Any

from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion.asking import Ask, parts_of
from ldmctl.diffusion.labels import named, negative_label
from ldmctl.errors import ConfigError


def hears_words(header: dict[str, Any]) -> bool:
    """Whether a model listens to captions."""
    return "text" in header.get("conditions", {})


def prompts_in_turn(config: Sample, header: dict[str, Any]) -> list[str]:
    """The prompts that pictures take in turn, none without any; all are empty at guidance=0. A ConfigError where the model hears no words."""
    if config.prompt is None:
        return []
    if not config.prompt:
        raise ConfigError("prompt=[] says nothing; leave it away.")
    if not hears_words(header):
        raise ConfigError(
            "This model was trained without captions, so --prompt has nothing to say to it. Leave it away, or train one with "
            "conditions.text=words on pictures with captions."
        )
    for prompt in config.prompt:
        parts_of(prompt)
    return [""] * len(config.prompt) if config.guidance == 0 else list(config.prompt)


def negative_ask(config: Sample, header: dict[str, Any]) -> Ask | None:
    """What guidance goes away from: a class, or else words; None for what is asked of nothing. A ConfigError for what the model does not know."""
    if config.negative is None:
        return None
    words = hears_words(header)
    if not words or (header["conditioner"] is not None and named(config.negative, header["classes"]) is not None):
        return Ask(negative_label(config, header))
    return Ask(prompt=config.negative)


def expect_encoder(config: Sample, network: Any, header: dict[str, Any]) -> None:
    """A MissingError where words are asked for and what reads them is not to be had."""
    negative = negative_ask(config, header)
    if any(prompts_in_turn(config, header)) or (negative is not None and negative.prompt):
        getattr(network.text, "needed", None)  # its folder is looked for, and its hash compared
