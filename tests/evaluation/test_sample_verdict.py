"""A sentence per number: good, weak, or more samples needed, by what real pictures have at the same number."""

import pytest

from ldmctl.evaluation.sample_verdict import judge, small


def measure(name, own, real, title="a measure (fitted)"):
    value, low, high = own
    middle, least, most = real
    return {
        "measures": {
            name: {"title": title, "value": value, "low": low, "high": high, "real": {"value": middle, "low": least, "high": most}}
        }
    }


def copies(share, low, high, passes=12.5):
    return {
        "measures": {},
        "memorisation": {
            "share": share,
            "low": low,
            "high": high,
            "quantile": 0.01,
            "of": 64,
            "ordinary": "held-out pictures",
            "passes": passes,
        },
    }


@pytest.mark.parametrize(
    ("name", "own", "real", "level", "words"),
    [
        ("frechet_distance", (5, 4.5, 5.5), (4.8, 4.4, 5.2), "good", "no difference can be seen"),
        ("frechet_distance", (10, 9, 11), (5, 4.5, 5.5), "good", "within 3 times"),
        ("frechet_distance", (50, 45, 55), (5, 4.5, 5.5), "poor", "weak, 10 times as far"),
        ("frechet_distance", (16, 14, 18), (5, 4.5, 5.5), "unknown", "more samples needed to say"),
        ("frechet_distance", (150, 30, 280), (128, 14, 244), "unknown", "the interval is about as wide as the number"),
        ("kernel_distance", (0.001, -0.002, 0.004), (0.0, -0.002, 0.002), "good", "no difference can be seen"),
        ("kernel_distance", (0.1, 0.09, 0.11), (0.0, -0.002, 0.002), "poor", "weak, 50 times"),
        ("recall", (0.65, 0.6, 0.7), (0.7, 0.66, 0.74), "good", "good"),
        ("recall", (0.2, 0.15, 0.25), (0.7, 0.66, 0.74), "poor", "Kinds of real pictures are missing"),
        ("precision", (0.58, 0.5, 0.66), (0.7, 0.66, 0.74), "unknown", "more samples needed to tell them apart"),
        ("precision", (0.58, None, None), (0.7, 0.66, 0.74), "unknown", "more samples needed for an interval"),
    ],
)
def test_a_number_is_judged_by_that_of_real_pictures(name, own, real, level, words):
    (said,) = judge(measure(name, own, real))
    assert said.level == level and words in said.sentence and said.sentence.startswith("a measure (fitted) is")


@pytest.mark.parametrize(
    ("found", "level", "words"),
    [
        ((0.005, 0, 0.01), "good", "the run does not copy after 12.5 passes over the 64 training pictures"),
        ((0.1, 0.07, 0.13), "doubtful", "the run has begun to copy after 12.5 passes"),
        ((0.9, 0.85, 0.95), "poor", "the run repeats its training pictures after 12.5 passes"),
        ((0.05, 0.0, 0.12), "unknown", "more samples needed"),
    ],
)
def test_copying_is_named_with_the_passes_over_the_data(found, level, words):
    (said,) = judge(copies(*found))
    assert said.level == level and words in said.sentence


def test_a_judge_that_does_not_know_real_pictures_judges_no_samples():
    asked = {"judge": "latent", "value": 0.5, "low": 0.4, "high": 0.6, "real": {"value": 0.6, "low": 0.5, "high": 0.7}}
    (said,) = judge({"measures": {}, "asked": asked})
    assert said.level == "unknown" and "Name a better --extractor" in said.sentence
    asked["real"]["value"] = 0.99
    assert judge({"measures": {}, "asked": asked})[0].level == "poor"


def test_as_many_samples_as_features_are_too_few():
    assert "96 samples are not more than the 96 features" in small(96, 96, "fitted")
    assert small(97, 96, "fitted") == ""
