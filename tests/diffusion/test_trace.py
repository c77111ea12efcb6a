"""A trace shows how samples come about, and changes nothing of them."""

import json

import pytest
import torch
from PIL import Image

from ldmctl import api
from ldmctl.config.presets import compose
from ldmctl.config.schemas.sample import Sample
from ldmctl.diffusion.trace import moment_of, spread
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.pictures.images import to_uint8
from ldmctl.pictures.png import read_png_text
from ldmctl.stages.sample import sample as stage


@pytest.fixture(scope="module")
def ldm(tmp_path_factory, fit_diffusion, vae_cache):
    """A run folder of fit-diffusion. Read only."""
    return fit_diffusion(tmp_path_factory.mktemp("traced") / "ldm", vae_cache, "loop.lr=1e-2", "loop.ema=0", "loop.steps=8")


@pytest.fixture
def sample(ldm, tiny, quiet, tmp_path):
    """sample("trace=4", out="a") -> {name: bytes} of the pictures."""

    def go(*overrides, out="samples", **options):
        words = [f"run={ldm}", "steps=6", "batch=4", "count=5", "machine.device=cpu", "machine.precision=fp32", *overrides]
        stage(tiny("sample", *words), tmp_path / out, console=quiet, **options)
        return {file.name: file.read_bytes() for file in (tmp_path / out).iterdir()}

    return go


def test_a_trace_lies_beside_samples_that_are_the_same_without_it(sample, tmp_path):
    plain, traced = sample(out="plain"), sample("trace=3", out="traced")
    assert set(traced) - set(plain) == {"trace.png", "trace.gif", "trace.webp"}
    assert {name: traced[name] for name in plain} == plain
    with Image.open(tmp_path / "traced" / "trace.png") as strip:
        assert strip.size == (4 * 68, 28 + 8 * 66 + 2), "three evaluations and the sample; four pictures, each over its latent"
    for name in ("trace.gif", "trace.webp"):
        with Image.open(tmp_path / "traced" / name) as film:
            assert film.n_frames == 7 and film.size == (68, 28 + 8 * 66 + 2), "six evaluations and the sample"
    assert json.loads(read_png_text(tmp_path / "traced" / "trace.png")["ldmctl"])["trace"] == [0, 1, 2, 3]


def test_the_last_picture_of_a_trace_is_the_sample(sample, tmp_path):
    sample("trace=2", "count=1")
    with Image.open(tmp_path / "samples" / "trace.png") as strip, Image.open(tmp_path / "samples" / "000000.png") as picture:
        last = strip.crop((2 * 68 + 2, 28 + 2 + 66, 3 * 68 - 2, 28 + 2 + 66 + 64))
        assert last.tobytes() == picture.convert("RGB").resize((64, 64), Image.Resampling.NEAREST).tobytes()


def test_a_moment_says_the_level_and_the_deviation_and_shows_the_channels_and_the_clean_estimate(ldm):
    model, looks = api.load(ldm, device="cpu", precision="fp32"), []
    model.sample(1, seed=3, steps=6, callback=looks.append)
    config, _ = compose(Sample, overrides=[f"run={ldm}", "steps=6"])
    for look in looks:
        moment = moment_of(model, config, look, 1)
        assert moment.words == f"sigma {look.sigma:.3g}\nsd {look.x.std().item():.3g}"
        clean = to_uint8(model.codec.decode(look.clean, (16, 16)))
        assert torch.equal(moment.picture, clean.repeat_interleave(4, 2).repeat_interleave(4, 3))
    sides = [moment_of(model, config, looks[-1]._replace(x=torch.full_like(looks[-1].x, value)), 1).latent for value in (-9.0, 0.0, 9.0)]
    grey = [int(each[0, :, 2:-2, 2:-2].float().quantile(0.5)) for each in sides]
    assert grey[0] < 10 and 120 <= grey[1] <= 136 and grey[2] > 245, "dark is low, grey is zero, light is high"


def test_a_file_of_that_name_that_is_no_trace_is_not_replaced(sample, tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "trace.gif").write_bytes(b"mine")
    with pytest.raises(MismatchError, match=r"trace\.gif is there already and no trace of ldmctl's"):
        sample("trace=2")
    assert [file.name for file in (tmp_path / "samples").iterdir()] == ["trace.gif"]
    sample("trace=2", out="other")
    assert sample("trace=2", "seed=1", out="other")


def test_overwriting_with_other_settings_takes_the_trace_and_empty_shelves_along(sample, tmp_path):
    sample("trace=2")
    shelf = tmp_path / "samples" / "001000"
    shelf.mkdir()
    (tmp_path / "samples" / "000004.png").rename(shelf / "001004.png")
    assert set(sample("steps=3", "count=1", overwrite=True)) == {"000000.png", "grid.png"}
    (tmp_path / "samples" / "trace.png").write_bytes(b"mine")
    assert set(sample("steps=4", "count=1", overwrite=True)) == {"000000.png", "grid.png", "trace.png"}


def test_evaluations_are_spread_from_the_first_to_the_last():
    assert spread(50, 8) == [0, 7, 14, 21, 28, 35, 42, 49]
    assert spread(3, 8) == [0, 1, 2] and spread(9, 1) == [0]


def test_listed_steps_are_what_the_strip_and_the_animations_show(sample, tmp_path):
    sample("trace=6", "count=2", out="all")
    sample("trace=[1,3,6]", "count=2", out="chosen")
    with Image.open(tmp_path / "all" / "trace.png") as every, Image.open(tmp_path / "chosen" / "trace.png") as chosen:
        assert (every.width, chosen.width) == (7 * 68, 4 * 68), "the sample is last"
        columns = [every.crop((place * 68, 0, place * 68 + 68, every.height)) for place in (0, 2, 5, 6)]
        for place, column in enumerate(columns):
            assert chosen.crop((place * 68, 0, place * 68 + 68, chosen.height)).tobytes() == column.tobytes()
    for name in ("trace.gif", "trace.webp"):
        with Image.open(tmp_path / "chosen" / name) as film:
            assert film.n_frames == 4
    with Image.open(tmp_path / "chosen" / "trace.webp") as film:
        film.seek(1)
        assert film.convert("RGB").tobytes() == columns[1].convert("RGB").tobytes(), "the third step, not the second"


def test_a_listed_step_that_is_beyond_the_last_is_refused_before_anything_is_made(sample, tmp_path, tiny, ldm, quiet):
    with pytest.raises(ConfigError, match="trace names step 7, and there are 6: it counts evaluations"):
        sample("trace=2,7")
    assert not (tmp_path / "samples").exists()
    sample("trace=[11]", "count=1", "sampler=heun", out="heun")  # two in each step but the last
    with pytest.raises(ConfigError, match="step 12, and there are 11"):
        sample("trace=[12]", "count=1", "sampler=heun", out="heun")


def test_steps_of_an_adaptive_sampler_that_were_never_taken_are_named(sample, capsys):
    sample("trace=[1,5000]", "count=1", "sampler=adaptive", "sampler.halvings=0", "steps=2")
    assert "so step 5000 and later ones are not in the trace" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["trace=[]", "trace=[5,1]", "trace=[2,2]", "trace=[0,3]", "trace=1,b", "trace=[1.5]"])
def test_a_list_of_steps_that_cannot_be_is_a_sentence(tiny, words):
    with pytest.raises(ConfigError, match="trace: steps are counted from 1 and rise, each named once, such as"):
        tiny("sample", words)


@pytest.mark.parametrize("words", ["trace=-1", "trace=x", "trace=1.5", "trace=null"])
def test_a_number_of_steps_that_cannot_be_is_a_sentence(tiny, words):
    with pytest.raises(ConfigError, match="trace: write how many steps, such as 8, or which"):
        tiny("sample", words)


def test_a_callback_sees_each_evaluation_and_changes_nothing(ldm):
    model, seen = api.load(ldm, device="cpu", precision="fp32"), []

    def spoil(look):
        seen.append((look.number, look.sigma, tuple(look.x.shape)))
        look.x.zero_()
        look.clean.zero_()

    keys = {"count": 2, "steps": 3, "batch": 2}
    assert torch.equal(model.sample(**keys, callback=spoil).images, model.sample(**keys).images)
    assert [number for number, _, _ in seen] == [0, 1, 2] and seen[0][1] > seen[1][1] > seen[2][1]
    assert seen[0][2] == (2, *model.header["latent"])


def test_a_callback_is_shown_the_rows_of_seeds_and_not_what_fills_up_a_batch(ldm):
    model, seen = api.load(ldm, device="cpu", precision="fp32"), []
    model.sample(seeds=[7, 3, 5], steps=1, batch=2, callback=seen.append)
    assert [(look.seeds, len(look.x), len(look.clean)) for look in seen] == [((7, 3), 2, 2), ((5,), 1, 1)]
    seen.clear()
    model.sample(3, steps=1, callback=seen.append, output="latents")
    assert [(look.seeds, len(look.x), len(look.clean)) for look in seen] == [((0, 1, 2), 3, 3)]
