"""A codebook that does not die: its search, its ways of learning, revival, k-means, and that shares of a batch change nothing."""

import copy
import os

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, multiprocessing, nn

from ldmctl.blocks import Codebook, k_means, nearest_codes
from ldmctl.blocks.nearest import CPU_TILE, NARROWEST, width_of
from ldmctl.config.schemas.shared import Loop
from ldmctl.training.engine import Engine
from ldmctl.training.learner import Learner


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rows_of(features: Tensor) -> Tensor:
    return features.movedim(1, -1).flatten(0, -2)


def as_map(rows: Tensor) -> Tensor:
    """[N,c] -> [1,c,N,1]."""
    return rows.T[None, :, :, None]


def step(codebook: Codebook, features: Tensor, micro: int | None = None) -> dict[str, Tensor]:
    for part in features.split(micro or len(features)):
        codebook(part)
    return codebook.after_step()


# -- the search ----------------------------------------------------------------


def distances(rows: Tensor, codes: Tensor) -> Tensor:
    return (rows.double()[:, None] - codes.double()[None]).square().sum(2)


@pytest.mark.parametrize("offset", [0.0, 100.0, -3000.0])
@pytest.mark.parametrize(("count", "size", "width"), [(300, 512, 4), (70, 1, 3), (65, 33, 5), (1, 100, 2), (500, 31, 64)])
def test_the_nearest_code_is_that_of_a_search_in_float64(count, size, width, offset):
    rows, codes = draw(count, width) + offset, draw(size, width, seed=1) + offset
    gaps = distances(rows, codes)
    found = nearest_codes(rows, codes, tile=2048)
    assert found.shape == (count,) and found.dtype == torch.int64
    lost = (gaps.gather(1, found[:, None])[:, 0] - gaps.amin(1)) / gaps.amin(1).clamp(min=1)
    assert lost.max() < 1e-5 * width  # else two codes are equally near as far as float32 can tell
    assert (found == gaps.argmin(1)).double().mean() > 0.99


@pytest.mark.parametrize("tile", [1, 2**12, 2**14, 2**20])
def test_whole_numbers_give_exactly_the_codes_of_a_search_in_float64_ties_included(tile):
    rows, codes = draw(999, 3).mul(4).round(), draw(100, 3, seed=1).mul(4).round()
    codes = torch.cat([codes, -codes])  # whose mean is 0
    assert (distances(rows, codes).topk(2, largest=False).values.diff() == 0).sum() > 100
    assert torch.equal(nearest_codes(rows, codes, tile=tile), distances(rows, codes).argmin(1))


@pytest.mark.parametrize("size", [7, 31, 32, 33, 100])
def test_of_equal_codes_the_first_is_found(size):
    codes = draw(size, 4) + 10
    rows = draw(200, 4, seed=1) + 10
    assert torch.equal(nearest_codes(rows, codes.repeat(9, 1)), nearest_codes(rows, codes))


def test_the_search_holds_a_tile_of_scores_whatever_the_number_of_features():
    for size in (2, 512, 8192):
        assert NARROWEST * size <= width_of(size, CPU_TILE) * size <= CPU_TILE
    assert width_of(2**20, CPU_TILE) == NARROWEST
    assert 10 * 4 * CPU_TILE < 4 * 65_536 * 8192  # bytes beside those of all distances


def test_autocast_does_not_blur_the_search():
    codebook = Codebook(512, 4)
    features = draw(2, 4, 30, 30) / 512
    codes = codebook.nearest(features)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codebook.nearest(features), codes)
        assert torch.equal(codebook(features).latent, codebook.lookup(codes))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_features_that_are_not_finite_get_some_code(wrong):
    rows = draw(40, 3)
    rows[::2, 1] = wrong
    codes = draw(33, 3, seed=1)
    found = nearest_codes(rows, codes)
    assert found.max() < 33 and found.min() >= 0
    assert torch.equal(found[1::2], nearest_codes(rows[1::2], codes))


# -- gradients -----------------------------------------------------------------


@pytest.mark.parametrize("gradient", ["straight-through", "rotation"])
@pytest.mark.parametrize("unit_length", [False, True])
def test_the_latent_is_exactly_the_nearest_codes(gradient, unit_length):
    codebook = Codebook(8, 3, gradient=gradient, unit_length=unit_length)
    features = draw(2, 3, 4, 4)
    codes = codebook.nearest(features)
    for latent in (codebook(features).latent, codebook.quantize(features)):
        assert torch.equal(latent, codebook.lookup(codes))


def test_gradient_passes_straight_through_the_codes():
    features, slope = draw(2, 3, 4, 4).requires_grad_(), draw(2, 3, 4, 4, seed=1)
    latent = Codebook(8, 3)(features).latent
    assert torch.equal(torch.autograd.grad(latent, features, slope)[0], slope)


def test_the_rotation_turns_the_gradient_with_the_code():
    codebook = Codebook(8, 5, gradient="rotation")
    nn.init.normal_(codebook.embedding.weight)
    features, slope = draw(2, 5, 4, 4).requires_grad_(), draw(2, 5, 4, 4, seed=1)
    latent = codebook(features).latent
    (gradient,) = torch.autograd.grad(latent, features, slope)
    ratio = latent.norm(dim=1) / features.norm(dim=1)
    torch.testing.assert_close(gradient.norm(dim=1), ratio * slope.norm(dim=1))
    torch.testing.assert_close(F.cosine_similarity(gradient, features), F.cosine_similarity(slope, latent), atol=1e-5, rtol=1e-4)


def test_the_rotation_of_a_quarter_turn_is_the_known_one():
    codebook = Codebook(2, 2, gradient="rotation")
    codebook.load_state_dict({"embedding.weight": torch.tensor([[0.0, 2.0], [-50.0, -50.0]])})
    features = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).requires_grad_()
    slope = torch.tensor([3.0, 5.0]).view(1, 2, 1, 1)
    (gradient,) = torch.autograd.grad(codebook(features).latent, features, slope)
    # (1, 0) became (0, 2), so along the code (5) is along the feature, and to its left (-3) stays to its left; twice as long.
    torch.testing.assert_close(gradient.flatten(), torch.tensor([10.0, -6.0]))


@pytest.mark.parametrize("codes", [torch.zeros(2, 3), torch.eye(3)[:2]])
def test_the_rotation_is_finite_at_features_and_codes_of_length_0_and_opposite_ones(codes):
    codebook = Codebook(2, 3, gradient="rotation")
    codebook.load_state_dict({"embedding.weight": codes})
    features = as_map(torch.tensor([[0.0, 0, 0], [-1, 0, 0], [-1, -1, 0]])).requires_grad_()
    latent = codebook(features).latent
    (gradient,) = torch.autograd.grad(latent.sum(), features)
    assert latent.isfinite().all() and gradient.isfinite().all()


# -- directions ----------------------------------------------------------------


def test_directions_do_not_see_the_length_of_features_and_codes():
    codebook, features = Codebook(16, 3, unit_length=True), draw(2, 3, 5, 5)
    said = codebook(features)
    louder = codebook(1000 * features)
    assert torch.equal(louder.codes, said.codes) and torch.equal(louder.latent, said.latent)
    torch.testing.assert_close(louder.commitment, said.commitment)
    torch.testing.assert_close(said.latent.norm(dim=1), torch.ones(2, 5, 5))
    with torch.no_grad():
        codebook.embedding.weight[3] *= 1000
    assert torch.equal(codebook.nearest(features), said.codes)


def test_the_nearest_direction_has_the_largest_cosine():
    codebook, features = Codebook(16, 3, unit_length=True), draw(2, 3, 5, 5)
    cosines = F.cosine_similarity(rows_of(features)[:, None], codebook.embedding.weight[None], dim=2)
    assert torch.equal(codebook.nearest(features).flatten(), cosines.argmax(1))


# -- moving averages -----------------------------------------------------------

CENTRES = torch.tensor([[4.0, 4.0], [-4.0, 4.0], [-4.0, -4.0], [4.0, -4.0]])


def crowd(number: int = 64, seed: int = 0, spread: float = 0.3) -> Tensor:
    """[4 * number,2,1,1]: points around four centres."""
    points = CENTRES.repeat_interleave(number, 0) + spread * draw(4 * number, 2, seed=seed)
    return points[torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))][:, :, None, None]


def test_moving_averages_are_those_of_the_paper():
    codebook = Codebook(2, 1, learning="ema", decay=0.75, revive=0)
    codebook.load_state_dict(
        {
            "embedding.weight": torch.tensor([[1.0], [10.0]]),
            "counts": torch.tensor([2.0, 4.0]),
            "sums": torch.tensor([[2.0], [40.0]]),
            "uses": torch.zeros(2, dtype=torch.int64),
            "steps": torch.tensor(7),
        }
    )
    step(codebook, as_map(torch.tensor([[2.0], [3.0], [3.0], [9.0]])))
    torch.testing.assert_close(codebook.counts, torch.tensor([0.75 * 2 + 0.25 * 3, 0.75 * 4 + 0.25]))
    torch.testing.assert_close(codebook.sums, torch.tensor([[0.75 * 2 + 0.25 * 8], [0.75 * 40 + 0.25 * 9]]))
    torch.testing.assert_close(codebook.embedding.weight.data, codebook.sums / codebook.counts[:, None])


def test_moving_averages_come_to_the_means_of_their_clusters():
    codebook = Codebook(4, 2, learning="ema", decay=0.9, revive=0)
    codebook.embedding.weight.data = CENTRES / 4
    batches = [crowd(seed=seed) for seed in range(60)]
    for batch in batches:
        step(codebook, batch)
    every = torch.stack([rows_of(batch) for batch in batches])
    weight = 0.9 ** torch.arange(59.0, -1, -1)
    own = torch.cdist(every, CENTRES).argmin(2)
    for code in range(4):
        mine = (own == code) * weight[:, None]
        torch.testing.assert_close(codebook.embedding.weight[code], (mine[:, :, None] * every).sum((0, 1)) / mine.sum(), atol=1e-4, rtol=0)
        torch.testing.assert_close(codebook.embedding.weight[code], CENTRES[code], atol=0.05, rtol=0)


def test_a_code_without_features_stays_where_it_is():
    codebook = Codebook(3, 2, learning="ema", revive=0)
    codebook.load_state_dict({"embedding.weight": torch.tensor([[1 / 3, 0.1], [90.0, 90.0], [0.0, 0.0]])})
    before = codebook.embedding.weight.clone()
    for _ in range(1000):
        step(codebook, torch.zeros(1, 2, 1, 1))
    assert torch.equal(codebook.embedding.weight[:2], before[:2])


# -- revival -------------------------------------------------------------------


def lost_code(revive: int, **keys: object) -> Codebook:
    """A codebook past its first steps whose code 0 is far from every feature."""
    codebook = Codebook(4, 2, revive=revive, **keys)
    weight = torch.tensor([[99.0, 99.0], [1, 0], [0, 1], [-1, -1]])
    codebook.load_state_dict({"embedding.weight": weight})
    codebook.steps.fill_(10 * revive)
    codebook._forget()
    return codebook


def test_an_unused_code_comes_back_to_life_and_says_so():
    codebook, features = lost_code(revive=3), draw(8, 2, 4, 4)
    said = []
    for _ in range(3):
        before = codebook.embedding.weight.clone()
        said.append(step(codebook, features))
    assert [{name: rows.tolist() for name, rows in each.items()} for each in said] == [{}, {}, {"embedding.weight": [0]}]
    assert torch.equal(codebook.embedding.weight[1:], before[1:])
    assert torch.cdist(codebook.embedding.weight[:1], rows_of(features)).min() < 0.1
    assert (codebook.nearest(features) == 0).any()


def test_a_revived_code_survives_the_next_update_of_the_moving_averages():
    codebook, features = lost_code(revive=3, learning="ema"), draw(8, 2, 4, 4)
    while not step(codebook, features):
        pass
    revived = codebook.embedding.weight[0].clone()
    assert revived.abs().max() < 10
    assert codebook.counts[0] == 1 and torch.equal(codebook.sums[0], revived)
    step(codebook, torch.full((1, 2, 1, 1), -9.0))
    assert torch.equal(codebook.embedding.weight[0], revived)  # unused again: where it was put
    step(codebook, as_map(revived[None] + 0.01))
    assert 0 < (codebook.embedding.weight[0] - revived).abs().max() < 0.001  # used: moved a little, not back to 99


@pytest.mark.parametrize("learning", ["gradient", "ema"])
def test_a_revived_code_survives_the_average_of_weights(learning):
    codebook, features = lost_code(revive=2, learning=learning), draw(8, 2, 4, 4)
    module = nn.ModuleDict({"layer": nn.Conv2d(2, 2, 1), "quantize": codebook})
    learner = Learner(module, Loop(ema=0.999), Engine(torch.device("cpu"), torch.float32))
    step(codebook, features)
    learner.track(5000)
    renewed = {f"quantize.{name}": rows for name, rows in step(codebook, features).items()}
    with torch.no_grad():
        module["layer"].weight += 1
    learner.track(5001, renewed)
    assert {name: rows.tolist() for name, rows in renewed.items()} == {"quantize.embedding.weight": [0]}
    assert torch.equal(learner.average["quantize.embedding.weight"][0], codebook.embedding.weight[0])
    assert (learner.average["layer.weight"] - module["layer"].weight).abs().min() > 0.9
    with learner.averaged():
        assert (codebook.nearest(features) == 0).any()


@pytest.mark.parametrize("powers", [0, 1])
@pytest.mark.parametrize("revived", [[], [0]])
def test_codes_that_learn_by_gradient_are_averaged_with_the_other_weights_but_for_those_that_are_revived(revived, powers):
    codebook = lost_code(revive=0)
    learner = Learner(
        nn.ModuleDict({"quantize": codebook}), Loop(ema=0.75, keep={"averages": powers}), Engine(torch.device("cpu"), torch.float32)
    )
    before = codebook.embedding.weight.detach().clone()
    with torch.no_grad():
        codebook.embedding.weight += 1
    learner.track(1000, {"quantize.embedding.weight": torch.tensor(revived, dtype=torch.long)})
    found = learner.average["quantize.embedding.weight"]
    torch.testing.assert_close(found[1:], before[1:] + 0.25)
    torch.testing.assert_close(found[0], before[0] + (1 if revived else 0.25))
    for average in learner.powers.averages.values() if powers else ():
        gained = average["quantize.embedding.weight"] - before
        assert (gained[1:] < 0.1).all() and (gained[0] == 1).all() == bool(revived)


def trained(revive: int, **keys: object) -> int:
    """How many of 32 codes are in use after a small encoder and its codes have learned to tell points in a square."""
    torch.manual_seed(0)
    encoder, decoder, codebook = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), Codebook(32, 2, revive=revive, **keys)
    parts = nn.ModuleList([encoder, decoder, codebook])
    nn.init.constant_(encoder.bias, 3.0)  # far from where codes begin, as features of a deep encoder may be
    optimizer = torch.optim.Adam([each for each in parts.parameters() if each.requires_grad], lr=3e-3)
    for number in range(150):
        points = torch.rand(64, 2, 2, 2, generator=torch.Generator().manual_seed(number)) * 2 - 1
        said = codebook(encoder(points))
        loss = (decoder(said.latent) - points).square().mean() + 0.25 * said.commitment
        if codebook.embedding.weight.requires_grad:
            loss = loss + said.codebook
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        codebook.after_step()
    with torch.no_grad():
        points = torch.rand(1024, 2, 2, 2, generator=torch.Generator().manual_seed(999)) * 2 - 1
        return int((codebook(encoder(points)).counts > 0).sum())


@pytest.mark.parametrize("learning", ["gradient", "ema"])
def test_a_codebook_that_collapses_without_revival_does_not_with_it(learning):
    assert trained(revive=0, learning=learning) <= 2
    assert trained(revive=25, learning=learning) >= 24


def test_a_code_used_in_any_micro_batch_of_the_period_stays():
    codebook = lost_code(revive=2)
    codebook(torch.full((1, 2, 1, 1), 99.0))
    codebook(draw(8, 2, 4, 4))  # the second micro-batch of the same step
    assert codebook.after_step() == {}
    assert step(codebook, draw(8, 2, 4, 4)) == {}
    assert codebook.embedding.weight[0].tolist() == [99.0, 99.0]


@pytest.mark.parametrize("keys", [{}, {"learning": "ema"}])
def test_features_that_are_not_finite_never_become_codes(keys):
    codebook = lost_code(revive=1, **keys)
    features = draw(4, 2, 2, 2)
    features[:2] = float("nan")
    for _ in range(3):
        step(codebook, features)
    step(codebook, torch.full((2, 2, 1, 1), float("inf")))
    assert all(value.isfinite().all() for value in codebook.state_dict().values())


def test_only_training_counts_as_use():
    codebook = lost_code(revive=1)
    codebook.eval()(draw(2, 2, 1, 1))
    with torch.no_grad():
        codebook.train()(draw(2, 2, 1, 1))
    assert codebook.after_step() == {}
    assert codebook.steps == 10


def test_what_was_seen_before_a_state_is_loaded_is_forgotten():
    codebook = lost_code(revive=1)
    saved = copy.deepcopy(codebook.state_dict())
    codebook(draw(2, 2, 1, 1))  # as in a probe
    codebook.load_state_dict(saved)
    assert codebook.after_step() == {} and codebook.steps == 10


# -- k-means -------------------------------------------------------------------


def test_k_means_finds_the_centres():
    clusters = k_means(rows_of(crowd(spread=0.05)), 4, torch.Generator().manual_seed(0))
    order = torch.cdist(CENTRES, clusters.centres).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2, 3] and clusters.sizes.tolist() == [64] * 4
    torch.testing.assert_close(clusters.centres[order], CENTRES, atol=0.2, rtol=0)


def test_k_means_of_fewer_points_than_centres_keeps_every_point():
    points = draw(5, 2)
    clusters = k_means(points, 8, torch.Generator().manual_seed(0))
    assert clusters.centres.shape == (8, 2) and clusters.sizes.sum() == 5
    assert torch.cdist(points, clusters.centres).amin(1).max() < 1e-5


@pytest.mark.parametrize("learning", ["gradient", "ema"])
def test_k_means_places_the_codes_on_clusters_after_its_last_step(learning):
    codebook = Codebook(4, 2, kmeans=3, revive=0, learning=learning)
    said = [step(codebook, crowd(32, seed=seed, spread=0.05)) for seed in range(4)]
    assert [{name: rows.tolist() for name, rows in each.items()} for each in said] == [{}, {}, {"embedding.weight": [0, 1, 2, 3]}, {}]
    torch.testing.assert_close(codebook.embedding.weight[codebook.nearest(as_map(CENTRES)).flatten()].data, CENTRES, atol=0.1, rtol=0)
    if learning == "ema":
        torch.testing.assert_close(codebook.counts, torch.full((4,), 32.0))


def test_k_means_of_directions_has_directions():
    codebook = Codebook(4, 2, kmeans=1, unit_length=True)
    step(codebook, crowd(spread=0.05) * torch.rand(256, 1, 1, 1, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(codebook.embedding.weight.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(codebook.lookup(codebook.nearest(as_map(CENTRES))), as_map(CENTRES / 32**0.5), atol=0.05, rtol=0)


def test_k_means_looks_at_equal_numbers_of_features_from_each_step_and_at_bounded_ones():
    codebook = Codebook(2, 2, kmeans=4, revive=0)
    assert codebook.gathered.shape == (256, 2)
    for number in range(3):
        step(codebook, torch.full((1000, 2, 1, 1), float(number)))
    assert codebook.filled == 192 and codebook.gathered[:192, 0].tolist() == [0.0] * 64 + [1.0] * 64 + [2.0] * 64
    assert Codebook(8192, 4, kmeans=1).gathered.shape == (2**17, 4)


# -- shares and restarts -------------------------------------------------------

WAYS = [
    {"revive": 4},
    {"revive": 4, "learning": "ema"},
    {"revive": 4, "kmeans": 3},
    {"revive": 4, "kmeans": 3, "learning": "ema", "unit_length": True, "decay": 0.9},
]
each_way = pytest.mark.parametrize("keys", WAYS, ids="-".join)


def run(keys: dict[str, object], share: slice = slice(None), micro: int | None = None, restart_at: int | None = None) -> dict[str, Tensor]:
    """The state of a codebook after nine steps of a batch of 8, of which this rank sees a share; codes are not trained by gradient."""
    torch.manual_seed(0)
    codebook = Codebook(16, 2, **keys)
    for number in range(9):
        if number == restart_at:
            saved = copy.deepcopy(codebook.state_dict())
            codebook = Codebook(16, 2, **keys)
            codebook.load_state_dict(saved)
        torch.manual_seed(100 * (micro or 0) + number + (share.start or 0))  # the stage seeds by micro-batch and rank
        step(codebook, draw(8, 2, 3, 3, seed=number)[share] * (1 + number), micro)
    return codebook.state_dict()


@each_way
def test_four_micro_batches_of_2_are_one_batch_of_8(keys):
    whole, parts = run(keys), run(keys, micro=2)
    assert whole["steps"] == 9
    assert [name for name, value in whole.items() if not torch.equal(value, parts[name])] == []


@each_way
@pytest.mark.parametrize("restart_at", [1, 2, 4, 7])
def test_a_codebook_goes_on_after_a_restart_as_if_nothing_had_been(keys, restart_at):
    whole, again = run(keys), run(keys, restart_at=restart_at)
    assert [name for name, value in whole.items() if not torch.equal(value, again[name])] == []


def _on_a_rank(rank: int, file: str, out) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    out[rank] = [run(keys, slice(4 * rank, 4 * rank + 4), micro) for keys in WAYS for micro in (None, 2)]
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="starts processes with a file as their meeting place")
def test_two_ranks_of_4_are_one_of_8_also_in_micro_batches(tmp_path):
    with multiprocessing.Manager() as manager:
        out = manager.dict()
        multiprocessing.spawn(_on_a_rank, args=(str(tmp_path / "meeting"), out), nprocs=2)
        first, second = out[0], out[1]
    expected = [run(keys) for keys in WAYS for _ in range(2)]
    assert len(first) == len(expected) == 8
    for alone, one, other in zip(expected, first, second, strict=True):
        for name, value in alone.items():
            assert torch.equal(one[name], other[name]), name
            torch.testing.assert_close(one[name], value, msg=lambda text, name=name: f"{name}: {text}")


# -- states --------------------------------------------------------------------


@pytest.mark.parametrize("keys", [{}, {"learning": "ema"}, {"kmeans": 3}, {"learning": "ema", "kmeans": 3}])
def test_codes_without_counters_are_a_trained_codebook_that_is_not_thrown_away(keys):
    codebook, weight = Codebook(4, 2, **keys), draw(4, 2)
    codebook.load_state_dict({"embedding.weight": weight})
    features = as_map(weight[:1] + 0.01)
    assert step(codebook, features) == {} and step(codebook, features) == {}
    torch.testing.assert_close(codebook.embedding.weight.data, weight, atol=0.01, rtol=0)


def test_a_state_comes_back_whole():
    keys = {"learning": "ema", "kmeans": 3}
    codebook, other = Codebook(4, 2, **keys), Codebook(4, 2, **keys)
    step(codebook, draw(8, 2, 2, 2))
    other.load_state_dict(codebook.state_dict())
    assert set(codebook.state_dict()) == {"embedding.weight", "uses", "steps", "counts", "sums", "gathered", "filled"}
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in codebook.state_dict().items())


def test_a_loaded_state_dict_is_not_changed():
    given = {"embedding.weight": draw(4, 2)}
    Codebook(4, 2).load_state_dict(given)
    assert set(given) == {"embedding.weight"}
