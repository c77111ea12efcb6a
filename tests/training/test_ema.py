"""Power averages: tracked, stored, and combined into any other afterwards."""

import json
import math
import shutil
import weakref

import numpy as np
import pytest
import torch

from ldmctl.cli.app import run
from ldmctl.config.resolve import plugin_config
from ldmctl.diffusion.network import build_network, describe_network, load_network
from ldmctl.errors import ConfigError, MismatchError
from ldmctl.storage import weights
from ldmctl.storage.record import model_file
from ldmctl.training import posthoc_ema
from ldmctl.training.ema import LENGTHS, PowerAverages, decay, gamma_of, length_of
from ldmctl.training.engine import Engine
from ldmctl.training.posthoc_ema import built, combination, overlaps, snapshot_name, stored_in

STEPS, EVERY, SIZE = 2048, 128, 400


HEADER = {  # of a denoiser, beside its network
    "schedule": {"kind": "schedule", "type": "cosine", "config": {"type": "cosine"}, "context": {}},
    "prediction": "x0",
    "latent": [3, 8, 8],
    "statistics": {"mean": [0.0, 0.0, 0.0], "deviation": [1.0, 1.0, 1.0]},
    "classes": [],
    "label_counts": [],
    "image": {"size": 16, "channels": 3},
    "autoencoder": {"type": "vae", "fingerprint": ""},
}


def shares(step, gamma):
    """What weights of steps 1 to `step` count, by their explicit formula: the integral of the profile over each step."""
    i = torch.arange(step + 1, dtype=torch.float64)
    return ((i / step) ** (gamma + 1)).diff()


def trained(steps=STEPS, size=SIZE, seed=0):
    """Weights [steps,size] as training moves them: a drift that slows down, and a walk whose rate falls."""
    random = torch.Generator().manual_seed(seed)
    t = torch.arange(1, steps + 1, dtype=torch.float64)[:, None]
    start, drift = torch.randn(2, size, generator=random, dtype=torch.float64)
    return start + drift * t.log() / 3 + (torch.randn(steps, size, generator=random, dtype=torch.float64) / t.sqrt()).cumsum(0)


def off(value, truth):
    """Relative distance of two sets of weights."""
    return float((value.double() - truth.double()).norm() / truth.double().norm())


@pytest.fixture(scope="module")
def path():
    return trained()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, path):
    """averages/ of a run that followed `path`, a pair each EVERY steps. Read only."""
    folder = tmp_path_factory.mktemp("run") / "averages"
    averages = PowerAverages({"w": path[0].float(), "seen": torch.tensor(0)}, ["w"])
    for step in range(1, STEPS + 1):
        averages.update(step, {"w": path[step - 1].float(), "seen": torch.tensor(step)})
        if step % EVERY == 0:
            averages.write(folder, step, {"kind": "diffusion", "note": "kept"})
    return folder


# -- profiles --------------------------------------------------------------------


@pytest.mark.parametrize("length", [0.01, 0.03, 0.05, 0.1, 0.15, 0.25, 0.288])
def test_length_and_gamma_are_each_others_inverse(length):
    assert length_of(gamma_of(length)) == pytest.approx(length, rel=1e-9)


def test_the_length_is_the_deviation_of_the_profile():
    for gamma in (0.5, 6.94, 16.97):
        t = (np.arange(100_000) + 0.5) / 100_000
        share = t**gamma / (t**gamma).sum()
        assert length_of(gamma) == pytest.approx(math.sqrt(share @ t**2 - (share @ t) ** 2), rel=1e-6)
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.01) and gamma_of(0.10) == pytest.approx(
        6.94, abs=0.01
    )  # arXiv:2312.02696, section 3.1


@pytest.mark.parametrize("length", [0.0, -0.1, 0.2887, 1.0, math.nan])
def test_a_length_that_no_profile_has_is_named(length):
    with pytest.raises(ConfigError, match=r"is no length of a power average: more than 0, less than 0\.289"):
        gamma_of(length)


def test_overlaps_are_the_integrals_of_products_of_profiles():
    t, gamma = np.array([300.0, 300.0, 1000.0, 700.0]), np.array([17.0, 7.0, 7.0, 0.3])
    at = (np.arange(200_000) + 0.5) / 200_000 * 1000
    profiles = [np.where(at < end, (g + 1) * (at / end) ** g / end, 0) for end, g in zip(t, gamma, strict=True)]
    expected = [[p @ q * 1000 / len(at) for q in profiles] for p in profiles]
    np.testing.assert_allclose(overlaps(t, gamma, t, gamma), expected, rtol=1e-4)


def test_overlaps_stay_finite_between_far_ends_of_a_long_training():
    far = overlaps(np.array([1.0, 2e6]), np.array([1e4, 1e4]), np.array([2e6]), np.array([16.97]))
    assert np.isfinite(far).all() and far[0, 0] >= 0 and far[1, 0] > 0


# -- tracked ---------------------------------------------------------------------


def test_a_power_average_is_the_explicit_weighted_sum(path):
    averages = PowerAverages({"w": torch.full((SIZE,), 1e6)}, ["w"])  # forgotten by the first step
    for step in range(1, 301):
        averages.update(step, {"w": path[step - 1].float()})
    for length in LENGTHS:
        share = shares(300, gamma_of(length))
        assert share.sum() == pytest.approx(1)
        assert off(averages.averages[length]["w"], share @ path[:300]) < 1e-6


def test_nothing_is_kept_at_the_first_step():
    assert decay(1, gamma_of(0.05)) == 0 and decay(2, 1.0) == 0.25


def test_averages_are_float32_and_what_is_not_trained_is_copied_as_it_is():
    tensors = {"w": torch.ones(3, dtype=torch.bfloat16), "mean": torch.zeros(2), "seen": torch.tensor(7), "book": torch.zeros(4)}
    averages = PowerAverages(tensors, ["w", "book"])
    averages.update(1, tensors)
    averages.update(2, {"w": 3 * tensors["w"], "mean": torch.ones(2), "seen": torch.tensor(8), "book": torch.ones(4)}, renewed=("book",))
    for length, average in averages.averages.items():
        assert average["w"].dtype == torch.float32 and 2 < average["w"][0] < 3
        assert average["w"][0] == pytest.approx(3 - 2 * 0.5 ** (gamma_of(length) + 1))
        assert average["mean"].tolist() == [1, 1] and average["seen"].item() == 8 and average["book"].tolist() == [1] * 4
        assert average["seen"].dtype == torch.int64
    assert tensors["mean"].tolist() == [0, 0]


def test_a_resumed_average_goes_on_bit_for_bit(tmp_path, path):
    whole, first, second = (PowerAverages({"w": path[0].float(), "seen": torch.tensor(0)}, ["w"]) for _ in range(3))
    for step in range(1, 41):
        tensors = {"w": path[step - 1].float(), "seen": torch.tensor(step)}
        whole.update(step, tensors)
        (first if step <= 23 else second).update(step, tensors)
        if step == 23:
            weights.save(tmp_path / "state.safetensors", {"other": torch.ones(1), **first.state("averages")}, {})
            second.restore("averages", weights.load(tmp_path / "state.safetensors")[0])
    assert len(whole.state("averages")) == 4
    for name, value in whole.state("averages").items():
        assert torch.equal(value, second.state("averages")[name]), name


def test_a_run_begun_without_averages_is_told_so():
    averages = PowerAverages({"w": torch.zeros(3)}, ["w"])
    with pytest.raises(MismatchError, match=r"was started without loop\.keep\.averages"):
        averages.restore("averages", {"diffusion.weights.w": torch.zeros(3)})
    with pytest.raises(MismatchError, match=r"is of another network: averages\.0\.050\.w is \[4\] there, \[3\] here"):
        averages.restore("averages", PowerAverages({"w": torch.zeros(4)}, ["w"]).state("averages"))


# -- combined --------------------------------------------------------------------


def test_a_stored_average_is_found_again_alone():
    stored = [(step, length) for step in (100, 200, 300) for length in LENGTHS]
    coefficients, misfit = combination(200, 0.10, stored)
    assert coefficients == [0, 0, 0, pytest.approx(1), 0, 0]
    assert misfit < 1e-6


def test_coefficients_add_up_to_one_so_weights_that_stand_still_stay():
    stored = [(step, length) for step in (100, 200, 300) for length in LENGTHS]
    for length in (0.02, 0.07, 0.2):
        assert sum(combination(300, length, stored)[0]) == pytest.approx(1)
    assert combination(50, 0.08, [(50, 0.05)])[0] == [pytest.approx(1)]


def test_more_stored_averages_fit_better():
    misfits = []
    for every in (1000, 500, 250, 125):
        stored = [(step, length) for step in range(every, 4001, every) for length in LENGTHS]
        misfits.append(combination(4000, 0.15, stored)[1])
    assert misfits == sorted(misfits, reverse=True) and misfits[-1] < misfits[0] / 20


def test_hundreds_of_stored_averages_are_still_solved():
    stored = [(step, length) for step in range(4000, 1_000_001, 4000) for length in LENGTHS]
    coefficients, misfit = combination(1_000_000, 0.08, stored)
    assert misfit < 1e-4 and sum(coefficients) == pytest.approx(1) and max(map(abs, coefficients)) < 3


@pytest.mark.parametrize(
    ("length", "bound"),  # twice what 16 pairs gave here: 4.0e-4, 9.1e-5, 2.5e-5, 1.7e-5, 4.4e-5
    [(0.03, 8e-4), (0.04, 1.8e-4), (0.07, 5e-5), (0.12, 3.4e-5), (0.15, 9e-5)],
)
def test_an_average_built_from_snapshots_equals_one_tracked_directly(folder, path, length, bound):
    tracked = shares(STEPS, gamma_of(length)) @ path
    average = built(folder, length)
    assert off(average.tensors["w"], tracked) < bound
    distance = (average.tensors["w"].double() - tracked).norm() / (path[-1] - tracked).norm()
    assert distance < average.misfit + 1e-5  # so the misfit that is reported is no understatement
    assert average.tensors["w"].dtype == torch.float32 and average.tensors["seen"].item() == STEPS


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("step", [EVERY, STEPS // 2, STEPS])
def test_what_was_stored_comes_back_exactly_from_its_one_file(folder, step, length):
    average = built(folder, length, step)
    kept, _ = weights.load(folder / f"{step:09d}-{length:.3f}.safetensors")
    assert list(average.used) == [f"{step:09d}-{length:.3f}.safetensors"]
    assert torch.allclose(average.tensors["w"], kept["w"], rtol=1e-6, atol=0)
    assert torch.equal(average.tensors["seen"], kept["seen"])


def test_an_average_may_end_between_two_snapshots(folder, path):
    step = STEPS // 2 + EVERY // 2
    average = built(folder, 0.1, step)
    tracked = shares(step, gamma_of(0.1)) @ path[:step]
    assert off(average.tensors["w"], tracked) < 5.4e-3  # 2.7e-3 here: the profile's edge is between two of those stored
    assert (average.tensors["w"].double() - tracked).norm() / (path[step - 1] - tracked).norm() < average.misfit
    assert max(average.used) == f"{STEPS // 2 + EVERY:09d}-0.100.safetensors"  # later ones are not read
    assert average.header["step"] == step


def test_the_header_is_the_models_own_with_step_and_length(folder):
    assert built(folder, 0.08).header == {"format": 1, "kind": "diffusion", "note": "kept", "step": STEPS, "length": 0.08}


def test_files_are_read_one_at_a_time(folder, monkeypatch):
    alive, most, load = [], [], weights.load

    def watched(file, **options):
        tensors, header = load(file, **options)
        most.append(sum(each() is not None for each in alive))
        alive.append(weakref.ref(tensors["w"]))
        return tensors, header

    monkeypatch.setattr(posthoc_ema.weights, "load", watched)
    average = built(folder, 0.07)
    assert len(most) == len(average.used) > 10 and max(most) == 0


def test_averages_are_listed_by_step_and_length_and_named_so(folder):
    found = stored_in(folder)
    assert [(each.step, each.length) for each in found] == [(step, length) for step in range(EVERY, STEPS + 1, EVERY) for length in LENGTHS]
    assert found[0].path.name == "000000128-0.050.safetensors"


@pytest.mark.parametrize(
    ("length", "step", "said"),
    [
        (0.5, None, "length=0.5 is no length"),
        (0.08, 1, "outside of the averages in .*, which are of steps 128 to 2048"),
        (0.08, 2049, "outside of the averages"),
        (0.002, None, r"length=0\.002 cannot be built from the 32 averages"),
    ],
)
def test_what_cannot_be_built_is_said(folder, length, step, said):
    with pytest.raises(ConfigError, match=said):
        built(folder, length, step)


def test_files_of_others_and_of_other_networks_are_refused(tmp_path):
    PowerAverages({"w": torch.zeros(3)}, ["w"]).write(tmp_path, 100, {"kind": "diffusion"})
    PowerAverages({"w": torch.zeros(4)}, ["w"]).write(tmp_path, 200, {"kind": "diffusion"})
    with pytest.raises(MismatchError, match=r"000000200-0\.050\.safetensors holds another network"):
        built(tmp_path, 0.08)
    weights.save(tmp_path / "model.safetensors", {"w": torch.zeros(3)}, {"kind": "diffusion", "step": 5})
    with pytest.raises(MismatchError, match=r"model\.safetensors is not a stored average"):
        stored_in(tmp_path)


# -- the command -----------------------------------------------------------------


@pytest.fixture(scope="module")
def stored_run(tmp_path_factory):
    """A folder with runs/ldm in it: averages of a real network each 10 steps up to 60. Read only."""
    folder = tmp_path_factory.mktemp("stored")
    unet = {"type": "unet", "widths": [8], "layers": 1, "norm_groups": 4, "attention": [False], "head_dim": 8}
    described = describe_network(plugin_config("denoiser", unet), None, latent=(4, 8, 8), classes=[])
    network = build_network(described)
    averages = PowerAverages(network.state_dict(), [name for name, _ in network.named_parameters()])
    for step in range(1, 61):
        averages.update(step, {name: value + 0.01 * step for name, value in network.state_dict().items()})
        if step % 10 == 0:
            averages.write(folder / "runs/ldm/averages", step, {"kind": "diffusion", **HEADER, **described})
    return folder


@pytest.fixture
def ldm(stored_run, tmp_path, monkeypatch):
    """The current folder with a copy of runs/ldm in it -> runs/ldm."""
    shutil.copytree(stored_run / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs" / "ldm"


def test_the_command_writes_a_snapshot_that_sample_finds_and_says_so(ldm, capfd):
    assert run(["ema", "--run", "runs/ldm", "--length", "0.08"]) == 0
    said = capfd.readouterr().err
    assert "runs/ldm/snapshots/ema-0.080.safetensors" in said and "stored ones: 0000000" in said
    assert "ldmctl sample --run runs/ldm@ema-0.080" in said
    file = model_file("runs/ldm@ema-0.080", verb="fit-diffusion")
    assert file.resolve() == ldm / "snapshots" / "ema-0.080.safetensors"
    network, header, _ = load_network(file, Engine(torch.device("cpu"), torch.float32))
    assert (header["step"], header["length"]) == (60, 0.08)
    low, high = (weights.load(ldm / "averages" / f"000000060-{length:.3f}.safetensors")[0] for length in (0.10, 0.05))
    for name, value in network.state_dict().items():  # weights rise with the step, so a longer average is lower
        assert bool((low[name] < value).all()) and bool((value < high[name]).all()), name


def test_the_command_prints_one_object_when_asked(ldm, capfd):
    assert run(["ema", "--length", "0.1", "--step", "40", "--json", "-q"]) == 0
    out, err = capfd.readouterr()
    assert err == "" and out.count("\n") == 1
    told = json.loads(out)
    assert told["model"] == "runs/ldm/snapshots/ema-0.100-000000040.safetensors" and told["step"] == 40
    assert told["built_from"] == {"000000040-0.100.safetensors": pytest.approx(1)} and told["misfit"] < 1e-6
    assert told["sample"] == f"ldmctl sample --run {told['run']}" and model_file(told["run"], verb="fit-diffusion").exists()


def test_a_file_of_ones_own_name_is_written_there(ldm, capfd):
    assert run(["ema", "--length", "0.12", "--out", "mine/model.safetensors"]) == 0
    assert weights.read_header(ldm.parent.parent / "mine" / "model.safetensors")["length"] == 0.12
    assert "ldmctl sample" not in capfd.readouterr().err


def test_a_length_that_is_only_come_near_to_is_warned_of(ldm, capfd):
    assert run(["ema", "--length", "0.025", "-q"]) == 0
    assert "only come near to this length" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--run", "runs/other", "--length", "0.08"], 6, "There is no run folder runs/other"),
        (["--run", "runs", "--length", "0.08"], 6, "loop.keep.averages=N stores them"),
        (["--length", "0.4"], 2, "length=0.4 is no length of a power average"),
        (["--length", "0.08", "--step", "61"], 2, "steps 10 to 60"),
        ([], 2, "--length"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_with_its_exit_code(ldm, capfd, words, code, said):
    assert run(["ema", *words]) == code
    told = capfd.readouterr().err
    assert said in told and "Traceback" not in told
    assert not (ldm / "snapshots").exists()


def test_snapshots_are_named_by_length_and_by_a_step_that_was_asked_for():
    assert snapshot_name(0.08) == "ema-0.080" and snapshot_name(0.0755) == "ema-0.0755"
    assert snapshot_name(0.1, 5000) == "ema-0.100-000005000"
