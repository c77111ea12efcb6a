"""Runs side by side: which keys differ, and whose numbers are better, where that can be said."""

import pytest

from ldmctl.evaluation.contrast import contrast
from ldmctl.storage.runs import Look

UNET = {"type": "unet", "widths": [64]}


def look(tmp_path, name, config=None, *, verb="fit-diffusion", **values):
    record = {"verb": verb, "cache": values.pop("cache", "abc"), "pictures": {"val": {"count": 3, "names": values.pop("names", "n")}}}
    config = {"latents": "cache", "denoiser": UNET, **(config or {})} if verb == "fit-diffusion" else (config or {})
    return Look(tmp_path / name, record, config, [{"step": 5, **{key.replace("_", "/", 1): value for key, value in values.items()}}])


def better(found):
    return {row["name"]: row["better"] for row in found["metrics"]}


def test_keys_that_differ_are_named_and_missing_ones_count_as_their_defaults(tmp_path):
    one, other = look(tmp_path, "a", {"loop": {"steps": 10}}), look(tmp_path, "b", {"loop": {"steps": 10, "lr": 0.5}, "prediction": "v"})
    assert contrast([one, other])["config"] == [{"key": "prediction", "values": ["x0", "v"]}, {"key": "loop.lr", "values": [1e-4, 0.5]}]


def test_a_lower_loss_and_a_higher_speed_are_better(tmp_path):
    one = Look(tmp_path / "a", {"verb": "fit-diffusion"}, {}, [{"step": 1, "val/loss": 0.2, "images_per_second": 10, "lr": 1.0}])
    other = Look(tmp_path / "b", {"verb": "fit-diffusion"}, {}, [{"step": 1, "val/loss": 0.3, "images_per_second": 30, "lr": 2.0}])
    assert better(contrast([one, other])) == {"val/loss": 0, "images_per_second": 1, "lr": None}


def test_equal_numbers_and_numbers_of_one_run_alone_are_nobodys_win(tmp_path):
    one = Look(tmp_path / "a", {"verb": "fit-ae"}, {}, [{"step": 1, "val/loss": 0.2, "val/psnr": 30.0}])
    other = Look(tmp_path / "b", {"verb": "fit-ae"}, {}, [{"step": 1, "val/loss": 0.2}])
    assert better(contrast([one, other])) == {"val/loss": None, "val/psnr": None}


@pytest.mark.parametrize(
    ("verb", "first", "second", "why"),
    [
        ("fit-diffusion", {"cache": "a"}, {"cache": "b"}, "the held-out latents"),
        ("fit-ae", {"names": "a"}, {"names": "b"}, "the held-out pictures"),
    ],
)
def test_losses_on_other_data_are_not_called_better(tmp_path, verb, first, second, why):
    found = contrast([look(tmp_path, "a", verb=verb, val_loss=0.1, **first), look(tmp_path, "b", verb=verb, val_loss=0.2, **second)])
    assert better(found)["val/loss"] is None and why in found["cautions"][0]


def test_losses_of_another_make_are_not_called_better_but_psnr_of_the_same_pictures_is(tmp_path):
    config = lambda pixel: {"data": "shapes", "dataset": {"type": "shapes"}, "losses": {"pixel": pixel}}
    one = look(tmp_path, "a", config("l1"), verb="fit-ae", val_loss=0.1, val_psnr=20.0)
    other = look(tmp_path, "b", config("l2"), verb="fit-ae", val_loss=0.2, val_psnr=25.0)
    found = contrast([one, other])
    assert better(found) == {"val/loss": None, "val/psnr": 1} and "losses.pixel" in found["cautions"][0]


def test_runs_of_two_verbs_are_of_different_things(tmp_path):
    found = contrast([look(tmp_path, "a", loss=1.0), look(tmp_path, "b", verb="fit-ae", loss=0.5)])
    assert better(found) == {"loss": None}
    assert found["cautions"] == [
        "These are runs of fit-ae and fit-diffusion: their numbers are of different things. What only some of these have is left out."
    ]


def test_of_two_verbs_only_what_both_have_is_listed(tmp_path):
    one = look(tmp_path, "a", {"loop": {"steps": 10}}, loss=1.0, val_loss=1.0)
    other = look(tmp_path, "b", {"loop": {"steps": 10}, "prediction": "v"}, loss=1.0)
    third = look(tmp_path, "c", {"loop": {"steps": 20}, "losses": {"pixel": "l1"}}, verb="fit-ae", loss=0.5, val_psnr=20.0)
    found = contrast([one, other, third])
    assert found["config"] == [{"key": "loop.steps", "values": [10, 10, 20]}]
    assert [row["name"] for row in found["metrics"]] == ["loss"]


def test_losses_of_different_steps_are_told_to_be_of_different_ages(tmp_path):
    one = Look(tmp_path / "a", {"verb": "fit-ae"}, {}, [{"step": 400, "val/loss": 0.3}, {"step": 400, "loss": 0.3}])
    other = Look(tmp_path / "b", {"verb": "fit-ae"}, {}, [{"step": 400, "val/loss": 0.3}, {"step": 1800, "val/loss": 0.2, "loss": 0.2}])
    found = contrast([one, other])
    assert found["steps"] == [400, 1800] and found["metrics"][0]["steps"] == [400, 1800]
    (caution,) = found["cautions"]
    assert f"of different ages (val/loss: step 400 of {one.folder}, step 1,800 of {other.folder})" in caution
    assert contrast([one, one])["cautions"] == []


def test_a_loss_that_is_not_finite_any_more_wins_nothing(tmp_path):
    one = Look(tmp_path / "a", {"verb": "fit-ae"}, {}, [{"step": 100, "loss": 0.1}, {"step": 200, "loss": float("nan")}])
    other = Look(tmp_path / "b", {"verb": "fit-ae"}, {}, [{"step": 200, "loss": 0.2}])
    (row,) = contrast([one, other])["metrics"]
    assert row["values"] == [None, 0.2] and row["better"] is None


def test_a_plugin_that_is_not_here_leaves_the_keys_as_they_stand_there(tmp_path):
    one = look(tmp_path, "a", {"denoiser": {"type": "nowhere", "width": 3}})
    other = look(tmp_path, "b", {"denoiser": {"type": "nowhere", "width": 4}})
    assert contrast([one, other])["config"] == [{"key": "denoiser.width", "values": [3, 4]}]
