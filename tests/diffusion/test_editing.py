"""From a picture instead of noise, between two seeds, another size: through whole runs, and where levels lie."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from ldmctl import api, registry
from ldmctl.config.presets import compose
from ldmctl.config.resolve import plugin_config
from ldmctl.config.schemas.sample import Sample
from ldmctl.config.schemas.shared import Image as ImageKeys
from ldmctl.diffusion.editing import Edit, levels_below, slerp
from ldmctl.diffusion.spacing import levels
from ldmctl.errors import ConfigError, DataError
from ldmctl.pictures.canvas import feathered, filled, open_canvas
from ldmctl.pictures.images import opened, prepare
from ldmctl.pictures.png import read_png_text
from ldmctl.stages.sample import sample as stage


def schedule(name):
    return registry.build("schedule", plugin_config("schedule", {"type": name}))


def picture(path, size=(16, 16), seed=0):
    array = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(array).save(path)
    return str(path)


def mask(path, box, size=(16, 16)):
    image = Image.new("L", size, 0)
    image.paste(255, box)
    image.save(path)
    return str(path)


@pytest.fixture(scope="module")
def ldm(tmp_path_factory, fit_diffusion, vae_cache):
    """A run folder of fit-diffusion. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("edited") / "ldm", vae_cache, "loop.lr=1e-2", "loop.ema=0", "loop.steps=8")


@pytest.fixture(scope="module")
def model(ldm):
    return api.load(ldm, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def sampled(model):
    """sampled(count=2, ...) -> uint8 [N,C,H,W]."""
    return lambda **keys: model.sample(**{"count": 2, "steps": 3, "batch": 2, "label": "red circle", **keys}).images


@pytest.fixture
def sample(ldm, tiny, quiet, tmp_path):
    """sample("start=a.png", out="a") -> the stage's answer."""

    def go(*overrides, out="samples", **options):
        words = [f"run={ldm}", "steps=2", "batch=2", "count=2", "machine.device=cpu", "machine.precision=fp32", *overrides]
        return stage(tiny("sample", *words), tmp_path / out, console=quiet, **options)

    return go


# -- strength ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cosine", "linear", "flow"])
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_all_steps_are_spent_below_the_time_that_strength_names(name, spacing):
    alpha, sigma = schedule(name).marginal(torch.tensor([0.6], dtype=torch.float64))
    for steps in (1, 7, 50):
        sigmas = levels_below(schedule(name), steps, spacing, 0.6)
        assert len(sigmas) == steps + 1 and (sigmas.diff() < 0).all() and sigmas[-1] == 0
        assert math.isclose(sigmas[0].item(), (sigma / alpha).item(), rel_tol=1e-9)
    assert torch.equal(levels_below(schedule(name), 7, spacing, 1.0), levels(schedule(name), 7, spacing)[1])


def test_strength_is_continuous_and_no_number_of_steps():
    near = [levels_below(schedule("cosine"), 30, "trailing", strength)[0].item() for strength in (0.834, 0.840, 0.8401)]
    assert near[0] < near[1] < near[2]


def test_two_strengths_that_are_near_give_two_pictures(sampled, tmp_path):
    start = picture(tmp_path / "a.png")
    one, other = (sampled(start=start, strength=strength, steps=30) for strength in (0.834, 0.840))
    assert not torch.equal(one, other) and (one.float() - other.float()).abs().mean() < 20


def test_strength_0_returns_the_reconstruction_and_1_a_fresh_sample(sampled, model, tmp_path):
    start = picture(tmp_path / "a.png")
    given = torch.from_numpy(np.array(Image.open(start))).permute(2, 0, 1)[None]
    rebuilt = ((model.codec.reconstruct(given / 127.5 - 1) + 1) * 127.5).round()
    assert (sampled(start=start, strength=0) - rebuilt).abs().max() <= 1
    assert torch.equal(sampled(start=start, strength=1), sampled())


def test_the_start_is_the_picture_with_as_much_noise_as_the_level_says():
    """diffusers once added it in other coordinates in all but one scheduler (PR 5158)."""
    latent, noise = torch.full((1, 1, 2, 2), 0.7), torch.ones(1, 1, 2, 2)
    assert torch.equal(Edit(latent, 0.5).start(noise, 2.0), latent + 2 * noise)
    assert torch.equal(Edit(latent, 1.0).start(noise, 2.0), noise * 5**0.5)


@pytest.mark.parametrize("strength", ["1.2", "-0.1", "nan", "inf"])
def test_a_strength_that_is_no_share_is_refused(strength):
    with pytest.raises(ConfigError, match="strength: input should be "):
        compose(Sample, overrides=["start=a.png", f"strength={strength}"])


# -- pictures --------------------------------------------------------------------------------------------


def test_pictures_of_a_folder_are_taken_in_turn_by_seed(sampled, tmp_path):
    (tmp_path / "in").mkdir()
    one, other = (picture(tmp_path / "in" / f"{name}.png", seed=seed) for seed, name in enumerate("ab"))
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    together = sampled(start=tmp_path / "in", strength=0, count=4, batch=4)
    assert torch.equal(together[0], together[2]) and torch.equal(together[1], together[3]) and not torch.equal(together[0], together[1])
    assert torch.equal(sampled(start=other, strength=0, count=1, batch=4)[0], together[1])
    assert torch.equal(sampled(start=str(tmp_path / "in"), strength=0, count=1, seed=1, batch=4)[0], together[1])
    assert torch.equal(sampled(start=one, strength=0, count=1, batch=4)[0], together[0])


def test_a_picture_is_prepared_as_the_runs_own_data_is(sampled, model, tmp_path):
    wide = picture(tmp_path / "wide.png", size=(40, 20))
    grey = Image.open(wide).convert("L")
    grey.save(tmp_path / "grey.png")
    prepared = prepare(opened(wide), ImageKeys.model_validate(model.header["image"]))
    assert torch.equal(sampled(start=wide, strength=0.1), sampled(start=prepared, strength=0.1))
    assert sampled(start=tmp_path / "grey.png").shape == (2, 3, 16, 16)
    in_memory = torch.from_numpy(np.array(Image.open(wide))).permute(2, 0, 1)
    assert torch.equal(sampled(start=wide), sampled(start=in_memory))


def test_the_text_of_a_picture_knows_another_picture_under_the_same_name(sample, tmp_path):
    start = picture(tmp_path / "a.png")
    assert sample(f"start={start}", "strength=0.5")["made"] == 2
    text = json.loads(read_png_text(tmp_path / "samples" / "000000.png")["ldmctl"])
    assert (text["start"], text["strength"]) == (start, 0.5)
    assert sample(f"start={start}", "strength=0.5")["made"] == 0
    picture(tmp_path / "a.png", seed=1)
    with pytest.raises(Exception, match="do not belong to these: 2 with pictures="):
        sample(f"start={start}", "strength=0.5")


def test_what_cannot_be_started_from_is_named_and_nothing_is_written(sample, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    for start, said in (
        ("text.png", "text.png"),
        ("nowhere.png", "There is no picture or folder .*nowhere.png"),
        ("empty", "holds no picture"),
    ):
        with pytest.raises(DataError, match=said) as caught:
            sample(f"start={tmp_path / start}")
        assert caught.value.exit_code == 3
        assert not (tmp_path / "samples").exists()
    for words in (["mask=a.png"], ["strength=0.5"], ["outpaint=1,1,1,1"]):
        with pytest.raises(ConfigError, match="needs a picture to start from: --from IMAGE"):
            compose(Sample, overrides=words)


# -- masks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["painting.method=pigdm"],
        ["painting.method=blend"],
        ["painting.method=repaint", "painting.repeats=2", "sampler=ddpm"],
        ["painting.method=repaint", "painting.repeats=2", "sampler=heun"],
    ],
)
def test_pixels_outside_a_mask_and_its_feather_are_bit_equal(sample, tmp_path, words):
    start, hole = picture(tmp_path / "a.png"), mask(tmp_path / "m.png", (4, 4, 8, 8))
    sample(f"start={start}", f"mask={hole}", *words)
    before = np.array(Image.open(start))
    for seed in (0, 1):
        made = np.array(Image.open(tmp_path / "samples" / f"{seed:06d}.png"))
        changed = (made != before).any(2)
        assert changed[4:8, 4:8].mean() > 0.9
        changed[2:10, 2:10] = False  # a cell of this autoencoder is 2 pixels
        assert not changed.any()


def test_a_painted_picture_depends_on_its_seed_and_not_on_its_neighbours(sampled, tmp_path):
    keys = {"start": picture(tmp_path / "a.png"), "mask": mask(tmp_path / "m.png", (4, 4, 8, 8)), "batch": 4}
    whole = sampled(**keys, count=4)
    assert torch.equal(sampled(**keys, count=1, seed=2), whole[2:3]) and torch.equal(sampled(**keys, count=2, seed=2), whole[2:])


def test_without_a_feather_all_that_is_not_masked_is_bit_equal(sampled, tmp_path):
    start, hole = picture(tmp_path / "a.png"), mask(tmp_path / "m.png", (4, 4, 8, 8))
    made = sampled(start=start, mask=hole, painting={"feather": 0})
    changed = (made != torch.from_numpy(np.array(Image.open(start))).permute(2, 0, 1)).any(1)
    changed[:, 4:8, 4:8] = False
    assert not changed.any()


def test_what_lay_under_the_mask_does_not_matter(sampled, tmp_path):
    start, hole = picture(tmp_path / "a.png"), mask(tmp_path / "m.png", (4, 4, 8, 8))
    with Image.open(start) as image:
        image.paste("red", (4, 4, 8, 8))
        image.save(tmp_path / "b.png")
    assert torch.equal(sampled(start=start, mask=hole), sampled(start=tmp_path / "b.png", mask=hole))
    assert not torch.equal(sampled(start=start, mask=hole, strength=0.2), sampled(start=tmp_path / "b.png", mask=hole, strength=0.2))


def test_a_mask_has_the_size_of_the_picture_or_of_the_model(sampled, tmp_path):
    start = picture(tmp_path / "a.png", size=(40, 20))
    large, small = mask(tmp_path / "l.png", (10, 0, 20, 20), (40, 20)), mask(tmp_path / "s.png", (0, 0, 8, 16))
    assert torch.equal(sampled(start=start, mask=large), sampled(start=start, mask=small)), "the left half of the middle square"
    with pytest.raises(DataError, match=r"is 17x16 pixels, the picture 40x20\. A mask has the size .* or 16x16"):
        sampled(start=start, mask=mask(tmp_path / "x.png", (0, 0, 8, 16), (17, 16)))


@pytest.mark.parametrize(
    ("box", "cells"),
    [
        ((0, 100, 256, 104), (slice(6, 7), slice(0, 16))),
        ((125, 0, 126, 256), (slice(0, 16), slice(7, 8))),
        ((50, 180, 56, 186), (slice(11, 12), slice(3, 4))),
    ],
)
def test_thin_parts_of_a_large_mask_are_painted(tmp_path, box, cells):
    canvas = open_canvas(
        picture(tmp_path / "a.png", (256, 256)), mask(tmp_path / "m.png", box, (256, 256)), {"size": 16, "channels": 3, "crop": "center"}
    )
    wanted = torch.zeros(16, 16, dtype=torch.bool)
    wanted[cells] = True
    assert torch.equal(canvas.free, wanted)


def test_a_mask_is_cut_as_its_picture_is(tmp_path):
    """White where the picture is white, whatever is cut off and however it is shrunk."""
    Image.open(mask(tmp_path / "m.png", (30, 12, 50, 32), (90, 60))).convert("RGB").save(tmp_path / "a.png")
    for size, margins in (((16, 16), (0, 0, 0, 0)), ((32, 12), (0, 0, 0, 0)), ((30, 20), (4, 2, 0, 6))):
        canvas = open_canvas(str(tmp_path / "a.png"), str(tmp_path / "m.png"), {"size": 16, "channels": 3}, size=size, margins=margins)
        left, top = margins[:2]
        inner = (slice(top, top + canvas.inner[1]), slice(left, left + canvas.inner[0]))
        white = canvas.picture(0)[0] > 128
        assert white[inner].any() and canvas.free[inner][white[inner]].all()
        assert canvas.free[inner].sum() <= white[inner].sum() + 2 * sum(canvas.inner), "a border at most"


@pytest.mark.parametrize(("box", "said"), [((0, 0, 0, 0), "black everywhere"), ((0, 0, 16, 16), "white everywhere")])
def test_a_mask_of_nothing_or_all_is_refused(sampled, tmp_path, box, said):
    with pytest.raises(DataError, match=said) as caught:
        sampled(start=picture(tmp_path / "a.png"), mask=mask(tmp_path / "m.png", box))
    assert caught.value.exit_code == 3


def test_repaint_is_refused_with_samplers_whose_steps_it_cannot_repeat(sampled, tmp_path):
    words = ["start=a.png", "mask=m.png", "painting.method=repaint"]
    start, half = picture(tmp_path / "a.png"), mask(tmp_path / "m.png", (8, 0, 16, 16))
    for sampler in ("unipc", {"type": "euler", "churn": 3}):
        with pytest.raises(
            ConfigError, match=r"builds a step on those before it.*Take one of ddpm, ddim, .*painting\.method=pigdm"
        ) as told:
            sampled(start=start, mask=half, painting={"method": "repaint"}, sampler=sampler)
        assert told.value.exit_code == 2
    assert compose(Sample, overrides=words)[0].painting.method == "repaint"


def test_churn_is_refused_with_a_mask(sampled, tmp_path):
    start, half = picture(tmp_path / "a.png"), mask(tmp_path / "m.png", (8, 0, 16, 16))
    with pytest.raises(ConfigError, match=r"sampler\.churn stirs noise in that a mask does not reckon with"):
        sampled(start=start, mask=half, sampler={"type": "euler", "churn": 3})
    assert sampled(start=start, sampler={"type": "euler", "churn": 3}).shape[0] == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((16, 16), np.float32), r"The mask is float32 \[16, 16\]: it must be bool or uint8"),
        (torch.eye(16, dtype=torch.uint8), "The mask holds 0 and 1 as uint8, of which none is white"),
        (torch.zeros(1, 1, 16, 16, dtype=torch.bool), r"The mask is bool \[1, 1, 16, 16\]"),
        ("nowhere.png", "There is no mask nowhere.png"),
    ],
)
def test_what_is_no_mask_is_called_a_mask(sampled, tmp_path, given, said):
    with pytest.raises(DataError, match=said):
        sampled(start=picture(tmp_path / "a.png"), mask=given)


def test_what_cannot_be_asked_or_started_from_is_a_sentence(sampled):
    with pytest.raises(DataError, match=r"A picture to start from is a path, a Pillow image or uint8 \[C,H,W\], and not an int"):
        sampled(start=[1, 2])
    with pytest.raises(ConfigError, match=r"A guide is a name, .* and not 3\."):
        sampled(guides=3)
    with pytest.raises(ConfigError, match=r"callback is a function that is shown a Look, and not 'x'\."):
        sampled(callback="x")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"strength": 0, "guides": {"type": "colour", "colour": "red"}},
            "returns the picture through the autoencoder: --guide and --label are not used",
        ),
        ({"strength": 0, "label": None, "guidance": 3}, "--guidance is not used"),
        ({"strength": 1}, "strength=1 makes a fresh sample: nothing of --from is used"),
        ({"strength": 0.5}, ""),
        ({"strength": 0, "label": None}, ""),
    ],
)
def test_what_a_strength_leaves_unused_is_said(sampled, tmp_path, keys, said):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        sampled(start=picture(tmp_path / "a.png"), **keys)
    found = [str(each.message) for each in seen if issubclass(each.category, UserWarning)]
    assert (len(found) == 1 and said in found[0]) if said else found == []


def test_outpainting_keeps_the_picture_in_the_room_that_is_left(sampled, tmp_path):
    start = picture(tmp_path / "a.png", size=(8, 16))
    made = sampled(start=start, outpaint=(4, 0, 4, 0), painting={"feather": 0})
    inner = torch.from_numpy(np.array(Image.open(start))).permute(2, 0, 1)
    assert made.shape == (2, 3, 16, 16) and torch.equal(made[:, :, :, 4:12], inner.expand(2, -1, -1, -1))
    assert not torch.equal(made[0, :, :, :4], made[1, :, :, :4])
    with pytest.raises(ConfigError, match="leaves no room for the picture on 16x16"):
        sampled(start=start, outpaint=(8, 0, 8, 0))


def test_margins_are_painted_whatever_a_mask_of_the_whole_sheet_says_of_them(sampled, tmp_path):
    start = picture(tmp_path / "a.png", size=(12, 16))
    made = sampled(start=start, outpaint=(4, 0, 0, 0), mask=mask(tmp_path / "m.png", (12, 0, 16, 16)), painting={"feather": 0})
    inner = torch.from_numpy(np.array(Image.open(start))).permute(2, 0, 1)
    assert torch.equal(made[:, :, :, 4:12], inner[:, :, :8].expand(2, -1, -1, -1)), "what the mask keeps of the picture"
    for free in (slice(0, 4), slice(12, 16)):
        assert not torch.equal(made[0, :, :, free], made[1, :, :, free])


def test_holes_are_filled_with_what_is_around_them():
    image = torch.full((1, 1, 8, 8), 0.25)
    free = torch.zeros(8, 8, dtype=torch.bool)
    free[2:5, 3:7] = True
    image[..., free] = 99.0
    assert torch.allclose(filled(image, free), torch.full((1, 1, 8, 8), 0.25))


def test_a_feather_falls_to_nothing_over_its_pixels():
    free = torch.zeros(1, 9, dtype=torch.bool)
    free[0, 4] = True
    assert feathered(free, 3).flatten().tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25, 0.0]


# -- seeds, sizes ------------------------------------------------------------------------------------------


def test_between_two_draws_of_noise_lie_draws_of_the_same_length():
    one, other = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(slerp(one, other, 0), one) and torch.equal(slerp(one, other, 1), other)
    middle = slerp(one, other, 0.5)
    assert abs(middle.norm() / one.norm() - 1) < 0.02 < abs(((one + other) / 2).norm() / one.norm() - 1)
    assert torch.allclose(middle, slerp(other, one, 0.5), atol=1e-6)


def test_interpolation_ends_at_the_pictures_of_its_seeds(sampled):
    row = sampled(interpolate=(3, 8), count=5, batch=8)
    ends = [sampled(seed=seed, count=1, batch=8)[0] for seed in (3, 8)]
    assert torch.equal(row[0], ends[0]) and torch.equal(row[-1], ends[1])
    assert len({each.numpy().tobytes() for each in row}) == 5
    assert torch.equal(sampled(interpolate=(3, 8), between=5, count=2, batch=8), row[:2]), "a part of the way"


@pytest.mark.parametrize("sampler", ["ddpm", "euler-ancestral", "dpmpp-2m-sde", "dpmpp-2s-ancestral"])
def test_a_row_between_two_seeds_is_as_even_where_the_sampler_draws_noise(model, sampler):
    """All pictures take the noise of their steps from the first seed, so neighbours differ by where they start and by nothing else."""
    keys = {"sampler": sampler, "steps": 6, "batch": 16, "label": "none", "output": "latents"}
    row = model.sample(9, interpolate=(3, 8), **keys).images
    assert torch.equal(row[0], model.sample(1, seed=3, **keys).images[0]), "it begins at the picture of the first seed"
    steps, ends = row.diff(dim=0).flatten(1).norm(dim=1), (row[-1] - row[0]).norm()
    assert steps.max() < ends / 3 and steps.max() < 2 * steps.min()
    apart = model.sample(9, **keys).images
    assert steps.max() < apart.diff(dim=0).flatten(1).norm(dim=1).min() / 2, "pictures of seeds of their own are further apart"


def test_interpolation_keeps_one_label_though_none_is_named(model):
    assert len(set(model.sample(4, interpolate=(3, 8), steps=2, batch=4).labels)) == 1
    with pytest.raises(ConfigError, match="between seeds of one label"):
        model.sample(4, interpolate=(3, 8), label="all", steps=2, batch=4)
    for words, said in ((["count=1"], "-n 2 or more"), (["label=[0,1]"], "name one"), (["seed=4"], "leave seed away")):
        with pytest.raises(ConfigError, match=said):
            compose(Sample, overrides=["interpolate=[3,8]", *words])


def test_another_size_is_made_where_the_network_allows_it(sampled, sample, tmp_path):
    with pytest.warns(UserWarning, match="trained on 16x16 pixels and makes 24x12: larger pictures tend to repeat things"):
        assert sampled(size=(24, 12)).shape == (2, 3, 12, 24)
    sample("size=24x12", "batch=4", out="wide")
    with Image.open(tmp_path / "wide" / "000000.png") as image:
        assert image.size == (24, 12)
    for words, said in ((["size=24"], "write WIDTHxHEIGHT"), (["start=a.png", "outpaint=1,2"], "write LEFT,TOP,RIGHT,BOTTOM")):
        with pytest.raises(ConfigError, match=said):
            compose(Sample, overrides=words)
