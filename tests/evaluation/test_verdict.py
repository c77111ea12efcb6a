"""An examination has known answers, and a verdict says what they mean and which keys exist to change them."""

import json
import math
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import nn

from ldmctl import registry
from ldmctl.config.base import PluginConfig, section_of, slot_of
from ldmctl.config.presets import pictures_of
from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.config.schemas.shared import Image
from ldmctl.errors import DataError, MissingError
from ldmctl.evaluation.figures import LOUDER, compared, latents_shown, write_pictures
from ldmctl.evaluation.frechet import frechet_distance, statistics_of
from ldmctl.evaluation.metrics import Mean, psnr
from ldmctl.evaluation.phases import before_and_after
from ldmctl.evaluation.reconstruction import as_saved, evaluate, shrunk, title_of
from ldmctl.evaluation.scores import Codes, Evaluation
from ldmctl.evaluation.verdict import judge, verdict
from ldmctl.latents.codec import Codec
from ldmctl.latents.statistics import LatentFacts, LatentStatistics, Spread
from ldmctl.latents.usage import CodeUsage
from ldmctl.pictures.batches import Pictures
from ldmctl.pictures.images import read, to_uint8
from ldmctl.pictures.png import read_png_text, write_png
from ldmctl.protocols import Example
from ldmctl.stages.eval_lpips import eval_lpips, losses_of, plan_eval_lpips, trained_with
from ldmctl.training.engine import Engine

HOST = Engine(torch.device("cpu"), torch.float32)


class Given:
    """A dataset of these tensors uint8 [C,H,W]; None is an unreadable one."""

    classes: list[str] = []

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if self.images[index] is None:
            raise DataError("broken")
        return Example(self.images[index])

    def stamp(self, index):
        return str(index)


class Plain(nn.Module):
    """Pictures are their own latents."""

    factor, channels, rescale = 1, 3, "channel"

    class Config(PluginConfig):
        kl_weight: float = Field(1e-6)
        channels: int = 3

    def encode(self, image):
        return image

    def draw(self, moments, generator=None):
        return moments

    def decode(self, latent):
        return latent


class Blocks(Plain):
    """A latent is the picture's mean over 4 x 4 squares, a reconstruction shows them as squares."""

    factor = 4

    def encode(self, image):
        return F.avg_pool2d(image, 4)

    def decode(self, latent):
        return F.interpolate(latent, scale_factor=4, mode="nearest")


class Folded(Plain):
    """Every 2 x 2 square is folded into channels: a latent is smaller than its picture and loses nothing."""

    factor, channels = 2, 12

    def encode(self, image):
        return F.pixel_unshuffle(image, 2)

    def decode(self, latent):
        return F.pixel_shuffle(latent, 2)


class Constant(Blocks):
    """A latent that never changes."""

    def encode(self, image):
        return torch.full_like(F.avg_pool2d(image, 4), 0.7)


class Noisy(Plain):
    """A Gaussian: the first channel is known well, the second is nearly all noise, the third nothing but noise."""

    noise = torch.tensor([0.1, 20.0, 1.0]).view(1, 3, 1, 1)
    gain = torch.tensor([1.0, 1.0, 0.0]).view(1, 3, 1, 1)

    def draw(self, moments, generator=None):
        return self.mode(moments) + self.noise * torch.randn(moments.shape, generator=generator)

    def mode(self, moments):
        return moments * self.gain

    def bits(self, moments):
        return torch.full((len(moments),), 100.0)


class Coded(Blocks):
    """Brightness in 4 x 4 squares, rounded to sixteen codes of which eight can never occur."""

    rescale, code_count = "common", 16

    class Config(PluginConfig):
        codebook_size: int = 16
        revive: int = 25

    def codes(self, moments):
        return ((moments.mean(1) + 1) / 2 * 7.999).floor().clamp(0, 7).long()


class Gap(nn.Module):
    """Mean absolute difference."""

    def forward(self, image, target):
        return (image - target).abs().mean((1, 2, 3))


class Titled(Gap):
    title = "Mean Gap"


class Embedding(Gap):
    """A distance whose features are the mean and the largest value of each channel."""

    title = "colours"

    def embed(self, image):
        return torch.cat([image.mean((2, 3)), image.amax((2, 3))], dim=1)


def noise(count=12, size=16, channels=3, seed=0):
    return list(torch.randint(0, 256, (count, channels, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8))


def smooth(count=12, size=16, channels=3):
    """Ramps, each of its own slope."""
    ramp = torch.linspace(-1, 1, size)
    return [(128 + 100 * i / count * ramp).round().to(torch.uint8).expand(channels, size, size).contiguous() for i in range(1, count + 1)]


def pictures(images):
    return Pictures(Given(images), Image(size=images[0].shape[-1], channels=images[0].shape[0]))


def look(autoencoder, images, perceptual=None, **options):
    return evaluate(Codec(autoencoder, HOST), {"val": pictures(images)}, perceptual, HOST, workers=0, **{"batch": 5, **options})


# -- known answers -----------------------------------------------------------


def test_an_autoencoder_that_loses_nothing_has_psnr_100_ssim_1_and_distance_0():
    found = look(Folded(), noise(), Gap())
    assert [found.measures[name].mean for name in ("psnr", "ssim", "gap")] == pytest.approx([100, 1, 0])
    assert found.measures["psnr"].count == found.count == found.of == 12
    assert found.gains["psnr"].mean == pytest.approx(100 - found.baseline["psnr"].mean)
    assert verdict(found)[-1].startswith("All in all likely good enough")


def test_a_latent_as_large_as_its_picture_has_no_baseline():
    found = look(Plain(), noise(), Gap())
    assert found.baseline == {} == found.gains and found.as_dict()["baseline"] is None
    assert "nothing here to compare" in " ".join(verdict(found))


def test_the_frechet_distance_of_reconstructions_and_of_shrunk_pictures_is_that_of_their_features():
    images, distance = noise(), Embedding()
    target = torch.stack(images).float() / 127.5 - 1
    sets = (target, as_saved(Blocks().decode(Blocks().encode(target))), shrunk(target, (4, 4), 4))
    real, made, small = (statistics_of(distance.embed(each)) for each in sets)
    found = look(Blocks(), images, distance)
    assert found.frechet == {"colours": pytest.approx((frechet_distance(made, real), frechet_distance(small, real)), rel=1e-6)}
    assert found.as_dict()["frechet"]["colours"]["made"] == pytest.approx(frechet_distance(made, real), rel=1e-6)
    assert look(Folded(), images, distance).frechet["colours"][0] == pytest.approx(0, abs=1e-9)
    assert look(Plain(), images, distance).frechet["colours"][1] is None, "there is no shrunk picture to compare with"
    assert look(Blocks(), images, Gap()).frechet == {} and look(Blocks(), images[:1], distance).frechet == {}
    with_both = look(Blocks(), images, [distance, Gap()])
    assert set(with_both.frechet) == {"colours"} and with_both.distances == ["colours", "gap"]


def test_what_the_discriminator_changed_is_said_with_both_numbers():
    images = noise()
    before, after = look(Blocks(), images, Embedding()), look(Folded(), images, Embedding())
    (said,) = before_and_after({"step": 1000, **before.as_dict()}, after, 2000)
    numbers = [
        *(each.measures[name].mean for name in ("psnr", "ssim", "colours") for each in (before, after)),
        before.frechet["colours"][0],
    ]
    assert said.startswith("From the discriminator's first step (1,001) to step 2,000: PSNR from {:.4g} to {:.4g}, SSIM from {:.4g} to {:.4g}, "
        "colours from {:.4g} to {:.4g}, the Frechet distance of reconstructions in colours from {:.4g} to ".format(*numbers))  # fmt: skip
    assert numbers[0] < 20 and numbers[1] == pytest.approx(100) and numbers[-1] > 0.01
    assert before_and_after({"step": 1000, **before.as_dict(), "split": "train"}, after, 2000) == []
    (same,) = before_and_after({"step": 1000, **before.as_dict()}, after, 2000, others_since=999)
    assert same == said, "other pictures were held out before both were measured"
    (other,) = before_and_after({"step": 1000, **before.as_dict()}, after, 2000, others_since=1000)
    assert other == "What the discriminator has changed cannot be said: other pictures are held out since step 1,000."
    (said,) = before_and_after({"step": 1000, **before.as_dict()}, after, 800)
    assert said == "The published weights are of before the discriminator's first step (1,001): it has changed nothing in them."


def test_reconstructions_are_those_of_the_codec_rounded_to_8_bits():
    images = noise()
    codec, target = Codec(Blocks(), HOST), torch.stack(images).float() / 127.5 - 1
    expected = psnr(codec.reconstruct(target), target).mean().item()
    assert look(Blocks(), images).measures["psnr"].mean == pytest.approx(expected, abs=1e-6)


def test_squares_lose_to_shrinking_on_smooth_pictures_and_detail_wins():
    lost, won = look(Blocks(), smooth()), look(Folded(), smooth())
    assert lost.gains["psnr"].mean < 0 < won.gains["psnr"].mean
    assert "keeps less than shrinking" in " ".join(verdict(lost)) and "keeps clearly more" in " ".join(verdict(won))


def test_shrinking_keeps_constant_pictures_and_the_size_of_odd_ones():
    image = torch.full((2, 3, 18, 18), 0.2)
    small = shrunk(image, (5, 5), 4)
    assert small.shape == image.shape and psnr(small, image).tolist() == [100, 100]
    assert shrunk(image, (18, 18), 1) is None


def test_batches_and_their_sizes_change_no_number():
    one, other = (look(Coded(), noise(), Gap(), batch=batch).as_dict() for batch in (3, 12))
    for name in ("psnr", "ssim", "gap"):
        assert one[name] == pytest.approx(other[name], rel=1e-6)
    assert one["latent"]["deviations"] == pytest.approx(other["latent"]["deviations"])
    assert one["codes_used"] == other["codes_used"] and one["codes_perplexity"] == pytest.approx(other["codes_perplexity"])


def test_only_the_first_so_many_are_examined_and_the_verdict_says_so():
    found = look(Plain(), noise(), count=7)
    assert (found.count, found.of) == (7, 12) and "7 of the 12 pictures of the val split" in verdict(found)[0]


def test_without_held_out_pictures_the_trained_ones_are_taken_and_said_to_flatter():
    empty = Pictures(Given([]), Image(size=16))
    found = evaluate(Codec(Plain(), HOST), {"val": empty, "train": pictures(noise())}, None, HOST)
    assert found.split == "train" and "flatter" in verdict(found)[0]
    with pytest.raises(DataError, match="no pictures to examine"):
        evaluate(Codec(Plain(), HOST), {"val": empty}, None, HOST)


def test_unreadable_pictures_are_left_out_and_counted():
    images = noise(count=120)
    images[3] = None
    found = look(Plain(), images, batch=50)
    assert found.count == 119 and "1 of 120 pictures could not be read" in " ".join(verdict(found))


def test_one_picture_has_numbers_but_no_interval_and_no_active_channels():
    found = look(Folded(), noise(count=1))
    said = found.as_dict()
    assert said["psnr"] == {"mean": pytest.approx(100), "low": None, "high": None} and said["latent"]["active"] is None
    assert "nan" not in " ".join(verdict(found)) and "few" in verdict(found)[0]


def test_pictures_too_small_for_ssim_have_the_other_numbers():
    small = look(Plain(), noise(size=8))
    assert "ssim" not in small.measures and "image.size is 8" in " ".join(verdict(small))


def test_a_distance_goes_by_its_title_and_else_by_its_name():
    found = look(Blocks(), noise(), [Titled(), Gap(), None])
    assert found.distances == ["mean gap", "gap"] and found.measures["gap"].mean == pytest.approx(found.measures["mean gap"].mean)
    assert title_of(registry.load("perceptual", "lpips").__new__(registry.load("perceptual", "lpips"))) == "lpips"


# -- rate and codes ----------------------------------------------------------


def test_the_rate_of_codes_is_log2_of_their_number_at_each_place_of_the_latent():
    found = look(Coded(), noise())
    assert found.bits_per_pixel == pytest.approx(math.log2(16) * 4 * 4 / (16 * 16))
    assert (
        found.used_bits_per_pixel == pytest.approx(found.codes.entropy * 4 * 4 / (16 * 16))
        and found.used_bits_per_pixel < found.bits_per_pixel
    )


def test_the_rate_is_what_the_autoencoder_says_it_is():
    assert look(Noisy(), noise()).bits_per_pixel == pytest.approx(100 / 256)
    assert look(Plain(), noise()).bits_per_pixel is None


def test_codes_count_as_used_when_any_batch_of_the_split_has_them():
    bright = [torch.full((3, 16, 16), 255 * i // 11, dtype=torch.uint8) for i in range(12)]  # one code per picture
    found = look(Coded(), bright, batch=1)
    assert (found.codes.used, found.codes.size) == (8, 16)
    assert found.as_dict() | {"codes_used": 8, "code_count": 16} == found.as_dict()


def test_perplexity_and_reachable_codes_of_known_counts():
    even, one = CodeUsage(8), CodeUsage(1000)
    even.add(torch.arange(8).repeat(1000).view(10, 20, 40))
    one.add(torch.zeros(10, 2, 5, dtype=torch.int32))
    assert (even.entropy, even.perplexity, even.used) == pytest.approx((3, 8, 8)) and even.reachable == pytest.approx(8)
    assert (one.entropy, one.perplexity, one.used, one.places) == (0, 1, 1, 100)
    assert one.reachable == pytest.approx(1000 * (1 - 0.999**100))


# -- latents -----------------------------------------------------------------


def test_a_constant_latent_has_no_active_channel():
    found = look(Constant(), noise())
    assert found.latent.active == 0 and found.latent.reach == 0 and found.latent.largest == pytest.approx(0.7)
    assert "say nothing of the picture" in " ".join(verdict(found)) and "latent channels" in verdict(found)[-1]


def test_a_place_that_is_the_same_in_every_picture_says_nothing_of_it():
    pattern = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    usage, picture = LatentStatistics(), torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    latent = torch.cat([pattern.expand(20, -1, -1, -1), picture], 1)
    usage.add(latent, latent)
    facts = usage.facts("channel")
    assert facts.deviations == pytest.approx([pattern.std(correction=0).item(), picture.std(correction=0).item()], rel=1e-3)
    assert (facts.active, facts.shares) == (1, [0, 1])


def test_a_channel_is_active_when_the_picture_is_a_hundredth_of_its_variance():
    facts = look(Noisy(), noise(count=60), batch=60).latent
    share = 1 / 3 / (1 / 3 + 400)
    assert facts.shares == pytest.approx([1 / 3 / (1 / 3 + 0.01), share, 0], rel=0.05) and share < 0.01
    assert facts.active == 1


def test_a_channel_far_narrower_than_the_others_is_idle():
    usage, latent = LatentStatistics(), torch.randn(20, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    latent *= torch.tensor([1.0, 0.02, 0.005]).view(1, 3, 1, 1)
    usage.add(latent, latent)
    assert usage.facts("channel").active == 2


def test_spread_over_batches_is_that_of_the_whole():
    values = 1000 + torch.randn(30, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spread = Spread()
    for part in values.split(7):
        spread.add(part)
    torch.testing.assert_close(spread.over_all(), values.var((0, 2, 3), correction=0))
    torch.testing.assert_close(spread.over_pictures(), values.var(0, correction=0).mean((1, 2)))
    torch.testing.assert_close(spread.high, values.amax((0, 2, 3)))


def test_reach_is_in_deviations_of_the_channel_or_of_all():
    latent = torch.ones(8, 2, 4, 4)
    latent[:4] = -1
    latent[:, 1] *= 3
    usage = LatentStatistics()
    usage.add(latent + 5, latent + 5)
    assert usage.facts("channel").reach == pytest.approx(1) and usage.facts("channel").deviations == pytest.approx([1, 3])
    assert usage.facts("common").reach == pytest.approx(3 / math.sqrt(5)) and usage.facts("common").largest == 8


def test_latents_that_are_not_finite_are_never_good():
    latent = torch.randn(8, 2, 4, 4)
    latent[0, 0, 0, 0] = math.inf
    usage = LatentStatistics()
    usage.add(latent, latent)
    facts = usage.facts("channel")
    found = replace(whole(), latent=facts)
    assert {each.about: each.level for each in judge(found)}["extreme latents"] != "good"
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["latent"]["reach"] is None


# -- sentences ---------------------------------------------------------------


def whole(**changes):
    """An examination that pleases in every respect, with every number there is, and these changes."""
    facts = LatentFacts((4, 8, 8), [0.0] * 4, [1.0] * 4, 1.0, 5.0, 5.0, [1.0] * 4, 4)
    keys = {key for kind in registry.plugins("autoencoder") for key in kind.load().Config.model_fields} - {"type"}
    good = Evaluation(
        split="val",
        count=100,
        of=100,
        size=(64, 64),
        image_channels=3,
        measures={"psnr": around(25), "ssim": around(0.8), "lpips": around(0.1)},
        distances=["lpips"],
        baseline={"psnr": around(20), "ssim": around(0.5), "lpips": around(0.4)},
        gains={"psnr": around(5), "ssim": around(0.3), "lpips": around(0.3)},
        latent=facts,
        bits_per_pixel=0.2,
        used_bits_per_pixel=0.18,
        codes=Codes(512, 500, 512.0, 8.5, 362.0),
        keys=frozenset(keys),
    )
    return replace(good, **changes)


def around(mean, count=100, scatter=1e-4):
    return Mean(count, mean, scatter)


def measured(**means):
    return {**whole().measures, **{name: around(mean) for name, mean in means.items()}}


def gained(db=5.0, ssim=0.3):
    return {**whole().gains, "psnr": around(db), "ssim": around(ssim)}


def used(codes, **changes):
    return replace(whole().codes, used=codes, **changes)


def latent(**changes):
    return replace(whole().latent, **changes)


SIDES = [  # about, level, changes on either side of each threshold
    ("PSNR", ["good", "doubtful"], [{"measures": measured(psnr=db)} for db in (23.41, 23.39)]),
    ("PSNR", ["doubtful", "poor"], [{"measures": measured(psnr=db)} for db in (20.21, 20.19)]),
    ("SSIM", ["good", "doubtful"], [{"measures": measured(ssim=value)} for value in (0.691, 0.689)]),
    ("SSIM", ["doubtful", "poor"], [{"measures": measured(ssim=value)} for value in (0.521, 0.519)]),
    ("PSNR", ["good", "doubtful"], [{"gains": gained(db)} for db in (0.01, -0.01)]),
    ("SSIM", ["good", "doubtful"], [{"gains": gained(ssim=value)} for value in (0.01, -0.01)]),
    ("the gain over shrinking", ["good", "doubtful"], [{"gains": gained(db)} for db in (1.01, 0.99)]),
    ("the gain over shrinking", ["doubtful", "poor"], [{"gains": gained(db), "measures": measured(lpips=0.3)} for db in (0.01, -0.01)]),
    ("the gain over shrinking", ["doubtful", "poor"], [{"gains": gained(-1), "measures": measured(lpips=value)} for value in (0.19, 0.21)]),
    ("LPIPS", ["good", "doubtful"], [{"measures": measured(lpips=value)} for value in (0.19, 0.21)]),
    ("LPIPS", ["doubtful", "poor"], [{"measures": measured(lpips=value)} for value in (0.39, 0.41)]),
    ("the rate", ["good", "poor"], [{"bits_per_pixel": value} for value in (0.0051, 0.0049)]),
    ("the rate", ["good", "doubtful"], [{"bits_per_pixel": value} for value in (23.9, 24.1)]),
    ("the use of codes", ["good", "doubtful"], [{"codes": used(count)} for count in (257, 255)]),
    ("the use of codes", ["doubtful", "poor"], [{"codes": used(count)} for count in (103, 102)]),
    ("the use of codes", ["good", "poor"], [{"codes": used(100, reachable=value)} for value in (110.0, 512.0)]),
    ("the latent channels", ["good", "doubtful"], [{"latent": latent(active=count)} for count in (4, 3)]),
    ("the latent channels", ["doubtful", "poor"], [{"latent": latent(active=count)} for count in (1, 0)]),
    ("extreme latents", ["good", "doubtful"], [{"latent": latent(reach=value)} for value in (19.9, 20.1)]),
    ("extreme latents", ["good", "doubtful"], [{"latent": latent(largest=value)} for value in (49.0, 51.0)]),
]


@pytest.mark.parametrize(("about", "levels", "sides"), SIDES)
def test_each_side_of_a_threshold_has_its_own_sentence(about, levels, sides):
    found = [next(each for each in judge(whole(**side)) if each.about == about) for side in sides]
    assert [each.level for each in found] == levels and found[0].sentence != found[1].sentence


def test_every_number_has_one_sentence_and_the_worst_decides():
    judged = judge(whole())
    assert [each.about for each in judged] == list(dict.fromkeys(about for about, _, _ in SIDES))
    assert {each.level for each in judged} == {"good"} and len(verdict(whole())) == len(judged) + 2
    assert "likely good enough" in verdict(whole())[-1]
    assert "doubts about SSIM" in verdict(whole(measures=measured(ssim=0.6)))[-1]
    assert "not good enough for diffusion yet: see to PSNR first" in verdict(whole(measures=measured(ssim=0.6, psnr=10)))[-1]


def every_key(schema, prefix=""):
    """Dotted keys of a verb, those of every plugin in a slot among them."""
    for name, field in schema.model_fields.items():
        yield f"{prefix}{name}"
        if (slot := slot_of(field)) is not None:
            for plugin in registry.plugins(slot.kind):
                yield from every_key(plugin.load().Config, f"{prefix}{name}.")
        elif (section := section_of(field)) is not None and issubclass(section, BaseModel):
            yield from every_key(section, f"{prefix}{name}.")


def test_every_key_that_a_sentence_names_exists():
    keys = set(every_key(FitAE))
    assert {"loop.steps", "autoencoder.kl_weight", "losses.perceptual_weight"} <= keys
    named = set()
    for _, _, sides in SIDES:
        for side in sides:
            for each in judge(whole(**side)):
                found = set(re.findall(r"\b[a-z_]+\.[a-z_]+(?:\.[a-z_]+)*", each.sentence))
                assert found <= keys, each.sentence
                assert found or each.level in ("good", "unknown"), f"no way out: {each.sentence}"
                named |= found
    assert len(named) > 8


def test_only_keys_that_this_autoencoder_has_are_named():
    poor = {
        "measures": measured(psnr=10, ssim=0.1, lpips=0.9),
        "gains": gained(-1),
        "latent": latent(active=2, reach=99.0),
        "codes": used(2),
    }
    for keys in (frozenset(), frozenset({"levels"}), frozenset({"channels", "kl_weight"})):
        for each in judge(whole(keys=keys, **poor)):
            assert {word.removeprefix("autoencoder.") for word in re.findall(r"\bautoencoder\.[a-z_]+", each.sentence)} <= keys, (
                each.sentence
            )
            assert each.level == "good" or re.search(r"\b(loop|losses|autoencoder)\.", each.sentence), each.sentence
    assert look(Coded(), noise()).keys == {"codebook_size", "revive"}


@pytest.mark.parametrize("shortcuts", [True, False])
def test_shortcuts_are_advised_where_shrinking_keeps_more_and_there_are_none(shortcuts):
    plugin = registry.load("autoencoder", "vae")
    torch.manual_seed(0)
    vae = plugin(plugin.Config(type="vae", channels=3, widths=[8, 8], norm_groups=4, shortcuts=shortcuts), image_channels=3)
    found = look(vae, smooth())
    said = next(each.sentence for each in judge(found) if each.about == "the gain over shrinking")
    assert found.gains["psnr"].mean < 0 and {"channels", "widths"} < found.keys
    assert ("try more loop.steps, autoencoder.shortcuts=true, a larger loop.lr," in said) is not shortcuts, said


def test_only_weights_of_losses_that_the_run_had_are_advised():
    drifting, far = whole(gains=gained(-1), measures=measured(lpips=0.19)), whole(measures=measured(lpips=0.3))

    def ways(found, about, *losses):
        return next(each.sentence for each in judge(replace(found, losses=frozenset(losses))) if each.about == about).rpartition("try ")[2]

    gain = "the gain over shrinking"
    assert ways(drifting, gain, "perceptual", "adversarial") == "a smaller losses.perceptual_weight or a smaller adversarial.weight."
    assert ways(drifting, gain, "perceptual") == "a smaller losses.perceptual_weight."
    assert ways(drifting, gain, "adversarial") == "a smaller adversarial.weight."
    shared = ways(drifting, gain, "perceptual", "adversarial", "shares")
    assert shared == "a smaller losses.shares.perceptual or a smaller losses.shares.adversarial."
    assert ways(far, "LPIPS", "perceptual", "shares") == "more losses.shares.perceptual or more loop.steps."
    assert ways(drifting, gain) == "more loop.steps."
    assert ways(far, "LPIPS", "perceptual") == "more losses.perceptual_weight or more loop.steps."
    assert ways(far, "LPIPS") == ways(far, "LPIPS", "adversarial") == "perceptual=lpips or more loop.steps."
    assert drifting.losses is None and "a smaller adversarial.weight where there is a discriminator" in " ".join(verdict(drifting))


RISEN = "The validation loss was lowest at step 300 (0.4) and is 0.9 at the end; try a smaller loop.lr."
GROWN = "The largest latent value grew; try a larger autoencoder.kl_weight, or a smaller loop.lr."


def test_more_steps_are_advised_only_where_the_curves_show_no_cause():
    poor = whole(measures=measured(psnr=10, ssim=0.1, lpips=0.39), gains=gained(-1))
    assert " ".join(verdict(poor)).count("more loop.steps") == 4  # of PSNR, SSIM, the gain and LPIPS
    said = " ".join(verdict(replace(poor, causes=[RISEN])))
    assert "more loop.steps" not in said and RISEN in said
    nothing_else = replace(poor, keys=frozenset(), causes=[RISEN])
    assert "to raise it, what its curves show, below." in " ".join(each.sentence for each in judge(nothing_else))


def test_no_sentence_advises_the_opposite_of_what_a_cause_does():
    poor = whole(measures=measured(psnr=10, ssim=0.1, lpips=0.39), gains=gained(-1), bits_per_pixel=0.001)
    assert "a larger loop.lr" in " ".join(verdict(poor)) and "a smaller autoencoder.kl_weight" in " ".join(verdict(poor))
    said = " ".join(verdict(replace(poor, causes=[RISEN])))
    assert "a larger loop.lr" not in said and "a smaller autoencoder.kl_weight" in said
    assert "a smaller autoencoder.kl_weight" not in " ".join(verdict(replace(poor, causes=[GROWN])))


def test_a_distance_is_called_lpips_only_when_it_is():
    measures, baseline = ({name: means[name] for name in ("psnr", "ssim")} for means in (whole().measures, whole().baseline))
    found = whole(measures=measures | {"features": around(0.3)}, distances=["features"], baseline=baseline | {"features": around(0.5)})
    assert "lpips" not in " ".join(verdict(found)).lower() and "features 0.3000" in " ".join(verdict(found))


# -- pictures ----------------------------------------------------------------


def test_the_pictures_show_originals_reconstructions_errors_and_channels(tmp_path):
    images = noise(count=10)
    paths = write_pictures(tmp_path, Codec(Blocks(), HOST), {"val": pictures(images)}, HOST)
    assert [path.name for path in paths] == ["verdict.png", "latents.png"]
    shown, channels = (read(path) for path in paths)
    assert shown.shape == (3, 3 * 96 + 4, 8 * 96 + 14) and channels.shape == (3, 4 * 96 + 6, 8 * 96 + 14)
    assert torch.equal(shown[:, :96:6, :96:6], images[0])
    assert (
        f"error times {LOUDER}" in read_png_text(paths[0])["Description"]
        and "3 of 3 latent channels" in read_png_text(paths[1])["Description"]
    )
    before = [path.read_bytes() for path in paths]
    write_pictures(tmp_path, Codec(Blocks(), HOST), {"val": pictures(images)}, HOST)
    assert [path.read_bytes() for path in paths] == before


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_errors_are_amplified_and_clamped(channels):
    image = torch.full((2, channels, 4, 4), -1.0)
    made = image.clone()
    made[0] += 10 / 127.5
    made[1] += 1
    sheet = compared(image, made)
    assert sheet[4, 0].unique().tolist() == [10 * LOUDER] and sheet[5, 0].unique().tolist() == [255]
    assert channels != 4 or sheet[4:, 3].unique().tolist() == [255]


def test_channels_are_shown_around_their_mean_to_three_deviations():
    latent = torch.zeros(8, 2, 2, 2)
    latent[:4, 0], latent[4:, 0] = 9, 11
    sheet = latents_shown(torch.zeros(8, 1, 8, 8), latent, 4)
    assert sheet.shape == (24, 3, 8, 8)
    assert sheet[8].unique().tolist() == to_uint8(torch.tensor([-1 / 3])).tolist() and sheet[15].unique().tolist() == [170]
    assert sheet[16:].unique().tolist() == [128]  # a constant is grey, not noise


# -- the command -------------------------------------------------------------


def test_eval_lpips_keeps_its_keys_and_adds_a_verdict(tiny, quiet, vqvae_run, tmp_path):
    words = [f"run={vqvae_run}", "perceptual=null", "workers=0", "machine.device=cpu", "machine.precision=fp32"]
    config = tiny("eval-lpips", *words, below=pictures_of(vqvae_run))
    said = eval_lpips(config, console=quiet, out=tmp_path / "seen")
    assert {"of", "count", "psnr", "ssim", "bits_per_pixel", "latent", "baseline", "verdict"} <= set(said) and "lpips" not in said
    assert set(said["psnr"]) == {"mean", "low", "high"} == set(said["baseline"]["gain"]["psnr"])
    assert said["count"] == 8 and said["split"] == "val" and len(said["latent"]["deviations"]) == 3
    assert said["verdict"][-1].startswith("All in all likely not good enough")
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == ["latents.png", "verdict.png"]
    assert plan_eval_lpips(config)["measures"] == "psnr, ssim"


def test_eval_lpips_says_of_a_finished_run_what_was_published_and_why_it_is_no_better(tiny, quiet, vqvae_run, tmp_path):
    run = shutil.copytree(vqvae_run, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    assert record["judged"]["of_run"]["notes"] == [record["judged"]["verdict"][1]], "which weights were published"
    record["judged"]["of_run"]["causes"] = [RISEN]
    (run / "run.json").write_text(json.dumps(record))
    words = ["perceptual=null", "workers=0", "machine.device=cpu", "machine.precision=fp32"]

    def verdict_of(name):
        return eval_lpips(tiny("eval-lpips", f"run={name}", *words, below=pictures_of(run)), console=quiet)["verdict"]

    said = verdict_of(run)
    assert (
        said[1].startswith("The published weights are the last ones, of step") and RISEN in said and "more loop.steps" not in " ".join(said)
    )
    assert RISEN not in verdict_of(f"{run}@best") and "more loop.steps" in " ".join(verdict_of(f"{run}@best"))
    del record["judged"]
    (run / "run.json").write_text(json.dumps(record))
    assert RISEN not in verdict_of(run), "a run that goes on has not been judged"


def test_a_run_with_nothing_held_out_is_measured_on_what_it_was_trained_on(tiny, quiet, vae_run, tmp_path):
    for i, image in enumerate(noise(count=4)):
        write_png(tmp_path / f"{i}.png", image)
    below = {**pictures_of(vae_run), "dataset": {"type": "folder", "path": str(tmp_path), "val_share": 0}}
    words = [f"run={vae_run}", "perceptual=null", "count=4", "workers=0", "machine.device=cpu", "machine.precision=fp32"]
    assert eval_lpips(tiny("eval-lpips", *words, below=below), console=quiet)["split"] == "train"
    with pytest.raises(DataError, match="val split has no pictures"):
        eval_lpips(tiny("eval-lpips", *words, "split=val", below=below), console=quiet)


def test_without_lpips_the_runs_own_distance_is_offered(tiny, quiet, vae_run, tmp_path, monkeypatch):
    monkeypatch.setenv("LDMCTL_OFFLINE", "1")
    monkeypatch.setenv("LDMCTL_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    run = tmp_path / "ae"
    run.mkdir()
    (run / "model.safetensors").write_bytes((vae_run / "model.safetensors").read_bytes())
    (run / "config.yaml").write_text((vae_run / "config.yaml").read_text().replace("perceptual: null", "perceptual: {type: features}"))
    assert trained_with(run / "model.safetensors") == {"type": "features"} == trained_with(run / "snapshots" / "best.safetensors")
    assert trained_with(tmp_path / "elsewhere" / "model.safetensors") is None
    words = [f"run={run}", "workers=0", "machine.device=cpu", "machine.precision=fp32"]
    with pytest.raises(MissingError, match=r"eval-lpips perceptual=null\n.*eval-lpips perceptual=features"):
        eval_lpips(tiny("eval-lpips", *words, below=pictures_of(vae_run)), console=quiet)


def test_the_distance_that_the_run_was_trained_with_is_measured_as_well(tiny, quiet, vae_run, tmp_path, towers, capsys):
    run, slot = tmp_path / "ae", "{type: features, network: squeezenet1_1, weights: %s}"
    run.mkdir()
    (run / "model.safetensors").write_bytes((vae_run / "model.safetensors").read_bytes())
    below = pictures_of(vae_run)
    below["image"] = {**below["image"], "size": 32}
    asked = f"perceptual={{type: lpips, weights: {towers['lpips']}}}"
    words = [f"run={run}", asked, "count=2", "workers=0", "machine.device=cpu", "machine.precision=fp32"]
    config = (vae_run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("perceptual: null", f"perceptual: {slot % towers['features']}"))
    said = eval_lpips(tiny("eval-lpips", *words, below=below), console=quiet)
    assert {"lpips", "features-squeezenet1_1"} <= set(said) and len(said["verdict"]) == 10
    assert "lpips" not in eval_lpips(tiny("eval-lpips", *words, "perceptual=null", below=below), console=quiet)
    (run / "config.yaml").write_text(config.replace("perceptual: null", f"perceptual: {slot % (tmp_path / 'gone.pth')}"))
    said = eval_lpips(tiny("eval-lpips", *words, below=below), console=quiet)
    assert (
        "lpips" in said
        and "features-squeezenet1_1" not in said
        and "trained with the perceptual distance features" in capsys.readouterr().err
    )


@pytest.fixture
def trained(tiny, vae_run, tmp_path):
    """trained(slot, asked) -> the config of an eval-lpips of a copy of the tiny VAE, whose config says that it was trained with this slot."""

    def config(slot, asked):
        run = tmp_path / "run"
        run.mkdir(exist_ok=True)
        (run / "model.safetensors").write_bytes((vae_run / "model.safetensors").read_bytes())
        (run / "config.yaml").write_text(
            (vae_run / "config.yaml").read_text().replace("perceptual: null", f"perceptual: {json.dumps(slot)}")
        )
        below = pictures_of(vae_run)
        below["image"] = {**below["image"], "size": 32}
        words = [f"run={run}", f"perceptual={json.dumps(asked)}", "count=2", "workers=0", "machine.device=cpu", "machine.precision=fp32"]
        return tiny("eval-lpips", *words, below=below)

    return config


def test_a_distance_of_the_same_type_by_another_network_is_measured_as_well(quiet, tmp_path, towers, trained):
    models = pytest.importorskip("torchvision.models", exc_type=ImportError)
    torch.save(models.squeezenet1_0(weights=None).state_dict(), tmp_path / "other.pth")
    slot = {"type": "features", "network": "squeezenet1_1", "weights": towers["features"]}
    config = trained(slot, {"type": "features", "network": "squeezenet1_0", "weights": str(tmp_path / "other.pth")})
    assert plan_eval_lpips(config)["measures"] == "psnr, ssim, features-squeezenet1_0, features-squeezenet1_1"
    assert {"features-squeezenet1_0", "features-squeezenet1_1"} <= set(eval_lpips(config, console=quiet))


def test_two_distances_of_one_title_are_told_apart_unless_they_are_the_same(tmp_path, towers, trained):
    slot = {"type": "features", "network": "squeezenet1_1", "weights": towers["features"]}
    other = plan_eval_lpips(trained(slot, {**slot, "layers": ["features.3"]}))
    assert other["measures"] == "psnr, ssim, features-squeezenet1_1, features-squeezenet1_1-trained"
    copy = tmp_path / "copy.pth"
    copy.write_bytes(Path(towers["features"]).read_bytes())
    for asked in (slot, {**slot, "weights": str(copy)}):
        assert plan_eval_lpips(trained(slot, asked))["measures"] == "psnr, ssim, features-squeezenet1_1"


def test_the_runs_own_distance_is_offered_with_the_keys_that_make_it(tiny, quiet, tmp_path, monkeypatch, trained):
    pytest.importorskip("torchvision.models", exc_type=ImportError)
    for name, value in {"LDMCTL_OFFLINE": "1", "LDMCTL_WEIGHTS_DIR": str(tmp_path), "TORCH_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    slot = {"type": "features", "network": "resnet50", "layers": ["layer1", "layer2"], "weights": None}
    for asked in ({"type": "lpips"}, {"type": "features"}):
        with pytest.raises(MissingError, match="With the distance that the run was trained with") as caught:
            eval_lpips(trained(slot, asked), console=quiet)
        words = shlex.split(str(caught.value).rpartition("ldmctl eval-lpips ")[2])
        assert words == ["perceptual=features", "perceptual.network=resnet50", 'perceptual.layers=["layer1", "layer2"]']
        assert tiny("eval-lpips", *words).perceptual.model_dump() == slot
    with pytest.raises(MissingError) as caught:
        eval_lpips(trained(slot, slot), console=quiet)
    assert "trained with" not in str(caught.value)


def test_the_verdict_on_a_run_minds_which_losses_it_had(quiet, towers, trained):
    asked = {"type": "features", "network": "squeezenet1_1", "weights": towers["features"]}
    for slot, way in ((None, "perceptual=lpips"), (asked, "more losses.perceptual_weight")):
        config = trained(slot, asked)
        assert losses_of(Path(config.run) / "model.safetensors") == (frozenset({"perceptual"}) if slot else frozenset())
        sentence = next(each for each in eval_lpips(config, console=quiet)["verdict"] if each.startswith("features-squeezenet1_1"))
        assert sentence.endswith(f"try {way} or more loop.steps.")
    assert losses_of(Path("nowhere") / "model.safetensors") is None
