"""What every training stage stands on: rates, order, one honest optimizer step, averages, a state that comes back bit for bit."""

import math

import pytest
import torch
from torch import nn

from ldmctl.config.schemas.shared import Loop, Machine
from ldmctl.errors import ConfigError, MismatchError, MissingError
from ldmctl.training import compiling, order
from ldmctl.training import engine as engines
from ldmctl.training.engine import Engine
from ldmctl.training.learner import Learner, learning_rate
from ldmctl.training.order import batch_items, epoch_order, micro_batches

CPU = Engine(torch.device("cpu"), torch.float32)


class Small(nn.Module):
    """Two layers, a frozen weight, and buffers of both kinds."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 5)
        self.last = nn.Linear(5, 2)
        self.fixed = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("level", torch.zeros(2))

    def forward(self, x):
        return self.last(torch.tanh(self.first(x))) * self.fixed


def small(dtype=torch.float32):
    torch.manual_seed(0)
    return Small().to(dtype)


def batch(rows=12, dtype=torch.float32):
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(1), dtype=dtype)


def learn(learner, x, step, micro=None):
    """One optimizer step as the stages make it."""
    for rows in micro_batches(len(x), micro):
        share = (rows.stop - rows.start) / len(x)
        (learner.network(x[rows]).square().mean() * learner.scale * share).backward()
    norm, bad = learner.update(step)
    learner.track(step)
    return float(norm), float(bad)


def bits(state):
    return {name: value.clone() for name, value in state.items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# -- learning rates ----------------------------------------------------------------


@pytest.mark.parametrize("decay", ["constant", "cosine", "inverse-sqrt"])
def test_the_rate_rises_in_equal_steps_to_its_peak(decay):
    loop = Loop(lr=1.0, warmup=4, steps=100, decay=decay)
    assert [learning_rate(loop, step) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_known_rates_after_the_warm_up():
    constant = Loop(lr=2.0, warmup=10, steps=110)
    cosine = constant.model_copy(update={"decay": "cosine"})
    root = constant.model_copy(update={"decay": "inverse-sqrt"})
    assert learning_rate(constant, 10_000) == 2.0
    assert [learning_rate(cosine, 10 + done) for done in (0, 25, 50, 100)] == pytest.approx([2, 1 + math.sqrt(0.5), 1, 0])
    assert learning_rate(cosine, 10_000) == pytest.approx(0)
    assert [learning_rate(root, step) for step in (10, 40, 90, 1000)] == pytest.approx([2, 1, 2 / 3, 0.2])


@pytest.mark.parametrize("decay", ["constant", "cosine", "inverse-sqrt"])
def test_without_warm_up_the_first_step_has_the_full_rate(decay):
    loop = Loop(lr=3.0, warmup=0, steps=50, decay=decay)
    assert learning_rate(loop, 0) == pytest.approx(3.0)
    assert all(0 <= learning_rate(loop, step) <= 3 for step in range(60))


def test_another_rate_for_a_second_network_keeps_the_shape_of_the_schedule():
    loop = Loop(lr=1e-3, warmup=4)
    learner = Learner(small(), loop, CPU, lr=4e-3)
    learn(learner, batch(), 1)
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(4 * learning_rate(loop, 1))


# -- order -------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(10, 3), (10, 10), (7, 16), (1, 4), (12, 4)])
def test_every_epoch_visits_every_item_once(count, size):
    stream = torch.cat([batch_items(5, count, size, step) for step in range(3 * count)])
    assert len(stream) == 3 * count * size
    for epoch in stream[: 3 * size * count].view(-1, count):
        assert sorted(epoch.tolist()) == list(range(count))


def test_the_items_of_a_step_do_not_depend_on_what_was_asked_before():
    forwards = [batch_items(3, 11, 4, step) for step in range(30)]
    for step in (29, 0, 17, 17, 4):
        epoch_order.cache_clear()
        assert torch.equal(batch_items(3, 11, 4, step), forwards[step])
    state = torch.get_rng_state()
    batch_items(3, 11, 4, 100)
    assert torch.equal(torch.get_rng_state(), state), "order draws nothing from the global generator"


def test_seeds_and_epochs_have_orders_of_their_own():
    orders = [tuple(epoch_order(seed, epoch, 20).tolist()) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4


def test_a_seed_is_the_same_on_every_machine():
    assert order.seed_of("noise", 0, 7) == 4816597801398858322
    assert order.seed_of("noise", 0, 7) != order.seed_of("noise", 7, 0)
    assert 0 <= order.seed_of() < 2**63


def test_ranks_share_a_batch_without_gap_or_overlap():
    ranks = [Engine(CPU.device, CPU.dtype, rank=rank, world=3) for rank in range(3)]
    assert [row for rank in ranks for row in range(12)[rank.share(12)]] == list(range(12))
    assert [rank.leads for rank in ranks] == [True, False, False]


def test_a_batch_that_ranks_cannot_share_is_a_config_error():
    with pytest.raises(ConfigError, match=r"loop\.batch=8 cannot be shared by 3 devices; take a multiple of 3"):
        Engine(CPU.device, CPU.dtype, world=3).share(8)


@pytest.mark.parametrize(("count", "micro"), [(12, None), (12, 1), (12, 5), (12, 12), (12, 100)])
def test_micro_batches_cover_the_batch_in_order(count, micro):
    slices = micro_batches(count, micro)
    assert [row for rows in slices for row in range(count)[rows]] == list(range(count))
    assert len(slices) == math.ceil(count / (micro or count)) and max(rows.stop - rows.start for rows in slices) <= (micro or count)


# -- one step ------------------------------------------------------------------------


def test_micro_batches_are_of_one_size_where_that_can_be():
    assert [rows.stop - rows.start for rows in micro_batches(96, 64)] == [48, 48]
    assert [rows.stop - rows.start for rows in micro_batches(10, 4)] == [4, 4, 2]
    assert [rows.stop - rows.start for rows in micro_batches(8, None)] == [8]


@pytest.mark.parametrize(
    ("lost", "said"), [("triton", "the package triton"), ("compiler", "a C compiler"), ("header", "the header Python.h"), (None, None)]
)
def test_what_cuda_lacks_to_compile_is_named_and_auto_does_without(monkeypatch, tmp_path, lost, said):
    (tmp_path / "Python.h").touch()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compiling, "find_spec", lambda _: None if lost == "triton" else object())
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None if lost == "compiler" or name != "gcc" else "/usr/bin/gcc")
    monkeypatch.setattr(compiling.sysconfig, "get_paths", lambda: {"include": str(tmp_path / "none" if lost == "header" else tmp_path)})
    cuda = Engine(torch.device("cuda"), torch.bfloat16)
    assert compiling.compiles("auto", cuda) == (lost is None)
    if lost is None:
        assert compiling.lacking_to_compile(cuda) is None and compiling.compiles(True, cuda)
    else:
        with pytest.raises(MissingError, match=f"machine.compile=true needs {said}"):
            compiling.compiles(True, cuda)


@pytest.mark.parametrize("micro", [1, 3, 4, 5])
def test_micro_batches_change_nothing_that_is_learned(micro):
    loop = Loop(lr=1e-2, warmup=1)
    whole, parts = (Learner(small(torch.float64), loop, CPU) for _ in range(2))
    for step in range(5):
        norms = learn(whole, batch(dtype=torch.float64), step)[0], learn(parts, batch(dtype=torch.float64), step, micro)[0]
        assert norms[0] == pytest.approx(norms[1], rel=1e-12)
    for name, value in whole.module.state_dict().items():
        torch.testing.assert_close(parts.module.state_dict()[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_step_whose_gradient_is_not_finite_changes_nothing(poison):
    learner = Learner(small(), Loop(lr=1e-2, warmup=1), CPU)
    learn(learner, batch(), 0)
    before = bits(learner.state("model"))
    x = batch()
    x[3, 1] = poison
    _, bad = learn(learner, x, 1)
    assert bad == 1.0
    after = learner.state("model")
    trained = {name for name in before if "average" not in name}
    assert same({name: before[name] for name in trained}, {name: after[name] for name in trained})
    assert all(value.isfinite().all() for value in after.values())
    assert learn(learner, batch(), 2)[1] == 0.0 and not same(before, learner.state("model"))


def test_the_first_step_may_be_the_bad_one():
    learner = Learner(small(), Loop(warmup=1), CPU)
    before = bits(learner.module.state_dict())
    assert learn(learner, batch() * float("nan"), 0)[1] == 1.0
    assert same(before, learner.module.state_dict())


def test_a_long_gradient_is_cut_to_the_largest_norm():
    learner = Learner(small(), Loop(clip=0.5, warmup=1), CPU)
    (learner.network(batch()).square().mean() * 1000).backward()
    taken = []
    learner.optimizer.register_step_pre_hook(lambda *_: taken.append(nn.utils.get_total_norm([p.grad for p in learner.parameters])))
    norm, _ = learner.update(0)
    assert norm > 5 and float(taken[0]) == pytest.approx(0.5, rel=1e-4)


def test_without_clip_the_gradient_is_taken_as_it_is():
    learner = Learner(small(), Loop(clip=None, warmup=1), CPU)
    (learner.network(batch()).square().mean() * 1000).backward()
    given = [p.grad.clone() for p in learner.parameters]
    taken = []
    learner.optimizer.register_step_pre_hook(lambda *_: taken.extend(p.grad.clone() for p in learner.parameters))
    learner.update(0)
    assert all(torch.equal(one, other) for one, other in zip(given, taken, strict=True))


def test_gradients_do_not_pile_up_over_steps():
    learner = Learner(small(), Loop(lr=1e-12, warmup=1, clip=None), CPU)
    norms = [learn(learner, batch(), step)[0] for step in range(3)]
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-4)


# -- averages --------------------------------------------------------------------------


def test_the_average_has_the_known_value():
    learner = Learner(small(), Loop(ema=0.3), CPU)
    expected = learner.module.first.weight.detach().clone()
    for step in range(8):
        with torch.no_grad():
            learner.module.first.weight.fill_(step)
        learner.track(step)
        decay = min(0.3, (1 + step) / (10 + step))  # 0.1, 0.18, 0.25, 0.3, 0.3, ...
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(learner.average["first.weight"], expected)


def test_buffers_and_frozen_weights_are_copied_into_the_average():
    learner = Learner(small(), Loop(ema=0.9999), CPU)
    with torch.no_grad():
        learner.module.seen += 7
        learner.module.level += 0.5
        learner.module.fixed += 2
    learner.track(1000)
    assert learner.average["seen"] == 7 and learner.average["seen"].dtype == torch.int64
    assert learner.average["level"].tolist() == [0.5, 0.5] and learner.average["fixed"].tolist() == [3, 3]


def test_what_was_made_anew_is_copied_and_not_averaged():
    learner = Learner(small(), Loop(ema=0.9), CPU)
    with torch.no_grad():
        learner.module.first.weight.fill_(5)
        learner.module.last.weight.fill_(5)
    learner.track(1000, renewed=["first.weight"])
    assert (learner.average["first.weight"] == 5).all()
    assert (learner.average["last.weight"] < 1).all()


def test_the_trained_weights_come_back_after_a_look_at_the_average():
    learner = Learner(small(), Loop(lr=0.1, warmup=1), CPU)
    for step in range(3):
        learn(learner, batch(), step)
    learner.module.train()
    before, kept = bits(learner.module.state_dict()), bits(learner.average)
    with learner.averaged() as averaged:
        assert not averaged.training
        assert same(averaged.state_dict(), learner.average) and not same(before, learner.average)
    assert same(learner.module.state_dict(), before) and learner.module.training
    with pytest.raises(ZeroDivisionError), learner.averaged():
        raise ZeroDivisionError
    assert same(learner.module.state_dict(), before) and same(learner.average, kept)


def test_without_an_average_the_trained_weights_are_shown():
    learner = Learner(small(), Loop(), CPU, averaged=False)
    with learner.averaged() as averaged:
        assert torch.equal(averaged.first.weight, learner.module.first.weight)


# -- state -----------------------------------------------------------------------------


def test_a_restored_learner_goes_on_bit_for_bit():
    loop = Loop(lr=1e-2, warmup=3)
    one = Learner(small(), loop, CPU)
    for step in range(4):
        learn(one, batch(), step)
    saved = bits(one.state("model"))
    other = Learner(Small(), loop, CPU)
    other.restore("model", saved | {"critic.weights.first.weight": torch.zeros(1)})
    assert same(saved, other.state("model"))
    for step in range(4, 8):
        learn(one, batch(), step)
        learn(other, batch(), step)
    assert same(one.state("model"), other.state("model"))


def test_the_state_of_another_network_is_refused():
    state = Learner(small(), Loop(), CPU).state("model")
    with pytest.raises(MismatchError, match="The saved state is of another model"):
        Learner(nn.Linear(3, 5), Loop(), CPU).restore("model", state)


# -- precision and device ------------------------------------------------------------------


def test_half_precision_is_refused_where_it_cannot_work():
    with pytest.raises(ConfigError, match=r"machine\.precision=fp16 is for GPUs; on a CPU take bf16 or fp32"):
        engines.start(Machine(device="cpu", precision="fp16"))


def test_a_device_that_is_not_there_is_a_config_error():
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(ConfigError, match=f"machine.device={missing}, but torch .* sees no such device here"):
        engines.start(Machine(device=missing))


def test_autocast_surrounds_networks_in_bf16_only():
    layer = nn.Linear(2, 2)
    with engines.start(Machine(device="cpu", precision="bf16")).autocast():
        assert layer(torch.ones(1, 2)).dtype == torch.bfloat16
    with engines.start(Machine(device="cpu", precision="fp32")).autocast():
        assert layer(torch.ones(1, 2)).dtype == torch.float32
