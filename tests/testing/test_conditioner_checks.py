"""What is wrong with a conditioner is found by its check, whatever it listens to; the built-in ones pass."""

import pytest
import torch

from ldmctl import registry
from ldmctl.errors import PluginError
from ldmctl.protocols import Condition
from ldmctl.testing import check_conditioner

Words = registry.load("conditioner", "words")
Map = registry.load("conditioner", "map")
Inpaint = registry.load("conditioner", "inpaint")
LowRes = registry.load("conditioner", "lowres")


@pytest.mark.parametrize("name", ["label", "words", "map", "inpaint", "lowres"])
def test_the_built_in_ones_pass(name):
    check_conditioner(registry.load("conditioner", name))


def test_keys_reach_the_conditioner():
    check_conditioner(Words, width=32, heads=2, length=8, dim=4)
    check_conditioner(LowRes, factor=2, noise=0.1)


class Refuses(Map):
    """Label maps only."""

    def __init__(self, config, *, maps, factor, size):
        if not maps["classes"]:
            raise PluginError("This one takes label maps only.")
        super().__init__(config, maps=maps, factor=factor, size=size)


def test_a_map_conditioner_may_refuse_one_kind_of_map_but_not_both():
    check_conditioner(Refuses)

    class RefusesAll(Map):
        def __init__(self, config, **context):
            raise PluginError("Not today.")

    with pytest.raises(PluginError, match="Not today"):
        check_conditioner(RefusesAll)


def loud(self, given):
    """Averages padding with the rest."""
    said = Words.encode(self, given)
    return said._replace(vector=said.tokens.mean(1) @ self.to_vector.weight.T)


def jealous(self, texts, device=None):
    """Says more, the more texts there are."""
    return [{"ids": row["ids"].repeat(len(texts))} for row in Words.prepare(self, texts)]


def zero(self, count):
    """Zeros, as if the empty text had nothing to say."""
    return Condition(torch.zeros(count, self.vector_dim), torch.zeros(count, 2, self.token_dim), torch.ones(count, 2, dtype=torch.bool))


FAULTS = [
    (Words, {"listens": "music"}, "listens to 'music', and there are label, text, map, picture"),
    (Words, {"encode": loud}, "the vector depends on how far texts are padded"),
    (Words, {"prepare": jealous}, "other ids for 'a red circle' alone than among others"),
    (Words, {"prepare": lambda self, texts, device=None: Words.prepare(self, texts)[:1]}, "1 rows for 4 texts"),
    (Words, {"prepare": lambda self, texts, device=None: [{"ids": torch.zeros(len(text))} for text in texts]}, "one length from 1 is right"),
    (Words, {"fingerprint": "words"}, "must be a SHA-256"),
    (Words, {"cut": lambda self, text: None}, "cut gave no text"),
    (Words, {"cut": lambda self, text: "." + text}, "something of the empty text is not heard"),
    (Words, {"null": zero}, "null is not what the empty text says"),
    (Words, {"fit": classmethod(lambda cls, config, captions: {"merges": [], "first": next(iter(captions))})}, "same captions in another order"),
    (Words, {"fit": classmethod(lambda cls, config, captions: {"merges": (("a", "b"),)})}, "written as JSON"),
    (Map, {"null": lambda self, count, size=None: Condition(maps=torch.ones(count, self.map_channels, 4, 6))}, r"null\(2, size=\(3, 5\)\) gave"),
    (Map, {"encode": lambda self, given: Condition(maps=Map.encode(self, given).maps[..., :3])}, "for latents of 4 x 6"),
    (Inpaint, {"wants": "everything"}, "wants 'everything', not 'latent' or 'image'"),
    (Inpaint, {"draw": lambda self, latent, generator: {"latent": latent, "mask": torch.rand(3, 1, 4, 6)}}, "two masks by the same generator"),
    (Inpaint, {"draw": lambda self, latent, generator: {"latent": latent, "mask": torch.ones(3, 4, 6)}}, "draw gave other shapes"),
    (LowRes, {"shrink": lambda self, picture: picture[..., ::4, ::4] / 255}, r"shrink gave no uint8"),
]  # fmt: skip


@pytest.mark.parametrize(("cls", "changes", "complaint"), FAULTS)
def test_a_fault_is_named(cls, changes, complaint):
    broken = type("Broken", (cls,), changes)
    with pytest.raises(PluginError, match=f"(?s)Broken is not a good conditioner: .*(?:{complaint})"):
        check_conditioner(broken)
