"""How often the judge sees what was asked, of all samples and of each class, on features whose answers are known."""

from types import SimpleNamespace

import pytest
import torch

from ldmctl.evaluation import sample_report
from ldmctl.evaluation.extraction import Seen
from ldmctl.evaluation.real import Real
from ldmctl.training.engine import Engine

CPU = Engine(torch.device("cpu"), torch.float32)
PLACES = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])  # where the features of each of three classes lie


def seen(looks, labels):
    """Pictures that look like these classes and are labelled so."""
    generator = torch.Generator().manual_seed(len(looks))
    features = PLACES[torch.tensor(looks)] + torch.randn(len(looks), 2, generator=generator) / 10
    small = torch.zeros(len(looks), 1, 2, 2, dtype=torch.uint8)
    return Seen(features, features, small, torch.tensor(labels), torch.arange(len(looks)))


@pytest.fixture
def real():
    return Real(seen([0, 1, 2] * 60, [0, 1, 2] * 60), seen([0, 1, 2] * 50, [0, 1, 2] * 50), None, None)


@pytest.fixture(params=["nearest references", "its own word"])
def extractor(request):
    if request.param == "nearest references":
        return SimpleNamespace(title="mine")
    return SimpleNamespace(title="mine", logits=lambda features: -torch.cdist(features, PLACES))


LOOKS = [*[0] * 50, *[1] * 40, *[2] * 10, *[0] * 4, 1, 2]
LABELS = [*[0] * 50, *[1] * 50, *[-1] * 4, 2, 2]  # of class 1 forty of fifty, of class 2 one of two; four were asked to be nothing


def test_what_was_asked_is_counted_among_those_that_were_asked(real, extractor):
    found = sample_report.asked(seen(LOOKS, LABELS), real, extractor, CPU)
    assert found["count"] == 102 and found["value"] == pytest.approx(91 / 102) and found["low"] < 91 / 102 < found["high"]
    assert found["real"]["count"] == 150 and found["real"]["value"] == 1


def test_each_class_has_its_own_share_and_its_own_distances(real, extractor):
    found = sample_report.by_class(seen(LOOKS, LABELS), real, ["a", "b", "c"], extractor, CPU)
    assert {name: row["count"] for name, row in found.items()} == {"a": 50, "b": 50, "c": 2}
    assert [found[name]["asked"]["value"] for name in "abc"] == pytest.approx([1, 0.8, 0.5])
    assert "measures" not in found["c"], "of two samples there is no distance"
    far = {name: found[name]["measures"]["frechet_distance"] for name in "ab"}
    assert far["a"]["value"] < 0.05 and far["b"]["value"] > 4, "a fifth of class b lies 14 away"
    assert all(each["real"]["value"] < 0.05 and each["real"]["count"] == 50 for each in far.values()), "beside real ones of the class"


def test_a_class_that_nobody_asked_for_is_left_out(real, extractor):
    assert sample_report.by_class(seen([0, 0], [0, 0]), real, ["a", "b", "c"], extractor, CPU).keys() == {"a"}
    assert sample_report.asked(seen([0, 0], [-1, -1]), real, extractor, CPU) is None
