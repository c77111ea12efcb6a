"""A run that is killed in the step where a phase of its discriminator begins ends as one that was not."""

import json

import pytest
import torch

from ldmctl.storage import weights
from ldmctl.training.loop import Training

WORDS = [
    "discriminator={type: patchgan, widths: [8], norm: spectral}",
    "adversarial={start: 4, warmup: 2, ramp: 2, r1: 1, r1_every: 3, lecam: 0.1, augment: [colour, translation, cutout], lr: 1e-3}",
    "loop.decay=cosine",
    "loop.save=1",
    "loop.steps=9",
]
FIRST, HEARD = 4, 6  # steps, from 0: the discriminator's own first, and that in which the autoencoder hears it first


@pytest.fixture(scope="module")
def whole(tmp_path_factory, fit_ae):
    return fit_ae(tmp_path_factory.mktemp("whole") / "run", *WORDS)


@pytest.mark.parametrize("step", [FIRST - 1, FIRST, FIRST + 1, HEARD, HEARD + 1])
def test_a_run_killed_where_a_phase_begins_has_the_bits_of_an_undisturbed_one(tmp_path, fit_ae, whole, monkeypatch, step):
    update = Training.update

    def killed(training, now, learner, items):
        if now == step and learner is training.model:
            raise KeyboardInterrupt
        update(training, now, learner, items)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Training, "update", killed)
        fit_ae(tmp_path / "run", *WORDS)
    assert weights.read_header(tmp_path / "run" / "state.safetensors")["scalars"]["step"] == step
    run = fit_ae(tmp_path / "run", *WORDS)
    one, other = (weights.load(each / "state.safetensors")[0] for each in (whole, run))
    assert one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
    was, judged = zip(*(measured(each) for each in (whole, run)), strict=True)
    assert was[0] == was[1] and was[0]["step"] == FIRST and judged[0] == judged[1]


def measured(run):
    record = json.loads((run / "run.json").read_text())
    return record["before_discriminator"], record["judged"]
