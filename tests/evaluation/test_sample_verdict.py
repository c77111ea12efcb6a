"""A sentence per number: good, weak, or more samples needed, by what real pictures have at the same number."""

import pytest

from ldmctl.evaluation.neighbours import share
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
    ("name", "count", "level", "words"),
    [
        ("frechet_distance", 199, "unknown", "more samples needed, 200 at least; of so few no difference can be seen"),
        ("frechet_distance", 200, "good", "no difference"),
        ("frechet_distance", 2048, "unknown", "more samples needed, 2,049 at least"),
        ("frechet_distance", 2049, "good", "no difference"),
        ("kernel_distance", 8, "unknown", "more samples needed, 200 at least"),
        ("kernel_distance", 2048, "good", "no difference"),
        ("coverage", 32, "unknown", "more samples needed, 200 at least"),
        ("coverage", 200, "good", "good"),
    ],
)
def test_few_samples_are_never_called_good(name, count, level, words):
    found = measure(name, (0.9, 0.85, 0.95), (0.9, 0.85, 0.95))
    found["measures"][name]["real"]["count"] = count
    found["extractor"] = {"features": 2048 if count > 1000 else 96}
    (said,) = judge(found)
    assert said.level == level and words in said.sentence
    found["measures"][name]["same"] = {**found["measures"][name], "count": count}
    assert level == "good" or "more real pictures needed" in judge(found)[0].sentence


@pytest.mark.parametrize("name", ["frechet_distance", "kernel_distance", "coverage"])
def test_few_samples_may_be_weak(name):
    found = measure(name, (0.1, 0.09, 0.11) if name == "coverage" else (50, 45, 55), (0.9, 0.85, 0.95))
    found["measures"][name]["real"]["count"] = 8
    assert judge(found)[0].level == "poor"


@pytest.mark.parametrize(
    ("found", "level", "words"),
    [
        ((0.005, 0, 0.01), "good", "the run does not copy after 12.5 passes over the 64 training pictures"),
        ((0.1, 0.07, 0.13), "doubtful", "the run has begun to copy after 12.5 passes"),
        ((0.9, 0.85, 0.95), "poor", "the run repeats its training pictures after 12.5 passes"),
        ((0.9, 0.85, 0.95, 1500.0), "poor", "after 1,500 passes"),
        ((0.05, 0.0, 0.12), "unknown", "more samples needed"),
        ((0.0, 0.0, 3 / 8), "unknown", "more samples needed"),
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


@pytest.mark.parametrize(
    ("own", "level", "words"),
    [
        ((0.97, 0.96, 0.98), "good", "good"),
        ((0.97, 0.90, 1.0), "unknown", "more samples needed to tell them apart"),
        ((0.90, 0.80, 0.96), "unknown", "more samples needed to tell them apart"),
        ((0.90, 0.88, 0.92), "poor", "weak"),
    ],
)
def test_what_is_seen_as_asked_may_lie_a_twentieth_below_real_pictures(own, level, words):
    asked = {"judge": "fitted", **dict(zip(("value", "low", "high"), own, strict=True)), "real": {"value": 0.99, "low": 0.98, "high": 1.0}}
    (said,) = judge({"measures": {}, "asked": asked})
    assert said.level == level and words in said.sentence


def test_some_samples_that_are_nearly_alike_are_pointed_at():
    found = {"share": 0.054, "low": 0.036, "high": 0.072, "count": 500, "quantile": 0.01}
    (said,) = judge({"measures": {}, "duplicates": found})
    assert said.level == "doubtful" and "some of them are nearly alike" in said.sentence
    assert judge({"measures": {}, "duplicates": {**found, "low": 0.01}})[0].level == "good"


@pytest.mark.parametrize(
    ("share", "count", "level"), [(0.312, 32, "unknown"), (0.312, 200, "poor"), (0.01, 200, "good"), (0.0, 8, "unknown")]
)
def test_few_samples_are_not_said_to_repeat_themselves(share, count, level):
    (said,) = judge({"measures": {}, "duplicates": {"share": share, "count": count, "quantile": 0.01}})
    assert said.level == level and ("200 or more" in said.sentence) == (level == "unknown")


def test_what_was_seen_in_none_or_all_of_few_has_an_interval():
    assert share((0.0, 0.0, 0.0), 8) == (0.0, 0.0, 3 / 8) and share((1.0, 1.0, 1.0), 60) == (1.0, 0.95, 1.0)
    assert share((0.5, -0.1, 1.2), 8) == (0.5, 0.0, 1.0) and share((0.0, 0.0, 0.0), 2) == (0.0, 0.0, 1.0)


def test_as_many_samples_as_features_are_too_few():
    assert "96 samples are not more than the 96 features" in small(96, 96, "fitted")
    assert small(97, 96, "fitted") == ""


def test_few_real_pictures_are_no_bound_for_copies_but_samples_that_all_repeat_them_are_said():
    found = copies(0.05, 0.03, 0.07)
    found["memorisation"]["ordinary_count"] = 20
    (said,) = judge(found)
    assert said.level == "unknown" and "of only 20 real pictures the nearest says little; 100 or more are needed" in said.sentence
    found["memorisation"]["share"] = 0.9
    assert judge(found)[0].level == "poor"


@pytest.mark.parametrize(
    ("learned", "words"), [(False, "Those are not the pictures"), (None, "Nothing says whether what made them learned from")]
)
@pytest.mark.parametrize(("found", "level"), [((0.005, 0, 0.01), "unknown"), ((0.1, 0.07, 0.13), "doubtful"), ((0.9, 0.85, 0.95), "poor")])
def test_of_other_pictures_nothing_is_said_of_training_and_passes(found, level, learned, words):
    found = copies(*found)
    found["memorisation"]["learned"] = learned
    (said,) = judge(found)
    assert said.level == level and words in said.sentence and "passes" not in said.sentence and "training picture" not in said.sentence
    assert "the run does not copy" not in said.sentence and "the run repeats" not in said.sentence


def test_where_fewer_real_pictures_stand_beside_them_as_few_samples_are_judged():
    found = measure("frechet_distance", (10, 9, 11), (8, 7, 9))
    found["measures"]["frechet_distance"]["same"] = {"value": 30, "low": 27, "high": 33, "count": 50}
    (said,) = judge(found)
    assert said.level == "poor" and "of 50 samples, evenly, is 30 (27 to 33), that of as many real pictures 8" in said.sentence


def test_one_labelled_sample_has_no_interval_to_print():
    asked = {"judge": "fitted", "value": 1.0, "low": None, "high": None, "real": {"value": 0.99, "low": 0.98, "high": 1.0}}
    (said,) = judge({"measures": {}, "asked": asked})
    assert said.level == "unknown" and "nan" not in said.sentence and "in 100.0% of the samples, and the right class" in said.sentence


@pytest.mark.parametrize(
    ("count", "level", "words"), [(300, "good", "300 of the 5,000 samples, evenly,"), (150, "unknown", "more real pictures needed")]
)
def test_samples_among_each_other_are_as_many_as_the_real_ones_and_that_is_said(count, level, words):
    (said,) = judge({"measures": {}, "duplicates": {"share": 0.01, "count": count, "of": 5000, "quantile": 0.01}})
    assert said.level == level and words in said.sentence
