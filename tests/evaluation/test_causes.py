"""A verdict reads what the curves of a run show, and names the cause and its key before it says "more steps"."""

import json

import pytest

from ldmctl.evaluation.causes import causes
from ldmctl.evaluation.phases import before_and_after
from ldmctl.storage.runs import look


def course(**curves):
    """Reports of a run, one for each hundred steps; a name has _ for - and / where reports have those."""
    length = len(next(iter(curves.values())))
    return [
        {"step": 100 * (place + 1)} | {name.replace("__", "/"): values[place] for name, values in curves.items()} for place in range(length)
    ]


@pytest.fixture
def found(tiny):
    """found(rows, words) -> what causes are about."""

    def look(rows, *words):
        return [cause.about for cause in causes(rows, tiny("fit-ae", *words))]

    return look


WELL = {
    "val__loss": [1, 0.8, 0.6, 0.5, 0.45, 0.44, 0.43, 0.43],
    "latent_max": [5.0] * 8,
    "codes_used": [400, 480, 500, 505, 505, 506, 505, 505],
}


def test_a_run_that_was_well_has_none(found):
    assert found(course(**WELL, pixel_share=[0.6] * 8, perceptual_share=[0.4] * 8, discriminator__advantage=[0.3] * 8)) == []


def test_losses_that_rise_name_the_learning_rate_and_their_numbers(tiny):
    (cause,) = causes(course(val__loss=[1, 0.5, 0.4, 0.5, 0.6, 0.9]), tiny("fit-ae"))
    assert cause.sentence == (
        "The validation loss was lowest at step 300 (0.4) and is 0.9 at the end: it learns too fast or too long; "
        "try a smaller loop.lr, or loop.decay=cosine."
    )


def test_losses_that_rise_with_the_discriminator_name_it_too(tiny):
    rows = course(val__loss=[1, 0.5, 0.4, 0.5, 0.6, 0.9], adversarial_weight=[0, 0, 0, 0.1, 0.1, 0.1])
    (cause,) = causes(rows, tiny("fit-ae"))
    assert cause.about == "rising losses"
    assert cause.sentence.endswith("it has risen since the discriminator is heard; try a smaller loop.lr or a smaller adversarial.weight.")


def test_losses_that_rose_long_before_the_discriminator_do_not_name_it(tiny):
    rows = course(val__loss=[1, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1], adversarial_weight=[0] * 7 + [0.1])
    (cause,) = causes(rows, tiny("fit-ae"))
    assert "lowest at step 200" in cause.sentence and "discriminator" not in cause.sentence


def test_with_shares_the_share_of_the_discriminator_is_named(tiny):
    rows = course(val__loss=[1, 0.5, 0.4, 0.5, 0.6, 0.9], adversarial_weight=[0, 0, 0, 0.1, 0.1, 0.1])
    (cause,) = causes(rows, tiny("fit-ae", "discriminator=patchgan", "losses.shares={pixel: 0.9, adversarial: 0.1}"))
    assert cause.sentence.endswith("try a smaller loop.lr or a smaller losses.shares.adversarial.")


@pytest.mark.parametrize(
    ("autoencoder", "keys"),
    [("vae", {"kl_weight"}), ("{type: vqvae, codebook_size: 16}", {"revive"}), ("{type: fsq, levels: [3, 3]}", set())],
)
def test_only_keys_that_the_autoencoder_has_are_advised(tiny, autoencoder, keys):
    rows = course(latent_max=[5, 8, 10, 15, 16, 20, 30, 51], codes_used=[300, 500, 512, 400, 300, 250, 200, 200])
    said = " ".join(cause.sentence for cause in causes(rows, tiny("fit-ae", f"autoencoder={autoencoder}")))
    assert {key for key in ("kl_weight", "revive") if f"autoencoder.{key}" in said} == keys and "loop.lr" in said


def test_of_a_beaten_discriminator_that_is_heard_all_the_same_its_noise_is_said(tiny):
    rows = course(discriminator__advantage=[0.5, 0.2, 0.02, 0.0, 0.01, -0.01, 0.0, 0.01])
    (cause,) = causes(rows, tiny("fit-ae", "discriminator=patchgan", "adversarial.advantage=0"))
    assert "what was heard of it is noise" in cause.sentence and "hardly heard" not in cause.sentence


@pytest.mark.parametrize(
    ("curves", "words", "about"),
    [
        ({"discriminator__advantage": [0.5, 0.2, 0.02, 0.0, 0.01, -0.01, 0.0, 0.01]}, [], "the discriminator"),
        ({"pixel_share": [0.04] * 8, "lpips_share": [0.96] * 8}, [], "the losses"),
        ({"pixel_share": [0.04] * 8, "lpips_share": [0.85] * 8, "adversarial_share": [0.11] * 8}, [], "the losses"),
        ({"pixel": [1, 0.5, 0.4, 0.5, 0.6, 0.9]}, [], "rising losses"),
        ({"latent_max": [5, 8, 10, 15, 16, 20, 30, 51]}, [], "the latent"),
        ({"codes_used": [300, 500, 512, 400, 300, 250, 200, 200]}, [], "the codes"),
    ],
)
def test_other_causes_are_found_by_their_curves(found, curves, words, about):
    assert found(course(**curves), *words) == [about]


def test_the_share_of_the_discriminator_hides_no_other_and_is_none_of_them(tiny, found):
    rows = course(pixel_share=[0.04] * 8, lpips_share=[0.86] * 8, adversarial_share=[0.1] * 8)
    (cause,) = causes(rows, tiny("fit-ae"))
    assert cause.sentence.startswith("lpips makes 96% of the gradient of the losses on the picture and the pixel loss 4%")
    assert found(course(pixel_share=[0.05] * 8, adversarial_share=[0.95] * 8)) == []


def test_a_loss_while_training_counts_as_risen_only_where_nothing_is_held_out_and_it_rose_by_much(found):
    well, high = [1, 0.5, 0.4, 0.42, 0.41, 0.43], [1, 0.5, 0.4, 0.5, 0.6, 0.9]
    assert found(course(pixel=well)) == [] and found(course(pixel=high)) == ["rising losses"]
    assert found(course(pixel=high, val__loss=[*well[:5], 0.4])) == []


def test_shares_that_were_asked_for_are_no_cause(found):
    rows = course(pixel_share=[0.04] * 8, lpips_share=[0.96] * 8)
    assert found(rows, "losses.shares={pixel: 0.04, perceptual: 0.96}") == []


def test_what_is_not_finite_or_not_there_is_passed_over(found):
    assert found([]) == [] and found(course(val__loss=[float("nan")] * 8, codes_used=[None] * 8)) == []


def test_without_a_discriminator_nothing_is_said_of_one():
    assert before_and_after(None, None, 9) == []


def test_losses_that_were_other_ones_before_are_no_rise(tmp_path, fit_ae, tiny):
    rows = course(val__loss=[0.9, 0.7, 0.6, 0.55, 2.7, 2.6, 2.5, 2.4])
    assert [cause.about for cause in causes(rows, tiny("fit-ae"))] == ["rising losses"]
    assert causes(rows, tiny("fit-ae"), since=400) == []
    rows = course(val__loss=[0.9, 0.7, 2.6, 2.5, 2.6, 2.7, 2.8, 2.9], adversarial_weight=[0.1] * 8)
    (cause,) = causes(rows, tiny("fit-ae"), since=200)
    assert "lowest at step 400 (2.5)" in cause.sentence and "since the discriminator is heard" not in cause.sentence, "it was heard before"


def test_the_verdict_of_a_run_whose_losses_changed_names_no_rise(tmp_path, fit_ae):
    words = ["loop.preview=1", "loop.lr=1e-5"]
    run = fit_ae(fit_ae(tmp_path / "run", *words, "loop.steps=8"), *words, "loop.steps=13", "losses.pixel_weight=5")
    verdict = " ".join(json.loads((run / "run.json").read_text())["judged"]["verdict"])
    assert "validation loss was lowest" not in verdict and "more loop.steps" in verdict
    assert look(run).best()[0] > 8
