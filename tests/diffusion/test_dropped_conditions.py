"""What is left out of a step is heard as nothing is in sampling, and how often that is so, on any number of ranks."""

from math import sqrt

import pytest
import torch

from ldmctl import registry
from ldmctl.diffusion.denoise import joined
from ldmctl.diffusion.network import build_network, describe_network
from ldmctl.diffusion.objective import alone, draw, rows_read
from ldmctl.errors import PluginError
from ldmctl.latents.codec import Codec, load_autoencoder
from ldmctl.latents.conditions import Known, of_rows
from ldmctl.latents.manifest import read
from ldmctl.latents.prepared import padded
from ldmctl.protocols import Condition
from ldmctl.training.engine import Engine

CPU = Engine(torch.device("cpu"), torch.float32)
CLASSES = ["cat", "dog"]
CAPTIONS = ["a red circle", "a small blue square on white, seen from very far away", "a red star"]
ALL = ["conditions.text=words", "conditions.map=map", "conditions.picture=inpaint"]
MASKED = {"latent": torch.ones(3, 4, 4, 4), "mask": torch.zeros(3, 1, 4, 4)}


def scattered(network):
    """With weights as after training, so that every input is heard."""
    torch.manual_seed(3)
    for value in network.parameters():
        torch.nn.init.normal_(value, std=0.2)
    return network.eval()


@pytest.fixture
def network(tiny):
    """Listens to labels, words, maps of two classes and holes, of latents 4 x 4 x 4 behind pictures of 8 x 8."""
    config = tiny("fit-diffusion", *ALL)
    words = registry.load("conditioner", "words")
    others = {
        "text": (config.conditions.text, {"fitted": words.fit(config.conditions.text, CAPTIONS)}),
        "map": (config.conditions.map, {"maps": {"classes": ["ground", "thing"], "channels": 1}, "factor": 2, "size": [4, 4]}),
        "picture": (config.conditions.picture, {"channels": 4, "size": [4, 4]}),
    }
    described = describe_network(config.denoiser, config.conditions.label, latent=(4, 4, 4), classes=CLASSES, others=others)
    return scattered(build_network(described))


def known(network, captions=CAPTIONS):
    count = len(captions)
    return {
        "label": torch.arange(count) % 2,
        "text": Known(padded(network.text.prepare(captions))),
        "map": Known(torch.ones(count, 1, 8, 8, dtype=torch.uint8)),
        "picture": Known({name: value[:count] for name, value in MASKED.items()}),
    }


def same(one, other):
    """Whether two conditions are equal bit for bit where they count; behind them all is 0 and masked."""
    length = min(one.tokens.shape[1], other.tokens.shape[1])
    assert torch.equal(one.vector, other.vector) and torch.equal(one.maps, other.maps)
    assert torch.equal(one.tokens[:, :length], other.tokens[:, :length]) and torch.equal(one.mask[:, :length], other.mask[:, :length])
    assert not any(each.mask[:, length:].any() or each.tokens[:, length:].any() for each in (one, other))


# -- the null ------------------------------------------------------------------


def test_what_is_dropped_in_training_is_the_null_of_sampling_bit_for_bit(network):
    x = torch.zeros(3, 4, 4, 4)
    whole = network.condition(known(network), None, like=x)
    left = network.condition(known(network), torch.ones(3, dtype=torch.bool), like=x)
    null = network.null(x)
    same(left, null)
    assert null.mask.sum(1).tolist() == [2, 2, 2], "begin and end of an empty caption"
    assert not torch.equal(whole.vector, null.vector) and not torch.equal(whole.maps, null.maps)


def test_the_null_does_not_know_how_long_the_dropped_caption_was(network):
    x, dropped = torch.randn(1, 4, 4, 4), torch.ones(1, dtype=torch.bool)
    said = [network(x, torch.tensor([3.0]), known(network, [caption]), dropped) for caption in ("a", CAPTIONS[1] * 4)]
    plain = network(x, torch.tensor([3.0]))
    same(*(network.condition(known(network, [caption]), dropped, like=x) for caption in ("a", CAPTIONS[1] * 4)))
    for each in said:
        torch.testing.assert_close(each, plain, rtol=1e-5, atol=1e-5)


def test_a_row_hears_its_own_condition_whatever_is_dropped_beside_it(network):
    x = torch.zeros(3, 4, 4, 4)
    some = network.condition(known(network), torch.tensor([True, False, True]), like=x)
    whole, null = network.condition(known(network), None, like=x), network.null(x)
    for part in ("vector", "maps"):
        assert torch.equal(getattr(some, part)[1], getattr(whole, part)[1])
        assert torch.equal(getattr(some, part)[[0, 2]], getattr(null, part)[[0, 2]])
    assert some.mask.sum(1).tolist() == [2, int(whole.mask[1].sum()), 2]


def test_one_condition_is_dropped_while_the_others_are_heard(network):
    x = torch.zeros(3, 4, 4, 4)
    whole, null = network.condition(known(network), None, like=x), network.null(x)
    size = network.conditioner.vector_dim
    dropped = {"text": torch.ones(3, dtype=torch.bool)}
    said = network.condition(known(network), dropped, like=x)
    assert torch.equal(said.vector[:, :size], whole.vector[:, :size]) and torch.equal(said.vector[:, size:], null.vector[:, size:])
    assert torch.equal(said.maps, whole.maps)
    assert said.mask.sum(1).tolist() == [2, 2, 2]


def test_items_without_a_caption_or_a_map_are_heard_as_null_in_that_slot_alone(network):
    x = torch.zeros(3, 4, 4, 4)
    given, there = known(network), torch.tensor([True, False, True])
    given["text"], given["map"] = given["text"]._replace(there=there), given["map"]._replace(there=there)
    said, whole, null = (network.condition(given, None, like=x), network.condition(known(network), None, like=x), network.null(x))
    assert said.mask[1].sum() == 2 and torch.equal(said.maps[1, :3], null.maps[1, :3])
    assert torch.equal(said.maps[1, 3:], whole.maps[1, 3:]), "the hole of its picture is told"
    assert torch.equal(said.vector[[0, 2]], whole.vector[[0, 2]]) and torch.equal(said.maps[[0, 2]], whole.maps[[0, 2]])


@pytest.mark.parametrize("denoiser", ["unet", "dit"])
def test_what_a_whole_network_says_does_not_depend_on_the_padding(tiny, denoiser):
    made = ["denoiser={type: dit, width: 16, depth: 2, head_dim: 8, patch: 2}"] if denoiser == "dit" else []
    config = tiny("fit-diffusion", "conditioner=null", "conditions.text=words", *made)
    fitted = registry.load("conditioner", "words").fit(config.conditions.text, CAPTIONS)
    described = describe_network(
        config.denoiser, latent=(4, 4, 4), classes=[], others={"text": (config.conditions.text, {"fitted": fitted})}
    )
    network, x = scattered(build_network(described)), torch.randn(3, 4, 4, 4)
    rows = network.text.prepare(CAPTIONS)
    said = [network(x, torch.tensor([3.0, 9.0, 1.0]), {"text": Known(padded(rows, even=even))}) for even in (8, 32, 77)]
    silent = network(x, torch.tensor([3.0, 9.0, 1.0]))
    assert (said[0] - silent).abs().max() > 1e-2, "captions are heard"
    for each in said[1:]:
        torch.testing.assert_close(each, said[0], rtol=1e-5, atol=1e-5)


# -- how often -----------------------------------------------------------------


def share_of(drawn):
    return torch.cat(drawn).double().mean().item()


def test_each_condition_is_dropped_alone_at_its_share_and_independently_of_the_others(tiny):
    config = tiny("fit-diffusion", *ALL, "conditions.drop={label: 0.1, text: 0.25, map: 0.5, picture: 0}")
    steps = [alone(config, 64, CPU.device, ("noise", 0, step)) for step in range(200)]
    assert all(each.keys() == {"label", "text", "map"} for each in steps), "what is never dropped needs no numbers"
    count = 64 * 200
    for slot, share in {"label": 0.1, "text": 0.25, "map": 0.5}.items():
        assert share_of([each[slot] for each in steps]) == pytest.approx(share, abs=4 * sqrt(share * (1 - share) / count))
    both = share_of([each["text"] & each["map"] for each in steps])
    assert both == pytest.approx(0.125, abs=4 * sqrt(0.125 * 0.875 / count))
    assert len({tuple(each["text"].tolist()) for each in steps}) == 200, "drawn anew in every step"


def test_by_default_one_in_five_is_dropped_alone_where_there_are_several_and_none_where_there_is_one(tiny):
    several = tiny("fit-diffusion", "conditions.text=words", "conditions.drop.label=null", "conditions.drop.text=null").conditions
    assert (several.dropped("label"), several.dropped("text")) == (0.2, 0.2)
    single = tiny("fit-diffusion", "conditions.drop.label=null").conditions
    assert single.slots == ["label"] and single.dropped("label") == 0.0


@pytest.fixture(scope="module")
def stored(vae_cache):
    """(200 moments of tiny latents, a codec for them)."""
    manifest = read(vae_cache)
    autoencoder, _ = load_autoencoder(vae_cache / "autoencoder.safetensors", CPU)
    random = torch.Generator().manual_seed(0)
    channels, height, width = manifest.latent
    return torch.randn(200, 2 * channels, height, width, generator=random), Codec(autoencoder, CPU, manifest.statistics, tile=None)


def test_all_conditions_are_dropped_together_at_the_share_of_drop(tiny, stored):
    moments, codec = stored
    config = tiny("fit-diffusion", *ALL, "drop=0.3")
    schedule = registry.build("schedule", config.schedule)
    labels = torch.zeros(200, dtype=torch.long)
    drawn = [draw(config, 200, slice(0, 200), moments, labels, codec, schedule, CPU, ("noise", 0, step)) for step in range(40)]
    assert share_of([each.dropped for each in drawn]) == pytest.approx(0.3, abs=4 * sqrt(0.21 / 8000))
    for each in drawn:
        for slot in ("label", "text", "map", "picture"):
            assert (each.without[slot] | ~each.dropped).all(), "without any is also without this one"


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_and_micro_batches_draw_what_one_process_draws(tiny, stored, world):
    moments, codec = stored
    drops = "conditions.drop={label: 0.2, text: 0.2, map: 0.2, picture: 0.2}"
    config = tiny("fit-diffusion", *ALL, drops, "noise={offset: 0.1, perturbation: 0.1}")
    schedule = registry.build("schedule", config.schedule)
    painter = registry.build("conditioner", config.conditions.picture, channels=moments.shape[1] // 2, size=moments.shape[2:])
    labels = torch.arange(200)
    captions = Known({"ids": torch.arange(200)[:, None], "mask": torch.ones(200, 1, dtype=torch.bool)}, labels % 3 > 0)

    def drawn(rows):
        read_ = rows_read(rows, 200)
        here = {"known": of_rows({"text": captions}, read_), "painter": painter}
        return draw(config, 200, rows, moments[read_], labels[read_], codec, schedule, CPU, ("noise", 0, 5), **here)

    whole, each = drawn(slice(0, 200)), 200 // world
    for rank in range(world):
        rows = slice(rank * each, (rank + 1) * each)
        part, wish = drawn(rows), whole.part(rows)
        for one, other in zip(part[:7], wish[:7], strict=True):
            assert torch.equal(one, other)
        assert part.left.keys() == wish.left.keys() == {"label", "text", "map", "picture"}
        assert all(torch.equal(part.left[slot], wish.left[slot]) for slot in wish.left)
        assert torch.equal(part.known["text"].value["ids"], wish.known["text"].value["ids"])
        assert torch.equal(part.known["text"].there, wish.known["text"].there)
        for name in ("latent", "mask"):
            assert torch.equal(part.known["picture"].value[name], wish.known["picture"].value[name])
        again = part.part(slice(0, 8)).without["text"]
        assert torch.equal(again, part.without["text"][:8])
    assert whole.known["picture"].value["mask"].mean() < 1, "some holes are parts"


def test_a_null_of_another_form_is_the_conditioners_fault(network):
    with pytest.raises(PluginError, match="only one of them has maps"):
        joined(Condition(vector=torch.zeros(1, 2)), Condition(vector=torch.zeros(1, 2), maps=torch.zeros(1, 1, 2, 2)))
