"""The judge of made digits measures what it says: known distances, known shares, and the labels that samples carry."""

import argparse
import importlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from ldmctl.errors import DataError
from ldmctl.pictures.images import read
from ldmctl.pictures.png import read_png_text, write_png

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def judging(monkeypatch):
    """The module benchmarks/judge.py, which imports its neighbours by their bare names."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("judge")


@pytest.fixture
def plain(monkeypatch):
    """The module benchmarks/plain_recipe.py."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("plain_recipe")


def normal(count, width=6, seed=0):
    """[count,width] float64 with mean exactly 0 and covariance exactly 1."""
    values = torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values -= values.mean(0)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(values.T)), values.T, upper=False).T


def rotation(width=6):
    """An orthogonal matrix."""
    return torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(5), dtype=torch.float64))[0]


def test_the_frechet_distance_of_gaussians_with_a_common_basis_is_the_closed_form(judging):
    turn = rotation()
    one, other = torch.tensor([1.0, 2, 0.5, 3, 0, 1]).double(), torch.tensor([2.0, 1, 0.5, 1, 0.25, 0]).double()
    shift = torch.arange(6).double()
    found = judging.frechet_distance(normal(500) * one @ turn, normal(700, seed=1) * other @ turn + shift)
    assert found == pytest.approx(float(shift.square().sum() + (one - other).square().sum()), rel=1e-6)


def test_the_frechet_distance_of_gaussians_that_do_not_commute_is_the_closed_form(judging):
    # For 2x2 matrices tr sqrt(AB) = sqrt(tr(AB) + 2 sqrt(det A det B)).
    mix_one, mix_other = torch.tensor([[2.0, 0.5], [0.0, 1.0]]).double(), torch.tensor([[0.5, 0.0], [1.5, 1.0]]).double()
    a, b = mix_one.T @ mix_one, mix_other.T @ mix_other
    assert not torch.allclose(a @ b, b @ a)
    expected = a.trace() + b.trace() - 2 * ((a @ b).trace() + 2 * (a.det() * b.det()).sqrt()).sqrt()
    found = judging.frechet_distance(normal(300, width=2) @ mix_one, normal(400, width=2, seed=1) @ mix_other)
    assert found == pytest.approx(float(expected), rel=1e-9)


def test_a_set_has_no_distance_to_itself_even_where_features_are_dead(judging):
    features = normal(200).float()
    features[:, 3] = 0
    assert judging.frechet_distance(features, features) < 1e-6


def test_the_order_of_the_pictures_changes_no_distance(judging):
    one, other = normal(200), 2 * normal(300, seed=1) + 1
    shuffled = one[torch.randperm(200, generator=torch.Generator().manual_seed(2))]
    assert judging.frechet_distance(shuffled, other) == pytest.approx(judging.frechet_distance(one, other), rel=1e-12)
    assert judging.frechet_distance(other, one) == pytest.approx(judging.frechet_distance(one, other), rel=1e-12)


def test_the_floor_is_the_mean_over_disjoint_draws_of_real_digits(judging):
    train, test = normal(400), normal(300, seed=1)
    train[:, 0] = torch.arange(400).double()  # tells which rows were drawn
    found = judging.real_floor(train, test, 100)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(judging.RECIPE.seed))
    distances = [judging.frechet_distance(train[rows], test) for rows in order.split(100)]
    seen = torch.cat([train[rows, 0] for rows in order.split(100)])
    assert len(seen.unique()) == 400
    assert found["draws"] == 4
    assert (found["low"], found["high"]) == (min(distances), max(distances))
    assert found["mean"] == pytest.approx(sum(distances) / 4)


@pytest.mark.parametrize("count", [1, 500])
def test_a_single_sample_and_more_samples_than_real_digits_have_no_floor(judging, count):
    with pytest.raises(DataError, match=f"2 to 400 samples with as many real digits, not {count}"):
        judging.real_floor(normal(400), normal(300), count)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_the_nearest_distance_is_that_of_a_search_of_all_pairs(judging, chunk):
    queries, references = normal(50, width=20, seed=1).float(), normal(90, width=20, seed=2).float()
    all_pairs = (queries[:, None].double() - references.double()).square().sum(2).sqrt().amin(1)
    assert torch.allclose(judging.nearest_distances(queries, references, chunk=chunk).double(), all_pairs, rtol=1e-5)


def test_a_copy_of_a_training_picture_is_at_distance_zero(judging):
    references = torch.rand(40, 784, generator=torch.Generator().manual_seed(0)) * 100
    assert judging.nearest_distances(references[[7, 31]], references).tolist() == [0, 0]


def test_the_confident_share_counts_probabilities_above_95_percent(judging):
    probability = torch.tensor([[0.94, 0.06], [0.96, 0.04], [0.5, 0.5], [0.01, 0.99]])
    assert judging.confident_share(probability.log()) == 0.5


def test_accuracy_asks_labelled_samples_only(judging):
    logits = torch.eye(4)[[0, 1, 2, 3, 0]]
    assert judging.accuracy(logits, torch.tensor([0, 1, 3, -1, -1])) == pytest.approx(2 / 3)
    assert judging.accuracy(logits, torch.full((5,), -1)) is None
    assert judging.label_histogram(logits) == [2, 1, 1, 1]


class Bright(nn.Module):
    """A classifier that reads a digit off the first pixel, and is sure of it; its features are pixels."""

    def body(self, image):
        return image.flatten(1)[:, :6]

    def head(self, features):
        return 100 * nn.functional.one_hot((features[:, 0] * 255).round().long(), 10).float()


def random_digits(judging, count, seed):
    """Noise with its label in the first pixel."""
    random = torch.Generator().manual_seed(seed)
    pictures = torch.randint(0, 256, (count, 28, 28), generator=random, dtype=torch.uint8)
    pictures[:, 0, 0] = torch.arange(count) % 10
    return judging.Digits(pictures, torch.arange(count) % 10)


@pytest.fixture
def judge(judging):
    """A judge of 200 training and 100 test pictures that needs no training."""
    train, test = random_digits(judging, 200, seed=0), random_digits(judging, 100, seed=1)
    features = [judging.look(Bright(), each.pictures)[1] for each in (train, test)]
    return judging.Judge(Bright(), train, test, *features, {})


def test_a_verdict_tells_copies_from_new_pictures_and_wrong_labels_from_right_ones(judging, judge):
    copies = judging.judge_pictures(judge, judge.train.pictures[:50], judge.train.labels[:50])
    assert copies["count"] == 50 and copies["accuracy"] == 1 and copies["confident_share"] == 1
    assert copies["nearest_training_picture"]["pixels"] == {"median": 0, "percentile_1": 0}
    assert copies["label_histogram"] == [5] * 10
    assert copies["ratio"] == pytest.approx(copies["classifier_frechet_distance"] / copies["floor"]["mean"], rel=1e-3)
    new = random_digits(judging, 50, seed=2)
    verdict = judging.judge_pictures(judge, new.pictures, (new.labels + 1) % 10)
    assert verdict["accuracy"] == 0
    assert verdict["nearest_training_picture"]["pixels"]["percentile_1"] > 5


def test_labels_are_read_from_what_samples_say_of_themselves(judging, judge, tmp_path):
    pictures = judge.test.pictures[:12]
    texts = [{"ldmctl": json.dumps({"seed": 0, "label": "0"})}, {"label": "1"}, {"ldmctl": json.dumps({"label": None})}, {}]
    for index, picture in enumerate(pictures):
        write_png(tmp_path / f"{index:06d}.png", picture[None], texts[index] if index < 4 else {"label": str(index % 10)})
    write_png(tmp_path / "grid.png", torch.zeros(1, 90, 90, dtype=torch.uint8))
    files = judging.picture_files(tmp_path)
    assert [judging.label_of(file) for file in files] == [0, 1, -1, -1, 4, 5, 6, 7, 8, 9, 0, 1]
    assert judging.read_pictures(files).equal(pictures)
    assert judging.judge_folder(judge, tmp_path)["accuracy"] == 1


def test_a_file_of_labels_stands_in_for_what_the_pictures_say(judging, judge, tmp_path):
    for index, picture in enumerate(judge.test.pictures[:12]):
        write_png(tmp_path / "made" / f"{index:06d}.png", picture[None], {"label": str(index % 10)})
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(str(index % 10 if index < 6 else 9 - index % 10) for index in range(12)))
    assert judging.judge_folder(judge, tmp_path / "made", labels)["accuracy"] == 0.5
    labels.write_text("1\n2\n")
    with pytest.raises(DataError, match="must hold 12 digits"):
        judging.judge_folder(judge, tmp_path / "made", labels)


def test_pictures_of_another_size_and_empty_folders_are_refused(judging, tmp_path):
    with pytest.raises(DataError, match="holds no PNG files"):
        judging.picture_files(tmp_path)
    write_png(tmp_path / "000000.png", torch.zeros(1, 32, 32, dtype=torch.uint8))
    with pytest.raises(DataError, match=r"000000\.png is not 28x28 pixels"):
        judging.read_pictures(judging.picture_files(tmp_path))


def test_the_classifier_has_the_size_and_the_features_that_are_written(judging):
    classifier = judging.Classifier()
    assert sum(parameter.numel() for parameter in classifier.parameters()) == 155_626
    logits, features = judging.look(classifier, torch.zeros(3, 28, 28, dtype=torch.uint8))
    assert logits.shape == (3, 10) and features.shape == (3, judging.FEATURES)


@pytest.fixture
def short(judging, monkeypatch):
    """Tiny sets of digits, and a recipe of one pass over them."""
    sets = {"train": random_digits(judging, 64, seed=0), "val": random_digits(judging, 40, seed=1)}
    monkeypatch.setattr(judging, "digits", sets.__getitem__)
    monkeypatch.setattr(judging, "RECIPE", judging.Recipe(epochs=1, batch=16))
    return sets


def test_a_judge_is_trained_once_and_again_only_when_its_recipe_or_its_data_changed(judging, short, monkeypatch, tmp_path):
    monkeypatch.setattr(judging, "LEAST", 0.0)
    first = judging.open_judge(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(judging, "fit", None)  # not called
        again = judging.open_judge(tmp_path)
    assert again.facts == first.facts and again.train_features.equal(first.train_features)
    assert judging.look(again.classifier, short["val"].pictures)[1].equal(first.test_features)
    short["train"].pictures[0, 5, 5] ^= 1
    changed = judging.open_judge(tmp_path)
    assert changed.facts["data"] != first.facts["data"]
    monkeypatch.setattr(judging, "RECIPE", judging.Recipe(epochs=2, batch=16))
    assert judging.open_judge(tmp_path).facts["recipe"]["epochs"] == 2


def test_the_same_recipe_trains_the_same_judge_on_any_number_of_threads(judging, short):
    before = torch.get_num_threads()
    try:
        made = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with judging.one_thread():
                made.append(judging.fit(short["train"]).state_dict())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(made[0][name].equal(made[1][name]) for name in made[0])


def test_a_classifier_that_cannot_read_judges_nothing(judging, short, tmp_path):
    with pytest.raises(judging.MismatchError, match=r"must read 98\.5%"):
        judging.open_judge(tmp_path)
    assert not (tmp_path / "judge.safetensors").exists()


def test_the_plain_recipe_has_3_6_million_parameters(plain):
    network = plain.Transformer((3, 7, 7), 10)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(3.6e6, rel=0.02)
    said = network(torch.randn(2, 3, 7, 7), torch.tensor([0.0, 1.0]), torch.tensor([3, 10]))
    assert said.shape == (2, 3, 7, 7)


def test_eulers_method_lands_on_the_point_that_every_velocity_points_to(plain):
    target, noise = torch.randn(2, 3, 7, 7), torch.randn(2, 3, 7, 7)
    engine = plain.engines.Engine(torch.device("cpu"), torch.float32)

    def velocity(x, t, label):
        assert label.tolist() == [4, 5, 10, 10]
        return (x - torch.cat([target, target])) / t.view(-1, 1, 1, 1)  # of x_t = (1 - t) target + t noise

    found = plain.sample(velocity, noise, torch.tensor([4, 5]), 10, 2.0, engine)
    assert torch.allclose(found, target, atol=1e-4)


def test_the_plain_recipe_writes_labelled_samples_of_the_caches_own_autoencoder(plain, judging, monkeypatch, vqvae_cache, tmp_path):
    monkeypatch.setattr(plain, "BATCH", 2)
    monkeypatch.setattr(plain, "STEPS", 2)
    asked = argparse.Namespace(minutes=1e-6, count=3, guidance=2.0, seed=0, device="cpu")
    took = plain.run(vqvae_cache, tmp_path / "once", asked)
    assert took["training_steps"] >= 1
    manifest = plain.manifests.read(vqvae_cache)
    files = judging.picture_files(tmp_path / "once")
    assert [file.name for file in files] == ["000000.png", "000001.png", "000002.png"]
    assert [read_png_text(file)["label"] for file in files] == manifest.classes[:3]
    assert read(files[0]).shape == (3, manifest.image["size"], manifest.image["size"])


def test_the_benchmark_sets_our_distance_beside_the_plain_recipes(judging, judge, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    mnist = importlib.import_module("mnist")
    for name, pictures in (("labelled", judge.test.pictures[:20]), ("plain", 255 - judge.test.pictures[:20])):
        pictures[:, 0, 0] = judge.test.labels[:20]
        for index, picture in enumerate(pictures):
            write_png(tmp_path / mnist.SETS[name] / f"{index:06d}.png", picture[None], {"label": str(index % 10)})
    found = mnist.judge_sets(judge, tmp_path)
    assert "unconditional" not in found
    ours, plain = (found[name]["classifier_frechet_distance"] for name in ("labelled", "plain"))
    assert found["labelled_over_plain"] == pytest.approx(ours / plain, rel=1e-3)
